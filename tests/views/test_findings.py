"""What a run says: what it is about, what decides it, and nothing where it could not have seen it."""

import html
import io
import json
import os
import random
import re
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from scripts.bench_report import IDENTITY, verdict
from tests.cli.test_commands import looper
from tests.fakes.written_run import AND_MEMORY, TWO_ALIKE, ended_rollout, step, write_run

from looper.experiment.plans import plan_from_text
from looper.journal import Stream
from looper.metrics.design import Design, Scope, is_pilot, power_of, scope_of, smallest_visible, unit_of
from looper.metrics.paired import AnalysisUnit
from looper.metrics.registered import Decision
from looper.records.base import Record
from looper.records.learning import Learning, Source, Treatment
from looper.records.memory import MemoryItem, MemoryKind
from looper.records.model import ModelSpec
from looper.records.plan import (
    Arm,
    ArmRole,
    Contrast,
    Expect,
    Gate,
    Override,
    Plan,
    RunManifest,
    TaskSelection,
)
from looper.records.trajectory import Edit, Observation, ObservationKind
from looper.records.verdict import Outcome
from looper.views import watch
from looper.views.board import bars
from looper.views.decided import registered_text
from looper.views.diff import arms_data, arms_diff
from looper.views.findings import (
    EXPLORATORY,
    before_lines,
    contrast_lines,
    control_lines,
    measured_lines,
    planned_lines,
    registered_lines,
    registered_of,
    scope_line,
    standing_of,
)
from looper.views.forecast import MeasuredShare, discordance, measured, power_lines, time_lines
from looper.views.index import StepIndex
from looper.views.live import Projection
from looper.views.markdown import run_block
from looper.views.memory import memory_uses
from looper.views.runs import RunView, read_run
from looper.views.tables import run_table
from looper.views.web.page import page

DIFFERENCE = """
[[contrasts]]
arm = "memory"
against = "base"
expected = "30 points"
shown = "It helped here."
refuted = "It harmed here."
open = "It is open."
"""
MARGIN = """
[[contrasts]]
arm = "again"
against = "base"
expect = "same"
shown = "Equal arms differ by less than {margin}."
refuted = "Equal arms differ."
open = "It is open whether they do."
"""
PROFILE = """
[profiles.micro]
like = "demo"
"""
SHARED = {"demo": (Path(__file__).parents[2] / "experiments/profiles/demo.toml").read_text("utf-8")}


def plan_with(text: str) -> Plan:
    return plan_from_text("x", text + PROFILE, "x.toml", "micro", shared=SHARED)


def run_of(
    contrasts: str,
    repositories: int,
    each: int,
    resolved: Callable[[str, int, random.Random], bool],
    overrides: tuple[Override, ...] = (),
) -> RunView:
    """Every cell has its verdict; `resolved` says of arm, repository and luck how it came out."""
    plan = plan_with(TWO_ALIKE + AND_MEMORY + contrasts)
    tasks = tuple(f"r{repo}-{number}" for repo in range(repositories) for number in range(each))
    manifest = RunManifest(
        plan=plan,
        code_version="x",
        tasks=tasks,
        tasks_hash="x",
        models={arm.name: IDENTITY for arm in plan.arms},
        environments=("e",),
        sandbox="none",
        experience_tasks={source: () for source in plan.sources},
        overrides=overrides,
    )
    rng = random.Random(1)
    verdicts = tuple(
        verdict(f"{arm.name}/0/{task}", task, "p", resolved(arm.name, int(task[1:].split("-")[0]), rng))
        for task in tasks
        for arm in plan.arms
    )
    return RunView(
        folder=Path("gone"),
        manifest=manifest,
        tasks=tasks,
        trajectories=(),
        verdicts=verdicts,
        consolidations=(),
        proofs=(),
        gate_stops=(),
        late_overrides=(),
        likelihoods=(),
        attempt_likelihoods=(),
        sessions=(),
        trainings=(),
        nodes=(),
        damage=(),
        writer=None,
        followed=StepIndex,
    )


def helped(arm: str, repo: int, rng: random.Random) -> bool:
    return rng.random() < (0.95 if arm == "memory" else 0.4)


def steady(arm: str, repo: int, rng: random.Random) -> bool:
    return arm == "memory" or repo % 2 == 0


def test_how_often_equal_arms_differed_is_held_against_what_was_assumed_and_against_nothing_else() -> None:
    """A metric whose variation nobody assumed has no such figure to hold it against."""
    luck = run_of(DIFFERENCE, 24, 6, lambda arm, repo, rng: rng.random() < 0.5)
    (told,) = measured_lines(luck)
    assert re.search(
        r": equal arms differed in (4|5)\d % \(assumed: 30 %\), more often than that, so what it could see is larger$",
        told,
    )
    steps = run_of(DIFFERENCE.replace("expected", 'metric = "valid_actions"\nexpected'), 24, 6, helped)
    (unknown,) = planned_lines(steps)
    assert unknown.endswith(
        ": how much valid actions varies is not known before the data, so the power is not known either"
    )


def test_what_is_learned_per_repository_is_decided_by_repository_where_there_are_enough() -> None:
    run = run_of(DIFFERENCE + MARGIN, 24, 6, helped)
    assert run.unit is AnalysisUnit.REPOSITORY and not run.pilot
    assert scope_line(run).startswith("about repositories like these: 144 tasks of 24 repositories, 1 seed;")
    assert "2 contrasts in one family" in scope_line(run)
    first, second = run.registered
    assert first.difference is not None and first.difference.units == 24
    assert second.difference is not None and second.difference.unit is AnalysisUnit.REPOSITORY, (
        "D2: one unit for all"
    )
    assert first.finding is Decision.SHOWN and first.confidence >= 0.95
    assert (
        "primary: memory − base: +" in registered_lines(run)[-2]
        and "shown: memory resolves more tasks than base. The plan: “It helped here.”"
        in registered_lines(run)[-2]
    )


