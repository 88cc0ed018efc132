"""Weights from early in a training, made anew, and lottery tickets that are wound back to them by a recipe."""

import json
import shutil
from dataclasses import replace

import mood
import pytest
import torch

from potstill.errors import OptionError
from potstill.train import loop
from potstill.train.classify import distil_classifier
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.recipe import parse_recipe
from potstill.train.compress.run import Material, compress_student
from potstill.train.early import early_faults, early_weights
from potstill.train.options import DistilOptions
from potstill.train.student import TRAINING, load_student

ROWS, HELD_OUT = mood.reviews(120), mood.reviews(40, 1)
QUICK = CompressOptions(formats=("packed",), speed="none")


@pytest.fixture(scope="module")
def trained(tiny_bert, tmp_path_factory):
    """A student with dropout and a fitted head, and what its weights were after each step."""
    seen, real = {}, loop.Progress.on_step_end

    def note(self, args, state, control, model=None, **more):
        seen[state.global_step] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        return real(self, args, state, control, **more)

    options = DistilOptions(
        student=str(tiny_bert), epochs=4, min_steps=1, learning_rate=2e-3, max_length=32, freeze_embeddings=False,
        early_stopping=None, keep_checkpoints=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("early") / "mood"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Progress, "on_step_end", note)
        distil_classifier(mood.SPEC, ROWS, HELD_OUT, folder, options)
    return folder, seen


def mean_distance(one, other):
    return float(torch.cat([(value - other[name]).abs().flatten() for name, value in one.items()]).mean())


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_weights_are_those_that_the_training_passed_through(trained, share):
    folder, seen = trained
    step = round(share * max(seen))
    assert 0 < step < max(seen)
    found = early_weights(folder, mood.SPEC, ROWS, share)
    assert set(found) == set(seen[step])
    # Rounding depends on where tensors lie in memory, and where a gradient is next to 0 it turns a step of Adam: what
    # is 2e-8 apart after 8 steps may be 2e-5 apart after 16, where the steps beside are 1.5e-4 away.
    off, *others = (mean_distance(found, seen[at]) for at in (step, step - 1, step + 1))
    assert off < 0.3 * min(others)
    apart = max(float((value - seen[max(seen)][name]).abs().max()) for name, value in found.items())
    assert apart > 1e-3, "the training went on from there"


def test_a_share_of_nothing_is_the_start(trained):
    folder, seen = trained
    found, later = early_weights(folder, mood.SPEC, ROWS, 0.0), early_weights(folder, mood.SPEC, ROWS, 3 / max(seen))
    moved = [name for name, value in found.items() if not torch.equal(value, later[name])]
    assert moved
    for name, value in later.items():
        assert float((value - found[name]).abs().max()) < 0.05  # three steps away


def material(rows=ROWS):
    return Material(tuple(ROWS["input"]), tuple(ROWS["output"]), mood.SPEC, mood.reviews(60, 2), learnt=rows)


def test_a_recipe_winds_a_ticket_back_to_an_early_state(trained, tmp_path):
    folder, seen = trained
    recipe = "lottery:0.4,rewind=0.25,rounds=1,steps=1,learning_rate=1e-8"
    result = compress_student(folder, recipe, tmp_path / "small", material(), QUICK)
    step = result.report["steps"][1]
    assert step["facts"]["rewound_to"] == "early"
    assert step["facts"]["rewind"] == 0.25
    assert step["zeros"] == pytest.approx(0.4, abs=0.01)
    # One step at next to no rate leaves the ticket where it was wound back to.
    early, ticket = seen[round(0.25 * max(seen))], load_student(result.path).model.state_dict()
    for name, value in ticket.items():
        kept = value != 0
        torch.testing.assert_close(value[kept], early[name][kept], rtol=0, atol=1e-4)  # a step moves weights by 1e-3


def test_a_ticket_that_cannot_be_wound_back_is_refused_before_any_work(trained, tmp_path):
    folder, _ = trained
    cases = [(material(None), "the rows that the student was trained on are not here; give its run, not its folder"),
             (material(mood.reviews(120, 9)), "the rows at hand are not those that the student was trained on"),
             (replace(material(), spec=None, test=None), "only a classification student's folder says")]  # fmt: skip
    for given, why in cases:
        with pytest.raises(OptionError, match=f"lottery:0.5,rewind=0.1: {why}.*; leave out rewind"):
            compress_student(folder, "lottery:0.5,rewind=0.1", tmp_path / "small", given, QUICK)
    assert not (tmp_path / "small.steps").exists()
    with pytest.raises(OptionError, match=r"lottery comes after layers, and rewind=0.1 goes back to before it"):
        parse_recipe("layers:1 -> lottery:0.5,rewind=0.1")
    with pytest.raises(OptionError, match=r"rewind=1.5 is too large; the most is 0.99"):
        parse_recipe("lottery:0.5,rewind=1.5")


def test_a_student_of_which_too_little_is_known_has_no_early_weights(trained, tmp_path):
    folder, _ = trained
    other, tokenizer = tmp_path / "other", load_student(folder).tokenizer
    shutil.copytree(folder, other)
    told = json.loads((other / TRAINING).read_text())

    def faults():
        return " ".join(early_faults(other, mood.SPEC, ROWS, tokenizer))

    assert faults() == ""
    for change, why in [({"deep": "a student"}, "began from an earlier one"), ({"rounds": [{}, {}]}, "began from an"),
                        ({"start": "another"}, "from which the student was trained, is another one now"),
                        ({"options": {"epochz": 3}}, "does not say how the student was trained")]:  # fmt: skip
        (other / TRAINING).write_text(json.dumps({**told, **change}))
        assert why in faults()
    (other / TRAINING).unlink()
    assert "does not say how the student was trained" in faults()
