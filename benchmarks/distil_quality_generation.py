"""How near a student comes to its teacher in equal time: stored top-32 targets beside TRL's GKD and plain SFT.

    python benchmarks/distil_quality_generation.py            about fifteen minutes on 2 idle cores

The teacher is SmolLM2-135M-Instruct and the student its 15 even layers. All systems get the same rows of two real
tasks (their gold outputs, so nothing is written by anyone), batches of 4 in fp32, one rate, no decay, and the same
CPU seconds of training on one thread, which is wall-clock time on an idle core and stays fair on a busy one. Each
runs in a fresh process. Stored targets come free with rows that the teacher writes; for these given rows one pass
brings them, once for all trainings, and its seconds are `scoring_s`, beside the time and not in it.

    potstill          stored top-32, the default mixture (0.5 hard, 0.5 soft)
    potstill soft     stored top-32 alone
    potstill triple   the default mixture and the direction of the uncut model's hidden states (from one more such pass)
    gkd               TRL's GKDTrainer with lmbda 0 and beta 0: whole-vocabulary forward KL, teacher in memory
    sft               cross-entropy on the outputs

`teacher_kl` is the whole-vocabulary KL(teacher‖student) per output token of held-out rows, `score` the share of those
tokens whose likeliest successor is the teacher's.

Writes its records into benchmarks/results/distil_quality.json and leaves those of other tasks there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

SYSTEMS = ("potstill", "potstill soft", "potstill triple", "gkd", "sft")
TASKS = {
    "gsm8k": ("question", "solution", "Solve the problem. Show the steps."),
    "mconala": ("rewritten_intent", "snippet", "Write Python code that does what the sentence says."),
}
BATCH, TOP_K, RATE, MAX_LENGTH, MAX_CHARS = 4, 32, 5e-4, 256, 420


def main() -> None:
    """Run every system on every task, and merge the records into the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-seconds", type=float, default=90.0)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--held-out", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--one", nargs=3, metavar=("TASK", "SYSTEM", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        task, system, seed = args.one
        print("RESULT " + json.dumps(measure(task, system, int(seed), args.cpu_seconds, args.rows, args.held_out)))
        return
    from results_file import print_table, read_results, write_results

    records = []
    for system in args.systems:
        for seed in range(args.seeds):
            for task in args.tasks:
                command = [sys.executable, __file__, "--one", task, system, str(seed)]
                for name in ("cpu_seconds", "rows", "held_out"):
                    command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
                if not lines:
                    raise SystemExit(f"{system} on {task} failed:\n{done.stderr[-3000:]}")
                records.append(json.loads(lines[-1].removeprefix("RESULT ")))
                print(json.dumps(records[-1]), flush=True)
                keys = {(r["task"], r["method"], r["seed"]) for r in records}
                kept = [r for r in read_results("distil_quality") if (r["task"], r["method"], r["seed"]) not in keys]
                write_results("distil_quality", kept + records)
    print_table(records)


def measure(task: str, system: str, seed: int, budget_s: float, rows: int, held_out: int) -> dict[str, Any]:
    """Train one system for its time and compare it with the teacher."""
    import torch
    from transformers import TrainerCallback, set_seed

    from potstill.models import SMOLLM2, local_model
    from potstill.train.causal_model import load_causal
    from potstill.train.options import DistilOptions, resolve_options
    from potstill.train.token_rows import encode_rows

    torch.set_num_threads(1)
    set_seed(seed)
    spec, train, test = read_task(task, rows, held_out, seed)
    options = resolve_options(
        DistilOptions(
            student=SMOLLM2, student_layer_ids=tuple(range(0, 30, 2)), batch_size=BATCH, learning_rate=RATE, seed=seed,
            max_length=MAX_LENGTH, hard_weight=0.0 if system == "potstill soft" else 0.5,
            hidden_weight=1.0 if system == "potstill triple" else 0.0,
        ),
        "causal",
    )  # fmt: skip
    tokenizer, model, _ = load_causal(options)
    plain = replace(options, soft_weight=0.0, hard_weight=1.0)
    held = encode_rows(spec, test, None, model, tokenizer, plain)
    with tempfile.TemporaryDirectory() as folder:
        scoring = time.process_time()
        if system.startswith("potstill"):
            trainer = stored_targets_trainer(spec, train, model, tokenizer, options, Path(folder))
        else:
            data = encode_rows(spec, train, None, model, tokenizer, plain).table
            trainer = trl_trainer(system, model, tokenizer, data, local_model(SMOLLM2), seed, folder)

        began = time.process_time()

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                control.should_training_stop = time.process_time() - began >= budget_s

        trainer.add_callback(Clock())
        trainer.train()
        spent = time.process_time() - began
    kl, agreement = against_teacher(trainer.model, local_model(SMOLLM2), held.table)
    return {
        "task": task, "method": system, "seed": seed, "teacher_kl": round(kl, 4), "score": round(agreement, 4),
        "ece": None, "minutes": round(spent / 60, 2), "steps": int(trainer.state.global_step),
        "scoring_s": round(began - scoring, 1) if system.startswith("potstill") else 0.0,
    }  # fmt: skip


