"""A head that knows the labels before the first step: fitted on frozen features, joined with the labels' names.

A head that starts at random learns from noisy rows before it knows the labels, and takes the encoder with it. Here the
student knows the labels before its first step:

    logits(x) = W·f(x) + b  +  (s·cos(f(x), f(name of y)) − o_y) / 2

W and b are a softmax regression on the rows' own targets (h·label + s·teacher, as in the loss), drawn towards 0; the
second part is nearness to the labels' names, with the offsets o under which the labels are equally common over the
rows. Both are linear in f, so their sum is the head. A label without rows is known by its name.

f is the mean over a text's tokens, which sentence encoders are made for, while a BERT head reads the first token. So
one more BERT layer averages: queries and keys are next to 0, so that each token attends to all alike; values are
copied, times a scale beside which the residual hardly counts; the feed-forward part is next to 0. It and the pooler
(0.1·I: its tanh is nearly a straight line) are an ordinary layer and pooler, so plain transformers loads the student.

Sources: Reimers & Gurevych, arXiv:1908.10084 §3 (mean pooling); Kumar et al., arXiv:2202.10054 (the head first, then
all weights); Chang et al., AAAI 2008 (labels by nearness to their names).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from potstill.language.label_vectors import near_vectors
from potstill.language.label_words import OTHER, described_words, label_words
from potstill.task import TaskSpec
from potstill.task.regression import balanced_offsets, softmax_regression
from potstill.train.encode import batches_by_length
from potstill.train.options import DistilOptions
from potstill.train.rows_check import LabelTargets

_AVERAGES = "last_layer_averages"  # a key of config.json that transformers keeps and does not read
_VALUE_SCALE = 50.0
_POOLER_SCALE = 0.1
_NOISE = 1e-3
_BATCH_TOKENS = 8192
# Cosines of short texts differ by hundredths; a difference of 0.05 is a factor of e.
_NAMES_SCALE = 20.0
_NAMES_SHARE = 0.5
_L2 = 3e-3
# Where the held-out rows flatter training, it is taken only if it would be so much better by chance this rarely.
CHANCE = 0.05


@dataclass
class Start:
    """A fitted head before the first step.

    Attributes:
        loss: On the held-out rows.
        score: On the held-out rows.
        right: (n,) bool, which of them it answers as they are labelled.
        weights: Those that training changes.
        kept: Whether they stayed.
        chance: Of the held-out rows that one of start and training has right, how probable it is that training (where
            most are texts that nobody labelled, the start) has so many of them by chance (the exact form of McNemar's
            test, one-sided); None where it was not asked.
    """

    loss: float
    score: float
    right: NDArray[np.bool_]
    weights: dict[str, torch.Tensor]
    kept: bool = False
    chance: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON types, for the report."""
        told = {"loss": self.loss, "score": self.score, "kept": self.kept}
        return told if self.chance is None else {**told, "chance": round(self.chance, 4)}


def can_start(model: Any) -> bool:
    """Whether a classifier reads its head from BERT's pooler, so that the layer that averages can be put before it."""
    bert = getattr(model, "bert", None)
    return (
        getattr(model.config, "model_type", "") == "bert"
        and getattr(bert, "pooler", None) is not None
        and isinstance(getattr(model, "classifier", None), nn.Linear)
    )


def averages(model: Any) -> bool:
    """Whether a model's last layer is one that `add_averaging_layer` put there."""
    return bool(getattr(model.config, _AVERAGES, False))


def add_averaging_layer(model: Any) -> None:
    """Put a layer behind a BERT classifier's others, in place, so that its pooler reads the mean over the tokens.

    Afterwards the head's input is tanh(0.1·LayerNorm(mean of the last states)). The layer's weights are frozen, the
    pooler's are not. What should be 0 is noise too small to be seen in the outcome: sparsity counts zeros, and a layer
    full of them would pass for a pruned one.
    """
    draw = torch.Generator().manual_seed(0)
    layers = model.bert.encoder.layer
    layer = copy.deepcopy(layers[-1])
    with torch.no_grad():
        for name, weights in layer.named_parameters():
            if name.endswith("LayerNorm.weight"):
                weights.fill_(1.0)
            else:
                weights.copy_(torch.randn(weights.shape, generator=draw) * (_NOISE if weights.ndim == 2 else 0.0))
        layer.attention.self.value.weight += _VALUE_SCALE * torch.eye(len(layer.attention.self.value.weight))
        layer.attention.output.dense.weight += torch.eye(len(layer.attention.output.dense.weight))
        nn.init.eye_(model.bert.pooler.dense.weight).mul_(_POOLER_SCALE)
        model.bert.pooler.dense.bias.zero_()
    for module in layer.modules():
        if getattr(module, "layer_idx", None) is not None:
            module.layer_idx = len(layers)
    layer.requires_grad_(False)
    layers.append(layer)
    model.config.num_hidden_layers = len(layers)
    setattr(model.config, _AVERAGES, True)


