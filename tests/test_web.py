"""The viewer and the student's server: guards over real sockets, and a real browser that clicks."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from potstill.decisions import read_decisions
from potstill.errors import RunError, UserError
from potstill.pages.serving import Batcher, Full, student_app, student_folder
from potstill.pages.viewer import viewer_app
from potstill.pages.web import MAX_BODY, Answer, App, Server, host_headers, running
from potstill.rows import dataset_to_rows, read_rows
from potstill.train.student import Prediction, StudentCard


def _ask(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(host), int(port), timeout=20)
    blob = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if blob is not None else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, blob, given)
        reply = connection.getresponse()
        text = reply.read().decode()
        value = json.loads(text) if "json" in (reply.getheader("Content-Type") or "") else text
        return reply.status, value, {name.lower(): value for name, value in reply.getheaders()}
    finally:
        connection.close()


@pytest.fixture
def run(sample_run: Any, tmp_path: Path) -> Path:
    path: Path = sample_run.write_run(tmp_path / "run", hostile=True)
    return path


@pytest.fixture
def viewer(run: Path) -> Iterator[Server]:
    with running(Server(viewer_app(run))) as server:
        yield server


def test_the_viewer_leaves_nothing_behind_when_it_is_closed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the refused rows was left to the end of the process."""
    passing = tmp_path / "passing"
    passing.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(passing))
    with running(Server(viewer_app(run))) as server:
        assert _ask(server, "GET", "/rows?view=dropped")[1]["total"]
        assert list(passing.iterdir())
        with pytest.raises(RunError, match="cannot listen"):
            Server(server.app, port=int(server.server_address[1]))
        assert list(passing.iterdir()), "that another found the port taken ends nothing of the first"
    assert not list(passing.iterdir())


