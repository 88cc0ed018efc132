"""On-policy loss against a teacher that is asked: a server, or an engine, that tells the likeliest tokens alone.

What enters: the student's tokens of a batch, and who tells log-probs (`TokenScores`). What leaves: the divergence over
the token that stands there, the teacher's k likeliest ones and one event for all others, summed over the answers'
tokens. What a teacher tells is at temperature 1, so the loss is.

    forward_kl, jsd    over these events, which is less than over the whole vocabulary by what the tail hides
    reverse_kl         the same; where the student drew the token from the tail, that token puts value and gradient
                       right on average (`losses.drawn_reverse_kl`)

An answer that gets no reply (longer than the teacher reads, say) is left out of the loss, and counted. A step of such
answers alone learns nothing, for they would be refused in a later call as well. A teacher that is away, or that tells
nothing of many answers in a row, ends the training.

Source: Agarwal et al., GKD, arXiv:2306.13649 §3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from potstill.asking.teacher import Failure, Reply, TokenTop
from potstill.errors import TrainingError
from potstill.train.head_loss import TokenTargets, target_loss
from potstill.train.losses import LEAST
from potstill.train.options import DistilOptions
from potstill.train.output_head import head_of

if TYPE_CHECKING:
    from potstill.asking.token_scores import TokenScores

_LEAST_TAIL = 1e-8  # what rounding leaves of a mass of 1
_AT_A_TIME = 256
_MOST_SILENT = 32  # answers in a row of which nothing is told


class AskedTeacher:
    """Asks about batches, and compares what is told with the student.

    Args:
        scores: Who is asked.
        vocabulary: How many tokens the student knows; what is told of others counts as the tail.
        options: Divergence and its weight.

    Attributes:
        sums: What was read so far: answers and tokens learnt from, those tokens in the tail, the teacher's mass of its
            k, and answers without a reply. A checkpoint keeps them, and those of several processes are added up.
    """

    def __init__(self, scores: TokenScores, vocabulary: int, options: DistilOptions):
        self._scores, self._vocabulary, self._options = scores, vocabulary, options
        self.sums = dict.fromkeys(("answers", "tokens", "outside", "mass", "unanswered"), 0.0)
        self._reason = ""
        self._silent = 0  # answers since something was told
        self._told = False

    def report(self, sums: Mapping[str, float]) -> dict[str, Any]:
        """Who was asked for how many likeliest tokens; answers and tokens learnt from, and the share of the answers'
        tokens and of the teacher's mass that are in the tail; answers without a reply, with the last reason.

        Args:
            sums: `sums` of all processes.
        """
        tokens = max(1.0, sums["tokens"])
        told = {
            "teacher": self._scores.name,
            "top_k": self._scores.top,
            "answers": round(sums["answers"]),
            "tokens": round(sums["tokens"]),
            "outside_top_k": round(sums["outside"] / tokens, 4),
            "tail_mass": round(1 - sums["mass"] / tokens, 4) if sums["tokens"] else None,
            "unanswered": round(sums["unanswered"]),
        }
        return told | ({"unanswered_because": self._reason} if self._reason else {})

    def ahead(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> None:
        """Have the teacher read answers that are asked about later, many at a time; they are answered at once then."""
        for start in range(0, len(answers), _AT_A_TIME):
            part = slice(start, start + _AT_A_TIME)
            self._scores.ask(list(zip(prompts[part], answers[part], strict=True)))

    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, drawn: bool
    ) -> dict[str, torch.Tensor]:
        """The teacher's side of a batch.

        Args:
            prompts: Tokens of each row's prompt.
            answers: Tokens of each answer, its end included where it has one; none is empty.
            drawn: Whether the student drew them, and learns from them.

        Returns:
            told (rows, most tokens) float32, 1 where the teacher told something; top_ids (rows, most tokens, 1 + k)
            int64 and top_logprobs float32, the token that stands there first, −inf in unused places; tail (rows, most
            tokens) float32; drawn (rows, most tokens) bool, where the student drew a token that is none of the k.

        Raises:
            TrainingError: Nothing was told of any answer, and the teacher is away or said nothing of many before.
        """
        replies = self._scores.ask(list(zip(prompts, answers, strict=True)))
        shape = (len(answers), max(map(len, answers)))
        ids = np.zeros((*shape, self._scores.top + 1), dtype=np.int64)
        logprobs = np.full((*shape, self._scores.top + 1), -np.inf)
        logprobs[:, :, 0] = 0.0
        told, outside = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
        for row, (answer, reply) in enumerate(zip(answers, replies, strict=True)):
            if not isinstance(reply, Reply) or [item.token_id for item in reply.top] != list(answer):
                self._leave_out(reply)
                continue
            size = len(answer)
            told[row, :size] = 1
            ids[row, :size], logprobs[row, :size], outside[row, :size] = self._events(reply.top)
        if told.any():
            self._silent, self._told = 0, True
        else:
            self._silent += len(answers)
            away = any(isinstance(reply, Failure) and reply.passing for reply in replies)
            if away or self._silent > _MOST_SILENT:
                raise self.silence(f"{self._silent} answers")
        mass = np.exp(logprobs).sum(2)
        if drawn:
            self.sums["answers"] += len(answers)
            self.sums["tokens"] += float(told.sum())
            self.sums["outside"] += float(outside.sum())
            self.sums["mass"] += float((told * (mass - outside * np.exp(logprobs[:, :, 0]))).clip(0, 1).sum())
        return {
            "told": torch.from_numpy(told),
            "top_ids": torch.from_numpy(ids),
            "top_logprobs": torch.from_numpy(logprobs.astype(np.float32)),
            "tail": torch.from_numpy(np.log(np.maximum(_LEAST_TAIL, 1 - mass)).astype(np.float32)),
            "drawn": torch.from_numpy(outside & drawn),
        }

    def silence(self, answers: str) -> TrainingError:
        """The error that ends a training of whose answers nothing is told."""
        return TrainingError(
            f"{self._scores.name} told nothing of the tokens of {answers} (the last time: {self._reason}); mend the "
            "server, and run again"
        )

    @property
    def untold(self) -> int:
        """Answers that were asked about, where nothing was told of any; else 0."""
        return 0 if self._told else self._silent

    def loss(
        self, student: Any, inputs: dict[str, torch.Tensor], num_items: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed divergence over `num_items` (the tokens of this batch that the teacher told of where it is None), and
        the number of these tokens.

        Args:
            student: The student itself, inside its wrapper's forward.
            inputs: Columns of the trainer's batch, and those of `read`.
            num_items: Tokens of the whole step.
        """
        mask = inputs["told"] > 0
        count = mask.sum()
        head = head_of(student)
        # Without the shell that adapters put around a model.
        plain = student.get_base_model() if hasattr(student, "get_base_model") else student
        ids, seen = (
            torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"]], dim=1) for name in ("ids", "mask")
        )
        states = plain.base_model(
            input_ids=ids, attention_mask=seen, position_ids=(seen.cumsum(1) - 1).clamp(min=0), use_cache=False
        ).last_hidden_state
        hidden = states[:, -mask.shape[1] - 1 : -1]
        labels = inputs["completion_ids"][mask]
        targets = TokenTargets(
            labels=labels,
            hard_weights=torch.zeros(len(labels), device=labels.device),
            soft_weights=torch.ones(len(labels), device=labels.device),
            top_ids=inputs["top_ids"][mask],
            top_logprobs=inputs["top_logprobs"][mask],
            tail=inputs["tail"][mask],
            drawn=inputs["drawn"][mask],
        )
        loss, _, _ = target_loss(
            hidden[mask], head.weight, targets, kind=self._options.divergence, beta=self._options.jsd_beta,
            bias=head.bias, form=head.form,
        )  # fmt: skip
        return loss / (count.clamp(min=1) if num_items is None else num_items), count

    def _events(self, top: Sequence[TokenTop]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Numbers and log-probs of one answer's events, and where its own token is none of the teacher's k."""
        k = self._scores.top
        ids = np.zeros((len(top), k + 1), dtype=np.int64)
        logprobs = np.full((len(top), k + 1), -np.inf)
        outside = np.zeros(len(top), dtype=bool)
        for place, item in enumerate(top):
            ids[place, 0], logprobs[place, 0] = item.token_id, max(item.logprob, LEAST)
            count = min(k, len(item.top_ids))
            ids[place, 1 : count + 1] = item.top_ids[:count]
            logprobs[place, 1 : count + 1] = item.top_logprobs[:count]
            outside[place] = item.token_id not in item.top_ids[:count]
        others = ids[:, 1:]
        unused = (others == ids[:, :1]) | (others >= self._vocabulary)
        logprobs[:, 1:][unused] = -np.inf
        return np.where(ids < self._vocabulary, ids, 0), logprobs, outside

    def _leave_out(self, reply: Reply | Failure) -> None:
        self.sums["unanswered"] += 1
        self._reason = reply.reason if isinstance(reply, Failure) else "the reply was about other tokens"
