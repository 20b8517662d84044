"""Which concrete parts a command works with: the only module that names them.

Everything else is given its model and its sessions by a protocol. What imports an edge elsewhere fails a test
of the architecture.
"""

import contextlib
import hashlib
import json
import secrets
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, assert_never

from looper.agent.actions import render
from looper.agent.loop import Assignment, Rollout, rollout
from looper.bench.gold import gold_actions
from looper.bench.micro.expert import next_action
from looper.bench.micro.levels import projects
from looper.cli.settings import ROWS_FROM, Settings
from looper.edges import doctor
from looper.edges.access import shared_folder as shared_folder
from looper.edges.content import ContentCache as ContentCache
from looper.edges.content import ContentSource
from looper.edges.content import must_be_idle as must_be_idle
from looper.edges.datasets.foreign import read_foreign as read_foreign
from looper.edges.datasets.functions import load_functions
from looper.edges.datasets.micro import MicroSuite
from looper.edges.datasets.predictions import read_predictions as read_predictions
from looper.edges.datasets.swe_bench import HOW, load_swe_bench
from looper.edges.datasets.swe_bench_cl import load_hints as load_hints
from looper.edges.datasets.swe_bench_cl import load_swe_bench_cl
from looper.edges.energy import metered
from looper.edges.engines.local import LocalEngine, Threads
from looper.edges.engines.ray import RayCluster, RayEngine, Worker
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.environments.images import ImageEnvironments
from looper.edges.environments.interpreters import answer_of
from looper.edges.environments.known import install_line as install_line
from looper.edges.environments.known import measured_where as measured_where
from looper.edges.environments.known import missing_compilers as missing_compilers
from looper.edges.environments.known import missing_programs as missing_programs
from looper.edges.environments.known import unserved as unserved
from looper.edges.environments.pinned import EnvironmentsBySuite, PinnedEnvironments
from looper.edges.git_notes import put_at as put_at
from looper.edges.git_notes import texts_at as texts_at
from looper.edges.labs import LabProcess as LabProcess
from looper.edges.labs import end_group as end_group
from looper.edges.machine import awake, inference_lock
from looper.edges.models.anthropic import AnthropicModel
from looper.edges.models.arrival import Arrival, NextTokens, ServedAdapter, arrived
from looper.edges.models.digests import FileDigests
from looper.edges.models.kept import add_model as add_model
from looper.edges.models.kept import added_models as added_models
from looper.edges.models.kept import keep_taught as keep_taught
from looper.edges.models.kept import must_be_free as must_be_free
from looper.edges.models.kept import named_folder, teaching_of
from looper.edges.models.kept import remove_model as remove_model
from looper.edges.models.mlx import MlxModel, nano_folder, quantised_nano
from looper.edges.models.mlx import folder_digest as folder_digest
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.ollama_adapters import AdaptedOllamaModel, register
from looper.edges.models.ollama_embeddings import OllamaEmbeddings
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.models.outage import Outage
from looper.edges.models.replicas import Replica, Replicas, RequestsInFlight
from looper.edges.models.retrying import RetryingModel, RetryPolicy
from looper.edges.models.scripted import ExpertModel, ScriptedModel
from looper.edges.models.served import is_loopback
from looper.edges.sandboxes.check import find_sandbox, must_reach
from looper.edges.sandboxes.container import OWN_IMAGES
from looper.edges.sandboxes.process import end_left
from looper.edges.sandboxes.shell import LocalShell
from looper.edges.signals import Stop as Stop
from looper.edges.signals import interruptible
from looper.edges.trainers.adapter_store import AdapterStore, card_in
from looper.edges.trainers.encoding import load_tokenizer, supervised_spans, window_examples
from looper.edges.trainers.estimate import free_bytes, memory_bytes
from looper.edges.trainers.gguf_adapter import to_gguf
from looper.edges.trainers.mlx import MlxTrainer
from looper.edges.trainers.order import validation_tasks
from looper.edges.trainers.peft import from_peft as from_peft
from looper.edges.trainers.peft import must_be_plain_lora, to_peft
from looper.edges.verdicts import StoredVerdicts
from looper.edges.workspaces.exports import BaseTrees, GitSessions, copy_tree
from looper.edges.workspaces.mirrors import clone, mirror_path, mirrors_of, missing_commits, packed_trees
from looper.edges.workspaces.mirrors import must_be_whole as must_be_whole
from looper.edges.workspaces.sources import GitSources, new_repository
from looper.edges.workspaces.versions import VersionFolders
from looper.errors import BadInput, LooperError, interrupted, one_line
from looper.evolution.guest import CHILD, Guests
from looper.experiment.cell import ModelFor, ProcessVerdicts, RunContext, run_cell
from looper.experiment.run import FREE_BYTES
from looper.memory.retrieve import Similarity
from looper.metrics.paired import ids_must_tell_repositories
from looper.protocols import (
    AdapterHost,
    ChatModel,
    Engine,
    Environment,
    Sandbox,
    Sessions,
    Shell,
    Sources,
    VerdictCache,
    Versions,
)
from looper.records.base import content_hash
from looper.records.content import ContentKind, Wanted
from looper.records.job import CellJob, Event, RunSpec
from looper.records.learning import Source
from looper.records.model import BACKENDS, ModelSpec
from looper.records.plan import (
    REAL_SUITES,
    SUITES,
    Arm,
    Isolation,
    Plan,
    RealSuite,
    TaskSelection,
)
from looper.records.session import NodeState
from looper.records.task import Task
from looper.records.teaching import Teaching
from looper.records.training import AdapterRecord, Example, TrainingSettings, Windows
from looper.untrusted import named_text, remove_tree


