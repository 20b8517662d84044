"""Adapters from MLX: trained in a child process, kept under the hash of everything that decides what they are.

A folder below `adapters/` is complete or not there: the child works in a folder beside it, which is renamed when its card
is written. A second training of the same request waits for the first and takes what it made.
"""

import fcntl
import importlib.util
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from looper.edges.machine import awake
from looper.edges.models.mlx import mlx_environment
from looper.edges.trainers.adapter_store import CARD, AdapterStore, weights_hash
from looper.edges.trainers.estimate import DoesNotFit, less_memory, must_fit
from looper.errors import BadInput, TrainingFailed, pip_install
from looper.records.base import content_hash
from looper.records.text import counted
from looper.records.training import (
    AdapterKind,
    AdapterRecord,
    Example,
    Library,
    Make,
    Measured,
    MeasuringRequest,
    TrainingEvent,
    TrainingRequest,
)

CHILDREN = {
    Library.MLX: "looper.edges.trainers.mlx_child",
    Library.TORCH: "looper.edges.trainers.torch_child",
}
"""The program that trains, by library; all keep to the contract of `child`."""
NEEDED = ("torch", "peft", "accelerate")
"""Packages, for training with torch."""


class OutOfMemory(TrainingFailed):
    """The training process needed more memory than there was."""


FISHER = "fisher.safetensors"
"""Of an anchored adapter: what the next training is to hold."""


