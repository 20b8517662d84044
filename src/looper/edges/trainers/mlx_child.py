"""The process that trains an adapter with MLX: a request file in, events on standard output, files in its folder.

    python -m looper.edges.trainers.mlx_child FOLDER BASE [LIKE]

FOLDER holds `request.json`; when the process ends well it also holds the adapter in mlx-lm's format and `outcome.json`.
The optimizer loop is mlx-lm's; what goes in (batches, loss weights) and what comes out (losses, checkpoints) is ours.
mlx-lm's own data path trains on the last turn only and hands losses to a terminal table.

Batches depend on seed and iteration alone, and a checkpoint holds weights and optimizer, so a killed training goes on from
its last checkpoint as if nothing had happened, up to rounding.
"""

import contextlib
import json
import math
import os
import random
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load

from looper.edges.trainers.encoding import Encoded, length_histogram, whole_conversation, windows
from looper.errors import BadInput
from looper.records.training import (
    AdapterKind,
    LossPoint,
    Objective,
    TrainingEvent,
    TrainingRequest,
    TrainingSettings,
)

LENGTH_BUCKET = 32
"""Batches are padded to multiples of this many tokens: `mx.compile` compiles once per shape."""
REPORTS = 5
"""Iterations between two loss reports."""


class Stop(Exception):
    """Training ends here, in order."""


