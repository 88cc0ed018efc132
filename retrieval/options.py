"""Options of the retrieval stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from potstill.errors import OptionError, OptionFault
from potstill.task import REVISION


@dataclass(frozen=True)
class RetrievalOptions:
    """How datasets are searched and how much is read from them.

    Attributes:
        catalogue: Catalogues to search: JSONL (`.gz` too), Parquet, or folders of datasets. Empty means the
            small one that potstill ships.
        top: Datasets that the ranking lists; one whose rows cannot be read adds the next one, up to four times as many.
        datasets: Datasets that rows are taken from, at most.
        rows_per_dataset: Rows taken from one dataset, at most.
        min_score: Cosine similarity of prompt and card below which a dataset is never used, -1 to 1.
        min_score_generation: The same for generation tasks, where no labels check the fit: the greater of the two
            counts.
        fusion_dense: Share of the embedding in the fused score, 0 (BM25 alone) to 1 (embedding alone).
        mentions: Weight of the near cards that name a dataset; 0 turns it off.
        voters: Cards whose naming counts: the best of the fused ranking.
        popularity: Weight of how widely a dataset is known (see `fusion.standing`); 0 turns it off.
        hyde: Hypothetical cards that the teacher writes and that are searched for beside the task; 0 asks nothing.
        rerank: Best hits that the teacher orders again by how likely each makes the task; 0 asks nothing.
        rerank_weight: Weight of that likelihood beside the fused score, both scaled by their own spread.
        depth: Cards that each of the two searches brings to the fusion.
        min_rows: Rows below which a dataset is left out, where its card says how many it has.
        transform: What is tried with a dataset that does not fit as it is: `off` nothing, `mechanical` laying its
            columns out anew, `teacher` also a plan of the teacher, which maps the columns or rewrites row by row.
        rows_by: `sample` draws rows by chance, `nearest` takes those nearest to the task's examples, or to inputs
            that the teacher writes.
        students: Catalogues of model cards (JSON lines) that `distil.student: auto` chooses from. Empty means the
            two models that come inside packages.
        student_mib: Largest student to choose, in MiB of 32-bit weights.
        seed: Seed of row sampling.
        hub: Whether the Hub may be asked for rows.
        pins: Datasets of the Hub to read at a commit, tag or branch, as `user/name@revision`; others as they are now.
    """

    catalogue: tuple[str, ...] = ()
    top: int = 10
    datasets: int = 4
    rows_per_dataset: int = 500
    min_score: float = 0.25
    min_score_generation: float = 0.45
    fusion_dense: float = 0.7
    mentions: float = 2.0
    voters: int = 200
    popularity: float = 0.5
    hyde: int = 0
    rerank: int = 0
    rerank_weight: float = 0.5
    students: tuple[str, ...] = ()
    student_mib: float = 1024.0
    depth: int = 1000
    min_rows: int = 10
    transform: Literal["off", "mechanical", "teacher"] = "mechanical"
    rows_by: Literal["sample", "nearest"] = "sample"
    seed: int = 0
    hub: bool = True
    pins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least = {"top": 1, "datasets": 0, "rows_per_dataset": 1, "depth": 1, "mentions": 0, "voters": 1, "min_rows": 0}
        least |= {"popularity": 0, "hyde": 0, "rerank": 0, "rerank_weight": 0, "student_mib": 0}
        faults = [
            OptionFault(f"{name} must be at least {bound} (got {getattr(self, name)})", name)
            for name, bound in least.items()
            if not getattr(self, name) >= bound
        ]
        if not 0 <= self.fusion_dense <= 1:
            faults.append(
                OptionFault(f"fusion_dense must lie between 0 and 1 (got {self.fusion_dense})", "fusion_dense")
            )
        for name in ("min_score", "min_score_generation"):
            if not -1 <= getattr(self, name) <= 1:
                faults.append(
                    OptionFault(f"{name} is a cosine and must lie between -1 and 1 (got {getattr(self, name)})", name)
                )
        for pin in self.pins:
            name, _, revision = pin.partition("@")
            if name.count("/") != 1 or not REVISION.fullmatch(revision):
                faults.append(OptionFault(f"pins: {pin[:120]!r} is not of the form user/name@revision", "pins"))
        if faults:
            raise OptionError(
                "retrieval", [OptionFault(f"retrieval.{fault}", "retrieval", *fault.place) for fault in faults]
            )
