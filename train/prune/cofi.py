"""CoFi: coarse and fine switches learn together with the weights which parts of a student to give up.

    minimise over weights and α, maximise over λ:
        (1 − w) · KL(teacher ‖ student) + w · Σ_i min_j ‖h_teacher,i − W h_student,j‖² / ‖h_teacher,i‖²
        + λ₁ (s − t) + λ₂ (s − t)²

Switches (`potstill.train.prune.hard_concrete`) stand on whole attention and feed-forward blocks, key-value groups
(heads where each has its own), neurons and channels of the hidden state; s is the expected sparsity of the blocks and
t rises to the target in the first half. Layers of the teacher are matched with those of the student that are nearest
now, in order, since the student's layers may go.

What is learnt differs from layer to layer, which no configuration can say. By default it is rounded: layers whose two
blocks are off go, the others keep the same number of groups and neurons, the best of each, and the number of neurons is
what meets the target. `uniform=False` leaves the tensors and zero-masks instead. The facts say which, and what was
learnt.

Where this leaves the paper: a student that is given here has been trained, so no epochs of plain training come first
(there 1 to 4 of a fresh BERT), and t rises through half of the steps (there through 2 of 20 epochs). Hundreds of steps
stand where the paper has tens of thousands, so log α and λ move ten times as fast (`switch_rate` 0.1, there 0.01): Adam
moves a switch by about its rate a step, and from its start log α has 4.1 to go until it is off. In 200 steps towards a
sparsity of 0.5 the expected one reached 0.26 at 0.01 and 0.46 at 0.1 (a random decoder of four layers). With thousands
of steps give 0.01. The tuning that follows in the paper (20 epochs) is the step `heal`.

Source: Xia et al., Structured pruning learns compact and accurate models, arXiv:2204.00408 §3 (BERT-base at 95 %:
MNLI 80.6, SST-2 90.4, 12 times faster; at 60 %: MNLI 85.3; 20 epochs). The student is healed afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from potstill.errors import OptionError, TrainingError, UserError
from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.layers import spaced_layers
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.gates import gated
from potstill.train.prune.hard_concrete import Switches
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked_calibration, checked_share
from potstill.train.prune.rounding import mask_units, round_units
from potstill.train.prune.stream import evaluating
from potstill.train.teach import fresh_batches, heard

_MATCHED = 4


def prune_cofi(
    model: Any, amount: float | int, calibration: Calibration, listener: Listener = silent, *,
    teacher: Any = None, steps: int = 200, learning_rate: float = 2e-5, switch_rate: float = 0.1,
    layer_weight: float = 0.9, temperature: float = 2.0, hidden: bool = True, uniform: bool = True, seed: int = 0,
) -> PruneResult:  # fmt: skip
    """Learn which units go, then cut or mask them, in place.

    Args:
        model: A model that `anatomy` knows, in float32.
        amount: Share of the blocks' weights to remove, in (0, 1).
        calibration: Texts to learn from; a batch a step.
        listener: Told after each step.
        teacher: Whose answers and states are learnt; None takes a copy of the model as given.
        steps: Optimiser steps; the paper takes tens of thousands, a small student shows the way after hundreds.
        learning_rate: Of the weights.
        switch_rate: Of log α and λ.
        layer_weight: w, the share of the layers' distillation in the loss.
        temperature: T of the soft targets.
        hidden: Whether channels of the hidden state may go.
        uniform: Round to the same numbers in every layer and cut; else zero-mask what was learnt.
        seed: Seed of the noise and the order of the texts.

    Raises:
        OptionError: Impossible options, or too little text.
        UserError: An unknown build of model.
        TrainingError: The loss is not finite.
    """
    share = checked_share("cofi", amount)
    faults = []
    if steps < 2:
        faults.append(f"steps {steps} is too few; give at least 2")
    if not 0 <= layer_weight <= 1:
        faults.append(f"layer_weight {layer_weight!r} lies outside 0 to 1")
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        faults.append("the student's weights are not float32; call .float()")
    if faults:
        raise OptionError("prune cofi", faults)
    checked_calibration("cofi", calibration, 64)
    parts = anatomy(model)
    if hidden:
        parts.check_hidden("set hidden=no")
        if int(model.get_input_embeddings().weight.shape[1]) != int(model.config.get_text_config().hidden_size):
            raise UserError(f"the embeddings of {type(model).__name__} have channels of their own; set hidden=no")
    taught = _Taught(parts, teacher, hidden=hidden)
    found = taught.learn(
        calibration, share, steps, learning_rate, switch_rate, layer_weight, temperature, seed, listener
    )
    how = {"method": "cofi", "steps": steps, "expected_sparsity": round(found, 4)}
    # In double precision, so that units that are surely on still have an order.
    chance = {name: value.detach().cpu() for name, value in taught.switches.double().open().items()}
    return round_units(parts, chance, share, how) if uniform else mask_units(parts, chance, share, how)


class _Taught:
    """A student with switches, and its teacher."""

    def __init__(self, parts: Anatomy, teacher: Any, *, hidden: bool):
        self.parts = parts
        self.teacher = copy.deepcopy(parts.model) if teacher is None else teacher
        self.switches = Switches(parts, hidden=hidden).to(parts.model.device)
        width = int(parts.model.config.get_text_config().hidden_size)
        self.same = int(self.teacher.config.get_text_config().hidden_size) == width
        self.translate = nn.Linear(width, width, bias=False, device=parts.model.device)
        nn.init.eye_(self.translate.weight)
        # λ₁ and λ₂ start at 0: while nothing is asked for, the switches feel the loss alone.
        self.multipliers = nn.Parameter(torch.zeros(2, device=parts.model.device))

    def learn(
        self, data: Calibration, share: float, steps: int, rate: float, switch_rate: float, layer_weight: float,
        temperature: float, seed: int, listener: Listener,
    ) -> float:  # fmt: skip
        """Train, and give the expected sparsity at the end."""
        model, switches = self.parts.model, self.switches
        draw = torch.Generator().manual_seed(seed)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        down = torch.optim.AdamW(
            [
                {"params": [*weights, *self.translate.parameters()], "lr": rate},
                {"params": list(switches.parameters()), "lr": switch_rate},
            ],
            weight_decay=0.0,
        )
        up = torch.optim.Adam([self.multipliers], lr=switch_rate, maximize=True)
        batches = fresh_batches(data, seed)
        # What is 0 already, of a head that is masked say, stays so.
        alive = Masks.of_zeros(model, [name for name, _ in self.parts.matrices()])
        with evaluating(model), evaluating(self.teacher), alive.hold(model):
            for step in range(1, steps + 1):
                batch = {name: value.to(model.device) for name, value in next(batches).items()}
                target = share * min(1.0, 2 * step / steps)
                with switched(self.parts, switches.sample(draw)):
                    answer, ours, theirs = heard(
                        model, self.teacher, batch, data.kind, temperature, states=bool(layer_weight and self.same)
                    )
                    loss = (1 - layer_weight) * answer
                    if ours:
                        loss = loss + layer_weight * self._layer_loss([self.translate(state) for state in ours], theirs)
                gap = switches.sparsity() - target
                total = loss + self.multipliers[0] * gap + self.multipliers[1] * gap.square()
                if not torch.isfinite(total):
                    raise TrainingError(
                        f"the loss became {float(total.detach())} at step {step} of cofi; "
                        f"lower learning_rate (now {rate:g})"
                    )
                total.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                down.step()
                up.step()
                down.zero_grad(set_to_none=True)
                up.zero_grad(set_to_none=True)
                off = float(gap.detach()) + target
                message = f"cofi: step {step}/{steps}, loss {float(loss.detach()):.4f}, sparsity {off:.1%}"
                listener(Event("compress", "progress", message, step, steps))
        return float(switches.sparsity().detach())

    def _layer_loss(self, ours: list[torch.Tensor], theirs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Distance of some of the teacher's layers from the student's nearest ones, in order."""
        wanted = spaced_layers(len(theirs), min(_MATCHED, len(theirs)))
        total, first = torch.zeros((), device=theirs[0].device), 0
        for place, layer in enumerate(wanted):
            # Later layers of the teacher must find one too, so the last few are left for them.
            last = len(ours) - (len(wanted) - 1 - place)
            scale = theirs[layer].square().mean()
            distances = torch.stack([(ours[j] - theirs[layer]).square().mean() / scale for j in range(first, last)])
            nearest = int(distances.argmin())
            total = total + distances[nearest]
            first += nearest + 1
        return total / len(wanted)


@contextmanager
def switched(parts: Anatomy, z: dict[str, torch.Tensor]) -> Iterator[None]:
    """Run a model under switches: units inside a layer, and channels wherever something enters the hidden state."""
    hooks = []
    if "hidden" in z:
        channels = z["hidden"][0]

        def close(_: nn.Module, __: Any, made: Any) -> Any:
            return made * channels

        hooks = [module.register_forward_hook(close) for module in _writers(parts)]
    try:
        with gated(parts, z["attention"] * z["groups"], z["feedforward"] * z["neurons"]):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _writers(parts: Anatomy) -> list[nn.Module]:
    """The modules whose outputs make up the hidden state."""
    if parts.decoder:
        return [parts.model.get_input_embeddings(), *(m for b in parts.blocks for m in (b.out, b.down))]
    # After each block stands a norm whose shift would open a closed channel again: close it behind that.
    ends = [block.module.get_submodule(name) for block in parts.blocks for name in ("attention.output", "output")]
    embeddings = next(m for n, m in parts.model.named_modules() if n.rpartition(".")[2] == "embeddings")
    return [embeddings, *ends]
