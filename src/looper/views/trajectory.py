"""One rollout, a page of steps at a time: what was said, done and seen, filtered and searched. Of any length in the same memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from looper.records.text import bare_lines
from looper.records.trajectory import Edit, Guard, ObservationKind, Step, Trajectory, Write
from looper.records.verdict import TestOutcome, Verdict
from looper.views.index import some_steps
from looper.views.runs import RunView

PAGE = 40
"""Steps."""
TEXT_CHARS = 20_000
"""Of one text on a page; the whole of it is a file to fetch."""


@dataclass(frozen=True)
class Filter:
    """Which steps are shown; empty for all."""

    tool: str = ""
    guard: str = ""
    errors: bool = False
    """Refused, timed out, without a readable action, or a command that ended with another code than 0."""
    text: str = ""
    """That stands in what was said or seen, whatever its case."""

    @property
    def any(self) -> bool:
        return bool(self.tool or self.guard or self.errors or self.text)

    def takes(self, step: Step) -> bool:
        if self.tool and (step.action is None or step.action.tool != self.tool):
            return False
        if self.guard and Guard(self.guard) not in step.guards:
            return False
        if self.errors and not went_wrong(step):
            return False
        wanted = self.text.lower()
        return not wanted or any(
            wanted in text.lower() for text in (step.reply.text, step.reply.thinking, step.observation.text)
        )


def went_wrong(step: Step) -> bool:
    seen = step.observation
    return seen.kind not in (ObservationKind.OK, ObservationKind.END) or bool(seen.exit_code)


@dataclass(frozen=True)
class ShownText:
    """As much of a text as is shown."""

    shown: str
    cut: bool


@dataclass(frozen=True)
class ShownStep:
    """One step, with everything that is known of it."""

    step: Step
    said: ShownText
    thinking: ShownText
    seen: ShownText
    target: str
    """What the action was about, in a line."""
    wrong: bool


@dataclass(frozen=True)
class StepPage:
    """Steps that are shown together."""

    steps: tuple[ShownStep, ...]
    page: int
    """From 1."""
    pages: int
    total: int
    """Steps of the attempt."""
    matching: int


@dataclass(frozen=True)
class Cell:
    """One cell at one attempt."""

    name: str
    attempt: int
    attempts: tuple[int, ...]
    end: Trajectory | None
    verdict: Verdict | None


def cell_of(run: RunView, name: str, attempt: int | None) -> Cell | None:
    """None where the run has no such cell, or the cell no such attempt."""
    known = sorted(
        {number for cell, number in run.followed().attempts if cell == name}
        | {number for cell, number in run.ends if cell == name}
        | {found.attempt for found in run.verdicts if found.cell == name}
    )
    planned = name in run.planned_cells
    if not planned and not known:
        return None
    chosen = attempt if attempt is not None else (known[-1] if known else 1)
    if attempt is not None and attempt not in known:
        return None
    verdicts = [found for found in run.verdicts if (found.cell, found.attempt) == (name, chosen)]
    return Cell(name, chosen, tuple(known), run.ends.get((name, chosen)), verdicts[-1] if verdicts else None)


def steps_page(run: RunView, cell: Cell, wanted: Filter, page: int = 1, step: int | None = None) -> StepPage:
    """The page of that number, or the one that holds a step."""
    entry = run.followed().attempts.get((cell.name, cell.attempt))
    places: Sequence[int] = entry.places if entry is not None else ()
    total = len(places)
    numbers: tuple[int, ...] = ()
    if wanted.any:
        found = [
            (place, one.index)
            for place in places
            for one in some_steps(run.folder, [place], -1 if wanted.text else TEXT_CHARS)
            if wanted.takes(one)
        ]
        places, numbers = [place for place, _ in found], tuple(number for _, number in found)
    pages = max(1, -(-len(places) // PAGE))
    if step is not None:
        before = sum(number < step for number in numbers) if wanted.any else step - 1
        page = before // PAGE + 1
    page = min(max(1, page), pages)
    shown = places[(page - 1) * PAGE : page * PAGE]
    return StepPage(
        tuple(_shown(one) for one in some_steps(run.folder, shown, 4 * TEXT_CHARS)),
        page,
        pages,
        total,
        len(places),
    )


def _shown(step: Step) -> ShownStep:
    return ShownStep(
        step,
        _text(step.reply.text),
        _text(step.reply.thinking),
        _text(step.observation.text),
        target(step),
        went_wrong(step),
    )


def _text(whole: str) -> ShownText:
    return ShownText(whole[:TEXT_CHARS], len(whole) > TEXT_CHARS)


def target(step: Step) -> str:
    """The path or command that an action is about, in a line."""
    action = step.action
    if action is None:
        return step.problem.value.replace("_", " ") if step.problem else ""
    said = str(
        getattr(action, "path", "") or getattr(action, "command", "") or getattr(action, "message", "")
    )
    first = bare_lines(said.strip())[0] if said.strip() else ""
    size = f" ({len(action.content)} characters)" if isinstance(action, Write) else ""
    return f"{first[:120]}{size}" + (" replaced" if isinstance(action, Edit) and not action.new else "")


def test_rows(verdict: Verdict) -> list[tuple[str, str, str, bool]]:
    """Label, test, outcome, whether it passes; those that do not first."""
    rows = [
        (label, name, found.value, found.passes)
        for label, outcomes in (
            ("FAIL_TO_PASS", verdict.fail_to_pass),
            ("PASS_TO_PASS", verdict.pass_to_pass),
        )
        for name, found in outcomes.items()
    ]
    return sorted(rows, key=lambda row: row[3])


def passed(outcomes: dict[str, TestOutcome]) -> int:
    return sum(found.passes for found in outcomes.values())
