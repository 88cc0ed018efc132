"""Requests for written texts and what their replies hold, shared by the label-first and the input-first plan."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any

from potstill import prompts
from potstill.asking.teacher import Abilities, Message, Reply, Request
from potstill.asking.token_estimate import likely_tokens
from potstill.datagen.attributes import MANNERS, draw_manners, resolve_attributes, use_schema
from potstill.datagen.field_words import called, first_noun, is_long_field, writing_order
from potstill.datagen.long_kinds import input_words
from potstill.datagen.options import GenerationOptions
from potstill.datagen.parse import (
    Remarks,
    clean_text,
    ends_in_string,
    lacks_end,
    last_full_sentence,
    plain,
    read_fields,
    read_json,
    split_list,
    within_quotes,
)
from potstill.datagen.personas import draw_persona
from potstill.datagen.wording import input_noun, readable, with_article
from potstill.language.label_words import OTHER, beside, denials, label_words
from potstill.language.names import LANGUAGES, label_languages
from potstill.rows import join_fields, split_fields
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

# Where the text that a reply was opened for with a quotation mark ends.
STOPS = ('"\n', "\n\n")
# Where nothing tells how long inputs are: their words, the tokens of one, and those of the JSON around each.
_SHORT_WORDS, _TOKENS_A_WORD, _BRACKETS = 40, 4 / 3, 8


@dataclass(frozen=True)
class Material:
    """What prompts are made from, fixed before the first request.

    Attributes:
        spec: The task.
        options: How to ask.
        abilities: Of the teacher.
        descriptions: What each label means.
        topics: Subjects for each label, or under "" for tasks without labels.
        examples: The user's texts for each label (or under "").
        styles: Retrieved texts for each label (or under "").
        manners: Values of style, length, difficulty and register that requests draw from.
        proposed: The dimensions of `manners` whose values are the teacher's own.
        personas: Who writes inputs, one drawn for each request; () for nobody in particular.
    """

    spec: TaskSpec
    options: GenerationOptions
    abilities: Abilities
    descriptions: Mapping[str, str]
    topics: Mapping[str, Sequence[str]]
    examples: Mapping[str, Sequence[str]]
    styles: Mapping[str, Sequence[str]]
    manners: Mapping[str, Sequence[str]] = field(default_factory=lambda: MANNERS)
    proposed: tuple[str, ...] = ()
    personas: tuple[str, ...] = ()

    @property
    def as_json(self) -> bool:
        """Whether replies follow a JSON schema."""
        return use_schema(self.abilities.json_schema, self.abilities.prefill, self.options)

    @property
    def attributes(self) -> str:
        """`GenerationOptions.attributes`, with `auto` resolved."""
        return resolve_attributes(self.options, self.opened)

    @property
    def opened(self) -> bool:
        """Whether replies are opened for the teacher."""
        return self.abilities.prefill and not self.as_json

    @property
    def input_tokens(self) -> int:
        """`GenerationOptions.max_tokens`, with None resolved."""
        shown = max((likely_tokens(example.input) for example in self.spec.examples), default=0.0)
        return self.options.input_tokens(self.opened, shown)

    @property
    def in_parts(self) -> bool:
        """Whether an input's fields are asked for one by one (`field_by_field`)."""
        return parts_of(self.spec, self.options, self.abilities) > 1

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that one reply has to hold; empty where it holds one text."""
        return self.spec.inputs if len(self.spec.inputs) > 1 and not self.in_parts else ()

    @property
    def avoid_shown(self) -> int:
        """`GenerationOptions.avoid_shown`, with None resolved."""
        asked = self.options.avoid_shown
        return asked if asked is not None else (0 if self.opened else 4)


def parts_of(spec: TaskSpec, options: GenerationOptions, abilities: Abilities) -> int:
    """Requests that write one input: as many as it has fields where these are asked for one by one, else 1."""
    opened = abilities.prefill and not use_schema(abilities.json_schema, abilities.prefill, options)
    by_field = opened and spec.kind == "generation" and options.texts_per_request == 1 and options.method == "auto"
    return len(spec.inputs) if by_field and len(spec.inputs) > 1 else 1


def assumed_input_tokens(material: Material) -> float:
    """About how many tokens a reply with inputs takes before any came.

    Of a teacher whose replies are opened, half of what it may take. Others end where the text does: as many as the
    user's examples have, or else retrieved texts; or two hundred words where the task's inputs are of a long kind, and
    forty where not.
    """
    spec, options = material.spec, material.options
    if material.opened:
        return options.input_tokens(opened=True) / 2 * options.texts_per_request
    nouns = [called(name, spec.inputs) for name in spec.inputs] if material.fields else [input_noun(spec)]
    assumed = sum(input_words([], noun) or _SHORT_WORDS for noun in nouns) * _TOKENS_A_WORD
    shown = [example.input for example in spec.examples] or [
        text for texts in material.styles.values() for text in texts
    ]
    each = sum(map(likely_tokens, shown)) / len(shown) if shown else assumed
    return min(each + _BRACKETS * material.as_json, material.input_tokens) * options.texts_per_request


def rng(seed: int, index: int, purpose: str) -> Random:
    """The random draws of one request: a function of the seed, its index and the purpose."""
    return Random(int.from_bytes(sha256(f"{purpose} {seed} {index}".encode()).digest()[:8], "big"))


def examples_by_label(spec: TaskSpec) -> dict[str, list[str]]:
    """The user's example inputs under their label, or all under ""."""
    found: dict[str, list[str]] = {}
    for example in spec.examples:
        key = example.output if spec.kind == "classification" else ""
        found.setdefault(key, []).append(example.input)
    return found


