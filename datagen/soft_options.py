"""How soft targets for classification are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from potstill.errors import BadOptions, OptionFault

Form = Literal["task", "shown", "example", "category"]
FormChoice = Literal["auto", "task", "shown", "example", "category"]


@dataclass(frozen=True)
class SoftOptions:
    """How soft targets are taken.

    Attributes:
        rule: Calibration: `raw`, `contextual`, `dcpmi`, `batch`, `balanced`, or `auto`: the rule under which the
            user's own labelled texts are clearly likelier than under `batch`, else `batch`. An estimate of the prior
            supposes probabilities that are right on average, so there `balanced` stands in for `batch`.
        direction: `direct` scores the label after the text, one request a text; `channel` scores the text after the
            label, one request a text and label.
        form: How the question for the label is put, where it is asked directly: the `task` in the user's words, with
            what they said the labels mean; the same with some of their examples `shown` before the text; the
            text alone, whose answer is an `example` of the label; the text, whose `category` it is; or `auto`: the one
            whose answers tell most (see `label_scores`), found on up to 48 texts.
        votes: Of a teacher that gives no log-probs: how often each text is answered anew, so that the shares of the
            answers stand for probabilities (self-consistency); 0 asks for none, and leaves it hard labels.
        vote_temperature: Temperature of these.
        variants: Whether the spellings of a name (as given, lower case, capitalised, as words, after a space) count
            together.
        encoder: Whether the sentence encoder's opinion joins the teacher's, weighted by the known labels (see
            `evidence`).
        trust: Whether written rows whose label both opinions find unlikely weigh less in training.
        max_chars: Longer texts are cut for scoring.
        top_k: Log-probs kept for each output token of generation tasks.
        candidates: Outputs that the teacher writes for each input where `distil.method` asks for its own: one
            greedily, the others sampled. With `pick: beam`, the width of the search.
        candidate_temperature: Temperature of the sampled ones.
        pick: Which one is learnt: the `likeliest` by its mean log-prob a token, the `nearest` to the row's own
            output by BLEU (sequence-level interpolation), or what a `beam` search finds (teachers of the transformers
            backend).
        max_output_tokens: Most tokens of one output.
        seed: Of sampled steps.
    """

    rule: Literal["auto", "raw", "contextual", "dcpmi", "batch", "balanced"] = "auto"
    direction: Literal["direct", "channel"] = "direct"
    form: FormChoice = "auto"
    votes: int = 0
    vote_temperature: float = 0.7
    variants: bool = True
    encoder: bool = True
    trust: bool = True
    max_chars: int = 4000
    top_k: int = 32
    candidates: int = 4
    candidate_temperature: float = 0.7
    pick: Literal["likeliest", "nearest", "beam"] = "likeliest"
    max_output_tokens: int = 256
    seed: int = 0

    @property
    def requests_an_input(self) -> int:
        """Requests for the outputs that the teacher writes for an input: a search with beams is a single one."""
        return 1 if self.pick == "beam" else self.candidates

    def __post_init__(self) -> None:
        faults: list[OptionFault] = []
        for name in ("candidates", "max_output_tokens"):
            if getattr(self, name) < 1:
                faults.append(OptionFault(f"{name} must be at least 1 (got {getattr(self, name)})", name))
        if self.pick == "beam" and self.candidates < 2:
            faults.append(
                OptionFault(
                    f"a beam search needs candidates of 2 or more, its width (got {self.candidates})", "candidates"
                )
            )
        for name in ("candidate_temperature", "vote_temperature"):
            if not getattr(self, name) > 0:
                faults.append(OptionFault(f"{name} must be above 0 (got {getattr(self, name)})", name))
        if self.votes < 0:
            faults.append(OptionFault(f"votes must be at least 0 (got {self.votes})", "votes"))
        if self.top_k < 1:
            faults.append(OptionFault(f"top_k must be at least 1 (got {self.top_k})", "top_k"))
        if self.max_chars < 1:
            faults.append(OptionFault(f"max_chars must be at least 1 (got {self.max_chars})", "max_chars"))
        if faults:
            raise BadOptions(faults)
