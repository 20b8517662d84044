"""Weights as MLX computes with them.

A BLAS multiplies float32 and float64. MLX's CPU build multiplies half precision by loops of its own: 32 tokens of SmolLM2-135M took 0.2 CPU seconds
in float32, 1.2 in bfloat16 and 2.0 in float16. So on a CPU weights are widened, which changes no value and takes twice the memory;
a GPU computes with them as they are stored.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import load


def loaded(folder: Path | str) -> tuple[Any, Any]:
    """The model in a folder and its tokenizer, each weight in float32 where it is a number and the device a CPU."""
    model, tokenizer, *_ = load(str(folder), lazy=True)
    if mx.default_device().type == mx.DeviceType.cpu:
        model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    return model, tokenizer
