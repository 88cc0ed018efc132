"""A run as one page: what was asked, found, written, refused, learnt and measured, and how to repeat it.

What enters: a run folder. What leaves: `report.html` (one file, no script, no network; light, dark, phone, print)
and `report.md` (the same figures as text). Rows, cards and replies are hostile by assumption: the template escapes
everything, plots escape their labels, control characters are taken out, and a content policy in the page forbids
whatever might slip through.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from potstill.asking.counts import in_all
from potstill.hub.cards import leak_sentence, md, merge_licences, score_text, teacher_terms
from potstill.masking import hide_addresses, public_name
from potstill.report import plots
from potstill.report import rows as report_rows
from potstill.report.compression import compression
from potstill.report.facts import RunFacts, read_run
from potstill.report.rules import rule_lines
from potstill.report.saving import list_price, saving
from potstill.run_dir import STAGES, seal_root, write_atomic

_METRICS = {"accuracy": "Accuracy", "macro_f1": "Macro-F1", "qwk": "Quadratic kappa", "mae": "Mean distance",
            "exact_match": "Exact match",
            "token_f1": "Token F1", "rouge_l": "ROUGE-L", "chrf": "chrF", "chrf++": "chrF++",
            "bleu": "BLEU", "ece": "Calibration error"}  # fmt: skip
_TABLE_LABELS = 14
_LABELLED_BY = {
    "encoder": "a mixture of them in the sentence encoder's space",
    "student": "a mixture of them in the space of a first student",
    "opinion": "the names of the labels and what the rows say",
    "likeness": "how alike the two fields of an input are",
    "differences": "how the fields of an input differ",
    "teacher": "the teacher",
}
# `vllm:/models/x` names a folder, `http://host/x` does not.
_LOCAL_PATH = re.compile(r"(?:(?<![\w:/.~])|(?<=vllm:)|(?<=transformers:))~?(?:/[^\s/'\"]+)+")


def write_report(run: Path | str) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into a run folder.

    Returns:
        The two paths.

    Raises:
        UserError: There is no run at `run`.
        DataError: A file of the run cannot be read.
    """
    folder = Path(run)
    html, markdown = render_report(read_run(folder))
    places = folder / "report.html", folder / "report.md"
    write_atomic(places[0], html)
    write_atomic(places[1], markdown)
    seal_root(folder)
    return places


def render_report(facts: RunFacts, *, public: bool = False) -> tuple[str, str]:
    """The report as (HTML, Markdown). `public` shortens paths of this machine to their last part."""
    content = _content(facts, public)
    return _template("report.html.j2").render(**content), _template("report.md.j2").render(**content)


def shown(text: object, limit: int = 600) -> str:
    """Text of unknown origin as it may be displayed: no control or direction characters, bounded length.

    The joiners of Persian and Indic words and of emoji are neither.
    """
    plain = "".join(
        c if c in "\n\t\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else "�"
        for c in str(text)
    )
    return plain if len(plain) <= limit else plain[:limit] + " …"


def hide_paths(text: str) -> str:
    """A text with absolute paths shortened to their last part, and without this network's addresses."""
    return _LOCAL_PATH.sub(lambda match: match[0].rsplit("/", 1)[-1], hide_addresses(text))


@cache
def _environment(markup: bool) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=markup, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"shown": shown, "md": lambda value: md(shown(value, 200)), "score": score_text,
                            "n": _count, "percent": _percent, "seconds": _seconds, "short": _short,
                            "usd": _usd, "hours": lambda value: f"{value:,.1f}"}  # fmt: skip
    return environment


def _template(name: str) -> Any:
    text = resources.files("potstill").joinpath("templates", name).read_text(encoding="utf-8")
    return _environment(".html" in name).from_string(text)


