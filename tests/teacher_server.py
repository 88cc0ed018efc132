"""A real OpenAI-compatible server on the loopback that misbehaves on request.

`running_server(fault=…)` starts it in a thread. `fault(number, text)` names what happens to the `number`-th chat
request (from 0), whose last message is `text`; None answers it properly. Faults: an HTTP status such as `500` or
`429`, `429-after` (with Retry-After), `quota`, `slow-headers`, `slow-body`, `reset`, `reset-body`, `html`,
`cut-json`, `no-choices`, `no-text`, `array`, `echo-key` (a 401 that repeats the key), `refusal`, `length`. A fault may
be a whole answer instead: a status, a JSON value and perhaps headers.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Tokens of marks such as `<|end|>`.
_MARKS: dict[str, int] = {}
_PARTS = re.compile(r"<[^<>\s]+>|.", re.DOTALL)

Fault = Callable[[int, str], Any]
Reply = Callable[[dict[str, Any]], str]
Tokens = Callable[[dict[str, Any]], "list[tuple[str, float, list[tuple[str, float]]]]"]
"""Tokens of the answer to a body that asks for log-probs: (text, log-prob, the likeliest in its place)."""


def _piece(token: int) -> str:
    return {number: mark for mark, number in _MARKS.items()}.get(token) or chr(token)


class TeacherServer(ThreadingHTTPServer):
    """Counts what it was asked and what it answered."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        fault: Fault | None,
        owner: str,
        delay_s: float,
        stall_s: float,
        reply: Reply | None,
        tokens: Tokens | None = None,
        model: Any = None,
    ):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = fault
        self.owner = owner
        self.tokenizes = True
        # Around a system message, before a user's words and behind them, as a chat template would write it; None
        # renders no chat, and None for the first refuses a system message.
        self.template: tuple[str | None, str, str] | None = None
        # What `/tokenize` says in place of rendering a chat.
        self.refuses = ""
        # Fields of a request that it does not take, with its words for it.
        self.unknown: dict[str, str] = {}
        self.reply = reply
        self.tokens = tokens
        self.model = model
        self.delay_s = delay_s
        self.stall_s = stall_s
        self.lock = threading.Lock()
        self.asked = 0
        self.active = 0
        self.most_active = 0
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TeacherServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": self.server.owner}]})
        else:
            self._json(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        for said in (said for name, said in server.unknown.items() if name in body):
            self._json(400, {"error": {"message": said}})
            return
        if self.path == "/tokenize" and self.server.owner == "vllm" and self.server.tokenizes:
            refuses = server.refuses
            if server.template and server.template[0] is None and len(body.get("messages", ())) > 1:
                refuses = "the chat template: System role not supported"
            if refuses and "messages" in body:
                self._json(400, {"error": {"message": refuses}})
                return
            self._json(200, server.model.tokenize(body) if server.model else {"count": 1, "tokens": self._tokens(body)})
            return
        if self.path.split("?")[0] == "/v1/completions" and server.model:
            self._complete(body)
            return
        if self.path == "/detokenize" and server.template:
            self._json(200, {"prompt": "".join(map(_piece, body["tokens"]))})
            return
        if self.path == "/v1/completions" and server.template:
            text = "".join(map(_piece, body["prompt"]))
            with server.lock:
                server.asked += 1
                server.bodies.append(body | {"text": text})
            said = server.reply(body) if server.reply else f"words after {text!r}"
            self._json(200, {"choices": [{"text": said, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7}})
            return
        if self.path.split("?")[0] != "/v1/chat/completions":
            self._json(404, {"error": {"message": f"no such page {self.path}"}})
            return
        text = body["messages"][-1]["content"]
        with server.lock:
            number = server.asked
            server.asked += 1
            server.active += 1
            server.most_active = max(server.most_active, server.active)
            server.bodies.append(body)
            server.headers.append({key.lower(): value for key, value in self.headers.items()} | {":path": self.path})
        try:
            if server.delay_s:
                time.sleep(server.delay_s)
            fault = server.fault(number, text) if server.fault else None
            with server.lock:
                server.faults[fault if isinstance(fault, str) else str(fault[0]) if fault else "none"] += 1
            if isinstance(fault, tuple):
                self._json(*fault)
                return
            content = server.reply(body) if server.reply else f"reply to {text}"
            tokens = server.tokens(body) if server.tokens and body.get("logprobs") else None
            self._answer(fault, text, "".join(token for token, *_ in tokens) if tokens else content, tokens)
        finally:
            with server.lock:
                server.active -= 1

    def _complete(self, body: dict[str, Any]) -> None:
        server = self.server
        with server.lock:
            number = server.asked
            server.asked += 1
            server.bodies.append(body)
            fault = server.fault(number, str(body["prompt"])) if server.fault else None
            found = server.model.completions(body)
        if fault is None:
            self._json(200, found)
        elif isinstance(fault, tuple):
            self._json(*fault)
        else:
            self._json(int(fault), {"error": {"message": f"fault {fault}"}})

    def _tokens(self, body: dict[str, Any]) -> list[int]:
        """One token a character, and one for each mark in angle brackets."""
        template = self.server.template
        if template is None:
            return [1]
        text = body.get("prompt")
        if text is None:
            system, before, after = template
            *earlier, last = (message["content"] for message in body["messages"])
            text = "".join((system or "").format(said) for said in earlier) + before + last + after
        return [
            _MARKS.setdefault(part, 10**6 + len(_MARKS)) if part[1:] else ord(part) for part in _PARTS.findall(text)
        ]

    def _answer(self, fault: str | None, text: str, content: str, tokens: Any = None) -> None:
        server = self.server
        message: dict[str, Any] = {"role": "assistant", "content": content}
        reply: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9},
        }
        if tokens:
            reply["choices"][0]["logprobs"] = {
                "content": [
                    {"token": token, "logprob": value, "bytes": None, "top_logprobs": [
                        {"token": other, "logprob": its, "bytes": None} for other, its in others
                    ]}
                    for token, value, others in tokens
                ]
            }  # fmt: skip
        if fault is None or fault in ("length", "refusal"):
            if fault == "length":
                reply["choices"][0]["finish_reason"] = "length"
            if fault == "refusal":
                reply["choices"][0]["finish_reason"] = "content_filter"
            with server.lock:
                server.answered[text] += 1
            self._json(200, reply)
        elif fault.isdigit():
            self._json(int(fault), {"error": {"message": f"fault {fault}"}})
        elif fault == "429-after":
            self._json(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"})
        elif fault == "quota":
            self._json(429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
        elif fault == "echo-key":
            self._json(401, {"error": {"message": f"Incorrect API key provided: {self.headers['authorization']}"}})
        elif fault == "slow-headers":
            time.sleep(server.stall_s)
            self._json(200, reply)
        elif fault == "slow-body":
            data = json.dumps(reply).encode()
            self._head(200, len(data), "application/json")
            for place in range(0, len(data), 8):
                self.wfile.write(data[place : place + 8])
                self.wfile.flush()
                time.sleep(server.stall_s / 10)
        elif fault == "reset":
            self._reset()
        elif fault == "reset-body":
            self._head(200, 1000, "application/json")
            self.wfile.write(b'{"id": "x", ')
            self.wfile.flush()
            self._reset()
        elif fault == "html":
            self._raw(200, b"<html><body>Bad Gateway</body></html>", "text/html")
        elif fault == "cut-json":
            self._raw(200, json.dumps(reply).encode()[:60], "application/json")
        elif fault == "array":
            self._raw(200, b"[1, 2]", "application/json")
        elif fault == "no-choices":
            self._json(200, {**reply, "choices": []})
        elif fault == "no-text":
            message["content"] = None
            self._json(200, reply)
        else:
            raise AssertionError(f"the test names an unknown fault {fault!r}")

    def _reset(self) -> None:
        # Linger of zero seconds: the peer gets RST, not FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(value).encode(), "application/json", headers)

    def _raw(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(data), kind, headers)
        self.wfile.write(data)

    def _head(self, status: int, length: int, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


@contextlib.contextmanager
def running_server(
    fault: Fault | None = None,
    *,
    owner: str = "someone",
    delay_s: float = 0.0,
    stall_s: float = 5.0,
    reply: Reply | None = None,
    tokens: Tokens | None = None,
    model: Any = None,
) -> Iterator[TeacherServer]:
    """The server, listening on a free port until the block ends.

    `reply` writes the text for a request's body; `tokens` writes it where log-probs are asked for. A `model` answers
    the bodies of `/v1/completions` and `/tokenize` (`completions`, `tokenize`), as a vLLM server does.
    """
    server = TeacherServer(fault, owner, delay_s, stall_s, reply, tokens, model)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
