"""Rows that retrieval will find: it is done for the count, since it costs nothing but local time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.events import Event, Listener
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.settings import Settings


def found_rows(spec: TaskSpec, settings: Settings, listener: Listener) -> tuple[list[tuple[str, int]], Dataset | None]:
    """Each dataset that is used with its number of rows, and these rows; nothing where nothing is to be retrieved."""
    if not settings.retrieves:
        return [], None
    from potstill.models import sentence_encoder
    from potstill.retrieval.retrieve import retrieve_rows

    listener(Event("plan", "progress", "searching datasets"))
    result = retrieve_rows(spec, settings.retrieval, encoder=sentence_encoder(settings.encoder), listener=listener)
    used = [hit for hit in result.ranking.to_json()["hits"] if hit["status"] == "used"]
    return [(str(hit["id"]), int(str(hit["reason"]).split()[0])) for hit in used], result.rows
