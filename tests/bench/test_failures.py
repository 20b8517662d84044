"""What failing tests printed is found in the log of their run, whatever runner wrote it."""

import subprocess
import sys
from pathlib import Path

import pytest

from looper.bench.failures import OUTPUT_CHARACTERS, TEST_CHARACTERS, failing_output
from looper.records.task import Runner, Task

MODULE = """
import unittest

class SumTests(unittest.TestCase):
    def test_two(self):
        self.assertEqual(1 + 1, 3)

    def test_told(self):
        "Sums are told."
        raise KeyError("told")

    def test_well(self):
        pass
"""


def printed(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout


def of(task: Task, runner: Runner, *targets: str) -> Task:
    return task.model_copy(update={"runner": runner, "test_targets": targets})


def test_of_pytest_the_test_itself_is_found_and_not_its_copy(tmp_path: Path, task: Task) -> None:
    (tmp_path / "test_sums.py").write_text("def test_two():\n    assert 1 + 1 == 3\n")
    (tmp_path / "test_sums_part.py").write_text("def test_two():\n    assert 1 + 1 == 4\n")
    (tmp_path / "test_broken.py").write_text("import nothing_like_it\n")
    options = ("pytest", "-q", "-rap", "--tb=short", "-p", "no:xdist", "-c", "/dev/null", "--rootdir", ".")
    log = printed(tmp_path, *options, "--continue-on-collection-errors", ".")
    found = failing_output(
        task, log, ["test_sums.py::test_two", "test_broken.py::test_x", "test_sums.py::gone"]
    )
    assert "assert 1 + 1 == 3" in found and "== 4" not in found and "gone" not in found
    assert "test_broken.py::test_x\n" in found and "No module named 'nothing_like_it'" in found


def test_of_unittest_which_django_is_run_by_a_test_is_found_by_its_id_or_its_first_line(
    tmp_path: Path, task: Task
) -> None:
    (tmp_path / "test_sums.py").write_text(MODULE)
    log = printed(tmp_path, "unittest", "-v", "test_sums")
    (two,) = {line.partition(" ... ")[0] for line in log.splitlines() if line.startswith("test_two (")}
    found = failing_output(of(task, Runner.DJANGO), log, [two, "Sums are told."])
    assert found.startswith(f"{two}\nTraceback") and "AssertionError: 2 != 3" in found
    assert "\n\nSums are told.\nTraceback" in found and "KeyError: 'told'" in found


def test_of_sympy_the_file_is_one_of_the_tasks_own(task: Task) -> None:
    log = "\n".join(
        (
            "______________ sympy/core/tests/test_core_part.py:test_two _______________",
            "AssertionError of the copy",
            "________________ sympy/core/tests/test_core.py:test_two __________________",
            'Traceback (most recent call last):\n  File "x", line 1\nAssertionError',
            "============ tests finished: 1 passed, 2 failed, in 0.10 seconds =========",
            "DO *NOT* COMMIT!",
        )
    )
    found = failing_output(of(task, Runner.SYMPY, "sympy/core/tests/test_core.py"), log, ["test_two"])
    assert found == 'test_two\nTraceback (most recent call last):\n  File "x", line 1\nAssertionError'


@pytest.mark.parametrize("lines", [3, 3000])
def test_it_is_bounded_for_each_test_and_for_all(task: Task, lines: int) -> None:
    names = [f"test_{at}" for at in range(30)]
    log = "\n".join(
        f"_____ {name} _____\ntests/a.py:1: in {name}\n" + "x\n" * lines + f"E   {name}" for name in names
    )
    found = failing_output(task, log, [f"tests/a.py::{name}" for name in names])
    assert len(found) <= OUTPUT_CHARACTERS and found.startswith("tests/a.py::test_0\n")
    assert all(len(part) <= TEST_CHARACTERS + 40 for part in found.split("\n\n")) and "E   test_1" in found
