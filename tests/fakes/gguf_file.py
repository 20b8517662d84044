"""GGUF files of small llamas, written from their specification: nothing here is Looper's own reader turned round.

Layout of the file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; of blocks: `block_q4_0` and its neighbours in ggml's
`ggml-common.h`.
"""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from looper.edges.models.mlx import nano_folder

Array = np.ndarray[Any, np.dtype[np.float32]]
TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ' ' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}"
)
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 512,
    "llama.rope.freq_base": 50_000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": TEMPLATE,
}
TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q6_K": 14}


def byte_letters() -> list[str]:
    """The letters that GPT-2 writes bytes with, by byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(byte if byte in plain else next(other)) for byte in range(256)]


def with_tokens(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Two control tokens, 256 bytes and three merges: ` t`, `he`, ` the`."""
    space = byte_letters()[ord(" ")]
    merges = [f"{space} t", "h e", f"{space}t he"]
    tokens = ["<s>", "</s>", *byte_letters(), *(merge.replace(" ", "") for merge in merges)]
    types = [3, 3] + [1] * (len(tokens) - 2)
    return {
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges, **metadata,
    }  # fmt: skip


def permuted(array: Array, heads: int) -> Array:
    """`permute` of llama.cpp's convert_hf_to_gguf.py."""
    return (
        array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        .swapaxes(1, 2)
        .reshape(array.shape)
    )


def _q8_0(block: Array) -> tuple[bytes, Array]:
    scale = np.float16(np.abs(block).max() / 127)
    numbers = np.round(block / np.float32(scale)).clip(-127, 127).astype(np.int8)
    return scale.tobytes() + numbers.tobytes(), numbers * np.float32(scale)


def _nibbles(numbers: Any) -> bytes:
    numbers = numbers.clip(0, 15).astype(np.uint8)
    return bytes(numbers[:16] | numbers[16:] << 4)


def _q4_0(block: Array) -> tuple[bytes, Array]:
    scale = np.float16(np.abs(block).max() / 7)
    numbers = (np.round(block / np.float32(scale)) + 8).clip(0, 15)
    return scale.tobytes() + _nibbles(numbers), (numbers - 8).astype(np.float32) * np.float32(scale)


def _q4_1(block: Array) -> tuple[bytes, Array]:
    scale, least = np.float16((block.max() - block.min()) / 15), np.float16(block.min())
    numbers = np.round((block - np.float32(least)) / np.float32(scale)).clip(0, 15)
    values = numbers.astype(np.float32) * np.float32(scale) + np.float32(least)
    return scale.tobytes() + least.tobytes() + _nibbles(numbers), values


_BLOCKS: dict[str, Callable[[Array], tuple[bytes, Array]]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}


def stored(array: Array, kind: str) -> tuple[bytes, Array]:
    """An array as a tensor's bytes, and what these stand for."""
    if kind not in _BLOCKS:
        written = array.astype(np.float16 if kind == "F16" else np.float32)
        return written.tobytes(), written.astype(np.float32)
    made = [_BLOCKS[kind](block) for block in array.reshape(-1, 32)]
    return b"".join(data for data, _ in made), np.concatenate([values for _, values in made]).reshape(
        array.shape
    )


def write_gguf(
    file: Path, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]
) -> None:
    """Tensors are type, shape (rows first) and bytes, by name."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += _string(key) + _value(value)
    offset, data = 0, b""
    for name, (kind, shape, content) in tensors.items():
        out += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        out += struct.pack("<IQ", TYPES[kind], offset)
        data += content + b"\0" * (-len(content) % 32)
        offset = len(data)
    file.write_bytes(out + b"\0" * (-len(out) % 32) + data)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _string(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(each) for each in value)
        case _:
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
"""What GGUF calls the parts of a layer of mlx-lm's."""


def nano(file: Path, splits: str = "gpt-2") -> None:
    """Write the embedded model, in F32. Texts are split into words as GPT-2 splits them, or by another rule of llama.cpp's, since GGUF has no name for nano's own rule: names
    of Python files and indented lines become other tokens."""
    folder = nano_folder()
    config, words = (
        json.loads((folder / name).read_text("utf-8")) for name in ("config.json", "tokenizer.json")
    )
    added = {each["id"]: each for each in words["added_tokens"]}
    named = {number: token for token, number in words["model"]["vocab"].items()}
    named |= {number: each["content"] for number, each in added.items()}
    heads, count = config["num_attention_heads"], config["vocab_size"]
    metadata = {
        "general.architecture": "llama",
        "general.file_type": 0,
        "llama.block_count": config["num_hidden_layers"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.rope.freq_base": config["rope_theta"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": splits,
        "tokenizer.ggml.tokens": [named[number] for number in range(count)],
        "tokenizer.ggml.token_type": [
            1 if number not in added else 3 if added[number]["special"] else 4 for number in range(count)
        ],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in words["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": config["eos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": (folder / "chat_template.jinja").read_text("utf-8"),
    }
    tensors = {}
    for name, array in load_file(folder / "model.safetensors").items():
        stem, _, end = name.rpartition(".")
        layer, _, part = stem.removeprefix("model.layers.").partition(".")
        called = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}.get(stem)
        turned = permuted(array, heads) if part in ("self_attn.q_proj", "self_attn.k_proj") else array
        tensors[f"{called or f'blk.{layer}.{LAYER[part]}'}.{end}"] = (
            "F32",
            array.shape,
            stored(turned, "F32")[0],
        )
    write_gguf(file, metadata, tensors)
