"""The reasoning behind outputs as a second task: its loss, what it leaves alone, and where it is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_causal import SPEC, first_losses, make_targets, options, rows  # noqa: F401 (a fixture)

from potstill.errors import OptionError
from potstill.rows import RATIONALE, with_rationales
from potstill.train.causal import distil_causal
from potstill.train.causal_model import load_causal
from potstill.train.encode import encode_prompt, end_of_turn
from potstill.train.launch import launch, write_job
from potstill.train.loop import checkpoint_folder
from potstill.train.options import DistilOptions, check_for_kind, resolve_options
from potstill.train.recipe import train_generator
from potstill.train.second_task import ASKED, reasoning_task, with_second_task
from potstill.train.student import load_student
from potstill.train.token_rows import encode_rows

SAID = ["as a comes first", None, "b, since the word of the input stands at an odd place", "a a"]


def explained(n=4, start=0):
    """Rows of unlike weights, some with reasoning of unlike lengths."""
    table = rows(n, start).map(lambda row, i: {"weight": 1.0 + i % 4}, with_indices=True)
    return with_rationales(table, [SAID[i % 4] for i in range(n)])


def losses(tmp_path, given, table, targets=None, **how):
    """First losses and gradients of a training on rows with their second task."""
    import test_causal

    def both(spec, rows, targets, model, tokenizer, chosen):
        data = encode_rows(spec, rows, targets, model, tokenizer, chosen)
        return with_second_task(spec, rows, data, model, tokenizer, chosen)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_causal, "encode_rows", both)
        return first_losses(tmp_path, given, table, targets, **how)


def cross_entropy(model, tokenizer, spec, text, answer):
    """Cross-entropy of each of an answer's tokens and of the end, by plain transformers: (tokens,) float64."""
    prompt = encode_prompt(tokenizer, spec, text, 10_000)
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"] + [end_of_turn(model, tokenizer)]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    return -logits.double().log_softmax(-1).numpy()[np.arange(len(ids)), ids]


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("hard", [1.0, 0.4])
def test_the_loss_is_the_dense_one(tmp_path, options, weight, hard):  # noqa: F811
    table = explained()
    soft, _ = make_targets(table, options) if hard < 1 else (None, None)
    chosen = replace(options, hard_weight=hard, soft_weight=1 - hard, rationale_weight=weight, max_length=512)
    (loss, _), *_ = losses(tmp_path, chosen, table, soft)
    (plain, _), *_ = first_losses(tmp_path / "plain", replace(chosen, rationale_weight=0.0), table, soft)

    tokenizer, model, _ = load_causal(resolve_options(chosen, "causal"))
    sums, tokens = np.zeros(2), np.zeros(2)
    for row in table:
        for task, (spec, answer) in enumerate(((SPEC, row["output"]), (reasoning_task(SPEC), row[RATIONALE]))):
            if answer is None:
                continue
            each = cross_entropy(model, tokenizer, spec, row["input"], answer)
            sums[task] += row["weight"] * each.sum()
            tokens[task] += row["weight"] * len(each)
    outputs, reasoning = sums / tokens
    if hard == 1:
        assert plain == pytest.approx(outputs, rel=1e-5)
    assert loss == pytest.approx(plain + weight * reasoning, rel=1e-5)


