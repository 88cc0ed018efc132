"""One dataset → rows of the task, or the reason why it is left out.

Its columns are chosen, its labels mapped, its rows taken as they are. Where that does not fit, `retrieval.transform`
says what may be tried: `mechanical` lays the columns out anew, `teacher` has the teacher plan and rewrite
(`potstill.retrieval.transform`). A dataset whose licence forbids changed copies is only ever used as it is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError, PotstillError
from potstill.licences import merged_terms
from potstill.retrieval.cards import Card, Config, class_names
from potstill.retrieval.columns import ColumnChoice, choose_columns
from potstill.retrieval.configs import SeveralConfigsError, choose_config, train_split
from potstill.retrieval.instruction_sets import instruction_columns, unfolded_chats
from potstill.retrieval.labels import LabelMap, map_labels
from potstill.retrieval.load import read_sample, splits_of
from potstill.retrieval.mapping import ColumnMapping
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.row_texts import as_input, as_reference, as_text, class_names_of, holds_references
from potstill.retrieval.sampling import Sample
from potstill.retrieval.transform import Plan, TransformResult, map_rows, plan_dataset, rewrite_rows
from potstill.rows import Dropped, Row, Source, join_fields, join_instruction
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker
    from potstill.models import TextEncoder

_MOST_WORDS = 1500
_MOST_LABELS = 1000
_TRIED = 40


class LeftOutError(Exception):
    """A dataset does not fit; the text is the reason."""


@dataclass(frozen=True)
class Adapted:
    """What one dataset gave: rows, refused rows, and what the report says of it."""

    rows: list[Row]
    dropped: list[Dropped]
    note: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Open:
    """A dataset with a sample of its rows as texts."""

    card: Card
    config: str | None
    split: str
    sample: Sample
    table: Dataset
    texts: list[dict[str, str]]

    def source(self, place: int, teacher: str | None = None, request: str | None = None) -> Source:
        return Source(
            self.card.id, self.config, self.split, self.sample.rows[place], teacher, (request,) if request else ()
        )


def adapt_dataset(
    spec: TaskSpec, card: Card, options: RetrievalOptions, encoder: TextEncoder, asker: Asker | None
) -> Adapted:
    """Rows of one dataset.

    Args:
        spec: The task.
        card: The dataset.
        options: How many rows, and what may be done with them.
        encoder: Sentence encoder, for labels.
        asker: The teacher, for what rules cannot decide.

    Raises:
        LeftOutError: It does not fit.
        DataError: It cannot be read.
    """
    if 0 < card.rows < options.min_rows:
        raise LeftOutError(f"it has {card.rows} rows, fewer than {options.min_rows} (retrieval.min_rows)")
    opened = _opened(spec, card, options)
    if spec.kind == "instructions":
        choice = instruction_columns(opened.table)
    else:
        declared = [entry for entry in card.train_eval_index if _of_config(entry, opened.config)]
        choice = choose_columns(opened.table, spec, eval_index=declared, asker=asker, title=card.title)
    try:
        return _as_it_is(spec, opened, choice, options, encoder, asker)
    except LeftOutError as error:
        if options.transform == "off" or not opened.texts:
            raise
        if merged_terms([card.licence]).no_derivatives:
            raise LeftOutError(f"{error}; its licence {card.licence} forbids changed copies") from None
        mapping = _laid_out(spec, choice)
        if mapping is not None:
            result = map_rows(spec, mapping, opened.texts)
            if result.rows:
                return _transformed(spec, opened, result, {"by": "columns", "mapping": mapping.to_json()})
        if options.transform != "teacher" or asker is None:
            raise
        return _by_teacher(spec, opened, options, asker, str(error))


def _opened(spec: TaskSpec, card: Card, options: RetrievalOptions) -> _Open:
    if card.location is None and not options.hub:
        raise DataError("its rows are on the Hub, which is switched off (retrieval.hub)")
    config = choose_config(card, spec)
    split = _split(card, config)
    whole = card.location is not None and Path(card.location).is_file()  # a single file, whatever its card says
    limit = 20 * options.rows_per_dataset
    place = card.location or next((pin for pin in options.pins if pin.partition("@")[0] == card.id), card.id)
    # Several times the rows wanted: labels are balanced by sampling, not by the order of the file.
    try:
        sample = read_sample(
            place, split=None if whole else split, config=None if whole else config, limit=limit, training=True
        )
    except SeveralConfigsError as error:  # which only the Hub could say: the card lists none
        card = replace(card, configs={name: Config() for name in error.names})
        config = choose_config(card, spec)
        sample = read_sample(place, split=split, config=config, limit=limit, training=True)
    try:
        table = _with_class_names(sample.table, card, config)
        if spec.kind == "instructions":
            table = unfolded_chats(table)
        names = {name: class_names_of(feature) for name, feature in table.features.items()}
        texts = [{name: as_text(value, names[name]) for name, value in item.items()} for item in table]
    except PotstillError:
        raise
    except Exception as error:  # what strangers' values do when they are read cannot be foreseen, and ends no run
        raise DataError(f"its rows cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
    return _Open(card, config, split or sample.split or "train", sample, table, texts)


def _as_it_is(
    spec: TaskSpec,
    opened: _Open,
    choice: ColumnChoice,
    options: RetrievalOptions,
    encoder: TextEncoder,
    asker: Asker | None,
) -> Adapted:
    """Rows with their columns as input and output, labels mapped."""
    if choice.output is None:
        raise LeftOutError(choice.how)
    if len(spec.inputs) > 1 and len(choice.inputs) != len(spec.inputs):
        raise LeftOutError(f"the task reads {' + '.join(spec.inputs)}, this has {' + '.join(choice.inputs)}")
    own = spec.kind == "instructions"
    if len(spec.inputs) <= 1 and len(choice.inputs) > 1 and not own:
        raise LeftOutError(f"the task reads one text, this has {' + '.join(choice.inputs)}")
    # The student knows the task's names of the fields, not the dataset's.
    fields = dict(zip(choice.inputs, spec.inputs if len(spec.inputs) > 1 else choice.inputs))
    answers = [row[choice.output] for row in opened.texts]
    if holds_references(spec, choice.output):
        names = class_names_of(opened.table.features[choice.output])
        answers = [as_reference(value, names) for value in opened.table[choice.output]]
    read = {name: class_names_of(opened.table.features[name]) for name in choice.inputs}
    heard = [{name: as_input(row[name], names) for name, names in read.items()} for row in opened.table]
    items = [
        (
            join_instruction(*row.values()) if own else join_fields({fields[name]: text for name, text in row.items()}),
            said,
        )
        for row, said in zip(heard, answers, strict=True)
    ]
    tells = options.transform == "teacher" and asker is not None and asker.abilities.json_schema
    mapping = _labels(spec, items, encoder, choice.output, asker, tells) if spec.labels else None
    unclear = _unclear(spec, items, mapping, options, asker) if tells and mapping and asker is not None else {}
    rows: list[Row] = []
    dropped: list[Dropped] = []
    for place, (text, answer) in enumerate(items):
        label = mapping.target.get(answer) if mapping else None
        source = opened.source(place)
        if place in unclear and asker is not None:
            label, request = unclear[place]
            source = opened.source(place, asker.teacher.name, request)
        reason = _fault(text, answer, mapping is not None and label is None)
        if reason == "label_unmapped" and mapping is not None and answer in mapping.several:
            reason = "label_ambiguous"
        if reason:
            dropped.append(Dropped(reason, answer[:80], text[:500], answer[:500], "retrieved", source, "retrieval"))
            continue
        output = label if label is not None else answer.strip()
        rows.append(Row(text.strip(), output, "retrieved", source, label=label, licence=opened.card.licence))
    if not rows:
        raise LeftOutError(f"none of its {len(items)} rows could be used")
    note = {
        "config": opened.config,
        "split": opened.split,
        "commit": opened.sample.commit,
        "inputs": list(choice.inputs),
        "output": choice.output,
        "how": choice.how,
        "licence": opened.card.licence,
        "labels": None if mapping is None else dict(mapping.target),
        "labels_by": None if mapping is None else dict(mapping.how),
        "labels_several": None if mapping is None else {k: list(v) for k, v in mapping.several.items()},
        "rows_read": len(items),
    }
    return Adapted(rows, dropped, note)


def _unclear(
    spec: TaskSpec, items: Sequence[tuple[str, str]], mapping: LabelMap, options: RetrievalOptions, asker: Asker
) -> dict[int, tuple[str, str | None]]:
    """Labels of rows whose foreign label may mean several of ours: the teacher tells them apart, text by text."""
    places = [place for place, (_, answer) in enumerate(items) if answer in mapping.several]
    found: dict[int, tuple[str, str | None]] = {}
    for foreign, labels in mapping.several.items():
        mine = [place for place in places if items[place][1] == foreign]
        steps = f"Keep the text. Its label there is {foreign!r}, which means {' or '.join(labels)} here: say which."
        rows = [{"text": items[place][0], "label": foreign} for place in mine]
        # Only the label is taken from the answer, so its text needs no fields.
        result = rewrite_rows(replace(spec, inputs=()), Plan(None, steps), rows, asker, most=options.rows_per_dataset)
        found.update({mine[row.place]: (row.output, row.request) for row in result.rows if row.output in labels})
    return found


def _laid_out(spec: TaskSpec, choice: ColumnChoice) -> ColumnMapping | None:
    """A mapping without a teacher: several columns as the one text that the task reads."""
    if choice.output is None or len(spec.inputs) > 1 or len(choice.inputs) < 2 or spec.labels:
        return None
    return ColumnMapping("\n\n".join(f"{{{name}}}" for name in choice.inputs), f"{{{choice.output}}}")


def _by_teacher(spec: TaskSpec, opened: _Open, options: RetrievalOptions, asker: Asker, why: str) -> Adapted:
    """The teacher's plan, run as a mapping or row by row."""
    # The same rows whatever their order in the file.
    order = random.Random(options.seed).sample(range(len(opened.texts)), len(opened.texts))
    rows = [opened.texts[place] for place in order]
    plan, reason = plan_dataset(spec, rows, asker)
    if plan is None:
        raise LeftOutError(f"{why}; {reason}")
    note: dict[str, Any] = {"by": "teacher's plan", "instead_of": why}
    result = TransformResult((), dropped="no mapping")
    if plan.mapping is not None:
        note["mapping"] = plan.mapping.to_json()
        # A plan is tried on some rows before all are run: a wrong one fails at once.
        if map_rows(spec, plan.mapping, rows[:_TRIED]).rows:
            result = map_rows(spec, plan.mapping, rows)
    if not result.rows and plan.steps:
        note |= {"by": "teacher, row by row", "steps": plan.steps[:500]}
        result = rewrite_rows(spec, plan, rows, asker, most=options.rows_per_dataset)
    if not result.rows:
        raise LeftOutError(f"{why}; the teacher's plan was given up: {result.dropped or 'no row came of it'}")
    return _transformed(spec, opened, result, note, order, asker.teacher.name)


