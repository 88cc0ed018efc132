"""ULD and GOLD losses: against dense references in float64, on stored targets and on policy."""

import itertools
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TEXTS
from datasets import Dataset

from potstill.errors import OptionError, TrainingError
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.carry_over import TokenBytes
from potstill.train.causal import distil_causal
from potstill.train.causal_model import load_causal
from potstill.train.encode import encode_prompt, end_of_turn
from potstill.train.options import DistilOptions, resolve_options
from potstill.train.span_loss import StoredSpans, stored_span_loss, whole_span_losses
from potstill.train.student import load_student
from potstill.train.token_spans import common_spans, shared_tokens, spans_of_targets

SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation")
KINDS = ["forward_kl", "reverse_kl", "jsd"]


def table():
    return rows_to_dataset([Row(f"r{i}", text, "generated", Source(row=i)) for i, text in enumerate(TEXTS)], [])


def d(q, p, kind):
    """A divergence of two lists of probabilities in plain Python."""
    m = [(a + b) / 2 for a, b in zip(q, p, strict=True)]

    def kl(x, y):
        return sum(a * math.log(a / b) for a, b in zip(x, y, strict=True) if a > 0)

    return {"forward_kl": kl(q, p), "reverse_kl": kl(p, q), "jsd": (kl(q, m) + kl(p, m)) / 2}[kind]


def sorted_distance(p, q):
    pairs = itertools.zip_longest(sorted(p, reverse=True), sorted(q, reverse=True), fillvalue=0.0)
    return sum(abs(a - b) for a, b in pairs)


def gold_by_hand(p, q, pairs, first, later, their_first, their_later, kind):
    """`pairs`: student's id of each shared token of the teacher. Probabilities are lists; `later` are log-probs."""
    gone = {first, pairs.get(their_first)}
    events = [(q[t], p[s]) for t, s in pairs.items() if s not in gone]
    text = (q[their_first] * math.exp(their_later), p[first] * math.exp(later))
    told = [*events, text]
    rest = (1 - sum(a for a, _ in told), 1 - sum(b for _, b in told))
    qs, ps = zip(*told, rest, strict=True)
    alone_q = [q[t] for t in range(len(q)) if t not in pairs]
    alone_p = [p[s] for s in range(len(p)) if s not in pairs.values()]
    return d(qs, ps, kind) + sorted_distance(alone_p, alone_q)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["gold", "uld"])
