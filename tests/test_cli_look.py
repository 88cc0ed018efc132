"""`inspect`, `compare`, `evaluate` and `load`, and what they stand on: paging, paired differences, whole units."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from potstill.cli.app import app
from potstill.compare import compare_runs, paired_interval
from potstill.decisions import Decision, decide, read_decisions
from potstill.errors import DataError, OptionError, UserError
from potstill.measure import evaluate_on
from potstill.pages.browse import Filter, RowBrowser
from potstill.rows import Row, Source, dataset_to_rows, read_rows, rows_to_dataset, write_rows
from potstill.task import DataRef


@pytest.fixture(scope="module")
def run(sample_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = sample_run.write_run(tmp_path_factory.mktemp("runs") / "real")
    return path


def _call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def _lines(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _call(*arguments, "--json").splitlines()]


def test_filters_agree_with_a_plain_reading_of_the_rows(run: Path) -> None:
    rows = {
        split: list(dataset_to_rows(read_rows(run / "merge" / f"{split}.parquet"))) for split in ("train", "validation")
    }
    every = [row for part in rows.values() for row in part]
    browser = RowBrowser(run)
    assert browser.page(Filter()).total == len(every) == 150
    for wanted, right in (
        (Filter(origin="user"), [r for r in every if r.origin == "user"]),
        (Filter(label="bug"), [r for r in every if r.output == "bug"]),
        (Filter(source="acme/tickets", split="train"), [r for r in rows["train"] if r.origin == "retrieved"]),
        (Filter(search="REFUND card"), [r for r in every if "refund" in r.input.lower() and "card" in r.input.lower()]),
        (Filter(origin="user", label="bug", search="crash"), [r for r in every if r.origin == "user"
                                                              and r.output == "bug" and "crash" in r.input.lower()]),
    ):  # fmt: skip
        page = browser.page(wanted, 0, 1000)
        assert right, wanted
        assert [record["id"] for record in page.rows] == [row.id for row in right]
        assert [r["id"] for r in browser.page(wanted, 2, 3).rows] == [row.id for row in right[2:5]]
    facets = browser.facets()
    assert facets["split"] == {"train": 120, "validation": 30}
    assert sum(facets["origin"].values()) == sum(facets["label"].values()) == sum(facets["source"].values()) == 150


def test_refused_rows_are_browsed_alike(run: Path) -> None:
    browser = RowBrowser(run)
    page = browser.page(Filter(view="dropped", reason="near_duplicate", stage="merge"))
    assert page.total == 9
    assert page.rows[0]["detail"].startswith("like row 3")
    assert browser.facets("dropped")["reason"] == {"near_duplicate": 9, "label_leak": 1}
    browser.close()


def test_inspect_shows_rows_and_one_row_with_the_teachers_reply(sample_run: Any, tmp_path: Path) -> None:
    from potstill.asking.ledger import Ledger

    run = sample_run.write_run(tmp_path / "run")
    with Ledger(run / "ledger.sqlite") as ledger:
        request = {"messages": [["user", "Write a ticket."]], "temperature": 1.0}
        ledger.record("key14", purpose="datagen", teacher="t", request=request, reply={"text": "[red]Raw reply"},
                      finish="stop", max_tokens=9, prompt_tokens=3, completion_tokens=2).result()  # fmt: skip
    found = [
        r for r in _lines("inspect", str(run), "--origin", "generated", "-n", "100") if "key14" in str(r["source"])
    ]
    shown = _call("inspect", str(run), "--id", found[0]["id"][:10])
    assert "Write a ticket." in shown
    assert "[red]Raw reply" in shown
    assert "like row 3" in _call("inspect", str(run), "--dropped", "-n", "3")
    nothing = _call("inspect", str(run), "--label", "nope")
    assert "none of the 150 kept rows fit; there are:" in nothing
    assert "billing" in nothing, "it says which labels there are"
    assert "--id ID" not in nothing
    past = _call("inspect", str(run), "--offset", "1000")
    assert past == "no rows after 1,000: there are 150; give a smaller --offset\n"
    last = _call("inspect", str(run), "--offset", "148").splitlines()[-1]
    assert last.startswith("rows 149–150 of 150; all of one: potstill inspect ")
    assert _call(*shlex.split(last.partition("potstill ")[2])).startswith("id "), "the line that it prints works"
    with pytest.raises(UserError, match="no row has the id"):
        _call("inspect", str(run), "--id", "zzzz")


def test_hostile_rows_do_not_reach_the_terminal(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run", hostile=True)
    for arguments in (("inspect", str(run), "-n", "60"), ("inspect", str(run), "--dropped")):
        out = _call(*arguments)
        assert "\x1b" not in out.replace("\x1b[0m", "")
        assert "\u202e" not in out


def test_paging_a_hundred_thousand_rows_is_quick(sample_run: Any, tmp_path: Path) -> None:
    import time

    labels = sample_run.LABELS
    rows = (
        Row(f"text {i} about {'a rare walrus' if i % 9973 == 0 else 'nothing'} and so on", labels[i % 3], "generated",
            Source(teacher="fake", requests=(f"k{i}",)), labels[i % 3]) for i in range(100_000)
    )  # fmt: skip
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.json").write_text(json.dumps(sample_run.spec_for().to_json()))
    write_rows(rows_to_dataset(rows, labels), tmp_path / "merge" / "train.parquet")
    browser = RowBrowser(tmp_path)
    times = {}
    for name, wanted, offset in (
        ("first", Filter(), 0), ("last", Filter(), 99_950), ("label", Filter(label="bug"), 30_000),
        ("search", Filter(search="walrus"), 0), ("turned", Filter(search="walrus"), 5),
    ):  # fmt: skip
        started = time.process_time()
        page = browser.page(wanted, offset, 50)
        times[name] = time.process_time() - started
        assert page.rows
    assert browser.page(Filter(search="walrus")).total == 11
    assert max(times.values()) < 1.0, times
    assert times["turned"] < 0.2, times


def test_compare_shows_scores_settings_and_whether_it_is_luck(sample_run: Any, tmp_path: Path) -> None:
    first = sample_run.write_run(tmp_path / "first", rows=240)
    second = tmp_path / "second"
    shutil.copytree(first, second)
    facts = json.loads((second / "run.json").read_text())
    facts["settings"] |= {"n": 999, "distil": {"epochs": 7}}
    (second / "run.json").write_text(json.dumps(facts))
    found = compare_runs([first, second])
    assert dict(found.settings) == {"n": ("240", "999"), "distil.epochs": ("(none)", "7")}
    (same,) = found.differences
    assert (same.value, same.low, same.high, same.sure, same.rows) == (0, 0, 0, False, 120)
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = second / "evaluate" / "predictions.parquet"
    columns = pq.read_table(place).to_pydict()
    pq.write_table(pa.table(columns | {"student": columns["gold"]}), place)
    (better,) = compare_runs([first, second]).differences
    assert better.sure
    assert better.value > 0.02
    out = _call("compare", str(first), str(second))
    assert "more than luck" in out
    assert "distil.epochs" in out
    columns["input"] = [f"other {text}" for text in columns["input"]]
    pq.write_table(pa.table(columns), place)
    apart = compare_runs([first, second])
    assert apart.differences == ()
    assert "other test rows" in apart.notes[0]
    assert "fewer than 10 test rows in common" in " ".join(apart.notes)
    with pytest.raises(UserError, match="two runs are needed"):
        _call("compare", str(first))


def test_names_of_runs_are_shown_as_they_are(sample_run: Any, tmp_path: Path) -> None:
    first = sample_run.write_run(tmp_path / "exp[v1]")
    second = tmp_path / "exp[red]\x1b[31m"
    shutil.copytree(first, second)
    facts = json.loads((second / "run.json").read_text())
    (second / "run.json").write_text(json.dumps(facts | {"settings": {"n": 999}}))
    out = _call("compare", str(first), str(second))
    assert out.count("exp[v1]") >= 2, "above the scores and above the settings"
    assert "exp[red]" in out
    assert "\x1b[31m" not in out


def test_labels_in_another_order_are_compared_and_other_labels_are_said(sample_run: Any, tmp_path: Path) -> None:
    first = sample_run.write_run(tmp_path / "first", rows=240)
    turned, other = tmp_path / "turned", tmp_path / "other"
    for folder in (turned, other):
        shutil.copytree(first, folder)
    task = json.loads((first / "task" / "task.json").read_text())
    (turned / "task" / "task.json").write_text(json.dumps(task | {"labels": task["labels"][::-1]}))
    renamed = [{**task["labels"][0], "name": "bills"}, *task["labels"][1:]]
    (other / "task" / "task.json").write_text(json.dumps(task | {"labels": renamed}))
    found = compare_runs([first, turned, other])
    (same,) = found.differences
    assert (same.value, same.rows, same.names) == (0, 120, ("turned", "first"))
    why = "other and first are not compared row by row: their tasks have other labels (bills; billing)"
    assert why in found.notes


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_paired_interval_is_that_of_a_plain_bootstrap(metric: str) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(1)
    names = ["a", "b", "c"]
    gold = rng.choice(names, 90)
    first = np.where(rng.random(90) < 0.6, gold, rng.choice(names, 90))
    second = np.where(rng.random(90) < 0.8, gold, rng.choice(names, 90))

    def score(at: Any, said: Any) -> float:
        if metric == "accuracy":
            return float(accuracy_score(gold[at], said[at]))
        return float(f1_score(gold[at], said[at], average="macro"))

    value, low, high = paired_interval(list(gold), list(first), list(second), metric, names)
    every = np.arange(90)
    assert value == pytest.approx(score(every, second) - score(every, first))
    drawn = [score(at, second) - score(at, first) for at in rng.integers(0, 90, (1500, 90))]
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.03)


def test_evaluate_measures_on_other_data_and_counts_what_was_trained_on(run: Path, tmp_path: Path) -> None:
    trained = read_rows(run / "soft" / "train.parquet")
    data = tmp_path / "other.jsonl"
    lines = [{"message": f"¡{trained[i]['input'].upper()} !", "kind": trained[i]["output"]} for i in range(5)]
    lines += [{"message": f"a new message number {i} about an invoice", "kind": "Billing"} for i in range(15)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluate_on(run, DataRef(str(data), inputs=("message",), output="kind"), latency_rows=2)
    assert found.known == 5
    assert found.without_known is not None
    assert found.without_known["rows"] == 15
    assert found.scores["test_set"]["rows"] == 20
    assert [s["name"] for s in found.scores["systems"]] == ["student", "majority"]
    stored = json.loads((found.path / "scores.json").read_text())
    assert stored == json.loads(json.dumps(found.scores))
    out = _call("evaluate", str(run), "--on", str(data), "--input", "message", "--output", "kind")
    assert "trained on 5 of these texts" in out
    with pytest.raises(OptionError, match=r"rows must be at least 0 \(got -5\)"):
        evaluate_on(run, DataRef(str(data)), rows=-5)
    heard: list[str] = []
    data.write_text(data.read_text() + '{"message": "nobody said what this is", "kind": ""}\n')
    ref = DataRef(str(data), inputs=("message",), output="kind")
    evaluate_on(run, ref, latency_rows=2, listener=lambda event: heard.append(event.message))
    assert f"1 of 21 rows in {data} have no text or no label and are left out" in heard
    with pytest.raises(DataError, match="no column 'text'"):
        _call("evaluate", str(run), "--on", str(data), "--input", "text", "--output", "kind")


def test_decisions_are_checked_kept_and_the_last_one_counts(run: Path, tmp_path: Path) -> None:
    labels = ["billing", "bug"]
    with pytest.raises(OptionError, match="'bugg' is no label"):
        decide(tmp_path, Decision("correct", "a", "bug", "a", "bugg"), labels)
    with pytest.raises(OptionError, match="new_input is empty"):
        decide(tmp_path, Decision("correct", "a", "bug", " ", "bug"), labels)
    with pytest.raises(OptionError, match="is none of"):
        decide(tmp_path, Decision("remove", "a", "bug"), labels)  # type: ignore[arg-type]
    assert read_decisions(tmp_path) == {}
    decide(tmp_path, Decision("reject", "a", "bug"), labels)
    decide(tmp_path, Decision("correct", "b\nline \ud800", "bug", "new", "billing"), labels)
    decide(tmp_path, Decision("accept", "a", "bug"), labels)
    assert read_decisions(tmp_path)["a", "bug"].action == "accept"
    decide(tmp_path, Decision("undo", "a", "bug"), labels)
    assert [d.action for d in read_decisions(tmp_path).values()] == ["correct"]
    (tmp_path / "decisions.jsonl").open("a").write("{half\n")
    with pytest.raises(DataError, match="line 5"):
        read_decisions(tmp_path)


def test_a_run_shows_its_scores_in_a_notebook(sample_run: Any, tmp_path: Path) -> None:
    import potstill

    run = sample_run.write_run(tmp_path / "run")
    place = run / "evaluate" / "scores.json"
    scores = json.loads(place.read_text())
    scores["systems"][1]["name"] = "<i>teacher</i>"
    place.write_text(json.dumps(scores))
    shown = potstill.load(run)._repr_html_()
    assert f">{scores['systems'][0]['macro_f1']:.3f}</td>" in shown
    assert "&lt;i&gt;teacher" in shown
    assert "60 real rows" in shown


def test_decisions_reach_the_merged_rows() -> None:
    from potstill.decisions import apply_decisions, decisions_key

    labels = ("billing", "bug")
    rows = [
        Row(f"t{i}", labels[i % 2], "generated", Source(teacher="t"), labels[i % 2], licence="mit") for i in range(4)
    ]
    made = [
        Decision("reject", "t0", "billing"), Decision("correct", "t1", "bug", "better", "billing", licence="mit"),
        Decision("accept", "t2", "billing"), Decision("accept", "refused", "bug", was_dropped=True),
        Decision("correct", "t3", "bug", "t3", "gone"),
    ]  # fmt: skip
    decisions = {(d.input, d.output): d for d in made}
    parts, dropped = apply_decisions([rows_to_dataset(rows, labels)], decisions, labels)
    own, kept = (list(dataset_to_rows(part)) for part in parts)
    assert [row.input for row in kept] == ["t2"]
    assert [(row.input, row.output, row.origin, row.licence) for row in own] == [
        ("better", "billing", "user", "mit"), ("refused", "bug", "user", "unknown"),
    ]  # fmt: skip
    assert sorted(item.reason for item in dropped) == ["corrected", "corrected", "rejected"]
    only_looked_at = {k: d for k, d in decisions.items() if d.input == "t2"}
    assert decisions_key(only_looked_at) == [], "a look alone makes no stage again"
    assert len(decisions_key(decisions)) == 4


def test_a_correction_can_be_judged_again() -> None:
    from potstill.decisions import apply_decisions

    labels = ("x", "y")
    rows = [Row("a", "x", "generated", Source(teacher="t"), "x")]

    def texts(*made: Decision) -> list[tuple[str, str]]:
        parts, _ = apply_decisions([rows_to_dataset(rows, labels)], {(d.input, d.output): d for d in made}, labels)
        return [(row.input, row.output) for part in parts for row in dataset_to_rows(part)]

    there, back = Decision("correct", "a", "x", "a", "y"), Decision("correct", "a", "y", "a", "x")
    assert texts(there) == [("a", "y")]
    assert texts(there, back) == [("a", "x")], "changed back"
    assert texts(there, Decision("reject", "a", "y")) == []
    assert texts(there, Decision("correct", "a", "y", "b", "y")) == [("b", "y")]


@pytest.mark.real
def test_the_next_run_heeds_a_correction(tmp_path: Path, repo_root: Path) -> None:
    """The run ends where the soft targets begin: what is trained on is decided by then."""
    import potstill
    from potstill.events import Event

    class Enough(Exception):
        pass

    def go_on() -> dict[str, str]:
        seen = {}

        def listen(event: Event) -> None:
            seen[event.stage] = event.kind
            if event.stage == "soft":
                raise Enough

        with pytest.raises(Enough):
            potstill.run(str(repo_root / "examples" / "support" / "task.md"), out=tmp_path, listener=listen,
                         teacher="fake", n=30, sources="generated")  # fmt: skip
        return seen

    def every() -> dict[str, str]:
        tables = [read_rows(tmp_path / "merge" / f"{name}.parquet") for name in ("train", "validation")]
        return {row.input: row.origin for table in tables for row in dataset_to_rows(table)}

    assert go_on()["merge"] == "done"
    first, second, *rest = every()
    assert go_on()["merge"] == "reused"
    browser = RowBrowser(tmp_path)
    labels = browser.labels
    found = {row["input"]: row for row in browser.page(Filter(), 0, 100).rows}
    decide(tmp_path, Decision("accept", first, found[first]["output"]), labels)
    assert go_on()["merge"] == "reused", "a look changes nothing"
    decide(tmp_path, Decision("reject", first, found[first]["output"]), labels)
    text = "Where is the sofa that I paid for in May?"
    decide(tmp_path, Decision("correct", second, found[second]["output"], text, "delivery"), labels)
    again = go_on()
    assert (again["datagen"], again["merge"]) == ("reused", "done")
    kept = every()
    assert kept[text] == "user"
    assert set(kept) == {text, *rest}
    report = json.loads((tmp_path / "merge" / "report.json").read_text())
    assert report["decided_by_a_person"] == {"accept": 0, "reject": 1, "correct": 1}
    with contextlib.closing(RowBrowser(tmp_path)) as browser:
        assert browser.page(Filter(view="dropped", reason="rejected")).rows[0]["input"] == first


@pytest.mark.real
def test_a_published_unit_is_loaded_whole_or_not_at_all(hub: Any, run: Path, tmp_path: Path) -> None:
    repo, out = "me/support-tickets", tmp_path / "unit"

    def potstill(*arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment = clean | hub.environment(tmp_path / "home", token="")
        command = [sys.executable, "-m", "potstill.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)

    missing = potstill("load", repo, "-o", str(out))
    assert missing.returncode == 6
    assert "check the name" in missing.stderr
    assert not out.exists()
    pushed = potstill("push", str(run), repo)
    assert pushed.returncode == 0, pushed.stderr
    loaded = potstill("load", repo, "-o", str(out))
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    from datasets import load_dataset
    from transformers import AutoModelForSequenceClassification

    assert load_dataset("parquet", data_dir=str(out / "dataset" / "data"))["train"].num_rows == 120
    assert AutoModelForSequenceClassification.from_pretrained(out / "model").config.num_labels == 3
    again = potstill("load", repo, "-o", str(out), "--json")
    assert json.loads(again.stdout)["kept"] is True
    (out / "model" / "config.json").write_text("{}")
    mended = potstill("load", repo, "-o", str(out), "--json")
    assert json.loads(mended.stdout)["kept"] is False
    assert "bert" in (out / "model" / "config.json").read_text()
    # What somebody adds to the model's repository, or to the folder, is no part of the unit.
    hub.put("models", repo, {"adapter_config.json": b"{}", "pytorch_model.bin": b"?" * 99})
    (out / "model" / "adapter_config.json").write_text("{}")
    again = potstill("load", repo, "-o", str(out), "--json")
    assert json.loads(again.stdout)["kept"] is False
    names = {path.name for path in (out / "model").iterdir()}
    assert {"model.safetensors", "potstill-unit.json"} < names
    assert names.isdisjoint({"adapter_config.json", "pytorch_model.bin"})
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    refused = potstill("load", repo, "-o", str(tmp_path / "mine"))
    assert refused.returncode == 2
    assert "is no unit of potstill" in refused.stderr
