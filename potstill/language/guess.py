"""Which language a text is in, as far as its script and its commonest words tell.

A filter for teachers that slip into another language, not an identifier: it answers only when the evidence is clear
and gives None otherwise, so that short or mixed texts pass. Scripts are counted by Unicode block; among languages
of the Latin and Cyrillic scripts, function words that few other languages share are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

_SCRIPTS: tuple[tuple[int, int, str], ...] = (
    (0x0041, 0x024F, "latin"), (0x0370, 0x03FF, "greek"), (0x0400, 0x052F, "cyrillic"), (0x0530, 0x058F, "armenian"),
    (0x0590, 0x05FF, "hebrew"), (0x0600, 0x06FF, "arabic"), (0x0900, 0x097F, "devanagari"),
    (0x0980, 0x09FF, "bengali"), (0x0A00, 0x0A7F, "gurmukhi"), (0x0A80, 0x0AFF, "gujarati"), (0x0B80, 0x0BFF, "tamil"),
    (0x0C00, 0x0C7F, "telugu"), (0x0C80, 0x0CFF, "kannada"), (0x0D00, 0x0D7F, "malayalam"), (0x0E00, 0x0E7F, "thai"),
    (0x10A0, 0x10FF, "georgian"), (0x1E00, 0x1EFF, "latin"), (0x3040, 0x30FF, "kana"), (0x4E00, 0x9FFF, "han"),
    (0x3400, 0x4DBF, "han"), (0xAC00, 0xD7AF, "hangul"), (0x1100, 0x11FF, "hangul"),
)  # fmt: skip

_SCRIPT_OF: dict[str, str] = {
    "el": "greek", "hy": "armenian", "he": "hebrew", "yi": "hebrew", "ar": "arabic", "fa": "arabic", "ur": "arabic",
    "ps": "arabic", "hi": "devanagari", "mr": "devanagari", "ne": "devanagari", "sa": "devanagari", "bn": "bengali",
    "as": "bengali", "pa": "gurmukhi", "gu": "gujarati", "ta": "tamil", "te": "telugu", "kn": "kannada",
    "ml": "malayalam", "th": "thai", "ka": "georgian", "ja": "kana", "zh": "han", "ko": "hangul", "ru": "cyrillic",
    "uk": "cyrillic", "bg": "cyrillic", "sr": "cyrillic", "mk": "cyrillic", "be": "cyrillic", "kk": "cyrillic",
    "ky": "cyrillic", "mn": "cyrillic", "tg": "cyrillic",
}  # fmt: skip

_FUNCTION_WORDS: dict[str, str] = {
    "en": "the of and to in is you that it he was for on are with as his they be at this have from by not what were "
    "we when your can there an which she how their if will do would my me has her who",
    "de": "der die und das ist nicht ein eine den zu mit sich auf für von dem im des sie wir ihr auch aus bei nach wie "
    "noch nur wird sind haben ich mir mich über oder aber wenn dass kann einen einer",
    "fr": "le les des est et un une du dans que pour qui pas sur il elle nous vous ce cette au aux avec sont ne plus "
    "mais ou je mon ma mes ses leur être avoir fait très tout été",
    "es": "el los las de que y es en un una por con para su al lo como más pero sus le ya este sí porque esta entre "
    "cuando muy sin sobre también me hasta hay donde quien está son",
    "it": "il di che è e la per un una non sono con mi si lo ho ha ma gli alla della dei del nel come anche più questo "
    "questa perché molto sono delle degli era cosa io tu lui",
    "pt": "o os as de que e do da em um para é com não uma na no se mais dos como mas foi ao ele das tem seu sua ou "
    "ser quando muito há nos já está eu também pelo pela até isso você",
    "nl": "de het een en van ik te dat die in is niet op aan met als voor zijn er maar om hem dan zou of wat mijn deze "
    "ook naar heb ze nog worden kan geen wel hebben bij wordt je",
    "sv": "och att det som en på är av för med den till inte om ett han men var jag sig från vi så kan när år under "
    "också efter eller har hade skulle mig denna detta",
    "da": "og i at det er en til på som af for den med de der ikke et han var jeg men fra vi kan har om havde efter "
    "også eller sig hun mig dig blev meget nu",
    "pl": "i w nie na się że jest do z to jak co po ale o tym dla od za ich był jego już tylko są może przez być ma "
    "jej też gdy które która który",
    "cs": "a se na je že to v s z do o i jak ale pro jsem by co tak po si byl jsou jako která které nebo už mi jeho "
    "když být má není",
    "ro": "și de la în a nu că pe cu un o din este care mai pentru fi sunt ca să sau dar au fost lui această acest "
    "când ce dacă foarte după",
    "tr": "ve bir bu da de için ile çok ne daha gibi ama var o mi ben sonra kadar olarak olan en her şey değil ya "
    "yok bana ki hem oldu",
    "fi": "ja on ei että se hän oli mutta kun niin ovat myös kuin joka tai jos mitä sen minä hänen olen tämä ole "
    "voi vain nyt ollut",
    "hu": "a az és nem hogy egy is van ez de meg azt már csak mint ki ha volt vagy még lesz minden nagyon amely után "
    "kell itt",
    "id": "yang dan di itu dengan untuk tidak dari dalam akan pada ini juga ke karena ada mereka sudah saya bisa atau "
    "adalah kami oleh telah lebih",
    "vi": "và của là không có được cho một những người này trong các đã với khi để tôi cũng như ở anh đó nhiều",
    "ru": "и в не на что я он с как это по но они мы все она так его за был от то же у из ты бы только для",
    "uk": "і в не на що я з як це та він до але вони ми все так його за був від у із ти би тільки для є",
    "bg": "и на не да се е в за от че с са по като това но аз той тя ние ги ще има беше му при до",
}
# What leads to an English prompt's labels, and stands in it for that reason: "as spam or no spam".
_LEADS = frozenset(("as", "no", "in", "or"))
# Of a prompt's words also these are English and nothing else.
_ENGLISH = frozenset(
    (
        "or",
        "and",
        "classify",
        "categorise",
        "categorize",
        "rewrite",
        "translate",
        "summarise",
        "summarize",
        "write",
        "tell",
    )
    + ("detect", "identify", "judge", "please", "whether", "each", "following")
)
# What tasks are told with: verbs, and the nouns of texts and languages. None is an English word.
_TASK_WORDS: dict[str, str] = {
    "de": "fasse fass zusammen übersetze übersetz schreibe schreib beantworte beantwort antworte antwort korrigiere "
    "verbessere vereinfache klassifiziere ordne bestimme erkenne erkläre formuliere extrahiere nenne gib erstelle "
    "wandle bewerte prüfe ergänze kürze satz sätze sätzen artikel frage fragen wort wörter texts textes deutsch "
    "englisch deutsche englische zusammenfassung rechtschreibung grammatik überschrift kurz kurze antworten "
    "nachricht nachrichten kommentar kommentare rezension rezensionen bewertung bewertungen absatz abschnitt vertrag "
    "rechnung diese dieser dieses anhand zahl entscheide prüfe wörtern",
    "fr": "résume résumez résumer traduis traduisez traduire écris écrivez écrire corrige corrigez corriger réponds "
    "répondez répondre classe classez classer extrais extrayez simplifie simplifiez reformule reformulez explique "
    "expliquez donne donnez rédige rédigez trouve trouvez complète décris décrivez texte mot mots deux trois anglais "
    "français fautes orthographe titre réponse résumé avis courriel "
    "si courriels commentaire commentaires contrat facture paragraphe uniquement seulement cet décide nombre chiffre",
    "es": "traduce traduzca traducir resume resuma resumir escribe escriba escribir corrige corrija corregir responde "
    "responda clasifica clasifique extrae extraiga simplifica reformula explica describe redacta encuentra genera "
    "frase frases texto textos artículo pregunta preguntas palabra palabras oración inglés español dos tres resumen "
    "título correo reseña "
    "reseñas mensaje mensajes comentario comentarios contrato factura párrafo pasaje número únicamente devuelve "
    "determina noticia noticias si "
    "indica extraer fechas nombres",
    "it": "riassumi riassumere traduci tradurre scrivi scrivere correggi correggere rispondi rispondere classifica "
    "estrai semplifica riformula spiega descrivi redigi trova genera frase frasi testo testi articolo domanda domande "
    "parola parole inglese italiano due tre riassunto titolo recensione "
    "recensioni messaggio messaggi commento commenti contratto fattura paragrafo brano dal dalla dai formato numero "
    "soltanto restituisci decidi indica stabilisci notizia notizie se",
    "pt": "resuma resumir traduza traduzir escreva escrever corrija corrigir responda responder classifique extraia "
    "simplifique reformule explique descreva redija encontre gere frase frases texto textos artigo pergunta perguntas "
    "palavra palavras inglês português duas dois três título resumo avaliação "
    "avaliações mensagem mensagens comentário comentários contrato fatura parágrafo trecho número apenas devolva "
    "retorne decida indique extrair datas nomes",
    "nl": "vat samen vertaal schrijf verbeter beantwoord antwoord classificeer vereenvoudig herschrijf leg geef maak "
    "zin zinnen tekst teksten artikel vraag vragen woord woorden engels nederlands één twee samenvatting titel "
    "bericht berichten reactie reacties alinea getal alleen deze dit bepaal beslis woorden "
    "beoordeel recensie recensies sterren",
    "sv": "sammanfatta översätt skriv rätta besvara svara klassificera förenkla förklara mening meningar text texten "
    "artikel artikeln fråga frågan engelska svenska två",
    "da": "sammenfat opsummer oversæt skriv ret besvar svar klassificer forenkl forklar sætning sætningen sætninger "
    "teksten artikel artiklen spørgsmål spørgsmålet engelsk dansk én to",
    "pl": "podsumuj streść przetłumacz napisz popraw odpowiedz sklasyfikuj uprość wyjaśnij zdanie zdaniu zdaniach "
    "zdania tekst tekstu artykuł artykułu pytanie pytania angielski polski jednym dwóch",
    "cs": "shrň shrňte přelož přeložte napiš napište oprav opravte odpověz odpovězte zjednoduš vysvětli větu věty "
    "větě článek článku otázku otázky angličtiny češtiny jedné dvou",
    "ro": "rezumă rezumați tradu traduceți scrie scrieți corectează răspunde clasifică simplifică explică propoziție "
    "propoziția propoziții articolul întrebare întrebarea engleză română două într",
    "tr": "özetle özetleyin çevir çevirin yaz yazın düzelt düzeltin cevapla yanıtla sınıflandır açıkla basitleştir "
    "cümle cümleyi cümleyle cümlede metni metin makaleyi makale soruyu ingilizceye ingilizce türkçe türkçeye",
    "fi": "tiivistä käännä kirjoita korjaa vastaa luokittele yksinkertaista selitä lause lauseen lauseeseen lauseella "
    "teksti tekstin artikkeli artikkelin kysymys kysymykseen englanniksi suomeksi yhteen yhdellä kahdella",
    "hu": "foglald össze fordítsd fordíts írj írd javítsd válaszolj osztályozd egyszerűsítsd magyarázd mondat mondatot "
    "mondatban szöveget cikket kérdésre kérdést angolra magyarra két le",
    "id": "ringkas ringkaslah terjemahkan tulis tulislah perbaiki jawab jawablah klasifikasikan sederhanakan jelaskan "
    "kalimat teks artikel pertanyaan bahasa inggris satu dua dalam",
    "vi": "tóm tắt dịch viết sửa trả lời phân loại giải thích câu văn bản bài báo hỏi sang tiếng anh việt hai",
    "ru": "перескажи обобщи переведи напиши исправь ответь классифицируй объясни предложение предложении текст статью "
    "вопрос английский русский одном двух кратко",
    "uk": "підсумуй переклади напиши виправ відповідай класифікуй поясни речення реченням реченні текст статтю питання "
    "англійську українську одним двох стисло",
    "bg": "обобщи преведи напиши поправи отговори класифицирай обясни изречение изречението текста статията въпроса "
    "английски български едно две",
}
# Letters of Cyrillic that tell by themselves.
_CYRILLIC_LETTERS = (("uk", "іїєґ"), ("sr", "ђјљњћџ"), ("ru", "ыэё"))
# Verbs that open a task of sorting and are no English word; a form that two languages share stands in both.
SORTING_VERBS = {
    "de": r"klassifizier(?:e|en|t)|kategorisier(?:e|en|t)|ordne|ordnen|sortier(?:e|en|t)",
    "fr": r"class(?:e[rz]?|ifie[rz]?)|catégorise[rz]?|triez?|étiquette[rz]?",
    "es": r"clasifi(?:ca[rd]?|quen?)|categori(?:zar?|cen?)|etiqueta[rd]?|etiqueten?",
    "it": r"classifica(?:re|te)?|categorizza(?:re|te)?|smista(?:re|te)?|etichetta(?:re|te)?",
    "pt": r"classifi(?:car?|quem?)|categorizar?|etiquetar?|etiquetem?",
    "nl": r"classificeer|categoriseer|sorteer",
}
_POLITE = r"\W*(?:(?:bitte|por favor|s'il (?:te|vous) plaît|per favore|alsjeblieft|alstublieft),?\s+)?"
_WORDS = re.compile(r"[^\W\d_]+")
_MAX_CHARS = 4_000


@cache
def _owners(tasks: bool = False) -> dict[str, tuple[str, ...]]:
    """The languages of each word; `tasks` adds what tasks are told with."""
    owners: dict[str, list[str]] = {}
    for code, words in _FUNCTION_WORDS.items():
        for word in {*words.split(), *(_TASK_WORDS.get(code, "").split() if tasks else ())}:
            owners.setdefault(word, []).append(code)
    return {word: tuple(codes) for word, codes in owners.items()}


def script_shares(text: str) -> dict[str, float]:
    """Share of each script among the letters of a text."""
    text = text[:_MAX_CHARS]
    if text.isascii():
        return {"latin": 1.0} if any(char.isalpha() for char in text) else {}
    counts: Counter[str] = Counter()
    for char in text:
        if char.isalpha():
            point = ord(char)
            counts[next((name for low, high, name in _SCRIPTS if low <= point <= high), "other")] += 1
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def guess_language(text: str) -> str | None:
    """ISO 639-1 code of a text in the Latin or Cyrillic script, or None where the words do not tell.

    Examples:
        >>> guess_language("Ich habe das nicht gewusst, aber es ist so.")
        'de'
    """
    scores: Counter[str] = Counter()
    words = _WORDS.findall(text[:_MAX_CHARS].lower())
    distinct: Counter[str] = Counter()
    for word, count in Counter(words).items():
        codes = _owners().get(word, ())
        for code in codes:
            # One letter said twenty times is no sentence: repeats count little.
            scores[code] += min(count, 3) / len(codes)  # type: ignore[assignment]
            distinct[code] += 1
    if len(words) < 5 or not scores:
        return None
    (best, first), *rest = scores.most_common(2)
    second = rest[0][1] if rest else 0.0
    if distinct[best] < 3:
        return None
    return best if first >= 3 and first >= 1.6 * second and first >= 0.08 * len(words) else None


def prompt_language(text: str) -> str | None:
    """ISO 639-1 code of a task's own words, which may be few; None where they do not tell.

    A sentence of seven words holds two or three function words, too few for `guess_language`: here words that tasks
    are told with ("fasse", "zusammen") count too, and another language than English is believed from two of all these
    on, where English has at most half as many; from three on where a word stands beside them that is English alone.
    Words that lead an English prompt to its labels ("as", "no") prove nothing by themselves. A verb that opens a task
    of sorting (`SORTING_VERBS`) is proof enough.

    Examples:
        >>> prompt_language("Schreibe zu einer Fehlermeldung eine kurze Überschrift.")
        'de'
        >>> prompt_language("Classify support tickets as billing, bug or other.") is None
        True
    """
    shares = script_shares(text)
    script = max(shares, key=lambda name: shares[name], default="latin")
    if "kana" in shares and script != "latin":
        return "ja"
    if script not in ("latin", "cyrillic"):
        return next((code for code, name in _SCRIPT_OF.items() if name == script), None)
    words = set(_WORDS.findall(text[:_MAX_CHARS].lower()))
    scores: Counter[str] = Counter()
    said: dict[str, set[str]] = {}
    for word in words:
        codes = _owners(tasks=True).get(word, ()) if len(word) > 1 or script != "latin" else ()  # "user's" is no Czech
        for code in codes:
            scores[code] += 1 / len(codes)  # type: ignore[assignment]
            said.setdefault(code, set()).add(word)
    opened = [
        code for code, verbs in SORTING_VERBS.items() if re.match(rf"{_POLITE}(?:{verbs})\b", text, re.IGNORECASE)
    ]
    if opened and not words & _ENGLISH:
        return max(opened, key=lambda code: scores[code])
    ranked = sorted(
        ((score, code) for code, score in scores.items() if _SCRIPT_OF.get(code, "latin") == script),
        key=lambda item: (-item[0], item[1] != "en", item[1]),  # of equals the same in every process
    )
    letters = next((code for code, own in _CYRILLIC_LETTERS if set(own) & set(text.lower())), None)
    if script == "cyrillic" and letters is not None:
        return letters
    cyrillic = "ru"
    if not ranked:
        return cyrillic if script == "cyrillic" else None
    (score, best), second = ranked[0], ranked[1][0] if len(ranked) > 1 else 0.0
    if best == "en":
        return "en" if len(said["en"]) >= 2 else None
    english = words & _ENGLISH | said.get("en", set())
    proofs = said[best] - _LEADS
    enough = len(proofs) >= 3 if english - said[best] else bool(proofs) and len(said[best]) >= 2
    clear = enough and score >= max(2 * scores["en"], 1.2 * second, 1.5 if scores["en"] else 1.0)
    return best if clear else (cyrillic if script == "cyrillic" else None)


def may_speak(text: str, language: str) -> bool:
    """Whether a prompt has a word of a language that is no English one, and none that is English alone.

    Examples:
        >>> may_speak("Write it in JSON.", "de"), may_speak("In JSON, nur bitte.", "de")
        (False, True)
    """
    words = set(_WORDS.findall(text[:_MAX_CHARS].lower()))
    owners = {word: _owners(tasks=True).get(word, ()) for word in words if len(word) > 1}
    if words & _ENGLISH or ("en",) in owners.values():
        return False
    return any(language in codes and "en" not in codes for codes in owners.values())


def other_language(text: str, allowed: tuple[str, ...]) -> str | None:
    """What the text is in when that is clearly none of `allowed`: a language code or a script's name; else None.

    Args:
        text: Any text.
        allowed: ISO 639-1 codes; empty allows everything.
    """
    if not allowed:
        return None
    shares = script_shares(text)
    if not shares:
        return None
    scripts = {_SCRIPT_OF.get(code, "latin") for code in allowed}
    if "ja" in allowed:
        scripts |= {"han", "latin"}
    if "sr" in allowed:
        scripts.add("latin")
    foreign = sum(share for name, share in shares.items() if name not in scripts and name != "latin")
    # Names, units and code bring Latin letters into every language; text written wholly in them is another matter.
    if "latin" not in scripts and shares.get("latin", 0.0) > 0.9 and len(_WORDS.findall(text[:_MAX_CHARS])) >= 5:
        return guess_language(text) or "latin"
    if foreign > 0.3:
        return max((name for name in shares if name not in scripts), key=lambda name: shares[name])
    guess = guess_language(text)
    if guess is not None and guess not in allowed and all(c in _FUNCTION_WORDS or c in _SCRIPT_OF for c in allowed):
        return guess
    return None


def own_language(text: str, allowed: tuple[str, ...]) -> bool:
    """Whether a text is clearly in one of `allowed` (ISO 639-1 codes): by its words, or by its script."""
    if guess_language(text) in allowed:
        return True
    scripts = {_SCRIPT_OF[code] for code in allowed if code in _SCRIPT_OF}
    return sum(share for name, share in script_shares(text).items() if name in scripts) > 0.5
