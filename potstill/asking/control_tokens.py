"""Texts that spell a model's control tokens: told apart from the tokens, so that nobody's words end a turn."""

from __future__ import annotations

import contextlib
from typing import Any
from weakref import WeakKeyDictionary

_KNOWN: WeakKeyDictionary[Any, ControlTokens] = WeakKeyDictionary()


class ControlTokens:
    """Those of one tokenizer (of transformers).

    Attributes:
        tokens: As they are spelled, the longest first.
    """

    def __init__(self, tokenizer: Any):
        """Args:
        tokenizer: Of the model.
        """
        found = {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
        for token in getattr(tokenizer, "added_tokens_decoder", {}).values():
            if getattr(token, "special", False):
                found.add(str(getattr(token, "content", token)))
        self.tokens = tuple(sorted((token for token in found if len(token) > 2), key=len, reverse=True))

    def spelled_out(self, text: str) -> str:
        """The text with a space in each control token that it spells, which a tokenizer then reads as text."""
        for token in self.tokens:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        # A lone surrogate has no UTF-8 form, which the tokenizer needs.
        return text.encode("utf-8", "replace").decode()


def control_tokens(tokenizer: Any) -> ControlTokens:
    """Those of a tokenizer, looked up once."""
    with contextlib.suppress(TypeError):  # one that cannot be weakly referred to
        if (known := _KNOWN.get(tokenizer)) is None:
            known = _KNOWN[tokenizer] = ControlTokens(tokenizer)
        return known
    return ControlTokens(tokenizer)
