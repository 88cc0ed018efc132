"""Which columns of a table are the input and the output of a task: names propose, values decide.

Each column is profiled (`potstill.retrieval.profiles`), ranked by what its name usually means and by what the task
says, and taken only when its values fit the role: an output of a classification task has few distinct values, most
of which repeat; an input is text. Prompt2Model (arXiv:2308.12261 §3.1) asks an LLM for this from one row. Here the
rules get the plain cases right at no cost and know when they are unsure; only then is the teacher asked, with the
columns as the only possible answers, and its choice counts only where the values fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from potstill.language.names import NAMES_IN_TEXT
from potstill.retrieval.profiles import Profile, points, profile
from potstill.retrieval.said_roles import said_roles
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker

__all__ = ["ColumnChoice", "Profile", "choose_among", "choose_columns", "profile"]

_UNKNOWN = 99
_CLASS_NAMES = (
    "label_text", "label", "labels", "class", "category", "intent", "sentiment", "topic", "emotion", "relation",
    "target", "gold", "gold_label", "answer", "stance", "polarity", "verdict", "coarse_label", "label_coarse",
    "stars", "rating", "score", "kind", "type", "output", "toxic", "toxicity", "hate", "offensive", "spam",
)  # fmt: skip
_TEXT_NAMES = (
    "text", "texts", "sentence", "content", "message", "review", "review_body", "utterance", "query", "question",
    "claim", "statement", "tweet", "comment", "post", "body", "document", "article", "dialogue", "input", "source",
    "abstract", "paragraph", "tokens", "words", "headline", "sms", "verse", "description", "passage", "context",
    "sentence1", "premise", "title", "snippet", "story", "email", "instruction", "prompt", "problem", "func",
)  # fmt: skip
_ANSWER_NAMES = (
    "summary", "target", "output", "answer", "answers", "response", "completion", "highlights", "solution", "tldr",
    "snippet", "code", "translation", "simplified", "paraphrase", "reply", "iso_date", "result", "abstract",
    "headline", "summaries", "outputs", "label", "label_text",
)  # fmt: skip
# Of numbers: what classes and scores are called by (`label`, `target`) is left out.
_RESULT_NAMES = ("answer", "answers", "output", "outputs", "result", "response", "completion", "solution")
_MOST_CHOICES = 6
_TAG_NAMES = ("ner_tags", "tags", "ner", "labels", "entities", "pos_tags", "chunk_tags")
_PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "passage"),
    ("question", "context"), ("question", "sentence"), ("query", "passage"), ("text1", "text2"),
    ("sentence_a", "sentence_b"), ("claim", "evidence"), ("context", "hypothesis"), ("instruction", "input"),
)  # fmt: skip
# Names of one field of an input: a task that reads the first may be fed from any of the others.
_SAME_FIELD = (
    ("premise", "sentence1", "sentence_a", "text1", "context"),
    ("hypothesis", "sentence2", "sentence_b", "text2"),
    ("question1", "sentence1", "text1"),
    ("question2", "sentence2", "text2"),
    ("question", "query", "question_text"),
    ("passage", "context", "paragraph", "excerpt", "document", "article", "story", "text", "sentence"),
    ("title", "headline", "subject"),
    ("text", "content", "body", "article", "description", "document"),
)  # fmt: skip
TAGGING = re.compile(
    r"(?i)\b(named entit|entity (recognition|extraction)|token[- ]classification|part[- ]of[- ]speech|tag each|tagging)"
)


@dataclass(frozen=True)
class ColumnChoice:
    """The chosen columns, or the reason why none fits (`output` is None then).

    Attributes:
        inputs: Columns that make the input, in order.
        output: Column of the answer.
        how: What decided, or why nothing fits.
        sure: Whether the rules were sure.
    """

    inputs: tuple[str, ...]
    output: str | None
    how: str
    sure: bool = True


def choose_columns(
    table: Dataset,
    spec: TaskSpec,
    *,
    eval_index: Sequence[Mapping[str, Any]] | None = None,
    asker: Asker | None = None,
    title: str = "",
) -> ColumnChoice:
    """Choose input and output columns of a table.

    Args:
        table: The data; a sample of its rows is looked at.
        spec: The task: its instruction, kind, labels and input fields.
        eval_index: The card's own `train_eval_index`, which wins where its columns exist, their values fit the kind of
            task, and its inputs are the task's fields.
        asker: The teacher, asked where the rules are unsure and it can follow a JSON schema.
        title: The dataset's name, whose words may be those of a column.
    """
    profiles = profile(table)
    declared = _declared(eval_index, {item.name.lower(): item for item in profiles}, spec)
    if declared is not None:
        return declared
    choice = choose_among(profiles, spec, title=title)
    if choice.sure or asker is None or not asker.abilities.json_schema:
        return choice
    asked = _ask(profiles, spec, choice, asker)
    return choice if asked is None else replace(asked, inputs=_as_fields(asked.inputs, spec) or asked.inputs)


def choose_among(profiles: Sequence[Profile], spec: TaskSpec, *, title: str = "") -> ColumnChoice:
    """Choose by rules among profiled columns; see `choose_columns`."""
    names = ", ".join(item.name for item in profiles)
    said = _said(f"{spec.instruction} {title}")
    if (pair := _translation(profiles, spec)) is not None:
        return ColumnChoice((pair[0],), pair[1], "the languages that the task names")
    outputs = _output_candidates(profiles, spec)
    if not outputs:
        what = "holds classes" if spec.kind == "classification" else "looks like an output"
        return ColumnChoice((), None, f"no column {what} (columns: {names})")
    ranked = sorted(outputs, key=lambda item: _output_rank(item, profiles, spec, said))
    output = ranked[0]
    texts = [item for item in profiles if _may_be_input(item, output)]
    inputs, known = _inputs(texts, spec, said)
    if not inputs:
        return ColumnChoice((), None, f"no text column for the input (columns: {names})")
    first = _output_rank(output, profiles, spec, said)
    tied = len(ranked) > 1 and _output_rank(ranked[1], profiles, spec, said)[:2] == first[:2]
    sure = known and (len(ranked) == 1 or first[0] < 0 or (first[1] < _UNKNOWN and not tied))
    return ColumnChoice(inputs, output.name, "rules on names and values", sure)


def is_usual_name(name: str) -> bool:
    """Whether tables usually call a column so (`text`, `label`, `answer`, `id`)."""
    known = {*_CLASS_NAMES, *_TEXT_NAMES, *_ANSWER_NAMES, *_TAG_NAMES, *(part for pair in _PAIRS for part in pair)}
    return not name or name.lower() in known or points(name)


def text_columns(table: Dataset, spec: TaskSpec) -> tuple[str, ...]:
    """The input columns of a table that has no answers: by the names and values of its columns of text; or none."""
    texts = [item for item in profile(table) if item.is_text and item.filled > 0.5]
    # Short texts that repeat, such as greetings, look like classes, which another column of texts would not.
    texts = [item for item in texts if not (item.is_class and item.words < 3)] or texts
    return _inputs(texts, spec, _said(spec.instruction))[0]


def _output_candidates(profiles: Sequence[Profile], spec: TaskSpec) -> list[Profile]:
    filled = [item for item in profiles if item.filled > 0.5]
    if spec.kind == "classification":
        return [item for item in filled if item.is_class or _says_labels(item, spec)] or [
            item for item in filled if item.is_text and not item.words and _position(item.name, _CLASS_NAMES) < 50
        ]
    if TAGGING.search(spec.instruction) and (tags := [item for item in filled if item.is_tags]):
        return tags
    texts = [item for item in filled if item.is_text]
    asked = [item for item in texts if not _contradicted(item, texts, spec)]
    if len(asked) == 1 and asked[0].name in _roles(texts, spec)[0]:
        return asked
    named = [item for item in asked if _position(item.name, _ANSWER_NAMES) < _UNKNOWN]
    return named or [item for item in filled if _is_result(item)]


def _is_result(item: Profile) -> bool:
    """Whether a column holds numbers that are answers, and not the places of answers in lists of choices."""
    choices = item.is_class and 0 < item.distinct <= _MOST_CHOICES
    return item.is_number and item.name.lower() in _RESULT_NAMES and not choices


def _roles(texts: Sequence[Profile], spec: TaskSpec) -> tuple[frozenset[str], frozenset[str]]:
    return said_roles(spec.instruction, [item.name for item in texts], _said)


def _contradicted(item: Profile, texts: Sequence[Profile], spec: TaskSpec) -> bool:
    """Whether the task's words keep a column from being the output: they ask for another, or say that it is given."""
    asked, given = _roles(texts, spec)
    others = [other.name for other in texts if other.name != item.name]
    if len(asked) == 1:
        return item.name not in asked
    return item.name in given and any(name not in given for name in others)


