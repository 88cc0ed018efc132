"""The cards of a published unit: metadata that the Hub accepts, and a page that a person can judge the data by.

What enters: the figures of a run. What leaves: the texts of the two README.md files and of LICENSE.md. The licence
is computed, never chosen: one known licence throughout is named; anything else is `other` (or `unknown`) with the
list of what went in, because merging rows does not merge their terms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill import prompts
from potstill.asking.chat import task_messages
from potstill.errors import DataError
from potstill.licences import merged_terms
from potstill.masking import public_name
from potstill.models import MINILM, SMOLLM2
from potstill.report.compression_page import chosen_entry
from potstill.report.facts import RunFacts
from potstill.rows import UNKNOWN_LICENCE
from potstill.train.card import StudentCard, read_card

#: Licence ids that the Hub knows (its documentation, "Licenses"), without the vendor-specific ones.
HUB_LICENCES = frozenset(
    {
        "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m", "bigscience-openrail-m", "bsd",
        "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5",
        "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
        "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0",
        "creativeml-openrail-m", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gemma",
        "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3",
        "llama3.1", "llama3.2", "llama3.3", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by",
        "ofl-1.1", "openrail", "openrail++", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
    }
)  # fmt: skip
_BASE_LICENCES = {MINILM: "apache-2.0", SMOLLM2: "apache-2.0"}
_SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)  # fmt: skip
_METRICS = {
    "accuracy": ("accuracy", "Accuracy"), "macro_f1": ("f1", "Macro-F1"),
    "qwk": ("cohen_kappa", "Quadratic kappa"), "mae": ("mae", "Mean distance"),
    "exact_match": ("exact_match", "Exact match"),
    "token_f1": ("f1", "Token F1"), "rouge_l": ("rouge", "ROUGE-L"), "chrf": ("chrf", "chrF"),
    "chrf++": ("chrf", "chrF++"), "bleu": ("bleu", "BLEU"),
}  # fmt: skip
_COMPETING = "is used under its vendor's terms, which forbid using its output to build models that compete with it"
# Words of a teacher's name; models of others that bear such a word (gpt-oss, TinyLlama) are none of theirs.
_TERMS = (
    (r"smollm", "is under Apache-2.0, which sets no terms on the use of its output"),
    (r"gemma", "is under the Gemma terms: a model trained on its output counts as a derivative and passes them on"),
    (
        r"(?<!tiny)(?<!open)(?<!open[-_])llama",
        "is under a Llama licence: a model trained on its output must name it and carry its licence",
    ),
    (r"gpt-(?!oss|neo|j\b)|claude|gemini|//api\.openai\.com|\.openai\.azure\.com", _COMPETING),
    (r"fake", "is a test double; its rows mean nothing"),
)


@dataclass(frozen=True)
class Licence:
    """A licence as the Hub's metadata wants it.

    Attributes:
        id: Value of `license`.
        name: Value of `license_name`, only with `other`.
        parts: The licences that went in, sorted.
        sentence: What it means, for a person.
    """

    id: str
    name: str | None
    parts: tuple[str, ...]
    sentence: str

    @property
    def metadata(self) -> dict[str, Any]:
        """The keys that belong into a card's YAML."""
        if self.id != "other":
            return {"license": self.id}
        return {"license": "other", "license_name": self.name, "license_link": "LICENSE.md"}


@dataclass(frozen=True)
class UnitInfo:
    """What both cards say besides the run's figures.

    Attributes:
        title: Name of the task.
        repo: `user/name` on the Hub, or None for a unit on disk.
        methods: How the unit was made, a sentence each.
        terms: What the teachers' terms ask, a sentence each.
        token_targets: Whether the dataset has the side table of token log-probs.
        example: An input as a Python literal, as the pipeline reads it.
        student_example: An input as a Python literal, as `load_student` reads it.
        answer_tokens: Most tokens of a student's answer that is a text.
        test_source: Where the test rows are from.
    """

    title: str
    repo: str | None
    methods: tuple[str, ...]
    terms: tuple[str, ...]
    token_targets: bool
    example: str
    student_example: str
    answer_tokens: int
    test_source: str


