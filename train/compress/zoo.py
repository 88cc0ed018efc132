"""Every recipe worth trying on a student, in one table, with the best one under a limit of size or latency.

The zoo holds one recipe for each family that a kind of student can take; methods that need minutes of training come
last. A recipe that fails is a line of the table with its reason, not the end of the others.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import PotstillError, TrainingError
from potstill.events import Event, Listener, silent
from potstill.models import local_model, model_identity
from potstill.options import as_json
from potstill.run_dir import write_atomic
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.place import check_place, held
from potstill.whole_folders import written_whole

if TYPE_CHECKING:
    from potstill.train.compress.run import CompressResult, Material

_KEY = "key.json"
ZOO = {
    "classification": (
        "bf16", "int8:channel", "int8:channel,embeddings=int4", "int4:g32", "gptq:int4,group=32,embeddings=int4",
        "nf4", "gobo:4", "gobo:3", "wanda:0.5 -> heal:epochs=1 -> int8:channel",
        "heads:0.25 -> neurons:0.25 -> heal:epochs=2 -> int8:channel",
        "layers:0.5,by=top -> heal:epochs=3 -> int8:channel",
        "layers:0.5,by=top -> neurons:0.25 -> heal:epochs=4 -> int8:channel,embeddings=int4",
        "qat:binary,epochs=2",
    ),
    "causal": (
        "bf16", "int8:channel", "llm.int8", "int4:g64", "nf4", "gobo:4", "gptq:int4", "gptq:nf4", "gptq:gobo3",
        "wanda:0.5 -> heal:steps=60 -> int8:channel", "layers:0.15 -> heal:steps=60 -> int8:channel",
        "lkd:gobo3,steps=40",
    ),
}  # fmt: skip


def compress_all(
    source: Path | str, out: Path, material: Material, options: CompressOptions, *, listener: Listener = silent,
    recipes: Sequence[str] = (),
) -> CompressResult:  # fmt: skip
    """Try every recipe, each in its own folder, and recommend one.

    Args:
        source: The student.
        out: Folder of them all: `all/NAME/` each, the recommended student itself in `best/`.
        material: What methods look at and are measured on.
        options: Limits, formats, measurements.
        listener: Progress.
        recipes: Recipes instead of the zoo's.

    Returns:
        The recommended student (the smallest file where none was scored); its report holds the table. Where no recipe
        fits the limits, `path` is `out` itself, which holds no student, and the report says why.

    Raises:
        TrainingError: Every recipe failed.
        OptionError: `out` holds what no zoo wrote.
        RunLocked: Another process compresses into the same folder.
    """
    check_place(out, local_model(str(source)), zoo=True)
    (out / "all").mkdir(parents=True, exist_ok=True)
    with held(out / "all"):
        return _compress_all(source, out, material, options, listener, recipes)


def _compress_all(
    source: Path | str, out: Path, material: Material, options: CompressOptions, listener: Listener,
    recipes: Sequence[str],
) -> CompressResult:  # fmt: skip
    from potstill.train.compress.run import REPORT, CompressResult, compress_student, told_options
    from potstill.train.compress.state import open_source, source_name

    state = open_source(source)
    kind = state.kind
    del state
    chosen = tuple(recipes) or ZOO[kind]
    entries: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    original: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    notes: dict[str, None] = {}  # each once, in the order of the recipes
    for index, recipe in enumerate(chosen):
        folder = out / "all" / _folder_name(recipe)
        listener(Event("compress", "progress", f"{recipe} ({index + 1} of {len(chosen)})", index, len(chosen)))
        try:
            key = _key(source, recipe, material, options)
            report = _finished(folder, key)
            if report is None:
                one = replace(options, recipe=recipe, speed="ends" if options.speed == "all" else options.speed)
                report = compress_student(source, recipe, folder, material, one, listener=listener).report
                write_atomic(folder / _KEY, json.dumps(key))
        except PotstillError as error:
            failed.append({"step": recipe, "why": " ".join(str(error).split())})
            listener(Event("compress", "note", f"{recipe}: {failed[-1]['why']}"))
            continue
        original, facts = report["steps"][0], report
        notes |= dict.fromkeys(report["notes"])
        # What was written first is the student itself, and what `best` holds.
        files = next(entry for entry in report["steps"] if entry["kind"] == "files")
        entries.append({**files, "step": recipe, "kind": "recipe", "folder": folder.name})
    if not entries:
        raise TrainingError(
            f"all {len(chosen)} recipes failed; the first: {failed[0]['why'] if failed else 'none ran'}"
        )
    entries.sort(key=lambda entry: (-_value(entry), entry["size_mib"]))
    best, why = recommend(entries, original, options)
    table = {
        "format": 1, "source": source_name(source), "recipe": "all", "files": ["all"], "kind": kind,
        "metric": facts["metric"], "test_rows": facts["test_rows"], "text_tokens": facts["text_tokens"],
        "options": told_options(options, "all"), "notes": list(notes),
        "steps": [original, *entries], "failed": failed,
        "recommended": None if best is None else {**best, "why": why}, "why_none": why if best is None else "",
    }  # fmt: skip
    write_atomic(out / REPORT, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    place = out / "best"
    if best is None:
        if place.exists():
            shutil.rmtree(place)
        return CompressResult(out, table)
    with written_whole(place) as temporary:
        # The key names folders of this machine, and the student may be published.
        own = shutil.ignore_patterns(_KEY)
        shutil.copytree(out / "all" / best["folder"], temporary, dirs_exist_ok=True, ignore=own)
    return CompressResult(place, table)


def recommend(
    entries: Sequence[Mapping[str, Any]], original: Mapping[str, Any], options: CompressOptions
) -> tuple[dict[str, Any] | None, str]:
    """The best entry under the limits, and why it; without limits, the smallest that keeps 99 % of the original.

    Args:
        entries: Entries with `size_mib`, `latency_ms`, and `score` or `perplexity`.
        original: The original's entry.
        options: `max_mib` and `max_ms`.
    """
    under = [entry for entry in entries if _fits(entry, options)]
    limits = " and ".join(
        text for text, value in ((f"{options.max_mib:g} MiB" if options.max_mib else "", options.max_mib),
                                 (f"{options.max_ms:g} ms" if options.max_ms else "", options.max_ms)) if value
    )  # fmt: skip
    if not under:
        least = min(entry["size_mib"] for entry in entries)
        return None, f"no recipe stays under {limits}; the smallest takes {least:.1f} MiB"
    if original.get("score") is None and original.get("perplexity") is None:
        return dict(min(under, key=lambda entry: entry["size_mib"])), "the smallest; there was nothing to score on"
    if limits:
        best = max(under, key=lambda entry: (_value(entry), -entry["size_mib"]))
        return dict(best), f"the best of {len(under)} under {limits}"
    good = [entry for entry in under if _value(entry) >= 0.99 * _value(original)]
    if good:
        return dict(min(good, key=lambda entry: entry["size_mib"])), "the smallest that keeps 99 % of the original"
    ranked = sorted(under, key=_value)
    return dict(ranked[-1]), "none keeps 99 % of the original; this one keeps most"


def _fits(entry: Mapping[str, Any], options: CompressOptions) -> bool:
    if options.max_mib is not None and entry["size_mib"] > options.max_mib:
        return False
    latency = (entry.get("latency_ms") or {}).get("p50")
    # A student whose latency was not measured cannot be said to stay under a limit.
    return options.max_ms is None or (latency is not None and latency <= options.max_ms)


def _value(entry: Mapping[str, Any]) -> float:
    """Higher is better: the score, else one over the perplexity, else nothing is known."""
    if entry.get("score") is not None:
        return float(entry["score"])
    perplexity = entry.get("perplexity")
    return 1 / float(perplexity) if perplexity else 0.0


def _folder_name(recipe: str) -> str:
    return "".join(c if c.isalnum() or c in ".-=" else "-" for c in recipe.replace(" -> ", "--")).strip("-")


def _key(source: Path | str, recipe: str, material: Material, options: CompressOptions) -> dict[str, Any]:
    plain = as_json(options)
    without = ("recipe", "max_mib", "max_ms", "keep_steps")
    given = {name: value for name, value in plain.items() if name not in without}
    models = [model_identity(str(model)) for model in (source, options.teacher) if model]
    return {"recipe": recipe, "models": models, "looked_at": material.looked_at, "measured_on": material.measured_on,
            **given}  # fmt: skip


def _finished(folder: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report of a recipe that was finished before, on the same student and rows, under the same options."""
    from potstill.train.compress.run import REPORT

    try:
        if json.loads((folder / _KEY).read_text("utf-8")) != key:
            return None
        found: dict[str, Any] = json.loads((folder / REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found
