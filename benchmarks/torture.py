"""Is anything lost, paid twice or let in, whatever goes wrong? `make torture` runs all of it, `--quick` a short form.

    python benchmarks/torture.py [--quick] [--only crash,teacher,…] [--no-write]

    crash     SIGKILL at random moments and file-system steps of whole runs, with export and a push
    disk      a full disk, a read-only disk, files that stop growing: in each stage
    caches    one input changed: which stages are made again
    teacher   a real HTTP server on the loopback that misbehaves on 30 % of the requests; refusals
    fuzz      made-up and mutated inputs for every parser of what strangers write
    leaks     test texts planted in training rows: exact, other case, other spaces, some words changed
    secrets   a sentinel key through a server that fails in every way: no file of the run holds it
    ledger    look-ups in a large ledger (`--ledger-rows`)

Each record says how much was tried (`count`) and how much of it was wrong (`bad`); if anything was, the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from results_file import merge_results, print_table

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-sentinel-7d1e9b42c6f0"
FAULTS = (
    "429", "429-soon", "500", "502", "503", "slow-headers", "slow-body", "reset", "reset-body", "html", "cut-json",
    "array", "no-choices", "no-text",
)  # fmt: skip


def beside(name: str) -> Any:
    """A module of the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# ---- teacher --------------------------------------------------------------------------------------------------------


def teacher(requests: int, place: Path) -> list[dict[str, Any]]:
    """Requests at 30 % faults, with an endpoint that dies for a while; then what ends at once."""
    from potstill.asker import Asker
    from potstill.datagen.teachers import open_teacher
    from potstill.errors import TeacherRefused
    from potstill.ledger import Ledger
    from potstill.teacher import Failure, Message, Reply, Request

    server_module = beside("teacher_server")
    options = {
        "backoff_s": 0.01, "longest_pause_s": 0.1, "timeout_s": 8.0, "startup_s": 1.0, "patience_s": 60.0,
        "concurrency": 32, "attempts": 8,
    }  # fmt: skip
    seen: Counter[str] = Counter()
    dead = (requests // 3, requests // 3 + max(20, requests // 50))

    def fault(number: int, text: str) -> str | None:
        with server.lock:
            seen[text] += 1
            attempt = seen[text]
        if dead[0] <= number < dead[1]:
            return "reset"
        if text.endswith("77"):
            return "500"
        chance = random.Random(f"{text}/{attempt}")
        if chance.random() < 0.3:
            # Stalls hold a connection for seconds each: rarer, so that the suite ends.
            return chance.choice(FAULTS if chance.random() < 0.1 else quick)
        return "length" if chance.random() < 0.02 else None

    quick = tuple(name for name in FAULTS if not name.startswith("slow"))
    asked = [Request((Message("user", f"request {i}"),), max_tokens=16) for i in range(requests)]
    started = time.monotonic()
    bad: Counter[str] = Counter()
    with server_module.running_server(fault, stall_s=12.0) as server:
        _more_faults(server_module)
        opened = open_teacher(f"openai:{server.url}#m", **options)
        with Ledger(place / "teacher.sqlite") as ledger:
            asker = Asker(opened, ledger)
            answers = asker.ask(asked, "torture")
            totals = ledger.totals()
            before = server.asked
            good = [a.request for a in answers if isinstance(a.reply, Reply)]
            second = Asker(opened, ledger).ask(good, "torture")
            bad["answered requests asked again"] = server.asked - before + sum(not a.cached for a in second)
            bad["answers of another request"] = sum(
                isinstance(a.reply, Reply) and a.reply.text != f"reply to {a.request.messages[0].content}"
                for a in answers
            )
        opened.close()
    failed = [a for a in answers if isinstance(a.reply, Failure)]
    bad["requests without answer or reason"] = requests - len(good) - sum(bool(a.reply.reason) for a in failed)
    bad["paid twice"] = sum(count > 1 for count in server.answered.values())
    bad["failures not in the ledger"] = abs(totals.failures - len(failed))
    records = [
        {"suite": "teacher", "what": "30 % faults, dead for a while, one in a hundred failing always",
         "count": requests, "bad": sum(bad.values()), "answered": len(good), "failed_with_reason": len(failed),
         "truncated": totals.truncated, "attempts": server.asked, "seconds": round(time.monotonic() - started, 1),
         "kinds_of_fault": len([name for name in server.faults if name not in ("none", "length")]),
         "which": [name for name, count in bad.items() if count] or None}
    ]  # fmt: skip
    late = []
    for status in ("400", "401", "403"):
        with server_module.running_server(lambda number, text, status=status: status) as server:
            opened = open_teacher(f"openai:{server.url}#m", **{**options, "concurrency": 4})
            with Ledger(place / f"{status}.sqlite") as ledger:
                try:
                    Asker(opened, ledger).ask(asked[:200], "torture")
                    late.append(f"{status} did not end the run")
                except TeacherRefused as error:
                    if server.asked > 12:
                        late.append(f"{status}: {server.asked} requests")
                    if not any(word in str(error) for word in ("OPENAI_API_KEY", "context length")):
                        late.append(f"{status}: no mend in {error}")
            opened.close()
    records.append(
        {"suite": "teacher", "what": "400, 401 and 403 end the run at once with the mend", "count": 3,
         "bad": len(late), "which": late or None}
    )  # fmt: skip
    return records


def _more_faults(module: Any) -> None:
    """`429-soon`: throttled, with a Retry-After of 0 seconds."""
    plain = module._Handler._answer

    def answer(self: Any, fault: str | None, text: str) -> None:
        if fault == "429-soon":
            self._json(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})
        else:
            plain(self, fault, text)

    module._Handler._answer = answer


