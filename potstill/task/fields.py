"""Front matter nodes to typed values, one function a field; every fault is noted with its line.

A function takes a node and the faults so far, and returns what could be read. Nothing raises here, so that one
reading finds every fault of a file.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from potstill.language.names import LANGUAGES, language_code
from potstill.options import nearest
from potstill.rows import join_fields, shared_fields
from potstill.task import REVISION, Answer, DataRef, Example, Label, LicencePolicy, Rule
from potstill.task.front_matter import Faults, Node, plain
from potstill.task.markdown import clean

MAX_PATTERN = 500
_RULE_KINDS: tuple[Literal["keyword", "contains", "regex", "prompt"], ...] = ("keyword", "contains", "regex", "prompt")
# Answers to the question of a rule, and letters of one.
_MOST_ANSWERS, _MOST_CHARS = 20, 100
_DATA_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".arrow", ".txt", ".gz", ".zst")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?")


def text_of(node: Node, key: str, faults: Faults) -> str:
    """A text; '' with a fault for anything else."""
    if node.kind != "scalar":
        faults.add(node.line, f"{key}: a text is needed, not {node.describe()}")
        return ""
    return node.text.strip()


def choice_of(node: Node, key: str, known: Iterable[str], faults: Faults) -> str | None:
    """One of the known words, or None with a fault."""
    word = text_of(node, key, faults)
    if word in known:
        return word
    if key == "kind" and word.lower().startswith("regress"):
        faults.add(
            node.line,
            f"kind: {word[:60]!r} is none; numbers are no kind of answer here: say kind: classification and give bands "
            "(low, medium, high) or the points of a short scale (1 to 5) as labels",
        )
    elif word or node.kind == "scalar":
        faults.add(node.line, f"{key}: {word[:60]!r} is not known{nearest(word[:60], known)}")
    return None


def texts_of(node: Node, key: str, faults: Faults) -> list[tuple[int, str]]:
    """A list of texts (one text stands for a list of one), with their lines; empty ones are faults."""
    items = [node] if node.kind == "scalar" else node.items
    if node.kind == "mapping":
        faults.add(node.line, f"{key}: a list is needed, not a mapping")
        return []
    found = []
    for item in items:
        text = text_of(item, key, faults)
        if text:
            found.append((item.line, text))
        elif item.kind == "scalar":
            faults.add(item.line, f"{key}: an empty entry; write a text or take the line out")
    return found


def known_fields(node: Node, key: str, known: Iterable[str], faults: Faults) -> dict[str, Node]:
    """Fields of a mapping; unknown ones are faults with the nearest name."""
    if node.kind != "mapping":
        faults.add(node.line, f"{key}: a mapping of {', '.join(known)} is needed, not {node.describe()}")
        return {}
    for name in node.fields:
        if name not in known and not faults.full:
            faults.add(node.key_lines[name], f"{key}.{name[:60]}: no such field{nearest(name[:60], known)}")
    return {name: value for name, value in node.fields.items() if name in known}


def labels_of(node: Node, faults: Faults) -> list[tuple[int, Label]]:
    """Labels: a list of names or of {name, description}, or a mapping of names to descriptions."""
    found: list[tuple[int, Label]] = []
    if node.kind == "mapping":
        for name, value in node.fields.items():
            line = node.key_lines[name]
            text = "" if value.empty else text_of(value, f"labels.{name[:60]}", faults)
            found.append((line, Label(name.strip(), text)))
    elif node.kind == "scalar":
        found = [(node.line, Label(clean(part))) for part in re.split(r"[,;\n]", node.text) if part.strip()]
    for item in node.items:
        if item.kind == "scalar":
            found.append((item.line, Label(item.text.strip())))
        elif item.kind == "mapping" and len(item.fields) == 1 and not {"name", "description"} & set(item.fields):
            # `- bug: something is broken` is YAML for a mapping, and what most people write.
            name, value = next(iter(item.fields.items()))
            found.append((item.line, Label(name.strip(), "" if value.empty else text_of(value, "labels", faults))))
        else:
            fields = known_fields(item, "labels", ("name", "description"), faults)
            texts = {key: text_of(value, f"labels.{key}", faults) for key, value in fields.items()}
            if "name" in texts:
                found.append((item.line, Label(texts["name"], texts.get("description", ""))))
            elif item.kind == "mapping":
                faults.add(item.line, "labels: an entry without 'name'")
    return found


def examples_of(node: Node, faults: Faults) -> list[tuple[int, Example]]:
    """Examples: {input, output} or [input, output]; an input of several fields is a mapping."""
    if node.kind != "list":
        faults.add(node.line, f"examples: a list of {{input, output}} is needed, not {node.describe()}")
    found = []
    for item in node.items:
        if item.kind == "list" and len(item.items) == 2:
            parts = dict(zip(("input", "output"), item.items))
        elif item.kind == "mapping":
            parts = known_fields(item, "examples", ("input", "output"), faults)
        else:
            faults.add(item.line, f"examples: {{input, output}} is needed, not {item.describe()}")
            continue
        missing = [name for name in ("input", "output") if name not in parts]
        for name in missing:
            faults.add(item.line, f"examples: an entry without {name!r}")
        if missing:
            continue
        given = parts["input"]
        if given.kind == "mapping":
            values = {name: text_of(value, f"examples.input.{name}", faults) for name, value in given.fields.items()}
            text = join_fields(values) if values else ""
        else:
            text = text_of(given, "examples.input", faults)
        found.append((item.line, Example(text, text_of(parts["output"], "examples.output", faults))))
    return found


def check_example_fields(examples: Iterable[Example], inputs: Sequence[str], faults: Faults) -> None:
    """Note examples whose input has other fields than the task's inputs; one text may stand for several."""
    if len(inputs) < 2:
        return
    for number, example in enumerate(examples, 1):
        held = shared_fields([example.input])
        lacking = [name for name in inputs if f"\n{name}: " not in f"\n{example.input}"]
        if not lacking or not held:
            continue
        other = next((nearest(name[:60], inputs) for name in held if name not in inputs), "")
        said = f"the fields {', '.join(held)}; the task's inputs are {', '.join(inputs)}{other}"
        faults.add(0, f"example {number} has {said}")


