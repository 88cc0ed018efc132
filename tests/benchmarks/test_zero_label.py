"""The benchmark of no labels: its figures on answers made by hand, and a whole small run on a made-up pack."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"good": ("great", "lovely", "fine"), "bad": ("awful", "broken", "poor")}
MODULES = ("zero_label", "zero_label_arms", "pack", "results_file", "tasks")


def write_pack(folder: Path) -> Path:
    """A pack of a classification task, some of whose rows carry two labels, and an instruction task."""
    rng = random.Random(0)
    for split, count in (("train", 140), ("test", 30)):
        rows = []
        for i in range(count):
            label = ("good", "bad")[i % 2]
            thing, place = rng.choice(("kettle", "lamp", "chair")), rng.choice(("kitchen", "hall", "office"))
            text = f"The {thing} in the {place} is {rng.choice(WORDS[label])}, order {rng.randint(100, 99999)}"
            rows.append({"title": f"About a {thing}", "text": text, "label_text": label})
        rows.append({"title": "Both", "text": "Great at first and awful later", "label_text": "bad, good"})
        _write(folder / "tasks" / "mood" / f"{split}.parquet", rows)
        sums = [
            {"task": name, "instruction": f"Give the {name}.", "input": f"{i} {i}", "target": str(i + i), "outputs": [
                str(i + i), f"it is {i + i}"]} for i in range(4) for name in ("sum", "total")
        ]  # fmt: skip
        _write(folder / "tasks" / "instruction_induction" / f"{split}.parquet", sums)
    prompt = "Classify a review, given its title and its text. The output is one of: good, bad."
    _card(folder, "mood", ["title", "text"], "label_text", prompt)
    _card(folder, "instruction_induction", ["task", "input"], "target", "Follow the instruction in the row.")
    return folder


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)


def _card(folder: Path, name: str, inputs: list[str], output: str, prompt: str) -> None:
    pack = {"catalogue_id": None, "input_columns": inputs, "output_column": output, "task_prompt": prompt}
    (folder / "tasks" / name / "card.json").write_text(json.dumps({"id": f"pack/{name}", "pack": pack}))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The runner's module, reading a made-up pack."""
    monkeypatch.setenv("POTSTILL_DATA", str(write_pack(tmp_path / "data")))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("zero_label")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def arms(bench: Any) -> Any:
    """The module of its arms."""
    return sys.modules["zero_label_arms"]


def test_a_task_file_holds_what_a_user_has_and_nothing_more(arms: Any, tmp_path: Path) -> None:
    from potstill.retrieval.load import read_data, read_texts
    from potstill.task.file import read_task_file

    job = {"task": "mood", "out": str(tmp_path / "out"), "seed": 3, "texts": 50}
    task, test = arms.pack_task("mood"), arms.rows_of("mood", "test", 20)
    assert task.labels == ("bad", "good"), "rows with several labels name none of their own"
    plain = read_task_file(str(arms.task_file(task, "soft", test, job))).spec
    assert (plain.inputs, plain.labelled, plain.unlabelled, plain.rules) == (("title", "text"), None, None, ())
    assert "pack/mood" in plain.exclude
    assert plain.test is not None
    assert read_data(plain.test, plain).num_rows == 20
    full = read_task_file(str(arms.task_file(task, "everything_100", test, job))).spec
    assert full.labelled is not None
    assert full.unlabelled is not None
    assert read_data(full.labelled, full).num_rows == 100
    texts = read_texts(full.unlabelled, full)
    assert len(texts) == 50
    assert texts[0].startswith("title: About a")
    assert [(rule.label, rule.patterns) for rule in full.rules] == [("bad", ("bad",)), ("good", ("good",))]


def test_instruction_tasks_read_as_potstill_writes_them(arms: Any) -> None:
    row = arms.rows_of("instruction_induction", "test")[0]
    assert row["text"] == "Give the sum.\n\n0 0"
    assert (row["output"], row["references"], row["group"]) == ("0", ["0", "it is 0"], "sum")


def test_rules_are_the_words_of_one_name_alone(arms: Any) -> None:
    rules = arms.keyword_rules(["card_arrival", "card_lost", "GetWeather", "not ok"])
    assert {rule["label"]: rule["keyword"] for rule in rules} == {
        "card_arrival": ["arrival"], "card_lost": ["lost"], "GetWeather": ["get", "weather"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7\n#### 7", "7"), ("so it is $1,250.00", "1250"), ("#### 1,250 dollars or 3", "1250"),
        ("-4", "-4"), ("#### none, but 5 before", "5"), ("none", ""), ("2.5", "2.5"), ("it is 12, or 13,", "13"),
    ],
)  # fmt: skip
def test_the_final_number(arms: Any, text: str, number: str) -> None:
    assert arms.final_number(text) == number


def test_figures_of_answers_made_by_hand(arms: Any) -> None:
    mood, induction = arms.pack_task("mood"), arms.pack_task("instruction_induction")
    gold = [{"output": label} for label in ("good", "good", "bad", "bad")]
    # good: 1 of 2 found, 1 of 1 told; bad: 1 of 2 found, 1 of 2 told; the third answer is no label.
    found = arms.scores(mood, gold, ["good", "bad", "bad", "?"])
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3, abs=1e-4)
    rows = [
        {"output": "4", "references": ["4", "four"], "group": "sum"},
        {"output": "6", "references": ["6", "six"], "group": "sum"},
        {"output": "8", "references": ["8"], "group": "total"},
    ]
    told = arms.scores(induction, rows, ["Four.", "5", "8"])
    assert told["exact_match"] == told["rouge_l"] == 0.75, "the best reference, and each sub-task counts once"
    with pytest.raises(SystemExit, match="2 answers for 3"):
        arms.scores(induction, rows, ["4", "6"])