def merge_licences(parts: Iterable[str], what: str) -> Licence:
    """The licence of something made from parts under `parts`; `what` names it in the sentence."""
    parts = list(parts)
    licence = _merged(parts, what)
    terms = merged_terms(parts).sentence
    return replace(licence, sentence=f"{licence.sentence} {terms}") if terms else licence


def _merged(parts: Iterable[str], what: str) -> Licence:
    found = tuple(sorted({part.strip().lower() or UNKNOWN_LICENCE for part in parts}))
    listed = ", ".join(found)
    if not found or found == (UNKNOWN_LICENCE,):
        return Licence("unknown", None, found, f"No source of {what} states a licence. Check before you use it.")
    if len(found) == 1 and found[0] in HUB_LICENCES:
        return Licence(found[0], None, found, f"Everything that went into {what} is under {found[0]}.")
    known = tuple(part for part in found if part != UNKNOWN_LICENCE)
    if len(found) == 1:
        return Licence("other", _slug(found[0]), found, f"Everything that went into {what} is under {found[0]}.")
    if len(known) < len(found):
        sentence = f"Parts of {what} state no licence, others are under {', '.join(known)}"
        name = "mixed-with-unknown"
    else:
        sentence, name = f"Parts of {what} are under different licences ({listed})", "mixed"
    return Licence("other", name, found, f"{sentence}; each part keeps its own terms.")


def dataset_licence(facts: RunFacts) -> Licence:
    """The licence of the rows."""
    return merge_licences((line.licence for line in facts.sources), "this dataset")


def model_licence(facts: RunFacts) -> Licence:
    """The licence of the student: its base model's and its rows' together."""
    base = _BASE_LICENCES.get(facts.base_model_name or "", UNKNOWN_LICENCE)
    return merge_licences([base, *(line.licence for line in facts.sources)], "this model (its base and its data)")


def unit_info(facts: RunFacts, repo: str | None, *, token_targets: bool) -> UnitInfo:
    """Gather what both cards say."""
    example = facts.spec.examples[0].input if facts.spec.examples else "Some text"
    example = example[:300]
    writes = facts.spec.kind != "classification"
    prompt = task_messages(facts.spec, example)[0].content if writes else example
    return UnitInfo(
        title=facts.spec.name,
        repo=repo,
        methods=tuple(_methods(facts)),
        terms=tuple(teacher_terms(name) for name in facts.learnt_from),
        token_targets=token_targets,
        example=_literal(prompt),
        student_example=_literal(example),
        answer_tokens=_answer_tokens(facts),
        test_source=facts.test_source,
    )


def _answer_tokens(facts: RunFacts) -> int:
    try:
        return read_card(facts.student_path).max_new_tokens
    except DataError:
        return StudentCard.max_new_tokens


