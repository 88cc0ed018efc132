"""The suite `files` of `torture.py`: data, catalogue, index and student files that were cut or changed.

A file is read or ends with one error of potstill: no other exception, no death of the process (Arrow, FAISS,
safetensors and tokenizers are C++ and Rust), no wait over twenty seconds and no growth of memory over a gibibyte. Each
kind is read in a process of its own, which says where it is, so that a death costs one input.

    python torture_files.py FOLDER KIND FIRST COUNT SEED     the process of one kind
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MOST_S = 20
_GROWTH_MIB = 1024
_NUMBERS = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xff\xff\xff\x7f",
    b"\x00" * 8,
    b"\xff" * 8,
    b"[" * 3000,
    b"9" * 400,
)
# What is mutated, and what is then read: a file of the folder that the parent writes.
KINDS = {
    "parquet": "rows.parquet", "jsonl": "rows.jsonl", "jsonl.gz": "rows.jsonl.gz", "json": "rows.json",
    "csv": "rows.csv", "catalogue of parquet": "cards.parquet", "catalogue of lines": "cards.jsonl",
    "index": "cards.index", "student's weights": "student/model.safetensors", "student's config": "student/config.json",
    "student's card": "student/potstill.json", "student's tokenizer": "student/tokenizer.json",
}  # fmt: skip


def files(inputs: int, place: Path, seed: int = 0) -> list[dict[str, Any]]:
    """The same number of files of each kind."""
    sound = place / "sound"
    _write_sound(sound)
    records = []
    for kind in KINDS:
        count, first, told = inputs // len(KINDS), 0, Counter[str]()
        slowest, grown, wrong = 0.0, 0.0, []
        while first < count:
            command = [sys.executable, __file__, str(sound), kind, str(first), str(count), str(seed)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert process.stdout is not None
            for line in process.stdout:
                item = json.loads(line)
                first = item["next"]
                told.update(item["told"])
                slowest, grown = max(slowest, item["slowest"]), max(grown, item["grown"])
                wrong += item["wrong"]
            if process.wait() and first < count:
                wrong.append(f"the process died of {process.returncode} at input {first}")
                first += 1
        if grown > _GROWTH_MIB:
            wrong.append(f"memory grew by {grown:.0f} MiB")
        records.append(
            {"suite": "files", "what": kind, "count": count, "bad": len(wrong), "read": told["read"],
             "refused": told["refused"], "slowest_ms": round(1000 * slowest, 1), "grown_mib": round(grown),
             "which": sorted(set(wrong))[:4] or None}
        )  # fmt: skip
    return records


def _write_sound(folder: Path) -> None:
    """A sound file of each kind."""
    import faiss
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Value
    from torture_child import tiny
    from transformers import AutoTokenizer, BertForSequenceClassification

    from potstill.retrieval.build import build_catalogue
    from potstill.retrieval.index_files import StoredIndex, write_index
    from potstill.train.card import StudentCard
    from potstill.train.student import publish

    folder.mkdir()
    labels = ("refund", "delivery", "account")
    rows = [{"text": f"Message {i} of a shop, {'long ' * (i % 7)}", "label": i % 3} for i in range(60)]
    table = Dataset.from_list(
        rows, features=Features({"text": Value("string"), "label": ClassLabel(names=list(labels))})
    )
    table.to_parquet(folder / "rows.parquet")
    named = [{**row, "label": labels[int(str(row["label"]))]} for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in named)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "rows.json").write_text(json.dumps(named))
    (folder / "rows.csv").write_text("text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in named))
    cards = [
        {"id": f"some/set-{i}", "title": f"Set {i}", "description": "Messages " * (i % 9), "licence": "mit",
         "tags": ["language:en"], "configs": {"default": {"features": {"text": "string"}, "splits": {"train": i}}}}
        for i in range(20)
    ]  # fmt: skip
    (folder / "cards.jsonl").write_text("".join(json.dumps(card) + "\n" for card in cards))
    build_catalogue([str(folder / "cards.jsonl")], folder / "cards.parquet")
    flat = faiss.IndexFlatIP(8)
    flat.add(np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))
    keys = np.frombuffer(np.random.default_rng(1).bytes(40 * 32), dtype="V32")
    write_index(folder / "cards.index", StoredIndex(flat, keys, "flat"), "encoder")
    tiny(str(folder / "model"))
    model = BertForSequenceClassification.from_pretrained(folder / "model", num_labels=3)
    card = StudentCard("shop", "classification", labels=labels)
    publish(model, AutoTokenizer.from_pretrained(folder / "model"), card, folder / "student")


def _readers(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """What reads a file of each kind, as a run does."""
    from potstill.retrieval.catalogue import read_catalogue
    from potstill.retrieval.index_files import index_keys, read_index
    from potstill.retrieval.load import read_data
    from potstill.task import DataRef, Label, TaskSpec
    from potstill.train.student import load_student

    spec = TaskSpec(
        "shop", "Sort messages.", "classification", tuple(Label(name) for name in ("refund", "delivery", "account"))
    )

    def rows(file: Path) -> None:
        read_data(DataRef(str(file), None, None, ("text",), "label"), spec)

    def index(file: Path) -> None:
        index_keys(file)
        read_index(file, "encoder")

    def student(file: Path) -> None:
        load_student(file.parent).predict(["Where is my parcel?"])

    return {
        kind: student if "student" in kind else index if kind == "index" else
        (lambda file: read_catalogue([file])) if "catalogue" in kind else rows
        for kind in KINDS
    }  # fmt: skip


def mutant(data: bytes, draw: random.Random) -> bytes:
    """Bytes with cuts, flipped bits, blocks moved, repeated or zeroed, and numbers put in."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 6))):
        place = draw.randint(0, len(changed))
        # The ends of binary files say where everything else is.
        if draw.random() < 0.3:
            place = draw.choice((draw.randint(0, min(64, len(changed))), max(0, len(changed) - draw.randint(0, 400))))
        end = min(len(changed), place + draw.choice((1, 4, 8, 60, 1000)))
        kind = draw.random()
        if kind < 0.35 and place < len(changed):
            changed[place] ^= 1 << draw.randint(0, 7)
        elif kind < 0.5:
            changed[place:end] = draw.choice(_NUMBERS)
        elif kind < 0.6:
            changed[place:end] = bytes(end - place)
        elif kind < 0.7:
            del changed[place:]
        elif kind < 0.8:
            del changed[place:end]
        elif kind < 0.9:
            changed[place:place] = changed[place:end] * draw.randint(1, 4)
        else:
            changed[place:end] = draw.randbytes(end - place)
    return bytes(changed)


