"""Adapters as weights: put into a model, compared, added up, cut, written.

An adapter is a pair of factors for each adapted matrix, A of shape (inputs, rank) and B of shape (rank, outputs); the change
is ΔW = multiplier · (A·B)ᵀ.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from looper.edges.models.mixture import MixtureLinear
from looper.edges.models.mlx import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from looper.errors import BadInput
from looper.records.training import AdapterKind, TrainingSettings


def adapt(model: Any, settings: TrainingSettings, rank: int | None = None) -> dict[str, Any]:
    """Freeze the model and add what is to be trained; the parameters that do so again when the adapter is loaded.

    mlx-lm's `scale` is the multiplier alpha / rank. `rank` takes the place of the settings' own.
    """
    model.freeze()
    parameters = lora_parameters(model, settings) | ({} if rank is None else {"rank": rank})
    match settings.kind:
        case AdapterKind.FULL:
            model.unfreeze()
        case AdapterKind.LORA | AdapterKind.DORA:
            dora = settings.kind is AdapterKind.DORA
            linear_to_lora_layers(model, layer_count(model, settings), parameters, use_dora=dora)
        case _:
            assert_never(settings.kind)
    return parameters


def layer_count(model: Any, settings: TrainingSettings) -> int:
    return len(model.layers) if settings.layers == -1 else min(settings.layers, len(model.layers))


def lora_parameters(model: Any, settings: TrainingSettings) -> dict[str, Any]:
    """As mlx-lm reads them from an adapter's configuration."""
    parameters: dict[str, Any] = {"rank": settings.rank, "scale": settings.multiplier, "dropout": 0.0}
    if settings.kind is AdapterKind.DORA:
        parameters["keys"] = _with_norms(model)
    return parameters


def _with_norms(model: Any) -> list[str]:
    """Linear layers whose every row has a length. DoRA divides by it; a row of zeros makes mlx-lm's give NaN."""
    found: dict[str, bool] = {}
    for layer in model.layers:
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear | nn.QuantizedLinear):
                rows = mx.linalg.norm(_plain(module).astype(mx.float32), axis=1)
                found[name] = found.get(name, True) and bool((rows > 0).all().item())
    return sorted(name for name, whole in found.items() if whole)


def relative_change(before: dict[str, Any], model: Any) -> float:
    """‖ΔW‖ / ‖W‖ over all matrices that the adapter touches; `before` are the base's weights by name."""
    change = size = 0.0
    for _, module in model.named_modules():
        if hasattr(module, "lora_a"):
            inner = module.linear if hasattr(module, "linear") else module.embedding
            weight = _plain(inner)
            fused = _plain(module.fuse(dequantize=True)) if "m" in module else None
            delta = (
                fused - weight
                if fused is not None
                else _share(module) * _product(module.lora_a, module.lora_b, weight.shape)
            )
            change += float((delta.astype(mx.float32) ** 2).sum().item())
            size += float((weight.astype(mx.float32) ** 2).sum().item())
    if size == 0:
        after = dict(tree_flatten(model.parameters()))
        for name, weight in before.items():
            change += float(((after[name] - weight).astype(mx.float32) ** 2).sum().item())
            size += float((weight.astype(mx.float32) ** 2).sum().item())
    return math.sqrt(change / size)


def _share(layer: Any) -> float:
    """What the factors' product is multiplied by; a mixture counts with all experts at equal weight."""
    return float(layer.scale) / (layer.experts if isinstance(layer, MixtureLinear) else 1)


def _plain(layer: Any) -> Any:
    """A layer's weight, out of its quantised form where it has one."""
    if "scales" not in layer:
        return layer.weight
    return mx.dequantize(
        layer.weight, layer.scales, layer.get("biases"), layer.group_size, layer.bits, mode=layer.mode
    )


def _product(a: Any, b: Any, shape: tuple[int, ...]) -> Any:
    """B·A in the shape of the weight that it is added to."""
    product = a @ b
    return product if tuple(product.shape) == tuple(shape) else product.swapaxes(-1, -2)


def adapter_arrays(model: Any, settings: TrainingSettings) -> dict[str, Any]:
    """What an adapter is made of: all that was added to the model, or all of the model where all of it is trained."""
    if settings.kind is AdapterKind.FULL:
        return dict(tree_flatten(model.trainable_parameters()))
    own = (".lora_a", ".lora_b", ".m", ".router")
    return {name: value for name, value in tree_flatten(model.parameters()) if name.endswith(own)}


