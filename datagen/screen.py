"""All filters in order, over one cleaned text: the gate that every written input passes."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.datagen import filters
from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.options import GenerationOptions
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.datagen.wording import readable
from potstill.rows import Dropped
from potstill.task import TaskSpec


class Screen:
    """What was kept and shown so far, and the filters that look at it.

    Args:
        spec: The task.
        options: Thresholds.
        shown: Texts of the user that prompts may show.
        styles: Retrieved texts that prompts may show.
    """

    def __init__(self, spec: TaskSpec, options: GenerationOptions, shown: Sequence[str], styles: Sequence[str]):
        self._spec = spec
        self._options = options
        self._names = sorted({*spec.label_names, *(readable(name) for name in spec.label_names)})
        self._shown = NoveltyFilter(options.novelty, texts=shown)
        self._styles = NoveltyFilter(options.novelty, texts=styles)
        self._kept = (
            RecentNovelty(options.novelty_pool, options.novelty)
            if options.novelty_pool
            else NoveltyFilter(options.novelty)
        )

    def refuse(self, text: str, prompt: str) -> Dropped | None:
        """The first reason against a text, or None; a text that passes is kept for later comparison."""
        options = self._options
        found = (
            filters.too_short(text, options.min_words)
            or filters.too_long(text, options.max_words)
            or filters.refusal(text)
            or filters.meta_talk(text)
            or filters.unfinished(text)
            or filters.label_leak(text, self._names)
            or filters.example_echo(text, self._shown)
            or filters.example_echo(text, self._styles, "retrieved_echo")
            or filters.prompt_echo(text, prompt)
            or filters.wrong_language(text, self._spec.languages)
            or filters.repetition(text)
            or filters.near_duplicate(text, self._kept)
        )
        if found is None:
            self._kept.add(text)
        return found
