"""Whether the records of a run still say what they said when it ended, and agree with each other.

A line that was edited without its checksum is damage, and seen by every reader. This looks for the rest: lines that were
written again as if they had always been so. Whoever rewrites everything, the seal included, is found by a copy only.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from looper.journal import UNREADABLE, raw_lines, read_stream
from looper.records.base import content_hash
from looper.records.plan import Arm, RunManifest
from looper.records.seal import Seal
from looper.records.training import AdapterRecord
from looper.records.trajectory import Step
from looper.records.verdict import Outcome, TestOutcome, Verdict
from looper.views.runs import RunView

SHOWN = 3
"""So many cells are named in one finding."""


@dataclass(frozen=True)
class Outside:
    """What a run folder does not hold itself."""

    tasks_hash: str | None
    """Of the tasks as they are now; None where they cannot be had."""
    adapter: Callable[[str], AdapterRecord | None]
    """The card of an adapter whose weights are the ones on it; None for one that is not there. Raises ValueError for one
    that is damaged."""
    code_version: str
    """Of the code that looks. What another version recorded may have fewer fields, so hashes of records cannot be made again."""


@dataclass
class _Found:
    """Findings by what was found, with the cells that show it."""

    cells: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, cell: str) -> None:
        self.cells.setdefault(what, []).append(cell)

    def lines(self) -> Iterator[str]:
        for what, cells in self.cells.items():
            more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
            yield f"{what}: {', '.join(cells[:SHOWN])}{more}"


def audit(run: RunView, outside: Outside) -> list[str]:
    """Everything that does not fit, in words; nothing where all fits. Reads every record, step by step."""
    arms = {
        arm.name: arm
        for arm in (*run.manifest.plan.arms, *(found for _, found in run.manifest.plan.all_experience()))
    }
    return [
        *(f"damaged record: {found.file} line {found.line}, {found.reason}" for found in run.damage),
        *_manifest(run.folder, run.manifest),
        *_seals(run.folder),
        *_missing_lines(run.folder),
        *_tasks(run.manifest, outside),
        *_rollouts(run, arms, same_code=run.manifest.code_version == outside.code_version),
        *_verdicts(run, arms),
        *_coverage(run),
        *_adapters(run, outside),
    ]


def unchecked(run: RunView, outside: Outside) -> list[str]:
    """What could not be looked at, in words: nothing amiss says nothing about it."""
    used = {found.adapter for found in run.consolidations if found.adapter}
    gone = 0
    for name in used:
        try:
            gone += outside.adapter(name) is None
        except ValueError:
            continue  # Damage is a finding.
    return [
        *(["its tasks are not here"] if outside.tasks_hash is None else []),
        *(
            [
                "whether its arms are configured as their rollouts were: another version of the code recorded them"
            ]
            if run.manifest.code_version != outside.code_version
            else []
        ),
        *([f"{gone} of {len(used)} adapters are not here"] if gone else []),
        *(
            []
            if (run.folder / "seals.jsonl").exists() and (run.folder / "seals.jsonl").stat().st_size
            else ["it has no seal"]
        ),
    ]


def _manifest(folder: Path, manifest: RunManifest) -> Iterator[str]:
    # Of the text as it was written, too: a record that has got a new field since gives another hash.
    written = next((body for _, _, body in raw_lines(folder, "manifest") if body is not None), b"")
    if not any(found in folder.name for found in (manifest.run_hash(), content_hash(written)[:12])):
        yield (
            f"the plan, or what else stands in the manifest, was changed: it gives {manifest.run_hash()}, and the folder is "
            f"named {folder.name}"
        )


def _seals(folder: Path) -> Iterator[str]:
    changed = dict[str, int]()
    for seal in read_stream(folder, "seals", Seal):
        for name, then in seal.files.items():
            path = folder / f"{name}.jsonl"
            if not path.exists() or _hash_of_beginning(path, then.bytes) != then.sha256:
                changed[name] = then.lines
    for name, lines in changed.items():
        path = folder / f"{name}.jsonl"
        left = sum(1 for _ in path.open("rb")) if path.exists() else 0
        fewer = f": {left} of {lines} lines are left, the others were taken out" if left < lines else ""
        yield f"{name}.jsonl is not what it was when the run ended{fewer}"


def _hash_of_beginning(path: Path, length: int) -> str:
    digest, left = hashlib.sha256(), length
    with path.open("rb") as stream:
        while left and (data := stream.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def _missing_lines(folder: Path) -> Iterator[str]:
    """Lines are numbered; a number that is left out was a line once. Damaged ones lie in a file beside."""
    for path in sorted(folder.glob("*.jsonl")):
        if path.with_name(f"{path.name}.damaged").exists():
            continue
        expected = 1
        with path.open("rb") as stream:
            for line in stream:
                number = _number(line)
                if number is not None and number != expected:
                    yield f"{path.name}: line {expected} is numbered {number}; lines were taken out or moved"
                    break
                expected += 1


def _number(line: bytes) -> int | None:
    try:
        return int(json.loads(line[: line.index(b",")] + b"}")["seq"])
    except UNREADABLE:
        return None


def _tasks(manifest: RunManifest, outside: Outside) -> Iterator[str]:
    if outside.tasks_hash is not None and outside.tasks_hash != manifest.tasks_hash:
        yield "the tasks are not the ones that were run: their records have another hash than the manifest's"


def _rollouts(run: RunView, arms: Mapping[str, Arm], *, same_code: bool) -> Iterator[str]:
    found = _Found()
    hashes: dict[str, str] = {}
    recorded = _sums(run.folder)
    times = Counter((end.cell, end.attempt) for end in run.trajectories)
    for key, count in times.items():
        if count > 1:
            found.add("rollouts that are there twice", key[0])
    for end in run.trajectories:
        key = (end.cell, end.attempt)
        arm_name, _, where = end.cell.partition("/")
        if (arm_name, where.partition("/")[2]) != (end.arm, end.instance_id):
            found.add("rollouts whose cell is not theirs", end.cell)
        count, tokens = recorded.get(key, (0, None))
        if count != end.steps:
            found.add("rollouts with more or fewer steps than they ended with", end.cell)
        elif end.prompt_tokens is not None and tokens not in (None, end.prompt_tokens):
            found.add("rollouts whose steps do not add up to their tokens", end.cell)
        if content_hash(end.patch) != end.patch_hash:
            found.add("patches that are not what their hash says", end.cell)
        if end.code_version != run.manifest.code_version:
            found.add("rollouts of another code than the manifest's", end.cell)
        arm = arms.get(end.arm)
        configured = arm.config_hash() if arm is not None and same_code else end.arm_hash
        if end.arm_hash != hashes.setdefault(end.arm, configured):
            found.add(f"the arm {end.arm} is configured otherwise than its rollouts were", end.cell)
    yield from found.lines()


def _sums(folder: Path) -> dict[tuple[str, int], tuple[int, int | None]]:
    """Steps of each attempt, and their prompt tokens; None where a step has none. One pass, a step at a time."""
    sums: dict[tuple[str, int], tuple[int, int | None]] = {}
    for step in read_stream(folder, "steps", Step):
        key, more = (step.cell, step.attempt), step.reply.usage.prompt_tokens
        count, before = sums.get(key, (0, 0))
        sums[key] = count + 1, None if before is None or more is None else before + more
    return sums


def _verdicts(run: RunView, arms: Mapping[str, Arm]) -> Iterator[str]:
    found = _Found()
    ends = {(end.cell, end.attempt): end for end in run.trajectories}
    by_key = {f"{verdict.cell}#{verdict.attempt}": verdict for verdict in run.verdicts}
    for key, count in Counter((verdict.cell, verdict.attempt) for verdict in run.verdicts).items():
        if count > 1:
            found.add("verdicts that are there twice", key[0])
    for verdict in run.verdicts:
        said = _as_tests_say(verdict)
        if said:
            found.add(said, verdict.cell)
        end = ends.get((verdict.cell, verdict.attempt))
        if verdict.outcome.is_verdict and end is None:
            found.add("verdicts without a rollout", verdict.cell)
        elif verdict.outcome.is_verdict and end is not None and end.patch_hash != verdict.patch_hash:
            found.add("verdicts on another patch than the rollout made", verdict.cell)
        # What another run judged stands there, and is audited with it.
        here = verdict.same_as if ":" not in verdict.same_as else ""
        if here and not _takes_over(verdict, by_key.get(verdict.same_as)):
            found.add("verdicts that are not the same as the one they take over", verdict.cell)
        if not _belongs(verdict, arms):
            found.add("verdicts on another task than their cell's", verdict.cell)
    yield from found.lines()


def _as_tests_say(verdict: Verdict) -> str:
    """What is wrong with an outcome, by the outcomes of its tests; empty where nothing is."""
    fixed, kept = verdict.fail_to_pass.values(), verdict.pass_to_pass.values()
    ran = any(test is not TestOutcome.MISSING for test in (*fixed, *kept))
    passed = bool(fixed) and all(test.passes for test in (*fixed, *kept))
    match verdict.outcome:
        case Outcome.RESOLVED if not passed or verdict.cause or verdict.tampering:
            return "verdicts that say resolved while their tests do not"
        case Outcome.UNRESOLVED if passed and not verdict.cause:
            return "verdicts that say unresolved while every test passed"
        case Outcome.TAMPERED if not verdict.tampering:
            return "verdicts that say tampered and do not say how"
        case Outcome.INFRA_ERROR if ran:
            return "infra errors in which tests ran"
        case Outcome.UNRESOLVED if not ran and not verdict.patch_hash:
            return "verdicts that say unresolved where nothing was judged: infra errors under another name"
    return ""


def _takes_over(verdict: Verdict, other: Verdict | None) -> bool:
    same = ("outcome", "cause", "fail_to_pass", "pass_to_pass", "patch_hash", "environment", "verifier")
    return other is not None and all(getattr(verdict, name) == getattr(other, name) for name in same)


def _belongs(verdict: Verdict, arms: Mapping[str, Arm]) -> bool:
    arm, _, rest = verdict.cell.partition("/")
    return arm in arms and rest.partition("/")[2] == verdict.instance_id


def _coverage(run: RunView) -> Iterator[str]:
    """Cells with records that the plan does not have: a seed, an arm or a task was taken out of it."""
    plan, found = run.manifest.plan, _Found()
    learning = {name for names in run.manifest.experience_tasks.values() for name in names}
    tasks = {*run.manifest.tasks, *learning}
    seeds = {arm.name: set(plan.seeds_of(arm)) for arm in plan.arms}
    seeds |= {arm.name: set(plan.seeds_of(arm)) for _, arm in plan.all_experience()}
    for verdict in run.verdicts:
        arm, seed, task = verdict.cell.split("/", 2)
        if arm not in seeds:
            found.add("cells of an arm that the plan does not have", verdict.cell)
        elif not seed.isdigit() or int(seed) not in seeds[arm]:
            found.add("cells of a seed that the plan does not have", verdict.cell)
        elif task not in tasks:
            found.add("cells of a task that the plan does not have", verdict.cell)
    yield from found.lines()


def _adapters(run: RunView, outside: Outside) -> Iterator[str]:
    then = {
        name: value
        for seal in read_stream(run.folder, "seals", Seal)
        for name, value in seal.adapters.items()
    }
    used = {name: found for found in run.consolidations for name in (found.adapter,) if name}
    for name, consolidation in used.items():
        try:
            card = outside.adapter(name)
        except ValueError as error:
            yield f"the adapter {name} of {consolidation.arm} is damaged: {error}"
            continue
        if card is not None and name in then and card.weights_hash != then[name]:
            yield f"the adapter {name} of {consolidation.arm} was replaced: its weights are not those that were served"
