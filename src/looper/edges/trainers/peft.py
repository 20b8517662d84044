"""Adapters in the layout of PEFT, as transformers, vLLM and Ollama read them, and back.

Both name the same factors. MLX keeps A as (inputs, rank) and B as (rank, outputs) and multiplies by `scale`; PEFT keeps both
transposed and multiplies by lora_alpha / r, so lora_alpha = multiplier · rank. PEFT wraps the model twice, hence the prefix.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looper.edges.models.mlx import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from looper.edges.trainers.adapter_store import CARD, weights_hash
from looper.errors import BadInput, reason, unwritable
from looper.records.training import AdapterKind, AdapterRecord, Make

PREFIX = "base_model.model."
PEFT_WEIGHTS = "adapter_model.safetensors"
EXPORTED = "Name a folder that was written by: looper adapter export"
_PEFT_NAME = re.compile(r"^base_model\.model\.(.+)\.lora_(A|B)\.weight$")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def must_be_plain_lora(card: AdapterRecord, layout: str) -> None:
    """Raises BadInput for an adapter of another kind, which has no such layout."""
    if card.settings.kind is not AdapterKind.LORA or card.make in (Make.MIXTURE, Make.ROUTED_BY_CHANCE):
        what = card.make.value if card.settings.kind is AdapterKind.LORA else card.settings.kind.value
        raise BadInput(
            f"The adapter {card.id} is {what}; only plain LoRA has a {layout} layout that other engines read."
        )


def to_peft(folder: Path, card: AdapterRecord, out: Path) -> None:
    """Write the adapter in `folder` to `out`, with its card. Raises BadInput where PEFT has no such adapter."""
    must_be_plain_lora(card, "PEFT")
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file. Name a folder, or write a file for llama.cpp with --gguf.")
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty. Name another folder.")
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / ADAPTER_WEIGHTS)
    found = {
        f"{PREFIX}{name[: -len('.lora_a')]}.lora_{name[-1].upper()}.weight": value.T.copy()
        for name, value in arrays.items()
    }
    alpha = float(card.settings.multiplier * card.rank)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": card.base.name,
        "r": card.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,  # Several readers take no 80.0 for 80.
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({name.split(".")[-2] for name in arrays}),
        "layers_to_transform": sorted({int(at) for name in arrays for at in _LAYER.findall(f".{name}")}),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_file(found, out / PEFT_WEIGHTS, metadata={"format": "pt"})
        (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        (out / CARD).write_bytes(card.to_json())
    except OSError as error:
        raise unwritable(out, "folder", error) from error


def from_peft(folder: Path, adapters: Path) -> AdapterRecord:
    """Take an adapter in PEFT's layout, with its card, among the adapters.

    Raises BadInput where it is no plain LoRA, or where no card says what it was trained on: nobody could keep it from being
    judged on its own training tasks.
    """
    from safetensors.numpy import load_file

    _must_be_exported(folder)
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        arrays = load_file(folder / PEFT_WEIGHTS)
        kind, rank, alpha = config["peft_type"], int(config["r"]), float(config["lora_alpha"])
    except KeyError as error:
        raise BadInput(f"{folder / ADAPTER_CONFIG} has no {error.args[0]}. {EXPORTED}") from error
    except Exception as error:  # Whatever a damaged file makes of it.
        raise BadInput(f"{folder} holds no adapter in PEFT's layout: {reason(error)}. {EXPORTED}") from error
    card = _card_of(folder)
    odd = [name for name in arrays if not _PEFT_NAME.match(name)]
    if kind != "LORA" or config.get("use_dora") or odd or rank < 1:
        raise BadInput(f"{folder} is no plain LoRA{f': it holds {odd[0]}' if odd else ''}. {EXPORTED}")
    multiplier = alpha / rank
    if rank != card.rank or abs(multiplier - card.settings.multiplier) > 1e-9:
        raise BadInput(
            f"{folder} has rank {rank} and multiplier {multiplier:g}; its card says {card.rank} and "
            f"{card.settings.multiplier:g}."
        )
    out = adapters / card.id
    if out.exists():
        raise BadInput(f"The adapter {card.id} is there already, so there is nothing to import.")
    work = adapters / f".import-{card.id}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_mlx_layout(arrays, card.rank, card.settings.multiplier, work)
    kept = card.model_copy(update={"weights_hash": weights_hash(work)})
    (work / CARD).write_bytes(kept.to_json())
    work.rename(out)
    return kept


def _must_be_exported(folder: Path) -> None:
    """Raises BadInput for a place that is no folder, or lacks a file that an export has."""
    if not folder.is_dir():
        raise BadInput(
            f"{folder} is a file. {EXPORTED}"
            if folder.exists()
            else f"There is no folder {folder}. {EXPORTED}"
        )
    for name in (ADAPTER_CONFIG, PEFT_WEIGHTS):
        if not (folder / name).is_file():
            raise BadInput(f"{folder} holds no adapter in PEFT's layout: {name} is missing. {EXPORTED}")


def _card_of(folder: Path) -> AdapterRecord:
    what = f"{folder} has no card ({CARD}) that says what the adapter was trained on"
    try:
        return AdapterRecord.from_json((folder / CARD).read_bytes())
    except FileNotFoundError as error:
        raise BadInput(f"{what}. {EXPORTED}") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{what}: it cannot be read, {reason(error)}. {EXPORTED}") from error


def _mlx_name(name: str) -> str:
    match = _PEFT_NAME.match(name)
    assert match is not None
    return f"{match[1]}.lora_{match[2].lower()}"


def write_mlx_layout(arrays: Mapping[str, Any], rank: int, multiplier: float, folder: Path) -> None:
    """Write the arrays of a PEFT adapter, by PEFT's names, as mlx-lm loads them."""
    from safetensors.numpy import save_file

    found = {_mlx_name(name): value.T.copy() for name, value in arrays.items()}
    layers = {int(at) for name in found for at in _LAYER.findall(f".{name}")}
    keys = sorted({re.sub(r"^.*\.layers\.\d+\.", "", name).rsplit(".", 1)[0] for name in found})
    parameters = {"rank": rank, "scale": multiplier, "dropout": 0.0, "keys": keys}
    config = {"fine_tune_type": "lora", "num_layers": len(layers), "lora_parameters": parameters}
    save_file(found, folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
