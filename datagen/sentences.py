"""Where the sentences of a text end: a stop behind "Sen.", "Corp.", "Jan." or (German) "am 3." ends none.

In: a text that a teacher wrote. Out: indices. What follows a stop decides where its word alone does not: "at Acme Corp.
The firm …" are two sentences, "Acme Corp. Chief Executive" is one.

Source: that words which often open sentences tell is from Kiss and Strunk, Unsupervised Multilingual Sentence Boundary
Detection (Computational Linguistics 32:4, 2006); here they are a list, not counted.
"""

from __future__ import annotations

import re
from itertools import pairwise

from potstill.language.guess import prompt_language

_STOP = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s|\Z)|[。！？]+[”’」』）]*)")
# Before a name: these never end a sentence.
_LEADS_ON = re.compile(
    r"\b(?:e\.g|i\.e|vs|cf|approx|resp|dr|mr|mrs|ms|messrs|mme|mlle|prof|bzw|ggf|inkl|evtl|bspw|vgl|sog|ca|mio|mrd|geb|"
    r"(?-i:Sens?|Gov|Gen|Reps?|Lt|Col|Rev|Hon|Capt|Sgt|Cpl|Pvt|Maj|Cmdr|Adm|Supt|Insp|Amb|Pres|Mt|Ft|Hr|Dipl|Sra|Srta|"
    r"Mgr|Sig|Dott))\Z",
    re.IGNORECASE,
)
# These end one where a word follows that opens sentences, as do initials ("U.S.", "p.m.", "Plan B.").
_MAY_END = re.compile(
    r"(?:\b(?:et al|st|jr|sr|inc|ltd|corp|cos?|bros|llc|plc|dept|est|univ|assn|assoc|intl|natl|mfg|ave|blvd|rd|hwy|sq|"
    r"ft|hrs?|ing|str|std|usw)|\w(?<=[a-z]str)|(?<![^\W\d_])[A-Z])\Z",
    re.IGNORECASE,
)
_MONTHS = r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Okt|Nov|Dec|Dez"
_MAY_END_NAMES = re.compile(
    rf"(?:\b(?:{_MONTHS})|, (?:Ala|Ariz|Ark|Calif|Colo|Conn|Del|Fla|Ga|Ill|Ind|Kan|Ky|La|Mass|Md|Mich|Minn|Miss|Mo|"
    r"Mont|Neb|Nev|Okla|Ore|Pa|Tenn|Tex|Va|Vt|Wash|Wis|Wyo))\Z"
)
# Names that are written with their mark: "Yahoo! Japan".
_MARKED_NAME = re.compile(r"\b(?:Yahoo|Jeopardy|Joomla|Oklahoma|Wham|E)\Z")
_BEFORE_A_NUMBER = re.compile(
    rf"\b(?:nos?|nr|figs?|eqs?|secs?|refs?|vols?|pp?|pts?|ch|art|abs|op|ep|rd|(?-i:{_MONTHS}|Mon|Tues?|Wed|Thu(?:rs?)?|"
    r"Fri|Sat|Sun))\Z",
    re.IGNORECASE,
)
_NUMBER_NEXT = re.compile(r"\s*[\d(]")
# Also behind a mark of quotation that stands alone: "replace 'in.' with ' in. ' in a column".
_SMALL_NEXT = re.compile(r"\s*(?:[\"'`’”]\s+)?[a-zà-öø-ÿ]")
_LINE_END = re.compile(r"\S(?=[^\S\n]*\n)")
_LISTED = re.compile(r"^\s*\d{1,3}\Z", re.MULTILINE)
# Words that open a sentence, and that no name or title begins with.
_OPENS = re.compile(
    r"\s*[\"'“‘(\[]?(?:A(?!\.)|The|An|This|That|These|Those|There|Its?|He|She|They|We|You|I(?!\.)|His|Her|Their|Our|"
    r"Your|My|In|On|At|As|For|From|With|By|To|If|When|While|After|Before|Since|Because|Although|Though|But|And|Or|"
    r"However|Moreover|Also|Then|Thus|Therefore|Meanwhile|Instead|According|One|Some|Many|Most|Several|All|Both|Each|"
    r"Another|Other|Such|What|Who|How|Why|Where|Which|Here|Now|Today|Yesterday|Later|Under|Over|During|Despite|Until|"
    r"Nobody|Everyone|Critics|Der|Die|Das|Ein|Eine|Es|Er|Sie|Wir|Ich|Im|Am|An|Auf|Bei|Mit|Nach|Für|Dies\w{0,2}|Damit|"
    r"Danach|Dabei|Laut|Seit|Von|Zu|Zum|Zur|Und|Aber|Auch|Wenn|Als|Dann|Heute|Nun|Doch|Dort|Niemand|Alle|Viele)\b"
)
# German writes "the 3rd" as "3." and the noun behind it with a capital.
_ORDINAL = re.compile(r"(?<![\w.,])(?:\d{1,3}|[IVX]{2,5})\Z")
_GERMAN_ARTICLE = re.compile(r"\b(?:de[rmns]|das|vom|zum|zur|beim)\s\S{1,5}\Z", re.IGNORECASE)
_GERMAN_MONTH = re.compile(r"\s*(?:Januar|Jänner|Februar|März|Mai|Juni|Juli|Oktober|Dezember)\b")
# A short word that ends with a consonant, as what is shortened mostly does.
_SHORTENED = re.compile(r"(?<!\w)[A-Z][a-z]{0,2}[b-df-hj-np-tv-xz]\.\Z")
_FEW_WORDS = 4


