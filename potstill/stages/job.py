"""Each stage of a run: what it is given, what it leaves on disk, and what its key depends on.

The order is `Job.all_stages`. A stage's key parts are everything that can change its output and nothing else, so
that a change recomputes what depends on it and leaves the rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import as_paid, in_time
from potstill.asking.ledger import Ledger
from potstill.code_version import code_version
from potstill.decisions import apply_decisions, count_decisions, decisions_key, read_decisions
from potstill.errors import DataError, UnreachableError
from potstill.events import Event, Listener
from potstill.masking import mask_teacher, masked
from potstill.options import as_json
from potstill.rows import read_rows, rows_to_dataset, write_dropped, write_rows
from potstill.run_dir import RunDir, Stage, write_atomic
from potstill.run_state import LeftOpen, stages_with, told_state
from potstill.stages.asked_teacher import asked_in_training, check_on_policy, taught_on_policy
from potstill.stages.checks import check_asked, check_outputs, check_teachers
from potstill.stages.optional import (
    compress_stage,
    depends_on_texts,
    mixture_rows,
    optional_stages,
    rows_to_learn,
    self_train_on,
)
from potstill.stages.own_inputs import answers_own, own_key, told_inputs
from potstill.stages.parts import (
    command_given,
    content,
    contents,
    described,
    held_out_rows,
    lacks,
    prompt_digest,
    ref_content,
    relevant,
    run_record,
    with_gaps,
    write_json,
    write_stage,
)
from potstill.stages.rationales import rationale_stage
from potstill.stages.rules import weak_stage
from potstill.stages.start import check_ahead, check_start, settled
from potstill.stages.student_choice import distil_options, teaches_itself
from potstill.stages.written import nothing_written, quality_stage
from potstill.task import DataRef, TaskSpec
from potstill.task.source import path_in

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker
    from potstill.settings import Settings


@dataclass(frozen=True)
class Job:
    """One run under way: the stages as methods, each naming what it depends on."""

    folder: RunDir
    spec: TaskSpec
    settings: Settings
    ledger: Ledger
    asker: Asker
    listener: Listener
    checker: Asker | None = None  # asks the teacher of `quality.teacher`; None is the run's own
    functions: tuple[Callable[[str], str | None], ...] = ()  # labelling functions beside the task file's rules
    call: str = ""  # what goes on with the run where no command began it
    metrics: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # the user's own, by name
    answerer: Asker | None = None  # asks the teacher of `generation.output_teacher`; None is the run's own

    @property
    def outputs(self) -> Asker:
        """The way to the teacher whose outputs the student learns, where the answer is a text."""
        return self.answerer or self.asker

    def all_stages(self, task: str) -> tuple[Stage, ...]:
        """Make or reuse every stage, in order; `task` is the prompt or path as given."""
        started = time.monotonic()
        check_start(self.spec, self.settings, self.listener)
        made = {name: self.folder.finished(name) is not None for name in ("merge", "train")}
        if self.settings.writes and self.folder.finished("datagen") is None:
            check_teachers(self.settings, self.ledger)
        check_ahead(self.spec, self.settings, merged=made["merge"], trained=made["train"])
        check_on_policy(self)
        if self.folder.finished("soft") is None:
            check_outputs(self.spec, self.settings, self.outputs)
        check_asked(self)
        done = [self.task(task), self.retrieval()]
        retrieved = done[-1]
        generated = self.datagen(retrieved)
        checked = quality_stage(self, generated)
        weak = weak_stage(self)
        merged = self.merge(retrieved, checked or generated, weak)
        soft = self.soft(merged, generated)
        reasons = rationale_stage(self, soft)
        trained = self.train(soft, merged, weak, reasons)
        small = compress_stage(self, trained, soft, merged)
        done += [stage for stage in (generated, checked, weak) if stage is not None]
        done += [merged, soft, *([reasons] if reasons else []), trained, *([small] if small else [])]
        done.append(self.evaluate(trained, soft, merged, small))
        self.report(done, time.monotonic() - started)
        return tuple(done)

    def make_stage(
        self,
        name: str,
        parts: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any]],
        asker: Asker | None = None,
        again: Callable[[Stage], bool] = lambda stage: False,
    ) -> Stage:
        """Run or reuse one stage and say so.

        A stage that was made while a server left requests unanswered, or that a lower budget cut short, is made again:
        the rest comes from the ledger.

        Args:
            name: Its folder.
            parts: What its output depends on.
            make: Fills its folder and returns what it remembers.
            asker: Who is asked in it, where each request that gets no reply leaves a gap.
            again: What else has a finished stage made again, though nothing that its key names has changed; the old one
                stays until the new one is whole.
        """
        try:
            with told_state(self.folder.path, name, stages_with(optional_stages(self)), command_given() or self.call):
                self.listener(Event(name, "start"))
                stage = self.folder.stage(
                    name, masked(parts), in_time(with_gaps(make, asker), self.asker.meter),
                    again=lambda old: again(old) or lacks(old.facts, self.asker.meter),
                    tell=lambda said: self.listener(Event(name, "note", said)),
                )  # fmt: skip
        except LeftOpen:
            raise
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            self.listener(Event(name, "failed", message="stopped" if stopped else str(error).split("\n")[0]))
            raise
        kind: Any = "reused" if stage.reused else "done"
        self.listener(Event(name, kind, message=str(stage.facts.get("summary", "")), data=dict(stage.facts)))
        return stage

    def task(self, given: str) -> Stage:
        """The task as given and as understood."""

        def make(out: Path) -> dict[str, Any]:
            path = path_in(given)
            text = given if path is None else path.read_text(encoding="utf-8-sig")
            (out / "task.md").write_text(mask_teacher(text.strip()) + "\n", encoding="utf-8")
            write_json(out / "task.json", self.spec.to_json())
            return {"summary": described(self.spec)}

        return self.make_stage("task", {"given": given, "spec": self.spec.to_json()}, make)

    def retrieval(self) -> Stage:
        """Cards that fit → their rows, mapped onto the task."""
        from potstill.hub_way import hub_unreachable
        from potstill.models import model_identity, sentence_encoder
        from potstill.retrieval.catalogue import shipped_catalogue
        from potstill.retrieval.retrieve import retrieve_rows

        options = self.settings.retrieval
        catalogues = options.catalogue or (str(shipped_catalogue()),)

        def make(out: Path) -> dict[str, Any]:
            if not self.settings.retrieves:
                empty = rows_to_dataset([], self.spec.label_names)
                write_stage(out, empty, (), {"note": f"retrieval is off (sources = {self.settings.sources})"})
                write_json(out / "ranking.json", {"query": "", "hits": [], "refused": []})
                return {"summary": "off", "rows": 0}
            encoder = sentence_encoder(self.settings.encoder)
            result = retrieve_rows(self.spec, options, encoder=encoder, asker=self.asker, listener=self.listener)
            away = result.report["datasets_unreached"]
            if away > min((stage.facts.get("unreached", 0) for stage in earlier), default=away):
                raise UnreachableError(f"{away} datasets cannot be reached now, more than when it was made")
            write_stage(out, result.rows, result.dropped, result.report)
            write_json(out / "ranking.json", result.ranking.to_json())
            used = sum(hit["status"] == "used" for hit in result.ranking.to_json()["hits"])
            facts = {"rows": result.rows.num_rows, "unreached": away}
            facts["data"] = contents(hit.card.location for hit in result.ranking.hits if hit.status == "used")
            return {"summary": f"{result.rows.num_rows} rows from {used} datasets", **facts}

        earlier: list[Stage] = []

        def stale(made: Stage) -> bool:
            """What could not be reached is asked for again once there is a way to the Hub, what has changed at once."""
            away, data = made.facts.get("unreached"), made.facts.get("data", {})
            earlier.append(made)
            return bool(away and not hub_unreachable()) or data != contents(data)

        unread = () if options.rows_by == "nearest" or options.transform == "teacher" else ("examples",)
        parts = {
            "spec": relevant(self.spec, *unread, "test", "labelled", "unlabelled", "rules"),
            "options": as_json(options),
            "sources": not self.settings.retrieves,
            "catalogue": [content(path) for path in catalogues],
            "encoder": model_identity(self.settings.encoder),
            "teacher": self.asker.identity,
            **code_version(Job.retrieval).key_parts(),
            "prompts": prompt_digest(),
        }
        return self.make_stage("retrieval", parts, make, self.asker, stale)

    def datagen(self, retrieved: Stage) -> Stage:
        """The teacher writes what retrieval did not bring."""
        from potstill.datagen.generate import at_once, generate_rows

        requests = at_once(self.asker, self.answerer)
        options = settled(self.folder.path, self.settings.generation, requests, self.listener)

        def make(out: Path) -> dict[str, Any]:
            if not self.settings.writes:
                write_stage(out, rows_to_dataset([], self.spec.label_names), (), {"note": "generation is off"})
                return {"summary": "off", "rows": 0}
            rows = read_rows(retrieved.path / "rows.parquet")
            own, commits = told_inputs(self)
            with as_paid(self.asker.meter) as met:
                result = generate_rows(
                    self.spec, self.asker, options, retrieved=rows, own=own, answerer=self.answerer,
                    listener=self.listener, out=out,
                )  # fmt: skip
            if met:  # before the first row
                return nothing_written(self, out, met, rows.num_rows)
            write_json(out / "report.json", {**result.report, **commits})
            return result.facts(options.rows)

        without = () if answers_own(self.spec, self.settings) else (told_inputs,)
        parts = {
            "spec": relevant(self.spec, "test", "labelled", "unlabelled", "rules", "exclude", "licences"),
            # Where a teacher's options change replies, its identity is another.
            "options": as_json(replace(options, output_teacher_options={})),
            "answerer": None if self.answerer is None else self.answerer.identity,
            "files": [content(path) for path in (self.spec.seed_tasks, options.personas_file) if path],
            "sources": not self.settings.writes,
            "retrieved": retrieved.output,
            "own_inputs": own_key(self.spec, self.settings),
            "teacher": self.asker.identity,
            **code_version(Job.datagen, without=without).key_parts(),
            "prompts": prompt_digest(),
        }
        return self.make_stage("datagen", parts, make)

    def merge(self, retrieved: Stage, generated: Stage, weak: Stage | None = None) -> Stage:
        """One set of rows without duplicates and without test text, split for training."""
        from potstill.datagen.heldout import separate_splits
        from potstill.datagen.merge import merge_rows, split_rows

        decisions = read_decisions(self.folder.path)

        def make(out: Path) -> dict[str, Any]:
            commits: dict[str, str] = {}
            parts = [read_rows(stage.path / "rows.parquet") for stage in (generated, retrieved)]
            if weak is not None:
                parts.append(read_rows(weak.path / "rows.parquet"))
            if self.spec.labelled is not None:
                parts.insert(0, self._data(self.spec.labelled, "merge", commits))
            parts, decided = apply_decisions(parts, decisions, self.spec.label_names)
            test = self.test_rows()
            result = merge_rows(self.spec, parts, self.settings.merge, test=test, listener=self.listener)
            if result.kept.num_rows == 0:
                raise DataError(
                    f"no rows are left to train on ({sum(part.num_rows for part in parts)} rows came in, "
                    f"dropped {len(result.dropped)}); see {generated.path / 'dropped.jsonl'} and "
                    f"{retrieved.path / 'ranking.json'}; try more rows (-n), another teacher, or a larger catalogue"
                )
            options = self.settings.merge if test is None else replace(self.settings.merge, heldout=0.0)
            splits, moved = separate_splits(split_rows(self.spec, result.kept, options), options)
            write_rows(splits.train, out / "train.parquet")
            write_rows(splits.validation, out / "validation.parquet")
            if splits.heldout is not None and splits.heldout.num_rows:
                write_rows(splits.heldout, out / "heldout.parquet")
            dropped = (*decided, *result.dropped)
            write_dropped(dropped, out / "dropped.jsonl")
            report = {**result.report, **moved, **count_decisions(decisions), "commits": commits}
            write_json(out / "report.json", report)
            return {"summary": f"{result.kept.num_rows} rows kept, {len(dropped)} dropped"}

        parts = {
            "spec": relevant(self.spec),
            "options": as_json(self.settings.merge),
            "rows": [retrieved.output, generated.output, *([weak.output] if weak else [])],
            "data": [ref_content(self.spec.test), ref_content(self.spec.labelled)],
            **code_version(Job.merge).key_parts(),
            **({"decisions": heeded} if (heeded := decisions_key(decisions)) else {}),
        }
        return self.make_stage("merge", parts, make)

    def soft(self, merged: Stage, generated: Stage) -> Stage:
        """The teacher's calibrated label probabilities, or its top-k log-probs for each output token."""
        from potstill.models import model_identity

        options = self.settings.soft
        wanted = self.settings.distil.soft_weight > 0 and self.settings.distil.on_policy == 0
        itself = teaches_itself(self.settings, self.spec)

        def make(out: Path) -> dict[str, Any]:
            from potstill.stages.soft_targets import make_soft_targets

            return make_soft_targets(self, merged, generated, out, wanted=wanted, itself=itself)

        parts = {
            "spec": relevant(self.spec),
            "options": as_json(options),
            "wanted": [wanted, itself],
            "method": [self.settings.distil.method, self.settings.distil.sequence_share],
            "rows": [merged.output, generated.output],
            "encoder": model_identity(self.settings.encoder),
            "teacher": self.outputs.identity,
            **code_version(Job.soft).key_parts(),
            "prompts": prompt_digest(),
            "texts": [ref_content(self.spec.unlabelled), self.settings.seed] if self.spec.estimate_prior else None,
        }
        return self.make_stage("soft", parts, make, self.outputs)

    def train(self, soft: Stage, merged: Stage, weak: Stage | None, reasons: Stage | None = None) -> Stage:
        """The student learns from hard labels and soft targets, then from unlabelled texts of which it is sure."""
        from potstill.models import model_identity
        from potstill.train.options import student_name
        from potstill.train.recipe import train_classifier, train_generator, training_summary

        distil = distil_options(self.settings, self.spec, self.listener)
        name = student_name(distil, self.spec.kind)

        def make(out: Path) -> dict[str, Any]:
            rows = read_rows((reasons or soft).path / "train.parquet")
            validation = read_rows(soft.path / "validation.parquet")
            options, student, told = distil, out / "student", dict[str, Any]()
            if self.spec.kind == "classification":
                rows, validation, options, told = rows_to_learn(self, distil, rows, validation, weak, merged, soft, out)
            options, scores = taught_on_policy(self, options)

            def learn(more: Dataset, folder: Path) -> Any:
                return train_classifier(self.spec, more, validation, folder, options, listener=self.listener)

            stored = soft.path / "token_targets.parquet"
            tables = rows, validation, read_rows(stored) if stored.exists() else None
            if options.processes > 1:
                from potstill.train.launch import launch, write_job

                job = write_job(out / "job", self.spec, *tables, student, options)
                result = launch(job, options, scores=scores, listener=self.listener)
            elif self.spec.kind == "classification":
                result = learn(rows, student)
            else:
                result = train_generator(self.spec, *tables, student, options, scores=scores, listener=self.listener)
            if weak is not None and self.spec.kind == "classification":
                told |= self_train_on(self, weak, merged, rows, validation, student, learn)
            write_json(out / "history.json", result.history)
            report = {**result.report, **told, "base_model": name}
            write_json(out / "report.json", report)
            how = training_summary(report)
            met = {key: report[key] for key in ("budget_met",) if key in report}
            return {
                "summary": f"{name} on {rows.num_rows} rows{'; ' if how else ''}{how}",
                "rows": rows.num_rows,
                **met,
            }

        entries = (Job.train, Job.test_rows) if weak else (Job.train,)
        without = () if weak else (mixture_rows, self_train_on)
        parts = {
            "spec": relevant(self.spec),
            "options": as_json(distil),
            "teacher": asked_in_training(self, distil, weak),
            "rows": [soft.output, *([reasons.output] if reasons else [])],
            "self_training": depends_on_texts(self, weak, merged),
            "student": model_identity(name),
            **code_version(*entries, without=without).key_parts(),
        }
        return self.make_stage("train", parts, make)

    def evaluate(self, trained: Stage, soft: Stage, merged: Stage, small: Stage | None = None) -> Stage:
        """Student, teacher and majority on the same real test rows (or held-out rows, said plainly)."""
        from potstill.datagen.votes import function_digest
        from potstill.stages.evaluation import evaluate_run, frozen_calibration

        def make(out: Path) -> dict[str, Any]:
            commits: dict[str, str] = {}
            test = self.test_rows("evaluate", commits)
            kind, source = "real", self.spec.test.path if self.spec.test else ""
            if test is None:
                held, source = held_out_rows(merged.path)
                kind, test = "held-out", read_rows(held)
            return evaluate_run(
                self.spec,
                trained.path / "student",
                test,
                out,
                test_set={"kind": kind, "source": source, "commit": commits.get(source)},
                asker=self.outputs,
                soft=self.settings.soft,
                options=self.settings.evaluate,
                train_rows=read_rows(soft.path / "train.parquet"),
                compressed=small.path / "student" if small is not None else None,
                seed=self.settings.seed,
                calibration=frozen_calibration(soft.path),
                metrics=self.metrics,
                listener=self.listener,
            )

        parts = {
            "spec": relevant(self.spec),
            "options": as_json(self.settings.evaluate),
            "seed": self.settings.seed,
            "soft": as_json(self.settings.soft),
            "inputs": [trained.output, soft.output, merged.output, *([small.output] if small else [])],
            "test": ref_content(self.spec.test),
            "teacher": self.outputs.identity if self.settings.evaluate.teacher else None,
            **code_version(Job.evaluate).key_parts(),
            "prompts": prompt_digest(),
            **({"metrics": {name: function_digest(f) for name, f in self.metrics.items()}} if self.metrics else {}),
        }
        return self.make_stage("evaluate", parts, make, self.outputs)

    def report(self, stages: list[Stage], seconds: float) -> None:
        """What the run cost and how to repeat it, then the report."""
        from potstill.report.page import write_report

        record = run_record(self, stages, seconds)
        write_atomic(self.folder.path / "run.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        write_report(self.folder.path)

    def test_rows(self, stage: str = "", commits: dict[str, str] | None = None) -> Dataset | None:
        """The user's real test data, or None; where a stage is named, it says what is left out of them."""
        return None if self.spec.test is None else self._data(self.spec.test, stage, commits)

    def _data(self, ref: DataRef, stage: str, commits: dict[str, str] | None) -> Dataset:
        from potstill.retrieval.load import read_data

        tell = (lambda said: self.listener(Event(stage, "note", said))) if stage else None
        return read_data(ref, self.spec, tell=tell, commits=commits, measured=ref == self.spec.test)
