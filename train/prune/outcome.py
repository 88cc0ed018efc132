"""What a pruning method gives, and the check that it did what was asked.

A one-shot magnitude pruner of a known library raises no error and prunes nothing. So figures are measured on the model
when a method is done, and a method whose figures are not those that were asked for fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from potstill.errors import OptionError, TrainingError
from potstill.events import Listener
from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.masks import Masks

_SLACK = 0.005


@dataclass(frozen=True)
class PruneResult:
    """What was pruned; the model itself was changed in place.

    Attributes:
        facts: Figures measured on the model afterwards, and notes; JSON types. Always there: `parameters`,
            `parameters_before`, `zeros` (share of zeros in the matrices of the blocks).
        masks: Which weights stay, where zeros stand in tensors of the old size; None where tensors were cut.
        asked: Figures that the facts of the same names must equal, within half a percent.
    """

    facts: dict[str, Any]
    masks: Masks | None = None
    asked: dict[str, float] = field(default_factory=dict)


class PruneMethod(Protocol):
    """A method: changes the model in place. `amount` is a share to remove (float), or a count (int) for structure."""

    def __call__(
        self, model: Any, amount: float | int, calibration: Calibration, listener: Listener, /, **options: Any
    ) -> PruneResult:
        """Prune.

        Raises:
            OptionError: An amount or option that cannot be.
            UserError: A model that the method does not know.
            TrainingError: The model afterwards is not what was asked for.
        """
        ...


def parameter_count(model: nn.Module) -> int:
    """Parameters of a model, tied ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def zero_share(parts: Anatomy) -> float:
    """Share of zeros in the matrices of the blocks."""
    zeros = total = 0
    for _, linear in parts.matrices():
        zeros += linear.weight.numel() - int(linear.weight.count_nonzero())
        total += linear.weight.numel()
    return zeros / total


def size_facts(parts: Anatomy, before: int) -> dict[str, Any]:
    """The facts that every method gives, measured on the model as it is now.

    Args:
        parts: The model.
        before: Its parameters before the method.
    """
    return {
        "parameters": parameter_count(parts.model), "parameters_before": before, "zeros": zero_share(parts),
    }  # fmt: skip


def checked(result: PruneResult) -> PruneResult:
    """The result itself, once its facts are what was asked for.

    Raises:
        TrainingError: They are not.
    """
    wrong = [
        f"{name} is {result.facts.get(name)!r}, asked for {wanted:g}"
        for name, wanted in result.asked.items()
        if not isinstance(result.facts.get(name), int | float)
        or abs(result.facts[name] - wanted) > _SLACK * max(abs(wanted), 1e-9)
    ]
    if wrong:
        raise TrainingError(f"pruning did not do what was asked: {'; '.join(wrong)}")
    return result


def checked_share(method: str, amount: float | int) -> float:
    """A share to remove, in (0, 1).

    Raises:
        OptionError: It is not.
    """
    if isinstance(amount, bool) or not 0 < amount < 1:
        raise OptionError(
            f"prune {method}", [f"{amount!r} is no share to remove; choose a number between 0 and 1, such as 0.5"]
        )
    return float(amount)


def checked_count(method: str, what: str, amount: float | int, total: int) -> int:
    """How many of `total` units to remove: a count as it is, a share rounded to the nearest count.

    Raises:
        OptionError: None or all of them would go.
    """
    count = amount if isinstance(amount, int) else round(amount * total)
    if isinstance(amount, bool) or not 1 <= count < total or amount <= 0:
        given = f"{amount!r}" if isinstance(amount, int) else f"{amount!r} of {total}, which is {count},"
        raise OptionError(f"prune {method}", [f"{given} is no number of {what} to remove; choose 1 to {total - 1}"])
    return int(count)


def checked_cut(
    units: str, model: Any, amount: float | int, calibration: Calibration, *, total: Callable[[Anatomy], int],
    by: str, known: Sequence[str],
) -> tuple[Anatomy, int, int]:  # fmt: skip
    """What a cut of whole units starts from, once it can be done.

    Args:
        units: Their name, which is the method's.
        model: A model that `anatomy` knows.
        amount: Units to remove (int), or their share (float).
        calibration: Texts.
        total: How many units a model has.
        by: What their importance is taken from.
        known: Every `by` of the method; the first one looks at the texts.

    Returns:
        The model's parts, how many units go, its parameters before.

    Raises:
        OptionError: An impossible amount, an unknown choice, or too little text.
        UserError: An unknown build of model.
    """
    if by not in known:
        raise OptionError(f"prune {units}", [f"by {by!r} is unknown; known: {', '.join(known)}"])
    parts = anatomy(model)
    count = checked_count(units, units, amount, total(parts))
    if by == known[0]:
        checked_calibration(units, calibration, 64)
    return parts, count, parameter_count(model)


def checked_calibration(method: str, calibration: Calibration, tokens: int) -> None:
    """Refuse calibration data that are too few to tell anything.

    Raises:
        OptionError: Fewer tokens than `tokens`.
    """
    if calibration.tokens < tokens:
        raise OptionError(
            f"prune {method}",
            [f"{calibration.tokens} tokens of calibration text are too few; give at least {tokens}"],
        )
