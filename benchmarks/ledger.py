"""Is anything paid twice, or lost, when generation is killed? And what does a change of options ask again?

    python benchmarks/ledger.py [--kills 40]

`fake`: the fake teacher with a delay, which notes each request that it answers. `http`: an OpenAI-compatible server on
the loopback, in this process, which notes the same. A real process generates rows and gets SIGKILL at a random
moment among its requests, is started again, and so on, four times; then it may end. Compared with an undisturbed run:
its rows and drops byte for byte.

    repeated_requests       requests asked although their reply was in the ledger when the process started
    in_flight_asked_again   answered, and killed before the reply was on disk; at most `concurrency` a kill
    lost_rows               rows of the undisturbed run that the disturbed one lacks

The other records run the finished folder again with other options and count what is asked: nothing for the same ones,
refills alone for filters and for more rows, and with a larger `max_tokens` the requests whose reply was cut. Where
prompts show earlier texts as what to avoid (the http teacher, which cannot continue an opened reply), those texts grow
with `max_tokens`, and the prompts that show them are new requests.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from results_file import print_table, write_results

CONCURRENCY = 16
_ASKED = "asked.jsonl"
_KILLS_A_RUN = 4


def signature(messages: list[list[str]], seed: int, sample: int) -> str:
    """What tells requests apart, both for the teacher and in the ledger."""
    return json.dumps([messages, seed, sample], ensure_ascii=False)


def child(folder: Path, teacher: str, options: dict[str, Any]) -> None:
    """Generate rows into `folder`; run in a process of its own."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.asking.teacher import Failure, Reply, Request
    from potstill.datagen.generate import GenerationOptions, generate_rows
    from potstill.datagen.teachers import open_teacher
    from potstill.datagen.teachers.fake import FakeTeacher
    from potstill.task import Label, TaskSpec

    class Noting(FakeTeacher):
        """The fake teacher, which notes what it answers before it hands the answer over."""

        def answer(self, request: Any) -> Reply | Failure:
            assert isinstance(request, Request)
            messages = [[message.role, message.content] for message in request.messages]
            with (folder / _ASKED).open("a", encoding="utf-8") as file:
                file.write(signature(messages, request.seed, request.sample) + "\n")
            return super().answer(request)

    spec = TaskSpec(
        "news", "Classify a news article by topic.", "classification", tuple(Label(n) for n in ("World", "Sports"))
    )
    opened = (
        Noting(open_teacher("fake", delay_s=0.003, concurrency=CONCURRENCY).options)  # type: ignore[attr-defined]
        if teacher == "fake"
        else open_teacher(teacher, concurrency=CONCURRENCY, start=CONCURRENCY)
    )
    with Ledger(folder / "ledger.sqlite") as ledger:
        print("ready", flush=True)
        asker = Asker(opened, ledger)
        settings = {"attributes": "builtin", "max_tokens": 40, **options}
        result = generate_rows(spec, asker, GenerationOptions(**settings), out=folder / "out")
        print(json.dumps({"kept": result.kept, **asker.counts.to_json()}), flush=True)
    opened.close()


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers as the fake teacher does, and notes what it answered."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = Path(".")
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed client hangs up."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send({"data": [{"id": "m", "owned_by": "someone"}]})

    def do_POST(self) -> None:
        from potstill.asking.teacher import Message, Reply, Request
        from potstill.datagen.teachers.fake import FakeTeacher

        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(random.uniform(0.005, 0.03))
        messages = [[message["role"], message["content"]] for message in body["messages"]]
        request = Request(
            tuple(Message(role, content) for role, content in messages),
            max_tokens=body["max_completion_tokens"],
            seed=body["seed"],
            schema=body.get("response_format", {}).get("json_schema", {}).get("schema"),
        )
        reply = FakeTeacher().answer(request)
        assert isinstance(reply, Reply)
        with self.server.lock, (self.server.folder / _ASKED).open("a", encoding="utf-8") as file:
            file.write(signature(messages, body["seed"], 0) + "\n")
        message = {"role": "assistant", "content": reply.text}
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        self._send({"choices": [{"message": message, "finish_reason": reply.finish}], "usage": usage})

    def _send(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Server]:
    """The server, until the block ends."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def start(folder: Path, teacher: str, options: dict[str, Any]) -> subprocess.Popen[str]:
    """A generating process, past its imports."""
    command = [sys.executable, __file__, "--child", str(folder), teacher, json.dumps(options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise SystemExit(f"{teacher}: the generating process does not start")
    return process


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for its end; what it says of itself."""
    said, _ = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"the generating process ended with {process.returncode}")
    told: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return told


def asked(folder: Path) -> list[str]:
    """Everything that the teacher answered in a folder, in order; a last line that a kill cut short is left out."""
    path = folder / _ASKED
    text = path.read_text("utf-8") if path.exists() else ""
    return [line for line in text.split("\n")[:-1] if line]


