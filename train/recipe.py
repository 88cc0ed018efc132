"""A student from its options: search, a deep student first, generations, each only where it is asked for.

    search            → the options with the lowest held-out loss
    student_layers    → a whole classifier, and a cut one that starts from it and learns from it (also student_ffn)
    generations       → born-again rounds of the above (classifiers)

What enters: the rows of a run. What leaves: one student's folder and a report that says what each step gave. The
folder's training.json holds the options that were really used (of generations, the first one's) and the hashes of the
rows; `repeat_training` trains the same student from it again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError, OptionError, TrainingError
from potstill.events import Event, Listener, silent
from potstill.models import model_identity
from potstill.options import as_json, build_options
from potstill.rows import RATIONALE, table_digest, take_rows
from potstill.run_dir import digest
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions, SearchOptions, is_cut, other_kind_faults, resolve_options
from potstill.train.processes import once
from potstill.train.result import DistilResult
from potstill.train.rounds import born_again
from potstill.train.student import TRAINING

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.token_scores import TokenScores


def train_classifier(
    spec: TaskSpec,
    train: Dataset,
    validation: Dataset | None,
    out: Path,
    options: DistilOptions,
    *,
    listener: Listener = silent,
) -> DistilResult:
    """Train a classifier with everything that its options ask for.

    Args:
        spec: The task.
        train: Rows in the one schema.
        validation: Held-out rows: they choose the evaluation, the trial and the round, and put confidences right.
        out: Folder of the student.
        options: As the user gave them.
        listener: Progress.

    Raises:
        OptionError: An option that only generation students have.
        TrainingError: Rows that cannot be learnt from; a search without held-out rows.
        MissingExtra: A search without Optuna.
    """
    options = resolve_options(options, "classification")
    told: dict[str, Any] = {}
    if options.search.trials:
        from potstill.train.rows_check import label_targets
        from potstill.train.search import search_options

        targets = label_targets(spec, train, options)
        mixed = bool((targets.labels >= 0).any() and targets.has_probs.any())

        def trial(place: Path, chosen: DistilOptions) -> DistilResult:
            """One training of the search, without generations."""
            return _train_deep_first(spec, train, validation, place, replace(chosen, generations=1), listener)

        folder = out.with_name(f"{out.name}.search")
        told_ids = [list(train["id"]), [] if validation is None else list(validation["id"])]
        learnt = [targets.labels.tolist(), targets.probs.tolist(), list(train["weight"])]
        content = digest([told_ids, learnt, model_identity(str(options.student))])
        search = search_options(
            options, trial, folder, rows=len(targets.rows), mixed=mixed, content=content, listener=listener
        )
        told["search"] = search.to_json()
        options = search.options

    def train_one(rows: Dataset, place: Path, chosen: DistilOptions) -> DistilResult:
        """One student on the run's held-out rows."""
        return _train_deep_first(spec, rows, validation, place, chosen, listener)

    if options.generations > 1:
        result = born_again(spec, train, out, options, train_one, listener=listener)
    else:
        result = train_one(train, out, options)
    once(lambda: shutil.rmtree(out.with_name(f"{out.name}.search"), ignore_errors=True))
    return DistilResult(result.path, result.history, {**result.report, **told})


