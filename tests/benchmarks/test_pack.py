"""Tasks of the pack that no list names: their cards and rows say what they are."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
Made = Callable[..., None]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Writes a task: its rows (the same in both splits), input and output columns, and more of its card."""
    monkeypatch.setenv("POTSTILL_DATA", str(tmp_path))

    def write(
        name: str,
        rows: Sequence[Mapping[str, Any]],
        inputs: Sequence[str],
        output: str,
        features: Any = None,
        **more: Any,
    ) -> None:
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), folder / f"{split}.parquet")
        pack = {"input_columns": list(inputs), "output_column": output, "task_prompt": "Do it.", "metric": ""}
        pack |= {key: more.pop(key) for key in ("metric",) if key in more}
        card = {"id": f"pack/{name}", "pack": pack, "configs": {"default": {"features": features or {}}}, **more}
        (folder / "card.json").write_text(json.dumps(card))

    return write


@pytest.fixture
def pack(made: Made, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "pack", raising=False)
    yield importlib.import_module("pack")
    sys.modules.pop("pack", None)


def test_class_numbers_are_read_by_their_names(made: Made, pack: Any) -> None:
    rows = [{"sentence": f"s{i}", "label": (0, 1, -1)[i % 3]} for i in range(9)]
    made("mood", rows, ["sentence"], "label", {"label": {"class_label": ["bad", "good, or fair"]}})
    task = pack.pack_task("mood")
    assert (task.kind, task.metric, task.labels) == ("classification", "macro_f1", ("bad", "good, or fair"))
    assert [row["output"] for row in pack.rows_of("mood", "test")] == ["bad", "good, or fair"] * 3


def test_values_that_come_back_are_classes_whatever_their_column_is_called(made: Made, pack: Any) -> None:
    rows = [{"text": f"t{i}", "answer": ("joy", "fear", "joy, fear")[i % 3]} for i in range(30)]
    made("feelings", rows, ["text"], "answer")
    assert (pack.pack_task("feelings").kind, pack.pack_task("feelings").labels) == ("classification", ("fear", "joy"))
    assert len(pack.rows_of("feelings", "train")) == 20, "rows of several labels are left out"
    numbers = [{"text": f"t{i}", "stars": 1 + i % 5} for i in range(30)]
    made("stars", numbers, ["text"], "stars")
    assert pack.pack_task("stars").labels == ("1", "2", "3", "4", "5")


@pytest.mark.parametrize(
    ("categories", "values", "kind"),
    [
        (["summarization"], ["a", "b"], "generation"),
        (["text2text-generation"], ["a", "b"], "generation"),
        ([], ["a long answer " * 6, "another long answer " * 5], "generation"),
        ([], [f"answer {i}" for i in range(30)], "generation"),
        (["question-answering"], ["yes", "no"], "classification"),
    ],
)
def test_texts_are_no_classes(categories: list[str], values: list[str], kind: str, made: Made, pack: Any) -> None:
    made("x", [{"q": f"q{i}", "a": values[i % len(values)]} for i in range(30)], ["q"], "a", task_categories=categories)
    assert pack.pack_task("x").kind == kind


def test_rows_with_instructions_of_their_own(made: Made, pack: Any) -> None:
    rows = [{"task": "sum", "instruction": "Add.", "input": f"{i} {i}", "target": str(2 * i)} for i in range(5)]
    said = {"features": {"instruction": "string"}, "metric": "exact match, mean over tasks"}
    made("many", rows, ["task", "input"], "target", **said)
    task = pack.pack_task("many")
    assert (task.kind, task.inputs, task.metric) == ("instructions", ("text",), "exact_match")
    assert pack.rows_of("many", "test")[1]["text"] == "Add.\n\n1 1"


@pytest.mark.parametrize(
    ("said", "figure"),
    [("ROUGE-1 and ROUGE-L", "rouge_l"), ("BLEU over tokens", "chrf"), ("F1 and exact match", "token_f1"),
     ("exact match; ROUGE-L beside", "exact_match"), ("", "rouge_l"), ("accuracy", "exact_match"),
     ("token F1", "token_f1"), ("F1 over words", "token_f1"), ("BERTScore F1", "rouge_l"), ("BLEU-4", "chrf")],
)  # fmt: skip
def test_the_figure_that_the_card_names_first(said: str, figure: str, made: Made, pack: Any) -> None:
    made("x", [{"q": f"q{i}", "a": f"a{i}"} for i in range(5)], ["q"], "a", metric=said)
    assert pack.pack_task("x").metric == figure