def read_task(task: str, rows: int, held_out: int, seed: int) -> Any:
    """The task, training rows and held-out rows (of the training split: no test text is touched)."""
    from datasets import load_dataset

    from potstill.rows import Row, Source, rows_to_dataset
    from potstill.task import TaskSpec

    folder = Path(os.environ.get("POTSTILL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    source, target, instruction = TASKS[task]
    table = load_dataset(str(folder / "tasks" / task), split="train").shuffle(seed=seed)
    made = []
    for i, item in enumerate(table):
        text, output = _plain(item[source]), _plain(item[target])
        if len(text) + len(output) < MAX_CHARS and output:
            made.append(Row(text, output, "user", Source(dataset=task, row=i)))
        if len(made) == rows + held_out:
            break
    spec = TaskSpec(name=task, instruction=instruction, kind="generation")
    return spec, rows_to_dataset(made[held_out:], []), rows_to_dataset(made[:held_out], [])


def _plain(value: Any) -> str:
    return (" ".join(value) if isinstance(value, list) else str(value)).strip()


def stored_targets_trainer(
    spec: Any, train: Any, model: Any, tokenizer: Any, options: Any, folder: Path
) -> Any:  # fmt: skip
    """The product's own path: score the rows once, then train on what was stored."""
    from potstill.asker import Asker
    from potstill.datagen.teachers.local import LocalOptions, LocalTeacher
    from potstill.datagen.token_targets import targets_for
    from potstill.ledger import Ledger
    from potstill.train.causal import causal_trainer
    from potstill.train.loop import plan_schedule
    from potstill.train.token_rows import encode_rows
    from potstill.train.uncut import uncut_states

    with Ledger(folder / "ledger.sqlite") as ledger:
        teacher = LocalTeacher(None, LocalOptions(device="cpu", threads=1))
        targets = targets_for(spec, train, Asker(teacher, ledger), TOP_K)
        teacher.close()
    data = encode_rows(spec, train, targets, model, tokenizer, options)
    states = uncut_states(data, options, folder / "states") if options.hidden_weight else None
    schedule = replace(plan_schedule(len(data.table), options), steps=100_000, evaluate_each=100_000)
    trainer = causal_trainer(model, tokenizer, data, None, options, schedule, folder, states=states)
    trainer.args.lr_scheduler_type, trainer.args.warmup_steps = "constant_with_warmup", 5
    trainer.args.save_strategy = "no"
    return trainer


def trl_trainer(system: str, model: Any, tokenizer: Any, data: Any, teacher: str, seed: int, folder: str) -> Any:
    """SFTTrainer or GKDTrainer over the same token sequences."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    common: dict[str, Any] = {
        "output_dir": folder, "per_device_train_batch_size": BATCH, "max_steps": 100_000, "learning_rate": RATE,
        "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5, "gradient_checkpointing": False, "bf16": False,
        "report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "logging_steps": 1000,
        "max_length": None, "remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True},
        "dataloader_pin_memory": False, "seed": seed, "weight_decay": 0.01,
    }  # fmt: skip
    table = data.select_columns(["input_ids", "labels"])
    if system == "sft":
        return SFTTrainer(model=model, args=SFTConfig(**common), train_dataset=table, processing_class=tokenizer)
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    return GKDTrainer(
        model=model, teacher_model=AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32),
        args=GKDConfig(**common, lmbda=0.0, beta=0.0), train_dataset=table, processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=int(tokenizer.pad_token_id)),
    )  # fmt: skip


def against_teacher(model: Any, teacher: str, rows: Any) -> tuple[float, float]:
    """Mean KL(teacher‖student) and share of equal likeliest tokens over the output tokens of held-out rows."""
    import torch
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
    model.eval()
    total, same, count = 0.0, 0, 0
    for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        at = torch.tensor(labels)[1:] != -100
        with torch.no_grad():
            ours, theirs = (m(input_ids=torch.tensor([ids])).logits[0, :-1][at].log_softmax(-1) for m in (model, whole))
        total += float((theirs.exp() * (theirs - ours)).sum())
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        count += int(at.sum())
    return total / count, same / count


if __name__ == "__main__":
    main()
