"""Runs for others to read: cells as tables, successes as training data, rollouts in a common format."""

import csv
import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.experiment.test_run import Project
from tests.fakes.written_run import write_run

from looper.agent.actions import parse
from looper.experiment.pools import read_attempts
from looper.records.trajectory import FinishReason
from looper.records.treatment import Proof, ProofKind
from looper.records.verdict import Outcome
from looper.views.decided import report_data
from looper.views.exports import atif_lines, cell_rows
from looper.views.index import steps_of
from looper.views.runs import read_run


def test_every_cell_is_a_row_and_what_was_not_measured_is_empty(finished: Project) -> None:
    run = read_run(finished.run)
    rows = list(
        csv.DictReader(io.StringIO(finished.looper("export", str(finished.run), "--format", "csv").stdout))
    )
    assert len(rows) == 3 * 2 * 3, "arms, seeds, tasks"
    ends = {end.cell: end for end in run.trajectories}
    verdicts = {verdict.cell: verdict for verdict in run.verdicts}
    assert {verdict.outcome.value for verdict in verdicts.values()} == {"resolved", "unresolved"}
    for row in rows:
        cell = f"{row['arm']}/{row['seed']}/{row['task']}"
        end, verdict = ends[cell], verdicts[cell]
        assert (row["outcome"], row["cause"], row["applied"]) == (
            verdict.outcome.value,
            verdict.cause,
            verdict.applied or "",
        )
        assert (int(row["steps"]), row["stop_reason"]) == (end.steps, end.stop_reason.value)
        assert int(row["prompt_tokens"]) == end.prompt_tokens
        assert row["patch_hash"] == end.patch_hash


def test_training_data_marks_what_the_loss_counts(finished: Project) -> None:
    """Verified successes of the training tasks only, every action marked, in the text that the agent was asked with."""
    lines = finished.looper("export", str(finished.run), "--format", "sft").stdout.splitlines()
    run = read_run(finished.run)
    evaluated, found = set(run.tasks), [json.loads(line) for line in lines]
    resolved = {
        f"{attempt.verdict.cell}#{attempt.verdict.attempt}"
        for attempt in read_attempts(finished.run)
        if attempt.verdict.outcome is Outcome.RESOLVED
    }
    assert found
    for example in found:
        assert example["instance_id"] not in evaluated and example["source"] in resolved
        said = [turn for turn in example["messages"] if turn["role"] == "assistant"]
        assert all(parse(turn["content"], FinishReason.STOP).action for turn in said if turn["weight"])
        assert all("weight" not in turn for turn in example["messages"] if turn["role"] != "assistant")


def test_preference_data_has_one_opening_and_two_ways_on(finished: Project) -> None:
    made = finished.looper("export", str(finished.run), "--format", "dpo")
    assert made.returncode == 0 and made.stdout, made.stderr
    for line in made.stdout.splitlines():
        pair = json.loads(line)
        assert [turn["role"] for turn in pair["prompt"]] == ["system", "user"]
        assert pair["chosen"] != pair["rejected"] and len(set(pair["sources"])) == 2


def test_rollouts_in_the_common_format_say_every_action_and_result(finished: Project, tmp_path: Path) -> None:
    out = tmp_path / "rollouts.jsonl"
    made = finished.looper(
        "export", str(finished.run), "--format", "atif", "--arm", "lora", "--out", str(out)
    )
    assert made.returncode == 0 and not made.stdout
    rollouts = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rollouts) == 2 * 3
    outcomes = {verdict.cell: verdict.outcome.value for verdict in read_run(finished.run).verdicts}
    for rollout in rollouts:
        cell = rollout["session_id"].partition("#")[0]
        assert rollout["extra"]["outcome"] == outcomes[cell]
        steps = steps_of(finished.run, cell)
        agent = [step for step in rollout["steps"] if step["source"] == "agent"]
        assert [step["step_id"] for step in rollout["steps"]] == list(range(1, len(steps) + 2))
        assert [step["message"] for step in agent] == [step.reply.text for step in steps]
        for said, step in zip(agent, steps, strict=True):
            (result,) = said["observation"]["results"]
            assert result["content"] == step.observation.text
            if step.action is not None:
                (call,) = said["tool_calls"]
                assert call["function_name"] == step.action.tool
                assert call["tool_call_id"] == result["source_call_id"]


def test_one_arm_and_one_seed_are_all_that_is_exported_or_the_option_is_refused(
    finished: Project, tmp_path: Path
) -> None:
    """In every format; arms that gather experience have names as well."""

    def exported(*words: str) -> "subprocess.CompletedProcess[str]":
        return finished.looper("export", str(finished.run), *words)

    gathering = read_run(finished.run).gathering["experience_own_1"]
    for arm, tasks in (("lora", 3), ("experience_own_1", len(gathering))):
        made = exported("--format", "csv", "--arm", arm, "--seed", "1").stdout
        rows = list(csv.DictReader(io.StringIO(made)))
        assert {(row["arm"], row["seed"]) for row in rows} == {(arm, "1")} and len(rows) == tasks
        rollouts = exported("--format", "atif", "--arm", arm, "--seed", "1").stdout.splitlines()
        assert {json.loads(line)["session_id"].rpartition("/")[0] for line in rollouts} == {f"{arm}/1"}
        assert len(exported("--arm", arm, "--seed", "1").stdout.splitlines()) == tasks
    for words, said in (
        (("--format", "csv", "--arm", "lorra"), 'no arm "lorra". Did you mean lora?'),
        (("--format", "csv", "--seed", "7"), "has no seed 7. Name one with --seed: 0, 1"),
        (("--format", "atif", "--arm", "lora", "--seed", "7"), "has no seed 7"),
        (("--format", "parquet", "--out", str(tmp_path / "x"), "--arm", "lorra"), 'no arm "lorra"'),
        (("--format", "registered", "--arm", "lora"), "Leave --arm lora out"),
        (("--format", "registered", "--seed", "0"), "Leave --seed 0 out"),
        (("--format", "sft", "--seed", "0"), "Leave --seed 0 out"),
        (("--format", "dpo", "--seed", "0"), "Leave --seed 0 out"),
    ):
        refused = exported(*words)
        assert refused.returncode == 2 and said in refused.stderr and not refused.stdout, words