def test_whole_distributions_match_the_formula(method, kind):
    random = np.random.default_rng(0)
    pairs = {0: 3, 2: 1, 5: 7, 6: 0}
    student = torch.from_numpy(random.dirichlet(np.ones(9), 6)).log().float().requires_grad_()
    teacher = torch.from_numpy(random.dirichlet(np.ones(7), 6)).log().float()
    first = torch.tensor([3, 1, 2, 3, 7, 8])  # shared and not
    their_first = torch.tensor([0, 2, 1, 2, 5, 4])
    later = torch.tensor([0.0, 0.0, -0.7, -0.2, 0.0, -1.5])
    their_later = torch.tensor([0.0, -0.4, 0.0, -0.1, 0.0, -0.3])
    ids = (torch.tensor([*pairs.values()]), torch.tensor([*pairs]))
    found = whole_span_losses(
        student, teacher, first=first, later=later, teacher_first=their_first, teacher_later=their_later, pairs=ids,
        method=method, kind=kind, beta=0.5,
    )  # fmt: skip
    for i in range(6):
        p, q = student[i].exp().double().tolist(), teacher[i].exp().double().tolist()
        if method == "uld":
            expected = sorted_distance(p, q)
        else:
            expected = gold_by_hand(
                p, q, pairs, int(first[i]), float(later[i]), int(their_first[i]), float(their_later[i]), kind
            )
        assert found[i].item() == pytest.approx(expected, abs=1e-5)
    found.sum().backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_with_one_vocabulary_gold_is_the_whole_divergence(kind):
    random = np.random.default_rng(1)
    student, teacher = (torch.from_numpy(random.dirichlet(np.ones(12) / 3, 5)).log().float() for _ in range(2))
    every, tokens, nothing = torch.arange(12), torch.tensor([1, 4, 0, 11, 7]), torch.zeros(5)
    found = whole_span_losses(
        student, teacher, first=tokens, later=nothing, teacher_first=tokens, teacher_later=nothing,
        pairs=(every, every), method="gold", kind=kind, beta=0.5,
    )  # fmt: skip
    wanted = [
        d(q.exp().tolist(), p.exp().tolist(), kind) for q, p in zip(teacher.double(), student.double(), strict=True)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    same = whole_span_losses(
        teacher, teacher, first=tokens, later=nothing, teacher_first=tokens, teacher_later=nothing,
        pairs=(every, every), method="gold", kind=kind, beta=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(same, 0, atol=1e-6)


def stored_case(random, n=11, vocab=20, k=6):
    """Random stored spans: of one token, of three, one whose text is unknown, positions without a span."""
    counts = torch.tensor([1, 3, 0, 0, 1, 1, 2, 0, 0, 1, 1])
    probs = random.dirichlet(np.ones(k + 1), n)
    ids = np.stack([random.choice(vocab, k, replace=False) for _ in range(n)])
    ids[:, 4:] = -1
    labels = random.integers(0, vocab, n)
    ids[4, 0] = labels[4]
    text = np.where(random.random(n) < 0.7, np.log(probs[:, 0] * 0.9), -np.inf)
    text[4] = np.log(probs[4, 0])
    first = np.where(text > -np.inf, ids[:, 0], -1)
    return StoredSpans(
        labels=torch.tensor(labels), hard_weights=torch.full((n,), 0.3),
        soft_weights=torch.tensor(random.random(n)).float() * (counts > 0), counts=counts, ids=torch.tensor(ids),
        logprobs=torch.tensor(np.log(probs[:, :k])).float(), tail=torch.tensor(np.log(probs[:, k])).float(),
        text=torch.tensor(text).float(), first=torch.tensor(first),
    )  # fmt: skip


def stored_by_hand(logits, t, shared, method, kind):
    """The loss of stored spans, position by position, differentiable."""
    logprobs = logits.log_softmax(1)
    total = -(t.hard_weights * logprobs[torch.arange(len(t.labels)), t.labels]).sum()
    for i in (t.counts > 0).nonzero()[:, 0].tolist():
        p, q = logprobs[i].exp(), t.logprobs[i].exp()
        if method == "uld":
            top, other = p.sort(descending=True).values[: len(q)], q.sort(descending=True).values
            value = (top - other).abs().sum() + (1 - top.sum() - t.tail[i].exp()).abs()
        else:
            first, told = int(t.labels[i]), bool(t.text[i] > -torch.inf)
            used = [j for j, s in enumerate(t.ids[i].tolist()) if s >= 0 and s not in (first, int(t.first[i]))]
            ours = [p[t.ids[i, j]] for j in used]
            theirs = [q[j] for j in used]
            if told:
                chain = [logprobs[i + j, t.labels[i + j]] for j in range(int(t.counts[i]))]
                ours.append(torch.stack(chain).sum().exp())
                theirs.append(t.text[i].exp())
            ours.append(1 - torch.stack(ours).sum())
            theirs.append(1 - torch.stack(theirs).sum())
            a, b = torch.stack(ours), torch.stack(theirs)
            m = (a + b) / 2
            value = {
                "forward_kl": (b * (b / a).log()).sum(),
                "reverse_kl": (a * (a / b).log()).sum(),
                "jsd": ((b * (b / m).log()).sum() + (a * (a / m).log()).sum()) / 2,
            }[kind]
            alone = q[t.ids[i] < 0].sort(descending=True).values
            value = value + (p[~shared].sort(descending=True).values[: len(alone)] - alone).abs().sum()
        total = total + t.soft_weights[i] * value
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["gold", "uld"])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_stored_spans_match_the_dense_reference(method, kind, chunk):
    random = np.random.default_rng(2)
    targets = stored_case(random)
    shared = torch.zeros(20, dtype=torch.bool)
    shared[targets.ids[targets.ids >= 0]] = True
    shared[targets.labels[4]] = True
    hidden = torch.from_numpy(random.normal(size=(11, 8))).float().requires_grad_()
    head = torch.from_numpy(random.normal(size=(20, 8))).float().requires_grad_()
    loss, hard, soft = stored_span_loss(hidden, head, targets, shared, method=method, kind=kind, chunk=chunk)
    (2 * loss).backward()
    grads = [hidden.grad.clone(), head.grad.clone()]
    hidden.grad = head.grad = None
    wide = StoredSpans(**{
        name: value.double() if value.is_floating_point() else value for name, value in vars(targets).items()
    })  # fmt: skip
    wanted = stored_by_hand(hidden.double() @ head.double().T, wide, shared, method, kind)
    (2 * wanted).backward()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert (hard + soft).item() == pytest.approx(loss.item(), abs=1e-5)
    for found, expected in zip(grads, (hidden.grad, head.grad), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_spans_cover_both_sides_and_hold_the_same_text(merged, single):
    ours, theirs = TokenBytes(single), TokenBytes(merged)
    several = 0
    for text in TEXTS:
        sides = []
        for tokenizer, pieces in ((single, ours), (merged, theirs)):
            ids = tokenizer(text)["input_ids"]
            sides.append(([pieces.of(i) for i in ids], np.cumsum([0, *(len(pieces.of(i)) for i in ids)]).tolist()))
        (student, starts), (teacher, their_starts) = sides
        spans = common_spans(starts, their_starts)
        for i, n, j, m in spans:
            assert b"".join(student[i : i + n]) == b"".join(teacher[j : j + m]) != b""
            several += n > 1
        assert [at for i, n, _, _ in spans for at in range(i, i + n)] == list(range(len(student)))
        assert [at for _, _, j, m in spans for at in range(j, j + m)] == list(range(len(teacher)))
    assert several > 5
    # Tokens without bytes belong to the span that starts before them.
    assert common_spans([0, 0, 2, 3], [0, 2, 2, 3]) == [(0, 2, 0, 1), (2, 1, 1, 2)]


def stored(rows, teacher, k=12, seed=0):
    random = np.random.default_rng(seed)
    items = []
    for row in rows:
        ids = teacher(row["output"], add_special_tokens=False)["input_ids"] + [teacher.eos_token_id]
        top_ids, logprobs, tails = [], [], []
        for at, token in enumerate(ids):
            others = random.choice(np.arange(2, len(teacher)), k - 2, replace=False).tolist()
            picked = list(dict.fromkeys([*([] if at == 1 else [token]), teacher.eos_token_id, *others]))
            probs = random.dirichlet(np.ones(len(picked) + 1))
            order = np.argsort(-probs[:-1])
            top_ids.append([int(picked[i]) for i in order])
            logprobs.append(np.log(probs[:-1][order]).tolist())
            tails.append(math.log(probs[-1]))
        items.append({"id": row["id"], "token_ids": ids, "top_ids": top_ids, "top_logprobs": logprobs, "tail": tails})
    return Dataset.from_list(items)


def test_stored_targets_lie_along_the_spans(merged, single):
    rows, targets = table(), stored(table(), merged)
    laid = spans_of_targets(rows, targets, merged, single, 1)
    theirs, ours = TokenBytes(merged), TokenBytes(single)
    pairs = shared_tokens(theirs, ours, 1)
    assert set(laid.shared) == set(pairs.values())
    assert all(theirs.of(t) == ours.of(s) for t, s in pairs.items() if s != 1)
    texts = 0
    for item, old in zip(laid.table, targets, strict=True):
        at, j = 0, 0
        while at < len(item["token_ids"]):
            n = item["counts"][at]
            assert n >= 1
            assert item["known"][at]
            assert item["counts"][at + 1 : at + n] == [0] * (n - 1)
            # Every token of the teacher is cut into bytes by the student, so a span is one token of the teacher.
            assert item["top_ids"][at] == [pairs.get(t, -1) for t in old["top_ids"][j]]
            known = dict(zip(old["top_ids"][j], old["top_logprobs"][j], strict=True))
            assert item["text"][at] == pytest.approx(known.get(old["token_ids"][j], -math.inf))
            texts += item["text"][at] > -math.inf
            at, j = at + n, j + 1
        assert j == len(old["token_ids"])
    spans = sum(len(old["token_ids"]) for old in targets)
    assert laid.report["text_known"] == pytest.approx(texts / spans, abs=1e-4)
    assert texts < spans
    with pytest.raises(TrainingError, match=r"none of the 4 stored token targets stands for.*distil.teacher_tokenizer"):
        spans_of_targets(rows, targets, single, merged, 1)


def laid_of(output, said, teacher, student):
    """The student's tokens of each span and what the teacher, who has no doubt, says of its first one; None for −1."""
    rows, ids = Dataset.from_dict({"id": ["r"], "output": [output]}), teacher(said)["input_ids"]
    ids = [*ids, teacher.eos_token_id]
    tops = {"top_ids": [[token] for token in ids], "top_logprobs": [[-1e-6]] * len(ids), "tail": [-14.0] * len(ids)}
    targets = Dataset.from_list([{"id": "r", "token_ids": ids, **tops}])
    item = spans_of_targets(rows, targets, teacher, student, student.eos_token_id).table[0]
    names = student.convert_ids_to_tokens(item["token_ids"])
    return [
        ("".join(names[i : i + n]), None if top[0] < 0 else student.convert_ids_to_tokens(top)[0])
        for i, (n, top) in enumerate(zip(item["counts"], item["top_ids"], strict=True))
        if n
    ]


def test_spans_of_an_output_with_white_space_at_its_ends_end_where_the_answer_does(merged, single):
    end = ("<|im_end|>", "<|im_end|>")
    word = [("the", None), ("Ġcat", None)]
    assert laid_of("the cat\n", "the cat\n", merged, single) == [*word, ("Ċ", "Ċ"), end]
    assert laid_of("the cat", "the cat\n", merged, single) == [*word, end]
    assert laid_of("the cat\n", "the cat", merged, single) == [*word, end]
    assert laid_of(" the cat", " the cat", merged, single) == [("Ġthe", None), ("Ġcat", None), end]
    assert laid_of("    the cat", "    the cat", merged, single)[0] == ("Ġ", "Ġ")


def test_spans_begin_with_the_text_and_not_with_the_blank_before_it(prepending, merged, single):
    ours, theirs = merged.tokenize("the cat"), prepending.tokenize("the cat")
    assert laid_of("the cat", "the cat", prepending, merged)[:2] == [(token, token) for token in ours]
    assert laid_of("the cat", "the cat", merged, prepending)[:2] == [(token, token) for token in theirs]
    assert laid_of("f cat", "f cat", prepending, single)[0] == ("f", "f")


@pytest.mark.parametrize("method", ["gold", "uld"])
def test_a_student_learns_from_another_tokenizers_spans(tmp_path, tiny_llama, merged, method):
    rows = table()
    options = DistilOptions(
        student=str(tiny_llama), teacher_tokenizer=merged.name_or_path, cross_tokenizer=method, epochs=30,
        batch_size=4, learning_rate=5e-3, max_length=96, hard_weight=0.0, early_stopping=None,
    )  # fmt: skip
    result = distil_causal(SPEC, rows, rows, stored(rows, merged), tmp_path / "s", options)
    assert result.report["carried_over"]["method"] == method
    assert result.report["rows"]["misaligned"] == 0
    losses = [point["validation_loss"] for point in result.history]
    assert losses[-1] < 0.8 * losses[0]


def test_accumulation_of_spans_is_exact(tmp_path, tiny_llama, merged):
    rows, found = table(), []
    for batch, steps in ((4, 1), (2, 2), (1, 4)):
        options = DistilOptions(
            student=str(tiny_llama), teacher_tokenizer=merged.name_or_path, cross_tokenizer="gold", max_steps=2,
            batch_size=batch, gradient_accumulation=steps, learning_rate=5e-3, max_length=96, evaluations=2,
            early_stopping=None,
        )  # fmt: skip
        result = distil_causal(SPEC, rows, rows, stored(rows, merged), tmp_path / f"s{batch}", options)
        found.append([(point["train_loss"], point["validation_loss"]) for point in result.history])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4)


def on_policy_options(tiny_llama, tiny_merged, **more):
    return DistilOptions(
        **{
            "student": str(tiny_llama), "teacher": str(tiny_merged), "on_policy": 1.0, "on_policy_tokens": 8,
            "epochs": 12, "batch_size": 2, "learning_rate": 5e-3, "max_length": 128, "early_stopping": None,
            "evaluations": 4, "cross_tokenizer": "gold", "precision": "fp32", **more,
        }
    )  # fmt: skip


def one_blank_apart(teacher, student, end, cut, put):
    """The student's token of each token of the teacher at the start of an answer, where one side puts a blank there."""
    ours, theirs = TokenBytes(student), TokenBytes(teacher)
    found = {teacher.eos_token_id: end}
    for theirs_piece, token in theirs.tokens.items():
        for piece, own in ours.tokens.items():
            if theirs_piece == b" " * cut + piece.removeprefix(b" " * put) and piece.startswith(b" " * put):
                found[token] = own
    return found


def held_out_by_hand(student_folder, teacher_folder, rows, method, kind, temperature=1.0):
    """Mean span loss of the rows' own outputs, one row at a time, in plain Python."""
    ours, student, _ = load_causal(resolve_options(DistilOptions(student=str(student_folder)), "causal"))
    theirs, teacher, _ = load_causal(resolve_options(DistilOptions(student=str(teacher_folder)), "causal"))
    end = end_of_turn(student, ours)
    pairs = shared_tokens(TokenBytes(theirs), TokenBytes(ours), end)
    values = []
    for row in rows:
        sides = []
        for tokenizer, model, stop in ((ours, student, end), (theirs, teacher, theirs.eos_token_id)):
            prompt = encode_prompt(tokenizer, SPEC, row["input"], 100)
            answer = [*tokenizer(row["output"], add_special_tokens=False)["input_ids"], stop]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
            alphabet = TokenBytes(tokenizer)
            starts = np.cumsum([0, *(len(alphabet.of(t)) for t in answer[:-1])])
            blanks = int(starts[-1]) - len(row["output"].encode())
            sides.append((answer, (logits / temperature).log_softmax(-1), (starts - blanks).clip(0).tolist(), blanks))
        (a, p, starts, put), (b, q, their_starts, cut) = sides
        for i, n, j, m in [*common_spans(starts, their_starts), (len(a) - 1, 1, len(b) - 1, 1)]:
            first, second = p[i].exp().tolist(), q[j].exp().tolist()
            if method == "uld":
                values.append(sorted_distance(first, second))
                continue
            later = sum(float(p[at, a[at]]) for at in range(i + 1, i + n))
            their_later = sum(float(q[at, b[at]]) for at in range(j + 1, j + m))
            here = pairs if i or cut == put else one_blank_apart(theirs, ours, end, cut, put)
            values.append(gold_by_hand(first, second, here, a[i], later, b[j], their_later, kind))
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("method", "kind", "temperature"), [("gold", "forward_kl", 1.0), ("gold", "jsd", 2.0), ("uld", "forward_kl", 1.0)]
)
def test_on_policy_with_another_tokenizer(tmp_path, tiny_llama, tiny_merged, method, kind, temperature):
    rows = table()
    chosen = on_policy_options(
        tiny_llama, tiny_merged, cross_tokenizer=method, divergence=kind, temperature=temperature
    )
    result = distil_causal(SPEC, rows, rows, None, tmp_path / "s", chosen)
    losses = [point["validation_loss"] for point in result.history]
    assert losses[-1] < losses[0]
    wanted = held_out_by_hand(result.path, tiny_merged, rows, method, kind, temperature)
    assert result.report["best_loss"] == pytest.approx(wanted, rel=2e-3)
    told = result.report["other_tokenizer"]
    assert told["method"] == method
    assert 0 < told["spans_per_token"] <= 1
    assert told["shared_tokens"] == 257  # every single byte and the end
    assert isinstance(load_student(result.path)("ab"), str)


