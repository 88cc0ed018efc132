"""Which model a run's student starts from, where the user left the choice to potstill (`distil.student: auto`)."""

from __future__ import annotations

from dataclasses import replace

from potstill.events import Listener, silent
from potstill.settings import Settings
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions, local_teacher, student_name


def distil_options(settings: Settings, spec: TaskSpec, listener: Listener = silent) -> DistilOptions:
    """The distillation's options, with the student found by `retrieval.students` where it is `auto`.

    Raises:
        DataError: No model of the catalogue can serve, or it cannot be read.
    """
    options = settings.distil
    if options.student != "auto":
        return options
    from potstill.models import sentence_encoder
    from potstill.retrieval.students import find_students

    found = find_students(spec, settings.retrieval, encoder=sentence_encoder(settings.encoder), listener=listener)
    return replace(options, student=found.best.card.id)


def teaches_itself(settings: Settings, spec: TaskSpec) -> bool:
    """Whether a student that writes texts starts from the very model that teaches it.

    Of outputs that others wrote, such a teacher says what the student would say untaught: learning that as well holds
    it where it is. `auto`, which only a catalogue resolves, is another model.
    """
    from potstill.models import model_identity

    teacher = local_teacher(settings.answers_by)
    name = student_name(settings.distil, spec.kind)
    if spec.kind == "classification" or teacher is None or settings.distil.student == "auto":
        return False
    return name == teacher or model_identity(name) == model_identity(teacher)