def start_head(
    model: Any, tokenizer: Any, spec: TaskSpec, rows: Sequence[Sequence[int]], targets: LabelTargets,
    options: DistilOptions,
) -> None:  # fmt: skip
    """Give a BERT classifier a layer that averages and a head that knows the labels, in place.

    Args:
        model: A classifier for which `can_start`.
        tokenizer: Its tokenizer.
        spec: The task, whose label names and descriptions are read.
        rows: Token ids of the training rows.
        targets: Their targets, in order.
        options: Resolved options.
    """
    add_averaging_layer(model)
    told = tokenizer(said_of_labels(spec), truncation=True, max_length=options.max_length)["input_ids"]
    found = features(model, [*rows, *told])
    texts, labels = found[: len(rows)], found[len(rows) :]
    labels = _unit(_unit(labels[: len(labels) // 2]) + _unit(labels[len(labels) // 2 :]))
    labels = near_vectors(spec, labels[:-1], labels[-1])
    length = float(np.linalg.norm(texts, axis=1).mean())
    weights, biases = fit_regression(texts, *_mixed(targets, options), l2=_L2 * length**2)
    nearness = _NAMES_SCALE / length * labels
    # Rows weigh unlike because of their labels, which nearness knows nothing of.
    offsets = balanced_offsets(texts @ nearness.T)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weights + _NAMES_SHARE * nearness))
        model.classifier.bias.copy_(torch.from_numpy(biases - _NAMES_SHARE * offsets))


def said_of_labels(spec: TaskSpec) -> list[str]:
    """What a head starts from beside the rows: each label's name and `OTHER`, then names with descriptions and `OTHER`.

    A description says more than a name, but its length says something of its own: both together do best.
    """
    return [*label_words(spec).values(), OTHER, *described_words(spec), OTHER]


def features(model: Any, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """(rows, width) what the head of a BERT classifier reads, without dropout; on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    was, training = model.device, model.training
    model.to(device).eval()
    found = np.zeros((len(rows), int(model.config.hidden_size)))
    for batch in batches_by_length([len(row) for row in rows], _BATCH_TOKENS):
        ids = [torch.tensor(rows[i]) for i in batch]
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        lengths = torch.tensor([len(row) for row in ids])
        mask = (torch.arange(padded.shape[1])[None] < lengths[:, None]).long()
        with torch.inference_mode():
            pooled = model.bert(input_ids=padded.to(device), attention_mask=mask.to(device)).pooler_output
        found[list(batch)] = pooled.double().cpu().numpy()
    model.to(was).train(training)
    return found


def fit_regression(
    inputs: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.float64], *, l2: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Softmax regression by L-BFGS: weighted mean cross-entropy + l2·|W|²/2; biases are free.

    Args:
        inputs: (n, width).
        wanted: (n, labels) distributions.
        weights: (n,) of the rows, not all 0.
        l2: Of the weights.

    Returns:
        (labels, width) weights and (labels,) biases; 0 for a label that is the likeliest of no row.
    """
    # A label that no row is likeliest to have would only learn to be absent.
    met = np.unique(wanted[weights > 0].argmax(1))
    known = wanted[:, met]
    known = known / np.maximum(known.sum(1, keepdims=True), 1e-12)
    matrix, biases = softmax_regression(inputs, known, weights, ridge=l2)
    rows, constants = np.zeros((wanted.shape[1], inputs.shape[1])), np.zeros(wanted.shape[1])
    rows[met], constants[met] = matrix, biases
    return rows, constants


def _mixed(targets: LabelTargets, options: DistilOptions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One distribution a row, (h·label + s·teacher) over the weights that the row has, and the rows' weights."""
    hard = options.hard_weight * (targets.labels >= 0)
    soft = options.soft_weight * targets.has_probs
    wanted = soft[:, None] * targets.probs.astype(np.float64)
    known = np.flatnonzero(targets.labels >= 0)
    wanted[known, targets.labels[known]] += hard[known]
    weights = targets.weights.astype(np.float64)
    if targets.shares is not None:
        weights = weights * targets.shares
    return wanted / np.maximum(hard + soft, 1e-12)[:, None], weights


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def by_chance(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    """How probable it is that at least so many changed answers became right, were each as likely to become wrong.

    Args:
        before: (n,) which answers were right.
        after: (n,) which are.

    Examples:
        >>> by_chance(np.array([True, False, False, False]), np.array([True, True, True, True]))
        0.125
        >>> by_chance(np.array([True, False]), np.array([True, False]))
        1.0
    """
    better, worse = int((after & ~before).sum()), int((before & ~after).sum())
    changed = better + worse
    return float(sum(comb(changed, many) for many in range(better, changed + 1)) / 2**changed)
