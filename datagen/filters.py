"""Why a written text is not fit to train on: one pure function a reason, each gives None or the dropped row.

The rule on leaked labels, `label_leak`: a text for `Sports` may hold the word sports, as articles on sports do. It
leaks when the name stands as a mark instead of a word: in quotes or brackets, after `label:`, `category is` and the
like, as the first or last line alone, or anywhere when the name is no natural word (`card_arrival`, `Sci/Tech`,
`BookRestaurant`). Natural uses are counted by the plan, which caps their share (`own_name_share`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import regex

from potstill.datagen.novelty import NoveltyFilter, rouge_l_f1
from potstill.datagen.parse import TEXTS
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.datagen.refusals import refusal_in
from potstill.language.guess import other_language
from potstill.language.unspaced import letter_runs, letters_a_word, letters_apart
from potstill.rows import Dropped

STAGE = "datagen"
_WORD = re.compile(r"\w+", re.UNICODE)
_META = re.compile(
    r"^(?:(?:sure|certainly|of course)\b[,.!:]{0,2}\s{0,3}(?:here(?:'s| is| are)|below|the following|let me write|"
    r"i(?:'d| would|'ll| will| can)(?: be (?:happy|glad) to)? (?:write|create|generate|provide|give|help))|"
    r"below (?:is|are)|this is an? (?:example|sample)|i hope this (?:helps|text|example|meets|works))\b"
    rf"|^here(?:'s| is| are) {TEXTS}"
    r"|\b(?:the (?:category|label|class) (?:is|of this)|belongs to the (?:category|class|label)|for which the "
    r"(?:right |correct )?(?:answer|label) is|let me know if (?:you(?:'d| would)? (?:like (?:it|this|me|more|another)|"
    r"want me|need (?:more|another))|this (?:works|helps|meets)|i can (?:help|assist))|would you like me to|"
    r"insert (?:name|text|title|here)|lorem ipsum)\b"
    # An index of code, `row[name]`, is no placeholder.
    r"|(?<!\w)\[(?:your|name|insert|company|date|city|product|title|customer|recipient|sender|bank|amount|number)"
    r"[^\]\n]{0,40}\]"
    r"|(?<!\w)\[(?:[\w'’]+[ _/-]){0,4}(?:name|id|number|address|date|time|title|link|url|e-?mail|amount|product|"
    r"service|item)\]",
    re.IGNORECASE,
)
# The first line of a letter, without the letter. "Hi there" is left: for a label of greetings it is a right text.
_SALUTATION = re.compile(r"dear(?: (?!me\b)\w+){1,4}\W*", re.IGNORECASE)
_NATURAL = regex.compile(r"(?:\p{L}\p{M}*)+(?:[ '-](?:\p{L}\p{M}*)+){0,4}")
_CAMEL = re.compile(r"[a-z][A-Z]")


def words(text: str) -> list[str]:
    """The words of a text, lower case, in any script."""
    return _WORD.findall(text.lower())


def length_of(text: str) -> int:
    """Words, or half the characters for scripts that write no spaces."""
    count = len(_WORD.findall(text))
    return max(count, sum(not c.isascii() and c.isalpha() for c in text) // 2) if count < 20 else count


def too_short(text: str, min_words: int) -> Dropped | None:
    """Nothing but space and marks, or fewer words than `min_words`.

    Examples:
        >>> too_short("One word", 3).reason
        'too_short'
    """
    if not any(c.isalnum() for c in text):
        return Dropped("empty", "no letter or digit", text, stage=STAGE)
    count = length_of(text)
    return (
        Dropped("too_short", f"{count} words, at least {min_words}", text, stage=STAGE) if count < min_words else None
    )


def too_long(text: str, max_words: int) -> Dropped | None:
    """More words than `max_words`."""
    count = len(_WORD.findall(text))
    return (
        Dropped("too_long", f"{count} words, at most {max_words}", text[:2000], stage=STAGE)
        if (count > max_words)
        else None
    )


def refusal(text: str) -> Dropped | None:
    """The teacher speaks as a model or declines what it was asked.

    Examples:
        >>> refusal("As an AI language model, I cannot write that.").reason
        'refusal'
    """
    found = refusal_in(text)
    return Dropped("refusal", found, text, stage=STAGE) if found else None


def meta_talk(text: str) -> Dropped | None:
    """Talk about the text in place of the text, or an unfilled placeholder."""
    found = _META.search(text[:600])
    return Dropped("meta_talk", found.group(0), text, stage=STAGE) if found else None


def unfinished(text: str) -> Dropped | None:
    """What was to follow is missing: a greeting alone (`Dear Sir,`), or an announcement (`Here is why:`)."""
    if _SALUTATION.fullmatch(text.strip()):
        return Dropped("unfinished", "a greeting alone", text, stage=STAGE)
    if text.rstrip().endswith((",", ":", "，", "：")):
        return Dropped("unfinished", f"ends with {text.rstrip()[-1]}", text, stage=STAGE)
    return None


def prompt_echo(text: str, prompt: str) -> Dropped | None:
    """The text repeats the prompt: it lies in it, holds eight of its words in a row, or is nearly one of its lines."""
    own = words(text)
    given = words(prompt)
    if _lies_in(own, given, 4):
        return Dropped("prompt_echo", "the text is part of the prompt", text, stage=STAGE)
    if (letters := letters_a_word(text)) > 1:
        if _lies_in(words(letters_apart(text)), words(letters_apart(prompt)), 4 * letters):
            return Dropped("prompt_echo", "the text is part of the prompt", text, stage=STAGE)
        known = set(letter_runs(prompt, 8))
        if copied := next((run for run in letter_runs(text[:2000], 8) if run in known), None):
            return Dropped("prompt_echo", copied.replace(" ", ""), text, stage=STAGE)
    runs = {tuple(given[i : i + 8]) for i in range(len(given) - 7)}
    for i in range(min(len(own), 400) - 7):
        if tuple(own[i : i + 8]) in runs:
            return Dropped("prompt_echo", " ".join(own[i : i + 8]), text, stage=STAGE)
    if len(own) < 60:
        for line in prompt.split("\n"):
            if len(line) > 15 and rouge_l_f1(line[:1000], text) > 0.7:
                return Dropped("prompt_echo", line[:200], text, stage=STAGE)
    return None


def _lies_in(own: Sequence[str], given: Sequence[str], least: int) -> bool:
    return len(own) >= least and f" {' '.join(own)} " in f" {' '.join(given)} "


def example_echo(text: str, examples: NoveltyFilter, reason: str = "example_echo") -> Dropped | None:
    """The text is nearly one that the prompt showed, or may have shown."""
    found = examples.match(text)
    return (
        Dropped(reason, f"ROUGE-L {found.f1:.2f} with shown text {found.index}", text, stage=STAGE) if found else None
    )


def near_duplicate(text: str, kept: NoveltyFilter | RecentNovelty) -> Dropped | None:
    """The text is nearly one that was kept before."""
    found = kept.match(text)
    return (
        Dropped("near_duplicate", f"ROUGE-L {found.f1:.2f} with kept text {found.index}", text, stage=STAGE)
        if (found)
        else None
    )


def wrong_language(text: str, languages: tuple[str, ...]) -> Dropped | None:
    """The text is clearly in none of the task's languages."""
    found = other_language(text, languages)
    return Dropped("wrong_language", f"{found}, not {', '.join(languages)}", text, stage=STAGE) if found else None


