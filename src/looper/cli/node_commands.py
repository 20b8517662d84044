"""The commands of `looper node`."""

from typing import Annotated

import typer

from looper.cli.options import AsJson, Data, Mirrors, chosen_settings, say, shown

node = typer.Typer(no_args_is_help=True, help="A machine that works on the cells of runs on a cluster.")


@node.callback()
def _group() -> None:
    """So that its one command has a name."""


@node.command("prepare")
def node_prepare(
    experiment: Annotated[str, typer.Argument(help="Name of a plan in experiments/, or a TOML file.")],
    profile: Annotated[str | None, typer.Option(help="As for run.")] = None,
    model: Annotated[str | None, typer.Option(help="As for run.")] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="Ask the model of this arm alone what it is; can be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="As for run.")] = None,
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """Make this machine ready for the cells of a plan: mirrors, environments, sandbox, models, and gold and noop on a task.

    Safe to repeat. Machines that print the same last line run the same cells. A run sends a node what it lacks but for environments,
    which are built here.

    Example: looper node prepare exp00 --profile swe
    """
    from looper.cli.fetching import make_ready
    from looper.cli.plans import RunOptions

    options = RunOptions(
        experiment,
        profile,
        model,
        arms=tuple(arm or ()),
        limit=limit,
        sandbox=sandbox,
        data=data,
        mirrors=mirrors,
    )
    shown(make_ready(options, chosen_settings(data, mirrors), say), as_json=as_json, at_once=True)
