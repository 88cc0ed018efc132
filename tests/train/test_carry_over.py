"""Targets of a teacher with another tokenizer: what stands at which token, and what becomes of its mass."""

import math

import numpy as np
import pytest
from conftest import TEXTS
from datasets import Dataset

from potstill.errors import TrainingError, UserError
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.carry_over import TokenBytes, carry_over, load_tokenizer
from potstill.train.causal import distil_causal
from potstill.train.options import DistilOptions

SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation")
STUDENT_END = 1


def table():
    return rows_to_dataset([Row(f"r{i}", text, "generated", Source(row=i)) for i, text in enumerate(TEXTS)], [])


def stored(rows, teacher, k=12, seed=0):
    """Random top-k targets in the teacher's ids, the end of the answer among them."""
    random = np.random.default_rng(seed)
    items = []
    for row in rows:
        ids = teacher(row["output"], add_special_tokens=False)["input_ids"] + [teacher.eos_token_id]
        top_ids, logprobs, tails = [], [], []
        for token in ids:
            others = random.choice(np.arange(2, len(teacher)), k - 2, replace=False)
            picked = list(dict.fromkeys([token, teacher.eos_token_id, *others.tolist()]))
            probs = random.dirichlet(np.ones(len(picked) + 1))
            order = np.argsort(-probs[:-1])
            top_ids.append([int(picked[i]) for i in order])
            logprobs.append(np.log(probs[:-1][order]).tolist())
            tails.append(math.log(probs[-1]))
        items.append({"id": row["id"], "token_ids": ids, "top_ids": top_ids, "top_logprobs": logprobs, "tail": tails})
    return Dataset.from_list(items)


def test_each_token_gives_its_mass_to_the_byte_that_it_begins_with(merged, single):
    rows, alphabet = table(), TokenBytes(single)
    targets = stored(rows, merged)
    carried = carry_over(rows, targets, merged, single, STUDENT_END)
    theirs = TokenBytes(merged)
    compared = 0
    for row, item, old in zip(rows, carried.table, targets, strict=True):
        data = row["output"].encode()
        assert b"".join(alphabet.of(t) for t in item["token_ids"][:-1]) == data
        assert item["token_ids"][-1] == STUDENT_END
        starts = np.cumsum([0] + [len(theirs.of(t) or b"") for t in old["token_ids"]])[:-1].tolist()
        assert [at for at, known in enumerate(item["known"]) if known] == starts
        for i, at in enumerate(starts):
            expected = {}
            for token, value in zip(old["top_ids"][i], old["top_logprobs"][i], strict=True):
                piece = theirs.of(token)
                first = STUDENT_END if piece is None else next(t for t in range(258) if alphabet.of(t) == piece[:1])
                expected[first] = expected.get(first, 0) + math.exp(value)
            found = dict(zip(item["top_ids"][at], np.exp(item["top_logprobs"][at]), strict=True))
            assert found == pytest.approx(expected, rel=1e-6)
            assert math.exp(item["tail"][at]) == pytest.approx(math.exp(old["tail"][i]), rel=1e-6)
            assert item["top_logprobs"][at] == sorted(item["top_logprobs"][at], reverse=True)
            compared += 1
    assert compared > 20
    assert carried.report["mass_kept"] == pytest.approx(1.0)
    assert carried.report["known_share"] == pytest.approx(compared / carried.report["positions"], abs=1e-4)


def test_mass_without_a_counterpart_goes_to_the_tail(merged, single):
    # Towards larger tokens: a lone byte of a longer character is no text, so it has no first token of its own.
    rows = table()
    targets = stored(rows, single, k=8)
    carried = carry_over(rows, targets, single, merged, merged.eos_token_id)
    assert all(known for item in carried.table for known in item["known"])  # every cut is a cut between bytes
    for item, old in zip(carried.table, targets, strict=True):
        for logprobs, tail in zip(item["top_logprobs"], item["tail"], strict=True):
            assert np.exp(logprobs).sum() + math.exp(tail) == pytest.approx(1.0, abs=1e-6)
        assert len(item["token_ids"]) <= len(old["token_ids"])
    assert 0.5 < carried.report["mass_kept"] <= 1.0


