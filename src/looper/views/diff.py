"""Two arms, two runs or two rollouts side by side: what differs between them, and where they part."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from looper.errors import BadInput, possible
from looper.metrics.paired import paired_difference
from looper.records.plan import Arm
from looper.records.text import bare_lines
from looper.records.trajectory import Action, Step, Trajectory
from looper.records.verdict import Verdict
from looper.views.findings import difference_text
from looper.views.index import steps_of
from looper.views.runs import RunView
from looper.views.show import harmless

LISTED = 12
"""So many tasks are listed of those that flipped."""
WIDTH = 58
"""Of one side, in characters."""


def differences_of(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Every leaf that two nested records differ in: path, first value, second value."""
    for key in sorted(before.keys() | now.keys()):
        left, right, where = before.get(key), now.get(key), f"{path}.{key}" if path else key
        if isinstance(left, dict) and isinstance(right, dict):
            yield from differences_of(left, right, where)
        elif left != right:
            yield f"{where}: {_short(left)} | {_short(right)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def arms_diff(run: RunView, first: str, second: str) -> Iterator[str]:
    """Two arms of one run: the declared factor, the paired difference, the tasks that flipped."""
    arms = {arm.name: arm for arm in run.manifest.plan.arms}
    for name in (first, second):
        if name not in arms and name not in run.choice_names:
            known = [*arms, *run.choice_names]
            raise BadInput(f'{run.folder.name} has no arm "{name}". {possible(name, known)}')
    yield f"{run.folder.name}: {first} | {second}"
    if first in arms and second in arms:
        found = list(differences_of(_configuration(arms[first]), _configuration(arms[second])))
        yield from (f"  {line}" for line in found)
        if not found:
            yield "  configured alike"
    yield from _outcome_lines(run.outcomes(first), run.outcomes(second))


def _configuration(arm: Arm) -> dict[str, Any]:
    """What can change what an arm does."""
    found: dict[str, Any] = json.loads(arm.to_json())
    return {key: value for key, value in found.items() if key not in ("name", "role", "only_seeds")}


def _outcome_lines(ours: Mapping[str, bool], theirs: Mapping[str, bool]) -> Iterator[str]:
    found = paired_difference(ours, theirs)
    if found is None:
        yield "no cell has a verdict in both"
        return
    yield f"resolved, first − second: {difference_text(found)}"
    gained = [where for where in ours if ours[where] and theirs.get(where) is False]
    lost = [where for where in ours if not ours[where] and theirs.get(where)]
    for label, cells in (("only the first resolves", gained), ("only the second resolves", lost)):
        more = f" and {len(cells) - LISTED} more" if len(cells) > LISTED else ""
        yield f"{label}: {', '.join(cells[:LISTED]) or 'none'}{more}"


def runs_diff(first: RunView, second: RunView) -> Iterator[str]:
    """Two runs: what they are made of, and for each arm of both the difference on common cells."""
    yield f"{first.folder.name} | {second.folder.name}"
    ours, theirs = (json.loads(run.manifest.to_json()) for run in (first, second))
    yield from (f"  {line}" for line in differences_of(ours, theirs))
    names = {arm.name for arm in second.manifest.plan.arms}
    common = [arm.name for arm in first.manifest.plan.arms if arm.name in names]
    if not common:
        raise BadInput("The runs have no arm of the same name.")
    for name in common:
        found = paired_difference(first.outcomes(name), second.outcomes(name))
        yield f"{name}, first − second: " + (
            "no cell has a verdict in both" if found is None else difference_text(found)
        )


