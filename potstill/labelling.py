"""A person labels some texts: which ones come next, and where the answers rest.

In: a classification task, texts without labels, and a file of answers that may have been begun. Out: that file, JSON
lines of `text` and `label`, which a task file takes as `labelled:`. An answer is on disk before the next text is shown,
so that the work can be left at any moment. A sheet (CSV) holds a batch for people who work elsewhere: what they fill in
is taken into the file when the sheet is read again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from potstill.datagen.choose import TextChooser
from potstill.errors import DataError, OptionError
from potstill.models import MINILM, sentence_encoder
from potstill.retrieval.label_names import LabelNames, plain_label
from potstill.retrieval.load import read_data, read_texts
from potstill.run_dir import write_atomic
from potstill.task import DataRef
from potstill.task.file import read_task_file
from potstill.user_data import OWN_ROWS

if TYPE_CHECKING:
    from potstill.models import TextEncoder
    from potstill.task import TaskSpec

BATCH = 25
# Embedding more takes minutes, and the clusters of a fair draw are those of the whole.
MOST_TEXTS = 20_000
_COLUMNS = ("id", "label", "text")
_BEGINNING = '{"text": "'
# A cell that begins so is a formula to a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# A cell of a spreadsheet holds 32,767 characters; the text itself stays whole, it is found by its id.
_MOST_SHOWN = 30_000


@dataclass(frozen=True)
class SheetResult:
    """What became of a sheet.

    Attributes:
        taken: Answers that were read from it.
        written: Texts that stand in it now, to be labelled.
    """

    taken: int
    written: int


class Labelling:
    """The labelling of one task's texts.

    Args:
        task: A task file or a prompt. Rows of its `labelled:` are known; those in another file than `out` stay there.
        texts: Where the texts are (a file, a folder, a Hub id), or the texts themselves; None takes `unlabelled:` of
            the task file.
        out: File of the answers; by default beside the task file under its name, `tickets.labelled.jsonl`.
        batch: Texts that are chosen at a time; after each batch the answers so far decide on the next. By default 25,
            or one for each label where there are more.
        encoder: Name of the sentence encoder, or one.
        seed: Decides the draw where there are more than 20,000 texts, and where clusters start.

    Attributes:
        spec: The task.
        out: The file of the answers.
        answers: Label of each text that has one, in the order in which they were given.

    Raises:
        TaskError: The task cannot be read.
        OptionError: The task has no labels, no texts were given, or `batch` is below 1.
        DataError: Texts or earlier answers cannot be read.
    """

    def __init__(
        self, task: str | Path, texts: str | Sequence[str] | None = None, *, out: Path | None = None,
        batch: int | None = None, encoder: str | TextEncoder = MINILM, seed: int = 0,
    ):  # fmt: skip
        self.spec = read_task_file(task, own_rows=OWN_ROWS).spec
        if self.spec.kind != "classification":
            kind = self.spec.kind
            raise OptionError("label", [f"a task of kind {kind} has no labels to give; take a classification task"])
        if batch is not None and batch < 1:
            raise OptionError("label", [f"batch {batch} is no number of texts; give at least 1"])
        self.batch = batch or max(BATCH, len(self.spec.labels))
        self.out = out or _place_of(str(task), self.spec)
        if self.out.suffix not in (".jsonl", ".ndjson"):
            raise OptionError("label", [f"the answers are JSON lines: {self.out} must end in .jsonl"])
        self.answers = _answers_in(self.out, self.spec)
        self._given = self._elsewhere()
        self._names = LabelNames(self.spec.label_names)
        self._texts = self._fitting(texts, seed)
        self._places = {text: place for place, text in enumerate(self._texts)}
        self._passed: set[int] = set()
        found = sentence_encoder(encoder) if isinstance(encoder, str) else encoder
        self._chooser = TextChooser(self.spec, self._texts, found, seed)

    def next_batch(self, count: int | None = None) -> list[str]:
        """Texts to label next, the most uncertain first; none when all have a label or were passed over."""
        places = self._chooser.choose(self._known(), self.batch if count is None else count, self._passed)
        return [self._texts[place] for place in places]

    def guesses(self, text: str) -> list[tuple[str, float]]:
        """Labels of a text with their probabilities as far as the answers tell, likeliest first."""
        probs = self._chooser.opinion(self._known())[self._place(text)]
        pairs = zip(self.spec.label_names, probs.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def match(self, word: str) -> list[str]:
        """Labels that a typed word may mean: the one of that number or name, else all whose name begins so."""
        names = list(self.spec.label_names)
        if (name := self._names.get(word)) is not None:
            return [name]
        if word.isdecimal():
            return [names[int(word) - 1]] if 1 <= int(word) <= len(names) else []
        start = plain_label(word)
        return [name for name in names if start and plain_label(name).startswith(start)]

    def answer(self, text: str, label: str) -> None:
        """Keep an answer: it is on disk when this returns. A second answer to a text takes the place of the first.

        Raises:
            OptionError: The label is not one of the task's, or the text not one of those that were given.
        """
        name = self._names.get(label)
        if name is None:
            known = ", ".join(self.spec.label_names)
            raise OptionError("label", [f"{label!r} is no label of the task; its labels are {known}"])
        self._place(text)
        again = self.answers.pop(text, None) is not None  # so that the latest answer stands last
        self.answers[text] = name
        if again:
            self._rewrite()
            return
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.open("a", encoding="utf-8") as file:
            file.write(_line(text, name))
            file.flush()
            os.fsync(file.fileno())

    def undo(self) -> str | None:
        """Take the last answer back, and say to which text it was; None where there is none."""
        if not self.answers:
            return None
        text, _ = self.answers.popitem()
        self._rewrite()
        return text

    def pass_over(self, text: str) -> None:
        """Do not choose a text again, for as long as this object lives."""
        self._passed.add(self._place(text))

    def exchange(self, sheet: Path, most: int | None = None) -> SheetResult:
        """Take the answers that a sheet holds, then write the next batch into it.

        Args:
            sheet: CSV of the columns id, label and text; it need not be there yet. Rows without a label are not
                taken, and may be chosen again.
            most: Texts that are to have a label in the end; the batch is smaller where fewer are left.

        Raises:
            DataError: The sheet cannot be read, or names labels that the task does not have; nothing is taken then,
                and the sheet stays as it is.
        """
        filled = self._filled(sheet) if sheet.exists() else {}
        for text, label in filled.items():
            if self.answers.get(text) != label:
                self.answer(text, label)
        count = self.batch if most is None else min(self.batch, max(most - len(self.answers), 0))
        texts = self.next_batch(count)
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for text in texts:
            writer.writerow([_id(text), "", _shown(text)])
        # The mark at the start tells spreadsheets that this is UTF-8.
        write_atomic(sheet, "\ufeff" + file.getvalue())
        return SheetResult(len(filled), len(texts))

    def told(self) -> str:
        """How many texts have a label, and which: `50 labels (billing 20, bug 17, other 13)`."""
        given = list(self.answers.values())
        counts = {name: given.count(name) for name in self.spec.label_names}
        shown = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        missing = sum(not count for count in counts.values())
        more = f"; {missing} of {len(counts)} labels have none yet" if missing and given else ""
        return f"{len(given)} label{'s' * (len(given) != 1)}{f' ({shown}{more})' if given else ''}"

    def _fitting(self, texts: str | Sequence[str] | None, seed: int) -> list[str]:
        """The texts, each once, without those of the test rows; those with an answer are always among them."""
        if texts is None and self.spec.unlabelled is None:
            fault = "no texts were given; name a file of them, or write unlabelled: FILE into the task file"
            raise OptionError("label", [fault])
        ref = (
            self.spec.unlabelled if texts is None else DataRef(texts, training=True) if isinstance(texts, str) else None
        )
        found = list(texts) if ref is None and texts is not None else read_texts(ref, self.spec) if ref else []
        if ref is not None and (broken := sum("\ufffd" in text for text in found)):
            raise DataError(f"{broken:,} of {len(found):,} texts in {ref.path} are not UTF-8; save it as UTF-8")
        found = list(dict.fromkeys(text.strip() for text in found if text.strip()))
        test = self.spec.test
        # Test rows on the Hub are kept out by the run itself; here they are not worth a download.
        if test is not None and Path(test.path).expanduser().exists():
            tested = {text.strip() for text in read_data(test, self.spec)["input"][:]}
            found = [text for text in found if text not in tested]
        if not found:
            raise DataError(
                "no text is left to label: there is none, or all stand among the task's test rows; give others"
            )
        if len(found) > MOST_TEXTS:
            drawn = sorted(Random(seed).sample(range(len(found)), MOST_TEXTS))
            found = [found[place] for place in drawn]
        return list(dict.fromkeys([*found, *self.answers, *self._given]))

    def _elsewhere(self) -> dict[str, str]:
        """Text → label of the task's labelled rows that rest in another file: they are known, and not asked again."""
        ref = self.spec.labelled
        path = Path(ref.path).expanduser() if ref is not None else None
        if ref is None or path is None or not path.exists() or path.resolve() == self.out.resolve():
            return {}
        rows = read_data(ref, self.spec)
        return {text.strip(): label for text, label in zip(rows["input"][:], rows["output"][:], strict=True)}

    def _known(self) -> dict[int, int]:
        index = {name: place for place, name in enumerate(self.spec.label_names)}
        return {self._places[text]: index[label] for text, label in {**self._given, **self.answers}.items()}

    def _place(self, text: str) -> int:
        place = self._places.get(text)
        if place is None:
            raise OptionError("label", [f"{text[:60]!r} is not among the texts; answer one that next_batch() gave"])
        return place

    def _rewrite(self) -> None:
        write_atomic(self.out, "".join(_line(text, label) for text, label in self.answers.items()))

    def _filled(self, sheet: Path) -> dict[str, str]:
        """Text → label of the rows of a sheet that were filled in."""
        known = {name: text for text in self._texts for name in (_id(text), _earlier_id(text))}
        by_text = _unique({text: _words(_shown(text)) for text in self._texts})
        try:
            # Spreadsheets of some countries write semicolons.
            content = sheet.read_text("utf-8-sig")
            head = content.split("\n", 1)[0]
            comma = ";" if head.count(";") > head.count(",") else ","
            named = [name.strip() for name in next(csv.reader([head.strip()], delimiter=comma), [])]
            rows = list(csv.DictReader(io.StringIO(content.partition("\n")[2]), named, delimiter=comma))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"the sheet {sheet} cannot be read ({error}); save it as CSV in UTF-8") from None
        found, faults = {}, []
        if not {"id", "label"} <= set(named):
            faults.append(f"its first line, {head.strip()[:60]!r}, names no columns id and label; give another file")
        for number, row in enumerate(rows, 2):
            label, name = (row.get("label") or "").strip(), (row.get("id") or "").strip()
            if not label:
                continue
            # A spreadsheet turns an earlier id into a number where it looks like one; its text is still beside it.
            text = known.get(name) or by_text.get(_words(row.get("text") or ""))
            if text is None:
                faults.append(f"row {number}: {name!r} is no id of a text of this task")
            elif (whole := self._names.get(label)) is None:
                faults.append(f"row {number}: {label!r} is no label; the labels are {', '.join(self.spec.label_names)}")
            else:
                found[text] = whole
        if faults:
            more = f"\n  and {len(faults) - 8} more" if len(faults) > 8 else ""
            raise DataError(f"the sheet {sheet} was not taken:\n  " + "\n  ".join(faults[:8]) + more)
        return found


