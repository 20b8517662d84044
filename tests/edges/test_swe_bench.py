"""Rows in SWE-bench's shape: what they become, in which order, and what is wrong with them."""

import gzip
import importlib.util
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.swe_bench_rows import HINT, patch, relation, row, written

from looper.edges.datasets.swe_bench import load_swe_bench
from looper.edges.datasets.swe_bench_cl import load_swe_bench_cl
from looper.edges.environments.known import unserved
from looper.errors import BadInput, MissingTool
from looper.records.task import Runner, Task

CL = os.environ.get("LOOPER_SWE_DATA", "")
TWO = ["tests/test_1.py::test_a[x y]", "tests/test_1.py::test_b"]


def one(folder: Path, **fields: Any) -> Task:
    return load_swe_bench(written(folder / "rows.jsonl", [row(1, **fields)]))[0]


def order(tasks: tuple[Task, ...]) -> list[tuple[str, int]]:
    return [(task.repo, int(task.instance_id.rpartition("-")[2])) for task in tasks]


def as_list(path: Path, rows: list[dict[str, Any]]) -> Path:
    (path / "rows.json").write_text(json.dumps(rows, indent=1))
    return path / "rows.json"


def as_gzip(path: Path, rows: list[dict[str, Any]]) -> Path:
    with gzip.open(path / "rows.jsonl.gz", "wt") as stream:
        stream.write("\n".join(map(json.dumps, rows)))
    return path / "rows.jsonl.gz"


def one_by_one(path: Path, rows: list[dict[str, Any]]) -> Path:
    for each in rows:
        (path / f"{each['instance_id']}.json").write_text(json.dumps(each, indent=2))
    (path / "README.md").write_text("no rows")
    return path


