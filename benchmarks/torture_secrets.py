"""The suite `secrets` of `torture.py`: a sentinel key through a server that fails in every way, and through a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

from torture_servers import beside

KEY = "sk-sentinel-7d1e9b42c6f0"
_WORDS = ("parcel", "invoice", "login", "crash", "refund", "button", "colour", "delivery", "password", "screen", "box")


def secrets(place: Path) -> list[dict[str, Any]]:
    """The key in the environment and another in the URL, through every fault: what is written holds neither."""
    import io
    import logging

    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.asking.teacher import Message, Request
    from potstill.datagen.teachers import open_teacher
    from potstill.errors import PotstillError

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


def secrets_of_a_run(place: Path) -> list[dict[str, Any]]:
    """A whole run from the command line, its key typed in teachers' URLs: nothing written or said holds it.

    In an argument of its own, in one that is quoted as JSON, in one that is joined by `=`, and in the task file.
    """
    key = "tok-sentinel-33cc44dd"
    place.mkdir(parents=True, exist_ok=True)
    with beside("teacher_server").running_server(reply=_answer) as server:
        url = server.url.replace("http://", f"http://bob:{key}@") + f"?token={key}"
        teacher = f"openai:{url}#m"
        (place / "task.md").write_text(
            f"---\nlabels: [billing, bug, other]\nquality: {{verify: true, teacher: '{teacher}'}}\n---\n"
            "Classify support tickets as billing, bug or other.\n"
        )
        command = [
            str(Path(sys.executable).with_name("potstill")), "run",
            "task.md", "--teacher", teacher, f'--set=quality.teacher="{teacher}"',
            "--sources", "generated", "-n", "12", "--out", "run",
        ]  # fmt: skip
        for pair in ("quality.judge=true", f"quality.teacher={teacher}", "distil.epochs=1", "distil.min_steps=2",
                     "evaluate.rows=6", "evaluate.latency_rows=2"):  # fmt: skip
            command += ["--set", pair]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=300)
        status = subprocess.run(
            [command[0], "status", "run"], cwd=place, capture_output=True, text=True, check=False, timeout=60
        )
        carried = sum(key in str(headers) or "authorization" in headers for headers in server.headers)
    files = [path for path in (place / "run").rglob("*") if path.is_file()]
    held = [str(path.relative_to(place)) for path in files if key.encode() in path.read_bytes()]
    said = (done.stdout, done.stderr, status.stdout, status.stderr)
    held += ["what was printed"] * any(key in text for text in said)
    if done.returncode or not (place / "run" / "report.html").exists():
        held.append(f"the run ended with {done.returncode}: {done.stderr.strip()[-200:].replace(key, '***')}")
    return [
        {"suite": "secrets", "what": "a whole run from the command line with the key in the teacher's URL",
         "count": 1, "bad": len(held) + (carried == 0), "files_read": len(files), "texts_read": len(said),
         "requests_that_carried_it": carried, "which": held[:5] or None}
    ]  # fmt: skip


def _answer(body: dict[str, Any]) -> str:
    """A reply in the shape that was asked for, different for each request."""
    # The same in every process, as `hash` is not: of twelve rows some draws leave none to measure on.
    number = zlib.crc32(json.dumps(body, sort_keys=True).encode()) % 10**6
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return _text(number) if schema is None else json.dumps(_shaped(schema, number))


def _shaped(schema: dict[str, Any], number: int) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [_shaped(schema["items"], number + i) for i in range(3)]
    if schema.get("type") == "object":
        return {name: _shaped(inner, number) for name, inner in schema["properties"].items()}
    return _text(number)


def _text(number: int) -> str:
    picked = [_WORDS[number // 11**place % len(_WORDS)] for place in range(4)]
    return f"The {picked[0]} and the {picked[1]} went wrong with my {picked[2]} near the {picked[3]} {number}."
