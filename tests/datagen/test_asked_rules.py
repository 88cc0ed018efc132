"""Rules that ask the teacher: its answers are calibrated, averaged and vote, or abstain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill import prompts
from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, ScoreRequest, Take, TokenText
from potstill.datagen.asked_rules import (
    Told,
    alike_questions,
    ask_rules,
    expected_shares,
    mean_known,
    rule_question,
    votes_for,
)
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.votes import ABSTAIN, contradicted
from potstill.datagen.weak import WeakOptions, WeakResult, dawid_skene, label_texts, merge_copies
from potstill.errors import DataError
from potstill.task import Answer, Label, Rule, TaskSpec

LABELS = ("refund", "praise", "other")
TEXTS = [
    *(f"give me my money back, order {i}" for i in range(4)),
    *(f"thank you, order {i} came" for i in range(4)),
    *(f"order {i} is late" for i in range(4)),
]
MONEY = Rule("refund", "prompt", ("Does the writer want money back?",))
THANKS = Rule("praise", "prompt", ("Does the writer say thanks?",), (Answer("Yes", "praise"), Answer("No", "other")))
WHAT = Rule(
    "", "prompt", ("What does the writer want?",),
    (Answer("money", "refund"), Answer("nothing", "praise"), Answer("news")),
)  # fmt: skip


def spec(*rules: Rule) -> TaskSpec:
    return TaskSpec("orders", "Sort messages.", "classification", tuple(map(Label, LABELS)), rules=rules)


def parts(request: AnyRequest) -> tuple[str, str]:
    """The text and the question of a request."""
    said = request.messages[-1].content
    text, _, rest = said.removeprefix("Text:\n").partition("\n\nQuestion about the text: ")
    return text, rest.partition("\n\n")[0]


def right(text: str, question: str) -> str:
    """What somebody who reads would answer."""
    if "want money" in question:
        return "Yes" if "money" in text else "No"
    if "thanks" in question:
        return "Yes" if "thank" in text else "No"
    return "money" if "money" in text else "nothing" if "thank" in text else "news"


class Answers:
    """A teacher that answers rules' questions."""

    concurrency = 8
    name = "answers"
    identity: Mapping[str, str] = {"backend": "answers"}

    def __init__(self, reply: Callable[[AnyRequest], Reply | Failure], abilities: Abilities):
        self._reply, self.abilities = reply, abilities
        self.asked: list[AnyRequest] = []

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        while requests := take(self.concurrency):
            for request in requests:
                self.asked.append(request)
                yield request, self._reply(request)

    def close(self) -> None:
        pass


def scoring(leaning: float = 0.0, told: Callable[[str, str], str] = right, strength: float = 4.0) -> Answers:
    """One that scores, and says the first answer `leaning` nats too gladly."""

    def reply(request: AnyRequest) -> Reply:
        assert isinstance(request, ScoreRequest)
        said = told(*parts(request))
        gladly = request.continuations[0].strip().casefold()
        return Reply(
            scores=tuple(
                strength * (form.strip().casefold() == said.casefold())
                + leaning * (form.strip().casefold() == gladly) - 10
                for form in request.continuations
            ),
        )  # fmt: skip

    return Answers(reply, Abilities(scores=True))


def writing(told: Callable[[str, str], str] = right, **abilities: Any) -> Answers:
    """One that only writes."""

    def reply(request: AnyRequest) -> Reply:
        assert isinstance(request, Request)
        return Reply(told(*parts(request)), completion_tokens=1)

    return Answers(reply, Abilities(**abilities))


@pytest.fixture
def label(tmp_path: Path) -> Iterator[Callable[..., WeakResult]]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:

        def labelled(teacher: Answers, *rules: Rule, soft: Any = None, **given: Any) -> WeakResult:
            asker = Asker(teacher, ledger)
            options = given.pop("options", None) or WeakOptions(**given)
            return label_texts(spec(*rules), TEXTS, options, asker=asker, soft=soft)

        yield labelled


