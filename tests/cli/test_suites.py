"""Suites of rows in SWE-bench's shape, as a user meets them."""

import gzip
import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_commands import looper, one_line
from tests.fakes.swe_bench_rows import relation, row, written

from looper.bench.validate import shipped
from looper.bench.verify import VERSION
from looper.cli.fetching import tasks_by_repo
from looper.cli.grading import grade, suite_named
from looper.cli.plans import RunOptions
from looper.cli.running import dry_run
from looper.cli.settings import ROWS_FROM, Settings, settings
from looper.cli.validating import run_validations
from looper.edges.datasets.swe_bench import load_swe_bench
from looper.edges.environments.known import missing_programs
from looper.errors import BadInput
from looper.journal import Stream
from looper.records.eligibility import Validation
from looper.records.plan import SUITES
from looper.views.predictions import swe_bench_report

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
def here(tmp_path: Path, state: Path) -> Settings:
    """With those rows, and without a mirror."""
    rows = written(tmp_path / "rows.jsonl", ROWS)
    return replace(
        settings(),
        state=state,
        runs=tmp_path / "runs",
        workspaces=state / "workspaces",
        mirrors=tmp_path / "mirrors",
        rows={**settings().rows, "swe-bench": rows},
    )


def test_what_is_there_and_what_cannot_be_run_is_listed_by_version(tmp_path: Path, here: Settings) -> None:
    asked = ("bench", "list", "--suite", "swe-bench", "--data", here.rows["swe-bench"], "--mirrors", "none")
    found = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(here.state), LOOPER_SWE_DATA="")
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
    tmp_path: Path, here: Settings
) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text(PROFILE)
    lines = list(dry_run(RunOptions("exp00", str(profile), None), here))
    assert "not run, sympy/sympy 0.7: 2 tasks, no environment is known for this version" in lines
    assert lines[-4:] == [
        "gold/0/sympy__sympy-5",
        "gold/0/sympy__sympy-3",
        "noop/0/sympy__sympy-5",
        "noop/0/sympy__sympy-3",
    ]
    profile.write_text(f'{PROFILE}tasks = ["sympy__sympy-1", "sympy__sympy-5"]\n')
    with pytest.raises(
        BadInput, match=r"^sympy__sympy-1 cannot be run here. sympy/sympy 0.7: 1 task, no env"
    ):
        list(dry_run(RunOptions("exp00", str(profile), None), here))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"tasks": ("psf__requests-1",)}, "psf__requests-1 cannot be run here. psf/requests 2.31: 1 task, no env"),
        ({"repos": ("psf/requests",)}, "psf__requests-1 cannot be run here. psf/requests 2.31: 1 task, no env"),
        ({"tasks": ("sympy__sympy-55",)}, 'swe-bench has no task "sympy__sympy-55". Did you mean sympy__sympy-5'),
        ({"repos": ("nobody/nothing",)}, 'swe-bench has no repository "nobody/nothing". It has: '),
        ({"tasks": ("sympy__sympy-5",)}, "There is no mirror of sympy/sympy"),
    ],
)  # fmt: skip
def test_what_is_named_and_cannot_be_validated_says_why(
    here: Settings, named: dict[str, tuple[str, ...]], said: str
) -> None:
    selection = suite_named("swe-bench", 0).model_copy(update=named)
    with pytest.raises(BadInput) as refused:
        run_validations(selection, here, 1, "auto", print)
    assert said in str(refused.value)


def test_what_is_fetched_and_prepared_is_what_can_be_run(here: Settings) -> None:
    assert {repo: len(found) for repo, found in tasks_by_repo(here, (), "swe-bench").items()} == {
        "sympy/sympy": 2
    }
    with pytest.raises(BadInput, match="psf__requests-1 cannot be run here"):
        tasks_by_repo(here, ("psf/requests",), "swe-bench")
    with pytest.raises(BadInput, match='The suite "micro" has no repositories to get'):
        tasks_by_repo(here, (), "micro")
    with pytest.raises(
        BadInput, match="SWE-bench is not configured. Name rows in SWE-bench's shape with --data"
    ):
        tasks_by_repo(replace(here, rows={**here.rows, "swe-bench": ""}), (), "swe-bench")


