"""One token for each row of a batch, each row by its own rules and its own random numbers.

A row draws uniform numbers from a generator seeded by its request, and takes the token where the cumulative
distribution passes the number. So a request's sample depends on its own seed, whoever shares its batch (up to
the rounding of the matrix products, which a different batch can change).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch

from potstill.asking.teacher import TokenTop

_MOST_REFUSALS = 8


def choose_tokens(
    logits: torch.Tensor,
    temperatures: Sequence[float],
    top_ps: Sequence[float],
    generators: Sequence[Random],
) -> torch.Tensor:
    """Sample a token a row.

    Args:
        logits: (rows, vocab) float32, before temperature.
        temperatures: One a row; 0 takes the likeliest token.
        top_ps: Nucleus mass, one a row.
        generators: Source of the row's uniform numbers.

    Returns:
        (rows,) int64.
    """
    chosen = logits.argmax(dim=-1)
    warm = [row for row, value in enumerate(temperatures) if value > 0]
    if not warm:
        return chosen
    index = torch.tensor(warm, device=logits.device)
    heat = torch.tensor([temperatures[row] for row in warm], device=logits.device).unsqueeze(1)
    mass = torch.tensor([top_ps[row] for row in warm], device=logits.device)
    probs = torch.softmax((logits if len(warm) == len(temperatures) else logits[index]) / heat, dim=-1)
    chosen[index] = _from_nucleus(probs, mass, [generators[row] for row in warm])
    return chosen


def _by_cumulative(probs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    cumulative = probs.cumsum(dim=-1)
    target = (uniform * cumulative[:, -1]).unsqueeze(1)
    # `right` skips tokens of zero probability at the very start.
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=probs.shape[-1] - 1)


def _from_nucleus(probs: torch.Tensor, mass: torch.Tensor, generators: Sequence[Random]) -> torch.Tensor:
    """Sample among the fewest likeliest tokens whose mass reaches `mass`; the likeliest is always among them.

    By rejection: a token of the whole distribution is kept when less than `mass` lies on likelier ones (of equally
    likely ones, the smaller id first). It is the law of sorting first, without sorting a vocabulary at each step. Rows
    that are refused again and again (a nucleus of little mass) are sorted after all, so the loop ends whatever the
    mass.
    """
    picked = torch.empty(len(probs), dtype=torch.int64, device=probs.device)
    left = torch.arange(len(probs), device=probs.device)
    tokens = torch.arange(probs.shape[1], device=probs.device)
    for _ in range(_MOST_REFUSALS):
        if not len(left):
            return picked
        own = probs if len(left) == len(probs) else probs[left]
        drawn = _by_cumulative(own, _uniform(left, generators))
        height = own.gather(1, drawn.unsqueeze(1))
        # Logits of 16 bits are often equal.
        ahead = (own > height) | ((own == height) & (tokens < drawn.unsqueeze(1)))
        likelier = torch.where(ahead, own, 0.0).sum(dim=-1)
        kept = (likelier < mass[left]) | (mass[left] >= 1)
        picked[left[kept]] = drawn[kept]
        left = left[~kept]
    if len(left):
        values, ids = probs[left].sort(dim=-1, descending=True, stable=True)
        outside = values.cumsum(dim=-1) - values >= mass[left].unsqueeze(1)
        outside[:, 0] = False
        place = _by_cumulative(values.masked_fill(outside, 0.0), _uniform(left, generators))
        picked[left] = ids.gather(1, place.unsqueeze(1)).squeeze(1)
    return picked


def _uniform(rows: torch.Tensor, generators: Sequence[Random]) -> torch.Tensor:
    return torch.tensor([generators[row].random() for row in rows.tolist()], device=rows.device)


def token_tops(logits: torch.Tensor, tokens: torch.Tensor, counts: Sequence[int]) -> list[TokenTop]:
    """Log-probs at temperature 1 of the chosen token and of the `counts[row]` likeliest, a row.

    Args:
        logits: (rows, vocab) float32, before temperature.
        tokens: (rows,) int64, the chosen tokens.
        counts: How many to keep for each row.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    values, ids = logprobs.topk(min(max(counts), logits.shape[-1]), dim=-1)
    own = logprobs.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()
    rows = zip(tokens.tolist(), own, ids.tolist(), values.tolist(), counts, strict=True)
    return [TokenTop(token, lp, tuple(i[:k]), tuple(v[:k])) for token, lp, i, v, k in rows]
