"""A person's correction, from the viewer's page to the rows and the weights of the next run."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from potstill.datagen.merge import MergeOptions, split_rows
from potstill.decisions import FILE
from potstill.pages.browse import Filter, RowBrowser
from potstill.pages.viewer import viewer_app
from potstill.pages.web import Server, running
from potstill.rows import Row, Source, dataset_to_rows, rows_to_dataset

TASK = """---
name: tickets
labels: [billing, bug, other]
---
Sort support tickets by what they are about: billing, bug or other.
"""


def _decide(server: Server, **body: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.server_address[1]), timeout=20)
    headers = {"Content-Type": "application/json", "X-Potstill-Token": server.app.token}
    connection.request("POST", "/decide", json.dumps(body), headers)
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    connection.close()


@pytest.mark.parametrize("seed", range(4))
def test_what_a_person_decided_is_trained_on_and_not_held_out(sample_run: Any, seed: int) -> None:
    """Rows of the user's own files are split as all are; those that a person mended are meant for the training."""
    spec = sample_run.spec_for()
    own = [Row(f"mended {i}", "bug", "user", Source(dataset=FILE, split="correct"), label="bug") for i in range(12)]
    table = rows_to_dataset([*own, *sample_run.make_rows(60, seed)], sample_run.LABELS)
    splits = split_rows(spec, table, MergeOptions(validation=0.3, heldout=0.3, seed=seed))
    assert splits.heldout is not None
    assert {row.input for row in own} <= set(splits.train["input"])
    assert "user" in splits.validation["origin"][:] + splits.heldout["origin"][:]
    assert splits.train.num_rows + splits.validation.num_rows + splits.heldout.num_rows == 72


@pytest.mark.real
def test_a_correction_is_in_the_dataset_and_the_student_is_taught_again(sample_run: Any, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    import potstill
    from potstill.events import Event

    sample_run.write_student(tmp_path / "sample" / "student")
    for kind in (AutoModel, AutoTokenizer):
        kind.from_pretrained(tmp_path / "sample" / "student").save_pretrained(tmp_path / "tiny")
    (tmp_path / "task.md").write_text(TASK)
    run = tmp_path / "run"

    def go_on() -> tuple[Any, dict[str, str], dict[str, Any]]:
        seen: dict[str, str] = {}

        def listen(event: Event) -> None:
            if event.kind in ("done", "reused"):
                seen[event.stage] = event.kind

        result = potstill.run(
            str(tmp_path / "task.md"), out=run, listener=listen, teacher="fake", n=30, sources="generated",
            distil={"student": str(tmp_path / "tiny"), "epochs": 2, "min_steps": 4, "max_length": 64},
            evaluate={"rows": 6, "latency_rows": 1},
        )  # fmt: skip
        return result, seen, json.loads((run / "train" / "student" / "training.json").read_text())

    first, seen, training = go_on()
    assert seen["train"] == "done"
    assert "user" not in first.dataset["origin"]
    wrong = next(dataset_to_rows(first.dataset))
    weights = (run / "train" / "student" / "model.safetensors").read_bytes()
    again = go_on()
    assert again[1]["train"] == "reused"
    assert again[2] == training, "without a decision nothing is trained again"

    text, label = "The invoice page stays blank after the update.", "bug" if wrong.output != "bug" else "billing"
    with running(Server(viewer_app(run))) as server:
        _decide(server, id=RowBrowser(run).page(Filter(search=wrong.input), 0, 1).rows[0]["id"], action="correct",
                new_input=text, new_output=label)  # fmt: skip

    second, seen, retrained = go_on()
    assert {stage: seen[stage] for stage in ("datagen", "merge", "soft", "train")} == {
        "datagen": "reused", "merge": "done", "soft": "done", "train": "done"
    }  # fmt: skip
    rows = {row.input: row for row in dataset_to_rows(second.dataset)}
    assert (rows[text].origin, rows[text].output, rows[text].label) == ("user", label, label)
    assert rows[text].source.dataset == "decisions.jsonl"
    assert wrong.input not in rows
    assert [item.input for item in second.dropped if item.reason == "corrected"] == [wrong.input]
    # The hash of the encoded rows that the student was taught, and the student itself.
    assert retrained["rows"]["train"] != training["rows"]["train"]
    taught = retrained["report"]["rows"]
    assert taught["given"] == taught["used"] == second.dataset.num_rows
    assert taught["with_teacher_probs"] == taught["used"] - 1, "the label of the one corrected row is its only target"
    assert (run / "train" / "student" / "model.safetensors").read_bytes() != weights
