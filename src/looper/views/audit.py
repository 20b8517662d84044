"""Whether the records of a run still say what they said when it ended, and agree with each other.

A line that was edited without its checksum is damage, and seen by every reader. This looks for the rest: lines that were
written again as if they had always been so. Whoever rewrites everything, the seal included, so that no record contradicts another,
is found by a copy only, or where the seal's hash was put beforehand (`views/signatures`).
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from looper.journal import Damage, raw_lines, read_stream, sequence_number
from looper.records.base import Record, content_hash
from looper.records.memory import MemoryItem, Reverted
from looper.records.plan import RunManifest, arm_of, task_id_of
from looper.records.question import AnsweredQuestion, Rating
from looper.records.seal import LATER, Seal
from looper.records.task import Task
from looper.records.text import counted, listed
from looper.records.training import AdapterRecord
from looper.views.contradictions import SHOWN, Agent, Contradictions, Records, contradictions
from looper.views.plan_consistency import against_plan
from looper.views.runs import RunView

ELSEWHERE: dict[str, type[Record]] = {
    "memory": MemoryItem,
    "questions": AnsweredQuestion,
    "reverted": Reverted,
    "ratings": Rating,
    "seals": Seal,
}
"""Streams that a view of a run does not read."""


@dataclass(frozen=True)
class ExternalFacts:
    """What a run folder does not hold itself."""

    tasks_hash: str | None
    """Of the tasks as they are now; None where they cannot be had."""
    adapter: Callable[[str], AdapterRecord | None]
    """The card of an adapter whose weights are the ones on it; None for one that is not there. Raises ValueError for one
    that is damaged."""
    code_version: str
    """Of the code that looks. What another version recorded may have fewer fields, so hashes of records cannot be made again."""
    tasks: Mapping[str, Task] = field(default_factory=dict)
    """The tasks themselves, by id."""
    leaked: frozenset[str] = frozenset()
    """Ids of those whose issue quotes their fix."""
    why_no_tasks: str = ""
    """In words, where they cannot be had."""
    served: Callable[[str], str | None] = lambda adapter: None
    """The hash by which a rollout names an adapter that it was served with; None for one that is not here."""
    agent: Agent | None = None
    """What this code makes of the records that others are made from; None where it is not to be held against them."""
    now: str = ""
    """UTC, ISO 8601; empty where nobody knows."""


def audit(run: RunView, outside: ExternalFacts) -> list[str]:
    """Everything that does not fit, in words; nothing where all fits. Reads every record, step by step."""
    same_tasks = outside.tasks_hash == run.manifest.tasks_hash
    same_code = run.manifest.code_version == outside.code_version
    records = Records(
        run=run,
        tasks=outside.tasks if same_tasks else {},
        adapter=outside.adapter,
        served=outside.served,
        same_code=same_code,
        sealed=_is_sealed(run),
        hashes=_hashes(run.folder, run.manifest),
        agent=outside.agent if same_code else None,
        now=outside.now,
    )
    against = [*contradictions(records), *against_plan(records)]
    return [
        *_damage([*run.damage, *records.damage, *_elsewhere(run.folder)]),
        *_manifest(run.folder, run.manifest),
        *_seals(run),
        *_missing_lines(run.folder),
        *_links(run.folder),
        *_tasks(run.manifest, outside),
        *against,
        *_coverage(run),
        *_adapters(run, outside),
    ]


def unchecked(run: RunView, outside: ExternalFacts) -> list[str]:
    """What could not be looked at, in words: nothing amiss says nothing about it."""
    used = sorted(_adapters_used(run))
    gone = []
    for name in used:
        try:
            if outside.adapter(name) is None:
                gone.append(name)
        except ValueError:
            continue  # Damage is a finding.
    lines = []
    if outside.tasks_hash is None:
        lines.append("its tasks are not here" + (f": {outside.why_no_tasks}" if outside.why_no_tasks else ""))
    if run.manifest.code_version != outside.code_version:
        lines.append(
            "whether its arms are configured as their rollouts were, and whether actions, first words and memories are what replies, "
            "tasks and successes give: another version of the code recorded them"
        )
    if gone:
        lines.append(
            f"{len(gone)} of {counted(len(used), 'adapter is', 'adapters are')} not here: {listed(gone, SHOWN)}"
        )
    seal = _last_seal(run.folder)
    if seal is None and not _must_be_sealed(run, outside):
        lines.append("it has no seal" + ("" if run.finished == run.planned else ": it is not finished"))
    if seal is not None and not {*LATER} <= seal.files.keys():
        lines.append(
            "the beginnings of its sessions, ratings and earlier seals: an earlier version sealed it"
        )
    if went_on := _went_on(run):
        lines.append(went_on)
    if run.folder.is_symlink():
        lines.append(f"its folder is a link, so that others can lie in its place: {run.folder.readlink()}")
    if any(True for _ in read_stream(run.folder, "reverted", Reverted)):
        lines.append("which memories were told: some were taken back since")
    if idle := _not_run(run):
        lines.append(f"arms that were not run, as a session asked: {', '.join(idle)}")
    return lines


def _damage(damage: list[Damage]) -> Iterator[str]:
    found = Contradictions()
    for one in dict.fromkeys(damage):
        found.add(f"damaged record, {one.reason}", f"{one.file} line {one.line}")
    yield from found.lines()


def _elsewhere(folder: Path) -> list[Damage]:
    damage: list[Damage] = []
    for name, kind in ELSEWHERE.items():
        for _ in read_stream(folder, name, kind, damage):
            pass
    return damage


def _manifest(folder: Path, manifest: RunManifest) -> Iterator[str]:
    if not any(found in folder.name for found in _hashes(folder, manifest)):
        yield (
            f"the plan, or what else stands in the manifest, was changed: it gives {manifest.run_hash()}, and the folder is "
            f"named {folder.name}"
        )
    written = sum(body is not None for _, _, body in raw_lines(folder, "manifest"))
    if written > 1:
        yield f"manifest.jsonl has {counted(written, 'plan')}; a run has one"


def _hashes(folder: Path, manifest: RunManifest) -> frozenset[str]:
    """Of the manifest, and of its text as it was written: a record that has got a new field since gives another hash."""
    written = (body for _, _, body in raw_lines(folder, "manifest") if body is not None)
    return frozenset((manifest.run_hash(), *(content_hash(body)[:12] for body in islice(written, 1))))


def _last_seal(folder: Path) -> Seal | None:
    seals = list(read_stream(folder, "seals", Seal))
    return seals[-1] if seals else None


def _is_sealed(run: RunView) -> bool:
    """Whether it came to its end, and nothing was begun since."""
    return _last_seal(run.folder) is not None and not _went_on(run)


def _must_be_sealed(run: RunView, outside: ExternalFacts) -> bool:
    """Whether it is finished, so that there must be a seal: an earlier version made none of patches that were graded."""
    graded = any(model.backend == "predictions" for model in run.manifest.models.values())
    older = graded and run.manifest.code_version != outside.code_version
    return run.finished == run.planned and run.writer is None and not older


def _went_on(run: RunView) -> str:
    """In words, where a session began after the last seal and has left cells without a verdict, so that it may go on; else empty."""
    seal = _last_seal(run.folder)
    later = [found for found in run.sessions if seal is not None and found.begun >= seal.ended]
    open_cells = [
        cell
        for cell in run.planned_cells
        if (verdict := run.final.get(cell)) is None or not verdict.outcome.is_verdict
    ]
    if seal is None or not later or not _beyond(run.folder, seal) or not (open_cells or run.writer):
        return ""
    names = ", ".join(f"{name}.jsonl" for name in _beyond(run.folder, seal))
    return f"what was recorded after its seal, in {names}: it went on and has not come to its end"


def _beyond(folder: Path, seal: Seal) -> list[str]:
    """Streams with more in them than was sealed, which may not grow."""
    names = {path.stem: path.stat().st_size for path in sorted(folder.glob("*.jsonl")) if path.is_file()}
    return [
        name
        for name, size in names.items()
        if name not in LATER and size > (seal.files[name].bytes if name in seal.files else 0)
    ]


def _seals(run: RunView) -> Iterator[str]:
    folder = run.folder
    seals = list(read_stream(folder, "seals", Seal))
    changed = dict[str, int]()
    for seal in seals:
        for name, then in seal.files.items():
            path = folder / f"{name}.jsonl"
            length = path.stat().st_size if path.is_file() else 0
            if length < then.bytes or (then.bytes and _hash_of_beginning(path, then.bytes) != then.sha256):
                changed[name] = then.lines
    for name, lines in changed.items():
        left = _lines_of(folder / f"{name}.jsonl")
        fewer = (
            f": {left} of {counted(lines, 'line is', 'lines are')} left, the rest was taken out"
            if left < lines
            else ""
        )
        yield f"{name}.jsonl is not what it was when the run ended{fewer}"
    if not seals:
        if run.finished == run.planned and run.writer is None:
            yield (
                f"it is finished and has no seal. Where nobody took it away, run its command again, which makes it: "
                f"{run.sessions[-1].command if run.sessions else 'looper run'}"
            )
        return
    if not _went_on(run):
        for name in _beyond(folder, seals[-1]):
            if name not in changed:
                before = seals[-1].files[name].lines if name in seals[-1].files else 0
                more = _lines_of(folder / f"{name}.jsonl") - before
                yield f"{name}.jsonl has {counted(more, 'line that was', 'lines that were')} added after the run ended"


def _lines_of(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


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
                number = sequence_number(line)
                if number is not None and number != expected:
                    yield f"{path.name}: line {expected} is numbered {number}; lines were taken out or moved"
                    break
                expected += 1


def _links(folder: Path) -> Iterator[str]:
    """Looper writes none: what a link leads to is another file, which can be changed elsewhere."""
    found = Contradictions()
    for place, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            if (path := Path(place, name)).is_symlink():
                found.add("links in the run folder", f"{path.relative_to(folder)} to {path.readlink()}")
    yield from found.lines()


def _tasks(manifest: RunManifest, outside: ExternalFacts) -> Iterator[str]:
    if outside.tasks_hash is not None and outside.tasks_hash != manifest.tasks_hash:
        yield "the tasks are not the ones that were run: their records have another hash than the manifest's"
    elif outside.tasks_hash is not None and outside.leaked != {*manifest.leaked}:
        yield "the tasks that quote their fix in their issue are other ones than the manifest says"


def _coverage(run: RunView) -> Iterator[str]:
    """Cells with records that the plan does not have: a seed, an arm or a task was taken out of it. And the other way round."""
    plan, found = run.manifest.plan, Contradictions()
    learning = {name for names in run.manifest.experience_tasks.values() for name in names}
    tasks = {*run.manifest.tasks, *learning}
    seeds = {arm.name: set(plan.seeds_of(arm)) for arm in plan.every_arm}
    for cell in dict.fromkeys([*(end.cell for end in run.trajectories), *run.final]):
        arm, seed, task = cell.split("/", 2) if cell.count("/") > 1 else ("", "", "")
        if arm not in seeds:
            found.add("cells of an arm that the plan does not have", cell)
        elif not seed.isdigit() or int(seed) not in seeds[arm]:
            found.add("cells of a seed that the plan does not have", cell)
        elif task not in tasks:
            found.add("cells of a task that the plan does not have", cell)
    for cell in sorted(_gone(run)):
        found.add("planned cells without any end, although the run was sealed", cell)
    yield from found.lines()


def _gone(run: RunView) -> set[str]:
    """Planned cells that a run which came to its end must have, and has not."""
    if not _is_sealed(run):
        return set()
    idle = {*_not_run(run)}
    gone = {cell for cell in run.planned_cells - run.final.keys() if arm_of(cell) not in idle}
    if not run.manifest.plan.is_grading:
        return gone
    # Of several models whose patches are graded each may have left out tasks that another one has.
    judged = {verdict.instance_id for verdict in run.final.values()}
    return {cell for cell in gone if task_id_of(cell) not in judged}


def _not_run(run: RunView) -> list[str]:
    """Arms without any end in a run of which each session asked for some arms only."""
    if not _is_sealed(run) or not all(" --arm " in found.command for found in run.sessions):
        return []
    at_work = {arm_of(cell) for cell in run.final}
    return sorted({arm_of(cell) for cell in run.planned_cells} - at_work)


def _adapters(run: RunView, outside: ExternalFacts) -> Iterator[str]:
    then = {
        name: value
        for seal in read_stream(run.folder, "seals", Seal)
        for name, value in seal.adapters.items()
    }
    for name, arm in _adapters_used(run).items():
        try:
            card = outside.adapter(name)
        except ValueError as error:
            yield f"the adapter {name} of {arm} is damaged: {error}"
            continue
        if card is not None and then.get(name, card.weights_hash) != card.weights_hash:
            yield f"the adapter {name} of {arm} was replaced: its weights are not those that were served"


def _adapters_used(run: RunView) -> dict[str, str]:
    """By id the arm that has it: those that were trained for the run, and those that arms brought along."""
    brought = {arm.model.adapter: arm.name for arm in run.manifest.plan.arms if arm.model.adapter}
    return brought | {found.adapter: found.arm for found in run.consolidations if found.adapter}
