"""Foreign labels onto a task's: how often right, how often wrong, how often left out.

    python benchmarks/label_map.py [--data ../shared/data] [--print]

Each case is a label set of a real dataset and a task with labels of its own. The foreign sets are read from the
catalogue's cards (names alone) or from the packed and shipped datasets (names with real texts); the right mapping
was written by hand for this file, but for go_emotions, whose 28 fine emotions carry their Ekman group in the data.
A label may have no counterpart (`-`), or several (`a|b`, which names no label for a row). Wrong labels are counted
apart from missing ones, because they hurt more.

Cases are split into `dev` and `test` by a hash of their name. Both were looked at while the rules were made: the floor
of a match by meaning was set with the similarities of both in sight, and one rule was narrowed for an error in
`test`. So neither part is a held-out measure. `unrelated` pairs every packed task with every other one that asks for
something else: whatever is mapped there is wrong.

Writes benchmarks/results/label_map.json: case, part, labels, right, wrong, missed (counts), and a row for each part.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from results_file import print_table, read_results, write_results

from potstill.models import sentence_encoder
from potstill.retrieval.catalogue import shipped_catalogue
from potstill.retrieval.labels import map_labels
from potstill.retrieval.load import open_table
from potstill.retrieval.row_texts import text_items
from potstill.task import Label, TaskSpec

DEFAULT_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
_POLAR = "positive negative"
_NLI = "entailment neutral contradiction"
_NEWS = "World Sports Business Sci/Tech"
_EKMAN = "anger disgust fear joy sadness surprise neutral"
# (catalogue id, configuration or "", column, the task's labels, foreign=task …)
CASES: list[tuple[str, str, str, str, str]] = [
    ("allocine", "", "label", _POLAR, "neg=negative pos=positive"),
    ("movie_rationales", "", "label", _POLAR, "NEG=negative POS=positive"),
    ("dutch_social", "", "label", _POLAR, "neg=negative neu=- pos=positive"),
    ("dutch_social", "", "label", "positive neutral negative", "neg=negative neu=neutral pos=positive"),
    ("roman_urdu", "", "sentiment", _POLAR, "Positive=positive Negative=negative Neutral=-"),
    ("wisesight_sentiment", "", "category", _POLAR, "pos=positive neu=- neg=negative q=-"),
    ("urdu_sentiment_corpus", "", "sentiment", _POLAR, "P=positive N=negative O=-"),
    ("poem_sentiment", "", "label", _POLAR, "negative=negative positive=positive no_impact=-"),
    ("tamilmixsentiment", "", "label", _POLAR,
     "Positive=positive Negative=negative Mixed_feelings=- unknown_state=- not-Tamil=-"),
    ("yelp_review_full", "", "label", _POLAR,
     "1_star=negative 2_star=negative 3_stars=- 4_stars=positive 5_stars=positive"),
    ("hebrew_sentiment", "token", "label", "good bad", "pos=good neg=bad off-topic=-"),
    ("financial_phrasebank", "", "label", "bullish bearish neutral",
     "negative=bearish neutral=neutral positive=bullish"),
    ("snli", "", "label", "entails neutral contradicts",
     "entailment=entails neutral=neutral contradiction=contradicts"),
    ("hans", "", "label", _NLI, "entailment=entailment non-entailment=neutral|contradiction"),
    ("hda_nli_hindi", "", "label", _NLI, "not-entailment=neutral|contradiction entailment=entailment"),
    ("climate_fever", "", "claim_label", "supported refuted unclear",
     "SUPPORTS=supported REFUTES=refuted NOT_ENOUGH_INFO=unclear DISPUTED=-"),
    ("tab_fact", "", "label", "supported refuted", "refuted=refuted entailed=supported"),
    ("telugu_news", "", "topic", _NEWS, "business=Business editorial=- entertainment=- nation=- sports=Sports"),
    ("sogou_news", "", "label", _NEWS,
     "sports=Sports finance=Business entertainment=- automobile=- technology=Sci/Tech"),
    ("id_panl_bppt", "", "topic", _NEWS, "Economy=Business International=World Science=Sci/Tech Sport=Sports"),
    ("moroco", "", "category", _NEWS,
     "culture=- finance=Business politics=- science=Sci/Tech sports=Sports tech=Sci/Tech"),
    ("kannada_news", "", "label", _NEWS, "sports=Sports tech=Sci/Tech entertainment=-"),
    ("myanmar_news", "", "category", _NEWS, "Sport=Sports Politic=- Business=Business Entertainment=-"),
    ("emotion", "", "label", _EKMAN, "sadness=sadness joy=joy love=- anger=anger fear=fear surprise=surprise"),
    ("emo", "", "label", _EKMAN, "others=- happy=joy sad=sadness angry=anger"),
    ("indonlu", "emot", "label", _EKMAN, "sadness=sadness anger=anger love=- fear=fear happy=joy"),
    ("silicone", "dyda_e", "Label", _EKMAN,
     "anger=anger disgust=disgust fear=fear happiness=joy no_emotion=neutral sadness=sadness surprise=surprise"),
    ("tweet_eval", "emotion", "label", "happy sad angry afraid", "anger=angry joy=happy optimism=- sadness=sad"),
    ("tweet_eval", "hate", "label", "hateful normal", "non-hate=normal hate=hateful"),
    ("tweets_hate_speech_detection", "", "label", "hateful harmless", "no-hate-speech=harmless hate-speech=hateful"),
    ("ethos", "binary", "label", "hateful harmless", "no_hate_speech=harmless hate_speech=hateful"),
    ("told-br", "binary", "label", "toxic clean", "not-toxic=clean toxic=toxic"),
    ("offenseval2020_tr", "", "subtask_a", "offensive inoffensive", "NOT=inoffensive OFF=offensive"),
    ("hate_offensive", "", "label", "hate_speech offensive_language neither",
     "hate-speech=hate_speech offensive-language=offensive_language neither=neither"),
    ("hate_speech_portuguese", "", "label", "spam ham", "no-hate=- hate=-"),
    ("id_clickbait", "", "label", "clickbait news", "non-clickbait=news clickbait=clickbait"),
    ("urdu_fake_news", "", "label", "fake genuine", "Fake=fake Real=genuine"),
    ("clickbait_news_bg", "", "fake_news_score", "fake genuine", "legitimate=genuine fake=fake"),
    ("glue", "mrpc", "label", "paraphrase different", "not_equivalent=different equivalent=paraphrase"),
    ("adv_glue", "adv_qqp", "label", "duplicate distinct", "not_duplicate=distinct duplicate=duplicate"),
    ("glue", "cola", "label", "grammatical ungrammatical", "unacceptable=ungrammatical acceptable=grammatical"),
    ("kor_sarcasm", "", "label", "sarcastic sincere", "no_sarcasm=sincere sarcasm=sarcastic"),
    ("trec", "", "coarse_label", "abbreviation entity description human location number",
     "ABBR=abbreviation ENTY=entity DESC=description HUM=human LOC=location NUM=number"),
    ("boolq_", "", "", "yes no", "True=yes False=no"),
    ("scicite", "", "label", _POLAR, "method=- background=- result=-"),
    ("catalonia_independence", "catalan", "LABEL", "for against neither", "AGAINST=against FAVOR=for NEUTRAL=neither"),
    ("circa", "", "goldstandard2", "yes no unclear",
     "Yes=yes No=no In_the_middle,_neither_yes_nor_no=unclear Yes,_subject_to_some_conditions=- Other=-"),
    ("blbooksgenre", "title_genre_classifiction", "label", "fiction nonfiction",
     "Fiction=fiction Non-fiction=nonfiction"),
]  # fmt: skip


KINDS = "place=location description=description object=entity human=human number=number time=number"
TREC = "ABBR=- ENTY=object DESC=description HUM=person LOC=place NUM=number"
HATE = "hate_speech=toxic offensive_language=toxic neither=harmless"
# (shipped dataset or packed task, text column, label column, the task's labels, foreign=task …)
ROW_CASES = [
    ("app-reviews", "review", "stars", _POLAR, "1=negative 2=negative 3=- 4=positive 5=positive"),
    ("short-message-spam", "sms", "is_spam", "spam ham", "0=ham 1=spam"),
    ("question-kinds", "text", "kind", "abbreviation entity description human location number", KINDS),
    ("trec", "text", "label", "place person number description object", TREC),
    ("customer_reviews", "text", "label_text", "good bad", "negative=bad positive=good"),
    ("hate_speech_offensive", "text", "label_text", "toxic harmless", HATE),
    ("sms_spam", "text", "label_text", "unwanted wanted", "ham=wanted spam=unwanted"),
    ("subj", "text", "label_text", "opinion fact", "objective=fact subjective=opinion"),
]


class Remembering:
    """The real encoder, asked once for each text: every packed dataset is compared with every other."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def encode(self, texts: list[str]) -> Any:
        """One unit-length row a text."""
        import numpy as np

        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, sentence_encoder().encode(new)))
        return np.stack([self.known[text] for text in texts])


