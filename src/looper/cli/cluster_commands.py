"""The commands of `looper cluster`.

Each writes a script of `cli/batch`; the options of the run in it are read as `looper run` itself reads them, and the plan is loaded once, so that what
is wrong is said here and not in a queue.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from looper.cli.options import AsJson, chosen_settings, json_line, shown

if TYPE_CHECKING:
    from looper.cli.batch import Batch

cluster = typer.Typer(no_args_is_help=True, help="Scripts that run a plan on many machines, by SLURM or SSH.")

Plan = Annotated[str, typer.Argument(metavar="PLAN", help="Name of a plan in experiments/, or a TOML file.")]
Cells = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="At once on each node; else as many as it has CPUs. Cells that wait for a model leave theirs idle.",
    ),
]
RunWords = Annotated[
    str, typer.Option("--run-options", help='Options of looper run, in one word: "--profile swe --limit 3".')
]
Python = Annotated[
    str | None,
    typer.Option(help="The interpreter with Looper and Ray on every node; else the path of this one."),
]
Serve = Annotated[
    str,
    typer.Option(
        metavar="COMMAND",
        help='Starts a model server on every node that works on cells, and ends with it: "vllm serve NAME --port 8000".',
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write, in place of printing.")]


@cluster.command()
def slurm(
    context: typer.Context,
    plan: Plan,
    nodes: Annotated[int, typer.Option(min=1, help="Of the job.")] = 2,
    cpus_per_task: Annotated[int, typer.Option(min=1, help="CPUs of each node.")] = 8,
    time: Annotated[str, typer.Option(help="Of the job, as SLURM writes it.")] = "24:00:00",
    cells: Cells = None,
    run_options: RunWords = "",
    serve: Serve = "",
    python: Python = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write the batch script that runs PLAN on the nodes of a SLURM job.

    It starts a Ray cluster with a token of its own, runs the plan there, ends the run in order before the job's time is over, and leaves
    no process. Submitted again it goes on. What it does stands in it, as comments. Options of sbatch overrule its own.

    Example: looper cluster slurm exp00 --nodes 4 --cpus-per-task 16 --time 12:00:00 -o job.sh
    """
    from looper.cli.batch import slurm_script

    script = slurm_script(
        _batch(context, plan, run_options, cells, python, serve), nodes, cpus_per_task, time
    )
    _given(script, output, "sbatch", as_json=as_json)


@cluster.command()
def hosts(
    context: typer.Context,
    plan: Plan,
    host: Annotated[list[str], typer.Argument(metavar="HOST...", help="As for ssh: HOST or USER@HOST.")],
    cells: Cells = None,
    run_options: RunWords = "",
    serve: Serve = "",
    python: Python = None,
    ssh: Annotated[str, typer.Option(help='The command, with options of its own: "ssh -p 2222".')] = "ssh",
    address: Annotated[
        str | None, typer.Option(help="Of this machine for the hosts; else as the first of them sees it.")
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write the script that runs PLAN on every HOST, which this machine reaches by ssh without a password.

    It starts a Ray cluster with a token of its own, runs the plan there, and leaves no process, also where it is killed. Run again it goes
    on. What it does stands in it, as comments. Records stay on this machine.

    Example: looper cluster hosts exp00 node1 node2 --cells 16 -o run.sh
    """
    import shlex

    from looper.cli.batch import hosts_script
    from looper.errors import BadInput

    try:
        command = shlex.join(shlex.split(ssh))
    except ValueError as error:
        raise BadInput(f"--ssh: {error}. Write it as in a shell.") from error
    _given(
        hosts_script(
            _batch(context, plan, run_options, cells, python, serve), host, command or "ssh", address
        ),
        output,
        "bash",
        as_json=as_json,
    )


def _batch(
    context: typer.Context, plan: str, words: str, cells: int | None, python: str | None, serve: str
) -> "Batch":
    """Raises BadInput where the plan or the options of its run cannot be used."""
    import os
    import shlex
    import sys

    from looper.cli.batch import Batch
    from looper.cli.plans import RunOptions, load_written, parse_override
    from looper.errors import BadInput, one_line

    program = context.find_root().command
    assert isinstance(program, typer.core.TyperGroup)
    try:
        given = shlex.split(words)
        run = program.commands["run"]
        asked = run.make_context("run", [*given, "--", plan]).params
    except Exception as error:  # Typer's own, whose package has changed its place, and those of shlex.
        said = getattr(error, "format_message", error.__str__)()
        raise BadInput(f"--run-options: {one_line(said).rstrip('.')}. See them: looper run --help") from error
    for name in ("engine", "dry_run", "fresh"):
        if asked[name] not in ("local", False):
            raise BadInput(
                f"--run-options: leave --{name.replace('_', '-')} out: the script says where cells run, and goes on where it was ended."
            )
    options = RunOptions(
        plan,
        asked["profile"],
        asked["model"],
        arms=tuple(asked["arm"] or ()),
        limit=asked["limit"],
        overrides=tuple(parse_override(text) for text in asked["override"] or ()),
        adapter=asked["adapter"],
    )
    written = load_written(options, chosen_settings())
    return Batch(
        name=Path(plan).stem,
        plan=plan,
        options=given,
        folder=os.getcwd(),
        python=python or sys.executable,
        memory_mb=written.plan.limits.memory_mb,
        cells=cells,
        workers=asked["workers"],
        serve=serve.strip(),
    )


def _given(script: str, output: Path | None, program: str, *, as_json: bool) -> None:
    import shlex
    import sys

    from looper.errors import BadInput

    if output is None:
        print(json_line({"script": script})) if as_json else sys.stdout.write(script)
        return
    try:
        output.write_text(script, "utf-8")
        output.chmod(0o755)
    except OSError as error:
        raise BadInput(
            f"{output} cannot be written: {error.strerror}. Name a file in a folder that is there."
        ) from error
    shown([f"{output} is written: {program} {shlex.quote(str(output))}"], as_json=as_json)