def rollouts_diff(run: RunView, first: str, second: str) -> Iterator[str]:
    """Two rollouts at one task, step beside step from where they part; then patches, verdicts, and what was remembered."""
    if first.rpartition("/")[2] != second.rpartition("/")[2]:
        raise BadInput("These are rollouts at different tasks; name two cells of one task.")
    ours, theirs = (steps_of(run.folder, cell) for cell in (first, second))
    ends = {end.cell: end for end in run.trajectories}
    for cell, steps in ((first, ours), (second, theirs)):
        if not steps and cell not in ends:
            raise BadInput(f"{cell} has no steps in {run.folder.name}. See: looper show")
    parted = next((at for at, pair in enumerate(zip_longest(ours, theirs)) if not _same(*pair)), None)
    yield f"{first} | {second}"
    if parted is None:
        yield f"the same {len(ours)} actions with the same results"
    else:
        yield f"the same {parted} actions, then they part at step {parted + 1}:"
        for at in range(parted, max(len(ours), len(theirs))):
            left, right = (_side(steps, at) for steps in (ours, theirs))
            yield from _beside(f"{at + 1:3} ", left, right)
    verdicts = {found.cell: found for found in run.verdicts}
    yield from _memory_lines(ends.get(first), ends.get(second))
    for label, find in (("ended", _end), ("verdict", None)):
        values = [find(ends.get(cell)) if find else _verdict(verdicts.get(cell)) for cell in (first, second)]
        yield f"{label}: {values[0]} | {values[1]}"
    yield from _patch_lines(ends.get(first), ends.get(second))


@dataclass(frozen=True)
class Pair:
    """What stands beside each other; None where one rollout has nothing of the kind."""

    left: Step | None
    right: Step | None
    same: bool
    """The same action with the same result."""


def aligned(ours: Sequence[Step], theirs: Sequence[Step]) -> list[Pair]:
    """Steps of two rollouts, those with the same action beside each other; between them as they come."""
    mine, other = ([_key(step) for step in steps] for steps in (ours, theirs))
    found: list[Pair] = []
    for _, a, a_end, b, b_end in difflib.SequenceMatcher(None, mine, other, autojunk=False).get_opcodes():
        found += [
            Pair(left, right, _same(left, right))
            for left, right in zip_longest(ours[a:a_end], theirs[b:b_end])
        ]
    return found


def _key(step: Step) -> str:
    return step.reply.text if step.action is None else step.action.to_json().decode()


def _same(left: Step | None, right: Step | None) -> bool:
    return (
        left is not None
        and right is not None
        and left.action == right.action
        and (left.action is not None or left.reply.text == right.reply.text)
        and left.observation.text == right.observation.text
    )


def _side(steps: Sequence[Step], at: int) -> list[str]:
    if at >= len(steps):
        return ["–"]
    step = steps[at]
    said = step.reply.text if step.action is None else _in_short(step.action)
    lines = bare_lines(harmless(said)) or [""]
    result = bare_lines(harmless(step.observation.text).strip())
    told = [f"remembers {len(step.memory)} items"] if step.memory else []
    return [*lines, *told, *(f"→ {line}" for line in result[:3])]


def _in_short(action: Action) -> str:
    fields = {key: value for key, value in action.model_dump().items() if key != "tool" and value is not None}
    return f"{action.tool} " + " ".join(
        f"{key}={value!r}" if key != "command" else str(value) for key, value in fields.items()
    )


def _beside(head: str, left: Sequence[str], right: Sequence[str]) -> Iterator[str]:
    for number, (one, other) in enumerate(zip_longest(left, right, fillvalue="")):
        mark = head if number == 0 else " " * len(head)
        yield f"{mark}{_cut(one):{WIDTH}} | {_cut(other)}"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _memory_lines(ours: Trajectory | None, theirs: Trajectory | None) -> Iterator[str]:
    told = [set(end.memory) if end is not None else set() for end in (ours, theirs)]
    if any(told):
        names = [", ".join(sorted(item[:12] for item in found)) or "nothing" for found in told]
        yield f"told from memory: {names[0]} | {names[1]}"


def _end(end: Trajectory | None) -> str:
    return "not yet" if end is None else f"{end.stop_reason.value} after {end.steps} steps"


def _verdict(found: Verdict | None) -> str:
    if found is None:
        return "none"
    return f"{found.outcome.value}{f' ({found.cause})' if found.cause else ''}"


def _patch_lines(ours: Trajectory | None, theirs: Trajectory | None) -> Iterator[str]:
    left, right = (bare_lines(end.patch) if end is not None else [] for end in (ours, theirs))
    if left == right:
        yield "the same patch"
        return
    yield "patches:"
    for line in difflib.unified_diff(left, right, "first", "second", lineterm=""):
        yield harmless(line)
