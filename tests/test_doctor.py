"""What `doctor` finds where something is wrong, and that each finding has its mend."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import potstill
from potstill import doctor
from potstill.asking.ledger import Ledger
from potstill.doctor import examine
from potstill.doctor_check import Check, failed
from potstill.doctor_teacher import teacher_checks
from potstill.errors import OptionError, PotstillError, TaskError, UserError
from potstill.plan.estimate import plan_run
from potstill.settings import Settings, resolve
from potstill.task import DataRef, Label, TaskSpec

FOLLOWED = '{"town": "Ghent"}'


def _token_check(environment: dict[str, str]) -> Check:
    """The check of the token in a process of its own: the Hub's client reads the address at its import."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    code = "import json\nfrom potstill.doctor import _hub_token\nprint(json.dumps(vars(_hub_token())))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=120, check=True
    )
    return Check(**json.loads(done.stdout.splitlines()[-1]))


def test_a_token_that_the_hub_refuses(hub: Any, tmp_path: Path) -> None:
    found = _token_check(hub.environment(tmp_path, token="hf_wrong"))
    assert (found.status, found.found) == ("fail", "the Hub refused it (HTTP 401)")
    assert "write access" in found.mend


def test_a_token_that_can_only_read(hub: Any, tmp_path: Path) -> None:
    assert _token_check(hub.environment(tmp_path)).status == "ok"
    hub.role = "read"
    found = _token_check(hub.environment(tmp_path))
    assert (found.status, found.found) == ("warn", "user me, read")
    assert "write access for potstill push" in found.mend


