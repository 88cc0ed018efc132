"""Fields of the input, by what a prompt says is given."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.task.draft import Answers, draft_task, read_prompt
from potstill.task.file import read_task_file
from potstill.task.given import given_fields

WRITTEN = {
    "Answer the question using the passage. The answer is a short span of the passage.": "passage question",
    "Answer the question. The answer is a span of the context.": "context question",
    "You are given a question and a context. Answer with a short phrase.": "question context",
    "Read the passage and answer the question in one sentence.": "passage question",
    "From the passage, answer the question.": "passage question",
    "Answer the employee's question from the HR policy.": "policy question",
    "Answer questions about a Wikipedia article.": "article question",
    "Given a product title and a customer's question, write a short helpful answer.": "product_title question",
    "Given the title and the abstract of a paper, write keywords.": "title abstract",
    "Given a question and a database schema, write SQL.": "question database_schema",
    "Given a premise, a hypothesis and a label, explain the label.": "premise hypothesis",
    "Combine the two sentences into one.": "sentence1 sentence2",
    "Given a job posting and a CV, write a cover letter.": "job_posting cv",
    "Given a code snippet and an error message, propose a fix.": "code_snippet error_message",
    "Given a claim and a piece of evidence, explain whether it holds.": "claim evidence",
    "Given an essay and a rubric, give feedback.": "essay rubric",
    "Answer the question. Use only the information in the context below.": "context question",
    # One text, or what is written:
    "Given the first sentence of a story, write the second sentence.": "",
    "Write a product description from a list of features.": "",
    "Answer the medical question in one sentence.": "",
    "Convert the sentence from active to passive voice.": "",
    "Answer customers' questions about our return policy.": "",
    "Answer questions about cooking.": "",
    "Answer the question in a short paragraph.": "",
    "Answer the question with a short text.": "",
    "Answer the trivia question.": "",
    "Given a story, write a title and a summary.": "",
    "Given a review, extract the product and the opinion.": "",
    "Given a review of a phone and a charger, name the better one.": "",
    "Write a title and a description for a product.": "",
    "Write a question that the passage answers.": "",
    "Write two sentences about the topic.": "",
    "Summarise the article in two sentences.": "",
    "Summarise the dialogue between a customer and an agent.": "",
    "Summarise the passage.": "",
}
SORTED = {
    "Say whether the hypothesis follows from the premise: entailment, neutral or contradiction.": "premise hypothesis",
    "Do the two questions ask the same? yes or no": "question1 question2",
    "Answer the question with yes or no, based on the passage.": "passage question",
    "Answer a yes/no question about a passage.": "passage question",
    "Given a passage and a yes/no question, answer yes or no.": "passage question",
    "Answer the question with yes or no.": "",
    "Say whether the passage is written well: yes or no.": "",
    "Decide whether two sentences mean the same.": "sentence1 sentence2",
    "Classify sentence pairs as paraphrase or not.": "sentence1 sentence2",
    "Do the two addresses name the same place?": "address1 address2",
    "Say whether two names are of one person: yes or no.": "name1 name2",
    "Does the first sentence cause the second sentence?": "sentence1 sentence2",
    "Given a question and a passage, answer yes or no.": "question passage",
    "Is the second sentence a paraphrase of the first?": "sentence1 sentence2",
    "Which of the two headlines is clickbait: first, second or both?": "headline1 headline2",
    "Given a user review and the star rating, detect whether they disagree: yes or no.": "review star_rating",
    "Decide whether the passage answers the question.": "passage question",
    "Decide whether the claim is supported by the evidence.": "claim evidence",
    "Decide whether the summary is faithful to the article.": "summary article",
    "Does the headline match the article?": "headline article",
    "Classify a news item by its title and description: world, sports, business.": "title description",
    "Classify an email by its subject and body as spam or ham.": "subject body",
    "Given a search query and a product title, say whether the product is relevant.": "search_query product_title",
    "Classify news articles by topic: world, sports, business.": "",
    "Classify the support ticket as billing, bug or other.": "",
    "Say whether the review mentions a question.": "",
    "Detect whether a comment is toxic or a question.": "",
    "Does this review express a positive or a negative opinion?": "",
    "Read the news article and label it as world, sports, business.": "",
}


@pytest.mark.parametrize(("instruction", "fields"), WRITTEN.items())
def test_fields_that_a_task_of_writing_gives(instruction: str, fields: str) -> None:
    assert given_fields(instruction, "generation") == tuple(fields.split())


@pytest.mark.parametrize(("instruction", "fields"), SORTED.items())
def test_fields_that_a_task_of_sorting_gives(instruction: str, fields: str) -> None:
    assert given_fields(instruction, "classification") == tuple(fields.split())


@given(st.text(max_size=300), st.sampled_from(["generation", "classification", "instructions"]))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read(text: str, kind: str) -> None:
    fields = given_fields(f"Given a {text} and a {text[::-1]}, answer the question about the {text}", kind)
    assert len(set(fields)) == len(fields) != 1
    assert all(name.strip() for name in fields)


@pytest.mark.parametrize(
    "text",
    ["given a x of " + "a" * 1980, "given a " * 250, "the " * 500, "first word " + "x " * 900 + "second", "a-" * 1000],
)
def test_no_text_takes_long_to_read(text: str) -> None:
    began = time.process_time()
    given_fields(text, "classification")
    assert time.process_time() - began < 2


def _inputs(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "task.md"
    path.write_text(text)
    return read_task_file(path).spec.inputs


def test_the_user_has_the_last_word(tmp_path: Path) -> None:
    prompt = "Answer the question using the passage.\n"
    found = read_task_file(prompt).spec
    assert found.inputs == ("passage", "question")
    assert [(item.value, item.how) for item in found.inferred if item.field == "inputs"] == [
        ("passage, question", "rules")
    ]
    assert _inputs(tmp_path, f"---\ninputs: [text]\n---\n{prompt}") == ("text",)
    assert _inputs(tmp_path, f"---\ninputs: [question, page]\n---\n{prompt}") == ("question", "page")


def test_data_and_examples_win_over_the_prompt(tmp_path: Path) -> None:
    prompt = "Answer the question using the passage.\n"
    (tmp_path / "test.jsonl").write_text('{"input": "one", "output": "two"}\n')
    assert _inputs(tmp_path, f"---\ntest: test.jsonl\n---\n{prompt}") == ()
    one = "## Examples\n\nInput: Who came? It was Ana.\nOutput: Ana\n"
    assert _inputs(tmp_path, f"{prompt}\n{one}") == ()
    both = "## Examples\n\nInput: Passage: It was Ana.\nQuestion: Who came?\nOutput: Ana\n"
    assert _inputs(tmp_path, f"{prompt}\n{both}") == ("Passage", "Question")


def test_a_draft_says_which_fields_were_read(tmp_path: Path) -> None:
    prompt = "Answer the question using the passage."
    spec = read_prompt(prompt)
    assert "\ninputs: [passage, question] " in draft_task(prompt, spec)
    # The user's own rows may hold both in one text.
    (tmp_path / "rows.jsonl").write_text('{"input": "one", "output": "two"}\n')
    with_rows = draft_task(prompt, spec, Answers(test=str(tmp_path / "rows.jsonl")))
    assert "\n# inputs: [passage, question] " in with_rows
    assert read_task_file(prompt).spec.inputs == spec.inputs
    assert "\n# inputs: [premise, hypothesis] " in draft_task("Name a tree.", read_prompt("Name a tree."))
