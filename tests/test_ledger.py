"""The ledger: what was confirmed is never lost, what was paid for is found again."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill.asking.group_writer import GroupWriter
from potstill.asking.ledger import Ledger, _unblob, request_key
from potstill.errors import DataError, LedgerError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Lone surrogates are what a teacher can send and UTF-8 cannot hold.
TEXT = st.text(st.characters(blacklist_categories=()), max_size=40)


def record(ledger: Ledger, key: str, text: str = "hello", **fields: Any) -> Any:
    values: dict[str, Any] = {
        "purpose": "p", "teacher": "t", "request": {"q": key}, "reply": {"text": text}, "finish": "stop",
        "max_tokens": 100, "prompt_tokens": 3, "completion_tokens": 5,
    }  # fmt: skip
    return ledger.record(key, **{**values, **fields})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT, request=st.dictionaries(TEXT, JSON, max_size=3))
def test_any_text_comes_back(tmp_path: Path, text: str, request: dict[str, Any]) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        key = request_key({"backend": "x"}, {"r": text})
        record(ledger, key, text, request=request).result()
        found = ledger.get(key)
        assert found is not None
        assert found.reply == {"text": text}
        assert found.request == request


@given(first=st.dictionaries(st.text(), JSON, max_size=4), second=st.dictionaries(st.text(), JSON, max_size=4))
def test_keys_agree_only_for_equal_requests(first: dict[str, Any], second: dict[str, Any]) -> None:
    same = repr(sorted(first.items())) == repr(sorted(second.items()))
    if same or request_key({}, first) == request_key({}, second):
        assert (request_key({}, first) == request_key({}, second)) == (first == second)
    assert request_key({}, first) == request_key({}, dict(reversed(first.items())))
    assert request_key({"a": "1"}, first) != request_key({"a": "2"}, first)


@pytest.mark.parametrize(
    ("finish", "stored", "used", "wanted", "found"),
    [
        ("stop", 100, 5, 100, True),
        ("stop", 100, 5, 5, True),
        ("stop", 100, 5, 4, False),  # longer than what is wanted now
        ("stop", 100, 5, 500, True),  # it ended by itself
        ("stop", 100, 400, 100, True),  # the server counts what the model thought, or keeps to no bound
        ("stop", 100, 400, 200, True),
        ("stop", 100, 400, 99, False),
        ("length", 100, 100, 100, True),
        ("length", 100, 100, 200, False),  # only truncated ones are asked again
        ("length", 100, 100, 50, False),
        ("refused", 100, 0, 500, True),
    ],
)
def test_max_tokens_decides_at_look_up(
    tmp_path: Path, finish: str, stored: int, used: int, wanted: int, found: bool
) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        record(ledger, "k", finish=finish, max_tokens=stored, completion_tokens=used).result()
        assert (ledger.find("k", wanted) is not None) == found


def test_a_truncated_reply_never_overwrites_a_whole_one(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        record(ledger, "k", "whole", max_tokens=256, completion_tokens=40).result()
        record(ledger, "k", "cut", max_tokens=8, completion_tokens=8, finish="length").result()
        whole, cut, best = ledger.find("k", 256), ledger.find("k", 8), ledger.get("k")
    assert whole is not None
    assert whole.reply["text"] == "whole"
    assert cut is not None
    assert cut.reply["text"] == "cut"
    assert best is not None
    assert best.reply["text"] == "whole"


def test_failures_are_counted_and_never_found(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.record_failure("k", purpose="p", teacher="t", reason="bad \ud800 bytes", attempts=8).result(5)
        assert ledger.find("k", 10) is None
        assert ledger.totals().failures == 1


def test_one_bad_entry_does_not_take_the_others_along(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        futures = [record(ledger, f"k{i}", max_tokens=2**70 if i == 50 else 10) for i in range(100)]
        wait(futures, timeout=10)
        assert isinstance(futures[50].exception(0), DataError)
        assert all(future.exception(0) is None for i, future in enumerate(futures) if i != 50)
        record(ledger, "after").result(5)
        assert ledger.totals().replies == 100


def test_a_full_disk_is_no_fault_of_the_data(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        record(ledger, "k").result(5)
        full = sqlite3.connect(tmp_path / "l.sqlite")
        full.execute("CREATE TABLE room (b)")
        full.execute("PRAGMA max_page_count=1")  # SQLite keeps the pages that there are, and takes no more
        assert ledger._writer is not None
        problem = ledger._writer.commit(full, [("INSERT INTO room VALUES (zeroblob(1000000))", ())])
        assert isinstance(problem, LedgerError)
        assert not isinstance(problem, DataError)
        assert "cannot be written" in str(problem)
        full.close()
    with pytest.raises(LedgerError, match="closed"):
        record(ledger, "later")


@pytest.mark.parametrize("when", ["connecting", "committing"])
def test_nobody_waits_for_a_writer_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    connect = Ledger._connect

    def broken(*_: Any) -> Any:
        raise sqlite3.OperationalError("unable to open database file")

    def connected(ledger: Ledger) -> Any:
        return broken() if threading.current_thread().name == "ledger" else connect(ledger)

    if when == "connecting":
        monkeypatch.setattr(Ledger, "_connect", connected)
    else:
        monkeypatch.setattr(GroupWriter, "commit", broken)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        for key in ("first", "later"):
            problem = record(ledger, key).exception(10)
            assert isinstance(problem, LedgerError)
            assert "is written no more (unable to open database file); see that" in str(problem)


def test_commits_are_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives during a commit goes into the next one: so many replies take far fewer commits."""
    groups: list[int] = []
    commit = GroupWriter.commit

    def counted(writer: GroupWriter, connection: Any, group: list[Any]) -> Any:
        groups.append(len(group))
        return commit(writer, connection, group)

    monkeypatch.setattr(GroupWriter, "commit", counted)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        wait([record(ledger, f"k{i}") for i in range(5000)])
        assert sum(groups) == 5000
        assert len(groups) < 2500, "on a disk that waits for nothing, too"
        groups.clear()
        for i in range(20):
            record(ledger, f"s{i}").result()
        assert groups == [1] * 20, "a reply that is waited for is not held back"


