"""Models behind the chat-completions API that many servers share (vLLM, llama.cpp, mlx_lm.server, OpenAI).

Servers differ in what they say of a model (`served`), which parameters they know (`samplers`) and how they refuse (`faults`); here is
how they are asked, and asked once more without what they did not want to hear.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Self

from looper.edges.models.arrival import LOAD_S, TOP, Carried, ServedAdapter
from looper.edges.models.digests import FileDigests
from looper.edges.models.heard import Counts, ReplyBuilder
from looper.edges.models.http import GET_S, Server, Timeouts
from looper.edges.models.samplers import parameters, said_of
from looper.edges.models.served import Told, kind_of, listed_models, told, trained_window, weights_digest
from looper.edges.trainers.encoding import OTHER_TEMPLATE
from looper.errors import (
    ModelFatal,
    ModelMissing,
    ModelServerFault,
    ModelUnfit,
    RequestRefused,
    one_line,
)
from looper.protocols import ChatRequest, Message
from looper.records.base import content_hash
from looper.records.model import BACKENDS
from looper.records.plan import AS_COMPUTED
from looper.records.text import estimated_tokens
from looper.records.trajectory import ModelIdentity, Reply

DEFAULT_URLS = {"openai": "https://api.openai.com/v1", "vllm": "http://127.0.0.1:8000/v1"}
HOW_TO_START = "Start the server, or correct the address in the profile ({backend}:NAME@URL); LOOPER_SERVER_WAIT_S=600 waits for one that is starting."
VLLM_LOADS = "Start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora --max-lora-rank {rank}, where the folder can be read."
VLLM_BASE = "Serve the weights of the training."
LLAMA_CPP_HAS = "Write it with `looper adapter export {id} {id}.gguf --gguf`, and start llama-server with --lora-scaled {id}.gguf:0 --cache-ram 0."
LLAMA_CPP_BASE = "Start llama-server with --lora-scaled FILE:0, so that only who asks for the adapter has it, and with the weights of the training, in F16 or F32."
LLAMA_CPP_CACHE = "Start llama-server with --cache-ram 0: what it keeps in memory of prompts that base has read it gives to the adapter too."
LLAMA_CPP_TEMPLATE = """{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '
' + message.content + '<|im_end|>
' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant
' -}}
{%- endif -%}"""
"""What llama.cpp's server takes for a model whose file brings none (`CHATML_TEMPLATE_SRC` in common/chat.cpp)."""
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
        backend: str = "openai",
        timeouts: Timeouts | None = None,
        digests: FileDigests | None = None,
        reads_weights: bool = True,
    ) -> None:
        """`key` may be empty: servers of one's own ask for none. `backend` is `vllm` where nothing else may answer. `digests` knows weights that
        were read before; `reads_weights` says whether those of a server on this machine are part of which model it is."""
        self._name, self._context_tokens, self._backend = name, context_tokens, backend
        url = (base_url or DEFAULT_URLS[backend]).rstrip("/")
        if backend == "vllm" and not url.endswith("/v1"):
            url += "/v1"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._how = HOW_TO_START.format(backend=backend)
        what = f"{'vLLM' if backend == 'vllm' else 'The model server'} at {url}"
        variable = BACKENDS["vllm" if backend == "vllm" else "openai"].key
        enter = f"Set {variable} to another key." if key else f"Set {variable}, which is empty, to its key."
        self._server, self._beside = (
            Server(what, each, headers, self._how, timeouts or Timeouts(), enter)
            for each in (url, url.removesuffix("/v1"))
        )
        self._url, self._digests, self._reads_weights = url, digests or FileDigests(), reads_weights
        self._limit, self._counts = "max_tokens", Counts()
        self._kind = backend
        """Of the server; known once the model was asked which one it is."""
        self._silent: frozenset[str] = frozenset()
        """Parameters that the server does not want to be named."""
        self._carried: Carried | None = None
        """By keys of a request."""
        self._plain: Mapping[str, Any] = {}
        """What requests say so that adapters are in force as far as the server was started with, which is not at all unless told."""

    def with_adapter(self, adapter: ServedAdapter) -> Self:
        """The same model with an adapter, which is loaded where the server takes that, and compared with MLX's before anything is asked."""
        found = copy.copy(self)
        found._carried, found._counts = Carried(adapter), Counts()
        return found

    def arrival(self) -> str:
        return self._carried.said if self._carried else ""

    def identity(self) -> ModelIdentity:
        """Asks the server each time. With an adapter that has it first, and raises ModelFatal where it does not."""
        with self._server.typed_faults():
            known, headers = self._told()
            places = known.weights if self._reads_weights else ()
            weights = weights_digest(self._url, places, self._digests)
        self._arrive()
        return ModelIdentity(
            backend=self._backend,
            backend_version=one_line(known.version or headers.get("server", "unknown")),
            name=self._name,
            digest=content_hash(json.dumps(known.facts, sort_keys=True), weights),
            adapter=self._carried.adapter.digest if self._carried else "",
            quantisation=one_line(known.quantisation),
            context_tokens=self._context_tokens,
            sampler=said_of(self._kind),
        )

    def window_tokens(self) -> int | None:
        """Where vLLM or llama.cpp's server answers; else what the model was trained for, where its folder is on this machine. Raises ModelUnfit for
        a model that brings no chat template to llama.cpp's server."""
        with self._server.typed_faults():
            known, _ = self._told()
            if known.facts.get("chat_template") == LLAMA_CPP_TEMPLATE:
                asked = {"content": "<|im_start|>", "add_special": False, "parse_special": True}
                if len(json.loads(self._beside.post("/tokenize", asked, GET_S))["tokens"]) > 1:
                    raise ModelUnfit(
                        f"{self._server.what} has {self._name} without a chat template, and ChatML, which it takes instead, is not the model's: "
                        f"<|im_start|> is no token of it. {OTHER_TEMPLATE}"
                    )
            return known.window or trained_window(self._url, known.weights)

    def _told(self) -> tuple[Told, Mapping[str, str]]:
        """What the server says of the model, and the headers beside it."""
        what = self._server.what
        found, headers = self._listed()
        # Ollama's other door lists `m:latest` and answers to `m`.
        entry = found.get(self._name) or found.get(f"{self._name}:latest")
        if entry is None:
            names = one_line(", ".join(sorted(found)[:10])) or "none"
            raise ModelMissing(f"{what} has no model {self._name}. It has: {names}.")
        self._kind = kind_of(entry, headers)
        if self._backend == "vllm" and self._kind != "vllm":
            raise ModelMissing(
                f"{what} is no vLLM: its models are owned by {one_line(self._kind or 'nobody')}. Name it as openai:NAME@URL."
            )
        if self._kind == "llamacpp":
            self._plain = _at_scales(self._held(), lambda each: float(each["scale"]))
        return told(what, found, entry, self._shown), headers

    def _listed(self) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The server's models by name."""
        listed, headers = self._server.get(
            "/models", f"{self._server.what} has no list of models. {self._how}"
        )
        return listed_models(listed), headers

    def _arrive(self) -> None:
        """See to it that the server computes with the adapter. It is asked each time, for one that was started again may hold another adapter, or
        none. Raises ModelError."""
        carried = self._carried
        if carried is None:
            return
        with carried.lock, self._server.typed_faults():
            match self._kind:
                case "vllm":
                    by = self._loaded(carried)
                case "llamacpp":
                    by = self._found(carried.adapter)
                case _:
                    raise ModelUnfit(
                        f"{self._server.what} takes no adapters that were trained here: vLLM does, and llama.cpp's server. Serve it with mlx:FOLDER."
                    )
            base = copy.copy(self)
            base._carried = None
            how = (LLAMA_CPP_BASE, LLAMA_CPP_CACHE) if self._kind == "llamacpp" else (VLLM_BASE, "")
            carried.compare(by, base.next_tokens, self.next_tokens, self._server.what, self._name, *how)

    @property
    def _by(self) -> Mapping[str, Any]:
        """What requests say so that the adapter is in force and no other, or what the server was started with."""
        return (self._carried and self._carried.by) or self._plain

    def _loaded(self, carried: Carried) -> Mapping[str, Any]:
        """What requests say so that vLLM answers with the adapter.

        It is loaded under a name and from a folder that no other adapter has: vLLM keeps what it has read by these two, whatever lies there
        now.
        """
        what, adapter = self._server.what, carried.adapter
        name, folder = f"looper-{adapter.digest[:16]}", adapter.in_peft()
        has = self._listed()[0].get(name)
        if has is not None and has.get("root") != str(folder):
            raise ModelMissing(
                f"{what} has a model {name} from {one_line(str(has.get('root')))}, and the adapter is in {folder}. Unload it there."
            )
        if has is None:
            carried.lost()
            body = {"lora_name": name, "lora_path": str(folder), "load_inplace": False}
            try:
                self._server.post("/load_lora_adapter", body, LOAD_S)
            except (ModelFatal, ModelServerFault, RequestRefused) as error:
                if name in self._listed()[0]:
                    return {"model": name}  # Another process was faster.
                said = str(error).removeprefix(what).lstrip(": ").rstrip(".")
                how = VLLM_LOADS.format(rank=adapter.card.rank)
                raise ModelUnfit(
                    f"{what} does not load the adapter {adapter.id} from {folder}: {said}. {how}"
                ) from error
        return {"model": name}

    def _found(self, adapter: ServedAdapter) -> Mapping[str, Any]:
        """The same of llama.cpp's server: among those that it was started with, by its file's name. That it is the same one is compared afterwards."""
        held = self._held()
        found = next((each for each in held if adapter.id in str(each["path"])), None)
        if found is None:
            names = one_line(", ".join(str(each["path"]) for each in held)) or "none"
            raise ModelMissing(
                f"{self._server.what} has no adapter {adapter.id} (it has: {names}). {LLAMA_CPP_HAS.format(id=adapter.id)}"
            )
        return _at_scales(held, lambda each: float(each is found))

    def _held(self) -> Sequence[Mapping[str, Any]]:
        """The adapters that llama.cpp's server was started with: `id`, `path` and `scale`, which is in force where a request does not name it."""
        try:
            found, _ = self._beside.get("/lora-adapters")
        except (ModelFatal, RequestRefused):
            return []  # A router does not know which of its models is asked.
        return found if isinstance(found, list) else []

    def first_tokens(self, text: str) -> Mapping[str, float] | None:
        """As `replicas.TellsTokens`; of vLLM and llama.cpp's server."""
        if self._kind not in ("vllm", "llamacpp"):
            return None
        try:
            return self.next_tokens(text) or None
        except (RequestRefused, ModelMissing, LookupError, TypeError, ValueError):
            return None  # It was started without them, or stands behind something that does not hand them on.

    def next_tokens(self, text: str) -> Mapping[str, float]:
        """As `MlxModel.next_tokens`, of vLLM or llama.cpp's server, which was asked before which model this is. Raises ModelError."""
        with self._server.typed_faults():
            if self._kind == "llamacpp":
                body = {"prompt": text, "n_predict": 1, "n_probs": TOP, "temperature": 0.0, **self._by}
                told = json.loads(self._beside.post("/completion", body, LOAD_S))
                of_token = told.get("completion_probabilities") or [{"top_logprobs": []}]
                return {each["token"]: each["logprob"] for each in of_token[0]["top_logprobs"]}
            body = {
                "model": self._name,
                "prompt": text,
                "max_tokens": 1,
                "temperature": 0.0,
                "logprobs": TOP,
                **self._by,
            }
            (choice,) = json.loads(self._server.post("/completions", body, LOAD_S))["choices"]
            found: Mapping[str, float] = (
                choice["logprobs"]["top_logprobs"][0] if choice.get("logprobs") else {}
            )
            return found

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
        if self._carried is None:
            return self._replied(request)
        return self._carried.answered(self._arrive, lambda: self._replied(request))

    def _replied(self, request: ChatRequest) -> Reply:
        reply = self._heard_somehow(request).reply(self._server.what, f"server of {self._name}")
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
            **self._by,
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


def _at_scales(
    held: Sequence[Mapping[str, Any]], scale: Callable[[Mapping[str, Any]], float]
) -> Mapping[str, Any]:
    """What a request says to llama.cpp's server so that its adapters are in force so much. Each is named, also where none is in force: what
    the server has read of the same beginning for a request that named one it takes for one that names none (issue 26207 of llama.cpp; seen
    with xllamacpp 2026.10: likeliest tokens up to 4 nats wrong)."""
    return {"lora": [{"id": each["id"], "scale": scale(each)} for each in held]} if held else {}


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
