"""Rows of SWE-Bench-CL as the field writes them: row V9."""

import json
from pathlib import Path
from typing import Any

import pytest

from looper.edges.datasets.swe_bench_cl import load_swe_bench_cl
from looper.errors import BadInput
from looper.records.task import Task

IDS = ["testing/test_a.py::test_a", "testing/test_a.py::test_b[1-x]"]


def row(
    fail_to_pass: Any, repo: str = "pytest-dev/pytest", metadata: Any = None, **others: Any
) -> dict[str, Any]:
    known = {
        "instance_id": "i-1",
        "repo": repo,
        "base_commit": "0" * 40,
        "created_at": "2019-05-14T00:00:00Z",
    }
    return {
        "metadata": known | (metadata or {}),
        "task": {"problem_statement": "p", "hints_text": None},
        "evaluation": {"patch": "", "test_patch": "", "FAIL_TO_PASS": fail_to_pass, "PASS_TO_PASS": "[]"},
        "continual_learning": {"difficulty_score": 1, "sequence_position": 1, "modified_files": ["a.py"], **others},
        "sequence": {"id": "s", "dependencies_in_sequence": "[]"},
        "swebench": {"version": "4.5", "label_corrections_2026_08": None},
    }  # fmt: skip


def load(folder: Path, *given: Any, **others: Any) -> Task:
    return written(folder, row(*given, **others))[0]


def written(folder: Path, *rows: dict[str, Any]) -> tuple[Task, ...]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return load_swe_bench_cl(str(path))


@pytest.mark.parametrize("written", [IDS, json.dumps(IDS), repr(IDS), repr(tuple(IDS))])
def test_v9_lists_of_ids_are_read_as_such_as_json_and_as_python(tmp_path: Path, written: Any) -> None:
    found = load(tmp_path, written, modified_files="['a.py', 'b.py']")
    assert found.fail_to_pass == tuple(IDS) and found.pass_to_pass == () == found.dependencies
    assert found.modified_files == ("a.py", "b.py")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("testing/test_a.py::test_a", "FAIL_TO_PASS is no list of texts"),
        ("__import__('os').getcwd()", "FAIL_TO_PASS is no list of texts"),
        (None, "FAIL_TO_PASS is no list of texts"),
        ({"a": 1}, "FAIL_TO_PASS is no list of texts"),
        ([1], "FAIL_TO_PASS is no list of texts"),
        (["[", '"', "t"], "FAIL_TO_PASS holds '[', which is no id of a test"),
        (["test_a"], "FAIL_TO_PASS holds 'test_a', which is no id of a test"),
        (["a.py::test_\0"], "FAIL_TO_PASS holds a NUL"),
        ("{[]: 1}", "FAIL_TO_PASS is no list of texts"),
        ("[" * 100_000, "FAIL_TO_PASS is no list of texts"),
    ],
)
def test_v9_what_is_no_list_of_ids_is_refused_by_its_row(tmp_path: Path, written: Any, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        load(tmp_path, written)
    assert f"row 1: {said}" in str(refused.value)


@pytest.mark.parametrize(
    ("repo", "others", "said"),
    [
        ("../evil", {}, "repo"),
        ("pytest-dev/pytest", {"instance_id": "../../x"}, "instance_id"),
        ("pytest-dev/pytest", {"base_commit": "--output=/tmp/x"}, "base_commit"),
        ("pytest-dev/pytest", {"instance_id": "a\0b"}, "instance_id"),
        ("pytest-dev/pytest", {"created_at": 7}, "created_at"),
    ],
)
def test_what_folders_and_commands_are_named_by_is_looked_at(
    tmp_path: Path, repo: str, others: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=f"row 1: {said} is not what SWE-bench has there"):
        load(tmp_path, IDS, repo, metadata=others)


def test_an_id_that_is_too_long_for_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="row 1: instance_id has more than 200 bytes"):
        load(tmp_path, IDS, metadata={"instance_id": "é" * 101})
    assert load(tmp_path, IDS, metadata={"instance_id": "é" * 100}).instance_id == "é" * 100


def test_v9_runners_of_their_own_have_ids_of_their_own(tmp_path: Path) -> None:
    names = ["test_x (app.tests.Case)", "A docstring of a test."]
    assert load(tmp_path, names, "django/django").fail_to_pass == tuple(names)
    with pytest.raises(BadInput, match="no id of a test"):
        load(tmp_path, ["t"], "django/django")


def task(number: int, position: int, *bases: int, created_at: str = "2019-05-14T00:00:00Z") -> dict[str, Any]:
    found = row(
        IDS, metadata={"instance_id": f"i-{number}", "created_at": created_at}, sequence_position=position
    )
    found["sequence"]["dependencies_in_sequence"] = [f"i-{base}" for base in bases]
    return found


def test_tasks_are_in_sequence_order_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    found = written(tmp_path, task(3, 7, 1), task(2, 4, 3), task(1, 1))
    assert [each.instance_id for each in found] == ["i-1", "i-2", "i-3"]
    assert found[1].dependencies == ("i-3",), "the benchmark's own sequences hold such ones too"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([task(1, 1), task(2, 1)], "row 2: sequence_position 1 is that of i-1 already. Correct one"),
        ([task(1, 0)], "row 1: sequence_position is 0, and the first is 1"),
        ([task(1, 1), task(2, 2, 9)], 'row 2: "i-9" is related to another task and is not among the rows'),
        ([task(1, 1, 1)], "row 1: i-1 → i-1 is a circle"),
        ([task(1, 1, 2), task(2, 2, 1)], " is a circle, and none of them can come first"),
        ([task(1, 1, created_at="")], "row 1: created_at is '', which is no date and time"),
        ([task(1, 1, created_at="x")], "row 1: created_at is 'x', which is no date and time"),
        ([task(1, 1, created_at="9999-12-31T23:59:59-05:00")], "row 1: created_at is '9999"),
        (
            [{**task(1, 1), "swebench": {"version": "4.5", "label_corrections_2026_08": "none"}}],
            "row 1: label_corrections_2026_08 is no object",
        ),
        (
            [{**task(1, 1), "swebench": {"version": ["4.5"], "label_corrections_2026_08": None}}],
            "row 1: version is no text or number",
        ),
    ],
)
def test_what_rows_say_of_time_order_and_of_each_other_is_looked_at(
    tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        written(tmp_path, *rows)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_time_without_a_zone_is_one_of_utc(tmp_path: Path) -> None:
    times = ("2017-10-27 11:10:04", "2017-10-27T13:10:04+02:00", "2017-10-27T11:10:04+00:00")
    found = [written(tmp_path, task(1, 1, created_at=said))[0].created_at for said in times]
    assert found == ["2017-10-27T11:10:04+00:00"] * 3
