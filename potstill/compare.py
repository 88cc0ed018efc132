"""Runs side by side: scores with their intervals, what differs, and whether a difference is more than luck.

What enters: two or more run folders. What leaves: `Comparison`. Where two students answered the same test inputs, the
difference of their main score has an interval of its own, from drawing test rows and scoring both on the same draws
(paired bootstrap; Koehn 2004, "Statistical significance tests for machine translation evaluation", §3): it is narrower
than the two intervals suggest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import UserError
from potstill.report.facts import RunFacts, read_run
from potstill.rows import REFERENCES

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURES = (
    "accuracy",
    "macro_f1",
    "qwk",
    "mae",
    "exact_match",
    "token_f1",
    "rouge_l",
    "chrf",
    "chrf++",
    "bleu",
    "ece",
)
_IGNORED = ("origin.",)
_RESAMPLES = 2000
_FEWEST = 10  # rows of which a bootstrap says anything


@dataclass(frozen=True)
class Difference:
    """The second student's main score less the first's, on the same test rows.

    Attributes:
        metric: Which score.
        value: The difference.
        low: Lower end of its 95 % interval.
        high: Upper end.
        rows: Test rows that both answered.
        names: Whose: (the second, the first).
    """

    metric: str
    value: float
    low: float
    high: float
    rows: int
    names: tuple[str, str]

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        verdict = "more than luck" if self.sure else "may be luck"
        better, base = self.names
        return (
            f"{better} less {base}: {self.value:+.3f} {self.metric} [{self.low:+.3f}, {self.high:+.3f}] "
            f"on {self.rows:,} rows: {verdict}"
        )


@dataclass(frozen=True)
class Comparison:
    """What two or more runs share and where they differ.

    Attributes:
        names: The runs, in order.
        scores: (system, figure, one text a run), such as ("student", "macro_f1", ("0.71 [0.68, 0.74]", …)).
        facts: (what, one text a run): rows, size, latency, tokens.
        settings: (setting, one text a run) where they are not all the same.
        differences: Paired differences of every later student to the first.
        notes: What makes the runs hard to compare.
    """

    names: tuple[str, ...]
    scores: tuple[tuple[str, str, tuple[str, ...]], ...]
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            "runs": list(self.names),
            "scores": [{"system": s, "figure": f, "values": list(v)} for s, f, v in self.scores],
            "facts": {name: list(values) for name, values in self.facts},
            "settings": {name: list(values) for name, values in self.settings},
            "differences": [{**vars(d), "names": list(d.names), "sure": d.sure} for d in self.differences],
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        """Scores, facts and settings side by side, for a notebook."""
        from potstill.notebook import html_lines, html_table

        lines = [(system, figure, *values) for system, figure, values in self.scores]
        lines += [(name, "", *values) for name, values in self.facts if any(values)]
        shown = html_table(("system", "figure", *self.names), lines, "scores, with 95 % intervals")
        if self.settings:
            differ = [(name, *values) for name, values in self.settings]
            shown += html_table(("setting that differs", *self.names), differ)
        return shown + html_lines([*map(str, self.differences), *(f"note: {note}" for note in self.notes)])


def compare_runs(paths: Sequence[Path | str]) -> Comparison:
    """Compare finished runs.

    Raises:
        UserError: Fewer than two runs, or one that has not been measured.
        DataError: A file of a run cannot be read.
    """
    if len(paths) < 2:
        raise UserError(f"two runs are needed to compare (got {len(paths)}): potstill compare RUN RUN")
    runs = [read_run(Path(path)) for path in paths]
    for facts in runs:
        if not facts.systems:
            raise UserError(f"{facts.path} has not been measured; finish it: potstill run TASK --out {facts.path}")
    names = _names([facts.path for facts in runs])
    paired = [_difference(runs[0], runs[i], names[0], names[i]) for i in range(1, len(runs))]
    return Comparison(
        names=names,
        scores=tuple(_scores(runs)),
        facts=tuple(_facts(runs)),
        settings=tuple(_settings(runs)),
        differences=tuple(found for found in paired if isinstance(found, Difference)),
        notes=(*_notes(runs, names), *(found for found in paired if isinstance(found, str))),
    )


def paired_interval(
    gold: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    metric: str,
    labels: Sequence[str],
    *,
    references: Sequence[Sequence[str]] | None = None,
    order: Sequence[int] = (),
    seed: int = 0,
) -> tuple[float, float, float]:
    """Difference of a score between two systems on the same rows, with the ends of its 95 % bootstrap interval.

    Args:
        gold: The right answers.
        first: Answers of the system that is taken away.
        second: Answers of the other.
        metric: accuracy, macro_f1, qwk, exact_match, token_f1, rouge_l, chrf, chrf++ or bleu.
        labels: The task's labels, for macro_f1 and qwk.
        references: Of written answers, all right ones of each row, where there are several; None takes `gold`.
        order: The place of each label on its scale, for qwk.
        seed: Of the draws.

    Source: Koehn 2004, W04-3250, §3.

    Examples:
        >>> value, low, high = paired_interval(["a", "b"] * 5, ["a"] * 10, ["a", "b"] * 5, "accuracy", ["a", "b"])
        >>> round(value, 2), low > 0
        (0.5, True)
    """
    import numpy as np

    from potstill.train import metrics
    from potstill.train.ordinal import ordinal_of_draws
    from potstill.train.text_scores import text_scorer

    def scorer(answers: Sequence[str]) -> Any:
        if metric in ("macro_f1", "qwk"):
            index = {name: i for i, name in enumerate(labels)}
            truth = np.array([index[text] for text in gold], dtype=np.int64)
            said = np.array([index.get(text, -1) for text in answers], dtype=np.int64)
            if metric == "qwk":
                return ordinal_of_draws(metric, truth, said, order)
            return metrics.macro_f1_of_draws(truth, said, len(labels))
        if metric == "accuracy":
            return metrics.mean_of_draws(np.array([a == b for a, b in zip(gold, answers, strict=True)], np.float64))
        return text_scorer(metric, references or [[text] for text in gold], answers)

    before, after = scorer(first), scorer(second)

    def gap(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(after(draws) - before(draws), dtype=np.float64)

    whole = np.arange(len(gold))[None, :]
    low, high = metrics.bootstrap_interval(gap, len(gold), resamples=_RESAMPLES, seed=seed)
    return float(gap(whole)[0]), low, high


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    short = [path.name or str(path) for path in paths]
    return tuple(short if len(set(short)) == len(short) else [str(path) for path in paths])


def _scores(runs: Sequence[RunFacts]) -> list[tuple[str, str, tuple[str, ...]]]:
    systems = list(dict.fromkeys(str(s.get("name", "")) for facts in runs for s in facts.systems))
    own = dict.fromkeys(str(name) for facts in runs for name in facts.scores.get("own_metrics", ()))
    lines = []
    for system in systems:
        for figure in (*FIGURES, *own):
            values = tuple(_score(facts.system(system), figure) for facts in runs)
            if any(values):
                lines.append((system, figure, values))
    return lines


def _score(system: Mapping[str, Any], figure: str) -> str:
    value = system.get(figure)
    if not isinstance(value, (int, float)):
        return ""
    ends = (system.get("ci") or {}).get(figure)
    return f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _facts(runs: Sequence[RunFacts]) -> list[tuple[str, tuple[str, ...]]]:
    def origins(facts: RunFacts) -> str:
        counts: dict[str, int] = {}
        for line in facts.sources:
            counts[line.origin] = counts.get(line.origin, 0) + line.rows
        return ", ".join(f"{rows:,} {name}" for name, rows in counts.items())

    def latency(facts: RunFacts) -> str:
        value = (facts.system("student").get("latency_ms") or {}).get("p50")
        return f"{value:.1f} ms" if value else ""

    def size(facts: RunFacts) -> str:
        value = facts.system("student").get("size_mib")
        return f"{value:.1f} MiB" if value else ""

    def tokens(facts: RunFacts) -> str:
        return f"{sum(t['prompt_tokens'] + t['completion_tokens'] for t in facts.tokens):,}" if facts.tokens else ""

    def seconds(facts: RunFacts) -> str:
        return f"{sum(float(m.get('seconds', 0)) for m in facts.manifests.values()) / 60:.1f} min"

    lines = {
        "test rows": lambda f: f"{f.scores.get('test_set', {}).get('rows', 0):,} {f.test_kind}",
        "rows by origin": origins, "base model": lambda f: f.base_model_name or "", "student size": size,
        "student latency": latency, "teacher tokens": tokens, "time": seconds,
    }  # fmt: skip
    return [(name, tuple(get(facts) for facts in runs)) for name, get in lines.items()]


def _settings(runs: Sequence[RunFacts]) -> list[tuple[str, tuple[str, ...]]]:
    tables = []
    for facts in runs:
        flat = _flat(facts.run.get("settings", {}))
        flat |= {f"task.{key}": value for key, value in _flat(facts.spec.to_json()).items() if key != "inferred"}
        flat |= {f"version of {key}": value for key, value in _flat(facts.run.get("versions", {})).items()}
        tables.append({key: value for key, value in flat.items() if not key.startswith(_IGNORED)})
    keys = list(dict.fromkeys(key for table in tables for key in table))
    lines = [(key, tuple(table.get(key, "(none)") for table in tables)) for key in keys]
    return [(key, values) for key, values in lines if len(set(values)) > 1]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        found: dict[str, str] = {}
        for key, item in value.items():
            found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        return {prefix: "; ".join(", ".join(f"{k}={v}" for k, v in _flat(item).items() if v) for item in value)}
    return {prefix: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)}


def _difference(first: RunFacts, other: RunFacts, name: str, other_name: str) -> Difference | str:
    """The paired difference of two students, where they answered the same rows; otherwise why there is none."""
    metric = str(first.scores.get("metric", first.spec.metric))
    before, after = first.predictions, other.predictions
    none = f"{other_name} and {name} are not compared row by row: "
    if not before.get("student") or not after.get("student"):
        return f"{none}the answers of {name if not before.get('student') else other_name} are not in its folder"
    mine, others = set(first.spec.label_names), set(other.spec.label_names)
    if mine != others:
        apart = "; ".join(", ".join(sorted(names)) for names in (others - mine, mine - others) if names)
        return f"{none}their tasks have other labels ({apart})"
    answers = {(i, g): s for i, g, s in zip(after["input"], after["gold"], after["student"], strict=True)}
    right = before.get(REFERENCES) or [[text] for text in before["gold"]]
    both = [
        (gold, said, answers[text, gold], all_right)
        for text, gold, said, all_right in zip(before["input"], before["gold"], before["student"], right, strict=True)
        if (text, gold) in answers
    ]
    if len(both) < _FEWEST:
        return f"{none}they have fewer than {_FEWEST} test rows in common ({len(both)})"
    gold, said, other_said, right = (list(column) for column in zip(*both, strict=True))
    value, low, high = paired_interval(
        gold, said, other_said, metric, first.spec.label_names, references=right, order=first.spec.ordered
    )
    return Difference(metric, value, low, high, len(both), (other_name, name))


def _notes(runs: Sequence[RunFacts], names: Sequence[str]) -> list[str]:
    notes = []
    first = runs[0]
    tested = {(i, g) for i, g in zip(first.predictions.get("input", []), first.predictions.get("gold", []))}
    for facts, name in zip(runs[1:], names[1:], strict=True):
        own = {(i, g) for i, g in zip(facts.predictions.get("input", []), facts.predictions.get("gold", []))}
        if own != tested:
            shared = len(own & tested)
            notes.append(
                f"{name} was measured on other test rows than {names[0]} ({shared:,} in common): their scores side by "
                "side say little; give both the same test: data, or use potstill evaluate RUN --on FILE"
            )
        if facts.scores.get("metric") != first.scores.get("metric"):
            notes.append(
                f"{name} is judged by {facts.scores.get('metric')}, {names[0]} by {first.scores.get('metric')}"
            )
    for facts, name in zip(runs, names, strict=True):
        if facts.test_kind != "real":
            notes.append(f"{name} has no real test data: it was measured on a held-out part of its own rows")
    return notes
