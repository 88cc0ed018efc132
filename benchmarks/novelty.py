"""The novelty filter beside Self-Instruct's own loop, on the 5,000 Alpaca instructions and on larger pools.

    python benchmarks/novelty.py [--quick]

Self-Instruct's loop scores each candidate with `rouge_score` against the whole pool in a `Pool(4)` that it opens for
each candidate. Running it over 5,000 rows takes most of an hour, so it is timed on candidates spread evenly over the
pool's growth and extrapolated: the cost of a candidate is fitted as a + b·pool and summed over all rows.

The decisions are compared in three ways: with the loop on every timed candidate, with `rouge_score` on pairs made to
lie near the threshold, and with a scan of the whole pool for every row up to 5,000 and 500 of those above. The scan
takes the LCS of every pair from rapidfuzz and asks `rouge_score` about each pair that comes within 0.02 of the
threshold.

Beyond 5,000 the pool goes on in two ways. `made`: words exchanged between instructions of the same length, so that the
vocabulary stays as it is, which is the hard case, and one in ten a light edit of an earlier row. `real`: short texts of
the data pack's tasks (comments, questions, requests, news), shuffled.

The filter's times are processor time. The loop's are the processor time of all its processes by the machine's cores (at
most four): the least wall time that it can take there, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import time
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist
from results_file import print_table, write_results
from rouge_score.rouge_scorer import RougeScorer

from potstill.datagen.novelty import NoveltyFilter, rouge_tokens

DATA = Path(os.environ.get("POTSTILL_DATA") or Path(__file__).resolve().parent.parent.parent / "shared" / "data")
THRESHOLD = 0.7
REAL = ("go_emotions", "banking77", "snips", "trec", "sms_spam", "ag_news", "subj", "customer_reviews", "gsm8k")
SCORER = RougeScorer(["rougeL"], use_stemmer=False)


def instructions(path: Path) -> list[str]:
    """The 5,000 instructions, in the file's order."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["instruction"] for line in file]


def extended(texts: list[str], count: int, seed: int = 0) -> list[str]:
    """`texts`, followed by made ones until there are `count` (see the module's text)."""
    rng = random.Random(seed)
    words = [text.split() for text in texts]
    made = list(texts)
    while len(made) < count:
        first = list(rng.choice(words))
        if rng.random() < 0.1:
            first[rng.randrange(len(first))] = rng.choice(rng.choice(words))
        else:
            first = [word if rng.random() < 0.35 else rng.choice(rng.choice(words)) for word in first]
        made.append(" ".join(first))
    return made


def real_texts(count: int, seed: int = 0) -> list[str]:
    """Inputs of the packed tasks, shuffled."""
    import pyarrow.parquet as pq

    texts: list[str] = []
    for task in REAL:
        columns = json.loads((DATA / "tasks" / task / "card.json").read_text())["pack"]["input_columns"]
        for path in sorted((DATA / "tasks" / task).glob("*.parquet")):
            texts += [" ".join(map(str, row.values())) for row in pq.read_table(path, columns=columns).to_pylist()]
    random.Random(seed).shuffle(texts)
    return texts[:count]


def similarity(kept: str, candidate: str) -> float:
    """One pair as Self-Instruct scores it."""
    return float(SCORER.score(candidate, kept)["rougeL"].fmeasure)


def own_loop(pool: list[str], candidate: str) -> tuple[bool, float]:
    """Self-Instruct's step for one candidate: (novel, seconds; see the module's text)."""
    start = _processor_s()
    with Pool(4) as workers:
        scores = workers.map(partial(similarity, candidate), pool)
        workers.close()
        workers.join()  # what a worker used is counted when it has ended
    return not scores or max(scores) <= THRESHOLD, (_processor_s() - start) / min(4, os.cpu_count() or 1)


