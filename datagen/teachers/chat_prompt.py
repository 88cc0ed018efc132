"""A chat as the text, and the tokens, that a model in this process reads.

What enters is a request's messages and prefill; what leaves is the prompt as the model's own chat template
renders it, with the assistant's turn opened and the prefill appended. Text that a message holds cannot open or
close a turn: where it spells one of the template's control tokens, the token is broken up.

A user's turn can be opened instead, so that an aligned model writes the user's words (Magpie, arXiv:2406.08464 §2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.asking.teacher import AnyRequest, Message, Request
from potstill.errors import UserError
from potstill.models import local_model

# Stands for a user's words where the template is rendered to see what is around them.
_WORDS = "Zq7"


@dataclass(frozen=True)
class Opened:
    """A prompt with a turn opened at its end, and what ends that turn beside the model's own ends.

    Attributes:
        text: The prompt, ending where the words begin that are to be written.
        end: The control token that follows a user's words; None where plain text does, and for the model's own turn.
        stop: That text, or "".
    """

    text: str
    end: int | None = None
    stop: str = ""


def template_fault(ref: str) -> str:
    """Why a model cannot write a user's turn, with the mend; "" where it can, or where it cannot be loaded to tell."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(local_model(ref))
    except (OSError, ValueError):
        return ""  # which is told when the model is loaded
    return "" if getattr(tokenizer, "chat_template", None) else no_template(ref)


def no_template(ref: str) -> str:
    """What is said of a model without a chat template."""
    return (
        f"the model {ref} has no chat template, so nothing tells it that a user's turn begins; take its instruct or "
        "chat version as the teacher"
    )


class ChatPrompt:
    """Renders and tokenises prompts for one tokenizer (of transformers).

    Without a chat template (a base model) the messages are joined by blank lines.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._control = tuple(
            sorted((token for token in _control_tokens(tokenizer) if len(token) > 2), key=len, reverse=True)
        )
        self._has_template = bool(getattr(tokenizer, "chat_template", None))
        self._takes_system = True
        self._continuations: dict[tuple[str, str], tuple[int, ...]] = {}

    def opened(self, request: AnyRequest) -> Opened:
        """The prompt of a request, with the turn opened that it wants written.

        Raises:
            UserError: As `user_turn`.
        """
        if isinstance(request, Request) and request.turn == "user":
            return self.user_turn(request.messages, request.prefill)
        return Opened(self.text(request.messages, request.prefill))

    def text(self, messages: Sequence[Message], prefill: str = "") -> str:
        """The prompt, ending where the reply begins."""
        turns = [{"role": message.role, "content": self._plain(message.content)} for message in messages]
        if not self._has_template:
            return "\n\n".join(turn["content"] for turn in turns) + "\n\n" + prefill
        if not self._takes_system:
            turns = _fold_system(turns)
        try:
            return self._render(turns) + prefill
        except Exception as error:
            # Some templates refuse a system turn; its text then opens the first user turn.
            if type(error).__name__ != "TemplateError" or turns[0]["role"] != "system":
                raise
            self._takes_system = False
            return self._render(_fold_system(turns)) + prefill

    def user_turn(self, messages: Sequence[Message], start: str = "") -> Opened:
        """The prompt after which a model writes a user's words.

        Args:
            messages: What comes before: a system message, or nothing.
            start: The beginning of the words, which the model goes on with.

        Raises:
            UserError: There is no chat template, or it does not show the user's words as they are.
        """
        if not self._has_template:
            raise UserError(no_template(str(getattr(self._tokenizer, "name_or_path", "of the teacher"))))
        turns = [{"role": message.role, "content": self._plain(message.content)} for message in messages]
        turns.append({"role": "user", "content": _WORDS})
        try:
            whole = self._render(turns if self._takes_system else _fold_system(turns), answers=False)
        except Exception as error:
            if type(error).__name__ != "TemplateError" or turns[0]["role"] != "system":
                raise
            self._takes_system = False
            whole = self._render(_fold_system(turns), answers=False)
        before, found, after = whole.rpartition(_WORDS)
        if not found:
            raise UserError("the teacher's chat template changes what a user says; take another teacher")
        after = after.strip()
        mark = next((token for token in self._control if after.startswith(token)), "")
        ids = self._tokenizer(mark, add_special_tokens=False)["input_ids"] if mark else []
        end = int(ids[0]) if len(ids) == 1 else None
        return Opened(before + self._plain(start), end, "" if end is not None else after.split("\n")[0])

    def ids(self, text: str) -> list[int]:
        """Tokens of a prompt that `text` made."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=not self._has_template)["input_ids"]
        return ids

    def continuation_ids(self, prompt: str, prompt_ids: Sequence[int], continuation: str) -> tuple[int, ...]:
        """Tokens of `continuation` right after `prompt`, whose own tokens stay as they are.

        Prompt and continuation are tokenised as one text, and the continuation's part is taken where the prompt's
        part came out unchanged; where a token would span the boundary, the continuation is tokenised alone. The
        last 48 characters of the prompt decide this, so equal endings share one result.
        """
        key = (prompt[-48:], continuation)
        found = self._continuations.get(key)
        if found is None:
            whole = self.ids(prompt + continuation)
            if whole[: len(prompt_ids)] == list(prompt_ids) and len(whole) > len(prompt_ids):
                found = tuple(whole[len(prompt_ids) :])
            else:
                found = tuple(self._tokenizer(continuation, add_special_tokens=False)["input_ids"])
            if len(self._continuations) > 20_000:
                self._continuations.clear()
            self._continuations[key] = found
        return found

    def _render(self, turns: Sequence[Mapping[str, str]], *, answers: bool = True) -> str:
        text: str = self._tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=answers)
        return text

    def _plain(self, content: str) -> str:
        for token in self._control:
            if token in content:
                content = content.replace(token, f"{token[0]} {token[1:]}")
        # A lone surrogate has no UTF-8 form, which the tokenizer needs.
        return content.encode("utf-8", "replace").decode()


def _control_tokens(tokenizer: Any) -> set[str]:
    tokens = {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
    for token in getattr(tokenizer, "added_tokens_decoder", {}).values():
        if getattr(token, "special", False):
            tokens.add(str(getattr(token, "content", token)))
    return tokens


def _fold_system(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    if turns[0]["role"] != "system":
        return turns
    system, *rest = turns
    if rest and rest[0]["role"] == "user":
        return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": system["content"]}, *rest]
