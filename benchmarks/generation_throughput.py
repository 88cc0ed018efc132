"""Generation beside raw vLLM on the same engine: in process, and through vLLM's OpenAI server. And the transformers
teacher beside transformers' own `generate`.

    python benchmarks/generation_throughput.py [--requests 1000] [--rounds 3]
        [--only engine|server|transformers|path|path-vllm|prompts]

Both sides get the same prompts (those that `potstill run` sends for the support task), the same sampling and the
same seeds, on one engine that stays up; its prefix cache is emptied before each side's turn, and the sides take turns
(ABBA). In process, raw vLLM is `LLM.generate` with token ids, so it does not even render or tokenise. Through the
server, it is a plain asyncio client: `AsyncOpenAI` and as many workers as potstill's teacher has requests in flight.
potstill's side is what a run uses: the asker with its ledger on disk, over the teacher's stream.

`ratio_to_raw_vllm` is the median over rounds of tokens a second, ours by raw, each pair next to each other in time.
`cpu_ratio` is the same of tokens a CPU second (of this process; through the server, of both processes), which other
work on the machine cannot change. `ledger_share` is the time that the asker's thread spent in the ledger, waiting
included, and the writer thread's CPU time, by wall-clock time.

`generate` gets the same prompts in batches of as many rows as the teacher has, left-padded, those of like length
together, in the same numeric format, with the same temperature, nucleus and bound; neither side has stop strings, so
that both write until the end token or the bound. Its ratio is `ratio_to_generate`.

`path` is the whole of `generate_rows` in simulated time (see `generation_path`), and `prompts` the share of a run's
prompts that begins like an earlier one; neither needs a model. `path-vllm` is the whole of `generate_rows` on vLLM,
filters, refills and the draining of the last replies included, beside `LLM.generate` on the very requests that it sent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import psutil
from results_file import print_table, read_results, write_results

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Request
from potstill.asking.teacher_json import request_from_json
from potstill.datagen.generate import generate_rows
from potstill.datagen.options import GenerationOptions
from potstill.datagen.teachers.local import LocalTeacher
from potstill.datagen.teachers.openai_api import OpenAITeacher
from potstill.datagen.teachers.openai_endpoints import OpenAIOptions
from potstill.datagen.teachers.openai_wire import chat_body
from potstill.datagen.teachers.vllm_engine import VllmTeacher
from potstill.datagen.teachers.vllm_options import VllmOptions
from potstill.datagen.writing import Material, examples_by_label, write_request
from potstill.models import SMOLLM2, local_model
from potstill.task.file import read_task_file

TASK = Path(__file__).resolve().parent.parent / "examples" / "support" / "task.md"
_MODEL_LEN = 1024


@dataclass(frozen=True)
class Turn:
    """One side's turn: what it generated, in how many seconds, and how much of them the ledger took."""

    tokens: int
    wall_s: float
    cpu_s: float
    ledger_s: float = 0.0


def prompts(count: int, max_tokens: int, abilities: Abilities) -> list[Request]:
    """The first `count` requests of a run of the support task."""
    spec = read_task_file(str(TASK)).spec
    options = GenerationOptions(rows=count, max_tokens=max_tokens)
    material = Material(
        spec=spec,
        options=options,
        abilities=abilities,
        descriptions={label.name: label.description for label in spec.labels},
        topics={},
        examples=examples_by_label(spec),
        styles={},
    )
    names = spec.label_names
    return [write_request(material, index, names[index % len(names)], (), True) for index in range(count)]


