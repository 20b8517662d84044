"""The socket: bound before anything is printed, and closed to whoever begins a request and does not go on."""

import errno
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from looper.errors import BadInput

HEAD_S = 5.0
"""From a connection to its first whole request head, and from one request to the next."""
HEAD_BYTES = 16 * 1024
BACKLOG = 512
TRIED = 50
"""Ports after the one that is taken."""


class RequestHeadTimeout(H11Protocol):
    """Closes a connection whose request head does not arrive. uvicorn's own limit begins after the first answer only."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None:
            self._late.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises BadInput for a port that is taken, naming one that is free, and for an address that is not here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            free = _free(host, port, family)
            raise BadInput(f"Port {port} is in use. Take another one: looper serve --port {free}") from error
        raise BadInput(f"Cannot listen on {host} port {port}: {error.strerror}.") from error
    except OverflowError as error:
        found.close()
        raise BadInput(f"There is no port {port}; take one from 1024 to 65535.") from error
    # From here on nobody is turned away: who comes before the server runs waits for it.
    found.listen(BACKLOG)
    return found


def _free(host: str, port: int, family: socket.AddressFamily) -> int:
    for candidate in range(port + 1, min(port + TRIED, 65_536)):
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            try:
                tried.bind((host, candidate))
            except OSError:
                continue
            return candidate
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.bind((host, 0))
        return int(tried.getsockname()[1])


def server_of(app: ASGIApp) -> uvicorn.Server:
    """Serves with `asyncio.run(server.serve(sockets=[...]))`, until a signal, or `should_exit`, ends it."""
    config = uvicorn.Config(
        app,
        http=RequestHeadTimeout,
        ws="none",
        log_level="warning",
        # A request line may hold the code of a login link.
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(HEAD_S),
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=HEAD_BYTES,
        backlog=BACKLOG,
    )
    return uvicorn.Server(config)
