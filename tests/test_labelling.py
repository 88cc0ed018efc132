"""Answers are on disk before the next text, the next sitting goes on, and a run takes the file; sheets lose nothing."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from potstill.cli import label as cli_label
from potstill.cli.app import app
from potstill.errors import DataError, OptionError
from potstill.labelling import Labelling
from potstill.retrieval.load import read_data
from potstill.task import DataRef
from potstill.task.file import read_task_file

PROMPT = "Classify messages as billing, bug or other."
TEXTS = [f"message {number} about {word}" for number in range(20) for word in ("money", "errors", "greetings")]


class Letters:
    """Counts of letters, of unit length: an encoder that needs no model."""

    def encode(self, texts: list[str]) -> np.ndarray:
        found = np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz0123456789"] for text in texts])
        return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def work(folder: Path, texts: list[str] | None = None, prompt: str = PROMPT) -> Labelling:
    return Labelling(prompt, TEXTS if texts is None else texts, out=folder / "a.jsonl", encoder=Letters())


def label_of(text: str) -> str:
    return {"money": "billing", "errors": "bug", "greetings": "other"}[text.split()[-1]]


def test_an_answer_is_on_disk_and_the_next_sitting_goes_on(tmp_path: Path) -> None:
    first = work(tmp_path)
    (text, *_) = first.next_batch()
    first.answer(text, " BILLING")
    assert [json.loads(line) for line in first.out.read_text().splitlines()] == [{"text": text, "label": "billing"}]
    second = work(tmp_path)
    assert second.answers == {text: "billing"}
    assert text not in second.next_batch(len(TEXTS))
    assert second.told() == "1 label (billing 1; 2 of 3 labels have none yet)"


def test_the_last_answer_can_be_taken_back_and_any_can_be_changed(tmp_path: Path) -> None:
    one = work(tmp_path)
    a, b = one.next_batch(2)
    one.answer(a, "bug")
    one.answer(b, "other")
    one.answer(a, "billing")
    assert work(tmp_path).answers == {a: "billing", b: "other"}
    assert one.undo() == a, "it was answered last"
    assert one.undo() == b
    assert one.undo() is None
    assert work(tmp_path).answers == {}


def test_what_was_passed_over_is_not_asked_again(tmp_path: Path) -> None:
    one = work(tmp_path)
    for text in one.next_batch(3):
        one.pass_over(text)
        assert text not in one.next_batch(len(TEXTS))
    assert one.next_batch(0) == []


@pytest.mark.parametrize("end", ["\n", "", '\n{"text": "torn', '\n{"text": "K\u00e4'])
def test_a_file_that_ends_early_is_gone_on_with(tmp_path: Path, end: str) -> None:
    torn = -1 if end.endswith("\u00e4") else None  # within a letter
    (tmp_path / "a.jsonl").write_bytes((json.dumps({"text": TEXTS[0], "label": "bug"}) + end).encode()[:torn])
    one = work(tmp_path)
    one.answer(TEXTS[1], "other")
    assert work(tmp_path).answers == {TEXTS[0]: "bug", TEXTS[1]: "other"}


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"text": "a", "label": "refund"}\n', "line 1: 'refund' is no label of this task, whose labels are billing"),
     ('{"input": "a"}\n', "line 1 is no answer of text and label"), ("no json\n\n", "line 1 is no answer"),
     ("a file of something else", "line 1 is no answer"),
     ('{"text": "a", "label": ["bug"]}\n', "line 1 is no answer")],
)  # fmt: skip
def test_answers_of_something_else_are_refused_and_stay(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        work(tmp_path)
    assert (tmp_path / "a.jsonl").read_text() == content


def test_what_cannot_be_labelled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'refund' is no label of the task; its labels are billing, bug, other"):
        work(tmp_path).answer(TEXTS[0], "refund")
    with pytest.raises(OptionError, match="is not among the texts"):
        work(tmp_path).answer("another", "bug")
    with pytest.raises(OptionError, match="a task of kind generation has no labels to give"):
        work(tmp_path, prompt="Write a title for a news article.")
    with pytest.raises(OptionError, match="no texts were given"):
        Labelling(PROMPT, out=tmp_path / "a.jsonl", encoder=Letters())
    with pytest.raises(OptionError, match="batch 0 is no number of texts"):
        Labelling(PROMPT, TEXTS, out=tmp_path / "a.jsonl", encoder=Letters(), batch=0)
    with pytest.raises(DataError, match="no text is left to label"):
        work(tmp_path, texts=["", "  "])


def test_texts_of_the_test_rows_are_never_asked(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label_of(text)} for text in TEXTS[:30]]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.md").write_text(f"---\ntest: test.jsonl\n---\n{PROMPT}\n")
    one = work(tmp_path, prompt=str(tmp_path / "t.md"))
    assert set(one.next_batch(100)) == set(TEXTS[30:])


def test_the_file_is_what_a_task_takes_as_labelled_also_where_inputs_are_several(tmp_path: Path) -> None:
    pairs = [{"question": f"what is {n}", "passage": f"it is {n}, said the {n}th"} for n in range(12)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "t.md").write_text(
        "---\ninputs: [question, passage]\nunlabelled: pairs.jsonl\nlabels: ['yes', 'no']\n---\n"
        "Say whether the answer to the question is yes or no, by the passage.\n"
    )
    one = Labelling(str(tmp_path / "t.md"), encoder=Letters())
    assert one.out == tmp_path / "t.labelled.jsonl"
    for text in one.next_batch(4):
        one.answer(text, "yes")
    rows = read_data(DataRef(str(one.out)), read_task_file(tmp_path / "t.md").spec)
    assert rows["input"][:] == list(one.answers)
    assert set(rows["output"][:]) == {"yes"}
    assert "question: what is" in rows["input"][0]


def test_labelled_rows_of_another_file_are_known_and_stay_there(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label_of(text)} for text in TEXTS[:30]]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.md").write_text(f"---\nlabelled: old.jsonl\n---\n{PROMPT}\n")
    one = work(tmp_path, prompt=str(tmp_path / "t.md"))
    assert set(one.next_batch(100)) == set(TEXTS[30:])
    assert one.guesses(TEXTS[30])[0][0] == label_of(TEXTS[30])
    assert one.answers == {}
    one.answer(TEXTS[30], "bug")
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1


def fill(sheet: Path, fills: int, comma: str = ",", wrong: str = "") -> None:
    """Give the first rows of a sheet their labels, as a spreadsheet would save it."""
    rows = list(csv.DictReader(sheet.read_text("utf-8-sig").splitlines()))
    for row in rows[:fills]:
        row["label"] = wrong or label_of(row["text"])
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["label", "id", "text"], delimiter=comma, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("comma", [",", ";"])
def test_a_sheet_goes_to_and_fro(tmp_path: Path, comma: str) -> None:
    sheet = tmp_path / "s.csv"
    assert vars(work(tmp_path).exchange(sheet, 30)) == {"taken": 0, "written": 25}
    fill(sheet, 20, comma)
    assert vars(work(tmp_path).exchange(sheet, 30)) == {"taken": 20, "written": 10}
    answers = work(tmp_path).answers
    assert len(answers) == 20
    assert all(label == label_of(text) for text, label in answers.items())
    fill(sheet, 10)
    assert vars(work(tmp_path).exchange(sheet, 30)) == {"taken": 10, "written": 0}
    assert len(work(tmp_path).answers) == 30


def test_blanks_in_the_first_line_of_a_sheet_lose_no_answer(tmp_path: Path) -> None:
    sheet = tmp_path / "s.csv"
    work(tmp_path).exchange(sheet)
    fill(sheet, 5)
    sheet.write_text(sheet.read_text("utf-8-sig").replace("id,label,text", 'id, "label" , text', 1), "utf-8")
    assert work(tmp_path).exchange(sheet).taken == 5


def test_a_text_that_no_cell_holds_is_shortened_in_the_sheet_and_answered_whole(tmp_path: Path) -> None:
    long = "my invoice is wrong " * 10_000
    sheet = tmp_path / "s.csv"
    one = work(tmp_path, [*TEXTS, long])
    one.batch = len(TEXTS) + 1
    one.exchange(sheet)
    rows = list(csv.DictReader(sheet.read_text("utf-8-sig").splitlines()))
    assert max(len(row["text"]) for row in rows) < 32_767
    for row in rows:
        row["label"] = "bug"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "label", "text"])
        writer.writeheader()
        writer.writerows(rows)
    again = work(tmp_path, [*TEXTS, long])
    again.exchange(sheet)
    assert again.answers[long.strip()] == "bug"


def test_a_sheet_with_faults_is_not_taken_and_stays(tmp_path: Path) -> None:
    sheet = tmp_path / "s.csv"
    work(tmp_path).exchange(sheet)
    fill(sheet, 3, wrong="refund")
    before = sheet.read_bytes()
    with pytest.raises(DataError, match="row 2: 'refund' is no label; the labels are billing, bug, other"):
        work(tmp_path).exchange(sheet)
    assert sheet.read_bytes() == before
    assert work(tmp_path).answers == {}
    sheet.write_bytes(b"id,label,text\n\xff\xfe,bug,a\n")
    with pytest.raises(DataError, match="cannot be read"):
        work(tmp_path).exchange(sheet)
    sheet.write_text("id,label,text\n0123,bug,a\n")
    with pytest.raises(DataError, match="row 2: '0123' is no id of a text of this task"):
        work(tmp_path).exchange(sheet)
    sheet.write_text("name,amount\nAnn,3\n")
    with pytest.raises(DataError, match="names no columns id and label; give another file"):
        work(tmp_path).exchange(sheet)
    assert sheet.read_text() == "name,amount\nAnn,3\n"


def test_a_text_that_begins_like_a_formula_is_none_in_a_sheet(tmp_path: Path) -> None:
    sheet, text = tmp_path / "s.csv", '=HYPERLINK("http://127.0.0.1", "money")'
    work(tmp_path, texts=[text]).exchange(sheet)
    (row,) = csv.DictReader(sheet.read_text("utf-8-sig").splitlines())
    assert row["text"] == f"'{text}"
    sheet.write_text(f"id,label\n{row['id']},bug\n")
    one = work(tmp_path, texts=[text])
    one.exchange(sheet)
    assert one.answers == {text: "bug"}


def test_a_sheet_whose_ids_a_spreadsheet_took_for_numbers_is_found_by_its_texts(tmp_path: Path) -> None:
    """Ids of an earlier version were 12 hexadecimal digits, a few of them a number to a spreadsheet."""
    sheet, text = tmp_path / "s.csv", "=1+1 is what the invoice says"
    texts = [*TEXTS, text, "twice the same", "twice  the same"]
    one = work(tmp_path, texts=texts)
    one.batch = len(texts)
    one.exchange(sheet)
    rows = list(csv.DictReader(sheet.read_text("utf-8-sig").splitlines()))
    assert all(row["id"].startswith("t") and len(row["id"]) == 12 for row in rows), "no number, whatever follows"
    earlier = hashlib.sha256(TEXTS[0].encode()).hexdigest()[:12]
    lines = [f"{earlier},bug,changed", f"5.01155E+11,billing,{TEXTS[1]}", f"6942964533,other,'{text}"]
    sheet.write_text("\n".join(["id,label,text", *lines, ""]))
    again = work(tmp_path, texts=texts)
    assert again.exchange(sheet).taken == 3
    assert again.answers == {TEXTS[0]: "bug", TEXTS[1]: "billing", text: "other"}
    for row in ("12,bug,twice the same", "12,bug,", "12,bug"):
        sheet.write_text(f"id,label,text\n{row}\n")
        with pytest.raises(DataError, match="row 2: '12' is no id of a text of this task"):
            work(tmp_path, texts=texts).exchange(sheet)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Calls `potstill label` on the texts; gives what it said."""
    monkeypatch.setattr("potstill.labelling.sentence_encoder", lambda name: Letters())
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))

    def call(*more: str, input: str = "") -> tuple[str, str]:
        place = ["label", PROMPT, str(tmp_path / "texts.txt"), "-o", str(tmp_path / "a.jsonl")]
        done = CliRunner().invoke(app, [*place, *more], input=input)
        if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout, done.stderr

    return call


