"""Self-Instruct, whole: from seed tasks to new instructions with instances (Wang et al., arXiv:2212.10560 §2.2).

Three requests an instruction, in one stream without a barrier: a few new instructions are written after eight shuffled
ones (six seeds and two written ones, or eight seeds at first; seven new at most); each new one is asked for being
classification; then its instances are written, label-first for classification and input-first otherwise. A new
instruction whose ROUGE-L F1 with any seed or kept instruction is above 0.7 is refused, exactly (see `novelty`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potstill import prompts
from potstill.datagen.drive import drive
from potstill.datagen.gathering import Gathering, insist
from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.options import GenerationOptions
from potstill.datagen.result import PURPOSE, GenerationResult
from potstill.datagen.self_instruct_files import (
    Instance,
    Instructed,
    SeedTask,
    append_instance,
    read_seed_tasks,
    write_alpaca,
    write_machine_instructions,
)
from potstill.datagen.self_instruct_files import read_instances as read_instances_file
from potstill.datagen.self_instruct_text import (
    is_yes,
    read_instances,
    refuse_instances,
    refuse_instruction,
    split_instructions,
)
from potstill.datagen.tally import Tally, TextSample, diversity
from potstill.datagen.writing import rng
from potstill.events import Listener, silent
from potstill.rows import Dropped, Row, Source, join_fields
from potstill.task import TaskSpec
from potstill.teacher import Abilities, Failure, Message, Reply, Request

if TYPE_CHECKING:
    from potstill.asker import Answer, Asker

SHOWN_SEEDS, SHOWN_WRITTEN, MOST_NEW = 6, 2, 7
_STEPS = Literal["bootstrap", "classify", "instances"]


@dataclass(frozen=True)
class NewTask:
    """A kept instruction on its way to instances."""

    instruction: str
    keys: tuple[str, ...]
    is_classification: bool = False


class SelfInstruct:
    """The plan; see the module's text. Implements `drive.Plan`."""

    def __init__(
        self,
        seeds: tuple[SeedTask, ...],
        options: GenerationOptions,
        abilities: Abilities,
        teacher: str,
        tally: Tally,
        keep: Callable[[Row], None],
        drop: Callable[[Dropped], None],
        tell: Callable[[Instructed], None] | None = None,
    ):
        self._tell = tell
        self._seeds = seeds
        self._options = options
        self._abilities = abilities
        self._teacher = teacher
        self._keep_row, self._drop_row = keep, drop
        self._novelty = NoveltyFilter(options.novelty, texts=(seed.instruction for seed in seeds))
        self._pending: deque[tuple[_STEPS, Request, NewTask | None]] = deque()
        self._to_classify: deque[NewTask] = deque()
        self._to_write: deque[NewTask] = deque()
        self._bootstraps = self._bootstraps_in = 0
        self._on_the_way = 0
        self.kinds: dict[str, bool] = {}
        self.instructions: list[str] = []
        self.request_idx: list[int] = []
        self.tally = tally

    @property
    def finished(self) -> bool:
        """Whether the rows are there, or the requests are spent and answered."""
        if self.tally.kept >= self._options.rows:
            return True
        spent = self._bootstraps >= self._options.max_requests
        return spent and not (self._pending or self._to_classify or self._to_write)

    def next_request(self) -> Request | None:
        """Instances of a classified task, else the class of a new one, else new instructions while too few come."""
        if self._to_write:
            task = self._to_write.popleft()
            return self._issue("instances", self._instances_request(task), task)
        if self._to_classify:
            task = self._to_classify.popleft()
            return self._issue("classify", self._classify_request(task), task)
        if self._bootstraps >= self._options.max_requests:
            return None
        rows_a_task = (self.tally.kept + 2) / (len(self.kinds) + 3)
        new_a_reply = (len(self.instructions) + 3) / (self._bootstraps_in + 1)
        coming = self._on_the_way + min(new_a_reply, MOST_NEW) * (self._bootstraps - self._bootstraps_in)
        if self._pending and self.tally.kept + rows_a_task * coming >= self._options.rows:
            return None
        self._bootstraps += 1
        return self._issue("bootstrap", self._bootstrap_request(), None)

    def _issue(self, step: _STEPS, request: Request, task: NewTask | None) -> Request:
        self._pending.append((step, request, task))
        return request

    def _bootstrap_request(self) -> Request:
        random = rng(self._options.seed, self._bootstraps, "bootstrap")
        written = random.sample(self.instructions, k=min(SHOWN_WRITTEN, len(self.instructions)))
        wanted = min(len(self._seeds), SHOWN_SEEDS + SHOWN_WRITTEN - len(written))
        shown = [*written, *(seed.instruction for seed in random.sample(self._seeds, k=wanted))]
        random.shuffle(shown)
        text = prompts.load("self_instruct_bootstrap").render(instructions=shown, last=len(shown) + MOST_NEW)
        return Request(
            messages=(Message("user", text),),
            prefill=f"{len(shown) + 1}." if self._abilities.prefill else "",
            max_tokens=400,
            temperature=self._options.temperature_at(self._bootstraps),
            top_p=self._options.top_p,
            stop=("\n\n",) if self._abilities.prefill else (),
            seed=random.randrange(2**31),
        )

    def _classify_request(self, task: NewTask) -> Request:
        random = rng(0, 0, "classify")  # the same examples for every task: a shared prefix is read once
        yes = [seed for seed in self._seeds if seed.is_classification]
        no = [seed for seed in self._seeds if not seed.is_classification]
        shown = random.sample(yes, k=min(4, len(yes))) + random.sample(no, k=min(6, len(no)))
        random.shuffle(shown)
        text = prompts.load("self_instruct_classify").render(examples=shown, instruction=task.instruction)
        return Request(
            messages=(Message("user", text),),
            max_tokens=4,
            temperature=0.0,
            choices=("Yes", "No") if self._abilities.choices else None,
        )

    def _instances_request(self, task: NewTask) -> Request:
        random = rng(self._options.seed, 0, f"instances {task.instruction}")
        alike = [seed for seed in self._seeds if seed.is_classification == task.is_classification] or list(self._seeds)
        shown = random.sample(alike, k=min(3, len(alike)))
        opening = ""
        if task.is_classification:
            text = prompts.load("self_instruct_output_first").render(examples=shown, instruction=task.instruction)
            opening = "Class label:"
        else:
            examples = [
                {"instruction": s.instruction, "input": s.instances[0].input, "output": s.instances[0].output}
                for s in shown
            ]
            text = prompts.load("self_instruct_input_first").render(examples=examples, instruction=task.instruction)
            opening = "Input:"
        return Request(
            messages=(Message("user", text),),
            prefill=opening if self._abilities.prefill else "",
            max_tokens=300 if task.is_classification else 350,
            temperature=self._options.answer_temperature,
            stop=("\nTask:",),
            seed=random.randrange(2**31),
        )

    def accept(self, answer: Answer) -> None:
        """Take the answer to the oldest request that has none yet."""
        step, request, task = self._pending.popleft()
        self.tally.requests += 1
        self._bootstraps_in += step == "bootstrap"
        if step == "instances":
            self._on_the_way -= 1
        reply = answer.reply
        if isinstance(reply, Failure):
            self.tally.failed += 1
            if step == "classify":
                self._on_the_way -= 1
            self._refuse(Dropped("no_reply", reply.reason, task.instruction if task else ""), (answer.key,))
            return
        self.tally.prompt_tokens += reply.prompt_tokens
        self.tally.completion_tokens += reply.completion_tokens
        if task is None:
            self._accept_instructions(request, reply, answer.key)
        elif step == "classify":
            decided = is_yes(reply.text)
            self._to_write.append(replace(task, is_classification=bool(decided), keys=(*task.keys, answer.key)))
        else:
            self._accept_instances(task, request, reply, answer.key)

    def _accept_instructions(self, request: Request, reply: Reply, key: str) -> None:
        if reply.finish == "refused":
            self._refuse(Dropped("refusal", "", reply.text[:500]), (key,))
            return
        for text in split_instructions(request.prefill + reply.text, MOST_NEW, reply.finish == "length"):
            self.tally.texts += 1
            fault = refuse_instruction(text)
            if fault is None:
                match = self._novelty.admit(text)
                if match is not None:
                    fault = Dropped("near_duplicate", f"ROUGE-L {match.f1:.2f} with instruction {match.index}", text)
            if fault is not None:
                self._refuse(fault, (key,))
                continue
            self.instructions.append(text)
            self.request_idx.append(self._bootstraps_in - 1)
            self._on_the_way += 1
            self._to_classify.append(NewTask(text, (key,)))

    def _accept_instances(self, task: NewTask, request: Request, reply: Reply, key: str) -> None:
        self.kinds[task.instruction] = task.is_classification
        keys = (*task.keys, key)
        cut = reply.finish == "length"
        found = read_instances(request.prefill + reply.text, task.is_classification, cut)
        if not found:
            reason = "refusal" if reply.finish == "refused" else "truncated" if cut else "unparsable"
            self._refuse(Dropped(reason, "no instance in the reply", task.instruction, reply.text[:500]), keys)
            return
        kept, dropped = refuse_instances(found)
        for item in dropped:
            self._refuse(replace(item, input=_student_input(task.instruction, item.input)), keys)
        for instance in kept:
            if self.tally.kept >= self._options.rows:
                break
            self._keep(task, instance, keys)

    def _keep(self, task: NewTask, instance: Instance, keys: tuple[str, ...]) -> None:
        row = Row(
            input=_student_input(task.instruction, instance.input),
            output=instance.output,
            origin="generated",
            source=Source(teacher=self._teacher, requests=keys),
            licence=self._options.licence,
        )
        self.tally.kept += 1
        self._keep_row(row)
        if self._tell is not None:
            self._tell(Instructed(task.instruction, instance.input, instance.output))

    def _refuse(self, fault: Dropped, keys: tuple[str, ...]) -> None:
        self.tally.drop(fault.reason)
        source = Source(teacher=self._teacher, requests=keys)
        self._drop_row(replace(fault, origin="generated", source=source, stage="datagen"))


