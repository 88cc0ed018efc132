"""Which fields of a request a server takes: learnt from its own refusals.

"OpenAI-compatible" is no one protocol. OpenAI's thinking models take no temperature and no stop strings and give no
log-probs, Mistral knows neither `seed` nor `max_completion_tokens`, Claude wants one of `temperature` and `top_p`,
DeepSeek and many models behind Groq have no JSON schemas, and Ollama and llama-cpp-python silently ignore
`max_completion_tokens`. None of these fields is worth a run: what enters is a body and the names that were refused so
far, what leaves is a body without them. A refused schema goes into the prompt in words, a refused bound on tokens goes
by its other name, and of the two fields for log-probs neither is sent without the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_OPTIONAL = (
    "temperature",
    "top_p",
    "seed",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "reasoning_effort",
    "chat_template_kwargs",
    "logprobs",
    "top_logprobs",
)
# One is no good without the other.
LOGPROB_FIELDS = frozenset({"logprobs", "top_logprobs"})
# Words by which servers say that a field is the matter, and not its value: "max_tokens is too large" is no such case.
_REFUSES = re.compile(
    r"unsupported|not (?:be )?support|n't support|not permitted|not allowed|not valid|unavailable|not available|unknown"
    r"|unrecogni[sz]ed|unexpected|extra_forbidden|extra inputs|deprecated|invalid schema|only the default|cannot both",
    re.IGNORECASE,
)
# `seed` and `stop` are words of every day: they count where they are quoted, or called a parameter.
_NAMED = {
    name: re.compile(rf"[\"'`]{name}[\"'`]|(?:argument|parameter|field)\b[^.\n]{{0,60}}\b{name}\b", re.IGNORECASE)
    for name in _OPTIONAL
}
_PLAIN = {name: re.compile(rf"\b{name}\b") for name in _OPTIONAL if name not in ("seed", "stop")}
_PLAIN["response_format"] = re.compile(r"\bresponse[_ ]format\b|\bjson_schema\b|\bstructured outputs?\b", re.IGNORECASE)
# vLLM's words for a model whose template is none of jinja (Mistral's own tokenizer).
_PLAIN["chat_template_kwargs"] = re.compile(r"\bchat_template(?:_kwargs)?\b")
# Models that think before they answer, by the names that their makers gave them.
_THINKS = re.compile(r"(?:^|/)(?:o[1-9](?:-|$)|gpt-5(?!.*chat))", re.IGNORECASE)
_OPENAI_HOSTS = ("api.openai.com", ".azure.com")


def named_fields(body: str) -> frozenset[str]:
    """The fields that an error refuses, by the text of its body.

    Examples:
        >>> sorted(named_fields("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
        ['max_completion_tokens', 'max_tokens']
        >>> named_fields("max_tokens is too large: 9000")
        frozenset()
    """
    try:
        said = " ".join(_strings(json.loads(body)))
    except (ValueError, RecursionError):
        said = body
    if not _REFUSES.search(said):
        return frozenset()
    names = {name for name in _OPTIONAL if _NAMED[name].search(said) or (name in _PLAIN and _PLAIN[name].search(said))}
    if "cannot both" in said:
        names.discard("temperature")
    return frozenset(names)


def _strings(value: object) -> Iterator[str]:
    """The texts of an error, in quotes; not those of the request, which some servers send back as `input`."""
    if isinstance(value, str):
        yield f'"{value}"'
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name != "input":
                yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def is_thinking(model: str) -> bool:
    """Whether a model of OpenAI thinks before it answers.

    Examples:
        >>> is_thinking("gpt-5-mini"), is_thinking("openai/o3"), is_thinking("gpt-5-chat-latest"), is_thinking("gpt-4o")
        (True, True, False, False)
    """
    return bool(_THINKS.search(model))


def refused_from_the_start(host: str, model: str) -> set[str]:
    """What is known before the first request: for OpenAI's own service, where a batch file cannot try."""
    if not host.endswith(_OPENAI_HOSTS):
        return set()
    known = {"max_tokens", "chat_template_kwargs"}
    return known | ({"temperature", "top_p", "stop", *LOGPROB_FIELDS} if is_thinking(model) else set())


def fitted(body: Mapping[str, Any], refused: Collection[str]) -> dict[str, Any]:
    """A chat body without the fields that were refused."""
    if not refused:
        return dict(body)
    gone = {*refused, *(LOGPROB_FIELDS if LOGPROB_FIELDS & set(refused) else ())}
    kept = {name: value for name, value in body.items() if name not in gone}
    if "max_tokens" in body and "max_tokens" in refused:
        # A server that takes neither name is told so by its own refusal: nothing is sent without a bound.
        kept["max_completion_tokens"] = body["max_tokens"]
    if "response_format" in body and "response_format" in refused:
        kept["messages"] = _with_schema(body["messages"], body["response_format"]["json_schema"]["schema"])
    return kept


def _with_schema(messages: list[dict[str, str]], schema: Mapping[str, Any]) -> list[dict[str, str]]:
    last = messages[-1]
    words = json.dumps(schema, ensure_ascii=False)
    text = f"{last['content']}\n\nReply with JSON alone, without a code fence, by this JSON schema: {words}"
    return [*messages[:-1], {**last, "content": text}]


def bare_json(text: str) -> str:
    """The JSON of a reply that a server without schemas let the model wrap: a code fence, or words around it.

    Examples:
        >>> bare_json('Here it is: {"label": "bug"} I hope it helps.')
        '{"label": "bug"}'
        >>> bare_json("no JSON")
        'no JSON'
    """
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    if start < 0:
        return text
    try:
        _, length = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError):
        return text
    return text[start : start + length]
