"""A teacher that answers by a script, and what the tests of generation have it write for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take
from potstill.datagen.generate import GenerationOptions, GenerationResult, generate_rows
from potstill.task import Label, TaskSpec

NEWS = TaskSpec(
    "news",
    "Classify a news article by topic.",
    "classification",
    tuple(Label(name) for name in ("World", "Sports", "Business", "Sci/Tech")),
)
SUMMARY = TaskSpec("summary", "Summarise a paragraph in one sentence.", "generation", metric="rouge_l")

SUBJECTS = ("amber", "falcon", "garlic", "velvet", "tunnel", "rocket", "pepper", "mosaic", "lemon", "ivory", "walnut")


class ScriptedTeacher:
    """Replies with what a function of the request and its number says; remembers what it was asked."""

    concurrency = 8
    name = "scripted"
    identity: Mapping[str, str] = {"backend": "scripted"}

    def __init__(self, reply: Callable[[Request, int], Reply | Failure], abilities: Abilities | None = None):
        self._reply = reply
        self.abilities = abilities or Abilities()
        self.asked: list[Request] = []

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        while requests := take(self.concurrency):
            for request in requests:
                assert isinstance(request, Request)
                self.asked.append(request)
                yield request, self._reply(request, len(self.asked) - 1)

    def close(self) -> None:
        pass


def run(tmp_path: Path, spec: TaskSpec, teacher: Any, **options: Any) -> GenerationResult:
    """Rows of one call, with a ledger in the folder."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        return generate_rows(spec, Asker(teacher, ledger), GenerationOptions(**options))


def paragraphs(count: int) -> list[str]:
    """Paragraphs that are unlike each other."""
    return [
        f"{SUBJECTS[i % 11]} {SUBJECTS[(3 * i + i // 11 + 1) % 11]} report number {i} says what happened "
        f"on day {i * 7}. It rained {i} times."
        for i in range(count)
    ]