def test_a_hub_that_cannot_be_reached_or_fails(hub: Any, tmp_path: Path) -> None:
    found = _token_check(hub.environment(tmp_path) | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert found.status == "warn"
    assert "cannot be reached" in found.found
    assert "HF_HUB_OFFLINE=1" in found.mend
    hub.fail("GET", "whoami", 500, times=99)
    found = _token_check(hub.environment(tmp_path))
    assert (found.status, found.mend) == ("fail", "try again later")
    assert _token_check({"HF_HOME": str(tmp_path)}).mend == "set HF_TOKEN"


def test_an_address_for_workers_is_tried() -> None:
    def checks(**workers: Any) -> list[Check]:
        settings = resolve({}, {"teacher": "fake", "executor": "workers", "workers": workers})
        return list(teacher_checks(settings, None, Path("runs/news")))

    first, second, *_ = checks()
    assert (first.name, first.status) == ("workers", "ok")
    assert first.found == "on 127.0.0.1:0, for workers of this machine alone: potstill work runs/news"
    assert (second.name, second.status) == ("teacher", "ok")
    away = checks(here=False, listen="0.0.0.0:0")
    assert [(check.name, check.status) for check in away] == [("workers", "ok"), ("teacher", "warn")]
    assert "for workers that know the token" in away[0].found
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = checks(listen=f"127.0.0.1:{taken.getsockname()[1]}")[0]
    assert (found.status, "cannot be listened on" in found.found) == ("fail", True)
    assert "workers.listen" in found.mend


def test_a_driver_without_a_torch_that_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    found = doctor._gpu()
    assert (found.status, "does not see a GPU" in found.found) == ("warn", True)
    assert "CUDA build of torch" in found.mend


@pytest.mark.parametrize(("gib", "status"), [(3.1, "ok"), (2.9, "warn"), (0.1, "warn")])
def test_little_memory(gib: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    memory = namedtuple("memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory(int(gib * 2**30)))
    found = doctor._memory()
    assert (found.status, bool(found.mend)) == (status, status != "ok")
    assert f"{gib:.1f} GiB available" in found.found


@pytest.mark.parametrize(("gib", "status"), [(6.0, "ok"), (4.0, "warn"), (0.3, "fail")])
def test_little_disk(gib: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, int(gib * 2**30)))
    found = doctor._disk(tmp_path / "not" / "yet")
    assert (found.status, bool(found.mend)) == (status, status != "ok")
    assert str(tmp_path) in found.found


@pytest.fixture
def asked(teacher_server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Check]]:
    """The checks of a teacher on the loopback, by name; `answer` is what it says to the question for JSON."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-used")

    def ask(
        answer: str = FOLLOWED, *, owner: str = "someone", fault: Any = None, tokens: Any = None
    ) -> dict[str, Check]:
        def reply(body: dict[str, Any]) -> str:
            return answer if body["messages"][-1]["content"] == "Name a town." else "It rains."

        with teacher_server.running_server(fault, owner=owner, reply=reply, tokens=tokens) as server:
            settings = Settings(teacher=f"openai:{server.url}#m")
            return {check.name: check for check in teacher_checks(settings, None, Path("run"))}

    return ask


def test_a_teacher_without_log_probs(asked: Any) -> None:
    found = asked()
    assert found["teacher"].status == found["schema"].status == "ok"
    assert found["log-probs"].status == "warn"
    assert "hard labels alone" in found["log-probs"].found
    assert "vllm:MODEL" in found["log-probs"].mend


def test_a_teacher_that_says_what_else_it_might_have_written(asked: Any) -> None:
    found = asked(tokens=lambda body: [("It", -0.1, [("It", -0.1), ("Rain", -2.5), ("No", -4.0)])])
    assert found["log-probs"].status == "ok"
    assert found["log-probs"].found.startswith("20 likeliest tokens a place")


def test_a_teacher_that_gives_five_tokens_a_place(asked: Any) -> None:
    def fault(number: int, text: str) -> Any:
        return (400, {"error": {"message": "top_logprobs: Input should be at most 5"}}) if next(asks) == 1 else None

    asks = iter(range(100))
    found = asked(fault=fault, tokens=lambda body: [("It", -0.1, [("It", -0.1)])])
    assert found["log-probs"].found.startswith("5 likeliest tokens a place")


def test_a_server_that_should_give_log_probs_and_gives_none(asked: Any) -> None:
    found = asked(owner="vllm")
    assert found["log-probs"].status == "fail"
    assert "hard labels" in found["log-probs"].mend


@pytest.mark.parametrize(
    ("answer", "why"),
    [("Ghent", "no JSON"), ('["Ghent"]', "not as asked"), ('{"city": "Ghent"}', "not as asked"),
     ('{"town": 3}', "not as asked")],
)  # fmt: skip
def test_a_schema_that_is_not_followed(answer: str, why: str, asked: Any) -> None:
    found = asked(answer)["schema"]
    assert (found.status, why in found.found) == ("fail", True)
    assert "generation.structured=never" in found.mend


@pytest.mark.parametrize("fault", ["401", "quota"])
def test_a_teacher_that_refuses(fault: str, asked: Any) -> None:
    found = asked(fault=lambda number, text: fault)
    assert found["teacher"].status == "fail"
    assert "another" in found["teacher"].mend
    assert set(found) == {"teacher"}, "it is asked nothing more"


@pytest.mark.parametrize("name", ["task", "settings", "encoder", "teacher", "test", "labelled", "unlabelled"])
@pytest.mark.parametrize(
    "error",
    [PotstillError("it broke"), TaskError("task.md", ["line 3: odd", "line 4; worse"]), OptionError("options", ["a"]),
     PotstillError("it broke; mend it")],
)  # fmt: skip
def test_every_failure_has_a_mend(name: str, error: PotstillError) -> None:
    found = failed(name, error)
    assert found.status == "fail"
    assert found.found
    assert found.mend
    assert (found.mend == "mend it") == ("mend it" in str(error))


def test_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    data = tmp_path / "own.csv"
    data.write_text("text,label\n" + "".join(f"words of row {i},{('a', 'b', '')[i % 3]}\n" for i in range(90)))
    spec = TaskSpec("t", "Say it.", "classification", labels=(Label("a"), Label("b")), labelled=DataRef(str(data)))
    check = doctor._data("labelled", spec)
    assert (check.status, check.found) == ("warn", f"60 rows in {data}")
    assert check.mend == f"30 of 90 rows in {data} have no text or no label and are left out"


def test_a_server_that_is_asked_while_the_student_is_trained(
    tmp_path: Path, teacher_server: Any, tiny_causal: Any
) -> None:
    student = str(tiny_causal(tmp_path / "student"))
    spec = TaskSpec("t", "Say it.", "generation")

    def found(server: Any, **distil: Any) -> Check | None:
        settings = resolve({}, {"teacher": f"openai:{server.url}#m", "distil": {"student": student, **distil}})
        checks = {check.name: check for check in teacher_checks(settings, spec, Path("run"))}
        return checks.get("on policy")

    with teacher_server.running_server(owner="someone") as server:
        assert found(server) is None
        check = found(server, on_policy=1.0)
        assert check is not None
        assert (check.status, "tells none" in check.found) == ("fail", True)
        assert "vllm serve MODEL" in check.mend
    with teacher_server.running_server(owner="vllm") as server:
        check = found(server, on_policy=1.0)
        assert check is not None
        assert (check.status, "another tokenizer" in check.found) == ("fail", True)
        assert "distil.student" in check.mend


def test_outputs_that_the_teacher_cannot_choose_among_are_refused_before_a_row_is_paid_for(
    tmp_path: Path, tiny_causal: Any
) -> None:
    given: dict[str, Any] = {
        "teacher": "fake", "sources": "generated", "n": 6,
        "distil": {"student": str(tiny_causal(tmp_path / "student")), "method": "sequence"},
    }  # fmt: skip
    task, out = "Summarise a paragraph in one sentence. The output is a summary.", tmp_path / "run"
    for refused in (lambda: plan_run(task, out=out, probe=0, **given), lambda: potstill.run(task, out=out, **given)):
        with pytest.raises(UserError, match=r"the likeliest of 4 outputs is unknown; set soft.pick=nearest"):
            refused()
    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.totals().replies == 0
    found = {check.name: check for check in examine(task, out=out, **given)}
    assert found["method"].status == "fail"
    assert "soft.candidates=1" in found["method"].mend
    found = {check.name: check for check in examine(task, out=out, **given, soft={"pick": "nearest"})}
    told = "the teacher writes 4 outputs for each input, and the nearest is learnt"
    assert (found["method"].status, found["method"].found) == ("ok", told)
