"""A chat as the text, and the tokens, that a model in this process reads.

What enters is a request's messages and prefill; what leaves is the prompt as the model's own chat template
renders it, with the assistant's turn opened and the prefill appended. Text that a message holds cannot open or
close a turn: where it spells one of the template's control tokens, the token is broken up.

A user's turn can be opened instead, so that an aligned model writes the user's words (Magpie, arXiv:2406.08464 §2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from potstill.asking.answering_template import SWITCHES, answering_template, opens_thought
from potstill.asking.control_tokens import ControlTokens
from potstill.asking.teacher import AnyRequest, Message, Request
from potstill.errors import UserError
from potstill.models import local_model

# Stands for a user's words where the template is rendered to see what is around them.
_WORDS = "Zq7"
# Beginnings of words that share no token, with which a prompt is tokenised to see where its own tokens end.
_BEGINNINGS = ("Zq", "7#")
# A whole control token, such as `<|im_end|>`, `<end_of_turn>` or `[/INST]`.
_MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
_HARMLESS = (Message("system", "Be polite."),)


@dataclass(frozen=True)
class Opened:
    """A prompt with a turn opened at its end, and what ends that turn beside the model's own ends.

    Attributes:
        text: The prompt, ending where the words begin that are to be written.
        ids: Its tokens, without those at its end that the words would join: a space is a part of the word behind it.
        end: The control token that follows a user's words; None where plain text does, and for the model's own turn.
        stop: That text, or "".
    """

    text: str
    ids: tuple[int, ...]
    end: int | None = None
    stop: str = ""


def template_fault(ref: str) -> str:
    """Why a model cannot write a user's turn, with the mend; "" where it can, or where it cannot be loaded to tell."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(local_model(ref))
    except (OSError, ValueError, UserError):
        return ""  # which is told when the model is loaded
    try:
        ChatPrompt(tokenizer, ref).user_turn(_HARMLESS)
    except UserError as error:
        return str(error)
    return ""


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two lists both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def first_mark(after: str) -> str:
    """What ends a user's words, of the text behind them: a mark in brackets, or else the first line.

    Examples:
        >>> first_mark("<|Assistant|><think>\\n"), first_mark(" [/INST]"), first_mark("\\n### Reply:\\n")
        ('<|Assistant|>', '[/INST]', '### Reply:')
    """
    line = after.strip().split("\n")[0]
    mark = _MARK.match(line)
    return mark[0] if mark else line


