"""Models behind the chat-completions API that many servers share (vLLM, llama.cpp, mlx_lm.server, OpenAI)."""

import time
from collections.abc import Sequence
from typing import Any

from looper.edges.models.http import Patience, Server, estimated_tokens, prompt_was_cut
from looper.errors import ContextOverflow, ModelMissing, ModelReplyBroken
from looper.protocols import ChatRequest, Message
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage

DEFAULT_URL = "https://api.openai.com/v1"
HOW_TO_START = "Start the server, or correct the address in the profile (openai:NAME@URL)."


class OpenAICompatibleModel:
    """Streams one model of one server. Its window cannot be set from here, only stated."""

    def __init__(
        self, name: str, key: str, *, base_url: str, context_tokens: int, patience: Patience | None = None
    ) -> None:
        """`key` may be empty: servers of one's own ask for none."""
        self._name, self._context_tokens = name, context_tokens
        url = (base_url or DEFAULT_URL).rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._server = Server(
            f"The model server at {url}", url, headers, HOW_TO_START, patience or Patience()
        )

    def identity(self) -> ModelIdentity:
        with self._server.typed_faults():
            response = self._server.get("/models")
            found = {str(entry["id"]): entry for entry in response.json()["data"]}
        if self._name not in found:
            raise ModelMissing(
                f"{self._server.what} has no model {self._name}. It has: {', '.join(sorted(found)[:10])}."
            )
        return ModelIdentity(
            backend="openai",
            backend_version=str(response.headers.get("server", "unknown")),
            name=self._name,
            # Such servers give no digest; name and creation time are all there is to tell models apart.
            digest=f"{self._name}@{found[self._name].get('created', 'unknown')}",
            quantisation="unknown",
            context_tokens=self._context_tokens,
        )

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return estimated_tokens(messages)

    def reply(self, request: ChatRequest) -> Reply:
        begun = time.monotonic()
        text: list[str] = []
        thinking: list[str] = []
        finish = ""
        usage: dict[str, Any] = {}
        body = {
            "model": self._name,
            "messages": [{"role": role, "content": content} for role, content in request.messages],
            "max_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "seed": request.seed & 0x7FFFFFFF,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with self._server.typed_faults():
            for event in self._server.events("/chat/completions", body, request.timeout_s):
                usage = event.get("usage") or usage
                for choice in event.get("choices", [])[:1]:
                    text.append(choice.get("delta", {}).get("content") or "")
                    thinking.append(choice.get("delta", {}).get("reasoning_content") or "")
                    finish = choice.get("finish_reason") or finish
        if not finish:
            raise ModelReplyBroken(f"{self._server.what} ended its reply without a finish reason.")
        counted = usage.get("prompt_tokens")
        if counted is not None and prompt_was_cut(request.messages, counted):
            raise ContextOverflow(f"{self._server.what} read {counted} tokens of a longer prompt: it cut it.")
        return Reply(
            text="".join(text),
            thinking="".join(thinking),
            finish_reason=FinishReason.LENGTH if finish == "length" else FinishReason.STOP,
            usage=Usage(
                prompt_tokens=counted,
                completion_tokens=usage.get("completion_tokens"),
                counted_by=f"server of {self._name}",
                backend_prompt_tokens=counted,
                backend_completion_tokens=usage.get("completion_tokens"),
            ),
            wall_s=time.monotonic() - begun,
        )

    def forget(self, conversation: str) -> None:
        pass

    def close(self) -> None:
        self._server.close()
