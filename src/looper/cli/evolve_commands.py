"""The commands of `looper evolve`.

Each command is for the campaign of the embedded agent in --folder, or with --repo for a repository: `evolving` and `campaigns` do the
one, `repository_steps` the other. What a generation's phase means as an exit code stands in `_told`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from looper.cli.options import AsJson, print_lines

if TYPE_CHECKING:
    from looper.cli.repositories import OpenRepository
    from looper.evolution.state import Generation

evolve = typer.Typer(no_args_is_help=True, help="Changes of the agent's own source, behind gates that hold.")


Folder = Annotated[
    Path, typer.Option(help="Of a campaign with the embedded agent: its repository, ledger, versions, runs.")
]
Repo = Annotated[Path, typer.Option(help="Git repository that evolves.")]
MaybeRepo = Annotated[
    Path | None, typer.Option("--repo", help="Git repository that evolves; else the campaign in --folder.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, NAME=VALUE; see looper evolve settings. Repeatable."),
]
Number = Annotated[int, typer.Argument(help="Of the generation.")]


@evolve.command()
def run(
    folder: Folder = Path("evolving"),
    repo: MaybeRepo = None,
    profile: Annotated[
        str | None,
        typer.Option(help="micro: the embedded agent in --folder. It is what runs without --repo."),
    ] = None,
    generations: Annotated[
        int | None, typer.Option(min=0, help="To decide; alpha is divided among them. Else 12, or as set.")
    ] = None,
    tasks: Annotated[int, typer.Option(min=6, max=200, help="Of each lane of the embedded suite.")] = 100,
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.49, help="Of a false promotion in the whole campaign.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Which moves come first.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Rollouts side by side.")] = None,
    plateau_window: Annotated[
        int | None,
        typer.Option(min=0, help="End after so many generations without a promotion; 0 for never."),
    ] = None,
    parents: Annotated[
        str,
        typer.Option(help="From what candidates are made: active, or clade, drawn by how descendants did."),
    ] = "active",
    pilot: Annotated[
        bool,
        typer.Option("--pilot", help="Begin although the lanes are too small to see a gain of 20 points."),
    ] = False,
    token_budget: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens of all roles together; 0 for without limit. With --repo."),
    ] = None,
    lookback: Annotated[
        int | None, typer.Option(min=1, help="Generations that a proposal is told of. With --repo.")
    ] = None,
    as_json: AsJson = False,
    setting: Set = None,
) -> None:
    """The autonomous cycle: propose, build, judge, promote or keep aside, until so many generations are decided.

    Without --repo the embedded agent's scaffold evolves from a poor one, a setting at a time: a candidate is promoted where the lower
    bound of its gain on the development lane lies above zero, and again on a sealed one; no language model proposes anything. With --repo
    a model proposes, another one works in a sandbox, and a third one reviews. Safe to interrupt and to repeat.

    Example: looper evolve run --profile micro --generations 12
    """
    from looper.cli.options import chosen_settings, say, shown
    from looper.errors import BadInput, ExitCode

    if profile not in (None, "micro") or (profile and repo):
        raise BadInput(
            f"--profile {profile}: the only profile is micro, for the embedded agent; a repository is named with --repo."
        )
    if repo is None:
        from looper.cli.evolving import EvolveOptions, evolve
        from looper.evolution.archive import ParentChoice

        if parents not in list(ParentChoice):
            raise BadInput(f"--parents {parents}: use one of {', '.join(ParentChoice)}.")
        options = EvolveOptions(
            folder.absolute(),
            generations or 12,
            tasks,
            alpha,
            seed,
            workers,
            plateau_window or 0,
            ParentChoice(parents),
            pilot,
        )
        reason, lines = evolve(options, chosen_settings(), say)
    else:
        from looper.cli.campaigns import tree
        from looper.cli.repository_steps import campaign

        more = {
            "generations": generations,
            "plateau_window": plateau_window,
            "token_budget": token_budget,
            "lookback": lookback,
        }
        found = _opened(repo, setting, more)
        reason = campaign(found)
        lines = [f"ended: {reason}", *tree(found.ledger)]
    shown(lines, as_json=as_json)
    code = {"alpha": ExitCode.LIMIT, "budget:": ExitCode.LIMIT, "plateau": ExitCode.PLATEAU}.get(
        reason.split()[0], ExitCode.INFRASTRUCTURE if reason.startswith("suspect") else ExitCode.OK
    )
    raise typer.Exit(code)


def _opened(
    repo: Path, chosen: list[str] | None, more: dict[str, int | None] | None = None
) -> "OpenRepository":
    from looper.cli.options import chosen_settings, named_values, say
    from looper.cli.repositories import opened

    return opened(repo, {**(more or {}), **named_values(chosen)}, chosen_settings(), say)


@evolve.command()
def reflect(
    repo: Repo = Path(),
    lookback: Annotated[
        int | None, typer.Option(min=1, help="Generations that the model is told of.")
    ] = None,
    as_json: AsJson = False,
    setting: Set = None,
) -> None:
    """Print a contract for the next change, as the prime proposes it; nothing is begun.

    Example: looper evolve reflect > program.md
    """
    from looper.cli.options import json_line
    from looper.cli.repository_steps import proposed

    contract = proposed(_opened(repo, setting), lookback)[1]
    print(json_line({"contract": contract}) if as_json else contract, end="\n" if as_json else "")


@evolve.command()
def spawn(
    program: Annotated[Path, typer.Argument(help="Contract, program.md; - for standard input.")],
    repo: Repo = Path(),
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the work to end.")] = False,
    request: Annotated[
        str | None, typer.Option(help="Name of this request: asking twice with the same is asking once.")
    ] = None,
    user: Annotated[bool, typer.Option("--user", help="It is a user's task, and counts as one.")] = False,
    as_json: AsJson = False,
    setting: Set = None,
) -> None:
    """Begin a generation from a contract, and let the lab work on it in a sandbox without a network.

    Example: looper evolve spawn program.md
    """
    import secrets
    import sys

    from looper.cli.repository_steps import spawn
    from looper.errors import BadInput
    from looper.records.generation import Origin

    if str(program) != "-" and not program.is_file():
        raise BadInput(
            f"There is no contract {program}. Write one, or let it be proposed: looper evolve reflect > {program}"
        )
    text = sys.stdin.read() if str(program) == "-" else program.read_text("utf-8", "replace")
    source = Origin.USER if user else Origin.CLI
    _told(
        spawn(_opened(repo, setting), text, request or secrets.token_hex(8), source, detach=detach),
        as_json=as_json,
    )


@evolve.command(hidden=True)
def lab(number: Number, repo: Repo = Path(), setting: Set = None) -> None:
    """What the process of a lab runs; `spawn` and `run` begin it."""
    from looper.cli.repository_steps import work_in_lab

    _told(work_in_lab(_opened(repo, setting), number))


@evolve.command()
def verify(
    number: Number,
    folder: Folder = Path("evolving"),
    repo: MaybeRepo = None,
    gate: Annotated[
        list[str] | None, typer.Option(help="Only this gate, and nothing is decided by it. Repeatable.")
    ] = None,
    as_json: AsJson = False,
    setting: Set = None,
) -> None:
    """Run the gates on a generation whose work was reported, cheap ones first, and print what each saw.

    Example: looper evolve verify 3 --repo .
    """
    if repo is None:
        from looper.cli.campaigns import promoter_in

        _told(promoter_in(folder).ledger.state().generation(number), as_json=as_json)
        return
    from looper.cli.options import json_line
    from looper.cli.repository_steps import looked_at, verify

    found = _opened(repo, setting)
    if gate:
        results = list(looked_at(found, number, gate))
        if as_json:
            print(json_line({"gates": results}))
        for result in () if as_json else results:
            print(f"{result.gate}: {result.outcome.value}: {result.evidence}")
        from looper.errors import ExitCode
        from looper.records.gate import GateOutcome

        passed = all(result.outcome is GateOutcome.PASS for result in results)
        raise typer.Exit(ExitCode.OK if passed else ExitCode.REFUSED)
    _told(verify(found, number), as_json=as_json)


def _told(found: "Generation", *, as_json: bool = False) -> None:
    """A generation's report, and the exit code that its phase stands for."""
    import json

    from looper.errors import ExitCode
    from looper.records.generation import Phase
    from looper.views.evolution import outcome, report_lines

    if as_json:
        from looper.views.evolution import described_generation

        print(json.dumps(described_generation(found)))
    else:
        print("\n".join(report_lines(found)))
    refused = found.phase in (Phase.REJECTED, Phase.INCONCLUSIVE, Phase.ARCHIVED, Phase.ROLLED_BACK)
    if found.phase is Phase.INFRA_ERROR:
        raise typer.Exit(ExitCode.INFRASTRUCTURE)
    raise typer.Exit(ExitCode.REFUSED if refused and outcome(found) != "promoted" else ExitCode.OK)


