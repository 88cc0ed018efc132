"""Inputs and instructions that an aligned teacher writes in the user's own turn (Magpie, arXiv:2406.08464 §2).

A chat model that is given its template up to where the user's words begin goes on with what a user would say: it was
trained on many such chats. Nothing is asked of it, so it needs no examples and does not talk about what it was asked. A
system message made of the task's prompt says what the chat is about. What comes is answered by a second request, as
other inputs are (`input_first`).

In: `Material`. Out: requests whose `turn` is the user's, the texts of their replies, and why a text is no instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from potstill import prompts
from potstill.asking.teacher import Message, Reply, Request
from potstill.datagen import filters
from potstill.datagen.field_words import called
from potstill.datagen.long_kinds import input_words
from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.options import GenerationOptions
from potstill.datagen.parse import clean_text, lacks_end, last_full_sentence, plain, read_fields
from potstill.datagen.personas import draw_persona
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.datagen.screen import held_languages
from potstill.datagen.self_instruct_text import refuse_instruction
from potstill.datagen.wording import input_noun, with_article
from potstill.datagen.writing import Material, Written, language_of, rng
from potstill.rows import Dropped, join_fields
from potstill.task import TaskSpec

# The model spoke for itself in the user's place.
_ASSISTANT = re.compile(
    r"\bhow (?:can|may|could) i (?:help|assist)\b"
    r"|\bi(?:'m| am) (?:here to (?:help|assist)|(?:an? |your )?(?:AI|virtual|language model|digital)\b)"
    r"|\bas an? (?:AI|language model)\b"
    r"|\A\W*sure\b"
    r"|\bi(?:'d| would| will|'ll) be (?:happy|glad) to (?:help|assist)",
    re.IGNORECASE,
)


def magpie_options(spec: TaskSpec, options: GenerationOptions) -> GenerationOptions:
    """The options as a user's turn goes by them; unchanged where none is written.

    A turn is one text, in no schema, and shows nothing that was written before. Instructions have no attributes.
    """
    if options.method != "magpie":
        return options
    attributes = "none" if spec.kind == "instructions" else options.attributes
    return replace(options, texts_per_request=1, structured="never", avoid_shown=0, attributes=attributes)


def query_request(material: Material, index: int) -> Request:
    """Request number `index` for a user's turn."""
    spec, options = material.spec, material.options
    random = rng(options.seed, index, "query")
    topics = material.topics.get("", ())
    noun = input_noun(spec)
    system = prompts.load("magpie_system").render(
        instruction=" ".join(spec.instruction.split()),
        instructions=spec.kind == "instructions",
        input=_input(material, noun),
        topic=random.choice(list(topics)) if topics else "",
        persona=draw_persona(material.personas, options.seed, index),
        language=language_of(spec, index, "", options.seed),
    )
    long = 0 if spec.kind == "instructions" else input_words([example.input for example in spec.examples], noun)
    return Request(
        messages=(Message("system", system),),
        prefill=f"{material.fields[0]}:" if material.fields else "",
        max_tokens=max(material.input_tokens, 3 * long // 2),
        temperature=options.temperature_at(index),
        top_p=options.top_p,
        seed=random.randrange(2**31),
        turn="user",
    )


def _input(material: Material, noun: str) -> str:
    fields = material.fields
    if not fields:
        return with_article(noun)
    named = ", ".join(with_article(called(name, fields)) for name in fields)
    return f"{named}, each on a line of its own after its name ({', '.join(f'{name}:' for name in fields)}),"


def read_query(material: Material, request: Request, reply: Reply) -> Written:
    """What a user's turn says, or why it cannot be used."""
    raw, cut = reply.text, lacks_end(reply)
    if reply.finish == "refused":
        return Written(plain(raw)[:500], "refusal", "stopped by the teacher's own filter")
    if not raw.strip():
        return Written("", "empty", "an empty turn")
    fields = material.fields
    if fields:
        values = read_fields(request.prefill + raw, fields, "")
        if values is None or cut:
            fault, detail = ("truncated", "") if cut else ("missing_field", f"not all of {', '.join(fields)}")
            return Written(plain(raw)[:500], fault, detail)
        return Written(join_fields(values))
    text = clean_text(raw, "")
    if talk := speaks_as_assistant(text):
        return Written(text, talk.reason, talk.detail)
    if cut and material.spec.kind == "instructions":  # of which the rest may ask for something else
        return Written(text, "truncated", "the turn did not end")
    whole = last_full_sentence(text) if cut else text
    return Written(whole) if whole or not cut else Written(text, "truncated", "no full sentence")


def speaks_as_assistant(text: str) -> Dropped | None:
    """The reason against a turn in which the model speaks for itself, or None.

    Examples:
        >>> speaks_as_assistant("Sure! How can I help you today?").reason
        'assistant_talk'
        >>> speaks_as_assistant("How can I get a stain out of wool?")
    """
    found = _ASSISTANT.search(text)
    return Dropped("assistant_talk", found[0][:60], text[:2000]) if found else None


class QueryScreen:
    """The filters that a user's turn passes to be an instruction; in place of `screen.Screen`.

    Args:
        spec: The task.
        options: Thresholds.
        shown: The user's examples.
        opened: Whether the teacher is a small one (`screen.held_languages`).
    """

    def __init__(self, spec: TaskSpec, options: GenerationOptions, shown: Sequence[str], *, opened: bool = True):
        self._languages = held_languages(spec, opened)
        self._shown = NoveltyFilter(options.novelty, texts=shown)
        self._kept = (
            RecentNovelty(options.novelty_pool, options.novelty)
            if options.novelty_pool
            else NoveltyFilter(options.novelty)
        )

    def know(self, texts: Iterable[str]) -> None:
        """Take texts for kept ones: what is nearly one of them is refused."""
        for text in texts:
            self._kept.add(text)

    def refuse(self, text: str, prompt: str) -> Dropped | None:
        """The first reason against an instruction, or None; one that passes is kept for later comparison.

        Args:
            text: The instruction, with its input behind an empty line where it has one.
            prompt: The system message before it.
        """
        found = (
            refuse_instruction(text.partition("\n\n")[0])
            or filters.repetition(text)
            or filters.prompt_echo(text, prompt)
            or filters.wrong_language(text, self._languages)
            or filters.example_echo(text, self._shown)
            or filters.near_duplicate(text, self._kept)
        )
        if found is None:
            self._kept.add(text)
        return found
