"""How the teacher is asked for the reasoning behind each output."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.errors import BadOptions, OptionFault


@dataclass(frozen=True)
class RationaleOptions:
    """How reasoning is written; `distil.rationale_weight` above 0 asks for it.

    Attributes:
        max_tokens: Most new tokens of one reasoning; one that is cut there ends at its last full sentence.
        temperature: Of the teacher; 0 is greedy.
        min_words: Reasoning of fewer words, those that name the output left out, says nothing and is not used.
        seed: Of sampled reasoning.
    """

    max_tokens: int = 160
    temperature: float = 0.0
    min_words: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        faults = [
            OptionFault(f"{name} must be at least 1 (got {getattr(self, name)})", name)
            for name in ("max_tokens", "min_words")
            if getattr(self, name) < 1
        ]
        if self.temperature < 0:
            faults.append(OptionFault(f"temperature must be at least 0 (got {self.temperature})", "temperature"))
        if faults:
            raise BadOptions(faults)
