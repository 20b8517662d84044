"""A recorded rollout followed once more: which guards must have fired at each step, and whether that ended it.

Nothing is executed: what a tool gave and which tree it left stand in the step. So an audit sees guards that were invented or erased.
"""

import re

from looper.agent.guards import GuardState, Intervention
from looper.records.plan import Scaffold
from looper.records.trajectory import Bash, Edit, Guard, ObservationKind, Step, StopReason, Write

_ADVICE = re.compile(
    r"\[(the same action gave the same result \d+ times"
    r"|\d+ reads in a row; make a change or finish"
    r"|\d+ commands since the last change; if it works, say <done>)\]"
)
"""What a guard that comes after an action says below its result."""


_FAILED = re.compile(r"(?:^exit code|\n\[exit code) -?[1-9]\d*\]?$")


class StepWatch:
    """The guards of one rollout, step by step."""

    def __init__(self, scaffold: Scaffold, tree: str) -> None:
        """`tree` is the one before the first step."""
        self._scaffold, self._state = scaffold, GuardState(scaffold.guards, tree, tree)
        self._lost = False
        """A result was told with something else behind it, so that nobody can tell whether another one equals it."""

    def amiss(self, step: Step, fenced: bool) -> str:
        """What of the next step does not follow from those before it, in words; empty where all does. `fenced` says that a fence was
        taken from its reply."""
        if step.stop_reason is StopReason.UNUSABLE:
            refused = step.observation.kind is ObservationKind.REFUSED
            honest = refused and step.observation.text.startswith("error: ")
            return "" if honest else "steps that made a tree unusable, where their results do not say so"
        if self._lost:
            return ""
        fired = [Guard.CONTEXT_PRUNED] * bool(step.pruned_messages) + [Guard.FENCE_REMOVED] * fenced
        action, found, stop = step.action, list[Intervention](), None
        if action is None or action.tool not in self._scaffold.tools:
            stop = self._state.without_action()
        elif blocked := self._state.before(action):
            found = [blocked]
        else:
            fired += _of_the_tool(step)
            found = self._state.after(action, self._result(step), step.tree)
            stop = StopReason.DONE if step.observation.kind is ObservationKind.END else None
            if not self._says_its_code(step):
                return "steps whose exit code is not the one that they say"
        self._lost = bool(step.memory)
        if step.guards != (*fired, *(one.guard for one in found)):
            return "steps whose guards are not those that fire there"
        if step.stop_reason is not (stop or next((one.stop for one in found if one.stop), None)):
            return "steps that ended a rollout, or did not, where their guards do otherwise"
        return ""

    def _says_its_code(self, step: Step) -> bool:
        """A command that failed is told with its exit code, and one that did not without, unless it prints such words itself."""
        code, said = step.observation.exit_code, self._result(step)
        if self._scaffold.terse or code is None or step.memory or not isinstance(step.action, Bash):
            return True
        if code:
            return said == f"exit code {code}" or said.endswith(f"\n[exit code {code}]")
        return "exit code" in step.action.command or not _FAILED.search(said)

    def _result(self, step: Step) -> str:
        """What the action gave, without advice."""
        lines = step.observation.text.split("\n")
        while len(lines) > 1 and not self._scaffold.terse and _ADVICE.fullmatch(lines[-1]):
            lines.pop()
        return "\n".join(lines)


def _of_the_tool(step: Step) -> list[Guard]:
    """Those that a tool fires itself, by what it says."""
    said, kind = step.observation.text, step.observation.kind
    match step.action:
        case Write() if kind is ObservationKind.REFUSED and " bytes and would have " in said:
            return [Guard.SHRINKING_WRITE]
        case Edit(path=path) | Write(path=path) if f"\nwarning: {path} no longer compiles: " in said:
            return [Guard.BROKEN_PYTHON]
    return []
