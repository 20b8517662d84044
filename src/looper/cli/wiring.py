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
from looper.cli.progress import RunProgress
from looper.cli.settings import Settings
from looper.edges.datasets.micro import MicroSuite
from looper.edges.datasets.swe_bench_cl import load_swe_bench_cl
from looper.edges.engines.local import LocalEngine
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.environments.pinned import EnvironmentsBySuite, PinnedEnvironments, supported_versions
from looper.edges.machine import awake, inference_lock
from looper.edges.models.anthropic import AnthropicModel
from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.models.retrying import RetryingModel, RetryPolicy
from looper.edges.models.scripted import ScriptedModel
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces.exports import GitWorkspaces, remove_tree
from looper.errors import BadInput, Cancelled, Drift, ExitCode
from looper.experiment.cell import World
from looper.experiment.ledger import Ledger, differences
from looper.experiment.plans import plan_from_text
from looper.experiment.run import Progress, run_plan
from looper.experiment.schedule import lanes, select_tasks
from looper.protocols import ChatModel, Workspaces
from looper.records.base import content_hash
from looper.records.plan import Arm, Cell, ModelSpec, Plan, RunManifest, TaskSelection
from looper.records.task import Task
from looper.views.runs import RunView, read_run, run_folders

GRACE_S = 3.0
"""How long running steps may take to end after an interruption; what they would have recorded is repeated next time."""


@dataclass(frozen=True)
class RunOptions:
    """What `looper run` was asked for."""

    experiment: str
    profile: str
    model: str | None
    arms: tuple[str, ...]
    limit: int | None
    workers: int
    fresh: bool
    dry_run: bool
    sandbox: str
    share_machine: bool


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
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known) or 'none'}."
    raise BadInput(f'There is no experiment "{name}". {hint}')


def load_plan(options: RunOptions) -> Plan:
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
        model=options.model,
        limit=options.limit,
    )


def load_tasks(selection: TaskSelection, settings: Settings) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """All tasks of the selection's suite, and the mirrors of their repositories."""
    if selection.suite == "micro":
        return MicroSuite(settings.state / "suites", selection.level, selection.suite_seed).load()
    if not settings.swe_data:
        raise BadInput(
            "SWE-Bench-CL is not configured. Set LOOPER_SWE_DATA (or --data) to its JSONL file or to hub:NAME; "
            "the embedded suite needs nothing: --profile micro."
        )
    tasks = load_swe_bench_cl(settings.swe_data)
    return tasks, mirrors_of(tasks, settings.mirrors)


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
        self._made: dict[ModelSpec, ChatModel] = {}

    def of(self, arm: Arm, task: Task) -> ChatModel:
        if arm.model.backend == "gold":
            actions = gold_actions(task.gold_patch, lambda path: self._workspaces.base_file(task, path))
            return ScriptedModel([render(action) for action in actions], "gold")
        if arm.model not in self._made:
            self._made[arm.model] = self._make(arm.model)
        return self._made[arm.model]

    def _make(self, spec: ModelSpec) -> ChatModel:
        context = self._plan.limits.context_tokens
        match spec.backend:
            case "noop":
                return ScriptedModel(["<done></done>"], "noop")
            case "scripted":
                return ScriptedModel(_script(Path(spec.name)))
            case "nano":
                inner: ChatModel = MlxModel(nano_folder(), name="nano", context_tokens=context)
            case "mlx":
                inner = MlxModel(Path(spec.name).expanduser(), name=spec.name, context_tokens=context)
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
    return any(arm.model.backend in ("mlx", "ollama") for arm in plan.arms)


def run(options: RunOptions, settings: Settings, say: Callable[[str], None]) -> RunView | None:
    """Everything behind `looper run`; None for a dry run."""
    plan = load_plan(options)
    all_tasks, mirrors = load_tasks(plan.selection, settings)
    tasks = select_tasks(all_tasks, plan.selection)
    schedule = lanes(plan, tasks, options.arms)
    if options.dry_run:
        say(
            f"{plan.experiment} {plan.profile}: {len(tasks)} tasks × {len(plan.arms)} arms × {len(plan.seeds)} seeds"
        )
        for lane in schedule:
            for cell in lane:
                say(cell.key)
        return None
    with contextlib.ExitStack() as stack:
        if needs_inference_lock(plan) and not options.share_machine:
            stack.enter_context(inference_lock(settings.state))
        sandbox = find_sandbox(options.sandbox)
        environments = EnvironmentsBySuite(
            HarnessEnvironment(settings.state / "environments"),
            PinnedEnvironments(settings.state / "environments", say),
        )
        used = sorted({environments.of(task).id for task in tasks})
        bench = settings.state / "workspaces"
        place = bench / content_hash(str(settings.runs), plan)[:16]
        workspaces = GitWorkspaces(mirrors, settings.state / "exports", place, sandbox.owner)
        models = Models(plan, workspaces, settings)
        stack.callback(models.close)
        manifest = RunManifest(
            plan=plan,
            code_version=code_version(),
            tasks=tuple(task.instance_id for task in tasks),
            tasks_hash=content_hash(*tasks),
            models={arm.name: models.of(arm, tasks[0]).identity() for arm in plan.arms},
            environments=tuple(used),
            sandbox=sandbox.name,
        )
        folder = run_folder(manifest, settings.runs, fresh=options.fresh)
        ledger = Ledger(folder, manifest)
        stack.callback(ledger.close)
        for found in ledger.damage:
            say(f"damaged record set aside: {found.file} line {found.line}, {found.reason}")
        # The lock is held: what lies here was left by a run that is no more.
        remove_tree(place)
        place.mkdir(parents=True)
        stack.callback(remove_tree, place)
        stack.enter_context(awake())
        world = World(workspaces, environments, sandbox, models.of, code_version())
        _run_cells(plan, tasks, schedule, world, ledger, options.workers)
    return read_run(folder)


def _run_cells(
    plan: Plan,
    tasks: Sequence[Task],
    schedule: Sequence[Sequence[Cell]],
    world: World,
    ledger: Ledger,
    workers: int,
) -> None:
    stop = threading.Event()
    cells = [cell for lane in schedule for cell in lane]
    todo = sum(ledger.past(cell) is not None for cell in cells)
    with RunProgress(ledger.folder, total=len(cells), todo=todo) as shown, _interruptible(stop):
        run_plan(
            plan,
            {task.instance_id: task for task in tasks},
            schedule,
            world,
            ledger,
            LocalEngine(workers),
            stop,
            Progress(shown.finished),
        )


@contextlib.contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
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