def write_adapter(
    folder: Path,
    model: Any,
    settings: TrainingSettings,
    parameters: dict[str, Any],
    mixture: dict[str, int | None] | None = None,
) -> None:
    """The adapter as mlx-lm loads it; one with a router as `load_adapter` does."""
    config: dict[str, Any] = {
        "fine_tune_type": settings.kind.value,
        "num_layers": layer_count(model, settings),
        "lora_parameters": parameters,
    }
    if mixture is not None:
        config["mixture"] = mixture
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    mx.save_safetensors(str(folder / ADAPTER_WEIGHTS), adapter_arrays(model, settings))


def load_arrays(folder: Path) -> dict[str, Any]:
    """The arrays of an adapter by name. Raises BadInput where they cannot be read."""
    try:
        found: Any = mx.load(str(folder / ADAPTER_WEIGHTS))
    except Exception as error:  # MLX raises what its reader raises.
        raise BadInput(
            f"The adapter {folder.name} cannot be read: {error}. Remove it: looper adapter rm {folder.name} --force; then train again."
        ) from error
    return dict(found)


def random_like(arrays: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Noise in place of every array; the change of each matrix keeps its norm ‖A·B‖."""
    draw = np.random.default_rng(seed)
    found = {
        name: mx.array(_scaled(draw.normal(size=value.shape), value)).astype(value.dtype)
        for name, value in sorted(arrays.items())
    }
    for name in list(found):
        if name.endswith(".lora_a"):
            other = name.removesuffix("a") + "b"
            wanted, drawn = (_product_norm(of[name], of[other]) for of in (arrays, found))
            found[other] = found[other] * (wanted / max(drawn, 1e-12))
    return found


def _scaled(noise: Any, like: Any) -> Any:
    norm = float(np.linalg.norm(np.array(like.astype(mx.float32))))
    return (noise * (norm / max(float(np.linalg.norm(noise)), 1e-12))).astype(np.float32)


def _product_norm(a: Any, b: Any) -> float:
    """‖A·B‖ from the small square matrices AᵀA and BBᵀ."""
    a, b = (mx.array(value).astype(mx.float32) for value in (a, b))
    return math.sqrt(max(0.0, float(((a.T @ a) * (b @ b.T)).sum().item())))


def concatenated(parts: Sequence[Mapping[str, Any]], weight: float = 1.0) -> dict[str, Any]:
    """The factors of several adapters as one of the summed rank, whose change is `weight` times the sum of theirs.

    That is the sum of the products AᵢBᵢ. The product of summed factors would hold every Aᵢ with every Bⱼ.
    """
    found = {}
    for name in parts[0]:
        axis = 1 if name.endswith(".lora_a") else 0
        scale = 1.0 if axis == 1 else weight
        found[name] = mx.concatenate([part[name] for part in parts], axis=axis) * scale
    return found


def truncated(arrays: Mapping[str, Any], rank: int) -> tuple[dict[str, Any], float]:
    """Factors of a lower rank whose product is as near as possible to that of the given ones, and how near:
    ‖AB − A′B′‖ / ‖AB‖ over all matrices. Lengths of the singular values are shared evenly between A and B."""
    found, lost, whole = {}, 0.0, 0.0
    for name in (name for name in arrays if name.endswith(".lora_a")):
        other = name.removesuffix("a") + "b"
        a, b = (np.array(arrays[key].astype(mx.float32), np.float64) for key in (name, other))
        (left, left_small), (right, right_small) = np.linalg.qr(a), np.linalg.qr(b.T)
        u, values, v = np.linalg.svd(left_small @ right_small.T)
        kept = np.sqrt(values[:rank])
        found[name] = mx.array((left @ u[:, :rank] * kept).astype(np.float32)).astype(arrays[name].dtype)
        found[other] = mx.array((kept[:, None] * (v[:rank] @ right.T)).astype(np.float32)).astype(
            arrays[other].dtype
        )
        lost += float((values[rank:] ** 2).sum())
        whole += float((values**2).sum())
    return found, math.sqrt(lost / whole) if whole else 0.0


def widened(old: Mapping[str, Any], fresh: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fresh factors of a larger rank with the old ones in their first places, and which numbers are the old ones."""
    found, masks = {}, {}
    for name, value in old.items():
        whole = fresh[name]
        if name.endswith(".lora_a"):
            at = mx.arange(whole.shape[1])[None, :] < value.shape[1]
            padding = [(0, 0), (0, whole.shape[1] - value.shape[1])]
        else:
            at = mx.arange(whole.shape[0])[:, None] < value.shape[0]
            padding = [(0, whole.shape[0] - value.shape[0]), (0, 0)]
        masks[name] = mx.broadcast_to(at, whole.shape)
        found[name] = mx.where(masks[name], mx.pad(value, padding), whole)
    return found, masks


def rank_of(arrays: Mapping[str, Any]) -> int:
    """Columns of the factors A."""
    return next((int(value.shape[1]) for name, value in arrays.items() if name.endswith(".lora_a")), 0)
