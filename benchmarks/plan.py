"""What `potstill plan` says beside what the run then takes.

    python benchmarks/plan.py [--task sms_spam] [--rows 120]

Three predictions for one task with the embedded teacher: without a single request (as for an API), after a probe of 32
requests, and after the run, from its own ledger. `off` is how far a prediction is from what the ledger counts, as a
share of it. The datasets are left out, so that all rows are written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from results_file import print_table, write_results
from tasks import ROOT, write_task


def main() -> None:
    """Predict, run, compare."""
    from potstill.ledger import Ledger
    from potstill.pipeline import run
    from potstill.plan import plan_run

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="sms_spam")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--teacher", default="transformers")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-plan")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    task = str(write_task(args.task, args.out))
    settings: dict[str, Any] = {
        "n": args.rows,
        "teacher": args.teacher,
        "sources": "generated",
        "evaluate": {"rows": 100, "latency_rows": 5},
    }
    folder = args.out / "run"
    plans = {"before any request": plan_run(task, out=args.out / "none", probe=0, **settings)}
    started = time.monotonic()
    plans["after a probe"] = plan_run(task, out=folder, **settings)
    probe_s = time.monotonic() - started
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        probed = ledger.totals().replies
    started = time.monotonic()
    run(task, out=folder, **settings)
    seconds = time.monotonic() - started
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        real = ledger.totals()
    stages = json.loads((folder / "run.json").read_text("utf-8"))["stages"]
    spent = sum(stages[name]["seconds"] for name in ("datagen", "soft", "train", "evaluate"))
    plans["after the run"] = plan_run(task, out=folder, probe=0, **settings)
    records = []
    for name, plan in plans.items():
        prompt, completion = plan.tokens
        records.append(
            {
                "task": args.task,
                "plan": name,
                "requests": plan.requests,
                "requests_off": round(plan.requests / real.replies - 1, 3),
                "tokens": prompt + completion,
                "tokens_off": round((prompt + completion) / (real.prompt_tokens + real.completion_tokens) - 1, 3),
                "seconds": plan.seconds,
                "seconds_off": None if plan.seconds is None else round(plan.seconds / spent - 1, 3),
            }
        )
    records.append(
        {
            "task": args.task,
            "plan": "what the run took",
            "requests": real.replies,
            "tokens": real.prompt_tokens + real.completion_tokens,
            "seconds": round(spent, 1),
            "whole_s": round(seconds, 1),
            "requests_of_the_probe": probed,
            "probe_s": round(probe_s, 1),
        }
    )
    print_table(records)
    write_results("plan", records)


if __name__ == "__main__":
    main()
