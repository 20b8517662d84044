"""The commands of `looper evolve`."""

from pathlib import Path
from typing import Annotated

import typer

evolve = typer.Typer(no_args_is_help=True, help="Changes of the agent's own source, behind gates that hold.")


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