def is_natural(name: str) -> bool:
    """Whether a label's name reads as words that a text may hold (`Sports`, `hate speech`)."""
    return bool(_NATURAL.fullmatch(name)) and not _CAMEL.search(name)


@cache
def _mark_of(name: str) -> re.Pattern[str]:
    word = re.escape(name)
    return re.compile(
        rf"[\"'“‘(\[<*_`]\s?{word}\s?[\"'”’)\]>*_`]"
        rf"|\b(?:label(?:led|s)?|categor(?:y|ies|i[sz]ed)|class(?:ified|ification)?|tag(?:ged)?|intent|topic|type|answer|sentiment)"
        rf"(?:\s?(?:[:=]|is|as|of|under))\s{{0,3}}[\"'“(\[*]?(?:an? |the )?{word}\b"
        rf"|\A\W{{0,4}}{word}\W{{0,4}}(?:\n|\Z)|(?:\n|\A)\W{{0,4}}{word}\W{{0,4}}\Z"
        rf"|\A{word}\s?[:=]",
        re.IGNORECASE,
    )


@cache
def _alone(name: str) -> re.Pattern[str]:
    """The name as a word of its own, in its own case where capitals join its words."""
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", 0 if _CAMEL.search(name) else re.IGNORECASE)


def label_leak(text: str, names: Sequence[str]) -> Dropped | None:
    """A label's name stands in the text as a mark instead of a word (the rule is in the module's text)."""
    lowered = text.lower()
    for name in names:
        if len(name) < 2 or name.lower() not in lowered:
            continue
        found = _mark_of(name).search(text)
        if found:
            return Dropped("label_leak", found.group(0).strip(), text, stage=STAGE)
        # A number is no mark: texts hold numbers of their own.
        if not is_natural(name) and any(letter.isalpha() for letter in name) and _alone(name).search(text):
            return Dropped("label_leak", name, text, stage=STAGE)
    return None


def names_itself(text: str, name: str) -> bool:
    """Whether a text holds its label's name as words.

    Examples:
        >>> names_itself("Spam, spam and more spam", "spam")
        True
    """
    return f" {' '.join(words(name))} " in f" {' '.join(words(text))} "


def repetition(text: str) -> Dropped | None:
    """A loop: one unit again and again, or hardly any new words.

    Examples:
        >>> repetition("很好吃，" * 9).reason
        'repetition'
    """
    if re.search(r"([^\s.\-=*_#])\1{14}", text[:6000]):
        return Dropped("repetition", "one character 15 times", text[:2000], stage=STAGE)
    found = _loop(words(text), 1)
    if not found and (letters := letters_a_word(text)) > 1:
        found = _loop(words(letters_apart(text[:6000])), letters)
    return Dropped("repetition", found, text[:2000], stage=STAGE) if found else None


def _loop(own: Sequence[str], letters: int) -> str:
    """What comes again and again in words, or in single letters of which so many take the place of a word."""
    own = own[: 600 * letters]
    for period in range(1, 12 * letters + 1):
        same, most = 0, max(3 * period, 4 * letters)
        for i in range(period, len(own)):
            same = same + 1 if own[i] == own[i - period] else 0
            unit = own[i - period + 1 : i + 1] if same >= most else []
            # One letter again and again is laughter, up to the bound above.
            if unit and (letters == 1 or len(set(unit)) > 1):
                return (" " if letters == 1 else "").join(unit)
    size = 3 * letters
    if len(own) >= 40 * letters:
        grams = Counter(tuple(own[i : i + size]) for i in range(len(own) - size + 1))
        repeated = sum(count for count in grams.values() if count > 1) / grams.total()
        if repeated > 0.4:
            return f"{repeated:.0%} of its {'word triples' if letters == 1 else f'runs of {size} letters'} repeat"
    return ""