ENCODER = Remembering()


def part_of(name: str) -> str:
    """`dev` or `test`, by a hash of the case's name."""
    return "dev" if hashlib.sha256(name.encode()).digest()[0] % 2 else "test"


def spec_of(labels: list[str]) -> TaskSpec:
    """A task with these labels, as a prompt that only names them."""
    return TaskSpec("t", "Classify the text.", "classification", labels=tuple(Label(name) for name in labels))


def judge(
    name: str, part: str, labels: list[str], foreign: Mapping[str, list[str]], gold: Mapping[str, str], column: str = ""
) -> dict[str, Any]:
    """Counts of one case."""
    found = map_labels(foreign, spec_of(labels), ENCODER, column=column)
    right = wrong = missed = 0
    faults = []
    for label, wanted in gold.items():
        got = found.target.get(label)
        if got == (None if wanted in ("-", "") or "|" in wanted else wanted):
            right += 1
        elif got is None:
            missed += 1
            faults.append(f"{label}->none")
        else:
            wrong += 1
            faults.append(f"{label}->{got}")
    return {"case": name, "part": part, "labels": len(gold), "right": right, "wrong": wrong, "missed": missed,
            "faults": ", ".join(faults)[:200]}  # fmt: skip


def card_cases() -> list[dict[str, Any]]:
    """Cases on names alone."""
    records = []
    for dataset, config, column, labels, given in CASES:
        gold = {
            key.replace("_", " ") if dataset in ("yelp_review_full", "circa", "silicone") else key: value
            for key, value in (pair.rsplit("=", 1) for pair in given.split())
        }
        name = f"{dataset}/{config} → {labels}"
        records.append(judge(name, part_of(name), labels.split(), {key: [] for key in gold}, gold, column))
    return records