def test_what_the_author_of_a_plan_wrote_is_a_quotation_wherever_it_stands() -> None:
    """Behind the claim that follows from the data, in every view; its own marks do not end it."""
    boast, run = "It helped “by far”, always.", run_of(DIFFERENCE + MARGIN, 24, 6, helped)
    contrasts = tuple(
        each.model_copy(update={"shown": boast, "open": boast}) for each in run.manifest.plan.contrasts
    )
    plan = run.manifest.plan.model_copy(update={"contrasts": contrasts})
    run = replace(run, manifest=run.manifest.model_copy(update={"plan": plan}))
    screen = io.StringIO()
    Console(file=screen, width=1000).print(run_table(run))
    views = [
        "\n".join(registered_lines(run)),
        screen.getvalue(),
        run_block(run),
        page(run),
        "\n".join(arms_diff(run, "base", "memory")),
    ]
    for text in views:
        assert "memory resolves more tasks than base. The plan: “It helped ‘by far’, always.”" in text
        written_down = text.count("&#34;It helped ")  # The plan itself, as it was configured.
        assert (
            text.count("It helped ") - written_down
            == text.count("The plan: “It helped ")
            == 2 - (views[-1] is text)
        )
    (first, _) = json.loads(registered_text(run))["contrasts"]
    assert (first["claim"], first["sentence"]) == ("memory resolves more tasks than base", boast)
    (paired,) = arms_data(run, "base", "memory")["registered"]["contrasts"]
    assert (paired["claim"], paired["sentence"]) == (first["claim"], boast)


def test_what_was_registered_and_what_came_of_it_stand_under_heads_of_their_own() -> None:
    run = run_of(DIFFERENCE + MARGIN, 24, 6, helped)
    planned, results = (
        run_block(run).split("\nRegistered before the data:\n")[1].split("\nRegistered results:\n")
    )
    assert [line.removeprefix("- ") for line in planned.split("\n") if line] == before_lines(run)
    assert "points, 9" not in planned and "equal arms differed" not in planned
    results = results.split("\nEvery arm against base")[0]
    assert "equal arms differed in" in results
    assert "\n- primary: memory − base: +" in results and "\n- secondary: again − base: " in results
    shown = page(run).split("<h3>Registered before the data</h3>")[1]
    planned, results = shown.split("<h3>Registered results</h3>")
    assert all(html.escape(line, quote=False) in planned for line in before_lines(run))
    assert "<b>Primary</b>" not in planned and "<b>Primary</b>: memory − base" in results
    unfinished = replace(run, verdicts=run.verdicts[1:])
    assert "Registered" not in run_block(unfinished)
    nothing = run_of("", 24, 6, helped)
    assert scope_line(nothing) in page(nothing) and "<h3>Registered" not in page(nothing)


def test_d1_on_a_few_repositories_nothing_is_said_of_others() -> None:
    run = run_of(DIFFERENCE, 5, 24, helped)
    assert run.unit is AnalysisUnit.TASK
    assert scope_line(run).startswith("about these repositories as they were learned here, and no others")


def test_d7_a_run_that_could_not_have_seen_its_own_effect_decides_nothing() -> None:
    """Twelve tasks of which the treatment resolves each and base none are still a pilot where 30 points were expected."""
    run = run_of(DIFFERENCE + MARGIN, 2, 6, lambda arm, repo, rng: arm == "memory" or rng.random() < 0.3)
    assert run.pilot and [found.finding for found in run.registered] == [Decision.PILOT] * 2
    said = registered_lines(run)
    assert said[0].startswith("a PILOT, which decides nothing: memory − base is shown with a chance of")
    assert "It helped here." not in "\n".join(said) and "shown:" not in "\n".join(said)
    results = [line for line in said if line.startswith(("primary", "secondary"))]
    assert len(results) == 2
    assert all("pilot: an estimate, which decides nothing" in line for line in results)
    assert "The plan: " not in "\n".join(said), "its author wrote nothing for this outcome"


def test_d7_a_plan_of_margins_alone_can_be_a_pilot_too() -> None:
    small = run_of(MARGIN, 2, 6, steady)
    assert small.pilot and planned_lines(small)[0].startswith("a PILOT")
    assert "where it is 0" in planned_lines(small)[0]
    assert not run_of(MARGIN, 24, 14, steady).pilot


def test_no_reason_makes_a_pilot_decide() -> None:
    """Not even one that an earlier version took, and kept in its record."""
    run = run_of(DIFFERENCE, 2, 6, steady, (Override(gate=Gate.POWER, reason="all that there are"),))
    assert run.pilot and run.registered[0].finding is Decision.PILOT


def test_a_contrast_that_the_plan_could_not_see_is_estimated_however_easy_the_primary_one_is() -> None:
    hard = MARGIN.replace('expect = "same"', 'expected = "12 points"').replace(
        "by less than {margin}", "here"
    )
    run = run_of(DIFFERENCE + hard + MARGIN, 5, 16, steady)
    assert not run.pilot
    assert [found.finding for found in run.registered][:2] == [Decision.SHOWN, Decision.PILOT]
    said = registered_lines(run)
    assert (
        "estimated and not decided, since the plan is too small for them or nobody can say: again − base"
        in said
    )
    assert "power, worked out before the data: memory − base is shown with a chance of 86 %" in said[0]


def test_a_decision_says_its_margin_and_whether_it_is_about_more_than_was_run() -> None:
    of_these = registered_lines(run_of(MARGIN, 5, 60, steady))[-1]
    assert ", margin 10.0 points, p = " in of_these and ", shown on these repositories: " in of_these
    of_memory = MARGIN.replace('arm = "again"', 'arm = "memory"').replace("Again", "Memory")
    assert ", refuted: " in registered_lines(run_of(of_memory, 24, 16, steady))[-1]


