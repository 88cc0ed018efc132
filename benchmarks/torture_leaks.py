"""The suite `leaks` of `torture.py`: test texts planted in training rows, in guises from plain to much changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any


def leaks(tests: int) -> list[dict[str, Any]]:
    """Test texts planted among training rows in several guises: how many are found, and how many clean ones are too."""
    from potstill.datagen.decontaminate import TestTexts
    from potstill.datagen.teachers.fake import _prose

    texts = list(dict.fromkeys(_prose(f"topic {i % 40}", random.Random(f"test {i}"), 2) for i in range(tests)))
    clean = [_prose(f"topic {i % 40}", random.Random(f"train {i}"), 2) for i in range(tests)]
    draw = random.Random(0)
    vocabulary = sorted({word for text in texts for word in text.split()})

    def changed(text: str, share: float) -> str:
        words = text.split()
        for place in draw.sample(range(len(words)), max(1, round(share * len(words)))):
            words[place] = draw.choice(vocabulary)
        return " ".join(words)

    guises: dict[str, tuple[Callable[[str], str], bool]] = {
        "exact": (lambda text: text, True),
        "other case": (lambda text: text.upper(), True),
        "other spaces": (lambda text: "  \n".join(text.split(" ")) + " ", True),
        "other punctuation and accents": (lambda text: text.replace(".", " !").replace("e", "é"), True),
        "soft hyphens and zero-width spaces": (
            lambda text: text.replace("er", "e\u00adr").replace("in", "i\u200bn"),
            True,
        ),
        "inside a longer text": (lambda text: f"As the paper wrote: {text} So much for today.", True),
        "1 word in 20 changed": (lambda text: changed(text, 0.05), False),
        "1 word in 10 changed": (lambda text: changed(text, 0.1), False),
        "1 word in 5 changed": (lambda text: changed(text, 0.2), False),
        "1 word in 3 changed": (lambda text: changed(text, 0.33), False),
        "order of the two sentences": (lambda text: " ".join(reversed(text.split(". "))), False),
    }
    index = TestTexts(texts)
    records = []
    for name, (make, sure) in guises.items():
        found = sum(index.found_in(make(text)) is not None for text in texts)
        records.append(
            {"suite": "leaks", "what": f"planted test text, {name}", "count": len(texts),
             "bad": len(texts) - found if sure else 0, "recall": round(found / len(texts), 4)}
        )  # fmt: skip
    found = sum(index.found_in(text) is not None for text in clean)
    records.append(
        {"suite": "leaks", "what": "other texts of the same vocabulary, wrongly dropped", "count": len(clean), "bad": 0,
         "share_dropped": round(found / len(clean), 4)}
    )  # fmt: skip
    return records
