"""Which concrete parts a command works with: the only module that names them."""

import contextlib
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from looper.agent.actions import render
from looper.bench.gold import gold_actions
from looper.bench.validate import eligible
from looper.cli.progress import RunProgress, TrainingProgress
from looper.cli.settings import Settings
from looper.edges.datasets.functions import KINDS, load_functions
from looper.edges.datasets.micro import MicroSuite
from looper.edges.datasets.swe_bench_cl import load_swe_bench_cl
from looper.edges.energy import metered
from looper.edges.engines.local import LocalEngine
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.environments.images import ImageEnvironments
from looper.edges.environments.pinned import EnvironmentsBySuite, PinnedEnvironments, supported_versions
from looper.edges.machine import awake, inference_lock
from looper.edges.models.anthropic import AnthropicModel
from looper.edges.models.mlx import MlxModel, nano_folder, quantised_nano
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.ollama_embeddings import OllamaEmbeddings
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.models.retrying import RetryingModel, RetryPolicy
from looper.edges.models.scripted import ScriptedModel
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.sandboxes.container import OWN_IMAGES
from looper.edges.trainers.mlx import MlxTrainer
from looper.edges.verdicts import KeptVerdicts
from looper.edges.workspaces.exports import GitWorkspaces, remove_tree
from looper.errors import BadInput, Cancelled, Drift, ExitCode
from looper.experiment.cell import JudgedHere, World
from looper.experiment.ledger import Ledger, differences
from looper.experiment.plans import plan_from_text
from looper.experiment.prove import prove_split
from looper.experiment.schedule import (
    by_age,
    changed_since,
    first_of_each,
    fit_to_learn_from,
    lanes,
    quoting,
    split_tasks,
)
from looper.experiment.stages import Staging, run_stages
from looper.journal import read_stream
from looper.memory.retrieve import Similarity
from looper.protocols import ChatModel, Fingerprinted, Judged, Workspaces
from looper.records.base import content_hash
from looper.records.eligibility import Validation
from looper.records.learning import AGES, Experience, Source
from looper.records.model import ModelSpec
from looper.records.plan import (
    Arm,
    ArmRole,
    Cell,
    Gate,
    Override,
    Plan,
    RunManifest,
    TaskSelection,
)
from looper.records.task import Task
from looper.views.runs import RunView, read_run, run_folders

STALE = AGES[:-1]
GRACE_S = 3.0
"""How long running steps may take to end after an interruption; what they would have recorded is repeated next time."""


FEW_TASKS = 100
"""Fewer tasks than this to learn from are worth a warning."""


@dataclass(frozen=True)
class RunOptions:
    """What `looper run` was asked for."""

    experiment: str
    profile: str
    model: str | None
    arms: tuple[str, ...]
    limit: int | None
    workers: int | None
    fresh: bool
    dry_run: bool
    sandbox: str
    share_machine: bool
    master_seed: int | None
    overrides: tuple[Override, ...]
    split: str | None = None
    """Letter of a division of the tasks; None for the plan's own."""
    adapter: str | None = None
    """Id, or the beginning of it, for arms that carry an adapter."""


def parse_override(text: str) -> Override:
    """`GATE=REASON`. Raises BadInput."""
    gate, _, reason = text.partition("=")
    if gate not in list(Gate) or not reason.strip():
        raise BadInput(
            f'--override {text}: name a gate and a reason, as in --override data="a pilot". Gates: {", ".join(Gate)}.'
        )
    return Override(gate=Gate(gate), reason=reason.strip())


def experiments_folders() -> list[Path]:
    """Where experiment files are looked for: the current folder's, the source tree's, the installed package's."""
    package = Path(__file__).resolve().parents[1]
    return [Path.cwd() / "experiments", package.parents[1] / "experiments", package / "experiments"]


