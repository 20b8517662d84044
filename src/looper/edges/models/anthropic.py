"""Claude models, through Anthropic's messages API."""

import time
from collections.abc import Sequence
from typing import Any

from looper.edges.models.http import Patience, Server, estimated_tokens
from looper.errors import BadInput, ModelReplyBroken
from looper.protocols import ChatRequest, Message
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage

DEFAULT_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
HOW_TO_START = "Check the network, and ANTHROPIC_API_KEY."


class AnthropicModel:
    """Streams one model. The API has no seed: repeats differ by its own sampling."""

    def __init__(
        self, name: str, key: str, *, base_url: str, context_tokens: int, patience: Patience | None = None
    ) -> None:
        """Raises BadInput without a key."""
        if not key:
            raise BadInput(
                "ANTHROPIC_API_KEY is not set. Put your key into that environment variable, or choose another model."
            )
        self._name, self._context_tokens = name, context_tokens
        url = (base_url or DEFAULT_URL).rstrip("/")
        headers = {"x-api-key": key, "anthropic-version": VERSION}
        self._server = Server(
            f"The Anthropic API at {url}", url, headers, HOW_TO_START, patience or Patience()
        )

    def identity(self) -> ModelIdentity:
        with self._server.typed_faults():
            found = self._server.get(f"/v1/models/{self._name}").json()
            name, made = str(found["id"]), found.get("created_at", "unknown")
        return ModelIdentity(
            backend="anthropic",
            backend_version=VERSION,
            name=name,
            digest=f"{name}@{made}",
            quantisation="unknown",
            context_tokens=self._context_tokens,
        )

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return estimated_tokens(messages)

    def reply(self, request: ChatRequest) -> Reply:
        begun = time.monotonic()
        text: list[str] = []
        thinking: list[str] = []
        finish, ended = "", False
        usage: dict[str, Any] = {}
        with self._server.typed_faults():
            for event in self._server.events("/v1/messages", self._body(request), request.timeout_s):
                kind, delta = event.get("type"), event.get("delta", {})
                usage |= event.get("message", {}).get("usage", {}) | event.get("usage", {})
                text.append(delta.get("text", ""))
                thinking.append(delta.get("thinking", ""))
                finish = delta.get("stop_reason") or finish
                ended = ended or kind == "message_stop"
        if not ended or not finish:
            raise ModelReplyBroken(f"{self._server.what} ended its reply without its end mark.")
        counted = sum(
            usage.get(part) or 0
            for part in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        )
        return Reply(
            text="".join(text),
            thinking="".join(thinking),
            finish_reason=FinishReason.LENGTH if finish == "max_tokens" else FinishReason.STOP,
            usage=Usage(
                prompt_tokens=counted or None,
                completion_tokens=usage.get("output_tokens"),
                counted_by=f"anthropic {self._name}",
                backend_prompt_tokens=usage.get("input_tokens"),
                backend_completion_tokens=usage.get("output_tokens"),
            ),
            wall_s=time.monotonic() - begun,
        )

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        system = "\n\n".join(text for role, text in request.messages if role == "system")
        turns = [
            {"role": role, "content": text or " "} for role, text in request.messages if role != "system"
        ]
        return {
            "model": self._name,
            "system": system,
            "messages": turns,
            "max_tokens": request.max_output_tokens,
            "temperature": min(1.0, request.temperature),
            "stream": True,
        }

    def forget(self, conversation: str) -> None:
        pass

    def close(self) -> None:
        self._server.close()
