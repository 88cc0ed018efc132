"""What goes over the wire to an OpenAI-compatible server, and what comes back.

What enters are requests and reply bodies; what leaves are JSON bodies, replies and faults. Bodies are parsed here
rather than by the client's models, because servers in trouble answer HTML, half a JSON or no choices at all, and
each of these must become a fault with a name.
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from potstill.asking.teacher import AnyRequest, Reply, Request, TokenText, TokenTop
from potstill.asking.token_estimate import expected_tokens, most_tokens
from potstill.datagen.teachers.openai_fields import bare_json, named_fields
from potstill.datagen.teachers.openai_finish import finish_of
from potstill.datagen.teachers.thoughts import said_and_thought

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Flavour = Literal["openai", "vllm"]
# A reply larger than this is no answer to what we ask.
MAX_BODY_BYTES = 32 * 2**20
_LONG_SECRET = 16
# A gateway that finds no server behind it or hears nothing from it (520 and up: Cloudflare), or one that is overloaded.
_DOWN = frozenset((502, 503, 504, 521, 522, 523, 524, 529))
_THOUGHT = ("reasoning_content", "reasoning", "thinking")
# A 429 that waiting does not end. Groq, Gemini and OpenAI's free tier speak of billing in those that it does, and say
# when to come again.
_NO_CREDIT = re.compile(
    r"insufficient_quota|exceeded_current_quota|\A(?!.*(?:try again|retry) in).*billing", re.IGNORECASE | re.DOTALL
)


class Fault(Exception):
    """One attempt that failed.

    Attributes:
        kind: `again` asks again, and so does `amiss`, where the model said what cannot be used; `spent` would go the
            same way again, for the same money; `throttle` asks again later and less at a time; `away` means that the
            endpoint cannot be reached, `down` that a gateway before it says so, or that it is too busy; `unfit` means
            this request was refused; `fatal` means every request will be.
        retry_after_s: What the server asked for, or None.
        fields: Fields of the request that the server named as ones it does not take.
        paid: Prompt and completion tokens that the attempt took.
    """

    def __init__(
        self,
        kind: Literal["again", "amiss", "spent", "throttle", "away", "down", "unfit", "fatal"],
        message: str,
        retry_after_s: float | None = None,
        fields: frozenset[str] = frozenset(),
    ):
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.fields = fields
        self.paid = (0, 0)


@dataclass(frozen=True)
class Secrets:
    """Texts that must not appear anywhere, and the one way to remove them."""

    texts: tuple[str, ...]

    def mask(self, text: str) -> str:
        """The text with every secret replaced by `***`."""
        for secret in self.texts:
            if secret:
                text = text.replace(secret, "***")
        return text

    def mask_long(self, text: str) -> str:
        """The text without those secrets that no text holds by chance: a key `test` or a user `alice` are words."""
        return Secrets(tuple(secret for secret in self.texts if len(secret) >= _LONG_SECRET)).mask(text)

    def __repr__(self) -> str:
        return f"Secrets({len(self.texts)})"


def split_url(url: str) -> tuple[str, tuple[str, ...]]:
    """A base URL without user, password and query, and the secrets that it held."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        host = f"{host}:{parts.port}"
    secrets = [text for text in (parts.password, parts.username) if text]
    if parts.query:
        secrets.append(parts.query)
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), tuple(secrets)


def request_seed(request: Request) -> int:
    """One seed (31 bits) for a request's seed and sample index."""
    return int.from_bytes(hashlib.sha256(f"{request.seed}/{request.sample}".encode()).digest()[:4]) >> 1


def chat_messages(request: AnyRequest, extra: str = "") -> list[dict[str, str]]:
    """The messages, with the prefill (and `extra` after it) as an open assistant turn."""
    messages = [{"role": message.role, "content": _sendable(message.content)} for message in request.messages]
    if request.prefill or extra:
        messages.append({"role": "assistant", "content": _sendable(request.prefill + extra)})
    return messages


