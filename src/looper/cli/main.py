"""The `looper` command. Everything heavy is imported when a command needs it, so that help comes at once.

A command here has its options and its help and calls one function elsewhere. Below them stands what holds for all commands: errors
become a line and an exit code, interruptions are said, and output goes to whatever terminal or pipe there is.
"""

import contextlib
import io
import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from looper import __version__
from looper.cli.adapter_commands import adapter
from looper.cli.bench_commands import bench
from looper.cli.cluster_commands import cluster
from looper.cli.evolve_commands import evolve
from looper.cli.memory_commands import memory
from looper.cli.model_commands import model as model_group
from looper.cli.node_commands import node
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
    OnlyRun,
    Overrides,
    Profile,
    RunArgument,
    RunName,
    SandboxName,
    SplitLetter,
    chosen_settings,
    json_line,
    print_lines,
    run_names,
    say,
    shown,
)
from looper.cli.run_commands import cache, runs
from looper.errors import (
    EXHAUSTED,
    Cancelled,
    ExitCode,
    LooperError,
    as_called,
    called_as,
    interrupted,
    printable,
)
from looper.untrusted import current_folder

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""That the words of a command do not fit it; Typer gives a name to its kind for a value alone."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            _say_how_a_run_is_named(error)
            _say_what_was_found(error)
            raise

    def main(self, *args: Any, **extra: Any) -> Any:
        """An interruption that no command answers is said, where Typer would end without a word wherever it comes."""
        try:
            return super().main(*args, **extra)
        except SystemExit as end:
            if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
                raise Cancelled(interrupted()) from None
            raise


def _say_what_was_found(error: Any) -> None:
    """A number out of its range, or no number, is said as in a plan: with what would be right and what was typed."""
    cause = error.__cause__
    if not hasattr(cause, "errors"):
        return
    from looper.experiment.plan_errors import BOUNDS, plain_words

    problem, *_ = cause.errors()
    if problem["type"] not in BOUNDS and not problem["type"].startswith(("int_", "float_")):
        return
    with contextlib.suppress(ValueError):
        problem["input"] = float(problem["input"]) if "." in str(problem["input"]) else int(problem["input"])
    error.message = plain_words(problem, None)


def _say_how_a_run_is_named(error: Any) -> None:
    """Where there is a word too many for a command whose run is an option, that may be the run."""
    asked = error.ctx
    by_option = asked is not None and any(
        parameter.name == "run" and "--run" in parameter.opts for parameter in asked.command.params
    )
    if by_option and "unexpected extra argument" in error.message:
        _, *pieces = asked.command.collect_usage_pieces(asked)
        words = [piece.strip("[]{}").upper() for piece in pieces]
        typed = " ".join([asked.command_path, *words, "--run RUN"])
        error.message = f"{error.message.removesuffix('.')}. A run is named by an option here: {typed}"


