"""Prompts in other languages than English: kind, labels, fields, metric, what inputs are called, the outputs' form."""

from __future__ import annotations

import pytest

from potstill.datagen.asked_form import AskedForm, asked_form
from potstill.datagen.wording import input_noun
from potstill.language.form_words import said_form
from potstill.task import TaskSpec
from potstill.task.file import read_task

# A prompt; its labels; its fields; the metric; what an input is called; the form of its outputs.
GENERATION = [
    ("Fasse den Artikel in einem Satz zusammen.", "", "rouge_l", "article", "at most 1 sentence"),
    ("Fasse den Text in höchstens 30 Wörtern zusammen.", "", "rouge_l", "text", "at most 30 words"),
    ("Kürze die Produktbeschreibung auf maximal 50 Wörter.", "", "rouge_l", "description", "at most 50 words"),
    (
        "Schreiben Sie eine Zusammenfassung des Berichts in zwei bis drei Sätzen.",
        "",
        "rouge_l",
        "report",
        "at most 3 sentences",
    ),
    (
        "Beantworte die Frage anhand des Textes. Die Antwort ist eine wörtliche Stelle des Textes.",
        "text question",
        "token_f1",
        "question",
        "a part of the input",
    ),
    (
        "Extrahiere Datum und Betrag aus der Rechnung und gib sie als JSON zurück.",
        "",
        "exact_match",
        "invoice",
        "JSON",
    ),
    ("Schreibe zu einem Absatz eine Frage, die er beantwortet.", "", "rouge_l", "paragraph", "a question"),
    ("Übersetze den Satz ins Englische.", "", "chrf", "sentence", ""),
    ("Formuliere den Satz höflicher um.", "", "rouge_l", "sentence", ""),
    ("Liste die Zutaten des Rezepts in fünf Stichpunkten auf.", "", "rouge_l", "recipe", "5 bullet points"),
    ("Résume l'article en une seule phrase.", "", "rouge_l", "article", "at most 1 sentence"),
    ("Rédigez un titre de dix mots maximum pour l'article.", "", "rouge_l", "article", "at most 10 words"),
    ("Extrais les noms et les dates du contrat au format JSON.", "", "exact_match", "contract", "JSON"),
    ("Écris une question à laquelle le paragraphe répond.", "", "rouge_l", "paragraph", "a question"),
    ("En t'appuyant sur le document, réponds à la question.", "document question", "rouge_l", "document", ""),
    ("Résume le texte en trois points au maximum.", "", "rouge_l", "text", "1 to 3 bullet points"),
    ("Donne la réponse en un mot.", "", "exact_match", "text", "at most 1 word"),
    ("Traduis la phrase en anglais.", "", "chrf", "sentence", ""),
    ("Resume el artículo en dos frases.", "", "rouge_l", "article", "at most 2 sentences"),
    ("Responde a la pregunta usando el texto.", "text question", "rouge_l", "question", ""),
    (
        "Extrae de cada correo el nombre y el importe, y devuélvelos como JSON.",
        "",
        "exact_match",
        "email",
        "JSON",
    ),
    ("Escribe un titular de menos de 10 palabras para la noticia.", "", "rouge_l", "article", "at most 9 words"),
    ("Resuelve el problema y responde solo con el número.", "", "exact_match", "text", "a number"),
    ("Convierte la fecha al formato ISO y devuelve solo la fecha.", "", "exact_match", "text", ""),
    ("Escribe tres palabras clave para el artículo.", "", "rouge_l", "article", ""),
    ("Riassumi l'articolo in una frase.", "", "rouge_l", "article", "at most 1 sentence"),
    ("Rispondi alla domanda usando il brano.", "passage question", "rouge_l", "question", ""),
    ("Estrai le date dal contratto in formato JSON.", "", "exact_match", "contract", "JSON"),
    ("Scrivi un titolo per la notizia, al massimo 12 parole.", "", "rouge_l", "article", "at most 12 words"),
    ("Escreva um resumo do relatório em até 60 palavras.", "", "rouge_l", "report", "at most 60 words"),
    ("Com base no parágrafo, responda à pergunta.", "paragraph question", "rouge_l", "paragraph", ""),
    ("Gere uma pergunta sobre o trecho.", "", "rouge_l", "passage", "a question"),
    ("Vat het artikel samen in één zin.", "", "rouge_l", "article", "at most 1 sentence"),
    ("Beantwoord de vraag aan de hand van de tekst.", "text question", "rouge_l", "question", ""),
    ("Bedenk een vraag bij de alinea.", "", "rouge_l", "paragraph", "a question"),
    ("Кратко изложи текст не более чем в двух предложениях.", "", "rouge_l", "text", "at most 2 sentences"),
    ("Ответь одним словом на вопрос по отрывку.", "passage question", "exact_match", "question", "at most 1 word"),
    ("Извлеки имена и верни их в формате JSON.", "", "exact_match", "text", "JSON"),
    ("Переведи предложение на английский.", "", "chrf", "sentence", ""),
    ("请用不超过二十个字概括这篇新闻。", "", "rouge_l", "article", "at most 20 words"),
    ("用一句话总结文章。", "", "rouge_l", "article", "at most 1 sentence"),
    ("根据文章回答问题。", "article question", "rouge_l", "article", ""),
    ("提取姓名和日期，以JSON格式返回。", "", "exact_match", "text", "JSON"),
    ("为这段文字写一个问题。", "", "rouge_l", "text", "a question"),
    ("記事を一文で要約してください。", "", "rouge_l", "article", "at most 1 sentence"),
    ("次の文章を30字以内で要約してください。", "", "rouge_l", "passage", "at most 30 words"),
    ("文章に基づいて質問に答えてください。", "passage question", "rouge_l", "passage", ""),
    ("数字だけを答えてください。", "", "exact_match", "text", "a number"),
    ("文を英語に翻訳してください。", "", "chrf", "sentence", ""),
    ("Zitiere wörtlich die Stelle im Vertrag, die gilt.", "", "token_f1", "contract", "a part of the input"),
    ("Cite mot pour mot le passage du contrat.", "", "token_f1", "passage", "a part of the input"),
    ("Renvoie uniquement le montant de la facture.", "", "exact_match", "invoice", ""),
    ("Reescribe la frase en voz pasiva.", "", "rouge_l", "sentence", ""),
    ("Rispondi al reclamo del cliente in massimo tre frasi.", "", "rouge_l", "complaint", "at most 3 sentences"),
    ("苦情に対する丁寧な返信を3文以内で書いてください。", "", "rouge_l", "complaint", "at most 3 sentences"),
]
CLASSIFICATION = [
    ("Ist diese Nachricht Spam?", "ja nein", "", "message"),
    ("Prüfe, ob die Rezension Ironie enthält.", "ja nein", "", "review"),
    ("Klassifiziere Kundenbewertungen als positiv oder negativ.", "positiv negativ", "", "review"),
    ("Welche Emotion drückt der Tweet aus: Freude, Wut oder Trauer?", "Freude Wut Trauer", "", "tweet"),
    (
        "Entscheide, ob zwei Fragen dasselbe fragen: ja oder nein.",
        "ja nein",
        "question1 question2",
        "pair of questions",
    ),
    (
        "Entscheide, ob die zweite Aussage aus der ersten folgt: ja, nein oder unklar.",
        "ja nein unklar",
        "statement1 statement2",
        "pair of statements",
    ),
    (
        "Gegeben sind eine Prämisse und eine Hypothese. Klassifiziere: Folgerung, neutral, Widerspruch.",
        "Folgerung neutral Widerspruch",
        "premise hypothesis",
        "text",
    ),
    ("Ce message est-il du spam ?", "oui non", "", "message"),
    ("Indique si le commentaire est haineux.", "oui non", "", "comment"),
    ("Classe les avis de clients : positif, négatif ou neutre.", "positif négatif neutre", "", "review"),
    (
        "Compare les deux phrases et dis si elles ont le même sens : oui ou non.",
        "oui non",
        "sentence1 sentence2",
        "pair of sentences",
    ),
    ("¿Es este mensaje spam?", "sí no", "", "message"),
    ("Determina si la noticia es falsa.", "sí no", "", "article"),
    ("Questa recensione è positiva?", "sì no", "", "review"),
    ("Stabilisci se l'email è spam.", "sì no", "", "email"),
    ("Verifique se a mensagem contém uma reclamação.", "sim não", "", "message"),
    ("Bevat dit bericht een belediging?", "ja nee", "", "message"),
    ("Bepaal of de recensie positief is.", "ja nee", "", "review"),
    ("Определи, является ли сообщение спамом.", "да нет", "", "message"),
    ("Классифицируй отзывы: положительный, отрицательный.", "положительный отрицательный", "", "review"),
    ("判断这条短信是否为垃圾短信。", "是 否", "", "message"),
    ("将评论分类为正面或负面。", "正面 负面", "", "review"),
    ("このメールはスパムですか？", "はい いいえ", "", "email"),
    ("このレビューは肯定的ですか、それとも否定的ですか？", "肯定的 否定的", "", "review"),
    ("请判断两个句子的意思是否相同。", "是 否", "sentence1 sentence2", "pair of sentences"),
    ("¿La opinión es favorable al producto?", "sí no", "", "review"),
    ("Di se il commento è offensivo.", "sì no", "", "comment"),
    ("A mensagem é um golpe?", "sim não", "", "message"),
    ("Ordne jede Schlagzeile zu: Politik, Sport oder Kultur.", "Politik Sport Kultur", "", "headline"),
]


