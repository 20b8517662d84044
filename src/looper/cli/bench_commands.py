"""The commands of `looper bench`.

Options and help stand here; `listing`, `fetching`, `validating`, `grading` and `screening` do the work, and are imported by the
command that needs them. Exit codes of what was not tried are decided here.
"""

from pathlib import Path
from typing import Annotated

import typer

from looper.cli.options import AsJson, Data, Mirrors, chosen_settings, json_line, print_lines, say, shown
from looper.records.text import counted

RealSuite = Annotated[str, typer.Option(help="swe-bench-cl, or swe-bench for rows in that shape.")]
bench = typer.Typer(no_args_is_help=True, help="The benchmarks: what is there, and what real tasks need.")


@bench.command("list")
def bench_list(
    suite: Annotated[
        str | None, typer.Option(help="Only this one, whose rows --data names: swe-bench-cl, swe-bench, …")
    ] = None,
    repo: Annotated[
        list[str] | None,
        typer.Option(help="The ids of this repository's tasks, and how their issues begin; can be repeated."),
    ] = None,
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """List suites with their repositories and tasks, and what is ready to run.

    Versions of repositories that no environment is known for are named, with their tasks counted. With --repo one line for each
    task, its id first, as plans (tasks.tasks), bench validate and show name it.

    Example: looper bench list --suite swe-bench --data rows.jsonl
    """
    from looper.cli import wiring
    from looper.cli.grading import suite_named
    from looper.cli.listing import task_lines
    from looper.views.suites import suite_data, suite_lines

    settings = chosen_settings(data, mirrors, suite or "swe-bench-cl")
    only = suite and suite_named(suite, 0).suite
    if repo:
        shown(task_lines(settings, only, repo), as_json=as_json)
        return
    found = wiring.suites(settings, only)
    if as_json:
        print(
            json_line(
                {"suites": [suite_data(name, tasks, state, wiring.unserved) for name, tasks, state in found]}
            )
        )
        return
    for name, tasks, state in found:
        lines = suite_lines(name, tasks, state, wiring.unserved, coupled=name == "swe-bench")
        print_lines(lines)


@bench.command("fetch")
def bench_fetch(
    repo: Annotated[
        list[str] | None, typer.Option(help="Only this repository, owner/name; can be repeated.")
    ] = None,
    suite: RealSuite = "swe-bench-cl",
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """Clone bare mirrors of the benchmark's repositories, or check those that --mirrors names.

    A mirror must hold everything that tasks begin with; which object is missing is said. Django takes about 250 MB.

    Example: looper bench fetch --repo django/django
    """
    from looper.cli.fetching import fetch

    shown(fetch(chosen_settings(data, mirrors), tuple(repo or ()), suite), as_json=as_json, at_once=True)


@bench.command("prepare")
def bench_prepare(
    repo: Annotated[list[str] | None, typer.Option(help="Only this repository; can be repeated.")] = None,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Build nothing; print the one line that installs what is missing of the system, for sh.",
        ),
    ] = False,
    suite: RealSuite = "swe-bench-cl",
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """Build the environments of real tasks: interpreter by version, packages from a frozen list, once for all runs.

    A table says beforehand what each takes, as it was measured, and afterwards what it took. Interpreters that are not here are
    installed with uv; Python 3.6 and 3.7, which uv does not have, come from pyenv or conda. Most tasks of scikit-learn have to be compiled, minutes for each
    state of its native sources; for that their mirror must be there.

    Example: looper bench prepare --repo django/django
    """
    from looper.cli.fetching import installation, prepare

    settings, repos = chosen_settings(data, mirrors), tuple(repo or ())
    how = installation if fix else prepare
    shown(how(settings, repos, say, suite), as_json=as_json, at_once=True)


@bench.command("validate")
def bench_validate(
    repo: Annotated[list[str] | None, typer.Option(help="Only this repository; can be repeated.")] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task; can be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Tasks side by side.")] = 2,
    file: Annotated[
        Path | None, typer.Option(help="Markdown file to write the table to, between its marks.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="File to write what was found to, a JSON object a line.")
    ] = None,
    suite: Annotated[
        str, typer.Option(help="swe-bench-cl, swe-bench, micro, humaneval or mbpp.")
    ] = "swe-bench-cl",
    level: Annotated[int, typer.Option(min=0, max=2, help="Of the micro suite.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Judge again what was validated before; the last one counts.")
    ] = False,
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """Judge each task with its gold patch and with none, before any model is asked.

    Gold must pass every FAIL_TO_PASS id each time, and nothing must not. PASS_TO_PASS ids that gold does not pass in three
    runs are left out from then on, and tasks that are not valid are no longer taken by any plan; the table says which and why.
    Safe to interrupt and to repeat: what was validated with the same labels, environment and rules is not judged again. Looper
    ships what was found where it was made; plans go by that for tasks that were not validated here, and every difference is named.

    Example: looper bench validate --repo sympy/sympy --workers 2
    """
    from looper.cli.grading import suite_named
    from looper.cli.validating import must_be_writable, run_validations, save, write_table
    from looper.errors import ExitCode
    from looper.views.eligibility import table_lines

    chosen = chosen_settings(data, mirrors)
    selection = suite_named(suite, level).model_copy(
        update={"repos": tuple(repo or ()), "tasks": tuple(tasks or ())}
    )
    must_be_writable(file, records)
    done = run_validations(selection, chosen, workers, sandbox, say, fresh=fresh)
    if as_json:
        print(json_line({"tasks": done.counts, "validations": done.found, "differences": done.differences}))
    else:
        print("\n".join(table_lines(done.counts, done.found)))
    for name, how in () if as_json else done.differences.items():
        print(f"{name}: not as shipped: {how}")
    if done.stopped and (records or file):
        say("stopped, so that no file was written over with less")
    elif records is not None:
        say(save(records, done.found))
    for line in write_table(file, selection, chosen, done.found) if file and not done.stopped else ():
        say(line)
    every = sum(done.counts.values())
    untried = every - len(done.found) - done.unserved - done.broken
    if done.broken:
        say(
            f"{done.broken} of {counted(every, 'task')} can never be validated as their rows are, for the reasons above; correct the rows, or "
            "take them away"
        )
    again = "judges all of them again" if fresh else "goes on with them"
    if untried and done.stopped:
        say(f"{untried} of {counted(every, 'task was', 'tasks were')} not tried; the same command {again}")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if untried:
        say(
            f"{untried} of {counted(every, 'task was', 'tasks were')} not tried, for the reasons above; once these are fixed the same command {again}"
        )
        raise typer.Exit(ExitCode.INFRASTRUCTURE)
    if done.broken:
        raise typer.Exit(ExitCode.USAGE)


@bench.command("verify")
def bench_verify(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="Predictions with instance_id, model_name_or_path and model_patch, as SWE-bench has them: JSONL, a JSON list, an "
            "object by instance id (preds.json), or a folder of .pred files."
        ),
    ],
    suite: Annotated[
        str, typer.Option(help="swe-bench-cl, swe-bench, micro, humaneval or mbpp.")
    ] = "swe-bench-cl",
    level: Annotated[int, typer.Option(min=0, max=2, help="Of the micro suite.")] = 0,
    isolation: Annotated[
        str,
        typer.Option(
            help="Where tests run: shared, with the product; process, apart from it, so that only plain data crosses (micro)."
        ),
    ] = "shared",
    workers: Annotated[int, typer.Option(min=1, help="Verifications side by side.")] = 2,
    sandbox: Annotated[str, typer.Option(help="As for run.")] = "auto",
    data: Data = None,
    mirrors: Mirrors = None,
) -> None:
    """Judge patches that were made elsewhere, by the same rules and records as a run, and print SWE-bench's report.

    Safe to interrupt and to repeat: what was judged stays. A patch that is empty, broken, does not apply or edits tests is
    judged as what it is and stops nothing. Patches are applied as SWE-bench applies them, or more kindly; looper show says how.

    Example: looper bench verify predictions.jsonl --suite micro
    """
    import json
    import shlex
    import sys

    from looper.cli.grading import grade
    from looper.views.predictions import swe_bench_report

    settings, command = chosen_settings(data, mirrors), shlex.join(["looper", *sys.argv[1:]])
    found, unjudged = grade(predictions, suite, level, isolation, workers, sandbox, settings, command, say)
    arms = {arm.model.name: arm.name for arm in found.manifest.plan.arms}
    for model in dict.fromkeys((*arms, *unjudged)):
        report = swe_bench_report(found, arms.get(model), unjudged.get(model, ()))
        print(json.dumps({"model": model, **report}, indent=1))
    say(str(found.folder))


@bench.command("leaks")
def bench_leaks(
    repo: Annotated[list[str] | None, typer.Option(help="Only this repository; can be repeated.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every task, not only those that are flagged.")
    ] = False,
    hints: Annotated[
        bool, typer.Option("--hints", help="Score what was said below the issue too; no agent is shown it.")
    ] = False,
    later: Annotated[
        bool, typer.Option("--later", help="Look for each fix in the trees of later tasks; needs mirrors.")
    ] = False,
    data: Data = None,
    mirrors: Mirrors = None,
    as_json: AsJson = False,
) -> None:
    """Show which issues give their fix away: telling lines of the gold patch that stand in the issue text, and which tasks
    nearly are another one.

    A screen, not a verdict: read the issue. It flags where half of the fix, by characters, stands in the issue.

    Example: looper bench leaks --repo django/django
    """
    from itertools import chain

    from looper.cli.screening import later_lines, leak_lines

    found = chosen_settings(data, mirrors)
    leaks = leak_lines(found, tuple(repo or ()), every=every, hints=hints)
    shown(chain(leaks, later_lines(found, tuple(repo or ()), say) if later else ()), as_json=as_json)
