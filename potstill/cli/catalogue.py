"""The commands `potstill catalogue build|info|search`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.settings import Group, Json, at_home
from potstill.errors import DataError

app = typer.Typer(
    name="catalogue", cls=Group, help="Catalogues of datasets: build, look into, search.", no_args_is_help=True,
    epilog="Example: potstill catalogue info hub.parquet",
)  # fmt: skip

_Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="CATALOGUE", help="Parquet, JSONL or folders; none means what potstill ships."),
]


@app.command(epilog="Example: potstill catalogue build hub ./my-datasets -o hub.parquet --filter language:en")
def build(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="`hub`, or JSONL, Parquet and folders.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The Parquet file to write, or to bring up to date.", callback=at_home)
    ],
    filters: Annotated[list[str] | None, typer.Option("--filter", help="A tag that the Hub filters by.")] = None,
    search: Annotated[str, typer.Option(help="Words that the Hub searches names by.")] = "",
    limit: Annotated[int | None, typer.Option(help="Take at most so many cards from the Hub.")] = None,
    full: Annotated[bool, typer.Option("--full", help="List all of the Hub again, not only what changed.")] = False,
    as_json: Json = False,
) -> None:
    """Gather cards into one file. Resumes a build that was stopped; later, adds what changed."""
    from potstill.progress import listener_for
    from potstill.retrieval.build import build_catalogue

    with listener_for(as_json=as_json) as listener:
        result = build_catalogue(
            sources, out, filters=filters or (), search=search, limit=limit, full=full, listener=listener
        )
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return
    typer.echo(f"{result.path}: {result.cards:,} cards, {result.new:,} new, {result.updated:,} changed")
    for reason, count in sorted(result.skipped.items(), key=lambda item: -item[1])[:10]:
        typer.echo(f"  {count:,} left out: {reason}")
    if result.unreachable:
        typer.echo(
            f"  {result.unreachable:,} have their data outside {result.path.parent}, where rows will not be read: "
            "write the catalogue into a folder that holds them"
        )


@app.command(epilog="Example: potstill catalogue info hub.parquet")
def info(paths: _Paths = None, as_json: Json = False) -> None:
    """What a catalogue holds: counts by licence, language and task, and what was left out."""
    from potstill.retrieval.catalogue import read_catalogue, shipped_catalogue

    found = read_catalogue(paths or [shipped_catalogue()])
    cards = found.cards
    facts: dict[str, Any] = {
        "cards": len(cards),
        "with_features": sum(bool(card.configs) for card in cards),
        "with_rows_here": sum(card.location is not None for card in cards),
        "gated": sum(card.gated for card in cards),
        "licence_unknown": sum(card.licence == "unknown" for card in cards),
        "licences": dict(Counter(card.licence for card in cards).most_common(8)),
        "languages": dict(Counter(code for card in cards for code in card.languages).most_common(8)),
        "tasks": dict(Counter(task for card in cards for task in card.tasks).most_common(8)),
        "skipped": dict(Counter(item.reason[:60] for item in found.skipped).most_common(8)),
        "digest": found.digest[:16],
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = ", ".join(f"{key} {count:,}" for key, count in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name.replace('_', ' '):<16} {shown}")


@app.command(epilog='Example: potstill catalogue search "Tell spam from wanted messages." hub.parquet')
def search(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="A task prompt or a task file.")],
    paths: _Paths = None,
    top: Annotated[int, typer.Option(help="Datasets to list.")] = 10,
    as_json: Json = False,
) -> None:
    """Rank datasets for a task, with those that its filters refuse."""
    from potstill.models import sentence_encoder
    from potstill.retrieval.catalogue import read_catalogue, shipped_catalogue
    from potstill.retrieval.options import RetrievalOptions
    from potstill.retrieval.search import find_datasets
    from potstill.settings import Settings
    from potstill.task.file import read_task_file
    from potstill.user_data import OWN_ROWS

    spec = read_task_file(prompt, draft=True, own_rows=OWN_ROWS).spec
    catalogue = read_catalogue(paths or [shipped_catalogue()])
    if not catalogue.cards:
        why = f" ({catalogue.skipped[0].where}: {catalogue.skipped[0].reason})" if catalogue.skipped else ""
        raise DataError(
            f"{', '.join(map(str, paths or ()))} holds no dataset card{why}; build one: potstill catalogue build"
        )
    ranking = find_datasets(spec, catalogue, RetrievalOptions(top=top), encoder=sentence_encoder(Settings().encoder))
    if as_json:
        typer.echo(json.dumps(ranking.to_json(), ensure_ascii=False))
        return
    for hit in ranking.hits:
        card = hit.card
        typer.echo(f"{hit.score:6.3f}  {card.id:<44} {card.licence:<18} {card.rows or '?':>9}  {card.title[:60]}")
    for item in ranking.refused:
        typer.echo(f"     –  {item.id:<44} {item.reason}")
