"""By which words a model is told of a label: its name, or what a question asks where the label is only its answer.

"yes" says nothing of a comment, nor does "2" of an essay. Where the labels are yes and no (or true and false, 1 and 0)
and nobody described them, the task itself says what is so: "Is this comment toxic?" gives `toxic` and `not toxic`. The
points of a scale get what it measures: `2 stars`, `difficulty 2 out of 5`; other codes are told by their descriptions,
where these are short. A teacher that is told one short sentence writes by these words, and the encoder compares them
with texts.

Small models pass over a "not": asked for news that is not about sports, a teacher writes of sports, and to an encoder
"not about sports" lies where sports do. So what only denies another label is told as "other" too (`denials`;
measured in docs/log.md, "Labels that only deny").
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from potstill.language.guess import prompt_language
from potstill.language.names import LANGUAGES, label_languages
from potstill.language.scale_words import RATES, scale_words
from potstill.language.text_kinds import text_kind
from potstill.task import readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from potstill.task import TaskSpec

# What texts are called that are of no label told.
OTHER = "other"

_ANSWERS = (("yes", "no"), ("true", "false"), ("1", "0"), ("y", "n"))
_ARTICLES = frozenset(
    ("a", "an", "the", "this", "that", "these", "those", "each", "every", "any", "it", "all", "our", "my", "your")
    + ("their", "its", "given", "following")
)
_PEOPLE = frozenset(("someone", "somebody", "people", "they", "he", "she"))
_BE = ("is", "are", "was", "were")
_DO = ("does", "do", "did")
_HAVE = ("has", "have")
_MODALS = ("can", "could", "should", "must", "will", "would", "may", "might")
_PREPOSITIONS = frozenset(
    (
        "about",
        "on",
        "of",
        "in",
        "from",
        "to",
        "for",
        "with",
        "by",
        "at",
        "under",
        "below",
        "against",
        "between",
        "without",
    )
)
# Between a noun and such a word: "a comment posted on a forum".
_PARTICIPLE = re.compile(r"(?:\w{2,}ed|sent|made|left|written|said|given|told)$")
# What a text does, behind what it is about, from or on: "a comment on a video contains an insult".
_TELLS = re.compile(
    r"(?:contain|mention|express|describe|discuss|require|violate|include|recommend|contradict|refer|ask|say|give|imply|entail|"
    r"threaten|promote|deserve|make|insult|praise|critici[sz]e|explain|confirm|deny|cite)(?:s|es)?$|implies$|denies$"
)
# The same where an object follows; else they are nouns: "a comment on news reports is rude".
_TELLS_OF = re.compile(r"(?:report|state|support|need|show|use|answer|attack|sound|claim|complain|offer|request)s$")
_OF_WHAT = frozenset(("a", "an", "any", "some", "no", "somebody", "someone", "how", "what", "why", *_ARTICLES))
_BASE_IN_ED = frozenset(("need", "feed", "exceed", "proceed", "succeed", "breed", "bleed", "embed"))
_ADVERBS = frozenset(("also", "really", "actually", "likely", "probably", "clearly", "either"))
# What goes on with the subject: "a question and an answer match".
_NO_VERBS = frozenset(("and", "or", "nor", "but", "as", "than", "then", "vs", "versus", "not", *_PREPOSITIONS))
# Behind "has" these make a tense: "has already paid"; anything else is what is had.
_PERFECT = re.compile(
    r"(?:already|been|ever|never|\w+ed|paid|sent|made|left|bought|got|written|won|lost|said|gone|become)$"
)
# Where what is asked ends.
_END = re.compile(
    r"[.?!;:\n(\[]|,? (?:or|and) not\b|,? (?:and (?:0|1|no|yes|true|false)|otherwise|else)\b|,\s*$"
    r"|,? (?:then )?(?:write|output|return|answer|say|reply|print|give|respond)(?: with)? [\"'`]?"
    r"(?:0|1|yes|no|true|false)\b"
    r"|, (?:and|or|answer|yes|no|true|false|return|reply|say)\b"
    r"| and (?:answer|reply|say|return|output|respond|write|explain|give)\b"
)
_WHETHER = re.compile(r"\b(?:whether|if)\s+(?:or not\s+)?", re.IGNORECASE)
_QUESTION = re.compile(rf"\W*({'|'.join((*_BE, *_DO, *_HAVE, *_MODALS))})\s+", re.IGNORECASE)
_LATER_QUESTION = re.compile(rf"[.:]\s+({'|'.join((*_BE, *_DO, *_HAVE))})\s+(?=[^.]*\?)", re.IGNORECASE)
_RELATIVE = re.compile(r"([A-Za-z][\w'-]*)\s+(?:that|which|who)\s+")
_FINDS = re.compile(
    r"\W*(?:flag|find|detect|spot|identify|mark|report)\s+(?:(?:all|the|any)\s+)*([A-Za-z-]+\s+){0,2}?"
    r"(?P<kind>[A-Za-z-]+)\s+(?:about|on|of|in|from|to|for|with|by|at)\s+(?:[\w'-]+\s+){1,4}?(?:that|which|who)\s+",
    re.IGNORECASE,
)
_THING = r"((?:(?!(?:the|an?|of|in|on|for|and|or|any|all)\b)[a-zA-Z-]+ ){0,2}(?!(?:the|an?)\b)[a-zA-Z-]+)"
_DETECTION = re.compile(rf"\W*{_THING} detection\b")
_DETECT = re.compile(
    rf"\W*(?:detect|spot|identify|recogni[sz]e|find|flag) {_THING}(?: (?:in|on|among|within)\b|\W*$)", re.IGNORECASE
)
_RATED = re.compile(
    r"\b(?:rate|score|grade|rank|estimate|assess|judge|predict|determine|say|give|measure)\s+(?:the|its|their)\s+"
    r"([a-z]+(?: [a-z]+)?)\s+(?:of|in)\b",
    re.IGNORECASE,
)
# Numbers are points of a scale where more or less of something is told, and else only names of classes.
_SCALED = re.compile(
    r"\b(?:rat(?:e|ed|es|ing|ings)|stars?|points?|scor(?:e|ed|es|ing)|scales?|grad(?:e|ed|es|ing)|rank(?:ed|ing)?|likert|"
    r"severity|urgency|priority|difficulty|intensity|levels?|degree|similarity|relatedness|quality|strength|importance|"
    r"helpfulness|toxicity|likelihood|confidence|sentiment|polarity|formality|complexity|assess|estimate|"
    r"how (?!many\b|much\b|is\b|are\b|do\b|does\b|did\b|to\b)[a-z]+|(?:from|between) \d+ (?:to|and) \d+|"
    r"\d+ ?[-–] ?\d+)\b",
    re.IGNORECASE,
)
_CLASS = re.compile(
    r"(?:class|category|topic|label|type|kind|number|index|id|code|intent|genre|subject|emotion|language|department|team|"
    r"queue|author|answer)$",
    re.IGNORECASE,
)
# A label's name that says nothing by itself, and how many words may stand for it.
_CODE = re.compile(r"(?:(?:label|class|category|topic|group)[ _-]?|[+-])?\d{1,3}|[A-Za-z]\d{0,3}", re.IGNORECASE)
_MEANT_WORDS = 5
_MOST_WORDS = 12
_DENIED = re.compile(r"(?:not|non|no)[ -]+(.+)", re.IGNORECASE)
# Names that are short for a word, or stand for one among those who work with text alone: what they are told as where
# all of the first names are labels. To a small model "ham" is meat, and it wrote letters and advertisements for it.
_SHORT_FOR = (
    ({"spam", "ham"}, {"ham": "not spam"}),
    ({"m", "f"}, {"m": "male", "f": "female"}),
    ({"pos", "neg"}, {"pos": "positive", "neg": "negative", "neu": "neutral", "obj": "objective"}),
    ({"subj", "obj"}, {"subj": "subjective", "obj": "objective"}),
)


def label_words(spec: TaskSpec) -> dict[str, str]:
    """The words for each label of a task, by its name.

    Examples:
        >>> from potstill.task.file import read_task
        >>> label_words(read_task("Is this comment toxic?"))
        {'yes': 'toxic', 'no': 'not toxic'}
        >>> label_words(read_task("Classify tickets as card_arrival or other."))
        {'card_arrival': 'card arrival', 'other': 'other'}
        >>> label_words(read_task("Sort mails as spam or ham."))
        {'spam': 'spam', 'ham': 'not spam'}
    """
    return dict(_words(spec.instruction, tuple((label.name, label.description) for label in spec.labels)))


def beside(said: str, description: str) -> str:
    """The description that is told beside a label's words; "" where these are the description already."""
    return "" if description.strip() == said else description


