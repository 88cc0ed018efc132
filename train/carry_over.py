"""Token targets of a teacher with another tokenizer, carried over to the student's tokens.

What enters: stored top-k targets in the teacher's token ids, and both tokenizers. What leaves: the same table in the
student's ids, so that the trainer and its losses need to know nothing of it.

Both tokenizers cut the same text into bytes. Where a token of the student starts at a byte at which one of the
teacher's starts, both models say what comes after the same prefix. There, each of the teacher's k tokens gives its
mass to the student's token that begins with its bytes: the one of the same bytes where the student has it, else the
first token that the student would cut them into. Mass of tokens that have no counterpart goes to the tail, which the
student's loss holds anyway. Inside a token of the teacher there is no such distribution, and the student learns that
position from the text alone. The end of the answer is aligned with the end of the answer, whatever white space either
side has there. A blank that one tokenizer puts before every text and the other does not is no part of the answer: at
its first token, the teacher's tokens are taken without it, or with it.

This is the alignment by byte spans of GOLD with a projection instead of its two vocabularies' intersection.
`token_spans` and `span_loss` are the other ways, with losses of their own (`distil.cross_tokenizer`).

Source: GOLD, as in `trl.experimental.gold`.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from potstill.errors import TrainingError, UserError
from potstill.models import install_hint, local_model
from potstill.train.encode import answer_ids

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class CarriedOver:
    """Targets in the student's ids.

    Attributes:
        table: As `token_targets.target_features`, with one column more: `known`, whether a position has a target.
        report: rows, unaligned (rows left out), positions, known_share, mass_kept (of the teacher's top-k), JSON
            types.
        shared: Tokens of the student that the teacher has too, where the targets lie along spans (`token_spans`).
    """

    table: Dataset
    report: dict[str, Any]
    shared: tuple[int, ...] | None = None


def load_tokenizer(name: str, what: str = "distil.teacher_tokenizer") -> Any:
    """A model's tokenizer.

    Args:
        name: The model.
        what: The option that names it, for the message.

    Raises:
        UserError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(local_model(name))
    except (OSError, ValueError) as error:
        raise UserError(f"the tokenizer of {what} {name!r} cannot be loaded ({error}); {install_hint(name)}") from None


def carry_over(rows: Dataset, targets: Dataset, teacher: Any, student: Any, end: int) -> CarriedOver:
    """Carry stored targets over.

    Args:
        rows: Rows in the one schema.
        targets: Their stored targets, at temperature 1.
        teacher: The teacher's tokenizer.
        student: The student's tokenizer.
        end: The token that ends the student's answer.

    Raises:
        TrainingError: No row's targets stand for its output: `teacher` is not the tokenizer they were made with.
    """
    from datasets import Dataset

    theirs, ours = TokenBytes(teacher), TokenBytes(student)
    mapped: dict[tuple[int, int, int], int | None] = {}

    def counterpart(token: int, cut: int, put: int) -> int | None:
        if (token, cut, put) not in mapped:
            piece = theirs.of(token)
            is_end = piece is None and token in theirs.ends
            mapped[token, cut, put] = end if is_end else ours.first_token(other_blanks(piece or b"", cut, put))
        return mapped[token, cut, put]

    outputs = dict(zip(rows["id"], rows["output"], strict=True))
    made: list[dict[str, Any]] = []
    positions = known = unaligned = 0
    given = kept = 0.0
    for item in targets:
        if item["id"] not in outputs:
            continue
        ids = answer_ids(student, outputs[item["id"]])
        mine = place_tokens([ours.of(token) or b"" for token in ids], outputs[item["id"]])
        told = place_tokens([theirs.of(token) or b"" for token in item["token_ids"]], outputs[item["id"]])
        if mine is None or told is None:
            unaligned += 1
            continue
        places = [*(told.tokens.get(at) for at in mine.starts[:-1]), told.end]
        row: dict[str, list[Any]] = {"top_ids": [], "top_logprobs": [], "tail": [], "known": []}
        for n, (token, i) in enumerate(zip([*ids, end], places, strict=True)):
            found = None
            if i is not None:
                cut, put = blanks_between(told, mine) if (n, i) == (mine.first, told.first) else (0, 0)
                found = _project(
                    item["top_ids"][i], item["top_logprobs"][i], item["tail"][i],
                    functools.partial(counterpart, cut=cut, put=put),
                )  # fmt: skip
                given += math.fsum(math.exp(value) for value in item["top_logprobs"][i])
            top_ids, top_logprobs, tail = found or ([token], [0.0], -20.0)
            kept += math.fsum(math.exp(value) for value in top_logprobs) if found else 0.0
            for name, value in zip(row, (top_ids, top_logprobs, tail, found is not None), strict=True):
                row[name].append(value)
        positions += len(places)
        known += sum(row["known"])
        made.append({"id": item["id"], "token_ids": [*ids, end], **row})
    if unaligned and not made:
        raise TrainingError(
            f"none of the {unaligned} stored token targets stands for its row's output under the tokenizer "
            f"{teacher.name_or_path!r}: they were made with another one; name it with distil.teacher_tokenizer"
        )
    names = ("id", "token_ids", "top_ids", "top_logprobs", "tail", "known")
    report = {
        "rows": len(made),
        "unaligned": unaligned,
        "positions": positions,
        "known_share": round(known / max(positions, 1), 4),
        "mass_kept": round(kept / max(given, 1e-12), 4),
    }
    return CarriedOver(Dataset.from_dict({name: [row[name] for row in made] for name in names}), report)


class TokenBytes:
    """The bytes that each token of a tokenizer stands for.

    Attributes:
        ends: Special tokens that end an answer.
        end: The one of them that the tokenizer itself names, or None where there is none.
        tokens: The token of each string of bytes, the first where several stand for the same.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        self._byte_level = "ByteLevel" in json.dumps([backend.get("decoder"), backend.get("pre_tokenizer")])
        self._special = set(tokenizer.all_special_ids)
        markers = {"<|im_end|>", "<|endoftext|>", "</s>", "<end_of_turn>", "<eos>", "<|eot_id|>"}
        self.ends = {
            i for i in self._special if i == tokenizer.eos_token_id or tokenizer.convert_ids_to_tokens(i) in markers
        }
        named = tokenizer.eos_token_id
        self.end: int | None = named if named in self.ends else min(self.ends, default=None)
        self._bytes: dict[int, bytes | None] = {}
        self.tokens: dict[bytes, int] = {}
        # A lone byte of a tokenizer that cuts texts into characters is no way to write a character that it has.
        for token, i in sorted(tokenizer.get_vocab().items(), key=lambda item: (self._is_byte(item[0]), item[1])):
            piece = None if i in self._special else self._piece(token)
            self._bytes[i] = piece
            if piece:
                self.tokens.setdefault(piece, i)

    def of(self, token: int) -> bytes | None:
        """Bytes of a token; None for a special or unknown one."""
        return self._bytes.get(int(token))

    def first_token(self, piece: bytes) -> int | None:
        """The token of these bytes, or the first one that they are cut into; None where there is none."""
        if not piece:
            return None
        exact = self.tokens.get(piece)
        if exact is not None:
            return exact
        try:
            ids = self._tokenizer(piece.decode("utf-8"), add_special_tokens=False)["input_ids"]
        except UnicodeDecodeError:
            # A part of a character: no text to cut, so the longest of its beginnings that is a token.
            return next(
                (self.tokens[piece[:n]] for n in range(len(piece) - 1, 0, -1) if piece[:n] in self.tokens), None
            )
        begins = self.of(ids[0]) if ids else None
        return int(ids[0]) if begins and piece.startswith(begins) else None

    def _is_byte(self, token: str) -> bool:
        return not self._byte_level and len(token) == 6 and token.startswith("<0x") and token.endswith(">")

    def _piece(self, token: str) -> bytes | None:
        if self._byte_level:
            try:
                return bytes(_BYTE_OF[letter] for letter in token)
            except KeyError:  # an added token, which is written as it is
                return token.encode("utf-8")
        if self._is_byte(token):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode("utf-8", "replace")


@dataclass(frozen=True)
class TokenPlaces:
    """Where the tokens of an answer stand in the output of its row.

    Attributes:
        starts: Byte in the output at which each token starts, and where the last one ends. White space that the output
            lacks lies before 0, and past its end; the token that holds the first byte starts at 0 all the same.
        tokens: The token with bytes that starts at a byte.
        first: The token that holds the output's first byte; None where there is none.
        blanks: Bytes that this one holds before.
        end: The token that ends the answer, the first without bytes after the text; None where there is none.
    """

    starts: list[int]
    tokens: Mapping[int, int]
    first: int | None
    blanks: int
    end: int | None


def place_tokens(pieces: Sequence[bytes], output: str) -> TokenPlaces | None:
    """Lay tokens along an output; None if they say something else, white space at both ends aside.

    Args:
        pieces: Bytes of each token, empty for special ones.
        output: The output.
    """
    text, wanted = b"".join(pieces), output.encode("utf-8")
    if text.strip() != wanted.strip():
        return None
    at = (len(wanted) - len(wanted.lstrip())) - (len(text) - len(text.lstrip()))
    starts, first, blanks = lay_tokens(pieces, at)
    tokens = {starts[i]: i for i, piece in enumerate(pieces) if piece}
    last = len(wanted.rstrip())
    end = next((i for i, piece in enumerate(pieces) if not piece and starts[i] >= last), None)
    return TokenPlaces(starts, tokens, first, blanks, end)


def lay_tokens(pieces: Sequence[bytes], at: int) -> tuple[list[int], int | None, int]:
    """`starts`, `first` and `blanks` of `TokenPlaces` for tokens of which the first one starts at a byte."""
    starts = list(itertools.accumulate((len(piece) for piece in pieces), initial=at))
    first = next((i for i, piece in enumerate(pieces) if starts[i] <= 0 < starts[i] + len(piece)), None)
    blanks = 0
    if first is not None:
        starts[first], blanks = 0, -starts[first]
    return starts, first, blanks


def blanks_between(teacher: TokenPlaces, student: TokenPlaces) -> tuple[int, int]:
    """Blanks to cut off the teacher's first token, and to put before it, so that it is the student's."""
    same = teacher.blanks == student.blanks
    return (0, 0) if same else (teacher.blanks, student.blanks)


def other_blanks(piece: bytes, cut: int, put: int) -> bytes:
    """Bytes of a first token without the blanks of its own tokenizer, and with those of another one."""
    return b" " * put + (piece[cut:] if piece[:cut].isspace() else piece)


def _project(
    ids: Sequence[int], logprobs: Sequence[float], tail: float, counterpart: Any
) -> tuple[list[int], list[float], float] | None:
    """One position: mass of the teacher's tokens by the student's token, likeliest first, and the new tail."""
    mass: dict[int, float] = {}
    rest = math.exp(tail)
    for token, logprob in zip(ids, logprobs, strict=True):
        ours = counterpart(int(token))
        if ours is None:
            rest += math.exp(logprob)
        else:
            mass[ours] = mass.get(ours, 0.0) + math.exp(logprob)
    if not mass:
        return None
    order = sorted(mass, key=lambda token: (-mass[token], token))
    return order, [math.log(max(mass[token], 1e-30)) for token in order], math.log(max(rest, 1e-9))


def _byte_alphabet() -> Mapping[str, int]:
    """The letters by which byte-level tokenizers write bytes (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [value for value in range(256) if value not in plain]
    return {chr(value): value for value in plain} | {chr(256 + i): value for i, value in enumerate(others)}


_BYTE_OF = _byte_alphabet()