def test_repositories_that_a_person_named_stand_for_no_others() -> None:
    """However many: which of them were named may have been decided by what came of them."""
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE)
    tasks = [f"r{repo}-{number}" for repo in range(24) for number in range(6)]
    named = plan.selection.model_copy(update={"repos": tuple(f"r{repo}" for repo in range(24))})
    assert scope_of(plan, tasks) is Scope.REPOSITORIES
    assert scope_of(plan.model_copy(update={"selection": named}), tasks) is Scope.THESE


@pytest.mark.parametrize(
    ("expect", "level", "finding"),
    [
        ("same", 0, Decision.NOT_EXERCISED),
        ("same", 1, Decision.NOT_EXERCISED),
        ("not_more", 0, Decision.NOT_EXERCISED),
        ("not_less", 0, Decision.NOT_EXERCISED),
        ("not_less", 1, Decision.SHOWN),
    ],
)
def test_where_nothing_could_move_nothing_is_alike(expect: str, level: int, finding: Decision) -> None:
    """Tasks that hardly anybody resolves, or nearly everybody; but who resolves nearly everything has lost little."""
    nearly = iter(range(10**6))
    run = run_of(
        MARGIN.replace('"same"', f'"{expect}"'),
        60,
        20,
        lambda arm, repo, rng: bool(level) != (next(nearly) % 50 == 0),
    )
    assert [found.finding for found in run.registered] == [finding]


def test_a_registered_control_that_is_refuted_leaves_no_other_decision() -> None:
    """Equal arms that differ: what else is measured there is not to be believed, and that they do is what is said."""
    run = run_of(
        DIFFERENCE + MARGIN,
        24,
        12,
        lambda arm, repo, rng: arm == "memory" or (arm == "again" and repo % 3 > 0),
    )
    assert [found.finding for found in run.registered] == [Decision.UNTRUSTED, Decision.REFUTED]


def test_a_control_without_verdicts_has_not_come_out_as_it_must() -> None:
    run = with_gold(
        run_of(DIFFERENCE + MARGIN, 24, 12, lambda arm, repo, rng: arm != "base" or rng.random() < 0.4)
    )
    assert run.failed_controls == {}
    lost = tuple(
        v.model_copy(update={"outcome": Outcome.INFRA_ERROR}) if v.cell.startswith("again/0/r1") else v
        for v in run.verdicts
    )
    few = replace(run, verdicts=lost)
    assert few.failed_controls["again"] == "has a verdict in 156 of 288 cells"
    assert {found.finding for found in few.registered} <= {Decision.UNTRUSTED, Decision.INDECISIVE}


def with_gold(run: RunView) -> RunView:
    """The same with its repeat played by the known patch."""
    arms = [
        arm.model_copy(update={"model": arm.model.model_copy(update={"backend": "gold"})})
        if arm.name == "again"
        else arm
        for arm in run.manifest.plan.arms
    ]
    plan = run.manifest.plan.model_copy(update={"arms": tuple(arms)})
    return replace(run, manifest=run.manifest.model_copy(update={"plan": plan}))


def test_a_control_that_fails_takes_every_decision_back() -> None:
    run = run_of(DIFFERENCE + MARGIN, 24, 12, helped)
    broken = with_gold(run)
    assert broken.failed_controls.keys() == {"again"} and run.failed_controls == {}
    assert {found.finding for found in broken.registered} == {Decision.UNTRUSTED}
    assert run.registered[0].finding is Decision.SHOWN
    assert (
        "not trusted: a control did not come out as it must: nothing is concluded."
        in registered_lines(broken)[-2]
    )


def test_d9_no_interval_of_repositories_is_printed_where_they_are_few() -> None:
    assert "by repository" not in "\n".join(registered_lines(run_of(DIFFERENCE, 5, 24, helped)))


def test_d8_power_is_that_of_the_decision_that_will_be_made() -> None:
    """At the first step of Holm's order, with what a treatment adds to the cells that differ anyway."""
    said = {"shown": "", "refuted": "", "open": ""}
    more = Contrast(arm="a", against="b", **said)
    alone = Design(tasks=120, seeds=1, worth=5, unit=AnalysisUnit.TASK, family=1, discordance=0.2)
    among_seven = Design(tasks=120, seeds=1, worth=5, unit=AnalysisUnit.TASK, family=7, discordance=0.2)
    by_repository = Design(
        tasks=120, seeds=1, worth=20, unit=AnalysisUnit.REPOSITORY, family=1, discordance=0.2, spread=0.15
    )
    assert power_of(alone, more, 0.15) > power_of(among_seven, more, 0.15) + 0.1
    assert power_of(alone, more, 0.15) > power_of(by_repository, more, 0.15)
    assert power_of(alone, more, 0.0) <= 0.05
    assert (smallest_visible(among_seven) or 1) > (smallest_visible(alone) or 1)
    same = more.model_copy(update={"expect": Expect.SAME})
    assert power_of(alone, same, 0.0) > power_of(among_seven, same, 0.0)
    few = Design(tasks=12, seeds=1, worth=2, unit=AnalysisUnit.TASK, family=4, discordance=0.3)
    assert smallest_visible(few) is None or (smallest_visible(few) or 0) > 0.7


@pytest.mark.parametrize(("repositories", "each", "pilot"), [(2, 6, True), (24, 8, False)])
def test_a_plan_says_before_anything_runs_whether_it_is_a_pilot(
    repositories: int, each: int, pilot: bool
) -> None:
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE)
    tasks = [f"r{repo}-{number}" for repo in range(repositories) for number in range(each)]
    lines = "\n".join(power_lines(plan, tasks, MeasuredShare("earlier", 50, 0.2, 0.11, 0.33)))
    assert "memory − base is shown with a chance of" in lines and "+30.0 points" in lines
    assert ("a PILOT, which decides nothing" in lines) is pilot
    assert "differed in 20 % of 50 cells (11 to 33, 95 %) in earlier; the plan takes 30 %" in lines, (
        "what was measured is told, and decides nothing"
    )
    assert power_lines(plan, tasks, None).__next__() == lines.split("\n")[1]
    more = next(power_lines(plan, tasks, MeasuredShare("earlier", 50, 0.9, 0.79, 0.96)))
    assert (
        "the plan takes 30 %, which is too few: " in more
        and ("with 90 % it would be a pilot" in more) is pilot
    )


