"""Metrics of the user's own: a Python function from a right answer and what was said to a number.

What enters: functions by name, rows in the one schema and a system's answers to them. What leaves: the mean of each
function's numbers with its 95 % interval, by the same draws of rows as all figures. Of several right answers the one
with the highest number counts. A function that raises, or gives what is no number, is left out with the reason, for
the student that it would measure is finished.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from potstill.errors import OptionError
from potstill.rows import REFERENCES, label_names
from potstill.task.spec import METRICS
from potstill.train.metrics import bootstrap_interval, mean_of_draws

if TYPE_CHECKING:
    from datasets import Dataset

Metric = Callable[..., Any]
_NAME = re.compile(r"[A-Za-z][\w+.@-]{0,39}")
# What an entry of `scores.json` holds beside figures.
_TAKEN = frozenset(
    ("name", "rows", "ci", "ece", "labels", "confusion", "label_distribution", "size_mib", "latency_ms", "answer")
    + ("answer_from", "bleu_tokens", "metric")
)


def check_metrics(metrics: Mapping[str, Metric]) -> None:
    """Refuse metrics that could not be taken, before anything is asked of a teacher.

    Raises:
        OptionError: No mapping, a name that is none or is taken, or what is no function of two or three arguments.
    """
    if not isinstance(metrics, Mapping):
        raise OptionError(
            "metrics", [f'a mapping of names to functions is needed, such as {{"my_metric": f}} (got {metrics!r:.60})']
        )
    faults = []
    for name, metric in metrics.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            faults.append(f"{name!r}: a name is up to 40 letters, digits and _ + . @ -, and begins with a letter")
        elif name in METRICS or name in _TAKEN:
            faults.append(f"{name}: there is a figure of that name already; call yours otherwise")
        if not callable(metric):
            faults.append(
                f"{name}: a function from a right answer and an output to a number is needed (got {metric!r})"
            )
        elif _arguments(metric) not in (2, 3):
            faults.append(
                f"{name}: it must take the right answer and the output, or those and the input "
                f"(it takes {inspect.signature(metric)})"
            )
    if faults:
        raise OptionError("metrics", faults)


def own_figures(
    metrics: Mapping[str, Metric], gold: Dataset, outputs: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, str]]:
    """Each metric's mean over the rows, the ends of its interval, and why those were left out that failed.

    Args:
        metrics: Functions by name, as `check_metrics` takes them.
        gold: Rows with right answers.
        outputs: One answer a row.
        resamples: Draws of the interval.
        seed: Of the draws.
    """
    names = label_names(gold)
    if REFERENCES in gold.column_names:
        right = [list(texts) for texts in gold[REFERENCES]]
    else:
        pairs = zip(gold["label"], gold["output"], strict=True)
        right = [[output if label is None or not names else names[label]] for label, output in pairs]
    figures: dict[str, float] = {}
    ends: dict[str, tuple[float, float]] = {}
    left_out: dict[str, str] = {}
    for name, metric in metrics.items():
        values = []
        for row, (texts, output, text) in enumerate(zip(right, outputs, gold["input"], strict=True)):
            more = (text,) if _arguments(metric) == 3 else ()
            try:
                values.append(max(_number(metric(answer, output, *more)) for answer in texts))
            except Exception as error:
                said = f"{type(error).__name__}: {error}"[:300]
                left_out[name] = f"it failed on test row {row + 1} of {len(right)} ({said})"
                break
        else:
            table = np.array(values, dtype=np.float64)
            figures[name] = float(table.mean())
            ends[name] = bootstrap_interval(mean_of_draws(table), len(values), resamples=resamples, seed=seed)
    return figures, ends, left_out


def _number(value: Any) -> float:
    if not isinstance(value, Real | np.bool_ | np.number) or not math.isfinite(float(value)):
        raise TypeError(f"it gave {value!r:.60}, not a finite number")
    return float(value)


def _arguments(metric: Metric) -> int:
    """How many arguments it must be given, two where nothing tells."""
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):  # written in C
        return 2
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in by_place)
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return 0
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) or len(by_place) >= 2:
        return max(2, needed)
    return len(by_place)
