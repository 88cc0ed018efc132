"""How Italian prompts say what they ask for."""

from __future__ import annotations

from potstill.language.speech.base import Speech

SPEECH = Speech(
    kinds={
        "sentence": "frase/frasi",
        "question": "domanda/domande",
        "review": "recensione/recensioni/critica/critiche",
        "message": "messaggio/messaggi/sms",
        "request": "richiesta/richieste",
        "email": "e-mail/email/mail",
        "comment": "commento/commenti",
        "tweet": "tweet",
        "article": "articolo/articoli/notizia/notizie",
        "headline": "titolo/titoli",
        "paragraph": "paragrafo/paragrafi",
        "passage": "brano/brani/passaggio/passaggi/passo/estratto/estratti",
        "context": "contesto",
        "document": "documento/documenti",
        "ticket": "ticket",
        "story": "storia/storie/racconto/racconti",
        "letter": "lettera/lettere",
        "report": "rapporto/rapporti/relazione/relazioni",
        "invoice": "fattura/fatture",
        "contract": "contratto/contratti",
        "dialogue": "dialogo/dialoghi/conversazione/conversazioni",
        "statement": "affermazione/affermazioni/enunciato/enunciati",
        "complaint": "reclamo/reclami",
        "recipe": "ricetta/ricette",
        "poem": "poesia/poesie",
        "post": "post",
        "description": "descrizione/descrizioni",
        "word": "parola",
        "text": "testo/testi",
    },
    numbers=(
        "un/una/uno/sola/solo/singola/unica due tre quattro cinque sei sette otto nove dieci dodici=12 quindici=15"
        " venti=20 trenta=30 quaranta=40 cinquanta=50 cento=100"
    ),
    sentences="(?:frasi|frase|periodi|periodo)",
    words=r"(?:parole|parola)\b(?! chiave)",
    points="(?:punti elenco|punti chiave|punti|punto)",
    into="in|con",
    most=r"(?:al massimo|massimo|max\.?|non più di|fino a|al più|senza superare le)",
    most_behind="(?:al massimo|massimo|max|o meno)",
    under="(?:meno di)",
    about="(?:circa|all'incirca|intorno a|approssimativamente)",
    adjectives="(?:brev[ei]|cort[ae]|chiar[ae]|semplic[ei]|complet[ae]|sola|singola|unica|concis[ae])",
    one_word=r"\b(?:in|con) (?:una (?:sola |singola |unica )?|1 )parola\b(?! chiave)",
    json=(
        r"(?:\b(?:come|in) (?:(?:un|formato|oggetto|array) )*json\b(?! lines)|\b(?:restitui\w+|scriv\w+|gener\w+"
        r"|produ\w+|rispondi) (?:\w+ ){0,3}json\b)"
    ),
    number=(
        r"\b(?:solo|soltanto|solamente|unicamente|esclusivamente) (?:con )?(?:il|un) numero\b(?! di\b)"
        r"|\brispondi (?:con )?(?:un|il) numero\b(?! di\b| e\b)"
    ),
    question=(
        r"\b(?:scriv\w+|poni|ponete|formul\w+|gener\w+|cre[ai]\w*|propon\w+|invent\w+|redig\w+|fai) (?:una"
        r"|1) (?:\w+ ){0,2}?domanda\b(?! (?:e|o)\b)"
    ),
    within=(
        r"\b(?:frammento|passaggio|citazione|testo|parole|frase|brano) (?:esatt[aoei]|letteral[ei]|testual[ei])\b"
        r"|\b(?:parola per parola|testualmente|letteralmente|alla lettera|verbatim)\b"
    ),
    several=r"\b(?:tutt[ei] (?:i|gli|le)|ogni|divers[ei]|separat[aeio] da|elenco|lista|frammenti|citazioni|passaggi)\b",
    works_on="trova|cerca|correggi|conta|traduci|segna|evidenzia|sostituisci|identifica|individua|estrai|rileva",
    when="se|altrimenti|in caso|quando|oppure",
    gives=r"scriv\w+|rispond\w+|di'|dì|restitui\w+|metti|indica|usa|dai",
    writes=r"scriv\w+|redig\w+|formul\w+|gener\w+|crea\w*|propon\w+|invent\w+|dai|poni|fai|compon\w+",
    to="per|a|al|di|da|dal|dalla|del|della|su|sul|sulla|con",
    the="il|lo|la|i|gli|le|l'",
    answers="rispond(?:i|ere|a|ete)",
    answers_from="usando|utilizzando|in base|secondo|dal|dalla|sulla base|a partire|con|basandoti|basandosi|sul|sulla",
    two="(?:due|coppie? di|entramb[ei])",
    compares="se|è|sono|confronta|tra|fra|classifica|quale",
    first="prim[ao]",
    second="second[ao]",
    yes_no=("sì", "no"),
    whether=r"\b(?:decid|determin|indic|stabili|di'|dì|^di|verific|valut|rilev|giudic)\w* se\b",
    opens_yes_no=(
        r"^(?:(?:il|la|lo|i|gli|le|un|una|quest[oaei]) [^?,:]{1,60}? |(?:l'|quest')[^?,:]{1,60}? )?"
        r"(?:è|sono|contiene|ha|parla|menziona|esprime|si tratta)\s"
    ),
    interrogatives=r"\b(?:che cosa|cosa|chi|come|quando|dove|qual[ei]?|quant[oiae]|perché)\b",
    sorts="classific|categorizz|smist|etichett",
    writes_text="scriv|redig|riassum|traduc|gener|propon|descriv|spieg|rispond|compon|riformul|invent",
    translates="traduc",
    rates=r"\b(?:valut|assegna)\w*|\bstell[ae]\b",
    stars=r"\bstell[ae]\b",
    value=r"\b(?:solo|soltanto|unicamente) (?:la |il |l'|lo )(?:data|importo|anno|somma|prezzo|ora)\b",
    either="o|oppure",
    choice=r"\b(?:è|sono)\s+",
    sorted_into="come|in|tra|fra",
    both="e",
)
