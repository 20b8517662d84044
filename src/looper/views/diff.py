"""Two arms, two runs or two rollouts side by side: what differs between them, and where they part.

`looper diff` and the pages compare through this module alone: arms by their cells in common, runs by their manifests and by arms of
the same name, rollouts step beside step from where they part.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from typing import Any

from looper.errors import BadInput
from looper.metrics.paired import PairedDifference, paired_difference
from looper.records.plan import AS_COMPUTED, Arm, task_id_of
from looper.records.text import bare_lines, counted, listed
from looper.records.trajectory import Action, Step, Trajectory
from looper.records.verdict import Verdict
from looper.views.decided import registered_data
from looper.views.findings import (
    EXPLORATORY,
    difference_data,
    difference_text,
    failed_arm_lines,
    paired_text,
    registered_of,
    scope_line,
    standing_of,
    unfinished_text,
)
from looper.views.index import steps_of
from looper.views.memory import told_lines, told_of
from looper.views.runs import RunView
from looper.views.show import harmless

LISTED = 12
"""So many tasks are listed of those that flipped."""
WIDTH = 58
"""Of one side, in characters."""
RESULT_LINES = 3
"""So many lines of a result are shown."""


def differences_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Every leaf that two nested records differ in: its path of keys, first value, second value. Nothing is cut; of texts with several
    lines the lines that differ follow."""
    for where, left, right in _differing(before, now):
        texts = [value for value in (left, right) if isinstance(value, str)]
        if len(texts) == 2 and any("\n" in text for text in texts):
            yield f"{where}: another text"
            lines = difflib.unified_diff(bare_lines(texts[0]), bare_lines(texts[1]), lineterm="", n=0)
            yield from (f"  {harmless(line)}" for line in list(lines)[2:])
        elif isinstance(left, list) and isinstance(right, list) and len(left) + len(right) > LISTED:
            yield _lists_text(where, left, right)
        else:
            yield f"{where}: {_value(left)} | {_value(right)}"


def _lists_text(where: str, left: list[Any], right: list[Any]) -> str:
    """Of two long lists what one of them alone has."""
    ours, theirs = _beyond(left, right), _beyond(right, left)
    both = len(left) - len(ours)
    if not ours and not theirs:
        return f"{where}: the same, in another order"
    without = f", without {both} in both" if both else ""
    return f"{where}{without}: {_value(ours)} | {_value(theirs)}"


def _beyond(left: list[Any], right: list[Any]) -> list[Any]:
    """What one list has and the other does not, each as often as it has it more."""
    rest, found = list(right), []
    for one in left:
        rest.remove(one) if one in rest else found.append(one)
    return found


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    ours, theirs = leaves(before), leaves(now)
    single = tuple(
        f"{where}[{name}]"
        for where in ours.keys() & theirs.keys()
        if isinstance(ours[where], list) and isinstance(theirs[where], list)
        for name in set(map(str, ours[where])) ^ set(map(str, theirs[where]))
    )
    for where in sorted({*ours, *theirs}):
        left, right = ours.get(where), theirs.get(where)
        # Of a part that one side alone has, its name among the others says it all.
        if where.startswith(single):
            continue
        # What one side does not have and the other leaves empty is no difference; what is below it stands by itself.
        if left != right and not (
            (where not in ours and _empty(right)) or (where not in theirs and _empty(left))
        ):
            yield where, left, right


