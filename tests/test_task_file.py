"""Prompts and task files: what is read, what is inferred, and one message for all that is wrong."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from potstill.asking.teacher import Abilities, Failure, Reply
from potstill.errors import TaskError
from potstill.language.names import LANGUAGES, language_code
from potstill.task import Answer, DataRef, Example, Label, LicencePolicy, Rule, TaskSpec
from potstill.task.fields import _slow_pattern
from potstill.task.file import FIELDS, SETTINGS, STAGES, read_task, read_task_file
from potstill.task.front_matter import Faults, parse_yaml, plain
from potstill.task.inference import infer_languages, read_by_rules, slug
from potstill.task.metric import infer_metric

# Prompt, kind, labels; None where the prompt names some labels only, so that nobody can know the rest.
PROMPTS: list[tuple[str, str, list[str] | None]] = [
    ("Classify support tickets as billing, bug or other.", "classification", ["billing", "bug", "other"]),
    ("Classify the sentiment of movie reviews as positive or negative.", "classification", ["positive", "negative"]),
    ("Label each headline with one of: politics; sports; culture", "classification", ["politics", "sports", "culture"]),
    (
        "Sort incoming emails into spam, newsletters and personal mail.",
        "classification",
        ["spam", "newsletters", "personal mail"],
    ),
    (
        "Decide whether a review is positive, negative or neutral.",
        "classification",
        ["positive", "negative", "neutral"],
    ),
    ("Decide whether a sentence mentions a person.", "classification", ["yes", "no"]),
    ("Is this tweet about a natural disaster?", "classification", ["yes", "no"]),
    ("Is the review positive or negative?", "classification", ["positive", "negative"]),
    ("Detect whether a comment is toxic or not.", "classification", ["toxic", "not toxic"]),
    (
        "Categorise customer questions into the following categories: shipping, returns, payment.",
        "classification",
        ["shipping", "returns", "payment"],
    ),
    ("Determine if the statement is true or false.", "classification", ["true", "false"]),
    (
        "Predict the star rating of a restaurant review on a scale of 1 to 5.",
        "classification",
        ["1", "2", "3", "4", "5"],
    ),
    (
        "Classify a GitHub issue as `bug`, `feature request` or `question`.",
        "classification",
        ["bug", "feature request", "question"],
    ),
    (
        'Tag a news headline as "Politics", "Health, Science and Tech" or "Sport".',
        "classification",
        ["Politics", "Health, Science and Tech", "Sport"],
    ),
    (
        "Classify the following text.\n\nLabels:\n- urgent: needs an answer today\n- normal: anything else",
        "classification",
        ["urgent", "normal"],
    ),
    (
        "Sort the message into one of these classes:\n1. complaint\n2. praise\n3. question",
        "classification",
        ["complaint", "praise", "question"],
    ),
    (
        "Detect the language of a sentence: English, French or German.",
        "classification",
        ["English", "French", "German"],
    ),
    ("Answer with yes or no: does the passage answer the question?", "classification", ["yes", "no"]),
    ("Given a tweet in Spanish, say whether it is sarcastic or sincere.", "classification", ["sarcastic", "sincere"]),
    (
        "Identify the intent of a banking request. Intents: transfer, balance, card_lost, other.",
        "classification",
        ["transfer", "balance", "card_lost", "other"],
    ),
    (
        "A classifier of legal clauses with three classes: indemnity, termination, confidentiality.",
        "classification",
        ["indemnity", "termination", "confidentiality"],
    ),
    (
        "Route each ticket to one of the following teams: network, database, desktop support.",
        "classification",
        ["network", "database", "desktop support"],
    ),
    (
        "Classify product reviews by sentiment (positive, neutral, negative).",
        "classification",
        ["positive", "neutral", "negative"],
    ),
    (
        "You will be given a job ad. Output exactly one of junior | mid | senior.",
        "classification",
        ["junior", "mid", "senior"],
    ),
    ("Rate the urgency of an email: low, medium, high", "classification", ["low", "medium", "high"]),
    (
        "Please classify whether each sentence is subjective vs objective.",
        "classification",
        ["subjective", "objective"],
    ),
    (
        "Classify recipes as vegan, vegetarian or meat based on their ingredients.",
        "classification",
        ["vegan", "vegetarian", "meat"],
    ),
    ("Decide if the second sentence follows from the first. Answer yes or no.", "classification", ["yes", "no"]),
    ("Detect the emotion of a text message.", "classification", []),
    ("Classify short texts into topics such as sports, politics and science.", "classification", None),
    ("Name the intent of the request, e.g. play_music or get_weather.", "classification", None),
    ("Summarise a news article in one sentence.", "generation", []),
    ("Rewrite the sentence so that it sounds formal or polite.", "generation", []),
    ("Translate English sentences into German.", "generation", []),
    ("Extract the date from a sentence and write it as YYYY-MM-DD.", "generation", []),
    ("Answer questions about a passage of text.", "generation", []),
    ("Write a SQL query for the question.", "generation", []),
    ("Turn the class notes into a list of flash cards.", "generation", []),
    ("Generate a title for a blog post, for example about cooking, travel or music.", "generation", []),
    ("Convert a temperature from Celsius to Fahrenheit.", "generation", []),
    ("Correct the grammar of the sentence.", "generation", []),
    ("Follow user instructions of many kinds.", "instructions", []),
    ("Train an instruction-following assistant for a library desk.", "instructions", []),
    ("Predict the star rating (1, 2, 3, 4, or 5) of a review.", "classification", ["1", "2", "3", "4", "5"]),
    ("Select all the labels that apply to a film plot: drama, comedy, action.", "generation", []),
    ("Classify tweets in German as hateful or harmless.", "classification", ["hateful", "harmless"]),
    ("Moderate forum posts: allow, warn, remove", "classification", ["allow", "warn", "remove"]),
    (
        "Classify the question type (who, what, where, when, why, how).",
        "classification",
        ["who", "what", "where", "when", "why", "how"],
    ),
    (
        "Judge whether the answer is correct, partially correct or wrong given the reference.",
        "classification",
        ["correct", "partially correct", "wrong"],
    ),
    ("Given two sentences, decide whether they mean the same thing.", "classification", ["yes", "no"]),
    (
        "Distinguish between fact and opinion in sentences from editorials; label each.",
        "classification",
        ["fact", "opinion"],
    ),
]


def faults_of(text: str | Path) -> tuple[str, ...]:
    """The faults of a task that cannot be read."""
    with pytest.raises(TaskError) as caught:
        read_task(text)
    return caught.value.faults


# ---- prompts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prompt", "kind", "labels"), PROMPTS, ids=[prompt[:40] for prompt, _, _ in PROMPTS])
def test_kind_and_labels_of_a_prompt(prompt: str, kind: str, labels: list[str] | None) -> None:
    if kind == "classification" and not labels:
        (fault,) = faults_of(prompt)
        assert "labels" in fault
        assert '"## Labels" as "- name: description"' in fault
        return
    spec = read_task(prompt)
    assert (spec.kind, list(spec.label_names)) == (kind, labels)
    found = {item.field: item for item in spec.inferred}
    several = ": several labels an input are asked for" if "all the labels that apply" in prompt else ""
    assert (found["kind"].value, found["kind"].how) == (kind, f"rules{several}")
    assert ("labels" in found) == (kind == "classification")


PACK_LABELS = {
    "ag_news": ["World", "Sports", "Business", "Sci/Tech"],
    "boolq": ["yes", "no"],
    "customer_reviews": ["positive", "negative"],
    "go_emotions": ["anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral"],
    "hate_speech_offensive": ["hate speech", "offensive language", "neither"],
    "sick": ["entailment", "neutral", "contradiction"],
    "sms_spam": ["spam", "ham"],
    "snips": [
        "AddToPlaylist",
        "BookRestaurant",
        "GetWeather",
        "PlayMusic",
        "RateBook",
        "SearchCreativeWork",
        "SearchScreeningEvent",
    ],
    "subj": ["objective", "subjective"],
    "trec": ["abbreviation", "entity", "description", "human", "location", "number"],
}
PACK_KINDS = {
    **dict.fromkeys(("bbh", "gsm8k", "mconala", "scitldr"), "generation"),
    **dict.fromkeys(("instruction_induction", "super_natural_instructions"), "instructions"),
}


def test_every_prompt_of_the_data_pack(data_pack: Path) -> None:
    cards = sorted((data_pack / "tasks").glob("*/card.json"))
    assert len(cards) == 17
    for card in cards:
        name, prompt = card.parent.name, json.loads(card.read_text())["pack"]["task_prompt"]
        if name == "banking77":
            (fault,) = faults_of(prompt)
            assert "names only some of the labels (card_arrival, exchange_rate, top_up_failed)" in fault
            assert "cannot be guessed" in fault
        elif name in PACK_LABELS:
            spec = read_task(prompt)
            assert (name, spec.kind, list(spec.label_names)) == (name, "classification", PACK_LABELS[name])
        else:
            assert (name, read_task(prompt).kind) == (name, PACK_KINDS[name])
    mconala = json.loads((data_pack / "tasks/mconala/card.json").read_text())["pack"]["task_prompt"]
    assert read_task(mconala).languages == ("es", "ja", "ru")


def test_real_user_prompts_are_read_or_refused_with_a_mend(data_pack: Path) -> None:
    lines = (data_pack / "selfinstruct/user_oriented_instructions.jsonl").read_text().splitlines()
    assert len(lines) == 252
    started, kinds = time.monotonic(), []
    for line in lines:
        try:
            kinds.append(read_task(json.loads(line)["instruction"]).kind)
        except TaskError as error:
            kinds.append("refused" if "labels were not found" in str(error) else str(error))
    assert time.monotonic() - started < 5
    assert set(kinds) <= {"generation", "classification", "instructions", "refused"}
    # Nearly all of them ask for text; a rule that grabs too much shows up here.
    assert kinds.count("generation") > 220
    assert 8 <= kinds.count("classification") <= 20
    assert kinds.count("refused") < 8


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("Classify tweets in German as a or b.", ("de",)),
        ("Translate English sentences into German.", ("en",)),
        ("Translate from Spanish to French.", ("es",)),
        ("Correct Portuguese texts.", ("pt",)),
        ("Label posts in French, German and Italian as a or b.", ("fr", "de", "it")),
        ("Answer in French.", ()),
        ("Polish the sentence.", ()),
        ("Rate reviews of Japanese restaurants.", ()),
        ("Schreibe zu einer Fehlermeldung eine kurze Überschrift.", ("de",)),
        ("Classe les avis des clients : positif, négatif ou neutre.", ("fr",)),
        ("Классифицируй отзывы покупателей.", ("ru",)),
        ("把客户的留言分成表扬和批评。", ("zh",)),
        ("Track a user's orders and sum up what each of them holds.", ("en",)),
        ("Trie nodes and leaves: tell them apart.", ()),
        ("Categorize emails as work or private.", ()),
        ("Las Vegas, Los Angeles: label hotels as cheap or dear.", ()),
        ("Classify Los Angeles and Las Vegas hotels.", ()),
        ("Diga se o comentário é positivo ou não.", ("pt",)),
        ("As frases são verdadeiras ou falsas no texto?", ("pt",)),
        ("Escribe un título para el artículo.", ("es",)),
        ("Compose un poème sur le thème donné.", ("fr",)),
        ("Decide si el texto es una pregunta.", ("es",)),
        ("Label de berichten als spam of geen spam.", ("nl",)),
        # Short prompts, whose verbs and nouns tell.
        ("Fasse den Artikel in einem Satz zusammen.", ("de",)),
        ("Übersetze ins Englische.", ("de",)),
        ("Korrigiere die Rechtschreibung.", ("de",)),
        ("Traduis la phrase en anglais.", ("fr",)),
        ("Résume l'article en deux phrases.", ("fr",)),
        ("Corrige les fautes d'orthographe.", ("fr",)),
        ("Traduce la frase al inglés.", ("es",)),
        ("Resume el artículo en una frase.", ("es",)),
        ("Riassumi l'articolo in una frase.", ("it",)),
        ("Traduci la frase in inglese.", ("it",)),
        ("Resuma o artigo em duas frases.", ("pt",)),
        ("Vat het artikel samen in één zin.", ("nl",)),
        ("Sammanfatta artikeln i en mening.", ("sv",)),
        ("Oversæt sætningen til engelsk.", ("da",)),
        ("Przetłumacz zdanie na angielski.", ("pl",)),
        ("Shrň článek do jedné věty.", ("cs",)),
        ("Tradu propoziția în engleză.", ("ro",)),
        ("Metni bir cümleyle özetle.", ("tr",)),
        ("Tiivistä artikkeli yhteen lauseeseen.", ("fi",)),
        ("Foglald össze a cikket egy mondatban.", ("hu",)),
        ("Ringkas artikel ini dalam satu kalimat.", ("id",)),
        ("Tóm tắt bài báo trong một câu.", ("vi",)),
        ("Підсумуй статтю одним реченням.", ("uk",)),
        # A language before what is worked on.
        ("Simplify German legal text.", ("de",)),
        ("Correct German grammar.", ("de",)),
        ("Improve the Italian translation of English sentences.", ("en",)),
        ("Summarise German literature.", ()),
        ("Plan lessons for French learners of all levels.", ("en",)),
        ("Summarise Spanish court rulings.", ("es",)),
        ("Answer questions about Dutch rental contracts.", ("nl",)),
        ("Translate German legal text into plain English.", ("de",)),
        ("Rewrite formal Korean business e-mails in a friendly tone.", ("ko",)),
        ("Extract dates from handwritten Italian letters.", ("it",)),
        ("Shorten French and Italian product descriptions.", ("fr", "it")),
        ("Recommend Italian recipes.", ()),
        ("Write German legal text from English notes.", ("en",)),
        ("Write a German product description.", ()),
        ("Turn the notes into French marketing copy.", ()),
        ("Summarise French history.", ()),
        ("Polish the product text.", ()),
        ("Resume the story.", ()),
    ],
)
def test_languages_of_a_prompt(text: str, codes: tuple[str, ...]) -> None:
    assert infer_languages(text) == codes


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [
        ("Ordne Leserbriefe ein: Lob, Kritik oder Frage.", ["Lob", "Kritik", "Frage"]),
        ("Classe les avis des clients : positif, négatif ou neutre.", ["positif", "négatif", "neutre"]),
        ("Clasifica los mensajes: queja, pregunta o elogio.", ["queja", "pregunta", "elogio"]),
        ("Sorteer berichten van klanten: klacht, vraag of compliment", ["klacht", "vraag", "compliment"]),
        ("Schreibe einen kurzen Text: Gedicht, Lied oder Brief.", []),
        ("Ist diese Bewertung positiv, negativ oder neutral?", ["positiv", "negativ", "neutral"]),
        ("Ist diese E-Mail Spam oder kein Spam?", ["Spam", "kein Spam"]),
        ("Ist sie positiv oder negativ?", ["positiv", "negativ"]),
        ("Cet avis est-il positif, négatif ou neutre ?", ["positif", "négatif", "neutre"]),
        ("¿Es esta reseña positiva, negativa o neutral?", ["positiva", "negativa", "neutral"]),
        ("Questa recensione è positiva, negativa o neutra?", ["positiva", "negativa", "neutra"]),
        ("Esta avaliação é positiva, negativa ou neutra?", ["positiva", "negativa", "neutra"]),
        ("Is deze recensie positief, negatief of neutraal?", ["positief", "negatief", "neutraal"]),
        ("Ist der Text zu lang? Schreibe eine Zusammenfassung in einem Satz oder zwei.", []),
        ("Beantworte die Frage: Was ist das Thema der Rede, Krieg oder Frieden?", []),
    ],
)
def test_labels_listed_in_other_languages(prompt: str, labels: list[str]) -> None:
    spec = read_task(prompt)
    assert list(spec.label_names) == labels
    assert spec.kind == ("classification" if labels else "generation")


@pytest.mark.parametrize(
    ("prompt", "language", "labels"),
    [
        ("Klassifiziere Kundenanfragen als Rechnung, Störung oder Sonstiges.", "de", "Rechnung|Störung|Sonstiges"),
        ("Kategorisiere E-Mails in Spam und Kein Spam.", "de", "Spam|Kein Spam"),
        ("Bitte klassifizieren Sie Beschwerden: Ware, Preis, Lieferung", "de", "Ware|Preis|Lieferung"),
        ("Sortiere Meldungen nach Sport, Politik oder Kultur.", "de", "Sport|Politik|Kultur"),
        ("Klassifiziere Kundenanfragen.", "de", ""),
        ("Klassifiziere Texte am Tag nach Label.", "de", ""),
        ("Classe chaque avis comme positif ou négatif.", "fr", "positif|négatif"),
        ("Classifiez chaque avis : positif, négatif ou neutre.", "fr", "positif|négatif|neutre"),
        ("Clasifica mensajes como queja, pregunta o elogio.", "es", "queja|pregunta|elogio"),
        ("Clasifique correos en spam y no spam.", "es", "spam|no spam"),
        ("Classifica ogni recensione come positiva o negativa.", "it", "positiva|negativa"),
        ("Classifique comentários como positivo ou negativo.", "pt", "positivo|negativo"),
        ("Classificar comentários: positivo ou negativo", "pt", "positivo|negativo"),
        ("Classificeer berichten als klacht, vraag of compliment.", "nl", "klacht|vraag|compliment"),
        (
            "Определи тональность отзыва: положительная, отрицательная или нейтральная.",
            "ru", "положительная|отрицательная|нейтральная",
        ),
        ("Классифицируй письма как спам или не спам.", "ru", "спам|не спам"),
        ("Классифицируйте обращения.", "ru", ""),
        ("把客户的留言分成表扬和批评。", "zh", "表扬|批评"),
        ("请将评论分类：正面、负面或中性。", "zh", "正面|负面|中性"),
        ("判断这条评论是正面还是负面。", "zh", "正面|负面"),
        ("对邮件进行分类。", "zh", ""),
        ("レビューを肯定的、否定的、中立のいずれかに分類してください。", "ja", "肯定的|否定的|中立"),
        ("次のメールを分類してください：スパム、通常", "ja", "スパム|通常"),
        ("メールを分類してください。", "ja", ""),
        ("以下の文をポジティブかネガティブに分類してください。", "ja", "ポジティブ|ネガティブ"),
        ("将用户评论分为正面、负面和中性三类。", "zh", "正面|负面|中性"),
        ("将评论分类为正面、负面或中性。", "zh", "正面|负面|中性"),
        ("Classe les avis en français comme positifs ou négatifs.", "fr", "positifs|négatifs"),
        ("Clasifica los tuits en español como positivos o negativos.", "es", "positivos|negativos"),
        ("Klassifiziere Texte als gut oder schlecht, ohne Erklärung.", "de", "gut|schlecht"),
        ("Du bist ein Klassifikator. Klassifiziere Nachrichten als dringend oder normal.", "de", "dringend|normal"),
        ("Ordne jedem Ticket eine Kategorie zu: Rechnung, Störung, Sonstiges.", "de", "Rechnung|Störung|Sonstiges"),
    ],
)  # fmt: skip
def test_a_verb_that_sorts_tells_language_and_kind(prompt: str, language: str, labels: str) -> None:
    assert infer_languages(prompt) == (language,)
    reading = read_by_rules(prompt)
    assert (reading.kind, "|".join(label.name for label in reading.labels)) == ("classification", labels)
    if not labels:
        assert "labels were not found" in faults_of(prompt)[0]


@pytest.mark.parametrize(
    "prompt",
    [
        "Übersetze die Anfrage ins Englische.", "Fasse den Text zusammen.", "Résume le texte en une phrase.",
        "Traduce la frase al inglés.", "Напиши заголовок для статьи.", "把句子翻译成英文。",
        "この文を英語に翻訳してください。",
        "Classification of cells: write a paragraph.", "Classes of words are listed. Write a poem.",
        "请写一首诗：春天、夏天或秋天。",
        "Ordne die Wörter alphabetisch.", "Sortiere die Zahlen aufsteigend.", "Trie les mots par ordre alphabétique.",
        "Schreibe eine Klasse in Python oder Java.", "用一句话总结文章。", "Переведи текст на английский или немецкий.",
    ],
)  # fmt: skip
def test_what_is_written_in_another_language_is_no_classification(prompt: str) -> None:
    assert read_by_rules(prompt).kind in ("generation", None)


def test_what_no_word_told_is_said_to_be_assumed() -> None:
    found = {item.field: item.how for item in read_task("Haikus, bitte!").inferred}
    assert (found["kind"], found["languages"]) == ("assumption", "assumption")
    found = {item.field: item.how for item in read_task("Classify texts as a or b in what they are about.").inferred}
    assert found["kind"] == "rules"


_VERBS = (
    "Classify {} as {}.",
    "Label {} as: {}",
    "Tag {} as {}; no explanation.",
    "Are {} {}?",
    "Please sort {} as {}.",
)
_INPUTS = (
    "tweets",
    "e-mails of Los Angeles",
    "tumor reports",
    "posts on COVID",
    "las Palmas reviews",
    "a user's notes",
)
_SETS = (
    "hate speech or no hate speech", "spam or no spam", "real news, fake news or no news", "pro, con or no stance",
    "benign, malignant or no diagnosis", "complaint, question or no action needed", "yes/no question, statement",
    "se, de or no", "a threat or no threat", "pain as such, pain on demand or no pain", "com, org, de, no or es",
    "car, van or no car", "dig, die or no go", "solo or no more", "mas, os or no",
)  # fmt: skip


@pytest.mark.parametrize("form", _VERBS)
def test_words_that_lead_a_list_are_no_proof_of_another_language(form: str) -> None:
    prompts = [form.format(inputs, names) for inputs in _INPUTS for names in _SETS]
    assert [prompt for prompt in prompts if infer_languages(prompt) not in ((), ("en",))] == []


def test_no_english_instruction_counts_as_another_language(data_pack: Path) -> None:
    from potstill.language.guess import prompt_language
    from potstill.task.other_languages import listed_labels

    lines = (data_pack / "selfinstruct" / "user_oriented_instructions.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["instruction"] for line in lines]
    assert len(texts) > 200
    assert [text for text in texts if prompt_language(text) not in ("en", None)] == []
    assert [text for text in texts if listed_labels(text)] == []


def test_language_codes() -> None:
    assert len(LANGUAGES) >= 180
    assert all(re.fullmatch("[a-z]{2}", code) and name for code, name in LANGUAGES.items())
    words = ("de", "German", " GERMAN ", "pt-BR", "zh_Hant", "Farsi", "no", "xx", "deutsch", "")
    expected = ["de", "de", "de", "pt", "zh", "fa", "no", None, None, None]
    assert [language_code(word) for word in words] == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "Follow the user's instructions.", "Follow users' instructions.", "Follow the users instructions.",
        "Follow a user's written instructions.", "Carry out the user's instructions.", "Obey the given instructions.",
        "Follow the instructions of our customers.", "Follow all instructions that a person gives.",
        "You are a helpful assistant that follows the user’s instructions.", "Follow the reader's instructions.",
        "A model following people's instructions.", "Follow any user instruction.",
    ],
)  # fmt: skip
def test_prompts_that_bring_an_instruction_with_each_row(prompt: str) -> None:
    assert read_by_rules(prompt).kind == "instructions"


def test_metric_of_a_task() -> None:
    assert infer_metric("classification", "x", []) == "macro_f1"
    assert infer_metric("generation", "Summarise the text.", []) == "rouge_l"
    assert infer_metric("generation", "Answer with a span of the passage.", []) == "token_f1"
    assert infer_metric("generation", "Translate it.", []) == "chrf"
    assert infer_metric("generation", "Reply.", ["a b", "c"]) == "exact_match"


EXACT = [
    "Answer the question in one word.", "Give the capital of the country as a single word.",
    "Give a one-word answer.", "Count the words of the paragraph and answer with just the number.",
    "Convert the date to ISO 8601.", "Find the date that a sentence names and write it in ISO format.",
    "Extract the total amount from the receipt.", "Extract the order number from the e-mail.",
    "Extract the invoice's due date.", "Return the contact details as JSON.",
    "Extract the person's name and age into a JSON object.", "Convert the recipe's ingredients to valid JSON.",
    "Compute the sum. The output is a number.", "Reply with only the integer.",
    "What is the price of the article? Reply with the price only.", "Write the number in digits.",
    "Solve the math word problem step by step. End with #### and the number.",
    "Reason step by step and end with the final number after ####.", "Convert the Roman numeral to a number.",
    "Answer a reasoning question. The output is the short exact answer, such as (A), True or yes.",
    "Return the exact label of the part.", "Normalise the date.", "Turn the spoken amount into digits.",
    "Compute the final price after the discount.", "Find the largest integer in the list.",
    "Given a product page as JSON, extract the price.", "Write a JSON object with the name and age.",
    "How many people are mentioned? Answer with a number.", "Extract the patient's date of birth from the note.",
    "Rate the essay from 1 to 10. Only give the number.", "Return the date in the format YYYY-MM-DD.",
]  # fmt: skip
FREE = [
    "Summarise the news article in exactly two sentences.", "Describe the photo in exactly 20 words.",
    "Write a product description from the product's name, features and price.",
    "Write a friendly reply to a customer who asks about their order number.",
    "Summarise the meeting notes, keeping every date.", "Summarise the report and mention the amount of each loss.",
    "Rewrite the paragraph so that every number is spelled out.", "Explain the JSON to a beginner.",
    "Turn the restaurant's attributes in JSON into one sentence.", "Given product data as JSON, write a description.",
    "Write a reminder that names the amount and the due date of the invoice.", "Draft an ad with the price.",
    "Reply to the guest, with the date of arrival and the number of nights.", "List three ideas for a date.",
    "Answer questions about ISO 9001.", "Write a headline for the article. Do not use a number.",
    "Replace one word so that the sentence is funny.", "Say exactly what the contract forbids, in plain words.",
    "Write a note on the price of oil.", "Complain about the price in a polite letter.",
    "Paraphrase exactly one sentence.",
    "Extract the date, place and reason of the accident and tell them in a sentence.",
    "Summarise the JSON log in a sentence.", "Give the price, and say why.", "Write a JSON schema tutorial.",
    "Calculate the total price of the order and write a friendly message with it.", "Extract all dates, one a line.",
    "Answer the customer's question about the date of delivery.", "Answer the question about the price list.",
    "Explain step by step how the number is found.",
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "exact"), [*((text, True) for text in EXACT), *((text, False) for text in FREE)]
)
def test_only_an_output_that_is_one_value_is_measured_by_exact_match(instruction: str, exact: bool) -> None:
    assert (infer_metric("generation", instruction, []) == "exact_match") == exact


@given(st.text(max_size=200))
def test_a_slug_is_a_file_name(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,59}", slug(text))


@given(st.text(alphabet="as A,B or C;:|\"'`/-()\n one of whether is yes no 1to5 e.g.", max_size=300))
def test_rules_never_give_a_single_label_or_a_double_one(prompt: str) -> None:
    reading = read_by_rules(f"Classify {prompt}")
    names = [label.name.casefold() for label in reading.labels]
    assert len(names) != 1
    assert len(set(names)) == len(names)
    assert all(name.strip() for name in names)


# ---- the teacher ---------------------------------------------------------------------------------------------------


class _Asker:
    """An asker with one prepared reply; keeps what it was asked."""

    def __init__(self, reply: str | Failure, *, json_schema: bool = True):
        self.abilities = Abilities(json_schema=json_schema)
        self.reply, self.asked = reply, []  # type: str | Failure, list[Any]

    def ask(self, requests: list[Any], purpose: str) -> list[Any]:
        self.asked += requests
        reply = self.reply if isinstance(self.reply, Failure) else Reply(self.reply)
        return [type("Answer", (), {"reply": reply})() for _ in requests]


def answer(*names: str, kind: str = "classification") -> str:
    return json.dumps({"kind": kind, "labels": [{"name": name, "description": f"about {name}"} for name in names]})


def test_the_teacher_fills_in_what_the_rules_did_not_find() -> None:
    asker: Any = _Asker(answer("joy", "anger"))
    spec = read_task("Detect the emotion of a text message {{ 7*7 }}.", asker=asker)
    assert spec.labels == (Label("joy", "about joy"), Label("anger", "about anger"))
    assert {(item.field, item.how) for item in spec.inferred} >= {("labels", "teacher"), ("kind", "teacher")}
    (request,) = asker.asked
    assert request.schema is not None
    assert "text message {{ 7*7 }}." in request.messages[0].content


def test_the_teacher_is_not_asked_where_the_rules_are_sure() -> None:
    asker: Any = _Asker(answer("x", "y"))
    assert read_task("Classify tickets as bug or other.", asker=asker).label_names == ("bug", "other")
    assert read_task("Summarise the text.", asker=asker).kind == "generation"
    with pytest.raises(TaskError, match="cannot be guessed"):
        read_task("Classify texts into topics such as sports and politics.", asker=asker)
    assert asker.asked == []


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("no json", "not the JSON that was asked for"),
        ('{"kind": "classification"}', "not the JSON that was asked for"),
        ('{"kind": "classification", "labels": ["a", "b"]}', "not the JSON that was asked for"),
        ("[]", "not the JSON that was asked for"),
        (answer("only"), "labels cannot be used: only"),
        (answer("same", "Same"), "labels cannot be used: same, Same"),
        (answer("x" * 70, "y"), "labels cannot be used"),
        (answer(*map(str, range(201))), "labels cannot be used"),
        (Failure("timed out"), r"gave no answer \(timed out\)"),
    ],
)
def test_a_bad_answer_of_the_teacher_is_not_taken(reply: str | Failure, why: str) -> None:
    asker: Any = _Asker(reply)
    with pytest.raises(TaskError, match=why):
        read_task("Detect the emotion of a text message.", asker=asker)


def test_a_cut_answer_of_the_teacher_is_not_taken(tmp_path: Path) -> None:
    # The fake teacher writes to the schema and, at this length, into its bound: the real asker and ledger take part.
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.teachers import open_teacher

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(open_teacher("fake"), ledger)
        with pytest.raises(TaskError, match=r"not found \(the teacher's (answer was cut short|labels cannot)"):
            read_task("Detect the emotion of a text message.", asker=asker)
        assert [entry.purpose for entry in ledger.entries()] == ["infer_task"]


def test_a_draft_gives_the_name_before_there_is_a_teacher() -> None:
    prompt = "---\nteacher: vllm\n---\nDetect the emotion of a text message."
    draft = read_task_file(prompt, draft=True)
    assert (draft.spec.kind, draft.spec.labels, draft.settings) == ("classification", (), {"teacher": "vllm"})
    asker: Any = _Asker(answer("joy", "anger"))
    assert read_task_file(prompt, asker=asker).spec.name == draft.spec.name
    for broken in ("Name the topic, such as sports or art.", "Sort it.\n## Labels\n- a"):
        with pytest.raises(TaskError):
            read_task_file(broken, draft=True)


def test_a_teacher_without_structured_output_is_not_asked() -> None:
    asker: Any = _Asker(answer("a", "b"), json_schema=False)
    with pytest.raises(TaskError, match="has no structured output"):
        read_task("Detect the emotion of a text message.", asker=asker)
    assert asker.asked == []


# ---- files ---------------------------------------------------------------------------------------------------------

WHOLE = """\
---
name: desk
kind: classification
labels:
  - name: billing
    description: Money
  - bug
  - other: Anything else
