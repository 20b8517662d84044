"""Suites of rows in SWE-bench's shape, as a user meets them."""

import json
from pathlib import Path

import pytest
from tests.cli.test_commands import looper, one_line
from tests.fakes.swe_bench_rows import relation, row, written

BASE, RELATED = row(5), row(3)
ROWS = [
    BASE,
    RELATED,
    relation(RELATED, BASE),
    row(1, version="0.7"),
    row(2, version="0.7"),
    row(1, "psf/requests", "2.31"),
    row(1, "pytest-dev/pytest", "5.4"),
]
PROFILE = """model = "nano"
scaffold = "full"
temperature = 0.0
seeds = [0]
order = "sequence"
arms = ["gold", "noop"]

[limits]
steps = 9
output_tokens = 99
context_tokens = 999
wall_s = 9.0
command_s = 9.0
verify_s = 9.0
memory_mb = 999

[tasks]
suite = "swe-bench"
"""


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return written(tmp_path / "rows.jsonl", ROWS)


def test_what_is_there_and_what_cannot_be_run_is_listed_by_version(
    tmp_path: Path, state: Path, rows: str
) -> None:
    asked = ("bench", "list", "--suite", "swe-bench", "--data", rows, "--mirrors", str(tmp_path))
    found = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(state), LOOPER_SWE_DATA="")
    assert found.stdout.splitlines() == [
        "swe-bench: 6 tasks, ready: none; run looper bench fetch",
        "  psf/requests 1",
        "  pytest-dev/pytest 1",
        "  sympy/sympy 4, 1 of them after tasks that they depend on, 1 of these older than one of those",
        "  not runnable: psf/requests 2.31: 1 task, no environment is known for this repository",
        "  not runnable: pytest-dev/pytest 5.4: 1 task, no version to go by is known for it",
        "  not runnable: sympy/sympy 0.7: 2 tasks, no environment is known for this version",
    ]


def test_a_plan_takes_what_can_be_run_base_before_related_and_says_what_it_leaves(
    tmp_path: Path, state: Path, rows: str
) -> None:
    (tmp_path / "mine.toml").write_text(PROFILE)
    asked = ("run", "exp00", "--profile", "mine.toml", "--dry-run")
    found = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(state), LOOPER_SWE_BENCH_DATA=rows)
    lines = found.stdout.splitlines()
    assert "not run, sympy/sympy 0.7: 2 tasks, no environment is known for this version" in lines
    assert lines[-4:] == [
        "gold/0/sympy__sympy-5",
        "gold/0/sympy__sympy-3",
        "noop/0/sympy__sympy-5",
        "noop/0/sympy__sympy-3",
    ]
    (tmp_path / "mine.toml").write_text(f'{PROFILE}tasks = ["sympy__sympy-1"]\n')
    refused = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(state), LOOPER_SWE_BENCH_DATA=rows)
    assert refused.returncode == 2 and (
        "sympy__sympy-1 cannot be run here. sympy/sympy 0.7: 1 task, no environment is known for this version"
        in one_line(refused)
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("--task", "psf__requests-1"), "psf__requests-1 cannot be run here. psf/requests 2.31: 1 task, no"),
        (("--repo", "psf/requests"), "psf__requests-1 cannot be run here. psf/requests 2.31: 1 task, no"),
        (("--task", "sympy__sympy-55"), "The suite has no sympy__sympy-55. Did you mean sympy__sympy-5"),
        (("--repo", "nobody/nothing"), "The suite has no nobody/nothing"),
        (("--task", "sympy__sympy-5"), "There is no mirror of sympy/sympy"),
    ],
)
def test_what_is_named_and_cannot_be_validated_says_why(
    tmp_path: Path, state: Path, rows: str, named: tuple[str, str], said: str
) -> None:
    asked = ("bench", "validate", "--suite", "swe-bench", "--data", rows, "--mirrors", str(tmp_path))
    found = looper(*asked, *named, cwd=tmp_path, LOOPER_HOME=str(state))
    assert found.returncode == 2 and said in one_line(found)


def test_a_suite_that_nobody_named_rows_for_says_how(tmp_path: Path, state: Path) -> None:
    found = looper("bench", "validate", "--suite", "swe-bench", cwd=tmp_path, LOOPER_HOME=str(state))
    assert (
        found.returncode == 2
        and "SWE-bench is not configured. Name rows in SWE-bench's shape" in one_line(found)
    )


def test_predictions_for_what_cannot_be_run_are_errors_by_name_and_no_verdicts(
    tmp_path: Path, state: Path, rows: str
) -> None:
    made = [
        {"instance_id": name, "model_name_or_path": "m", "model_patch": "diff --git a/a b/a\n"}
        for name in ("psf__requests-1", "sympy__sympy-2")
    ]
    asked = (
        "bench",
        "verify",
        written(tmp_path / "made.jsonl", made),
        "--suite",
        "swe-bench",
        "--data",
        rows,
    )
    found = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(state))
    report = json.loads(found.stdout)
    assert report["error_ids"] == ["psf__requests-1", "sympy__sympy-2"] and report["completed_ids"] == []
    assert "no verdict, sympy/sympy 0.7: 1 task, no environment is known for this version" in found.stderr
