"""Answers of the shrinking batch are those that the library's `generate` gives, whatever the model's attention."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from potstill.decoding.batch_check import decoding_fault, known_manner, manner_of
from potstill.decoding.greedy import greedy_writer

ENDS = [1, 3, 5, 7, 9, 11]


def model_of(kind: str) -> Any:
    """A random model, a quarter of whose tokens end an answer."""
    from transformers import AutoModelForCausalLM
    from transformers.models import bloom, falcon, gemma3, gpt2, gpt_neo, lfm2, llama, mistral

    torch.manual_seed(4)
    shape: dict[str, Any] = {
        "vocab_size": 24, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "eos_token_id": ENDS, "pad_token_id": 0,
        "bos_token_id": 2, "initializer_range": 0.5, "tie_word_embeddings": False,
    }  # fmt: skip
    config = {
        "llama": lambda: llama.LlamaConfig(**shape),
        "mistral": lambda: mistral.MistralConfig(**shape, sliding_window=8),
        "gemma3": lambda: gemma3.Gemma3TextConfig(
            **shape, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
        ),
        "gpt2": lambda: gpt2.GPT2Config(
            vocab_size=24, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=ENDS, bos_token_id=2,
            initializer_range=0.5, tie_word_embeddings=False,
        ),
        # A window that no mask shows, biases by place, and one that could be either.
        "gpt_neo": lambda: gpt_neo.GPTNeoConfig(
            vocab_size=24, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=512, eos_token_id=ENDS,
            bos_token_id=2, initializer_range=0.5, attention_types=[[["global", "local"], 1]], window_size=256,
        ),
        "bloom": lambda: bloom.BloomConfig(
            vocab_size=24, hidden_size=32, n_layer=2, n_head=4, eos_token_id=ENDS, bos_token_id=2, initializer_range=0.5
        ),
        "lfm2": lambda: lfm2.Lfm2Config(**shape, layer_types=["conv", "full_attention"]),
        "falcon": lambda: falcon.FalconConfig(**{**shape, "num_key_value_heads": None}),
    }[kind]()  # fmt: skip
    return AutoModelForCausalLM.from_config(config).float().eval()


class Tokens:
    """A tokenizer whose text is the ids."""

    eos_token_id = ENDS[0]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(str(token) for token in ids if token not in ENDS)


def library(model: Any, prompt: list[int], room: int) -> str:
    ids = torch.tensor([prompt])
    found = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=room, eos_token_id=ENDS,
        pad_token_id=0,
    )  # fmt: skip
    return Tokens().decode(found[0, len(prompt) :].tolist())


def prompts(count: int = 16) -> list[list[int]]:
    """Some alike, some that begin alike, of many lengths."""
    random = Random(0)
    start = [random.randrange(2, 24) for _ in range(12)]
    fresh = [[random.randrange(2, 24) for _ in range(random.randrange(1, 20))] for _ in range(count)]
    return [*fresh, *([*start, *prompt] for prompt in fresh[:4]), fresh[0], fresh[0]]


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3", "gpt2", "falcon", "gpt_neo", "bloom", "lfm2"])
@pytest.mark.parametrize("slots", [1, 5, 64])
def test_answers_are_those_of_the_library(kind: str, slots: int) -> None:
    model = model_of(kind)
    asked = prompts()
    expected = [library(model, prompt, 12) for prompt in asked]
    assert len({len(text.split()) for text in expected}) > 3, "every answer is as long as the others"
    attention, counts = model.config._attn_implementation, []
    writer = greedy_writer(model, Tokens(), slots)
    assert writer is not None
    assert writer.answers(asked, 12, counts.append) == expected
    assert writer.answers(asked[:3], 12) == expected[:3]
    assert counts == sorted(counts)
    assert counts[-1] == len(asked)
    assert model.config._attn_implementation == attention
    assert [library(model, prompt, 12) for prompt in asked[:3]] == expected[:3]


def test_an_answer_ends_with_the_models_context() -> None:
    model = model_of("llama")
    prompt = prompts()[0] * 8
    writer = greedy_writer(model, Tokens())
    assert writer is not None
    (text,) = writer.answers([prompt[:60]], 50)
    assert len(text.split()) <= 4


def test_a_call_that_was_broken_off_leaves_nothing_behind() -> None:
    model = model_of("llama")
    writer = greedy_writer(model, Tokens(), 4)
    assert writer is not None
    expected = writer.answers(prompts()[:6], 12)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.answers(prompts(), 12, stop)
    assert writer.answers(prompts()[:6], 12) == expected


def test_models_with_other_rules_or_layers_are_left_to_the_library(tmp_path: Path) -> None:
    model = model_of("llama")
    model.generation_config.repetition_penalty = 1.2
    assert greedy_writer(model, Tokens()) is None
    model.generation_config.repetition_penalty = 1.0
    assert greedy_writer(model, Tokens()) is not None


@pytest.mark.parametrize("kind", ["gpt_neo", "bloom"])
def test_a_model_whose_layers_make_their_own_masks_is_found_out(kind: str) -> None:
    """Rows side by side would have been other words, without a fault."""
    model = model_of(kind)
    assert known_manner(model) == "padded"
    assert decoding_fault(model)


def test_kinds_that_are_known_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.decoding.batch_check.prompts_of", None)
    assert manner_of(model_of("llama")) == ("slots", "")
    assert manner_of(model_of("bloom")) == ("padded", "")