# ---- fuzz -----------------------------------------------------------------------------------------------------------

_PIECES = (
    "---\n", "labels:", "\n- ", ": ", "{", "}", "[", "]", '"', "'", "\\", "\x00", "\ud800", "\u202e", "\U0001f600", "é",
    "&a ", "*a", "!!python/object/apply:os.system ['x']", "<<: ", "{{ 7*7 }}", "{% raw %}", "../../etc/passwd", "NUL",
    "<script>", "](javascript:x)", "-1e999", "NaN", "1" * 40, " " * 20, "\t", "\r\n", "| a | b |\n|---|---|\n",
    "## Labels\n",
    "## Examples\n", "->", "=>", "Class label: x\n", "Input: ", "Output: ", "```json\n", "<|im_end|>", "1. ", "null",
    "true",
    "id", "features", "class_label", "splits", "choices", "message", "content", "finish_reason", "usage",
)  # fmt: skip


def _seeds() -> dict[str, list[str]]:
    """Sound inputs of each parser."""
    card = {"id": "a/b", "title": "T", "description": "words", "licence": "mit", "tags": ["language:en"],
            "configs": {"default": {"features": {"text": "string", "label": {"class_label": ["x", "y"]}},
                                    "splits": {"train": 9}}}}  # fmt: skip
    reply = {"choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
             "usage": {"prompt_tokens": 5, "completion_tokens": 4}}  # fmt: skip
    stored = {"text": "hello", "finish": "stop", "tokens": [1, 2], "scores": [-1.5], "score_tokens": [1]}
    readme = "---\nlicense: mit\nlanguage: [en]\ntags:\n- news\n---\n# News\nA set of texts.\n"
    return {
        "task file": [path.read_text("utf-8")[:1500] for path in sorted((ROOT / "examples").glob("**/*.md"))],
        "teacher's HTTP reply": [json.dumps(reply)],
        "teacher's text": ['{"texts": ["a", "b"]}', "1. A text.\n2. Another.", "premise: It rains.\nhypothesis: No.",
                           "Class label: a\nText one.", "Input: 3\nOutput: 4"],
        "card": [json.dumps(card), readme],
        "ledger row": [json.dumps(stored), '{"text": "hello", "finish": "length", "tokens": [0, 9], "attempts": 2}'],
    }  # fmt: skip


