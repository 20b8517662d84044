"""The process that trains an adapter with MLX: a request file in, events on standard output, files in its folder.

    python -m looper.edges.trainers.mlx_child FOLDER BASE

FOLDER holds `request.json` and lies beside the adapters that the request names; when the process ends well it also holds
the adapter in mlx-lm's format and `outcome.json`. A request to measure makes no adapter.
The optimizer loop is mlx-lm's; what goes in (batches, loss weights) and what comes out (losses, checkpoints) is ours.
mlx-lm's own data path trains on the last turn only and hands losses to a terminal table.

Batches depend on seed and iteration alone, and a checkpoint holds weights and optimizer, so a killed training goes on from
its last checkpoint as if nothing had happened, up to rounding.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any, assert_never

if __name__ == "__main__":
    # transformers imports PyTorch wherever that is installed: three seconds and 250 MB in every process, for nothing.
    sys.modules["torch"] = None  # type: ignore[assignment]

from looper.edges.models.structure import quick_transformers

quick_transformers()

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.trainer import TrainingArgs, train

from looper.edges.models.blas import bind_openblas
from looper.edges.models.mixture import add_routers, load_adapter
from looper.edges.models.mlx_load import loaded
from looper.edges.trainers.child import serve
from looper.edges.trainers.encoding import Encoded, length_histogram, whole_conversation
from looper.edges.trainers.mlx import FISHER
from looper.edges.trainers.mlx_batches import padded
from looper.edges.trainers.mlx_losses import weighted_loss
from looper.edges.trainers.mlx_objectives import objective_of, place_of, router_accuracy
from looper.edges.trainers.mlx_optimizer import Clipped, Regularizer, accumulated, fisher
from looper.edges.trainers.mlx_weights import (
    adapt,
    concatenated,
    load_arrays,
    random_like,
    rank_of,
    relative_change,
    truncated,
    widened,
    write_adapter,
)
from looper.edges.trainers.order import train_validation_split
from looper.errors import BadInput
from looper.records.strategy import Pull
from looper.records.training import (
    AdapterKind,
    LossPoint,
    Make,
    Measured,
    MeasuringRequest,
    TrainingEvent,
    TrainingRequest,
    TrainingSettings,
)

REPORTS = 5
"""Iterations between two loss reports."""


class Stop(Exception):
    """Training ends here, in order."""


class Trainer:
    """One training, from the model as loaded to the weights that are kept."""

    def __init__(self, folder: Path, base: Path, request: TrainingRequest, tell: "IO[str]") -> None:
        self.folder, self.settings, self._tell_to = folder, request.settings, tell
        self.request, self.aim = request, objective_of(request)
        mx.random.seed(self.settings.seed)
        self.model, self.tokenizer = loaded(base)
        self.parameters = adapt(self.model, self.settings, _rank(folder, request))
        self.train_set, self.validation_set, self.too_long = self._encode()
        self.model.eval()
        # The new factors change nothing yet, so this model is base.
        self.aim.measure(self.model, self.train_set + self.validation_set)
        self.model.train()
        self.optimizer = Clipped(self.settings.learning_rate, self.settings.clip_norm, self._loaded())
        self.optimizer.init(self.model.trainable_parameters())
        self.done = 0
        """Iterations so far, those of an earlier process included."""
        self.losses: list[LossPoint] = []
        self.validations: list[LossPoint] = []
        self.tokens = 0
        self.seconds = self._begun = 0.0
        self.cpu_seconds = self._cpu_begun = 0.0
        self.best: tuple[float, int, dict[str, Any]] | None = None
        """Lowest validation loss, its iteration, its weights."""

    def tell(self, event: TrainingEvent) -> None:
        self._tell_to.write(event.to_json().decode() + "\n")
        self._tell_to.flush()

    def _encode(self) -> tuple[list[Encoded], list[Encoded], int]:
        """Windows for training and for validation, no task on both sides; and the number of actions too long for any."""
        tokenizer = getattr(self.tokenizer, "_tokenizer", self.tokenizer)
        found, too_long = self.aim.encode(tokenizer, self.request)
        return (*train_validation_split(found, self.request), too_long)

    def _loaded(self) -> Regularizer:
        """Put the weights in that training begins with, and say which of them are held."""
        if self.request.make is Make.MIXTURE:
            load_mixture(self.model, self.folder, self.request)
            return Regularizer()
        if not self.request.start:
            return Regularizer()
        start = load_arrays(self.folder.parent / self.request.start)
        kept: dict[str, Any] = {}
        if self.request.grow:
            start, kept = widened(start, dict(tree_flatten(self.model.trainable_parameters())))
        self.model.load_weights(list(start.items()), strict=False)
        strength = {}
        if self.request.anchor is not None:
            equal = {name: mx.ones(value.shape) for name, value in start.items()}
            pull = equal if self.request.anchor.pull is Pull.EQUAL else self._fisher_of_start()[0]
            strength = {name: self.request.anchor.strength * value for name, value in pull.items()}
        # Copies: the arrays in the model are inputs of the compiled step, and these are constants in it.
        towards = {name: mx.array(value) for name, value in start.items()}
        mx.eval(towards, strength, kept)
        return Regularizer(towards=towards, strength=strength, kept=kept)

    def _fisher_of_start(self) -> tuple[dict[str, Any], int]:
        """Fisher information of the batches before, and how many they are; empty where nothing was learned before."""
        path = self.folder.parent / self.request.start / FISHER
        if not self.request.start or not path.is_file():
            return {}, 0
        found: Any = mx.load(str(path), return_metadata=True)
        return dict(found[0]), int(found[1]["batches"])

    def write_fisher(self) -> None:
        """What the next training is to hold."""
        anchor = self.request.anchor
        if anchor is None or anchor.pull is not Pull.FISHER:
            return
        before, batches = self._fisher_of_start()
        now = fisher(self.model, self.train_set, anchor.samples)
        found = accumulated(before, now, batches, anchor.gathering)
        mx.save_safetensors(str(self.folder / FISHER), found, {"batches": str(batches + 1)})

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
                    loss=self.aim.loss,
                    iterate_batches=self._batches,
                    training_callback=self,
                )
            self._after_iteration(last=True)
        if self.best is not None:
            self.model.load_weights(list(self.best[2].items()), strict=False)
        (self.folder / "last.safetensors").unlink(missing_ok=True)

    def _batches(self, **_: Any) -> Iterator[tuple[Any, Any]]:
        """What mlx-lm's loop asks before each iteration; so here is also where the one before is over."""
        for number, batch in enumerate(self.aim.batches(self.train_set, self.settings, self.done)):
            if number:
                self._after_iteration(last=False)
            self._begun, self._cpu_begun = time.perf_counter(), time.process_time()
            yield batch

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        self.seconds += time.perf_counter() - self._begun
        self.cpu_seconds += time.process_time() - self._cpu_begun
        self.done += 1
        loss = float(info["train_loss"])
        if not math.isfinite(loss):
            raise BadInput(
                f"The loss became {loss} at iteration {self.done}. Lower the learning rate or the multiplier (alpha / rank)."
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
        loss = self.aim.mean_loss(self.model, self.validation_set, self.settings)
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
            "cpu_seconds": self.cpu_seconds,
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
        self.cpu_seconds = state.get("cpu_seconds", 0.0)
        self.losses = [LossPoint(**point) for point in state["losses"]]
        self.validations = [LossPoint(**point) for point in state["validations"]]
        if state["best"]:
            self.best = state["best"][0], state["best"][1], part("best.")


def main() -> None:
    bind_openblas()
    folder, base = Path(sys.argv[1]), Path(sys.argv[2])

    def carry_out(request: TrainingRequest | MeasuringRequest, events: "IO[str]") -> dict[str, Any]:
        if isinstance(request, MeasuringRequest):
            return measured(base, request, folder.parent)
        return work(folder, base, request, events)

    serve(folder, carry_out)


def _rank(folder: Path, request: TrainingRequest) -> int | None:
    """Rank of the adapter as a whole; None for what the settings say."""
    if request.grow:
        return request.settings.rank + rank_of(load_arrays(folder.parent / request.start))
    if request.parts:
        return sum(rank_of(load_arrays(folder.parent / part)) for part in request.parts)
    return None


def load_mixture(model: Any, folder: Path, request: TrainingRequest) -> None:
    """Put all parts into a model side by side; only the routers are left to train."""
    parts = [load_arrays(folder.parent / part) for part in request.parts]
    if len({rank_of(part) for part in parts}) > 1:
        raise BadInput("The experts of a mixture must have the same rank.")
    model.load_weights(list(concatenated(parts).items()), strict=False)
    add_routers(model, len(parts), request.top)
    model.freeze()
    model.unfreeze(keys=["router"], strict=False)


def work(folder: Path, base: Path, request: TrainingRequest, events: "IO[str]") -> dict[str, Any]:
    """Make what is asked for; the figures for its card."""
    if request.make in (Make.TRAINED, Make.MIXTURE):
        return _trained(folder, base, request, events)
    return _computed(folder, base, request)


def _computed(folder: Path, base: Path, request: TrainingRequest) -> dict[str, Any]:
    settings = request.settings
    parts = [load_arrays(folder.parent / part) for part in request.parts]
    arrays: dict[str, Any] = {}
    found: dict[str, Any] = {}
    mixture, rank = None, _rank(folder, request)
    match request.make:
        case Make.RANDOM:
            arrays = random_like(parts[0], settings.seed)
            if request.times is not None:
                arrays = concatenated([arrays], request.times)
        case Make.SCALED:
            arrays = concatenated(parts, request.times or 1.0)
        case Make.MERGED:
            arrays = concatenated(parts, 1 / len(parts))
        case Make.CUT:
            arrays, found["cut_error"] = truncated(parts[0], settings.rank)
            rank = min(settings.rank, rank_of(parts[0]))
        case Make.ZERO | Make.ROUTED_BY_CHANCE:
            pass
        case Make.TRAINED | Make.MIXTURE:
            raise AssertionError(f"{request.make.value} is trained")
        case _:
            assert_never(request.make)
    mx.random.seed(settings.seed)
    model, _ = loaded(base)
    before = dict(tree_flatten(model.parameters())) if settings.kind is AdapterKind.FULL else {}
    parameters = adapt(model, settings, rank)
    if request.make is Make.ROUTED_BY_CHANCE:
        load_mixture(model, folder, request)
        routers = dict(tree_flatten(model.trainable_parameters()))
        model.load_weights(
            [(name, mx.random.normal(value.shape)) for name, value in routers.items()], strict=False
        )
        mixture = {"experts": len(parts), "top": request.top}
    model.load_weights(list(arrays.items()), strict=False)
    write_adapter(folder, model, settings, parameters, mixture)
    return found | {
        "rank": rank_in(parameters, settings),
        "relative_change": relative_change(before, model),
        "backend": backend(),
    }


def backend() -> str:
    return f"mlx-lm {metadata.version('mlx-lm')}, mlx {metadata.version('mlx')}"


def rank_in(parameters: dict[str, Any], settings: TrainingSettings) -> int:
    return 0 if settings.kind is AdapterKind.FULL else int(parameters["rank"])


def _trained(folder: Path, base: Path, request: TrainingRequest, events: "IO[str]") -> dict[str, Any]:
    settings = request.settings
    trainer = Trainer(folder, base, request, events)
    before = dict(tree_flatten(loaded(base)[0].parameters())) if settings.kind is AdapterKind.FULL else {}
    trainer.run()
    every = (*trainer.train_set, *trainer.validation_set)
    mixture, accuracy = None, None
    if request.make is Make.MIXTURE:
        mixture = {"experts": len(request.parts), "top": request.top}
        accuracy = router_accuracy(trainer.model, trainer.validation_set or trainer.train_set)
    trainer.write_fisher()
    write_adapter(folder, trainer.model, settings, trainer.parameters, mixture)
    return {
        "rank": rank_in(trainer.parameters, settings),
        "router_accuracy": accuracy,
        "relative_change": relative_change(before, trainer.model),
        "train_losses": [point.model_dump() for point in trainer.losses],
        "validation_losses": [point.model_dump() for point in trainer.validations],
        "kept_iteration": trainer.best[1] if trainer.best else trainer.done,
        "trained_tokens": trainer.tokens,
        "supervised_tokens": sum(item.supervised for item in trainer.train_set),
        "train_examples": len(trainer.train_set),
        "validation_examples": len(trainer.validation_set),
        "length_histogram": length_histogram([len(item.tokens) for item in every]),
        "supervised_turns": sum(item.turns for item in every),
        "too_long": trainer.too_long,
        "seconds": trainer.seconds,
        "cpu_seconds": trainer.cpu_seconds,
        "backend": backend(),
    }


def measured(base: Path, request: MeasuringRequest, adapters: Path) -> dict[str, Any]:
    """What a model makes of examples it is not trained on."""
    model, tokenizer = loaded(base)
    tokenizer = getattr(tokenizer, "_tokenizer", tokenizer)
    if request.adapter:
        load_adapter(model, str(adapters / request.adapter))
    model.eval()
    found = []
    for example in request.examples:
        item = whole_conversation(tokenizer, example)
        loss, _ = weighted_loss(model, *padded([item]))
        found.append(
            Measured(source=example.source, loss=float(loss.item()), place=tuple(place_of(model, item)))
        )
    return {"measured": [item.model_dump(mode="json") for item in found]}


if __name__ == "__main__":
    main()