def find_experiment(name: str) -> Path:
    """Raises BadInput that suggests names like the one asked for."""
    import difflib

    if name.endswith(".toml"):
        path = Path(name)
        if path.is_file():
            return path
        raise BadInput(f"There is no experiment file {path}.")
    known = {
        path.stem: path
        for folder in reversed(experiments_folders())
        for path in sorted(folder.glob("*.toml"))
    }
    if name in known:
        return known[name]
    near = [other for other in known if other.startswith(name)][:3]
    near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known) or 'none'}."
    raise BadInput(f'There is no experiment "{name}". {hint}')


def shared_profiles() -> dict[str, str]:
    """Texts of the profiles that experiments build on, by name."""
    return {
        path.stem: path.read_text("utf-8")
        for folder in reversed(experiments_folders())
        for path in sorted((folder / "profiles").glob("*.toml"))
    }


def adapter_named(settings: Settings, wanted: str) -> str:
    """The id that begins like that, of an adapter that is here. Raises BadInput where it is not one."""
    cards = (settings.state / "adapters").glob("*/adapter.json")
    # What is still being made lies in folders with a dot.
    found = [path.parent.name for path in cards if path.parent.name.startswith(wanted or ".")]
    if len(found) != 1:
        what = f"{len(found)} adapters begin" if found else "No adapter begins"
        raise BadInput(f'{what} with "{wanted}". List them with: looper adapter list')
    return found[0]


def load_plan(options: RunOptions, settings: Settings) -> Plan:
    path = find_experiment(options.experiment)
    profile, profile_text = options.profile, None
    if profile.endswith(".toml"):
        if not Path(profile).is_file():
            raise BadInput(f"There is no profile file {profile}.")
        profile_text = Path(profile).read_text("utf-8")
    text = path.read_text("utf-8")
    return plan_from_text(
        path.stem,
        text,
        path.name if path.parent.name == "experiments" else str(path),
        profile,
        profile_text=profile_text,
        shared=shared_profiles(),
        model=options.model,
        limit=options.limit,
        master_seed=options.master_seed,
        split=options.split,
        adapter=options.adapter and adapter_named(settings, options.adapter),
    )


def load_tasks(selection: TaskSelection, settings: Settings) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """All tasks of the selection's suite that nobody found to be no tasks here, and the mirrors of their repositories."""
    tasks, mirrors = every_task(selection, settings)
    if selection.suite == "micro":
        return tasks, mirrors
    known = list(read_stream(validations_folder(settings), "validations", Validation))
    return eligible(tasks, known)[0], mirrors


def every_task(selection: TaskSelection, settings: Settings) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """All tasks of the selection's suite as they are labelled, and the mirrors of their repositories."""
    if selection.suite == "micro":
        return MicroSuite(settings.state / "suites", selection.level, selection.suite_seed).load()
    if selection.suite != "swe-bench-cl":
        source = settings.humaneval if selection.suite == "humaneval" else settings.mbpp
        return load_functions(selection.suite, source, settings.state / "suites")
    if not settings.swe_data:
        raise BadInput(
            "SWE-Bench-CL is not configured. Set LOOPER_SWE_DATA (or --data) to its JSONL file or to hub:NAME; "
            "the embedded suite needs nothing: --profile micro."
        )
    tasks = load_swe_bench_cl(settings.swe_data)
    return tasks, mirrors_of(tasks, settings.mirrors)


def validations_folder(settings: Settings) -> Path:
    """Where `looper bench validate` keeps what it found."""
    return settings.state / "validations"


def mirrors_of(tasks: Sequence[Task], folder: Path) -> dict[str, Path]:
    """Mirrors that exist under `folder`, as `owner__name.git`, by suite and repository."""
    found = {}
    for repo in {task.repo for task in tasks}:
        path = folder / f"{repo.replace('/', '__')}.git"
        if path.is_dir():
            found[f"{tasks[0].suite}:{repo}"] = path
    return found


