"""The process that trains an adapter with transformers and PEFT, where PyTorch has the faster device.

    python -m looper.edges.trainers.torch_child FOLDER BASE

Contract and outcome are those of `child`; the adapter is written in mlx-lm's layout, as all are kept. Loop, checkpoints and
early stop are transformers' own. What goes in is ours, and the same as with MLX: windows, loss mask, order of the batches.
"""

import math
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch.utils.data import Dataset, Sampler
from transformers import (
    AutoModelForCausalLM,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from looper.edges.trainers.child import serve
from looper.edges.trainers.encoding import Encoded, length_histogram, load_tokenizer, windows
from looper.edges.trainers.order import groups, train_validation_split
from looper.edges.trainers.peft import write_mlx_layout
from looper.errors import BadInput
from looper.records.training import (
    LossPoint,
    Make,
    MeasuringRequest,
    TrainingEvent,
    TrainingRequest,
    TrainingSettings,
)

IGNORED = -100
"""The label that transformers' loss does not count."""


class WindowDataset(Dataset[Encoded]):  # type: ignore[misc]
    def __init__(self, found: list[Encoded]) -> None:
        self.found = found

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, at: int) -> Encoded:
        return self.found[at]


class OrderedBatchSampler(Sampler[list[int]]):  # type: ignore[misc]
    """Batches by `order.groups`, as positions among the windows."""

    def __init__(self, found: list[Encoded], settings: TrainingSettings) -> None:
        self._at = {id(item): at for at, item in enumerate(found)}
        self._found, self._settings = found, settings

    def __len__(self) -> int:
        return self._settings.iterations

    def __iter__(self) -> Iterator[list[int]]:
        endless = groups(self._found, self._settings.batch_size, self._settings.seed)
        for _, group in zip(range(len(self)), endless, strict=False):
            yield [self._at[id(item)] for item in group]


def collated(group: list[Encoded]) -> dict[str, Any]:
    longest = max(len(item.tokens) for item in group)
    ids = torch.zeros((len(group), longest), dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, item in enumerate(group):
        length = len(item.tokens)
        ids[row, :length] = torch.tensor(item.tokens)
        mask[row, :length] = 1
        counted = torch.tensor(item.weights).bool()
        labels[row, :length] = torch.where(counted, ids[row, :length], IGNORED)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class OrderedTrainer(Trainer):  # type: ignore[misc]
    def __init__(self, settings: TrainingSettings, train_set: list[Encoded], **given: Any) -> None:
        super().__init__(train_dataset=WindowDataset(train_set), data_collator=collated, **given)
        self._settings, self._train_set = settings, train_set

    def get_train_dataloader(self) -> Any:
        order = OrderedBatchSampler(self._train_set, self._settings)
        return torch.utils.data.DataLoader(
            WindowDataset(self._train_set), batch_sampler=order, collate_fn=collated
        )


class EventCallback(TrainerCallback):  # type: ignore[misc]
    """Passes on what the trainer logs, as events."""

    def __init__(self, to: "IO[str]", iterations: int) -> None:
        self._to, self._iterations = to, iterations

    def tell(self, event: TrainingEvent) -> None:
        self._to.write(event.to_json().decode() + "\n")
        self._to.flush()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        loss = (logs or {}).get("loss", (logs or {}).get("eval_loss"))
        if loss is None:
            return
        if not math.isfinite(loss):
            raise BadInput(
                f"The loss became {loss} at iteration {state.global_step}. Lower the learning rate or the multiplier (alpha / rank)."
            )
        kind = "loss" if "loss" in logs else "validation"
        self.tell(
            TrainingEvent.model_validate(
                {
                    "event": kind,
                    "iteration": state.global_step,
                    "iterations": self._iterations,
                    "loss": loss,
                }
            )
        )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.tell(TrainingEvent(event="checkpoint", iteration=state.global_step, iterations=self._iterations))


def wrapped(base: Path, settings: TrainingSettings) -> Any:
    """The base with new factors in every linear layer of the last `settings.layers` blocks; all else is frozen."""
    model = AutoModelForCausalLM.from_pretrained(str(base))
    count = model.config.num_hidden_layers
    first = 0 if settings.layers == -1 else max(0, count - settings.layers)
    torch.manual_seed(settings.seed)
    return get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.multiplier * settings.rank,
            target_modules="all-linear",
            layers_to_transform=None if first == 0 else list(range(first, count)),
            task_type="CAUSAL_LM",
        ),
    )


