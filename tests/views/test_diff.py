"""Two arms, two rollouts, two runs: what differs, and where they part."""

import json
import re
import shutil
from pathlib import Path

from tests.cli.test_commands import looper
from tests.experiment.test_run import Project
from tests.fakes.written_run import fails, write_run

from looper.journal import Stream, read_stream
from looper.records.plan import Contrast, RunManifest, Sampling
from looper.records.text import counted
from looper.records.trajectory import Step
from looper.views.diff import _lists_text, differences_of
from looper.views.index import steps_of
from looper.views.runs import read_run


def test_two_arms_differ_in_what_was_declared_and_in_the_tasks_that_flipped(finished: Project) -> None:
    said = finished.looper("diff", "lora", "base").stdout
    assert '  learning.treatment: "adapter" | null\n' in said and "temperature" not in said
    run = read_run(finished.run)
    ours, theirs = run.outcomes("lora"), run.outcomes("base")
    gained = sum(ours[where] and not theirs[where] for where in ours)
    assert f"{gained} gained" in said and "first − second (registered: pilot, " in said
    assert said.index("the registered contrast, primary, is lora − base: ") < said.index("first − second (")
    assert "adjusted, pilot" in said, (
        "as in the report: with the plan's own interval, and no more than it may say"
    )
    assert len(re.findall(r"\d/\w+-\d+", said)) == sum(ours[where] != theirs[where] for where in ours)


def test_every_difference_is_a_line_by_its_keys_and_nothing_of_it_is_cut() -> None:
    """Not `null | {"rank": null, …`, cut where the only difference stands."""
    long = "a" * 100
    before = {
        "learning": None,
        "arms": [{"name": "base", "note": f"{long}1"}, {"name": "lora", "rank": 8}],
        "text": "one\ntwo\nthree\n",
        "seeds": [0],
        "guards": {},
    }
    now = {
        "learning": {"rank": None, "blind": False, "treatment": "adapter"},
        "arms": [{"name": "lora", "rank": 8}, {"name": "base", "note": f"{long}2"}],
        "text": "one\n2\nthree\n",
        "seeds": [0, 1],
        "guards": {"loop": {"most": 3}},
    }
    assert list(differences_of(before, now)) == [
        f'arms[base].note: "{long}1" | "{long}2"',
        "guards.loop.most: null | 3",
        'learning.treatment: null | "adapter"',
        "seeds: [0] | [0, 1]",
        "text: another text",
        "  @@ -2 +2 @@",
        "  -two",
        "  +2",
    ]


