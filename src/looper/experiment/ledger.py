"""The records of one run: what is written, and what an earlier process left to go on with.

Opening takes the lock, recovers every stream, and refuses a manifest that is not the one the run was begun with. From then on the
run only appends; what is left to do of a cell is worked out once, from what an earlier process recorded.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from looper.errors import Drift, JournalError
from looper.journal import Damage, RunLock, Stream, holder_of, read_stream, reserve_space
from looper.records.base import Record, grouped
from looper.records.job import Event, ResumeState
from looper.records.likelihood import AttemptLikelihood, Likelihood
from looper.records.memory import MemoryItem, Reverted
from looper.records.plan import Cell, LateOverride, Override, RunManifest
from looper.records.question import AnsweredQuestion, Rating
from looper.records.seal import LATER, Seal, SealedFile
from looper.records.session import ClusterNode, NodeState, Session, Trained
from looper.records.training import TrainingEvent
from looper.records.trajectory import Step, Trajectory
from looper.records.treatment import Consolidation, GateStop, Proof
from looper.records.verdict import Verdict, final_verdicts
from looper.untrusted import current_folder

TOLD_EVERY_S = 1.0
"""A loss of one training is kept no more often; each costs a flush to the disk."""
VALUE, SENTENCE = 60, 300
"""Characters of a value that is named as different, and of one that a person wrote and has to write again."""
BEFORE = 20
"""So many characters are shown before the first one that differs, where what is alike is left out."""


@dataclass(frozen=True)
class ActionCount:
    """Steps of a cell's last attempt."""

    steps: int = 0
    without: int = 0
    """Without an action that could be read."""

    def and_one(self, step: Step) -> "ActionCount":
        return ActionCount(self.steps + 1, self.without + (step.action is None))


