"""On-policy training from a server that speaks vLLM's form: what is sent and paid, refusals, budgets, processes."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from scoring import LocalScores, LocalTops

from potstill.asking.asker import Asker
from potstill.asking.budget import Budget
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Reply, ScoreRequest, token_score
from potstill.asking.teacher_json import request_to_json
from potstill.asking.token_estimate import expected_tokens
from potstill.asking.token_scores import AskedTokens
from potstill.datagen.teachers import open_teacher
from potstill.errors import BudgetReached, OptionError, TeacherUnavailable, TrainingError, UserError
from potstill.hub.cards import model_card, unit_info
from potstill.report.facts import read_run
from potstill.report.page import render_report
from potstill.rows import Row, Source, rows_to_dataset
from potstill.settings import resolve
from potstill.stages.asked_teacher import check_asked_teacher, unlike_tokens
from potstill.task import TaskSpec
from potstill.train.causal import distil_causal
from potstill.train.launch import launch, write_job
from potstill.train.options import DistilOptions, asks_teacher, check_for_kind
from potstill.train.ready import check_tokenizers
from potstill.train.score_relay import RelayedScores, answering

SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation")
WHOLE = 258
FAST = {"backoff_s": 0.01, "longest_pause_s": 0.05, "startup_s": 1.0, "patience_s": 1.0}


def rows(n=6, start=0):
    texts = [f"{'ab' * (i % 3 + 1)}{i}" for i in range(start, start + n)]
    return rows_to_dataset([Row(text, text[::-1], "generated", Source(row=i)) for i, text in enumerate(texts)], [])


@pytest.fixture
def served(moved, teacher_server):
    """A server of the teacher, as vLLM answers."""
    with teacher_server.running_server(owner="vllm", model=LocalTops(moved)) as server:
        yield server


@pytest.fixture
def options(tiny_llama):
    return DistilOptions(
        student=str(tiny_llama), on_policy=1.0, on_policy_tokens=8, epochs=4, batch_size=3, precision="fp32",
        learning_rate=5e-3, max_length=96, early_stopping=None, evaluations=2,
    )  # fmt: skip


def asker_of(server, ledger, budget=None, **more):
    teacher = open_teacher(f"openai:{server.url}#m", top_logprobs=WHOLE, **FAST, **more)
    return Asker(teacher, ledger, budget=Budget.parse(budget) if budget else None)


def test_what_is_sent_and_counted(served, tmp_path, moved):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = asker_of(served, ledger)
        [reply, short] = AskedTokens(asker, 5).ask([([3, 4, 5], [6, 7]), ([3], [9])])
        again = AskedTokens(asker, 5).ask([([3, 4, 5], [6, 7])])
        asker.teacher.close()
    body = next(body for body in served.bodies if len(body["prompt"]) == 5)
    assert body == {
        "model": "m", "prompt": [3, 4, 5, 6, 7], "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 5,
    }  # fmt: skip
    assert isinstance(reply, Reply)
    assert isinstance(short, Reply)
    assert again == [reply]
    assert served.asked == 2
    assert (reply.prompt_tokens, reply.completion_tokens) == (5, 1)
    wanted = LocalTops(moved).tops([3, 4, 5, 6, 7], 3, 5)
    for told, item in zip(reply.top, wanted, strict=True):
        assert (told.token_id, told.top_ids) == (item.token_id, item.top_ids)
        assert told.logprob == pytest.approx(item.logprob, abs=1e-5)
        assert told.top_logprobs == pytest.approx(item.top_logprobs, abs=1e-5)


def test_the_request_has_a_key_a_price_and_an_ability_of_its_own():
    request = token_score([1, 2, 3], [4, 5], 7)
    assert expected_tokens(request) == (5, 1)
    assert request_to_json(request)["token_ids"] == [[1, 2, 3], [4, 5]]
    assert request_to_json(request) != request_to_json(token_score([1, 2], [3, 4, 5], 7))
    assert "token_ids" not in request_to_json(ScoreRequest((), ("a",)))
    assert open_teacher("fake").abilities.lacking(replace(request, top_logprobs=0)) == "score tokens by their numbers"


def test_passing_faults_are_asked_again_and_a_refused_one_fails_alone(moved, teacher_server, tmp_path):
    def fault(number, prompt):
        if prompt == "[8, 9]":
            return 400, {"error": {"message": "maximum context length is 1 token"}}
        return "500" if number == 1 else None

    with teacher_server.running_server(fault, owner="vllm", model=LocalTops(moved)) as server:
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            asker = asker_of(server, ledger, concurrency=1)
            good, again, refused = AskedTokens(asker, 5).ask([([3], [4]), ([5], [6]), ([8], [9])])
            asker.teacher.close()
    assert isinstance(good, Reply)
    assert isinstance(again, Reply)
    assert again.attempts == 2
    assert isinstance(refused, Failure)
    assert "maximum context length" in refused.reason


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_a_training_from_the_server_is_the_one_with_the_teacher_in_memory(tmp_path, options, moved, served, kind):
    chosen = replace(options, divergence=kind)
    loaded = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "l", replace(chosen, teacher=str(moved)))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = asker_of(served, ledger)
        asked = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "a", chosen, scores=AskedTokens(asker, WHOLE))
        spent = ledger.spent()
        asker.teacher.close()
    for one, other in zip(loaded.history, asked.history, strict=True):
        for name in ("train_loss", "validation_loss"):
            assert other[name] == pytest.approx(one[name], rel=2e-4)
    told = asked.report["asked_teacher"]
    # Held-out answers are paid for once, whatever the number of evaluations.
    assert asker.counts.fresh == served.asked <= told["answers"] + 3
    assert sum(spent[asker.teacher.name]) == sum(len(body["prompt"]) + 1 for body in served.bodies)


def test_a_cap_stops_the_training_and_a_higher_one_goes_on_from_the_checkpoint(tmp_path, options, served):
    chosen = replace(options, checkpoint_steps=2, on_policy=0.5)
    with Ledger(tmp_path / "whole.sqlite") as ledger:
        asker = asker_of(served, ledger)
        whole = distil_causal(SPEC, rows(), None, None, tmp_path / "whole", chosen, scores=AskedTokens(asker, WHOLE))
        spent = sum(ledger.spent()[asker.teacher.name])
        asker.teacher.close()
    before = served.asked
    with Ledger(tmp_path / "cut.sqlite") as ledger:
        asker = asker_of(served, ledger, f"{round(spent * 0.8)}-tokens")
        with pytest.raises(BudgetReached):
            distil_causal(SPEC, rows(), None, None, tmp_path / "cut", chosen, scores=AskedTokens(asker, WHOLE))
        asker.teacher.close()
        assert sum(ledger.spent()[asker.teacher.name]) <= spent * 0.8
        asker = asker_of(served, ledger, f"{2 * spent}-tokens")
        resumed = distil_causal(SPEC, rows(), None, None, tmp_path / "cut", chosen, scores=AskedTokens(asker, WHOLE))
        asker.teacher.close()
        assert sum(ledger.spent()[asker.teacher.name]) == spent
    # What had been scored since the checkpoint was in the ledger.
    assert served.asked - before == before
    assert resumed.report["resumed_from"].startswith("checkpoint-")
    assert resumed.report["asked_teacher"] == whole.report["asked_teacher"], "what was read before counts as well"
    first, second = (load_file(path / "model.safetensors") for path in (whole.path, resumed.path))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


def test_a_run_that_goes_on_at_its_budget_keeps_what_was_learnt_until_then(tmp_path, options, served):
    chosen = replace(options, epochs=4, evaluations=4)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = asker_of(served, ledger)
        whole = distil_causal(SPEC, rows(), rows(2, 6), None, tmp_path / "w", chosen, scores=AskedTokens(asker, WHOLE))
        spent = sum(ledger.spent()[asker.teacher.name])
        asker.teacher.close()
    assert "budget_met" not in whole.report

    def cut(name, share, **more):
        with Ledger(tmp_path / f"{name}.sqlite") as ledger:
            teacher = open_teacher(f"openai:{served.url}#m", top_logprobs=WHOLE, **FAST)
            budget = replace(Budget.parse(f"{round(spent * share)}-tokens"), then="train")
            scores = AskedTokens(Asker(teacher, ledger, budget=budget), WHOLE)
            try:
                return distil_causal(SPEC, rows(), more.get("held"), None, tmp_path / name, chosen, scores=scores)
            finally:
                teacher.close()

    best = cut("best", 0.7, held=rows(2, 6))
    taken = best.report["steps"]["taken"]
    assert 2 <= taken < 8
    assert best.report["budget_met"]["cap"].endswith("tokens")
    assert best.report["budget_met"]["told"].startswith("the budget of")
    done = [point for point in whole.history if point["step"] <= taken]
    assert best.report["best_loss"] == pytest.approx(min(point["validation_loss"] for point in done), rel=1e-4)
    assert any("step" in note and "budget" in note for note in best.report["notes"])
    last = cut("last", 0.7)
    assert 2 <= last.report["steps"]["taken"] < 8
    assert (last.path / "model.safetensors").exists()
    with pytest.raises(BudgetReached):  # before the first step there is nothing to keep
        cut("none", 0.02)


@pytest.mark.slow
def test_two_processes_ask_the_one_that_started_them(tmp_path, options, served):
    # Whole batches of the data: what each process draws is its own.
    chosen = replace(options, on_policy=1e-6, max_steps=3, epochs=None, evaluations=3)
    table = rows(4)
    whole = distil_causal(
        SPEC, table, table, None, tmp_path / "one", replace(chosen, batch_size=4),
        scores=LocalScores(served.model.model.config._name_or_path, WHOLE),
    )  # fmt: skip
    shared = replace(chosen, batch_size=2, processes=2)
    job = write_job(tmp_path / "job", SPEC, table, table, None, tmp_path / "two", shared)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = asker_of(served, ledger)
        result = launch(job, shared, scores=AskedTokens(asker, WHOLE))
        capped = asker_of(served, ledger, "10-tokens")
        lost = write_job(tmp_path / "more", SPEC, rows(4, 7), None, None, tmp_path / "three", shared)
        with pytest.raises(BudgetReached):
            launch(lost, shared, scores=AskedTokens(capped, WHOLE))
        capped.teacher.close()
        asker.teacher.close()
    for name in ("train_loss", "validation_loss"):
        wanted = [point[name] for point in whole.history]
        assert [point[name] for point in result.history] == pytest.approx(wanted, rel=2e-4)
    assert result.report["asked_teacher"]["unanswered"] == 0


def test_the_relay_tells_what_it_was_told_and_nobody_else(moved):
    scores = LocalScores(moved, 5, lambda pair: pair[1] == [9])
    with answering(scores) as relay:
        place, secret = relay.environment.values()
        relayed = RelayedScores(place, secret)
        assert (relayed.name, relayed.identity, relayed.top) == (scores.name, scores.identity, 5)
        reply, failure = relayed.ask([([3, 4], [5]), ([3], [9])])
        assert isinstance(reply, Reply)
        assert reply.top[0].top_ids == scores.local.tops([3, 4, 5], 2, 5)[0].top_ids
        assert failure == Failure("too long")
        with pytest.raises(TrainingError, match="403"):
            RelayedScores(place, "guessed")
        scores.lost = None  # not callable: the asking itself breaks
        with pytest.raises(TrainingError, match="not callable"):
            relayed.ask([([3], [4])])
        assert isinstance(relay.fault, TypeError)
    with pytest.raises(TrainingError, match="no longer answers"):
        relayed.ask([([3], [4])])
    with answering(None) as nobody:
        assert nobody is None


def settings_of(server, student, **distil):
    return resolve(
        {}, {"teacher": f"openai:{server.url}#m", "distil": {"student": str(student), "on_policy": 0.5, **distil}}
    )


def test_a_server_that_can_is_told_apart_from_those_that_cannot(
    tmp_path, tiny_llama, tiny_merged, served, teacher_server
):
    from transformers import AutoTokenizer

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = asker_of(served, ledger)
        found = check_asked_teacher(SPEC, settings_of(served, tiny_llama), asker)
        assert found == "tells the 32 likeliest tokens at each of the student's (258 tokens, cut alike)"
        assert served.asked == 1
        check_asked_teacher(SPEC, settings_of(served, tiny_llama), asker)
        assert served.asked == 1
        assert check_asked_teacher(SPEC, settings_of(served, tiny_llama, teacher=str(tiny_llama)), asker) == ""
        with pytest.raises(UserError, match=r"another tokenizer than the teacher openai:.* is \[.*distil\.student"):
            check_asked_teacher(SPEC, settings_of(served, tiny_merged), asker)
        asker.teacher.close()
        with teacher_server.running_server() as other:
            asker = asker_of(other, ledger)
            with pytest.raises(UserError, match=r"needs log-probs of the tokens .* tells none; serve .*vllm serve"):
                check_asked_teacher(SPEC, settings_of(other, tiny_llama), asker)
            asker.teacher.close()
        with teacher_server.running_server(lambda *_: "500", owner="vllm", model=served.model) as broken:
            asker = asker_of(broken, ledger, attempts=2)
            with pytest.raises((UserError, TeacherUnavailable), match=r"told no log-probs|no usable answer"):
                check_asked_teacher(SPEC, settings_of(broken, tiny_llama), asker)
            asker.teacher.close()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    assert unlike_tokens(tokenizer, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]) == ""
    assert unlike_tokens(tokenizer, lambda text: [7, *tokenizer(text, add_special_tokens=False)["input_ids"]])


def test_when_the_teacher_is_asked_and_what_does_not_go_with_it(tiny_llama):
    plain = DistilOptions(on_policy=0.5)
    assert asks_teacher(plain, "openai:http://x")
    assert not asks_teacher(plain, "vllm:some/model")
    assert not asks_teacher(replace(plain, teacher="some/model"), "openai:http://x")
    assert not asks_teacher(DistilOptions(), "openai:http://x")
    assert asks_teacher(replace(plain, on_policy_teacher="asked"), "vllm:some/model")
    check_for_kind(plain, "generation", "openai:http://x")
    check_tokenizers(replace(plain, student=str(tiny_llama)), "generation", "openai:http://x")
    for wrong, said in [
        (replace(plain, temperature=2.0), "temperature 2 needs the teacher's whole distribution"),
        (replace(plain, on_policy_teacher="weights"), "'openai:http://x' has none here; name distil.teacher"),
        (replace(plain, on_policy_teacher="asked", teacher="some/model"), "leave one of them out"),
    ]:
        with pytest.raises(OptionError, match=said):
            check_for_kind(wrong, "generation", "openai:http://x")


def test_a_whole_run_pays_once_and_needs_no_server_afterwards(tmp_path, tiny_llama, moved, teacher_server):
    import potstill

    lines = ["input,output", *(f"{'ab' * (i % 3 + 1)}{i},{i}{'ba' * (i % 3 + 1)}" for i in range(24))]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "task.md").write_text(
        "---\nname: echo\nkind: generation\nlabelled: {path: rows.csv, inputs: [input], output: output}\n---\n"
        "Say it backwards.\n"
    )
    given = {
        "out": tmp_path / "run", "sources": "labelled", "soft": {"top_k": WHOLE}, "evaluate": {"teacher": False},
        "distil": {
            "student": str(tiny_llama), "on_policy": 1.0, "on_policy_tokens": 8, "max_steps": 3, "batch_size": 2,
            "max_length": 128,
        },
    }  # fmt: skip
    options = {"top_logprobs": WHOLE, **FAST}
    with teacher_server.running_server(owner="vllm", model=LocalTops(moved)) as server:
        teacher = f"openai:{server.url}#m"
        result = potstill.run(str(tmp_path / "task.md"), teacher=teacher, teacher_options=options, **given)
        asked = server.asked
    report = json.loads((result.path / "train" / "report.json").read_text())
    assert report["asked_teacher"]["answers"] == 6
    assert report["asked_teacher"]["unanswered"] == 0
    assert "likeliest tokens" in next(stage for stage in result.stages if stage.name == "train").facts["summary"]
    assert asked > 6
    with Ledger(result.path / "ledger.sqlite") as ledger:
        assert ledger.totals("train").replies == asked
    facts = read_run(result.path)
    assert (facts.teachers, facts.learnt_from) == ([], ["openai:local#m"]), "it wrote no row"
    card = model_card(facts, unit_info(facts, None, token_targets=False))
    assert "openai:local#m told of each token of its own answers" in card
    assert "The teacher openai:local#m: check what its terms say" in card
    assert "0.5 hard" not in card, "no hard loss applies"
    assert "The teacher openai:local#m: check what its terms say" in render_report(facts)[0]
    again = potstill.run(str(tmp_path / "task.md"), teacher=teacher, teacher_options=options, **given)
    assert all(stage.reused for stage in again.stages if stage.name != "report")
