"""Adapters as GGUF, as llama.cpp (`--lora FILE`) and Ollama read them.

Not by way of PEFT's layout: Ollama 0.24 takes that too, and gives other probabilities than PEFT and MLX, since it turns the rows of q and k
in `lora_a`, where those of `lora_b` belong (convert_lora_to_gguf.py of llama.cpp turns these).
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looper.edges.models.mlx import ADAPTER_WEIGHTS
from looper.edges.trainers.peft import must_be_plain_lora
from looper.errors import BadInput, unwritable
from looper.records.training import AdapterRecord

TURNED = {"llama": True, "mistral": True, "qwen2": False}
"""Types of models in config.json whose adapters are written, and whether llama.cpp stores the rows of q and k in another order."""
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""What llama.cpp calls these types."""
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def architecture(card: AdapterRecord, config: Mapping[str, Any]) -> str:
    """What llama.cpp calls the type of the model that the adapter was trained on. Raises BadInput for one that is not written here."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise BadInput(
            f"The adapter {card.id} was trained on a model of the type {kind}, and adapters are written as GGUF for "
            f"{', '.join(ARCHITECTURES)} only. Serve it with mlx:FOLDER, or export it in PEFT's layout."
        )
    return ARCHITECTURES[kind]


def to_gguf(folder: Path, card: AdapterRecord, config: Mapping[str, Any], file: Path) -> None:
    """Write the adapter in `folder` to `file`, in float32. `config` is config.json of the model that it was trained on.
    Raises BadInput where GGUF has no such adapter, or the file is there."""
    must_be_plain_lora(card, "GGUF")
    called, kind = architecture(card, config), str(config["model_type"])
    if file.exists():
        raise BadInput(f"{file} is there already. Name another file.")
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    writer = GGUFWriter(temporary, called)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", card.settings.multiplier * card.rank)
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config.get("num_key_value_heads", config["num_attention_heads"]),
    }
    for name, array in sorted(load_file(folder / ADAPTER_WEIGHTS).items()):
        _, layer, part, factor = _read(name, card)
        rows = array.T.astype("float32")  # MLX has inputs first, GGUF's arrays have outputs first.
        if factor == "lora_b" and TURNED[kind] and part in heads:
            rows = _turned(rows, heads[part])
        writer.add_tensor(f"blk.{layer}.{part}.weight.{factor}", rows.copy())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        temporary.replace(file)
    except OSError as error:
        raise unwritable(file, "file", error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _read(name: str, card: AdapterRecord) -> tuple[str, str, str, str]:
    """`model.layers.3.self_attn.q_proj.lora_a` → ("model", "3", "attn_q", "lora_a"). Raises BadInput for parts that no llama has."""
    before, _, rest = name.partition(".layers.")
    layer, _, rest = rest.partition(".")
    part, _, factor = rest.rpartition(".")
    if part not in PARTS:
        raise BadInput(
            f"The adapter {card.id} changes {name}, which GGUF has no name for here. Serve it with mlx:FOLDER."
        )
    return before, layer, PARTS[part], factor


def _turned(rows: Any, heads: int) -> Any:
    """Rows of q or k as llama.cpp has them: both halves of a head interleaved (`permute` in convert_hf_to_gguf.py)."""
    count, width = rows.shape
    return rows.reshape(heads, 2, count // heads // 2, width).swapaxes(1, 2).reshape(count, width)