def test_many_threads(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:

        def work(name: int) -> None:
            for i in range(100):
                record(ledger, f"{name}-{i}", f"{name}-{i}").result()
                found = ledger.find(f"{name}-{i}", 100)
                assert found is not None
                assert found.reply["text"] == f"{name}-{i}"

        threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.totals().replies == 600
        assert ledger.totals().completion_tokens == 3000
        assert len({entry.key for entry in ledger.entries("p")}) == 600


_WRITER = """
import sys
from potstill.asking.ledger import Ledger
ledger = Ledger(sys.argv[1])
start = int(sys.argv[2])
pending = []
for i in range(start, start + 100000):
    future = ledger.record(f"k{i}", purpose="p", teacher="t", request={"i": i}, reply={"text": "x" * (i % 500)},
                           finish="stop", max_tokens=10, prompt_tokens=1, completion_tokens=1)
    pending.append((i, future))
    while pending and (len(pending) > 20 or pending[0][1].done()):
        number, first = pending.pop(0)
        first.result()
        print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    confirmed: set[int] = set()
    for round_ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(round_ * 100_000)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for count, line in enumerate(process.stdout):
            confirmed.add(int(line))
            if count == 200 + 137 * round_:
                process.kill()
                break
        confirmed.update(int(line) for line in process.stdout.read().split("\n")[:-1] if line)
        process.wait()
        process.stdout.close()
    assert len(confirmed) > 1500
    with Ledger(path) as ledger:
        for number in confirmed:
            found = ledger.find(f"k{number}", 10)
            assert found is not None, f"reply {number} was confirmed and is lost"
            assert found.reply["text"] == "x" * (number % 500)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_files_that_are_no_ledger(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.sqlite"
    wrong.write_bytes(b"this is no database, not by a long way" * 100)
    with pytest.raises(DataError, match="move it away"):
        Ledger(wrong)
    with pytest.raises(DataError, match="cannot be opened"):
        Ledger(tmp_path / "absent.sqlite", read_only=True)
    newer = tmp_path / "newer.sqlite"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(DataError, match="version 99"):
        Ledger(newer)


def test_reading_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "odd name #1?.sqlite"
    with Ledger(path) as ledger:
        record(ledger, "k").result()
        with Ledger(path, read_only=True) as reader:
            assert reader.get("k") is not None
            with pytest.raises(LedgerError, match="reading only"):
                record(reader, "x")
    with pytest.raises(LedgerError, match="closed"):
        record(ledger, "x")


@pytest.mark.parametrize("size", [2**40, 2**62])
def test_a_stored_text_that_claims_exabytes_is_a_fault_of_its_row_and_takes_no_memory(size: int) -> None:
    # Magic number, a head that says: one segment, the size in eight bytes; then nothing.
    frame = bytes.fromhex("28b52ffd") + b"\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(ValueError, match="at most"):
        _unblob(frame)


def test_a_damaged_reply_is_asked_again_and_named_where_it_is_looked_for(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        record(ledger, "a").result()
        record(ledger, "b").result()
    with sqlite3.connect(tmp_path / "l.sqlite") as connection:
        connection.execute("UPDATE replies SET reply = ? WHERE key = 'a'", (b"\x28\xb5\x2f\xfdgarbage",))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.find("a", 64) is None
        assert ledger.find("b", 64) is not None
        with pytest.raises(DataError, match="verify"):
            ledger.get("a")
        record(ledger, "a", "anew").result()
        found = ledger.find("a", 64)
    assert found is not None
    assert found.reply["text"] == "anew"
