"""Whether a server computes what MLX does, without an adapter and with it: what it says of next tokens is compared.

Servers ignore adapters, take stale ones from their caches and sit them on other weights without a word. Log probabilities of generated
tokens are compared, not those of a prompt's own tokens: vLLM is reported to leave changes of the last layer out of the latter (issue 51594 of vLLM).
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.edges.models.mlx import MlxModel
from looper.errors import (
    BadInput,
    ModelMissing,
    ModelReplyBroken,
    ModelServerFault,
    ModelUnfit,
    ModelUnreachable,
)
from looper.records.training import AdapterRecord
from looper.records.trajectory import Reply

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

LOAD_S = 300.0
"""For a server to load an adapter, and to say one token."""

NextTokens = Callable[[str], Mapping[str, float]]
"""Log probabilities in nats of the likeliest tokens after a text without a template, by what each token says. Empty where a server does not tell."""


class ComputesOtherwise(BadInput):
    """A server does not compute with an adapter what MLX does; its base may."""


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter that was trained here, for somebody else's server."""

    card: AdapterRecord
    folder: Path
    digest: str
    """Content hash of the folder: what MLX says of a model that carries it."""
    config: Callable[[], Mapping[str, Any]]
    """config.json of the model that it was trained on. Raises BadInput where that is not here."""
    in_peft: Callable[[], Path]
    """Makes it in PEFT's layout. The folder's path holds the digest: at it lies never another adapter."""
    compared: Callable[[NextTokens, NextTokens, str, str, str], "Arrival"]
    """`arrived` for base, adapted, `served`, `otherwise` and `cached`."""
    say: Callable[[str], None]

    @property
    def id(self) -> str:
        return self.card.id


@dataclass(frozen=True)
class Arrival:
    """An adapter that was seen to be in force on a server."""

    said: str
    text: str
    """Among those that were asked about the one after which the adapter moves most."""
    tokens: Mapping[str, float]
    """What the server says after it with the adapter."""

    def holds(self, adapted: NextTokens) -> bool:
        """Whether the server still says so: one that was started again, or has slept, may have another adapter or none."""
        return apart(self.tokens, adapted(self.text)) <= APART


class Carried:
    """An adapter that a server's model carries: seen to be in force before anything is asked, and anew whenever the server may be another."""

    def __init__(self, adapter: ServedAdapter) -> None:
        self.adapter = adapter
        self.by: Any = None
        """What requests say so that the adapter is in force; None before it was."""
        self.lock = threading.RLock()
        """Held by whoever puts it in force."""
        self._arrival: Arrival | None = None

    @property
    def said(self) -> str:
        """How it was seen to be in force, in words with figures; empty where it was not yet, or may be no more."""
        return self._arrival.said if self._arrival else ""

    def compare(
        self,
        by: Any,
        base: NextTokens,
        adapted: NextTokens,
        what: str,
        name: str,
        otherwise: str,
        cached: str = "",
    ) -> None:
        """With MLX, unless it is in force by the same words, and `adapted`, which is asked by `by`, says what it said. `what` is the server, `name`
        its model; `otherwise` and `cached` as of `arrived`. Raises ModelUnfit."""
        if by == self.by and self._arrival and self._arrival.holds(adapted):
            return
        self.by, self._arrival = by, None
        try:
            found = self.adapter.compared(base, adapted, name, otherwise, cached)
        except BadInput as error:
            raise ModelUnfit(str(error)) from error
        if not found.tokens:
            raise ModelUnfit(
                f"{what} tells no log probabilities, so whether it has the adapter {self.adapter.id} cannot be seen. Serve it "
                "with mlx:FOLDER."
            )
        self.adapter.say(f"{what} has the adapter {self.adapter.id}: {found.said}")
        self._arrival = found

    def lost(self) -> None:
        """The server may be another one by now, with another adapter or none."""
        self._arrival = None

    def answered(self, arrive: Callable[[], None], ask: Callable[[], Reply]) -> Reply:
        """A reply with the adapter in force; `arrive` sees to that. Raises ModelError."""
        if not self._arrival:
            arrive()
        try:
            return ask()
        except (ModelUnreachable, ModelReplyBroken, ModelServerFault):
            # The server that comes back may be another one: vLLM forgets its adapters, and others can be started without.
            self.lost()
            raise
        except ModelMissing:
            # It was started again while nobody asked.
            self.lost()
            arrive()
            return ask()


