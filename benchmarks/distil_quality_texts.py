"""The generation half of `distil_quality`: stored top-32 targets, TRL's GKD and plain fine-tuning, after equal time.

The teacher is SmolLM2-135M-Instruct and the student its 15 even layers, untrained since the cut. All methods see
the same rows of a task's real training split in the same batches (4 rows, fp32 unless told, AdamW, one constant rate
after a short warm-up), and each trains for the same minutes: CPU time of the process, which on one thread of a quiet
machine is the wall clock, and means the same on a busy one. Those of the stored targets hold the teacher's pass over
the rows as well, although a run that lets the teacher write has them for nothing. GKD runs at lmbda 0 (no sampling, the
data's own outputs, as the others) with forward KL, the divergence that is measured, and has no hard loss; the stored
targets are taken with half the weight on the data's own tokens, as the product does, and alone. The hard-only arm is
TRL's SFTTrainer.

`teacher_kl` is KL(teacher‖student) over the whole vocabulary, nats a token of the outputs of held-out rows; `score` is
the task's metric of greedy answers on rows of the test split. A student of a few minutes writes badly whatever it
learnt from, so the first figure is the one that tells.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from label_rows import real_rows, task_spec
from results_file import merge_results, read_results

KEY = ("task", "method", "seed")
METHODS = ("offline top-32", "gkd", "sft", "offline top-32 alone")
BATCH, TOP_K, MAX_LENGTH, RATE, WARMUP = 4, 32, 256, 1e-4, 10


def bench(
    task: str, seed: int, methods: list[str], rows: int, test_rows: int, minutes: float, out: Path, precision: str
) -> None:  # fmt: skip
    """The missing records of one task and seed, each written as soon as it is there."""
    done = {tuple(record[name] for name in KEY) for record in read_results("distil_quality")}
    for method in methods:
        if (task, method, seed) in done:
            continue
        record = measure(task, method, seed, rows, test_rows, minutes, out, precision)
        merge_results("distil_quality", [record], KEY)
        print(json.dumps(record), flush=True)


def measure(
    task: str, method: str, seed: int, rows: int, test_rows: int, minutes: float, out: Path, precision: str
) -> dict[str, Any]:  # fmt: skip
    """Train one student and measure it."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    from potstill.models import SMOLLM2, local_model
    from potstill.train.causal_model import load_causal
    from potstill.train.options import DistilOptions, resolve_options
    from potstill.train.token_rows import encode_rows

    spec, _ = task_spec(task, out)
    table = real_rows(task, spec, "train", rows + test_rows, seed)
    held_out = table.select(range(min(test_rows, table.num_rows // 4)))
    train = table.select(range(held_out.num_rows, table.num_rows))
    set_seed(seed)
    stored = method.startswith(METHODS[0])
    weights = {"hard_weight": 0.0, "soft_weight": 1.0} if method == METHODS[3] else {}
    options = resolve_options(DistilOptions(batch_size=BATCH, max_length=MAX_LENGTH, seed=seed, **weights), "causal")
    tokenizer, model, _ = load_causal(options, layers=list(range(0, 30, 2)))
    started = time.process_time()
    targets = stored_targets(spec, train, out / task / f"targets-{seed}") if stored else None
    before = time.process_time() - started
    plain = resolve_options(DistilOptions(batch_size=BATCH, max_length=MAX_LENGTH, soft_weight=0.0), "causal")
    data = encode_rows(spec, train, targets, model, tokenizer, options if targets is not None else plain)
    teacher = AutoModelForCausalLM.from_pretrained(local_model(SMOLLM2), dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(method, data, model, teacher, tokenizer, options, folder, seed, precision)
        stop = _stop_after(60 * minutes - before)
        trainer.add_callback(stop)
        trainer.train()
    student = trainer.accelerator.unwrap_model(trainer.model).eval()
    if "forward" in vars(student):
        del student.forward
    told = encode_rows(spec, held_out, None, model, tokenizer, plain)
    test = real_rows(task, spec, "test", test_rows, seed)
    return {
        "task": task, "method": method, "seed": seed, "teacher_kl": round(divergence(teacher, student, told), 4),
        "score": round(score(spec, student, tokenizer, test), 4), "ece": None,
        "minutes": round((before + stop.seconds) / 60, 2), "steps": trainer.state.global_step,
        "train_rows": len(data.table), "test_rows": test.num_rows, "precision": precision,
    }  # fmt: skip


def stored_targets(spec: Any, rows: Any, place: Path) -> Any:
    """The teacher's top-32 of each row's output, taken afresh, so that the time counts."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.teachers.local import LocalTeacher
    from potstill.datagen.token_targets import targets_for

    place.mkdir(parents=True, exist_ok=True)
    ledger_path = place / "ledger.sqlite"
    for file in place.glob("ledger.sqlite*"):
        file.unlink()
    teacher = LocalTeacher()
    try:
        with Ledger(ledger_path) as ledger:
            return targets_for(spec, rows, Asker(teacher, ledger), TOP_K)
    finally:
        teacher.close()


def make_trainer(
    method: str, data: Any, model: Any, teacher: Any, tokenizer: Any, options: Any, folder: str, seed: int,
    precision: str,
) -> Any:  # fmt: skip
    """The trainer of a method; all of them take the rows in one order."""
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from potstill.train.loop import LikeLengths
    from potstill.train.topk_trainer import TopKCollator, TopKTrainer

    common: dict[str, Any] = {
        "output_dir": folder, "per_device_train_batch_size": BATCH, "max_steps": 100_000, "learning_rate": RATE,
        "lr_scheduler_type": "constant_with_warmup", "warmup_steps": WARMUP, "weight_decay": 0.01, "seed": seed,
        "gradient_checkpointing": False, "bf16": precision == "bf16", "report_to": "none", "disable_tqdm": True,
        "use_cpu": True, "save_strategy": "no", "logging_steps": 50, "max_length": None, "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True}, "dataloader_pin_memory": False,
    }  # fmt: skip
    lengths = [len(ids) for ids in data.table["input_ids"]]
    in_order = {"_get_train_sampler": lambda self, rows=None: LikeLengths(lengths, BATCH, seed)}
    pad = int(tokenizer.pad_token_id)
    if method.startswith(METHODS[0]):
        trainer = type("Ordered", (TopKTrainer,), in_order)(
            model=model, args=SFTConfig(**common), train_dataset=data.table.with_format("numpy"),
            data_collator=TopKCollator(pad, data.k), processing_class=tokenizer,
        )  # fmt: skip
        trainer.prepare(options, data, None)
        return trainer
    rows = data.table.select_columns(["input_ids", "labels"])
    if method == "sft":
        return type("Ordered", (SFTTrainer,), in_order)(
            model=model, args=SFTConfig(**common), train_dataset=rows, processing_class=tokenizer
        )
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    return type("Ordered", (GKDTrainer,), in_order)(
        model=model, teacher_model=teacher, args=GKDConfig(**common, lmbda=0.0, beta=0.0), train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=pad), processing_class=tokenizer,
    )  # fmt: skip


def _stop_after(seconds: float) -> Any:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):  # type: ignore[misc]
        """Ends a training when its CPU time is spent."""

        seconds = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds = time.process_time() - self.started
            control.should_training_stop = self.seconds >= seconds

    return Stop()


def divergence(teacher: Any, student: Any, data: Any) -> float:
    """Mean KL(teacher‖student) over the whole vocabulary, nats a token of the rows' outputs."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for ids, labels in zip(data.table["input_ids"], data.table["labels"], strict=True):
            wanted = torch.tensor(labels[1:]) != -100
            q, p = (
                model(input_ids=torch.tensor([ids])).logits[0, :-1][wanted].float().log_softmax(-1)
                for model in (teacher.eval(), student)
            )
            total += float((q.exp() * (q - p)).sum())
            count += int(wanted.sum())
    return total / max(count, 1)


def score(spec: Any, student: Any, tokenizer: Any, test: Any) -> float:
    """The task's metric of greedy answers of at most 64 tokens."""
    import torch

    from potstill.train.encode import encode_prompt, end_of_turn
    from potstill.train.evaluate import score_predictions

    outputs = []
    with torch.inference_mode():
        for text in test["input"]:
            ids = torch.tensor([encode_prompt(tokenizer, spec, text, MAX_LENGTH)])
            found = student.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False,
                eos_token_id=end_of_turn(student, tokenizer), pad_token_id=int(tokenizer.pad_token_id),
            )  # fmt: skip
            outputs.append(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return float(score_predictions(spec, test, outputs, None).to_json()[spec.metric] or 0.0)
