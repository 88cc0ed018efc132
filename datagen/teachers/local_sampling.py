"""One token for each row of a batch, each row by its own rules and its own random numbers.

A row draws one uniform number a token from a generator seeded by its request, and takes the token where the
cumulative distribution passes it. So a request's sample depends on its own seed, whoever shares its batch (up to
the rounding of the matrix products, which a different batch can change).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch

from potstill.teacher import TokenTop

_HEAD = 512


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
    uniform = torch.tensor([generators[row].random() for row in warm], device=logits.device)
    probs = torch.softmax((logits if len(warm) == len(temperatures) else logits[index]) / heat, dim=-1)
    cut = [place for place, row in enumerate(warm) if top_ps[row] < 1]
    whole = [place for place, row in enumerate(warm) if top_ps[row] >= 1]
    picked = torch.empty(len(warm), dtype=torch.int64, device=logits.device)
    if whole:
        rows = torch.tensor(whole, device=logits.device)
        picked[rows] = _by_cumulative(probs if not cut else probs[rows], uniform[rows])
    if cut:
        rows = torch.tensor(cut, device=logits.device)
        mass = torch.tensor([top_ps[warm[place]] for place in cut], device=logits.device)
        picked[rows] = _from_nucleus(probs if not whole else probs[rows], uniform[rows], mass)
    chosen[index] = picked
    return chosen


def _by_cumulative(probs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    cumulative = probs.cumsum(dim=-1)
    target = (uniform * cumulative[:, -1]).unsqueeze(1)
    # `right` skips tokens of zero probability at the very start.
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=probs.shape[-1] - 1)


def _from_nucleus(probs: torch.Tensor, uniform: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """Sample among the fewest likeliest tokens whose mass reaches `mass`."""
    values, ids = probs.topk(min(_HEAD, probs.shape[-1]), dim=-1)
    if bool((values.sum(dim=-1) < mass).any()) and values.shape[-1] < probs.shape[-1]:
        values, ids = probs.sort(dim=-1, descending=True)
    before = values.cumsum(dim=-1) - values
    kept = values.masked_fill(before >= mass.unsqueeze(1), 0.0)
    return ids.gather(1, _by_cumulative(kept, uniform).unsqueeze(1)).squeeze(1)


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