def work(folder: Path, kind: str, first: int, count: int, seed: int) -> None:
    """Read mutants `first` to `count`, with a line of JSON for each."""
    from potstill.errors import PotstillError

    # Libraries print to the standard output of the process, which is the parent's ear.
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    reader = _readers(folder)[kind]
    sound = (folder / KINDS[kind]).read_bytes()
    place = folder.parent / "mutants" / kind.replace(" ", "-").replace("'", "")
    target = place / KINDS[kind]
    shutil.rmtree(place, ignore_errors=True)
    if "/" in KINDS[kind]:
        shutil.copytree(folder / "student", place / "student")
    place.mkdir(parents=True, exist_ok=True)
    target.write_bytes(sound)
    reader(target)  # imports what it needs
    signal.signal(signal.SIGALRM, _too_long)
    told, wrong, slowest = Counter[str](), [], 0.0
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, count):
        target.write_bytes(mutant(sound, random.Random(f"{seed} {kind} {number}")))
        began = time.monotonic()
        signal.alarm(_MOST_S)
        try:
            reader(target)
            told["read"] += 1
        except PotstillError:
            told["refused"] += 1
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error!s:.100} (input {number})")
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.monotonic() - began)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
        print(
            json.dumps({"next": number + 1, "told": told, "slowest": slowest, "grown": grown, "wrong": wrong}),
            file=report,
            flush=True,
        )
        told, wrong = Counter(), []


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"over {_MOST_S} s")


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