def test_shares_of_the_ceiling_and_their_means(bench: Any) -> None:
    def record(arm: str, seed: int, value: float | None, labels: int = 0) -> dict[str, Any]:
        return {"task": "mood", "arm": arm, "labels": labels, "seed": seed, "macro_f1": value}

    records = bench.with_ratios(
        [
            record("ceiling", 0, 0.8, 90), record("ceiling", 1, 0.4, 90), record("soft", 0, 0.6),
            record("soft", 1, 0.4), record("soft", 2, 0.3), record("retrieved", 0, None),
        ]
    )  # fmt: skip
    ratios = {(r["arm"], r["seed"]): r["ratio_to_ceiling"] for r in records}
    assert ratios["soft", 0] == 0.75
    assert ratios["soft", 1] == 1.0
    assert ratios["soft", 2] == 0.5, "no ceiling of that seed: the mean of the others"
    assert ratios["retrieved", 0] is None
    lines = {
        line["arm"]: (line["labels"], line["mean_ratio_to_ceiling"], line["tasks"]) for line in bench.summary(records)
    }
    assert lines == {
        "soft": (0, 0.75, 1), "self_training": (0, None, 0), "labelled_100": (100, None, 0),
        "self_training_100": (100, None, 0), "self_training_chosen": (100, None, 0),
    }  # fmt: skip
    means = {line["arm"]: line["mean_ratio_to_ceiling"] for line in bench.by_arm(records)}
    assert means["retrieved"] == 0.0, "an arm without a student is no missing value"


def test_seeds_and_sizes_are_those_of_the_kind_where_none_are_asked_for(bench: Any) -> None:
    def jobs(*more: str) -> list[tuple[str, str, int, int]]:
        given = bench._arguments(["--tasks", "mood,instruction_induction", *more])
        return [(job["task"], job["arm"], job["seed"], job["rows"]) for job in bench.jobs(given)]

    plain = jobs()
    assert ("mood", "soft", 2, 400) in plain
    assert {seed for _, arm, seed, _ in plain if arm in (*bench.PARTS, *bench.TEACHERS)} == {0}
    assert {(seed, rows) for task, _, seed, rows in plain if task == "instruction_induction"} == {(0, 200)}
    asked = jobs("--arms", "both", "--seeds", "0,1", "--rows", "50")
    assert asked[:2] == [("mood", "both", 0, 50), ("mood", "both", 1, 50)]


@pytest.mark.real
def test_a_small_run_writes_each_record_and_a_rerun_makes_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, str(ROOT / "benchmarks" / "zero_label.py"), "--tasks", "mood", "--seeds", "0", "--rows", "24",
        "--test-rows", "20", "--ceiling-rows", "60", "--teacher", "fake", "--out", str(out),
        "--set", "distil.epochs=1", "--set", "distil.min_steps=4", "--set", "retrieval.rows_per_dataset=20",
        "--set", "merge.near_duplicates=1", "--set", "merge.test_near=1",
    ]  # fmt: skip
    env = {**os.environ, "POTSTILL_DATA": str(write_pack(tmp_path / "data"))}

    def run(arms: str) -> list[dict[str, Any]]:
        done = subprocess.run([*command, "--arms", arms], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "mean_ratio_to_ceiling" in done.stdout
        records: list[dict[str, Any]] = json.loads((out / "zero_label.json").read_text())["records"]
        return records

    first = run("teacher_calibrated,soft")
    assert [record["arm"] for record in first] == ["teacher_raw", "teacher_calibrated", "soft"]
    stamp = (out / "mood" / "run" / "train" / "manifest.json").read_text()
    records = {record["arm"]: record for record in run("teacher_calibrated,soft,labelled_100,labels_chosen,ceiling")}
    assert list(records) == ["teacher_raw", "teacher_calibrated", "soft", "labelled_100", "labels_chosen", "ceiling"]
    lines = json.loads((out / "zero_label_summary.json").read_text())["records"]
    assert {line["arm"]: line["tasks"] for line in lines} == {
        "soft": 1, "self_training": 0, "labelled_100": 1, "self_training_100": 0,
        "self_training_chosen": 0,
    }  # fmt: skip
    for record in records.values():
        assert record["macro_f1"] is not None, record
        assert record["ratio_to_ceiling"] is not None, record
        assert record["peak_rss_mib"] > 50
        assert record["minutes"] > 0
    assert records["ceiling"]["labels"] == 60
    soft, labelled = records["soft"], records["labelled_100"]
    assert soft["user_rows"] == 0
    assert labelled["user_rows"] > 50
    # Generation was bought by the first and is counted for both: the second's run reused its stages.
    assert labelled["generated_rows"] > 0
    datagen = json.loads((out / "mood" / "run" / "datagen" / "manifest.json").read_text())
    assert datagen["made_at"] <= json.loads(stamp)["made_at"]
    assert min(soft["tokens"], labelled["tokens"]) > 1000
