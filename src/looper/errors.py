"""The error tree: every error of Looper's own names the cause and the fix.

Where an error belongs decides what becomes of a cell: what is of the world is tried again and enters no rate, what is of the agent
is an observation or a verdict, what is of the input ends the command in one line. The exit code is a property of the class.
"""

import difflib
import errno
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `looper` command."""

    OK = 0
    FAILED = 1
    """Something went wrong that is not one of the rows below."""
    USAGE = 2
    """The input cannot be used: an unknown name, a malformed file, a missing tool."""
    INFRASTRUCTURE = 69
    """The outside world failed (model server, disk, sandbox); what was recorded is intact."""
    REFUSED = 3
    """A candidate was judged, and is not better, or was rolled back; nothing broke."""
    LIMIT = 4
    """A budget, a number of generations or alpha is used up."""
    PLATEAU = 5
    """Nothing became better for as long as was said beforehand."""
    BUSY = 75
    """Another process holds the run folder or the accelerator."""
    INTERRUPTED = 130
    """Stopped by a signal; the same command goes on where it stopped."""


NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What Python's own parser raises for a text of somebody else: nesting alone ends it as surely as a wrong sign does."""

LISTED = 40
"""Names that a message lists; it counts the others."""
MESSAGE_CHARACTERS = 500
"""Of an error, in a record: whole files can stand in a message."""
SAID_CHARACTERS = 300
"""Of somebody else's words, in a message of ours."""


class LooperError(Exception):
    """Base of all errors of Looper: one readable line that names the cause and the fix."""

    exit_code: ExitCode = ExitCode.FAILED


class Cancelled(LooperError):
    """Somebody ended the command. Without a message of its own the door says what was kept and what goes on."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


GO_ON = (
    *(("run",), ("train",), ("questions", "--rate"), ("model", "teach")),
    *(("bench", name) for name in ("fetch", "prepare", "validate", "verify")),
    ("node", "prepare"),
    *(("evolve", name) for name in ("run", "spawn", "verify", "promote", "rollback", "regenerate")),
)
"""Words of the commands that keep what they have done so far and, given again, go on from there. All others begin anew."""


def interrupted() -> str:
    """What a person is told who ended this program: where it goes on with what was kept, that, and the command; never with --fresh,
    which would not go on."""
    words = [word for word in sys.argv[1:] if word != "--fresh"]
    command = shlex.join(["looper", *words])
    if any(words[:1] == [first] and {*rest} <= {*words} for first, *rest in GO_ON):
        return f"Interrupted. What was recorded is kept. Go on with: {command}"
    return f"Interrupted. Begin again with: {command}"


_COMMAND = re.compile(r"(?<![\w./-])(?<!-m )looper (?=[a-z]|--)")
"""How every text names this program, before a command or an option."""


def as_called(text: str, *, here: bool = True) -> str:
    """A text to be printed, with this program's commands as they can be typed in this folder, or anywhere. Records and pages that are
    kept have the plain `looper`."""
    called = called_as(here=here)
    return text if called == "looper" else _COMMAND.sub(lambda _: f"{called} ", text)


def called_as(*, here: bool = True) -> str:
    """How this program was called, as a shell takes it: `.venv/bin/looper`, `python -m looper`; `looper` where that finds it. A path
    is good in this folder, or anywhere."""
    path = _from_here if here else os.path.abspath
    if sys.orig_argv[1:3] == ["-m", "looper"]:
        python = sys.orig_argv[0]
        return shlex.join([path(python) if os.path.dirname(python) else python, "-m", "looper"])
    script = sys.argv[0]
    if os.path.basename(script) != "looper":
        return "looper"
    on_path = shutil.which("looper")
    if on_path is not None and os.path.realpath(on_path) == os.path.realpath(script):
        return "looper"
    return shlex.quote(path(script))


def pip_install(*packages: str, extra: str = "") -> str:
    """The command that installs packages, and what an extra of Looper needs, where this program runs: with its own interpreter, and
    by their own names, since an extra of `looper` would be looked for where Looper did not come from."""
    from importlib.metadata import PackageNotFoundError, requires
    from importlib.util import find_spec

    wanted = [*packages]
    if extra:
        try:
            needs = [each.partition(";") for each in requires("looper") or ()]
        except PackageNotFoundError:
            needs = []
        named = [name.strip() for name, _, when in needs if when.strip() == f"extra == '{extra}'"]
        # Of a source tree that was never installed. Each extra has the name of its first package.
        wanted += named or [extra]
    pip = ["pip"] if find_spec("pip") else ["uv", "pip"]
    return shlex.join([_from_here(sys.executable), "-m", *pip, "install", *wanted])


def mlx_install() -> str:
    """The command that installs what the embedded model runs on."""
    return pip_install("mlx-lm>=0.32,<0.33", *(["mlx[cpu]"] if sys.platform == "linux" else []))


def _from_here(program: str) -> str:
    """A program's path, relative where it lies below the current folder."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return program
    below = os.path.join(here, "")
    if not program.startswith(below):
        return program
    path = program.removeprefix(below)
    return path if os.sep in path else os.path.join(".", path)


