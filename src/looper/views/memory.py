"""What memory gave to the tasks of a run, and what became of it.

An item is followed by its id: from the success that it was made of to the cells that it was told to, and to their verdicts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from looper.errors import BadInput
from looper.journal import read_stream
from looper.metrics.paired import repository_of
from looper.records.base import grouped
from looper.records.memory import Draw, MemoryItem, Moment, Remembering, Reverted
from looper.records.text import bare_lines, counted, listed
from looper.records.trajectory import Edit, ObservationKind, Step, Trajectory, Write
from looper.records.treatment import ProofKind
from looper.records.verdict import Outcome
from looper.views.runs import RunView
from looper.views.show import harmless

LISTED = 6
"""So many cells are named that were told nothing for the same reason."""
UNKNOWN = "why is not on record"


@dataclass(frozen=True)
class MemoryUse:
    end: Trajectory
    cited: tuple[str, ...]
    """Ids of the items that were told and whose code the agent then wrote."""
    tells_code: bool
    """Whether one of the items that were told says what to write; where none does, none can be cited."""


def memory_items(run: RunView) -> dict[str, MemoryItem]:
    return {item.id: item for item in read_stream(run.folder, "memory", MemoryItem)}


def reverted_items(run: RunView) -> dict[str, str]:
    """Why each item is told no more, by id."""
    return {found.item: found.reason for found in read_stream(run.folder, "reverted", Reverted)}


def memory_uses(run: RunView) -> list[MemoryUse]:
    """The last rollout of every evaluated cell whose arm remembers."""
    arms = {arm.name for arm in run.manifest.plan.arms if arm.learning and arm.learning.remembers}
    ends = {end.cell: end for end in run.trajectories if end.arm in arms}
    items, written = memory_items(run), dict[str, list[str]]()
    for step in read_stream(run.folder, "steps", Step):
        end = ends.get(step.cell)
        if end is not None and step.attempt == end.attempt:
            written.setdefault(step.cell, []).extend(_code(step))

    def use(end: Trajectory) -> MemoryUse:
        code = {key: items[key].changes for key in end.memory if key in items and items[key].changes}
        cited = (key for key, changes in code.items() if _cites(changes, written.get(end.cell, ())))
        return MemoryUse(end, tuple(cited), bool(code))

    return [use(end) for end in ends.values()]


def _code(step: Step) -> Iterator[str]:
    """What a step wrote into a file; nothing where it was refused."""
    if step.observation.kind is not ObservationKind.OK:
        return
    if isinstance(step.action, Edit):
        yield step.action.new
    elif isinstance(step.action, Write):
        yield step.action.content


def _cites(changes: Sequence[str], written: Sequence[str]) -> bool:
    return any(change.strip() in code for change in changes if change.strip() for code in written)


def _no_memory(run: RunView) -> str:
    """That nothing is there to be told of, in words, and where to look."""
    remember = [arm.name for arm in run.manifest.plan.arms if arm.learning and arm.learning.remembers]
    what = (
        f"None of the arms with a memory has run yet ({', '.join(remember)})"
        if remember
        else "No arm has a memory"
    )
    return f"{what} in {run.folder.name}. Another run: looper memory list --run RUN; all: looper runs list"


def delivery_lines(run: RunView) -> Iterator[str]:
    """One line for each arm that remembers. Raises BadInput where there is none."""
    found = memory_uses(run)
    if not found:
        raise BadInput(_no_memory(run))
    yield "arm: rollouts, those with items that could be told, those told something, items and tokens each, those that wrote the code of one where items tell code"
    for arm in run.manifest.plan.arms:
        mine, how = [told for told in found if told.end.arm == arm.name], arm.remembers
        if not mine or how is None:
            continue
        if arm.has_overseer:
            yield f"{arm.name}: {counted(len(mine), 'rollout')}; its overseer is told, not the agent: {_overseer_told(run, arm.name)}"
            continue
        if not how.kind.traits.has_items:
            yield f"{arm.name}: {counted(len(mine), 'rollout')}, memory {how.kind.value}, which has no items"
            continue
        given = [told for told in mine if told.end.memory]
        tokens = [told.end.memory_tokens for told in given if told.end.memory_tokens is not None]
        sizes = (
            f"{'one text made of ' if how.one_text else ''}{fmean(len(told.end.memory) for told in given):.1f} items, "
            f"{f'{fmean(tokens):.0f}' if tokens else 'uncounted'} tokens"
            if given
            else "nothing"
        )
        wrote = sum(bool(told.cited) for told in mine)
        yield (
            f"{arm.name}: {counted(len(mine), 'rollout')}, {sum(told.end.memory_candidates > 0 for told in mine)} with items, "
            f"{len(given)} told, {sizes}{f', {wrote} wrote the code of one' if any(told.tells_code for told in mine) else ''}"
        )
        untold = grouped((why_nothing(run, told.end), told.end.cell) for told in mine)
        for why, cells in untold.items():
            if why:
                yield f"  told nothing, {why}: {listed(cells, LISTED)}"


def _overseer_told(run: RunView, arm: str) -> str:
    """At how many tasks, as it was proven before them: what an overseer is told does not stand in the rollouts."""
    proofs = [found for found in run.proofs if (found.kind, found.arm) == (ProofKind.MEMORY_DELIVERED, arm)]
    return proofs[-1].said if proofs else "at how many tasks is not on record"


@dataclass(frozen=True)
class Told:
    """At how many of its tasks an arm that remembers was told something, and why not at the others, by the last rollout of each cell."""

    arm: str
    rollouts: int
    planned: int
    """Cells of the arm."""
    told: int
    nothing: dict[str, int]
    """Rollouts that were told nothing, by cause."""

    def line(self, *, one_seed: bool) -> str:
        at, what = ("at", "task") if one_seed else ("in", "rollout")
        so_far = " so far" if self.rollouts < self.planned else ""
        said = f"{self.arm}: told something {at} {self.told} of {counted(self.rollouts, what)}{so_far}"
        whys = [f"{why} ({count})" if len(self.nothing) > 1 else why for why, count in self.nothing.items()]
        return f"{said}; nothing {at} {self.rollouts - self.told}: {', '.join(whys)}" if whys else said


def told_of(run: RunView) -> list[Told]:
    """Of each arm whose memory has items, where a rollout of it has ended."""
    items, gone = memory_items(run), reverted_items(run)
    found = []
    for arm in run.manifest.plan.arms:
        if _remembering(run, arm.name) is None:
            continue
        cells = run.cells(arm.name)
        ends = [run.last_ends[cell] for cell in cells if cell in run.last_ends]
        untold = [_nothing(run, end, items, gone).cause or UNKNOWN for end in ends if not end.memory]
        if ends:
            whys = dict(Counter(untold).most_common())
            found.append(Told(arm.name, len(ends), len(cells), len(ends) - len(untold), whys))
    return found


def told_lines(run: RunView, *names: str) -> list[str]:
    """One line for each of those arms, or for those of them that these arms or choices stand on."""
    named = {arm for name in names for arm in run.members(name)}
    seeds = {arm.name: run.manifest.plan.seeds_of(arm) for arm in run.manifest.plan.arms}
    return [
        found.line(one_seed=len(seeds[found.arm]) == 1)
        for found in told_of(run)
        if not names or found.arm in named
    ]


_DRAWN = {
    Draw.RANDOM: "drawn blindly among those of the task's repository",
    Draw.PLACEBO: "a placebo: each task gets items of other repositories, as many and of like length, and none of its own repository's",
    Draw.ORACLE: "chosen by the gold patch of the task among those of its repository",
}
"""Which items a task gets, where it is not those that are most like its issue."""


def drawn_text(how: Remembering) -> str:
    """What a list of items made for a repository does not show: that its tasks are told others. Empty where they are told the nearest."""
    return _DRAWN.get(Draw.PLACEBO if how.of_other_repositories else how.draw, "")


def drawn_for(run: RunView, name: str) -> str:
    """The same of an arm; empty for one that does not remember."""
    how = _remembering(run, name)
    return drawn_text(how) if how is not None else ""


def _remembering(run: RunView, name: str) -> Remembering | None:
    """How the agent of an arm remembers, where items are made for it."""
    learning = next((arm.learning for arm in run.manifest.plan.arms if arm.name == name), None)
    how = learning.remembers if learning is not None and not learning.has_overseer else None
    return how if how is not None and how.kind.traits.has_items else None


@dataclass(frozen=True)
class _Nothing:
    """Why nothing was told; both empty where that is not on record."""

    cause: str = ""
    """As it may be of other tasks too."""
    said: str = ""
    """Of this task, with how many items there were."""


def why_nothing(run: RunView, end: Trajectory) -> str:
    """Why a rollout of an arm that remembers was told no item, as far as the records say; empty where it was told one, where its memory
    has no items, and where it is an overseer that remembers."""
    return _nothing(run, end, memory_items(run), reverted_items(run)).said


def _nothing(
    run: RunView, end: Trajectory, items: Mapping[str, MemoryItem], gone: Mapping[str, str]
) -> _Nothing:
    plan, how = run.manifest.plan, _remembering(run, end.arm)
    if how is None or end.memory or plan.experience is None:
        return _Nothing()
    made = [found for found in run.consolidations if (found.arm, found.seed) == (end.arm, end.seed)]
    every, repo = [key for found in made for key in found.items], repository_of(end.instance_id)
    here = [items[key] for key in every if key in items and repository_of(items[key].instance_id) == repo]
    if not end.memory_candidates and not every:
        return _Nothing("there is no item", "there is no item")
    if not end.memory_candidates and not here:
        return _Nothing("no item is of its repository", f"none of {counted(len(every), 'item')} is of {repo}")
    if not end.memory_candidates:
        told = " and still told" if {item.id for item in here} & gone.keys() else ""
        return _Nothing(
            f"no item of its repository is of an earlier task{told}",
            f"none of {counted(len(here), 'item')} of {repo} is of an earlier task{told}",
        )
    settings = plan.experience.told(how)
    long = settings.bytes is not None and any(len(item.text.encode()) > settings.bytes for item in here)
    some = f"of {counted(end.memory_candidates, 'item')} from earlier tasks of {repo}"
    if not how.kind.traits.chooses:
        fits = f"fits into {settings.bytes} bytes"
        return _Nothing(f"nothing made of its items {fits}", f"nothing made {some} {fits}")
    alike = "shares a telling word with" if settings.retrieval == "bm25" else "is like"
    fails = (
        f"{alike} its issue ({settings.retrieval})"
        + (f" and fits into {settings.bytes} bytes" if long else "")
        + (
            f", and as many are told as would be retrieved ({how.draw.value})"
            if how.draw is not Draw.RETRIEVED
            else ""
        )
        + (f"; or its moment, {how.moment.value}, did not come" if how.moment is not Moment.START else "")
    )
    return _Nothing(f"no item from an earlier task {fails}", f"none {some} {fails}")


def why_lines(run: RunView, wanted: str) -> Iterator[str]:
    """Where an item comes from, what it says, whom it was told to. Raises BadInput for an id that is not there."""
    item = one_item(run, wanted)
    source = next(
        (verdict for verdict in run.verdicts if verdict.cell == item.source.rpartition("#")[0]), None
    )
    yield f"{item.id}: {item.kind.value} of {item.repo}, task {item.position} of its sequence"
    yield f"made of {item.source}, {source.outcome.value if source else 'without a verdict'}"
    reason = reverted_items(run).get(item.id)
    if reason is not None:
        yield f"told no more: {reason}"
    yield harmless(item.text)
    if not item.kind.traits.chooses:
        yield f"not told by itself: a task is told one text made of many items. Read it with: looper show CELL --run {run.folder.name}"
    outcomes = {verdict.cell: verdict.outcome for verdict in run.verdicts}
    told = [found for found in memory_uses(run) if item.id in found.end.memory]
    resolved = sum(outcomes.get(found.end.cell) is Outcome.RESOLVED for found in told)
    yield f"told in {counted(len(told), 'rollout')}, {resolved} of them resolved:"
    for found in told:
        outcome = outcomes.get(found.end.cell)
        cited = ", wrote its code" if item.id in found.cited else ""
        yield f"  {found.end.cell}: {outcome.value if outcome else 'to do'}{cited}"


def memory_data(run: RunView) -> dict[str, Any]:
    """What memory gave to the tasks of each arm, and every item, for programs. Raises BadInput where no arm remembers."""
    found = memory_uses(run)
    if not found:
        raise BadInput(_no_memory(run))
    gone = reverted_items(run)
    return {
        "arms": told_of(run),
        "told": [{**_use_data(told), "told_nothing": why_nothing(run, told.end) or None} for told in found],
        "items": [{"item": item, "reverted": gone.get(item.id)} for item in memory_items(run).values()],
    }


def _use_data(told: MemoryUse) -> dict[str, Any]:
    end = told.end
    return {
        "arm": end.arm,
        "cell": end.cell,
        "items": end.memory,
        "candidates": end.memory_candidates,
        "tokens": end.memory_tokens,
        "cited": told.cited if told.tells_code else None,
    }


def why_data(run: RunView, wanted: str) -> dict[str, Any]:
    """As `why_lines`, for programs. Raises BadInput."""
    item = one_item(run, wanted)
    outcomes = {verdict.cell: verdict.outcome for verdict in run.verdicts}
    return {
        "item": item,
        "source_outcome": outcomes.get(item.source.rpartition("#")[0]),
        "reverted": reverted_items(run).get(item.id),
        "told": [
            {**_use_data(found), "outcome": outcomes.get(found.end.cell)}
            for found in memory_uses(run)
            if item.id in found.end.memory
        ],
    }


def one_item(run: RunView, wanted: str) -> MemoryItem:
    """The item whose id begins like that. Raises BadInput where it is not one."""
    items = memory_items(run)
    found = [item for key, item in items.items() if key.startswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} memory items begin" if found else "No memory item begins"
        raise BadInput(
            f'{what} with "{wanted}" in {run.folder.name}. List them with: looper memory list --run {run.folder.name}'
        )
    return found[0]


def item_lines(run: RunView) -> Iterator[str]:
    gone = reverted_items(run)
    for item in memory_items(run).values():
        first = harmless(bare_lines(item.text)[0] if item.text else "")
        yield f"{item.id}  {item.kind.value}  {item.instance_id}  {first}{'  (told no more)' if item.id in gone else ''}"
