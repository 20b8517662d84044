"""Who may come in: names that this server answers to, its token, links that log in once, sessions of browsers."""

import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

COOKIE = "looper_session"
LINK_S = 600.0
"""A link that logs in is good for so long, and once."""
SESSION_S = 7 * 86400.0
BYTES = 32
"""Of randomness in the token, a link's code and a session."""


@dataclass
class Authenticator:
    """One server's. Nothing of it is kept: with the process every session ends."""

    origins: frozenset[str]
    """As a browser writes them: http://127.0.0.1:8400."""
    clock: Callable[[], float] = time.monotonic
    token: str = field(default_factory=lambda: secrets.token_urlsafe(BYTES), repr=False)
    """For programs: `Authorization: Bearer`."""
    _codes: dict[str, float] = field(default_factory=dict, repr=False)
    _sessions: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(origin.partition("://")[2] for origin in self.origins)

    def new_code(self) -> str:
        """Of a link that logs in one browser."""
        code = secrets.token_urlsafe(BYTES)
        self._codes[code] = self.clock() + LINK_S
        return code

    def open(self, code: str) -> str | None:
        """The session that a code is exchanged for; None for one that was used, is too old, or never was."""
        until = self._codes.pop(_same(code, self._codes), None)
        if until is None or until < self.clock():
            return None
        session = secrets.token_urlsafe(BYTES)
        self._sessions[session] = self.clock() + SESSION_S
        return session

    def knows_session(self, session: str) -> bool:
        return self._sessions.get(_same(session, self._sessions), 0.0) > self.clock()

    def knows_token(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())


def _same(given: str, known: Iterable[str]) -> str:
    """The known one that equals what was given, found in a time that does not depend on how much of it is right; else empty."""
    found = ""
    for each in list(known):
        if hmac.compare_digest(given.encode(), each.encode()):
            found = each
    return found


def loopback_origins(port: int) -> frozenset[str]:
    return frozenset(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))
