"""How Japanese prompts say what they ask for."""

from __future__ import annotations

from potstill.language.speech.base import UndividedSpeech

SPEECH = UndividedSpeech(
    kinds={
        "sentence": "文",
        "question": "質問/問い/設問",
        "review": "レビュー/口コミ/評価",
        "message": "メッセージ",
        "email": "メール",
        "comment": "コメント",
        "tweet": "ツイート",
        "article": "記事/ニュース",
        "headline": "見出し/タイトル",
        "paragraph": "段落",
        "passage": "文章/本文/抜粋",
        "context": "文脈/コンテキスト",
        "document": "文書/ドキュメント",
        "story": "物語/話",
        "report": "報告書/レポート",
        "contract": "契約書",
        "dialogue": "対話/会話",
        "statement": "発言/主張",
        "complaint": "苦情",
        "text": "テキスト",
    },
    sentences="{RANGE}文(?:以内|以下)?(?:で|に|の(?:要約|説明|回答))",
    most="{RANGE}(?:文字|字)(?:以内|以下|まで)|(?:最大|多くても){RANGE_2}(?:文字|字)",
    about="(?:約|およそ){RANGE}(?:文字|字)|{RANGE_2}(?:文字|字)(?:程度|くらい|ぐらい|前後)",
    points="{RANGE}(?:つ|個)?の?(?:箇条書き|要点|ポイント)(?:で|に)|箇条書き{RANGE_2}(?:つ|個|項目|点)",
    json="json(?:形式|オブジェクト|フォーマット)?(?:で|として|に(?:変換|して))|jsonを(?:出力|返|生成)",
    question="(?:質問|問い|問題)を(?:[一1１]つ)?(?:だけ)?(?:作|書|考え|生成|作成)",
    number="(?:数字|数値)(?:だけ|のみ)",
    within="(?:本文|文章|原文|テキスト)(?:から|中)(?:の語句)?を?(?:そのまま|一字一句)|そのまま(?:抜き出|引用|書き写)|抜き出し?て",
    several="すべて|全て|それぞれ|複数|カンマ区切り|リスト",
    when="場合|なければ|ない時|ないとき|さもなければ|または",
    works_on="(?!)",
    answers="答え|回答|解答",
    answers_from="に基づ|をもと|を元|を読|から|を使|について|を参照",
    yes_no=("はい", "いいえ"),
    whether="かどうか(?:を)?(?:判定|判断|分類|答え|検出)",
    opens_yes_no="(?:です|ます|でしょう|ある|いる)か[。?？]?$",
    interrogatives="何|誰|どこ|いつ|なぜ|どの|どれ|いくつ",
)