@pytest.mark.parametrize(("prompt", "fields", "metric", "noun", "form"), GENERATION)
def test_what_a_prompt_asks_to_be_written(prompt: str, fields: str, metric: str, noun: str, form: str) -> None:
    spec = read_task(prompt)
    assert (spec.kind, spec.metric, spec.inputs) == ("generation", metric, tuple(fields.split()))
    assert asked_form(spec.instruction).told() == form
    # Of a question and its text either may name the input: both are written under their fields' names.
    assert input_noun(spec) == noun or spec.inputs


@pytest.mark.parametrize(("prompt", "labels", "fields", "noun"), CLASSIFICATION)
def test_what_a_prompt_asks_to_be_sorted(prompt: str, labels: str, fields: str, noun: str) -> None:
    spec = read_task(prompt)
    assert spec.kind == "classification"
    assert [label.name for label in spec.labels] == labels.split()
    assert spec.inputs == tuple(fields.split())
    assert input_noun(spec) == noun


@pytest.mark.parametrize(
    "prompt",
    [
        "Finde die Rechtschreibfehler in zwei Sätzen.",
        "Trouve les erreurs dans deux phrases.",
        "Corrige los errores de ortografía en dos frases.",
        "Schreibe eine Antwort auf eine Frage der Kundin.",
        "Écris une réponse à une question.",
        "Beschreibe die Umfrage.",
        "Escreva um texto com palavras-chave.",
        "Turn a JSON object into a sentence.",
        "Extract all company names verbatim, separated by commas.",
        "Find the error in two sentences.",
        "在两个句子中找出错误。",
    ],
)
def test_nothing_is_read_into_words_about_the_input(prompt: str) -> None:
    assert not said_form(prompt)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (
            "Lies den Artikel und beantworte die Frage mit höchstens fünf Wörtern. Sagt er nichts dazu, antworte "
            "mit „keine Angabe“, wenn nötig.",
            ("keine Angabe",),
        ),
        ("Réponds en un mot. Si la réponse manque, écris « inconnu ».", ("inconnu",)),
        ('Rispondi solo con il numero. Se manca, scrivi "nessuno".', ("nessuno",)),
        ("请只输出数字。如果没有，请写“无”。", ("无",)),
        ("数字だけを答えてください。ない場合は「なし」と書いてください。", ("なし",)),
    ],
)
def test_words_for_no_answer_are_in_the_form(prompt: str, words: tuple[str, ...]) -> None:
    form = asked_form(prompt)
    assert form.otherwise == words
    assert not form.fault(words[0])
    assert form.fault("das ist ein viel zu langer Satz ohne jede Zahl und 这是一个没有数字的句子")


