"""The question for a text's label in the user's words: the task, what the labels mean, examples, the text, the answers.

In: a task, texts, whether examples are shown. Out: one chat a text. Descriptions stand in every question, unless the
task's own words hold them already. Examples are those of the task, then rows that the user labelled, as many of each
label, so few and so short that they cost little. A text is never shown its own label: where it is one of the
examples, the next one of that label stands in its place.

Where the user described no label and gave no example, the question is the task, the text and the answers alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Literal

from potstill import prompts
from potstill.asking.teacher import Message
from potstill.datagen.decontaminate import normal_hash
from potstill.task import Example, Label, TaskSpec, readable

if TYPE_CHECKING:
    from datasets import Dataset

# Examples of a question, and of a label; longer ones are cut, and taken where there are no shorter ones.
_MOST_SHOWN, _MOST_A_LABEL, _MOST_CHARS = 12, 4, 500
# Characters of one description, and of all together.
_MOST_DESCRIBED, _MOST_DESCRIBED_ALL = 300, 6000


def label_questions(
    spec: TaskSpec, texts: Sequence[str], prompt: Literal["score_label", "choose_label"], *, examples: bool
) -> list[tuple[Message, ...]]:
    """The question for the label of each text.

    Args:
        spec: A classification task; its examples are shown (see `with_examples`).
        texts: Texts, in order.
        prompt: How it is asked: `score_label` where answers are scored or sampled, `choose_label` where one is written.
        examples: Whether the examples are shown, none of them to itself.

    Returns:
        One chat a text.
    """
    asked, names = prompts.load(prompt), list(spec.label_names)
    described, given = shown_descriptions(spec), spec.examples if examples else ()
    keys = [normal_hash(example.input) for example in given]
    found: list[tuple[Message, ...]] = []
    for text in texts:
        key = normal_hash(text) if given else b""
        others = [one for one, own in zip(given, keys, strict=True) if own != key and not _begins(text, one.input)]
        about = _about(described, _shown(spec, others))
        said = asked.render(instruction=spec.instruction, about=about, input=text, labels=names)
        found.append((Message("user", said),))
    return found


def about_labels(spec: TaskSpec, *, examples: bool) -> str:
    """What a question says of the labels beside their names, for most texts; "" for nothing."""
    return _about(shown_descriptions(spec), _shown(spec, spec.examples if examples else ()))


def shown_descriptions(spec: TaskSpec) -> list[Label]:
    """The labels that the user described, with what is shown of it; none where the task's words say all of it.

    Examples:
        >>> from potstill.task.file import read_task
        >>> shown_descriptions(read_task("Classify news by topic: 0 = World, 1 = Sports, 2 = Business."))
        []
        >>> shown_descriptions(TaskSpec("t", "Sort.", "classification", (Label("P1", "all is down"), Label("P2"))))
        [Label(name='P1', description='all is down')]
    """
    told = [label for label in spec.labels if label.description.strip()]
    said = " ".join(spec.instruction.casefold().split())
    if all(" ".join(label.description.casefold().split()) in said for label in told):
        return []
    room = max(20, min(_MOST_DESCRIBED, _MOST_DESCRIBED_ALL // len(told)))
    return [replace(label, description=_cut(" ".join(label.description.split()), room)) for label in told]


def with_examples(spec: TaskSpec, rows: Dataset) -> TaskSpec:
    """The task with examples to show: its own, and rows that the user labelled behind them.

    Args:
        spec: A classification task.
        rows: Training rows in the one schema; no row that is held out or tested on.

    Returns:
        The task with at most one example a label more than a question shows, so that another one is left where a text
        is one of them.
    """
    names = set(spec.label_names)
    own = [example for example in spec.examples if example.output in names]
    known = {normal_hash(example.input) for example in own}
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in own:
        by_label[example.output].append(example)
    columns = (rows["input"], rows["output"], rows["origin"])
    given = [Example(text, output) for text, output, origin in zip(*columns, strict=True) if origin == "user"]
    for example in sorted(given, key=lambda example: len(example.input) > _MOST_CHARS):
        mine = by_label[example.output]
        if example.output in names and len(mine) <= _MOST_A_LABEL and normal_hash(example.input) not in known:
            known.add(normal_hash(example.input))
            mine.append(example)
    return replace(spec, examples=tuple(chain.from_iterable(by_label[name] for name in spec.label_names)))


def answer_spellings(name: str) -> tuple[str, ...]:
    """The spellings of a label's name that count as the same answer.

    The last is the name after a space: some templates leave that space to the answer, and its token is another one.
    """
    forms = [name, name.lower(), readable(name), name[:1].upper() + name[1:], f" {name}"]
    return tuple(dict.fromkeys(form for form in forms if form.strip()))


def _shown(spec: TaskSpec, examples: Sequence[Example]) -> list[Example]:
    """One example of each label, then a second, and so on."""
    of: dict[str, list[Example]] = {name: [] for name in spec.label_names}
    for example in examples:
        if example.output in of and len(of[example.output]) < _MOST_A_LABEL:
            of[example.output].append(Example(_cut(example.input.strip(), _MOST_CHARS), example.output))
    turns = chain.from_iterable(zip_longest(*of.values()))
    return [example for example in turns if example is not None][:_MOST_SHOWN]


def _about(described: Sequence[Label], examples: Sequence[Example]) -> str:
    if not described and not examples:
        return ""
    return prompts.load("about_labels").render(described=described, examples=examples)


def _begins(text: str, example: str) -> bool:
    """Whether a text is an example that was cut."""
    return bool(text.strip()) and example.startswith(text)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[:room].rstrip() + " …"