def _content(facts: RunFacts, public: bool) -> dict[str, Any]:
    """Everything that the templates show."""
    clean = hide_paths if public else str
    rows = report_rows.training_rows(facts)
    varied = report_rows.variety(rows)
    student = facts.system("student")
    titles = _METRICS | {str(name): str(name) for name in facts.scores.get("own_metrics", ())}
    run = facts.run
    price = list_price(dict(run.get("teacher", {})), dict(run.get("settings", {})).get("teacher_options"))
    return {
        "facts": facts,
        "name": facts.spec.name,
        "given": clean(facts.given),
        "inferred": facts.spec.inferred,
        "metric": str(facts.scores.get("metric", facts.spec.metric)),
        "majority": facts.system("majority"),
        "written": [s for s in facts.systems if s.get("answer_from") and s.get("name") != "majority"],
        "left_out": clean(str(facts.scores.get("teacher_left_out", ""))),
        "cut_short": [(stage, clean(str(manifest["facts"].get("summary", "")))) for stage, manifest in
                      facts.manifests.items() if "budget_met" in manifest.get("facts", {})],
        "metrics": {key: title for key, title in titles.items() if any(key in s for s in facts.systems)},
        "metric_titles": titles,
        "metrics_left_out": {clean(str(name)): clean(str(why)) for name, why in
                             facts.scores.get("metrics_left_out", {}).items()},
        "student": student,
        "systems": [{"name": "", "size_mib": None, **s, "latency_ms": _latency(s)} for s in facts.systems],
        "test_set": {"kind": facts.test_kind, "rows": 0, **facts.scores.get("test_set", {}),
                     "source": facts.test_source},
        "intervals": _intervals(facts),
        "tiles": _tiles(facts, student),
        "confusion": _confusion(student),
        "calibration": _calibration(facts),
        "hits": facts.ranking.get("hits", []),
        "query": facts.ranking.get("query", ""),
        "refused": facts.ranking.get("refused", []),
        "licence": merge_licences((line.licence for line in facts.sources), "this dataset"),
        "terms": [teacher_terms(name) for name in facts.learnt_from],
        "balance": _balance(facts),
        "leak": leak_sentence(facts),
        "made": _made(facts),
        "taken_out": _taken_out(facts.reports.get("merge", {})),
        "lengths": plots.histogram(_lengths(facts), title="Length of training rows", x_title="words"),
        "length_table": [(name, *_quantiles(values)) for name, values in _lengths(facts).items() if values],
        "curves": _curves(facts.history),
        "compression": compression(facts, clean),
        "samples": report_rows.samples(facts, rows),
        "variety": varied,
        "variety_plots": report_rows.variety_plots(varied),
        "by_label": report_rows.by_label(student),
        "mistakes": report_rows.mistakes(facts),
        "answers": report_rows.answers(facts),
        "differences": report_rows.differences(facts),
        "few": report_rows.few_rows_sentence(int(facts.scores.get("test_set", {}).get("rows", 0) or 0)),
        "elsewhere": report_rows.measured_elsewhere(facts),
        "decided": facts.reports.get("merge", {}).get("decided_by_a_person", {}),
        "stages": _stages(facts),
        "asked_in_all": [{"purpose": "all", **in_all(facts.asked.values()).to_json()}] if len(facts.asked) > 1 else [],
        "saving": saving(facts, student),
        # A run of one's own machine costs nothing, and says nothing of it.
        "cost": run.get("usd") or (price.cost(sum(t["prompt_tokens"] for t in facts.tokens),
                                              sum(t["completion_tokens"] for t in facts.tokens)) if price else None),
        "command": clean(str(run.get("command") or "")),
        "versions": run.get("versions", {}),
        "teacher": {key: clean(str(value)) for key, value in dict(run.get("teacher", {})).items()},
        "settings": clean(json.dumps(run.get("settings", {}), indent=2, ensure_ascii=False)),
        "more": {stage: _flat(facts.reports[stage], clean) for stage in STAGES if facts.reports.get(stage)},
    }  # fmt: skip


