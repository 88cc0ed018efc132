"""On-policy training from a teacher that is asked: against dense references, and against the teacher in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scoring import LocalScores

from potstill.asking.teacher import Failure
from potstill.errors import TrainingError
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.causal import distil_causal
from potstill.train.head_loss import TokenTargets, target_loss
from potstill.train.losses import divergence, drawn_reverse_kl
from potstill.train.options import DistilOptions

SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation")
WHOLE = 258


def rows(n=6, start=0):
    texts = [f"{'ab' * (i % 3 + 1)}{i}" for i in range(start, start + n)]
    return rows_to_dataset([Row(text, text[::-1], "generated", Source(row=i)) for i, text in enumerate(texts)], [])


@pytest.fixture
def options(tiny_llama):
    return DistilOptions(
        student=str(tiny_llama), on_policy=1.0, on_policy_tokens=8, epochs=8, batch_size=3, precision="fp32",
        learning_rate=5e-3, max_length=96, early_stopping=None, evaluations=4,
    )  # fmt: skip


def bytes_of(ids):
    """The text of a prompt: a token of `tiny_llama` is a letter, in the order of the alphabet of bytes."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return "".join(letters[i - 2] for i in ids if i >= 2).encode()


def by_bucket(logprobs, ids):
    rest = torch.ones_like(logprobs, dtype=torch.bool)
    rest[ids] = False
    return torch.cat([logprobs[ids], logprobs[rest].logsumexp(0)[None]])


def test_a_drawn_token_gives_the_whole_reverse_divergence_and_its_gradient_on_average():
    torch.manual_seed(0)
    logits = torch.randn(12, dtype=torch.float64, requires_grad=True)
    teacher = (2 * torch.randn(12, dtype=torch.float64)).log_softmax(0)
    top = teacher.topk(4).indices.tolist()
    whole = divergence(logits.log_softmax(0)[None], teacher[None], "reverse_kl")[0]
    (wanted,) = torch.autograd.grad(whole, logits)
    mean, slope = 0.0, torch.zeros(12, dtype=torch.float64)
    for token in range(12):
        student = logits.log_softmax(0)
        drawn = token not in top
        ids = [token, *(i for i in top if i != token)]
        value = drawn_reverse_kl(by_bucket(student, ids)[None], by_bucket(teacher, ids)[None], torch.tensor([drawn]))
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        mean += float((student[token].exp() * value.sum()).detach())
        slope += student[token].exp().detach() * gradient
    assert mean == pytest.approx(float(whole.detach()), abs=1e-9)
    torch.testing.assert_close(slope, wanted, rtol=1e-9, atol=1e-12)


def test_the_loss_in_chunks_gives_the_gradient_of_the_plain_one():
    torch.manual_seed(1)
    hidden = torch.randn(5, 6, requires_grad=True)
    weight = torch.randn(20, 6, requires_grad=True)
    told = torch.randn(5, 20).log_softmax(-1)
    ids = torch.cat([told.topk(1, largest=False).indices, told.topk(3).indices], 1)
    drawn = torch.tensor([True, False, True, True, False])
    top = told.gather(1, ids)
    tail = (1 - top.exp().sum(1)).log()
    ones = torch.ones(5)
    targets = TokenTargets(ids[:, 0], ones * 0, ones, ids, top, tail, drawn)
    loss, _, _ = target_loss(hidden, weight, targets, kind="reverse_kl", chunk=2)
    found = torch.autograd.grad(loss, (hidden, weight))
    logprobs = (hidden @ weight.T).log_softmax(-1)
    student = torch.stack([by_bucket(row, some) for row, some in zip(logprobs, ids, strict=True)])
    plain = drawn_reverse_kl(student, torch.cat([top, tail[:, None]], 1), drawn).sum()
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-5)
    for one, other in zip(found, torch.autograd.grad(plain, (hidden, weight)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize(("share", "accumulation"), [(1.0, 1), (0.5, 3)])
def test_with_the_whole_vocabulary_it_is_the_training_with_the_teacher_in_memory(
    tmp_path, options, moved, kind, share, accumulation
):
    chosen = replace(
        options, divergence=kind, jsd_beta=0.3, on_policy=share, batch_size=3 // accumulation,
        gradient_accumulation=accumulation, epochs=4,
    )  # fmt: skip
    loaded = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "l", replace(chosen, teacher=str(moved)))
    asked = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "a", chosen, scores=LocalScores(moved, WHOLE))
    for one, other in zip(loaded.history, asked.history, strict=True):
        for name in ("train_loss", "validation_loss"):
            assert other[name] == pytest.approx(one[name], rel=2e-4)
    assert asked.history[-1]["validation_loss"] < asked.history[0]["validation_loss"]
    first, second = (load_file(result.path / "model.safetensors") for result in (loaded, asked))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=2e-4)
    told = asked.report["asked_teacher"]
    assert (told["top_k"], told["unanswered"], told["outside_top_k"]) == (WHOLE, 0, 0)
    assert told["tail_mass"] == pytest.approx(0, abs=1e-4)
    assert asked.report["own_batches"] == loaded.report["own_batches"]


