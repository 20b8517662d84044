"""One model on one server, or on several that each serve all of it; and how many requests are on their way to each.

Servers of one model are asked as if they were one. A rollout stays with the server that it began with, which keeps what it has read of
it, and goes to another where that one fails. Which one it begins with is not decided here: `experiment/run` gives all arms the same one
at the same task and seed. A server is met before it is first asked, and again after it failed: what it says that it has, the window, and what it makes of
a fixed text must be what the others say.
"""

import heapq
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

from looper.errors import ModelError, ModelFatal, ModelMissing, ReplyLate, one_line
from looper.protocols import CarriesThere, ChatModel, ChatRequest, Message, Windowed
from looper.records.trajectory import ModelIdentity, Reply

RESTS_S, LONGEST_REST_S = 10.0, 600.0
"""So long a server that failed is asked only where no other answers; twice as long each time, until it has given a reply again."""
PROBE = "The quick brown fox jumps over the lazy dog. def add(a, b):\n    return a +"
ALIKE_NATS = 0.5
"""By which the log probabilities of the likeliest next tokens may differ between servers of one model: kernels, batches and a cache of 16
bits make up to 0.05, other weights several."""
LIKELIEST = 5

Found = TypeVar("Found")


@runtime_checkable
class TellsTokens(Protocol):
    """A model whose server may say what it computes."""

    def first_tokens(self, text: str) -> Mapping[str, float] | None:
        """Log probabilities of the likeliest tokens after a text, by the token; None where the server does not tell them. Raises ModelError."""
        ...


class RequestsInFlight:
    """Requests of one run to one server; shared by everything that asks it, in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0

    @contextmanager
    def one_more(self) -> Iterator[int]:
        """While a request is on its way: how many are, itself among them, at the moment it is asked."""
        with self._lock:
            self._now += 1
            now = self._now
        try:
            yield now
        finally:
            with self._lock:
                self._now -= 1


class Replica:
    """A model as one of its servers has it."""

    def __init__(self, address: str, model: ChatModel, flights: RequestsInFlight) -> None:
        self.address, self.model, self.flights = address, model, flights
        self.rests_until, self.faults = 0.0, 0
        """When it is asked again like others, and how often it failed since its last reply."""
        self.met = False
        """Whether it has been compared with the others since it last failed."""


@dataclass(frozen=True)
class Agreed:
    """What all servers of a model have."""

    address: str
    """Of the one that said it first."""
    identity: ModelIdentity
    window: int | None
    tokens: Mapping[str, float] | None


class Replicas:
    """All servers of one model, for everything in this process that asks it."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        *,
        say: Callable[[str], None] = lambda said: None,
        clock: Callable[[], float] = time.monotonic,
        beside: Callable[[], int] = lambda: 0,
    ) -> None:
        """`say` hears of servers that do not answer while others do; `clock` gives seconds; `beside` tells how many more requests than are
        seen from this process are at the server that an attempt begins with."""
        self.replicas, self._say, self.clock, self.beside = tuple(replicas), say, clock, beside
        self._agreed: Agreed | None = None
        self._lock = threading.Lock()

    def beginning_with(self, number: int) -> "Replicated":
        """The model, for attempts that begin with one of its servers, counted from 0 and round again."""
        first = number % len(self.replicas)
        return Replicated(self, [*self.replicas[first:], *self.replicas[:first]])

    def checked(self, replica: Replica) -> ModelIdentity:
        """What a server has, which must be what all have. Raises ModelError."""
        if len(self.replicas) == 1:
            return replica.model.identity()
        with self._lock:
            agreed = self._agreed = self._agreed or self._agree()
        found = replica.model.identity()
        _must_be(found, replica, agreed)
        if not replica.met:
            self._meet(replica, agreed)
        return found

    def _agree(self) -> Agreed:
        """What all servers that answer have. Raises ModelError where none does, or one has another model or none."""
        agreed: Agreed | None = None
        silent = list[tuple[Replica, ModelError]]()
        for replica in self.replicas:
            try:
                found = replica.model.identity()
                if agreed is None:
                    window, tokens = _window_of(replica), _tokens_of(replica)
                    agreed, replica.met = Agreed(replica.address, found, window, tokens), True
                    continue
                _must_be(found, replica, agreed)
                # Before a run its plan is held against the shortest window; later none may be shorter.
                shortest = min(filter(None, (agreed.window, _window_of(replica))), default=None)
                agreed = replace(agreed, window=shortest)
                self._meet(replica, agreed)
            except ModelError as error:
                if not error.retryable:
                    raise
                silent.append((replica, error))
        if agreed is None:
            raise silent[0][1]
        self.failed(silent)
        return agreed

    def _meet(self, replica: Replica, agreed: Agreed) -> None:
        """Raises ModelMissing where a server says otherwise than the others what its window is, or computes otherwise."""
        window, tokens = _window_of(replica), _tokens_of(replica)
        if window and agreed.window and window < agreed.window:
            raise ModelMissing(
                f"{replica.address} has a window of {window} tokens for {agreed.identity.name}, and {agreed.address} one of {agreed.window}. Servers "
                "of one model need the same."
            )
        if tokens and agreed.tokens and (off := _apart(tokens, agreed.tokens)) > ALIKE_NATS:
            raise ModelMissing(
                f"{replica.address} computes otherwise than {agreed.address}: log probabilities of the next token after the same text differ by {off:.1f} "
                f"nats. Servers of one model need the same weights."
            )
        replica.met = True

    def failed(self, failures: Sequence[tuple[Replica, ModelError]]) -> None:
        """These did not answer, and another server may."""
        now = self.clock()
        for replica, error in failures:
            if not replica.faults:
                self._say(
                    f"{one_line(str(error)).rstrip('.')}. Another server of the model is asked in its place"
                )
            if replica.rests_until <= now:
                rest_s = min(RESTS_S * 2.0**replica.faults, LONGEST_REST_S)
                replica.rests_until = now + max(rest_s, error.retry_after_s or 0.0)
                replica.faults += 1
            replica.met = False