def _tiles(facts: RunFacts, student: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures at the top: (value, what it is, what to compare it with)."""
    metric = str(facts.scores.get("metric", facts.spec.metric))
    tiles = []
    if isinstance(student.get(metric), (int, float)):
        others = [s for s in facts.systems if s.get("name") != "student" and isinstance(s.get(metric), (int, float))]
        beside = ", ".join(f"{s['name']} {s[metric]:.3f}" for s in others)
        tiles.append({"value": f"{student[metric]:.3f}", "what": f"{_METRICS.get(metric, metric)} of the student",
                      "beside": beside})  # fmt: skip
    if student.get("size_mib"):
        tiles.append({"value": f"{student['size_mib']:.0f} MiB", "what": "size of the student", "beside": ""})
    if latency := _latency(student):
        beside = f"95 % within {latency['p95']:.1f} ms"
        tiles.append({"value": f"{latency['p50']:.1f} ms", "what": "for one input, median", "beside": beside})
    if facts.rows:
        origins: dict[str, int] = {}
        for line in facts.sources:
            origins[line.origin] = origins.get(line.origin, 0) + line.rows
        tiles.append({"value": _count(facts.rows), "what": "rows in the dataset",
                      "beside": ", ".join(f"{_count(rows)} {name}" for name, rows in origins.items())})  # fmt: skip
    if facts.tokens:
        total = sum(item["prompt_tokens"] + item["completion_tokens"] for item in facts.tokens)
        asked = sum(item["requests"] for item in facts.tokens)
        tiles.append({"value": _short(total), "what": "teacher tokens", "beside": f"in {_count(asked)} requests"})
    return tiles


def _latency(system: Mapping[str, Any]) -> dict[str, float] | None:
    found = system.get("latency_ms") or {}
    return {"p50": found["p50"], "p95": found.get("p95", found["p50"])} if "p50" in found else None


def _intervals(facts: RunFacts) -> list[dict[str, Any]]:
    """Systems on the main metric, best first, as positions on a 0–1 scale."""
    metric = str(facts.scores.get("metric", facts.spec.metric))
    rows = []
    for system in facts.systems:
        value = system.get(metric)
        if not isinstance(value, (int, float)):
            continue
        scale = 100 if value > 1.5 else 1
        low, high = ((system.get("ci") or {}).get(metric) or (value, value))[:2]
        rows.append({"name": str(system.get("name", "")), "value": value, "at": max(0.0, 100 * value / scale),
                     "low": max(0.0, 100 * low / scale),
                     "width": max(0.0, 100 * (high - max(0.0, low)) / scale)})  # fmt: skip
    return sorted(rows, key=lambda row: -float(row["value"]))


def _confusion(student: Mapping[str, Any]) -> dict[str, Any] | None:
    """The student's confusion matrix: a table when it is small, a drawing and the worst pairs when it is not."""
    counts, labels = student.get("confusion"), [str(name) for name in student.get("labels", [])]
    if not counts or not labels or any(len(row) < len(labels) for row in counts):
        return None
    columns = labels + ["(no label)"] * (len(counts[0]) - len(labels))
    if len(columns) > len(labels) and not any(row[-1] for row in counts):
        columns, counts = labels, [row[: len(labels)] for row in counts]
    pairs = [
        {"gold": labels[i], "said": columns[j], "rows": count, "share": count / max(1, sum(row))}
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if count and columns[j] != labels[i]
    ]
    pairs.sort(key=lambda pair: (-pair["rows"], pair["gold"], pair["said"]))
    table = None
    if len(labels) <= _TABLE_LABELS:
        table = [
            {"label": name, "cells": [{"count": count, "share": count / max(1, sum(row))} for count in row]}
            for name, row in zip(labels, counts, strict=False)
        ]
    drawing = None if table else plots.heat(counts, labels, columns, title="Confusion matrix, one row a gold label")
    return {"columns": columns, "table": table, "heat": drawing, "pairs": pairs[:12]}


def _calibration(facts: RunFacts, bins: int = 10) -> Any:
    """The reliability plot, when the predictions carry confidences (`<system>_confidence`)."""
    gold = facts.predictions.get("gold", [])
    series: dict[str, list[tuple[float, float, int]]] = {}
    for column, title in (("student", "student"), ("teacher_raw", "teacher (raw)"),
                          ("teacher_calibrated", "teacher (calibrated)")):  # fmt: skip
        answers, sure = facts.predictions.get(column), facts.predictions.get(f"{column}_confidence")
        if not answers or not sure:
            continue
        filled: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
        for right, answer, value in zip(gold, answers, sure, strict=False):
            if value is not None:
                filled[min(bins - 1, max(0, int(value * bins)))].append((float(value), right == answer))
        series[title] = [
            (sum(v for v, _ in part) / len(part), sum(r for _, r in part) / len(part), len(part))
            for part in filled
            if part
        ]
    return plots.reliability(series, title="Calibration on the test rows") if series else None


def _balance(facts: RunFacts) -> list[dict[str, Any]]:
    """Training rows a label, with the share of the largest for the bars."""
    counts = facts.label_counts.get("train")
    if not counts:
        return []
    most = max(counts.values(), default=1)
    names = [*facts.spec.label_names, *sorted(set(counts) - set(facts.spec.label_names))]
    total = max(1, sum(counts.values()))
    return [{"label": n, "rows": counts[n], "share": counts[n] / total, "bar": 100 * counts[n] / most} for n in names]


def _lengths(facts: RunFacts) -> dict[str, list[int]]:
    """Lengths worth drawing: the answers of a classifier are its labels, and those are drawn already."""
    return {name: values for name, values in facts.lengths.items() if name == "input" or not facts.spec.labels}


def _taken_out(merge: Mapping[str, Any]) -> int | None:
    """Rows that the merge dropped because their text is in the test data; None where it had none to compare with."""
    leaked = merge.get("leaked")
    return leaked if merge.get("checked_against_test") and isinstance(leaked, int) else None


def _curves(history: Any) -> list[Any]:
    """Loss and score over the steps of the training."""
    entries = [item for item in history if isinstance(item, dict)] if isinstance(history, list) else []
    groups = (
        ("Loss", "mean a row", {"train_loss": "training", "loss": "training", "validation_loss": "validation",
                          "eval_loss": "validation"}),
        ("Validation score", "score", {"score": "validation"}),
    )  # fmt: skip
    drawn = []
    for title, unit, names in groups:
        series: dict[str, list[tuple[float, float]]] = {}
        for entry in entries:
            step = entry.get("step", entry.get("epoch"))
            for key, name in names.items():
                value = entry.get(key)
                if isinstance(value, (int, float)) and isinstance(step, (int, float)) and value == value:
                    series.setdefault(name, []).append((float(step), float(value)))
        if series:
            drawn.append(plots.lines(series, title=title, x_title="step", y_title=unit))
    return drawn


def _stages(facts: RunFacts) -> list[dict[str, Any]]:
    return [
        {"name": name, "seconds": float(manifest.get("seconds", 0.0)),
         "summary": str(dict(manifest.get("facts", {})).get("summary", "")), "key": str(manifest.get("key", ""))[:12]}
        for name, manifest in facts.manifests.items()
    ]  # fmt: skip


def _flat(value: Mapping[str, Any], clean: Any, prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """A stage's own report as name and value, nested mappings joined by dots; long lists are counted."""
    lines: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and depth < 3:
            lines += _flat(item, clean, f"{name}.", depth + 1)
        elif isinstance(item, list) and (len(item) > 8 or any(isinstance(part, (dict, list)) for part in item)):
            lines.append((name, f"{len(item)} items"))
        elif isinstance(item, list):
            lines.append((name, clean(", ".join(str(part) for part in item))))
        else:
            lines.append((name, f"{item:.4g}" if isinstance(item, float) else clean(str(item))))
    return lines[:200]


def _made(facts: RunFacts) -> list[tuple[str, str, str]]:
    """How the rows that nobody had were made: (what, figure, remark) of writing, checking, rules, self-training."""
    lines: list[tuple[str, str, str]] = []
    written = facts.reports.get("datagen", {})
    own = written.get("own_inputs", {"kept": 0, "found": 0, "left": 0, "dropped": {}})
    if written.get("texts"):
        kept, texts = written.get("kept", 0) - own["kept"], written["texts"] - own["found"] + own["left"]
        lost = Counter(written.get("dropped", {}))
        lost.subtract(own["dropped"])
        refused = sum(count for reason, count in lost.items() if reason != "no_reply")
        spare = max(0, texts - kept - refused)
        remark = f"{_count(spare)} were not needed, " * bool(spare) + "the others are under Refused rows"
        if texts > 0:
            lines.append(("Written texts kept", f"{_count(kept)} of {_count(texts)}", remark))
        if own["found"]:
            remark = f"{_count(own['found'])} are in {public_name(own['data'])}"
            lines.append(("Your own inputs answered", f"{_count(own['kept'])} of {_count(own['asked'])}", remark))
        if written.get("yield_per_1k_tokens"):
            lines.append(("Rows for 1,000 teacher tokens", f"{written['yield_per_1k_tokens']:.2f}", "prompts counted"))
        if written.get("label_fill") is not None:
            short = ", ".join(written.get("short") or {})
            lines.append(
                ("Labels filled", _percent(written["label_fill"]), f"short: {short}" if short else "every label")
            )
        if form := written.get("form"):
            figure = f"{_count(form['fitting'])} of {_count(form['judged'])}"
            remark = f"asked for: {form['asked']}; {_count(written.get('cut_to_form', 0))} were cut to it"
            given_up = "; so few that it was no longer insisted on" if form["given_up"] else ""
            lines.append(("Outputs in the form that the task asks for", figure, remark + given_up))
        if written.get("self_bleu") is not None:
            lines.append(("Self-BLEU of written texts", f"{written['self_bleu']:.3f}", "0 is varied, 1 is all alike"))
    checked = facts.reports.get("quality", {})
    if checked.get("checked"):
        figure = f"{_count(checked.get('below_least', 0))} of {_count(checked['checked'])}"
        means = ", ".join(f"{name} {value:.2f}" for name, value in checked.get("mean_agreement", {}).items())
        lines.append(("Written rows that failed their check", figure, f"mean agreement: {means}" if means else ""))
    if gain := checked.get("input_gain"):
        figure = f"{_count(gain['dropped'])} of {_count(gain['judged'])}"
        lines.append(("Outputs that say nothing of their input", figure, "left out"))
    if written.get("answered_by"):
        lines.append(("Outputs written by", public_name(written["answered_by"]), "another teacher than the inputs'"))
    if explained := facts.reports.get("rationales", {}):
        figure = f"{_count(explained['written'])} of {_count(explained['rows'])}"
        remark = f"{explained['mean_words']:.0f} words on average, by {public_name(explained['teacher'])}"
        if unusable := ", ".join(f"{_count(rows)} {why}" for why, rows in explained["refused"].items()):
            remark += f"; unusable: {unusable}"
        lines.append(("Outputs with reasoning that the student learnt as well", figure, remark))
    lines += rule_lines(facts.reports.get("weak", {}))
    led = facts.reports.get("train", {}).get("user_rows", {})
    if left := led.get("written_left_out"):
        filled = f"; labels with few of them are filled up: {', '.join(led['filled_up'])}" if led["filled_up"] else ""
        remark = f"your {_count(led['rows'])} labelled rows teach more alone{filled}"
        lines.append(("Written rows that the student did not learn from", _count(left), remark))
    start = facts.reports.get("train", {}).get("start") or {}
    if start.get("cross_entropy") is not None:
        figure, uniform = f"{start['cross_entropy']:.2f} nats a token", f"{start['uniform']:.2f}"
        lines.append(("Loss of the cut student before training", figure, f"a uniform guess: {uniform}; it has to heal"))
    if pairs := facts.reports.get("train", {}).get("paired_anew"):
        used = f"{_count(pairs['rows'])} of {_count(pairs['pairs'])}"
        lines.append(("Written inputs paired anew", used, f"labelled by {_LABELLED_BY['likeness']}"))
    rounds = facts.reports.get("train", {}).get("self_training", {})
    if space := rounds.get("space"):
        used = f"{_count(rounds['rows'])} of {_count(rounds['texts'])}"
        remark = f"labelled by {_LABELLED_BY[space]}"
        if nameless := rounds.get("without_label"):
            remark += f"; {_count(nameless)} got no label"
        if rounds["stopped"] != "labelled once":
            remark += f"; left out: {rounds['stopped']} (trust {rounds['trust']:.2f})"
        lines.append(("Texts without labels that the student learnt from", used, remark))
    elif rounds:
        adopted = sum(bool(item.get("adopted")) for item in rounds.get("rounds", [])[1:])
        tried = max(0, len(rounds.get("rounds", [])) - 1)
        remark = f"{_count(rounds.get('rows', 0))} rows that the student labelled; ended: {rounds.get('stopped', '')}"
        lines.append(("Rounds of self-training kept", f"{adopted} of {tried}", remark))
    return lines


def _quantiles(values: Sequence[int]) -> tuple[int, int, int]:
    ranked = sorted(values)
    at = [ranked[min(len(ranked) - 1, int(share * len(ranked)))] for share in (0.05, 0.5, 0.95)]
    return at[0], at[1], at[2]


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    for size, mark in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{mark}"
    return f"{value:.0f}"


def _usd(value: float) -> str:
    return f"{value:,.2f} USD" if value < 100 else f"{value:,.0f} USD"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.1f} h"