@cache
def code_version() -> str:
    """Hash over the package's own sources and data files, so that a changed harness never continues an old run."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".toml") and "experiments" not in path.relative_to(package).parts:
            digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Models:
    """The models of a plan: one object per model, shared by its arms; scripts are made per task."""

    def __init__(self, plan: Plan, workspaces: Workspaces, settings: Settings) -> None:
        self._plan, self._workspaces, self._settings = plan, workspaces, settings
        self._made: dict[tuple[ModelSpec, str], ChatModel] = {}
        self._mlx: dict[ModelSpec, MlxModel] = {}
        self._lock = threading.Lock()

    def of(self, arm: Arm, task: Task, adapter: str = "") -> ChatModel:
        """`adapter` is the id of one that `trainer` made."""
        if arm.model.backend == "gold":
            actions = gold_actions(task.gold_patch, lambda path: self._workspaces.base_file(task, path))
            return ScriptedModel([render(action) for action in actions], "gold")
        adapter = adapter or arm.model.adapter
        bare = arm.model.model_copy(update={"adapter": ""})
        with self._lock:
            for wanted in dict.fromkeys(("", adapter)):
                if (bare, wanted) not in self._made:
                    self._made[bare, wanted] = self._adapted(bare, wanted) if wanted else self._make(bare)
            return self._made[bare, adapter]

    def _adapted(self, spec: ModelSpec, adapter: str) -> ChatModel:
        base = self._mlx.get(spec)
        if base is None:
            raise BadInput(
                f"{spec.backend} serves no adapters that were trained here. Use nano or mlx:FOLDER for plans that train."
            )
        return RetryingModel(base.adapted(self._settings.state / "adapters" / adapter), RetryPolicy())

    def adapted(self, arm: Arm, task: Task, adapter: str) -> Fingerprinted:
        """As `of`, for models that show what they compute. Raises BadInput for others."""
        found = self.of(arm, task, adapter)
        if not isinstance(found, RetryingModel):
            raise BadInput(f"{arm.model.backend} carries no adapters.")
        return found

    def trainer(self, arm: Arm) -> MlxTrainer:
        """Makes adapters for an arm's model. Raises BadInput where that is not an MLX model."""
        return MlxTrainer(trained_folder(arm.model, self._settings), self._settings.state / "adapters")

    def _make(self, spec: ModelSpec) -> ChatModel:
        context = self._plan.limits.context_tokens
        match spec.backend:
            case "noop":
                return ScriptedModel(["<done></done>"], "noop")
            case "scripted":
                return ScriptedModel(_script(Path(spec.name)))
            case "nano" | "mlx":
                found = MlxModel(
                    trained_folder(spec, self._settings),
                    name=spec.name if spec.backend == "mlx" else f"nano {spec.name}".strip(),
                    context_tokens=context,
                )
                inner: ChatModel = found
                self._mlx[spec] = found
            case "ollama":
                inner = OllamaModel(spec.name, base_url=spec.base_url, context_tokens=context)
            case "openai":
                inner = OpenAICompatibleModel(spec.name, base_url=spec.base_url, context_tokens=context)
            case _:
                inner = AnthropicModel(spec.name, base_url=spec.base_url, context_tokens=context)
        return RetryingModel(inner, RetryPolicy())

    def close(self) -> None:
        for model in self._made.values():
            model.close()


def _script(path: Path) -> list[str]:
    """Replies from a text file, separated by lines that hold nothing but `---`."""
    if not path.is_file():
        raise BadInput(f"There is no script {path} for the scripted model.")
    return path.read_text("utf-8").split("\n---\n")


def needs_inference_lock(plan: Plan) -> bool:
    """Whether a large model runs on this machine. The embedded one is too small to be in anybody's way."""
    return any(model.backend in ("mlx", "ollama") for model in plan.model_specs)


