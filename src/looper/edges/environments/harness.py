"""The environment of the embedded suite: the harness's own interpreter with pytest and nothing else.

The harness's own packages are not in it. They hold the generator of the suite, and whoever can read that knows every
answer.
"""

import compileall
import contextlib
import fcntl
import json
import os
import py_compile
import shutil
import sys
import threading
import venv
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from looper.edges.access import share, shared_folder
from looper.edges.environments.installed import ODD, damage, differing, packages_of
from looper.errors import EnvironmentBroken
from looper.protocols import Environment
from looper.records.base import content_hash
from looper.records.task import Task

PACKAGE = "pytest"
MARK = "complete.json"


class HarnessEnvironment:
    """A virtual environment under `folder`, made on first use by copying installed packages; no network needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: Environment | None = None
        self._lock = threading.Lock()

    def of(self, task: Task) -> Environment:
        return self.made()

    def made(self) -> Environment:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Environment:
        distributions = _with_requirements(PACKAGE)
        pins = [f"{name}=={found.version}" for name, found in sorted(distributions.items())]
        identity = content_hash(sys.version, sys.base_prefix, *pins)[:16]
        target = self._folder / f"micro-{identity}"
        if not _is_whole(target, distributions):
            with self._alone():
                if target.is_dir() and not (target / MARK).exists() and not differing(packages_of(target)):
                    _mark(target)  # Of an earlier version of Looper, which may be at work with it.
                if not _is_whole(target, distributions):
                    self._build(target, list(distributions.values()))
        python = target / "bin" / "python"
        return Environment(identity, python, _visible(target), {"PYTHONDONTWRITEBYTECODE": "1"})

    def _build(self, target: Path, distributions: list[metadata.Distribution]) -> None:
        """Complete or not there at all: made beside its place, and what is damaged there is removed first."""
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        venv.create(temporary, symlinks=True, with_pip=False)
        packages = next(temporary.glob("lib/python*/site-packages"))
        for distribution in distributions:
            _copy_distribution(distribution, packages)
        # The environment is read-only in use: without byte code every test run would compile pytest anew (0.3 s).
        compileall.compile_dir(
            packages, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
        share(temporary)
        _mark(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Other processes that would make the same wait."""
        shared_folder(self._folder)
        with (self._folder / ".micro.lock").open("w") as lock:
            os.fchmod(lock.fileno(), 0o644)
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _mark(environment: Path) -> None:
    (environment / MARK).write_text(json.dumps({ODD: sorted(differing(packages_of(environment)))}))
    (environment / MARK).chmod(0o644)


def _is_whole(environment: Path, names: Iterable[str]) -> bool:
    """Whether an environment has its packages as they were installed, and the interpreter behind this process."""
    own = getattr(sys, "_base_executable", sys.executable)
    same = os.path.realpath(environment / "bin" / "python") == os.path.realpath(own)
    return same and not damage(packages_of(environment), environment / MARK, names)


def _with_requirements(name: str) -> dict[str, metadata.Distribution]:
    """A distribution and all that it needs here, by name. Raises EnvironmentBroken where one is not installed."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop().lower().replace("_", "-")
        if current in found:
            continue
        try:
            found[current] = metadata.distribution(current)
        except metadata.PackageNotFoundError as error:
            raise EnvironmentBroken(f"The package {current} is not installed. Reinstall Looper.") from error
        for line in found[current].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def _copy_distribution(distribution: metadata.Distribution, packages: Path) -> None:
    for file in distribution.files or []:
        # Console scripts lie outside of site-packages and name the harness's interpreter.
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)


def _visible(environment: Path) -> tuple[Path, ...]:
    """The environment and the interpreter behind it, where that is no part of the system's own folders."""
    base = Path(sys.base_prefix).resolve()
    return (environment,) if base.is_relative_to("/usr") else (environment, base)
