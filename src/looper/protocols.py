"""What the core asks of the world, in terms of what the core needs; and what a session is made of.

The core asks for a model or a session by what it does, and `edges` has the parts that do it; `cli/wiring` alone puts
them together. Each protocol says what its errors mean, for that decides whose fault something is.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

from looper.records.job import CellJob, Event
from looper.records.plan import AS_COMPUTED, Sampling
from looper.records.task import Task
from looper.records.training import AdapterRecord, Example, Measured, TrainingEvent, TrainingRequest
from looper.records.trajectory import ModelIdentity, Reply
from looper.records.verdict import Verdict

Message = tuple[str, str]
"""Role (`system`, `user`, `assistant`) and text."""


@dataclass(frozen=True)
class ChatRequest:
    """One turn to answer."""

    conversation: str
    """Stable through one rollout, so that a backend can keep its cache; unique among running rollouts."""
    messages: tuple[Message, ...]
    max_output_tokens: int
    context_tokens: int
    temperature: float
    seed: int
    """0 to 2**32 - 1; a server that takes fewer is sent a part of it."""
    timeout_s: float
    """For the whole reply."""
    sampling: Sampling = AS_COMPUTED
    """How else the next token is drawn."""


class ChatModel(Protocol):
    """Something that answers. Safe to call from several threads at once."""

    def identity(self) -> ModelIdentity:
        """Which model this is; asks the backend, so that another model in its place is seen. Raises ModelError."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        """Length of the prompt made of these messages, by the model's own tokenizer; None where it has none."""
        ...

    def reply(self, request: ChatRequest) -> Reply:
        """One complete reply. Raises ModelError in place of anything less."""
        ...

    def forget(self, conversation: str) -> None:
        """The rollout is over; what was kept for it may go."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Windowed(Protocol):
    """A model whose server may say how long a prompt and its reply can be."""

    def window_tokens(self) -> int | None:
        """Tokens; None where the server does not say. Raises ModelError."""
        ...


@runtime_checkable
class CarriesThere(Protocol):
    """A model that may carry an adapter on a server of another process."""

    def arrival(self) -> str:
        """How the adapter was seen to be in force when `identity` was asked, in words with figures; empty where there is none."""
        ...


class AdapterHost(ChatModel, Protocol):
    """A model that carries adapters, and shows what it computes with each, so that a changed one can be told from an unchanged one."""

    def with_adapter(self, folder: Path) -> "AdapterHost":
        """The same model with the adapter of a folder. Raises ModelMissing where it holds none."""
        ...

    def first_logits(self, messages: Sequence[Message]) -> list[float]:
        """Logits of the first token of a reply, for fixed tokens of the vocabulary, along the path of every reply."""
        ...

    def losses(self, examples: Sequence[Example]) -> list[float]:
        """What the model makes of conversations: nats per supervised token of each."""
        ...

    def loss_and_kl(self, examples: Sequence[Example]) -> list[tuple[float, float]]:
        """Of each: the loss, and KL(model ‖ model without its adapter) over the vocabulary, nats per supervised token."""
        ...


class Trainer(Protocol):
    """Makes adapters for one base model. Safe to call from several threads."""

    def train(self, request: TrainingRequest, tell: Callable[[TrainingEvent], None]) -> AdapterRecord:
        """The adapter of a request, made now or earlier. Raises BadInput or TrainingFailed."""
        ...

    def measure(self, adapter_id: str, examples: Sequence[Example]) -> tuple[Measured, ...]:
        """What the base with an adapter, or with none where the id is empty, makes of each example."""
        ...

    def has(self, adapter_id: str) -> bool:
        """Whether there is such an adapter, whole or damaged."""
        ...

    def load(self, adapter_id: str) -> AdapterRecord:
        """The card of an adapter that is whole. Raises BadInput."""
        ...


@dataclass(frozen=True)
class Command:
    """A command to run inside a sandbox."""

    argv: tuple[str, ...]
    root: Path
    """Writable working folder; the command sees it under the same path."""
    timeout_s: float
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to a minimal environment; nothing of the harness's own environment passes."""
    readable: tuple[Path, ...] = ()
    """Visible beside the system's own folders, read-only."""
    writable: tuple[Path, ...] = ()
    """Writable beside `root`."""
    output_cap_bytes: int = 64 * 1024
    """Of stdout and stderr together: half of it from the head, half from the tail."""
    memory_mb: int = 1024
    """Address space of one process."""
    file_mb: int = 256
    """Largest file that can be written."""
    image: str = ""
    """Of a container, where the command needs one of its own."""
    tree_mb: int = 1024
    """Largest loss of free space while the command runs; beyond it the command is killed. So much must be free before it begins."""
    over: threading.Event | None = None
    """Set when nobody wants anything of the command any more: it is ended as one whose time is up."""