class Ledger:
    """One run folder, open for writing by this process alone."""

    def __init__(self, folder: Path, manifest: RunManifest, elsewhere: str = "") -> None:
        """Raises RunBusy, Drift or JournalError, which says `elsewhere`, how another place is named, where the folder cannot be written to."""
        self.folder = folder
        self._lock = RunLock(folder, elsewhere=elsewhere)
        self._streams: list[Stream[Any]] = []
        try:
            manifests = self._open("manifest", RunManifest)
            if not manifests.recovered and any(
                (folder / f"{name}.jsonl").exists() for name in ("steps", "verdicts")
            ):
                raise JournalError(f"{folder} has records but no manifest. Move it away and run again.")
            _must_match(manifests.recovered[:1], manifest, folder)
            reserve_space(folder)
            if not manifests.recovered:
                manifests.append(manifest)
            self.steps = self._open("steps", Step)
            self.trajectories = self._open("trajectories", Trajectory)
            self.verdicts = self._open("verdicts", Verdict)
            self._events: Mapping[type[Record], Stream[Any]] = {
                Step: self.steps,
                Trajectory: self.trajectories,
                Verdict: self.verdicts,
            }
            self.consolidations = self._open("consolidations", Consolidation)
            self.questions = self._open("questions", AnsweredQuestion)
            self.memory = self._open("memory", MemoryItem)
            self.proofs = self._open("proofs", Proof)
            self._gate_stops = self._open("gate_stops", GateStop)
            self._late_overrides = self._open("late_overrides", LateOverride)
            self.likelihoods = self._open("likelihoods", Likelihood)
            self.attempt_likelihoods = self._open("attempt_likelihoods", AttemptLikelihood)
            self._seals = self._open("seals", Seal)
            self._sessions = self._open("sessions", Session)
            self._trainings = self._open("trainings", Trained)
            self._nodes = self._open("nodes", ClusterNode)
            self._told: dict[str, float] = {}
            self._untold: dict[str, TrainingEvent] = {}
            self.sealed = bool(self._seals.recovered)
            """Whether the run had come to its end before this process."""
        except BaseException:
            self.close()
            raise
        self.acted = _acted(self.steps.recovered)
        """Of each cell that has steps."""
        self._past = _past(self.steps, self.trajectories, self.verdicts)

    def _open(self, name: str, kind: type[Any]) -> Stream[Any]:
        stream = Stream(self.folder, name, kind, self._lock)
        self._streams.append(stream)
        return stream

    def begin(self, workers: int, command: str) -> None:
        """Say who is at it from now on, and what goes on with it afterwards."""
        ended = {cell for cell, (verdict, _) in self._past.items() if verdict is not None}
        self._sessions.append(
            Session(
                pid=os.getpid(),
                workers=workers,
                begun=_now(),
                done_before=len(ended),
                command=command,
                where=current_folder(),
            )
        )

    def node(self, node: str, address: str, state: NodeState, said: str) -> None:
        """Keep what became of a machine of a cluster."""
        self._nodes.append(ClusterNode(node=node, address=address, state=state, said=said, at=_now()))

    def stopped(self, found: GateStop) -> None:
        """Keep which gate ends this process, and when that was."""
        self._gate_stops.append(found.model_copy(update={"at": _now()}))

    def pass_over(self, found: Sequence[Override]) -> tuple[Override, ...]:
        """Keep that these gates are passed over from now on; all that have been since the run was begun."""
        known = [Override(gate=each.gate, reason=each.reason) for each in self._late_overrides.recovered]
        new = [each for each in found if all(each.gate is not one.gate for one in known)]
        for each in new:
            self._late_overrides.append(LateOverride(gate=each.gate, reason=each.reason, at=_now()))
        return (*known, *new)

    def trained(self, what: str, event: TrainingEvent) -> None:
        """Keep how far a training is: of its losses one a second, and the last."""
        if event.event == "loss":
            now = time.monotonic()
            if now - self._told.get(what, -TOLD_EVERY_S) < TOLD_EVERY_S:
                self._untold[what] = event
                return
            self._told[what] = now
        late = self._untold.pop(what, None)
        for each in (late, event) if late is not None and event.event != "loss" else (event,):
            self._trainings.append(Trained(what=what, event=each))

    def append(self, event: Event) -> None:
        """Return when an event of a cell is on the disk."""
        self._events[type(event)].append(event)

    @property
    def damage(self) -> list[Damage]:
        return [found for stream in self._streams for found in stream.damage]

    @property
    def over(self) -> set[str]:
        """Cells that had their verdict before this process."""
        return {cell for cell, (verdict, _) in self._past.items() if verdict and verdict.outcome.is_verdict}

    def resume(self, cell: Cell) -> ResumeState | None:
        """Where to go on with a cell; None where it has its verdict. What ended as infra_error is tried again."""
        verdict, resume = self._past.get(cell.key, (None, ResumeState()))
        return None if verdict is not None and verdict.outcome.is_verdict else resume

    def seal(self, adapters: Mapping[str, str], energy_j: float | None = None) -> None:
        """Say what the files are, now that every cell has its end; `adapters` are hashes of weights by id, `energy_j` is what
        this process has seen."""
        files: dict[str, SealedFile] = {}
        for name in sorted({stream.name for stream in self._streams} | {*LATER}):
            path = self.folder / f"{name}.jsonl"
            data = path.read_bytes() if path.exists() else b""
            files[name] = SealedFile(
                lines=data.count(b"\n"), bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
            )
        self._seals.append(
            Seal(
                ended=_now(),
                files=files,
                adapters=dict(adapters),
                energy_j=None if self._past else energy_j,
            )
        )

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        self._lock.close()


def _now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def nothing_done(folder: Path) -> bool:
    """Whether a run that nobody is at has neither step nor verdict: it failed before its first attempt, or each of its attempts did
    before its first step, so nothing is lost where it is begun anew."""
    judged = any(verdict.outcome.is_verdict for verdict in read_stream(folder, "verdicts", Verdict))
    return holder_of(folder) is None and not judged and next(read_stream(folder, "steps", Step), None) is None


def revert(folder: Path, found: Reverted) -> None:
    """Tell an item of a run's memory no more. Raises RunBusy while the run is running."""
    _add(folder, "reverted", found)


def rate(folder: Path, found: Rating) -> None:
    """Keep a person's word on an answer. Raises RunBusy while the run is running."""
    _add(folder, "ratings", found)


def _add(folder: Path, name: str, found: Record) -> None:
    with contextlib.closing(RunLock(folder)):
        stream = Stream(folder, name, type(found))
        stream.append(found)
        stream.close()


def _acted(steps: Iterable[Step]) -> dict[str, ActionCount]:
    found: dict[str, tuple[int, ActionCount]] = {}
    for step in steps:
        attempt, acted = found.get(step.cell, (0, ActionCount()))
        if step.attempt > attempt:
            attempt, acted = step.attempt, ActionCount()
        found[step.cell] = attempt, acted.and_one(step)
    return {cell: acted for cell, (_, acted) in found.items()}


