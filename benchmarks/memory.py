"""Memory and rows a second of generation by the number of rows, with the fake teacher and the ledger on disk.

    python benchmarks/memory.py [--rows 10000 50000 1000000] [--exact 2000 10000 50000]

Each size runs in a process of its own, whose peak is read at the end. Rows, drops and ledger go to disk while they
come. What can grow is the novelty filter: `--rows` runs with the default `novelty_pool` (compare with the latest 50,000
kept texts), and `--exact` with all kept texts. The fake teacher's few words are the worst case for an index by words;
records of `instructions` show the exact filter on 5,000 instructions of Alpaca and on more made of their words (see
`novelty.py`). Each record replaces the one of the same size; the others stay.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from results_file import merge_results, print_table

DATA = Path(os.environ.get("POTSTILL_DATA") or Path(__file__).resolve().parent.parent.parent / "shared" / "data")
_MIB = 1024


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    # Not getrusage: Linux hands a parent's peak on to the programs that it starts.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / _MIB


def generate(rows: int, pool: int) -> dict[str, Any]:
    """Let the fake teacher write `rows` rows for four labels."""
    import pyarrow.parquet as pq

    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.generate import GenerationOptions, generate_rows
    from potstill.datagen.teachers import open_teacher
    from potstill.task import Label, TaskSpec

    labels = tuple(Label(name) for name in ("World", "Sports", "Business", "Science"))
    spec = TaskSpec("news", "Classify a news article by topic.", "classification", labels)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "datagen"
        with Ledger(Path(folder) / "ledger.sqlite") as ledger:
            before = peak_mib()
            began, cpu = time.perf_counter(), time.process_time()
            asker = Asker(open_teacher("fake"), ledger)
            result = generate_rows(spec, asker, GenerationOptions(rows=rows, novelty_pool=pool), out=out)
            wall, used = time.perf_counter() - began, time.process_time() - cpu
        table = pq.ParquetFile(out / "rows.parquet").metadata
        if not table.num_rows == result.kept == rows:
            raise SystemExit(f"{table.num_rows} rows in the file, {result.kept} counted, {rows} wanted")
        return {
            "what": "generation",
            "rows": rows,
            "novelty_pool": pool or "all",
            "peak_rss_mib": round(peak_mib(), 1),
            "rss_before_mib": round(before, 1),
            "rows_per_s": round(rows / wall, 1),
            "rows_per_cpu_s": round(rows / used, 1),
            "requests": asker.counts.fresh,
            "rows_mib": round((out / "rows.parquet").stat().st_size / 2**20, 1),
            "ledger_mib": round((Path(folder) / "ledger.sqlite").stat().st_size / 2**20, 1),
        }


def instructions(rows: int) -> dict[str, Any]:
    """The exact filter alone, over `rows` instructions made as in `novelty.py`."""
    from novelty import extended

    from potstill.datagen.novelty import NoveltyFilter

    with gzip.open(DATA / "selfinstruct" / "alpaca_5k.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = extended([json.loads(line)["instruction"] for line in file], rows)
    before = psutil.Process().memory_info().rss / 2**20
    cpu = time.process_time()
    pool = NoveltyFilter(0.7)
    kept = sum(pool.admit(text) is None for text in texts)
    return {
        "what": "exact filter, instructions",
        "rows": kept,
        "novelty_pool": "all",
        "peak_rss_mib": round(psutil.Process().memory_info().rss / 2**20, 1),
        "rss_before_mib": round(before, 1),
        "rows_per_cpu_s": round(rows / (time.process_time() - cpu), 1),
    }


def main() -> None:
    """Run every size in its own process, write `results/memory.json`, print the table."""
    arguments = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    arguments.add_argument("--rows", type=int, nargs="*", default=[10_000, 50_000, 1_000_000])
    arguments.add_argument("--exact", type=int, nargs="*", default=[2_000, 10_000, 50_000])
    arguments.add_argument("--instructions", type=int, nargs="*", default=[5_000, 20_000])
    arguments.add_argument("--no-write", action="store_true", help="print only")
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        what, rows, pool = given.one.split(",")
        print(json.dumps(instructions(int(rows)) if what == "instructions" else generate(int(rows), int(pool))))
        return
    from potstill.datagen.options import GenerationOptions

    jobs = [f"generation,{rows},{GenerationOptions().novelty_pool}" for rows in given.rows]
    jobs += [f"generation,{rows},0" for rows in given.exact]
    jobs += [f"instructions,{rows},0" for rows in given.instructions] if DATA.is_dir() else []
    records: list[dict[str, Any]] = []
    for job in jobs:
        done = subprocess.run([sys.executable, __file__, "--one", job], stdout=subprocess.PIPE, text=True, check=True)
        records.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(records[-1], flush=True)
        if not given.no_write:
            merge_results("memory", records[-1:], ("what", "rows", "novelty_pool"))
    print_table(records)


if __name__ == "__main__":
    main()
