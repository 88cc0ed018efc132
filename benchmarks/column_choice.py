"""Which columns are the input and the output? The product's choice against the authors' own words.

    python benchmarks/column_choice.py [--data ../shared/data] [--print]

Gold is twofold. The cards' `train_eval_index` (a column mapping that dataset authors gave to the Hub) is judged on
the declared features, for the rows are not at hand; the task is known by its kind and the dataset's title only, and
the index itself is hidden from the choice. The packed tasks are judged on real rows, with the task's own prompt as
a user would write it. An output column counts as right when it gives the same text as the gold column on every row
(`label` and `label_text`). Speech datasets are no text: the right choice there is to refuse, and they stand apart.

The choice never reads the gold, but its lists of names were made with this gold in sight, and the tagging datasets are
asked for by the very words that the rules know. So the figure says that the rules cover these datasets; how they do
on others has not been measured.

Writes benchmarks/results/column_choice.json: dataset, accuracy (share of its configurations), gold (card | task),
kind (single | several | not text), and a summary row for each kind.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from results_file import print_table, read_results, write_results

from potstill.retrieval.cards import Card, card_from_mapping
from potstill.retrieval.columns import choose_among, choose_columns, declared_columns
from potstill.retrieval.load import open_table
from potstill.retrieval.profiles import profile_features
from potstill.retrieval.row_texts import text_items
from potstill.task import TaskSpec
from potstill.task.file import read_task_file

DEFAULT_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
_TASKS = {
    "text-classification": ("classification", "Classify the text."),
    "summarization": ("generation", "Summarise the text."),
    "question-answering": ("generation", "Answer the question from its context."),
    "token-classification": ("generation", "Tag each token of the sentence: token-classification, entity extraction."),
    "automatic-speech-recognition": ("generation", "Write down what is said."),
}


def gold_of_cards(folder: Path) -> Iterator[tuple[Card, Mapping[str, Any]]]:
    """Cards with features, each with one entry of its index."""
    for name in ("catalogue.jsonl.gz", "hub_2023.jsonl.gz"):
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            for line in file:
                card = card_from_mapping(json.loads(line))
                if card is None:
                    continue
                for entry in card.train_eval_index:
                    if entry.get("config") in card.configs and entry.get("task") in _TASKS:
                        yield card, entry


def judge_cards(folder: Path) -> list[dict[str, Any]]:
    """One record a dataset, its configurations averaged."""
    marks: dict[tuple[str, str], list[tuple[bool, str]]] = {}
    for card, entry in gold_of_cards(folder):
        kind, words = _TASKS[entry["task"]]
        spec = TaskSpec(name="t", instruction=f"{words} {card.title}", kind=kind)  # type: ignore[arg-type]
        choice = choose_among(profile_features(card.configs[entry["config"]].features), spec, title=card.title)
        read = declared_columns(entry)
        if entry["task"] == "automatic-speech-recognition" or read is None:
            marks.setdefault((card.id, "not text"), []).append((choice.output is None, str(choice)))
            continue
        inputs, output = read
        if not {*inputs, output} <= set(card.configs[entry["config"]].features):
            continue  # the mapping names a column that the dataset does not have
        right = set(choice.inputs) == set(inputs) and choice.output == output
        several = "several" if len(inputs) > 1 else "single"
        shown = "" if right else f"{'+'.join(choice.inputs)} -> {choice.output}"
        marks.setdefault((card.id, several), []).append((right, shown))
    return [_record(dataset, "card", kind, found) for (dataset, kind), found in marks.items()]


def judge_tasks(folder: Path) -> list[dict[str, Any]]:
    """One record a packed task, on its training rows."""
    records = []
    for path in sorted(folder.glob("*/card.json")):
        pack = json.loads(path.read_text("utf-8"))["pack"]
        table = open_table(str(path.parent), split="train", limit=1000)
        spec = _spec(pack)
        choice = choose_columns(table, spec)
        gold = tuple(pack["input_columns"])
        right = set(choice.inputs) == set(gold) and choice.output is not None
        if right and choice.output != pack["output_column"]:
            mine = [answer for _, answer in text_items(table, gold, choice.output)]
            right = mine == [answer for _, answer in text_items(table, gold, pack["output_column"])]
        shown = "" if right else f"{'+'.join(choice.inputs)} -> {choice.output}"
        records.append(
            _record(f"pack/{path.parent.name}", "task", "several" if len(gold) > 1 else "single", [(right, shown)])
        )
    return records


def _spec(pack: Mapping[str, Any]) -> TaskSpec:
    """The task as its prompt alone says it."""
    try:
        return read_task_file(pack["task_prompt"], draft=True).spec
    except Exception:  # a prompt that needs more than rules: the kind is all that the choice needs
        kind = "classification" if pack["metric"].startswith(("accuracy", "macro")) else "generation"
        return TaskSpec(name="t", instruction=pack["task_prompt"], kind=kind)


def _record(dataset: str, gold: str, kind: str, marks: list[tuple[bool, str]]) -> dict[str, Any]:
    wrong = next((shown for right, shown in marks if not right), "")
    return {
        "dataset": dataset,
        "accuracy": sum(right for right, _ in marks) / len(marks),
        "gold": gold,
        "kind": kind,
        "configurations": len(marks),
        "chosen_instead": wrong[:120],
    }


def summaries(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over datasets, for each kind."""
    found = []
    for kind in ("single", "several", "not text"):
        accuracies = [record["accuracy"] for record in records if record["kind"] == kind]
        if accuracies:
            mean = sum(accuracies) / len(accuracies)
            found.append(
                {"dataset": f"all: {kind}", "accuracy": mean, "gold": "both", "kind": kind,
                 "configurations": sum(r["configurations"] for r in records if r["kind"] == kind),
                 "chosen_instead": f"{len(accuracies)} datasets"}
            )  # fmt: skip
    return found


def main() -> None:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POTSTILL_DATA") or DEFAULT_DATA))
    parser.add_argument("--print", action="store_true", dest="show")
    given = parser.parse_args()
    if given.show:
        print_table(read_results("column_choice"))
        return
    from datasets import disable_progress_bars

    disable_progress_bars()
    records = judge_cards(given.data / "catalogue") + judge_tasks(given.data / "tasks")
    records += summaries(records)
    print_table(records)
    write_results("column_choice", records)


if __name__ == "__main__":
    main()
