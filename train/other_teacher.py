"""On-policy loss against a teacher with another tokenizer.

What enters: the student's tokens of an answer. The teacher reads the same text in its own tokens, after the same task
in its own chat format. What leaves: the loss of `span_loss` over both whole distributions at every byte at which both
tokenizers start a token, summed over the spans of the accumulated batch.

A blank that a tokenizer puts before every text (as Llama 2's does) is no part of the answer: it is left out of what the
teacher reads, and at the first token it is left out of, or put before, the tokens that both sides have.

What the student writes need not be text: a token may end inside a character, or be special. The teacher is asked about
what comes before that. An answer that ends by itself has its end compared too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from trl.trainer.utils import pad

from potstill.errors import TrainingError
from potstill.train.carry_over import TokenBytes, lay_tokens
from potstill.train.encode import answer_ids, encode_prompt, end_of_turn
from potstill.train.options import DistilOptions
from potstill.train.span_loss import whole_span_losses
from potstill.train.token_spans import common_spans, shared_tokens

if TYPE_CHECKING:
    from potstill.task import TaskSpec

_CHUNK_BYTES = 128 * 2**20


class OtherTeacher:
    """Reads answers for a teacher with another tokenizer, and compares it with the student.

    Raises:
        TrainingError: The teacher's tokenizer has no chat template (from `prompt`).
    """

    def __init__(
        self, spec: TaskSpec, tokenizer: Any, teacher: Any, student_tokenizer: Any, student: Any, options: DistilOptions
    ):
        self._spec, self._tokenizer, self._options = spec, tokenizer, options
        self._theirs, self._ours = TokenBytes(tokenizer), TokenBytes(student_tokenizer)
        self._end = end_of_turn(student, student_tokenizer)
        self._their_end = self._theirs.end if self._theirs.end is not None else end_of_turn(teacher, tokenizer)
        self._pairs = functools.cache(self._shared)
        self._our_blank = _blank_before(student_tokenizer, self._ours)
        self._pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._their_end)
        self._spans = self._tokens = 0

    def _shared(self, cut: int, put: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Shared tokens in the student's ids and in the teacher's; arguments are those of `shared_tokens`."""
        found = shared_tokens(self._theirs, self._ours, self._end, cut, put) | {self._their_end: self._end}
        pairs = sorted(found.items())
        return torch.tensor([ours for _, ours in pairs]), torch.tensor([theirs for theirs, _ in pairs])

    def prompt(self, text: str) -> list[int]:
        """The task with one input, in the teacher's tokens."""
        return encode_prompt(self._tokenizer, self._spec, text, int(self._options.max_length or 1024))

    def report(self) -> dict[str, Any]:
        """The method, tokens that both have, and spans over the student's tokens so far."""
        return {
            "method": self._options.cross_tokenizer,
            "shared_tokens": len(self._pairs(0, 0)[0]),
            "spans_per_token": round(self._spans / max(self._tokens, 1), 4),
        }

    def read(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """The teacher's side of a batch.

        Args:
            prompts: The teacher's prompt of each row.
            answers: The student's tokens of each answer, its end included where it has one.

        Returns:
            teacher_ids and teacher_mask (rows, their tokens) int64, left-padded prompts before right-padded answers;
            teacher_start (rows,) int64, where the answers start; spans (rows, most spans, 6) int64, each as `Span`
            with blanks to cut off the teacher's tokens and to put before them, counts of 0 past a row's last.
        """
        told = [self._answer(list(answer)) for answer in answers]
        left = self._padded([list(prompt) for prompt in prompts], "left")
        right = self._padded([ids for ids, _ in told], "right")
        most = max(1, *(len(spans) for _, spans in told))
        table = torch.zeros((len(told), most, 6), dtype=torch.int64)
        for row, (_, spans) in enumerate(told):
            if spans:
                table[row, : len(spans)] = torch.tensor(spans)
        self._spans += sum(len(spans) for _, spans in told)
        self._tokens += sum(len(answer) for answer in answers)
        return {
            "teacher_ids": torch.cat([left[0], right[0]], 1),
            "teacher_mask": torch.cat([left[1], right[1]], 1),
            "teacher_start": torch.full((len(told),), left[0].shape[1]),
            "spans": table,
        }

    def silence(self, answers: str) -> TrainingError:
        """The error that ends a training in whose answers there is nothing to compare."""
        return TrainingError(
            f"the teacher {self._options.teacher!r} and the student {self._options.student!r} start no token at the "
            f"same byte of {answers}, so nothing can be learnt from them: the teacher's tokenizer changes these texts, "
            "or they are no text; choose a distil.teacher or a distil.student of another family"
        )

    def _answer(self, answer: list[int]) -> tuple[list[int], list[tuple[int, ...]]]:
        """The teacher's tokens of an answer, and the spans of both with blanks to cut and to put."""
        pieces = [self._ours.of(token) for token in answer]
        cut = next((i for i, piece in enumerate(pieces) if piece is None), len(pieces))
        ended = cut < len(answer) and answer[cut] == self._end
        ours = [piece or b"" for piece in pieces[:cut]]
        data = b"".join(ours)
        before = len(self._our_blank) if data.startswith(self._our_blank) else 0
        data = data[before:]
        text = _whole_characters(data)
        read, whole = text.encode(), len(text.encode()) == len(data)
        ids = answer_ids(self._tokenizer, text)
        theirs = [self._theirs.of(token) or b"" for token in ids]
        their_before = sum(map(len, theirs)) - len(read)
        if b"".join(theirs) != b" " * their_before + read:
            # The teacher's tokenizer changes this text (another normal form).
            return ids or [self._their_end], []
        starts, first, blanks = lay_tokens(ours, -before)
        their_starts, their_first, their_blanks = lay_tokens(theirs, -their_before)
        spans: list[tuple[int, ...]] = []
        for span in common_spans(starts, their_starts):
            opens = (span[0], span[2]) == (first, their_first) and blanks != their_blanks
            spans.append((*span, their_blanks, blanks) if opens else (*span, 0, 0))
        if ended and whole:
            spans.append((cut, 1, len(ids), 1, 0, 0))
            ids.append(self._their_end)
        return ids or [self._their_end], spans

    def loss(
        self, student: Any, teacher: Any, inputs: dict[str, torch.Tensor], num_items: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Summed span losses over `num_items` (the spans of this batch where it is None), entropy, and spans.

        Args:
            student: The student itself, inside its wrapper's forward.
            teacher: The teacher, as accelerate prepared it.
            inputs: Columns of the trainer's batch, and those of `read`.
            num_items: Spans of the whole step.
        """
        temperature = float(self._options.temperature or 1.0)
        answer = inputs["completion_ids"]
        ours = _answer_logprobs(
            student, torch.cat([inputs["prompt_ids"], answer], 1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1), answer.shape[1], temperature,
        )  # fmt: skip
        their_answer = inputs["teacher_ids"][:, int(inputs["teacher_start"][0]) :]
        teacher.eval()
        with torch.no_grad():
            theirs = _answer_logprobs(
                teacher, inputs["teacher_ids"], inputs["teacher_mask"], their_answer.shape[1], temperature
            )
        rows, places = (inputs["spans"][:, :, 1] > 0).nonzero(as_tuple=True)
        spans = inputs["spans"][rows, places]
        count = torch.tensor(len(spans), device=answer.device)
        if not len(spans):
            nothing = ours.sum() * 0.0
            return nothing, nothing.detach(), count
        later = _later(ours, answer, rows, spans[:, 0], spans[:, 1])
        their_later = _later(theirs, their_answer, rows, spans[:, 2], spans[:, 3])
        size = max(1, _CHUNK_BYTES // (4 * (ours.shape[2] + theirs.shape[2])))
        total, entropy = ours.new_zeros(()), ours.new_zeros(())
        for cut, put in sorted({(cut, put) for cut, put in spans[:, 4:].tolist()}):
            chosen = ((spans[:, 4] == cut) & (spans[:, 5] == put)).nonzero()[:, 0]
            mine, told = (ids.to(answer.device) for ids in self._pairs(cut, put))
            for part in chosen.split(size):
                row, at, their_at = rows[part], spans[part, 0], spans[part, 2]
                here = ours[row, at]
                total = total + whole_span_losses(
                    here, theirs[row, their_at], first=answer[row, at], later=later[part],
                    teacher_first=their_answer[row, their_at], teacher_later=their_later[part], pairs=(mine, told),
                    method=self._options.cross_tokenizer, kind=self._options.divergence, beta=self._options.jsd_beta,
                ).sum()  # fmt: skip
                entropy -= (here.detach().exp() * here.detach()).sum()
        return total / (count if num_items is None else num_items), entropy, count

    def _padded(self, rows: list[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
        ids = [torch.tensor(row) for row in rows]
        mask = pad([torch.ones_like(row) for row in ids], padding_value=0, padding_side=side)
        return pad(ids, padding_value=self._pad, padding_side=side), mask


def _answer_logprobs(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, answer: int, temperature: float
) -> torch.Tensor:
    """(rows, answer, vocab) float32 log-probs of the last `answer` tokens, by the model's own forward."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=answer + 1
    ).logits
    logprobs: torch.Tensor = (logits[:, -answer - 1 : -1].float() / temperature).log_softmax(-1)
    return logprobs


def _later(
    logprobs: torch.Tensor, answer: torch.Tensor, rows: torch.Tensor, starts: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """(spans,) float32, summed log-probs of the tokens after the first of each span; exactly 0 where there are none."""
    own = logprobs.gather(2, answer[:, :, None])[:, :, 0].double().cumsum(1)
    return (own[rows, starts + counts - 1] - own[rows, starts]).float()


def _blank_before(tokenizer: Any, pieces: TokenBytes) -> bytes:
    """What a tokenizer puts before every text."""
    read = b"".join(pieces.of(token) or b"" for token in tokenizer("a", add_special_tokens=False)["input_ids"])
    return read[:-1] if read.endswith(b"a") else b""


def _whole_characters(data: bytes) -> str:
    """The text of the longest beginning that is text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data[: error.start].decode("utf-8")
