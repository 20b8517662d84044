"""What a person sees of a trajectory and of a run."""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.cli.test_commands import looper, one_line
from tests.fakes.written_run import NOTHING_SEEN, write_run

from looper.journal import Stream, read_stream
from looper.metrics.paired import paired_difference
from looper.records.learning import Experience, Learning, Source, Treatment
from looper.records.memory import Draw, MemoryItem, MemoryKind, Moment, Remembering
from looper.records.plan import RunManifest
from looper.records.training import Example, Windows
from looper.records.trajectory import (
    Bash,
    FinishReason,
    Observation,
    ObservationKind,
    Reply,
    Step,
    StopReason,
    Trajectory,
    Usage,
)
from looper.records.treatment import Consolidation
from looper.views.board import FAILED_ONES, CellQuery, cell_page, next_failed
from looper.views.diff import arms_data, arms_diff
from looper.views.findings import difference_text, treatment_lines
from looper.views.lineage import lineage_lines
from looper.views.memory import drawn_for, why_nothing
from looper.views.runs import read_run
from looper.views.show import TRAINED_ON, Prompt, ending_text, harmless, mask_text, prompt_text, step_text
from looper.views.tables import run_table


def test_a35_control_characters_of_a_model_or_a_tool_reach_no_terminal() -> None:
    hostile = "\x1b]0;title\x07\x1b[2J\x1b]52;c;ZXZpbA==\x07 \x9b31m \x08\x7f\r text\n\tindented"
    shown = harmless(hostile)
    assert not any((ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 for char in shown)
    assert "title" in shown and "\n\tindented" in shown and "\\x1b" in shown


def test_a_step_shows_what_was_said_what_came_back_and_what_was_noted() -> None:
    step = Step(
        cell="base/0/t",
        attempt=1,
        index=3,
        reply=Reply(
            text="<bash>printf '\\033[2J'</bash>",
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=5, completion_tokens=2, counted_by="test"),
            wall_s=0.1,
        ),
        action=Bash(command="printf '\\033[2J'"),
        problem=None,
        observation=Observation(kind=ObservationKind.OK, text="\x1b[2J", exit_code=0),
        guards=(),
        stop_reason=None,
        context_tokens=5,
        pruned_messages=0,
        tree="0",
        wall_s=0.25,
    )
    shown = step_text(step)
    assert "step 3" in shown and "0.25 s" in shown and "5 prompt tokens" in shown
    assert "<bash>printf" in shown and "\x1b" not in shown and "\\x1b[2J" in shown


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (
            Usage(
                prompt_tokens=412, completion_tokens=2, counted_by="server of m", processed_prompt_tokens=12
            ),
            "412 prompt tokens (400 of them cached, counted by server of m)",
        ),
        (
            Usage(prompt_tokens=412, completion_tokens=2, counted_by="server of m"),
            "412 prompt tokens (counted by server of m)",
        ),
        (
            Usage(prompt_tokens=None, completion_tokens=2, counted_by="server of m"),
            "about 555 prompt tokens, estimated",
        ),
    ],
)
def test_m19_a_count_says_who_counted_and_an_estimate_that_it_is_one(usage: Usage, said: str) -> None:
    reply = Reply(text="x", finish_reason=FinishReason.STOP, usage=usage, wall_s=0.1)
    step = Step(
        cell="base/0/t", attempt=1, index=1, reply=reply, action=None, problem=None, guards=(), stop_reason=None,
        observation=Observation(kind=ObservationKind.OK, text="", exit_code=0), context_tokens=555,
        pruned_messages=0, tree="0", wall_s=0.25,
    )  # fmt: skip
    assert f", {said}" in step_text(step).splitlines()[0]


def test_a_long_message_is_cut_with_a_word_how_to_see_all() -> None:
    prompt = Prompt((("system", "short"), ("user", "\n".join(map(str, range(100))))), "why")
    shown = prompt_text(prompt, whole=False).split("\n")
    assert shown[:3] == ["── prompt: system ──", "short", "── prompt: user ──"]
    assert shown[-3:] == ["39", "… 60 more lines: --whole shows all", "── prompt: why ──"]
    assert "… " not in prompt_text(prompt, whole=True) and "\n99\n" in prompt_text(prompt, whole=True)


