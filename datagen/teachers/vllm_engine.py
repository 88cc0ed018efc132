"""The vLLM teacher: vLLM's engine in this process, kept full.

What enters are requests for texts and for scores; what leaves are replies in the order they finish. The engine is
driven step by step: after each step what has finished leaves and new requests are pulled in, so there is no
barrier between batches and a refill costs no idle step.

Scores use vLLM's cheapest exact way: the continuations of a prompt are merged into a prefix tree, and each inner
node becomes one request of one token that returns the log-probs of exactly its children
(`logprob_token_ids`, at most 128). Labels of one token need a single short request, and the prefix cache shares
the prompt between the others; `prompt_logprobs` would read each prompt anew for every label. It is used for
token-level targets, where every position counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from potstill.asking.teacher import (
    Abilities,
    AnyRequest,
    Failure,
    FinishReason,
    Reply,
    Request,
    ScoreRequest,
    Take,
)
from potstill.datagen.teachers.thoughts import spoken, thinks
from potstill.datagen.teachers.vllm_dtype import fastest_dtype, is_quantized
from potstill.datagen.teachers.vllm_options import VllmOptions
from potstill.datagen.teachers.vllm_reply import tops, whole_reply
from potstill.datagen.teachers.vllm_start import told_offline, unlisted
from potstill.errors import MissingExtra, TeacherUnavailable, UserError
from potstill.models import SMOLLM2, local_model, model_identity

if TYPE_CHECKING:
    from potstill.datagen.teachers.prefix_tree import Tree

_MAX_TOP = 1024
# vLLM's own bound on `logprob_token_ids`.
_MAX_CHILDREN = 128
_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "length"}


@dataclass
class _Question:
    """A request at the engine: one engine request for a text, one for each inner tree node for scores."""

    request: AnyRequest
    prompt_tokens: int
    open: int = 0
    tree: Tree | None = None
    lengths: tuple[int, ...] = ()
    # For each (parent node, token): its log-prob.
    logprobs: dict[tuple[int, int], float] = field(default_factory=dict)
    # Engine requests that wait until the first has put the prompt into the prefix cache.
    later: list[tuple[int, list[int], dict[str, Any]]] = field(default_factory=list)
    failure: str | None = None
    # What the model may think for before the text.
    thinking: int = 0


class VllmTeacher:
    """A model in vLLM's engine; see the module's text. Not safe for several threads."""

    def __init__(self, model: str | None = None, options: VllmOptions | None = None):
        """Args:
            model: A folder, a known name or a Hub id; None is the embedded SmolLM2-135M-Instruct.
            options: How the engine runs.

        Raises:
            MissingExtra: vLLM is not installed.
        """
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtra("vllm", "vllm", f"the teacher vllm:{model or SMOLLM2}")
        self.options = options or VllmOptions()
        self._ref = model or SMOLLM2
        self._engine: _Engine | None = None

    @property
    def name(self) -> str:
        """Short name for people."""
        return f"vllm:{self._ref}"

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Backend, weights and numeric format."""
        return {
            "backend": "vllm",
            "model": model_identity(self._ref),
            "dtype": self.dtype,
            "quantization": self.options.quantization or "config",
            **({"thinks": "yes"} if self.options.thinking_tokens else {}),
        }

    @cached_property
    def dtype(self) -> str:
        """The numeric format that the engine is told; `auto` is the model's own."""
        if self.options.dtype:
            return self.options.dtype
        return "auto" if self.options.quantization or is_quantized(self._ref) else fastest_dtype()

    @property
    def abilities(self) -> Abilities:
        """Everything; of a model that thinks no beginnings and schemas, before which it could not."""
        at_once = not self.options.thinking_tokens
        return Abilities(
            prefill=at_once, json_schema=at_once, choices=True, top_logprobs=_MAX_TOP, scores=True, token_ids=True,
            user_turn=True,
        )  # fmt: skip

    def user_turn_fault(self) -> str:
        """Why it cannot write a user's turn, with the mend; "" where it can."""
        from potstill.datagen.teachers.chat_prompt import template_fault

        return template_fault(self._ref)

    @property
    def thinking_tokens(self) -> int:
        """Tokens that a reply may take beyond its own bound."""
        return self.options.thinking_tokens

    @property
    def concurrency(self) -> int:
        """Requests handed to the engine at a time."""
        return self.options.concurrency

    def tokens_of(self, text: str) -> list[int]:
        """The numbers of a text's tokens; starts no engine."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(local_model(self._ref))

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer everything that `take` gives, in the order of completion.

        Raises:
            UserError: vLLM cannot load the model.
            TeacherUnavailable: The engine died.
        """
        engine: _Engine | None = None
        try:
            while True:
                room = self.options.concurrency - (engine.questions if engine else 0)
                taken = take(room) if room > 0 else ()
                if taken and engine is None:
                    engine = self._start()
                if engine is None:
                    return
                for request in taken:
                    refused = engine.ask(request)
                    if refused is not None:
                        yield request, refused
                if not engine.questions:
                    if not taken:
                        return
                    continue
                yield from engine.step()
        finally:
            if engine is not None:
                engine.abandon()

    def close(self) -> None:
        """Stop the engine and free its memory."""
        if self._engine is not None:
            self._engine.shut_down()
            self._engine = None

    def _start(self) -> _Engine:
        if self._engine is None:
            self._engine = _Engine(self._ref, self.options, self.dtype)
        return self._engine


