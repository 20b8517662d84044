"""One rollout, a page of steps at a time: what was said, done and seen, filtered and searched. Of any length in the same memory.

A rollout may have thousands of steps with texts of any length, so steps are found by their places in the file, only those of one
page are read, and long texts are cut to what is shown. A filter or a search reads every step once, one at a time.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from looper.journal import BESIDE, raw_lines
from looper.metrics.paired import repository_of
from looper.records.text import bare_lines
from looper.records.trajectory import Bash, Edit, Guard, ObservationKind, Step, Trajectory, Write
from looper.records.treatment import Consolidation
from looper.records.verdict import TestOutcome, Verdict
from looper.views.index import some_steps
from looper.views.runs import RunView

PAGE = 40
"""Steps."""
TEXT_CHARS = 20_000
"""Of one text on a page; the whole of it is a file to fetch."""
HITS = 100
"""Of a search through all rollouts of a run."""
SNIPPET = 100
"""Characters on either side of what was searched."""
TRIED = 120
"""Steps in a summary of what was tried; the last ones where there are more."""


@dataclass(frozen=True)
class Filter:
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
    shown: str
    cut: bool


@dataclass(frozen=True)
class ShownStep:
    step: Step
    said: ShownText
    thinking: ShownText
    seen: ShownText
    target: str
    """What the action was about, in a line."""
    wrong: bool


@dataclass(frozen=True)
class StepPage:
    steps: tuple[ShownStep, ...]
    page: int
    """From 1."""
    pages: int
    total: int
    """Steps of the attempt."""
    matching: int


@dataclass(frozen=True)
class CellAttempt:
    name: str
    attempt: int
    attempts: tuple[int, ...]
    end: Trajectory | None
    verdict: Verdict | None


def cell_of(run: RunView, name: str, attempt: int | None) -> CellAttempt | None:
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
    return CellAttempt(
        name, chosen, tuple(known), run.ends.get((name, chosen)), verdicts[-1] if verdicts else None
    )


def steps_page(
    run: RunView, cell: CellAttempt, wanted: Filter, page: int = 1, step: int | None = None
) -> StepPage:
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


@dataclass(frozen=True)
class Tried:
    index: int
    tool: str
    target: str
    result: str
    """Exit code, or what became of the step; empty where nothing is to be said."""
    wrong: bool


def tried(run: RunView, cell: CellAttempt) -> tuple[list[Tried], int]:
    """The steps of an attempt in a line each, the last `TRIED` of them, and how many came before."""
    entry = run.followed().attempts.get((cell.name, cell.attempt))
    places = entry.places if entry is not None else []
    found = [
        Tried(
            step.index,
            step.action.tool if step.action else "no action",
            target(step),
            _result(step),
            went_wrong(step),
        )
        for step in some_steps(run.folder, places[-TRIED:], TEXT_CHARS)
    ]
    return found, max(0, len(places) - TRIED)


def _result(step: Step) -> str:
    seen = step.observation
    if seen.exit_code is not None:
        return f"exit code {seen.exit_code}"
    return "" if seen.kind in (ObservationKind.OK, ObservationKind.END) else seen.kind.value


def action_lines(step: Step) -> list[tuple[str, str]]:
    """What an action does, line by line, each with its kind as in a patch: `del` for what an edit replaces, `add` for what it
    or a new file puts there, empty for a command. Nothing for what `target` says whole."""
    match step.action:
        case Edit(old=old, new=new):
            return [
                *(("del", f"-{line}") for line in bare_lines(old)),
                *(("add", f"+{line}") for line in bare_lines(new)),
            ]
        case Write(content=content):
            return [("add", f"+{line}") for line in bare_lines(content)]
        case Bash(command=command) if command.strip() != target(step):
            return [("", line) for line in bare_lines(command)]
    return []


def consolidations_of(run: RunView, cell: str) -> list[Consolidation]:
    """What the arm of a cell had learned for its task: of the last round before it, for its repository or for all of them."""
    arm, seed, task = cell.split("/", 2)
    repository = repository_of(task)
    found = [
        made
        for made in run.consolidations
        if (made.arm, str(made.seed)) == (arm, seed) and made.repo.replace("/", "__") in ("", repository)
    ]
    last = max((made.round for made in found), default=0)
    return [made for made in found if made.round == last]


def adapters_for(run: RunView, cell: str) -> list[str]:
    """Ids of the adapters that the arm of a cell works at its task with: the one that it brings along, and the one that it learned."""
    plan, name = run.manifest.plan, cell.partition("/")[0]
    brought = [arm.model.adapter for arm in plan.every_arm if arm.name == name]
    return [*filter(None, [*brought, *(made.adapter for made in consolidations_of(run, cell))])]


@dataclass(frozen=True)
class Hit:
    cell: str
    attempt: int
    index: int
    where: str
    """said, thinking or seen."""
    before: str
    found: str
    after: str


def search(run: RunView, text: str) -> tuple[list[Hit], bool]:
    """The first `HITS` steps of all rollouts in which a text stands, whatever its case, and whether there are more."""
    # The line as it stands in the file is looked at first: most need not be read as records. What lies beside it is read whole.
    looked_for, hits = re.compile(re.escape(text), re.IGNORECASE), list[Hit]()
    raw = json.dumps(text, ensure_ascii=False)[1:-1].lower()
    steps = (
        step
        for place, _, body in raw_lines(run.folder, "steps")
        if body is not None and (BESIDE in body or raw in body.decode("utf-8", "replace").lower())
        for step in some_steps(run.folder, [place], -1)
    )
    for step in steps:
        for where, whole in (
            ("said", step.reply.text),
            ("thinking", step.reply.thinking),
            ("seen", step.observation.text),
        ):
            place = looked_for.search(whole)
            if place is not None:
                at = place.start()
                if len(hits) == HITS:
                    return hits, True
                end = place.end()
                before = whole[max(0, at - SNIPPET) : at].rpartition("\n")[2]
                after = whole[end : end + SNIPPET].partition("\n")[0]
                hits.append(Hit(step.cell, step.attempt, step.index, where, before, whole[at:end], after))
                break
    return hits, False
