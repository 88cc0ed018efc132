"""How good a student still is: the task's own score, agreement with the original, perplexity on held-out text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from potstill.events import Listener
from potstill.rows import sample_rows
from potstill.run_dir import digest
from potstill.train.compress.measure import read_text
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.state import Compressed
from potstill.train.compress.texts import calibration

if TYPE_CHECKING:
    from potstill.train.compress.run import Material

_PROBE_TEXTS = 200
# What an examination says of a student.
EXAMINED = ("score", "ci", "agreement", "perplexity", "token_agreement")


class Examiner:
    """Measures students on the same rows and texts, and compares them with the original's answers."""

    def __init__(self, original: Compressed, material: Material, options: CompressOptions, listener: Listener):
        self.spec, self.listener, self.kind = material.spec, listener, original.kind
        test = material.test if material.test is not None and material.test.num_rows else None
        test = None if test is None else sample_rows(test, options.rows, options.seed)
        self.test = test if original.card is not None and self.spec is not None else None
        self.metric = self.spec.metric if self.spec is not None and self.test is not None else None
        self.rows = 0 if self.test is None else self.test.num_rows
        self.text = None
        if self.kind == "causal" and options.text_tokens:
            answers = None
            texts = material.held_out
            if not texts and self.test is not None:
                texts, answers = tuple(self.test["input"]), tuple(self.test["output"])
            if texts:
                self.text = calibration(original, texts, answers, tokens=options.text_tokens, length=options.window)
        self.text_tokens = 0 if self.text is None else self.text.tokens
        given = tuple(self.test["input"]) if self.test is not None else material.held_out or material.texts
        self.probe_texts = [text[:2000] for text in given[:_PROBE_TEXTS]]
        asked = [options.rows, options.seed, options.window, options.speed, options.threads, self.text_tokens]
        self.key = digest([material.measured_on, self.probe_texts, asked])[:12]
        self.outputs: list[str] | None = None
        self.tokens: list[int] | None = None

    def remember_original(self, entry: dict[str, Any]) -> None:
        """Keep the original's answers to compare with, out of its entry."""
        self.outputs, self.tokens = entry.pop("outputs", None), entry.pop("tokens", None)

    def examine(self, state: Compressed) -> dict[str, Any]:
        """Score, perplexity and agreement of a student in memory. The first one is the original."""
        from potstill.train.student import Student

        found: dict[str, Any] = {}
        if self.test is not None:
            found |= self._score(Student(state.model.eval(), state.tokenizer, state.card))  # type: ignore[arg-type]
        if self.text is not None:
            perplexity, tokens = read_text(state.model, self.text)
            found["perplexity"] = round(perplexity, 5)
            if self.tokens is None:
                found["tokens"] = tokens.tolist()
            else:
                same = tokens == torch.tensor(self.tokens, dtype=torch.int32)
                found["token_agreement"] = round(float(same.float().mean()), 5)
        return found

    def examine_files(self, folder: Path, form: str, state: Compressed, before: dict[str, Any]) -> dict[str, Any]:
        """Score and perplexity of stored files, as they load.

        Args:
            folder: The files.
            form: Their format.
            state: What they were written from.
            before: Entry of the last step, whose figures are those of files that hold its values exactly.
        """
        from potstill.train.student import load_student

        exact = state.dtype == torch.float32 and (form == "packed" or (form == "plain" and state.activations is None))
        if exact:
            return {name: before[name] for name in EXAMINED if name in before}
        if self.test is not None:
            found = self._score(load_student(folder))
        else:
            found = {}
        if self.text is not None:
            from potstill.train.compress.files import load_model

            model, _ = load_model(folder)
            perplexity, tokens = read_text(model, self.text)
            found["perplexity"] = round(perplexity, 5)
            if self.tokens is not None:
                same = tokens == torch.tensor(self.tokens, dtype=torch.int32)
                found["token_agreement"] = round(float(same.float().mean()), 5)
        return found

    def _score(self, student: Any) -> dict[str, Any]:
        from potstill.train.evaluate import evaluate_student

        assert self.spec is not None
        assert self.test is not None
        scored = evaluate_student(student, self.spec, self.test, latency_rows=0, listener=self.listener)
        metric = scored.scores.metric
        found: dict[str, Any] = {"score": round(scored.scores.value, 5)}
        found["ci"] = [round(end, 5) for end in scored.scores.ci[metric]]
        if self.outputs is None:
            found["outputs"] = list(scored.outputs)
        else:
            same = [a == b for a, b in zip(scored.outputs, self.outputs, strict=True)]
            found["agreement"] = round(sum(same) / len(same), 5)
        return found
