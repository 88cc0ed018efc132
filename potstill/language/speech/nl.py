"""How Dutch prompts say what they ask for."""

from __future__ import annotations

from potstill.language.speech.base import Speech

SPEECH = Speech(
    kinds={
        "sentence": "zin/zinnen",
        "question": "vraag/vragen/*klantvraag/*klantvragen",
        "review": "*recensie/*recensies/*beoordeling/*beoordelingen/*review/*reviews",
        "message": "*bericht/*berichten/sms",
        "request": "*verzoek/*verzoeken/*aanvraag/*aanvragen",
        "email": "*e-mail/*e-mails/*mail/*mails",
        "comment": "*reactie/*reacties/*opmerking/*opmerkingen",
        "tweet": "tweet/tweets",
        "article": "*artikel/*artikelen",
        "headline": "*kop/*koppen/*titel/*titels",
        "paragraph": "*alinea/*alinea's",
        "passage": "*passage/*passages/*fragment/*fragmenten",
        "context": "context",
        "document": "*document/*documenten",
        "ticket": "*ticket/*tickets",
        "story": "*verhaal/*verhalen",
        "letter": "*brief/*brieven",
        "report": "*verslag/*verslagen/*rapport/*rapporten",
        "invoice": "*factuur/*facturen",
        "contract": "*contract/*contracten",
        "dialogue": "*dialoog/*dialogen/*gesprek/*gesprekken",
        "statement": "*uitspraak/*uitspraken/*bewering/*beweringen",
        "complaint": "*klacht/*klachten",
        "recipe": "*recept/*recepten",
        "poem": "*gedicht/*gedichten",
        "description": "*beschrijving/*beschrijvingen",
        "word": "woord",
        "text": "*tekst/*teksten",
    },
    numbers=(
        "een/één/enkele/enkel twee drie vier vijf zes zeven acht negen tien twaalf=12 vijftien=15 twintig=20"
        " dertig=30 veertig=40 vijftig=50 honderd=100"
    ),
    sentences="(?:zin|zinnen|volzin|volzinnen)",
    words="woord(?:en)?",
    points="(?:opsommingspunt(?:en)?|bullet ?points?|bullets?|punten|punt)",
    into="in|met",
    most=r"(?:hoogstens|maximaal|max\.?|hooguit|ten hoogste|niet meer dan|tot|niet langer dan)",
    most_behind="(?:of minder|maximaal|hoogstens)",
    under="(?:minder dan|korter dan)",
    about=r"(?:ongeveer|circa|ca\.?|rond de|zo'n)",
    adjectives="(?:korte|beknopte|heldere|duidelijke|volledige|enkele|eenvoudige)",
    one_word=r"\b(?:in|met) (?:slechts )?(?:een|één|1) (?:enkel )?woord\b",
    json=(
        r"(?:\b(?:als|in) (?:(?:een|geldige?) )?json\b(?!-?(?:bestand|schema| lines))|\b(?:geef|schrijf|lever"
        r"|genereer|maak) (?:\w+ ){0,3}json\b)"
    ),
    number=(
        r"\b(?:alleen|enkel|uitsluitend|slechts) (?:met )?(?:het|een) getal\b|\bantwoord met (?:een"
        r"|het) getal\b(?! en\b)"
    ),
    question=(
        r"\b(?:schrijf|stel|formuleer|bedenk|genereer|maak|verzin) (?:een|één|1) (?:\w+ ){0,2}?vraag\b"
        r"(?! (?:en|of)\b)"
    ),
    within=(
        r"\b(?:letterlijk[e]?|exacte) (?:citaat|passage|fragment|tekst|woorden|zin)\b|\bwoord voor woord\b"
        r"|\bletterlijk (?:uit|overgenomen|geciteerd|gekopieerd)\b|\b(?:citeer|kopieer)\b[^.;]{0,60}\bletterlijk\b"
    ),
    several=r"\b(?:alle|elke|meerdere|gescheiden door|lijst|fragmenten|citaten|passages)\b",
    works_on="vind|zoek|corrigeer|tel|vertaal|markeer|vervang|herken|haal|verbeter|bepaal",
    when="als|indien|anders|wanneer|of",
    gives="schrijf|antwoord|geef|zeg|gebruik|vul",
    writes="schrijf|schrijven|formuleer|genereer|maak|bedenk|geef|stel|verzin",
    to="voor|uit|over|van|bij|op|met|naar",
    the="de|het",
    answers="(?:be)?antwoord(?:t|en)?",
    answers_from="met behulp|aan de hand|op basis|uit|volgens|met|over|in",
    two="(?:twee|beide|paren van)",
    compares="of|is|zijn|vergelijk|tussen|classificeer|welke",
    first="eerste",
    second="tweede",
    yes_no=("ja", "nee"),
    whether=r"\b(?:bepaal|beslis|controleer|zeg|geef aan|beoordeel|detecteer|ga na) of\b",
    opens_yes_no=r"^(?:is|zijn|heeft|bevat|gaat|noemt|klopt|hoort|past)\s",
    interrogatives=r"\b(?:wat|wie|hoe|waar|wanneer|waarom|welke?)\b",
    sorts="classific|categoriseer|sorteer",
    writes_text="schrijf|formuleer|vat|vertaal|genereer|maak|beschrijf|leg|antwoord|beantwoord|bedenk",
    translates="vertaal",
    rates=r"\b(?:beoordeel|waardeer|sterren)\w*",
    stars=r"\bsterren\b",
    value=r"\b(?:alleen|enkel|uitsluitend) (?:de|het) (?:datum|bedrag|jaar|som|prijs|tijd)\b",
    either="of",
    choice=r"^(?:is|zijn)\s+\S+\s+\S+\s+",
    sorted_into="als|in",
    both="en",
)
