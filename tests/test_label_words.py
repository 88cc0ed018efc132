"""By which words models are told of labels: of yes and no, by what the task asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, ScoreRequest, Take
from potstill.datagen.evidence import encoder_logits
from potstill.datagen.generate import GenerationOptions, generate_rows
from potstill.datagen.label_scores import label_scores
from potstill.datagen.soft_options import SoftOptions
from potstill.language.label_vectors import near_vectors
from potstill.language.label_words import beside, denials, label_words, what_is_asked
from potstill.models import sentence_encoder
from potstill.task import Label, TaskSpec, readable

TOXIC = TaskSpec("t", "Is this comment toxic?", "classification", (Label("yes"), Label("no")))


def words(instruction: str, *labels: Label | str) -> dict[str, str]:
    given_labels = tuple(label if isinstance(label, Label) else Label(label) for label in labels)
    return label_words(TaskSpec("t", instruction, "classification", given_labels))


@pytest.mark.parametrize(
    ("instruction", "yes", "no"),
    [
        ("Is this comment toxic?", "toxic", "not toxic"),
        ("Is this email spam or not?", "spam", "not spam"),
        ("Are these reviews fake?", "fake", "not fake"),
        ("Is it about sports?", "about sports", "not about sports"),
        ("Does this review recommend the product?", "recommends the product", "does not recommend the product"),
        ("Does this customer want to cancel?", "wants to cancel", "does not want to cancel"),
        ("Can this ticket be closed?", "can be closed", "can not be closed"),
        ("Has the author of this essay cited any sources?", "has cited any sources", "has not cited any sources"),
        ("Here is a transcript of a call. Was the caller angry?", "angry", "not angry"),
        ("Moderation: is a forum post allowed under our rules?", "allowed under our rules",
         "not allowed under our rules"),
        ("Do the two sentences mean the same thing?", "means the same thing", "does not mean the same thing"),
        ("Does the article report on politics?", "reports on politics", "does not report on politics"),
        ("Does the customer review mention a fault?", "mentions a fault", "does not mention a fault"),
    ],
)  # fmt: skip
def test_a_question(instruction: str, yes: str, no: str) -> None:
    assert words(instruction, "yes", "no") == {"yes": yes, "no": no}


@pytest.mark.parametrize(
    ("instruction", "yes", "no"),
    [
        ("Decide if a tweet is ironic, and answer yes or no.", "ironic", "not ironic"),
        ("Determine whether an article is about politics.", "about politics", "not about politics"),
        ("Check whether a product review mentions a defect.", "mentions a defect", "does not mention a defect"),
        ("For each message decide whether it needs an answer today.", "needs an answer today",
         "does not need an answer today"),
        ("You are a moderator. Decide whether posts should be removed.", "should be removed", "should not be removed"),
        ("Find out if the customer has already paid.", "has already paid", "has not already paid"),
        ("Say whether a letter has a signature.", "has a signature", "does not have a signature"),
        ("Tell if a pupil tries hard.", "tries hard", "does not try hard"),
        ("Tell whether an advert reaches children.", "reaches children", "does not reach children"),
        ("Identify whether clauses of terms of service are unfair to the consumer.", "unfair to the consumer",
         "not unfair to the consumer"),
        ("Decide whether the writer of a review is happy.", "happy", "not happy"),
        ("Decide whether the customer who wrote a review is satisfied.", "satisfied", "not satisfied"),
        ("Output 1 if the text is offensive and 0 otherwise.", "offensive", "not offensive"),
        ("Say if the customer cancelled the order.", "cancelled the order", "not cancelled the order"),
    ],
)  # fmt: skip
def test_whether_something_is_so(instruction: str, yes: str, no: str) -> None:
    assert what_is_asked(instruction) == (yes, no)


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("Say whether a sentence about sports is plausible.", "plausible"),
        ("Decide whether a tweet about climate change is ironic.", "ironic"),
        ("Tell if a comment on a news site is toxic or not.", "toxic"),
        ("Judge whether a sentence from a review is positive.", "positive"),
        ("Check whether the email to customer support is urgent.", "urgent"),
        ("Decide if a question for the help desk can be answered by a bot.", "can be answered by a bot"),
        ("Decide whether an article in a local newspaper is about crime.", "about crime"),
        ("Say whether a post by a user on the forum should be removed.", "should be removed"),
        ("Say whether a letter with a complaint has been answered.", "has been answered"),
        ("Decide whether a review of a hotel in Spain is fake.", "fake"),
        ("Say if the message sent to the hotline is a threat.", "a threat"),
        ("Decide whether a comment posted on a forum is spam.", "spam"),
        ("Decide whether a comment written by a pupil was helpful.", "helpful"),
        ("Decide whether the headline of an article about money is clickbait.", "clickbait"),
        ("Tell whether a comment on a video contains an insult.", "contains an insult"),
        ("Check if a report from a nurse mentions a fall.", "mentions a fall"),
        ("Decide whether an answer to a question that is hard is right.", "right"),
        ("Decide whether a sentence of a review which is long is positive.", "positive"),
        ("Flag tweets about vaccines that are false.", "false"),
        ("Detect messages from customers that need an answer.", "needs an answer"),
        ("Spot reviews of our hotels that mention noise.", "mentions noise"),
        ("Say whether the comment under a video insults somebody.", "insults somebody"),
        ("Decide whether a comment below news reports is rude.", "rude"),
        ("Decide whether a letter about a loan supports the claim.", "supports the claim"),
        ("If the mail is spam write 1, if it is not write 0.", "spam"),
        ("If the comment contains an insult, return yes, else no.", "contains an insult"),
    ],
)
def test_a_subject_goes_on_behind_its_noun(instruction: str, said: str) -> None:
    found = what_is_asked(instruction)
    assert found is not None
    assert found[0] == said


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("Is the article about sports?", "about sports"),
        ("Is the comment about something that is illegal?", "about something that is illegal"),
        ("Is this email from a customer?", "from a customer"),
        ("Is the request for a refund?", "for a refund"),
        ("Does the article report on a war that is over?", "reports on a war that is over"),
        ("Decide whether a text is about something that is illegal.", "about something that is illegal"),
        ("Say if the tweet is in English.", "in English"),
        ("Say whether the comment agrees with the post.", "agrees with the post"),
        ("Tell whether a post asks for money.", "asks for money"),
    ],
)
def test_what_stands_behind_the_verb_is_no_subject(instruction: str, said: str) -> None:
    found = what_is_asked(instruction)
    assert found is not None
    assert found[0] == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ENTY:dismed", "ENTY dismed"),
        ("ABBR:exp", "ABBR exp"),
        ("topic::sports", "topic sports"),
        ("rec.sport.hockey", "rec sport hockey"),
        ("talk.politics.guns", "talk politics guns"),
        ("comp.sys.ibm.pc.hardware", "comp sys ibm pc hardware"),
        ("sci.med", "sci med"),
        ("comp.os.ms-windows.misc", "comp os ms-windows misc"),
        ("alarm:set_alarm", "alarm set alarm"),
        ("intent:PlayMusic", "intent play music"),
        ("iot.hue_lightoff", "iot hue lightoff"),
        ("DA:7", "DA 7"),
        # Words already, or one name.
        ("Sci/Tech", "Sci/Tech"),
        ("food/drink", "food/drink"),
        ("and/or", "and/or"),
        ("10:30", "10:30"),
        ("3:1", "3:1"),
        ("U.S.", "U.S."),
        ("e.g.", "e.g."),
        ("Ph.D.", "Ph.D."),
        ("v1.2", "v1.2"),
        ("Node.js", "Node.js"),
        ("ASP.NET", "ASP.NET"),
        ("Booking.com", "Booking.com"),
        ("amazon.co.uk", "amazon.co.uk"),
        ("www.example.org", "www.example.org"),
        ("http://example.org", "http://example.org"),
        (".NET", ".NET"),
        ("St. Louis", "St. Louis"),
        ("topic: sports", "topic: sports"),
        ("C++", "C++"),
        (":)", ":)"),
        ("positive.", "positive."),
        ("not-spam", "not-spam"),
    ],
)
def test_names_with_marks_between_their_words(name: str, said: str) -> None:
    assert readable(name) == said
    assert words("Classify.", name, "nothing") == {name: said, "nothing": "nothing"}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["spam", "ham"], ["spam", "not spam"]),
        (["Ham", "Spam", "phishing"], ["not spam", "Spam", "phishing"]),
        (["neg", "neu", "pos"], ["negative", "neutral", "positive"]),
        (["POS", "NEG"], ["positive", "negative"]),
        (["subj", "obj"], ["subjective", "objective"]),
        (["pos", "obj", "neg"], ["positive", "objective", "negative"]),
        (["cheese", "ham"], ["cheese", "ham"]),
        (["subj", "verb", "obj."], ["subj", "verb", "obj."]),
        (["noun", "pos"], ["noun", "pos"]),
    ],
)
def test_names_that_are_short_for_a_word(labels: list[str], said: list[str]) -> None:
    assert list(words("Classify.", *labels).values()) == said


def test_a_short_name_with_a_description_stands() -> None:
    task = TaskSpec("t", "Classify.", "classification", (Label("spam"), Label("ham", "mail that was asked for")))
    assert label_words(task)["ham"] == "ham"


@pytest.mark.parametrize(
    ("instruction", "yes"),
    [
        ("Flag comments that are toxic.", "toxic"),
        ("Find messages that contain personal data.", "contains personal data"),
        ("Detect sexism.", "sexism"),
        ("Detect clickbait headlines.", "clickbait"),
        ("Detect spam in SMS messages.", "spam"),
        ("Hate speech detection on social media posts.", "hate speech"),
    ],
)
def test_what_is_looked_for(instruction: str, yes: str) -> None:
    found = what_is_asked(instruction)
    assert found is not None
    assert found[0] == yes
    assert "not" in found[1].split()


@pytest.mark.parametrize(
    "instruction",
    [
        "Is the following statement true or false?",
        "Say whether the answer to a question about a passage is yes or no.",
        "Given a passage and a question, answer the question with yes or no.",
        "Decide whether a review is positive or negative.",
        "Say whether it is clear what the writer wants.",
        "Does the post about a film give it away?",
        "Classify whether a medical question and an answer match.",
        "Say whether the summary and the article agree.",
        "Decide whether the comment or the reply is missing.",
        "Say whether the passage does not answer it.",
        "Decide whether",
        "Is",
        "Classify.",
    ],
)
def test_nothing_is_asked_of_yes_and_no(instruction: str) -> None:
    assert what_is_asked(instruction) is None
    assert words(instruction, "yes", "no") == {"yes": "yes", "no": "no"}


def test_other_labels_keep_their_names() -> None:
    assert words("Is this comment toxic?", "toxic", "fine") == {"toxic": "toxic", "fine": "fine"}
    assert words("Is a card there?", "card_arrival", "BookRestaurant") == {
        "card_arrival": "card arrival", "BookRestaurant": "book restaurant",
    }  # fmt: skip
    assert words("Is this comment toxic?", "yes", "no", "unsure") == {"yes": "yes", "no": "no", "unsure": "unsure"}
    assert words("Is this comment toxic?", "False", "True") == {"False": "not toxic", "True": "toxic"}
    assert words("Is this comment toxic?", "0", "1") == {"0": "not toxic", "1": "toxic"}


@pytest.mark.parametrize(
    ("instruction", "labels", "expected"),
    [
        ("Predict the star rating that goes with a Yelp review.", "12345",
         ["1 star, terrible", "2 stars, poor", "3 stars, average", "4 stars, good", "5 stars, excellent"]),
        ("Rate the difficulty of a math problem.", "312",
         ["very high difficulty", "very low difficulty", "medium difficulty"]),
        ("How urgent is a ticket, from 0 to 2?", "012", ["not urgent at all", "moderately urgent", "very urgent"]),
        ("Rate the difficulty of a math problem.", "135", ["1", "3", "5"]),
        ("Say which of both.", "12", ["1", "2"]),
    ],
)  # fmt: skip
def test_points_of_a_scale(instruction: str, labels: str, expected: list[str]) -> None:
    assert list(words(instruction, *labels).values()) == expected


def test_the_users_own_descriptions_stand() -> None:
    described = words("Is this comment toxic?", Label("yes", "insults someone"), "no")
    assert described == {"yes": "yes", "no": "no"}


@pytest.mark.parametrize(
    ("labels", "denied"),
    [
        (["spam", "not spam"], "not spam"),
        (["HATE", "NOT_HATE"], "NOT_HATE"),
        (["non-irony", "irony"], "non-irony"),
        (["hateful", "not hate", "neither"], "not hate"),
        (["NotSpam", "Spam"], "NotSpam"),
        (["entailment", "not_entailment"], "not_entailment"),
        (["positive", "negative"], ""),
        (["sense", "nonsense"], ""),
        (["card_arrival", "no_card"], ""),
        (["note", "non"], ""),
        (["spam", "ham"], "ham"),
        (["cheese", "ham"], ""),
        (["yes", "no"], ""),
    ],
)
def test_names_that_deny_another(labels: list[str], denied: str) -> None:
    task = TaskSpec("t", "Classify.", "classification", tuple(map(Label, labels)))
    assert denials(task) == ({denied} if denied else set())


def test_the_answer_no_denies_what_is_asked() -> None:
    assert denials(TOXIC) == {"no"}
    asked = TaskSpec("t", "Does a review mention a defect?", "classification", (Label("false"), Label("true")))
    assert denials(asked) == {"false"}
    described = (Label("yes"), Label("no", "friendly"))
    assert denials(TaskSpec("t", "Is this comment toxic?", "classification", described)) == set()


def test_a_described_label_stands_for_itself() -> None:
    labels = (Label("spam"), Label("not spam", "what people write to each other"))
    assert denials(TaskSpec("t", "Classify.", "classification", labels)) == set()


def test_what_denies_is_as_near_to_any_other_thing() -> None:
    vectors, other = np.eye(3)[:2], np.eye(3)[2]
    assert near_vectors(TOXIC, vectors, other).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.25, 0.25]]
    both = TaskSpec("t", "Classify.", "classification", (Label("positive"), Label("negative")))
    assert near_vectors(both, vectors, other).tolist() == vectors.tolist()
    assert vectors.tolist() == np.eye(3)[:2].tolist()


class Listener:
    """Writes the request's number, scores every answer alike, and keeps what it was asked."""

    concurrency, name, identity = 4, "listener", {"backend": "listener"}
    abilities = Abilities(prefill=True, scores=True)

    def __init__(self) -> None:
        self.asked: list[AnyRequest] = []

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        while requests := take(4):
            for request in requests:
                self.asked.append(request)
                if isinstance(request, ScoreRequest):
                    yield request, Reply(scores=(-1.0,) * len(request.continuations), score_tokens=(1,))
                else:
                    yield request, Reply(f"Well, remark number {len(self.asked)} leaves me cold, and so it goes on.")

    def close(self) -> None:
        pass