def mutants(seed: int, own: list[str]) -> Iterator[str]:
    """Texts without end: sound inputs with cuts, repeats, swaps and pieces put in; one in ten is pieces alone."""
    draw = random.Random(seed)
    others = [text for texts in _seeds().values() for text in texts]
    while True:
        chance = draw.random()
        text = draw.choice(own) if chance < 0.8 else draw.choice(others) if chance < 0.9 else ""
        for _ in range(draw.choice((1, 1, 2, 3, 5))):
            place = draw.randint(0, len(text))
            end = min(len(text), place + draw.randint(0, 30))
            kind = draw.random()
            if kind < 0.5:
                text = text[:place] + draw.choice(_PIECES) * draw.choice((1, 1, 1, 2, 9)) + text[place:]
            elif kind < 0.7:
                text = text[:place] + text[end:]
            elif kind < 0.8:
                text = text[:place]
            elif kind < 0.9:
                text = text[:place] + text[place:end] * draw.randint(2, 5) + text[end:]
            else:
                text = text[:place] + chr(draw.choice((draw.randint(0, 255), draw.randint(256, 0xFFFF)))) + text[end:]
        yield text[:4000]


def parsers(place: Path) -> dict[str, tuple[Callable[[str], Any], tuple[type[Exception], ...]]]:
    """Every parser of what others write, with the errors that it may end with."""
    import zstandard

    from potstill.datagen import parse, self_instruct_text
    from potstill.datagen.teachers.openai_wire import Fault, Secrets, chat_reply, parse_body
    from potstill.errors import PotstillError
    from potstill.ledger import _blob, _unblob
    from potstill.retrieval.cards import CardFault, card_from_mapping, card_summary, front_matter, plain_prose
    from potstill.task_file import read_task_file
    from potstill.teacher import Message, Request
    from potstill.teacher_json import reply_from_json

    file = place / "fuzz.md"
    secrets = Secrets(())
    request = Request((Message("user", "x"),))

    def task(text: str) -> None:
        file.write_text(text, "utf-8", "surrogatepass")
        read_task_file(file, draft=True)

    def reply(text: str) -> None:
        chat_reply(parse_body("application/json", text.encode("utf-8", "surrogatepass"), secrets), request, "openai")

    def texts(text: str) -> None:
        parse.clean_text(text)
        assert len(parse.split_list(text, 4)) <= 4
        parse.read_fields(text, ["premise", "hypothesis"])
        parse.strings_in(parse.read_json(text), "texts")
        self_instruct_text.split_instructions(text, 4, True)
        self_instruct_text.read_instances(text, True, True)

    def card(text: str) -> None:
        front_matter(text, "a/b")
        card_summary(text)
        plain_prose(text)
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(text)
            found = card_from_mapping(value)
            assert found is None or (".." not in found.id and not found.id.startswith("/") and "\0" not in found.id)

    def row(text: str) -> None:
        data = bytearray(_blob({"text": text}))
        assert _unblob(bytes(data)) == {"text": text}
        data[hash(text) % len(data)] ^= 1 << len(text) % 8
        with contextlib.suppress(zstandard.ZstdError, ValueError):
            _unblob(bytes(data))
        with contextlib.suppress(RecursionError):
            value = json.loads(text)
            if isinstance(value, dict):
                reply_from_json(value)

    return {
        "task file": (task, (PotstillError,)),
        "teacher's HTTP reply": (reply, (Fault,)),
        "teacher's text": (texts, ()),
        "card": (card, (CardFault,)),
        "ledger row": (row, (ValueError, PotstillError)),
    }


def fuzz(inputs: int, place: Path, seed: int = 0) -> list[dict[str, Any]]:
    """The same number of inputs for each parser; a crash, a wait over five seconds or a file elsewhere is wrong."""
    records = []
    found = parsers(place)
    for number, (name, (parser, may)) in enumerate(found.items()):
        source, slowest, bad = mutants(seed + number, _seeds().get(name, ["a"])), 0.0, Counter[str]()
        count = inputs // len(found)
        ran = Counter[str]()
        before = sorted(os.listdir(place))
        started = time.monotonic()
        for _ in range(count):
            text = next(source)
            began = time.perf_counter()
            try:
                parser(text)
                ran["read"] += 1
            except may:
                ran["refused"] += 1
            except Exception as error:
                bad[f"{type(error).__name__}: {error!s:.80}"] += 1
                (place / "crashes").mkdir(exist_ok=True)
                (place / "crashes" / f"{name} {len(bad)}.txt").write_text(text, "utf-8", "surrogatepass")
            slowest = max(slowest, time.perf_counter() - began)
        elsewhere = set(os.listdir(place)) - set(before) - {"fuzz.md", "crashes"}
        wrong = sum(bad.values()) + len(elsewhere) + (slowest > 5)
        records.append(
            {"suite": "fuzz", "what": name, "count": count, "bad": wrong, "read": ran["read"],
             "refused": ran["refused"], "slowest_ms": round(1000 * slowest, 1),
             "seconds": round(time.monotonic() - started, 1),
             "which": [f"{text} ({times})" for text, times in bad.most_common(4)] or None}
        )  # fmt: skip
    return records


