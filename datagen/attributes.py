"""What varies the written texts: topic, style, length, difficulty and register, as the teacher proposes them.

Asked for the same thing a thousand times, a teacher writes a few dozen texts. A topic and a manner drawn for each
request spread them (AttrPrompt, arXiv:2306.15895). Topics are proposed for each label, the values of the other four
dimensions once for the task; where a proposal is unusable, a dimension keeps its built-in values. Proposals are asked
for once, through the ledger, and what is drawn is a function of the seed, the label and the request's number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from potstill import prompts
from potstill.asking.teacher import Abilities, Message, Reply, Request
from potstill.datagen.filters import refusal, words
from potstill.datagen.options import GenerationOptions
from potstill.datagen.parse import clean_text, last_full_sentence, read_json, split_list, strings_in
from potstill.datagen.personas import SAMPLES
from potstill.datagen.wording import input_noun, readable, with_article
from potstill.language.label_words import beside, label_words
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

MANNERS: Mapping[str, tuple[str, ...]] = {
    "style": (
        "in the first person",
        "in the third person",
        "from an insider's view",
        "from a bystander's view",
        "with one concrete detail",
        "for a friend",
    ),
    "length": ("very short", "short", "of medium length", "long and detailed"),
    "difficulty": ("simple and obvious", "typical", "subtle but clear", "for experts"),
    "register": ("formal", "casual", "matter-of-fact", "emotional", "humorous", "terse", "polite", "blunt"),
}
TOPICS_ASKED = 20
TOPICS_KEPT = 60
VALUES_ASKED = 8
VALUES_KEPT = 12
# Fewer usable values than this vary less than the built-in ones.
_FEWEST_TOPICS, _FEWEST_VALUES = 4, 3
_MEANINGS: Mapping[str, str] = {
    "style": "its form and point of view",
    "length": "how many words or sentences it has, at most {most} words",
    "difficulty": "how easily the right answer is seen, though it is always clear",
    "register": "its tone and formality",
}
_LENGTH = re.compile(r"\d|word|sentence|line|paragraph|phrase|short|long|brief|medium|length|detailed|concise|terse")


@dataclass(frozen=True)
class Attributes:
    """What requests draw from.

    Attributes:
        topics: Subjects for each label, or under "" for tasks without labels; a label without usable ones is absent.
        manners: Values of each other dimension; empty varies nothing.
        proposed: The dimensions of `manners` whose values are the teacher's own.
    """

    topics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    manners: Mapping[str, Sequence[str]] = field(default_factory=dict)
    proposed: tuple[str, ...] = ()


def attributes_report(manners: Mapping[str, Sequence[str]], proposed: Sequence[str]) -> dict[str, Any]:
    """The values of each dimension and whose they are, as JSON types."""
    return {
        name: {"values": list(values), "from": "teacher" if name in proposed else "builtin"}
        for name, values in manners.items()
    }


def draw_manners(random: Random, manners: Mapping[str, Sequence[str]], how_many: int) -> list[tuple[str, str]]:
    """Dimensions with one value each, `how_many` of them or all, in a drawn order."""
    names = random.sample(sorted(manners), k=min(how_many, len(manners)))
    return [(name, random.choice(list(manners[name]))) for name in names]


def propose_attributes(
    spec: TaskSpec, asker: Asker, options: GenerationOptions, described: Mapping[str, str]
) -> Attributes:
    """What `GenerationOptions.attributes` asks for: the teacher's proposals, the built-in values, or nothing.

    Args:
        spec: The task.
        asker: The teacher; asked only where its proposals are wanted.
        options: How to ask.
        described: What each label means.

    Returns:
        Topics of labels for which at least four usable ones came, and for each other dimension the proposed values
        where at least three are usable, else the built-in ones.
    """
    able = asker.abilities
    as_json = use_schema(able.json_schema, able.prefill, options)
    mode = resolve_attributes(options, able.prefill and not as_json)
    in_turns = options.method == "magpie"  # which tells a topic, and no manner
    if mode != "teacher":
        return Attributes(manners=MANNERS if mode == "builtin" and not in_turns else {})
    requests = _topic_requests(spec, options, described, able, as_json)
    requests += [] if in_turns else _value_requests(spec, options, able, as_json)
    topics: dict[str, list[str]] = {}
    values: dict[str, list[str]] = {}
    for answer in asker.ask([request for _, _, request in requests], "attributes"):
        dimension, label, request = requests[int(str(answer.request.tag))]
        if isinstance(answer.reply, Reply):
            found = topics.setdefault(label, []) if dimension == "topic" else values.setdefault(dimension, [])
            key = "topics" if dimension == "topic" else "values"
            found += _items(request.prefill + answer.reply.text, answer.reply.finish, key if as_json else "")
    most = _most_words(options, able.prefill and not as_json)
    usable = {name: _usable(values.get(name, ()), name, spec, most) for name in MANNERS}
    proposed = tuple(name for name, own in usable.items() if len(own) >= _FEWEST_VALUES)
    return Attributes(
        topics={
            label: kept
            for label in spec.label_names or ("",)
            if len(kept := _distinct(topics.get(label, ()), label)) >= _FEWEST_TOPICS
        },
        manners={
            name: usable[name] if name in proposed else builtin
            for name, builtin in ({} if in_turns else MANNERS).items()
        },
        proposed=proposed,
    )


_Asked = tuple[str, str, Request]


def _topic_requests(
    spec: TaskSpec, options: GenerationOptions, described: Mapping[str, str], able: Abilities, as_json: bool
) -> list[_Asked]:
    labels = spec.label_names or ("",)
    noun = input_noun(spec)
    prompt = prompts.load("propose_topics")
    asked: list[_Asked] = []
    for label in labels:
        text = prompt.render(
            instruction=spec.instruction,
            noun=noun,
            article=with_article(noun).split()[0],
            label=label_words(spec).get(label, label),
            description=beside(label_words(spec).get(label, label), described.get(label, "")),
            count=TOPICS_ASKED,
            json=as_json,
        )
        for sample in range(_samples(len(labels))):
            schema = _schema("topics") if as_json else None
            asked.append(("topic", label, _proposal(text, options, able, schema, 220, sample, len(asked))))
    return asked


def _value_requests(spec: TaskSpec, options: GenerationOptions, able: Abilities, as_json: bool) -> list[_Asked]:
    first = len(spec.label_names or ("",)) * _samples(len(spec.label_names) or 1)
    names = [readable(name) for name in spec.label_names]
    prompt = prompts.load("propose_values")
    asked: list[_Asked] = []
    for dimension, meaning in _MEANINGS.items():
        text = prompt.render(
            instruction=spec.instruction,
            noun=input_noun(spec),
            dimension=dimension,
            meaning=meaning.format(most=_most_words(options, able.prefill and not as_json)),
            labels=names if len(names) <= 12 else [],
            count=VALUES_ASKED,
            json=as_json,
        )
        schema = _schema("values") if as_json else None
        asked.append((dimension, "", _proposal(text, options, able, schema, 120, 0, first + len(asked))))
    return asked


def _proposal(
    text: str,
    options: GenerationOptions,
    able: Abilities,
    schema: dict[str, Any] | None,
    most: int,
    sample: int,
    tag: int,
) -> Request:
    opened = able.prefill and schema is None
    return Request(
        messages=(Message("user", text),),
        prefill="1." if opened else "",
        max_tokens=most,
        temperature=0.8,
        top_p=0.95,
        stop=("\n\n",) if opened else (),
        seed=options.seed,
        sample=sample,
        schema=schema,
        tag=tag,
    )


def _most_words(options: GenerationOptions, opened: bool) -> int:
    """Words that fit an input's tokens; English takes about four tokens for three words."""
    return min(options.max_words, max(8, options.input_tokens(opened) * 3 // 4))


def _samples(labels: int) -> int:
    return max(2, min(6, 48 // labels))


def proposal_requests(spec: TaskSpec, options: GenerationOptions, able: Abilities) -> int:
    """How many requests `propose_attributes`, `describe_labels` and `personas_for` make for a task."""
    opened = able.prefill and not use_schema(able.json_schema, able.prefill, options)
    labels = len(spec.labels) or 1
    proposing = resolve_attributes(options, opened) == "teacher"
    values = 0 if options.method == "magpie" else len(_MEANINGS)
    proposals = labels * _samples(labels) + values if proposing else 0
    proposals += SAMPLES if options.personas == "teacher" else 0
    asks = options.label_descriptions == "teacher"
    return proposals + (sum(not label.description.strip() for label in spec.labels) if asks else 0)


def _schema(key: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: {"type": "array", "items": {"type": "string"}}},
        "required": [key],
        "additionalProperties": False,
    }


def _items(text: str, finish: str, key: str) -> list[str]:
    """The proposals of a reply: of its JSON under `key`, or of its list where `key` is ""."""
    items = strings_in(read_json(text), key) if key else split_list(text, 40)
    if finish == "length" and not key:
        items = items[:-1]
    return items


def _usable(items: Sequence[str], dimension: str, spec: TaskSpec, most: int) -> list[str]:
    """Proposed values that can stand in a prompt: short phrases, each once, that name no label."""
    names = [" ".join(words(readable(name))) for name in spec.label_names]
    kept: list[str] = []
    seen = {dimension}
    for item in items:
        # `Formal (a letter)` and `Formal: as in a letter` propose formal.
        item = re.split(r"[:;(\n]| [-–—] ", item)[0].strip(" .,\"'*_`")
        key = " ".join(words(item))
        if not 1 <= len(key.split()) <= 6 or len(item) > 60 or key in seen or refusal(item):
            continue
        if re.search(r"[{}<>\[\]|\\]", item) or any(f" {name} " in f" {key} " for name in names):
            continue
        if dimension == "length" and not _is_length(key, most):
            continue
        seen.add(key)
        kept.append(item[:1].lower() + item[1:] if item[1:2].islower() else item)
    return kept[:VALUES_KEPT]


def _is_length(key: str, most: int) -> bool:
    sizes = [int(number) for number in re.findall(r"\d{1,9}", key)]
    return bool(_LENGTH.search(key)) and max(sizes, default=0) <= most


def _distinct(items: Sequence[str], label: str) -> list[str]:
    kept: list[str] = []
    seen = {" ".join(words(label)), " ".join(words(readable(label)))}
    for item in items:
        # `Football: the most popular sport` proposes football.
        item = item.split(":")[0].split(" - ")[0].split("\n")[0].strip(" .\"'*")
        key = " ".join(words(item))
        if 1 <= len(key.split()) <= 8 and key not in seen and not refusal(item):
            seen.add(key)
            kept.append(item[:1].lower() + item[1:] if item[1:2].islower() and " " in item else item)
    return kept[:TOPICS_KEPT]


def describe_labels(spec: TaskSpec, asker: Asker, options: GenerationOptions) -> dict[str, str]:
    """What each label means: the user's words, else the teacher's where the options ask for them."""
    described = {label.name: label.description.strip() for label in spec.labels}
    missing = [name for name, description in described.items() if not description]
    if options.label_descriptions != "teacher" or not missing:
        return described
    prompt = prompts.load("describe_label")
    others = [readable(name) for name in spec.label_names]
    requests = [
        Request(
            messages=(
                Message(
                    "user",
                    prompt.render(
                        instruction=spec.instruction,
                        label=readable(name),
                        others=[other for other in others if other != readable(name)][:12],
                    ),
                ),
            ),
            max_tokens=60,
            temperature=0.0,
            tag=name,
        )
        for name in missing
    ]
    for answer in asker.ask(requests, "attributes"):
        if isinstance(answer.reply, Reply):
            text = clean_text(answer.reply.text).split("\n")[0]
            text = last_full_sentence(text) if answer.reply.finish == "length" else text
            if 3 <= len(words(text)) <= 50 and not refusal(text):
                described[str(answer.request.tag)] = text.rstrip(".")
    return described


def resolve_attributes(options: GenerationOptions, opened: bool) -> str:
    """`teacher`, `builtin` or `none`: `auto` is `none` for teachers whose reply is opened, else `teacher`."""
    if options.attributes == "auto":
        return "none" if opened else "teacher"
    return options.attributes


def use_schema(json_schema: bool, prefill: bool, options: GenerationOptions) -> bool:
    """Whether requests carry a JSON schema (see `GenerationOptions.structured`)."""
    if options.structured == "auto":
        return json_schema and not prefill
    return options.structured == "always" and json_schema
