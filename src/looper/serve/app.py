"""The application: pages for people and answers for programs, behind one guard."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from looper import __version__
from looper.errors import BadInput, LooperError, ModelError, RunBusy
from looper.evolution.state import NotAllowed
from looper.serve.answers import refused, static_address
from looper.serve.api_campaign import CampaignApi
from looper.serve.api_runs import RunsApi
from looper.serve.audit_log import AuditLog
from looper.serve.guard import RequestGuard
from looper.serve.pages import PageContext, Pages
from looper.serve.streams import StreamSlots
from looper.serve.watcher import Watcher

KINDS = {401: "login", 404: "not_found", 405: "method", 409: "conflict", 422: "invalid", 503: "busy"}
YEAR_S = 31_536_000
SMALL_BYTES = 1024
"""What is shorter is sent as it is."""
HINTS = {404: "See what there is on the first page.", 401: "Get another link: looper serve --link"}


class KeptFiles(StaticFiles):
    """Files that a browser keeps for as long as their address, which has the hash of what is in them, is the same."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        version = QueryParams(scope["query_string"]).get("v")
        if answer.status_code == 200 and f"/static/{path}?v={version}" == static_address(path):
            answer.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
        return answer


def application(page_context: PageContext, audit_log: AuditLog) -> ASGIApp:
    app = FastAPI(
        title="Looper",
        version=__version__,
        summary="Runs, trajectories and evolution, as they are right now.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    slots = StreamSlots()
    watcher = Watcher(page_context.projection)
    app.include_router(
        RunsApi(page_context.projection, watcher, slots, audit_log, page_context.auth).router()
    )
    app.include_router(CampaignApi(page_context.evolving, slots, audit_log).router())
    app.router.routes.extend(Pages(page_context).routes())
    app.mount("/static", KeptFiles(packages=[("looper.views.web", "static")]), name="static")
    # No answer holds a secret of ours beside what somebody else may choose, so its length tells nothing.
    app.add_middleware(GZipMiddleware, minimum_size=SMALL_BYTES, compresslevel=6)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(LooperError, _looper)
    app.add_exception_handler(Exception, _broken)
    return RequestGuard(app, page_context.auth)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = error.detail if error.detail != "Not Found" else "There is no such page."
    kind = KINDS.get(error.status_code, "refused")
    return refused(request.scope, error.status_code, kind, said, HINTS.get(error.status_code, ""))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return refused(request.scope, 400, "json", "The body is no JSON.", "Send one JSON object.")
    where = ".".join(str(part) for part in first["loc"])
    return refused(
        request.scope, 422, "invalid", f"{where}: {first['msg']}", "See /openapi.json for what is expected."
    )


def _looper(request: Request, error: Exception) -> Response:
    """Errors that name cause and fix, with the status that fits."""
    if isinstance(error, NotAllowed | RunBusy):
        status, kind = 409, "conflict"
    elif isinstance(error, BadInput):
        status, kind = 422, "invalid"
    elif isinstance(error, ModelError):
        status, kind = 502, "model"
    else:
        status, kind = 503, "unavailable"
    return refused(request.scope, status, kind, str(error))


def _broken(request: Request, error: Exception) -> Response:
    return refused(request.scope, 500, "internal", f"Looper itself failed here: {type(error).__name__}.")