def every_task(selection: TaskSelection, settings: Settings) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """All tasks of the selection's suite as they are labelled, and the mirrors of their repositories. Raises BadInput."""
    folder = settings.state / "suites"
    match selection.suite:
        case "micro":
            embedded = MicroSuite(
                folder, selection.level, selection.suite_seed, repositories=selection.repositories
            )
            tasks, mirrors = embedded.load()
        case "humaneval" | "mbpp":
            tasks, mirrors = load_functions(selection.suite, settings.rows[selection.suite], folder)
        case "swe-bench-cl" | "swe-bench":
            tasks = _real_tasks(selection.suite, settings)
            mirrors = mirrors_of(tasks, settings.mirrors)
        case _:
            assert_never(selection.suite)
    ids_must_tell_repositories(tasks)
    return tasks, mirrors


def _real_tasks(suite: RealSuite, settings: Settings) -> tuple[Task, ...]:
    """Tasks of a benchmark, whether their repositories are here or can be run here or not. Raises BadInput."""
    source = settings.rows[suite]
    match suite:
        case "swe-bench-cl":
            if not source:
                raise BadInput(
                    "SWE-Bench-CL is not configured. Set LOOPER_SWE_DATA (or --data) to its JSONL file or to hub:NAME; "
                    "the embedded suite needs nothing: --profile micro, or --suite micro where the command has that."
                )
            return load_swe_bench_cl(source)
        case "swe-bench":
            if not source:
                raise BadInput(f"SWE-bench is not configured. {HOW}")
            return load_swe_bench(source)
        case _:
            assert_never(suite)


MORE_REPOSITORIES = 48
"""So many of the embedded suite are looked through for a name, at the level that was asked for: as many as a registered plan has."""


def found_elsewhere(selection: TaskSelection, settings: Settings, name: str) -> str:
    """Where there is a repository or a task that a selection does not have, and how it is selected; empty where it is nowhere."""
    micro = selection if selection.suite == "micro" else TaskSelection(suite="micro")
    for level in (
        (selection.level, *{0, 1, 2} - {selection.level}) if selection.suite == "micro" else (0, 1, 2)
    ):
        # More are made at the level that was asked for, since a plan may make more of them than another one.
        count = max(MORE_REPOSITORIES, micro.repositories) if level == selection.level else micro.repositories
        for number, project in enumerate(projects(level, micro.suite_seed, repositories=count), 1):
            ids = [f"{project.name}-{at:02d}" for at in range(1, len(project.changes) + 1)]
            if name == project.name or name in ids:
                return _where(selection, level, number)
    for suite in REAL_SUITES:
        source = settings.rows[suite]
        # What has to be fetched, or cannot be read, has no answer for somebody who mistyped a name.
        if suite == selection.suite or not source or source.startswith("hub:"):
            continue
        with contextlib.suppress(LooperError):
            if any(name in (task.repo, task.instance_id) for task in _real_tasks(suite, settings)):
                return f'{suite} has it: tasks.suite = "{suite}", or --suite {suite}.'
    return ""


def _where(selection: TaskSelection, level: int, number: int) -> str:
    """How a repository of the embedded suite is selected, by its number within its level."""
    if selection.suite != "micro":
        return f'micro has it, at level {level}: tasks.suite = "micro", or --suite micro --level {level}.'
    if level != selection.level:
        return f"It is of level {level}: tasks.level = {level}, or --level {level}."
    if number > selection.repositories:
        return f"It is number {number} of those that are made, and tasks.repositories makes {selection.repositories}: raise it to {number}."
    return ""


def variant_tasks(
    selection: TaskSelection, source: Source, settings: Settings
) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """Tasks of the embedded suite as its repositories were before, or of others like them, and their mirrors."""
    return MicroSuite(
        settings.state / "suites", selection.level, selection.suite_seed, source.value, selection.repositories
    ).load()


