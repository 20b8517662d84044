"""What `looper run` does.

Everything that can be refused is refused before the run folder is made: the plan, its gates, the models, the sandbox. What follows
is one manifest, one ledger and the stages; who goes on with a run must arrive at the same manifest.
"""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from looper.bench.validate import shipped
from looper.bench.verify import VERSION
from looper.cli.node import NodeWorker
from looper.cli.options import the_run
from looper.cli.plans import RunOptions, find_experiment, load_written
from looper.cli.preparing import (
    FEW_TASKS,
    PreparedPlan,
    adapters_that_fit,
    memory_gates,
    prepare,
    refuse_impossible,
)
from looper.cli.progress import RunProgress, Spoken, TrainingProgress
from looper.cli.settings import Settings
from looper.cli.site import equipped, manifest_of, of_arms
from looper.cli.wiring import (
    Stop,
    cluster_engine,
    cluster_of,
    content_source,
    engine,
    judged_before,
    machine_of,
    similarities,
    stoppable,
    threads,
)
from looper.errors import BadInput, Cancelled, Drift, InfrastructureError, JournalError, MemorySilent
from looper.experiment.ledger import Ledger, differences, nothing_done
from looper.experiment.stages import learners_of, run_stages
from looper.experiment.staging import Staging
from looper.journal import read_stream
from looper.records.job import RunSpec
from looper.records.plan import Cell, Override, Plan, RunManifest
from looper.records.text import counted
from looper.records.trajectory import Step
from looper.records.treatment import ProofKind
from looper.views.findings import stop_lines
from looper.views.live import goes_on_with, passes_over_with, resume_command
from looper.views.runs import RunView, read_run, run_folders


def dry_run(options: RunOptions, settings: Settings) -> Iterator[str]:
    """What would be run, cell by cell."""
    _, prepared = _laid_out(options, settings)
    plan = prepared.plan
    yield from _about(prepared, options.overrides)
    wanted = plan.named_arms(options.arms)
    gates = memory_gates(prepared, wanted, settings.runs, options.overrides)
    yield from (gate.warning for gate in gates if gate.may_stop)
    seeds = len(plan.seeds)
    schedule = prepared.schedule(options.arms)
    arms = len({cell.arm for lane in schedule for cell in lane})
    yield (
        f"{plan.experiment} {plan.profile}: {counted(len(prepared.tasks), 'task')} × {counted(arms, 'arm')} × {counted(seeds, 'seed')}, "
        f"{counted(sum(map(len, schedule)), 'cell')}"
    )
    gathers = Counter(
        source for source, _ in plan.all_experience(learners_of(plan, plan.named_arms(options.arms)))
    )
    for source, samples in gathers.items():
        found = prepared.experience[source]
        yield (
            f"before them, {source.value} experience: {counted(len(found), 'task')} × {counted(samples, 'sample')} × {counted(seeds, 'seed')}"
        )
    for lane in schedule:
        for cell in lane:
            yield cell.key


def run(options: RunOptions, settings: Settings, say: Callable[[str], None]) -> RunView:
    said = f"Interrupted in preparation, before anything{' more' if options.run else ''} was recorded. Begin again with: {options.again()}"
    with stoppable(said, heeded=False) as stop:
        try:
            return _run(options, settings, Spoken(say), stop)
        except Cancelled as error:
            raise Cancelled(stop.said) from error


def _laid_out(options: RunOptions, settings: Settings) -> tuple[RunOptions, PreparedPlan]:
    """What is asked for, with its profile by name, and its tasks and cells. Raises BadInput for all that is known to be impossible."""
    if options.fresh and options.run:
        raise BadInput("--fresh begins a run and --run goes on with one. Leave one of them out.")
    written = load_written(options, settings)
    # So that the command that goes on with the run names it.
    options = replace(options, profile=written.chosen)
    if options.run:
        _must_be_of(written.plan, the_run(settings.runs, options.run), options)
    prepared = prepare(written.plan, settings)
    prepared.schedule(options.arms)
    refuse_impossible(prepared, written, options.overrides, settings, options.arms)
    adapters_that_fit(prepared, written, settings)
    return options, prepared


