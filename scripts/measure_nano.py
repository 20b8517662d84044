"""Resolve rates of the embedded model on tasks that it was not trained on, for its model card.

    python scripts/measure_nano.py [--model FOLDER] [--seed 0] [--steps 6]

Two arms on all 320 level-0 tasks: without memory, and with one memory item of another task of the same repository and
family, as the memory arms of an experiment would give it. Everything runs for real: sandbox, tools, tests.
"""

import argparse
import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from looper.agent.actions import render
from looper.agent.scaffold import packaged_scaffold
from looper.bench.gold import gold_actions
from looper.cli.settings import settings
from looper.edges.datasets.micro import MicroSuite
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces.exports import GitSessions
from looper.experiment.cell import RunContext, run_cell
from looper.metrics.paired import wilson
from looper.records.job import CellJob, CellTreatment
from looper.records.memory import Delivery
from looper.records.model import ModelSpec
from looper.records.plan import Arm, ArmRole, Cell, Limits
from looper.records.task import Task
from looper.records.trajectory import Read
from looper.records.verdict import Outcome


def function_of(task: Task) -> str:
    """`issue scale_oak is wrong` → scale_oak."""
    return task.problem_statement.split()[3]


def family(task: Task) -> str:
    return function_of(task).partition("_")[0]


def memory_item(task: Task, sessions: GitSessions) -> str:
    """In the one format that the model was trained on: title, read, edit reduced to the line that changed."""
    edit = gold_actions(sessions.effect(task, task.gold_patch))[0]
    old = next(line[1:].strip() for line in task.gold_patch.splitlines() if line.startswith("-    return"))
    new = next(line[1:].strip() for line in task.gold_patch.splitlines() if line.startswith("+    return"))
    assert edit.tool == "edit"
    short = edit.model_copy(update={"old": old, "new": new, "occurrence": None})
    return "\n".join([function_of(task), render(Read(path=edit.path, start=1, end=9)), render(short)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=nano_folder())
    parser.add_argument("--seed", type=int, default=0, help="suite seed")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--per-repo", type=int, default=40)
    options = parser.parse_args()
    state = settings().state
    tasks, mirrors = MicroSuite(state / "suites", 0, options.seed).load()
    chosen = [task for task in tasks if task.sequence_position <= options.per_repo]
    with tempfile.TemporaryDirectory(dir=state) as place:
        Path(place).chmod(0o755)
        environments = HarnessEnvironment(state / "environments")
        sessions = GitSessions(mirrors, state / "exports", Path(place), find_sandbox("auto"), environments.of)
        model = MlxModel(options.model, name="nano", context_tokens=2048)
        others = {
            task.instance_id: [
                other
                for other in tasks
                if other.repo == task.repo
                and family(other) == family(task)
                and other.instance_id != task.instance_id
            ]
            for task in chosen
        }
        rng = random.Random(0)
        items = {key: memory_item(rng.choice(found), sessions) for key, found in others.items() if found}
        limits = Limits(
            steps=options.steps, output_tokens=80, context_tokens=2048, wall_s=120, command_s=10, verify_s=120
        )
        for name, memories in (("without memory", {}), ("with a fitting memory", items)):
            run_context = RunContext(
                sessions,
                lambda arm, task, adapter, server: model,
                "measure",
            )
            report(name, chosen, limits, run_context, memories)
        model.close()


def report(
    name: str, tasks: list[Task], limits: Limits, run_context: RunContext, memories: dict[str, str]
) -> None:
    arm = Arm(
        name="base",
        role=ArmRole.BASE,
        model=ModelSpec(backend="nano"),
        scaffold=packaged_scaffold("terse"),
        temperature=0.7,
    )

    def one(task: Task) -> bool:
        cell = Cell(arm="base", seed=0, instance_id=task.instance_id)
        memory = Delivery(candidates=0, text=memories.get(task.instance_id))
        job = CellJob(cell=cell, arm=arm, task=task, limits=limits, treatment=CellTreatment(memory=memory))
        return run_cell(job, run_context, lambda event: None).outcome is Outcome.RESOLVED

    with ThreadPoolExecutor(4) as pool:
        resolved = list(pool.map(one, tasks))
    low, high = wilson(sum(resolved), len(resolved))
    print(
        f"{name}: {sum(resolved)}/{len(resolved)} = {100 * sum(resolved) / len(resolved):.1f} % "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f}), {limits.steps} steps"
    )


if __name__ == "__main__":
    main()