def _place_of(task: str, spec: TaskSpec) -> Path:
    path = Path(task) if "\n" not in task and len(task) < 1000 else None
    if path is not None and path.suffix == ".md" and path.is_file():
        return path.with_suffix(".labelled.jsonl")
    return Path(f"{spec.name}.labelled.jsonl")


def _answers_in(path: Path, spec: TaskSpec) -> dict[str, str]:
    """Answers of an earlier time.

    Raises:
        DataError: The file holds something else, or labels of another task.
    """
    if not path.exists():
        return {}
    names = set(spec.label_names)
    found: dict[str, str] = {}
    try:
        *whole, last = path.read_bytes().split(b"\n")
        # The last line may be torn within a letter.
        lines = [*(line.decode("utf-8") for line in whole), last.decode("utf-8", "ignore")]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); give another file with --out") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(line)
        # Only the last line can be torn, by a power loss, and what it holds is the beginning of an answer.
        if row is None and number == len(lines) and _BEGINNING.startswith(line[: len(_BEGINNING)]):
            break
        text, label = (row or {}).get("text"), (row or {}).get("label")
        if not isinstance(text, str) or not isinstance(label, str):
            raise DataError(f"{path}, line {number} is no answer of text and label; give another file with --out")
        if label not in names:
            known = ", ".join(spec.label_names)
            raise DataError(f"{path}, line {number}: {label!r} is no label of this task, whose labels are {known}")
        found[text] = label
    if lines[-1]:  # the next answer would continue this line
        write_atomic(path, "".join(_line(text, label) for text, label in found.items()))
    return found


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _line(text: str, label: str) -> str:
    return json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n"


def _id(text: str) -> str:
    # The letter keeps spreadsheets from reading a number: 065555776228 would lose its 0, 6942964533e0 its letter.
    return "t" + _earlier_id(text)[:11]


def _earlier_id(text: str) -> str:
    """An id of 12 hexadecimal digits, as in sheets that may still be with somebody."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _shown(text: str) -> str:
    """A text as a cell holds it."""
    shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} …"
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _words(cell: str) -> str:
    """A cell without what spreadsheets change in it: line ends, blanks, and the mark that it is no formula."""
    return " ".join(cell.removeprefix("'").split())


def _unique(keys: Mapping[str, str]) -> dict[str, str]:
    """Texts by their keys, without those that share one."""
    counts = Counter(keys.values())
    return {key: text for text, key in keys.items() if key and counts[key] == 1}
