"""Claude models, through Anthropic's messages API."""

from collections.abc import Sequence
from typing import Any

from looper.edges.models.heard import ReplyBuilder, counted
from looper.edges.models.http import Server, Timeouts
from looper.edges.models.samplers import parameters, said_of
from looper.errors import BadInput, ModelReplyBroken, ModelUnfit, one_line
from looper.protocols import ChatRequest, Message
from looper.records.model import BACKENDS
from looper.records.text import estimated_tokens
from looper.records.trajectory import ModelIdentity, Reply

DEFAULT_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
NOTHING = "(nothing)"
"""In place of a message without words, which the API refuses."""
HOW_TO_START = "Check the network, and ANTHROPIC_API_KEY."


class AnthropicModel:
    """Streams one model. The API has no seed: repeats differ by its own sampling."""

    def __init__(
        self, name: str, key: str, *, base_url: str, context_tokens: int, timeouts: Timeouts | None = None
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
            f"The Anthropic API at {url}",
            url,
            headers,
            HOW_TO_START,
            timeouts or Timeouts(),
            "Set ANTHROPIC_API_KEY to another key.",
        )

    def identity(self) -> ModelIdentity:
        """`created_at` is the day of the model's release, whenever it is asked (Anthropic's API reference, Get a Model)."""
        missing = f"{self._server.what} has no model {self._name}."
        with self._server.typed_faults():
            found, _ = self._server.get(f"/v1/models/{self._name}", missing)
            name, made = (one_line(str(part)) for part in (found["id"], found.get("created_at", "unknown")))
        return ModelIdentity(
            backend="anthropic",
            backend_version=VERSION,
            name=name,
            digest=f"{name}@{made}",
            quantisation="unknown",
            context_tokens=self._context_tokens,
            sampler=said_of("anthropic"),
        )

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return estimated_tokens(*(text for _, text in messages))

    def reply(self, request: ChatRequest) -> Reply:
        heard, usage = ReplyBuilder(), dict[str, Any]()
        ended = False

        def hear(event: dict[str, Any]) -> bool:
            nonlocal ended
            delta = event.get("delta") or {}
            usage.update((event.get("message") or {}).get("usage") or {})
            usage.update(event.get("usage") or {})
            heard.say(delta.get("text"), delta.get("thinking"))
            heard.finish = delta.get("stop_reason") or heard.finish
            ended = ended or event.get("type") == "message_stop"
            return heard.has_words

        self._server.stream("/v1/messages", self._body(request), request.timeout_s, hear)
        if not ended:
            raise ModelReplyBroken(f"{self._server.what} ended its reply without its end mark.")
        parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        heard.prompt = sum(counted(usage.get(part)) or 0 for part in parts)
        heard.completion = usage.get("output_tokens")
        heard.cached = usage.get(parts[1])
        reply = heard.reply(self._server.what, f"anthropic {self._name}")
        uncached = reply.usage.model_copy(update={"backend_prompt_tokens": counted(usage.get(parts[0]))})
        return reply.model_copy(update={"usage": uncached})

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        system = "\n\n".join(text for role, text in request.messages if role == "system")
        turns = [
            {"role": role, "content": text if text.strip() else NOTHING}
            for role, text in request.messages
            if role != "system"
        ]
        highest = BACKENDS["anthropic"].highest_temperature
        if highest is not None and request.temperature > highest:
            raise ModelUnfit(
                f"{self._server.what} takes no temperature above {highest:g}, and the plan wants {request.temperature:g}. Lower it in the profile."
            )
        return {
            "model": self._name,
            "system": system,
            "messages": turns,
            "max_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "stream": True,
            **parameters("anthropic", request.sampling),
        }

    def forget(self, conversation: str) -> None:
        pass

    def close(self) -> None:
        pass