def _transformed(
    spec: TaskSpec,
    opened: _Open,
    result: TransformResult,
    how: Mapping[str, Any],
    order: Sequence[int] | None = None,
    teacher: str | None = None,
) -> Adapted:
    rows = []
    for item in result.rows:
        place = order[item.place] if order is not None else item.place
        source = opened.source(place, teacher if item.request else None, item.request)
        label = item.output if spec.labels else None
        rows.append(Row(item.input, item.output, "retrieved", source, label=label, licence=opened.card.licence))
    note = {
        "config": opened.config,
        "split": opened.split,
        "commit": opened.sample.commit,
        "how": "transformed",
        "licence": opened.card.licence,
        "labels": None,
        "rows_read": result.tried,
        "transform": {**how, "failed": dict(result.failed)},
    }
    return Adapted(rows, [], note)


def _split(card: Card, config: str | None) -> str | None:
    """The split that feeds training, as the files or the card say; None where neither lists any."""
    place = Path(card.location) if card.location else None
    if place is not None and place.is_dir():
        names = list(splits_of(place, config))
    else:
        names = list(card.configs[config].splits) if config is not None and place is None else []
    split = train_split(names)
    if names and split is None:
        raise LeftOutError(f"it has only {', '.join(names)}, and a split for testing never feeds training")
    return split


