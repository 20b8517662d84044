"""The commands of `looper runs` and `looper cache`."""

from collections.abc import Iterable
from typing import Annotated

import typer

from looper.cli.options import AsJson, RunArgument, chosen_settings, print_lines, run_names, say, shown

runs = typer.Typer(no_args_is_help=True, help="The runs that are here: listed, shown, removed, measured.")
cache = typer.Typer(
    no_args_is_help=True, help="What Looper keeps beside runs, and which of it comes back by itself."
)
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _agreed(about: Iterable[str], question: str) -> None:
    """Ask a person. Raises BadInput where nobody answers, and ends where the answer is no."""
    from looper.errors import BadInput

    for line in about:
        say(line)
    try:
        if typer.confirm(question, err=True):
            return
    except typer.Abort as error:
        raise BadInput(
            "There was no answer, and nothing was removed. To remove without a question: --yes"
        ) from error
    say("Nothing was removed.")
    raise typer.Exit(1)


@runs.command("list")
def list_runs(as_json: AsJson = False) -> None:
    """Print every run: name, experiment, profile, state, cells done of those planned, when it was begun, size.

    Example: looper runs list
    """
    from looper.cli.keeping import list_lines

    print_lines(list_lines(chosen_settings().runs, as_json=as_json))


@runs.command("show")
def show_run(run: RunArgument = None, as_json: AsJson = False) -> None:
    """Print what RUN is in a few lines: its plan, model, state, and how to go on with it.

    Example: looper runs show exp00
    """
    from looper.cli.keeping import show_lines

    print_lines(show_lines(chosen_settings().runs, run, as_json=as_json))


@runs.command("rm")
def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Folders, names, or beginnings of one name each; an experiment is refused here.",
            autocompletion=run_names,
        ),
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove the run folders NAME, for good. A run that is running is refused; what is lost is said before you are asked.

    Example: looper runs rm exp00-micro-0123456789ab
    """
    from looper.cli.keeping import lost_lines, removable, remove_runs

    settings = chosen_settings()
    found = removable(settings.runs, names)
    if not yes:
        _agreed(lost_lines(found), "Remove?")
    shown(remove_runs(found, settings), as_json=as_json)


@runs.command()
def du(as_json: AsJson = False) -> None:
    """Print what each run takes on the disk, the largest first.

    Example: looper runs du
    """
    from looper.cli.keeping import du_lines

    print_lines(du_lines(chosen_settings().runs, as_json=as_json))


@cache.command("du")
def cache_du(as_json: AsJson = False) -> None:
    """Print what lies below LOOPER_HOME, how large it is, and whether it comes back by itself.

    Example: looper cache du
    """
    from looper.cli.keeping import cache_lines

    print_lines(cache_lines(chosen_settings(), as_json=as_json))


@cache.command()
def clean(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these, as looper cache du names them."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove what the next run makes again: suites, environments, exports, kept verdicts, working trees of dead runs.

    While a run may be using them, only working trees of dead runs are removed. Adapters, models, mirrors and validations stay.

    Example: looper cache clean exports
    """
    from looper.cli import keeping

    settings = chosen_settings()
    chosen = keeping.cleanable(settings, names or [])
    if not chosen:
        say("There is nothing to remove.")
        shown([], as_json=as_json)
        return
    if not yes:
        _agreed((f"{part.name}: {part.what}" for part in chosen), "Remove?")
    shown(keeping.clean(settings, chosen, say), as_json=as_json)