def test_the_viewer_pages_filters_and_tells_where_a_row_came_from(viewer: Server) -> None:
    status, page, headers = _ask(viewer, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "<script>alert(1)</script>" not in page, "the instruction is hostile too, and escaped"
    _, found, _ = _ask(viewer, "GET", "/rows?origin=user&limit=3&offset=2")
    assert found["total"] > 20
    assert [row["origin"] for row in found["rows"]] == ["user"] * 3
    _, facets, _ = _ask(viewer, "GET", "/facets?view=dropped")
    assert facets["facets"]["reason"]["near_duplicate"] == 9
    _, row, _ = _ask(viewer, "GET", f"/row?id={found['rows'][0]['id']}")
    assert row["provenance"]["place"]["dataset"] == "/home/someone/mine.csv"
    for path, problem in (
        ("/rows?limit=x", "whole number"), ("/rows?view=else", "view 'else'"), ("/row?id=zz", "no row has the id"),
        ("/row", "no row has the id"),
    ):  # fmt: skip
        status, value, _ = _ask(viewer, "GET", path)
        assert status == 400
        assert problem in value["error"]


def test_requests_of_other_sites_are_refused(viewer: Server) -> None:
    token = viewer.app.token
    for headers, expected in (
        ({"Host": "evil.example"}, 403), ({"Host": f"evil.example:{viewer.server_address[1]}"}, 403),
        ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({}, 200), ({"Origin": viewer.url.rstrip("/")}, 200),
    ):  # fmt: skip
        assert _ask(viewer, "GET", "/rows", **headers)[0] == expected, headers
    what = {"id": "0", "action": "accept"}
    assert _ask(viewer, "POST", "/decide", what)[0] == 403
    assert _ask(viewer, "POST", "/decide", what, X_Potstill_Token="wrong")[0] == 403
    assert _ask(viewer, "POST", "/decide", what, X_Potstill_Token=token, Origin="http://evil.example")[0] == 403
    assert _ask(viewer, "POST", "/decide", what, X_Potstill_Token=token, Content_Type="text/plain")[0] == 415
    assert _ask(viewer, "POST", "/decide", b"[1]", X_Potstill_Token=token)[0] == 400
    assert _ask(viewer, "POST", "/decide", b"{" * 5000, X_Potstill_Token=token)[0] == 400
    assert _ask(viewer, "POST", "/decide", b" " * (MAX_BODY + 1), X_Potstill_Token=token)[0] == 413
    assert _ask(viewer, "POST", "/rows", {}, X_Potstill_Token=token)[0] == 405
    assert _ask(viewer, "GET", "/../../etc/passwd")[0] == 404
    assert _ask(viewer, "GET", "/rows")[0] == 200, "it goes on"


def test_who_is_still_sending_a_body_too_long_hears_that_it_is(viewer: Server) -> None:
    host = viewer.url.removeprefix("http://").rstrip("/")
    head = (
        f"POST /decide HTTP/1.1\r\nHost: {host}\r\nX-Potstill-Token: {viewer.app.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {3 * MAX_BODY}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(viewer.server_address[1])), timeout=10) as client:
        client.sendall(head.encode() + b" " * MAX_BODY)
        time.sleep(0.3)
        for _ in range(2):
            client.sendall(b" " * MAX_BODY)
            time.sleep(0.1)
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in answer


def test_decisions_of_the_page_are_kept_in_the_run(viewer: Server, run: Path) -> None:
    def decide(**body: Any) -> tuple[int, Any]:
        return _ask(viewer, "POST", "/decide", body, X_Potstill_Token=viewer.app.token)[:2]

    first, second = _ask(viewer, "GET", "/rows?limit=2")[1]["rows"]
    refused = _ask(viewer, "GET", "/rows?view=dropped&reason=label_leak")[1]["rows"][0]
    assert decide(id=first["id"], action="correct", new_input="What a text", new_output="nope")[0] == 400
    assert decide(id=first["id"], action="correct", new_input="What a text", new_output="bug")[0] == 200
    assert decide(id=second["id"], action="reject")[0] == 200
    assert decide(id=refused["id"], action="accept")[0] == 200
    assert decide(id=[1], action="accept")[0] == 400
    kept = read_decisions(run)
    assert kept[first["input"], first["output"]].new_output == "bug"
    assert kept[second["input"], second["output"]].action == "reject"
    assert kept[refused["input"], refused["output"]].was_dropped
    assert _ask(viewer, "GET", "/rows?limit=1")[1]["rows"][0]["decision"]["action"] == "correct"
    assert decide(id=second["id"], action="undo") == (200, {"decision": None})
    assert len(read_decisions(run)) == 2


def test_a_client_that_sends_nothing_is_given_up(viewer: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.pages import web

    monkeypatch.setattr(web._Handler, "timeout", 0.5)
    with socket.create_connection(viewer.server_address[:2], timeout=10) as held:  # type: ignore[arg-type]
        lines = [
            "POST /decide HTTP/1.1", f"Host: 127.0.0.1:{viewer.server_address[1]}", "Content-Type: application/json",
            f"X-Potstill-Token: {viewer.app.token}", "Content-Length: 50", "", "",
        ]  # fmt: skip
        held.sendall("\r\n".join(lines).encode())
        started = time.monotonic()
        assert held.recv(100) == b""
        assert time.monotonic() - started < 8
    assert _ask(viewer, "GET", "/rows")[0] == 200


def test_too_many_requests_are_told_to_come_back() -> None:
    gate, inside = threading.Event(), threading.Semaphore(0)

    def slow(call: Any) -> Answer:
        inside.release()
        gate.wait(10)
        return Answer({"ok": True})

    with running(Server(App(get={"/slow": slow}, slots=2, queue=1))) as server:
        replies: list[int] = []
        threads = [threading.Thread(target=lambda: replies.append(_ask(server, "GET", "/slow")[0])) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert inside.acquire(timeout=5)
        assert inside.acquire(timeout=5)
        until = time.monotonic() + 5
        while server._room.acquire(blocking=False):  # until the third waits in the queue
            server._room.release()
            assert time.monotonic() < until
            time.sleep(0.01)
        status, value, headers = _ask(server, "GET", "/slow")
        assert (status, headers["retry-after"]) == (503, "1")
        assert "too many" in value["error"]
        gate.set()
        for thread in threads:
            thread.join(10)
        assert replies == [200] * 3


class _Slow:
    """A student that counts its batches."""

    def __init__(self, delay_s: float = 0.0, wrong: bool = False):
        self.card = StudentCard("moods", "classification", labels=("<b>good</b>", "bad"))
        self.batches: list[int] = []
        self.delay_s, self.wrong = delay_s, wrong

    def predict(self, texts: list[str], progress: Callable[[int], None] | None = None) -> list[Prediction]:
        time.sleep(self.delay_s)
        self.batches.append(len(texts))
        if self.wrong:
            raise ValueError("weights are gone")
        return [Prediction("bad", (0.25, 0.75)) for _ in texts]


@contextmanager
def _serving(student: Any, most_waiting: int = 1024) -> Iterator[Server]:
    batcher = Batcher(student, most_waiting=most_waiting)
    with running(Server(student_app(student, batcher))) as server:
        yield server
    batcher.close()


def test_the_student_answers_programs_in_batches() -> None:
    student = _Slow(0.05)
    with _serving(student) as server:
        assert _ask(server, "GET", "/healthz")[1]["labels"] == ["<b>good</b>", "bad"]
        replies: list[Any] = []
        threads = [
            threading.Thread(target=lambda: replies.append(_ask(server, "POST", "/predict", {"inputs": ["a", "b"]})))
            for _ in range(24)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert [status for status, _, _ in replies] == [200] * 24
    assert replies[0][1]["predictions"] == [{"output": "bad", "probs": {"<b>good</b>": 0.25, "bad": 0.75}}] * 2
    assert sum(student.batches) == 48
    assert len(student.batches) < 24, "texts that wait together are answered together"


@pytest.mark.parametrize(
    ("body", "problem"),
    [({}, "send"), ({"inputs": []}, "send"), ({"inputs": [1]}, "a text or a mapping"),
     ({"inputs": ["a"] * 257}, "too many"),
     ({"inputs": ["a" * 100_001]}, "characters")],
)  # fmt: skip
def test_bad_questions_to_the_student_are_told_what_is_wrong(body: Any, problem: str) -> None:
    with _serving(_Slow()) as server:
        status, value, _ = _ask(server, "POST", "/predict", body)
        assert status == 400
        assert problem in value["error"]
        assert _ask(server, "POST", "/predict", {"inputs": ["a"]}, Origin="http://evil.example")[0] == 403


class _Held(_Slow):
    """A student that answers once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = threading.Event(), threading.Event()

    def predict(self, texts: list[str], progress: Callable[[int], None] | None = None) -> list[Prediction]:
        self.asked.set()
        assert self.go.wait(20)
        return super().predict(texts)


def test_nobody_waits_for_a_thread_that_has_ended() -> None:
    batcher = Batcher(_Slow())  # type: ignore[arg-type]
    assert len(batcher.ask(["a"])) == 1
    batcher.close()
    with pytest.raises(Full):
        batcher.ask(["b"])


def test_a_flood_is_refused_and_a_fault_is_told() -> None:
    held = _Held()
    with _serving(held, most_waiting=20) as server:
        busy = threading.Thread(target=lambda: _ask(server, "POST", "/predict", {"inputs": ["a"] * 20}))
        busy.start()
        assert held.asked.wait(20)
        status, value, headers = _ask(server, "POST", "/predict", {"inputs": ["a"]})
        assert (status, headers["retry-after"]) == (503, "1")
        held.go.set()
        busy.join(20)
        assert _ask(server, "POST", "/predict", {"inputs": ["a"]})[0] == 200
    with _serving(_Slow(wrong=True)) as server:
        for _ in range(2):
            status, value, _ = _ask(server, "POST", "/predict", {"inputs": ["a"]})
            assert status == 500
            assert "weights are gone" in value["error"]


class _Picky(_Slow):
    """A student that falls over one text, as tokenizers do over half an emoji."""

    def predict(self, texts: list[str], progress: Callable[[int], None] | None = None) -> list[Prediction]:
        found = super().predict(texts)
        if "poison" in "".join(texts).encode("utf-8").decode():
            raise TypeError("TextEncodeInput must be a text")
        return found


def test_a_text_that_the_student_falls_over_fails_its_own_client_alone() -> None:
    student = _Picky(0.1)
    with _serving(student, most_waiting=16) as server:
        found: dict[str, list[int]] = {"fine": [], "poison": []}

        def post(text: str) -> None:
            found[text].append(_ask(server, "POST", "/predict", {"inputs": [text]})[0])

        threads = [threading.Thread(target=post, args=(text,)) for text in ["fine", "poison", "fine", "fine"] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert max(student.batches) > 1, "nothing was answered together"
        assert found == {"fine": [200] * 12, "poison": [500] * 4}
        assert _ask(server, "POST", "/predict", {"inputs": ["fine"] * 16})[0] == 200, "what was answered still waits"


def test_half_an_emoji_is_read_as_another_character() -> None:
    with _serving(_Picky()) as server:
        body = b'{"inputs": ["\\ud83d bad", "a\\u0000b"]}'
        status, value, _ = _ask(server, "POST", "/predict", body)
        assert (status, len(value.get("predictions", ()))) == (200, 2), value


def test_a_student_is_found_in_a_run_a_unit_or_a_folder(run: Path, tmp_path: Path) -> None:
    student = run / "train" / "student"
    assert student_folder(run) == student == student_folder(student)
    shutil.copytree(student, tmp_path / "unit" / "model")
    assert student_folder(tmp_path / "unit") == tmp_path / "unit" / "model"
    with pytest.raises(UserError, match="no student at"):
        student_folder(tmp_path)


def test_a_port_in_use_is_said(viewer: Server) -> None:
    with pytest.raises(RunError, match="choose another with --port"):
        Server(viewer.app, port=int(viewer.server_address[1]))


@pytest.mark.parametrize(("bound", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")])
def test_on_every_address_it_is_called_by_each_and_by_no_strangers_name(bound: str, reached: str) -> None:
    if ":" in bound and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with running(Server(App(get={"/": lambda call: Answer("here")}), host=bound)) as server:
        port = server.server_address[1]
        statuses = {}
        for host, origin in (
            (f"192.0.2.2:{port}", ""), (f"192.0.2.2:{port}", f"http://192.0.2.2:{port}"), ("[2001:db8::7]:8080", ""),
            ("192.0.2.2", ""), (f"{socket.gethostname().lower()}:{port}", ""), (f"localhost:{port}", ""),
            (f"192.0.2.2:{port}", "http://192.0.2.3"), (f"evil.example:{port}", ""), (f"192.0.2.2.evil:{port}", ""),
            ("[::1", ""), ("", ""), ("1:2:3", ""), ("http://192.0.2.2", ""), ("192.0.2.2@evil.example", ""),
        ):  # fmt: skip
            asked = http.client.HTTPConnection(reached, port, timeout=20)
            asked.request("GET", "/", headers={"Host": host, **({"Origin": origin} if origin else {})})
            statuses[host, origin] = asked.getresponse().status
            asked.close()
        assert list(statuses.values()) == [200] * 6 + [403] * 8, statuses
        assert server.url == f"http://{'[::]' if ':' in bound else bound}:{port}/"


def test_names_in_a_request_are_without_the_port_where_it_is_80() -> None:
    assert host_headers("127.0.0.1", 8765) == {"127.0.0.1:8765", "localhost:8765"}
    assert host_headers("localhost", 80) == {"127.0.0.1", "127.0.0.1:80", "localhost", "localhost:80"}
    assert host_headers("Box.lan", 80) == {"box.lan", "box.lan:80"}
    assert host_headers("::1", 8765) == {"[::1]:8765", "localhost:8765"}
    assert "127.0.0.1:8765" in host_headers("0.0.0.0", 8765)


@pytest.mark.real
def test_a_person_judges_rows_in_a_real_browser(viewer: Server, run: Path, tmp_path: Path, chromium: Any) -> None:
    faults: list[str] = []
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"a dialog opened: {dialog.message}"), dialog.dismiss()))
    page.goto(viewer.url)
    page.wait_for_selector("#rows tr")
    assert page.locator("#rows tr").count() == 50
    assert "of 150" in page.text_content("#count")
    page.select_option("#filter-origin", "generated")
    count = page.locator("#count")
    count.filter(has_text="of 74").wait_for()
    page.click("#on")
    count.filter(has_text="51–74").wait_for()
    page.click("#clear")
    count.filter(has_text="of 150").wait_for()
    page.fill("#search", "invoice")
    count.filter(has_not_text="of 150").wait_for()
    page.click("#rows tr:first-child")
    page.wait_for_selector("#do-reject")
    page.click("#do-reject")
    page.wait_for_selector("#rows tr:first-child .tag.reject")
    page.keyboard.press("j")
    page.wait_for_selector("#rows tr:nth-child(2).on")
    page.wait_for_selector("#do-correct")
    page.wait_for_timeout(200)
    page.click("#do-correct")
    page.fill("#new-input", "A better text <b>here</b>")
    page.select_option("#new-output", "bug")
    page.click("#save")
    page.wait_for_selector("#rows tr:nth-child(2) .tag.correct")
    page.click("#view-dropped")
    page.wait_for_selector("#filter-reason")
    page.screenshot(path=tmp_path / "viewer.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert faults == []
    kept = list(read_decisions(run).values())
    assert [d.action for d in kept] == ["reject", "correct"]
    assert (kept[1].new_input, kept[1].new_output) == ("A better text <b>here</b>", "bug")
    texts = {row.input for row in dataset_to_rows(read_rows(run / "merge" / "train.parquet"))}
    assert {d.input for d in kept} <= texts | {
        row.input for row in dataset_to_rows(read_rows(run / "merge" / "validation.parquet"))
    }


@pytest.mark.real
def test_a_person_filters_looks_and_takes_back_in_a_real_browser(
    sample_run: Any, tmp_path: Path, chromium: Any
) -> None:
    from potstill.asking.ledger import Ledger

    run = sample_run.write_run(tmp_path / "run")
    prompt, reply = "Write a <b>ticket</b> about bugs.", "<i>Raw</i> reply\n1. and more"
    with Ledger(run / "ledger.sqlite") as ledger:
        request = {"messages": [["system", "You write."], ["user", prompt]], "temperature": 0.7}
        ledger.record("key14", purpose="datagen", teacher="a teacher", request=request, reply={"text": reply},
                      finish="stop", max_tokens=9, prompt_tokens=3, completion_tokens=2).result()  # fmt: skip
    rows = list(dataset_to_rows(read_rows(run / "merge" / "train.parquet")))
    written = next(row for row in rows if row.source.requests == ("key14",))
    faults: list[str] = []
    with running(Server(viewer_app(run))) as viewer:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(viewer.url)
        count, detail = page.locator("#count"), page.locator("#detail")
        page.wait_for_selector("#filter-label")

        page.select_option("#filter-label", "bug")
        count.filter(has_text="of 50").wait_for()
        assert set(page.locator("#rows td:nth-child(2) div").all_text_contents()) == {"bug"}
        page.click("#clear")
        count.filter(has_text="of 150").wait_for()
        page.locator("#filter-label").filter(has_text="any label").wait_for()
        page.select_option("#filter-source", "acme/tickets")
        count.filter(has_text="of 38").wait_for()
        page.click("#rows tr:nth-child(2)")
        detail.filter(has_text="Found in").wait_for()
        assert page.locator("#detail h2").all_text_contents() == ["Input", "Output", "Found in", "Card"]
        shown = dict(
            zip(page.locator("#detail dt").all_text_contents(), page.locator("#detail dd").all_text_contents())
        )
        assert (shown["dataset"], shown["row"], shown["split"]) == ("acme/tickets", "4", "train"), "which row it was"
        assert (shown["title"].strip(), shown["score"], shown["licence"]) == ("Tickets", "0.71", "cc-by-4.0"), (
            "its card"
        )

        page.click("#clear")
        count.filter(has_text="of 150").wait_for()
        page.click(f'#rows tr[data-id="{written.id}"]')
        detail.filter(has_text="Asked of a teacher").wait_for()
        assert page.locator("#detail pre").all_text_contents() == [
            written.input, written.output, "You write.", prompt, reply
        ]  # fmt: skip
        assert page.locator("#detail pre b, #detail pre i").count() == 0, "texts are texts"
        assert "raw reply (stop, 2 tokens)" in str(detail.text_content())
        assert '"temperature":0.7' in str(detail.text_content())

        line = page.locator(f'#rows tr[data-id="{written.id}"]')
        assert page.is_disabled("#do-undo")
        page.click("#do-accept")
        line.locator(".tag.accept").wait_for()
        assert [d.action for d in read_decisions(run).values()] == ["accept"]
        page.click("#do-undo")
        line.locator(".tag").wait_for(state="detached")
        assert read_decisions(run) == {}
        page.keyboard.press("a")
        line.locator(".tag.accept").wait_for()
        page.keyboard.press("u")
        line.locator(".tag").wait_for(state="detached")
        assert read_decisions(run) == {}

        page.click("#view-dropped")
        page.wait_for_selector("#filter-reason")
        count.filter(has_text="of 10").wait_for()
        page.select_option("#filter-reason", "near_duplicate")
        count.filter(has_text="of 9").wait_for()
        page.select_option("#filter-origin", "generated")
        count.filter(has_text="of 9").wait_for()
        page.select_option("#filter-reason", "label_leak")
        count.filter(has_text="1–1 of 1").wait_for()
        page.click("#rows tr:first-child")
        detail.filter(has_text="label_leak").wait_for()
        page.click("#do-accept")
        page.wait_for_selector("#rows tr:first-child .tag.accept")
    assert faults == []
    (kept,) = read_decisions(run).values()
    assert (kept.action, kept.was_dropped, kept.input.strip()) == ("accept", True, "This is a bug")


@pytest.mark.real
def test_the_page_of_the_student_answers_in_a_real_browser(chromium: Any) -> None:
    faults: list[str] = []
    with _serving(_Slow()) as server:
        page = chromium.new_page(viewport={"width": 390, "height": 700})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.url)
        page.fill("#text", "So sad")
        page.click("#go")
        page.locator("#answer").filter(has_text="bad").wait_for()
        assert page.locator("#probs div").count() == 2
        assert page.text_content("#probs div:last-child span") == "<b>good</b>", "labels are text"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert faults == []


def test_a_student_of_several_fields_is_asked_by_their_names() -> None:
    student = _Slow()
    student.card = StudentCard("same", "classification", labels=("<b>good</b>", "bad"), inputs=("one", "two"))
    with _serving(student) as server:
        assert _ask(server, "GET", "/healthz")[1]["inputs"] == ["one", "two"]
        assert _ask(server, "POST", "/predict", {"inputs": [{"two": "b", "one": "a"}]})[0] == 200
        for wrong in ("a", {"one": "a"}, {"one": "a", "two": "b", "three": "c"}, 5):
            status, value, _ = _ask(server, "POST", "/predict", {"inputs": [wrong]})
            assert status == 400
            assert "fields" in value["error"]