def stored(folder: Path, by_wire_seed: bool, max_tokens: int = 0) -> set[str]:
    """Signatures of the replies that the ledger holds, without those that were cut at less than `max_tokens`."""
    from potstill.asking.ledger import Ledger
    from potstill.asking.teacher import Request
    from potstill.datagen.teachers.openai_wire import request_seed

    found = set()
    if not (folder / "ledger.sqlite").exists():
        return found
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        for entry in ledger.entries():
            if entry.finish == "length" and entry.max_tokens < max_tokens:
                continue
            seed, sample = entry.request["seed"], entry.request["sample"]
            if by_wire_seed:
                seed, sample = request_seed(Request((), seed=seed, sample=sample)), 0
            found.add(signature(entry.request["messages"], seed, sample))
    return found


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The kept rows of a folder."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(folder / "out" / "rows.parquet").to_pylist()
    return rows


def kill_and_compare(
    name: str, teacher: str, place: Path, rows: int, kills: int, seed: int, server: Server | None
) -> dict[str, Any]:
    """One record: `kills` kills spread over as many runs as it takes."""
    draw = random.Random(seed)
    options = {"rows": rows}
    calm = place / f"{name}-undisturbed"
    calm.mkdir()
    if server:
        server.folder = calm
    finish(start(calm, teacher, options))
    wanted = len(asked(calm))
    done = repeated = again = lost = runs = unequal = 0
    while done < kills:
        folder = place / f"{name}-{runs}"
        folder.mkdir()
        runs += 1
        if server:
            server.folder = folder
        killed = 0
        while True:
            known, before = stored(folder, server is not None), len(asked(folder))
            process = start(folder, teacher, options)
            # Some way into the requests that are left, and some milliseconds more.
            after = before + draw.randint(1, max(1, (wanted - before) // 2))
            while killed < _KILLS_A_RUN and done < kills and process.poll() is None:
                if len(asked(folder)) >= after:
                    time.sleep(draw.uniform(0.0, 0.02))
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    killed, done = killed + 1, done + 1
                    time.sleep(0.1 if server else 0.0)  # answers on their way to a dead client
                    break
                time.sleep(0.002)
            process.wait()
            repeated += sum(line in known for line in asked(folder)[before:])
            if process.returncode == 0:
                break
            check(folder)
        counts = Counter(asked(folder))
        again += sum(counts.values()) - len(counts)
        have = Counter(json.dumps(row) for row in rows_of(folder))
        lost += (Counter(json.dumps(row) for row in rows_of(calm)) - have).total()
        for file in ("rows.parquet", "dropped.jsonl"):
            unequal += (folder / "out" / file).read_bytes() != (calm / "out" / file).read_bytes()
    return {
        "what": f"SIGKILL, {name} teacher",
        "kills": done,
        "repeated_requests": repeated,
        "lost_rows": lost,
        "runs": runs,
        "unequal_files": unequal,
        "requests": len(set(asked(calm))),
        "in_flight_asked_again": again - repeated,
        "concurrency": CONCURRENCY,
    }


def check(folder: Path) -> None:
    """The ledger of a killed process is whole."""
    connection = sqlite3.connect(folder / "ledger.sqlite")
    said = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    if said != "ok":
        raise SystemExit(f"{folder}: the ledger is damaged: {said}")


def changes(place: Path, teacher: str, rows: int, server: Server | None) -> list[dict[str, Any]]:
    """Records of runs that change one option of a finished run."""
    name = "http" if server else "fake"
    folder = place / f"{name}-changes"
    folder.mkdir()
    if server:
        server.folder = folder
    finish(start(folder, teacher, {"rows": rows}))
    records = []
    for what, options in (
        ("the same again", {"rows": rows}),
        ("filters loosened", {"rows": rows, "novelty": 0.9, "own_name_share": 1.0}),
        ("filters tightened", {"rows": rows, "novelty": 0.6, "min_words": 12}),
        ("more rows", {"rows": rows + rows // 2}),
        ("max_tokens 40 to 60", {"rows": rows, "max_tokens": 60}),
    ):
        known, before = stored(folder, server is not None), len(asked(folder))
        whole = stored(folder, server is not None, int(options.get("max_tokens", 0)))
        told = finish(start(folder, teacher, options))
        new = asked(folder)[before:]
        records.append(
            {
                "what": f"{what}, {name} teacher",
                "kills": 0,
                "repeated_requests": sum(line in whole for line in new),
                "lost_rows": 0,
                "requests": len(new),
                "from_the_ledger": told["cached"],
                "cut_replies_asked_again": sum(line in known - whole for line in new),
            }
        )
    return records


def main() -> None:
    """Kill, change, write `results/ledger.json`, print the table."""
    arguments = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    arguments.add_argument("--kills", type=int, default=40)
    arguments.add_argument("--rows", type=int, default=400)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--no-write", action="store_true", help="print only")
    arguments.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        child(Path(given.child[0]), given.child[1], json.loads(given.child[2]))
        return
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        place, url = Path(folder), f"openai:http://127.0.0.1:{server.server_address[1]}/v1#m"
        records.append(kill_and_compare("fake", "fake", place, given.rows, given.kills // 2, given.seed, None))
        print(records[-1], flush=True)
        records.append(
            kill_and_compare("http", url, place, given.rows, given.kills - given.kills // 2, given.seed + 1, server)
        )
        print(records[-1], flush=True)
        records += changes(place, "fake", given.rows, None)
        records += changes(place, url, given.rows, server)
    if not given.no_write:
        write_results("ledger", records)
    print_table(records)


if __name__ == "__main__":
    main()
