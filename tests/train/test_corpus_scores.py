"""BLEU and chrF++ beside sacrebleu, and what a task and a report make of them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.cli.tables import print_scores
from potstill.compare import paired_interval
from potstill.errors import TaskError
from potstill.rows import REFERENCES, Row, rows_to_dataset
from potstill.task import TaskSpec
from potstill.task.file import read_task_file
from potstill.train import corpus_scores, metrics
from potstill.train.evaluate import score_predictions
from potstill.train.text_scores import TEXT_FIGURES

words = st.lists(
    st.sampled_from(
        ["a", "the", "cat", "sat", "on", "mat", "3.5", "Dogs,", "ran!", "été", "x-y", "(so)", "&quot;", "?"]
    ),
    max_size=12,
).map(" ".join)
several = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=6)


def columns(rows):
    """References as sacrebleu takes them: the first of each row, the second, the third, None where there are fewer."""
    return [[right[i] if i < len(right) else None for _, right in rows] for i in range(3)]


@given(several)
@settings(max_examples=150, deadline=None)
def test_bleu_is_sacrebleus(rows):
    from sacrebleu.metrics import BLEU

    outputs, right = [output for output, _ in rows], [references for _, references in rows]
    found = corpus_scores.bleu(corpus_scores.bleu_statistics(right, outputs).sum(0))
    assert 100 * float(found) == pytest.approx(BLEU().corpus_score(outputs, columns(rows)).score, abs=1e-6)


@given(several)
@settings(max_examples=100, deadline=None)
def test_chrf_pp_is_sacrebleus(rows):
    from sacrebleu.metrics import CHRF

    outputs, right = [output for output, _ in rows], [references for _, references in rows]
    found = metrics.chrf(corpus_scores.chrf_pp_statistics(right, outputs).sum(0), order=8)
    expected = CHRF(word_order=2).corpus_score(outputs, columns(rows)).score
    assert 100 * float(found) == pytest.approx(expected, abs=1e-6)


def test_a_draw_of_rows_is_scored_as_a_corpus():
    outputs = ["the cat sat on the mat", "a dog ran", "on the mat sat a cat", ""]
    right = [["the cat sat on a mat"], ["a dog ran far away", "dogs ran"], ["a cat sat on the mat"], ["nothing"]]
    draws = np.array([[0, 1, 2, 3], [0, 0, 2, 2], [3, 3, 3, 3]])
    table = corpus_scores.bleu_statistics(right, outputs)
    found = corpus_scores.of_draws(table, corpus_scores.bleu)(draws)
    for draw, value in zip(draws, found, strict=True):
        again = corpus_scores.bleu_statistics([right[i] for i in draw], [outputs[i] for i in draw])
        assert value == pytest.approx(float(corpus_scores.bleu(again.sum(0))))
    assert found[2] == 0.0


@pytest.mark.parametrize(
    ("references", "name"),
    [
        (["The cat sat.", "été"], "13a"),
        (["我们在学习。", "猫坐在垫子上 (2024)"], "zh"),
        (["猫がマットに座った。", "学習する"], "char"),
        (["แมวนั่งบนเสื่อ"], "char"),
        (["The word 猫 means cat.", "A dog."], "13a"),
        ([], "13a"),
    ],
)
def test_words_are_told_apart_by_the_script_of_the_references(references, name):
    assert corpus_scores.bleu_tokens(references) == name


def test_chinese_is_not_one_word_a_sentence():
    from sacrebleu.metrics import BLEU

    outputs, right = ["我们在学校学习中文。"], ["我们在家里学习中文。"]
    found = float(corpus_scores.bleu(corpus_scores.bleu_statistics([right], outputs).sum(0)))
    assert 100 * found == pytest.approx(BLEU(tokenize="zh").corpus_score(outputs, [right]).score, abs=1e-6)
    assert found > 0.2


def gold(rows):
    table = rows_to_dataset([Row(f"q{i}", right[0], "user") for i, right in enumerate(rows)], ())
    return table.add_column(REFERENCES, rows)


def test_scores_hold_both_with_their_intervals_and_may_be_judged_by_them():
    right = [["the cat sat on a mat", "a cat sat there"], ["a dog ran far away"], ["it rained all day"]] * 4
    outputs = ["the cat sat on the mat", "a dog ran away", "it rained all day"] * 4
    for metric in ("bleu", "chrf++"):
        spec = TaskSpec("t", "Translate.", "generation", metric=metric)
        scores = score_predictions(spec, gold(right), outputs, resamples=200)
        assert scores.metric == metric
        assert scores.value == scores.to_json()[metric]
        low, high = scores.ci[metric]
        assert low <= scores.value <= high
        told = json.loads(json.dumps(scores.to_json()))
        assert 0 < told["bleu"] < 1
        assert told["chrf"] != told["chrf++"]
        assert told["bleu_tokens"] == "13a"


def test_two_runs_are_compared_by_them():
    right, better = ["the cat sat on a mat", "a dog ran far away"] * 10, ["the cat sat on a mat", "a dog ran off"] * 10
    for metric in ("bleu", "chrf++"):
        value, low, high = paired_interval(right, ["the cat", "dogs"] * 10, better, metric, [])
        assert 0 < low <= value <= high


@pytest.mark.parametrize("metric", TEXT_FIGURES)
def test_a_difference_is_that_of_the_scores_where_a_row_has_several_right_answers(metric):
    right = [[f"the long form of town {i}", f"town {i} by a river"] for i in range(40)]
    long, short = [row[0] if i % 2 else "wrong" for i, row in enumerate(right)], [row[1] for row in right]
    spec = TaskSpec("t", "Answer.", "generation", metric=metric)
    before, after = (score_predictions(spec, gold(right), said, resamples=10).value for said in (long, short))
    first = [row[0] for row in right]
    value, low, high = paired_interval(first, long, short, metric, [], references=right)
    assert value == pytest.approx(after - before)
    assert 0 < low <= value <= high
    assert paired_interval(first, long, short, "exact_match", [])[0] < 0, "of one answer it is another question"


@pytest.mark.parametrize("metric", ["chrf", "chrf++", "bleu"])
def test_a_terminal_of_80_columns_shows_the_interval_whole(metric, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    figures = ("exact_match", "token_f1", "rouge_l", "chrf", "chrf++", "bleu")
    system = {"name": "student", "ci": {metric: [0.123, 0.456]}, "size_mib": 257.0, "latency_ms": {"p50": 2388.6}}
    system |= dict.fromkeys(figures, 0.25)
    print_scores({"metric": metric, "test_set": {"rows": 60, "kind": "real"}, "systems": [system]})
    shown = capsys.readouterr().out
    assert "0.12–0.46" in shown
    assert "chrf++" in shown
    assert "bleu" in shown


@pytest.mark.parametrize("metric", ["bleu", "chrf++"])
def test_a_task_file_may_name_them(tmp_path, metric):
    path = tmp_path / "task.md"
    path.write_text(f"---\nkind: generation\nmetric: {metric}\n---\nTranslate a sentence into German.\n")
    assert read_task_file(path).spec.metric == metric
    path.write_text(f"---\nlabels: [a, b]\nmetric: {metric}\n---\nSort texts.\n")
    with pytest.raises(TaskError, match="metric"):
        read_task_file(path)
