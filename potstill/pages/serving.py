"""`potstill serve`: the student behind an HTTP endpoint of this machine, with a small page to try it.

What enters: a run, a unit's folder, or a model's folder. What leaves: a `web.App`.

    POST /predict   {"inputs": ["text", …]}  →  {"predictions": [{"output": …, "probs": {label: p, …}}, …]}
                    an input of several fields is {"premise": …, "hypothesis": …}
    GET  /healthz   {"status": "ok", "name": …, "kind": …, "labels": […], "inputs": […]}
    GET  /          the page

One thread holds the model. Texts that arrive together are answered in one batch; where the model falls over it, each
caller's texts are answered by themselves, so that a bad text fails its own caller alone. When too many wait
(`most_waiting`) a request is refused with 503 and `Retry-After`, so that a flood costs the callers time and not this
machine memory.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError, OptionError
from potstill.near_runs import no_student
from potstill.pages.viewer import render
from potstill.pages.web import Answer, App, Call
from potstill.train.card import ONE_TEXT

if TYPE_CHECKING:
    from potstill.train.card import StudentCard
    from potstill.train.student import Prediction, Student

MOST_TEXTS, MOST_CHARACTERS = 256, 100_000


class Full(Exception):
    """More texts wait than may."""


def student_folder(place: Path | str) -> Path:
    """The student's own folder in a run (`train/student`), a loaded unit (`model`), or the folder itself.

    Raises:
        UserError: There is no student.
    """
    root = Path(place)
    for folder in (root / "train" / "student", root / "model", root):
        if (folder / "config.json").exists():
            return folder
    raise no_student(root)


@dataclass(frozen=True)
class _Job:
    texts: tuple[str, ...]
    done: Future[list[Prediction]]


class Batcher:
    """One thread that answers with the student, several callers' texts at a time.

    Args:
        student: Who answers.
        most_waiting: Texts that may wait; beyond it `ask` raises `Full`.
        batch: Texts answered at a time.
    """

    def __init__(self, student: Student, *, most_waiting: int = 1024, batch: int = 64):
        self._student = student
        self._most, self._batch = most_waiting, batch
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._work, name="student", daemon=True)
        self._thread.start()

    def ask(self, texts: Sequence[str]) -> list[Prediction]:
        """Answers to texts, in their order.

        Raises:
            Full: Too many texts wait, or the thread has ended or is about to.
        """
        job = _Job(tuple(texts), Future())
        with self._lock:  # what came behind the end would wait for ever
            if self._closed or self._waiting + len(texts) > self._most:
                raise Full
            self._waiting += len(texts)
            self._queue.put(job)
        return job.done.result()

    def close(self) -> None:
        """End the thread once what waits is answered."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        ending = False
        while not ending:
            job = self._queue.get()
            jobs: list[_Job] = []
            count = 0
            while job is not None:
                jobs.append(job)
                count += len(job.texts)
                if count >= self._batch:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                ending = True
            if jobs:
                self._answer(jobs)

    def _answer(self, jobs: list[_Job]) -> None:
        texts = [text for job in jobs for text in job.texts]
        try:
            predictions = list(self._student.predict(texts))
        except Exception as error:  # one failure must not end the thread; its caller is told
            if len(jobs) > 1:  # and those whose texts came with it have no part in it
                for job in jobs:
                    self._answer([job])
                return
            self._leave(jobs)
            jobs[0].done.set_exception(error)
        else:
            self._leave(jobs)
            start = 0
            for job in jobs:
                job.done.set_result(predictions[start : start + len(job.texts)])
                start += len(job.texts)

    def _leave(self, jobs: list[_Job]) -> None:
        """Give the places of jobs free, before their callers know and may come again."""
        with self._lock:
            self._waiting -= sum(len(job.texts) for job in jobs)