def suites(settings: Settings, only: str | None = None) -> Iterator[tuple[str, tuple[Task, ...], str]]:
    """Name, tasks and state of every suite, or of one; the embedded one has a name for each level."""
    for suite in SUITES:
        if only not in (None, suite):
            continue
        if suite in ROWS_FROM and not settings.rows[suite]:
            yield suite, (), f"not configured: set {ROWS_FROM[suite]}"
            continue
        for level in (0, 1, 2) if suite == "micro" else (0,):
            tasks, _ = every_task(TaskSelection(suite=suite, level=level), settings)
            name = f"micro level {level}" if suite == "micro" else suite
            yield name, tasks, _real_state(tasks, settings) if suite in REAL_SUITES else "ready"


def _real_state(tasks: Sequence[Task], settings: Settings) -> str:
    present = mirrors_of(tasks, settings.mirrors)
    runnable = [task for task in tasks if not unserved(task)]
    ready = [task.repo for task in runnable if f"{task.suite}:{task.repo}" in present]
    none = "none; run looper bench fetch" if runnable else "none; no environment is known for any of them"
    return f"ready: {', '.join(dict.fromkeys(ready)) or none}"


def mirror(repo: str, tasks: Sequence[Task], settings: Settings) -> tuple[Path, list[Task]]:
    """A repository's mirror, cloned where it is not there, and the tasks whose base commit it lacks. Raises BadInput."""
    path = mirror_path(settings.mirrors, repo)
    if not path.is_dir():
        shared_folder(settings.mirrors)
        clone(repo, path)
    return path, missing_commits(path, tasks)


def base_trees(tasks: Sequence[Task], settings: Settings) -> BaseTrees:
    """Trees that tasks begin with, to be read."""
    return BaseTrees(mirrors_of(tasks, settings.mirrors), settings.state / "exports")


def pinned_environments(
    base_tree: Callable[[Task], Path], settings: Settings, say: Callable[[str], None]
) -> PinnedEnvironments:
    """Those of real tasks, built when they are asked for."""
    return PinnedEnvironments(settings.state / "environments", say, base_tree)


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

    def __init__(
        self,
        plan: Plan,
        sessions: Sessions,
        settings: Settings,
        waits: Callable[[str, float], None],
        say: Callable[[str], None],
        adapters: Callable[[str], Path] | None = None,
        beside: Callable[[], int] = lambda: 0,
    ) -> None:
        """`waits` is told of every pause for a model, while it lasts; `say` of weights that are read for their hash, of adapters that
        another process's server has, and of servers that others answer for; `adapters` knows where one lies, if not among those that were made
        here; `beside` how many attempts of other processes are under way at the server of this one's."""
        self._waits, self._say, self._digests = waits, say, FileDigests(settings.file_digests, say)
        self._adapters = adapters or adapter_store(settings).folder
        self._plan, self._sessions, self._settings = plan, sessions, settings
        self._made: dict[tuple[ModelSpec, str, int], ChatModel] = {}
        """By model, adapter, and the server that is asked first."""
        self._answering: dict[tuple[ModelSpec, str], Replicas] = {}
        """By model and adapter."""
        self._hosts: dict[tuple[ModelSpec, str], AdapterHost] = {}
        """By model and adapter."""
        self._flights: dict[tuple[str, str], RequestsInFlight] = {}
        """By server."""
        self._outages: dict[tuple[str, str], Outage] = {}
        """By all servers of a model."""
        self._beside, self._lock = beside, threading.RLock()

    def of(self, arm: Arm, task: Task, adapter: str = "", server: int = 0) -> ChatModel:
        """`adapter` is the id of one that `trainer` made; `server` says which of the model's is asked first, from 0."""
        if arm.model.backend == "gold":
            actions = gold_actions(self._sessions.effect(task, task.gold_patch))
            return ScriptedModel([render(action) for action in actions], "gold")
        spec, adapter = arm.model.model_copy(update={"adapter": ""}), adapter or arm.model.adapter
        key = spec, adapter, server % len(spec.addresses)
        with self._lock:
            if key not in self._made:
                self._made[key] = self._with_retries(*key)
            return self._made[key]

    def _with_retries(self, spec: ModelSpec, adapter: str, server: int) -> ChatModel:
        if not spec.reads:
            return answering(spec, "", self._plan.limits.context_tokens, self._digests)
        if (spec, adapter) not in self._answering:
            beside = self._beside if BACKENDS[spec.backend].address_after else lambda: 0
            servers = list(self._replicas(spec, adapter))
            self._answering[spec, adapter] = Replicas(servers, say=self._say, beside=beside)
        inner = self._answering[spec, adapter].beginning_with(server)
        outage = self._outages.setdefault(_place_of(spec, spec.base_url), Outage())
        return RetryingModel(inner, patience(self._settings), tell=self._waits, outage=outage)

    def _replicas(self, spec: ModelSpec, adapter: str) -> Iterator[Replica]:
        context, settings = self._plan.limits.context_tokens, self._settings
        if spec.shows_losses:
            yield Replica("", self._host(spec, adapter), self._flights_to(spec, ""))
            return
        carried = served_adapter(self._adapters(adapter), settings, self._say) if adapter else None
        key = settings.key_of(spec.backend)
        # Where some are on this machine and others are not, the weights of all cannot be read, and they must be seen to be one model.
        here = len(spec.addresses) == 1 or all(map(is_loopback, spec.addresses))
        for address in spec.addresses:
            one = spec.model_copy(update={"base_url": address})
            model = answering(one, key, context, self._digests, carried, reads_weights=here)
            yield Replica(address, model, self._flights_to(spec, address))

    def _flights_to(self, spec: ModelSpec, address: str) -> RequestsInFlight:
        return self._flights.setdefault(_place_of(spec, address), RequestsInFlight())

    def adapted(self, arm: Arm, adapter: str) -> AdapterHost:
        """The model behind `of`, for those that carry adapters. Raises BadInput for others."""
        return self._host(arm.model.model_copy(update={"adapter": ""}), adapter or arm.model.adapter)

    def _host(self, spec: ModelSpec, adapter: str) -> AdapterHost:
        with self._lock:
            if (spec, adapter) not in self._hosts:
                self._hosts[spec, adapter] = (
                    self._host(spec, "").with_adapter(self._adapters(adapter))
                    if adapter
                    else mlx_model(spec, self._settings, self._plan.limits.context_tokens, self._digests)
                )
            return self._hosts[spec, adapter]

    def trainer(self, arm: Arm) -> MlxTrainer:
        """Makes adapters for an arm's model. Raises BadInput where that is not an MLX model."""
        return trainer_of(arm.model, self._settings)

    def close(self) -> None:
        for model in (*self._made.values(), *self._hosts.values()):
            model.close()


