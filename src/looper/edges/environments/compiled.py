"""Compiled modules of a base tree that is far from any release: built once for each content of its native sources.

The tree is copied, built in the copy by its own build program, and of the copy only the compiled modules stay. A build program is
code of the benchmark's repository at a commit of its maintainers; no model had a hand in it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from looper.edges.access import share, shared_folder
from looper.errors import EnvironmentBroken

NATIVE = (".pyx", ".pxd", ".pxi", ".tp", ".c", ".cc", ".cpp", ".h", ".hpp")
TIMEOUT_S = 3600
LAST_LINES = 3
"""Of a build's log, shown where it failed."""


def native_hash(tree: Path) -> str:
    """Of paths and contents of all native sources of a tree."""
    digest = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        if path.suffix in NATIVE and path.is_file() and ".git" not in path.parts:
            digest.update(f"{path.relative_to(tree)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def compiled_modules(
    place: Path, tree: Path, python: Path, command: Sequence[str], what: str, say: Callable[[str], None]
) -> Path:
    """A folder below `place` with the compiled modules of a tree, where imports find them by their paths. Whoever calls it keeps
    others from building the same. Raises EnvironmentBroken, with where the whole log lies."""
    folder = place / native_hash(tree)
    done = place / f"{folder.name}.json"
    if _is_whole(folder, done):
        return folder
    if not (shutil.which("cc") or shutil.which("gcc")) or not (shutil.which("c++") or shutil.which("g++")):
        raise EnvironmentBroken(
            f"{what} has to be compiled, and there is no C and C++ compiler. Install them: apt-get install build-essential, "
            "or xcode-select --install."
        )
    say(f"compiling {what}, which takes minutes; once for these sources")
    begun, log = time.monotonic(), place / f"{folder.name}.log"
    shutil.rmtree(folder, ignore_errors=True)
    shared_folder(place)
    shutil.copytree(tree, folder, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    _build(folder, log, [str(python), *command], what)
    _keep_compiled(folder)
    share(folder)
    found = sum(1 for _ in folder.rglob("*.so"))
    if not found:
        raise EnvironmentBroken(f"Compiling {what} left no compiled module. The log: {log}")
    seconds = round(time.monotonic() - begun, 1)
    done.write_text(json.dumps({"what": what, "seconds": seconds, "modules": found}) + "\n")
    say(f"compiled {what}: {found} modules in {seconds} s")
    return folder


def _is_whole(folder: Path, done: Path) -> bool:
    """Whether a folder still has the modules that were compiled, none of them written since."""
    try:
        count, written_ns = json.loads(done.read_bytes())["modules"], done.stat().st_mtime_ns
    except (OSError, ValueError, KeyError, TypeError):
        return False
    times = [path.stat().st_mtime_ns for path in folder.rglob("*.so")]
    return len(times) == count and max(times, default=0) <= written_ns


def _build(folder: Path, log: Path, argv: list[str], what: str) -> None:
    cores = str(os.cpu_count() or 1)
    search = [str(Path(argv[0]).parent), os.environ["PATH"]]
    if cache := shutil.which("ccache"):
        search.insert(0, str(_compilers_through(cache, folder.parent / "through-ccache")))
    environment = {
        **os.environ,
        # Debug information triples time and size, and nobody reads it.
        "CFLAGS": "-g0",
        "CXXFLAGS": "-g0",
        "CCACHE_DIR": str(folder.parent / "ccache"),
        "CCACHE_NOHASHDIR": "1",
        "PATH": os.pathsep.join(search),
    }
    argv = [word.replace("{cores}", cores) for word in argv]
    try:
        with log.open("wb") as stream:
            ended = subprocess.run(
                argv, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT, timeout=TIMEOUT_S
            ).returncode
    except subprocess.TimeoutExpired as error:
        raise EnvironmentBroken(f"Compiling {what} took more than {TIMEOUT_S} s. The log: {log}") from error
    if ended != 0:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        shutil.rmtree(folder, ignore_errors=True)
        raise EnvironmentBroken(
            f"Compiling {what} failed: {' / '.join(lines[-LAST_LINES:])[:600]}. The whole log: {log}"
        )


def _compilers_through(cache: str, folder: Path) -> Path:
    """Under the compilers' own names, or the linker is called through it as well: build programs derive one from the other. Most
    native sources of two commits are the same."""
    shared_folder(folder)
    for name in ("cc", "gcc", "c++", "g++"):
        if shutil.which(name) and not (folder / name).is_symlink():
            (folder / name).symlink_to(cache)
    return folder


def _keep_compiled(folder: Path) -> None:
    """What a tree has itself must not be found here once an agent has removed it there."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink() or (path.is_file() and path.suffix != ".so"):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
