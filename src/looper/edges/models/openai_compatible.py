"""Models behind the chat-completions API that many servers share (vLLM, llama.cpp, mlx_lm.server, OpenAI).

Servers differ in what they say of a model (`served`), which parameters they know (`samplers`) and how they refuse (`faults`); here is
how they are asked, and asked once more without what they did not want to hear.
"""

import json
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from looper.edges.models.digests import FileDigests
from looper.edges.models.heard import Counts, ReplyBuilder
from looper.edges.models.http import Server, Timeouts
from looper.edges.models.samplers import parameters, said_of
from looper.edges.models.served import Told, told, trained_window, weights_digest
from looper.errors import ModelFatal, ModelMissing, ModelUnfit, one_line
from looper.protocols import ChatRequest, Message
from looper.records.base import content_hash
from looper.records.plan import AS_COMPUTED
from looper.records.text import estimated_tokens
from looper.records.trajectory import ModelIdentity, Reply

DEFAULT_URL = "https://api.openai.com/v1"
HOW_TO_START = "Start the server, or correct the address in the profile (openai:NAME@URL)."
OTHER_LIMIT = "max_completion_tokens"
"""What the limit of a reply is called where models that think first refuse `max_tokens`."""


class OpenAICompatibleModel:
    """Streams one model of one server. Its window cannot be set from here, only stated."""

    def __init__(
        self,
        name: str,
        key: str,
        *,
        base_url: str,
        context_tokens: int,
        timeouts: Timeouts | None = None,
        digests: FileDigests | None = None,
    ) -> None:
        """`key` may be empty: servers of one's own ask for none. `digests` knows weights that were read before."""
        self._name, self._context_tokens = name, context_tokens
        url = (base_url or DEFAULT_URL).rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._server = Server(
            f"The model server at {url}", url, headers, HOW_TO_START, timeouts or Timeouts()
        )
        self._beside = Server(
            self._server.what, url.removesuffix("/v1"), headers, HOW_TO_START, timeouts or Timeouts()
        )
        self._url, self._digests = url, digests or FileDigests()
        self._limit, self._counts = "max_tokens", Counts()
        self._kind = "openai"
        """Of the server; known once the model was asked which one it is."""
        self._silent: frozenset[str] = frozenset()
        """Parameters that the server does not want to be named."""

    def identity(self) -> ModelIdentity:
        with self._server.typed_faults():
            known, headers = self._told()
            weights = weights_digest(self._url, known.weights, self._digests)
        return ModelIdentity(
            backend="openai",
            backend_version=one_line(known.version or headers.get("server", "unknown")),
            name=self._name,
            digest=content_hash(json.dumps(known.facts, sort_keys=True), weights),
            quantisation=one_line(known.quantisation),
            context_tokens=self._context_tokens,
            sampler=said_of(self._kind),
        )

    def window_tokens(self) -> int | None:
        """Where vLLM or llama.cpp's server answers; else what the model was trained for, where its folder is on this machine."""
        with self._server.typed_faults():
            known, _ = self._told()
            return known.window or trained_window(self._url, known.weights)

    def _told(self) -> tuple[Told, Mapping[str, str]]:
        """What the server says of the model, and the headers beside it."""
        what = self._server.what
        listed, headers = self._server.get("/models", missing=f"{what} has no list of models. {HOW_TO_START}")
        entries = listed.get("data") if isinstance(listed, dict) else listed
        found = {str(entry["id"]): entry for entry in entries or []}
        # Ollama's other door lists `m:latest` and answers to `m`.
        entry = found.get(self._name) or found.get(f"{self._name}:latest")
        if entry is None:
            names = one_line(", ".join(sorted(found)[:10])) or "none"
            raise ModelMissing(f"{what} has no model {self._name}. It has: {names}.")
        # mlx_lm.server names no owner, and is Python's own HTTP server.
        plain = "mlx_lm" if "BaseHTTP" in headers.get("server", "") else ""
        self._kind = str(entry.get("owned_by") or plain)
        return told(what, found, entry, self._shown), headers

    def _shown(self, path: str) -> Mapping[str, Any]:
        """What the server shows beside its API, where it does. A fault is none of that: what is known of a model must not depend on it."""
        try:
            found, _ = self._beside.get(path)
        except ModelFatal:
            return {}
        return found if isinstance(found, dict) else {}

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return estimated_tokens(*(text for _, text in messages))

    def reply(self, request: ChatRequest) -> Reply:
        heard = self._heard_somehow(request)
        reply = heard.reply(self._server.what, f"server of {self._name}")
        self._counts.check(self._server.what, request, reply.usage.prompt_tokens)
        return reply

    def _heard_somehow(self, request: ChatRequest) -> ReplyBuilder:
        """Asked again without what the server does not want to be named, where that says nothing."""
        while True:
            # Another thread may learn meanwhile what is refused: what counts is what this try has sent.
            limit, silent = self._limit, self._silent
            try:
                return self._heard(request, limit, silent)
            except ModelUnfit as error:
                said = str(error)
                idle = (
                    parameters(self._kind, AS_COMPUTED).items()
                    & parameters(self._kind, request.sampling).items()
                )
                refused = _named({name for name, _ in idle} - silent, said)
                if limit != OTHER_LIMIT and OTHER_LIMIT in said:
                    self._limit = OTHER_LIMIT
                elif refused:
                    self._silent |= refused
                else:
                    raise

    def _heard(self, request: ChatRequest, limit: str, silent: Set[str]) -> ReplyBuilder:
        heard = ReplyBuilder()
        drawn = parameters(self._kind, request.sampling)
        body = {
            "model": self._name,
            "messages": [{"role": role, "content": content} for role, content in request.messages],
            limit: request.max_output_tokens,
            "temperature": request.temperature,
            "seed": request.seed & 0x7FFFFFFF,
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: value for name, value in drawn.items() if name not in silent},
        }

        def hear(event: dict[str, Any]) -> bool:
            usage = event.get("usage")
            if isinstance(usage, dict):
                heard.prompt, heard.completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
                # OpenAI, llama.cpp's server and mlx_lm.server; vLLM with --enable-prompt-tokens-details.
                details = usage.get("prompt_tokens_details")
                heard.cached = details.get("cached_tokens") if isinstance(details, dict) else heard.cached
            for choice in event.get("choices") or []:
                if choice.get("index") in (0, None):
                    _hear_choice(heard, choice)
            return heard.has_words

        self._server.stream("/chat/completions", body, request.timeout_s, hear)
        return heard

    def forget(self, conversation: str) -> None:
        self._counts.forget(conversation)

    def close(self) -> None:
        pass


def _named(names: Set[str], said: str) -> Set[str]:
    """Of these names the ones that a refusal is about: those in quotes, or the only one that it mentions, for others may be listed as allowed."""
    quoted = {name for name in names if re.search(rf"['\"`]{name}['\"`]", said)}
    mentioned = {name for name in names if re.search(rf"\b{name}\b", said)}
    return quoted or (mentioned if len(mentioned) == 1 else set())


def _hear_choice(heard: ReplyBuilder, choice: dict[str, Any]) -> None:
    """A server that does not stream sends a message, one of plain completions a text, in place of what is new."""
    said = choice.get("delta") or choice.get("message") or {}
    thinking = said.get("reasoning_content") or said.get("reasoning") or said.get("reasoning_details")
    heard.say(said.get("content") or choice.get("text"), thinking)
    heard.finish = choice.get("finish_reason") or heard.finish
