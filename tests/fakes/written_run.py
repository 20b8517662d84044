"""A run folder as a run would leave it, with whatever texts a test wants in it; no model is asked."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from looper.agent.scaffold import packaged_scaffold
from looper.journal import Stream
from looper.records.base import content_hash
from looper.records.model import ModelSpec
from looper.records.plan import Arm, ArmRole, Contrast, Limits, Plan, RunManifest, TaskSelection
from looper.records.training import Selection
from looper.records.trajectory import (
    Bash,
    Done,
    FinishReason,
    Guard,
    ModelIdentity,
    Observation,
    ObservationKind,
    Read,
    Reply,
    Step,
    StopReason,
    Trajectory,
    Usage,
)
from looper.records.treatment import Proof, ProofKind
from looper.records.verdict import Outcome, TestOutcome, Verdict

IDENTITY = ModelIdentity(
    backend="scripted", backend_version="1", name="x", digest="x", quantisation="none", context_tokens=32768
)
USAGE = Usage(prompt_tokens=40, completion_tokens=20, counted_by="x")

TWO_ALIKE = """
title = "t"
hypothesis = "h"
factor = "f"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "again"
role = "again"
repetition = 1
reason = "equal arms"
"""
AND_MEMORY = """
[[arms]]
name = "memory"
role = "treatment"
learning = { treatment = "memory" }
reason = "what it may do"
"""
"""Plans in TOML, to which contrasts, arms and profiles are added."""


NOTHING_SEEN = Selection(
    seen=0,
    unresolved=0,
    without_verdict=0,
    outside=0,
    duplicates=0,
    over_cap=0,
    taken=0,
    tasks=(),
    dropped_steps=0,
)
"""Of what was learned from nothing that is on record."""


def step(cell: str, index: int, last: int, said: str, seen: str) -> Step:
    """The last one ends; every third command failed, and the second step fired a guard."""
    action = Done(message=said[:40]) if index == last else Bash(command=f"run {index}")
    if index == 2:
        action = Read(path=said[:40])
    return Step(
        cell=cell,
        attempt=1,
        index=index,
        reply=Reply(text=f"{said} {index}", finish_reason=FinishReason.STOP, usage=USAGE, wall_s=0.1),
        action=action,
        problem=None,
        observation=Observation(
            kind=ObservationKind.END if index == last else ObservationKind.OK,
            text=f"{seen} {index}",
            exit_code=int(index % 3 == 0) if isinstance(action, Bash) else None,
        ),
        guards=(Guard.REPEATED_ACTION,) if index == 2 else (),
        stop_reason=StopReason.DONE if index == last else None,
        context_tokens=40,
        pruned_messages=0,
        tree="x",
        wall_s=0.2,
    )


def write_run(
    runs: Path,
    *,
    experiment: str = "written",
    arms: Sequence[str] = ("base", "other"),
    tasks: Sequence[str] = ("a__b-1", "a__b-2"),
    steps: int = 5,
    said: str = "said",
    seen: str = "seen",
    cause: str = "a test failed",
    patch: str = "diff --git a/x b/x\n+one\n",
    test: str = "tests/test_x.py::test_x",
    judged: Callable[[str], bool] = lambda cell: True,
    end: Mapping[str, object] | None = None,
    found: Mapping[str, object] | None = None,
    contrasts: Sequence[Contrast] = (),
    adapter: str = "",
    noop: str = "",
) -> Path:
    """Base and the arm that is called `noop` resolve nothing, every other arm everything; cells that are not `judged` have no end yet.
    `end` and `found` are set in every trajectory and verdict. All but base carry the `adapter`."""
    scaffold, model = packaged_scaffold("full"), ModelSpec(backend="scripted", name="x")
    plan = Plan(
        experiment=experiment,
        profile="micro",
        title="Written down",
        hypothesis="h",
        factor="the arm",
        selection=TaskSelection(suite="swe-bench-cl"),
        seeds=(0,),
        arms=tuple(
            Arm(
                name=name,
                role=ArmRole.BASE
                if name == "base"
                else ArmRole.CONTROL
                if name == noop
                else ArmRole.TREATMENT,
                model=ModelSpec(backend="noop", name="")
                if name == noop
                else model
                if name == "base"
                else model.model_copy(update={"adapter": adapter}),
                scaffold=scaffold,
                temperature=0.0 if adapter else 0.2 * at,
            )
            for at, name in enumerate(arms)
        ),
        limits=Limits(steps=30, output_tokens=400, context_tokens=8000, wall_s=60, command_s=10, verify_s=60),
        order="parallel",
        contrasts=tuple(contrasts),
    )
    manifest = RunManifest(
        plan=plan,
        code_version="x",
        tasks=tuple(tasks),
        tasks_hash="x",
        models={arm.name: IDENTITY for arm in plan.arms},
        environments=("e",),
        sandbox="none",
        leaked=tuple(tasks[:1]),
        left_out={"a__b-9": cause},
    )
    folder = runs / f"{experiment}-micro-{manifest.run_hash()}"
    folder.mkdir(parents=True)
    _write(folder, "manifest", [manifest])
    cells = [(arm, task, f"{arm.name}/0/{task}") for arm in plan.arms for task in tasks]
    _write(
        folder, "steps", [step(cell, at + 1, steps, said, seen) for *_, cell in cells for at in range(steps)]
    )
    ended = [(arm, task, cell) for arm, task, cell in cells if judged(cell)]
    _write(
        folder,
        "trajectories",
        [
            ended_rollout(cell, arm, task, patch, steps).model_copy(update=end or {})
            for arm, task, cell in ended
        ],
    )
    verdicts = [_verdict(cell, arm, task, patch, cause, test) for arm, task, cell in ended]
    _write(folder, "verdicts", [verdict.model_copy(update=found or {}) for verdict in verdicts])
    return folder


def ended_rollout(cell: str, arm: Arm, task: str, patch: str, steps: int) -> Trajectory:
    return Trajectory(
        cell=cell,
        attempt=1,
        instance_id=task,
        arm=arm.name,
        arm_hash=arm.config_hash(),
        seed=0,
        code_version="x",
        prompt_hash="x",
        model=IDENTITY,
        environment="e",
        sandbox="none",
        workspace_clean_state="x",
        steps=steps,
        stop_reason=StopReason.DONE,
        patch=patch,
        patch_hash=content_hash(patch),
        patch_at_limit=False,
        flagged_paths=(),
        prompt_tokens=40 * steps,
        completion_tokens=20 * steps,
        guards={},
        wall_s=1.0,
        model_s=0.5,
    )


def _verdict(cell: str, arm: Arm, task: str, patch: str, cause: str, test: str) -> Verdict:
    good = arm.role is not ArmRole.BASE and arm.model.backend != "noop"
    return Verdict(
        cell=cell,
        attempt=1,
        instance_id=task,
        outcome=Outcome.RESOLVED if good else Outcome.UNRESOLVED,
        cause="" if good else cause,
        f2p_only=False,
        fail_to_pass={test: TestOutcome.PASSED if good else TestOutcome.FAILED},
        pass_to_pass={},
        stripped_paths=(),
        tampering=(),
        patch_hash=content_hash(patch),
        environment="e",
        sandbox="none",
        verifier="1",
        wall_s=1.0,
    )


def fails(folder: Path, arm: str, why: str) -> None:
    """As a run records it of an arm that does not act at work."""
    proofs = Stream(folder, "proofs", Proof)
    proofs.append(Proof(kind=ProofKind.ACTS, arm=arm, subject="", passed=False, said=why))
    proofs.close()


def _write(folder: Path, name: str, records: Sequence[object]) -> None:
    stream: Stream[object] = Stream(folder, name, type(records[0]) if records else Verdict)  # type: ignore[arg-type,type-var]
    for record in records:
        stream.append(record)
    stream.close()