def arrived(
    base: NextTokens,
    adapted: NextTokens,
    model: MlxModel,
    folder: Path,
    *,
    served: str,
    otherwise: str,
    cached: str = "",
) -> Arrival:
    """How near a server's model is to `model`, and how near both are with the adapter in `folder`, which was trained on `model`; after which
    text it moves most, and what the server says there.

    `served` names the server's model, `otherwise` is said where it is another one, `cached` where its cache may mix both. Raises BadInput where it
    is another model than that of the training, the adapter is not in force as it is, or base is not left alone.
    """
    theirs, ours = ({text: of(text) for text in TEXTS} for of in (base, model.next_tokens))
    told = [text for text in TEXTS if theirs[text]]
    noise = max((apart(theirs[text], base(text)) for text in told), default=0.0)
    if noise > APART:
        raise BadInput(
            f"{served} answers one question in two ways: log probabilities of the same next tokens are up to {noise:.3f} nats apart, where "
            f"{APART} is allowed, so whether an adapter is in force cannot be seen. Serve it with mlx:FOLDER."
        )
    plain = max((apart(theirs[text], ours[text]) for text in told), default=0.0)
    most = APART + noise
    if plain > most:
        raise BadInput(
            f"{served} is not the model that the adapter was trained on: log probabilities of next tokens are up to {plain:.3f} nats from "
            f"those of {model.identity().name}, where {most:.3f} is allowed. {otherwise}"
        )
    theirs_adapted, after = dict[str, Mapping[str, float]](), dict[str, Mapping[str, float]]()
    for text in told:
        if found := adapted(text):
            # At once after it, while the server still has what it has read of this text.
            theirs_adapted[text], after[text] = found, base(text)
    if not theirs_adapted:
        said = (
            "not compared with MLX, since the server told no log probabilities: Ollama 0.24 does, but of the word that ends a reply, "
            "which a model may say at once"
        )
        return Arrival(said, "", {})
    carrying = model.with_adapter(folder)
    ours_adapted = {text: carrying.next_tokens(text) for text in theirs_adapted}
    treated = max(apart(theirs_adapted[text], ours_adapted[text]) for text in theirs_adapted)
    if treated > most:
        raise ComputesOtherwise(
            f"The server does not compute with the adapter what it was trained to: log probabilities of next tokens are up to "
            f"{treated:.3f} nats from MLX's, where {most:.3f} is allowed and the base's are within {plain:.3f}. "
            f"{cached or 'Serve the adapter with mlx:FOLDER.'}"
        )
    changed = max(apart(theirs[text], found) for text, found in after.items())
    if changed > most:
        raise BadInput(
            f"{served} says something else once the adapter was asked: log probabilities of next tokens are up to {changed:.3f} nats from those "
            f"before, where {most:.3f} is allowed. {cached or 'Serve the adapter with mlx:FOLDER.'}"
        )
    moves = {text: apart(dict(list(ours[text].items())[:TOP]), found) for text, found in ours_adapted.items()}
    furthest = max(moves, key=moves.__getitem__)
    moved = moves[furthest]
    said = f"log probabilities of next tokens are within {treated:.3f} nats of MLX's with the adapter, {plain:.3f} without"
    if moved <= most + plain:
        said += f"; the adapter moves none of them by more than {moved:.3f}, so that it is in force cannot be told"
    else:
        said += f"; the adapter moves them by up to {moved:.2f}"
    return Arrival(said, furthest, theirs_adapted[furthest])


def apart(some: Mapping[str, float], others: Mapping[str, float]) -> float:
    """The largest difference; infinite where fewer than half of the tokens are among the others."""
    both = some.keys() & others.keys()
    if not both or 2 * len(both) < len(some):
        return math.inf
    return max(abs(some[token] - others[token]) for token in both)
