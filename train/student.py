"""A trained student from its folder: a callable that answers texts.

The folder is a plain Hugging Face model folder (config.json, model.safetensors, tokenizer files), which
`AutoModelForSequenceClassification` or `AutoModelForCausalLM` loads with no code of ours. Beside it, potstill.json
says in plain JSON what the model was trained to do: kind, labels, instruction, lengths. A compressed student's weights
lie in the files of its format instead (`potstill.train.compress.files`); it answers through the same calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError, OptionError, TrainingError, UserError
from potstill.rows import stripped_text, whole_characters
from potstill.task import TaskSpec
from potstill.train.card import ONNX, StudentCard, read_card, weights_mib, write_card
from potstill.train.encode import encode_prompt, end_of_turn
from potstill.train.quiet import quiet_transformers
from potstill.whole_folders import written_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.decoding.greedy import Greedy

TRAINING = "training.json"


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        output: The label's name, or the text.
        probs: Probability of each label in the student's order; None for generation.
    """

    output: str
    probs: tuple[float, ...] | None = None


def publish(model: Any, tokenizer: Any, card: StudentCard, out: Path, training: dict[str, Any] | None = None) -> None:
    """Save model, tokenizer, card and what the training was (`training.json`), published by a rename."""
    with written_whole(out) as temporary:
        model.save_pretrained(temporary)
        _save_tokenizer(tokenizer, card, temporary)
        write_card(temporary, card)
        if training is not None:
            (temporary / TRAINING).write_text(json.dumps({"format": 1, **training}, indent=1) + "\n", "utf-8")


def _save_tokenizer(tokenizer: Any, card: StudentCard, folder: Path) -> None:
    """Save a tokenizer, of a classifier with the length that it was trained at as the one that plain libraries cut to.

    The base model's own tokenizer may say more than the model has places for, and then `truncation=True` in a pipeline
    cuts at another place than `Student.predict`, or not before the model falls over the text.
    """
    before = tokenizer.model_max_length
    if card.kind == "classification":
        tokenizer.model_max_length = card.max_length
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.model_max_length = before


def load_student(path: Path | str, *, device: str | None = None) -> Student:
    """Load a student that `distil_classifier`, `distil_causal` or the compression wrote.

    Args:
        path: Its folder.
        device: Torch device; None takes a GPU where there is one.

    Raises:
        DataError: No student there, weights that cannot be read, or other labels than the model answers with.
    """
    folder = Path(path)
    card = read_card(folder)
    try:
        if (folder / ONNX).exists():
            from potstill.train.onnx_model import OnnxClassifier, PlainTokenizer

            session = OnnxClassifier(folder / ONNX)
            _check_labels(card, session.answers, folder)
            return Student(session, _tried(PlainTokenizer(folder)), card, folder)
        from potstill.train.compress.files import load_model

        with quiet_transformers():
            model, tokenizer = load_model(folder, classifies=card.kind == "classification")
            _tried(tokenizer)
        if card.kind == "classification":
            _check_labels(card, int(model.config.num_labels), folder)
    except UserError:
        raise
    except BaseException as error:  # safetensors, tokenizers and transformers each raise their own kinds
        # A panic of tokenizers' Rust code is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"the student at {folder} cannot be loaded ({error}); train it again") from error
    import torch

    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return Student(model, tokenizer, card, folder)


def _check_labels(card: StudentCard, answers: int | None, folder: Path) -> None:
    """Refuse a card with more or fewer labels than the model has logits; `answers` None where the file does not say."""
    if answers is not None and answers != len(card.labels):
        raise DataError(
            f"the student at {folder} answers with {answers} labels and its card names {len(card.labels)} "
            f"({', '.join(card.labels[:8])}); train it again"
        )


def _tried(tokenizer: Any) -> Any:
    """The tokenizer, after its first text: some faults of its file show only then."""
    tokenizer(["a text"], truncation=True, max_length=8)
    return tokenizer


