"""What `looper report --verify` and `looper report --sign` look at, run by run.

`Verifier` gives the audit (`views/audit`) what it needs of the outside: the suite, the files that seals name, and what the agent of this code
makes of recorded replies, tasks and successes.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from looper.agent.actions import parse, render
from looper.agent.loop import ENDS
from looper.agent.prompt import hash_of, opening, question
from looper.agent.retrace import StepWatch
from looper.bench.patches import ATTEMPTS
from looper.bench.verify import VERSION
from looper.cli.adapters import card_reader, served_hash
from looper.cli.preparing import tasks_as_they_are
from looper.cli.settings import Settings
from looper.cli.wiring import code_version, put_at, texts_at
from looper.errors import BadInput
from looper.experiment.consolidate import Treatments
from looper.experiment.material import ExperienceLibrary
from looper.experiment.pools import Pools, combined
from looper.experiment.schedule import leaking_tasks
from looper.journal import read_stream
from looper.memory.distil import distil
from looper.records.base import content_hash, grouped
from looper.records.memory import Delivery, MemoryItem, MemoryKind, Reverted
from looper.records.plan import Arm, ArmRole, arm_of
from looper.records.question import AnsweredQuestion
from looper.records.seal import Seal
from looper.records.task import Task
from looper.records.training import Selection
from looper.records.trajectory import FinishReason, Step, Trajectory
from looper.records.treatment import Consolidation
from looper.training.formats import keys, retold, says
from looper.training.select import Attempt, without_detours
from looper.views.audit import ExternalFacts, audit, unchecked
from looper.views.contradictions import Agent, ReadReply, StepsOf
from looper.views.results import look_at_text
from looper.views.runs import RunView
from looper.views.signatures import Signature, SignedPart, signature_of, signatures_in, signed_amiss
from looper.views.web.page import look_at_page


@dataclass(frozen=True)
class SignedSeals:
    """What was put elsewhere, by run."""

    place: Path
    of: Mapping[str, list[Signature]]


@dataclass
class Verifier:
    """Looks at runs, one after the other; what they share is had once."""

    settings: Settings
    signed: SignedSeals | None = None

    def look(self, run: RunView) -> tuple[list[str], list[str]]:
        """What does not fit, and what could not be looked at."""
        outside = self._outside(run)
        page = look_at_page(run, code_version())
        text, other_text = look_at_text(run, code_version())
        amiss = [*audit(run, outside), *page.amiss, *filter(None, [text])]
        unseen = [*unchecked(run, outside), *filter(None, [page.unchecked, other_text])]
        if self.signed is not None:
            amiss += signed_amiss(run.folder, self.signed.of, str(self.signed.place))
            mine = self.signed.of.get(run.folder.name, [])
            signed = {one.part for one in mine}
            plans = [one.when for one in mine if one.part is SignedPart.PLAN]
            if plans and run.sessions and min(plans) > run.sessions[0].begun:
                unseen.append(
                    f"its plan was signed at {min(plans)}, after its first session began at {run.sessions[0].begun}: that says nothing "
                    "of what stood before the data"
                )
            unseen += [
                f"its {part.value} was not signed in {self.signed.place}"
                for part in SignedPart
                if part not in signed
            ]
        return amiss, unseen

    def _outside(self, run: RunView) -> ExternalFacts:
        tasks: tuple[Task, ...] = ()
        why = ""
        try:
            tasks = tasks_as_they_are(run.manifest, self.settings)
        except BadInput as error:
            why = str(error)
        by_id = {task.instance_id: task for task in tasks}
        return ExternalFacts(
            tasks_hash=None if why else content_hash(*tasks),
            adapter=card_reader(self.settings),
            code_version=code_version(),
            tasks=by_id,
            leaked=frozenset(leaking_tasks(tasks)) & {*run.manifest.tasks},
            why_no_tasks=why,
            served=served_hash(self.settings),
            agent=_agent_of(run, by_id),
            now=datetime.now(UTC).isoformat(),
        )


REPLIES_KEPT = 4096
"""Texts of replies whose action is remembered: small models say the same again and again."""


def _agent_of(run: RunView, tasks: Mapping[str, Task]) -> Agent:
    """What this code makes of the replies, tasks and successes of a run."""
    plan = run.manifest.plan
    libraries: list[ExperienceLibrary] = []
    gathering = {arm.name for _, arm in plan.all_experience()}
    items = {item.id: item for item in read_stream(run.folder, "memory", MemoryItem)}
    reverted = [found.item for found in read_stream(run.folder, "reverted", Reverted)]
    treatments = Treatments(plan, run.consolidations, tuple(items.values()))

    def delivery(arm: Arm, seed: int, task: Task) -> Delivery | None:
        how = arm.remembers
        # What an overseer is told, and what was learned before experience is gathered, is not for the agent.
        if how is None or arm.has_overseer or arm.role is ArmRole.EXPERIENCE:
            return Delivery(candidates=0)
        mine = {item for one in run.consolidations if one.arm == arm.name for item in one.items}
        searched = plan.experience is not None and plan.experience.told(how).retrieval != "bm25"
        if searched or reverted or not mine <= items.keys():
            return None
        return treatments.memory(arm, seed, task)

    def item(kind: MemoryKind, arm: Arm, end: Trajectory, steps: Sequence[Step], task: Task) -> MemoryItem:
        return distil(end, steps, task, render, kind, question(task, arm.scaffold))

    def selection(arm: Arm, one: Consolidation, steps_of: StepsOf) -> tuple[int, Selection] | None:
        wanted = {
            *run.manifest.tasks,
            *(name for of in run.manifest.experience_tasks.values() for name in of),
        }
        if plan.experience is None or not wanted <= tasks.keys():
            return None
        if not libraries:
            libraries.append(_library(run, tasks, gathering, steps_of))
        try:
            return libraries[0].selection(arm, one.seed, one.repo, one.round)
        except BadInput:
            return 0, combined(())

    def asked(one: AnsweredQuestion, arm: Arm, end: Trajectory, steps: Sequence[Step], task: Task) -> int:
        learning, verdict = arm.learning, run.final.get(end.cell)
        if learning is None or verdict is None or one.supported != says(one.answer, one.key):
            return 0
        drops = plan.experience is None or plan.experience.selection.drop_detours
        attempt = Attempt(end, tuple(without_detours(steps) if drops else steps), verdict)
        how = attempt, task, learning.format
        wanted = retold(*how, arm.scaffold.system, learning.pairs)
        of = {
            each.source: (each.turns[1].text, key)
            for each, key in zip(wanted, keys(*how, learning.pairs), strict=True)
        }
        return len(wanted) if of.get(one.source) == (one.question, one.key) else 0

    @lru_cache(REPLIES_KEPT)
    def read(text: str, finish: FinishReason) -> ReadReply:
        found = parse(text, finish)
        return found.action, found.problem, found.fence_removed

    return Agent(
        read=read,
        watch=lambda arm, tree: StepWatch(arm.scaffold, tree).amiss,
        delivery=delivery,
        prompt_hash=lambda arm, task, given: hash_of(opening(task, arm.scaffold, given)),
        item=item,
        useful=without_detours,
        selection=selection,
        asked=asked,
        errors={error.__name__: stop for error, stop in ENDS.items()},
        rules=VERSION,
        attempts=ATTEMPTS,
    )


def _library(
    run: RunView, tasks: Mapping[str, Task], gathering: Collection[str], steps_of: StepsOf
) -> ExperienceLibrary:
    """Where the arms of a run found what they learned from, made of its records again; `gathering` are the arms that gathered it."""
    attempts = (
        Attempt(end, tuple(steps_of(key)), verdict)
        for cell, verdict in run.final.items()
        if arm_of(cell) in gathering and (end := run.ends.get(key := (cell, verdict.attempt))) is not None
    )
    repos = sorted({tasks[name].repo for name in run.manifest.tasks})
    pools = Pools(run.manifest, tasks, attempts)
    return ExperienceLibrary(run.manifest.plan, pools, tasks, repos, 0, ask=lambda *told: "")


def signed_at(place: Path) -> SignedSeals:
    """Raises BadInput where nothing was signed there."""
    found = grouped((one.run, one) for one in signatures_in(texts_at(place)))
    if not found:
        raise BadInput(f"{place} has no signature of a run. Put some there: looper report --sign {place}")
    return SignedSeals(place, found)


def sign_seals(settings: Settings, runs: Sequence[RunView], place: Path) -> Iterator[str]:
    """Put the hash of each run's plan, and of its seals where it has some, where they are not there yet; what was done, in words.
    Raises BadInput."""
    if place.resolve().is_relative_to(settings.runs.resolve()):
        raise BadInput(
            f"{place} lies below {settings.runs}: who changes a run there can change it too. Name a place elsewhere."
        )
    known = {(one.run, one.sha256) for one in signatures_in(texts_at(place))}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new: dict[str, str] = {}
    for run in runs:
        seals = list(read_stream(run.folder, "seals", Seal))
        parts = [signature_of(SignedPart.PLAN, run.folder, now)]
        if seals:
            parts.append(signature_of(SignedPart.SEAL, run.folder, seals[-1].ended))
        else:
            yield f"{run.folder.name}: its seal is not signed, for it has none"
        for one in parts:
            if (one.run, one.sha256) in known:
                yield f"{one.run}: {one.part.value} signed before"
            else:
                new[one.tag] = one.line()
    put_at(place, new)
    yield from (f"{place}: {line}" for line in new.values())
