"""HumanEval and MBPP as tasks: the rows of the data sets, judged for real."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.test_run import Project

from looper.edges.datasets.functions import load_functions
from looper.errors import BadInput
from looper.views.runs import read_run

HUMAN_EVAL = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'import math\n\n\ndef {name}(x):\n    """ {said} """\n',
        "entry_point": name,
        "canonical_solution": f"    return {right}\n",
        "test": f"\n\ndef check(candidate):\n    assert candidate(9) == {value}\n    assert math.pi > 3\n",
    }
    for number, name, said, right, value in (
        (0, "root", "The root of x.", "math.sqrt(x)", 3),
        (1, "twice", "Two times x.", "2 * x", 18),
    )
]
MBPP = [
    {
        "task_id": 2,
        "prompt": "Write a function to find what two lists share.",
        "code": "FEW = 2\r\nMANY: int = 3\r\ndef shared(a, b):\r\n  return sorted(set(a) & set(b))",
        "test_imports": ["import math"],
        "test_list": ["assert shared([1, 2], [FEW, MANY]) == [FEW]", "assert shared([math.inf], []) == []"],
    },
    {
        "task_id": 3,
        "text": "Write a function to double a number.",
        "code": "def double(x):\n    return 2 * x",
        "test_setup_code": "N = 4",
        "test_list": ["assert double(N) == 8"],
    },
]


def written(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(("suite", "rows"), [("humaneval", HUMAN_EVAL), ("mbpp", MBPP)])
def test_gold_resolves_every_function_and_nothing_does_not(
    suite: str, rows: list[dict[str, Any]], tmp_path: Path, state: Path
) -> None:
    project = Project(tmp_path, state)
    project.environment[f"LOOPER_{suite.upper()}"] = written(tmp_path / "rows.jsonl", rows)
    found = project.looper("bench", "validate", "--suite", suite, "--sandbox", "auto")
    assert found.returncode == 0, found.stderr
    name = {"humaneval": "HumanEval", "mbpp": "MBPP"}[suite]
    assert f"| {name} | 2 | 2 | 0 | 0 | 0 | 0 |" in found.stdout
    listed = project.looper("bench", "list").stdout
    assert name in listed and "ready" in listed


NEARLY = {
    **HUMAN_EVAL[0],
    "task_id": "HumanEval/7",
    "test": "\n\ndef check(candidate):\n    assert abs(candidate(9) - 3) < 1e-6\n",
}
OF_TWO = {**MBPP[1], "task_id": 7, "test_list": ["assert abs(double(N) - 8) < 1e-6"]}


@pytest.mark.parametrize(
    ("suite", "row", "hunk"),
    [
        ("humaneval", NEARLY, '@@ -5 +5,3 @@\n     """ The root of x. """\n+    return 100\n'),
        ("mbpp", OF_TWO, "@@ -1 +1,3 @@\n # To be written.\n+def double(x): return 100\n"),
    ],
    ids=["humaneval", "mbpp"],
)
def test_what_a_solution_defines_beside_takes_no_name_of_the_tests(
    suite: str, row: dict[str, Any], hunk: str, tmp_path: Path, state: Path
) -> None:
    """A wrong one, beside which `abs` is what it says."""
    project = Project(tmp_path, state)
    project.environment[f"LOOPER_{suite.upper()}"] = written(tmp_path / "rows.jsonl", [row])
    patch = f"--- a/solution.py\n+++ b/solution.py\n{hunk}+def abs(x): return 0\n"
    prediction = {
        "instance_id": f"{'MBPP' if suite == 'mbpp' else 'HumanEval'}-7",
        "model_name_or_path": "m",
        "model_patch": patch,
    }
    found = project.looper(
        "bench", "verify", written(tmp_path / "preds.jsonl", [prediction]), "--suite", suite
    )
    assert found.returncode == 0 and '"resolved_instances": 0' in found.stdout, found.stderr
    (verdict,) = read_run(Path(found.stderr.splitlines()[-1])).verdicts
    assert verdict.applied and "tests did not pass" in verdict.cause


def test_a_patch_for_a_task_that_is_not_eligible_is_named_and_not_judged(tmp_path: Path, state: Path) -> None:
    """Its verdict would say nothing of the patch; those of the others stand."""
    project = Project(tmp_path, state)
    broken = {**HUMAN_EVAL[1], "canonical_solution": "    return None\n"}
    project.environment["LOOPER_HUMANEVAL"] = written(tmp_path / "rows.jsonl", [HUMAN_EVAL[0], broken])
    project.environment["LOOPER_HOME"] = str(tmp_path / "home")
    validated = project.looper("bench", "validate", "--suite", "humaneval")
    names = [line.split()[1].rstrip(":") for line in validated.stderr.splitlines() if line[1:3] == "/2"]
    fit = next(line for line in validated.stderr.splitlines() if ": valid" in line).split()[1].rstrip(":")
    patches = [{"instance_id": name, "model_name_or_path": "m", "model_patch": ""} for name in names]
    predictions = written(tmp_path / "preds.jsonl", patches)
    found = project.looper("bench", "verify", predictions, "--suite", "humaneval")
    (unfit,) = set(names) - {fit}
    assert found.returncode == 0, found.stderr
    assert f"{unfit} of m is not judged, the task is not eligible: 1 of 1 FAIL_TO_PASS" in found.stderr
    report = json.loads(found.stdout)
    assert report["submitted_instances"] == 2 and report["error_ids"] == [unfit]
    alone = written(tmp_path / "alone.jsonl", [each for each in patches if each["instance_id"] == unfit])
    nothing = project.looper("bench", "verify", alone, "--suite", "humaneval")
    assert nothing.returncode == 2 and "none of its tasks is eligible here" in nothing.stderr


def test_an_agent_is_told_what_to_write_and_never_the_answer(tmp_path: Path) -> None:
    tasks, mirrors = load_functions("mbpp", written(tmp_path / "rows.jsonl", MBPP), tmp_path / "suites")
    assert [task.instance_id for task in tasks] == ["MBPP-2", "MBPP-3"] and set(mirrors) == {"mbpp:MBPP"}
    first = tasks[0]
    assert "assert shared([1, 2], [FEW, MANY]) == [FEW]" in first.problem_statement
    assert "sorted(set(a) & set(b))" in first.gold_patch and "sorted" not in first.problem_statement
    assert first.fail_to_pass == ("tests/test_solution.py::test_1", "tests/test_solution.py::test_2")
    again, _ = load_functions("mbpp", str(tmp_path / "rows.jsonl"), tmp_path / "suites")
    assert again == tasks


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([HUMAN_EVAL[0], {"task_id": "HumanEval/1"}], "row 2: field 'entry_point' is missing"),
        ([HUMAN_EVAL[0], HUMAN_EVAL[0]], "has HumanEval-0 more than once"),
        ([], "has no rows"),
    ],
)
def test_a_broken_data_set_is_named_by_its_row(rows: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        load_functions("humaneval", written(tmp_path / "rows.jsonl", rows), tmp_path / "suites")


DEEP = "1" + "+1" * 6000
UNARY = "-" * 100_000 + "1"


@pytest.mark.parametrize(
    ("suite", "row"),
    [
        ("humaneval", {**HUMAN_EVAL[0], "test": f"def check(c):\n    assert c() == {DEEP}\n"}),
        ("humaneval", {**HUMAN_EVAL[0], "canonical_solution": f"    return {UNARY}\n"}),
        ("mbpp", {**MBPP[0], "test_list": [f"assert shared() == {DEEP}"]}),
        ("mbpp", {**MBPP[0], "code": f"shared = {UNARY}"}),
    ],
)
def test_code_that_is_nested_too_deeply_is_named_by_its_row(
    suite: str, row: dict[str, Any], tmp_path: Path
) -> None:
    rows = written(tmp_path / "rows.jsonl", [row])
    with pytest.raises(
        BadInput, match=r"rows.jsonl, row 1: it is nested too deeply to be read\. Correct it, or"
    ):
        load_functions(suite, rows, tmp_path / "suites")


@pytest.mark.parametrize(
    ("suite", "row", "name"),
    [
        *(
            ("humaneval", HUMAN_EVAL[0], name)
            for name in ("a\0b", "", "a\nb", "\x1b[31m", "../../x", "x" * 201)
        ),
        *(("mbpp", MBPP[0], name) for name in ("a\0b", "", "../x", None, [1])),
    ],
)
def test_an_id_that_can_name_no_file_is_refused_as_its_row_is_read(
    suite: str, row: dict[str, Any], name: object, tmp_path: Path
) -> None:
    rows = written(tmp_path / "rows.jsonl", [{**row, "task_id": name}])
    with pytest.raises(BadInput, match=r"rows.jsonl, row 1: task_id is ") as refused:
        load_functions(suite, rows, tmp_path / "suites")
    assert str(refused.value).isprintable()


def test_a_function_to_write_has_a_name_of_python(tmp_path: Path) -> None:
    for name in (3, "", "a b", "f)\nimport os\n("):
        rows = written(tmp_path / "rows.jsonl", [{**HUMAN_EVAL[0], "entry_point": name}])
        with pytest.raises(BadInput, match="row 1: entry_point names no function"):
            load_functions("humaneval", rows, tmp_path / "suites")


def test_a_data_set_that_is_not_there_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"MBPP is not configured. Set LOOPER_MBPP to its JSONL file, or to hub:"
    ):
        load_functions("mbpp", "", tmp_path)
    with pytest.raises(BadInput, match="gone.jsonl does not exist. Set LOOPER_HUMANEVAL"):
        load_functions("humaneval", str(tmp_path / "gone.jsonl"), tmp_path)
    bad = {**MBPP[0], "test_list": ["assert ("]}
    with pytest.raises(BadInput, match="row 1: '\\(' was never closed"):
        load_functions("mbpp", written(tmp_path / "rows.jsonl", [bad]), tmp_path / "suites")


@pytest.mark.skipif(
    "LOOPER_HUMANEVAL" not in os.environ,
    reason="LOOPER_HUMANEVAL names no copy of the 164 rows (package human-eval)",
)
def test_the_published_rows_are_164_tasks(tmp_path: Path) -> None:
    """`looper bench validate --suite humaneval` finds all of them valid, in three quarters of a minute."""
    tasks, _ = load_functions("humaneval", os.environ["LOOPER_HUMANEVAL"], tmp_path / "suites")
    assert len(tasks) == 164 and tasks[0].instance_id == "HumanEval-0"
