"""What cells need, made of a run's specification alone: by the process of the run, or by one elsewhere."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from looper.cli.preparing import STALE, PreparedPlan, prepare
from looper.cli.progress import Waits
from looper.cli.settings import Settings
from looper.cli.wiring import Models, Site, code_version, process_folders
from looper.errors import Drift, ModelError, RunBusy
from looper.experiment.cell import ProcessVerdicts, RunContext
from looper.experiment.ledger import differences
from looper.experiment.schedule import changed_since, difficulties, leaking_tasks
from looper.journal import RunLock
from looper.protocols import Sessions
from looper.records.base import content_hash
from looper.records.job import RunSpec
from looper.records.learning import Source
from looper.records.model import ModelSpec
from looper.records.plan import Arm, Override, Plan, RunManifest
from looper.records.task import Task
from looper.records.trajectory import ModelIdentity


@contextlib.contextmanager
def run_context_elsewhere(
    spec: RunSpec, settings: Settings, say: Callable[[str], None]
) -> Iterator[RunContext]:
    """What the cells of a run need, in a process that has its specification and settings of its own. Raises Drift where anything here
    is not what the run was begun with."""
    prepared = prepare(spec.manifest.plan, settings)
    with equipped(prepared, spec.sandbox, settings, say) as (site, models):
        found = manifest_of(prepared, site, models, spec.arms, spec.manifest.overrides)
        wanted, here = of_arms(spec.manifest, spec.arms), of_arms(found, spec.arms)
        if here != wanted:
            raise Drift(
                f"The run was begun with something else than there is here: {differences(wanted, here)}. Make them the same."
            )
        with _own_folder(settings) as folder, site.occupied(folder):
            yield site.run_context(models.of, ProcessVerdicts(), spec.manifest.run_hash())


@contextlib.contextmanager
def _own_folder(settings: Settings) -> Iterator[Path]:
    """The first folder that no other such process has locked: what lies in the place for its trees was left by one that was killed."""
    for number in itertools.count():
        folder = process_folders(settings) / str(number)
        try:
            lock = RunLock(folder)
        except RunBusy:
            continue
        with contextlib.closing(lock):
            yield folder
        return


@contextlib.contextmanager
def equipped(
    prepared: PreparedPlan, sandbox: str, settings: Settings, say: Callable[[str], None]
) -> Iterator[tuple[Site, Models]]:
    """Raises SandboxUnavailable or BadInput."""
    plan = prepared.plan
    site = Site(prepared.mirrors, settings, sandbox, say, plan.selection.isolation)
    with contextlib.closing(Models(plan, site.sessions, settings, Waits(say), say)) as models:
        yield site, models


def of_arms(manifest: RunManifest, arms: Sequence[str]) -> RunManifest:
    """Without the models of arms that do not run; all of it where none is named."""
    if not arms:
        return manifest
    asked = {name: of for name, of in manifest.models.items() if name.partition(",")[0] in arms}
    return manifest.model_copy(update={"models": asked})


def manifest_of(
    prepared: PreparedPlan, site: Site, models: Models, arms: Sequence[str], overrides: tuple[Override, ...]
) -> RunManifest:
    """What a run of these arms, or of all where none is named, is made of here. Raises ModelError where a model that is to run cannot be asked what it is."""
    plan, tasks = prepared.plan, prepared.tasks
    overseen = [(arm, arm.learning.overseer) for arm in plan.arms if arm.learning and arm.learning.overseer]

    def identity(arm: Arm) -> ModelIdentity:
        try:
            return models.of(arm, tasks[0]).identity()
        except ModelError:
            if not arms or arm.name in arms:
                raise
            return _not_asked(arm.model)

    return RunManifest(
        plan=plan,
        code_version=code_version(),
        tasks=tuple(task.instance_id for task in tasks),
        difficulty=difficulties(tasks),
        leaked=leaking_tasks(tasks),
        experience_tasks={
            source: tuple(task.instance_id for task in found) for source, found in prepared.experience.items()
        },
        left_out=prepared.left_out,
        drift=_drift(plan, prepared.experience, tasks, site.sessions),
        overrides=overrides,
        tasks_hash=content_hash(*prepared.every_task),
        models={arm.name: identity(arm) for arm in plan.arms}
        | {
            f"{arm.name}, overseer": identity(arm.model_copy(update={"model": overseer}))
            for arm, overseer in overseen
        },
        environments=tuple(sorted(set(site.environments_of(prepared.every_task).values()))),
        sandbox=site.sandbox.name,
    )


def _not_asked(spec: ModelSpec) -> ModelIdentity:
    return ModelIdentity(
        backend=spec.backend,
        backend_version="",
        name=spec.name,
        digest="not asked",
        quantisation="",
        context_tokens=None,
    )


def _drift(
    plan: Plan, experience: Mapping[Source, Sequence[Task]], tasks: Sequence[Task], sessions: Sessions
) -> dict[Source, float]:
    """How much has changed since the older experience of real repositories, measured from their trees. The embedded suite
    changes conventions, not files, and says itself how many."""
    if plan.selection.suite == "micro":
        return {}
    found = {
        source: changed_since(old, tasks, sessions.base_file)
        for source, old in experience.items()
        if source in STALE
    }
    return {source: share for source, share in found.items() if share is not None}
