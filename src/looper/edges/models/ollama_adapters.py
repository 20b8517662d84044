"""An adapter as a model of an Ollama server, where that is the same model as the one it was trained on.

It is sent as GGUF (`edges/trainers/gguf_adapter` says why). Ollama 0.24 takes adapters in its older engine alone, which serves the
architectures llama and qwen2 among others; on those of its newer one loading ends with "loras are not yet implemented".
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from looper.edges.models.arrival import LOAD_S, TOP, Carried, ComputesOtherwise, ServedAdapter, arrived
from looper.edges.models.mlx import MlxModel
from looper.edges.models.ollama import (
    DEFAULT_URL,
    HOW_TO_START,
    SHOW_S,
    OllamaModel,
    quantisation,
    shown_of,
    splits_as_if_unknown,
)
from looper.edges.trainers.gguf_adapter import architecture, to_gguf
from looper.errors import (
    BadInput,
    ModelMissing,
    ModelOverloaded,
    ModelServerFault,
    ModelUnfit,
    ModelUnreachable,
)
from looper.protocols import ChatRequest
from looper.records.training import AdapterRecord
from looper.records.trajectory import ModelIdentity, Reply

NO_ADAPTERS = "loras are not yet implemented"
"""What Ollama says where the engine of a model takes none."""
WHOLE = ("F32", "F16", "BF16")
"""Formats of weights that hold what was trained on."""
FROM_THE_SAME = "Make the base from the same weights, in F16 or F32."
WRITTEN_DEFAULT = (
    "Its file splits texts into words by the rule `default`, as Ollama writes of safetensors whose tokenizer it does not know. "
    "Make the base of a GGUF file that llama.cpp's convert_hf_to_gguf.py wrote of the same weights, in F16 or F32."
)


class AdaptedOllamaModel(OllamaModel):
    """A model of an Ollama server with an adapter: another model there, whose name holds the hashes of both, so that it is never a stale one.
    It is made where the server does not have it, and stays there."""

    def __init__(self, name: str, adapter: ServedAdapter, *, base_url: str, context_tokens: int) -> None:
        super().__init__(name, base_url=base_url, context_tokens=context_tokens)
        self._url, self._carried = base_url or DEFAULT_URL, Carried(adapter)

    def identity(self) -> ModelIdentity:
        """Of the base, with the adapter. Raises ModelFatal where it is not in force."""
        found = super().identity()
        self._arrive(found.digest)
        return found.model_copy(update={"adapter": self._carried.adapter.digest})

    def arrival(self) -> str:
        return self._carried.said

    def reply(self, request: ChatRequest) -> Reply:
        return self._carried.answered(self._arrive_anew, partial(super().reply, request))

    def _arrive_anew(self) -> None:
        self._arrive(super().identity().digest)

    def _arrive(self, digest: str) -> None:
        """See to it that the server has the model with the adapter, and that this computes what MLX does. Raises ModelError."""
        adapter, made = self._carried.adapter, False
        name = f"looper-{adapter.digest[:16]}-{digest.removeprefix('sha256:')[:12]}"
        with self._carried.lock, self._server.typed_faults():
            shown = shown_of(self._server, self._name, SHOW_S)["model_info"]
            listed = self._listed()
            client = client_of(self._url, LOAD_S)
            try:
                if f"{name}:latest" not in listed:
                    self._carried.lost()
                    details = self._entry_of(listed).get("details") or {}
                    level = quantisation(details.get("quantization_level"), shown)
                    with refusals(self._url):
                        make(
                            client,
                            self._url,
                            self._name,
                            name,
                            level,
                            shown,
                            adapter.folder,
                            adapter.card,
                            adapter.config(),
                        )
                    made = True
                self._answers = name
                base, adapted = (partial(self._next_tokens, each) for each in (self._name, name))
                self._carried.compare(
                    name, base, adapted, self._server.what, self._name, from_the_same(shown)
                )
            except BadInput as error:
                raise ModelUnfit(str(error)) from error
            except ModelUnfit as error:
                # What has this name and is something else must not be found by the next one who asks.
                if made or isinstance(error.__cause__, ComputesOtherwise):
                    removed(client, name)
                raise
            except ModelServerFault as error:
                if NO_ADAPTERS in str(error):
                    raise ModelUnfit(f"{error} Serve the adapter with mlx:FOLDER.") from error
                raise

    def _next_tokens(self, model: str, text: str) -> dict[str, float]:
        """With the window of replies: for another one Ollama loads the model anew, and drops what it has read."""
        asked = next_tokens_body(model, text, self._context_tokens)
        return top_tokens(json.loads(self._server.post("/api/generate", asked, LOAD_S)).get("logprobs"))


def register(
    folder: Path,
    card: AdapterRecord,
    config: Mapping[str, Any],
    base: str,
    name: str,
    url: str,
    model: MlxModel,
) -> str:
    """Make `name` on the server from its model `base` with the adapter in `folder`, and say how near both are to what MLX computes.
    `config` is config.json of `model`, which the adapter was trained on.

    A made model that does not say what it says here is removed again. Raises BadInput, ModelMissing or ModelUnreachable.
    """
    server = url or DEFAULT_URL
    client = client_of(server)
    with refusals(server):
        if base.removesuffix(":latest") not in names_of(client):
            raise ModelMissing(f"Ollama at {server} has no model {base}. Get it with: ollama pull {base}")
        if name.removesuffix(":latest") in names_of(client):
            raise BadInput(
                f"Ollama at {server} has a model {name} already. Choose another name, or remove it: ollama rm {name}"
            )
        shown = client.show(base).modelinfo or {}
        level = quantisation(names_of(client)[base.removesuffix(":latest")], shown)
        make(client, server, base, name, level, shown, folder, card, config)
        try:
            return arrived(
                partial(next_tokens, client, base),
                partial(next_tokens, client, name),
                model,
                folder,
                served=base,
                otherwise=from_the_same(shown),
            ).said
        except BaseException:
            removed(client, name)
            raise


def client_of(url: str, timeout_s: float | None = None) -> Any:
    import ollama

    return ollama.Client(host=url, timeout=timeout_s)


@contextlib.contextmanager
def refusals(server: str) -> Iterator[None]:
    """Raises BadInput for what the server at this address refuses, and ModelUnreachable where there is none."""
    import ollama

    try:
        yield
    except ollama.ResponseError as error:
        if error.status_code in (429, 503):
            raise ModelOverloaded(f"Ollama at {server}: {error.error}.") from error
        raise BadInput(f"Ollama at {server} refused the adapter: {error.error}") from error
    except (httpx.TransportError, ConnectionError) as error:
        raise ModelUnreachable(f"Ollama at {server} cannot be reached. {HOW_TO_START}") from error


def names_of(client: Any) -> dict[str, str]:
    """Models of a server, and the format of their weights, as its list says it."""
    return {
        entry.model.removesuffix(":latest"): (entry.details and entry.details.quantization_level) or ""
        for entry in client.list().models
    }


def make(
    client: Any,
    server: str,
    base: str,
    name: str,
    level: str,
    shown: Mapping[str, Any],
    folder: Path,
    card: AdapterRecord,
    config: Mapping[str, Any],
) -> None:
    """Make a model of another one, whose weights are of the format `level`, and an adapter. The adapter's factors were fitted to the exact weights of the base: on a base that is quantised, here or there, or in another way
    than in training, they correct errors that are not there, and fused into it they are rounded away. Raises BadInput for these."""
    if card.base.quantisation.endswith("-bit"):
        raise BadInput(
            f"The adapter {card.id} was trained on a base of {card.base.quantisation}, which Ollama does not have: its "
            "formats quantise in another way. Train on the whole base, or serve with mlx:FOLDER."
        )
    if level not in WHOLE:
        raise BadInput(
            f"{base} on {server} is quantised ({level}), and the adapter was trained on whole weights "
            f"({card.base.quantisation}). Name an F16 model of the same base, or serve with mlx:FOLDER."
        )
    theirs = shown.get("general.architecture", "unknown")
    if theirs != (ours := architecture(card, config)):
        raise BadInput(
            f"{base} on {server} is of the architecture {theirs}, and the adapter {card.id} was trained on one of {ours}. Name the "
            "model that it was trained on."
        )
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "adapter.gguf"
        to_gguf(folder, card, config, file)
        blob = client.create_blob(file)
    client.create(model=name, from_=base, adapters={file.name: blob})


def removed(client: Any, name: str) -> None:
    """What went wrong comes first, also where the server is gone by now; the name is then taken."""
    with contextlib.suppress(Exception):
        client.delete(name)


def from_the_same(shown: Mapping[str, Any]) -> str:
    """What to do about a base that is another model than that of the training."""
    return WRITTEN_DEFAULT if splits_as_if_unknown(shown) else FROM_THE_SAME


def next_tokens(client: Any, model: str, text: str) -> dict[str, float]:
    """As `MlxModel.next_tokens`, of the server. Empty where it does not tell, as of the end of a reply."""
    asked = next_tokens_body(model, text, 512)
    found = client.generate(**asked).model_dump()
    return top_tokens(found.get("logprobs"))


def next_tokens_body(model: str, text: str, context_tokens: int) -> dict[str, Any]:
    # What samplers do to a distribution is not what it is.
    options = {"num_predict": 1, "temperature": 0.0, "repeat_penalty": 1.0, "num_ctx": context_tokens}
    return {
        "model": model,
        "prompt": text,
        "raw": True,
        "stream": False,
        "logprobs": True,
        "top_logprobs": TOP,
        "options": options,
    }


def top_tokens(told: Sequence[Mapping[str, Any]] | None) -> dict[str, float]:
    return {entry["token"]: entry["logprob"] for entry in told[0]["top_logprobs"]} if told else {}
