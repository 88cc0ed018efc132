"""A process of its own that loads a student and answers when it is told to, and says what that took.

    python -m potstill.train.compress.probe FOLDER JOB.json        commands on its input, a line of JSON each back

    one I       the I-th text alone        {"ms": whole answer, "first_ms": until its first token (decoders), "tokens"}
    many        batches of 16              {"tokens_per_s"}
    end         what the process was       {"load_s", "threads", "peak_rss_mib", "gpu"}

Who asks (`measure.timed`) has several such processes at once, of the original and of the result, and asks them in turn:
each waits without any work while another answers, so that all see the same machine. The job holds `texts` and
`threads`. A student is measured on the CPU, and where a GPU is at hand on that as well (`gpu`), so that figures of two
formats always stand for the same device. Peak memory is this process's, so it holds the libraries, too: a floor of some
400 MiB with torch and 100 MiB with onnxruntime alone.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MARK = "probe "  # before each reply, as libraries print what they like
NEW_TOKENS = 16
BATCH = 16
BUDGET_S = 12.0
_WARM_UPS = 3

# Answers texts; gives the seconds until the first token, None where an answer is no text.
Answer = Callable[[list[str]], float | None]
Count = Callable[[Sequence[str]], int]


def main() -> None:
    """Answer the commands about the student that the arguments name."""
    folder, job = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8"))
    replies, sys.stdout = sys.stdout, sys.stderr
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(job["threads"]))
    started = time.perf_counter()
    answer, tokens = _answerer(folder, int(job["threads"]), "cpu")
    load_s = time.perf_counter() - started
    texts: list[str] = job["texts"]
    for text in texts[:_WARM_UPS]:
        answer([text])

    def reply(found: dict[str, Any]) -> None:
        """One line, at once."""
        print(MARK + json.dumps(found), file=replies, flush=True)

    reply({})
    for line in sys.stdin:
        command, _, which = line.strip().partition(" ")
        if command == "one":
            reply(one(answer, tokens, texts[int(which)]))
        elif command == "many":
            reply({"tokens_per_s": many(answer, tokens, texts)})
        else:
            found = {"load_s": round(load_s, 2), "threads": job["threads"], "peak_rss_mib": round(_peak_mib(), 1)}
            if gpu := gpu_speed(folder, int(job["threads"]), texts):
                found["gpu"] = gpu
            reply(found)
            break
    sys.stdout = replies


def one(answer: Answer, tokens: Count, text: str) -> dict[str, Any]:
    """`ms` of one answer, `first_ms` until its first token (None where it is no text), and its `tokens`."""
    tick = time.perf_counter()
    first = answer([text])
    spent = time.perf_counter() - tick
    return {"ms": 1000 * spent, "first_ms": None if first is None else 1000 * first, "tokens": tokens([text])}


def many(answer: Answer, tokens: Count, texts: list[str]) -> float:
    """Tokens a second in batches of `BATCH`."""
    batches = [(texts * BATCH)[i : i + BATCH] for i in range(0, min(4 * BATCH, len(texts) * BATCH), BATCH)]
    answer(batches[0])
    started, seen = time.perf_counter(), 0
    for batch in batches:
        answer(batch)
        seen += tokens(batch)
        if time.perf_counter() - started > BUDGET_S:
            break
    return round(seen / (time.perf_counter() - started), 1)


def figures(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What many a `one` come to: `latency_ms` and `first_token_ms` (p50, p95, inputs), and `tokens_per_s` at batch 1.

    Args:
        answers: At least one.
    """
    spent = sum(item["ms"] for item in answers)
    found: dict[str, Any] = {"latency_ms": spread([item["ms"] for item in answers])}
    if firsts := [item["first_ms"] for item in answers if item["first_ms"] is not None]:
        found["first_token_ms"] = spread(firsts)
    found["tokens_per_s"] = {"1": round(1000 * sum(item["tokens"] for item in answers) / spent, 1)}
    return found


def spread(times: Sequence[float]) -> dict[str, Any]:
    """Median and 95th percentile (the smallest time that 95 % do not exceed) of some times, and their number."""
    ranked = sorted(times)
    middle, late = ranked[len(ranked) // 2], ranked[math.ceil(0.95 * len(ranked)) - 1]
    return {"p50": round(middle, 3), "p95": round(late, 3), "inputs": len(ranked)}


def gpu_speed(folder: Path, threads: int, texts: list[str]) -> dict[str, Any] | None:
    """The same on a GPU, with its `name`; None without one, and for an ONNX student, which is read without torch."""
    if "torch" not in sys.modules:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        answer, tokens = _answerer(folder, threads, "cuda")
        for text in texts[:_WARM_UPS]:
            answer([text])
        answers: list[dict[str, Any]] = []
        started = time.perf_counter()
        for text in texts:
            answers.append(one(answer, tokens, text))
            if len(answers) >= _WARM_UPS and time.perf_counter() - started > BUDGET_S:
                break
        found = {"name": torch.cuda.get_device_name(), **figures(answers)}
        found["tokens_per_s"]["16"] = many(answer, tokens, texts)
        return found
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


def _answerer(folder: Path, threads: int, device: str) -> tuple[Answer, Count]:
    """A function that answers texts, and one that counts the tokens that they are (classifier) or get (decoder).

    A decoder writes `NEW_TOKENS` tokens whatever they say, so that two of them have the same work: after a task's own
    prompt, or after the first 64 tokens of running text.
    """
    from potstill.train.card import CARD
    from potstill.train.student import load_student

    if (folder / CARD).exists():
        student = load_student(folder, device=device)
        _set_threads(threads)
        if student.card.kind == "classification":

            def classify(texts: list[str]) -> None:
                """Labels."""
                student.predict(texts)

            return classify, lambda texts: sum(map(len, student.tokenizer(list(texts))["input_ids"]))
        model, tokenizer, prompt = student.model, student.tokenizer, student.prompt_ids
    else:
        from potstill.train.compress.files import load_model

        model, tokenizer = load_model(folder)
        if device != "cpu":  # where it is already; some quantised models cannot be moved at all
            model.to(device)
        _set_threads(threads)

        def prompt(text: str) -> list[int]:
            """The beginning of a running text."""
            found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"][:64]
            return found

    import torch
    from transformers import StoppingCriteria

    class Clock(StoppingCriteria):  # type: ignore[misc]
        """Told after every token; notes when the first one was there."""

        first: float | None = None

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            if self.first is None:
                input_ids[0, -1].item()  # a GPU is waited for
                self.first = time.perf_counter()
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def write(texts: list[str]) -> float:
        """Text; the seconds until its first token."""
        tick = time.perf_counter()
        ids = [prompt(text) for text in texts]
        width = max(map(len, ids))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        rows = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        given = {"input_ids": rows.to(model.device), "attention_mask": mask.to(model.device)}
        clock = Clock()
        with torch.inference_mode():
            model.generate(
                **given, do_sample=False, temperature=None, top_p=None, top_k=None, stopping_criteria=[clock],
                min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, pad_token_id=pad,
            )  # fmt: skip
        assert clock.first is not None
        return clock.first - tick

    return write, lambda texts: NEW_TOKENS * len(texts)


def _set_threads(threads: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


if __name__ == "__main__":
    main()
