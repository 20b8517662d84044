"""Model servers that fail: rows L01 to L16, on every client, against scripted servers on loopback."""

import json
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from tests.fakes.scripted_http import LAST_CHUNK, Answer, ScriptedServer, chunk, free_port, stream_head, whole

from looper.edges.models.anthropic import AnthropicModel
from looper.edges.models.http import Patience
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.ollama_embeddings import OllamaEmbeddings
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.models.retrying import TELL_EVERY_S, RetryingModel, RetryPolicy
from looper.errors import (
    ModelError,
    ModelFatal,
    ModelMissing,
    ModelOverloaded,
    ModelReplyBroken,
    ModelServerFault,
    ModelTimeout,
    ModelUnreachable,
    PromptCut,
)
from looper.protocols import ChatModel, ChatRequest
from looper.records.trajectory import FinishReason

PATIENCE = Patience(first_byte_s=1.0, between_s=1.0)
REQUEST = ChatRequest(
    conversation="c",
    messages=(("system", "You fix things."), ("user", "Fix this.")),
    max_output_tokens=100,
    context_tokens=2048,
    temperature=0.5,
    seed=7,
    timeout_s=4.0,
)


class Client:
    """One kind of client, and how its server talks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def make(self, url: str) -> ChatModel:
        match self.name:
            case "ollama":
                return OllamaModel("m", base_url=url, context_tokens=2048, patience=PATIENCE)
            case "openai":
                return OpenAICompatibleModel("m", "", base_url=url, context_tokens=2048, patience=PATIENCE)
            case _:
                return AnthropicModel("m", "a key", base_url=url, context_tokens=2048, patience=PATIENCE)

    def text(self, text: str) -> bytes:
        match self.name:
            case "ollama":
                return (
                    json.dumps(
                        {"model": "m", "message": {"role": "assistant", "content": text}, "done": False},
                        ensure_ascii=False,
                    ).encode()
                    + b"\n"
                )
            case "openai":
                return self._event({"choices": [{"delta": {"content": text}, "finish_reason": None}]})
            case _:
                return self._event(
                    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
                )

    def end(self, reason: str = "stop", prompt_tokens: int = 12) -> bytes:
        match self.name:
            case "ollama":
                last = {
                    "model": "m",
                    "message": {"role": "assistant", "content": ""},
                    "done": True,
                    "done_reason": reason,
                }
                return (
                    json.dumps({**last, "prompt_eval_count": prompt_tokens, "eval_count": 5}).encode() + b"\n"
                )
            case "openai":
                usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 5}
                return (
                    self._event({"choices": [{"delta": {}, "finish_reason": reason}]})
                    + self._event({"choices": [], "usage": usage})
                    + b"data: [DONE]\n\n"
                )
            case _:
                why = {"stop": "end_turn", "length": "max_tokens"}[reason]
                return (
                    self._event(
                        {"type": "message_start", "message": {"usage": {"input_tokens": prompt_tokens}}}
                    )
                    + self._event(
                        {
                            "type": "message_delta",
                            "delta": {"stop_reason": why},
                            "usage": {"output_tokens": 5},
                        }
                    )
                    + self._event({"type": "message_stop"})
                )

    def error(self) -> bytes:
        if self.name == "ollama":
            return b'{"error":"llama runner process has terminated"}\n'
        return self._event({"type": "error", "error": {"type": "api_error", "message": "runner terminated"}})

    def _event(self, data: object) -> bytes:
        return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"

    def stream(self, *parts: bytes) -> list[bytes]:
        return [
            stream_head("application/x-ndjson" if self.name == "ollama" else "text/event-stream"),
            *map(chunk, parts),
        ]


@pytest.fixture(params=["ollama", "openai", "anthropic"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


def ask(client: Client, answer: Answer) -> object:
    with ScriptedServer(answer) as server:
        return client.make(server.url).reply(REQUEST)


def test_a_complete_reply_arrives_whole_with_its_counts(client: Client) -> None:
    reply = ask(
        client, [*client.stream(client.text("<bash>"), client.text("ls</bash>"), client.end()), LAST_CHUNK]
    )
    assert reply.text == "<bash>ls</bash>" and reply.finish_reason is FinishReason.STOP  # type: ignore[attr-defined]
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (12, 5)  # type: ignore[attr-defined]


def test_l01_nobody_listening(client: Client) -> None:
    with pytest.raises(ModelUnreachable, match=r"(Start|Check)"):
        client.make(f"http://127.0.0.1:{free_port()}").reply(REQUEST)


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("L02 hangs before the first byte", ModelTimeout),
        ("L03 hangs in mid stream", ModelTimeout),
        ("L04 drips for ever", ModelTimeout),
        ("L05 chunked stream cut", ModelReplyBroken),
        ("L06 ends without its end mark", ModelReplyBroken),
        ("L07 cut inside a line", ModelReplyBroken),
        ("L07 reset", ModelReplyBroken),
        ("L08 error line after 200", ModelServerFault),
        ("L09 429", ModelOverloaded),
        ("L09 503", ModelOverloaded),
        ("L09 529", ModelOverloaded),
        ("L09 spending limit", ModelFatal),
        ("L10 500", ModelServerFault),
        ("L11 404", ModelMissing),
        ("L16 no JSON", ModelReplyBroken),
        ("L16 another shape", ModelReplyBroken),
        ("400", ModelFatal),
    ],
)
def test_l02_to_l16_each_fault_ends_as_its_class(client: Client, case: str, error: type[ModelError]) -> None:
    first = client.text("<bash>l")
    answers: dict[str, Sequence[bytes | float | str]] = {
        "L02 hangs before the first byte": ["hang"],
        "L03 hangs in mid stream": [*client.stream(first), "hang"],
        "L04 drips for ever": [
            *client.stream(first),
            *[part for _ in range(40) for part in (0.5, chunk(client.text("a")))],
        ],
        "L05 chunked stream cut": [*client.stream(first), "close"],
        "L06 ends without its end mark": [*client.stream(first), LAST_CHUNK],
        "L07 cut inside a line": [*client.stream(first, client.text("b")[:-9]), LAST_CHUNK],
        "L07 reset": [*client.stream(first), 0.1, "reset"],
        "L08 error line after 200": [*client.stream(first, client.error()), LAST_CHUNK],
        "L09 429": whole(429, b'{"error":"slow down"}', "Retry-After: 7"),
        "L09 503": whole(503, b'{"error":"busy"}'),
        "L09 529": whole(529, b'{"error":{"message":"Overloaded"}}'),
        "L09 spending limit": whole(429, b'{"error":{"message":"You exceeded your current quota"}}'),
        "L10 500": whole(500, b'{"error":"model requires more system memory (9 GiB) than is available"}'),
        "L11 404": whole(404, b'{"error":"model \\"m\\" not found"}'),
        "L16 no JSON": [*client.stream(b"data: <html>sorry</html>\n\n"), LAST_CHUNK],
        "L16 another shape": [
            *client.stream(b'data: {"choices": 3, "delta": 4}\n\n{"message": 5}\n'),
            LAST_CHUNK,
        ],
        "400": whole(400, b'{"error":"bad option"}'),
    }
    begun = time.monotonic()
    with pytest.raises(error) as raised:
        ask(client, answers[case])
    assert time.monotonic() - begun < REQUEST.timeout_s + 10
    assert "\n" not in str(raised.value)
    if case == "L09 429":
        assert raised.value.retry_after_s == 7


def test_l13_a_reply_cut_at_the_output_limit_says_so(client: Client) -> None:
    reply = ask(client, [*client.stream(client.text("<bash>"), client.end("length")), LAST_CHUNK])
    assert reply.finish_reason is FinishReason.LENGTH  # type: ignore[attr-defined]


def test_l14_characters_split_across_chunks_arrive_whole(client: Client) -> None:
    data = client.text("größe → 😀") + client.end()
    assert "größe".encode() in data
    pieces = [data[at : at + 3] for at in range(0, len(data), 3)]
    reply = ask(client, [*client.stream(*pieces), LAST_CHUNK])
    assert reply.text == "größe → 😀"  # type: ignore[attr-defined]


def test_l16_an_empty_reply_is_the_models_behaviour_not_a_fault(client: Client) -> None:
    reply = ask(client, [*client.stream(client.end()), LAST_CHUNK])
    assert reply.text == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_l12_a_server_that_read_less_than_the_prompt_is_caught(kind: str) -> None:
    """G-34."""
    talk = Client(kind)
    long = ChatRequest("c", (("user", "word " * 5000),), 100, 32768, 0.0, 1, 4.0)
    with ScriptedServer([*talk.stream(talk.text("x"), talk.end(prompt_tokens=900)), LAST_CHUNK]) as server:
        with pytest.raises(PromptCut, match="900 tokens"):
            talk.make(server.url).reply(long)


def test_l12_ollama_is_always_told_window_limit_temperature_and_seed() -> None:
    talk = Client("ollama")
    with ScriptedServer([*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]) as server:
        talk.make(server.url).reply(REQUEST)
    body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
    assert body["options"] == {"num_ctx": 2048, "num_predict": 100, "temperature": 0.5, "seed": 7}
    assert body["keep_alive"] == "30m"


TAGS = {
    "models": [
        {
            "model": "m:latest",
            "name": "m:latest",
            "digest": "d1",
            "size": 1,
            "details": {"quantization_level": "Q4_K_M"},
        }
    ]
}


def test_l11_a_model_that_was_replaced_stops_the_run() -> None:
    other = {"models": [{**TAGS["models"][0], "digest": "d2"}]}
    version = whole(200, b'{"version":"0.9.9"}')
    answers = [
        whole(200, json.dumps(TAGS).encode()),
        version,
        whole(200, json.dumps(other).encode()),
        version,
    ]
    with ScriptedServer(*answers) as server:
        model = OllamaModel("m", base_url=server.url, context_tokens=2048, patience=PATIENCE)
        found = model.identity()
        assert (found.digest, found.quantisation, found.backend_version) == ("d1", "Q4_K_M", "0.9.9")
        with pytest.raises(ModelMissing, match="another m"):
            model.identity()


def test_a_model_that_was_not_pulled_is_named_with_the_command_that_gets_it() -> None:
    with ScriptedServer(whole(200, b'{"models":[]}')) as server:
        with pytest.raises(ModelMissing, match="ollama pull qwen:7b"):
            OllamaModel("qwen:7b", base_url=server.url, context_tokens=2048, patience=PATIENCE).identity()


def quick(model: ChatModel, **options: Any) -> tuple[RetryingModel, list[float]]:
    waits: list[float] = []
    found = RetryingModel(model, RetryPolicy(), sleep=waits.append, rng=random.Random(1), **options)
    return found, waits


VERSION = whole(200, b'{"version":"0.9.9"}')


def known(port: int, **policy: float) -> tuple[RetryingModel, list[str]]:
    """An Ollama model whose server has answered once and is gone, and what is told of waiting for it."""
    told: list[str] = []
    model = RetryingModel(
        Client("ollama").make(f"http://127.0.0.1:{port}"),
        RetryPolicy(**{"first_wait_s": 0.2, "longest_wait_s": 0.2, **policy}),
        tell=lambda why, seconds: told.append(why),
    )
    with ScriptedServer(whole(200, json.dumps(TAGS).encode()), VERSION, port=port):
        model.identity()
    return model, told


def back_after(seconds: float, port: int, *answers: Answer) -> list[ScriptedServer]:
    started: list[ScriptedServer] = []
    threading.Timer(seconds, lambda: started.append(ScriptedServer(*answers, port=port).__enter__())).start()
    return started


def test_l01_a_server_that_comes_back_costs_waiting_and_nothing_else() -> None:
    port, talk = free_port(), Client("ollama")
    model, told = known(port)
    started = back_after(1.0, port, [*talk.stream(talk.text("back"), talk.end()), LAST_CHUNK])
    reply = model.reply(REQUEST)
    assert reply.text == "back" and reply.retries >= 2 and reply.waited_s >= 0.5
    assert len(told) >= 2 and "cannot be reached" in told[-1]
    started[0].__exit__()


def test_j6_the_identity_of_a_server_that_is_down_for_a_moment_is_waited_for() -> None:
    port = free_port()
    model, told = known(port)
    started = back_after(1.0, port, whole(200, json.dumps(TAGS).encode()), VERSION)
    assert model.identity().digest == "d1" and told
    started[0].__exit__()


def test_j6_a_server_that_was_never_there_is_reported_at_once(client: Client) -> None:
    for ask_it in (lambda model: model.identity(), lambda model: model.reply(REQUEST)):
        model, waits = quick(client.make(f"http://127.0.0.1:{free_port()}"))
        with pytest.raises(ModelUnreachable, match="cannot be reached"):
            ask_it(model)
        assert not waits


def test_c8_what_never_went_well_is_not_asked_for_ten_minutes(client: Client) -> None:
    with ScriptedServer(whole(500, b'{"error":"no"}')) as server:
        model, waits = quick(client.make(server.url))
        model._clock = lambda: sum(waits)
        with pytest.raises(ModelServerFault):
            model.reply(REQUEST)
        assert len(server.requests) > 1 and sum(waits) <= RetryPolicy().untried_s


def test_c8_whoever_waits_long_is_told_every_ten_seconds() -> None:
    told: list[tuple[str, float]] = []
    talk = Client("openai")
    good = [*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]
    with ScriptedServer(whole(503, b'{"error":"loading"}', "Retry-After: 45"), good) as server:
        model, waits = quick(talk.make(server.url), tell=lambda *said: told.append(said))
        reply = model.reply(REQUEST)
    assert [round(seconds) for _, seconds in told] == [45, 35, 25, 15, 5] and "loading" in told[0][0]
    assert reply.retries == 1 and sum(waits) == pytest.approx(45)


def test_l09_a_server_that_asks_to_wait_is_not_asked_earlier(client: Client) -> None:
    good = [*client.stream(client.text("x"), client.end()), LAST_CHUNK]
    with ScriptedServer(whole(429, b"{}", "Retry-After: 33"), good) as server:
        model, waits = quick(client.make(server.url))
        assert model.reply(REQUEST).retries == 1
    assert sum(waits) >= 33 and max(waits) <= TELL_EVERY_S


def test_l10_patience_has_an_end(client: Client) -> None:
    with ScriptedServer(whole(500, b'{"error":"no memory"}')) as server:
        now = [0.0]
        inner = client.make(server.url)
        model = RetryingModel(
            inner,
            RetryPolicy(deadline_s=100),
            sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
            clock=lambda: now[0],
            rng=random.Random(1),
        )
        with pytest.raises(ModelServerFault):
            model.reply(REQUEST)
        assert 3 < len(server.requests) < 15 and now[0] <= 100


def test_what_cannot_pass_is_not_tried_again(client: Client) -> None:
    with ScriptedServer(whole(404, b'{"error":"gone"}')) as server:
        model, waits = quick(client.make(server.url))
        with pytest.raises(ModelMissing):
            model.reply(REQUEST)
        assert len(server.requests) == 1 and not waits


def test_waits_grow_and_differ_between_rollouts() -> None:
    waits = []
    for seed in (1, 2):
        model = RetryingModel(None, RetryPolicy(), rng=random.Random(seed))  # type: ignore[arg-type]
        waits.append([model._wait(faults, ModelServerFault("x")) for faults in range(1, 12)])
    assert waits[0] != waits[1] and max(waits[0]) <= 60 and waits[0][5] > waits[0][0]


def test_texts_are_embedded_once_and_compared_by_their_cosine() -> None:
    vectors = {"q": [1.0, 0.0], "same": [2.0, 0.0], "half": [1.0, 1.0], "none": [0.0, 0.0]}

    def answer(request: bytes) -> Sequence[Any]:
        asked = json.loads(request.partition(b"\r\n\r\n")[2])["input"]
        return whole(200, json.dumps({"embeddings": [vectors[text] for text in asked]}).encode())

    with ScriptedServer(answer) as server:
        alike = OllamaEmbeddings("m", server.url)
        assert alike("q", ["same", "half", "none"]) == pytest.approx([1.0, 0.5**0.5, 0.0])
        assert alike("q", ["same"]) == [1.0] and len(server.requests) == 1
    with pytest.raises(ModelUnreachable, match="cannot be reached"):
        OllamaEmbeddings("m", f"http://127.0.0.1:{free_port()}")("q", ["x"])
    missing = whole(404, b'{"error": "model \\"m\\" not found"}')
    with ScriptedServer(missing) as server, pytest.raises(ModelMissing, match="ollama pull m"):
        OllamaEmbeddings("m", server.url)("q", ["x"])
