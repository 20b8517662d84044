"""The process that makes an mlx-lm folder of a GGUF file of the architecture llama.

    python -m looper.edges.models.gguf_child FILE FOLDER

Weights become float32, whatever they were: the numbers that the file's blocks stand for, the same bytes on every machine, and MLX on a
CPU is more than ten times as slow with half precision. MLX keeps memory until its process ends, which is why this is one.

Logits of SmolLM2-135M differ from llama.cpp's on the same weights in F32 by 5e-5 at most (five prompts, the 2,000 likeliest tokens, natural
logarithm); on the Q4_1 file itself by 0.5, since llama.cpp rounds activations to 8 bits there.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # transformers imports PyTorch wherever that is installed: three seconds and 250 MB for nothing.
    sys.modules["torch"] = None  # type: ignore[assignment]

from looper.edges.models.structure import quick_transformers

quick_transformers()

import mlx.core as mx
from mlx_lm.utils import load

from looper.edges.models.blas import bind_openblas
from looper.edges.models.gguf import Header, read_header
from looper.edges.models.gguf_tokenizer import listed, tokenizer, tokenizer_settings
from looper.errors import BadInput, LooperError

OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names in a GGUF file (`blk.N.` before them, `.weight` behind) and in a folder of mlx-lm (`model.layers.N.`)."""
_REQUIRED: Any = object()


class _Named:
    """Metadata of the architecture, by its name without the prefix `llama.`."""

    def __init__(self, header: Header) -> None:
        self._of = header.metadata

    def __call__(self, name: str, default: Any = _REQUIRED) -> Any:
        """Raises BadInput where it has to be there and is not."""
        found = self._of.get(f"llama.{name}", default)
        if found is _REQUIRED:
            raise BadInput(f"its metadata lack llama.{name}")
        return found


def configuration(header: Header) -> dict[str, Any]:
    """config.json of mlx-lm and transformers. Raises BadInput for another architecture than plain llama."""
    architecture = header.metadata.get("general.architecture")
    if architecture != "llama":
        raise BadInput(f"its architecture is {architecture}, and only llama is converted here")
    of = _Named(header)
    heads, width = of("attention.head_count"), of("embedding_length")
    head = of("attention.key_length", width // heads)
    if of("expert_count", 0) or of("rope.scaling.type", "none") != "none":
        raise BadInput("it has experts or scaled positions, and only the plain llama is converted here")
    if of("rope.dimension_count", head) != head:
        raise BadInput("it turns a part of each head only, and only the plain llama is converted here")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": of("attention.head_count_kv", heads),
        "head_dim": head,
        "vocab_size": len(listed(header, "tokens")),
        "max_position_embeddings": of("context_length"),
        "rms_norm_eps": of("attention.layer_norm_rms_epsilon"),
        "rope_theta": of("rope.freq_base", 10_000.0),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "hidden_act": "silu",
        "bos_token_id": header.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.metadata.get("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "float32",
    }


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor that the file has to hold, by its name there, and its shape (rows of output first)."""
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    words = (config["vocab_size"], width)
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    layer = {
        "attn_norm": (width,),
        "ffn_norm": (width,),
        "attn_output": (width, queries),
        "ffn_down": (width, inner),
    }
    layer |= {"attn_q": (queries, width)} | dict.fromkeys(("attn_k", "attn_v"), (keys, width))
    layer |= dict.fromkeys(("ffn_gate", "ffn_up"), (inner, width))
    outside = {"token_embd": words, "output_norm": (width,)} | (
        {} if config["tie_word_embeddings"] else {"output": words}
    )
    found = {f"{name}.weight": shape for name, shape in outside.items()}
    for number in range(config["num_hidden_layers"]):
        found |= {f"blk.{number}.{name}.weight": shape for name, shape in layer.items()}
    return found


def weights(file: Path, header: Header, config: dict[str, Any]) -> Iterator[tuple[str, mx.array]]:
    """Names of mlx-lm and float32 arrays. Raises BadInput where names or shapes are not those of `shapes`."""
    layers = config["num_hidden_layers"]
    if layers * len(LAYER) > len(header.tensors):
        raise BadInput(f"its metadata say {layers} layers, and it holds fewer tensors than these have")
    wanted = shapes(config)
    if apart := sorted(wanted.keys() ^ header.tensors.keys()):
        said = "lacks" if apart[0] in wanted else "holds what a plain llama has not:"
        raise BadInput(f"it {said} {apart[0]}")
    for name, shape in wanted.items():
        if header.tensors[name].shape != shape:
            raise BadInput(
                f"the shape of {name} is {header.tensors[name].shape}, and its metadata say {shape}"
            )
    stored: Any = mx.load(str(file), format="gguf")
    for name in wanted:
        array = _float32(stored, name)
        *layer, part, _ = name.split(".")
        if part in ("attn_q", "attn_k"):
            heads = config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
            array = unpermuted(array, heads)
        yield f"model.layers.{layer[1]}.{LAYER[part]}.weight" if layer else f"{OUTSIDE[part]}.weight", array


def _float32(stored: dict[str, mx.array], name: str) -> mx.array:
    """Scales are widened before they multiply, or each weight would be rounded to the 11 bits of float16."""
    array, base = stored[name], name.removesuffix("weight")
    if f"{base}scales" not in stored:
        return array.astype(mx.float32)
    scales, biases = (stored[f"{base}{part}"].astype(mx.float32) for part in ("scales", "biases"))
    # Blocks of GGUF hold 32 weights.
    return mx.dequantize(array, scales, biases, group_size=32, bits=array.shape[-1] // scales.shape[-1])


def unpermuted(array: mx.array, heads: int) -> mx.array:
    """Rows of q or k as transformers has them. llama.cpp stores both halves of a head interleaved, since it turns neighbours
    (`permute` in its convert_hf_to_gguf.py), and transformers and MLX turn one half against the other."""
    rows, width = array.shape
    return array.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def convert(file: Path, folder: Path) -> None:
    """Write the model in FILE to FOLDER, which exists, and let it read one word. Raises BadInput."""
    header = read_header(file)
    try:
        config = configuration(header)
        arrays = dict(weights(file, header, config))
        words, settings = tokenizer(header), tokenizer_settings(header)
    except BadInput as error:
        raise BadInput(f"{file} cannot be converted: {error}. Name another GGUF file.") from error
    except Exception as error:  # Whatever damaged metadata make of it.
        raise BadInput(
            f"{file} cannot be converted: {type(error).__name__}: {error}. Download it again."
        ) from error
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "mlx"})
    words.save(str(folder / "tokenizer.json"))
    for name, values in (("config", config), ("tokenizer_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(values, indent=2, ensure_ascii=False), "utf-8")
    del arrays
    model, read = load(str(folder))
    logits = model(mx.array([read.encode("Hello") or [0]]))
    if not mx.isfinite(logits).all().item():
        raise BadInput(f"{file} cannot be converted: its weights give no finite logits. Download it again.")


def main() -> None:
    bind_openblas()
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except LooperError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