def test_every_prediction_stands_in_one_list_of_the_report_also_where_its_task_is_not_eligible(
    tmp_path: Path, here: Settings
) -> None:
    """Of a model of which nothing else was submitted too."""
    here = replace(here, state=tmp_path / "home")
    task = next(
        each for each in load_swe_bench(here.rows["swe-bench"]) if each.instance_id == "sympy__sympy-5"
    )
    unfit = next(each for each in shipped() if not each.valid).model_copy(
        update={
            "instance_id": task.instance_id,
            "repo": task.repo,
            "task_hash": task.labels_hash,
            "verifier": VERSION,
            "missing_programs": missing_programs(task.repo),
        }
    )
    here.validations.mkdir(parents=True)
    with closing(Stream(here.validations, "validations", Validation)) as stream:
        stream.append(unfit)
    made = [
        {"instance_id": name, "model_name_or_path": model, "model_patch": "diff --git a/a b/a\n"}
        for model, name in (("m", "psf__requests-1"), ("m", "sympy__sympy-5"), ("n", "sympy__sympy-5"))
    ]
    path = tmp_path / "made.jsonl"
    written(path, made)
    asked = ("bench", "verify", str(path), "--suite", "swe-bench", "--data", here.rows["swe-bench"])
    done = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(here.state), LOOPER_SWE_DATA="")
    reports = {
        found["model"]: found for found in json.loads(f"[{done.stdout.replace('}' + chr(10) + '{', '},{')}]")
    }
    lists = ("resolved_ids", "unresolved_ids", "empty_patch_ids", "error_ids", "incomplete_ids")
    for model, names in (("m", ["psf__requests-1", "sympy__sympy-5"]), ("n", ["sympy__sympy-5"])):
        assert reports[model]["submitted_ids"] == names
        assert sorted(name for kind in lists for name in reports[model][kind]) == names
        assert reports[model]["error_instances"] == reports[model]["submitted_instances"] == len(names)
    assert "sympy__sympy-5 of m is not judged, the task is not eligible" in done.stderr


def test_predictions_for_what_cannot_be_run_are_errors_by_name_and_no_verdicts(
    tmp_path: Path, here: Settings
) -> None:
    names = ["psf__requests-1", "sympy__sympy-2"]
    made = [
        {"instance_id": name, "model_name_or_path": "m", "model_patch": "diff --git a/a b/a\n"}
        for name in names
    ]
    path, told = tmp_path / "made.jsonl", list[str]()
    written(path, made)
    found, _ = grade(path, "swe-bench", 0, "shared", 2, "auto", here, "", told.append)
    report = swe_bench_report(found, "m_m")
    assert report["error_ids"] == report["submitted_ids"] == names and report["completed_ids"] == []
    assert "no verdict, sympy/sympy 0.7: 1 task, no environment is known for this version" in told
    assert {verdict.cause for verdict in found.verdicts} == {
        "EnvironmentBroken: psf/requests 2.31: no environment is known for this repository.",
        "EnvironmentBroken: sympy/sympy 0.7: no environment is known for this version.",
    }


ONE = row(5)
LINES = json.dumps(ONE).encode() + b"\n"
MARK = b"\xef\xbb\xbf"
ESCAPE = "\x1b[31m"


def listed(folder: Path, content: bytes, name: str = "r.jsonl", **environment: str) -> Any:
    (folder / name).write_bytes(content)
    asked = ("bench", "list", "--suite", "swe-bench", "--data", name, "--mirrors", "none")
    return looper(*asked, cwd=folder, LOOPER_HOME=str(folder / "home"), **environment)