@contextmanager
def ledger_clock(ledger: Ledger) -> Iterator[list[float]]:
    """Adds up the time that callers spend in a ledger and the CPU time of its writer thread."""
    spent = [0.0]

    def timed(call: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
        @wraps(call)
        def wrapped(*args: Any, **named: Any) -> Any:
            began = clock()
            try:
                return call(*args, **named)
            finally:
                spent[0] += clock() - began

        return wrapped

    for name in ("find", "record", "record_failure"):
        setattr(ledger, name, timed(getattr(ledger, name), time.perf_counter))
    ledger._writer.commit = timed(ledger._writer.commit, time.thread_time)  # type: ignore[method-assign]
    yield spent


def ours(teacher: Any, requests: Sequence[Request], purpose: str, cpu: Callable[[], float]) -> Turn:
    """potstill's side: every request through asker, ledger and teacher."""
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        with ledger_clock(ledger) as spent:
            asker = Asker(teacher, ledger)
            source = iter(requests)
            began, cpu_began = time.perf_counter(), cpu()
            answers = sum(1 for _ in asker.stream(lambda room: [r for _, r in zip(range(room), source)], purpose))
            wall, used = time.perf_counter() - began, cpu() - cpu_began
        if answers != len(requests) or asker.counts.failed or asker.counts.cached:
            raise SystemExit(f"{purpose}: {asker.counts}, {len(requests)} asked")
        return Turn(asker.counts.completion_tokens, wall, used, spent[0])


def own_cpu() -> float:
    """CPU seconds of this process, all threads."""
    return time.process_time()


def summary(
    backend: str, requests: int, pairs: Sequence[tuple[Turn, Turn]], beside: str = "raw_vllm", **more: Any
) -> dict[str, Any]:
    """One record from pairs of turns, ours first."""
    ratios = [(mine.tokens / mine.wall_s) / (raw.tokens / raw.wall_s) for mine, raw in pairs]
    return {
        "backend": backend,
        "requests": requests,
        "rounds": len(pairs),
        "tokens_per_s": round(statistics.median(mine.tokens / mine.wall_s for mine, _ in pairs), 1),
        "raw_tokens_per_s": round(statistics.median(raw.tokens / raw.wall_s for _, raw in pairs), 1),
        f"ratio_to_{beside}": round(statistics.median(ratios), 4),
        "lowest_ratio": round(min(ratios), 4),
        "highest_ratio": round(max(ratios), 4),
        "cpu_ratio": round(
            statistics.median((mine.tokens / mine.cpu_s) / (raw.tokens / raw.cpu_s) for mine, raw in pairs), 4
        ),
        "ledger_share": round(statistics.median(mine.ledger_s / mine.wall_s for mine, _ in pairs), 4),
        **more,
    }


def turns(rounds: int, mine: Callable[[int], Turn], raw: Callable[[int], Turn]) -> list[tuple[Turn, Turn]]:
    """Pairs of turns; who goes first alternates."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            first, second = raw(number), mine(number)
            pairs.append((second, first))
        else:
            pairs.append((mine(number), raw(number)))
        a, b = pairs[-1]
        print(
            f"round {number}: ours {a.tokens / a.wall_s:.1f} tokens/s ({a.tokens / a.cpu_s:.1f} a CPU second), raw "
            f"{b.tokens / b.wall_s:.1f} ({b.tokens / b.cpu_s:.1f})",
            flush=True,
        )
    return pairs


def in_process(count: int, rounds: int, max_tokens: int, max_num_seqs: int | None) -> dict[str, Any]:
    """potstill's vLLM teacher against `LLM.generate`, in this process."""
    teacher = VllmTeacher(
        None, VllmOptions(max_model_len=_MODEL_LEN, enforce_eager=True, kv_cache_gib=1, max_num_seqs=max_num_seqs)
    )
    engine = teacher._start()
    llm, vllm = engine._llm, engine._vllm
    requests = prompts(count, max_tokens, teacher.abilities)
    ids = [engine._prompts.ids(engine._prompts.text(request.messages, request.prefill)) for request in requests]

    def seeded(number: int) -> list[Request]:
        return [replace(request, seed=request.seed + 1_000_003 * number) for request in requests]

    def raw(number: int) -> Turn:
        llm.reset_prefix_cache()
        params = [vllm.SamplingParams(**engine._text_params(r, r.max_tokens)) for r in seeded(number)]
        given = [{"prompt_token_ids": tokens} for tokens in ids]
        began, cpu_began = time.perf_counter(), own_cpu()
        outputs = llm.generate(given, params, use_tqdm=False)
        wall, used = time.perf_counter() - began, own_cpu() - cpu_began
        return Turn(sum(len(output.outputs[0].token_ids) for output in outputs), wall, used)

    def mine(number: int) -> Turn:
        llm.reset_prefix_cache()
        return ours(teacher, seeded(number), f"round {number}", own_cpu)

    ours(teacher, seeded(rounds)[:64], "warm-up", own_cpu)
    pairs = turns(rounds, mine, raw)
    teacher.close()
    return summary("vllm in process", count, pairs, dtype=teacher.dtype)


def whole_path(count: int, rounds: int, max_tokens: int, max_num_seqs: int | None) -> dict[str, Any]:
    """`generate_rows` with the vLLM teacher against `LLM.generate` on the requests that it sent."""
    given = VllmOptions(max_model_len=_MODEL_LEN, enforce_eager=True, kv_cache_gib=1, max_num_seqs=max_num_seqs)
    teacher = VllmTeacher(None, given)
    engine = teacher._start()
    llm, vllm = engine._llm, engine._vllm
    spec = read_task_file(str(TASK)).spec
    ours(teacher, prompts(64, max_tokens, teacher.abilities), "warm-up", own_cpu)
    pairs, sent = [], 0
    for number in range(rounds):
        llm.reset_prefix_cache()
        with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
            with ledger_clock(ledger) as spent:
                asker = Asker(teacher, ledger)
                options = GenerationOptions(rows=count, max_tokens=max_tokens, seed=number)
                began, cpu_began = time.perf_counter(), own_cpu()
                rows = generate_rows(spec, asker, options).kept
                wall, used = time.perf_counter() - began, own_cpu() - cpu_began
            mine = Turn(asker.counts.completion_tokens, wall, used, spent[0])
            requests = [request_from_json(e.request, e.max_tokens) for e in ledger.entries()]
        asked = [request for request in requests if isinstance(request, Request)]
        sent += len(asked)
        llm.reset_prefix_cache()
        ids = [engine._prompts.ids(engine._prompts.text(request.messages, request.prefill)) for request in asked]
        params = [vllm.SamplingParams(**engine._text_params(r, r.max_tokens)) for r in asked]
        began, cpu_began = time.perf_counter(), own_cpu()
        outputs = llm.generate([{"prompt_token_ids": tokens} for tokens in ids], params, use_tqdm=False)
        wall, used = time.perf_counter() - began, own_cpu() - cpu_began
        raw = Turn(sum(len(output.outputs[0].token_ids) for output in outputs), wall, used)
        pairs.append((mine, raw))
        print(f"round {number}: {rows} rows of {len(asked)} requests, {mine}, raw {raw}", flush=True)
    teacher.close()
    return summary(
        "vllm, whole path", sent // rounds, pairs, rows=count, max_num_seqs=max_num_seqs, dtype=teacher.dtype
    )


def beside_generate(count: int, rounds: int, max_tokens: int) -> dict[str, Any]:
    """potstill's transformers teacher against `generate`, in this process, on one model each."""
    import torch
    from transformers import AutoModelForCausalLM

    teacher = LocalTeacher()
    loaded = teacher._load()
    model: Any = AutoModelForCausalLM.from_pretrained(local_model(SMOLLM2), dtype=loaded.model.dtype).eval()
    requests = [replace(request, stop=()) for request in prompts(count, max_tokens, teacher.abilities)]
    ids = [list(loaded.prompts.ids(loaded.prompts.text(r.messages, r.prefill))) for r in requests]
    pad = loaded.tokenizer.pad_token_id or 0
    ends = list(loaded._ends)

    def raw(number: int) -> Turn:
        torch.manual_seed(number)
        tokens, size = 0, teacher.concurrency
        began, cpu_began = time.perf_counter(), own_cpu()
        order = sorted(ids, key=len)
        for batch in (order[start : start + size] for start in range(0, count, size)):
            longest = max(map(len, batch))
            given = torch.tensor([[pad] * (longest - len(row)) + row for row in batch])
            seen = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
            found = model.generate(
                given, attention_mask=seen, do_sample=True, temperature=requests[0].temperature,
                top_p=requests[0].top_p, top_k=0, max_new_tokens=max_tokens, pad_token_id=pad, eos_token_id=ends,
            )[:, longest:]  # fmt: skip
            ended = torch.isin(found, torch.tensor(ends)).int()
            tokens += int(((ended.cumsum(1) - ended) == 0).sum())
        return Turn(tokens, time.perf_counter() - began, own_cpu() - cpu_began)

    def mine(number: int) -> Turn:
        seeded = [replace(request, seed=request.seed + 1_000_003 * number) for request in requests]
        return ours(teacher, seeded, f"round {number}", own_cpu)

    pairs = turns(rounds, mine, raw)
    teacher.close()
    dtype = str(model.dtype).removeprefix("torch.")
    return summary("transformers in process", count, pairs, "generate", dtype=dtype, threads=torch.get_num_threads())


@contextmanager
def vllm_server(max_num_seqs: int | None) -> Iterator[tuple[str, psutil.Process]]:
    """vLLM's own OpenAI server on a free port of the loopback, in the numeric format of the vLLM teacher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", local_model(SMOLLM2),
        "--no-enable-chunked-prefill",  # vLLM 0.32 on a CPU dies of a seeded prompt read in two steps
        "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager",
        "--dtype", VllmTeacher(None).dtype, "--max-model-len", str(_MODEL_LEN),
        *(["--max-num-seqs", str(max_num_seqs)] if max_num_seqs else []),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 300
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        raise SystemExit("the vLLM server does not start:\n" + log.read().decode()[-3000:]) from None
                    time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


async def plain_client(url: str, bodies: Sequence[dict[str, Any]], workers: int) -> int:
    """The usual program: `AsyncOpenAI`, a fixed number of workers, replies kept in a list; returns tokens."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="EMPTY", base_url=url, max_retries=0, timeout=600)
    source = iter(bodies)
    replies: list[Any] = []
    own = {"model", "messages", "temperature", "top_p", "seed", "max_tokens", "stop"}

    async def work() -> None:
        for body in source:
            named = {key: value for key, value in body.items() if key in own}
            extra = {key: value for key, value in body.items() if key not in own}
            replies.append(await client.chat.completions.create(**named, extra_body=extra))

    await asyncio.gather(*(work() for _ in range(workers)))
    await client.close()
    return sum(reply.usage.completion_tokens for reply in replies)


def through_server(
    count: int, rounds: int, max_tokens: int, max_num_seqs: int | None, concurrency: int
) -> dict[str, Any]:
    """potstill's OpenAI teacher against a plain asyncio client, at one vLLM server."""
    with vllm_server(max_num_seqs) as (url, server):

        def cpu() -> float:
            family = [server, *server.children(recursive=True)]
            return own_cpu() + sum(p.cpu_times().user + p.cpu_times().system for p in family)

        def reset() -> None:
            address = url.removesuffix("/v1") + "/reset_prefix_cache"
            urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=60)

        teacher = OpenAITeacher(url, "smollm2", OpenAIOptions(concurrency=concurrency))
        requests = prompts(count, max_tokens, teacher.abilities)

        def seeded(number: int) -> list[Request]:
            return [replace(request, seed=request.seed + 1_000_003 * number) for request in requests]

        def raw(number: int) -> Turn:
            reset()
            bodies = [chat_body(request, "smollm2", "vllm") for request in seeded(number)]
            began, cpu_began = time.perf_counter(), cpu()
            tokens = asyncio.run(plain_client(url, bodies, teacher.concurrency))
            return Turn(tokens, time.perf_counter() - began, cpu() - cpu_began)

        def mine(number: int) -> Turn:
            reset()
            return ours(teacher, seeded(number), f"round {number}", cpu)

        ours(teacher, seeded(rounds)[:64], "warm-up", cpu)
        pairs = turns(rounds, mine, raw)
        teacher.close()
        return summary("vllm server", count, pairs, concurrency=concurrency, dtype=VllmTeacher(None).dtype)


