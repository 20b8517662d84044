"""What `looper evolve regenerate` does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from looper.cli.progress import Waits
from looper.cli.settings import Settings
from looper.cli.wiring import copied, harness_environment, role_model, sandbox_named, stoppable, with_roles
from looper.errors import BadInput, Cancelled
from looper.evolution.genome import parse_genome, read_acceptance
from looper.evolution.regenerate import (
    ProgramWriter,
    Regeneration,
    TokenEconomy,
    births,
    identity,
    inherited_genome,
    mutate,
    run,
)
from looper.evolution.rig import Rig
from looper.experiment.plans import parse_model
from looper.journal import RunLock, replace_file
from looper.records.genome import Mode
from looper.views.regeneration import ENOUGH, regeneration_lines

CONTEXT_TOKENS = 200_000
PATIENCE_S = 60.0


@dataclass(frozen=True)
class RegenerateOptions:
    """What `looper evolve regenerate` was asked for."""

    specification: Path
    acceptance: Path | None
    models: tuple[str, ...]
    """NAME, or NAME=TOKENS with a budget of its own."""
    modes: tuple[Mode, ...]
    generations: int
    """Of each mode."""
    mutations: int
    balance: int | None
    income: int
    folder: Path
    sandbox: str
    seed: int
    pilot: bool


def regenerate(
    options: RegenerateOptions, settings: Settings, say: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Why each mode ended, and the figures. Raises BadInput before anything is asked for."""
    if not options.specification.is_file():
        raise BadInput(
            f"There is no specification {options.specification}. See docs/evolution.md for its form."
        )
    genome = parse_genome(options.specification.read_text("utf-8", "replace"))
    battery = options.acceptance or options.specification.with_suffix(".acceptance.jsonl")
    acceptance = read_acceptance(battery, genome)
    if len(options.modes) > 1 and options.generations < ENOUGH and not options.pilot:
        raise BadInput(
            f"{options.generations} generations of each cannot tell two ways of writing apart; {ENOUGH} is the least. Ask for "
            f"--generations {ENOUGH}, or say that it is a --pilot."
        )
    if not options.models:
        raise BadInput(f"No model is named. Name one or several with --model: {with_roles()}.")
    options.folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(options.folder, "regeneration")
    writers: list[ProgramWriter] = []
    waits = Waits(say)
    try:
        writers += [_writer(text, settings, waits) for text in options.models]
        reasons, environment = [], harness_environment(settings)
        rig = Rig(partial(copied, sandbox_named(options.sandbox), environment, settings.workspaces))
        with stoppable() as stop:
            for mode in options.modes:
                of = Regeneration(
                    options.folder,
                    inherited_genome(options.folder, genome),
                    acceptance,
                    writers,
                    rig,
                    mode,
                    TokenEconomy(options.balance, options.income),
                    options.seed,
                    say,
                    stop.is_set,
                )
                _same_campaign(options.folder, identity(replace(of, genome=genome)))
                reasons.append(f"{mode.value}: {run(of, options.generations)}")
                for number in range(options.mutations):
                    of = replace(of, genome=inherited_genome(options.folder, genome))
                    mutate(of, writers[number % len(writers)].model, number)
                if stop.is_set():
                    raise Cancelled
        return reasons, list(regeneration_lines(births(options.folder)))
    finally:
        for writer in writers:
            writer.model.close()
        lock.close()


def _writer(text: str, settings: Settings, waits: Waits) -> ProgramWriter:
    name, mark, budget = text.rpartition("=")
    if not mark or not budget.isdigit():
        name, budget = text, ""
    spec = parse_model(name)
    model = role_model(spec, settings.key_of(spec.backend), CONTEXT_TOKENS, PATIENCE_S, waits)
    return ProgramWriter(name, model, int(budget) if budget else None)


def _same_campaign(folder: Path, found: str) -> None:
    path = folder / "campaign"
    if not path.is_file():
        replace_file(path, found.encode())
    elif path.read_text() != found:
        raise BadInput(
            f"{folder} belongs to another specification, battery or seed. Go on as it was begun, or name another folder with --folder."
        )


def chosen_modes(text: str) -> Sequence[Mode]:
    """Raises BadInput."""
    if text == "both":
        return tuple(Mode)
    if text not in list(Mode):
        raise BadInput(f"--mode {text}: use one of {', '.join(Mode)}, both.")
    return (Mode(text),)