def _run(options: RunOptions, settings: Settings, say: Spoken, stop: Stop) -> RunView:
    options, prepared = _laid_out(options, settings)
    plan = prepared.plan
    with contextlib.ExitStack() as stack:
        site, models = stack.enter_context(equipped(prepared, options.sandbox, settings, say))
        with say.during("looking at the models"):
            manifest = manifest_of(prepared, site, models, options.arms, options.overrides)
        # What is named wrongly is said before all else, and before anybody waits for the machine.
        cluster = stack.enter_context(cluster_of(options.engine))
        for line in _about(prepared, options.overrides):
            say(line)
        for source, share in manifest.drift.items():
            say(
                f"{source.value}: {100 * share:.0f} % of the files that gold patches change have changed since"
            )
        room = cluster.slots(plan.limits) if cluster else None
        joules = stack.enter_context(machine_of(plan, settings, share=options.share_machine))
        manifest, passed_over = _passed_over_later(manifest, options, settings.runs)
        if options.arms and not options.fresh:
            manifest = _as_begun(manifest, options, settings.runs)
        folder = run_folder(
            manifest,
            settings.runs,
            say,
            fresh=options.fresh,
            named=options.run,
            anew=options.anew(),
            typed=options.going_on,
            file=_plan_files(options, settings.runs),
        )
        ledger = Ledger(folder, manifest, settings.runs_elsewhere)
        stack.callback(ledger.close)
        for found in ledger.damage:
            say(f"damaged record set aside: {found.file} line {found.line}, {found.reason}")
        workers = options.workers or room or workers_for(plan, None)
        named = folder.name if folder.parent == settings.runs else str(folder)
        command = options.going_on(named)
        # The reason for which a gate is passed over stands in the command.
        ledger.begin(workers, command)
        manifest, begun = _with_overrides(manifest, ledger.pass_over(passed_over)), manifest
        delivered = {one.arm for one in ledger.proofs.recovered if one.kind is ProofKind.MEMORY_DELIVERED}
        for gate in memory_gates(prepared, plan.named_arms(options.arms), settings.runs, manifest.overrides):
            if gate.may_stop and gate.arm not in delivered:
                say(gate.warning)
        stack.enter_context(site.occupied(folder, stop))
        stop.said = f"Interrupted. Finished cells and every recorded step are kept. Go on with: {command}"
        stop.heeded = True
        judged = judged_before(plan, folder, settings, fresh=options.fresh)
        run_context = site.run_context(models.of, judged, begun.run_hash())
        gathers = learners_of(plan, plan.named_arms(options.arms))
        to_evaluate = sum(map(len, prepared.schedule(options.arms))) if gathers else None
        spec = RunSpec(manifest=begun, sandbox=options.sandbox, arms=options.arms)
        try:
            run_stages(
                Staging(
                    manifest=manifest,
                    tasks={task.instance_id: task for task in prepared.every_task},
                    arms=options.arms,
                    model_for=models.of,
                    adapted=models.adapted,
                    trainer=lambda: models.trainer(plan.learners_base),
                    ledger=ledger,
                    engine=cluster_engine(
                        cluster,
                        workers,
                        NodeWorker,
                        spec,
                        run_context,
                        stop,
                        say,
                        content_source(plan, prepared.every_task, prepared.mirrors, settings),
                        ledger.node,
                    )
                    if cluster
                    else engine(workers, run_context, stop),
                    workers=threads(workers_for(plan, options.workers)),
                    stop=stop,
                    show=partial(_progress, folder, to_evaluate),
                    say=say,
                    during=say.during,
                    tell=TrainingProgress(say),
                    energy_j=joules,
                    similar=similarities(plan),
                )
            )
        except MemorySilent as error:
            wanted = plan.named_arms(options.arms)
            others = tuple(arm.name for arm in wanted if arm.name not in error.said)
            say("What was recorded stays. The same command would stop here again.")
            if all(given for given, _ in error.said.values()):
                say(
                    f'With a reason in place of the dots, all of it goes on with: {command} --override memory="…"'
                )
            if others:
                say(f"The other arms go on with: {replace(options, arms=others).going_on(named)}")
            raise
        except InfrastructureError:
            if any(True for _ in read_stream(folder, "steps", Step)):
                say(f"What was recorded stays. Once it is fixed, go on with: {command}")
            raise
    return read_run(folder)


