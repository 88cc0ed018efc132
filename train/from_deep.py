"""A shallow classifier that starts from a deep one of the same kind, and learns three things from it.

What enters: the folder of a trained student, and the encoded rows. What leaves: its probabilities of every row, and
the hidden states, which the shallow student's are turned towards:

    loss = (h·CE(label) + s·T²·KL(deep‖shallow at T)) / (h + s) + c·Σ_layers mean_tokens (1 − cos(deep, shallow))

Each layer that was kept learns the states that stand at the same share of the deep student's depth, the last one its
last. Beside the rows may come copies of them with some tokens dropped, replaced or spliced (`altered_copies`): the deep
student says what they are, so they need no label, and a few hundred rows are many more texts to agree on.

The deep student never runs again while the shallow one is trained: its states rest in one file of float16, which is
mapped into memory, so that many rows cost disk and not memory.

Sources: Sanh et al., DistilBERT, arXiv:1910.01108 §2 and §3 (initialisation from every other layer; the triple loss,
there with masked language modelling as its hard part); Sun et al., arXiv:1908.09355 §3 (several layers); Jiao et al.,
TinyBERT, arXiv:1909.10351 §3.2 (augmented texts).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch

from potstill.errors import TrainingError
from potstill.task import TaskSpec
from potstill.train.encode import batches_by_length
from potstill.train.head_start import averages

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class DeepTargets:
    """What a deep student says of some rows.

    Attributes:
        probs: (n, labels) float32.
        states: (tokens, layers, width) float16, the rows' hidden states one after another; a file mapped into memory.
        ends: (n + 1,) int64, row i's states are `states[ends[i] : ends[i + 1]]`.
    """

    probs: NDArray[np.float32]
    states: NDArray[np.float16]
    ends: NDArray[np.int64]

    def of_row(self, index: int) -> NDArray[np.float16]:
        """(tokens, layers, width) states of one row."""
        return self.states[self.ends[index] : self.ends[index + 1]]


def altered_copies(
    rows: Sequence[Sequence[int]], special: Collection[int], copies: int, seed: int
) -> list[list[int]]:  # fmt: skip
    """Copies of encoded rows with one token in ten dropped, one in seven replaced, and three in ten ends exchanged.

    Args:
        rows: Token ids.
        special: Tokens that stay where they are; a row of nothing else is copied as it is.
        copies: How many of each row.
        seed: Of the changes.

    Returns:
        `copies * len(rows)` rows, each at most as long as the longest given.
    """
    random = Random(seed)
    plain = [[token for token in row if token not in special] for row in rows]
    every = [token for row in plain for token in row]
    longest = max((len(row) for row in plain), default=0)
    found: list[list[int]] = []
    for row, bare in zip([*rows] * copies, plain * copies, strict=True):
        changed = [
            random.choice(every) if random.random() < 1 / 7 else token for token in bare if random.random() >= 0.1
        ]
        if changed and random.random() < 0.3:
            other = random.choice(plain)
            changed = changed[: random.randint(1, len(changed))] + other[random.randint(0, len(other)) :]
        changed = (changed or bare)[:longest]
        start = next((i for i, token in enumerate(row) if token not in special), len(row))
        end = next((i for i, token in enumerate(reversed(row)) if token not in special), 0)
        found.append([*row[:start], *changed, *row[len(row) - end :]])
    return found


def matched_layers(depth: int, kept: int, *, averages: bool = False) -> list[int]:
    """For each of `kept` layers, the layer of a model of `depth` whose states it learns, counted from 1.

    The k-th of the kept learns what stands at the same share of the depth. A last layer that averages, on either side,
    is outside of this and learns its like.
    """
    own, count = depth - averages, kept - averages
    return [*(round((i + 1) * own / count) for i in range(count)), *range(own + 1, depth + 1)]


def deep_targets(
    deep: Path, spec: TaskSpec, rows: Sequence[Sequence[int]], file: Path, kept: int = 1
) -> DeepTargets:  # fmt: skip
    """Ask a deep student about encoded rows.

    Args:
        deep: Its folder.
        spec: The task, whose labels it must have.
        rows: Token ids, in order.
        file: Where the hidden states are written; the caller deletes it.
        kept: Layers of the shallow student, each of which learns states.

    Raises:
        DataError: There is no student at `deep`.
        TrainingError: It has other labels than the task.
    """
    from potstill.train.student import load_student

    student = load_student(deep)
    student.check_labels(spec)
    columns = [student.labels.index(name) for name in spec.label_names]
    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    width = int(student.model.config.hidden_size)
    matched = matched_layers(int(student.model.config.num_hidden_layers), kept, averages=averages(student.model))
    probs = np.zeros((len(rows), len(columns)), dtype=np.float32)
    states = np.memmap(file, dtype=np.float16, mode="w+", shape=(int(ends[-1]), len(matched), width))
    for batch in batches_by_length([len(row) for row in rows], _BATCH_TOKENS):
        inputs = student.padded([list(rows[i]) for i in batch])
        with torch.inference_mode():
            output = student.model(**inputs, output_hidden_states=True)
        hidden = torch.stack([output.hidden_states[i] for i in matched], 2).to(torch.float16).cpu().numpy()
        likely = output.logits.float().softmax(-1).cpu().numpy()
        for place, i in enumerate(batch):
            states[ends[i] : ends[i + 1]] = hidden[place, : len(rows[i])]
            probs[i] = likely[place, columns]
    return DeepTargets(probs, states, ends)


def direction_losses(states: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of 1 − cos over the tokens of each row, summed over layers.

    Args:
        states: (n, tokens, layers, width) float, the shallow student's hidden states.
        wanted: (n, tokens, layers, width) float, the deep student's.
        mask: (n, tokens), 1 for a token and 0 for padding.

    Returns:
        (n,) float32, in [0, 2 · layers].

    Raises:
        TrainingError: The two have other widths.
    """
    if states.shape != wanted.shape:
        raise TrainingError(
            f"the deep student's hidden states have width {wanted.shape[-1]} and the student's {states.shape[-1]}; "
            "both must come from one model, or set distil.hidden_weight=0"
        )
    apart = 1 - torch.nn.functional.cosine_similarity(states.float(), wanted.float(), dim=-1)
    apart = apart.sum(-1)
    used = mask.float()
    return (apart * used).sum(1) / used.sum(1).clamp(min=1.0)
