"""What programs ask of runs: how far they are, as it happens, and to stop one."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from looper.errors import BadInput
from looper.records.audit_entry import AuditAction
from looper.serve.answers import known_run
from looper.serve.audit_log import AuditLog
from looper.serve.authenticator import Authenticator
from looper.serve.bodies import REFUSALS, Halt, Halted, Login, RequestBody, RunName
from looper.serve.streams import EventStream, StreamSlots
from looper.serve.watcher import Watcher
from looper.views.board import curves
from looper.views.live import Projection, resume_command

SECOND_SIGNAL_S = 0.2


@dataclass(frozen=True)
class RunsApi:
    """Handlers that touch a disk are plain functions, and run in threads."""

    projection: Projection
    watcher: Watcher
    slots: StreamSlots
    audit_log: AuditLog
    auth: Authenticator

    def router(self) -> APIRouter:
        found = APIRouter(responses=REFUSALS)
        found.add_api_route("/status", self.status)
        found.add_api_route("/runs/{run}/status", self.run_status)
        found.add_api_route("/runs/{run}/curves.json", self.run_curves)
        found.add_api_route("/runs/{run}/pause", self.pause, methods=["POST"])
        found.add_api_route("/runs/{run}/cancel", self.cancel, methods=["POST"])
        found.add_api_route("/codes", self.codes, methods=["POST"], status_code=201)
        found.add_api_route("/events", self.events, include_in_schema=False)
        return found

    def status(self) -> dict[str, Any]:
        """Every run, as `looper status --json` says it."""
        return self.projection.status()

    def run_status(self, run: RunName) -> dict[str, Any]:
        """One run."""
        return self.projection.described(known_run(self.projection, run))

    def run_curves(self, run: RunName) -> dict[str, Any]:
        """Share resolved over the sequence of tasks, by arm, and the losses of each training."""
        return curves(known_run(self.projection, run))

    async def events(self) -> Response:
        if not self.slots.take():
            raise HTTPException(503, "Enough pages follow this server already. Close one of them.")
        return EventStream(self.slots, self.watcher.listen())

    async def pause(self, run: RunName, asked: Halt) -> Halted:
        """Let a run end in order; its command goes on where it stopped."""
        return await self._halt(run, asked, AuditAction.PAUSE, signals=1)

    async def cancel(self, run: RunName, asked: Halt) -> Halted:
        """End a run at once; what was being worked on is done again when the run goes on."""
        return await self._halt(run, asked, AuditAction.CANCEL, signals=2)

    async def _halt(self, name: str, asked: Halt, kind: AuditAction, signals: int) -> Halted:
        run = await asyncio.to_thread(known_run, self.projection, name)
        if run.manifest.run_hash() != asked.run_hash:
            raise HTTPException(409, "This is another run than the one that was looked at.")
        writer = run.writer
        if not writer:
            raise HTTPException(409, "This run is not running.")

        def work() -> None:
            for number in range(signals):
                if number:
                    time.sleep(SECOND_SIGNAL_S)
                try:
                    os.kill(writer, signal.SIGTERM)
                except ProcessLookupError:
                    return  # It has ended by itself, or by the first signal.
                except PermissionError as error:
                    raise BadInput(f"Process {writer} is another user's; ask them to stop it.") from error

        await asyncio.to_thread(
            self.audit_log.do, kind, name, asked.run_hash, work, lambda _: f"process {writer} was told"
        )
        return Halted(run=name, status="stopping", goes_on_with=resume_command(run))

    def codes(self, request: Request, asked: Annotated[RequestBody, Body()]) -> Login:
        """Another link that logs in, for another device."""
        host = request.headers["host"]
        return Login(link=f"{request.url.scheme}://{host}/login?code={self.auth.new_code()}")
