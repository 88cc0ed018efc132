"""Ridge regression whose strength is chosen by how well it ranks what it has not seen.

    β = Xᵀ (X Xᵀ + λ I)⁻¹ y        X centred masks, y centred and scaled scores; fewer rows than columns are no trouble

The paper's program fits the regression by gradient descent with an L1 weight out of {100, 1e-4, 0}. On scores of
spread 1, as here, the first takes every coefficient to 0, and the others are next to no penalty, under which fewer
sub-models than modules leave the coefficients undetermined. A square penalty has one answer for any number of
sub-models, in closed form, the same on every machine, and leaves each module a coefficient of its own to be ranked by.
The grid here has five strengths; folds and Kendall's τ are the paper's.

Source: Dery et al., arXiv:2402.05406 §3.2 (regression of sub-models' utility; strength by Kendall's τ over 5 folds).
"""

from __future__ import annotations

import torch

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
_FOLDS = 5


def ridge_by_rank(masks: torch.Tensor, scores: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, float]:
    """Coefficients of modules, and the mean τ of held-out folds under the chosen strength.

    Args:
        masks: (n, modules) of 0 and 1.
        scores: (n,) float, higher is better.
        seed: Seed of the folds.

    Returns:
        (modules,) float64 and a number in [-1, 1].
    """
    x, y = masks.double(), scores.double()
    y = (y - y.mean()) / y.std().clamp(min=1e-12)
    fold = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)) % _FOLDS
    taus = {}
    for strength in STRENGTHS:
        found = []
        for held in range(_FOLDS):
            beta, bias = _ridge(x[fold != held], y[fold != held], strength)
            found.append(kendall(x[fold == held] @ beta + bias, y[fold == held]))
        taus[strength] = sum(found) / _FOLDS
    best = max(STRENGTHS, key=lambda strength: (taus[strength], strength))
    return _ridge(x, y, best)[0], taus[best]


def kendall(one: torch.Tensor, other: torch.Tensor) -> float:
    """Kendall's τ-a of two lists: pairs in the same order less pairs in the opposite, of all pairs."""
    first, second = torch.triu_indices(len(one), len(one), 1)
    agree = (one[first] - one[second]).sign() * (other[first] - other[second]).sign()
    return float(agree.mean()) if len(agree) else 0.0


def _ridge(x: torch.Tensor, y: torch.Tensor, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    mean = x.mean(0)
    centred = x - mean
    dual = torch.linalg.solve(centred @ centred.T + strength * torch.eye(len(y), dtype=x.dtype), y - y.mean())
    beta = centred.T @ dual
    return beta, y.mean() - mean @ beta