def test_cells_that_gather_experience_are_listed_apart_and_shown_like_any_other(finished: Project) -> None:
    run = read_run(finished.run)
    listed = finished.looper("show", "--run", str(finished.run)).stdout.splitlines()
    gathering = [cell for arm in run.gathering for cell in run.cells(arm)]
    assert len(gathering) == len(run.planned_cells) - 18 and len(listed) == len(run.planned_cells) + 1
    assert listed[18].partition("  ")[0] == gathering[0]
    assert listed[-1] == f"18 cells to evaluate, {len(gathering)} cells to gather experience"
    failed = finished.looper("show", "--run", str(finished.run), "--failed", "--json").stdout
    unresolved = {cell for cell, found in run.final.items() if found.outcome is Outcome.UNRESOLVED}
    rows = json.loads(failed)["cells"]
    assert {row["cell"] for row in rows} == unresolved
    assert {row["cell"] for row in rows if row["gathers"]} == unresolved & {*gathering}
    shown = finished.looper("show", gathering[0], "--run", str(finished.run))
    assert (
        shown.returncode == 0
        and "── prompt: user ──" in shown.stdout
        and "as plan and task" not in shown.stdout
    )
    arm = gathering[0].partition("/")[0]
    assert finished.looper("show", "--run", str(finished.run), "--arm", arm).stdout.startswith(gathering[0])
    for words in (
        ("lineage", "why", str(finished.run), "--arm", arm),
        ("diff", arm, "base", "--run", str(finished.run)),
    ):
        refused = finished.looper(*words)
        assert refused.returncode == 2
        assert f"{arm} gathers experience in {finished.run.name}: it learns nothing" in refused.stderr


def test_an_outcome_is_that_of_its_cell_and_none_where_there_is_no_verdict(tmp_path: Path) -> None:
    """As a row and as a rollout; not of all cells what one of them came to."""
    lost = {"outcome": Outcome.INFRA_ERROR, "cause": "the server is gone"}
    for folder, found, expected in (
        (tmp_path / "judged", {}, ("unresolved", "resolved")),
        (tmp_path / "lost", lost, ("infra_error", "infra_error")),
    ):
        run = read_run(write_run(folder, found=found, judged=lambda cell: not cell.endswith("-2")))
        rows = {(row["arm"], row["task"]): row["outcome"] for row in cell_rows(run)}
        for arm, outcome in zip(("base", "other"), expected, strict=True):
            assert rows[arm, "a__b-1"] == outcome and rows[arm, "a__b-2"] is None
            (said,) = map(json.loads, atif_lines(run, arm))
            assert said["extra"]["outcome"] == outcome


def test_a_format_that_nobody_knows_is_one_line(finished: Project) -> None:
    for arguments, what in (
        (("--format", "xml"), "There are: predictions, csv, atif, sft, dpo, registered, parquet"),
        (("--format", "cvs"), "Did you mean csv?"),
        (("--format", "parquet"), "--out FILE"),
        (("--format", "atif"), "Name one arm with --arm: base, lora"),
        ((), "Name one arm with --arm"),
    ):
        found = finished.looper("export", str(finished.run), *arguments)
        assert found.returncode == 2 and what in found.stderr
        assert len(found.stderr.strip().splitlines()) == 1


def test_a_report_for_programs_has_the_figures_of_its_tables(finished: Project) -> None:
    (found,) = json.loads(finished.looper("report", str(finished.run), "--json").stdout)["reports"]
    rows = cell_rows(read_run(finished.run))
    assert [arm["arm"] for arm in found["arms"]] == list(dict.fromkeys(row["arm"] for row in rows))
    for arm in found["arms"]:
        ends = [row["outcome"] for row in rows if row["arm"] == arm["arm"]]
        assert (arm["resolved"], arm["attempted"]) == (ends.count("resolved"), len(ends))
        low, high = arm["interval"]
        assert low <= arm["rate"] == arm["resolved"] / arm["attempted"] <= high
    decided = json.loads(finished.looper("export", str(finished.run), "--format", "registered").stdout)
    assert found["registered"]["contrasts"] == decided["contrasts"]
    assert found["registered"]["contrasts"] and Path(found["page"]).is_file()
    nothing = finished.looper("report", "nosuch", "--json")
    assert nothing.returncode == 2 and json.loads(nothing.stdout) == {"lines": [], "reports": []}


def test_a_report_for_programs_has_no_figures_of_what_failed_or_was_not_measured(tmp_path: Path) -> None:
    acts = Proof(kind=ProofKind.ACTS, arm="other", subject="", passed=False, said="no action")
    data = report_data(replace(read_run(write_run(tmp_path)), proofs=(acts,)))
    base, other = data["arms"]
    assert base["rate"] is not None and not base["failed"] and other["failed"]
    assert {other[name] for name in ("resolved", "attempted", "rate", "interval", "patched", "steps")} == {
        None
    }
