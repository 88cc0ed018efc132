"""Results and progress in a notebook; the notebooks of examples/ run as a reader runs them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.compare import Comparison, Difference
from potstill.datagen.result import GenerationResult
from potstill.events import Event, silent
from potstill.notebook import Followed, html_table, in_notebook, listening
from potstill.pages.live_view import RunView
from potstill.plan.steps import RunPlan, Step
from potstill.preview import Preview, preview_rows
from potstill.retrieval.cards import Card
from potstill.retrieval.search import Hit, Ranking, Refused
from potstill.retrieval.students import Model, StudentHit, StudentRanking
from potstill.rows import Dropped, Row, Source, rows_to_dataset, write_dropped, write_rows
from potstill.task import DataRef, Inferred, Label, TaskSpec

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
BAD = "<script>x</script>"
SAFE = "&lt;script&gt;x&lt;/script&gt;"
SPEC = TaskSpec(
    "t", BAD, "classification", (Label("a", BAD), Label("b")), label_prior={"a": 0.25, "b": 0.75},
    test=DataRef("test.jsonl"), inferred=(Inferred("kind", "classification", "rules"),),
)  # fmt: skip


class Handle:
    """What IPython's `display` gives back; keeps what was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, value: Any) -> None:
        self.shown.append(value._repr_html_())


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Handle:
    """A process that looks like a notebook's kernel."""
    handle = Handle()

    def display(value: Any, *, display_id: bool) -> Handle:
        assert display_id
        handle.update(value)
        return handle

    shell = SimpleNamespace(kernel=object())
    fake = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    return handle


def generated(folder: Path) -> GenerationResult:
    rows = [Row(f"{BAD} {i}", "a", "generated", Source(teacher="t"), "a") for i in range(12)]
    write_rows(rows_to_dataset(rows, ("a", "b")), folder / "rows.parquet")
    write_dropped([Dropped("copied", BAD, "x", "a", "generated", stage="datagen")], folder / "dropped.jsonl")
    return GenerationResult(folder, 12, 1, {})


def results(folder: Path) -> dict[str, tuple[Any, list[str]]]:
    """Each kind of result with hostile text in it, and what its table must say."""
    row = Row(BAD, "a", "generated", Source(teacher="t"), "a")
    card = Card(id="u/d", title="", licence=BAD, rows=1200)
    return {
        "task": (SPEC, ["<td style=\"text-align:left\">rules</td>", "test.jsonl", "a 0.25, b 0.75"]),
        "preview": (
            Preview(folder, SPEC, (row,), (Dropped("too_short", "", "y", "a"),) * 2, (), 7, 3, 4000),
            ["too_short", "1 written, 7 retrieved", "4,000 tokens"],
        ),
        "plan": (
            RunPlan(BAD, ((BAD, 5),), 900, (Step("soft", 1234, 9, 8, None, "assumed"),), None, ("1usd", False), (BAD,)),
            ["1,234", "assumed", "does not suffice", "cost: not known"],
        ),
        "comparison": (
            Comparison(
                (BAD, "two"), (("student", "accuracy", ("0.5", "0.6")),), (("rows", ("", "")), ("time", ("1", "2"))),
                (("n", ("1", "2")),), (Difference("accuracy", 0.1, -0.1, 0.3, 50, (BAD, "two")),), (BAD,),
            ),
            ["0.6", "setting that differs", "may be luck"],
        ),
        "ranking": (
            Ranking("q", (Hit(card, 0.5, 1.0, "used", "5 rows"),), (Refused("v/e", BAD),)),
            ["u/d", "0.500", "1,200", "5 rows", "v/e"],
        ),
        "students": (
            StudentRanking("q", (StudentHit(Model(card, 2**20, "encoder"), 0.25),), (Refused("v/e", BAD),)),
            ["u/d", "0.250", "4 MiB", "v/e"],
        ),
        "generation": (generated(folder), ["12 rows written, 1 refused", "copied"]),
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["task", "preview", "plan", "comparison", "ranking", "students", "generation"]
)  # fmt: skip
def test_a_result_is_a_table_without_colours_and_escaped(kind: str, tmp_path: Path) -> None:
    value, said = results(tmp_path)[kind]
    shown = str(value._repr_html_())
    assert SAFE in shown
    assert "<script" not in shown
    assert "color" not in shown
    assert "background" not in shown
    for text in said:
        assert text in shown
    assert shown.count("<table>") == shown.count("</table>") >= 1
    heads, *_ = re.findall(r"<thead>(.*?)</thead>", shown)
    for line in re.findall(r"<tr>(.*?)</tr>", shown.partition("<tbody>")[2].partition("</tbody>")[0], re.S):
        assert line.count("<td") == heads.count("<th")


def test_a_generation_shows_its_first_ten_rows(tmp_path: Path) -> None:
    shown = str(generated(tmp_path)._repr_html_())
    assert f"{SAFE} 9" in shown
    assert f"{SAFE} 10" not in shown


def test_a_cell_is_cut_and_holds_no_control_characters() -> None:
    shown = html_table(["\x1b"], [["a\x1b[31m\u202eb" + "x" * 5000, 0.12345, 10**6, None, True]], BAD)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert len(shown) < 1000
    assert "0.123" in shown
    assert "1,000,000" in shown
    assert SAFE in shown


