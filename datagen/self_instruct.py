"""Self-Instruct, whole: from seed tasks to new instructions with instances (Wang et al., arXiv:2212.10560 §2.2).

Three requests an instruction, in one stream without a barrier: a few new instructions are written after eight shuffled
ones (six seeds and two written ones, or eight seeds at first; seven new at most); each new one is asked for being
classification; then its instances are written, label-first for classification and input-first otherwise. Before all
that the teacher is asked for the kind of seeds, and believed by its answers (see `self_instruct_trust`). A new
instruction whose ROUGE-L F1 with any seed or kept instruction is above 0.7 is refused, exactly (see `novelty`).

The rows are held to the same bound on what the student reads, the instruction with its input: of the instances of one
instruction whose inputs are short, one stays, and for classification it is drawn, so that the label that teachers write
first does not win. The user's examples are seeds too, and the task's prompt says what the tasks are for.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potstill.asking.budget import as_paid
from potstill.asking.teacher import Abilities, Failure, Reply, Request
from potstill.datagen import filters
from potstill.datagen.answering import FormCheck
from potstill.datagen.asked_form import asked_form
from potstill.datagen.drive import drive
from potstill.datagen.gathering import Gathering, insist
from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.options import GenerationOptions
from potstill.datagen.own_inputs import InTurn, Own, OwnAnswers
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.datagen.result import PURPOSE, GenerationResult
from potstill.datagen.screen import held_languages
from potstill.datagen.self_instruct_files import (
    Instance,
    Instructed,
    SeedTask,
    append_instance,
    read_seed_tasks,
    write_alpaca,
    write_machine_instructions,
    write_seed_tasks,
)
from potstill.datagen.self_instruct_files import read_instances as read_instances_file
from potstill.datagen.self_instruct_requests import INSTANCE_TOKENS, MOST_NEW, Requests, own_seeds
from potstill.datagen.self_instruct_text import (
    is_yes,
    read_instances,
    refuse_instances,
    refuse_instruction,
    split_instructions,
    squeezed,
)
from potstill.datagen.self_instruct_trust import Trust, seeds_to_ask
from potstill.datagen.tally import Tally
from potstill.datagen.writing import rng
from potstill.events import Listener, silent
from potstill.rows import Dropped, Row, Source, join_instruction
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.asking.stream import Answer

# A shorter text may stand in a prompt and in a reply by chance.
_FEWEST_ECHOED_WORDS = 4
_STEPS = Literal["seed", "bootstrap", "classify", "instances"]


@dataclass(frozen=True)
class NewTask:
    """A kept instruction on its way to instances."""

    instruction: str
    keys: tuple[str, ...]
    is_classification: bool = False


class SelfInstruct:
    """The plan; see the module's text. Implements `drive.Plan`.

    Args:
        spec: The task; its examples and its prompt are shown.
        seeds: Tasks to start from.
        options: How many rows, and how to ask.
        abilities: Of the teacher.
        teacher: Its name, for the rows' source.
        tally: Counts what happens.
        keep: Called with each kept row.
        drop: Called with each refused text.
        tell: Called with each kept instance.

    Attributes:
        trust: What the teacher said of the seeds' kinds.
        kinds: Whether each answered instruction is classification.
        instructions: The kept ones, in order.
        request_idx: For each, the number of the bootstrap request that brought it.
        kept: Rows kept.
        bootstraps: Bootstrap requests answered.
        bootstraps_used: Bootstrap replies that brought a kept instruction.
        tasks_used: Instructions that brought a row.
    """

    def __init__(
        self,
        spec: TaskSpec,
        seeds: tuple[SeedTask, ...],
        options: GenerationOptions,
        abilities: Abilities,
        teacher: str,
        tally: Tally,
        keep: Callable[[Row], None],
        drop: Callable[[Dropped], None],
        tell: Callable[[Instructed], None] | None = None,
    ):
        self._spec = spec
        self._languages = held_languages(spec, abilities.prefill)
        self._tell = tell
        self._requests = Requests(spec, seeds, own_seeds(spec), options, abilities)
        self._options = options
        self._teacher = teacher
        self._keep_row, self._drop_row = keep, drop
        shown = (*seeds, *self._requests.own)
        self._shown = NoveltyFilter(options.novelty, texts=(seed.instruction for seed in shown))
        self._written, self._row_texts = _pool(options), _pool(options)
        texts = (text for seed in shown for item in seed.instances for text in (item.input, item.output))
        self._echoes = {squeezed(text) for text in texts if len(text.split()) >= _FEWEST_ECHOED_WORDS}
        self._pending: deque[tuple[_STEPS, Request, NewTask | SeedTask | None]] = deque()
        self._seeds = deque(seeds_to_ask(seeds, self._requests.shown_kinds()))
        self.trust = Trust()
        self._to_classify: deque[NewTask] = deque()
        self._to_write: deque[NewTask] = deque()
        self._bootstraps = self._classified = self.bootstraps = 0
        self._under_way: Counter[_STEPS] = Counter()
        self.kinds: dict[str, bool] = {}
        self.instructions: list[str] = []
        self.request_idx: list[int] = []
        self.bootstraps_used = self.tasks_used = 0
        self.kept = 0
        self.tally = tally

    def know(self, texts: Iterable[str]) -> None:
        """Take texts for kept rows: what is nearly one of them is refused."""
        for text in texts:
            self._row_texts.add(text)

    @property
    def finished(self) -> bool:
        """Whether the rows are there, or the requests are spent and answered."""
        if self.kept >= self._options.rows:
            return True
        most = self._options.max_requests
        more = self._to_write or (self._to_classify and self._classified < most)
        return not (self._pending or more) and (self._bootstraps >= most or self._classified >= most)

    def next_request(self) -> Request | None:
        """The kind of a seed, else instances of a classified task, else the class of a new one, else new instructions.

        None while what is under way will bring the rows, as far as the answers so far tell.
        """
        if self._seeds:
            seed = self._seeds.popleft()
            return self._issue("seed", self._requests.classify(seed.instruction), seed)
        most = self._options.max_requests
        rows_a_task = (self.kept + 3) / (len(self.kinds) + 3)

        def enough(tasks: float) -> bool:
            return bool(self._pending) and self.kept + rows_a_task * tasks >= self._options.rows

        if self._to_write:
            if enough(self._under_way["instances"]):
                return None
            task = self._to_write.popleft()
            return self._issue("instances", self._requests.instances(task.instruction, task.is_classification), task)
        if self._classified >= most:
            return None
        if self._to_classify:
            if enough(self._under_way["instances"] + self._under_way["classify"]):
                return None
            self._classified += 1
            task = self._to_classify.popleft()
            if not self.trust.believed:
                return self._issue("instances", self._requests.instances(task.instruction, False), task)
            return self._issue("classify", self._requests.classify(task.instruction), task)
        if self._bootstraps >= most:
            return None
        new_a_reply = min((len(self.instructions) + 3) / (self.bootstraps + 1), MOST_NEW)
        under_way = self._under_way
        if enough(under_way["instances"] + under_way["classify"] + new_a_reply * under_way["bootstrap"]):
            return None
        self._bootstraps += 1
        return self._issue("bootstrap", self._requests.bootstrap(self._bootstraps, self.instructions), None)

    def _issue(self, step: _STEPS, request: Request, task: NewTask | SeedTask | None) -> Request:
        self._pending.append((step, request, task))
        self._under_way[step] += 1
        return request

    def accept(self, answer: Answer) -> None:
        """Take the answer to the oldest request that has none yet."""
        step, request, task = self._pending.popleft()
        self.tally.requests += 1
        self.bootstraps += step == "bootstrap"
        self._under_way[step] -= 1
        reply = answer.reply
        if isinstance(reply, Failure):
            self.tally.fail(reply)
            if step != "seed":
                self._refuse(Dropped("no_reply", reply.reason, task.instruction if task else ""), (answer.key,))
            return
        self.tally.prompt_tokens += reply.prompt_tokens
        self.tally.completion_tokens += reply.completion_tokens
        if isinstance(task, SeedTask):
            self.trust.add(task, is_yes(reply.text))
        elif task is None:
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
        number = request.prefill.rpartition("\n")[2]
        before = len(self.instructions)
        for text in split_instructions(number + reply.text, MOST_NEW, reply.finish == "length"):
            fault = (
                refuse_instruction(text)
                or filters.wrong_language(text, self._languages)
                or filters.near_duplicate(text, self._shown)
                or filters.near_duplicate(text, self._written)
            )
            if fault is not None:
                self.tally.texts += 1
                self._refuse(fault, (key,))
                continue
            self._written.add(text)
            self.instructions.append(text)
            self.request_idx.append(self.bootstraps - 1)
            self._to_classify.append(NewTask(text, (key,)))
        self.bootstraps_used += len(self.instructions) > before

    def _accept_instances(self, task: NewTask, request: Request, reply: Reply, key: str) -> None:
        self.kinds[task.instruction] = task.is_classification
        keys = (*task.keys, key)
        cut = reply.finish == "length"
        opening = request.prefill.rpartition("\n")[2]
        found = read_instances(opening + reply.text, task.is_classification, cut)
        self.tally.texts += max(1, len(found))
        if not found:
            reason = "refusal" if reply.finish == "refused" else "truncated" if cut else "unparsable"
            self._refuse(Dropped(reason, "no instance in the reply", task.instruction, reply.text[:500]), keys)
            return
        kept, dropped = refuse_instances(
            found, classification=task.is_classification, instruction=task.instruction, echoes=self._echoes
        )
        for item in dropped:
            self._refuse(replace(item, input=join_instruction(task.instruction, item.input)), keys)
        if task.is_classification:
            rng(self._options.seed, 0, f"order {task.instruction}").shuffle(kept)
        before = self.kept
        for number, instance in enumerate(kept):
            if self.kept >= self._options.rows:
                self.tally.texts -= len(kept) - number  # the last reply's surplus was not judged
                break
            self._keep(task, instance, keys)
        self.tasks_used += self.kept > before

    def _keep(self, task: NewTask, instance: Instance, keys: tuple[str, ...]) -> None:
        text = join_instruction(task.instruction, instance.input)
        form = asked_form(task.instruction)
        cut = form.cut(instance.output)
        self.tally.cut_to_form += cut != instance.output
        instance = replace(instance, output=cut)
        if broken := form.fault(cut):
            self._refuse(Dropped("off_form", broken, text, cut), keys)
            return
        near = filters.near_duplicate(text, self._row_texts)
        if near is not None:
            self._refuse(replace(near, output=instance.output), keys)
            return
        self._row_texts.add(text)
        row = Row(
            input=text,
            output=instance.output,
            origin="generated",
            source=Source(teacher=self._teacher, requests=keys),
            licence=self._options.licence,
        )
        self.tally.kept += 1
        self.kept += 1
        self._keep_row(row)
        if self._tell is not None:
            self._tell(Instructed(task.instruction, instance.input, instance.output))

    def _refuse(self, fault: Dropped, keys: tuple[str, ...]) -> None:
        self.tally.drop(fault.reason)
        source = Source(teacher=self._teacher, requests=keys)
        self._drop_row(replace(fault, origin="generated", source=source, stage="datagen"))


def _pool(options: GenerationOptions) -> NoveltyFilter | RecentNovelty:
    if options.novelty_pool:
        return RecentNovelty(options.novelty_pool, options.novelty)
    return NoveltyFilter(options.novelty)


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
    options = replace(options, texts_per_request=1)  # which bounds the requests, and each of these writes one thing
    tally = Tally()
    name = asker.teacher.name
    own = own or Own()
    written = own.written_beside(options)
    # Targets come with the answers to the user's own: what Self-Instruct writes is not in the form of the student's.
    top_k = min(options.answer_top_k, asker.abilities.top_logprobs) if own.inputs else 0
    with Gathering(out, (), options.rows, tally, listener, top_k, options.seed) as gathered:
        shown = (*seeds.tasks, *own_seeds(spec))
        write_seed_tasks(shown, gathered.folder / "seed_tasks.jsonl")
        instances = gathered.folder / "all_generated_instances.jsonl"
        with instances.open("w", encoding="utf-8") as file:

            def tell(row: Instructed) -> None:
                append_instance(row, file)

            answers = OwnAnswers(own, spec, options, asker, tally, gathered.keep, gathered.drop, FormCheck(spec))
            beside = replace(options, rows=max(1, written))
            plan = SelfInstruct(
                spec, seeds.tasks, beside, asker.abilities, name, tally, gathered.keep, gathered.drop, tell
            )
            plan.know(item.text for item in own.inputs)
            with as_paid(asker.meter) as met:
                drive(InTurn(answers, plan) if written else answers, asker, window=options.ahead, purpose=PURPOSE)
        insist(gathered, tally, asker, _cut(tally, options), cut_short=bool(met))
        write_alpaca(read_instances_file(instances), gathered.folder / "alpaca.json")
        known = [seed.instruction for seed in shown]
        file_name = gathered.folder / "machine_generated_instructions.jsonl"
        write_machine_instructions(known, plan.instructions, plan.request_idx, name, file_name)
        report: dict[str, Any] = {
            "method": "self-instruct",
            "teacher": name,
            **tally.to_json(),
            **({"own_inputs": answers.to_json()} if own.name else {}),
            **met,
            "seeds": len(shown),
            "seeds_skipped": list(seeds.skipped),
            "bootstraps": {"requests": plan.bootstraps, "used": plan.bootstraps_used},
            "tasks": {"written": len(plan.instructions), "answered": len(plan.kinds), "used": plan.tasks_used},
            "kinds_of_seeds": plan.trust.to_json(),
            "instructions": [
                {"instruction": text, "is_classification": plan.kinds[text]}
                for text in plan.instructions
                if text in plan.kinds
            ],
            "instructions_near_duplicate_rate": _near_duplicate_rate(plan.instructions),
            **gathered.sample.diversity(options.seed),
        }
        return gathered.result(report)