class Site:
    """Where the cells of one plan run: sandbox, environments, and a folder of its own for workspaces."""

    def __init__(
        self,
        plan: Plan,
        mirrors: dict[str, Path],
        settings: Settings,
        sandbox: str,
        say: Callable[[str], None],
    ) -> None:
        """Raises SandboxUnavailable or BadInput."""
        self.sandbox = find_sandbox(sandbox)
        self._place = settings.workspaces / content_hash(str(settings.runs), plan)[:16]
        self.workspaces = GitWorkspaces(mirrors, settings.state / "exports", self._place, self.sandbox.owner)
        self.environments = EnvironmentsBySuite(
            HarnessEnvironment(settings.state / "environments"),
            ImageEnvironments(settings.state / "environments")
            if sandbox == f"container:{OWN_IMAGES}"
            else PinnedEnvironments(settings.state / "environments", say, self.workspaces.base_tree),
        )

    def world(self, model_of: Callable[[Arm, int, Task], ChatModel], judged: Judged | None = None) -> World:
        judged = judged or JudgedHere()
        return World(
            self.workspaces, self.environments, self.sandbox, model_of, code_version(), judged=judged
        )

    @contextlib.contextmanager
    def occupied(self) -> Iterator[threading.Event]:
        """The machine stays awake, and the event is set when somebody wants the run to end.

        Whoever comes here holds the run folder's lock, so what lies in the place was left by a run that is no more.
        """
        remove_tree(self._place)
        self._place.mkdir(parents=True)
        stop = threading.Event()
        try:
            with awake(), interruptible(stop):
                yield stop
        finally:
            remove_tree(self._place)


@dataclass(frozen=True)
class Prepared:
    """A plan with its tasks, before anything is run."""

    plan: Plan
    tasks: tuple[Task, ...]
    """To evaluate."""
    experience: dict[Source, tuple[Task, ...]]
    left_out: dict[str, str]
    """Tasks that could have been learned from and are not, and why."""
    mirrors: dict[str, Path]
    schedule: tuple[tuple[Cell, ...], ...]


def prepare(options: RunOptions, settings: Settings) -> Prepared:
    """Raises BadInput for what cannot be run."""
    plan = load_plan(options, settings)
    tasks, experience, left_out, mirrors = _chosen(plan, settings)
    schedule = lanes(plan, tasks, options.arms)
    return Prepared(plan, tasks, experience, left_out, mirrors, schedule)


def _chosen(
    plan: Plan, settings: Settings
) -> tuple[tuple[Task, ...], dict[Source, tuple[Task, ...]], dict[str, str], dict[str, Path]]:
    """Tasks to evaluate, tasks to learn from, what was left out of these and why, and the mirrors of all."""
    every, mirrors = load_tasks(plan.selection, settings)
    tasks, learning = split_tasks(every, plan.selection, plan.experience)
    experience, more_mirrors = load_experience(plan, learning, settings)
    kept, left_out = _fit(plan, experience, tasks)
    return tasks, kept, left_out, mirrors | more_mirrors


def tasks_as_they_are(manifest: RunManifest, settings: Settings) -> str | None:
    """Hash of the tasks of a run, loaded again; None where the suite is not here."""
    plan = manifest.plan
    try:
        tasks, kept, _, _ = _chosen(plan, settings)
    except BadInput:
        return None
    return content_hash(*tasks, *(task for found in kept.values() for task in found))


