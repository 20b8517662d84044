"""`scripts/check_verdicts.py` tells where Looper and the SWE-bench harness say the same of a patch, and where not."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from looper.errors import BadInput
from looper.records.task import Task

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_verdicts.py"
Suite = tuple[tuple[Task, ...], dict[str, Path]]


class Checker:
    """A folder with predictions and a report, and the script on them."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "LOOPER_HOME": str(state), "LOOPER_RUNS": str(folder / "runs")}

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(SCRIPT), *arguments, "--suite", "micro"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )


@pytest.fixture
def checker(tmp_path: Path, state: Path) -> Checker:
    return Checker(tmp_path, state)


def test_agreement_and_disagreement_are_told_apart_and_only_what_is_explained_is_let_pass(
    checker: Checker, micro: Suite
) -> None:
    good, idle, denied, praised, unknown = micro[0][:5]
    patches = {good: good.gold_patch, idle: "", denied: denied.gold_patch, praised: "no patch", unknown: "x"}
    lines = [
        {"instance_id": task.instance_id, "model_name_or_path": "M", "model_patch": patch}
        for task, patch in patches.items()
    ]
    lines.append({"instance_id": "of_another__suite-1", "model_name_or_path": "M", "model_patch": "x"})
    checker.write("preds.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    report = {
        "resolved_ids": [good.instance_id, praised.instance_id],
        "unresolved_ids": [denied.instance_id],
        "empty_patch_ids": [idle.instance_id],
        "error_ids": [unknown.instance_id],
    }
    checker.write("report.json", json.dumps(report))
    found = checker("preds.jsonl=report.json")
    assert found.returncode == 1, found.stderr
    assert "6 patches, 5 of tasks that were chosen, 4 of them judged officially" in found.stderr
    assert "| all | 4 | 1 | 1 | 1 | 1 | 0 |" in found.stdout
    assert f"M {denied.instance_id}: official unresolved, here resolved; NOT EXPLAINED" in found.stdout
    assert f"M {praised.instance_id}: official resolved, here unresolved (" in found.stdout
    assert found.stdout.count("NOT EXPLAINED") == 2
    why = f'[M]\n"{denied.instance_id}" = "its label is wrong"\n'
    checker.write("why.toml", why)
    half = checker("preds.jsonl=report.json", "--explained", "why.toml")
    assert half.returncode == 1 and "explained: its label is wrong" in half.stdout
    checker.write("why.toml", f'{why}"{praised.instance_id}" = "so is this"\n')
    assert checker("preds.jsonl=report.json", "--explained", "why.toml").returncode == 0
    assert len(list((checker.folder / "runs").iterdir())) == 1, "nothing is judged twice"


OFFICIAL = runpy.run_path(str(SCRIPT))["official"]
"""Report and instance ids → whether each is resolved."""


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"resolved_ids": ["a"], "unresolved_ids": ["b"], "error_ids": ["c"]}, {"a": True, "b": False}),
        ({"resolved": ["a"], "no_generation": ["b"], "no_logs": ["c"]}, {"a": True, "b": False}),
        ({"resolved": ["a"], "generated": ["a", "b"], "install_fail": []}, {"a": True, "b": False}),
        ({"a": {"resolved": True}, "b": {"resolved": False}}, {"a": True, "b": False}),
        ({"a": 1, "b": 0, "other": 1}, {"a": True, "b": False}),
    ],
)
def test_each_kind_of_report_is_read(report: dict[str, Any], said: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert OFFICIAL(tmp_path / "report.json", ["a", "b", "c"]) == said


def test_a_folder_of_reports_is_read_as_the_harness_leaves_it(tmp_path: Path) -> None:
    for name, resolved in (("a", True), ("b", False)):
        (tmp_path / "run/model" / name).mkdir(parents=True)
        told = {name: {"patch_exists": True, "resolved": resolved}}
        (tmp_path / "run/model" / name / "report.json").write_text(json.dumps(told))
    assert OFFICIAL(tmp_path, ["a", "b", "c"]) == {"a": True, "b": False}
    assert OFFICIAL(tmp_path / "run/model/a/report.json", ["a", "b"]) == {"a": True}


@pytest.mark.parametrize("text", ["[1", "[]", '{"a": {"patch_exists": true}}', '{"resolved_ids": 3}'])
def test_what_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(BadInput):
        OFFICIAL(tmp_path / "report.json", ["a"])


def test_a_patch_without_a_verdict_here_is_no_agreement() -> None:
    made = runpy.run_path(str(SCRIPT))
    one = made["Compared"]("M", "r", "r-1", False, None, "the disk is full")
    assert not one.agrees and one.column == "no verdict here"
    assert made["told"](one, "") == (
        "M r-1: official unresolved, here no verdict (the disk is full); NOT EXPLAINED"
    )


def test_what_cannot_be_checked_is_named_in_one_line(checker: Checker) -> None:
    checker.write("preds.jsonl", '{"instance_id": "a", "model_patch": ""}\n')
    for arguments, said in (
        (["preds.jsonl"], "name a report behind the predictions"),
        (["nowhere.jsonl=preds.jsonl"], "There is no file or folder nowhere.jsonl"),
        (["preds.jsonl=preds.jsonl", "--explained", "no.toml"], "no explanations that can be read"),
    ):
        found = checker(*arguments)
        assert found.returncode == 2 and said in found.stderr and "Traceback" not in found.stderr
