"""One model on one server, or on several that each serve all of it; and how many requests are on their way to each.

Servers of one model are asked as if they were one. A rollout stays with the server that it began with, which keeps what it has read of
it, and goes to another where that one fails. Which one it begins with is not decided here: `experiment/run` spreads the attempts of
every arm evenly over the servers, since what answers an arm more often than the others would be a treatment.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from looper.errors import ModelError, ModelMissing, one_line
from looper.protocols import ChatModel, ChatRequest, Message, Windowed
from looper.records.trajectory import ModelIdentity, Reply

RESTS_S = 10.0
"""So long a server that failed is asked only where no other answers."""

Found = TypeVar("Found")


class RequestsInFlight:
    """Requests of one run to one server; shared by everything that asks it, in any thread."""

    def __init__(self, beside: Callable[[], int] = lambda: 0) -> None:
        """`beside` tells how many more there are that are not seen from this process."""
        self._lock = threading.Lock()
        self._now, self._beside = 0, beside

    @contextmanager
    def one_more(self) -> Iterator[int]:
        """While a request is on its way: how many are, itself among them, at the moment it is asked."""
        with self._lock:
            self._now += 1
            now = self._now
        try:
            yield now + self._beside()
        finally:
            with self._lock:
                self._now -= 1


class Replica:
    """A model as one of its servers has it."""

    def __init__(self, address: str, model: ChatModel, flights: RequestsInFlight) -> None:
        self.address, self.model, self.flights = address, model, flights
        self.rests_until = 0.0
        self.failing = False
        """Whether it failed when it was last asked, while others answered."""


class Replicas:
    """All servers of one model, for everything in this process that asks it."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        *,
        say: Callable[[str], None] = lambda said: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`say` hears of servers that do not answer while others do; `clock` gives seconds."""
        self.replicas, self._say, self.clock = tuple(replicas), say, clock
        self._agreed: ModelIdentity | None = None
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
            if self._agreed is None:
                self._agreed = self._common()
        found = replica.model.identity()
        if found != self._agreed:
            raise ModelMissing(_unlike(found, replica, self._agreed))
        return found

    def _common(self) -> ModelIdentity:
        """What all servers that answer say the model is. Raises ModelError where none does, or one has another model or none."""
        known: tuple[Replica, ModelIdentity] | None = None
        silent = list[tuple[Replica, ModelError]]()
        for replica in self.replicas:
            try:
                found = replica.model.identity()
            except ModelError as error:
                if not error.retryable:
                    raise
                silent.append((replica, error))
                continue
            if known and found != known[1]:
                raise ModelMissing(_unlike(found, replica, known[1], known[0].address))
            known = known or (replica, found)
        if known is None:
            raise silent[0][1]
        self.failed(silent)
        return known[1]

    def failed(self, failures: Sequence[tuple[Replica, ModelError]]) -> None:
        """These did not answer, and another server did."""
        for replica, error in failures:
            replica.rests_until = self.clock() + RESTS_S
            if not replica.failing:
                self._say(
                    f"{one_line(str(error)).rstrip('.')}. Another server of the model answers in its place"
                )
            replica.failing = True


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
            if isinstance(replica.model, Windowed):
                try:
                    found.append(replica.model.window_tokens())
                except ModelError as error:
                    if not error.retryable:
                        raise
                    failures.append(error)
        if failures and not found:
            raise failures[0]
        return min((window for window in found if window is not None), default=None)

    def reply(self, request: ChatRequest) -> Reply:
        """Of the server that the conversation is at; of another where that one fails in a way that it may not."""
        clock, begun = self._servers.clock, self._servers.clock()
        held = self._held.get(request.conversation, self._order[0])

        def ask(replica: Replica) -> tuple[Reply, float]:
            asked = clock()
            if replica is not held:
                self._servers.checked(replica)  # It has not been asked yet what it is, nor for the adapter.
            with replica.flights.one_more() as in_flight:
                reply = replica.model.reply(request)
            return reply.model_copy(update={"in_flight": in_flight}), asked

        (reply, asked), replica, faults = self._first_of(self._in_order(held), ask)
        if len(self._order) == 1:
            return reply
        self._held[request.conversation] = replica
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
        """An answer, who gave it, and how many did not. Raises what the first of them says where none does."""
        failures = list[tuple[Replica, ModelError]]()
        for replica in order:
            try:
                found = ask(replica)
            except ModelError as error:
                # A server that has lost the model since is one that fails, while others have it.
                if not error.retryable and not (isinstance(error, ModelMissing) and len(order) > 1):
                    raise
                failures.append((replica, error))
                continue
            replica.failing = False
            self._servers.failed(failures)
            return found, replica, len(failures)
        raise next((error for _, error in failures if error.retryable), failures[0][1])

    def forget(self, conversation: str) -> None:
        self._held.pop(conversation, None)
        for replica in self._order:
            replica.model.forget(conversation)

    def close(self) -> None:
        for replica in self._order:
            replica.model.close()


def _unlike(found: ModelIdentity, at: Replica, wanted: ModelIdentity, there: str = "the others") -> str:
    """Where a server has another model than those that were asked before it."""
    fields = [name for name in ModelIdentity.model_fields if getattr(found, name) != getattr(wanted, name)]
    said = ", ".join(
        f"{name} {getattr(found, name)!s:.24} and not {getattr(wanted, name)!s:.24}" for name in fields
    )
    return (
        f"{at.address} has another {wanted.name} than {there}: {one_line(said)}. Servers of one model need the same weights, settings and "
        "version."
    )