class Trainer:
    """One training, from the model as loaded to the weights that are kept."""

    def __init__(self, folder: Path, base: Path, request: TrainingRequest, tell: "IO[str]") -> None:
        self.folder, self.settings, self._tell_to = folder, request.settings, tell
        self.request = request
        mx.random.seed(self.settings.seed)
        self.model, self.tokenizer = load(str(base))[:2]
        self.parameters = adapt(self.model, self.settings)
        self.train_set, self.validation_set, self.too_long = self._encode()
        self.preferring = self.settings.objective is Objective.PREFERENCE
        if self.preferring:
            self._measure_base()
        self.optimizer = Clipped(self.settings.learning_rate, self.settings.clip_norm)
        self.optimizer.init(self.model.trainable_parameters())
        self.done = 0
        """Iterations so far, those of an earlier process included."""
        self.losses: list[LossPoint] = []
        self.validations: list[LossPoint] = []
        self.tokens = 0
        self.seconds = self._begun = 0.0
        self.best: tuple[float, int, dict[str, Any]] | None = None
        """Lowest validation loss, its iteration, its weights."""

    def tell(self, event: TrainingEvent) -> None:
        self._tell_to.write(event.to_json().decode() + "\n")
        self._tell_to.flush()

    def _encode(self) -> tuple[list[Encoded], list[Encoded], int]:
        """Windows for training and for validation, no task on both sides; and the number of actions too long for any."""
        tokenizer = getattr(self.tokenizer, "_tokenizer", self.tokenizer)
        kept_aside = validation_tasks(self.request)
        if self.request.rejected:
            found, too_long = self._encode_pairs(tokenizer)
        else:
            found, too_long = [], 0
            for example in self.request.examples:
                pieces, lost = windows(tokenizer, example, self.settings.max_tokens)
                too_long += lost
                found += pieces
        train_set = [item for item in found if item.instance_id not in kept_aside]
        validation_set = [item for item in found if item.instance_id in kept_aside]
        if not train_set:
            raise BadInput(
                f"None of {len(self.request.examples)} examples fits {self.settings.max_tokens} tokens. Raise max_tokens."
            )
        if kept_aside and not validation_set:
            raise BadInput("The validation tasks have no example that fits. Raise max_tokens.")
        return train_set, validation_set, too_long

    def _encode_pairs(self, tokenizer: Any) -> tuple[list[Encoded], int]:
        """The chosen of all pairs, then the rejected in the same order. A pair with a conversation that does not fit whole
        is left out, and its actions are counted: half a conversation is not the one that failed."""
        chosen: list[Encoded] = []
        rejected: list[Encoded] = []
        too_long = 0
        for good, bad in zip(self.request.examples, self.request.rejected, strict=True):
            pair = [whole_conversation(tokenizer, example) for example in (good, bad)]
            if max(len(item.tokens) for item in pair) > self.settings.max_tokens:
                too_long += sum(item.turns for item in pair)
            else:
                chosen.append(pair[0])
                rejected.append(pair[1])
        return chosen + rejected, too_long

    def _measure_base(self) -> None:
        """Log-probabilities that base gives to every conversation; nothing is trained yet, so this model is base."""
        self.model.eval()
        for item in self.train_set + self.validation_set:
            tokens, weights = padded([item])
            item.base = float(log_probabilities(self.model, tokens, weights).item())
        self.model.train()

    def run(self) -> None:
        """Train until the iterations are over or the validation loss no longer falls; the weights are then the best."""
        self._restore()
        arguments = TrainingArgs(
            batch_size=self.settings.batch_size,
            iters=self.settings.iterations - self.done,
            steps_per_report=1,
            steps_per_save=10**9,
            max_seq_length=self.settings.max_tokens,
            adapter_file=str(self.folder / "last.safetensors"),
            grad_checkpoint=self.settings.grad_checkpoint,
        )
        self.tell(TrainingEvent(event="loaded", iteration=self.done, iterations=self.settings.iterations))
        with contextlib.suppress(Stop):
            if self.done < self.settings.iterations:
                train(
                    self.model,
                    self.optimizer,
                    train_dataset=self.train_set,
                    args=arguments,
                    loss=partial(preference_loss, beta=self.settings.beta)
                    if self.preferring
                    else weighted_loss,
                    iterate_batches=self._batches,
                    training_callback=self,
                )
            self._after_iteration(last=True)
        if self.best is not None:
            self.model.load_weights(list(self.best[2].items()), strict=False)
        (self.folder / "last.safetensors").unlink(missing_ok=True)

    def _batches(self, **_: Any) -> Iterator[tuple[Any, Any]]:
        """What mlx-lm's loop asks before each iteration; so here is also where the one before is over."""
        for number, batch in enumerate(
            (pair_batches if self.preferring else batches)(
                self.train_set, self.settings.batch_size, self.settings.seed, begin=self.done
            )
        ):
            if number:
                self._after_iteration(last=False)
            self._begun = time.perf_counter()
            yield batch

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        self.seconds += time.perf_counter() - self._begun
        self.done += 1
        loss = float(info["train_loss"])
        if not math.isfinite(loss):
            raise BadInput(
                f"The loss became {loss} at iteration {self.done}. Lower the learning rate or the multiplier."
            )
        self.tokens += round(info["tokens_per_second"] / info["iterations_per_second"])
        self.losses.append(LossPoint(iteration=self.done, loss=loss))
        if self.done % REPORTS == 0 or self.done == self.settings.iterations:
            self.tell(
                TrainingEvent(
                    event="loss",
                    iteration=self.done,
                    iterations=self.settings.iterations,
                    loss=loss,
                    tokens_per_s=float(info["tokens_per_second"]),
                )
            )

    def on_val_loss_report(self, info: dict[str, Any]) -> None:
        """Validation is ours; mlx-lm is given no validation set."""

    def _after_iteration(self, *, last: bool) -> None:
        """Validate, keep the best, save. Raises Stop where it is enough."""
        if self.validation_set and (last or self.done % self.settings.evaluate_every == 0):
            self._validate()
        if not last and self.done % self.settings.checkpoint_every == 0:
            self._save()

    def _validate(self) -> None:
        if self.validations and self.validations[-1].iteration == self.done:
            return
        self.model.eval()
        if self.preferring:
            loss = mean_preference_loss(self.model, self.validation_set, self.settings.beta)
        else:
            loss = mean_loss(self.model, self.validation_set, self.settings.batch_size)
        self.model.train()
        self.validations.append(LossPoint(iteration=self.done, loss=loss))
        self.tell(
            TrainingEvent(
                event="validation", iteration=self.done, iterations=self.settings.iterations, loss=loss
            )
        )
        if self.best is None or loss < self.best[0]:
            self.best = loss, self.done, dict(tree_flatten(self.model.trainable_parameters()))
        elif len(self._since_best()) >= self.settings.patience:
            raise Stop

    def _since_best(self) -> list[LossPoint]:
        assert self.best is not None
        return [point for point in self.validations if point.iteration > self.best[1]]

    def _save(self) -> None:
        """A checkpoint, whole or not at all."""
        weights = dict(tree_flatten(self.model.trainable_parameters()))
        arrays = {f"weights.{name}": value for name, value in weights.items()}
        arrays |= {f"optimizer.{name}": value for name, value in tree_flatten(self.optimizer.state)}
        if self.best is not None:
            arrays |= {f"best.{name}": value for name, value in self.best[2].items()}
        state = {
            "done": self.done,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "losses": [point.model_dump() for point in self.losses],
            "validations": [point.model_dump() for point in self.validations],
            "best": self.best[:2] if self.best else None,
        }
        temporary = self.folder / "writing.safetensors"
        mx.save_safetensors(str(temporary), arrays, {"state": json.dumps(state)})
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(self.folder / "checkpoint.safetensors")
        self.tell(TrainingEvent(event="checkpoint", iteration=self.done, iterations=self.settings.iterations))

    def _restore(self) -> None:
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return
        found: Any
        try:
            found = mx.load(str(path), return_metadata=True)
            arrays, state = found[0], json.loads(found[1]["state"])
        except Exception:  # A damaged checkpoint costs its iterations, not the training.
            path.unlink()
            return

        def part(prefix: str) -> dict[str, Any]:
            return {
                name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)
            }

        self.model.load_weights(list(part("weights.").items()), strict=False)
        self.optimizer.state = tree_unflatten(list(part("optimizer.").items()))
        self.done, self.tokens, self.seconds = state["done"], state["tokens"], state["seconds"]
        self.losses = [LossPoint(**point) for point in state["losses"]]
        self.validations = [LossPoint(**point) for point in state["validations"]]
        if state["best"]:
            self.best = state["best"][0], state["best"][1], part("best.")


