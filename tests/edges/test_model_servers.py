"""Model servers that fail: rows L01 to L16, on every client, against scripted servers on loopback."""

import gzip
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
from tests.fakes.routes import llamacpp, routes, said
from tests.fakes.scripted_http import (
    LAST_CHUNK,
    Answer,
    Move,
    ScriptedServer,
    chunk,
    free_port,
    stream_head,
    whole,
)

from looper.cli.settings import settings
from looper.cli.wiring import answering, trained_folder
from looper.edges.models import http
from looper.edges.models.anthropic import AnthropicModel
from looper.edges.models.arrival import ServedAdapter
from looper.edges.models.http import Timeouts
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.ollama_embeddings import OllamaEmbeddings
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.models.outage import Outage
from looper.edges.models.retrying import TELL_EVERY_S, RetryingModel, RetryPolicy
from looper.edges.models.samplers import BESIDE, KEPT_SILENT, said_of, untold
from looper.errors import (
    BadInput,
    ContextOverflow,
    ModelDenied,
    ModelError,
    ModelFatal,
    ModelMissing,
    ModelOverloaded,
    ModelReplyBroken,
    ModelServerFault,
    ModelTimeout,
    ModelUnfit,
    ModelUnpaid,
    ModelUnreachable,
    PromptCut,
    ReplyLate,
    ReplyWithheld,
    RequestRefused,
)
from looper.evolution.budget import Account, Allowance, Metered
from looper.protocols import CarriesThere, ChatModel, ChatRequest, Message, Windowed
from looper.records.generation import Role
from looper.records.model import BACKENDS, SERVERS, Backend, ModelSpec
from looper.records.plan import Sampling
from looper.records.trajectory import FinishReason, Reply

PATIENCE = Timeouts(first_byte_s=2.0, between_s=1.0)
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
                return OllamaModel("m", base_url=url, context_tokens=2048, timeouts=PATIENCE)
            case "openai" | "vllm" as backend:
                return OpenAICompatibleModel(
                    "m", "", base_url=url, context_tokens=2048, backend=backend, timeouts=PATIENCE
                )
            case "anthropic":
                return AnthropicModel("m", "a key", base_url=url, context_tokens=2048, timeouts=PATIENCE)
            case _:
                pytest.fail(f"tests/edges/test_model_servers.py, Client, has nothing for {self.name}")

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
            case "openai" | "vllm":
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
            case "openai" | "vllm":
                usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 5}
                return (
                    self._event({"choices": [{"delta": {}, "finish_reason": reason}]})
                    + self._event({"choices": [], "usage": usage})
                    + b"data: [DONE]\n\n"
                )
            case _:
                why = {"stop": "end_turn", "length": "max_tokens"}.get(reason, reason)
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


@pytest.fixture(params=SERVERS)
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


CUT_NO_PROMPT: dict[str, str] = {"anthropic": "its API refuses a prompt that does not fit"}
"""Servers whose counts need no comparison with what they were sent, with the reason."""


@pytest.mark.parametrize("kind", [name for name in SERVERS if name not in CUT_NO_PROMPT])
def test_l12_a_server_that_read_less_than_the_prompt_is_caught(kind: str) -> None:
    """G-34: by `Counts.check` of `edges/models/heard`, or the server stands in CUT_NO_PROMPT."""
    talk = Client(kind)
    long = ChatRequest("c", (("user", "word " * 5000),), 100, 32768, 0.0, 1, 4.0)
    with ScriptedServer([*talk.stream(talk.text("x"), talk.end(prompt_tokens=900)), LAST_CHUNK]) as server:
        with pytest.raises(PromptCut, match="900 tokens"):
            talk.make(server.url).reply(long)


def asked(kind: str, request: ChatRequest = REQUEST, owner: str | None = "unasked") -> dict[str, Any]:
    """What is sent for a request; of servers with OpenAI's interface to one whose models have this owner, where it was asked first."""
    talk = Client(kind)
    reply = [*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]
    entry = {"id": "m", **({"owned_by": owner} if owner else {}), "meta": {}}
    listed = whole(
        200,
        json.dumps({"data": [entry]}).encode(),
        *(() if owner else ("Server: BaseHTTP/0.6 Python/3.11.2",)),
    )
    shown = whole(200, b"{}")
    before = {
        "vllm": [listed, shown],
        "llamacpp": [listed, whole(200, b"[]"), shown],
        "library": [listed, shown, shown],
    }.get(owner or "", [] if owner == "unasked" else [listed])
    with ScriptedServer(*before, reply) as server:
        model = talk.make(server.url)
        if before:
            assert isinstance(model, OpenAICompatibleModel)
            said = model.identity().sampler
            assert (said is None) == (owner not in ("library", "somebody")), said
        model.reply(request)
        found: dict[str, Any] = json.loads(server.requests[-1].partition(b"\r\n\r\n")[2])
    return found


def _leaves(body: object) -> list[object]:
    match body:
        case dict():
            return [leaf for value in body.values() for leaf in _leaves(value)]
        case list():
            return [leaf for value in body for leaf in _leaves(value)]
        case _:
            return [body]


HAS_NO_SEED = {"anthropic": "its API has none"}
"""Backends whose servers take no seed, with the reason."""


DRAWS_BY_NOTHING_ELSE = {
    "vllm": "what a server is started with is a default of the same parameters",
    "openai": "of each kind of server that it speaks to by itself",
}
"""Backends whose servers draw by nothing that `samplers.NAMES` has not, with the reason."""


def test_what_else_a_server_draws_by_is_turned_off_or_there_is_nothing(client: Client) -> None:
    """Left on, it would draw by it, and the model's identity would say that all was said."""
    silent = client.name.startswith(KEPT_SILENT) and client.name not in DRAWS_BY_NOTHING_ELSE
    ways = [client.name in BESIDE, client.name in DRAWS_BY_NOTHING_ELSE, silent]
    assert ways.count(True) == 1, (
        f"{client.name} is to stand in samplers.BESIDE, in samplers.KEPT_SILENT, or with its reason in DRAWS_BY_NOTHING_ELSE"
    )


def test_every_client_sends_what_it_is_asked_for(client: Client) -> None:
    """Whatever its server calls it: the model, all that was said, the limit, temperature and seed, and how to sample."""
    given = {"top_k": 17, "top_p": 0.75, "min_p": 0.03}
    can_be_told = [name for name in given if name not in untold(SAYS_ITS_KIND.get(client.name, client.name))]
    sampling = Sampling(**{name: given[name] for name in can_be_told})  # type: ignore[arg-type]
    said: tuple[Message, ...] = (*REQUEST.messages, ("assistant", "I look."), ("user", "It fails."))
    request = replace(REQUEST, sampling=sampling, messages=said)
    body = asked(client.name, request, "vllm" if client.name == "vllm" else "unasked")
    sent = _leaves(body)
    texts = " ".join(str(each) for each in sent)
    wanted: dict[str, object] = {"the model": "m", "the limit of the reply": 100, "the temperature": 0.5}
    if client.name not in HAS_NO_SEED:
        wanted["the seed (or HAS_NO_SEED says why not)"] = 7
    wanted |= {name: given[name] for name in can_be_told}
    missing = [name for name, value in wanted.items() if value not in sent]
    missing += [text for _, text in said if text not in texts]
    assert not missing, f"{client.name} is not sent {', '.join(missing)}"
    turns = [each["role"] for each in body["messages"] if each["role"] != "system"]
    assert turns == ["user", "assistant", "user"], f"{client.name} is sent who spoke as {turns}"
    places = [texts.index(text) for role, text in said if role != "system"]
    assert places == sorted(places), f"{client.name} is not sent what was said in its order"