def test_time_is_foretold_from_the_largest_run_that_fits_with_how_sure_that_is(tmp_path: Path) -> None:
    """Not from a newer one of two cells; and from too few cells not at all."""
    many = write_run(tmp_path, tasks=tuple(f"a__b-{at}" for at in range(9)), experiment="large")
    plan = read_run(many).manifest.plan
    newer = write_run(tmp_path, experiment="small")
    for path in newer.glob("*.jsonl"):
        os.utime(path, (2**31, 2**31))
    found = measured(tmp_path, plan)
    assert found is not None and (found.run, found.cells) == (many.name, 18)
    (time, tokens) = time_lines(plan, plan.arms, 50, 100, 4, found)
    assert time.startswith("time: about 50 s (50 s to 50 s, 95 %)") and "training" not in time
    assert "mean of 18 cells of 2 arms in large" in time and "at 300 a cell" in tokens
    shutil.rmtree(many)
    assert measured(tmp_path, plan, [arm for arm in plan.arms if arm.name == "base"]) is None, "two cells"
    (unknown,) = time_lines(plan, plan.arms, 4, 100, 4, None)
    assert "--limit" not in unknown, "that would be the whole plan"
    (unknown,) = time_lines(plan, plan.arms, 50, 100, 4, None)
    assert "no run here has 3 cells with this model, suite and limits" in unknown and "--limit 4" in unknown
    assert discordance(tmp_path, plan) is None, "no arm of these repeats base"


def learned_run(runs: Path, tasks: tuple[str, ...]) -> tuple[RunManifest, Path]:
    """A folder in which base gathered experience at these tasks, and nothing else ended."""
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE)
    manifest = RunManifest(
        plan=plan,
        code_version="x",
        tasks=("r0-99",),
        tasks_hash="x",
        models={arm.name: IDENTITY for arm in plan.every_arm},
        environments=("e",),
        sandbox="none",
        experience_tasks={Source.OWN: tasks},
    )
    folder = runs / "learned-micro-1"
    folder.mkdir(parents=True)
    (_, arm), *_ = plan.all_experience()
    cells = [(f"{arm.name}/0/{task}", task) for task in tasks]
    kept(folder, "manifest", manifest)
    kept(folder, "trajectories", *(ended_rollout(cell, arm, task, "p", 3) for cell, task in cells))
    kept(folder, "verdicts", *(verdict(cell, task, "p", True) for cell, task in cells))
    return manifest, folder


def kept(folder: Path, name: str, *records: Record) -> None:
    stream: Stream[Record] = Stream(folder, name, type(records[0]))
    for record in records:
        stream.append(record)
    stream.close()


def test_time_is_foretold_from_experience_where_nothing_else_was_run(tmp_path: Path) -> None:
    """It was gathered with the same model and limits, and takes as long."""
    manifest, folder = learned_run(tmp_path, tuple(f"r0-{at}" for at in range(5)))
    found = measured(tmp_path, manifest.plan)
    assert found is not None and (found.run, found.cells) == (folder.name, 5)


def test_controls_that_ask_no_model_do_not_say_how_long_others_take(tmp_path: Path) -> None:
    """Of a run that has only played its gold patches so far, of which each takes as long as the other."""
    folder = write_run(
        tmp_path,
        arms=("base", "gold"),
        tasks=tuple(f"a__b-{at}" for at in range(9)),
        judged=lambda cell: cell.startswith("gold"),
    )
    for name in ("trajectories", "verdicts"):
        file = folder / f"{name}.jsonl"
        file.write_bytes(b"".join(line for line in file.read_bytes().splitlines(True) if b"gold/0" in line))
    plan = read_run(folder).manifest.plan
    assert measured(tmp_path, plan) is None, "base is not measured"
    found = measured(tmp_path, plan, [arm for arm in plan.arms if arm.name == "gold"])
    assert found is not None and found.cells == 9


@pytest.mark.parametrize(("seen", "cited"), [(ObservationKind.REFUSED, ()), (ObservationKind.OK, ("item1",))])
def test_only_what_changed_a_file_wrote_the_code_of_a_memory_item(
    tmp_path: Path, seen: ObservationKind, cited: tuple[str, ...]
) -> None:
    manifest, folder = learned_run(tmp_path, ("r0-1",))
    arm = next(arm for arm in manifest.plan.arms if arm.name == "memory")
    end = ended_rollout("memory/0/r0-99", arm, "r0-99", "p", 1)
    kept(folder, "trajectories", end.model_copy(update={"memory": ("item1",)}))
    item = MemoryItem(
        id="item1", kind=MemoryKind.LESSONS, source="s", instance_id="r0-1", repo="r0", position=1, title="t", text="t",
        turns=(("user", ""),), asked="a", paths=(), changes=("value = 3",),
    )  # fmt: skip
    kept(folder, "memory", item)
    tried = step("memory/0/r0-99", 1, 2, "said", "seen")
    edit = Edit(path="data.py", old="value = 2", new="value = 3")
    kept(
        folder,
        "steps",
        tried.model_copy(update={"action": edit, "observation": Observation(kind=seen, text="x")}),
    )
    (use,) = memory_uses(read_run(folder))
    assert use.cited == cited


