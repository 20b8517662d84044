"""What a training is after: which conversations it needs, what it measures beforehand, what it makes smaller.

`mlx_child` trains by one of them: each gives batches, a loss for a batch, and a mean over examples, in nats per supervised token.
`objective_of` chooses by what the request makes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from looper.edges.models.mixture import MixtureLinear
from looper.edges.trainers.encoding import Encoded, whole_conversation, windows
from looper.edges.trainers.mlx_batches import batches, padded, pair_batches, parts_of, taught
from looper.edges.trainers.mlx_losses import (
    distillation_loss,
    log_probabilities,
    mean_distillation_loss,
    mean_loss,
    mean_of,
    mean_preference_loss,
    preference_loss,
    weighted_loss,
)
from looper.errors import BadInput
from looper.records.training import Make, Objective, TrainingRequest, TrainingSettings

TEACHER_TOKENS = 64
"""Tokens that a teacher's word on one place is kept for, the likeliest; what is left is shared out among them."""


class LossObjective(Protocol):
    def encode(self, tokenizer: Any, request: TrainingRequest) -> tuple[list[Encoded], int]:
        """What to train on, and the number of actions too long for any window."""
        ...

    def measure(self, model: Any, examples: Sequence[Encoded]) -> None:
        """What has to be known of base; nothing is trained yet when this is called."""
        ...

    def batches(
        self, examples: Sequence[Encoded], settings: TrainingSettings, begin: int
    ) -> Iterator[Any]: ...

    def loss(self, model: Any, *batch: Any) -> tuple[Any, Any]:
        """Mean over the batch, and the number of supervised tokens in it."""
        ...

    def mean_loss(self, model: Any, examples: Sequence[Encoded], settings: TrainingSettings) -> float: ...


def objective_of(request: TrainingRequest) -> LossObjective:
    if request.make is Make.MIXTURE:
        return Routing()
    match request.settings.objective:
        case Objective.PREFERENCE:
            return Preference(request.settings.beta)
        case Objective.DISTILLATION:
            return Distillation()
        case Objective.IMITATION:
            return Imitation()


class Imitation:
    """Say what is supervised."""

    def encode(self, tokenizer: Any, request: TrainingRequest) -> tuple[list[Encoded], int]:
        found: list[Encoded] = []
        too_long = 0
        for example in request.examples:
            pieces, lost = windows(tokenizer, example, request.settings.max_tokens)
            too_long += lost
            found += pieces
        return found, too_long

    def measure(self, model: Any, examples: Sequence[Encoded]) -> None:
        """Nothing."""

    def batches(self, examples: Sequence[Encoded], settings: TrainingSettings, begin: int) -> Iterator[Any]:
        return batches(examples, settings.batch_size, settings.seed, begin=begin)

    def loss(self, model: Any, *batch: Any) -> tuple[Any, Any]:
        return weighted_loss(model, *batch)

    def mean_loss(self, model: Any, examples: Sequence[Encoded], settings: TrainingSettings) -> float:
        return mean_loss(model, examples, settings.batch_size)


class Preference:
    """Rather say this than that."""

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def encode(self, tokenizer: Any, request: TrainingRequest) -> tuple[list[Encoded], int]:
        """The chosen of all pairs, then the rejected in the same order. A pair with a conversation that does not fit whole
        is left out, and its actions are counted: half a conversation is not the one that failed."""
        pairs, too_long = _pairs(tokenizer, request, request.rejected)
        too_long += sum(whole_conversation(tokenizer, bad).turns for bad in request.rejected)
        too_long -= sum(bad.turns for _, bad in pairs)
        return [good for good, _ in pairs] + [bad for _, bad in pairs], too_long

    def measure(self, model: Any, examples: Sequence[Encoded]) -> None:
        """Log-probabilities that base gives to every conversation."""
        for item in examples:
            item.base = float(log_probabilities(model, *padded([item])).item())

    def batches(self, examples: Sequence[Encoded], settings: TrainingSettings, begin: int) -> Iterator[Any]:
        return pair_batches(examples, settings.batch_size, settings.seed, begin=begin)

    def loss(self, model: Any, *batch: Any) -> tuple[Any, Any]:
        return preference_loss(model, *batch, beta=self._beta)

    def mean_loss(self, model: Any, examples: Sequence[Encoded], settings: TrainingSettings) -> float:
        return mean_preference_loss(model, examples, self._beta)