def test_what_its_traits_say_of_a_server_is_so(client: Client) -> None:
    """`BackendTraits` are believed by plans, runs and evolve, which never look: a model of a server reads what it is asked, is named,
    draws at some temperature, cannot be trained here, and says of an adapter that it has how it was seen, where it may have one."""
    backend = next(name for name in SERVERS if name == client.name)
    traits = BACKENDS[backend]
    assert (traits.reads, traits.shows_losses, traits.named) == (True, False, "always")
    assert traits.highest_temperature is None or traits.highest_temperature > 0
    adapter = cast(ServedAdapter, "looked at later")
    carrying = answering(ModelSpec(backend=backend, name="m"), "k", 2048, adapter=adapter)
    assert traits.may_carry_adapters is isinstance(carrying, CarriesThere)
    with pytest.raises(BadInput, match="cannot be trained here"):
        trained_folder(ModelSpec(backend=backend, name="m"), settings())


@pytest.mark.parametrize("backend", [name for name in SERVERS if BACKENDS[name].key])
def test_the_key_that_its_traits_name_is_sent(backend: Backend) -> None:
    with ScriptedServer(whole(500, b"{}")) as server:
        model = answering(ModelSpec(backend=backend, name="m", base_url=server.url), "a-key-of-mine", 2048)
        with pytest.raises(ModelError):
            model.identity()
        assert b"a-key-of-mine" in server.requests[-1].partition(b"\r\n\r\n")[0], (
            f"{backend} has a key ({BACKENDS[backend].key}), and does not send it"
        )


def test_l12_ollama_is_always_told_window_limit_seed_and_how_to_sample() -> None:
    body = asked("ollama")
    told = {"num_ctx": 2048, "num_predict": 100, "temperature": 0.5, "seed": 7}
    whole_distribution = {
        **{"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "mirostat": 0},
        **{"repeat_penalty": 1.0, "repeat_last_n": 64, "presence_penalty": 0.0, "frequency_penalty": 0.0},
    }
    assert body["options"] == {**told, **whole_distribution}
    assert body["keep_alive"] == "30m"


@pytest.mark.parametrize(
    ("owner", "penalty"),
    [("vllm", "repetition_penalty"), ("sglang", "repetition_penalty"), (None, "repetition_penalty"),
     ("llamacpp", "repeat_penalty"), ("library", ""), ("somebody", "")],
)  # fmt: skip
def test_a_server_is_told_by_its_own_names_to_cut_off_and_punish_nothing(
    owner: str | None, penalty: str
) -> None:
    body = asked("openai", owner=owner)
    assert (body["top_p"], body["presence_penalty"], body["frequency_penalty"]) == (1.0, 0.0, 0.0)
    if penalty:
        assert (body["top_k"], body["min_p"], body[penalty]) == (0, 0.0, 1.0)
    else:
        assert not {"top_k", "min_p", "repeat_penalty", "repetition_penalty"} & body.keys()


def test_the_model_of_a_role_that_proposes_programs_is_told_so_too() -> None:
    """Nobody has asked it before which server it is behind."""
    asked: list[dict[str, Any]] = []

    def answer(request: bytes) -> Iterable[Move]:
        if b"/chat/completions" not in request:
            return routes(llamacpp())(request)
        asked.append(json.loads(request.partition(b"\r\n\r\n")[2]))
        return said("yes", request)

    with ScriptedServer(answer) as server:
        model = OpenAICompatibleModel("m", "", base_url=f"{server.url}/v1", context_tokens=2048)
        Metered(model, Account(Allowance()), None, Role.LAB, 0, lambda spent: None).reply(REQUEST)
    assert (asked[0]["top_k"], asked[0]["min_p"], asked[0]["repeat_penalty"]) == (0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "owner"), [("anthropic", "unasked"), ("openai", "openai-internal"), ("openai", "unasked")]
)
def test_interfaces_that_cut_nothing_are_not_told_to(kind: str, owner: str) -> None:
    assert not {"top_p", "top_k", "presence_penalty"} & asked(kind, owner=owner).keys()
    cut = replace(REQUEST, sampling=Sampling(top_p=0.5))
    assert asked(kind, cut, owner)["top_p"] == 0.5


@pytest.mark.parametrize(
    ("kind", "sampling"),
    [("anthropic", {"min_p": 0.1}), ("anthropic", {"presence_penalty": 1.0}), ("openai", {"top_k": 40})],
)
def test_what_a_server_cannot_be_told_is_refused_before_it_is_asked(
    kind: str, sampling: dict[str, Any]
) -> None:
    with pytest.raises(ModelUnfit, match=rf"cannot be told {next(iter(sampling))}\. Take it out"):
        Client(kind).make("http://127.0.0.1:1").reply(replace(REQUEST, sampling=Sampling(**sampling)))


def test_anthropic_takes_no_temperature_above_one_and_none_is_lowered_in_silence() -> None:
    with pytest.raises(ModelUnfit, match=r"no temperature above 1, and the plan wants 1\.2"):
        Client("anthropic").make("http://127.0.0.1:1").reply(replace(REQUEST, temperature=1.2))


NO = {
    "quoted": "Unsupported parameter: 'presence_penalty' is not supported; use one of temperature, top_p",
    "alone": "unknown field presence_penalty",
}


@pytest.mark.parametrize("said", NO.values(), ids=NO)
def test_a_parameter_that_says_nothing_is_left_out_where_its_name_is_refused(said: str) -> None:
    """For every thread that was told so, whichever heard it first."""
    talk, both = Client("openai"), threading.Barrier(2)
    listed = whole(200, json.dumps({"data": [{"id": "m", "owned_by": "somebody"}]}).encode())
    no = whole(400, json.dumps({"error": {"message": said}}).encode())
    reply = [*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]
    bodies: list[dict[str, Any]] = []

    def answer(request: bytes) -> Answer:
        body = request.partition(b"\r\n\r\n")[2]
        if not body:
            return listed
        bodies.append(json.loads(body))
        if "presence_penalty" not in bodies[-1]:
            return reply
        both.wait(5)
        return no

    with ScriptedServer(answer) as server:
        model = talk.make(server.url)
        model.identity()
        with ThreadPoolExecutor() as pool:
            assert [one.text for one in pool.map(model.reply, [REQUEST, REQUEST])] == ["x", "x"]
    assert sorted("presence_penalty" in body for body in bodies) == [False, False, True, True]
    assert all("top_p" in body for body in bodies), "what is only listed as allowed goes on being sent"
    with ScriptedServer(no) as server, pytest.raises(ModelUnfit, match="presence_penalty"):
        talk.make(server.url).reply(replace(REQUEST, sampling=Sampling(presence_penalty=0.5)))


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


