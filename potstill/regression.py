"""Softmax regression, which both the mixture of real texts and the start of a classifier's head are fitted by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
