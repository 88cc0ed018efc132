"""Checkpoints that read pictures too: the half that reads and writes text is taken, asked, trained and saved alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from potstill.asking.teacher import AnyRequest, Message, Reply, Request, ScoreRequest
from potstill.datagen.teachers.local import LocalOptions, LocalTeacher
from potstill.decoding.text_model import load_text_model, reads_more_than_text, text_config, writes_text
from potstill.errors import UserError
from potstill.models import SMOLLM2, local_model
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.causal import distil_causal
from potstill.train.compress.state import open_source
from potstill.train.options import DistilOptions
from potstill.train.ready import check_student
from potstill.train.student import load_student

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.2,
}  # fmt: skip
EYES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
# What is published under these names: one type for the text half and one for the whole; one class for both kinds of
# loading; a text half of a kind that has no class of its own.
WHOLES: dict[str, dict[str, Any]] = {
    "gemma3": {"text_config": {**TEXT, "sliding_window": 16}, "vision_config": EYES, "mm_tokens_per_image": 4},
    "mistral3": {
        "text_config": {**TEXT, "model_type": "ministral3"}, "tie_word_embeddings": False,
        "vision_config": {**EYES, "model_type": "pixtral", "head_dim": 8},
    },
    "qwen3_5": {
        "text_config": {
            **TEXT, "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 2,
            "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        },
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 32,
        },
    },
    "qwen3_vl": {
        "text_config": TEXT,
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
        },
    },
}  # fmt: skip
SPEC = TaskSpec("echo", "Say it.", "generation", metric="exact_match")


def made(kind: str, place: Path) -> Any:
    """A random checkpoint with the embedded teacher's tokenizer, and the model that it was saved from."""
    from transformers import CONFIG_MAPPING, AutoModelForMultimodalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(local_model(SMOLLM2))
    torch.manual_seed(0)
    fields = dict(WHOLES[kind])
    fields["text_config"] = {
        **fields["text_config"], "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    whole = AutoModelForMultimodalLM.from_config(CONFIG_MAPPING[kind](**fields)).float().eval()
    whole.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return whole


@pytest.mark.parametrize("kind", ["gemma3", "mistral3", "qwen3_5"])
def test_the_text_half_says_what_the_whole_says_and_is_saved_alone(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole = made(kind, tmp_path / "whole")
    half = load_text_model(str(tmp_path / "whole"), dtype=torch.float32)
    half.save_pretrained(tmp_path / "half")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32)
    ids = torch.arange(100, 140).unsqueeze(0)
    with torch.no_grad():
        said = whole(input_ids=ids).logits
        assert torch.equal(half(input_ids=ids).logits, said)
        assert torch.equal(again(input_ids=ids).logits, said)
    assert not any("vision" in name for name, _ in half.named_parameters())
    assert not any(weight.is_meta for weight in (*half.parameters(), *half.buffers()))
    assert (half.generation_config.eos_token_id, half.training) == (whole.generation_config.eos_token_id, False)
    assert (reads_more_than_text(whole.config), reads_more_than_text(again.config)) == (True, False)
    assert type(text_config(whole.config)) is type(half.config)


def test_a_text_half_of_a_kind_without_a_language_model_is_refused(tmp_path: Path) -> None:
    made("qwen3_vl", tmp_path / "whole")
    with pytest.raises(ValueError, match="a qwen3_vl reads more than text, and transformers has no language model"):
        load_text_model(str(tmp_path / "whole"))
    with pytest.raises(UserError, match=r"cannot be loaded .*a qwen3_vl reads more than text"):
        answers(LocalTeacher(str(tmp_path / "whole")), [Request((Message("user", "Hi"),))])
    with pytest.raises(UserError, match="is a qwen3_vl, which transformers gives no head that writes"):
        check_student(DistilOptions(student=str(tmp_path / "whole")), "generation")


def answers(teacher: LocalTeacher, requests: Sequence[AnyRequest]) -> list[Reply]:
    given: Iterator[Sequence[AnyRequest]] = iter([requests])
    found = {id(request): reply for request, reply in teacher.stream(lambda room: next(given, ()))}
    replies = [found[id(request)] for request in requests]
    assert all(isinstance(reply, Reply) for reply in replies), replies
    return [reply for reply in replies if isinstance(reply, Reply)]


def test_a_teacher_that_reads_pictures_answers_and_scores(tmp_path: Path) -> None:
    whole = made("gemma3", tmp_path / "whole")
    ask = (Message("user", "Name a fruit."),)
    teacher = LocalTeacher(str(tmp_path / "whole"), LocalOptions(dtype="float32"))
    told, scored = answers(
        teacher, [Request(ask, max_tokens=6, temperature=0.0), ScoreRequest(ask, ("apple", "a pear"))]
    )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Name a fruit."}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    plain = whole.generate(input_ids=ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :]
    assert told.text == tokenizer.decode(plain, skip_special_tokens=True)
    pear = tokenizer("a pear", add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logprobs = whole(input_ids=torch.cat([ids, pear], 1)).logits[0, ids.shape[1] - 1 : -1].log_softmax(-1)
    assert scored.scores[1] == pytest.approx(float(logprobs.gather(1, pear.T).sum()), abs=1e-3)


def test_a_student_of_a_model_that_reads_pictures_is_a_plain_language_model(tmp_path: Path) -> None:
    """Training ended in a traceback, after all rows had been paid for."""
    made("gemma3", tmp_path / "base")
    words = ["ab", "ba", "aab", "abb"]
    rows = rows_to_dataset([Row(f"w{i}", word, "generated", Source(row=i)) for i, word in enumerate(words)], [])
    options = DistilOptions(
        student=str(tmp_path / "base"), student_layers=1, epochs=2, batch_size=2, max_length=96, early_stopping=None
    )
    check_student(options, "generation")
    result = distil_causal(SPEC, rows, None, None, tmp_path / "student", options)
    student = load_student(result.path)
    assert [p.output for p in student.predict(words)] == [student(word) for word in words]
    state = open_source(result.path)
    assert type(state.model).__name__ == "Gemma3ForCausalLM"
    assert not any("vision" in name for name, _ in state.model.named_parameters())


def test_a_bare_model_that_reads_pictures_can_be_compressed(tmp_path: Path) -> None:
    made("gemma3", tmp_path / "bare")
    state = open_source(tmp_path / "bare")
    assert (type(state.model).__name__, state.kind) == ("Gemma3ForCausalLM", "causal")


def test_a_language_model_is_one_whatever_its_class_is_called() -> None:
    """A bare GPT-2 was taken for a student whose task is missing."""
    from transformers import BertConfig, GPT2Config

    assert writes_text(GPT2Config(architectures=["GPT2LMHeadModel"]))
    assert not writes_text(BertConfig(architectures=["BertForSequenceClassification"]))