def _sendable(text: str) -> str:
    """JSON over HTTP has no lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def chat_body(request: Request, model: str, flavour: Flavour) -> dict[str, Any]:
    """The body of `POST /chat/completions`, for a server that takes all of it (see `openai_fields`)."""
    body: dict[str, Any] = {
        "model": model,
        "messages": chat_messages(request),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request_seed(request),
        "max_tokens": request.max_tokens,
    }
    stops = [stop for stop in request.stop if stop]
    if stops:
        body["stop"] = stops if flavour == "vllm" else stops[:4]
    if request.schema is not None:
        body["response_format"] = _schema_format(request.schema)
    if request.choices is not None:
        if flavour == "vllm":
            body["structured_outputs"] = {"choice": list(request.choices)}
        else:
            body["response_format"] = _schema_format(_choice_schema(request.choices))
    if flavour == "vllm":
        # The server would fill these from the model's own defaults.
        body |= {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
        if request.prefill:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs, "return_tokens_as_token_ids": True}
    elif request.token_texts:
        body |= {"logprobs": True, "top_logprobs": request.token_texts}
    return body


def _choice_schema(choices: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(choices)}},
        "required": ["answer"],
        "additionalProperties": False,
    }


def _schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    strict = schema.get("additionalProperties") is False and set(schema.get("properties", {})) == set(
        schema.get("required", ())
    )
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(schema), "strict": strict}}


def parse_body(content_type: str, body: bytes, secrets: Secrets) -> dict[str, Any]:
    """A reply's JSON object.

    Raises:
        Fault: Too large, no JSON, cut short, or no object.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Fault("again", f"the reply has {len(body):,} bytes (at most {MAX_BODY_BYTES:,})")
    # What a teacher wrote stays as it wrote it, but for a key that a server sends back.
    text = secrets.mask_long(body.decode("utf-8", "replace"))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        shown = " ".join(secrets.mask(text)[:80].split())
        raise Fault("again", f"the reply is no JSON ({content_type or 'no content type'}): {shown!r}") from None
    if not isinstance(value, dict):
        raise Fault("again", f"the reply is a JSON {type(value).__name__}, not an object")
    return value


def first_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one choice of a reply.

    Raises:
        Fault: There is none.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Fault("again", "the reply has no choices")
    return choices[0]


def chat_reply(body: Mapping[str, Any], request: Request, flavour: Flavour) -> Reply:
    """A chat reply.

    Raises:
        Fault: Something that a reply must have is missing or of another type.
    """
    stated = stated_tokens(body)
    try:
        return _read_reply(body, request, flavour, stated)
    except Fault as fault:
        fault.paid = _billed(body, request, stated)
        raise


def _read_reply(body: Mapping[str, Any], request: Request, flavour: Flavour, stated: tuple[int, int]) -> Reply:
    choice = first_choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Fault("again", "the reply's choice has no message")
    finish = finish_of(choice.get("finish_reason"))
    if finish is None:
        raise Fault("again", f"the server broke the reply off (finish_reason {str(choice['finish_reason'])[:60]!r})")
    text, thought = _message_and_thought(message)
    written = f"{text or ''}{thought}"
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        finish, text = "refused", refusal
    if finish == "length" and not text and (thought or _hidden_thinking(body)):
        raise Fault(
            "spent",
            f"the model thought until its {request.max_tokens} tokens and those allowed for thinking were used up, and "
            "wrote nothing; allow more with --set teacher_options.thinking_tokens=8192, or let it think less with "
            "--set teacher_options.effort=low",
        )
    if text is None:
        if finish == "stop":
            raise Fault("amiss", f"the reply's message has no text{', only thinking' if thought else ''}")
        text = ""
    if flavour != "vllm" and (request.schema is not None or request.choices is not None):
        text = bare_json(text)
    if request.choices is not None and flavour != "vllm" and finish == "stop":
        text = _chosen(text, request.choices)
    cuts = [text.find(stop) for stop in request.stop if stop and stop in text]
    # A server that counts nothing is counted as a budget does beforehand, so that a cap on tokens or money holds.
    prompt_tokens = stated[0] or expected_tokens(request)[0]
    completion_tokens = stated[1] or most_tokens(written)
    return Reply(
        text=text[: min(cuts)] if cuts else text,
        finish=finish,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        # Where the model thought first, the log-probs are those of its thoughts.
        top=_chat_tops(choice, request.top_logprobs) if request.top_logprobs and not thought else (),
        said=_chat_said(choice) if request.token_texts and not thought else (),
        raw={key: body[key] for key in ("id", "model", "system_fingerprint") if isinstance(body.get(key), str)} or None,
    )


def stated_tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    """Prompt and completion tokens as the server counts them; 0 where it does not."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return 0, 0
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _billed(body: Mapping[str, Any], request: Request, stated: tuple[int, int]) -> tuple[int, int]:
    """What a reply that cannot be used took; counted as a budget does beforehand where a server counts nothing."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if any(stated) or not isinstance(message, dict):
        return stated
    return expected_tokens(request)[0], most_tokens("".join(part or "" for part in _message_and_thought(message)))


def _message_and_thought(message: Mapping[str, Any]) -> tuple[str | None, str]:
    """The text of a message (None where it has none), and what the model thought before it.

    Thinking stands in a field of its own, in parts of their own (Mistral), or before the text.
    """
    text = message.get("content")
    thought = next((value for name in _THOUGHT if isinstance(value := message.get(name), str) and value), "")
    if isinstance(text, list):
        text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict) and part.get("text"))
    if not isinstance(text, str):
        return None, thought
    said, before = said_and_thought(text)
    return said, thought or before