IDENTITIES: dict[str, Callable[[str], dict[str, dict[str, Any]]]] = {
    "ollama": lambda which: {
        "/api/tags": {"models": [{**TAGS["models"][0], "digest": which}]},
        "/api/version": {"version": "0.9.9"},
    },
    "openai": lambda which: {"/models": {"data": [{"id": "m", "owned_by": which}]}},
    "vllm": lambda which: {"/v1/models": {"data": [{"id": "m", "owned_by": "vllm", "root": which}]}},
    "anthropic": lambda which: {"/v1/models/m": {"id": "m", "created_at": which}},
}
"""What the server of each client says of its model, by path."""
SAYS_ITS_KIND = {"openai": "d1"}
"""Of backends whose server says itself of which kind it is, the kind that `IDENTITIES` of `d1` stands for."""
WINDOW = 4096
WINDOWS: dict[str, dict[str, dict[str, Any]]] = {
    "ollama": {"/api/show": {"model_info": {"any.context_length": WINDOW}}},
    "openai": {"/models": {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": WINDOW}]}},
    "vllm": {"/v1/models": {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": WINDOW}]}},
}
"""What the server of each client says of a model with a window of so many tokens, by path."""
TELL_NO_WINDOW = {"anthropic": "a model's window is in no reply of its API that is read here"}
"""Backends whose clients cannot ask for the window, with the reason: a prompt without room is found as it is refused."""


def test_the_identity_of_a_model_says_what_its_server_is_not_told_of_sampling(client: Client) -> None:
    said = IDENTITIES[client.name]("d1")
    with ScriptedServer(
        lambda request: whole(200, json.dumps(said.get(request.split()[1].decode(), {})).encode())
    ) as server:
        found = client.make(server.url).identity().sampler
    kind = SAYS_ITS_KIND.get(client.name, client.name)
    assert found == said_of(kind), f"identity() of {client.name} has not `sampler=said_of({kind!r})`"


def test_every_client_asks_its_server_for_the_window_or_says_why_not(client: Client) -> None:
    model = client.make("http://127.0.0.1:9")
    assert isinstance(model, Windowed) is (client.name not in TELL_NO_WINDOW), (
        f"{client.name} has `window_tokens`, and TELL_NO_WINDOW has it still"
        if isinstance(model, Windowed)
        else f"{client.name} has no `window_tokens` (protocols.Windowed), so that no plan is refused which wants more than its window"
    )
    if not isinstance(model, Windowed):
        return
    assert client.name in WINDOWS, (
        f"tests/edges/test_model_servers.py, WINDOWS, has nothing for {client.name}"
    )
    said = WINDOWS[client.name]
    with ScriptedServer(
        lambda request: whole(200, json.dumps(said.get(request.split()[1].decode(), {})).encode())
    ) as server:
        model = client.make(server.url)
        assert isinstance(model, Windowed)
        found = model.window_tokens()
    assert found == WINDOW, f"`window_tokens` of {client.name} gives {found} where its server says {WINDOW}"


def test_l11_a_model_that_was_replaced_stops_the_run_whatever_serves_it(client: Client) -> None:
    said = {"now": IDENTITIES[client.name]("d1")}
    with ScriptedServer(
        lambda request: whole(200, json.dumps(said["now"].get(request.split()[1].decode(), {})).encode())
    ) as server:
        model, waits = quick(client.make(server.url))
        first = model.identity()
        assert model.identity() == first
        said["now"] = IDENTITIES[client.name]("d2")
        with pytest.raises(ModelMissing, match=rf"{client.name} now serves another m \(.*\) than when it"):
            model.identity()
        with pytest.raises(ModelMissing):
            model.identity()
        said["now"] = IDENTITIES[client.name]("d1")
        assert model.identity() == first and not waits


def test_an_ollama_model_is_known_by_digest_precision_and_the_servers_version() -> None:
    with ScriptedServer(whole(200, json.dumps(TAGS).encode()), VERSION) as server:
        found = Client("ollama").make(server.url).identity()
    assert (found.digest, found.quantisation, found.backend_version) == ("d1", "Q4_K_M", "0.9.9")


def test_a_model_that_was_not_pulled_is_named_with_the_command_that_gets_it() -> None:
    with ScriptedServer(whole(200, b'{"models":[]}')) as server:
        with pytest.raises(ModelMissing, match="ollama pull qwen:7b"):
            OllamaModel("qwen:7b", base_url=server.url, context_tokens=2048, timeouts=PATIENCE).identity()


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


def test_c8_whoever_waits_is_told_all_the_while() -> None:
    told: list[tuple[str, float]] = []
    talk = Client("openai")
    good = [*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]
    with ScriptedServer(whole(503, b'{"error":"loading"}', "Retry-After: 45"), good) as server:
        model, waits = quick(talk.make(server.url), tell=lambda *said: told.append(said))
        reply = model.reply(REQUEST)
    left = [seconds for _, seconds in told]
    assert left[0] == 45 and all(0 < first - then <= 2 for first, then in pairwise(left)) and left[-1] <= 2
    assert "loading" in told[0][0]
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


class Hours:
    """A clock that only waiting moves on."""

    def __init__(self) -> None:
        self.now, self.told = 0.0, list[str]()

    def waiting_for(self, inner: ChatModel, outage: Outage) -> RetryingModel:
        return RetryingModel(
            inner,
            RetryPolicy(deadline_s=100),
            tell=lambda why, seconds: self.told.append(why),
            sleep=lambda seconds: setattr(self, "now", self.now + seconds),
            clock=lambda: self.now,
            rng=random.Random(1),
            outage=outage,
        )


def test_l10_an_outage_is_waited_for_once_however_many_requests_meet_it(client: Client) -> None:
    good = [*client.stream(client.text("x"), client.end()), LAST_CHUNK]
    well, hours, outage = {"now": True}, Hours(), Outage()
    with ScriptedServer(lambda request: good if well["now"] else whole(500, b"{}")) as server:
        models = [hours.waiting_for(client.make(server.url), outage) for _ in range(2)]
        for model in models:
            model.reply(REQUEST)
        well["now"] = False
        with pytest.raises(ModelServerFault):
            models[0].reply(REQUEST)
        assert 20 < hours.now <= 100
        for model in models * 3:
            with pytest.raises(ModelServerFault):
                model.reply(REQUEST)
        assert hours.now <= 100, "in all, and not each"
        well["now"] = True
        hours.now += 1000
        assert models[1].reply(REQUEST).retries == 0
        well["now"], begun = False, hours.now
        with pytest.raises(ModelServerFault):
            models[0].reply(REQUEST)
        assert 20 < hours.now - begun <= 100, "the next outage is another one"


def test_l10_a_server_that_says_what_it_is_and_completes_nothing_is_still_out() -> None:
    good = [*Client("ollama").stream(Client("ollama").text("x"), Client("ollama").end()), LAST_CHUNK]
    well, hours = {"now": True}, Hours()

    def answer(request: bytes) -> Answer:
        path = request.split()[1]
        if path == b"/api/tags":
            return whole(200, json.dumps(TAGS).encode())
        return VERSION if path == b"/api/version" else good if well["now"] else whole(500, b"{}")

    with ScriptedServer(answer) as server:
        model = hours.waiting_for(Client("ollama").make(server.url), Outage())
        model.reply(REQUEST)
        well["now"] = False
        for _ in range(4):
            model.identity()
            with pytest.raises(ModelServerFault):
                model.reply(REQUEST)
        assert 20 < hours.now <= 100


def test_l10_time_in_which_nobody_asks_is_no_part_of_an_outage_and_requests_side_by_side_count_once() -> None:
    now, outage = [0.0], Outage()
    with outage.waited_for(lambda: now[0]), outage.waited_for(lambda: now[0]):
        now[0] = 30.0
        assert outage.failed("reply", now[0]) == 30.0
    now[0] = 500.0
    with outage.waited_for(lambda: now[0]):
        now[0] = 510.0
        assert outage.failed("identity", now[0]) == 40.0
        outage.answered("identity", now[0])
        assert outage.failed("reply", now[0]) == 40.0
        outage.answered("reply", now[0])
        now[0] = 512.0
        assert outage.failed("reply", now[0]) == 2.0


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


@pytest.mark.parametrize(
    "vector", [[float("nan"), 1.0], [float("inf"), 1.0], [10**4000, 1.0], ["x", 1.0], [1.0], None, 3]
)
def test_embeddings_that_are_no_vectors_are_a_broken_reply(vector: object) -> None:
    body = json.dumps({"embeddings": [[1.0, 0.0], vector]}).encode()
    with ScriptedServer(whole(200, body)) as server, pytest.raises(ModelReplyBroken):
        OllamaEmbeddings("m", server.url)("q", ["x"])


def test_embeddings_of_any_size_have_a_cosine() -> None:
    body = json.dumps({"embeddings": [[1e308, 1e308], [1e-308, 0.0], [10**300, 10**300]]}).encode()
    with ScriptedServer(whole(200, body)) as server:
        assert OllamaEmbeddings("m", server.url)("q", ["x", "y"]) == pytest.approx([0.5**0.5, 1.0])


LONE = "half \ud83d done \udc97 and \0 end"


@pytest.mark.parametrize(
    "said", [LONE, "split \ud83d\ude00 whole"], ids=["lone halves and NUL", "split pair"]
)
def test_c2_whatever_was_said_before_can_be_sent(client: Client, said: str) -> None:
    talked = replace(REQUEST, messages=(*REQUEST.messages, ("assistant", said), ("user", said)))
    with ScriptedServer(
        [*client.stream(client.text("x"), client.end(prompt_tokens=40)), LAST_CHUNK]
    ) as server:
        assert client.make(server.url).reply(talked).text == "x"
    body = server.requests[0].partition(b"\r\n\r\n")[2].decode("utf-8", "strict")
    sent = json.loads(body)["messages"][-1]["content"]
    assert sent == said.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace(
        "\0", "\ufffd"
    )


OVERFLOWS = {
    'openai': (400, '{"error":{"message":"This model\'s maximum context length is 8192 tokens.","code":"context_length_exceeded"}}'),
    'vllm': (400, '{"object":"error","message":"The decoder prompt (length 9000) is longer than the maximum model length of 8192."}'),
    'llamacpp': (400, '{"error":{"code":400,"message":"request (3031 tokens) exceeds the available context size (512 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":3031,"n_ctx":512}}'),
    'llamacpp later': (500, '{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}'),
    'ollama': (400, '{"error":"the input length exceeds the context length"}'),
    'anthropic': (400, '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"}}'),
    'anthropic with the reply': (400, '{"error":{"message":"input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"}}'),
    'anthropic by size': (413, '{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}'),
    'TGI': (422, '{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 2100","error_type":"validation"}'),
    'SGLang': (400, '{"message":"The input (9000 tokens) is longer than the model\'s context length (8192 tokens)."}'),
    'Groq': (400, '{"error":{"message":"Please reduce the length of the messages or completion."}}'),
    'Google': (400, '{"error":{"message":"The input token count (40000) exceeds the maximum number of tokens allowed (32768)."}}'),
    'llama-cpp-python': (400, '{"error":{"message":"Requested tokens (9000) exceed context window of 2048"}}'),
}  # fmt: skip
"""Status and words of servers for a prompt without room, which `edges/models/faults` reads; for each backend under its own name."""


def test_c6_the_words_of_each_backends_server_for_a_prompt_without_room_are_known(client: Client) -> None:
    assert client.name in OVERFLOWS, (
        f"tests/edges/test_model_servers.py, OVERFLOWS, has nothing for {client.name}; faults._OVERFLOW must find its words"
    )


@pytest.mark.parametrize(("status", "body"), OVERFLOWS.values(), ids=OVERFLOWS)
def test_c6_a_prompt_without_room_is_told_by_every_servers_words(
    client: Client, status: int, body: str
) -> None:
    with pytest.raises(ContextOverflow) as raised:
        ask(client, whole(status, body.encode()))
    assert not raised.value.retryable and not isinstance(raised.value, ModelFatal)


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (400, {"error": {"message": "Unknown field: seed"}}, ModelUnfit),
        (400, {"detail": "stream_options: Extra inputs are not permitted"}, ModelUnfit),
        (400, {"error": '"m" does not support thinking'}, ModelUnfit),
        (404, {"error": "System role not supported"}, ModelUnfit),
        (400, {"message": "Conversation roles must alternate user/assistant/user/assistant/..."}, ModelUnfit),
        (500, {"error": {"message": "default chat template is no longer allowed"}}, ModelUnfit),
        (400, {"error": {"message": "messages.3: text content blocks must be non-empty"}}, RequestRefused),
        (400, {"error": {"message": "filtered", "code": "content_filter"}}, RequestRefused),
        (403, {"error": {"message": "Your input was flagged", "metadata": {"reasons": ["x"]}}}, RequestRefused),
        (400, {"error": {"message": "parse error, last read: 'the quota of credits'"}}, RequestRefused),
        (400, {"error": {"message": "Your credit balance is too low"}}, ModelUnpaid),
        (307, {}, ModelMissing),
        (405, {"detail": "Method Not Allowed"}, ModelMissing),
        (408, {}, ModelServerFault),
        (524, {}, ModelServerFault),
    ],
)  # fmt: skip
def test_c6_a_refusal_is_of_every_request_or_of_this_conversation(
    client: Client, status: int, said: object, error: type[ModelError]
) -> None:
    with pytest.raises(error) as raised:
        ask(client, whole(status, json.dumps(said).encode()))
    assert type(raised.value) is error and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("content_filter", ReplyWithheld),
        ("refusal", ReplyWithheld),
        ("something new", ReplyWithheld),
        ("error", ModelServerFault),
        ("abort", ModelServerFault),
        ("load", ModelServerFault),
        ("unload", ModelServerFault),
        ("model_context_window_exceeded", ContextOverflow),
    ],
)
def test_c7_m9_half_a_reply_is_never_taken_for_a_whole_one(
    client: Client, reason: str, error: type[ModelError]
) -> None:
    with pytest.raises(error):
        ask(client, [*client.stream(client.text("<bash>echo hal"), client.end(reason)), LAST_CHUNK])


