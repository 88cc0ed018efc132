"""How French prompts say what they ask for."""

from __future__ import annotations

from potstill.language.speech.base import Speech

SPEECH = Speech(
    kinds={
        "sentence": "phrase/phrases",
        "question": "question/questions",
        "review": "avis/critique/critiques/évaluation/évaluations",
        "message": "message/messages/sms",
        "request": "demande/demandes/requête/requêtes",
        "email": "courriel/courriels/e-mail/e-mails/mail/mails/email/emails",
        "comment": "commentaire/commentaires",
        "tweet": "tweet/tweets",
        "article": "article/articles",
        "headline": "titre/titres/gros titre",
        "paragraph": "paragraphe/paragraphes",
        "passage": "passage/passages/extrait/extraits",
        "context": "contexte",
        "document": "document/documents",
        "ticket": "ticket/tickets",
        "story": "histoire/histoires/récit/récits",
        "letter": "lettre/lettres",
        "report": "rapport/rapports",
        "invoice": "facture/factures",
        "contract": "contrat/contrats",
        "dialogue": "dialogue/dialogues/conversation/conversations",
        "statement": "énoncé/énoncés/affirmation/affirmations",
        "complaint": "plainte/plaintes/réclamation/réclamations",
        "recipe": "recette/recettes",
        "poem": "poème/poèmes",
        "post": "publication/publications",
        "description": "description/descriptions",
        "word": "mot",
        "text": "texte/textes",
    },
    numbers=(
        "un/une/seul/seule deux trois quatre cinq six sept huit neuf dix douze=12 quinze=15 vingt=20 trente=30"
        " quarante=40 cinquante=50 cent=100"
    ),
    sentences="phrases?",
    words=r"mots?\b(?!-)",
    points="(?:puces?|points? clés?|tirets?|points?)",
    into="en|dans|avec",
    most=r"(?:au plus|au maximum|maximum|max\.?|pas plus de|jusqu'à|ne dépass\w+ pas|sans dépasser)",
    most_behind="(?:au plus|au maximum|maximum|max|ou moins)",
    under="(?:moins de)",
    about="(?:environ|à peu près|autour de|quelque)",
    adjectives="(?:courtes?|brèves?|brefs?|claires?|clairs?|simples?|complètes?|seule|unique|concises?)",
    one_word=r"\b(?:en|par|avec) (?:un (?:seul )?|1 )mot\b(?!-)",
    json=(
        r"(?:\b(?:en|comme|au format|sous (?:la )?forme d(?:e|'un objet|'objet)) (?:format |objet )?json\b(?! lines)"
        r"|\b(?:renvo\w+|retourn\w+|produi\w+|donn\w+|écri\w+) (?:\w+ ){0,3}json\b)"
    ),
    number=(
        r"\b(?:uniquement|seulement|juste|simplement|que) (?:par |avec )?(?:le|un) (?:nombre|chiffre)\b(?! de\b| d')"
        r"|\b(?:réponds|répondez|répondre) (?:avec|par) (?:un|le) (?:seul |)nombre\b(?! de\b| d'| et\b)"
    ),
    question=(
        r"\b(?:écri\w*|pose[rz]?|rédige[rz]?|formule[rz]?|génère[rz]?|générez|crée[rz]?|propose[rz]?|invente[rz]?"
        r"|imagine[rz]?)(?:[ -]moi)? (?:une|1) (?:\w+ ){0,2}?question\b(?! (?:et|ou)\b)"
    ),
    within=(
        r"\b(?:passage|extrait|citation|fragment|mots|phrase|termes?) (?:exacte?s?|littéral\w*|textuel\w*)\b"
        r"|\b(?:mot (?:pour|à) mot|textuellement|verbatim)\b|\b(?:copie|cite|recopie|extrai)\w* (?:\w+ ){0,4}(?:du"
        r"|de la|dans le|depuis le) (?:texte|passage|paragraphe|article|contexte)\b[^.;]{0,30}\b(?:tel\w* quel\w*"
        "|sans (?:rien )?(?:le |la |les )?(?:modifier|changer))"
    ),
    several=r"\b(?:tou(?:te)?s les|chaque|plusieurs|séparé\w* par|liste|passages|extraits|citations)\b",
    works_on=(
        "trouve|corrige|compte|traduis|traduisez|remplace|marque|souligne|repère|identifie|extrais|extrayez|détecte"
        "|relève"
    ),
    when="si|s'il|sinon|autrement|lorsque|quand|ou",
    gives=r"écri\w+|répond\w*|dis|dites|donne[rz]?|renvo\w+|retourne[rz]?|mets|mettez|indique[rz]?|note[rz]?",
    writes=(
        r"écri[sv]\w*|écrire|rédige[rz]?|formule[rz]?|génère[rz]?|générer|crée[rz]?|propose[rz]?|invente[rz]?"
        "|donne[rz]?|pose[rz]?"
    ),
    to="pour|à|au|aux|de|du|des|sur|avec|dans",
    the="le|la|les|l'",
    answers="répond(?:s|ez|re)",
    answers_from=(
        "à partir|à l'aide|en utilisant|en te basant|en vous basant|d'après|selon|sur la base|grâce|en (?:te"
        "|vous) appuyant|en fonction|avec|dans|sur"
    ),
    two="(?:deux|paires? de)",
    compares=r"si|est|sont|compare\w*|entre|classe\w*|quel\w*",
    first="premi(?:er|ère)",
    second="(?:second|deuxième|seconde)",
    yes_no=("oui", "non"),
    whether=r"\b(?:décid|détermin|dis|dites|indiqu|vérifi|précis|juge|évalu|détect)\w* s(?:i\b|'ils?\b|'elles?\b)",
    opens_yes_no=r"^est-ce que\b|^est-ce\b|\b\w+-(?:t-)?(?:il|elle|ils|elles)\b",
    interrogatives=r"\b(?:quel(?:le)?s?|comment|pourquoi|qui|quoi|où|combien|quand|lequel|laquelle)\b",
    sorts=r"classe|classif|catégoris|trie[zr]?\b|étiquet",
    writes_text="écri|rédig|résum|tradui|génér|propos|décri|expliqu|répond|compos|reformul|invent",
    translates="tradui",
    rates=r"\b(?:évalu|attribu|étoile)\w*|\bnote[rz]?\b",
    stars=r"\bétoiles?\b",
    value=r"\b(?:uniquement|seulement|juste) (?:la|le|l')\s?(?:date|montant|année|somme|prix|heure)\b",
    either="ou",
    choice=r"\b(?:est|sont)(?:-(?:il|elle|ils|elles))?\s+",
    sorted_into="comme|en|entre|parmi",
    both="et",
)
