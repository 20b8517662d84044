"""AdamW with what mlx-lm's loop has no place for: clipped gradients, weights that are held, weights that stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from looper.edges.trainers.encoding import Encoded
from looper.edges.trainers.mlx_batches import padded
from looper.edges.trainers.mlx_losses import weighted_loss
from looper.records.strategy import Gathering

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Regularizer:
    """What becomes of each array after a step; arrays that are not named move freely."""

    towards: Arrays = field(default_factory=dict)
    """Values to be pulled to, or to keep."""
    strength: Arrays = field(default_factory=dict)
    """Of the pull, for each number: strength · F."""
    kept: Arrays = field(default_factory=dict)
    """True for each number that does not move at all."""

    def after_step(self, moved: dict[str, Any], learning_rate: Any) -> dict[str, Any]:
        """The pull as its exact solution, θ ← (θ + ηs·θ*) / (1 + ηs), and not as one more gradient: Adam would scale the
        gradient of a strong pull like any other, and a plain step would overshoot. No pull leaves θ to the last bit."""
        found = dict(moved)
        for name, strength in self.strength.items():
            share = learning_rate * strength
            found[name] = moved[name] + share / (1 + share) * (self.towards[name] - moved[name])
        for name, kept in self.kept.items():
            found[name] = mx.where(kept, self.towards[name], found[name])
        return found


class Clipped(optim.AdamW):  # type: ignore[misc,unused-ignore]
    def __init__(self, learning_rate: float, norm: float, hold: Regularizer | None = None) -> None:
        super().__init__(learning_rate=learning_rate, betas=[0.9, 0.95], weight_decay=0.01)
        self._norm, self._hold = norm, hold or Regularizer()

    def update(self, model: Any, gradients: Any) -> None:
        flat = dict(tree_flatten(gradients))
        for name, kept in self._hold.kept.items():
            flat[name] = mx.where(kept, 0.0, flat[name])
        clipped, _ = optim.clip_grad_norm(tree_unflatten(list(flat.items())), self._norm)
        moved = dict(tree_flatten(self.apply_gradients(clipped, model)))
        held = self._hold.after_step(moved, self.learning_rate)
        model.update(tree_unflatten(list(held.items())))


def fisher(model: Any, examples: Sequence[Encoded], samples: int) -> dict[str, Any]:
    """Diagonal of the empirical Fisher information of what is trained: mean square of the gradients of single examples'
    losses, scaled to mean 1 over all numbers, so that one strength means the same on any model."""
    gradient = nn.value_and_grad(model, weighted_loss)
    model.eval()
    total: dict[str, Any] = {}
    for item in examples[:samples]:
        _, found = gradient(model, *padded([item]))
        for name, value in tree_flatten(found):
            total[name] = total.get(name, 0.0) + value.astype(mx.float32) ** 2
        mx.eval(total)
    model.train()
    return with_mean_one(total)


def with_mean_one(values: Arrays) -> dict[str, Any]:
    """All arrays times one number, so that the mean of all their numbers is 1; all zeros stay."""
    mean = sum(float(value.sum().item()) for value in values.values())
    mean /= max(1, sum(value.size for value in values.values()))
    return {name: value / mean if mean > 0 else value for name, value in values.items()}


def accumulated(before: Arrays, now: Arrays, batches: int, how: Gathering) -> dict[str, Any]:
    """Fisher information of `batches` earlier batches and of the one just learned."""
    match how:
        case Gathering.LATEST:
            return dict(now)
        case Gathering.SUM:
            return {name: before[name] + value for name, value in now.items()} if before else dict(now)
        case Gathering.MEAN:
            return {
                name: (before[name] * batches + value) / (batches + 1) if before else value
                for name, value in now.items()
            }
