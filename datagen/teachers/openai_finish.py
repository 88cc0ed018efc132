"""Why a reply ended, in the words of many servers.

What enters is a reply's `finish_reason`; what leaves is whether its text is whole, cut or refused, or None where the
server broke it off. What is not known here (`abort`, `error`, a word of tomorrow) may stand at half a text, and half a
text must neither become a row nor stay in the ledger as an answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from potstill.asking.teacher import FinishReason

_FINISH: Mapping[str, FinishReason] = {
    **dict.fromkeys(("stop", "complete", "eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("tool_calls", "function_call"), "stop"),  # nobody offered it a tool; what it said stands
    **dict.fromkeys(("length", "max_tokens", "max_length", "model_length", "error_limit"), "length"),
    **dict.fromkeys(("model_context_window_exceeded", "repetition"), "length"),
    **dict.fromkeys(("content_filter", "content_filtered", "safety", "recitation", "blocklist"), "refused"),
    **dict.fromkeys(("prohibited_content", "spii", "sensitive", "refusal", "error_toxic"), "refused"),
    "guardrail_intervened": "refused",
}


def finish_of(reason: object) -> FinishReason | None:
    """Why a reply ended, by its `finish_reason`; None where the server broke it off or names what is not known.

    Some servers name no reason where the message is whole.

    Examples:
        >>> finish_of("MAX_TOKENS"), finish_of("content-filter"), finish_of(None)
        ('length', 'refused', 'stop')
        >>> finish_of("abort") is None
        True
    """
    if reason is None or reason == "":
        return "stop"
    return _FINISH.get(reason.lower().replace("-", "_")) if isinstance(reason, str) else None
