"""How long a whole run still takes: what each stage is expected to take, mended by the pace of what is under way.

What a stage takes is known, in this order, from an earlier run in the folder (scaled by the rows asked for), from a
`plan` that was made there, or from one run of the shipped example on two cores. The last tells nothing of this teacher,
so nothing is said until the teacher's own pace is seen, and what the other stages ask of it is scaled by that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potstill.events import Event, Listener
from potstill.pages.live_view import RunView
from potstill.run_dir import MANIFEST, write_atomic

if TYPE_CHECKING:
    from potstill.plan.steps import RunPlan

Basis = Literal["earlier", "plan", "assumed"]
KEY = "run_left_s"
_PLAN = ".plan.json"
# Seconds of a stage, and seconds for each row that the teacher is to write, as the shipped example took on two cores.
_ASSUMED: Mapping[str, tuple[float, float]] = {
    "task": (0.1, 0.0), "retrieval": (12.0, 0.0), "datagen": (5.0, 0.95), "quality": (1.0, 0.2), "weak": (5.0, 0.0),
    "merge": (1.0, 0.005), "soft": (3.0, 0.12), "rationales": (3.0, 1.0), "train": (20.0, 0.3),
    "compress": (60.0, 0.0), "evaluate": (25.0, 0.0),
}  # fmt: skip
_BY_ROWS = ("datagen", "quality", "merge", "soft", "rationales", "train")
_ASKING = ("datagen", "quality", "soft", "rationales", "evaluate")
_LEAST_RATIO, _MOST_RATIO = 0.02, 50.0
# Seconds below which an asking stage of an earlier run tells nothing: it was off, or all its replies were known.
_LEAST_ASKING = 5.0


@dataclass(frozen=True)
class Expected:
    """What a stage is expected to take.

    Attributes:
        seconds: Its time.
        basis: How that is known.
    """

    seconds: float
    basis: Basis


def expected_seconds(run: Path, stages: Sequence[str], rows: int) -> dict[str, Expected]:
    """What each stage of a run is expected to take.

    Args:
        run: The run folder; it need not exist.
        stages: Names of the run's stages.
        rows: Rows that the teacher is to write.
    """
    planned = _read(run / _PLAN)
    if planned.get("rows_asked") != rows:
        planned = {}
    earlier = {name: _read(run / name / MANIFEST) for name in stages}
    before = earlier.get("datagen", {}).get("key_parts", {}).get("options", {}).get("rows")
    found = {}
    for name in stages:
        took, plan = earlier[name].get("seconds"), planned.get("seconds", {}).get(name)
        fixed, each = _ASSUMED.get(name, (1.0, 0.0))
        if isinstance(took, (int, float)) and not (name in _ASKING and took < _LEAST_ASKING):
            scale = rows / before if name in _BY_ROWS and isinstance(before, int) and before > 0 else 1.0
            found[name] = Expected(took * scale, "earlier")
        elif isinstance(plan, (int, float)):
            found[name] = Expected(float(plan), "plan")
        else:
            found[name] = Expected(fixed + each * rows, "assumed")
    return found


def keep_plan(run: Path, plan: Mapping[str, Any], rows: int) -> None:
    """Leave a plan's times for the run that follows, in a folder that is there; `plan` is `RunPlan.to_json()`."""
    seconds: dict[str, float] = {}
    for step in plan["steps"]:
        if step["seconds"] is None:
            return
        name = "datagen" if step["stage"] in ("attributes", "answers") else step["stage"]
        seconds[name] = seconds.get(name, 0.0) + step["seconds"]
    for name in _ASKING:
        seconds.setdefault(name, 1.0)  # it asks nothing of this teacher
    if run.is_dir():
        with suppress(OSError):
            write_atomic(run / _PLAN, json.dumps({"rows_asked": rows, "seconds": seconds}) + "\n")


def keep_plan_of(task: str, out: Path | None, settings: Mapping[str, Any], plan: RunPlan) -> None:
    """The same for the folder and the rows that a run of these arguments would have."""
    from potstill.settings import read_with_settings

    draft, resolved = read_with_settings(task, settings)
    keep_plan(out or Path("runs") / draft.spec.name, plan.to_json(), resolved.generation.rows)


class RunClock:
    """A listener that hands events on, with `data["run_left_s"]` in those of a run's stages where it can be said."""

    def __init__(self, listener: Listener):
        self._listener = listener
        self._view = RunView()
        self._expected: dict[str, Expected] = {}

    def start(self, expected: Mapping[str, Expected]) -> None:
        """Tell what the stages are expected to take; before it, events pass as they are."""
        self._expected = dict(expected)

    def __call__(self, event: Event) -> None:
        self._view.take(event)
        if self._expected and event.kind not in ("note", "failed"):
            left = self.left_s(event.time_s)
            if left is not None:
                event = replace(event, data={**event.data, KEY: round(left, 1)})
        self._listener(event)

    def left_s(self, now: float) -> float | None:
        """Seconds until the last stage ends, or None while nothing tells the teacher's pace."""
        ratio = self._ratio(now)
        if ratio is None and any(
            name in _ASKING and expected.basis == "assumed" and not self._is_over(name)
            for name, expected in self._expected.items()
        ):
            return None
        left = 0.0
        for name, expected in self._expected.items():
            if self._is_over(name):
                continue
            whole = expected.seconds * (ratio if ratio is not None and name in _ASKING else 1.0)
            stage = self._view.stages.get(name)
            if stage is None or stage.state != "running":
                left += whole
                continue
            at_its_pace = stage.left_s(now) if stage.own else None
            # A stage that takes longer than it should is taken to be near its end.
            left += max(whole - stage.seconds(now), whole / 20) if at_its_pace is None else at_its_pace
        return left

    def _is_over(self, name: str) -> bool:
        stage = self._view.stages.get(name)
        return stage is not None and stage.state in ("done", "reused")

    def _ratio(self, now: float) -> float | None:
        """How many times as long as expected the stages that ask the teacher took, or take at their pace."""
        took = wanted = 0.0
        for name in _ASKING:
            stage, expected = self._view.stages.get(name), self._expected.get(name)
            if stage is None or expected is None or name == "evaluate" or stage.state not in ("done", "running"):
                continue
            seconds = stage.seconds(now)
            if stage.state == "running":
                left = stage.left_s(now) if stage.own else None
                if left is None:
                    continue
                seconds += left
            took, wanted = took + seconds, wanted + expected.seconds
        return None if wanted <= 0 else min(_MOST_RATIO, max(_LEAST_RATIO, took / wanted))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
