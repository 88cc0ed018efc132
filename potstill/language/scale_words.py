"""Words for the points of a scale: "very negative" for 1 and "positive" for 4, where a prompt says what its ends are.

To a small model and to a sentence encoder "2 out of 5" says next to nothing. A prompt that asks for points mostly says
more: what the ends mean ("from 1 (very negative) to 5 (very positive)"), what there is more or less of ("how helpful",
"rate the difficulty"), or that stars are given. The steps between are put into words from there (measured in
docs/log.md, "Points of a scale").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from potstill.language.speech import SPOKEN
from potstill.language.text_words import named_elsewhere

_SAID = r"([A-Za-z][\w' -]{1,40}?)"
_BRACKET = r"\s*[\[(](?:=\s*)?([^()\[\]]{2,60})[\])]"
_IS = (
    r"\s*(?:=+>?|:|\bis\b|\bare\b|\bmeans?\b|\bmeaning\b|\bbeing\b|\bfor\b|\bstands for\b|\bindicates?\b"
    r"|\bdenotes?\b)\s*"
)
_THE = r"(?:the |an? |that (?:it|they|the \w+) (?:is|are) )?"
_VERY = (
    r"(?:very|extremely|highly|strongly|completely|totally|absolutely|entirely|really|incredibly|most|fully|perfectly"
    r"|definitely|sehr|äußerst|völlig|ganz|très|extrêmement|totalement|muy|totalmente|molto|estremamente|muito|zeer|heel"
    r"|helemaal|очень|совсем)"
)
#: Words of other languages for giving points.
RATES = re.compile("|".join(speech.rates for speech in SPOKEN.values()), re.IGNORECASE)
_STARS = re.compile("|".join((r"\bstars?\b", *(speech.stars for speech in SPOKEN.values()))), re.IGNORECASE)
_NOT = re.compile(
    r"(?:not(?: (?:at all|very|really|even))?|no|least|in no way|hardly|never|un-?)[ -]*(.+?)(?: at all)?",
    re.IGNORECASE,
)
_STRONG = re.compile(rf"{_VERY}\s+(.+)", re.IGNORECASE)
# Ends that say how good something is have words of their own.
_BAD = frozenset(
    (
        "bad",
        "poor",
        "terrible",
        "awful",
        "worst",
        "horrible",
        "unacceptable",
        "low quality",
        "schlecht",
        "mauvais",
        "malo",
    )
    + (
        "mala",
        "cattivo",
        "pessimo",
        "ruim",
        "mau",
        "slecht",
        "плохо",
        "ужасно",
        "miserabel",
        "nul",
        "pésimo",
        "péssimo",
    )
)
_GOOD = frozenset(
    ("good", "great", "excellent", "best", "perfect", "outstanding", "amazing", "superb", "high quality", "gut", "bon")
    + ("bueno", "buena", "buono", "ottimo", "bom", "ótimo", "goed", "хорошо", "отлично", "ausgezeichnet", "uitstekend")
    + ("hervorragend", "excelente", "eccellente")
)
QUALITY = ("terrible", "poor", "average", "good", "excellent")
_LOW_HIGH = {"lowest": "low", "highest": "high", "worst": "bad", "best": "good", "easiest": "easy", "hardest": "hard"}
_MIDDLE = {
    frozenset(("negative", "positive")): "neutral",
    frozenset(("low", "high")): "medium",
    frozenset(("disagree", "agree")): "neutral",
    frozenset(("dissatisfied", "satisfied")): "neutral",
    frozenset(("unhappy", "happy")): "neutral",
    frozenset(("sad", "happy")): "neutral",
}
_HOW = re.compile(
    r"\bhow\s+(?!(?:many|much|is|are|do|does|did|to|the|well|a|an|often|it|they|you|this)\b)"
    r"((?:\w+ly )?[a-z]{3,})\b(?!\s+(?:much|many)\b)",
    re.IGNORECASE,
)
_MOODS = re.compile(r"\b(?:sentiment|polarity|attitude|tone|mood)\b", re.IGNORECASE)
_JUDGED = re.compile(r"\b(?:reviews?|ratings?|satisfaction|overall score|quality)\b", re.IGNORECASE)
_RATED_NOUN = re.compile(
    r"\b(?:rate|score|grade|rank|estimate|assess|judge|predict|determine|say|give|measure)\s+(?:me\s+)?(?:the|its|their|a|an)\s+"
    r"([a-z]{4,})\s+(?:of|in|for|level)\b",
    re.IGNORECASE,
)
_NO_NOUN = frozenset(
    (
        "rating",
        "score",
        "number",
        "grade",
        "point",
        "points",
        "value",
        "level",
        "label",
        "class",
        "star",
        "stars",
        "degree",
    )
    + ("review", "reviews", "rate", "answer", "mark", "sentiment", "polarity", "tone", "mood", "attitude", "quality")
)


def scale_words(instruction: str, points: Sequence[int], described: Mapping[int, str] | None = None) -> list[str]:
    """Words for each point of a scale, in the order of `points`; empty where the prompt does not tell what is measured.

    Args:
        instruction: The task.
        points: The labels' numbers, at least three, side by side.
        described: What the user says of some of them.

    Examples:
        >>> scale_words("Rate a tweet from 1 (very negative) to 5 (very positive).", [1, 2, 3, 4, 5])
        ['very negative', 'negative', 'neutral', 'positive', 'very positive']
        >>> scale_words("Say how helpful an answer is, from 1 to 3.", [1, 2, 3])
        ['not helpful at all', 'moderately helpful', 'very helpful']
        >>> scale_words("Give the review 1 to 5 stars.", [1, 5, 2, 3, 4])[:2]
        ['1 star, terrible', '5 stars, excellent']
    """
    text = " ".join(instruction[:2000].replace("’", "'").split())
    low, high = min(points), max(points)
    described = described or {}
    ends = (described.get(low, ""), described.get(high, ""))
    if not all(0 < len(end.split()) <= 5 for end in ends):
        ends = _ends(text, low, high)
    size = high - low + 1
    stars = _STARS.search(text) is not None
    if ends[0] and ends[1]:
        said = _between(*ends, size)
    elif stars:
        said = _spread(QUALITY, size)
    else:
        said = _measured(text, size)
    if not said:
        return []
    if stars:
        said = [f"{low + at} star{'s' if low + at != 1 else ''}, {word}" for at, word in enumerate(said)]
    return [described.get(point) or said[point - low] for point in points]


def _ends(text: str, low: int, high: int) -> tuple[str, str]:
    """What the prompt says of the lowest and the highest point; empty where it does not."""
    stars = r"(?:\s+(?:stars?|points?))?"
    first, last = rf"(?<![\d.]){low}{stars}(?![\d.]*\d)", rf"(?<![\d.]){high}{stars}(?![\d.]*\d)"
    gap, end = ".{0,120}?", r"(?:[,;.)]|$)"
    low_in, high_in = (rf"{_THE}{_SAID}\s*[\[(]{point}{stars}[\])]" for point in (low, high))
    low_is, high_is = rf"{first}{_IS}{_THE}{_SAID}", rf"{last}{_IS}{_THE}{_SAID}"
    until = r"(?:[,;.]|\s+(?:and|to|up to|while|but)\b|\s+-)"
    forms = (
        rf"{first}{_BRACKET}{gap}{last}{_BRACKET}",
        rf"\b(?:from|between)\s+{low_in}{gap}\b(?:to|and)\s+{high_in}",
        rf"{low_is}{until}{gap}{high_is}{end}",
        rf"{low_is}\s+and\s+{last}\s+{_THE}{_SAID}{end}",
        rf"{first}\s*[,:]?\s+{_THE}{_SAID},?\s+(?:to|and|-|–)\s+{last}\s*[,:]?\s+{_THE}{_SAID}{end}",
    )
    turned = (rf"{high_is}{until}{gap}{low_is}{end}", rf"{last}{_BRACKET}{gap}{first}{_BRACKET}")
    for form in (*forms, *turned):
        found = re.search(form, text, re.IGNORECASE)
        pair = [" ".join(part.split()).strip(" '\"-") for part in found.groups()] if found else []
        if pair and all(0 < len(part.split()) <= 5 for part in pair):
            return (pair[1], pair[0]) if form in turned else (pair[0], pair[1])
    return "", ""


def _between(first: str, last: str, size: int) -> list[str]:
    """Words for all points from those of the ends."""
    low, high = _core(first), _core(last)
    if low in _BAD and high in _GOOD:
        return _spread(QUALITY, size)
    denied = _NOT.fullmatch(first)
    if low == high or (denied is not None and _core(denied[1]) == high):
        return _more_and_more(high, size)
    middle = _MIDDLE.get(frozenset((low, high)), f"neither {low} nor {high}")
    seven = (f"very {low}", low, f"slightly {low}", middle, f"slightly {high}", high, f"very {high}")
    steps = list(seven if size > 6 else (*seven[:2], middle, *seven[5:]))
    strong = (_STRONG.fullmatch(first) is not None, _STRONG.fullmatch(last) is not None)
    if any(strong):  # what is told of one end alone is the end as well
        steps[0], steps[-1] = first, last
        steps[1] = steps[1] if strong[0] else f"rather {low}"
        steps[-2] = steps[-2] if strong[1] else f"rather {high}"
    return _spread(steps, size)


def _core(end: str) -> str:
    """What an end has much of: `very positive`, `positive`."""
    end = end.lower().removeprefix("the ").strip()
    strong = _STRONG.fullmatch(end)
    word = strong[1] if strong else end
    return _LOW_HIGH.get(word, word)


def _measured(text: str, size: int) -> list[str]:
    """Words where no end is told: what there is more or less of."""
    if (how := _HOW.search(text)) is not None:
        return _more_and_more(how[1].lower(), size)
    noun = _RATED_NOUN.search(text)
    if noun is not None and noun[1].lower() not in _NO_NOUN:
        told = ("very low", "low", "medium", "high", "very high")
        return [f"{word} {noun[1].lower()}" for word in _spread(told, size)]
    if _MOODS.search(text):
        return _between("very negative", "very positive", size)
    judged = _JUDGED.search(text) is not None or named_elsewhere(text) == "review"
    return _spread(QUALITY, size) if judged else []


def _more_and_more(word: str, size: int) -> list[str]:
    return _spread(
        (f"not {word} at all", f"slightly {word}", f"moderately {word}", f"quite {word}", f"very {word}"), size
    )


def _spread(told: Sequence[str], size: int) -> list[str]:
    """As many words as there are points, the ends at the ends; of points with one word all but the first say where."""
    if size > len(told):
        places = [at * (len(told) - 1) / (size - 1) for at in range(size)]
        named: list[str] = []
        for at, place in enumerate(places):
            word = told[round(place)]
            named.append(word if word not in named else f"{word}, {at + 1} of {size}")
        return named
    return [told[round(at * (len(told) - 1) / (size - 1))] for at in range(size)]