def train_generator(
    spec: TaskSpec,
    train: Dataset,
    validation: Dataset | None,
    targets: Dataset | None,
    out: Path,
    options: DistilOptions,
    *,
    scores: TokenScores | None = None,
    listener: Listener = silent,
) -> DistilResult:
    """Train a causal student, after a search of epochs and learning rate where the options ask for one.

    The mix of the two losses is not searched: the held-out loss of a causal student is that of its own mix.

    Args:
        spec: The task.
        train: Rows in the one schema.
        validation: Held-out rows.
        targets: Stored token targets keyed by row id, or None.
        out: Folder of the student.
        options: As the user gave them.
        scores: As for `distil_causal`.
        listener: Progress.

    Raises:
        OptionError: An option that only classifiers have.
        TrainingError: Rows that cannot be learnt from; a search without held-out rows.
        MissingExtra: A search without Optuna, adapters without peft, 4 bits without bitsandbytes.
    """
    from potstill.train.causal import distil_causal

    if faults := other_kind_faults(options, "generation"):
        raise OptionError("distil", [f"distil.{fault}" for fault in faults])
    options = resolve_options(options, "causal")
    train = _weighted_by_origin(train, options)
    told: dict[str, Any] = {}
    if options.search.trials:
        from potstill.train.search import search_options

        def trial(place: Path, chosen: DistilOptions) -> DistilResult:
            """One training of the search, with its held-out loss under the name that the search reads."""
            result = distil_causal(spec, train, validation, targets, place, chosen, scores=scores, listener=listener)
            loss = result.report.get("best_loss")
            held_out = None if loss is None else {"loss": loss, "calibrated_loss": loss}
            return DistilResult(result.path, result.history, {**result.report, "held_out": held_out})

        folder = out.with_name(f"{out.name}.search")
        told_ids = [list(train["id"]), [] if validation is None else list(validation["id"])]
        learnt = [None if targets is None else table_digest(targets), list(train["weight"])]
        learnt += [list(train[RATIONALE])] if RATIONALE in train.column_names else []
        content = digest([told_ids, learnt, model_identity(str(options.student))])
        search = search_options(
            options, trial, folder, rows=train.num_rows, mixed=False, content=content, listener=listener
        )
        told["search"] = search.to_json()
        options = search.options
    result = distil_causal(spec, train, validation, targets, out, options, scores=scores, listener=listener)
    once(lambda: shutil.rmtree(out.with_name(f"{out.name}.search"), ignore_errors=True))
    return DistilResult(result.path, result.history, {**result.report, **told})


def _weighted_by_origin(train: Dataset, options: DistilOptions) -> Dataset:
    """Rows whose weight holds how often their origin should be drawn: for a sum over tokens, the same on average."""
    if not options.sampling:
        return train
    shares = [options.sampling.get(origin, 1.0) for origin in train["origin"]]
    if not sum(shares) > 0:
        raise TrainingError("distil.sampling leaves no training rows; raise the share of an origin that occurs")
    mean = sum(shares) / len(shares)
    drawn = take_rows(train, [place for place, share in enumerate(shares) if share])
    return drawn.map(
        lambda row: {"weight": row["weight"] * options.sampling.get(row["origin"], 1.0) / mean}, keep_in_memory=True
    )


def repeat_training(
    student: Path,
    spec: TaskSpec,
    train: Dataset,
    validation: Dataset | None,
    out: Path,
    *,
    listener: Listener = silent,
) -> DistilResult:
    """Train a student again from what its folder says of its training; a search is not repeated, its find is used.

    Args:
        student: Folder of a student.
        spec: The task.
        train: The rows that it was trained on.
        validation: Its held-out rows.
        out: Folder of the new student.
        listener: Progress.

    Raises:
        DataError: The folder does not say how it was trained, or the training had rounds or a deep student of its own.
        TrainingError: The rows or the base model are not those of the first training.
    """
    file = student / TRAINING
    try:
        value = json.loads(file.read_text("utf-8"))
        options = build_options(DistilOptions, value["options"], "distil")
        rows, start, rounds = value["rows"], value["start"], value.get("rounds")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file} does not say how the student was trained ({error}); train it from its run") from None
    options = replace(options, generations=1)
    if rounds:
        # The kept round's rows hold what earlier students said; the whole sequence is trained again.
        options = replace(options, generations=len(rounds))
    result = train_classifier(spec, train, validation, out, options, listener=listener)
    again = json.loads((out / TRAINING).read_text("utf-8"))
    for name, ours, theirs in (("rows", rows, again["rows"]), ("base model", start, again["start"])):
        if ours != theirs:
            raise TrainingError(
                f"the {name} differ from those of the first training ({ours} then, {theirs} now), so {out} is another "
                "student; give the rows of its run (soft/train.parquet and soft/validation.parquet)"
            )
    return result