def patience(settings: Settings) -> RetryPolicy:
    """With the servers of a run's models. What is waited for one that starts shortens nothing: neither an outage nor a rate limit."""
    usual, wait_s = RetryPolicy(), settings.server_wait_s or 0.0
    return replace(usual, deadline_s=max(usual.deadline_s, wait_s), unreached_s=wait_s)


def _place_of(spec: ModelSpec, address: str) -> tuple[str, str]:
    """Who answers: a model in MLX has a process of its own, other servers answer for all their models."""
    return spec.backend, spec.name if spec.shows_losses else address


def answering(
    spec: ModelSpec,
    key: str,
    context_tokens: int,
    digests: FileDigests | None = None,
    adapter: ServedAdapter | None = None,
    *,
    reads_weights: bool = True,
) -> ChatModel:
    """A model that some server has, without patience; with an adapter where its backend may carry one. Raises BadInput."""
    match spec.backend:
        case "noop":
            return ScriptedModel(["<done></done>"], "noop")
        case "expert":
            return ExpertModel(lambda told: render(next_action(told)), "1")
        case "scripted":
            return ScriptedModel(_script(Path(spec.name)))
        case "ollama":
            if adapter is not None:
                return AdaptedOllamaModel(
                    spec.name, adapter, base_url=spec.base_url, context_tokens=context_tokens
                )
            return OllamaModel(spec.name, base_url=spec.base_url, context_tokens=context_tokens)
        case "openai" | "vllm" as backend:
            model = OpenAICompatibleModel(
                spec.name,
                key,
                base_url=spec.base_url,
                context_tokens=context_tokens,
                backend=backend,
                digests=digests,
                reads_weights=reads_weights,
            )
            return model if adapter is None else model.with_adapter(adapter)
        case "anthropic":
            return AnthropicModel(spec.name, key, base_url=spec.base_url, context_tokens=context_tokens)
        case "gold" | "predictions" | "nano" | "mlx":
            raise AssertionError(f"{spec.backend} is no model that answers by itself")
        case _:
            assert_never(spec.backend)


def _script(path: Path) -> list[str]:
    """Replies from a text file, separated by lines that hold nothing but `---`."""
    if not path.exists():
        raise BadInput(f"There is no script {path} for the scripted model.")
    return named_text(path).split("\n---\n")


def trained_folder(spec: ModelSpec, settings: Settings) -> Path:
    """Where the weights lie of a model that can be trained here. Raises BadInput for others."""
    match spec.backend:
        case "mlx":
            fetched = settings.fetched.get((ContentKind.MODEL, spec.name))
            return fetched or named_folder(spec.name, settings.models)
        case "nano" if spec.name.endswith("bit"):
            return quantised_nano(settings.models, spec.name)
        case "nano":
            return nano_folder(spec.name)
        case _:
            raise BadInput(
                f"{spec.backend} models cannot be trained here. Use nano or mlx:FOLDER for plans that train."
            )


def taught(spec: ModelSpec, settings: Settings) -> Teaching | None:
    """What a model was taught here; None for one that was not. Raises BadInput where that cannot be read."""
    return teaching_of(named_folder(spec.name, settings.models)) if spec.backend == "mlx" else None


