"""Compression in figures: every method on a decoder's text and on classification students.

    python benchmarks/compression.py                         everything; hours on 2 cores, goes on where it was stopped
    python benchmarks/compression.py --part decoder          SmolLM2-135M on CPython's pydoc_data.topics
    python benchmarks/compression.py --part students --tasks trec
    python benchmarks/compression.py --rows 2000 --bf16      students of fewer rows, products in bfloat16: half the time
    python benchmarks/compression.py --quick                 a few recipes, few tokens and rows: minutes
    python benchmarks/compression.py --print                 the table of the last results

The decoder is measured on 20,480 tokens of even topics and calibrated on odd ones. The students are all-MiniLM-L6-v2
trained on the real training splits of trec, ag_news and banking77 (up to 4,000 rows, `--rows`) and scored on the test
splits.
`--bf16` lets the processor multiply the factors of float32 products in bfloat16 while students learn and are scored,
originals and compressed ones alike; speed is always measured without it.
Writes benchmarks/results/compression.json: model, task, recipe, size_mib, size_ratio, perplexity, score, score_ratio,
latency_ms, latency_ratio, peak_rss_mib.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

from results_file import merge_results, print_table, read_results
from tasks import CEILING_ROWS, DATA, write_task

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("trec", "ag_news", "banking77")
KEY = ("model", "task", "recipe")

# Each method as it is, then what reaches further.
DECODER = (
    "bf16", "int8:channel", "int8:channel,embeddings=keep", "int8:tensor", "int8:channel,activations=int8", "llm.int8",
    "int4:g64", "int4:g64,zero-point", "int3:g64", "nf4", "gobo:4", "gobo:3", "gptq:int4", "gptq:nf4", "gptq:gobo4",
    "gptq:gobo3", "lkd:gobo4,steps=40", "lkd:gobo3,steps=60", "lkd:nf4,steps=40",
    "qlora:steps=40 -> nf4", "binary", "qat:binary,steps=60",
    "magnitude:0.3", "magnitude:0.5", "wanda:0.5", "wanda:2:4", "magnitude:2:4",
    "magnitude:0.3 -> heal:steps=60", "magnitude:0.5 -> heal:steps=150", "wanda:0.5 -> heal:steps=100",
    "heads:0.2", "heads:0.5", "heads:0.2 -> heal:steps=60", "heads:0.5 -> heal:steps=150",
    "heads:0.2,uniform=no", "heads:0.5,uniform=no",
    "heads:0.2,uniform=no -> heal:steps=60", "heads:0.5,uniform=no -> heal:steps=150",
    "layers:5", "layers:5 -> heal:steps=100", "layers:0.5,by=alternate -> heal:steps=200",
    "wanda:0.5 -> heal:steps=100 -> int8:channel",
)  # fmt: skip
STUDENTS = (
    "int8:channel", "int8:tensor", "int8:channel,embeddings=int4", "int4:g32", "gptq:int4,group=32,embeddings=int4",
    "wanda:0.5 -> heal:steps=100 -> int8:channel",
    "layers:3,by=top -> heal:epochs=3 -> int8:channel",
    "layers:3 -> heal:epochs=4 -> int8:channel,embeddings=int4",
    "layers:3,by=top -> neurons:0.25 -> heal:epochs=4 -> int8:channel,embeddings=int4",
    "layers:3,by=top -> neurons:0.25 -> heal:epochs=6 -> int8:channel,embeddings=int4",
    "layers:4,by=top -> heal:epochs=4 -> int8:channel,embeddings=int4",
    "qat:binary,steps=200",
)  # fmt: skip


def main() -> None:
    """Run the recipes that have no result yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("all", "decoder", "students"), default="all")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--recipe", action="append", help="only this one; may be repeated")
    parser.add_argument("--minutes", type=float, help="start no recipe after this long")
    parser.add_argument("--again", action="store_true", help="measure recipes that have a result, too")
    parser.add_argument("--rows", type=int, default=CEILING_ROWS["classification"], help="training rows of a student")
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16 (AVX512-BF16 or AMX)")
    parser.add_argument("--no-speed", action="store_true", help="leave out a decoder's latency and memory")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-compression")
    parser.add_argument("--print", action="store_true", dest="show")
    args = parser.parse_args()
    if not args.show:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if args.bf16:
            import torch

            torch.set_float32_matmul_precision("medium")
        until = time.monotonic() + 60 * args.minutes if args.minutes else None
        if args.part in ("all", "students"):
            for task in args.tasks.split(","):
                bench_student(task, args, until)
        if args.part in ("all", "decoder"):
            bench_decoder(args, until)
    print_table(read_results("compression"))


def bench_decoder(args: argparse.Namespace, until: float | None) -> None:
    """Every recipe on SmolLM2-135M: perplexity, size, speed."""
    from potstill.models import SMOLLM2
    from potstill.train.compress.options import CompressOptions
    from potstill.train.compress.run import Material

    even, odd = topics()
    options = CompressOptions(
        calibration_tokens=2048 if args.quick else 8192, heal_tokens=8192 if args.quick else 90_000,
        text_tokens=2048 if args.quick else 20_480, speed="none" if args.quick or args.no_speed else "ends",
        keep_steps=True,  # many recipes begin with the same step, and the original is measured once
    )  # fmt: skip
    recipes = args.recipe or (("int8:channel", "nf4", "wanda:0.5") if args.quick else DECODER)
    task = "pydoc topics" + (" (quick)" if args.quick else "")
    measure(SMOLLM2, "SmolLM2-135M", task, recipes, Material(tuple(odd), held_out=tuple(even)), options, args, until)


