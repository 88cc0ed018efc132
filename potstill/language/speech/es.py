"""How Spanish prompts say what they ask for."""

from __future__ import annotations

from potstill.language.speech.base import Speech

SPEECH = Speech(
    kinds={
        "sentence": "frase/frases/oración/oraciones",
        "question": "pregunta/preguntas",
        "review": "reseña/reseñas/opinión/opiniones/crítica/críticas",
        "message": "mensaje/mensajes/sms",
        "request": "solicitud/solicitudes/consulta/consultas",
        "email": "correo/correos/e-mail/email/emails",
        "comment": "comentario/comentarios",
        "tweet": "tuit/tuits/tweet/tweets",
        "article": "artículo/artículos/articulo/articulos/noticia/noticias",
        "headline": "titular/titulares/título/títulos",
        "paragraph": "párrafo/párrafos/parrafo/parrafos",
        "passage": "pasaje/pasajes/fragmento/fragmentos/extracto/extractos",
        "context": "contexto",
        "document": "documento/documentos",
        "ticket": "ticket/tickets/incidencia/incidencias",
        "story": "historia/historias/relato/relatos/cuento/cuentos",
        "letter": "carta/cartas",
        "report": "informe/informes",
        "invoice": "factura/facturas",
        "contract": "contrato/contratos",
        "dialogue": "diálogo/diálogos/conversación/conversaciones",
        "statement": "enunciado/enunciados/afirmación/afirmaciones",
        "complaint": "queja/quejas/reclamación/reclamaciones",
        "recipe": "receta/recetas",
        "poem": "poema/poemas",
        "post": "publicación/publicaciones",
        "description": "descripción/descripciones",
        "word": "palabra",
        "text": "texto/textos",
    },
    numbers=(
        "un/una/uno/sola/solo/única dos tres cuatro cinco seis siete ocho nueve diez doce=12 quince=15 veinte=20"
        " treinta=30 cuarenta=40 cincuenta=50 cien=100"
    ),
    sentences="(?:frases?|oración|oraciones|enunciados?)",
    words=r"palabras?\b(?! clave)",
    points="(?:viñetas?|puntos? clave|puntos?|guiones)",
    into="en|con",
    most=(
        r"(?:como máximo|máximo|máx\.?|no más de|hasta|a lo sumo|no superes las|sin superar las|sin pasar de"
        r"|no exceda\w* de|no exceda\w* las)"
    ),
    most_behind="(?:como máximo|como mucho|máximo|máx|a lo sumo|o menos)",
    under="(?:menos de)",
    about="(?:unas|unos|aproximadamente|alrededor de|cerca de)",
    adjectives="(?:cortas?|breves?|claras?|claros?|simples?|sencillas?|completas?|sola|única|concisas?)",
    one_word=r"\b(?:en|con) (?:una (?:sola |única )?|1 )palabra\b(?! clave)",
    json=(
        r"(?:\b(?:como|en|a) (?:(?:un|formato|objeto|array|lista) )*json\b(?! lines)|\b(?:devuelv\w+|devuélv\w+"
        r"|escrib\w+|gener\w+|produ\w+|responde\w*) (?:\w+ ){0,3}json\b)"
    ),
    number=(
        r"\b(?:solo|sólo|solamente|únicamente) (?:con )?(?:el|un) (?:número|numero|valor numérico)\b(?! de\b)"
        r"|\bresponde (?:con )?(?:un|el) número\b(?! de\b| y\b)"
    ),
    question=(
        r"\b(?:escrib\w+|haz|haga|formul\w+|redact\w+|gener\w+|cre[ae]\w*|plante\w+|propon\w*|invent\w+"
        r"|elabor\w+) (?:una|1) (?:\w+ ){0,2}?pregunta\b(?! (?:y|o)\b)"
    ),
    within=(
        r"\b(?:fragmento|pasaje|cita|texto|palabras|frase) (?:exact[ao]s?|literal(?:es)?|textual(?:es)?)\b"
        r"|\b(?:palabra por palabra|textualmente|literalmente|verbatim)\b"
    ),
    several=r"\b(?:tod[oa]s (?:los|las)|cada|vari[oa]s|separad[oa]s por|lista|fragmentos|citas|pasajes)\b",
    works_on="encuentra|busca|corrige|cuenta|traduce|marca|reemplaza|sustituye|identifica|extrae|detecta|señala|localiza",
    when="si|de lo contrario|en caso|cuando|o",
    gives=r"escrib\w+|respond\w+|di|diga|devuelv\w+|pon|ponga|indica|indique|usa|da",
    writes=r"escrib\w+|redact\w+|formul\w+|gener\w+|crea\w*|propon\w*|invent\w+|da|dame|haz|plante\w+|elabor\w+",
    to="para|a|al|de|del|por|sobre|con|en",
    the="el|la|los|las",
    answers="respond(?:e|a|er)",
    answers_from="usando|utilizando|a partir|según|con|basándote|basándose|en base|de acuerdo|en|sobre",
    two="(?:dos|pares? de|ambas|ambos)",
    compares="si|es|son|compara|entre|clasifica|qué|cuál",
    first="primer[ao]?",
    second="segund[ao]",
    yes_no=("sí", "no"),
    whether=r"\b(?:decid|determin|indi[cq]|di\b|diga\b|comprueb|comprob|verifi|evalú|evalu|detect|juzg)\w* si\b",
    opens_yes_no=(
        r"^¿?\s*(?:(?:el|la|los|las|est[ea]s?|es[ea]s?|un|una) [^?,:]{1,60}? )?"
        r"(?:es|son|está|están|contiene|tiene|habla|menciona|expresa|trata|hay|se trata)\s"
    ),
    interrogatives=r"\b(?:qué|quién|quiénes|cómo|cuándo|dónde|cuál|cuáles|cuánt[oa]s?|por qué)\b",
    sorts="clasific|clasifiqu|categori[zc]|etiquet",
    writes_text="escrib|redact|resum|traduc|gener|propon|describ|expli|respond|compon|reformul|invent",
    translates="traduc",
    rates=r"\b(?:calific|puntú|puntu|evalú|valora|estrella)\w*",
    stars=r"\bestrellas?\b",
    value=r"\b(?:solo|sólo|únicamente|solamente) (?:la|el) (?:fecha|importe|año|suma|precio|hora)\b",
    either="o|u",
    choice=r"(?:^¿?\s*(?:es|son)\s+\S+\s+\S+|\b(?:es|son))\s+",
    sorted_into="como|en|entre",
    both="y|e",
)