def _differing_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": where, "first": left, "second": right} for where, left, right in _differing(before, now)]


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Values by their path of keys; parts of a list that have names by those, beside a list of the names; others by their place. A list
    of plain values is one."""
    found = dict[str, Any]()
    if isinstance(value, Mapping):
        parts = {f"{path}.{key}" if path else str(key): part for key, part in value.items()}
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        names = [_name_of(part) for part in value]
        known = "" not in names and len({*names}) == len(names)
        parts = {f"{path}[{names[at] if known else at}]": part for at, part in enumerate(value)}
        if known:
            found[path] = sorted(names)
    else:
        return {path: value}
    found |= {where: leaf for key, part in parts.items() for where, leaf in leaves(part, key).items()}
    return found or {path: value}


def _name_of(part: Any) -> str:
    """Of an arm or a choice its name, of a contrast what it compares; empty for what has none."""
    if not isinstance(part, dict):
        return ""
    compared = f"{part['arm']} − {part['against']}" if {"arm", "against"} <= part.keys() else ""
    return str(part.get("name") or compared)


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _value(value: Any) -> str:
    return harmless(json.dumps(value, ensure_ascii=False))


@dataclass(frozen=True)
class ArmPair:
    """Two arms, or choices, of one run against each other. Where one is a failed arm, nothing of their outcomes is compared."""

    configurations: tuple[dict[str, Any], dict[str, Any]] | None
    """None where one of them is a choice, which is configured by the arms that it takes from."""
    difference: PairedDifference | None
    standing: str
    """What was registered of them, and what came of it."""
    said: str
    """Their difference in words, or why there is none."""
    failed: bool
    only_first: list[str]
    """Seed and task of every cell that only the first resolves."""
    only_second: list[str]
    both: int
    neither: int
    single: int
    """Cells with a verdict in one of them only."""
    told: list[str]
    """Of each of them that remembers, at how many of its tasks it was told something: at all others it is an arm without memory."""

    @property
    def settings(self) -> list[str]:
        """Key and both values of everything that they are configured differently in."""
        return list(differences_of(*self.configurations)) if self.configurations else []


def arm_pair(run: RunView, first: str, second: str) -> ArmPair:
    """Raises BadInput where the run has no such arms."""
    arms = {arm.name: arm for arm in run.manifest.plan.arms}
    for name in (first, second):
        if name not in arms and name not in run.choice_names:
            raise run.without_arm(name, [*arms, *run.choice_names])
    failed = failed_arm_lines(run, first, second)
    ours, theirs = ({}, {}) if failed else (run.outcomes(first), run.outcomes(second))
    pairs = {where: (ours[where], theirs[where]) for where in ours if where in theirs}
    found = run.paired(first, second)
    both_are_arms = first in arms and second in arms
    return ArmPair(
        configurations=(_configuration(arms[first]), _configuration(arms[second])) if both_are_arms else None,
        difference=found,
        standing=standing_of(run, first, second),
        said=_said_of(found, failed) if found is None or failed else paired_text(run, first, second, found),
        failed=bool(failed),
        only_first=[where for where, pair in pairs.items() if pair == (True, False)],
        only_second=[where for where, pair in pairs.items() if pair == (False, True)],
        both=sum(pair == (True, True) for pair in pairs.values()),
        neither=sum(pair == (False, False) for pair in pairs.values()),
        single=len(ours.keys() ^ theirs.keys()),
        told=told_lines(run, first, second),
    )


def _said_of(found: PairedDifference | None, failed: Sequence[str]) -> str:
    if failed:
        return f"no difference, {'; '.join(failed)}"
    return "no cell has a verdict in both" if found is None else difference_text(found)


def arms_diff(run: RunView, first: str, second: str) -> Iterator[str]:
    """Two arms of one run: the declared factor, the paired difference, the tasks that flipped. Raises BadInput."""
    pair = arm_pair(run, first, second)
    yield f"{run.folder.name}: {first} | {second}"
    if pair.configurations:
        yield from (f"  {line}" for line in pair.settings or ["configured alike"])
    if pair.difference is None:
        yield pair.said
        return
    # What decides stands first.
    rows = registered_of(run, first, second)
    for row in rows:
        figures = f"{row.figures}, " if row.figures else ""
        yield f"the registered contrast, {row.name.lower()}, is {row.contrast}: {figures}{row.said}: {row.words}"
    if rows:
        yield scope_line(run)
    yield f"resolved, first − second ({pair.standing}){unfinished_text(run)}: {pair.said}"
    yield from pair.told
    for label, cells in (
        ("only the first resolves", pair.only_first),
        ("only the second resolves", pair.only_second),
    ):
        yield f"{label}: {listed(cells, LISTED) or 'none'}"


def arms_data(run: RunView, first: str, second: str) -> dict[str, Any]:
    """The same for programs. Raises BadInput."""
    pair = arm_pair(run, first, second)
    return {
        "run": run.folder.name,
        "first": first,
        "second": second,
        "configuration": _differing_data(*pair.configurations) if pair.configurations else None,
        "resolved": difference_data(pair.difference, pair.standing),
        "registered": registered_data(run, first, second),
        "told": [found for found in told_of(run) if found.arm in {*run.members(first), *run.members(second)}],
        "only_first": pair.only_first,
        "only_second": pair.only_second,
    }


def _configuration(arm: Arm) -> dict[str, Any]:
    found = _with_sampling(json.loads(arm.to_json()))
    if arm.learning is not None:
        found["learning"] = arm.learning.in_force()
    return {key: value for key, value in found.items() if key not in ("name", "role", "only_seeds", "reason")}


def _with_sampling(arm: dict[str, Any]) -> dict[str, Any]:
    """An arm that says nothing of sampling has the default of each key, which is then no difference from one that says some of them."""
    return arm | {"sampling": arm.get("sampling") or json.loads(AS_COMPUTED.to_json())}


def runs_diff(first: RunView, second: RunView) -> Iterator[str]:
    """Two runs: what they are made of, and for each arm of both the difference on common cells. Raises BadInput."""
    yield f"{first.folder.name} | {second.folder.name}"
    yield from (f"  {line}" for line in differences_of(*_manifests(first, second)))
    for name, (found, failed) in _common_arms(first, second).items():
        yield f"{name}, first − second ({EXPLORATORY}): {_said_of(found, failed)}"


def runs_data(first: RunView, second: RunView) -> dict[str, Any]:
    """The same for programs. Raises BadInput."""
    common = _common_arms(first, second)
    return {
        "first": first.folder.name,
        "second": second.folder.name,
        "manifest": _differing_data(*_manifests(first, second)),
        "arms": {name: difference_data(found, EXPLORATORY) for name, (found, _) in common.items()},
    }


def _manifests(*runs: RunView) -> list[dict[str, Any]]:
    """Of what is known of each arm and task by itself only what both runs have: that the others are there is a difference already."""
    found = [json.loads(run.manifest.to_json()) for run in runs]
    tasks = set.intersection(*(set(run.tasks) for run in runs))
    arms = set.intersection(*({arm.name for arm in run.manifest.plan.every_arm} for run in runs))
    for manifest in found:
        manifest["plan"]["arms"] = [_with_sampling(arm) for arm in manifest["plan"]["arms"]]
        for key, known in (("models", arms), ("difficulty", tasks)):
            manifest[key] = {name: value for name, value in manifest.get(key, {}).items() if name in known}
    return found


def _common_arms(first: RunView, second: RunView) -> dict[str, tuple[PairedDifference | None, list[str]]]:
    """Of each arm of both runs its difference, and why it has none where it failed in one of them."""
    names = {arm.name for arm in second.manifest.plan.arms}
    common = [arm.name for arm in first.manifest.plan.arms if arm.name in names]
    if not common:
        raise BadInput("The runs have no arm of the same name.")
    found: dict[str, tuple[PairedDifference | None, list[str]]] = {}
    for name in common:
        failed = [line for run in (first, second) for line in failed_arm_lines(run, name)]
        ours, theirs = first.outcomes(name), second.outcomes(name)
        found[name] = None if failed else paired_difference(ours, theirs, first.unit), failed
    return found


def rollouts_data(run: RunView, first: str, second: str) -> dict[str, Any]:
    """As `rollouts_diff`, for programs: `parted` is the first step that differs, from 1. Raises BadInput."""
    ours, theirs = _rollouts(run, first, second)
    ends = run.last_ends
    parted = _parted(ours, theirs)
    return {
        "run": run.folder.name,
        "parted": None if parted is None else parted + 1,
        **{
            name: {
                "cell": cell,
                "steps": [] if parted is None else steps[parted:],
                "end": ends.get(cell),
                "verdict": run.final.get(cell),
            }
            for name, cell, steps in (("first", first, ours), ("second", second, theirs))
        },
    }


def _rollouts(run: RunView, first: str, second: str) -> tuple[list[Step], list[Step]]:
    if task_id_of(first) != task_id_of(second):
        raise BadInput("These are rollouts at different tasks; name two cells of one task.")
    ours, theirs = (steps_of(run.folder, cell) for cell in (first, second))
    for cell, steps in ((first, ours), (second, theirs)):
        if not steps and cell not in run.last_ends:
            raise BadInput(
                f"{cell} has no steps in {run.folder.name}. See: looper show --run {run.folder.name}"
            )
    return ours, theirs


def _parted(ours: Sequence[Step], theirs: Sequence[Step]) -> int | None:
    """How many steps are the same; None where all are."""
    return next((at for at, pair in enumerate(zip_longest(ours, theirs)) if not _same(*pair)), None)


def rollouts_diff(run: RunView, first: str, second: str) -> Iterator[str]:
    """Two rollouts at one task, step beside step from where they part; then patches, verdicts, and what was remembered. Raises
    BadInput."""
    ours, theirs = _rollouts(run, first, second)
    ends = run.last_ends
    parted = _parted(ours, theirs)
    yield f"{first} | {second}"
    if parted is None:
        yield f"the same {counted(len(ours), 'action')} with the same results"
    else:
        yield f"the same {counted(parted, 'action')}, then they part at step {parted + 1}:"
        for pair in aligned(ours, theirs)[parted:]:
            heads = [f"{step.index if step else '':3} " for step in (pair.left, pair.right)]
            yield from _beside(heads, *_sides(pair.left, pair.right))
    yield from _memory_lines(ends.get(first), ends.get(second))
    for label, find in (("ended", _end), ("verdict", None)):
        values = [find(ends.get(cell)) if find else _verdict(run.final.get(cell)) for cell in (first, second)]
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
    """Steps of two rollouts: those before they part, then those with the same action beside each other, between them as they come."""
    parted = _parted(ours, theirs)
    found = [Pair(*pair, same=True) for pair in zip(ours[:parted], theirs[:parted], strict=True)]
    ours, theirs = ours[len(found) :], theirs[len(found) :]
    mine, other = ([_key(step) for step in steps] for steps in (ours, theirs))
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


def _sides(left: Step | None, right: Step | None) -> tuple[list[str], list[str]]:
    """What two steps said and were told; of results that begin alike, from where they part."""
    results = [bare_lines(harmless(step.observation.text).strip()) if step else [] for step in (left, right)]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*results, strict=False)))
    if results[0] == results[1]:
        alike = 0
    ours, theirs = (
        ["–"] if step is None else [*_said(step), *_result(result, alike)]
        for step, result in zip((left, right), results, strict=True)
    )
    return ours, theirs


def _said(step: Step) -> list[str]:
    said = step.reply.text if step.action is None else _in_short(step.action)
    told = [f"remembers {counted(len(step.memory), 'item')}"] if step.memory else []
    return [*(bare_lines(harmless(said)) or [""]), *told]


def _result(lines: Sequence[str], alike: int) -> list[str]:
    shown = lines[alike : alike + RESULT_LINES]
    rest = len(lines) - alike - len(shown)
    return [
        *([f"→ … {counted(alike, 'line')} alike"] if alike else []),
        *(f"→ {line}" for line in shown),
        *([f"→ … {counted(rest, 'more line')}"] if rest else []),
    ]


def _in_short(action: Action) -> str:
    fields = {key: value for key, value in action.model_dump().items() if key != "tool" and value is not None}
    return f"{action.tool} " + " ".join(
        f"{key}={value!r}" if key != "command" else str(value) for key, value in fields.items()
    )


def _beside(heads: Sequence[str], left: Sequence[str], right: Sequence[str]) -> Iterator[str]:
    """Two columns, each under a head of its own; a line that is too long for one goes on below, so that nothing of it is hidden."""
    for one, other in zip_longest(_folded(left), _folded(right), fillvalue=""):
        yield f"{heads[0]}{one:{WIDTH}} | {heads[1]}{other}"
        heads = [" " * len(head) for head in heads]


def _folded(lines: Sequence[str]) -> list[str]:
    return [line[at : at + WIDTH] for line in lines for at in range(0, len(line) or 1, WIDTH)]


def _memory_lines(ours: Trajectory | None, theirs: Trajectory | None) -> Iterator[str]:
    told = [set(end.memory) if end is not None else set() for end in (ours, theirs)]
    if any(told):
        names = [", ".join(sorted(item[:12] for item in found)) or "nothing" for found in told]
        yield f"told from memory: {names[0]} | {names[1]}"


def _end(end: Trajectory | None) -> str:
    return "not yet" if end is None else f"{end.stop_reason.value} after {counted(end.steps, 'step')}"


def _verdict(found: Verdict | None) -> str:
    if found is None:
        return "none"
    return f"{found.outcome.value}{f' ({found.cause})' if found.cause else ''}"


def _patch_lines(ours: Trajectory | None, theirs: Trajectory | None) -> Iterator[str]:
    if ours is None or theirs is None:
        yield f"patches: {' | '.join('not yet' if end is None else counted(len(bare_lines(end.patch)), 'line') for end in (ours, theirs))}"
        return
    left, right = bare_lines(ours.patch), bare_lines(theirs.patch)
    if left == right:
        yield "the same patch"
        return
    yield "patches:"
    for line in difflib.unified_diff(left, right, "first", "second", lineterm=""):
        yield harmless(line)