def sentence_ends(text: str) -> list[int]:
    """Where each sentence of a text ends (index behind it); the last is the text's own end.

    A line break ends one, unless the line leads on with a colon or a comma. Abbreviations, initials, numbers of lists,
    German ordinals and a stop before a small letter end none.

    Examples:
        >>> text = "See Fig. 2 by J. Smith et al. for it. Then stop"
        >>> [text[:end] for end in sentence_ends(text)]
        ['See Fig. 2 by J. Smith et al. for it.', 'See Fig. 2 by J. Smith et al. for it. Then stop']
    """
    length = len(text.rstrip())
    ends = {length}
    german: bool | None = None
    for found in _STOP.finditer(text, 0, length):
        before = text[max(0, found.start() - 12) : found.start()]
        behind = found.end()
        goes_on = _SMALL_NEXT.match(text, behind) is not None
        if not goes_on and found[0] == ".":
            if _ORDINAL.search(before) and not _OPENS.match(text, behind):
                goes_on = bool(_GERMAN_ARTICLE.search(before) or _GERMAN_MONTH.match(text, behind))
                if not goes_on:
                    german = prompt_language(text) == "de" if german is None else german
                    goes_on = german
            goes_on = goes_on or _abbreviates(text, before, behind)
        elif not goes_on and found[0] == "!":
            goes_on = _MARKED_NAME.search(before) is not None and not _OPENS.match(text, behind)
        if not goes_on:
            ends.add(behind)
    for found in _LINE_END.finditer(text, 0, length):
        if found[0][0] not in ":,":
            ends.add(found.start() + 1)
    # What holds no letter or digit is no sentence, but the end of the one before it.
    kept: list[int] = []
    for start, end in pairwise([0, *sorted(ends)]):
        if any(letter.isalnum() for letter in text[start:end]):
            kept.append(end)
        elif kept:
            kept[-1] = end
    return kept


def _abbreviates(text: str, before: str, behind: int) -> bool:
    """Whether a stop shortens the word before it and ends no sentence."""
    if _LEADS_ON.search(before) or _LISTED.search(before):
        return True
    if _BEFORE_A_NUMBER.search(before) and _NUMBER_NEXT.match(text, behind):
        return True
    short = _MAY_END.search(before) or _MAY_END_NAMES.search(before)
    return short is not None and _OPENS.match(text, behind) is None


def unclear_end(text: str, end: int) -> bool:
    """Whether a text goes on behind the end of a sentence that may be none: behind a short name or title, or a number.

    Examples:
        >>> unclear_end("The town hired Deac. Clouseau.", 20), unclear_end("It rained. Bob left.", 10)
        (True, False)
    """
    said, rest = text[:end].rstrip(), text[end:]
    if not said.endswith(".") or not rest.strip() or rest.lstrip(" \t").startswith("\n") or _OPENS.match(rest):
        return False
    few = len(said.split()) < _FEW_WORDS
    return _SHORTENED.search(said) is not None or (few and said[-2:-1].isdigit())
