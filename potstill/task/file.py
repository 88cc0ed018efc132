"""A prompt or a Markdown file in, a checked `TaskSpec` out; every fault in one message, with its line.

What is read, surest first:

1. YAML front matter (`FIELDS`, `SETTINGS`, `STAGES` below). It wins over everything.
2. The text: its title, `## Labels` and `## Examples` (see `markdown`). The rest is the instruction.
3. The words of the instruction, by rules; then the teacher, if one is given (see `inference`). What was
   found so is listed in `TaskSpec.inferred`, for the user to see.

Decisions: relative paths start at the task file's folder. A label written with other capitals in an example, rule
or prior is the same label; two labels that differ by capitals alone are a fault. Priors that are counts or percentages
are normalised; shares below 1 that do not sum to 1 are a fault. Text is data: templates in it are not rendered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from potstill.errors import DataError
from potstill.options import nearest
from potstill.task import KINDS, METRICS, DataRef, Example, Inferred, Kind, Label, Metric, TaskSpec
from potstill.task.fields import (
    check_example_fields,
    choice_of,
    data_of,
    examples_of,
    labels_of,
    languages_of,
    licences_of,
    path_of,
    prior_of,
    rules_of,
    text_of,
    texts_of,
)
from potstill.task.file_paths import stage_options, with_place
from potstill.task.front_matter import Faults, Node, parse_yaml, plain
from potstill.task.given import OwnRows, fields_of
from potstill.task.inference import Reading, ask_teacher, check_labels, infer_languages, read_by_rules, slug
from potstill.task.markdown import Parts, read_markdown
from potstill.task.meanings import with_meanings
from potstill.task.metric import infer_metric
from potstill.task.option_places import nearest_key
from potstill.task.scales import order_of
from potstill.task.shares import shares_of, without_shares
from potstill.task.source import checked_text, path_in, read_text, split_front_matter

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

Check = Callable[[Mapping[str, Any], Mapping[str, int]], Iterable[tuple[int, str]]]
FIELDS = (
    "name", "instruction", "kind", "labels", "examples", "inputs", "languages", "metric", "ordered", "label_prior",
    "test", "labelled", "unlabelled", "rules", "seed_tasks", "exclude", "licences",
)  # fmt: skip
SETTINGS = (
    "teacher", "encoder", "student", "sources", "n", "rows", "seed", "budget", "at_budget", "concurrency", "executor",
)  # fmt: skip
STAGES = (
    "retrieval", "generation", "quality", "weak", "soft", "merge", "rationales", "distil", "self_training", "compress",
    "evaluate", "workers", "ray", "teacher_options",
)  # fmt: skip
MAX_INSTRUCTION = 32_000
GENERIC_STEMS = ("task", "readme", "index", "prompt")  # a file of such a name is called by its folder
_METRICS_OF: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1", "qwk"),
    "generation": ("exact_match", "token_f1", "rouge_l", "chrf", "chrf++", "bleu"),
    "instructions": ("exact_match", "token_f1", "rouge_l", "chrf", "chrf++", "bleu"),
}


@dataclass(frozen=True)
class TaskFile:
    """A task with what else its file says about the run.

    Attributes:
        spec: The task.
        options: Options of a stage by the stage's name (`generation`, `distil`, …), as written.
        settings: Settings of the run (`teacher`, `student`, `n`, `seed`, `budget`, …), as written.
        lines: Line of each front matter key, `stage.option` included.
        text: The file or prompt as given.
        path: The file, or None for a bare prompt.
    """

    spec: TaskSpec
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    text: str = ""
    path: Path | None = None


def read_task(path_or_prompt: str | Path, *, asker: Asker | None = None) -> TaskSpec:
    """Read a task from a prompt in English, or from a Markdown file.

    Args:
        path_or_prompt: `"Classify support tickets as billing, bug or other."`, the text of a task file, or a path.
        asker: Asked for kind and labels where the words alone do not tell; None asks nobody.

    Raises:
        TaskError: The task cannot be used; `faults` lists every reason, with lines.
    """
    return read_task_file(path_or_prompt, asker=asker).spec


def read_task_file(
    path_or_prompt: str | Path,
    *,
    asker: Asker | None = None,
    draft: bool = False,
    own_rows: OwnRows | None = None,
    check: Check | None = None,
) -> TaskFile:
    """Like `read_task`, with the options and settings of the front matter.

    Args:
        path_or_prompt: As for `read_task`.
        asker: As for `read_task`.
        own_rows: Looks into the user's data for labels that the words do not name, before the teacher is asked, and
            for the fields that they give. None reads no data.
        draft: Let a classification pass whose labels the words do not name. For a caller who must know the task's
            name and settings before there is a teacher to ask; the task is read again with the asker then.
        check: Given the settings and options with the line of each, it tells what is wrong with them, and where (line
            0 is nowhere), so that one message has all faults of a file.

    Raises:
        TaskError: The task cannot be used; `faults` lists every reason, with lines.
    """
    path = path_in(path_or_prompt)
    where = str(path) if path else "task"
    text = read_text(path, where) if path else str(path_or_prompt)
    faults = Faults(where)
    text = checked_text(text, faults)
    head, body, body_line = split_front_matter(text, faults)
    root = parse_yaml(head, 2, faults) if head.strip() else None
    if root is not None and root.kind != "mapping":
        if not root.empty:
            faults.add(root.line, f"the front matter must be 'key: value' lines, not {root.describe()}")
        root = None
    broken = bool(faults)
    parts = read_markdown(body, body_line, faults)
    fields = root.fields if root else {}
    lines = dict(root.key_lines) if root else {}
    known = (*FIELDS, *SETTINGS, *STAGES)
    for key in fields:
        if key not in known and not faults.full:
            faults.add(lines[key], f"{key[:60]!r} is not known{nearest_key(key, known, _plain_value(fields[key]))}")
    folder = path.parent if path else Path.cwd()
    options, settings = _options_of(fields, lines, folder, faults)
    for line, fault in check({**settings, **options}, lines) if check else ():
        faults.add(line, fault)
    given = {key: value for key, value in fields.items() if key in FIELDS and not value.empty}
    for key in fields:
        if key in FIELDS and fields[key].empty and key in ("name", "kind", "labels", "instruction"):
            faults.add(lines[key], f"{key}: empty; give a value or take the line out")
    spec = _build(given, lines, parts, path, _Sources(folder, asker, own_rows), faults, quiet=broken, draft=draft)
    if faults or spec is None:
        raise faults.error()
    return TaskFile(spec, options, settings, lines, text, path)


def _plain_value(node: Node) -> str:
    return node.text.strip() if node.kind == "scalar" else ""


def _options_of(
    fields: Mapping[str, Node], lines: dict[str, int], folder: Path, faults: Faults
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {}
    settings: dict[str, Any] = {}
    for key, node in fields.items():
        if node.empty:
            continue
        if key in STAGES:
            if node.kind != "mapping":
                faults.add(node.line, f"{key}: a mapping of options is needed, not {node.describe()}")
                continue
            options[key] = stage_options(key, node, folder, faults)
            lines.update({f"{key}.{name}": line for name, line in node.key_lines.items()})
        elif key in SETTINGS:
            value = plain(node)
            whole, least = key in ("n", "rows", "seed", "concurrency"), int(key in ("n", "rows"))
            if node.kind != "scalar":
                faults.add(node.line, f"{key}: one value is needed, not {node.describe()}")
            elif whole and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                faults.add(node.line, f"{key}: a whole number of {least} or more is needed (got {node.describe()})")
            else:
                settings[key] = value if whole else with_place("", key, node.text.strip(), folder)
    return options, settings


@dataclass(frozen=True)
class _Sources:
    """Where to look for what a file does not say: the folder of its paths, the teacher, a reader of its data."""

    folder: Path
    asker: Asker | None
    own_rows: OwnRows | None


@dataclass
class _Found:
    """What is known of the labels while a task is put together."""

    kind: Kind
    labels: tuple[Label, ...]
    examples: tuple[Example, ...]
    inferred: list[Inferred]


def _build(
    given: Mapping[str, Node],
    lines: Mapping[str, int],
    parts: Parts,
    path: Path | None,
    sources: _Sources,
    faults: Faults,
    *,
    quiet: bool,
    draft: bool,
) -> TaskSpec | None:
    """Put the task together; None where a fault keeps it from being one.

    `quiet` keeps back faults about what is absent, because an unreadable front matter may have held it.
    """
    instruction = _instruction(given, parts, faults, quiet)
    data: dict[str, DataRef | None] = {
        key: data_of(given[key], key, sources.folder, faults) if key in given else None
        for key in ("test", "labelled", "unlabelled")
    }
    labelled = {key: ref for key in ("labelled", "test") if (ref := data[key]) is not None}
    found = _classes(given, parts, instruction, labelled, sources, faults, quiet=quiet, draft=draft)
    inferred = found.inferred
    names = tuple(label.name for label in found.labels)
    by_fold = {name.casefold(): name for name in names}

    def match(text: str) -> str | None:
        return text if text in names else by_fold.get(text.strip().casefold())

    def listed(key: str) -> tuple[str, ...]:
        return tuple(text for _, text in texts_of(given[key], key, faults)) if key in given else ()

    for key in ("ordered", "label_prior", "rules"):
        if key in given and found.kind != "classification":
            faults.add(lines[key], f"{key}: only for kind: classification (this is {found.kind})")
    classes = found.kind == "classification" and bool(names)
    share = given.get("label_prior")
    estimated = share is not None and plain(share) == "estimate"
    stated = share if classes and not estimated else None
    prior = prior_of(stated, match, names, faults) if stated else {}
    if classes and share is None and (prior := shares_of(instruction, found.labels)):
        found.labels = without_shares(found.labels)
    if prior and not (stated and abs(sum(float(plain(n) or 0) for n in stated.fields.values()) - 1) <= 1e-6):
        shown = ", ".join(f"{label} {share:.3g}" for label, share in prior.items())
        inferred.append(Inferred("label_prior", shown, "normalised" if stated else "rules"))
    rules = rules_of(given["rules"], match, names, faults) if "rules" in given and classes else []
    seed_tasks = path_of(given["seed_tasks"], "seed_tasks", sources.folder, faults) if "seed_tasks" in given else None
    if "seed_tasks" in given and found.kind != "instructions":
        faults.add(lines["seed_tasks"], f"seed_tasks: only for kind: instructions (this is {found.kind})")
    spoken = given.get("languages")
    languages = infer_languages(instruction, names) if spoken is None else languages_of(spoken, faults)
    if spoken is None:
        inferred.append(Inferred("languages", ", ".join(languages or ("en",)), "rules" if languages else "assumption"))
        languages = languages or ("en",)
    exclude = listed("exclude")
    for pattern in exclude:
        if "*" in pattern.strip("*"):
            faults.add(lines["exclude"], f"exclude: {pattern[:60]!r}: '*' may stand at the start or the end only")
    name = _name(given, parts, path, instruction, inferred, faults)
    metric = _metric(given, found, instruction, faults)
    order = order_of(given, names, instruction, metric, inferred, faults) if classes else ()
    if not instruction:
        return None
    inputs = listed("inputs") or fields_of(
        data, found.examples, instruction, found.kind, inferred, own_rows=sources.own_rows
    )
    check_example_fields(found.examples, inputs if found.kind != "instructions" else (), faults)
    return TaskSpec(
        name=name,
        instruction=instruction,
        kind=found.kind,
        labels=found.labels,
        examples=tuple(replace(e, output=match(e.output) or e.output) for e in found.examples)
        if classes
        else found.examples,
        inputs=inputs,
        languages=languages,
        metric=metric,
        ordered=order,
        label_prior=prior,
        estimate_prior=estimated and found.kind == "classification",
        test=data["test"],
        labelled=data["labelled"],
        unlabelled=data["unlabelled"],
        rules=tuple(rules),
        seed_tasks=seed_tasks,
        exclude=exclude,
        licences=licences_of(given["licences"], faults)
        if "licences" in given
        else TaskSpec("", "", "generation").licences,
        inferred=tuple(inferred),
    )


def _instruction(given: Mapping[str, Node], parts: Parts, faults: Faults, quiet: bool) -> str:
    text = text_of(given["instruction"], "instruction", faults) if "instruction" in given else ""
    text = text or parts.instruction or parts.title
    words = re.findall(r"\w+", text)
    if not words and not quiet:
        faults.add(0, "the prompt is empty; say in a sentence what the model should do")
    elif len(words) == 1 and len(text) < 40 and text.isascii():
        faults.add(parts.instruction_line, f"{text!r} is one word; say in a sentence what to do, or give a file's path")
    if len(text) > MAX_INSTRUCTION:
        faults.add(
            parts.instruction_line, f"the prompt has {len(text):,} characters; at most {MAX_INSTRUCTION:,} are read"
        )
        return text[:MAX_INSTRUCTION]
    return text if words else ""


def _kind(node: Node, faults: Faults) -> str | None:
    """The kind; for a misspelt one the nearest, so that what depends on it can be checked in the same reading."""
    chosen = choice_of(node, "kind", KINDS, faults)
    return chosen or next(iter(get_close_matches(node.text.strip().lower()[:60], KINDS, n=1)), None)


def _classes(
    given: Mapping[str, Node],
    parts: Parts,
    instruction: str,
    data: Mapping[str, DataRef],
    sources: _Sources,
    faults: Faults,
    *,
    quiet: bool,
    draft: bool,
) -> _Found:
    """Kind, labels and examples, and which of them were inferred."""
    inferred: list[Inferred] = []
    kind = _kind(given["kind"], faults) if "kind" in given else None
    if "labels" in given:
        labels = labels_of(given["labels"], faults)
    else:
        labels = [(line, Label(name, description)) for line, name, description in parts.labels]
    written = "labels" in given or "labels" in parts.sections
    if kind is None:
        if labels:
            kind = "classification"
            inferred.append(Inferred("kind", kind, "rules"))
        elif "seed_tasks" in given:
            kind = "instructions"
            inferred.append(Inferred("kind", kind, "rules"))
    if labels and kind in ("generation", "instructions"):
        faults.add(labels[0][0], f"labels are given, but kind is {kind}; take one of them out")
    reading, labels = Reading(), with_meanings(labels, instruction, inferred)
    if kind in (None, "classification") and not labels and instruction:
        reading = _read(instruction, cast("Kind | None", kind), {} if written else data, sources)
        if kind is None:
            kind = reading.kind or "generation"
            inferred.append(Inferred("kind", kind, reading.how if reading.kind else "assumption"))
        if reading.labels and kind == "classification" and not written:
            labels = [(0, label) for label in reading.labels]
            inferred.append(Inferred("labels", ", ".join(label.name for label in reading.labels), reading.how))
    kind = kind or "generation"
    if "examples" in given:
        examples = examples_of(given["examples"], faults)
    else:
        examples = [(line, Example(text, output)) for line, text, output in parts.examples]
        if examples and "examples" not in parts.sections:
            inferred.append(Inferred("examples", f"{len(examples)} found in the text", "rules"))
    # What a draft leaves open the user's rows may tell where they are read.
    unnamed = draft and not (labels or written or (reading.open_list and not data) or reading.sets)
    if kind == "classification" and not quiet and instruction and not unnamed:
        check_labels(
            labels, reading, parts.sections.get("labels", 0), [example.output for _, example in examples], faults
        )
    names = [label.name for _, label in labels]
    folded = {name.casefold() for name in names}
    for line, example in examples:
        if not example.output.strip():
            faults.add(line, "an example without output")
        elif kind == "classification" and names and example.output.casefold() not in folded:
            faults.add(
                line, f"example output {example.output[:60]!r} is not a label{nearest(example.output[:60], names)}"
            )
        if not example.input.strip() and kind != "instructions":
            faults.add(line, "an example without input")
    return _Found(
        cast(Kind, kind),
        tuple(label for _, label in labels) if kind == "classification" else (),
        tuple(example for _, example in examples),
        inferred,
    )


def _read(instruction: str, kind: Kind | None, data: Mapping[str, DataRef], sources: _Sources) -> Reading:
    """Rules, then the user's own rows, then the teacher. An open list of labels is never completed by guessing."""
    reading = read_by_rules(instruction)
    if kind == "classification" and reading.kind != "classification":
        forced = read_by_rules(f"Classify. {instruction}", single=True)
        reading = forced if forced.labels else replace(reading, kind="classification", labels=())
    if reading.kind == "classification" and not (reading.labels or reading.sets) and data and sources.own_rows:
        try:
            if names := sources.own_rows.labels(instruction, list(data.values())):
                return Reading("classification", tuple(map(Label, names)), f"the labels of {' and '.join(data)}")
        except DataError as error:
            reading = replace(reading, why_not=str(error))
    unsure = reading.kind is None or (reading.kind == "classification" and not reading.labels)
    if sources.asker is not None and unsure and not (reading.open_list or reading.sets or reading.number):
        return ask_teacher(instruction, sources.asker, reading)
    return reading


