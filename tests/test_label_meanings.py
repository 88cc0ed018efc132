"""What a prompt says its listed labels mean, and by which words codes are told then."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.language.label_words import label_words
from potstill.task import TaskSpec
from potstill.task.file import read_task
from potstill.task.meanings import meanings

NEWS = ["World", "Sports", "Business", "Sci/Tech"]
GOOD = ["negative", "positive"]


def read(instruction: str, *labels: str) -> TaskSpec:
    return read_task(f"---\nkind: classification\nlabels: {json.dumps(list(labels))}\n---\n{instruction}\n")


@pytest.mark.parametrize(
    ("instruction", "labels", "said"),
    [
        ("Classify a news item. The output is its topic: 0 = World, 1 = Sports, 2 = Business, 3 = Sci/Tech.",
         "0 1 2 3", NEWS),
        ("Topic of a news item (0=World, 1=Sports, 2=Business, 3=Sci/Tech)", "0 1 2 3", NEWS),
        ("Classify news: World=0, Sports=1, Business=2, Sci/Tech=3.", "0 1 2 3", NEWS),
        ("Classify news as World (0), Sports (1), Business (2) or Sci/Tech (3).", "0 1 2 3", NEWS),
        ("Classify news. 0: World, 1: Sports, 2: Business, 3: Sci/Tech. Output the number only.", "0 1 2 3", NEWS),
        ("Classify news.\n\n0 - World\n1 - Sports\n2 - Business\n3 - Sci/Tech\n\nAnswer with the number.",
         "0 1 2 3", NEWS),
        ("Classify news.\n- 0: World\n- 1: Sports\n- 2: Business\n- 3: Sci/Tech", "0 1 2 3", NEWS),
        ("Classify news.\n* `0` → World\n* `1` → Sports\n* `2` → Business\n* `3` → Sci/Tech", "0 1 2 3", NEWS),
        ("Topic of news; use 3 for Sci/Tech, 2 for Business, 1 for Sports and 0 for World.", "0 1 2 3", NEWS),
        ('Topic of news as {"0": "World", "1": "Sports", "2": "Business", "3": "Sci/Tech"}', "0 1 2 3", NEWS),
        ("News.\n\n| label | topic |\n|---|---|\n| 0 | World |\n| 1 | Sports |\n| 2 | Business |\n| 3 | Sci/Tech |",
         "0 1 2 3", NEWS),
        ("Sentiment of a product review sentence. Output 1 for positive, 0 for negative.", "0 1", GOOD),
        ("Sentiment of a sentence. Positive is 1 and negative is 0.", "0 1", ["negative", "Positive"]),
        ("Sentiment of a sentence. Class 0 is negative, class 1 is positive.", "0 1", GOOD),
        ("Sentiment of a sentence: 0 means negative and 1 means positive, nothing else.", "0 1", GOOD),
        ("Sentiment of a sentence: label 1 stands for positive, label 0 for negative.", "0 1", GOOD),
        ("Sentiment of a sentence: 0 (negative) or 1 (positive).", "0 1", GOOD),
        ("Sentiment: positive -> 1, negative -> 0", "0 1", GOOD),
        ("Sentiment of a tweet (0 = negative, 2 = neutral, 4 = positive).", "0 2 4",
         ["negative", "neutral", "positive"]),
        ("Sentiment of a tweet: -1 = negative, 0 = neutral, 1 = positive.", "-1 0 1",
         ["negative", "neutral", "positive"]),
        ("Kind of question: ABBR (abbreviation), ENTY (entity), DESC (description or definition).", "ABBR ENTY DESC",
         ["abbreviation", "entity", "description or definition"]),
        ("Label the film review.\n- pos: the writer likes the film\n- neg: the writer does not", "neg pos",
         ["the writer does not", "the writer likes the film"]),
        ("Stance of a tweet: FAV means in favour, AGN means against, and NON means neither.", "FAV AGN NON",
         ["in favour", "against", "neither"]),
        ("Act of a turn (inform: tells something; ask: wants to know something; bye: ends the talk).", "ask bye inform",
         ["wants to know something", "ends the talk", "tells something"]),
        ("Route the mail: A = sales, B = support, C = legal", "A B C", ["sales", "support", "legal"]),
        ("Pain in a note: 0 = none, 1 = mild, 2 = strong.", "0 1 2", ["none", "mild", "strong"]),
        ("Label the mail `urgent` if it needs an answer today, `normal` if it can wait.", "normal urgent",
         ["can wait", "needs an answer today"]),
        ("Output 2 if the mail is a complaint, 1 if it is a question, 0 if it is praise.", "0 1 2",
         ["praise", "a question", "a complaint"]),
        ("News topics are:\n1. World\n2. Sports\n3. Business\n4. Sci/Tech\nReply with the number.", "1 2 3 4", NEWS),
        ("Which is it? A) a fact B) an opinion C) a question", "A B C", ["a fact", "an opinion", "a question"]),
        ("Dialogue acts: 0 inform, 1 question, 2 directive, 3 commissive", "0 1 2 3",
         ["inform", "question", "directive", "commissive"]),
        ("Who wrote it? LABEL_0: human, LABEL_1: machine", "LABEL_0 LABEL_1", ["human", "machine"]),
        ("NLI. entailment is 0, neutral is 1, contradiction is 2.", "0 1 2",
         ["entailment", "neutral", "contradiction"]),
        ("Stance: S (supports the claim), R (refutes it) or N (neutral)", "S R N",
         ["supports the claim", "refutes it", "neutral"]),
        ("Emotion of a message: anger (0), joy (1), fear (2), sadness (3). Reply with the number.", "0 1 2 3",
         ["anger", "joy", "fear", "sadness"]),
    ],
)  # fmt: skip
def test_a_prompt_says_what_labels_mean(instruction: str, labels: str, said: list[str]) -> None:
    names = labels.split()
    assert meanings(names, instruction) == dict(zip(names, said, strict=False))


@pytest.mark.parametrize(
    ("instruction", "labels"),
    [
        ("Classify a news article by topic. The output is one of: World, Sports, Business, Sci/Tech.",
         "World Sports Business Sci/Tech"),
        ("Name the intent: AddToPlaylist, BookRestaurant or GetWeather.", "AddToPlaylist BookRestaurant GetWeather"),
        ("Decide whether a text message is spam. The output is one word: spam or ham.", "ham spam"),
        ("Answer a yes/no question about a passage. The output is one word: yes or no.", "no yes"),
        ("Rate the review from 1 (terrible) to 5 (great).", "1 2 3 4 5"),
        ("Rate the review from 1 to 5 stars.", "1 2 3 4 5"),
        ("Given two sentences, output 1 if they are paraphrases of each other and 0 otherwise.", "0 1"),
        ("Output 1 if the text is offensive and 0 if not.", "0 1"),
        ("Is the tweet ironic? 1 = yes, 0 = no.", "0 1"),
        ("Is this comment toxic? Answer 1 for toxic and 0 for fine.", "0 1"),
        ("Answer yes if the tweet is ironic and no if it is sincere.", "no yes"),
        ("Sentiment: 0 = negative, 1 = positive.", "0 1 2"),
        ("Sentiment: 0 = bad, 1 = bad.", "0 1"),
        ("Classify mails as refund, delivery or other. Refund: money back.", "refund delivery other"),
        ("Label each (0 or 1).", "0 1"),
        ("Give 1 or 2: which of the two answers is better?", "1 2"),
        ("Sort the 20 mails of 3 customers: 1, 2 or 3.", "1 2 3"),
        ("Choose left or right for each other pair (see above).", "left right"),
        ("Label: 0, 1, 2 (see the guide).", "0 1 2"),
        ("1. Read the mail. 2. Decide which queue fits. 3. Output its number.", "1 2 3"),
        ("Give 1 star, 2 stars or 3 stars.", "1 2 3"),
        ("Of 3 mails, 2 answers and 1 note, choose one.", "1 2 3"),
        ("A comment is toxic if it insults someone, and clean if it does not.", "toxic clean"),
        ("", "0 1"),
    ],
)  # fmt: skip
def test_nothing_is_said_of_what_labels_mean(instruction: str, labels: str) -> None:
    assert meanings(labels.split(), instruction) == {}


def test_a_task_file_takes_the_meanings_from_its_prompt() -> None:
    task = read("Classify a news item: 0 = World, 1 = Sports, 2 = Business, 3 = Sci/Tech.", "0", "1", "2", "3")
    assert [label.description for label in task.labels] == NEWS
    assert ("descriptions", "rules") in {(found.field, found.how) for found in task.inferred}
    plain = read("Classify a news item as World, Sports or Business.", "World", "Sports", "Business")
    assert not any(label.description for label in plain.labels)
    assert "descriptions" not in {found.field for found in plain.inferred}


def test_names_that_are_words_take_the_remarks_that_some_of_them_have() -> None:
    task = read(
        "Sort Reuters stories by topic: earn (company earnings), acq (mergers and acquisitions), crude (oil), trade, "
        "money-fx (foreign exchange) or grain.",
        *("acq", "crude", "earn", "grain", "money-fx", "trade"),
    )
    assert {label.name: label.description for label in task.labels if label.description} == {
        "acq": "mergers and acquisitions", "crude": "oil", "earn": "company earnings", "money-fx": "foreign exchange",
    }  # fmt: skip
    assert "descriptions" in {found.field for found in task.inferred}


@pytest.mark.parametrize(
    ("instruction", "labels"),
    [
        ("Sort the news (crude) about grain, ships (ship) and trade.", ["crude", "grain", "ship", "trade"]),
        ("Route tickets to sales or support. Sales (of goods) is in Rome.", ["sales", "support"]),
        ("Rate the film 1 (bad), 2, 3, 4 or 5 (good).", ["1", "2", "3", "4", "5"]),
        ("Sort mails as spam, ham or other (see below).", ["spam", "ham", "other"]),
        ("Sort mails as spam, ham or other.", ["spam", "ham", "other"]),
    ],
)
def test_brackets_elsewhere_are_no_remarks_on_labels(instruction: str, labels: list[str]) -> None:
    assert not any(label.description for label in read(instruction, *labels).labels)


def test_what_the_user_wrote_of_a_label_stands() -> None:
    task = read_task("---\nlabels:\n  '0': dull\n  '1':\n---\nHow is the film? 0 = bad, 1 = good\n")
    assert [label.description for label in task.labels] == ["dull", ""]


def test_codes_are_told_by_what_they_mean() -> None:
    news = read("Classify a news item: 0 = World, 1 = Sports, 2 = Business, 3 = Sci/Tech.", "0", "1", "2", "3")
    assert list(label_words(news).values()) == NEWS
    long = read("Sort mails.\n0: somebody wants to have money back\n1: somebody asks for a thing in the shop", "0", "1")
    assert list(label_words(long).values()) == ["0", "1"]
    named = read("Who wrote it? LABEL_0: human, LABEL_1: machine", "LABEL_0", "LABEL_1")
    assert list(label_words(named).values()) == ["human", "machine"]
    words = read("Label the film review.\n- pos: likes the film\n- neg: does not", "pos", "neg")
    assert list(label_words(words).values()) == ["positive", "negative"], "words are told as words, these whole"


@pytest.mark.parametrize(
    "instruction",
    ["Classify the abstract. The output is the number of its class.", "Sort mails into the queues 0, 1 and 2.",
     "News: 0 = World and 1 = Sports."],
)  # fmt: skip
def test_numbers_of_classes_are_no_scale(instruction: str) -> None:
    assert list(label_words(read(instruction, "0", "1", "2")).values()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    "instruction",
    ["How urgent is a ticket, from 0 to 2?", "Score the essay.", "Predict the severity of the bug.",
     "Give the review a grade between 0 and 2.", "Rate the answer: 0 = bad, 2 = good.", "How similar are they (0-2)?"],
)  # fmt: skip
def test_numbers_that_are_given_for_more_or_less_are_a_scale(instruction: str) -> None:
    said = list(label_words(read(instruction, "0", "1", "2")).values())
    assert len(set(said)) == 3
    assert not set(said) & {"0", "1", "2"}


_PIECES = [
    "0",
    "1",
    "10",
    "=",
    ":",
    "(",
    ")",
    " ",
    ", ",
    "\n",
    "-",
    "for",
    "if",
    "is",
    "good",
    "bad",
    ".",
    '"',
    "or",
    "|",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=60).map("".join))
def test_any_prompt_gives_all_meanings_or_none(instruction: str) -> None:
    found = meanings(["0", "1", "10"], instruction)
    assert set(found) in (set(), {"0", "1", "10"})
    assert all(said.strip() and len(said) <= 200 for said in found.values())
