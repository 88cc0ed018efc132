"""A unit on disk and on a Hub: pushed by the real clients over HTTP, and read back by the real clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill.errors import OptionError, UserError
from potstill.hub.cards import dataset_card, md, merge_licences, model_card, score_text, teacher_terms, unit_info
from potstill.hub.export import build_unit, check_repo, push
from potstill.masking import public_name
from potstill.report.facts import find_leaks, measure_diversity, read_run
from potstill.report.page import render_report
from potstill.rows import Origin
from potstill.run_dir import file_digest
from potstill.task import DataRef, Example, TaskSpec

REPO = "me/support-tickets"
SENTINEL = "hf_SentinelSentinelSentinel"


@pytest.fixture(scope="module")
def run(sample_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = sample_run.write_run(tmp_path_factory.mktemp("runs") / "real")
    return path


@pytest.fixture(scope="module")
def held_out(sample_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = sample_run.write_run(tmp_path_factory.mktemp("runs") / "held", kind="held-out")
    return path


def client(
    hub: Any, home: Path, code: str, *, token: str | None = "", **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with its clients pointed at the hub."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = clean | hub.environment(home, token=token) | extra
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def pushed(hub: Any, home: Path, run: Path, *, token: str | None = "", **options: Any) -> Any:
    """Push through the product; the result as JSON, or the error's class and text."""
    code = (
        "import json\nfrom potstill.errors import PotstillError\nfrom potstill.hub.export import push\n"
        f"try:\n    print(json.dumps(push({str(run)!r}, {REPO!r}, **{options!r}).to_json()))\n"
        "except PotstillError as error:\n    print(json.dumps([type(error).__name__, str(error)]))\n"
    )
    done = client(hub, home, code, token=token)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_unit_holds_dataset_model_cards_and_report(run: Path, tmp_path: Path) -> None:
    unit = build_unit(run, tmp_path / "unit")
    names = {path.relative_to(tmp_path / "unit").as_posix() for path in (tmp_path / "unit").rglob("*.*")}
    assert names == {
        "dataset/README.md", "dataset/LICENSE.md", "dataset/report.html", "dataset/report.md",
        "dataset/potstill-unit.json", "dataset/data/train.parquet", "dataset/data/validation.parquet",
        "model/README.md", "model/LICENSE.md", "model/report.html", "model/report.md", "model/potstill-unit.json",
        "model/model.safetensors", "model/config.json", "model/potstill.json", "model/tokenizer.json",
        "model/tokenizer_config.json",
    }  # fmt: skip
    again = build_unit(run, tmp_path / "unit")
    assert again.id == unit.id == build_unit(run, tmp_path / "elsewhere").id
    ids = {json.loads((unit.folder(part) / "potstill-unit.json").read_text())["unit"] for part in ("dataset", "model")}
    assert ids == {unit.id}


def test_the_users_test_data_and_paths_stay_at_home(run: Path, held_out: Path, tmp_path: Path) -> None:
    unit = build_unit(run, tmp_path / "unit")
    for path in sorted((tmp_path / "unit").rglob("*.*")):
        assert b"/home/someone" not in path.read_bytes(), path
    assert not (unit.dataset / "data" / "test.parquet").exists()
    import pyarrow.parquet as pq

    published = pq.read_table(unit.dataset / "data" / "train.parquet")
    stored = pq.read_table(run / "soft" / "train.parquet")
    assert published.schema.equals(stored.schema, check_metadata=True)
    assert published.drop(["source"]).equals(stored.drop(["source"]))
    assert set(published["source"].combine_chunks().field("dataset").to_pylist()) == {
        None, "acme/tickets", "local:mine.csv"
    }  # fmt: skip
    assert (build_unit(held_out, tmp_path / "held").dataset / "data" / "test.parquet").exists()