def _student_input(instruction: str, input: str) -> str:
    """What the student reads after the task's own instruction."""
    return join_fields({"text": f"{instruction}\n\n{input}" if input else instruction})


def generate_instructions(
    spec: TaskSpec, asker: Asker, options: GenerationOptions, *, listener: Listener = silent, out: Path | None = None
) -> GenerationResult:
    """Rows for `kind: instructions`.

    Args:
        spec: The task; `seed_tasks` names a file of seeds, or None for potstill's own.
        asker: The teacher.
        options: Rows wanted, seed, temperatures, novelty threshold.
        listener: Called with progress.
        out: Folder for the files that `gathering` names, and for those of `self_instruct_files`; None keeps them in a
            temporary one.

    Returns:
        Rows whose input is an instruction with its input; the report lists the kept instructions.

    Raises:
        DataError: The seed tasks cannot be read.
        TeacherError: No usable row came of all requests, or the teacher refused or stayed away.
    """
    seeds = read_seed_tasks(spec.seed_tasks)
    tally = Tally()
    name = asker.teacher.name
    with Gathering(out, (), options.rows, tally, listener, seed=options.seed) as gathered:
        instances = gathered.folder / "all_generated_instances.jsonl"
        with instances.open("w", encoding="utf-8") as file:

            def tell(row: Instructed) -> None:
                append_instance(row, file)

            plan = SelfInstruct(seeds.tasks, options, asker.abilities, name, tally, gathered.keep, gathered.drop, tell)
            drive(plan, asker, window=options.window, purpose=PURPOSE)
        insist(gathered, tally, name)
        write_alpaca(read_instances_file(instances), gathered.folder / "alpaca.json")
        known = [seed.instruction for seed in seeds.tasks]
        file_name = gathered.folder / "machine_generated_instructions.jsonl"
        write_machine_instructions(known, plan.instructions, plan.request_idx, name, file_name)
        written = TextSample(seed=options.seed)
        for text in dict.fromkeys(plan.instructions):
            written.add(text)
        report: dict[str, Any] = {
            "method": "self-instruct",
            "teacher": name,
            **tally.to_json(),
            "seeds": len(seeds.tasks),
            "seeds_skipped": list(seeds.skipped),
            "instructions": [
                {"instruction": text, "is_classification": plan.kinds[text]}
                for text in plan.instructions
                if text in plan.kinds
            ],
            **diversity(written.texts, options.seed),
        }
        return gathered.result(report)
