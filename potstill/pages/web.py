"""A small HTTP server for one person on one machine: what the viewer and the student's page stand on.

What enters: routes, which are plain functions from a `Call` to an `Answer`. What is guarded, whatever a route does:

- it listens on the loopback unless another address is asked for by name;
- `Host` must be the address it was started on, so that a name which someone pointed at 127.0.0.1 does not reach it
  (DNS rebinding), and `Origin`, where a browser sends one, must be its own page. Started on every address, it may be
  called by any in figures, as behind a router or a container's port: nobody can point these somewhere;
- what changes something is a POST of JSON with the token that only the page has, in a header that no form can send;
- bodies are bounded, one that does not come in time is given up, and so many requests run at a time while the others
  are told to come back (503 with Retry-After);
- every page forbids scripts, styles and pictures but its own, and being framed.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from potstill.errors import PotstillError, RunError, UserError

MAX_BODY = 1 << 20
_READ_TIMEOUT_S = 15.0
_FORGET_BYTES = 4 * MAX_BODY
_FORGET_S = 2.0
_EVERYWHERE = ("", "0.0.0.0", "::")
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        path: Without the query.
        query: The query's values, the last one of each name.
        body: The JSON of a POST; empty for a GET.
        nonce: What the page's own script and style carry.
        token: What its POSTs must send.
    """

    path: str
    query: Mapping[str, str]
    body: Mapping[str, Any]
    nonce: str
    token: str


@dataclass(frozen=True)
class Answer:
    """What goes back: JSON, or a page where `html` is set."""

    value: Any = None
    status: int = 200
    html: str = ""


Route = Callable[[Call], Answer]


@dataclass
class App:
    """Routes with their guards.

    Attributes:
        get: Pages and readings, by path.
        post: What changes something or costs something, by path.
        open_posts: Paths of `post` that need no token (an endpoint for other programs of this machine); `Host` and
            `Origin` are checked all the same.
        slots: Requests that run at a time; the others wait in `queue`.
        queue: Requests that may wait; more are refused with 503.
        token: What the page's POSTs carry.
        max_body: Most bytes of a body.
        by_any_name: Whether `Host` may be any name of this machine: for programs that hold the token, where no page
            is there that could be made to.
        closing: Called once, when its server is closed.
    """

    get: dict[str, Route]
    post: dict[str, Route] = field(default_factory=dict)
    open_posts: frozenset[str] = frozenset()
    slots: int = 8
    queue: int = 64
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    max_body: int = MAX_BODY
    by_any_name: bool = False
    closing: Callable[[], None] = lambda: None


class Server(ThreadingHTTPServer):
    """The server of one `App`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, app: App, host: str = "127.0.0.1", port: int = 0):
        self.app = app
        self._listening = False
        self._slots = threading.Semaphore(app.slots)
        self._room = threading.Semaphore(app.slots + app.queue)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            flag = "--host" if isinstance(error, socket.gaierror) else "--port"
            raise RunError(f"cannot listen on {host}:{port} ({error}); choose another with {flag}") from None
        self._listening = True
        self._everywhere = host in _EVERYWHERE
        self._hosts = host_headers(host, int(self.server_address[1]))

    def server_bind(self) -> None:
        """`::` takes calls to IPv4 addresses too, where the system can."""
        if self.address_family == socket.AF_INET6:
            with contextlib.suppress(OSError, AttributeError):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def server_close(self) -> None:
        """Give the address back, and what the app keeps."""
        super().server_close()
        if self._listening:  # one that found its port taken has nothing of the app's
            self.app.closing()

    def is_own(self, host: str) -> bool:
        """Whether a `Host` header, in lower case, is an address of this server."""
        return self.app.by_any_name or host in self._hosts or (self._everywhere and _in_figures(host))

    def is_own_page(self, origin: str, host: str) -> bool:
        """Whether an `Origin` header, in lower case, is a page of this server, which was called as `host`."""
        return origin.removeprefix("http://") in {*self._hosts, host} and origin.startswith("http://")

    @property
    def url(self) -> str:
        """Where its page is."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """A place among the requests at work; False where even the queue is full."""
        if not self._room.acquire(blocking=False):
            yield False
            return
        try:
            with self._slots:
                yield True
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""


def host_headers(host: str, port: int) -> frozenset[str]:
    """What clients write into `Host` for a server at `host` and `port`; they leave out the port where it is 80."""
    names = {f"[{host}]" if ":" in host else host.lower()}
    if host in ("127.0.0.1", "localhost"):
        names = {"127.0.0.1", "localhost"}
    if host == "::1":
        names |= {"localhost"}
    if host in _EVERYWHERE:  # it may be called by its own name
        names |= {"127.0.0.1", "localhost", socket.gethostname().lower()}
    return frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port == 80 else frozenset())


def _in_figures(host: str) -> bool:
    """Whether a `Host` header is an IP address, with or without a port."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::\d{1,5})?", host)
    try:
        return found is not None and bool(ipaddress.ip_address(found[1] or found[2]))
    except ValueError:
        return False


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server in a thread, until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