examples:
  - input: {title: Help, text: I was charged twice}
    output: Billing
  - [it crashes, bug]
inputs: [title, text]
languages: [no, German]
metric: accuracy
label_prior: {billing: 60, bug: 30, other: 10}
test: {path: test.jsonl, inputs: [title, text], output: queue, split: test}
labelled: someone/tickets@v1.0/en
unlabelled: data
rules:
  - label: billing
    keyword: [invoice, refund]
    regex: '\\d+ ?eur'
exclude: ["someone/*", "*-tickets"]
licences: {allow: [MIT, CC0-1.0], unknown: no}
teacher: "openai:http://127.0.0.1:8000/v1#big"
n: 600
budget: 2usd
generation: {rows: 1_000, temperature: 0.9, lr: 1e-5, retry: yes, note: null}
---
# Support desk

Classify a ticket. <!-- not
this --> It may hold {{ braces }}.

## Tone

Be strict.
"""


def test_a_whole_task_file(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("{}")
    (tmp_path / "data").mkdir()
    path = tmp_path / "tickets.md"
    path.write_text(WHOLE)
    file = read_task_file(str(path))
    spec = file.spec
    assert spec == read_task_file(path).spec
    assert (spec.name, spec.kind, spec.metric, spec.languages) == ("desk", "classification", "accuracy", ("no", "de"))
    assert spec.labels == (Label("billing", "Money"), Label("bug"), Label("other", "Anything else"))
    assert spec.instruction == "Classify a ticket.\n It may hold {{ braces }}.\n\n## Tone\n\nBe strict."
    assert spec.examples == (Example("title: Help\ntext: I was charged twice", "billing"), Example("it crashes", "bug"))
    assert dict(spec.label_prior) == pytest.approx({"billing": 0.6, "bug": 0.3, "other": 0.1})
    assert spec.prior == pytest.approx([0.6, 0.3, 0.1])
    test = DataRef(str(tmp_path / "test.jsonl"), split="test", inputs=("title", "text"), output="queue")
    assert (spec.test, spec.labelled) == (test, DataRef("someone/tickets@v1.0/en", training=True))
    assert spec.unlabelled == DataRef(str(tmp_path / "data"), training=True)
    assert spec.rules == (
        Rule("billing", "keyword", ("invoice", "refund")),
        Rule("billing", "regex", (r"\d+ ?eur",)),
    )
    assert spec.exclude == ("someone/*", "*-tickets")
    assert spec.licences == LicencePolicy(allow=("mit", "cc0-1.0"), unknown=False)
    assert file.settings == {"teacher": "openai:http://127.0.0.1:8000/v1#big", "n": 600, "budget": "2usd"}
    assert file.options == {"generation": {"rows": 1000, "temperature": 0.9, "lr": 1e-5, "retry": True, "note": None}}
    assert (file.lines["kind"], file.lines["generation.rows"]) == (3, 29)
    assert (file.text, file.path) == (WHOLE, path)
    assert [item.field for item in spec.inferred] == ["label_prior"]
    assert TaskSpec.from_json(spec.to_json()) == spec
    path.write_text(WHOLE.replace("label_prior: {billing: 60, bug: 30, other: 10}", "label_prior: estimate"))
    asked = read_task_file(str(path)).spec
    assert (asked.estimate_prior, asked.label_prior, spec.estimate_prior) == (True, {}, False)
    assert TaskSpec.from_json(asked.to_json()) == asked


MARKDOWN = """\
# Support desk
Sort tickets.

