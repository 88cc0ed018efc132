"""Options of the compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from potstill.errors import BadOptions, OptionError, OptionFault

Speed = Literal["all", "ends", "none"]


@dataclass(frozen=True)
class CompressOptions:
    """How a student is compressed and what is measured.

    Attributes:
        recipe: Steps such as `int8:channel` or `wanda:0.5 -> heal:steps=100 -> int8`, as a line or a list; empty for
            no compression, `all` for every recipe of the zoo.
        formats: Files to write: `auto`, `packed`, `plain`, `onnx`, `vllm`, `gguf-q8_0`, `gguf-q4_0`, `bitsandbytes`,
            `torchao`.
            The first is the student itself; the others go into folders of their names.
        teacher: Folder of a model that healing listens to; None is the uncompressed student.
        calibration_tokens: Tokens that methods look at.
        heal_tokens: Tokens that healing, and pruning that trains, learns from before it meets any again.
        window: Tokens of a window of running text (decoders).
        rows: Test rows that every step is scored on; 0 uses all.
        text_tokens: Tokens of held-out text that perplexity is measured on.
        speed: Measure latency and memory of every step (`all`), of the original and the files (`ends`), or of none.
        threads: Threads of those measurements.
        keep_steps: Keep the folders of the steps when the work is done.
        max_mib: Largest student, in MiB, that a recommendation may have (`all`).
        max_ms: Largest median latency, in milliseconds, that it may have (`all`).
        seed: Decides draws.
    """

    recipe: str | list[Any] = ""
    formats: tuple[str, ...] = ("auto",)
    teacher: str | None = None
    calibration_tokens: int = 16384
    heal_tokens: int = 131072
    window: int = 512
    rows: int = 1000
    text_tokens: int = 8192
    speed: Speed = "all"
    threads: int = 1
    keep_steps: bool = False
    max_mib: float | None = None
    max_ms: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        faults = [
            OptionFault(f"{name} must be {least} or more (got {getattr(self, name)!r})", name)
            for name, least in (("calibration_tokens", 1), ("heal_tokens", 1), ("window", 8), ("rows", 0),
                                ("text_tokens", 0), ("threads", 1))
            if getattr(self, name) < least
        ]  # fmt: skip
        if not self.formats:
            faults.append(OptionFault("formats is empty; name one, or leave it out", "formats"))
        faults += [
            OptionFault(f"{name} must be above 0 (got {value!r})", name)
            for name in ("max_mib", "max_ms")
            if (value := getattr(self, name)) is not None and not value > 0
        ]
        if self.max_ms is not None and self.speed == "none":
            faults.append(OptionFault("max_ms needs latencies, and speed is none; leave out one of them", "max_ms"))
        if faults:
            raise BadOptions(faults)


def check_limits(options: CompressOptions, recipe: str | list[Any]) -> None:
    """Refuse limits that nothing is chosen by.

    Args:
        options: The options.
        recipe: What is to be done.

    Raises:
        OptionError: A limit, and one recipe alone.
    """
    given = [name for name in ("max_mib", "max_ms") if getattr(options, name) is not None]
    if given and recipe != "all":
        shown = recipe if isinstance(recipe, str) else "a list of steps"
        raise OptionError(
            "compress",
            [
                f"{name} chooses among the recipes of `all`, and the recipe is {shown}; take `all`, or leave it out"
                for name in given
            ],
        )
