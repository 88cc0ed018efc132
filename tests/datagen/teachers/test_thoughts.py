"""A model that thinks before it answers: where it is let, where it is kept from it; no reply holds its thoughts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Message, Reply, Request, ScoreRequest, TokenTop
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.chat_prompt import ChatPrompt
from potstill.datagen.teachers.local import LocalOptions, LocalTeacher
from potstill.datagen.teachers.openai_wire import chat_reply
from potstill.datagen.teachers.vllm_engine import _Engine
from potstill.decoding.decoder import Decoder

ASKED = Request((Message("user", "Which town has the tallest church?"),), max_tokens=4, top_logprobs=1)
SAID = [
    ("<think>\nA town? Ulm.\n</think>\n\nUlm", "Ulm"),
    ("A town? Ulm.\n</think>\n\nUlm", "Ulm"),  # the template opened the tag
    ("<think>\n\n</think>\n\n  Ulm\n", "Ulm\n"),
    ("Ulm", "Ulm"),
    ("  Ulm <think>", "  Ulm <think>"),
]


TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PLAIN = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
# As Qwen3's: it thinks unless the switch is off.
SWITCHED = TURNS + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# As DeepSeek-R1's and Qwen3-Thinking's: whatever it is told, a thought is open.
OPENING = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
# As gpt-oss's: what it says to the user comes in the last of its channels.
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
EMPTY = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_causal: Callable[[Path], Path]) -> Path:
    return tiny_causal(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalTeacher:
    return LocalTeacher(str(folder))


def with_template(folder: Path, template: str, place: Path) -> Path:
    """The model with another template."""
    from transformers import AutoTokenizer

    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).symlink_to(file)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        (place / name).unlink()
    tokenizer.save_pretrained(place)
    return place


def by_transformers(model: LocalTeacher, written: str, request: Request, drain: Any) -> Reply | Failure:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "text", lambda self, row: written)
        [(_, reply)] = drain(model, [request])
    assert isinstance(reply, Reply | Failure)
    return reply


def by_vllm(
    written: str, request: Request, *, thinking: int = 0, opened: bool = False, finish: str = "stop"
) -> Reply | Failure:
    likeliest = {7: SimpleNamespace(logprob=-0.1, rank=1)}
    done = SimpleNamespace(text=written, finish_reason=finish, token_ids=[7], logprobs=[likeliest])
    question = SimpleNamespace(request=request, prompt_tokens=3, thinking=thinking)
    engine = SimpleNamespace(_prompts=SimpleNamespace(opens_thought=opened))
    return _Engine._reply(engine, question, SimpleNamespace(outputs=[done]))  # type: ignore[arg-type]


@pytest.mark.parametrize(("written", "text"), SAID)
def test_thoughts_are_no_part_of_a_reply_and_of_its_log_probs(
    written: str, text: str, model: LocalTeacher, drain: Any
) -> None:
    for reply in (by_transformers(model, written, ASKED, drain), by_vllm(written, ASKED)):
        assert isinstance(reply, Reply)
        assert reply.text == text
        assert bool(reply.top) == (written == text)
        assert reply.completion_tokens > 0  # what was thought is counted


@pytest.mark.parametrize(
    "fields", [{"prefill": "1."}, {"choices": ("a</think>b", "c")}, {"turn": "user", "top_logprobs": 0}]
)
def test_what_no_thought_can_stand_in_stays_as_it_was_written(
    fields: dict[str, Any], model: LocalTeacher, drain: Any
) -> None:
    request = replace(ASKED, **fields)
    for reply in (by_transformers(model, "a</think>b", request, drain), by_vllm("a</think>b", request)):
        assert isinstance(reply, Reply)
        assert reply.text == "a</think>b"
        assert bool(reply.top) == bool(request.top_logprobs)
    said = by_vllm('{"a": "</think>"}', replace(ASKED, schema={"type": "object"}))
    assert isinstance(said, Reply)
    assert said.text == '{"a": "</think>"}'


@pytest.mark.parametrize("message", [{"content": "<think>Ulm</think>Ulm"}, {"content": "Ulm", "reasoning": "Ulm?"}])
def test_log_probs_that_a_server_gives_of_thoughts_are_none_of_the_text(message: dict[str, Any]) -> None:
    token = {"token": "token_id:7", "logprob": -0.1}
    told = {"content": [{**token, "top_logprobs": [token]}]}
    body = {"choices": [{"message": message, "finish_reason": "stop", "logprobs": told}]}
    reply = chat_reply(body, ASKED, "vllm")
    assert (reply.text, reply.top) == ("Ulm", ())
    plain = {"choices": [{**body["choices"][0], "message": {"content": "Ulm"}}]}
    assert chat_reply(plain, ASKED, "vllm").top == (TokenTop(7, -0.1, (7,), (-0.1,)),)


@pytest.mark.parametrize(
    ("template", "at_once", "first", "opens"),
    [
        (PLAIN, "assistant\n", "assistant\n", False),
        (SWITCHED, f"assistant\n{EMPTY}", "assistant\n", False),
        (OPENING, f"assistant\n{EMPTY}", "assistant\n<think>\n", True),
        (OPENING.replace("<think>\n", "<think>"), f"assistant\n{EMPTY}", "assistant\n<think>", True),
        (CHANNELS, "<|start|>assistant<|channel|>final<|message|>", "<|start|>assistant", False),
    ],
)
def test_a_reply_comes_right_behind_its_prompt_unless_the_model_is_let_think(
    template: str, at_once: str, first: str, opens: bool, folder: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    if template == CHANNELS:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|channel|>", "<|message|>"]})
    prompts = ChatPrompt(tokenizer)
    assert prompts.text(ASKED.messages).endswith(at_once)
    assert prompts.text(ASKED.messages, "1.").endswith(f"{at_once}1.")
    assert prompts.text(ASKED.messages, thinks=True).endswith(first)
    assert prompts.opened(ASKED, thinks=True).text.endswith(first)
    assert prompts.opens_thought == opens


def test_a_model_that_is_let_think_is_heard_behind_its_thought(folder: Path, tmp_path: Path, drain: Any) -> None:
    place = with_template(folder, OPENING, tmp_path / "opening")
    teacher = LocalTeacher(str(place), LocalOptions(device="cpu", thinking_tokens=30))
    asked = replace(ASKED, stop=(",",), top_logprobs=0)
    rows: list[Any] = []
    admit = Decoder.admit

    def watched(self: Decoder, waiting: Any, budget: int) -> Any:
        rows.extend(waiting)
        return admit(self, waiting, budget)

    for written, text in (("A town, perhaps?</think>Ulm, by the Danube", "Ulm"), ("A town?</think>Ulm", "Ulm")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Decoder, "admit", watched)
            reply = by_transformers(teacher, written, asked, drain)
        assert isinstance(reply, Reply)
        assert reply.text == text
        assert by_vllm(written, asked, thinking=30, opened=True).text == text  # type: ignore[union-attr]
    assert {row.room for row in rows} == {34}
    # Thoughts have their room, and no stop of the text ends them.
    assert {row.stop for row in rows} == {()}
    # Nothing but a thought, which the template opened: cut, it is no text of the model.
    for cut in (by_transformers(teacher, "A town, perhaps", asked, drain),
                by_vllm("A town, perhaps", asked, thinking=30, opened=True, finish="length"),
                by_vllm("<think>A town, perhaps", asked, finish="length")):  # fmt: skip
        assert isinstance(cut, Failure)
        assert "the model thought until its" in cut.reason
        assert "--set teacher_options.thinking_tokens=2048" in cut.reason
        assert cut.prompt_tokens > 0
        assert cut.completion_tokens > 0
    ended = by_vllm("A town, perhaps", asked, thinking=30, opened=True)
    assert isinstance(ended, Reply)
    assert ended.text == ""
    # What keeps to a form is not thought about.
    rows.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "admit", watched)
        [(_, chosen)] = drain(teacher, [replace(asked, choices=("yes", "no"), stop=())])
    assert chosen.text in ("yes", "no")
    assert [row.room for row in rows] == [4]


def test_labels_are_scored_behind_a_closed_thought(folder: Path, tmp_path: Path, drain: Any) -> None:
    scored = ScoreRequest(ASKED.messages, ("Ulm", "Cologne"))
    closed = replace(scored, prefill=EMPTY)
    [(_, expected)] = drain(LocalTeacher(str(folder), LocalOptions(device="cpu", dtype="float32")), [closed])
    [(_, plain)] = drain(LocalTeacher(str(folder), LocalOptions(device="cpu", dtype="float32")), [scored])
    for number, template in enumerate((SWITCHED, OPENING)):
        place = with_template(folder, template, tmp_path / str(number))
        for options in (LocalOptions(device="cpu", dtype="float32", thinking_tokens=n) for n in (0, 50)):
            [(_, reply)] = drain(LocalTeacher(str(place), options), [scored])
            assert reply.scores == expected.scores
    assert plain.scores != expected.scores


def test_replies_of_a_model_that_thinks_are_others(folder: Path, tmp_path: Path) -> None:
    """Those of one that answers at once are not taken for them; of two bounds for thoughts they are the same."""
    plain, some, more = (open_teacher(f"transformers:{folder}", thinking_tokens=n) for n in (0, 40, 80))
    assert plain.identity != some.identity == more.identity
    assert "thinks" not in plain.identity
    # Before a beginning that it is to go on with a model could not think.
    assert (plain.abilities.prefill, some.abilities.prefill) == (True, False)
    assert some.abilities.scores
    engine = importlib.util.find_spec("vllm")
    for thinking in (0, 40) if engine else ():
        abilities = open_teacher(f"vllm:{folder}", thinking_tokens=thinking).abilities
        assert (abilities.prefill, abilities.json_schema) == (not thinking, not thinking)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert [Asker(teacher, ledger).thinking_tokens for teacher in (plain, some)] == [0, 40]


class Served:
    """A vLLM server's tokens and log-probs, of a model of this machine."""

    def __init__(self, folder: Path):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        if "prompt" in body:
            ids = self.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
        else:
            text = self.tokenizer.apply_chat_template(
                body["messages"], tokenize=False, add_generation_prompt=body["add_generation_prompt"],
                continue_final_message=body["continue_final_message"], **body.get("chat_template_kwargs", {}),
            )  # fmt: skip
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"count": len(ids), "tokens": ids}

    def completions(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        with torch.no_grad():
            told = self.model(torch.tensor([body["prompt"]])).logits[0, -1].log_softmax(-1)
        likely = {f"token_id:{token}": float(told[token]) for token in body["logprob_token_ids"]}
        return {"choices": [{"text": "x", "finish_reason": "length", "logprobs": {"top_logprobs": [likely]}}]}


@pytest.mark.parametrize("template", [PLAIN, SWITCHED, OPENING])
def test_a_server_scores_labels_behind_a_closed_thought_too(
    template: str, folder: Path, tmp_path: Path, teacher_server: Any, drain: Any
) -> None:
    place = with_template(folder, template, tmp_path / "model")
    scored = ScoreRequest(ASKED.messages, ("Ulm", "Cologne"))
    [(_, expected)] = drain(LocalTeacher(str(place), LocalOptions(device="cpu", dtype="float32")), [scored])
    for options in ({}, {"thinking_tokens": 100}):
        with teacher_server.running_server(owner="vllm", model=Served(place)) as server:
            teacher = open_teacher(f"openai:{server.url}#m", **options)
            assert teacher.abilities.prefill == (not options)
            [(_, reply)] = drain(teacher, [scored])
        assert reply.scores == pytest.approx(expected.scores, abs=1e-3)
        assert reply.score_tokens == (3, 7)


def test_a_server_is_told_whether_the_model_is_to_think(
    teacher_server: Any, drain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-nobodys")

    def sent(owner: str, **options: Any) -> dict[str, Any]:
        with teacher_server.running_server(owner=owner) as server:
            [(_, reply)] = drain(open_teacher(f"openai:{server.url}#m", **options), [replace(ASKED, top_logprobs=0)])
            assert reply.text
            return dict(server.bodies[-1])

    off, on = ({"enable_thinking": told, "thinking": told} for told in (False, True))
    assert sent("vllm")["chat_template_kwargs"] == off
    asked = sent("vllm", thinking_tokens=50)
    assert (asked["chat_template_kwargs"], asked["max_tokens"]) == (on, 54)
    # Nobody knows whether another server takes it: it is sent where the user says so.
    assert "chat_template_kwargs" not in sent("someone")
    assert "chat_template_kwargs" not in sent("someone", thinking_tokens=50)
    assert sent("someone", thinking_tokens=0)["chat_template_kwargs"] == off
    official = open_teacher("openai:https://api.openai.com/v1#gpt-4o-mini", thinking_tokens=0)
    assert "chat_template_kwargs" not in official.chat_body(ASKED, "openai")  # type: ignore[attr-defined]


def test_a_server_whose_template_takes_no_switch_is_asked_without(
    folder: Path, teacher_server: Any, drain: Any
) -> None:
    """vLLM with a tokenizer of Mistral's own; both of what is written and of what is scored."""
    served = Served(folder)
    scored = ScoreRequest(ASKED.messages, ("Ulm", "Cologne"))
    asked = replace(ASKED, top_logprobs=0)
    for requests in ([scored], [asked], [asked, scored]):
        with teacher_server.running_server(owner="vllm", model=served) as server:
            server.unknown = {"chat_template_kwargs": "chat_template is not supported for Mistral tokenizers."}
            teacher = open_teacher(f"openai:{server.url}#m")
            replies = [reply for _, reply in drain(teacher, requests)]
        assert all(isinstance(reply, Reply) for reply in replies)
        assert teacher.refused_fields == {"chat_template_kwargs"}  # type: ignore[attr-defined]
