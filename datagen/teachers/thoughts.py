"""What a model thought before it answered, which is no part of its reply."""

from __future__ import annotations

from dataclasses import replace

from potstill.asking.teacher import Reply, Request


def said_and_thought(text: str) -> tuple[str, str]:
    """What a text says, and what the model thought before it.

    Thoughts stand in `<think>` tags, of which templates that open them for the model leave the first out.

    Examples:
        >>> said_and_thought("<think>A town?</think>Ulm")
        ('Ulm', 'A town?')
        >>> said_and_thought("<think>A town? Perhaps")
        ('', '<think>A town? Perhaps')
    """
    before, tag, after = text.rpartition("</think>")
    if tag:
        return after.lstrip(), before.replace("<think>", "", 1).strip()
    if text.lstrip().startswith("<think>"):
        return "", text
    return text, ""


def spoken(request: Request, reply: Reply) -> Reply:
    """A reply of a model in this process, without its thoughts.

    Their log-probs go as well, and those of the words behind them, which hold only after these thoughts: who wants
    some has the bare words scored. A reply that goes on with a prefill, has to keep to a form or is a user's turn stays
    as it is, since a model does not think within one.
    """
    if request.prefill or request.schema is not None or request.choices is not None or request.turn == "user":
        return reply
    text, _ = said_and_thought(reply.text)
    return reply if text == reply.text else replace(reply, text=text, top=())
