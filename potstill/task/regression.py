"""Softmax regression, the offsets that balance it, and agreement: what labels of texts and a student's head share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_ROUNDS = 200


def balanced_offsets(
    scores: NDArray[np.float64], mass: NDArray[np.float64] | None = None, shares: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """What to subtract from scores so that their softmax has a wanted mean (iterative proportional fitting).

    Args:
        scores: (n, n_labels), finite.
        mass: (n,) weight of each row in the mean, of sum 1; equal by default.
        shares: (n_labels,) the mean wanted, of sum 1; equal by default.

    Returns:
        (n_labels,) of mean 0.
    """
    import numpy as np

    count, labels = scores.shape
    mass = np.full(count, 1 / count) if mass is None else mass
    wanted = np.log(np.full(labels, 1 / labels) if shares is None else shares)
    offsets = np.zeros(labels)
    for _ in range(_ROUNDS):
        moved = scores - offsets
        likely = np.exp(moved - moved.max(axis=1, keepdims=True))
        step = np.log(mass @ (likely / likely.sum(axis=1, keepdims=True)) + 1e-300) - wanted
        offsets = offsets + step
        if np.abs(step).max() < 1e-6:
            break
    return np.asarray(offsets - offsets.mean(), dtype=np.float64)


def softmax_regression(
    features: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64], *, ridge: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minimise mean cross-entropy + ridge·‖W‖²/2 by L-BFGS.

    Args:
        features: (n, width).
        targets: (n, n_labels) probabilities.
        weights: (n,) weight of each row in the mean.
        ridge: Penalty; the bias has none.

    Returns:
        W (n_labels, width) and b (n_labels,), float64.
    """
    import torch

    inputs, wanted = torch.as_tensor(features, dtype=torch.float64), torch.as_tensor(targets, dtype=torch.float64)
    share = torch.as_tensor(weights, dtype=torch.float64)
    share = share / share.sum().clamp(min=1e-12)
    weight = torch.zeros(wanted.shape[1], inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(wanted.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer: Any = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logs = torch.log_softmax(inputs @ weight.T + bias, dim=1)
        value = -(share * (wanted * logs).sum(dim=1)).sum() + ridge * weight.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)
    return weight.detach().numpy(), bias.detach().numpy()


def kappa(told: NDArray[np.int64], seen: NDArray[np.int64], labels: int) -> float:
    """Cohen's kappa of two answers to the same rows: 0 by chance, 1 at best, 0 where both know one label alone.

    Args:
        told: (n,) label index of each row, at least one.
        seen: (n,) the other answer.
        labels: How many labels there are.
    """
    import numpy as np

    chance = float(np.bincount(told, minlength=labels) @ np.bincount(seen, minlength=labels)) / len(told) ** 2
    return 0.0 if chance >= 1 else (float((told == seen).mean()) - chance) / (1 - chance)
