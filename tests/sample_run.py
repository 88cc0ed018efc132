"""A small run folder as the pipeline leaves it, with a real (tiny, random) BERT student: food for export and report.

The texts are made by rule from a seed; `hostile=True` puts markup, template syntax and control characters into every
place that data can reach.
"""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path
from typing import Any

from potstill.rows import Dropped, Row, Source, rows_to_dataset, write_dropped, write_rows
from potstill.task import Example, Inferred, Label, TaskSpec

LABELS = ("billing", "bug", "other")
TEACHER = "transformers:HuggingFaceTB/SmolLM2-135M-Instruct"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</style><style>body{display:none}</style>",
    "</title></head><body onload=alert(3)>",
    "{{ 7 * 7 }} {% raw %} {# note #}",
    "``` </code> | a | b | [x](javascript:alert(4))",
    "safe \u202egnp.exe\u2066 \x1b[31m\x00 text",
)
_WORDS = {
    "billing": [
        "invoice",
        "card",
        "charged",
        "refund",
        "twice",
        "monthly",
        "amount",
        "receipt",
        "payment",
        "plan",
        "price",
        "month",
        "account",
    ],
    "bug": [
        "crash",
        "button",
        "screen",
        "error",
        "freezes",
        "login",
        "update",
        "page",
        "broken",
        "loads",
        "slowly",
        "blank",
        "message",
    ],
    "other": [
        "hello",
        "thanks",
        "question",
        "hours",
        "office",
        "team",
        "visit",
        "school",
        "poster",
        "partner",
        "press",
        "idea",
        "feedback",
    ],
}


def ticket(label: str, rng: random.Random) -> str:
    """A text of that label, made by rule."""
    return " ".join(rng.choices(_WORDS[label], k=rng.randint(6, 22))).capitalize() + "."


def spec_for(hostile: bool = False, labels: tuple[str, ...] = LABELS) -> TaskSpec:
    bad = HOSTILE[0] if hostile else ""
    return TaskSpec(
        name="support-tickets",
        instruction=f"Sort support tickets by what they are about. {bad}".strip(),
        kind="classification",
        labels=tuple(Label(name, f"tickets about {name} {bad}".strip()) for name in labels),
        examples=(Example("My card was charged twice.", "billing"),),
        inferred=(Inferred("labels", ", ".join(labels), "rules"),),
    )


def make_rows(n: int, seed: int, *, hostile: bool = False) -> list[Row]:
    """Rows of three origins and three licences, labels in turn."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = LABELS[i % 3]
        text = ticket(label, rng) + (f" {HOSTILE[i % len(HOSTILE)]}" if hostile else "")
        sure = 0.5 + rng.random() / 2
        probs = tuple(sure if name == label else (1 - sure) / 2 for name in LABELS)
        if i % 4 == 0:
            place = HOSTILE[1] if hostile else "acme/tickets"
            source, origin, licence = Source(dataset=place, split="train", row=i), "retrieved", "cc-by-4.0"
        elif i % 4 == 1:
            source, origin, licence = Source(dataset="/home/someone/mine.csv", row=i), "user", "unknown"
        else:
            source, origin, licence = Source(teacher=TEACHER, requests=(f"key{i}",)), "generated", "apache-2.0"
        rows.append(Row(text, label, origin, source, label, probs, licence))  # type: ignore[arg-type]
    return rows


def write_run(folder: Path, *, kind: str = "real", rows: int = 120, hostile: bool = False, seed: int = 0) -> Path:
    """Write the whole folder. `kind` is `real` or `held-out`."""
    spec = spec_for(hostile)
    bad = HOSTILE[1] if hostile else ""
    _json(folder / "task" / "task.json", spec.to_json())
    _text(folder / "task" / "task.md", f"Sort support tickets.\n\ntest: /home/someone/test.csv\n{bad}\n")
    hits: list[dict[str, Any]] = [
        {"id": "acme/tickets", "title": f"Tickets {bad}", "score": 0.71, "licence": "cc-by-4.0", "languages": ["en"],
         "rows": 900, "status": "used", "reason": ""},
        {"id": "acme/mails", "title": "Mails", "score": 0.55, "licence": None, "languages": "en", "rows": 40,
         "status": "skipped", "reason": f"labels do not fit: {bad or 'none of 4 maps to the task'}"},
    ]  # fmt: skip
    refused = [{"id": "acme/closed", "reason": "licence cc-by-nc-4.0 is denied"}]
    query = f"support tickets {bad}"
    _json(folder / "retrieval" / "ranking.json", {"query": query, "hits": hits, "refused": refused})
    train, validation = make_rows(rows, seed, hostile=hostile), make_rows(rows // 4, seed + 1, hostile=hostile)
    for stage in ("merge", "soft"):
        write_rows(rows_to_dataset(train, LABELS), folder / stage / "train.parquet")
        write_rows(rows_to_dataset(validation, LABELS), folder / stage / "validation.parquet")
    tested = [row for row in make_rows(rows // 2, seed + 2)]
    if kind == "held-out":
        write_rows(rows_to_dataset(tested, LABELS), folder / "merge" / "heldout.parquet")
    dropped = [
        Dropped("near_duplicate", f"like row 3 {bad}", f"Invoice twice. {bad}", "billing", "generated", stage="merge")
        for _ in range(7)
    ] + [Dropped("label_leak", "", f"This is a bug {bad}", "bug", "generated", stage="merge")]
    for stage in ("retrieval", "datagen", "merge"):
        write_dropped(dropped if stage == "merge" else dropped[:1], folder / stage / "dropped.jsonl")
        report = {"rows": rows, "nested": {"distinct_2": 0.71, "note": bad}, "list": [1, 2]}
        _json(folder / stage / "report.json", report)
    _evaluate(folder, tested, kind, seed, bad)
    history = [
        {"epoch": i / 2, "step": 10 * i, "train_loss": 1.1 * 0.8**i, "validation_loss": 0.3 + 0.9 * 0.8**i,
         "score": 0.9 - 0.5 * 0.8**i}
        for i in range(1, 9)
    ]  # fmt: skip
    _json(folder / "train" / "history.json", history)
    base = "sentence-transformers/all-MiniLM-L6-v2"
    _json(folder / "train" / "report.json", {"base_model": base, "seconds": 4.2, "device": "cpu"})
    for stage, seconds in (("retrieval", 3.1), ("datagen", 95.0), ("merge", 1.2), ("soft", 41.0), ("train", 63.5)):
        manifest = {"key": "ab" * 32, "files": {}, "output": "cd", "seconds": seconds,
                    "facts": {"summary": f"{rows} rows {bad}".strip()},
                    "key_parts": {"options": {"hard_weight": 0.5, "soft_weight": 0.5}}}  # fmt: skip
        _json(folder / stage / "manifest.json", manifest)
    write_student(folder / "train" / "student", seed)
    _ledger(folder / "ledger.sqlite")
    _json(folder / "run.json", {
        "command": f"potstill run /home/someone/task.md -n {rows} {bad}".strip(),
        "settings": {"teacher": "transformers", "n": rows, "catalogue": ["/home/someone/cards"]},
        "versions": {"potstill": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "teacher": {"backend": "transformers", "model": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "seconds_this_time": 203.4,
    })  # fmt: skip
    return folder


def write_student(folder: Path, seed: int = 0) -> None:
    """A BERT of 2 layers and 32 dimensions with random weights and a word-level vocabulary."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir(parents=True)
    words = sorted({word for words in _WORDS.values() for word in words})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
    (folder.parent / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizer(str(folder.parent / "vocab.txt"), model_max_length=64)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder.parent / "vocab.txt").unlink()
    _json(
        folder / "potstill.json",
        {"name": "support-tickets", "kind": "classification", "labels": list(LABELS), "max_length": 64},
    )
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "optimizer.pt").write_bytes(b"never published")
    (folder / "training_args.bin").write_bytes(b"never published")