## Labels
- billing: money
  and refunds
- **bug**: broken
- `other`

## Examples
Input: I was charged twice
in March
Output: Billing

- "it -> crashes" -> bug
| Input | Output |
|---|---|
| hello | other |

## Notes
Stay calm.
"""


def test_labels_and_examples_from_the_text() -> None:
    spec = read_task(MARKDOWN)
    assert spec.name == "support-desk"
    assert spec.labels == (Label("billing", "money and refunds"), Label("bug", "broken"), Label("other"))
    assert spec.examples == (
        Example("I was charged twice\nin March", "billing"),
        Example("it -> crashes", "bug"),
        Example("hello", "other"),
    )
    assert spec.instruction == "Sort tickets.\n\n## Notes\nStay calm."


def test_front_matter_wins_over_the_text() -> None:
    head = "---\nname: mine\nlabels: [spam, ham]\nexamples: []\ninstruction: Sort mail.\n---\n"
    spec = read_task(head + MARKDOWN.replace("Billing", "x"))
    assert (spec.name, spec.label_names, spec.examples, spec.instruction) == ("mine", ("spam", "ham"), (), "Sort mail.")


def test_words_that_yaml_takes_for_booleans_stay_words() -> None:
    spec = read_task("---\nlabels: [yes, no, 1, null]\nexamples:\n- {input: on, output: no}\n---\nJudge the text.")
    assert spec.label_names == ("yes", "no", "1", "null")
    assert spec.examples == (Example("on", "no"),)


def test_examples_in_the_prose_leave_the_instruction() -> None:
    spec = read_task(
        'Turn a date into ISO form.\n\n"3 May 2021" -> 2021-05-03\n\nInput: 1 June 99\nOutput: 1999-06-01\n'
    )
    assert spec.instruction == "Turn a date into ISO form."
    assert spec.examples == (Example("3 May 2021", "2021-05-03"), Example("1 June 99", "1999-06-01"))
    assert "2 found in the text" in {item.value for item in spec.inferred}


def test_examples_keep_the_indentation_of_code() -> None:
    """Python that lost it is no Python, and the teacher is shown these examples."""
    code = "def total(numbers):\n    found = 0\n    for n in numbers:\n        found += n\n    return found"
    nested = "```js\nfunction f() {\n  return 1;\n\n  // Input: none\n}\n```"
    spec = read_task(
        f"Write code.\n\n## Examples\n\nInput: Add them up.\nOutput: {code}\n\n- Input: Return one,\n  in JavaScript.\n"
        "  Output:\n" + "\n".join(f"  {line}" for line in nested.split("\n")) + "\n\n"
        "Input: Do\n       nothing.\nOutput:\n    def nothing():\n        pass\n"
    )
    assert spec.examples == (
        Example("Add them up.", code),
        Example("Return one,\nin JavaScript.", nested),
        Example("Do\nnothing.", "def nothing():\n    pass"),
    )


def test_a_fence_around_an_example_is_no_part_of_it() -> None:
    spec = read_task(
        "Add numbers.\n\n## Examples\n\n```\nInput: 1 and 2\nOutput: 3\n```\n\n```\nInput: 2 and 2\nOutput: 4\n```\n"
    )
    assert spec.examples == (Example("1 and 2", "3"), Example("2 and 2", "4"))


@pytest.mark.parametrize("place", ["Text: {text}\nLabel:", "Input: {{ input }}\nOutput:", "Text: <text>\nAnswer:\n"])
def test_where_a_template_takes_its_input_is_no_example(place: str) -> None:
    task = read_task(f"Classify the following text as spam or ham.\n\n{place}")
    assert (task.label_names, task.examples) == (("spam", "ham"), ())
    assert task.instruction == "Classify the following text as spam or ham."
    assert "an example without output" in faults_of("Classify as spam or ham.\n\nText: buy now\nLabel:")[0]


@pytest.mark.parametrize("form", ["bom", "crlf", "cr", "spaces"])
def test_forms_of_text_files_read_alike(tmp_path: Path, form: str) -> None:
    forms: dict[str, Callable[[str], bytes]] = {
        "bom": lambda text: b"\xef\xbb\xbf" + text.encode(),
        "crlf": lambda text: text.replace("\n", "\r\n").encode(),
        "cr": lambda text: text.replace("\n", "\r").encode(),
        "spaces": lambda text: text.replace("\n", "  \n").encode(),
    }
    text = "---\nlabels: [a, b]\n---\n" + MARKDOWN.split("## Labels")[0]
    plain_file, other = tmp_path / "x.md", tmp_path / "sub" / "x.md"
    other.parent.mkdir()
    plain_file.write_text(text)
    other.write_bytes(forms[form](text))
    assert read_task(other) == read_task(plain_file)


def test_a_file_is_named_by_title_or_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    for name in ("desk/task.md", "tickets.md"):
        (tmp_path / name).write_text("Classify tickets as bug or other.")
    assert read_task(tmp_path / "desk" / "task.md").name == "desk"
    assert read_task(tmp_path / "tickets.md").name == "tickets"


def test_rules_that_ask_the_teacher() -> None:
    spec = read_task(
        front(
            "labels: [refund, praise, other]\nrules:\n"
            '  - {label: refund, prompt: "Does the writer ask for money back?", keyword: refund}\n'
            "  - {label: Refund, prompt: [Is money wanted?, Should money be paid back?], else: other}\n"
            "  - prompt: What is said?\n    answers: {thanks: praise, no: other, yes: refund, 'null': , nothing: ~}",
            "Sort messages.",
        )
    )
    no = Answer("No")
    assert spec.rules == (
        Rule("refund", "keyword", ("refund",)),
        Rule("refund", "prompt", ("Does the writer ask for money back?",)),
        Rule(
            "refund", "prompt", ("Is money wanted?", "Should money be paid back?"),
            (Answer("Yes", "refund"), Answer("No", "other")),
        ),
        Rule(
            "", "prompt", ("What is said?",),
            (Answer("thanks", "praise"), Answer("no", "other"), Answer("yes", "refund"), Answer("null"),
             Answer("nothing")),
        ),
    )  # fmt: skip
    assert spec.rules[1].choices == (Answer("Yes", "refund"), no)
    assert (spec.rules[0].choices, spec.questions) == ((), 4)
    assert TaskSpec.from_json(spec.to_json()) == spec


# ---- faults --------------------------------------------------------------------------------------------------------

BROKEN = """\
---
nam: x
kind: clasification
labels: [yes, no, No]
label_prior: {yes: 0.7, mo: 3}
examples:
  - input: a
    output: maybe
  - input: b
