"""How common a prompt says its labels are, and what is no share of a label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.task import Label
from potstill.task.draft import draft_task, read_prompt
from potstill.task.file import read_task, read_task_file
from potstill.task.shares import shares_of

_SAID = [
    ("Classify text messages as spam or ham. About one in ten messages is spam.", {"spam": 0.1, "ham": 0.9}),
    ("Classify tickets as billing (40%), bug (10%) or other.", {"billing": 0.4, "bug": 0.1, "other": 0.5}),
    ("Is the review positive or negative? 80% are positive.", {"positive": 0.8, "negative": 0.2}),
    ("Classify payments as fraud or legitimate; about 1 in 200 is fraud.", {"fraud": 0.005, "legitimate": 0.995}),
    ("Classify messages as spam (about 5 % of them) or ham.", {"spam": 0.05, "ham": 0.95}),
    (
        "Sort emails into:\n- urgent: 10%, needs an answer today\n- normal: most of them\n- junk: 30 %\n",
        {"urgent": 0.1, "normal": 0.6, "junk": 0.3},
    ),
    ("Decide whether a comment is toxic. Roughly 3% of comments are toxic.", {"yes": 0.03, "no": 0.97}),
    (
        "Label tweets as hate, offensive or neither. 80% are neither, 15% are offensive and 5% are hate.",
        {"hate": 0.05, "offensive": 0.15, "neither": 0.8},
    ),
    ("Sort reviews into positive and negative. Two thirds of our reviews are positive.", {"positive": 0.666667}),
    ("Spam makes up 15 percent of the mail. Say whether an email is spam or ham.", {"spam": 0.15, "ham": 0.85}),
    ("Is the claim true or false? 20% of the claims are false.", {"true": 0.8, "false": 0.2}),
]
_NOT_SAID = [
    "Classify the tone: rude or polite. If half of the words are rude, answer rude.",
    "Grade the essay as A (90%), B (80%) or C (70%).",
    "Classify a discount as low (10%), medium (25%) or high (more than 50%).",
    "Label as positive if more than 50% of the sentences are positive, else as negative.",
    "Tell whether the answer is right or wrong. Answers that are 100% right are right.",
    # Half of it is not understood, and half of it would be a wrong share for the rest.
    "Classify a headline as sport, politics or weather; sport is 50 %, politics 30 %.",
    "Classify mails as spam, phishing or ham. 5% are spam or phishing.",
    "Classify mails as spam or ham. 20% are spam. 30% are spam.",
]


@pytest.mark.parametrize(("prompt", "shares"), _SAID, ids=range(len(_SAID)))
def test_a_prompt_says_how_common_labels_are(prompt: str, shares: dict[str, float]) -> None:
    spec = read_task(prompt)
    assert {name: spec.label_prior[name] for name in shares} == pytest.approx(shares, abs=1e-5)
    assert sum(spec.label_prior.values()) == pytest.approx(1, abs=1e-4)
    assert [item.field for item in spec.inferred].count("label_prior") == 1


@pytest.mark.parametrize("prompt", _NOT_SAID)
def test_what_is_no_share_of_a_label_is_not_read_as_one(prompt: str) -> None:
    spec = read_task(prompt)
    assert spec.kind == "classification"
    assert spec.label_prior == {}


def test_a_remark_that_is_a_share_says_nothing_of_what_belongs_there() -> None:
    spec = read_task("Sort emails into:\n- urgent: 10%, needs an answer today\n- normal: all others\n- junk: 30 %\n")
    assert [label.description for label in spec.labels] == ["needs an answer today", "all others", ""]


def test_what_the_file_states_wins() -> None:
    spec = read_task("---\nlabel_prior: {spam: 30, ham: 70}\n---\nSort mail as spam or ham. 5% of mail is spam.")
    assert spec.label_prior == {"spam": 0.3, "ham": 0.7}
    estimated = read_task("---\nlabel_prior: estimate\n---\nSort mail as spam or ham. 5% of mail is spam.")
    assert estimated.label_prior == {}
    assert estimated.estimate_prior


def test_a_drafted_file_states_the_shares_and_reads_back() -> None:
    prompt = "Is this comment toxic? Roughly 3% of comments are toxic."
    text = draft_task(prompt, read_prompt(prompt))
    assert 'label_prior: {"yes": 0.03, "no": 0.97}' in text
    assert read_task_file(text).spec.label_prior == {"yes": 0.03, "no": 0.97}


@given(st.text(alphabet="spam ham 0123456789%.,;()\n one in ten of are is", max_size=300))
def test_shares_are_shares_whatever_is_written(text: str) -> None:
    found = shares_of(text, [Label("spam"), Label("ham", text[:40])])
    assert not found or (sum(found.values()) == pytest.approx(1, abs=1e-4) and min(found.values()) > 0)
