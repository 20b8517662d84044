"""The forms that an answer has: JSON, a refusal for programs, a refusal for people."""

import hashlib
import json
from functools import cache
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from looper.errors import BadInput
from looper.views.live import Projection
from looper.views.runs import RunView
from looper.views.web.templating import static_file, template


def as_json(value: Any, status: int = 200) -> Response:
    # ASCII keeps lone surrogates, which models do say, as escapes.
    return Response(json.dumps(value), status, media_type="application/json")


def refused(scope: Scope, status: int, kind: str, message: str, hint: str = "") -> Response:
    """For a browser a page, for everything else JSON; both say what is wrong and what helps."""
    if "text/html" in Headers(scope=scope).get("accept", ""):
        return HTMLResponse(
            _rendered(
                "refused",
                status=status,
                message=message,
                hint=hint,
                title=message,
                path="",
                bare=status in (401, 403),
            ),
            status,
        )
    return as_json({"error": {"kind": kind, "message": message, "hint": hint}}, status)


def known_run(projection: Projection, name: str) -> RunView:
    """A run as it is now. Raises HTTPException where there is none of that name, or it cannot be read."""
    try:
        run = projection.run(name)
    except BadInput as error:
        raise HTTPException(409, str(error)) from error
    if run is None:
        raise HTTPException(404, "There is no such run.")
    return run


def page(request: Request, name: str, **values: Any) -> Response:
    text = _rendered(name, path=request.url.path, query=dict(request.query_params), bare=False, **values)
    return HTMLResponse(text.encode("utf-8", "replace"))


def _rendered(name: str, **values: Any) -> str:
    return template(name).render(static=static_address, **values)


@cache
def static_address(name: str) -> str:
    """Of a file that pages load, with the hash of what is in it: browsers keep it, and ask for another one when it changes."""
    return f"/static/{name}?v={hashlib.sha256(static_file(name)).hexdigest()[:12]}"
