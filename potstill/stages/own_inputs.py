"""The user's `unlabelled:` inputs of a task whose answer is a text: which of them the teacher is to answer.

In: a task and settings. Out: `Own`. Left out, each with its reason, are inputs that are empty or lack a field, that are
not UTF-8, that stand twice, that the user's examples or rows answer, and that meet a test input
(`potstill.datagen.decontaminate`): merging would drop those after they were paid for. Of more inputs than rows are
wanted those with the smallest hashes are taken, so that what is added to the data leaves most of them as they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from potstill.datagen.decontaminate import TestTexts, normal_hash
from potstill.datagen.own_inputs import Own, OwnInput
from potstill.errors import DataError
from potstill.events import Event
from potstill.rows import Dropped, Source, split_fields
from potstill.stages.parts import ref_content

if TYPE_CHECKING:
    from potstill.settings import Settings
    from potstill.stages.job import Job
    from potstill.task import TaskSpec

# Characters of an input that was left out.
_SHOWN = 2000


def answers_own(spec: TaskSpec, settings: Settings) -> bool:
    """Whether the teacher answers inputs of the user's in a run."""
    return (
        spec.unlabelled is not None
        and spec.kind != "classification"
        and settings.writes
        and settings.generation.own_inputs != 0
    )


def unread_inputs(spec: TaskSpec, settings: Settings) -> str:
    """Why inputs of the user's are not used, with the mend; "" where there are none, or they are used."""
    if spec.unlabelled is None or spec.kind == "classification" or answers_own(spec, settings):
        return ""
    name = spec.unlabelled.path
    if not settings.writes:
        return f"the inputs in {name} are not used: with sources = {settings.sources} the teacher answers none; " + (
            "take sources = both or generated"
        )
    return f"the inputs in {name} are not used: generation.own_inputs is 0; leave it out, or say how many"


def own_key(spec: TaskSpec, settings: Settings) -> Any:
    """What the rows depend on besides, where inputs of the user's are answered; else None."""
    if not answers_own(spec, settings):
        return None
    data = [ref_content(ref) for ref in (spec.unlabelled, spec.labelled, spec.test)]
    return {"data": data, "near": settings.merge.test_near}


def told_inputs(job: Job) -> tuple[Own, dict[str, Any]]:
    """The inputs that the teacher of a run is to answer, of which the listener is told.

    Returns:
        The inputs; and what the report says of a dataset of the Hub that they are from.
    """

    def tell(said: str) -> None:
        job.listener(Event("datagen", "note", said))

    commits: dict[str, str] = {}
    own = own_inputs(job.spec, job.settings, tell=tell, commits=commits)
    if own.name:
        tell(own.told(job.settings.generation))
    return own, {"commits": commits} if commits else {}


def own_inputs(
    spec: TaskSpec,
    settings: Settings,
    *,
    tell: Callable[[str], object] | None = None,
    commits: dict[str, str] | None = None,
) -> Own:
    """The inputs that the teacher is to answer; none where it answers none.

    Args:
        spec: The task.
        settings: The run's settings.
        tell: Is told how many are not UTF-8, where some are.
        commits: Takes the commit that a dataset of the Hub was read at.

    Raises:
        DataError: The data cannot be read, lacks the task's fields, or holds no input that can be learnt from.
    """
    from potstill.retrieval.load import read_data
    from potstill.user_data import read_inputs

    ref = spec.unlabelled
    if ref is None or not answers_own(spec, settings):
        return Own()
    texts = read_inputs(ref, spec, commits=commits)
    answered = {normal_hash(example.input): "an example" for example in spec.examples}
    if spec.labelled is not None:
        answered |= {normal_hash(text): "a row that you answered" for text in read_data(spec.labelled, spec)["input"]}
    test = read_data(spec.test, spec)["input"][:] if spec.test is not None else ()
    tests = TestTexts(test, settings.merge.test_near)
    usable: list[OwnInput] = []
    dropped: list[Dropped] = []
    for place, text in enumerate(texts):
        source = Source(dataset=ref.path, config=ref.config, split=ref.split, row=place)
        why = _unusable(text, spec) or _answered(text, answered) or tests.found_in(text)
        if why is None:
            answered[normal_hash(text)] = "an earlier input"
            usable.append(OwnInput(text, source))
        else:
            dropped.append(Dropped(*why, text[:_SHOWN], "", "pseudo", source, "datagen"))
    reasons = Counter(item.reason for item in dropped)
    if not usable:
        told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items())) or "it is empty"
        raise DataError(
            f"unlabelled: {ref.path} holds no input that can be learnt from ({told}); give other inputs, or take the "
            "line out of the task file"
        )
    if tell is not None and (broken := reasons["broken_encoding"]):
        tell(f"{broken:,} of {len(texts):,} inputs in {ref.path} are not UTF-8 and are left out; save it as UTF-8")
    generation = settings.generation
    most = generation.rows if generation.own_inputs is None else min(generation.own_inputs, generation.rows)
    chosen = sorted(usable, key=lambda item: _rank(item.text, generation.seed))[:most]
    taken = tuple(sorted(chosen, key=lambda item: item.source.row or 0))
    return Own(ref.path, taken, tuple(dropped), len(texts))


def _unusable(text: str, spec: TaskSpec) -> tuple[str, str] | None:
    if not text.strip():
        return "empty", "no text"
    if "\ufffd" in text or "\x00" in text:
        return "broken_encoding", "not UTF-8"
    if spec.kind == "generation" and not all(split_fields(text, spec.inputs) or ("",)):
        return "missing_field", f"not all of {', '.join(spec.inputs)}"
    return None


def _answered(text: str, answered: Mapping[bytes, str]) -> tuple[str, str] | None:
    same = answered.get(normal_hash(text))
    return None if same is None else ("duplicate", f"the same words as {same}")


def _rank(text: str, seed: int) -> bytes:
    return sha256(f"own {seed} {text}".encode("utf-8", "replace")).digest()
