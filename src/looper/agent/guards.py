"""Checks that keep a rollout from going round in circles; each fires under its own name."""

from dataclasses import dataclass, field

from looper.agent.actions import render
from looper.records.plan import GuardSettings
from looper.records.trajectory import Action, Bash, Done, Guard, Read, StopReason


@dataclass(frozen=True)
class Intervention:
    """What a guard does. One that comes before an action refuses it; one that comes after says something or ends the
    rollout."""

    guard: Guard
    advice: str = ""
    stop: StopReason | None = None


@dataclass
class GuardState:
    """What the guards remember of one rollout. A change of the tree makes every action new again."""

    settings: GuardSettings
    base_tree: str
    tree: str
    times: dict[str, int] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    reads_in_a_row: int = 0
    commands_in_a_row: int = 0
    steps_without_change: int = 0
    replies_without_action: int = 0
    refused_done: bool = False

    @property
    def has_patch(self) -> bool:
        return self.tree != self.base_tree

    def before(self, action: Action) -> Intervention | None:
        """Called with an action that is about to run."""
        self.replies_without_action = 0
        if isinstance(action, Done):
            return self._before_done()
        count = self.times.get(render(action), 0) + 1
        if self.settings.repeat_stop and count >= self.settings.repeat_stop:
            return Intervention(Guard.REPEATED_ACTION, stop=StopReason.STALLED)
        if self.settings.repeat_refuse and count >= self.settings.repeat_refuse:
            # A refused action counts too, or the rollout could repeat it for ever.
            self.times[render(action)] = count
            said = f"error: this was done {count - 1} times already and nothing has changed since. Do something else."
            return Intervention(Guard.REPEATED_ACTION, said)
        return None

    def _before_done(self) -> Intervention | None:
        if self.settings.refuse_empty_done and not self.has_patch and not self.refused_done:
            self.refused_done = True
            said = "error: no file has been changed yet. Fix the issue first; a second <done> ends the work as it is."
            return Intervention(Guard.PREMATURE_DONE, said)
        return None

    def after(self, action: Action, result: str, tree: str) -> list[Intervention]:
        """Called with what an executed action gave, and the tree it left."""
        changed, self.tree = tree != self.tree, tree
        if changed:
            self.times.clear()
            self.results.clear()
            self.reads_in_a_row = self.commands_in_a_row = self.steps_without_change = 0
            return []
        self._count(action, result)
        return [found for found in (self._repeated(action), self._streak(), self._stuck()) if found]

    def _count(self, action: Action, result: str) -> None:
        key = render(action)
        same = self.results.get(key) == result
        self.times[key] = self.times.get(key, 0) + 1 if same else 1
        self.results[key] = result
        self.reads_in_a_row = self.reads_in_a_row + 1 if isinstance(action, Read) else 0
        self.commands_in_a_row = self.commands_in_a_row + 1 if isinstance(action, Bash) else 0
        if self.has_patch:
            self.steps_without_change += 1

    def _repeated(self, action: Action) -> Intervention | None:
        count = self.times[render(action)]
        if self.settings.repeat_nudge and count == self.settings.repeat_nudge:
            return Intervention(
                Guard.REPEATED_ACTION, f"[the same action gave the same result {count} times]"
            )
        return None

    def _streak(self) -> Intervention | None:
        if self.settings.read_only_nudge and self.reads_in_a_row == self.settings.read_only_nudge:
            return Intervention(
                Guard.READ_ONLY_STREAK, f"[{self.reads_in_a_row} reads in a row; make a change or finish]"
            )
        limit = self.settings.verification_nudge
        if limit and self.has_patch and self.commands_in_a_row == limit:
            return Intervention(
                Guard.VERIFICATION_LOOP, f"[{limit} commands since the last change; if it works, say <done>]"
            )
        return None

    def _stuck(self) -> Intervention | None:
        limit = self.settings.no_progress_stop
        if limit and self.steps_without_change >= limit:
            return Intervention(Guard.NO_PROGRESS, stop=StopReason.STALLED)
        return None

    def without_action(self) -> StopReason | None:
        """Called with a reply that held no executable action."""
        self.replies_without_action += 1
        limit = self.settings.no_action_stop
        return StopReason.NO_ACTION if limit and self.replies_without_action >= limit else None
