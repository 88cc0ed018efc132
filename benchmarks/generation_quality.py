"""How varied, balanced and cheap the written rows are: near-duplicates, labels filled, distinct-2, rows per token.

    python benchmarks/generation_quality.py [--tasks trec,ag_news] [--rows 300] [--teacher transformers]
        [--systems potstill,novelty_off,attributes,builtin,plain]

Each task is given as a user would give it: its prompt and label names, no example and no retrieved row, so that every
row is the teacher's. Figures are over the kept rows, before any merge:

near_duplicate_rate   rows whose ROUGE-L F1 with an earlier row is above 0.7, counted here once more by rapidfuzz over
                      all pairs and not by the filter that made them
label_fill            rows kept by rows asked for, label by label; 1 when every label has its quota
smallest_label        rows of the label with the fewest
distinct_2            distinct word pairs by all word pairs
self_bleu             mean BLEU-4 of a row against 200 others, 0 to 1
embedding_spread      mean cosine distance of two rows under MiniLM, drawn at random
yield_per_1k_tokens   rows kept for 1,000 prompt and completion tokens

Each system is the same teacher. `potstill` has the defaults of `GenerationOptions`; the next three change one thing
each: `novelty_off` compares with no kept text, `attributes` draws from what the teacher proposes (topics, styles,
lengths, difficulties, registers), `builtin` from the built-in lists (which of these the default is depends on the
teacher). `plain` is without all that potstill adds: one prompt a label, no filter, no quota, no refill; it stops after
as many requests as rows were asked for.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results_file import merge_results, print_table, read_results
from tasks import CLASSIFICATION, DATA, ROOT, write_task

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.task import TaskSpec

TASKS = ("trec", "ag_news", "sms_spam", "banking77", "scitldr")
SYSTEMS: dict[str, dict[str, Any]] = {
    "potstill": {},
    "novelty_off": {"novelty": 1.0},
    "attributes": {"attributes": "teacher"},
    "builtin": {"attributes": "builtin"},
    "plain": {},
}
SMALLER = {"scitldr": 100, "banking77": 385}


def main() -> None:
    """Measure the tasks asked for, keep the records of the others, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--rows", type=int, default=0, help="rows for each task (300; 385 for banking77)")
    parser.add_argument("--systems", default="potstill,plain", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--teacher", default="transformers")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-generation-quality")
    parser.add_argument("--print", action="store_true", dest="show", help="print the last results")
    args = parser.parse_args()
    if not args.show:
        for task in args.tasks.split(","):
            for system in args.systems.split(","):
                if system == "plain" and task not in CLASSIFICATION:
                    continue
                record = measure(task, system, args.rows or SMALLER.get(task, 300), args.teacher, args.out)
                print(record, flush=True)
                merge_results("generation_quality", [record], ("task", "system", "asked"))
    print_table(read_results("generation_quality"))


def measure(task: str, system: str, rows: int, teacher_name: str, out: Path) -> dict[str, Any]:
    """One system on one task. Replies are kept in a ledger: a second call asks nothing again."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.generate import generate_rows
    from potstill.datagen.options import GenerationOptions
    from potstill.datagen.teachers import open_teacher
    from potstill.task.file import read_task_file

    if not (DATA / "tasks").is_dir():
        raise SystemExit(f"no data pack at {DATA}; set POTSTILL_DATA to its folder")
    spec = read_task_file(str(write_task(task, out))).spec
    teacher = open_teacher(teacher_name)
    name = {"task": task, "system": system, "asked": rows}
    try:
        with Ledger(out / f"{task}.sqlite") as ledger:
            asker = Asker(teacher, ledger)
            if system == "plain":
                return {**name, **plain(spec, asker, rows)}
            result = generate_rows(spec, asker, GenerationOptions(rows=rows, **SYSTEMS[system]))
            return {
                **name,
                **figures(list(result.rows["input"]), list(result.rows["output"]), spec, rows),
                "yield_per_1k_tokens": result.report["yield_per_1k_tokens"],
                "requests": result.report["requests"],
                "proposed": " ".join(n for n, v in result.report["attributes"].items() if v["from"] == "teacher"),
            }
    finally:
        teacher.close()


def plain(spec: TaskSpec, asker: Asker, rows: int) -> dict[str, Any]:
    """The teacher asked for a text of each label in turn, its replies taken as they are."""
    from potstill.asking.teacher import Message, Reply, Request
    from potstill.datagen.parse import clean_text
    from potstill.datagen.wording import input_noun, readable, with_article

    names = spec.label_names
    noun = with_article(input_noun(spec))
    requests = [
        Request(
            messages=(
                Message(
                    "user",
                    f"{spec.instruction}\n\nWrite {noun} for which the right answer is "
                    f'"{readable(names[i % len(names)])}". Answer with the text alone.',
                ),
            ),
            max_tokens=96,
            temperature=1.0,
            top_p=0.95,
            seed=i,
        )
        for i in range(rows)
    ]
    texts, outputs, tokens = [], [], 0
    for i, answer in enumerate(asker.ask(requests, "plain")):
        if isinstance(answer.reply, Reply):
            tokens += answer.reply.prompt_tokens + answer.reply.completion_tokens
            text = clean_text(answer.reply.text)
            if text:
                texts.append(text)
                outputs.append(names[i % len(names)])
    return {
        **figures(texts, outputs, spec, rows),
        "yield_per_1k_tokens": round(1000 * len(texts) / max(1, tokens), 4),
        "requests": rows,
    }


def figures(texts: list[str], outputs: list[str], spec: TaskSpec, rows: int) -> dict[str, Any]:
    """Variety and balance of texts; `rows` is how many were asked for."""
    import numpy as np

    from potstill.datagen.filters import words
    from potstill.datagen.tally import diversity
    from potstill.models import sentence_encoder

    counts = {name: outputs.count(name) for name in spec.label_names}
    quota = {name: rows // len(counts) + (i < rows % len(counts)) for i, name in enumerate(counts)}
    pairs = [pair for text in texts for pair in pairwise(words(text))]
    vectors = np.asarray(sentence_encoder("sentence-transformers/all-MiniLM-L6-v2").encode(texts, batch_size=64))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = vectors.sum(axis=0)
    # The mean over all ordered pairs of different rows, from the norm of the sum.
    cosine = (float(mean @ mean) - len(texts)) / max(1, len(texts) * (len(texts) - 1))
    return {
        "rows": len(texts),
        "near_duplicate_rate": round(near_duplicates(texts), 4),
        "label_fill": round(sum(min(counts[n], quota[n]) for n in counts) / rows, 4)
        if counts
        else round(len(texts) / rows, 4),
        "smallest_label": min(counts.values()) if counts else None,
        "distinct_2": round(len(set(pairs)) / max(1, len(pairs)), 4),
        "self_bleu": diversity(texts)["self_bleu"],
        "embedding_spread": round(1 - cosine, 4),
    }


def near_duplicates(texts: list[str]) -> float:
    """Share of texts with a ROUGE-L F1 above 0.7 to an earlier one, from all pairs."""
    import numpy as np
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    from potstill.datagen.novelty import any_script_tokens

    tokens = [any_script_tokens(text) for text in texts]
    alike = cdist(tokens, tokens, scorer=Indel.normalized_similarity, dtype=np.float32) > 0.7
    return float(np.tril(alike, -1).any(axis=1).mean()) if texts else 0.0


if __name__ == "__main__":
    main()
