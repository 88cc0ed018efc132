"""Which model a run's student starts from, where the user left the choice to potstill (`distil.student: auto`)."""

from __future__ import annotations

from dataclasses import replace

from potstill.events import Listener, silent
from potstill.settings import Settings
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions


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
