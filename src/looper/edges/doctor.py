"""What `looper doctor` looks at, each finding with its fix.

`examine` asks one function after the other; each yields checks with a level, what was found and how to mend it. Nothing is changed but
files that are made and removed to see how long that takes.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from looper.edges.access import shared_folder
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.environments.interpreters import find_interpreter, how_to_get
from looper.edges.models.blas import find_openblas
from looper.edges.models.inventory import USUAL, Usable, folders, model_servers
from looper.edges.models.mlx import nano_folder
from looper.edges.sandboxes.check import candidates, find_sandbox, must_reach, proven
from looper.edges.sandboxes.process import program
from looper.edges.trainers.estimate import free_bytes
from looper.errors import InfrastructureError, LooperError, mlx_install, pip_install

Level = Literal["ok", "note", "missing"]
MEMORY = Path("/dev/shm")
"""A file system in memory, where Linux has one."""
FILES = 300
"""Made and removed to tell what a tree costs: of the benchmark's the smallest has 413 files, the largest 6145."""
WINDOW = 8192
"""Tokens, for what a model needs in memory where nobody says: enough for most rollouts."""
SLOW_MS = 0.2
"""To make and remove one file. A tree of django then takes longer than most of its tasks' tests."""


@dataclass(frozen=True)
class Check:
    level: Level
    """`note` is not needed for the embedded default; `missing` is."""
    what: str
    found: str
    fix: str = ""

    def line(self) -> str:
        fix = f". Fix: {self.fix}" if self.fix else ""
        return f"[{self.level:7}] {self.what}: {self.found.removesuffix('.') if fix else self.found}{fix}"


def examine(
    sandbox: str,
    *,
    state: Path,
    runs: Path,
    workspaces: Path,
    needed_bytes: int,
    swe_data: str,
    mirrors: Path,
    models: Path,
    servers: Sequence[str] = (),
    context_tokens: int | None = None,
) -> list[Check]:
    """`needed_bytes` of disk must be free to begin an attempt. `models` is the folder of those that are kept by name, `servers` are addresses
    beside the usual ones, `context_tokens` the window that models must have; None where it may be any."""
    checks: list[Callable[[], Iterator[Check]]] = [
        _system,
        lambda: _sandbox(sandbox),
        lambda: _start(sandbox, state),
        _git,
        _gnu_patch,
        lambda: _disk({"state": state, "runs": runs}, needed_bytes),
        lambda: working_trees(workspaces, MEMORY),
        _mlx,
        _blas,
        lambda: of_models(servers, models, context_tokens),
        lambda: _interpreters(state / "environments" / "pythons"),
        lambda: _swe(swe_data, mirrors),
    ]
    return [finding for check in checks for finding in check()]


def _system() -> Iterator[Check]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    found = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores, {memory} GiB"
    yield Check("ok", "system", found)


def _sandbox(choice: str) -> Iterator[Check]:
    try:
        found = find_sandbox(choice)
    except InfrastructureError as error:
        yield Check(
            "missing",
            "sandbox",
            str(error),
            # Of one that is there and does not work, or is none of these, the error says what to do.
            "" if program("bwrap") else "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap)",
        )
        return
    yield Check("ok", "sandbox", f"{found.name} holds")
    if not found.loopback:
        without = (
            "a server on localhost cannot be reached inside, so a test that has one fails whatever the change"
        )
        yield Check("note", "sandbox loopback", without, "install bubblewrap")
    for name, make in candidates().items():
        try:
            proven(make)
        except LooperError as error:
            yield Check("note", f"sandbox {name}", str(error))


def _start(choice: str, state: Path) -> Iterator[Check]:
    """Whether the embedded suite's tests can be run at all by the user whom commands run as."""
    try:
        sandbox = find_sandbox(choice)
        environment = HarnessEnvironment(state / "environments").made()
        place = shared_folder(state / "workspaces")
        must_reach(sandbox, str(environment.python), environment.readable, place)
    except LooperError as error:
        yield Check("missing", "tests' interpreter", str(error), "see above")
        return
    yield Check("ok", "tests' interpreter", f"{environment.python} starts in the sandbox")


def _git() -> Iterator[Check]:
    path = program("git")
    if path is None:
        yield Check("missing", "git", "not found", "apt-get install git, or xcode-select --install")
        return
    yield Check(
        "ok", "git", subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()
    )


def _gnu_patch() -> Iterator[Check]:
    for name in ("gpatch", "patch"):
        path = program(name)
        said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout if path else ""
        if said.startswith("GNU patch"):
            yield Check("ok", "GNU patch", said.splitlines()[0])
            return
    found = "not found; patches that git does not take, and SWE-bench's third attempt may, get no verdict"
    yield Check("note", "GNU patch", found, "apt-get install patch, or brew install gpatch")


def _disk(folders: Mapping[str, Path], needed_bytes: int) -> Iterator[Check]:
    for what, folder in folders.items():
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        level: Level = "ok" if free >= needed_bytes else "missing"
        fix = "" if level == "ok" else f"make room; {needed_bytes >> 30} GiB are needed to begin an attempt"
        yield Check(level, f"disk for {what}", f"{free >> 30} GiB free at {folder}", fix)