@pytest.mark.parametrize(("size", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation_gives_one_step(tmp_path, options, size, accumulation):  # noqa: F811
    """A batch of one holds the only reasoning of its step, or none: a mean of means would differ."""
    chosen = replace(options, soft_weight=0.0, rationale_weight=0.7, max_length=512)
    whole = losses(tmp_path, chosen, explained(), steps=3)
    parts = losses(tmp_path, chosen, explained(), size=size, accumulation=accumulation, steps=3)
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path, options):  # noqa: F811
    chosen = replace(
        options, soft_weight=0.0, rationale_weight=0.7, max_length=512, max_steps=2, evaluations=2, epochs=None
    )
    table, held = explained(), rows(4, 4)
    whole = distil_causal(SPEC, table, held, None, tmp_path / "one", chosen)
    shared = replace(chosen, batch_size=2, processes=2)
    result = launch(write_job(tmp_path / "job", SPEC, table, held, None, tmp_path / "two", shared), shared)
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(
            [point[name] for point in result.history], [point[name] for point in whole.history], rtol=1e-5
        )


def test_a_student_learns_both_and_answers_with_the_output_alone(tmp_path, options):  # noqa: F811
    table = with_rationales(rows(8), [f"because of w{i}" for i in range(8)])
    held = rows(4, 8)
    chosen = replace(options, soft_weight=0.0, rationale_weight=1.0, max_length=512, epochs=30)
    result = distil_causal(SPEC, table, held, None, tmp_path / "student", chosen)
    assert (result.report["rows"]["second"], result.report["rows"]["rows"]) == (8, 8)
    assert all(np.isfinite(point["validation_loss"]) for point in result.history)
    tokenizer, model, _ = load_causal(replace(resolve_options(chosen, "causal"), student=str(result.path)))
    _, untaught, _ = load_causal(resolve_options(chosen, "causal"))
    for task, answer in ((SPEC, table[0]["output"]), (reasoning_task(SPEC), table[0][RATIONALE])):
        before = cross_entropy(untaught, tokenizer, task, "w0", answer).mean()
        assert cross_entropy(model, tokenizer, task, "w0", answer).mean() < before / 2
    student = load_student(result.path)
    assert ASKED not in student.card.instruction
    assert student.card.max_new_tokens <= 16, "as long as the outputs are, not their reasoning"


def test_without_reasoning_or_its_weight_nothing_is_another_training(tmp_path, options):  # noqa: F811
    chosen = replace(options, soft_weight=0.0, max_length=512, epochs=1)
    plain = first_losses(tmp_path / "a", chosen, rows(4), None)
    assert losses(tmp_path / "b", chosen, explained().map(lambda row: {"weight": 1.0}), None) == plain
    weighted = replace(chosen, rationale_weight=1.0)
    assert losses(tmp_path / "c", weighted, rows(4), None) == plain
    told = distil_causal(SPEC, rows(4), None, None, tmp_path / "s", weighted).report["notes"]
    assert any("no row has any reasoning" in note for note in told)


def test_what_does_not_fit_is_left_out_and_told(tmp_path, options):  # noqa: F811
    table = with_rationales(rows(4), ["short", "much longer than this " * 20, None, " "])
    chosen = replace(options, soft_weight=0.0, rationale_weight=1.0, max_length=256, epochs=1)
    report = distil_causal(SPEC, table, None, None, tmp_path / "s", chosen).report
    assert report["rows"]["second"] == 1
    assert "the reasoning of 1 rows does not fit distil.max_length and is left out" in report["notes"]


def test_a_cut_student_and_an_origins_share_go_with_it(tmp_path, options):  # noqa: F811
    """The uncut model's states are of the outputs alone; a table that is weighed by origin keeps its reasoning."""
    chosen = replace(
        options, soft_weight=0.0, rationale_weight=0.5, max_length=512, epochs=1, student_layers=1,
        sampling={"generated": 2.0},
    )  # fmt: skip
    report = train_generator(SPEC, explained(), None, None, tmp_path / "s", chosen).report
    assert report["rows"]["second"] == 3


def test_a_killed_training_goes_on_only_with_the_same_reasoning(tmp_path, options):  # noqa: F811
    chosen = replace(
        options, soft_weight=0.0, rationale_weight=1.0, max_length=512, epochs=2, batch_size=2, keep_checkpoints=True
    )
    out = tmp_path / "s"

    def stop(event):
        if event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil_causal(SPEC, explained(), None, None, out, chosen, listener=stop)
    stamp = checkpoint_folder(out) / "key"
    before = stamp.read_text()
    distil_causal(SPEC, explained(), None, None, out, chosen)
    assert stamp.read_text() == before
    other = with_rationales(explained(), ["as b comes first", None, "c", None])
    distil_causal(SPEC, other, None, None, out, chosen)
    assert stamp.read_text() != before
    assert json.loads((out / "potstill.json").read_text())["instruction"] == SPEC.instruction


def test_where_it_cannot_be_learnt_it_is_refused_with_a_mend():
    with pytest.raises(OptionError, match=r"distil\.rationale_weight is for generation students; leave it out"):
        check_for_kind(DistilOptions(rationale_weight=1.0), "classification")
    with pytest.raises(OptionError, match="rationale_weight and on_policy exclude each other"):
        check_for_kind(DistilOptions(rationale_weight=1.0, on_policy=0.5), "generation")
    with pytest.raises(OptionError, match=r"distil\.rationale_weight must be 0 or more"):
        DistilOptions(rationale_weight=-1.0)
    check_for_kind(DistilOptions(rationale_weight=1.0), "instructions")