class Clipped(optim.AdamW):  # type: ignore[misc,unused-ignore]
    """AdamW on gradients whose norm is clipped; mlx-lm's loop has no clipping of its own."""

    def __init__(self, learning_rate: float, norm: float) -> None:
        super().__init__(learning_rate=learning_rate, betas=[0.9, 0.95], weight_decay=0.01)
        self._norm = norm

    def update(self, model: Any, gradients: Any) -> None:
        clipped, _ = optim.clip_grad_norm(gradients, self._norm)
        super().update(model, clipped)


def adapt(model: Any, settings: TrainingSettings) -> dict[str, Any]:
    """Freeze the model and add what is to be trained; the parameters that do so again when the adapter is loaded.

    mlx-lm's `scale` is the multiplier alpha / rank.
    """
    model.freeze()
    parameters = lora_parameters(model, settings)
    if settings.kind is AdapterKind.FULL:
        model.unfreeze()
    else:
        dora = settings.kind is AdapterKind.DORA
        linear_to_lora_layers(model, layer_count(model, settings), parameters, use_dora=dora)
    return parameters


def layer_count(model: Any, settings: TrainingSettings) -> int:
    return len(model.layers) if settings.layers == -1 else min(settings.layers, len(model.layers))


def lora_parameters(model: Any, settings: TrainingSettings) -> dict[str, Any]:
    """As mlx-lm reads them from an adapter's configuration."""
    parameters: dict[str, Any] = {"rank": settings.rank, "scale": settings.multiplier, "dropout": 0.0}
    if settings.kind is AdapterKind.DORA:
        parameters["keys"] = _with_norms(model)
    return parameters


