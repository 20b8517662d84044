"""Whether a server computes what MLX does, without an adapter and with it: what it says of next tokens is compared.

Servers ignore adapters, take stale ones from their caches and sit them on other weights without a word. Log probabilities of generated
tokens are compared, not those of a prompt's own: vLLM leaves factors of its last layer out of the latter.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from looper.edges.models.mlx import MlxModel
from looper.errors import BadInput

TEXTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "To see which files are in this folder, run the command",
    "import os\n\nfor name in os",
    "print([10, 250][1:], 2026 + 15, sum(",
)
"""What the next token is asked of."""
TOP = 20
"""Tokens that servers tell of at most."""
APART = 0.05
"""Nats. Half-precision weights and other kernels move a token of the twenty by up to 0.01; factors in another order by 0.4 (both SmolLM2,
Ollama 0.24)."""

NextTokens = Callable[[str], Mapping[str, float]]
"""Log probabilities in nats of the likeliest tokens after a text without a template, by what each token says. Empty where a server does not tell."""


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter that was trained here, for somebody else's server."""

    id: str
    rank: int
    digest: str
    """Content hash of its folder here: what MLX says of a model that carries it."""
    in_peft: Callable[[], Path]
    """Makes it in PEFT's layout. The folder's path holds the digest: at it lies never another adapter."""
    compared: Callable[[NextTokens, NextTokens, str, str], str]
    """`arrived` for base, adapted, `served` and `otherwise`."""
    say: Callable[[str], None]


def arrived(
    base: NextTokens,
    adapted: NextTokens,
    model: MlxModel,
    folder: Path,
    *,
    served: str,
    otherwise: str,
) -> str:
    """How near a server's model is to `model`, and how near both are with the adapter in `folder`, which was trained on `model`.

    `served` names the server's model, `otherwise` is said where it is another one. Raises BadInput where it is another model than that of the
    training, or the adapter is not in force as it is.
    """
    treated_model = model.with_adapter(folder)
    noise = plain = treated = moved = 0.0
    compared = 0
    for text in TEXTS:
        theirs, theirs_adapted = base(text), adapted(text)
        if not theirs or not theirs_adapted:
            continue
        compared += 1
        ours, ours_adapted = model.next_tokens(text), treated_model.next_tokens(text)
        noise = max(noise, apart(theirs, base(text)))
        plain = max(plain, apart(theirs, ours))
        treated = max(treated, apart(theirs_adapted, ours_adapted))
        moved = max(moved, apart(dict(list(ours.items())[:TOP]), ours_adapted))
    if not compared:
        return (
            "not compared with MLX, since the server told no log probabilities: Ollama 0.24 does, but of the word that ends a reply, "
            "which a model may say at once"
        )
    most = APART + noise
    if plain > most:
        raise BadInput(
            f"{served} is not the model that the adapter was trained on: log probabilities of next tokens are up to {plain:.3f} nats from "
            f"those of {model.identity().name}, where {most:.3f} is allowed. {otherwise}"
        )
    if treated > most:
        raise BadInput(
            f"The server does not compute with the adapter what it was trained to: log probabilities of next tokens are up to "
            f"{treated:.3f} nats from MLX's, where {most:.3f} is allowed and the base's are within {plain:.3f}. Serve the adapter with mlx:FOLDER."
        )
    said = f"log probabilities of next tokens are within {treated:.3f} nats of MLX's with the adapter, {plain:.3f} without"
    if moved <= most + plain:
        return f"{said}; the adapter moves none of them by more than {moved:.3f}, so that it is in force cannot be told"
    return f"{said}; the adapter moves them by up to {moved:.2f}"


def apart(some: Mapping[str, float], others: Mapping[str, float]) -> float:
    """The largest difference; infinite where fewer than half of the tokens are among the others."""
    both = some.keys() & others.keys()
    if not both or 2 * len(both) < len(some):
        return math.inf
    return max(abs(some[token] - others[token]) for token in both)