# ---- leaks ----------------------------------------------------------------------------------------------------------


def leaks(tests: int) -> list[dict[str, Any]]:
    """Test texts planted among training rows in several guises: how many are found, and how many clean ones are too."""
    from potstill.datagen.decontaminate import TestTexts
    from potstill.datagen.teachers.fake import _prose

    texts = list(dict.fromkeys(_prose(f"topic {i % 40}", random.Random(f"test {i}"), 2) for i in range(tests)))
    clean = [_prose(f"topic {i % 40}", random.Random(f"train {i}"), 2) for i in range(tests)]
    draw = random.Random(0)
    vocabulary = sorted({word for text in texts for word in text.split()})

    def changed(text: str, share: float) -> str:
        words = text.split()
        for place in draw.sample(range(len(words)), max(1, round(share * len(words)))):
            words[place] = draw.choice(vocabulary)
        return " ".join(words)

    guises: dict[str, tuple[Callable[[str], str], bool]] = {
        "exact": (lambda text: text, True),
        "other case": (lambda text: text.upper(), True),
        "other spaces": (lambda text: "  \n".join(text.split(" ")) + " ", True),
        "other punctuation and accents": (lambda text: text.replace(".", " !").replace("e", "é"), True),
        "inside a longer text": (lambda text: f"As the paper wrote: {text} So much for today.", True),
        "1 word in 20 changed": (lambda text: changed(text, 0.05), False),
        "1 word in 10 changed": (lambda text: changed(text, 0.1), False),
        "1 word in 5 changed": (lambda text: changed(text, 0.2), False),
        "1 word in 3 changed": (lambda text: changed(text, 0.33), False),
        "order of the two sentences": (lambda text: " ".join(reversed(text.split(". "))), False),
    }
    index = TestTexts(texts)
    records = []
    for name, (make, sure) in guises.items():
        found = sum(index.found_in(make(text)) is not None for text in texts)
        records.append(
            {"suite": "leaks", "what": f"planted test text, {name}", "count": len(texts),
             "bad": len(texts) - found if sure else 0, "recall": round(found / len(texts), 4)}
        )  # fmt: skip
    found = sum(index.found_in(text) is not None for text in clean)
    records.append(
        {"suite": "leaks", "what": "other texts of the same vocabulary, wrongly dropped", "count": len(clean), "bad": 0,
         "share_dropped": round(found / len(clean), 4)}
    )  # fmt: skip
    return records


# ---- secrets --------------------------------------------------------------------------------------------------------


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


# ---- ledger ---------------------------------------------------------------------------------------------------------