def _progress(
    folder: Path, to_evaluate: int | None, name: str, cells: Sequence[Cell], todo: int
) -> RunProgress:
    """Of one phase, empty in `name` for the evaluation; the number of cells of that is None where there is no other phase."""
    if to_evaluate is None:
        return RunProgress(folder, name, total=len(cells), todo=todo)
    later = to_evaluate if name else 0
    return RunProgress(folder, name or "evaluation", total=len(cells), todo=todo, later=later)


def _must_be_of(plan: Plan, view: RunView, options: RunOptions) -> None:
    """Raises Drift where a run that is named is one of another plan, or of another profile of it."""
    if view.manifest.plan.name != plan.name:
        raise Drift(
            f"{view.folder} is a run of {view.manifest.plan.name}, and {plan.name} is asked for. Go on with that run: "
            f"{resume_command(view)}; or begin a new one: {options.anew()}"
        )


def _passed_over_later(
    manifest: RunManifest, options: RunOptions, runs: Path
) -> tuple[RunManifest, tuple[Override, ...]]:
    """The manifest of the run to go on with without those of its overrides that were not given when it was begun, and are of gates that
    stopped it since, and these: they change nothing of what was gathered before, and are recorded by themselves."""
    if not options.run:
        return manifest, ()
    view = the_run(runs, options.run)
    may = {stop.gate.override for stop in view.gate_stops}
    known = view.manifest.overrides
    later = tuple(each for each in manifest.overrides if each not in known and each.gate in may)
    return manifest.model_copy(
        update={"overrides": tuple(each for each in manifest.overrides if each not in later)}
    ), later


def _with_overrides(manifest: RunManifest, more: Sequence[Override]) -> RunManifest:
    return manifest.model_copy(update={"overrides": (*manifest.overrides, *more)})


def _as_begun(manifest: RunManifest, options: RunOptions, runs: Path) -> RunManifest:
    """The manifest of the run to go on with that differs only in what the models of arms are which do not run now: their
    server may have been away, or be away now. The given one where there is none."""
    stem = f"{manifest.plan.experiment}-{Path(manifest.plan.profile).stem}-"
    views = [the_run(runs, options.run)] if options.run else _begun(runs, stem, lambda said: None)
    begun = [view.manifest for view in views]
    if manifest in begun:
        return manifest
    same = [found for found in begun if of_arms(found, options.arms) == of_arms(manifest, options.arms)]
    return same[-1] if same else manifest


def _about(prepared: PreparedPlan, overrides: Sequence[Override]) -> Iterator[str]:
    """What somebody who waits for the run should know of it before."""
    yield from (f"not run, {line}" for line in prepared.unserved)
    yield from _about_eligibility(prepared)
    for name, why in prepared.left_out.items():
        yield f"{name} is not learned from: {why}"
    for found in overrides:
        yield f"the gate {found.gate.value} is overridden, and the record says so: {found.reason}"
    fewest = min(map(len, prepared.experience.values()), default=FEW_TASKS)
    if fewest < FEW_TASKS and prepared.plan.selection.suite != "micro":
        yield f"{counted(fewest, 'task')} to learn from are few: what is learned may be those tasks and nothing else"


