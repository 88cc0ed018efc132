"""Settings: precedence, every fault at once, the nearest name."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from potstill import pipeline
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Message, Request
from potstill.datagen.teachers import options_class
from potstill.errors import OptionError, TaskError
from potstill.pipeline import open_asker, open_checker
from potstill.plan.estimate import plan_run
from potstill.settings import _NESTED, _PLAIN, _SHORT, read_with_settings, resolve
from potstill.stages.student_choice import teaches_itself
from potstill.task import TaskSpec
from potstill.task.file import SETTINGS, STAGES, read_task_file


def test_the_caller_wins_over_the_task_file_and_both_are_remembered() -> None:
    settings = resolve({"n": 50, "seed": 3, "distil": {"epochs": 2}}, {"n": 70})
    assert settings.generation.rows == 70
    assert settings.seed == 3
    assert settings.distil.epochs == 2
    assert settings.origin["generation.rows"] == "caller"
    assert settings.origin["distil.epochs"] == "task file"


def test_the_seed_reaches_every_stage_that_draws() -> None:
    settings = resolve({}, {"seed": 11})
    assert settings.generation.seed == settings.distil.seed == 11


def test_all_faults_come_in_one_message_with_the_nearest_name() -> None:
    with pytest.raises(OptionError) as caught:
        resolve({"teachr": "x"}, {"distil": {"epoch": 2, "temperature": "hot"}, "sources": "bth"})
    text = str(caught.value)
    assert "did you mean 'teacher'?" in text
    assert "did you mean 'epochs'?" in text
    assert "temperature" in text
    assert "'bth'" in text


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"n": 0}, "n: a whole number of 1 or more is needed (got 0)"),
        ({"rows": "x"}, "rows: a whole number of 1 or more is needed (got 'x')"),
        ({"n": True}, "n: a whole number of 1 or more is needed (got True)"),
        ({"generation": {"rows": 0}}, "rows: a whole number of 1 or more is needed (got 0)"),
        ({"seed": 1.5}, "seed: a whole number of 0 or more is needed (got 1.5)"),
        ({"concurrency": "x"}, "concurrency: a whole number of 0 or more is needed (got 'x')"),
        ({"encoder": 5}, "encoder: a text is needed (got 5)"),
        ({"teacher": " "}, "teacher: a text is needed (got ' ')"),
        ({"teacher": "nosuch:1"}, "teacher: no backend 'nosuch' in 'nosuch:1'"),
        ({"teacher": "vllm:"}, "no model is named after the colon; write vllm:MODEL, or vllm alone for"),
        ({"teacher": "transformers: "}, "no model is named after the colon; write transformers:MODEL"),
        ({"quality": {"votes": 2, "teacher": "opnai:x"}}, "quality.teacher: no backend 'opnai'"),
        ({"budget": "lots"}, "budget 'lots' is no amount with a unit; write 2usd"),
        ({"budget": 5}, "budget: a text is needed (got 5)"),
        ({"sources": "bth"}, "sources: 'bth' is none of both, retrieved"),
        ({"sources": ["both"]}, "sources: ['both'] is none of"),
        ({"evaluate": {"rows": -5}}, "rows must be at least 0 (got -5)"),
        ({"evaluate": {"latency_rows": -1}}, "latency_rows must be at least 0 (got -1)"),
    ],
)
def test_an_impossible_value_is_refused_before_any_work(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(OptionError) as caught:
        resolve({}, {"teachr": "x", **given})
    assert fault in str(caught.value)
    assert len(caught.value.faults) == 2, "with all others, once each"


@pytest.mark.parametrize("value", ["0", "-4", "2.5", "many"])
def test_a_task_file_and_a_caller_are_told_the_same_of_a_number_of_rows(value: str) -> None:
    with pytest.raises(TaskError, match=r"n: a whole number of 1 or more is needed \(got"):
        read_task_file(f"---\nlabels: [spam, ham]\nn: {value}\n---\nTell spam from ham messages.", draft=True)


def test_a_task_file_takes_every_setting() -> None:
    assert set(STAGES) == {*_NESTED, "teacher_options"}
    assert set(SETTINGS) == {*_PLAIN, *_SHORT}
    text = "---\nlabels: [spam, ham]\nquality: {votes: 2}\nray: {workers: 3}\n---\nTell spam from ham messages."
    read = read_task_file(text, draft=True)
    settings = resolve({**read.settings, **read.options}, {})
    assert (settings.quality.votes, settings.ray.workers) == (2, 3)


def test_the_options_of_the_teachers_backend_are_checked_with_all_others() -> None:
    file = {"teacher": "vllm:m", "teacher_options": {"max_model_len": 4096, "dtype": "bfloat16"}}
    settings = resolve(file, {"teacher_options": {"dtype": "float16"}})
    assert settings.teacher_options == {"max_model_len": 4096, "dtype": "float16"}
    assert settings.origin["teacher_options.dtype"] == "caller"
    with pytest.raises(OptionError) as caught:
        resolve({**file, "seeed": 1}, {"teacher_options": {"max_model_length": 1, "kv_cache_gib": "much"}})
    text = str(caught.value)
    assert "teacher_options.max_model_length: no such option; did you mean 'max_model_len'?" in text
    assert "teacher_options.kv_cache_gib" in text
    assert "did you mean 'seed'?" in text
    with pytest.raises(OptionError, match=r"no backend 'vlm' in 'vlm:m'; did you mean 'vllm'\?"):
        resolve({}, {"teacher": "vlm:m", "teacher_options": {"dtype": "float16"}})
    with pytest.raises(OptionError) as caught:
        resolve({}, {"teacher": "nope"})
    assert "did you mean" not in str(caught.value)
    assert "no backend 'nope' in 'nope'; write transformers" in str(caught.value)


def test_a_teacher_of_another_backend_leaves_the_files_options_out() -> None:
    file = {"teacher": "openai:http://127.0.0.1:1/v1#m", "teacher_options": {"timeout_s": 5}}
    assert resolve(file, {"teacher": "openai:#other"}).teacher_options == {"timeout_s": 5}
    assert resolve(file, {"teacher": "fake"}).teacher_options == {}
    assert resolve(file, {"teacher": "fake", "teacher_options": {"seed": 3}}).teacher_options == {"seed": 3}
    assert resolve({"teacher_options": {"threads": 1}}, {"teacher": "transformers:m"}).teacher_options == {"threads": 1}


BAD = """---
lables: [a, b]
budget: 2 potatoes
generation: {rowz: 3, novelty: 7}
distil:
  epochz: 3
  search:
    trails: 3
