"""What a compression step left: counted weights, perplexity, agreement, and speed and memory in a process of its own.

Latency and memory are those of the files as a user would load them: a fresh process (`python -m
potstill.train.compress.probe`) loads the student, answers, and says what it took. The original is asked beside it, text
by text, so that both figures are of the same minutes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.errors import TrainingError
from potstill.train.calibration_data import Calibration
from potstill.train.card import weights_mib
from potstill.train.compress.probe import BUDGET_S, MARK, figures
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


def timed(
    original: Path, folders: Sequence[Path], texts: Sequence[str], *, threads: int = 1, rows: int = 40
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Speed and memory of stored students, each in a fresh process, asked in turn with the original's.

    One alone works at a time, and every second text is asked for in the other order: what the machine does beside meets
    both alike. Two are in memory at once.

    Args:
        original: What the others are compared with; loaded once.
        folders: The others, at least one.
        texts: Inputs to answer; a decoder without a card goes on writing after them.
        threads: Threads that they may use.
        rows: Inputs at batch 1.

    Returns:
        Of the original (as beside the first of the others) and of each other: `load_s`, `peak_rss_mib`, `latency_ms`,
        for decoders `first_token_ms` (p50 and p95 of one input), and `tokens_per_s` at batch 1 and 16, on the CPU;
        `gpu` holds its name and the last three where there is one. The others have `latency_ratio` (and
        `first_token_ratio`), the median over the texts of their time over the original's, and in `original` the
        original's times beside them.

    Raises:
        TrainingError: A process failed.
    """
    given = list(texts) or ["a"]
    chosen = given[:: max(1, len(given) // rows)][:rows]
    with contextlib.ExitStack() as held:
        job = held.enter_context(tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8"))
        json.dump({"texts": chosen, "threads": threads}, job)
        job.flush()
        first = held.enter_context(_Asked(original, Path(job.name), threads))
        found: list[dict[str, Any]] = []
        whole = 0.0
        for folder in folders:
            with _Asked(folder, Path(job.name), threads) as other:
                theirs, ours = _in_turn(first, other, len(chosen))
                one, beside = figures(ours), figures(theirs)
                one["tokens_per_s"]["16"] = other.ask("many")["tokens_per_s"]
                whole = whole or first.ask("many")["tokens_per_s"]
                beside["tokens_per_s"]["16"] = whole
                found.append({**other.ask("end"), **one, **_ratios(ours, theirs), "original": beside})
        return {**first.ask("end"), **found[0]["original"]}, found


def _in_turn(first: _Asked, other: _Asked, texts: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What both need for text after text, until their time is over."""
    answers: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    started = time.monotonic()
    for index in range(texts):
        pair = list(zip((first, other), answers, strict=True))
        for student, own in pair if index % 2 == 0 else reversed(pair):
            own.append(student.ask(f"one {index}"))
        if index >= 2 and time.monotonic() - started > 2 * BUDGET_S:
            break
    return answers


def _ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Median of our times over theirs, text by text."""
    found = {}
    for name, key in (("latency_ratio", "ms"), ("first_token_ratio", "first_ms")):
        if pairs := [a[key] / b[key] for a, b in zip(ours, theirs, strict=True) if a[key] and b[key]]:
            found[name] = round(statistics.median(pairs), 4)
    return found


class _Asked:
    """A process that loads a student and answers one command at a time; a context that ends it."""

    def __init__(self, folder: Path, job: Path, threads: int):
        self._folder = folder
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed on exit
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "potstill.train.compress.probe", str(folder), str(job)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )

    def __enter__(self) -> _Asked:
        try:
            self._reply()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._process.communicate()
        self._errors.close()

    def ask(self, command: str) -> dict[str, Any]:
        """Its reply to a command.

        Raises:
            TrainingError: It ended without one, or took too long.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(command, file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        late = threading.Event()

        def end() -> None:
            """Ends a process that is too late."""
            late.set()
            self._process.kill()

        # Of each reply, as the original waits while all the others are asked.
        limit = threading.Timer(PROBE_TIMEOUT_S, end)
        limit.start()
        try:
            for line in self._process.stdout:
                if line.startswith(MARK):
                    found: dict[str, Any] = json.loads(line[len(MARK) :])
                    return found
        finally:
            limit.cancel()
        code = self._process.wait()
        self._errors.seek(0)
        last = (self._errors.read().strip() or f"no message, exit status {code}").splitlines()[-1]
        last = f"nothing came for {PROBE_TIMEOUT_S} s; {last}" if late.is_set() else last
        raise TrainingError(f"the student at {self._folder} does not answer ({last}); its files stay for a look")
