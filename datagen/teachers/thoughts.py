"""What a model thinks before it answers: where it may, and that it is no part of its reply.

A model in this process thinks where its options leave tokens for it (`thinking_tokens`), and before a text of its own
alone. Elsewhere it answers at once (`potstill.asking.answering_template`).
"""

from __future__ import annotations

from dataclasses import replace

from potstill.asking.teacher import Failure, Reply, Request
from potstill.errors import OptionFault


def thinking_faults(tokens: int) -> list[OptionFault]:
    """What is wrong with a backend's `thinking_tokens`."""
    told = f"thinking_tokens must not be below 0, got {tokens}"
    return [OptionFault(told, "thinking_tokens")] if tokens < 0 else []


def thinks(request: Request) -> bool:
    """Whether a model may think before the reply: not where that goes on with a prefill or has to keep to a form."""
    bound = request.prefill or request.schema is not None or request.choices is not None or request.beams > 1
    return not bound and request.turn != "user"


def said_and_thought(text: str, *, opened: bool = False) -> tuple[str, str]:
    """What a text says, and what the model thought before it.

    Thoughts stand in `<think>` tags, of which templates that open them for the model leave the first out.

    Args:
        text: A whole reply.
        opened: Whether the prompt ends within a thought, so that a text without an end of it is one.

    Examples:
        >>> said_and_thought("<think>A town?</think>Ulm")
        ('Ulm', 'A town?')
        >>> said_and_thought("<think>A town? Perhaps")
        ('', '<think>A town? Perhaps')
        >>> said_and_thought("A town? Perhaps", opened=True)
        ('', 'A town? Perhaps')
    """
    before, tag, after = text.rpartition("</think>")
    if tag:
        return after.lstrip(), before.replace("<think>", "", 1).strip()
    if opened or text.lstrip().startswith("<think>"):
        return "", text
    return text, ""


def spoken(request: Request, reply: Reply, *, opened: bool = False, tokens: int = 0) -> Reply | Failure:
    """A reply of a model in this process, without its thoughts.

    Their log-probs go as well, and those of the words behind them, which hold only after these thoughts: who wants
    some has the bare words scored. A reply before which no model thinks (`thinks`) stays as it is.

    Args:
        request: What was asked.
        reply: What the model wrote, not yet cut at the request's stops where it was let think.
        opened: As of `said_and_thought`.
        tokens: What it might think for.

    Returns:
        The reply, or a failure with the mend where nothing but a thought was written until the bound.
    """
    if not thinks(request):
        return reply
    text, thought = said_and_thought(reply.text, opened=opened)
    if thought and not text and reply.finish == "length":
        return Failure(
            f"the model thought until its {reply.completion_tokens} tokens were used up, and wrote nothing; allow more "
            f"with --set teacher_options.thinking_tokens={max(2048, 2 * tokens)}, or take a model that does not think",
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        )
    cuts = [text.find(stop) for stop in request.stop if stop and stop in text]
    if cuts:
        return replace(reply, text=text[: min(cuts)], finish="stop", top=())
    return reply if text == reply.text else replace(reply, text=text, top=())
