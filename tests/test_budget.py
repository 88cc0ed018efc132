"""Caps: reading them, and never spending more."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.asking.asker import Asker
from potstill.asking.budget import Budget, Meter, Price, in_time, price_of, spent_usd
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Message, Request
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.errors import BudgetReached, OptionError
from potstill.events import Event


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("2usd", Budget(usd=2.0)),
        ("$2.50", Budget(usd=2.5)),
        ("500k-tokens", Budget(tokens=500_000)),
        ("1.5M tokens", Budget(tokens=1_500_000)),
        ("30min", Budget(seconds=1800.0)),
        ("1.5h", Budget(seconds=5400.0)),
        ("90s", Budget(seconds=90.0)),
        ("2usd, 500k-tokens,30min", Budget(usd=2.0, tokens=500_000, seconds=1800.0)),
    ],
)
def test_parse(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert Budget.parse(text.upper()) == budget


@pytest.mark.parametrize(
    "text", ["", "2", "usd", "2 parsecs", "-2usd", "2usd,", "0usd", "2usd,3usd", "1e9usd", "nanusd"]
)
def test_bad_budgets_name_the_mend(text: str) -> None:
    with pytest.raises(OptionError, match=r"write 2usd|leave the budget out|keep one"):
        Budget.parse(text)


@pytest.mark.parametrize(("text", "shown"), [("1s", "1 s"), ("90s", "1.5 min"), ("2usd,5min", "2 USD, 5 min")])
def test_shown_as_people_write(text: str, shown: str) -> None:
    assert str(Budget.parse(text)) == shown


@given(st.text(max_size=20))
def test_parse_never_crashes(text: str) -> None:
    with contextlib.suppress(OptionError):
        Budget.parse(text)


def test_all_faults_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        Budget.parse("x,y,2usd")
    assert len(caught.value.faults) == 2


def requests(count: int) -> list[Request]:
    return [Request((Message("user", f"text {i}"),), max_tokens=60, sample=i) for i in range(count)]


@pytest.mark.parametrize("cap", [500, 2_000, 20_000])
def test_tokens_stop_below_the_cap_and_go_on_later(tmp_path: Path, cap: int) -> None:
    teacher = FakeTeacher(FakeOptions(concurrency=64, shuffle=True))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asker = Asker(teacher, ledger, budget=Budget(tokens=cap))
        with pytest.raises(BudgetReached, match="run again with a larger --budget"):
            asker.ask(requests(2000), "p")
        spent = ledger.totals()
        # Never above, and not far below: the worst case of one request is about 70 tokens.
        assert cap - 150 <= spent.prompt_tokens + spent.completion_tokens <= cap
        # The same cap again buys nothing more; a larger one goes on and repeats nothing.
        with pytest.raises(BudgetReached):
            Asker(teacher, ledger, budget=Budget(tokens=cap)).ask(requests(2000), "p")
        assert ledger.totals() == spent
        before = teacher.asked
        answers = Asker(teacher, ledger, budget=Budget(tokens=10**7)).ask(requests(2000), "p")
        assert len(answers) == 2000
        assert teacher.asked - before == 2000 - spent.replies


def test_cached_answers_cost_nothing(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    with Ledger(tmp_path / "l.sqlite") as ledger:
        Asker(teacher, ledger).ask(requests(50), "p")
        assert len(Asker(teacher, ledger, budget=Budget(tokens=1)).ask(requests(50), "p")) == 50


def test_time_stops(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asker = Asker(FakeTeacher(FakeOptions(delay_s=0.01)), ledger, budget=Budget(seconds=0.3))
        with pytest.raises(BudgetReached):
            asker.ask(requests(2000), "p")
        assert ledger.totals().replies > 0


def test_prices() -> None:
    local = price_of({"backend": "vllm", "model": "x"})
    assert local == Price(0.0, 0.0)
    api = price_of({"backend": "openai", "model": "gpt-4o-mini", "endpoint": "https://api.openai.com/v1"})
    assert api is not None
    assert 0 < api.prompt < api.completion < 10
    assert price_of({"backend": "openai", "model": "my-own", "endpoint": "https://models.example/v1"}) is None
    # The price of prompts of ordinary length, not the higher one of prompts beyond 200,000 tokens.
    tiered = price_of({"backend": "openai", "model": "claude-sonnet-4-5", "endpoint": "https://api.anthropic.com/v1"})
    assert tiered == Price(3.0, 15.0)


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [("http://localhost:8000/v1", True), ("http://127.0.0.1:8000/v1", True), ("http://[::1]:8000/v1", True),
     ("http://10.1.2.3/v1", True), ("http://192.168.0.7:8000/v1,http://gpu-box:8000/v1", True),
     ("http://box.local/v1", True), ("http://169.254.3.4/v1", True), ("http://8.8.8.8/v1", False),
     ("https://api.openai.com/v1", False), ("http://localhost:8000/v1,https://api.openai.com/v1", False),
     ("http://localhost.evil.example/v1", False)],
)  # fmt: skip
def test_a_server_of_ones_own_costs_nothing_whatever_its_model_is_called(endpoint: str, own: bool) -> None:
    price = price_of({"backend": "openai", "model": "gpt-4o-mini", "endpoint": endpoint})
    assert (price == Price()) == own


def test_a_price_that_the_user_states_goes_before_all(tmp_path: Path) -> None:
    place = "openai:http://127.0.0.1:9/v1#gpt-4o-mini"
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for given, wanted in (({}, Price()), ({"usd_read": 2.0, "usd_written": 3.0}, Price(2.0, 3.0)),
                              ({"usd_written": 3.0}, Price(0.0, 3.0))):  # fmt: skip
            teacher = open_teacher(place, **given)
            assert Asker(teacher, ledger).price == wanted
            teacher.close()
    with pytest.raises(OptionError, match="usd_read must not be below 0"):
        open_teacher(place, usd_read=-1)


def test_what_an_earlier_teacher_spent_is_priced_by_its_name() -> None:
    spent = {"openai:https://api.openai.com/v1#gpt-4o": (1_000_000, 0), "openai:http://localhost:1/v1#gpt-4o": (9, 9)}
    assert Meter(Budget(usd=9.0), spent).usd == pytest.approx(2.5)


def test_what_a_run_spent_is_each_teachers_tokens_at_its_own_price() -> None:
    spent = {"transformers:m": (5_000_000, 5_000_000), "openai:https://proxy.example/v1#judge": (1_000_000, 100_000)}
    judged = {"openai:https://proxy.example/v1#judge": Price(2.0, 10.0)}
    assert spent_usd(spent, judged) == pytest.approx(3.0)
    assert spent_usd(spent, {}) is None, "nobody knows what the judge costs"
    assert spent_usd({**spent, "openai:https://api.openai.com/v1#gpt-4o": (1_000_000, 0)}, judged) == pytest.approx(5.5)


def test_money_is_counted() -> None:
    meter = Meter(Budget(usd=0.01))
    meter.join("a", Price(prompt=1.0, completion=10.0))
    request = Request((Message("user", "hi"),), max_tokens=400)
    sent = 0
    while meter.admit(request, "a") == "send":
        meter.settle(request, "a", 10, 100)
        sent += 1
    assert 5 <= sent <= 9
    assert meter.usd <= 0.01
    assert "USD" in str(meter.reached())


def test_a_cap_that_no_request_fits_is_told_with_what_one_may_take() -> None:
    """A budget "met" with nothing spent said nothing of why."""
    request = Request((Message("user", "hi"),), max_tokens=400)
    small = Meter(Budget(tokens=300))
    small.join("a", Price())
    assert small.admit(request, "a") == "stop"
    assert "0 tokens, 0.0 min, and the next request may take up to 445 tokens; every reply" in str(small.reached())
    dear = Meter(Budget(usd=0.001, seconds=60))
    dear.join("a", Price(prompt=1.0, completion=10.0))
    assert dear.admit(request, "a") == "stop"
    assert "and the next request may take up to 0.0040 USD; every reply" in str(dear.reached())
    late = Meter(Budget(tokens=10_000, seconds=1e-9))
    late.join("a", Price())
    assert late.admit(request, "a") == "stop"
    assert "next request" not in str(late.reached())


def test_money_without_a_price_is_refused() -> None:
    with pytest.raises(OptionError, match="cap tokens or time instead"):
        Meter(Budget(usd=1.0)).join("a", None)


def test_each_teacher_spends_at_its_own_price_from_one_purse() -> None:
    # 3,000 tokens of one's own engine cost nothing, whoever comes after it.
    meter = Meter(Budget(usd=0.01), {"fake:x": (2_000, 1_000), "openai:gpt-4o": (1_000, 100)})
    meter.join("fake:x", Price())
    before = meter.usd
    assert before == pytest.approx(0.0035)
    meter.join("openai:gpt-4o", Price(2.5, 10.0))
    assert meter.usd == before
    request = Request((Message("user", "hi"),), max_tokens=400)
    assert meter.admit(request, "openai:gpt-4o") == "send"
    assert meter.admit(request, "fake:x") == "send"
    assert meter.admit(request, "openai:gpt-4o") == "wait"
    meter.settle(request, "openai:gpt-4o", 10, 400)
    meter.settle(request, "fake:x", 10, 400)
    assert meter.usd == pytest.approx(before + 0.004025)
    assert meter.admit(request, "openai:gpt-4o") == "stop"
    assert meter.admit(request, "fake:x") == "send"
    assert meter.tokens == 4_920


def test_two_teachers_of_one_run_stop_at_one_cap(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        first = Asker(FakeTeacher(), ledger, budget=Budget(tokens=5_000))
        second = Asker(FakeTeacher(), ledger, meter=first.meter)
        requests = [Request((Message("user", f"say {i}"),), max_tokens=50) for i in range(400)]
        first.ask(requests[:20], "p")
        with pytest.raises(BudgetReached):
            second.ask(requests[20:], "q")
        with pytest.raises(BudgetReached):
            first.ask(requests[-20:], "p")
        spent = ledger.totals()
    assert 4_000 < spent.prompt_tokens + spent.completion_tokens <= 5_000


def test_a_stage_does_not_begin_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("potstill.asking.budget.time.monotonic", lambda: now[0])
    meter = Meter(Budget(seconds=5))
    assert in_time(lambda out: "made", meter)(tmp_path) == "made"
    assert in_time(lambda out: "made", None)(tmp_path) == "made"
    now[0] += 6
    with pytest.raises(BudgetReached, match="run again with a larger --budget"):
        in_time(lambda out: "made", meter)(tmp_path)
    assert in_time(lambda out: "made", Meter(Budget(tokens=1)))(tmp_path) == "made"


@pytest.mark.real
def test_a_runs_time_ends_before_a_stage_and_the_run_goes_on_later(tmp_path: Path) -> None:
    """Everything is in the ledger, so no request could have stopped the run."""
    import potstill
    from potstill.run_state import read_state

    settings = {"n": 20, "teacher": "fake", "sources": "generated", "distil": {"epochs": 1, "min_steps": 2},
                "evaluate": {"rows": 5, "latency_rows": 1}}  # fmt: skip
    task, seen = "Classify support tickets as billing, bug or other.", []

    def slow(event: Event) -> None:
        if event.stage == "merge" and event.kind == "start":
            time.sleep(6)  # the machine is busy
        seen.append((event.stage, event.kind))

    with pytest.raises(BudgetReached):
        potstill.run(task, out=tmp_path / "run", budget="6s", listener=slow, **settings)
    assert ("train", "done") not in seen
    states = {stage.name: stage.state for stage in read_state(tmp_path / "run").stages}
    assert states["train"] == "waiting"
    done = potstill.run(task, out=tmp_path / "run", budget="1h", **settings)
    assert done.scores["systems"]
