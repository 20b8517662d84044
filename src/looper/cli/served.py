"""The campaign behind the pages: a repository that evolves, or the embedded agent.

Both classes are `serve.evolving.CampaignView`, which is all that the pages know of a campaign; `serving` chooses one. What changes
anything goes the way of the commands.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from looper.cli import repository_steps as steps
from looper.cli.campaigns import promoter_in
from looper.cli.repositories import OpenRepository, model_of
from looper.cli.wiring import sources
from looper.errors import BadInput, LooperError
from looper.evolution.authors import lab_folder, running
from looper.evolution.chat import PrimeConversation, Tell, Tool, number
from looper.evolution.lab import STEPS
from looper.evolution.state import Generation, NotAllowed, State
from looper.journal import read_stream
from looper.protocols import Sources
from looper.records.generation import Event, Origin, Phase, Role
from looper.records.text import counted
from looper.records.trajectory import Step
from looper.serve.evolving import LabStatus
from looper.views.evolution import report_lines, tree_lines

NO_CHAT = "The embedded agent evolves without a language model. Serve a repository: looper serve --repo PATH"


def lab_status(one: Generation, folder: Path) -> LabStatus:
    """From the ledger once the work is reported, from the lab's own steps before that."""
    if one.phase in (Phase.PROPOSED, Phase.ADMITTED, Phase.PREPARING):
        status = "starting"
    elif one.phase is Phase.RUNNING:
        status = "running"
    else:
        status = "failed" if one.cause.of_the_world or one.phase is Phase.CANCELLED else "done"
    taken = list(read_stream(lab_folder(folder, one.number), STEPS, Step))
    done = one.reported
    if done is not None:
        tools = {name: used.model_dump() for name, used in done.tools.items()}
    else:
        tools = {}
        for step in taken:
            if step.action is not None:
                used = tools.setdefault(step.action.tool, {"calls": 0, "errors": 0})
                used["calls"] += 1
                used["errors"] += bool(step.observation.exit_code)
    usage = [step.reply.usage for step in taken]
    alive = running(folder, one.number)
    return LabStatus(
        generation=one.number,
        status=status,
        progress=f"{counted(done.steps if done else len(taken), 'step')}"
        + (f", process {alive}" if alive else ""),
        error=one.evidence if status == "failed" else "",
        tool_stats=tools,
        token_usage={
            "input": sum(found.prompt_tokens or 0 for found in usage),
            "output": sum(found.completion_tokens or 0 for found in usage),
        },
        stop_reason=done.stop_reason if done else "",
    )


class EmbeddedCampaign:
    """The embedded agent's campaign: looked at, promoted by hand, rolled back; nothing is asked of a model."""

    def __init__(self, folder: Path) -> None:
        self._promoter = promoter_in(folder)
        self._folder = folder
        self.name = f"the embedded agent in {folder.name}"
        self.takes_contracts = False

    def state(self) -> State:
        return self._promoter.ledger.state()

    def events(self) -> Sequence[Event]:
        return self._promoter.ledger.events()

    def contract(self, one: Generation) -> str:
        return ""

    def diff(self, one: Generation) -> str:
        return _diff(self._promoter.sources, one)

    def lab(self, one: Generation) -> LabStatus:
        return lab_status(one, self._folder)

    def spawn(self, text: str, parent: int | None, source: Origin, request: str) -> Generation:
        raise NotAllowed(NO_CHAT)

    def promote(self, number: int, candidate_hash: str) -> Generation:
        self._promoter.promote(number, candidate_hash)
        return self.state().generation(number)

    def roll_back(self, number: int) -> Generation:
        return self.state().generation(self._promoter.roll_back(number).generation)

    def budget_left(self) -> Mapping[str, float | None]:
        return {}

    def why_no_chat(self) -> str:
        return NO_CHAT

    def chat(self, message: str, tell: Tell) -> str:
        raise NotAllowed(NO_CHAT)

    def chat_stats(self) -> dict[str, Any]:
        return {"messages_count": 0, "tool_calls_count": 0}


