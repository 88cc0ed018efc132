"""How Portuguese prompts say what they ask for."""

from __future__ import annotations

from potstill.language.speech.base import Speech

SPEECH = Speech(
    kinds={
        "sentence": "frase/frases/sentença/sentenças/oração/orações",
        "question": "pergunta/perguntas",
        "review": "avaliação/avaliações/resenha/resenhas/crítica/críticas",
        "message": "mensagem/mensagens/sms",
        "request": "pedido/pedidos/solicitação/solicitações",
        "email": "e-mail/e-mails/email/emails",
        "comment": "comentário/comentários",
        "tweet": "tweet/tweets/tuíte/tuítes",
        "article": "artigo/artigos/notícia/notícias",
        "headline": "manchete/manchetes/título/títulos",
        "paragraph": "parágrafo/parágrafos",
        "passage": "passagem/passagens/trecho/trechos",
        "context": "contexto",
        "document": "documento/documentos",
        "ticket": "chamado/chamados/ticket/tickets",
        "story": "história/histórias/conto/contos",
        "letter": "carta/cartas",
        "report": "relatório/relatórios",
        "invoice": "fatura/faturas",
        "contract": "contrato/contratos",
        "dialogue": "diálogo/diálogos/conversa/conversas",
        "statement": "afirmação/afirmações/enunciado/enunciados",
        "complaint": "reclamação/reclamações/queixa/queixas",
        "recipe": "receita/receitas",
        "poem": "poema/poemas",
        "post": "publicação/publicações",
        "description": "descrição/descrições",
        "word": "palavra",
        "text": "texto/textos",
    },
    numbers=(
        "um/uma/única/só dois/duas três/tres quatro cinco seis sete oito nove dez doze=12 quinze=15 vinte=20"
        " trinta=30 quarenta=40 cinquenta=50 cem=100"
    ),
    sentences="(?:frases?|oração|orações|sentenças?|períodos?)",
    words=r"palavras?\b(?!-)",
    points="(?:tópicos?|marcadores|pontos-chave|pontos?|itens)",
    into="em|com|num|numa",
    most=r"(?:no máximo|máximo|máx\.?|não mais (?:de|que|do que)|até|sem ultrapassar|não ultrapasse)",
    most_behind="(?:no máximo|máximo|máx|ou menos)",
    under="(?:menos (?:de|que|do que))",
    about="(?:cerca de|aproximadamente|por volta de|umas|uns)",
    adjectives="(?:curtas?|breves?|claras?|simples|completas?|única|só|concisas?)",
    one_word=r"\b(?:(?:em|com) (?:uma (?:única |só )?|1 )|numa (?:única |só )?)palavra\b(?!-)",
    json=(
        r"(?:\b(?:como|em|no) (?:(?:um|formato|objeto|array) )*json\b(?! lines)|\b(?:devolv\w+|retorn\w+|escrev\w+"
        r"|ger[ae]\w*|produz\w*|responda) (?:\w+ ){0,3}json\b)"
    ),
    number=(
        r"\b(?:apenas|só|somente|unicamente) (?:com )?(?:o|um) número\b(?! de\b)|\bresponda (?:com )?(?:um"
        r"|o) número\b(?! de\b| e\b)"
    ),
    question=(
        r"\b(?:escrev\w+|faça|faz|formul\w+|redij\w+|ger[ae]\w*|cri[ae]\w*|propon\w+|invent\w+|elabor\w+) (?:uma"
        r"|1) (?:\w+ ){0,2}?pergunta\b(?! (?:e|ou)\b)"
    ),
    within=(
        r"\b(?:trecho|passagem|citação|texto|palavras|frase|fragmento) (?:exat[ao]s?|litera(?:l|is)|textua(?:l|is))\b"
        r"|\b(?:palavra por palavra|textualmente|literalmente|ao pé da letra|verbatim)\b"
    ),
    several=r"\b(?:tod[oa]s (?:os|as)|cada|vári[oa]s|separad[oa]s por|lista|trechos|citações|passagens)\b",
    works_on="encontre|encontra|procure|corrija|conte|traduza|marque|substitua|identifique|extraia|detecte|localize",
    when="se|senão|caso|quando|ou|do contrário|caso contrário",
    gives=r"escrev\w+|respond\w+|diga|diz|devolv\w+|retorn\w+|coloque|indique|use|dê",
    writes=r"escrev\w+|redij\w+|formul\w+|ger[ae]\w*|cri[ae]\w*|propon\w+|invent\w+|dê|faça|elabor\w+",
    to="para|a|ao|à|de|do|da|dos|das|em|no|na|sobre|com",
    the="o|a|os|as",
    answers="respond(?:a|er|e)",
    answers_from="usando|utilizando|com base|a partir|segundo|de acordo|baseado|baseando-se|conforme|sobre",
    two="(?:duas|dois|pares? de|ambas|ambos)",
    compares="se|é|são|compare|entre|classifique|qual",
    first="primeir[ao]",
    second="segund[ao]",
    yes_no=("sim", "não"),
    whether=r"\b(?:decid|determin|indi[cq]|diga\b|verifi|avali|detect|julgu)\w* se\b",
    opens_yes_no=(
        r"^(?:(?:o|a|os|as|est[ae]s?|ess[ae]s?|um|uma) [^?,:]{1,60}? )?"
        r"(?:é|são|está|contém|tem|fala|menciona|expressa|trata-se)\s"
    ),
    interrogatives=r"\b(?:o que|quem|como|quando|onde|qual|quais|quant[oa]s?|por que)\b",
    sorts="classific|classifiqu|categoriz|etiquet",
    writes_text="escrev|redij|resum|traduz|ger[ae]|propon|descrev|expli|respond|compon|reformul|invent",
    translates="traduz",
    rates=r"\b(?:avali|pontu|estrela)\w*",
    stars=r"\bestrelas?\b",
    value=r"\b(?:apenas|só|somente) (?:a|o) (?:data|valor|ano|soma|preço|hora)\b",
    either="ou",
    choice=r"\b(?:é|são)\s+",
    sorted_into="como|em|entre",
    both="e",
)
