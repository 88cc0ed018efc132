"""What `potstill plan` says beside what the run then takes: calls, tokens, cost and minutes.

    python benchmarks/plan.py [--tasks sms_spam,trec] [--rows 120] [--embedded sms_spam] [--embedded-rows 60]

Three predictions for each task: without a single request (as for an API), after a probe of 32 requests, and after the
run, from its own ledger. Two teachers:

    http           an OpenAI-compatible server on the loopback that answers as the fake teacher does, after 0.4 s and at
                   100 tokens/s, at a stated price of 0.15 USD for a million tokens read and 0.60 for those written
    transformers   the embedded teacher, SmolLM2-135M-Instruct, in this process

`off` is how far a prediction is from what the ledger counts, as a share of it; minutes are those of datagen, soft,
train and evaluate. The datasets are left out, so that all rows are written; the student trains for a few steps only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ledger as ledger_benchmark
from results_file import print_table, read_results, write_results
from tasks import ROOT, write_task

PRICE = {"usd_read": 0.15, "usd_written": 0.6}
_FIRST_S, _TOKENS_PER_S = 0.4, 100.0


class Handler(ledger_benchmark.Handler):
    """Answers at the pace of a hosted model."""

    def _send(self, value: dict[str, Any]) -> None:
        if "usage" in value:
            time.sleep(_FIRST_S + value["usage"]["completion_tokens"] / _TOKENS_PER_S)
        super()._send(value)


@contextmanager
def serving(place: Path) -> Iterator[str]:
    """The server's reference as a teacher, until the block ends."""
    with ledger_benchmark.serving() as server:
        server.RequestHandlerClass = Handler
        server.folder = place
        yield f"openai:http://127.0.0.1:{server.server_address[1]}/v1#m"


def bench(task: str, name: str, teacher: str, rows: int, out: Path, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Predict, run, compare: a record a prediction, and one of what the run took."""
    from potstill.asking.counts import in_all
    from potstill.asking.ledger import Ledger
    from potstill.pipeline import run
    from potstill.plan.estimate import plan_run

    shutil.rmtree(out, ignore_errors=True)
    file = str(write_task(task, out))
    settings: dict[str, Any] = {
        "n": rows, "teacher": teacher, "sources": "generated", "evaluate": {"rows": 100, "latency_rows": 5},
        "distil": {"epochs": 1, "min_steps": 30}, "teacher_options": options,
    }  # fmt: skip
    folder = out / "run"
    unasked = None if teacher.startswith("openai") else 0  # both make no request, 0 times no step of the student either
    plans = {"before any request": plan_run(file, out=out / "none", probe=unasked, **settings)}
    plans["after a probe"] = plan_run(file, out=folder, probe=32, **settings)
    with Ledger(folder / "ledger.sqlite", read_only=True) as kept:
        probed = kept.totals().replies
    run(file, out=folder, **settings)
    with Ledger(folder / "ledger.sqlite", read_only=True) as kept:
        real = in_all(kept.asked().values())
    stages = json.loads((folder / "run.json").read_text("utf-8"))["stages"]
    spent = sum(stages[stage]["seconds"] for stage in ("datagen", "soft", "train", "evaluate"))
    plans["after the run"] = plan_run(file, out=folder, probe=0, **settings)
    tokens = real.prompt_tokens + real.completion_tokens
    usd = (
        real.prompt_tokens * options.get("usd_read", 0) + real.completion_tokens * options.get("usd_written", 0)
    ) / 1e6
    records: list[dict[str, Any]] = []
    for when, plan in plans.items():
        records.append(
            {
                "task": task, "teacher": name, "plan": when,
                "requests": plan.requests, "requests_off": _off(plan.requests, real.fresh),
                "tokens": sum(plan.tokens), "tokens_off": _off(sum(plan.tokens), tokens),
                "usd": plan.usd, "usd_off": _off(plan.usd, usd),
                "minutes": plan.minutes, "minutes_off": _off(plan.seconds, spent),
            }
        )  # fmt: skip
    took = {
        "task": task, "teacher": name, "plan": "what the run took", "requests": real.fresh, "requests_off": None,
        "tokens": tokens, "tokens_off": None, "usd": round(usd, 4), "usd_off": None, "minutes": f"{spent / 60:.1f}",
        "minutes_off": None, "requests_of_the_probe": probed,
    }  # fmt: skip
    return [*records, took]


def _off(predicted: float | None, real: float) -> float | None:
    return None if predicted is None or not real else round(predicted / real - 1, 3)


def keep(records: list[dict[str, Any]]) -> None:
    """Write the records, beside those of other tasks and teachers of earlier calls."""
    new = {(record["task"], record["teacher"]) for record in records}
    write_results("plan", [r for r in read_results("plan") if (r["task"], r.get("teacher")) not in new] + records)


def main() -> None:
    """Each task with each of its teachers."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--tasks", default="sms_spam,trec", help="with the server")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--embedded", default="sms_spam", help="tasks with the embedded teacher; empty for none")
    parser.add_argument("--embedded-rows", type=int, default=60)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-plan")
    args = parser.parse_args()
    records: list[dict[str, Any]] = []
    args.out.mkdir(parents=True, exist_ok=True)
    with serving(args.out) as teacher:
        for task in filter(None, args.tasks.split(",")):
            options = {**PRICE, "concurrency": 16, "start": 16}
            records += bench(task, "http", teacher, args.rows, args.out / f"{task}-http", options)
            keep(records)
    for task in filter(None, args.embedded.split(",")):
        records += bench(task, "transformers", "transformers", args.embedded_rows, args.out / f"{task}-embedded", {})
        keep(records)
    print_table(records)


if __name__ == "__main__":
    main()