def test_right_answers_are_those_of_the_list_that_holds_the_output(made: Made, pack: Any) -> None:
    answers = {"text": ["Ulm", "Ulm, Germany"], "answer_start": [1, 1]}
    made("qa", [{"question": f"q{i}", "city": "Ulm", "found": answers} for i in range(3)], ["question"], "city",
         task_categories=["text-generation"])  # fmt: skip
    assert pack.rows_of("qa", "test")[0]["references"] == ["Ulm", "Ulm, Germany"]
    made("ask", [{"passage": f"p{i}", "answer": "Ulm", "question": f"Where is {i}?"} for i in range(3)],
         ["passage", "answer"], "question")  # fmt: skip
    assert pack.rows_of("ask", "test")[0]["references"] == ["Where is 0?"], "an input is no answer"
    made("lists", [{"question": f"q{i}", "answers": [f"{i}", f"no. {i}"]} for i in range(3)], ["question"], "answers")
    assert [pack.rows_of("lists", "test")[1][name] for name in ("output", "references")] == ["1", ["1", "no. 1"]]


def test_references_of_another_column_are_none_of_the_outputs(made: Made, pack: Any) -> None:
    rows = [{"abstract": f"We study {i}.", "title": f"On {i}", "summaries": ["A study.", "Studied."]} for i in range(5)]
    made("titles", rows, ["abstract"], "title")
    assert pack.rows_of("titles", "test")[0]["references"] == ["On 0"]
    # The answer in other words than any of its references, which are called so.
    words = [{"en": f"w{i}", "target": "Hund", "references": ["Köter", "Rüde"]} for i in range(5)]
    made("words", words, ["en"], "target", task_categories=["translation"])
    assert pack.rows_of("words", "test")[0]["references"] == ["Hund", "Köter", "Rüde"]


@pytest.mark.parametrize(
    ("metric", "end", "number"),
    [
        ("accuracy of the final number", "\nAnswer: 7", True),
        ("exact match of the number at the end", "\n#### 7", True),
        ("exact match", "\n#### 7", True), ("exact match", ", so 7", False), ("ROUGE-L", "\n#### 7", False),
    ],
)  # fmt: skip
def test_solutions_are_judged_by_the_number_that_they_end_with(
    metric: str, end: str, number: bool, made: Made, pack: Any
) -> None:
    made("sums", [{"q": f"{i} and 7?", "a": f"We add {i}{end}"} for i in range(8)], ["q"], "a", metric=metric)
    task = pack.pack_task("sums")
    assert task.number is number
    arms = importlib.import_module("zero_label_arms")
    told = arms.scores(task, pack.rows_of("sums", "test"), ["It is 6 or 7."] * 8)
    assert told["exact_match"] == float(number)


def test_a_data_folder_that_holds_a_new_task_alone_is_measured(made: Made, pack: Any, tmp_path: Path) -> None:
    rows = [{"text": f"The lamp is {('fine', 'poor')[i % 2]}, order {i}", "label": i % 2} for i in range(40)]
    made("lamps", rows, ["text"], "label", {"label": {"class_label": ["good", "bad"]}})
    out = tmp_path / "out"
    old = {"task": "gsm8k", "arm": "soft", "labels": 0, "seed": 0, "exact_match": 0.1, "metric": "exact_match"}
    out.mkdir()
    (out / "zero_label.json").write_text(json.dumps({"commit": "x", "records": [old]}))
    command = [
        sys.executable, str(ROOT / "benchmarks" / "zero_label.py"), "--tasks", "lamps", "--seeds", "0", "--rows", "8",
        "--test-rows", "10", "--teacher", "fake", "--out", str(out), "--arms",
    ]  # fmt: skip
    done = subprocess.run([*command, "teacher_raw"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    records = json.loads((out / "zero_label.json").read_text())["records"]
    assert [record["arm"] for record in records] == ["soft", "teacher_raw", "teacher_calibrated"]
    assert records[1]["macro_f1"] is not None
    wrong = subprocess.run([*command, "soft", "--set", "seed=0"], capture_output=True, text=True)
    assert wrong.returncode != 0, "a mistake of the call is no result"
    assert len(json.loads((out / "zero_label.json").read_text())["records"]) == 3


def test_a_task_that_is_not_in_the_data_is_told_with_its_mend(made: Made, pack: Any) -> None:
    with pytest.raises(SystemExit, match=r"no task 'elsewhere' at .*; set POTSTILL_DATA to the data pack's folder"):
        pack.pack_task("elsewhere")