def languages_of(node: Node, faults: Faults) -> tuple[str, ...]:
    """ISO 639-1 codes, from codes or English names."""
    codes: list[str] = []
    for line, text in texts_of(node, "languages", faults):
        if faults.full:
            break
        code = language_code(text)
        if code is None:
            known = [name for item in LANGUAGES.items() for name in item]
            hint = nearest(text[:40], known)
            hint = (
                hint if "did you mean" in hint else "; write an ISO 639-1 code such as 'en' or a name such as 'German'"
            )
            faults.add(line, f"languages: {text[:40]!r} is no language known here{hint}")
        elif code not in codes:
            codes.append(code)
    return tuple(codes)


def prior_of(
    node: Node, match: Callable[[str], str | None], names: tuple[str, ...], faults: Faults
) -> dict[str, float]:
    """Shares of the labels, normalised to 1. Counts and percentages are taken for what they are."""
    if node.kind != "mapping":
        faults.add(
            node.line, f"label_prior: a mapping of label to share, or `estimate`, is needed, not {node.describe()}"
        )
        return {}
    shares: dict[str, float] = {}
    sound = True
    for name, value in node.fields.items():
        if faults.full:
            break
        line, label, share = node.key_lines[name], match(name), plain(value)
        if label is None:
            faults.add(line, f"label_prior: {name[:60]!r} is not a label{nearest(name[:60], names)}")
        elif isinstance(share, bool) or not isinstance(share, int | float) or not math.isfinite(share) or share <= 0:
            faults.add(line, f"label_prior.{name[:60]}: a number above 0 is needed (got {value.describe()})")
        else:
            shares[label] = float(share)
            continue
        sound = False
    missing = [name for name in names if name not in shares]
    if sound and missing:
        faults.add(node.line, f"label_prior: no share for {', '.join(missing[:10])}; give every label one")
        return {}
    total = sum(shares.values())
    if sound and shares and max(shares.values()) <= 1 and abs(total - 1) > 0.02:
        faults.add(node.line, f"label_prior: the shares sum to {total:.3g}; make them sum to 1")
    return {name: shares[name] / total for name in names if name in shares} if sound and total else {}