def test_adapters_learn_the_same_of_both(tmp_path, options, moved):
    pytest.importorskip("peft")
    chosen = replace(options, lora_rank=2, epochs=2)
    loaded = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "l", replace(chosen, teacher=str(moved)))
    asked = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "a", chosen, scores=LocalScores(moved, WHOLE))
    assert asked.report["best_loss"] == pytest.approx(loaded.report["best_loss"], rel=2e-4)


def test_a_few_likeliest_tokens_are_learnt_from_too(tmp_path, options, moved):
    for kind in ("forward_kl", "reverse_kl"):
        chosen = replace(options, divergence=kind)
        scores = LocalScores(moved, 8)
        result = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / kind, chosen, scores=scores)
        losses = [point["validation_loss"] for point in result.history]
        assert losses[-1] < losses[0]
        told = result.report["asked_teacher"]
        assert 0 < told["tail_mass"] < 1
        assert 0 < told["outside_top_k"] < 1
        assert told["answers"] == 8 * 6


def test_an_answer_of_which_nothing_is_told_is_left_out(tmp_path, options, moved):
    short = replace(options, epochs=2)
    some = LocalScores(moved, WHOLE, lambda pair: len(pair[0]) % 3 == 0)
    result = distil_causal(SPEC, rows(), None, None, tmp_path / "s", short, scores=some)
    told = result.report["asked_teacher"]
    assert 0 < told["unanswered"] < 12
    assert told["unanswered_because"] == "too long"


def test_a_step_without_any_reply_learns_nothing_and_the_training_goes_on(tmp_path, options, moved):
    """What the teacher cannot take is the same in every call: a training that ended there would never end."""
    lost = LocalScores(moved, WHOLE, lambda pair: bytes_of(pair[0]).count(b"ab") == 3)
    short = replace(options, epochs=2, batch_size=1)
    result = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "s", short, scores=lost)
    assert result.report["steps"]["taken"] == 12
    assert result.report["asked_teacher"]["unanswered"] > 0
    assert all(np.isfinite(point["validation_loss"]) for point in result.history)
    whole = distil_causal(
        SPEC, rows(), rows(3, 6), None, tmp_path / "w", replace(short, batch_size=3, epochs=1), scores=lost
    )
    assert whole.report["best_loss"] > 0


@pytest.mark.parametrize("share", [0.0001, 1.0])
def test_a_teacher_that_tells_nothing_at_all_ends_the_training(tmp_path, options, moved, share):
    none = LocalScores(moved, WHOLE, lambda pair: True)
    short = replace(options, epochs=2, on_policy=share)
    with pytest.raises(TrainingError, match=r"local told nothing of the tokens of 12 answers .*too long.*run again"):
        distil_causal(SPEC, rows(), None, None, tmp_path / "n", short, scores=none)
    with pytest.raises(TrainingError, match=r"of 12 answers"):  # and again, from the start
        distil_causal(SPEC, rows(), None, None, tmp_path / "n", short, scores=none)
    long = replace(short, epochs=40)
    with pytest.raises(TrainingError, match=r"local told nothing of the tokens of 33 answers"):
        distil_causal(SPEC, rows(), None, None, tmp_path / "l", long, scores=none)
    held = LocalScores(moved, WHOLE, lambda pair: bytes_of(pair[0]).count(b"ab7"))
    with pytest.raises(TrainingError, match=r"local told nothing of the tokens of 1 held-out answers"):
        distil_causal(SPEC, rows(), rows(1, 7), None, tmp_path / "h", short, scores=held)


def test_a_server_that_is_away_ends_the_training_at_once(tmp_path, options, moved):
    class Away(LocalScores):
        def ask(self, pairs):
            return [Failure("away", passing=True) for _ in pairs]

    with pytest.raises(TrainingError, match=r"local told nothing of the tokens of 3 answers .*away.*run again"):
        distil_causal(SPEC, rows(), None, None, tmp_path / "a", options, scores=Away(moved, WHOLE))


def test_tokens_that_the_student_does_not_know_belong_to_the_tail(tmp_path, options, moved):
    def wider(item):
        halved = tuple(value - 0.7 for value in item.top_logprobs)
        return replace(item, top_ids=(999, *item.top_ids), top_logprobs=(-0.7, *halved))

    class Wider(LocalScores):
        def ask(self, pairs):
            return [replace(reply, top=tuple(map(wider, reply.top))) for reply in super().ask(pairs)]

    result = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "s", options, scores=Wider(moved, WHOLE))
    assert result.report["asked_teacher"]["tail_mass"] > 0.4
