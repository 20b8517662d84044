"""Promote and roll back: pinned to what was judged, atomic, and finished by whoever finds them half done.

Everything that can say no comes before the `promoting` event. After it only steps follow that can be repeated: the branch is moved if
it is where it was expected, the pointer is swapped by a rename, the tag is set, the ledger says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from looper.errors import MergeConflict, RefMoved
from looper.evolution.ledger import EventLog
from looper.evolution.state import Generation, NotAllowed, State
from looper.protocols import Sources, Versions
from looper.records.generation import (
    Activated,
    Cause,
    Checked,
    Happened,
    Moved,
    Phase,
    Promoting,
    RollingBack,
)


class _BegunElsewhere(Exception):
    """Another process has made the first version active."""


@dataclass(frozen=True)
class Promoter:
    ledger: EventLog
    sources: Sources
    versions: Versions
    branch: str
    """Full name of the branch that carries what was promoted; not one that is checked out anywhere."""
    starts: Callable[[Path], str]
    """Why a version does not start, in a line; empty where it does. Runs in the sandbox."""
    still_passes: Callable[[str, Generation], bool]
    """Whether the gates that depend on the tree pass on this one, which is not the judged one since the base has moved."""
    healthy: Callable[[Path], str] | None = None
    """Why the version that was just made active does not work, in a line; empty where it does. Then it is rolled back. None where nobody
    can look: then it stays unchecked until somebody does."""

    def begin(self, commit: str) -> str:
        """Make a commit the version that a campaign begins with, where none is active yet; the active one."""
        self.recover()
        state = self.ledger.state()
        if state.active:
            return state.active
        self._free()
        tree = self.sources.tree_of(commit)
        self.sources.export(tree, self.versions.folder(tree))
        self.sources.move(self.branch, commit, "")
        self.versions.activate(tree)

        def first(now: State) -> Happened:
            if now.active:
                raise _BegunElsewhere
            return Activated(version=tree, generation=0)

        try:
            self._record(first)
        except _BegunElsewhere:
            pass  # By a process that began at the same moment.
        return tree

    def promote(self, number: int, candidate_hash: str = "") -> Moved:
        """The last event of a generation: promoted, or archived with its cause. Raises NotAllowed for one that was not accepted, or
        whose hash is not the one that the caller saw."""
        if (done := self.recover()) and (done.generation, done.after) == (number, Phase.PROMOTED):
            return done  # By a process that was killed in the middle of this very promotion.
        found = self.ledger.state().generation(number)
        if found.phase is not Phase.ACCEPTED:
            raise NotAllowed(
                f"Generation {number} is {found.phase.value}; only what every gate has passed is promoted: looper evolve verify {number}"
            )
        if candidate_hash and candidate_hash != found.candidate_hash:
            raise NotAllowed(
                f"Generation {number} is {found.candidate_hash[:12]}, and {candidate_hash[:12]} was to be promoted."
            )
        if tagged := self.sources.at(_tag(number)):
            raise NotAllowed(
                f"The tag gen-{number} is there already, at {tagged[:12]}. Remove or rename it, then promote again."
            )
        self._free()
        base = self.sources.commit_of(self.branch)
        try:
            tree = self.sources.merged(base, found.candidate_commit)
        except MergeConflict as error:
            return self._archive(found, Cause.CONFLICT, str(error))
        if tree != found.candidate_hash and not self.still_passes(tree, found):
            return self._archive(
                found, Cause.CONFLICT, "on the branch as it is now the gates do not pass any more"
            )
        folder = self.versions.folder(tree)
        self.sources.export(tree, folder)
        if why := self.starts(folder):
            return self._archive(found, Cause.START_CHECK, why)
        said = f"generation {number}: {found.title}"
        commit = self.sources.merge_commit(tree, base, found.candidate_commit, said)
        self._record(
            lambda now: Promoting(
                generation=number, branch=self.branch, base_commit=base, commit=commit, version=tree
            )
        )
        return self._look_after(self._finish_promotion(self.ledger.state()))

    def _free(self) -> None:
        if folder := self.sources.checked_out(self.branch):
            raise NotAllowed(
                f"{self.branch} is checked out in {folder}, where a promotion would make every file look changed. Check out another "
                "branch there, or have promotions go to another one: --set branch=NAME."
            )

    def _look_after(self, ended: Moved) -> Moved:
        """What works now is looked at once more, and goes where it does not."""
        if ended.after is not Phase.PROMOTED or self.healthy is None:
            return ended
        if why := self.healthy(self.versions.folder(self.versions.active())):
            return self._roll_back(ended.generation, Cause.HEALTH, why)
        self._record(lambda now: Checked(generation=ended.generation))
        return ended

    def roll_back(self, number: int | None = None) -> Moved:
        """Back to the version before a generation, the active one by default. Raises NotAllowed where it is not the active one."""
        done = self.recover()
        if done and done.after is Phase.ROLLED_BACK and number in (None, done.generation):
            return done
        return self._roll_back(number)

    def _roll_back(self, number: int | None, cause: Cause = Cause.NONE, why: str = "") -> Moved:
        state = self.ledger.state()
        current = state.active_generation or 0
        number = current if number is None else number
        if not number:
            raise NotAllowed("Nothing was promoted yet, so there is nothing to roll back.")
        found = state.generation(number)
        if found.phase is not Phase.PROMOTED or number != current:
            raise NotAllowed(
                f"Generation {number} is {found.phase.value} and the active one is {current or 'the first version'}: roll back the "
                "newest first."
            )
        before = _before(state, number)
        tip, done = self.sources.commit_of(self.branch), state.promotions[number]
        # By its tree: the branch may carry an earlier roll back to this very version.
        untouched = self.sources.tree_of(tip) == state.active
        said = f"roll back generation {number}"
        commit = self.sources.merge_commit(before.version, tip, done.base_commit, said) if untouched else ""
        self._record(
            lambda now: RollingBack(
                generation=number,
                branch=self.branch,
                base_commit=tip,
                commit=commit,
                version=before.version,
                to=before.generation,
                cause=cause,
                evidence=why,
            )
        )
        return self._finish_roll_back(self.ledger.state())

    def recover(self) -> Moved | None:
        """Finish what a process that is no more has begun; how that ended, or None where there was nothing."""
        state = self.ledger.state()
        done: Moved | None = None
        if isinstance(state.unfinished, Promoting):
            done = self._finish_promotion(state)
        elif isinstance(state.unfinished, RollingBack):
            done = self._finish_roll_back(state)
        elif state.active and self.versions.active() != state.active:
            self.versions.activate(state.active)
        if self.healthy is not None and (number := self.ledger.state().unchecked):
            done = self._look_after(Moved(generation=number, before=Phase.ACCEPTED, after=Phase.PROMOTED))
        return done

    def _finish_promotion(self, state: State) -> Moved:
        begun = state.unfinished
        assert isinstance(begun, Promoting)
        found = state.generation(begun.generation)
        try:
            self.sources.move(begun.branch, begun.commit, begun.base_commit)
        except RefMoved as error:
            return self._archive(found, Cause.CONFLICT, str(error))
        self.versions.activate(begun.version)
        self.sources.move(_tag(begun.generation), begun.commit, "")
        self._activated(state, Activated(version=begun.version, generation=begun.generation))
        return self._move(
            Moved(
                generation=begun.generation,
                before=Phase.ACCEPTED,
                after=Phase.PROMOTED,
                candidate_hash=found.candidate_hash,
            )
        )

    def _finish_roll_back(self, state: State) -> Moved:
        begun = state.unfinished
        assert isinstance(begun, RollingBack)
        # The pointer first: what works is what people wait for.
        self.versions.activate(begun.version)
        evidence = f"{begun.evidence}; back to version {begun.version[:12]}".removeprefix("; ")
        if begun.commit:
            try:
                self.sources.move(begun.branch, begun.commit, begun.base_commit)
            except RefMoved as error:
                evidence = f"{evidence}; the branch was left as it is: {error}"
        else:
            evidence = f"{evidence}; the branch was left as it is, since later commits stand on it"
        self._activated(state, Activated(version=begun.version, generation=begun.to, back=True))
        return self._move(
            Moved(
                generation=begun.generation,
                before=Phase.PROMOTED,
                after=Phase.ROLLED_BACK,
                cause=begun.cause,
                evidence=evidence,
            )
        )

    def _activated(self, state: State, event: Activated) -> None:
        if state.versions[-1:] != (event,):
            self._record(lambda now: event)

    def _archive(self, found: Generation, cause: Cause, evidence: str) -> Moved:
        return self._move(
            Moved(
                generation=found.number,
                before=Phase.ACCEPTED,
                after=Phase.ARCHIVED,
                cause=cause,
                evidence=evidence,
            )
        )

    def _move(self, move: Moved) -> Moved:
        self._record(lambda now: move)
        return move

    def _record(self, decide: Callable[[State], Happened]) -> None:
        self.ledger.record(decide)


def _tag(number: int) -> str:
    return f"refs/tags/gen-{number}"


def _before(state: State, number: int) -> Activated:
    """The version that worked when a generation was promoted."""
    at = max(
        place for place, found in enumerate(state.versions) if found.generation == number and not found.back
    )
    return state.versions[at - 1]