def described_words(spec: TaskSpec) -> list[str]:
    """The words of each label with its description behind them, for an encoder."""
    said = label_words(spec)
    return [f"{said[label.name]}: {beside(said[label.name], label.description)}".rstrip(": ") for label in spec.labels]


def is_answered(names: Sequence[str]) -> bool:
    """Whether names only answer a question: yes and no, 1 and 0."""
    return any(sorted(name.lower() for name in names) == sorted(pair) for pair in _ANSWERS)


def denials(spec: TaskSpec) -> frozenset[str]:
    """The labels without a description whose words only deny those of another.

    Examples:
        >>> from potstill.task.file import read_task
        >>> sorted(denials(read_task("Is this comment toxic?")))
        ['no']
        >>> sorted(denials(read_task("Classify messages as spam or not_spam.")))
        ['not_spam']
        >>> sorted(denials(read_task("Classify reviews as positive or negative.")))
        []
    """
    words = label_words(spec)
    plain = {label.name for label in spec.labels if not label.description}
    if len(words) == 2 and len(plain) == 2 and (found := what_is_asked(spec.instruction)) is not None:
        for name, said in words.items():
            if said == found[1] and said != readable(name):
                return frozenset((name,))
    rest = {name: _DENIED.fullmatch(words[name]) for name in plain}
    return frozenset(
        name
        for name, denied in rest.items()
        if denied and any(_alike(denied[1], said) for other, said in words.items() if other != name)
    )