@pytest.mark.parametrize("write", [as_list, as_gzip, one_by_one])
def test_however_rows_are_written_each_repository_is_a_stream_in_time_order(
    tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    rows = [row(number, repo) for repo in ("psf/requests", "django/django") for number in (3, 1, 2)]
    tasks = load_swe_bench(written(tmp_path / "rows.jsonl", rows))
    assert order(tasks) == [
        ("django/django", 1), ("django/django", 2), ("django/django", 3),
        ("psf/requests", 1), ("psf/requests", 2), ("psf/requests", 3),
    ]  # fmt: skip
    assert [task.sequence_position for task in tasks] == [1, 2, 3, 1, 2, 3]
    assert {task.sequence_id for task in tasks} == {"swe-bench:django/django", "swe-bench:psf/requests"}
    (tmp_path / "rows.jsonl").unlink()
    random.Random(0).shuffle(rows)
    assert load_swe_bench(str(write(tmp_path, rows))) == tasks


def test_a_row_becomes_a_task_as_it_is_labelled_and_its_hints_stay_outside(tmp_path: Path) -> None:
    task = one(tmp_path, repo="psf/requests", version="2.31", difficulty="1-4 hours")
    assert (task.suite, task.environment, task.runner) == ("swe-bench", "psf/requests@2.31", Runner.PYTEST)
    assert (task.modified_files, task.test_targets) == (("src/1.py",), ("tests/test_1.py",))
    assert task.difficulty == 3 and HINT not in task.to_json().decode()
    rising = ("<15 min fix", "15 min - 1 hour", "1-4 hours", ">4 hours")
    assert [one(tmp_path, difficulty=said).difficulty for said in rising] == [1, 2, 3, 4]
    assert one(tmp_path).difficulty is None, "nobody said how long it takes"
    with pytest.raises(BadInput, match="difficulty is none of <15 min fix, 15 min"):
        one(tmp_path, difficulty="1 hour")


@pytest.mark.parametrize(
    "ids", [TWO, json.dumps(TWO), repr(TWO), "['tests/test_1.py::test_a[x y]'\n 'tests/test_1.py::test_b']"]
)
def test_ids_are_read_as_a_list_as_json_as_python_and_as_numpy_prints_them(tmp_path: Path, ids: Any) -> None:
    task = one(tmp_path, repo="psf/requests", FAIL_TO_PASS=ids)
    assert one(tmp_path, PASS_TO_PASS=['"', "test_b"]).pass_to_pass == ('"', "test_b"), "as it was published"
    assert task.fail_to_pass == tuple(TWO) and task.pass_to_pass == ()


@pytest.mark.parametrize(
    ("repo", "said", "own"),
    [
        ("django/django", "tests/forms/tests/test_a.py::FormTests::test_x", "test_x (forms.tests.test_a.FormTests)"),
        ("django/django", "test_x (forms.tests.FormTests)", "test_x (forms.tests.FormTests)"),
        ("django/django", "A docstring. ", "A docstring. "),
        ("sympy/sympy", "sympy/core/tests/test_expr.py::test_mul", "test_mul"),
        ("sympy/sympy", "test_mul", "test_mul"),
        ("psf/requests", "tests/test_a.py::A::test_x", "tests/test_a.py::A::test_x"),
        ("tokio-rs/axum", "routing::tests::merge", "routing::tests::merge"),
    ],
)  # fmt: skip
def test_a_test_goes_by_the_name_that_its_own_runner_gives_it(
    tmp_path: Path, repo: str, said: str, own: str
) -> None:
    assert one(tmp_path, repo=repo, FAIL_TO_PASS=[said]).fail_to_pass == (own,)


def test_a_task_depends_on_the_earlier_ones_that_touch_a_file_of_its_fix(tmp_path: Path) -> None:
    files = {1: ("a.py",), 2: ("b.py",), 3: ("a.py", "b.py"), 4: ("c.py",)}
    rows = [row(number, patch=patch(*paths)) for number, paths in files.items()]
    rows.append(row(9, "psf/requests", patch=patch("a.py")))
    found = {
        task.instance_id: task.dependencies for task in load_swe_bench(written(tmp_path / "r.jsonl", rows))
    }
    assert found.pop("sympy__sympy-3") == ("sympy__sympy-1", "sympy__sympy-2")
    assert not any(found.values()), "files of the same name in another repository are other files"


def test_coupled_rows_come_after_what_they_refer_to_and_else_in_time_order(tmp_path: Path) -> None:
    """References are no timeline: of the published pairs most bases are younger than the task that refers to them."""
    early, middle, late, other = row(1), row(2), row(3), row(9, "psf/requests")
    rows = [
        relation(early, late),
        early,
        middle,
        relation(middle, late),
        late,
        other,
        relation(early, middle),
    ]
    tasks = load_swe_bench(written(tmp_path / "rows.jsonl", rows))
    assert order(tasks) == [("psf/requests", 9), ("sympy/sympy", 3), ("sympy/sympy", 2), ("sympy/sympy", 1)]
    assert [task.sequence_position for task in tasks] == [1, 1, 2, 3]
    assert tasks[3].dependencies == ("sympy__sympy-3", "sympy__sympy-2") and tasks[1].dependencies == ()
    swapped = [row(1), row(2), row(3, patch=patch("src/1.py")), relation(row(2), row(1))]
    assert order(load_swe_bench(written(tmp_path / "rows.jsonl", swapped)))[-1] == ("sympy/sympy", 3)
    last = load_swe_bench(str(tmp_path / "rows.jsonl"))[-1]
    assert last.dependencies == (), "where rows say what they refer to, files say nothing"


def test_a_task_may_say_itself_what_it_refers_to(tmp_path: Path) -> None:
    """Tables that were joined have both kinds of columns in every row, and nothing in those that a row is not about."""
    joined = [
        {**row(1), **relation(row(1), row(2))},
        {**row(2), "related_instance_id": None, "experience_instance_id": None},
    ]
    found = load_swe_bench(written(tmp_path / "rows.jsonl", joined))
    assert [(task.instance_id, task.dependencies) for task in found] == [
        ("sympy__sympy-2", ()),
        ("sympy__sympy-1", ("sympy__sympy-2",)),
    ]
    apart = [row(1), row(2), {**dict.fromkeys(row(1)), **relation(row(1), row(2))}]
    assert load_swe_bench(written(tmp_path / "rows.jsonl", apart)) == found


ONE, OTHER = row(1), row(2)
STRANGE = {**ONE, "instance_id": "sympy__sympy-1/../.."}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has no rows"),
        ([ONE, [1]], "rows.jsonl, row 2: no JSON object"),
        ([ONE, {"instance_id": "a"}], "rows.jsonl, row 2: field 'repo' is missing"),
        ([{**ONE, "patch": None}], "row 1: patch is not what SWE-bench has there"),
        ([{**ONE, "base_commit": "main"}], "row 1: base_commit is not what SWE-bench has there"),
        ([{**ONE, "repo": ["a"]}], "row 1: repo is not what SWE-bench has there"),
        ([STRANGE], "row 1: instance_id is not what SWE-bench has there"),
        ([{**ONE, "created_at": "yesterday"}], "row 1: created_at is 'yesterday', which is no date and time"),
        ([{**ONE, "FAIL_TO_PASS": "test_1"}], "row 1: FAIL_TO_PASS is no list of texts"),
        ([{**ONE, "FAIL_TO_PASS": list('["a"]')}], "row 1: FAIL_TO_PASS holds the characters of a text, each by itself"),
        ([ONE, OTHER, ONE], "row 3: sympy__sympy-1 stands in FOLDER/rows.jsonl, row 1 already"),
        ([ONE, relation(ONE, OTHER)], "row 2: \"sympy__sympy-2\" is related to another task and is not among the rows"),
        ([OTHER, relation(ONE, OTHER)], "row 2: \"sympy__sympy-1\" is related to another task and is not among the rows"),
        ([ONE, {"related_instance_id": "a"}], "row 2: field 'experience_instance_id' is missing"),
        ([ONE, OTHER, relation(ONE, OTHER), relation(OTHER, ONE)], "is a circle, and none of them can come first"),
        ([ONE, relation(ONE, ONE)], "row 2: sympy__sympy-1 → sympy__sympy-1 is a circle"),
        (
            [ONE, row(1, "psf/requests"), relation(ONE, row(1, "psf/requests"))],
            "row 3: sympy__sympy-1 is of sympy/sympy and psf__requests-1 of psf/requests, and a sequence is of one repository",
        ),
        ([ONE, relation(ONE, {"instance_id": None})], "row 2: experience_instance_id is no id of a task"),
        ([ONE, relation(ONE, {"instance_id": ["sympy__sympy-2"]})], "row 2: experience_instance_id is no id of a task"),
        ([{**ONE, "experience_instance_id": "a"}], "row 1: field 'related_instance_id' is missing"),
        ([{**ONE, "version": {"a": 1}}], "row 1: version is no text or number"),
        ([{**ONE, "FAIL_TO_PASS": '["a", "\\ud800b"]'}], "row 1: FAIL_TO_PASS holds half a character"),
        ([{**ONE, "test_patch": patch(f"tests/{'x' * 300}.py")}], "row 1: test_patch names a file whose name has more than 255"),
        ([{"continual_learning": {}}], "row 1: a row of SWE-Bench-CL. Say --suite swe-bench-cl."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_rows_is_said_by_file_and_row(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        load_swe_bench(written(tmp_path / "rows.jsonl", rows))
    text = str(refused.value).replace(str(tmp_path), "FOLDER")
    assert said in text and "\n" not in text


def test_a_circle_is_named_by_one_of_its_relations(tmp_path: Path) -> None:
    a, b, c = row(1), row(2), row(3)
    path = written(tmp_path / "rows.jsonl", [a, b, c, relation(b, a), relation(c, b), relation(a, c)])
    with pytest.raises(
        BadInput, match=r"rows.jsonl, row [456]: (sympy__sympy-\d → ){3}sympy__sympy-\d is a circle"
    ):
        load_swe_bench(path)


def test_files_that_are_not_there_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"gone.jsonl does not exist. Name rows in SWE-bench's shape with --data"
    ):
        load_swe_bench(str(tmp_path / "gone.jsonl"))
    with pytest.raises(BadInput, match="holds no rows: no file ends with .json"):
        load_swe_bench(str(tmp_path))
    path = as_gzip(tmp_path, [row(number) for number in range(1, 9)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match=r"rows.jsonl.gz cannot be unpacked: Compressed file ended before"):
        load_swe_bench(str(path))
    (tmp_path / "cut.json").write_text('[{"instance_id": "a"},')
    with pytest.raises(BadInput, match=r"cut.json: not JSON: Expecting value"):
        load_swe_bench(str(tmp_path / "cut.json"))


def test_rows_of_one_suite_named_as_those_of_the_other_say_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"row 1: a row in SWE-bench's own shape. Say --suite swe-bench."):
        load_swe_bench_cl(written(tmp_path / "rows.jsonl", [row(1)]))


def test_the_hub_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingTool, match=r"-m (uv )?pip install '?datasets"):
        load_swe_bench("hub:princeton-nlp/SWE-bench_Lite")


@pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="the extra datasets is not installed"
)
def test_the_package_reads_splits_and_files_that_differ_in_their_columns(tmp_path: Path) -> None:
    """A folder here stands for a data set of the hub: the package reads both alike."""
    (tmp_path / "splits").mkdir()
    written(tmp_path / "splits" / "test.jsonl", [row(1), row(2)])
    written(tmp_path / "splits" / "train.jsonl", [row(3)])
    assert len(load_swe_bench(f"hub:{tmp_path / 'splits'}")) == 2, "SWE-bench is its split test"
    (tmp_path / "files").mkdir()
    written(tmp_path / "files" / "tasks.jsonl", [row(1), row(2)])
    written(tmp_path / "files" / "relations.jsonl", [relation(row(1), row(2))])
    found = load_swe_bench(f"hub:{tmp_path / 'files'}#tasks.jsonl,relations.jsonl")
    assert [task.sequence_position for task in found if task.dependencies] == [2]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"version": "1.12"}, ""),
        ({"version": "0.7"}, "no environment is known for this version"),
        ({"version": None}, "its rows do not say which version they are of"),
        ({"repo": "psf/requests", "version": "2.31"}, "no environment is known for this repository"),
        ({"repo": "pytest-dev/pytest", "version": "5.4"}, "no version to go by is known for it"),
        ({"repo": "astropy/astropy", "version": "5.1"}, "no release with compiled modules is known for it"),
        ({"repo": "scikit-learn/scikit-learn", "version": "1.3"}, ""),
    ],
)
def test_what_no_environment_serves_says_why(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    assert unserved(one(tmp_path, **fields)) == why


@pytest.mark.skipif(not CL, reason="LOOPER_SWE_DATA does not name the JSONL file of SWE-Bench-CL")
def test_the_benchmarks_own_tasks_say_the_same_in_swe_benchs_shape(tmp_path: Path) -> None:
    """Its 273 tasks are the first of SWE-bench Verified; only the labels that were corrected there are as they were."""
    rows = []
    with gzip.open(CL, "rt") as stream:
        for line in stream:
            found = json.loads(line)
            rows.append(
                {
                    **{name: value for part in ("metadata", "task", "evaluation") for name, value in found[part].items()},
                    "version": found["swebench"]["version"],
                }
            )  # fmt: skip
    ours = {task.instance_id: task for task in load_swe_bench(written(tmp_path / "rows.jsonl", rows))}
    for task in load_swe_bench_cl(CL):
        mine = ours[task.instance_id]
        same = (
            "difficulty",
            "environment",
            "runner",
            "test_targets",
            "modified_files",
            "gold_patch",
            "fail_to_pass",
        )
        assert all(getattr(mine, name) == getattr(task, name) for name in same), task.instance_id
        assert not unserved(mine) and not unserved(task)
        assert set(mine.pass_to_pass) >= set(task.pass_to_pass)
        corrected = task.instance_id in ("django__django-10097", "astropy__astropy-7606")
        assert corrected or mine.pass_to_pass == task.pass_to_pass
