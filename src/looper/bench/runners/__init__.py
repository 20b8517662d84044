"""How each test runner is called, and the canaries that are put beside the real tests.

The programs in this folder run inside the sandbox on the task's own interpreter, Python 3.6 or newer, outside of the
tree; they write one JSON line per test as it ends, and a last line with the exit status.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from looper.records.base import content_hash
from looper.records.task import Runner, Task
from looper.records.verdict import TestOutcome


@dataclass(frozen=True)
class CanaryFiles:
    """Names of one test that must pass and one that must fail, and of their module, drawn anew for each run."""

    module: str
    passing: str
    failing: str

    @classmethod
    def draw(cls, token: str) -> "CanaryFiles":
        return cls(f"test_{token}", f"test_{token}_a", f"test_{token}_b")

    def beside(self, folder: PurePosixPath) -> tuple[str, str]:
        """Path and text of a module of plain functions."""
        text = f"def {self.passing}():\n    assert True\n\n\ndef {self.failing}():\n    assert False\n"
        return str(folder / f"{self.module}.py"), text

    def lies(self, seen: dict[str, list[TestOutcome]], finished: int | None) -> tuple[str, ...]:
        """What the canaries show to be wrong; a canary that did not run at all shows nothing here."""
        found = []
        for name, expected in ((self.passing, TestOutcome.PASSED), (self.failing, TestOutcome.FAILED)):
            outcomes = [outcome for key, values in seen.items() if name in key for outcome in values]
            if any(outcome is not expected for outcome in outcomes):
                found.append(f"a canary that must be {expected.value} was {outcomes[0].value}")
            elif not outcomes and finished is not None:
                found.append("a canary did not run")
        return tuple(found)


def programs(place: Path) -> Path:
    """A folder with the runner programs below `place`, for whoever may enter that: the package itself may lie, or have been
    made, where the user whom commands run as cannot read."""
    sources = sorted(set(Path(__file__).parent.glob("*.py")) - {Path(__file__)})
    folder = place / f"runners-{content_hash(*(source.read_text() for source in sources))[:12]}"
    if not folder.is_dir():
        temporary = Path(tempfile.mkdtemp(prefix=".runners-", dir=place))
        for source in sources:
            shutil.copyfile(source, temporary / source.name)
            (temporary / source.name).chmod(0o644)
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            shutil.rmtree(temporary)  # Another verification was faster.
    return folder


@dataclass(frozen=True)
class Invocation:
    """One call of a runner program."""

    program: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    files: dict[str, str]
    """Canaries, by the path in the tree where they must lie."""


def invocation(task: Task, canaries: CanaryFiles) -> Invocation:
    return {Runner.DJANGO: _django, Runner.SYMPY: _sympy, Runner.PYTEST: _pytest}[task.runner](task, canaries)


def _pytest(task: Task, canaries: CanaryFiles) -> Invocation:
    if task.environment != "harness":
        return _pytest_as_configured(task, canaries)
    folder = PurePosixPath(task.test_targets[0]).parent if task.test_targets else PurePosixPath()
    path, source = canaries.beside(folder)
    files = _files_of(task)
    return Invocation(
        "run_pytest.py", (*files, path), {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, {path: source}
    )


def _pytest_as_configured(task: Task, canaries: CanaryFiles) -> Invocation:
    # Targets can be data of tests, so the place of a test that must be fixed is the one to be beside.
    folder = PurePosixPath(task.fail_to_pass[0].partition("::")[0]).parent
    path, source = canaries.beside(folder)
    return Invocation("run_pytest.py", ("--as-configured", *task.test_targets, path), {}, {path: source})


def _sympy(task: Task, canaries: CanaryFiles) -> Invocation:
    folder = PurePosixPath(task.test_targets[0]).parent
    path, source = canaries.beside(folder)
    return Invocation("run_sympy.py", (*task.test_targets, path), {}, {path: source})


def _files_of(task: Task) -> tuple[str, ...]:
    """Test files that hold the ids of a task."""
    named = {name.partition("::")[0] for name in (*task.fail_to_pass, *task.pass_to_pass) if "::" in name}
    return tuple(sorted(named.union(task.test_targets)))


def _django(task: Task, canaries: CanaryFiles) -> Invocation:
    # A label of its own: an application folder below tests/ with one module.
    label = canaries.module
    source = (
        "import unittest\n\n\n"
        "class Canary(unittest.TestCase):\n"
        f"    def {canaries.passing}(self):\n        self.assertTrue(True)\n\n"
        f"    def {canaries.failing}(self):\n        self.assertTrue(False)\n"
    )
    files = {f"tests/{label}/__init__.py": "", f"tests/{label}/tests.py": source}
    return Invocation("run_django.py", (*task.test_targets, label), {}, files)