@pytest.mark.parametrize(
    "content",
    [
        MARK + json.dumps([ONE]).encode(),
        MARK + json.dumps([ONE], indent=1).encode(),
        MARK + LINES + MARK + json.dumps(row(6)).encode(),
        gzip.compress(LINES),
        gzip.compress(MARK + json.dumps([ONE], indent=1).encode()),
    ],
    ids=["list", "list over lines", "joined lines", "packed", "packed list"],
)
def test_rows_are_read_whatever_mark_and_packing_they_have(tmp_path: Path, content: bytes) -> None:
    found = listed(tmp_path, content)
    assert found.returncode == 0 and "sympy/sympy" in found.stdout, found.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LINES.decode().encode("utf-16"), "r.jsonl is written in UTF-16. Write it in UTF-8."),
        (LINES.decode().encode("utf-16-le"), "r.jsonl begins with NUL bytes, as text in UTF-16 does. Write it"),
        (LINES.replace(b"issue 5", b"caf\xe9"), "r.jsonl, line 1: the byte 0xe9 is no text in UTF-8. Write it"),
        (gzip.compress(LINES)[:-12], "r.jsonl cannot be unpacked: Compressed file ended before"),
        (LINES[:-2] + b', "patch": "x"}', 'r.jsonl, row 1: "patch" stands in one object twice. Correct it, or'),
        (LINES.replace(b"issue 5", b"\\ud800"), "r.jsonl, row 1: it holds a lone surrogate, half a character"),
        (LINES.replace(b"1.12", b"\\u001b[31m"), "r.jsonl, row 1: version is no text or number that can be shown"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_read_are_one_line_that_says_what_to_do(
    tmp_path: Path, content: bytes, said: str
) -> None:
    found = listed(tmp_path, content)
    assert found.returncode == 2 and said in one_line(found)


@pytest.mark.parametrize("command", ["list", "verify"])
@pytest.mark.parametrize("name", ["x" * 300, "/proc/self/mem", "a pipe"])
def test_what_cannot_be_opened_is_one_line_wherever_it_is_named(
    tmp_path: Path, here: Settings, name: str, command: str
) -> None:
    if name.startswith("/proc") and not os.path.exists(name):
        pytest.skip("this system has no /proc")
    os.mkfifo(tmp_path / "a pipe")
    asked = ("--data", name) if command == "list" else (name, "--data", here.rows["swe-bench"])
    found = looper(
        "bench", command, "--suite", "swe-bench", *asked, cwd=tmp_path, LOOPER_HOME=str(here.state)
    )
    assert (
        found.returncode == 2
        and f"{name} {'is no regular file' if 'pipe' in name else 'cannot be read'}" in one_line(found)
    )


def test_what_others_wrote_reaches_a_terminal_short_and_without_its_escapes(
    tmp_path: Path, here: Settings
) -> None:
    related = listed(
        tmp_path,
        b"\n".join(json.dumps(each).encode() for each in (ONE, relation(ONE, {"instance_id": ESCAPE}))),
    )
    assert r'"\u001b[31m" is related to another task' in one_line(related)
    rows = [row(number) for number in range(1000)]
    circle = [relation(one, rows[number - 1]) for number, one in enumerate(rows)]
    found = listed(tmp_path, b"\n".join(json.dumps(each).encode() for each in [*rows, *circle]))
    assert "(1000 tasks) is a circle" in one_line(found) and len(one_line(found)) < 500
    made = {"instance_id": "sympy__sympy-5", "model_name_or_path": ESCAPE + "m" * 1000, "model_patch": ""}
    twice = written(tmp_path / "made.jsonl", [made, made])
    found = looper(
        "bench",
        "verify",
        twice,
        "--suite",
        "swe-bench",
        "--data",
        here.rows["swe-bench"],
        cwd=tmp_path,
        LOOPER_HOME=str(here.state),
    )
    assert r"sympy__sympy-5 of \x1b[31mm" in one_line(found) and len(one_line(found)) < 500


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("raise AttributeError('numpy has no x')", "The datasets package cannot be imported: AttributeError: numpy has no x. Install"),
        ("def load_dataset(*_, **__): return [1]", "hub:a/b, row 1: no JSON object. Correct it, or"),
        ("def load_dataset(*_, **__): raise ValueError('a\\nb' + 'x' * 9999)", "The hub did not give a/b: ValueError: a b"),
    ],
    ids=["a clash of packages", "no rows", "an error of many lines"],
)  # fmt: skip
def test_a_package_for_the_hub_that_breaks_is_one_line(tmp_path: Path, package: str, said: str) -> None:
    (tmp_path / "site" / "datasets").mkdir(parents=True)
    (tmp_path / "site" / "datasets" / "__init__.py").write_text(package)
    path = os.pathsep.join(filter(None, (str(tmp_path / "site"), os.environ.get("PYTHONPATH"))))
    asked = ("bench", "list", "--suite", "swe-bench", "--data", "hub:a/b")
    found = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(tmp_path / "home"), PYTHONPATH=path)
    assert found.returncode == 2 and said in one_line(found) and len(one_line(found)) < 800


