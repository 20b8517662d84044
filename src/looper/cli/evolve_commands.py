"""The commands of `looper evolve`."""

from pathlib import Path
from typing import Annotated

import typer

evolve = typer.Typer(no_args_is_help=True, help="Changes of the agent's own source, behind gates that hold.")


Folder = Annotated[Path, typer.Option(help="Of the campaign: its repository, ledger, versions and runs.")]


@evolve.command()
def run(
    folder: Folder = Path("evolving"),
    generations: Annotated[int, typer.Option(min=1, help="To decide; alpha is divided among them.")] = 12,
    tasks: Annotated[int, typer.Option(min=10, max=200, help="Of each lane.")] = 100,
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.49, help="Of a false promotion in the whole campaign.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Which moves come first.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Rollouts side by side.")] = None,
    plateau_window: Annotated[
        int, typer.Option(min=0, help="End after so many generations without a promotion; 0 for never.")
    ] = 0,
) -> None:
    """Let the embedded agent's scaffold evolve from a poor one: propose a setting, judge it, promote it or keep it aside.

    Safe to interrupt and to repeat. Every candidate is a commit; it is promoted where the lower bound of its gain on the development
    lane lies above zero, and again on a sealed one. At the end the version that works is held against the first one on tasks that
    nobody has seen. No language model proposes anything here. About two minutes a generation on two cores.

    Example: looper evolve run --generations 12
    """
    from looper.cli.evolving import EvolveOptions, evolve
    from looper.cli.options import chosen_settings, say

    options = EvolveOptions(folder.absolute(), generations, tasks, alpha, seed, workers, plateau_window)
    for line in evolve(options, chosen_settings(), say):
        print(line)


@evolve.command()
def status(
    folder: Folder = Path("evolving"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on one line.")] = False,
) -> None:
    """Say how far a campaign is, from its ledger alone.

    Example: looper evolve status --json
    """
    from looper.cli.evolving import status as status_lines

    for line in status_lines(folder, as_json=as_json):
        print(line)


@evolve.command()
def tree(folder: Folder = Path("evolving")) -> None:
    """Print which generation comes from which, how it ended and what the gates saw; a star marks the one that works.

    Example: looper evolve tree
    """
    from looper.cli.evolving import tree as lines_of

    for line in lines_of(folder):
        print(line)


@evolve.command()
def rollback(
    generation: Annotated[int | None, typer.Argument(help="Its number; else the one that works.")] = None,
    folder: Folder = Path("evolving"),
) -> None:
    """Let the version before GENERATION work again, at once. The candidate is kept under its ref.

    Example: looper evolve rollback
    """
    from looper.cli.evolving import roll_back

    print(roll_back(folder, generation))


@evolve.command()
def calibrate(
    campaigns: Annotated[int, typer.Option(min=1, help="To simulate.")] = 1000,
    challengers: Annotated[int, typer.Option(min=1, help="Candidates that a campaign may test.")] = 8,
    tasks: Annotated[int, typer.Option(min=1, help="Pairs that each is tested on.")] = 100,
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.49, help="Of a false promotion in the whole campaign.")
    ] = 0.05,
    discordance: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of tasks at which candidate and parent differ.")
    ] = 0.3,
    file: Annotated[
        Path | None, typer.Option(help="Markdown file to write the table to, between its marks.")
    ] = None,
) -> None:
    """Simulate campaigns in which nothing is better, worse or better by a known amount, and print how often the gate promotes.

    The gate is the one of real campaigns; only outcomes of tasks are drawn. Beside it stand rules that published systems decide by,
    on the same draws. No model, no network, a minute.

    Example: looper evolve calibrate --campaigns 1000
    """
    from looper.cli.calibrating import calibration, write_calibration
    from looper.cli.options import say

    lines = calibration(campaigns, challengers, tasks, alpha, discordance)
    print("\n".join(lines))
    if file is not None:
        say(write_calibration(file, lines))
