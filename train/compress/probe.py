"""A process of its own that loads a student, answers, and prints what that took, as one line of JSON.

    python -m potstill.train.compress.probe FOLDER JOB.json

The job holds `texts`, `rows` and `threads`. A student is measured on the CPU, and where a GPU is at hand on that as
well (`gpu`), so that figures of two formats always stand for the same device. Peak memory is this process's, so it
holds the libraries, too: a floor of some 400 MiB with torch and 100 MiB with onnxruntime alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NEW_TOKENS = 16
BATCH = 16
BUDGET_S = 12.0


def main() -> None:
    """Measure the student that the arguments name."""
    folder, job = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8"))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(job["threads"]))
    started = time.perf_counter()
    answer, tokens = _answerer(folder, int(job["threads"]), "cpu")
    load_s = time.perf_counter() - started
    texts: list[str] = job["texts"] or ["a"]
    chosen = texts[:: max(1, len(texts) // job["rows"])][: job["rows"]]
    found = {"load_s": round(load_s, 2), "threads": job["threads"], **speed(answer, tokens, chosen)}
    found["peak_rss_mib"] = round(_peak_mib(), 1)
    if gpu := gpu_speed(folder, int(job["threads"]), chosen):
        found["gpu"] = gpu
    print(json.dumps(found))


def speed(
    answer: Callable[[list[str]], Any], tokens: Callable[[Sequence[str]], int], texts: list[str]
) -> dict[str, Any]:
    """`latency_ms` of one text (p50, p95), and `tokens_per_s` at batch 1 and 16.

    Args:
        answer: Answers texts.
        tokens: Counts the tokens of texts.
        texts: At least one.
    """
    for text in texts[:3]:
        answer([text])
    latency, rate = _latency(answer, tokens, texts)
    batches = [(texts * BATCH)[i : i + BATCH] for i in range(0, min(4 * BATCH, len(texts) * BATCH), BATCH)]
    answer(batches[0])
    started, seen = time.perf_counter(), 0
    for batch in batches:
        answer(batch)
        seen += tokens(batch)
        if time.perf_counter() - started > BUDGET_S:
            break
    spent = time.perf_counter() - started
    return {"latency_ms": latency, "tokens_per_s": {"1": rate, "16": round(seen / spent, 1)}}


def gpu_speed(folder: Path, threads: int, texts: list[str]) -> dict[str, Any] | None:
    """The same on a GPU, with its `name`; None without one, and for an ONNX student, which is read without torch."""
    if "torch" not in sys.modules:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        answer, tokens = _answerer(folder, threads, "cuda")
        return {"name": torch.cuda.get_device_name(), **speed(answer, tokens, texts)}
    except (RuntimeError, ValueError) as error:  # a format that stays where it was loaded, or too little memory
        return {"failed": str(error).splitlines()[0][:200]}


def _peak_mib() -> float:
    """Most memory that this process held. What Linux tells getrusage counts the parent's before the exec, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _latency(
    answer: Callable[[list[str]], Any], tokens: Callable[[Sequence[str]], int], texts: Sequence[str]
) -> tuple[dict[str, Any], float]:
    """Latency in ms, and tokens a second at batch 1."""
    times: list[float] = []
    seen = 0
    started = time.perf_counter()
    for text in texts:
        if len(times) >= 3 and time.perf_counter() - started > BUDGET_S:
            break
        tick = time.perf_counter()
        answer([text])
        times.append(1000 * (time.perf_counter() - tick))
        seen += tokens([text])
    ranked = sorted(times)
    middle, late = ranked[len(ranked) // 2], ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))]
    latency = {"p50": round(middle, 3), "p95": round(late, 3), "inputs": len(times)}
    return latency, round(1000 * seen / sum(times), 1)


def _answerer(
    folder: Path, threads: int, device: str
) -> tuple[Callable[[list[str]], Any], Callable[[Sequence[str]], int]]:
    """A function that answers texts, and one that counts the tokens that they are (classifier) or get (decoder)."""
    from potstill.train.card import CARD
    from potstill.train.student import load_student

    if (folder / CARD).exists():
        student = load_student(folder, device=device)
        _set_threads(threads)
        if student.card.kind == "classification":
            return student.predict, lambda texts: sum(map(len, student.tokenizer(list(texts))["input_ids"]))
        model, tokenizer = student.model, student.tokenizer
    else:
        from potstill.train.compress.files import load_model

        model, tokenizer = load_model(folder)
        if device != "cpu":  # where it is already; some quantised models cannot be moved at all
            model.to(device)
        _set_threads(threads)
    import torch

    def write(texts: list[str]) -> None:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"][:64] for text in texts]
        width = max(map(len, ids))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        rows = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        given = {"input_ids": rows.to(model.device), "attention_mask": mask.to(model.device)}
        with torch.inference_mode():
            model.generate(
                **given, do_sample=False, temperature=None, top_p=None, top_k=None,
                min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, pad_token_id=pad,
            )  # fmt: skip

    return write, lambda texts: NEW_TOKENS * len(texts)


def _set_threads(threads: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


if __name__ == "__main__":
    main()