class _Refused(Exception):
    def __init__(self, status: int, text: str):
        self.status, self.text = status, text
        super().__init__(text)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = _READ_TIMEOUT_S
    disable_nagle_algorithm = True  # headers and body are two writes, and the second would wait for the client
    _read = False  # whether the body of the request has been
    server_version, sys_version = "potstill", ""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("get")

    def do_POST(self) -> None:
        self._answer("post")

    def _answer(self, method: str) -> None:
        nonce, self._read = secrets.token_urlsafe(12), False
        try:
            with self.server.turn() as admitted:
                answer = self._called(method, nonce, admitted)
        except _Refused as error:
            self.close_connection = True  # a body may be left unread
            answer = Answer({"error": error.text}, error.status)
        except UserError as error:
            answer = Answer({"error": str(error)}, 400)
        except PotstillError as error:
            answer = Answer({"error": str(error)}, 500)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception as error:  # a bug must not take the other requests with it, nor show its traceback to a page
            answer = Answer({"error": f"{type(error).__name__}: {error}"}, 500)
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._send(answer, nonce)
            if self.close_connection:
                self._forget_body()

    def _called(self, method: str, nonce: str, admitted: bool) -> Answer:
        app, parts = self.server.app, urlsplit(self.path)
        self._check_sender()
        if not admitted:
            raise _Refused(503, "too many requests at a time; try again in a second")
        routes = app.get if method == "get" else app.post
        if parts.path not in routes:
            other = app.post if method == "get" else app.get
            raise _Refused(405 if parts.path in other else 404, f"no {method.upper()} {parts.path[:200]}")
        body: Mapping[str, Any] = {}
        if method == "post":
            if parts.path not in app.open_posts:
                given = self.headers.get("X-Potstill-Token", "")
                if not hmac.compare_digest(given.encode(), app.token.encode()):
                    raise _Refused(403, "the token is missing or of an earlier start; load the page again")
            body = self._body()
        try:
            query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=40))
        except ValueError:
            raise _Refused(400, "the query has too many fields") from None
        return routes[parts.path](Call(parts.path, query, body, nonce, app.token))

    def _forget_body(self) -> None:
        """Before the connection is closed, read what is left of the body, a bounded while.

        Closed on unread bytes, it is reset, and who is still sending sees a broken pipe in place of the answer.
        """
        announced = self.headers.get("Content-Length", "")
        known = announced.isascii() and announced.isdigit() and not self._read
        left = min(int(announced[:12]), _FORGET_BYTES) if known else 0
        deadline = time.monotonic() + _FORGET_S
        self.connection.settimeout(_FORGET_S)
        while left > 0 and time.monotonic() < deadline and (part := self.rfile.read1(min(left, 1 << 16))):  # type: ignore[attr-defined]
            left -= len(part)

    def _check_sender(self) -> None:
        host = self.headers.get("Host", "").lower()
        if not self.server.is_own(host):
            raise _Refused(403, f"host {host[:100]!r} is not this server's address")
        origin = self.headers.get("Origin")
        if origin is not None and not self.server.is_own_page(origin.lower(), host):
            raise _Refused(403, f"origin {origin[:100]!r} is not this server's page")
        if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise _Refused(403, "the request comes from another site")

    def _body(self) -> Mapping[str, Any]:
        if self.headers.get("Transfer-Encoding"):
            raise _Refused(411, "send the body with a Content-Length")
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise _Refused(411, "send the body with a Content-Length") from None
        most = self.server.app.max_body
        if not 0 <= size <= most:
            raise _Refused(413, f"the body has {size:,} bytes, at most {most:,} are read")
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise _Refused(415, "send application/json")
        text, self._read = self.rfile.read(size), True
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise _Refused(400, "the body is no JSON") from None
        if not isinstance(value, dict):
            raise _Refused(400, "the body must be a JSON object")
        return value

    def _send(self, answer: Answer, nonce: str) -> None:
        blob = _encoded(answer)
        self.send_response(answer.status)
        kind = "text/html" if answer.html else "application/json"
        headers = {
            "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(blob)), "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Content-Security-Policy": _POLICY.format(nonce=nonce), "Cross-Origin-Resource-Policy": "same-origin",
        }  # fmt: skip
        if answer.status == 503:
            headers["Retry-After"] = "1"
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(blob)


def _encoded(answer: Answer) -> bytes:
    """An answer's bytes; halves of surrogate pairs stay what they are in JSON, and become `?` in a page."""
    if answer.html:
        return answer.html.encode("utf-8", "replace")
    try:
        return json.dumps(answer.value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(answer.value).encode("ascii")
