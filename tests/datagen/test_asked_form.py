"""What an instruction says of the form of its outputs, and outputs that are held to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.datagen.asked_form import AskedForm, asked_form
from potstill.datagen.sentences import sentence_ends

ASKED = [
    ("Summarise the abstract of a scientific paper in one short sentence (a TLDR).", "at most 1 sentence"),
    ("Summarise the notes in one sentence of at most 25 words.", "at most 1 sentence, at most 25 words"),
    ("Rewrite a paragraph as a short, clear sentence.", "at most 1 sentence"),
    ("In one sentence, say what the function does.", "at most 1 sentence"),
    ("Write a two-sentence summary of the article.", "at most 2 sentences"),
    ("Give the answer in 2-3 sentences.", "at most 3 sentences"),
    ("Explain the term in one or two sentences.", "at most 2 sentences"),
    ("Summarize the dialogue in a sentence or two.", "at most 2 sentences"),
    ("Turn a complaint into a polite reply of two or three sentences.", "at most 3 sentences"),
    ("Write a description of one sentence.", "at most 1 sentence"),
    ("Describe the account in one sentence.", "at most 1 sentence"),
    ("Explain the bug fix in one sentence.", "at most 1 sentence"),
    ("Write a story of at most five sentences.", "at most 5 sentences"),
    ("Shorten an e-mail to at most three sentences.", "at most 3 sentences"),
    ("Answer in one sentence, in up to three sentences where it is hard.", "at most 3 sentences"),
    ("Turn a bug report into a title of no more than eight words.", "at most 8 words"),
    ("Write a headline for the article. Do not use more than 10 words.", "at most 10 words"),
    ("Read the passage and write one yes/no question about it.", "a question"),
    ("Given a passage and an answer, generate a question that has this answer.", "a question"),
    ("Ask the customer a follow-up question.", "a question"),
    ("Users ask a question about a lamp. Reply politely.", ""),
    ("Given the question, write a question title.", ""),
    ("Write a question and its answer.", ""),
    ("Write a title for the post. It should not exceed six words.", "at most 6 words"),
    ("Write a headline in fewer than 10 words for the news article.", "at most 9 words"),
    ("Describe the product, 50 words or less.", "at most 50 words"),
    ("Answer the question with a single word.", "at most 1 word"),
    ("Write a docstring in one line.", "one line"),
    ("Count the words and answer with just the number.", "a number"),
    ("Reply with the number only.", "a number"),
    ("Count the orders in the log and reply with only the number.", "a number"),
    ("How many phones does the customer own? Reply with only the number.", "a number"),
    ("Give the number of flights in the schedule. Answer with just the number.", "a number"),
    ("Extract the person's name and age as JSON.", "JSON"),
    ("Return valid JSON with the keys name and price.", "JSON"),
    ("Convert the receipt to JSON.", "JSON"),
    ("Turn the form into a JSON object.", "JSON"),
    ("List the ingredients in JSON.", "JSON"),
    ("Give the meeting's date and place in JSON format.", "JSON"),
    ("Return the result as a JSON array with one object for each item.", "JSON"),
    ("Turn the restaurant's attributes in JSON into one sentence.", "at most 1 sentence"),
    ("Describe the weather data in JSON in two sentences.", "at most 2 sentences"),
    ("Summarise the settings in JSON in three bullet points.", "3 bullet points"),
    ("Reason step by step and end with the final number after ####.", "something behind '####'"),
    ('End your answer with the label after "Answer:".', "something behind 'Answer:'"),
    ("Answer with a short span of the passage.", "a part of the input"),
    ("Extract the sentence that answers it, verbatim.", "a part of the input"),
    ("Extract all company names verbatim, separated by commas.", "parts of the input"),
    ("Copy the ingredients verbatim, one per line.", "parts of the input"),
    ("Extract the key phrases of the review verbatim.", "parts of the input"),
    ("Answer with a span of the text, or write 'no answer'.", "a part of the input, or 'no answer'"),
    ("Reply with only the number, or N/A if there is none.", "a number, or 'N/A'"),
    ("Return the address as JSON. If there is none, return null.", "JSON, or 'null'"),
    ('Count them; reply with only the number, otherwise say "unknown".', "a number, or 'unknown'"),
    ("Give the price. Reply with just the number, or 'free' or 'n/a'.", "a number, or 'free' or 'n/a'"),
    ("Answer in one word; if it is not stated, answer not mentioned.", "at most 1 word, or 'not mentioned'"),
    ("Give the exact words from the text that name the cause.", "a part of the input"),
    ("Summarise the article in three bullet points.", "3 bullet points"),
    ("Turn the notes into 3 to 5 short bullet points.", "3 to 5 bullet points"),
    ("Give at most four bullets.", "1 to 4 bullet points"),
    ("Describe the product in about 50 words.", "at most 75 words"),
    ("Summarise it in three bullet points of at most ten words.", "3 bullet points"),
    ("Write two sentences of about 20 words each.", "at most 2 sentences"),
    ("Write a reply of roughly forty words.", "at most 60 words"),
]
SILENT = [
    "Correct the grammar in a sentence.",
    "Find the named entities in one sentence.",
    "Say which of two sentences is longer.",
    "Given two sentences, write a sentence that connects them.",
    "You are given a passage in one sentence. Continue it.",
    "Write the ending of a four-sentence story.",
    "Continue a story of five sentences.",
    "Summarise texts of up to five sentences.",
    "Replace a phrase with a single word.",
    "Read the text, then find the names in one sentence.",
    "Extract only the number of the invoice.",
    "Extract the invoice number from the e-mail. Reply with only the number.",
    "Extract the phone number from the message. Return only the number.",
    "Find the customer's account number and reply with just the number.",
    "Which flight number is meant? Answer with only the number.",
    "Give the number of the passport that the text names. Reply with the number only.",
    "Read the tracking no. off the message; output only the number.",
    "Find the employee ID. Reply with only the number.",
    "Extract the ISBN of the book. Return only the number.",
    "Extract the license plate number; only the number.",
    "Extract the credit card number and return just the number.",
    "Find the room number in the e-mail. Reply with only the number.",
    "Translate a sentence from English to German.",
    "Put the words of a sentence in order.",
    "Write one line or a short snippet of Python.",
    "Turn a JSON object into a sentence.",
    "Convert the log lines to JSON lines.",
    "Write the records as JSONL.",
    "Return one JSON object per line.",
    "Convert the table to newline-delimited JSON.",
    "Output a JSON object for each line of the log.",
    "Turn the attributes of a product in JSON into prose.",
    "Convert a configuration in JSON to YAML.",
    "Turn the invoice as JSON into an e-mail.",
    "Answer questions about a product in JSON.",
    "Explain the settings in a JSON file.",
    "Guess the one word that fits.",
    "Give the number of vowels and the number of consonants.",
    "Say what comes after the comma.",
    "Answer a customer's question.",
    "Summarise the text; do not copy sentences from it verbatim.",
    "Write about a span of ten years.",
    "Say it in your own words, never word for word.",
    "Merge three bullet points to a sentence that flows.",
    "Given a text of about 50 words, name its topic.",
]


@pytest.mark.parametrize(("instruction", "told"), ASKED)
def test_form_that_is_asked_for(instruction: str, told: str) -> None:
    assert asked_form(instruction).told() == told


@pytest.mark.parametrize("instruction", SILENT)
def test_nothing_is_read_into_words_about_the_input(instruction: str) -> None:
    assert not asked_form(instruction)


@pytest.mark.parametrize(
    ("form", "output", "fault"),
    [
        (AskedForm(sentences=1), "We cut costs, e.g. for J. Smith et al. in Fig. 2.", ""),
        (AskedForm(sentences=1), "It works. It is cheap.", "2 sentences, where 1 are asked for"),
        (AskedForm(words=3), "one two three four", "4 words, where at most 3 are asked for"),
        (AskedForm(one_line=True), "a\nb", "several lines, where one is asked for"),
        (AskedForm(points=(2, 2)), "- a\n* b", ""),
        (AskedForm(points=(2, 2)), "1. a\n2) b\n3. c", "3 bullet points, where 2 are asked for"),
        (AskedForm(points=(2, 4)), "a and b", "0 bullet points, where 2 to 4 are asked for"),
        (AskedForm(number=True), "$1,200.50", ""),
        (AskedForm(number=True), "-3", ""),
        (AskedForm(number=True), "3/4", ""),
        (AskedForm(question=True), "Is it far to Ulm?", ""),
        (AskedForm(question=True), "ウルムは遠いですか。", ""),
        (AskedForm(question=True), "It is far.", "no question"),
        (AskedForm(number=True), "about 3", "not a number alone"),
        (AskedForm(json=True), '{"a": [1, null]}', ""),
        (AskedForm(json=True), "{'a': 1}", "not JSON"),
        (AskedForm(json=True), "NaN", "not JSON"),
        (AskedForm(behind="####"), "2 + 2 = 4 #### 4", ""),
        (AskedForm(behind="####"), "2 + 2 = 4 ####", "nothing behind '####'"),
    ],
)
def test_what_breaks_it(form: AskedForm, output: str, fault: str) -> None:
    assert form.fault(output) == fault


def test_a_part_of_an_input_is_found_whatever_its_capitals() -> None:
    form = AskedForm(within=True)
    assert form.fault("In  May.", "It opened in May.") == ""
    assert form.fault("in June", "It opened in May.") == "no part of the input"
    assert form.fault("No.", "We know it.") == "no part of the input"
    assert form.fault("五月", "开放于五月。") == ""
    assert form.fault("in June") == ""
    assert form.cut("It says: in May, at last", "It opened in May, at last.") == "in May, at last"
    assert form.cut("It says nothing.", "It opened in May.") == "It says nothing."


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Why Don't State-of-the-Art Models Learn Better?", 6),
        ("It's coffee, but you're awake.", 5),
        ("Well-known", 1),
        ("AT&T's 5G roll-out stalls", 4),
        ("Node.js 22.1 is out", 4),
        ("Save 20% – now or never!", 5),
        ("Sun, sea & sand", 3),
        ("L'été n'est qu'un rêve", 4),
        ("Coffee—but better", 3),
        ("Wait...what now", 3),
        ("and/or", 1),
        ("jo@site.org wrote http://a.b/c-d", 3),
        ("**Big** _news_ #today 🎉", 3),
        ("rock 'n' roll", 3),
        ("2010–2020", 1),
        ("Привет, как-нибудь потом", 3),
        ("我们研究它，它有效。", 2),
    ],
)
def test_words_are_what_spaces_part(text: str, count: int) -> None:
    assert AskedForm(words=count).fault(text) == ""
    assert (
        count == 1
        or AskedForm(words=count - 1).fault(text) == f"{count} words, where at most {count - 1} are asked for"
    )
    assert AskedForm(words=1).allowing(text).words == count


NAMES = "Extract all company names verbatim, separated by commas."
YEARS = "Extract the years mentioned in the passage verbatim."
AMOUNT = "Extract name and amount verbatim as JSON."
SPAN = "Answer with a short span of the passage; if the passage does not answer it, write 'no answer'."
DEAL = "Apple bought Beats from Dr. Dre, and Sony Group Corp. lost to AT&T."


@pytest.mark.parametrize(
    ("instruction", "input", "output", "fault"),
    [
        (NAMES, DEAL, "Apple, Beats, Sony Group Corp.", ""),
        (NAMES, DEAL, "Apple", ""),
        (NAMES, DEAL, "Apple\nBeats\nAT&T", ""),
        (NAMES, DEAL, "- Apple\n- Beats", ""),
        (NAMES, DEAL, "1. Apple\n2. Beats", ""),
        (NAMES, DEAL, "Apple; Beats; AT&T", ""),
        (NAMES, DEAL, "Apple, Beats and AT&T", ""),
        (NAMES, DEAL, '["Apple", "Beats"]', ""),
        (NAMES, DEAL, '"Apple", "Beats"', ""),
        (NAMES, DEAL, "Apple, Microsoft", "no part of the input"),
        (NAMES, DEAL, "Apple Inc., Beats", "no part of the input"),
        (NAMES, DEAL, "The companies are named below.", "no part of the input"),
        ("Extract name and city verbatim as JSON.", "Ana moved to Rome.", '{"name": "Ana", "city": "Rome"}', ""),
        ("Extract name and city verbatim as JSON.", "Ana moved.", '{"name": "Ana", "city": null}', ""),
        ("Extract name and city verbatim as JSON.", "Ana moved.", '{"name": "Ana", "city": "Oslo"}',
         "no part of the input"),
        (YEARS, "Apple sued Sony in 2012.", "2012", ""),
        (YEARS, "Apple sued Sony in 2012.", "1999", "no part of the input"),
        (YEARS, "Apple sued Sony in 2012.", "null", "no part of the input"),
        (YEARS, "Apple sued Sony in 2012.", "true", "no part of the input"),
        (YEARS, "Apple sued Sony in 2012 and 2014.", "[2012, 2014]", ""),
        (YEARS, "Apple sued Sony in 2012 and 2014.", "[2012, 2015]", "no part of the input"),
        (YEARS, "Apple sued Sony in 2012.", "[12]", "no part of the input"),
        (YEARS, "Apple sued Sony.", "[]", ""),
        (AMOUNT, "Ana paid 1,250.50 euros.", '{"name": "Ana", "amount": 1250.5, "paid": true, "note": null}', ""),
        (AMOUNT, "Ana paid 1,250.50 euros.", '{"name": "Ana", "amount": 1250}', "no part of the input"),
        (AMOUNT, "Ana zahlte 1.250,50 Euro.", '{"name": "Ana", "amount": 1250.5}', ""),
        (AMOUNT, "It fell to -5 degrees.", '{"amount": -5}', ""),
        (SPAN, "It rained in May.", "no answer", ""),
        (SPAN, "It rained in May.", "No answer.", ""),
        (SPAN, "It rained in May.", "'no answer'", ""),
        (SPAN, "It rained in May.", "in May", ""),
        (SPAN, "It rained in May.", "There is no answer to it.", "no part of the input"),
        (SPAN, "It rained in May. It snowed.", "May, snowed", "no part of the input"),
        ("Reply with only the number, or N/A if none.", "x", "N/A", ""),
        ("Reply with only the number, or N/A if none.", "x", "None of them.", "not a number alone"),
        ('Return the date as JSON. If there is none, output "NONE".', "x", "NONE", ""),
        ('Return the date as JSON. If there is none, output "NONE".', "x", "There is none.", "not JSON"),
        ("Write exactly three bullet points. If nothing happened, write 'nothing'.", "x", "nothing", ""),
    ],
)  # fmt: skip
def test_parts_and_words_that_stand_for_no_answer_are_in_the_form(
    instruction: str, input: str, output: str, fault: str
) -> None:
    form = asked_form(instruction)
    assert form.fault(output, input) == fault
    assert fault or form.cut(output, input) == output


def test_words_for_no_answer_alone_are_no_form() -> None:
    assert not asked_form("Translate the text, or write 'none' if it is empty.")
    form = asked_form(SPAN)
    assert form.allowing("no answer", "It rained.") == form, "an example of it takes nothing back"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("We study routing, e.g. in cars. It works.", "We study routing, e.g. in cars."),
        ("Sure! The team ships on Monday. Ana writes.", "The team ships on Monday."),
        ('He said "stop." Then he left.', 'He said "stop."'),
        ("Version 3.5 is out. Get it!", "Version 3.5 is out."),
        ("1. Open it. 2. Close it.", "1. Open it."),
        ("The abstract is:\n\nWe study it. Much.", "The abstract is:\n\nWe study it."),
        ("No stop here\nnor here", "No stop here"),
        ("我们研究它。它有效。", "我们研究它。"),
        ("only one", "only one"),
        ("The answer is no. It fails.", "The answer is no."),
        ("See No. 5 and p. 3. Then stop.", "See No. 5 and p. 3."),
        ("Bring apples, etc. They are cheap.", "Bring apples, etc."),
        ("Really?! Yes.", "Really?!"),
        ("Wait … it goes on. End.", "Wait … it goes on."),
    ],
)
def test_first_sentence(text: str, first: str) -> None:
    assert AskedForm(sentences=1).cut(text) == first


ONE_SENTENCE = [
    "Sen. Elizabeth Warren asked Gov. Gavin Newsom to veto the bill on Jan. 5.",
    "On Jan. 5, Acme Corp. Chief Executive Ann Lee said Yahoo! Japan would buy the firm.",
    "Lt. Gov. Dan Patrick and Maj. Gen. Ann Cole met Rep. Lee (R., Tex.) near Ft. Worth on Sept. 11.",
    "The Rev. Al Green, the Hon. Mary Poe and Capt. James Cook climbed Mt. Hood and Mt. Baker.",
    "Warner Bros. Discovery and Tiffany & Co. Holdings settled with Brown Univ. Press for $3 million.",
    "U.S. President Joe Biden met U.N. Secretary-General António Guterres at 5 p.m. Tuesday in Washington, D.C.",
    "Sgt. Pepper St. Clair of Main St. Station told Col. Mustard, Adm. Nelson and Supt. Chalmers to leave.",
    "The firm moved from Boston, Mass. Avenue offices to Austin, Tex. Monday.",
    "Martin Luther King Jr. Day falls on Mon. 16 Jan. 2023 this year.",
    "Louis Vuitton Inc. Chairman B. Arnault paid approx. 5 million for No. 10 Main Blvd. North.",
    "In Brown v. Board of Education, J. R. R. Miller et al. (1954) cited Vol. 2, Pt. 3 and Op. 27 of it.",
    "Am 3. Oktober 2024 beschloss der 20. Bundestag das Gesetz.",
    "Die Mannschaft stieg am 34. Spieltag aus der 2. Bundesliga auf.",
    "Am 1. Mai starb er.",
    "Der 1. FC Köln gewann.",
    "Das Werk in der Goethestr. Nord kostet rd. 3 Mio. Euro bzw. Franken, sagte Prof. Dr. Ing. Hr. Braun.",
    "Im 19. Jahrhundert regierte Friedrich III. Preußen und das Reich nur 99 Tage.",
    "Replace 'in.' with ' in. ' in column 'a' of the data frame.",
]


@pytest.mark.parametrize("text", ONE_SENTENCE)
def test_a_stop_that_ends_no_sentence_cuts_none(text: str) -> None:
    form = AskedForm(sentences=1)
    assert form.cut(text) == text
    assert form.fault(text) == ""


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Ana works at Acme Corp. The firm sells lamps.", "Ana works at Acme Corp."),
        ("They live in the U.S. They have two dogs.", "They live in the U.S."),
        ("The shop opens at 8 a.m. It closes at noon.", "The shop opens at 8 a.m."),
        ("The team went with Plan B. However, it failed.", "The team went with Plan B."),
        ("Sales rose by 45. Revenue fell.", "Sales rose by 45."),
        ("The school was founded in 1905. Boys came first.", "The school was founded in 1905."),
        ("The parcel weighs about 5 kg. Shipping is free.", "The parcel weighs about 5 kg."),
        ("The rover was built by NASA. Engineers cheered.", "The rover was built by NASA."),
        ("Die Zahl der Gäste stieg auf 20. Danach fiel sie.", "Die Zahl der Gäste stieg auf 20."),
        ("Das Haus ist sehr alt. Niemand wohnt darin.", "Das Haus ist sehr alt."),
        ("We saw the film on Jan. 5. Everyone liked it.", "We saw the film on Jan. 5."),
        ("Gov. Kate Brown signed the bill. Critics objected.", "Gov. Kate Brown signed the bill."),
        ("Do one more rep. Rest for a minute.", "Do one more rep."),
        ("The fence is 6 ft. It is painted white.", "The fence is 6 ft."),
        ("Today I am 30. Bob is 40.", "Today I am 30."),
        ("Buy it now! Offers end soon.", "Buy it now!"),
        ("Two words. Two more.", "Two words."),
    ],
)
def test_a_second_sentence_is_still_cut_off(text: str, first: str) -> None:
    form = AskedForm(sentences=1)
    assert form.fault(text) == "2 sentences, where 1 are asked for"
    assert form.cut(text) == first


@pytest.mark.parametrize(
    "text",
    [
        "The town hired Deac. Clouseau to find the thief. He did.",
        "Brig. Bertrand Poe arrived. Nobody saw him.",
        "Platz 3. Bayern verlor. Es regnete.",
    ],
)
def test_where_it_is_unclear_whether_a_sentence_ends_nothing_is_cut(text: str) -> None:
    form = AskedForm(sentences=1)
    assert form.cut(text) == text
    assert form.fault(text), "it is asked for once more"


@pytest.mark.parametrize(
    ("form", "output", "cut"),
    [
        (AskedForm(number=True), "There are 12 vowels.", "12"),
        (AskedForm(number=True), "It costs $1,200.50 in all.", "1,200.50"),
        (AskedForm(number=True), "3 of 5", "3 of 5"),
        (AskedForm(number=True), "none", "none"),
        (AskedForm(number=True), "The answer is -3.", "-3"),
        (AskedForm(number=True), "The answer is minus 12.", "The answer is minus 12."),
        (AskedForm(number=True), "It is *negative* 12.", "It is *negative* 12."),
        (AskedForm(number=True), "x = - 12", "x = - 12"),
        (AskedForm(number=True), "About 2.5 million people.", "About 2.5 million people."),
        (AskedForm(number=True), "There are 3 dozen.", "There are 3 dozen."),
        (AskedForm(number=True), "Minus the fee, it is 12.", "12"),
        (AskedForm(number=True), "**12**", "12"),
        (AskedForm(number=True), "x=12", "12"),
        (AskedForm(number=True), "\\\\boxed{12}", "12"),
        (AskedForm(number=True), "There are twelve (12) of them.", "12"),
        (AskedForm(number=True), "It is 12.5%.", "12.5"),
        (AskedForm(number=True), "H2O has 3 atoms.", "3"),
        (AskedForm(number=True), "€1,200", "1,200"),
        (AskedForm(number=True), "INV-48213", "INV-48213"),
        (AskedForm(number=True), "The invoice is INV-48213.", "The invoice is INV-48213."),
        (AskedForm(number=True), "+1 (555) 010-9999", "+1 (555) 010-9999"),
        (AskedForm(number=True), "555-0199", "555-0199"),
        (AskedForm(number=True), "call 555-0199 x 3", "call 555-0199 x 3"),
        (AskedForm(number=True), "a 12-year-old", "a 12-year-old"),
        (AskedForm(number=True), "on 2024-01-05", "on 2024-01-05"),
        (AskedForm(number=True), "f(12)", "f(12)"),
        (AskedForm(number=True), "A[48213]", "A[48213]"),
        (AskedForm(number=True), "3/4", "3/4"),
        (AskedForm(number=True), "ticket #48213", "ticket #48213"),
        (AskedForm(number=True), "between 10–15", "between 10–15"),
        (AskedForm(json=True), 'Here it is: {"a": [1]} I hope it helps.', '{"a": [1]}'),
        (AskedForm(json=True), '["a", "b"]', '["a", "b"]'),
        (AskedForm(json=True), '{"a": 1', '{"a": 1'),
        (AskedForm(json=True), "none", "none"),
        (AskedForm(words=2), "one two three", "one two three"),
    ],
)
def test_what_of_an_output_is_asked_for(form: AskedForm, output: str, cut: str) -> None:
    assert form.cut(output) == cut


NESTED = "- Cause\n  - worn seal\n  - no spare\n- Effect\n  - downtime\n- Fix\n  - new seal"
WRAPPED = (
    "- **Cause:** the pump failed\n  because of a worn seal.\n- **Effect:** two hours down.\n- **Fix:** a new seal."
)


@pytest.mark.parametrize(
    "text",
    [
        NESTED,
        WRAPPED,
        "1. Cause\n   - worn seal\n2. Effect\n   - downtime\n3. Fix",
        "1. Cause\n- worn seal\n- no spare\n2. Effect\n- downtime\n3. Fix\n- new seal",
        "- Steps:\n1. stop\n2. drain\n- Effect\n- Fix",
        "- Cause\n\n- Effect\n\n- Fix",
        "- Cause: the pump failed\nbecause of a worn seal.\n- Effect\n- Fix: a new seal was got\nand put in.",
        "* Cause\n\n  It was an old pump.\n\n* Effect\n* Fix\n\n  A new one.",
        "- a\n - b\n- c",
        "• Cause\n\t◦ seal\n• Effect\n• Fix",
        "1) Cause\n2) Effect\n3) Fix",
        "- Run it:\n  ```sh\n  make\n  ```\n- Wait\n- Stop",
    ],
)
def test_three_points_with_what_belongs_to_them_are_in_the_form(text: str) -> None:
    form = AskedForm(points=(3, 3))
    assert form.fault(text) == ""
    assert form.cut(text) == text


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (f"Here are the points:\n\n{NESTED}\n\nLet me know if you need more.", NESTED),
        (f"{WRAPPED}\n- **Cost:** 20 euros.", WRAPPED),
        (f"{NESTED}\n- Cost\n  - 20 euros\n- Date", NESTED),
        ("- a\n- b\n- c\nI hope this helps.", "- a\n- b\n- c"),
        ("- a\n- b\n- c\n\n**More**\n\n- d", "- a\n- b\n- c"),
        ("**Summary**\n1. a\n2. b\n3. c\n4. d", "1. a\n2. b\n3. c"),
        ("- a\n- b", "- a\n- b"),
    ],
)
def test_what_goes_beyond_the_points_is_cut_off(text: str, cut: str) -> None:
    assert AskedForm(points=(3, 3)).cut(text) == cut


@pytest.mark.parametrize(
    ("output", "cut"),
    [
        ('{"a": 1}\n{"a": 2}', '{"a": 1}\n{"a": 2}'),
        ('{"a": 1},\n{"a": 2}', '{"a": 1},\n{"a": 2}'),
        ('Sure:\n{"a": 1}\n\n{"a": 2}\nDone.', 'Sure:\n{"a": 1}\n\n{"a": 2}\nDone.'),
        ('{"a": 1}\n\nNote: {x} is unknown.', '{"a": 1}'),
        ('{"a": 1} [see above]', '{"a": 1}'),
        ('{"a": 1}{"a": 2}', '{"a": 1}{"a": 2}'),
        ('Sure: {"a": 1} {"a": 2}', 'Sure: {"a": 1} {"a": 2}'),
        ('{"a": 1} and not {"a": 2}', '{"a": 1}'),
        ('{"a": 1} 2 are missing.', '{"a": 1}'),
    ],
)
def test_of_several_json_values_none_is_cut_off(output: str, cut: str) -> None:
    form = AskedForm(json=True)
    assert form.cut(output) == cut
    assert bool(form.fault(cut)) == (cut == output), "it is asked for once more"


def test_a_list_is_taken_out_of_what_is_said_of_it() -> None:
    form = AskedForm(points=(2, 2))
    assert form.cut("Here are the points:\n\n- a\n- b\n- c\n\nI hope this helps.") == "- a\n- b"
    assert form.cut("- a") == "- a"


FORMS = (
    AskedForm(1, 3, (1, 2), True, True, True, "####"),
    AskedForm(sentences=2),
    AskedForm(words=2, behind="a"),
    AskedForm(number=True),
)


@given(st.sampled_from(FORMS), st.text(max_size=80) | st.integers().map(str))
def test_a_widened_form_holds_for_what_widened_it_and_asks_for_nothing_new(form: AskedForm, output: str) -> None:
    wide = form.allowing(output)
    assert not wide.fault(output)
    assert bool(wide.sentences) == bool(form.sentences)
    assert bool(wide.words) == bool(form.words)
    assert form.fault(output) or wide == form


def test_a_filler_alone_is_kept() -> None:
    assert AskedForm(sentences=1).cut("Sure!") == "Sure!"


@given(st.text(max_size=300), st.integers(1, 4))
def test_a_cut_keeps_the_bound_and_adds_nothing(text: str, most: int) -> None:
    form = AskedForm(sentences=most)
    cut = form.cut(text)
    assert cut in text
    assert cut == text or not form.fault(cut)
    assert form.cut(cut) == cut or cut.split(maxsplit=1)[0].lower().startswith(("sure", "ok", "yes", "great"))


@given(st.text(max_size=200))
def test_any_output_is_cut(text: str) -> None:
    assert AskedForm(json=True).cut(text) in text
    assert AskedForm(number=True).cut(text) in text


@given(st.text(max_size=300))
def test_sentences_end_in_order_and_the_last_at_the_end(text: str) -> None:
    ends = sentence_ends(text)
    assert ends == sorted(set(ends))
    assert not ends or ends[-1] <= len(text)


@given(st.text(max_size=400))
def test_any_instruction_is_read(instruction: str) -> None:
    asked_form(instruction)
