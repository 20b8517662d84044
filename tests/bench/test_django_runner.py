"""The runner of django's tests, on a tree with a program like django's that runs real tests of unittest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from looper.bench import runners

RUNTESTS = """
import os
import sys
import unittest

options, labels = sys.argv[1:6], sys.argv[6:]
assert options == ["--verbosity", "2", "--settings=test_sqlite", "--parallel", "1"], options
assert os.path.basename(sys.argv[0]) == "runtests.py" and __file__ == sys.argv[0] and __name__ == "__main__"
import product
names = labels or [name for name in os.listdir(os.path.dirname(os.path.abspath(__file__))) if name.endswith("_tests")]
print("ORDER", *names, file=sys.stderr)
suite = unittest.defaultTestLoader.loadTestsFromNames([name if "." in name else name + ".tests" for name in names])
found = unittest.TextTestRunner(verbosity=0).run(suite)
sys.exit(bool(found.failures or found.errors) if {code!r} is None else {code!r})
"""
TESTS = '''
import unittest


class FirstTests(unittest.TestCase):
    def test_passes(self):
        """Passes, as it says."""
        self.assertEqual(1, 1)

    def test_fails(self):
        self.assertEqual(1, 2)

    def test_breaks(self):
        raise KeyError("gone")

    def test_is_skipped(self):
        self.skipTest("not today")

    @unittest.expectedFailure
    def test_fails_as_known(self):
        self.assertEqual(1, 2)

    @unittest.expectedFailure
    def test_passes_unexpectedly(self):
        pass

    def test_parts_pass(self):
        for number in (1, 2):
            with self.subTest(number=number):
                pass

    def test_a_part_fails(self):
        for number in (1, 2):
            with self.subTest(number=number):
                self.assertEqual(number, 1)

    def test_a_part_breaks(self):
        for number in (0, 1):
            with self.subTest(number=number):
                1 / number

    def test_a_part_is_skipped(self):
        for number in (1, 2):
            with self.subTest(number=number):
                self.skipTest("not this one")

    def test_one_fails_and_one_breaks(self):
        with self.subTest(number=1):
            1 / 0
        with self.subTest(number=2):
            self.fail("no")


@unittest.skip("not at all")
class SkippedTests(unittest.TestCase):
    def test_of_a_skipped_class(self):
        pass


class UnmadeTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise ValueError("no class")

    def test_never_runs(self):
        pass


class SkippedInSetUpTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise unittest.SkipTest("no database")

    def test_never_runs(self):
        pass
'''
OUTCOMES = {
    "test_passes": "passed",
    "test_fails": "failed",
    "test_breaks": "error",
    "test_is_skipped": "skipped",
    "test_fails_as_known": "xfailed",
    "test_passes_unexpectedly": "failed",
    "test_parts_pass": "passed",
    "test_a_part_fails": "failed",
    "test_a_part_breaks": "error",
    "test_a_part_is_skipped": "skipped",
    "test_one_fails_and_one_breaks": "error",
}


def tree(place: Path, *, code: object = None, tests: str = TESTS, product: str = "") -> Path:
    for name in ("b_tests", "a_tests"):
        (place / "tests" / name).mkdir(parents=True)
        (place / "tests" / name / "__init__.py").touch()
    (place / "tests" / "b_tests" / "tests.py").write_text(tests)
    (place / "tests" / "a_tests" / "tests.py").write_text("")
    (place / "tests" / "runtests.py").write_text(RUNTESTS.replace("{code!r}", repr(code)))
    (place / "product.py").write_text(product)
    return place


def run(place: Path, *labels: str) -> tuple[list[list[str]], subprocess.CompletedProcess[str]]:
    """What was reported, and how the program ended."""
    report = place.with_name(f"{place.name}.report")
    report.write_text("secret\ncopied.py")
    program = Path(runners.__file__).with_name("run_django.py")
    done = subprocess.run(
        [sys.executable, "-B", str(program), str(report), *labels],
        cwd=place,
        env={**os.environ, "LOOPER_MODULE_PATH": str(place)},
        capture_output=True,
        text=True,
    )
    lines = [line.split(" ", 2) for line in report.read_text().splitlines()]
    assert [line[0] for line in lines] == [str(number) for number in range(len(lines))]
    assert "secret" not in report.read_text()
    said = [json.loads(line[2]) for line in lines]
    assert said[0] == ["begun"]
    return said[1:], done


def test_every_test_is_reported_once_by_its_id_and_by_its_docstring(tmp_path: Path) -> None:
    said, done = run(tree(tmp_path / "tree"), "b_tests")
    assert said[-1] == ["exit", "1"] and done.returncode == 1
    where = "b_tests.tests"
    found = {words[3].partition("::")[2]: words for words in said if words[0] == "test"}
    for name, outcome in OUTCOMES.items():
        each = found.pop(name)
        assert each[:4] == ["test", outcome, where, f"FirstTests::{name}"], name
        assert each[4].startswith(f"{name} ({where}.FirstTests")
        assert each[5:] == (["Passes, as it says."] if name == "test_passes" else []), name
    assert found.pop("test_of_a_skipped_class")[1:4] == [
        "skipped",
        where,
        "SkippedTests::test_of_a_skipped_class",
    ]
    # A class that is skipped while it is set up has no test that is told of, wherever it comes among the others.
    assert list(found.values()) == [
        ["test", "skipped", "unittest.suite", "_ErrorHolder::", f"setUpClass ({where}.SkippedInSetUpTests)"]
    ]
    assert [words[0] for kind, *words in said if kind == "error"] == [
        f"setUpClass ({where}.UnmadeTests): no class"
    ]
    assert len([1 for kind, *_ in said if kind == "test"]) == len(OUTCOMES) + 2


def test_without_labels_all_folders_are_run_by_name(tmp_path: Path) -> None:
    _, done = run(tree(tmp_path / "tree"))
    assert "ORDER a_tests b_tests" in done.stderr


@pytest.mark.parametrize(
    ("code", "status"), [(0, 0), (3, 3), (True, 1), (False, 0), ("wrong", 1), ("", 0)], ids=repr
)
def test_the_status_is_the_program_s_own(tmp_path: Path, code: object, status: int) -> None:
    said, done = run(tree(tmp_path / "tree", code=code, tests=""), "b_tests")
    assert said == [["exit", str(status)]] and done.returncode == status


def test_a_program_that_ends_with_an_exception_is_reported_and_has_no_status(tmp_path: Path) -> None:
    said, done = run(tree(tmp_path / "tree", product="raise ValueError('no product')"), "b_tests")
    assert said == [["error", "the suite ended with ValueError: no product"]]
    assert done.returncode == 1 and "ValueError: no product" in done.stderr


@pytest.mark.parametrize(
    "replaced",
    [
        "unittest.case.TestCase.assertEqual",
        "unittest.result.TestResult.addFailure",
        "unittest.runner.TextTestRunner.run",
    ],
)
def test_a_product_that_replaces_what_decides_outcomes_is_told_of(tmp_path: Path, replaced: str) -> None:
    own = f"import unittest.case, unittest.result, unittest.runner\nwas = {replaced}\n"
    own += f"{replaced} = lambda *given, **named: was(*given, **named)\n"
    said, _ = run(tree(tmp_path / "tree", product=own), "b_tests")
    assert ["tampered", f"{replaced} was replaced"] in said


def test_what_the_tree_calls_like_a_module_of_python_is_not_what_the_runner_imports(tmp_path: Path) -> None:
    place = tree(tmp_path / "tree", code=0, tests="")
    for name in ("unittest", "json", "looper_report"):
        (place / f"{name}.py").write_text("raise SystemExit(9)\n")
    said, done = run(place, "b_tests")
    assert said == [["exit", "0"]] and done.returncode == 0
