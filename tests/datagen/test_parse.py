"""Replies become texts; nothing that a teacher can send raises."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from potstill.datagen.parse import (
    MAX_REPLY_CHARS,
    clean_text,
    last_full_sentence,
    plain,
    read_fields,
    read_json,
    split_list,
    strings_in,
    within_quotes,
)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('"Rain stopped play at Lord\'s."', "Rain stopped play at Lord's."),
        ("Sure! Here is a news article:\n\nShares fell on Monday.", "Shares fell on Monday."),
        ("Text: Shares fell on Monday.", "Shares fell on Monday."),
        ("Here are two short messages: They came late.", "They came late."),
        ("This is a review of a lamp:\nIt broke.", "It broke."),
        ("This is what I call service: fast and friendly.", "This is what I call service: fast and friendly."),
        ("Here is the thing: I never got my refund.", "Here is the thing: I never got my refund."),
        ('Great! I have written the following: "It broke."', "It broke."),
        ("**Question:** Who wrote Emma?", "Who wrote Emma?"),
        ("1. Who wrote Emma?", "Who wrote Emma?"),
        ("```\nprint(1)\n```", "print(1)"),
        ("Shares fell.\n\nLabel: Business", "Shares fell."),
        ("Category: Business\nShares fell.", "Shares fell."),
        ("Shares fell.<|im_end|>", "Shares fell."),
        ('"Stop," she said, "now."', '"Stop," she said, "now."'),
        ("It's ten o'clock: time to go.", "It's ten o'clock: time to go."),
        ("The score: 3-1\nA late goal: a shame.", "The score: 3-1\nA late goal: a shame."),
        ("a\x00b\u200bc\ud800d", "abcd"),
        ("a\u200db", "ab"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d💻 and क्\u200dष", "👩\u200d💻 and क्\u200dष"),
        ("", ""),
    ],
)
def test_clean_text(raw: str, text: str) -> None:
    assert clean_text(raw) == text


RECORD = "Name: Nora\nMaterial: oak\nType: desk lamp"
FENCED = "```python\ndef f(x):\n    return x\n```\n\nThe function should also handle None."


@pytest.mark.parametrize(
    "text",
    [
        FENCED,
        "```\na\n```\n```\nb\n```",
        "- milk\n- eggs",
        "* milk\n* eggs\n\nand some bread",
        "1. Open the app.\n2. Tap Card.",
        "1) Open the app.\n\n2) Tap Card.",
        "- Hello, are you there?\n- Yes, what is it?",
        "3. Oktober 2024: Tag der Deutschen Einheit",
        "1. Mai",
        "2. Bundesliga: Köln gewinnt gegen Kiel",
        "19. Jahrhundert, Öl auf Leinwand",
    ],
)
def test_what_is_no_wrapping_stays(text: str) -> None:
    assert clean_text(text, "answers") == text
    assert clean_text(text, "") == text
    assert text.startswith("```") or clean_text(text) == text


@pytest.mark.parametrize(
    ("text", "of_an_input"),
    [
        (RECORD, RECORD),
        ("name: The Mill, food: Indian\nnote: family friendly", "name: The Mill, food: Indian\nnote: family friendly"),
        ("Topic: quarterly budget\nAnn opened the meeting.", "Topic: quarterly budget\nAnn opened the meeting."),
        ("Type: bug\nThe page does not load.", "Type: bug\nThe page does not load."),
        ("Question: Who wrote Emma?\nAnswer: Jane Austen", "Who wrote Emma?"),
        ("Shares fell on Monday.\n\nLabel: Business", "Shares fell on Monday."),
        ("It broke.\n\nExplanation: the text is negative.", "It broke."),
        ("Name: Nora\nPrice: 5\nAnswer: It is cheap.", "Name: Nora\nPrice: 5"),
        ("Question: Who wrote Emma?\nOptions: Austen, Eliot", "Question: Who wrote Emma?\nOptions: Austen, Eliot"),
        ("Text: It rained all day.", "It rained all day."),
        ("1. It rained all day.", "It rained all day."),
    ],
)
def test_lines_of_an_input_that_look_like_a_label_stay(text: str, of_an_input: str) -> None:
    assert clean_text(text, "answers") == of_an_input


@pytest.mark.parametrize(
    ("text", "of_json"),
    [
        (RECORD, RECORD),
        ("Topic: quarterly budget\nAnn opened the meeting.", "Topic: quarterly budget\nAnn opened the meeting."),
        ("Question: Who wrote Emma?\nAnswer: Jane Austen", "Question: Who wrote Emma?\nAnswer: Jane Austen"),
        ("Call me.\nNote: after five", "Call me.\nNote: after five"),
        ("Text: It rained all day.", "It rained all day."),
        ('"It rained all day."', "It rained all day."),
        ("1. It rained all day.", "It rained all day."),
        ("```\nprint(1)\n```", "print(1)"),
        ("a\n\n\n\nb  \nc", "a\n\nb\nc"),
    ],
)
def test_a_text_of_its_own_keeps_all_its_lines(text: str, of_json: str) -> None:
    assert clean_text(text, "") == of_json


def test_lines_that_name_a_label_are_no_part_of_a_text_for_it() -> None:
    assert clean_text("Category: Business\nShares fell.\nNote: it is about shares.") == "Shares fell."
    assert clean_text("Text: Shares fell.\nLabel: Business") == "Shares fell."
    assert clean_text("```\nprint(1)") == "print(1)", "a fence that was cut off"
    assert split_list("1. 3. Oktober 2024\n2. - milk", 9) == ["3. Oktober 2024", "milk"]
    assert read_fields("```\ntitle: A\ntext: B\n```\nI hope it helps.", ["title", "text"]) == {
        "title": "A",
        "text": "B",
    }


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ("title: A\ntext: B c", {"title": "A", "text": "B c"}),
        ("Title: A\n\nText: B\nmore", {"title": "A", "text": "B\nmore"}),
        ("title: A\nB without a name", {"title": "A", "text": "B without a name"}),
        ("A\nB", {"title": "A", "text": "B"}),
        ("**title:** A\n**text:** B", {"title": "A", "text": "B"}),
        ("title: A", None),
        ("title:\ntext: B", None),
        ("", None),
        ("title: A\ntext: B\n\nAnswer: C", {"title": "A", "text": "B"}),
        ("title: A\ntext: B.\nIt goes on: so.\n**Label:** C", {"title": "A", "text": "B.\nIt goes on: so."}),
        ("title: A\ntext: B\n\ntitle: C\ntext: D", {"title": "A", "text": "B"}),
        ("title: A\nAnswer: this\nor that\ntext: B", {"title": "A\nAnswer: this\nor that", "text": "B"}),
    ],
)
def test_read_fields(raw: str, fields: dict[str, str] | None) -> None:
    assert read_fields(raw, ["title", "text"]) == fields


def test_split_list() -> None:
    assert split_list("1. one\n2) two\n\n3. three", 9) == ["one", "two", "three"]
    assert split_list("- a b\n- c d", 1) == ["a b"]
    assert split_list("one\ntwo", 9) == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("One. Two. Thr", "One. Two."),
        ("No end", ""),
        ("It cost 3.5 dollars", ""),
        ('He said "go." And', 'He said "go."'),
    ],
)
def test_last_full_sentence(text: str, end: str) -> None:
    assert last_full_sentence(text) == end


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"texts": ["a"]}', {"texts": ["a"]}),
        ('Here: {"texts": ["a"]} bye', {"texts": ["a"]}),
        ('```json\n{"texts": ["a"]}\n```', {"texts": ["a"]}),
        ('{"texts": ["a", "b', {"texts": ["a", "b"]}),
        ("no json", None),
        ("[" * 5000, None),
        ("<html><body>502 Bad Gateway</body></html>", None),
    ],
)
def test_read_json(text: str, value: object) -> None:
    assert read_json(text) == value


def test_strings_in() -> None:
    assert strings_in({"texts": ["a", {"texts": "b"}, 3]}, "texts") == ["a", "b", ""]
    assert strings_in("x", "texts") == ["x"]
    assert strings_in(None, "texts") == []


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400))
@example("\x00!")
def test_no_text_raises(text: str) -> None:
    for made in (clean_text(text), plain(text), last_full_sentence(text), *split_list(text, 5)):
        made.encode("utf-8")
        assert "\x00" not in made
    read_fields(text, ["a", "b"])
    read_json(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_raise(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    clean_text(text).encode("utf-8")
    read_json("{" + text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 10_000_000,
        "\x00" * 10_000_000,
        "[" * 10_000_000,
        '{"texts": ' * 1_000_000,
        "<|im_start|>" * 800_000,
        "here is " * 1_250_000,
        "1. " * 3_000_000,
        "\n" * 10_000_000,
        '"' * 10_000_000,
        "label: " * 1_400_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_ten_megabytes_are_bounded(text: str) -> None:
    start = time.perf_counter()
    assert len(clean_text(text)) <= MAX_REPLY_CHARS
    split_list(text, 5)
    read_fields(text, ["a", "b"])
    read_json(text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('Emotion, Dog" - Emo, Dog', '"Emotion, Dog" - Emo, Dog'),
        ('Hello!" she said.', '"Hello!" she said.'),
        ('It is fine." She said, "Go home.', '"It is fine." She said, "Go home."'),
        ('Works well!" (positive)', "Works well!"),
        ('A 5" screen.', 'A 5" screen.'),
        ('She said "no" and left.', 'She said "no" and left.'),
        ('I love it."', 'I love it."'),
        ("no marks", "no marks"),
    ],
)
def test_a_text_within_an_opened_quotation_mark(text: str, whole: str) -> None:
    assert within_quotes(text) == whole


@given(st.text(st.sampled_from(list('"a B.!(5 \n')), max_size=30))
def test_nothing_but_marks_is_added_to_a_quoted_text(text: str) -> None:
    found = within_quotes(text)
    assert found.replace('"', "") in text.replace('"', "")
    assert found in text or found.count('"') % 2 == 0
