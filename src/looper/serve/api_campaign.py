"""What programs ask of a campaign, by the names and fields of Loom's Supervisor, Prime and Lab.

`app` mounts its routes. What is decided goes through `audit_log` first, so that it is on record whatever comes of it; answers are
what `CampaignView` says, and refusals come as JSON with a hint.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from looper import __version__
from looper.errors import BadInput
from looper.evolution.contract import parse_contract
from looper.evolution.state import Generation, NotAllowed, State
from looper.records.audit_entry import AuditAction
from looper.records.generation import Origin
from looper.serve.audit_log import AuditLog
from looper.serve.bodies import REFUSALS, Answer, Chat, Decide, Decided, Spawn, Spawned
from looper.serve.evolving import CampaignView
from looper.serve.streams import Event, EventStream, StreamSlots
from looper.serve.watcher import EventBuffer, growing
from looper.views.evolution import described_generation, supervisor_event


@dataclass
class CampaignApi:
    """Of one campaign, or of none: then every answer says how to have one."""

    campaign: Callable[[], CampaignView | None]
    """Asked for each time: it may have begun since."""
    slots: StreamSlots
    audit_log: AuditLog
    begun: float = field(default_factory=time.monotonic)
    told: EventBuffer = field(default_factory=EventBuffer)
    answering: bool = False
    """Whether the prime is answering somebody. Looked at and set on the event loop's own thread."""

    def router(self) -> APIRouter:
        found = APIRouter(responses=REFUSALS)
        found.add_api_route("/stats", self.stats)
        found.add_api_route("/versions", self.versions)
        found.add_api_route("/spawn", self.spawn, methods=["POST"], status_code=202)
        found.add_api_route("/promote", self.promote, methods=["POST"])
        found.add_api_route("/rollback", self.rollback, methods=["POST"])
        found.add_api_route("/lab/status", self.lab)
        found.add_api_route("/prime/stats", self.prime_stats)
        found.add_api_route("/prime/chat", self.chat, methods=["POST"])
        found.add_api_route("/logs", self.logs, include_in_schema=False)
        found.add_api_route("/prime/logs", self.prime_logs, include_in_schema=False)
        return found

    @property
    def evolving(self) -> CampaignView:
        campaign = self.campaign()
        if campaign is None:
            raise HTTPException(404, "Nothing evolves here. Serve a campaign: looper serve --repo PATH")
        return campaign

    def generation(self, number: int) -> Generation:
        one = self.evolving.state().generations.get(number)
        if one is None:
            raise HTTPException(404, f"There is no generation {number}.")
        return one

    @property
    def uptime_ms(self) -> int:
        return round(1000 * (time.monotonic() - self.begun))

    def stats(self) -> dict[str, Any]:
        """How far the campaign is."""
        return {
            **_stats(self.evolving.state()),
            "budgets_left": self.evolving.budget_left(),
            "uptime_ms": self.uptime_ms,
            "version": __version__,
        }

    def versions(self) -> list[dict[str, Any]]:
        """Every generation, with everything that the gates saw."""
        return [described_generation(one) for one in self.evolving.state().generations.values()]

    async def spawn(self, asked: Spawn) -> Spawned:
        """Begin a generation from a contract; a lab works on it in the background."""
        campaign = self.evolving
        try:
            parse_contract(asked.program_md)
        except BadInput as error:
            raise HTTPException(422, str(error)) from error
        source, request = Origin(asked.source), asked.request or os.urandom(8).hex()
        one = await asyncio.to_thread(
            self.audit_log.do,
            AuditAction.SPAWN,
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

    async def promote(self, asked: Decide) -> Decided:
        """Make a generation that every gate has passed the one that works."""
        campaign, seen = self.evolving, asked.candidate_hash
        return await self._decide(
            AuditAction.PROMOTE, asked, lambda one: campaign.promote(one.number, one.candidate_hash), seen
        )

    async def rollback(self, asked: Decide) -> Decided:
        """Let the version before the one that works be the one that works again."""
        campaign, seen = self.evolving, asked.candidate_hash
        return await self._decide(
            AuditAction.ROLL_BACK, asked, lambda one: campaign.roll_back(one.number), seen
        )

    async def _decide(
        self, kind: AuditAction, asked: Decide, work: Callable[[Generation], Generation], seen: str
    ) -> Decided:
        one = await asyncio.to_thread(self.generation, asked.generation)
        if not one.candidate_hash or not one.candidate_hash.startswith(seen):
            raise HTTPException(
                409, f"Generation {one.number} is not {seen[:12]} any more. Look at it again."
            )
        done = await asyncio.to_thread(
            self.audit_log.do,
            kind,
            str(one.number),
            seen,
            lambda: work(one),
            lambda done: f"{done.phase.value} {done.evidence}".strip(),
        )
        promoted = self.evolving.state().promotions.get(done.number)
        return Decided(
            generation=done.number,
            status=done.phase.value,
            commit=promoted.commit if promoted else "",
            evidence=done.evidence,
        )

    def lab(self, generation: Annotated[int, Query(gt=0, lt=10**9)]) -> dict[str, Any]:
        """How far the work on one generation is."""
        return vars(self.evolving.lab(self.generation(generation)))

    async def logs(self, request: Request) -> Response:
        campaign = self.evolving

        def read() -> list[Event]:
            return [
                (str(number), *supervisor_event(event)) for number, event in enumerate(campaign.events(), 1)
            ]

        return self._streamed(growing(read, _last_seen(request)))

    async def prime_logs(self, request: Request) -> Response:
        assert self.evolving
        return self._streamed(self.told.since(_last_seen(request)))

    def _streamed(self, events: AsyncIterator[Event]) -> Response:
        if not self.slots.take():
            raise HTTPException(503, "Enough pages follow this server already. Close one of them.")
        return EventStream(self.slots, events)

    def prime_stats(self) -> dict[str, Any]:
        """Whether the prime is answering somebody, and how much was said."""
        return {
            "status": "working" if self.answering else "idle",
            "uptime_ms": self.uptime_ms,
            **self.evolving.chat_stats(),
            "version": __version__,
        }

    async def chat(self, asked: Chat) -> Answer:
        """Say something to the prime, and wait for the end of its turn. One message at a time."""
        campaign = self.evolving
        if self.answering:
            raise HTTPException(409, "The prime is answering another question. Wait for its answer.")
        self.answering = True
        loop = asyncio.get_running_loop()

        def tell(name: str, data: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(self.told.tell, name, data)

        try:
            if why := await asyncio.to_thread(campaign.why_no_chat):
                raise NotAllowed(why)
            said = await asyncio.to_thread(campaign.chat, asked.message, tell)
        except Exception as error:
            tell("error", {"message": str(error)})
            raise
        finally:
            self.answering = False
        return Answer(status="completed", response=said)


def _stats(state: State) -> dict[str, Any]:
    working = any(not one.phase.over and not one.phase.decided for one in state.generations.values())
    return {
        "status": "stopped" if state.stopped else "working" if working else "idle",
        "current_generation": max(state.generations, default=0),
        "total_generations": len(state.generations),
        "decided": state.decided,
        "active_version": state.active,
        "active_generation": state.active_generation,
        "tokens": {role.value: count for role, count in state.tokens.items()},
        "calls": state.calls,
        "cost_usd": state.cost_usd,
        "stop_reason": state.stopped,
    }


def _last_seen(request: Request) -> int:
    """Number of the event that somebody who comes back has seen last."""
    text = request.headers.get("last-event-id", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