def bench_student(task: str, args: argparse.Namespace, until: float | None) -> None:
    """Every recipe on one classification student."""
    from potstill.train.compress.options import CompressOptions
    from potstill.train.compress.run import Material

    folder, spec, train, test = student(task, args.out, 600 if args.quick else args.rows)
    options = CompressOptions(rows=200 if args.quick else 1000, speed="ends")
    material = Material(tuple(train["input"]), tuple(train["output"]), spec, test)
    recipes = args.recipe or (("int8:channel",) if args.quick else STUDENTS)
    name = task + (" (quick)" if args.quick else "")
    rows = train.num_rows
    measure(folder, "MiniLM-L6", name, recipes, material, options, args, until, train_rows=rows)


def measure(
    source: Any, model: str, task: str, recipes: Any, material: Any, options: Any, args: argparse.Namespace,
    until: float | None, **more: Any,
) -> None:  # fmt: skip
    """Run the recipes that have no record yet; each record is written when it is there."""
    from potstill.errors import PotstillError
    from potstill.train.compress.run import compress_student

    known = {tuple(record.get(part) for part in KEY) for record in read_results("compression")}
    for recipe in recipes:
        if (model, task, recipe) in known and not args.again:
            continue
        if until is not None and time.monotonic() > until:
            print(f"time is up before {task}: {recipe}", flush=True)
            return
        started = time.monotonic()
        name = task.split()[0] if options.keep_steps else f"{task.split()[0]}-{abs(hash_of(recipe)):x}"
        out = args.out / "students" / name
        try:
            result = compress_student(source, recipe, out, material, options)
        except PotstillError as error:
            print(f"{task} {recipe}: {error}", flush=True)
            continue
        seconds = time.monotonic() - started
        entries = result.report["steps"]
        records = [record_of(model, task, "original", entries[0], 0.0)]
        records.append(record_of(model, task, recipe, entries[-1], seconds, result.report["files"][0]))
        records = [{**record, **more, "bf16": args.bf16} for record in records]
        merge_results("compression", records, KEY)
        print(records[-1], flush=True)
        shutil.rmtree(out)


def record_of(
    model: str, task: str, recipe: str, entry: dict[str, Any], seconds: float, files: str = "plain"
) -> dict[str, Any]:
    """One line of the table."""
    latency = (entry.get("latency_ms") or {}).get("p50")
    names = ("size_mib", "size_ratio", "perplexity", "score", "score_ratio", "agreement", "token_agreement", "zeros")
    return {
        "model": model, "task": task, "recipe": recipe, "files": files, **{name: entry.get(name) for name in names},
        "latency_ms": latency, "latency_ratio": entry.get("latency_ratio"), "peak_rss_mib": entry.get("peak_rss_mib"),
        "tokens_per_s_16": (entry.get("tokens_per_s") or {}).get("16"), "seconds": round(seconds, 1),
        **gpu_figures(entry.get("gpu") or {}),
    }  # fmt: skip


def gpu_figures(gpu: dict[str, Any]) -> dict[str, Any]:
    """Latency and speed on a GPU, where one was at hand."""
    if "latency_ms" not in gpu:
        return {}
    return {"gpu_latency_ms": gpu["latency_ms"]["p50"], "gpu_tokens_per_s_16": gpu["tokens_per_s"]["16"]}


def student(task: str, out: Path, rows: int) -> tuple[Path, Any, Any, Any]:
    """A student trained on a real training split, with the task, its training rows and its test rows."""
    from potstill.datagen.merge import MergeOptions, split_rows
    from potstill.retrieval.load import read_data
    from potstill.task import DataRef
    from potstill.task.file import read_task_file
    from potstill.train.classify import distil_classifier
    from potstill.train.options import DistilOptions

    spec = read_task_file(str(write_task(task, out))).spec
    assert spec.test is not None
    train_file = str(DATA / "tasks" / task / "train.parquet")
    real = read_data(DataRef(train_file, None, None, spec.test.inputs, spec.test.output), spec)
    real = real.shuffle(seed=0).select(range(min(real.num_rows, rows))).flatten_indices()
    splits = split_rows(spec, real, MergeOptions(heldout=0.0))
    folder = out / f"{task}-{rows}"
    if not (folder / "config.json").exists():
        distil_classifier(spec, splits.train, splits.validation, folder, DistilOptions(soft_weight=0.0))
    return folder, spec, splits.train, read_data(spec.test, spec)


def topics() -> tuple[list[str], list[str]]:
    """CPython's language reference as texts: even topics to measure on, odd ones to calibrate on."""
    from pydoc_data.topics import topics as texts

    names = sorted(texts)
    return [texts[name] for name in names[0::2]], [texts[name] for name in names[1::2]]


def hash_of(text: str) -> int:
    """A number that stays the same between processes."""
    import hashlib

    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:5], "big")


if __name__ == "__main__":
    main()
