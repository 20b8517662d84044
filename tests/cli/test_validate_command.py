"""`looper bench validate` as a user meets it, on the embedded suite."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_commands import looper, one_line
from tests.experiment.test_run import fail_the_runner
from typer.testing import CliRunner

from looper.bench.verify import TestReport
from looper.cli import validating
from looper.cli.main import app
from looper.cli.settings import settings
from looper.cli.wiring import every_task
from looper.errors import ExitCode
from looper.experiment.schedule import select_tasks
from looper.records.plan import TaskSelection
from looper.records.task import Task


def test_a_task_is_validated_once_and_the_table_says_what_was_found(tmp_path: Path, state: Path) -> None:
    home = {"LOOPER_HOME": str(state)}
    shutil.rmtree(state / "validations", ignore_errors=True)
    listed = looper("run", "exp00", "--dry-run", "--arm", "noop", "--limit", "2", cwd=tmp_path, **home).stdout
    names = [line.split("/")[2] for line in listed.splitlines() if line.startswith("noop/0/")]
    asked = ["bench", "validate", "--suite", "micro", *(word for name in names for word in ("--task", name))]
    first = looper(*asked, cwd=tmp_path, **home)
    assert first.returncode == 0, first.stderr
    assert "0 of 2 tasks had been validated before" in first.stderr and first.stderr.count(": valid, ") == 2
    assert "| 2 | 2 | 0 | 0 | 0 | 0 |" in first.stdout
    again = looper(*asked, cwd=tmp_path, **home)
    assert "2 of 2 tasks had been validated before" in again.stderr and again.stdout == first.stdout
    fresh = looper(*asked[:-2], "--fresh", cwd=tmp_path, **home)
    assert "0 of 1 task had been validated before" in fresh.stderr and fresh.stderr.count(": valid, ") == 1


def test_a_task_that_breaks_ends_no_other(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = replace(settings(), state=state, workspaces=state / "workspaces")
    shutil.rmtree(at.validations, ignore_errors=True)
    selection, told = TaskSelection(suite="micro", limit=2), list[str]()
    tasks = select_tasks(every_task(selection, at)[0], selection)
    real = validating.verify

    def breaks(task: Task, *rest: Any) -> TestReport:
        if task.instance_id == tasks[0].instance_id:
            raise ValueError("something odd")
        return real(task, *rest)

    monkeypatch.setattr(validating, "verify", breaks)
    found = validating.run_validations(selection, at, 1, "auto", told.append).found
    assert [each.instance_id for each in found] == [tasks[1].instance_id] and found[0].valid
    assert f"{tasks[0].instance_id}: not tried, ValueError: something odd" in told


def first_task(folder: Path, home: dict[str, str]) -> str:
    """The first of the embedded suite, which is made with its mirrors where `home` says."""
    asked = ["run", "exp01", "--profile", "demo", "--dry-run", "--arm", "base", "--limit", "1"]
    listed = looper(*asked, cwd=folder, **home).stdout
    (name,) = [line.split("/")[2] for line in listed.splitlines() if line.startswith("base/0/")]
    return name


def test_a_task_that_could_not_be_tried_is_named_and_the_command_says_so_by_its_exit_status(
    tmp_path: Path, state: Path
) -> None:
    home = {"LOOPER_HOME": str(tmp_path / "home")}
    name = first_task(tmp_path, home)
    asked = ["bench", "validate", "--suite", "micro", "--task", name]
    for mirror in (tmp_path / "home").rglob("*.git"):
        for part in (mirror / "objects").iterdir():
            shutil.rmtree(part)
    broken = looper(*asked, cwd=tmp_path, **home)
    assert broken.returncode == ExitCode.INFRASTRUCTURE and f"{name}: not tried, " in broken.stderr
    assert "1 of 1 task was not tried" in broken.stderr and "Traceback" not in broken.stderr


def test_fresh_that_could_judge_nothing_shows_nothing_of_before(tmp_path: Path) -> None:
    home = {"LOOPER_HOME": str(tmp_path / "home")}
    name = first_task(tmp_path, home)
    asked = ["bench", "validate", "--suite", "micro", "--task", name]
    good = looper(*asked, cwd=tmp_path, **home)
    assert good.returncode == 0 and "| 1 | 1 | 0 | 0 | 0 | 0 |" in good.stdout
    whole = fail_the_runner(next((tmp_path / "home" / "environments").glob("micro-*")))
    fresh = looper(*asked, "--fresh", cwd=tmp_path, **home)
    assert fresh.returncode == ExitCode.INFRASTRUCTURE and "1 of 1 task was not tried" in fresh.stderr
    assert "| 1 | 0 | 0 | 0 | 1 | 0 |" in fresh.stdout
    whole()
    assert looper(*asked, cwd=tmp_path, **home).stdout == good.stdout, "what was found before stays"


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is made by root")
def test_a_place_for_trees_without_room_gives_no_verdict_that_stays(tmp_path: Path, state: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "small").mkdir()
    home = {"LOOPER_HOME": str(state), "LOOPER_WORKSPACES": str(tmp_path / "small")}
    shutil.rmtree(state / "validations", ignore_errors=True)
    name = first_task(tmp_path, home)
    asked = [sys.executable, "-m", "looper", "bench", "validate", "--suite", "micro", "--task", name]
    mounted = f"mount -t tmpfs -o size=6m tmpfs {tmp_path}/small && exec {shlex.join(asked)}"
    full = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted], env={**os.environ, **home}, capture_output=True, text=True
    )
    if "mount: " in full.stderr or "unshare: " in full.stderr:
        pytest.skip(full.stderr)
    assert full.returncode == ExitCode.INFRASTRUCTURE
    assert f"{name}: not tried, Only " in full.stderr and "LOOPER_WORKSPACES" in full.stderr
    assert ": valid, " in looper(*asked[3:], cwd=tmp_path, **home).stderr


def test_what_cannot_be_written_in_the_end_is_refused_before_the_work(tmp_path: Path, state: Path) -> None:
    home = {"LOOPER_HOME": str(state)}
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain.md").write_text("no marks\n")
    for option, file, said in (
        ("--records", "nowhere/found.jsonl", "No such file or directory"),
        ("--records", "folder", "Is a directory"),
        ("--records", "n" * 300, "File name too long"),
        ("--file", "nowhere/table.md", "No such file or directory"),
        ("--file", "plain.md", "has no marks to write between"),
    ):
        refused = looper("bench", "validate", "--suite", "micro", option, file, cwd=tmp_path, **home)
        assert refused.returncode == ExitCode.USAGE and said in one_line(refused), (option, file)
        assert "validating" not in refused.stderr
    assert sorted(os.listdir(tmp_path)) == ["folder", "plain.md"]


def test_a_task_whose_rows_can_never_be_tried_is_not_one_that_was_not_tried(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPER_HOME", str(state))
    every, mirrors = every_task(TaskSelection(suite="micro"), replace(settings(), state=state))
    patch = f"{every[0].test_patch}diff --git a/x b/../x\n--- a/x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+\x1b[31m\n"
    broken = every[0].model_copy(update={"test_patch": patch})
    monkeypatch.setattr(validating, "every_task", lambda *_: ((broken, *every[1:]), mirrors))
    asked = [
        "bench",
        "validate",
        "--suite",
        "micro",
        "--task",
        broken.instance_id,
        "--task",
        every[1].instance_id,
    ]
    found = CliRunner().invoke(app, asked)
    assert (
        f"{broken.instance_id}: cannot be validated, The test patch of {broken.instance_id} does not apply"
        in found.stderr
    )
    assert "1 of 2 tasks can never be validated as their rows are" in found.stderr
    assert (
        found.exit_code == ExitCode.USAGE
        and "goes on" not in found.stderr
        and "not tried" not in found.stderr
    )


def test_what_cannot_be_validated_is_one_line(tmp_path: Path, state: Path) -> None:
    home = {"LOOPER_HOME": str(state)}
    name = first_task(tmp_path, home)
    near = looper("bench", "validate", "--suite", "micro", "--task", f"{name}x", cwd=tmp_path, **home)
    assert f"Did you mean {name}" in one_line(near) and near.returncode == 2
    table = looper(
        "bench", "validate", "--suite", "micro", "--task", name, "--file", "none.md", cwd=tmp_path, **home
    )
    assert "none.md has no marks to write between" in table.stderr and table.returncode == 2


def test_an_interruption_in_the_middle_of_judging_leaves_no_tree_and_no_verdict(
    tmp_path: Path, state: Path
) -> None:
    """A second one ends the command at once, and the trees that it works in are removed all the same."""
    home, trees = tmp_path / "home", tmp_path / "trees"
    home.mkdir()
    (home / "environments").symlink_to(state / "environments")
    asked = [
        sys.executable,
        "-m",
        "looper.cli.main",
        "bench",
        "validate",
        "--suite",
        "micro",
        "--workers",
        "2",
    ]
    with subprocess.Popen(
        asked,
        cwd=tmp_path,
        env={**os.environ, "LOOPER_HOME": str(home), "LOOPER_WORKSPACES": str(trees)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        until = time.monotonic() + 300
        while not list(trees.glob("*/*.validate-*")) and time.monotonic() < until:
            time.sleep(0.01)
        before = [path for path in trees.glob("*/*.validate-*")]
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        said, _ = process.communicate(timeout=300)
    assert before and process.returncode == ExitCode.INTERRUPTED, said
    assert list(trees.glob("*/*")) == [] and "INVALID" not in said
