"""How much memory a training will take, before it is begun."""

import json
import math
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from looper.edges.trainers.child import said_by_kernel
from looper.errors import BadInput
from looper.records.text import counted
from looper.records.training import AdapterKind, TrainingSettings

FLOAT_BYTES = 4
COPIES = 4
"""Of each trained number: itself, its gradient, two moments of Adam."""
SHARE = 0.9
"""Of the memory that is free now, so much may be asked for."""


class DoesNotFit(BadInput):
    """By the estimate."""


def less_memory(settings: TrainingSettings) -> tuple[TrainingSettings, str] | None:
    """The next thing to do without, dearest to learning last, and what it is in words; None where nothing is left."""
    if not settings.grad_checkpoint:
        return settings.model_copy(
            update={"grad_checkpoint": True}
        ), "activations are computed twice and not kept"
    if settings.batch_size > 1:
        smaller = settings.batch_size // 2
        return settings.model_copy(
            update={"batch_size": smaller}
        ), f"batches have {counted(smaller, 'example')}"
    return None


def memory_bytes(folder: Path, settings: TrainingSettings) -> int:
    """Weights, what is trained with its gradients and moments, and activations of one batch of the longest examples.

    Activations are counted as eight vectors of the model's width, three of the feed-forward's and one row of attention
    weights per head, for each token and layer, and three of the vocabulary per token, in fp32; with recomputation one layer of
    them and one vector per layer. Weights on Linux in fp32 too (`mlx_load`). An upper estimate: batches are as long as their longest example, not as the limit. Raises
    BadInput for a folder that holds no model.
    """
    with _model_in(folder) as config:
        return _memory_bytes(folder, config, settings)


@contextmanager
def _model_in(folder: Path) -> Iterator[dict[str, Any]]:
    """Its configuration; models that see as well keep that of their language model by itself. Within: whatever is not there or not of its kind
    is BadInput."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        yield {**config, **(config.get("text_config") or {})}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, struct.error) as error:
        said = f"no {error} in it" if isinstance(error, KeyError) else f"{type(error).__name__} {error}"
        raise BadInput(f"The model in {folder} cannot be read: {said}.") from error


def _memory_bytes(folder: Path, config: Mapping[str, Any], settings: TrainingSettings) -> int:
    shapes = tensor_shapes(folder)
    weights = _weights_bytes(folder, shapes)
    layers, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
    if settings.kind is AdapterKind.FULL:
        trained = sum(math.prod(shape) for shape in shapes.values())
    else:
        share = 1.0 if settings.layers == -1 else min(1.0, settings.layers / layers)
        inside = [shape for name, shape in shapes.items() if len(shape) == 2 and ".layers." in name]
        trained = round(share * settings.rank * sum(sum(shape) for shape in inside))
    tokens = settings.batch_size * settings.max_tokens
    per_layer = 8 * width + 3 * int(config.get("intermediate_size", 4 * width))
    per_layer += int(config["num_attention_heads"]) * settings.max_tokens
    kept = per_layer + layers * width if settings.grad_checkpoint else layers * per_layer
    activations = tokens * (kept + 3 * int(config["vocab_size"]))
    return weights + FLOAT_BYTES * (COPIES * trained + activations)


def serving_bytes(folder: Path, tokens: int) -> int | None:
    """Weights, and a window of so many tokens: a key and a value for each token, layer and head; None of a model that has no heads of
    attention. Raises BadInput for a folder that holds no model."""
    with _model_in(folder) as config:
        weights = _weights_bytes(folder, tensor_shapes(folder))
        if "num_attention_heads" not in config:
            return None
        heads = int(config["num_attention_heads"])
        width = config.get("head_dim") or int(config["hidden_size"]) // heads
        held = int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads") or heads) * int(width)
        size = FLOAT_BYTES if sys.platform == "linux" else FLOAT_BYTES // 2
        return weights + 2 * size * tokens * held


def _weights_bytes(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    widened = sum(math.prod(shape) for shape in shapes.values()) if sys.platform == "linux" else 0
    return max(stored, FLOAT_BYTES * widened)


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a model, from the heads of its files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            head = json.loads(stream.read(length))
        shapes |= {name: tuple(entry["shape"]) for name, entry in head.items() if name != "__metadata__"}
    return shapes


def free_bytes() -> int:
    """Memory that can be had now without swapping, as the system estimates it; all of it where it does not say."""
    free = said_by_kernel("/proc/meminfo", "MemAvailable:")
    return free or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def must_fit(folder: Path, settings: TrainingSettings) -> None:
    """Raises BadInput with the estimate where a training does not fit."""
    wanted = memory_bytes(folder, settings)
    free = free_bytes()
    if wanted > SHARE * free:
        raise DoesNotFit(
            f"This training needs about {wanted / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free. Lower rank "
            f"({settings.rank}), batch_size ({settings.batch_size}) or max_tokens ({settings.max_tokens}), or set "
            "grad_checkpoint = true."
        )