@pytest.mark.parametrize("changes", [(), ("value = 3",)], ids=["no code", "code"])
def test_of_items_that_tell_no_code_nothing_is_said_of_code_that_was_written(
    tmp_path: Path, changes: tuple[str, ...]
) -> None:
    manifest, folder = learned_run(tmp_path / "runs", ("r0-1",))
    arm = next(arm for arm in manifest.plan.arms if arm.name == "memory")
    end = ended_rollout("memory/0/r0-99", arm, "r0-99", "p", 1)
    kept(folder, "trajectories", end.model_copy(update={"memory": ("item1",)}))
    item = MemoryItem(
        id="item1", kind=MemoryKind.LESSONS, source="s", instance_id="r0-1", repo="r0", position=1, title="t", text="t",
        asked="a", paths=(), changes=changes,
    )  # fmt: skip
    kept(folder, "memory", item)
    listed = looper("memory", "list", "--run", folder.name, cwd=tmp_path).stdout
    (line,) = re.findall(r"^memory: .*", listed, re.MULTILINE)
    assert "1 told" in line and line.endswith("0 wrote the code of one" if changes else " tokens")
    told = json.loads(looper("memory", "list", "--run", folder.name, "--json", cwd=tmp_path).stdout)["told"]
    assert [use["cited"] for use in told] == [[] if changes else None]


@pytest.mark.parametrize(("suite", "adapter", "warned"), [("micro", "abc", True), ("micro", "", False), ("swe-bench-cl", "abc", False)])  # fmt: skip
def test_that_the_embedded_suite_is_made_for_experience_to_help_is_said_of_adapters_trained_by_hand_too(
    tmp_path: Path, suite: str, adapter: str, warned: bool
) -> None:
    run = read_run(write_run(tmp_path, adapter=adapter))
    plan = run.manifest.plan.model_copy(update={"selection": TaskSelection(suite=suite)})
    run = replace(run, manifest=run.manifest.model_copy(update={"plan": plan}))
    said = io.StringIO()
    Console(file=said, width=1000).print(run_table(run))
    told = said.getvalue() + run_block(run)
    assert ("made so that experience helps" in told) is warned
    assert "2 tasks, seed 0, " in told


def test_time_is_of_the_arms_that_are_asked_about_and_carries_how_far_arms_lie_apart(tmp_path: Path) -> None:
    """A run of two arms, one of them slow, has more cells than a newer one of base alone, which has more of base."""
    tasks = tuple(f"a__b-{at}" for at in range(9))
    both = write_run(
        tmp_path / "runs", tasks=tasks, experiment="both", judged=lambda cell: cell.startswith("base")
    )
    slow = write_run(tmp_path / "slow", tasks=tasks, experiment="both", end={"wall_s": 9.0})
    for name, wanted in (("trajectories", b'"arm":"other"'), ("verdicts", b'"cell":"other/')):
        with (both / f"{name}.jsonl").open("ab") as stream:
            lines = (slow / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
            stream.writelines(line for line in lines if wanted in line)
    alone = write_run(
        tmp_path / "runs", arms=("base",), tasks=(*tasks, "a__b-10", "a__b-11"), experiment="alone"
    )
    for path in alone.glob("*.jsonl"):
        os.utime(path, (2**31, 2**31))
    plan = read_run(both).manifest.plan

    def told(arms: Sequence[Arm]) -> str:
        return next(time_lines(plan, arms, 50, 50, 4, measured(tmp_path / "runs", plan, arms)))

    assert "about 75 s (75 s to 75 s, 95 %)" in told(plan.arms)
    assert "mean of 18 cells of 2 arms in both" in told(plan.arms)
    assert "about 25 s (25 s to 25 s, 95 %)" in told(plan.arms[:1]), "of base alone"
    assert "mean of 11 cells of 1 arm in alone" in told(plan.arms[:1])
    third = plan.arms[0].model_copy(update={"name": "third", "temperature": 0.7})
    found = measured(tmp_path / "runs", plan, (*plan.arms, third))
    assert found is not None and found.rollout_s.low == 2 and found.rollout_s.high > 50, (
        "it may be like neither"
    )
    assert told((*plan.arms, third)).endswith(
        "; 1 other arm is taken to be like them, and the interval is of how far apart its arms lie; starting comes on top"
    )
    assert told((plan.arms[0], third)).endswith(
        f"in {alone.name}; 1 other arm is taken to be like it, and the interval is of the cells of base alone; starting comes on top"
    )


def test_every_arm_with_patches_of_base_is_named_and_so_is_a_scripted_model(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, arms=("base", "other", "third", "nothing"), noop="nothing"))
    assert "cells with the same patch as base: other 2 of 2, third 2 of 2" in control_lines(run)
    assert "no model" not in run_block(run) and "seed 0, x x, code x" in run_block(run)


def test_what_was_learned_once_for_all_repositories_is_about_that_learning_alone() -> None:
    text = (TWO_ALIKE + AND_MEMORY).replace(
        '{ treatment = "memory" }', '{ treatment = "adapter", strategy = { name = "full_replay" } }'
    )
    plan = plan_with(text + DIFFERENCE)
    tasks = [f"r{repo}-{number}" for repo in range(24) for number in range(6)]
    assert scope_of(plan, tasks) is Scope.ONE and unit_of(plan, tasks) is AnalysisUnit.TASK


OF_LEARNING: dict[str, tuple[str, ...]] = {
    "treatment": tuple(f'treatment = "{found.value}"' for found in Treatment),
    "source": tuple(f'treatment = "memory", source = "{found.value}"' for found in Source if found is not Source.GUIDED),
    "episodes": ('treatment = "memory", episodes = 1',),
    "objective": ('treatment = "adapter", objective = "preference"',),
    "memory": tuple(f'treatment = "{how}", memory = {{ kind = "raw" }}' for how in ("memory", "oversight", "adapter")),
    "teacher": ('treatment = "adapter", objective = "distillation", teacher = { kind = "raw" }',),
    "format": ('treatment = "adapter", format = "simple_qa"',),
    "pairs": ('treatment = "adapter", format = "simple_qa", pairs = 2',),
    "shuffled": ('treatment = "adapter", shuffled = true',),
    "failures": ('treatment = "adapter", failures = true',),
    "failure_weight": ('treatment = "adapter", failures = true, failure_weight = 0.5',),
    "masked": ('treatment = "adapter", masked = true',),
    "recovered": ('treatment = "adapter", source = "redrawn", recovered = 1',),
    "writer": ('treatment = "adapter", format = "self_qa", rounds = 2, writer = "self"',),
    "training": ('treatment = "adapter", training = { rank = 2 }',),
    "times": ('treatment = "adapter", times = 0.5',),
    "overseer": ('treatment = "oversight", overseer = { backend = "nano" }',),
    "overseen": ('treatment = "adapter", overseen = true',),
    "blind": ('treatment = "oversight", blind = true',),
    "rounds": ('treatment = "adapter", rounds = 2',),
    "elsewhere": ('treatment = "adapter", elsewhere = true',),
    "strategy": ('treatment = "adapter", strategy = { name = "full_replay" }',),
    "batches": ('treatment = "adapter", strategy = { name = "full_replay" }, batches = 1',),
}  # fmt: skip
"""Of every key of a learning, arms that have it."""


