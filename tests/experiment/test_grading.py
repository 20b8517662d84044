"""Grading patches that somebody else made, through the command."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from tests import program

from looper.edges.workspaces.exports import GitSessions
from looper.records.task import Task
from looper.records.verdict import Outcome
from looper.views.live import resume_command
from looper.views.runs import read_run

Suite = tuple[tuple[Task, ...], dict[str, Path]]


class Grader:
    def __init__(self, folder: Path, state: Path) -> None:
        self.folder, self.file = folder, folder / "predictions.jsonl"
        self.environment = {**os.environ, "LOOPER_HOME": str(state), "LOOPER_RUNS": str(folder / "runs")}

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return program.looper(*arguments, cwd=self.folder, env=self.environment, timeout_s=240)

    def grade(self, rows: list[dict[str, object]]) -> "subprocess.CompletedProcess[str]":
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return self("bench", "verify", str(self.file), "--suite", "micro")


@pytest.fixture
def grader(tmp_path: Path, state: Path) -> Grader:
    return Grader(tmp_path, state)


def row(task: Task, patch: str | None, model: str = "Some/Model-1") -> dict[str, object]:
    return {"instance_id": task.instance_id, "model_name_or_path": model, "model_patch": patch}


def test_every_kind_of_patch_is_classed_right_and_none_stops_the_run(grader: Grader, micro: Suite) -> None:
    gold, empty, broken, stale, tests, outside, nothing = micro[0][:7]
    test_edit = (
        f"diff --git a/{tests.test_targets[0]} b/{tests.test_targets[0]}\nnew file mode 100644\n--- /dev/null\n"
        f"+++ b/{tests.test_targets[0]}\n@@ -0,0 +1,2 @@\n+def test_it():\n+    pass\n"
    )
    escape = (
        "diff --git a/../../evil.py b/../../evil.py\nnew file mode 100644\n--- /dev/null\n+++ b/../../evil.py\n"
        "@@ -0,0 +1 @@\n+x = 1\n"
    )
    rows = [
        row(gold, gold.gold_patch),
        row(empty, ""),
        row(broken, "this is no patch at all\n+++ b/ops.py\n"),
        row(stale, stale.gold_patch.replace("-    return", "-    give back")),
        row(tests, test_edit),
        row(outside, escape),
        row(nothing, None),
    ]
    done = grader.grade(rows)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == "Some/Model-1" and report["resolved_ids"] == [gold.instance_id]
    assert report["empty_patch_ids"] == sorted([empty.instance_id, nothing.instance_id])
    assert report["error_ids"] == [] and report["submitted_instances"] == 7
    run = read_run(next((grader.folder / "runs").iterdir()))
    found = {verdict.instance_id: verdict for verdict in run.verdicts}
    assert all(verdict.outcome.is_verdict for verdict in found.values()) and len(found) == 7
    assert "does not apply" in found[broken.instance_id].cause
    assert "does not apply" in found[stale.instance_id].cause
    assert found[tests.instance_id].stripped_paths == (tests.test_targets[0],)
    assert found[outside.instance_id].outcome is Outcome.UNRESOLVED
    assert not (grader.folder / "evil.py").exists()
    again = grader.grade(rows)
    assert again.stdout == done.stdout and len(read_run(run.folder).verdicts) == 7, "nothing is judged twice"


def _kill_tests_below(place: Path, over: threading.Event) -> None:
    """As the system does where memory is short: the process that runs them, once."""
    while not over.wait(0.05):
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if "run_pytest" in (entry / "cmdline").read_text() and (
                    entry / "cwd"
                ).resolve().is_relative_to(place):
                    os.kill(int(entry.name), signal.SIGKILL)
                    return


def test_a_test_run_that_is_killed_from_outside_is_tried_again(
    grader: Grader, micro: Suite, sessions: GitSessions, state: Path
) -> None:
    task = micro[0][0]
    tree = sessions.open(task, "slow")
    tree.apply(task.gold_patch)
    slow = tree.root / task.modified_files[0]
    slow.write_text(f"{slow.read_text()}\n\nimport time\ntime.sleep(2)\n")
    patch, _ = tree.patch()
    tree.close()
    places = state / "workspaces"
    over = threading.Event()
    killing = threading.Thread(target=_kill_tests_below, args=(places, over))
    killing.start()
    try:
        done = grader.grade([row(task, patch)])
    finally:
        over.set()
        killing.join()
    (only,) = read_run(Path(done.stderr.split()[-1])).verdicts
    assert (only.outcome, only.attempt) == (Outcome.RESOLVED, 1)


def test_a_patch_that_kills_its_own_tests_is_unresolved_and_ends_nothing_else(
    grader: Grader, micro: Suite, sessions: GitSessions
) -> None:
    """Seven of them, one more than errors in a row that stop a run."""
    rows = []
    for task in micro[0][:7]:
        tree = sessions.open(task, "killing")
        tree.apply(task.gold_patch)
        product = tree.root / task.modified_files[0]
        product.write_text(f"{product.read_text()}\n\nimport os\nos.kill(os.getpid(), 9)\n")
        rows.append(row(task, tree.patch()[0]))
        tree.close()
    rows.append(row(micro[0][7], micro[0][7].gold_patch))
    done = grader.grade(rows)
    assert done.returncode == 0, done.stderr
    found = read_run(Path(done.stderr.split()[-1])).verdicts
    outcomes = {verdict.instance_id: verdict.outcome for verdict in found}
    assert outcomes.pop(micro[0][7].instance_id) is Outcome.RESOLVED
    assert set(outcomes.values()) == {Outcome.UNRESOLVED} and len(outcomes) == 7
    assert all("were killed (SIGKILL)" in v.cause for v in found if v.outcome is Outcome.UNRESOLVED)


def test_the_command_that_goes_on_with_a_grading_is_recorded_as_it_was_given(
    grader: Grader, micro: Suite
) -> None:
    grader.file = grader.folder / "two words.jsonl"
    assert grader.grade([row(micro[0][0], "")]).returncode == 0
    run = read_run(next((grader.folder / "runs").iterdir()))
    said = f"cd {grader.folder} && looper bench verify '{grader.file}' --suite micro"
    assert resume_command(run) == said and run.sessions[-1].workers == 2
    (run.folder / "sessions.jsonl").unlink()
    assert resume_command(read_run(run.folder)) == "looper bench verify 'two words.jsonl' --suite micro"


def test_models_of_one_file_are_reported_apart(grader: Grader, micro: Suite) -> None:
    first, second = micro[0][:2]
    rows = [row(task, task.gold_patch, model) for task in (first, second) for model in ("A b", "a-b")]
    done = grader.grade([*rows[:3], row(second, "", "a-b")])
    assert done.returncode == 0, done.stderr
    decoder = json.JSONDecoder()
    one, at = decoder.raw_decode(done.stdout)
    two, _ = decoder.raw_decode(done.stdout[at:].lstrip())
    assert (one["model"], one["resolved_instances"]) == ("A b", 2)
    assert (two["model"], two["resolved_instances"], two["empty_patch_instances"]) == ("a-b", 1, 1)


def test_what_a_run_exports_is_graded_as_the_run_was(grader: Grader, micro: Suite) -> None:
    (grader.folder / "experiments").mkdir()
    ran = grader("run", "exp00", "--profile", "demo", "--arm", "gold", "--limit", "3")
    assert ran.returncode == 0, ran.stderr
    folder = next((grader.folder / "runs").iterdir())
    exported = grader("export", str(folder), "--arm", "gold")
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    assert len(lines) == 3 and set(lines[0]) == {"instance_id", "model_name_or_path", "model_patch"}
    report = json.loads(grader.grade(lines).stdout)
    assert report["resolved_instances"] == 3
    refused = grader("export", str(folder))
    assert refused.returncode == 2 and "Name one arm with --arm: gold, noop" in refused.stderr


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (['{"instance_id": "ID", "model_name_or_path": "m"}'], "line 1: without model_patch"),
        (["not json"], "line 1: not JSON"),
        (
            ['{"instance_id": "NEAR", "model_name_or_path": "m", "model_patch": ""}'],
            'unknown task "NEAR" (did you mean ID?). Correct',
        ),
        (
            ['{"instance_id": "ID", "model_name_or_path": "m", "model_patch": ""}'] * 2,
            "line 2: ID of m a second time",
        ),
        (['{"instance_id": "ID", "model_name_or_path": "m", "model_patch": 3}'], "model_patch is no text"),
        ([], "holds no predictions"),
    ],
    ids=["missing field", "not json", "unknown task", "twice", "no text", "empty"],
)
def test_a_file_that_cannot_be_graded_is_refused_in_one_line(
    lines: list[str], named: str, grader: Grader, micro: Suite
) -> None:
    name = micro[0][0].instance_id
    near = f"{name}x"
    text = "\n".join(lines).replace("NEAR", near).replace("ID", name)
    grader.file.write_text(text + "\n")
    found = grader("bench", "verify", str(grader.file), "--suite", "micro")
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert named.replace("NEAR", near).replace("ID", name) in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (grader.folder / "runs").exists()


def test_no_file_and_no_such_suite_are_named(grader: Grader) -> None:
    assert (
        "nowhere.jsonl does not exist. Name a file of predictions"
        in grader("bench", "verify", "nowhere.jsonl", "--suite", "micro").stderr
    )
    assert 'no suite "macro"' in grader("bench", "verify", "nowhere.jsonl", "--suite", "macro").stderr


def test_a_file_may_be_called_as_long_as_a_name_can_be(grader: Grader, micro: Suite) -> None:
    grader.file = grader.folder / f"{'é' * 120}.jsonl"
    done = grader.grade([row(micro[0][0], "")])
    assert done.returncode == 0 and '"submitted_instances": 1' in done.stdout, done.stderr


def test_a_link_to_nothing_in_a_folder_of_predictions_is_not_passed_over(grader: Grader) -> None:
    (grader.folder / "preds").mkdir()
    (grader.folder / "preds" / "preds.json").symlink_to("gone.json")
    (grader.folder / "preds" / "a.pred").write_text("{}")
    found = grader("bench", "verify", str(grader.folder / "preds"), "--suite", "micro")
    assert (
        found.returncode == 2 and "preds/preds.json cannot be read: No such file or directory" in found.stderr
    )
