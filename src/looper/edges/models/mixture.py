"""Several adapters in one model, weighted for each token by a router in each layer.

The factors of all experts stand side by side, so one layer is an adapter of the summed rank whose middle is weighted:
y = W·x + multiplier · B·(g ⊗ A·x), where g = softmax of R·x gives each expert's share. With equal shares it is the mean of
the products BᵢAᵢ. Routing by token and layer needs nothing from outside the layer, so conversations of any batch go through
it together. Source: mixture of LoRA experts, Wu et al. 2024.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

from looper.edges.models.mlx import ADAPTER_CONFIG, ADAPTER_WEIGHTS


class MixtureLinear(LoRALinear):  # type: ignore[misc,unused-ignore]
    """A linear layer with `experts` adapters of equal rank on it."""

    @staticmethod
    def from_lora(layer: Any, experts: int, top: int | None) -> "MixtureLinear":
        inputs, rank = layer.lora_a.shape
        found = MixtureLinear(inputs, layer.lora_b.shape[1], r=rank, scale=layer.scale)
        found.linear, found.lora_a, found.lora_b = layer.linear, layer.lora_a, layer.lora_b
        found.router = mx.zeros((inputs, experts))
        found.experts, found.top, found.ear = experts, top, None
        return found

    def votes(self, x: Any) -> Any:
        """What the router holds of each expert, as log-shares; shape (..., experts)."""
        found = nn.log_softmax((x @ self.router).astype(mx.float32), axis=-1)
        if self.ear is not None:
            self.ear.hear(found)
        return found

    def shares(self, x: Any) -> Any:
        """Weight of each expert for each token, shape (..., experts); the sum is 1."""
        votes = self.votes(x)
        if self.top is not None and self.top < self.experts:
            least = mx.sort(votes, axis=-1)[..., -self.top : -self.top + 1 or None]
            votes = mx.where(votes >= least, votes, -1e9)
        return mx.softmax(votes, axis=-1)

    def __call__(self, x: Any) -> Any:
        middle = x @ self.lora_a
        parts = middle.reshape(*middle.shape[:-1], self.experts, -1)
        weighted = parts * self.shares(x)[..., None].astype(parts.dtype)
        return self.linear(x) + (self.scale * (weighted.reshape(middle.shape) @ self.lora_b)).astype(x.dtype)


def add_routers(model: Any, experts: int, top: int | None) -> None:
    """Make a mixture of every adapted layer; the routers give all experts the same share."""
    for block in model.layers:
        found = [
            (name, MixtureLinear.from_lora(layer, experts, top))
            for name, layer in block.named_modules()
            if isinstance(layer, LoRALinear)
        ]
        block.update_modules(tree_unflatten(found))


def load_adapter(model: Any, folder: str) -> None:
    """Put an adapter of any kind into a model. Raises whatever a damaged file makes of it."""
    config = json.loads((Path(folder) / ADAPTER_CONFIG).read_text())
    mixture = config.get("mixture")
    if mixture is None:
        load_adapters(model, folder)
        return
    # mlx-lm knows no routers, so the layers come first and their weights after.
    linear_to_lora_layers(model, config["num_layers"], config["lora_parameters"])
    add_routers(model, mixture["experts"], mixture["top"])
    model.load_weights(str(Path(folder) / ADAPTER_WEIGHTS), strict=False)
