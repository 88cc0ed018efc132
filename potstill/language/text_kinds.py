"""What a task calls its inputs where no rule of grammar finds it: words that name a kind of text, wherever they stand.

`wording.input_noun` reads the object of the task's verb or the first phrase with an article. In "Which emotion does the
tweet express?" there is neither, and in "Tell how a customer feels in a hotel review" it is the wrong one. Here words
for texts are looked for (`review`, `tweet`, `headline`), with what stands before and after them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_KINDS = frozenset(
    word
    for line in (
        "abstract ad advert advertisement alert announcement application argument article assignment bio biography",
        "blog blurb bulletin caption case chat citation claim clause code command comment commit complaint contract",
        "conversation criticism debate definition description dialog dialogue diary docstring document draft e-mail",
        "email entry essay excerpt explanation feedback fragment greeting headline idiom inquiry instruction invoice",
        "issue joke letter line listing log lyrics mail manual memo message narrative note notice notification novel",
        "obituary opinion outline page pair paper paragraph passage patent petition phrase pitch plot poem policy post",
        "posting prescription problem profile project prompt proposal prose proverb provision pun query question",
        "quotation quote recipe recommendation record remark reply report request response resume resumé review",
        "riddle rumor rumour sample scenario script sentence slogan snippet song speech statement story submission",
        "subtitle suggestion summary synopsis talk testimonial testimony thread ticket tip title transcript",
        "transcription transaction tweet utterance username verse voicemail warning cv faq sms",
    )
    for word in line.split()
)
#: Who writes or says what is sorted.
SPEAKERS = frozenset(
    ("customer", "user", "client", "caller", "student", "pupil", "person", "patient", "employee", "citizen", "author")
    + ("writer", "speaker", "guest", "visitor", "buyer", "shopper", "reader", "reviewer", "tenant", "applicant")
    + ("candidate", "passenger", "member", "parent", "politician")
)
# Words that cannot belong to a noun phrase before its noun.
_ENDS = frozenset(
    word
    for line in (
        "a an the this that these those each every any some all both either neither no one two three four five many",
        "most several which what whose who whom my our your his her its their someone's somebody's of in on at for",
        "from to by with about into onto under over behind between within whether if when where while as than and",
        "or but nor so is are was were be been being do does did has have had can could may might must shall should",
        "will would not i you he she it we they me us them there here then given following also only classify",
        "categorise categorize label tag sort route triage moderate rate score grade screen filter flag mark detect",
        "identify recognise recognize find pick choose select determine decide judge tell say predict assign check",
        "read look take analyse analyze assess estimate evaluate distinguish separate understand figure work guess",
        "name state spot locate answer solve correct summarise summarize translate rewrite convert extract describe",
        "know see get group put split divide wrote write writes written sent send said says received posted asked",
        "left made classification detection recognition analysis identification annotate first second third other same",
        "like",
    )
    for word in line.split()
)
# Parts of texts, where the text stands before them: a turn is none, and a dialogue turn is one.
_PARTS = frozenset(("turn", "segment", "section", "part", "chunk", "span"))
_PAIRED = frozenset(("two", "both", "three", "four", "first", "second", "third", "other", "between"))
# After these a word of the list is a verb: "people who comment", "how to report".
_DOERS = frozenset(
    ("who", "that", "which", "to", "people", "users", "customers", "they", "we", "you", "i", "and", "or")
)
_SOMEBODY = frozenset(("someone", "somebody", "anyone", "anybody", "everyone", "everybody", "he", "she"))
_SINGULAR = frozenset(("a", "an", "each", "every", "this", "one"))
# Behind a verb that could be a noun, its object: "the user reviews a hotel".
_OBJECTS = frozenset(("a", "an", "the", "his", "her", "its", "their", "whether", "how", "that", "something"))
_NO_NOUN = (
    "is are was were be by into as in and or if to with has have had for from that which who where it they ask asks "
    "state states show shows express expresses speaks talks tells says mentions describes conveys belongs means should "
    "must would will can may using whether of on about according based"
)
_AFTER = re.compile(
    r"\s+(?:(?:sent|made|addressed|written|asked|posted|left) )?(?:of|on|about|from|to|under|for|in|at|towards) "
    r"(?!(?:which|whom|one|its|their|his|her|terms|order|general|(?:the )?following)\b)"
    rf"((?:the |an? |our |my |your )?(?!(?:{_NO_NOUN.replace(' ', '|')})\b)[A-Za-z][\w'-]*)"
    rf"((?: (?!(?:{_NO_NOUN.replace(' ', '|')})\b)[\w'-]+){{0,3}})"
)
_BEHIND_VERBS = frozenset(("to", "the", "a", "an", "on", "whether", "if", "this", "each", "all", "with", "by", "how"))
_VAGUE = re.compile(r"^(?:single|given|following|new|input|whole|entire|certain|particular)\s+", re.IGNORECASE)
_JOINT = re.compile(
    r"\s(?:that|who|which|where|of|from|to|towards|about|on|for|in|with|at|under|by|sent|made|asked|written|posted)\b"
)
_WORD = re.compile(r"[A-Za-z][\w'-]*|[^\sA-Za-z]+")


def text_kind(word: str) -> str | None:
    """The singular of a word for texts, in its own spelling; None for other words.

    Examples:
        >>> text_kind("Stories"), text_kind("films")
        ('Story', None)
    """
    low = word.lower()
    for ending, singular in (("", ""), ("ies", "y"), ("es", ""), ("s", "")):
        if low.endswith(ending) and low[: len(low) - len(ending)] + singular in _KINDS:
            return word[: len(word) - len(ending)] + singular
    return None


def is_text_kind(noun: str) -> bool:
    """Whether a phrase's own noun names a kind of text.

    Examples:
        >>> is_text_kind("review of a film"), is_text_kind("film of a festival"), is_text_kind("dialogue turn")
        (True, False, True)
    """
    *ahead, own = _JOINT.split(noun)[0].split() or [""]
    return text_kind(own) is not None or (own.lower() in _PARTS and bool(ahead) and text_kind(ahead[-1]) is not None)


def own_noun(phrase: str) -> str:
    """The last word of a phrase before its first preposition or relative clause; "" of none.

    Examples:
        >>> own_noun("short review of a film")
        'review'
    """
    return (_JOINT.split(phrase)[0].split() or [""])[-1]


def named_text(instruction: str, labels: Collection[str], before: re.Pattern[str] | None = None) -> str:
    """The first kind of text that a task names, with its own words around it, or "".

    Args:
        instruction: The task.
        labels: Names of the labels. They are what is to be said of a text, not what it is.
        before: What must not stand before a phrase: words after which the output is named.

    Examples:
        >>> named_text("Which emotion does the tweet express?", ["joy"])
        'tweet'
        >>> named_text("Flag clickbait headlines of a newspaper.", ["clickbait", "other"])
        'headline of a newspaper'
    """
    text = instruction.replace("’", "'")
    answers = {label.lower() for label in labels}
    for words, doer in _phrases(text, answers):
        start = words[0].start()
        if before is not None and before.search(re.sub(r"\b(?:an?|the|one)\s+$", "", text[:start])):
            continue
        name = words[-1].group(0)
        ahead = [word.group(0) for word in words[:-1] if word.group(0).lower() not in answers]
        phrase = " ".join([*ahead, "news article" if name.lower() == "news" else text_kind(name) or name])
        if re.search(r"(?:^|[.:;!?]\s+|#\s+)$", text[:start]) and re.match(r"[A-Z][a-z]+\b", phrase):
            phrase = phrase[0].lower() + phrase[1:]
        if " ".join(word.group(0) for word in words).lower() in answers:
            if name.lower() == "news":  # fake news
                return "news article"
            continue
        after = _AFTER.match(text, words[-1].end())
        rest = " ".join((after.group(0) if not doer else text[words[-1].end() : after.end(1)]).split()) if after else ""
        if set(rest.lower().split()) & answers:
            rest = ""
        return f"{_VAGUE.sub('', phrase)} {rest}".strip()
    return ""


def _phrases(text: str, answers: Collection[str]) -> Iterator[tuple[list[re.Match[str]], bool]]:
    """Words of each phrase that ends with a kind of text, and whether the noun stands where a verb would."""
    words = list(_WORD.finditer(text))
    told = [word.group(0).lower() for word in words]
    at = 0
    while at < len(words):
        if not _may_be(told[at], answers) or _is_done(told, at):
            at += 1
            continue
        first = last = at
        while last + 1 < len(words) and told[last + 1] != told[last] and _goes_on(told, last + 1, answers):
            last += 1
        while first > 0 and at - first < 3 and told[first - 1][0].isalpha() and told[first - 1] not in _ENDS:
            first -= 1
        ahead = told[first - 1] if first else ""
        doer = at == first and ahead in _DOERS
        skipped = ahead in _PAIRED or ahead in ("its", "their", "his", "her") or _is_command(told, at)
        if not skipped and not (doer and _AFTER.match(text, words[last].end()) is None):
            yield words[first : last + 1], doer
        at = last + 1


def _is_command(told: list[str], at: int) -> bool:
    """Whether a word begins a sentence as its verb: "Reply to …", "Comment on …"; not "Question type"."""
    following = told[at + 1] if at + 1 < len(told) else ""
    begins = at == 0 or re.search(r"[.:;!?]$", told[at - 1]) is not None
    return begins and text_kind(told[at]) == told[at] and (following in _BEHIND_VERBS or following.endswith("ly"))


def _is_done(told: list[str], at: int) -> bool:
    """Whether a word is what somebody does: "someone talks to", "a user posts", "customers report"."""
    word, who = told[at], told[at - 1] if at else ""
    if text_kind(word) == word:
        return who == "people" or (who.endswith("s") and who[:-1] in SPEAKERS)
    if who in _SOMEBODY or (who in SPEAKERS and word in ("talks", "chats")):
        return True
    if who not in SPEAKERS:
        return False
    ahead = next((told[i] for i in range(at - 2, max(at - 5, -1), -1) if told[i] in _ENDS or not told[i].isalpha()), "")
    return ahead in _SINGULAR or (ahead == "the" and told[at + 1 : at + 2] != [] and told[at + 1] in _OBJECTS)


def _goes_on(told: list[str], at: int, answers: Collection[str]) -> bool:
    """Whether a compound goes on: `news sentences`, `question title`; not `review reports a bug`."""
    following = told[at + 1] if at + 1 < len(told) else ""
    verb = following in ("a", "an", "the", "its", "how", "what", "no", "that", "whether")
    verb = verb or (following == "on" and told[at] in ("report", "comment"))
    return not verb and _may_be(told[at], answers)


def _may_be(word: str, answers: Collection[str]) -> bool:
    return (word == "news" or text_kind(word) is not None) and not {word, text_kind(word)} & set(answers)
