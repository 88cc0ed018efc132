"""What a compression step left: counted weights, perplexity, agreement, and speed and memory in a process of its own.

Latency and memory are those of the files as a user would load them: a fresh process (`python -m
potstill.train.compress.probe`) loads the student, answers, and says what it took.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.errors import TrainingError
from potstill.train.calibration_data import Calibration
from potstill.train.card import weights_mib
from potstill.train.compress.state import Compressed
from potstill.train.quantize.schemes import targets

PROBE_TIMEOUT_S = 600


def count_weights(state: Compressed, folder: Path | None = None) -> dict[str, Any]:
    """Parameters, share of zeros in the matrices of the layers, bits a parameter on disk.

    Args:
        state: The student.
        folder: Where it is stored; None leaves the bits out.
    """
    parameters = sum(parameter.numel() for parameter in state.model.parameters())
    zeros = total = 0
    for target in targets(state.model):
        if target.part == "blocks":
            weight = state.model.get_parameter(target.name)
            zeros += weight.numel() - int(weight.count_nonzero())
            total += weight.numel()
    found: dict[str, Any] = {"parameters": parameters, "zeros": round(zeros / max(1, total), 5)}
    if folder is not None:
        mib = weights_mib(folder)
        found |= {"size_mib": round(mib, 3), "bits_per_parameter": round(mib * 2**23 / parameters, 3)}
    return found


@torch.inference_mode()
def read_text(model: Any, data: Calibration) -> tuple[float, Tensor]:
    """Perplexity of a decoder on texts, and its likeliest next token at every place.

    Args:
        model: The decoder.
        data: Windows with labels; -100 is not counted.

    Returns:
        Perplexity (infinite where the mean loss cannot be raised to a power), and (places,) int32.
    """
    loss, places = 0.0, 0
    answers = []
    model.eval()
    for batch in data.batches:
        # One row at a time: a batch's logits over 49,152 tokens would take gigabytes.
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            length = int(mask.sum())
            logits = model(input_ids=ids[None, :length], attention_mask=mask[None, :length]).logits[0, :-1].float()
            wanted = labels[1:length]
            counted = wanted != -100
            loss += float(F.cross_entropy(logits, wanted, ignore_index=-100, reduction="sum"))
            places += int(counted.sum())
            answers.append(logits[counted].argmax(-1).int())
    if not places:
        return math.nan, torch.zeros(0, dtype=torch.int32)
    mean = loss / places
    return (math.exp(mean) if mean < 700 else math.inf), torch.cat(answers)


def probe(folder: Path, texts: Sequence[str], *, threads: int = 1, rows: int = 40) -> dict[str, Any]:
    """Speed and memory of a stored student in a fresh process.

    Args:
        folder: The student.
        texts: Inputs to answer; a decoder without a card goes on writing after them.
        threads: Threads that it may use.
        rows: Inputs at batch 1.

    Returns:
        `load_s`, `peak_rss_mib`, `latency_ms` (p50 and p95 of one input), `tokens_per_s` at batch 1 and 16, on the CPU;
        `gpu` holds its name and the last two where there is one.

    Raises:
        TrainingError: The process failed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump({"texts": list(texts), "rows": rows, "threads": threads}, file)
        file.flush()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "potstill.train.compress.probe", str(folder), file.name]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=PROBE_TIMEOUT_S, check=False
        )
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise TrainingError(f"the compressed student at {folder} does not answer ({last}); its files stay for a look")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
