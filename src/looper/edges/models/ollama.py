"""Models served by Ollama, through its native API.

`OllamaModel` asks one of them for replies. Below it stands what is read of what the server shows of a model's file: the window and the memory
that this takes, how weights are stored, and how texts are split into tokens.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from looper.edges.models.heard import Counts, ReplyBuilder, counted
from looper.edges.models.http import Server, Timeouts
from looper.edges.models.samplers import parameters, said_of
from looper.edges.trainers.encoding import OTHER_TEMPLATE
from looper.errors import ModelFatal, ModelMissing, ModelUnfit, one_line
from looper.protocols import ChatRequest, Message
from looper.records.text import estimated_tokens
from looper.records.trajectory import ModelIdentity, Reply

DEFAULT_URL = "http://127.0.0.1:11434"
KEEP_ALIVE = "30m"
SHOW_S = 30.0
ALL_F32 = 0
"""`general.file_type` of a GGUF file."""
HOW_TO_START = (
    "Start it with `ollama serve`, or use a profile that needs no server: looper run exp00 --profile micro."
)


class OllamaModel:
    """One model of one server. The window is sent with every request: the server's own default is 4,096 tokens."""

    def __init__(
        self, name: str, *, base_url: str, context_tokens: int, timeouts: Timeouts | None = None
    ) -> None:
        url = (base_url or DEFAULT_URL).rstrip("/")
        self._name, self._context_tokens = name, context_tokens
        enter = f"Ollama is sent none: name the model as openai:{name}@{url}/v1, and set OPENAI_API_KEY."
        self._server = Server(f"Ollama at {url}", url, {}, HOW_TO_START, timeouts or Timeouts(), enter)
        self._missing = f"{self._server.what} has no model {name}. Get it with: ollama pull {name}"
        self._answers = name
        """The model that is asked for replies."""
        self._counts = Counts()

    def identity(self) -> ModelIdentity:
        with self._server.typed_faults():
            entry = self._entry_of(self._listed())
            version, _ = self._server.get("/api/version")
            digest, details = one_line(str(entry["digest"])), entry.get("details") or {}
            return ModelIdentity(
                backend="ollama",
                backend_version=one_line(str(version.get("version", "unknown"))),
                name=self._name,
                digest=digest,
                quantisation=one_line(str(details.get("quantization_level") or "unknown")),
                context_tokens=self._context_tokens,
                sampler=said_of("ollama"),
            )

    def _listed(self) -> dict[str, Any]:
        """The server's models by name. Raises ModelMissing where it is no Ollama."""
        none = f"{self._server.what} has no list of models. Is the address that of an Ollama server? {HOW_TO_START}"
        listed, _ = self._server.get("/api/tags", none)
        if not isinstance(listed, dict) or "models" not in listed:
            raise ModelMissing(none)
        return {str(entry["model"]): entry for entry in listed["models"] or []}

    def _entry_of(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the list says of this model. Raises ModelMissing."""
        entry: Mapping[str, Any] | None = found.get(self._name) or found.get(f"{self._name}:latest")
        if entry is None:
            names = one_line(", ".join(sorted(found))) or "none"
            raise ModelMissing(
                f"{self._server.what} has no model {self._name} (it has: {names}). Get it with: ollama pull {self._name}"
            )
        return entry

    def window_tokens(self) -> int | None:
        """That which the model was trained for: the server silently gives no longer one. Raises ModelUnfit for a model whose template has no
        place for what a system says: Ollama writes such a one where a file brings none, and leaves that out in silence."""
        try:
            shown = shown_of(self._server, self._name, SHOW_S)
        except ModelFatal:
            return None
        if template := leaving_out_systems(shown):
            raise ModelUnfit(
                f"{self._server.what} has {self._name} with a chat template that leaves out what a system says ({template}). {OTHER_TEMPLATE}"
            )
        return trained_tokens(shown["model_info"])

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return estimated_tokens(*(text for _, text in messages))

    def reply(self, request: ChatRequest) -> Reply:
        heard = ReplyBuilder()
        body = {
            "model": self._answers,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
            "stream": True,
            "keep_alive": KEEP_ALIVE,
            # A prompt that does not fit is refused, where the default is to drop its middle in silence; a reply that does not fit is cut,
            # where the default is to go on with it after dropping half of all that was read.
            "truncate": False,
            "shift": False,
            "options": {
                "num_ctx": request.context_tokens,
                "num_predict": request.max_output_tokens,
                "temperature": request.temperature,
                "seed": request.seed & 0x7FFFFFFF,
                **parameters("ollama", request.sampling),
            },
        }

        def hear(part: dict[str, Any]) -> bool:
            said = part.get("message") or {}
            heard.say(said.get("content"), said.get("thinking"))
            if part.get("done"):
                heard.finish = part.get("done_reason") or "stop"  # Older versions give none.
                heard.prompt, heard.completion = part.get("prompt_eval_count"), part.get("eval_count")
            return heard.has_words

        self._server.stream("/api/chat", body, request.timeout_s, hear, self._missing)
        reply = heard.reply(self._server.what, f"ollama {self._name}")
        self._counts.check(self._server.what, request, reply.usage.prompt_tokens)
        return reply

    def forget(self, conversation: str) -> None:
        self._counts.forget(conversation)

    def close(self) -> None:
        pass


def shown_of(server: Server, name: str, total_s: float) -> Mapping[str, Any]:
    """What a server shows of a model: `template`, and in `model_info` what the head of its file says, without its lists. Raises ModelError."""
    found: dict[str, Any] = {"model_info": {}}

    def hear(shown: dict[str, Any]) -> bool:
        found.update(shown, model_info=dict(shown["model_info"]))
        return False

    server.stream("/api/show", {"model": name}, total_s, hear)
    return found


def trained_tokens(info: Mapping[str, Any]) -> int | None:
    """The window that a model was trained for; None where that is not said."""
    lengths = (counted(value) for key, value in info.items() if key.endswith(".context_length"))
    return next((length for length in lengths if length), None)


def window_bytes(info: Mapping[str, Any], tokens: int) -> int:
    """Memory of a window: a key and a value of 16 bits for each token, layer and head. 0 where the head of the file says too little."""

    def number(name: str) -> int:
        return counted(info.get(f"{info.get('general.architecture')}.{name}")) or 0

    heads = number("attention.head_count")
    width = number("attention.key_length") or (number("embedding_length") // heads if heads else 0)
    return 2 * 2 * tokens * number("block_count") * number("attention.head_count_kv") * width


def quantisation(listed: object, info: Mapping[str, Any]) -> str:
    """Format of the weights: as the list of models says it, which calls F32 unknown."""
    return "F32" if info.get("general.file_type") == ALL_F32 else one_line(str(listed or "unknown"))


def leaving_out_systems(shown: Mapping[str, Any]) -> str:
    """The chat template of a model, where that has no place for what a system says; else empty. Where a model names a renderer, Ollama writes
    prompts by that and reads no template (`server/prompt.go`)."""
    if shown.get("renderer") or re.search(r"(?m)^RENDERER\s", str(shown.get("modelfile") or "")):
        return ""
    template = str(shown.get("template") or "")
    return "" if re.search(r"\.(Messages|System)\b", template) else one_line(template, 40)


def splits_as_if_unknown(info: Mapping[str, Any]) -> bool:
    """Whether texts are split into words by a rule that Ollama writes where it does not know the model's own, as of SmolLM2's safetensors:
    digits and punctuation become other tokens than in training, and what is said is another."""
    return info.get("tokenizer.ggml.model") == "gpt2" and info.get("tokenizer.ggml.pre") == "default"
