"""Runs in the formats of SWE-bench: predictions to hand on, and its report."""

import json
from collections.abc import Iterator, Sequence

from looper.errors import BadInput
from looper.records.plan import task_id_of
from looper.records.verdict import Outcome
from looper.views.exports import one_arm
from looper.views.runs import RunView


def prediction_lines(run: RunView, arm: str | None, seed: int | None) -> Iterator[str]:
    """One line per attempted task: instance_id, model_name_or_path (the arm), model_patch. The last attempt counts.

    Raises BadInput for a name that is not in the run, and where one task would come twice.
    """
    plan = run.manifest.plan
    arm = one_arm(run, arm)
    seeds = next(plan.seeds_of(found) for found in plan.every_arm if found.name == arm)
    seed = seeds[0] if seed is None and len(seeds) == 1 else seed
    if seed not in seeds:
        what = "Several seeds have patches" if seed is None else f"{arm} has no seed {seed}"
        raise BadInput(f"{what}. Name one with --seed: {', '.join(map(str, seeds))}.")
    for task in run.gathering.get(arm, run.tasks):
        end = run.last_ends.get(f"{arm}/{seed}/{task}")
        if end is not None:
            yield prediction_line(task, arm, end.patch)


def prediction_line(task: str, model: str, patch: str) -> str:
    return json.dumps({"instance_id": task, "model_name_or_path": model, "model_patch": patch})


def swe_bench_report(run: RunView, arm: str | None, unjudged: Sequence[str] = ()) -> dict[str, object]:
    """The fields of SWE-bench's own report; `arm` is None for a model of which nothing was judged. A patch that was stripped to nothing
    counts as submitted; an infrastructure error, and each of the `unjudged` tasks, as error."""
    cells = run.cells(arm) if arm else []
    final, ends = run.final, run.last_ends
    submitted = [cell for cell in cells if cell in ends or cell in final]

    def ids(chosen: list[str], more: Sequence[str] = ()) -> list[str]:
        return sorted((*(task_id_of(cell) for cell in chosen), *more))

    empty = [cell for cell in submitted if cell in ends and not ends[cell].patch.strip()]
    graded = [cell for cell in submitted if cell in final and cell not in empty]
    completed = [cell for cell in graded if final[cell].outcome.is_verdict]
    resolved = [cell for cell in completed if final[cell].outcome is Outcome.RESOLVED]
    lists = {
        "submitted_ids": ids(submitted, unjudged),
        "completed_ids": ids(completed),
        "resolved_ids": ids(resolved),
        "unresolved_ids": ids([cell for cell in completed if cell not in resolved]),
        "empty_patch_ids": ids(empty),
        "error_ids": ids([cell for cell in graded if cell not in completed], unjudged),
        "incomplete_ids": ids([cell for cell in submitted if cell not in final and cell not in empty]),
    }
    counts = {
        "total_instances": len({*run.tasks, *unjudged}),
        "submitted_instances": len(lists["submitted_ids"]),
        "completed_instances": len(completed),
        "resolved_instances": len(resolved),
        "unresolved_instances": len(completed) - len(resolved),
        "empty_patch_instances": len(empty),
        "error_instances": len(lists["error_ids"]),
    }
    return {**counts, **lists, "schema_version": 2}
