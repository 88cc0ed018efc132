"""What a run and its workers say to each other: JSON over HTTP, and the file by which workers find the run.

    POST /teacher   {}                                        the teacher that a worker opens
    POST /join      {"worker": {…}}                           a worker comes, and is refused where it is another one
    POST /exchange  {"worker", "stint", "done", "held", …}    it hands in and leases (`leases.Leases.exchange`)
    POST /leave     {"worker", "error", "message"}            it goes
    POST /workers   {}                                        who is there, for people

Each carries the run's token in a header. `.workers.json` in the run folder, which its owner alone may read, holds
address and token while the run is at work, and after it was killed or interrupted, so that a run that goes on is known
to its workers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args
from urllib.parse import SplitResult, urlsplit

from potstill.asking.teacher import AnyRequest, Failure, FinishReason, Message, Reply, Request, ScoreRequest
from potstill.asking.teacher_json import reply_from_json, reply_to_json
from potstill.datagen.teachers.worker import Outcome
from potstill.errors import DataError, OptionError, PotstillError, UserError
from potstill.whole_folders import fsync_folder

ADDRESS_FILE = ".workers.json"
TOKEN_VARIABLE = "POTSTILL_WORKERS_TOKEN"
# Replies with many log-probs a token take megabytes.
MAX_BODY = 64 << 20
# A worker's room full of long prompts, which it asked for itself.
_MOST_HEARD = 1 << 30
_SHORTEST_TOKEN = 16
# Of tokens and attempts of one reply.
_MOST_COUNTED = 1 << 40
_TIMEOUT_S = 30.0
# A proxy without a server behind it, too many calls at a time, or another program where a run was.
_NOT_NOW = (404, 405, 501, 502, 503, 504)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Away(Exception):
    """The run cannot be reached at the moment."""


class OtherToken(UserError):
    """What answers has another token: another run, or the same one after another start."""


@dataclass(frozen=True)
class Address:
    """Where a run's workers find it.

    Attributes:
        url: Such as `http://node0:8470/`.
        token: What every call carries.
        host: The machine that the run is on; empty where it is not known.
    """

    url: str
    token: str = field(repr=False)
    host: str = ""


def token_of(environment: Mapping[str, str]) -> str:
    """The token of the environment; empty where there is none.

    Raises:
        OptionError: It is too short to keep anybody out.
    """
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if token and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise OptionError(
            "workers",
            [
                f"{TOKEN_VARIABLE} has {len(token)} characters; {_SHORTEST_TOKEN} or more of ASCII are needed, such as "
                "$(openssl rand -hex 24)"
            ],
        )
    return token


def read_address(folder: Path) -> Address | None:
    """What the run folder says; None where no run is or was under way there.

    Raises:
        DataError: The file is there and cannot be read.
    """
    path = folder / ADDRESS_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Address(str(found["url"]), str(found["token"]), str(found["host"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = "it is another user's" if isinstance(error, PermissionError) else type(error).__name__
        raise DataError(
            f"{path} cannot be read ({why}); give the run's address and its token in {TOKEN_VARIABLE} instead"
        ) from None


def write_address(folder: Path, address: Address) -> None:
    """Leave an address for the workers, in a file that only this user may read."""
    path = folder / ADDRESS_FILE
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"url": address.url, "token": address.token, "host": address.host}, file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(folder)


def forget_address(folder: Path) -> None:
    """Take the file away: the run needs no workers any more."""
    with contextlib.suppress(OSError):
        (folder / ADDRESS_FILE).unlink(missing_ok=True)


def run_token(environment: Mapping[str, str]) -> str:
    """The token of a run: the environment's, or a new one, which its folder's file tells to workers.

    Raises:
        OptionError: The environment's is too short.
    """
    return token_of(environment) or secrets.token_urlsafe(32)


def is_url(place: str) -> bool:
    """Whether a worker was told an address and no folder."""
    return place.startswith(("http://", "https://"))


def find_run(place: str, environment: Mapping[str, str]) -> Address | None:
    """Where the run is that a worker was told: a run folder, or an address.

    Returns:
        None where the folder holds no address (yet).

    Raises:
        OptionError: An address without a token in the environment, or one that is none.
        UserError: The folder's run listens on another machine's loopback.
    """
    if not is_url(place):
        if (found := read_address(Path(place))) is None:
            return None
        parts = _parts_of(found.url)
        if parts.hostname in _LOOPBACK and found.host != socket.gethostname():
            raise UserError(
                f"the run in {place} listens on {parts.netloc} of {found.host}, which {found.host} alone "
                "can reach; start it with --set workers.listen=0.0.0.0:8470"
            )
        return found
    token = token_of(environment)
    if not token:
        raise OptionError(
            "work", [f"the run's token is needed in {TOKEN_VARIABLE}; or give the run folder, where both are found"]
        )
    return Address(place, token)


def _parts_of(url: str) -> SplitResult:
    """An address in parts.

    Raises:
        OptionError: It is none; its text is not repeated, since a secret may stand in it.
    """
    with contextlib.suppress(ValueError):  # of brackets, of a port, and of a host that no name server could be asked
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 80) > 0
        if whole and "@" not in parts.netloc and url.isprintable() and " " not in url:
            return parts
    raise OptionError("work", ["the address is none; write http://HOST:PORT, or give the run folder"])


class Line:
    """The way from a worker to its run, over one kept connection. Not safe for several threads."""

    def __init__(self, address: Address, timeout_s: float = _TIMEOUT_S):
        """Args:
            address: The run's.
            timeout_s: How long an answer is waited for.

        Raises:
            OptionError: The address is none.
        """
        parts = _parts_of(address.url)
        self.place = f"{parts.scheme}://{parts.netloc}"
        self._base = parts.path.rstrip("/")
        self._token = address.token
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(str(parts.hostname), parts.port, timeout=timeout_s)

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One call.

        Raises:
            Away: Nobody answers there, or not now.
            OtherToken: It has another token.
            UserError: The run refuses it; says why.
        """
        blob = json.dumps(body).encode("ascii")
        headers = {"Content-Type": "application/json", "X-Potstill-Token": self._token}
        kept = self._connection.sock is not None
        try:
            status, text = self._once(path, blob, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept:
                raise Away(f"{type(error).__name__}: {error}") from None
            # A connection that nothing was said over for a while was closed at the other end.
            return self.ask(path, body)
        if status in _NOT_NOW:
            raise Away(_said(text) or f"HTTP {status}")
        if status == 403:
            raise OtherToken(
                f"the run at {self.place} has another token; give that in {TOKEN_VARIABLE}, or the run folder"
            )
        if status != 200:
            raise UserError(f"the run at {self.place} refuses {path} (HTTP {status}: {_said(text)})")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UserError(f"what answers at {self.place} is no run of potstill; check the address")
        return found

    def _once(self, path: str, blob: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self._connection.request("POST", self._base + path, blob, dict(headers))
        reply = self._connection.getresponse()
        text = reply.read(_MOST_HEARD + 1)
        if len(text) > _MOST_HEARD:
            raise http.client.HTTPException("an answer of more than 1 GiB")
        if reply.length:  # a read of at most so many bytes does not tell that the other end was killed within them
            raise http.client.IncompleteRead(text, reply.length)
        return reply.status, text

    def close(self) -> None:
        """End the connection; the next call opens another."""
        self._connection.close()


def workers_of(folder: Path, timeout_s: float = 2.0) -> list[dict[str, Any]]:
    """The workers of the run that is at work in a folder, as `Leases.told`; none where it has none or is not heard."""
    try:
        if (address := read_address(folder)) is None:
            return []
        line = Line(address, timeout_s)
        try:
            found = line.ask("/workers", {})["workers"]
        finally:
            line.close()
        return [
            {"host": str(one["host"]), "process": int(one["process"]), "here": bool(one["here"]),
             "in_flight": int(one["in_flight"]), "answered": int(one["answered"]), "heard_s": float(one["heard_s"])}
            for one in found
        ]  # fmt: skip
    except (Away, PotstillError, KeyError, TypeError, ValueError):
        return []


def _said(text: bytes) -> str:
    """The words of an error's answer."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        return " ".join(str(json.loads(text).get("error", "")).split())[:600]
    return ""


def request_to_wire(request: AnyRequest) -> dict[str, Any]:
    """Every field of a request but its `tag`, numbers as they are."""
    told = {field.name: getattr(request, field.name) for field in fields(request) if field.name != "tag"}
    if told.get("schema") is not None:
        told["schema"] = dict(told["schema"])
    return told | {"messages": [[message.role, message.content] for message in request.messages]}


def request_from_wire(plain: Mapping[str, Any]) -> AnyRequest:
    """The inverse of `request_to_wire`.

    Raises:
        DataError: It is no request.
    """
    try:
        given = dict(plain) | {"messages": tuple(Message(role, content) for role, content in plain["messages"])}
        for name in ("continuations", "stop", "choices"):
            if given.get(name) is not None:
                given[name] = tuple(given[name])
        if given.get("token_ids") is not None:
            prompt, scored = given["token_ids"]
            given["token_ids"] = tuple(prompt), tuple(scored)
        return ScoreRequest(**given) if "continuations" in given else Request(**given)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the run sent what is no request ({type(error).__name__}: {error})") from None


def outcome_to_wire(outcome: Outcome) -> list[Any]:
    """A number with its reply or failure, as JSON types."""
    number, reply = outcome
    return [number, {"failure": dict(vars(reply))} if isinstance(reply, Failure) else {"reply": reply_to_json(reply)}]


def outcome_from_wire(plain: Any) -> Outcome:
    """The inverse of `outcome_to_wire`; of scores and log-probs what a ledger keeps.

    Raises:
        DataError: It is none.
    """
    with contextlib.suppress(KeyError, TypeError, ValueError, DataError):
        number, said = plain
        reply = Failure(**said["failure"]) if "failure" in said else reply_from_json(said["reply"])
        if isinstance(number, int) and _is_sound(reply):
            return number, reply
    raise DataError("a worker handed in what is no reply")


def _is_sound(reply: Reply | Failure) -> bool:
    """Whether the fields are of their types and of sizes that a ledger keeps, so that no reply ends the run."""
    counts = [reply.attempts, reply.prompt_tokens, reply.completion_tokens]
    if isinstance(reply, Failure):
        words, numbers = [reply.reason], []
    else:
        said = [(token.text, token.logprob) for token in reply.said]
        said += [other for token in reply.said for other in token.others]
        words = [reply.text, reply.finish, *(text for text, _ in said)]
        numbers = [*reply.scores, *(value for _, value in said)]
        counts += reply.score_tokens
    return (
        all(isinstance(word, str) for word in words)
        and all(type(count) is int and 0 <= count <= _MOST_COUNTED for count in counts)
        and all(type(number) is float for number in numbers)
        and (isinstance(reply, Failure) or reply.finish in get_args(FinishReason))
        and (isinstance(reply, Failure) or isinstance(reply.raw, dict | None))
    )
