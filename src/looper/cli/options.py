"""What commands have in common: options, settings, where words go.

`the_run` is the run that a person means, in every command; `say`, `print_lines` and `shown` print, each command in their lines as it can
be typed here.
"""

import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looper.errors import as_called, printable

if TYPE_CHECKING:
    from rich.console import Console

    from looper.cli.settings import Settings
    from looper.views.runs import RunView

UNBROKEN = 100_000
"""Characters of a line in a file or a pipe: more than any has."""


def run_names(incomplete: str) -> list[str]:
    """For the shell: names of runs that begin so, the newest first."""
    from looper.cli.settings import settings
    from looper.views.runs import run_folders

    return [path.name for path in reversed(run_folders(settings().runs)) if path.name.startswith(incomplete)]


def experiment_names(incomplete: str) -> list[str]:
    """For the shell: plans that a name is enough for, and plan files of this folder, that begin so."""
    from looper.cli.plans import plan_files, registered

    return [name for name in (*sorted(registered()), *plan_files()) if name.startswith(incomplete)]


def profile_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For the shell: profiles of the plan that was typed before, and those of all plans, that begin so."""
    from looper.cli.plans import profiles_for

    # While a line is completed, words before an option without its value are not yet parameters.
    plan = ctx.params.get("experiment") or next((word for word in ctx.args if word[:1] != "-"), None)
    return [name for name in profiles_for(plan) if name.startswith(incomplete)]


def adapter_ids(incomplete: str) -> list[str]:
    """For the shell: ids of adapters that begin so."""
    from looper.cli.settings import settings
    from looper.cli.wiring import adapter_store

    return [name for name in adapter_store(settings()).ids() if name.startswith(incomplete)]


_RUN = "A run: its folder, name, beginning of its name, or experiment for its newest run, the one begun last."
RunName = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help=f"{_RUN} Else the newest of all.", autocompletion=run_names),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help=f"{_RUN} Else the newest of all.", autocompletion=run_names),
]
OnlyRun = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="Only this run, named as for show.", autocompletion=run_names),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on one line.")]
Experiment = Annotated[
    str,
    typer.Argument(help="Name of a plan in experiments/, or a TOML file.", autocompletion=experiment_names),
]
Profile = Annotated[
    str | None,
    typer.Option(
        help="A profile of the plan (micro, demo, swe), or a TOML file with one; else micro, or the only one that the plan's file has.",
        autocompletion=profile_names,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="In place of the profile's: nano, mlx:FOLDER or mlx:NAME (looper model), ollama:NAME, openai:NAME@URL, vllm:NAME@URL, "
        "anthropic:NAME, scripted:FILE, gold, noop, expert. What each is says docs/plan.md."
    ),
]
Arms = Annotated[list[str] | None, typer.Option(help="Only this arm's cells; can be repeated.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first tasks: another, smaller run.")]
SandboxName = Annotated[
    str,
    typer.Option(
        help="auto, bubblewrap, landlock, seatbelt, container:IMAGE, container:swe-bench (the images of its tasks), or none (no protection)."
    ),
]
MasterSeed = Annotated[
    int | None,
    typer.Option(min=0, help="Other generated repositories and other sampling seeds: the whole run again."),
]
SplitLetter = Annotated[
    str | None,
    typer.Option(
        help="Which tasks are learned from: A first, B last, C every other, D and E drawn; all for one after the other."
    ),
]
AdapterId = Annotated[
    str | None,
    typer.Option(
        help="Id of an adapter that was trained here, for the arms that carry one.",
        autocompletion=adapter_ids,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        help='Pass over a gate, data, memory or action, for a reason that is recorded: data="a pilot". Can be repeated.'
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Rows of the suite, a JSONL file or hub:NAME; else LOOPER_SWE_DATA, for swe-bench LOOPER_SWE_BENCH_DATA.",
    ),
]
Mirrors = Annotated[
    Path | None,
    typer.Option("--mirrors", help="Folder with bare mirrors, owner__name.git; else LOOPER_MIRRORS."),
]


def chosen_settings(
    data: str | None = None, mirrors: Path | None = None, suite: str | None = None
) -> "Settings":
    """`data` are the rows of `suite`, or of whichever one the command then works with."""
    from dataclasses import replace

    from looper.cli.settings import ROWS_FROM, settings
    from looper.records.plan import REAL_SUITES

    found = settings()
    suites = (suite,) if suite in ROWS_FROM else REAL_SUITES
    return replace(
        found,
        rows={**found.rows, **{name: data for name in suites if name and data}},
        mirrors=(mirrors or found.mirrors).absolute(),
    )


def say(line: str) -> None:
    print(printable(as_called(line)), file=sys.stderr, flush=True)


def the_run(runs: Path, wanted: "str | Path | None" = None) -> "RunView":
    """The run that a person means, and in lines which that is where there was a choice, and which records of it cannot be read. Raises
    BadInput."""
    from looper.views.runs import run_named

    view = run_named(runs, wanted, _say_once)
    if view.damage:
        from looper.views.findings import damage_lines

        for line in damage_lines(view):
            _say_once(f"{view.folder.name}: {line}; what it said is not in what follows")
    return view


@cache
def _say_once(line: str) -> None:
    """What is asked for several times by one command is said once."""
    say(line)


def print_lines(lines: "Iterable[str]", *, flush: bool = False) -> None:
    """With `flush` each is seen when it comes, whoever reads them."""
    for line in lines:
        # What programs read is as it is recorded.
        print(line if line.startswith('{"') else as_called(line), flush=flush)


def plain_console() -> "Console":
    """For standard output. Lines are broken where there is a terminal to fit them into, and nowhere else."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else UNBROKEN)


def json_line(found: Any) -> str:
    """What a command found, for programs: one JSON object on one line. Records are written as they stand in a run's files."""
    import dataclasses
    import json

    from looper.records.base import Record

    def plain(value: Any) -> Any:
        match value:
            case Record():
                return json.loads(value.to_json())
            case Path():
                return str(value)
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            case _:
                raise TypeError(f"{type(value).__name__} is not written as JSON")

    return json.dumps(found, default=plain)


def shown(
    lines: Iterable[str], *, as_json: bool, at_once: bool = False, beside: Mapping[str, Any] | None = None
) -> None:
    """Print what a command did, a line at a time, into pipes too where `at_once`; for programs as one object with all `lines`, and what
    stands `beside` them, also where an error ends them."""
    if not as_json:
        print_lines(lines, flush=at_once)
        return
    told: list[str] = []
    try:
        told.extend(lines)
    finally:
        print(json_line({"lines": told, **(beside or {})}))


def named_values(texts: list[str] | None) -> dict[str, object]:
    """NAME=VALUE → by name. Raises BadInput."""
    from looper.errors import BadInput

    found: dict[str, object] = {}
    for text in texts or ():
        name, mark, value = text.partition("=")
        if not mark:
            raise BadInput(f"--set {text}: write NAME=VALUE. See all names: looper evolve settings")
        found[name] = value
    return found
