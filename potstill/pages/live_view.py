"""A run as it goes, gathered from events and drawn: stages, rows kept and dropped, tokens a second, cost, time left.

`RunView` takes events and holds what is known; it draws nothing and can be tested as a value. `live` draws it on a
terminal. Two kinds of progress come for one stage: the stage's own (rows) and the teacher's (replies, with tokens and
money in `data`), told apart by `tokens_per_s`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from potstill.events import Event, Listener

MARKS = {"done": "✓", "reused": "=", "failed": "✗", "running": "…"}


@dataclass
class StageView:
    """One stage.

    Attributes:
        name: Its name, or what the teacher is asked for outside of a stage.
        state: running, done, reused or failed.
        started: Unix time in seconds.
        ended: Unix time in seconds, or None while it runs.
        done: Units finished.
        total: Units expected, or None.
        message: The latest line.
        kept: Rows kept so far, where the stage says.
        dropped: Rows refused so far.
        first: Units and time of the first progress, for the time left.
        own: Whether the stage itself tells its progress; the teacher's count stands in otherwise.
    """

    name: str
    state: str = "running"
    started: float = 0.0
    ended: float | None = None
    done: int = 0
    total: int | None = None
    message: str = ""
    kept: int | None = None
    dropped: int = 0
    first: tuple[int, float] | None = None
    own: bool = False

    def seconds(self, now: float) -> float:
        """How long it has run."""
        return max(0.0, (self.ended or now) - self.started)

    def left_s(self, now: float) -> float | None:
        """Seconds until it ends at its pace so far, or None when that cannot be said yet."""
        if self.state != "running" or not self.total or self.first is None:
            return None
        done, since = self.first
        # The first few come when the model has been loaded and a whole batch has begun: their pace is none.
        if self.done - done < max(2, min(self.total // 25, 16)) or now - since < 1.0:
            return None
        return max(0.0, (self.total - self.done) * (now - since) / (self.done - done))


@dataclass
class RunView:
    """All of a run that has been told so far.

    Attributes:
        stages: By name, in order of their start.
        notes: Lines for a person.
        fresh: Replies of the teacher in this call.
        cached: Replies out of the ledger.
        tokens: Tokens read and written in this call.
        tokens_per_s: Written tokens a second, of the latest stream.
        usd: Money spent, where the price is known.
        run_left: Seconds that the whole run still takes, and when that was said; see `potstill.run_left`.
    """

    stages: dict[str, StageView] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fresh: int = 0
    cached: int = 0
    tokens: int = 0
    tokens_per_s: float = 0.0
    usd: float | None = None
    run_left: tuple[float, float] | None = None

    def take(self, event: Event) -> None:
        """Learn one event."""
        if event.kind == "note":
            self.notes.append(event.message)
            return
        if isinstance(event.data.get("run_left_s"), (int, float)):
            self.run_left = float(event.data["run_left_s"]), event.time_s
        stage = self.stages.setdefault(event.stage, StageView(event.stage, started=event.time_s))
        if event.kind == "start":
            self.stages[event.stage] = StageView(event.stage, started=event.time_s)
        elif event.kind == "progress":
            self._progress(stage, event)
        else:
            stage.state, stage.ended, stage.message = event.kind, event.time_s, event.message
            if isinstance(event.data.get("rows"), int):
                stage.kept = event.data["rows"]
            if isinstance(event.data.get("dropped"), int):
                stage.dropped = event.data["dropped"]

    def _progress(self, stage: StageView, event: Event) -> None:
        if "tokens_per_s" in event.data:
            self.fresh, self.cached = event.data.get("fresh", 0), event.data.get("cached", 0)
            self.tokens = event.data.get("prompt_tokens", 0) + event.data.get("completion_tokens", 0)
            self.tokens_per_s = float(event.data["tokens_per_s"])
            self.usd = event.data.get("usd", self.usd)
            if stage.own:
                return
        else:
            if not stage.own:
                stage.first = None  # it counted the teacher's replies until now
            stage.own = True
        if event.total != stage.total and stage.total is not None:
            stage.first = None
        stage.done, stage.total, stage.message = event.done, event.total, event.message
        dropped = event.data.get("dropped")
        if isinstance(dropped, dict):
            stage.kept, stage.dropped = event.done, sum(dropped.values())
        if stage.first is None:
            stage.first = (event.done, event.time_s)

    def run_line(self, now: float) -> str:
        """How long the run has taken and still takes; empty where that cannot be said."""
        if self.run_left is None or not self.stages:
            return ""
        left, said = self.run_left
        so_far = now - min(stage.started for stage in self.stages.values())
        return f"{duration(so_far)} so far, about {duration(max(0.0, left - (now - said)))} left"

    def teacher_line(self) -> str:
        """What the teacher did so far; empty before its first reply."""
        if not self.fresh and not self.cached:
            return ""
        parts = [f"{self.fresh:,} replies"]
        if self.cached:
            parts.append(f"{self.cached:,} from the ledger")
        parts.append(f"{self.tokens:,} tokens")
        if self.tokens_per_s:
            parts.append(f"{self.tokens_per_s:,.0f} tokens/s")
        if self.usd is not None:
            parts.append(f"{self.usd:.4f} USD" if self.usd else "no cost")
        return ", ".join(parts)


def duration(seconds: float | None) -> str:
    """A time for people; empty for None.

    Examples:
        >>> duration(7), duration(185), duration(3723)
        ('7 s', '3:05', '1:02:03')
    """
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


@contextlib.contextmanager
def live(clock: Callable[[], float] = time.time) -> Iterator[Listener]:
    """A listener that draws the run on the terminal (standard error) and leaves its last state there."""
    from rich.console import Console
    from rich.live import Live

    view = RunView()
    console = Console(stderr=True)

    def draw() -> object:
        return drawn(view, clock())

    with Live(get_renderable=draw, console=console, refresh_per_second=4) as screen:  # type: ignore[arg-type]

        def listen(event: Event) -> None:
            view.take(event)
            if event.kind == "note":
                screen.console.print(f"note  {event.message}", markup=False, highlight=False)

        yield listen


def drawn(view: RunView, now: float) -> object:
    """The view as something that rich prints."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    # The message takes the width that the figures leave: on a narrow terminal it is what is cut.
    table = Table(box=None, padding=(0, 1), show_header=True, header_style="dim", expand=True)
    heads = ("", "stage", "progress", "kept", "dropped", "time", "left", "")
    for name in heads:
        justify = "right" if name in ("kept", "dropped", "time", "left") else "left"
        table.add_column(name, justify=justify, no_wrap=True, ratio=None if name else 1)  # type: ignore[arg-type]
    table.columns[0].ratio = None
    styles = {"done": "green", "reused": "dim", "failed": "red", "running": "cyan"}
    for stage in view.stages.values():
        running = stage.state == "running"
        bar: object = ""
        if running and stage.total:
            bar = ProgressBar(total=stage.total, completed=min(stage.done, stage.total), width=18)
        elif running and stage.done:
            bar = f"{stage.done:,}"
        table.add_row(
            Text(MARKS[stage.state], style=styles[stage.state]),
            stage.name,
            bar,  # type: ignore[arg-type]
            "" if stage.kept is None else f"{stage.kept:,}",
            f"{stage.dropped:,}" if stage.dropped else "",
            "" if stage.state == "reused" else duration(stage.seconds(now)),
            duration(stage.left_s(now)),
            Text(stage.message, style="dim", overflow="ellipsis"),
        )
    lines = {"teacher": view.teacher_line(), "run": view.run_line(now)}
    return Group(table, *(Text(f"  {name}: {line}", style="dim") for name, line in lines.items() if line))
