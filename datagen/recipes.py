"""Which recipes for inputs a task and a teacher allow, checked before anything is asked.

In: the task, the teacher, the options. Out: nothing, or an error that names every fault with its mend.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from potstill.datagen.options import GenerationOptions
from potstill.datagen.personas import read_personas
from potstill.errors import DataError, OptionError
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker


def refuse_recipes(spec: TaskSpec, asker: Asker, options: GenerationOptions) -> None:
    """Refuse recipes that cannot be followed.

    Args:
        spec: The task.
        asker: The teacher. What it can do is asked only where a recipe depends on it.
        options: How rows are to be written.

    Raises:
        OptionError: There are some; all are named.
    """
    faults = []
    if options.method == "magpie" and (fault := _no_turn(spec, asker)):
        faults.append(f"generation.method=magpie {fault}")
    if options.evolve and spec.kind == "classification":
        faults.append(
            "generation.evolve rewrites instructions and inputs, after which a text's label may be another; "
            "leave it out for classification"
        )
    elif options.evolve and len(spec.inputs) > 1:
        faults.append(
            f"generation.evolve rewrites inputs of one text, and this task's have {', '.join(spec.inputs)}; "
            "leave it out"
        )
    if options.personas_file:
        try:
            read_personas(Path(options.personas_file))
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise OptionError("generation", faults)


def _no_turn(spec: TaskSpec, asker: Asker) -> str:
    """Why a user's turn cannot be written for the task; "" where it can."""
    if spec.kind == "classification":
        return (
            "lets the teacher say what a user would, and this task's texts are written for a label each; "
            "take generation.method=auto"
        )
    if not asker.abilities.user_turn:
        return (
            f"gives the teacher raw prompts, which {asker.teacher.name} does not take (it takes chats); name a model "
            "in this process (transformers:MODEL, vllm:MODEL) or a vLLM server, or take generation.method=auto"
        )
    # A model that is not loaded yet is looked at by its tokenizer, a served one by what its server renders.
    fault = getattr(asker.teacher, "user_turn_fault", str)()
    return f"opens a user's turn, and {fault}, or take generation.method=auto" if fault else ""