@dataclass(frozen=True)
class CommandResult:
    """What a command did. Output holds head and tail; `omitted_bytes` stood between them."""

    exit_code: int | None
    """None where it was killed for the reason in `killed_by`."""
    head: bytes
    tail: bytes
    omitted_bytes: int
    killed_by: Literal["", "time", "disk", "memory"]
    """The limit that ended it; a signal of its own making is an exit code."""
    wall_s: float

    def text(self) -> str:
        """Output as text; bytes that are no UTF-8 show as escapes, so nothing is lost and nothing raises."""
        head = self.head.decode("utf-8", "backslashreplace")
        if not self.tail:
            return head
        cut = f"\n[... {self.omitted_bytes} bytes left out ...]\n" if self.omitted_bytes else ""
        return head + cut + self.tail.decode("utf-8", "backslashreplace")


class Sandbox(Protocol):
    """Runs commands that can write below their root only, see no network and leave no process behind."""

    name: str
    owner: int | None
    """User id that commands run as, where it is not the harness's own; files made for them must belong to it."""
    loopback: bool
    """Whether a server and a client inside meet on localhost, and nobody else."""

    def run(self, command: Command) -> CommandResult:
        """Raises SandboxUnavailable where the sandbox itself failed before the command began, and for nothing that a command
        does; and DiskNearlyFull where fewer than its `tree_mb` are free before, or others leave it no room. One that cannot be handed to a program, because it is too long or holds NUL, ends with exit code 126."""
        ...


NOTHING = "000000"
"""The mode of a path where there is nothing."""


@dataclass(frozen=True)
class PathChange:
    """One path that differs between two trees."""

    path: str
    before: str
    """Mode in git's digits, NOTHING where there was nothing; what git cannot hold by its kind."""
    after: str


@dataclass(frozen=True)
class TreeEntry:
    """A file or a link of a tree."""

    mode: str
    """In git's digits: 100644, 100755 or 120000."""
    content: bytes
    """Of a link its target."""


Effect = Mapping[str, tuple[TreeEntry | None, TreeEntry | None]]
"""Path → what a patch finds there and what it leaves there; None for nothing."""


class Shell(Protocol):
    """A folder on the machine where commands run in a sandbox, with the interpreter and packages of one environment."""

    def exec(
        self,
        command: str | tuple[str, ...],
        timeout_s: float,
        *,
        memory_mb: int = 2048,
        output_cap_bytes: int = 64 << 10,
        env: Mapping[str, str] = {},
        readable: tuple[Path, ...] = (),
        writable: tuple[Path, ...] = (),
        over: threading.Event | None = None,
    ) -> CommandResult:
        """Run a script of bash, or Python with these arguments, in the folder. Limits, places and `over` are those of `Command`;
        `env` stands above the environment's variables. A script finds what is installed on the machine too, Python's PATH is the
        environment's and the system's alone. Raises what `Sandbox.run` raises."""
        ...


class Session(Shell, Protocol):
    """The tree of one rollout or one verification, and its commands. Paths are relative to its root, with forward slashes."""

    clean_state: str
    """Hash of the tree as it was handed out."""

    def tree_hash(self) -> str:
        """Of the tree as it is now. Raises TreeUnreadable."""
        ...

    def read(self, path: str) -> bytes:
        """Raises FileRefused for what is no regular file inside the tree, or too large to show."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Make or replace a file, with the folders above it. Raises FileRefused."""
        ...

    def patch(self) -> tuple[str, tuple[str, ...]]:
        """The change against the base tree as a git patch, and entries that a patch cannot hold. Raises TreeUnreadable."""
        ...

    def close(self) -> None: ...


class JudgedSession(Session, Protocol):
    """One in which a patch is judged, and nothing else ever worked."""

    root: Path
    """As commands name the tree."""
    variables: Mapping[str, str]
    """Of the environment, as commands in this tree have them."""

    def apply(self, patch: str, *options: str) -> None:
        """By `git apply` with these options. Raises BadPatch where it does not apply."""
        ...

    def apply_by_gnu_patch(self, patch: str) -> bool:
        """Whether GNU patch takes it, with fuzz. Raises BadPatch where it meets a limit over it, VerifierBroken where the program
        is missing, RunKilled where something else than its limits killed it."""
        ...

    def changes(self) -> tuple[PathChange, ...]:
        """Every path that differs from the base tree, caches and byte code included, git's own records not."""
        ...

    def base_paths(self) -> Collection[str]:
        """Files and links of the base tree."""
        ...

    def exists(self, path: str) -> bool:
        """Whether anything stands at a path."""
        ...

    def put_back(self, paths: Iterable[str]) -> None:
        """Make these paths what they are in the base tree: content, mode, link, or not there, with the folders they left."""
        ...

    def place(self, path: str, entry: TreeEntry | None) -> None:
        """Put an entry, or nothing, at a path, whatever stands there or in the way. No link is followed."""
        ...

    def results(self) -> Path:
        """A new folder beside the tree that commands may write to, removed with it."""
        ...

    def provide(self, files: Mapping[str, bytes]) -> Path:
        """A folder with these files beside all trees, for commands to read: what is installed may lie where they cannot."""
        ...