def _about_eligibility(prepared: PreparedPlan) -> Iterator[str]:
    """Of real tasks: which are not taken because they cannot tell right from wrong, and on whose word the others are."""
    if prepared.plan.selection.suite == "micro":
        return
    real = prepared.tasks
    repos = {task.repo for task in real}
    for found in prepared.validations.values():
        if not found.valid and found.repo in repos:
            yield f"{found.instance_id} is not eligible: {found.cause}"
    known = [
        prepared.validations[task.instance_id] for task in real if task.instance_id in prepared.validations
    ]
    of_looper = {id(found) for found in shipped()}
    elsewhere = [found for found in known if id(found) in of_looper]
    if elsewhere:
        rules = sorted({found.verifier for found in elsewhere} - {VERSION})
        older = f" by the rules {', '.join(rules)}, and today's are {VERSION}" if rules else ""
        yield (
            f"{len(elsewhere)} of {counted(len(real), 'task was', 'tasks were')} validated where Looper was made ({max(found.day for found in elsewhere)})"
            f"{older}, and not here; looper bench validate shows whether it is the same here"
        )
    if len(known) < len(real):
        yield (
            f"{len(real) - len(known)} of {counted(len(real), 'task was', 'tasks were')} not validated; before a model is asked: looper bench validate"
        )


def _begun(runs: Path, stem: str, say: Callable[[str], None]) -> Iterator[RunView]:
    """Runs whose names begin so, the one that was begun last at the end; one that cannot be read is passed over, and said."""
    for folder in run_folders(runs):
        if folder.name.startswith(stem):
            try:
                view = read_run(folder)
            except BadInput as error:
                say(f"another run is passed over: {error}")
            else:
                yield view


def run_folder(
    manifest: RunManifest,
    runs: Path,
    say: Callable[[str], None],
    *,
    fresh: bool,
    named: str | None = None,
    anew: str = "the same command with --fresh",
    typed: Callable[[str], str] = lambda run: "",
    file: str = "the plan",
) -> Path:
    """The folder of this very run, or a new one, or the one that is named; `anew` is the command that begins a new one, `typed` the given
    one as it goes on with a run of that name, and `file` has the plan.

    What was asked for differently is a run of its own, and an unfinished one beside it is named. Raises BadInput where there is no
    such run, and Drift where the same was asked for and everything else is not as it was when an unfinished run was begun: going on
    would mix two runs, and beginning anew in silence would leave the old one for dead, unless nothing was done in it.
    """
    if named is not None:
        view = the_run(runs, named)
        if view.manifest != manifest:
            raise Drift(_differs(view, manifest, anew, typed, file))
        return view.folder
    stem = f"{manifest.plan.experiment}-{Path(manifest.plan.profile).stem}"
    name = f"{stem}-{manifest.run_hash()}"
    mine = sorted(runs.glob(f"{name}*"), key=lambda path: (len(path.name), path.name))
    if fresh:
        return _new_folder(runs, name, len(mine))
    if mine:
        return mine[-1]
    alike = [
        view
        for view in _begun(runs, f"{stem}-", say)
        if view.manifest.plan.selection == manifest.plan.selection
    ]
    beside = [view for view in alike if view.finished < view.planned and not nothing_done(view.folder)]
    for view in beside:
        if _asked(view.manifest) == _asked(manifest):
            raise Drift(_differs(view, manifest, anew, typed, file))
    for view in beside[-1:]:
        asked = view.manifest.model_copy(update={"plan": manifest.plan, "overrides": manifest.overrides})
        others = f" (and {counted(len(beside) - 1, 'other')}: looper runs list)" if len(beside) > 1 else ""
        before = view.manifest.code_version
        needs = (
            ""
            if before == manifest.code_version
            else f" (with the version of Looper that began it, {before})"
        )
        say(
            f"this is a run of its own; the unfinished {view.folder.name}{others} stays as it is. What differs: "
            f"{differences(view.manifest, asked, most=2)}. {_put_back(view, typed, file, 'If that one is meant, put')}{_onward(view, needs)}"
        )
    done = [view for view in alike if view.finished == view.planned]
    for view in [view for view in done if _without_words(view.manifest) == _without_words(manifest)][-1:]:
        say(
            f"the finished run {view.folder.name} differs from this plan in words alone, and nothing of it is used again: "
            f"{differences(view.manifest, manifest, most=2)}. Its figures under its own words: looper report {view.folder.name}. To run "
            f"nothing again, press Ctrl-C and put those words back in {file}"
        )
    return runs / name


