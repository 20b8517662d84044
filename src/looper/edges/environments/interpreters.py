"""Interpreters of old versions: what is here, and what uv installs where nothing is.

`pinned` asks for one by its minor version. Programs that somebody else chose are asked through `answer_of`, which ends them when they
take too long or say too much.
"""

import glob
import os
import re
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from uv import find_uv_bin

from looper.edges.access import share, shared_folder
from looper.edges.environments.uv import run_uv
from looper.edges.sandboxes.process import kill_group
from looper.errors import EnvironmentBroken

_ASK = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
ANSWER_S = 30.0
"""Within which a program that is asked a question answers it."""
ANSWER_BYTES = 64 << 10
"""Of an answer, and of what is said beside it."""


@dataclass(frozen=True)
class ProbeOutput:
    """What a program said that was asked something, and that somebody else chose."""

    said: str
    """Its standard output; empty where it failed."""
    why: str = ""
    """Why there is no answer; empty where there is one."""


def answer_of(
    argv: Sequence[str], variables: Mapping[str, str] | None = None, cwd: str | None = None
) -> ProbeOutput:
    """Ask a program that reads nothing, and end it with all that it started where it takes too long or says too much. Bytes that are no
    text are replaced."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, **(variables or {})},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return ProbeOutput("", getattr(error, "strerror", None) or str(error))
    with process:
        try:
            said, beside = _heard(process, time.monotonic() + ANSWER_S)
        except subprocess.TimeoutExpired:
            return ProbeOutput("", f"it did not answer within {ANSWER_S:g} s")
        except OverflowError:
            return ProbeOutput("", f"it said more than {ANSWER_BYTES >> 10} KiB")
        finally:
            kill_group(process)
    if process.returncode != 0:
        lines = beside.decode("utf-8", "replace").strip().splitlines()
        return ProbeOutput("", lines[-1][-300:] if lines else f"it ended with status {process.returncode}")
    return ProbeOutput(said.decode("utf-8", "replace"))


def _heard(process: subprocess.Popen[bytes], until: float) -> list[bytes]:
    """Standard output and standard error up to their ends. Raises TimeoutExpired or OverflowError."""
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    heard = dict.fromkeys((stream.fileno() for stream in streams), b"")
    with selectors.DefaultSelector() as selector:
        for descriptor in heard:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, 0)
            for key, _ in ready:
                data = os.read(key.fd, ANSWER_BYTES)
                heard[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
                if len(heard[key.fd]) > ANSWER_BYTES:
                    raise OverflowError
    process.wait(max(0.0, until - time.monotonic()))
    return list(heard.values())


def find_interpreter(version: str, place: Path) -> Path | None:
    """A CPython of a minor version: the one that LOOPER_PYTHON_3_6 names, then pyenv's, the search path's, uv's, and what uv installed
    below `place`. Raises EnvironmentBroken where the one that is named is another."""
    variable = _variable(version)
    named = os.environ.get(variable)
    if named:
        found = _what(Path(named))
        if found.said != f"cpython {version}":
            raise EnvironmentBroken(
                f"{variable} names {named}, which is {found.said or f'no Python that runs ({found.why})'}: name a CPython {version}, or "
                f"unset {variable}."
            )
        return Path(named)
    wanted = f"cpython {version}"
    return next((path for path in _candidates(version, place) if _what(path).said == wanted), None)


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
    found = _asked_of_uv("list", "--only-downloads", f"cpython@{version}")
    if found.why:
        raise EnvironmentBroken(
            f"uv does not tell which Pythons it has: {found.why}. Fix that, or name one: {_variable(version)}=/path/to/python."
        )
    return bool(found.said.strip())


def _asked_of_uv(*words: str, **variables: str) -> ProbeOutput:
    # At the root: a project's own settings of uv, wherever somebody happens to be, say nothing of this.
    return answer_of([find_uv_bin(), "python", *words], variables, "/")


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
        if found := _asked_of_uv(*asked, UV_PYTHON_DOWNLOADS="never", **own).said.strip():
            # uv names a link to the newest of a minor version, which a sandbox would not show.
            yield Path(found).resolve()


def _own(place: Path) -> dict[str, str]:
    return {"UV_PYTHON_INSTALL_DIR": str(place)}


@cache
def _what(python: Path) -> ProbeOutput:
    """Implementation and minor version of an interpreter. Asked once: one that does not answer would be waited for again and again."""
    found = answer_of([str(python), "-c", _ASK])
    if not found.why and not re.fullmatch(r"\w+ \d+\.\d+\n", found.said):
        return ProbeOutput("", "what it answers is no version")
    return ProbeOutput(found.said.strip(), found.why)
