"""What is told of a language so that its prompts can be read: regular expressions, in the words that stand there.

A language is added by a module beside this one and a line in `potstill.language.speech`. All patterns are searched
without regard to capitals. Where several words of one kind are listed with "/", a word that begins with "*" may be the
last part of a compound, and one that ends with "*" may have any ending.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Said:
    """What is told of every language.

    Attributes:
        kinds: Words for kinds of text, by the English word: what inputs are called.
        json: JSON is asked for.
        number: A number alone is asked for.
        value: Another single value alone, such as a date.
        question: A question is to be written.
        within: A part of the input is asked for, to the letter.
        several: With `within`: perhaps several of them.
        works_on: Verbs whose object stands in the input, as does what follows: "find" an error in two sentences.
        when: What makes a condition.
        answers: The verb of answering; a question and what leads to a text that answers (`answers_from`) belong to it.
        answers_from: As `answers`.
        sorts: How verbs begin that ask for a label.
        writes_text: How verbs begin that ask for a text.
        translates: How verbs of translating begin.
        rates: Verbs of giving points, and stars.
        stars: Stars that are given.
        yes_no: The answers to a question that leaves these.
        whether: A verb of deciding with its "if".
        opens_yes_no: What a question has, or how it begins, that yes or no answers.
        interrogatives: Words of other questions.
    """

    kinds: dict[str, str]
    json: str
    number: str
    value: str
    question: str
    within: str
    several: str
    works_on: str
    when: str
    answers: str
    answers_from: str
    sorts: str
    writes_text: str
    translates: str
    rates: str
    stars: str
    yes_no: tuple[str, str]
    whether: str
    opens_yes_no: str
    interrogatives: str


@dataclass(frozen=True, kw_only=True)
class Speech(Said):
    """A language with spaces between its words.

    Attributes:
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
        gives: Verbs that give an output.
        writes: Verbs whose object is an output, where it has no definite article.
        to: Prepositions that make another object of what follows such a verb.
        the: Definite articles.
        two: Numerals and the like before two texts of one kind; verbs and words before these are in `compares`.
        compares: As `two`.
        first: The ordinals, of which two tell two texts apart.
        second: As `first`.
        either: The word for "or", before the last name of a list.
        choice: What stands before the answers of a question that names them: the verb, and where it opens the
            question, an article and a noun; empty where no question is read.
        sorted_into: What stands before names that an "and" or an "or" joins: sort "into".
        both: The word for "and".
    """

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
    gives: str
    writes: str
    to: str
    the: str
    two: str
    compares: str
    first: str
    second: str
    either: str
    choice: str
    sorted_into: str
    both: str


@dataclass(frozen=True, kw_only=True)
class UndividedSpeech(Said):
    """A language that does not divide words; a number stands as `{RANGE}` (a second one as `{RANGE_2}`) in a pattern.

    Attributes:
        sentences: An output of so many sentences.
        most: An output of at most so many letters.
        about: An output of about so many letters.
        points: An output of so many items of a list.
    """

    sentences: str
    most: str
    about: str
    points: str
