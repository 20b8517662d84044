"""What each server calls the parameters by which it draws a token, and what it cannot be told.

Left alone, servers cut the distribution and punish what was said before: Ollama 0.24 by top_k 40, top_p 0.9 and repeat_penalty 1.1
(`DefaultOptions` in api/types.go) or by what a model's Modelfile says, llama.cpp's server by top_k 40, top_p 0.95 and min_p 0.05
(`common_params_sampling`) or its command line, vLLM and SGLang by the model's own `generation_config.json`. At temperature 0 a
penalty still takes another token than the likeliest. So all parameters are sent with every request. OpenAI's and Anthropic's
interfaces cut and punish nothing of themselves, and some of their models refuse a parameter that is only named: there what says nothing is not sent.
"""

from collections.abc import Mapping
from typing import Any

from looper.errors import ModelUnfit
from looper.records.plan import AS_COMPUTED, Sampling

WINDOW = 64
"""Tokens that the penalties look back on: Ollama's and llama.cpp's own number."""
_STANDARD = {name: name for name in ("top_p", "presence_penalty", "frequency_penalty")}
_LLAMA = {**_STANDARD, "top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repeat_penalty"}
_VLLM = {**_LLAMA, "repeat_penalty": "repetition_penalty"}
NAMES: Mapping[str, Mapping[str, str]] = {
    "ollama": _LLAMA,
    "llamacpp": _LLAMA,
    "vllm": _VLLM,
    "sglang": _VLLM,
    "mlx_lm": _VLLM,
    "library": _STANDARD,
    "anthropic": {name: name for name in ("top_k", "top_p")},
}
"""Of each kind of server, what it calls each of our parameters. By `owned_by` of its list of models, where it has one; `library` is Ollama's other
door. Every other is taken for a server of OpenAI's interface and no more."""
BESIDE: Mapping[str, Mapping[str, Any]] = {
    "ollama": {"typical_p": 1.0, "mirostat": 0, "repeat_last_n": WINDOW},
    "llamacpp": {
        "typical_p": 1.0,
        "mirostat": 0,
        "repeat_last_n": WINDOW,
        "dynatemp_range": 0.0,
        "xtc_probability": 0.0,
        "dry_multiplier": 0.0,
        "top_n_sigma": -1.0,
    },
    "mlx_lm": {
        "repetition_context_size": WINDOW,
        "presence_context_size": WINDOW,
        "frequency_context_size": WINDOW,
        "xtc_probability": 0.0,
    },
}
"""What else such a server could have been started with, turned off."""
KEPT_SILENT = ("anthropic", "openai", "system")
"""Where a parameter that says nothing is not sent; `openai` and `system` own OpenAI's models."""


def parameters(kind: str, sampling: Sampling) -> dict[str, Any]:
    """What to send for it to a server of this kind. Raises ModelUnfit for what that cannot be told."""
    names = NAMES.get(kind, _STANDARD)
    if unsayable := [name for name in untold(kind) if getattr(sampling, name) != getattr(AS_COMPUTED, name)]:
        raise ModelUnfit(
            f"This kind of server cannot be told {', '.join(unsayable)}. Take it out of `sampling`, or use another server."
        )
    quiet = kind.startswith(KEPT_SILENT)
    return {
        **BESIDE.get(kind, {}),
        **{
            theirs: getattr(sampling, ours)
            for ours, theirs in names.items()
            if not quiet or getattr(sampling, ours) != getattr(AS_COMPUTED, ours)
        },
    }


def untold(kind: str) -> tuple[str, ...]:
    """Parameters that a server of this kind has no word for, so that it may do as it likes; none where it has them not."""
    names = NAMES.get(kind, _STANDARD)
    return tuple(name for name in Sampling.model_fields if name not in names)


def said_of(kind: str) -> str | None:
    """What is not known of how such a server draws a token, for the model's identity; None where all was said, or is as it should be."""
    left = untold(kind)
    return None if kind.startswith(KEPT_SILENT) or not left else f"{', '.join(left)} are the server's own"