app = typer.Typer(
    name="looper",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Looper finds out whether a coding agent becomes more capable from its own experience.

    Begin with: looper run exp00""",
)
app.add_typer(runs, name="runs")
app.add_typer(cache, name="cache")
app.add_typer(bench, name="bench")
lineage = typer.Typer(no_args_is_help=True, help="Where the figures of a run come from.")
app.add_typer(lineage, name="lineage")


class _Said(StrEnum):
    YES = "yes"
    NO = "no"
    QUIT = "quit"


app.add_typer(memory, name="memory")

app.add_typer(adapter, name="adapter")
app.add_typer(model_group, name="model")
app.add_typer(cluster, name="cluster")
app.add_typer(node, name="node")
app.add_typer(evolve, name="evolve")


@app.command()
def run(
    experiment: Experiment,
    profile: Profile = None,
    model: Model = None,
    arm: Arms = None,
    limit: Limit = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rollouts side by side; else 2 for each server of the model, or twice the cores for the embedded one.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin a new run folder instead of going on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and do nothing.")] = False,
    sandbox: SandboxName = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="Where cells run: local, ray (the cluster that this machine is a node of) or ray:HOST:PORT (docs/scale.md)."
        ),
    ] = "local",
    share_machine: Annotated[
        bool, typer.Option("--share-machine", help="Run although another model runs on this machine.")
    ] = False,
    master_seed: MasterSeed = None,
    split: SplitLetter = None,
    adapter: AdapterId = None,
    override: Overrides = None,
    going_on: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Go on with this run and no other: its folder, name, or beginning of its name.",
            autocompletion=run_names,
        ),
    ] = None,
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """Run every cell of the plan EXPERIMENT that has no verdict yet, and print the table.

    Safe to interrupt and to repeat: finished cells stay, and an interrupted rollout goes on from its last step. Writes
    one JSON line per step, trajectory and verdict to the plan's folder below runs/. With the micro profile it takes an
    hour to a night on two cores, with demo minutes, no network and about 1 GB of memory; with swe nights and the memory of the model.

    Example: looper run exp00 --workers 2
    """
    from looper.cli import running
    from looper.cli.options import plain_console
    from looper.cli.plans import RunOptions, parse_override
    from looper.views.live import described
    from looper.views.splits import split_lines
    from looper.views.tables import run_table

    options = RunOptions(
        experiment,
        profile,
        model,
        arms=tuple(arm or ()),
        limit=limit,
        workers=workers,
        fresh=fresh,
        sandbox=sandbox,
        engine=engine,
        share_machine=share_machine,
        master_seed=master_seed,
        overrides=tuple(parse_override(text) for text in override or ()),
        split=split,
        adapter=adapter,
        data=data,
        mirrors=mirrors,
        run=going_on,
    )
    console, found, cells = plain_console(), {}, list[str]()
    for one in options.of_each_split():
        each, chosen = one.split, chosen_settings(data, mirrors)
        if dry_run:
            cells += running.dry_run(one, chosen)
            continue
        found[each or ""] = running.run(one, chosen, say)
        # The run's folder is named whole, however long its path is.
        if not as_json:
            console.print(run_table(found[each or ""]), crop=False)
    if dry_run:
        shown(cells, as_json=as_json)
    elif as_json:
        print(json_line({"runs": [described(one) for one in found.values()]}))
    elif len(found) > 1:
        shown(split_lines(found), as_json=False)


@app.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file to write; it must not exist yet.")],
    as_json: AsJson = False,
) -> None:
    """Write a plan of your own to FILE, with every key.

    It runs as it is. What a key means, its type, unit and default stand above it.

    Example: looper new mine.toml
    """
    from looper.cli.plans import begin_plan

    begin_plan(file)
    # As a shell takes it for one word, and no option.
    typed = shlex.quote(str(file) if not str(file).startswith("-") else f"./{file}")
    shown(
        [f"Wrote {file}. What it would take: looper plan {typed}. Run it: looper run {typed}"],
        as_json=as_json,
    )


@app.command()
def plan(
    experiment: Experiment,
    profile: Profile = None,
    model: Model = None,
    arm: Arms = None,
    limit: Limit = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Rollouts side by side.")] = None,
    adapter: AdapterId = None,
    override: Overrides = None,
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """Print what EXPERIMENT would take and what it could see, and run nothing.

    A plan whose gates its own tasks cannot pass is refused, with the numbers, where it is written and what to change.
    Time and tokens come from the run here that has the most cells of these arms with the same model, suite and limits, with a 95 %
    interval over them; arms that it has not are taken to be like its own. How often equal arms differ comes from the one with the most cells that draws its tokens alike: that is told beside what the plan takes for granted, by which
    the smallest difference that it could see is computed.

    Example: looper plan exp00
    """
    from looper.cli.planning import plan_lines
    from looper.cli.plans import RunOptions, parse_override

    options = RunOptions(
        experiment,
        profile,
        model,
        arms=tuple(arm or ()),
        limit=limit,
        workers=workers,
        overrides=tuple(parse_override(text) for text in override or ()),
        adapter=adapter,
    )
    print_lines(plan_lines(options, chosen_settings(data, mirrors), as_json=as_json))


@app.command()
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Runs as for show, or experiments for the newest run of each profile, in pages that runs share the newest finished one. Else the newest of all, with --verify or --sign every run.",
            autocompletion=run_names,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="A folder of pages, one for each experiment, to write into; without RUN all that have a block there."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="One Markdown file to write into; without RUN all that have a block there."),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Write nothing; look whether records and pages still say what they said."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --verify: what could not be looked at is a failure too.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(
            help="Write nothing but the hash of each run's seal, to this file or as a tag of this git repository; with --verify "
            "compare what stands there."
        ),
    ] = None,
    summary: Annotated[
        bool,
        typer.Option(
            "--summary",
            help="Write one table of all pages, of docs/results or --results, into LEARNINGS.md or --file.",
        ),
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Write nothing but the pages of one run, with every rollout, into this new folder, or this file that ends in .zip: "
            "they open in any browser, without Looper."
        ),
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Write tables and findings of RUN into its folder: report.html, the drawings in plots/, and report.md.

    Nothing else is written unless an option names it, and each file that is written is named. With --results or --file the findings
    also stand between markers, that name experiment and profile, in pages that runs share; text outside of them is left alone, and what is
    missing is made. A run of --master-seed 1 stands beside that of the plan, as exp00 micro@1. With --verify everything is computed
    again and compared: plan, tasks, verdicts, rollouts,
    adapters, tables, pages; the exit status is 1 where something does not fit, and what could not be looked at is listed and counted.
    Who owns the run folders can write everything anew, seal included: with --sign its hash stands where they cannot change it.
    With --json and RUN alone each report's arms, with rates and intervals, and registered contrasts stand in figures.

    Example: looper report exp00
    """
    from looper.cli import reporting
    from looper.errors import BadInput
    from looper.views.results import RESULTS, SharedPages

    named, pages = runs or [], SharedPages(results or RESULTS, file)
    if results and file and not summary:
        raise BadInput("--results names a folder of pages and --file one file: leave one of them out.")
    if bundle is not None:
        if verify or strict or sign or summary or results or file:
            raise BadInput(
                "--bundle writes the pages of one run and nothing else: leave the other options out."
            )
        from looper.cli.serving import bundled

        lines = bundled(named, bundle, chosen_settings(data), say)
    elif strict and not verify:
        raise BadInput("--strict is about what --verify could not look at: add --verify, or leave it out.")
    elif summary:
        if named or verify or sign:
            raise BadInput("--summary writes one table of all pages: leave names, --verify and --sign out.")
        lines = reporting.summarise(file, SharedPages(pages.folder))
    elif verify:
        lines = reporting.verify(chosen_settings(data), named, pages, strict=strict, sign=sign)
    elif sign is not None:
        if results or file:
            raise BadInput("--sign writes nothing but hashes of seals: leave --results and --file out.")
        lines = reporting.sign_runs(chosen_settings(data), named, sign)
    elif results or file:
        lines = reporting.share(chosen_settings().runs, named, pages)
    else:
        reports: list[dict[str, Any]] = []
        lines = reporting.report(chosen_settings().runs, named, reports)
        shown(lines, as_json=as_json, beside={"reports": reports})
        return
    shown(lines, as_json=as_json)


_OF_PLAN = "Else the plan's, else"


@app.command()
def train(
    run: RunArgument = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The base: nano or mlx:FOLDER; else the run's own where it is one of these, else nano."
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this arm's attempts; can be repeated. Else all that a model made, of every kind of experience."
        ),
    ] = None,
    per_task: Annotated[int, typer.Option(min=1, help="Attempts of one task, the shortest first.")] = 1,
    minimum_tasks: Annotated[
        int | None, typer.Option(min=1, help=f"Fewer resolved tasks train nothing. {_OF_PLAN} 20.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help=f"lora, dora or full. {_OF_PLAN} lora.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help=f"{_OF_PLAN} 8.")] = None,
    multiplier: Annotated[
        float | None, typer.Option(help=f"alpha / rank: the change is multiplier · B·A. {_OF_PLAN} 2.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help=f"{_OF_PLAN} 0.0003.")] = None,
    iterations: Annotated[int | None, typer.Option(min=2, help=f"{_OF_PLAN} 60.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help=f"{_OF_PLAN} 8.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=8, help=f"Longest example; history is cut, actions never. {_OF_PLAN} 2048."),
    ] = None,
    validation_share: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.9, help=f"Share of tasks kept aside to stop early. {_OF_PLAN} 0, for none."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"{_OF_PLAN} 0.")] = None,
    library: Annotated[
        str | None,
        typer.Option(
            help=f"mlx; or torch with PEFT, for machines with CUDA: plain LoRA only. {_OF_PLAN} mlx."
        ),
    ] = None,
    show_mask: Annotated[
        bool,
        typer.Option(
            "--show-mask",
            help="Print the examples as a training with these options reads them, what is trained on in colour, or where there is none on lines of its own that begin with 'trained on │', and train nothing.",
        ),
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on the verified successes of a run, in a process of its own.

    Trained with the settings of the run's own plan (experience.training) unless an option says otherwise. Safe to interrupt: the same
    command goes on from the last checkpoint. The adapter lies under the hash of everything
    that decides what it is, in Looper's state folder, in mlx-lm's format with its card beside it.

    Example: looper train exp00 --arm experience_own_1
    """
    from rich.console import Console

    from looper.cli import training
    from looper.cli.adapters import trained_on
    from looper.records.text import counted
    from looper.views.show import TRAINED_ON, mask_text

    options = training.train_options(
        run=run,
        arms=tuple(arm or ()),
        model=model,
        selection={"per_task": per_task, "minimum_tasks": minimum_tasks},
        training={
            "kind": kind,
            "rank": rank,
            "multiplier": multiplier,
            "learning_rate": learning_rate,
            "iterations": iterations,
            "batch_size": batch_size,
            "max_tokens": max_tokens,
            "validation_share": validation_share,
            "seed": seed,
            "library": library,
        },
    )
    console = Console()
    if show_mask:
        chosen, masks = training.masks(options, chosen_settings(data), say)
        if as_json:
            print(json_line({"examples": [*masks]}))
        colour = console.color_system is not None
        if not colour and not as_json:
            print(f"what is trained on stands on lines that begin with: {TRAINED_ON.strip()}")
        for found in () if as_json else masks:
            console.print(mask_text(found, chosen.max_tokens, colour=colour), soft_wrap=True)
        return
    card, where, made_of = training.train(options, chosen_settings(data), say)
    if as_json:
        print(json_line({"adapter": card, "folder": where, "made_of": made_of}))
        return
    losses = [point.loss for point in card.train_losses]
    print_lines(
        [
            f"adapter {card.id}: {where}",
            f"made of {made_of}",
            f"{counted(card.train_examples, 'sequence')} of at most {card.settings.max_tokens} tokens, cut from rollouts at {counted(len(card.tasks), 'task')}, "
            f"in which {card.supervised_tokens} tokens are the model's own, which alone are trained on; "
            f"{counted(card.too_long, 'action')} longer than --max-tokens left out",
            f"{card.trained_tokens} tokens trained on in {card.seconds:.0f} s; loss {losses[0]:.3f} → {losses[-1]:.3f}; weights changed by "
            f"{100 * card.relative_change:.1f} %",
            *trained_on(card),
            f"for the arms of a plan that say adapted = true: looper plan PLAN --adapter {card.id}",
        ]
    )


@app.command()
def show(
    cell: Annotated[
        str | None, typer.Argument(help="ARM/SEED/TASK, or the end of it; without it all are listed.")
    ] = None,
    run: RunName = None,
    arm: Annotated[str | None, typer.Option(help="Only cells of this arm.")] = None,
    step: Annotated[int | None, typer.Option(min=1, help="Only this step.")] = None,
    failed: Annotated[
        bool,
        typer.Option(
            "--failed", help="Of the list, cells that are not resolved; of a cell, steps that went wrong."
        ),
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Prompt and output of tests to their end, however long.")
    ] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Read a trajectory: what the model was asked, each step with what came of it, the patch, the verdict, what failing tests printed.

    A command that failed is marked with its exit code. Reads only, also while the run is going on.

    Example: looper show base/0/keswimvex-01
    """
    from looper.cli.showing import ShowOptions, show_cell

    options = ShowOptions(arm, step, failed, whole)
    for text in show_cell(chosen_settings(data), run, cell, options, as_json=as_json):
        print(text)


@app.command()
def status(
    as_json: AsJson = False,
    run: OnlyRun = None,
) -> None:
    """Say how far each run is, who is writing to it, and what the arms have resolved so far.

    Reads only, takes no lock, works while the run is going on.

    Example: looper status --json
    """
    from looper.cli.reading import status_lines

    print_lines(status_lines(chosen_settings().runs, run, as_json=as_json))


@app.command()
def watch(
    run: OnlyRun = None,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One screen, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow every run on one screen: progress, what is left, stalls, what the arms resolved. Ctrl-C ends looking, not the runs. With --json
    a line for each look, as looper status --json.

    Example: looper watch
    """
    from looper.cli.watching import watch as follow

    follow(chosen_settings().runs, run, every_s=every, once=once, as_json=as_json)


@app.command()
def serve(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="On this machine; 0 for any that is free.")
    ] = 8400,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other than loopback: anyone who can reach it may try.")
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        typer.Option(help="Under which browsers find it beside 127.0.0.1 and localhost. Repeatable."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Campaign of the embedded agent.")] = Path("evolving"),
    repo: Annotated[Path | None, typer.Option(help="Git repository that evolves, in its place.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="As for looper evolve. Repeatable.")
    ] = None,
    link: Annotated[
        bool,
        typer.Option("--link", help="Print another link that logs in, from the server that runs, and end."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show runs, trajectories and evolution in a browser, live, and let a person decide.

    Reads what runs write, no matter who started them, and takes no lock. Prints a link that logs one browser in, once.

    Example: looper serve
    """
    from looper.cli.options import json_line, named_values
    from looper.cli.serving import ServeOptions, another_link, serve_pages

    if link:
        found = another_link(port, chosen_settings())
        print(json_line({"link": found}) if as_json else found)
        return
    options = ServeOptions(host, port, tuple(name or ()), folder, repo, named_values(setting))
    serve_pages(options, chosen_settings(), say, as_json=as_json)


@app.command()
def doctor(
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    server: Annotated[
        list[str] | None,
        typer.Option(help="Address of a model server, as http://HOST:PORT; may be given several times."),
    ] = None,
    context_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Window that models are to have, as limits.context_tokens of a plan."),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Print nothing but what to do, or to type.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything a run needs: sandbox, git, interpreters, disk, memory, BLAS, MLX, models.

    Models of Ollama, llama.cpp's server, mlx_lm.server and vLLM are found where these listen unless told otherwise; and those that are here for
    MLX. Of each is said how --model names it, what memory and window it has, and how it takes adapters that were trained here.

    What is missing, or could be better, comes with its fix. Exit code 2 where the embedded default cannot run.

    Example: looper doctor --server http://127.0.0.1:8001 --context-tokens 16384
    """
    from looper.cli.wiring import examine

    findings = examine(sandbox, chosen_settings(), server or (), context_tokens)
    if as_json:
        print(json_line({"findings": findings}))
    elif fix:
        wanting = [finding for finding in findings if finding.fix]
        print_lines(f"{finding.what}: {finding.fix}" for finding in wanting)
        if not wanting:
            print("Nothing is missing.")
    else:
        print_lines(finding.line() for finding in findings)
    if any(finding.level == "missing" for finding in findings):
        raise typer.Exit(ExitCode.USAGE)


@app.command()
def diff(
    first: Annotated[
        str,
        typer.Argument(help="An arm, a cell ARM/SEED/TASK, or a run.", autocompletion=run_names),
    ],
    second: Annotated[str, typer.Argument(help="Another one of the same kind.", autocompletion=run_names)],
    run: RunName = None,
    as_json: AsJson = False,
) -> None:
    """Print what differs between two arms, two rollouts or two runs.

    Arms: their configuration, the paired difference, the tasks that flipped. Rollouts: where they part, actions side by
    side, what memory told, patches. Runs: what they are made of, and each arm of both.

    Example: looper diff lora base
    """
    from looper.cli.reading import diff_lines

    print_lines(diff_lines(chosen_settings().runs, run, first, second, as_json=as_json))


@lineage.command("why")
def lineage_why(
    run: RunArgument = None,
    arm: Annotated[str | None, typer.Option(help="Only this arm.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the exact treatment behind the figures of RUN: what each arm learned, from which tasks, with which settings, and
    how it was proved to have reached the model.

    Example: looper lineage why exp03 --arm lora
    """
    from looper.cli.adapters import lineage_of

    print_lines(lineage_of(chosen_settings(), run, arm, as_json=as_json))


@app.command()
def export(
    run: RunArgument = None,
    arm: Annotated[
        str | None,
        typer.Option(help="Only this arm; predictions and atif need one where the run has several."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Only this seed; predictions need one where the run has several.")
    ] = None,
    kind: Annotated[
        str, typer.Option("--format", help="predictions, csv, parquet, sft, dpo, atif or registered.")
    ] = "predictions",
    out: Annotated[Path | None, typer.Option(help="File to write to; else standard output.")] = None,
    data: Data = None,
) -> None:
    """Print a run in the format of others, one line for each task, cell, example or rollout.

    predictions: patches of an arm, as SWE-bench reads them. csv, parquet: a row for each cell. sft, dpo: conversations
    from verified successes, with what the loss counts marked; pairs of a success and a failure. atif: rollouts in the
    Agent Trajectory Interchange Format. registered: one JSON object with every figure of what the plan registered.

    Example: looper export exp00 --arm base > predictions.jsonl
    """
    from looper.cli.exporting import export_run

    export_run(chosen_settings(data), run, kind, arm, seed, out)


@app.command("import")
def import_runs(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="PATH or PATH=REPORT: a folder of mini-swe-agent, output.jsonl of OpenHands, or predictions; and the report "
            "of SWE-bench on it."
        ),
    ],
    predictions: Annotated[
        Path | None, typer.Option(help="Write all patches here as SWE-bench predictions, to be judged.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at runs of other harnesses with our statistics: rates with intervals, the first run against each other, paired, and
    what so many tasks could have shown.

    Example: looper import runs_a/output.jsonl=report_a.json runs_b=report_b.json
    """
    from looper.cli.exporting import import_lines

    shown(import_lines(sources, predictions), as_json=as_json)


@app.command()
def questions(
    run: RunName = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="Rate the answers of this arm, one by one.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who rates.")] = "a person",
    count: Annotated[int, typer.Option(min=1, help="Answers to rate, drawn by chance.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Print how many questions a model answered about its successes, to be trained on, and how much of that is noise.

    Each answer is held against what the records know. With --rate a person says of each whether it is noise; the agreement
    of both is printed afterwards. Leave at any time: every word is kept at once, and the next call goes on.

    Example: looper questions --rate pairs_5
    """
    from looper.cli.after import answers_to_rate, rated
    from looper.cli.reading import question_texts

    runs = chosen_settings().runs
    for number, answer in enumerate(answers_to_rate(runs, run, rate, by, count) if rate else (), 1):
        print(f"\n{number}. {answer.question}\n→ {answer.answer}")
        said = typer.prompt("Is the answer noise? yes, no, or quit", type=_Said)
        if said is _Said.QUIT:
            break
        rated(runs, run, answer, by, noise=said is _Said.YES)
    print_lines(question_texts(runs, run, as_json=as_json))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"looper {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _with_standard_streams() -> None:
    """Where whoever started this closed one, nothing stands in its place: or a record's file would, and a child would print into it.
    None of them raises for a text that it cannot encode."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
    # What a terminal has no sign for is shown as a question mark, rather than a run's table not at all.
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")


def _end_output() -> None:
    """Written now, while a reader that went away before the end (`| head`) can be met in silence; Python would speak of it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Entry point: every error of Looper's own is one readable line and an exit code."""
    import gc
    import warnings

    # Modules and records are no garbage; looking for it after every 700 objects is an eighth of a start.
    gc.set_threshold(50_000, 20, 50)
    # Parsing somebody's source must not print that source's warnings.
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    _with_standard_streams()
    # Completion is for the name that a shell looks up, help for what was typed.
    completing = "_LOOPER_COMPLETE" in os.environ or any("-completion" in word for word in sys.argv[1:2])
    try:
        try:
            app(prog_name="looper" if completing else called_as())
        finally:
            _end_output()
    except LooperError as error:
        # What was given stands in what is said of it, with any line ends of its own.
        said = printable(as_called(str(error) or interrupted())).replace("\n", r"\n")
        sys.stderr.write(f"looper: {said}\n")
        sys.exit(error.exit_code)
    except MemoryError:
        sys.stderr.write(
            "looper: this machine is out of memory. End something, then run the same command again.\n"
        )
        sys.exit(ExitCode.INFRASTRUCTURE)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not current_folder():
            sys.stderr.write(
                "looper: the current folder is gone. Go to another, then run the same command again.\n"
            )
            sys.exit(ExitCode.USAGE)
        if error.errno not in EXHAUSTED:
            raise
        what = f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
        sys.stderr.write(
            f"looper: this machine has run out: {what}. Fix that, then run the same command again.\n"
        )
        sys.exit(ExitCode.INFRASTRUCTURE)


if __name__ == "__main__":
    main()
