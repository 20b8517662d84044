"""Runs of other harnesses, read as they write them, with the statistics that ours get."""

import json
from pathlib import Path
from typing import Any

import pytest

from looper.cli.exporting import import_lines
from looper.edges.datasets.foreign import read_foreign
from looper.errors import BadInput
from looper.views.foreign import foreign_predictions

PATCH = "diff --git a/x b/x\n"


def mini_swe_agent(folder: Path, patches: dict[str, str]) -> Path:
    """A folder as mini-swe-agent leaves it: a trajectory for each task, and all patches together."""
    for name, patch in patches.items():
        (folder / name).mkdir(parents=True)
        info = {
            "exit_status": "Submitted" if patch else "LimitsExceeded",
            "submission": patch,
            "model_stats": {"instance_cost": 0.25, "api_calls": 9},
            "config": {"model": {"model_name": "some/model"}},
        }
        trajectory = {
            "instance_id": name,
            "info": info,
            "messages": [],
            "trajectory_format": "mini-swe-agent-1",
        }
        (folder / name / f"{name}.traj.json").write_text(json.dumps(trajectory))
    preds = {
        name: {"instance_id": name, "model_name_or_path": "some/model", "model_patch": patch}
        for name, patch in patches.items()
    }
    (folder / "preds.json").write_text(json.dumps(preds))
    return folder