def test_a_pilot_says_nowhere_that_something_of_it_is_decided() -> None:
    pilot, large = (run_of(DIFFERENCE + MARGIN, *size, steady) for size in ((2, 6), (24, 8)))
    said = run_block(pilot)
    assert "Every arm against base by itself; estimates of a pilot" in said
    assert "2 contrasts in one family (Holm, 0.05 together), each an estimate with its interval" in said
    assert not re.search(r"\bdecided\b", said), said
    assert "decided at 0.05 together" in run_block(large)


def test_whatever_is_learned_makes_the_repository_the_unit_or_was_learned_once() -> None:
    """What an overseer is told was learned per repository as well."""
    assert OF_LEARNING.keys() == Learning.model_fields.keys(), "a key that this does not walk through"
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE)
    tasks = [f"r{repo}-{number}" for repo in range(24) for number in range(6)]
    for key, written in OF_LEARNING.items():
        for text in written:
            learning = Learning.model_validate(tomllib.loads(f"it = {{ {text} }}")["it"])
            arms = [
                arm.model_copy(update={"learning": learning}) if arm.learning is not None else arm
                for arm in plan.arms
            ]
            once = learning.strategy is not None
            about = scope_of(plan.model_copy(update={"arms": tuple(arms)}), tasks)
            assert about is (Scope.ONE if once else Scope.REPOSITORIES), (key, text)
    overseer = Learning(
        treatment=Treatment.OVERSIGHT, overseer=ModelSpec(backend="nano", adapter="3f2a91c04d5e6b78")
    )
    arms = [arm.model_copy(update={"learning": overseer} if arm.learning else {}) for arm in plan.arms]
    both = plan.model_copy(update={"arms": tuple(arms)})
    assert scope_of(both, tasks) is Scope.BOTH and unit_of(both, tasks) is AnalysisUnit.REPOSITORY


def test_an_adapter_that_a_plan_brings_along_was_not_learned_here() -> None:
    """Beside a memory that each repository has of its own, in too few repositories to speak of others."""
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE)
    adapted = plan.arms[0].model_copy(
        update={
            "name": "adapted",
            "role": ArmRole.TREATMENT,
            "model": ModelSpec(backend="nano", adapter="3f2a91c04d5e6b78"),
        }
    )
    both = plan.model_copy(update={"arms": (*plan.arms, adapted), "contrasts": ()})
    few, many = ([f"r{repo}-{number}" for repo in range(of) for number in range(6)] for of in (2, 24))
    assert scope_of(both, few).value == (
        "these repositories with what the arms had learned, among it an adapter that was trained before, and no others"
    )
    assert scope_of(both, few).is_of_these and scope_of(both, many) is Scope.BOTH
    alone = both.model_copy(update={"arms": (plan.arms[0], adapted)})
    assert scope_of(alone, few) is Scope.ONE and "here" not in Scope.ONE.value


def test_an_arm_beside_the_contrasts_makes_no_unit_smaller_and_no_scope_its_own() -> None:
    """One adapter for all repositories, exploratory, beside memories that each repository has of its own, or beside nothing learned."""
    tasks = [f"r{repo}-{number}" for repo in range(24) for number in range(6)]
    strategy = Learning.model_validate({"treatment": "adapter", "strategy": {"name": "sequential"}})
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE)
    beside = plan.arms[0].model_copy(update={"name": "seq", "role": ArmRole.TREATMENT, "learning": strategy})
    assert scope_of(plan.model_copy(update={"arms": (*plan.arms, beside)}), tasks) is Scope.REPOSITORIES
    plain = [arm.model_copy(update={"learning": None}) for arm in plan.arms]
    assert scope_of(plan.model_copy(update={"arms": (*plain, beside)}), tasks) is Scope.TASKS


def test_a_large_expectation_is_no_power() -> None:
    """Whoever expects more than thirty points still has to see thirty; what is taken for granted is said."""
    tasks = [f"r{repo}-{number}" for repo in range(2) for number in range(6)]
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE.replace("30 points", "80 points"))
    assert is_pilot(plan, tasks)
    said = "\n".join(power_lines(plan, tasks, None))
    assert "+30.0 points, the largest that a plan may count on (it expects +80.0 points)" in said
    assert "(it expects +80.0 points), for which base has to fail in at least 45 % of cells, and " in said


@pytest.mark.parametrize(("repositories", "each"), [(2, 6), (1, 9), (4, 10), (24, 6)])
def test_what_a_difference_takes_is_said_of_each_and_never_less_than_it(repositories: int, each: int) -> None:
    """Where base fails in a quarter of the cells nobody can gain 87 points."""
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE)
    tasks = [f"r{repo}-{number}" for repo in range(repositories) for number in range(each)]
    (said,) = power_lines(plan, tasks, None)
    taken = re.findall(r"(\d+)(?:\.0)? points, for which base has to fail in at least (\d+) %", said)
    assert taken[0] == ("30", "45") and all(int(points) <= int(fails) <= 100 for points, fails in taken)
    assert (len(taken) == 2) != ("no difference is shown in 80 % of runs" in said)


