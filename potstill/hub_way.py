"""Whether there is a way to the Hub, found out before a client of it waits and asks again."""

from __future__ import annotations

import os
import socket
import threading
import time
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_PROBE_S = 3.0
_AGAIN_S = 30.0
# When a host and port were last tried, and what was in the way.
_tried: dict[tuple[str, int], tuple[float, str]] = {}


def hub_unreachable() -> str:
    """Why the Hub cannot be reached, or an empty string; found out within three seconds.

    What was reached is not tried again in this process, and what was not, not for half a minute: a network may come up
    under a notebook. Behind a proxy it is the proxy that is tried, as the clients do: there may be no other way out,
    nor a name server.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set"
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    proxies = {} if proxy_bypass(endpoint.hostname or "") else getproxies()
    proxy = proxies.get(endpoint.scheme) or proxies.get("all", "")
    way = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else endpoint
    # A SOCKS proxy listens at 1080 unless it says so, and others at the port of their scheme.
    port = way.port or (1080 if way.scheme.startswith("socks") else 443 if way.scheme == "https" else 80)
    place = (way.hostname or "", port)
    known = _tried.get(place)
    if known is None or (known[1] and time.monotonic() - known[0] >= _AGAIN_S):
        known = _tried[place] = time.monotonic(), _probe(place)
    error = known[1]
    return f"no network to {f'the proxy {way.hostname}' if proxy else way.hostname} ({error})" if error else ""


def _probe(place: tuple[str, int]) -> str:
    """What is in the way of a connection, or an empty string.

    The limit is one for the name server and all addresses of the host together: behind a firewall that drops what it
    forbids, each of them would take as long. So it is a thread that tries.
    """
    found: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection(place, timeout=_PROBE_S).close()
        except (OSError, UnicodeError) as error:  # UnicodeError: what can be no host's name
            found.append(str(error) or type(error).__name__)
        else:
            found.append("")

    trying = threading.Thread(target=connect, daemon=True)
    trying.start()
    trying.join(_PROBE_S)
    return found[0] if found else f"no answer in {_PROBE_S:g} s"