def styles_by_label(spec: TaskSpec, retrieved: Dataset | None, seed: int, most: int = 200) -> dict[str, list[str]]:
    """Up to `most` retrieved inputs a label (or in all, under ""), short enough to be shown."""
    if retrieved is None or not retrieved.num_rows:
        return {}
    order = list(range(retrieved.num_rows))
    rng(seed, 0, "styles").shuffle(order)
    inputs, outputs = retrieved["input"], retrieved["output"]
    found: dict[str, list[str]] = {}
    for row in order:
        key = outputs[row] if spec.kind == "classification" else ""
        texts = found.setdefault(key, [])
        if len(texts) < most and 0 < len(inputs[row]) <= 600:
            texts.append(inputs[row])
    return found


def write_request(material: Material, index: int, label: str, heard: Sequence[str], stop_at_blank: bool) -> Request:
    """Request number `index` of `label`: a text (or several) for it, or a new input when `label` is "".

    Args:
        material: What prompts are made from.
        index: Number of the request among those of its label; with seed and label it decides every draw.
        label: The label, or "".
        heard: Places of earlier replies that may be shown as what not to repeat (see `heard.Heard`).
        stop_at_blank: Whether a blank line ends an opened reply.
    """
    spec, options = material.spec, material.options
    random = rng(options.seed, index, f"write {label}")
    # Apart from the other draws, which so do not depend on how much has been heard.
    drawn = rng(options.seed, index, f"avoid {label}")
    first = writing_order(spec.inputs)[0] if material.in_parts else ""
    noun = first_noun(spec.inputs) if first else input_noun(spec)
    topics = material.topics.get(label, ())
    topic = random.choice(list(topics)) if topics else ""
    manners = _manners(material, random)
    examples = _shown(material, material.examples.get(label, ()), first)
    styles = _shown(material, material.styles.get(label, ()), first)
    language = language_of(spec, index, label, options.seed)
    variables: dict[str, Any] = {
        "instruction": spec.instruction,
        "noun": noun,
        "article": with_article(noun).split()[0],
        "fields": list(material.fields),
        "examples": random.sample(examples, k=min(len(examples), options.examples_shown)),
        "style": random.sample(styles, k=min(len(styles), options.style_shown)),
        "avoid": [text for text in drawn.sample(heard, k=min(len(heard), material.avoid_shown)) if text],
        "topic": topic,
        "manners": manners,
        "persona": draw_persona(material.personas, options.seed, index, label),
        "language": language,
        "count": options.texts_per_request,
        "json": material.as_json,
    }
    if label:
        others = [readable(name) for name in spec.label_names if name != label]
        told = _words_for(spec, label, index) if material.opened else readable(label)
        variables |= {
            "label": told,
            "description": beside(told, material.descriptions.get(label, "")),
            "others": others if len(others) <= 12 else [],
        }
        name = "write_for_label_short" if material.opened else "write_for_label"
        long = 0
    else:
        name = "write_input"
        given = _shown(material, [example.input for example in spec.examples], first)
        long = input_words(given, noun) if material.opened and not material.fields else 0
    words = f"{long} words" if long else label and f'the category "{_words_for(spec, label, index)}"'
    return Request(
        messages=(Message("user", prompts.load(name).render(**variables)),),
        prefill=_opening(material, noun, words, language),
        max_tokens=max(material.input_tokens, 3 * long // 2) * options.texts_per_request,
        temperature=options.temperature_at(index * max(1, len(spec.label_names)) if label else index),
        top_p=options.top_p,
        stop=_stops(material) if stop_at_blank else (),
        seed=random.randrange(2**31),
        schema=_schema(material) if material.as_json else None,
    )


def _manners(material: Material, random: Random) -> list[str]:
    if material.attributes == "none":
        return []
    if material.opened:
        # A small teacher follows two words in a short sentence, and no list of demands.
        return [value for _, value in draw_manners(random, material.manners, 2)]
    return [f"{name}: {value}" for name, value in draw_manners(random, material.manners, len(material.manners))]


def _shown(material: Material, texts: Sequence[str], field: str) -> list[str]:
    """Texts as a prompt shows them: one field of each where fields are asked for one by one."""
    if not field:
        return list(texts)
    names = material.spec.inputs
    split = [parts for text in texts if (parts := split_fields(text, names)) is not None]
    return [parts[names.index(field)] for parts in split]


def language_of(spec: TaskSpec, index: int, label: str, seed: int) -> str:
    """The language of one text, by its English name: its label's where labels are languages, else one of the task's in
    turn; "" where the task is in English."""
    if label and (spoken := label_languages(spec.instruction, spec.label_names)):
        return LANGUAGES.get(spoken.get(label, ""), "")
    if spec.languages in ((), ("en",)):
        return ""
    # From a shuffled start, so that the labels of a task do not all begin with the same language.
    return LANGUAGES[spec.languages[(index + rng(seed, 0, f"language {label}").randrange(64)) % len(spec.languages)]]


def _words_for(spec: TaskSpec, label: str, index: int) -> str:
    """What a small teacher is told of a label. One that only denies another is "other" in every second request."""
    return OTHER if index % 2 and label in denials(spec) else label_words(spec)[label]


def _opening(material: Material, noun: str, of: str, language: str) -> str:
    """The start of the reply, so that a small teacher goes on with the text itself and not with talk about it."""
    if not material.opened:
        return ""
    if material.options.texts_per_request > 1:
        return "1."
    what = with_article(noun) + (f" of {of}" if of else "")
    what += f" in {language}" if language else ""
    if material.fields:
        return f"Here is {what}:\n\n{material.fields[0]}:"
    return f'Here is {what}:\n\n"'


def _stops(material: Material) -> tuple[str, ...]:
    if not material.opened or material.options.texts_per_request > 1:
        return ()
    # A small teacher leaves a blank line between two fields; a stop there would lose the second.
    return ("\n\n\n",) if material.fields else STOPS


def _schema(material: Material) -> dict[str, Any]:
    fields = material.fields
    text: dict[str, Any] = {"type": "string"}
    if fields:
        text = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in fields},
            "required": list(fields),
            "additionalProperties": False,
        }
    return {
        "type": "object",
        "properties": {"texts": {"type": "array", "items": text}},
        "required": ["texts"],
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class Written:
    """One text of a reply: what it says, or why it cannot be read (`fault`, `detail`)."""

    text: str
    fault: str = ""
    detail: str = ""


def read_reply(material: Material, request: Request, reply: Reply) -> list[Written]:
    """The texts of a reply. Never raises; a reply that cannot be read is one `Written` with its fault."""
    raw = reply.text
    if reply.finish == "refused":
        return [Written(plain(raw)[:500], "refusal", "stopped by the teacher's own filter")]
    if not raw.strip():
        return [Written("", "empty", "an empty reply")]
    fields = material.fields
    count = material.options.texts_per_request
    cut = lacks_end(reply)
    remarks: Remarks = "answers" if material.spec.kind == "generation" else "labels"
    if request.schema is not None:
        return _from_json(raw, fields, count, cut)
    if count > 1:
        items = split_list(request.prefill + raw, count + 1, remarks)
        items = items[:-1] if cut else items[:count]
        return [_one(item, fields, False, remarks) for item in items] or [
            Written(plain(raw)[:500], "unparsable", "no list")
        ]
    if not fields or not material.opened:
        opened = request.prefill.endswith('"')
        alone = within_quotes(raw) if opened else raw
        return [_one(alone, fields, cut and len(alone) >= len(raw), remarks)]
    whole = request.prefill.rpartition("\n")[2] + raw
    alone = _without_remarks(whole, fields)
    return [_one(alone, fields, cut and alone == whole, remarks)]


def _without_remarks(raw: str, fields: Sequence[str]) -> str:
    """Fields without what a small teacher says of them behind the last: another line of it, or another paragraph."""
    found = re.search(rf"^\W*{re.escape(fields[-1])}\W*:[ \t]*\S.*", raw, re.IGNORECASE | re.MULTILINE)
    if found is None:
        return raw
    end = raw.find("\n\n", found.end()) if is_long_field(fields[-1], fields) else found.end()
    return raw[:end] if end >= 0 else raw


def _one(raw: str, fields: Sequence[str], cut: bool, remarks: Remarks) -> Written:
    if fields:
        values = read_fields(raw, fields, remarks)
        if values is None:
            return Written(plain(raw)[:500], "missing_field", f"not all of {', '.join(fields)}")
        if cut:
            last = last_full_sentence(values[fields[-1]])
            if not last:
                return Written(join_fields(values), "truncated", "no full sentence in the last field")
            values[fields[-1]] = last
        return Written(join_fields(values))
    return _text_of(raw, cut, remarks)


def _from_json(raw: str, fields: Sequence[str], count: int, cut: bool) -> list[Written]:
    value = read_json(raw)
    items = value.get("texts") if isinstance(value, dict) else value
    if isinstance(items, str):
        items = [items]
    if not isinstance(items, list) or not items:
        return [Written(plain(raw)[:500], "truncated" if cut else "unparsable", "no JSON object with texts")]
    # What mends a reply that was cut closes the string in which it ends: that text, the last, is a half.
    half = len(items) - 1 if cut and ends_in_string(raw) else -1
    written = []
    for at, item in enumerate(items[: count + 1]):
        if fields and isinstance(item, dict):
            last = cut and at == len(items) - 1
            written.append(_fields_of(item, fields, lacking=last, half=list(item)[-1] if at == half and item else ""))
        elif isinstance(item, str) and not fields:
            written.append(_text_of(item, at == half, ""))
        else:
            written.append(Written(plain(json.dumps(item, default=str))[:500], "unparsable", "not the asked shape"))
    return [text for text in written if text.text or text.fault != "truncated"] or written[:1]


def _text_of(raw: str, cut: bool, remarks: Remarks) -> Written:
    text = clean_text(raw, remarks)
    whole = last_full_sentence(text) if cut else text
    return Written(whole) if whole or not cut else Written(text, "truncated", "no full sentence")


def _fields_of(item: Mapping[str, Any], fields: Sequence[str], *, lacking: bool, half: str) -> Written:
    """The fields of one text.

    Args:
        item: The text as it was read.
        fields: Names of the fields.
        lacking: Whether the reply was cut before those that lack.
        half: Name of the field in which it was cut.
    """
    values = {name: clean_text(str(item.get(name) or ""), "") for name in fields}
    if not all(values.values()):
        said = plain(json.dumps(item))[:500]
        return Written(said, "truncated" if lacking else "missing_field", f"not all of {', '.join(fields)}")
    if half not in values:
        return Written(join_fields(values))
    written = _text_of(values[half], True, "")
    values[half] = written.text
    return replace(written, text=join_fields(values), detail=written.detail and f"{written.detail} in {half}")
