"""Suites of rows in SWE-bench's shape, as a user meets them."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.test_commands import looper
from tests.fakes.swe_bench_rows import relation, row, written

from looper.bench.validate import shipped
from looper.bench.verify import VERSION
from looper.cli.fetching import tasks_by_repo
from looper.cli.grading import grade, suite_named
from looper.cli.plans import RunOptions
from looper.cli.running import dry_run
from looper.cli.settings import Settings, settings
from looper.cli.validating import run_validations
from looper.edges.datasets.swe_bench import load_swe_bench
from looper.edges.environments.known import missing_programs
from looper.errors import BadInput
from looper.journal import Stream
from looper.records.eligibility import Validation
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
        swe_bench_data=rows,
    )


def test_what_is_there_and_what_cannot_be_run_is_listed_by_version(tmp_path: Path, here: Settings) -> None:
    asked = ("bench", "list", "--suite", "swe-bench", "--data", here.swe_bench_data, "--mirrors", "none")
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
        tasks_by_repo(replace(here, swe_bench_data=""), (), "swe-bench")


def test_every_prediction_stands_in_one_list_of_the_report_also_where_its_task_is_not_eligible(
    tmp_path: Path, here: Settings
) -> None:
    """Of a model of which nothing else was submitted too."""
    here = replace(here, state=tmp_path / "home")
    task = next(each for each in load_swe_bench(here.swe_bench_data) if each.instance_id == "sympy__sympy-5")
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
    asked = ("bench", "verify", str(path), "--suite", "swe-bench", "--data", here.swe_bench_data)
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
