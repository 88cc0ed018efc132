"""All filters in order, over one cleaned text: the gate that every written input passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from potstill.datagen import filters
from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.options import GenerationOptions
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.datagen.wording import readable
from potstill.label_words import label_words
from potstill.rows import Dropped
from potstill.task import TaskSpec

_FaultOf = Callable[[str], Dropped | None]


class Screen:
    """What was kept and shown so far, and the filters that look at it.

    What an example of the user's own is as well, a single word or a text that ends with a colon, is right for the task:
    the filters of a text's form that would refuse one of them are left out.

    Args:
        spec: The task.
        options: Thresholds.
        shown: Texts of the user that prompts may show.
        styles: Retrieved texts that prompts may show.
    """

    def __init__(self, spec: TaskSpec, options: GenerationOptions, shown: Sequence[str], styles: Sequence[str]):
        self._spec = spec
        self._options = options
        words = label_words(spec).values()
        self._names = sorted({*spec.label_names, *(readable(name) for name in spec.label_names), *words})
        self._shown = NoveltyFilter(options.novelty, texts=shown)
        self._styles = NoveltyFilter(options.novelty, texts=styles)
        self._kept = (
            RecentNovelty(options.novelty_pool, options.novelty)
            if options.novelty_pool
            else NoveltyFilter(options.novelty)
        )
        self._first = self._fitting(
            shown,
            lambda text: filters.too_short(text, options.min_words),
            lambda text: filters.too_long(text, options.max_words),
            filters.refusal,
            filters.meta_talk,
            filters.unfinished,
        )
        self._last = self._fitting(shown, lambda text: filters.wrong_language(text, spec.languages), filters.repetition)

    def _fitting(self, shown: Sequence[str], *faults: _FaultOf) -> list[_FaultOf]:
        return [fault_of for fault_of in faults if not any(fault_of(text) for text in shown)]

    def refuse(self, text: str, prompt: str) -> Dropped | None:
        """The first reason against a text, or None; a text that passes is kept for later comparison."""
        found = (
            (None if text.strip() else Dropped("empty", "nothing was written", text, stage=filters.STAGE))
            or next((fault for fault_of in self._first if (fault := fault_of(text))), None)
            or filters.label_leak(text, self._names)
            or filters.example_echo(text, self._shown)
            or filters.example_echo(text, self._styles, "retrieved_echo")
            or filters.prompt_echo(text, prompt)
            or next((fault for fault_of in self._last if (fault := fault_of(text))), None)
            or filters.near_duplicate(text, self._kept)
        )
        if found is None:
            self._kept.add(text)
        return found
