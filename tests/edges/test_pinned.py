"""Environments of old repositories: what is known, and versions that an installation would read from tags."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from looper.edges.environments.beside import grafted_site, stamped_site
from looper.edges.environments.pinned import (
    PinnedEnvironments,
    find_interpreter,
    supported_versions,
)
from looper.errors import BadInput, EnvironmentBroken
from looper.records.task import Task


def test_eight_repositories_are_known_and_their_lists_pin_every_package() -> None:
    counts = {
        "django/django": 5,
        "sympy/sympy": 12,
        "sphinx-doc/sphinx": 15,
        "pydata/xarray": 4,
        "pytest-dev/pytest": 10,
        "astropy/astropy": 6,
        "matplotlib/matplotlib": 6,
        "scikit-learn/scikit-learn": 4,
    }
    assert {repo: len(supported_versions(repo)) for repo in counts} == counts
    assert supported_versions("nobody/nothing") == ()


def test_a_repository_that_is_not_known_is_named_with_those_that_are(tmp_path: Path, task: Task) -> None:
    unknown = task.model_copy(update={"environment": "scikit-learn/scikit-learn@0.9"})
    with pytest.raises(
        BadInput, match=r"No environment is known for scikit-learn/scikit-learn 0.9.*django/django@3.0"
    ):
        PinnedEnvironments(tmp_path, print).of(unknown)


def test_j5_an_environment_that_cannot_be_made_is_tried_once(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    tried = tmp_path / "tried"
    (tmp_path / "python").write_text(f"#!/bin/sh\necho >> {tried}\necho no disk >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    for version in ("3.5", "3.6", "3.7", "3.8", "3.9"):
        monkeypatch.setenv(f"LOOPER_PYTHON_{version.replace('.', '_')}", str(tmp_path / "python"))
    environments = PinnedEnvironments(tmp_path / "environments", print)
    old = task.model_copy(update={"environment": "django/django@3.0"})
    said = []
    for _ in range(3):
        with pytest.raises(EnvironmentBroken, match="not tried again before the next command") as error:
            environments.of(old)
        said.append(str(error.value))
    assert len(set(said)) == 1 and tried.read_text().count("\n") == 1


def test_programs_that_tests_call_are_named_with_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert PinnedEnvironments.missing_programs("matplotlib/matplotlib") == {"gs": "ghostscript"}
    assert PinnedEnvironments.missing_programs("django/django") == {}
    (tmp_path / "gs").write_text("#!/bin/sh\n")
    (tmp_path / "gs").chmod(0o755)
    assert PinnedEnvironments.missing_programs("matplotlib/matplotlib") == {}


def test_an_interpreter_that_is_not_there_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOOPER_PYTHON_2_3", "/no/such/python")
    with pytest.raises(
        EnvironmentBroken, match=r"no Python 2\.3 here.*uv python install 2\.3.*LOOPER_PYTHON_2_3"
    ):
        find_interpreter("2.3")


def test_a_version_is_said_in_place_of_the_installation_and_the_tree_stays_as_it_is(tmp_path: Path) -> None:
    """A workspace has one commit and no tags, so what an installation reads from them is put in from beside."""
    package = tmp_path / "tree" / "ship"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from ship._version import version\n")
    site = stamped_site(tmp_path, "ship", "ship._version", "5.4.1.dev593")
    program = (
        "import ship, ship._version as found, importlib.metadata as metadata\n"
        "print(ship.version, found.version_tuple, ship._version.version, metadata.version('ship'))"
    )
    said = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env={**os.environ, "PYTHONPATH": f"{package.parent}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.strip() == "5.4.1.dev593 (5, 4, 1) 5.4.1.dev593 5.4.1.dev593"
    assert [path.name for path in package.iterdir()] == ["__init__.py"]


def test_modules_of_a_release_are_found_where_the_tree_has_none_and_only_there(tmp_path: Path) -> None:
    """Compiled modules and generated ones; `_json` of this very interpreter stands for a compiled one."""
    import _json

    tree, release = tmp_path / "tree" / "ship", tmp_path / "release" / "ship"
    for place in (tree, release):
        place.mkdir(parents=True)
        (place / "__init__.py").write_text("")
        (place / "hull.py").write_text(f"where = {place.parent.name!r}\n")
    (release / "generated.py").write_text("where = 'release'\n")
    if getattr(_json, "__file__", None):
        shutil.copy(_json.__file__, release / Path(_json.__file__).name)
    (tmp_path / "release" / "other.py").write_text("")
    site = grafted_site(tmp_path / "release", ("ship",))
    program = (
        "from ship import generated, hull\nprint(hull.where, generated.where)\n"
        "try:\n    import other\nexcept ImportError:\n    print('nothing else')"
    )
    if getattr(_json, "__file__", None):
        program += f"\nfrom ship import _json\nprint(_json.__file__.startswith({str(release)!r}))"
    said = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env={**os.environ, "PYTHONPATH": f"{tree.parent}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[:2] == ["tree", "release"] and said[2:4] == ["nothing", "else"]
    assert said[4:] in ([], ["True"])