def mlx_model(
    spec: ModelSpec, settings: Settings, context_tokens: int, digests: FileDigests | None = None
) -> MlxModel:
    """Raises BadInput for models of other backends."""
    name = spec.name if spec.backend == "mlx" else f"nano {spec.name}".strip()
    digests = digests or FileDigests(settings.file_digests)
    folder = trained_folder(spec, settings)
    return MlxModel(folder, name=name, context_tokens=context_tokens, digests=digests)


def adapter_store(settings: Settings) -> AdapterStore:
    return AdapterStore(settings.adapters)


def weights_for(spec: ModelSpec, adapter: Callable[[str], Path]) -> ModelSpec | None:
    """The model in MLX whose weights a machine needs that works with another: that one itself, or what its adapter was trained on, which
    the model's server is compared with; None where it needs none. Raises BadInput where the adapter is damaged."""
    if spec.shows_losses:
        return spec
    return _trained_on(card_in(adapter(spec.adapter))) if spec.adapter else None


def model_is_here(spec: ModelSpec, settings: Settings) -> bool:
    """Whether the weights of a model for MLX are on this machine; nobody has to bring those of other models."""
    if spec.backend != "mlx":
        return True
    try:
        return (trained_folder(spec, settings) / "config.json").is_file()
    except BadInput:
        return False


def trainer_of(spec: ModelSpec, settings: Settings) -> MlxTrainer:
    """Makes adapters for a model. Raises BadInput where that cannot be trained here."""
    return MlxTrainer(trained_folder(spec, settings), settings.adapters)


def windows_of(
    spec: ModelSpec, settings: Settings, examples: Sequence[Example], training: TrainingSettings
) -> Iterator[Windows]:
    """Each example as a training by imitation reads it. Raises BadInput."""
    tokenizer = load_tokenizer(trained_folder(spec, settings))
    aside = validation_tasks(examples, training)
    for example in examples:
        pieces, too_long = window_examples(tokenizer, example, training.max_tokens)
        read = [supervised_spans(tokenizer, piece.turns) for piece in pieces]
        yield Windows(
            example=example,
            texts=tuple((text, tuple(spans)) for text, spans in read),
            too_long=too_long,
            kept_aside=example.instance_id in aside,
        )


def training_memory(spec: ModelSpec, settings: Settings, training: TrainingSettings) -> tuple[int, int]:
    """Bytes that a training takes at most, and bytes that are free. Raises BadInput."""
    return memory_bytes(trained_folder(spec, settings), training), free_bytes()


def export_adapter(wanted: str, out: Path, as_gguf: bool, settings: Settings) -> AdapterRecord:
    """Write an adapter in PEFT's layout into a folder, or as a file of GGUF. Raises BadInput."""
    kept = adapter_store(settings)
    card = kept.load(kept.named(wanted))
    if as_gguf:
        to_gguf(kept.folder(card.id), card, _configuration_of(card, settings), out)
    else:
        to_peft(kept.folder(card.id), card, out)
    return card


def register_adapter(
    wanted: str, base: str, name: str, url: str, settings: Settings
) -> tuple[AdapterRecord, str]:
    """Make a model of an Ollama server with an adapter, and how near it is to MLX's. Raises BadInput or ModelError."""
    kept = adapter_store(settings)
    card = kept.load(kept.named(wanted))
    config = _configuration_of(card, settings)
    with contextlib.closing(base_of(card, settings)) as model:
        return card, register(kept.folder(card.id), card, config, base, name, url, model)


def served_adapter(folder: Path, settings: Settings, say: Callable[[str], None]) -> ServedAdapter:
    """The adapter in a folder, for a server of another process. Raises BadInput where it is damaged, or no plain LoRA."""
    card = card_in(folder)
    must_be_plain_lora(card, "PEFT")
    digest = folder_digest(folder)

    def in_peft() -> Path:
        place = settings.state / "served_adapters" / digest[:16]
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as work:
                to_peft(folder, card, Path(work) / "made")
                with contextlib.suppress(OSError):  # Another process was faster.
                    (Path(work) / "made").rename(place)
        return place.resolve()

    def compared(base: NextTokens, adapted: NextTokens, served: str, otherwise: str, cached: str) -> Arrival:
        with contextlib.closing(base_of(card, settings)) as model:
            return arrived(base, adapted, model, folder, served=served, otherwise=otherwise, cached=cached)

    config = partial(_configuration_of, card, settings)
    return ServedAdapter(card, folder, digest, config, in_peft, compared, say)


def base_of(card: AdapterRecord, settings: Settings) -> MlxModel:
    """The model that an adapter was trained on. Raises BadInput or ModelMissing where that is not here."""
    return MlxModel(trained_folder(_trained_on(card), settings), name=card.base.name, context_tokens=512)