class Sessions(Protocol):
    """Makes fresh trees, each in the sandbox and with the environment of its task."""

    @property
    def sandbox_name(self) -> str: ...

    def environment_id(self, task: Task) -> str:
        """Content hash of interpreter and packages. Raises EnvironmentBroken, with what to install."""
        ...

    def open(self, task: Task, purpose: str) -> JudgedSession:
        """A one-commit repository of the task's base tree, proven clean; the purpose is a word of its folder's name. Raises
        WorkspaceError and EnvironmentBroken."""
        ...

    def base_file(self, task: Task, path: str) -> bytes | None:
        """Content at the base commit; None where there is no such file."""
        ...

    def effect(self, task: Task, patch: str) -> Effect:
        """What a patch does to the base tree, by git's own account. Raises BadPatch where it does not apply."""
        ...


@dataclass(frozen=True)
class Environment:
    """Interpreter and packages of a task, shared and read-only."""

    id: str
    """Content hash of interpreter version and packages."""
    python: Path
    readable: tuple[Path, ...]
    """What must be visible for the interpreter to work."""
    variables: Mapping[str, str]
    """Environment variables that the repository needs; `{root}` in a value stands for the working tree."""
    image: str = ""
    """Container image that holds interpreter and packages; empty for those of this machine."""


class Environments(Protocol):
    """Knows the environment of a task."""

    def of(self, task: Task) -> Environment:
        """Raises EnvironmentBroken, with what to install."""
        ...


class VerdictCache(Protocol):
    """Verdicts by what decides them. Safe to call from several threads."""

    def get(self, key: str) -> Verdict | None: ...

    def put(self, key: str, verdict: Verdict) -> None: ...


class Sources(Protocol):
    """The repository whose source evolves. Nothing here looks at, or touches, the tree that a person works in."""

    def commit_of(self, ref: str) -> str:
        """Raises BadInput where there is none."""
        ...

    def at(self, ref: str) -> str:
        """The commit that a full ref names; empty where it is not there."""
        ...

    def tree_of(self, commit: str) -> str: ...

    def file(self, commit: str, path: str) -> bytes | None: ...

    def changes(self, base: str, candidate: str) -> list[PathChange]: ...

    def listing(self, commit: str) -> dict[str, str]:
        """Path → mode and object of every entry of a commit's tree."""
        ...

    def with_files(self, base: str, files: Mapping[str, bytes | None], message: str) -> str:
        """A commit on top of `base` with these files written, or removed where there is no content."""
        ...

    def with_patch(self, base: str, patch: str, message: str) -> str:
        """A commit on top of `base` with a git patch applied. Raises GitRefused where it does not apply."""
        ...

    def diff(self, base: str, candidate: str) -> str:
        """What leads from one commit to the other, as a git patch."""
        ...

    def uncommitted(self, paths: Sequence[str]) -> tuple[str, ...]:
        """What of these paths is not as it was committed, in the first working tree where that is so."""
        ...

    def checked_out(self, ref: str) -> Path | None:
        """A working tree in which a branch is checked out: moving it would make that tree look changed."""
        ...

    def merged(self, base: str, candidate: str) -> str:
        """The tree of both together. Raises MergeConflict, naming the files."""
        ...

    def merge_commit(self, tree: str, base: str, candidate: str, message: str) -> str: ...

    def move(self, ref: str, commit: str, expected: str) -> None:
        """Set a ref, if it still is what was expected, empty for not there. Raises RefMoved."""
        ...

    def export(self, tree: str, folder: Path) -> None:
        """Write a tree as files; the folder is whole or not there."""
        ...


class Versions(Protocol):
    """Whole trees by their hash, and which of them works. At every moment exactly one valid version is active."""

    def folder(self, version: str) -> Path: ...

    def active(self) -> str:
        """Empty before the first."""
        ...

    def activate(self, version: str) -> None:
        """Raises BadInput for one that is not there."""
        ...


Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """This process at work on several things at once."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results as they come, in any order. An exception of `work` stops the rest and is raised here."""
        ...


class Engine(Protocol):
    """Where cells run. It writes nothing and counts nothing: who asks it does both."""

    def run(self, lanes: Iterable[Iterable[CellJob]], record: Callable[[Event], None]) -> None:
        """Make the attempts of all lanes. `record` takes each event and returns when that is durable; until then its attempt goes no
        further. A lane is asked for its next job when the verdict on the one before is. Both are called by any thread.

        An exception of a lane, of `record`, or of an attempt that no other could survive, stops the rest and is raised here.
        """
        ...
