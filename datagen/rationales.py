"""Why an output is right, in the teacher's words: what a student learns beside the output itself.

In: the rows that a student will be trained on, whoever wrote them. Out: the same rows with a column more, `rationale`,
null where no usable reasoning came. Distilling step by step (Hsieh et al., arXiv:2305.02301 §3) lets the teacher reason
and answer in one reply; here it is shown input and output and asked for what leads from the one to the other. So found
rows and those of the user get reasoning too, it fits the output that is learnt, and a teacher too small to reason its
way to an answer can still say what speaks for one.

Nothing of a row changes for its reasoning: a row without stays and is learnt from as before.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from potstill import prompts
from potstill.asking.budget import as_paid
from potstill.asking.teacher import Failure, Message, Reply, Request
from potstill.datagen import filters
from potstill.datagen.parse import lacks_end, last_full_sentence, plain
from potstill.datagen.rationale_options import RationaleOptions
from potstill.datagen.writing import rng
from potstill.events import Event, Listener, silent
from potstill.language.names import LANGUAGES
from potstill.rows import RATIONALE, with_rationales
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker

PURPOSE = "rationales"
STAGE = "rationales"
# "The right answer is 12." is no reasoning; small teachers often say no more.
_NAMES_IT = ("the", "right", "correct", "final", "answer", "output", "is")


@dataclass(frozen=True)
class RationaleResult:
    """Rows, with the column `rationale` where any reasoning came; and a report of JSON types."""

    table: Dataset
    report: dict[str, Any]


def write_rationales(
    spec: TaskSpec, table: Dataset, asker: Asker, options: RationaleOptions, *, listener: Listener = silent
) -> RationaleResult:
    """Let the teacher say why each row's output is right.

    Args:
        spec: A task whose answer is a text.
        table: Rows in the one schema.
        asker: The teacher.
        options: How it is asked.
        listener: Called with progress.

    Returns:
        The rows in their order; the report counts what was refused, by reason. Where the run goes on at its budget,
        rows that it did not pay for have no reasoning (`not_asked`), and the report says so (`budget_met`).

    Raises:
        TeacherError: The teacher refused or stayed away.
        BudgetReached: The cap was met, and the run stops at it; a later run goes on from the ledger.
    """
    pairs = list(zip(table["input"], table["output"], strict=True))
    listener(Event(STAGE, "progress", f"the teacher explains {len(pairs)} outputs", 0, len(pairs)))
    source = (replace(rationale_request(spec, *pair, options), tag=place) for place, pair in enumerate(pairs))
    replies: dict[int, Reply | Failure] = {}
    with as_paid(asker.meter) as met:
        for answer in asker.stream(lambda room: list(islice(source, room)), PURPOSE):
            replies[answer.request.tag] = answer.reply
    refused: Counter[str] = Counter()
    found: list[str | None] = []
    for place, (text, output) in enumerate(pairs):
        reply = replies.get(place)
        said, fault = "", "not_asked" if reply is None else "no_reply"
        if isinstance(reply, Reply):
            said, fault = read_rationale(text, output, reply, options)
        found.append(None if fault else said)
        refused.update([fault] if fault else [])
    written = [said for said in found if said is not None]
    report: dict[str, Any] = {
        "summary": f"reasoning for {len(written)} of {len(pairs)} rows, by {asker.teacher.name}",
        "teacher": asker.teacher.name,
        "rows": len(pairs),
        "written": len(written),
        "refused": dict(sorted(refused.items())),
        "mean_words": round(sum(map(filters.length_of, written)) / max(1, len(written)), 1),
        **met,
    }
    if met:
        report["summary"] += f"; {met['budget_met']['told']}"
    elif pairs and not written:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
        told = f"{asker.teacher.name} gave no usable reasoning for {len(pairs)} rows ({reasons}); the student learns"
        listener(Event(STAGE, "note", f"{told} the outputs alone: try another --teacher, or take the weight out"))
    listener(Event(STAGE, "progress", report["summary"], len(pairs), len(pairs)))
    return RationaleResult(with_rationales(table, found) if written else table, report)


def rationale_request(spec: TaskSpec, text: str, output: str, options: RationaleOptions) -> Request:
    """The request for the reasoning that leads from an input to its output."""
    language = spec.languages[0] if spec.languages else "en"
    asked = prompts.load("explain_answer").render(
        instruction=spec.instruction,
        input=text,
        output=output,
        language="" if language == "en" else LANGUAGES.get(language, ""),
    )
    return Request(
        messages=(Message("user", asked),),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=rng(options.seed, 0, f"{RATIONALE} {text} {output}").randrange(2**31) if options.temperature else 0,
    )


def read_rationale(text: str, output: str, reply: Reply, options: RationaleOptions) -> tuple[str, str]:
    """The reasoning of a reply, and in a word why it is refused, "" where it is not.

    Words that name the output alone count for nothing.

    Args:
        text: The row's input.
        output: The row's output.
        reply: What the teacher wrote.
        options: How few words are too few.
    """
    said = plain(reply.text).strip()
    if lacks_end(reply):
        said = last_full_sentence(said)
        if not said:
            return "", "truncated"
    if reply.finish == "refused" or filters.refusal(said):
        return said, "refusal"
    if filters.repetition(said):
        return said, "repetition"
    if _beyond(said, output) < options.min_words:
        return said, "says_nothing"
    return said, "copy" if _same(said, text) else ""


def _beyond(said: str, output: str) -> int:
    """How long reasoning is without what it names of the output, and without saying that this is the answer."""
    named = {*filters.words(output), *_NAMES_IT}
    return filters.length_of(" ".join(word for word in filters.words(said) if word not in named))


def _same(one: str, other: str) -> bool:
    """Whether two texts are the same words."""
    return filters.words(one) == filters.words(other)