def by_text(result: WeakResult) -> list[str]:
    """The label of each text; "" for none."""
    found = dict(zip(result.rows["input"][:], result.rows["output"][:], strict=True))
    return [found.get(text, "") for text in TEXTS]


def test_the_question_stands_behind_the_text() -> None:
    shown = prompts.load("ask_rule").render(question="Is it {{ late }}?", input="Text: {{ 1 }}", answers=["Yes", "No"])
    assert shown == (
        "Text:\nText: {{ 1 }}\n\nQuestion about the text: Is it {{ late }}?\n\n"
        "Answer with one of these and nothing else: Yes, No."
    )
    assert rule_question("Text: {{ 1 }}", "Is it {{ late }}?", ["Yes", "No"])[0].content == shown


@pytest.mark.parametrize("leaning", [-3.0, 0.0, 3.0])
def test_a_yes_votes_and_a_no_abstains_whatever_the_teacher_likes_to_say(label: Any, leaning: float) -> None:
    result = label(scoring(leaning), MONEY)
    assert by_text(result) == ["refund"] * 4 + [""] * 8
    told = result.report["functions"][0]
    assert told["name"] == "refund: prompt Does the writer want money back?"
    assert (told["coverage"], told["asked"], told["unanswered"]) == (0.3333, 12, 0)
    assert told["answers"] == {"Yes": 4, "No": 8}
    assert {item.reason for item in result.dropped} == {"no_vote"}


def test_a_no_votes_against_where_a_label_is_given_for_it(label: Any) -> None:
    assert by_text(label(scoring(), THANKS)) == ["other"] * 4 + ["praise"] * 4 + ["other"] * 4


def test_each_of_several_answers_votes_for_its_label_or_none(label: Any) -> None:
    result = label(scoring(), WHAT)
    assert by_text(result) == ["refund"] * 4 + ["praise"] * 4 + [""] * 4
    assert result.report["functions"][0]["name"] == "refund or praise: prompt What does the writer want?"


def test_doubt_between_the_answers_abstains(label: Any) -> None:
    doubtful = scoring(strength=1.0)
    result = label(doubtful, MONEY)
    assert by_text(result) == [""] * 12
    assert any("votes on no text: no answer for a label reaches weak.sure" in note for note in result.notes)
    assert by_text(label(doubtful, MONEY, sure=0.55)) == ["refund"] * 4 + [""] * 8


def test_a_rare_label_is_not_voted_for_where_the_teacher_doubts_it(tmp_path: Path) -> None:
    """One of 60 texts is of the label; a teacher that is right gives another one a twentieth of a yes."""

    def reply(request: AnyRequest) -> Reply:
        assert isinstance(request, ScoreRequest)
        text = parts(request)[0]
        yes = 0.98 if "number 7." in text else 0.05 if "number 8." in text else 0.001
        said = {"yes": yes, "no": 1 - yes}
        return Reply(scores=tuple(float(np.log(said[form.strip().lower()] / 4)) for form in request.continuations))

    texts = [f"text number {i}." for i in range(60)]
    teacher = Answers(reply, Abilities(scores=True))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker, names = Asker(teacher, ledger), [f"label {i}" for i in range(50)]
        rule = Rule(names[0], "prompt", ("Is it?",))
        told = ask_rules([rule], texts, names, asker, SoftOptions())[0]
    assert np.flatnonzero(votes_for(told.labels, 0.7, told.even) == 0).tolist() == [7]


