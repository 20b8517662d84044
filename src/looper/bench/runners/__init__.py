"""How each test runner is called, and where its tests and the canaries beside them lie.

The programs in this folder run inside the sandbox on the task's own interpreter, Python 3.6 or newer, outside of the tree; they
report each test as it ends, and at the end the exit status.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from looper.records.plan import PLAIN_SUITES
from looper.records.task import Runner, Task

OWN_RUNNER = "pytest-dev/pytest"
"""The repository whose tests are run by what it is."""
_DJANGO_ID = re.compile(r"(\w+) \(([\w.]+?)\.(\w+)(?:\.\1)?\)")


@dataclass(frozen=True)
class TestPlace:
    """A test, or a copy of one, as its runner reports it."""

    __test__ = False

    path: str
    """Its file in the tree."""
    where: str
    """Its file, for django its dotted module."""
    name: str
    """Its function, as `Class::method` where it is one; without parameters."""
    package: str = ""
    """A new folder that its file needs, as a package; empty where it lies beside others."""


def programs() -> dict[str, bytes]:
    """The runner programs by their names."""
    return {source.name: source.read_bytes() for source in sorted(Path(__file__).parent.glob("[!_]*.py"))}


@dataclass(frozen=True)
class Invocation:
    """One call of a runner program."""

    program: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    whole_suite: bool = False
    """Whether all tests of the repository are run, the canaries among them."""


def places(task: Task, ids: tuple[str, ...]) -> Iterator[TestPlace]:
    """Where the tests of these ids can be; ids that are docstrings say nothing of it."""
    for name in ids:
        if task.runner is Runner.DJANGO:
            if found := _DJANGO_ID.fullmatch(name):
                yield TestPlace(django_path(found[2]), found[2], f"{found[3]}::{found[1]}")
        elif task.runner is Runner.SYMPY:
            for path in task.test_targets:
                yield TestPlace(path, path, name)
        elif "::" in name:
            path, _, rest = name.partition("::")
            yield TestPlace(path, path, rest.partition("[")[0])


def files_of(task: Task) -> tuple[str, ...]:
    """Test files that the ids and targets of a task name."""
    ids = _ids(task)
    targets = (
        map(django_path, task.test_targets)
        if task.runner is Runner.DJANGO
        else (name for name in task.test_targets if name.endswith(".py"))
    )
    return tuple(dict.fromkeys([*(place.path for place in places(task, ids)), *targets]))


def django_path(module: str) -> str:
    return f"tests/{module.replace('.', '/')}.py"


def beside(task: Task, place: TestPlace, word: str) -> TestPlace:
    """Where a copy of a test's module can lie, named like it."""
    path = PurePosixPath(place.path)
    stem = path.stem.removesuffix("s") if path.stem == "tests" else path.stem
    copy = str(path.with_name(f"{stem}_{word}.py"))
    return TestPlace(copy, _where(task, copy), place.name)


def plain_place(task: Task, word: str) -> TestPlace:
    """Where a module of tests that need no product can lie."""
    if task.runner is Runner.DJANGO:
        # A label of its own: an application folder below tests/ with one module.
        folder = f"tests/{word}_tests"
        return TestPlace(f"{folder}/tests.py", f"{word}_tests.tests", "", folder)
    # Targets can be data of tests, so the place of a test that must be fixed is the one to be beside.
    beside = next((name.partition("::")[0] for name in task.fail_to_pass if "::" in name), "")
    beside = beside or next((name for name in task.test_targets if name.endswith(".py")), "")
    path = str(PurePosixPath(beside).parent / f"test_{word}.py")
    return TestPlace(path, path, "")


def _where(task: Task, path: str) -> str:
    if task.runner is Runner.DJANGO:
        return path.removeprefix("tests/").removesuffix(".py").replace("/", ".")
    return path


def written_here(task: Task) -> bool:
    """Whether the tests were written for Looper, so that what their files are called and what pytest offers is nothing to them."""
    # The embedded suite's tasks name its level, and a variant, behind it.
    return any(task.suite == name or task.suite.startswith(f"{name}-") for name in PLAIN_SUITES)


def invocation(task: Task, before: tuple[str, ...], after: tuple[str, ...]) -> Invocation:
    """How a task's tests are run between canaries, which are named as their runner reports them."""
    files: tuple[str, ...] = task.test_targets
    if task.runner is Runner.PYTEST and task.environment == "harness":
        files = tuple(sorted({*(place.path for place in places(task, _ids(task))), *files}))
    # With no file the suite runs, and finds the canaries by itself.
    files = (*before, *files, *after) if files else ()
    whole = not files
    if task.runner is Runner.SYMPY:
        return Invocation("run_sympy.py", files, {}, whole)
    if task.runner is Runner.DJANGO:
        return Invocation("run_django.py", files, {}, whole)
    if task.environment == "harness":
        bare = ("--bare",) if written_here(task) else ()
        return Invocation("run_pytest.py", (*bare, *files), {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, whole)
    own = ("--from-tree",) if task.repo == OWN_RUNNER else ()
    return Invocation("run_pytest.py", ("--as-configured", *own, *files), {}, whole)


def _ids(task: Task) -> tuple[str, ...]:
    return (*task.fail_to_pass, *task.pass_to_pass)