def sse(*events: object) -> list[bytes]:
    return [b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in events]


def delta(fin: str | None = None, **what: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": what, "finish_reason": fin}]}


def usage(prompt: object, completion: object) -> dict[str, object]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def reply_to(*parts: bytes) -> Reply:
    talk = Client("openai")
    with ScriptedServer([*talk.stream(*parts), LAST_CHUNK]) as server:
        return talk.make(server.url).reply(REQUEST)


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("events", "text", "thinking"),
    [
        ([delta(content=[{"type": "text", "text": "hi"}])], "hi", ""),
        ([delta(content=[THOUGHT]), delta(content="hi")], "hi", "hm"),
        ([delta(reasoning="hm"), delta(content="hi")], "hi", "hm"),
        ([delta(reasoning_content="hm"), delta(content="hi")], "hi", "hm"),
        ([delta(reasoning_details=[{"type": "reasoning.text", "text": "hm"}]), delta(content="hi")], "hi", "hm"),
        ([{"choices": None}, {"choices": [{"delta": None}]}, [1], delta(content=None), delta(content="hi")], "hi", ""),
        ([{"choices": [{"index": 1, "delta": {"content": "other"}}]}, delta(content="hi")], "hi", ""),
        ([{"choices": [{"index": 0, "text": "hi"}]}], "hi", ""),
        ([{"choices": [{"message": {"content": "hi"}}]}], "hi", ""),
        ([{"new": {"deep": [1]}, "usage": [3], **delta(content="hi")}], "hi", ""),
        ([delta(content="a \ud83d"), delta(content="\ude00 b")], "a \U0001f600 b", ""),
    ],
)  # fmt: skip
def test_c7_m1_a_reply_is_read_in_every_shape_in_which_servers_send_it(
    events: list[object], text: str, thinking: str
) -> None:
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in [*events, delta("stop")]]
    found = reply_to(*lines)
    assert (found.text, found.thinking) == (text, thinking)


