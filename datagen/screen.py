"""All filters in order, over one cleaned text: the gate that every written input passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from potstill.datagen import filters
from potstill.datagen.long_kinds import may_be_a_word
from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.options import GenerationOptions
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.datagen.wording import input_noun, readable
from potstill.errors import TeacherError
from potstill.language.label_words import label_words
from potstill.language.names import LANGUAGES
from potstill.rows import Dropped, split_fields
from potstill.task import TaskSpec

# Texts in one other language, and none in the task's, before more are not paid for.
_FOREIGN = 24
_FaultOf = Callable[[str], Dropped | None]


def held_languages(spec: TaskSpec, opened: bool) -> tuple[str, ...]:
    """The languages that written texts have to be in; none where nobody named one and it was only assumed.

    A small teacher knows English, and what it writes in another language is a slip: it is held to it all the same.

    Args:
        spec: The task.
        opened: Whether replies are opened for the teacher, as for a small one.
    """
    assumed = any(item.field == "languages" and item.how == "assumption" for item in spec.inferred)
    return () if assumed and not opened else spec.languages


class Screen:
    """What was kept and shown so far, and the filters that look at it.

    What an example of the user's own is as well, a single word or a text that ends with a colon, is right for the task:
    the filters of a text's form that would refuse one of them are left out.

    Args:
        spec: The task.
        options: Thresholds.
        shown: Texts of the user that prompts may show.
        styles: Retrieved texts that prompts may show.
        opened: Whether replies are opened for the teacher (`held_languages`).
    """

    def __init__(
        self,
        spec: TaskSpec,
        options: GenerationOptions,
        shown: Sequence[str],
        styles: Sequence[str],
        *,
        opened: bool = True,
    ):
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
        least = min(options.min_words, 1) if may_be_a_word(input_noun(spec)) else options.min_words
        self._first = self._fitting(
            shown,
            lambda text: filters.too_short(text, least),
            lambda text: filters.too_long(text, options.max_words),
            filters.refusal,
            filters.meta_talk,
            filters.unfinished,
        )
        languages = held_languages(spec, opened)
        self._last = self._fitting(shown, lambda text: filters.wrong_language(text, languages), self._loop)
        self._passed, self._foreign, self._opened = 0, Counter[str](), opened

    def _fitting(self, shown: Sequence[str], *faults: _FaultOf) -> list[_FaultOf]:
        return [fault_of for fault_of in faults if not any(fault_of(text) for text in shown)]

    def _loop(self, text: str) -> Dropped | None:
        """A loop in a text, or in one of its fields: two fields may say nearly the same."""
        fields = split_fields(text, self._spec.inputs) if len(self._spec.inputs) > 1 else None
        found = next(filter(None, map(filters.repetition, fields or (text,))), None)
        return found and replace(found, input=text[:2000])

    def know(self, texts: Iterable[str]) -> None:
        """Take texts for kept ones: what is nearly one of them is refused."""
        for text in texts:
            self._kept.add(text)

    def refuse(self, text: str, prompt: str) -> Dropped | None:
        """The first reason against a text, or None; a text that passes is kept for later comparison.

        Raises:
            TeacherError: No text passed so far, and two dozen are in one language that is none of the task's.
        """
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
            self._passed += 1
            self._kept.add(text)
        elif found.reason == "wrong_language" and not self._passed and not self._opened:
            self._note_foreign(found.detail.partition(",")[0])
        return found

    def _note_foreign(self, code: str) -> None:
        """Count a text in another language; where all are, the rest would only be paid for."""
        self._foreign[code] += 1
        if self._foreign[code] < _FOREIGN or code not in LANGUAGES:
            return
        name, own = LANGUAGES[code], ", ".join(self._spec.languages)
        raise TeacherError(
            f"the first {_FOREIGN} inputs that the teacher wrote are all in {name} ({code}), not in "
            f"{own}; if {name} is right, say so in a task file with languages: [{code}], else say in the "
            "prompt which language the inputs are in"
        )
