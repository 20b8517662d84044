"""Which models can be asked from here: those of servers that answer, and folders for MLX.

For `looper doctor`. Servers are looked for where they listen unless told otherwise, and at addresses that a person names. Only what they list
and show is asked: no model is loaded, no reply is paid for, and no key goes to whoever listens there.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from looper.edges.models.http import Server, Timeouts, certificates
from looper.edges.models.kept import added_models
from looper.edges.models.mlx import trained_tokens_in
from looper.edges.models.ollama import DEFAULT_URL as OLLAMA_URL
from looper.edges.models.ollama import (
    leaving_out_systems,
    quantisation,
    shown_of,
    splits_as_if_unknown,
    trained_tokens,
    window_bytes,
)
from looper.edges.models.ollama_adapters import WHOLE
from looper.edges.models.openai_compatible import DEFAULT_URLS
from looper.edges.models.served import kind_of, listed_models, told, trained_window
from looper.edges.trainers.estimate import serving_bytes
from looper.edges.trainers.gguf_adapter import ARCHITECTURES
from looper.errors import (
    BadInput,
    ModelDenied,
    ModelError,
    ModelFatal,
    ModelMissing,
    ModelOverloaded,
    one_line,
)

VLLM_URL = DEFAULT_URLS["vllm"].removesuffix("/v1")
USUAL: Mapping[str, str] = {
    OLLAMA_URL: "Ollama",
    "http://127.0.0.1:8080": "llama.cpp's server, mlx_lm.server",
    VLLM_URL: "vLLM",
}
"""Where each of them listens unless it is told otherwise."""
ANSWER_S = 1.8
"""For the questions that tell whether a model server is at a usual address. All addresses are asked at once."""
NAMED_S = 5.0
"""The same of an address that a person named, which may be far away."""
DETAILS_S = 5.0
"""For all that one server shows of its models."""
KEYS = "looper doctor sends no key; runs send VLLM_API_KEY to vllm:NAME@URL and OPENAI_API_KEY to openai:NAME@URL"
CALLED = {"vllm": "vLLM", "llamacpp": "llama.cpp's server", "mlx_lm": "mlx_lm.server"}
"""What a server of OpenAI's interface is called, by its kind. The help of `looper doctor` and docs/tour.md name all of these and of `USUAL`."""
_LONGER = {
    "vllm": "start vLLM with a larger --max-model-len",
    "llamacpp": "start llama-server with a larger -c, of which each slot has its share",
}
NO_ADAPTERS = "takes no adapters that were trained here: its weights on mlx:FOLDER do"
WRITTEN = f"those of {', '.join(ARCHITECTURES)}"


@dataclass(frozen=True)
class Usable:
    """A model, as a run can have it."""

    name: str
    """What `--model` is given."""
    adapters: str
    """Whether it takes those that were trained here, and how."""
    window: int | None = None
    """Tokens; None where nobody says."""
    is_served_so: bool = False
    """Whether its server was started with that window; else it is what the model was trained for."""
    needed: int | None = None
    """Bytes of memory, with the window that was asked about or its own if that is shorter; None where nobody says."""
    is_loaded: bool = False
    longer: str = "choose a model with a longer one"
    """How to get a longer window."""
    wrong: tuple[str, str] | None = None
    """What makes it another model than it seems, and the fix."""


@dataclass(frozen=True)
class Answering:
    """What answers at an address."""

    what: str
    models: Sequence[Usable] = ()
    fault: str = ""
    """Why its models are not known; empty where they are."""
    fix: str = ""


