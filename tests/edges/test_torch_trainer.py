"""Training with transformers and PEFT: the same examples, mask and batches as with MLX, and one kind of adapter."""

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.edges.test_trainer import PROMPT, SETTINGS, experience, request_for

from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.trainers import mlx
from looper.edges.trainers.mlx import MlxTrainer
from looper.edges.trainers.peft import to_peft
from looper.errors import BadInput, TrainingFailed
from looper.records.training import AdapterRecord, Library, Make, TrainingEvent, TrainingSettings

TORCH = TrainingSettings.model_validate({**SETTINGS.model_dump(), "library": "torch"})
installed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "peft", "accelerate")),
    reason="PyTorch and PEFT are not installed: python -m pip install -e '.[torch]'",
)


@pytest.fixture(scope="module")
def made(nano: MlxModel, trainer: MlxTrainer) -> AdapterRecord:
    return trainer.train(request_for(nano, settings=TORCH))


def torch_logits(adapter: Path) -> Any:
    """Of the next token after PROMPT, computed by PEFT from an adapter in its own layout, at the places of `first_logits`."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(str(nano_folder()))
    tokenizer = AutoTokenizer.from_pretrained(str(nano_folder()))
    messages = [{"role": role, "content": text} for role, text in PROMPT]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        found = PeftModel.from_pretrained(base, str(adapter))(tokens).logits[0, -1].tolist()
    return found[:: max(1, len(found) // 256)][:256]


@installed
def test_the_first_batch_costs_what_it_costs_with_mlx(
    made: AdapterRecord, trainer: MlxTrainer, nano: MlxModel
) -> None:
    """New factors change nothing, so the first loss is base's: equal only with the same examples, mask and order."""
    theirs = trainer.train(request_for(nano))
    assert made.train_losses[0].loss == pytest.approx(theirs.train_losses[0].loss, rel=1e-2)
    same = (
        "tasks",
        "supervised_tokens",
        "trained_tokens",
        "length_histogram",
        "train_examples",
        "kept_iteration",
    )
    assert all(getattr(made, name) == getattr(theirs, name) for name in same)
    assert made.id != theirs.id and made.backend.startswith("peft ")
    assert len(made.train_losses) == 12 and made.train_losses[-1].loss < made.train_losses[0].loss


@installed
def test_what_torch_trained_is_what_mlx_serves(
    made: AdapterRecord, trainer: MlxTrainer, nano: MlxModel, tmp_path: Path
) -> None:
    served = nano.with_adapter(trainer.folder(made.id)).first_logits(PROMPT)
    assert max(abs(ours - base) for ours, base in zip(served, nano.first_logits(PROMPT), strict=True)) > 0.1
    to_peft(trainer.folder(made.id), made, tmp_path / "out")
    computed = torch_logits(tmp_path / "out")
    assert max(abs(ours - theirs) for ours, theirs in zip(served, computed, strict=True)) < 1e-2
    assert {path.name for path in trainer.folder(made.id).iterdir()} == {
        "adapter.json",
        "adapter_config.json",
        "adapters.safetensors",
    }


@installed
def test_peft_reads_what_mlx_trained(trainer: MlxTrainer, nano: MlxModel, tmp_path: Path) -> None:
    card = trainer.train(request_for(nano))
    to_peft(trainer.folder(card.id), card, tmp_path / "out")
    served = nano.with_adapter(trainer.folder(card.id)).first_logits(PROMPT)
    computed = torch_logits(tmp_path / "out")
    assert max(abs(ours - theirs) for ours, theirs in zip(served, computed, strict=True)) < 1e-2


@installed
@pytest.mark.proof
def test_it_stops_early_at_the_best_weights_and_goes_on_after_a_kill(
    nano: MlxModel, trainer: MlxTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TORCH.model_copy(update={"validation_share": 0.2, "evaluate_every": 4, "seed": 5})
    request = request_for(nano, settings=settings)
    children: list[int] = []
    popen = mlx.subprocess.Popen

    def started(*given: Any, **options: Any) -> Any:
        child = popen(*given, **options)
        children.append(child.pid)
        return child

    monkeypatch.setattr(mlx.subprocess, "Popen", started)

    def kill(event: TrainingEvent) -> None:
        if event.event == "checkpoint":
            os.kill(children[-1], signal.SIGKILL)

    with pytest.raises(TrainingFailed, match="goes on from its last checkpoint"):
        trainer.train(request, kill)
    assert not trainer.has(request.adapter_id())
    events: list[TrainingEvent] = []
    card = trainer.train(request, events.append)
    assert min(event.iteration for event in events if event.event == "loss") > 4
    assert card.validation_examples == 2 and len(card.train_losses) == 12
    best = min(card.validation_losses, key=lambda point: point.loss)
    assert card.kept_iteration == best.iteration


def test_without_the_packages_it_says_what_to_install(
    nano: MlxModel, trainer: MlxTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = TORCH.model_copy(update={"seed": 9})
    with pytest.raises(BadInput, match=r"python\S* -m (uv )?pip install .*peft.* .*torch"):
        trainer.train(request_for(nano, settings=settings))


def test_what_it_cannot_train_is_refused_before(nano: MlxModel) -> None:
    for changes in ({"kind": "dora"}, {"objective": "preference"}):
        with pytest.raises(ValueError, match="torch trains LoRA by imitation"):
            TrainingSettings.model_validate({**SETTINGS.model_dump(), **changes, "library": Library.TORCH})
    with pytest.raises(ValueError, match="from their beginning"):
        request_for(nano, settings=TORCH, start="a" * 16, examples=experience(2), make=Make.TRAINED)