def working_trees(workspaces: Path, memory: Path, slow_ms: float = SLOW_MS) -> Iterator[Check]:
    """What making and removing a file takes where working trees are made, beside a file system in memory."""
    there = next(parent for parent in (workspaces, *workspaces.parents) if parent.exists())
    try:
        here = _file_ms(there)
    except OSError as error:
        yield Check("note", "working trees", f"{there} cannot be written to: {error.strerror}", "see above")
        return
    try:
        quick = _file_ms(memory)
    except OSError:  # There is none, or it is not for us.
        quick = here
    found = f"{here:.2f} ms to make and remove a file at {workspaces}"
    if here < slow_ms or quick > here / 2:
        yield Check("ok", "working trees", found)
        return
    fix = f"export LOOPER_WORKSPACES={memory}/looper, where memory is plenty"
    yield Check("note", "working trees", f"{found}, {quick:.2f} ms in memory", fix)


def _file_ms(folder: Path) -> float:
    """Milliseconds for each of so many small files."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        begun = time.perf_counter()
        for number in range(FILES):
            Path(place, str(number)).write_bytes(b"x" * 4096)
        written = time.perf_counter()
        # A tree has come to the disk by the time it is removed.
        for number in range(FILES):
            with open(f"{place}/{number}", "rb") as file:
                os.fsync(file.fileno())
        removing = time.perf_counter()
        for number in range(FILES):
            os.unlink(f"{place}/{number}")
        return (time.perf_counter() - removing + written - begun) * 1000 / FILES


def _mlx() -> Iterator[Check]:
    try:
        yield Check("ok", "mlx", f"mlx {metadata.version('mlx')}, mlx-lm {metadata.version('mlx-lm')}")
    except metadata.PackageNotFoundError:
        yield Check("missing", "mlx", "not installed", mlx_install())
    weights = nano_folder() / "model.safetensors"
    if weights.exists():
        yield Check("ok", "embedded model", f"{weights.stat().st_size / 1e6:.1f} MB")
    else:
        yield Check(
            "missing",
            "embedded model",
            "its weights are not in the package",
            "reinstall, or run scripts/build_nano",
        )


def _blas() -> Iterator[Check]:
    if sys.platform != "linux":
        return
    library = find_openblas()
    if library is not None:
        yield Check("ok", "BLAS", f"MLX multiplies by {library.name} of SciPy")
    else:
        fix = f"{pip_install('--force-reinstall', 'scipy')}, from a wheel"
        yield Check(
            "note", "BLAS", "this SciPy brings no OpenBLAS; MLX multiplies by its slow reference BLAS", fix
        )


def of_models(servers: Sequence[str], kept: Path, wanted: int | None) -> Iterator[Check]:
    """Of servers that answer, beside the usual addresses at `servers`, and of folders here, `kept` among them; each with whether it fits and has the
    window that is wanted, in tokens, and whether adapters of Looper's go onto it."""
    window = wanted or WINDOW
    found = model_servers(servers, window)
    if not found:
        places = ", ".join(f"{url.removeprefix('http://')} ({what})" for url, what in USUAL.items())
        how = "start one, or looper doctor --server URL; not needed for --profile micro"
        yield Check("note", "model servers", f"none answers at {places}", how)
    for each in found:
        if each.fault:
            yield Check("note", "model server", each.fault, each.fix)
            continue
        count = len(each.models)
        yield Check("ok", "model server", f"{each.what}: {count} model{'s' * (count != 1)}")
        for model in each.models:
            yield _model(model, wanted)
    for model in folders(kept, window):
        yield _model(model, wanted)


def _model(model: Usable, wanted: int | None) -> Check:
    what, free = f"model {model.name}", free_bytes()
    tokens = model.window
    window = "its window is not told"
    if tokens:
        window = f"a window of {'' if model.is_served_so else 'up to '}{tokens} tokens"
    used = min(tokens or wanted or WINDOW, wanted or WINDOW)
    sizes = "" if model.needed is None else f"about {_size(model.needed)} with {used} tokens"
    said = "; ".join(filter(None, (window, model.adapters)))
    if model.wrong:
        wrong, fix = model.wrong
        return Check("note", what, f"{wrong}; {said}", fix)
    if model.needed is not None and model.needed > free:
        short = f"needs {sizes}, and {_size(free)} of memory are free, a graphics card's not counted; {said}"
        return Check("note", what, short, "a smaller model, or one of fewer bits")
    loaded = "loaded" if model.is_loaded else sizes
    found = "; ".join(filter(None, (loaded, said)))
    if wanted and tokens and tokens < wanted:
        fix = f"{model.longer}, or lower context_tokens in the plan's limits"
        return Check("note", what, f"{found}; {wanted} tokens are wanted", fix)
    return Check("ok", what, found)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 // 10 else f"{count / 2**20:.0f} MiB"


def _interpreters(place: Path) -> Iterator[Check]:
    for version in ("3.6", "3.8"):
        try:
            found = find_interpreter(version, place)
        except LooperError as error:
            yield Check("note", f"Python {version}", str(error))
            continue
        if found is not None:
            yield Check("ok", f"Python {version}", f"{found} (for django tasks)")
        else:
            said = "not found; django tasks of SWE-Bench-CL need it"
            yield Check("note", f"Python {version}", said, how_to_get(version).removesuffix("."))


def _swe(data: str, folder: Path) -> Iterator[Check]:
    if not data:
        yield Check(
            "note", "SWE-Bench-CL", "not configured", "set LOOPER_SWE_DATA to its JSONL file or hub:NAME"
        )
    else:
        mirrors = sorted(path.name for path in folder.glob("*.git"))
        exists = data.startswith("hub:") or Path(data).is_file()
        found = f"{data}{'' if exists else ' does not exist'}, mirrors: {', '.join(mirrors) or 'none'}"
        yield Check(
            "ok" if exists and mirrors else "note",
            "SWE-Bench-CL",
            found,
            "" if mirrors else "looper bench fetch",
        )
