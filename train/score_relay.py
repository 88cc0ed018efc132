"""Log-probs for a training of several processes: they ask the process that started them, which asks the teacher.

So one ledger and one budget hold for all of them, keys stay where they are, and an engine in the first process serves
them too. `answering` listens on the loopback while they run and tells by the environment where; `relayed_scores` is
what a process asks with. Requests are JSON, and carry a secret of this training, for other users of the machine reach
the loopback as well.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from potstill.asking.teacher import Failure, Reply
from potstill.asking.teacher_json import reply_from_json, reply_to_json
from potstill.asking.token_scores import Pair, TokenScores
from potstill.errors import TrainingError

_PLACE, _SECRET = "POTSTILL_SCORES", "POTSTILL_SCORES_SECRET"


class Relay(ThreadingHTTPServer):
    """What the processes ask.

    Attributes:
        environment: What they have to be started with.
        fault: What ended the asking, for the one who started them; None while nothing did.
    """

    daemon_threads = True

    def __init__(self, scores: TokenScores):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secret = secrets.token_hex(16)
        self.environment = {_PLACE: f"http://127.0.0.1:{self.server_address[1]}", _SECRET: self.secret}
        self.fault: Exception | None = None
        self._scores = scores
        # An asker has one stream at a time, and an engine may not be driven by two threads.
        self._one = threading.Lock()

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The replies to pairs; to none of them, who answers."""
        if "pairs" not in asked:
            return {"name": self._scores.name, "identity": dict(self._scores.identity), "top": self._scores.top}
        with self._one:
            if self.fault is None:
                try:
                    replies = self._scores.ask([(prompt, answer) for prompt, answer in asked["pairs"]])
                    return {"replies": [_to_json(reply) for reply in replies]}
                except Exception as error:
                    self.fault = error
            return {"error": str(self.fault)}


class _Handler(BaseHTTPRequestHandler):
    server: Relay

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        given = self.headers.get("authorization", "")
        data = self.rfile.read(int(self.headers.get("content-length", "0")))
        known = hmac.compare_digest(given, self.server.secret)
        body = json.dumps(self.server.answer(json.loads(data)) if known else {"error": "wrong secret"}).encode()
        self.send_response(200 if known else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def answering(scores: TokenScores | None) -> Iterator[Relay | None]:
    """Listen for the processes of a training until the block ends; None where there is nobody to ask."""
    if scores is None:
        yield None
        return
    relay = Relay(scores)
    thread = threading.Thread(target=relay.serve_forever, args=(0.1,), name="score-relay", daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.shutdown()
        relay.server_close()
        thread.join(5)


class RelayedScores:
    """`TokenScores` of the process that started this one."""

    def __init__(self, place: str, secret: str):
        self._place, self._secret = place, secret
        about = self._post({})
        self.name, self.identity, self.top = str(about["name"]), dict(about["identity"]), int(about["top"])
        # Processes meet in every step, and one alone cannot end the training for all of them.
        self.budget_end: Mapping[str, str] = {}

    def ask(self, pairs: Sequence[Pair]) -> list[Reply | Failure]:
        """See `TokenScores.ask`.

        Raises:
            TrainingError: Whatever ended the asking there; the process that started this one knows more.
        """
        told = self._post({"pairs": [[list(prompt), list(answer)] for prompt, answer in pairs]})
        return [_from_json(reply) for reply in told["replies"]]

    def _post(self, value: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._place, json.dumps(value).encode(), {"Authorization": self._secret, "Content-Type": "application/json"}
        )
        # Not by a proxy of the environment: it is this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request) as response:
                told: dict[str, Any] = json.loads(response.read())
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"the process that started this training no longer answers ({error}); run again to go on from the "
                "last checkpoint"
            ) from None
        if "error" in told:
            raise TrainingError(str(told["error"]))
        return told


def relayed_scores() -> RelayedScores | None:
    """What a process of a training asks with; None where nobody answers."""
    place = os.environ.get(_PLACE)
    return RelayedScores(place, os.environ.get(_SECRET, "")) if place else None


def _to_json(reply: Reply | Failure) -> dict[str, Any]:
    return {"failure": reply.reason} if isinstance(reply, Failure) else reply_to_json(reply)


def _from_json(value: Mapping[str, Any]) -> Reply | Failure:
    return Failure(str(value["failure"])) if "failure" in value else reply_from_json(value)
