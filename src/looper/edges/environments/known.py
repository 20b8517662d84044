"""What the benchmark's repositories are run with, as it was found: interpreters, frozen packages, programs of the system.

Reads `swe_bench_cl.toml` (recipes, frozen lists, programs) and `measured.json` (what each took where it was tried). It builds nothing:
`pinned` and `images` do, and commands ask it what is missing.
"""

import ctypes.util
import json
import os
import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from looper.errors import BadInput
from looper.records.base import content_hash
from looper.records.environment import Cost
from looper.records.task import Task


def _text(name: str) -> str:
    return (resources.files("looper.edges.environments") / name).read_text("utf-8")


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(_text("swe_bench_cl.toml"))


@cache
def _measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_text("measured.json"))
    return found


@dataclass(frozen=True)
class Recipe:
    """How the environment of one version of a repository is made."""

    key: str
    """repository@version."""
    python: str
    """Minor version of its interpreter."""
    lock: str
    """Name of its frozen list."""
    packages: tuple[str, ...]
    """That list, name==version."""
    variables: Mapping[str, str]
    """`{root}`, `{site}` and `{release}` stand for the tree, the folder after it on the module path, and an installation."""
    stamped: Mapping[str, str] = field(default_factory=dict)
    """Distribution, and module that says its version, where an installation reads that from tags."""
    stamps: Mapping[str, str] = field(default_factory=dict)
    """These versions, by task."""
    graft: Mapping[str, Any] = field(default_factory=dict)
    """Distribution whose releases lend compiled and generated modules, and the packages that these are in."""
    releases: Mapping[str, str] = field(default_factory=dict)
    """Release by task."""
    compiled: Mapping[str, Any] = field(default_factory=dict)
    """Packages and command, for tasks that no release is near enough to."""

    @property
    def repo(self) -> str:
        return self.key.partition("@")[0]

    def mark(self, task: Task) -> str:
        """The version that a task's tree is to go by, or the release whose compiled modules it gets; empty where it needs neither."""
        return self.stamps.get(task.instance_id) or self.releases.get(task.instance_id, "")


def recipe_of(key: str) -> Recipe:
    """By repository@version. Raises BadInput where none is known."""
    repo, _, version = key.partition("@")
    entry = _table().get(repo, {}).get(version) if "/" in repo else None
    if entry is None:
        raise BadInput(
            f"No environment is known for {key.replace('@', ' ')}. Known: {', '.join(known_keys())}."
        )
    return Recipe(key=key, packages=tuple(_table()["locks"][entry["lock"]]), **entry)


def known_keys() -> list[str]:
    return [f"{repo}@{version}" for repo, versions in _table().items() if "/" in repo for version in versions]


def supported_versions(repo: str) -> tuple[str, ...]:
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
    recipe = recipe_of(task.environment)
    if recipe.mark(task) or recipe.compiled or not (recipe.stamped or recipe.graft):
        return ""
    return f"no {'version to go by' if recipe.stamped else 'release with compiled modules'} is known for it"


@dataclass(frozen=True)
class SystemNeeds:
    """What a repository needs beside an interpreter and its packages."""

    variables: Mapping[str, str]
    """As in `Recipe`."""
    packages: tuple[str, ...]
    """Whose compiled or generated modules an installation has and a tree has not."""
    source_root: str
    """Folder of a tree that stands on the module path; empty for its root."""


def needs_of(task: Task) -> SystemNeeds:
    """Raises BadInput for a repository whose environments are not known."""
    recipe = recipe_of(task.environment)
    stamped = recipe.stamped.get("module", "").partition(".")[0]
    packages = tuple(recipe.graft.get("packages", ())) or ((stamped,) if stamped else ())
    first = recipe.variables["PYTHONPATH"].partition(":")[0]
    return SystemNeeds(recipe.variables, packages, first.removeprefix("{root}").strip("/"))


def expected_cost(python: str, packages: Iterable[str]) -> Cost | None:
    """What installing exactly these packages into this interpreter's environment took where the lists were verified; nothing where
    it was not tried."""
    found = _measured()["costs"].get(cost_key(python, packages))
    return found and Cost(mib=found["mib"], seconds=found["seconds"])


def measured_where() -> str:
    """Day and machine of these figures."""
    return str(_measured()["where"])


def cost_key(python: str, packages: Iterable[str]) -> str:
    """Of a minor version and a list: another list, another key."""
    return content_hash(python, *sorted(packages))[:12]


def missing_programs(repo: str) -> tuple[str, ...]:
    """Programs and libraries of the system that a repository's tests call and that are not here."""
    return _missing("programs", repo)


def missing_compilers(repo: str) -> tuple[str, ...]:
    """Those that installing a repository's packages calls and that are not here."""
    return _missing("compilers", repo)


def _missing(kind: str, repo: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in _table()[kind].get(repo, ()) if not _is_here(name)))


_library = cache(ctypes.util.find_library)
"""Asks programs of the system, which takes longer than a plan with hundreds of tasks may ask so often."""


def _is_here(name: str) -> bool:
    if name.startswith("lib"):
        return _library(name.removeprefix("lib")) is not None
    return shutil.which(name) is not None


def install_line(names: Sequence[str]) -> str:
    """The command that installs programs, libraries and compilers of those above. Raises BadInput where no package manager is here whose names
    are known."""
    manager = next((name for name in _table()["packages"] if shutil.which(name)), None)
    if manager is None:
        raise BadInput(
            f"Neither apt-get nor brew is here. Install {', '.join(names)} with this system's own package manager."
        )
    packages = " ".join(sorted({_table()["packages"][manager][name] for name in names}))
    if manager == "brew":
        return f"brew install {packages}"
    # Answers are not asked for, since what it would read them from is the pipe that this line came through.
    root = "" if os.geteuid() == 0 else "sudo "
    return f"{root}apt-get update && {root}apt-get install -y {packages}"
