"""A small search for the options of a training: epochs, learning rate, and the mix of the two losses.

What enters: the options as given, and a training that reports its held-out loss. What leaves: the options with the
lowest held-out cross-entropy, and every trial. Optuna's tree-structured Parzen estimator proposes; the first trial is
the options as given, so that a search never ends with something worse on the held-out rows.

Trials are kept in JSON beside the student. A search that was killed goes on with the next trial, and a trial's proposal
depends on the seed, its number and the trials before it alone, so the resumed search finds what the whole one would.
Only a budget in minutes can make two searches differ, in how far they came.

Source: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization (NeurIPS), §4.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from potstill.errors import MissingExtra, TrainingError
from potstill.events import Event, Listener, silent
from potstill.run_dir import write_atomic
from potstill.train.options import DistilOptions, SearchOptions
from potstill.train.processes import as_the_first, once
from potstill.train.result import DistilResult

_RANDOM_TRIALS = 4

TrainOne = Callable[[Path, DistilOptions], DistilResult]
"""Trains one student: its folder, resolved options."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        options: The options as given, with the best trial's values.
        best: Number of the best trial; 0 is the options as given.
        trials: For each trial its number, values, held-out `loss` (nats; None where the training failed), seconds.
    """

    options: DistilOptions
    best: int
    trials: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """JSON types, for the report."""
        return {"best": self.best, "values": self.trials[self.best]["values"], "trials": list(self.trials)}


def search_options(
    options: DistilOptions,
    train_one: TrainOne,
    folder: Path,
    *,
    rows: int,
    mixed: bool,
    content: str = "",
    listener: Listener = silent,
) -> SearchResult:
    """Find epochs, learning rate and mix of the losses on held-out rows.

    Args:
        options: Resolved options; `options.search` holds the budget.
        train_one: Trains one student and reports `held_out` figures.
        folder: Where trials rest; finished trials of the same search are read from there.
        rows: Training rows. With few of them, `min_steps` lengthens a training beyond its epochs; the search turns it
            into the epochs that it makes, so that a trial is as long as its epochs say. With `max_steps` the length
            is given, and epochs are not searched.
        mixed: Whether the rows have both kinds of target, so that there is a mix to choose.
        content: What else decides a trial (a hash of the rows); other content starts anew.
        listener: Progress.

    Raises:
        MissingExtra: Optuna is not installed.
        TrainingError: There are no held-out rows, or every trial failed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "search", "distil.search") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = _in_epochs(options, rows)
    given = _given(options, mixed)
    key = json.dumps([content, given, asdict(replace(options, search=SearchOptions()))], sort_keys=True, default=str)
    trials = _read(folder / "trials.json", key)
    space = {name: range_ for name, range_ in _space(optuna).items() if name in given}
    listener(Event("train", "note", f"search: {options.search.trials} trials at most, {len(trials)} done"))
    while len(trials) < max(1, options.search.trials):
        spent = sum(trial["seconds"] for trial in trials)
        if trials and options.search.minutes is not None and spent >= 60 * options.search.minutes:
            break
        number = len(trials)
        started = time.monotonic()
        values = given if number == 0 else _proposed(optuna, trials, space, options.seed)
        loss, fault = _loss(train_one, folder / f"trial-{number}", with_values(options, values))
        # Processes that end at unlike times must not part over the budget in minutes.
        seconds = as_the_first(time.monotonic() - started)
        trial = {"number": number, "values": values, "loss": loss, "seconds": seconds}
        trials.append(trial | ({"fault": fault} if fault else {}))
        once(partial(_write, folder, key, list(trials)))
        shown = fault if loss is None else f"held-out loss {loss:.4f}"
        listener(Event("train", "note", f"trial {number} {_shown(values)}: {shown}"))
    finite = [trial for trial in trials if trial["loss"] is not None]
    if not finite:
        raise TrainingError(f"all {len(trials)} trials of the search failed; the last: {trials[-1].get('fault')}")
    best = min(finite, key=lambda trial: (trial["loss"], trial["number"]))
    return SearchResult(with_values(options, best["values"]), int(best["number"]), tuple(trials))


def with_values(options: DistilOptions, values: dict[str, Any]) -> DistilOptions:
    """Options with a trial's values, and no search of their own."""
    mix = {}
    if "soft_share" in values:
        total = options.hard_weight + options.soft_weight
        mix = {"soft_weight": total * values["soft_share"], "hard_weight": total * (1 - values["soft_share"])}
    epochs = int(values.get("epochs", options.epochs or 1))
    rate = float(values["learning_rate"])
    return replace(options, epochs=epochs, learning_rate=rate, search=SearchOptions(), **mix)


def _in_epochs(options: DistilOptions, rows: int) -> DistilOptions:
    each = math.ceil(rows / ((options.batch_size or 1) * options.gradient_accumulation))
    epochs = max(options.epochs or 1, math.ceil((options.min_steps or 1) / max(1, each)))
    return options if options.max_steps else replace(options, epochs=epochs, min_steps=1)


def _given(options: DistilOptions, mixed: bool) -> dict[str, Any]:
    values: dict[str, Any] = {} if options.max_steps else {"epochs": options.epochs}
    values["learning_rate"] = options.learning_rate
    if mixed:
        values["soft_share"] = options.soft_weight / (options.hard_weight + options.soft_weight)
    return values


def _space(optuna: Any) -> dict[str, Any]:
    return {
        "epochs": optuna.distributions.IntDistribution(1, 20, log=True),
        "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
        "soft_share": optuna.distributions.FloatDistribution(0.0, 1.0),
    }


def _proposed(optuna: Any, trials: list[dict[str, Any]], space: dict[str, Any], seed: int) -> dict[str, Any]:
    # A study and a sampler of its own for each trial: a draw must not depend on whether the search was interrupted.
    sampler = optuna.samplers.TPESampler(seed=seed * 1009 + len(trials), n_startup_trials=_RANDOM_TRIALS)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for trial in trials:
        study.add_trial(_as_optuna(optuna, trial, space))
    return dict(study.ask(space).params)


def _as_optuna(optuna: Any, trial: dict[str, Any], space: dict[str, Any]) -> Any:
    # Values outside the space (a user's own rate) are moved to its edge for the estimator alone.
    values = {name: min(max(trial["values"][name], space[name].low), space[name].high) for name in space}
    if trial["loss"] is None:
        return optuna.trial.create_trial(params=values, distributions=space, state=optuna.trial.TrialState.FAIL)
    return optuna.trial.create_trial(params=values, distributions=space, value=trial["loss"])


def _loss(train_one: TrainOne, place: Path, options: DistilOptions) -> tuple[float | None, str]:
    try:
        held_out = train_one(place, options).report.get("held_out")
    except TrainingError as error:
        # A rate that diverges is an answer to the question that the search asks.
        if "loss became" in str(error):
            return None, str(error)
        raise
    finally:
        # Not waited for: where one process fails alone, the others never come here.
        if os.environ.get("RANK", "0") == "0":
            for left in (place, place.with_name(f"{place.name}.checkpoints")):
                shutil.rmtree(left, ignore_errors=True)
    if held_out is None:
        raise TrainingError("distil.search needs held-out rows to choose by; set merge.validation above 0")
    loss = float(held_out["calibrated_loss" if options.calibrate else "loss"])
    return (loss, "") if math.isfinite(loss) else (None, "the held-out loss is not finite")


def _write(folder: Path, key: str, trials: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "trials.json", json.dumps({"key": key, "trials": trials}, indent=1) + "\n")


def _read(file: Path, key: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(file.read_text("utf-8"))
        return list(value["trials"]) if value["key"] == key else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
