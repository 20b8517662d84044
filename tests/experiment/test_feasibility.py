"""Plans against the tasks that they select, before anything runs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from scripts.bench_report import IDENTITY, verdict
from tests.fakes.swe_bench_rows import row, written

from looper.cli.planning import plan_lines
from looper.cli.plans import RunOptions
from looper.cli.preparing import prepare
from looper.cli.running import dry_run, run
from looper.cli.settings import Settings, settings
from looper.errors import BadInput
from looper.experiment.feasibility import Selected, data_stops, impossible
from looper.experiment.plans import plan_from_text
from looper.experiment.schedule import exhausted_repositories, learnable, split_tasks
from looper.experiment.stages import learners_of
from looper.journal import Stream
from looper.records.base import Record
from looper.records.learning import Experience, Split
from looper.records.plan import Gate, Override, Plan, RunManifest, TaskSelection
from looper.records.task import Task

FOLDER = Path(__file__).parents[2] / "experiments"
SHARED = {path.stem: path.read_text("utf-8") for path in (FOLDER / "profiles").glob("*.toml")}
REPOS = ("django/django", "sphinx-doc/sphinx")


def plan_of(name: str, profile: str, *changes: tuple[str, str]) -> Plan:
    text = (FOLDER / f"{name}.toml").read_text("utf-8")
    shared = dict(SHARED)
    for old, new in changes:
        assert old in text + shared[profile]
        text, shared[profile] = text.replace(old, new), shared[profile].replace(old, new)
    return plan_from_text(name, text, f"{name}.toml", profile, shared=shared)


@pytest.fixture
def sequences(task: Task) -> tuple[Task, ...]:
    """As many tasks as the real sequences have of two repositories, unlike each other but for a word that every third issue has."""
    return tuple(
        task.model_copy(
            update={
                "instance_id": f"{repo.partition('/')[2]}-{number}",
                "repo": repo,
                "sequence_position": number,
                "created_at": f"20{number:02d}-01-01",
                "problem_statement": " ".join(
                    [f"family{'abc'[number % 3]}", *(f"{repo}{number}word{each}" for each in range(20))]
                ),
                "gold_patch": "\n".join(f"+{repo}_{number}_line_{each} = {each}" for each in range(9)),
            }
        )
        for repo in REPOS
        for number in range(1, 51)
    )


def selected(plan: Plan, tasks: tuple[Task, ...], *, lost: int = 0, gates: tuple[Gate, ...] = ()) -> Selected:
    """A plan with its tasks; of the first repository so many fewer to learn from."""
    split = plan.experience if plan.sources else None
    evaluated, learning = split_tasks(tasks, plan.selection, split)
    left_out = {task.instance_id: "its issue quotes the fix" for task in learning[:lost]}
    experience = {
        source: tuple(task for task in learning if task.instance_id not in left_out)
        for source in plan.sources
    }
    learners = learners_of(plan, plan.arms)
    aside = dict.fromkeys(plan.sources, learning)
    return Selected(plan, learners, evaluated, experience, left_out, aside, data_stops(plan, gates))


@pytest.mark.parametrize("profile", ["micro", "swe"])
@pytest.mark.parametrize("path", sorted(FOLDER.glob("exp*.toml")), ids=lambda path: path.stem)
def test_p1_no_registered_plan_has_a_gate_that_its_tasks_cannot_pass(
    path: Path, profile: str, micro: tuple[tuple[Task, ...], object], sequences: tuple[Task, ...]
) -> None:
    """Also where eight of a real repository's tasks may not be learned from, as in django's sequence."""
    plan = plan_of(path.stem, profile)
    found = selected(plan, micro[0]) if profile == "micro" else selected(plan, sequences, lost=8)
    assert list(impossible(found)) == []


def test_p1_a_gate_of_more_tasks_than_there_are_is_refused_with_the_numbers(
    sequences: tuple[Task, ...],
) -> None:
    plan = plan_of("exp01", "swe", ("minimum_tasks = 8", "minimum_tasks = 20"))
    ((keys, said),) = impossible(selected(plan, sequences, lost=8))
    assert keys == ("experience", "selection", "minimum_tasks")
    assert said.startswith(
        "20 resolved tasks of each repository are wanted, and django/django has 17 (of 25 set aside, without 8 whose issue quotes the "
        "fix) to learn from. Either set it to 17 or less"
    )
    assert list(impossible(selected(plan, sequences, lost=8, gates=(Gate.DATA,)))) == []
    ((_, said),) = impossible(selected(plan, sequences, lost=25, gates=(Gate.DATA,)))
    assert said.startswith("1 resolved task of each") and "--override" not in said


@pytest.mark.parametrize(
    ("name", "old", "new", "keys", "said"),
    [
        ("exp13", "episodes = 8", "episodes = 80", "arms.4.learning.episodes", "learns from 80 successes .* cannot have more than 15"),
        ("exp10", "recovered = 5", "recovered = 50", "arms.7.learning.recovered", "50 of its own successes, and .* 15 tasks"),
        ("exp02", "buffer = 8", "buffer = 30", "arms.8.learning.strategy.buffer", "keeps 30 successes, and there are 30 at most"),
        ("ways", "expert_rank = 4 }", "expert_rank = 4, experts = 55 }", "arms.25.learning.strategy.experts", "has 55 experts, and there are 54"),
        ("exp01", "batches = 1", "batches = 4", "arms.2.learning.batches", "stops after 4, and 30 successes at most are 4 batches"),
        ("exp17", "samples = 2", "samples = 1", "arms.2.learning.objective", "each task is tried once"),
        (
            "exp01", "max_tokens = 512", "max_tokens = 512\nvalidation_share = 0.99", "experience.training.validation_share",
            "keeps 15 of 15 tasks of .* aside, and trains on 0 at most where 3 are wanted",
        ),
        (
            "exp09", "max_tokens = 512", "max_tokens = 512\nvalidation_share = 0.99", "experience.training.validation_share",
            "^lora keeps 15 of 15",
        ),
        ("exp11", "minimum_tasks = 3", "minimum_tasks = 20", "experience.selection.minimum_tasks", "has 15 of gold experience"),
        ("exp09", "limit = 12", "limit = 6", "arms.4.learning.memory.draw", "is told of another repository, and .* is the only one"),
    ],
)  # fmt: skip
def test_a_setting_that_the_data_cannot_serve_is_refused_with_the_numbers(
    name: str, old: str, new: str, keys: str, said: str, micro: tuple[tuple[Task, ...], object]
) -> None:
    told = impossible(selected(plan_of(name, "micro", (old, new)), micro[0]))
    found = {".".join(map(str, path)): words for path, words in told}
    assert keys in found and re.search(said, found[keys]), found


@pytest.fixture
def here(tmp_path: Path, state: Path) -> Settings:
    return replace(settings(), state=state, runs=tmp_path / "runs", workspaces=state / "workspaces")


def test_p1_plan_and_run_refuse_before_anything_is_made_and_name_file_line_and_numbers(
    tmp_path: Path, here: Settings
) -> None:
    text = (
        (FOLDER / "exp12.toml")
        .read_text("utf-8")
        .replace('like = "micro"', 'like = "micro"\nexperience = { per_repo = 2, delivered = 0.01 }', 1)
    )
    (tmp_path / "mine.toml").write_text(text)
    line = SHARED["micro"].splitlines().index("minimum_tasks = 3") + 1
    options = RunOptions(str(tmp_path / "mine.toml"), "micro")
    said = rf"^profiles/micro.toml:{line}:1: experience.selection.minimum_tasks: 3 resolved tasks .* has 2 \(of 2 set aside\)"
    for asked in (
        lambda: list(plan_lines(options, here)),
        lambda: run(options, here, print),
        lambda: list(dry_run(options, here)),
    ):
        with pytest.raises(BadInput, match=said):
            asked()
    assert not here.runs.exists()
    passed = replace(options, overrides=(Override(gate=Gate.DATA, reason="a pilot"),))
    assert any(
        line.startswith("gates: at least 3") and "2 to try" in line for line in plan_lines(passed, here)
    )
    alone = replace(options, arms=("base",))
    assert list(plan_lines(alone, here)), "base alone learns nothing"


def test_a_plan_leaves_pilot_by_no_assumption_that_no_run_supports(tmp_path: Path, here: Settings) -> None:
    """Less than equal arms are taken to differ by default needs a run here that rules the default out."""
    text = (FOLDER / "exp15.toml").read_text("utf-8")
    text = text.replace('like = "micro"', 'like = "micro"\ndiscordance = 0.1', 1)
    (tmp_path / "mine.toml").write_text(text)
    line = text.splitlines().index("discordance = 0.1") + 1
    options = RunOptions(str(tmp_path / "mine.toml"), "micro")
    said = rf"mine.toml:{line}:1: discordance: takes equal arms to differ in 10 % of the cells, and 30 %.*no run here shows"
    for asked in (lambda: list(plan_lines(options, here)), lambda: run(options, here, print)):
        with pytest.raises(BadInput, match=said):
            asked()

    def measured(differing: int, of: int, name: str) -> None:
        """A run of base and its repeat that leaves verdicts of its cells alone."""
        plan = plan_from_text("mine", text, "mine.toml", "micro", shared=SHARED)
        base, again = plan.arms[:2]
        asked = plan.model_copy(update={"arms": (base, again), "contrasts": ()})
        tasks = tuple(f"r{number}-0" for number in range(of))
        manifest = RunManifest(
            plan=asked, code_version="x", tasks=tasks, tasks_hash="x", environments=("e",), sandbox="none",
            models={arm.name: IDENTITY for arm in asked.arms},
        )  # fmt: skip
        verdicts = [
            verdict(f"{arm.name}/0/{task}", task, "p", arm is again and at < differing)
            for arm in asked.arms
            for at, task in enumerate(tasks)
        ]
        (here.runs / name).mkdir(parents=True)
        for stream, records in (("manifest", [manifest]), ("verdicts", verdicts)):
            kept: Stream[Record] = Stream(here.runs / name, stream, type(records[0]))
            for record in records:
                kept.append(record)
            kept.close()

    measured(1, 40, "other-micro-1")
    assert any("in other-micro-1; the plan takes 10 %" in line for line in plan_lines(options, here))
    measured(14, 60, "other-micro-2")
    with pytest.raises(
        BadInput,
        match=r"they differed in 23 % of 60 cells .* in other-micro-2. Raise it to 0.3, or leave it out",
    ):
        list(plan_lines(options, here))


def test_p4_the_first_screen_has_the_smallest_effect_of_interest_and_the_power_for_it(here: Settings) -> None:
    lines = list(plan_lines(RunOptions("exp12", "micro"), here))
    assert (
        lines[2]
        == "smallest effect of interest: 5 points of tasks resolved (primary: trajectories − base, not less)"
    )
    assert lines[3].startswith("power, a PILOT") and "if equal arms differ in 30 % of cells" in lines[3]


def test_p7_nothing_is_set_aside_where_no_arm_learns(here: Settings) -> None:
    ablation = prepare(plan_of("exp15", "micro"), here)
    assert not ablation.experience and {task.sequence_position for task in ablation.tasks} == set(range(1, 7))


def test_p7_a_repository_that_learning_uses_up_is_told_with_its_numbers(task: Task) -> None:
    small = tuple(
        task.model_copy(update={"instance_id": f"{repo}-{number}", "repo": repo, "sequence_position": number})
        for repo, size in (("p/large", 30), ("p/small", 19))
        for number in range(1, size + 1)
    )
    experience = Experience(per_repo=25, samples=1, temperature=1.0)
    with pytest.raises(
        BadInput,
        match=r"p/small has 19 tasks, of which 19 are set aside to learn from \(experience.per_repo = 25\)",
    ):
        split_tasks(small, TaskSelection(suite="swe-bench-cl", repos=("p/small",)), experience)
    assert list(exhausted_repositories(small, experience)) == ["p/small"]
    evaluated, _ = split_tasks(small, TaskSelection(suite="swe-bench-cl"), experience)
    assert {found.repo for found in evaluated} == {"p/large"}
    coupled = experience.model_copy(update={"split": Split.COUPLED})
    assert "no other one builds on those" in exhausted_repositories(small, coupled)["p/large"]


def test_p7_what_is_used_up_of_a_whole_suite_is_said(tmp_path: Path, here: Settings) -> None:
    rows = [row(number) for number in (1, 2)] + [row(number, "pydata/xarray", "0.12") for number in (1, 2, 3)]
    found = replace(here, swe_bench_data=written(tmp_path / "rows.jsonl", rows), mirrors=tmp_path / "mirrors")
    text = (FOLDER / "exp12.toml").read_text("utf-8")
    changed = text.replace(
        '[profiles.swe]\nlike = "swe"',
        '[profiles.swe]\nlike = "swe"\ntasks = { suite = "swe-bench", repos = [] }\nexperience = { per_repo = 2 }',
    )
    plan = plan_from_text("t", changed, "t.toml", "swe", shared=SHARED)
    prepared = prepare(plan, found)
    assert {task.repo for task in prepared.tasks} == {"pydata/xarray"}
    assert any("sympy/sympy has 2 tasks, of which 2 are set aside" in line for line in prepared.unserved)


def test_leaks_are_told_from_likeness(sequences: tuple[Task, ...]) -> None:
    kept, why = learnable(
        sequences[:3], sequences[2:4], Experience(per_repo=1, samples=1, temperature=0).selection
    )
    assert len(kept) == 2 and list(why.values()) == [f"nearly the same as {sequences[2].instance_id}"]
