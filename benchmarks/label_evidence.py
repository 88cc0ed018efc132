"""Who knows a text's label better without having seen one: the teacher's calibrated answer, or the encoder?

    python benchmarks/label_evidence.py [--tasks trec,sms_spam,subj,customer_reviews] [--rows 150]

Training texts of real tasks, whose labels are looked at for the score alone. The teacher's scores are calibrated over
the texts (batch calibration), the encoder's are nearness to the label names with the same correction
(`potstill.datagen.evidence`); `product` multiplies both probabilities. In a run their powers are fitted to the labels
that texts were written for.

Writes benchmarks/results/label_evidence.json: task, rows, labels, teacher, encoder, product (accuracies), majority.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from results_file import print_table, write_results
from tasks import DATA


def main() -> None:
    """Score every task, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="trec,sms_spam,subj,customer_reviews")
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--teacher", default="transformers")
    args = parser.parse_args()
    records = [measure(task, args.rows, args.teacher) for task in args.tasks.split(",")]
    write_results("label_evidence", records)
    print_table(records)


def measure(task: str, rows: int, teacher: str) -> dict[str, Any]:
    """Accuracies on a fixed draw of a task's training texts."""
    import numpy as np
    import pyarrow.parquet as pq

    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.calibration import fit_calibration
    from potstill.datagen.evidence import encoder_logits
    from potstill.datagen.label_scores import label_scores
    from potstill.datagen.teachers import open_teacher
    from potstill.models import sentence_encoder
    from potstill.task import Label, TaskSpec

    pack = json.loads((DATA / "tasks" / task / "card.json").read_text())["pack"]
    table = pq.read_table(DATA / "tasks" / task / "train.parquet").to_pylist()
    drawn = [table[i] for i in np.random.default_rng(0).permutation(len(table))[:rows]]
    texts = ["\n".join(str(row[name]) for name in pack["input_columns"])[:1000] for row in drawn]
    names = sorted({str(row[pack["output_column"]]) for row in table})
    gold = np.array([names.index(str(row[pack["output_column"]])) for row in drawn])
    spec = TaskSpec(task, pack["task_prompt"], "classification", tuple(Label(name) for name in names))
    opened = open_teacher(teacher)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        scores = label_scores(spec, texts, Asker(opened, ledger))
    opened.close()
    told = np.log(np.maximum(fit_calibration(scores, rule="batch").apply(scores), 1e-12))
    near = encoder_logits(spec, texts, sentence_encoder())
    accuracy = {
        name: round(float((values.argmax(1) == gold).mean()), 4)
        for name, values in (("teacher", told), ("encoder", near), ("product", told + near))
    }
    majority = round(float(np.bincount(gold).max() / len(gold)), 4)
    return {"task": task, "rows": len(texts), "labels": len(names), **accuracy, "majority": majority}


if __name__ == "__main__":
    main()
