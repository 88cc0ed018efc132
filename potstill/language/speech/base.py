"""What is told of a language so that its prompts can be read: regular expressions, in the words that stand there.

A language is added by a module beside this one and a line in `potstill.language.speech`. All patterns are searched
without regard to capitals. Where several words of one kind are listed with "/", a word that begins with "*" may be the
last part of a compound, and one that ends with "*" may have any ending.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speech:
    """A language with spaces between its words.

    Attributes:
        kinds: Words for kinds of text, by the English word: what inputs are called.
        numbers: Words for one, two and so on, those of one number joined by "/"; "=12" where the count leaps.
        sentences: The noun for sentences; `words` and `points` for words and items of a list.
        words: As `sentences`.
        points: As `sentences`.
        into: Before the size of an output: "in" two sentences.
        most: Before a number that must not be exceeded.
        most_behind: The same behind the noun: two sentences "at most".
        under: Before a number that must not be reached.
        about: Before a number that is meant roughly.
        adjectives: Between number and noun: two "short" sentences.
        one_word: One word is asked for.
        json: JSON is asked for.
        number: A number alone is asked for.
        question: A question is to be written.
        within: A part of the input is asked for, to the letter.
        several: With `within`: perhaps several of them.
        works_on: Verbs whose object stands in the input, as does what follows: "find" an error in two sentences.
        when: What begins a condition.
        gives: Verbs that give an output.
        writes: Verbs whose object is an output, where it has no definite article.
        to: Prepositions that make another object of what follows such a verb.
        the: Definite articles.
        answers: The verb of answering; a question and what leads to a text that answers (`answers_from`) follow.
        answers_from: As `answers`.
        two: Numerals and the like before two texts of one kind; verbs and words before these are in `compares`.
        compares: As `two`.
        first: The ordinals, of which two tell two texts apart.
        second: As `first`.
        yes_no: The answers to a question that leaves these.
        whether: A verb of deciding with its "if".
        opens_yes_no: How a question begins that yes or no answers.
        interrogatives: Words of other questions.
    """

    kinds: dict[str, str]
    numbers: str
    sentences: str
    words: str
    points: str
    into: str
    most: str
    most_behind: str
    under: str
    about: str
    adjectives: str
    one_word: str
    json: str
    number: str
    question: str
    within: str
    several: str
    works_on: str
    when: str
    gives: str
    writes: str
    to: str
    the: str
    answers: str
    answers_from: str
    two: str
    compares: str
    first: str
    second: str
    yes_no: tuple[str, str]
    whether: str
    opens_yes_no: str
    interrogatives: str


@dataclass(frozen=True)
class UndividedSpeech:
    """A language that does not divide words; a number stands as `{RANGE}` (a second one as `{RANGE_2}`) in a pattern.

    Attributes:
        kinds: Words for kinds of text, by the English word.
        sentences: An output of so many sentences.
        most: An output of at most so many letters.
        about: An output of about so many letters.
        points: An output of so many items of a list.
        json: JSON is asked for.
        question: A question is to be written.
        number: A number alone is asked for.
        within: A part of the input is asked for, to the letter.
        several: With `within`: perhaps several of them.
        when: What makes a condition.
        works_on: Verbs whose object stands in the input.
        answers: The verb of answering.
        answers_from: What leads to a text that answers.
        yes_no: The answers to a question that leaves these.
        whether: A verb of deciding with its "if".
        opens_yes_no: What a question has that yes or no answers.
        interrogatives: Words of other questions.
    """

    kinds: dict[str, str]
    sentences: str
    most: str
    about: str
    points: str
    json: str
    question: str
    number: str
    within: str
    several: str
    when: str
    works_on: str
    answers: str
    answers_from: str
    yes_no: tuple[str, str]
    whether: str
    opens_yes_no: str
    interrogatives: str
