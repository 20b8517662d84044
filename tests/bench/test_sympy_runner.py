"""The runner of sympy's tests, on a real sympy with a test file of ours in its tree."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from looper.bench import runners

TESTS = """
from sympy.testing.pytest import XFAIL, skip


def test_passes():
    assert True


def test_fails():
    assert 1 == 2


def test_breaks():
    raise KeyError("gone")


@XFAIL
def test_fails_as_known():
    assert False


def test_is_skipped():
    skip("not today")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.find_spec("sympy")
    if spec is None or spec.origin is None:
        pytest.skip("sympy is not installed; it comes with the extra torch")
    place = tmp_path_factory.mktemp("tree")
    shutil.copytree(
        Path(spec.origin).parent, place / "sympy", ignore=shutil.ignore_patterns("tests", "__pycache__")
    )
    (place / "sympy" / "core" / "tests").mkdir()
    (place / "sympy" / "core" / "tests" / "test_ours.py").write_text(TESTS)
    (place / "sympy" / "core" / "tests" / "test_broken.py").write_text("import nothing_of_that_name\n")
    return place


def run(tree: Path, place: Path, *files: str) -> list[list[str]]:
    """What was reported between the beginning and the end."""
    program = Path(runners.__file__).with_name("run_sympy.py")
    place.write_text("secret")
    done = subprocess.run([sys.executable, str(program), str(place), *files], cwd=tree, capture_output=True)
    lines = [line.split(" ", 2) for line in place.read_text().splitlines()]
    assert [line[0] for line in lines] == [str(number) for number in range(len(lines))]
    assert "secret" not in place.read_text()
    said = [json.loads(line[2]) for line in lines]
    assert said[0] == ["begun"] and said[-1] == ["exit", str(done.returncode)], done.stderr.decode()
    return said[1:-1]


def test_every_test_is_reported_once_by_its_bare_name(tree: Path, tmp_path: Path) -> None:
    file = "sympy/core/tests/test_ours.py"
    assert sorted(run(tree, tmp_path / "report", file)) == sorted(
        ["test", outcome, file, name, name]
        for name, outcome in {
            "test_passes": "passed",
            "test_fails": "failed",
            "test_breaks": "error",
            "test_fails_as_known": "xfailed",
            "test_is_skipped": "skipped",
        }.items()
    )


def test_a_file_that_cannot_be_imported_is_named(tree: Path, tmp_path: Path) -> None:
    entries = run(tree, tmp_path / "report", "sympy/core/tests/test_broken.py")
    assert any("test_broken.py failed" in said for kind, said in entries if kind == "error")