def test_two_numerals_and_ranges_count_as_people_mean_them() -> None:
    assert said_form("Résume le texte en une seule phrase courte.").sentences == 1
    assert said_form("Resume el texto en una o dos frases.").sentences == 2
    assert said_form("用一两句话总结文章。").sentences == 2
    assert said_form("文章を十五字以内で要約してください。").words == 15
    assert said_form("请用一百二十字以内概括。").words == 120
    assert said_form("Fasse den Text in etwa 20 Wörtern zusammen.").words == 30


def test_yes_or_no_with_a_reason_is_written() -> None:
    assert read_task("Entscheide, ob der Text stimmt, und schreibe eine Begründung.").kind == "generation"
    assert read_task("Warum ist diese Nachricht Spam?").kind == "generation"


def test_millions_are_not_cut_to_their_digits() -> None:
    form = AskedForm(number=True)
    assert form.cut("Das sind 12 Millionen.") == "Das sind 12 Millionen."
    assert form.cut("Il y en a 12.") == "12"


def test_a_label_is_not_what_inputs_are_called() -> None:
    spec = TaskSpec(
        name="t",
        instruction="Ist es eine Frage oder eine Antwort? Klassifiziere Nachrichten.",
        kind="classification",
        labels=tuple(read_task("Klassifiziere Nachrichten: Frage, Antwort, Lob.").labels),
    )
    assert input_noun(spec) == "message"
