"""A task → models that could be its student, found by the search that finds datasets.

In: a `TaskSpec` and catalogues of model cards. Out: a `StudentRanking`, best first, and every model that may not serve,
with the reason: it writes where the task sorts, it is too large, its licence or language does not fit. Similarity
and downloads order the rest, as in Prompt2Model (arXiv:2308.12261 §3.2). The catalogue that ships holds the two
models that come inside packages, so that a student is found with no hub in reach.

A catalogue is JSON lines in the shape of the Hub's own listing: `id`, `pipeline_tag`, `license`, `languages` or `tags`,
`downloads`, `gated`, a `description`, and the weights as `parameters` or `safetensors: {"total": …}`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from potstill.errors import DataError
from potstill.events import Event, Listener, silent
from potstill.retrieval.cards import Card, CardFault, card_from_mapping
from potstill.retrieval.catalogue import MAX_LINE_BYTES, Skipped, make_catalogue, shipped_catalogue
from potstill.retrieval.index import Encoder
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.search import Refused, open_search, refusal, task_query
from potstill.task import TaskSpec

Architecture = Literal["encoder", "causal"]
_ARCHITECTURE: dict[str, Architecture] = {
    "sentence-similarity": "encoder",
    "feature-extraction": "encoder",
    "fill-mask": "encoder",
    "text-classification": "encoder",
    "token-classification": "encoder",
    "zero-shot-classification": "encoder",
    "text-generation": "causal",
}
_BYTES_PER_WEIGHT = 4  # students are trained and saved in 32 bits


@dataclass(frozen=True)
class Model:
    """A model that a student could start from.

    Attributes:
        card: Its card, in the form of a dataset's.
        parameters: Weights; 0 when unknown.
        architecture: What it is built as; None for what is neither an encoder nor a decoder of text.
    """

    card: Card
    parameters: int
    architecture: Architecture | None

    @property
    def size_mib(self) -> float:
        """Its weights in 32 bits."""
        return self.parameters * _BYTES_PER_WEIGHT / 2**20


@dataclass(frozen=True)
class StudentHit:
    """A model of the ranking. `score` is the cosine similarity of task and card."""

    model: Model
    score: float

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        card = self.model.card
        return {
            "id": card.id,
            "score": round(self.score, 4),
            "size_mib": round(self.model.size_mib, 1),
            "licence": card.licence,
            "languages": list(card.languages),
            "downloads": card.downloads,
        }


@dataclass(frozen=True)
class StudentRanking:
    """What was found. `hits` are best first; `skipped` are lines of a catalogue that are no model card."""

    query: str
    hits: tuple[StudentHit, ...]
    refused: tuple[Refused, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "query": self.query,
            "hits": [hit.to_json() for hit in self.hits],
            "refused": [{"id": item.id, "reason": item.reason} for item in self.refused],
        }

    def _repr_html_(self) -> str:
        """Models in order, for a notebook; refused ones below."""
        from potstill.notebook import html_table

        lines = [(h.model.card.id, h.score, f"{h.model.size_mib:,.0f} MiB", h.model.card.licence) for h in self.hits]
        shown = html_table(("model", "score", "size", "licence"), lines)
        if self.refused:
            shown += html_table(("refused", "because"), [(item.id, item.reason) for item in self.refused])
        return shown

    @property
    def best(self) -> Model:
        """The first hit.

        Raises:
            DataError: There is none; the reasons are listed.
        """
        if not self.hits:
            reasons = "; ".join(f"{item.id}: {item.reason}" for item in self.refused[:5]) or "the catalogue is empty"
            raise DataError(f"no model of the catalogue can be the student ({reasons}); name one with --student")
        return self.hits[0].model


def shipped_models() -> Path:
    """The catalogue of the two models that come inside packages."""
    return shipped_catalogue() / "models.jsonl"


def read_models(paths: Sequence[str | Path]) -> tuple[list[Model], list[Skipped]]:
    """Model cards from JSON lines, and the lines that are none with the reason; the first of an id counts.

    Raises:
        DataError: A file cannot be read, or nothing in it is a model card.
    """
    models: dict[str, Model] = {}
    skipped: list[Skipped] = []
    for path in map(Path, paths):
        before = len(models)
        try:
            with path.expanduser().open("rb") as file:
                number = 0
                while line := file.readline(MAX_LINE_BYTES):
                    number += 1
                    if not line.strip():
                        continue
                    found = _model(line)
                    if isinstance(found, Model):
                        models.setdefault(found.card.id, found)
                    else:
                        skipped.append(Skipped(f"{path.name}:{number}", found))
        except OSError as error:
            raise DataError(f"the catalogue of models {path} cannot be read ({error.strerror or error})") from None
        if len(models) == before:
            raise DataError(f"{path} holds no model card; give JSON lines with id, pipeline_tag and parameters")
    return list(models.values()), skipped


def _model(line: bytes) -> Model | str:
    try:
        raw = json.loads(line)
        if not isinstance(raw, dict):
            return f"a model card is a JSON object, not {type(raw).__name__}"
        tag = raw.get("pipeline_tag")
        kinds = [tag] if isinstance(tag, str) else []
        card = card_from_mapping({**raw, "task_categories": kinds, "num_rows": 0, "is_loader": False})
    except CardFault as fault:
        return str(fault)
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON ({str(error)[:80]})"
    assert card is not None  # only loaders give None
    weights = raw.get("safetensors")
    count = raw.get("parameters") or (weights.get("total") if isinstance(weights, dict) else 0)
    parameters = count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0
    return Model(card, parameters, _ARCHITECTURE.get(kinds[0]) if kinds else None)


def find_students(
    spec: TaskSpec, options: RetrievalOptions, *, encoder: Encoder, listener: Listener = silent
) -> StudentRanking:
    """Rank the models that could be a task's student.

    Args:
        spec: The task: its kind, languages and licences decide what may serve.
        options: `students` (catalogues), `student_mib` (largest size), `top`, and the weights of the search.
        encoder: The sentence encoder.
        listener: Hears the outcome.

    Raises:
        DataError: A catalogue cannot be read.
    """
    models, skipped = read_models(options.students or [shipped_models()])
    catalogue = make_catalogue([model.card for model in models])
    search = open_search(catalogue, encoder, listener=listener)
    reasons = {i: reason for i, model in enumerate(models) if (reason := _refusal(model, spec, options.student_mib))}
    query = task_query(spec)
    ranked = search.rank(query, options, allowed=lambda position: position not in reasons)[: options.top]
    hits = tuple(StudentHit(models[item.position], item.score) for item in ranked)
    refused = tuple(Refused(models[i].card.id, reason) for i, reason in reasons.items())
    shown = ", ".join(hit.model.card.id for hit in hits[:3]) or "none"
    listener(Event("retrieval", "note", f"students that fit: {shown}; {len(refused)} refused"))
    return StudentRanking(query, hits, refused, tuple(skipped))


def _refusal(model: Model, spec: TaskSpec, size_mib: float) -> str | None:
    wanted: Architecture = "encoder" if spec.kind == "classification" else "causal"
    if model.architecture is None:
        return "neither an encoder nor a decoder of text, as far as its card tells"
    if model.architecture != wanted:
        does = "it writes text; a classification student is an encoder"
        return does if wanted == "encoder" else "it cannot write text, as the task needs"
    if model.parameters == 0:
        return "its size is unknown"
    if model.size_mib > size_mib:
        return f"{model.size_mib:,.0f} MiB, over the limit of {size_mib:,.0f} (retrieval.student_mib)"
    return refusal(model.card, spec)