teacher: opnai:x
quality: {votes: -1}
---
Tell spam from ham messages.
"""


def test_a_bad_file_has_one_message_with_a_line_for_each_fault(tmp_path: Path) -> None:
    """Faults of the task came first, those of its options in a second message, which named no line."""
    (tmp_path / "bad.md").write_text(BAD)
    with pytest.raises(TaskError) as caught:
        read_with_settings(tmp_path / "bad.md", {"n": 5})
    assert [fault.partition(" (got {")[0] for fault in caught.value.faults] == [
        "line 2: 'lables' is not known; did you mean 'labels'?",
        "line 3: budget '2 potatoes' is no amount with a unit; write 2usd, 500k-tokens or 30min",
        "line 4: generation.rowz: no such option; did you mean 'rows'?",
        "line 4: generation: novelty must be in (0, 1] (got 7.0)",
        "line 6: distil.epochz: no such option; did you mean 'epochs'?",
        "line 7: distil.search.trails: no such option; did you mean 'trials'?",
        "line 9: teacher: no backend 'opnai' in 'opnai:x'; did you mean 'openai'?; " + FORMS,
        "line 10: quality: votes must be at least 0 (got -1)",
    ]


def test_each_fault_of_a_stage_stands_at_the_line_of_its_own_option(tmp_path: Path) -> None:
    """The lines were found by the messages' first words, and faults of one stage shared one."""
    (tmp_path / "bad.md").write_text(
        "---\nsoft:\n  seed: 1\n  pick: beam\n  candidates: 1\n  votes: -1\ngeneration:\n  min_words: 1\n  top_p: 2\n"
        "  temperature: -1\ndistil:\n  search:\n    trials: -1\n  epochs: 2\n  dropout: 3\nquality:\n  votes: 1\n"
        "  teacher_options: {usd_read: 1}\n---\nTell spam from ham messages.\n"
    )
    with pytest.raises(TaskError) as caught:
        read_with_settings(tmp_path / "bad.md", {})
    assert [fault.partition(" (got")[0][:64] for fault in caught.value.faults] == [
        "line 5: soft: a beam search needs candidates of 2 or more, its w",
        "line 6: soft: votes must be at least 0",
        "line 9: generation: top_p must be in (0, 1]",
        "line 10: generation: temperatures must be at least 0",
        "line 12: distil.search: trials must be 0 or more",
        "line 15: distil.dropout must lie in [0, 1)",
        "line 18: quality: teacher_options are for another teacher that c",
    ]


