"""What scoring the labels of a text takes, by scoring a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from potstill.datagen.label_scores import label_scores
from potstill.plan.steps import Size

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.datagen.soft_options import SoftOptions
    from potstill.task import TaskSpec

_SCORED_IN_PROBE = 16


def probe_scores(spec: TaskSpec, texts: Sequence[str], asker: Asker, soft: SoftOptions) -> Size | None:
    """The size of a request that scores a text; None where the ledger held all that was asked.

    Args:
        spec: A classification task.
        texts: Texts like those that will be scored.
        asker: The teacher.
        soft: How scores are taken.
    """
    # Which form a run settles on is not known before its rows are: half of the texts in the longest, half in a short
    # one.
    forms = [replace(soft, form="task"), replace(soft, form="example")] if soft.form == "auto" else [soft]
    before = replace(asker.counts)
    label_scores(spec, texts[:2], asker, forms[0])
    started = replace(asker.counts)
    for place, options in enumerate(forms):
        label_scores(spec, texts[2 + place : 2 + _SCORED_IN_PROBE : len(forms)], asker, options)
    counts = asker.counts
    asked = counts.fresh - before.fresh
    timed = counts.fresh - started.fresh
    if not asked:
        return None
    seconds = (counts.seconds - started.seconds) / timed if timed else None
    return Size((counts.prompt_tokens - before.prompt_tokens) / asked, 0.0, seconds, "probe")