def ledger_size(rows: int, place: Path) -> list[dict[str, Any]]:
    """Look-ups in a ledger of that many replies, known and unknown keys, in random order."""
    import hashlib
    import sqlite3

    from potstill.ledger import Ledger, _blob

    def key(number: int) -> str:
        return hashlib.sha256(str(number).encode()).hexdigest()

    path = place / "large.sqlite"
    with Ledger(path):
        pass
    blob = _blob({"messages": [["user", "Write a text for the label."]]}), _blob({"text": "some words " * 20})
    connection = sqlite3.connect(path)
    started = time.monotonic()
    connection.executemany(
        "INSERT INTO replies (key, purpose, teacher, request, reply, finish, max_tokens, prompt_tokens, "
        "completion_tokens, attempts, seconds, at) VALUES (?, 'generate', 'fake', ?, ?, 'stop', 64, 9, 40, 1, 0.1, 0)",
        ((key(i), *blob) for i in range(rows)),
    )
    connection.commit()
    connection.close()
    filled = time.monotonic() - started
    draw = random.Random(0)
    taken: list[float] = []
    wrong = 0
    with Ledger(path, read_only=True) as ledger:
        for _ in range(4000):
            number = draw.randrange(2 * rows)
            began = time.thread_time()
            found = ledger.find(key(number), 64)
            taken.append(time.thread_time() - began)
            wrong += (found is not None) != (number < rows)
    taken.sort()
    median, p99 = (1000 * taken[len(taken) * share // 100] for share in (50, 99))
    return [
        {"suite": "ledger", "what": f"look-ups among {rows:,} replies", "count": len(taken),
         "bad": wrong + (median > 1), "cpu_ms_p50": round(median, 4), "cpu_ms_p99": round(p99, 4),
         "file_mib": round(path.stat().st_size / 2**20, 1), "seconds_to_fill": round(filled, 1)}
    ]  # fmt: skip


# ---- whole runs -----------------------------------------------------------------------------------------------------


def whole_runs(
    names: set[str], kills: int, seed: int, quick: bool, place: Path, done: Callable[[list[dict[str, Any]]], None]
) -> None:
    """The suites that make whole runs share one server and one undisturbed run."""
    import torture_runs

    hub_module = beside("hub_server")
    (place / "hub").mkdir()
    with hub_module.running_hub(place / "hub") as hub:
        environment = {**hub.environment(place / "home"), "HF_HUB_OFFLINE": "0"} if "crash" in names else {}
        with torture_runs.running(place, environment) as runs:
            torture_runs.make_calm(runs, "crash" in names)
            if "crash" in names:
                done(torture_runs.crash(runs, kills, seed, push=True))
            if "caches" in names:
                done(torture_runs.caches(runs))
            if "disk" in names:
                done(torture_runs.disk(runs, ("datagen", "train") if quick else torture_runs.STAGES))


SUITES = ("secrets", "leaks", "teacher", "fuzz", "ledger", "crash", "disk", "caches")


def main() -> int:
    """Run, write `results/trust.json`, print the table."""
    arguments = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    arguments.add_argument("--quick", action="store_true", help="the short form of CI")
    arguments.add_argument("--only", default=",".join(SUITES), help=f"some of {','.join(SUITES)}")
    arguments.add_argument("--kills", type=int, help="200; 12 with --quick")
    arguments.add_argument("--requests", type=int, help="10000; 500 with --quick")
    arguments.add_argument("--inputs", type=int, help="1000000; 20000 with --quick")
    arguments.add_argument("--ledger-rows", type=int, help="1000000; 100000 with --quick; 10000000 takes about 5 GB")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--no-write", action="store_true", help="print only")
    given = arguments.parse_args()
    names = set(given.only.split(","))
    if names - set(SUITES):
        arguments.error(f"no suite {sorted(names - set(SUITES))[0]!r}; there are {', '.join(SUITES)}")
    quick = given.quick
    records: list[dict[str, Any]] = []

    def done(more: list[dict[str, Any]]) -> None:
        for record in more:
            record["form"] = "quick" if quick else "full"
            print(json.dumps(record, ensure_ascii=False), flush=True)
        records.extend(more)
        if not given.no_write:
            merge_results("trust", more, key=("suite", "what"))

    with tempfile.TemporaryDirectory(prefix="potstill-torture-") as folder:
        place = Path(folder)
        (place / "small").mkdir()
        small: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "secrets": lambda: secrets(place / "small"),
            "leaks": lambda: leaks(300 if quick else 2000),
            "teacher": lambda: teacher(given.requests or (500 if quick else 10_000), place / "small"),
            "fuzz": lambda: fuzz(given.inputs or (20_000 if quick else 1_000_000), place / "small", given.seed),
            "ledger": lambda: ledger_size(given.ledger_rows or (100_000 if quick else 1_000_000), place / "small"),
        }
        for name, suite in small.items():
            if name in names:
                done(suite())
        if names & {"crash", "disk", "caches"}:
            (place / "runs").mkdir()
            whole_runs(names, given.kills or (12 if quick else 200), given.seed, quick, place / "runs", done)
    print_table(records)
    return int(any(record["bad"] for record in records))


if __name__ == "__main__":
    sys.exit(main())