def _processor_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def filter_times(texts: list[str], marks: list[int]) -> tuple[list[bool], dict[int, tuple[float, float]]]:
    """Run the filter over all texts.

    Returns:
        Decisions; and at each mark the processor seconds so far and the ms a row over the last half of the rows, in
        which the index was built anew at least once.
    """
    novelty = NoveltyFilter(THRESHOLD, rouge_tokens)
    decisions = []
    found: dict[int, tuple[float, float]] = {}
    clock = [0.0]
    start = time.process_time()
    for text in texts:
        decisions.append(novelty.admit(text) is None)
        clock.append(time.process_time() - start)
        rows = len(decisions)
        if rows in marks:
            found[rows] = (clock[-1], 1000 * (clock[-1] - clock[rows // 2]) / (rows - rows // 2))
    return decisions, found


def scan_agrees(texts: list[str], decisions: list[bool], checked: list[int]) -> bool:
    """Whether a scan of everything kept before gives the same decision on the rows `checked` (in order)."""
    numbers: dict[str, int] = {}
    tokens = [[numbers.setdefault(word, len(numbers)) for word in rouge_tokens(text)] for text in texts]
    lengths = np.array([len(own) for own in tokens])
    kept = np.flatnonzero(decisions)
    for row in checked:
        pool = kept[kept < row]
        lcs = cdist([tokens[row]], [tokens[i] for i in pool], scorer=LCSseq.similarity, dtype=np.int32)[0]
        total = lengths[pool] + lengths[row]
        f1 = 2 * lcs / np.maximum(total, 1)
        near = pool[np.abs(f1 - THRESHOLD) < 0.02]
        novel = not (f1 > THRESHOLD + 0.01).any()
        novel = novel and all(similarity(texts[i], texts[row]) <= THRESHOLD for i in near)
        if novel != decisions[row]:
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer timed candidates and no pool above 20,000")
    quick = parser.parse_args().quick
    path = DATA / "selfinstruct" / "alpaca_5k.jsonl.gz"
    if not path.exists():
        raise SystemExit(f"no Alpaca instructions at {path}; set POTSTILL_DATA to the data pack's folder")
    marks = [5_000, 20_000] if quick else [5_000, 20_000, 50_000, 100_000]
    alpaca = instructions(path)
    base, slope, same_as_loop, timed = time_the_loop(alpaca, 4 if quick else 10)
    near = _near_pairs(alpaca, 500 if quick else 3_000)
    records = []
    for name, texts in (("made", extended(alpaca, marks[-1])), ("real", alpaca + real_texts(marks[-1] - 5_000))):
        filter_times(texts[:200], [])  # warm up
        decisions, found = filter_times(texts, marks)
        rng = random.Random(3)
        checked = [*range(5_000), *sorted(rng.sample(range(5_000, len(texts)), 500))]
        same_as_scan = scan_agrees(texts, decisions, checked)
        for rows in [mark for mark in (marks if name == "made" else marks[1:]) if mark in found]:
            total, late = found[rows]
            theirs = sum(base + slope * row for row in range(rows))
            records.append(
                {
                    "rows": rows,
                    "pool": "alpaca" if rows == 5_000 else f"alpaca and {name}",
                    "speedup": round(theirs / total, 1),
                    "identical_decisions": same_as_loop and near and same_as_scan,
                    "seconds": round(total, 3),
                    "ms_per_row": round(1000 * total / rows, 4),
                    "ms_per_row_last_half": round(late, 4),
                    "self_instruct_loop_s_extrapolated": round(theirs, 1),
                    "refused": rows - sum(decisions[:rows]),
                    "timed_candidates": timed,
                }
            )
    print_table(records)
    print(f"decisions identical: with the loop {same_as_loop}, near the threshold {near}")
    print(f"Self-Instruct's loop: {1000 * (base + slope * 5_000):.0f} ms a candidate at 5,000 rows")
    print(f"{records[0]['speedup']:,.0f} times faster on the 5,000 Alpaca instructions")
    write_results("novelty", records)


def time_the_loop(texts: list[str], sample: int) -> tuple[float, float, bool, int]:
    """Time Self-Instruct's loop at `sample` sizes of the pool.

    Returns:
        Seconds of a candidate as base + slope·pool; whether the filter decides alike; how many were timed.
    """
    rng = random.Random(1)
    agree = True
    timed: list[tuple[int, float]] = []
    for part in range(1, sample + 1):
        size = len(texts) * part // sample - 1
        novelty = NoveltyFilter(THRESHOLD, rouge_tokens, texts[:size])
        words = rng.choice(texts[:size]).split()
        # One real candidate, and one that lies near the threshold.
        edited = " ".join(word if rng.random() < 0.72 else rng.choice(rng.choice(texts).split()) for word in words)
        for candidate in (texts[size], edited):
            novel, seconds = own_loop(texts[:size], candidate)
            timed.append((size, seconds))
            agree = agree and novel == (novelty.match(candidate) is None)
    slope, base = _line(timed)
    return base, slope, agree, len(timed)


def _line(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Least squares: (slope, intercept not below 0)."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return slope, max(0.0, mean_y - slope * mean_x)


def _near_pairs(texts: list[str], count: int) -> bool:
    """Whether filter and rouge_score agree on pairs of a text and an edit of it that lie around the threshold."""
    rng = random.Random(2)
    for _ in range(count):
        words = rng.choice(texts).split()
        edit = [word if rng.random() < 0.7 else rng.choice(rng.choice(texts).split()) for word in words]
        a, b = " ".join(words), " ".join(edit)
        if (NoveltyFilter(THRESHOLD, rouge_tokens, [a]).match(b) is not None) != (similarity(a, b) > THRESHOLD):
            return False
    return True


if __name__ == "__main__":
    main()
