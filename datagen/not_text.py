"""Whether an instruction asks to make or to look at something that is no text: a picture, a map, a recording, a page.

Self-Instruct refuses every instruction with one of the words image, graph, picture, file, map, draw, plot or "go to"
(arXiv:2212.10560 §2.2), and with them movie plots, graph theory and the human genome's map. Here the sentence decides:

- make: an order to draw, create, save, play … whose object is such a thing (`Create a bar chart of …`);
- look: a thing that is shown but not told (`the attached photo`, `based on the map`, `What is in the picture?`);
- go: an order to visit a page or a shop.

A thing counts only as the head of its noun phrase, so that a photo album, an image caption and a video game are
words like others. An order counts only where an instruction gives one: `Explain how to draw a cat` asks for text, and
so does whatever names a form of text to draw in (`as ASCII art`, `in LaTeX`, `with matplotlib`). The rules know
English alone: in other languages nothing is refused here.
"""

from __future__ import annotations

import re

_THING = (
    r"(?:images?|pictures?|pics?|photo(?:graph)?s?|illustrations?|drawings?|paintings?|sketch(?:es)?|screenshots?|"
    r"graphs?|charts?|flow ?charts?|diagrams?|histograms?|infographics?|maps?|posters?|logos?|gifs?|animations?|"
    r"videos?|clips?|audios?|recordings?)"
)
_FILE = r"(?:files?|attachments?|pdfs?)"
# What may follow the head of a noun phrase; any other word makes the thing a part of a compound (`photo album`).
_HEAD = (
    r"(?=\W*$|\s*[.,;:!?)\"'”’\n]|\s+[(\"“]|\s+(?:of|for|that|which|who|whose|with|without|showing|shows?|shown|to|in|"
    r"inside|on|onto|from|about|and|or|but|above|below|attached|provided|given|using|by|as|at|is|are|was|were|do|does|"
    r"can|you|your|i|it|its|into|depicting|depicts?|displaying|displays?|comparing|contrasting|containing|illustrating|"
    r"illustrates?|representing|represents?|based|where|when|what|how|so|then|here|taken|between|over|appears?|look|"
    r"looks|contains?|tells?|say|says|brighter|darker|larger|smaller)\b)"
)
_NO_PREPOSITION = r"(?!(?:of|for|about|that|which|with|from|to|in|on|by|as|how|into|why|whose|behind|under|without)\b)"
_WORDS = rf"(?:{_NO_PREPOSITION}[\w'’-]+,?\s+){{0,4}}"
_ONE = r"(?:(?:an?|the|some|any|one|two|three|several|your|my|this|that|these|those|its|their|another)\s+)"
# Where an order stands: at the start of a sentence or clause, or behind a phrase that makes it one.
_ORDER = (
    r"(?:^|[.!?:;\n]\s*|,?\s(?:and(?: then)?|then)\s+|,\s*)"
    r"(?:please\s+|now\s+|first,?\s+|next,?\s+|(?:can|could|would|will) you (?:please )?|help me (?:to )?|"
    r"(?:use|using|take|you (?:have|need|are asked|are)|your (?:task|job|goal) is|i(?:'d| would) like(?: you)?|"
    r"i (?:want|need)(?: you)?)\b[^.!?\n]{0,60}?\bto\s+)?"
)
_MAKE = (
    r"(?:create|make|generate|produce|design|construct|build|prepare|develop|draw|sketch|paint|show|display|render|"
    r"illustrate|plot|animate|edit|crop|resize|rotate|watch|view|play|record|take|insert|look at|listen to|find|"
    r"upload|download|save|open|print|attach|scan|send|share|post)"
)
_HANDLE_FILE = (
    r"(?:create|make|generate|produce|edit|open|read|save|upload|download|delete|rename|move|copy|convert|attach|scan|"
    r"print|compress|unzip|look at)"
)
# Something to draw that is drawn in words.
_DRAWN_IN_WORDS = (
    r"(?:up|on|upon|out|from|near|inspiration|attention|lots)\b|"
    + _ONE
    + r"?(?:[\w-]+\s){0,2}?"
    + r"(?:conclusions?|inferences?|comparisons?|distinctions?|parallels?|lessons?|analog(?:y|ies)|contrasts?|"
    r"connections?|links?|line between|moral|insights?|inspiration|attention|implications?|similarit(?:y|ies))\b"
)
_SKETCHED_IN_WORDS = (
    r"out\b|"
    + _ONE
    + r"?(?:[\w-]+\s){0,2}?(?:plans?|outlines?|plot|arguments?|proofs?|solutions?|characters?|biograph\w+|scenes?|"
    r"stor(?:y|ies)|ideas?|proposals?|strateg\w+|portraits? of the (?:author|writer))\b"
)
_MAKES = re.compile(
    rf"{_ORDER}(?:{_MAKE}\s+(?:me\s+|us\s+)?{_ONE}?{_WORDS}{_THING}{_HEAD}"
    rf"|{_HANDLE_FILE}\s+{_ONE}{_WORDS}{_FILE}{_HEAD}"
    rf"|draw\s+(?!{_DRAWN_IN_WORDS})\w"
    rf"|sketch\s+(?!{_SKETCHED_IN_WORDS})\w"
    r"|(?:paint|photograph)\s+(?!an? account\b)\w"
    rf"|(?:save|export|store|upload)\s+[^.!?\n]{{0,60}}?\s(?:to|as|in|into)\s+{_ONE}(?:[\w-]+\s)?{_FILE}{_HEAD}"
    rf"|plot\s+(?:{_ONE}?{_WORDS}(?:function|data|points?|curve|line|values?|equation|results?|time series)\b)"
    rf"|(?:go to|visit|open|browse|click(?: on)?)\s+{_ONE}?{_WORDS}"
    r"(?:web ?sites?|web ?pages?|pages?|links?|urls?|stores?|shops?|https?:\S*|www\.\S*)(?!\s+\d)\b)",
    re.IGNORECASE,
)
# Things that somebody must see or hear, and that the text does not hold.
_SHOWN = re.compile(
    rf"\b(?:(?:this|these|the (?:following|given|attached|above|below|provided|enclosed)|attached|enclosed)\s+"
    rf"(?:[\w-]+\s)?(?:[\w-]+\s+(?:and|or)\s+)?(?:{_THING}|{_FILE}){_HEAD}"
    rf"|(?:(?:parts?|contents?|elements?|labels?|axes|axis)\s+of|(?:based|depending) on|according to|shown|depicted|"
    rf"visible|seen|present|heard|hidden|is|are|people|objects?|animals?|things?|colou?rs?|values?|trends?|look(?:ing)?|listen(?:ing)?|describe|caption|transcribe|"
    rf"interpret|label|identify)\s+(?:in|on|at|of|from|to)?\s*the\s+(?:[\w-]+\s)?{_THING}{_HEAD})",
    re.IGNORECASE,
)
_TEXT_FORM = re.compile(
    r"\b(?:ascii|unicode|emojis?|markdown|latex|tikz|mermaid|graphviz|plantuml|svg|html|css|xml|json|yaml|csv|python|"
    r"matplotlib|seaborn|plotly|ggplot2?|javascript|d3(?:\.js)?|canvas|matlab|excel|vba|bash|shell|sql|turtle|r code|"
    r"code|script|pseudo ?code|(?:in|with|using) (?:your own )?words|in writing|verbal(?:ly)?|"
    r"in the mind|metaphor\w*|text[- ](?:based|only|form)|as (?:a )?text|character sketch(?:es)?|"
    r"(?:comedy|comic|short) sketch(?:es)?)\b",
    re.IGNORECASE,
)
_FIGURATIVE = re.compile(
    r"\b(?:vivid|verbal|mental|word|clear|rosy|grim|bleak|big|bigger|broader|larger|whole|overall|full)\s+"
    r"(?:pictures?|images?|portraits?|maps?)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\W*\s[\"“‘«*_]")
_MENTION = re.compile(_THING, re.IGNORECASE)


def not_text(text: str) -> str | None:
    """The words that ask for a thing that is no text, or None.

    Args:
        text: An instruction; its first 2,000 characters are looked at.

    Examples:
        >>> not_text("Draw a house by the sea.")
        'Draw a'
        >>> not_text("Describe the plot of a film about a photo album.")
    """
    text = text[:2000]
    text = _FIGURATIVE.sub("account", text)
    made = _MAKES.search(text)
    if made and not _TEXT_FORM.search(text):
        return made.group(0).strip(" .,;:!?\n")
    for shown in _SHOWN.finditer(text):
        pointed = shown.group(0).lower().startswith(("this", "these", "the", "attached", "enclosed"))
        # A thing that the text itself brought up is told, not shown ("… finds a map. What is on the map?"), and one
        # that has a name is known (`the painting "The Sunrise"`).
        known = _MENTION.search(text, 0, shown.start()) or _NAMED.match(text, shown.end())
        if pointed or not known:
            return shown.group(0)
    return None
