"""A cut causal student's other teacher: the model that it was cut from, for the direction of its hidden states.

What enters: encoded rows. What leaves: the uncut model's last hidden state at each position that predicts a target,
once, in a file of float16 that is mapped into memory; the uncut model never runs while the student is trained.

With it the loss is DistilBERT's triple loss for decoders, per target token:

    (h·CE + s·divergence) / (h + s) + c·(1 − cos(uncut, student))

Source: Sanh et al., arXiv:1910.01108 §2 and §3 (initialisation from every other layer; soft, hard and cosine loss).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from potstill.train.causal_model import load_causal
from potstill.train.encode import batches_by_length
from potstill.train.options import DistilOptions
from potstill.train.output_head import head_of
from potstill.train.token_rows import IGNORED, TokenRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class UncutStates:
    """Last hidden states of the uncut model.

    Attributes:
        states: (target tokens, width) float16, row after row; a file mapped into memory.
        starts: (rows + 1,) int64; row i's states are `states[starts[i] : starts[i + 1]]`.
    """

    states: NDArray[np.float16]
    starts: NDArray[np.int64]

    def of_rows(self, rows: list[int]) -> torch.Tensor:
        """(target tokens of these rows, width) float32, in their order."""
        parts = [np.asarray(self.states[self.starts[i] : self.starts[i + 1]], dtype=np.float32) for i in rows]
        return torch.from_numpy(np.concatenate(parts))


def uncut_states(data: TokenRows, options: DistilOptions, file: Path) -> UncutStates:
    """Run the model that the student was cut from over the training rows.

    Args:
        data: Encoded rows.
        options: Resolved options; `student` names the model.
        file: Where the states are written; the caller deletes it.
    """
    whole = replace(
        options, student_layers=None, student_layer_ids=None, student_ffn=None, freeze_embeddings=False, qlora=False
    )
    tokenizer, model, _ = load_causal(whole)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    rows, labels = data.table["input_ids"], data.table["labels"]
    counts = [sum(token != IGNORED for token in row) for row in labels]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    states = np.memmap(
        file, dtype=np.float16, mode="w+", shape=(int(starts[-1]), int(model.config.get_text_config().hidden_size))
    )
    with torch.inference_mode():
        for batch in batches_by_length([len(row) for row in rows], _BATCH_TOKENS):
            inputs = tokenizer.pad({"input_ids": [rows[i] for i in batch]}, padding_side="right", return_tensors="pt")
            hidden = model.base_model(**inputs.to(model.device), use_cache=False).last_hidden_state
            for place, i in enumerate(batch):
                end = len(rows[i])
                part = hidden[place, end - counts[i] - 1 : end - 1]
                states[starts[i] : starts[i + 1]] = part.to(torch.float16).cpu().numpy()
    states.flush()
    return UncutStates(states, starts)


def direction_loss(hidden: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Σ weight · (1 − cos) over the target positions.

    Args:
        hidden: (n, d) float, the student's last hidden states.
        wanted: (n, d) float, the uncut model's.
        weights: (n,) float32.

    Returns:
        Scalar float32; the mean lies in [0, 2].
    """
    apart = 1 - torch.nn.functional.cosine_similarity(hidden.float(), wanted.float(), dim=-1)
    return (weights * apart).sum()


def start_figures(model: Any, data: TokenRows, tokenizer: Any, rows: int = 4) -> dict[str, float]:
    """Cross-entropy of an untrained student on its first rows, beside that of a uniform guess.

    Returns:
        `cross_entropy` and `uniform` (the log of the vocabulary's size), nats a target token.
    """
    chosen = data.table.select(range(min(rows, len(data.table))))
    total, count = 0.0, 0
    training = model.training
    model.eval()
    with torch.inference_mode():
        for ids, labels in zip(chosen["input_ids"], chosen["labels"], strict=True):
            wanted = torch.tensor(labels[1:], device=model.device)
            hidden = model.base_model(input_ids=torch.tensor([ids], device=model.device)).last_hidden_state[0, :-1]
            logits = head_of(model).logits(hidden[wanted != IGNORED])
            total += float(torch.nn.functional.cross_entropy(logits, wanted[wanted != IGNORED], reduction="sum"))
            count += len(logits)
    model.train(training)
    vocabulary = len(head_of(model))
    return {"cross_entropy": round(total / max(count, 1), 4), "uniform": round(float(np.log(vocabulary)), 4)}


def need_to_heal(figures: dict[str, float]) -> str:
    """What `start_figures` say of a cut student, for the user."""
    loss, uniform = figures["cross_entropy"], figures["uniform"]
    than = "worse" if loss > uniform else "better"
    return (
        f"the cut student starts at a loss of {loss:.2f} nats a token, {than} than a uniform guess ({uniform:.2f}): "
        "cut layers alone are no start for a decoder, it has to heal in training; give it many rows and epochs, or "
        "cut fewer layers"
    )
