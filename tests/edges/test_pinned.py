"""Environments of old repositories: built once from frozen lists, each fault with its cause and what to do."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from looper.edges.environments import interpreters, known
from looper.edges.environments.beside import grafted_site, stamped_site
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.environments.installed import packages_of
from looper.edges.environments.interpreters import find_interpreter, get_interpreter, how_to_get
from looper.edges.environments.known import (
    Recipe,
    expected_cost,
    install_line,
    known_keys,
    missing_programs,
    recipe_of,
    supported_versions,
)
from looper.edges.environments.pinned import PinnedEnvironments
from looper.errors import BadInput, EnvironmentBroken
from looper.records.task import Task

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
VARIABLE = f"LOOPER_PYTHON_{HERE.replace('.', '_')}"


def recipe(*packages: str) -> Recipe:
    return Recipe(
        key=f"owner/{packages[0][:4]}@1", python=HERE, lock=packages[0], packages=packages, variables={}
    )


def wheel(folder: Path, name: str, version: str) -> None:
    """A package with one module."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{path},,\n" for path in (*files, f"{about}/RECORD")))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package index that has `ship` 1.0, and this interpreter as the one that is wanted."""
    wheel(tmp_path / "index" / "ship", "ship", "1.0")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "index"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv(VARIABLE, sys.executable)
    yield os.environ["UV_DEFAULT_INDEX"]
    server.shutdown()
    server.server_close()


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
    assert all("==" in package for key in known_keys() for package in recipe_of(key).packages)


def test_a_repository_that_is_not_known_is_named_with_those_that_are(tmp_path: Path, task: Task) -> None:
    unknown = task.model_copy(update={"environment": "scikit-learn/scikit-learn@0.9"})
    with pytest.raises(
        BadInput, match=r"No environment is known for scikit-learn/scikit-learn 0.9.*django/django@3.0"
    ):
        PinnedEnvironments(tmp_path, print).of(unknown)


def test_an_environment_is_built_once_and_holds_its_list_and_what_it_took(tmp_path: Path, index: str) -> None:
    said: list[str] = []
    base = PinnedEnvironments(tmp_path / "here", said.append).base(recipe("ship==1.0"))
    asked = [str(base.python), "-c", "import ship; print(ship.version)"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "1.0\n"
    kept = json.loads((base.target / "complete.json").read_text())
    assert kept["packages"] == ["ship==1.0"] and kept["seconds"] > 0 and kept["mib"] >= 0
    assert len(said) == 2 and "MiB in" in said[1]
    assert PinnedEnvironments(tmp_path / "here", said.append).base(recipe("ship==1.0")) == base
    assert len(said) == 2


def lose(base: Path) -> None:
    (packages_of(base) / "ship.py").unlink()


def lose_all(base: Path) -> None:
    shutil.rmtree(base / "lib")


def lose_with_its_record(base: Path) -> None:
    lose(base)
    shutil.rmtree(packages_of(base) / "ship-1.0.dist-info")


def change(base: Path) -> None:
    """In place, and so in uv's cache too where that has the file in common."""
    with (packages_of(base) / "ship.py").open("r+") as file:
        file.write("version = '9")


def add(base: Path) -> None:
    (packages_of(base) / "more.pth").write_text("import os; os._exit(0)\n")


def relink(base: Path) -> None:
    (base / "bin" / "python").unlink()
    (base / "bin" / "python").symlink_to("/bin/true")


