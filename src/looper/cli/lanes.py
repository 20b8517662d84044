"""Experiments that a campaign decides by: each lane has repositories of its own, and each of its runs is one like any other."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from looper.cli.plans import RunOptions
from looper.cli.running import run as run_experiment
from looper.cli.settings import Settings
from looper.errors import InfrastructureError
from looper.evolution.benchmark import Outcomes
from looper.records.base import content_hash
from looper.records.text import counted
from looper.views.runs import RunView

LANES = {"development": 0, "sealed": 1, "unseen": 2, "screen": 3, "canary": 4}
"""Lane → seed of the embedded suite: other repositories, so no lane tells anything of another's tasks."""


def lane_run(
    folder: Path,
    lane: str,
    tasks: int,
    arms: Mapping[str, Mapping[str, Any]],
    workers: int | None,
    settings: Settings,
    say: Callable[[str], None],
) -> RunView:
    """An experiment with its records; the first arm is base. What was run before is not run again."""
    plan: dict[str, Any] = {
        "title": f"{lane} lane",
        "hypothesis": "A candidate resolves more tasks than its parent.",
        "factor": "one setting of the scaffold, or the agent's source",
        "arms": [
            {"name": name, "role": "treatment" if number else "base", **found}
            for number, (name, found) in enumerate(arms.items())
        ],
        "profiles": {
            "micro": {
                "like": "demo",
                "tasks": {"suite_seed": LANES[lane], "per_repo": -(-tasks // 8), "limit": tasks},
            }
        },
    }
    text = tomli_w.dumps(plan)
    path = folder / "lanes" / f"{lane}-{content_hash(text)[:12]}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return run_experiment(RunOptions(str(path), "micro", workers=workers), settings, say)


def paired_verdicts(view: RunView, lane: str, count: int) -> tuple[Outcomes, Outcomes]:
    """Of the arms `candidate` and `parent`. Raises InfrastructureError where a task of the lane has no verdict."""
    candidate, parent = view.outcomes("candidate"), view.outcomes("parent")
    if "candidate" in view.failed_arms:
        # An agent that no longer acts resolves nothing; it must not stop the campaign that has to refuse it.
        candidate = dict.fromkeys(parent, False)
    if not len(candidate) == len(parent) == count:
        raise InfrastructureError(
            f"On the {lane} lane {len(candidate)} and {len(parent)} of {counted(count, 'task has', 'tasks have')} a verdict; the others failed outside of the "
            "agent. Fix that, then run the same command again."
        )
    return candidate, parent