def test_the_terminal_takes_numbers_names_and_beginnings(command, tmp_path: Path) -> None:
    said, asked = command("-n", "4", input="1\nbug\nOT\n:u\nb\nother\n\n:l\n2\n")
    assert [json.loads(line)["label"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [
        "billing", "bug", "other", "bug",
    ]  # fmt: skip
    assert "4 labels (billing 1, bug 2, other 1)" in said
    assert f"labelled: {tmp_path / 'a.jsonl'}" in said
    assert "'b' may be billing, bug; :l lists all" in asked
    assert "1 billing  2 bug  3 other" in asked


@pytest.mark.parametrize("end", [":q\n", ""])
def test_the_terminal_can_be_left_at_any_moment(command, tmp_path: Path, end: str) -> None:
    command(input="1\n2\n" + end)
    said, asked = command(input="3\n" + end)
    assert said.startswith("3 labels (billing 1, bug 1, other 1)")
    assert "\n3/100  message" in asked


def test_tools_of_ones_own_get_the_batch_as_json(command) -> None:
    said, _ = command("--json", "-n", "5")
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["kind"] for line in lines] == ["text"] * 5
    assert set(lines[0]["guesses"]) == {"billing", "bug", "other"}
    assert sum(lines[0]["guesses"].values()) == pytest.approx(1, abs=1e-3)


def test_of_many_labels_the_likeliest_are_shown_in_the_order_of_the_task(tmp_path: Path) -> None:
    names = [f"kind {letter}" for letter in "abcdefghijklmnopqrst"]
    one = work(tmp_path, prompt=f"Classify messages as {', '.join(names[:-1])} or {names[-1]}.")
    assert one.batch == 25
    shown = cli_label._choices(one, TEXTS[0])
    numbers = [int(part.strip().split()[0]) for part in shown.split("  ") if part.strip() and part.strip()[0].isdigit()]
    assert len(numbers) == 12
    assert numbers == sorted(numbers)
    assert "8 more" in shown


def test_control_signs_of_a_text_do_not_reach_the_terminal(command, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\x1b[31mred\x1b[0m text")
    _, asked = command(input="1\n")
    assert "\x1b[31m" not in asked
    assert "red" in asked


@pytest.mark.parametrize(
    ("matter", "told"), [("unlabelled: texts.txt", True), ("labels: [billing, bug, other]", False)]
)
def test_a_run_with_texts_and_no_labels_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matter: str, told: bool
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    task = tmp_path / "my task.md"
    task.write_text(f"---\n{matter}\n---\n{PROMPT}\n")
    scores = {"systems": [{"name": "student", "accuracy": 1.0}], "test_set": {"kind": "real", "rows": 1}}
    done = SimpleNamespace(path=tmp_path, report="r.html", scores=scores, spec=read_task_file(task).spec)
    monkeypatch.setattr("potstill.pipeline.run", lambda *_, **__: done)
    said = CliRunner().invoke(app, ["run", str(task)]).stdout
    assert (f"better   potstill label '{task}': answers to a hundred" in said) == told
    assert "publish  potstill push" in said


def test_texts_that_are_not_utf_8_are_not_shown_to_people(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes("Die Rechnung ist falsch\nDas Men\u00fc fehlt\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"1 of 2 texts in .* are not UTF-8; save it as UTF-8"):
        Labelling(PROMPT, str(tmp_path / "texts.txt"), out=tmp_path / "a.jsonl")