class MlxTrainer(AdapterStore):
    def __init__(self, base: Path, adapters: Path) -> None:
        """`adapters` is where they are kept."""
        super().__init__(adapters)
        self._base = base

    def train(
        self,
        request: TrainingRequest,
        tell: Callable[[TrainingEvent], None] = lambda event: None,
        run: str = "",
    ) -> AdapterRecord:
        """The adapter of a request, made now or earlier. `run` is whose attempts it is made of, where no record of that run will say so.

        Raises BadInput where nothing can be made of the request, TrainingFailed where its training broke.
        """
        name = request.adapter_id()
        self._adapters.mkdir(parents=True, exist_ok=True)
        with (self._adapters / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.folder(name).is_dir():
                return self.load(name)
            origins = self._origins(request)
            work = self._adapters / f".work-{name}"
            work.mkdir(exist_ok=True)
            with awake():
                fitted, outcome = self._train_with_fallback(request, work, tell)
            card = _card(name, fitted, outcome, work, origins, run)
            (work / CARD).write_bytes(card.to_json())
            for leftover in ("request.json", "outcome.json", "checkpoint.safetensors"):
                (work / leftover).unlink(missing_ok=True)
            shutil.rmtree(work / "checkpoints", ignore_errors=True)
            work.rename(self.folder(name))
        # Only now, with the adapter in its place: who waited for this file and who makes a new one of its name may hold their locks at
        # the same time, and both find the folder and train nothing.
        (self._adapters / f".{name}.lock").unlink(missing_ok=True)
        tell(TrainingEvent(event="finished"))
        return card

    def _train_with_fallback(
        self, request: TrainingRequest, work: Path, tell: Callable[[TrainingEvent], None]
    ) -> tuple[TrainingRequest, dict[str, Any]]:
        """Train as asked, or with less memory where that does not fit; the request as it was carried out, and its outcome.

        Every step down is told. What is learned and what is read stay: no rung cuts an example or takes a factor away.
        """
        fitted = request
        while True:
            lower = less_memory(fitted.settings)
            try:
                must_fit(self._base, fitted.settings)
                (work / "request.json").write_bytes(fitted.to_json())
                return fitted, self._run(work, tell, fitted.settings.library)
            except (DoesNotFit, OutOfMemory) as error:
                if lower is None:
                    raise
                if isinstance(error, OutOfMemory):
                    # Of other batches; where the estimate said no, it is from the rung that an earlier process ended on.
                    (work / "checkpoint.safetensors").unlink(missing_ok=True)
                    shutil.rmtree(work / "checkpoints", ignore_errors=True)
                settings, said = lower
                tell(TrainingEvent(event="less_memory", said=f"{said}, because: {error}"))
                fitted = fitted.model_copy(update={"settings": settings})

    def measure(self, adapter_id: str, examples: Sequence[Example]) -> tuple[Measured, ...]:
        """What the base with an adapter, or with none, makes of each example. Raises BadInput or TrainingFailed."""
        if adapter_id:
            self.load(adapter_id)
        self._adapters.mkdir(parents=True, exist_ok=True)
        request = MeasuringRequest(adapter=adapter_id, examples=tuple(examples))
        with tempfile.TemporaryDirectory(prefix=".measure-", dir=self._adapters) as folder:
            (Path(folder) / "request.json").write_bytes(request.to_json())
            outcome = self._run(Path(folder), lambda event: None)
        return tuple(Measured.model_validate(found) for found in outcome["measured"])

    def _origins(self, request: TrainingRequest) -> list[AdapterRecord]:
        """Cards of the adapters that this one is made from. Raises BadInput where it cannot be."""
        found = [self.load(name) for name in (request.start, *request.parts) if name]
        settings = request.settings
        for card in found:
            if card.base.digest != request.base.digest:
                raise BadInput(f"The adapter {card.id} was made for another base than {request.base.name}.")
            if card.settings.multiplier != settings.multiplier or card.settings.kind is not settings.kind:
                raise BadInput(
                    f"The adapter {card.id} is {card.settings.kind.value} with multiplier {card.settings.multiplier}, and "
                    f"what is made from it {settings.kind.value} with {settings.multiplier}: their factors do not add up."
                )
        adds_up = settings.kind is AdapterKind.LORA or (request.make is Make.TRAINED and not request.grow)
        if found and not adds_up and not (request.make is Make.RANDOM and settings.kind is AdapterKind.DORA):
            raise BadInput(
                f"Only LoRA adapters can be {request.make.value} from others; this is {settings.kind.value}."
            )
        if request.start and not request.grow and found[0].rank != settings.rank * bool(found[0].rank):
            raise BadInput(
                f"The adapter {found[0].id} has rank {found[0].rank}; training goes on from it with the same, not "
                f"{settings.rank}."
            )
        return found

    def _run(
        self, work: Path, tell: Callable[[TrainingEvent], None], library: Library = Library.MLX
    ) -> dict[str, Any]:
        """Let the child work; what it found. Raises BadInput or TrainingFailed, with the child's last words."""
        if library is Library.TORCH and any(importlib.util.find_spec(name) is None for name in NEEDED):
            raise BadInput(
                f"Training with torch needs packages that are not installed: {pip_install(extra='torch')}"
            )
        (work / "outcome.json").unlink(missing_ok=True)
        argv = [sys.executable, "-m", CHILDREN[library], str(work), str(self._base)]
        last, words, kills = "before its first event", deque[str](maxlen=20), oom_kills()
        with (work / "child.log").open("w+") as log:
            child = subprocess.Popen(
                argv,
                # Open for as long as this process lives: its end tells the child to end too.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**mlx_environment(), **MEMORY},
                start_new_session=True,
            )
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    event = TrainingEvent.from_json(line)
                    last = f"after {event.event} at iteration {event.iteration}"
                    tell(event)
                code = child.wait()
            finally:
                child.kill()
                child.communicate()
            log.seek(0)
            words.extend(line.strip() for line in log if line.strip())
        (work / "child.log").unlink()
        if code != 0 or not (work / "outcome.json").exists():
            said = words[-1] if words else "no message"
            if oom_kills() > kills or any(sign in said for sign in NO_MEMORY):
                raise OutOfMemory(f"The training process ran out of memory {last}.")
            raise TrainingFailed(
                f"The training process ended with {code} {last}: {said}. The same command goes on from its last checkpoint."
            )
        outcome: dict[str, Any] = json.loads((work / "outcome.json").read_text())
        if "error" in outcome:
            raise BadInput(outcome["error"])
        return outcome


NO_MEMORY = ("bad_alloc", "Unable to allocate", "out of memory", "Insufficient Memory", "OutOfMemoryError")
"""What MLX, PyTorch and the systems below them say when there is none left."""


def oom_kills() -> int:
    """How many processes the system has ended for want of memory; 0 where it does not say. A kill by anybody else ends a
    training that would fit, and must not make it a smaller one."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


MEMORY = {
    # MLX's CPU allocator goes back to the kernel for every large buffer; kept buffers make training up to 1.5 times as
    # fast and cost memory, which ends with this process.
    # The time goes into element-wise work, where a second BLAS thread buys a quarter and takes a core from a neighbour.
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}


def _card(
    name: str,
    request: TrainingRequest,
    outcome: dict[str, Any],
    work: Path,
    origins: Sequence[AdapterRecord],
    run: str,
) -> AdapterRecord:
    """The card, where what was measured can be believed. Raises TrainingFailed, naming the figure that cannot."""
    if request.make in (Make.TRAINED, Make.MIXTURE):
        must_have_learned(outcome)
        must_be_complete(outcome, request)
    try:
        return AdapterRecord(
            id=name,
            base=request.base,
            make=request.make,
            settings=request.settings,
            rank=outcome["rank"],
            start=request.start,
            parts=request.parts,
            examples_hash=content_hash(*request.examples, *request.rejected),
            tasks=tuple(
                sorted(
                    {example.instance_id for example in request.examples}
                    | {task for card in origins for task in card.tasks}
                )
            ),
            sources=tuple(example.source for example in (*request.examples, *request.rejected)),
            train_examples=outcome.get("train_examples", 0),
            validation_examples=outcome.get("validation_examples", 0),
            supervised_tokens=outcome.get("supervised_tokens", 0),
            trained_tokens=outcome.get("trained_tokens", 0),
            too_long=outcome.get("too_long", 0),
            length_histogram=outcome.get("length_histogram", {}),
            train_losses=outcome.get("train_losses", ()),
            validation_losses=outcome.get("validation_losses", ()),
            kept_iteration=outcome.get("kept_iteration", 0),
            relative_change=outcome["relative_change"],
            cut_error=outcome.get("cut_error"),
            router_accuracy=outcome.get("router_accuracy"),
            seconds=outcome.get("seconds", 0.0),
            cpu_seconds=outcome.get("cpu_seconds"),
            peak_memory_bytes=outcome["peak_memory_bytes"],
            weights_hash=weights_hash(work),
            backend=outcome["backend"],
            run=run or None,
        )
    except (KeyError, ValidationError) as error:
        raise TrainingFailed(f"The training process reported no usable {error}.") from error


def must_have_learned(outcome: dict[str, Any]) -> None:
    """A training that reported no loss, the same loss for ever or no change has not happened. Raises TrainingFailed."""
    points = outcome.get("train_losses")
    if points is None:
        raise TrainingFailed("The training process reported no train_losses; nothing stands in their place.")
    losses = [point.get("loss") for point in points]
    if len(losses) < 2:
        raise TrainingFailed(f"The training process reported {len(losses)} train_losses; two are the least.")
    if not all(isinstance(loss, float) and math.isfinite(loss) and loss > 0 for loss in losses):
        raise TrainingFailed("train_losses holds values that are no finite, positive numbers.")
    if len(set(losses)) == 1:
        raise TrainingFailed(f"train_losses never moves from {losses[0]}.")
    if not outcome.get("relative_change", 0.0) > 0:
        raise TrainingFailed("relative_change is not above zero: the adapter changes nothing.")


def must_be_complete(outcome: dict[str, Any], request: TrainingRequest) -> None:
    """Every action of every example was trained on, or reported as too long. Raises TrainingFailed."""
    examples = (*request.examples, *request.rejected)
    asked = sum(turn.supervised for example in examples for turn in example.turns)
    taught, too_long = outcome.get("supervised_turns", 0), outcome.get("too_long", 0)
    if taught + too_long != asked:
        raise TrainingFailed(
            f"{taught} of {counted(asked, 'action was', 'actions were')} trained on and {too_long} too long: the loss mask lost the others."
        )