def dataset_card(facts: RunFacts, unit: UnitInfo) -> str:
    """README.md of the dataset."""
    from huggingface_hub import DatasetCardData

    origins = {line.origin for line in facts.sources}
    data = DatasetCardData(
        pretty_name=f"{facts.spec.name} (potstill)",
        language=list(facts.spec.languages),
        multilinguality="monolingual" if len(facts.spec.languages) == 1 else "multilingual",
        size_categories=[next((name for top, name in _SIZES if facts.rows < top), "100M<n<1B")],
        task_categories=[_task_type(facts)],
        annotations_creators=["found"] * bool(origins & {"retrieved", "user"})
        + ["machine-generated"] * bool(origins & {"generated", "pseudo"} or facts.teachers),
        tags=_tags(facts),
        configs=_configs(facts, unit),
        **dataset_licence(facts).metadata,
    )
    body = prompts.load("card_dataset").render(
        facts=facts, unit=unit, licence=dataset_licence(facts), md=md, number=number
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n"


def model_card(facts: RunFacts, unit: UnitInfo) -> str:
    """README.md of the model, with its scores as a `model-index`."""
    from huggingface_hub import ModelCardData

    student = facts.system("student")
    results = _eval_results(facts, unit, student)
    data = ModelCardData(
        language=list(facts.spec.languages),
        library_name="transformers",
        pipeline_tag=_task_type(facts),
        base_model=facts.base_model,
        datasets=[unit.repo] if unit.repo else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        # A name without results would be an empty `model-index`, which the Hub refuses.
        model_name=(unit.repo or facts.spec.name).split("/")[-1] if results else None,
        eval_results=results or None,
        tags=_tags(facts),
        **model_licence(facts).metadata,
    )
    columns = [(key, title) for key, (_, title) in _METRICS.items() if any(key in s for s in facts.systems)]
    body = prompts.load("card_model").render(
        facts=facts,
        unit=unit,
        licence=model_licence(facts),
        scores=[
            {"name": s.get("name", ""), "cells": [score_text(s, key) for key, _ in columns]} for s in facts.systems
        ],
        columns=columns,
        majority=facts.system("majority"),
        leak=leak_sentence(facts),
        compressed=_compressed(facts),
        size_mib=student.get("size_mib"),
        latency_ms=(student.get("latency_ms") or {}).get("p50"),
        md=md,
        number=number,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n"


def _compressed(facts: RunFacts) -> dict[str, Any] | None:
    """Recipe and size of the student in `compressed/`; None where there is none."""
    report = facts.reports.get("compress") or {}
    chosen = chosen_entry(report) if report.get("steps") else None
    if chosen is None or not (facts.path / "compress" / "student").exists():
        return None
    recipe = chosen["step"] if report["recipe"] == "all" else report["recipe"]
    return {"recipe": recipe, "size_mib": chosen["size_mib"]}


def licence_file(facts: RunFacts, licence: Licence, *, model: bool) -> str:
    """LICENSE.md: what each part of the dataset, or of the model, is under."""
    lines = ["# Licences of the parts", "", licence.sentence, "", "| Part | Licence | Rows |", "|---|---|---:|"]
    if model and facts.base_model_name:
        base = _BASE_LICENCES.get(facts.base_model_name, UNKNOWN_LICENCE)
        lines.append(f"| base model {md(public_name(facts.base_model_name))} | {base} | |")
    lines += [f"| {line.origin}: {md(line.name)} | {md(line.licence)} | {line.rows:,} |" for line in facts.sources]
    return "\n".join(lines) + "\n"


def teacher_terms(name: str) -> str:
    """What a teacher's terms mean for a model trained on its output."""
    for word, note in _TERMS:
        if re.search(word, name.lower()):
            return f"The teacher {name} {note}."
    return f"The teacher {name}: check what its terms say about training models on its output."


def leak_sentence(facts: RunFacts) -> str:
    """What the search for test texts among the training inputs gave; empty where it was not made."""
    if facts.leak is None:
        return ""
    rows = number(facts.leak.test_rows)
    if not facts.leak.exact and not facts.leak.ngram:
        return f"None of the {rows} texts is among the training inputs, whole or by 13 words in a row."
    return (
        f"Of the {rows} texts, {number(facts.leak.exact)} are among the training inputs and "
        f"{number(facts.leak.ngram)} share 13 words in a row with one: the scores flatter the student."
    )


def score_text(system: dict[str, Any], key: str) -> str:
    """One cell of a score table: the value, and its interval where there is one."""
    value = system.get(key)
    if not isinstance(value, (int, float)):
        return "–"
    interval = (system.get("ci") or {}).get(key)
    digits = 1 if value > 1.5 else 3
    text = f"{value:.{digits}f}"
    if isinstance(interval, (list, tuple)) and len(interval) == 2:
        text += f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    return text


def md(text: object) -> str:
    """Text of unknown origin as one line of Markdown: no tags, table bars, links, code or control characters."""
    plain = re.sub(r"\s+", " ", str(text)).strip()
    plain = "".join(c for c in plain if c.isprintable())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", plain)


def number(value: int) -> str:
    """1,234."""
    return f"{value:,}"


def _literal(text: str) -> str:
    # Three backticks would end the code block that the literal stands in.
    return json.dumps(text, ensure_ascii=False).replace("`", "\\u0060")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.\-]+", "-", text.lower()).strip("-") or "other"


def _task_type(facts: RunFacts) -> str:
    return "text-classification" if facts.spec.kind == "classification" else "text-generation"


def _tags(facts: RunFacts) -> list[str]:
    tags = ["potstill", "distillation"]
    return tags + ["synthetic"] if facts.teachers else tags


def _configs(facts: RunFacts, unit: UnitInfo) -> list[dict[str, Any]]:
    files = [{"split": name, "path": f"data/{name}.parquet"} for name in facts.splits]
    configs: list[dict[str, Any]] = [{"config_name": "default", "data_files": files, "default": True}]
    if unit.token_targets:
        table = [{"split": "train", "path": "token_targets/train.parquet"}]
        configs.append({"config_name": "token_targets", "data_files": table})
    return configs


# `user/name`, and no file: a local path stands in the facts as `local:name`, or ends as files of rows do.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w-]*/(?!.*\.(?:jsonl?|csv|tsv|parquet|arrow|ndjson|txt)$)[\w.-]+", re.IGNORECASE)


def _eval_results(facts: RunFacts, unit: UnitInfo, student: dict[str, Any]) -> Sequence[Any]:
    from huggingface_hub import EvalResult

    config, split, revision = None, "test", None
    repo, _, commit = unit.test_source.partition("@")
    if facts.test_kind == "real" and _HUB_ID.fullmatch(repo) and facts.spec.test is not None:
        dataset, name, revision = repo, f"{repo} (real test data)", commit or None
        config, split = facts.spec.test.config, facts.spec.test.split or split
    elif facts.test_kind == "real":
        dataset, name = _slug(unit.test_source.split("/")[-1]), f"{unit.test_source} (real test data)"
    else:
        dataset, name = unit.repo or _slug(facts.spec.name), "rows held out from the training data, not real test data"
    return [
        EvalResult(
            task_type=_task_type(facts),
            dataset_type=dataset,
            dataset_name=name,
            dataset_config=config,
            dataset_split=split,
            dataset_revision=revision,
            metric_type=kind,
            metric_name=title,
            metric_value=round(float(student[key]), 6),
        )
        for key, (kind, title) in _METRICS.items()
        if isinstance(student.get(key), (int, float))
    ]


def _methods(facts: RunFacts) -> Iterable[str]:
    by_origin: dict[str, int] = {}
    for line in facts.sources:
        by_origin[line.origin] = by_origin.get(line.origin, 0) + line.rows
    if rows := by_origin.get("retrieved"):
        yield f"{rows:,} rows were found: dataset cards ranked for the task, columns and labels mapped onto it."
    who = answers_by = ", ".join(facts.teachers)
    written = facts.reports.get("datagen", {})
    if by := written.get("answered_by"):
        who, answers_by = public_name(str(written["teacher"])), public_name(str(by))
    if rows := by_origin.get("generated"):
        how = "a text for each given label" if facts.spec.kind == "classification" else "inputs first, then answers"
        how = f"inputs; {answers_by} answered them" if by else how
        yield f"{rows:,} rows were written by {who} ({how}), then filtered."
    if rows := by_origin.get("pseudo"):
        if facts.spec.kind == "classification":
            yield f"{rows:,} rows are real texts with a label given by rules or a model."
        else:
            yield f"{rows:,} rows are real inputs that {answers_by} answered."
    if rows := by_origin.get("user"):
        yield f"{rows:,} rows were given by the maker of the task."
    also = ", and texts of the test data were removed" if facts.test_kind == "real" else ""
    yield f"Exact and near-duplicates were removed across sources{also}."
    if made := facts.explained:
        who = public_name(str(made["teacher"]))
        yield f"{who} gave the reasoning that leads to the output of {made['written']:,} training rows (`rationale`)."
    if facts.base_model_name:
        parts = dict(facts.manifests.get("train", {}).get("key_parts", {}))
        options = dict(parts.get("options", {}))
        weights = [f"{options[key]:g} {title}" for key, title in (("hard_weight", "hard"), ("soft_weight", "soft"))
                   if isinstance(options.get(key), (int, float))]  # fmt: skip
        how = "was distilled on these rows" + (f" (weights: {', '.join(weights)})" if weights else "")
        if judge := facts.on_policy_teacher:
            share = options["on_policy"]
            rest = "" if share == 1 else f", {share:.0%} of the batches; the others hold these rows' outputs"
            how = f"learnt what {judge} told of each token of its own answers (on policy{rest})"
        yield f"The student started from {public_name(facts.base_model_name)} and {how}."
        if facts.explained and (weight := options.get("rationale_weight")):
            yield f"It learnt that reasoning as a second task (weight {weight:g}), and answers with the output alone."