class BudgetSpent(LooperError):
    """A call does not fit what is left of a budget; it was not made."""

    exit_code = ExitCode.LIMIT


class NotAsRecorded(LooperError):
    """Records, or what was written from them, do not say what they said."""


class GatesUnfit(LooperError):
    """Candidates whose end is known ended otherwise: what would be judged now would be judged wrongly."""


class BadInput(LooperError):
    """What a person wrote or named cannot be used."""

    exit_code = ExitCode.USAGE


class TooLittle(BadInput):
    """An arm has too little, or nothing, of what it learns from, and would have no more of it again: `value` of `least`, both None where
    nothing is counted. `said` is the finding alone, without what to do."""

    def __init__(
        self, message: str, *, said: str = "", value: float | None = None, least: float | None = None
    ) -> None:
        super().__init__(message)
        self.said, self.value, self.least = said or message, value, least


class MissingTool(LooperError):
    """A program or package that is needed now is not there."""

    exit_code = ExitCode.USAGE


class InfrastructureError(LooperError):
    """The outside world failed; an attempt that ends so has no verdict."""

    exit_code = ExitCode.INFRASTRUCTURE


class SandboxUnavailable(InfrastructureError):
    """No sandbox works here, or the one that started stopped working."""


class SandboxUntried(SandboxUnavailable):
    """The machine lacked something while a sandbox was tried, which says nothing of the sandbox: no other may be taken instead."""


class WorkspaceError(InfrastructureError):
    """A workspace could not be made, or is not what it must be."""


class GitRefused(WorkspaceError):
    """Git itself says no to what it was asked: it was not ended from outside, and the machine lacked nothing."""


class DirtyWorkspace(WorkspaceError):
    """A workspace that should equal its base tree does not."""


class EnvironmentBroken(InfrastructureError):
    """The interpreter or the packages that a task needs are not there."""


class VerifierBroken(InfrastructureError):
    """The trusted runner itself did not start or finish."""


class RunKilled(VerifierBroken):
    """A test run was ended by SIGKILL, and not for a limit of its own: the machine ran out of memory, or somebody ended it."""


class TaskBroken(VerifierBroken):
    """What a task's own rows say cannot be carried out, however often and wherever it is tried."""

    exit_code = ExitCode.USAGE


class DiskNearlyFull(InfrastructureError):
    """Too little free space to begin another attempt, or to go on with one."""


class JournalError(InfrastructureError):
    """A record could not be written durably, or a run folder is damaged."""


class WorkerLost(InfrastructureError):
    """The process that made an attempt on another machine ended, or that machine did."""


class TrainingFailed(InfrastructureError):
    """A training broke, or reported what cannot be believed; no adapter came of it."""


class TreatmentMissing(InfrastructureError):
    """What an arm should work with is shown not to have reached its model."""


class MemorySilent(TreatmentMissing):
    """An arm's memory has nothing to say to its tasks, and would have nothing again. `said` has, of each such arm, to how many of how many
    tasks it has; `least` is the share that is wanted."""

    def __init__(self, message: str, said: Mapping[str, tuple[int, int]], least: float) -> None:
        super().__init__(message)
        self.said, self.least = said, least


class RunBusy(LooperError):
    """Another process writes to this run folder."""

    exit_code = ExitCode.BUSY


class AcceleratorBusy(LooperError):
    """Another process runs inference on this machine."""

    exit_code = ExitCode.BUSY


class Drift(BadInput):
    """A run folder belongs to another plan, code, data or model than the one asked for."""


class ModelError(InfrastructureError):
    """A model server did not give a complete reply.

    `retryable` says whether asking the same again can help; `retry_after_s` is what the server asked for; `message_if_others_answered` is to be
    said instead where a refusal that may be of every request turns out to be of one conversation.
    """

    retryable = True

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, message_if_others_answered: str = ""
    ) -> None:
        super().__init__(message)
        self.retry_after_s, self.message_if_others_answered = retry_after_s, message_if_others_answered


class ModelUnreachable(ModelError):
    """The connection was refused, reset or could not be made."""


class ModelTimeout(ModelError):
    """No first byte, or no next byte, within the time allowed."""


class ModelReplyBroken(ModelError):
    """The reply stopped without its end mark, or is not what the protocol says."""


class ModelOverloaded(ModelError):
    """The server asked to come back later (429, 503, 529)."""


class ModelServerFault(ModelError):
    """The server reported a fault of its own (5xx, an error line in the stream, a reply that it gave up)."""


class ReplyLate(ModelTimeout):
    """The reply was not over when the time of its request was: the rollout's time is. `silent` where no word of it had come."""

    retryable = False
    silent = False


class ContextOverflow(ModelError):
    """The server refuses a prompt, or ended its reply, because it does not fit its window."""

    retryable = False


class ReplyWithheld(ModelError):
    """The model or a filter of its server refused to say the reply, or the rest of it."""

    retryable = False


