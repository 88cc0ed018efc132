"""An input of several fields, written one field after the other.

A small teacher that is asked for a passage and a question at once writes about passages and questions, and leaves one
of them out. Asked for a passage, and then for a question about it, it writes both. So where replies are opened for the
teacher, each field has a request of its own that shows the ones before (`Material.in_parts`); the first is made by
`writing.write_request`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from potstill import prompts
from potstill.asking.teacher import Message, Reply, Request
from potstill.datagen import filters
from potstill.datagen.field_words import called, field_noun, is_long_field, is_question, spoken, writing_order
from potstill.datagen.wording import readable, with_article
from potstill.datagen.writing import STOPS, Material, Written, language_of, read_reply, rng
from potstill.rows import join_fields

# A field that is no long text: a question, a title.
_SHORT_TOKENS = 80
_QUESTION = re.compile(r"[^?？؟]*[?？؟]")
# What a question is begun with for a teacher that would as soon write a statement.
_BEGINNINGS = ("What",) * 4 + ("How",) * 2 + ("Who", "When", "Where", "Why", "Which", "Is", "Does", "Can")


@dataclass(frozen=True)
class Begun:
    """An input of which not all fields are written yet.

    Attributes:
        number: Of the request for its first field.
        values: What the written fields say, by their names, in the order in which they were written.
        keys: Of the requests that wrote them.
    """

    number: int
    values: Mapping[str, str]
    keys: tuple[str, ...]


def next_field(material: Material, written: Mapping[str, str]) -> str:
    """Name of the field that is to be written next; "" where none is left."""
    return next((name for name in writing_order(material.spec.inputs) if name not in written), "")


def field_request(material: Material, begun: Begun) -> Request:
    """The request for the next field of an input that is begun."""
    options, spec = material.options, material.spec
    name = next_field(material, begun.values)
    noun = with_article(field_noun(name, list(begun.values)))
    language = language_of(spec, begun.number, "", options.seed)
    told = f" in {language}" if language else ""
    given = [(readable(known), text) for known, text in begun.values.items()]
    prompt = prompts.load("write_field").render(given=given, noun=noun, language=language)
    short = not is_long_field(name, spec.inputs)
    most = options.input_tokens(opened=True)
    # By what is written and not by its number: under other filters it is still the same request.
    random = rng(options.seed, 0, f"field {name} {join_fields(begun.values)}")
    begins = random.choice(_BEGINNINGS) if is_question(name) and spec.languages in ((), ("en",)) else ""
    return Request(
        messages=(Message("user", prompt),),
        prefill=f'Here is {noun}{told}:\n\n"{begins}',
        max_tokens=min(most, _SHORT_TOKENS) if short else most,
        temperature=options.temperature_at(begun.number),
        top_p=options.top_p,
        stop=STOPS,
        seed=random.randrange(2**31),
    )


def read_field(material: Material, begun: Begun, request: Request, reply: Reply) -> Written:
    """What a reply says of the field that was asked for, or why it cannot be used.

    Args:
        material: What prompts are made from.
        begun: The input as it was.
        request: What was asked.
        reply: The answer.
    """
    begins = request.prefill.rpartition('"')[2]
    written = read_reply(material, request, replace(reply, text=begins + reply.text))[0]
    if written.fault:
        return written
    name = next_field(material, begun.values)
    text = _up_to_a_field(material, written.text)
    if not text:
        return Written(written.text, "missing_field", f"nothing in {name}")
    if is_question(name):
        # What stands behind a question is the small teacher's own answer, or the next one.
        found = _QUESTION.match(" ".join(text.split()))
        if found is None:
            return Written(text, "missing_field", f"{name} holds no question")
        text = found[0]
    # A second sentence may be the first with one word changed; a question that repeats its passage is none.
    if not begun.values or is_question(name):
        echo = filters.prompt_echo(text, request.messages[-1].content)
        if echo is not None:
            return Written(text, echo.reason, echo.detail)
    return Written(text)


def _up_to_a_field(material: Material, text: str) -> str:
    """A text without a line that begins with the name of a field, which a small teacher adds, and what follows."""
    inputs = material.spec.inputs
    names = "|".join(re.escape(said) for name in inputs for said in (spoken(name), called(name, inputs)))
    found = re.search(rf"^\W*(?:{names})\d?\W*:", text, re.IGNORECASE | re.MULTILINE)
    return text[: found.start()].strip() if found else text


def whole_input(material: Material, values: Mapping[str, str]) -> str:
    """The input that fields make, in the task's order."""
    return join_fields({name: values[name] for name in material.spec.inputs})
