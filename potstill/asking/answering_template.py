"""A chat template by which a model answers at once, though it would think first.

Templates of such models have a switch (`enable_thinking` of Qwen3, SmolLM3 and GLM; `thinking` of DeepSeek V3.1 and
Granite), or open a thought themselves (DeepSeek-R1, Qwen3-Thinking, QwQ), or leave the channel to the model (gpt-oss).
What leaves is the same template with the switch off and the thought closed, empty. A teacher scores labels and writes
rows by it, and a student is trained, saved and served with it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from potstill.asking.control_tokens import ControlTokens

SWITCHES = ("enable_thinking", "thinking")
# An empty thought, as Qwen3's template writes it for a model that is not to think.
CLOSED = "<think>\n\n</think>\n\n"
_OPENED = re.compile(r"<think>(\s*)\Z")
# gpt-oss writes into channels (the "harmony" format); what it says to the user stands in the last of them.
_TO_CHANNEL, _CHANNEL, _LAST_CHANNEL = "<|start|>assistant", "<|channel|>", "<|channel|>final<|message|>"
_PROBE = [{"role": "user", "content": "Hello"}]


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends within a thought, so that a reply begins in it."""
    return _OPENED.search(prompt) is not None


def answering_template(tokenizer: Any) -> str | None:
    """The chat template of a tokenizer (of transformers) with which its model answers at once.

    Returns:
        The template as it is where its model does not think, and None where there is none.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    template: str = tokenizer.get_chat_template()
    # Set first of all, so that nobody's argument and no default of the template's turns them on again.
    switched = "".join(f"{{%- set {name} = false %}}" for name in SWITCHES if name in template) + template
    try:
        prompt = tokenizer.apply_chat_template(
            _PROBE, tokenize=False, add_generation_prompt=True, chat_template=switched
        )
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "jinja2":
            raise
        return template  # one that refuses so plain a chat is told of where the task's own is rendered
    missing = _missing(prompt, ControlTokens(tokenizer).tokens)
    if not missing:
        return switched
    # Jinja drops a line end at the end of a template, where this one ends no more.
    return switched.removesuffix("\n") + "{% if add_generation_prompt %}{{ " + repr(missing) + " }}{% endif %}"


def _missing(prompt: str, marks: Collection[str]) -> str:
    """What a prompt lacks at its end for the answer to come right behind it.

    Examples:
        >>> _missing("<|Assistant|><think>\\n", ()), _missing("<|Assistant|>", ())
        ('\\n</think>\\n\\n', '')
    """
    if prompt.endswith(_TO_CHANNEL) and _CHANNEL in marks:
        return _LAST_CHANNEL
    found = _OPENED.search(prompt)
    if found is None:
        return ""
    lines = found[1] if found[1] in ("", "\n", "\n\n") else ""
    return CLOSED.removeprefix(f"<think>{lines}")