class RequestRefused(ModelError):
    """The server refuses what this very conversation has become; others it may answer."""

    retryable = False


class ModelFatal(ModelError):
    """Neither asking again nor another task can help: the run must stop rather than burn its tasks."""

    retryable = False


class ModelMissing(ModelFatal):
    """The model is not there, or another one answers in its place."""

    exit_code = ExitCode.USAGE


class ModelDenied(ModelFatal):
    """The server does not let this key in."""


class ModelUnpaid(ModelFatal):
    """There is no credit left, or a spending limit is reached."""


class ModelUnfit(ModelFatal):
    """The model, or its server, cannot take what every request of a run has: roles, parameters, length."""


class PromptCut(ModelFatal):
    """The server read less than it was given, and did not say so."""


class BadPatch(LooperError):
    """A patch does not apply to the tree that it is meant for."""


class MergeConflict(LooperError):
    """Two changes of the same lines; nothing was written."""


class RefMoved(LooperError):
    """A branch or tag is not where it was when something was decided about it."""

    exit_code = ExitCode.BUSY


class FileRefused(LooperError):
    """A file tool was asked for something that it must not or cannot touch; the agent is told."""


class TreeUnreadable(LooperError):
    """A tree that was worked in is too large to be read or compared."""


EXHAUSTED = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
)
"""What the machine itself runs out of, anywhere; nothing that was recorded is touched by it."""

_SHAPES = frozenset(
    {
        *(
            errno.ENAMETOOLONG,
            errno.ELOOP,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EEXIST,
            errno.ENOTEMPTY,
            errno.EACCES,
        ),
        *(
            errno.EPERM,
            errno.EINVAL,
            errno.EILSEQ,
            errno.E2BIG,
            errno.EFBIG,
            errno.ENXIO,
            errno.ENODEV,
            errno.EBUSY,
        ),
        *(errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ETXTBSY),
    }
)
"""What the system says of the shape of a path, a file or an argument. A full disk, want of descriptors or memory, a broken device, and
what is not there any more are not among them."""


def is_of_what_was_made(error: BaseException) -> bool:
    """Whether an error that was raised where a reply, a path, a tree or a patch is handled says something of that thing: whoever made it
    bears it. Any other is the world's, or a fault of Looper's own."""
    match error:
        case BaseExceptionGroup():
            return all(map(is_of_what_was_made, error.exceptions))
        case LooperError():
            return isinstance(error, FileRefused | BadPatch | TreeUnreadable)
        case OSError():
            return error.errno in _SHAPES
        case _:
            return isinstance(error, ValueError | ArithmeticError | MemoryError | RecursionError | re.error)


def ends_everything(error: BaseException) -> bool:
    """Whether an error that ended one of many tasks is the end of all: no other could survive it, or something is wrong with what was
    asked for."""
    match error:
        case JournalError() | ModelFatal():
            return True
        case InfrastructureError():
            return False
        case LooperError():
            return not is_of_what_was_made(error)
        case _:
            return not isinstance(error, Exception)


def unwritable(place: object, what: str, error: OSError) -> BadInput:
    """For a place to write to that a person named: the cause, and what helps against that one. `what` is `file` or `folder`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    way = f"Free space, or name another {what}" if full else f"Name another {what}"
    return BadInput(f"{place} cannot be written: {error.strerror or one_line(str(error))}. {way}.")


def reason(error: Exception) -> str:
    """Why something could not be read, as a part of a line: an error's own words, without its number or class."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or one_line(str(error)).rstrip(".") or type(error).__name__


def one_line(text: str, most: int = SAID_CHARACTERS) -> str:
    """Somebody else's words as a part of a line of ours: without line ends, with nothing in them that a terminal acts on or no encoding
    holds, and of at most so many characters."""
    said = printable(" ".join(text[: 8 * most].split()))
    return said if len(said) <= most and len(text) <= 8 * most else f"{said[: most - 1]}…"


def printable(text: str) -> str:
    """Signs that a terminal acts on, that are not seen or that no encoding holds as escapes; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )


def error_named(name: str, said: str) -> LooperError:
    """The error of this tree with a class's name, as another process has told it; of another class where there is none."""
    kind = globals().get(name)
    return kind(said) if isinstance(kind, type) and issubclass(kind, LooperError) else LooperError(said)


def named(error: BaseException) -> str:
    """Class and message of an error, in one line of bounded length that any encoding holds."""
    said = one_line(str(error), MESSAGE_CHARACTERS)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def quoted(names: Iterable[str]) -> str:
    """Names as they were given, so that an empty one is seen."""
    return ", ".join(f'"{name}"' for name in names)


def possible(wrong: str, known: Iterable[str], begin: str = "It has") -> str:
    """What there is in place of a name that is wrong, to end a message: `Did you mean lora? It has: base, lora.`"""
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(wrong, names, n=3, cutoff=0.6)
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}{begin}: {', '.join(names[:LISTED]) or 'none'}{more}."
