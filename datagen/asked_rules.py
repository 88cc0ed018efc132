"""Rules that ask the teacher: a question about each text, whose answers vote for labels (`prompt` in `rules`).

What a question's answer is worth is told in one of two ways, by what the teacher can do:

    scores      log-probs of all answers, from the teacher or off its own short answer (`said_labels`), or shares of
                several sampled ones (`soft.votes`). They are calibrated over the texts, since a model may be inclined
                to say yes whatever it reads: as many texts are supposed to be answered with yes as have the label that
                a yes votes for, which is one in so many labels or what `label_prior` says (`expected_shares`)
    in words    the answer that is written, which is then sure; one that names no answer is none

The wordings of one question are averaged. The rule votes for the label of the likeliest answer where its probability
reaches `weak.sure`, and abstains where it does not, where that answer is for no label, and where none came. It has to
reach it also were all that it votes for equally common: where nine of ten texts are supposed to get a no, a teacher
that finds every text alike tells of none of them, and its no would be nothing but what was supposed.

Questions to one teacher err alike, and the label model would believe what one mistake says twice. Their votes need not
be the same for that: of two whose noise is nearly the same, many votes differ by the bound alone. So questions for the
same labels whose probabilities go together (`weak.alike`) are averaged, too, and cast one vote (`alike_questions`). Two
whose probabilities go against each other are no less alike: there a yes is said to any question about a text, whatever
it votes for, and the mean of both is doubt.

Source: Smith, Fries, Hancock, Bach, "Language Models in the Loop", arXiv:2205.02318 §3: prompts as labelling functions,
calibrated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from potstill import prompts
from potstill.asking.teacher import Message, Reply, Request, ScoreRequest
from potstill.datagen.calibration import Rule as Calibrated
from potstill.datagen.calibration import fit_calibration
from potstill.datagen.label_question import answer_spellings
from potstill.datagen.label_votes import vote_scores
from potstill.datagen.outputs import label_reader
from potstill.datagen.said_labels import said_scores
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.votes import ABSTAIN
from potstill.task import Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker

PURPOSE = "weak"
# An answer takes few, but some servers count what the model thinks before it.
_MOST_TOKENS = 256
# What bounds log-odds: an answer in words has a probability of 1.
_LEAST = 0.01


@dataclass(frozen=True)
class Told:
    """What a teacher said to a rule's question.

    Attributes:
        answers: (n_texts, n_answers) float64, the probability of each answer, calibrated; NaN where none came.
        labels: (n_texts, n_labels) float64, the probability that goes to each label; rows may sum to less than 1, and
            hold NaN where no answer came.
        even: The same, were all that the answers vote for equally common.
    """

    answers: NDArray[np.float64]
    labels: NDArray[np.float64]
    even: NDArray[np.float64]


def alike_questions(told: Mapping[int, Told], alike: float) -> list[list[int]]:
    """Groups of questions that are to cast one vote, most of them of one.

    Args:
        told: What was said to each question, by its place.
        alike: Two questions for the same labels belong together where the log-odds of these correlate above it over
            the texts, or below its negative. Log-odds, since probabilities of another spread go together no less.

    Returns:
        Every place once, those of a group in order.
    """
    groups: list[list[int]] = []
    for place, said in told.items():
        for group in groups:
            if abs(_correlation(told[group[0]].labels, said.labels)) > alike:
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def _correlation(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """Correlation of two tables of probabilities over the labels that both know; 0 where they know others."""
    import numpy as np

    known = np.isfinite(one).all(axis=1) & np.isfinite(two).all(axis=1)
    one, two = one[known], two[known]
    used = (one > 0).any(axis=0)
    if not known.any() or (used != (two > 0).any(axis=0)).any():
        return 0.0
    logs = [np.log((part[:, used] + _LEAST) / (1 - part[:, used] + _LEAST)) for part in (one, two)]
    a, b = (values - values.mean(axis=0) for values in logs)
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / spread) if spread > 1e-9 else 0.0


def votes_for(labels: NDArray[np.float64], sure: float, even: NDArray[np.float64]) -> NDArray[np.int64]:
    """The likeliest label of each text, or -1: (n, n_labels) → (n,).

    Its probability has to be at least `sure`, also in the table `even` (see `Told`), and no less than that of the
    answers that vote for none.
    """
    import numpy as np

    known = np.nan_to_num(labels)
    likeliest = known.argmax(axis=1)
    most, told = (np.take_along_axis(table, likeliest[:, None], 1)[:, 0] for table in (known, np.nan_to_num(even)))
    enough = (most >= sure) & (told >= sure) & (most >= 1 - known.sum(axis=1))
    return np.where(enough, likeliest, ABSTAIN).astype(np.int64)


def ask_rules(
    rules: Sequence[Rule],
    texts: Sequence[str],
    labels: Sequence[str],
    asker: Asker,
    options: SoftOptions,
    prior: Sequence[float] | None = None,
) -> list[Told]:
    """Ask the questions of rules about texts.

    Args:
        rules: Rules of kind `prompt`.
        texts: Texts, in order.
        labels: The labels' names.
        asker: The teacher.
        options: Longest text, calibration (`raw` and `balanced` stand, any other is `batch`), and sampled votes.
        prior: Share of each label among the texts; None where all are equally common.

    Returns:
        What was said, one entry a rule.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    import numpy as np

    shown = [text[: options.max_chars] for text in texts]
    calibrated: Calibrated = "batch"
    if options.rule == "raw" or options.rule == "balanced":
        calibrated = options.rule
    # Questions that may be answered alike are asked together, text by text.
    alike: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
    for place, rule in enumerate(rules):
        alike[tuple(answer.text for answer in rule.choices)] += [(place, wording) for wording in rule.patterns]
    found: list[list[NDArray[np.float64]]] = [[] for _ in rules]
    even: list[list[NDArray[np.float64]]] = [[] for _ in rules]
    for names, asked in alike.items():
        chats = [rule_question(text, wording, names) for text in shown for _, wording in asked]
        scores, written = answer_scores(chats, names, asker, options)
        for column, (place, _) in enumerate(asked):
            own = scores[column :: len(asked)]
            if written:
                found[place].append(own)
                even[place].append(own)
                continue
            nothing = ~np.isfinite(own).all(axis=1)
            fitted = fit_calibration(own, rule=calibrated, prior=expected_shares(rules[place], labels, prior))
            equal = replace(fitted, prior=_equal_shares(rules[place]))
            for tables, calibration in ((found, fitted), (even, equal)):
                tables[place].append(calibration.apply(own))
                tables[place][-1][nothing] = np.nan
    return [_told(*said, labels) for said in zip(rules, map(mean_known, found), map(mean_known, even), strict=True)]


