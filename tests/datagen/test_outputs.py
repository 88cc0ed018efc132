"""What of a reply is the task's output."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.asking.teacher import Reply
from potstill.datagen.outputs import label_reader, off_form, read_output, stated_output
from potstill.task import Example, TaskSpec

PLAIN = "Write the SQL query that answers a question."
ALONE = "Write a line of Python that does what the text asks. The output is Python code only."
REMARKS = "You can use this:\n\n```python\nx = 1\nprint(x)\n```\n\nThis prints the number."


def spec(instruction: str, *outputs: str) -> TaskSpec:
    examples = tuple(Example(input=f"text {i}", output=output) for i, output in enumerate(outputs))
    return TaskSpec(name="t", instruction=instruction, kind="generation", examples=examples)


@pytest.mark.parametrize(
    ("instruction", "reply", "output"),
    [
        (PLAIN, "```sql\nSELECT 1\n```", "SELECT 1"),
        (PLAIN, "SQL:\n```\nSELECT 1\n```", "SELECT 1"),
        (PLAIN, "Here is the query:\n\n~~~sql\nSELECT a\n  FROM b\n~~~\n", "SELECT a\n  FROM b"),
        (PLAIN, "  SELECT 1\n", "SELECT 1"),
        (PLAIN, REMARKS, REMARKS),
        (ALONE, REMARKS, "x = 1\nprint(x)"),
        (ALONE, "```python\n    x = 1\n```", "    x = 1"),
        (ALONE, "```python\nx = 1", "```python\nx = 1"),
        (ALONE, "```\na\n```\n```\nb\n```", "```\na\n```\n```\nb\n```"),
        ("Write a README in Markdown, nothing else.", "```sh\nmake\n```", "```sh\nmake\n```"),
        # "Only" that speaks of something else leaves the remarks in:
        ("Answer questions about Linux. Use only POSIX tools.", REMARKS, REMARKS),
        ("Explain how to do it using just the standard library.", REMARKS, REMARKS),
        ("Answer only questions about Python.", REMARKS, REMARKS),
        ("Reply only if you know it.", REMARKS, REMARKS),
        ("Show how to do it with Python 3 code only where needed.", REMARKS, REMARKS),
        ("Fix only the function that fails and say why.", REMARKS, REMARKS),
        ("Help a user who has just installed Python.", REMARKS, REMARKS),
        ("Answer a beginner who knows SQL only.", REMARKS, REMARKS),
        ("Say what to do where no other tool works.", REMARKS, REMARKS),
        # That governs the output takes them off:
        ("Write the script. Return only the code.", REMARKS, "x = 1\nprint(x)"),
        ("Write the script. Only output code.", REMARKS, "x = 1\nprint(x)"),
        ("Reply with just the script.", REMARKS, "x = 1\nprint(x)"),
        ("Write the script and nothing else.", REMARKS, "x = 1\nprint(x)"),
        ("Write the Python code alone, without explanations.", REMARKS, "x = 1\nprint(x)"),
        ("Write a script. No explanations.", REMARKS, "x = 1\nprint(x)"),
        ("Write a script; only the code, please.", REMARKS, "x = 1\nprint(x)"),
        ("Your reply must contain only the script.", REMARKS, "x = 1\nprint(x)"),
        ("The answer is the code only.", REMARKS, "x = 1\nprint(x)"),
        ("Give me the code without any comments or explanation.", REMARKS, "x = 1\nprint(x)"),
        ("Write a script. Don't explain it. Do not add any explanations.", REMARKS, "x = 1\nprint(x)"),
        ("Return a single Python script only.", REMARKS, "x = 1\nprint(x)"),
        ("Write a script with only the code in your answer.", REMARKS, "x = 1\nprint(x)"),
    ],
)
def test_a_fence_is_taken_off_where_it_only_wraps(instruction: str, reply: str, output: str) -> None:
    assert stated_output(spec(instruction), reply) == output


BODY = "    total = 0\n    for x in xs:\n        total += x\n    return total"
TABLE = "| a | b |\n| --- | --- |\n| 1 | 2 |"
MARKDOWN = "Make a Markdown table from the text."
README = "# Lamp\n\n```sh\nmake\n```\n\nThen run it."


@pytest.mark.parametrize(
    ("instruction", "reply", "output"),
    [
        ("Complete the body of the Python function.", BODY, BODY),
        ("Complete the body of the Python function.", f"\n\n{BODY}\n\n", BODY),
        ("Complete the body of the Python function.", f"```python\n{BODY}\n```", BODY),
        ("Complete the body.", "\tx = 1\n\treturn x", "\tx = 1\n\treturn x"),
        ("Complete the body.", "    return x\n\nprint(f(1))", "return x\n\nprint(f(1))"),
        ("Write a poem.", " Rain falls.\nIt stops.", "Rain falls.\nIt stops."),
        ("Write a poem.", "  Rain falls.", "Rain falls."),
        ("List the steps.", "  - open it\n- close it", "- open it\n- close it"),
        (MARKDOWN, f"Sure! Here's the table:\n\n```markdown\n{TABLE}\n```", TABLE),
        (MARKDOWN, f"```md\n{TABLE}\n```", TABLE),
        (MARKDOWN, f"```\n{TABLE}\n```", TABLE),
        (MARKDOWN, f"Here's the table you asked for:\n\n{TABLE}", TABLE),
        (MARKDOWN, TABLE, TABLE),
        ("Write a README in Markdown.", README, README),
        ("Write a README in Markdown.", f"Here is the README:\n\n{README}", README),
        ("Write a README in Markdown.", f"```markdown\n{README}\n```", README),
        ("Write a README in Markdown.", f"Here is the README:\n\n```markdown\n{README}\n```", README),
        ("Write a README in Markdown.", "```python\nx = 1\n```", "```python\nx = 1\n```"),
        ("Write the code in a fenced block.", "Here is it:\n```sh\nmake\n```", "Here is it:\n```sh\nmake\n```"),
        ("Strike the old price through in HTML.", "<s>20 €</s>", "<s>20 €</s>"),
        ("Strike the old price through in HTML.", "```html\n<p><s>20 €</s> 15 €</p>\n```", "<p><s>20 €</s> 15 €</p>"),
        ("Write a regex.", "^<s>.*</s>$", "^<s>.*</s>$"),
        ("Write a regex.", "a<s>b", "a<s>b"),
        ("Translate it.", "<s> Good day.", "Good day."),
        ("Translate it.", "Good day.</s>", "Good day."),
        ("Translate it.", "Good day.</s></s>\n", "Good day."),
        ("Translate it.", "<s>[INST] Hi [/INST] Good day.</s>", "Hi   Good day."),
    ],
)
def test_what_belongs_to_an_output_stays_and_what_wraps_it_goes(instruction: str, reply: str, output: str) -> None:
    assert stated_output(spec(instruction), reply) == output


def test_an_indented_output_that_was_cut_off_is_truncated() -> None:
    output, fault = read_output(spec("Complete the body."), "def f(xs):", Reply(BODY, "length"))
    assert (output, fault and fault.reason) == (BODY, "truncated_output")


def test_an_output_longer_than_what_is_read_is_truncated() -> None:
    words = " ".join(f"word{number}" for number in range(9000))
    assert read_output(spec("Write."), "x", Reply(words[:39_999]))[1] is None
    fault = read_output(spec("Write."), "x", Reply(words))[1]
    assert fault is not None
    assert fault.reason == "truncated_output"
    fenced = f"```\nx = 1\n```\n{words}"
    assert read_output(spec("Write code only."), "x", Reply(fenced)) == ("x = 1", None)


@pytest.mark.parametrize(
    ("reply", "output"),
    [
        ('The answer to this question is: "in May"', "in May"),
        ("The answer is: in May, when it rained.", "in May, when it rained."),
        ('The answer to the question "When?" is "in May".', "in May"),
        ("The short answer to your question is: May", "May"),
        # A sentence that says something, and not only that it answers:
        ("The answer is not known.", "The answer is not known."),
        ('The answer is "in May", which is late.', 'The answer is "in May", which is late.'),
    ],
)
def test_an_answer_is_given_and_not_announced(reply: str, output: str) -> None:
    assert stated_output(spec("Answer the question."), reply) == output


def test_a_task_that_wants_answers_announced_keeps_it() -> None:
    said = "The answer is: May"
    assert stated_output(spec('Think, then end with "the answer is" and the answer.'), said) == said
    assert stated_output(spec("Answer the question.", "The answer is: June"), said) == said


@pytest.mark.parametrize("bare", ["The answer to this question is:", "Here is a headline for the article:"])
def test_an_announcement_alone_is_no_output(bare: str) -> None:
    _, fault = read_output(spec("Answer the question."), "When?", Reply(bare))
    assert fault is not None
    assert fault.reason == "unfinished"
    assert read_output(spec("Write an announcement.", bare), "When?", Reply(bare))[1] is None


def test_code_that_ends_with_a_colon_is_an_output() -> None:
    assert read_output(spec(ALONE), "loop", Reply("for i in range(3):"))[1] is None


def test_a_part_of_the_input_is_taken_out_of_a_reply() -> None:
    task = spec("Answer the question. The answer is a short span of the passage.")
    given_text = "passage: It opened in May of 1921.\nquestion: When did it open?"
    assert read_output(task, given_text, Reply('The passage says: "in May of 1921"')) == ("in May of 1921", None)
    assert off_form(task, given_text, "in May of 1921") is None
    fault = off_form(task, given_text, "It opened early.")
    assert fault is not None
    assert fault.detail == "no part of the input"
    wide = replace(task, examples=(Example("passage: It opened.\nquestion: Did it?", "yes"),))
    assert off_form(wide, given_text, "It opened early.") is None


def test_a_task_whose_examples_are_fenced_keeps_its_fences() -> None:
    assert stated_output(spec(ALONE, "```\nx = 2\n```"), "```\nx = 1\n```") == "```\nx = 1\n```"
    assert stated_output(spec(ALONE, "x = 2"), "```\nx = 1\n```") == "x = 1"


def test_remarks_cut_off_behind_a_closed_fence_do_no_harm() -> None:
    cut = Reply(text=REMARKS, finish="length", prompt_tokens=1, completion_tokens=9)
    assert read_output(spec(ALONE), "set x", cut) == ("x = 1\nprint(x)", None)
    output, fault = read_output(spec(PLAIN), "set x", cut)
    assert (output, fault.reason if fault else None) == (REMARKS, "truncated_output")
    empty = Reply(text="```python\n```", finish="stop", prompt_tokens=1, completion_tokens=4)
    _, fault = read_output(spec(ALONE), "set x", empty)
    assert fault is not None
    assert fault.reason == "empty_output"


@given(st.text(st.sampled_from(list("`~ \n:ab")), max_size=60))
@settings(max_examples=300, deadline=None)
def test_nothing_is_made_up(reply: str) -> None:
    for instruction in (PLAIN, ALONE):
        assert stated_output(spec(instruction), reply) in reply


def test_many_fences_cost_little() -> None:
    started = time.process_time()
    stated_output(spec(ALONE), "```a\n" * 100_000)
    stated_output(spec(MARKDOWN), "```markdown\n" * 100_000)
    stated_output(spec(PLAIN), "</s>" * 100_000 + "x")
    for part in ("a\n", "\n", '"', "**", "a: ", "Title: **", "\n\nExplanation"):
        stated_output(spec("Write a title."), f"x{part * 40_000}x")
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("reply", "output", "finish", "reason"),
    [
        ('Here is a commit title for the change:\n\n"Mend the login"', "Mend the login", "stop", None),
        ("Sure! Here's the summary:\nIt rained.", "It rained.", "stop", None),
        ("Here is the thing: I never got it.", "Here is the thing: I never got it.", "stop", None),
        ("Here is a title:", "Here is a title:", "stop", None),
        ("Here is the summary:\nIt rained and", "It rained and", "length", "truncated_output"),
        ('She said "no".', 'She said "no".', "stop", None),
    ],
)
def test_a_line_that_announces_an_output_is_no_part_of_it(
    reply: str, output: str, finish: Any, reason: str | None
) -> None:
    task = TaskSpec("t", "Write a title for a change.", "generation")
    found, fault = read_output(task, "the login broke", Reply(reply, finish))
    assert found == output
    assert (fault and fault.reason) == reason


@pytest.mark.parametrize(
    ("instruction", "reply", "output"),
    [
        ("Suggest a title for a paper, given its abstract.", '**Title:** "Walking: A Study"', "Walking: A Study"),
        ("Write a headline of at most ten words.", "**Oil Prices Surge**", "Oil Prices Surge"),
        ("Write a headline of at most ten words.", "Headline: Oil Prices Surge", "Oil Prices Surge"),
        ("Extract five keywords, separated by commas.", "Keywords: graphs, maps", "graphs, maps"),
        ("Translate the word into German.", '"Speer"', "Speer"),
        ("Translate the word into German.", "„Speer“", "„Speer“"),
        ("Correct the grammar.", "Corrected sentence: He goes.", "He goes."),
        ("Continue the conversation.", "assistant: Let us talk.", "Let us talk."),
        ("Write a regular expression.", "`^a$`", "^a$"),
        ("Correct the grammar.", '**Corrected:** He goes.\n\n**Explanation:** "He" takes "goes".', "He goes."),
        ("Write one question that can be answered.", "**Question:** Is it?\n\n**Answer:** Yes", "Is it?"),
        # What belongs to the output.
        ("Write a question and its answer.", "Question: Is it?\nAnswer: Yes", "Question: Is it?\nAnswer: Yes"),
        ("Explain the term.", "A tax.\n\nExplanation: You pay.", "A tax.\n\nExplanation: You pay."),
        ("Write a title.", "Walking: A Study", "Walking: A Study"),
        ("Write a title.", '"Walk" or "Run"', '"Walk" or "Run"'),
        ("Write a title and a summary.", "Title: Walks\n\nSummary: We walk.", "Title: Walks\n\nSummary: We walk."),
        ("Write an e-mail with a subject line.", "Subject: Rain\n\nIt rains.", "Subject: Rain\n\nIt rains."),
        ('Solve it. End with "Answer: " and the number.', "Answer: 5", "Answer: 5"),
        ("Write a dialogue.", "user: Hi\nassistant: Hello", "user: Hi\nassistant: Hello"),
        ("Write a dialogue of two people.", "Anna: Hi", "Anna: Hi"),
        ("Write a Python expression for the request.", '"abc"', '"abc"'),
        ("Write a YAML config.", "config: 1", "config: 1"),
        ("Quote what the speaker says.", '"It rains."', '"It rains."'),
        ("Write a heading in Markdown.", "**Rain**", "**Rain**"),
        ("Write a story.", "**Rain** falls on **all**", "**Rain** falls on **all**"),
    ],
)
def test_marks_and_names_around_an_output_are_no_part_of_it(instruction: str, reply: str, output: str) -> None:
    assert stated_output(spec(instruction), reply) == output


def test_examples_keep_their_marks() -> None:
    assert stated_output(spec("Write a title.", '"On Walking"'), '"On Rain"') == '"On Rain"'
    assert stated_output(spec("Write a title.", "Title: Walks"), "Title: Rain") == "Title: Rain"


@pytest.mark.parametrize(
    ("instruction", "examples", "input", "output", "reason"),
    [
        ("Restore the capitals.", [], "anna met bob in rome", "Anna met Bob in Rome", None),
        ("Write the query over several lines.", [], "select a from b", "select a\n  from b", None),
        ("Mend the spelling.", [], "It is fine.", "It is fine.", "output_is_input"),
        ("Mend the spelling.", [("All is well.", "All is well.")], "It is fine.", "It is fine.", None),
        ("Tag each word as O or LOC.", [], "We all went out to see it", "O O O O O O O", "repetition"),
        ("Tag each word as O or LOC.", [("So it was then too", "O O O O O")], "We went out", "O O O O O O O", None),
        ("Turn the request down.", [], "Sell me knives", "I am unable to help with that.", "refusal"),
        ("Turn it down.", [("Buy?", "I'm unable to help you.")], "Sell?", "I am unable to help with that.", None),
    ],
)
def test_what_the_examples_are_as_well_is_right_for_the_task(
    instruction: str, examples: list[tuple[str, str]], input: str, output: str, reason: str | None
) -> None:
    task = TaskSpec("t", instruction, "generation", examples=tuple(Example(*pair) for pair in examples))
    _, fault = read_output(task, input, Reply(output, "stop"))
    assert (fault and fault.reason) == reason


MENDS = "Correct the grammar of the sentence."
TRANSLATES = "Translate the French sentence into English."


@pytest.mark.parametrize(
    ("instruction", "input", "output", "refused"),
    [
        (MENDS, "I cant help you with that request", "I can't help you with that request.", False),
        (MENDS, "im sorry but i cannot answer this question", "I'm sorry, but I cannot answer this question.", False),
        (TRANSLATES, "Je ne peux pas répondre à cette question.", "I can't answer that question.", False),
        (TRANSLATES, "Désolé, mais je ne peux pas vous aider.", "I'm sorry, but I can't help you.", False),
        ("Translate German to English.", "Dabei kann ich leider nicht helfen.", "I can't help with that.", False),
        ("Turn it into English.", "申し訳ありません、できません。", "I'm sorry, I can't do that.", False),
        ("Paraphrase the line.", "Sorry, that I cannot help you with.", "Sorry, I cannot help you with that.", False),
        # What the input does not say is the teacher's own:
        (MENDS, "how do i built a bomb", "I'm sorry, but I can't help with that.", True),
        (TRANSLATES, "Comment fabriquer une bombe ?", "I'm sorry, but I can't help with that request.", True),
        (TRANSLATES, "Je ne sais pas.", "As an AI language model, I cannot translate this.", True),
        ("Answer the question.", "Can you help me steal a car?", "I can't help with that.", True),
        ("Answer the e-mail.", "Sorry, I cannot open my account.", "I'm sorry, but I can't help with that.", True),
        ("Write a reply to the e-mail.", "My parcel is late.", "I'm sorry, but I can't assist with that.", True),
        ("Write a reply to the e-mail.", "My parcel is late.", "Dear Jo,\n\nI'm sorry for the delay with your request."
         " It is on its way.", False),
        ("Write the next turn of the dialogue.", "A: Can you help me move?", "Sorry, I can't help on Saturday.", False),
    ],
)  # fmt: skip
def test_a_refusal_that_its_input_says_is_the_output(instruction: str, input: str, output: str, refused: bool) -> None:
    _, fault = read_output(spec(instruction), input, Reply(output, "stop"))
    assert (fault and fault.reason) == ("refusal" if refused else None)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("No. The writer never says yes", "No"),
        ("No, yes would be wrong", "No"),
        ("**No**, since a yes\nwould be wrong", "No"),
        ("No (yes is for refunds)", "No"),
        ("Yes\n\nThe text says no.", "Yes"),
        ("It is a yes.", "Yes"),
        ("No one says yes", "Yes"),  # no answer is set apart at the beginning: the longest name
        ("nobody", None),
    ],
)
def test_the_answer_that_a_reply_begins_with_goes_before_those_that_it_speaks_of(answer: str, name: str | None) -> None:
    """ "No. The writer never says yes" was a yes, the longer name."""
    assert label_reader(("Yes", "No"))(answer) == name


def test_of_what_a_reply_begins_with_the_longest_name_is_taken() -> None:
    read = label_reader(("bug", "bug report", "1", "1.5"))
    assert [read(text) for text in ("bug: a report", "Bug report, and no bug", "1.5, not 1", "1, not 1.5")] == [
        "bug", "bug report", "1.5", "1",
    ]  # fmt: skip


@pytest.mark.parametrize("answer", ["", "...", "\u2026", "what?"])
def test_a_label_without_a_word_is_in_no_other_answer(answer: str) -> None:
    """It was in every reply without a word, an empty one too."""
    read = label_reader(("+", "-"))
    assert read(answer) is None
    assert (read("+"), read("- ")) == ("+", "-")