class Replicated:
    """A model on several servers, in the order in which they are asked."""

    def __init__(self, servers: Replicas, order: Sequence[Replica]) -> None:
        self._servers, self._order = servers, tuple(order)
        self._held: dict[str, Replica] = {}
        """Who answered a conversation last."""

    def identity(self) -> ModelIdentity:
        return self._first_of(self._in_order(), self._servers.checked)[0]

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return self._first_of(self._in_order(), lambda replica: replica.model.count_tokens(messages))[0]

    def window_tokens(self) -> int | None:
        """The shortest of those that are told: a rollout may go to any server."""
        found = list[int | None]()
        failures = list[ModelError]()
        for replica in self._order:
            try:
                found.append(_window_of(replica))
            except ModelError as error:
                if not error.retryable:
                    raise
                failures.append(error)
        if failures and not found:
            raise failures[0]
        return min((window for window in found if window is not None), default=None)

    def arrival(self) -> str:
        """On the first that says so."""
        models = (replica.model for replica in self._order)
        return next(
            (said for model in models if isinstance(model, CarriesThere) and (said := model.arrival())), ""
        )

    def reply(self, request: ChatRequest) -> Reply:
        """Of the server that the conversation is at; of another where that one fails in a way that it may not."""
        clock, begun = self._servers.clock, self._servers.clock()
        held, several = self._held.get(request.conversation), len(self._order) > 1

        def ask(replica: Replica) -> tuple[Reply, float]:
            asked = clock()
            if several and replica is not held:
                self._servers.checked(replica)  # It has not been asked yet what it is, nor for the adapter.
            with replica.flights.one_more() as in_flight:
                reply = replica.model.reply(request)
            beside = self._servers.beside() if replica is self._order[0] else 0
            return reply.model_copy(update={"in_flight": in_flight + beside}), asked

        (reply, asked), replica, faults = self._first_of(self._in_order(held), ask)
        if not several:
            return reply
        self._held[request.conversation], replica.faults = replica, 0
        server = self._servers.replicas.index(replica) + 1
        lost = (
            {"retries": reply.retries + faults, "waited_s": reply.waited_s + asked - begun} if faults else {}
        )
        return reply.model_copy(update={"server": server, **lost})

    def _in_order(self, held: Replica | None = None) -> list[Replica]:
        now = self._servers.clock()
        return sorted(
            self._order, key=lambda replica: (replica.rests_until > now, held not in (None, replica))
        )

    def _first_of(
        self, order: Sequence[Replica], ask: Callable[[Replica], Found]
    ) -> tuple[Found, Replica, int]:
        """An answer, who gave it, and how many did not. Raises ModelError where none does: what two servers refuse is refused."""
        failures = list[tuple[Replica, ModelError]]()
        for replica in order:
            try:
                found = ask(replica)
            except ModelError as error:
                if len(order) == 1 or (isinstance(error, ReplyLate) and not error.silent):
                    raise
                failures.append((replica, error))
                if sum(_refuses(each) for _, each in failures) == 2:
                    break
                continue
            self._servers.failed(failures)
            return found, replica, len(failures)
        # A refusal is an answer; what may pass is waited for.
        errors = [error for _, error in failures]
        raise min(errors, key=lambda error: (not _refuses(error), not error.retryable))

    def forget(self, conversation: str) -> None:
        self._held.pop(conversation, None)
        for replica in self._order:
            replica.model.forget(conversation)

    def close(self) -> None:
        for replica in self._order:
            replica.model.close()


def _refuses(error: ModelError) -> bool:
    """Whether a server will not answer this conversation, and may answer others."""
    return not error.retryable and not isinstance(error, ModelFatal | ReplyLate)


def _window_of(replica: Replica) -> int | None:
    return replica.model.window_tokens() if isinstance(replica.model, Windowed) else None


def _tokens_of(replica: Replica) -> Mapping[str, float] | None:
    return replica.model.first_tokens(PROBE) if isinstance(replica.model, TellsTokens) else None


def _apart(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The largest difference of the likeliest tokens of either, nats; a token that one does not name has there at most what its last one has."""
    likely = {
        *heapq.nlargest(LIKELIEST, one, key=one.__getitem__),
        *heapq.nlargest(LIKELIEST, other, key=other.__getitem__),
    }
    least = min(one.values()), min(other.values())
    return max(abs(one.get(token, least[0]) - other.get(token, least[1])) for token in likely)


def _must_be(found: ModelIdentity, at: Replica, agreed: Agreed) -> None:
    """Raises ModelMissing where a server has another model than those that were asked before it."""
    wanted = agreed.identity
    fields = [name for name in ModelIdentity.model_fields if getattr(found, name) != getattr(wanted, name)]
    if not fields:
        return
    said = ", ".join(
        f"{name} {getattr(found, name)!s:.24} and not {getattr(wanted, name)!s:.24}" for name in fields
    )
    raise ModelMissing(
        f"{at.address} has another {wanted.name} than {agreed.address}: {one_line(said)}. Servers of one model need the same weights, at the same "
        "path, settings and version."
    )