rules:
  - label: yess
    regex: (a+)+
  - label: no
    regex: "(a"
    keyworf: x
languages: [xx]
test: tets.parquet
seed_tasks: nowhere.jsonl
metric: rouge_l
n: many
generation: 5
licenses: {allow: mit}
exclude: "a*b"
name: a b
---
Decide whether it is so.
"""


def test_all_faults_of_a_file_in_one_message_with_line_and_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_text("")
    path = tmp_path / "task.md"
    path.write_text(BROKEN)
    with pytest.raises(TaskError) as caught:
        read_task(path)
    assert caught.value.where == str(path)
    expected = [
        "line 2: 'nam' is not known; did you mean 'name'?",
        "line 3: kind: 'clasification' is not known; did you mean 'classification'?",
        "line 4: label 'No' is listed twice (first 'no' on line 4)",
        "line 5: label_prior: 'mo' is not a label; did you mean 'no'?",
        "line 7: example output 'maybe' is not a label",
        "line 9: examples: an entry without 'output'",
        "line 11: rules: 'yess' is not a label; did you mean 'yes'?",
        "line 12: rules.regex: '(a+)+' repeats a group that holds a repeat",
        "line 14: rules.regex: '(a' is no regular expression",
        "line 15: rules.keyworf: no such field; did you mean 'keyword'?",
        "line 16: languages: 'xx' is no language",
        "line 17: test: no file or folder 'tets.parquet'; did you mean 'test.parquet'?",
        "line 18: seed_tasks: no file or folder 'nowhere.jsonl'",
        "line 18: seed_tasks: only for kind: instructions (this is classification)",
        "line 19: metric: rouge_l is not for classification; one of: accuracy, macro_f1",
        "line 20: n: a whole number of 1 or more is needed (got 'many')",
        "line 21: generation: a mapping of options is needed, not '5'",
        "line 22: 'licenses' is not known; did you mean 'licences'?",
        "line 23: exclude: 'a*b': '*' may stand at the start or the end only",
        "line 24: name: 'a b' is not safe as a file name; write 'b'",
    ]
    for found, wanted in zip(caught.value.faults, expected, strict=True):
        assert found.startswith(wanted)
    assert str(caught.value).startswith(f"{path}: 20 faults\n  - line 2: ")


def front(text: str, body: str = "Classify the text as spam or ham.") -> str:
    return f"---\n{text}\n---\n{body}"


FAULTS = [
    ("", "the prompt is empty; say in a sentence what the model should do"),
    ("   \n\n", "the prompt is empty"),
    ("...", "the prompt is empty"),
    ("tickets", "'tickets' is one word; say in a sentence what to do, or give a file's path"),
    ("nowhere/tickets.md", "no such file"),
    ("./nowhere", "no such file"),
    ("/tmp", "is a folder; give the task file in it"),
    ("/dev/zero", "is no regular file"),
    ("Classify this\0 as a or b.", "line 1: control character U+0000; take it out"),
    ("Classify this as a or\nb \x1b[31m.", "line 2: control character U+001B"),
    ("x " * 20_000, "the prompt has 39,999 characters; at most 32,000 are read"),
    ("x" * 1_000_001, "is longer than 1,000,000 characters"),
    ("---\nkind: generation\n", "line 1: the front matter that starts here never ends; close it with a line '---'"),
    (front("a: {"), "the front matter is not valid YAML"),
    (front("note: bug: it is"), "quote texts that hold ': ' or ' #'"),
    (front("- a\n- b"), "line 2: the front matter must be 'key: value' lines, not a list"),
    (front("name: a\nname: b"), "line 3: 'name' is written twice (first on line 2)"),
    (front("a: &x 1"), "line 2: YAML anchor &x is not read"),
    (front("exclude: *foo"), "line 2: YAML alias *foo is not read; write the value out, or quote a leading *"),
    (front("name: !!python/object:os.system x"), "line 2: YAML tag 'tag:yaml.org,2002:python/object:os.system'"),
    (front("labels: " + "[" * 40 + "]" * 40), "nested more than 12 deep"),
    (front("labels: [" * 3000), "the front matter"),
    (front("? [a]\n: b"), "line 2: a key must be a word, not a list"),
    (front("labels: [a]"), "line 2: one label ('a') is not enough; a classification needs 2 or more"),
    (front("labels: ['', b, c]"), "line 2: labels: an empty name"),
    (front(f"labels: [{'a' * 101}, b]"), "is too long for a name; put the explanation into the description"),
    (front("labels: [" + ",".join(f"l{i}" for i in range(1001)) + "]"), "1001 labels; at most 1000 are read"),
    (front("kind:"), "line 2: kind: empty; give a value or take the line out"),
    (front("kind: generation\nlabels: [a, b]"), "labels are given, but kind is generation; take one of them out"),
    (front("kind: generation\nlabel_prior: {a: 1}"), "line 3: label_prior: only for kind: classification"),
    (front("kind: generation\nrules: []"), "line 3: rules: only for kind: classification (this is generation)"),
    (front("kind: generation\nmetric: accuracy"), "metric: accuracy is not for generation"),
    (front("label_prior: {spam: 0.5, ham: 0.2}"), "the shares sum to 0.7; make them sum to 1"),
    (front("label_prior: {spam: 1}"), "no share for ham; give every label one"),
    (front("label_prior: {spam: 0, ham: 1}"), "label_prior.spam: a number above 0 is needed (got '0')"),
    (front("label_prior: {spam: .nan, ham: 1}"), "label_prior.spam: a number above 0 is needed"),
    (front("label_prior: [1, 2]"), "a mapping of label to share, or `estimate`, is needed, not a list"),
    (front("label_prior: guess"), "a mapping of label to share, or `estimate`, is needed, not 'guess'"),
    (front("kind: generation\nlabel_prior: estimate"), "line 3: label_prior: only for kind: classification"),
    (front("rules: [{keyword: x}]"), "rules: an entry without 'label'"),
    (front("rules: [{label: spam}]"), "rules: an entry without one of keyword, contains, regex, prompt"),
    (front("rules: [{prompt: Is it?}]"), "rules: an entry without 'label'; say what a yes votes for"),
    (front("rules: [{label: spam, prompt: ''}]"), "line 2: rules.prompt: an empty entry; write a text"),
    (front("rules: [{label: spam, prompt: []}]"), "line 2: rules.prompt: an empty list; write a text into it"),
    (front("rules: [{label: spam, keyword: []}]"), "line 2: rules.keyword: an empty list; write a text into it"),
    (front("rules: [{label: spam, prompt: Is it?, else: hm}]"), "line 2: rules.else: 'hm' is not a label; did you"),
    (front("rules: [{label: spam, prompt: Is it?, else: Spam}]"), "rules.else: a no would vote for 'spam' as a yes"),
    (front("rules: [{label: spam, keyword: x, else: ham}]"), "rules.else: it is for a prompt; this entry asks nothing"),
    (front("rules: [{keyword: x, answers: {a: spam, b: ham}}]"), "rules.answers: it is for a prompt; this entry asks"),
    (front("rules: [{label: spam, prompt: Is it?, answers: {a: spam, b: ham}}]"), "the answers name their labels"),
    (front("rules: [{prompt: Is it?, answers: {a: spam, b: ham}, else: ham}]"), "the answers name their labels"),
    (front("rules: [{prompt: What?, answers: [a, b]}]"), "rules.answers: a mapping of answer to label is needed, not"),
    (front("rules: [{prompt: What?, answers: {a: spam}}]"), "rules.answers: one answer is not enough; give 2 or more"),
    (front("rules: [{prompt: What?, answers: {a: , b: }}]"), "rules.answers: none of them votes for a label"),
    (front("rules: [{prompt: What?, answers: {a: spam, A: ham}}]"), "rules.answers: 'A' is listed twice"),
    (front("rules: [{prompt: What?, answers: {a: spam, b: hame}}]"), "rules.answers: 'hame' is not a label; did you"),
    (front("rules: [{prompt: What?, answers: {a: spam, '': ham}}]"), "rules.answers: an empty answer; say what"),
    (front(f"rules: [{{prompt: What?, answers: {{{'a' * 101}: spam, b: }}}}]"), "is too long for an answer; at most"),
    (front("rules: [{prompt: What?, answers: {" + ", ".join(f"a{i}: spam" for i in range(21)) + "}}]"), "21 answers"),
    (front("rules: [{label: spam, regex: 'a*'}]"), "matches the empty text, and so everything"),
    (front(f"rules: [{{label: spam, keyword: {'a' * 501}}}]"), "has 501 characters; at most 500 are read"),
    (front("rules: {label: spam}"), "a list of {label, keyword|contains|regex|prompt} is needed, not a mapping"),
    (front("examples: [[a, b, c]]"), "examples: {input, output} is needed, not a list"),
    (front("examples: [{input: '', output: spam}]"), "an example without input"),
    (front("examples: [{input: a, output: ''}]"), "an example without output"),
    (front("test: [a]"), "test: a path or a mapping with 'path' is needed, not a list"),
    (front("test: {split: test}"), "test: no 'path'; give a file, a folder or a Hub id"),
    (front("test: a/b@"), "test: no file or folder 'a/b@'"),
    (front("test: a/b@v 1"), "test: no file or folder 'a/b@v 1'"),
    (front("test: a/b/c/d"), "test: no file or folder 'a/b/c/d'"),
    (front("test: ''"), "test: empty; give a path"),
    (front("licences: {unknown: perhaps}"), "licences.unknown: true or false is needed (got 'perhaps')"),
    (front("licences: mit"), "a mapping of allow, deny, unknown is needed, not 'mit'"),
    (front("languages: [Germn]"), "languages: 'Germn' is no language known here; did you mean 'German'?"),
    (front("n: -1"), "n: a whole number of 1 or more is needed (got '-1')"),
    (front("teacher: [a]"), "teacher: one value is needed, not a list"),
    ("Sort it.\n## Lables\n- a\n- b", "line 2: section 'Lables' is not read; did you mean '## Labels'?"),
    ("Sort it.\n## Labels\n- a\n- b\n## Examples\n- no arrow here", "line 6: '- no arrow here' is no example"),
    ("Sort it.\n## Labels\n- a\n- b\n## Examples\n- x -> c", "line 6: example output 'c' is not a label"),
    ("Sort it.\n## Labels\n- a\nstray\n- b", "line 4: 'stray' is no label; write '- name: description'"),
    ("Sort it.\n## Labels\n", "line 2: this looks like a classification, but its labels were not found"),
]


@pytest.mark.parametrize(("text", "fault"), FAULTS)
def test_each_fault_says_what_and_how(text: str, fault: str) -> None:
    found = faults_of(text)
    assert any(fault in item for item in found), found


def test_an_unreadable_head_is_not_blamed_on_what_it_may_have_held() -> None:
    assert len(faults_of(front("labels: [a, b", "Judge the text."))) == 1


@pytest.mark.parametrize(
    ("blob", "fault"),
    [
        (b"Classify \xff as a or b", "line 1: byte 0xff is not UTF-8; save as UTF-8"),
        (b"ok\n\nbad \xe9", "line 3: byte 0xe9 is not UTF-8"),
        ("Sort it".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"a " * 500_001, "is larger than 1,000,000 bytes; put data into files and name them with 'test:'"),
    ],
)
def test_bytes_that_are_no_task(tmp_path: Path, blob: bytes, fault: str) -> None:
    (tmp_path / "task.md").write_bytes(blob)
    assert any(fault in item for item in faults_of(tmp_path / "task.md"))


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "tickets.md").write_text("x")
    assert faults_of(str(tmp_path / "ticktes.md")) == (
        "no such file; did you mean 'tickets.md', or is the task to be given as a sentence?",
    )
    # The ending alone is no likeness.
    assert faults_of(str(tmp_path / "empty.md")) == (
        f"no such file; {tmp_path} has tickets.md, or is the task to be given as a sentence?",
    )


def test_an_option_of_a_stage_at_the_top_is_shown_in_its_place() -> None:
    text = "---\nepochs: 3\nlr: 1e-5\nlearning_rat: 2\nnam: x\n---\nClassify mails as good or bad.\n"
    assert faults_of(text) == (
        "line 2: 'epochs' is not known; did you mean 'distil: {epochs: 3}'?",
        "line 3: 'lr' is not known; did you mean 'distil: {learning_rate: 1e-5}'?",
        "line 4: 'learning_rat' is not known; did you mean 'distil: {learning_rate: 2}'?",
        "line 5: 'nam' is not known; did you mean 'name'?",
    )


@pytest.mark.parametrize(
    ("pattern", "slow"),
    [
        ("(a+)+", True),
        ("(a*)*b", True),
        ("(?:a|aa)+$", True),
        ("((ab?)+c?)*", True),
        ("([a-z]+)*!", True),
        (r"(\w+\s?){2,}", True),
        (".*a.*b.*c.*d.*e.*f", True),
        (r"\d{1,5} ?(eur|usd)", False),
        ("error 5\\d\\d", False),
        (r"(foo|bar)\b", False),
        ("(ab)+", False),
        (r"\(a+\)+", False),
        ("[(+)+]+x", False),
        ("(a|b){1,3}", False),
        ("refund.*order", False),
    ],
)
def test_patterns_that_could_run_for_ever(pattern: str, slow: bool) -> None:
    assert bool(_slow_pattern(pattern)) == slow


def test_patterns_that_pass_the_check_are_fast() -> None:
    # The oracle for the check: what it lets through must not blow up on the classic bait.
    for pattern in (r"(foo|bar)\b", "(ab)+", "(a|b){1,3}", r"a+b+c+", r"\w+@\w+\.\w+", "a?a?a?aaa"):
        assert not _slow_pattern(pattern)
        started = time.monotonic()
        for bait in ("a" * 3000 + "!", "ab" * 1500 + "!", "a@" * 1500):
            re.search(pattern, bait)
        assert time.monotonic() - started < 2


# ---- the YAML reader -----------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text("abc xyzäß:#-", max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcde", min_size=1, max_size=4), inner, max_size=3)
    ),
)


@given(VALUES)
def test_yaml_agrees_with_the_library_on_plain_values(value: object) -> None:
    import yaml

    faults = Faults("x")
    node = parse_yaml(yaml.safe_dump({"key": value}, allow_unicode=True), 1, faults)
    assert not faults
    assert node is not None
    assert plain(node) == {"key": value}


# ---- anything at all -----------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        *("---", "labels:", "  - a: b", "- x", "kind: generation", "kind: classification", "labels: [a, b]", "# T"),
        *("## Labels", "## Examples", "Input: x", "Output: a", "a -> b", "| a | b |", "|---|---|", "rules:", "<!--"),
        *("  - label: a", "    regex: (a+)+", "Classify as a or b.", "-->", "```", "", "\t", "name: x", "test: x"),
        *("examples:", "[[[", "{a: ", "'", '"', "&a *a", "!!x y", "\x00", "\ufeff", "\u2028", "1. one", "such as"),
        *("label_prior: {a: 1, b: 2}", "e.g.", "one of: a, b", "etc", "rate from 1 to 5", "yes or no", "in German"),
    ]
)
FUZZ = settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(given: str | Path) -> None:
    started, faults = time.monotonic(), None
    try:
        spec = read_task(given)
        assert spec.instruction.strip()
        assert spec.kind != "classification" or len(spec.labels) >= 2
        assert TaskSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    except TaskError as error:
        faults = len(error.faults)
    assert faults != 0
    assert time.monotonic() - started < 2


@FUZZ
@given(blob=st.binary(max_size=400) | st.lists(LINES, max_size=25).map(lambda lines: "\n".join(lines).encode()))
@example(blob=b"---\n\xe2\x80\xa8---\n")
def test_any_bytes_are_read_or_refused(blob: bytes, tmp_path: Path) -> None:
    path = tmp_path / "task.md"
    path.write_bytes(blob)
    read_or_refuse(path)


@FUZZ
@given(st.lists(LINES | st.text(max_size=30), max_size=20).map("\n".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refuse(text)


@pytest.mark.parametrize(
    "text",
    [
        " " * 900_000 + "x y",
        "- " + " " * 900_000 + "x\n- y",
        "# " + " " * 900_000 + "x y",
        "<!--" * 200_000,
        "|" * 900_000,
        "a, " * 10_000,
        "one of " * 4_000,
        "such as a " * 3_000,
        "is a or " * 4_000,
        "Classify " + "whether it " * 2_500,
        "Input: a\n" * 90_000,
        "- a -> " * 120_000,
        "## Labels\n" + "- a\n" * 200_000,
        "## Labels\n" + "\n".join(f"- label number {i}" for i in range(30_000)),
        '"' * 900_000,
        "```\n" * 200_000,
        "\n" * 900_000 + "sort it",
        "Classify " + "a/" * 15_000,
        "Classify in " + "German, " * 3_900,
        front("a: " + "[" * 400_000),
        front("\n".join(f"k{i}: v" for i in range(60_000))),
        front("a: |\n" + "  x\n" * 200_000),
        front("labels: [" + "a, " * 250_000 + "]"),
        front("label_prior: {" + ", ".join(f"k{i}: 1" for i in range(2_000)) + "}"),
        front("n: " + "9" * 100_000),
    ],
    ids=lambda text: repr(text[:24] + text[-6:]),
)
def test_no_text_takes_long(text: str) -> None:
    started, faults = time.process_time(), 0
    try:
        read_task(text)
    except TaskError as error:
        faults = len(error.faults)
    assert time.process_time() - started < 8
    assert faults <= 201


# ---- examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "line"),
    [
        (
            ["billing", "Bug", "billing", "bug"],
            "; if the examples show all of them, add the line labels: [billing, Bug]",
        ),
        (["yes", "no", "a: b"], ' add the line labels: ["yes", "no", "a: b"]'),
        (["billing", "billing"], 'say "kind: generation"'),
    ],
)
def test_labels_that_examples_show_are_offered_and_not_guessed(outputs: list[str], line: str) -> None:
    shown = "".join(f"  - {{input: text {i}, output: {json.dumps(name)}}}\n" for i, name in enumerate(outputs))
    text = f"---\nexamples:\n{shown}---\nRoute the ticket to the right team.\n"
    with pytest.raises(TaskError) as caught:
        read_task_file(text)
    assert str(caught.value).endswith(line)
    if "add the line" in line:
        mended = read_task_file(text.replace("---\n", f"---\n{str(caught.value).rsplit('the line ', 1)[1]}\n", 1)).spec
        assert {name.casefold() for name in mended.label_names} == {name.casefold() for name in outputs}


def test_the_example_tasks_of_the_project(repo_root: Path) -> None:
    files = [path for path in sorted((repo_root / "examples").rglob("*.md")) if path.name != "README.md"]
    specs = {path.stem: read_task(path) for path in files}
    assert len(specs) >= 6
    assert {spec.kind for spec in specs.values()} == {"classification", "generation", "instructions"}
    assert specs["dates"].examples[0].output == "2021-05-03"
    assert specs["rules"].unlabelled is not None
    assert len(specs["rules"].rules) == 6
    assert len({spec.name for spec in specs.values()}) == len(specs)


def test_the_known_keys_are_the_fields_of_the_task() -> None:
    # `label_prior: estimate` is what sets `estimate_prior`.
    assert set(FIELDS) == set(TaskSpec.__dataclass_fields__) - {"inferred", "estimate_prior"}
    assert not set(FIELDS) & set(SETTINGS) | set(SETTINGS) & set(STAGES)


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [
        ("Classify tickets as billing (invoices, refunds), bug (crashes) or other.",
         {"billing": "invoices, refunds", "bug": "crashes", "other": ""}),
        ("Sort complaints into: food (taste or temperature), service, price.",
         {"food": "taste or temperature", "service": "", "price": ""}),
        ("Classify a review into categories (positive, negative, neutral).",
         {"positive": "", "negative": "", "neutral": ""}),
        ("Decide whether a comment is urgent (needs action today) or not urgent.",
         {"urgent": "needs action today", "not urgent": ""}),
        ("Rate the review from 1 (terrible) to 3 (excellent).", {"1": "", "2": "", "3": ""}),
        ("Score the review from 1 to 3.", {"1": "", "2": "", "3": ""}),
        ("Assign a rating of 1, 2 or 3 to the review.", {"1": "", "2": "", "3": ""}),
        ("Klassifiziere Nachrichten in folgende Kategorien: Rechnung, Lieferung, Sonstiges.",
         {"Rechnung": "", "Lieferung": "", "Sonstiges": ""}),
        ("Schreibe keine Romane. Ordne Kundenmails einer Kategorie zu: Rechnung, Lieferung oder Sonstiges.",
         {"Rechnung": "", "Lieferung": "", "Sonstiges": ""}),
        ("Classify the urgency of the email as 0, 1 or 2, where 0 is low, 1 is medium and 2 is high.",
         {"0": "low", "1": "medium", "2": "high"}),
        ("Classify the tone as formal or informal, where slang counts as informal.", {"formal": "", "informal": ""}),
        ("Classify questions as who, what, when, where or why.",
         {"who": "", "what": "", "when": "", "where": "", "why": ""}),
        ("Label sentiment: 0 for negative, 1 for neutral, 2 for positive.",
         {"0": "negative", "1": "neutral", "2": "positive"}),
        ("Classify reviews. 0 = negative, 1 = positive", {"0": "negative", "1": "positive"}),
        ("Classify the urgency as 0, 1, or 2 (0 = low, 1 = medium, 2 = high).",
         {"0": "low", "1": "medium", "2": "high"}),
        ("Classify the text as 1 if it is spam and 0 otherwise.", {"1": "if it is spam", "0": "otherwise"}),
        ("Return true if the sentence contains sarcasm, false otherwise.",
         {"true": "if the sentence contains sarcasm", "false": "otherwise"}),
        ("Classify each note as 'needs follow-up', 'done' or 'won't fix'.",
         {"needs follow-up": "", "done": "", "won't fix": ""}),
        ("Classify tweets as pro|anti|neutral on vaccination.", {"pro": "", "anti": "", "neutral": ""}),
        ("Classify reviews into 1 star, 2 stars and 3 stars.", {"1 star": "", "2 stars": "", "3 stars": ""}),
        ("Sort messages into two: spam and ham.", {"spam": "", "ham": ""}),
        ("Predict the star rating (1-3) of a review.", {"1": "", "2": "", "3": ""}),
        ("Categories: food; drink; dessert. Put each menu item into its category.",
         {"food": "", "drink": "", "dessert": ""}),
        ("Does the premise entail the hypothesis? Answer entailment, neutral or contradiction.",
         {"entailment": "", "neutral": "", "contradiction": ""}),
        ("Decide whether a comment is offensive or contains slurs.", {"yes": "", "no": ""}),
        ("Decide whether the text mentions a person, a place or an organisation.", {"yes": "", "no": ""}),
        ("Assign a triage level.\n\n| Level | Meaning |\n|---|---|\n| E1 | now |\n| E2 | soon |\n\nBe careful.",
         {"E1": "now", "E2": "soon"}),
        ("Classify tickets by their columns.\n\n| Field | Holds |\n|---|---|\n| text | words |\n| day | date |", {}),
        # Three ways to answer that nobody named: the user is asked.
        ("Decide whether the premise entails the hypothesis, contradicts it, or is neutral.", {}),
        ("Determine whether the hypothesis is entailed by, contradicts, or is neutral to the premise.", {}),
    ],
)  # fmt: skip
def test_labels_keep_their_remarks_and_lists_their_ends(prompt: str, labels: dict[str, str]) -> None:
    from potstill.task.inference import read_by_rules

    found = read_by_rules(prompt)
    assert found.kind == "classification"
    assert {label.name: label.description for label in found.labels} == labels


def test_a_prompt_that_sorts_in_another_language_is_no_task_of_writing() -> None:
    from potstill.task.inference import read_by_rules

    asked = read_by_rules("Ordne die Nachrichten der Kunden nach dem Thema.")
    assert (asked.kind, asked.labels) == ("classification", ())
    assert read_by_rules("Schreibe eine \u00dcberschrift zu der Nachricht: kurz, knapp, klar.").labels == ()


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("Detect the language and translate the text to English.", "generation"),
        ("Detect the language of the text.", "classification"),
    ],
)
def test_what_is_sorted_and_then_rewritten_is_a_text(prompt: str, kind: str) -> None:
    assert read_by_rules(prompt).kind == kind