def _says_labels(item: Profile, spec: TaskSpec) -> bool:
    """Whether a column's values are the task's own labels: in a few rows none of them need repeat."""
    from potstill.retrieval.label_names import plain_label

    wanted = {plain_label(name) for name in spec.label_names}
    return bool(item.held) and sum(plain_label(value) in wanted for value in item.held) >= 0.8 * len(item.held)


def _output_rank(
    item: Profile, profiles: Sequence[Profile], spec: TaskSpec, said: frozenset[str]
) -> tuple[float, float, float, float]:
    """Sorts the best output first: labels shared with the task, then the name, then the task's own words."""
    from potstill.retrieval.label_names import plain_label

    order = float([other.name for other in profiles].index(item.name))
    mentioned = -float(len(_said(item.name) & said))
    if spec.kind != "classification":
        known = _TAG_NAMES if item.is_tags else _ANSWER_NAMES
        # A list of references gives its first; the plain text beside it is that already. Short answers lose to long
        # ones where the task asks for reasons.
        position = float(_position(item.name, known)) + (0.5 if item.name.endswith("s") and not item.is_tags else 0)
        reasons = re.search(r"(?i)\b(step by step|explain|reason(ing)?|solution|show your work)\b", spec.instruction)
        return (-item.words if reasons else 0.0), position, mentioned, order
    wanted = {plain_label(name) for name in spec.label_names}
    held = {plain_label(part) for value in item.values or item.held for part in value.split(", ")}
    # F1 of the two sets of names: a finer label set that happens to hold the task's names is not the task's.
    shared = 2 * len(wanted & held) / max(1, len(wanted) + len(held)) if wanted else 0.0
    number_like = all(value.lstrip("-").isdigit() for value in item.values or item.held)
    position = float(_position(item.name, _CLASS_NAMES))
    # Names of the task's own words beat generic ones only among names that nothing else tells apart.
    return -round(shared, 2), position, mentioned + 0.5 * number_like + 0.25 * item.is_tags, order


