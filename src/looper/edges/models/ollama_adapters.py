"""An adapter as a model of an Ollama server, where that is the same model as the one it was trained on.

It is sent as GGUF (`edges/trainers/gguf_adapter` says why). Ollama 0.24 takes adapters in its older engine alone, which serves the
architectures llama and qwen2 among others; on those of its newer one loading ends with "loras are not yet implemented".
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from looper.edges.models.arrival import TOP, Carried, ServedAdapter, arrived
from looper.edges.models.mlx import MlxModel
from looper.edges.models.ollama import (
    DEFAULT_URL,
    HOW_TO_START,
    OllamaModel,
    quantisation,
    splits_as_if_unknown,
)
from looper.edges.trainers.gguf_adapter import architecture, to_gguf
from looper.errors import BadInput, ModelMissing, ModelUnfit, ModelUnreachable
from looper.protocols import ChatRequest
from looper.records.training import AdapterRecord
from looper.records.trajectory import ModelIdentity, Reply

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
        adapter, client = self._carried.adapter, client_of(self._url)
        name = f"looper-{adapter.digest[:16]}-{digest.removeprefix('sha256:')[:12]}"
        with self._carried.lock, self._server.typed_faults():
            try:
                with refusals(self._url):
                    shown = shown_by(client, self._name)
                    if name not in names_of(client):
                        self._carried.lost()
                        make(
                            client,
                            self._url,
                            self._name,
                            name,
                            shown,
                            adapter.folder,
                            adapter.card,
                            adapter.config(),
                        )
                    self._answers = name
                    base, adapted = (partial(next_tokens, client, each) for each in (self._name, name))
                    self._carried.compare(
                        name, base, adapted, self._server.what, self._name, from_the_same(shown)
                    )
            except BadInput as error:
                raise ModelUnfit(str(error)) from error
            except ModelUnfit:
                # What has this name and is something else must not be found by the next one who asks.
                removed(client, name)
                raise


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
        shown = shown_by(client, base)
        make(client, server, base, name, shown, folder, card, config)
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


def client_of(url: str) -> Any:
    import ollama

    return ollama.Client(host=url)


@contextlib.contextmanager
def refusals(server: str) -> Iterator[None]:
    """Raises BadInput for what the server at this address refuses, and ModelUnreachable where there is none."""
    import ollama

    try:
        yield
    except ollama.ResponseError as error:
        raise BadInput(f"Ollama at {server} refused the adapter: {error.error}") from error
    except (httpx.TransportError, ConnectionError) as error:
        raise ModelUnreachable(f"Ollama at {server} cannot be reached. {HOW_TO_START}") from error


def names_of(client: Any) -> dict[str, str]:
    """Models of a server, and the format of their weights, as its list says it."""
    return {
        entry.model.removesuffix(":latest"): (entry.details and entry.details.quantization_level) or ""
        for entry in client.list().models
    }


def shown_by(client: Any, name: str) -> Mapping[str, Any]:
    """What the head of a model's file says."""
    return client.show(name).modelinfo or {}


def make(
    client: Any,
    server: str,
    base: str,
    name: str,
    shown: Mapping[str, Any],
    folder: Path,
    card: AdapterRecord,
    config: Mapping[str, Any],
) -> None:
    """Make a model of another one and an adapter. The adapter's factors were fitted to the exact weights of the base: on a base that is quantised, here or there, or in another way
    than in training, they correct errors that are not there, and fused into it they are rounded away. Raises BadInput for these."""
    if card.base.quantisation.endswith("-bit"):
        raise BadInput(
            f"The adapter {card.id} was trained on a base of {card.base.quantisation}, which Ollama does not have: its "
            "formats quantise in another way. Train on the whole base, or serve with mlx:FOLDER."
        )
    level = quantisation(names_of(client)[base.removesuffix(":latest")], shown)
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
    # What samplers do to a distribution is not what it is.
    options = {"num_predict": 1, "temperature": 0.0, "repeat_penalty": 1.0, "num_ctx": 512}
    found = client.generate(model, text, raw=True, logprobs=True, top_logprobs=TOP, options=options)
    return {entry.token: entry.logprob for entry in found.logprobs[0].top_logprobs} if found.logprobs else {}