def test_a_key_of_sampling_that_one_arm_sets_is_one_line_and_its_defaults_are_none(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs", experiment=name) for name in ("plain", "cut")]
    manifest = read_run(runs[1]).manifest
    base, other = manifest.plan.arms
    cut = other.model_copy(update={"temperature": base.temperature, "sampling": Sampling(top_k=20)})
    plan = manifest.plan.model_copy(update={"arms": (base, cut)})
    (runs[1] / "manifest.jsonl").unlink()
    stream = Stream(runs[1], "manifest", RunManifest)
    stream.append(manifest.model_copy(update={"plan": plan}))
    stream.close()
    arms = looper("diff", "base", "other", "--run", "cut", cwd=tmp_path)
    assert arms.returncode == 0, arms.stderr
    assert [line for line in arms.stdout.splitlines() if line.startswith("  ")] == [
        "  sampling.top_k: 0 | 20"
    ]
    told = json.loads(looper("diff", "base", "other", "--run", "cut", "--json", cwd=tmp_path).stdout)
    assert told["configuration"] == [{"key": "sampling.top_k", "first": 0, "second": 20}]
    both = looper("diff", "plain", "cut", cwd=tmp_path).stdout
    assert re.findall(r"  plan\.arms\[\w+\]\.sampling.*", both) == [
        "  plan.arms[other].sampling.top_k: 0 | 20"
    ]


def test_runs_that_differ_at_the_end_of_a_long_sentence_show_where(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs", experiment=name) for name in ("first", "second")]
    said = [f"{'It helps here. ' * 20}{end}" for end in ("So much.", "So little.")]
    for folder, hypothesis in zip(runs, said, strict=True):
        manifest = read_run(folder).manifest
        (folder / "manifest.jsonl").unlink()
        stream = Stream(folder, "manifest", RunManifest)
        plan = manifest.plan.model_copy(update={"hypothesis": hypothesis})
        stream.append(manifest.model_copy(update={"plan": plan}))
        stream.close()
    shown = looper("diff", "first", "second", cwd=tmp_path)
    assert f'  plan.hypothesis: "{said[0]}" | "{said[1]}"' in shown.stdout.splitlines(), shown.stderr


def test_rollouts_that_part_late_in_a_long_line_or_result_show_where(tmp_path: Path) -> None:
    """What is alike before it is counted, and no line ends before the difference."""
    runs, seen = tmp_path / "runs", "".join(f"line {number}\n" for number in range(9))
    run = write_run(runs, tasks=("a__b-1",), seen=seen)
    path = run / "steps.jsonl"
    steps = list(read_stream(run, "steps", Step))
    path.unlink()
    stream = Stream(run, "steps", Step)
    for step in steps:
        text = f"{step.observation.text}{'x' * 80} {step.cell}"
        stream.append(
            step.model_copy(update={"observation": step.observation.model_copy(update={"text": text})})
        )
    stream.close()
    said = looper("diff", "base/0/a__b-1", "other/0/a__b-1", cwd=tmp_path).stdout
    assert "→ … 9 lines alike" in said
    assert any("base/0/a__b-1" in line and "other/0/a__b-1" in line for line in said.splitlines()[1:])


def test_after_two_rollouts_part_the_same_actions_stand_beside_each_other(tmp_path: Path) -> None:
    """With the number that each has in its own rollout, as on the page."""
    run = write_run(tmp_path / "runs", tasks=("a__b-1",), steps=6)
    steps = list(read_stream(run, "steps", Step))
    (run / "steps.jsonl").unlink()
    stream = Stream(run, "steps", Step)
    for step in steps:
        # Base does not do the third step, so that all after it are one earlier.
        early = step.cell.startswith("base/") and step.index > 3
        if not step.cell.startswith("base/") or step.index != 3:
            stream.append(step.model_copy(update={"index": step.index - early}))
    stream.close()
    said = looper("diff", "base/0/a__b-1", "other/0/a__b-1", cwd=tmp_path).stdout.splitlines()
    assert "the same 2 actions, then they part at step 3:" in said
    beside = [[side.split() for side in line.split(" | ")] for line in said if " | " in line]
    assert [["–"], ["3", "bash", "run", "3"]] in beside
    assert [["3", "bash", "run", "4"], ["4", "bash", "run", "4"]] in beside
    assert [["4", "bash", "run", "5"], ["5", "bash", "run", "5"]] in beside


def test_two_rollouts_are_aligned_from_the_step_in_which_they_part(finished: Project) -> None:
    task = read_run(finished.run).tasks[0]
    first, second = f"base/0/{task}", f"base/1/{task}"
    ours, theirs = (steps_of(finished.run, cell) for cell in (first, second))
    same = 0
    while (
        same < min(len(ours), len(theirs))
        and ours[same].action == theirs[same].action
        and ours[same].observation.text == theirs[same].observation.text
    ):
        same += 1
    said = finished.looper("diff", first, second).stdout
    if same == len(ours) == len(theirs):
        assert f"the same {counted(same, 'action')}" in said
    else:
        assert f"the same {counted(same, 'action')}, then they part at step {same + 1}:" in said
    assert "verdict: " in said and ("patches:" in said or "the same patch" in said)
    assert "the same" in finished.looper("diff", first, first).stdout


def test_two_runs_differ_in_what_they_are_made_of(finished: Project, tmp_path: Path) -> None:
    other = shutil.copytree(finished.run, tmp_path / finished.run.name)
    said = finished.looper("diff", str(finished.run), str(other)).stdout
    assert "base, first − second (exploratory): +0.0 points" in said
    assert "lora, first − second (exploratory): +0.0 points" in said


def test_of_what_one_run_alone_has_its_name_is_said_and_of_long_lists_what_differs(tmp_path: Path) -> None:
    runs, tasks = tmp_path / "runs", [f"a__b-{number}" for number in range(9)]
    contrast = {"shown": "It helps here.", "refuted": "It harms here.", "open": "Undecided."}
    few = write_run(runs, tasks=tasks[:8], contrasts=[Contrast(arm="other", against="base", **contrast)])
    more = write_run(
        runs,
        experiment="second",
        arms=("base", "third", "other"),
        tasks=tasks[1:],
        contrasts=[Contrast(arm=arm, against="base", **contrast) for arm in ("third", "other")],
    )
    for folder in (few, more):
        manifest = read_run(folder).manifest
        (folder / "manifest.jsonl").unlink()
        stream = Stream(folder, "manifest", RunManifest)
        stream.append(manifest.model_copy(update={"difficulty": dict.fromkeys(manifest.tasks, 1)}))
        stream.close()
    said = looper("diff", few.name, more.name, cwd=tmp_path).stdout.splitlines()
    assert '  plan.arms: ["base", "other"] | ["base", "other", "third"]' in said
    assert '  plan.contrasts: ["other − base"] | ["other − base", "third − base"]' in said
    assert '  tasks, without 7 in both: ["a__b-0"] | ["a__b-8"]' in said
    assert not [line for line in said if "null" in line or "[third" in line or "difficulty" in line]


def test_a_failed_arm_has_no_difference_since_it_has_no_rate(tmp_path: Path) -> None:
    """Neither against another arm nor against itself in another run."""
    runs = tmp_path / "runs"
    run, other = write_run(runs), write_run(runs, experiment="second")
    fails(run, "other", "31 of 40 steps held no action")
    why = "no difference, other is a failed arm and has no rate: 31 of 40 steps held no action"
    said = looper("diff", "other", "base", "--run", str(run), cwd=tmp_path)
    assert said.returncode == 0 and said.stdout.splitlines()[-1] == why, said.stderr
    found = json.loads(looper("diff", "other", "base", "--run", str(run), "--json", cwd=tmp_path).stdout)
    assert (found["resolved"], found["only_first"], found["only_second"]) == (None, [], [])
    assert found["configuration"], "what it was configured differently in is known"
    of_runs = looper("diff", str(run), str(other), cwd=tmp_path).stdout
    assert f"other, first − second (exploratory): {why}" in of_runs
    assert "base, first − second (exploratory): +0.0 points" in of_runs


def test_what_cannot_be_compared_is_one_line(finished: Project) -> None:
    tasks = read_run(finished.run).tasks
    for first, second, what in (
        ("lora", "nobody", 'no arm "nobody". It has: base, lora'),
        (f"base/0/{tasks[0]}", f"base/0/{tasks[1]}", "different tasks"),
        (f"base/0/{tasks[0]}", "lora", '" is a cell and "lora" is none. Name two cells'),
        (f"base/7/{tasks[0]}", f"base/0/{tasks[0]}", "has no steps"),
    ):
        found = finished.looper("diff", first, second)
        assert found.returncode == 2 and what in found.stderr
        assert len(found.stderr.strip().splitlines()) == 1


def test_lineage_names_the_treatment_behind_a_figure(finished: Project) -> None:
    run = read_run(finished.run)
    adapters = {found.adapter for found in run.consolidations if found.arm == "lora"}
    said = finished.looper("lineage", "why", str(finished.run), "--arm", "lora").stdout
    assert all(f"adapter {name}, trained: " in said for name in adapters)
    assert "multiplier 10.0" in said and "iterations 4" in said and "check adapter_arrived: passed" in said
    assert (
        "base (base)" not in said
        and "learned: nothing" in finished.looper("lineage", "why", str(finished.run)).stdout
    )
    refused = finished.looper("lineage", "why", str(finished.run), "--arm", "x")
    assert refused.returncode == 2 and "It has: base, lora" in refused.stderr


def test_what_a_list_has_more_often_is_a_difference() -> None:
    assert _lists_text("x", ["a", "a", "b"], ["b", "a"]) == 'x, without 2 in both: ["a"] | []'
    assert _lists_text("x", ["a", "b"], ["b", "a"]) == "x: the same, in another order"
