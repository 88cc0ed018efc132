"""What a stage runs is in its key, and what it does not run is not."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from potstill import code_version as under_test
from potstill.code_version import CodeVersion, code_version, imports_of
from potstill.stages.job import Job
from potstill.stages.optional import compress_stage, mixture_rows, self_train_on
from potstill.stages.rules import weak_stage
from potstill.stages.written import quality_stage

FOLDERS = ("potstill", "datagen", "retrieval", "train", "prompts")
STAGES: dict[str, Callable[[], CodeVersion]] = {
    "retrieval": lambda: code_version(Job.retrieval),
    "datagen": lambda: code_version(Job.datagen),
    "quality": lambda: code_version(quality_stage),
    "weak": lambda: code_version(weak_stage),
    "merge": lambda: code_version(Job.merge),
    "soft": lambda: code_version(Job.soft),
    "train": lambda: code_version(Job.train, without=(mixture_rows, self_train_on)),
    "train on texts": lambda: code_version(Job.train, Job.test_rows),
    "compress": lambda: code_version(compress_stage),
    "evaluate": lambda: code_version(Job.evaluate),
}


def forget() -> None:
    for cached in (code_version, under_test._piece, under_test._named, under_test._tree, under_test._source):
        cached.cache_clear()


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], set[str]]]:
    """The stages whose version is another once `old` is `new` in a module; the end of its file where `old` is ""."""
    forget()
    before, read = {name: version().digest for name, version in STAGES.items()}, under_test._source.__wrapped__

    def stages(module: str, old: str, new: str) -> set[str]:
        def source(name: str) -> Any:
            text = read(name)
            if name != module:
                return text
            assert old in text
            return text.replace(old, new) if old else text + new

        source.cache_clear = lambda: None  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(under_test, "_source", source)
            forget()
            found = {name for name, version in STAGES.items() if version().digest != before[name]}
        forget()
        return found

    yield stages
    forget()


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("potstill.train.prune.bonsai", {"compress"}),
        ("potstill.train.heal", {"compress"}),
        ("potstill.datagen.self_instruct", {"datagen"}),
        ("potstill.stages.evaluation", {"evaluate"}),
        ("potstill.stages.text_labels", {"train on texts"}),
        ("potstill.retrieval.adapt", {"retrieval"}),
        ("potstill.datagen.heldout", {"merge"}),
        ("potstill.cli.app", set()),
        ("potstill.report.page", set()),
        ("potstill.run_dir", set()),
    ],
)
def test_a_change_in_a_module_is_one_for_the_stages_that_run_it(
    changed: Callable[[str, str, str], set[str]], module: str, stages: set[str]
) -> None:
    assert changed(module, "", "# a word more\n") == stages


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("potstill.language.label_words", {"datagen", "quality", "soft", "train", "train on texts", "evaluate"}),
        ("potstill.retrieval.load", {"retrieval", "weak", "merge", "soft", "train on texts", "evaluate"}),
        ("potstill.asking.chat", {"datagen", "soft", "train", "evaluate"}),
        ("potstill.train.gold_rows", {"train", "train on texts"}),
        ("potstill.decoding.greedy", {"train", "evaluate"}),
    ],
)
def test_what_several_stages_stand_on_is_in_the_version_of_each(
    changed: Callable[[str, str, str], set[str]], module: str, stages: set[str]
) -> None:
    assert stages <= changed(module, "", "# a word more\n")


def test_a_stage_does_not_depend_on_its_neighbours_in_one_module(changed: Callable[[str, str, str], set[str]]) -> None:
    assert changed("potstill.stages.job", '"""The teacher writes', '"""A teacher writes') == {"datagen"}
    assert changed("potstill.stages.job", '"""The user\'s real test', '"""Real test') == {
        "merge", "train on texts", "evaluate"
    }  # fmt: skip
    assert changed("potstill.stages.job", '"""What the run cost', '"""The cost') == set()
    assert changed("potstill.stages.job", '"""Run or reuse one', '"""Make one') == set()
    assert changed("potstill.stages.optional", "led = led_by_user(", "led =  led_by_user(") == {
        "train", "train on texts"
    }  # fmt: skip
    assert changed("potstill.stages.optional", '"""Let a trained', '"""A trained') == {"train on texts"}
    assert changed("potstill.stages.parts", '"""Where the rows lie', '"""Where they lie') == {"evaluate"}


def test_each_module_that_is_set_apart_is_one() -> None:
    apart = {*under_test._BY_FUNCTION, *under_test._CARRIERS, *(name.split(":")[0] for name in under_test._CARRYING)}
    assert [name for name in sorted(apart) if under_test._file(name) is None] == []


def test_libraries_are_those_that_the_code_imports() -> None:
    assert {"peft", "bitsandbytes", "optuna", "tokenizers", "trl"} <= set(STAGES["train"]().libraries)
    assert {"torchao", "onnxruntime"} <= set(STAGES["compress"]().libraries)
    assert {"faiss-cpu", "sentence-transformers", "bm25s"} <= set(STAGES["retrieval"]().libraries)
    assert not {"trl", "peft", "torchao", "onnxruntime"} & set(STAGES["datagen"]().libraries)
    parts = STAGES["merge"]().key_parts()
    assert set(parts) == {"code", "versions"}
    assert {"potstill", "datasets"} <= set(parts["versions"])


def test_statements_alone_tell_the_imports_that_the_whole_tree_tells(repo_root: Path) -> None:
    files = [path for folder in FOLDERS for path in sorted((repo_root / folder).rglob("*.py"))]
    assert len(files) > 250
    for path in files:
        source = path.read_text(encoding="utf-8")
        whole, found = set(under_test._imports(ast.parse(source))), set(imports_of(source))
        shown = ast.get_docstring(ast.parse(source)) or ""  # an example of use reads as an import, and adds one
        assert whole <= found, path
        assert all(name in shown for name in found - whole), path


def test_prose_that_begins_as_an_import_does_is_none() -> None:
    source = '"""What is taken\nfrom here import of goods, duties\n"""\n\ndef f():\n'
    source += "    from potstill.asking.chat import turns\n"
    assert list(imports_of(source)) == ["potstill.asking.chat.turns"]


def test_the_version_loads_nothing_and_takes_no_time() -> None:
    forget()
    loaded, started = set(sys.modules), time.process_time()
    modules = {name for version in STAGES.values() for name in version().modules}
    assert time.process_time() - started < 1.0, "0.1 s on an idle machine"
    assert set(sys.modules) == loaded
    assert len(modules) > 150
