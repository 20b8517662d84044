"""What a campaign may spend: reserved before a call, settled after it, and the call that does not fit is not made.

`Metered` stands before each model of a campaign and asks its `Account`, of which an `Allowance` is what may be spent.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from looper.errors import BudgetSpent, ModelFatal
from looper.evolution.asking import prompt_tokens
from looper.protocols import ChatModel, ChatRequest, Message
from looper.records.generation import Role, Spent
from looper.records.plan import Price
from looper.records.trajectory import ModelIdentity, Reply


@dataclass(frozen=True)
class Allowance:
    """Limits of a whole campaign, over all roles; None for no limit."""

    tokens: int | None = None
    calls: int | None = None
    """Within `window_s`."""
    window_s: float = 5 * 3600.0
    usd: float | None = None


@dataclass
class Account:
    """What was spent and what is promised to calls that run now. Safe to use from several threads."""

    allowance: Allowance
    tokens: int = 0
    usd: float = 0.0
    calls: list[float] = field(default_factory=list)
    """When each was made, by the clock."""
    clock: Callable[[], float] = time.time
    _promised_tokens: int = 0
    _promised_usd: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, tokens: int, usd: float) -> None:
        """Raises BudgetSpent where the call does not fit."""
        with self._lock:
            allowed, now = self.allowance, self.clock()
            wanted = self.tokens + self._promised_tokens + tokens
            if allowed.tokens is not None and wanted > allowed.tokens:
                raise BudgetSpent(
                    f"The next call may take {tokens} tokens, and of {allowed.tokens} only "
                    f"{max(0, allowed.tokens - wanted + tokens)} are left. Raise --token-budget to go on."
                )
            if allowed.usd is not None and self.usd + self._promised_usd + usd > allowed.usd:
                raise BudgetSpent(
                    f"The next call may cost {usd:.4f} $, and of {allowed.usd:g} $ only "
                    f"{max(0.0, allowed.usd - self.usd - self._promised_usd):.4f} are left. Raise it to go on: --set money_budget=DOLLARS."
                )
            recent = [made for made in self.calls if now - made < allowed.window_s]
            if allowed.calls is not None and len(recent) >= allowed.calls:
                raise BudgetSpent(
                    f"{len(recent)} calls were made within {allowed.window_s / 3600:g} h, and that is what is allowed. "
                    f"The next one may be made in {allowed.window_s - now + min(recent, default=now):.0f} s."
                )
            # A call counts when it is made: one that never ends was made too.
            self.calls = [*recent, now]
            self._promised_tokens += tokens
            self._promised_usd += usd

    def settle(self, promised_tokens: int, promised_usd: float, tokens: int, usd: float) -> None:
        """In place of what was promised."""
        with self._lock:
            self._promised_tokens -= promised_tokens
            self._promised_usd -= promised_usd
            self.tokens += tokens
            self.usd += usd


class Metered:
    """A model whose every call fits the budget and is on record, for one role of one generation."""

    def __init__(
        self,
        inner: ChatModel,
        account: Account,
        price: Price | None,
        role: Role,
        generation: int,
        spent: Callable[[Spent], object],
    ) -> None:
        """`spent` is told after each call. Raises BudgetSpent where money is limited and the price is not known."""
        if account.allowance.usd is not None and price is None:
            raise BudgetSpent(
                f"Money is limited and nobody said what {inner.identity().name} costs. Give a price, as in --set lab_price=3/15, or limit tokens instead."
            )
        self._inner, self._account, self._price = inner, account, price
        self._role, self._generation, self._spent = role, generation, spent
        self._known = False

    def identity(self) -> ModelIdentity:
        return self._inner.identity()

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return self._inner.count_tokens(messages)

    def reply(self, request: ChatRequest) -> Reply:
        """Raises BudgetSpent before the call, and what the model raises."""
        prompt = prompt_tokens(self._inner, request.messages)
        most = prompt + request.max_output_tokens
        dearest = self._usd(prompt, request.max_output_tokens)
        self._account.reserve(most, dearest)
        # Until something else is known: a call that failed was read by the server, or may have been.
        used, completed = prompt, 0
        try:
            if not self._known:
                # A server is told how to draw a token by its own names, which are known once it has said what it is. One that says
                # nothing of its models may answer all the same.
                with suppress(ModelFatal):
                    self._inner.identity()
                self._known = True
            reply = self._inner.reply(request)
            used = _first(reply.usage.backend_prompt_tokens, reply.usage.prompt_tokens, prompt)
            completed = _first(
                reply.usage.backend_completion_tokens,
                reply.usage.completion_tokens,
                request.max_output_tokens,
            )
            return reply
        finally:
            usd = self._usd(used, completed)
            self._account.settle(most, dearest, used + completed, usd)
            self._spent(
                Spent(
                    generation=self._generation,
                    role=self._role,
                    calls=1,
                    prompt_tokens=used,
                    completion_tokens=completed,
                    cost_usd=usd if self._price else None,
                )
            )

    def _usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        return self._price.of(prompt_tokens, completion_tokens) if self._price else 0.0

    def forget(self, conversation: str) -> None:
        self._inner.forget(conversation)

    def close(self) -> None:
        self._inner.close()


def _first(*counts: int | None) -> int:
    return next(count for count in counts if count is not None)
