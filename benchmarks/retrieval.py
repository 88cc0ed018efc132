"""Dataset search on DataFinder (Viswanathan et al., ACL 2023), development half.

    python benchmarks/retrieval.py [--data ../shared/data] [--systems bm25,minilm,potstill] [--small]

Each query describes a research idea; the answer is the datasets that its paper used. The collection is turned into
cards and searched by the product's own index and search, with its default options. Metrics are the paper's, over
the first five results: gold datasets that are not in the collection stay in the denominator of recall. With the
year filter, datasets newer than the paper are dropped before ranking. `popular5` answers the five most common gold
datasets to every query (it looks at the answers: no system, but a mark that a good one must pass).

Writes benchmarks/results/retrieval.json: system, query, year_filter, precision_at_5, recall_at_5, map, mrr as
fractions, each with a 95 % bootstrap interval of recall, and the number of queries.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from results_file import print_table, write_results

from potstill.models import sentence_encoder
from potstill.retrieval.cards import Card
from potstill.retrieval.catalogue import make_catalogue
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.search import open_search

SYSTEMS = {
    "bm25": RetrievalOptions(fusion_dense=0.0, mentions=0.0),
    "minilm": RetrievalOptions(fusion_dense=1.0, mentions=0.0),
    "potstill": RetrievalOptions(),
}
DEFAULT_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def read_collection(path: Path) -> tuple[list[Card], list[int | None]]:
    """Cards of the collection, and the year of each."""
    cards, years = [], []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prose = f"{row['contents']}\n{row.get('title') or ''}".strip()
            cards.append(Card(id=row["id"], title=row["name"] or row["id"], description=prose))
            years.append(row.get("year"))
    return cards, years


def metrics(found: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], first: int = 5) -> dict[str, float]:
    """Means over queries of precision, recall, average precision and reciprocal rank, over the first results.

    Args:
        found: Ids a query, best first.
        gold: Right ids a query.
        first: Results that count.
    """
    import numpy as np

    rows = []
    for ids, right in zip(found, gold):
        hits = [identifier in set(right) for identifier in ids[:first]]
        precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
        rank = hits.index(True) + 1 if True in hits else 0
        rows.append(
            (sum(hits) / first, sum(hits) / len(right), sum(precisions) / len(right), 1 / rank if rank else 0.0)
        )
    values = np.array(rows)
    draws = np.random.default_rng(0).integers(0, len(rows), (2000, len(rows)))
    low, high = np.percentile(values[:, 1][draws].mean(axis=1), (2.5, 97.5))
    means = values.mean(axis=0)
    return {
        "precision_at_5": float(means[0]),
        "recall_at_5": float(means[1]),
        "map": float(means[2]),
        "mrr": float(means[3]),
        "recall_low": float(low),
        "recall_high": float(high),
        "queries": float(len(rows)),
    }


def evaluate(
    rank: Callable[[str, Callable[[int], bool] | None], Sequence[str]],
    queries: Sequence[dict[str, Any]],
    years: Sequence[int | None],
    *,
    field: str,
    year_filter: bool,
) -> dict[str, float]:
    """Metrics of one system on the queries that have `field`."""
    found, gold = [], []
    for item in queries:
        if not item[field]:
            continue
        year = item["year"]

        def allowed(position: int, year: int | None = year) -> bool:
            made = years[position]
            return year is None or made is None or made <= year

        found.append(rank(item[field], allowed if year_filter else None))
        gold.append(item["gold"])
    return metrics(found, gold)


def main() -> None:
    """Run the systems, print the table, write the records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POTSTILL_DATA") or DEFAULT_DATA))
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--small", action="store_true", help="the older collection of 3,294; writes no records")
    given = parser.parse_args()
    folder = given.data / "datafinder"
    queries = [json.loads(line) for line in (folder / "queries_dev.jsonl").read_text("utf-8").splitlines()]
    cards, years = read_collection(folder / f"collection{'' if given.small else '_full'}.jsonl.gz")
    search = open_search(make_catalogue(cards), sentence_encoder())
    common = [name for name, _ in Counter(name for item in queries for name in item["gold"]).most_common(5)]
    records = []
    for system in [*given.systems.split(","), "popular5"]:
        for field, query in (("query", "sentence"), ("keyphrase_query", "keyphrase")):
            for year_filter in (False, True):
                if system == "popular5":
                    if year_filter:
                        continue
                    scores = metrics([common] * len(queries), [item["gold"] for item in queries])
                else:
                    options = SYSTEMS[system]

                    def rank(
                        text: str, allowed: Callable[[int], bool] | None, options: RetrievalOptions = options
                    ) -> list[str]:
                        return [cards[item.position].id for item in search.rank(text, options, allowed=allowed)[:5]]

                    scores = evaluate(rank, queries, years, field=field, year_filter=year_filter)
                records.append({"system": system, "query": query, "year_filter": year_filter, **scores})
    print_table(records)
    if not given.small:
        write_results("retrieval", records)


if __name__ == "__main__":
    main()
