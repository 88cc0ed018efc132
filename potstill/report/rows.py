"""What the report shows of single rows: samples, near-duplicates, how fast new words come, and where the student errs.

What enters: `RunFacts`. What leaves: plain values for the templates. Every sample is evenly spaced and every draw is
seeded, so the same run gives the same page.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from potstill.masking import public_name
from potstill.report import plots
from potstill.report.facts import RunFacts, pinned
from potstill.rows import REFERENCES

_ORIGINS = ("generated", "retrieved", "user", "pseudo")
_SHOWN_LABELS, _SHOWN_A_LABEL = 12, 2
_NEAR_SAMPLE, _NEAR_PAIRS, _NEAR = 600, 6, 0.7
_GROWTH_POINTS = 24
_MISTAKES = 8


@dataclass(frozen=True)
class Variety:
    """How alike the training inputs are.

    Attributes:
        nearest: For each origin, each sampled text's ROUGE-L F1 to the text that is most like it, 0 to 1.
        growth: For each origin, (rows read, distinct words so far).
        pairs: The pairs that are most alike: (F1, one text, the other).
        sample: Texts compared.
    """

    nearest: dict[str, list[float]] = field(default_factory=dict)
    growth: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    pairs: list[tuple[float, str, str]] = field(default_factory=list)
    sample: int = 0


def few_rows_sentence(rows: int) -> str:
    """What a score on under 30 test rows is worth; empty for more.

    A bootstrap draws from the rows that are there, so of three right answers it knows nothing but right answers. The
    bound is the share of right answers at which all rows are right once in twenty times.

    Examples:
        >>> few_rows_sentence(3)[-83:]
        'with all of them right the accuracy in use may be as low as 37 % (95 % confidence).'
    """
    if not 0 < rows < 30:
        return ""
    told = f"{rows} test rows are" if rows > 1 else "1 test row is"
    return (
        f"{told} too few to tell: the brackets of a bootstrap come out too narrow, and even with all of them right the "
        f"accuracy in use may be as low as {100 * 0.05 ** (1 / rows):.0f} % (95 % confidence)."
    )


def training_rows(facts: RunFacts) -> list[dict[str, Any]]:
    """Input, output, origin and source of every training row; empty where there are none yet."""
    if "train" not in facts.splits:
        return []
    table = facts.columns("train", ["input", "output", "origin", "source"])
    return [dict(item) for item in table.to_pylist()]


def samples(facts: RunFacts, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A few rows as they are: for each label, or each origin where there are no labels, evenly spaced."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[str(row["output"]) if facts.spec.labels else "", str(row["origin"])].append(row)
    names = list(facts.spec.label_names[:_SHOWN_LABELS]) if facts.spec.labels else [""]
    most = _SHOWN_A_LABEL if facts.spec.labels else 5
    several = ("generated", "retrieved") if facts.spec.labels else ("generated", "retrieved", "pseudo")
    shown = []
    for name in names:
        for origin in _ORIGINS:
            found = groups.get((name, origin), [])
            step = max(1, len(found) // most)
            for row in found[::step][:most] if origin in several else found[:1]:
                source = row.get("source") or {}
                place = public_name(str(source.get("dataset") or source.get("teacher") or ""))
                shown.append(
                    {"label": str(row["output"]), "input": str(row["input"]), "origin": origin, "place": place}
                )
    return shown


def variety(rows: Sequence[Mapping[str, Any]]) -> Variety:
    """Nearest texts, growth of the vocabulary, and the pairs that are most alike.

    Source: near-duplicate as ROUGE-L F1 above 0.7, arXiv:2212.10560 §2.2.
    """
    if len(rows) < 3:
        return Variety()
    import numpy as np
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    step = max(1.0, len(rows) / _NEAR_SAMPLE)
    chosen = [rows[int(i * step)] for i in range(min(_NEAR_SAMPLE, len(rows)))]
    words = [_words(str(row["input"])) for row in chosen]
    # Indel similarity over word lists is 2·LCS/(len a + len b), which is ROUGE-L F1.
    alike = cdist(words, words, scorer=Indel.normalized_similarity, dtype=np.float32)
    np.fill_diagonal(alike, 0.0)
    nearest: dict[str, list[float]] = defaultdict(list)
    for row, value in zip(chosen, alike.max(axis=1), strict=True):
        nearest[str(row["origin"])].append(float(value))
    upper = np.triu(alike)
    order = np.argsort(upper, axis=None, kind="stable")[::-1][: 4 * _NEAR_PAIRS]
    pairs: list[tuple[float, str, str]] = []
    for i, j in zip(*np.unravel_index(order, upper.shape), strict=True):
        if upper[i, j] > _NEAR and len(pairs) < _NEAR_PAIRS:
            pairs.append((float(upper[i, j]), str(chosen[i]["input"]), str(chosen[j]["input"])))
    growth = {}
    for origin in sorted({str(row["origin"]) for row in rows}, key=lambda name: (name not in _ORIGINS, name)):
        points = _growth([str(row["input"]) for row in rows if row["origin"] == origin])
        if len(points) > 2:
            growth[origin] = points
    ordered = {name: nearest[name] for name in (*_ORIGINS, *sorted(set(nearest) - set(_ORIGINS))) if name in nearest}
    return Variety(ordered, growth, pairs, len(chosen))


def variety_plots(found: Variety) -> list[Markup]:
    """The two drawings of it."""
    drawn = []
    values = {name: [100 * value for value in item] for name, item in found.nearest.items() if len(item) > 4}
    if values:
        drawn.append(plots.histogram(values, title="Likeness to the nearest other text", x_title="ROUGE-L, percent"))
    if found.growth:
        drawn.append(plots.lines(found.growth, title="New words", x_title="rows", y_title="distinct words"))
    return drawn


def by_label(student: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each label, from the student's confusion matrix; the worst first."""
    counts, labels = student.get("confusion"), [str(name) for name in student.get("labels", [])]
    if not counts or not labels or any(len(row) < len(labels) for row in counts):
        return []
    lines = []
    for i, name in enumerate(labels):
        right, gold, said = counts[i][i], sum(counts[i]), sum(row[i] for row in counts)
        if gold or said:
            lines.append({
                "label": name, "rows": gold, "precision": right / said if said else None,
                "recall": right / gold if gold else None, "f1": 2 * right / (gold + said),
            })  # fmt: skip
    return sorted(lines, key=lambda line: (line["f1"], line["label"]))