def check_cases(data: Path) -> None:
    """Every foreign set stands in the catalogue as this file says."""
    with gzip.open(data / "catalogue" / "catalogue.jsonl.gz", "rt", encoding="utf-8") as file:
        cards = {row["id"]: row for row in map(json.loads, file)}
    for dataset, config, column, _, given in CASES:
        if dataset not in cards:
            continue
        configs = cards[dataset]["configs"]
        features = configs[config or next(iter(configs))]["features"]
        names = features.get(column, {}).get("class_label") if isinstance(features.get(column), dict) else None
        mine = {pair.rsplit("=", 1)[0].replace("_", " ") for pair in given.split()}
        if names is not None and {str(n).replace("_", " ") for n in names} != mine:
            raise SystemExit(f"{dataset}: the catalogue has {names}, this file {sorted(mine)}")


def _texts(path: str, column: str, inputs: list[str], limit: int = 3000) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text, answer in text_items(open_table(path, split="train", limit=limit), inputs, column):
        found.setdefault(answer, []).append(text)
    return found


def row_cases(data: Path) -> list[dict[str, Any]]:
    """Cases with real texts."""
    records = []
    tasks, shipped = data / "tasks", shipped_catalogue()
    emotions: dict[str, dict[str, int]] = {}
    table = open_table(str(tasks / "go_emotions"), split="train")
    texts: dict[str, list[str]] = {}
    for text, fine, coarse in zip(table["text"], table["label_text"], table["ekman_text"]):
        if "," not in fine and "," not in coarse:
            emotions.setdefault(fine, {}).setdefault(coarse, 0)
            emotions[fine][coarse] += 1
            texts.setdefault(fine, []).append(text)
    gold = {fine: max(groups, key=groups.__getitem__) for fine, groups in emotions.items()}
    records.append(judge("go_emotions → ekman", "rows", _EKMAN.split(), texts, gold))
    for name, inputs, column, labels, gold_text in ROW_CASES:
        path = shipped / name if (shipped / name).is_dir() else tasks / name
        found = _texts(str(path), column, [inputs])
        pairs = (pair.rsplit("=", 1) for pair in gold_text.split())
        given = {key if key in found else key.replace("_", " "): value for key, value in pairs}
        records.append(
            judge(f"{name} → {labels}", "rows", labels.split(), {key: found[key] for key in given}, given, column)
        )
    return records


def unrelated(data: Path) -> list[dict[str, Any]]:
    """Every packed classification task against every other: nothing may be mapped but what both mean."""
    records = []
    shared = {("hate_speech_offensive", "sick"), ("sick", "hate_speech_offensive")}
    sets = {}
    for path in sorted((data / "tasks").glob("*/card.json")):
        pack = json.loads(path.read_text("utf-8"))["pack"]
        if pack["output_column"] in ("label_text", "ekman_text"):
            sets[path.parent.name] = _texts(str(path.parent), pack["output_column"], pack["input_columns"], 2000)
    for mine, own in sets.items():
        labels = sorted(name for name in own if "," not in name)
        for other, foreign in sets.items():
            if other == mine or (mine, other) in shared:
                continue
            same = {name for name in foreign if name in labels}
            gold = {name: "-" for name in foreign if name not in same and "," not in name}
            records.append(judge(f"{other} → {mine}", "unrelated", labels, {n: foreign[n] for n in gold}, gold))
    return records


def main() -> None:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POTSTILL_DATA") or DEFAULT_DATA))
    parser.add_argument("--print", action="store_true", dest="show")
    given = parser.parse_args()
    if given.show:
        print_table(read_results("label_map"))
        return
    from datasets import disable_progress_bars

    disable_progress_bars()
    check_cases(given.data)
    records = card_cases() + row_cases(given.data) + unrelated(given.data)
    for part in ("dev", "test", "rows", "unrelated"):
        mine = [record for record in records if record["part"] == part]
        sums = {key: sum(record[key] for record in mine) for key in ("labels", "right", "wrong", "missed")}
        records.append({"case": f"all: {part}", "part": part, **sums, "accuracy": sums["right"] / sums["labels"]})
    quiet = [r for r in records if r["part"] != "unrelated" or r["wrong"] or "accuracy" in r]
    print_table(quiet)
    write_results("label_map", records)


if __name__ == "__main__":
    main()
