"""Who writes an input: kinds of people, as the teacher proposes them or as a file of the user's lists them.

Asked in one voice, a teacher writes in one voice. A persona drawn for each request lets it write as different people
would (Persona Hub, arXiv:2406.20094 §2). Proposals are asked for once, through the ledger. What is drawn is a function
of the seed, the label and the request's number, apart from all other draws, so that personas change nothing else.

In: a task, a teacher or a file. Out: descriptions such as "a night porter who shares a desk with two others".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from potstill import prompts
from potstill.asking.teacher import Abilities, Message, Reply, Request
from potstill.datagen.filters import refusal, words
from potstill.datagen.options import GenerationOptions
from potstill.datagen.parse import last_full_sentence, split_list
from potstill.datagen.wording import input_noun, plural, readable, with_article
from potstill.errors import DataError
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

ASKED, SAMPLES = 20, 3
SHOWN_PERSONAS = 60
"""So many at most are listed in a report."""
MOST_READ = 100_000
"""Lines of a file that are read."""

# Fewer different people than this are one voice again.
_FEWEST = 4
_MOST_CHARACTERS = 300
_FIELDS = ("persona", "description")
_ARTICLE = re.compile(r"(?:an?|the|one|someone|somebody)\b", re.IGNORECASE)


def personas_for(spec: TaskSpec, asker: Asker, options: GenerationOptions) -> tuple[str, ...]:
    """What `GenerationOptions.personas` asks for.

    Args:
        spec: The task.
        asker: The teacher; asked only where its proposals are wanted.
        options: How to ask.

    Returns:
        Each once; none where none are wanted, or fewer than four of the teacher's own are usable.

    Raises:
        DataError: The file cannot be read or holds none.
    """
    if options.personas == "none":
        return ()
    if options.personas_file:
        return read_personas(Path(options.personas_file))
    found: list[str] = []
    for answer in asker.ask(persona_requests(spec, options, asker.abilities), "attributes"):
        if isinstance(answer.reply, Reply):
            items = split_list(answer.request.prefill + answer.reply.text, 2 * ASKED, "")
            found += items[:-1] if answer.reply.finish == "length" else items
    usable = usable_personas(found, spec.label_names)
    return usable if len(usable) >= _FEWEST else ()


def persona_requests(spec: TaskSpec, options: GenerationOptions, able: Abilities) -> list[Request]:
    """The requests for proposals."""
    text = prompts.load("propose_personas").render(
        instruction=" ".join(spec.instruction.split()),
        instructions=spec.kind == "instructions",
        noun=plural(input_noun(spec)),
        count=ASKED,
    )
    return [
        Request(
            messages=(Message("user", text),),
            prefill="1. A" if able.prefill else "",
            max_tokens=500,
            temperature=0.8,
            top_p=0.95,
            stop=("\n\n",) if able.prefill else (),
            seed=options.seed,
            sample=sample,
        )
        for sample in range(SAMPLES)
    ]


def usable_personas(items: Iterable[str], label_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Proposals that can stand in a sentence: short descriptions of a person, each once, that name no label.

    Examples:
        >>> usable_personas(["A night porter who shares a desk.", "Night porter", "**Guests**: many of them come"])
        ('a night porter who shares a desk', 'a night porter')
    """
    names = [" ".join(words(readable(name))) for name in label_names]
    kept: dict[str, str] = {}
    for item in items:
        said = _phrase(item)
        key = " ".join(words(said))
        if not 2 <= len(key.split()) <= 25 or key in kept or refusal(said) or re.search(r"[{}<>\[\]|\\:]", said):
            continue
        if not any(f" {name} " in f" {key} " for name in names):
            kept[key] = said
    return tuple(kept.values())


def _phrase(text: str) -> str:
    """A description as a sentence goes on with it: `a political analyst who …`, without its last point."""
    text = " ".join(text.split()).strip(" \"'*_`").rstrip(".;, ")
    if len(text) > _MOST_CHARACTERS:
        text = (last_full_sentence(text[:_MOST_CHARACTERS]) or text[:_MOST_CHARACTERS].rpartition(" ")[0]).rstrip(".")
    if found := _ARTICLE.match(text):
        return found[0].lower() + text[found.end() :]
    # A name or a sentence about somebody is left as it is; a bare noun gets its article.
    bare = len(text.split()) > 0 and (text.split()[0].islower() or text[1:2].islower()) and "," not in text
    return with_article(text[:1].lower() + text[1:]) if bare and len(text.split()) <= 15 else text


def read_personas(path: Path) -> tuple[str, ...]:
    """The personas of a file, each once, in its order.

    Args:
        path: A text with one persona a line, or JSON lines with a text or an object that holds `persona` or
            `description` (as Persona Hub's files do). Lines beyond the first `MOST_READ`, broken JSON, and objects
            without one of these are left out.

    Raises:
        DataError: The file cannot be read, or holds none.
    """
    try:
        with path.expanduser().open(encoding="utf-8-sig") as lines:
            found = dict.fromkeys(_phrase(_said(line)) for line in islice(lines, MOST_READ))
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"generation.personas: {path} cannot be read ({type(error).__name__}); give none, teacher, or a file with "
            "one persona a line"
        ) from None
    usable = tuple(persona for persona in found if words(persona))
    if not usable:
        raise DataError(
            f"generation.personas: {path} holds none; write one persona a line, or JSON lines with a field `persona`"
        )
    return usable


def _said(line: str) -> str:
    """What a line says of a person; "" where it is no text, nor JSON that holds one."""
    start = line.lstrip()[:1]
    if start not in ("{", "[", '"'):
        return line
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return line if start == '"' else ""  # a nickname in quotes may begin a text
    if isinstance(value, dict):
        value = next((value[name] for name in _FIELDS if isinstance(value.get(name), str)), "")
    return value if isinstance(value, str) else ""


def draw_persona(personas: Sequence[str], seed: int, index: int, label: str = "") -> str:
    """The persona of one request, or "" where there are none."""
    return Random(f"persona {label} {seed} {index}").choice(personas) if personas else ""
