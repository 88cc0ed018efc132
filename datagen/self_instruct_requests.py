"""The three requests of Self-Instruct: new instructions, whether one is classification, and its instances.

A reply that can be opened begins with what it is to go on with: the list of instructions, or worked tasks. Asked to
go on with a list or a form in the prompt, small teachers answer with one line, or as if the task were theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill import prompts
from potstill.asking.teacher import Abilities, Message, Request
from potstill.datagen.options import GenerationOptions
from potstill.datagen.personas import draw_persona
from potstill.datagen.self_instruct_files import Instance, SeedTask
from potstill.datagen.writing import rng
from potstill.language.names import LANGUAGES
from potstill.task import TaskSpec

SHOWN_SEEDS, SHOWN_WRITTEN, MOST_NEW = 6, 2, 7
# Of a reply with instances, by whether the task is classification, where `max_tokens` says nothing.
INSTANCE_TOKENS = {True: 300, False: 350}
SHOWN_OWN = 2
"""Of the seeds shown, how many at most are the user's examples."""


@dataclass(frozen=True)
class Requests:
    """Makes the requests.

    Attributes:
        spec: The task; its prompt and its first language are told.
        seeds: Tasks to show.
        own: The user's examples among them, of which some are in every list.
        options: Seed, temperatures.
        abilities: Of the teacher.
        personas: Who new instructions are from, one drawn for each request; () for nobody in particular.
    """

    spec: TaskSpec
    seeds: tuple[SeedTask, ...]
    own: tuple[SeedTask, ...]
    options: GenerationOptions
    abilities: Abilities
    personas: tuple[str, ...] = ()

    def bootstrap(self, number: int, instructions: Sequence[str]) -> Request:
        """New instructions after eight shuffled ones; `number` is that of the request, from 1."""
        random = rng(self.options.seed, number, "bootstrap")
        written = random.sample(instructions, k=min(SHOWN_WRITTEN, len(instructions)))
        own = random.sample(self.own, k=min(SHOWN_OWN, len(self.own)))
        wanted = min(len(self.seeds), SHOWN_SEEDS + SHOWN_WRITTEN - len(written) - len(own))
        shown = [*written, *(seed.instruction for seed in (*own, *random.sample(self.seeds, k=wanted)))]
        random.shuffle(shown)
        opened = self.abilities.prefill
        language = self.spec.languages[0] if self.spec.languages else "en"
        text = prompts.load("self_instruct_bootstrap").render(
            instructions=shown,
            opened=opened,
            last=len(shown) + MOST_NEW,
            persona=draw_persona(self.personas, self.options.seed, number),
            purpose=" ".join(self.spec.instruction.split()),
            language="" if language == "en" else LANGUAGES.get(language, ""),
        )
        # A list that the teacher itself seems to have begun is gone on with; asked to go on with one, small teachers
        # answer with a line or with talk.
        begun = "".join(f"{place}. {instruction}\n" for place, instruction in enumerate(shown, 1))
        return Request(
            messages=(Message("user", text),),
            prefill=f"{begun}{len(shown) + 1}." if opened else "",
            max_tokens=400,
            temperature=self.options.temperature_at(number),
            top_p=self.options.top_p,
            # At the start of a line only: "… in 2016." ends no list.
            stop=("\n\n", f"\n{len(shown) + MOST_NEW + 1}.") if opened else (),
            seed=random.randrange(2**31),
        )

    def shown_kinds(self) -> tuple[SeedTask, ...]:
        """The seeds that stand as examples in every question for the kind: a shared prefix is read once."""
        random = rng(0, 0, "classify")
        yes = [seed for seed in self.seeds if seed.is_classification]
        no = [seed for seed in self.seeds if not seed.is_classification]
        shown = random.sample(yes, k=min(4, len(yes))) + random.sample(no, k=min(6, len(no)))
        random.shuffle(shown)
        return tuple(shown)

    def classify(self, instruction: str) -> Request:
        """Whether the answers to an instruction come from a fixed set."""
        examples = self.shown_kinds()
        text = prompts.load("self_instruct_classify").render(examples=examples, instruction=instruction)
        return Request(
            messages=(Message("user", text),),
            max_tokens=4,
            temperature=0.0,
            choices=("Yes", "No") if self.abilities.choices else None,
        )

    def instances(self, instruction: str, is_classification: bool) -> Request:
        """Instances: label by label for classification, an input and its output otherwise."""
        random = rng(self.options.seed, 0, f"instances {instruction}")
        alike = [seed for seed in self.seeds if seed.is_classification == is_classification] or list(self.seeds)
        shown = random.sample(alike, k=min(3, len(alike)))
        name, first = ("output_first", "Class label:") if is_classification else ("input_first", "Input:")
        opened = self.abilities.prefill
        # One instance of an open task is shown, and all labels of a classification.
        examples = [
            {"instruction": seed.instruction, "instances": seed.instances}
            if is_classification
            else {"instruction": seed.instruction, "input": item.input, "output": item.output}
            for seed in shown
            for item in seed.instances[:1]
        ]
        text = prompts.load(f"self_instruct_{name}").render(examples=examples, instruction=instruction, opened=opened)
        begun = "".join(_worked(seed, is_classification) for seed in shown)
        return Request(
            messages=(Message("user", text),),
            prefill=f"{begun}Task: {instruction}\n{first}" if opened else "",
            max_tokens=self.options.max_tokens or INSTANCE_TOKENS[is_classification],
            temperature=self.options.answer_temperature,
            stop=("\nTask:",),
            seed=random.randrange(2**31),
        )


def _worked(seed: SeedTask, classification: bool) -> str:
    """A seed with its instances, in the form that a reply has."""
    lines = [f"Task: {seed.instruction}"]
    for item in seed.instances if classification else seed.instances[:1]:
        given = f"Input: {item.input or 'none'}"
        lines += [f"Class label: {item.output}", given] if classification else [given, f"Output: {item.output}"]
    return "\n".join(lines) + "\n\n"


def own_seeds(spec: TaskSpec) -> tuple[SeedTask, ...]:
    """The user's examples as seeds: an instruction, and behind an empty line its input."""
    made = []
    for number, example in enumerate(spec.examples):
        instruction, _, given = example.input.strip().partition("\n\n")
        if instruction and example.output.strip():
            made.append(SeedTask(instruction, (Instance(given.strip(), example.output),), False, f"example_{number}"))
    return tuple(made)
