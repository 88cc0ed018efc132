"""Sequence-level distillation: the teacher's own output for each row's input, as a hard target.

For each input the teacher writes some candidates, one greedily and the others sampled, and one is picked: the
likeliest by its own mean log-prob a token (the length penalty of a beam search), or the one nearest the row's own
output by sentence BLEU, Kim & Rush's sequence-level interpolation. Samples stand in for their beam, since every
backend can sample and none but transformers can search. `soft.pick=beam` is that search.

The log-probs of the picked output come with it, so that word-level targets on it cost no second pass.

Source: Kim & Rush, arXiv:1606.07947 §3.2 (sequence level), §3.3 (interpolation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from potstill.asking.teacher import Reply, Request
from potstill.datagen.answering import answer_messages
from potstill.datagen.outputs import off_form, read_output
from potstill.datagen.soft import SoftOptions
from potstill.datagen.token_targets import target_table, targets_for, written_target
from potstill.errors import TeacherError, UserError
from potstill.events import Event, Listener, silent
from potstill.rows import Row, dataset_to_rows, rows_to_dataset
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker
    from potstill.asking.stream import Answer

PURPOSE = "outputs"
# Origins of rows whose output is a teacher's.
_WRITTEN = ("generated", "pseudo")
_ITSELF = "hard targets alone: the teacher is the model that the student starts from, and others wrote some outputs"


@dataclass(frozen=True)
class SequenceResult:
    """What the teacher wrote.

    Attributes:
        table: Rows with the picked outputs, in the order of the given ones; inputs without a usable output are
            missing.
        token_targets: Log-probs of the picked outputs by row id.
        report: Counts and mean figures, JSON types.
    """

    table: Dataset
    token_targets: Dataset
    report: dict[str, Any]


def refuse_pick(asker: Asker, options: SoftOptions) -> None:
    """Refuse a choice among outputs for which their teacher does not give what it needs.

    Raises:
        UserError: The likeliest is wanted of a teacher that gives no log-probs, or beams of one that has none.
    """
    able = asker.abilities
    if options.candidates > 1 and options.pick == "likeliest" and not able.top_logprobs:
        raise UserError(
            f"{asker.teacher.name} gives no log-probs, so the likeliest of {options.candidates} outputs is unknown; "
            "set soft.pick=nearest or soft.candidates=1, or choose another --teacher"
        )
    if options.pick == "beam" and not able.beams:
        raise UserError(
            f"{asker.teacher.name} cannot search with beams; use --teacher transformers:MODEL, or set "
            "soft.pick=likeliest (the best of some samples)"
        )


def write_outputs(
    spec: TaskSpec, table: Dataset, asker: Asker, options: SoftOptions, *, listener: Listener = silent
) -> SequenceResult:
    """Let the teacher answer every input.

    Args:
        spec: A task whose outputs are texts.
        table: Rows in the one schema.
        asker: The teacher.
        options: How many candidates, and how one is picked.
        listener: Called with progress.

    Raises:
        UserError: As `refuse_pick`.
        TeacherError: No usable output at all, or the teacher refused or stayed away.
    """
    refuse_pick(asker, options)
    k = min(options.top_k, asker.abilities.top_logprobs)
    given = list(dataset_to_rows(table))
    each = options.requests_an_input
    requests = [_request(spec, row, number, k, options) for row in given for number in range(each)]
    listener(Event("soft", "progress", f"the teacher answers {len(given)} inputs", 0, len(requests)))
    answers = asker.ask(requests, PURPOSE)
    listener(Event("soft", "progress", "answers written", len(requests), len(requests)))
    rows: list[Row] = []
    replies: list[Reply] = []
    refused: Counter[str] = Counter()
    figures: list[tuple[int, float, float]] = []
    for place, row in enumerate(given):
        mine = answers[place * each : (place + 1) * each]
        picked = _pick(spec, row, mine, options, refused)
        if picked is None:
            continue
        number, answer, reply, output = picked
        source = replace(row.source, teacher=asker.teacher.name, requests=(*row.source.requests, answer.key))
        rows.append(replace(row, output=output, origin="pseudo", source=source))
        replies.append(reply)
        figures.append((number, _mean_logprob(reply), _nearness(row.output, output)))
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common(5))
        raise TeacherError(
            f"{asker.teacher.name} returned 0 usable outputs for {len(given)} inputs ({reasons}); try another "
            "--teacher, or distil.method=word"
        )
    report = {
        "inputs": len(given),
        "outputs": len(rows),
        "candidates_refused": dict(refused),
        "picked_greedy": None if options.pick == "beam" else sum(number == 0 for number, _, _ in figures),
        "mean_logprob": round(sum(value for _, value, _ in figures) / len(figures), 4),
        "mean_bleu_to_data": round(sum(value for _, _, value in figures) / len(figures), 2),
        "pick": options.pick,
    }
    targets = [made for pair in zip(rows, replies, strict=True) if (made := written_target(*pair, k)) is not None]
    return SequenceResult(rows_to_dataset(rows, []), target_table(targets), report)


def output_targets(
    spec: TaskSpec,
    table: Dataset,
    asker: Asker,
    options: SoftOptions,
    *,
    method: str,
    share: float,
    soft: bool,
    itself: bool = False,
    have: Dataset | None = None,
    listener: Listener = silent,
) -> tuple[Dataset, Dataset | None, dict[str, Any]]:
    """What a generation student learns from: rows, their token targets, and a report.

    Args:
        spec: The task.
        table: Rows in the one schema.
        asker: The teacher.
        options: How targets are taken.
        method: `word`, `sequence` or `both`, as `distil.method`.
        share: Share of the teacher's outputs in the loss of `both`.
        soft: Whether token targets are wanted.
        itself: Whether the student starts from the teacher's own model: no targets then beside outputs of others.
        have: Targets stored while the teacher wrote the rows.
        listener: Called with progress.

    Returns:
        The rows to train on, their token targets (None where there are none), and the report.
    """
    from datasets import concatenate_datasets

    able = bool(asker.abilities.top_logprobs)
    written = None if method == "word" else write_outputs(spec, table, asker, options, listener=listener)
    if written is not None and method == "sequence":
        return written.table, None, {"summary": _summary(written), **written.report}
    # Of what others wrote, a model says what it would say untaught, and that holds it there: on instruction_induction,
    # with 326 rows found and 184 written, ROUGE-L .121 with targets, .149 with those of its own outputs alone, .191
    # with none; the teacher has .117.
    others = itself and any(origin not in _WRITTEN for origin in table["origin"])
    wanted = soft and able and not others
    targets = targets_for(spec, table, asker, options.top_k, have=have, listener=listener) if wanted else None
    if written is None:
        report = {"summary": _ITSELF} if soft and others else {} if targets is None else {"targets": targets.num_rows}
        return table, targets, report
    if targets is not None:
        targets = concatenate_datasets([targets, written.token_targets])
    report = {"summary": _summary(written), "targets": targets.num_rows if targets else 0, **written.report}
    return joined(table, written.table, share), targets, report


def _summary(written: SequenceResult) -> str:
    return f"the teacher answered {written.report['outputs']} of {written.report['inputs']} inputs itself"


def joined(data: Dataset, written: Dataset, share: float) -> Dataset:
    """Rows of the data and rows with the teacher's outputs, `share` of the loss on the latter.

    Source: arXiv:1606.07947 §3.3, (1 − α) · L_data + α · L_sequence.
    """
    from datasets import concatenate_datasets

    if share >= 1:
        return written
    parts = [
        part.map(lambda row, by=by: {"weight": row["weight"] * by}, keep_in_memory=True)
        for part, by in ((data, 2 * (1 - share)), (written, 2 * share))
    ]
    return concatenate_datasets(parts)


def _request(spec: TaskSpec, row: Row, number: int, k: int, options: SoftOptions) -> Request:
    seed = int.from_bytes(sha256(f"{options.seed} {row.id} {number}".encode()).digest()[:4], "big") >> 1
    return Request(
        messages=answer_messages(spec, row.input),
        max_tokens=options.max_output_tokens,
        temperature=options.candidate_temperature if number else 0.0,
        seed=seed if number else 0,
        sample=number,
        top_logprobs=k,
        beams=options.candidates if options.pick == "beam" else 1,
    )


def _pick(
    spec: TaskSpec, row: Row, answers: Sequence[Answer], options: SoftOptions, refused: Counter[str]
) -> tuple[int, Answer, Reply, str] | None:
    """The best usable candidate: its number, its answer, the reply and its text."""
    usable = []
    for number, answer in enumerate(answers):
        reply = answer.reply
        if not isinstance(reply, Reply):
            refused["no_reply"] += 1
            continue
        output, fault = read_output(spec, row.input, reply)
        if fault is not None:
            refused[fault.reason] += 1
            continue
        value = _nearness(row.output, output) if options.pick == "nearest" else _mean_logprob(reply)
        # One in the form that the task asks for, wherever there is one.
        usable.append((off_form(spec, row.input, output) is None, value, -number, answer, reply, output))
    if not usable:
        return None
    _, _, number, answer, reply, output = max(usable, key=lambda item: item[:3])
    return -number, answer, reply, output


def _mean_logprob(reply: Reply) -> float:
    return sum(item.logprob for item in reply.top) / len(reply.top) if reply.top else 0.0


def _nearness(wanted: str, output: str) -> float:
    """Smoothed sentence BLEU, 0 to 100."""
    from sacrebleu.metrics import BLEU

    return float(BLEU(effective_order=True).sentence_score(output, [wanted]).score)
