"""A generation student on the Hub: pushed, then loaded as its cards say, and by `potstill load`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPO = "me/iso-dates"
TASK = """---
name: iso-dates
kind: generation
metric: exact_match
examples:
  - {input: "Let's meet on the 3rd of May 2021 at noon.", output: 2021-05-03}
  - {input: "She moved here in the summer of last year.", output: none}
---
Find the date that a sentence names and write it as YYYY-MM-DD.
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_causal: Callable[[Path], Path]) -> Path:
    import potstill

    folder = tmp_path_factory.mktemp("generation")
    (folder / "task.md").write_text(TASK)
    potstill.run(
        str(folder / "task.md"), out=folder / "run", teacher="fake", n=16, sources="generated",
        distil={"student": str(tiny_causal(folder / "tiny")), "epochs": 1, "min_steps": 2, "max_length": 512},
        evaluate={"rows": 4, "latency_rows": 1},
    )  # fmt: skip
    return folder / "run"


def _blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.S)


_AS_THE_CARDS_SAY = """
import contextlib, io, json, sys
from pathlib import Path
from huggingface_hub import hf_hub_download, snapshot_download
from transformers import AutoTokenizer
repo, text = sys.argv[1:]
shown = []
for block in json.loads(sys.stdin.read()):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(block, space := {})
    shown.append(out.getvalue().strip())
    print("ran", file=sys.stderr)
    if "generate" in space:
        messages, pipe = space["messages"], space["generate"]
    if "student" in space:
        student = space["student"]
    if "rows" in space:
        rows = space["rows"]
from potstill.train.encode import encode_prompt
tokenizer = AutoTokenizer.from_pretrained(repo)
chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
chat = chat["input_ids"] if hasattr(chat, "keys") else chat
again = encode_prompt(student.tokenizer, student._spec, text, 512)
print(json.dumps({
    "shown": shown, "same_prompt": list(chat) == list(again), "parameters": pipe.model.num_parameters(),
    "answer": student(text), "splits": {name: part.num_rows for name, part in rows.items()},
    "columns": rows["train"].column_names, "first": rows["train"][0],
}))
"""


@pytest.mark.real
def test_a_generation_student_is_read_back_as_its_cards_say(run: Path, hub: Any, tmp_path: Path) -> None:
    from potstill.rows import read_rows
    from potstill.train.student import load_student

    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}

    def called(*command: str, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, *command], env=clean | hub.environment(tmp_path / "home"), input=stdin, cwd=tmp_path,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    pushed = json.loads(called("-m", "potstill.cli", "push", str(run), REPO, "--json"))
    assert pushed["changed"]
    assert hub.warnings == [], "the cards gave warnings"
    cards = {kind: hub.read(kind, REPO, "README.md").decode() for kind in ("models", "datasets")}
    for kind, card in cards.items():
        _, errors, warned = sys.modules["hub_server"].check_card(card, kind)
        assert (errors, warned) == ([], [])
    assert "pipeline_tag: text-generation\n" in cards["models"]
    text = "Let's meet on the 3rd of May 2021 at noon."
    blocks = [*_blocks(cards["models"]), *_blocks(cards["datasets"])]
    assert len(blocks) == 3, "the pipeline, potstill's own class, and the rows"
    assert all(REPO in block for block in blocks)
    found = json.loads(called("-c", _AS_THE_CARDS_SAY, REPO, text, stdin=json.dumps(blocks)).splitlines()[-1])

    here = load_student(run / "train" / "student")
    rows = read_rows(run / "soft" / "train.parquet")
    assert found["same_prompt"], "the card's chat is what the student was trained on"
    assert found["answer"] == here(text) != "", "the same answer as before the journey"
    by_pipeline, by_potstill, first_row = found["shown"]
    assert by_potstill == here(text)
    assert by_pipeline, "the pipeline answers"
    assert by_potstill.startswith(by_pipeline) or by_pipeline.startswith(by_potstill), "with the same words"
    assert found["parameters"] == here.model.num_parameters()
    assert found["splits"]["train"] == rows.num_rows
    assert found["columns"] == rows.column_names
    assert {**found["first"], "source": None} == {**rows[0], "source": None}
    assert first_row == f"{rows[0]['input']} {rows[0]['output']}".strip()

    loaded = json.loads(called("-m", "potstill.cli", "load", REPO, "--out", "unit", "--json"))
    assert loaded["commits"] == pushed["commits"]
    assert load_student(tmp_path / "unit" / "model")(text) == here(text)
    assert read_rows(tmp_path / "unit" / "dataset" / "data" / "train.parquet")["id"][:] == rows["id"][:]