class _Engine:
    """vLLM's engine with the questions it works on."""

    def __init__(self, ref: str, options: VllmOptions, dtype: str):
        folder = local_model(ref)
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("DO_NOT_TRACK", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1" if options.multiprocess else "0")
        # vLLM would pin this process's threads to cores, and everything after it (training) would keep the pin.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(options.kv_cache_gib))))
        with told_offline(os.path.isdir(folder)):
            self._open(ref, folder, options, dtype)

    def _open(self, ref: str, folder: str, options: VllmOptions, dtype: str) -> None:
        import vllm
        from vllm.platforms import current_platform

        from potstill.datagen.teachers.chat_prompt import ChatPrompt

        named: dict[str, Any] = {
            "dtype": dtype,
            "max_model_len": options.max_model_len,
            "max_num_seqs": options.max_num_seqs,
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "tensor_parallel_size": options.tensor_parallel_size,
            "quantization": options.quantization,
        }
        if current_platform.is_cpu():
            # A prompt that is read in two steps moves its seeded generator back in between, which torch's CPU
            # generators cannot: the engine would die of the first batch that has more tokens than one step takes.
            named["enable_chunked_prefill"] = False
        try:
            with unlisted("llvmlite.binding.ffi"):
                self._llm = vllm.LLM(
                    model=folder,
                    enforce_eager=options.enforce_eager,
                    max_logprobs=_MAX_TOP,
                    trust_remote_code=False,
                    **{key: value for key, value in named.items() if value is not None},
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"vLLM cannot start with the model {ref!r} ({str(error).strip().splitlines()[-1]}); check the name, "
                "lower max_model_len or kv_cache_gib of teacher_options where memory is short, give a dtype that the "
                "model takes, or use transformers:MODEL"
            ) from None
        self._vllm = vllm
        self._driver = self._llm.llm_engine
        tokenizer = self._llm.get_tokenizer()
        self._prompts = ChatPrompt(tokenizer, ref)
        self._thinking = options.thinking_tokens
        self._end = int(getattr(tokenizer, "eos_token_id", None) or 0)
        self._context = int(self._llm.model_config.max_model_len)
        self._names: dict[str, tuple[_Question, int]] = {}
        self._given = 0
        self.questions = 0

    def ask(self, request: AnyRequest) -> Failure | None:
        """Hand a request to the engine; a failure where it cannot be asked."""
        from potstill.datagen.teachers.chat_prompt import Opened

        parts: list[tuple[int, list[int], dict[str, Any]]]
        by_number = request.token_ids if isinstance(request, ScoreRequest) else None
        thinking = self._thinking if isinstance(request, Request) and thinks(request) else 0
        opened = Opened("", tuple(by_number[0])) if by_number else self._prompts.opened(request, thinks=thinking > 0)
        text, ids = opened.text, list(opened.ids)
        if isinstance(request, Request):
            question = _Question(request, len(ids), thinking=thinking)
            room = min(request.max_tokens + thinking, self._context - len(ids))
            longest = len(ids) + 1
            # Its stops hold for the text alone, where `spoken` looks for them.
            stops = [] if thinking else [*request.stop, opened.stop]
            parts = [(-1, ids, self._text_params(request, room, stops, opened.end))]
        else:
            continuations = (
                [list(by_number[1])]
                if by_number
                else [self._prompts.continuation_ids(text, ids, item) for item in request.continuations]
            )
            if not ids or not continuations or not all(continuations):
                return Failure("there is no continuation, or an empty one, to score")
            question = _Question(request, len(ids), lengths=tuple(len(c) for c in continuations))
            longest = len(ids) + max(question.lengths)
            parts = self._score_parts(question, request, ids, continuations)
        if longest > self._context:
            return Failure(f"the prompt has {len(ids)} tokens and leaves no room in the context of {self._context}")
        question.open = len(parts)
        question.later = parts[1:]
        refused = self._send(question, parts[:1])
        if refused is None:
            self.questions += 1
        return refused

    def _send(self, question: _Question, parts: Sequence[tuple[int, list[int], dict[str, Any]]]) -> Failure | None:
        """Give engine requests to the engine."""
        final = self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        for node, tokens, params in parts:
            name = f"{self._given}"
            self._given += 1
            try:
                self._driver.add_request(
                    name, {"prompt_token_ids": tokens}, self._vllm.SamplingParams(**params, output_kind=final)
                )
            except (ValueError, TypeError) as error:
                return Failure(f"vLLM refuses the request: {str(error).strip().splitlines()[0]}")
            self._names[name] = (question, node)
        return None

    def _text_params(self, request: Request, room: int, stops: Sequence[str], end: int | None) -> dict[str, Any]:
        seed = int.from_bytes(hashlib.sha256(f"{request.seed}/{request.sample}".encode()).digest()[:4]) >> 1
        params: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": max(room, 1),
            "stop": [stop for stop in stops if stop] or None,
            "stop_token_ids": None if end is None else [end],
            "seed": seed if request.temperature > 0 else None,
            "logprobs": request.top_logprobs or None,
        }
        if request.schema is not None or request.choices is not None:
            params["structured_outputs"] = self._vllm.sampling_params.StructuredOutputsParams(
                json=None if request.schema is None else dict(request.schema),
                choice=None if request.choices is None else list(request.choices),
            )
        return params

    def _score_parts(
        self, question: _Question, request: ScoreRequest, ids: list[int], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[int, list[int], dict[str, Any]]]:
        from potstill.datagen.teachers.prefix_tree import build_tree, node_prefixes

        if len(continuations) == 1 and (request.top_logprobs or len(continuations[0]) > 8):
            whole = [*ids, *continuations[0]]
            return [
                (
                    -1,
                    whole,
                    {
                        "temperature": 0.0,
                        "max_tokens": 1,
                        "prompt_logprobs": max(request.top_logprobs, 1),
                        "detokenize": False,
                    },
                )
            ]
        question.tree = build_tree(continuations)
        parts = []
        for node, (prefix, children) in enumerate(node_prefixes(question.tree), start=-1):
            for start in range(0, len(children), _MAX_CHILDREN):
                wanted = list(children[start : start + _MAX_CHILDREN])
                params = {
                    "temperature": 0.0,
                    "max_tokens": 1,
                    "logprobs": len(wanted),
                    "logprob_token_ids": wanted,
                    "detokenize": False,
                }
                parts.append((node, [*ids, *prefix], params))
        return parts

    def step(self) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """One step of the engine and what finished with it."""
        try:
            outputs = self._driver.step()
        except Exception as error:
            self._names.clear()
            self.questions = 0
            raise TeacherUnavailable(
                f"the vLLM engine died ({type(error).__name__}: {str(error).strip()[:200]}); finished replies are in "
                "the ledger: run again, with a smaller max_model_len or concurrency where memory was short"
            ) from None
        for output in outputs:
            if not output.finished or output.request_id not in self._names:
                continue
            question, node = self._names.pop(output.request_id)
            question.open -= 1
            self._note(question, node, output)
            if question.later:
                later, question.later = question.later, []
                refused = self._send(question, later)
                if refused is not None:
                    question.failure, question.open = refused.reason, 0
            if question.open == 0:
                self.questions -= 1
                if question.failure is not None:
                    yield question.request, Failure(question.failure)
                else:
                    yield question.request, self._reply(question, output)

    def _note(self, question: _Question, node: int, output: Any) -> None:
        done = output.outputs[0]
        if done.finish_reason not in _FINISH:
            question.failure = f"vLLM ended the request with {done.finish_reason!r}"
        elif question.tree is not None:
            for token, value in done.logprobs[0].items():
                question.logprobs[node, token] = float(value.logprob)

    def _reply(self, question: _Question, output: Any) -> Reply | Failure:
        request, done = question.request, output.outputs[0]
        if isinstance(request, Request):
            reply = Reply(
                text=done.text,
                finish=_FINISH[done.finish_reason],
                prompt_tokens=question.prompt_tokens,
                completion_tokens=len(done.token_ids),
                top=tops(done.token_ids, done.logprobs, request.top_logprobs) if request.top_logprobs else (),
            )
            within = question.thinking > 0 and self._prompts.opens_thought
            return spoken(request, reply, opened=within, tokens=question.thinking)
        if question.tree is not None:
            scores = tuple(sum(question.logprobs[step] for step in path) for path in question.tree.paths)
            return Reply(prompt_tokens=question.prompt_tokens, scores=scores, score_tokens=question.lengths)
        return whole_reply(request, output, question.prompt_tokens)

    def abandon(self) -> None:
        """Drop what is still under way, so that the next stream starts clean."""
        names = list(self._names)
        self._names.clear()
        self.questions = 0
        if names:
            with contextlib.suppress(Exception):
                self._driver.abort_request(names)

    def shut_down(self) -> None:
        """Stop the engine."""
        import gc

        core = getattr(self._driver, "engine_core", None)
        if core is not None:
            with contextlib.suppress(Exception):
                core.shutdown()
        del self._driver, self._llm
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
