"""What would end a training is told before a teacher writes a row."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import potstill
from potstill.asking.ledger import Ledger
from potstill.errors import DataError, MissingExtra, OptionError, PotstillError, UserError
from potstill.models import MINILM, SMOLLM2
from potstill.plan.estimate import plan_run
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions, SearchOptions, check_for_kind
from potstill.train.ready import check_prompts, check_student, check_tokenizers

SAY_IT = TaskSpec("t", "Say it.", "generation")
TASK = "---\nlabels: [good, bad]\n---\nIs a review good or bad?\n"


def without(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else found(name, *rest))


def config(folder: Path, **fields: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    save_file({"weights": np.ones((4, 4), dtype=np.float32)}, folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize(
    ("distil", "error", "said"),
    [
        ({"student": "./no-model-here"}, UserError, "no model at no-model-here"),
        ({"qlora": True}, OptionError, "qlora is for generation students"),
        ({"lora_rank": 8}, OptionError, "lora_rank is for generation students"),
        ({"student_layers": 9}, UserError, "student_layers 9 is more than the 6 layers of .*; choose 1 to 6"),
        ({"student_layer_ids": [0, 6]}, UserError, "student_layer_ids names layer 6; .* has 0 to 5"),
        ({"max_length": 4096}, UserError, "max_length 4096 is more than the 512 positions"),
    ],
)
def test_a_run_whose_student_cannot_be_trained_asks_for_nothing(
    tmp_path: Path, distil: dict[str, Any], error: type[PotstillError], said: str
) -> None:
    file, out = tmp_path / "task.md", tmp_path / "run"
    file.write_text(TASK)
    with pytest.raises(error, match=said):
        potstill.run(str(file), out=out, teacher="fake", n=20, distil=distil)
    assert Ledger(out / "ledger.sqlite", read_only=True).totals().replies == 0
    assert not (out / "datagen").exists()
    with pytest.raises(error, match=said):
        plan_run(str(file), out=tmp_path / "plan", teacher="fake", n=20, distil=distil)


def test_a_student_that_is_to_be_found_is_looked_for_first(tmp_path: Path) -> None:
    file, out = tmp_path / "task.md", tmp_path / "run"
    file.write_text(TASK)
    with pytest.raises(DataError, match="no model of the catalogue can be the student"):
        potstill.run(str(file), out=out, teacher="fake", n=20, distil={"student": "auto"}, retrieval={"student_mib": 1})
    assert not (out / "datagen").exists()


def without_template(folder: Path, source: Path) -> str:
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").unlink()
    return str(folder)


def test_models_that_cannot_be_asked_anything_are_refused_before_a_row_is_written(
    tmp_path: Path, tiny_llama: Path, tiny_merged: Path
) -> None:
    (tmp_path / "task.md").write_text("---\nkind: generation\n---\nSay it.\n")
    base = without_template(tmp_path / "base", tiny_llama)
    with pytest.raises(UserError, match=r"distil\.student '.*base' has no chat template, so it cannot be asked"):
        potstill.run(str(tmp_path / "task.md"), out=tmp_path / "run", teacher="fake", n=5, distil={"student": base})
    assert not (tmp_path / "run" / "datagen").exists()
    plain = DistilOptions(student=str(tiny_llama))
    check_prompts(plain, SAY_IT)
    check_prompts(replace(plain, student=base), TaskSpec("t", "Good or bad?", "classification", labels=("a", "b")))
    theirs = without_template(tmp_path / "theirs", tiny_merged)
    other = replace(plain, on_policy=0.5, teacher=theirs)
    with pytest.raises(UserError, match=r"distil\.teacher '.*theirs' has no chat template"):
        check_prompts(replace(other, cross_tokenizer="gold"), SAY_IT)
    check_prompts(replace(other, cross_tokenizer="gold", teacher=str(tiny_merged)), SAY_IT)
    # One of the student's own tokens reads the student's prompt.
    check_prompts(replace(other, teacher=base), SAY_IT)


def test_an_instruction_that_leaves_no_room_for_an_answer_is_refused(tiny_llama: Path, tiny_merged: Path) -> None:
    from transformers import AutoTokenizer

    from potstill.train.encode import encode_prompt

    ours, theirs = (
        len(encode_prompt(AutoTokenizer.from_pretrained(folder), SAY_IT, "", 1000))
        for folder in (tiny_llama, tiny_merged)
    )
    plain = DistilOptions(student=str(tiny_llama), max_length=ours + 2)
    said = rf"takes {ours} tokens of distil\.student .*max_length leaves {ours} for it .* raise that by 1 or more"
    with pytest.raises(UserError, match=said):
        check_prompts(plain, SAY_IT)
    check_prompts(replace(plain, max_length=ours + 3), SAY_IT)
    assert theirs > ours + 2
    crossed = replace(plain, teacher=str(tiny_merged), on_policy=0.5, cross_tokenizer="gold", max_length=theirs)
    with pytest.raises(UserError, match=rf"takes {theirs} tokens of distil\.teacher .* leaves {theirs} for it"):
        check_prompts(crossed, SAY_IT)
    check_prompts(replace(crossed, max_length=theirs + 1), SAY_IT)


def test_models_of_the_other_kind_and_of_none_are_refused(tmp_path: Path) -> None:
    seeing = config(tmp_path / "clip", model_type="clip")
    with pytest.raises(UserError, match=f"is a clip, which transformers gives no .* such as {MINILM}"):
        check_student(DistilOptions(student=seeing), "classification")
    reading = config(tmp_path / "reader", model_type="distilbert")
    with pytest.raises(UserError, match=f"is a distilbert, which transformers gives no .* such as {SMOLLM2}"):
        check_student(DistilOptions(student=reading), "generation")
    check_student(DistilOptions(student=reading), "classification")
    for kind in ("generation", "instructions"):
        check_student(DistilOptions(student=SMOLLM2), kind)
    broken = config(tmp_path / "broken")
    with pytest.raises(UserError, match=r"the student '.*broken' cannot be loaded"):
        check_student(DistilOptions(student=broken), "classification")
    with pytest.raises(UserError, match="no model at "):
        check_student(DistilOptions(on_policy=0.5, teacher=str(tmp_path / "gone")), "generation")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "gemma4_text", "num_hidden_layers": 4, "hidden_size_per_layer_input": 8,
          "layer_types": ["full_attention"] * 4}, "an embedding of each token for each layer"),
        ({"model_type": "gpt_neo", "num_layers": 4, "attention_types": [[["global", "local"], 2]]}, "by their number"),
    ],
)  # fmt: skip
def test_a_model_that_can_lose_no_layer_is_refused_where_it_would(
    fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """It ended in the first step of its training, when its rows had been paid for."""
    options = DistilOptions(student=config(tmp_path / "student", **fields))
    check_student(options, "generation")
    for cut in ({"student_layers": 2}, {"student_layer_ids": (0, 3)}):
        with pytest.raises(UserError, match=f"{said}.*leave distil.student_layers out"):
            check_student(replace(options, **cut), "generation")


@pytest.mark.parametrize("length", [0, 5, 40, -1])
def test_weights_that_are_not_whole_are_seen_first(tmp_path: Path, length: int) -> None:
    folder = config(tmp_path / "copied", model_type="distilbert")
    weights = Path(folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(UserError, match=r"copied' cannot be loaded \(model.safetensors is not whole; copy it again\)"):
        check_student(DistilOptions(student=folder), "classification")


def test_weights_that_are_not_there_are_seen_first(tmp_path: Path) -> None:
    folder = config(tmp_path / "split", model_type="distilbert")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (Path(folder) / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model-2.safetensors is missing"):
        check_student(DistilOptions(student=folder), "classification")
    for path in Path(folder).glob("model*"):
        path.unlink()
    with pytest.raises(UserError, match=r"it holds no weights"):
        check_student(DistilOptions(student=folder), "classification")


def test_libraries_of_options_that_are_on_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, ("optuna", "peft", "bitsandbytes"))
    plain = DistilOptions()
    check_student(plain, "generation")
    for options, library in (
        (replace(plain, search=SearchOptions(trials=2)), "optuna"),
        (replace(plain, lora_rank=4), "peft"),
        (replace(plain, qlora=True), "peft"),
    ):
        with pytest.raises(MissingExtra, match=library):
            check_student(options, "generation")


def test_generation_students_are_not_born_again() -> None:
    options = DistilOptions(generations=3, ensemble=True)
    with pytest.raises(OptionError) as caught:
        check_for_kind(options, "generation")
    assert [fault.split()[0] for fault in caught.value.faults] == ["distil.generations", "distil.ensemble"]


def test_a_teacher_of_other_tokens_is_refused_before_it_is_asked(tiny_llama, tiny_merged):
    one, other = str(tiny_llama), f"transformers:{tiny_merged}"
    plain = DistilOptions(student=one)
    with pytest.raises(UserError, match=rf"another tokenizer.*distil\.teacher_tokenizer={tiny_merged}"):
        check_tokenizers(plain, "generation", other)
    with pytest.raises(UserError, match=r"another tokenizer.*distil\.cross_tokenizer=gold"):
        check_tokenizers(replace(plain, on_policy=0.5), "instructions", other)
    for fitting in (
        replace(plain, teacher_tokenizer=str(tiny_merged)),
        replace(plain, soft_weight=0.0),
        replace(plain, method="sequence"),
        replace(plain, on_policy=0.5, cross_tokenizer="gold"),
        replace(plain, on_policy=0.5, teacher=one),
    ):
        check_tokenizers(fitting, "generation", other)
    check_tokenizers(plain, "generation", f"vllm:{tiny_llama}")
    check_tokenizers(plain, "generation", "openai:http://127.0.0.1:1#m")
    check_tokenizers(plain, "generation", "transformers:some/model-that-is-not-here")
    check_tokenizers(plain, "classification", other)
