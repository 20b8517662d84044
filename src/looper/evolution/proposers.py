"""The proposer that is a language model: asked what to do next, with everything that is on record."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from looper.evolution.contract import Contracts
from looper.evolution.cycle import Proposal
from looper.evolution.reflect import Reflection, reflect
from looper.evolution.state import State
from looper.protocols import ChatModel
from looper.records.base import content_hash
from looper.records.generation import Contract, Origin


@dataclass(frozen=True)
class Prime:
    """Reflects, and writes contracts; judges nothing and touches no repository."""

    model: Callable[[], ChatModel]
    contracts: Contracts
    source: Callable[[], Mapping[str, str]]
    priorities: Callable[[], str]
    allowed: tuple[str, ...]
    lookback: int
    budget: Callable[[], str]
    say: Callable[[str], None]

    def propose(self, state: State) -> Proposal | None:
        contract, text = self.contract(state)
        parent = state.active_generation or 0
        request = f"reflect {state.next_number} {content_hash(text)[:12]}"
        return Proposal(contract.title, text, Origin.REFLECT, request, parent)

    def contract(self, state: State) -> tuple[Contract, str]:
        """Raises ProposalInvalid, BudgetSpent, and what the model raises."""
        texts = {
            found.contract_hash: self.contracts.text(found.contract_hash)
            for found in state.generations.values()
        }
        asked = Reflection(
            state,
            texts,
            self.priorities(),
            self.source(),
            self.allowed,
            lookback=self.lookback,
            budget=self.budget(),
        )
        with contextlib.closing(self.model()) as model:
            return reflect(model, asked, self.say, state.next_number)
