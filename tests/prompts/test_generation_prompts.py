"""What the generation prompts say, word for word."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from potstill import prompts

BASE: dict[str, Any] = {
    "instruction": "Classify a news article by topic.",
    "noun": "news article",
    "article": "a",
    "label": "Sports",
    "description": "",
    "others": [],
    "fields": [],
    "examples": [],
    "style": [],
    "avoid": [],
    "topic": "",
    "manners": [],
    "persona": "",
    "language": "",
    "count": 1,
    "json": False,
}
FULL: dict[str, Any] = BASE | {
    "description": "matches, athletes and clubs",
    "others": ["World", "Business"],
    "examples": ["The keeper saved two penalties."],
    "style": ["Shares rose on Monday."],
    "avoid": ["The coach resigned."],
    "topic": "rowing",
    "manners": ["length: short", "register: formal"],
}
DIMENSION: dict[str, Any] = {
    "instruction": BASE["instruction"],
    "noun": "news article",
    "dimension": "register",
    "meaning": "its tone and formality",
    "labels": ["World", "Sports"],
    "count": 8,
    "json": False,
}

WRITE_FOR_LABEL = """\
Task: Classify a news article by topic.

Write one new, realistic news article whose answer is "Sports" (matches, athletes and clubs).
It must not fit any of: World, Business.
Write only the text. Do not name the answer.

Examples of news article whose answer is "Sports":
- The keeper saved two penalties.

Texts in the style that is wanted:
- Shares rose on Monday.

Already written, do not repeat or rephrase:
- The coach resigned.

Now write it about rowing (length: short; register: formal); the answer is "Sports"."""

WRITE_FOR_LABEL_BARE = """\
Task: Classify a news article by topic.

Write one new, realistic news article whose answer is "Sports".
Write only the text. Do not name the answer."""

WRITE_INPUT = """\
Here is a task that somebody will be given: Classify a news article by topic.

Write one new, realistic input for this task. Do not do the task.
Write only the input."""

SCORE = """\
Classify a news article by topic.

A {{ 7 * 7 }} text

Answer with one of: World, Sports."""

TOPICS = """\
List 20 different, specific subjects that a news article of the category "Sports" can be about.
Each in two to five words, as a numbered list."""

VALUES = """\
Task: Classify a news article by topic.

New inputs of this task (news article) are to be written, each in another register: its tone and formality. \
List 8 different values of register that real ones have.
Each must suit every answer, so name none of them: World, Sports.
Each in one to six words, as a numbered list."""

DESCRIBE = """\
Task: Classify a news article by topic.

Other answers are World, Business.
In one short sentence, what kind of text gets the answer "Sports"?"""


SHORT = """\
Examples:
- The keeper saved two penalties.

Examples of the style:
- Shares rose on Monday.

Already written:
- The coach resigned.

Write a news article of the category "Sports" (matches, athletes and clubs) about rowing. Make it short and formal."""

BOOTSTRAP = """\
Come up with a series of different tasks that a text assistant can do without pictures, files or the internet.
Most of them fit this purpose: Help at a desk.

1. Name a colour.
2. Write a rhyme.

Continue the list from 3 to 9. Write one task a line and nothing else."""

BOOTSTRAP_OPENED = """\
Come up with a series of 9 different tasks that a text assistant can do without pictures, files or the internet.

Write a numbered list, one task a line, the new ones in German."""

BEGUN: dict[str, Any] = {
    "instructions": ["Name a colour.", "Write a rhyme."],
    "last": 9,
    "opened": False,
    "purpose": "",
    "persona": "",
    "language": "",
}

CLASSIFY = """\
Is the task a classification task, that is, does its answer come from a small fixed set of labels?

Task: Name a colour.
Is it classification? No

Task: Is it prime?
Is it classification? Answer Yes or No."""

INPUT_FIRST = """\
For each task, write an example: an input where the task needs one (else "none"), and the right output, in this form:
Input: ...
Output: ...

Task: Name a colour.
Input: none
Output: red

Task: Write a rhyme."""

OUTPUT_FIRST = """\
For each classification task, go through its possible labels and write an input for each ("none" where the task needs \
none), in this form:
Class label: ...
Input: ...

Task: Is it prime?
Class label: yes
Input: 7
Class label: no
Input: 8

