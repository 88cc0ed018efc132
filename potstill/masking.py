"""Kept out of what is written down: keys in a teacher's URL, and the folders and addresses of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from potstill.asking.budget import is_own

# Teachers as references, in an argument, a mapping or a task file: up to a space or the quotation mark behind them.
_TEACHER = re.compile(r"openai:https?://[^\s\"'<>]+", re.IGNORECASE)
_USER = re.compile(r"(https?://)[^/\s?#,]*@", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://[^\s\"'#,]+", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s?#]*\?)[^\s#,]*", re.IGNORECASE)


def mask_teacher(text: str) -> str:
    """A text with `***` for the secrets in the URLs of the teachers that it names; other URLs stay as they are.

    Args:
        text: A reference, an argument of a command, or a whole task file.

    Examples:
        >>> mask_teacher("openai:https://bob:key@host/v1?token=key#model")
        'openai:https://***@host/v1?***#model'
        >>> mask_teacher("quality: {teacher: 'openai:https://bob:k@y@host/v1#m'}")
        "quality: {teacher: 'openai:https://***@host/v1#m'}"
        >>> mask_teacher("Answer https://a.b/?q=1")
        'Answer https://a.b/?q=1'
    """
    return _TEACHER.sub(lambda found: _QUERY.sub(r"\1***", _USER.sub(r"\1***@", found[0])), text)


def masked(value: Any) -> Any:
    """JSON types with every teacher in them masked."""
    if isinstance(value, str):
        return mask_teacher(value)
    if isinstance(value, Mapping):
        return {key: masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return value


def hide_addresses(text: str) -> str:
    """A text with `local` for the addresses of this machine and network: only their owner can reach them.

    Examples:
        >>> hide_addresses("openai:http://gpu-box.lan:8000/v1#Qwen/Qwen3-8B")
        'openai:local#Qwen/Qwen3-8B'
    """
    return _ADDRESS.sub(
        lambda found: "local" if is_own({"backend": "openai", "endpoint": found[0]}) else found[0], text
    )


def public_name(place: str) -> str:
    """A source's or teacher's name without the folders and addresses of the machine it lay on.

    Examples:
        >>> public_name("vllm:/home/me/models/qwen"), public_name("openai:http://10.0.0.5:8000/v1#m")
        ('vllm:local:qwen', 'openai:local#m')
    """
    backend, colon, model = place.partition(":")
    if backend in ("transformers", "vllm") and colon:
        return f"{backend}:{public_name(model)}"
    if backend == "openai" and colon:
        return hide_addresses(place)
    if place.startswith(("/", "~", "./", "../")) or re.match(r"[A-Za-z]:[\\/]", place) or place.startswith("file:"):
        return "local:" + re.split(r"[\\/]", place.rstrip("\\/"))[-1]
    return place