def test_a_small_teacher_writes_and_answers_by_these_words(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        teacher = Listener()
        generate_rows(TOXIC, Asker(teacher, ledger), GenerationOptions(rows=4, novelty=1.0))
        said = {(r.messages[-1].content, r.prefill) for r in teacher.asked if isinstance(r, Request)}
        assert len(said) == 3
        for what in ("toxic", "not toxic", "other"):
            asked = f'a comment of the category "{what}"'
            assert any(asked in prompt and asked in begun for prompt, begun in said)
        teacher.asked.clear()
        label_scores(TOXIC, ["a text"], Asker(teacher, ledger), SoftOptions(form="example"))
        (scored,) = teacher.asked
        assert isinstance(scored, ScoreRequest)
        assert {one.strip() for one in scored.continuations} == {"toxic", "not toxic"}
        teacher.asked.clear()
        label_scores(TOXIC, ["a text"], Asker(teacher, ledger), SoftOptions(form="task", variants=False))
        assert [r.continuations for r in teacher.asked if isinstance(r, ScoreRequest)] == [("yes", "no")]


def test_a_code_is_told_by_its_meaning_alone(tmp_path: Path) -> None:
    labels = (Label("0", "World"), Label("1", "Sports"))
    task = TaskSpec("t", "Classify a news item.", "classification", labels)
    assert words(task.instruction, *labels) == {"0": "World", "1": "Sports"}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        teacher = Listener()
        generate_rows(task, Asker(teacher, ledger), GenerationOptions(rows=4, novelty=1.0))
        said = {r.messages[-1].content for r in teacher.asked if isinstance(r, Request)}
        assert {f'Write a news article of the category "{name}".' for name in ("World", "Sports")} == {
            text.strip() for text in said
        }
    assert beside("Sports", "Sports") == ""
    assert beside("sport", "news of games") == "news of games"


def test_letters_with_numbers_are_codes_too() -> None:
    told = (Label("P1", "the whole service is down"), Label("P2", "one customer cannot work"))
    assert words("Sort reports.", *told) == {"P1": "the whole service is down", "P2": "one customer cannot work"}
    assert words("Sort reports.", Label("P1", "all is down"), Label("P2")) == {"P1": "P1", "P2": "P2"}
    named = (Label("P1", "all is down"), Label("minor", "one cannot work"))
    assert words("Sort reports.", *named) == {"P1": "P1", "minor": "minor"}


@pytest.mark.real
def test_the_encoder_reads_them() -> None:
    encoder = sentence_encoder()
    task = TaskSpec("t", "Is this article about football?", "classification", (Label("no"), Label("yes")))
    texts = ["The striker scored twice in the cup final.", "Rates were raised by the central bank.",
             "The goalkeeper signed for United.", "The parliament passed the budget."]  # fmt: skip
    assert encoder_logits(task, texts, encoder).argmax(axis=1).tolist() == [1, 0, 1, 0]


@pytest.mark.real
def test_topics_are_told_from_what_is_not_about_them() -> None:
    """To the encoder alone, "not about sports" lies where "about sports" does."""
    encoder = sentence_encoder()
    task = TaskSpec("t", "Is this news article about sports?", "classification", (Label("yes"), Label("no")))
    texts = ["Rain stopped play at the third day of the Test match.", "Oil prices fell as supplies grew.",
             "The champion lost in straight sets to a qualifier.", "A probe was sent to the moons of Saturn.",
             "He was fined for a foul in the derby on Sunday.", "The minister resigned over a scandal."]  # fmt: skip
    assert encoder_logits(task, texts, encoder).argmax(axis=1).tolist() == [0, 1, 0, 1, 0, 1]


_PIECES = re.findall(
    r"[^ ]+",
    "is are does whether if this the a comment review of it that who or not and yes 1 toxic mentions has already paid, "
    ". ? : can be should detect flag in clauses of either",
)


@given(st.lists(st.sampled_from(_PIECES), max_size=60).map(" ".join))
def test_any_instruction_gives_two_phrases_or_none(instruction: str) -> None:
    found = what_is_asked(instruction)
    if found is not None:
        assert all(phrase.strip() and len(phrase.split()) <= 16 for phrase in found)
        assert found[0] != found[1]
