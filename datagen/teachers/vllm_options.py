"""How vLLM's engine runs in this process."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.datagen.teachers.thoughts import thinking_faults
from potstill.errors import BadOptions, OptionFault


@dataclass(frozen=True)
class VllmOptions:
    """How the engine runs; what is None is vLLM's own default.

    Attributes:
        concurrency: Requests handed to the engine at a time; it batches as many of them as fit.
        dtype: Such as `bfloat16`; None takes the model's own, and float32 for a model that is not quantized on a CPU
            that does not multiply bfloat16 (four times as fast there).
        enforce_eager: Skip compilation: starts in half the time and is a little slower.
        max_model_len: Longest prompt and reply together, tokens.
        max_num_seqs: Most sequences in a batch.
        gpu_memory_utilization: Share of the GPU's memory that the engine takes.
        kv_cache_gib: Memory for keys and values on a CPU, GiB.
        tensor_parallel_size: GPUs that share the model.
        quantization: Such as `awq`; None reads the model's config.
        multiprocess: Run the engine in a process of its own. In a script that needs an
            `if __name__ == "__main__"` guard.
        thinking_tokens: Tokens that the model may think for before a text, on top of the text's bound; 0 has it answer
            at once. Labels that are scored, and choices, are never thought about.
    """

    concurrency: int = 256
    dtype: str | None = None
    enforce_eager: bool = False
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_gib: float = 2.0
    tensor_parallel_size: int | None = None
    quantization: str | None = None
    multiprocess: bool = False
    thinking_tokens: int = 0

    def __post_init__(self) -> None:
        faults = thinking_faults(self.thinking_tokens)
        if self.concurrency < 1:
            faults.append(OptionFault(f"concurrency must be at least 1, got {self.concurrency}", "concurrency"))
        if faults:
            raise BadOptions(faults)
