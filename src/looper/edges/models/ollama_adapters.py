"""An adapter as a model of an Ollama server, where that is the same model as the one it was trained on.

It is sent as GGUF (`edges/trainers/gguf_adapter` says why). Ollama 0.24 takes adapters in its older engine alone, which serves the
architectures llama and qwen2 among others; on those of its newer one loading ends with "loras are not yet implemented".
"""

import contextlib
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from looper.edges.models.arrival import TOP, arrived
from looper.edges.models.mlx import MlxModel
from looper.edges.models.ollama import DEFAULT_URL, HOW_TO_START, quantisation, splits_as_if_unknown
from looper.edges.trainers.gguf_adapter import architecture, to_gguf
from looper.errors import BadInput, ModelMissing, ModelUnreachable
from looper.records.training import AdapterRecord

WHOLE = ("F32", "F16", "BF16")
"""Formats of weights that hold what was trained on."""
FROM_THE_SAME = "Make the base from the same weights, in F16 or F32."
WRITTEN_DEFAULT = (
    "Its file splits texts into words by the rule `default`, as Ollama writes of safetensors whose tokenizer it does not know. "
    "Make the base of a GGUF file that llama.cpp's convert_hf_to_gguf.py wrote of the same weights, in F16 or F32."
)


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

    The factors were fitted to the exact weights of the base. On a base that is quantised, here or there, or in another way
    than in training, they correct errors that are not there, and fused into it they are rounded away: refused. A made model that does
    not say what it says here is removed again. Raises BadInput, ModelMissing or ModelUnreachable.
    """
    import ollama

    server = url or DEFAULT_URL
    client: Any = ollama.Client(host=server)
    if card.base.quantisation.endswith("-bit"):
        raise BadInput(
            f"The adapter {card.id} was trained on a base of {card.base.quantisation}, which Ollama does not have: its "
            "formats quantise in another way. Train on the whole base, or serve with mlx:FOLDER."
        )
    try:
        found = {entry.model.removesuffix(":latest"): entry for entry in client.list().models}
        entry = found.get(base.removesuffix(":latest"))
        if entry is None:
            raise ModelMissing(f"Ollama at {server} has no model {base}. Get it with: ollama pull {base}")
        if name.removesuffix(":latest") in found:
            raise BadInput(
                f"Ollama at {server} has a model {name} already. Choose another name, or remove it: ollama rm {name}"
            )
        shown = client.show(base).modelinfo or {}
        level = quantisation(entry.details and entry.details.quantization_level, shown)
        if level not in WHOLE:
            raise BadInput(
                f"{base} on {server} is quantised ({level}), and the adapter was trained on whole weights "
                f"({card.base.quantisation}). Register it on an F16 model of the same base, or serve with mlx:FOLDER."
            )
        theirs = shown.get("general.architecture", "unknown")
        if theirs != (ours := architecture(card, config)):
            raise BadInput(
                f"{base} on {server} is of the architecture {theirs}, and the adapter {card.id} was trained on one of {ours}. Register it "
                "on the model that it was trained on."
            )
        with tempfile.TemporaryDirectory() as work:
            file = Path(work) / "adapter.gguf"
            to_gguf(folder, card, config, file)
            blob = client.create_blob(file)
        client.create(model=name, from_=base, adapters={file.name: blob})
        try:
            return arrived(
                partial(next_tokens, client, base),
                partial(next_tokens, client, name),
                model,
                folder,
                served=base,
                otherwise=WRITTEN_DEFAULT if splits_as_if_unknown(shown) else FROM_THE_SAME,
            ).said
        except BaseException:
            # What went wrong comes first, also where the server is gone by now; the name is then taken.
            with contextlib.suppress(Exception):
                client.delete(name)
            raise
    except ollama.ResponseError as error:
        raise BadInput(f"Ollama at {server} refused the adapter: {error.error}") from error
    except (httpx.TransportError, ConnectionError) as error:
        raise ModelUnreachable(f"Ollama at {server} cannot be reached. {HOW_TO_START}") from error


def next_tokens(client: Any, model: str, text: str) -> dict[str, float]:
    """As `MlxModel.next_tokens`, of the server. Empty where it does not tell, as of the end of a reply."""
    # What samplers do to a distribution is not what it is.
    options = {"num_predict": 1, "temperature": 0.0, "repeat_penalty": 1.0, "num_ctx": 512}
    found = client.generate(model, text, raw=True, logprobs=True, top_logprobs=TOP, options=options)
    return {entry.token: entry.logprob for entry in found.logprobs[0].top_logprobs} if found.logprobs else {}