def _of_config(entry: Mapping[str, Any], config: str | None) -> bool:
    """Whether an entry of a card's `train_eval_index` speaks of the configuration that was chosen."""
    named = entry.get("config") if isinstance(entry, Mapping) else None
    return named is None or config in (None, str(named))


def _with_class_names(table: Dataset, card: Card, config: str | None) -> Dataset:
    """Give integer columns the class names that only the card states (JSON lines and CSV carry none)."""
    import pyarrow as pa
    from datasets import ClassLabel

    for column, kind in card.configs[config].features.items() if config is not None else ():
        names = class_names(kind)
        feature = table.features.get(column)
        if not names or feature is None or isinstance(feature, ClassLabel):
            continue
        try:
            numbers = [int(value) for value in table.unique(column) if value is not None]
            if all(-1 <= number < len(names) for number in numbers):  # -1 stands for no label
                table = table.cast_column(column, ClassLabel(names=names))
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException):
            continue  # the values are no class integers; the rules look at them as they are
    return table


def _labels(
    spec: TaskSpec,
    items: Sequence[tuple[str, str]],
    encoder: TextEncoder,
    column: str,
    asker: Asker | None,
    tells: bool,
) -> LabelMap:
    """The map of a dataset's labels; `tells` says that the teacher will tell ambiguous ones apart."""
    texts: dict[str, list[str]] = {}
    for text, answer in items:
        if answer:
            texts.setdefault(answer, []).append(text)
    if len(texts) > _MOST_LABELS:
        raise LeftOutError(f"its output column has {len(texts)} different values, too many for labels")
    mapping = map_labels(texts, spec, encoder, column=column, asker=asker)
    need = min(2, len(spec.labels))
    reach = {*mapping.covered, *(label for labels in mapping.several.values() for label in labels if tells)}
    if len(reach) < need:
        shown = ", ".join(sorted(texts)[:6])
        raise LeftOutError(f"its labels ({shown}) cover {len(reach)} of the task's labels, at least {need} needed")
    return mapping


def _fault(text: str, answer: str, unmapped: bool) -> str:
    if not text.strip():
        return "empty_input"
    if not answer.strip():
        return "empty_output"
    if unmapped:
        return "label_unmapped"
    if len(text.split()) > _MOST_WORDS:
        return "too_long"
    return ""
