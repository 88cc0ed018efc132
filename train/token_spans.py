"""Spans of an answer that two tokenizers agree on, and stored targets laid out along them.

Both tokenizers cut the same bytes. A span runs from one byte at which both start a token to the next such byte; it
holds one token or more of either side. At its start both models say what comes after the same prefix, and its text has
a probability on either side by the chain rule. The end of the answer is a span of its own.

`span_loss` compares the two models there; `carry_over` is the other way of using such targets.

Source: GOLD, as in `trl.experimental.gold` (alignment by byte offsets).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from potstill.errors import TrainingError
from potstill.train.carry_over import CarriedOver, TokenBytes, blanks_between, other_blanks, place_tokens
from potstill.train.encode import answer_ids

if TYPE_CHECKING:
    from datasets import Dataset

Span = tuple[int, int, int, int]


def common_spans(ours: Sequence[int], theirs: Sequence[int]) -> list[Span]:
    """Spans between bytes at which both sides start a token.

    Args:
        ours: Byte at which each of the student's tokens starts, then where the last one ends.
        theirs: The same of the teacher.

    Returns:
        (student's first token, how many, teacher's first token, how many) of each span, in order. Tokens without
        bytes belong to the span that starts before them, so that a span is never empty on either side.
    """
    places = {byte: i for i, byte in reversed(list(enumerate(theirs)))}
    found: list[tuple[int, int]] = []
    for i, byte in enumerate(ours):
        j = places.get(byte)
        if j is not None and (not found or (byte > ours[found[-1][0]] and j > found[-1][1])):
            found.append((i, j))
    return [(i, k - i, j, m - j) for (i, j), (k, m) in itertools.pairwise(found)]


def shared_tokens(teacher: TokenBytes, student: TokenBytes, end: int, cut: int = 0, put: int = 0) -> dict[int, int]:
    """The student's token of each token of the teacher that stands for the same bytes; ends for `end`.

    Args:
        teacher: The teacher's tokens.
        student: The student's tokens.
        end: The token that ends the student's answer.
        cut: At the start of an answer, blanks that the teacher's tokenizer alone puts before every text.
        put: The same of the student's.
    """
    found = {
        theirs: ours
        for piece, theirs in teacher.tokens.items()
        # "the" is not " the" without its blank as well, or two tokens would be one.
        if piece.startswith(b" " * cut) and (ours := student.tokens.get(other_blanks(piece, cut, put))) is not None
    }
    return found | ({} if teacher.end is None else {teacher.end: end})


def spans_of_targets(rows: Dataset, targets: Dataset, teacher: Any, student: Any, end: int) -> CarriedOver:
    """Stored targets along the spans of both tokenizers.

    Args:
        rows: Rows in the one schema.
        targets: Their stored targets, at temperature 1, in the teacher's ids.
        teacher: The teacher's tokenizer.
        student: The student's tokenizer.
        end: The token that ends the student's answer.

    Returns:
        A table as of `carry_over`, with −1 for tokens that the student lacks, and three columns more: `counts`, the
        student's tokens of the span that starts at a token, 0 inside one; `text`, the teacher's log-prob of the
        span's text, −inf where it is not among the stored; `first`, the student's id of the teacher's first token.

    Raises:
        TrainingError: No row's targets stand for its output.
    """
    from datasets import Dataset

    theirs, ours = TokenBytes(teacher), TokenBytes(student)
    shared = functools.cache(functools.partial(shared_tokens, theirs, ours, end))
    outputs = dict(zip(rows["id"], rows["output"], strict=True))
    made: list[dict[str, Any]] = []
    unaligned = positions = whole = 0
    listed = mass = 0.0
    for item in targets:
        output = outputs.get(item["id"])
        if output is None:
            continue
        ids = answer_ids(student, output)
        mine = place_tokens([ours.of(token) or b"" for token in ids], output)
        told = place_tokens([theirs.of(token) or b"" for token in item["token_ids"]], output)
        if mine is None or told is None:
            unaligned += 1
            continue
        answer = [*ids, end]
        row: dict[str, list[Any]] = {
            "top_ids": [[token] for token in answer], "top_logprobs": [[0.0] for _ in answer],
            "tail": [-20.0] * len(answer), "known": [False] * len(answer), "counts": [0] * len(answer),
            "text": [-math.inf] * len(answer), "first": [-1] * len(answer),
        }  # fmt: skip
        spans = common_spans(mine.starts, told.starts)
        if told.end is not None:
            spans.append((len(ids), 1, told.end, 1))
        for i, count, j, their_count in spans:
            blanks = blanks_between(told, mine) if (i, j) == (mine.first, told.first) else (0, 0)
            pairs = shared(*blanks)
            known = [
                dict(zip(item["top_ids"][at], item["top_logprobs"][at], strict=True)).get(token, -math.inf)
                for at, token in enumerate(item["token_ids"][j : j + their_count], j)
            ]
            top = [pairs.get(int(token), -1) for token in item["top_ids"][j]]
            row["top_ids"][i], row["top_logprobs"][i] = top, list(item["top_logprobs"][j])
            row["tail"][i], row["known"][i], row["counts"][i] = item["tail"][j], True, count
            row["text"][i] = math.fsum(known) if min(known) > -math.inf else -math.inf
            row["first"][i] = pairs.get(int(item["token_ids"][j]), -1)
            listed += math.fsum(math.exp(value) for value in item["top_logprobs"][j])
            mass += math.fsum(math.exp(v) for v, t in zip(item["top_logprobs"][j], top, strict=True) if t >= 0)
            whole += row["text"][i] > -math.inf
        positions += len(answer)
        made.append({"id": item["id"], "token_ids": answer, **row})
    if unaligned and not made:
        raise TrainingError(
            f"none of the {unaligned} stored token targets stands for its row's output under the tokenizer "
            f"{teacher.name_or_path!r}: they were made with another one; name it with distil.teacher_tokenizer"
        )
    spans_made = sum(sum(row["known"]) for row in made)
    report = {
        "rows": len(made),
        "unaligned": unaligned,
        "positions": positions,
        "known_share": round(spans_made / max(positions, 1), 4),
        "mass_shared": round(mass / max(listed, 1e-12), 4),
        "text_known": round(whole / max(spans_made, 1), 4),
    }
    names = ("id", "token_ids", "top_ids", "top_logprobs", "tail", "known", "counts", "text", "first")
    table = Dataset.from_dict({name: [row[name] for row in made] for name in names})
    return CarriedOver(table, report, tuple(sorted(set(shared(0, 0).values()))))
