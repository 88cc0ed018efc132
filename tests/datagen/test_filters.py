"""Each filter keeps what is fit and names why what is not fit is dropped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.datagen import filters
from potstill.datagen.novelty import NoveltyFilter
from potstill.language.guess import guess_language, other_language
from potstill.rows import Dropped


def reason(dropped: Dropped | None) -> str | None:
    return None if dropped is None else dropped.reason


def test_length() -> None:
    assert reason(filters.too_short(" ... ", 2)) == "empty"
    assert reason(filters.too_short("one", 2)) == "too_short"
    assert filters.too_short("one two", 2) is None
    assert filters.too_short("今日は良い天気です", 3) is None
    assert reason(filters.too_long("a b c", 2)) == "too_long"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("As an AI language model, I cannot write spam.", "refusal"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I can't write that message.", "refusal"),
        ("I'm unable to create such content.", "refusal"),
        ("I cannot find my order, can you help?", None),
        ("I am sorry to hear that your flight was late.", None),
        ("Sorry, that request is nothing I may answer.", "refusal"),
        ("I'm sorry, I know how frustrating a late parcel is. I have refunded the fee.", None),
        ("Sorry I missed your message! Your parcel left this morning.", None),
        ("Sorry, I'll call later", None),
        ("The robot said it was an AI, and nobody laughed at it in the whole room.", None),
        ("Parliament voted on Monday.", None),
    ],
)
def test_refusal(text: str, found: str | None) -> None:
    assert reason(filters.refusal(text)) == found


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "Sorry, I can't do that.",
        "I'm sorry, I cannot help you with this.",
        "I cannot fulfil this request.",
        "I can't fulfill your request as it goes against my guidelines.",
        "I am unable to comply with this request.",
        "I cannot create explicit content.",
        "I cannot generate content that promotes violence.",
        "I can't write a story that glorifies self-harm.",
        "I'm sorry, but I cannot provide instructions on how to build a weapon.",
        "I cannot provide medical advice.",
        "Sorry, but I cannot engage in conversations of a sexual nature.",
        "I won't write hateful messages about any group.",
        "I will not help with that.",
        "I apologize, but I cannot provide a response to this question.",
        "I'm not able to assist with illegal activities.",
        "I am not able to generate a summary without the article.",
        "I cannot continue this conversation.",
        "I can't classify this text.",
        "I'm sorry, but your request violates our content policy.",
        "I'm sorry, but I don't understand your request.",
        "As an AI, I don't have personal opinions.",
        "Hi there. I'm an AI chatbot with the purpose of providing assistance through various technology.",
        "As an AI-powered assistant for your shop I will look after your order.",
        "I am a large language model from a lab.",
        "As an AI assistant, I have no access to your order.",
        "I'm just an AI language model and have no feelings.",
        "I am an AI, so I have never been to Paris.",
        "Hi there! I'm sorry, but I can't assist with that request.",
        "Unfortunately, I can't provide that information.",
        "I understand that you are upset. However, I cannot help with that.",
        "I don't feel comfortable writing about this topic.",
        "I can't assist in creating such material.",
        "I cannot support or promote hate speech.",
        "I'm unable to assist.",
        "Hello!\n\nI'm sorry, but I can't help with that.",
        "I'm sorry, I can't answer that question.",
    ],
)
def test_what_declines_the_request_itself_is_a_refusal(text: str) -> None:
    assert reason(filters.refusal(text)) == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ms Jones,\n\nI'm sorry for the delay in processing your request. Your parcel left on Monday.",
        "Hi Anna,\n\nApologies for the late reply to your request. The invoice is attached.",
        "I'm sorry that your request was not answered sooner. We were moving house.",
        "Sorry for the trouble with this task, I sent you the wrong file.",
        "We apologize that your request took so long.",
        "Hi,\n\nThank you for your offer, but I can't share these figures before Monday.",
        "Dear Mr Lee,\n\nI'm afraid I can't share that information by e-mail. Please call us.",
        "I can't complete the report until he sends the data.",
        "I can't answer that question right now.",
        "Sorry, I can't help on Saturday, but Sunday works.",
        "I can't help but notice that the handle is loose.",
        "I can't help you move on Friday.",
        "I cannot create an account on your site, it says my e-mail is taken.",
        "I'm unable to complete the payment with my card.",
        "I'm not able to provide my passport until next week.",
        "I can't continue without a break.",
        "I can't support this decision any longer, and neither can the board.",
        "I can't discuss the merger before Friday.",
        "I won't share my lunch with Tom again.",
        "I don't feel comfortable driving at night.",
        "As an AI company, we train our own models.",
        "I am an AI engineer from Leeds with ten years of work behind me.",
        "As an artificial intelligence researcher, she won two prizes.",
        "I cannot answer the phone while I am driving.",
        "I can't do these things alone any longer.",
        "I can't write to the disk since the update.",
        "I cannot offer you the job, but we will keep your papers.",
        "I can't give you a refund after thirty days.",
        "I won't answer the door tonight.",
    ],
)
def test_what_declines_something_else_is_none(text: str) -> None:
    assert filters.refusal(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Dear Sir,",
        "Hey AI assistant,  ",
        "This is what it says:",
        "你好，",
        "Dear Huggables Team",
    ],
)
def test_a_greeting_alone_is_unfinished(text: str) -> None:
    assert reason(filters.unfinished(text)) == "unfinished"


@pytest.mark.parametrize(
    "text",
    [
        "Dear Sir, my card is lost",
        "Who, me?",
        "at 10:30",
        "Bring milk; bread",
        "Hi I lost my card",
        "Dear me",
        "Hi there!",
        "Dear Sir\nMy card is lost",
    ],
)
def test_finished_texts_pass(text: str) -> None:
    assert filters.unfinished(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Dear [Your Name], your parcel is late.",
        "This text belongs to the category of sports.",
        "Let me know if you like it",
        "Sure! Here is a message",
        "Here are two messages about it",
        "Certainly, I'd be happy to help you write one.",
        "Dear [Account holder's name]",
        "My order [order_id] has not come.",
        "I moved to [New Address].",
        "It should come on [Day/Time]",
    ],
)
def test_meta_talk(text: str) -> None:
    assert reason(filters.meta_talk(text)) == "meta_talk"


@pytest.mark.parametrize(
    "text",
    [
        "Let me know if you can make it on Friday.", "Sure, see you at 5 then", "Of course it broke on the first day.",
        "Here is where it hurts", "I hope this is not a joke",
    ],
)  # fmt: skip
def test_people_say_such_things_too(text: str) -> None:
    assert filters.meta_talk(text) is None


@pytest.mark.parametrize(
    "text", ["See [1] and [Smith 2010].", "take a[name_of(x)]", "[Reuters] Oil fell.", "[a, b] = f(x)"]
)
def test_brackets_of_another_kind_pass(text: str) -> None:
    assert filters.meta_talk(text) is None


@pytest.mark.parametrize(
    ("text", "names", "leaks"),
    [
        ("Sports fans filled the stadium.", ["Sports"], False),
        ("I love winter sports", ["Sports"], False),
        ('This is "sports" news.', ["Sports"], True),
        ("The category is Sports: the match ended.", ["Sports"], True),
        ("Sports\nThe match ended.", ["Sports"], True),
        ("The match ended.\n(Sports)", ["Sports"], True),
        ("Sports: the match ended.", ["Sports"], True),
        ("Where is my card_arrival?", ["card_arrival", "card arrival"], True),
        ("When does my card arrival happen?", ["card_arrival", "card arrival"], False),
        ("A Sci/Tech story", ["Sci/Tech"], True),
        ("please BookRestaurant for two", ["BookRestaurant"], True),
        ("I won 1 prize", ["1"], False),
        ("I caught COVID-19 on my flight", ["-1", "0", "1"], False),
        ("Paid 12.05 for lunch", ["1.0", "2.0"], False),
        ("A label of -1: no", ["-1"], True),
        (
            "\u0906\u091c \u0915\u093e \u0916\u0947\u0932 \u0930\u094b\u092e\u093e\u0902\u091a\u0915 \u0925\u093e",
            ["\u0916\u0947\u0932"],
            False,
        ),
        ("Positive feedback came in.", ["positive", "negative"], False),
        ("I bought it. Sentiment: positive", ["positive"], True),
    ],
)
def test_label_leak(text: str, names: list[str], leaks: bool) -> None:
    assert (filters.label_leak(text, names) is not None) == leaks


def test_echoes() -> None:
    prompt = "Task: Classify a news article by topic.\n\nWrite one new, realistic news article whose answer is Sports."
    assert reason(filters.prompt_echo("Write one new, realistic news article whose answer is World.", prompt))
    assert reason(filters.prompt_echo("classify a news article by topic", prompt)) == "prompt_echo"
    assert filters.prompt_echo("The keeper saved two penalties in the final.", prompt) is None
    shown = NoveltyFilter(0.7, texts=["The keeper saved two penalties in the final."])
    assert reason(filters.example_echo("The keeper saved two penalties in the last final.", shown)) == "example_echo"
    assert filters.example_echo("Shares of the airline rose.", shown) is None
    assert reason(filters.near_duplicate("the keeper saved two penalties in the final", shown)) == "near_duplicate"


# Natural texts, which say much twice.
THAI = (
    "เมื่อวานนี้ฉันไปตลาดกับแม่เพื่อซื้อผักและผลไม้ ตอนเช้าอากาศดีมาก มีคนมาเดินซื้อของกันเยอะ แม่ค้าที่ร้านผักพูดจาดีและแถมมะนาวให้เราด้วย "
    "หลังจากนั้นเราไปกินก๋วยเตี๋ยวที่ร้านข้างตลาด น้ำซุปอร่อยและราคาไม่แพง ก่อนกลับบ้านแม่แวะซื้อดอกไม้ไปไหว้พระ "
    "ตอนบ่ายฝนตกหนักมากจนถนนหน้าบ้านมีน้ำท่วม เราจึงอยู่บ้านดูหนังด้วยกันทั้งครอบครัว พ่อทำกาแฟและขนมปังปิ้งให้ทุกคนกิน "
    "เป็นวันหยุดที่มีความสุขมากวันหนึ่งของเรา และเราตั้งใจว่าจะไปตลาดกันอีกในวันอาทิตย์หน้า"
)
CHINESE = (
    "昨天我们一家人去公园散步，天气很好，湖边有很多人在放风筝。孩子们跑来跑去，笑得很开心。中午我们在湖边的小饭馆吃了面，"
    "老板说今年的荷花开得比去年早。下午忽然下起了雨，我们只好在亭子里等了一个小时，听一位老人讲这个公园以前的故事。"
    "他说这里原来是一片稻田，后来才挖了湖，种了树。雨停以后，我们沿着湖走回车站，路上看见了一道彩虹。"
)


def test_echoes_are_seen_in_any_script() -> None:
    prompt = "Напишите один отзыв клиента магазина.\nНе упоминайте номер заказа 5000."
    assert filters.prompt_echo("Заказ за 5000 рублей так и не пришёл, а деньги списали.", prompt) is None
    assert reason(filters.prompt_echo("Напишите отзыв клиента магазина", prompt)) == "prompt_echo"
    assert reason(filters.prompt_echo("请写出一条顾客的评论。", "任务：\n请写出一条新的顾客评论，不要提价格。")) is None
    assert reason(filters.prompt_echo("请写出一条新的顾客评论，不提价格。", "请写出一条新的顾客评论，不要提价格。"))
    # A passage of a long line, and a short one that lies in it, though there are no spaces between words.
    long = "任务：" + CHINESE
    passage = "我们回家以后，" + CHINESE[30:62] + "，大家都很高兴，也都很累，第二天早上谁也起不来。"
    assert reason(filters.prompt_echo(passage, long)) == "prompt_echo"
    assert reason(filters.prompt_echo("湖边有很多人在放风筝。", long)) == "prompt_echo"
    assert filters.prompt_echo("公园里有很多人。", long) is None, "too little to be copied"
    assert filters.prompt_echo("昨天公园的湖边下了雨，我们在亭子里看见孩子们放风筝。", long) is None
    assert reason(filters.prompt_echo("ฉันคิดว่า" + THAI[100:180], "งาน: " + THAI)) == "prompt_echo"
    assert filters.prompt_echo("แม่ไปตลาดแล้วซื้อดอกไม้กับมะนาวมาให้พ่อ", THAI) is None


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("the cat sat the cat sat the cat sat the cat sat", True),
        ("no no no no no no", True),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaa", True),
        ("The bank said that the bank would close the bank on Monday.", False),
        ("He came, he saw, he won, and he left before the rain began.", False),
        ("-------------------- a table", False),
        ("我们要努力" * 60, True),
        ("今天我们" + "去公园散步" * 20, True),
        ("ありがとうございます" * 6, True),
        ("ขอบคุณมาก" * 6, True),
        ("".join(f"{n}号店今天早上很早就开门了，店员们都在门口等着。" for n in "一二三四五六"), True),
        ("哈哈哈哈哈哈哈哈哈哈", False),
        ("ドキドキドキドキしながら待っていました。", False),
        ("人来人往，人山人海，人人都在看人。", False),
        (THAI, False),
        (CHINESE, False),
    ],
)
def test_repetition(text: str, loops: bool) -> None:
    assert (filters.repetition(text) is not None) == loops


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "The council has decided that it will not build the bridge this year."),
        ("de", "Der Rat hat beschlossen, dass die Brücke in diesem Jahr nicht gebaut wird."),
        ("fr", "Le conseil a décidé que le pont ne sera pas construit dans cette ville."),
        ("es", "El consejo ha decidido que el puente no se construirá este año en la ciudad."),
        ("it", "Il consiglio ha deciso che il ponte non sarà costruito per la città con i fondi."),
        ("pt", "O conselho decidiu que a ponte não será construída com os fundos da cidade para o ano."),
        ("nl", "De raad heeft besloten dat de brug dit jaar niet wordt gebouwd en dat is een probleem."),
        ("pl", "Rada nie jest za tym, że most ma być w tym roku, ale to się może jeszcze zmienić."),
        ("sv", "Rådet har beslutat att bron inte ska byggas och det är en sak som vi måste se till."),
        ("tr", "Bu köprü için bir karar var ama daha sonra ne olacak çok belli değil ve olan bu."),
        ("ru", "Совет решил, что мост в этом году не будет построен, и это для города плохо."),
        ("uk", "Рада вирішила, що міст у цьому році не буде і це для міста погано, але все так."),
    ],
)
def test_languages_are_told_apart(code: str, text: str) -> None:
    assert guess_language(text) == code
    assert other_language(text, (code,)) is None
    other = "de" if code != "de" else "en"
    assert filters.wrong_language(text, (other,)) is not None


@pytest.mark.parametrize(
    ("text", "languages", "found"),
    [
        ("今日は良い天気です", ("en",), True),
        ("今日は良い天気です", ("ja",), False),
        ("wat the, ok thx bye", ("en",), False),
        ("OK", ("de",), False),
        ("", ("en",), False),
        ("12345 !!!", ("en",), False),
        ("Nothing of this is in Japanese, which is what was asked for.", ("ja",), True),
        ("Das ist es nicht, was ich mit dem Auto will.", (), False),
    ],
)
def test_wrong_language(text: str, languages: tuple[str, ...], found: bool) -> None:
    assert (filters.wrong_language(text, languages) is not None) == found


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300), st.text(min_size=1, max_size=20))
def test_nothing_raises(text: str, name: str) -> None:
    kept = NoveltyFilter(0.7, texts=[name])
    found = [
        filters.too_short(text, 2),
        filters.too_long(text, 10),
        filters.refusal(text),
        filters.meta_talk(text),
        filters.label_leak(text, [name]),
        filters.prompt_echo(text, name),
        filters.example_echo(text, kept),
        filters.wrong_language(text, ("en",)),
        filters.repetition(text),
        filters.near_duplicate(text, kept),
    ]
    assert all(item is None or item.reason for item in found)
