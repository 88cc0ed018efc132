"""What a task's inputs are called in prompts to the teacher: it decides what the teacher writes."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.datagen.long_kinds import input_words
from potstill.datagen.wording import input_noun, with_article
from potstill.task import Label, TaskSpec


def noun(instruction: str) -> str:
    return input_noun(TaskSpec("t", instruction, "generation"))


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Classify customer support messages of an online shop by what the customer wants: refund or other.",
         "customer support message of an online shop"),
        ("Classify support tickets as billing, bug or other.", "support ticket"),
        ("Label tweets by emotion.", "tweet"),
        ("Sort incoming emails into urgent and not urgent.", "incoming email"),
        ("Sort the messages of our help desk by urgency.", "message of our help desk"),
        ("Categorize recipes into cuisines.", "recipe"),
        ("Classify questions asked by students as factual or procedural.", "question"),
        ("Rate the essays of pupils from 1 to 5.", "essay of pupils"),
        ("Classify a doctor's notes by urgency.", "doctor's note"),
        ("Translate sentences from English to German.", "sentence"),
        ("Translate English sentences to French.", "English sentence"),
        ("Summarise the notes of a short work meeting in one sentence.", "note of a short work meeting"),
        ("Summarise the abstract of a scientific paper in one short sentence (a TLDR).",
         "abstract of a scientific paper"),
        ("Answer questions about a passage.", "question about a passage"),
        ("Summarize a customer call transcript in three bullet points.", "customer call transcript"),
        ("Rewrite the sentence in the past tense.", "sentence"),
        ("Rewrite a clause of a contract in plain words.", "clause of a contract"),
        ("Write a tweet (max. 30 words) about a news article.", "news article"),
        ("Write a haiku about a topic.", "topic"),
        ("Write a Python function that does what the docstring says.", "docstring"),
        ("Write SQL that answers a question.", "question"),
        ("Generate a shell command from an English request.", "English request"),
        ("Write a reply to a customer's e-mail.", "customer's e-mail"),
        ("Write a slogan for a new product.", "new product"),
        ("Correct the mistakes of a post in a forum.", "post"),
    ],
)  # fmt: skip
def test_the_object_of_the_first_verb(instruction: str, expected: str) -> None:
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Classify a news article, given its title and first lines, by topic.", "news article"),
        ("Classify a sports headline by league.", "sports headline"),
        ("Given a message that a customer sent to an online bank, name the intent behind it.",
         "message that a customer sent to an online bank"),
        ("Given a request to a voice assistant, name the intent.", "request to a voice assistant"),
        ("Decide whether a sentence states a fact about a film plot or expresses an opinion.", "sentence"),
        ("Classify the sentiment of a tweet.", "tweet"),
        ("Detect whether the following movie review is positive or negative.", "movie review"),
        ("Classify each of the following product titles into a department.", "product title"),
        ("Is this comment toxic?", "comment"),
        ("Is this email spam or not?", "email"),
        ("Does this review recommend the product?", "review"),
        ("Decide whether an app review reports a bug, requests a feature, or neither.", "app review"),
        ("Find the date that a sentence names and write it as YYYY-MM-DD.", "sentence"),
        ("Judge the opinion in a short customer review of a household or electronic product.", "short customer review"),
        ("Label each customer complaint with the product it is about.", "customer complaint"),
        ("Assign a medical question to one of the specialties.", "medical question"),
    ],
)  # fmt: skip
def test_a_phrase_with_its_article(instruction: str, expected: str) -> None:
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Detect spam in SMS messages.", "SMS message"),
        ("Identify the sentiment of product reviews.", "product review"),
        ("Predict the star rating of hotel reviews.", "hotel review"),
    ],
)
def test_a_plural_after_a_preposition(instruction: str, expected: str) -> None:
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Given a natural language request, write a bash command.", "natural language request"),
        ("Give a title to a blog post.", "blog post"),
        ("Read a complaint and draft a polite reply.", "complaint"),
        ("Estimate the cost of the supplies required to create the given project.", "project"),
        ("Given the headline, write a short article.", "headline"),
        ("Correct the spelling and grammar of the sentence.", "sentence"),
        ("Convert a word to its plural.", "word"),
        ("Say the time in words for a clock time such as 14:35.", "clock time"),
        ("Write a subject line for an email.", "email"),
        ("Draft a reply to a review of our restaurant.", "review of our restaurant"),
        ("Generate a title for the given blog post.", "blog post"),
        ("Write a story for a child.", "text"),
        ("Reply politely to complaints of guests.", "complaint of guests"),
        ("Comment on the headline in one sentence.", "headline"),
    ],
)
def test_what_is_to_be_written_is_no_input(instruction: str, expected: str) -> None:
    """An opened teacher goes on with what it is told to write: a command where a request was wanted."""
    assert noun(instruction) == expected


def answered(instruction: str, *labels: str) -> str:
    return input_noun(TaskSpec("t", instruction, "classification", tuple(map(Label, labels or ("yes", "no")))))


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Classify news by topic.", "news article"),
        ("Which emotion does the tweet express?", "tweet"),
        ("Decide whether the writer of an opinion on a product is happy or unhappy with it.", "opinion on a product"),
        ("Is the person who wrote this review satisfied with the film?", "review"),
        ("Flag comments that are toxic.", "comment"),
        ("For each message decide whether it needs an urgent answer.", "message"),
        ("Help desk tickets must be routed to hardware, software or network.", "help desk ticket"),
        ("You are a moderator. Decide whether posts should be removed.", "post"),
        ("Your task is to label customer emails with the product they are about.", "customer email"),
        ("Tell if the sentiment about a company in a financial news sentence is positive.", "financial news sentence"),
        ("Decide which department should handle the complaint of a customer.", "complaint of a customer"),
        ("Tell whether people who comment on our app complain, praise or ask.", "comment on our app"),
        ("Label the role of a sentence in a medical abstract.", "sentence in a medical abstract"),
        ("Understand the intent behind utterances made to a booking assistant.",
         "utterance made to a booking assistant"),
        ("Question type classification.", "question"),
        ("Text: an excerpt from a novel. Label: the century in which it was written.", "excerpt from a novel"),
        ("Text classification: legal questions by area of law.", "legal question"),
        ("Figure out the main subject of a library book from its title.", "library book"),
        ("Decide for a given pair of product titles if they refer to the same product.", "pair of product titles"),
        ("Given a dialogue turn, predict the act.", "dialogue turn"),
        ("Label a contract section by subject.", "contract section"),
        ("Tag speech segments by emotion.", "speech segment"),
        ("Which aspect of a hotel (room, staff) a sentence of a review speaks about.", "sentence of a review"),
    ],
)  # fmt: skip
def test_a_kind_of_text_is_found_wherever_the_task_names_it(instruction: str, expected: str) -> None:
    assert answered(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Intent detection for a smart home assistant.", "message to a smart home assistant"),
        ("Recognise what a user of a bank's chatbot wants.", "message from a user of a bank's chatbot"),
        ("Does this customer want to cancel?", "message from a customer"),
        ("What do our museum's visitors mention of our visitors?", "message from a visitor"),
    ],
)
def test_who_speaks_sends_a_message(instruction: str, expected: str) -> None:
    assert answered(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "labels", "expected"),
    [
        ("Detect clickbait headlines.", ("clickbait", "other"), "headline"),
        ("Detect fake news.", ("fake", "real"), "news article"),
        ("Detect fake news.", ("yes", "no"), "news article"),
        ("Detect hate speech.", ("yes", "no"), "text"),
        ("Find toxic comments.", ("yes", "no"), "comment"),
        ("Is the news article about sports?", ("yes", "no"), "news article"),
        ("Does the article report on politics?", ("yes", "no"), "article"),
        ("Separate facts from opinions in news sentences.", ("fact", "opinion"), "news sentence"),
        ("Is it a question, a command or a statement?", ("question", "command", "statement"), "text"),
        ("What is described in the text: a company, a school, an artist?", ("company", "school", "artist"), "text"),
        ("Distinguish human-written from machine-written texts.", ("human-written", "machine-written"), "text"),
        ("Say whether a film review is positive or negative.", ("positive", "negative"), "film review"),
    ],
)
def test_what_is_to_be_said_of_a_text_is_not_what_it_is(
    instruction: str, labels: tuple[str, ...], expected: str
) -> None:
    assert answered(instruction, *labels) == expected


@pytest.mark.parametrize(
    ("instruction", "labels", "expected"),
    [
        ("Is the passage about biology, chemistry, or physics?", ("biology", "chemistry", "physics"), "passage"),
        ("Is the email from a customer or a supplier?", ("customer", "supplier"), "email"),
        ("Is the message addressed to sales, support or billing?", ("sales", "support", "billing"), "message"),
        ("Is the question about a person, a place or a thing?", ("person", "place", "thing"), "question"),
        ("Rate how helpful the answer is on a scale of 0 to 10.", ("0", "1", "2"), "text"),
        ("Rate how urgent it is on a scale of 1 to 5.", ("1", "2", "3"), "text"),
        ("# Task\nAnnotate argument quality.", ("low", "high"), "argument"),
        ("# Review\nComment quality: low or high.", ("low", "high"), "review"),
        ("# Role\nYou are a classifier.\n\n# Task\nClassify the email.", ("spam", "ham"), "email"),
        ("Put each into the category math, art or law.", ("math", "art", "law"), "text"),
        ("Determine the sentence's grammatical acceptability.", ("acceptable", "unacceptable"), "sentence"),
        ("Classify the text's sentiment.", ("positive", "negative"), "text"),
        ("Classify a patient's mood.", ("good", "bad"), "message from a patient"),
        ("Identify each customer's intent.", ("buy", "return"), "message from a customer"),
        ("Classify a customer's letter.", ("good", "bad"), "customer's letter"),
        ("Rate a review with 1-5 stars.", ("1", "2", "3"), "review"),
        ("Rate the helpfulness of an answer with 1 to 5 stars.", ("1", "2", "3"), "text"),
        ("Classify questions about a person.", ("good", "bad"), "question about a person"),
    ],
)
def test_what_is_asked_and_how_to_answer_is_no_input(instruction: str, labels: tuple[str, ...], expected: str) -> None:
    assert answered(instruction, *labels) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Decide whether two headlines contradict each other.", "text"),
        ("Given two questions, say whether they are duplicates of each other.", "text"),
        ("Do the two sentences paraphrase each other?", "text"),
        ("Decide whether two tweets agree with each other or not", "text"),
        ("Which emotions does each express?", "text"),
        ("Given two sentences, decide if each implies the other.", "text"),
        ("Say if these contradict each other.", "text"),
        ("Do they mean the same as one another?", "text"),
        ("Members of a forum answer each other. Classify a post as kind or rude.", "post"),
        ("Does this contain an insult?", "text"),
        ("Is each of the claims true?", "claim"),
        # Where a word of the same sound is a noun.
        ("Label each show of a festival by its genre.", "show of a festival"),
        ("Classify each message of people who know each other.", "message of people who know each other"),
        ("Classify every other message of a chat.", "message of a chat"),
        ("Sort each means of transport into road, rail or air.", "means of transport"),
    ],
)  # fmt: skip
def test_each_other_is_no_input(instruction: str, expected: str) -> None:
    assert answered(instruction, "a", "b") == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Someone talks to an assistant app. Predict which intent the utterance has.", "utterance"),
        ("A user talks to a smart speaker. Name the intent of the utterance.", "utterance"),
        ("A customer reports a fault. Label the urgency of the ticket.", "ticket"),
        ("Users post in a forum. Tag each comment with a topic.", "comment"),
        ("People chat with a bot. Label the intent of their message.", "message to a bot"),
        ("Each customer requests something. Sort the emails by department.", "email"),
        ("Somebody reviews a hotel. Which aspect does the sentence speak about?", "sentence"),
        ("The user queries a search engine; tell what the query looks for.", "query"),
        ("Someone talks to an assistant app. Predict the intent.", "message to an assistant app"),
        ("A user chats with a smart speaker. Predict the intent.", "message to a smart speaker"),
        ("Citizens write to the city. Which office is responsible?", "message to the city"),
        # The same words as nouns.
        ("Classify customer reports by product.", "customer report"),
        ("Classify user requests.", "user request"),
        ("Label a customer report.", "customer report"),
        ("Sort user comments on our app.", "user comment on our app"),
        ("Which user posts are spam?", "user post"),
        ("Tell whether people who comment on our app complain.", "comment on our app"),
        ("Classify talks of a conference by field.", "talk of a conference"),
        ("Label the topic of a customer request to a bank.", "customer request to a bank"),
        ("What do the user reviews say about the price?", "user review"),
    ],
)
def test_what_somebody_does_is_no_noun(instruction: str, expected: str) -> None:
    assert answered(instruction, "a", "b") == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Answer the question with a short span copied from the context.", "question"),
        ("Answer the question with one word.", "question"),
        ("Answer questions with yes or no.", "question"),
        ("Answer the customer's question with a link to the manual.", "customer's question"),
        ("Answer the following trivia question with just the answer.", "trivia question"),
        ("Answer a question about a passage with a short span.", "question about a passage"),
        ("Solve the equation with the fewest steps.", "equation"),
        ("Solve a math word problem by writing a Python program.", "math word problem"),
        ("Complete the sentence with the missing word.", "sentence"),
        ("Complete each proverb with its second half.", "proverb"),
        ("Rewrite the sentence with fewer words.", "sentence"),
        ("Paraphrase the sentence with other words.", "sentence"),
        ("Summarise the article with at most three bullet points.", "article"),
        ("Correct the sentence with as few changes as possible.", "sentence"),
        ("Reply to the email with a polite refusal.", "email"),
        ("Answer the riddle in one word.", "riddle"),
        # What an input has is part of it.
        ("Summarise a conversation with a doctor.", "conversation with a doctor"),
        ("Summarise the interview with a musician.", "interview with a musician"),
        ("Translate a sentence with an idiom into plain English.", "sentence with an idiom"),
        ("Shorten a letter with a complaint.", "letter with a complaint"),
        ("Correct a sentence with a spelling mistake.", "sentence with a spelling mistake"),
        ("Answer questions from customers with a discount code.", "question from customers"),
    ],
)
def test_how_to_answer_is_no_part_of_a_question(instruction: str, expected: str) -> None:
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        # The form of the answer.
        ("Describe in one sentence what the Python snippet does.", "Python snippet"),
        ("Explain in two or three short sentences what the clause means.", "clause"),
        # What is taken out of a text.
        ("List the key phrases (names, dates) of the voice command as they are written.", "voice command"),
        ("Extract all quotes from the news article.", "news article"),
        ("Give an antonym of the word.", "word"),
        # What is given of what is written about.
        ("Suggest a title for a scientific paper, given its abstract.", "abstract of a scientific paper"),
        ("Generate a title for the film from its plot.", "plot of a film"),
        # What is put into another form.
        ("Turn the table of attributes into a short description.", "table of attributes"),
        ("Convert the date to ISO format.", "date"),
        ("Convert the amount into words.", "amount"),
        ("Expand the abbreviation.", "abbreviation"),
        ("Turn the sentence from active tense to passive tense.", "sentence"),
        ("Sort the words alphabetically.", "word"),
    ],
)  # fmt: skip
def test_what_is_worked_on_is_the_input(instruction: str, expected: str) -> None:
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "labels", "expected"),
    [
        ("Detect toxic or insulting comments: toxic or clean.", ("toxic", "clean"), "comment"),
        ("Detect fraudulent or unsolicited text messages.", ("fraud", "legitimate"), "text message"),
        ("Find offensive and hateful tweets.", ("yes", "no"), "tweet"),
        ("Flag misleading headlines of newspapers.", ("yes", "no"), "headline of newspapers"),
        ("Sort incoming emails into urgent and not urgent.", ("urgent", "not urgent"), "incoming email"),
        ("Classify short product reviews as good or bad.", ("good", "bad"), "short product review"),
    ],
)  # fmt: skip
def test_what_is_looked_for_is_not_what_all_inputs_are(
    instruction: str, labels: tuple[str, ...], expected: str
) -> None:
    spec = TaskSpec("t", instruction, "classification", labels=tuple(map(Label, labels)))
    assert input_noun(spec) == expected


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("email", "an email"), ("user review", "a user review"), ("SMS", "an SMS"), ("hour", "an hour"), ("FAQ", "an FAQ"),
     ("university essay", "a university essay"), ("uninteresting text", "an uninteresting text"), ("URL", "a URL"),
     ("European law", "a European law"), ("Amazon review", "an Amazon review"), ("once-used name", "a once-used name"),
     ("umbrella", "an umbrella"), ("useful hint", "a useful hint"), ("X-ray report", "an X-ray report")],
)  # fmt: skip
def test_the_article_goes_by_the_sound(noun: str, expected: str) -> None:
    assert with_article(noun) == expected


@pytest.mark.parametrize(
    "instruction",
    ["Decide whether two questions mean the same.", "Write a poem about a tree.", "Spam?", "Detect sexism.",
     "Does the word have the same meaning in both sentences?"],
)  # fmt: skip
def test_otherwise_it_is_a_text(instruction: str) -> None:
    assert noun(instruction) == "text"


_PIECES = re.findall(
    r"[^ ]+",
    "a an the of in for each this two Classify Label review reviews comments news who said: tweet? customer's customer "
    "user wants and or is whether sentence, \n - ' . good label text both about by",
)


@given(st.lists(st.sampled_from(_PIECES), max_size=300).map(" ".join))
def test_any_instruction_gives_a_short_phrase(instruction: str) -> None:
    labels = (Label("good"), Label("review"))
    for spec in (
        TaskSpec("t", instruction or "x", "generation"), TaskSpec("t", instruction or "x", "classification", labels)
    ):  # fmt: skip
        found = input_noun(spec)
        assert found.strip()
        assert len(found) <= 120
        assert "\n" not in found


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ("Summarise the abstract of a scientific paper in one short sentence.", 200),
        ("Summarise the notes of a short work meeting.", 200),
        ("Write a headline for a news article.", 200),
        ("Continue a short story.", 200),
        ("Solve a grade school math word problem.", 0),
        ("Answer a question about a passage.", 0),
        ("Rewrite an article title.", 0),
        ("Translate a sentence from English to German.", 0),
    ],
)
def test_how_long_an_input_is(instruction: str, words: int) -> None:
    assert input_words([], noun(instruction)) == words


def test_the_language_of_an_input_is_no_part_of_its_name() -> None:
    spec = TaskSpec("t", "Write Python that does what an instruction in Spanish asks.", "generation")
    assert input_noun(spec) == "instruction in Spanish"
    assert input_noun(replace(spec, languages=("es", "ja"))) == "instruction"


def test_examples_say_how_long_an_input_is() -> None:
    assert input_words(["It rains."], "report") == 0
    assert input_words(["so " * 83, "word"], "report") == 80