@dataclass
class RepositoryCampaign:
    """A repository that evolves, with its prime to talk to."""

    opened: OpenRepository

    def __post_init__(self) -> None:
        self.name = self.opened.root.name
        self.takes_contracts = True
        self._conversation = PrimeConversation(partial(model_of, self.opened, Role.PRIME, 0), self._tools())

    def state(self) -> State:
        return self.opened.ledger.state()

    def events(self) -> Sequence[Event]:
        return self.opened.ledger.events()

    def contract(self, one: Generation) -> str:
        return self.opened.contracts.text(one.contract_hash)

    def diff(self, one: Generation) -> str:
        return _diff(sources(self.opened.root), one)

    def lab(self, one: Generation) -> LabStatus:
        return lab_status(one, self.opened.folder)

    def spawn(self, text: str, parent: int | None, source: Origin, request: str) -> Generation:
        state = self.state()
        active = state.active_generation or 0
        if parent not in (None, active):
            raise NotAllowed(
                f"A candidate of a repository is made from the version that works, generation {active}, and not from {parent}."
            )
        return steps.spawn(self.opened, text, request, source, detach=True)

    def promote(self, number: int, candidate_hash: str) -> Generation:
        return steps.promote(self.opened, number, candidate_hash)

    def roll_back(self, number: int) -> Generation:
        return steps.roll_back(self.opened, number)

    def budget_left(self) -> Mapping[str, float | None]:
        chosen, state = self.opened.settings, self.state()
        spent = {"tokens": state.total_tokens, "usd": state.cost_usd}
        most = {"tokens": chosen.token_budget, "usd": chosen.money_budget}
        return {
            name: max(0.0, limit - used) if limit and (used := spent[name]) is not None else None
            for name, limit in most.items()
        }

    def why_no_chat(self) -> str:
        try:
            model_of(self.opened, Role.PRIME, 0).close()
        except LooperError as error:
            return str(error)
        return ""

    def chat(self, message: str, tell: Tell) -> str:
        return self._conversation.answer(message, tell)

    def chat_stats(self) -> dict[str, Any]:
        return {
            "messages_count": len(self._conversation.messages),
            "tool_calls_count": self._conversation.tool_calls,
        }

    def _tools(self) -> dict[str, Tool]:
        return {
            "status": Tool("", "every generation and how it stands", lambda _: self._tree()),
            "reflect": Tool(
                "",
                "a contract for the next change; nothing is begun",
                lambda _: steps.proposed(self.opened, None)[1],
            ),
            "spawn": Tool(
                "a contract", "begin a generation from a contract", lambda text: self._spawn(text, Origin.CLI)
            ),
            "build": Tool(
                "one sentence",
                "begin a generation from what the person wants",
                lambda text: self._build(text),
            ),
            "verify": Tool(
                "number of a generation",
                "run the gates",
                lambda text: _said(steps.verify(self.opened, number(text))),
            ),
            "promote": Tool(
                "number of a generation",
                "make a generation that every gate has passed the one that works",
                lambda text: self._promote(number(text)),
            ),
            "rollback": Tool(
                "number of a generation",
                "let the version before it work again",
                lambda text: _said(self.roll_back(number(text))),
            ),
        }

    def _tree(self) -> str:
        return "\n".join(tree_lines(self.state()))

    def _spawn(self, text: str, source: Origin) -> str:
        return _said(self.spawn(text, None, source, secrets.token_hex(8)))

    def _build(self, sentence: str) -> str:
        wanted = " ".join(sentence.split())
        if not wanted:
            raise BadInput("Say in one sentence what is to be built.")
        title = wanted if len(wanted) <= 60 else f"{wanted[:59]}…"
        text = f"# Task: {title}\n\n## Objective\n{wanted}\n\n## Acceptance Criteria\n- {wanted}\n"
        return self._spawn(text, Origin.USER)

    def _promote(self, wanted: int) -> str:
        # What was judged is what is promoted: the hash is the ledger's.
        return _said(self.promote(wanted, self.state().generation(wanted).candidate_hash))


def _said(one: Generation) -> str:
    return "\n".join(report_lines(one))


def _diff(own: Sources, one: Generation) -> str:
    return own.diff(one.base_commit, one.candidate_commit) if one.candidate_commit and one.base_commit else ""
