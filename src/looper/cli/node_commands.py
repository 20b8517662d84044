"""The commands of `looper node`."""

import typer

from looper.cli.options import (
    AdapterId,
    Arms,
    AsJson,
    Data,
    Experiment,
    Limit,
    MasterSeed,
    Mirrors,
    Model,
    Overrides,
    Profile,
    SandboxName,
    SplitLetter,
    chosen_settings,
    say,
    shown,
)

node = typer.Typer(no_args_is_help=True, help="A machine that works on the cells of runs on a cluster.")


@node.callback()
def _group() -> None:
    """So that its one command has a name."""


@node.command("prepare")
def node_prepare(
    experiment: Experiment,
    profile: Profile = None,
    model: Model = None,
    arm: Arms = None,
    limit: Limit = None,
    sandbox: SandboxName = "auto",
    master_seed: MasterSeed = None,
    split: SplitLetter = None,
    adapter: AdapterId = None,
    override: Overrides = None,
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """Make this machine ready for the cells of a plan: mirrors, environments, sandbox, models, and gold and noop on a task.

    Safe to repeat. Give it the options of the run: machines that print the same `ready for` lines run the same cells. A run sends a node what
    it lacks but for environments, which are built here.

    Example: looper node prepare exp00 --profile swe
    """
    from looper.cli.fetching import make_ready
    from looper.cli.plans import RunOptions, parse_override

    options = RunOptions(
        experiment,
        profile,
        model,
        arms=tuple(arm or ()),
        limit=limit,
        sandbox=sandbox,
        master_seed=master_seed,
        overrides=tuple(parse_override(text) for text in override or ()),
        split=split,
        adapter=adapter,
        data=data,
        mirrors=mirrors,
    )
    settings = chosen_settings(data, mirrors)
    made_ready = (line for one in options.of_each_split() for line in make_ready(one, settings, say))
    shown(made_ready, as_json=as_json, at_once=True)