def _trained_on(card: AdapterRecord) -> ModelSpec:
    backend, _, size = card.base.name.partition(" ")
    return (
        ModelSpec(backend="nano", name=size)
        if backend == "nano"
        else ModelSpec(backend="mlx", name=card.base.name)
    )


def _configuration_of(card: AdapterRecord, settings: Settings) -> dict[str, Any]:
    """config.json of the model that an adapter was trained on. Raises BadInput where that is not here."""
    file = trained_folder(_trained_on(card), settings) / "config.json"
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(
            f"The adapter {card.id} was trained on {card.base.name}, and {file} cannot be read: {error}. Add that model again."
        ) from error
    return found


def similarities(plan: Plan) -> dict[str, Similarity]:
    """How memory is searched in a plan, by the name that its settings give it, where that is not by words."""
    return {
        name: OllamaEmbeddings(name.removeprefix("ollama:"))
        for name in plan.retrievals
        if name.startswith("ollama:")
    }


class Site:
    """Where the cells of one run run: sandbox, environments, and a folder of its own for workspaces."""

    def __init__(
        self,
        mirrors: dict[str, Path],
        settings: Settings,
        sandbox: str,
        say: Callable[[str], None],
        isolation: Isolation = Isolation.SHARED,
    ) -> None:
        """Raises SandboxUnavailable or BadInput."""
        self.sandbox = find_sandbox(sandbox)
        self._isolation = isolation
        if self.sandbox.owner is not None:
            shared_folder(settings.state)
        if not self.sandbox.loopback:
            say(f"{self.sandbox.name}: a test with a server on localhost fails here, whatever the change")
        self._settings = settings
        self._place = settings.workspaces / "read"
        self.sessions = GitSessions(
            mirrors,
            settings.state / "exports",
            self._place,
            self.sandbox,
            lambda task: self.environments.of(task),
        )
        """Trees to read; to be worked in once the site is occupied."""
        self.environments = EnvironmentsBySuite(
            HarnessEnvironment(settings.state / "environments"),
            ImageEnvironments(settings.state / "environments")
            if sandbox == f"container:{OWN_IMAGES}"
            else PinnedEnvironments(settings.state / "environments", say, self.sessions.base_tree),
        )

    def environments_of(self, tasks: Iterable[Task]) -> dict[str, str]:
        """The environment of each task by its id; commands can run the interpreter of each. Raises what makes them, and
        SandboxUnavailable."""
        found = {task.instance_id: self.environments.of(task) for task in tasks}
        for each in {each.id: each for each in found.values() if not each.image}.values():
            self._must_reach(each)
        return {name: each.id for name, each in found.items()}

    def _must_reach(self, environment: Environment) -> None:
        place = shared_folder(self._settings.workspaces)
        must_reach(self.sandbox, str(environment.python), environment.readable, place)

    def run_context(self, model_for: ModelFor, judged: VerdictCache, run_hash: str = "") -> RunContext:
        return RunContext(
            self.sessions,
            model_for,
            code_version(),
            run_hash,
            judged,
            rollout=self._roll_out,
            isolation=self._isolation,
        )

    def _roll_out(self, arm: Arm, assignment: Assignment) -> Rollout:
        """By the agent that is installed; by another version of it, in the sandbox. Raises BadInput for one that is not here."""
        if not arm.agent:
            return rollout(assignment)
        agents = self._settings.agents
        source = agents / arm.agent / "src" if agents else Path()
        if not (source / CHILD).is_file():
            raise BadInput(
                f"There is no version {arm.agent[:12]} of the agent's source for the arm {arm.name}, or it has no {CHILD}."
            )
        return self._guests.rollout(source, assignment)

    @cached_property
    def _guests(self) -> Guests:
        """Of a site that is occupied. Raises SandboxUnavailable or EnvironmentBroken."""
        own = own_environment()
        self._must_reach(own)
        return Guests(
            partial(LocalShell, sandbox=self.sandbox, environment=own), shared_folder(self._place / "guests")
        )

    @contextlib.contextmanager
    def occupied(self, locked: Path, stop: Stop | None = None) -> Iterator[threading.Event]:
        """The machine stays awake, and the event is set when somebody wants the run to end; `stop` is one that is already.

        `locked` is the folder whose lock this process holds: it has a place of its own for workspaces, and what lies there was left
        by a run that is no more.
        """
        self._place = sweep_workspaces(locked, self._settings)
        shared_folder(self._place)
        self.sessions = replace(self.sessions, place=self._place)
        try:
            with awake(), contextlib.nullcontext(stop) if stop else stoppable() as found:
                found.places.append(self._place)
                yield found
        finally:
            remove_tree(self._place)


def workspaces_of(locked: Path, settings: Settings) -> Path:
    """Where the run works whose process holds the lock of this folder."""
    return settings.workspaces / content_hash(str(locked.resolve()))[:16]


def process_folders(settings: Settings) -> Path:
    """Where processes that run cells of a run elsewhere have a folder to lock."""
    return settings.state / "processes"


