"""What the requests that write inputs or labelled texts will take: assumed, or from the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.asking.token_estimate import likely_tokens
from potstill.datagen import writing
from potstill.datagen.magpie import query_request
from potstill.plan.steps import Size

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.teacher import Abilities
    from potstill.datagen.options import GenerationOptions
    from potstill.datagen.probe import Probe
    from potstill.task import TaskSpec

# Share of written texts that are kept, where nothing tells.
ASSUMED_KEPT = 2 / 3
A_MESSAGE = 8.0  # tokens that a chat template adds
_LOOKED_AT, _LEAST_TIMED = 32, 8


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
    tokens = sum(likely_tokens(m.content) + A_MESSAGE for request in made for m in request.messages) / len(made)
    return Size(tokens, writing.assumed_input_tokens(material), None, "assumed")


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
