"""Rows of SWE-Bench-CL as the field writes them: row V9."""

import json
from pathlib import Path
from typing import Any

import pytest

from looper.edges.datasets.swe_bench_cl import load_swe_bench_cl
from looper.errors import BadInput
from looper.records.task import Task

IDS = ["testing/test_a.py::test_a", "testing/test_a.py::test_b[1-x]"]


def load(
    folder: Path, fail_to_pass: Any, repo: str = "pytest-dev/pytest", metadata: Any = None, **others: Any
) -> Task:
    known = {
        "instance_id": "i-1",
        "repo": repo,
        "base_commit": "0" * 40,
        "created_at": "2019-05-14T00:00:00Z",
    }
    row = {
        "metadata": known | (metadata or {}),
        "task": {"problem_statement": "p", "hints_text": None},
        "evaluation": {"patch": "", "test_patch": "", "FAIL_TO_PASS": fail_to_pass, "PASS_TO_PASS": "[]"},
        "continual_learning": {"difficulty_score": 1, "sequence_position": 1, "modified_files": ["a.py"], **others},
        "sequence": {"id": "s", "dependencies_in_sequence": "[]"},
        "swebench": {"version": "4.5", "label_corrections_2026_08": None},
    }  # fmt: skip
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return load_swe_bench_cl(str(path))[0]


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