def rules_of(node: Node, match: Callable[[str], str | None], names: tuple[str, ...], faults: Faults) -> list[Rule]:
    """Labelling rules: {label, keyword | contains | regex | prompt: one or a list}, a prompt's `else` or `answers`."""
    if node.kind != "list":
        kinds = "|".join(_RULE_KINDS)
        faults.add(node.line, f"rules: a list of {{label, {kinds}}} is needed, not {node.describe()}")
    rules: list[Rule] = []
    for item in node.items:
        if faults.full:
            break
        parts = known_fields(item, "rules", ("label", *_RULE_KINDS, "else", "answers"), faults)
        label: str | None = None
        if "label" in parts:
            label = _label_of(parts["label"], "rules", match, names, faults)
        elif item.kind == "mapping" and "answers" not in parts:
            asks = "prompt" in parts
            mend = "; say what a yes votes for, or give each of several `answers` one" if asks else ""
            faults.add(item.line, f"rules: an entry without 'label'{mend}")
        if item.kind == "mapping" and not any(kind in parts for kind in _RULE_KINDS):
            faults.add(item.line, f"rules: an entry without one of {', '.join(_RULE_KINDS)}")
        answers = _answers_of(parts, label, match, names, faults)
        for kind in _RULE_KINDS:
            if kind not in parts:
                continue
            found = texts_of(parts[kind], f"rules.{kind}", faults)
            if parts[kind].kind == "list" and not parts[kind].items:
                faults.add(parts[kind].line, f"rules.{kind}: an empty list; write a text into it or take the rule out")
            for line, pattern in found:
                if problem := _pattern_problem(kind, pattern):
                    faults.add(line, f"rules.{kind}: {pattern[:60]!r} {problem}")
            patterns = tuple(pattern for _, pattern in found)
            if patterns and kind == "prompt" and (label is not None or answers):
                rules.append(Rule(label or "", kind, patterns, tuple(answers)))
            elif patterns and label is not None:
                rules.append(Rule(label, kind, patterns))
    return rules


def _label_of(
    node: Node, key: str, match: Callable[[str], str | None], names: tuple[str, ...], faults: Faults
) -> str | None:
    text = text_of(node, key if key != "rules" else "rules.label", faults)
    label = match(text)
    if label is None:
        faults.add(node.line, f"{key}: {text[:60]!r} is not a label{nearest(text[:60], names)}")
    return label


def _answers_of(
    parts: dict[str, Node],
    label: str | None,
    match: Callable[[str], str | None],
    names: tuple[str, ...],
    faults: Faults,
) -> list[Answer]:
    """The answers to the question of a rule: `else: LABEL`, or `answers: {answer: label, answer: }`; [] for neither."""
    for key in ("else", "answers"):
        if key in parts and "prompt" not in parts:
            faults.add(parts[key].line, f"rules.{key}: it is for a prompt; this entry asks nothing")
            return []
    if "answers" not in parts:
        against = _label_of(parts["else"], "rules.else", match, names, faults) if "else" in parts else None
        if against is None or label is None:
            return []
        if against == label:
            line = parts["else"].line
            faults.add(line, f"rules.else: a no would vote for {label!r} as a yes does; name another label")
        return [Answer("Yes", label), Answer("No", against)]
    node = parts["answers"]
    if node.kind != "mapping":
        faults.add(node.line, f"rules.answers: a mapping of answer to label is needed, not {node.describe()}")
        return []
    if other := [key for key in ("label", "else") if key in parts]:
        faults.add(parts[other[0]].line, f"rules.{other[0]}: the answers name their labels themselves; take it out")
    if len(node.fields) < 2:
        faults.add(node.line, "rules.answers: one answer is not enough; give 2 or more, those without a label empty")
    if len(node.fields) > _MOST_ANSWERS:
        faults.add(node.line, f"rules.answers: {len(node.fields)} answers; at most {_MOST_ANSWERS} are read")
    found: dict[str, Answer] = {}
    for written, value in node.fields.items():
        text, line = written.strip(), node.key_lines[written]
        if not text:
            faults.add(line, "rules.answers: an empty answer; say what the teacher would write")
        if len(text) > _MOST_CHARS:
            faults.add(line, f"rules.answers: {text[:60]!r} … is too long for an answer; at most {_MOST_CHARS} letters")
        if text.casefold() in found:
            faults.add(line, f"rules.answers: {text[:60]!r} is listed twice")
        voted = None if value.empty else _label_of(value, "rules.answers", match, names, faults)
        found[text.casefold()] = Answer(text, voted or "")
    if all(value.empty for value in node.fields.values()) and found:
        faults.add(node.line, f"rules.answers: none of them votes for a label{nearest('', names)}")
    return list(found.values())