def run(options: RunOptions, settings: Settings, say: Callable[[str], None]) -> RunView | None:
    """Everything behind `looper run`; None for a dry run."""
    prepared = prepare(options, settings)
    plan, tasks, experience, mirrors = prepared.plan, prepared.tasks, prepared.experience, prepared.mirrors
    for line in _about_eligibility(tasks, settings):
        say(line)
    for line in _about_learning(plan, experience, prepared.left_out, options.overrides):
        say(line)
    if options.dry_run:
        for line in _dry_run(plan, tasks, experience, prepared.schedule):
            say(line)
        return None
    with contextlib.ExitStack() as stack:
        if needs_inference_lock(plan) and not options.share_machine:
            stack.enter_context(inference_lock(settings.state))
        every_task = [*tasks, *(task for found in experience.values() for task in found)]
        site = Site(plan, mirrors, settings, options.sandbox, say)
        models = Models(plan, site.workspaces, settings)
        stack.callback(models.close)
        _adapters_fit(plan, models, tasks)
        drift = _drift(plan, experience, tasks, site.workspaces)
        for source, share in drift.items():
            say(
                f"{source.value}: {100 * share:.0f} % of the files that gold patches change have changed since"
            )
        manifest = RunManifest(
            plan=plan,
            code_version=code_version(),
            tasks=tuple(task.instance_id for task in tasks),
            difficulty={task.instance_id: task.difficulty for task in tasks},
            leaked=quoting(tasks),
            experience_tasks={
                source: tuple(task.instance_id for task in found) for source, found in experience.items()
            },
            left_out=prepared.left_out,
            drift=drift,
            overrides=options.overrides,
            tasks_hash=content_hash(*every_task),
            models={arm.name: models.of(arm, tasks[0]).identity() for arm in plan.arms}
            | {
                f"{arm.name}, overseer": models.of(
                    arm.model_copy(update={"model": arm.learning.overseer}), tasks[0]
                ).identity()
                for arm in plan.arms
                if arm.learning is not None and arm.learning.overseer is not None
            },
            environments=tuple(sorted({site.environments.of(task).id for task in every_task})),
            sandbox=site.sandbox.name,
        )
        folder = run_folder(manifest, settings.runs, fresh=options.fresh)
        ledger = Ledger(folder, manifest)
        stack.callback(ledger.close)
        for found in ledger.damage:
            say(f"damaged record set aside: {found.file} line {found.line}, {found.reason}")
        stop = stack.enter_context(site.occupied())
        meter = stack.enter_context(metered())
        run_stages(
            Staging(
                manifest=manifest,
                tasks={task.instance_id: task for task in every_task},
                arms=options.arms,
                world=site.world(
                    lambda arm, seed, task: models.of(arm, task),
                    judged_before(plan, settings, folder, options),
                ),
                served=models.of,
                adapted=models.adapted,
                trainer=lambda: models.trainer(next(arm for arm in plan.arms if arm.role is ArmRole.BASE)),
                ledger=ledger,
                engine=LocalEngine(workers_for(plan, options.workers)),
                stop=stop,
                show=lambda name, cells, todo: RunProgress(folder, name, total=len(cells), todo=todo),
                say=say,
                tell=TrainingProgress(say),
                energy_j=meter.joules,
                similar=similarity(plan.experience),
            )
        )
    return read_run(folder)


def _adapters_fit(plan: Plan, models: Models, tasks: Sequence[Task]) -> None:
    """That adapters which models carry from elsewhere were made for them, and of other tasks. Raises TreatmentMissing or
    BadInput."""
    for arm in plan.arms:
        if not arm.model.adapter:
            continue
        card, identity = models.trainer(arm).load(arm.model.adapter), models.of(arm, tasks[0]).identity()
        prove_split(card, [task.instance_id for task in tasks], arm.name)
        if card.base.digest != identity.digest:
            raise BadInput(
                f"{arm.name}: the adapter {card.id} was trained on {card.base.name} {card.base.digest[:12]}, and the model "
                f"is {identity.name} {identity.digest[:12]}. Name the one that it was trained on with --model."
            )


def judged_before(
    plan: Plan, settings: Settings, folder: Path, options: RunOptions | None = None
) -> Judged | None:
    """Verdicts of all runs on real tasks, whose tests take minutes; those of the embedded suite are faster judged than kept, and
    a fresh run judges anew."""
    if plan.selection.suite != "swe-bench-cl" or (options is not None and options.fresh):
        return None
    return KeptVerdicts(settings.state / "verdicts", folder.name)


def _fit(
    plan: Plan, experience: Mapping[Source, Sequence[Task]], evaluated: Sequence[Task]
) -> tuple[dict[Source, tuple[Task, ...]], dict[str, str]]:
    """The tasks that may be learned from, by source, and why others may not."""
    kept: dict[Source, tuple[Task, ...]] = {}
    left_out: dict[str, str] = {}
    for source, tasks in experience.items():
        assert plan.experience is not None
        kept[source], why = fit_to_learn_from(tasks, evaluated, plan.experience.selection)
        left_out |= why
    return kept, left_out