def test_that_base_failed_too_rarely_for_what_a_plan_could_show_is_said_of_its_run() -> None:
    for share, said in ((0.75, "base failed in 25 %, which is too few for the smallest"), (0.0, "")):
        run = run_of(DIFFERENCE, 2, 8, lambda arm, repo, rng, share=share: repo < 2 * share)
        run = replace(
            run,
            verdicts=tuple(
                verdict(one.cell, one.instance_id, "p", int(one.instance_id[-1]) < 8 * share)
                for one in run.verdicts
            ),
        )
        (line,) = measured_lines(run)
        assert (said in line) if said else "too few" not in line, line
        assert "failed in" not in "\n".join(before_lines(run)), "that is of the data"


def test_twelve_repositories_of_which_two_hold_most_tasks_are_too_few_to_generalise_from() -> None:
    plan = plan_with(TWO_ALIKE + AND_MEMORY + DIFFERENCE)
    sizes = (231, 75, 44, 34, 32, 22, 22, 19, 10, 8, 2, 1)
    tasks = [f"r{repo}-{number}" for repo, size in enumerate(sizes) for number in range(size)]
    assert scope_of(plan, tasks) is Scope.THESE
    assert (
        scope_of(plan, [f"r{repo}-{number}" for repo in range(12) for number in range(20)])
        is Scope.REPOSITORIES
    )


def test_whether_a_run_is_a_pilot_is_known_before_its_data() -> None:
    """However often its equal arms turn out to differ, and whether or not its primary contrast was measured."""
    for luck in (helped, steady, lambda arm, repo, rng: rng.random() < 0.5):
        assert not run_of(DIFFERENCE, 24, 8, luck).pilot and run_of(DIFFERENCE, 2, 6, luck).pilot
    small = run_of(DIFFERENCE + MARGIN, 2, 6, steady)
    unmeasured = replace(small, verdicts=tuple(v for v in small.verdicts if not v.cell.startswith("memory/")))
    found = unmeasured.registered
    assert found[0].finding is Decision.NOT_MEASURED and found[1].finding is Decision.PILOT


def test_an_arm_that_lost_a_tenth_of_its_cells_decides_nothing_however_whole_the_other_one_is() -> None:
    run = run_of(DIFFERENCE, 24, 8, helped)
    lost = {f"memory/0/r{repo}-0" for repo in range(20)}
    assert len(lost) / len(run.cells("memory")) > 0.1
    part = replace(run, verdicts=tuple(v for v in run.verdicts if v.cell not in lost))
    assert part.registered[0].finding is Decision.INDECISIVE
    assert run.registered[0].finding is Decision.SHOWN


def test_a_few_missing_verdicts_decide_nothing_where_they_could_have_turned_it() -> None:
    """Eight of 192 cells ended outside of the agent, fewer than one in twenty, and just those that speak against it: of a gain that is
    not shown the rest alone would show it. A large gain stands whatever they held."""
    for chance, expected in ((0.17, Decision.INDECISIVE), (0.6, Decision.SHOWN)):
        run = run_of(
            DIFFERENCE, 24, 8, lambda arm, repo, rng, p=chance: rng.random() < (p if arm == "memory" else 0.2)
        )
        resolved = {where for where, done in run.outcomes("base").items() if done}
        against = [where for where in resolved if not run.outcomes("memory")[where]]
        lost = {f"memory/{where}" for where in sorted(against)[:8]}
        part = replace(run, verdicts=tuple(v for v in run.verdicts if v.cell not in lost))
        assert len(lost) == 8 and part.paired("memory", "base").p_value < 0.05
        assert part.registered[0].finding is expected


def test_missing_verdicts_can_turn_a_line_through_several_arms_as_well() -> None:
    chances = {"base": 0.2, "again": 0.2, "memory": 0.17}
    run = run_of(DIFFERENCE, 24, 8, lambda arm, repo, rng: rng.random() < chances[arm])
    # A line through arms without a dose no file may ask for; its arithmetic is the same.
    plan = run.manifest.plan
    line = plan.contrasts[0].model_copy(update={"through": ("again",)})
    asked = plan.model_copy(update={"contrasts": (line,)})
    run = replace(run, manifest=run.manifest.model_copy(update={"plan": asked}))
    memory = run.outcomes("memory")
    against = [where for where, done in sorted(run.outcomes("base").items()) if done and not memory[where]]
    lost = {f"memory/{where}" for where in against[:9]}
    part = replace(run, verdicts=tuple(v for v in run.verdicts if v.cell not in lost))
    assert run.registered[0].finding is Decision.OPEN
    rest = part.registered[0]
    assert rest.difference is not None and rest.difference.p_value < 0.05, "the rest alone would show it"
    assert rest.finding is Decision.INDECISIVE


REGISTERED = (("other", "base", Expect.MORE), ("base", "third", Expect.MORE), ("third", "base", Expect.SAME))
"""Shown against base, some are shown the other way round than they were registered."""


def registered_run(runs: Path, *, whole: bool = True) -> RunView:
    """Two tasks: a pilot of whatever it asks."""
    contrasts = [
        Contrast(arm=arm, against=against, expect=expect, shown="A.", refuted="B.", open="C.")
        for arm, against, expect in REGISTERED
    ]
    return read_run(
        write_run(
            runs,
            arms=("base", "other", "third"),
            contrasts=contrasts,
            judged=lambda cell: whole or not cell.endswith("b-2") or cell.startswith("base"),
        )
    )


def shown_lines(text: str) -> list[str]:
    """Lines of a terminal or of Markdown, and what a page shows as one, that give a difference of two registered arms in figures."""
    parts = re.split(r"\n|</(?:tr|p|li|summary|figcaption|text|title)>", re.sub(r"</th>\s*<td", "<td", text))
    bare = [" ".join(re.sub(r"<[^>]*>", " ", part).split()) for part in parts]
    pairs = "|".join(rf"{a} − {b}|{b} − {a}" for a, b, _ in REGISTERED)
    return [line for line in bare if re.search(rf"(?:{pairs}|first − second)\b.*[-+]\d+\.\d", line)]


