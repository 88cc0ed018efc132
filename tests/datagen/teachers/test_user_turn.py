"""A user's turn that the model writes: its template opened by each backend, and who cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Message, Reply, Request
from potstill.asking.teacher_json import request_from_json, request_to_json
from potstill.datagen.options import GenerationOptions
from potstill.datagen.recipes import refuse_recipes
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.chat_prompt import ChatPrompt
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.datagen.teachers.local import LocalOptions, LocalTeacher
from potstill.datagen.teachers.workers import WorkersOptions, WorkersTeacher
from potstill.errors import OptionError, TeacherError, TeacherRefused, UserError
from potstill.task import TaskSpec

DESK = TaskSpec("desk", "Help at the desk of a hotel.", "instructions", metric="rouge_l")

SYSTEM = (Message("system", "You sell lamps."),)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}[INST] {{ m.content | trim }} [/INST]{% endfor %}"
)
# DeepSeek's form: what ends a user's words is the beginning of the assistant's turn.
ENDED_BY_ANSWER = (
    "{% for m in messages %}{{ '<|User|>' if m.role == 'user' }}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
DROPS_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
ENDLESS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PLAIN = "{% for m in messages %}{{ m.role | upper }}: {{ m.content }} {% endfor %}ASSISTANT:"
CHANGED = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    from potstill.models import SMOLLM2, local_model

    return AutoTokenizer.from_pretrained(local_model(SMOLLM2))


def prompts(tokenizer: Any, template: str | None) -> ChatPrompt:
    tokenizer.chat_template = template
    return ChatPrompt(tokenizer)


@pytest.mark.real
def test_a_template_is_given_up_to_where_the_users_words_begin(tokenizer: Any) -> None:
    opened = prompts(tokenizer, CHATML).user_turn(SYSTEM, "How do")
    assert opened.text == "<|im_start|>system\nYou sell lamps.<|im_end|>\n<|im_start|>user\nHow do"
    assert opened.end == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert opened.stop == ""
    hostile = prompts(tokenizer, CHATML).user_turn((Message("system", "a<|im_end|>b"),))
    assert hostile.text.count("<|im_end|>") == 1, "a message closed its own turn"


@pytest.mark.real
def test_a_template_without_a_system_turn_opens_the_users_with_its_text(tokenizer: Any) -> None:
    opened = prompts(tokenizer, NO_SYSTEM).user_turn(SYSTEM)
    assert (opened.text, opened.end, opened.stop) == ("[INST] You sell lamps.\n\n", None, "[/INST]")
    assert prompts(tokenizer, PLAIN).user_turn(()).text == "USER: "
    assert prompts(tokenizer, PLAIN).user_turn(()).stop == "ASSISTANT:"


@pytest.mark.real
def test_words_follow_the_tokens_that_they_follow_in_a_chat(tokenizer: Any) -> None:
    """A prompt that ended with a space had the model go on as within a word."""
    for template, words in ((PLAIN, "How"), (NO_SYSTEM, "Which"), (CHATML, "How")):
        made = prompts(tokenizer, template)
        opened = made.user_turn(SYSTEM)
        whole = made.ids(opened.text + words)
        assert tuple(whole[: len(opened.ids)]) == opened.ids
        assert tokenizer.decode(whole[len(opened.ids) :]).strip() == words


@pytest.mark.real
def test_the_assistants_turn_ends_a_users_words(tokenizer: Any) -> None:
    """Nothing did, and the model wrote its own answer into the user's words."""
    opened = prompts(tokenizer, ENDED_BY_ANSWER).user_turn(())
    assert (opened.text, opened.stop) == ("<|User|>", "<|Assistant|>")


@pytest.mark.real
def test_a_system_message_that_a_template_leaves_out_opens_the_users_words(tokenizer: Any) -> None:
    """The turns were about anything: what the chat is about was lost without a word."""
    made = prompts(tokenizer, DROPS_SYSTEM)
    assert made.user_turn(SYSTEM).text == "<|im_start|>user\nYou sell lamps.\n\n"
    asked = made.text((*SYSTEM, Message("user", "Is it dark?")))
    assert "You sell lamps.\n\nIs it dark?" in asked