def test_the_same_tokenizer_changes_nothing(single):
    rows = table()
    targets = stored(rows, single)
    carried = carry_over(rows, targets, single, single, STUDENT_END).table
    for item, old in zip(carried, targets, strict=True):
        assert item["token_ids"] == old["token_ids"]
        assert item["top_ids"] == old["top_ids"]
        for ours, theirs in zip(item["top_logprobs"], old["top_logprobs"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_a_student_learns_from_another_tokenizers_targets(tmp_path, tiny_llama, merged):
    rows = table()
    targets = stored(rows, merged)
    options = DistilOptions(
        student=str(tiny_llama), teacher_tokenizer=merged.name_or_path, epochs=30, batch_size=4, learning_rate=5e-3,
        max_length=96, hard_weight=0.0, early_stopping=None,
    )  # fmt: skip
    result = distil_causal(SPEC, rows, rows, targets, tmp_path / "s", options)
    assert result.report["carried_over"]["rows"] == 4
    assert result.report["rows"]["misaligned"] == 0
    assert 20 < result.report["rows"]["soft_tokens"] < result.report["rows"]["target_tokens"]
    losses = [point["validation_loss"] for point in result.history]
    assert losses[-1] < 0.8 * losses[0]


def test_a_wrong_pair_of_tokenizers_is_named(tmp_path, tiny_llama, merged, single):
    rows = table()
    plain = DistilOptions(student=str(tiny_llama), epochs=1, max_length=96)
    with pytest.raises(TrainingError, match=r"made with another tokenizer.*distil.student.*distil.teacher_tokenizer"):
        distil_causal(SPEC, rows, None, stored(rows, merged), tmp_path / "s", plain)
    with pytest.raises(TrainingError, match=r"none of the 4 stored token targets stands for.*distil.teacher_tokenizer"):
        carry_over(rows, stored(rows, merged), single, merged, merged.eos_token_id)
    with pytest.raises(UserError, match=r"distil.teacher_tokenizer '\./nowhere'|no model at"):
        load_tokenizer("./nowhere")


def sure(row_id, output, teacher):
    """Targets of a teacher that has no doubt of the tokens of an output and of its end."""
    ids = teacher(output, add_special_tokens=False)["input_ids"] + [teacher.eos_token_id]
    tops = {"top_ids": [[token] for token in ids], "top_logprobs": [[-1e-6]] * len(ids), "tail": [-14.0] * len(ids)}
    return {"id": row_id, "token_ids": ids, **tops}


def carried_of(output, said, teacher, student):
    """Student's token and the likeliest of its target, wherever it has one, for an output and the teacher's reply."""
    rows = Dataset.from_dict({"id": ["r"], "output": [output]})
    end = student.eos_token_id
    item = carry_over(rows, Dataset.from_list([sure("r", said, teacher)]), teacher, student, end).table[0]
    kept = zip(item["token_ids"], item["top_ids"], item["known"], strict=True)
    return [tuple(student.convert_ids_to_tokens([token, top[0]])) for token, top, known in kept if known]


@pytest.mark.parametrize(
    "output", ["the cat\n", "the cat ", " the cat", "    the cat\n    sat", "\u3000the cat", "\n\n the mat \n\n"]
)
def test_white_space_at_the_ends_of_an_output_shifts_no_target(output, merged, single):
    found = carried_of(output, output, merged, single)
    assert [target for _, target in found] == [token for token, _ in found]
    assert [found[0][0], found[-1][0]] == [single.tokenize(output)[0], "<|im_end|>"]


@pytest.mark.parametrize(
    ("output", "said"),
    [("the cat", "the cat\n"), ("the cat", "\n the cat"), ("the cat\n", "the cat"), ("the", " the\n")],
)
def test_white_space_that_only_the_reply_or_only_the_row_has_is_no_target(output, said, merged, single):
    found = carried_of(output, said, merged, single)
    assert [target for _, target in found] == [token for token, _ in found]
    assert [found[0][0], found[-1][0]] == ["t", "<|im_end|>"]


def test_a_blank_that_a_tokenizer_puts_before_a_text_is_no_part_of_the_answer(prepending, merged, single):
    def pairs(output, teacher, student):
        return carried_of(output, output, teacher, student)

    assert prepending.tokenize("the cat") == ["▁the", "▁cat"]
    end = ("<|im_end|>", "<|im_end|>")
    assert pairs("the cat", prepending, single) == [("t", "t"), ("Ġ", "Ġ"), end]
    for teacher, student in ((prepending, merged), (merged, prepending), (prepending, prepending)):
        tokens = [*student.tokenize("the cat"), student.eos_token]
        assert pairs("the cat", teacher, student) == [(token, token) for token in tokens]
    # The blank is a token of its own before a word that the tokenizer does not know.
    assert prepending.tokenize("cat")[0] == "▁cat"
    assert prepending.tokenize("f cat") == ["▁", "f", "▁cat"]
    assert pairs("f cat", prepending, single)[0] == ("f", "f")
    assert pairs("f cat", single, prepending)[0] == ("f", "f")
    # The first token holds the blank, and the output begins with blanks of its own.
    assert prepending.tokenize(" cat") == ["▁", "▁cat"]
    assert pairs(" cat", prepending, single)[0] == ("Ġ", "Ġ")


def test_sentencepiece_tokens_stand_for_their_text():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "</s>": 1, "▁the": 2, "▁": 3, "c": 4, "<0xE7>": 5, "at": 6, "<0x74>": 7, "t": 8, "a": 9}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback()])
    pieces = TokenBytes(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>"))
    assert [pieces.of(i) for i in range(7)] == [None, None, b" the", b" ", b"c", b"\xe7", b"at"]
    assert pieces.ends == {1}
    assert pieces.first_token(b" the") == 2
    assert [pieces.of(7), pieces.of(8)] == [b"t", b"t"]
    assert pieces.first_token(b"t") == 8  # the letter, by which it is written, not the byte
    assert pieces.first_token(b"\xff") is None