def model_servers(named: Sequence[str], window: int) -> list[Answering]:
    """Those that answer at usual addresses, and what is found at those that were named, with its fault where it is no model server.
    `window` in tokens."""

    def at(url: str) -> Answering | None:
        try:
            return _answering(url, window, NAMED_S if url in asked else ANSWER_S)
        except ModelError as error:
            fault = str(error).strip().rstrip(".")
            # Whoever listens at a usual address may be anything; what wants a key, or more time, may well be a model server.
            match error:
                case ModelDenied() if url in asked:
                    return Answering(url, fault=fault, fix=KEYS)
                case ModelDenied():
                    return Answering(
                        url, fault=f"what listens at {url} wants a key; it may be {USUAL[url]}", fix=KEYS
                    )
                case ModelOverloaded():
                    return Answering(url, fault=fault, fix="look again once it is up")
                case _ if url in asked:
                    return Answering(url, fault=fault, fix="start it, or name another address with --server")
            return None

    asked = dict.fromkeys(url.rstrip("/").removesuffix("/v1") for url in named)
    certificates()  # Read now, and not while somebody is waited for.
    urls = [*asked, *(url for url in USUAL if url not in asked)]
    with ThreadPoolExecutor(len(urls)) as pool:
        return [found for found in pool.map(at, urls) if found]


def _answering(url: str, window: int, within_s: float) -> Answering:
    """Raises ModelError where no model server answers."""
    server = Server(f"The server at {one_line(url)}", url, {}, "", Timeouts())
    end = time.monotonic() + within_s
    with server.typed_faults():
        try:
            version, _ = server.get("/api/version", total_s=within_s)
            is_ollama = "version" in version
        except ModelDenied:
            raise
        except ModelFatal:
            is_ollama = False
        ask = _ollama if is_ollama else _openai_compatible
        return ask(server, url, window, max(0.01, end - time.monotonic()))


def _ollama(server: Server, url: str, window: int, within_s: float) -> Answering:
    listed, _ = server.get("/api/tags", total_s=within_s)
    entries = [dict(entry) for entry in listed["models"] or [] if entry["name"]]
    end = time.monotonic() + DETAILS_S
    models = [_ollama_model(server, url, entry, window, end) for entry in entries]
    return Answering(f"Ollama at {one_line(url)}", models)


def _ollama_model(server: Server, url: str, entry: Mapping[str, Any], window: int, end: float) -> Usable:
    name = one_line(str(entry["name"]))
    shown: Mapping[str, Any] = {}
    with suppress(ModelError):
        shown = shown_of(server, name, max(0.01, end - time.monotonic()))
    info = shown.get("model_info", {})
    tokens, size = trained_tokens(info), entry.get("size")
    wrong = None
    if splits_as_if_unknown(info):
        words = "splits texts into words by the rule `default`, as Ollama writes of safetensors whose tokenizer it does not know"
        wrong = words, "make it of a GGUF file that llama.cpp's convert_hf_to_gguf.py wrote"
    if template := leaving_out_systems(shown):
        wrong = (
            f"its chat template leaves out what a system says ({template})",
            "give it another one in a Modelfile",
        )
    return Usable(
        f"ollama:{name}{'' if url == OLLAMA_URL else f'@{one_line(url)}'}",
        _ollama_adapters(entry, info),
        tokens,
        needed=(size if isinstance(size, int) else 0) + window_bytes(info, min(tokens or window, window)),
        wrong=wrong,
    )


