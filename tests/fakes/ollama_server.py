"""An Ollama server on loopback that answers with a real model: the embedded one, or any other ChatModel."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from looper.protocols import ChatModel, ChatRequest


class FakeOllama:
    """Speaks /api/chat (streamed), /api/tags, /api/show and /api/version as Ollama does, error cases included."""

    def __init__(self, name: str, model: ChatModel, port: int = 0) -> None:
        handler = type("Handler", (_Handler,), {"model_name": name, "model": model})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model_name: str
    model: ChatModel

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self._whole(200, {"version": "0.0.0-fake"})
        elif self.path == "/api/tags":
            details = {
                "format": "safetensors",
                "family": "llama",
                "parameter_size": "0.8M",
                "quantization_level": "F32",
            }
            digest = hashlib.sha256(self.model_name.encode()).hexdigest()
            entry = {
                "name": self.model_name,
                "model": self.model_name,
                "digest": digest,
                "size": 1,
                "details": details,
            }
            self._whole(200, {"models": [entry]})
        else:
            self._whole(404, {"error": "not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("model") not in (self.model_name, self.model_name.removesuffix(":latest")):
            self._whole(404, {"error": f'model "{body.get("model")}" not found, try pulling it first'})
        elif self.path == "/api/chat":
            self._chat(body)
        else:
            self._whole(200, {"model_info": {"llama.context_length": 4096}, "details": {}})

    def _chat(self, body: dict[str, Any]) -> None:
        options = body.get("options", {})
        messages = tuple((turn["role"], turn["content"]) for turn in body["messages"])
        reply = self.model.reply(
            ChatRequest(
                conversation=hashlib.sha256(repr(messages[:2]).encode()).hexdigest(),
                messages=messages,
                max_output_tokens=options.get("num_predict", 128),
                context_tokens=options.get("num_ctx", 4096),
                temperature=options.get("temperature", 0.8),
                seed=options.get("seed", 0),
                timeout_s=60,
            )
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(reply.text), 7):
            message = {"role": "assistant", "content": reply.text[at : at + 7]}
            self._chunk({"model": self.model_name, "message": message, "done": False})
        last = {"model": self.model_name, "message": {"role": "assistant", "content": ""}, "done": True}
        usage = {"prompt_eval_count": reply.usage.prompt_tokens, "eval_count": reply.usage.completion_tokens}
        self._chunk({**last, "done_reason": reply.finish_reason.value, **usage})
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: dict[str, Any]) -> None:
        line = json.dumps(data).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def _whole(self, status: int, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
