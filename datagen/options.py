"""What generation can be told. Kept apart from `generate` so that the plans below it can read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from potstill.errors import BadOptions, OptionFault

# The automatic window, by what the teacher takes at a time: benchmarks/generation_throughput.py --only path.
WINDOW_BY_CONCURRENCY = 8
LEAST_WINDOW = 128
# Tokens of an input: a small teacher rambles as long as it may, others end by themselves where their text does.
_OPENED_TOKENS, _LEAST_TOKENS, _TOKENS_A_WORD = 96, 512, 2
# Of a user's turn, which ends by itself, and now and then goes on into a story.
_TURN_TOKENS = 256

# By the task's kind, the options that its requests do not depend on.
UNREAD = {
    "classification": ("answer_max_tokens", "answer_temperature", "answer_top_k", "output_teacher"),
    "generation": ("label_descriptions", "own_name_share"),
    "instructions": (
        "answer_max_tokens", "answer_top_k", "texts_per_request", "structured", "attributes", "label_descriptions",
        "examples_shown", "style_shown", "avoid_shown", "min_words", "max_words", "own_name_share",
    ),
}  # fmt: skip
# And those that a user's turn does not depend on.
UNREAD_BY_MAGPIE = ("texts_per_request", "structured", "examples_shown", "style_shown", "avoid_shown")
_READ_IN_ANSWERS = ("answer_max_tokens", "answer_top_k")


def unread(kind: str, method: str, *, answered: bool = False) -> tuple[str, ...]:
    """The options that change nothing for a kind of task and a method; `answered` where another teacher answers."""
    magpie = method == "magpie"
    apart = kind != "classification" and (magpie or answered)  # outputs have requests of their own
    names = [name for name in UNREAD[kind] if not (apart and name in _READ_IN_ANSWERS)]
    return tuple(dict.fromkeys((*names, *(UNREAD_BY_MAGPIE if magpie else ()))))


@dataclass(frozen=True)
class GenerationOptions:
    """How the teacher is asked for rows.

    Attributes:
        rows: Rows to keep. A run ends when every label's quota is met or the requests are spent.
        seed: Decides every draw: labels, attributes, examples, and each request's own sampling.
        method: How inputs come about. `auto` goes by the task's kind: label first, input first, Self-Instruct.
            `magpie`, for generation tasks and instructions, gives an aligned teacher its chat template up to where a
            user's words begin, after a system message made of the task's prompt, and takes what it writes there
            (arXiv:2406.08464); for models in this process and vLLM servers.
        evolve: Rounds in which kept instructions, and inputs of generation tasks that are one text, are made harder or
            others are made of them (Evol-Instruct, arXiv:2304.12244). They count towards the rows beside the text that
            they came of: of n rounds about one row in n + 1 is as it was first written. 0 evolves nothing.
        requests_per_row: Bound on requests, as a multiple of `rows`.
        temperature: Sampling temperature of inputs, at the first request.
        temperature_end: Temperature from request `temperature_span` on; None keeps it constant. Up to there it rises or
            falls in a straight line, as in Prompt2Model (arXiv:2308.12261 §3.2).
        temperature_span: Requests for inputs, over all labels, in which the temperature gets to its end. It is a number
            of its own and not a share of `rows`, so that more rows ask no request of an earlier run again; about the
            rows wanted is Prompt2Model's schedule.
        top_p: Nucleus mass of inputs.
        max_tokens: Most new tokens of an input. None is 96 where replies are opened, more for a long kind;
            other teachers may write what an input may have, two tokens for each of `max_words`, at least 512.
            For `kind: instructions` most new tokens of a reply with instances, 350 where it is None (300 of
            classification). With `method: magpie` most new tokens of a user's turn, 256 where it is None.
        answer_max_tokens: Most new tokens of an output (generation tasks).
        answer_temperature: Temperature of outputs; 0 is greedy.
        answer_top_k: Teacher log-probs kept for each output token (generation tasks); 0 keeps none.
        output_teacher: Who writes the outputs, where the answer is a text: usually a stronger teacher, written as
            `--teacher` is; empty for the one that writes the inputs. It is the student's teacher in later stages too:
            of soft targets, of `distil.method`, of `distil.rationale_weight`, and in the scores.
        output_teacher_options: Options of that teacher's backend, as `teacher_options` are those of the run's.
        window: Requests planned ahead of the oldest one without an answer. Request i is made from what was kept among
            requests up to i - window, so the rows do not depend on the order in which replies arrive; a reply that
            takes longer than the window's other requests holds the engine up. None is eight times what the teacher
            takes at a time, to the next power of two, at least 128; a run folder keeps the number it began with.
        texts_per_request: Texts that one request asks for; more is cheaper and less diverse.
        structured: `auto` asks for JSON where the backend has schemas and cannot continue an opening; `always`
            wherever it has schemas; `never` for plain text.
        attributes: What varies the texts. `teacher` lets the teacher propose topics for each label and, for the task,
            styles, lengths, difficulties and registers (a dimension without usable proposals keeps its built-in
            values); `builtin` draws the latter four from lists; `none` varies nothing. `auto` is `teacher`, and `none`
            where replies are opened: a small teacher proposes for one label the subjects of the others.
        personas: Who writes inputs and instructions; one is drawn for each request. `none` is nobody in particular;
            `teacher` lets it name kinds of people who would; any other text is the path of a file that lists them, one
            a line or as JSON lines with a field `persona`; in a task file, from that file's folder.
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
        min_words: Texts with fewer words are dropped; inputs that are no texts (words, names, dates) may be one word.
        max_words: Texts with more words are dropped.
        own_name_share: Largest share of a label's texts that may hold the label's own name as a word. Above it, a
            student could learn the word instead of the label.
        own_inputs: Most inputs of the task's `unlabelled:` data that the teacher answers, in tasks whose answer is a
            text; None as many as `rows`. They count towards the rows, and the rest is written from nothing.
        licence: SPDX id stated for written rows. The teacher's terms decide it, so it is `unknown` until said.
    """

    rows: int = 800
    seed: int = 0
    method: Literal["auto", "magpie"] = "auto"
    evolve: int = 0
    requests_per_row: float = 6.0
    temperature: float = 1.0
    temperature_end: float | None = None
    temperature_span: int = 1000
    top_p: float = 0.95
    max_tokens: int | None = None
    answer_max_tokens: int = 256
    answer_temperature: float = 0.0
    answer_top_k: int = 32
    output_teacher: str = ""
    output_teacher_options: Mapping[str, Any] = field(default_factory=dict)
    window: int | None = None
    texts_per_request: int = 1
    structured: Literal["auto", "always", "never"] = "auto"
    attributes: Literal["auto", "teacher", "builtin", "none"] = "auto"
    personas: str = "none"
    label_descriptions: Literal["teacher", "names"] = "names"
    examples_shown: int = 3
    style_shown: int = 2
    avoid_shown: int | None = None
    novelty: float = 0.7
    novelty_pool: int = 50_000
    min_words: int = 2
    max_words: int = 400
    own_name_share: float = 0.5
    own_inputs: int | None = None
    licence: str = "unknown"

    def __post_init__(self) -> None:
        faults = []
        if self.output_teacher_options and not self.output_teacher:
            faults.append(
                OptionFault(
                    "output_teacher_options are for another teacher that writes the outputs, and "
                    "generation.output_teacher names none; those of the run's own stand at the top of the task file, "
                    "or in --set teacher_options.NAME=VALUE",
                    "output_teacher_options",
                )
            )
        if self.rows < 1:
            faults.append(OptionFault(f"rows: a whole number of 1 or more is needed (got {self.rows})", "rows"))
        if self.max_tokens is not None and self.max_tokens < 1:
            faults.append(OptionFault(f"max_tokens must be at least 1 (got {self.max_tokens})", "max_tokens"))
        if not 0 <= self.evolve <= 8:
            faults.append(OptionFault(f"evolve must be a number of rounds from 0 to 8 (got {self.evolve})", "evolve"))
        if self.window is not None and self.window < 1:
            faults.append(OptionFault(f"window must be at least 1 (got {self.window})", "window"))
        if self.temperature_span < 1:
            faults.append(
                OptionFault(f"temperature_span must be at least 1 (got {self.temperature_span})", "temperature_span")
            )
        if self.texts_per_request < 1:
            faults.append(
                OptionFault(f"texts_per_request must be at least 1 (got {self.texts_per_request})", "texts_per_request")
            )
        if not 0 < self.novelty <= 1:
            faults.append(OptionFault(f"novelty must be in (0, 1] (got {self.novelty})", "novelty"))
        if (self.own_inputs or 0) < 0:
            faults.append(OptionFault(f"own_inputs must be at least 0 (got {self.own_inputs})", "own_inputs"))
        if self.novelty_pool < 0:
            faults.append(OptionFault(f"novelty_pool must be at least 0 (got {self.novelty_pool})", "novelty_pool"))
        if not 0 <= self.own_name_share <= 1:
            faults.append(
                OptionFault(f"own_name_share must be in [0, 1] (got {self.own_name_share})", "own_name_share")
            )
        if self.requests_per_row <= 0:
            faults.append(
                OptionFault(f"requests_per_row must be above 0 (got {self.requests_per_row})", "requests_per_row")
            )
        if not 0 < self.top_p <= 1:
            faults.append(OptionFault(f"top_p must be in (0, 1] (got {self.top_p})", "top_p"))
        if self.temperature < 0 or (self.temperature_end or 0) < 0 or self.answer_temperature < 0:
            faults.append(OptionFault("temperatures must be at least 0", "temperature"))
        if faults:
            raise BadOptions(faults)

    @property
    def personas_file(self) -> str:
        """The path of the file that lists `personas`; "" where none does."""
        return "" if self.personas in ("none", "teacher") else self.personas

    @property
    def max_requests(self) -> int:
        """The bound on requests for inputs."""
        return max(1, round(self.rows * self.requests_per_row / self.texts_per_request))

    @property
    def ahead(self) -> int:
        """`window` as a number; the least of the automatic ones where no teacher is known yet."""
        return LEAST_WINDOW if self.window is None else self.window

    def input_tokens(self, opened: bool, longest: float = 0.0) -> int:
        """`max_tokens` as a number.

        Args:
            opened: Whether replies are opened for the teacher.
            longest: Tokens of the longest input that the user shows; others may be half as long again.
        """
        if self.max_tokens is not None:
            return self.max_tokens
        if self.method == "magpie":
            return _TURN_TOKENS
        if opened:
            return _OPENED_TOKENS
        return max(_LEAST_TOKENS, _TOKENS_A_WORD * self.max_words, round(1.5 * longest))

    def for_teacher(self, concurrency: int) -> GenerationOptions:
        """The same with `window` as a number.

        Args:
            concurrency: Requests that the teacher takes at a time.
        """
        if self.window is not None:
            return self
        # A power of two: a little more or less in flight is still the same run.
        wanted = 1 << (WINDOW_BY_CONCURRENCY * max(1, concurrency) - 1).bit_length()
        return replace(self, window=max(LEAST_WINDOW, wanted))

    def temperature_at(self, index: int) -> float:
        """Temperature of request `index`."""
        if self.temperature_end is None:
            return self.temperature
        share = min(1.0, index / self.temperature_span)
        return round(self.temperature + (self.temperature_end - self.temperature) * share, 4)
