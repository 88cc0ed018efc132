"""The form that a task asks its outputs to have, where a program can check it: "in one sentence", "at most 25 words".

Small teachers pass over such words (docs/generation.md has figures). What is more than was asked for is cut off where a
sentence ends, and an output that breaks the form otherwise is no good example of the task.

In: an instruction. Out: bounds on an output. English is read here, nine other languages in
`potstill.language.form_words`. Only phrases that can hardly speak of the input are read: "in a
single sentence" is, "correct the errors in two sentences" is not. What is not recognised is not checked.

Source: instructions whose keeping a program can verify, IFEval (Zhou et al., arXiv:2311.07911 §2.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from potstill.datagen.filters import words
from potstill.datagen.json_values import is_json, json_within
from potstill.datagen.no_answer import is_no_answer, no_answer
from potstill.datagen.points import count_points, first_points
from potstill.datagen.sentences import sentence_ends, unclear_end
from potstill.datagen.spans import part_within, stands_in
from potstill.language.form_words import LEEWAY, said_form
from potstill.language.unspaced import letters_apart

_WORDS = {
    "a": 1, "an": 1, "one": 1, "single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40,
    "fifty": 50,
}  # fmt: skip
_COUNT = rf"(?:\d{{1,3}}|{'|'.join(word for word in _WORDS if word not in ('a', 'an', 'single'))})"
_RANGE = rf"(?:{_COUNT}(?: ?(?:-|–|to|or) ?))?(?P<n>{_COUNT})"
_ONE = r"(?P<one>(?:exactly |only |just )?(?:one|a single|1)|an?(?= (?:short|brief|concise|single|crisp|complete)\b))"
_MOST = r"(?:at (?:the )?most|no more than|not more than|up to|a maximum of|maximum|max\.?|(?:limited?|restricted) to)"
_UNDER = r"(?:fewer than|less than|under|below)"
# "a short, clear sentence".
_KIND = r"(?:(?:short|brief|concise|clear|simple|plain|full|complete|crisp|coherent|english|single),? (?:and )?){0,3}"
# What brings an output: the answer is put in so many sentences, or so many are written.
_SAID = (
    r"(?:\b(?:in|into|as|using) (?:exactly |only |just |about )?"
    r"|\b(?:write|return|give|output|produce|generate|compose|state|(?:reply|answer|respond) (?:with|in)|reduce to) "
    r"(?:exactly |only |just |back )?)"
)
_SENTENCES = (
    re.compile(rf"\b{_MOST} {_RANGE} {_KIND}sentences?\b", re.IGNORECASE),
    re.compile(rf"\b{_RANGE} {_KIND}sentences? (?:or (?:fewer|less)|at (?:the )?most|maximum|max)\b", re.IGNORECASE),
    re.compile(rf"{_SAID}{_ONE} {_KIND}sentence\b", re.IGNORECASE),
    re.compile(rf"{_SAID}{_RANGE} {_KIND}sentences\b", re.IGNORECASE),
    re.compile(
        r"\b(?:summary|reply|answer|response|description|explanation|definition|caption|conclusion|tl;?dr) of "
        rf"(?:about |exactly )?(?:{_RANGE} {_KIND}sentences|(?P<one>one|a single) {_KIND}sentence)\b",
        re.IGNORECASE,
    ),
    re.compile(rf"{_SAID}a sentence or (?P<n>two)\b", re.IGNORECASE),
    re.compile(
        r"\b(?P<n>one|two|three|single)[- ]sentence (?:summary|summaries|answers?|replies|reply|descriptions?|"
        r"explanations?|definitions?|versions?|tl;?dr|headlines?|captions?|conclusions?|overviews?|gists?)\b",
        re.IGNORECASE,
    ),
)
_MOST_WORDS = (
    re.compile(
        rf"\b(?:not|n't|never) (?:\w+ ){{0,2}}(?:more than|over|exceed(?:ing)?) (?P<n>{_COUNT}) words\b", re.IGNORECASE
    ),
    re.compile(rf"\b{_MOST} (?P<n>{_COUNT}) words\b", re.IGNORECASE),
    re.compile(rf"\b(?P<n>{_COUNT}) words (?:or (?:fewer|less)|at (?:the )?most|maximum|max)\b", re.IGNORECASE),
)
_UNDER_WORDS = re.compile(rf"\b{_UNDER} (?P<n>{_COUNT}) words\b", re.IGNORECASE)
# "In about 50 words": half as many again are let pass.
_ABOUT_WORDS = (
    re.compile(rf"\b(?:about|around|roughly|approximately|circa|ca\.) (?P<n>{_COUNT}) words\b", re.IGNORECASE),
    re.compile(rf"\b(?:in|using|with|of) (?P<n>{_COUNT}) words\b", re.IGNORECASE),
)
_POINTS = re.compile(
    rf"(?:{_SAID}|\b(?:into|list of) )(?P<most>{_MOST} )?(?:(?P<least>{_COUNT}) ?(?:-|–|to|or) ?)?(?P<n>{_COUNT}) "
    r"(?:(?:short|brief|concise|key|main|clear|crisp),? )*(?:bullet(?:[ -]?points?|s)?|bulleted (?:points|items))\b",
    re.IGNORECASE,
)
# Each of these is to have so many words, and not all of them together.
_EACH = (
    re.compile(r"\b(?:sentences|lines|points|bullets|items|paragraphs) (?:of|with) \Z", re.IGNORECASE),
    re.compile(
        r" (?:apiece|per\b|(?:for |in )?(?:each|every)\b|a (?:sentence|line|point|bullet|paragraph)\b)",
        re.IGNORECASE,
    ),
)
_ONE_WORD = re.compile(
    r"\b(?:(?:in|with|as|using|(?:reply|answer|respond) (?:with|in)|return|give|output|write) (?:exactly |only |just )?"
    r"(?:one|a single)(?: english)? word|(?:one|single)[- ]word (?:answers?|reply|replies|labels?))\b",
    re.IGNORECASE,
)
_ONE_LINE = re.compile(
    r"\b(?:in|on|as|write|return|give|output) (?:exactly |only |just )?(?:one|a single) (?:short )?line\b"
    r"(?! or\b| of\b)",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\b(?:only|just) (?:the|a|one) (?:final |resulting |single |whole )?(?:number|integer|figure)\b(?! of\b)"
    r"|\bthe (?:final |resulting )?(?:number|integer) (?:only|alone|and nothing else)\b"
    r"|\b(?:reply|answer|respond) with (?:a|the|one) (?:single |whole |plain )?(?:number|integer)\b"
    r"(?! (?:of|and|or)\b)",
    re.IGNORECASE,
)
# What is called a number and may hold letters and dashes.
_NUMBERED = (
    r"(?:invoice|order|phone|telephone|mobile|cell|fax|contact|account|tracking|serial|passport|flight|ticket|case|"
    r"reference|ref|booking|confirmation|customer|employee|member(?:ship)?|student|patient|licen[cs]e|plate|"
    r"registration|part|model|room|seat|gate|card|routing|social security|tax|vat|po|purchase[- ]order|policy|claim|"
    r"patent|version|batch|lot|transaction|receipt|docket|bus|train|house|postal|zip|parcel|shipment|article|product|item)"
)
_IDENTIFIES = re.compile(
    rf"\b{_NUMBERED}(?:'s)? (?:id )?(?:numbers?|no\.|#)|\bnumber of (?:the|an?|its|their|his|her) {_NUMBERED}\b"
    r"|\b(?:ID|ISBN|IBAN|IMEI|VIN|SSN|SKU|DOI)s?\b",
    re.IGNORECASE,
)
_JSON = re.compile(
    r"\b(?:(?:as|into|to|return|output|write|produce|give|(?:reply|answer|respond) (?:with|in)) (?:only |just )?"
    r"(?:an? |one |the )?|in )(?:single |valid |flat |well-formed )?json(?: (?:object|array|list|format))?\b"
    r"(?! ?(?:files?|lines?|into)\b)",
    re.IGNORECASE,
)
_JSON_LINES = re.compile(
    r"\b(?:json ?lines?|jsonl|ndjson|newline[- ]delimited|"
    r"json (?:objects?|values?|records?) (?:per|(?:on|for) (?:each|every|its own|a separate)) line)\b",
    re.IGNORECASE,
)
# "The attributes in JSON to a text", "questions about a product in JSON" tell what is given.
_JSON_GIVEN = (re.compile(r" to\b", re.IGNORECASE), re.compile(r"\babout(?: [\w'-]+){1,4} \Z", re.IGNORECASE))
_QUESTION = re.compile(
    r"(?:^|[.;:,!?(] |\b(?:and|then|please) )\W?(?:write|ask|generate|create|formulate|compose|pose|produce|propose|"
    r"suggest|make up|come up with|think of) (?:me )?(?:one|an?|the|a single|another) "
    r"(?:(?!(?:to|for|of|about|that|with|and|or|from|answering)\b)[\w/-]+,? ){0,4}"
    r"question\b(?!-| (?:title|type|word|mark|answering|and\b|or\b|bank|list|paper|form))",
    re.IGNORECASE,
)
# A mark of question, or how a question ends in Japanese and Chinese.
_ASKS = re.compile(r"[?？؟;՞]|か[。.]?\s*\Z|[吗呢嗎][。.]?\s*\Z")
# A sign that the answer stands behind: of no letters ("####"), or in quotes ("Answer:").
_BEHIND = re.compile(
    r"\b(?:after|following|behind) (?:the (?:marker|sign|mark|prefix|words?|line) )?"
    r"(?:(?P<sign>[^\w\s\"'`“‘.,;:!?()]{2,8})|[\"'`“‘](?P<quoted>[^\"'`”’\n]{2,20})[\"'`”’])",
    re.IGNORECASE,
)
# A part of the input, to the letter: "a short span of the passage", "the exact words from the text".
_WITHIN = re.compile(
    r"\b(?:text )?spans? (?:taken |copied |extracted )?(?:of|from|in|within) (?:the|its|this|that|a|an)\b"
    r"|\b(?:cop(?:y|ied)|quoted?|extract(?:ed)?|taken?|return|give)\b[^.;!?]{0,60}\b(?:verbatim|word[- ]for[- ]word)\b"
    r"|\bexact (?:words?|phrase|span|substring|sentence|wording) (?:of|from|in) the\b"
    r"|\bcop(?:y|ied) (?:\w+ )?(?:from|out of) the (?:text|passage|context|input|article|document|paragraph)\b"
    r"|\bsubstring of the\b",
    re.IGNORECASE,
)
# Of which there may be several: "all names", "separated by commas", "the key phrases … verbatim".
_PARTS = re.compile(
    r"\b(?:all|every|separated|comma[- ]separated|per line|separate lines?|spans|list|bullet\w*|json)\b"
    r"|\b(?:extract|cop(?:y|ied)|quote|return|give|list)\b(?! (?:the )?(?:exact )?words)"
    r"(?:(?! (?:that|which|who) )[^.;!?]){0,40}\b\w{3,}(?<!s)s\b"
    r"[^.;!?]{0,40}\bverbatim\b",
    re.IGNORECASE,
)
_FORBIDS = re.compile(r"\b(?:not|never|avoid|without|no|don't|instead of|rather than)\b[^.;!?]*\Z", re.IGNORECASE)
_ENDING = re.compile(r"\b(?:end|ends|ending|finish|finishing|conclude)\b[^.?!\n]{0,80}$", re.IGNORECASE)
_INPUT_SPEECH = re.compile(
    r"\b(?:given|you (?:get|are given|receive)|the input is|takes?)\b[^.?!\n]{0,60}$", re.IGNORECASE
)
# "Texts of up to five sentences" are given, unless they are written.
_OF_A_TEXT = re.compile(
    r"\b(?:texts?|passages?|paragraphs?|story|stories|documents?|messages?|notes?|articles?|dialogues?|reviews?|inputs?)"
    r" (?:of|with|(?:that )?(?:is|are|has|have)) \Z",
    re.IGNORECASE,
)
_WRITES = re.compile(r"\b(?:write|compose|produce|generate|create|into|to|with|as) [^.?!;:]*\Z", re.IGNORECASE)
# Tasks that work on what stands in their input: "find the names in one sentence".
_WORKS_ON = re.compile(
    r"(?:^|[.;:,!?]\s|\b(?:and|to|then)\s)\W*"
    r"(?:find|extract|correct|count|fix|identify|translate|mark|tag|replace|detect|locate|highlight|recogni[sz]e)\b"
    r"[^.?!,;]*$",
    re.IGNORECASE,
)
_WORD_ENDS = re.compile(r"\s+|[—…]|--+|\.{3,}")
_A_NUMBER = re.compile(r"[-+−]?[$€£]?\s?\d[\d.,' ]*(?:/\s?\d+)?\s?[%$€£]?\.?")
_A_PLAIN_NUMBER = re.compile(r"[-+−]?\d+(?:[.,]\d+)*")
_TOKEN_ENDS = re.compile(r"[\s=:{}<>|]+")
# Digits in a token with these are a part of a name, a date or a range: "INV-48213", "(555)010", "2024/05".
_JOINS = re.compile(r"[-–()\[\]/#]")
# Words before and behind digits that make another number of them.
_SIGNS = ("minus", "negative", "moins", "menos", "meno", "min", "минус", "-", "−", "–")
_SCALES = frozenset(
    word
    for line in (
        "hundred thousand million billion trillion dozen lakh crore",
        "hundert tausend millionen milliarde milliarden dutzend cent cents mille millions milliard milliards douzaine",
        "cien mil millón millones docena cento mila milione milioni miliardi milhão milhões bilhão bilhões dúzia",
        "honderd duizend miljoen miljard dozijn сто тысяча тысяч тысячи миллион миллиона миллионов миллиард млн тыс",
    )
    for word in line.split()
)
_MOST_CHARS = 4000
# What a reply may begin with that says nothing yet.
_FILLER = re.compile(r"(?:sure|certainly|of course|absolutely|okay|ok|great|yes|here you (?:go|are))\W*", re.IGNORECASE)


@dataclass(frozen=True)
class AskedForm:
    """What the outputs of a task have to be like; 0, False and "" ask for nothing.

    Attributes:
        sentences: So many sentences at most.
        words: So many words at most.
        points: Items of a list, so many at least and at most; a text around them is none of the output.
        one_line: No line break within.
        number: A number and nothing else.
        json: A JSON value and nothing else.
        question: Something is asked.
        behind: Words or signs that the answer stands behind, somewhere in the output.
        within: A part of the input, to the letter but for capitals.
        parts: With `within`: several parts of it, or one.
        otherwise: Words for outputs without an answer, which are in the form whatever else it asks.
    """

    sentences: int = 0
    words: int = 0
    points: tuple[int, int] = (0, 0)
    one_line: bool = False
    number: bool = False
    json: bool = False
    question: bool = False
    behind: str = ""
    within: bool = False
    parts: bool = False
    otherwise: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != AskedForm()

    def cut(self, output: str, input: str | None = None) -> str:
        """What of an output was asked for, where that is plain; else the output as it is.

        The first sentences, without fillers before them, where it is clear that they end there; the only number; the
        first JSON object or list; the longest part in quotation marks or behind a colon that stands in the input.

        Examples:
            >>> AskedForm(sentences=1).cut("Sure! We study routing, e.g. in cars. It works.")
            'We study routing, e.g. in cars.'
            >>> AskedForm(number=True).cut("There are 12 vowels.")
            '12'
            >>> AskedForm(within=True).cut('The passage says "in May" of it.', "It opened in May.")
            'in May'
        """
        if is_no_answer(output, self.otherwise):
            return output
        if self.within and input is not None:
            output = part_within(output, input, self.parts)
        if self.json:
            return json_within(output)
        if self.points[1] and count_points(output) >= max(1, self.points[0]):
            return first_points(output, self.points[1])
        if self.number:
            return _number_within(output)
        if not self.sentences:
            return output
        ends = [0, *sentence_ends(output)]
        first = 0
        while first + 2 < len(ends) and _FILLER.fullmatch(output[ends[first] : ends[first + 1]].strip()):
            first += 1
        last = min(first + self.sentences, len(ends) - 1)
        if unclear_end(output, ends[last]):
            return output
        return output[ends[first] : ends[last]].strip()

    def fault(self, output: str, input: str | None = None) -> str:
        """What of the form an output breaks, in words; empty where nothing.

        Args:
            output: What was written.
            input: What it was written for; whether the output stands in it is not asked where it is None.
        """
        return "" if is_no_answer(output, self.otherwise) else next(self._faults(output, input), "")

    def _faults(self, output: str, input: str | None) -> Iterator[str]:
        if self.sentences and (found := len(sentence_ends(output))) > self.sentences:
            yield f"{found} sentences, where {self.sentences} are asked for"
        if self.words and (found := _word_count(output)) > self.words:
            yield f"{found} words, where at most {self.words} are asked for"
        least, most = self.points
        if most and not least <= (found := count_points(output)) <= most:
            yield f"{found} bullet points, where {_span(least, most)} are asked for"
        if self.one_line and "\n" in output.strip():
            yield "several lines, where one is asked for"
        if self.number and not _A_NUMBER.fullmatch(output.strip()):
            yield "not a number alone"
        if self.json and not is_json(output):
            yield "not JSON"
        if self.question and not _ASKS.search(output):
            yield "no question"
        if self.behind and not output.partition(self.behind)[2].strip():
            yield f"nothing behind {self.behind!r}"
        if self.within and input is not None and not stands_in(output, input, self.parts):
            yield "no part of the input"

    def allowing(self, output: str, input: str | None = None) -> AskedForm:
        """The form, widened so far that an output is in it.

        Examples:
            >>> AskedForm(sentences=1, words=25).allowing("It rained. It stopped.")  # doctest: +ELLIPSIS
            AskedForm(sentences=2, words=25, points=(0, 0), one_line=False, ..., otherwise=())
        """
        if is_no_answer(output, self.otherwise):
            return self
        return AskedForm(
            sentences=self.sentences and max(self.sentences, len(sentence_ends(output))),
            words=self.words and max(self.words, _word_count(output)),
            points=self.points if not AskedForm(points=self.points).fault(output) else (0, 0),
            one_line=self.one_line and not AskedForm(one_line=True).fault(output),
            number=self.number and not AskedForm(number=True).fault(output),
            json=self.json and not AskedForm(json=True).fault(output),
            question=self.question and _ASKS.search(output) is not None,
            behind="" if self.behind and AskedForm(behind=self.behind).fault(output) else self.behind,
            within=self.within and (input is None or stands_in(output, input, self.parts)),
            parts=self.parts,
            otherwise=self.otherwise,
        )

    def told(self) -> str:
        """In words, for a report."""
        parts = [
            f"at most {self.sentences} sentence{'s' if self.sentences > 1 else ''}" if self.sentences else "",
            f"at most {self.words} word{'s' if self.words > 1 else ''}" if self.words else "",
            f"{_span(*self.points)} bullet point{'s' if self.points[1] > 1 else ''}" if self.points[1] else "",
            "one line" if self.one_line else "",
            "a number" if self.number else "",
            "JSON" if self.json else "",
            "a question" if self.question else "",
            f"something behind {self.behind!r}" if self.behind else "",
            f"{'parts' if self.parts else 'a part'} of the input" if self.within else "",
        ]
        told = ", ".join(part for part in parts if part)
        return f"{told}, or {' or '.join(map(repr, self.otherwise))}" if told and self.otherwise else told


def asked_form(instruction: str) -> AskedForm:
    """What an instruction says of the form of its outputs.

    Examples:
        >>> asked_form("Summarise the notes of a meeting in one sentence of at most 25 words.").told()
        'at most 1 sentence, at most 25 words'
        >>> asked_form("Say which of two sentences is longer.").told()
        ''
    """
    if said := said_form(instruction):
        return AskedForm(**vars(said))
    text = " ".join(instruction[:_MOST_CHARS].split())
    sentences = [_count(found) for form in _SENTENCES for found in form.finditer(text) if _of_output(text, found)]
    bounds = [_count(found) for form in _MOST_WORDS for found in form.finditer(text) if _of_whole(text, found)]
    bounds += [_count(found) - 1 for found in _UNDER_WORDS.finditer(text) if _of_whole(text, found)]
    about = [_count(found) for form in _ABOUT_WORDS for found in form.finditer(text) if _of_whole(text, found)]
    bounds += [round(LEEWAY * count) for count in about]
    points = next((found for found in _POINTS.finditer(text) if _of_output(text, found)), None)
    if (found := _ONE_WORD.search(text)) and _of_output(text, found):
        bounds.append(1)
    behind = next((f["sign"] or f["quoted"] for f in _BEHIND.finditer(text) if _ENDING.search(text[: f.start()])), "")
    within = any(not _FORBIDS.search(text[: found.start()]) for found in _WITHIN.finditer(text))
    form = AskedForm(
        # Of several bounds ("in one sentence", "up to three for long texts") the widest holds for all outputs.
        sentences=max(sentences, default=0),
        words=max(bounds, default=0),
        points=_bounds(points) if points else (0, 0),
        one_line=bool((found := _ONE_LINE.search(text)) and _of_output(text, found)),
        number=bool(_NUMBER.search(text)) and not _IDENTIFIES.search(text),
        json=_asks_for_json(text, bool(sentences or bounds or points)),
        question=_QUESTION.search(text) is not None,
        behind=behind,
        within=within,
        parts=within and _PARTS.search(text) is not None,
    )
    return replace(form, otherwise=no_answer(text)) if form else form


def _count(found: re.Match[str]) -> int:
    return _number(found.groupdict().get("n") or "one")


def _number(said: str) -> int:
    return _WORDS.get(said.lower()) or int(said)


def _bounds(found: re.Match[str]) -> tuple[int, int]:
    """How many bullet points at least and at most; none fewer than are said, unless a range or a bound is."""
    most = _number(found["n"])
    return (1 if found["most"] else _number(found["least"] or found["n"])), most


def _span(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"


def _of_output(text: str, found: re.Match[str]) -> bool:
    """Whether a phrase speaks of the output: not in a clause that tells what is given or worked on."""
    before = text[: found.start()]
    worked_on = found[0].lower().startswith(("in ", "with ")) and _WORKS_ON.search(before)
    measured = _OF_A_TEXT.search(before) and not _WRITES.search(before)
    return not (worked_on or measured or _INPUT_SPEECH.search(before))


def _of_whole(text: str, found: re.Match[str]) -> bool:
    """Whether a number of words is that of an output, and not of each of its sentences or points."""
    each = _EACH[0].search(text[: found.start()]) or _EACH[1].match(text, found.end())
    return not each and _of_output(text, found)


def _word_count(text: str) -> int:
    """Words as people count them: "state-of-the-art" is one. Of scripts without spaces, what lies between marks."""
    if letters_apart(text) != text:
        return len(words(text))
    return sum(any(letter.isalnum() for letter in word) for word in _WORD_ENDS.split(text))


def _number_within(output: str) -> str:
    """The only number of an output; the output where there are several, or one is a part of a name, date or words."""
    numbers: list[str] = []
    before = ""
    for token in _TOKEN_ENDS.split(output):
        token = token.strip("\"'“”‘’*_`~≈.,;:!?$€£%\\")
        token = token[1:-1] if token[:1] + token[-1:] == "()" else token
        if numbers and token.lower() in _SCALES:
            return output
        if _A_PLAIN_NUMBER.fullmatch(token):
            if before in _SIGNS:
                return output
            numbers.append(token)
        elif _JOINS.search(token) and any(letter.isdigit() for letter in token):
            return output
        before = token.lower()
    return numbers[0] if len(numbers) == 1 else output


def _asks_for_json(text: str, of_words: bool) -> bool:
    """Whether outputs are one JSON value; "in JSON" is what is given where sentences, words or points are written."""
    found = _JSON.search(text)
    if found is None or not _of_output(text, found) or _JSON_LINES.search(text):
        return False
    if not found[0].lower().startswith(("in ", "as ")):
        return True
    if found[0].lower().startswith("in ") and (of_words or _JSON_GIVEN[1].search(text[: found.start()])):
        return False
    return _JSON_GIVEN[0].match(text, found.end()) is None
