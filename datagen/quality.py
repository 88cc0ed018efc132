"""Written rows, looked at again: is the label right, does the teacher give the same answer twice, does a judge agree?

In: rows and a teacher (the one that wrote them, or a stronger one). Out: the same rows with lower weights, or without
those that the checks speak against, each with its reason. Outputs that say nothing of their input go first (see
`input_gain`). Then three checks, each giving an agreement in [0, 1]:

verify  how likely the teacher finds the row's label, by calibrated label scores, over how likely it finds its
        favourite: 1 where it would choose the same label. The scores are calibrated over the rows (see `calibration`),
        since a teacher's raw choice may be one label for everything. Classification, with a teacher that scores.
votes   the row is answered again a few times with sampling (self-consistency, Wang et al., arXiv:2203.11171). For
        classification the votes for each label are counted and calibrated in the same way. For other tasks the answers
        are compared by ROUGE-L F1; the one that is most like all others wins, and replaces the row's output if it is
        another one.
judge   the teacher says Yes or No to the row. With scores, log p(Yes) - log p(No) is centred over the rows first: small
        teachers say Yes to everything. Without scores its word is taken.

The agreement of a row is the mean over the checks that gave one. What the checks cost is in the ledger under `quality`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from potstill import prompts
from potstill.asking.teacher import Message, Reply, Request, ScoreRequest
from potstill.datagen.answering import answer_messages
from potstill.datagen.calibration import fit_calibration
from potstill.datagen.input_gain import input_gain, says_nothing
from potstill.datagen.label_question import answer_spellings, label_questions
from potstill.datagen.label_scores import can_score, label_scores, shows_examples
from potstill.datagen.label_votes import vote_scores
from potstill.datagen.novelty import rouge_l_f1
from potstill.datagen.outputs import off_form, read_output
from potstill.datagen.said_labels import said_scores
from potstill.datagen.self_instruct_text import is_yes
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.writing import rng
from potstill.errors import BadOptions, OptionError, OptionFault
from potstill.events import Event, Listener, silent
from potstill.rows import Dropped, Row, dataset_to_rows, rows_to_dataset
from potstill.task import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker

PURPOSE = "quality"
STAGE = "quality"
# Origins of rows whose answer the teacher gave: to inputs that it wrote, and to the user's own.
_WRITTEN = ("generated", "pseudo")


@dataclass(frozen=True)
class QualityOptions:
    """Which checks written rows pass, and what becomes of those that fail. All are off by default: they cost
    requests, and bring little (docs/generation.md).

    Attributes:
        input_gain: Drop written outputs that say nothing of their input: those that are hardly likelier after it than
            after another row's. Tasks that are no classification, a teacher that scores; two scores a row.
        verify: Check labels by calibrated scoring (classification, with a teacher that scores).
        votes: Times that each row is answered again; 0 asks for no votes.
        judge: Ask whether each row's answer is right.
        action: `weigh` multiplies a row's weight by its agreement; `drop` drops the rows below `least`.
        least: Agreement below which `drop` drops a row, and below which no weight is lowered further.
        teacher: Who checks, written as `--teacher` is; empty for the teacher that wrote the rows.
        teacher_options: Options of that teacher's backend, as `teacher_options` are those of the run's: another
            `key_variable`, a price, what it may think for.
        temperature: Of votes.
        max_tokens: Most new tokens of a vote on a task that is no classification.
        seed: Of votes.
    """

    input_gain: bool = False
    verify: bool = False
    votes: int = 0
    judge: bool = False
    action: Literal["weigh", "drop"] = "weigh"
    least: float = 0.2
    teacher: str = ""
    teacher_options: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 0.7
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if self.votes < 0:
            faults.append(OptionFault(f"votes must be at least 0 (got {self.votes})", "votes"))
        if not 0 < self.least < 1:
            faults.append(OptionFault(f"least must be in (0, 1) (got {self.least})", "least"))
        if self.teacher_options and not self.teacher:
            faults.append(
                OptionFault(
                    "teacher_options are for another teacher that checks, and quality.teacher names none; those of the "
                    "run's own stand at the top of the task file, or in --set teacher_options.NAME=VALUE",
                    "teacher_options",
                )
            )
        if self.votes and self.temperature <= 0:
            faults.append(
                OptionFault(f"votes need a temperature above 0, or all are the same (got {self.temperature})", "votes")
            )
        if faults:
            raise BadOptions(faults)

    @property
    def checks(self) -> int:
        """How many checks that give an agreement are asked for, a vote counted as one."""
        return self.verify + self.judge + self.votes

    @property
    def on(self) -> bool:
        """Whether any check is asked for."""
        return self.input_gain or self.checks > 0


@dataclass(frozen=True)
class QualityResult:
    """Checked rows, those that were dropped, and a report of JSON types."""

    rows: Dataset
    dropped: tuple[Dropped, ...]
    report: dict[str, Any]


def check_rows(
    spec: TaskSpec,
    table: Dataset,
    asker: Asker,
    options: QualityOptions,
    soft: SoftOptions | None = None,
    *,
    listener: Listener = silent,
) -> QualityResult:
    """Check written rows with a teacher.

    Args:
        spec: The task.
        table: Rows in the one schema; only those of origin `generated` are checked.
        asker: The teacher that checks.
        options: Which checks, and what follows.
        soft: How labels are scored.
        listener: Called with progress.

    Returns:
        Rows in their order, with lower weights or fewer of them; drops; a report.

    Raises:
        OptionError: A check that the task or the teacher does not allow.
        TeacherError: The teacher refused or stayed away.
    """
    import numpy as np

    soft = soft or SoftOptions()
    refuse_impossible(spec, asker, options, soft)
    rows = list(dataset_to_rows(table))
    empty: list[Dropped] = []
    gain: dict[str, Any] | None = None
    if options.input_gain:
        rows, empty, gain = _informative(spec, rows, asker, options, listener)
    places = [i for i, row in enumerate(rows) if row.origin in _WRITTEN] if options.checks else []
    written = [rows[i] for i in places]
    found: dict[str, NDArray[np.float64]] = {}
    replaced = 0
    if written:
        if options.votes and spec.kind != "classification":
            listener(Event(STAGE, "progress", f"answering {len(written)} inputs again, {options.votes} times"))
            voted, found["votes"] = _answer_votes(spec, written, asker, options)
            replaced = sum(new.output != old.output for new, old in zip(voted, written, strict=True))
            written = voted
        elif options.votes:
            listener(Event(STAGE, "progress", f"voting on {len(written)} labels, {options.votes} times"))
            found["votes"] = _agreement(_label_votes(spec, written, asker, options, soft), spec, written)
        if options.verify:
            listener(Event(STAGE, "progress", f"verifying {len(written)} labels"))
            scores = label_scores(spec, [row.input for row in written], asker, soft)
            found["verify"] = _agreement(scores, spec, written)
        if options.judge:
            listener(Event(STAGE, "progress", f"judging {len(written)} rows"))
            found["judge"] = _judgements(spec, written, asker)
    checks = np.stack(list(found.values())) if found else np.full((0, len(written)), np.nan)
    known = np.isfinite(checks)
    # A row that no check reached (no reply) is left as it is.
    agreement = np.where(
        known.any(axis=0), np.where(known, checks, 0).sum(axis=0) / np.maximum(1, known.sum(axis=0)), 1
    )
    kept, dropped = _judged(rows, places, written, agreement, found, options)
    report = _report(options, asker, found, agreement, written, dropped, replaced)
    for name in report["without_answer"]:
        told = f"quality.{name} says nothing: {asker.teacher.name} gave no answer that it could use"
        listener(Event(STAGE, "note", told))
    if gain is not None:
        report["input_gain"] = gain
        told = f"{gain['dropped']} of {gain['judged']} outputs say nothing of their input"
        report["summary"] = f"{report['summary']}; {told}" if options.checks else told
        report["dropped"] |= {item.reason: len(empty) for item in empty}
    listener(Event(STAGE, "progress", report["summary"], len(written), len(written)))
    return QualityResult(rows_to_dataset(kept, spec.label_names), (*empty, *dropped), report)


def _informative(
    spec: TaskSpec, rows: Sequence[Row], asker: Asker, options: QualityOptions, listener: Listener
) -> tuple[list[Row], list[Dropped], dict[str, Any]]:
    """Rows without written ones whose output says nothing of its input, those, and counts."""
    import numpy as np

    written = [row for row in rows if row.origin in _WRITTEN]
    listener(Event(STAGE, "progress", f"holding {len(written)} outputs against their inputs"))
    gains = input_gain(spec, written, asker, PURPOSE, seed=options.seed)
    judged = np.isfinite(gains)
    middle = round(float(np.median(gains[judged])), 4) if judged.any() else None
    gone = {}
    for row, gain, nothing in zip(written, gains, says_nothing(gains), strict=True):
        if nothing:
            detail = f"its input adds {gain:.2f} nats a token, the middle row's {middle:.2f}"
            gone[row.id] = Dropped(
                "says_nothing_of_input", detail, row.input, row.output, row.origin, row.source, STAGE
            )
    report = {"judged": int(judged.sum()), "middle": middle, "dropped": len(gone)}
    return [row for row in rows if row.id not in gone], list(gone.values()), report


def refuse_impossible(spec: TaskSpec, asker: Asker, options: QualityOptions, soft: SoftOptions) -> None:
    """Refuse checks that the task or the teacher does not allow; all arguments are those of `check_rows`.

    Raises:
        OptionError: There are some; all are named.
    """
    faults = []
    if options.input_gain and spec.kind == "classification":
        faults.append("quality.input_gain checks written outputs, and the task is classification; use quality.verify")
    elif options.input_gain and not asker.abilities.scores:
        faults.append(
            f"quality.input_gain needs a teacher that scores, which {asker.teacher.name} does not; use quality.judge, "
            "or quality.teacher=transformers"
        )
    if options.verify and spec.kind != "classification":
        faults.append(f"quality.verify checks labels, and the task is {spec.kind}; use quality.votes or quality.judge")
    elif options.verify and not can_score(asker, soft):
        faults.append(
            f"quality.verify needs a teacher that scores labels, which {asker.teacher.name} does not; "
            "use quality.votes, or quality.teacher=transformers"
        )
    if faults:
        raise OptionError("quality", faults)


def _agreement(scores: NDArray[np.float64], spec: TaskSpec, rows: Sequence[Row]) -> NDArray[np.float64]:
    """p(label) over p(likeliest label), calibrated over the rows; NaN where there is no score."""
    import numpy as np

    names = spec.label_names
    labels = np.array([names.index(row.output) for row in rows])
    counts = np.bincount(labels, minlength=len(names))
    weights = None if (counts == 0).any() else (len(rows) / len(names) / counts[labels]).tolist()
    probs = fit_calibration(scores, rule="batch", weights=weights, order=spec.ordered).apply(scores)
    found: NDArray[np.float64] = probs[np.arange(len(rows)), labels] / probs.max(axis=1)
    found[~np.isfinite(scores).all(axis=1)] = np.nan
    return found


def _label_votes(
    spec: TaskSpec, rows: Sequence[Row], asker: Asker, options: QualityOptions, soft: SoftOptions
) -> NDArray[np.float64]:
    """Log share of the sampled answers that name each label: (rows, labels)."""
    examples = shows_examples(asker, soft)
    return vote_scores(
        label_questions(spec, [row.input for row in rows], "score_label", examples=examples),
        spec.label_names, asker, PURPOSE, votes=options.votes, temperature=options.temperature, seed=options.seed,
    )  # fmt: skip


def _answer_votes(
    spec: TaskSpec, rows: Sequence[Row], asker: Asker, options: QualityOptions
) -> tuple[list[Row], NDArray[np.float64]]:
    """Answers most like all the others, and how like: (rows, agreement)."""
    import numpy as np

    requests = [
        Request(
            messages=answer_messages(spec, row.input),
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=rng(options.seed, index, "votes").randrange(2**31),
            sample=sample,
            tag=index,
        )
        for index, row in enumerate(rows)
        for sample in range(options.votes)
    ]
    answers: list[list[tuple[str, str]]] = [[(row.output, "")] for row in rows]
    for answer in asker.ask(requests, PURPOSE):
        if isinstance(answer.reply, Reply):
            index = int(str(answer.request.tag))
            text, fault = read_output(spec, rows[index].input, answer.reply)
            if fault is None and off_form(spec, rows[index].input, text) is None:
                answers[index].append((text, answer.key))
    voted, agreement = [], np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        given = answers[index]
        if len(given) < 2:
            voted.append(row)
            continue
        likeness = [
            sum(_alike(text, other) for j, (other, _) in enumerate(given) if j != i) / (len(given) - 1)
            for i, (text, _) in enumerate(given)
        ]
        best = max(range(len(given)), key=lambda i: (likeness[i], -i))
        agreement[index] = likeness[best]
        text, key = given[best]
        asked = (*row.source.requests, key)
        source = replace(row.source, teacher=asker.teacher.name, requests=asked) if key else row.source
        voted.append(replace(row, output=text, source=source))
    return voted, agreement


def _alike(a: str, b: str) -> float:
    return 1.0 if " ".join(a.split()) == " ".join(b.split()) else rouge_l_f1(a, b)


def _judgements(spec: TaskSpec, rows: Sequence[Row], asker: Asker) -> NDArray[np.float64]:
    """How far a judge says Yes: 0 to 1, NaN where there is no reply."""
    import numpy as np

    described = {label.name: label.description for label in spec.labels}
    prompt = prompts.load("judge_row")
    messages = [
        (
            Message(
                "user",
                prompt.render(
                    instruction=spec.instruction,
                    input=row.input,
                    output=row.output,
                    description=described.get(row.output, ""),
                ),
            ),
        )
        for row in rows
    ]
    found = np.full(len(rows), np.nan)
    if asker.abilities.scores:
        requests = [ScoreRequest(messages=message, continuations=("Yes", "No")) for message in messages]
        for index, answer in enumerate(asker.ask(requests, PURPOSE)):
            if isinstance(answer.reply, Reply) and len(answer.reply.scores) == 2:
                found[index] = answer.reply.scores[0] - answer.reply.scores[1]
        centred = found - np.nanmedian(found) if np.isfinite(found).any() else found
        # The middle row counts in full; below it, agreement falls with the odds.
        return np.asarray(np.minimum(1.0, np.exp(np.clip(centred, -30, 0))), dtype=np.float64)
    if asker.abilities.token_texts:
        shares = np.exp(said_scores(messages, [answer_spellings("Yes"), answer_spellings("No")], asker, PURPOSE)[:, 0])
        if np.isfinite(shares).any():
            return np.asarray(shares, dtype=np.float64)
    choices = ("Yes", "No") if asker.abilities.choices else None
    asked = [Request(messages=message, max_tokens=4, temperature=0.0, choices=choices) for message in messages]
    for index, answer in enumerate(asker.ask(asked, PURPOSE)):
        decided = is_yes(answer.reply.text) if isinstance(answer.reply, Reply) else None
        if decided is not None:
            found[index] = float(decided)
    return found


def _judged(
    rows: list[Row],
    places: Sequence[int],
    written: Sequence[Row],
    agreement: NDArray[np.float64],
    found: dict[str, NDArray[np.float64]],
    options: QualityOptions,
) -> tuple[list[Row], list[Dropped]]:
    kept: list[Row | None] = list(rows)
    dropped: list[Dropped] = []
    for index, place in enumerate(places):
        row = written[index]
        value = float(agreement[index])
        if options.action == "drop" and value < options.least:
            detail = (
                ", ".join(f"{name} {values[index]:.2f}" for name, values in found.items())
                + f"; at least {options.least:g}"
            )
            source, origin = row.source, row.origin
            dropped.append(Dropped("disagreement", detail, row.input, row.output, origin, source, STAGE))
            kept[place] = None
        else:
            weight = row.weight if options.action == "drop" else row.weight * max(options.least, value)
            kept[place] = replace(row, weight=weight)
    return [row for row in kept if row is not None], dropped


def _report(
    options: QualityOptions,
    asker: Asker,
    found: dict[str, NDArray[np.float64]],
    agreement: NDArray[np.float64],
    written: Sequence[Row],
    dropped: Sequence[Dropped],
    replaced: int,
) -> dict[str, Any]:
    import numpy as np

    means = {name: round(float(np.nanmean(v)), 4) for name, v in found.items() if np.isfinite(v).any()}
    low = int((agreement < options.least).sum())
    done = f"{len(dropped)} dropped" if options.action == "drop" else f"{low} at the least weight"
    return {
        "summary": f"{len(written)} rows checked ({', '.join(means) or 'nothing'}), {done}",
        "teacher": asker.teacher.name,
        "checked": len(written),
        "mean_agreement": means,
        "without_answer": [name for name in found if name not in means],
        "below_least": low,
        "dropped": dict(Counter(item.reason for item in dropped)),
        "dropped_by_label": dict(sorted(Counter(item.output for item in dropped).items())) if dropped else {},
        "outputs_replaced": replaced,
    }
