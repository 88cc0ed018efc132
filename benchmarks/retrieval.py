"""Dataset search on DataFinder (Viswanathan et al., ACL 2023), development half.

    python benchmarks/retrieval.py [--data ../shared/data] [--systems bm25,…] [--teacher transformers] [--small]

Each query describes a research idea; the answer is the datasets that its paper used. The collection is turned into
cards (a collection's `variants` are the names that a dataset is known by) and searched by the product's own index
and search, with its default options; the other systems leave out or add one part each. `--teacher` adds those that
ask a teacher, on sentences with the year filter only, and beside them the product without a teacher on the same
queries. Metrics are the paper's, over
the first five results: gold datasets that are not in the collection stay in the denominator of recall. With the
year filter, datasets newer than the paper are dropped before ranking. `popular5` answers the five most common gold
datasets to every query (it looks at the answers: no system, but a mark that a good one must pass).

Writes benchmarks/results/retrieval.json: system, query, year_filter, precision_at_5, recall_at_5, map, mrr as
fractions, the 95 % bootstrap intervals of recall and of reciprocal rank, and the number of queries.
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

from results_file import print_table, read_results, write_results

from potstill.models import cache_folder, sentence_encoder
from potstill.retrieval.cards import Card
from potstill.retrieval.catalogue import make_catalogue
from potstill.retrieval.expansion import PURPOSE, hypothetical_card_requests, hypothetical_cards
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.search import CardSearch, open_search, reranked

SYSTEMS = {
    "bm25": RetrievalOptions(fusion_dense=0.0, mentions=0.0, popularity=0.0),
    "minilm": RetrievalOptions(fusion_dense=1.0, mentions=0.0, popularity=0.0),
    "bm25+minilm": RetrievalOptions(mentions=0.0, popularity=0.0),
    "bm25+minilm+mentions": RetrievalOptions(popularity=0.0),
    "bm25+minilm+popularity": RetrievalOptions(mentions=0.0),
    "potstill": RetrievalOptions(),
}
WITH_TEACHER = {
    "potstill, same queries": RetrievalOptions(),
    "potstill+hyde": RetrievalOptions(hyde=1),
    "potstill+rerank": RetrievalOptions(rerank=10),
}
DEFAULT_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def read_collection(path: Path) -> tuple[list[Card], list[int | None]]:
    """Cards of the collection, and the year of each."""
    cards, years = [], []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prose = f"{row['contents']}\n{row.get('title') or ''}".strip()
            names = tuple(name for name in row.get("variants") or () if name != row["name"])
            cards.append(Card(id=row["id"], title=row["name"] or row["id"], description=prose, known_as=names))
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
    mrr_low, mrr_high = np.percentile(values[:, 3][draws].mean(axis=1), (2.5, 97.5))
    means = values.mean(axis=0)
    return {
        "precision_at_5": float(means[0]),
        "recall_at_5": float(means[1]),
        "map": float(means[2]),
        "mrr": float(means[3]),
        "recall_low": float(low),
        "recall_high": float(high),
        "mrr_low": float(mrr_low),
        "mrr_high": float(mrr_high),
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


class Remembered:
    """The product's encoder, with the vectors of the queries made in one go."""

    def __init__(self, texts: Sequence[str]):
        self._encoder = sentence_encoder()
        self._known = dict(zip(texts, self._encoder.encode(list(texts))))

    @property
    def identity(self) -> str:
        """The encoder's own."""
        return self._encoder.identity

    def encode(self, texts: list[str]) -> Any:
        """(len(texts), dimension) float32."""
        import numpy as np

        if all(text in self._known for text in texts):
            return np.array([self._known[text] for text in texts])
        return self._encoder.encode(texts)


def with_teacher(
    name: str, search: CardSearch, queries: Sequence[dict[str, Any]], years: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Records of the systems that ask a teacher; its replies are kept in potstill's cache folder."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.teachers import open_teacher

    records = []
    teacher = open_teacher(name)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with Ledger(cache_folder() / "benchmark-retrieval.sqlite") as ledger:
        asker = Asker(teacher, ledger)
        asker.ask([request for item in queries for request in hypothetical_card_requests(item["query"], 1)], PURPOSE)
        for system, options in WITH_TEACHER.items():

            def rank(
                text: str, allowed: Callable[[int], bool] | None, options: RetrievalOptions = options
            ) -> list[str]:
                imagined = hypothetical_cards(text, options.hyde, asker) if options.hyde else []
                ranked = search.rank(text, options, allowed=allowed, imagined=imagined)
                if options.rerank:
                    ranked = reranked(text, ranked, search.cards, options, asker)
                return [search.cards[item.position].id for item in ranked[:5]]

            scores = evaluate(rank, queries, years, field="query", year_filter=True)
            records.append({"system": system, "query": "sentence", "year_filter": True, **scores})
    teacher.close()
    return records


def main() -> None:
    """Run the systems, print the table, write the records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POTSTILL_DATA") or DEFAULT_DATA))
    parser.add_argument("--systems", help=f"some of {', '.join(SYSTEMS)}")
    parser.add_argument("--teacher", help="also measure what this teacher adds, such as transformers")
    parser.add_argument("--teacher-queries", type=int, help="for the systems with a teacher, the first so many alone")
    parser.add_argument("--small", action="store_true", help="the older collection of 3,294; writes no records")
    given = parser.parse_args()
    folder = given.data / "datafinder"
    queries = [json.loads(line) for line in (folder / "queries_dev.jsonl").read_text("utf-8").splitlines()]
    cards, years = read_collection(folder / f"collection{'' if given.small else '_full'}.jsonl.gz")
    encoder = Remembered([item[field] for item in queries for field in ("query", "keyphrase_query") if item[field]])
    search = open_search(make_catalogue(cards), encoder)
    common = [name for name, _ in Counter(name for item in queries for name in item["gold"]).most_common(5)]
    records = []
    names = [name for name in (given.systems or ",".join(SYSTEMS)).split(",") if name]
    for system in names:
        for field, query in (("query", "sentence"), ("keyphrase_query", "keyphrase")):
            for year_filter in (False, True):

                def rank(
                    text: str, allowed: Callable[[int], bool] | None, options: RetrievalOptions = SYSTEMS[system]
                ) -> list[str]:
                    return [cards[item.position].id for item in search.rank(text, options, allowed=allowed)[:5]]

                scores = evaluate(rank, queries, years, field=field, year_filter=year_filter)
                records.append({"system": system, "query": query, "year_filter": year_filter, **scores})
    if given.teacher:
        records += with_teacher(given.teacher, search, queries[: given.teacher_queries], years)
    scores = metrics([common] * len(queries), [item["gold"] for item in queries])
    records.append({"system": "popular5", "query": "sentence", "year_filter": False, **scores})
    print_table(records)
    if not given.small:
        done = {record["system"] for record in records}
        records = [*records, *(old for old in read_results("retrieval") if old["system"] not in done)]
        write_results("retrieval", records)


if __name__ == "__main__":
    main()
