"""Strategies as numbers: what is held, merged, cut and routed is what the formulas say. Guard G-46.

Each test fails on the known wrong version: factors averaged, a penalty that Adam scales away, one rank for everything.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tests.edges.test_trainer import PROMPT, SETTINGS, experience, request_for

from looper.edges.models.mlx import MlxModel
from looper.edges.trainers.mlx import MlxTrainer
from looper.edges.trainers.mlx_optimizer import accumulated, with_mean_one
from looper.edges.trainers.mlx_weights import concatenated, random_like, truncated, widened
from looper.errors import BadInput
from looper.records.strategy import Anchor, Gathering, Pull
from looper.records.training import AdapterKind, AdapterRecord, Example, Make, Objective, Turn

EXAMPLES = experience(12)
OLD, NEW = EXAMPLES[:6], EXAMPLES[6:]


@pytest.fixture(scope="module")
def old(nano: MlxModel, trainer: MlxTrainer) -> AdapterRecord:
    """Trained on the old batch, with the Fisher information of it."""
    anchor = Anchor(pull=Pull.FISHER, strength=0)
    return trainer.train(request_for(nano, examples=OLD, anchor=anchor))


def arrays(trainer: MlxTrainer, card: AdapterRecord) -> dict[str, Any]:
    return dict(mx.load(str(trainer.folder(card.id) / "adapters.safetensors")))


def moved(before: dict[str, Any], after: dict[str, Any]) -> float:
    return max(float(mx.abs(after[name] - value).max().item()) for name, value in before.items())


def change(found: dict[str, Any], name: str) -> Any:
    return np.array(found[f"{name}.lora_a"]) @ np.array(found[f"{name}.lora_b"])


LAYER = "model.layers.1.self_attn.q_proj"


def test_a_pull_of_no_strength_is_no_pull(nano: MlxModel, trainer: MlxTrainer, old: AdapterRecord) -> None:
    plain = trainer.train(request_for(nano, examples=NEW, start=old.id))
    held = trainer.train(
        request_for(nano, examples=NEW, start=old.id, anchor=Anchor(pull=Pull.FISHER, strength=0))
    )
    assert plain.id != held.id
    assert moved(arrays(trainer, plain), arrays(trainer, held)) == 0.0
    assert moved(arrays(trainer, old), arrays(trainer, plain)) > 1e-3


def test_an_endless_pull_freezes_and_a_strong_one_holds_what_mattered(
    nano: MlxModel, trainer: MlxTrainer, old: AdapterRecord
) -> None:
    frozen = trainer.train(
        request_for(nano, examples=NEW, start=old.id, anchor=Anchor(pull=Pull.EQUAL, strength=1e12))
    )
    assert moved(arrays(trainer, old), arrays(trainer, frozen)) < 1e-6
    held = trainer.train(
        request_for(nano, examples=NEW, start=old.id, anchor=Anchor(pull=Pull.FISHER, strength=300))
    )
    plain = trainer.train(request_for(nano, examples=NEW, start=old.id))
    importance = mx.load(str(trainer.folder(old.id) / "fisher.safetensors"))
    flat = np.concatenate([np.array(importance[name]).ravel() for name in sorted(importance)])
    assert flat.mean() == pytest.approx(1.0, rel=1e-3)
    share = []
    for card in (held, plain):
        after, before = arrays(trainer, card), arrays(trainer, old)
        steps = np.concatenate([np.abs(np.array(after[n] - before[n])).ravel() for n in sorted(importance)])
        share.append(
            steps[flat > np.quantile(flat, 0.95)].mean() / steps[flat < np.quantile(flat, 0.5)].mean()
        )
    assert share[0] < 0.7 * share[1], "what the old batch depends on moves less, compared with the rest"
    assert (trainer.folder(held.id) / "fisher.safetensors").is_file()


def test_fisher_information_is_gathered_as_asked() -> None:
    before, now = {"w": mx.array([1.0, 3.0])}, {"w": mx.array([2.0, 0.0])}
    found = {how: accumulated(before, now, 1, how)["w"].tolist() for how in Gathering}
    assert found == {Gathering.LATEST: [2, 0], Gathering.SUM: [3, 3], Gathering.MEAN: [1.5, 1.5]}
    assert accumulated({}, now, 0, Gathering.SUM)["w"].tolist() == [2, 0]
    assert with_mean_one({"w": mx.array([1.0, 3.0]), "v": mx.array([0.0, 0.0])})["w"].tolist() == [1.0, 3.0]


def test_a_merge_is_the_mean_of_the_products(nano: MlxModel, trainer: MlxTrainer, old: AdapterRecord) -> None:
    new = trainer.train(request_for(nano, examples=NEW))
    merged = trainer.train(request_for(nano, make=Make.MERGED, examples=(), parts=(old.id, new.id)))
    ours, first, second = (arrays(trainer, card) for card in (merged, old, new))
    mean = (change(first, LAYER) + change(second, LAYER)) / 2
    assert np.allclose(change(ours, LAYER), mean, atol=1e-6)
    factors = {
        f"{LAYER}.lora_{which}": (first[f"{LAYER}.lora_{which}"] + second[f"{LAYER}.lora_{which}"]) / 2
        for which in "ab"
    }
    assert not np.allclose(change(factors, LAYER), mean, atol=1e-5), "the known wrong version differs"
    assert merged.rank == 16 and merged.tasks == tuple(sorted({*old.tasks, *new.tasks}))
    assert nano.with_adapter(trainer.folder(merged.id)).first_logits(PROMPT) != nano.first_logits(PROMPT)


def test_a_cut_is_exact_at_full_rank_and_loses_the_smallest_singular_values(
    nano: MlxModel, trainer: MlxTrainer, old: AdapterRecord
) -> None:
    found = arrays(trainer, old)
    whole, error = truncated(found, 8)
    assert error < 1e-6 and np.allclose(change(whole, LAYER), change(found, LAYER), atol=1e-6)
    half, _ = truncated({key: value for key, value in found.items() if key.startswith(LAYER)}, 4)
    values = np.linalg.svd(change(found, LAYER), compute_uv=False)
    lost = np.linalg.norm(change(half, LAYER) - change(found, LAYER))
    assert lost == pytest.approx(np.sqrt((values[4:8] ** 2).sum()), rel=1e-3)
    settings = SETTINGS.model_copy(update={"rank": 4})
    card = trainer.train(request_for(nano, make=Make.CUT, examples=(), parts=(old.id,), settings=settings))
    assert card.rank == 4 and card.cut_error is not None and 0 < card.cut_error < 1


def test_grown_factors_stand_beside_old_ones_that_do_not_move(
    nano: MlxModel, trainer: MlxTrainer, old: AdapterRecord
) -> None:
    settings = SETTINGS.model_copy(update={"rank": 2})
    card = trainer.train(request_for(nano, examples=NEW, start=old.id, grow=True, settings=settings))
    before, after = arrays(trainer, old), arrays(trainer, card)
    assert card.rank == 10 and after[f"{LAYER}.lora_a"].shape[1] == 10
    assert bool((after[f"{LAYER}.lora_a"][:, :8] == before[f"{LAYER}.lora_a"]).all().item())
    assert bool((after[f"{LAYER}.lora_b"][:8] == before[f"{LAYER}.lora_b"]).all().item())
    assert float(mx.abs(after[f"{LAYER}.lora_b"][8:]).max().item()) > 0
    start, masks = widened(
        before, {key: mx.zeros(value.shape) for key, value in after.items() if "lora" in key}
    )
    assert np.allclose(change(start, LAYER), change(before, LAYER), atol=1e-7), "at first nothing changes"
    assert int(masks[f"{LAYER}.lora_b"].sum().item()) == before[f"{LAYER}.lora_b"].size


def test_noise_keeps_the_norm_of_every_change(trainer: MlxTrainer, old: AdapterRecord) -> None:
    found = arrays(trainer, old)
    noise = random_like(found, seed=1)
    for name in (LAYER, "model.layers.0.mlp.up_proj"):
        ours, theirs = change(noise, name), change(found, name)
        assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=1e-4)
        assert abs((ours * theirs).sum()) < 0.2 * np.linalg.norm(theirs) ** 2


def parts(examples: tuple[Example, ...], number: int) -> tuple[Example, ...]:
    def part(turn: Turn) -> Turn:
        return turn.model_copy(update={"part": number}) if turn.supervised else turn

    return tuple(
        item.model_copy(update={"turns": tuple(part(turn) for turn in item.turns)}) for item in examples
    )


@pytest.fixture(scope="module")
def experts(nano: MlxModel, trainer: MlxTrainer, old: AdapterRecord) -> tuple[AdapterRecord, AdapterRecord]:
    return old, trainer.train(request_for(nano, examples=NEW))


def test_a_mixture_is_served_token_by_token_and_its_router_finds_the_expert(
    nano: MlxModel, trainer: MlxTrainer, experts: tuple[AdapterRecord, AdapterRecord]
) -> None:
    by_tool = tuple(
        item.model_copy(
            update={
                "turns": tuple(
                    turn.model_copy(update={"part": int(turn.text.startswith("<bash>"))})
                    if turn.supervised
                    else turn
                    for turn in item.turns
                )
            }
        )
        for item in EXAMPLES
    )
    ids = tuple(card.id for card in experts)
    settings = SETTINGS.model_copy(update={"iterations": 30, "learning_rate": 1e-2})
    card = trainer.train(request_for(nano, make=Make.MIXTURE, examples=by_tool, parts=ids, settings=settings))
    assert card.router_accuracy is not None and card.router_accuracy > 0.85
    assert {"fine_tune_type", "mixture"} <= set(
        (trainer.folder(card.id) / "adapter_config.json").read_text().split('"')
    )
    one = trainer.train(
        request_for(nano, make=Make.ROUTED_BY_CHANCE, examples=(), parts=ids, top=1, settings=SETTINGS)
    )
    said = [
        tuple(nano.with_adapter(trainer.folder(found.id)).first_logits(PROMPT))
        for found in (card, one, *experts)
    ]
    assert len(set(said)) == 4
    base = nano.with_adapter(None).first_logits(PROMPT)
    assert base == nano.first_logits(PROMPT) and tuple(base) not in said


def test_a_router_that_holds_all_alike_is_the_merge(
    nano: MlxModel, trainer: MlxTrainer, experts: tuple[AdapterRecord, AdapterRecord], tmp_path: Path
) -> None:
    ids = tuple(card.id for card in experts)
    merged = trainer.train(request_for(nano, make=Make.MERGED, examples=(), parts=ids))
    chance = trainer.train(request_for(nano, make=Make.ROUTED_BY_CHANCE, examples=(), parts=ids))
    even = tmp_path / "even"
    even.mkdir()
    found = arrays(trainer, chance)
    flat = {name: value * 0 if name.endswith("router") else value for name, value in found.items()}
    mx.save_safetensors(str(even / "adapters.safetensors"), flat)
    config = (trainer.folder(chance.id) / "adapter_config.json").read_text()
    (even / "adapter_config.json").write_text(config)
    ours = nano.with_adapter(even).first_logits(PROMPT)
    assert ours == pytest.approx(nano.with_adapter(trainer.folder(merged.id)).first_logits(PROMPT), abs=1e-3)
    assert np.allclose(change(concatenated([found], 1.0), LAYER), change(found, LAYER)), (
        "one alone stays what it is"
    )


def test_a_student_comes_nearer_to_what_its_teacher_says(nano: MlxModel, trainer: MlxTrainer) -> None:
    def without_memory(example: Example) -> Example:
        system, task, *rest = example.turns
        bare = task.text[task.text.index("repo ") :] if "repo " in task.text else task.text
        return example.model_copy(update={"turns": (system, task.model_copy(update={"text": bare}), *rest)})

    teachers = tuple(item for item in experience(40) if item.turns[1].text.startswith("memory"))[:8]
    students = tuple(map(without_memory, teachers))
    assert all(a.turns[1].text != b.turns[1].text for a, b in zip(teachers, students, strict=True))
    settings = SETTINGS.model_copy(
        update={"objective": Objective.DISTILLATION, "iterations": 30, "learning_rate": 3e-3}
    )
    card = trainer.train(request_for(nano, examples=students, teachers=teachers, settings=settings))
    losses = [point.loss for point in card.train_losses]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    with pytest.raises(ValueError, match="no more than its student"):
        request_for(nano, examples=students, teachers=students, settings=settings)


def test_examples_are_measured_with_and_without_an_adapter(
    nano: MlxModel, trainer: MlxTrainer, old: AdapterRecord
) -> None:
    base, after = trainer.measure("", OLD), trainer.measure(old.id, OLD)
    assert [found.source for found in base] == [item.source for item in OLD]
    assert sum(found.loss for found in after) < sum(found.loss for found in base)
    served = nano.with_adapter(trainer.folder(old.id)).losses(OLD)
    assert served == pytest.approx([found.loss for found in after], rel=1e-3), "trained and served alike"
    assert nano.losses(OLD) == pytest.approx([found.loss for found in base], rel=1e-3)
    assert len(base[0].place) == 128 and base[0].place != base[1].place


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": SETTINGS.model_copy(update={"rank": 4})}, "has rank 8"),
        ({"settings": SETTINGS.model_copy(update={"multiplier": 2.0})}, "do not add up"),
        ({"settings": SETTINGS.model_copy(update={"kind": AdapterKind.DORA})}, "do not add up"),
        ({"start": "0123456789abcdef"}, "There is no adapter 0123456789abcdef"),
    ],
    ids=["another rank", "another multiplier", "another kind", "not there"],
)
def test_what_does_not_go_together_is_refused_before_training(
    nano: MlxModel, trainer: MlxTrainer, old: AdapterRecord, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadInput, match=named):
        trainer.train(request_for(nano, **{"examples": NEW, "start": old.id, **changes}))