Task: Is it even?"""


@pytest.mark.parametrize(
    ("name", "variables", "text"),
    [
        ("write_for_label", FULL, WRITE_FOR_LABEL),
        ("write_for_label", BASE, WRITE_FOR_LABEL_BARE),
        ("write_for_label_short", FULL | {"manners": ["short", "formal"]}, SHORT),
        ("write_input", BASE, WRITE_INPUT),
        ("self_instruct_bootstrap", BEGUN | {"purpose": "Help at a desk."}, BOOTSTRAP),
        ("self_instruct_bootstrap", BEGUN | {"opened": True, "language": "German"}, BOOTSTRAP_OPENED),
        (
            "self_instruct_classify",
            {
                "examples": [{"instruction": "Name a colour.", "is_classification": False}],
                "instruction": "Is it prime?",
            },
            CLASSIFY,
        ),
        (
            "self_instruct_input_first",
            {
                "examples": [{"instruction": "Name a colour.", "input": "", "output": "red"}],
                "instruction": "Write a rhyme.",
                "opened": False,
            },
            INPUT_FIRST,
        ),
        (
            "self_instruct_output_first",
            {
                "examples": [
                    {
                        "instruction": "Is it prime?",
                        "instances": [{"input": "7", "output": "yes"}, {"input": "8", "output": "no"}],
                    }
                ],
                "instruction": "Is it even?",
                "opened": False,
            },
            OUTPUT_FIRST,
        ),
        (
            "self_instruct_input_first",
            {"examples": [{}], "instruction": "Write a rhyme.", "opened": True},
            INPUT_FIRST.split("\n\n")[0],
        ),
        (
            "self_instruct_output_first",
            {"examples": [{}], "instruction": "Is it even?", "opened": True},
            OUTPUT_FIRST.split("\n\n")[0],
        ),
        (
            "score_label",
            {
                "instruction": BASE["instruction"],
                "about": "",
                "input": "A {{ 7 * 7 }} text",
                "labels": ["World", "Sports"],
            },
            SCORE,
        ),
        (
            "choose_label",
            {
                "instruction": BASE["instruction"],
                "about": "",
                "input": "A {{ 7 * 7 }} text",
                "labels": [f"l{i}" for i in range(30)],
            },
            f"{BASE['instruction']}\n\nA {{{{ 7 * 7 }}}} text\n\nAnswer with one of these names and nothing else: "
            f"{', '.join(f'l{i}' for i in range(30))}.",
        ),
        ("score_text", {"input": "A {{ 7 * 7 }} text", "framed": False}, "A {{ 7 * 7 }} text"),
        ("score_text", {"input": "A text", "framed": True}, "Text: A text"),
        ("propose_topics", BASE | {"count": 20}, TOPICS),
        ("propose_values", DIMENSION, VALUES),
        (
            "propose_values",
            DIMENSION | {"labels": [], "json": True},
            VALUES.split("Each must")[0] + 'Reply with a JSON object whose "values" are 8 phrases of one to six words.',
        ),
        (
            "describe_label",
            {"instruction": BASE["instruction"], "label": "Sports", "others": ["World", "Business"]},
            DESCRIBE,
        ),
    ],
)
def test_rendered(name: str, variables: dict[str, Any], text: str) -> None:
    assert prompts.load(name).render(**variables) == text


@pytest.mark.parametrize("name", ["write_for_label", "write_for_label_short", "write_input"])
def test_the_language_is_asked_for(name: str) -> None:
    prompt = prompts.load(name)
    assert "in Japanese" in prompt.render(**FULL | {"language": "Japanese"})
    assert "Japanese" not in prompt.render(**FULL)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("write_for_label", "; register: formal), as a night porter would; the"),
        ("write_for_label_short", " Write it as a night porter would."),
        ("write_input", ", as a night porter would write."),
    ],
)
def test_who_writes_it_is_told(name: str, said: str) -> None:
    prompt = prompts.load(name)
    assert said in prompt.render(**FULL | {"persona": "a night porter"})
    assert "porter" not in prompt.render(**FULL)


def test_who_new_instructions_are_from_is_told() -> None:
    text = prompts.load("self_instruct_bootstrap").render(**BEGUN | {"persona": "a night porter"})
    assert "The new ones are what a night porter would ask for." in text


@pytest.mark.parametrize("name", ["write_for_label", "write_input"])
def test_forms_of_the_reply(name: str) -> None:
    prompt = prompts.load(name)
    fields = BASE | {"fields": ["title", "text"]}
    assert prompt.render(**fields).endswith("Write it in this form:\ntitle: ...\ntext: ...")
    assert 'whose "texts" are 3 objects with the fields title, text.' in prompt.render(
        **fields | {"json": True, "count": 3}
    )
    assert 'whose "texts" are 3 strings.' in prompt.render(**BASE | {"json": True, "count": 3})
    assert prompt.render(**BASE | {"count": 3}).endswith("Write them as a numbered list and nothing else.")


@pytest.mark.parametrize(
    "name",
    [
        "write_for_label",
        "write_for_label_short",
        "write_input",
        "score_label",
        "choose_label",
        "about_labels",
        "score_text",
        "propose_topics",
        "propose_values",
        "describe_label",
        "explain_answer",
    ],
)
def test_every_prompt_says_what_it_is_for_and_misses_no_variable(name: str) -> None:
    prompt = prompts.load(name)
    assert prompt.source.startswith("{#-\n  Purpose: ")
    assert "Source:" in prompt.source
    with pytest.raises(jinja2.UndefinedError):
        prompt.render()


def test_judge_row() -> None:
    values = {"instruction": "Classify a news article by topic.", "input": "The keeper saved two.", "output": "Sports"}
    assert prompts.load("judge_row").render(**values, description="matches") == (
        "Task: Classify a news article by topic.\n\nText:\nThe keeper saved two.\n\nProposed answer: Sports\n"
        '("Sports" means: matches)\n\nIs the proposed answer right for this text? Answer with Yes or No.'
    )
    assert "means" not in prompts.load("judge_row").render(**values, description="")


def test_explain_answer() -> None:
    values = {"instruction": "Give the number of legs.", "input": "Two spiders.", "output": "16"}
    assert prompts.load("explain_answer").render(**values, language="") == (
        "Task: Give the number of legs.\n\nInput:\nTwo spiders.\n\nRight answer:\n16\n\n"
        "Explain step by step how the right answer follows from the input. Write a few short sentences about this "
        "input alone, without a list and without a greeting."
    )
    assert "follows from the input in German." in prompts.load("explain_answer").render(**values, language="German")
