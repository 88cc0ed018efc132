"""Rows for a task of instructions from datasets in their three layouts, and none from anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.models import sentence_encoder
from potstill.retrieval.instruction_sets import first_turn
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.retrieve import RetrievalResult, retrieve_rows
from potstill.rows import dataset_to_rows
from potstill.task import TaskSpec

SPEC = TaskSpec(name="t", instruction="Do what the text asks.", kind="instructions", inputs=("text",))
VERBS = ("Name", "Describe", "List", "Compare", "Explain", "Find")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


def retrieved(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    about: str = "Instructions with answers that follow them.",
    columns: str = "",
) -> RetrievalResult:
    folder = tmp_path / "sets" / "found"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    title = "A set of instructions" if "nstruction" in about else about
    features = ", ".join(f"{{name: {name}, dtype: string}}" for name in columns.split())
    declared = f"dataset_info:\n  features: [{features}]\n" if columns else ""
    card = f"---\nlanguage: [en]\nlicense: mit\npretty_name: {title}\n{declared}---\n{about}\n"
    (folder / "README.md").write_text(card)
    return retrieve_rows(SPEC, RetrievalOptions(catalogue=(str(tmp_path / "sets"),)), encoder=sentence_encoder())


def texts(result: RetrievalResult) -> dict[str, str]:
    return {row.input: row.output for row in dataset_to_rows(result.rows)}


def test_the_input_of_a_row_joins_its_instruction_though_most_are_empty(tmp_path: Path) -> None:
    rows = [
        {
            "instruction": f"{verb} a river of Asia.",
            "input": "the longest" if verb == "Find" else "",
            "output": "Yangtze",
        }
        for verb in VERBS
    ]
    found = texts(retrieved(tmp_path, rows * 2))
    assert found["Find a river of Asia.\n\nthe longest"] == "Yangtze"
    assert found["Name a river of Asia."] == "Yangtze"
    assert len(found) == len(VERBS)


@pytest.mark.parametrize("layout", ["role", "from"])
def test_the_first_turn_of_a_chat_is_a_row(tmp_path: Path, layout: str) -> None:
    def turn(who: str, said: str) -> dict[str, str]:
        return {"role": who, "content": said} if layout == "role" else {"from": who, "value": said}

    user, model = ("user", "assistant") if layout == "role" else ("human", "gpt")
    rows = [
        {"id": str(i), "turns": [turn(user, f"{verb} a tree."), turn(model, "An oak."), turn(user, "And another?")]}
        for i, verb in enumerate(VERBS * 2)
    ]
    assert texts(retrieved(tmp_path, rows)) == {f"{verb} a tree.": "An oak." for verb in VERBS}


def test_prompts_with_responses_are_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"{verb} a metal please.", "response": "Iron."} for verb in VERBS * 2]
    assert set(texts(retrieved(tmp_path, rows)).values()) == {"Iron."}


def test_a_dataset_without_instructions_is_left_out_with_the_reason(tmp_path: Path) -> None:
    rows = [{"task": "antonyms", "input": f"{verb.lower()}", "label": i % 2} for i, verb in enumerate(VERBS * 2)]
    result = retrieved(tmp_path, rows)
    assert len(result.rows) == 0
    assert "carry no instructions" in json.dumps(result.ranking.to_json())


@pytest.mark.parametrize(("columns", "used"), [("instruction input target", True), ("", False)])
def test_columns_that_a_card_declares_need_no_nearness(tmp_path: Path, columns: str, used: bool) -> None:
    rows = [{"instruction": f"{verb} a river please.", "input": "x", "target": "Yangtze"} for verb in VERBS * 2]
    result = retrieved(tmp_path, rows, "Sixty recordings of birds in a forest.", columns)
    assert bool(len(result.rows)) == used
    assert ("under the floor" in json.dumps(result.ranking.to_json())) != used


def test_a_system_message_stands_before_the_instruction() -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name a tree."},
        {"role": "assistant", "content": "Oak."},
    ]
    assert first_turn(chat) == ("Be brief.\n\nName a tree.", "Oak.")
    assert first_turn(chat[:2]) is None
    assert first_turn([*chat[1:2], *chat[1:]]) is None


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), lambda inner: st.lists(inner)
                    | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "x"]), inner)))  # fmt: skip
def test_no_value_of_a_column_breaks_the_reading_of_chats(value: Any) -> None:
    turn = first_turn(value)
    assert turn is None or all(isinstance(text, str) for text in turn)
