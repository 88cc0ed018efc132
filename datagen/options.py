"""What generation can be told. Kept apart from `generate` so that the plans below it can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GenerationOptions:
    """How the teacher is asked for rows.

    Attributes:
        rows: Rows to keep. A run ends when every label's quota is met or the requests are spent.
        seed: Decides every draw: labels, attributes, examples, and each request's own sampling.
        requests_per_row: Bound on requests, as a multiple of `rows`.
        temperature: Sampling temperature of inputs, at the first request.
        temperature_end: Temperature at the last request of the bound; None keeps it constant. In between it
            rises or falls in a straight line, as in Prompt2Model (arXiv:2308.12261 §3.2).
        top_p: Nucleus mass of inputs.
        max_tokens: Most new tokens of an input.
        answer_max_tokens: Most new tokens of an output (generation tasks).
        answer_temperature: Temperature of outputs; 0 is greedy.
        answer_top_k: Teacher log-probs kept for each output token (generation tasks); 0 keeps none.
        window: Requests planned ahead. Request i knows the rows kept among requests up to i - window, so the rows do
            not depend on the order in which replies arrive. At least the backend's concurrency keeps it busy.
        texts_per_request: Texts that one request asks for; more is cheaper and less diverse.
        structured: `auto` asks for JSON where the backend has schemas and cannot continue an opening; `always`
            wherever it has schemas; `never` for plain text.
        attributes: What varies the texts. `teacher` lets the teacher propose topics for each label and, for the task,
            styles, lengths, difficulties and registers (a dimension without usable proposals keeps its built-in
            values); `builtin` draws the latter four from lists; `none` varies nothing. `auto` is `teacher`, and `none`
            where replies are opened: a small teacher proposes for one label the subjects of the others.
        label_descriptions: `teacher` lets it describe labels that the user did not; `names` splits names such as
            `card_arrival` into words.
        examples_shown: The user's examples shown in a prompt.
        style_shown: Retrieved texts of the label shown as style examples.
        avoid_shown: Kept texts shown as what not to repeat; None shows 4 to teachers that follow rules and none to
            those whose reply is opened (small ones repeat what they are shown).
        novelty: A text is dropped when its ROUGE-L F1 with a kept one is above this.
        novelty_pool: Kept texts that a new one is compared with, the latest; 0 compares with all. A run of up to so
            many rows is compared with everything it kept. In a longer one memory stays as it is, and a copy of an older
            text can pass here; merging finds it. 0 takes 0.6 KiB a row, above 50,000 rows of few words far more
            (benchmarks/memory.py).
        min_words: Texts with fewer words are dropped.
        max_words: Texts with more words are dropped.
        own_name_share: Largest share of a label's texts that may hold the label's own name as a word. Above it, a
            student could learn the word instead of the label.
        licence: SPDX id stated for written rows. The teacher's terms decide it, so it is `unknown` until said.
    """

    rows: int = 800
    seed: int = 0
    requests_per_row: float = 6.0
    temperature: float = 1.0
    temperature_end: float | None = None
    top_p: float = 0.95
    max_tokens: int = 96
    answer_max_tokens: int = 256
    answer_temperature: float = 0.0
    answer_top_k: int = 32
    window: int = 128
    texts_per_request: int = 1
    structured: Literal["auto", "always", "never"] = "auto"
    attributes: Literal["auto", "teacher", "builtin", "none"] = "auto"
    label_descriptions: Literal["teacher", "names"] = "names"
    examples_shown: int = 3
    style_shown: int = 2
    avoid_shown: int | None = None
    novelty: float = 0.7
    novelty_pool: int = 50_000
    min_words: int = 2
    max_words: int = 400
    own_name_share: float = 0.5
    licence: str = "unknown"

    def __post_init__(self) -> None:
        faults = []
        if self.rows < 1:
            faults.append(f"rows must be at least 1 (got {self.rows})")
        if self.window < 1:
            faults.append(f"window must be at least 1 (got {self.window})")
        if self.texts_per_request < 1:
            faults.append(f"texts_per_request must be at least 1 (got {self.texts_per_request})")
        if not 0 < self.novelty <= 1:
            faults.append(f"novelty must be in (0, 1] (got {self.novelty})")
        if self.novelty_pool < 0:
            faults.append(f"novelty_pool must be at least 0 (got {self.novelty_pool})")
        if not 0 <= self.own_name_share <= 1:
            faults.append(f"own_name_share must be in [0, 1] (got {self.own_name_share})")
        if self.requests_per_row <= 0:
            faults.append(f"requests_per_row must be above 0 (got {self.requests_per_row})")
        if not 0 < self.top_p <= 1:
            faults.append(f"top_p must be in (0, 1] (got {self.top_p})")
        if self.temperature < 0 or (self.temperature_end or 0) < 0 or self.answer_temperature < 0:
            faults.append("temperatures must be at least 0")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def max_requests(self) -> int:
        """The bound on requests for inputs."""
        return max(1, round(self.rows * self.requests_per_row / self.texts_per_request))

    def temperature_at(self, index: int) -> float:
        """Temperature of request `index`."""
        if self.temperature_end is None:
            return self.temperature
        share = min(1.0, index / self.max_requests)
        return round(self.temperature + (self.temperature_end - self.temperature) * share, 4)
