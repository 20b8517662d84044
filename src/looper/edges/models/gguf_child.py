"""The process that makes an mlx-lm folder of a GGUF file of the architecture llama.

    python -m looper.edges.models.gguf_child FILE FOLDER

Weights become float32, whatever they were: exactly what llama.cpp computes with, the same bytes on every machine, and MLX on a CPU is
more than ten times as slow with half precision. MLX keeps memory until its process ends, which is why this is one.
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
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

from looper.edges.models.blas import bind_openblas
from looper.edges.models.gguf import Header, read_header
from looper.edges.models.sendable import one_line
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
SPLITS_DIGITS = {"smollm": True, "gpt-2": False}
"""By `tokenizer.ggml.pre`: whether each digit is a word of its own before the words of GPT-2 are."""
_CONTROL, _USER_DEFINED = 3, 4
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
        "vocab_size": len(_listed(header, "tokens")),
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
    layer = {"attn_norm": (width,), "ffn_norm": (width,), "attn_output": (width, queries), "ffn_down": (width, inner)}
    layer |= {"attn_q": (queries, width)} | dict.fromkeys(("attn_k", "attn_v"), (keys, width))
    layer |= dict.fromkeys(("ffn_gate", "ffn_up"), (inner, width))
    outside = {"token_embd": words, "output_norm": (width,)} | ({} if config["tie_word_embeddings"] else {"output": words})
    found = {f"{name}.weight": shape for name, shape in outside.items()}
    for number in range(config["num_hidden_layers"]):
        found |= {f"blk.{number}.{name}.weight": shape for name, shape in layer.items()}
    return found


def weights(file: Path, header: Header, config: dict[str, Any]) -> Iterator[tuple[str, mx.array]]:
    """Names of mlx-lm and float32 arrays. Raises BadInput where names or shapes are not those of `shapes`."""
    wanted = shapes(config)
    if apart := sorted(wanted.keys() ^ header.tensors.keys()):
        raise BadInput(f"it {'lacks' if apart[0] in wanted else 'has'} {apart[0]}, which a plain llama {'has' if apart[0] in wanted else 'lacks'}")
    for name, shape in wanted.items():
        if header.tensors[name].shape != shape:
            raise BadInput(f"the shape of {name} is {header.tensors[name].shape}, and its metadata say {shape}")
    stored = mx.load(str(file), format="gguf")
    for name in wanted:
        array = _float32(stored, name)
        *layer, part, _ = name.split(".")
        if part in ("attn_q", "attn_k"):
            heads = config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
            array = unpermuted(array, heads)
        yield f"model.layers.{layer[1]}.{LAYER[part]}.weight" if layer else f"{OUTSIDE[part]}.weight", array


def _float32(stored: dict[str, mx.array], name: str) -> mx.array:
    """Scales are made wide before they multiply, as llama.cpp does, or each weight would be rounded to 11 bits."""
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


def write_tokenizer(header: Header, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json. Raises BadInput for another tokenizer than a byte-level BPE in SPLITS_DIGITS."""
    kind, pre = (header.metadata.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if kind != "gpt2" or pre not in SPLITS_DIGITS:
        raise BadInput(f"its tokenizer is {kind} ({pre}), and only gpt2 ({', '.join(SPLITS_DIGITS)}) is converted here")
    tokens, types = _listed(header, "tokens"), _listed(header, "token_type")
    merges = [tuple(pair.split(" ", 1)) for pair in _listed(header, "merges")]
    made = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, merges))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if SPLITS_DIGITS[pre] else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*digits, words])
    made.decoder = decoders.ByteLevel()
    for number in (_CONTROL, _USER_DEFINED):
        added = [token for token, its in zip(tokens, types, strict=True) if its == number]
        made.add_tokens([AddedToken(token, special=number == _CONTROL, normalized=False) for token in added])
    names = {
        f"{role}_token": tokens[number]
        for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if (number := header.metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None
    }
    if header.metadata.get("tokenizer.ggml.add_bos_token") and (bos := names.get("bos_token")):
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokens.index(bos))]
        )
    made.save(str(folder / "tokenizer.json"))
    settings = names | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": header.metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
    }
    if template := header.metadata.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), "utf-8")


def _listed(header: Header, name: str) -> list[Any]:
    """Raises BadInput."""
    found = header.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list):
        raise BadInput(f"its metadata lack tokenizer.ggml.{name}")
    return found


def convert(file: Path, folder: Path) -> None:
    """Write the model in FILE to FOLDER, which exists, and run one token through it. Raises BadInput."""
    header = read_header(file)
    try:
        config = configuration(header)
        arrays = dict(weights(file, header, config))
        write_tokenizer(header, folder)
    except BadInput as error:
        raise BadInput(f"{file} cannot be converted: {error}. Name another GGUF file.") from error
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    del arrays
    model, tokenizer = load(str(folder))
    logits = model(mx.array([tokenizer.encode("Hello") or [0]]))
    if not mx.isfinite(logits).all().item():
        raise BadInput(f"{file} cannot be converted: its weights give no finite logits. Download it again.")


def main() -> None:
    bind_openblas()
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except LooperError as error:
        sys.stderr.write(f"{one_line(str(error))}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
