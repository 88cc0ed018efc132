"""The fake teacher: decided by the request alone, varied, obedient enough to exercise every stage."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from potstill.asking.teacher import Failure, Message, Reply, Request, ScoreRequest
from potstill.datagen.parse import read_fields
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.errors import OptionError


def ask(text: str, **fields: Any) -> Request:
    return Request((Message("user", text),), **fields)


def test_the_request_alone_decides(drain: Any) -> None:
    requests = [ask(f'Write about "{i % 5}"', sample=i) for i in range(300)]
    first = [reply for _, reply in drain(FakeTeacher(), requests)]
    second = [reply for _, reply in drain(FakeTeacher(FakeOptions(concurrency=7, shuffle=True)), requests)]
    assert first == second
    assert len({reply.text for reply in first}) > 290
    other = [reply for _, reply in drain(FakeTeacher(FakeOptions(seed=1)), requests)]
    assert first != other


def test_schemas_are_satisfied(drain: Any) -> None:
    schema = {
        "type": "object",
        "properties": {
            "texts": {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 3},
            "label": {"enum": ["a", "b"]},
            "n": {"type": "integer", "minimum": 2, "maximum": 4},
            "nested": {"$ref": "#/$defs/thing"},
        },
        "required": ["texts", "label", "n", "nested"],
        "$defs": {"thing": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}},
    }
    for _, reply in drain(FakeTeacher(), [ask(f"{i}", schema=schema) for i in range(50)]):
        jsonschema.validate(json.loads(reply.text), schema)


def test_texts_of_a_label_can_be_told_from_others_by_their_scores(drain: Any) -> None:
    labels = ("billing", "bug", "other")
    written = drain(FakeTeacher(), [ask(f"Write a ticket.\nLabel: {labels[i % 3]}", sample=i) for i in range(90)])
    scored = drain(
        FakeTeacher(), [ScoreRequest((Message("user", f"Which? {reply.text}"),), labels) for _, reply in written]
    )
    right = 0
    for i, (_, reply) in enumerate(scored):
        assert isinstance(reply, Reply)
        right += reply.scores.index(max(reply.scores)) == i % 3
    assert right > 60, f"{right} of 90 told apart; chance is 30"


def test_scores_do_not_depend_on_what_else_is_scored(drain: Any) -> None:
    message = (Message("user", "some text"),)
    [(_, both), (_, one)] = drain(FakeTeacher(), [ScoreRequest(message, ("a", "b")), ScoreRequest(message, ("b",))])
    assert both.scores[1] == one.scores[0]


def test_faults_come_at_their_rates(drain: Any) -> None:
    teacher = open_teacher("fake", failing=0.2, truncating=0.2, refusing=0.1)
    replies = [reply for _, reply in drain(teacher, [ask(f"{i}") for i in range(1000)])]
    assert 150 < sum(isinstance(reply, Failure) for reply in replies) < 250
    texts = [reply for reply in replies if isinstance(reply, Reply)]
    assert 50 < sum(reply.finish == "refused" for reply in texts) < 120
    assert 100 < sum(reply.finish == "length" for reply in texts) < 220


def test_max_tokens_stop_and_choices(drain: Any) -> None:
    [(_, cut), (_, stopped), (_, chosen)] = drain(
        FakeTeacher(), [ask("x", max_tokens=3), ask("x", stop=(" with",)), ask("x", choices=("yes", "no"))]
    )
    assert cut.finish == "length"
    assert len(cut.text.split()) == 3
    assert " with" not in stopped.text
    assert chosen.text in ("yes", "no")


def test_no_model_and_known_options() -> None:
    with pytest.raises(OptionError, match="takes no model"):
        open_teacher("fake:gpt")
    with pytest.raises(OptionError, match="did you mean 'failing'"):
        open_teacher("fake", failling=1)


@pytest.mark.parametrize("prefill", ["", "Here is one:\ntitle:"])
def test_a_text_of_several_fields_has_each_of_them(prefill: str) -> None:
    prompt = 'Write an article of the category "Sports".\n\nWrite it in this form:\ntitle: ...\nfirst lines: ...\n'
    reply = FakeTeacher().answer(Request(messages=(Message("user", prompt),), prefill=prefill))
    assert isinstance(reply, Reply)
    found = read_fields(prefill.rpartition("\n")[2] + reply.text, ("title", "first lines"))
    assert found is not None
    assert min(len(value.split()) for value in found.values()) > 4