@evolve.command()
def promote(
    number: Number,
    folder: Folder = Path("evolving"),
    repo: MaybeRepo = None,
    candidate_hash: Annotated[
        str, typer.Option("--hash", help="Of the tree that is meant; refused where it is another one.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    setting: Set = None,
) -> None:
    """Make a generation that every gate has passed the one that works.

    Example: looper evolve promote 3 --repo . --yes
    """
    from looper.cli.campaigns import promoter_in
    from looper.cli.repository_steps import promote

    found = _opened(repo, setting) if repo else None
    ledger = found.ledger if found else promoter_in(folder).ledger
    one = ledger.state().generation(number)
    if not yes and one.candidate_hash:
        typer.confirm(
            f"Promote generation {number}, {one.title}, {one.candidate_hash[:12]}?", abort=True, err=True
        )
    if found:
        _told(promote(found, number, candidate_hash), as_json=as_json)
    else:
        promoter_in(folder).promote(number, candidate_hash)
        _told(ledger.state().generation(number), as_json=as_json)


@evolve.command()
def rollback(
    generation: Annotated[int | None, typer.Argument(help="Its number; else the one that works.")] = None,
    folder: Folder = Path("evolving"),
    repo: MaybeRepo = None,
    as_json: AsJson = False,
    setting: Set = None,
) -> None:
    """Let the version before GENERATION work again, at once; one that is still worked on is ended. Its ref is kept.

    Example: looper evolve rollback
    """
    from looper.cli.campaigns import roll_back
    from looper.cli.options import shown

    if repo is None:
        shown([roll_back(folder, generation)], as_json=as_json)
        return
    from looper.cli.repository_steps import roll_back as roll_back_in

    one = roll_back_in(_opened(repo, setting), generation)
    shown([f"generation {one.number}: {one.phase.value}: {one.evidence}"], as_json=as_json)


@evolve.command()
def status(
    folder: Folder = Path("evolving"),
    repo: MaybeRepo = None,
    as_json: AsJson = False,
) -> None:
    """Say how far a campaign is, from its ledger alone.

    Example: looper evolve status --json
    """
    from looper.cli.campaigns import ledger_in
    from looper.cli.campaigns import status as status_lines

    print_lines(status_lines(ledger_in(folder, repo), as_json=as_json))


@evolve.command()
def tree(folder: Folder = Path("evolving"), repo: MaybeRepo = None, as_json: AsJson = False) -> None:
    """Print which generation comes from which, how it ended and what the gates saw; a star marks the one that works.

    Example: looper evolve tree
    """
    from looper.cli.campaigns import ledger_in
    from looper.cli.campaigns import tree as lines_of
    from looper.cli.options import shown

    shown(lines_of(ledger_in(folder, repo)), as_json=as_json)


@evolve.command()
def events(
    folder: Folder = Path("evolving"),
    repo: MaybeRepo = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens.")] = False,
) -> None:
    """Print what happened, one JSON object a line.

    Example: looper evolve events --follow
    """
    from looper.cli.campaigns import event_lines, ledger_in

    print_lines(event_lines(ledger_in(folder, repo), follow=follow), flush=True)


@evolve.command()
def settings(repo: Repo = Path(), as_json: AsJson = False, setting: Set = None) -> None:
    """Print every setting for a repository with its value, in the form of an .env file. Keys are not shown.

    Example: looper evolve settings > .env
    """
    from looper.cli.evolve_settings import template
    from looper.cli.options import shown

    shown(template(_opened(repo, setting).settings), as_json=as_json)


@evolve.command()
def probe(repo: Repo = Path(), as_json: AsJson = False, setting: Set = None) -> None:
    """Ask each role's model for one word: whether the key works, the model is there, credit is left.

    Example: looper evolve probe
    """
    from looper.cli.options import json_line
    from looper.cli.repository_steps import probed
    from looper.errors import ExitCode

    found = list(probed(_opened(repo, setting)))
    if as_json:
        print(
            json_line({"roles": [{"role": role, "said": said, "works": fine} for role, said, fine in found]})
        )
    for role, said, _ in () if as_json else found:
        print(f"{role}: {said}")
    raise typer.Exit(ExitCode.OK if all(fine for *_, fine in found) else ExitCode.INFRASTRUCTURE)


@evolve.command()
def regenerate(
    specification: Annotated[Path, typer.Argument(metavar="SPEC", help="Markdown; see docs/evolution.md.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="That writes: NAME, or NAME=TOKENS for a budget of its own. Repeatable."),
    ] = None,
    acceptance: Annotated[
        Path | None, typer.Option(help="Vectors that decide; else SPEC with the suffix .acceptance.jsonl.")
    ] = None,
    mode: Annotated[str, typer.Option(help="whole, patch, or both as two arms beside each other.")] = "whole",
    generations: Annotated[int, typer.Option(min=1, help="With a verdict, of each mode.")] = 5,
    mutations: Annotated[
        int, typer.Option(min=0, help="Changes of the specification to try afterwards.")
    ] = 0,
    balance: Annotated[int | None, typer.Option(min=1, help="Tokens that a lineage begins with.")] = None,
    income: Annotated[int, typer.Option(min=0, help="Tokens that a viable child brings its lineage.")] = 0,
    folder: Annotated[Path, typer.Option(help="Of the campaign.")] = Path("regenerating"),
    sandbox: Annotated[str, typer.Option(help="As for looper run.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Which model writes when.")] = 0,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Compare with too few generations, to see that it runs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let models write a whole program from its specification, again and again, and let a mechanical rig say which of them live.

    Safe to interrupt and to repeat. No model judges; what decides are vectors that no prompt holds.

    Example: looper evolve regenerate experiments/exp22/calculator.md --model ollama:NAME --generations 10
    """
    from looper.cli.options import chosen_settings, say, shown
    from looper.cli.regenerating import RegenerateOptions, chosen_modes
    from looper.cli.regenerating import regenerate as regenerated
    from looper.errors import ExitCode

    options = RegenerateOptions(
        specification,
        acceptance,
        tuple(model or ()),
        tuple(chosen_modes(mode)),
        generations,
        mutations,
        balance,
        income,
        folder.absolute(),
        sandbox,
        seed,
        pilot,
    )
    reasons, lines = regenerated(options, chosen_settings(), say)
    shown([*(f"ended: {reason}" for reason in reasons), *lines], as_json=as_json)
    spent = any(": budget" in reason for reason in reasons)
    broken = any("suspect" in reason for reason in reasons)
    raise typer.Exit(ExitCode.LIMIT if spent else ExitCode.INFRASTRUCTURE if broken else ExitCode.OK)


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
    as_json: AsJson = False,
) -> None:
    """Simulate campaigns in which nothing is better, worse or better by a known amount, and print how often the gate promotes.

    The gate is the one of real campaigns; only outcomes of tasks are drawn. Beside it stand rules that published systems decide by,
    on the same draws. No model, no network, a minute.

    Example: looper evolve calibrate --campaigns 1000
    """
    from looper.cli.calibrating import calibration, write_calibration
    from looper.cli.options import say, shown

    lines = calibration(campaigns, challengers, tasks, alpha, discordance)
    shown(lines, as_json=as_json)
    if file is not None:
        say(write_calibration(file, lines))