def _alike(denied: str, said: str) -> bool:
    """Whether "not DENIED" denies a label: `hate` and `hate`, `hateful` and `hate`."""
    denied, said = denied.lower(), said.lower()
    if denied == said:
        return True
    shorter, longer = sorted((denied, said), key=len)
    # One word with another ending; the last letter may go ("irony", "ironic").
    return " " not in denied + said and len(shorter) > 3 and longer.startswith(shorter[: max(4, len(shorter) - 1)])


@lru_cache(maxsize=256)
def _words(instruction: str, labels: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    names = [name for name, _ in labels]
    if (spoken := label_languages(instruction, names)) and not any(told for _, told in labels):
        return tuple((name, LANGUAGES.get(spoken.get(name, ""), readable(name))) for name in names)
    for yes, no in _ANSWERS:
        if sorted(name.lower() for name in names) == sorted((yes, no)) and not any(told for _, told in labels):
            found = what_is_asked(instruction)
            if found is not None:
                return tuple((name, found[0] if name.lower() == yes else found[1]) for name in names)
    if not all(told for _, told in labels) and is_scaled(instruction) and (points := _points(names)):
        described = {point: told for point, (_, told) in zip(points, labels, strict=True) if told}
        return tuple(zip(names, _on_a_scale(instruction, points, described), strict=True))
    meant = [told.strip() for _, told in labels]
    if all(map(_CODE.fullmatch, names)) and all(0 < len(told.split()) <= _MEANT_WORDS for told in meant):
        return tuple(zip(names, meant, strict=True))  # to a model "0" is a number, whatever stands beside it
    short = _short_for(names)
    return tuple((name, readable(name) if told else short.get(name, readable(name))) for name, told in labels)


def _short_for(names: Sequence[str]) -> dict[str, str]:
    """What names are short for, where they stand together as people give them: `pos` beside `neg`."""
    low = {name.lower(): name for name in names}
    return {
        low[short]: told
        for together, words in _SHORT_FOR
        if together <= low.keys()
        for short, told in words.items()
        if short in low
    }


def is_scaled(instruction: str) -> bool:
    """Whether a task asks for more or less of something, so that numbers are points of a scale and no codes.

    Examples:
        >>> is_scaled("Rate the review from 1 to 5 stars."), is_scaled("Predict the class: 1, 2 or 3.")
        (True, False)
    """
    rated = _RATED.search(instruction[:600])
    if prompt_language(instruction) not in ("en", None):
        return RATES.search(instruction) is not None
    return _SCALED.search(instruction) is not None or (rated is not None and _CLASS.search(rated[1]) is None)


def _points(names: list[str]) -> list[int]:
    """The numbers of a scale of three points or more, in the names' order; none for other names."""
    if not all(re.fullmatch(r"\d{1,2}", name) for name in names):
        return []
    points = [int(name) for name in names]
    lowest = min(points, default=0)
    return points if len(points) > 2 and sorted(points) == list(range(lowest, lowest + len(points))) else []


def _on_a_scale(instruction: str, points: list[int], described: dict[int, str]) -> list[str]:
    """What each point is, as far as the task tells; else `difficulty 1 out of 5` where something is rated."""
    if words := scale_words(instruction, points, described):
        return words
    rated = _RATED.search(instruction[:600])
    what = f"{rated[1].lower()} " if rated else ""
    return [f"{what}{point} out of {max(points)}" for point in points]


def what_is_asked(instruction: str) -> tuple[str, str] | None:
    """What a question says of its input where the answer is yes, and where it is no.

    Args:
        instruction: The task.

    Returns:
        Two phrases, or None where the task asks nothing that can be read so.

    Examples:
        >>> what_is_asked("Decide whether a review mentions a defect.")
        ('mentions a defect', 'does not mention a defect')
        >>> what_is_asked("Flag posts that should be removed.")
        ('should be removed', 'should not be removed')
        >>> what_is_asked("Detect hate speech in tweets.")
        ('hate speech', 'not hate speech')
    """
    text = " ".join(instruction.replace("’", "'")[:600].split())
    for found in _WHETHER.finditer(text):
        rest = _asked(text[found.end() :])
        cut = _subject(rest, goes_on=True)
        if cut and (said := _verb(rest[cut:])) is not None:
            return said
    if (begun := _QUESTION.match(text) or _LATER_QUESTION.search(text)) is not None:
        rest = _asked(text[begun.end() :])
        cut = _subject(rest, verb_ahead=begun[1].lower() in _DO)
        return _phrases(begun[1].lower(), rest[cut:]) if cut else None
    for word in _RELATIVE.finditer(text):
        if text_kind(word[1]) is not None or word[1].lower() in ("people", "users", "texts", "customers"):
            return _verb(_asked(text[word.end() :]))
    if (finds := _FINDS.match(text)) is not None and text_kind(finds["kind"]) is not None:
        rest = _asked(text[finds.end() :])
        if rest and (rest[0].lower() in (*_BE, *_MODALS, *_HAVE) or _TELLS.match(rest[0].lower())):
            return _verb(rest)
    return _detected(text)


def _asked(text: str) -> list[str]:
    """The words up to where what is asked ends."""
    found = _END.search(text)
    return (text[: found.start()] if found else text).split()


def _subject(words: list[str], *, verb_ahead: bool = False, goes_on: bool = False) -> int:
    """How many of the words are the subject: `the tone of this customer email` of 6; 0 where that cannot be told.

    Args:
        words: From the subject's first on.
        verb_ahead: Whether a verb without ending follows: "does the article report on war".
        goes_on: Whether what is about, on or from something belongs to the subject, as its verb comes behind it:
            "whether a tweet about war is sad", and not "is a tweet about war".
    """
    low = [word.lower() for word in words]
    kinds = [i for i, word in enumerate(low) if text_kind(word) is not None or word == "text"]
    at = next((i for i, word in enumerate(low) if word not in _ARTICLES), len(low))
    if at and low[at - 1] == "it":
        return at
    if at == 0:
        if low and low[0] in _PEOPLE:
            return 1
        if not kinds or kinds[0] > 3:
            return 0
        at = kinds[0]
    if low[at + 1 : at + 2] == ["of"] and (within := _subject(words[at + 2 :], goes_on=goes_on)):
        # The author of a tweet.
        return at + 2 + within
    if low[at + 1 : at + 2] in (["who"], ["that"], ["which"]):  # the customer who wrote a review is
        return next((i for i in range(at + 3, min(at + 10, len(low))) if low[i] in (*_BE, *_MODALS)), 0)
    verb = next((i for i in range(at + 1, min(at + 5, len(low))) if low[i] in (*_BE, *_MODALS, *_HAVE, "does")), None)
    end = next((i for i in kinds if at <= i < at + 4), None)
    if end is None or (verb is not None and verb < end):
        return verb or at + 1
    # The news article; not the review reports, nor (does) the article report on.
    while end + 1 in kinds and not low[end + 1].endswith("s") and not (verb_ahead and _begins_object(low, end + 2)):
        end += 1
    if low[end + 1 : end + 2] == ["of"] and not goes_on:  # clauses of terms of service are
        return next((i for i in range(end + 2, min(end + 7, len(low))) if low[i] in (*_BE, *_MODALS)), end + 1)
    return (_late_verb(low, end + 1) if goes_on else 0) or end + 1


def _late_verb(low: list[str], at: int) -> int:
    """Where the verb stands behind what belongs to a noun: `about sports` of "a sentence about sports is plausible"."""
    following = low[at : at + 1]
    if following in (["that"], ["which"], ["who"]):  # a question that is hard is
        return next((i for i in range(at + 2, min(at + 10, len(low))) if low[i] in (*_BE, *_MODALS)), 0)
    joint = at + (following != [] and _PARTICIPLE.match(low[at]) is not None)
    if not set(low[joint : joint + 1]) & _PREPOSITIONS or low[joint + 1 : joint + 2] in (["which"], ["whom"]):
        return 0
    for i in range(joint + 2, min(joint + 10, len(low))):
        within = low[i - 1] in ("that", "which", "who", "what", "where", "there", "it")
        tells = (low[i].endswith("s") and _TELLS.match(low[i])) or (
            _TELLS_OF.match(low[i]) and low[i + 1 : i + 2] != [] and low[i + 1] in _OF_WHAT
        )
        if not within and (low[i] in (*_BE, *_MODALS, *_HAVE) or tells):
            return i
    return 0


def _begins_object(low: list[str], at: int) -> bool:
    return low[at : at + 1] != [] and (low[at] in _ARTICLES or low[at] in ("on", "that", "for", "to"))


def _phrases(auxiliary: str, rest: list[str]) -> tuple[str, str] | None:
    """What "is it REST?" or "does it REST?" says."""
    if not rest or (auxiliary in _DO and rest[0].lower() in _PREPOSITIONS):  # does the post about a film give it away
        return None
    what = " ".join(rest)
    if auxiliary in _DO:
        return _both(" ".join([_third(rest[0]), *rest[1:]]), f"does not {what}")
    if auxiliary in _HAVE:
        return _both(f"has {what}", f"has not {what}")
    if auxiliary in _MODALS:
        return _both(f"{auxiliary} {what}", f"{auxiliary} not {what}")
    return _both(what, f"not {what}")


def _verb(rest: list[str]) -> tuple[str, str] | None:
    """What "whether it VERB …" or "that VERB …" says."""
    while len(rest) > 1 and rest[0].lower() in _ADVERBS:
        rest = rest[1:]
    verb = rest[0].lower() if rest else ""
    if verb in (*_BE, *_MODALS) or (verb in _HAVE and len(rest) > 1 and _PERFECT.match(rest[1])):
        return _phrases(verb, rest[1:])
    if not re.fullmatch(r"[a-z]{2,}", verb) or verb in _NO_VERBS or rest[:2] == ["does", "not"]:
        return None
    if verb.endswith("ed") and verb not in _BASE_IN_ED:
        return _both(" ".join(rest), f"not {' '.join(rest)}")
    base = _base(verb)
    return _both(" ".join([_third(base), *rest[1:]]), " ".join(["does not", base, *rest[1:]]))


def _both(yes: str, no: str) -> tuple[str, str] | None:
    yes, no = yes.strip(" ,'\""), no.strip(" ,'\"")
    # "Is it good or bad?" is no question of yes and no.
    if not yes or len(yes.split()) > _MOST_WORDS or re.search(r"\b(?:or|which|what|who|how)\b", yes):
        return None
    return yes, no


def _detected(text: str) -> tuple[str, str] | None:
    """What is to be detected: "Detect sarcasm in tweets", "Spam detection for comments"."""
    found = _DETECTION.match(text) or _DETECT.match(text)
    words = found[1].split() if found else []
    if words and text_kind(words[-1]) not in (None, words[-1]):  # clickbait headlines; not hate speech
        words = words[:-1]
    said = " ".join(words)
    said = said[0].lower() + said[1:] if said[1:2].islower() else said
    return _both(said, f"not {said}")


def _third(verb: str) -> str:
    if verb in ("have", "be"):
        return {"have": "has", "be": "is"}[verb]
    if re.search(r"(?:s|sh|ch|x|z|o)$", verb):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if re.search(r"[^aeiou]y$", verb) else f"{verb}s"


def _base(verb: str) -> str:
    if verb in ("has", "does", "goes"):
        return {"has": "have", "does": "do", "goes": "go"}[verb]
    if re.search(r"(?:ss|sh|ch|x|zz)es$", verb):
        return verb[:-2]
    if verb.endswith("ies") and len(verb) > 4:
        return f"{verb[:-3]}y"
    return verb[:-1] if verb.endswith("s") and not verb.endswith("ss") else verb