def _about_eligibility(tasks: Sequence[Task], settings: Settings) -> Iterator[str]:
    """Of real tasks: which are not taken because they cannot tell right from wrong here, and how many nobody looked at."""
    repos = {task.repo for task in tasks if task.suite == "swe-bench-cl"}
    known = read_stream(validations_folder(settings), "validations", Validation) if repos else ()
    of_repos = {found.instance_id: found for found in known if found.repo in repos}
    for found in of_repos.values():
        if not found.valid:
            yield f"{found.instance_id} is not eligible: {found.cause}"
    unknown = sum(task.repo in repos and task.instance_id not in of_repos for task in tasks)
    if unknown:
        yield f"{unknown} of {len(tasks)} tasks were not validated here; before a model is asked: looper bench validate"


def _about_learning(
    plan: Plan,
    experience: Mapping[Source, Sequence[Task]],
    left_out: Mapping[str, str],
    overrides: Sequence[Override],
) -> Iterator[str]:
    """What somebody who waits for the run should know of it before."""
    for name, why in left_out.items():
        yield f"{name} is not learned from: {why}"
    for found in overrides:
        yield f"the gate {found.gate.value} is overridden, and the record says so: {found.reason}"
    few = {source: len(tasks) for source, tasks in experience.items() if len(tasks) < FEW_TASKS}
    if few and plan.selection.suite != "micro":
        fewest = min(few.values())
        yield f"{fewest} tasks to learn from are few: what is learned may be those tasks and nothing else"


def _drift(
    plan: Plan, experience: Mapping[Source, Sequence[Task]], tasks: Sequence[Task], workspaces: Workspaces
) -> dict[Source, float]:
    """How much has changed since the older experience of real repositories, measured from their trees. The embedded suite
    changes conventions, not files, and says itself how many."""
    if plan.selection.suite == "micro":
        return {}
    found = {
        source: changed_since(old, tasks, workspaces.base_file)
        for source, old in experience.items()
        if source in STALE
    }
    return {source: share for source, share in found.items() if share is not None}


def workers_for(plan: Plan, wanted: int | None) -> int:
    """A rollout waits for processes nearly all of its time, so there may be more of them than cores; a large model has to keep
    every conversation in memory."""
    if wanted is not None:
        return wanted
    small = all(model.backend in ("nano", "gold", "noop", "scripted") for model in plan.model_specs)
    return min(8, 2 * (os.cpu_count() or 1)) if small else 2


def similarity(experience: Experience | None) -> Similarity | None:
    """How memory is searched; None for by words."""
    backend, _, name = experience.retrieval.partition(":") if experience else ("bm25", "", "")
    return OllamaEmbeddings(name) if backend == "ollama" else None


def load_experience(
    plan: Plan, learning: Sequence[Task], settings: Settings
) -> tuple[dict[Source, tuple[Task, ...]], dict[str, Path]]:
    """The tasks that arms learn from, by source, and mirrors that only these need."""
    found: dict[Source, tuple[Task, ...]] = {}
    mirrors: dict[str, Path] = {}
    aged = plan.selection.suite != "micro" and any(source in STALE for source in plan.sources)
    ages = by_age(learning) if aged else {}
    for source in plan.sources:
        if source in ages:
            found[source] = ages[source]
            continue
        if source in (Source.OWN, Source.GOLD, Source.GUIDED):
            found[source] = tuple(learning)
            continue
        if plan.selection.suite != "micro" or plan.selection.level != 0:
            raise BadInput(f"{source.value} experience exists for level 0 of the micro suite only.")
        suite = MicroSuite(settings.state / "suites", 0, plan.selection.suite_seed, source.value)
        tasks, more = suite.load()
        mirrors |= more
        repos = {task.repo for task in learning}
        assert plan.experience is not None
        found[source] = first_of_each(
            [task for task in tasks if task.repo in repos], plan.experience.per_repo
        )
    return found, mirrors


