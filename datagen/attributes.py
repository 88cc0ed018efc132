"""What varies the written texts: subjects that the teacher proposes, and ways of writing from fixed lists.

Asked for the same thing a thousand times, a teacher writes a few dozen texts. A subject and a manner drawn for each
request spread them (AttrPrompt, arXiv:2306.15895). Proposals are asked for once, through the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from potstill import prompts
from potstill.datagen.filters import refusal, words
from potstill.datagen.options import GenerationOptions
from potstill.datagen.parse import clean_text, last_full_sentence, read_json, split_list, strings_in
from potstill.datagen.wording import input_noun, readable, with_article
from potstill.task import TaskSpec
from potstill.teacher import Abilities, Message, Reply, Request

if TYPE_CHECKING:
    from potstill.asker import Asker

MANNERS: Mapping[str, tuple[str, ...]] = {
    "length": ("very short", "short", "of medium length", "long and detailed"),
    "register": ("formal", "casual", "matter-of-fact", "emotional", "humorous", "terse", "polite", "blunt"),
    "point of view": (
        "in the first person",
        "in the third person",
        "from an insider's view",
        "from a bystander's view",
    ),
    "audience": ("for experts", "for a general audience", "for a friend", "for beginners"),
}
TOPICS_ASKED = 20
TOPICS_KEPT = 60


def draw_manners(random: Random, how_many: int) -> list[str]:
    """Ways of writing, each of another dimension."""
    names = random.sample(sorted(MANNERS), k=min(how_many, len(MANNERS)))
    return [random.choice(MANNERS[name]) for name in names]


def propose_topics(
    spec: TaskSpec, asker: Asker, options: GenerationOptions, described: Mapping[str, str]
) -> dict[str, list[str]]:
    """Subjects for each label (or under "" for tasks without labels), as the teacher proposes them.

    A label for which it proposes fewer than four usable ones gets none.
    """
    labels = spec.label_names or ("",)
    noun = input_noun(spec)
    prompt = prompts.load("propose_topics")
    able = asker.abilities
    as_json = use_schema(able.json_schema, able.prefill, options)
    samples = _samples(len(labels))
    requests = []
    for label in labels:
        text = prompt.render(
            instruction=spec.instruction,
            noun=noun,
            article=with_article(noun).split()[0],
            label=readable(label),
            description=described.get(label, ""),
            count=TOPICS_ASKED,
            json=as_json,
        )
        for sample in range(samples):
            requests.append(
                Request(
                    messages=(Message("user", text),),
                    prefill="1." if able.prefill and not as_json else "",
                    max_tokens=220,
                    temperature=0.8,
                    top_p=0.95,
                    stop=("\n\n",) if able.prefill and not as_json else (),
                    seed=options.seed,
                    sample=sample,
                    schema=_TOPICS if as_json else None,
                    tag=label,
                )
            )
    found: dict[str, list[str]] = {label: [] for label in labels}
    for answer in asker.ask(requests, "attributes"):
        if isinstance(answer.reply, Reply):
            opening = answer.request.prefill
            found[str(answer.request.tag)] += _topics(opening + answer.reply.text, answer.reply.finish, as_json)
    return {label: kept for label, items in found.items() if len(kept := _distinct(items, label)) >= 4}


def _samples(labels: int) -> int:
    return max(2, min(6, 48 // labels))


def proposal_requests(spec: TaskSpec, options: GenerationOptions, able: Abilities) -> int:
    """How many requests `propose_topics` and `describe_labels` make for a task."""
    opened = able.prefill and not use_schema(able.json_schema, able.prefill, options)
    labels = len(spec.labels) or 1
    topics = labels * _samples(labels) if resolve_attributes(options, opened) == "teacher" else 0
    asks = options.label_descriptions == "teacher"
    return topics + (sum(not label.description.strip() for label in spec.labels) if asks else 0)


_TOPICS = {
    "type": "object",
    "properties": {"topics": {"type": "array", "items": {"type": "string"}}},
    "required": ["topics"],
    "additionalProperties": False,
}


def _topics(text: str, finish: str, as_json: bool) -> list[str]:
    items = strings_in(read_json(text), "topics") if as_json else split_list(text, 40)
    if finish == "length" and not as_json:
        items = items[:-1]
    return items


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
