"""What a notebook shows: results as tables, and one table that follows a run.

Results give their table by `_repr_html_`. Tables have no colours of their own, so that they read on a light page and on
a dark one, and every text in them is escaped. IPython is never imported here: where a notebook runs, it is loaded.
"""

from __future__ import annotations

import contextlib
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

from markupsafe import Markup

from potstill.events import Event, Listener, silent
from potstill.pages.live_view import MARKS, RunView, duration

_UPDATE_EVERY_S = 0.25
_LONGEST_CELL = 300
_NOTES = 20
_RIGHT = Markup(' style="text-align:right"')
_LEFT = Markup(' style="text-align:left"')


def html_table(heads: Sequence[str], lines: Iterable[Sequence[object]], caption: str = "") -> Markup:
    """A table; numbers stand right, texts left and cut where they are long.

    Examples:
        >>> print(html_table(["rows"], [["<b>"], [1200]]))
        <table><thead><tr><th style="text-align:left">rows</th></tr></thead>
        <tbody><tr><td style="text-align:left">&lt;b&gt;</td></tr>
        <tr><td style="text-align:right">1,200</td></tr>
        </tbody></table>
    """
    top = Markup("<caption>{}</caption>").format(_plain(caption)) if caption else Markup("")
    head = Markup("").join(Markup("<th{}>{}</th>").format(_LEFT, _plain(name)) for name in heads)
    body = Markup("").join(Markup("<tr>{}</tr>\n").format(Markup("").join(map(_cell, line))) for line in lines)
    return Markup("<table>{}<thead><tr>{}</tr></thead>\n<tbody>{}</tbody></table>").format(top, head, body)


def html_lines(lines: Iterable[str]) -> Markup:
    """Sentences below a table."""
    return Markup("").join(Markup("<div>{}</div>").format(_plain(line)) for line in lines)


def _cell(value: object) -> Markup:
    if isinstance(value, Markup):
        return Markup("<td{}>{}</td>").format(_LEFT, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Markup("<td{}>{}</td>").format(_RIGHT, f"{value:,}" if isinstance(value, int) else f"{value:.3f}")
    return Markup("<td{}>{}</td>").format(_LEFT, "" if value is None else _plain(str(value)))


def _plain(text: str) -> str:
    """Text of unknown origin without control and direction characters, cut to the length of a cell."""
    cut = text if len(text) <= _LONGEST_CELL else text[:_LONGEST_CELL] + " …"
    return "".join(
        c if c in "\n\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else "�" for c in cut
    )


def in_notebook() -> bool:
    """Whether this code runs in a cell of a notebook; a terminal with IPython is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


@contextlib.contextmanager
def listening(given: Listener | None = None, clock: Callable[[], float] = time.time) -> Iterator[Listener]:
    """The listener that was given; without one, a table in a notebook that follows the events, and silence elsewhere.

    Args:
        given: What the caller asked for; `potstill.events.silent` shows nothing anywhere.
        clock: Unix time in seconds.
    """
    if given is not None or not in_notebook():
        yield given or silent
        return
    display = sys.modules["IPython"].display.display
    followed = Followed(RunView(), clock)
    handle = None
    last = 0.0

    def listen(event: Event) -> None:
        nonlocal handle, last
        known = event.stage in followed.view.stages
        followed.view.take(event)
        if handle is None:
            handle = display(followed, display_id=True)
        elif event.kind == "progress" and known and clock() - last < _UPDATE_EVERY_S:
            return
        else:
            handle.update(followed)
        last = clock()

    ended = "failed"
    try:
        yield listen
        ended = "done"
    finally:
        followed.end(ended)
        if handle is not None:
            handle.update(followed)


class Followed:
    """A run as it goes: stages, rows kept and dropped, time and time left, and what the teacher did."""

    def __init__(self, view: RunView, clock: Callable[[], float] = time.time):
        self.view, self.clock = view, clock

    def end(self, state: str) -> None:
        """Nothing is under way any more: some stages tell their progress and no end."""
        for stage in self.view.stages.values():
            if stage.state == "running":
                stage.state, stage.ended = state, self.clock()

    def __repr__(self) -> str:
        """The stage that is under way, or the last one."""
        stage = next(reversed(self.view.stages.values()), None)
        return "no stage yet" if stage is None else f"{MARKS[stage.state]} {stage.name} {stage.message}".rstrip()

    def _repr_html_(self) -> str:
        now = self.clock()
        lines = []
        for stage in self.view.stages.values():
            running = stage.state == "running"
            progress: object = ""
            if running and stage.total:
                bar = Markup('<progress max="{}" value="{}"></progress>')
                progress = bar.format(stage.total, min(stage.done, stage.total))
            elif running and stage.done:
                progress = stage.done
            took = "" if stage.state == "reused" else duration(stage.seconds(now))
            left = duration(stage.left_s(now))
            lines.append(
                (MARKS[stage.state], stage.name, progress, stage.kept, stage.dropped or None, took, left, stage.message)
            )
        table = html_table(("", "stage", "progress", "kept", "dropped", "time", "left", ""), lines)
        teacher = self.view.teacher_line()
        run = self.view.run_line(now) if any(s.state == "running" for s in self.view.stages.values()) else ""
        said = [f"{name}: {line}" for name, line in (("teacher", teacher), ("run", run)) if line]
        said += [f"note: {note}" for note in self.view.notes[-_NOTES:]]
        return table + html_lines(said)
