"""What a plan of a run says: the stages with their requests, tokens and time, and the totals."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from potstill.task import TaskSpec
    from potstill.train.self_training import SelfTrainingOptions

Basis = Literal["earlier", "probe", "assumed", "none"]
Speed = Literal["", "assumed", "most"]


@dataclass(frozen=True)
class Step:
    """What one stage will ask, and take.

    Attributes:
        stage: The stage's name.
        requests: Requests to the teacher.
        prompt_tokens: Their prompt tokens.
        completion_tokens: Their completion tokens.
        seconds: Time; None where nothing tells the speed.
        basis: How the size of a request is known.
        speed: `assumed` where the time is no more than that, `most` where it may be less; empty where it follows from
            something measured.
    """

    stage: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float | None = 0.0
    basis: Basis = "none"
    speed: Speed = ""

    @property
    def minutes(self) -> str:
        """The time for people: `about 3.2` where it is assumed, `up to 3.2` where it may be less, `?` if unknown."""
        return minutes_text(self.seconds, self.speed)


def minutes_text(seconds: float | None, speed: Speed = "") -> str:
    """Minutes for people.

    Examples:
        >>> minutes_text(90), minutes_text(90, "assumed"), minutes_text(90, "most"), minutes_text(None)
        ('1.5', 'about 1.5', 'up to 1.5', '?')
    """
    word = {"assumed": "about ", "most": "up to ", "": ""}[speed]
    return "?" if seconds is None else f"{word}{seconds / 60:.1f}"


@dataclass(frozen=True)
class RunPlan:
    """The prediction.

    Attributes:
        teacher: Name of the teacher.
        datasets: Datasets that rows will come from, with their rows.
        rows: Rows after the merge, about.
        steps: Each stage.
        usd: Money, or None where the teacher's price is not known.
        budget: The cap given, as text, and whether the prediction fits it; None without a cap.
        notes: What is not predicted, and why.
    """

    teacher: str
    datasets: tuple[tuple[str, int], ...]
    rows: int
    steps: tuple[Step, ...]
    usd: float | None
    budget: tuple[str, bool] | None = None
    notes: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        """Requests of all stages."""
        return sum(step.requests for step in self.steps)

    @property
    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens of all stages."""
        return sum(s.prompt_tokens for s in self.steps), sum(s.completion_tokens for s in self.steps)

    @property
    def seconds(self) -> float | None:
        """Time of all stages, or None where one is not known."""
        known = [step.seconds for step in self.steps]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)

    @property
    def minutes(self) -> str:
        """The time of all stages for people: `about …` where a part is assumed, `up to …` where it may be less."""
        told = {step.speed for step in self.steps}
        return minutes_text(self.seconds, "assumed" if "assumed" in told else "most" if "most" in told else "")

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        prompt, completion = self.tokens
        return {
            "teacher": self.teacher,
            "datasets": [{"id": name, "rows": rows} for name, rows in self.datasets],
            "rows": self.rows,
            "steps": [asdict(step) for step in self.steps],
            "requests": self.requests,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "seconds": self.seconds,
            "usd": self.usd,
            "budget": None if self.budget is None else {"cap": self.budget[0], "fits": self.budget[1]},
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        """Stages with what each takes, for a notebook."""
        from potstill.notebook import html_lines, html_table

        lines: list[tuple[object, ...]] = [
            (s.stage, s.requests, s.prompt_tokens, s.completion_tokens, s.minutes, s.basis.replace("none", ""))
            for s in self.steps
        ]
        lines.append(("all", self.requests, *self.tokens, self.minutes, ""))
        heads = ("stage", "requests", "prompt tokens", "new tokens", "minutes", "known from")
        said = [f"dataset {name}, {rows:,} rows" for name, rows in self.datasets]
        said.append(f"about {self.rows:,} rows after the merge")
        said.append(f"cost: {'not known' if self.usd is None else f'{self.usd:.2f} USD'}")
        if self.budget is not None:
            said.append(f"budget {self.budget[0]}: {'suffices' if self.budget[1] else 'does not suffice'}")
        said += [f"note: {note}" for note in self.notes]
        return html_table(heads, lines, f"plan with teacher {self.teacher}") + html_lines(said)


@dataclass(frozen=True)
class Size:
    """What one request of a purpose takes on average."""

    prompt: float
    completion: float
    seconds: float | None
    basis: Basis

    def times(self, stage: str, requests: float) -> Step:
        """The step of so many requests."""
        n = round(requests)
        seconds = None if self.seconds is None else round(n * self.seconds, 1)
        return Step(stage, n, round(n * self.prompt), round(n * self.completion), seconds, self.basis)


def joined(a: Step, b: Step) -> Step:
    """Two parts of one stage as one step."""
    seconds = None if a.seconds is None or b.seconds is None else a.seconds + b.seconds
    return Step(
        a.stage, a.requests + b.requests, a.prompt_tokens + b.prompt_tokens, a.completion_tokens + b.completion_tokens,
        seconds, a.basis,
    )  # fmt: skip


def texts_to_label(spec: TaskSpec, options: SelfTrainingOptions, rows: int) -> int:
    """How many texts without labels a teacher is asked for: none unless `self_training.method` says so.

    Args:
        spec: The task.
        options: Of the self-training.
        rows: Training rows, which bound the texts.
    """
    if options.method != "teacher" or not options.rounds or spec.unlabelled is None or not spec.labels:
        return 0
    from potstill.retrieval.load import read_texts

    return min(len(read_texts(spec.unlabelled, spec)), int((options.resolved().most or 0) * rows))


def reading_note(spec: TaskSpec, options: SelfTrainingOptions, rows: int) -> str:
    """What a teacher might do for texts without labels; "" where that is asked for, or there are none.

    Args:
        spec: The task.
        options: Of the self-training.
        rows: Training rows, which bound the texts.
    """
    if options.method != "mixture" or not (count := texts_to_label(spec, replace(options, method="teacher"), rows)):
        return ""
    from potstill.retrieval.load import read_texts

    most = min(options.read, len(read_texts(spec.unlabelled, spec))) if spec.unlabelled else 0
    some = f"none, or {most:,} where the written rows say little of them" if most else "none"
    return (
        f"the texts without labels are labelled by where they lie, and the teacher reads {some}; one that reads "
        f"well labels them better, for {count:,} requests: --set self_training.method=teacher"
    )