def _pattern_problem(kind: str, pattern: str) -> str:
    if len(pattern) > MAX_PATTERN:
        return f"has {len(pattern)} characters; at most {MAX_PATTERN} are read"
    if kind != "regex":
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = re.compile(pattern, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        return f"is no regular expression ({error})"
    if compiled.search("") is not None:
        return "matches the empty text, and so everything; make it need at least one character"
    return _slow_pattern(pattern)


def _slow_pattern(pattern: str) -> str:
    """Why a pattern could run for ever, or ''. A cheap check on the text: it refuses some harmless ones too.

    Refused are an unbounded repeat of a group that holds an unbounded repeat or alternatives (`(a+)+`, `(a|aa)*`),
    and more than five unbounded repeats (`.*.*.*…`, whose time grows with that power of the text's length).
    """
    groups: list[bool] = []
    closed_risky = False
    repeats, i = 0, 0
    while i < len(pattern):
        char = pattern[i]
        step, was_group = 1, False
        if char == "\\":
            step = 2
        elif char == "[":
            step = _class_end(pattern, i) - i
        elif char == "(":
            groups.append(False)
            # `(?` opens no repeat.
            step = 2 if pattern[i + 1 : i + 2] == "?" else 1
        elif char == "|" and groups:
            groups[-1] = True
        elif char == ")" and groups:
            closed_risky = groups.pop()
            was_group = True
            if groups and closed_risky:
                groups[-1] = True
        i += step
        if char in "(|":
            continue
        repeat = re.match(r"[*+]|\{(\d*),(\d*)\}", pattern[i : i + 12])
        if repeat is None or (repeat[2] and int(repeat[2]) <= 10):
            continue
        if was_group and closed_risky:
            return "repeats a group that holds a repeat or alternatives, which can take for ever; take one repeat out"
        repeats += 1
        if groups:
            groups[-1] = True
        if repeats > 5:
            return "holds more than 5 open repeats (*, +, {n,}), which can take for ever; bound them or split the rule"
        i += repeat.end()
    return ""


def _class_end(pattern: str, start: int) -> int:
    i = start + 1
    i += pattern[i : i + 1] == "^"
    i += pattern[i : i + 1] == "]"
    while i < len(pattern) and pattern[i] != "]":
        i += 2 if pattern[i] == "\\" else 1
    return i + 1


def data_of(node: Node, key: str, folder: Path, faults: Faults) -> DataRef | None:
    """Real data: a path or Hub id, or {path, split, config, inputs, output}."""
    training = key != "test"
    if node.kind == "list":
        faults.add(node.line, f"{key}: a path or a mapping with 'path' is needed, not a list")
        return None
    if node.kind == "scalar":
        path = path_of(node, key, folder, faults, hub=True)
        return DataRef(path, training=training) if path else None
    parts = known_fields(node, key, ("path", "split", "config", "inputs", "output"), faults)
    if "path" not in parts:
        faults.add(node.line, f"{key}: no 'path'; give a file, a folder or a Hub id")
        return None
    path = path_of(parts["path"], f"{key}.path", folder, faults, hub=True)
    texts = {
        name: text_of(parts[name], f"{key}.{name}", faults) or None
        for name in ("split", "config", "output")
        if name in parts and not parts[name].empty
    }
    inputs = tuple(text for _, text in texts_of(parts["inputs"], f"{key}.inputs", faults)) if "inputs" in parts else ()
    if not path:
        return None
    return DataRef(path, texts.get("split"), texts.get("config"), inputs, texts.get("output"), training)


def path_of(node: Node, key: str, folder: Path, faults: Faults, *, hub: bool = False) -> str | None:
    """An existing path, made absolute from the task file's folder; with `hub`, a Hub id is one too."""
    text = text_of(node, key, faults)
    if not text:
        if node.kind == "scalar":
            faults.add(node.line, f"{key}: empty; give a path")
        return None
    try:
        path = Path(os.path.abspath(folder / Path(text).expanduser()))
        if path.exists():
            return str(path)
    except (OSError, ValueError, RuntimeError):
        faults.add(node.line, f"{key}: {text[:80]!r} is no path that can be looked up")
        return None
    name, pinned, revision = text.partition("@")
    local = name.startswith((".", "/", "~")) or text.lower().endswith(_DATA_SUFFIXES) or name.count("/") > 1
    if hub and not local and _HUB_ID.fullmatch(name) and (not pinned or REVISION.fullmatch(revision)):
        return text
    try:
        near = nearest(path.name, [item.name for item in sorted(path.parent.iterdir())[:1000]])
    except OSError:
        near = f"; there is no folder {path.parent}"
    hint = near if "did you mean" in near or "no folder" in near else f"; looked in {path.parent}"
    faults.add(node.line, f"{key}: no file or folder {text[:120]!r}{hint}")
    return None


def licences_of(node: Node, faults: Faults) -> LicencePolicy:
    """The licence policy: {allow, deny, unknown}."""
    parts = known_fields(node, "licences", ("allow", "deny", "unknown"), faults)
    lists = {
        name: tuple(text.lower() for _, text in texts_of(parts[name], f"licences.{name}", faults))
        for name in ("allow", "deny")
        if name in parts and not parts[name].empty
    }
    unknown = plain(parts["unknown"]) if "unknown" in parts else True
    if not isinstance(unknown, bool):
        faults.add(parts["unknown"].line, f"licences.unknown: true or false is needed (got {unknown!r})")
        unknown = True
    return LicencePolicy(allow=lists.get("allow", ()), deny=lists.get("deny", ()), unknown=unknown)
