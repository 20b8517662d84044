"""Patches that somebody else made → cells that only need their verdict."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.agent.scaffold import packaged_scaffold
from looper.errors import BadInput
from looper.records.base import content_hash
from looper.records.model import ModelSpec
from looper.records.plan import Arm, ArmRole, Cell, Limits, Plan, TaskSelection
from looper.records.task import Task
from looper.records.trajectory import ModelIdentity, StopReason, Trajectory

FIELDS = ("instance_id", "model_name_or_path", "model_patch")


@dataclass(frozen=True)
class Prediction:
    """One line of a predictions file, as SWE-bench defines it."""

    instance_id: str
    model: str
    patch: str


def read_predictions(path: Path, tasks: Mapping[str, Task]) -> tuple[Prediction, ...]:
    """Raises BadInput that names every line that cannot be used; nothing is graded then."""
    if not path.is_file():
        raise BadInput(f"There is no predictions file {path}.")
    found: dict[tuple[str, str], Prediction] = {}
    problems = []
    for number, line in enumerate(path.read_text("utf-8", "surrogateescape").splitlines(), 1):
        if not line.strip():
            continue
        try:
            prediction = _prediction(line, tasks)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if (prediction.model, prediction.instance_id) in found:
            problems.append(f"line {number}: {prediction.instance_id} of {prediction.model} a second time")
        found[prediction.model, prediction.instance_id] = prediction
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BadInput(f"{path}: {'; '.join(problems[:5])}{more}. Correct it and run again.")
    if not found:
        raise BadInput(f"{path} holds no predictions.")
    return tuple(found.values())


def _prediction(line: str, tasks: Mapping[str, Task]) -> Prediction:
    """Raises ValueError with what is wrong."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError("not JSON") from error
    missing = [name for name in FIELDS if not isinstance(row, dict) or name not in row]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    instance, patch = str(row["instance_id"]), row["model_patch"]
    if instance not in tasks:
        near = difflib.get_close_matches(instance, tasks, n=1)
        raise ValueError(f'unknown task "{instance}"{f", did you mean {near[0]}?" if near else ""}')
    if patch is not None and not isinstance(patch, str):
        raise ValueError("model_patch is no text")
    return Prediction(instance, str(row["model_name_or_path"]), patch or "")


def grading_plan(
    path: Path, predictions: Sequence[Prediction], suite: str, level: int, limits: Limits
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
                "tasks": tuple(dict.fromkeys(prediction.instance_id for prediction in predictions)),
            }
        ),
        seeds=(0,),
        arms=tuple(
            Arm(
                name=arm_name(model, models),
                role=ArmRole.CONTROL,
                model=ModelSpec(backend="predictions", name=model, base_url=_digest(model, predictions)),
                scaffold=packaged_scaffold("full"),
                temperature=0.0,
            )
            for model in models
        ),
        limits=limits,
        order="parallel",
    )


def _digest(model: str, predictions: Sequence[Prediction]) -> str:
    parts = [f"{found.instance_id}\0{found.patch}" for found in predictions if found.model == model]
    return f"sha256:{content_hash(*parts)}"


def arm_name(model: str, models: Sequence[str]) -> str:
    """A model's name as an arm may be called; numbered where two become the same."""

    def plain(name: str) -> str:
        return "m_" + (re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model")

    same = [other for other in models if plain(other) == plain(model)]
    return plain(model) + (f"_{same.index(model) + 1}" if len(same) > 1 else "")


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
    models = [arm.model.name for arm in plan.arms]
    by_name = {arm.model.name: arm for arm in plan.arms}
    return [
        Trajectory(
            cell=Cell(arm=arm_name(found.model, models), seed=0, instance_id=found.instance_id).key,
            attempt=1,
            instance_id=found.instance_id,
            arm=arm_name(found.model, models),
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