class Student:
    """A small model that does one task. `student("text")` answers one text, `predict` many."""

    def __init__(self, model: Any, tokenizer: Any, card: StudentCard, path: Path | None = None):
        self.model, self.tokenizer, self.card, self.path = model, tokenizer, card, path
        self._spec = TaskSpec(name=card.name, instruction=card.instruction, kind=card.kind)
        # Of the last batch size asked for: one batch holds up to 2 GiB.
        self._batch: tuple[int | None, Greedy | None] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of `Prediction.probs`; empty for generation."""
        return self.card.labels

    @property
    def size_mib(self) -> float:
        """Weights on disk; for a student that was never saved, its parameters in memory."""
        if self.path is not None:
            return weights_mib(self.path)
        return float(sum(p.numel() * p.element_size() for p in self.model.parameters())) / 2**20

    def __call__(self, text: str | Mapping[str, str] | None = None, /, **fields: str) -> str:
        """The answer to one text, or to one input of several fields: `student(premise="…", hypothesis="…")`.

        Raises:
            OptionError: Neither a text nor the fields that the student knows.
        """
        return self.predict([self.card.input_text(fields if text is None and fields else text)])[0].output

    def predict(
        self,
        texts: Iterable[str | Mapping[str, str]],
        *,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """Answer many texts, in their order. Batches hold texts of like length, for speed.

        Args:
            texts: Inputs: a list, a column of a table, an array. One of several fields is a mapping, or the text that
                its rows hold.
            batch_size: Texts a batch; None takes 64, and 32 where only the library's `generate` can write.
            progress: Called with the number of texts answered so far.

        Raises:
            OptionError: An input is neither a text nor a mapping of the student's fields.
            TrainingError: The model's probabilities are not finite.
        """
        if isinstance(texts, str | Mapping):
            raise OptionError("predict", ["predict takes a list of inputs; call the student itself with one"])
        plain = [whole_characters(text) if isinstance(text, str) else self.card.input_text(text) for text in texts]
        if not plain:
            return []
        if self.card.kind == "classification":
            encoded = self.tokenizer(plain, truncation=True, max_length=self.card.max_length)["input_ids"]
            answer, size = self._classify, batch_size or 64
        else:
            encoded = [self.prompt_ids(text) for text in plain]
            if (writer := self._writer(batch_size)) is not None:
                written = writer.answers(encoded, self.card.max_new_tokens, progress)
                return [Prediction(stripped_text(text)) for text in written]
            answer, size = self._generate, batch_size or 32
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        found: list[Prediction | None] = [None] * len(encoded)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            for i, prediction in zip(batch, answer([encoded[i] for i in batch]), strict=True):
                found[i] = prediction
            if progress is not None:
                progress(start + len(batch))
        return [prediction for prediction in found if prediction is not None]

    def prompt_ids(self, text: str) -> list[int]:
        """Tokens of what a generation student is told before it answers a text; the text is cut to leave room."""
        room = max(8, self.card.max_length - self.card.max_new_tokens)
        return encode_prompt(self.tokenizer, self._spec, text, room)

    def check_labels(self, spec: TaskSpec) -> None:
        """Refuse a task whose labels are not the student's.

        Raises:
            TrainingError: The two label sets differ.
        """
        if spec.kind == "classification" and set(spec.label_names) != set(self.labels):
            raise TrainingError(
                f"the student knows the labels {', '.join(self.labels)} and the task has "
                f"{', '.join(spec.label_names)}; the label set changed since it was trained: train again"
            )

    def in_order(self, spec: TaskSpec, probs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Columns of (n, labels) probabilities in the task's order of labels."""
        return probs[:, [self.labels.index(name) for name in spec.label_names]]

    def padded(self, rows: list[list[int]], side: str = "right") -> Any:
        """Token ids as a batch on the model's device: `input_ids` and `attention_mask`, padded on one side."""
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        import torch

        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[i, place], mask[i, place] = torch.tensor(row), 1
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}

    def _classify(self, rows: list[list[int]]) -> list[Prediction]:
        import numpy as np

        logits = self._logits(rows)
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        probs = shifted / shifted.sum(-1, keepdims=True)
        if not np.isfinite(probs).all():
            raise TrainingError(
                f"the student at {self.path} gives probabilities that are not finite; its weights are damaged: "
                "train it again, with a lower learning rate if it came straight from training"
            )
        return [Prediction(self.labels[int(row.argmax())], tuple(float(p) for p in row)) for row in probs]

    def _logits(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """(rows, labels) float32, from torch or from onnxruntime."""
        import numpy as np

        if not hasattr(self.model, "config"):
            pad = self.tokenizer.pad_token_id or 0
            width = max(map(len, rows))
            ids = np.array([row + [pad] * (width - len(row)) for row in rows], dtype=np.int64)
            mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=np.int64)
            found: NDArray[np.float32] = self.model.logits(ids, mask)
            return found
        import torch

        from potstill.train.first_token import reads_first_token

        with torch.inference_mode():
            answer = reads_first_token(self.model)(**self.padded(rows, "right"))
            return np.asarray(answer.logits.float().cpu().numpy())

    def _writer(self, slots: int | None) -> Greedy | None:
        """What answers are written with; None where only `generate` can."""
        from potstill.decoding.greedy import greedy_writer

        if self._batch is None or self._batch[0] != slots:
            self._batch = None  # leaves before the next one comes
            self._batch = slots, greedy_writer(self.model, self.tokenizer, slots or 64)
        return self._batch[1]

    def _generate(self, rows: list[list[int]]) -> list[Prediction]:
        import torch

        inputs = self.padded(rows, "left")
        end = end_of_turn(self.model, self.tokenizer)
        with torch.inference_mode():
            full = self.model.generate(
                **inputs, do_sample=False, temperature=None, top_p=None, top_k=None, use_cache=True,
                max_new_tokens=self.card.max_new_tokens, eos_token_id=end,
                pad_token_id=self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else end,
            )  # fmt: skip
        texts = self.tokenizer.batch_decode(full[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [Prediction(stripped_text(text)) for text in texts]
