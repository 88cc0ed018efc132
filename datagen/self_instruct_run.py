"""A run of Self-Instruct: its plan, the user's own instructions beside it, its files and its report.

In: a task of `kind: instructions`. Out: rows, with the files of `self_instruct_files` in the stage's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import as_paid
from potstill.datagen.answering import FormCheck
from potstill.datagen.drive import drive
from potstill.datagen.gathering import Gathering, insist
from potstill.datagen.options import GenerationOptions
from potstill.datagen.own_inputs import InTurn, Own, OwnAnswers
from potstill.datagen.personas import SHOWN_PERSONAS, personas_for
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.datagen.result import PURPOSE, GenerationResult, answered_by
from potstill.datagen.self_instruct import SelfInstruct
from potstill.datagen.self_instruct_files import (
    Instructed,
    append_instance,
    read_instances,
    read_seed_tasks,
    write_alpaca,
    write_machine_instructions,
    write_seed_tasks,
)
from potstill.datagen.self_instruct_requests import INSTANCE_TOKENS, own_seeds
from potstill.datagen.self_instruct_steps import RawInstances, write_finetuning, write_kinds
from potstill.datagen.tally import Tally
from potstill.events import Listener, silent
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker


def _near_duplicate_rate(texts: Sequence[str]) -> float:
    """Share of texts whose ROUGE-L F1 with one of the 5,000 before them is above 0.7."""
    novelty, near = RecentNovelty(5000, 0.7), 0
    for text in texts:
        near += novelty.match(text) is not None
        novelty.add(text)
    return round(near / max(1, len(texts)), 4)


def _cut(tally: Tally, options: GenerationOptions) -> str:
    """How many replies with instances were cut at their bound, and how it is raised; "" where none was."""
    count = tally.dropped["truncated"]
    wider = 2 * (options.max_tokens or INSTANCE_TOKENS[False])
    said = f"{count} were cut at the most tokens that instances may take; allow more with"
    return f"{said} --set generation.max_tokens={wider}" if count else ""


def generate_instructions(
    spec: TaskSpec,
    asker: Asker,
    options: GenerationOptions,
    *,
    own: Own | None = None,
    answerer: Asker | None = None,
    listener: Listener = silent,
    out: Path | None = None,
) -> GenerationResult:
    """Rows for `kind: instructions`.

    Args:
        spec: The task; `seed_tasks` names a file of seeds, or None for potstill's own.
        asker: The teacher.
        options: Rows wanted, seed, temperatures, novelty threshold.
        own: Instructions of the user's, with their inputs, that the teacher answers as the student will be asked; the
            rest of the rows is written. The files of Self-Instruct hold what it wrote alone.
        answerer: Another teacher that writes the outputs; None for the same one.
        listener: Called with progress.
        out: Folder for the files that `gathering` names, and for those of `self_instruct_files` and
            `self_instruct_steps`; None keeps them in a temporary one.

    Returns:
        Rows whose input is an instruction with its input; the report lists the kept instructions.

    Raises:
        DataError: The seed tasks cannot be read.
        TeacherError: No usable row came of all requests, or the teacher refused or stayed away.
    """
    seeds = read_seed_tasks(spec.seed_tasks)
    options = replace(options, texts_per_request=1)  # which bounds the requests, and each of these writes one thing
    tally = Tally()
    name = asker.teacher.name
    own = own or Own()
    written = own.written_beside(options)
    personas = personas_for(spec, asker, options) if written else ()
    # Targets come with the answers to the user's own: what Self-Instruct writes is not in the form of the student's.
    by = answerer or asker
    top_k = min(options.answer_top_k, by.abilities.top_logprobs) if own.inputs or answerer else 0
    with Gathering(out, (), options.rows, tally, listener, top_k, options.seed) as gathered:
        shown = (*seeds.tasks, *own_seeds(spec))
        write_seed_tasks(shown, gathered.folder / "seed_tasks.jsonl")
        instances = gathered.folder / "all_generated_instances.jsonl"
        machine = gathered.folder / "machine_generated_instructions.jsonl"
        with instances.open("w", encoding="utf-8") as file, RawInstances(gathered.folder) as raw:

            def tell(row: Instructed) -> None:
                append_instance(row, file)

            answers = OwnAnswers(own, spec, options, by, tally, gathered.keep, gathered.drop, FormCheck(spec))
            beside = replace(options, rows=max(1, written))
            plan = SelfInstruct(
                spec, seeds.tasks, beside, asker.abilities, name, tally, gathered.keep, gathered.drop, tell, personas,
                raw.add, answerer,
            )  # fmt: skip
            plan.know(item.text for item in own.inputs)
            both = InTurn(answers, plan) if written else answers
            with as_paid(asker.meter) as met:
                drive(both, asker, window=options.ahead, purpose=PURPOSE, answerer=answerer)
            insist(gathered, tally, asker, _cut(tally, options), cut_short=bool(met))
            known = [seed.instruction for seed in shown]
            write_machine_instructions(known, plan.instructions, plan.request_idx, name, machine)
            raw.write(machine)
        kinds = {text: plan.kinds[text] for text in plan.instructions if text in plan.kinds}
        write_kinds(kinds, name, gathered.folder)
        made = read_instances(instances)
        write_alpaca(made, gathered.folder / "alpaca.json")
        write_finetuning(made, gathered.folder, options.seed)
        report: dict[str, Any] = {
            "method": "self-instruct",
            "teacher": name,
            **answered_by(answerer),
            **tally.to_json(),
            **({"own_inputs": answers.to_json()} if own.name else {}),
            **met,
            "seeds": len(shown),
            "seeds_skipped": list(seeds.skipped),
            "bootstraps": {"requests": plan.bootstraps, "used": plan.bootstraps_used},
            "tasks": {"written": len(plan.instructions), "answered": len(plan.kinds), "used": plan.tasks_used},
            **({"personas": list(personas[:SHOWN_PERSONAS])} if options.personas != "none" else {}),
            **({"evolved": plan.evolution.to_json()} if plan.evolution.on else {}),
            "kinds_of_seeds": plan.trust.to_json(),
            "instructions": [{"instruction": text, "is_classification": yes} for text, yes in kinds.items()],
            "instructions_near_duplicate_rate": _near_duplicate_rate(plan.instructions),
            **gathered.sample.diversity(options.seed),
        }
        return gathered.result(report)