def line_input(text: str, card: StudentCard) -> tuple[str, tuple[str, ...]]:
    """An input that came as a line or an argument, as the student reads it, and what of the line was left unread.

    A JSON object is read by its names: those of the fields, or `text` or `input` where the student reads one text. A
    line out of a data file is such an object, and read as it stands its label would be read with it.

    Args:
        text: The line.
        card: The student's.

    Returns:
        The input, and the names of the columns beside it.

    Raises:
        OptionError: The student reads fields and these are others, or one text and the object names none.
    """
    given: object = text
    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            given = json.loads(text)
    if card.inputs or not isinstance(given, dict):
        return card.input_text(given if isinstance(given, dict) else text), ()
    named = next((name for name in ONE_TEXT if isinstance(given.get(name), str)), None)
    if named is None:
        raise OptionError(
            "predict",
            [
                f"the student reads one text, and {text[:60]!r} is a JSON object without one: its columns are "
                f"{', '.join(given) or 'none'}; call the text's column text, or give the file with --file, which "
                'chooses the column; where the JSON itself is the text, write {"text": "{…}"}'
            ],
        )
    return card.input_text(given[named]), tuple(name for name in given if name != named)


def file_inputs(path: Path, card: StudentCard) -> list[str]:
    """The inputs in a file, in its order: lines of a `.txt`, or rows of a table, whose columns are found as those of
    `unlabelled:` are; "" for a line or row without a text.

    Raises:
        DataError: No such file, one that cannot be read, is no UTF-8 or has no text, or no column of text.
    """
    from potstill.retrieval.load import FORMATS, read_texts
    from potstill.task import DataRef, Label, TaskSpec

    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file of .txt, {', '.join(FORMATS)}")
    if not path.is_file():
        raise DataError(f"no file at {path}; give one of .txt, {', '.join(FORMATS)}")
    labels = tuple(map(Label, card.labels))
    spec = TaskSpec(card.name, card.instruction or card.name, card.kind, labels=labels, inputs=card.inputs)
    texts = read_texts(DataRef(str(path)), spec, blanks=True)
    if broken := sum("\ufffd" in text for text in texts):
        raise DataError(f"{broken:,} of {len(texts):,} texts in {path} are not UTF-8; save it as UTF-8")
    if not any(text.strip() for text in texts):
        raise DataError(f"{path} has no rows; give a file that has some")
    return texts


def student_app(student: Student, batcher: Batcher) -> App:
    """The endpoint and the page of a student."""
    card = student.card
    labels = list(card.labels)
    one = dict.fromkeys(card.inputs, "…") if card.inputs else "a text"
    example = json.dumps({"inputs": [one]}, ensure_ascii=False)

    def page(call: Call) -> Answer:
        told = card.instruction or f"A {card.kind} student."
        shown = {"name": card.name, "instruction": told, "labels": labels, "fields": card.inputs, "example": example}
        return Answer(html=render("student.html.j2", call, **shown))

    def health(call: Call) -> Answer:
        told = {"name": card.name, "kind": card.kind, "labels": labels, "inputs": list(card.inputs)}
        return Answer({"status": "ok", **told})

    def predict(call: Call) -> Answer:
        inputs = call.body.get("inputs")
        if isinstance(inputs, str | dict):
            inputs = [inputs]
        if not isinstance(inputs, list) or not inputs:
            raise OptionError("predict", [f"send {example}"])
        inputs = [card.input_text(given) for given in inputs]
        faults = []
        if len(inputs) > MOST_TEXTS:
            faults.append(f"{len(inputs)} texts are too many; send at most {MOST_TEXTS} at a time")
        if sum(map(len, inputs)) > MOST_CHARACTERS:
            faults.append(f"the texts have more than {MOST_CHARACTERS:,} characters; send fewer at a time")
        if faults:
            raise OptionError("predict", faults)
        try:
            found = batcher.ask(inputs)
        except Full:
            return Answer({"error": "too many texts wait; try again in a second"}, 503)
        return Answer({"predictions": [told_answer(item, labels) for item in found]})

    return App(
        get={"/": page, "/healthz": health}, post={"/predict": predict}, open_posts=frozenset({"/predict"}), slots=32
    )


def told_answer(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """An answer as JSON types: `output`, and of a classifier the probability of each label under its name."""
    if prediction.probs is None:
        return {"output": prediction.output}
    probs = {name: round(float(p), 6) for name, p in zip(labels, prediction.probs, strict=True)}
    return {"output": prediction.output, "probs": probs}
