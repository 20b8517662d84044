"""A repository that evolves: its settings, its ledger, its models within their budget, and what is derived from it.

`opened` is where every command on a repository begins. A role's model is made here and nowhere else, so no call of one escapes the
budget; what people read beside the ledger is written anew by `reports`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.cli.campaigns import PLACE
from looper.cli.evolve_settings import EvolveSettings, evolve_settings, price
from looper.cli.progress import Waits
from looper.cli.settings import Settings
from looper.cli.wiring import (
    role_model,
    sources,
)
from looper.errors import BadInput
from looper.evolution.budget import Account, Allowance, Metered
from looper.evolution.contract import Contracts
from looper.evolution.gates import ChangeScope
from looper.evolution.ledger import EventLog
from looper.experiment.plans import parse_model
from looper.journal import replace_file
from looper.records.generation import Happened, Role, Spent
from looper.views.evolution import derived

CONTEXT_TOKENS = 200_000
Say = Callable[[str], None]


@dataclass(frozen=True)
class OpenRepository:
    """A repository that evolves, with everything that its commands need and no model yet."""

    root: Path
    folder: Path
    settings: EvolveSettings
    looper: Settings
    chosen: Mapping[str, Any]
    """On the command line, so that the process of a lab is told too."""
    ledger: EventLog
    contracts: Contracts
    say: Say

    @property
    def branch(self) -> str:
        return f"refs/heads/{self.settings.branch}"

    @property
    def scope(self) -> ChangeScope:
        found = self.settings
        return ChangeScope(found.allowed, found.protected, found.file_bytes, found.changed_lines)


def opened(root: Path, chosen: Mapping[str, Any], looper: Settings, say: Say) -> OpenRepository:
    """Raises BadInput where there is no repository, or where settings cannot be used."""
    root = root.absolute()
    sources(root)
    folder = root / PLACE
    folder.mkdir(parents=True, exist_ok=True)
    ignored = folder.parent / ".gitignore"
    if not ignored.is_file():
        # Whole or not there: a half-written one would show everything here as somebody's new files.
        replace_file(ignored, b"*\n")
    found = evolve_settings(root, chosen)
    return OpenRepository(
        root, folder, found, looper, chosen, EventLog(folder / "ledger"), Contracts(folder / "contracts"), say
    )


def model_of(found: OpenRepository, role: Role, generation: int) -> Metered:
    """The model of a role, within the campaign's budget. Raises BadInput where none is set, BudgetSpent."""
    settings = found.settings
    name = role.value
    own = getattr(settings, name)
    # A reviewer that nobody chose is the model that proposes, with all that belongs to it.
    source = "prime" if role is Role.REVIEWER and not own else name
    text = getattr(settings, source)
    if not text:
        raise BadInput(
            f"No model is set for the {name}. Name one: --set {name}=anthropic:NAME, LOOPER_EVOLVE_{name.upper()}, or {name} in [evolve] of "
            "looper.toml."
        )
    if role is Role.REVIEWER and text == settings.lab:
        raise BadInput(
            f"{text} would review its own work. Give one of them another model: --set reviewer=MODEL."
        )
    spec = parse_model(text)
    if endpoint := getattr(settings, f"{source}_endpoint"):
        spec = spec.model_copy(update={"base_url": endpoint})
    key = getattr(settings, f"{source}_key").get_secret_value() or found.looper.key_of(spec.backend)
    context = settings.max_context if role is Role.LAB else CONTEXT_TOKENS
    inner = role_model(spec, key, context, settings.patience_s, Waits(found.say))
    return Metered(
        inner,
        account_of(found),
        price(getattr(settings, f"{source}_price")),
        role,
        generation,
        lambda spent: record(found, spent),
    )


def record(found: OpenRepository, happened: Happened) -> None:
    found.ledger.record(lambda now: happened)


def account_of(found: OpenRepository) -> Account:
    """What is left, by what the ledger says was spent."""
    settings, state = found.settings, found.ledger.state()
    allowance = Allowance(
        settings.token_budget or None,
        settings.call_budget or None,
        settings.call_window_s,
        settings.money_budget or None,
    )
    if allowance.usd is not None and state.cost_usd is None:
        raise BadInput("Money is limited, and the price of earlier calls is not known. Limit tokens instead.")
    made = [
        _seconds(event.at)
        for event in found.ledger.events()
        if isinstance(event.happened, Spent)
        for _ in range(event.happened.calls)
    ]
    return Account(allowance, state.total_tokens, state.cost_usd or 0.0, made)


def _seconds(at: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(at).timestamp()


def changeable(found: OpenRepository) -> dict[str, str]:
    """The source that a candidate may change, as it is now."""
    own = sources(found.root)
    state = found.ledger.state()
    commit = own.commit_of(found.branch if state.active else "HEAD")
    texts = {}
    for path in own.listing(commit):
        if any(path.startswith(f"{folder.rstrip('/')}/") for folder in found.settings.allowed):
            content = own.file(commit, path)
            if content is not None and b"\0" not in content[:8192]:
                texts[path] = content.decode("utf-8", "replace")
    return texts


def priorities(found: OpenRepository) -> str:
    path = found.root / "priorities.md"
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def budget_left(found: OpenRepository) -> str:
    settings, state = found.settings, found.ledger.state()
    if not settings.token_budget:
        return ""
    return f"{max(0, settings.token_budget - state.total_tokens)} of {settings.token_budget} tokens"


def reports(found: OpenRepository) -> None:
    """Everything that is derived from the ledger, written anew."""
    events, state = found.ledger.events(), found.ledger.state()
    for path, text in derived(events, state, found.contracts.text):
        target = found.folder / path
        target.parent.mkdir(exist_ok=True)
        if not target.is_file() or target.read_text("utf-8") != text:
            replace_file(target, text.encode())