@pytest.mark.parametrize("content", [3, {"a": 1}, [3], True])
def test_c7_text_that_is_no_text_is_a_broken_reply(content: object) -> None:
    with pytest.raises(ModelReplyBroken, match="another shape"):
        reply_to(*sse(delta(content=content), delta("stop")))


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ((0, 0), (None, None)),
        (("40", "5"), (40, 5)),
        ((40.0, 5.0), (40, 5)),
        ((float("nan"), float("inf")), (None, None)),
        ((None, None), (None, None)),
        ((-3, True), (None, None)),
        (("many", [5]), (None, None)),
        ((1e308, 10**4000), (None, None)),
        (("1e308", "9" * 4000), (None, None)),
        ((10**12, 10**12 + 1), (10**12, None)),
        ((40.5, "5.0"), (None, 5)),
    ],
)
def test_c7_counts_are_numbers_of_tokens_or_absent(
    counts: tuple[object, object], found: tuple[int | None, int | None]
) -> None:
    reply = reply_to(*sse(delta(content="hi"), delta("stop"), usage(*counts)))
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == found


def test_c7_an_anthropic_count_in_parts_is_bounded_too() -> None:
    talk = Client("anthropic")
    parts = {"input_tokens": 10**12, "cache_read_input_tokens": 10**12, "output_tokens": 1e308}
    start = b"data: " + json.dumps({"type": "message_start", "message": {"usage": parts}}).encode() + b"\n\n"
    end = talk.end().partition(b"\n\n")[2].replace(b'"usage": {"output_tokens": 5}', b'"usage": {}')
    found = ask(talk, [*talk.stream(start, talk.text("hi"), end), LAST_CHUNK])
    assert found.usage.prompt_tokens is None and found.usage.completion_tokens is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("asked", "waits_s"),
    [("1e400", float("inf")), ("9" * 400, float("inf")), ("-5", 0.0), ("nan", None), ("soon", None)],
)
def test_l09_a_wait_that_is_asked_for_is_a_time_or_none(
    client: Client, asked: str, waits_s: float | None
) -> None:
    """One without an end ends the patience at once, as every longer one does."""
    with ScriptedServer(whole(429, b"{}", f"Retry-After: {asked}")) as server:
        with pytest.raises(ModelOverloaded) as raised:
            client.make(server.url).reply(REQUEST)
        assert raised.value.retry_after_s == waits_s
        model, waits = quick(client.make(server.url))
        model._clock = lambda: sum(waits)
        with pytest.raises(ModelOverloaded):
            model.reply(REQUEST)
    assert not waits or waits_s != float("inf")


def deep(levels: int) -> list[Any]:
    return [deep(levels - 1)] if levels else []


@pytest.mark.parametrize(
    "odd", [10**4000, float("inf"), "9" * 5000, "a\nb", deep(500), None, "", "/a\0b", "\ud800"], ids=range(9)
)
@pytest.mark.parametrize("owner", ["", "llamacpp", "vllm", "library"])
def test_c7_whatever_is_said_of_a_model_its_identity_is_one_line(odd: object, owner: str) -> None:
    entry = {
        "id": "m",
        "created": odd,
        "owned_by": owner,
        "root": odd,
        "parent": odd,
        "meta": {"size": odd, "ftype": odd},
    }
    shown = {
        "version": odd, "build_info": odd, "model_path": odd, "chat_template": odd, "models": [{"model": "m", "digest": odd}],
        "default_generation_settings": {"params": {"lora": odd}},
    }  # fmt: skip
    told = (
        whole(200, json.dumps(found).encode(), f"Server: {'x' * 5000}")
        for found in ({"data": [entry]}, shown)
    )
    with ScriptedServer(*told) as server:
        found = Client("openai").make(server.url).identity()
    assert len(found.digest) == 64 and max(len(found.backend_version), len(found.quantisation)) <= 320
    assert b"\n" not in found.to_json()


@pytest.mark.parametrize(
    ("details", "processed"),
    [
        ({"cached_tokens": 25}, 5),
        ({"cached_tokens": 0}, 30),
        ({"cached_tokens": 31}, None),
        ({"cached_tokens": "x"}, None),
        ({}, None),
        (None, None),
        ("odd", None),
    ],
)
def test_m19_what_a_server_had_in_its_cache_is_on_record(details: object, processed: int | None) -> None:
    talk = Client("openai")
    usage = {"prompt_tokens": 30, "completion_tokens": 3, "prompt_tokens_details": details}
    parts = (talk.text("x"), *sse(delta("stop")), *sse({"choices": [], "usage": usage}))
    with ScriptedServer([*talk.stream(*parts), LAST_CHUNK]) as server:
        found = talk.make(server.url).reply(REQUEST).usage
    assert (found.prompt_tokens, found.processed_prompt_tokens) == (30, processed)


def test_c7_names_of_models_that_are_there_are_said_in_one_line() -> None:
    listed = {"data": [{"id": "a\nb"}, {"id": "x" * 5000}]}
    tags = {"models": [{"model": f"a\nb{number}"} for number in range(1000)]}
    for kind, found in (("openai", listed), ("ollama", tags)):
        with ScriptedServer(whole(200, json.dumps(found).encode())) as server:
            with pytest.raises(ModelMissing, match="a b") as raised:
                Client(kind).make(server.url).identity()
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


@pytest.mark.parametrize("reason", [{"a": 1}, deep(500), True, 7])
def test_c7_a_reason_that_is_no_word_is_none(reason: object) -> None:
    with pytest.raises(ModelReplyBroken, match="without saying why"):
        reply_to(*sse({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": reason}]}))


def test_c7_a_reason_for_withholding_is_said_in_one_line() -> None:
    with pytest.raises(ReplyWithheld, match=r"\(a b\\x1b\[31m\)"):
        reply_to(*sse(delta("a\nb\x1b[31m")))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "This model's maximum context length is 8192 tokens", "code": 400}, ContextOverflow),
        ({"message": "Unknown parameter: x", "type": "invalid_request_error"}, ModelUnfit),
        ({"message": "no key", "type": "authentication_error"}, ModelDenied),
        ({"message": "slow down", "code": "429"}, ModelOverloaded),
        ({"message": "busy", "type": "overloaded_error"}, ModelOverloaded),
        ({"message": "Provider returned error", "code": 502}, ModelServerFault),
        ("out of memory", ModelServerFault),
    ],
)  # fmt: skip
def test_m2_an_error_inside_a_stream_is_as_bad_as_its_own_status(
    error: object, expected: type[ModelError]
) -> None:
    with pytest.raises(expected) as raised:
        reply_to(*sse(delta(content="h"), {"error": error}))
    assert type(raised.value) is expected


