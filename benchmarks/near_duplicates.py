"""What the merge's near-duplicate filter costs rows of people: how many go at each threshold, and what a student loses.

    python benchmarks/near_duplicates.py [--tasks trec,banking77,snips] [--rows 4000]

The rows are a task's own training split, as retrieval would bring it. Each arm drops rows whose ROUGE-L F1 with a kept
row of the same label is above its threshold, as `merge` does; the student is a logistic head on frozen MiniLM features,
and its accuracy on the task's test split is the mean over ten samples of 80 % of the rows that the arm keeps.

near_duplicate_rate   kept rows above 0.7 with an earlier kept one of any label, which is what the promise of at most
                      1 % is about
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow.parquet as pq
from generation_quality import near_duplicates
from results_file import merge_results, print_table
from row_checks import embed
from tasks import DATA

ARMS = (1.0, 0.8, 0.7)
SAMPLES = 10


def main() -> None:
    """Measure the tasks asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="trec,banking77,snips")
    parser.add_argument("--rows", type=int, default=4000, help="training rows, drawn at random")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    records = []
    for task in args.tasks.split(","):
        records += measure(task, args.rows)
        if not args.no_write:
            merge_results("near_duplicates", records, ("task", "threshold"))
    print_table(records)


def measure(task: str, rows: int) -> list[dict[str, object]]:
    """All arms on one task."""
    from sklearn.linear_model import LogisticRegression

    from potstill.datagen.novelty import NoveltyFilter

    texts, labels = read(task, "train", rows)
    test, gold = read(task, "test", 1000)
    features, test_features = embed(texts), embed(test)
    records: list[dict[str, object]] = []
    for threshold in ARMS:
        pools: dict[str, NoveltyFilter] = {}
        kept = []
        for place, (text, label) in enumerate(zip(texts, labels, strict=True)):
            pool = pools.setdefault(label, NoveltyFilter(threshold))
            # At 1 nothing is above the threshold, and only exact copies go.
            if threshold == 1 or pool.admit(text) is None:
                kept.append(place)
        found = []
        for sample in range(SAMPLES):
            own = np.random.default_rng(sample).choice(kept, round(0.8 * len(kept)), replace=False)
            head = LogisticRegression(C=10, max_iter=500).fit(features[own], [labels[i] for i in own])
            found.append(float(np.mean(head.predict(test_features) == np.array(gold))))
        records.append(
            {
                "task": task,
                "threshold": threshold,
                "rows": len(texts),
                "kept": len(kept),
                "lost": round(1 - len(kept) / len(texts), 4),
                "near_duplicate_rate": round(near_duplicates([texts[i] for i in kept]), 4),
                "accuracy": round(float(np.mean(found)), 4),
                "sd": round(float(np.std(found)), 4),
            }
        )
        print(records[-1], flush=True)
    return records


def read(task: str, split: str, rows: int) -> tuple[list[str], list[str]]:
    """Different texts of a split with their labels, shuffled."""
    table = pq.read_table(DATA / "tasks" / task / f"{split}.parquet", columns=["text", "label_text"]).to_pydict()
    pairs = list(dict.fromkeys(zip(table["text"], table["label_text"], strict=True)))
    order = np.random.default_rng(0).permutation(len(pairs))[:rows]
    return [pairs[i][0] for i in order], [pairs[i][1] for i in order]


if __name__ == "__main__":
    main()
