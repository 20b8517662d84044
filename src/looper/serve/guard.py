"""What every request passes before anything looks at it, and what every answer carries.

`app` puts it around everything: names of hosts and origins, sizes, who is logged in, and the headers of every answer. A request that
is refused here has reached nothing.
"""

import asyncio
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from looper.serve.answers import refused
from looper.serve.authenticator import COOKIE, Authenticator

BODY_BYTES = 64 * 1024
BODY_S = 5.0
"""A request has to be here whole after so long."""
OPEN_PATHS = ("/login", "/static/")
"""That nobody has to be logged in for: they say nothing about any run."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
READS = ("GET", "HEAD")


class RequestGuard:
    """Around the whole application."""

    def __init__(self, app: ASGIApp, auth: Authenticator) -> None:
        self.app, self.auth = app, auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope)
        if answer is None and scope["method"] not in READS:
            body = await _whole(receive, int(Headers(scope=scope)["content-length"]))
            if body is None:
                answer = refused(
                    scope, 408, "timeout", f"The request was not here whole after {BODY_S:.0f} s."
                )
            else:
                receive = _again(body, receive)
        if answer is not None and scope["method"] not in READS:
            # What was sent and not read must not be taken for the next request.
            answer.headers["Connection"] = "close"
        await (answer or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """None where a request may be looked at."""
        headers, path, reads = Headers(scope=scope), scope["path"], scope["method"] in READS
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.auth.hosts:
            return refused(
                scope,
                403,
                "host",
                "This server answers to its own name only.",
                "Use the address that it printed.",
            )
        login = path == "/login" and reads
        origins, site = headers.getlist("origin"), headers.get("sec-fetch-site", "none")
        if any(origin not in self.auth.origins for origin in origins) or len(origins) > 1:
            return refused(scope, 403, "origin", "The request comes from another site.")
        if site not in ("none", "same-origin") and not login:
            return refused(scope, 403, "origin", "The request comes from another site.")
        if not reads and (answer := _body_refusal(scope, headers)) is not None:
            return answer
        if path in OPEN_PATHS or path.startswith(OPEN_PATHS[1]):
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            known = self.auth.knows_token(token.strip())
        else:
            # A cookie comes along by itself, so what it asks for must be seen to come from our own page.
            known = (reads or bool(origins)) and any(map(self.auth.knows_session, sessions_of(headers)))
        if known:
            return None
        return refused(
            scope,
            401,
            "login",
            "No browser is logged in.",
            "Open the link that looper serve printed, or get another one: looper serve --link",
        )


def _body_refusal(scope: Scope, headers: Headers) -> Response | None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return refused(scope, 415, "content_type", "Send application/json.")
    length = headers.get("content-length", "")
    if not length.isascii() or not length.isdigit() or "transfer-encoding" in headers:
        return refused(scope, 411, "length", "Say how long the body is: Content-Length.")
    if len(length) > 9 or int(length) > BODY_BYTES:
        return refused(scope, 413, "too_large", f"A body may have {BODY_BYTES} bytes.")
    return None


def sessions_of(headers: Headers) -> Iterable[str]:
    """What a browser shows as its session, known or not; several where cookies of several paths came along."""
    for line in headers.getlist("cookie"):
        try:
            found = SimpleCookie(line).get(COOKIE)
        except CookieError:
            continue
        if found is not None:
            yield found.value


async def _whole(receive: Receive, length: int) -> bytes | None:
    """None where it takes too long, or whoever sent it is gone."""
    body = b""
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += bytes(message.get("body", b""))
                if not message.get("more_body", False) or len(body) > length:
                    return body
    except TimeoutError:
        return None


def _again(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