def _metric(given: Mapping[str, Node], found: _Found, instruction: str, faults: Faults) -> Metric:
    fitting = _METRICS_OF[found.kind]
    if "metric" in given:
        chosen = choice_of(given["metric"], "metric", METRICS, faults)
        if chosen is not None and chosen not in fitting:
            faults.add(given["metric"].line, f"metric: {chosen} is not for {found.kind}; one of: {', '.join(fitting)}")
        return cast(Metric, chosen or fitting[0])
    metric = infer_metric(found.kind, instruction, [example.output for example in found.examples])
    found.inferred.append(Inferred("metric", metric, "rules"))
    return metric


def _name(
    given: Mapping[str, Node],
    parts: Parts,
    path: Path | None,
    instruction: str,
    inferred: list[Inferred],
    faults: Faults,
) -> str:
    if "name" in given:
        name = text_of(given["name"], "name", faults)
        if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            mend = slug(name)
            faults.add(given["name"].line, f"name: {name[:60]!r} is not safe as a file name; write {mend!r}")
        return name
    source = parts.title
    if not source and path is not None:
        source = path.absolute().parent.name if path.stem.lower() in GENERIC_STEMS else path.stem
    name = slug(source or instruction)
    inferred.append(Inferred("name", name, "rules"))
    return name