def _may_be_input(item: Profile, output: Profile) -> bool:
    if not item.is_text or item.name == output.name or item.filled <= 0.5:
        return False
    return not (item.is_class and item.words < 3)


def _inputs(texts: Sequence[Profile], spec: TaskSpec, said: frozenset[str]) -> tuple[tuple[str, ...], bool]:
    """The input columns, and whether their names are known ones."""
    names = {item.name.lower(): item.name for item in texts}
    if len(spec.inputs) > 1 and (fields := field_columns(spec.inputs, [item.name for item in texts])):
        return fields, True
    pairs = [pair for pair in _PAIRS if all(part in names for part in pair)]
    if len(spec.inputs) != 1 and pairs:
        best = max(pairs, key=lambda pair: len(_said(" ".join(pair)) & said))
        return tuple(names[part] for part in best), True
    best_text = min(texts, key=lambda item: _input_rank(item, texts, said), default=None)
    if best_text is None:
        return (), False
    if len(texts) > 1 and not spec.inputs and len(said_columns := _fields_said(texts, spec)) > 1:
        return said_columns, True
    return (best_text.name,), len(texts) == 1 or _position(best_text.name, _TEXT_NAMES) < _UNKNOWN


def _input_rank(item: Profile, texts: Sequence[Profile], said: frozenset[str]) -> tuple[float, float]:
    own = _said(item.name)
    # `rewritten_intent` was made from `intent` to be the better one; a longer name of the same words wins.
    refined = any(
        own > _said(other.name) and own & {"rewritten", "clean", "cleaned", "full", "edited"} for other in texts
    )
    return float(_position(item.name, _TEXT_NAMES)) - 60 * refined - 5 * bool(own & said), -item.words


