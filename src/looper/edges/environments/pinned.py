"""Environments of old repositories: an interpreter by version, packages from a frozen list, built once and shared."""

import fcntl
import glob
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from looper.edges.access import share, shared_folder
from looper.edges.environments.beside import grafted_site, stamped_site
from looper.edges.environments.compiled import compiled_modules, native_hash
from looper.errors import BadInput, EnvironmentBroken
from looper.protocols import Environment, Environments
from looper.records.base import content_hash
from looper.records.task import Task

Say = Callable[[str], None]
_BUILD_TIMEOUT_S = 1800


@cache
def _table() -> dict[str, Any]:
    text = (resources.files("looper.edges.environments") / "swe_bench_cl.toml").read_text("utf-8")
    return tomllib.loads(text)


def supported_versions(repo: str) -> tuple[str, ...]:
    """Versions of a repository whose environments are known here."""
    return tuple(_table().get(repo, {}))


def unserved(task: Task) -> str:
    """Why no environment is known for a task; empty where one is."""
    if task.environment == "harness":
        return ""
    repo, _, version = task.environment.partition("@")
    known = supported_versions(repo)
    if not known:
        return "no environment is known for this repository"
    if not version:
        return "its rows do not say which version they are of"
    if version not in known:
        return "no environment is known for this version"
    entry = _entry(task)
    if _stamp(task) or "compiled" in entry or not {"stamped", "graft"} & entry.keys():
        return ""
    return (
        f"no {'version to go by' if 'stamped' in entry else 'release with compiled modules'} is known for it"
    )


@dataclass(frozen=True)
class Needs:
    """What a repository needs beside an interpreter and its packages."""

    variables: dict[str, str]
    """`{root}`, `{site}` and `{release}` stand for the tree, the folder after it on the module path, and an installation."""
    packages: tuple[str, ...]
    """Whose compiled or generated modules an installation has and a tree has not."""
    source_root: str
    """Folder of a tree that stands on the module path; empty for its root."""


def needs_of(task: Task) -> Needs:
    """Raises BadInput for a repository whose environments are not known."""
    entry = _entry(task)
    if not entry:
        raise _unknown(task.environment)
    stamped = entry.get("stamped", {}).get("module", "").partition(".")[0]
    packages = tuple(entry.get("graft", {}).get("packages", ())) or ((stamped,) if stamped else ())
    first = entry["variables"]["PYTHONPATH"].partition(":")[0]
    return Needs(entry["variables"], packages, first.removeprefix("{root}").strip("/"))


