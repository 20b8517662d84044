"""Patches that somebody else made → cells that only need their verdict."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from looper.agent.scaffold import packaged_scaffold
from looper.records.base import content_hash
from looper.records.foreign import Prediction
from looper.records.model import ModelSpec
from looper.records.plan import Arm, ArmRole, Cell, Isolation, Limits, Plan, TaskSelection
from looper.records.trajectory import ModelIdentity, StopReason, Trajectory

GRADING = Limits(
    steps=1,
    output_tokens=1,
    context_tokens=2,
    wall_s=1.0,
    command_s=1.0,
    verify_s=1800.0,
    memory_mb=4096,
)
"""Of a run that only verifies; the last two count."""


def grading_plan(
    path: Path,
    predictions: Sequence[Prediction],
    suite: str,
    level: int,
    limits: Limits,
    isolation: Isolation = Isolation.SHARED,
) -> Plan:
    """One arm per model of the file; the file's content is part of the plan."""
    models = list(dict.fromkeys(prediction.model for prediction in predictions))
    return Plan(
        experiment="grade",
        profile=path.name,
        title=f"Predictions of {path.name}",
        hypothesis="",
        factor="who made the patch",
        selection=TaskSelection.model_validate(
            {
                "suite": suite,
                "level": level,
                "isolation": isolation,
                "tasks": tuple(dict.fromkeys(prediction.instance_id for prediction in predictions)),
            }
        ),
        seeds=(0,),
        arms=tuple(
            Arm(
                name=name,
                role=ArmRole.CONTROL,
                model=ModelSpec(backend="predictions", name=model, base_url=_digest(model, predictions)),
                scaffold=packaged_scaffold("full"),
                temperature=0.0,
            )
            for model, name in arm_names(models).items()
        ),
        limits=limits,
        order="parallel",
    )


def _digest(model: str, predictions: Sequence[Prediction]) -> str:
    parts = [f"{found.instance_id}\0{found.patch}" for found in predictions if found.model == model]
    return f"sha256:{content_hash(*parts)}"


def arm_names(models: Iterable[str]) -> dict[str, str]:
    """Each model's name as an arm may be called; numbered where several become the same, past the numbers in use."""
    plain = {
        model: "m_" + (re.sub(r"[^a-z0-9]+", "_", model.lower()).strip("_") or "model") for model in models
    }
    times = Counter(plain.values())
    taken = {name for name, count in times.items() if count == 1}
    names = {}
    for model, name in plain.items():
        if times[name] > 1:
            name = next(free for n in itertools.count(1) if (free := f"{name}_{n}") not in taken)
            taken.add(name)
        names[model] = name
    return names


def identity_of(arm: Arm) -> ModelIdentity:
    return ModelIdentity(
        backend="predictions",
        backend_version="1",
        name=arm.model.name,
        digest=arm.model.base_url,
        quantisation="unknown",
        context_tokens=None,
    )


def trajectories(
    plan: Plan,
    predictions: Sequence[Prediction],
    code_version: str,
    sandbox: str,
    environment: Mapping[str, str],
) -> list[Trajectory]:
    """What stands in place of a rollout: the patch, and that nothing else is known of how it was made."""
    by_name = {arm.model.name: arm for arm in plan.arms}
    return [
        Trajectory(
            cell=Cell(arm=by_name[found.model].name, seed=0, instance_id=found.instance_id).key,
            attempt=1,
            instance_id=found.instance_id,
            arm=by_name[found.model].name,
            arm_hash=by_name[found.model].config_hash(),
            seed=0,
            code_version=code_version,
            prompt_hash="",
            model=identity_of(by_name[found.model]),
            environment=environment[found.instance_id],
            sandbox=sandbox,
            workspace_clean_state="",
            steps=0,
            stop_reason=StopReason.IMPORTED,
            patch=found.patch,
            patch_hash=content_hash(found.patch),
            patch_at_limit=False,
            flagged_paths=(),
            prompt_tokens=None,
            completion_tokens=None,
            guards={},
            wall_s=0.0,
            model_s=0.0,
        )
        for found in predictions
    ]
