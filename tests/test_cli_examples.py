"""Every command's help ends with an example, and every example does what it shows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from potstill.cli.app import app
from potstill.datagen.teachers.workers import WorkersTeacher

SMALL = ["--teacher", "fake", "--set", "distil.epochs=1", "--set", "distil.min_steps=4", "--set",
         "evaluate.latency_rows=2", "--set", "retrieval.rows_per_dataset=20", "-n", "24"]  # fmt: skip
# What is added so that an example costs no model download, no minutes and no money.
ADDED = {
    "run": [*SMALL, "-o", "runs/support-tickets"], "plan": ["--teacher", "fake"], "preview": ["--teacher", "fake"],
    "view": [], "serve": ["--port", "0"],
}  # fmt: skip


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def example_of(words: tuple[str, ...]) -> list[str]:
    epilog = COMMANDS[words].epilog or ""
    assert epilog.startswith("Example: potstill "), f"{' '.join(words)}: its help ends with no example"
    arguments = shlex.split(epilog.removeprefix("Example: "))[1:]
    assert tuple(arguments[: len(words)]) == words
    return arguments


def test_the_walk_sees_every_command() -> None:
    assert {
        ("run",), ("init",), ("doctor",), ("plan",), ("preview",), ("status",), ("report",), ("inspect",), ("compare",),
        ("evaluate",), ("push",), ("load",), ("view",), ("serve",), ("predict",), ("verify",), ("students",),
        ("compress",),
        ("catalogue", "build"), ("catalogue", "info"), ("catalogue", "search"), ("batch", "write"), ("batch", "read"),
    } <= set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)
def test_help_ends_with_the_example(words: tuple[str, ...]) -> None:
    shown = " ".join(CliRunner().invoke(app, [*words, "--help"]).output.split())
    assert shown.endswith(" ".join(f"Example: potstill {shlex.join(example_of(words))}".split())) or shown.endswith(
        COMMANDS[words].epilog
    )


@pytest.mark.parametrize("words", [(), ("catalogue",), ("batch",)], ids=lambda words: " ".join(words) or "root")
def test_help_of_a_group_ends_with_an_example_of_its_own(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"]).output
    last = shlex.split(" ".join(shown.rpartition("Example: potstill ")[2].split()))
    below = next(command for command in COMMANDS if tuple(last[: len(command)]) == command)
    assert below[: len(words)] == words
    assert last == example_of(below), "it is the command's own example, which is run below"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, repo_root: Path, shop_files: Any) -> Iterator[Path]:
    """A folder with a finished run and the files that examples name; the examples run in it."""
    folder = tmp_path_factory.mktemp("examples")
    before = Path.cwd()
    os.chdir(folder)
    (folder / "examples").symlink_to(repo_root / "examples")
    shop_files(folder)
    try:
        done = CliRunner().invoke(app, [*example_of(("run",)), *ADDED["run"]], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        shutil.copytree(folder / "runs" / "support-tickets", folder / "runs" / "support-longer")
        yield folder
    finally:
        os.chdir(before)


# Batches of a hosted server are made and fetched in test_batch_server, from a server of this machine.
ORDER = [words for words in COMMANDS if words not in (("run",), ("batch", "submit"), ("batch", "fetch"))]


@pytest.mark.real
@pytest.mark.timeout(900)  # the first one waits for the run that the others look at
@pytest.mark.parametrize("words", ORDER, ids=" ".join)
def test_the_example_runs(
    words: tuple[str, ...], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-used")
    arguments = [*example_of(words), *ADDED.get(words[0], [])]
    if words[0] == "catalogue":
        _own_catalogue(arguments, place)
    if words == ("batch", "read"):
        CliRunner().invoke(app, example_of(("batch", "write")), catch_exceptions=False)
    if words == ("load",):
        _load_from(request.getfixturevalue("hub"), arguments, place, tmp_path)
        return
    with _run_to_work_for(place) if words == ("work",) else contextlib.nullcontext():
        done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    assert done.output.strip(), "it says something"


@contextlib.contextmanager
def _run_to_work_for(place: Path) -> Iterator[None]:
    """A run in the example's folder that ends once a worker has come."""
    teacher = WorkersTeacher("fake", folder=place / "runs" / "support-tickets", notice=lambda text: None)

    def end() -> None:
        until = time.monotonic() + 60
        while not teacher.workers() and time.monotonic() < until:
            time.sleep(0.05)
        teacher.close()

    thread = threading.Thread(target=end)
    thread.start()
    yield
    thread.join()