@pytest.mark.parametrize("method", ["gold", "uld"])
@pytest.mark.parametrize("prepends", ["teacher", "student"])
def test_a_blank_before_every_text_hides_no_answer_from_the_teacher(
    tmp_path, tiny_llama, tiny_prepending, method, prepends
):
    rows = table()
    student, teacher = (tiny_llama, tiny_prepending) if prepends == "teacher" else (tiny_prepending, tiny_llama)
    chosen = on_policy_options(student, teacher, cross_tokenizer=method, epochs=4)
    result = distil_causal(SPEC, rows, rows, None, tmp_path / "s", chosen)
    wanted = held_out_by_hand(result.path, teacher, rows, method, "forward_kl")
    assert result.report["best_loss"] == pytest.approx(wanted, rel=2e-3)
    losses = [point["validation_loss"] for point in result.history]
    assert losses[-1] < losses[0]


def test_a_teacher_that_is_compared_with_nothing_ends_the_training(tmp_path, tiny_llama, tiny_merged):
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    other = tmp_path / "doubled"
    shutil.copytree(tiny_merged, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("a", "AA")
    tokenizer.save_pretrained(other)
    chosen = on_policy_options(tiny_llama, other, on_policy=0.01, epochs=1)
    said = r"start no token at the same byte of {} answers, .*choose a distil\.teacher or a distil\.student"
    for held_out, answers in ((None, "4"), (table(), "4 held-out")):
        with pytest.raises(TrainingError, match=said.format(answers)):
            distil_causal(SPEC, table(), held_out, None, tmp_path / "s", chosen)
    assert not (tmp_path / "s" / "config.json").exists()


def test_batches_of_the_data_and_accumulation(tmp_path, tiny_llama, tiny_merged):
    chosen = on_policy_options(tiny_llama, tiny_merged, on_policy=0.5, gradient_accumulation=2, epochs=8)
    result = distil_causal(SPEC, table(), table(), None, tmp_path / "s", chosen)
    assert result.report["own_batches"] > 0
    assert result.report["data_batches"] > 0
    losses = [point["validation_loss"] for point in result.history]
    assert losses[-1] < losses[0]


def test_a_wrong_pair_names_the_option(tmp_path, tiny_llama, tiny_merged):
    wrong = replace(on_policy_options(tiny_llama, tiny_merged), cross_tokenizer="carry_over")
    with pytest.raises(TrainingError, match=r"other tokenizers.*distil\.cross_tokenizer=gold \(or uld\)"):
        distil_causal(SPEC, table(), None, None, tmp_path / "s", wrong)
    from potstill.options import build_options

    with pytest.raises(OptionError, match=r"cross_tokenizer"):
        build_options(DistilOptions, {"cross_tokenizer": "golden"}, "distil")
