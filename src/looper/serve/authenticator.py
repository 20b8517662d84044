"""Who may come in: names that this server answers to, its token, links that log in once, sessions of browsers."""

import hashlib
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
    """One server's. Its token and its links end with the process; sessions of browsers outlive it where `keep` keeps them."""

    origins: frozenset[str]
    """As a browser writes them: http://127.0.0.1:8400."""
    clock: Callable[[], float] = time.monotonic
    """Seconds. Where sessions are kept, of a clock that goes on from one process to the next."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(BYTES), repr=False)
    """For programs: `Authorization: Bearer`."""
    sessions: dict[str, float] = field(default_factory=dict, repr=False)
    """SHA-256 of each, and until when it is good: who reads this can log in with none of them."""
    keep: Callable[[dict[str, float]], None] = lambda sessions: None
    """Told of all sessions whenever one is opened."""
    _codes: dict[str, float] = field(default_factory=dict, repr=False)

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
        now = self.clock()
        self.sessions = {key: end for key, end in self.sessions.items() if end > now}
        self.sessions[_hash(session)] = now + SESSION_S
        self.keep(self.sessions)
        return session

    def knows_session(self, session: str) -> bool:
        return self.sessions.get(_hash(session), 0.0) > self.clock()

    def knows_token(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())


def _hash(session: str) -> str:
    """What a session is looked up by; how long that takes says nothing about the session."""
    return hashlib.sha256(session.encode()).hexdigest()


def _same(given: str, known: Iterable[str]) -> str:
    """The known one that equals what was given, found in a time that does not depend on how much of it is right; else empty."""
    found = ""
    for each in list(known):
        if hmac.compare_digest(given.encode(), each.encode()):
            found = each
    return found


def loopback_origins(port: int) -> frozenset[str]:
    return frozenset(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))
