"""What a run is refused for before it is paid for: recipes and checks that the task or a teacher does not allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from potstill.stages.job import Job


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
