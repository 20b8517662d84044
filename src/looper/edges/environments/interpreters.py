"""Interpreters of old versions: what is here, and what uv installs where nothing is."""

import glob
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from uv import find_uv_bin

from looper.edges.access import share, shared_folder
from looper.edges.environments.uv import run_uv
from looper.errors import EnvironmentBroken

_ASK = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"


def find_interpreter(version: str, place: Path) -> Path | None:
    """A CPython of a minor version: the one that LOOPER_PYTHON_3_6 names, then pyenv's, the search path's, uv's, and what uv installed
    below `place`. Raises EnvironmentBroken where the one that is named is another."""
    variable = _variable(version)
    named = os.environ.get(variable)
    if named:
        found = _what(Path(named))
        if found != f"cpython {version}":
            raise EnvironmentBroken(
                f"{variable} names {named}, which is {f'{found}' if found else 'no Python that runs'}: name a CPython {version}, or "
                f"unset {variable}."
            )
        return Path(named)
    return next((path for path in _candidates(version, place) if _what(path) == f"cpython {version}"), None)


def get_interpreter(version: str, place: Path, say: Callable[[str], None]) -> Path:
    """The same; uv installs it below `place` where there is none. Raises EnvironmentBroken, with how to get one."""
    found = find_interpreter(version, place)
    if found is not None:
        return found
    if not _uv_has(version):
        raise EnvironmentBroken(f"There is no Python {version} here. {how_to_get(version)}")
    say(f"installing Python {version} with uv")
    shared_folder(place)
    arguments = ["python", "install", "--no-bin", f"cpython@{version}"]
    run_uv(arguments, place / "uv.log", f"Installing Python {version} with uv", _own(place))
    share(place)
    found = find_interpreter(version, place)
    if found is None:
        raise EnvironmentBroken(f"uv installed a Python {version} that does not run. {how_to_get(version)}")
    return found


def how_to_get(version: str) -> str:
    """In words, for one that is not here."""
    others = f"pyenv install {version}; or by conda, and name it: {_variable(version)}=/path/to/python."
    if _uv_has(version):
        return f"looper bench prepare installs one with uv; or: {others}"
    return f"uv has none so old. Install one: {others}"


def _uv_has(version: str) -> bool:
    """Whether this uv knows where to get one for this machine."""
    done = _asked_of_uv(["list", "--only-downloads", f"cpython@{version}"], {})
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise EnvironmentBroken(f"uv does not tell which Pythons it has; it said: {said[0]}")
    return bool(done.stdout.strip())


def _asked_of_uv(words: list[str], variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    # At the root: a project's own settings of uv, wherever somebody happens to be, say nothing of this.
    return subprocess.run(
        [find_uv_bin(), "python", *words],
        cwd="/",
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def _variable(version: str) -> str:
    return f"LOOPER_PYTHON_{version.replace('.', '_')}"


def _candidates(version: str, place: Path) -> Iterator[Path]:
    yield from _pyenv(version)
    yield from _on_path(version)
    yield from _from_uv(version, place)


def _pyenv(version: str) -> list[Path]:
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    # By the module: a `Path` fails at what it may not read, and another user's folder can be named.
    found = [Path(name) for name in glob.glob(f"{glob.escape(root)}/versions/{version}.*/bin/python")]
    return sorted(found, key=lambda path: _patch_number(path.parts[-3]), reverse=True)


def _patch_number(name: str) -> int:
    last = name.rpartition(".")[2]
    return int(last) if last.isdigit() else -1


def _on_path(version: str) -> list[Path]:
    found = shutil.which(f"python{version}")
    # pyenv's shims answer for versions that are not switched on.
    return [Path(found).resolve()] if found and "shims" not in found else []


def _from_uv(version: str, place: Path) -> Iterator[Path]:
    """The user's own, then those that were installed here."""
    asked = ["find", "--system", "--no-project", f"cpython@{version}"]
    for own in ({}, _own(place)):
        done = _asked_of_uv(asked, {"UV_PYTHON_DOWNLOADS": "never", **own})
        if done.returncode == 0:
            # uv names a link to the newest of a minor version, which a sandbox would not show.
            yield Path(done.stdout.strip()).resolve()


def _own(place: Path) -> dict[str, str]:
    return {"UV_PYTHON_INSTALL_DIR": str(place)}


def _what(python: Path) -> str:
    """Implementation and minor version of an interpreter; empty where it does not run."""
    try:
        done = subprocess.run([str(python), "-c", _ASK], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
