"""Languages by ISO 639-1 code and English name, for task files, prompts and dataset cards.

Only the two-letter codes are kept, because that is what dataset cards and language detectors share. A region or
script (`pt-BR`, `zh_Hant`) is cut off: no filter here tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TABLE = """
aa Afar|ab Abkhazian|ae Avestan|af Afrikaans|ak Akan|am Amharic|an Aragonese|ar Arabic|as Assamese|av Avaric|ay Aymara
az Azerbaijani|ba Bashkir|be Belarusian|bg Bulgarian|bi Bislama|bm Bambara|bn Bengali|bo Tibetan|br Breton|bs Bosnian
ca Catalan|ce Chechen|ch Chamorro|co Corsican|cr Cree|cs Czech|cu Church Slavic|cv Chuvash|cy Welsh|da Danish|de German
dv Divehi|dz Dzongkha|ee Ewe|el Greek|en English|eo Esperanto|es Spanish|et Estonian|eu Basque|fa Persian|ff Fulah
fi Finnish|fj Fijian|fo Faroese|fr French|fy Western Frisian|ga Irish|gd Scottish Gaelic|gl Galician|gn Guarani
gu Gujarati|gv Manx|ha Hausa|he Hebrew|hi Hindi|ho Hiri Motu|hr Croatian|ht Haitian Creole|hu Hungarian|hy Armenian
hz Herero|ia Interlingua|id Indonesian|ie Interlingue|ig Igbo|ii Sichuan Yi|ik Inupiaq|io Ido|is Icelandic|it Italian
iu Inuktitut|ja Japanese|jv Javanese|ka Georgian|kg Kongo|ki Kikuyu|kj Kuanyama|kk Kazakh|kl Kalaallisut|km Khmer
kn Kannada|ko Korean|kr Kanuri|ks Kashmiri|ku Kurdish|kv Komi|kw Cornish|ky Kyrgyz|la Latin|lb Luxembourgish|lg Ganda
li Limburgish|ln Lingala|lo Lao|lt Lithuanian|lu Luba-Katanga|lv Latvian|mg Malagasy|mh Marshallese|mi Maori
mk Macedonian|ml Malayalam|mn Mongolian|mr Marathi|ms Malay|mt Maltese|my Burmese|na Nauru|nb Norwegian Bokmål
nd North Ndebele|ne Nepali|ng Ndonga|nl Dutch|nn Norwegian Nynorsk|no Norwegian|nr South Ndebele|nv Navajo|ny Nyanja
oc Occitan|oj Ojibwa|om Oromo|or Odia|os Ossetian|pa Punjabi|pi Pali|pl Polish|ps Pashto|pt Portuguese|qu Quechua
rm Romansh|rn Rundi|ro Romanian|ru Russian|rw Kinyarwanda|sa Sanskrit|sc Sardinian|sd Sindhi|se Northern Sami|sg Sango
si Sinhala|sk Slovak|sl Slovenian|sm Samoan|sn Shona|so Somali|sq Albanian|sr Serbian|ss Swati|st Southern Sotho
su Sundanese|sv Swedish|sw Swahili|ta Tamil|te Telugu|tg Tajik|th Thai|ti Tigrinya|tk Turkmen|tl Tagalog|tn Tswana
to Tongan|tr Turkish|ts Tsonga|tt Tatar|tw Twi|ty Tahitian|ug Uyghur|uk Ukrainian|ur Urdu|uz Uzbek|ve Venda
vi Vietnamese|vo Volapük|wa Walloon|wo Wolof|xh Xhosa|yi Yiddish|yo Yoruba|za Zhuang|zh Chinese|zu Zulu
"""

LANGUAGES: dict[str, str] = {
    code: name for code, _, name in (item.partition(" ") for item in re.split(r"[|\n]", _TABLE.strip()))
}
"""ISO 639-1 code to English name."""

_BY_NAME = {name.lower(): code for code, name in LANGUAGES.items()} | {
    "farsi": "fa",
    "mandarin": "zh",
    "filipino": "tl",
    "castilian": "es",
    "flemish": "nl",
}

# Names that are everyday English words too, or too rare to be meant when a prompt happens to hold them.
_AMBIGUOUS = {"ido", "ewe", "lao", "komi", "manx", "pali", "twi", "cree", "afar", "ganda"}
NAMES_IN_TEXT: dict[str, str] = {name: code for name, code in _BY_NAME.items() if name not in _AMBIGUOUS}
"""Lower-case English name to code, for names that can be looked for in prose."""


def language_code(text: str) -> str | None:
    """The ISO 639-1 code for a code (`de`, `pt-BR`) or an English name (`German`), or None.

    Args:
        text: What a person or a dataset card wrote; case does not matter.

    Examples:
        >>> language_code("German"), language_code("pt-BR"), language_code("Klingon")
        ('de', 'pt', None)
    """
    word = text.strip().lower()
    if word in _BY_NAME:
        return _BY_NAME[word]
    head = re.split(r"[-_]", word, maxsplit=1)[0]
    return head if head in LANGUAGES and re.fullmatch(r"[a-z]{2}([-_][a-z0-9]{2,8})*", word) else None


_ASKS_LANGUAGE = re.compile(
    r"(?<!programming )(?<!query )(?<!markup )\blanguages?\b|\bSprachen?\b|\blangues?\b|\bidiomas?\b"
    r"|\blingu[ae]\b|\btaal\b|язык|语言|語言|言語",
    re.IGNORECASE,
)
_NO_LANGUAGE = frozenset(("other", "others", "unknown", "mixed", "none", "other language", "other_language"))


def label_languages(instruction: str, names: Sequence[str]) -> dict[str, str]:
    """The language that each label stands for, where a task asks which language its inputs are in; else none.

    Args:
        instruction: The task.
        names: The labels: names or codes of languages, and perhaps one for all others.

    Returns:
        ISO 639-1 codes by the labels' names; a label for all others has none.

    Examples:
        >>> label_languages("Detect the language of a tweet.", ["en", "German", "other"])
        {'en': 'en', 'German': 'de'}
        >>> label_languages("Classify the cuisine.", ["French", "Italian"])
        {}
    """
    if not _ASKS_LANGUAGE.search(instruction):
        return {}
    found = {name: code for name in names if (code := language_code(name)) is not None}
    rest = [name for name in names if name not in found and name.lower() not in _NO_LANGUAGE]
    return found if not rest and 1 < len(found) == len(set(found.values())) else {}