def main() -> None:
    """Measure, write `results/generation_throughput.json`, print the table."""
    arguments = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    arguments.add_argument("--requests", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--max-tokens", type=int, default=48)
    arguments.add_argument("--max-num-seqs", type=int, default=None)
    arguments.add_argument("--concurrency", type=int, default=OpenAIOptions().concurrency)
    arguments.add_argument("--only", choices=("engine", "server", "transformers", "path", "path-vllm", "prompts"))
    arguments.add_argument("--no-write", action="store_true", help="print only")
    given = arguments.parse_args()
    records = []
    if given.only in (None, "prompts"):
        from generation_path import prefix_records

        names = ("support/task.md", "reviews.md", "questions.md", "summaries.md")
        records += prefix_records([str(TASK.parent.parent / name) for name in names])
    if given.only in (None, "path"):
        from generation_path import path_records

        records += path_records()
    if given.only == "path-vllm":
        records.append(whole_path(given.requests, given.rounds, given.max_tokens, given.max_num_seqs))
    if given.only in (None, "transformers"):
        records.append(beside_generate(min(given.requests, 256), given.rounds, given.max_tokens))
    if given.only in (None, "engine"):
        records.append(in_process(given.requests, given.rounds, given.max_tokens, given.max_num_seqs))
    if given.only in (None, "server"):
        records.append(
            through_server(given.requests, given.rounds, given.max_tokens, given.max_num_seqs, given.concurrency)
        )
    if not given.no_write:
        made = {record["backend"] for record in records}
        kept = [old for old in read_results("generation_throughput") if old["backend"] not in made]
        records = sorted([*kept, *records], key=lambda record: str(record["backend"]))
        write_results("generation_throughput", records)
    print_table(records)


if __name__ == "__main__":
    main()