def _dry_run(
    plan: Plan,
    tasks: Sequence[Task],
    experience: Mapping[Source, Sequence[Task]],
    schedule: Sequence[Sequence[Cell]],
) -> Iterator[str]:
    yield f"{plan.experiment} {plan.profile}: {len(tasks)} tasks × {len(plan.arms)} arms × {len(plan.seeds)} seeds"
    for source, found in experience.items():
        arms = [arm for used, arm in plan.all_experience() if used is source]
        yield f"before them, {source.value} experience: {len(found)} tasks × {len(arms)} samples × {len(plan.seeds)} seeds"
    for lane in schedule:
        for cell in lane:
            yield cell.key


def trained_folder(spec: ModelSpec, settings: Settings) -> Path:
    """Where the weights lie of a model that can be trained here. Raises BadInput for others."""
    if spec.backend not in ("nano", "mlx"):
        raise BadInput(
            f"{spec.backend} models cannot be trained here. Use nano or mlx:FOLDER for plans that train."
        )
    if spec.backend == "mlx":
        return Path(spec.name).expanduser()
    if spec.name.endswith("bit"):
        return quantised_nano(settings.state / "models", spec.name)
    return nano_folder(spec.name)


@contextlib.contextmanager
def interruptible(stop: threading.Event) -> Iterator[None]:
    """The first signal ends the run in order, within a few seconds; a second one at once.

    Leaving in the middle of a step is safe: every record is on the disk when it is made, commands and model processes
    end with the process that started them, and workspaces are swept by the next run.
    """

    def later() -> None:
        time.sleep(GRACE_S)
        sys.stderr.write(f"\n{Cancelled()}\n")
        sys.stderr.flush()
        os._exit(ExitCode.INTERRUPTED)

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            os._exit(ExitCode.INTERRUPTED)
        stop.set()
        threading.Thread(target=later, daemon=True).start()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_folder(manifest: RunManifest, runs: Path, *, fresh: bool) -> Path:
    """The folder of this very run, or a new one.

    Raises Drift where an unfinished run of the same experiment and profile was begun with anything else: going on would
    mix two runs, and beginning anew in silence would leave the old one for dead.
    """
    stem = f"{manifest.plan.experiment}-{Path(manifest.plan.profile).stem}"
    name = f"{stem}-{manifest.run_hash()}"
    mine = sorted(runs.glob(f"{name}*"), key=lambda path: (len(path.name), path.name))
    if fresh:
        return runs / (f"{name}-{len(mine) + 1}" if mine else name)
    if mine:
        return mine[-1]
    for other in run_folders(runs):
        if other.name.startswith(f"{stem}-"):
            view = read_run(other)
            same = view.manifest.plan.selection == manifest.plan.selection
            if same and view.finished < view.planned:
                raise Drift(
                    f"The unfinished run {other} was begun differently: {differences(view.manifest, manifest)}. "
                    "Restore that and run again to finish it, or begin a new run with --fresh."
                )
    return runs / name


def suites(settings: Settings) -> Iterator[tuple[str, Mapping[str, int], str]]:
    """Name, tasks by repository and state of every suite."""
    for level in (0, 1, 2):
        tasks, _ = MicroSuite(settings.state / "suites", level, 0).load()
        yield f"micro level {level}", _by_repo(tasks), "ready"
    for name, source in (("humaneval", settings.humaneval), ("mbpp", settings.mbpp)):
        if source:
            tasks, _ = load_functions(name, source, settings.state / "suites")
            yield name, _by_repo(tasks), "ready"
        else:
            yield name, {}, f"not configured: set {KINDS[name][1]}"
    if not settings.swe_data:
        yield "swe-bench-cl", {}, "not configured: set LOOPER_SWE_DATA"
        return
    tasks = load_swe_bench_cl(settings.swe_data)
    present = mirrors_of(tasks, settings.mirrors)
    counts = _by_repo(tasks)
    ready = [repo for repo in counts if f"swe-bench-cl:{repo}" in present and supported_versions(repo)]
    yield "swe-bench-cl", counts, f"ready: {', '.join(ready) or 'none; run looper bench fetch'}"


def _by_repo(tasks: Sequence[Task]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for task in tasks:
        counts[task.repo] = counts.get(task.repo, 0) + 1
    return counts