@pytest.mark.parametrize("texts", [1, 2, 40])
@pytest.mark.parametrize("prior", [None, [0.1, 0.1, 0.4, 0.4]])
def test_what_was_expected_beforehand_is_no_answer(tmp_path: Path, texts: int, prior: list[float] | None) -> None:
    """A teacher that says yes of each text alike tells nothing; all got the label of a no, the likelier beforehand."""
    names = ["a", "b", "c", "d"]
    rules = [
        Rule("a", "prompt", ("Is it?",), (Answer("Yes", "a"), Answer("No", "b"))),
        Rule("", "prompt", ("Which?",), (Answer("one", "a"), Answer("two", "b"), *(Answer(x, "c") for x in "xyz"))),
    ]
    teacher = scoring(told=lambda text, question: "Yes" if question == "Is it?" else "one")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asked = [f"text number {i}." for i in range(texts)]
        told = ask_rules(rules, asked, names, Asker(teacher, ledger), SoftOptions(), prior)
    assert told[0].labels[:, 1] == pytest.approx(0.75 if prior is None else 0.9)
    for said in told:
        assert (votes_for(said.labels, 0.6, said.even) == ABSTAIN).all()


@pytest.mark.parametrize(
    ("rule", "shares"),
    [
        (MONEY, [1 / 3, 2 / 3]),
        (THANKS, [1 / 3, 2 / 3]),
        (WHAT, [1 / 3, 1 / 3, 1 / 3]),
        (Rule("", "prompt", ("?",), (Answer("a", "refund"), Answer("b", "refund"), Answer("c", "praise"))), [1, 1, 2]),
        (Rule("", "prompt", ("?",), (*map(Answer, "abc", LABELS), Answer("d"))), [4, 4, 4, 3]),
    ],
)
def test_as_many_texts_are_supposed_to_get_an_answer_as_have_its_label(rule: Rule, shares: list[float]) -> None:
    found = expected_shares(rule, LABELS)
    assert found == pytest.approx([share / sum(shares) for share in shares])


def test_a_stated_prior_is_that_of_the_answers() -> None:
    assert expected_shares(MONEY, LABELS, [0.1, 0.2, 0.7]) == pytest.approx([0.1, 0.9])
    assert expected_shares(THANKS, LABELS, [0.1, 0.2, 0.7]) == pytest.approx([0.2, 0.8])


def test_a_label_votes_only_where_no_answer_for_none_is_likelier() -> None:
    labels = np.array([[0.4, 0.0], [0.6, 0.0], [0.2, 0.45], [np.nan, np.nan]])
    assert votes_for(labels, 0.3, labels).tolist() == [ABSTAIN, 0, 1, ABSTAIN]
    assert votes_for(labels, 0.3, labels - 0.2).tolist() == [ABSTAIN, 0, ABSTAIN, ABSTAIN]


@pytest.mark.parametrize("choices", [True, False])
def test_a_teacher_that_only_writes_votes_in_words(label: Any, choices: bool) -> None:
    def said(text: str, question: str) -> str:
        return "I cannot tell." if "order 3" in text else f"{right(text, question)}."

    teacher = writing(said, choices=choices)
    result = label(teacher, MONEY, Rule("praise", "prompt", THANKS.patterns), WHAT)
    assert by_text(result) == ["refund"] * 3 + [""] + ["praise"] * 3 + [""] * 5
    assert [told["unanswered"] for told in result.report["functions"]] == [3, 3, 3]
    told = {request.choices for request in teacher.asked if isinstance(request, Request)}
    assert told == ({("Yes", "No"), ("money", "nothing", "news")} if choices else {None})
    assert any("the teacher gave no answer for 3 texts" in note for note in result.notes)


def test_shares_of_sampled_answers_stand_for_probabilities(label: Any) -> None:
    def said(request: AnyRequest) -> Reply:
        assert isinstance(request, Request)
        return Reply("No" if request.sample == 2 else right(*parts(request)))

    teacher = Answers(said, Abilities())
    result = label(teacher, MONEY, soft=SoftOptions(votes=5))
    assert by_text(result) == ["refund"] * 4 + [""] * 8
    assert len(teacher.asked) == 60


