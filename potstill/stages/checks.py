"""What a run is refused for before it is paid for: recipes, checks and outputs that task or teacher do not allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.settings import Settings
    from potstill.stages.job import Job
    from potstill.task import TaskSpec


def wants_outputs(spec: TaskSpec, settings: Settings) -> bool:
    """Whether a run's student learns outputs that the teacher writes for the rows' inputs."""
    return settings.distil.method != "word" and spec.kind != "classification"


def check_outputs(spec: TaskSpec, settings: Settings, asker: Asker) -> None:
    """Refuse a choice among the teacher's own outputs that it gives nothing for.

    Args:
        spec: The task.
        settings: The run's settings.
        asker: The teacher whose outputs are learnt.

    Raises:
        UserError: See `refuse_pick`.
    """
    from potstill.datagen.sequence_targets import refuse_pick

    if wants_outputs(spec, settings):
        refuse_pick(asker, settings.soft)


def check_teachers(settings: Settings, ledger: Ledger) -> None:
    """Refuse teachers in this process whose models are neither here nor to be had.

    A ledger that holds replies may answer what is left to ask, and then no model is loaded: it is left to tell.

    Raises:
        UserError: No model of that name here, and no way to the Hub; the nearest name is given.
    """
    from potstill.models import check_model
    from potstill.train.options import local_teacher

    if settings.executor != "local" or ledger.totals().replies:
        return
    for asked in (settings, settings.checking, settings.answering):
        if asked is not None and asked.given is None and (name := local_teacher(asked.teacher)):
            check_model(name)


def check_asked(job: Job) -> None:
    """Refuse ways of writing rows, and checks of written rows, that cannot be followed.

    Of rows that were written or checked already nobody is asked again: a server that is away by now is left alone.

    Raises:
        OptionError: The task or the teacher does not allow one that is asked for.
    """
    from potstill.datagen.quality import refuse_impossible
    from potstill.datagen.recipes import refuse_recipes

    settings = job.settings
    if not settings.writes:
        return
    if job.folder.finished("datagen") is None:
        refuse_recipes(job.spec, job.asker, settings.generation)
    if settings.quality.on and job.folder.finished("quality") is None:
        refuse_impossible(job.spec, job.checker or job.outputs, settings.quality, settings.soft)