def _with_norms(model: Any) -> list[str]:
    """Linear layers whose every row has a length. DoRA divides by it; a row of zeros makes mlx-lm's give NaN."""
    found: dict[str, bool] = {}
    for layer in model.layers:
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear | nn.QuantizedLinear):
                rows = mx.linalg.norm(_plain(module).astype(mx.float32), axis=1)
                found[name] = found.get(name, True) and bool((rows > 0).all().item())
    return sorted(name for name, whole in found.items() if whole)


def validation_tasks(request: TrainingRequest) -> set[str]:
    """Whole tasks, drawn by the seed, until their share is reached; none where the share is 0."""
    share = request.settings.validation_share
    tasks = sorted({example.instance_id for example in request.examples})
    if not share:
        return set()
    count = max(1, round(share * len(tasks)))
    if count >= len(tasks):
        raise BadInput(
            f"{len(tasks)} tasks are too few to keep {share:.0%} of them aside. Set validation_share = 0."
        )
    return set(random.Random(request.settings.seed).sample(tasks, count))


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


def mean_preference_loss(model: Any, examples: Sequence[Encoded], beta: float) -> float:
    half = len(examples) // 2
    losses = [
        float(preference_loss(model, *padded_pairs([pair]), beta=beta)[0].item())
        for pair in zip(examples[:half], examples[half:], strict=True)
    ]
    return sum(losses) / len(losses)


def mean_loss(model: Any, examples: Sequence[Encoded], rows: int) -> float:
    """Over all supervised tokens of all examples."""
    total, counted = 0.0, 0.0
    ordered = sorted(examples, key=lambda item: len(item.tokens))
    for at in range(0, len(ordered), rows):
        loss, tokens = weighted_loss(model, *padded(ordered[at : at + rows]))
        total += float(loss.item()) * float(tokens.item())
        counted += float(tokens.item())
    return total / counted


def batches(
    examples: Sequence[Encoded], rows: int, seed: int, *, begin: int = 0
) -> Iterator[tuple[Any, Any]]:
    """Endless batches of examples of like length; each epoch shows every example once, in another order.

    Which examples stand in batch n depends on seed and n alone. `begin` skips batches.
    """
    ordered = sorted(examples, key=lambda item: (len(item.tokens), item.source))
    number = epoch = 0
    while True:
        rng = random.Random(f"{seed}/{epoch}")
        # Neighbours in length share a batch; who the neighbours are moves from epoch to epoch.
        shift = rng.randrange(rows)
        turned = [*ordered[shift:], *ordered[:shift]]
        groups = [turned[at : at + rows] for at in range(0, len(turned), rows)]
        rng.shuffle(groups)
        for group in groups:
            if number >= begin:
                yield padded(group)
            number += 1
        epoch += 1


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


def relative_change(before: dict[str, Any], model: Any) -> float:
    """‖ΔW‖ / ‖W‖ over all matrices that the adapter touches; `before` are the base's weights by name."""
    change = size = 0.0
    for _, module in model.named_modules():
        if hasattr(module, "lora_a"):
            inner = module.linear if hasattr(module, "linear") else module.embedding
            weight = _plain(inner)
            fused = _plain(module.fuse(dequantize=True)) if "m" in module else None
            delta = (
                fused - weight
                if fused is not None
                else module.scale * _product(module.lora_a, module.lora_b, weight.shape)
            )
            change += float((delta.astype(mx.float32) ** 2).sum().item())
            size += float((weight.astype(mx.float32) ** 2).sum().item())
    if size == 0:
        after = dict(tree_flatten(model.parameters()))
        for name, weight in before.items():
            change += float(((after[name] - weight).astype(mx.float32) ** 2).sum().item())
            size += float((weight.astype(mx.float32) ** 2).sum().item())
    return math.sqrt(change / size)


