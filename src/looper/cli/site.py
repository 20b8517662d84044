"""What cells need, made of a run's specification alone: by the process of the run, or by one elsewhere.

One elsewhere has settings of its own, and fetches what they do not lead to; then it makes the manifest of what it has, which must be
that of the run.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from looper.cli.preparing import STALE, PreparedPlan, prepare
from looper.cli.progress import Waits
from looper.cli.settings import ROWS_FROM, Settings
from looper.cli.wiring import (
    Models,
    Site,
    adapter_store,
    code_version,
    model_is_here,
    process_folders,
    weights_for,
)
from looper.errors import Drift, ModelError, RunBusy
from looper.experiment.cell import ProcessVerdicts, RunContext
from looper.experiment.ledger import differences
from looper.experiment.schedule import changed_since, difficulties, leaking_tasks
from looper.journal import RunLock
from looper.protocols import Sessions
from looper.records.base import content_hash
from looper.records.content import ContentKind
from looper.records.job import RunSpec
from looper.records.learning import Source
from looper.records.model import ModelSpec
from looper.records.plan import Arm, Override, Plan, RunManifest
from looper.records.task import Task
from looper.records.trajectory import ModelIdentity

Fetch = Callable[[ContentKind, str, Path | None], Path | None]
"""Where something of the run's machine is here: by its kind, its name, and its own place, where it has one. None for what is not there
either."""


@dataclass(frozen=True)
class Elsewhere:
    """What the cells of a run need, in another process than the run's."""

    run_context: RunContext
    control: Task
    """A task by which this machine shows that it judges as it must."""
    adapter: Callable[[str], Path]
    """Where one lies here, fetched where it did not. Raises as `ContentCache.place`."""


@contextlib.contextmanager
def run_context_elsewhere(
    spec: RunSpec,
    settings: Settings,
    say: Callable[[str], None],
    fetch: Fetch,
    beside: Callable[[], int] = lambda: 0,
) -> Iterator[Elsewhere]:
    """What the cells of a run need, in a process that has its specification and settings of its own; what is not here is fetched. `beside` as
    for `Models`. Raises Drift where anything here is not what the run was begun with."""
    kept = adapter_store(settings)

    def adapter(name: str) -> Path:
        own = kept.folder(name)
        return fetch(ContentKind.ADAPTER, name, own) or own

    settings = _completed(spec.manifest.plan, settings, fetch, adapter)
    prepared = prepare(spec.manifest.plan, settings)
    prepared = replace(prepared, mirrors=dict(_mirrors(prepared, fetch)))
    # What the run's machine found by itself, so that it is said why that does not hold here.
    found_there = spec.manifest.sandbox.partition(" ")[0]
    sandbox = found_there if spec.sandbox == "auto" else spec.sandbox
    with equipped(prepared, sandbox, settings, say, adapter, beside) as (site, models):
        found = manifest_of(prepared, site, models, spec.arms, spec.manifest.overrides)
        wanted, here = of_arms(spec.manifest, spec.arms), of_arms(found, spec.arms)
        if here != wanted:
            raise Drift(
                f"The run was begun with something else than there is here: {differences(wanted, here)}. Make them the same."
            )
        with own_folder(settings) as folder, site.occupied(folder):
            run_context = site.run_context(models.of, ProcessVerdicts(), spec.manifest.run_hash())
            yield Elsewhere(run_context, control_task(prepared), adapter)


def control_task(prepared: PreparedPlan) -> Task:
    """The first to evaluate that is known to be valid; the first, where nothing is known of any."""
    known = (task for task in prepared.tasks if task.instance_id in prepared.validations)
    return next(known, prepared.tasks[0])


def _completed(plan: Plan, settings: Settings, fetch: Fetch, adapter: Callable[[str], Path]) -> Settings:
    """With the data of the suite and the weights that the plan needs and that are not here, as far as the run's machine has them."""
    suite, rows = plan.selection.suite, dict(settings.rows)
    needed = filter(None, (weights_for(spec, adapter) for spec in plan.model_specs))
    wanted = [(ContentKind.MODEL, spec.name) for spec in needed if not model_is_here(spec, settings)]
    if suite != "micro" and not settings.validations.exists():
        wanted.append((ContentKind.VALIDATIONS, suite))
    if suite in ROWS_FROM and not rows[suite] and (place := fetch(ContentKind.ROWS, suite, None)):
        rows[suite] = str(place)
    found = {key: place for key in wanted if (place := fetch(*key, None))}
    return replace(settings, rows=rows, fetched=found)


def _mirrors(prepared: PreparedPlan, fetch: Fetch) -> Iterator[tuple[str, Path]]:
    """Those that are here, and base trees of the other repositories."""
    yield from prepared.mirrors.items()
    repositories = {f"{task.suite}:{task.repo}" for task in prepared.every_task}
    for name in sorted(repositories - prepared.mirrors.keys()):
        if place := fetch(ContentKind.TREES, name, None):
            yield name, place


@contextlib.contextmanager
def own_folder(settings: Settings) -> Iterator[Path]:
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
    prepared: PreparedPlan,
    sandbox: str,
    settings: Settings,
    say: Callable[[str], None],
    adapters: Callable[[str], Path] | None = None,
    beside: Callable[[], int] = lambda: 0,
) -> Iterator[tuple[Site, Models]]:
    """`adapters` and `beside` as for `Models`. Raises SandboxUnavailable or BadInput."""
    plan = prepared.plan
    site = Site(prepared.mirrors, settings, sandbox, say, plan.selection.isolation)
    with contextlib.closing(
        Models(plan, site.sessions, settings, Waits(say), say, adapters, beside)
    ) as models:
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
