"""The novelty filter beside Self-Instruct's own loop, on the 5,000 Alpaca instructions and on larger pools.

    python benchmarks/novelty.py [--quick]

Self-Instruct's loop scores each candidate with `rouge_score` against the whole pool in a `Pool(4)` that it opens for
each candidate. Running it over 5,000 rows takes most of an hour, so it is timed on candidates spread evenly over the
pool's growth and extrapolated: the cost of a candidate is fitted as a + b·pool and summed over all rows. The decisions
of both are compared on every timed candidate, and on pairs made to lie near the threshold.

Beyond 5,000 the pool goes on with instructions made from real ones: words exchanged between instructions of the same
length, so that lengths and word frequencies stay as they are, and one in ten a light edit of an earlier row.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import time
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from results_file import write_results
from rouge_score.rouge_scorer import RougeScorer

from potstill.datagen.novelty import NoveltyFilter, rouge_tokens

DATA = Path(os.environ.get("POTSTILL_DATA") or Path(__file__).resolve().parent.parent.parent / "shared" / "data")
THRESHOLD = 0.7
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


def similarity(kept: str, candidate: str) -> float:
    """One pair as Self-Instruct scores it."""
    return float(SCORER.score(candidate, kept)["rougeL"].fmeasure)


def own_loop(pool: list[str], candidate: str) -> tuple[bool, float]:
    """Self-Instruct's step for one candidate: (novel, seconds)."""
    start = time.perf_counter()
    with Pool(4) as workers:
        scores = workers.map(partial(similarity, candidate), pool)
    return not scores or max(scores) <= THRESHOLD, time.perf_counter() - start


def filter_times(texts: list[str], marks: list[int]) -> tuple[list[bool], dict[int, tuple[float, float]]]:
    """Run the filter over all texts: decisions, and at each mark (seconds so far, ms a row over the last tenth)."""
    novelty = NoveltyFilter(THRESHOLD, rouge_tokens)
    decisions = []
    found: dict[int, tuple[float, float]] = {}
    clock = [0.0]
    start = time.perf_counter()
    for text in texts:
        decisions.append(novelty.admit(text) is None)
        clock.append(time.perf_counter() - start)
        rows = len(decisions)
        if rows in marks:
            tenth = rows // 10
            found[rows] = (clock[-1], 1000 * (clock[-1] - clock[rows - tenth]) / tenth)
    return decisions, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer timed candidates and no pool above 20,000")
    quick = parser.parse_args().quick
    path = DATA / "selfinstruct" / "alpaca_5k.jsonl.gz"
    if not path.exists():
        raise SystemExit(f"no Alpaca instructions at {path}; set POTSTILL_DATA to the data pack's folder")
    marks = [5_000, 20_000] if quick else [5_000, 20_000, 50_000]
    texts = extended(instructions(path), marks[-1])
    filter_times(texts[:200], [])  # warm up
    decisions, found = filter_times(texts, marks)

    sample = 4 if quick else 10
    rng = random.Random(1)
    kept: list[str] = [text for text, novel in zip(texts[:5_000], decisions[:5_000], strict=True) if novel]
    sizes = [len(kept) * (i + 1) // sample for i in range(sample)]
    agree = checked = 0
    timed: list[tuple[int, float]] = []
    for size in sizes:
        novelty = NoveltyFilter(THRESHOLD, rouge_tokens, kept[:size])
        words = rng.choice(kept[:size]).split()
        # One real candidate, and one that lies near the threshold.
        edited = " ".join(word if rng.random() < 0.72 else rng.choice(rng.choice(kept).split()) for word in words)
        for candidate in (texts[rng.randrange(size, 5_000)] if size < 5_000 else texts[5_001], edited):
            novel, seconds = own_loop(kept[:size], candidate)
            timed.append((size, seconds))
            agree += novel == (novelty.match(candidate) is None)
            checked += 1
    slope, base = _line(timed)
    loop_s = sum(base + slope * row for row in range(5_000))
    ours_s, _ = found[5_000]
    pairs = _near_pairs(kept, 3_000 if not quick else 500)
    identical = agree == checked and pairs
    records = []
    for rows in marks:
        total, last = found[rows]
        theirs = sum(base + slope * row for row in range(rows))
        records.append(
            {
                "rows": rows,
                "speedup": round(theirs / total, 1),
                "identical_decisions": identical,
                "ms_per_row": round(1000 * total / rows, 4),
                "ms_per_row_last_tenth": round(last, 4),
                "seconds": round(total, 3),
                "self_instruct_loop_s_extrapolated": round(theirs, 1),
                "timed_candidates": len(timed),
            }
        )
        print(
            f"{rows:>7} rows  {total:8.2f} s  {1000 * total / rows:.4f} ms a row, the last tenth {last:.4f}  "
            f"loop {theirs / 3600:.2f} h (extrapolated)  {theirs / total:,.0f} times"
        )
    print(f"decisions identical on {checked} candidates against the pool and on pairs near the threshold: {identical}")
    print(
        f"Self-Instruct's loop: {1000 * (base + slope * 5_000):.0f} ms a candidate at 5,000 rows; {loop_s:.0f} s in all"
    )
    print(f"{loop_s / ours_s:,.0f} times faster on the 5,000 Alpaca instructions")
    write_results("novelty", records)


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
