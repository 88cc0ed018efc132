"""Self-Instruct, whole: from seed tasks to new instructions with instances (Wang et al., arXiv:2212.10560 §2.2).

Three requests an instruction, in one stream without a barrier: a few new instructions are written after eight shuffled
ones (six seeds and two written ones, or eight seeds at first; seven new at most); each new one is asked for being
classification; then its instances are written, label-first for classification and input-first otherwise. Before all
that the teacher is asked for the kind of seeds, and believed by its answers (see `self_instruct_trust`). A new
instruction whose ROUGE-L F1 with any seed or kept instruction is above 0.7 is refused, exactly (see `novelty`). One
that brought a row may be evolved in rounds (`evolve`); what it becomes is a new instruction too.

The rows are held to the same bound on what the student reads, the instruction with its input: of the instances of one
instruction whose inputs are short, one stays, and for classification it is drawn, so that the label that teachers write
first does not win. The user's examples are seeds too, and the task's prompt says what the tasks are for.

Where another teacher answers (`generation.output_teacher`), each instance's output is written anew by it, as the
student will be asked: with a stronger one, students trained on the paper's own instances gained ten points.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from potstill.asking.teacher import Abilities, Failure, Reply, Request
from potstill.datagen import filters
from potstill.datagen.answering import Accepted, Answering, FormCheck
from potstill.datagen.asked_form import asked_form
from potstill.datagen.evolve import Chain, Evolution, refuse_answer
from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.options import GenerationOptions
from potstill.datagen.parse import lacks_end
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.datagen.screen import held_languages
from potstill.datagen.self_instruct_files import Instance, Instructed, SeedTask
from potstill.datagen.self_instruct_requests import MOST_NEW, Requests, own_seeds
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
from potstill.rows import Dropped, Row, Source, join_instruction
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.asking.stream import Answer

# A shorter text may stand in a prompt and in a reply by chance.
_FEWEST_ECHOED_WORDS = 4
_STEPS = Literal["seed", "bootstrap", "classify", "instances", "answer", "evolve"]


@dataclass(frozen=True)
class NewTask:
    """A kept instruction on its way to instances."""

    instruction: str
    keys: tuple[str, ...]
    is_classification: bool = False
    came_of: Chain | None = None


@dataclass(frozen=True)
class Unanswered:
    """An instance whose output another teacher is to write."""

    accepted: Accepted
    task: NewTask
    input: str


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
        personas: Who new instructions are from.
        heard: Called with each instruction, the reply with its instances as it came, and what is known of that reply.
        answerer: The way to another teacher that writes the outputs; None where those of the instances are kept.

    Attributes:
        evolution: What became of instructions with a row that were taken up again.
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
        keep: Callable[[Row, Reply | None], None],
        drop: Callable[[Dropped], None],
        tell: Callable[[Instructed], None] | None = None,
        personas: tuple[str, ...] = (),
        heard: Callable[[str, str, Mapping[str, Any]], None] | None = None,
        answerer: Asker | None = None,
    ):
        self._spec = spec
        self._languages = held_languages(spec, abilities.prefill)
        self._tell, self._heard = tell, heard
        self._requests = Requests(spec, seeds, own_seeds(spec), options, abilities, personas)
        self._options = options
        self._teacher = teacher
        self._keep_row, self._drop_row = keep, drop
        shown = (*seeds, *self._requests.own)
        self._shown = NoveltyFilter(options.novelty, texts=(seed.instruction for seed in shown))
        self._written, self._row_texts = _pool(options), _pool(options)
        texts = (text for seed in shown for item in seed.instances for text in (item.input, item.output))
        self._echoes = {squeezed(text) for text in texts if len(text.split()) >= _FEWEST_ECHOED_WORDS}
        self._pending: deque[tuple[_STEPS, Request, NewTask | SeedTask | Unanswered | Chain | None]] = deque()
        self.evolution = Evolution(spec, options, abilities)
        self._answering: Answering | None = None
        self._answers_by = teacher if answerer is None else answerer.teacher.name
        if answerer is not None:
            self._answering = Answering(
                spec, options, answerer.abilities, tally, self._keep_answered, drop, FormCheck(spec),
                licence=options.licence,
            )  # fmt: skip
        self._to_answer: deque[Unanswered] = deque()
        # Outputs that another teacher has still to write, by instruction; and those that brought a row by it.
        self._open: Counter[str] = Counter()
        self._used: set[str] = set()
        self._newest = ""
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
        further = self._to_classify or self.evolution.waiting
        more = self._to_answer or self._to_write or (further and self._classified < most)
        return not (self._pending or more) and (self._bootstraps >= most or self._classified >= most)

    def next_request(self) -> Request | None:
        """The kind of a seed, else what comes next of a task that is on its way, else new instructions.

        Of the tasks those go first that are furthest: an output, instances of a classified one, the class of a new one.
        None while what is under way will bring the rows, as far as the answers so far tell.
        """
        if self._seeds:
            seed = self._seeds.popleft()
            return self._issue("seed", self._requests.classify(seed.instruction), seed)
        if self._to_answer and self._answering is not None:
            instance = self._to_answer.popleft()
            return self._issue("answer", self._answering.request(instance.accepted), instance)
        most = self._options.max_requests
        rows_a_task = (self.kept + 3) / (len(self.kinds) + 3)

        def enough(tasks: float) -> bool:
            coming = self._under_way["answer"] + rows_a_task * tasks
            return bool(self._pending) and self.kept + coming >= self._options.rows

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
        evolution, under_way = self.evolution, self._under_way
        tasks: float = under_way["instances"] + under_way["classify"]
        if evolution.waiting and not enough(tasks + evolution.in_flight):
            request, chain = evolution.next_request()
            return self._issue("evolve", request, chain)
        if self._bootstraps >= most:
            return None
        new_a_reply = min((len(self.instructions) + 3) / (self.bootstraps + 1), MOST_NEW)
        tasks += new_a_reply * under_way["bootstrap"]
        if enough(tasks * (1 + evolution.a_text) + evolution.expected):
            return None
        self._bootstraps += 1
        return self._issue("bootstrap", self._requests.bootstrap(self._bootstraps, self.instructions), None)

    def _issue(self, step: _STEPS, request: Request, task: NewTask | SeedTask | Unanswered | Chain | None) -> Request:
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
                self._fail(task, reply, answer.key)
            return
        self.tally.prompt_tokens += reply.prompt_tokens
        self.tally.completion_tokens += reply.completion_tokens
        if isinstance(task, SeedTask):
            self.trust.add(task, is_yes(reply.text))
        elif isinstance(task, Chain):
            self._accept_evolved(task, request, reply, answer.key)
        elif isinstance(task, Unanswered):
            self._accept_answer(task, reply, answer.key)
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
        for text in split_instructions(number + reply.text, MOST_NEW, lacks_end(reply)):
            fault = self._fault_of(text)
            if fault is not None:
                self.tally.texts += 1
                self._refuse(fault, (key,))
                continue
            self._take(NewTask(text, (key,)))
        self.bootstraps_used += len(self.instructions) > before

    def _fault_of(self, text: str) -> Dropped | None:
        return (
            refuse_instruction(text)
            or filters.wrong_language(text, self._languages)
            or filters.near_duplicate(text, self._shown)
            or filters.near_duplicate(text, self._written)
        )

    def _take(self, task: NewTask) -> None:
        """Keep an instruction, and have its instances written."""
        self._written.add(task.instruction)
        self.instructions.append(task.instruction)
        self.request_idx.append(self.bootstraps - 1)
        self._to_classify.append(task)

    def _accept_evolved(self, chain: Chain, request: Request, reply: Reply, key: str) -> None:
        written = self.evolution.read(chain, request, reply)
        fault = Dropped(written.fault, written.detail, written.text) if written.fault else self._fault_of(written.text)
        keys = (*chain.keys, key)
        if fault is not None:
            self.tally.texts += 1
            self._refuse(fault, keys)
            self.evolution.eliminate(chain, fault.reason)
            return
        self.evolution.passed()
        self._take(NewTask(written.text, keys, came_of=chain))

    def _accept_instances(self, task: NewTask, request: Request, reply: Reply, key: str) -> None:
        self.kinds[task.instruction] = task.is_classification
        keys = (*task.keys, key)
        cut = lacks_end(reply)
        opening = request.prefill.rpartition("\n")[2]
        if self._heard is not None:
            told = {"is_classification": task.is_classification, "finish": reply.finish, "request": key}
            self._heard(task.instruction, opening + reply.text, {"teacher": self._teacher, **told})
        found = read_instances(opening + reply.text, task.is_classification, cut)
        self.tally.texts += max(1, len(found))
        if not found:
            reason = "refusal" if reply.finish == "refused" else "truncated" if cut else "unparsable"
            self._refuse(Dropped(reason, "no instance in the reply", task.instruction, reply.text[:500]), keys)
            self._evolve(task, keys, kept=False)
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
            if self.kept + len(self._to_answer) + self._under_way["answer"] >= self._options.rows:
                self.tally.texts -= len(kept) - number  # the last reply's surplus was not judged
                break
            self._keep(task, instance, keys)
        if self._open[task.instruction]:
            return  # whether it brings a row is known when its outputs are there
        self.tasks_used += self.kept > before
        self._evolve(task, keys, kept=self.kept > before)

    def _evolve(self, task: NewTask, keys: tuple[str, ...], *, kept: bool) -> None:
        """Take an instruction with a row up for the next round; or else what it came of."""
        if kept:
            self.evolution.add(task.instruction, keys, task.came_of)
        elif task.came_of:
            self.evolution.eliminate(task.came_of, "answer")

    def _keep(self, task: NewTask, instance: Instance, keys: tuple[str, ...]) -> None:
        text = join_instruction(task.instruction, instance.input)
        if self._answering is not None:
            if (near := filters.near_duplicate(text, self._row_texts)) is not None:
                self._refuse(near, keys)
                return
            self._row_texts.add(text)
            source = Source(teacher=self._teacher, requests=keys)
            self._to_answer.append(Unanswered(Accepted(text, source, came_of=task.came_of), task, instance.input))
            self._open[task.instruction] += 1
            return
        form = asked_form(task.instruction)
        cut = form.cut(instance.output)
        self.tally.cut_to_form += cut != instance.output
        instance = replace(instance, output=cut)
        if task.came_of and (sorry := refuse_answer(text, cut)):
            self._refuse(sorry, keys)
            return
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
        self._keep_row(row, None)
        if self._tell is not None:
            self._tell(Instructed(task.instruction, instance.input, instance.output))

    def _accept_answer(self, instance: Unanswered, reply: Reply, key: str) -> None:
        """Keep the row that the other teacher's output makes, ask it once more, or drop it."""
        assert self._answering is not None
        kept = self.kept
        again = self._answering.accept(instance.accepted, reply, self._answer_source(instance, key))
        if again is not None:
            self._to_answer.append(replace(instance, accepted=again))
            return
        if self.kept > kept and self._tell is not None:
            self._tell(Instructed(instance.task.instruction, instance.input, self._newest))
        self._end_answer(instance, kept=self.kept > kept)

    def _keep_answered(self, row: Row, reply: Reply) -> None:
        self.kept += 1
        self._newest = row.output
        self._keep_row(row, reply)

    def _answer_source(self, instance: Unanswered, key: str) -> Source:
        return Source(teacher=self._answers_by, requests=(*instance.accepted.source.requests, key))

    def _end_answer(self, instance: Unanswered, *, kept: bool) -> None:
        """An output is there, or never will be: its instruction brought a first row, or the last one that it might."""
        task, requests = instance.task, instance.accepted.source.requests
        self._open[task.instruction] -= 1
        if task.instruction in self._used:
            return
        if kept:
            self._used.add(task.instruction)
            self.tasks_used += 1
        if kept or not self._open[task.instruction]:
            self._evolve(task, requests, kept=kept)

    def _fail(self, task: NewTask | SeedTask | Unanswered | Chain | None, failure: Failure, key: str) -> None:
        """Drop what a request was for that got no reply."""
        dropped = Dropped("no_reply", failure.reason)
        if isinstance(task, Unanswered) and self._answering is not None:
            self._answering.refuse(replace(dropped, input=task.accepted.text), self._answer_source(task, key))
            self._end_answer(task, kept=False)
            return
        text = task.text if isinstance(task, Chain) else task.instruction if isinstance(task, NewTask) else ""
        self._refuse(replace(dropped, input=text), (key,))
        if isinstance(task, Chain):
            self.evolution.end(task)
        came_of = task.came_of if isinstance(task, NewTask) else task
        if isinstance(came_of, Chain):
            self.evolution.eliminate(came_of, "no_reply")

    def _refuse(self, fault: Dropped, keys: tuple[str, ...]) -> None:
        self.tally.drop(fault.reason)
        source = Source(teacher=self._teacher, requests=keys)
        self._drop_row(replace(fault, origin="generated", source=source, stage="datagen"))


def _pool(options: GenerationOptions) -> NoveltyFilter | RecentNovelty:
    if options.novelty_pool:
        return RecentNovelty(options.novelty_pool, options.novelty)
    return NoveltyFilter(options.novelty)