@pytest.mark.parametrize(
    ("teacher", "shown"),
    [
        ("vllm:/home/someone/models/qwen", "vllm:local:qwen"),
        ("openai:http://someones-gpu.lan:8000/v1#Qwen/Qwen3-8B", "openai:local#Qwen/Qwen3-8B"),
        ("openai:https://api.example.com/v1#m", "openai:https://api.example.com/v1#m"),
    ],
)
def test_folders_and_addresses_of_the_teacher_stay_at_home(
    teacher: str, shown: str, sample_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(sample_run, "TEACHER", teacher)
    run = sample_run.write_run(tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    about["settings"]["teacher"] = teacher
    about["command"] = f"potstill run task.md --teacher {teacher}"
    about["teacher"] = {"backend": "openai", "endpoint": teacher.split("#")[0].removeprefix("openai:"), "model": "m"}
    (run / "run.json").write_text(json.dumps(about))
    unit = build_unit(run, tmp_path / "unit")
    for path in sorted((tmp_path / "unit").rglob("*.*")):
        assert not any(word in path.read_bytes() for word in (b"/home/someone", b"someones-gpu")), path
    rows = pq.read_table(unit.dataset / "data" / "train.parquet")["source"].combine_chunks()
    assert set(rows.field("teacher").to_pylist()) == {None, shown}
    assert shown.split("/")[-1] in (unit.dataset / "README.md").read_text()


def _metadata(card: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(card.read_text().split("---\n")[1]))


def test_cards_say_what_was_measured_on_what(run: Path, held_out: Path, tmp_path: Path) -> None:
    real, held = build_unit(run, tmp_path / "real", repo=REPO), build_unit(held_out, tmp_path / "held", repo=REPO)
    assert "rows of real test data (local:test.csv). None of the 60 texts" in (real.model / "README.md").read_text()
    assert "not real test\ndata**" in (held.model / "README.md").read_text()
    assert "It is not real test data" in (held.dataset / "README.md").read_text()
    data = _metadata(real.model / "README.md")
    scores = json.loads((run / "evaluate" / "scores.json").read_text())["systems"][0]
    metrics = {item["type"]: item["value"] for item in data["model-index"][0]["results"][0]["metrics"]}
    assert metrics == {"accuracy": round(scores["accuracy"], 6), "f1": round(scores["macro_f1"], 6)}
    assert data["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert data["datasets"] == [REPO] or data["datasets"] == REPO
    assert data["license"] == "other"
    assert data["license_name"] == "mixed-with-unknown"
    assert _metadata(real.dataset / "README.md")["size_categories"] == ["n<1K"]
    licences = (real.dataset / "LICENSE.md").read_text()
    for part in ("acme/tickets | cc-by-4.0 |", "local:mine.csv | unknown |", "apache-2.0 |"):
        assert part in licences


@pytest.mark.parametrize(
    ("source", "config", "split", "wanted"),
    [("acme/tickets.v2", "mails", "validation", ("acme/tickets.v2", "mails", "validation")),
     ("acme/tickets", None, None, ("acme/tickets", None, "test")),
     ("data/test.jsonl", None, None, ("test.jsonl", None, "test")),
     ("/home/someone/acme/tickets", None, None, ("local-tickets", None, "test"))],
)  # fmt: skip
def test_the_scores_name_the_whole_id_of_a_test_set_of_the_hub(
    run: Path, tmp_path: Path, source: str, config: str | None, split: str | None, wanted: tuple[str, str | None, str]
) -> None:
    run = shutil.copytree(run, tmp_path / "run")
    scores = json.loads((run / "evaluate" / "scores.json").read_text())
    scores["test_set"]["source"] = source
    (run / "evaluate" / "scores.json").write_text(json.dumps(scores))
    task = json.loads((run / "task" / "task.json").read_text())
    spec = replace(TaskSpec.from_json(task), test=DataRef(source, split=split, config=config))
    (run / "task" / "task.json").write_text(json.dumps(spec.to_json()))
    facts = read_run(run)
    card = model_card(facts, unit_info(facts, REPO, token_targets=False))
    data = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"][0]["dataset"]
    assert (data["type"], data.get("config"), data["split"]) == wanted
    assert "/home/" not in card


def test_cards_and_report_name_the_commit_that_rows_of_the_hub_were_read_at(run: Path, tmp_path: Path) -> None:
    run, commit, tested = shutil.copytree(run, tmp_path / "run"), "c0ffee" + "0" * 34, "beef" + "0" * 36
    note = (
        json.loads((run / "retrieval" / "report.json").read_text()) if (run / "retrieval/report.json").exists() else {}
    )
    note["datasets"] = {"acme/tickets": {"commit": commit}, "them/other": {"commit": None}}
    (run / "retrieval" / "report.json").write_text(json.dumps(note))
    scores = json.loads((run / "evaluate" / "scores.json").read_text())
    scores["test_set"] |= {"source": "acme/real@v1.0", "commit": tested}
    (run / "evaluate" / "scores.json").write_text(json.dumps(scores))
    facts = replace(read_run(run), spec=replace(read_run(run).spec, test=DataRef("acme/real@v1.0")))
    info = unit_info(facts, REPO, token_targets=False)
    data = yaml.safe_load(model_card(facts, info).split("---\n")[1])["model-index"][0]["results"][0]["dataset"]
    assert (data["type"], data["revision"], data["name"]) == ("acme/real", tested, "acme/real (real test data)")
    assert f"acme/real@{tested}" in model_card(facts, info)
    shown = [dataset_card(facts, info), *render_report(facts, public=True)]
    assert all(f"acme/tickets@{commit}" in text for text in shown)
    assert all(f"acme/real@{tested}" in text for text in shown[1:])


def test_the_cards_of_a_student_that_writes(run: Path, tmp_path: Path) -> None:
    """Its example is asked in whole and answered in whole, and nothing is said of labels."""
    from potstill.train.card import StudentCard, write_card

    run = shutil.copytree(run, tmp_path / "run")
    instruction = "Sum up the letter in a sentence. " * 30
    write_card(run / "train" / "student", StudentCard("letters", "generation", instruction, max_new_tokens=412))
    spec = TaskSpec("letters", instruction, "generation", examples=(Example("Dear all. " * 60, "Nothing new."),))
    facts = replace(read_run(run), spec=spec)
    info = unit_info(facts, REPO, token_targets=False)
    model, rows = model_card(facts, info), dataset_card(facts, info)
    block = model.split("```python\n")[1].split("```")[0]
    asked = json.loads(block.split('"content": ')[1].split("}]")[0])
    assert asked == f"{instruction}\n\n{spec.examples[0].input[:300]}"
    assert "max_new_tokens=412" in block
    assert "probabilities are" not in model
    assert "Labels of retrieved rows" not in rows


def test_cards_pass_the_hubs_rules_and_the_hubs_classes(run: Path, held_out: Path, hub: Any, tmp_path: Path) -> None:
    import sys as system

    from huggingface_hub import DatasetCard, ModelCard

    check_card = system.modules["hub_server"].check_card
    for path in (run, held_out):
        for repo in (None, REPO):
            unit = build_unit(path, tmp_path / "unit", repo=repo)
            for part, kind in (("dataset", DatasetCard), ("model", ModelCard)):
                text = (unit.folder(part) / "README.md").read_text()
                _, errors, warned = check_card(text, f"{part}s")
                assert (errors, warned) == ([], [])
                assert kind(text).data.to_dict()["license"] == "other"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["mit", "MIT "], ("mit", None)),
        (["unknown", ""], ("unknown", None)),
        ([], ("unknown", None)),
        (["mit", "apache-2.0"], ("other", "mixed")),
        (["mit", "unknown"], ("other", "mixed-with-unknown")),
        (["My Own License"], ("other", "my-own-license")),
    ],
)
def test_licences_are_merged_honestly(parts: list[str], expected: tuple[str, str | None]) -> None:
    found = merge_licences(parts, "this dataset")
    assert (found.id, found.name) == expected
    assert all(part.strip().lower() in found.sentence or found.id == "unknown" for part in parts if part != "unknown")