def _load_from(hub: Any, arguments: list[str], place: Path, home: Path) -> None:
    """The example of `load`, with what the example of `push` publishes; in processes of their own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= hub.environment(home, token="")
    published = [word for word in example_of(("push",)) if word != "--dry-run"]
    for words in (published, arguments):
        done = subprocess.run(
            [sys.executable, "-m", "potstill.cli", *words], cwd=place, env=environment, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.strip()
    out = place / arguments[arguments.index("--out") + 1]
    assert (out / "model" / "config.json").exists()
    assert list((out / "dataset").rglob("*.parquet"))


def _own_catalogue(arguments: list[str], place: Path) -> None:
    """Examples that read `hub` or `hub.parquet` take the folder of cards that is here instead."""
    if "hub" in arguments:
        arguments.remove("hub")
        at = arguments.index("--filter")
        del arguments[at : at + 2]
    elif not (place / "hub.parquet").exists():
        done = CliRunner().invoke(app, ["catalogue", "build", "./my-datasets", "-o", "hub.parquet"])
        assert done.exit_code == 0, done.output


@pytest.mark.real
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_or_a_scheduler_stops_cleanly_and_says_how_to_go_on(sent: int, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "potstill.cli", "run", "Classify support tickets as billing, bug or other.",
               "--teacher", "fake", "-n", "200000", "--sources", "generated", "-o", str(tmp_path / "run")]  # fmt: skip
    # A shell lets what it starts in the background ignore Ctrl-C, and children inherit that.
    child = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    ledger = tmp_path / "run" / "ledger.sqlite-wal"
    until = time.monotonic() + 120
    while not (ledger.exists() and ledger.stat().st_size > 400_000) and time.monotonic() < until:
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.1)
    child.send_signal(sent)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == code, errors
    assert "Traceback" not in errors
    assert "FAILED datagen    stopped" in errors
    last = errors.strip().splitlines()[-1]
    assert "To go on from here: potstill run 'Classify support tickets" in last
    from potstill.asking.ledger import Ledger
    from potstill.run_dir import RunDir

    with RunDir(tmp_path / "run").lock(), Ledger(tmp_path / "run" / "ledger.sqlite") as kept:
        assert kept.totals().replies > 50, "the lock is free, and what was answered is there"


def test_a_live_view_knows_what_the_events_say() -> None:
    from potstill.events import Event
    from potstill.pages.live_view import RunView, drawn, duration

    view = RunView()
    view.take(Event("datagen", "start", time_s=100.0))
    view.take(Event("datagen", "progress", "40 replies", 40, None, {"tokens_per_s": 55.5, "fresh": 40, "cached": 2,
              "prompt_tokens": 900, "completion_tokens": 100, "usd": 0.25}, 101.0))  # fmt: skip
    view.take(Event("datagen", "progress", "rows", 10, 100, {"dropped": {"short": 3, "copy": 1}}, 110.0))
    view.take(Event("datagen", "progress", "rows", 13, 100, time_s=115.0))
    assert view.stages["datagen"].left_s(115.0) is None, "three rows, of a batch that has just begun"
    view.take(Event("datagen", "progress", "rows", 30, 100, {"dropped": {"short": 5, "copy": 1}}, 120.0))
    stage = view.stages["datagen"]
    assert (stage.done, stage.kept, stage.dropped) == (30, 30, 6)
    assert stage.left_s(120.0) == pytest.approx(35.0), "70 rows at 2 a second"
    assert view.teacher_line() == "40 replies, 2 from the ledger, 1,000 tokens, 56 tokens/s, 0.2500 USD"
    view.take(Event("datagen", "done", "30 rows", data={"rows": 30, "dropped": 6}, time_s=130.0))
    assert stage.left_s(131.0) is None
    assert stage.seconds(999.0) == 30
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(drawn(view, 131.0))
    shown = console.export_text()
    assert "✓" in shown
    assert "0.2500 USD" in shown
    assert [duration(s) for s in (None, 7.2, 185, 3725)] == ["", "7 s", "3:05", "1:02:05"]


def test_json_events_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    from potstill.events import Event
    from potstill.progress import listener_for

    with listener_for(as_json=True) as listen:
        listen(Event("merge", "done", "ü\nline", data={"rows": 3}, time_s=1.0))
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert json.loads(line)["event"]["data"] == {"rows": 3}


def test_answers_stand_on_the_lines_of_their_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.train import student as module
    from potstill.train.card import StudentCard
    from potstill.train.student import Prediction

    class Echo:
        card = StudentCard("echo", "generation")

        def predict(self, texts: list[str]) -> list[Prediction]:
            return [Prediction(text.upper().replace("\n", "/").replace("|", "\n")) for text in texts]

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(module, "load_student", lambda folder: Echo())

    def answers(lines: str, *more: str) -> list[str]:
        done = CliRunner().invoke(app, ["predict", str(tmp_path), *more], input=lines)
        assert done.exit_code == 0, done.output
        return done.output.split("\n")[:-1]

    assert answers("one\n\n two\n") == ["ONE", "", " TWO"]
    told = CliRunner().invoke(app, ["predict", str(tmp_path)], input="one|more\ntwo\n")
    assert told.stdout == "ONE\nMORE\nTWO\n"
    assert "1 of 2 answers have several lines" in told.stderr
    assert "--json" in told.stderr
    for more, lines in ((["one|more"], ""), (["--json"], "one|more\n")):
        assert CliRunner().invoke(app, ["predict", str(tmp_path), *more], input=lines).stderr == ""
    assert json.loads(answers("\n", "--json")[0]) == {"input": "", "output": None, "probs": None}
    Echo.card = StudentCard("echo", "generation", inputs=("a", "b"))
    assert answers('{"b": "y", "a": "x"}\n') == ["A: X/B: Y"]
    refused = CliRunner().invoke(app, ["predict", str(tmp_path), "x"])
    assert refused.exit_code != 0
    assert "the student reads the fields a and b" in str(refused.exception)


class _Moods:
    """A student that keeps what it was asked."""

    card = None

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict(self, texts: list[str]) -> list[object]:
        from potstill.train.student import Prediction

        self.asked += texts
        return [Prediction("bad", (0.25, 0.75)) for _ in texts]


@pytest.fixture
def moods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Moods:
    from potstill.train import student as module
    from potstill.train.card import StudentCard

    found = _Moods()
    found.card = StudentCard("moods", "classification", "Say good or bad.", labels=("good", "bad"))  # type: ignore[assignment]
    monkeypatch.chdir(tmp_path)
    Path("student").mkdir()
    Path("student/config.json").write_text("{}")
    monkeypatch.setattr(module, "load_student", lambda folder: found)
    return found


def test_of_a_line_out_of_a_data_file_the_text_is_read_and_not_its_label(moods: _Moods) -> None:
    lines = '{"text": "so sad", "label": "bad", "id": 3}\n\n{"input": "{a}"}\n{not json\n[1]\n'
    done = CliRunner().invoke(app, ["predict", "student", "--json"], input=lines)
    assert done.exit_code == 0, done.output
    assert moods.asked == ["so sad", "{a}", "{not json", "[1]"]
    assert done.stderr == "note: of JSON lines the text is read, and not: label, id\n"
    first = json.loads(done.stdout.splitlines()[0])
    assert list(first) == ["input", "output", "probs"]
    assert first["probs"] == {"good": 0.25, "bad": 0.75}, "which is which stands in the line"
    for words, given in ((["predict", "student"], 'fine\n{"ticket": "x", "label": "bad"}\n'),
                         (["predict", "student", "fine", '{"ticket": "x", "label": "bad"}'], "")):  # fmt: skip
        refused = CliRunner().invoke(app, words, input=given)
        assert refused.exit_code != 0
        told = str(refused.exception)
        assert ("line 2" if given else "text 2") in told
        assert "its columns are ticket, label" in told
        assert "--file" in told


def test_a_file_is_asked_row_by_row_and_its_name_is_no_text(moods: _Moods) -> None:
    Path("messages.txt").write_text("so sad\n\n so good\n")
    Path("rows.csv").write_text(
        "id,message,verdict\n1,so sad it hurts,bad\n2,so good to hear,good\n3,sad and bad,bad\n"
    )
    for words in (["messages.txt"], ["so sad", "messages.txt"]):
        told = str(CliRunner().invoke(app, ["predict", "student", *words]).exception)
        assert (
            "messages.txt is a file; to ask for its lines or rows: potstill predict student --file messages.txt" in told
        )
    done = CliRunner().invoke(app, ["predict", "student", "--file", "messages.txt"])
    assert (done.stdout, done.stderr) == ("bad\n\nbad\n", ""), "line N is answered by line N"
    assert moods.asked == ["so sad", "so good"]
    done = CliRunner().invoke(app, ["predict", "student", "--file", "rows.csv", "--json"])
    assert [json.loads(line)["input"] for line in done.stdout.splitlines()] == moods.asked[2:]
    assert moods.asked[2:] == ["so sad it hurts", "so good to hear", "sad and bad"]
    assert "no file at gone.csv" in str(CliRunner().invoke(app, ["predict", "student", "--file", "gone.csv"]).exception)
    for name in ("none.txt", "none.jsonl"):
        Path(name).write_text("\n")
        empty = str(CliRunner().invoke(app, ["predict", "student", "--file", name]).exception)
        assert empty == f"{name} has no rows; give a file that has some"
    both = str(CliRunner().invoke(app, ["predict", "student", "--file", "rows.csv", "fine"]).exception)
    assert "give texts or --file rows.csv, not both" in both