def _hidden_thinking(body: Mapping[str, Any]) -> bool:
    """Whether tokens went into thinking that the server does not show."""
    usage = body.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return isinstance(details, dict) and _count(details.get("reasoning_tokens")) > 0


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _chosen(text: str, choices: tuple[str, ...]) -> str:
    try:
        answer = json.loads(text)["answer"]
    except (ValueError, TypeError, KeyError, RecursionError):
        answer = text.strip()
    if answer not in choices:
        raise Fault("amiss", f"the reply {str(answer)[:60]!r} is none of the {len(choices)} choices")
    return str(answer)


def _chat_tops(choice: Mapping[str, Any], k: int) -> tuple[TokenTop, ...]:
    try:
        tops = []
        for item in choice["logprobs"]["content"]:
            best = item["top_logprobs"][:k]
            tops.append(
                TokenTop(
                    _token_id(item["token"]),
                    float(item["logprob"]),
                    tuple(_token_id(other["token"]) for other in best),
                    tuple(float(other["logprob"]) for other in best),
                )
            )
        return tuple(tops)
    except (KeyError, TypeError, ValueError):
        raise Fault("again", "the reply's log-probs are missing or unreadable") from None


def _chat_said(choice: Mapping[str, Any]) -> tuple[TokenText, ...]:
    """Tokens as texts; none where the server gave none in this form, which is no fault of the reply."""
    try:
        return tuple(
            TokenText(
                str(item["token"]),
                float(item["logprob"]),
                tuple((str(other["token"]), float(other["logprob"])) for other in item["top_logprobs"]),
            )
            for item in choice["logprobs"]["content"]
        )
    except (KeyError, TypeError, ValueError):
        return ()


def _token_id(text: str) -> int:
    return int(text.removeprefix("token_id:"))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        text = headers.get("retry-after")
        if text is None:
            return None
        if text.strip().replace(".", "", 1).isdigit():
            return float(text)
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def status_fault(status: int, headers: Mapping[str, str], body: bytes, secrets: Secrets) -> Fault:
    """What an HTTP error status means for the request."""
    message = error_message(body, secrets)
    said = f"HTTP {status}: {message}"
    if status in (401, 402, 404):
        return Fault("fatal", said)
    if status == 400 and "json_validate_failed" in message:
        return Fault("again", said)  # Groq: the model left the schema this time
    # 403 is a key that may do nothing, or (OpenRouter, firewalls) one text that somebody objects to.
    if status in (400, 403, 413, 422):
        # The whole error: Mistral and FastAPI name the field where `error_message` does not look.
        return Fault("unfit", said, fields=named_fields(body[:4096].decode("utf-8", "replace")))
    if status == 429:
        pause = retry_after(headers)
        return Fault("fatal", said) if pause is None and _NO_CREDIT.search(message) else Fault("throttle", said, pause)
    if status in (408, 409, 425) or status >= 500:
        pause = retry_after(headers)
        if status == 503 and pause is not None:
            return Fault("throttle", said, pause)
        return Fault("down" if status in _DOWN else "again", said, pause)
    return Fault("unfit", said)


def error_message(body: bytes, secrets: Secrets) -> str:
    """The server's own words, masked and short."""
    text = secrets.mask(body[:4096].decode("utf-8", "replace"))
    try:
        value = json.loads(text)
        error = value.get("error", value)
        if isinstance(error, dict):
            text = f"{error.get('message', '')} {error.get('code') or error.get('type') or ''}"
        else:
            text = str(error)
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())[:300] or "(empty body)"


def hidden_fault(body: Mapping[str, Any], secrets: Secrets) -> Fault | None:
    """The error that proxies such as OpenRouter send with status 200, beside no choices or in place of a message."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = first.get("error") or (None if first else body.get("error"))
    if not error:
        return None
    code = str(error.get("code")) if isinstance(error, dict) else ""
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else 500
    return status_fault(status, {}, json.dumps({"error": error}).encode(), secrets)


def body_of(response: Any) -> bytes:
    """The bytes of an error's response; none where they cannot be read."""
    try:
        content: bytes = response.content
        return content
    except Exception:
        return b""


def connection_fault(error: Exception, secrets: Secrets) -> Fault:
    """What a connection that failed means."""
    cause = error.__cause__ or error
    said = secrets.mask(f"{type(cause).__name__}: {cause}")[:300]
    # A connection that was never made is the endpoint's fault; one that broke is this attempt's.
    return Fault("away" if "ConnectError" in type(cause).__name__ or "ConnectTimeout" in said else "again", said)


async def send(client: AsyncOpenAI, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
    """One request as it is; the response as it came."""
    import httpx2

    if method == "GET":
        return await client.get(path, cast_to=httpx2.Response)
    return await client.post(path, cast_to=httpx2.Response, body=dict(body or {}))