class ChatPrompt:
    """Renders and tokenises prompts for one tokenizer (of transformers).

    Without a chat template (a base model) the messages are joined by blank lines. What a model replies comes right
    behind its prompt, without a thought before it (`potstill.asking.answering_template`), unless it is let think.
    """

    def __init__(self, tokenizer: Any, ref: str = ""):
        """Args:
        tokenizer: Of the model.
        ref: What the model is called where something is wrong with it; "" takes the tokenizer's own name.
        """
        self._tokenizer = tokenizer
        self._ref = ref or str(getattr(tokenizer, "name_or_path", "of the teacher"))
        self._control = ControlTokens(tokenizer)
        self._at_once = answering_template(tokenizer)
        self._has_template = self._at_once is not None
        self._takes_system = True
        self._continuations: dict[tuple[str, str], tuple[int, ...]] = {}

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the template opens a thought for a model that is let think, so that its reply begins within it."""
        return opens_thought(self.text((Message("user", _WORDS),), thinks=True))

    def opened(self, request: AnyRequest, *, thinks: bool = False) -> Opened:
        """The prompt of a request, with the turn opened that it wants written.

        Args:
            request: What is asked.
            thinks: Let the model think first, as its template has it.

        Raises:
            UserError: As `user_turn`.
        """
        if isinstance(request, Request) and request.turn == "user":
            return self.user_turn(request.messages, request.prefill)
        text = self.text(request.messages, request.prefill, thinks=thinks)
        return Opened(text, tuple(self.ids(text)))

    def text(self, messages: Sequence[Message], prefill: str = "", *, thinks: bool = False) -> str:
        """The prompt, ending where the reply begins."""
        turns = [{"role": message.role, "content": self._control.spelled_out(message.content)} for message in messages]
        if not self._has_template:
            return "\n\n".join(turn["content"] for turn in turns) + "\n\n" + prefill
        return self._rendered(turns, thinks=thinks) + prefill

    def user_turn(self, messages: Sequence[Message], start: str = "") -> Opened:
        """The prompt after which a model writes a user's words.

        Args:
            messages: What comes before: a system message, or nothing.
            start: The beginning of the words, which the model goes on with.

        Raises:
            UserError: There is no chat template, or it does not show the user's words as they are, or nothing ends
                them.
        """
        if not self._has_template:
            raise UserError(
                f"the model {self._ref} has no chat template, so nothing tells it that a user's turn begins; take its "
                "instruct or chat version as the teacher"
            )
        turns = [{"role": message.role, "content": self._control.spelled_out(message.content)} for message in messages]
        # With the assistant's turn behind it, by whose beginning alone some templates end the user's.
        before, found, after = self._rendered([*turns, {"role": "user", "content": _WORDS}]).partition(_WORDS)
        if not found:
            raise UserError(f"the chat template of {self._ref} changes what a user says; take another teacher")
        after = after.strip()
        if not after:
            raise UserError(
                f"the chat template of {self._ref} has nothing behind what a user says, so it would not end; take "
                "another teacher"
            )
        mark = next((token for token in self._control.tokens if after.startswith(token)), "")
        ids = self._tokenizer(mark, add_special_tokens=False)["input_ids"] if mark else []
        end = int(ids[0]) if len(ids) == 1 else None
        text = before + self._control.spelled_out(start)
        return Opened(text, self._open_ids(text), end, "" if end is not None else first_mark(after))

    def _open_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text that words are to follow: those that it has whatever word comes."""
        first, second = (self.ids(text + words) for words in _BEGINNINGS)
        return tuple(first[: shared(first, second)])

    def ids(self, text: str) -> list[int]:
        """Tokens of a prompt that `text` made."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=not self._has_template)["input_ids"]
        return ids

    def continuation_ids(self, prompt: str, prompt_ids: Sequence[int], continuation: str) -> tuple[int, ...]:
        """Tokens of `continuation` right after `prompt`, whose own tokens stay as they are.

        Prompt and continuation are tokenised as one text, and the continuation's part is taken where the prompt's
        part came out unchanged; where a token would span the boundary, and where the continuation spells a control
        token, which is text there, it is tokenised alone. The last 48 characters of the prompt decide this, so equal
        endings share one result.
        """
        key = (prompt[-48:], continuation)
        found = self._continuations.get(key)
        if found is None:
            spelled = any(token in continuation for token in self._control.tokens)
            whole = [] if spelled else self.ids(prompt + continuation)
            if whole[: len(prompt_ids)] == list(prompt_ids) and len(whole) > len(prompt_ids):
                found = tuple(whole[len(prompt_ids) :])
            else:
                found = tuple(
                    self._tokenizer(continuation, add_special_tokens=False, split_special_tokens=True)["input_ids"]
                )
            if len(self._continuations) > 20_000:
                self._continuations.clear()
            self._continuations[key] = found
        return found

    def _rendered(self, turns: list[dict[str, str]], *, thinks: bool = False) -> str:
        """The template's text, ending where the assistant's words begin.

        Some templates refuse a system turn, and some leave it out: its text then opens the first user turn.
        """
        if self._takes_system and turns[0]["role"] == "system":
            try:
                text = self._render(turns, thinks=thinks)
            except Exception as error:
                if type(error).__name__ != "TemplateError":
                    raise
            else:
                if turns[0]["content"].strip() in text:
                    return text
            self._takes_system = False
        return self._render(turns if self._takes_system else _fold_system(turns), thinks=thinks)

    def _render(self, turns: Sequence[Mapping[str, str]], *, thinks: bool) -> str:
        how = dict.fromkeys(SWITCHES, True) if thinks else {"chat_template": self._at_once}
        text: str = self._tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True, **how)
        return text


def _fold_system(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    if turns[0]["role"] != "system":
        return turns
    system, *rest = turns
    if rest and rest[0]["role"] == "user":
        return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": system["content"]}, *rest]