def test_of_a_cell_that_never_began_no_rollout_is_described(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", steps=0, judged=lambda cell: False)
    shown = looper("show", "base/0/a__b-1", "--failed", cwd=tmp_path, LOOPER_SWE_DATA="").stdout
    assert "no step is on record" in shown and "0 steps" not in shown


def test_failures_of_an_arm_that_must_fail_come_last(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", arms=("nothing", "base"), noop="nothing", tasks=("a__b-1",))
    shown = looper("show", "--failed", cwd=tmp_path).stdout
    assert [line.partition(" ")[0] for line in shown.splitlines()] == ["base/0/a__b-1", "nothing/0/a__b-1"]


def test_what_ended_a_rollout_and_the_adapter_that_it_had_stand_with_the_cell(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", end={"stop_reason": StopReason.STEP_LIMIT}, adapter="abc1")

    def shown(*words: str) -> str:
        return looper("show", *words, cwd=tmp_path, LOOPER_SWE_DATA="").stdout

    assert shown("--failed").splitlines()[0] == "base/0/a__b-1  unresolved: step_limit: a test failed"
    rows = json.loads(shown("--failed", "--json"))["cells"]
    assert [(row["cause"], row["stop_reason"]) for row in rows] == [("a test failed", "step_limit")] * 2
    view = read_run(run)
    listed = cell_page(view, CellQuery(find="STEP_LIM")).rows
    assert [row.cause for row in listed] == ["step_limit: a test failed"] * 2 + ["step_limit"] * 2
    failed = CellQuery(outcome=FAILED_ONES, find="step_lim")
    assert next_failed(view, "base/0/a__b-1", failed) == "base/0/a__b-2", "as the list has them"
    assert "── with adapter abc1 ──" in shown("other/0/a__b-1").splitlines()
    assert "with adapter" not in shown("base/0/a__b-1")
    assert json.loads(shown("other/0/a__b-1", "--json"))["adapters"] == ["abc1"]


def test_cells_and_steps_are_chosen_by_arm_step_and_failure(tmp_path: Path) -> None:
    """Base resolves nothing, the other arm everything; every third command fails."""
    run = write_run(tmp_path / "runs", steps=7)

    def shown(*words: str) -> str:
        return looper("show", *words, cwd=tmp_path, LOOPER_SWE_DATA="").stdout

    assert shown("--failed") == "".join(f"base/0/a__b-{at}  unresolved: a test failed\n" for at in (1, 2))
    assert shown("--arm", "other") == "other/0/a__b-1  resolved\nother/0/a__b-2  resolved\n"
    assert (
        shown("--arm", "other", "--failed")
        == f"{run.name}: none of 2 cells with an end failed, of 2 in all\n"
    )
    failed = shown("b-1", "--arm", "base", "--failed")
    assert re.findall(r"── step (\d+) ──", failed) == ["3", "6"] and failed.count("── exit code 1 ──") == 2
    assert "the issue is not shown. SWE-Bench-CL is not configured" in failed
    assert shown("b-1", "--arm", "base", "--step", "2").startswith("── step 2 ──")
    found = json.loads(shown("b-1", "--arm", "base", "--failed", "--json"))
    assert [step["index"] for step in found["steps"]] == [3, 6] and found["verdict"][
        "outcome"
    ] == "unresolved"
    for words, said in (
        (("b-1",), "2 cells end in"),
        (("--arm", "bass"), 'has no arm "bass". Did you mean base? It has: base, other.'),
        (("b-1", "--arm", "base", "--step", "9"), "has 7 steps; there is no step 9"),
        (("--step", "2"), "--step is a step of one cell"),
    ):
        refused = looper("show", *words, cwd=tmp_path)
        assert refused.returncode == 2 and said in one_line(refused)


def test_a_run_that_is_named_in_place_of_a_cell_or_before_it_is_answered_with_what_to_type(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "runs")
    alone = looper("show", "written", cwd=tmp_path)
    assert one_line(alone) == (
        f"looper: written is a run, and a cell is asked for. Its cells: looper show --run {run.name}"
    )
    for words, typed in (
        (("show", "written", "base/0/a__b-1"), "show CELL"),
        (("diff", "written", "base", "other"), "diff FIRST SECOND"),
        (("memory", "why", "written", "abc"), "memory why ITEM"),
        (("memory", "list", "written"), "memory list"),
        (("status", "written"), "status"),
    ):
        refused = looper(*words, cwd=tmp_path)
        assert refused.returncode == 2
        assert refused.stderr.rstrip().endswith(
            f"A run is named by an option here: looper {typed} --run RUN"
        ), words
    assert looper("show", "base/0/a__b-1", "--run", "written", cwd=tmp_path).returncode == 0


LESSONS = Remembering()
PLACEBO = "a placebo: each task gets items of other repositories"


def remembered(
    runs: Path, *, how: Remembering = LESSONS, items: Sequence[tuple[str, int]] = (), found: int = 0
) -> Path:
    """A run whose other arm remembers `items` (task and number of bytes), of which `found` could be told to each task, and none was."""
    folder = write_run(runs, experiment=f"run{len(list(runs.glob('*')))}", end={"memory_candidates": found})
    manifest = read_run(folder).manifest
    base, other = manifest.plan.arms
    learning = Learning(treatment=Treatment.MEMORY, source=Source.GOLD, memory=how)
    plan = manifest.plan.model_copy(
        update={
            "arms": (base, other.model_copy(update={"learning": learning, "temperature": base.temperature})),
            "experience": Experience(per_repo=1, samples=1, temperature=1.0, memory_bytes=60),
        }
    )
    (folder / "manifest.jsonl").unlink()
    made = [
        MemoryItem(
            id=f"item{at}",
            kind=how.kind,
            source=f"experience_gold_1/0/{task}#1",
            instance_id=task,
            repo="a/b",
            position=at,
            title="t",
            text="x" * size,
            asked="t",
            paths=(),
            changes=(),
        )
        for at, (task, size) in enumerate(items)
    ]
    learned = Consolidation(
        arm="other",
        seed=0,
        repo="a/b",
        treatment=Treatment.MEMORY,
        selection=NOTHING_SEEN,
        used=1,
        items=tuple(item.id for item in made),
        seconds=1,
    )
    tasks = {Source.GOLD: ("a__b-0",)}
    written: tuple[tuple[str, type[Any], list[Any]], ...] = (
        ("manifest", RunManifest, [manifest.model_copy(update={"plan": plan, "experience_tasks": tasks})]),
        ("memory", MemoryItem, made),
        ("consolidations", Consolidation, [learned]),
    )
    for name, kind, records in written:
        stream: Stream[Any] = Stream(folder, name, kind)
        for record in records:
            stream.append(record)
        stream.close()
    return folder


@pytest.mark.parametrize(
    ("how", "said", "in_lineage"),
    [
        (Remembering(), "", "found by bm25"),
        (Remembering(draw=Draw.PLACEBO), PLACEBO, PLACEBO),
        (Remembering(draw=Draw.RANDOM), "drawn blindly among", "drawn blindly among"),
        (Remembering(kind=MemoryKind.PLAYBOOK), "", "one text made of the items from earlier tasks of its repository"),
        (Remembering(kind=MemoryKind.PLAYBOOK, draw=Draw.RANDOM), PLACEBO, "one text made of the items of other repositories"),
        (Remembering(kind=MemoryKind.BLANK), "", ""),
    ],
)  # fmt: skip
def test_that_an_arm_is_told_other_items_than_were_made_for_its_repository_is_said(
    tmp_path: Path, how: Remembering, said: str, in_lineage: str
) -> None:
    run = read_run(remembered(tmp_path / "runs", how=how, items=[("a__b-0", 50)]))
    assert drawn_for(run, "other").startswith(said) and bool(drawn_for(run, "other")) is bool(said)
    assert drawn_for(run, "base") == "", "it does not remember"
    told = [line for line in lineage_lines(run, "other", lambda name: None) if line.startswith("  told: ")]
    assert [in_lineage in line for line in told] == [True] * bool(in_lineage), told


def test_why_a_task_was_told_nothing_stands_in_its_cell_and_in_the_list_of_what_was_told(
    tmp_path: Path,
) -> None:
    runs, here = tmp_path / "runs", ("a__b-0", 50)
    late = Remembering(moment=Moment.TEST_FAILURE)
    placebo = Remembering(draw=Draw.PLACEBO)
    playbook = Remembering(kind=MemoryKind.PLAYBOOK)
    for folder, why in (
        (remembered(runs), "there is no item"),
        (remembered(runs, items=[("c__d-1", 9)]), "none of 1 item is of a__b"),
        (remembered(runs, items=[here, ("c__d-1", 9)]), "none of 1 item of a__b is of an earlier task"),
        (
            remembered(runs, items=[here], found=1),
            "none of 1 item from earlier tasks of a__b shares a telling word with its issue (bm25)",
        ),
        (
            remembered(runs, items=[here, ("a__b-0", 70)], found=2),
            "none of 2 items from earlier tasks of a__b shares a telling word with its issue (bm25) and fits into 60 bytes",
        ),
        (
            remembered(runs, how=late, items=[here], found=1),
            "none of 1 item from earlier tasks of a__b shares a telling word with its issue (bm25); or its moment, test_failure, did not come",
        ),
        (
            remembered(runs, how=placebo, items=[here], found=1),
            "none of 1 item from earlier tasks of a__b shares a telling word with its issue (bm25), and as many are told as would be retrieved (placebo)",
        ),
        (
            remembered(runs, how=playbook, items=[("a__b-0", 70)], found=1),
            "nothing made of 1 item from earlier tasks of a__b fits into 60 bytes",
        ),
    ):
        run = read_run(folder)
        ends = {end.cell: why_nothing(run, end) for end in run.trajectories}
        assert ends == {f"other/0/a__b-{at}": why for at in (1, 2)} | {
            f"base/0/a__b-{at}": "" for at in (1, 2)
        }
    shown = looper("show", "other/0/a__b-1", "--run", folder.name, cwd=tmp_path, LOOPER_SWE_DATA="")
    assert f"── memory told nothing: {why} ──" in shown.stdout.splitlines(), shown.stdout + shown.stderr
    listed = looper("memory", "list", "--run", folder.name, cwd=tmp_path).stdout.splitlines()
    assert f"  told nothing, {why}: other/0/a__b-1, other/0/a__b-2" in listed
    base = looper("show", "base/0/a__b-1", "--run", folder.name, cwd=tmp_path, LOOPER_SWE_DATA="").stdout
    assert "memory told nothing" not in base, "it has no memory"


def test_every_report_says_at_how_many_tasks_a_memory_was_told_nothing_and_why(tmp_path: Path) -> None:
    like = "shares a telling word with its issue (bm25)"
    runs, here = tmp_path / "runs", ("a__b-0", 50)
    for folder, one_told, said in (
        (
            remembered(runs, items=[here], found=1),
            False,
            f"other: told something at 0 of 2 tasks; nothing at 2: no item from an earlier task {like}",
        ),
        (
            remembered(runs, items=[here], found=1),
            True,
            f"other: told something at 1 of 2 tasks; nothing at 1: no item from an earlier task {like}",
        ),
        (
            remembered(runs, items=[("c__d-1", 9)]),
            False,
            "other: told something at 0 of 2 tasks; nothing at 2: no item is of its repository",
        ),
    ):
        if one_told:
            ends = list(read_stream(folder, "trajectories", Trajectory))
            (folder / "trajectories.jsonl").unlink()
            stream = Stream(folder, "trajectories", Trajectory)
            for end in ends:
                told = ("item0",) if end.cell == "other/0/a__b-1" else ()
                stream.append(end.model_copy(update={"memory": told}))
            stream.close()
        done = looper("report", folder.name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"- {said}" in (folder / "report.md").read_text().splitlines()
        run = read_run(folder)
        assert said in list(arms_diff(run, "other", "base")), "where arms are compared as well"
        assert [one.told for one in arms_data(run, "base", "other")["told"]] == [int(one_told)]
        assert said in (folder / "report.html").read_text()
        screen = io.StringIO()
        Console(file=screen, width=1000).print(run_table(read_run(folder)))
        assert said in screen.getvalue()
        listed = json.loads(looper("memory", "list", "--run", folder.name, "--json", cwd=tmp_path).stdout)
        assert listed["arms"] == [
            {
                "arm": "other",
                "rollouts": 2,
                "planned": 2,
                "told": int(one_told),
                "nothing": {said.rpartition(": ")[2]: 2 - one_told},
            }
        ]


def test_what_is_trained_on_is_seen_where_there_is_no_colour() -> None:
    example = Example(source="base/0/a__b-1/1", instance_id="a__b-1", repo="a/b", turns=())
    found = Windows(example=example, texts=(("asked said more", ((6, 10),)),), too_long=0, kept_aside=False)
    # On lines of its own: signs within a line could be the text's.
    blank = " " * len(TRAINED_ON)
    assert f"\n{blank}asked \n{TRAINED_ON}said\n{blank} more\n" in mask_text(found, 9, colour=False).plain
    assert "asked said more" in mask_text(found, 9).plain
    aside = found.model_copy(update={"kept_aside": True})
    assert TRAINED_ON not in mask_text(aside, 9, colour=False).plain, "nothing of it is trained on"


def test_a_cell_without_an_end_says_so() -> None:
    assert ending_text(None, None) == "══ no verdict yet ══"


def test_what_was_not_measured_is_said_and_not_shown_as_zero() -> None:
    found = difference_text(paired_difference({"a": True, "b": False}, {"a": False, "b": False}))
    assert found.startswith("+50.0 points") and "2 pairs, 1 gained, 0 lost" in found


@pytest.mark.parametrize(
    "seconds, said", [(30.0, "in 29 s; "), (1.0, "in 29 s (1 of them trained before, and taken over); ")]
)
def test_an_adapter_that_was_trained_before_is_not_told_as_this_runs_work(
    tmp_path: Path, seconds: float, said: str
) -> None:
    run = read_run(remembered(tmp_path / "runs", items=[("a__b-0", 9)]))
    (learned,) = run.consolidations
    made = {
        "adapter": "3f2a",
        "made": ("3f2a",),
        "trained_tokens": 700,
        "training_s": 29.0,
        "seconds": seconds,
    }
    (line,) = [
        line
        for line in treatment_lines(replace(run, consolidations=(learned.model_copy(update=made),)))
        if "trained in" in line
    ]
    assert f"1 adapter, 700 tokens trained {said}" in line
