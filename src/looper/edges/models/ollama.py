"""Models served by Ollama, through its own package and its native API."""

import time
from collections.abc import Sequence
from typing import Any

import httpx

from looper.edges.models.http import (
    Deadline,
    Patience,
    estimated_tokens,
    prompt_was_cut,
    status_error,
    timeouts,
    typed_faults,
)
from looper.errors import ContextOverflow, ModelMissing, ModelReplyBroken, ModelServerFault
from looper.protocols import ChatRequest, Message
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage

DEFAULT_URL = "http://127.0.0.1:11434"
KEEP_ALIVE = "30m"
HOW_TO_START = (
    "Start it with `ollama serve`, or use a profile that needs no server: looper run exp00 --profile micro."
)


class OllamaModel:
    """One model of one server. The window is sent with every request: the server's own default is 4,096 tokens."""

    def __init__(
        self, name: str, *, base_url: str, context_tokens: int, patience: Patience | None = None
    ) -> None:
        import ollama

        self._name, self._url, self._context_tokens = name, base_url or DEFAULT_URL, context_tokens
        self._patience = patience or Patience()
        self._server = f"Ollama at {self._url}"
        self._client: Any = ollama.Client(host=self._url, timeout=timeouts(self._patience, 3600))
        self._faults: Any = ollama.ResponseError
        self._digest = ""

    def identity(self) -> ModelIdentity:
        """Asks the server each time: a model that was replaced since the run began stops the run."""
        with self._typed():
            found = {model.model: model for model in self._client.list().models}
            entry = found.get(self._name) or found.get(f"{self._name}:latest")
            if entry is None:
                names = ", ".join(sorted(str(name) for name in found)) or "none"
                raise ModelMissing(
                    f"{self._server} has no model {self._name} (it has: {names}). Get it with: ollama pull {self._name}"
                )
            version = self._get("/api/version").get("version", "unknown")
        if self._digest and entry.digest != self._digest:
            raise ModelMissing(
                f"{self._server} now has another {self._name} ({entry.digest[:12]}) than when the run began."
            )
        self._digest = str(entry.digest)
        details = entry.details
        return ModelIdentity(
            backend="ollama",
            backend_version=str(version),
            name=self._name,
            digest=self._digest,
            quantisation=str(details.quantization_level) if details else "unknown",
            context_tokens=self._context_tokens,
        )

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return estimated_tokens(messages)

    def reply(self, request: ChatRequest) -> Reply:
        begun = time.monotonic()
        deadline = Deadline(request.timeout_s, self._server)
        text, thinking, last = [], [], None
        with self._typed():
            for part in self._stream(request):
                deadline.check()
                last = part
                text.append(part.message.content or "")
                thinking.append(getattr(part.message, "thinking", None) or "")
        if last is None or not last.done:
            raise ModelReplyBroken(f"{self._server} ended its reply without saying that it is done.")
        counted = last.prompt_eval_count
        if counted is not None and prompt_was_cut(request.messages, counted):
            raise ContextOverflow(
                f"{self._server} read {counted} tokens of a longer prompt: it cut it. Set a larger context in the "
                f"plan's limits, or lower the server's parallel requests."
            )
        return Reply(
            text="".join(text),
            thinking="".join(thinking),
            finish_reason=FinishReason.LENGTH if last.done_reason == "length" else FinishReason.STOP,
            usage=Usage(
                prompt_tokens=counted,
                completion_tokens=last.eval_count,
                counted_by=f"ollama {self._name}",
                backend_prompt_tokens=counted,
                backend_completion_tokens=last.eval_count,
            ),
            wall_s=time.monotonic() - begun,
        )

    def _stream(self, request: ChatRequest) -> Any:
        return self._client.chat(
            model=self._name,
            messages=[{"role": role, "content": text} for role, text in request.messages],
            stream=True,
            keep_alive=KEEP_ALIVE,
            options={
                "num_ctx": request.context_tokens,
                "num_predict": request.max_output_tokens,
                "temperature": request.temperature,
                "seed": request.seed & 0x7FFFFFFF,
            },
        )

    def _typed(self) -> Any:
        return _OllamaFaults(self._server, self._name, self._faults)

    def _get(self, path: str) -> dict[str, Any]:
        response = httpx.get(f"{self._url}{path}", timeout=10)
        return dict(response.json()) if response.status_code == 200 else {}

    def forget(self, conversation: str) -> None:
        pass

    def close(self) -> None:
        pass


class _OllamaFaults:
    """The package's own error, and everything below it, as Looper's errors."""

    def __init__(self, server: str, model: str, fault: Any) -> None:
        self._server, self._model, self._fault = server, model, fault
        self._network = typed_faults(server, HOW_TO_START)

    def __enter__(self) -> None:
        self._network.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, self._fault):
            if error.status_code == 404:
                raise ModelMissing(
                    f"{self._server} has no model {self._model}. Get it with: ollama pull {self._model}"
                ) from error
            # The package reports an error line in the middle of a stream with the status of the stream, or none.
            if error.status_code in (200, -1):
                raise ModelServerFault(f"{self._server} broke off: {error.error}") from error
            raise status_error(self._server, error.status_code, str(error.error)) from error
        return bool(self._network.__exit__(kind, error, trace))
