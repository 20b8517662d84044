"""What stays the same of what a server of the chat-completions API says of a model.

Its list of models gives little. `created` is the time of the request in vLLM, llama.cpp's server and mlx_lm.server (`ModelCard` in
vllm/entrypoints/openai, `get_models` in tools/server/server-context.cpp, `APIHandler` in mlx_lm/server.py), and so are the ids of
vLLM's `permission`. The window that llama.cpp's server fits to the memory it finds (`n_ctx`) can be another after a restart. Only
what is named here is read, therefore.

A fingerprint by the logprobs of a fixed prompt is left out, though it would tell models apart. With llama.cpp on a CPU it was the same
to six decimals alone, from the cache and beside three other requests; of twelve requests to vLLM on a CPU, alone and together,
eight were equal. However figures are rounded, some lie on an edge, and a run whose model seems another cannot go on; hosted models
would be paid for at every cell. In its place stand the weights themselves, where the server runs on this machine and says where they
lie.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from looper.edges.models.digests import FileDigests
from looper.edges.models.heard import counted
from looper.edges.models.mlx import ADAPTER_CONFIG, folder_digest, trained_tokens_in
from looper.errors import ModelOverloaded

LISTED = ("id", "root", "parent", "max_model_len", "owned_by")
"""Of an entry of that list. `root` is vLLM's name or folder of the weights, `parent` the base of an adapter."""
COUNTED = ("n_params", "n_vocab", "n_ctx_train", "n_embd", "size", "vocab_type")
"""Of an entry's `meta` in llama.cpp's server: read from the file's header."""
SHOWN = ("model_path", "chat_template")
"""Of `/props` of llama.cpp's server."""

_SPLIT = re.compile(r"(?P<model>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class Told:
    """What makes a model that is served."""

    facts: Mapping[str, Any]
    version: str
    """Of the server's software; empty where it gives none beside its header."""
    quantisation: str = "unknown"
    weights: tuple[str, ...] = ()
    """Where they may lie on the server's machine."""
    window: int | None = None
    """Tokens that a request may have; no part of what the model is, since it can be fitted to free memory."""


def listed_models(answer: Any) -> dict[str, Any]:
    """Entries of an answer to `/v1/models`, by their names."""
    entries = answer.get("data") if isinstance(answer, dict) else answer
    return {str(entry["id"]): entry for entry in entries or []}


def kind_of(entry: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """Of server, by such an entry and the headers beside it: `vllm`, `llamacpp`, `library` (Ollama's other door), `mlx_lm`, or whoever else owns it."""
    # mlx_lm.server names no owner, and is Python's own HTTP server.
    plain = "mlx_lm" if "BaseHTTP" in headers.get("server", "") else ""
    return str(entry.get("owned_by") or plain)


def told(
    what: str,
    listed: Mapping[str, Mapping[str, Any]],
    entry: Mapping[str, Any],
    ask: Callable[[str], Mapping[str, Any]],
) -> Told:
    """From an entry of the list of models, and from what else the server shows: `ask` gives what it has at a path above `/v1`, or
    nothing where it has none. Raises ModelError: while a server starts, what it says is not complete."""
    facts = {key: entry[key] for key in LISTED if isinstance(entry.get(key), str | int) and entry[key]}
    match entry.get("owned_by"):
        case "llamacpp":
            return _of_llamacpp(what, facts, entry, ask)
        case "vllm":
            version = str(ask("/version").get("version") or "")
            base = listed.get(str(facts.get("parent")), {})
            roots = tuple(str(each["root"]) for each in (entry, base) if each.get("root"))
            return Told(
                {**facts, "roots": roots},
                f"vLLM {version}" if version else "",
                weights=roots,
                window=counted(entry.get("max_model_len")),
            )
        case "library":
            # Ollama's other door. `id` is what `model` is at its own.
            named = (each for each in ask("/api/tags").get("models") or [] if each["model"] == entry["id"])
            own: Mapping[str, Any] = next(named, {})
            digest = {"digest": str(own["digest"])} if own else {}
            version = str(ask("/api/version").get("version") or "")
            quantisation = (own.get("details") or {}).get("quantization_level")
            return Told(
                facts | digest, f"Ollama {version}" if version else "", str(quantisation or "unknown")
            )
        case _:
            # mlx_lm.server names a model by its folder, and says nothing else.
            return Told(facts, "", weights=(str(facts["id"]),))


def _of_llamacpp(
    what: str, facts: Mapping[str, Any], entry: Mapping[str, Any], ask: Callable[[str], Mapping[str, Any]]
) -> Told:
    if "status" in entry:
        return Told(facts, "")  # A router: what it says of a model depends on whether that is loaded.
    props = ask("/props")
    if "meta" in entry and entry["meta"] is None:
        raise ModelOverloaded(f"{what} is still loading {facts['id']}.")
    meta = entry.get("meta") or {}
    requests = props.get("default_generation_settings") or {}
    settings = requests.get("params") or {}
    shown = {key: str(props[key]) for key in SHOWN if props.get(key)}
    adapters = {"lora": settings["lora"]} if settings.get("lora") else {}
    build = str(props.get("build_info") or "")
    return Told(
        {
            **facts,
            **{key: meta[key] for key in COUNTED if isinstance(meta.get(key), int)},
            **shown,
            **adapters,
        },
        f"llama.cpp {build}" if build else "",
        str(meta.get("ftype") or "unknown"),
        (shown.get("model_path", ""),),
        counted(requests.get("n_ctx")),  # Of one slot.
    )


def weights_digest(url: str, weights: Sequence[str], digests: FileDigests) -> str:
    """Of files and folders of weights, where a server on this machine says that they lie; empty for what is not to be seen here."""
    return "".join(_digest_of(Path(place), digests) for place in weights if is_loopback(url))


def trained_window(url: str, weights: Sequence[str]) -> int | None:
    """Tokens by the configuration of a folder of weights, where a server on this machine says that it lies; None where none is to be seen."""
    places = (Path(place) for place in weights if is_loopback(url))
    found = (trained_tokens_in(place) for place in places if place.is_absolute())
    return next((window for window in found if window), None)


def _digest_of(place: Path, digests: FileDigests) -> str:
    if not place.is_absolute():
        return ""
    try:
        if any((place / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
            return folder_digest(place, digests)
        whole = place.suffix == ".gguf" and place.is_file()
        return "".join(digests.of(part) for part in _parts(place)) if whole else ""
    except OSError:
        return ""


def _parts(file: Path) -> list[Path]:
    """All files of a model that lies in several, as `m-00001-of-00003.gguf`."""
    split = _SPLIT.fullmatch(file.name)
    if split is None:
        return [file]
    one, count = split["model"], split["count"]
    return [file.with_name(f"{one}-{number:05}-of-{count}.gguf") for number in range(1, int(count) + 1)]


def is_loopback(url: str) -> bool:
    """Whether a server's address is one of this machine alone."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