def openhands(path: Path, resolved: dict[str, bool]) -> Path:
    path.parent.mkdir(parents=True)
    rows = [
        {
            "instance_id": name,
            "test_result": {"git_patch": PATCH},
            "metadata": {"llm_config": {"model": "other/model"}},
            "history": [
                {"source": "agent", "action": "run"},
                {"source": "environment", "observation": "run"},
            ],
            "metrics": {"accumulated_cost": 0.5},
            "report": {"resolved": found},
        }
        for name, found in resolved.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def report(path: Path, **lists: Any) -> Path:
    path.write_text(json.dumps({"resolved_ids": [], **lists, "schema_version": 2}))
    return path


def test_a_folder_of_mini_swe_agent_with_its_report(tmp_path: Path) -> None:
    folder = mini_swe_agent(tmp_path / "run_a", {"t-1": PATCH, "t-2": "", "t-3": PATCH})
    judged = report(tmp_path / "a.json", resolved_ids=["t-1"], empty_patch_ids=["t-2"])
    found = read_foreign(f"{folder}={judged}")
    assert (found.harness, found.model) == ("mini-swe-agent", "some/model")
    assert {one.instance_id: one.resolved for one in found.attempts} == {
        "t-1": True,
        "t-2": False,
        "t-3": None,
    }
    assert {(one.steps, one.cost) for one in found.attempts} == {(9, 0.25)}
    assert read_foreign(str(folder / "preds.json")).attempts[0].patch == PATCH


def test_openhands_says_itself_what_it_resolved(tmp_path: Path) -> None:
    found = read_foreign(str(openhands(tmp_path / "run_b" / "output.jsonl", {"t-1": True, "t-2": False})))
    assert (found.harness, found.model, found.name) == ("OpenHands", "other/model", "run_b")
    assert [(one.resolved, one.steps, one.cost) for one in found.attempts] == [
        (True, 1, 0.5),
        (False, 1, 0.5),
    ]


def test_two_runs_are_compared_on_the_tasks_that_both_were_judged_on(tmp_path: Path) -> None:
    names = [f"t-{number}" for number in range(10)]
    first = openhands(
        tmp_path / "a" / "output.jsonl", {name: number < 3 for number, name in enumerate(names)}
    )
    second = openhands(
        tmp_path / "b" / "output.jsonl", {name: number < 8 for number, name in enumerate(names[1:], 1)}
    )
    said = "\n".join(import_lines([str(first), str(second)], tmp_path / "p.jsonl"))
    assert "a (OpenHands, other/model): 10 attempts" in said and "resolved 3 of 10, 30 %" in said
    assert (
        "b − a" in said
        and ": +55.6 points" in said
        and "9 pairs, 5 gained, 0 lost" in said
        and "p = 0.062 unadjusted by task (9)" in said
    )
    assert "smallest difference that 9 such tasks show" in said
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    assert len(lines) == 19 and json.loads(lines[0])["model_patch"] == PATCH


def test_what_is_not_judged_has_no_rate(tmp_path: Path) -> None:
    folder = mini_swe_agent(tmp_path / "a", {"t-1": PATCH})
    said = "\n".join(import_lines([str(folder)], None))
    assert "1 attempt is not judged" in said and "resolved" not in said
    assert list(foreign_predictions(read_foreign(str(folder))))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.jsonl", '{"instance_id": "t"}\n', "line 1: without model_patch"),
        ("p.jsonl", '{"model_patch": ""}\n', "line 1: without instance_id"),
        ("p.jsonl", "{}\n{oops\n", "line 2: not JSON"),
        ("p.jsonl", "[[]]\n", "an object is wanted, not list"),
        ("p.jsonl", "", "holds no attempts"),
        ("p.jsonl", '{"instance_id": "t", "model_patch": ""}\n' * 2, "t is there twice"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=said):
        read_foreign(str(tmp_path / name))


def test_a_report_that_is_none_is_named(tmp_path: Path) -> None:
    folder = mini_swe_agent(tmp_path / "a", {"t-1": PATCH})
    with pytest.raises(BadInput, match="There is no report"):
        read_foreign(f"{folder}={tmp_path / 'none.json'}")
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(BadInput, match="without resolved_ids"):
        read_foreign(f"{folder}={tmp_path / 'r.json'}")
    with pytest.raises(BadInput, match="There is no"):
        read_foreign(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"])
def test_m5_lines_of_a_run_end_at_line_feeds_alone(tmp_path: Path, mark: str) -> None:
    patch = f"{PATCH}+a{mark}b\n"
    row = {"instance_id": "t", "test_result": {"git_patch": patch}}
    (tmp_path / "output.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\r\n", "utf-8")
    assert read_foreign(str(tmp_path / "output.jsonl")).attempts[0].patch == patch


def test_m12_a_byte_order_mark_the_other_models_name_and_a_sign_in_the_path_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "llm=one"
    folder.mkdir()
    row = {
        "instance_id": "t",
        "test_result": {"git_patch": PATCH},
        "metadata": {"llm": {"model": "prov/coder"}},
        "history": [{"source": "agent", "kind": "ActionEvent", "action": {"command": "ls"}}],
    }
    (folder / "output.jsonl").write_text(json.dumps(row), "utf-8-sig")
    found = read_foreign(str(folder / "output.jsonl"))
    assert (found.model, found.attempts[0].steps, found.attempts[0].patch) == ("prov/coder", 1, PATCH)
    judged = report(tmp_path / "its=report.json", resolved_ids=["t"])
    assert read_foreign(f"{folder / 'output.jsonl'}={judged}").attempts[0].resolved


@pytest.mark.parametrize("content", ["{oops", "[1]", '{"info": "no"}', '{"info": {"submission": 3}}', "\xff"])
def test_m12_one_bad_file_does_not_refuse_its_folder_and_is_named(tmp_path: Path, content: str) -> None:
    folder = mini_swe_agent(tmp_path / "a", {"t-1": PATCH, "t-2": PATCH})
    (folder / "t-1" / "t-1.traj.json").write_text(content, "latin-1")
    said = "\n".join(import_lines([str(folder)], None))
    assert "1 attempt," in said and "left out" in said and "t-1.traj.json" in said
    (folder / "t-2" / "t-2.traj.json").write_text(content, "latin-1")
    with pytest.raises(BadInput, match="t-1.traj.json"):
        read_foreign(str(folder))


@pytest.mark.parametrize(
    "row",
    [
        {"instance_id": "t", "model_patch": ["x"]},
        {"instance_id": "t", "test_result": "none"},
        {"instance_id": "t", "test_result": {}, "history": 3},
    ],
)
def test_m12_a_row_of_another_shape_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadInput, match=r"p\.jsonl, line 1: not what it should hold"):
        read_foreign(str(tmp_path / "p.jsonl"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("5", "an object is wanted, not int"),
        ("null", "an object is wanted, not NoneType"),
        ('"text"', "an object is wanted, not str"),
        ('{"a": {"model_patch": ""}, "a": {"model_patch": ""}}', '"a" stands in one object twice'),
    ],
)
def test_a_file_that_holds_something_else_says_so(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "x.json").write_text(written)
    with pytest.raises(BadInput, match=f"x.json, line 1: {said}"):
        read_foreign(str(tmp_path / "x.json"))


def test_one_prediction_over_several_lines_is_imported(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"instance_id": "a", "model_patch": PATCH}, indent=1))
    assert [found.patch for found in read_foreign(str(tmp_path / "x.json")).attempts] == [PATCH]


def test_predictions_under_the_name_of_another_task_or_of_no_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "preds.json"
    row = {"instance_id": "t-2", "model_patch": PATCH}
    path.write_text(json.dumps({"t-1": row}))
    with pytest.raises(BadInput, match='preds.json: what stands under "t-1" is for "t-2"; one of the two'):
        read_foreign(str(path))
    path.write_text(json.dumps({"t-2": row | {"model_name_or_path": ["m"]}}))
    with pytest.raises(BadInput, match="line 1: model_name_or_path is no text"):
        read_foreign(str(path))
