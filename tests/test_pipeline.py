"""The whole job, end to end, on the shipped example with the embedded models."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import potstill
from potstill.asking.ledger import Ledger
from potstill.events import Event
from potstill.models import MINILM
from potstill.plan.estimate import plan_run
from potstill.rows import read_rows
from potstill.run_dir import RunDir

ROOT = Path(__file__).resolve().parent.parent
TASK = ROOT / "examples" / "support" / "task.md"
SMALL = {
    "n": 40,
    "teacher": "fake",
    "distil": {"epochs": 1, "min_steps": 4, "student": "auto"},
    "evaluate": {"rows": 30, "latency_rows": 3},
    "retrieval": {"rows_per_dataset": 40},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, potstill.pipeline.RunResult]:  # type: ignore[name-defined]
    import datasets

    out = tmp_path_factory.mktemp("run") / "support"
    with pytest.MonkeyPatch.context() as patch:
        # Commands of other tests may have switched the libraries' bars off for good.
        for variable in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
            patch.delenv(variable, raising=False)
        off = datasets.are_progress_bars_disabled()
        datasets.enable_progress_bars()
        with contextlib.redirect_stderr(io.StringIO()) as shown:
            result = potstill.run(str(TASK), out=out, **SMALL)
        with contextlib.redirect_stderr(io.StringIO()) as after:
            datasets.Dataset.from_dict({"n": [1, 2]}).select([1, 0]).flatten_indices()
        if off:
            datasets.disable_progress_bars()
    (out.parent / "stderr").write_text(shown.getvalue())
    (out.parent / "stderr-after").write_text(after.getvalue())
    return out, result


@pytest.mark.real
def test_a_run_leaves_everything_that_was_promised(finished) -> None:  # type: ignore[no-untyped-def]
    out, result = finished
    for name in (
        "task/task.json", "retrieval/ranking.json", "retrieval/rows.parquet", "retrieval/dropped.jsonl",
        "datagen/rows.parquet", "datagen/dropped.jsonl", "merge/train.parquet", "soft/train.parquet",
        "train/student/model.safetensors", "evaluate/scores.json", "report.html", "report.md", "ledger.sqlite",
    ):  # fmt: skip
        assert (out / name).exists(), name
    assert RunDir(out).verify() == []
    splits = result.splits
    assert splits["train"].num_rows == result.dataset.num_rows == read_rows(out / "soft" / "train.parquet").num_rows
    assert splits["validation"].column_names == result.dataset.column_names
    assert splits["validation"].num_rows == read_rows(out / "soft" / "validation.parquet").num_rows > 0
    # The student was looked for (`auto`): of the two models that ship, the encoder serves a classification task.
    assert json.loads((out / "train" / "report.json").read_text())["base_model"] == MINILM
    assert {s["name"] for s in result.scores["systems"]} >= {
        "student",
        "teacher (raw)",
        "teacher (calibrated)",
        "majority",
    }
    assert result.scores["test_set"]["kind"] == "real"
    labels = json.loads((out / "task" / "task.json").read_text())["labels"]
    assert result.student("Where is my parcel?") in {label["name"] for label in labels}


@pytest.mark.real
def test_a_run_shows_no_progress_bars_of_the_libraries(finished) -> None:  # type: ignore[no-untyped-def]
    out, _ = finished
    assert (out.parent / "stderr").read_text() == ""
    # Bars would be seen, and are given back to the program around the run.
    assert "Flattening the indices" in (out.parent / "stderr-after").read_text()


@pytest.mark.real
def test_rows_carry_provenance_and_no_test_text(finished) -> None:  # type: ignore[no-untyped-def]
    out, result = finished
    test_texts = {json.loads(line)["text"].strip().lower() for line in (TASK.parent / "test.jsonl").open()}
    assert len(test_texts) >= 100
    rows = result.dataset
    assert {"retrieved", "generated"} <= set(rows["origin"])
    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        for row in rows:
            assert row["input"].strip().lower() not in test_texts
            if row["origin"] == "generated":
                assert row["source"]["requests"]
                assert all(ledger.get(key) is not None for key in row["source"]["requests"])
            else:
                assert row["source"]["dataset"]
                assert row["licence"]


@pytest.mark.real
def test_a_second_run_makes_nothing_again(finished) -> None:  # type: ignore[no-untyped-def]
    out, _ = finished
    before = Ledger(out / "ledger.sqlite", read_only=True).totals().replies
    seen: list[Event] = []
    again = potstill.run(str(TASK), out=out, listener=seen.append, **SMALL)
    assert {event.stage for event in seen if event.kind == "done"} == set()
    assert all(stage.reused for stage in again.stages)
    assert Ledger(out / "ledger.sqlite", read_only=True).totals().replies == before


@pytest.mark.real
def test_a_change_of_training_recomputes_training_only(finished) -> None:  # type: ignore[no-untyped-def]
    out, _ = finished
    seen: list[Event] = []
    changed = {**SMALL, "distil": {**SMALL["distil"], "temperature": 3.0}}
    potstill.run(str(TASK), out=out, listener=seen.append, **changed)
    assert {event.stage for event in seen if event.kind == "done"} == {"train", "evaluate"}
    seen.clear()
    potstill.run(str(TASK), out=out, listener=seen.append, **SMALL)
    assert {event.stage for event in seen if event.kind == "done"} == set(), "the first student was kept aside"


@pytest.mark.real
def test_killed_runs_end_with_the_same_rows_and_no_request_twice(finished, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out, _ = finished
    script = (
        "import potstill, json, sys; "
        f"potstill.run({str(TASK)!r}, out={str(tmp_path / 'run')!r}, **json.loads(sys.argv[1]))"
    )
    for delay in (2.5, 5.0, 7.5):
        child = subprocess.Popen([sys.executable, "-c", script, json.dumps(SMALL)], stderr=subprocess.DEVNULL)
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    potstill.run(str(TASK), out=tmp_path / "run", **SMALL)
    whole = read_rows(out / "soft" / "train.parquet")
    broken = read_rows(tmp_path / "run" / "soft" / "train.parquet")
    assert whole["id"] == broken["id"]
    assert (out / "merge" / "train.parquet").read_bytes() == (tmp_path / "run" / "merge" / "train.parquet").read_bytes()
    with (
        Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger,
        Ledger(out / "ledger.sqlite", read_only=True) as undisturbed,
    ):
        assert ledger.totals().attempts == ledger.totals().replies
        assert ledger.totals("generate").replies == undisturbed.totals("generate").replies


@pytest.mark.real
def test_rules_over_unlabelled_texts_reach_training(tmp_path: Path) -> None:
    def shouting(text: str) -> str | None:
        return "outage" if text.isupper() else None

    settings = {
        "n": 16,
        "teacher": "fake",
        "sources": "generated",
        "distil": {"epochs": 1, "min_steps": 10},
        "evaluate": {"rows": 10, "latency_rows": 2, "teacher": False},
        "quality": {"verify": True},
        "self_training": {"method": "student", "rounds": 1, "confidence": 0.26, "fewest": 2},
    }
    out = tmp_path / "rules"
    result = potstill.run(str(ROOT / "examples" / "rules.md"), out=out, labelling_functions=[shouting], **settings)
    report = json.loads((out / "weak" / "report.json").read_text())
    assert report["labels"].keys() == {"outage", "billing", "access", "praise"}
    assert min(report["labels"].values()) > 4
    trained = read_rows(out / "soft" / "train.parquet")
    ruled = [row for row in trained if row["origin"] == "pseudo"]
    assert len(ruled) > 20
    assert all(row["source"]["dataset"].endswith("rules_messages.txt") for row in ruled)
    assert all(abs(sum(row["teacher_probs"]) - 1) < 1e-4 for row in ruled), "the label model's own probabilities"
    rounds = json.loads((out / "train" / "report.json").read_text())["self_training"]
    assert rounds["texts"] > 5
    assert len(rounds["rounds"]) == 2, "one round was tried"
    assert rounds["rows"] == result.dataset.num_rows - trained.num_rows
    assert "no_vote" in {item.reason for item in result.dropped}
    assert {stage.name for stage in result.stages} >= {"quality", "weak"}
    assert RunDir(out).verify() == []
    text = result.report.read_text()
    assert "rules_messages.txt" in text
    assert "disagreement" in text or "rows checked" in text
    again = potstill.run(str(ROOT / "examples" / "rules.md"), out=out, labelling_functions=[shouting], **settings)
    assert all(stage.reused for stage in again.stages)


def test_unlabelled_texts_are_labelled_by_the_teacher_where_asked(tmp_path: Path) -> None:
    from random import Random

    from potstill.datagen.teachers.fake import _prose

    said = {label: [_prose(label, Random(f"{label} {i}")) for i in range(40)] for label in ("sport", "business")}
    (tmp_path / "texts.txt").write_text("\n".join(text for texts in said.values() for text in texts))
    task = tmp_path / "news.md"
    task.write_text("---\nlabels: [sport, business]\nunlabelled: texts.txt\n---\nSay what a headline is about.\n")

    def run(**more: Any) -> Any:
        return potstill.run(
            str(task), out=tmp_path / "run", n=30, sources="generated", distil={"epochs": 1, "min_steps": 2},
            evaluate={"rows": 4, "latency_rows": 2, "teacher": False}, **more,
        )  # fmt: skip

    result = run(teacher="fake", self_training={"method": "teacher", "most": 3.0})
    learnt = [row for row in result.dataset if row["origin"] == "pseudo"]
    assert 50 < len(learnt) <= 81, "at most three times the training rows"
    right = [row["input"] in said[row["output"]] for row in learnt]
    assert sum(right) > 0.9 * len(right)
    assert {row["source"]["teacher"] for row in learnt} == {"teacher"}
    told = json.loads((tmp_path / "run" / "train" / "report.json").read_text())["self_training"]
    assert (told["stopped"], told["space"], told["trust"]) == ("labelled once", "teacher", 1.0)
    asked = Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True).totals().replies
    planned = {}
    for method in ("mixture", "teacher"):
        plan = plan_run(
            str(task), out=tmp_path / "plan", n=30, sources="generated", teacher="fake", probe=False,
            self_training={"method": method, "most": 2.0},
        )  # fmt: skip
        planned[method] = next(step.requests for step in plan.steps if step.stage == "soft")
    assert planned["teacher"] - planned["mixture"] == pytest.approx(2 * len(learnt) / 3, rel=0.15)

    run(teacher="fake", self_training={"method": "teacher", "most": 3.0}, soft={"variants": False})
    assert Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True).totals().replies > asked, "they are asked anew"


def test_pairs_are_labelled_by_how_alike_their_inputs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tmp_path / "pairs.md"
    head = "labels: [not_duplicate, duplicate]\ninputs: [question1, question2]\n"
    words = "Say whether two questions are duplicates of each other.\n"
    task.write_text(f"---\n{head}---\n{words}")
    settings = {
        "n": 30, "teacher": "fake", "sources": "generated", "distil": {"epochs": 1, "min_steps": 2},
        "evaluate": {"rows": 4, "latency_rows": 2, "teacher": False},
    }  # fmt: skip
    potstill.run(str(task), out=tmp_path / "known", **settings)
    assert "paired_anew" not in json.loads((tmp_path / "known" / "train" / "report.json").read_text())
    # The words of the fake teacher go by the label; most teachers of its size write what nobody can tell apart.
    monkeypatch.setattr("potstill.datagen.evidence._FORESEEN", 9.0)
    result = potstill.run(str(task), out=tmp_path / "run", **settings)
    told = json.loads((tmp_path / "run" / "train" / "report.json").read_text())
    assert json.loads((tmp_path / "run" / "soft" / "report.json").read_text())["joined"]["overruled"]
    assert told["paired_anew"]["rows"] > 40
    learnt = [row for row in result.dataset if row["origin"] == "pseudo"]
    assert {row["source"]["teacher"] for row in learnt} == {"likeness"}
    assert {row["output"] for row in learnt} == {"duplicate", "not_duplicate"}

    things = ("sofa", "lamp", "oven", "phone", "boiler", "window", "door", "table", "chair", "fridge")
    alike = [(f"Where is the {a}?", f"Where do I find the {a}?") for a in things]
    other = [(f"Where is the {a}?", f"How much does a {b} cost?") for a, b in zip(things, things[3:] + things[:3])]
    pairs = [pair for both in zip(alike, other, strict=True) for pair in both]
    rows = [{"question1": one, "question2": two} for one, two in pairs]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task.write_text(f"---\n{head}unlabelled: texts.jsonl\n---\n{words}")
    result = potstill.run(str(task), out=tmp_path / "texts", **settings)
    told = json.loads((tmp_path / "texts" / "train" / "report.json").read_text())
    assert "paired_anew" not in told
    assert (told["self_training"]["space"], told["self_training"]["stopped"]) == ("likeness", "labelled once")
    learnt = [row for row in result.dataset if row["origin"] == "pseudo"]
    assert len(learnt) > 12
    assert all(("find" in row["input"]) == (row["output"] == "duplicate") for row in learnt)


def test_unlabelled_texts_are_labelled_by_their_mixture(tmp_path: Path) -> None:
    games = [
        f"The {team} won the {cup} after extra time" for team in ("Rovers", "United", "Albion") for cup in "ABCDEF"
    ]
    shares = [f"Shares of {firm} fell by {n} percent" for firm in ("Acme", "Globex", "Initech") for n in range(2, 8)]
    texts = [line for pair in zip(games, shares, strict=True) for line in pair]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    task = tmp_path / "news.md"
    task.write_text("---\nlabels: [sport, business]\nunlabelled: texts.txt\n---\nSay what a headline is about.\n")
    result = potstill.run(
        str(task), out=tmp_path / "run", n=30, teacher="fake", sources="generated", self_training={"agreement": 0.5},
        distil={"epochs": 1, "min_steps": 2}, evaluate={"rows": 4, "latency_rows": 2, "teacher": False},
    )  # fmt: skip
    learnt = [row for row in result.dataset if row["origin"] == "pseudo"]
    assert len(learnt) > 25
    right = [("won" in row["input"]) == (row["output"] == "sport") for row in learnt]
    assert sum(right) > 0.9 * len(right)
    assert {row["source"]["teacher"] for row in learnt} == {"mixture"}
    told = json.loads((tmp_path / "run" / "train" / "report.json").read_text())["self_training"]
    assert (told["stopped"], told["space"]) == ("labelled once", "encoder")

    result = potstill.run(
        str(task), out=tmp_path / "parted", n=30, teacher="fake", sources="generated", self_training={"agreement": 1.0},
        distil={"epochs": 1, "min_steps": 2}, evaluate={"rows": 4, "latency_rows": 2, "teacher": False},
    )  # fmt: skip
    told = json.loads((tmp_path / "parted" / "train" / "report.json").read_text())["self_training"]
    assert (told["stopped"], told["space"]) == ("labelled once", "opinion")
    assert 0 < told["trust"] < 1, "halves of the rows lead the mixture apart"
    learnt = [row for row in result.dataset if row["origin"] == "pseudo"]
    assert len(learnt) > 25, "texts in doubt are learnt from too"
    assert {row["source"]["teacher"] for row in learnt} == {"opinion"}
    right = [("won" in row["input"]) == (row["output"] == "sport") for row in learnt]
    assert sum(right) > 0.8 * len(right)

    coins = {"agreement": 1.0, "trust": 0.999}
    for read in (0, 30):
        result = potstill.run(
            str(task), out=tmp_path / "parted", n=30, teacher="fake", sources="generated",
            self_training={**coins, "read": read}, distil={"epochs": 1, "min_steps": 2},
            evaluate={"rows": 4, "latency_rows": 2, "teacher": False},
        )  # fmt: skip
        told = json.loads((tmp_path / "parted" / "train" / "report.json").read_text())["self_training"]
        if read:
            assert (told["stopped"], told["space"], told["texts"]) == ("labelled once", "teacher", 30)
            assert {row["source"]["teacher"] for row in result.dataset if row["origin"] == "pseudo"} == {"teacher"}
        else:
            assert (told["stopped"], told["space"], told["rows"]) == ("not believed", "opinion", 0)

    own = [{"text": f"{text} again", "label": "sport" if "won" in text else "business"} for text in texts[:24]]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    task.write_text(task.read_text().replace("unlabelled:", "labelled: {path: own.jsonl, inputs: [text]}\nunlabelled:"))
    result = potstill.run(
        str(task), out=tmp_path / "run", n=30, teacher="fake", sources="generated", merge={"near_duplicates": 1.0},
        distil={"epochs": 1, "min_steps": 2}, evaluate={"rows": 4, "latency_rows": 2, "teacher": False},
    )  # fmt: skip
    report = json.loads((tmp_path / "run" / "train" / "report.json").read_text())
    learnt = read_rows(tmp_path / "run" / "train" / "train.parquet")
    assert set(learnt["origin"]) == {"user", "pseudo"}, "nobody's rows but the user's and the texts"
    assert report["user_rows"]["written_left_out"] > 10
    assert report["self_training"]["trust"] > 0.8
    assert report["self_training"]["space"] == "student", "labels of the user teach the space first"
    right = [("won" in r["input"]) == (r["output"] == "sport") for r in learnt if r["origin"] == "pseudo"]
    assert sum(right) > 0.9 * len(right) > 20
    assert sorted(path.name for path in (tmp_path / "run" / "train").iterdir() if path.is_dir()) == ["student"]
    assert all(row["teacher_probs"] is None for row in result.dataset if row["origin"] == "user")

    result = potstill.run(
        str(task), out=tmp_path / "alone", teacher="fake", sources="labelled", merge={"near_duplicates": 1.0},
        distil={"epochs": 1, "min_steps": 2}, evaluate={"rows": 4, "latency_rows": 2, "teacher": False},
    )  # fmt: skip
    assert {row["origin"] for row in result.dataset} == {"user", "pseudo"}
    with Ledger(tmp_path / "alone" / "ledger.sqlite", read_only=True) as ledger:
        assert set(ledger.asked()) == {"soft"}, "the teacher writes nothing; what it says of the rows is asked"

    (tmp_path / "sets" / "wire").mkdir(parents=True)
    (tmp_path / "sets" / "wire" / "README.md").write_text(
        "---\nlicense: mit\nlanguage: [en]\npretty_name: Headlines\n---\nWhat a headline is about: sport or business.\n"
    )
    (tmp_path / "sets" / "wire" / "train.jsonl").write_text((tmp_path / "own.jsonl").read_text())
    task.write_text("---\nlabels: [sport, business]\nunlabelled: texts.txt\n---\nSay what a headline is about.\n")
    result = potstill.run(
        str(task), out=tmp_path / "found", teacher="fake", sources="retrieved", merge={"near_duplicates": 1.0},
        retrieval={"catalogue": [str(tmp_path / "sets")]}, distil={"epochs": 1, "min_steps": 2},
        evaluate={"rows": 4, "latency_rows": 2, "teacher": False},
    )  # fmt: skip
    told = json.loads((tmp_path / "found" / "train" / "report.json").read_text())["self_training"]
    assert (told["stopped"], told["space"]) == ("labelled once", "student"), "so do those of who made a dataset"


def test_texts_of_two_fields_are_labelled_by_how_these_differ_where_the_users_labels_are_about_it(
    tmp_path: Path,
) -> None:
    things = {
        "the cat": "the kitten", "the car": "the automobile", "a boy": "a young lad", "the doctor": "the physician",
        "the ship": "the vessel", "the sofa": "the couch", "the road": "the street", "the film": "the movie",
    }  # fmt: skip
    doing = {"is very small": "is tiny", "looks old": "seems aged", "was stolen": "got robbed", "is quick": "is fast"}
    said = [f"{a} {b}" for a in things for b in doing]
    again = {f"{a} {b}": f"{things[a]} {doing[b]}" for a in things for b in doing}
    rows = []
    for place, one in enumerate(said):
        rows += [(one, again[one], "same"), (one, again[said[(place + 13) % len(said)]], "other")]
    told = [{"one": a, "two": b, "label": c} for a, b, c in rows[0::2] + rows[1::2]]
    texts = [row for i, row in enumerate(told) if i % 4 < 2]
    own = [row for i, row in enumerate(told) if i % 4 >= 2]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    bare = [{key: row[key] for key in ("one", "two")} for row in texts]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    task = tmp_path / "same.md"
    task.write_text(
        "---\nlabels: [same, other]\ninputs: [one, two]\nunlabelled: texts.jsonl\n"
        "labelled: {path: own.jsonl, inputs: [one, two], output: label}\n---\n"
        "Say whether both sentences say the same.\n"
    )
    result = potstill.run(
        str(task), out=tmp_path / "run", n=8, teacher="fake", sources="generated",
        merge={"near_duplicates": 1.0, "test_near": 1.0},
        distil={"epochs": 1, "min_steps": 2}, evaluate={"rows": 4, "latency_rows": 2, "teacher": False},
    )  # fmt: skip
    report = json.loads((tmp_path / "run" / "train" / "report.json").read_text())["self_training"]
    assert (report["space"], report["stopped"]) == ("differences", "labelled once")
    learnt = [row for row in result.dataset if row["origin"] == "pseudo"]
    assert {row["source"]["teacher"] for row in learnt} == {"differences"}
    gold = {f"one: {row['one']}\ntwo: {row['two']}": row["label"] for row in texts}
    right = [gold[row["input"]] == row["output"] for row in learnt]
    assert sum(right) > 0.85 * len(right) > 20
    assert sorted(path.name for path in (tmp_path / "run" / "train").iterdir() if path.is_dir()) == ["student"]


def test_texts_for_an_estimate_of_the_prior_are_the_users_own(tmp_path: Path) -> None:
    from dataclasses import replace

    from potstill.stages.soft_targets import texts_for_prior
    from potstill.task import DataRef, Label, TaskSpec

    lines = [f"text {i}" for i in range(40)]
    (tmp_path / "free.txt").write_text("\n".join([*lines, ""]))
    spec = TaskSpec("t", "Say the kind.", "classification", (Label("a"), Label("b")), estimate_prior=True)
    asked = replace(spec, unlabelled=DataRef(str(tmp_path / "free.txt")))
    found = texts_for_prior(asked, 1)
    assert sorted(found) == sorted(lines)
    assert found != lines
    assert found == texts_for_prior(asked, 1)
    assert texts_for_prior(spec, 1) == []
    assert texts_for_prior(replace(asked, estimate_prior=False), 1) == []


def test_datasets_that_could_not_be_reached_are_asked_for_again_once_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from potstill.errors import UnreachableError
    from potstill.pipeline import open_job
    from potstill.retrieval import adapt
    from potstill.retrieval.sampling import Sample, table_of

    card = {"id": "me/reviews", "description": "Tell the sentiment of a review.", "license": "mit"}
    (tmp_path / "cards.jsonl").write_text(json.dumps(card) + "\n")
    task = tmp_path / "mood.md"
    task.write_text("---\nlabels: [negative, positive]\n---\nTell the sentiment of a review.\n")
    rows = [{"text": f"thing {i} was fine", "label": ("negative", "positive")[i % 2]} for i in range(30)]
    way = {"there": False}

    def sample(*_: object, **__: object) -> Sample:
        if not way["there"]:
            raise UnreachableError("me/reviews is a dataset of the Hub, which cannot be reached: no network")
        return Sample(table_of(rows, "reviews"), range(30), 30)

    def retrieved() -> tuple[bool, int]:
        options = {"catalogue": [str(tmp_path / "cards.jsonl")], "min_score": -1.0}
        with open_job(
            str(task), tmp_path / "run", lambda event: None, {"teacher": "fake", "retrieval": options}
        ) as job:
            stage = job.retrieval()
        return stage.reused, int(stage.facts["rows"])

    monkeypatch.setattr(adapt, "read_sample", sample)
    monkeypatch.setattr("potstill.hub_way.hub_unreachable", lambda: "" if way["there"] else "no network")
    assert [retrieved(), retrieved()] == [(False, 0), (True, 0)]
    way["there"] = True
    assert [retrieved(), retrieved()] == [(False, 30), (True, 30)]
    way["there"] = False
    assert retrieved() == (True, 30), "what was reached once stays"


def test_examples_that_rows_are_picked_by_are_part_of_what_retrieval_depends_on(tmp_path: Path) -> None:
    from potstill.pipeline import open_job

    (tmp_path / "found" / "sets").mkdir(parents=True)
    (tmp_path / "found" / "sets" / "README.md").write_text("---\nlicense: mit\n---\nTell the sentiment of a review.\n")
    lines = [{"text": f"{w} {i} was fine", "label": ("negative", "positive")[i % 2]}
             for i in range(20) for w in ("book", "meal")]  # fmt: skip
    (tmp_path / "found" / "sets" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def inputs(example: str, by: str) -> tuple[bool, list[str]]:
        task = tmp_path / "mood.md"
        task.write_text(f"---\nlabels: [negative, positive]\nexamples:\n- input: {example}\n  output: positive\n---\n"
                        "Tell the sentiment of a review.\n")  # fmt: skip
        options = {"catalogue": [str(tmp_path / "found")], "min_score": -1.0, "rows_by": by, "rows_per_dataset": 10}
        with open_job(
            str(task), tmp_path / "run", lambda event: None, {"teacher": "fake", "retrieval": options}
        ) as job:
            stage = job.retrieval()
        return stage.reused, read_rows(stage.path / "rows.parquet")["input"][:]

    first, second = inputs("the book I read", "nearest"), inputs("the meal I ate", "nearest")
    assert first[1] != second[1]
    assert second[0] is False
    inputs("the book I read", "sample")
    assert inputs("the meal I ate", "sample")[0] is True, "a sample does not depend on them"


@pytest.mark.real
def test_labelled_rows_of_the_user_cost_no_new_retrieval_and_no_new_generation(tmp_path: Path) -> None:
    """Both runs end where the soft targets begin: what is bought and made again before them is decided by then."""

    class Enough(Exception):
        pass

    def listen(event: Event) -> None:
        seen.append(event)
        if (event.stage, event.kind) == ("soft", "start"):
            raise Enough

    task = "---\nname: mood\nlabels: [good, bad]\n{more}---\nIs a review good or bad?\n"
    rows = [{"text": f"{word} {thing}", "label": label} for word, label in (("fine", "good"), ("poor", "bad"))
            for thing in ("lamp", "cup", "bed", "rug", "pan", "mug")]  # fmt: skip
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[Event] = []
    settings = {"n": 16, "teacher": "fake", "sources": "generated", "quality": {"verify": True}}
    for more in ("", "labelled: {path: own.jsonl, inputs: [text], output: label}\n"):
        (tmp_path / "task.md").write_text(task.format(more=more))
        seen.clear()
        with pytest.raises(Enough):
            potstill.run(str(tmp_path / "task.md"), out=tmp_path / "run", listener=listen, **settings)
    assert "user" in read_rows(tmp_path / "run" / "merge" / "train.parquet")["origin"]
    assert {event.stage for event in seen if event.kind == "reused"} == {"retrieval", "datagen", "quality"}
    assert "merge" in {event.stage for event in seen if event.kind == "done"}
