"""What programs ask: JSON both ways, every answer described in /openapi.json. Names and fields follow Loom's servers."""

import asyncio
import os
import signal
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from looper import __version__
from looper.errors import BadInput
from looper.evolution.contract import parse_contract
from looper.evolution.state import Generation, NotAllowed, State
from looper.records.deed import DeedKind
from looper.records.generation import Source
from looper.serve.deeds import Deeds
from looper.serve.evolving import Evolving
from looper.serve.pages import Sight
from looper.serve.streams import Event, EventStream, Slots
from looper.serve.watcher import Told, Watcher, growing
from looper.views.board import curves
from looper.views.evolution import described_generation, supervisor_event
from looper.views.runs import RunView

Number = Annotated[int, Field(gt=0, lt=10**9)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{6,64}$")]
RunName = Annotated[str, Path(description="Name of a run folder.")]


class Asked(BaseModel):
    """A body. What it does not know it refuses."""

    model_config = ConfigDict(extra="forbid")


class Spawn(Asked):
    """A contract to be carried out."""

    program_md: Annotated[str, Field(min_length=1, max_length=60_000)]
    parent_generation: Annotated[int, Field(ge=0, lt=10**9)] | None = None
    source: Literal["cli", "user"] = "cli"
    request: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Asking twice with the same is asking once."""


class Decide(Asked):
    """A generation, and the hash of what was looked at."""

    generation: Number
    candidate_hash: Hash


class Halt(Asked):
    """The hash of the run that is meant."""

    run_hash: Hash


class Chat(Asked):
    """A message to the prime."""

    message: Annotated[str, Field(min_length=1, max_length=20_000)]


class Fault(BaseModel):
    """What is wrong, and what helps."""

    kind: str
    message: str
    hint: str


class Refusal(BaseModel):
    """Every answer that is no success."""

    error: Fault


class Spawned(BaseModel):
    """A generation that has begun."""

    generation: int
    branch: str
    lab: str
    status: Literal["spawned"]


class Decided(BaseModel):
    """What became of a decision."""

    generation: int
    status: str
    commit: str
    evidence: str


class Halted(BaseModel):
    """A run that was told to stop."""

    run: str
    status: Literal["stopping"]
    goes_on_with: str


class Answer(BaseModel):
    """What the prime said at the end of its turn."""

    status: Literal["completed"]
    response: str


class Login(BaseModel):
    """A link that logs in one browser, once."""

    link: str


STATUSES = (400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 422, 502, 503)
REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in STATUSES}


def router(sight: Sight, watcher: Watcher, slots: Slots, deeds: Deeds, begun: float) -> APIRouter:
    """Handlers that touch a disk are plain functions, and run in threads."""
    found = APIRouter(responses=REFUSALS)
    told = Told()
    working = asyncio.Event()

    def evolving() -> Evolving:
        if sight.evolving is None:
            raise HTTPException(404, "Nothing evolves here. Serve a campaign: looper serve --repo PATH")
        return sight.evolving

    def generation(number: int) -> Generation:
        one = evolving().state().generations.get(number)
        if one is None:
            raise HTTPException(404, f"There is no generation {number}.")
        return one

    def run_of(name: str) -> RunView:
        try:
            run = sight.projection.run(name)
        except BadInput as error:
            raise HTTPException(409, str(error)) from error
        if run is None:
            raise HTTPException(404, "There is no such run.")
        return run

    def streamed(events: Any) -> Response:
        if not slots.take():
            raise HTTPException(503, "Enough pages follow this server already. Close one of them.")
        return EventStream(slots, events)

    @found.get("/status")
    def status() -> dict[str, Any]:
        """Every run, as `looper status --json` says it."""
        return sight.projection.status()

    @found.get("/runs/{run}/status")
    def run_status(run: RunName) -> dict[str, Any]:
        """One run."""
        return sight.projection.described(run_of(run))

    @found.get("/runs/{run}/curves.json")
    def run_curves(run: RunName) -> dict[str, Any]:
        """Share resolved over the sequence of tasks, by arm, and the losses of each training."""
        return curves(run_of(run))

    @found.get("/events", include_in_schema=False)
    async def events() -> Response:
        return streamed(watcher.listen())

    @found.get("/stats")
    def stats() -> dict[str, Any]:
        """How far the campaign is."""
        campaign = evolving()
        return {
            **_stats(campaign.state()),
            "budgets_left": campaign.budget_left(),
            "uptime_ms": round(1000 * (time.monotonic() - begun)),
            "version": __version__,
        }

    @found.get("/versions")
    def versions() -> list[dict[str, Any]]:
        """Every generation, with everything that the gates saw."""
        return [described_generation(one) for one in evolving().state().generations.values()]

    @found.get("/logs", include_in_schema=False)
    async def logs(request: Request) -> Response:
        campaign = evolving()

        def read() -> list[Event]:
            return [
                (str(number), *supervisor_event(event)) for number, event in enumerate(campaign.events(), 1)
            ]

        return streamed(growing(read, last_seen(request)))

    @found.post("/spawn", status_code=202)
    async def spawn(asked: Spawn) -> Spawned:
        """Begin a generation from a contract; a lab works on it in the background."""
        campaign = evolving()
        try:
            parse_contract(asked.program_md)
        except BadInput as error:
            raise HTTPException(422, str(error)) from error
        source, request = Source(asked.source), asked.request or os.urandom(8).hex()
        one = await deeds.do(
            DeedKind.SPAWN,
            request,
            "",
            lambda: campaign.spawn(asked.program_md, asked.parent_generation, source, request),
            lambda one: f"generation {one.number}",
        )
        return Spawned(
            generation=one.number,
            branch=f"evolve/gen-{one.number}",
            lab=f"gen-{one.number}",
            status="spawned",
        )

    @found.post("/promote")
    async def promote(asked: Decide) -> Decided:
        """Make a generation that every gate has passed the one that works."""
        campaign = evolving()
        one = generation(asked.generation)
        exactly(one, asked.candidate_hash)
        return decided(
            await deeds.do(
                DeedKind.PROMOTE,
                str(one.number),
                asked.candidate_hash,
                lambda: campaign.promote(one.number, one.candidate_hash),
                lambda done: f"{done.phase.value} {done.evidence}".strip(),
            ),
            campaign.state(),
        )

    @found.post("/rollback")
    async def rollback(asked: Decide) -> Decided:
        """Let the version before the one that works be the one that works again."""
        campaign = evolving()
        one = generation(asked.generation)
        exactly(one, asked.candidate_hash)
        return decided(
            await deeds.do(
                DeedKind.ROLL_BACK,
                str(one.number),
                asked.candidate_hash,
                lambda: campaign.roll_back(one.number),
                lambda done: f"{done.phase.value} {done.evidence}".strip(),
            ),
            campaign.state(),
        )

    @found.get("/lab/status")
    def lab(generation_: Annotated[int, Query(alias="generation", gt=0, lt=10**9)]) -> dict[str, Any]:
        """How far the work on one generation is."""
        return vars(evolving().lab(generation(generation_)))

    @found.get("/prime/stats")
    def prime_stats() -> dict[str, Any]:
        """Whether the prime is answering somebody, and how much was said."""
        return {
            "status": "working" if working.is_set() else "idle",
            "uptime_ms": round(1000 * (time.monotonic() - begun)),
            **evolving().chat_stats(),
            "version": __version__,
        }

    @found.get("/prime/logs", include_in_schema=False)
    async def prime_logs(request: Request) -> Response:
        evolving()
        return streamed(told.since(last_seen(request)))

    @found.post("/prime/chat")
    async def chat(asked: Chat) -> Answer:
        """Say something to the prime, and wait for the end of its turn. One message at a time."""
        campaign = evolving()
        if why := await asyncio.to_thread(campaign.why_no_chat):
            raise NotAllowed(why)
        if working.is_set():
            raise HTTPException(409, "The prime is answering somebody. Wait for its answer.")
        loop = asyncio.get_running_loop()

        def tell(name: str, data: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(told.tell, name, data)

        working.set()
        try:
            said = await asyncio.to_thread(campaign.chat, asked.message, tell)
        except Exception as error:
            tell("error", {"message": str(error)})
            raise
        finally:
            working.clear()
        return Answer(status="completed", response=said)

    async def halt(name: str, asked: Halt, kind: DeedKind, signals: int) -> Halted:
        run = await asyncio.to_thread(run_of, name)
        if run.manifest.run_hash() != asked.run_hash:
            raise HTTPException(409, "This is another run than the one that was looked at.")
        writer = run.writer
        if not writer:
            raise HTTPException(409, "Nobody is at this run.")
        plan = run.manifest.plan

        def work() -> None:
            for _ in range(signals):
                os.kill(writer, signal.SIGTERM)
                time.sleep(0.2)

        await deeds.do(kind, name, asked.run_hash, work, lambda _: f"process {writer} was told")
        return Halted(
            run=name,
            status="stopping",
            goes_on_with=f"looper run {plan.experiment} --profile {plan.profile}",
        )

    @found.post("/runs/{run}/pause")
    async def pause(run: RunName, asked: Halt) -> Halted:
        """Let a run end in order; its command goes on where it stopped."""
        return await halt(run, asked, DeedKind.PAUSE, 1)

    @found.post("/runs/{run}/cancel")
    async def cancel(run: RunName, asked: Halt) -> Halted:
        """End a run at once; what was being worked on is done again if somebody goes on."""
        return await halt(run, asked, DeedKind.CANCEL, 2)

    @found.post("/codes", status_code=201)
    def codes(request: Request, asked: Annotated[Asked, Body()]) -> Login:
        """Another link that logs in, for another device."""
        return Login(
            link=f"{request.url.scheme}://{request.headers['host']}/login?code={sight.door.new_code()}"
        )

    return found


def exactly(one: Generation, seen: str) -> None:
    """That what was looked at is what is there."""
    if not one.candidate_hash or not one.candidate_hash.startswith(seen):
        raise HTTPException(409, f"Generation {one.number} is not {seen[:12]} any more. Look at it again.")


def decided(one: Generation, state: State) -> Decided:
    done = state.promotions.get(one.number)
    return Decided(
        generation=one.number,
        status=one.phase.value,
        commit=done.commit if done else "",
        evidence=one.evidence,
    )


def _stats(state: State) -> dict[str, Any]:
    return {
        "status": "stopped" if state.stopped else "working" if _open(state) else "idle",
        "current_generation": max(state.generations, default=0),
        "total_generations": len(state.generations),
        "decided": state.decided,
        "active_version": state.active,
        "active_generation": state.versions[-1].generation if state.versions else None,
        "tokens": {role.value: count for role, count in state.tokens.items()},
        "calls": state.calls,
        "cost_usd": state.cost_usd,
        "stop_reason": state.stopped,
    }


def _open(state: State) -> bool:
    return any(not one.phase.over and not one.phase.decided for one in state.generations.values())


def last_seen(request: Request) -> int:
    """Number of the event that somebody who comes back has seen last."""
    text = request.headers.get("last-event-id", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