def test_a_scale_of_adapters_without_adapters_is_refused() -> None:
    with pytest.raises(OptionError, match=r"lora_alpha scales adapters .got 8., and there are none; set lora_rank"):
        resolve({}, {"distil": {"lora_alpha": 8}})
    assert resolve({}, {"distil": {"lora_alpha": 8, "lora_rank": 4}}).distil.lora_alpha == 8
    assert resolve({}, {"distil": {"lora_alpha": 8, "qlora": True}}).distil.lora_alpha == 8


def test_what_the_caller_says_is_no_fault_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "task.md"
    file.write_text("---\nteacher: opnai:x\ngeneration: {rows: 20, novelty: 0.6}\n---\nIs a message spam or ham?\n")
    with pytest.raises(OptionError, match="novelty must be in"):
        read_with_settings(file, {"teacher": "fake", "generation": {"novelty": 7}})
    found, settings = read_with_settings(file, {"teacher": "fake"})
    assert (found.spec.label_names, settings.generation.rows, settings.teacher) == (("spam", "ham"), 20, "fake")
    with pytest.raises(OptionError, match="did you mean 'teacher'"):
        read_with_settings("Tell spam from ham messages.", {"teachr": "x"})
    for open_it in (open_job, plan):
        with pytest.raises(TaskError, match="line 2: teacher: no backend 'opnai'"):
            open_it(file, tmp_path / "run")


def plan(file: Path, out: Path) -> None:
    plan_run(file, out=out)


def open_job(file: Path, out: Path) -> None:
    with pipeline.open_job(file, out, lambda event: None, {}):
        pass


FORMS = "write transformers, transformers:MODEL, vllm:MODEL, openai:URL#MODEL, openai:#MODEL or fake"


def test_one_option_of_a_group_leaves_the_files_others_as_they_are() -> None:
    search = resolve({"distil": {"search": {"trials": 3}}}, {"distil": {"search": {"minutes": 10.0}}}).distil.search
    assert (search.trials, search.minutes) == (3, 10.0)
    # A table of the user's own, such as how often each origin is drawn, is one value.
    sampling = resolve({"distil": {"sampling": {"user": 2.0}}}, {"distil": {"sampling": {"generated": 0.5}}}).distil
    assert sampling.sampling == {"generated": 0.5}


def test_the_teacher_that_checks_has_options_of_its_own() -> None:
    file = {
        "executor": "ray", "concurrency": 9, "teacher": "vllm:m",
        "quality": {"judge": True, "teacher": "openai:#m", "teacher_options": {"key_variable": "OTHER_KEY"}},
    }  # fmt: skip
    settings = resolve(file, {"quality": {"teacher_options": {"thinking_tokens": 512}}})
    assert settings.quality.teacher_options == {"key_variable": "OTHER_KEY", "thinking_tokens": 512}
    checking = settings.checking
    assert checking is not None
    assert checking.teacher == "openai:#m"
    assert checking.teacher_options == settings.quality.teacher_options
    assert checking.executor == "local", "a server runs elsewhere already"
    assert checking.concurrency == 9
    own = resolve(file, {"quality": {"teacher_options": {"concurrency": 2}}}).checking
    assert own is not None
    assert own.concurrency == 0, "its own number stands"
    engine = resolve(file, {"quality": {"teacher": "vllm:larger"}}).checking
    assert engine is not None
    assert (engine.executor, engine.teacher_options) == ("ray", {}), "the file's are for another backend"
    for idle in ({"sources": "retrieved"}, {"quality": {"judge": False}}):
        assert resolve(file, idle).checking is None
    with pytest.raises(OptionError) as caught:
        resolve(file, {"quality": {"teacher_options": {"key_varable": "X", "attempts": 0.5}}})
    assert "quality.teacher_options.key_varable: no such option; did you mean 'key_variable'?" in str(caught.value)
    assert "quality.teacher_options.attempts" in str(caught.value)
    with pytest.raises(OptionError, match=r"quality\.teacher names none"):
        resolve({}, {"quality": {"judge": True, "teacher_options": {"attempts": 2}}})


