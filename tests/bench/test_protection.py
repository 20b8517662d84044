"""What decides how tests run, and what is product: row V2."""

import sys
import time

import pytest

from looper.bench import standard_library
from looper.bench.protection import Protection, left_out, pytest_settings
from looper.protocols import NOTHING, PathChange
from looper.records.task import Runner, Task

BASES = {
    "pytest-dev/pytest": ("src/_pytest/__init__.py", "src/pytest/__init__.py", "src/_pytest/main.py", "testing/test_a.py"),
    "django/django": ("django/__init__.py", "django/core/management/commands/__init__.py", "tests/runtests.py"),
    "sympy/sympy": ("sympy/__init__.py", "sympy/core/tests/test_a.py", "bin/test", "sympy/testing/runtests.py"),
    "some/product": (
        "pkg/__init__.py", "pkg/commands/__init__.py", "code/util.py", "email/__init__.py", "platform.py", "checks/test_it.py",
        "pyproject.toml", "kept/setup.cfg",
    ),
    "real/library": ("lib/__init__.py", "lib/core.py", "checks/test_it.py"),
}  # fmt: skip


def protection(repo: str, settings_change: bool = False) -> Protection:
    task = Task(
        instance_id="i", suite="swe-bench-cl", repo=repo, base_commit="0" * 40, created_at="2020-01-01", problem_statement="",
        difficulty=1, sequence_id="s", sequence_position=1, dependencies=(), modified_files=(), environment="harness",
        runner=Runner.PYTEST, test_targets=("checks/test_it.py",), gold_patch="", test_patch="", fail_to_pass=(), pass_to_pass=(),
    )  # fmt: skip
    return Protection(task, BASES[repo], lambda change: settings_change)


@pytest.mark.parametrize(
    ("repo", "path", "protected"),
    [
        ("pytest-dev/pytest", "src/_pytest/runner.py", False),
        ("pytest-dev/pytest", "src/pytest/new.py", False),
        ("pytest-dev/pytest", "testing/test_runner.py", True),
        ("pytest-dev/pytest", "src/conftest.py", True),
        ("pytest-dev/pytest", "_pytest/runner.py", True),
        ("django/django", "django/core/management/commands/test.py", False),
        ("django/django", "django/test/runner.py", False),
        ("django/django", "tests/runtests.py", True),
        ("django/django", "conftest.py", True),
        ("sympy/sympy", "sympy/core/tests/test_b.py", True),
        ("sympy/sympy", "sympy/testing/runtests.py", False),
        ("sympy/sympy", "bin/test", True),
        ("some/product", "code/new.py", False),
        ("some/product", "code/util.py", False),
        ("some/product", "code/__init__.py", True),
        ("some/product", "email/charset.py", False),
        ("some/product", "platform.py", False),
        ("some/product", "json.py", True),
        ("some/product", "json/__init__.py", True),
        ("some/product", "json/x.py", True),
        ("some/product", "src/re.py", True),
        ("some/product", "lib/random/__init__.py", True),
        ("some/product", "checks/json.py", True),
        ("some/product", "pkg/json.py", False),
        ("some/product", "pytest.py", True),
        ("some/product", "pluggy/__init__.py", True),
        ("some/product", "pytest_doctestplus/plugin.py", True),
        ("some/product", "src/xdist/__init__.py", True),
        ("some/product", "_hypothesis_pytestplugin.py", True),
        ("some/product", "pkg/pytest_timeout.py", False),
        ("some/product", "pkg/commands/test.py", False),
        ("some/product", "test.py", True),
        ("some/product", "pkg/tests.py", True),
        ("some/product", "pkg/test_x.py", True),
        ("some/product", "pkg/tests/data.txt", True),
        ("some/product", "pytest.ini", True),
        ("some/product", ".pytest.ini", True),
        ("some/product", "pytest.toml", True),
        ("some/product", "tox.ini", True),
        ("some/product", "setup.cfg", True),
        ("some/product", "CONFTEST.py", True),
        ("some/product", "sitecustomize.py", True),
        ("some/product", "sitecustomize/__init__.py", True),
        ("some/product", "src/usercustomize/__init__.py", True),
        ("some/product", "checks/_virtualenv.py", True),
        ("some/product", "_distutils_hack/__init__.py", True),
        ("some/product", "distutils-precedence.pth", True),
        ("some/product", "site/sep.txt", False),
        ("some/product", "packaging/sep.txt", False),
        ("some/product", "py/data/sep.txt", False),
        ("some/product", "py/__init__.py", True),
        ("real/library", "lib/json.py", False),
        ("real/library", "src/json.py", True),
        ("some/product", "assets/setup.cfg", False),
        ("some/product", "templates/tox.ini", False),
        ("some/product", "kept/setup.cfg", True),
        ("some/product", "checks/setup.cfg", True),
        ("some/product", "Checks/SETUP.cfg", True),
        ("some/product", "assets/conftest.py", True),
        ("some/product", "x.pth", True),
        ("some/product", "pkg/x.so", True),
        ("some/product", "pkg/x.pyc", True),
        ("some/product", "pkg/__pycache__/x.cpython-311.pyc", True),
        ("some/product", "x.egg-info/entry_points.txt", True),
        ("some/product", "x-1.dist-info/METADATA", True),
        ("some/product", "pkg/.git", True),
        ("some/product", "pyproject.toml", False),
        ("some/product", "docs/index.txt", False),
        ("some/product", "contest.py", False),
    ],
)
def test_v2_protection_knows_the_repository_and_its_layout(repo: str, path: str, protected: bool) -> None:
    before = "100644" if path in BASES[repo] else NOTHING
    assert protection(repo).covers(PathChange(path, before, "100644")) is protected