def sweep_workspaces(locked: Path, settings: Settings) -> Path:
    """Remove what a run left there that is no more; this process holds its lock."""
    place = workspaces_of(locked, settings)
    end_left(place)
    # Beside it what was being removed by a process that was killed over it.
    remove_tree(place, *place.parent.glob(f"{place.name}.*"))
    return place


def threads(workers: int) -> Threads:
    """So many things at once in this process."""
    return Threads(workers)


def engine(workers: int, run_context: RunContext, stop: threading.Event) -> Engine:
    return LocalEngine(Threads(workers), lambda job, tell: run_cell(job, run_context, tell, stop.is_set))


@contextlib.contextmanager
def cluster_of(name: str) -> Iterator[RayCluster | None]:
    """The machines of an engine by its name; None for this process alone. Raises BadInput, MissingTool or InfrastructureError."""
    kind, _, address = name.partition(":")
    if kind == "local" and not address:
        yield None
        return
    if kind != "ray":
        raise BadInput(f"--engine {one_line(name)}: choose local, ray or ray:HOST:PORT.")
    with contextlib.closing(RayCluster(address)) as cluster:
        yield cluster


def cluster_engine(
    cluster: RayCluster,
    workers: int,
    worker: type[Worker],
    spec: RunSpec,
    run_context: RunContext,
    stop: threading.Event,
    say: Callable[[str], None],
    source: ContentSource,
    keep: Callable[[str, str, NodeState, str], None],
) -> Engine:
    """Where cells run, if not here."""

    def here(job: CellJob, tell: Callable[[Event], None]) -> None:
        run_cell(job, run_context, tell, stop.is_set)

    def give(wanted: bytes) -> bytes:
        return source.answer(Wanted.from_json(wanted))

    return RayEngine(
        cluster, workers, worker, spec.to_json(), here, stop, say, give=give, keep=keep, controls=True
    )


def content_source(
    plan: Plan, tasks: Sequence[Task], mirrors: Mapping[str, Path], settings: Settings
) -> ContentSource:
    """What nodes may ask the process of a run for: what its plan and its tasks need, and adapters that were made here."""

    def place_of(kind: ContentKind, name: str) -> Path | None:
        suite = plan.selection.suite
        match kind:
            case ContentKind.ADAPTER:
                kept = adapter_store(settings)
                return kept.folder(name) if name in kept.ids() else None
            case ContentKind.MODEL:
                kept = adapter_store(settings)
                needed = filter(None, (weights_for(spec, kept.folder) for spec in plan.model_specs))
                mine = (spec for spec in needed if (spec.backend, spec.name) == ("mlx", name))
                return next((trained_folder(spec, settings) for spec in mine), None)
            case ContentKind.ROWS:
                rows = settings.rows.get(suite, "") if name == suite else ""
                return Path(rows).expanduser() if rows and not rows.startswith("hub:") else None
            case ContentKind.VALIDATIONS:
                return settings.validations / "validations.jsonl" if name == suite else None
            case ContentKind.TREES:
                commits = [task.base_commit for task in tasks if f"{task.suite}:{task.repo}" == name]
                return (
                    packed_trees(mirrors[name], commits, settings.state / "packs")
                    if commits and name in mirrors
                    else None
                )
            case _:
                assert_never(kind)

    return ContentSource(place_of, FileDigests(settings.file_digests))


def content_cache(
    settings: Settings,
    ask: Callable[[Wanted], bytes],
    stopped: Callable[[], bool],
    say: Callable[[str], None],
) -> ContentCache:
    """What a node fetches from the process of a run."""
    digests = FileDigests(settings.file_digests, say)
    return ContentCache(settings.state / "fetched", ask, FREE_BYTES, digests, stopped, say)


def judged_before(plan: Plan, folder: Path, settings: Settings, *, fresh: bool = False) -> VerdictCache:
    """Verdicts of all runs on real tasks, whose tests take minutes; those of the embedded suite are faster judged than kept, and
    a fresh run judges anew."""
    if plan.selection.suite not in REAL_SUITES or fresh:
        return ProcessVerdicts()
    return StoredVerdicts(settings.state / "verdicts", folder.name)


@contextlib.contextmanager
def machine_of(plan: Plan, settings: Settings, *, share: bool) -> Iterator[Callable[[], float | None]]:
    """This machine for one run, which gives the joules that it took so far. Raises AcceleratorBusy where another large model
    runs on it; the embedded one is too small to be in anybody's way."""
    with contextlib.ExitStack() as stack:
        if not share and any(model.fills_a_machine for model in plan.model_specs):
            stack.enter_context(inference_lock(settings.state))
        yield stack.enter_context(metered()).joules


