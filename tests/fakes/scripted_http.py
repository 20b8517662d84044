"""An HTTP server whose every answer is a list of moves: send these bytes, wait, reset, close."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Self

Move = bytes | float | str
"""Bytes to send, seconds to wait, or `reset` / `close` / `hang`."""
Answer = Sequence[Move] | Callable[[bytes], Iterable[Move]]


class ScriptedServer:
    """Gives its answers one connection after the other, the last one ever after. Raw sockets: faults stay faults."""

    def __init__(self, *answers: Answer, port: int = 0) -> None:
        self._answers, self.requests = list(answers), []  # type: ignore[var-annotated]
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(32)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """A thread left waiting would, once anything interrupts it, take connections of whichever socket has the number by then."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._stopped.is_set():
                connection.close()
            else:
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            request = self._read(connection)
            if not request:
                return
            answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self.requests.append(request)
            for move in answer(request) if callable(answer) else answer:
                if isinstance(move, bytes):
                    try:
                        connection.sendall(move)
                    except OSError:
                        return
                elif isinstance(move, float):
                    self._stopped.wait(move)
                elif move == "reset":
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return
                elif move == "hang":
                    self._stopped.wait(60)
                elif move == "close":
                    return

    def _read(self, connection: socket.socket) -> bytes:
        data = b""
        connection.settimeout(10)
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return data
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body


def whole(status: int, body: bytes, *headers: str) -> list[Move]:
    """A complete answer with a length."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
        *headers,
    ]
    return ["\r\n".join([*lines, "Connection: close", "", ""]).encode() + body]


def stream_head(kind: str = "application/x-ndjson") -> bytes:
    """The head of an answer that streams in chunks."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait(seconds: float) -> None:
    time.sleep(seconds)