def expected_shares(rule: Rule, labels: Sequence[str], prior: Sequence[float] | None = None) -> list[float]:
    """The share of the texts that each answer to a rule's question is supposed to get.

    An answer gets its label's share, in equal parts where several answers are for one label; those for no label get
    what is left, and at least as much as if all answers were equally common.

    Args:
        rule: A rule of kind `prompt`.
        labels: The labels' names.
        prior: Share of each label; equal ones by default.

    Examples:
        >>> expected_shares(Rule("a", "prompt", ("Is it?",)), ["a", "b", "c", "d"])
        [0.25, 0.75]
    """
    shares = dict(zip(labels, prior or [1.0 / len(labels)] * len(labels), strict=True))
    named = [answer.label for answer in rule.choices]
    given = [shares[label] / named.count(label) if label else 0.0 for label in named]
    free = named.count("")
    if free:
        left = max(1 - sum(given), free / len(named))
        given = [left / free if not label else share for label, share in zip(named, given, strict=True)]
    elif rule.label:
        # A no that votes for one label stands for all the others.
        given = [shares[rule.label] if label == rule.label else 1 - shares[rule.label] for label in named]
    total = sum(given)
    return [share / total for share in given]


def _equal_shares(rule: Rule) -> tuple[float, ...]:
    """The share of each answer where every label that is voted for, and none, is equally common."""
    named = [answer.label for answer in rule.choices]
    return tuple(1 / (len(set(named)) * named.count(label)) for label in named)


def rule_question(text: str, wording: str, answers: Sequence[str]) -> tuple[Message, ...]:
    """The chat that asks a rule's question about a text."""
    said = prompts.load("ask_rule").render(input=text, question=wording, answers=list(answers))
    return (Message("user", said),)


def answer_scores(
    chats: Sequence[tuple[Message, ...]], names: Sequence[str], asker: Asker, options: SoftOptions
) -> tuple[NDArray[np.float64], bool]:
    """How likely each answer to questions is, in the surest way that the teacher has.

    Args:
        chats: The questions.
        names: Their answers.
        asker: The teacher.
        options: Sampled votes.

    Returns:
        (questions, answers) float64, NaN where no answer came: summed log-probs in nats; or, where the second value is
        True, 1 of the answer that was written and 0 of the others.
    """
    import numpy as np

    spellings = [answer_spellings(name) for name in names]
    found = np.full((len(chats), len(names)), np.nan)
    if asker.abilities.scores:
        # Two answers may share a spelling: it is scored once and counts for both.
        every = tuple(dict.fromkeys(form for own in spellings for form in own))
        requests = [ScoreRequest(messages=chat, continuations=every) for chat in chats]
        for row, answer in enumerate(asker.ask(requests, PURPOSE)):
            if isinstance(answer.reply, Reply) and len(answer.reply.scores) == len(every):
                known = dict(zip(every, answer.reply.scores, strict=True))
                found[row] = [np.logaddexp.reduce([known[form] for form in own]) for own in spellings]
        return found, False
    if asker.abilities.token_texts:
        found = said_scores(chats, spellings, asker, PURPOSE)
    if options.votes and not np.isfinite(found).any():
        found = vote_scores(
            chats, names, asker, PURPOSE,
            votes=options.votes, temperature=options.vote_temperature, seed=options.seed,
        )  # fmt: skip
    if np.isfinite(found).any() or options.votes:
        return found, False
    read = label_reader(names)
    choices = tuple(names) if asker.abilities.choices else None
    asked = [Request(messages=chat, max_tokens=_MOST_TOKENS, temperature=0.0, choices=choices) for chat in chats]
    for row, answer in enumerate(asker.ask(asked, PURPOSE)):
        if isinstance(answer.reply, Reply) and answer.reply.finish != "refused":
            said = read(answer.reply.text)
            if said is not None:
                found[row] = [float(name == said) for name in names]
    return found, True


def mean_known(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of equal tables over those that are not NaN; NaN where all are."""
    import numpy as np

    stack = np.stack(parts)
    count = np.isfinite(stack).sum(axis=0)
    total = np.nan_to_num(stack).sum(axis=0) / np.maximum(1, count)
    return np.where(count > 0, total, np.nan)


def _told(rule: Rule, answers: NDArray[np.float64], even: NDArray[np.float64], labels: Sequence[str]) -> Told:
    import numpy as np

    given, given_even = np.zeros((2, len(answers), len(labels)))
    for column, answer in enumerate(rule.choices):
        if answer.label:
            given[:, list(labels).index(answer.label)] += answers[:, column]
            given_even[:, list(labels).index(answer.label)] += even[:, column]
    return Told(answers, given, given_even)