def test_a_suite_that_nothing_runs_of_is_not_to_be_fetched(tmp_path: Path) -> None:
    found = listed(tmp_path, json.dumps(row(1, "psf/requests", "2.31")).encode())
    assert (
        found.stdout.splitlines()[0]
        == "swe-bench: 1 task, ready: none; no environment is known for any of them"
    )


def test_a_task_of_another_repository_than_the_one_that_is_named_is_said(
    tmp_path: Path, here: Settings
) -> None:
    rows = written(tmp_path / "two.jsonl", [ONE, row(1, "django/django", "3.0")])
    asked = (
        "bench",
        "validate",
        "--suite",
        "swe-bench",
        "--data",
        rows,
        "--repo",
        "django/django",
        "--task",
        "sympy__sympy-5",
    )
    found = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(here.state))
    assert (
        found.returncode == 2
        and "of the tasks that are named (sympy__sympy-5) none is of django/django. Leave out"
        in one_line(found)
    )


def test_ids_that_do_not_tell_repositories_apart_are_refused_as_they_are_loaded(
    tmp_path: Path, here: Settings
) -> None:
    def plain(name: str, repo: str) -> dict[str, Any]:
        return {**row(len(name), repo, "3.0"), "instance_id": name}

    for rows, said in (
        (
            [plain("task1ofa", "a/a"), plain("task12ofb", "b/b")],
            "task1ofa of a/a: what stands before the last hyphen",
        ),
        ([plain("a-1", "a/a"), plain("a-12", "b/b")], "a-12 of b/b and a-1 of a/a: what stands before"),
        ([plain("a-1", "a/a"), plain("b-12", "a/a")], "b-12 of a/a and a-1 of a/a: what stands before"),
    ):
        name = written(tmp_path / "rows.jsonl", rows)
        asked = ("bench", "list", "--suite", "swe-bench", "--data", name)
        found = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(here.state))
        assert found.returncode == 2 and said in one_line(found)
        assert "Name tasks NAME-NUMBER" in one_line(found)
    rows = [plain("odd.name-1", "a/a"), plain("odd.name-x12", "a/a"), plain("b-12", "b/b")]
    name = written(tmp_path / "rows.jsonl", rows)
    found = looper("bench", "list", "--suite", "swe-bench", "--data", name, cwd=tmp_path)
    assert found.returncode == 0, found.stderr


def test_every_suite_is_listed_with_the_variable_that_says_where_its_rows_are(
    tmp_path: Path, state: Path
) -> None:
    unset = dict.fromkeys(ROWS_FROM.values(), "")
    found = looper("bench", "list", cwd=tmp_path, LOOPER_HOME=str(state), **unset).stdout
    for suite in SUITES:
        assert f"\n{suite}" in f"\n{found}", f"looper bench list does not name the suite {suite}"
    for suite, variable in ROWS_FROM.items():
        assert f"{suite}: 0 tasks, not configured: set {variable}\n" in found
