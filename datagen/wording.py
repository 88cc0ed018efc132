"""Words for prompts, taken from the task's own: what its inputs are called, and labels that read as words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from potstill.datagen.field_words import pair_of
from potstill.language.label_words import label_words
from potstill.language.names import LANGUAGES
from potstill.language.text_kinds import SPEAKERS, is_text_kind, named_text, own_noun, text_kind
from potstill.language.text_words import named_elsewhere
from potstill.task import TaskSpec
from potstill.task import readable as readable

_END = (
    r"(?=\s*(?:[,.:;(?!\n]|$)|\s+(?:by|into|as|according|based|in one|in a|(?:from|to) (?:[A-Z]|\d)\S*|so|and|if|when|"
    r"is|are|was|were|states?|express(?:es)?|shows?|asks?|conveys?|belongs?|means|mentions?|speaks?|talks?|tells?|contains?|should|using|whether|or)\b)"
)
_PHRASE = r"([A-Za-z][\w'/ -]{1,90}?)"
# Behind "each" and "this" a verb, whose object or subject they are: "which emotion does each express?".
_VERB = (
    r"(?:other|is|are|was|were|has|have|had|does|do|can|could|should|must|will|would|may|might|means?(?! of)|"
    r"impl(?:y|ies)|(?:express|contain|entail|contradict|convey|refer|belong|describe|agree|disagree|differ|sound|seem)"
    r"(?:e?s)?)\b"
)
_ARTICLE = re.compile(
    rf"\b(?i:an?|every|the given|(?:the )?following|(?:each|this|these)(?!\s+{_VERB}))\s+" + _PHRASE + _END
)
# "Does this contain an insult?" names what is said of an input alone.
_UNNAMED = re.compile(
    rf"\W*(?:is|are|was|does|do|did|has|have)\s+(?:it|they|(?:this|these|each)(?=\s+{_VERB}))\s", re.IGNORECASE
)
# Says how to answer behind such an object: "answer the question with one word".
_WITH = re.compile(r"\s(?:with|using|by)\s.*", re.DOTALL)
_ANSWERS = re.compile(r"\W*(?:answer|solve|complete)\b", re.IGNORECASE)
_NO_NOUN = re.compile(r"(?:other|others|one|another)\b", re.IGNORECASE)
# Who is spoken to where the task names no text: "someone talks to an assistant app".
_ADDRESSED = re.compile(
    rf"\b(?:(?:some|any|every)(?:one|body)|people|citizens|(?:{'|'.join(sorted(SPEAKERS))})s"
    rf"|(?:an?|the|each|every)\s+(?:[\w-]+\s+)?(?:{'|'.join(sorted(SPEAKERS))}))"
    r"\s+(?:talk|speak|write|chat|turn)s?\s+(?:to|with)\s+(?!each other|one another)" + _PHRASE + _END,
    re.IGNORECASE,
)
_OBJECT = re.compile(
    r"^\W*(?:(?i:classify|categori[sz]e|label|tag|sort|route|triage|moderate|rate|score|grade|screen|filter|translate|"
    r"paraphrase|rewrite|rephrase|shorten|simplify|summari[sz]e|answer|solve|correct|proofread|complete|read|turn|convert|"
    r"transform|expand|normali[sz]e|reformat))\s+"
    r"((?:all |the (?:given |following )?|our |my |some )?)" + _PHRASE + _END
)
_PLURAL = re.compile(r"\b(?:in|of|for|on|from)\s+(?!both |two |three )([a-zA-Z][\w'-]*(?: [\w'-]+){0,3}?s)" + _END)
_PLURAL_OF_SEVERAL = re.compile(r"(?:both|two|three|either)\b", re.IGNORECASE)
_NOT_INPUTS = re.compile(
    r"^(?:(?:single|short|one)\s)?(?:word|number|sentence|text label|label|category|class|answer|output|input)$"
)
_LISTENERS = frozenset(("assistant", "chatbot", "bot", "agent", "hotline", "helpline", "helpdesk", "desk", "service"))
# The verb that a phrase swallowed: "what a customer wants".
_DOES = re.compile(r" (?:wants?|needs?|feels?|says?|thinks?|means?|asks?|would|could|should|is|are|was|has|had)\b.*")
# What is asked about an input, not what it is: "the sentiment of a tweet".
_ASKED = re.compile(
    r"^(?!natural language )(?:\w+ )?(?:spelling|grammar|punctuation|wording|mistake|typo|"
    r"sentiment|emotion|feeling|tone|mood|attitude|opinion|stance|topic|theme|subject|category|class|type|"
    r"kind|genre|intent|intention|purpose|language|polarity|toxicity|urgency|priority|severity|quality|level|meaning|"
    r"relation|relationship|answer|label|truth)s?\b",
    re.IGNORECASE,
)
# Names no input where it is a phrase's own noun: how to answer, or what is asked.
_ANSWERED = re.compile(
    r"(?:scale|stars?|points?|rating|score|categor(?:y|ies)|class|label|sentiment|polarity|topic|intent(?:ion)?|emotion|genre|"
    r"type|kind|tone|mood|stance|urgency|priority|severity|sarcasm|toxicity|style|gender|quality|helpfulness|acceptability)s?",
    re.IGNORECASE,
)
_POSSESSED = re.compile(
    rf"\b([A-Za-z][A-Za-z-]*)'s\s+(?:[a-z][\w-]*\s+){{0,2}}(?:{_ANSWERED.pattern})\b", re.IGNORECASE
)
_POINTS = re.compile(r"\b(?:scale|stars?|points?)\b", re.IGNORECASE)
_HEADING = re.compile(r"^(#{1,6} .*\w)[ \t]*$", re.MULTILINE)
_JOINT = r"(?:of|from|to|about|on|for|in|with|at|sent|asked|received|written|posted|left|made|that|which|who|where)"
# What stands behind such a word is the output: "given a request, write a shell command".
_WRITTEN = re.compile(
    r"\b(?:write|generate|produce|create|compose|draft|suggest|propose|invent|return|output|give|add|make|take|"
    r"(?:reply|respond|answer) with|(?:in|on)to|as)\s+$",
    re.IGNORECASE,
)
# Spoken with a vowel first: also letters of an abbreviation, and not "user", "university", "European".
_AN = re.compile(
    r"[AEFHILMNORSX](?:[A-Z]|-)|(?:hour|honest|heir)|(?!u(?:ni(?!n|m)|s[aeu]|ti|[kt]u)|eu|ew|one\b|once\b|uk\b|us\b)[aeiou]"
    r"|(?!U(?:[A-Z]|ni(?!n|m)|s[aeu]|ti|[kt]u)|Eu|Ew|One\b)[AEIOU]"
)
_YES_NO = re.compile(r"^\W*(?:is|does|do|has|was) ", re.IGNORECASE)
_GIVEN_FOR_IT = re.compile(
    r"\b(?:for|of|to|from|about|on|with|describing|using|what|answers|answering|matches|fits)\s+"
    r"(?:the given|an? given|an?|the|each|this)\s+",
    re.IGNORECASE,
)
# What may be given beside texts for something to be written of it.
_GIVEN_THING = re.compile(
    r"(?:\w+ )?(?:topic|subject|theme|word|keyword|product|company|recipe|place|event)\b", re.IGNORECASE
)
# The form of the output, which is no part of what an input is called: "in three bullet points".
_INTO_FORM = re.compile(
    r"\s(?:in|into|as|to|with|using)\s(?:(?:at most|only|exactly|just|about|no more than)\s)?"
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|\d+"
    r"|the (?:past|present|future|passive|active|first|second|third)"
    r"|plain|simpler?|your own|other|fewer|formal|informal|polite|json|bullets?|words|digits|csv|html|markdown|xml|yaml"
    r"|sql)\b.*$",
    re.IGNORECASE | re.DOTALL,
)
# What comes out of what is converted or put in order: "a sentence from the active to the passive".
_CONVERTS = re.compile(r"\W*(?:turn|convert|transform|sort)\b", re.IGNORECASE)
_CONVERTED = re.compile(r"\s(?:from|to|alphabetically|in (?:\w+ )?order)\b.*", re.IGNORECASE | re.DOTALL)
# The same before what is worked on: "describe in one sentence what the function does".
_FORM_AHEAD = re.compile(
    r"(^\W*(?:describe|explain|summari[sz]e|say|tell|state|define|outline|retell)) (?:in|with|using) "
    r"(?:[\w-]+ ){1,5}?(?:sentences?|words?|lines?|paragraphs?|points?)\b(?! of\b)",
    re.IGNORECASE,
)
# What is taken out stands before the text that it is taken from: "list the names in the letter".
_TAKES_OUT = re.compile(
    r"^\W*(?:list|extract|find|give|name|quote|copy|collect|return|output|get|pull out)\b", re.IGNORECASE
)
_TAKEN_FROM = re.compile(r"\b(?:of|from|in|for)\s+(?:the (?:given )?|an? |each |every |this )(?=\w)", re.IGNORECASE)
# What is given of the thing that is written about: "a title for a paper, given its abstract".
_GIVEN_OF_IT = re.compile(
    r"\b(?:for|of)\s+(?:an?|the|each)\s+([\w' -]{2,60}?),?\s+(?:given|from|based on|using)\s+(?:its|their|his|her)\s+"
    r"([\w-]+(?: [\w-]+)?)(?=\s*(?:[.,;:]|$))",
    re.IGNORECASE,
)
# What is looked for is a quality that some inputs have: "detect toxic or insulting comments".
_LOOKED_FOR = re.compile(
    r"\b(?:detect|flag|find|spot|filter(?: out)?|catch|identify|recogni[sz]e|block|remove)\s+"
    r"([\w-]+(?:,? (?:(?:or|and) )?[\w-]+){1,5})",
    re.IGNORECASE,
)
_QUALITY = re.compile(r"[\w-]+(?:ful|ous|ent|ive|ing|ed|ible|able|less|ic)", re.IGNORECASE)
_OUTPUT_FIRST_VERB = re.compile(r"^\W*(?:write|generate|produce|create|compose|draft|invent)\b", re.IGNORECASE)
_TWO = re.compile(
    r"\b(?:two|both|pairs? of|2)\s+((?!the\b|of\b)[A-Za-z][\w-]*(?: (?!of\b|and\b|or\b)[a-z][\w-]*){0,3})",
    re.IGNORECASE,
)
# Told beside the noun where a task is in another language than English.
_IN_LANGUAGE = re.compile(rf"\s+in (?:{'|'.join(sorted(LANGUAGES.values()))})\Z")


def input_noun(spec: TaskSpec) -> str:
    """What the task's instruction calls one of its inputs (`news article`, `question`), or `text`.

    "Classify support tickets" gives `support ticket`: the object of a verb that is done to inputs. Otherwise it is the
    first phrase after an indefinite article, `each` or `this`: "Given a question, say …" gives `question`. Otherwise a
    plural after a preposition: "Find spam in text messages" gives `text message`. Where that names no kind of text, one
    that the task names anywhere is taken (`potstill.language.text_kinds`); else a message of the speaker that it names.
    Two fields of one kind are a pair: the word for one of them would ask for a half.
    """
    text = _HEADING.sub(r"\1.", spec.instruction[:1000])  # which is no part of the line below it
    named = None if spec.kind == "instructions" else named_elsewhere(text, [label.name for label in spec.labels])
    if named is not None:
        of_two = pair_of(spec.inputs)
        return f"pair of {plural(of_two)}" if of_two else named or "text"
    if spec.kind == "generation":
        text = _FORM_AHEAD.sub(r"\1", text)
        if found := _worked_on(text):
            return found
    if of_two := pair_of(spec.inputs):
        return f"pair of {_both(text, of_two)}"
    if _OUTPUT_FIRST_VERB.match(text):  # "write a title for a blog post": what stands behind the output
        given = _GIVEN_FOR_IT.search(text)
        behind = text[given.end() :] if given else ""
        if thing := _GIVEN_THING.match(behind):
            return thing[0]
        found = named_text(behind, ())
        if spec.languages not in ((), ("en",)):
            found = _IN_LANGUAGE.sub("", found)  # which prompts name beside it
        if not found or not behind.lower().startswith(found.lower()):
            return "text"
        return behind[0] + _INTO_FORM.sub("", found)[1:]
    words = label_words(spec)
    labels = list(words.values())
    answers = {label.lower() for label in labels}
    asked = [said for name, said in words.items() if said != readable(name)]
    noun = _without(_by_grammar(text), answers, asked)
    if spec.kind == "classification":
        noun = _unsought(_owner(noun), text)
    if spec.kind == "generation":
        noun = _INTO_FORM.sub("", noun) or noun
    if is_text_kind(noun) and noun.lower() not in answers:
        return noun
    if spec.kind == "instructions":  # whose rows bring instructions of their own
        return noun
    sorts = spec.kind == "classification"
    named = _unasked(named_text(text, labels, None if sorts else _WRITTEN), asked)
    if 0 < len(named) <= 100:
        return _unsought(named, text) if sorts else named
    if _PLURAL_OF_SEVERAL.match(noun) or noun.lower() in answers:
        return "text"
    if sorts and (to := _ADDRESSED.search(text)) is not None:
        return f"message to {_tidy(to[1], text[to.end() :])}"
    if not sorts or _message_of(noun):
        return _message_of(noun) or noun
    if noun == "text" or _ANSWERED.fullmatch(own_noun(noun)):
        owner = _POSSESSED.search(text.replace("’", "'"))
        return (owner and text_kind(owner[1])) or "text"
    return noun


def _worked_on(text: str) -> str:
    """What something is taken out of, or what is given of a thing that is written about; "" where neither is told."""
    given = _GIVEN_OF_IT.search(text)
    if given and is_text_kind(given[2]):
        return f"{given[2]} of {with_article(given[1])}"
    for found in _TAKEN_FROM.finditer(text) if _TAKES_OUT.match(text) else ():
        behind = text[found.end() :]
        if re.match(r"word\b(?! \w)", behind):
            return "word"
        named = named_text(behind, ())
        if named and behind.lower().startswith(named.lower()):
            return behind[0] + _INTO_FORM.sub("", named)[1:]
    return ""


def _unsought(noun: str, text: str) -> str:
    """A noun without the qualities that are looked for, which not all inputs have: `toxic or insulting comment`."""
    ahead = _LOOKED_FOR.search(text)
    words = noun.split()
    if ahead is None or len(words) < 2:
        return noun
    joined = re.search(rf"[\w-]+ (?:or|and) {re.escape(words[0])}\b", ahead[1], re.IGNORECASE)
    alone = ahead[1].lower().startswith(words[0].lower()) and _QUALITY.fullmatch(words[0])
    rest = " ".join(words[1:])
    return rest if (joined or alone) and is_text_kind(rest) else noun


def _message_of(noun: str) -> str:
    """What is read where the task names who speaks or is spoken to, and no text; "" for other nouns."""
    noun = _DOES.sub("", noun)
    who = own_noun(noun).lower()
    joint = "to" if who in _LISTENERS else "from" if who in SPEAKERS else ""
    return f"message {joint} {with_article(noun)}" if joint else ""


def _unasked(noun: str, asked: Collection[str]) -> str:
    """A noun without what is asked of it: "is the article about sports" is about articles."""
    for said in asked:
        noun = noun.removesuffix(f" {said}")
    return noun


def _without(noun: str, answers: Collection[str], asked: Collection[str]) -> str:
    """A noun without labels before or behind it, which are what is to be said of it: `machine-written text`."""
    noun = _unasked(noun, asked)
    head, joint, tail = _split(re.sub(r"^(?:given|following|other|our|my|your|their) ", "", noun))
    *ahead, last = head.split() or [""]
    head = " ".join([*(word for word in ahead if word.lower() not in answers), last])
    low = re.sub(r"^(?:an?|the) ", "", tail.lower())
    if joint and (low in answers or (_POINTS.search(tail) and joint == "with")):  # the passage (is it) about biology
        return re.sub(r"(?<=\w) (?:\w+ed|written|sent|made)$", "", head)
    return f"{head} {joint} {tail}" if joint else head


def _owner(noun: str) -> str:
    """What has the quality that a phrase names: `sentence's acceptability` is of a sentence."""
    owner, mark, quality = noun.rpartition("'s ")
    return owner if mark and _ANSWERED.fullmatch(own_noun(quality)) else noun


def _by_grammar(text: str) -> str:
    object_, answers = _OBJECT.match(text), _ANSWERS.match(text) is not None
    if object_ and not _ASKED.match(object_.group(2)):
        named = _CONVERTED.sub("", object_.group(2)) if _CONVERTS.match(text) else object_.group(2)
        noun = _tidy(*_unanswered(named, text[object_.end() :], answers))
        noun = _singular(noun) or (noun if object_.group(1).startswith("the") else "")
        if noun:
            return noun
    for found in () if _UNNAMED.match(text) else _with_articles(text):
        noun = _tidy(*_unanswered(found.group(1), text[found.end() :], answers))
        if found.group(0).lower().startswith("these") or found.group(1).startswith("of "):
            noun = _singular(noun)
        if _YES_NO.match(text) and found.group(0).lower().startswith("this"):  # "Is this comment toxic?"
            head, joint, _ = _split(noun)
            first = re.split(r" (?:the|an?) ", head)[0]
            noun = first if joint and first == head else " ".join(first.split()[:-1]) or first
        if re.match(r"(?:in|into|as|to|by|on|with|from) ", noun) or _NO_NOUN.fullmatch(noun):
            continue
        if found.group(0).lower().startswith(("a ", "an ", "each ", "every ", "this ")):
            noun = _without_verb(noun)
        late = _NOT_INPUTS.match(noun) and found.start() > 40
        if len(noun) > 2 and len(noun.split()) <= 9 and not late and not _ASKED.match(noun):
            return noun
    for found in _PLURAL.finditer(text.split("\n")[0]):
        noun = _singular(found.group(1))
        if noun and not _ASKED.match(noun):
            return noun
    return "text"


def _unanswered(phrase: str, rest: str, answers: bool) -> tuple[str, str]:
    """A phrase and what follows, without how the task (if it `answers`) wants its answer: `question with one word`."""
    cut = _WITH.sub("", phrase) if answers else phrase
    return cut, rest if cut == phrase else ""


def _without_verb(noun: str) -> str:
    """A noun in the singular without the verb that a plural behind it must be: "a user comments on our app"."""
    head = _split(noun)[0].split()
    ends = len(head) > 1 and text_kind(head[-1]) not in (None, head[-1]) and head[-2].lower() in SPEAKERS
    return " ".join(head[:-1]) if ends else noun


def _both(text: str, kind: str) -> str:
    """What two inputs of one kind are called: `short questions`, as the task says it, or else as the fields do."""
    for found in _TWO.finditer(text):
        words = found[1].split()
        at = next((i for i, word in enumerate(words) if text_kind(word) not in (None, word)), -1)
        told = text_kind(words[at]) or ""
        if at >= 0 and (told.lower() == kind or kind in ("text", "sentence")):
            return " ".join(words[: at + 1])
    return plural("news article" if kind == "news" else kind)


def _with_articles(text: str) -> Iterator[re.Match[str]]:
    """The phrases with an article, but for those that name the output."""
    start = 0
    while found := _ARTICLE.search(text, start):
        # A phrase within the output's may be an input: "give a title to a blog post".
        written = found.group(0)[:1] in "aA" and _WRITTEN.search(text[: found.start()])
        start = found.start(1) if written else found.end()
        if not written:
            yield found


def _tidy(phrase: str, rest: str) -> str:
    """A phrase without what does not belong to it: half of "a household or electronic product", the verb of "names"."""
    head, joint, tail = _split(re.sub(r"^of (?:the |these )?(?:following |given )?", "", phrase.strip()))
    cut = re.match(r"\s*(?:or|and)\b", rest) and joint in ("of", "from", "to", "about", "on", "for", "in", "with", "at")
    if cut or re.search(r"^(?:one of|its|their)\b|\b(?:it|they|he|she|we|you)$", tail):
        return head
    # After a singular noun a word in -s is its verb: "a sentence names", "a review reports a bug".
    head, *verb = re.split(r" (?=[a-z]+[^\Wsui]s (?:an?|the|its|how|what|no|something)\b)", head, maxsplit=1)
    words = head.removesuffix(" such").split()
    head = " ".join(words)
    if not joint and len(words) > 1 and re.match(r"\s+(?:and|or|is|are|what|how)\b", rest) and _is_plural(words[-1]):
        head = " ".join(words[:-1])
    return f"{head} {joint} {tail}" if joint and tail and not verb else head


def _split(phrase: str) -> tuple[str, str, str]:
    """A noun phrase before its first preposition or relative clause, that word, and what follows."""
    found = re.search(rf"\s{_JOINT}\b", phrase)
    if found is None:
        return phrase, "", ""
    return phrase[: found.start()], found.group(0).strip(), phrase[found.end() :].strip()


def _is_plural(word: str) -> bool:
    return bool(re.search(r"[^\W\d_]s$", word)) and not re.search(r"(?:ss|us|is|news|series|[^\w]s)$", word)


def _singular(phrase: str) -> str:
    """`reviews of films` → `review of films`; empty where the noun is not a plural and so cannot take an article."""
    head, joint, tail = _split(phrase)
    words = re.sub(r"^(?:an?|the) ", "", head).split()
    if not words or len(words) > 5 or not _is_plural(words[-1]):
        return ""
    last = words[-1]
    if last.endswith("ies") and len(last) > 4:
        last = last[:-3] + "y"
    elif re.search(r"(?:ss|sh|ch|x|z)es$", last):
        last = last[:-2]
    else:
        last = last[:-1]
    return " ".join([*words[:-1], last, *([joint, tail] if joint else [])])


def plural(noun: str) -> str:
    """`query` → `queries`, `speech` → `speeches`.

    Examples:
        >>> plural("sentence"), plural("short query"), plural("speech")
        ('sentences', 'short queries', 'speeches')
    """
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if re.search(r"(?:s|sh|ch|x|z)$", noun) else f"{noun}s"


def with_article(noun: str) -> str:
    """`a question`, `an email`, by how it is spoken.

    Examples:
        >>> with_article("email"), with_article("user review"), with_article("SMS message")
        ('an email', 'a user review', 'an SMS message')
    """
    return f"{'an' if _AN.match(noun) else 'a'} {noun}"