def training_summary(report: Mapping[str, Any]) -> str:
    """What each part of the training gave, in a phrase each; else empty."""
    parts = []
    if left := report.get("user_rows", {}).get("written_left_out"):
        parts.append(f"{report['user_rows']['rows']} labelled rows lead, {left} written ones left out")
    if search := report.get("search"):
        values = ", ".join(f"{name} {value:.3g}" for name, value in search["values"].items())
        parts.append(f"trial {search['best'] + 1} of {len(search['trials'])} was best ({values})")
    start = report.get("start") or {}
    if "score" in start:
        from potstill.train.head_start import CHANCE

        chance = start.get("chance")
        gain = "no better" if chance is None else "better by no more than chance" if chance > CHANCE else "worse"
        outcome = f"kept, as training made it {gain}" if start["kept"] else "training went on from there"
        score = f"macro-F1 {start['score']:.3f} on the held-out rows"
        parts.append(f"a head on the base model's frozen features came first ({score}; {outcome})")
    if report.get("deep"):
        parts.append(f"started from a whole student, kept {_cut_to(report['options'])}")
    if asked := report.get("asked_teacher"):
        beyond = "" if asked["tail_mass"] is None else f", {asked['tail_mass']:.0%} of its mass beyond"
        left_out = f", {asked['unanswered']:,} left out" if asked["unanswered"] else ""
        if report.get("budget_met"):
            steps = report["steps"]
            left_out += f", until the budget ended it after step {steps['taken']} of {steps['planned']}"
        parts.append(
            f"{asked['teacher']} read {asked['answers']:,} answers and told {asked['top_k']} likeliest tokens{beyond}"
            f"{left_out}"
        )
    if rounds := report.get("rounds"):
        parts.append(f"generation {_kept(rounds) + 1} of {len(rounds)} kept")
    held_out = report.get("held_out") or {}
    if held_out and report["options"]["calibrate"]:
        parts.append(f"logits divided by {held_out['temperature']:.2f}")
    return "; ".join(parts)


def _kept(rounds: Sequence[dict[str, Any]]) -> int:
    return next(i for i, item in enumerate(rounds) if item["kept"])


def _cut_to(options: Mapping[str, Any]) -> str:
    """What a student keeps, in words."""
    parts = []
    if count := options["student_layers"] or len(options["student_layer_ids"] or ()):
        parts.append(f"{count} layer{'s' if count > 1 else ''}")
    if share := options["student_ffn"]:
        parts.append(f"{share:.0%} of the neurons")
    return " and ".join(parts)


def _train_deep_first(
    spec: TaskSpec, train: Dataset, validation: Dataset | None, out: Path, options: DistilOptions, listener: Listener
) -> DistilResult:
    """One student; where it is cut, a whole one first, which the cut one starts from."""
    from potstill.train.classify import distil_classifier

    options = replace(options, search=SearchOptions())
    if not is_cut(options) or options.hidden_weight == 0:
        return distil_classifier(spec, train, validation, out, options, listener=listener)
    place = out.with_name(f"{out.name}.deep")
    # The shallow student learns the deep one's own distribution, before its confidence is put right.
    whole = replace(
        options, student_layers=None, student_layer_ids=None, student_ffn=None, generations=1, calibrate=False
    )
    listener(Event("train", "note", f"training the whole student first, then one of {_cut_to(as_json(options))}"))
    deep = distil_classifier(spec, train, validation, place, whole, listener=listener)
    result = distil_classifier(spec, train, validation, out, options, deep=place, listener=listener)
    once(lambda: shutil.rmtree(place))
    report = {**result.report, "deep": {"options": as_json(whole), "held_out": deep.report.get("held_out")}}
    return DistilResult(result.path, result.history, report)
