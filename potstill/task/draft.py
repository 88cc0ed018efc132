"""A task file to start from: what was read from a prompt, written out with a remark beside each line.

What enters: a prompt, and answers to what its words do not tell (`Answers`). What leaves: the text of a task file
that reads back as the same task (`read_task_file` of it gives the kind, labels, languages and metric that are
written there). Nothing is asked here: who asks, and how, is the caller's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from potstill.errors import UserError
from potstill.task import TaskSpec
from potstill.task.file import read_task_file
from potstill.task.source import path_in

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

_PLAIN = re.compile(r"[^\W\d_][\w ,.;()'/’–-]*", re.ASCII)
_TAKEN = frozenset(["y", "n", "yes", "no", "true", "false", "on", "off", "null", "none"])


@dataclass(frozen=True)
class Answers:
    """What a person said beside the prompt.

    Attributes:
        labels: Label names, where the prompt names none; empty means that answers are free text.
        descriptions: A sentence for each label that has one.
        test: Path of real labelled rows to measure on.
        teacher: Who writes the rows; empty for the built-in one.
    """

    labels: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    test: str = ""
    teacher: str = ""


def read_prompt(prompt: str, *, asker: Asker | None = None) -> TaskSpec:
    """What a prompt tells by itself; labels may be missing.

    Args:
        prompt: A task in English.
        asker: Asked for what the words leave open; None asks nobody.

    Raises:
        TaskError: The prompt is empty or cannot be a task.
        UserError: It is a task file already, or the path of one.
    """
    if path_in(prompt) is not None:
        raise UserError(f"{prompt.strip()} is a path; give the task in words, or edit the file and run it")
    found = read_task_file(prompt, asker=asker, draft=True)
    if found.lines:
        raise UserError("the prompt begins with front matter, so it is a task file already; save it and run it")
    return found.spec


def draft_task(prompt: str, spec: TaskSpec, answers: Answers | None = None) -> str:
    """The text of a commented task file.

    Args:
        prompt: The prompt as given; it becomes the file's body.
        spec: What `read_prompt` read from it.
        answers: What was asked beside it.

    Raises:
        TaskError: The answers cannot be used, such as two labels of one name.
    """
    answers = answers or Answers()
    names = spec.label_names or answers.labels
    kind = "classification" if names else ("generation" if spec.kind == "classification" else spec.kind)
    lines = [
        "---",
        "# What potstill read from the prompt below. Change what is wrong; a line that is taken out is inferred again.",
        f"name: {_scalar(spec.name)}",
        f"kind: {kind}    # classification (one label of a list), generation (text) or instructions (many tasks)",
    ]
    if names:
        known = {label.name: label.description for label in spec.labels} | dict(answers.descriptions)
        lines += [
            "labels:",
            "  # A sentence says more to the teacher than a name: what belongs here, and what does not.",
        ]
        lines += [f"  {_key(name)}: {_scalar(known.get(name, ''))}".rstrip() for name in names]
        if spec.label_prior:
            shares = ", ".join(f"{_key(name)}: {share:.4g}" for name, share in spec.label_prior.items())
            lines.append(f"label_prior: {{{shares}}}    # how common each is, as the prompt says")
    columns = ", ".join(map(_scalar, spec.inputs)) or "text"
    # Rows of the user's own may have other columns, or one text that holds all.
    given = bool(spec.inputs) and not answers.test
    fields = f"{'' if given else '# '}inputs: [{columns if spec.inputs else 'premise, hypothesis'}]"
    metric = spec.metric if kind == spec.kind else ("macro_f1" if names else "rouge_l")
    if spec.ordered:
        lines.append(
            "ordered: true    # from less to more, so that near misses count less than far ones in qwk and mae"
        )
    labelled = "accuracy, macro_f1 or qwk" if spec.ordered else "accuracy or macro_f1"
    choices = labelled if names else "exact_match, token_f1, rouge_l, chrf, chrf++ or bleu"
    lines += [
        f"languages: [{', '.join(spec.languages)}]",
        f"metric: {metric}    # what the student is chosen by: {choices}",
        "",
        f"{fields}    # the fields of an input that has several; rows and questions name them",
        "",
        "# Real rows to measure on make the scores mean something. JSON lines, CSV, Parquet or a dataset of the Hub.",
    ]
    output = "label" if names else "output"
    if answers.test:
        lines.append(
            f"test: {{path: {_scalar(answers.test)}}}    # name the columns if they are not found: inputs, output"
        )
    else:
        lines.append(f"# test: {{path: my-test-rows.jsonl, inputs: [{columns}], output: {output}}}")
    lines += [
        f"# labelled: {{path: my-rows.jsonl, inputs: [{columns}], output: {output}}}    # real rows to train on",
        "# unlabelled: my-texts.txt    # real texts without answers",
        "",
        "# Which data may be used. Datasets with no stated licence may be, unless unknown is false.",
        '# licences: {deny: ["cc-by-nc*"], unknown: false}',
        "# exclude: [someone/their-dataset]",
        "",
        "# Who writes the rows: transformers (built in, small), vllm:MODEL, or any OpenAI-compatible server.",
        f"teacher: {_scalar(answers.teacher)}" if answers.teacher else "# teacher: openai:http://localhost:8000/v1#MODEL",
        "n: 800    # rows to write",
        "# budget: 2usd    # stop cleanly at money, tokens (500k-tokens) or time (30min)",
        "# at_budget: train    # then go on with the rows that are paid for, instead of stopping",
        "---",
        prompt.strip(),
        "",
    ]  # fmt: skip
    text = "\n".join(lines)
    # Read as a run will read it, so that a fault shows now; paths are checked when the run starts.
    read_task_file(text)
    return text


def _key(text: str) -> str:
    return text if re.fullmatch(r"[^\W\d_][\w -]*", text, re.ASCII) and text.lower() not in _TAKEN else _quoted(text)


def _scalar(text: str) -> str:
    """A YAML scalar that reads back as the text; plain where that is safe."""
    fine = _PLAIN.fullmatch(text) and text == text.strip() and text.lower() not in _TAKEN
    return text if fine or not text else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
