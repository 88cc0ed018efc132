"""Chat templates by which a model answers at once: the form of each family that thinks first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.answering_template import CLOSED, answering_template, opens_thought

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
FORMS = {
    "qwen3": TURNS + OPEN + "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}",
    "smollm3": "{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{{ '/think' if enable_thinking else '/no_think' }}" + TURNS + OPEN
    + "{% if not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}",
    "by default": "{%- set enable_thinking = enable_thinking | default(true) %}" + TURNS + OPEN
    + "{{ '<think>\\n' if enable_thinking else '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
    "deepseek-r1": TURNS + OPEN + "<think>\n{% endif %}",
    "one without a line end": TURNS + OPEN + "{{ '<think>' }}{% endif %}\n",
    "with an empty line": TURNS + OPEN + "{{ '<think>\\n\\n' }}{% endif %}",
    "text at the end": TURNS + "<|im_start|>assistant\n<think>",
    "text and a line end": TURNS + "<|im_start|>assistant\n<think>\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, tiny_causal: Callable[[Path], Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_causal(tmp_path_factory.mktemp("tiny") / "model"))


def rendered(tokenizer: Any, template: str, **told: Any) -> str:
    text: str = tokenizer.apply_chat_template(
        CHAT, tokenize=False, add_generation_prompt=True, chat_template=template, **told
    )
    return text


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_comes_behind_an_empty_thought(form: str, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.chat_template = FORMS[form]
    template = answering_template(tokenizer)
    assert template is not None
    for told in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
        prompt = rendered(tokenizer, template, **told)
        assert prompt.endswith(f"<|im_start|>assistant\n{CLOSED}"), told
        assert prompt.count("<think>") == 1
        assert not opens_thought(prompt)
    assert prompt == rendered(tokenizer, FORMS[form], enable_thinking=False) or opens_thought(
        rendered(tokenizer, FORMS[form], enable_thinking=False)
    ), "where the switch does it, nothing else is changed"
    # A turn that is over is rendered as before, and the template holds when it is saved and made anew.
    closed = tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template=template, add_generation_prompt=False)
    if "add_generation_prompt" in FORMS[form]:
        assert "think>" not in closed
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert rendered(again, again.chat_template) == prompt
    assert rendered(again, str(answering_template(again))) == prompt


def test_a_model_that_does_not_think_keeps_its_template(tokenizer: Any) -> None:
    for template in (
        TURNS + OPEN + "{% endif %}",
        TURNS + OPEN + "{% endif %}\n",
        "{{ raise_exception('no plain chat') }}",
        TURNS.replace("m.content", "m.content | replace('<think>', '')") + OPEN + "{% endif %}",
    ):
        tokenizer.chat_template = template
        assert answering_template(tokenizer) == template
    tokenizer.chat_template = None
    assert answering_template(tokenizer) is None


def test_of_several_templates_the_one_for_chats_is_taken(tokenizer: Any) -> None:
    tokenizer.chat_template = {"default": FORMS["qwen3"], "tool_use": "tools"}
    assert rendered(tokenizer, str(answering_template(tokenizer))).endswith(CLOSED)


def test_gpt_oss_speaks_to_the_user(tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant"
    )
    tokenizer.chat_template = template
    assert answering_template(tokenizer) == template, "one without channels"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|channel|>", "<|message|>"]})
    assert rendered(tokenizer, str(answering_template(tokenizer))).endswith(
        "<|start|>assistant<|channel|>final<|message|>"
    )