def _past(
    steps: Stream[Step], trajectories: Stream[Trajectory], verdicts: Stream[Verdict]
) -> dict[str, tuple[Verdict | None, ResumeState]]:
    """For each cell its end so far, and where its next attempt begins."""
    last = final_verdicts(verdicts.recovered)
    over = {(end.cell, end.attempt): end for end in trajectories.recovered}
    of = grouped((step.cell, step) for step in steps.recovered)
    found: dict[str, tuple[Verdict | None, ResumeState]] = {}
    for cell in of.keys() | last.keys() | {cell for cell, _ in over}:
        verdict = last.get(cell)
        attempt = verdict.attempt + 1 if verdict is not None else 1
        kept = tuple(step for step in of.get(cell, []) if step.attempt == attempt)
        # A step that was recorded twice would be replayed twice.
        unbroken = tuple(step for number, step in enumerate(kept, 1) if step.index == number)
        found[cell] = (
            verdict,
            ResumeState(attempt=attempt, steps=unbroken, trajectory=over.get((cell, attempt))),
        )
    steps.recovered.clear()
    return found


def _must_match(found: list[RunManifest], wanted: RunManifest, folder: Path) -> None:
    if found and found[0] != wanted:
        raise Drift(f"{folder} was begun differently: {differences(found[0], wanted)}.")


def differences(before: RunManifest, now: RunManifest, most: int = 8) -> str:
    """What changed between two manifests, in words: path, old value, new value; so many changes at most, and how many more. What was
    asked for stands first: tasks and models follow from it."""
    changes = list(_changes(json.loads(before.to_json()), json.loads(now.to_json()), ""))
    changes.sort(key=lambda change: not change.startswith(("plan.", "overrides")))
    return "; ".join(changes[:most]) + (f"; and {len(changes) - most} more" if len(changes) > most else "")


def _changes(before: Any, now: Any, path: str) -> Iterator[str]:
    ours, theirs = _by_key(before), _by_key(now)
    if ours is None or theirs is None:
        if before != now:
            # What has to be put back is said to its end, where a person wrote it.
            texts = [json.dumps(value, ensure_ascii=False) for value in (before, now)]
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
            most = SENTENCE if isinstance(before, str) else VALUE
            yield f"{path} was {_cut(texts[0], most, alike)} and is {_cut(texts[1], VALUE, alike)}"
        return
    for key in sorted(ours.keys() | theirs.keys()):
        at = f"{path}[{key}]" if isinstance(before or now, list) else f"{path}.{key}" if path else key
        if key in ours and key in theirs:
            yield from _changes(ours[key], theirs[key], at)
        elif not _says_nothing(part := ours.get(key, theirs.get(key))):
            text = _cut(json.dumps(part, ensure_ascii=False), VALUE)
            yield f"{at} was {text} and is gone" if key in ours else f"{at} is new: {text}"
    if list(ours) != list(theirs) and ours.keys() == theirs.keys() and isinstance(before, list):
        yield f"{path} was in the order {', '.join(ours)} and is in {', '.join(theirs)}"


def _by_key(value: Any) -> dict[str, Any] | None:
    """The parts of a value by their key or name, those of a list without names by their place; None for what is compared whole, as a list
    of plain values is. What is not there has no parts."""
    if value is None or isinstance(value, dict):
        return value or {}
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        return None
    names = [_called(part) for part in value]
    known = all(names) and len({*names}) == len(names)
    return {names[at] if known else str(at): part for at, part in enumerate(value)}


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _called(part: Any) -> str:
    """How a plan calls an arm or a contrast; empty for what has no name."""
    if not isinstance(part, dict):
        return ""
    return str(part.get("name") or (f"{part['arm']} − {part['against']}" if "against" in part else ""))


def _cut(text: str, most: int, alike: int = 0) -> str:
    """So many characters of a text, from where it parts from another where that lies behind the first of them."""
    if len(text) <= most:
        return text
    begin = alike - BEFORE if alike > most - 2 * BEFORE else 0
    end = begin + most - 3
    return "..." * (begin > 0) + text[begin:end] + "..." * (end < len(text))