def test_without_a_notebook_nothing_is_shown_and_nothing_loaded() -> None:
    script = (
        "import sys, potstill, potstill.pipeline, potstill.preview, potstill.notebook as n\n"
        "with n.listening() as listen:\n"
        "    assert listen is n.silent\n"
        "assert not {'IPython', 'ipykernel', 'torch', 'datasets'} & set(sys.modules), set(sys.modules)\n"
        "print('ok')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "ok\n", done.stderr[-2000:]


def test_a_terminal_with_ipython_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in (None, SimpleNamespace()):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert not in_notebook()
        with listening() as listen:
            assert listen is silent


def test_a_listener_of_the_caller_hears_everything_and_nothing_is_drawn(notebook: Handle) -> None:
    assert in_notebook()
    heard: list[Event] = []
    with listening(heard.append) as listen:
        listen(Event("train", "start"))
    with listening(silent) as listen:
        listen(Event("train", "start"))
    assert [event.kind for event in heard] == ["start"]
    assert notebook.shown == []


def test_one_table_follows_the_run(notebook: Handle) -> None:
    now = [100.0]
    with listening(clock=lambda: now[0]) as listen:
        listen(Event("datagen", "start", time_s=now[0]))
        for done in range(1, 201):
            now[0] += 0.1
            data = {"dropped": {"copied": done // 2}}
            listen(Event("datagen", "progress", BAD, done, 600, data, now[0]))
        speed = {"tokens_per_s": 321.0, "fresh": 60, "prompt_tokens": 500, "completion_tokens": 700}
        now[0] += 1
        listen(Event("datagen", "progress", "", 60, 600, speed, now[0]))
        listen(Event("datagen", "note", BAD, time_s=now[0]))
        during = notebook.shown[-1]
        listen(Event("datagen", "done", "200 rows", data={"rows": 200, "dropped": 100}, time_s=now[0]))
    assert 40 < len(notebook.shown) < 110  # four a second, not one for each event
    for text in ('<progress max="600" value="200">', '<td style="text-align:right">100</td>', "321 tokens/s", ">42 s<"):
        assert text in during
    assert SAFE in during
    assert "<script" not in "".join(notebook.shown)
    assert "✓" in notebook.shown[-1]
    assert "<progress" not in notebook.shown[-1]
    assert "200 rows" in notebook.shown[-1]


def test_the_table_ends_with_what_failed(notebook: Handle) -> None:
    def fail() -> None:
        with listening() as listen:
            listen(Event("retrieval", "start"))
            listen(Event("retrieval", "failed", "no catalogue"))
            listen(Event("train", "progress", "", 3, 9))
            raise RuntimeError("no catalogue")

    with pytest.raises(RuntimeError):
        fail()
    assert notebook.shown[-1].count("✗") == 2
    assert "<progress" not in notebook.shown[-1]
    assert "no catalogue" in notebook.shown[-1]


def test_in_plain_text_the_table_is_its_last_stage() -> None:
    view = RunView()
    assert repr(Followed(view)) == "no stage yet"
    view.take(Event("merge", "start"))
    view.take(Event("merge", "done", "9 rows kept"))
    assert repr(Followed(view)) == "✓ merge 9 rows kept"


def test_a_preview_in_a_notebook_draws_its_table(notebook: Handle, tmp_path: Path) -> None:
    found = preview_rows(
        "Classify support tickets as billing, bug or other.", rows=3, out=tmp_path / "run", teacher="fake",
        sources="generated",
    )  # fmt: skip
    assert len(found.rows) == 3
    assert all(stage in notebook.shown[-1] for stage in ("task", "retrieval", "preview"))
    assert "<progress" in "".join(notebook.shown[:-1])
    assert "<progress" not in notebook.shown[-1]  # it has ended


def outputs(cell: dict[str, Any], kind: str) -> str:
    """What a cell showed as `kind`."""
    return "".join("".join(item["data"].get(kind, "")) for item in cell["outputs"] if "data" in item)


def ends_with_value(source: str) -> bool:
    """Whether a cell's last line is an expression that a notebook displays."""
    last = ast.parse(source).body[-1]
    return isinstance(last, ast.Expr) and not ast.unparse(last).startswith("print(")


@pytest.mark.real
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_notebook_runs(path: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="no nbclient here; pip install -e '.[dev]'")
    pytest.importorskip("ipykernel", reason="no ipykernel here; pip install -e '.[dev]'")
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in book.cells if cell["cell_type"] == "code"]
    shown = [cell for cell in code if ends_with_value(cell["source"])]
    assert len(shown) >= len(code) // 2
    assert [cell["source"] for cell in shown if not outputs(cell, "text/plain")] == []
    tables = [outputs(cell, "text/html") for cell in code]
    assert sum("<table>" in table for table in tables) >= 2
    # When a cell has ended, nothing in its table is under way.
    assert "<progress" not in "".join(tables)
    assert "Traceback" not in json.dumps([cell["outputs"] for cell in code])


def test_there_are_two_notebooks_without_stored_output() -> None:
    assert len(NOTEBOOKS) >= 2
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs")