class PinnedEnvironments:
    """Builds what is missing under `folder`, one folder per content: interpreter version and packages."""

    def __init__(
        self, folder: Path, say: Say, tree_of: Callable[[Task], Path] = lambda task: _no_tree(task)
    ) -> None:
        """`tree_of` gives the files of a task's base commit, for repositories that have to be compiled."""
        self._folder, self._say, self._tree_of = folder, say, tree_of
        self._known: dict[tuple[str, str], Environment | EnvironmentBroken] = {}
        self._making: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        """One for each environment: while one is built others are used, and built."""

    @staticmethod
    def missing_programs(repo: str) -> dict[str, str]:
        """Programs that tests of a repository call and that are not here, with the Debian packages that bring them."""
        wanted: dict[str, str] = _table()["programs"].get(repo, {})
        return {name: package for name, package in wanted.items() if shutil.which(name) is None}

    def of(self, task: Task) -> Environment:
        """Raises EnvironmentBroken, or BadInput for a repository whose environments are not known."""
        stamp = _stamp(task)
        tree = None
        if not stamp and "compiled" in _entry(task):
            tree = self._tree_of(task)
            stamp = native_hash(tree)
        found = self._known.get((task.environment, stamp)) or self._made_once(task.environment, stamp, tree)
        if isinstance(found, EnvironmentBroken):
            raise EnvironmentBroken(f"{found} It is not tried again before the next command.") from found
        return found

    def _made_once(self, key: str, stamp: str, tree: Path | None) -> Environment | EnvironmentBroken:
        """What failed fails for every task of its version, after minutes each time."""
        with self._making[key, stamp]:
            if (key, stamp) not in self._known:
                try:
                    self._known[key, stamp] = self._make(key, stamp, tree)
                except EnvironmentBroken as error:
                    self._known[key, stamp] = error
            return self._known[key, stamp]

    def _make(self, key: str, stamp: str, tree: Path | None) -> Environment:
        """`tree` where something has to be compiled."""
        repo, _, version = key.partition("@")
        entry = _table().get(repo, {}).get(version)
        if entry is None:
            raise _unknown(key)
        interpreter = find_interpreter(entry["python"])
        exact = _output([str(interpreter), "-c", "import sys; print(sys.version)"])
        packages = _table()["locks"][entry["lock"]]
        identity = content_hash(exact, *sorted(packages))[:16]
        target = self._folder / f"{repo.replace('/', '__')}-{identity}"
        shared_folder(self._folder)
        with (self._folder / f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (target / "complete.json").exists():
                self._build(key, target, interpreter, packages)
            site = self._compiled(key, target, entry, tree) if tree else self._beside(target, entry, stamp)
        python = target / "bin" / "python"
        release = str(site).removesuffix(".site")
        variables = {
            name: value.replace("{site}", str(site)).replace("{release}", release)
            for name, value in entry["variables"].items()
        }
        # What tests find on the system is a part of what a verdict was made with.
        missing = sorted(self.missing_programs(repo))
        parts = (stamp, *missing) if missing else (stamp,)
        return Environment(
            content_hash(identity, *parts)[:16] if any(parts) else identity,
            python,
            (target, *_behind(python)),
            variables,
        )

    def _compiled(self, key: str, target: Path, entry: dict[str, Any], tree: Path) -> Path:
        """The folder that has imports find what was compiled of a tree."""
        found = compiled_modules(
            target / "compiled",
            tree,
            target / "bin" / "python",
            entry["compiled"]["command"],
            f"the modules of {key}",
            self._say,
        )
        return grafted_site(found, tuple(entry["compiled"]["packages"]))

    def _beside(self, target: Path, entry: dict[str, Any], mark: str) -> Path:
        """The folder that stands on the module path after the tree; the environment itself where nothing has to."""
        if mark and "stamped" in entry:
            return stamped_site(target, entry["stamped"]["name"], entry["stamped"]["module"], mark)
        if not mark:
            return target
        name = entry["graft"]["name"]
        release = target / "releases" / f"{name}-{mark}"
        if not (release.parent / f"{release.name}.complete").exists():
            self._say(f"unpacking {name} {mark} for its compiled modules")
            shutil.rmtree(release, ignore_errors=True)
            for argv in _unpack_commands(target, release, f"{name}=={mark}"):
                _run(argv, f"the compiled modules of {name} {mark}")
            share(release.parent)
            (release.parent / f"{release.name}.complete").touch()
        return grafted_site(release, tuple(entry["graft"]["packages"]))

    def _build(self, key: str, target: Path, interpreter: Path, packages: list[str]) -> None:
        """In place, because a virtual environment does not survive a move; the mark at the end makes it count."""
        self._say(f"building the environment of {key} ({len(packages)} packages, {interpreter})")
        begun = time.monotonic()
        shutil.rmtree(target, ignore_errors=True)
        lock = self._folder / f"{target.name}.txt"
        lock.write_text("\n".join(packages) + "\n")
        for argv in _build_commands(interpreter, target, lock):
            _run(argv, f"the environment of {key}")
        share(target)
        size = sum(path.lstat().st_size for path in target.rglob("*") if not path.is_symlink())
        done = {
            "key": key,
            "seconds": round(time.monotonic() - begun, 1),
            "mib": size >> 20,
            "packages": packages,
        }
        (target / "complete.json").write_text(json.dumps(done, indent=1) + "\n")
        self._say(f"built the environment of {key}: {done['mib']} MiB in {done['seconds']} s")


def _entry(task: Task) -> dict[str, Any]:
    repo, _, version = task.environment.partition("@")
    found: dict[str, Any] = _table().get(repo, {}).get(version, {})
    return found


def _no_tree(task: Task) -> Path:
    raise BadInput(f"{task.repo} has to be compiled from its base tree, which is not at hand here.")


def _stamp(task: Task) -> str:
    """The version that a task's tree is to go by, or the release whose compiled modules it gets; empty where it needs
    neither."""
    entry = _entry(task)
    return str({**entry.get("stamps", {}), **entry.get("releases", {})}.get(task.instance_id, ""))


def _unpack_commands(target: Path, release: Path, what: str) -> Iterable[list[str]]:
    """A release wheel for the interpreter of an environment, into a folder of its own."""
    python = str(target / "bin" / "python")
    wanted = ["--no-deps", "--only-binary", ":all:", "--target", str(release), what]
    uv = _uv()
    yield (
        [uv, "pip", "install", "--quiet", "--python", python, *wanted]
        if uv
        else [python, "-m", "pip", "install", "--quiet", *wanted]
    )


def _uv() -> str | None:
    found = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    return found if Path(found).exists() else None


def _unknown(key: str) -> BadInput:
    return BadInput(
        f"No environment is known for {key.replace('@', ' ')}. Known: {', '.join(_known_keys())}."
    )


def _known_keys() -> list[str]:
    return [f"{repo}@{version}" for repo, versions in _table().items() if "/" in repo for version in versions]


def _build_commands(interpreter: Path, target: Path, lock: Path) -> Iterable[list[str]]:
    uv = _uv()
    if uv is not None:
        yield [uv, "venv", "--quiet", "--python", str(interpreter), str(target)]
        yield [
            uv,
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--python",
            str(target / "bin" / "python"),
            "-r",
            str(lock),
        ]
    else:
        yield [str(interpreter), "-m", "venv", str(target)]
        yield [
            str(target / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "-r",
            str(lock),
        ]


def find_interpreter(version: str) -> Path:
    """A CPython of a minor version: LOOPER_PYTHON_3_6 names one, then pyenv, the search path, uv's own.

    Raises EnvironmentBroken with how to get one.
    """
    named = os.environ.get(f"LOOPER_PYTHON_{version.replace('.', '_')}")
    candidates = [Path(named)] if named else [*_pyenv(version), *_on_path(version), *_from_uv(version)]
    for candidate in candidates:
        if os.path.exists(candidate) and _is_version(candidate, version):
            return candidate
    raise EnvironmentBroken(
        f"There is no Python {version} here. Install one: uv python install {version}, or pyenv install {version}; "
        f"or name it with LOOPER_PYTHON_{version.replace('.', '_')}=/path/to/python."
    )


def _pyenv(version: str) -> list[Path]:
    root = os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"
    # By the module: a `Path` fails at what it may not read, and another user's folder can be named.
    found = [Path(name) for name in glob.glob(f"{glob.escape(str(root))}/versions/{version}.*/bin/python")]
    return sorted(found, key=lambda path: _patch_number(path.parts[-3]), reverse=True)


def _patch_number(name: str) -> int:
    last = name.rpartition(".")[2]
    return int(last) if last.isdigit() else -1


def _on_path(version: str) -> list[Path]:
    found = shutil.which(f"python{version}")
    # pyenv's shims answer for versions that are not switched on.
    return [Path(found).resolve()] if found and "shims" not in found else []


def _from_uv(version: str) -> list[Path]:
    uv = shutil.which("uv")
    if not uv:
        return []
    done = subprocess.run([uv, "python", "find", version], capture_output=True, text=True)
    return [Path(done.stdout.strip())] if done.returncode == 0 else []


def _is_version(python: Path, version: str) -> bool:
    try:
        return (
            _output([str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
            == version
        )
    except EnvironmentBroken:
        return False


def _behind(python: Path) -> tuple[Path, ...]:
    """The installation that a virtual environment's interpreter belongs to, where it is no system folder."""
    base = python.resolve().parent.parent
    return () if base.is_relative_to("/usr") else (base,)


def _output(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise EnvironmentBroken(f"{argv[0]} does not run: {done.stderr.strip()[-300:]}")
    return done.stdout


def _run(argv: list[str], what: str) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise EnvironmentBroken(
            f"Building {what} took more than {_BUILD_TIMEOUT_S} s: {' '.join(argv[:4])}."
        ) from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise EnvironmentBroken(f"Building {what} failed: {' '.join(lines[-3:])[:600]}")


class EnvironmentsBySuite:
    """Sends each task to the environments of its suite."""

    def __init__(self, harness: Environments, real: Environments) -> None:
        self._harness, self._real = harness, real

    def of(self, task: Task) -> Environment:
        """Raises as they do, and EnvironmentBroken where none is known."""
        if why := unserved(task):
            raise EnvironmentBroken(f"{task.environment.replace('@', ' ').strip()}: {why}.")
        return (self._harness if task.environment == "harness" else self._real).of(task)
