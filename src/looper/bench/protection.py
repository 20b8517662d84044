"""What of a change decides how tests run rather than what the product does, so that it must not count.

`verify` asks it once the patch is applied: every path that differs is kept or left out, by kinds (tests, their configuration,
plug-ins, caches). What is left out is put back as in the base tree and named in the verdict; gold's own paths are exempt.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

from looper.bench import standard_library
from looper.protocols import NOTHING, PathChange
from looper.records.task import Task

_FILES_AND_LINKS = ("100644", "100755", "120000", NOTHING)
_LOADED = frozenset({"conftest.py", "sitecustomize.py", "usercustomize.py"})
_CONFIGURATION = frozenset(
    {"pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg"}
)
"""pytest looks for these beside the tests that it is given, and in the folders above."""
SHARED_CONFIGURATION = "pyproject.toml"
"""Holds settings of pytest beside others, and counts as its configuration where those change."""
SETTINGS_BYTES = 1 << 20
KEY_DOTS = 100
"""Of a shared configuration that is read, and of each of its lines: the reader takes hours over a key of some 100,000 parts."""
_IMPORTED = (".pth", ".pyc", ".pyo", ".so", ".pyd", ".egg-link", ".egg")
"""Ends of names that Python loads or obeys in place of the sources."""
_METADATA = re.compile(r"\.(egg|dist)-info/|(^|/)__pycache__/|(^|/)\.git(/|$)", re.IGNORECASE)
"""Entry points, which load plugins; byte code, which can be marked so that it is never compared with its source; records of git."""
_RUNNER_PACKAGES = frozenset({"pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py"})
_PLUGINS = re.compile(r"pytest_\w+|_?hypothesis\w*|xdist|execnet|coverage|psutil")
"""What an environment may have beside pytest is loaded where pytest starts, when the tree is on the module path already."""
_STARTUP = frozenset({"sitecustomize", "usercustomize", "_virtualenv", "_distutils_hack"})
"""Python imports these before anything else, where there are any."""
# `django/test` and `sympy/testing` are products, `tests` is nobody's.
_TEST_FILE = re.compile(r"(^|/)tests/|^(test|testing)/|(^|/)(test_[^/]*|[^/]*_tests?)\.py$|(^|/)tests?\.py$")
_PRODUCT = {"django/django": ("django/",), "pytest-dev/pytest": ("src/",)}
"""Folders that hold no tests, whatever their files are called."""
_OWN_RUNNERS = {"sympy/sympy": re.compile(r"^bin/.*test")}


class Protection:
    """Of one task's tree."""

    def __init__(
        self, task: Task, base: Collection[str], pytest_settings_change: Callable[[PathChange], bool]
    ) -> None:
        """`pytest_settings_change` says of a shared configuration whether what it tells pytest is another now."""
        self._task, self._base, self._settings_change = task, base, pytest_settings_change
        usual = (folder for folder in ("src", "lib") if f"{folder}/__init__.py" not in base)
        self._roots = {"", *usual, *(_import_root(path, base) for path in task.test_targets)}
        ids = (name.partition("::")[0] for name in (*task.fail_to_pass, *task.pass_to_pass))
        tests = [PurePosixPath(path.lower()) for path in (*task.test_targets, *ids)]
        self._searched = {PurePosixPath(), *(folder for test in tests for folder in (test, *test.parents))}

    def covers(self, change: PathChange) -> bool:
        path = change.path
        name = PurePosixPath(path).name.lower()
        if change.after not in _FILES_AND_LINKS or name in _LOADED:
            return True
        # A new file elsewhere is data: no option of the base tree can name it.
        searched = change.before != NOTHING or PurePosixPath(path.lower()).parent in self._searched
        if name == SHARED_CONFIGURATION:
            return searched and self._settings_change(change)
        if name in _CONFIGURATION and searched:
            return True
        return (
            name.endswith(_IMPORTED)
            or _METADATA.search(path) is not None
            or self._is_test(path)
            or any(self._shadows(change, root) for root in self._roots)
        )

    def _is_test(self, path: str) -> bool:
        own = _OWN_RUNNERS.get(self._task.repo)
        if own is not None and own.search(path):
            return True
        if path.startswith(_PRODUCT.get(self._task.repo, ())) or not _TEST_FILE.search(path):
            return False
        # A command called `test` is a module of its package.
        folder, _, name = path.rpartition("/")
        return (
            name != "test.py"
            or _TEST_FILE.search(f"{folder}/") is not None
            or f"{folder}/__init__.py" not in self._base
        )

    def _shadows(self, change: PathChange, root: str) -> bool:
        """Whether a file at an import root would be found in place of the standard library or the runner. What the base tree
        has there is the product's own."""
        if root and not change.path.startswith(f"{root}/"):
            return False
        inside = change.path.removeprefix(f"{root}/")
        top, _, below = inside.partition("/")
        module = top if below else top.partition(".")[0]
        if module in _STARTUP:
            return bool(below) or top in (module, f"{module}.py")
        runner = module in _RUNNER_PACKAGES or _PLUGINS.fullmatch(module) is not None
        if not runner and module not in standard_library.NAMES:
            return False
        place = f"{root}/{module}" if root else module
        if f"{place}.py" in self._base or f"{place}/__init__.py" in self._base:
            return False
        if not below:
            return top == f"{module}.py" or change.after == "120000"
        # Beside other files of a folder that is no package, only what makes a package of it would be found first.
        known = any(other.startswith(f"{place}/") for other in self._base)
        package = below.partition(".")[0] == "__init__"
        return package or (not known and (below.endswith(".py") or change.after == "120000"))


def _import_root(test: str, base: Collection[str]) -> str:
    """The folder that pytest puts first on the module path for a test file: the first above it that is no package."""
    for folder in PurePosixPath(test).parents:
        if f"{folder}/__init__.py" not in base:
            return "" if folder == PurePosixPath() else str(folder)
    return ""


def pytest_settings(content: bytes | None) -> object:
    """What a pyproject.toml says to pytest; the content itself where it cannot be read, or not soon."""
    if content is None:
        return {}
    if len(content) > SETTINGS_BYTES or any(line.count(b".") > KEY_DOTS for line in content.split(b"\n")):
        return content
    try:
        tool = tomllib.loads(content.decode("utf-8")).get("tool", {})
        return {name: value for name, value in tool.items() if name.startswith("pytest")}
    except (ValueError, AttributeError, RecursionError):
        return content


def left_out(
    changes: Iterable[PathChange],
    covers: Callable[[PathChange], bool],
    by_gold: Collection[str],
    tests: Collection[str],
    places: Collection[str],
) -> tuple[str, ...]:
    """Paths that must be as in the base tree before the tests run: what is protected and not changed by gold, what the test
    patch writes, and what stands in the way of those, or of a folder in which tests lie (`places`)."""
    changes = tuple(changes)
    chosen = {
        change.path
        for change in changes
        if change.path in tests or (change.path not in by_gold and covers(change))
    }
    needed = {
        *tests,
        *(change.path for change in changes if change.path in chosen and change.before != NOTHING),
    }
    above = {str(folder) for path in (*needed, *places) for folder in PurePosixPath(path).parents}
    for change in changes:
        if change.after != NOTHING and (
            change.path in above
            or any(str(folder) in needed for folder in PurePosixPath(change.path).parents)
        ):
            chosen.add(change.path)
    return tuple(sorted(chosen))
