"""How many tokens a text takes, without its tokenizer: the most that it can be, and about what it will be.

An API's tokenizer is not at hand, and loading one to guard a budget would cost more than the guess. What is known of
all of them: byte-level BPE (GPT, Llama 3, Qwen, SmolLM) and SentencePiece with byte fallback (Llama 2, Gemma, Mistral)
never take more tokens than a text has UTF-8 bytes, and come near that in scripts that their training saw little of.

    most_tokens     an upper bound by class of character: two lower-case letters of ASCII a token, one token for any
                    other character of ASCII, and the UTF-8 bytes of all others (2 for Greek, Cyrillic, Hebrew or
                    Arabic, 3 for Chinese, Japanese, Korean, Thai or Hindi, 4 for emoji)
    likely_tokens   what current tokenizers take on average, for plans

The first holds for language, code, JSON and numbers in any script; letters in random order (keys, base64) may take half
as much again. Both are a few passes in C over the text: about a millisecond for a million characters of ASCII.
"""

from __future__ import annotations

import json
import re

from potstill.asking.teacher import AnyRequest, Request

# What a chat template adds: marks around each message; and a system message or a date of its own.
_A_MESSAGE, _A_CHAT = 8, 36
_LOWER = bytes(range(ord("a"), ord("z") + 1))
_TWO_BYTES = re.compile("[\x80-\u07ff]")
_IDEOGRAPHS = re.compile("[\u2e80-\ud7ff\uf900-\ufaff\ufe30-\uffef]")
_OTHER_THREE_BYTES = re.compile("[\u0800-\u2e7f\ue000-\uf8ff\ufb00-\ufe2f]")
_FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]")


def most_tokens(text: str) -> int:
    """The most tokens that a text takes.

    Examples:
        >>> most_tokens("down"), most_tokens("DOWN 5"), most_tokens("停机")
        (2, 6, 6)
    """
    raw = text.encode("utf-8", "surrogatepass")
    others = len(raw.translate(None, _LOWER))
    return others + (len(raw) - others + 1) // 2


def likely_tokens(text: str) -> float:
    """About how many tokens a text takes: a quarter of one a character of ASCII, one a character of Chinese.

    Examples:
        >>> likely_tokens("a service is down"), likely_tokens("停机")
        (4.25, 2.0)
    """
    if text.isascii():
        return len(text) / 4
    two, ideographs, three, four = (
        len(kind.findall(text)) for kind in (_TWO_BYTES, _IDEOGRAPHS, _OTHER_THREE_BYTES, _FOUR_BYTES)
    )
    plain = len(text) - two - ideographs - three - four
    return plain / 4 + two / 2 + ideographs + 0.8 * three + 2.0 * four


def expected_tokens(request: AnyRequest) -> tuple[int, int]:
    """The most prompt tokens and the most completion tokens that a request takes; a budget sets them aside."""
    if not isinstance(request, Request) and request.token_ids is not None:
        # Each is read, and one is written, which no server leaves out.
        return sum(map(len, request.token_ids)), 1
    prompt = _A_CHAT + sum(most_tokens(message.content) + _A_MESSAGE for message in request.messages)
    prompt += most_tokens(request.prefill)
    if not isinstance(request, Request):
        return prompt + sum(most_tokens(text) for text in request.continuations), 0
    if request.schema is not None:  # some providers read it as a part of the prompt
        prompt += most_tokens(json.dumps(request.schema, ensure_ascii=False))
    return prompt, request.max_tokens