def _onward(view: RunView, needs: str) -> str:
    """What is said of an unfinished run beside another: the command that goes on with it, where a gate holds it up the one that passes that over."""
    over = passes_over_with(view)
    if over is not None:
        return f"A gate stopped it, and what it gathered is used by no other run. Passed over for a reason, it goes on{needs}: {over}"
    command = goes_on_with(view) if view.stopped_by else resume_command(view)
    return (
        f"Go on with that one{needs}: {command}" if command else f"A gate stopped it: {stop_lines(view)[0]}"
    )


def _asked(manifest: RunManifest) -> tuple[Plan, tuple[Override, ...]]:
    """Of what a run is made of, the part that a person asked for."""
    return manifest.plan, manifest.overrides


_PACE = re.compile(r" --(?:workers \d+|share-machine)\b")
"""Of a command, what says how fast a run goes and not what it is."""


def _plan_files(options: RunOptions, runs: Path) -> str:
    """Where what a plan says is written."""
    profile = f" or {options.profile}" if options.profile and options.profile.endswith(".toml") else ""
    return f"{find_experiment(options.experiment, runs)}{profile}"


def _without_words(manifest: RunManifest) -> RunManifest:
    """What a run is made of, without what is only said of it."""
    plan, unsaid = manifest.plan, {"shown": "", "refuted": "", "open": "", "reason": ""}
    bare = plan.model_copy(
        update={
            **dict.fromkeys(("title", "hypothesis", "factor"), ""),
            "arms": tuple(arm.model_copy(update={"reason": ""}) for arm in plan.arms),
            "contrasts": tuple(found.model_copy(update=unsaid) for found in plan.contrasts),
        }
    )
    return manifest.model_copy(update={"plan": bare})


def _put_back(view: RunView, typed: Callable[[str], str], file: str, put: str = "Put") -> str:
    """What has to be done before the command that goes on with a run does: nothing where it asks for something else than was typed now,
    since then the difference is in its words; else the files were changed."""
    begun = _PACE.sub("", view.sessions[-1].command if view.sessions else "")
    same = begun in [_PACE.sub("", typed(name)) for name in (view.folder.name, str(view.folder))]
    return f"{put} that back in {file}. " if same else ""


def _differs(view: RunView, manifest: RunManifest, anew: str, typed: Callable[[str], str], file: str) -> str:
    """Why a run cannot be gone on with as it is asked for now, and both ways out as commands."""
    before = view.manifest
    back = _put_back(view, typed, file) if _asked(before) != _asked(manifest) else ""
    if before.code_version != manifest.code_version:
        how = f"{back}With the version of Looper that began it ({before.code_version}), go"
    elif _asked(before) != _asked(manifest):
        how = f"{back}Then go" if back else "As it was begun, go"
    else:
        how = "Once that is restored, go"
    state = "unfinished " if view.finished < view.planned else ""
    return (
        f"The {state}run {view.folder} was begun differently: {differences(before, manifest)}. "
        f"{how} on with: {resume_command(view)}; or begin a new run beside it, which leaves that one as it is: {anew}"
    )


def _new_folder(runs: Path, name: str, others: int) -> Path:
    """Made here, so that of two runs that begin anew at the same moment each has its own."""
    while True:
        folder = runs / (f"{name}-{others + 1}" if others else name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            others += 1
        except OSError as error:
            raise JournalError(
                f"Cannot write to the run folder {folder}: {error.strerror}. Fix that, or name another place with LOOPER_RUNS."
            ) from error
        else:
            return folder


def workers_for(plan: Plan, wanted: int | None) -> int:
    """A rollout waits for processes nearly all of its time, so there may be more of them than cores; a large model has to keep
    every conversation in memory: two for each of its servers, and four at most for each core here."""
    if wanted is not None:
        return wanted
    large = [len(model.addresses) for model in plan.model_specs if not model.is_small]
    cores = os.cpu_count() or 1
    return min(2 * min(large), max(2, 4 * cores)) if large else min(8, 2 * cores)
