"""What people look at: each page a projection of records, as it is at this moment.

A handler asks the projection for a run as it is now, takes what a module of `views` makes of it, and hands that to a template. It
decides nothing and changes nothing: what a person may do stands in the `api` modules.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from looper.errors import BadInput, LooperError
from looper.records.base import grouped
from looper.records.generation import Phase
from looper.records.memory import MemoryItem
from looper.records.plan import RunManifest, arm_of, task_id_of
from looper.records.task import Task
from looper.records.text import bare_lines
from looper.records.training import AdapterRecord
from looper.records.trajectory import TOOL_NAMES, Guard
from looper.records.verdict import Outcome
from looper.serve.answers import known_run, page
from looper.serve.authenticator import COOKIE, SESSION_S, Authenticator
from looper.serve.evolving import CampaignView
from looper.serve.guard import sessions_of
from looper.views.board import (
    AT_WORK,
    FAILED_ONES,
    NO_VERDICT,
    SORTED,
    TO_DO,
    CellQuery,
    arm_colours,
    arms_with_cells,
    bars,
    cell_page,
    next_failed,
    only_experience,
    squares,
    task_rows,
)
from looper.views.diff import aligned, arm_pair
from looper.views.evolution import described_generation, outcome, tested_text
from looper.views.findings import (
    COLUMNS,
    arm_rows,
    before_lines,
    contrast_lines,
    control_lines,
    damage_lines,
    measured_lines,
    nothing_registered,
    registered_of,
    registered_rows,
    scope_line,
    stratified_lines,
    treatment_lines,
    unfinished_text,
)
from looper.views.index import some_steps
from looper.views.lineage import adapters_of, lineage_lines
from looper.views.live import Projection, at_work
from looper.views.memory import drawn_for, memory_items, reverted_items, why_nothing
from looper.views.runs import RunView
from looper.views.trajectory import (
    Filter,
    ShownText,
    action_lines,
    cell_of,
    consolidations_of,
    passed,
    search,
    steps_page,
    target,
    test_rows,
    tried,
    went_wrong,
)

Handler = Callable[[Request], Response]
DIFF_STEPS = 400
"""Of each of two rollouts that are laid beside each other."""
DIFF_CHARS = 1_500
ACTION_LINES = 60
"""Of one action beside another."""
LINES = 4_000
"""Of a patch that is shown."""
LAST = 10**9
"""A page after every last one."""
STANDARD = (("sort", "cell"), ("page", 1))
"""What is not said in the address of a list of cells."""
PARTS = ("said", "thinking", "seen", "patch")


@dataclass(frozen=True)
class DoctorCheck:
    level: str
    what: str
    found: str
    fix: str


@dataclass(frozen=True)
class PageContext:
    """Everything that pages are made from."""

    projection: Projection
    evolving: Callable[[], CampaignView | None]
    """Asked for each time: it may have begun since."""
    auth: Authenticator
    card_of: Callable[[str], AdapterRecord | None]
    """Of an adapter, by its id. Raises ValueError for a damaged one."""
    eligible: Callable[[Iterable[str]], Mapping[str, str]]
    """Of tasks, by id: whether they can tell right from wrong on this machine; only those that were tried."""
    examine: Callable[[], list[DoctorCheck]]
    tasks: Callable[[RunManifest], tuple[Mapping[str, Task], str]]
    """Of a run, by id, and what is to be said of them. Raises BadInput where they cannot be had."""


@dataclass(frozen=True)
class Pages:
    """Every page. Handlers are plain functions, so each runs in a thread and none holds up the others."""

    page_context: PageContext

    def routes(self) -> list[Route]:
        handlers: dict[str, Handler] = {
            "/login": self.login,
            "/": self.overview,
            "/runs/{run}": self.run_page,
            "/runs/{run}/tasks": self.tasks,
            "/runs/{run}/learned": self.learned,
            "/runs/{run}/curves": self.curves,
            "/runs/{run}/arms": self.arms,
            "/runs/{run}/search": self.search,
            "/runs/{run}/diff": self.diff,
            "/runs/{run}/cells/{cell:path}": self.trajectory,
            "/runs/{run}/text/{cell:path}": self.text,
            "/evolution": self.evolution,
            "/evolution/{number:int}": self.generation,
            "/prime": self.prime,
            "/doctor": self.doctor,
        }
        return [Route(path, _timed(handler)) for path, handler in handlers.items()]

    def run_of(self, request: Request) -> RunView:
        return known_run(self.page_context.projection, request.path_params["run"])

    def login(self, request: Request) -> Response:
        session = self.page_context.auth.open(request.query_params.get("code", ""))
        if session is None:
            # Whoever opens a used link in the browser that it logged in is there already; its session becomes no longer by that.
            if any(map(self.page_context.auth.knows_session, sessions_of(request.headers))):
                return RedirectResponse("/", 303)
            raise HTTPException(401, "This link was used before, or is too old.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, session, max_age=int(SESSION_S), httponly=True, samesite="strict")
        return answer

    def overview(self, request: Request) -> Response:
        runs, unreadable = self.page_context.projection.read()
        evolving, state = self.page_context.evolving(), None
        try:
            state = evolving and evolving.state()
        except LooperError as error:
            unreadable.append(str(error))
        return page(
            request,
            "overview",
            title="Runs",
            runs=[
                (view, self.page_context.projection.described(view), next(iter(registered_rows(view)), None))
                for view in reversed(runs)
            ],
            unreadable=unreadable,
            folder=self.page_context.projection.runs,
            campaign=evolving and state and (evolving.name, state),
        )

    def run_page(self, request: Request) -> Response:
        """Whole, or with `?part=now` what changes all the time: everything on either is of one moment of the run."""
        run = self.run_of(request)
        now, registered = self.page_context.projection.described(run), registered_rows(run)
        live = {
            "run": run,
            "now": now,
            "columns": COLUMNS,
            "rows": arm_rows(run),
            "colours": arm_colours(run),
            "damage": damage_lines(run),
            "experience": only_experience(run),
            "registered": registered,
            "unregistered": "" if registered else nothing_registered(run),
            "before": before_lines(run),
            "besides": [*measured_lines(run), *stratified_lines(run)] if registered else [],
        }
        if request.query_params.get("part") == "now":
            return page(request, "run_now", title="", **live)
        asked = _cell_query(request.query_params)
        found = cell_page(run, asked)

        def listed(**changes: Any) -> str:
            """Address of the same list with other settings; the first page unless one is named."""
            wanted = vars(replace(asked, **{"page": 1, **changes}))
            said = {key: int(value) if value is True else value for key, value in wanted.items() if value}
            return "?" + urlencode(
                {key: value for key, value in said.items() if (key, value) not in STANDARD}
            )

        return page(
            request,
            "run",
            title=f"{run.manifest.plan.experiment} {run.manifest.plan.profile}",
            map=list(squares(run)),
            bars=bars(run),
            lines=[*contrast_lines(run), *control_lines(run), *treatment_lines(run)],
            cells=found,
            asked=asked,
            listed=listed,
            arms=arms_with_cells(run),
            outcomes=[FAILED_ONES, NO_VERDICT, *(found.value for found in Outcome), AT_WORK, TO_DO],
            failed=next_failed(run, wanted=asked),
            among=_among(asked),
            **live,
        )

    def tasks(self, request: Request) -> Response:
        run = self.run_of(request)
        rows = task_rows(run, self.page_context.eligible(run.tasks))
        return page(request, "tasks", title=f"Tasks of {run.folder.name}", run=run, rows=rows)

    def learned(self, request: Request) -> Response:
        run = self.run_of(request)
        items: dict[str, MemoryItem] = memory_items(run)
        cards = {name: self._card(name) for name in adapters_of(run)}

        def known(name: str) -> AdapterRecord | None:
            card = cards[name]
            if isinstance(card, str):
                raise ValueError(card)
            return card

        return page(
            request,
            "learned",
            title=f"What the arms of {run.folder.name} learned",
            run=run,
            lineage={
                arm.name: list(lineage_lines(run, arm.name, known))[1:] for arm in run.manifest.plan.arms
            },
            cards=cards,
            items=items,
            reverted=reverted_items(run),
        )

    def curves(self, request: Request) -> Response:
        run = self.run_of(request)
        return page(request, "curves", title=f"Curves of {run.folder.name}", run=run)

    def trajectory(self, request: Request) -> Response:
        run = self.run_of(request)
        asked = request.query_params
        cell = cell_of(run, request.path_params["cell"], _number(asked.get("attempt")))
        if cell is None:
            raise HTTPException(404, "This run has no such cell, or the cell no such attempt.")
        guard = asked.get("guard", "")
        wanted = Filter(
            tool=asked.get("tool", "") if asked.get("tool") in TOOL_NAMES else "",
            guard=guard if guard in list(Guard) else "",
            errors=asked.get("errors") == "1",
            text=asked.get("find", "")[:200],
        )
        live = run.writer is not None and cell.end is None and cell.verdict is None
        # Who follows a rollout sees its last steps.
        first = LAST if live and not wanted.any else 1
        found = steps_page(run, cell, wanted, _number(asked.get("page")) or first, _number(asked.get("step")))
        where, names = cell.name.partition("/")[2], [arm.name for arm in run.manifest.plan.arms]
        mine = arm_of(cell.name)
        base = run.manifest.plan.base
        others = [
            f"{name}/{where}" for name in names if name != mine and f"{name}/{where}" in run.planned_cells
        ]
        if base is not None and f"{base.name}/{where}" in others:
            others.remove(f"{base.name}/{where}")
            others.insert(0, f"{base.name}/{where}")
        patch = cell.end.patch if cell.end else ""
        task, said = self._task(run, where.partition("/")[2])
        among = _cell_query(dict(parse_qsl(asked.get("among", ""))))
        steps, earlier = tried(run, cell)
        made = consolidations_of(run, cell.name)
        brought = next((arm.model.adapter for arm in run.manifest.plan.arms if arm.name == mine), "")
        return page(
            request,
            "trajectory",
            title=cell.name,
            run=run,
            cell=cell,
            live=live,
            state=AT_WORK if live and cell.name in {name for name, *_ in at_work(run)} else TO_DO,
            failed=cell.verdict is not None and cell.verdict.outcome is not Outcome.RESOLVED,
            task=task,
            task_said=said,
            gold=patch_lines(task.gold_patch) if task else [],
            checks=patch_lines(task.test_patch) if task else [],
            tried=steps,
            tried_before=earlier,
            made=made,
            drawn=drawn_for(run, arm_of(cell.name)),
            brought=brought,
            cards={name: self._card(name) for name in (brought, *(one.adapter for one in made)) if name},
            next_failed=next_failed(run, cell.name, among),
            among=_among(among),
            steps=found,
            wanted=wanted,
            others=others,
            tools=TOOL_NAMES,
            guards=[guard.value for guard in Guard],
            patch=patch_lines(patch),
            tests=test_rows(cell.verdict) if cell.verdict else [],
            passed=passed,
            items=memory_items(run) if cell.end and cell.end.memory else {},
            told_nothing=why_nothing(run, cell.end) if cell.end else "",
        )

    def _task(self, run: RunView, name: str) -> tuple[Task | None, str]:
        """A task of a run as its suite has it, and what is to be said of it, or why it is not there."""
        try:
            tasks, said = self.page_context.tasks(run.manifest)
        except BadInput as error:
            return None, str(error)
        found = tasks.get(name)
        return found, said if found is not None else f"The suite has no task {name} any more."

    def _card(self, name: str) -> AdapterRecord | str | None:
        """Of an adapter; None where its folder is gone, and what is wrong with it where it is damaged."""
        try:
            return self.page_context.card_of(name)
        except ValueError as error:
            return str(error)

    def arms(self, request: Request) -> Response:
        run = self.run_of(request)
        plan = run.manifest.plan
        names = [*(arm.name for arm in plan.arms), *run.choice_names]
        base = plan.base.name if plan.base is not None else next(iter(names), "")
        second = request.query_params.get("b") or base
        others = [name for name in names if name != second] or names
        first = request.query_params.get("a") or others[-1]
        try:
            found = arm_pair(run, first, second)
        except BadInput as error:
            raise HTTPException(404, str(error)) from error
        rows = {row[0]: row for row in arm_rows(run)}
        return page(
            request,
            "arms",
            title=f"{first} against {second}",
            run=run,
            names=names,
            arms=(first, second),
            pair=found,
            columns=COLUMNS,
            rows=[rows[name] for name in (first, second)],
            colours=arm_colours(run),
            registered=registered_of(run, first, second),
            scope=scope_line(run),
            unfinished=unfinished_text(run),
        )

    def search(self, request: Request) -> Response:
        run = self.run_of(request)
        text = request.query_params.get("find", "")[:200]
        hits, more = search(run, text) if text else ([], False)
        return page(
            request, "search", title=f"Search in {run.folder.name}", run=run, text=text, hits=hits, more=more
        )

    def text(self, request: Request) -> Response:
        """The whole of one text, as a file: never as something that a browser would run."""
        run = self.run_of(request)
        asked = request.query_params
        cell = cell_of(run, request.path_params["cell"], _number(asked.get("attempt")))
        part, number = asked.get("part", ""), _number(asked.get("step")) or 0
        if cell is None or part not in PARTS:
            raise HTTPException(404, "There is no such text.")
        if part == "patch":
            whole = cell.end.patch if cell.end else ""
        else:
            entry = run.followed().attempts.get((cell.name, cell.attempt))
            places = entry.places[number - 1 : number] if entry and number > 0 else []
            steps = list(some_steps(run.folder, places, -1))
            if not steps:
                raise HTTPException(404, "There is no such step.")
            step = steps[0]
            whole = {
                "said": step.reply.text,
                "thinking": step.reply.thinking,
                "seen": step.observation.text,
            }[part]
        return PlainTextResponse(
            whole.encode("utf-8", "replace"),
            headers={"Content-Disposition": f'attachment; filename="{part}-{number}.txt"'},
        )

    def diff(self, request: Request) -> Response:
        run = self.run_of(request)
        names = [request.query_params.get(side, "") for side in ("a", "b")]
        cells = [cell_of(run, name, None) for name in names]
        left, right = cells
        if left is None or right is None:
            raise HTTPException(404, "Name two cells of this run: ?a=ARM/SEED/TASK&b=ARM/SEED/TASK")
        if task_id_of(names[0]) != task_id_of(names[1]):
            raise HTTPException(422, "These are rollouts at different tasks; name two cells of one task.")
        attempts = run.followed().attempts
        places = [
            entry.places if (entry := attempts.get((cell.name, cell.attempt))) else []
            for cell in (left, right)
        ]
        pairs = aligned(*(list(some_steps(run.folder, each[:DIFF_STEPS], 4 * DIFF_CHARS)) for each in places))
        return page(
            request,
            "diff",
            title=f"{left.name} and {right.name}",
            run=run,
            cells=(left, right),
            pairs=pairs,
            parted=next((at for at, pair in enumerate(pairs) if not pair.same), None),
            not_begun=[
                cell.name
                for cell, each in zip(cells, places, strict=True)
                if cell and not each and not cell.end
            ],
            cut=lambda words: ShownText(words[:DIFF_CHARS], len(words) > DIFF_CHARS),
            wrong=went_wrong,
            target=target,
            action=action_lines,
            lines=ACTION_LINES,
            patches=[patch_lines(cell.end.patch if cell.end else "") for cell in (left, right)],
            same_patch=bool(left.end and right.end and left.end.patch_hash == right.end.patch_hash),
            beyond=max(map(len, places)) > DIFF_STEPS,
            most=DIFF_STEPS,
        )

    def evolution(self, request: Request) -> Response:
        campaign = self.page_context.evolving()
        if campaign is None:
            return page(request, "evolution", title="Evolution", campaign=None)
        state = campaign.state()
        return page(
            request,
            "evolution",
            title=f"Evolution of {campaign.name}",
            campaign=campaign,
            state=state,
            below=grouped((found.parent, found) for found in state.generations.values()),
            budgets=[
                f"{left:.0f} {name}" if name != "usd" else f"{left:.2f} $"
                for name, left in campaign.budget_left().items()
                if left is not None
            ],
            outcome=outcome,
            tested_text=tested_text,
            active=state.active_generation,
        )

    def generation(self, request: Request) -> Response:
        campaign = self.page_context.evolving()
        if campaign is None:
            raise HTTPException(404, "Nothing evolves here.")
        state = campaign.state()
        found = state.generations.get(request.path_params["number"])
        if found is None:
            raise HTTPException(404, "There is no such generation.")
        active = state.active_generation or 0
        return page(
            request,
            "generation",
            title=f"Generation {found.number}: {found.title}",
            campaign=campaign,
            found=found,
            described=described_generation(found),
            outcome=outcome(found),
            tested_text=tested_text,
            contract=campaign.contract(found),
            diff=patch_lines(campaign.diff(found)),
            can_promote=found.phase is Phase.ACCEPTED,
            can_roll_back=found.phase is Phase.PROMOTED and found.number == active,
            active=active,
        )

    def prime(self, request: Request) -> Response:
        why = "Nothing evolves here. Serve a repository: looper serve --repo PATH"
        campaign = self.page_context.evolving()
        if campaign is not None:
            why = campaign.why_no_chat()
        return page(request, "prime", title="Prime", why_not=why, campaign=campaign)

    def doctor(self, request: Request) -> Response:
        return page(request, "doctor", title="Doctor", findings=self.page_context.examine())


def _timed(handler: Handler) -> Handler:
    """Says in its answer how much of the processor it took: who follows a run asks the more seldom the more that is."""

    def timed(request: Request) -> Response:
        begun = time.thread_time()
        answer = handler(request)
        answer.headers["Server-Timing"] = f"cpu;dur={1000 * (time.thread_time() - begun):.1f}"
        return answer

    return timed


def _among(asked: CellQuery) -> str:
    """Which cells the next failed one is looked for among, as the value of a key in an address; empty for all of them."""
    return urlencode({key: value for key in ("arm", "outcome", "find") if (value := getattr(asked, key))})


def _cell_query(asked: Mapping[str, str]) -> CellQuery:
    """What an address asks of the list of cells; what it does not know there is passed over."""
    return CellQuery(
        arm=asked.get("arm", ""),
        outcome=asked.get("outcome", ""),
        find=asked.get("find", "")[:100],
        sort=asked["sort"] if asked.get("sort") in SORTED else "cell",
        descending=asked.get("descending") == "1",
        page=_number(asked.get("page")) or 1,
    )


def _number(text: str | None) -> int | None:
    """A number of steps or pages; None for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def patch_lines(patch: str) -> list[tuple[str, str]]:
    """Kind and text of every line of a patch: add, del, at, file, or empty."""
    found = []
    for line in bare_lines(patch)[:LINES]:
        if line.startswith(("diff ", "+++", "---", "index ", "new file", "deleted file")):
            kind = "file"
        elif line.startswith("@@"):
            kind = "at"
        else:
            kind = {"+": "add", "-": "del"}.get(line[:1], "")
        found.append((kind, line))
    return found
