"""The suite `secrets` of `torture.py`: a sentinel key through a server that fails in every way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torture_servers import beside

KEY = "sk-sentinel-7d1e9b42c6f0"


def secrets(place: Path) -> list[dict[str, Any]]:
    """The key in the environment and another in the URL, through every fault: what is written holds neither."""
    import io
    import logging

    from potstill.asker import Asker
    from potstill.datagen.teachers import open_teacher
    from potstill.errors import PotstillError
    from potstill.ledger import Ledger
    from potstill.teacher import Message, Request

    server_module = beside("teacher_server")
    os.environ["OPENAI_API_KEY"] = KEY
    in_url = "tok-sentinel-11aa22bb"
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    shown: list[str] = []
    used = 0
    kinds = ("echo-key", "401", "403", "400", "404", "quota", "500", "reset", "html", "cut-json", "no-choices", "503")
    for number, kind in enumerate(kinds):
        with server_module.running_server(lambda number, text, kind=kind: kind) as server:
            # With a name in the URL, that is sent instead of the key.
            name = f"bob:{in_url}@" if number % 2 else ""
            url = server.url.replace("http://", f"http://{name}") + f"?token={in_url}"
            opened = open_teacher(
                f"openai:{url}#m", attempts=2, backoff_s=0.01, longest_pause_s=0.02, startup_s=0.1, patience_s=0.3,
                timeout_s=1.0, flavour="openai",
            )  # fmt: skip
            with Ledger(place / f"secret-{kind}.sqlite") as ledger:
                asker = Asker(opened, ledger)
                try:
                    shown += [repr(a) for a in asker.ask([Request((Message("user", "x"),))], "torture")]
                except PotstillError as error:
                    link: BaseException | None = error
                    while link is not None:
                        shown.append(repr(link) + str(vars(link)))
                        link = link.__cause__ or link.__context__
            shown += [repr(opened), opened.name, str(dict(opened.identity))]
            opened.close()
            used += sum(KEY in headers.get("authorization", "") for headers in server.headers)
    logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(logging.WARNING)
    files = [path for path in place.rglob("*") if path.is_file()]
    held = [path.name for path in files if any(key.encode() in path.read_bytes() for key in (KEY, in_url))]
    held += [f"shown: {text[:80]}" for text in shown if KEY in text or in_url in text]
    held += ["the log"] * (KEY in log.getvalue() or in_url in log.getvalue())
    return [
        {"suite": "secrets", "what": "a key in the environment and one in the URL, through faults of the server",
         "count": len(kinds), "bad": len(held) + (used == 0), "files_read": len(files), "texts_read": len(shown),
         "requests_that_carried_it": used, "which": held[:5] or None}
    ]  # fmt: skip