def test_m2_vllm_puts_its_error_in_the_place_of_an_event() -> None:
    with pytest.raises(ContextOverflow):
        reply_to(*sse({"object": "error", "message": "maximum context length is 8", "code": 400}))


def test_m3_an_error_without_a_stream_keeps_its_words(client: Client) -> None:
    with pytest.raises(ModelOverloaded, match="model is loading"):
        ask(client, whole(200, b'{\n "error": {"message": "model is loading", "code": 503}\n}'))


def test_m4_a_model_that_refuses_max_tokens_is_asked_with_the_other_name() -> None:
    talk = Client("openai")
    refused = whole(
        400, b'{"error":{"message":"Unsupported parameter: use \'max_completion_tokens\' instead."}}'
    )
    good = [*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]
    with ScriptedServer(refused, good) as server:
        model = talk.make(server.url)
        assert model.reply(REQUEST).text == model.reply(REQUEST).text == "x"
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    assert [body.get("max_tokens") for body in bodies] == [100, None, None]
    assert [body.get("max_completion_tokens") for body in bodies] == [None, 100, 100]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_m5_lines_of_a_stream_end_at_newlines_only(client: Client, mark: str) -> None:
    reply = ask(client, [*client.stream(client.text(f"a{mark}b"), client.end()), LAST_CHUNK])
    assert reply.text == f"a{mark}b"  # type: ignore[attr-defined]


def test_m5_an_event_may_take_several_lines_and_need_no_blank_one() -> None:
    found = reply_to(
        b'data:\n: ping\nevent: x\nid: 1\nretry: 3\ndata: {"choices":\ndata: [{"delta":{"content":"h"}}]}\n\n',
        b'data:{"choices":[{"delta":{"content":"i"}}]}\r\n',
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\ndata: [DONE]\n',
    )
    assert found.text == "hi"