def examine(
    sandbox: str, settings: Settings, servers: Sequence[str] = (), context_tokens: int | None = None
) -> list[doctor.Check]:
    """Everything that a run needs of this machine, as it is found. `servers` and `context_tokens` as for `doctor.examine`."""
    return doctor.examine(
        sandbox,
        state=settings.state,
        runs=settings.runs,
        workspaces=settings.workspaces,
        needed_bytes=FREE_BYTES,
        swe_data=settings.rows["swe-bench-cl"],
        mirrors=settings.mirrors,
        models=settings.models,
        servers=servers,
        context_tokens=context_tokens,
    )


def sources(root: Path) -> Sources:
    """A git repository by its objects. Raises BadInput where there is none."""
    return GitSources(root)


def begin_repository(root: Path, files: Mapping[str, bytes]) -> None:
    """A new repository with these files, where there is none yet."""
    if not root.exists():
        new_repository(root, files)


def versions(root: Path) -> Versions:
    """Where versions of an evolving program lie."""
    return VersionFolders(root)


def with_roles() -> str:
    """The forms of models that write programs."""
    return ", ".join(f"{name}:NAME" for name, traits in BACKENDS.items() if traits.has_roles and traits.reads)


def role_model(
    spec: ModelSpec, key: str, context_tokens: int, deadline_s: float, tell: Callable[[str, float], None]
) -> ChatModel:
    """A model for one role, asked again after faults that can pass, and `tell` hears of each wait. Raises BadInput."""
    if not BACKENDS[spec.backend].has_roles:
        raise BadInput(
            f"{spec.backend} writes no programs. Use a model of another kind for the roles of evolve: {with_roles()}."
        )
    if len(spec.addresses) > 1:
        raise BadInput(f"A role of evolve is one model on one server: name one address of {spec.name}.")
    model = answering(spec, key, context_tokens)
    inner = Replicas([Replica(spec.base_url, model, RequestsInFlight())]).beginning_with(0)
    return RetryingModel(inner, RetryPolicy(deadline_s=deadline_s), tell=tell)


def given_environment(python: Path, variables: Mapping[str, str]) -> Environment:
    """An interpreter that somebody else has made, read-only in the sandbox. Raises BadInput where it does not run."""
    found = answer_of(
        [
            str(python),
            "-c",
            "import sys; print(sys.version, sys.prefix, sys.base_prefix, sep='\\0')",
        ]
    )
    parts = found.said.rstrip("\n").split("\0")
    if len(parts) != 3:
        raise BadInput(
            f"{python} is no Python that runs: {found.why or 'what it answers is no version'}. Name another one with --set python=PATH."
        )
    version, prefix, base = parts
    places = [
        Path(place).resolve() for place in (prefix, base) if not Path(place).resolve().is_relative_to("/usr")
    ]
    identity = content_hash(version, prefix, repr(sorted(variables.items())))[:16]
    # Not resolved: what makes a virtual environment one is the link.
    return Environment(identity, python.absolute(), tuple(dict.fromkeys(places)), dict(variables))


@contextlib.contextmanager
def repository_site(
    name: str, repository: Path, folder: Path, sandbox: str, environment: Environment, settings: Settings
) -> Iterator[Sessions]:
    """Trees of one repository, in the sandbox that its candidates run in. Raises SandboxUnavailable."""
    place = settings.workspaces / secrets.token_hex(8)
    mirrors = {name: GitSources(repository).records}
    try:
        yield GitSessions(
            mirrors, folder / "exports", place, sandbox_named(sandbox), lambda task: environment
        )
    finally:
        remove_tree(place)


@contextlib.contextmanager
def copied(sandbox: Sandbox, environment: Environment, place: Path, folder: Path) -> Iterator[Shell]:
    """A copy of a folder, below a place, that commands may write to. Raises WorkspaceError."""
    root = shared_folder(place) / f"copy-{secrets.token_hex(8)}"
    try:
        copy_tree(folder, root, sandbox.owner)
        yield LocalShell(root, sandbox, environment)
    finally:
        for left in (
            root,
            root.with_name(f"{root.name}.tmp"),
        ):  # What commands keep for a while, where the sandbox has no place for it.
            remove_tree(left)


@contextlib.contextmanager
def stoppable(said: str = "", *, heeded: bool = True) -> Iterator[Stop]:
    """An event that is set when somebody wants this process to end, and is told so; a second signal ends it at once."""
    stop = Stop(said or interrupted(), heeded=heeded)
    with interruptible(stop):
        yield stop


@cache
def own_environment() -> Environment:
    """The interpreter that runs this, with everything that Looper needs."""
    return given_environment(Path(sys.executable), {})


@cache
def sandbox_named(name: str) -> Sandbox:
    """Proven to hold, once in a process. Raises SandboxUnavailable or BadInput."""
    return find_sandbox(name)


def harness_environment(settings: Settings) -> Environment:
    """The harness's own interpreter with pytest and nothing else."""
    return HarnessEnvironment(settings.state / "environments").made()