@pytest.mark.parametrize("harm", [lose, lose_all, lose_with_its_record, change, add, relink])
def test_an_environment_that_is_not_as_it_was_installed_is_not_ready_and_made_anew(
    tmp_path: Path, index: str, harm: Callable[[Path], None]
) -> None:
    ship, said = recipe("ship==1.0"), list[str]()
    base = PinnedEnvironments(tmp_path / "here", print).base(ship)
    time.sleep(0.01)  # The clock of a file system goes by steps.
    harm(base.target)
    assert PinnedEnvironments(tmp_path / "here", said.append).base(ship) == base
    assert "is damaged (" in said[0] and "made anew" in said[0]
    asked = [str(base.python), "-c", "import ship; print(ship.version)"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "1.0\n"
    PinnedEnvironments(tmp_path / "here", said.append).base(ship)
    assert len(said) == 3


def test_the_harness_s_own_environment_is_made_anew_where_it_is_damaged(tmp_path: Path, task: Task) -> None:
    made = HarnessEnvironment(tmp_path).of(task)
    before = made.readable[0].stat().st_ino
    assert HarnessEnvironment(tmp_path).of(task).readable[0].stat().st_ino == before
    shutil.rmtree(packages_of(made.readable[0]) / "pluggy")
    again = HarnessEnvironment(tmp_path).of(task)
    assert again == made and again.readable[0].stat().st_ino != before
    subprocess.run([again.python, "-c", "import pytest"], check=True)


def test_r3_uv_is_the_one_that_came_with_looper(
    tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither uv nor pyenv is on the search path."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert shutil.which("uv") is None
    assert PinnedEnvironments(tmp_path / "here", print).base(recipe("ship==1.0")).python.exists()


@pytest.mark.parametrize(
    ("package", "at", "said"),
    [
        ("ship==1.0", "http://127.0.0.1:9", "package index does not answer.*UV_DEFAULT_INDEX"),
        ("boat==1.0", "", "index does not have all of the frozen list"),
        ("ship==2.0", "", "index does not have all of the frozen list"),
        ("ship==1.0.0", "", "installed other packages than its list has: ship==1.0, ship==1.0.0"),
    ],
    ids=["no index", "no such package", "no such version", "another list"],
)
def test_what_cannot_be_built_is_one_line_with_what_to_do_and_its_log_and_the_others_are_built(
    tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch, package: str, at: str, said: str
) -> None:
    environments = PinnedEnvironments(tmp_path / "here", lambda line: None)
    good = environments.base(recipe("ship==1.0")) if not at else None
    monkeypatch.setenv("UV_DEFAULT_INDEX", at or index)
    with pytest.raises(EnvironmentBroken, match=said) as broken:
        environments.base(recipe(package))
    assert "\n" not in str(broken.value)
    built = [path.parent for path in (tmp_path / "here").glob("*/complete.json")]
    assert built == ([good.target] if good else []), "nothing half is left, and nothing whole is gone"
    if "whole log" in str(broken.value):
        assert Path(str(broken.value).partition("The whole log: ")[2].split()[0].rstrip(".")).read_text()


@pytest.mark.parametrize(("variable", "value"), [("UV_OFFLINE", "1"), ("UV_EXCLUDE_NEWER", "2000-01-01")])
def test_a_setting_of_uv_that_keeps_a_package_away_is_named(
    tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(EnvironmentBroken, match=f"uv is told to .*: unset {variable}, or") as broken:
        PinnedEnvironments(tmp_path / "here", lambda line: None).base(recipe("ship==1.0"))
    assert "index does not" not in str(broken.value)


def test_a_full_disk_is_named_and_what_was_built_stays(tmp_path: Path, index: str) -> None:
    wheel(tmp_path / "index" / "boat", "boat", "1.0")
    first = PinnedEnvironments(tmp_path / "here", lambda line: None).base(recipe("boat==1.0"))
    (tmp_path / "here" / f"{first.target.name}.txt").unlink()
    shutil.rmtree(first.target)
    (tmp_path / "here" / f"{first.target.name}.txt").symlink_to("/dev/full")
    full = PinnedEnvironments(tmp_path / "here", lambda line: None)
    with pytest.raises(EnvironmentBroken, match=r"No space left on device.*make room.*UV_CACHE_DIR"):
        full.base(recipe("boat==1.0"))
    assert full.base(recipe("ship==1.0")).python.exists() and not first.target.exists()


def test_j5_what_fails_is_tried_once_by_all_threads_and_for_all_versions_that_share_it(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = tmp_path / "tried"
    (tmp_path / "python").write_text(f"#!/bin/sh\necho >> {tried}\nsleep 0.2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("LOOPER_PYTHON_3_9", str(tmp_path / "python"))
    environments = PinnedEnvironments(tmp_path / "environments", print)

    def answer(version: str) -> str:
        with pytest.raises(EnvironmentBroken) as broken:
            environments.of(task.model_copy(update={"environment": f"sympy/sympy@{version}"}))
        return str(broken.value)

    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(answer, supported_versions("sympy/sympy") * 2))
    (only,) = said
    assert only.count("not tried again before the next command") == 1
    assert tried.read_text().count("\n") == 1


def test_programs_that_tests_call_are_named_and_so_is_what_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    def program(name: str) -> None:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)

    assert "gs" in missing_programs("matplotlib/matplotlib") and missing_programs("django/django") == ()
    with pytest.raises(BadInput, match=r"Neither apt-get nor brew is here. Install gs, cc with"):
        install_line(["gs", "cc"])
    program("brew")
    assert install_line(["dot", "libcairo"]) == "brew install cairo graphviz"
    program("apt-get")
    assert install_line(["cc", "c++", "dot"]).endswith("apt-get install -y build-essential graphviz")
    program("gs")
    assert "gs" not in missing_programs("matplotlib/matplotlib")


def test_every_program_has_a_name_in_every_package_manager() -> None:
    table = known._table()
    called = {name for kind in ("programs", "compilers") for names in table[kind].values() for name in names}
    assert all(called <= set(names) for names in table["packages"].values())


def test_what_building_takes_is_known_for_the_very_lists_that_were_measured_and_for_no_other() -> None:
    keys = {
        known.cost_key(each.python, packages)
        for each in map(recipe_of, known_keys())
        for packages in (
            each.packages,
            *((f"{each.graft['name']}=={version}",) for version in each.releases.values()),
        )
    }
    assert set(known._measured()["costs"]) <= keys, "scripts/check_locks.py measures them anew"
    django = recipe_of("django/django@3.0")
    assert expected_cost(django.python, django.packages) is not None
    assert expected_cost(django.python, (*django.packages[1:], "pytz==2000.1")) is None
    assert expected_cost("3.7", django.packages) is None


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("/no/such/python", r"no Python that runs \(No such file or directory\)"),
        (sys.executable, f"cpython {HERE}"),
        ("/", r"no Python that runs \(Permission denied\)"),
    ],
)
def test_an_interpreter_that_is_named_and_is_another_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, said: str
) -> None:
    monkeypatch.setenv("LOOPER_PYTHON_2_3", named)
    with pytest.raises(
        EnvironmentBroken, match=f"LOOPER_PYTHON_2_3 names {named}, which is {said}: name a CPython 2.3"
    ):
        find_interpreter("2.3", tmp_path)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("sleep 1000 & echo $! > $0.child; sleep 1000", "it did not answer within 1 s"),
        ("(trap '' HUP; exec sleep 1000) & echo $! > $0.child", "it did not answer within 1 s"),
        ("yes", "it said more than 64 KiB"),
        ("yes >&2", "it said more than 64 KiB"),
        (r"printf '\377\376'", "what it answers is no version"),
        (r"printf '\033[2J'", "what it answers is no version"),
        ("echo hello; echo cpython 2.3", "what it answers is no version"),
        (r"printf 'no \377\n' >&2; exit 3", "no \ufffd"),
        ("exit 3", "it ended with status 3"),
        ("kill -SEGV $$", "it ended with status -11"),
    ],
)
def test_an_interpreter_that_gives_no_answer_is_not_waited_for_and_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    named = tmp_path / "python"
    named.write_text(f"#!/bin/sh\n{script}\n")
    named.chmod(0o755)
    monkeypatch.setenv("LOOPER_PYTHON_2_3", str(named))
    monkeypatch.setattr(interpreters, "ANSWER_S", 1.0)
    begun = time.monotonic()
    with pytest.raises(EnvironmentBroken) as broken:
        find_interpreter("2.3", tmp_path)
    assert f"which is no Python that runs ({why}): name a CPython 2.3" in str(broken.value)
    with pytest.raises(EnvironmentBroken):
        find_interpreter("2.3", tmp_path)
    assert time.monotonic() - begun < 10, "asked once"
    if (child := tmp_path / "python.child").exists():
        time.sleep(0.1)
        assert not Path(f"/proc/{child.read_text().strip()}/exe").exists(), "what it started is ended"


def test_an_interpreter_that_is_nowhere_is_named_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PATH", "PYENV_ROOT", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(
        EnvironmentBroken,
        match=r"no Python 3\.6 here. uv has none so old.*pyenv install 3\.6.*LOOPER_PYTHON_3_6=",
    ):
        get_interpreter("3.6", tmp_path, print)


def test_a_project_s_own_settings_of_uv_say_nothing_of_interpreters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.uv]\nrequired-version = "<0.5"\n')
    monkeypatch.chdir(tmp_path)
    assert "looper bench prepare installs one with uv" in how_to_get("3.12")


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