@pytest.mark.parametrize(
    "repo",
    ["", "name", "../x", "a/../b", "a/b/c", "/abs/x", "me/..", "me/x.git", "me/x\u0000", "me/" + "x" * 97, "me/a--b",
     "-me/x", "me/x-", "me/x y", "http://h/x", "me/%2e%2e", "me/тест"],
)  # fmt: skip
def test_names_that_could_leave_the_namespace_are_refused(repo: str, run: Path) -> None:
    with pytest.raises(OptionError, match="is no name on the Hub; give USER/NAME"):
        push(run, repo, dry_run=True)


def test_good_names_pass() -> None:
    for repo in ("me/x", "a-b/c_d.e", "Org1/model-v1.0"):
        check_repo(repo)


def test_an_unfinished_run_is_refused_with_the_mend(sample_run: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run at"):
        build_unit(tmp_path, tmp_path / "out")
    run = sample_run.write_run(tmp_path / "run")
    (run / "train" / "student" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no safetensors weights"):
        build_unit(run, tmp_path / "out")
    (run / "train" / "student" / "config.json").unlink()
    with pytest.raises(UserError, match="has no student yet; finish it"):
        build_unit(run, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_without_scores_is_a_unit_whose_model_card_names_none(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run")
    shutil.rmtree(run / "evaluate")
    unit = build_unit(run, tmp_path / "unit", repo=REPO)
    data = _metadata(unit.model / "README.md")
    assert data["library_name"] == "transformers"
    assert {"model-index", "metrics", "eval_results", "model_name"}.isdisjoint(data)


def test_a_folder_of_somebody_else_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is no unit of potstill"):
        build_unit(run, tmp_path)
    assert (tmp_path / "dataset" / "thesis.txt").read_text() == "mine"


def test_hostile_text_stays_inside_the_cards(sample_run: Any, hub: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run", hostile=True)
    unit = build_unit(run, tmp_path / "unit", repo=REPO)
    for part in ("dataset", "model"):
        for name in ("README.md", "LICENSE.md", "report.md"):
            lines = (unit.folder(part) / name).read_text().splitlines()
            text = "\n".join(line for line in lines if not line.startswith("    "))  # a code block shows it as it is
            assert "<script" not in text
            assert "<img" not in text
        text = (unit.folder(part) / "README.md").read_text()
        _, errors, _ = sys.modules["hub_server"].check_card(text, f"{part}s")
        assert errors == []
        for table in ("| billing |", "| acme/tickets"):
            assert all(line.count("|") >= 2 for line in text.splitlines() if line.startswith(table))


def test_markdown_is_made_harmless() -> None:
    assert md("<b>|`x`\n[a](b)") == r"&lt;b&gt;\|\`x\` \[a\](b)"
    assert md("a\u202eb\x00") == "ab"


def test_scores_are_written_with_their_interval() -> None:
    assert score_text({"f": 0.5, "ci": {"f": [0.4, 0.61]}}, "f") == "0.500 [0.400, 0.610]"
    assert score_text({}, "f") == "–"


@pytest.mark.parametrize("origin", ["retrieved", "pseudo"])
def test_a_teacher_of_rows_that_it_did_not_write_alone_is_named_with_its_terms(
    origin: Origin, sample_run: Any, tmp_path: Path
) -> None:
    from potstill.rows import Row, Source, label_names, read_rows, rows_to_dataset, write_rows

    run = sample_run.write_run(tmp_path / "run")
    names = label_names(read_rows(run / "soft" / "train.parquet"))
    teacher = "openai:https://api.openai.com/v1#gpt-5"
    found = Source("acme/reviews", None, "train", 0, teacher, ("key",))
    plain = Source("acme/reviews", None, "train", 1)
    rows = [Row("a text", names[0], origin, found, names[0]), Row("another", names[1], origin, plain, names[1])]
    for split in ("soft/train", "soft/validation", "merge/heldout", "merge/validation"):
        if (run / f"{split}.parquet").exists():
            write_rows(rows_to_dataset(rows, names), run / f"{split}.parquet")
    (run / "train" / "train.parquet").unlink(missing_ok=True)
    unit = build_unit(run, tmp_path / "unit")
    card = (unit.dataset / "README.md").read_text()
    assert "compete" in card
    assert "synthetic" in _metadata(unit.dataset / "README.md")["tags"]
    assert "machine-generated" in _metadata(unit.dataset / "README.md")["annotations_creators"]
    assert "The teacher local:" not in card
    assert "The teacher acme" not in card


def test_terms_are_named_for_known_teachers_and_asked_for_the_rest() -> None:
    assert "Apache-2.0" in teacher_terms("vllm:HuggingFaceTB/SmolLM2-135M-Instruct")
    assert "compete" in teacher_terms("openai:#gpt-5-mini")
    assert "compete" in teacher_terms("openai:https://api.openai.com/v1#o3")
    assert "Llama licence" in teacher_terms("vllm:meta-llama/Llama-3.2-1B-Instruct")
    for free in ("vllm:someone/new-model", "vllm:openai/gpt-oss-20b", "vllm:EleutherAI/gpt-neo-1.3B",
                 "vllm:TinyLlama/TinyLlama-1.1B-Chat", "vllm:openlm-research/open_llama_3b"):  # fmt: skip
        assert "check what its terms say" in teacher_terms(free)


def test_local_paths_become_names() -> None:
    assert public_name("/home/a/x.csv") == "local:x.csv"
    assert public_name(r"C:\data\x.csv") == "local:x.csv"
    assert public_name("acme/tickets") == "acme/tickets"


def test_leaks_are_found_whole_and_in_part() -> None:
    long = " ".join(f"word{i}" for i in range(20))
    found = find_leaks(["Hello, World!", long, "clean"], ["hello   world", f"so: {long} and on"])
    assert (found.test_rows, found.exact, found.ngram) == (3, 1, 1)


def test_diversity_tells_copies_from_texts(sample_run: Any) -> None:
    import random

    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(500)}" for _ in range(12)) for _ in range(200)]
    varied, copied = measure_diversity(texts), measure_diversity([*texts[:100], *texts[:100]])
    assert varied.near_duplicates == 0
    assert copied.near_duplicates == 0.5, "each second one is one of the first"
    assert copied.distinct_2 < varied.distinct_2


def test_the_report_and_a_generation_tell_the_same_variety() -> None:
    from potstill.datagen.tally import diversity

    texts = ["今天天气很好", "今天心情很好", "明天天气不好", "the cat sat on the mat", "the cat sat on a mat"] * 3
    report, generation = measure_diversity(texts), diversity(texts)
    assert report.distinct_1 == generation["distinct_1"] < 0.5, "each sign is a word, and not each sentence"
    assert report.distinct_2 == generation["distinct_2"] > 0
    assert report.near_duplicates == generation["near_duplicate_rate"]


@pytest.mark.parametrize(
    ("test", "trained"),
    [
        ("Héllo, world! Where is my invoice?", "hello world where is my invoice"),
        ("NAÏVE  café", "naive cafe."),
        ("title: a\nbody: one two three four five six seven", "subject: b\ntext: one two, three four five six seven"),
    ],
)
def test_one_text_is_the_same_for_merging_for_the_report_and_for_a_measurement(test: str, trained: str) -> None:
    from potstill.datagen.decontaminate import TestTexts, shared_texts

    assert (TestTexts([test]).found_in(trained) or [""])[0] == "in_test"
    assert find_leaks([test, "clean"], [trained, None]).exact == 1
    assert shared_texts(["clean", test], [trained])[0] == {1}


def test_facts_of_a_half_finished_run(sample_run: Any, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.json").write_text(json.dumps(sample_run.spec_for().to_json()))
    facts = read_run(tmp_path)
    assert (facts.rows, facts.sources, facts.drops, facts.leak, facts.systems) == (0, [], [], None, [])


READ_BACK = """
import json, sys
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
rows = load_dataset(sys.argv[1])
assert {name: part.num_rows for name, part in rows.items()} == {"train": 120, "validation": 30}, rows
assert rows["train"].features["label"].names == ["billing", "bug", "other"]
item = rows["train"][0]
assert item["source"]["dataset"] == "acme/tickets" and item["licence"] == "cc-by-4.0", item
assert item["origin"] == "retrieved" and abs(sum(item["teacher_probs"]) - 1) < 1e-5
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
said = pipeline("text-classification", model=sys.argv[1])("invoice charged twice")
assert said[0]["label"] in ("billing", "bug", "other"), said
local = AutoModelForSequenceClassification.from_pretrained(sys.argv[2])
assert all((a == b).all() for a, b in zip(model.state_dict().values(), local.state_dict().values()))
print("fine")
"""


def test_what_was_pushed_is_read_back_by_the_real_clients(run: Path, hub: Any, tmp_path: Path) -> None:
    result = pushed(hub, tmp_path / "home", run)
    assert result["changed"]
    assert result["private"]
    assert hub.warnings == [], "the card gave warnings"
    for kind in ("models", "datasets"):
        repo = hub.repo(kind, REPO)
        assert repo.private
        assert len(repo.log) == 2, "the repository's first commit, and ours"
        assert repo.log[0].oid == result["commits"][kind[:-1]]
    code = f"import sys; sys.argv = ['x', {REPO!r}, {str(run / 'train' / 'student')!r}]\n{READ_BACK}"
    done = client(hub, tmp_path / "fresh", code)
    assert done.returncode == 0, done.stderr[-3000:]
    stranger = client(hub, tmp_path / "other", code, token=None)
    assert stranger.returncode != 0, "a private dataset must not be readable without the token"


def test_a_second_push_sends_nothing(run: Path, hub: Any, tmp_path: Path) -> None:
    first = pushed(hub, tmp_path, run)
    hub.requests.clear()
    second = pushed(hub, tmp_path, run)
    assert not second["changed"]
    assert second["commits"] == first["commits"]
    assert {file["change"] for file in second["files"]} == {"same"}
    assert not [path for _, path in hub.requests if "/commit/" in path or "/lfs/" in path]


def test_a_changed_run_replaces_what_changed_and_removes_what_is_gone(
    sample_run: Any, hub: Any, tmp_path: Path
) -> None:
    run = sample_run.write_run(tmp_path / "run", kind="held-out")
    pushed(hub, tmp_path, run)
    hub.put("datasets", REPO, {"thumbnail.png": b"mine"}, "a person adds a picture")
    (run / "merge" / "heldout.parquet").unlink()
    result = pushed(hub, tmp_path, run)
    changes = {(file["part"], file["path"]): file["change"] for file in result["files"]}
    assert changes["dataset", "data/test.parquet"] == "delete"
    assert changes["dataset", "data/train.parquet"] == "same"
    assert changes["dataset", "README.md"] == "update"
    assert changes["model", "model.safetensors"] == "same"
    tree = hub.repo("datasets", REPO).log[0].tree
    assert "data/test.parquet" not in tree
    assert hub.read("datasets", REPO, "thumbnail.png") == b"mine", "what others added stays"


def test_an_earlier_unit_is_read_back_by_the_beginning_of_its_id(sample_run: Any, hub: Any, tmp_path: Path) -> None:
    run, out = sample_run.write_run(tmp_path / "run", kind="held-out"), tmp_path / "unit"
    first = pushed(hub, tmp_path, run)["unit"]
    (run / "merge" / "heldout.parquet").unlink()
    second = pushed(hub, tmp_path, run)["unit"]
    hub.put("datasets", REPO, {"notes.txt": b"theirs"}, "a person adds a file")
    code = (
        "import json, sys\nfrom potstill.errors import PotstillError\nfrom potstill.hub.load import load_unit\n"
        "for unit in json.loads(sys.argv[3]):\n"
        "    try:\n        print(json.dumps(load_unit(sys.argv[1], sys.argv[2], unit=unit).to_json()))\n"
        "    except PotstillError as error:\n        print(json.dumps([type(error).__name__, str(error)]))\n"
    )
    asked = [None, first[:6], first, second[:12], "0" * 6, "main"]
    new, old, held, again, unknown, no_id = hub.ask(tmp_path, code, REPO, str(out), json.dumps(asked))
    assert first != second
    assert [found["unit"] for found in (new, old, held, again)] == [second, first, first, second]
    assert [found["kept"] for found in (new, old, held, again)] == [False, False, True, False]
    assert old["commits"] != new["commits"]
    assert not (out / "dataset" / "data" / "test.parquet").exists(), "the second unit has none"
    assert unknown[0] == "HubError"
    assert unknown[1].endswith(
        f"no unit 000000 was pushed as the dataset of {REPO}; there are: {second[:12]}, {first[:12]}"
    )
    assert no_id[0] == "OptionError"
    assert "'main' is no unit's id" in no_id[1]


@pytest.fixture
def published(run: Path, hub: Any, tmp_path: Path) -> dict[str, Any]:
    result: dict[str, Any] = pushed(hub, tmp_path / "home", run)
    return result


def test_a_commit_by_somebody_else_in_between_is_met(run: Path, hub: Any, tmp_path: Path) -> None:
    hub.create("datasets", REPO, private=True)

    def interfere() -> None:
        hub.put("datasets", REPO, {"README.md": b"# theirs"}, "theirs")

    hub.fail("POST", "/api/datasets/.*/commit/", 200, before=interfere)
    result = pushed(hub, tmp_path, run)
    titles = [commit.title for commit in hub.repo("datasets", REPO).log]
    assert titles == [f"potstill unit {result['unit'][:12]}", "theirs", "initial commit"]
    assert b"# theirs" not in hub.read("datasets", REPO, "README.md")


def test_a_lost_reply_is_not_committed_twice(run: Path, hub: Any, tmp_path: Path) -> None:
    pushed(hub, tmp_path, run)  # made first, so that the commit below is an update
    repo = hub.repo("models", REPO)
    hub.put("models", REPO, {"README.md": b"old"}, "old")
    hub.fail("POST", "/api/models/.*/commit/", 0)
    result = pushed(hub, tmp_path, run)
    assert result["changed"]
    assert [commit.title for commit in repo.log].count(f"potstill unit {result['unit'][:12]}") == 2
    assert result["commits"]["model"] == repo.log[0].oid


def test_an_interrupted_upload_leaves_the_readers_view(
    run: Path, held_out: Path, hub: Any, tmp_path: Path, published: dict[str, Any]
) -> None:
    before = {kind: hub.repo(kind, REPO).log[0].oid for kind in ("models", "datasets")}
    hub.fail("PUT", "/lfs/upload/", 403, times=99)
    name, text = pushed(hub, tmp_path, held_out)
    assert name == "HubError"
    assert "403" in text
    assert text.endswith("; nothing was published")
    assert {kind: hub.repo(kind, REPO).log[0].oid for kind in ("models", "datasets")} == before
    hub._faults.clear()
    assert pushed(hub, tmp_path, held_out)["changed"]


def test_a_kill_in_the_middle_leaves_the_readers_view_and_the_next_push_finishes(
    run: Path, held_out: Path, hub: Any, tmp_path: Path, published: dict[str, Any]
) -> None:
    before = {kind: hub.repo(kind, REPO).log[0].oid for kind in ("models", "datasets")}
    code = f"from potstill.hub.export import push\npush({str(held_out)!r}, {REPO!r})"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    process = subprocess.Popen([sys.executable, "-c", code], env=clean | hub.environment(tmp_path / "killed"))
    hub.fail("POST", "/api/datasets/.*/commit/", 503, before=process.kill)
    assert process.wait(timeout=60) != 0
    assert {kind: hub.repo(kind, REPO).log[0].oid for kind in ("models", "datasets")} == before
    result = pushed(hub, tmp_path, held_out)
    assert result["changed"]
    assert json.loads(hub.read("models", REPO, "potstill-unit.json"))["unit"] == result["unit"]


def test_a_push_after_a_kill_sends_no_large_file_again(run: Path, hub: Any, tmp_path: Path) -> None:
    """Killed while the weights, the last of the large files, are on their way: only they go again."""
    unit = build_unit(run, tmp_path / "unit")
    large = {part: [path for path in unit.folder(part).rglob("*") if path.suffix in (".parquet", ".safetensors")]
             for part in ("dataset", "model")}  # fmt: skip
    (weights,) = (file_digest(path) for path in large["model"])
    tables = {file_digest(path) for path in large["dataset"]}
    code = f"from potstill.hub.export import push\npush({str(run)!r}, {REPO!r})"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    process = subprocess.Popen([sys.executable, "-c", code], env=clean | hub.environment(tmp_path / "killed"))
    hub.fail("PUT", weights, 503, before=process.kill)
    assert process.wait(timeout=120) != 0
    assert _sent(hub) == {**dict.fromkeys(tables, 1), weights: 1}
    hub.requests.clear()
    assert pushed(hub, tmp_path, run)["changed"]
    assert _sent(hub) == {weights: 1}, "the tables were there"
    assert len(hub.repo("models", REPO).log) == len(hub.repo("datasets", REPO).log) == 2
    # Killed again where everything is sent and nothing committed: the next push sends no large file at all.
    hub.repos.clear()
    process = subprocess.Popen([sys.executable, "-c", code], env=clean | hub.environment(tmp_path / "killed"))
    hub.fail("POST", "/api/datasets/.*/commit/", 503, before=process.kill)
    assert process.wait(timeout=120) != 0
    hub.requests.clear()
    assert pushed(hub, tmp_path, run)["changed"]
    assert _sent(hub) == {}


def _sent(hub: Any) -> dict[str, int]:
    """How often each large file was sent, by its sha256."""
    return dict(Counter(path.rsplit("/", 1)[1] for verb, path in hub.requests if verb == "PUT" and "/lfs/" in path))


def test_a_half_published_unit_says_so_and_is_finished_by_the_next_push(run: Path, hub: Any, tmp_path: Path) -> None:
    hub.fail("POST", "/api/models/.*/commit/", 403)
    name, text = pushed(hub, tmp_path, run)
    assert name == "HubError"
    assert text.endswith("the dataset of this unit is published, its model is not: push again to finish")
    result = pushed(hub, tmp_path, run)
    assert {file["change"] for file in result["files"] if file["part"] == "dataset"} == {"same"}
    assert {file["change"] for file in result["files"] if file["part"] == "model"} == {"add"}


def test_a_dry_run_asks_the_hub_nothing_and_needs_no_token(run: Path, hub: Any, tmp_path: Path) -> None:
    result = pushed(hub, tmp_path, run, token=None, dry_run=True)
    assert hub.requests == []
    assert not result["changed"]
    sizes = {(file["part"], file["path"]): file["size"] for file in result["files"]}
    assert sizes["model", "model.safetensors"] == (run / "train" / "student" / "model.safetensors").stat().st_size
    shown = str(push(run, REPO, dry_run=True))
    assert "data/train.parquet" in shown
    assert "private" in shown


def test_an_existing_public_repository_is_not_updated_by_a_private_push(run: Path, hub: Any, tmp_path: Path) -> None:
    hub.create("datasets", REPO, private=False)
    name, text = pushed(hub, tmp_path, run)
    assert (name, "exists and is public; push with --public" in text) == ("HubError", True)
    assert len(hub.repo("datasets", REPO).log) == 1
    assert not pushed(hub, tmp_path, run, private=False)["private"]


def test_a_repository_of_something_else_is_not_overwritten(run: Path, hub: Any, tmp_path: Path) -> None:
    hub.create("models", REPO, private=True)
    hub.put("models", REPO, {"pytorch_model.bin": b"precious"})
    name, text = pushed(hub, tmp_path, run)
    assert (name, "potstill did not publish; use another name" in text) == ("HubError", True)
    assert pushed(hub, tmp_path, run, overwrite=True)["changed"]


def test_who_may_not_write_proposes_a_pull_request(run: Path, hub: Any, tmp_path: Path) -> None:
    name, text = pushed(hub, tmp_path, run, create_pr=True)
    assert (name, "a pull request needs a repository that is there" in text) == ("HubError", True)
    for kind in ("datasets", "models"):
        hub.create(kind, REPO, private=True)
    hub.user = "them"
    name, text = pushed(hub, tmp_path, run)
    assert (name, "may not write to" in text, "--create-pr" in text) == ("HubError", True, True)
    before = {kind: hub.repo(kind, REPO).log[0].oid for kind in ("datasets", "models")}
    hub.fail("POST", "/api/models/.*/commit/", 403)
    name, text = pushed(hub, tmp_path, run, create_pr=True)
    assert text.endswith("the dataset of this unit is proposed, its model is not: push again to finish")
    for status in (412, 0):
        hub.fail("POST", "/api/models/.*/commit/", status)
    result = pushed(hub, tmp_path, run, create_pr=True)
    pages = {"dataset": f"{hub.url}/datasets/{REPO}/discussions/1", "model": f"{hub.url}/{REPO}/discussions/1"}
    assert result["pull_requests"] == pages
    assert {kind: hub.repo(kind, REPO).log[0].oid for kind in before} == before, "nothing is written to main"
    for kind, part in (("datasets", "dataset"), ("models", "model")):
        repo = hub.repo(kind, REPO)
        assert [item["title"] for item in repo.requests] == [f"potstill unit {result['unit'][:12]}"]
        proposed = repo.find("refs/pr/1")
        assert (proposed.oid, proposed.parent) == (result["commits"][part], before[kind])
        unit = json.loads(hub.read(kind, REPO, "potstill-unit.json", "refs/pr/1"))
        assert unit["unit"] == result["unit"]
        assert set(unit["files"]) <= set(proposed.tree)
    large = _sent(hub)
    assert pushed(hub, tmp_path, run, create_pr=True) == result, "what is open is found, and no second one made"
    assert _sent(hub) == large
    code = f"from potstill.hub.export import push\nprint(push({str(run)!r}, {REPO!r}, create_pr=True))"
    shown = client(hub, tmp_path, code).stdout
    assert all(f"pull request: {page}\n" in shown for page in pages.values())
    assert "is proposed to" in shown


def test_refusals_name_the_mend_and_never_the_token(run: Path, hub: Any, tmp_path: Path) -> None:
    name, text = pushed(hub, tmp_path, run, token=None)
    assert (name, "set HF_TOKEN" in text) == ("HubError", True)
    name, text = pushed(hub, tmp_path, run, token=SENTINEL)
    assert (name, "401" in text, "token is missing, expired or wrong" in text) == ("HubError", True, True)
    assert SENTINEL not in text
    hub.fail("POST", "/api/repos/create", 500, times=99)
    assert pushed(hub, tmp_path, run)[0] == "HubError"
    code = f"from potstill.hub.export import push\npush({str(run)!r}, {REPO!r})"
    for address, word in (("http://127.0.0.1:9", "check the network"), (hub.url, "500")):
        done = client(hub, tmp_path, code, token=SENTINEL, HF_ENDPOINT=address)
        assert done.returncode == 1
        assert word in done.stderr
        assert SENTINEL not in done.stderr + done.stdout


def test_the_token_is_in_no_file_that_goes_out(run: Path, hub: Any, tmp_path: Path, published: Any) -> None:
    files = [path for path in hub.folder.rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        assert hub.token.encode() not in path.read_bytes()


SAME_ANSWERS = """
import json, sys
from huggingface_hub import snapshot_download
from transformers import pipeline
from potstill.train.student import load_student
texts = json.loads(sys.argv[2])
student = load_student(snapshot_download(sys.argv[1]))
classify = pipeline("text-classification", model=sys.argv[1])
print(json.dumps([[p.output for p in student.predict(texts)], [item["label"] for item in classify(texts)]]))
"""


@pytest.mark.real
def test_a_trained_student_answers_the_same_after_the_journey(sample_run: Any, hub: Any, tmp_path: Path) -> None:
    from potstill.rows import read_rows
    from potstill.train.classify import distil_classifier
    from potstill.train.options import DistilOptions
    from potstill.train.student import load_student

    run = sample_run.write_run(tmp_path / "run")
    shutil.rmtree(run / "train" / "student")
    tables = [read_rows(run / "soft" / f"{name}.parquet") for name in ("train", "validation")]
    options = DistilOptions(epochs=1, min_steps=10)
    distil_classifier(sample_run.spec_for(), *tables, run / "train" / "student", options)
    pushed(hub, tmp_path / "home", run)
    texts = tables[1]["input"][:12]
    here = [item.output for item in load_student(run / "train" / "student").predict(texts)]
    assert len(set(here)) > 1, "the student has learnt nothing, so agreement would say nothing"
    done = client(
        hub, tmp_path / "fresh", f"import sys; sys.argv = ['x', {REPO!r}, {json.dumps(texts)!r}]\n{SAME_ANSWERS}"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.strip().splitlines()[-1]) == [here, here]


@pytest.mark.parametrize("name", ["card_dataset", "card_model"])
def test_golden_cards(run: Path, repo_root: Path, name: str) -> None:
    facts = read_run(run)
    info = unit_info(facts, REPO, token_targets=False)
    card = {"card_dataset": dataset_card, "card_model": model_card}[name](facts, info)
    assert card == (repo_root / "tests" / "prompts" / "golden" / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("limit", [None, 1e-4])
def test_the_card_tells_the_compressed_student_that_goes_with_it(sample_run: Any, tmp_path: Path, limit: Any) -> None:
    run = sample_run.write_run(tmp_path / "run")
    steps = [
        {"step": "original", "kind": "original", "size_mib": 93.4},
        {"step": "int8:channel", "kind": "recipe", "size_mib": 24.4},
        {"step": "binary", "kind": "recipe", "size_mib": 3.1},
    ]
    best = {**steps[1], "why": "the smallest that keeps 99 % of the original"}
    report = {"recipe": "all", "steps": steps, "recommended": None if limit else best, "why_none": "none is so small"}
    (run / "compress" / "student").mkdir(parents=True)
    if limit:
        shutil.rmtree(run / "compress" / "student")
    (run / "compress" / "report.json").write_text(json.dumps({"source": "x", "notes": [], **report}))
    facts = read_run(run)
    card = model_card(facts, unit_info(facts, REPO, token_targets=False))
    if limit:
        assert "compressed/" not in card
        return
    assert "made smaller (int8:channel):\n24.4 MiB" in card
    assert f'load_student(snapshot_download("{REPO}") + "/compressed")' in card
