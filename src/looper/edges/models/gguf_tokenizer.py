"""The tokenizer of a GGUF file in the two files that transformers reads: a byte-level BPE with its words, merges and chat template."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

from looper.edges.models.gguf import Header
from looper.errors import BadInput

SPLITS_DIGITS = {"smollm": True, "gpt-2": False}
"""By `tokenizer.ggml.pre`: whether each digit is cut off before the text is split as GPT-2 splits it."""
CONTROL, USER_DEFINED = 3, 4
"""In `tokenizer.ggml.token_type`: tokens that are found in a text as they are; the first are left out when tokens are read back."""
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Names of transformers (`bos_token`) and of GGUF (`bos_token_id`)."""


def tokenizer(header: Header) -> Tokenizer:
    """Raises BadInput for other kinds, and where lists are missing; others where they contradict each other."""
    kind, pre = (header.metadata.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if kind != "gpt2" or pre not in SPLITS_DIGITS:
        raise BadInput(
            f"its tokenizer is {kind} ({pre}), and only gpt2 ({', '.join(SPLITS_DIGITS)}) is converted here"
        )
    tokens, types = listed(header, "tokens"), listed(header, "token_type")
    merges = [tuple(pair.split(" ", 1)) for pair in listed(header, "merges")]
    made = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, merges))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if SPLITS_DIGITS[pre] else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    for wanted in (CONTROL, USER_DEFINED):
        added = [token for token, each in zip(tokens, types, strict=True) if each == wanted]
        made.add_tokens([AddedToken(token, special=wanted == CONTROL, normalized=False) for token in added])
    if header.metadata.get("tokenizer.ggml.add_bos_token") and (bos := _named(header).get("bos_token")):
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokens.index(bos))]
        )
    return made


def tokenizer_settings(header: Header) -> dict[str, Any]:
    """tokenizer_config.json; without `chat_template` where the file has none. Raises BadInput."""
    template = header.metadata.get("tokenizer.chat_template")
    return {
        **_named(header),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": header.metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        **({"chat_template": template} if template else {}),
    }


def listed(header: Header, name: str) -> list[Any]:
    """`tokenizer.ggml.NAME`. Raises BadInput where it is no list."""
    found = header.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list):
        raise BadInput(f"its metadata lack tokenizer.ggml.{name}")
    return found


def _named(header: Header) -> dict[str, str]:
    tokens = listed(header, "tokens")
    numbers = {role: header.metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in ROLES.items()}
    return {f"{role}_token": tokens[number] for role, number in numbers.items() if number is not None}