def _ollama_adapters(entry: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    kind = info.get("general.architecture")
    details = entry.get("details")
    level = quantisation(isinstance(details, dict) and details.get("quantization_level"), info)
    if kind is None:
        return "whether it takes adapters is not known"
    if kind not in ARCHITECTURES.values():
        return f"takes no adapters: none are written for {one_line(str(kind))}; train on mlx:FOLDER and serve there"
    if level not in WHOLE:
        return _quantised(level)
    return f"takes adapters that were trained on the same weights ({level})"


def _quantised(level: str) -> str:
    why = "of a format that is not told" if level == "unknown" else f"quantised ({level})"
    return f"takes no adapters, being {why}; F16 or F32 of it does"


def _openai_compatible(server: Server, url: str, window: int, within_s: float) -> Answering:
    none = f"{server.what} has no list of models"
    listed, headers = server.get("/v1/models", none, within_s)
    if isinstance(listed, dict) and "data" not in listed:
        raise ModelMissing(none)
    found, end = listed_models(listed), time.monotonic() + DETAILS_S

    def shown(path: str) -> Any:
        """None where it shows no such thing, or not in time."""
        with suppress(ModelError):
            return server.get(path, total_s=max(0.01, end - time.monotonic()))[0]
        return None

    def ask(path: str) -> Mapping[str, Any]:
        answer = shown(path)
        return answer if isinstance(answer, dict) else {}

    kind, models = kind_of({}, headers), []
    for name, entry in found.items():
        if entry.get("parent"):
            continue  # An adapter that was loaded, beside its base.
        kind = kind_of(entry, headers)
        known = told(server.what, found, entry, ask)
        whole = f"openai:{one_line(name)}@{one_line(url)}/v1"
        if kind not in _LONGER:
            trained = trained_window(url, known.weights)
            # Without it the folder that a name seems to be is not one of this machine.
            models.append(_in_folder(whole, NO_ADAPTERS, Path(name if trained else ""), trained, window))
            continue
        if kind == "vllm":
            whole = f"vllm:{one_line(name)}{'' if url == VLLM_URL else f'@{one_line(url)}'}"
        models.append(
            Usable(
                whole,
                _vllm_adapters(shown) if kind == "vllm" else _llamacpp_adapters(shown, known.quantisation),
                known.window,
                is_served_so=True,
                is_loaded="status"
                not in entry,  # Else it is one of a router's, which loads what is asked for.
                longer=_LONGER[kind],
            )
        )
    what = CALLED.get(kind, "A server of OpenAI's interface")
    return Answering(f"{what} at {one_line(url)}", models)


def _vllm_adapters(shown: Callable[[str], Any]) -> str:
    routes = shown("/openapi.json")
    if isinstance(routes, dict) and "/v1/load_lora_adapter" not in routes.get("paths", {}):
        return (
            "takes no adapters as it was started: VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora let it"
        )
    return "loads adapters by name and folder, where it was started with --enable-lora: --adapter ID"


def _llamacpp_adapters(shown: Callable[[str], Any], quantised: str) -> str:
    level = re.sub(r"^(\(guessed\) )?(all )?", "", one_line(quantised))
    if level not in (*WHOLE, "unknown"):
        return _quantised(level)
    held = shown("/lora-adapters")
    names = [Path(str(each["path"])).name for each in held] if isinstance(held, list) else []
    if names:
        return f"was started with adapters ({one_line(', '.join(names))}): --adapter ID"
    return f"takes adapters as GGUF at its start, {WRITTEN} (--lora-scaled FILE:0 --cache-ram 0)"


def folders(models: Path, window: int) -> Iterator[Usable]:
    """Models that are kept by name below `models`, and downloaded ones that MLX can load. `window` in tokens."""
    places = {f"mlx:{name}": models / name for name, _, _ in added_models(models)}
    for name, folder in {**places, **{f"mlx:{place}": place for place in _downloaded()}}.items():
        tokens = trained_tokens_in(folder)
        yield _in_folder(name, "trains adapters, and carries them: --adapter ID", folder, tokens, window)


def _in_folder(name: str, adapters: str, folder: Path, tokens: int | None, window: int) -> Usable:
    make = partial(Usable, one_line(name, 300), adapters, tokens)
    if not folder.is_absolute() or not folder.is_dir():
        return make()
    try:
        return make(needed=serving_bytes(folder, min(tokens or window, window)))
    except BadInput as error:
        return make(wrong=(str(error).rstrip("."), "make it again"))


def _downloaded() -> Iterator[Path]:
    """The present snapshot of each language model in Hugging Face's cache, with weights that MLX loads."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    hub = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
    for kept in sorted(hub.glob("models--*")):
        with suppress(OSError, ValueError, AttributeError, TypeError):
            folder = kept / "snapshots" / (kept / "refs" / "main").read_text("utf-8").strip()
            config = json.loads((folder / "config.json").read_text("utf-8"))
            speaks = any(str(each).endswith("ForCausalLM") for each in config.get("architectures") or ())
            if speaks and any(folder.glob("*.safetensors")):
                yield folder.absolute()