def mistakes(facts: RunFacts) -> list[dict[str, Any]]:
    """Test rows that the student got wrong (classification), those it was surest of first."""
    said, sure = facts.predictions.get("student"), facts.predictions.get("student_confidence")
    if not facts.spec.labels or not said or not sure:
        return []
    wrong = [
        {"input": text, "gold": gold, "said": answer, "sure": float(value)}
        for text, gold, answer, value in zip(facts.predictions["input"], facts.predictions["gold"], said, sure)
        if answer != gold and value is not None
    ]
    return sorted(wrong, key=lambda item: (-item["sure"], item["input"]))[:_MISTAKES]


def answers(facts: RunFacts) -> list[dict[str, str]]:
    """A few test rows with the student's text beside the expected one (tasks that are not classification)."""
    said = facts.predictions.get("student")
    if facts.spec.labels or not said:
        return []
    step = max(1, len(said) // 5)
    columns = zip(facts.predictions["input"], facts.predictions["gold"], said)
    return [{"input": a, "gold": b, "said": c} for a, b, c in itertools.islice(columns, 0, None, step)][:5]


def differences(facts: RunFacts) -> list[dict[str, Any]]:
    """The student less every other system on the main score: paired bootstrap over the test rows."""
    from potstill.compare import paired_interval

    metric = str(facts.scores.get("metric", facts.spec.metric))
    gold, said = facts.predictions.get("gold"), facts.predictions.get("student")
    if not gold or not said or (facts.spec.labels and not set(gold) <= set(facts.spec.label_names)):
        return []
    lines = []
    for system in facts.systems:
        name = str(system.get("name", ""))
        column = name.removeprefix("student (").replace("teacher (", "teacher_").rstrip(")")
        others = facts.predictions.get(column)
        if name == "majority" and others is None:
            others = [_only_answer(system)] * len(gold)
        if name == "student" or not others or len(others) != len(gold) or None in others:
            continue
        value, low, high = paired_interval(
            gold,
            others,
            said,
            metric,
            facts.spec.label_names,
            references=facts.predictions.get(REFERENCES),
            order=facts.spec.ordered,
        )
        lines.append({"name": name, "value": value, "low": low, "high": high, "sure": low > 0 or high < 0})
    return lines


def measured_elsewhere(facts: RunFacts) -> list[dict[str, Any]]:
    """What `potstill evaluate` found on other data."""
    found = []
    for path in sorted((facts.path / "measured").glob("*/scores.json")):
        try:
            scores = json.loads(path.read_text(encoding="utf-8"))
            student = next(item for item in scores["systems"] if item["name"] == "student")
            test = scores["test_set"]
            found.append({
                "source": pinned(public_name(str(test["source"])), test.get("commit")), "rows": int(test["rows"]),
                "known": int(test["known"]),
                "metric": str(scores["metric"]), "system": student,
            })  # fmt: skip
        except (OSError, ValueError, KeyError, StopIteration, TypeError):
            continue
    return found


def _only_answer(system: Mapping[str, Any]) -> str:
    shares = dict(system.get("label_distribution") or {})
    return str(max(shares, key=lambda name: shares[name])) if shares else ""


def _growth(texts: Sequence[str]) -> list[tuple[float, float]]:
    seen: set[str] = set()
    marks = {round(len(texts) * (i + 1) / _GROWTH_POINTS) for i in range(_GROWTH_POINTS)}
    points = [(0.0, 0.0)]
    for count, text in enumerate(texts, 1):
        seen.update(_words(text))
        if count in marks:
            points.append((float(count), float(len(seen))))
    return points


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
