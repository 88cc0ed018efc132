"""What one training step costs: offline top-32 distillation beside plain SFT and TRL's GKD (lmbda 0).

    python benchmarks/distil_step.py            about five minutes on 2 cores
    python benchmarks/distil_step.py --quick    one round of two steps; results are not kept

The teacher is SmolLM2-135M-Instruct and the student its 15 even layers. All three take identical batches of 4
rows in the same order, fp32, AdamW, no gradient checkpointing, each in a fresh process on one thread; the rounds
are interleaved. CPU seconds are user + system time of one step (the median over steps and rounds, the first step of
each process left out); the peak RSS is of the whole process. GKD holds the teacher; the offline trainer reads
stored targets, which the teacher gave once, before.

Writes benchmarks/results/distil_step.json (system, cpu_s, cpu_ratio_to_sft, cpu_ratio_to_gkd, peak_rss_mib).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SYSTEMS = ("potstill", "sft", "gkd")
BATCH, TOP_K = 4, 32


def main() -> None:
    """Run every system in its own process, some rounds of each, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="one round of two steps; results are not kept")
    parser.add_argument("--system", choices=(*SYSTEMS, "targets"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.system == "targets":
        make_batches(args.data, args.steps)
        return
    if args.system:
        print("RESULT " + json.dumps(measure(args.system, args.data, args.steps)))
        return
    from results_file import print_table, write_results

    if args.quick:
        args.rounds, args.steps = 1, 2
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SYSTEMS}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "batches.npz"
        child("targets", data, args.steps)
        for _ in range(args.rounds):
            for name in SYSTEMS:
                found[name].append(child(name, data, args.steps))
    cpu = {name: statistics.median(s for run in runs for s in run["cpu_s"]) for name, runs in found.items()}
    records = [
        {
            "system": name,
            "cpu_s": round(cpu[name], 3),
            "cpu_ratio_to_sft": round(cpu[name] / cpu["sft"], 3),
            "cpu_ratio_to_gkd": round(cpu[name] / cpu["gkd"], 3),
            "peak_rss_mib": round(statistics.median(run["peak_rss_mib"] for run in found[name]), 1),
            "first_loss": round(found[name][0]["first_loss"], 4),
            "target_tokens": found[name][0]["target_tokens"],
            "rounds": args.rounds,
        }
        for name in SYSTEMS
    ]
    if not args.quick:
        write_results("distil_step", records)
    print_table(records)


def child(system: str, data: Path, steps: int) -> dict[str, Any]:
    """Run one system in a fresh process on one thread."""
    command = [sys.executable, __file__, "--system", system, "--data", str(data), "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{system} failed:\n{done.stderr[-3000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(lines[-1].removeprefix("RESULT ")) if lines else {}


def make_batches(path: Path, steps: int) -> None:
    """Rows of fixed lengths (prompt 40 to 90 tokens, answer 50 to 100), and the teacher's top-32 with tail."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from potstill.models import SMOLLM2, local_model

    teacher = AutoModelForCausalLM.from_pretrained(local_model(SMOLLM2), dtype=torch.float32).eval()
    random = np.random.default_rng(0)
    stored: dict[str, Any] = {}
    for row in range(BATCH * (steps + 1)):
        prompt = random.integers(100, 40_000, random.integers(40, 91))
        answer = torch.from_numpy(random.integers(100, 40_000, random.integers(50, 101)))
        ids = torch.cat([torch.from_numpy(prompt), answer])
        with torch.no_grad():
            logits = teacher(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1)
        top, top_ids = logprobs.topk(TOP_K, dim=-1)
        rest = logprobs.scatter(1, top_ids, -torch.inf).logsumexp(-1)
        stored |= {
            f"ids{row}": ids.numpy(),
            f"prompt{row}": len(prompt),
            f"top_ids{row}": top_ids.int().numpy(),
            f"top{row}": top.numpy().astype(np.float16),
            f"tail{row}": rest.numpy(),
        }
    np.savez(path, **stored)


def measure(system: str, data: Path, steps: int) -> dict[str, Any]:
    """CPU seconds of each step, and the peak RSS of this process."""
    import numpy as np
    import torch
    from transformers import TrainerCallback

    stored = np.load(data)
    rows = [
        {
            "input_ids": stored[f"ids{i}"].tolist(),
            "labels": [-100] * int(stored[f"prompt{i}"]) + stored[f"ids{i}"][int(stored[f"prompt{i}"]) :].tolist(),
            "top_ids": stored[f"top_ids{i}"],
            "top_logprobs": stored[f"top{i}"],
            "tail": stored[f"tail{i}"],
        }
        for i in range(BATCH * (steps + 1))
    ]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(system, rows, steps, folder)
        ticks: list[float] = []
        losses: list[float] = []

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                ticks.append(time.process_time())

            def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
                if "loss" in logs:
                    losses.append(logs["loss"])

        trainer.add_callback(Clock())
        trainer.train()
    return {
        "cpu_s": [b - a for a, b in itertools.pairwise(ticks)],
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "first_loss": losses[0],
        "target_tokens": sum(len(row["tail"]) for row in rows) // (steps + 1),
    }


def make_trainer(system: str, rows: list[dict[str, Any]], steps: int, folder: str) -> Any:
    """The trainer of a system, over the rows in their order."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from potstill.models import SMOLLM2, local_model
    from potstill.train.causal_model import load_causal
    from potstill.train.options import DistilOptions, resolve_options
    from potstill.train.token_rows import TokenRows
    from potstill.train.topk_trainer import TopKCollator, TopKTrainer

    options = resolve_options(
        DistilOptions(student_layers=15, hard_weight=0.5, soft_weight=0.5, batch_size=BATCH, learning_rate=1e-5),
        "causal",
    )
    tokenizer, model, _ = load_causal(options, layers=list(range(0, 30, 2)))
    common: dict[str, Any] = {
        "output_dir": folder, "per_device_train_batch_size": BATCH, "max_steps": steps + 1, "learning_rate": 1e-5,
        "gradient_checkpointing": False, "bf16": False, "report_to": "none", "disable_tqdm": True, "use_cpu": True,
        "save_strategy": "no", "logging_steps": 1, "max_length": None, "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True}, "dataloader_pin_memory": False,
    }  # fmt: skip
    in_order = {"_get_train_sampler": lambda self, rows=None: SequentialSampler(rows or self.train_dataset)}
    if system == "potstill":
        table = Dataset.from_list(
            [
                {
                    **row,
                    "weight": 1.0,
                    "has_soft": [True] * len(row["tail"]),
                    "top_ids": row["top_ids"].ravel(),
                    "top_logprobs": row["top_logprobs"].ravel(),
                }
                for row in rows
            ]
        )
        trainer = type("Ordered", (TopKTrainer,), in_order)(
            model=model, args=SFTConfig(**common), train_dataset=table.with_format("numpy"),
            data_collator=TopKCollator(int(tokenizer.pad_token_id), TOP_K), processing_class=tokenizer,
        )  # fmt: skip
        trainer.prepare(options, TokenRows(table, TOP_K, {}, 0), None)
        return trainer
    table = Dataset.from_list([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows])
    if system == "sft":
        return type("Ordered", (SFTTrainer,), in_order)(
            model=model, args=SFTConfig(**common), train_dataset=table, processing_class=tokenizer
        )
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.gkd import GKDConfig, GKDTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    teacher = AutoModelForCausalLM.from_pretrained(local_model(SMOLLM2), dtype=model.dtype)
    return type("Ordered", (GKDTrainer,), in_order)(
        model=model, teacher_model=teacher, args=GKDConfig(**common, lmbda=0.0, beta=0.0), train_dataset=table,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=int(tokenizer.pad_token_id)),
        processing_class=tokenizer,
    )  # fmt: skip


if __name__ == "__main__":
    main()