@pytest.mark.parametrize(("path", "after"), [("pkg/x", "pipe"), ("pkg/.git", "folder"), ("json", "120000")])
def test_v2_what_no_patch_of_a_product_holds_is_protected(path: str, after: str) -> None:
    assert protection("some/product").covers(PathChange(path, NOTHING, after))


def test_v2_a_pyproject_counts_as_far_as_pytest_reads_it() -> None:
    plain = b"[project]\nname = 'x'\n"
    assert pytest_settings(plain) == pytest_settings(None) == pytest_settings(plain + b"[tool.ruff]\n")
    for told in (b"[tool.pytest.ini_options]\naddopts = '-p x'\n", b"[tool.pytest]\nx = 1\n", b"no toml ["):
        assert pytest_settings(told) != pytest_settings(plain)


@pytest.mark.parametrize(
    "content",
    [b"a." * 100_000 + b"a = 1\n", b"[" + b"a." * 100_000 + b"a]\n", b"# some words\n" * 100_000],
    ids=["key", "table", "size"],
)
def test_c4_a_pyproject_that_takes_hours_to_read_counts_as_one_that_cannot_be_read(content: bytes) -> None:
    begun = time.monotonic()
    assert pytest_settings(content) == content
    assert time.monotonic() - begun < 5


def changes(*paths: str, base: tuple[str, ...] = ()) -> list[PathChange]:
    """New files, and those of the base that are gone."""
    return [PathChange(path, NOTHING, "100644") for path in paths] + [
        PathChange(path, "100644", NOTHING) for path in base
    ]


def test_v2_a_new_pyproject_counts_only_where_pytest_looks_for_it() -> None:
    told = protection("some/product", settings_change=True)
    assert told.covers(PathChange("checks/pyproject.toml", NOTHING, "100644"))
    assert not told.covers(PathChange("assets/pyproject.toml", NOTHING, "100644"))


def test_v2_what_gold_changes_is_allowed_and_what_the_test_patch_writes_never() -> None:
    covers = protection("some/product").covers
    both = changes("setup.cfg", "tests/test_a.py")
    assert left_out(both, covers, {"setup.cfg", "tests/test_a.py"}, (), ()) == ()
    assert left_out(both, covers, {"setup.cfg", "tests/test_a.py"}, {"tests/test_a.py"}, ()) == (
        "tests/test_a.py",
    )


def test_v4_what_stands_in_the_way_is_left_out_with_what_it_hides() -> None:
    covers = protection("some/product").covers
    gone = changes("checks", base=("checks/test_it.py",))
    assert left_out(gone, covers, (), (), ()) == ("checks", "checks/test_it.py")
    assert left_out(changes("a", "a.py"), covers, (), {"a/b/hidden.txt"}, ()) == ("a",)
    assert left_out(changes("a/hidden/x.py"), covers, (), {"a/hidden"}, ()) == ("a/hidden/x.py",)
    assert left_out(changes("where"), covers, (), (), {"where/tests_lie.py"}) == ("where",)


def test_v2_the_standard_library_is_that_of_every_python_that_tasks_run_on() -> None:
    for name in ("imp", "distutils", "formatter", "parser", "macpath", "tomllib", "_bootlocale", "asynchat"):
        assert protection("some/product").covers(PathChange(f"{name}.py", NOTHING, "100644")), name
    own = {name for name in sys.stdlib_module_names if sys.version_info < (3, 14)}
    assert own <= standard_library.NAMES and "test" not in standard_library.NAMES