def relative_change(model: Any) -> float:
    """‖ΔW‖ / ‖W‖ over all adapted matrices together."""
    change = size = 0.0
    for module in model.modules():
        if isinstance(module, LoraLayer):
            change += float((module.get_delta_weight("default").float() ** 2).sum())
            size += float((module.get_base_layer().weight.float() ** 2).sum())
    return math.sqrt(change / size)


def work(folder: Path, base: Path, request: TrainingRequest, events: "IO[str]") -> dict[str, Any]:
    """Train; the figures for the adapter's card."""
    settings = request.settings
    if request.make is not Make.TRAINED:
        raise BadInput(f"An adapter that is {request.make.value} needs no training. Set library = mlx.")
    tokenizer = load_tokenizer(base)
    cut = [windows(tokenizer, example, settings.max_tokens) for example in request.examples]
    every = [item for found, _ in cut for item in found]
    train_set, validation_set = train_validation_split(every, request)
    told = EventCallback(events, settings.iterations)
    validated = bool(validation_set)
    trainer = OrderedTrainer(
        settings,
        train_set,
        model=wrapped(base, settings),
        eval_dataset=WindowDataset(validation_set) if validated else None,
        args=_arguments(folder, settings, validated),
        callbacks=[told, *([EarlyStoppingCallback(settings.patience)] if validated else [])],
    )
    told.tell(TrainingEvent(event="loaded", iterations=settings.iterations))
    begun = time.perf_counter()
    checkpoints = folder / "checkpoints"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None)
    seconds = time.perf_counter() - begun
    arrays = {
        name: value.float().cpu().numpy() for name, value in get_peft_model_state_dict(trainer.model).items()
    }
    write_mlx_layout(arrays, settings.rank, settings.multiplier, folder)
    history = trainer.state.log_history
    shown = [
        item for item, _ in zip(_shown(train_set, settings), range(trainer.state.global_step), strict=False)
    ]
    best = trainer.state.best_global_step if validated else None
    return {
        "rank": settings.rank,
        "relative_change": relative_change(trainer.model),
        "train_losses": _points(history, "loss"),
        "validation_losses": _points(history, "eval_loss"),
        "kept_iteration": trainer.state.global_step if best is None else best,
        "trained_tokens": sum(shown),
        "supervised_tokens": sum(item.supervised for item in train_set),
        "train_examples": len(train_set),
        "validation_examples": len(validation_set),
        "length_histogram": length_histogram([len(item.tokens) for item in every]),
        "supervised_turns": sum(item.turns for item in every),
        "too_long": sum(too_long for _, too_long in cut),
        "seconds": seconds,
        "backend": ", ".join(
            f"{name} {metadata.version(name)}" for name in ("peft", "transformers", "torch")
        ),
    }


def _arguments(folder: Path, settings: TrainingSettings, validated: bool) -> TrainingArguments:
    saved = settings.evaluate_every if validated else settings.checkpoint_every
    return TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=settings.iterations,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        # Adam, as with MLX: no decay of the weights.
        weight_decay=0.0,
        max_grad_norm=settings.clip_norm,
        logging_steps=1,
        save_steps=saved,
        save_total_limit=2,
        eval_strategy="steps" if validated else "no",
        eval_steps=settings.evaluate_every if validated else None,
        load_best_model_at_end=validated,
        metric_for_best_model="eval_loss" if validated else None,
        gradient_checkpointing=settings.grad_checkpoint,
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def _shown(train_set: list[Encoded], settings: TrainingSettings) -> Iterator[int]:
    """Supervised tokens of each iteration."""
    for group in groups(train_set, settings.batch_size, settings.seed):
        yield sum(item.supervised for item in group)


def _points(history: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [
        LossPoint(iteration=entry["step"], loss=float(entry[key])).model_dump()
        for entry in history
        if key in entry
    ]


def main() -> None:
    folder, base = Path(sys.argv[1]), Path(sys.argv[2])

    def carry_out(request: TrainingRequest | MeasuringRequest, events: "IO[str]") -> dict[str, Any]:
        assert isinstance(request, TrainingRequest)
        return work(folder, base, request, events)

    serve(folder, carry_out)


if __name__ == "__main__":
    main()