@pytest.mark.parametrize("characters", [1000, 2_000_000])
def test_m5_a_reply_has_an_end_however_it_is_cut_into_lines(
    characters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 1 << 20)
    events, (piece,) = http._Events("m"), sse(delta(content="x" * characters))
    with pytest.raises(ModelReplyBroken, match="more than 1 MiB for one reply"):
        for _ in range(2_000_000 // characters):
            list(events.feed(piece))


def test_m5_a_long_line_is_read_once() -> None:
    """In pieces as the network cuts them; joined anew at each of them, this took a minute."""
    line = json.dumps(delta(content="x" * (32 << 20))).encode()
    events, begun = http._Events("m"), time.monotonic()
    for at in range(0, len(line), 4096):
        assert not list(events.feed(line[at : at + 4096]))
    assert len(list(events.feed(b"\n"))) == 1 and time.monotonic() - begun < 5


@pytest.mark.parametrize("line", [b"data: ,[]\n", b"data: ,1\n", b',{"a":"]"}\n', b': "]"\n', b'"}\n'])
def test_m5_an_event_that_never_ends_is_read_once(line: bytes) -> None:
    """Tried anew at each line that may be its last, this took minutes, in which nobody else was heard."""
    events, begun = http._Events("m"), time.monotonic()
    assert not list(events.feed(b"data: [[]\n"))
    for _ in range(40):
        assert not list(events.feed(line * 2000))
    with pytest.raises(ModelReplyBroken, match="no JSON"):
        list(events.end())
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("kind", ["openai", "ollama"])
def test_m5_who_never_ends_an_event_keeps_nobody_else_waiting(kind: str) -> None:
    talk, lines = Client(kind), [chunk(b",[]\n" * 2000)] * 40
    good = [*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]
    faults: list[type[Exception]] = []

    def hostile(url: str) -> None:
        try:
            talk.make(url).reply(REQUEST)
        except ModelError as error:
            faults.append(type(error))

    with ScriptedServer([*talk.stream(b"[[]\n"), *lines, LAST_CHUNK]) as first, ScriptedServer(good) as other:
        thread = threading.Thread(target=hostile, args=(first.url,))
        thread.start()
        begun, answered = time.monotonic(), 0
        while thread.is_alive() or not answered:
            assert talk.make(other.url).reply(REQUEST).text == "x"
            answered += 1
        thread.join()
    assert faults == [ModelReplyBroken] and time.monotonic() - begun < 3


def test_m5_a_body_that_is_printed_over_many_lines_is_read_once() -> None:
    body = {"more": [[at, "]}"] for at in range(20_000)], **delta(content="hi ]}")}
    events, begun = http._Events("m"), time.monotonic()
    found = [*events.feed(json.dumps(body, indent=1).encode()), *events.end()]
    assert found == [body] and time.monotonic() - begun < 2


def test_m5_brackets_in_texts_are_no_brackets() -> None:
    texts = ['{"', "\\", '\\"', "]}]}", '"[', "\\\\{", "}\n{"]
    events = http._Events("m")
    for text in texts:
        event = {"a": [text], text: {"b": text}}
        cut = json.dumps(event, indent=1).encode().replace(b"\n", b"\ndata: ")
        assert list(events.feed(b"data: " + cut + b"\n")) == [event]


def test_m5_words_are_not_looked_for_again_and_again() -> None:
    """Who says nothing a hundred thousand times is heard in time that grows with it, not with its square."""
    begun = time.monotonic()
    nothing = b"".join(sse(delta(content="", reasoning=[{"text": ""}]))) * 1000
    found = reply_to(*[nothing] * 30, *sse(delta(content="hi"), delta("stop")))
    assert found.text == "hi" and time.monotonic() - begun < 3


def packed(data: bytes, status: int = 200) -> Answer:
    return whole(status, gzip.compress(data, 1), "Content-Encoding: gzip")


def test_m5_a_packed_reply_is_unpacked_though_nobody_asks_for_one(client: Client) -> None:
    with ScriptedServer(packed(client.text("hi") + client.end())) as server:
        assert client.make(server.url).reply(REQUEST).text == "hi"
    assert b"accept-encoding: identity" in server.requests[0].lower()


@pytest.mark.parametrize("how", ["br", "gzip, gzip", "gzip"])
def test_m5_a_reply_that_cannot_be_unpacked_is_a_broken_one(client: Client, how: str) -> None:
    with pytest.raises(ModelReplyBroken, match="packed"):
        ask(client, whole(200, b"not packed", f"Content-Encoding: {how}"))


def test_m5_a_packed_reply_is_unpacked_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time and size are looked at between the pieces: each hundred bytes here may become a hundred thousand."""
    client, bomb, begun = Client("openai"), packed(b"\n" * (32 << 20)), time.monotonic()
    with ScriptedServer(bomb) as server, pytest.raises(ReplyLate):
        client.make(server.url).reply(replace(REQUEST, timeout_s=0.3))
    monkeypatch.setattr(http, "MOST_BYTES", 1 << 20)
    with pytest.raises(ModelReplyBroken, match="more than 1 MiB"):
        ask(client, bomb)
    assert time.monotonic() - begun < 4


def refused_without_end(status: int, begin: bytes, wait_s: float = 0.0) -> Callable[[bytes], Iterator[Any]]:
    def answer(_: bytes) -> Iterator[Any]:
        yield f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n".encode()
        yield chunk(begin)
        while True:
            yield chunk(b"x" * 60_000 if not wait_s else b"x")
            yield wait_s

    return answer


@pytest.mark.parametrize(
    ("status", "error"), [(500, ModelServerFault), (429, ModelOverloaded), (403, ModelDenied)]
)
def test_c6_a_refusal_without_end_is_told_by_its_beginning(
    client: Client, status: int, error: type[ModelError]
) -> None:
    begun = time.monotonic()
    with pytest.raises(error, match="slow down") as raised:
        ask(client, refused_without_end(status, b"slow down "))
    assert time.monotonic() - begun < 2 and len(str(raised.value)) < 500


def test_c6_a_refusal_that_drips_is_told_by_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REFUSAL_S", 0.5)
    begun = time.monotonic()
    with pytest.raises(ModelOverloaded, match="slow down"):
        ask(Client("openai"), refused_without_end(429, b"slow down ", 0.1))
    assert time.monotonic() - begun < 2


def test_c6_a_packed_refusal_is_unpacked_as_far_as_it_is_read() -> None:
    begun = time.monotonic()
    bomb = gzip.compress(b"slow down " + b"x" * (64 << 20), 1)
    with pytest.raises(ModelServerFault, match="slow down"):
        ask(Client("openai"), whole(500, bomb, "Content-Encoding: gzip"))
    for how, body in (("gzip", b"not packed"), ("br", bomb), ("gzip, gzip", gzip.compress(bomb))):
        with pytest.raises(ModelServerFault, match="no explanation"):
            ask(Client("openai"), whole(500, body, f"Content-Encoding: {how}"))
    assert time.monotonic() - begun < 2


def test_c6_a_refusal_that_is_cut_is_one() -> None:
    head = b"HTTP/1.1 429 X\r\nContent-Length: 1000\r\n\r\nslow down"
    for move in ("close", "reset"):
        with pytest.raises(ModelOverloaded):
            ask(Client("openai"), [head, 0.1, move])


def test_c6_a_deep_or_long_error_is_told_by_its_beginning() -> None:
    for told in ("x" * 5_000_000, [["x"] * 100_000], deep(900)):
        with pytest.raises(ModelServerFault) as raised:
            reply_to(*sse({"error": told}))
        assert len(str(raised.value)) < 500
    with pytest.raises(ModelServerFault):
        ask(Client("openai"), whole(500, b'{"error":' * 3000 + b"1" + b"}" * 3000))


@pytest.mark.parametrize("kind", [name for name in SERVERS if name not in CUT_NO_PROMPT])
def test_m9_a_window_that_shrinks_in_mid_run_is_seen(kind: str) -> None:
    talk = Client(kind)
    counts = iter([900, 1800, 1024])

    def answer(_: bytes) -> Sequence[Any]:
        return [*talk.stream(talk.text("x"), talk.end(prompt_tokens=next(counts))), LAST_CHUNK]

    with ScriptedServer(answer) as server:
        model = talk.make(server.url)
        said = REQUEST.messages
        for _ in range(2):
            said = (*said, ("assistant", "x"), ("user", "more " * 500))
            model.reply(replace(REQUEST, messages=said))
        with pytest.raises(PromptCut, match="1024 tokens"):
            model.reply(replace(REQUEST, messages=(*said, ("assistant", "x"), ("user", "more"))))


def test_m9_a_count_may_fall_where_the_conversation_was_shortened() -> None:
    talk = Client("ollama")
    counts = iter([1800, 1024])

    def answer(_: bytes) -> Sequence[Any]:
        return [*talk.stream(talk.text("x"), talk.end(prompt_tokens=next(counts))), LAST_CHUNK]

    with ScriptedServer(answer) as server:
        model = talk.make(server.url)
        model.reply(replace(REQUEST, messages=(*REQUEST.messages, ("user", "more " * 900))))
        assert model.reply(replace(REQUEST, messages=(*REQUEST.messages, ("user", "less")))).text == "x"


def test_c7_a_text_of_blanks_is_no_cut_prompt() -> None:
    """An observation of blanks takes next to no tokens; whoever prints one may not end a run."""
    talk = Client("openai")
    blank = replace(REQUEST, messages=(*REQUEST.messages, ("user", " " * 60_000 + "-" * 20_000)))
    with ScriptedServer([*talk.stream(talk.text("x"), talk.end(prompt_tokens=600)), LAST_CHUNK]) as server:
        assert talk.make(server.url).reply(blank).text == "x"


def test_ollama_refuses_or_cuts_what_does_not_fit_and_drops_nothing_that_it_read() -> None:
    talk = Client("ollama")
    with ScriptedServer([*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]) as server:
        talk.make(server.url).reply(REQUEST)
    body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
    assert body["truncate"] is body["shift"] is False


def test_m14_a_server_may_think_long_and_not_pause_long(client: Client) -> None:
    """The first word may take `first_byte_s`, each one after it `between_s`; a sign of life counts, a head does not."""
    timeouts = Timeouts(first_byte_s=2.0, between_s=0.4)
    slow = [client.stream()[0], 1.0, *client.stream(client.text("a"))[1:]]
    end = [chunk(client.text("b")), chunk(client.end()), LAST_CHUNK]
    with ScriptedServer([*slow, 0.2, *end], [*slow, 1.0, *end]) as server:
        model = client.make(server.url)
        model._server._patience = timeouts  # type: ignore[attr-defined]
        assert model.reply(REQUEST).text == "ab"
        begun = time.monotonic()
        with pytest.raises(ModelTimeout, match="silent"):
            model.reply(REQUEST)
        assert time.monotonic() - begun < 1.9


def test_c9_the_end_of_the_requests_time_is_no_silence(client: Client) -> None:
    drip = [part for _ in range(40) for part in (0.3, chunk(client.text("a")))]
    with ScriptedServer([*client.stream(client.text("a")), *drip]) as server:
        model, waits = quick(client.make(server.url))
        begun = time.monotonic()
        with pytest.raises(ReplyLate):
            model.reply(replace(REQUEST, timeout_s=1.5))
        assert time.monotonic() - begun < 2.5 and not waits


def test_an_address_that_is_none_is_said(client: Client) -> None:
    for url in ("nowhere", "http://[::1"):
        with pytest.raises(ModelMissing, match="no address"):
            client.make(url).identity()


def test_a_key_that_no_header_can_hold_is_said() -> None:
    with pytest.raises(BadInput, match="key"):
        AnthropicModel("m", "schlüssel", base_url="", context_tokens=2048)


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ({"data": [{"id": "m"}]}, True),
        ([{"id": "m"}], True),
        ({"data": [{"id": "m:latest"}]}, True),
        ({"data": None}, False),
        ({"data": [{"id": "/models/m"}]}, False),
    ],
)
def test_c7_lists_of_models_in_every_shape(listed: object, found: bool) -> None:
    with ScriptedServer(whole(200, json.dumps(listed).encode())) as server:
        model = Client("openai").make(server.url)
        if found:
            assert model.identity().name == "m"
        else:
            with pytest.raises(ModelMissing, match="It has: "):
                model.identity()


def whole_without_end(part: bytes, wait_s: float) -> Callable[[bytes], Iterator[Any]]:
    def answer(_: bytes) -> Iterator[Any]:
        yield stream_head("application/json")
        while True:
            yield chunk(part)
            yield wait_s

    return answer


def test_c8_what_a_model_is_is_not_waited_for_without_end(client: Client) -> None:
    """A sign of life is no answer here: nothing has to be thought out for it."""
    with ScriptedServer(whole_without_end(b" ", 0.1)) as server:
        model = client.make(server.url)
        model._server._patience = replace(PATIENCE, first_byte_s=0.5)  # type: ignore[attr-defined]
        begun = time.monotonic()
        with pytest.raises(ModelTimeout, match="did not finish") as raised:
            model.identity()
    assert time.monotonic() - begun < 2 and "\n" not in str(raised.value)


@pytest.mark.parametrize("packing", [False, True])
def test_c8_what_a_model_is_takes_no_memory_without_end(client: Client, packing: bool) -> None:
    endless = whole_without_end(b" " * (1 << 20), 0.0)
    bomb = whole(200, gzip.compress(b" " * (64 << 20), 1), "Content-Encoding: gzip")
    with ScriptedServer(bomb if packing else endless) as server:
        with pytest.raises(ModelReplyBroken, match="more than 16 MiB"):
            client.make(server.url).identity()


def test_c8_a_fault_of_what_a_model_is_is_waited_out_and_told() -> None:
    listed, told = whole(200, b'{"data":[{"id":"m"}]}'), list[str]()
    with ScriptedServer(listed, whole_without_end(b" ", 0.1), listed) as server:
        inner = Client("openai").make(server.url)
        inner._server._patience = replace(PATIENCE, first_byte_s=0.4)  # type: ignore[attr-defined]
        model, waits = quick(inner, tell=lambda why, seconds: told.append(why))
        model.identity()
        assert model.identity().name == "m" and sum(waits) > 0
    assert told and "did not finish" in told[0]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_c6_a_refusal_to_say_what_a_model_is_has_an_end(client: Client, status: int) -> None:
    with ScriptedServer(refused_without_end(status, b"slow down ")) as server, pytest.raises(ModelError):
        client.make(server.url).identity()


class Interrupted(BaseException):
    """What a signal raises."""


@pytest.mark.parametrize("ask_it", [lambda model: model.identity(), lambda model: model.reply(REQUEST)])
def test_c8_whoever_waits_for_an_answer_can_be_interrupted(
    client: Client, ask_it: Callable[[ChatModel], object]
) -> None:
    gone = threading.Event()

    def answer(_: bytes) -> Iterator[Any]:
        try:
            yield from whole_without_end(b" " * 100_000, 0.02)(b"")
        finally:
            gone.set()

    def interrupt(*_: object) -> None:
        raise Interrupted

    soon = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with ScriptedServer(answer) as server:
            model = client.make(server.url)
            soon.start()
            begun = time.monotonic()
            with pytest.raises(Interrupted):
                ask_it(model)
            assert time.monotonic() - begun < 1
            assert gone.wait(1.5), "and the server sees that nobody listens"
    finally:
        # Without the handler the signal would end pytest, which then says nothing of what failed.
        soon.cancel()
        if soon.is_alive():
            soon.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_server_that_has_no_client_here_yet_fails_its_tests_and_does_not_end_them() -> None:
    ended = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: ended.set())
    try:
        with pytest.raises(pytest.fail.Exception, match="Client, has nothing for another"):
            test_c8_whoever_waits_for_an_answer_can_be_interrupted(
                Client("another"), lambda model: model.identity()
            )
        assert not ended.wait(0.6)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_c7_a_deeply_nested_answer_is_a_broken_reply(client: Client) -> None:
    with pytest.raises(ModelReplyBroken):
        ask(client, [*client.stream(b"[" * 100_000 + b"]" * 100_000 + b"\n\n"), LAST_CHUNK])


ONE_REFUSAL = [
    (404, b'{"error":"list index out of range"}'),
    (404, b"<html>not here</html>"),
    (410, b""),
    (418, b"teapot"),
    (451, b"law"),
    (302, b""),
    (204, b""),
    (299, b"x"),
    (400, b'{"error":{"message":"Token id 151700 must be less than 151665"}}'),
    (400, b'{"error":{"message":"System role not supported"}}'),
    (403, b'{"error":{"message":"this content is not allowed"}}'),
]


def refusing(talk: Client, status: int, body: bytes, *words: bytes) -> Answer:
    """Refuses whatever holds one of the words, and answers the rest."""
    good = [*talk.stream(talk.text("x"), talk.end()), LAST_CHUNK]
    return lambda request: whole(status, body) if any(word in request for word in words) else good


@pytest.mark.parametrize(("status", "body"), ONE_REFUSAL)
def test_c6_what_one_conversation_is_refused_is_not_the_end_of_all(
    client: Client, status: int, body: bytes
) -> None:
    other = replace(REQUEST, conversation="d", messages=(*REQUEST.messages, ("user", "Now the fern.")))
    with ScriptedServer(refusing(client, status, body, b"fern")) as server:
        model, waits = quick(client.make(server.url))
        with pytest.raises(ModelFatal):
            model.reply(other)
        model.reply(REQUEST)
        for _ in range(2):
            with pytest.raises(RequestRefused, match=rf"this conversation and answers others \({status}\): "):
                model.reply(other)
        assert model.reply(REQUEST).text == "x"
        assert len(server.requests) == 7 and not waits


@pytest.mark.parametrize(("status", "body"), [*ONE_REFUSAL, (401, b"{}"), (402, b"{}")])
def test_c6_what_was_answered_and_is_refused_now_is_the_end_of_all(
    client: Client, status: int, body: bytes
) -> None:
    good = [*client.stream(client.text("x"), client.end()), LAST_CHUNK]
    with ScriptedServer(good, whole(status, body)) as server:
        model, _ = quick(client.make(server.url))
        model.reply(REQUEST)
        with pytest.raises(ModelFatal):
            model.reply(REQUEST)
        assert len(server.requests) == (2 if status in (401, 402) else 3)


def test_c6_a_run_that_goes_on_with_the_refused_conversation_alone_is_not_ended_by_it() -> None:
    listed = whole(200, b'{"data":[{"id":"m"}]}')
    with ScriptedServer(listed, refusing(Client("openai"), 404, b'{"error":"x"}', b"Fix this")) as server:
        model, _ = quick(Client("openai").make(server.url))
        model.identity()
        with pytest.raises(RequestRefused, match="answers others"):
            model.reply(REQUEST)


def test_c7_a_reply_that_always_comes_broken_is_waited_for_no_longer_than_for_a_whole_one() -> None:
    good = [*Client("openai").stream(*sse(delta(content="x"), delta("stop"))), LAST_CHUNK]
    broken = [*Client("openai").stream(*sse(delta(content=3), delta("stop"))), LAST_CHUNK]
    with ScriptedServer(good, broken) as server:
        model, waits = quick(Client("openai").make(server.url))
        model.reply(REQUEST)
        with pytest.raises(ModelReplyBroken, match=r"another shape: [^.]*\.$"):
            model.reply(REQUEST)
        assert len(server.requests) > 2 and sum(waits) <= REQUEST.timeout_s


def test_c6_a_servers_words_end_in_one_full_stop(client: Client) -> None:
    with pytest.raises(ModelMissing, match=r"451: law\. Is the address"):
        ask(client, whole(451, b"law."))
    with pytest.raises(ModelMissing, match=r"451: law\. Is the address"):
        ask(client, whole(451, b"law"))
    with pytest.raises(ModelError, match=r"[^.]\.( |$)") as raised:
        ask(client, ["close"])
    assert ".." not in str(raised.value)


@pytest.mark.parametrize("key", ["sk-sécret", "sk-secret\n", "sk-\x00secret"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_said(key: str) -> None:
    for make in (OpenAICompatibleModel, AnthropicModel):
        with pytest.raises(BadInput) as refused:
            make("m", key, base_url="http://127.0.0.1:9", context_tokens=100)
        assert "key" in str(refused.value) and "cret" not in str(refused.value)
