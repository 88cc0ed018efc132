"""Words in which a teacher declines what it was asked, apart from words in which people decline other things.

"I can't" alone is no refusal: reports cannot be completed, accounts not created, parcels not sent, and letters say so.
It is one where what cannot be done is the request itself ("help with that", "fulfil this request"), a text
("create content", "provide a summary") or something of a kind that teachers refuse ("explicit", "weapons").

English: in other languages teachers are known by their own filter's finish alone.
"""

from __future__ import annotations

import re

_LOOKED_AT = 160
# "An AI" alone may be the beginning of "an AI company": what follows it is a mark or says who speaks.
_AI = (
    r"(?:(?:(?:ai|artificial intelligence)(?:[ -]based|[ -]powered)? (?:language )?(?:model|assistant|chatbot|system|"
    r"program|chat ?bot|bot)|(?:large )?language model|virtual assistant|chatbot)\b"
    r"(?! (?:managers?|administrators?|engineers?|developers?|trainers?|designers?|architects?|researchers?|owners?|"
    r"specialists?|leads?|analysts?|vendors?|startups?|compan(?:y|ies)|teams?|fans?|users?|experts?)\b)"
    r"|(?:ai|artificial intelligence)(?=\s?(?:[,.;:!]|$)|\s(?:i|i'm|my|it|and|so|but|developed|created|trained|"
    r"designed|made|built|without|that|who)\b))"
)
_MODEL = re.compile(rf"\bas an? {_AI}|\bi(?:'m| am) (?:just |only |merely )?an? {_AI}", re.IGNORECASE)
_CANNOT = (
    r"\bi(?: cannot| can't| can not| won't| will not|(?: am|'m) (?:unable|not (?:able|allowed|permitted|"
    r"programmed|designed)) to)"
)
_VERBS = (
    r"write|create|generate|provide|produce|compose|draft|help|assist|fulfil\w*|comply|continue|answer|engage|support|"
    r"offer|give|do|discuss|share|complete|promote|classify|translate|summari[sz]e|rewrite|respond to|process|encourage"
)
_DOES = rf"{_CANNOT} (?:{_VERBS})(?:(?:,? or|,| and) (?:{_VERBS}))?(?: you| users?)?(?: (?:with|in|by|to))?"
_ASKED = (
    r"(?:requests?|tasks?|instructions?|prompts?|quer(?:y|ies)|questions?|conversations?|content|material|topics?|"
    r"subjects?|information|texts?|messages?|responses?|stor(?:y|ies)|jokes?|essays?|articles?|poems?|posts?|reviews?|"
    r"e-?mails?|sentences?|outputs?|dialogues?|letters?|scripts?|scenarios?|language|speech|paragraphs?|examples?|"
    r"activit(?:y|ies)|tweets?|headlines?|comments?|descriptions?|summar(?:y|ies)|translations?)"
)
_THIS = r"(?:that|this|these|those|your|such(?: an?)?|the requested)"
# What is declined for now is declined by a person.
_FOR_NOW = (
    r"(?! (?:right now|now|today|tonight|tomorrow|yet|until|till|before|after|at the moment|on \w+day|"
    r"this (?:week|month)|(?:by|over|via) (?:e-?mail|phone)))"
)
_WRITTEN = (
    r"(?:content|texts?|stor(?:y|ies)|jokes?|essays?|poems?|articles?|responses?|answers?|summar(?:y|ies)|"
    r"translations?|examples?|sentences?|outputs?|classifications?|paragraphs?|headlines?|dialogues?|"
    r"(?:(?:medical|legal|financial|tax|investment|professional) )?advice)"
)
_ILL = (
    r"(?:harm\w*|hate\w*|offensive|explicit|sexual\w*|illegal\w*|inappropriate|racis[tm]|sexis[tm]|discriminat\w+|"
    r"abus\w+|violen\w+|derogatory|unethical|copyrighted|malicious|defamatory|spam|phishing|misinformation|"
    r"disinformation|fake (?:news|reviews?)|profan\w+|self-harm|suicide|weapons?|bombs?|explosives?|hacking|malware|"
    r"fraud\w*)"
)
_DECLINES = re.compile(
    # "with that.", "this for you": the request as a pronoun that ends its sentence.
    rf"{_DOES} (?:{_THIS}|it)(?=\s?(?:[.,;!?:—-]|$)|\s(?:for you|as|because|since|due|in good|on your)\b)"
    rf"|{_DOES} {_THIS}(?: (?:kind|type|sort)s? of)?(?: [\w-]+){{0,2}}? {_ASKED}\b{_FOR_NOW}"
    rf"|{_CANNOT} (?:help|assist|comply)(?: you)?(?: further)?(?=\s?(?:[.!]|$))"
    rf"|{_CANNOT} (?:help|assist)(?: you)? (?:with|in|by) (?:creat|writ|generat|produc|compos)ing\b"
    rf"|{_CANNOT} (?:write|create|generate|produce|compose|draft|provide)(?: you with)?(?: (?:an?|any|the|some))?"
    rf"(?: [\w-]+){{0,2}}? {_WRITTEN}\b{_FOR_NOW}"
    rf"|{_CANNOT} (?:provide|give|offer|share)(?: you)?(?: with)?(?: any)? (?:instructions?|information|guidance|steps|"
    r"details|a guide) (?:on|about|for|regarding) (?:how to|\w+ing)\b"
    rf"|{_DOES}(?: [\w',-]+){{0,7}}? {_ILL}\b"
    # An apology alone may be the task: a shop that writes to a customer says sorry.
    rf"|\b(?:sorry|my apologies|apologi[sz]e)\b[^.!?\n]{{0,80}}\b(?:this|that|your|such an?) (?:kind of )?"
    r"(?:request|task|instruction|prompt|content)\b[^.!?\n]{0,40}\b(?:violat\w+|goes? against|nothing i|"
    r"(?:not )?something (?:that )?i|not possible|(?:not|isn't) (?:appropriate|clear)|inappropriate|"
    r"harmful|unclear|incomplete)\b"
    r"|\b(?:sorry|apologi[sz]e)\b[^.!?\n]{0,40}\bi (?:do not|don't|did not|didn't|cannot|can't) (?:fully )?understand "
    r"(?:the|this|that|your) (?:request|task|instruction|prompt)s?\b"
    r"|\bi (?:don't|do not) feel comfortable (?:(?:with )?(?:this|that|your|such)(?: \w+)? "
    r"(?:request|task|topic|content)|(?:writing|creating|generating|providing|producing|answering|engaging|"
    r"assisting|fulfilling|continuing|responding)\b)",
    re.IGNORECASE,
)
# "Dear Ms Jones," alone on its line: a letter, in which somebody else speaks.
_LETTER = re.compile(
    r"\s*(?:dear|hi|hello|hey|good (?:morning|afternoon|evening)),? (?!there\b|user\b)\w[^\n]{0,60}\n", re.IGNORECASE
)
# Tasks whose outputs say what their inputs say.
_KEEPS = re.compile(
    r"\b(?:translat|correct|proofread|paraphras|rephras|reword|rewrit|simplif|punctuat|transcri|polish|copy[- ]?edit|"
    r"restor|normali[sz]|(?:fix|mend|edit|improve|clean|change|convert|turn|make|put)\b)",
    re.IGNORECASE,
)
_TRANSLATES = re.compile(r"\btranslat|\b(?:in)?to english\b", re.IGNORECASE)
# That something cannot be done, or an apology, in the languages that are translated most.
_SAYS_NO = re.compile(
    r"\b(?:nicht|kein\w*|leider|entschuldig\w+|tut mir leid|ne \w+ (?:\w+ )?pas|n'\w+ pas|désolée?s?|impossible|"
    r"no (?:\w+ )?(?:pued\w+|pod\w+)|lo siento|perd[oó]n\w*|non (?:\w+ )?(?:poss\w+|riesc\w+|può)|mi dispiace|scus\w+|"
    r"não (?:\w+ )?(?:poss\w+|consig\w+)|desculp\w+|sinto muito|kan (?:\w+ ){0,3}niet|niet|helaas|sorry|inte|ikke|"
    r"не|извин\w+|к сожалению|nie|przepraszam|niestety|değil|üzgünüm|\w+m[ıi]yorum|maaf|tidak)\b"
    r"|不能|无法|無法|抱歉|对不起|對不起|できません|申し訳|すみません|ごめん|없|죄송|미안|नहीं|माफ़|لا |آسف|عذر",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_ENOUGH = 0.7


def refusal_in(text: str) -> str:
    """What near the start of a text declines what was asked, or shows that a model speaks; "" where nothing does.

    Examples:
        >>> refusal_in("I'm sorry, but I can't help with that."), refusal_in("I can't help you move on Friday.")
        ("I can't help with that", '')
    """
    start = text[:_LOOKED_AT].replace("’", "'")
    found = _MODEL.search(start) or (None if _LETTER.match(text[:_LOOKED_AT]) else _DECLINES.search(start))
    return text[found.start() : found.end()] if found else ""


def said_by_input(instruction: str, input: str, output: str) -> bool:
    """Whether a refusal in an output is what its input says: the task mends, rewords or translates it.

    Args:
        instruction: The task's.
        input: The text.
        output: What was written for it, in which a refusal was found.

    Examples:
        >>> said_by_input("Correct the grammar.", "i cant help with that", "I can't help with that.")
        True
    """
    if not _KEEPS.search(instruction) or _MODEL.search(output[:_LOOKED_AT]):
        return False
    own, given = (set(_WORD.findall(re.sub(r"['’]", "", text.lower()))) for text in (output, input))
    if own and len(own & given) >= _ENOUGH * len(own):
        return True
    return _TRANSLATES.search(instruction) is not None and _SAYS_NO.search(input) is not None