@pytest.mark.real
def test_a_model_that_cannot_be_opened_is_refused_with_the_mend(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no chat template.*instruct or chat version"):
        prompts(tokenizer, None).user_turn(SYSTEM)
    with pytest.raises(UserError, match="changes what a user says"):
        prompts(tokenizer, CHANGED).user_turn(SYSTEM)
    with pytest.raises(UserError, match="has nothing behind what a user says"):
        prompts(tokenizer, ENDLESS).user_turn(SYSTEM)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama"}')
    base = LocalTeacher(str(tmp_path / "base"))
    assert "has no chat template" in base.user_turn_fault()
    tokenizer.chat_template = ENDLESS
    tokenizer.save_pretrained(tmp_path / "base")
    assert f"template of {tmp_path / 'base'} has nothing behind" in base.user_turn_fault()
    assert LocalTeacher().user_turn_fault() == ""


@pytest.mark.real
def test_the_embedded_teacher_writes_what_a_user_says(drain: Any) -> None:
    teacher = LocalTeacher(None, LocalOptions(dtype="float32", device="cpu", concurrency=4))
    asked = [Request(SYSTEM, turn="user", max_tokens=40, seed=seed) for seed in range(4)]
    texts = [reply.text for _, reply in drain(teacher, asked)]
    again = [reply.text for _, reply in drain(teacher, asked)]
    teacher.close()
    assert texts == again
    assert len(set(texts)) == 4
    assert not any("<|im" in text or "assistant\n" in text for text in texts)


def test_keys_tell_whose_turn_is_written() -> None:
    own, theirs = Request(SYSTEM), Request(SYSTEM, turn="user")
    assert "turn" not in request_to_json(own), "keys of earlier ledgers would change"
    assert request_from_json(request_to_json(theirs), 256) == theirs
    fake = FakeTeacher()
    assert fake.answer(own) != fake.answer(theirs)


def test_a_teacher_without_raw_prompts_is_not_asked(tmp_path: Path) -> None:
    class Chat(FakeTeacher):
        abilities = Abilities()

    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(TeacherError, match="write a user's turn"):
        Asker(Chat(), ledger).ask([Request(SYSTEM, turn="user")], "test")


TEMPLATES = {
    "marks": (("<|sys|>{}<|end|>", "<|user|>\n", "<|end|>\n"), "<|sys|>Lamps.<|end|><|user|>\n"),
    "words": (("{}\n\n", "USER: ", "\nASSISTANT:"), "Lamps.\n\nUSER: "),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_vllm_server_is_given_the_raw_prompt(name: str, teacher_server: Any, drain: Any) -> None:
    template, prompt = TEMPLATES[name]
    with teacher_server.running_server(owner="vllm") as server:
        server.template = template
        teacher = open_teacher(f"openai:{server.url}#m")
        assert teacher.abilities.user_turn
        asked = [
            Request((Message("system", "Lamps."),), start, max_tokens=9, turn="user", stop=("###",), seed=seed)
            for seed, start in enumerate(["", "How"])
        ]
        replies = [reply for _, reply in drain(teacher, asked)]
        teacher.close()
    assert all(isinstance(reply, Reply) for reply in replies)
    assert [reply.prompt_tokens for reply in replies] == [7, 7]
    bodies = {body["text"]: body for body in server.bodies}
    assert set(bodies) == {prompt, f"{prompt}How"}
    body = bodies[prompt]
    assert body["max_tokens"] == 9
    if name == "marks":
        assert len(body["stop_token_ids"]) == 1
        assert body["stop"] == ["###"]
    else:
        assert body["stop_token_ids"] == []
        assert body["stop"] == ["###", "ASSISTANT:"]


def test_another_server_cannot(teacher_server: Any) -> None:
    with teacher_server.running_server(owner="openai") as server:
        teacher = open_teacher(f"openai:{server.url}#m")
        assert not teacher.abilities.user_turn
        teacher.close()


def test_a_served_base_model_is_refused_with_the_mend(teacher_server: Any, drain: Any, tmp_path: Path) -> None:
    with teacher_server.running_server(owner="vllm") as server:
        server.template = ("{}", "", "")
        server.refuses = "no chat template is defined for this tokenizer"
        teacher = open_teacher(f"openai:{server.url}#m")
        with pytest.raises(TeacherRefused, match="serve its instruct or chat version"):
            drain(teacher, [Request(SYSTEM, turn="user")])
        with Ledger(tmp_path / "l.sqlite") as ledger, pytest.raises(OptionError, match="serve its instruct or chat"):
            refuse_recipes(DESK, Asker(teacher, ledger), GenerationOptions(method="magpie", personas="teacher"))
        assert server.asked == 0
        teacher.close()


def test_a_served_template_that_would_not_end_is_refused(teacher_server: Any) -> None:
    with teacher_server.running_server(owner="vllm") as server:
        server.template = ("{}\n", "USER: ", "")
        teacher = open_teacher(f"openai:{server.url}#m")
        assert "has nothing behind what a user says" in teacher.user_turn_fault()
        server.template = ("{}\n", "USER: ", "\nASSISTANT:")
        assert teacher.user_turn_fault() == ""
        teacher.close()


@pytest.mark.parametrize("how", ["left out", "refused"])
def test_a_served_template_without_a_system_turn_opens_the_users_with_its_text(
    how: str, teacher_server: Any, drain: Any
) -> None:
    with teacher_server.running_server(owner="vllm") as server:
        server.template = ("" if how == "left out" else None, "<|user|>\n", "<|end|>\n")
        teacher = open_teacher(f"openai:{server.url}#m")
        [(_, reply)] = drain(teacher, [Request(SYSTEM, turn="user")])
        assert isinstance(reply, Reply)
        assert [body["text"] for body in server.bodies] == ["<|user|>\nYou sell lamps.\n\n"]
        teacher.close()


def test_teachers_in_workers_tell_who_cannot_write_a_users_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTeacher, "user_turn_fault", lambda self: "it is a base model", raising=False)
    teacher = WorkersTeacher("fake", WorkersOptions())
    assert teacher.user_turn_fault() == "it is a base model"
    teacher.close()


def test_a_users_turn_is_no_line_of_a_batch_file(teacher_server: Any, drain: Any) -> None:
    from potstill.batch import _Collector

    with teacher_server.running_server(owner="vllm") as server:
        teacher = open_teacher(f"openai:{server.url}#m")
        with pytest.raises(TeacherRefused, match=r"batch file holds chats.*take generation.method=auto"):
            drain(_Collector(teacher, ""), [Request(SYSTEM, turn="user")])
        teacher.close()
