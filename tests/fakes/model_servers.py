"""Model servers on loopback that say what a test wrote down, over the wires of Anthropic and Ollama, faults included."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "written"


@dataclass(frozen=True)
class Fault:
    """An answer that is none."""

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Slow:
    """An answer that takes its time."""

    seconds: float
    text: str


Answer = str | Fault | Slow | Callable[[str], "str | Fault | Slow"]
"""A callable is given all that was said to the model."""


class WrittenModel:
    """Gives its answers one after the other, the last one ever after. Speaks both wires at once."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        """What each call said to the model."""
        self.keys: list[str] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, said: str, key: str) -> str | Fault | Slow:
        with self._lock:
            found = self.answers[min(len(self.asked), len(self.answers) - 1)]
            self.asked.append(said)
            self.keys.append(key)
        return found(said) if callable(found) else found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    of: WrittenModel

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self._whole(200, {"version": "0.0.0"})
        elif self.path == "/api/tags":
            self._whole(200, {"models": [{"name": MODEL, "model": MODEL, "digest": "0" * 64, "size": 1}]})
        elif self.path == f"/v1/models/{MODEL}":
            self._whole(200, {"id": MODEL, "created_at": "2026-01-01"})
        else:
            self._whole(404, {"error": {"type": "not_found_error", "message": "no such model"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = "\n".join(str(turn["content"]) for turn in body["messages"]) + str(body.get("system", ""))
        found = self.of.answer(said, self.headers.get("x-api-key", ""))
        if isinstance(found, Slow):
            time.sleep(found.seconds)
            found = found.text
        if isinstance(found, Fault):
            anthropic = self.path.startswith("/v1")
            error: Any = {"type": "error", "message": found.message} if anthropic else found.message
            self._whole(found.status, {"error": error}, found.headers)
        elif self.path == "/v1/messages":
            self._anthropic(found, len(said) // 3)
        else:
            self._ollama(found, len(said) // 3)

    def _anthropic(self, text: str, prompt: int) -> None:
        self._begin("text/event-stream")
        for event in (
            {"type": "message_start", "message": {"usage": {"input_tokens": prompt}}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": len(text) // 3},
            },
            {"type": "message_stop"},
        ):
            self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _ollama(self, text: str, prompt: int) -> None:
        self._begin("application/x-ndjson")
        message = {"role": "assistant", "content": text}
        self._chunk(json.dumps({"model": MODEL, "message": message, "done": False}).encode() + b"\n")
        last = {"model": MODEL, "message": {"role": "assistant", "content": ""}, "done": True}
        usage = {"done_reason": "stop", "prompt_eval_count": prompt, "eval_count": len(text) // 3}
        self._chunk(json.dumps({**last, **usage}).encode() + b"\n")
        self.wfile.write(b"0\r\n\r\n")

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, line: bytes) -> None:
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def _whole(self, status: int, data: object, headers: Sequence[tuple[str, str]] = ()) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            *headers,
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
