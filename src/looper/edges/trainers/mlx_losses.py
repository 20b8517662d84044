"""What training makes smaller, and how it is measured."""

from collections.abc import Iterable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from looper.edges.trainers.encoding import Encoded
from looper.edges.trainers.mlx_batches import padded, padded_pairs, taught


def weighted_loss(model: Any, tokens: Any, weights: Any) -> tuple[Any, Any]:
    """Mean cross-entropy in nats over supervised tokens, and their number; position t predicts token t + 1."""
    loss = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).astype(mx.float32)
    counted = weights[:, 1:].sum()
    return (loss * weights[:, 1:]).sum() / counted, counted


def log_probabilities(model: Any, tokens: Any, weights: Any) -> Any:
    """Of the supervised tokens of each conversation, summed; in nats, shape (conversations,)."""
    loss = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).astype(mx.float32)
    return -(loss * weights[:, 1:]).sum(axis=1)


def preference_loss(model: Any, tokens: Any, weights: Any, base: Any, *, beta: float) -> tuple[Any, Any]:
    """DPO over a batch whose first half is preferred to its second half, row by row; and its supervised tokens.

    −log σ(β · ((log p(chosen) − log p_base(chosen)) − (log p(rejected) − log p_base(rejected)))), the mean over pairs.
    """
    moved = log_probabilities(model, tokens, weights) - base
    half = moved.shape[0] // 2
    return -nn.log_sigmoid(beta * (moved[:half] - moved[half:])).mean(), weights[:, 1:].sum()


def distillation_loss(model: Any, tokens: Any, weights: Any, ids: Any, chances: Any) -> tuple[Any, Any]:
    """Mean KL divergence from the teacher to the model over supervised tokens, in nats, and their number."""
    said = nn.log_softmax(model(tokens[:, :-1]).astype(mx.float32), axis=-1)
    ours = mx.take_along_axis(said, ids[:, 1:], axis=-1)
    wanted = chances[:, 1:]
    divergence = (wanted * (mx.log(mx.maximum(wanted, 1e-12)) - ours)).sum(axis=-1)
    counted = weights[:, 1:].sum()
    return (divergence * weights[:, 1:]).sum() / counted, counted


def mean_preference_loss(model: Any, examples: Sequence[Encoded], beta: float) -> float:
    half = len(examples) // 2
    losses = [
        float(preference_loss(model, *padded_pairs([pair]), beta=beta)[0].item())
        for pair in zip(examples[:half], examples[half:], strict=True)
    ]
    return sum(losses) / len(losses)


def mean_loss(model: Any, examples: Sequence[Encoded], rows: int) -> float:
    """Over all supervised tokens of all examples."""
    ordered = sorted(examples, key=lambda item: len(item.tokens))
    batches = (padded(ordered[at : at + rows]) for at in range(0, len(ordered), rows))
    return mean_of(weighted_loss(model, *batch) for batch in batches)


def mean_distillation_loss(model: Any, examples: Sequence[Encoded]) -> float:
    return mean_of(distillation_loss(model, *taught([item])) for item in examples)


def mean_of(found: Iterable[tuple[Any, Any]]) -> float:
    """Over all tokens, of losses with the numbers of tokens that each is the mean of."""
    total, counted = 0.0, 0.0
    for loss, tokens in found:
        total += float(loss.item()) * float(tokens.item())
        counted += float(tokens.item())
    return total / counted