def _fields_said(texts: Sequence[Profile], spec: TaskSpec) -> tuple[str, ...]:
    """Columns that the task names as the fields of its input: `given its title and first lines`, `each row has its
    own instruction`."""
    flat = " ".join(spec.instruction.lower().split())
    given = " ".join(re.findall(r"(?:given|input is|each row has|with) ([^.:;]{3,80})", flat))
    named = [item.name for item in texts if re.search(rf"\b(its|a|an|the|own) {re.escape(item.name.lower())}\b", given)]
    if not named:
        return ()
    if len(named) > 1:
        return tuple(named)
    main = min((item for item in texts if item.name not in named), key=lambda i: _position(i.name, _TEXT_NAMES))
    if named[0].lower() in ("title", "headline", "instruction") and _position(main.name, _TEXT_NAMES) < 50:
        return named[0], main.name
    return ()


def field_columns(fields: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """The columns for the fields of a task's input, by their names; empty where one has none, or two have the same.

    Examples:
        >>> field_columns(["passage", "question"], ["context", "question", "answers"])
        ('context', 'question')
    """
    names = {name.lower(): name for name in columns}
    found = [_field_column(field, names) for field in fields]
    return tuple(map(str, found)) if all(found) and len(set(found)) == len(found) else ()


def _field_column(name: str, names: Mapping[str, str]) -> str | None:
    """The column for a named field of the task's input: the same name, or another usual one."""
    plain = name.lower()
    # A `product_title` may be fed from a title.
    for field in (plain, plain.rpartition("_")[2]):
        if field in names:
            return names[field]
        for group in _SAME_FIELD:
            if field in group and (found := next((names[word] for word in group if word in names), None)):
                return found
    return None


def _as_fields(inputs: Sequence[str], spec: TaskSpec) -> tuple[str, ...] | None:
    """Columns in the order of the task's fields, by their names; None where these do not say which is which."""
    if len(spec.inputs) < 2:
        return tuple(inputs)
    found = tuple(_field_column(field, {name.lower(): name for name in inputs}) for field in spec.inputs)
    named = tuple(name for name in found if name is not None)
    return named if len(set(named)) == len(spec.inputs) == len(inputs) else None


def _declared(
    eval_index: Sequence[Mapping[str, Any]] | None, by_name: Mapping[str, Profile], spec: TaskSpec
) -> ColumnChoice | None:
    for entry in eval_index or ():
        read = declared_columns(entry)
        if read is None:
            continue
        inputs, output = read
        # A nested answer stands in a flattened table under its part.
        found = next((by_name[name] for name in (output.lower(), f"{output.lower()}.text") if name in by_name), None)
        if found is None or not _answers(found, spec) or any(name.lower() not in by_name for name in inputs):
            continue
        texts = [item for item in by_name.values() if item.is_text]
        if spec.kind != "classification" and _contradicted(found, texts, spec):
            continue
        names = _as_fields([by_name[name.lower()].name for name in inputs], spec)
        if names is not None:
            return ColumnChoice(names, found.name, "the card's train_eval_index")
    return None


def _answers(item: Profile, spec: TaskSpec) -> bool:
    """Whether a column's values may be answers of a task of this kind."""
    if spec.kind == "classification":
        return item.is_class or _says_labels(item, spec)
    return item.is_tags or (item.is_text and not item.is_class) or _is_result(item)


def declared_columns(entry: Mapping[str, Any]) -> tuple[tuple[str, ...], str] | None:
    """Inputs and output that one entry of a card's `train_eval_index` names; None where it names no pair."""
    mapping = entry.get("col_mapping") if isinstance(entry, Mapping) else None
    if not isinstance(mapping, Mapping):
        return None
    roles = {str(c): c if isinstance(role, Mapping) else role for c, role in mapping.items()}
    inputs = tuple(
        c
        for c, role in roles.items()
        if isinstance(role, str) and re.match(r"(?i)(text|question$|context|hypothesis|premise|tokens)", role)
    )
    outputs = [c for c, r in roles.items() if str(r).lower() in ("target", "label", "answers", "summary", "tags")]
    return (inputs, outputs[0]) if inputs and outputs else None


def _said(text: str) -> frozenset[str]:
    """The words of a text or a column name, lower case, light plural taken off."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in words if len(word) > 2)


def _position(name: str, known: Sequence[str]) -> int:
    plain = name.lower()
    if plain in known:
        return known.index(plain)
    last = plain.rpartition(".")[2]
    if last in known and last != plain:
        return known.index(last) + 1
    parts = {part for word in re.split(r"[^a-z0-9]+", plain) for part in (word, word.removesuffix("s"))}
    return next((50 + index for index, word in enumerate(known) if word in parts), _UNKNOWN)


def _ask(profiles: Sequence[Profile], spec: TaskSpec, choice: ColumnChoice, asker: Asker) -> ColumnChoice | None:
    """The teacher's choice, or None where it gives none or names columns whose values do not fit."""
    from potstill.asking.teacher import Failure, Message, Request
    from potstill.prompts import load

    outputs = [item.name for item in _output_candidates(profiles, spec)]
    inputs = [item.name for item in profiles if item.is_text and item.filled > 0.5]
    if not outputs or not inputs:
        return None
    schema = {
        "type": "object",
        "properties": {
            "inputs": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "string", "enum": inputs}},
            "output": {"type": "string", "enum": outputs},
        },
        "required": ["inputs", "output"],
        "additionalProperties": False,
    }
    text = load("choose_columns").render(
        instruction=spec.instruction,
        columns=[{"name": item.name, "values": list(item.sample)} for item in profiles[:40]],
        inputs=inputs,
        outputs=outputs,
    )
    request = Request(messages=(Message("user", text),), max_tokens=300, temperature=0.0, schema=schema)
    reply = asker.ask([request], "choose_columns")[0].reply
    if isinstance(reply, Failure) or reply.finish != "stop":
        return None
    try:
        answer = json.loads(reply.text)
        named = tuple(dict.fromkeys(str(name) for name in answer["inputs"]))
        output = str(answer["output"])
    except (ValueError, KeyError, TypeError):
        return None
    by_name = {item.name: item for item in profiles}
    if output not in outputs or not named or any(name not in inputs for name in named):
        return None
    named = tuple(name for name in named if _may_be_input(by_name[name], by_name[output]))
    if not named:
        return None
    return replace(choice, inputs=named, output=output, how="the teacher, checked on values")


def _translation(profiles: Sequence[Profile], spec: TaskSpec) -> tuple[str, str] | None:
    """Source and target column of a translation (`translation.en` and `translation.fr`, `english` and `french`)."""
    if spec.kind == "classification" or not re.search(r"(?i)\btranslat", spec.instruction):
        return None
    codes = set(NAMES_IN_TEXT.values())
    languages = {item.name: item.name.rpartition(".")[2].lower() for item in profiles}
    columns = {NAMES_IN_TEXT.get(word, word): name for name, word in languages.items()}
    columns = {code: name for code, name in columns.items() if code in codes}
    source = next((code for code in spec.languages if code in columns), None)
    said = [NAMES_IN_TEXT[word] for word in re.findall(r"\w+", spec.instruction.lower()) if word in NAMES_IN_TEXT]
    target = next((code for code in reversed(said) if code in columns and code != source), None)
    return (columns[source], columns[target]) if source and target else None
