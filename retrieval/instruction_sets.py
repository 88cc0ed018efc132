"""Datasets of instructions, for a task of kind `instructions`, whose rows each carry an instruction of their own.

Such datasets come in three layouts: instruction, input and output (Self-Instruct, Alpaca; the input of many rows is
empty), prompt and response, and chats, a list of turns with a role each. What a card of theirs says is little like
the task's own prompt, so the search is told what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from potstill.retrieval.columns import ColumnChoice
from potstill.retrieval.profiles import profile

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.retrieval.cards import Card

# Added to the task's prompt when such datasets are searched for.
ABOUT = "Instructions, some with an input, and the answers that follow them, for tuning a model on instructions."
_INSTRUCTION = ("instruction", "instructions", "prompt", "question", "query", "definition", "task")
_INPUT = ("input", "inputs", "context", "passage", "source")
_ANSWER = ("output", "outputs", "response", "completion", "answer", "target", "targets", "chosen")
_ROLE, _SAID = ("role", "from"), ("content", "value")
_USER, _MODEL, _SYSTEM = ("user", "human"), ("assistant", "gpt", "model", "bot", "chatgpt"), ("system",)
# Columns that a chat is unfolded into.
_CHAT = ("instruction", "output")
# Names that no other kind of dataset gives its columns; "question" and "answer" are those of many.
_SURE = ("instruction", "instructions", "definition")
_SURE_PAIRS = (("prompt", "response"), ("prompt", "completion"), ("prompt", "chosen"))
_CHATS = ("messages", "conversations", "conversation")
# The name of a task ("antonyms") is no instruction.
_LEAST_WORDS = 3


def declares_instructions(card: Card) -> bool:
    """Whether the columns that a card names are those of instructions with answers, or of chats.

    What such a card says is about its sources ("27 hard reasoning tasks"), seldom about instructions, so that its
    nearness to a task tells little.
    """
    for config in card.configs.values():
        names = {name.lower() for name in config.features}
        if any(name in names for name in _CHATS) or any(names.issuperset(pair) for pair in _SURE_PAIRS):
            return True
        if any(name in names for name in _SURE) and any(name in names for name in _ANSWER):
            return True
    return False


def instruction_columns(table: Dataset, *, own: bool = False) -> ColumnChoice:
    """The columns of instruction, input and answer by their usual names; no output where a table has no such pair.

    The input may be empty in most rows, as in Alpaca.

    Args:
        table: The data; a sample of its values is looked at.
        own: Whether it is the user's own, whose names are believed where values are of a word or two.
    """
    profiles = profile(table)
    least = 0 if own else _LEAST_WORDS
    filled = {item.name.lower(): item for item in profiles if item.filled > 0.5}
    instruction = next((filled[n] for n in _INSTRUCTION if n in filled and filled[n].words >= least), None)
    answer = next((filled[name] for name in _ANSWER if name in filled), None)
    if instruction is None or answer is None:
        names = ", ".join(item.name for item in profiles)
        return ColumnChoice((), None, f"its rows carry no instructions with answers (columns: {names})")
    extra = next((item for n in _INPUT for item in profiles if item.name.lower() == n and (own or item.is_text)), None)
    inputs = (instruction.name,) if extra is None else (instruction.name, extra.name)
    return ColumnChoice(inputs, answer.name, "the usual columns of instructions")


def unfolded_chats(table: Dataset) -> Dataset:
    """A table whose chats are unfolded into `instruction` and `output`: what the user says first, and the reply.

    A system message stands before the instruction. Rows without such a pair have empty texts. Tables without a column
    of chats, and those that have columns of these names, come back as they are.
    """
    if any(name in table.column_names for name in _CHAT):
        return table
    for name in table.column_names:
        values = table[name][:]
        pairs = [first_turn(value) for value in values]
        if 2 * sum(pair is not None for pair in pairs) > len(pairs):
            texts = [pair or ("", "") for pair in pairs]
            told, replied = [told for told, _ in texts], [replied for _, replied in texts]
            # The chats last: a table without a column has no rows either.
            return table.add_column(_CHAT[0], told).add_column(_CHAT[1], replied).remove_columns(name)
    return table


def first_turn(value: Any) -> tuple[str, str] | None:
    """What the user says first in a chat, and the reply; None for anything else.

    Examples:
        >>> first_turn([{"from": "human", "value": "Name a tree."}, {"from": "gpt", "value": "An oak."}])
        ('Name a tree.', 'An oak.')
        >>> first_turn("Name a tree.") is None
        True
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return None
    system, told = "", ""
    for turn in value:
        if not isinstance(turn, Mapping):
            return None
        role = next((str(turn[key]).lower() for key in _ROLE if turn.get(key)), "")
        said = next((turn[key] for key in _SAID if turn.get(key)), "")
        if not isinstance(said, str):  # parts of several media
            return None
        if role in _SYSTEM and not told:
            system = said.strip()
        elif role in _USER and not told:
            told = said.strip()
        elif role in _MODEL and told:
            return (f"{system}\n\n{told}" if system else told), said.strip()
        else:
            return None
    return None
