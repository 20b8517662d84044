"""A model server of the chat-completions API by what it gives at each path, clocks and all."""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.fakes.scripted_http import LAST_CHUNK, Move, chunk, stream_head, whole

CLOCK = itertools.count(1_795_967_313)
"""What vLLM, llama.cpp's server and mlx_lm.server give as `created`: never the same twice."""


def routes(given: Mapping[str, Any]) -> Callable[[bytes], Iterable[Move]]:
    """Paths, and what is there: an object, the moves of an answer, or a function that gives either."""

    def answer(request: bytes) -> Iterable[Move]:
        found = given.get(request.split(b" ")[1].decode(), whole(404, b'{"error":{"message":"Not Found"}}'))
        found = found() if callable(found) else found
        is_answer = isinstance(found, list) and bool(found) and isinstance(found[0], bytes)
        return found if is_answer else whole(200, json.dumps(found).encode())

    return answer


def listed(**entry: Any) -> Callable[[], Any]:
    """A list with one model, made at the time of the request."""
    return lambda: {"object": "list", "data": [{"object": "model", "created": next(CLOCK), **entry}]}


def said(text: str, request: bytes) -> list[Move]:
    """Streams a text as the answer to a request, whose tokens are counted."""
    events = (
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": len(request) // 3, "completion_tokens": 5}},
    )
    sent = [chunk(b"data: " + json.dumps(event).encode() + b"\n\n") for event in events]
    return [stream_head("text/event-stream"), *sent, chunk(b"data: [DONE]\n\n"), LAST_CHUNK]


def vllm(version: str = "0.32.0", max_model_len: int = 32768, **entry: Any) -> dict[str, Any]:
    """As vLLM 0.32 lists a model."""
    permission = {"object": "model_permission", "is_blocking": False}
    made = listed(
        id="m", owned_by="vllm", root="/models/m", parent=None, max_model_len=max_model_len, **entry
    )

    def models() -> Any:
        found = made()
        now = next(CLOCK)
        found["data"][0]["permission"] = [{"id": f"modelperm-{now}", "created": now, **permission}]
        return found

    return {"/v1/models": models, "/version": {"version": version}}


META = {"vocab_type": 2, "n_vocab": 261, "n_ctx": 512, "n_ctx_train": 512, "n_embd": 64, "n_params": 78464, "size": 313856, "ftype": "F16"}  # fmt: skip


def llamacpp(
    meta: Mapping[str, Any] | None = META, template: str = "{{ x }}", lora: object = (), **props: Any
) -> dict[str, Any]:
    """As llama.cpp's server of November 2026 lists a model, and what it shows at `/props`."""
    settings = {"params": {"seed": 4294967295, "lora": list(lora)}, "n_ctx": 32768}  # type: ignore[call-overload]
    shown = {
        "default_generation_settings": settings, "model_alias": "m", "model_path": "/models/m.gguf",
        "chat_template": template, "build_info": "b7000-abc", "is_sleeping": False, **props,
    }  # fmt: skip
    return {
        "/v1/models": listed(id="m", owned_by="llamacpp", aliases=["m"], meta=meta),
        "/props": lambda: {**shown, "media_marker": f"<__media_{next(CLOCK)}__>"},
    }


def mlx_lm() -> dict[str, Any]:
    """As mlx_lm.server 0.31 lists a model of the Hugging Face cache."""
    return {"/v1/models": listed(id="m")}


def ollama_door(digest: str = "a" * 64) -> dict[str, Any]:
    """As Ollama 0.24 lists a model at its other door and at its own."""
    own = {
        "name": "m:latest",
        "model": "m:latest",
        "digest": digest,
        "details": {"quantization_level": "Q4_1"},
    }
    return {
        "/v1/models": listed(id="m:latest", owned_by="library"),
        "/api/tags": {"models": [own]},
        "/api/version": {"version": "0.24.0"},
    }
