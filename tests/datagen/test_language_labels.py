"""Tasks whose labels are languages: each text is asked for in that of its label, and refused in another."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take
from potstill.datagen.generate import GenerationOptions, generate_rows
from potstill.datagen.writing import language_of
from potstill.language.label_words import label_words
from potstill.language.names import label_languages
from potstill.task.file import read_task

SENTENCES = {
    "English": ("The shop on the corner is", "open until nine and", "they have not got any of that."),
    "German": ("Der Laden an der Ecke ist", "bis neun offen und", "sie haben davon hier nichts mehr."),
    "French": ("Le magasin du coin est", "ouvert jusqu'à neuf heures et", "ils ne sont pas dans la rue."),
}


class Polyglot:
    """Writes in the language that it is asked for, but every other German text in English."""

    concurrency, name, identity = 1, "polyglot", {"backend": "polyglot"}
    abilities = Abilities()

    def __init__(self) -> None:
        self.random, self.german = random.Random(0), 0

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        while requests := take(1):
            for request in requests:
                assert isinstance(request, Request)
                asked = request.messages[-1].content.rpartition("Now write")[2]
                language = next(name for name in SENTENCES if f" in {name}" in asked)
                self.german += language == "German"
                said = "English" if language == "German" and self.german % 2 else language
                yield request, Reply(" ".join((*SENTENCES[said], f"{self.random.randrange(10**6)} ok.")))

    def close(self) -> None:
        pass


PROMPT = "Classify the language of the text as English, German or French."


@pytest.mark.parametrize(
    ("instruction", "names", "spoken"),
    [
        (PROMPT, ["English", "German"], {"English": "en", "German": "de"}),
        ("Which language is it?", ["en", "pt-BR", "other"], {"en": "en", "pt-BR": "pt"}),
        ("Welche Sprache ist das?", ["German", "French"], {"German": "de", "French": "fr"}),
        ("Classify the cuisine of the recipe.", ["French", "Italian"], {}),
        ("Name the programming language.", ["go", "sql"], {}),
        ("Which language is it?", ["English", "rude"], {}),
        ("Which language is it?", ["English", "other"], {}),
    ],
)
def test_labels_that_are_languages(instruction: str, names: list[str], spoken: dict[str, str]) -> None:
    assert label_languages(instruction, names) == spoken


def test_the_task_is_in_the_languages_of_its_labels() -> None:
    task = read_task(PROMPT)
    assert task.languages == ("en", "de", "fr")
    assert {language_of(task, index, "German", 0) for index in range(6)} == {"German"}
    codes = read_task("Detect the language of a tweet: en, de or es.")
    assert label_words(codes) == {"en": "English", "de": "German", "es": "Spanish"}
    assert language_of(codes, 0, "es", 0) == "Spanish"


def test_a_text_in_another_language_than_its_label_is_refused(tmp_path: Path) -> None:
    task = read_task(PROMPT)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        found = generate_rows(
            task, Asker(Polyglot(), ledger), GenerationOptions(rows=9, novelty=1.0, attributes="none")
        )
        rows, refused = found.rows, found.dropped
    kept = Counter(rows["output"][:])
    assert kept["German"] == kept["French"] == 3
    dropped = [item for item in refused if item.reason == "wrong_language"]
    assert dropped
    assert {item.output for item in dropped} == {"German"}
    assert all("hier" in text or "nicht" in text for text, label in
               zip(rows["input"], rows["output"], strict=True) if label == "German")  # fmt: skip