@pytest.mark.parametrize("whole", [True, False])
def test_a_pilot_is_called_one_wherever_what_it_registered_is_shown(tmp_path: Path, whole: bool) -> None:
    """In every view, either way round, finished or not; for programs beside the figures."""
    run = registered_run(tmp_path / "runs", whole=whole)
    written = ""
    for arms in (("other", "base"), ("base", "other"), ("third", "base"), ("base", "third")):
        told = looper("diff", *arms, cwd=tmp_path)
        assert told.returncode == 0, told.stderr
        written += told.stdout
        assert "the registered contrast, " in told.stdout and " in one family" in told.stdout
        data = json.loads(looper("diff", *arms, "--json", cwd=tmp_path).stdout)
        assert (
            data["registered"]["pilot"] and data["registered"]["family"] == 3 and data["registered"]["scope"]
        )
        for one in data["registered"]["contrasts"]:
            assert one["finding"] == ("pilot" if whole else "unfinished") and one["pilot"]
            assert (one["interval"] is not None and one["confidence"] > 0.9) is whole
        assert "pilot" in data["resolved"]["standing"]
    screen = io.StringIO()
    rich = Console(file=screen, width=1000)
    rich.print(run_table(run))
    rich.print(watch.screen(Projection(tmp_path / "runs").status(), 40, tmp_path / "runs"))
    written += screen.getvalue() + page(run) + run_block(run)
    assert looper("report", "--bundle", "pages", cwd=tmp_path).returncode == 0
    pages = [path.read_text("utf-8") for path in sorted((tmp_path / "pages").rglob("*.html"))]
    lines = shown_lines("\n".join([written, *pages]))
    assert len(lines) > 10
    assert [line for line in lines if "pilot" not in line.lower()] == []
    state = f"{run.finished} of {run.planned} cells"
    assert whole or all(state in line for line in lines), [line for line in lines if state not in line]
    status = looper("status", cwd=tmp_path).stdout
    assert "  pilot, decides nothing: 0 % power for other − base\n" in status
    assert "pilot, decides nothing" in screen.getvalue()
    assert json.loads(looper("status", "--json", cwd=tmp_path).stdout)["runs"][0]["pilot"]
    exported = looper("export", "--format", "registered", cwd=tmp_path)
    assert all(one["pilot"] for one in json.loads(exported.stdout)["contrasts"]), exported.stderr


def test_bars_of_a_pilot_are_hollow_and_those_of_a_decision_are_filled() -> None:
    decided, pilot = run_of(DIFFERENCE, 24, 6, helped), run_of(DIFFERENCE, 5, 2, helped)
    (bar,) = [bar for bar in bars(decided).rows if bar.name == "memory − base"]
    assert bar.decided and bar.said.endswith(", registered, shown")
    (bar,) = [bar for bar in bars(pilot).rows if bar.name == "memory − base"]
    assert not bar.decided and bar.said.endswith(", registered, pilot")
    cut = replace(decided, verdicts=decided.verdicts[:-1])
    (bar,) = [bar for bar in bars(cut).rows if bar.name == "memory − base"]
    assert not bar.decided and bar.said.endswith(
        f", registered, unfinished, {cut.finished} of {cut.planned} cells"
    )


def test_a_difference_that_is_registered_has_one_interval_and_one_p_value_in_every_view() -> None:
    """The ones that decide; what no plan registered, and what nothing is decided of yet, has its own."""
    run = run_of(DIFFERENCE, 24, 6, helped)
    terminal = io.StringIO()
    Console(file=terminal, width=1000).print(run_table(run))
    diff = "\n".join(arms_diff(run, "memory", "base"))
    for text in (terminal.getvalue(), run_block(run), html.unescape(page(run)), diff):
        lines = [line for line in re.split(r"\n|</li>", text) if "registered: shown" in line]
        assert lines and all(line.count(" % ") <= 1 and "unadjusted" not in line for line in lines), lines
    assert re.search(
        r"memory − base \(treatment, registered: shown, [\d.]+ % [^)]*\): [-+][\d.]+ points, by repository \(24\), 144 pairs,",
        terminal.getvalue(),
    )
    assert "unadjusted" not in diff
    (again,) = [line for line in contrast_lines(run) if line.startswith("again − base")]
    assert "exploratory): " in again and ", 95 % " in again and " unadjusted by repository" in again
    unfinished = replace(run, verdicts=run.verdicts[:-1])
    assert ", 95 % " in "\n".join(arms_diff(unfinished, "memory", "base"))


def test_a_decision_is_the_same_whichever_way_round_two_arms_are_shown() -> None:
    run = run_of(DIFFERENCE + MARGIN, 24, 6, helped)
    forth, back = standing_of(run, "memory", "base"), standing_of(run, "base", "memory")
    assert re.fullmatch(r"registered: shown, [\d.]+ % [-+][\d.]+ to [-+][\d.]+", forth)
    assert back == forth.replace("registered", "registered as memory − base")
    assert registered_of(run, "memory", "base") == registered_of(run, "base", "memory") != []
    assert standing_of(run, "again", "base").startswith("registered, the same within 10.0 points: ")
    assert standing_of(run, "again", "memory") == EXPLORATORY


@pytest.mark.parametrize("width", [200, 80, 40, 20])
def test_a_terminal_of_any_width_shows_each_arms_name_and_figures_whole(tmp_path: Path, width: int) -> None:
    run = read_run(write_run(tmp_path))
    screen = io.StringIO()
    Console(file=screen, width=width).print(run_table(run))
    said = " ".join(screen.getvalue().split())
    for arm in run.manifest.plan.arms:
        figures = run.figures(arm.name).resolved
        assert re.search(rf"{arm.name}\b.*{figures.numerator}/{figures.denominator}\b", said), said
    assert max(map(cell_len, screen.getvalue().splitlines())) <= max(width, len(str(run.folder)))
