"""The losses against dense references written out in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.train.head_loss import TokenTargets, target_loss
from potstill.train.losses import hard_cross_entropy, label_divergence, topk_divergence

KINDS = ["forward_kl", "reverse_kl", "jsd"]
cases = st.tuples(
    st.integers(0, 10_000),  # seed
    st.integers(1, 12),  # rows
    st.integers(3, 60),  # vocabulary
    st.integers(1, 20),  # k
    st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    st.sampled_from(KINDS),
    st.sampled_from([0.1, 0.5, 0.9]),
)


def kl(p, q):
    return np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - np.log(q)), 0).sum(-1)


def dense(teacher, student, kind, beta):
    """The three divergences from their definitions."""
    if kind == "forward_kl":
        return kl(teacher, student)
    if kind == "reverse_kl":
        return kl(student, teacher)
    mixture = beta * teacher + (1 - beta) * student
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


def soften(logits, temperature):
    scaled = logits / temperature
    exps = np.exp(scaled - scaled.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def buckets(probs, top):
    picked = np.take_along_axis(probs, top, 1)
    rest = probs.copy()
    np.put_along_axis(rest, top, 0, 1)
    return np.concatenate([picked, rest.sum(1, keepdims=True)], 1)


def make(seed, rows, vocabulary, k, temperature):
    random = np.random.default_rng(seed)
    teacher = random.normal(size=(rows, vocabulary)) * 2
    student = random.normal(size=(rows, vocabulary)) * 2
    k = min(k, vocabulary - 1)
    top = np.argsort(-teacher, 1)[:, :k]
    logprobs = np.log(soften(teacher, 1.0))
    rest = logprobs / temperature
    np.put_along_axis(rest, top, -np.inf, 1)
    tail = np.log(np.exp(rest).sum(1))
    return teacher, student, top, np.take_along_axis(logprobs, top, 1), tail


def as_targets(labels, hard, soft, top, top_logprobs, tail):
    return TokenTargets(
        torch.as_tensor(labels), torch.as_tensor(hard).float(), torch.as_tensor(soft).float(), torch.as_tensor(top),
        torch.as_tensor(top_logprobs).float(), torch.as_tensor(tail).float(),
    )  # fmt: skip


@given(cases)
@settings(max_examples=60, deadline=None)
def test_label_divergence_equals_its_definition(case):
    seed, rows, vocabulary, _, temperature, kind, beta = case
    teacher, student, *_ = make(seed, rows, vocabulary, 1, temperature)
    expected = temperature**2 * dense(soften(teacher, temperature), soften(student, temperature), kind, beta)
    found = label_divergence(torch.tensor(student), torch.tensor(soften(teacher, 1.0)), temperature, kind, beta).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5 * temperature**2)


def test_impossible_labels_keep_losses_and_gradients_finite():
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    probs = torch.tensor([[0.25, 0.75, 0.0]])
    for kind in KINDS:
        logits.grad = None
        loss = label_divergence(logits, probs, 2.0, kind).sum()
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()
    # A student that gives such a label nothing is right.
    near = torch.tensor([[0.25, 0.75, 1e-12]]).log()
    assert float(label_divergence(near, probs, 1.0, "reverse_kl")[0]) < 1e-6
    assert float(label_divergence(torch.log(torch.tensor([[0.25, 0.75]])), probs[:, :2], 1.0)[0].detach()) < 1e-6


@given(cases)
@settings(max_examples=60, deadline=None)
def test_topk_divergence_equals_the_dense_buckets(case):
    seed, rows, vocabulary, k, temperature, kind, beta = case
    teacher, student, top, top_logprobs, tail = make(seed, rows, vocabulary, k, temperature)
    expected = temperature**2 * dense(
        buckets(soften(teacher, temperature), top), buckets(soften(student, temperature), top), kind, beta
    )
    found = topk_divergence(
        torch.tensor(student),
        torch.tensor(top),
        torch.tensor(top_logprobs),
        torch.tensor(tail),
        temperature,
        kind,
        beta,
    ).numpy()
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=1e-5 * temperature**2)


def test_topk_of_the_whole_vocabulary_is_the_full_kl():
    teacher, student, top, top_logprobs, tail = make(1, 8, 30, 29, 1.0)
    full = kl(soften(teacher, 1.0), soften(student, 1.0))
    found = topk_divergence(
        torch.tensor(student), torch.tensor(top), torch.tensor(top_logprobs), torch.tensor(tail)
    ).numpy()
    np.testing.assert_allclose(found, full, rtol=1e-5)


@given(cases, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_target_loss_and_its_gradients_equal_autograd(case, chunk):
    seed, rows, vocabulary, k, temperature, kind, beta = case
    _, _, top, top_logprobs, tail = make(seed, rows, vocabulary, k, temperature)
    torch.manual_seed(seed)
    hidden = torch.randn(rows, 5, requires_grad=True)
    weight = torch.randn(vocabulary, 5, requires_grad=True)
    labels = torch.randint(0, vocabulary, (rows,))
    hard, soft = torch.rand(rows), torch.rand(rows)
    # A row without stored targets holds its own label and nothing else; some rows have fewer places than k.
    soft[0] = 0
    top[0], top_logprobs[0, 1:], top_logprobs[0, 0] = int(labels[0]), -np.inf, 0.0
    targets = as_targets(labels, hard, soft, top, top_logprobs, tail)
    loss, hard_sum, soft_sum = target_loss(
        hidden, weight, targets, temperature=temperature, kind=kind, beta=beta, chunk=chunk
    )
    (3 * loss).backward()
    ours = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    logits = hidden @ weight.T
    per_row = topk_divergence(logits, targets.top_ids, targets.top_logprobs, targets.tail, temperature, kind, beta)
    reference_soft = (soft * per_row)[1:].sum()
    reference_hard = (hard * hard_cross_entropy(logits, labels)).sum()
    (3 * (reference_hard + reference_soft)).backward()
    torch.testing.assert_close(loss.detach(), (reference_hard + reference_soft).detach(), rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(hard_sum + soft_sum, loss.detach(), rtol=1e-5, atol=1e-5)
    scale = 1 + float(hidden.grad.abs().max())
    torch.testing.assert_close(ours[0], hidden.grad, rtol=1e-4, atol=2e-5 * scale)
    torch.testing.assert_close(ours[1], weight.grad, rtol=1e-4, atol=2e-5 * (1 + float(weight.grad.abs().max())))


def test_unused_places_change_nothing():
    _, _, top, top_logprobs, tail = make(3, 6, 20, 4, 1.0)
    hidden, weight = torch.randn(6, 5), torch.randn(20, 5)
    labels, ones = torch.randint(0, 20, (6,)), torch.ones(6)
    padded_top = np.concatenate([top, top[:, :1], np.zeros_like(top[:, :1])], 1)
    padded_logprobs = np.concatenate([top_logprobs, np.full((6, 2), -np.inf)], 1)
    for kind in KINDS:
        plain, *_ = target_loss(hidden, weight, as_targets(labels, ones, ones, top, top_logprobs, tail), kind=kind)
        padded, *_ = target_loss(
            hidden, weight, as_targets(labels, ones, ones, padded_top, padded_logprobs, tail), kind=kind
        )
        torch.testing.assert_close(plain, padded)


def test_a_confident_student_keeps_digits_in_the_tail():
    # 1 − Σ top would be 0 in float32 here; summed over the tail itself it is e−28.
    weight = torch.eye(4) * 30
    hidden = torch.tensor([[1.0, 0, 0, 0]])
    targets = as_targets([0], [0.0], [1.0], [[0]], [[-0.1]], [np.log1p(-np.exp(-0.1))])
    loss, *_ = target_loss(hidden, weight, targets)
    q = np.array([np.exp(-0.1), 1 - np.exp(-0.1)])
    tail = np.log(3 / (np.exp(30) + 3))
    expected = (q * (np.log(q) - np.array([0.0, tail]))).sum()
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_misuse_is_named():
    hidden, weight = torch.randn(2, 3), torch.randn(5, 3)
    targets = as_targets([0], [1.0], [1.0], [[0]], [[-0.1]], [-2.0])
    with pytest.raises(ValueError, match="2 positions, 1 labels"):
        target_loss(hidden, weight, targets)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        label_divergence(hidden, hidden.softmax(1), 0.0)