def test_log_probs_of_written_answers_are_scores(label: Any) -> None:
    def said(request: AnyRequest) -> Reply:
        answer = right(*parts(request))
        other = "No" if answer == "Yes" else "Yes"
        return Reply(answer, said=(TokenText(answer, -0.1, ((answer, -0.1), (other, -2.4))),))

    result = label(Answers(said, Abilities(token_texts=5)), MONEY)
    assert by_text(result) == ["refund"] * 4 + [""] * 8


def test_the_wordings_of_one_question_are_averaged(tmp_path: Path) -> None:
    def said(text: str, question: str) -> str:
        return "Yes" if "first" not in question else right(text, "want money")

    rule = Rule("refund", "prompt", ("Is money wanted, first?", "And so?"))
    teacher = scoring(told=said)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        both = ask_rules([rule], TEXTS, LABELS, Asker(teacher, ledger), SoftOptions(rule="raw"))[0]
        one = ask_rules([Rule("refund", "prompt", rule.patterns[:1])], TEXTS, LABELS, Asker(teacher, ledger),
                        SoftOptions(rule="raw"))[0]  # fmt: skip
    sure = 1 / (1 + np.exp(-4.0))
    assert len(teacher.asked) == 2 * len(TEXTS), "what was asked before is in the ledger"
    assert both.answers[:, 0] == pytest.approx((one.answers[:, 0] + sure) / 2)
    assert both.labels[:, 1:].sum() == 0
    assert both.answers.sum(axis=1) == pytest.approx(1)


def noisy(shared: float, seed: int = 0) -> tuple[dict[int, Told], np.ndarray]:
    """Five questions for one of two labels, whose noise is shared by so much of its variance; the right answers."""
    random = np.random.default_rng(seed)
    gold = random.integers(0, 2, 800)
    common = random.normal(size=800)
    told = {}
    for place in range(5):
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * random.normal(size=800)
        yes = 1 / (1 + np.exp(-(1.5 * (2 * gold - 1) + 2 * noise)))
        both = np.stack([1 - yes, yes], axis=1)
        told[place] = Told(both, both, both)
    return told, gold


def test_questions_whose_noise_is_the_same_cast_one_vote() -> None:
    """Near-copies they are not: their votes differ where they are close to the bound."""
    told, gold = noisy(0.9)
    votes = np.stack([votes_for(said.labels, 0.7, said.even) for said in told.values()], axis=1)
    assert len(merge_copies(votes)[1]) == 5
    assert alike_questions(told, 0.8) == [[0, 1, 2, 3, 4]]
    mean = mean_known([said.labels for said in told.values()])
    one = votes_for(mean, 0.7, mean)[:, None]
    believed = {name: dawid_skene(cast, 2).probs for name, cast in (("five", votes), ("one", one))}
    voted = one[:, 0] != ABSTAIN
    right = {name: float((probs.argmax(1) == gold)[voted].mean()) for name, probs in believed.items()}
    sure = {name: float(probs.max(1)[voted].mean()) for name, probs in believed.items()}
    assert abs(right["one"] - right["five"]) < 0.02
    assert sure["five"] > right["five"] + 0.08, "five votes for one mistake are believed"
    assert abs(sure["one"] - right["one"]) < 0.06
    apart, _ = noisy(0.0)
    assert alike_questions(apart, 0.8) == [[0], [1], [2], [3], [4]]


def test_a_yes_to_every_question_is_doubt() -> None:
    """The embedded teacher says yes to opposite questions about the same texts: -.8 to -.9 on real ones."""
    random = np.random.default_rng(0)
    gladly = 2 * random.normal(size=800)
    yes = [1 / (1 + np.exp(-(gladly + 0.5 * random.normal(size=800)))) for _ in range(2)]
    opposite = {0: np.stack([yes[0], 1 - yes[0]], axis=1), 1: np.stack([1 - yes[1], yes[1]], axis=1)}
    told = {place: Told(table, table, table) for place, table in opposite.items()}
    assert alike_questions(told, 0.8) == [[0, 1]]
    mean = mean_known(list(opposite.values()))
    assert (votes_for(mean, 0.7, mean) == ABSTAIN).mean() > 0.99


