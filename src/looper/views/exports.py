"""Runs in the formats of others: one line for each cell, and rollouts in the Agent Trajectory Interchange Format.

`csv_lines`, `write_parquet` and `atif_lines` take the whole run, or one arm and one seed of it. Arms that gather experience are exported
where they are named.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from looper.errors import BadInput, MissingTool, pip_install, possible
from looper.journal import read_stream
from looper.records.base import grouped
from looper.records.text import bare_lines
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Verdict
from looper.views.runs import RunView

ATIF = "ATIF-v1.6"
"""Source: Harbor's specification of the format; what is written here was read by the models of harbor 0.25."""


def cell_rows(run: RunView, arm: str | None = None, seed: int | None = None) -> list[dict[str, Any]]:
    """One row for each cell of the compared arms, with a verdict or without; or of one arm, of one seed. Raises BadInput for one that
    is not in the run."""
    rows = []
    for name in [one_arm(run, arm)] if arm else [found.name for found in run.manifest.plan.arms]:
        for cell in run.cells(name):
            verdict = run.final.get(cell)
            end = run.ends.get((cell, verdict.attempt)) if verdict is not None else None
            _, of, task = cell.split("/", 2)
            if seed in (None, int(of)):
                rows.append({"arm": name, "seed": int(of), "task": task, **_measured(verdict, end)})
    if not rows:
        raise _no_seed(run, arm, seed)
    return rows


def _measured(verdict: Verdict | None, end: Trajectory | None) -> dict[str, Any]:
    """None where nothing was measured."""
    return {
        "outcome": verdict.outcome.value if verdict else None,
        "cause": verdict.cause if verdict else None,
        "applied": verdict.applied if verdict else None,
        "attempt": verdict.attempt if verdict else None,
        "steps": end.steps if end else None,
        "stop_reason": end.stop_reason.value if end else None,
        "prompt_tokens": end.prompt_tokens if end else None,
        "completion_tokens": end.completion_tokens if end else None,
        "memory_tokens": end.memory_tokens if end else None,
        "wall_s": end.wall_s if end else None,
        "patch_bytes": len(end.patch.encode("utf-8", "surrogatepass")) if end else None,
        "patch_hash": end.patch_hash if end else None,
    }


def csv_lines(run: RunView, arm: str | None = None, seed: int | None = None) -> Iterator[str]:
    """What was not measured is an empty field. Raises BadInput as `cell_rows` does."""
    rows = cell_rows(run, arm, seed)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    yield from bare_lines(text.getvalue())


def write_parquet(run: RunView, path: Path, arm: str | None = None, seed: int | None = None) -> None:
    """Raises MissingTool without pyarrow, and BadInput as `cell_rows` does."""
    rows = cell_rows(run, arm, seed)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingTool(f"Parquet needs pyarrow: {pip_install('pyarrow')}. Or use --format csv.") from error
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def one_arm(run: RunView, arm: str | None) -> str:
    """The arm of that name, compared or gathering experience; of a run that compares only one, that. Raises BadInput."""
    names = [found.name for found in run.manifest.plan.arms]
    if not arm and len(names) > 1:
        raise BadInput(f"Name one arm with --arm: {', '.join(names)}.")
    names += run.gathering
    if arm and arm not in names:
        raise BadInput(f'{run.folder.name} has no arm "{arm}". {possible(arm, names)} Name one with --arm.')
    return arm or names[0]


def _no_seed(run: RunView, arm: str | None, seed: int | None) -> BadInput:
    plan = run.manifest.plan
    seeds = dict.fromkeys(
        each for found in plan.every_arm if arm in (None, found.name) for each in plan.seeds_of(found)
    )
    return BadInput(
        f"{run.folder.name} has no seed {seed}. Name one with --seed: {', '.join(map(str, seeds))}."
    )


def atif_lines(run: RunView, arm: str | None, seed: int | None = None) -> Iterator[str]:
    """One rollout of the arm, or of one seed of it, on each line, the last attempt of each cell. Raises BadInput for an unknown arm or
    seed."""
    arm = one_arm(run, arm)
    cells = [cell for cell in run.cells(arm) if seed is None or cell.split("/")[1] == str(seed)]
    if not cells:
        raise _no_seed(run, arm, seed)
    wanted = {cell: run.last_ends[cell] for cell in cells if cell in run.last_ends}
    steps = grouped(
        (step.cell, step)
        for step in read_stream(run.folder, "steps", Step)
        if step.cell in wanted and step.attempt == wanted[step.cell].attempt
    )
    for cell, end in wanted.items():
        yield json.dumps(_atif(end, steps.get(cell, []), run.final.get(cell)), ensure_ascii=False)


def _atif(end: Trajectory, steps: list[Step], verdict: Verdict | None) -> dict[str, Any]:
    return {
        "schema_version": ATIF,
        "session_id": f"{end.cell}#{end.attempt}",
        "agent": {"name": "looper", "version": end.code_version, "model_name": end.model.name},
        "steps": [
            {"step_id": 1, "source": "user", "message": f"task {end.instance_id}, prompt {end.prompt_hash}"},
            *(_atif_step(step) for step in steps),
        ],
        "final_metrics": {
            "total_prompt_tokens": end.prompt_tokens,
            "total_completion_tokens": end.completion_tokens,
            "total_steps": len(steps) + 1,
        },
        "extra": {
            "instance_id": end.instance_id,
            "stop_reason": end.stop_reason.value,
            "patch": end.patch,
            "outcome": verdict.outcome.value if verdict else None,
        },
    }


def _atif_step(step: Step) -> dict[str, Any]:
    found: dict[str, Any] = {
        "step_id": step.index + 1,
        "source": "agent",
        "message": step.reply.text,
        "metrics": {
            "prompt_tokens": step.reply.usage.prompt_tokens,
            "completion_tokens": step.reply.usage.completion_tokens,
        },
    }
    call = f"call_{step.index}"
    if step.action is not None:
        arguments = {
            key: value for key, value in step.action.model_dump(mode="json").items() if key != "tool"
        }
        found["tool_calls"] = [
            {"tool_call_id": call, "function_name": step.action.tool, "arguments": arguments}
        ]
    source = {"source_call_id": call} if step.action is not None else {}
    found["observation"] = {"results": [{**source, "content": step.observation.text}]}
    return found
