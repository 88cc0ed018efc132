"""Models found for a task: what may serve, what may not and why, and the way from the command line into a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from potstill.cli.app import app
from potstill.errors import DataError
from potstill.models import EMBEDDED, MINILM, SMOLLM2, sentence_encoder
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.students import StudentRanking, find_students, read_models, shipped_models
from potstill.task import Label, LicencePolicy, TaskSpec

pytestmark = pytest.mark.real
MODELS: list[dict[str, Any]] = [
    {"id": "law/encoder", "description": "An encoder of contracts and court rulings.", "license": "mit"},
    {"id": "sea/encoder", "description": "An encoder of texts on fish and ships.", "license": "cc-by-nc-4.0"},
    {"id": "law/large", "description": "A large encoder of contracts and court rulings.", "parameters": 900_000_000},
    {"id": "law/german", "description": "Ein Encoder für Verträge und Urteile.", "languages": ["de"]},
    {"id": "law/writer", "description": "Writes contracts.", "pipeline_tag": "text-generation"},
    {"id": "law/pictures", "description": "Sees contracts.", "pipeline_tag": "image-classification"},
    {"id": "law/gated", "description": "An encoder of contracts and court rulings.", "gated": "manual"},
    {"id": "law/unknown", "description": "An encoder of contracts and court rulings.", "safetensors": None},
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


def spec(**fields: Any) -> TaskSpec:
    given = {"name": "t", "instruction": "Sort clauses of contracts by what they oblige to.", "kind": "classification"}
    return TaskSpec(**{**given, "labels": (Label("pay"), Label("deliver")), **fields})


def write(path: Path, models: list[dict[str, Any]]) -> Path:
    rows = [{"pipeline_tag": "fill-mask", "safetensors": {"total": 20_000_000}, **model} for model in models]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def find(task: TaskSpec, path: Path | None = None, **options: Any) -> StudentRanking:
    given = RetrievalOptions(students=(str(path),) if path else (), **options)
    return find_students(task, given, encoder=sentence_encoder())


def test_the_shipped_models_serve_each_kind_of_task() -> None:
    for kind, best, other in (("classification", MINILM, SMOLLM2), ("generation", SMOLLM2, MINILM)):
        found = find(spec(kind=kind, labels=()))
        assert found.best.card.id == best
        assert [item.id for item in found.refused] == [other]
    assert "an encoder" in find(spec()).refused[0].reason
    models, skipped = read_models([shipped_models()])
    assert {model.card.id for model in models} == set(EMBEDDED)
    assert skipped == []


def test_the_shipped_cards_say_the_true_number_of_weights() -> None:
    safetensors = pytest.importorskip("safetensors")
    from potstill.models import local_model

    size = {model.card.id: model.parameters for model in read_models([shipped_models()])[0]}
    with safetensors.safe_open(Path(local_model(MINILM)) / "model.safetensors", "np") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    count = 0
    for shape in shapes:
        part = 1
        for length in shape:
            part *= length
        count += part
    assert abs(count - size[MINILM]) < 1_000  # some files also keep the 512 position numbers


def test_every_refusal_has_its_reason(tmp_path: Path) -> None:
    found = find(spec(licences=LicencePolicy(deny=("cc-by-nc*",))), write(tmp_path / "models.jsonl", MODELS))
    assert [hit.model.card.id for hit in found.hits] == ["law/encoder"]
    assert {item.id: item.reason for item in found.refused} == {
        "sea/encoder": "licence cc-by-nc-4.0 is denied by the task",
        "law/large": "3,433 MiB, over the limit of 1,024 (retrieval.student_mib)",
        "law/german": "language de; the task is in en",
        "law/writer": "it writes text; a classification student is an encoder",
        "law/pictures": "neither an encoder nor a decoder of text, as far as its card tells",
        "law/gated": "gated: its owner asks for consent first",
        "law/unknown": "its size is unknown",
    }


def test_the_task_and_then_downloads_decide(tmp_path: Path) -> None:
    path = write(tmp_path / "models.jsonl", [*MODELS[:2], {**MODELS[0], "id": "law/known", "downloads": 2_000_000}])
    assert [hit.model.card.id for hit in find(spec(), path).hits] == ["law/known", "law/encoder", "sea/encoder"]
    fish = spec(instruction="Say which kind of fish or ship a text is on.", labels=())
    assert find(fish, path).best.card.id == "sea/encoder"


def test_none_that_fits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no model .* over the limit of 50 .*; name one with --student"):
        _ = find(spec(), student_mib=50.0).best
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        find(spec(), tmp_path / "none.jsonl")


def test_a_catalogue_of_strangers(tmp_path: Path) -> None:
    path = tmp_path / "models.jsonl"
    good = json.dumps({"id": "a/b", "pipeline_tag": "fill-mask", "parameters": 10})
    path.write_bytes(b'[1]\n{"id": "../up"}\n\xff\xfe{\n' + b'{"a":' * 3000 + b"\n\n" + good.encode() + b"\n")
    models, skipped = read_models([path])
    assert [model.card.id for model in models] == ["a/b"]
    assert [item.where for item in skipped] == [f"models.jsonl:{n}" for n in (1, 2, 3, 4)]
    path.write_text("{}\n")
    with pytest.raises(DataError, match="holds no model card"):
        read_models([path])


def test_from_the_command_line() -> None:
    told = CliRunner().invoke(app, ["students", "Classify support tickets as billing, bug or other.", "--json"])
    assert told.exit_code == 0, told.output
    said = json.loads(told.stdout.splitlines()[-1])
    assert [hit["id"] for hit in said["hits"]] == [MINILM]
    assert said["refused"][0]["id"] == SMOLLM2
    shown = CliRunner().invoke(app, ["students", "Summarise a meeting in one sentence.", "--student-mib", "50"])
    assert "over the limit of 50" in shown.output
