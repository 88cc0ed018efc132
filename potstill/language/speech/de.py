"""How German prompts say what they ask for."""

from __future__ import annotations

from potstill.language.speech.base import Speech

SPEECH = Speech(
    kinds={
        "sentence": "satz/sätze/sätzen/satzes",
        "question": "frage/fragen/*kundenfrage/*kundenfragen/quizfrage/quizfragen",
        "review": "*rezension/*rezensionen/*bewertung/*bewertungen/*kritik/*kritiken",
        "message": "*nachricht/*nachrichten/*mitteilung/*mitteilungen/sms",
        "request": "*anfrage/*anfragen/*anliegen",
        "email": "*e-mail/*e-mails/*email/*emails/*mail/*mails",
        "comment": "*kommentar/*kommentare/*kommentaren/*kommentars",
        "tweet": "tweet/tweets",
        "article": "*artikel/*artikeln/*artikels",
        "headline": "*überschrift/*überschriften/*schlagzeile/*schlagzeilen/*titel/*titeln",
        "paragraph": "*absatz/*absätze/*absätzen/*absatzes",
        "passage": "*passage/*passagen/*abschnitt/*abschnitte/*abschnitten/*abschnitts/*auszug/*auszugs",
        "context": "kontext/kontexts",
        "document": "*dokument/*dokumente/*dokumenten/*dokuments",
        "ticket": "*ticket/*tickets",
        "story": "*geschichte/*geschichten/*erzählung/*erzählungen",
        "letter": "*brief/*briefe/*briefen/*briefes/*briefs",
        "report": "*bericht/*berichte/*berichten/*berichts",
        "invoice": "*rechnung/*rechnungen",
        "contract": "*vertrag/*verträge/*verträgen/*vertrags",
        "dialogue": "*dialog/*dialoge/*dialogen/*dialogs/*gespräch/*gespräche/*gesprächen/*gesprächs",
        "statement": "*aussage/*aussagen",
        "claim": "*behauptung/*behauptungen",
        "complaint": "*beschwerde/*beschwerden/*reklamation/*reklamationen",
        "recipe": "*rezept/*rezepte/*rezepten/*rezepts",
        "poem": "*gedicht/*gedichte/*gedichten/*gedichts",
        "post": "*post/*posts/*beitrag/*beiträge/*beiträgen/*beitrags",
        "description": "*beschreibung/*beschreibungen",
        "word": "wort/wortes",
        "text": "*text/*texte/*texten/*textes/*texts",
    },
    numbers=(
        "ein/einem/eine/einen/einer zwei drei vier fünf sechs sieben acht neun zehn zwölf=12 fünfzehn=15 zwanzig=20"
        " dreißig=30 vierzig=40 fünfzig=50 hundert=100"
    ),
    sentences="s(?:atz|ätzen?|atzes)",
    words="w(?:ort|orte|orten|örter|örtern)",
    points="(?:stichpunkte?n?|stichworte?n?|stichwörtern?|aufzählungspunkte?n?|spiegelstrichen?|bullet ?points?)",
    into="in|mit|auf",
    most=r"(?:höchstens|maximal|max\.?|nicht mehr als|bis zu|nicht länger als|nicht über)",
    most_behind="(?:oder weniger|höchstens|maximal|nicht überschreiten)",
    under="(?:weniger als|unter|kürzer als)",
    about=r"(?:etwa|ungefähr|ca\.?|circa|rund)",
    adjectives="(?:kurzen?|knappen?|klaren?|einzigen?|vollständigen?|prägnanten?|einfachen?|deutschen?|englischen?)",
    one_word=r"\b(?:in|mit) (?:nur |genau )?(?:einem|1) (?:einzigen |einzelnen )?wort\b",
    json=(
        r"(?:\b(?:als|in|im|ins) (?:(?:ein|einem|einer|gültigem|gültiges|reines|valides) )*json\b(?!-?(?:datei|schema"
        r"|lines))|\bjson(?:-objekt| objekt|-array)? (?:aus|zurück)\b|\b(?:gib|liefere?|erzeuge"
        r"|schreibe?) (?:\w+ ){0,3}json\b)"
    ),
    number=(
        r"\b(?:nur|lediglich|ausschließlich|bloß) (?:mit )?(?:der|die|eine[rn]?) (?:[\w-]+ )?zahl\b|\b(?:antworte?"
        r"|antworten sie) mit (?:einer|der) (?:ganzen |einzigen |reinen )?zahl\b(?! und)"
    ),
    question=(
        r"\b(?:schreibe?|stelle?|formuliere?|erzeuge?|erstelle?|bilde|generiere?|verfasse?|überlege?|entwirf|erfinde?"
        r"|denk\w* dir)\b(?:(?! (?:antwort|zusammenfassung)\b)[^.;:!?]){0,60}? (?:eine|1) (?:[\w-]+e ){0,3}(?:quiz"
        r"|prüfungs|verständnis|test|folge|rück|multiple-choice-|w-)?frage\b(?! (?:und|oder)\b)"
    ),
    within=(
        r"\b(?:wörtliche[rsn]?|exakte[rsn]?) (?:text)?(?:stelle|passage|zitat|ausschnitt|wortlaut|auszug)\b"
        r"|\bwörtlich (?:aus|zitiert|wiedergegeben|übernommen|kopiert|abgeschrieben)|\b(?:zitiere|kopiere|übernimm"
        r"|übernehme)\b[^.;]{0,60}\bwörtlich\b|\bim (?:genauen )?wortlaut\b|\b(?:kurze |eine "
        "|die )*(?:text)?stelle (?:des|aus dem) (?:text|abschnitt|absatz|artikel)"
    ),
    several=r"\b(?:alle|sämtliche|jede|stellen|zitate|mehrere|durch (?:kommas?|komma) getrennt|liste)\b",
    works_on="finde|suche|korrigiere|zähle|berichtige|verbessere|übersetze|markiere|ersetze|erkenne|extrahiere|bestimme",
    when="wenn|falls|sonst|ansonsten|andernfalls|sofern|oder",
    gives="antworte|schreibe?|gib|sage?|verwende|nimm|setze|ausgabe|antwort",
    writes=(
        "schreibe?n?|verfasse?n?|formuliere?n?|erzeuge?n?|erstelle?n?|generiere?n?|entwirf|gib|stelle?|erfinde?"
        "|bilde|denk"
    ),
    to="des|eines|im|ins|am|beim|zu|zum|zur|für|aus|über|nach|von|vom|mit|auf|bei",
    the="der|die|das|den|dem",
    answers="(?:be)?antworte(?:n|t)?",
    answers_from=(
        "anhand|aufgrund|auf (?:grund|basis|grundlage)|mit ?hilfe|aus|mit|nach|gemäß|laut|basierend|mithilfe|in"
        "|unter verwendung|zu|zum"
    ),
    two="(?:zwei|beiden?|paare? von)",
    compares="ob|ist|sind|haben|bedeuten|vergleiche|klassifiziere|zwischen|wie|welche",
    first="erste[rnsm]?",
    second="zweite[rnsm]?",
    yes_no=("ja", "nein"),
    whether=(
        r"\b(?:entscheide|prüfe|bestimme|beurteile|erkenne|sage?|stelle fest|ermittle|gib an|untersuche"
        r"|bewerte)(?:n sie)?,? ob\b"
    ),
    opens_yes_no=(
        "^(?:ist|sind|hat|haben|enthält|enthalten|handelt|geht|stimmt|kann|wird|passt|gehört|drückt|erwähnt"
        r"|beschreibt)\s"
    ),
    interrogatives=r"\b(?:was|wer|wem|wen|wie|wo|wann|warum|wieso|woher|wohin|welche[rsmn]?)\b",
    sorts="klassifizier|kategorisier|ordne|sortier",
    writes_text="schreib|verfass|formulier|fass|kürz|übersetz|erzeug|erstell|nenn|beschreib|erklär|antwort|erfind",
    translates="übersetz",
    rates=r"\b(?:bewert|beurteil|benot|schätz|stern)\w*",
    stars=r"\bsterne?n?\b",
    value=(
        r"\b(?:nur|lediglich|ausschließlich) (?:das|den|die|der) (?:[\w-]+ )?(?:datum|betrag|jahr|summe|preis"
        r"|uhrzeit)\b"
    ),
    either="oder",
    choice=r"^(?:ist|sind)\s+(?:er|sie|es|das|dies|\S+\s+\S+)\s+",
    sorted_into="als|in|nach",
    both="und",
)