def _plain(layer: Any) -> Any:
    """A layer's weight, out of its quantised form where it has one."""
    if "scales" not in layer:
        return layer.weight
    return mx.dequantize(
        layer.weight, layer.scales, layer.get("biases"), layer.group_size, layer.bits, mode=layer.mode
    )


def _product(a: Any, b: Any, shape: tuple[int, ...]) -> Any:
    """B·A in the shape of the weight that it is added to."""
    product = a @ b
    return product if tuple(product.shape) == tuple(shape) else product.swapaxes(-1, -2)


def write_adapter(folder: Path, model: Any, settings: TrainingSettings, parameters: dict[str, Any]) -> None:
    """The adapter as mlx-lm loads it."""
    config = {
        "fine_tune_type": settings.kind.value,
        "num_layers": layer_count(model, settings),
        "lora_parameters": parameters,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    mx.save_safetensors(
        str(folder / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters()))
    )


def make_random(model: Any, like: Path, seed: int) -> None:
    """Every array replaced by noise of the same Frobenius norm: as much change as `like`, in no direction."""
    draw = np.random.default_rng(seed)
    arrays: Any = mx.load(str(like / "adapters.safetensors"))
    found = {}
    for name, value in sorted(arrays.items()):
        noise = draw.normal(size=value.shape).astype(np.float32)
        norm = float(np.linalg.norm(np.array(value.astype(mx.float32))))
        found[name] = mx.array(noise * (norm / max(float(np.linalg.norm(noise)), 1e-12))).astype(value.dtype)
    model.load_weights(list(found.items()), strict=False)


def main() -> None:
    folder, base = Path(sys.argv[1]), Path(sys.argv[2])
    request = TrainingRequest.from_json((folder / "request.json").read_bytes())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # mlx-lm draws its progress on standard output; ours is for events alone.
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    outcome: dict[str, Any]
    try:
        outcome = work(folder, base, request, events)
    except BadInput as error:
        outcome = {"error": str(error)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome["peak_memory_bytes"] = peak if sys.platform == "darwin" else peak << 10
    temporary = folder / "outcome.tmp"
    temporary.write_text(json.dumps(outcome))
    temporary.replace(folder / "outcome.json")


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def work(folder: Path, base: Path, request: TrainingRequest, events: "IO[str]") -> dict[str, Any]:
    """Make what is asked for; the figures for its card."""
    settings = request.settings
    if request.make != "trained":
        mx.random.seed(settings.seed)
        model = load(str(base))[0]
        before = dict(tree_flatten(model.parameters()))
        parameters = adapt(model, settings)
        if request.make == "random":
            make_random(model, Path(sys.argv[3]), settings.seed)
        write_adapter(folder, model, settings, parameters)
        return {"relative_change": relative_change(before, model)}
    trainer = Trainer(folder, base, request, events)
    before = dict(tree_flatten(load(str(base))[0].parameters())) if settings.kind is AdapterKind.FULL else {}
    trainer.run()
    write_adapter(folder, trainer.model, settings, trainer.parameters)
    return {
        "relative_change": relative_change(before, trainer.model),
        "train_losses": [point.model_dump() for point in trainer.losses],
        "validation_losses": [point.model_dump() for point in trainer.validations],
        "kept_iteration": trainer.best[1] if trainer.best else trainer.done,
        "trained_tokens": trainer.tokens,
        "supervised_tokens": sum(item.supervised for item in trainer.train_set),
        "train_examples": len(trainer.train_set),
        "validation_examples": len(trainer.validation_set),
        "length_histogram": length_histogram(
            [len(item.tokens) for item in (*trainer.train_set, *trainer.validation_set)]
        ),
        "supervised_turns": sum(item.turns for item in (*trainer.train_set, *trainer.validation_set)),
        "too_long": trainer.too_long,
        "seconds": trainer.seconds,
    }


if __name__ == "__main__":
    main()
