"""The suite `caches` of `torture.py`: one input changed, and which stages are made again."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from torture_runs import STAGES, TASK, Runs


def caches(runs: Runs) -> list[dict[str, Any]]:
    """Change one input of a finished run: which stages are made again, and which should be."""
    after = {name: set(STAGES[STAGES.index(name) :]) for name in STAGES}
    every = after["retrieval"]
    test = runs.place / "test.jsonl"
    task = runs.place / "task.md"
    cases: list[tuple[str, dict[str, Any], set[str], set[str]]] = [
        ("nothing", {}, set(), set()),
        ("a place for the model's name", {"identity": {"model": "other"}}, every, set()),
        ("base_url", {"identity": {"endpoint": "http://other"}}, every, set()),
        ("text of a template", {"template": ["write_for_label_short", "\nBe brief."]}, every, set()),
        ("seed", {"change": {"seed": 1}}, every, set()),
        ("generation.temperature", {"change": {"generation": {"temperature": 0.9}}}, after["datagen"], set()),
        ("generation.top_p", {"change": {"generation": {"top_p": 0.9}}}, after["datagen"], set()),
        ("merge.test_near", {"change": {"merge": {"test_near": 0.7}}}, {"merge"}, after["soft"]),
        ("soft.temperature", {"change": {"soft": _soft_change()}}, {"soft"}, {"train", "evaluate"}),
        ("distil.temperature", {"change": {"distil": {"temperature": 3.0}}}, {"train", "evaluate"}, set()),
        ("evaluate.rows", {"change": {"evaluate": {"rows": 10}}}, {"evaluate"}, set()),
        ("version of torch", {"version": ["torch", "0.0.1"]}, set(STAGES), set()),
        ("a row of the test file", {"file": (test, test.read_text() + '{"text": "Hi", "label": "account"}\n')},
         {"merge", "evaluate"}, {"soft", "train"}),
        ("a label's description", {"file": (task, TASK.replace("cannot log in", "is locked"))}, set(STAGES), set()),
    ]  # fmt: skip
    wrong: list[str] = []
    for what, job, must, may in cases:
        folder = runs.place / "changed"
        shutil.copytree(runs.calm, folder)
        file, text = job.pop("file", (None, ""))
        old = file.read_text() if file else ""
        if file:
            file.write_text(text)
        result = runs.run(folder, export=False, **job)
        if file:
            file.write_text(old)
        made = set(result.get("made", ()))
        # A stage whose output came out the same leaves those below it in place.
        if result["status"] != 0 or not must <= made <= must | may:
            wrong.append(f"{what}: made {sorted(made)}, wanted {sorted(must)} {result!s:.300}")
        shutil.rmtree(folder)
    for line in wrong:
        print(line, file=sys.stderr)
    return [
        {"suite": "caches", "what": "one input changed: exactly the stages that depend on it are made again",
         "count": len(cases), "bad": len(wrong), "which": wrong[:3] or None}
    ]  # fmt: skip


def _soft_change() -> dict[str, Any]:
    from dataclasses import fields

    from potstill.datagen.soft_options import SoftOptions

    for option in fields(SoftOptions):
        if option.name == "temperature":
            return {"temperature": 2.0}
    number = next(o for o in fields(SoftOptions) if isinstance(o.default, float) and 0 < o.default < 1)
    return {number.name: number.default * 0.9}