class Distillation:
    """Be as likely to say each word as base is, with something in its prompt that is not here."""

    def __init__(self) -> None:
        self._teachers: list[Encoded] = []

    def encode(self, tokenizer: Any, request: TrainingRequest) -> tuple[list[Encoded], int]:
        pairs, too_long = _pairs(tokenizer, request, request.teachers)
        for student, teacher in pairs:
            if _said(student) != _said(teacher):
                raise BadInput(
                    f"The tokenizer cuts the actions of {student.source} in another way after another prompt, so teacher "
                    "and student cannot be compared token by token. Use another objective with this model."
                )
        self._teachers = [teacher for _, teacher in pairs]
        return [student for student, _ in pairs], too_long

    def measure(self, model: Any, examples: Sequence[Encoded]) -> None:
        """What base holds likely at every supervised token, with the teacher's prompt before it."""
        by_source = {teacher.source: teacher for teacher in self._teachers}
        for item in examples:
            item.likely = _likely(model, by_source[item.source])

    def batches(self, examples: Sequence[Encoded], settings: TrainingSettings, begin: int) -> Iterator[Any]:
        return batches(examples, settings.batch_size, settings.seed, begin=begin, pad=taught)

    def loss(self, model: Any, *batch: Any) -> tuple[Any, Any]:
        return distillation_loss(model, *batch)

    def mean_loss(self, model: Any, examples: Sequence[Encoded], settings: TrainingSettings) -> float:
        return mean_distillation_loss(model, examples)


def _pairs(
    tokenizer: Any, request: TrainingRequest, others: Sequence[Any]
) -> tuple[list[tuple[Encoded, Encoded]], int]:
    """Examples with their counterparts where both fit whole, and the number of actions of the examples that do not."""
    found: list[tuple[Encoded, Encoded]] = []
    too_long = 0
    for example, other in zip(request.examples, others, strict=True):
        pair = whole_conversation(tokenizer, example), whole_conversation(tokenizer, other)
        if max(len(item.tokens) for item in pair) > request.settings.max_tokens:
            too_long += pair[0].turns
        else:
            found.append(pair)
    return found, too_long


def _said(item: Encoded) -> list[int]:
    return [token for token, weight in zip(item.tokens, item.weights, strict=True) if weight]


def _likely(model: Any, teacher: Encoded) -> list[tuple[Any, Any]]:
    tokens, _ = padded([teacher])
    said = mx.softmax(model(tokens[:, :-1])[0].astype(mx.float32), axis=-1)
    places = [at - 1 for at, weight in enumerate(teacher.weights) if weight and at]
    chances = np.array(said[mx.array(places)])
    width = min(TEACHER_TOKENS, chances.shape[1])
    ids = np.argpartition(-chances, width - 1, axis=1)[:, :width]
    kept = np.take_along_axis(chances, ids, axis=1)
    return list(zip(ids, kept / kept.sum(axis=1, keepdims=True), strict=True))


class RouterRecorder:
    """Hears what the routers of one pass say. No list: MLX would take one for parameters."""

    def __init__(self, model: Any) -> None:
        self._layers = [module for module in model.modules() if isinstance(module, MixtureLinear)]
        self.votes: tuple[Any, ...] = ()

    def __enter__(self) -> "RouterRecorder":
        for layer in self._layers:
            layer.ear = self
        return self

    def __exit__(self, *_: object) -> None:
        for layer in self._layers:
            layer.ear = None

    def hear(self, votes: Any) -> None:
        self.votes = (*self.votes, votes)


class Routing(Imitation):
    """Say what is supervised, and let the expert do it that was trained on it. Only the routers are trained."""

    def batches(self, examples: Sequence[Encoded], settings: TrainingSettings, begin: int) -> Iterator[Any]:
        return batches(examples, settings.batch_size, settings.seed, begin=begin, pad=_with_parts)

    def loss(self, model: Any, *batch: Any) -> tuple[Any, Any]:
        tokens, weights, parts = batch
        with RouterRecorder(model) as ear:
            loss, counted = weighted_loss(model, tokens, weights)
        known = (parts[:, 1:] >= 0) * weights[:, 1:]
        named = mx.maximum(parts[:, 1:], 0)[..., None]
        missed = [-mx.take_along_axis(votes, named, axis=-1)[..., 0] for votes in ear.votes]
        wrong = sum(missed) / len(missed)
        return loss + (wrong * known).sum() / mx.maximum(known.sum(), 1), counted

    def mean_loss(self, model: Any, examples: Sequence[Encoded], settings: TrainingSettings) -> float:
        return mean_of(self.loss(model, *_with_parts([item])) for item in examples)


def _with_parts(group: Sequence[Encoded]) -> tuple[Any, Any, Any]:
    tokens, weights = padded(group)
    return tokens, weights, parts_of(group, tokens.shape[1])


def router_accuracy(model: Any, examples: Sequence[Encoded]) -> float:
    """Share of supervised tokens for which all routers together prefer the expert that was trained on them."""
    right = counted = 0.0
    for item in examples:
        tokens, weights, parts = _with_parts([item])
        with RouterRecorder(model) as ear:
            model(tokens[:, :-1])
        chosen = mx.argmax(sum(ear.votes), axis=-1)
        known = (parts[:, 1:] >= 0) * weights[:, 1:]
        right += float(((chosen == parts[:, 1:]) * known).sum().item())
        counted += float(known.sum().item())
    return right / counted if counted else 0.0


def place_of(model: Any, item: Encoded) -> list[float]:
    """Mean last hidden state over the supervised tokens."""
    tokens, weights = padded([item])
    hidden = model.model(tokens[:, :-1])[0].astype(mx.float32)
    counted = weights[0, 1:, None]
    return [float(value) for value in np.array((hidden * counted).sum(axis=0) / counted.sum())]
