"""The rules that cards are judged by: each can fail, and the readers of the Hub's own libraries take our cards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill.hub.cards import HUB_LICENCES
from potstill.hub.export import build_unit

RESULT = {
    "task": {"type": "text-classification"},
    "dataset": {"type": "me/x", "name": "X"},
    "metrics": [{"type": "accuracy", "value": 0.5}],
}
GOOD: dict[str, Any] = {
    "license": "mit", "language": ["en"], "pipeline_tag": "text-classification", "tags": ["a"],
    "task_categories": ["text-generation"], "size_categories": ["1B<n<10B"], "multilinguality": "monolingual",
    "annotations_creators": ["found"], "library_name": "transformers", "metrics": ["f1"], "datasets": ["me/x"],
    "model-index": [{"name": "x", "results": [RESULT]}],
    "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}]}],
}  # fmt: skip


def _card(data: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(data)}---\n\n# X\n"


def _model_index(**change: Any) -> dict[str, Any]:
    return {"model-index": [{"name": "x", "results": [{**RESULT, **change}]}]}


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"license": "mit-like"}, "license"),
        ({"license": "other", "license_name": "My Own"}, "license_name"),
        ({"license": "other", "license_name": "my-own", "license_link": "terms.txt"}, "license_link"),
        ({"language": ["pt-BR"]}, "language"),
        ({"language": ["English"]}, "language"),
        ({"pipeline_tag": "classification"}, "pipeline_tag"),
        ({"pipeline_tag": ["text-classification"]}, "pipeline_tag"),
        ({"task_categories": ["classification"]}, "task_categories"),
        ({"size_categories": ["1K-10K"]}, "size_categories"),
        ({"multilinguality": "one"}, "multilinguality"),
        ({"annotations_creators": ["machine"]}, "annotations_creators"),
        ({"tags": ["a", 1]}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"datasets": ["me/x/y"]}, "datasets"),
        ({"base_model": "/home/someone/model"}, "base_model"),
        ({"model-index": {"name": "x"}}, "array"),
        ({"model-index": [{"results": [RESULT]}]}, "name"),
        ({"model-index": [{"name": "x"}]}, "results"),
        (_model_index(task={"name": "Text"}), "task.type"),
        (_model_index(task={"type": "texts"}), "task.type"),
        (_model_index(dataset={"type": "me/x"}), "type and name"),
        (_model_index(dataset={"type": "local:x.csv", "name": "X"}), "id of a dataset"),
        (_model_index(metrics=[]), "metrics"),
        (_model_index(metrics=[{"type": "f1"}]), "type and value"),
        (_model_index(metrics=[{"type": "f1", "value": float("nan")}]), "type and value"),
        ({"configs": [{"data_files": []}]}, "config_name"),
        ({"configs": [{"config_name": "a", "data_files": [{"path": "x"}]}]}, "split and path"),
        ({"configs": [{"config_name": "a", "data_files": [{"split": "a b", "path": "x"}]}]}, "names"),
        ({"configs": [{"config_name": "a"}, {"config_name": "a"}]}, "once"),
    ],
)
def test_each_rule_refuses_what_breaks_it(change: dict[str, Any], problem: str) -> None:
    check_card = sys.modules["hub_server"].check_card
    assert check_card(_card(GOOD), "datasets")[1:] == ([], [])
    _, errors, _ = check_card(_card({**GOOD, **change}), "datasets")
    assert len(errors) == 1
    assert problem in errors[0]


def test_every_licence_that_a_card_names_is_one_of_the_hubs(hub: Any) -> None:
    assert HUB_LICENCES < sys.modules["hub_server"].LICENCES


@pytest.mark.parametrize("kind", ["real", "held-out"])
@pytest.mark.parametrize("repo", [None, "me/support-tickets"])
def test_the_readers_of_the_hubs_libraries_take_our_metadata(
    sample_run: Any, tmp_path: Path, kind: str, repo: str | None
) -> None:
    """`ModelCardData` reads the model-index strictly; `datasets` reads the configurations as `load_dataset` does."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, ModelCard

    unit = build_unit(sample_run.write_run(tmp_path / "run", kind=kind), tmp_path / "unit", repo=repo)
    card = ModelCard((unit.model / "README.md").read_text(), ignore_metadata_errors=False)
    results = {result.metric_type: result for result in card.data.eval_results or []}
    assert set(results) == {"accuracy", "f1"}
    assert all(result.task_type == card.data.pipeline_tag == "text-classification" for result in results.values())
    assert all(0 < result.metric_value <= 1 for result in results.values())
    configs = MetadataConfigs.from_dataset_card_data(DatasetCard((unit.dataset / "README.md").read_text()).data)
    files = {item["split"]: item["path"] for item in configs["default"]["data_files"]}
    assert set(files) == {"train", "validation", *(["test"] if kind == "held-out" else [])}
    assert all((unit.dataset / path).exists() for path in files.values())