def test_the_teacher_that_checks_is_asked_with_its_own_key(
    teacher_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the-key-of-the-writer-0123456789")
    monkeypatch.setenv("JUDGE_KEY", "the-key-of-the-judge-0123456789")
    with teacher_server.running_server() as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        quality = {"judge": True, "teacher": f"openai:{server.url}#m", "teacher_options": {"key_variable": "JUDGE_KEY"}}
        settings = resolve({"teacher": "fake"}, {"quality": quality})
        with open_checker(settings, ledger, lambda event: None) as asker:
            assert asker is not None
            asker.ask([Request((Message("user", "hello"),))], "quality")
        assert [sent["authorization"] for sent in server.headers] == ["Bearer the-key-of-the-judge-0123456789"]


def test_a_teacher_is_opened_with_them(tmp_path: Path) -> None:
    settings = resolve({"teacher": "fake"}, {"teacher_options": {"failing": 1.0, "concurrency": 3}})
    with Ledger(tmp_path / "ledger.sqlite") as ledger, open_asker(settings, ledger, lambda event: None) as asker:
        assert asker.teacher.concurrency == 3
        (answer,) = asker.ask([Request((Message("user", "hello"),))], "test")
        assert isinstance(answer.reply, Failure)


@pytest.mark.parametrize("backend", ["openai", "vllm", "transformers"])
def test_the_page_of_teachers_names_every_option(backend: str, repo_root: Path) -> None:
    page = (repo_root / "docs" / "howto-teacher.md").read_text("utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{backend}:` |")]
    names = {field.name for field in fields(options_class(backend))} - {"concurrency"}
    assert names == set(re.findall(r"`(\w+)`", row))


def test_a_student_of_its_own_model_is_known() -> None:
    writes, sorts = TaskSpec("t", "Say it better.", "generation"), TaskSpec("t", "Sort it.", "classification")

    def itself(spec: TaskSpec, **given: Any) -> bool:
        return teaches_itself(resolve({}, given), spec)

    assert itself(writes, teacher="transformers")
    assert not itself(sorts, teacher="transformers")
    assert not itself(writes, teacher="fake")
    assert not itself(writes, teacher="openai:http://127.0.0.1:1/v1#smollm2")
    assert not itself(writes, teacher="transformers", distil={"student": "auto"})
    assert not itself(writes, teacher="transformers:someone/larger")
    assert itself(writes, teacher="vllm:someone/small", distil={"student": "someone/small"})


def test_options_that_are_shown_in_their_stage_are_options_of_it() -> None:
    from dataclasses import fields

    from potstill.settings import _NESTED
    from potstill.task.option_places import STAGE_OF, place_of

    assert len(STAGE_OF) >= 25
    for name, stage in STAGE_OF.items():
        assert name in {field.name for field in fields(_NESTED[stage])}, f"{stage}.{name}"
        others = [key for key, cls in _NESTED.items() if key != stage and name in {field.name for field in fields(cls)}]
        assert others == [], f"{name} is one of {others} too"
    assert place_of("lr") == ("distil", "learning_rate")
    with pytest.raises(OptionError, match=r"epochs: no such setting; did you mean distil=\{'epochs': 3\}\?"):
        resolve({}, {"epochs": 3})
