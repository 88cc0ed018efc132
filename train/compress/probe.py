"""A process of its own that loads a student, answers, and prints what that took, as one line of JSON.

    python -m potstill.train.compress.probe FOLDER JOB.json

The job holds `texts`, `rows` and `threads`. Peak memory is this process's, so it holds the libraries, too: a floor of
some 400 MiB with torch and 100 MiB with onnxruntime alone.
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
    answer, tokens = _answerer(folder, int(job["threads"]))
    load_s = time.perf_counter() - started
    texts: list[str] = job["texts"] or ["a"]
    chosen = texts[:: max(1, len(texts) // job["rows"])][: job["rows"]]
    for text in chosen[:3]:
        answer([text])
    found = {"load_s": round(load_s, 2), "threads": job["threads"], **_latency(answer, tokens, chosen)}
    batches = [(chosen * BATCH)[i : i + BATCH] for i in range(0, min(4 * BATCH, len(chosen) * BATCH), BATCH)]
    answer(batches[0])
    started, seen = time.perf_counter(), 0
    for batch in batches:
        answer(batch)
        seen += tokens(batch)
        if time.perf_counter() - started > BUDGET_S:
            break
    spent = time.perf_counter() - started
    found["tokens_per_s"] = {"1": found.pop("rate_1"), "16": round(seen / spent, 1)}
    found["peak_rss_mib"] = round(_peak_mib(), 1)
    print(json.dumps(found))


def _peak_mib() -> float:
    """Most memory that this process held. What Linux tells getrusage counts the parent's before the exec, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _latency(
    answer: Callable[[list[str]], Any], tokens: Callable[[Sequence[str]], int], texts: Sequence[str]
) -> dict[str, Any]:
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
    return {"latency_ms": latency, "rate_1": round(1000 * seen / sum(times), 1)}


def _answerer(folder: Path, threads: int) -> tuple[Callable[[list[str]], Any], Callable[[Sequence[str]], int]]:
    """A function that answers texts, and one that counts the tokens that they are (classifier) or get (decoder)."""
    from potstill.train.card import CARD
    from potstill.train.student import load_student

    if (folder / CARD).exists():
        student = load_student(folder)
        _set_threads(threads)
        if student.card.kind == "classification":
            return student.predict, lambda texts: sum(map(len, student.tokenizer(list(texts))["input_ids"]))
        model, tokenizer = student.model, student.tokenizer
    else:
        from potstill.train.compress.files import load_model

        model, tokenizer = load_model(folder)
        _set_threads(threads)
    import torch

    def write(texts: list[str]) -> None:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"][:64] for text in texts]
        width = max(map(len, ids))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        rows = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        with torch.inference_mode():
            model.generate(
                input_ids=rows, attention_mask=mask, do_sample=False, temperature=None, top_p=None, top_k=None,
                min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, pad_token_id=pad,
            )  # fmt: skip

    return write, lambda texts: NEW_TOKENS * len(texts)


def _set_threads(threads: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


if __name__ == "__main__":
    main()
