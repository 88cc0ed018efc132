"""Whether two inputs say the same: which tasks ask it, and what the likeness of the inputs tells."""

from __future__ import annotations

import numpy as np
import pytest

from potstill.datagen.evidence import join_opinions
from potstill.datagen.likeness import label_of_same, likeness_logits, recombined
from potstill.models import sentence_encoder
from potstill.rows import join_fields, split_fields
from potstill.task import Label, TaskSpec


def pair_task(instruction: str, *labels: str, inputs: tuple[str, ...] = ("one", "two")) -> TaskSpec:
    named = tuple(Label(*label.split(": ")) for label in labels)
    return TaskSpec("t", instruction, "classification", labels=named, inputs=inputs)


@pytest.mark.parametrize(
    ("instruction", "labels", "same"),
    [
        ("Are the two questions duplicates?", ("not_duplicate", "duplicate"), 1),
        ("Decide whether two questions are semantically equivalent.", ("0", "1"), 1),
        ("Do the two sentences mean the same?", ("no", "yes"), 1),
        ("Output 1 if the sentences are paraphrases of each other and 0 otherwise.", ("1", "0"), 0),
        ("Recognise textual entailment.", ("entailment", "not_entailment"), 0),
        ("Are the two products the same item?", ("different", "same"), 1),
        ("Compare the two offers.", ("a: they are identical", "b: they differ"), 0),
        ("Compare.", ("match", "mismatch"), 0),
        # Three answers, another question, or one that says the same of what the texts do not.
        ("Recognise textual entailment.", ("entailment", "neutral", "contradiction"), None),
        ("Which review is more positive?", ("first", "second"), None),
        ("Does the second sentence contradict the first?", ("no", "yes"), None),
        ("Are both texts by the same author?", ("same", "different"), None),
        ("Do both reviews have the same sentiment?", ("no", "yes"), None),
        ("Is the word used with the same meaning in both sentences?", ("no", "yes"), None),
        ("Which is it?", ("similar", "identical"), None),
        ("Answer the question about the passage.", ("no", "yes"), None),
    ],
)
def test_which_label_says_that_both_inputs_say_the_same(instruction: str, labels: tuple[str, ...], same: int) -> None:
    assert label_of_same(pair_task(instruction, *labels)) == same
    assert label_of_same(pair_task(instruction, *labels, inputs=("text",))) is None


@pytest.mark.real
def test_alike_pairs_are_called_the_same() -> None:
    spec = pair_task("Are the two questions duplicates?", "no", "yes")
    pairs = [
        ("How do I reset my password?", "What is the way to get a new password?"),
        ("How do I reset my password?", "Which films run tonight?"),
        ("Is it going to rain tomorrow?", "Will there be rain tomorrow?"),
        ("Is it going to rain tomorrow?", "How tall is Mont Blanc?"),
    ]
    texts = [join_fields({"one": one, "two": two}) for one, two in pairs]
    found = likeness_logits(spec, texts, sentence_encoder())
    assert found is not None
    assert found.argmax(axis=1).tolist() == [1, 0, 1, 0]
    assert np.allclose(np.exp(found).sum(axis=1), 1)
    assert np.allclose(np.exp(found).mean(axis=0), 0.5, atol=0.02), "both labels are equally common"
    assert likeness_logits(spec, [*texts, "one text alone"], sentence_encoder()) is None
    assert likeness_logits(spec, [], sentence_encoder()) is None


def test_labels_that_nobody_foresees_do_not_weigh_likeness() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    right = np.log(np.where(np.eye(2)[truth] > 0, 0.9, 0.1))
    even = np.full((200, 2), np.log(0.5))
    wrong = [int(label) for label in rng.permutation(truth)]
    assert join_opinions(even, right, wrong).encoder == 0.0
    overruled = join_opinions(even, right, wrong, overrules=True)
    assert (overruled.teacher, overruled.encoder) == (0.0, 1.0)
    assert (overruled.probs.argmax(axis=1) == truth).all()
    # A teacher that foresees its own labels is weighed as ever.
    known = join_opinions(right, even, truth.tolist(), overrules=True)
    assert known.teacher > 0
    assert known.probs.argmax(axis=1).tolist() == truth.tolist()


def test_texts_are_paired_with_others_and_with_altered_copies_of_themselves() -> None:
    fields = ("one", "two")
    given = [("the kettle in the hall is broken", "my lamp flickers all the time"), ("天气很好", "今天的天气很好啊")]
    texts = [*(join_fields(dict(zip(fields, pair, strict=True))) for pair in given), "no fields here"]
    found = recombined(texts, fields, seed=1)
    assert found == recombined(texts, fields, seed=1)
    assert 4 <= len(found) <= 8
    assert not set(found) & set(texts)
    parts = {part for pair in given for part in pair}
    for text in found:
        pair = split_fields(text, fields)
        assert pair is not None
        one, two = pair
        assert one in parts
        assert one != two
        assert two in parts or set(two) <= {*one, " "}
    assert recombined(texts[2:], fields) == []
