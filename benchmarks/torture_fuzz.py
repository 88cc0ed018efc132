"""The suite `fuzz` of `torture.py`: made-up and mutated inputs for every parser of what strangers write."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PIECES = (
    "---\n", "labels:", "\n- ", ": ", "{", "}", "[", "]", '"', "'", "\\", "\x00", "\ud800", "\u202e", "\U0001f600", "é",
    "&a ", "*a", "!!python/object/apply:os.system ['x']", "<<: ", "{{ 7*7 }}", "{% raw %}", "../../etc/passwd", "NUL",
    "<script>", "](javascript:x)", "-1e999", "NaN", "1" * 40, " " * 20, "\t", "\r\n", "| a | b |\n|---|---|\n",
    "## Labels\n",
    "## Examples\n", "->", "=>", "Class label: x\n", "Input: ", "Output: ", "```json\n", "<|im_end|>", "1. ", "null",
    "true",
    "id", "features", "class_label", "splits", "choices", "message", "content", "finish_reason", "usage",
)  # fmt: skip


def _seeds() -> dict[str, list[str]]:
    """Sound inputs of each parser."""
    card = {"id": "a/b", "title": "T", "description": "words", "licence": "mit", "tags": ["language:en"],
            "configs": {"default": {"features": {"text": "string", "label": {"class_label": ["x", "y"]}},
                                    "splits": {"train": 9}}}}  # fmt: skip
    reply = {"choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
             "usage": {"prompt_tokens": 5, "completion_tokens": 4}}  # fmt: skip
    stored = {"text": "hello", "finish": "stop", "tokens": [1, 2], "scores": [-1.5], "score_tokens": [1]}
    readme = "---\nlicense: mit\nlanguage: [en]\ntags:\n- news\n---\n# News\nA set of texts.\n"
    return {
        "task file": [path.read_text("utf-8")[:1500] for path in sorted((ROOT / "examples").glob("**/*.md"))],
        "teacher's HTTP reply": [json.dumps(reply)],
        "teacher's text": ['{"texts": ["a", "b"]}', "1. A text.\n2. Another.", "premise: It rains.\nhypothesis: No.",
                           "Class label: a\nText one.", "Input: 3\nOutput: 4"],
        "card": [json.dumps(card), readme],
        "ledger row": [json.dumps(stored), '{"text": "hello", "finish": "length", "tokens": [0, 9], "attempts": 2}'],
    }  # fmt: skip


def mutants(seed: int, own: list[str]) -> Iterator[str]:
    """Texts without end: sound inputs with cuts, repeats, swaps and pieces put in; one in ten is pieces alone."""
    draw = random.Random(seed)
    others = [text for texts in _seeds().values() for text in texts]
    while True:
        chance = draw.random()
        text = draw.choice(own) if chance < 0.8 else draw.choice(others) if chance < 0.9 else ""
        for _ in range(draw.choice((1, 1, 2, 3, 5))):
            place = draw.randint(0, len(text))
            end = min(len(text), place + draw.randint(0, 30))
            kind = draw.random()
            if kind < 0.5:
                text = text[:place] + draw.choice(_PIECES) * draw.choice((1, 1, 1, 2, 9)) + text[place:]
            elif kind < 0.7:
                text = text[:place] + text[end:]
            elif kind < 0.8:
                text = text[:place]
            elif kind < 0.9:
                text = text[:place] + text[place:end] * draw.randint(2, 5) + text[end:]
            else:
                text = text[:place] + chr(draw.choice((draw.randint(0, 255), draw.randint(256, 0xFFFF)))) + text[end:]
        yield text[:4000]


def parsers(place: Path) -> dict[str, tuple[Callable[[str], Any], tuple[type[Exception], ...]]]:
    """Every parser of what others write, with the errors that it may end with."""
    import zstandard

    from potstill.asking.ledger import _blob, _unblob
    from potstill.asking.teacher import Message, Request
    from potstill.asking.teacher_json import reply_from_json
    from potstill.datagen import parse, self_instruct_text
    from potstill.datagen.teachers.openai_wire import Fault, Secrets, chat_reply, parse_body
    from potstill.errors import PotstillError
    from potstill.retrieval.cards import CardFault, card_from_mapping, card_summary, front_matter, plain_prose
    from potstill.task.file import read_task_file

    file = place / "fuzz.md"
    secrets = Secrets(())
    request = Request((Message("user", "x"),))

    def task(text: str) -> None:
        file.write_text(text, "utf-8", "surrogatepass")
        read_task_file(file, draft=True)

    def reply(text: str) -> None:
        chat_reply(parse_body("application/json", text.encode("utf-8", "surrogatepass"), secrets), request, "openai")

    def texts(text: str) -> None:
        parse.clean_text(text)
        assert len(parse.split_list(text, 4)) <= 4
        parse.read_fields(text, ["premise", "hypothesis"])
        parse.strings_in(parse.read_json(text), "texts")
        self_instruct_text.split_instructions(text, 4, True)
        self_instruct_text.read_instances(text, True, True)

    def card(text: str) -> None:
        front_matter(text, "a/b")
        card_summary(text)
        plain_prose(text)
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(text)
            found = card_from_mapping(value)
            assert found is None or (".." not in found.id and not found.id.startswith("/") and "\0" not in found.id)

    def row(text: str) -> None:
        data = bytearray(_blob({"text": text}))
        assert _unblob(bytes(data)) == {"text": text}
        data[hash(text) % len(data)] ^= 1 << len(text) % 8
        with contextlib.suppress(zstandard.ZstdError, ValueError):
            _unblob(bytes(data))
        with contextlib.suppress(RecursionError):
            value = json.loads(text)
            if isinstance(value, dict):
                reply_from_json(value)

    return {
        "task file": (task, (PotstillError,)),
        "teacher's HTTP reply": (reply, (Fault,)),
        "teacher's text": (texts, ()),
        "card": (card, (CardFault,)),
        "ledger row": (row, (ValueError, PotstillError)),
    }


def fuzz(inputs: int, place: Path, seed: int = 0) -> list[dict[str, Any]]:
    """The same number of inputs for each parser; a crash, a wait over five seconds or a file elsewhere is wrong."""
    records = []
    found = parsers(place)
    for number, (name, (parser, may)) in enumerate(found.items()):
        source, slowest, bad = mutants(seed + number, _seeds().get(name, ["a"])), 0.0, Counter[str]()
        count = inputs // len(found)
        ran = Counter[str]()
        before = sorted(os.listdir(place))
        started = time.monotonic()
        for _ in range(count):
            text = next(source)
            began = time.perf_counter()
            try:
                parser(text)
                ran["read"] += 1
            except may:
                ran["refused"] += 1
            except Exception as error:
                bad[f"{type(error).__name__}: {error!s:.80}"] += 1
                (place / "crashes").mkdir(exist_ok=True)
                (place / "crashes" / f"{name} {len(bad)}.txt").write_text(text, "utf-8", "surrogatepass")
            slowest = max(slowest, time.perf_counter() - began)
        elsewhere = set(os.listdir(place)) - set(before) - {"fuzz.md", "crashes"}
        wrong = sum(bad.values()) + len(elsewhere) + (slowest > 5)
        records.append(
            {"suite": "fuzz", "what": name, "count": count, "bad": wrong, "read": ran["read"],
             "refused": ran["refused"], "slowest_ms": round(1000 * slowest, 1),
             "seconds": round(time.monotonic() - started, 1),
             "which": [f"{text} ({times})" for text, times in bad.most_common(4)] or None}
        )  # fmt: skip
    return records
