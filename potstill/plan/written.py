"""What the requests that write inputs, labelled texts or tasks will take: assumed, or from the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.asking.token_estimate import likely_tokens
from potstill.datagen import writing
from potstill.datagen.evolve import Chain, assumed_shares, evolve_request
from potstill.datagen.magpie import query_request
from potstill.datagen.self_instruct_files import read_seed_tasks
from potstill.datagen.self_instruct_requests import MOST_NEW, Requests, own_seeds
from potstill.datagen.self_instruct_trust import seeds_to_ask
from potstill.plan.steps import Size, Step, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from potstill.asking.teacher import Abilities, Request
    from potstill.datagen.options import GenerationOptions
    from potstill.datagen.probe import Probe
    from potstill.task import TaskSpec

# Share of written texts that are kept, where nothing tells.
ASSUMED_KEPT = 2 / 3
A_MESSAGE = 8.0  # tokens that a chat template adds
_LOOKED_AT, _LEAST_TIMED = 32, 8
# Self-Instruct, scratch measurements with the embedded teacher: new instructions of a request, rows of an instruction
# (0.6 and 0.28 of two tasks), and how much longer its instances are than those of the seeds.
_NEW_A_REQUEST, _ROWS_AN_INSTRUCTION, _LONGER = 4.8, 0.45, 3.0
_YES_OR_NO = 2.0


def assumed_inputs(spec: TaskSpec, options: GenerationOptions, abilities: Abilities, retrieved: Dataset | None) -> Size:
    """The size of a request for a new text: its prompt as the first ones will be, its reply as such texts are long."""
    described = {label.name: label.description for label in spec.labels}
    material = writing.Material(
        spec, options, abilities, described, {}, writing.examples_by_label(spec),
        writing.styles_by_label(spec, retrieved, options.seed),
    )  # fmt: skip
    labels = spec.label_names or ("",)
    made = [
        query_request(material, i)
        if options.method == "magpie"
        else writing.write_request(material, i, labels[i % len(labels)], [], False)
        for i in range(_LOOKED_AT)
    ]
    return Size(_read(made), writing.assumed_input_tokens(material), None, "assumed")


def _read(made: Sequence[Request]) -> float:
    """Tokens that a request is read with, the mean of some."""
    tokens = sum(likely_tokens(m.content) + A_MESSAGE for request in made for m in request.messages)
    return (tokens + sum(likely_tokens(request.prefill) for request in made)) / len(made)


def assumed_tasks(spec: TaskSpec, options: GenerationOptions, abilities: Abilities, size: Size | None = None) -> Step:
    """The requests of Self-Instruct before any was made: prompts as the first ones will be, replies as long as seeds.

    Args:
        spec: The task.
        options: Rows wanted, and rounds in which they are evolved.
        abilities: Of the teacher.
        size: What a request takes on average, where an earlier run tells it.
    """
    seeds = read_seed_tasks(spec.seed_tasks).tasks
    made = Requests(spec, seeds, own_seeds(spec), options, abilities)
    shown = seeds[:_LOOKED_AT]
    instruction = sum(likely_tokens(seed.instruction) for seed in shown) / len(shown)
    worked = sum(likely_tokens(s.instances[0].input) + likely_tokens(s.instances[0].output) + A_MESSAGE for s in shown)
    tasks = options.rows / _ROWS_AN_INSTRUCTION
    first, evolving = assumed_shares(options.evolve)
    classified = len(seeds_to_ask(seeds, made.shown_kinds())) + tasks
    parts = [
        (classified, [made.classify(seed.instruction) for seed in shown], _YES_OR_NO),
        (tasks * first / _NEW_A_REQUEST, [made.bootstrap(i, ()) for i in range(_LOOKED_AT)], MOST_NEW * instruction),
        (tasks, [made.instances(s.instruction, s.is_classification) for s in shown], _LONGER * worked / len(shown)),
        (
            options.rows * evolving,
            [evolve_request(spec, options, abilities, Chain(seed.instruction, 0)) for seed in shown],
            2 * instruction,
        ),
    ]
    step = Step("datagen", basis="assumed" if size is None else size.basis)
    for count, requests, reply in parts:
        each = size or Size(_read(requests), reply, None, "assumed")
        step = joined(step, each.times("datagen", count))
    return step


def from_probe(
    probed: Probe, spec: TaskSpec, options: GenerationOptions, abilities: Abilities, *, earlier: Size | None = None
) -> tuple[Size, float, str]:
    """What the first requests tell of all.

    Args:
        probed: The first requests.
        spec: The task.
        options: How many rows are written, and how.
        abilities: Of the teacher that writes.
        earlier: Of the requests that an earlier run in the folder made, for the time where the probe made too few.

    Returns:
        The size of a request, how many are needed, and a note; empty where there is nothing to say.
    """
    tally, note = probed.tally, ""
    requests = max(1, tally.requests)
    # As if one text more had been dropped: a handful that were all kept proves little.
    kept = max(0.5, tally.kept) / (requests + 1)
    wanted = options.rows / kept
    answers = spec.kind != "classification"
    if answers:
        # Inputs that were accepted and not yet answered when the probe ended are not lost.
        inputs = max(1.0, tally.requests - len(probed.rows))
        accepted = max(1, tally.texts - sum(tally.dropped.values()))
        wanted = options.rows * (1 + inputs / accepted)
    bound = options.max_requests * (writing.parts_of(spec, options, abilities) + answers)
    if wanted > bound:
        note = f"{kept:.0%} of the probe's texts were kept: the requests may end before the rows are there"
    speed = probed.seconds / probed.fresh if probed.fresh >= _LEAST_TIMED else earlier.seconds if earlier else None
    size = Size(tally.prompt_tokens / requests, tally.completion_tokens / requests, speed, "probe")
    return size, min(wanted, bound), note