def test_questions_for_other_labels_are_never_averaged() -> None:
    told, _ = noisy(0.9)
    yes = np.stack([told[0].labels[:, 1], np.zeros(800)], axis=1)
    no = yes[:, ::-1]
    assert alike_questions({0: Told(yes, yes, yes), 1: Told(no, no, no), 2: Told(yes, yes, yes)}, 0.8) == [[0, 2], [1]]
    nothing = np.full((800, 2), np.nan)
    assert alike_questions({0: Told(yes, yes, yes), 1: Told(nothing, nothing, nothing)}, 0.8) == [[0], [1]]


def test_averaged_questions_are_told_and_vote_once(label: Any) -> None:
    late = Rule("other", "contains", ("late",))
    again = Rule("refund", "prompt", ("Does somebody want money, again?",))
    result = label(scoring(), MONEY, late, again)
    assert result.report["merged_copies"] == [[0, 2]]
    assert [told["group"] for told in result.report["functions"]] == [0, 1, 0]
    assert by_text(result) == ["refund"] * 4 + [""] * 4 + ["other"] * 4
    assert len(result.report["accuracies"]) == 2


def test_no_answer_abstains_and_is_counted(label: Any) -> None:
    def reply(request: AnyRequest) -> Reply | Failure:
        if "order 2" in request.messages[-1].content:
            return Failure("the server is away")
        return scoring()._reply(request)

    result = label(Answers(reply, Abilities(scores=True)), MONEY, THANKS)
    assert [by_text(result)[i] for i in (2, 6, 10)] == ["", "", ""]
    assert by_text(result)[:2] == ["refund"] * 2 or by_text(result)[4:6] == ["praise"] * 2
    assert [told["unanswered"] for told in result.report["functions"]] == [3, 3]


def test_rules_stand_in_the_users_order_and_say_who_contradicts_them(label: Any) -> None:
    late = Rule("other", "keyword", ("late",))
    back = Rule("praise", "contains", ("money",))
    result = label(scoring(), late, MONEY, back)
    names = [told["name"].partition(":")[0] for told in result.report["functions"]]
    assert names == ["other", "refund", "praise"]
    assert [told["contradicted"] for told in result.report["functions"]] == [0.0, 1.0, 1.0]


def test_rows_name_the_teacher_where_its_answer_voted(label: Any) -> None:
    """Its terms hold for what a model learns from its answers."""
    result = label(scoring(), Rule("other", "keyword", ("late",)), MONEY)
    named = {row["output"]: row["source"]["teacher"] for row in result.rows}
    assert named == {"refund": "answers", "other": None}


def test_a_share_of_votes_is_contradicted() -> None:
    votes = np.array([[0, 0, -1], [0, 1, -1], [-1, 1, -1], [-1, -1, -1]])
    assert contradicted(votes, 2) == [0.5, 0.3333, 0.0]


def test_without_a_teacher_a_question_is_refused() -> None:
    with pytest.raises(DataError, match=r"the rule 'Does the writer want money back\?' asks the teacher, and none was"):
        label_texts(spec(MONEY), TEXTS)


def test_nothing_is_asked_where_a_function_fails_on_every_text(tmp_path: Path) -> None:
    def broken(text: str) -> str | None:
        raise KeyError(text)

    teacher = scoring()
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(DataError, match="function broken failed on all"):
        label_texts(spec(MONEY), TEXTS, functions=[broken], asker=Asker(teacher, ledger))
    assert teacher.asked == []


@pytest.mark.parametrize("given", [{"sure": 70}, {"sure": 0}, {"alike": 1.5}])
def test_bounds_outside_their_range_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be above 0 and at most 1 \(got"):
        WeakOptions(**given)  # type: ignore[arg-type]
