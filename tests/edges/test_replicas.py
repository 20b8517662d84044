"""Several servers of one model, asked as if they were one; and the requests on their way to each."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest

from looper.edges.models.replicas import RESTS_S, Replica, Replicas, RequestsInFlight
from looper.edges.models.retrying import RetryingModel, RetryPolicy
from looper.edges.models.scripted import ScriptedModel
from looper.errors import (
    ContextOverflow,
    ModelDenied,
    ModelError,
    ModelMissing,
    ModelOverloaded,
    ModelUnfit,
    ModelUnpaid,
    ModelUnreachable,
    PromptCut,
    ReplyLate,
    ReplyWithheld,
    RequestRefused,
)
from looper.protocols import ChatRequest, Message
from looper.records.trajectory import ModelIdentity, Reply


def request(conversation: str = "c") -> ChatRequest:
    return ChatRequest(
        conversation=conversation,
        messages=(("system", "You fix things."), ("user", "Fix this.")),
        max_output_tokens=100,
        context_tokens=2048,
        temperature=0.5,
        seed=7,
        timeout_s=20.0,
    )


class Server(ScriptedModel):
    """One that may have gone away, or have another model by now."""

    def __init__(
        self, name: str = "m", window: int | None = None, tokens: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(["<done></done>"], name)
        self.tokens = tokens
        self.fault: ModelError | None = None
        self.asked, self.window = list[str](), window

    def identity(self) -> ModelIdentity:
        self.asked.append("identity")
        if self.fault:
            raise self.fault
        return super().identity()

    def window_tokens(self) -> int | None:
        if self.fault:
            raise self.fault
        return self.window

    def first_tokens(self, text: str) -> Mapping[str, float] | None:
        return self.tokens

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return None

    def reply(self, request: ChatRequest) -> Reply:
        self.asked.append(request.conversation)
        if self.fault:
            raise self.fault
        return super().reply(request)


SURE = {" b": -0.1, " a": -3.0, " c": -4.0}
DIM = {" b": -4.0, " a": -0.1, " c": -4.0}


def replicas(*servers: Server, said: list[str] | None = None, now: Sequence[float] = ()) -> Replicas:
    return Replicas(
        [Replica(f"http://{number}", each, RequestsInFlight()) for number, each in enumerate(servers, 1)],
        say=(said if said is not None else []).append,
        clock=lambda: now[0] if now else 0.0,
    )


def test_requests_on_their_way_to_one_server_are_counted_with_each_reply() -> None:
    flights = RequestsInFlight()
    first, second = (
        RetryingModel(Replicas([Replica("", Server(), flights)]).beginning_with(0), RetryPolicy())
        for _ in range(2)
    )
    assert first.reply(request()).in_flight == 1
    with flights.one_more():
        assert second.reply(request()).in_flight == 2, "another request is on its way to the same server"
    assert first.reply(request()).in_flight == 1, "it has come back"
    assert replicas(Server()).beginning_with(0).reply(request()).in_flight == 1, "a server of its own"


def test_what_other_processes_have_under_way_counts_too() -> None:
    others, first = [4], Server()
    servers = [
        Replica("http://1", first, RequestsInFlight()),
        Replica("http://2", Server(), RequestsInFlight()),
    ]
    model = Replicas(servers, beside=lambda: others[0]).beginning_with(0)
    assert model.reply(request()).in_flight == 5
    others[0] = 0
    assert model.reply(request()).in_flight == 1
    others[0], first.fault = 4, ModelUnreachable("gone")
    assert model.reply(request()).in_flight == 1, "they are at the server that it began with"


def test_a_conversation_stays_with_the_server_that_it_began_with_and_the_record_says_which() -> None:
    servers = Server(), Server(), Server()
    found = replicas(*servers)
    for number in range(4):
        model = found.beginning_with(number)
        model.identity()
        replies = [model.reply(request(f"rollout {number}")) for _ in range(3)]
        assert [reply.server for reply in replies] == [number % 3 + 1] * 3
    assert [each.asked.count("rollout 0") for each in servers] == [3, 0, 0]
    assert replicas(Server()).beginning_with(7).reply(request()).server is None, "there is one"


def test_where_a_server_fails_another_answers_and_keeps_the_conversation_and_it_is_said_once() -> None:
    first, second = Server(), Server()
    said, now = list[str](), [100.0]
    model = replicas(first, second, said=said, now=now).beginning_with(0)
    model.identity()
    assert model.reply(request()).server == 1
    first.fault = ModelUnreachable("The model server at http://1 cannot be reached: refused.")
    moved = model.reply(request())
    assert (moved.server, moved.retries, moved.waited_s) == (2, 1, 0.0)
    assert second.asked[-2:] == ["identity", "c"], "it was asked what it is, and for the adapter, before"
    first.fault = None
    assert model.reply(request()).server == 2, "what it has read of the conversation lies there"
    assert model.reply(request("new")).server == 2, "one that failed rests"
    now[0] += RESTS_S + 1
    assert model.reply(request("newer")).server == 1
    assert said == [
        "The model server at http://1 cannot be reached: refused. Another server of the model is asked in its place"
    ]


def test_faults_of_all_servers_are_waited_out_as_those_of_one_and_counted() -> None:
    first, second = Server(), Server()
    waits = list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        second.fault = None

    model = RetryingModel(
        replicas(first, second).beginning_with(0), RetryPolicy(), sleep=sleep, clock=lambda: sum(waits)
    )
    model.identity()
    first.fault = ModelUnreachable("gone")
    second.fault = ModelOverloaded("busy", retry_after_s=1.0)
    reply = model.reply(request())
    assert reply.server == 2 and reply.retries == 2 and reply.waited_s == pytest.approx(sum(waits))


@pytest.mark.parametrize("refusal", [RequestRefused, ContextOverflow, ReplyWithheld])
def test_what_one_server_refuses_another_is_asked_and_what_two_refuse_is_refused(
    refusal: type[ModelError],
) -> None:
    first, second, third = servers = Server(), Server(), Server()
    said = list[str]()
    model = replicas(*servers, said=said).beginning_with(0)
    model.identity()
    first.fault = refusal("http://1 will not")
    assert model.reply(request()).server == 2 and len(said) == 1
    second.fault, third.fault = refusal("http://2 will not"), refusal("http://3 will not")
    before = len(first.asked)
    with pytest.raises(refusal, match="http://2"):  # It holds the conversation.
        model.reply(request())
    assert len(first.asked) == before and len(said) == 1, "it is the conversation's fault, and no server's"


@pytest.mark.parametrize("fault", [ModelDenied, ModelUnpaid, ModelUnfit, PromptCut])
def test_a_server_that_lets_nobody_in_any_more_ends_nothing_while_another_answers(
    fault: type[ModelError],
) -> None:
    first, second = Server(), Server()
    model = replicas(first, second).beginning_with(0)
    model.identity()
    first.fault = fault("not here")
    assert model.reply(request()).server == 2 and model.identity().name == "m"
    second.fault = fault("nor here")
    with pytest.raises(fault):
        model.reply(request())


def test_a_reply_that_is_late_is_late_and_one_of_which_no_word_came_is_asked_for_elsewhere() -> None:
    first, second = Server(), Server()
    model = replicas(first, second).beginning_with(0)
    model.identity()
    first.fault = ReplyLate("not over")
    with pytest.raises(ReplyLate):
        model.reply(request())
    first.fault.silent = True
    assert model.reply(request()).server == 2


def test_a_server_is_compared_before_it_answers_a_conversation_whoever_said_what_the_model_is() -> None:
    first, second = Server(), Server()
    now = [0.0]
    model = replicas(first, second, now=now).beginning_with(0)
    model.identity()
    first.fault = ModelUnreachable("gone")
    assert model.identity().name == "m", "the other says it"
    first.fault, first._name = None, "other"
    now[0] += RESTS_S + 1
    assert model.reply(request()).server == 2


@pytest.mark.parametrize("late", [False, True])
def test_a_server_that_computes_otherwise_or_has_a_shorter_window_is_refused(late: bool) -> None:
    alike, other, short = (Server(window=100, tokens=tokens) for tokens in (SURE, DIM, SURE))
    short.window = 50
    for odd, why in (
        (other, "http://2 computes otherwise than http://1: .* 3.9 nats"),
        (short, "a window of 50"),
    ):
        said, now = list[str](), [0.0]
        if late:
            odd.fault = ModelUnreachable("not up yet")
        model = replicas(alike, odd, said=said, now=now).beginning_with(1)
        if late:
            model.identity()
            odd.fault, said[:] = None, []
            now[0] += RESTS_S + 1
            assert model.reply(request()).server == 1, "it is not asked"
        elif odd is other:
            with pytest.raises(ModelMissing, match=why):
                model.identity()
        else:
            assert model.identity() and model.window_tokens() == 50, "the plan is held against the shortest"


def test_a_server_that_fails_again_and_again_rests_longer_each_time_and_as_long_as_it_asks() -> None:
    first, now = Server(), [0.0]
    said = list[str]()
    model = replicas(first, Server(), said=said, now=now).beginning_with(0)
    first.fault = ModelUnreachable("gone")
    asked = list[float]()
    for number in range(2000):
        before = len(first.asked)
        model.reply(request(f"c{number}"))
        if len(first.asked) > before:
            asked.append(now[0])
        now[0] += 1
    waits = [after - before for before, after in pairwise(asked)]
    assert waits[:3] == [10, 20, 40] and max(waits) == 600 and len(said) == 1
    first.fault = ModelOverloaded("busy", retry_after_s=1000.0)
    now[0] += 700
    model.reply(request("a"))
    before = len(first.asked)
    now[0] += 900
    model.reply(request("b"))
    assert len(first.asked) == before, "it asked for more time"


def test_servers_with_unlike_models_are_refused_by_their_addresses_and_what_differs() -> None:
    model = replicas(Server(), Server("other")).beginning_with(0)
    with pytest.raises(
        ModelMissing, match=r"http://2 has another m than http://1: name other and not m, digest "
    ):
        model.identity()


def test_a_server_that_has_another_model_when_it_comes_back_is_asked_no_more() -> None:
    first, second = Server(), Server()
    said, now = list[str](), [0.0]
    model = replicas(first, second, said=said, now=now).beginning_with(0)
    model.identity()
    first._name = "other"
    for _ in range(3):
        assert model.identity().name == "m"
        now[0] += RESTS_S + 1
    assert len(said) == 1 and "http://1 has another m than http://1" in said[0]
    second.fault = ModelUnreachable("gone")
    with pytest.raises(ModelUnreachable, match="gone"):  # That may pass; the other may not.
        model.identity()


def test_a_server_that_is_away_when_a_run_begins_is_told_and_where_all_are_the_first_says_why() -> None:
    first, second = Server(), Server()
    first.fault = ModelUnreachable("http://1: refused.")
    said = list[str]()
    model = replicas(first, second, said=said).beginning_with(0)
    assert model.identity().name == "m" and model.reply(request()).server == 2
    assert said == ["http://1: refused. Another server of the model is asked in its place"]
    second.fault = ModelUnreachable("http://2: refused.")
    with pytest.raises(ModelUnreachable, match="http://1"):
        replicas(first, second).beginning_with(0).identity()


def test_the_window_is_the_shortest_that_is_told() -> None:
    servers = Server(window=4096), Server(window=None), Server(window=2048)
    model = replicas(*servers).beginning_with(0)
    assert model.window_tokens() == 2048
    servers[2].fault = ModelUnreachable("gone")
    assert model.window_tokens() == 4096, "of those that answer"