def _evaluate(folder: Path, tested: list[Row], kind: str, seed: int, bad: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(seed)
    columns: dict[str, list[Any]] = {"input": [r.input for r in tested], "gold": [r.output for r in tested]}
    systems = []
    for name, column, skill in (
        ("student", "student", 0.9), ("teacher (calibrated)", "teacher_calibrated", 0.6),
        ("teacher (raw)", "teacher_raw", 0.35), ("majority", "majority", 0.33),
    ):  # fmt: skip
        said = [row.output if rng.random() < skill else rng.choice(LABELS) for row in tested]
        columns[column] = said
        columns[f"{column}_confidence"] = [0.4 + 0.6 * rng.random() for _ in tested]
        counts = [[sum(a == r.output and a == g and s == b for s, r, a in zip(said, tested, [g] * len(tested)))
                   for b in LABELS] + [0] for g in LABELS]  # fmt: skip
        right = sum(s == r.output for s, r in zip(said, tested)) / len(tested)
        entry: dict[str, Any] = {
            "name": name, "rows": len(tested), "accuracy": right, "macro_f1": right * 0.98, "ece": 0.08,
            "ci": {"macro_f1": [right - 0.06, min(1.0, right + 0.05)]}, "labels": list(LABELS), "confusion": counts,
        }  # fmt: skip
        if name == "student":
            entry |= {"size_mib": 43.3, "latency_ms": {"p50": 6.2, "p95": 8.9, "threads": 1}}
        if name == "majority":
            entry |= {"answer": LABELS[0], "answer_from": "the commonest label of the training rows"}
        systems.append(entry)
    source = "/home/someone/test.csv" if kind == "real" else f"a held-out part of the merged rows {bad}".strip()
    scores = {"test_set": {"kind": kind, "rows": len(tested), "source": source}, "metric": "macro_f1",
              "labels": list(LABELS), "systems": systems}  # fmt: skip
    _json(folder / "evaluate" / "scores.json", scores)
    pq.write_table(pa.table(columns), folder / "evaluate" / "predictions.parquet")


def _ledger(path: Path) -> None:
    from potstill.asking.ledger import Ledger

    with Ledger(path) as ledger:
        for i in range(12):
            ledger.record(
                f"key{i}", purpose="generate" if i < 8 else "label scores", teacher=TEACHER, request={}, reply={},
                finish="stop" if i else "length", max_tokens=64, prompt_tokens=100 + i, completion_tokens=30,
                seconds=0.2,
            ).result()  # fmt: skip
    sqlite3.connect(path).close()


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _json(path: Path, value: Any) -> None:
    _text(path, json.dumps(value, ensure_ascii=False))
