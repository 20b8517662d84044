"""Encoded conversations → arrays for one iteration. What stands in batch n depends on the seed and on n alone."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from looper.edges.trainers.encoding import Encoded
from looper.edges.trainers.order import groups

LENGTH_BUCKET = 32
"""Batches are padded to multiples of this many tokens: `mx.compile` compiles once per shape."""


def batches(
    examples: Sequence[Encoded],
    rows: int,
    seed: int,
    *,
    begin: int = 0,
    pad: "Callable[[Sequence[Encoded]], tuple[Any, ...]] | None" = None,
) -> Iterator[tuple[Any, ...]]:
    """`order.groups` as arrays."""
    return (tuple((pad or padded)(group)) for group in groups(examples, rows, seed, begin))


def padded(group: Sequence[Encoded]) -> tuple[Any, Any]:
    """Tokens and weights, shape (examples, bucketed length + 1); padding has weight 0."""
    longest = max(len(item.tokens) for item in group)
    length = -(-longest // LENGTH_BUCKET) * LENGTH_BUCKET
    tokens, weights = (
        np.zeros((len(group), length + 1), np.int32),
        np.zeros((len(group), length + 1), np.float32),
    )
    for row, item in enumerate(group):
        tokens[row, : len(item.tokens)] = item.tokens
        weights[row, : len(item.weights)] = item.weights
    return mx.array(tokens), mx.array(weights)


def pair_batches(
    examples: Sequence[Encoded], rows: int, seed: int, *, begin: int = 0
) -> Iterator[tuple[Any, Any, Any]]:
    """As `batches`, of pairs: chosen conversations in the first half of a batch, what was rejected for each in the second.
    `examples` hold the chosen of all pairs, then the rejected in the same order."""
    half = len(examples) // 2
    pairs = list(zip(examples[:half], examples[half:], strict=True))
    number = epoch = 0
    while True:
        order = list(range(half))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for at in range(0, half, max(1, rows // 2)):
            if number >= begin:
                yield padded_pairs([pairs[index] for index in order[at : at + max(1, rows // 2)]])
            number += 1
        epoch += 1


def padded_pairs(pairs: Sequence[tuple[Encoded, Encoded]]) -> tuple[Any, Any, Any]:
    group = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    return (*padded(group), mx.array([item.base for item in group]))


def taught(group: Sequence[Encoded]) -> tuple[Any, Any, Any, Any]:
    """As `padded`, with what the teacher holds likely at each token: ids and probabilities, shape (examples, length, some).

    Where nothing is supervised the probabilities are zero.
    """
    tokens, weights = padded(group)
    width = group[0].likely[0][0].shape[0] if group[0].likely else 1
    ids = np.zeros((*tokens.shape, width), np.int32)
    chances = np.zeros((*tokens.shape, width), np.float32)
    for row, item in enumerate(group):
        places = [at for at, weight in enumerate(item.weights) if weight]
        for at, (names, values) in zip(places, item.likely, strict=True):
            ids[row, at], chances[row, at] = names, values
    return tokens, weights, mx.array(ids), mx.array(chances)


def parts_of(group: Sequence[Encoded], length: int) -> Any:
    """Number of the expert behind each token, −1 for none; shape (examples, length)."""
    found = np.full((len(group), length), -1, np.int32)
    for row, item in enumerate(group):
        found[row, : len(item.parts)] = item.parts
    return mx.array(found)
