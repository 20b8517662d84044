"""Plans against the tasks that they select, before anything runs."""

import random
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError
from scripts.bench_report import IDENTITY, verdict
from tests.fakes.swe_bench_rows import row, written

from looper.cli.planning import plan_lines
from looper.cli.plans import RunOptions
from looper.cli.preparing import prepare
from looper.cli.running import dry_run, run
from looper.cli.settings import Settings, settings
from looper.edges.datasets.micro import MicroSuite
from looper.errors import BadInput
from looper.experiment import feasibility
from looper.experiment.feasibility import (
    Attempted,
    Selected,
    data_stops,
    impossible,
    told_at_most,
    told_forecast,
)
from looper.experiment.plans import plan_from_text, written_plan
from looper.experiment.schedule import exhausted_repositories, learnable, split_tasks
from looper.experiment.stages import learners_of
from looper.journal import Stream
from looper.records.base import Record
from looper.records.learning import Experience, Source, Split
from looper.records.memory import Draw, MemoryKind, Moment, Remembering
from looper.records.plan import Gate, Override, Plan, RunManifest, TaskSelection
from looper.records.task import Task
from looper.views.forecast import runs_alike

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


@pytest.fixture(scope="module")
def many(state: Path) -> tuple[Task, ...]:
    """Level 0 of the embedded suite, of as many repositories as a registered plan has."""
    return MicroSuite(state / "suites", 0, 0, repositories=48).load()[0]


@pytest.mark.parametrize("profile", ["micro", "demo", "swe"])
@pytest.mark.parametrize("path", sorted(FOLDER.glob("exp*.toml")), ids=lambda path: path.stem)
def test_p1_no_registered_plan_has_a_gate_that_its_tasks_cannot_pass(
    path: Path, profile: str, many: tuple[Task, ...], sequences: tuple[Task, ...]
) -> None:
    """Also where eight of a real repository's tasks may not be learned from, as in django's sequence."""
    plan = plan_of(path.stem, profile)
    embedded = tuple(dict.fromkeys(task.repo for task in many))[: plan.selection.repositories]
    found = (
        selected(plan, sequences, lost=8)
        if profile == "swe"
        else selected(plan, tuple(task for task in many if task.repo in embedded))
    )
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


def test_p1_an_arm_that_runs_by_itself_is_held_to_the_poorest_source_of_the_plan(
    many: tuple[Task, ...],
) -> None:
    """All learn from as much as that has, whichever arms are asked for."""
    plan = plan_of("exp00", "micro")
    found = selected(plan, many)
    lora = tuple(arm for arm in plan.arms if arm.name == "lora")
    poor = {source: tasks if source is Source.OWN else () for source, tasks in found.experience.items()}
    assert len(poor) > 1, "exp00 learns from redrawn repositories too"
    alone = replace(found, learners=learners_of(plan, lora), experience=poor)
    ((keys, said),) = impossible(alone)
    assert keys == ("experience", "selection", "minimum_tasks") and "has 0 of" in said, said


@pytest.mark.parametrize(
    ("name", "old", "new", "keys", "said"),
    [
        ("exp13", "episodes = 8", "episodes = 80", "arms.4.learning.episodes", "learns from 80 successes .* cannot have more than 15"),
        ("exp01", 'treatment = "memory" }', 'treatment = "memory", memory = { items = 40, bytes = 4000 } }', "arms.8.learning.memory.items", "told up to 40 items, and no repository has more than 15 to learn"),
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
        (
            "exp09", "delivered = 0.5", 'delivered = 0.5\nsplit = "last"', "experience.delivered",
            "12 of 12 come before every task of their repository that is learned from, and nothing is told of later ones. "
            r'Learn from earlier tasks \(experience.split, now "last"\), choose other tasks',
        ),
        ("exp09", "limit = 12", "limit = 6", "arms.4.learning.memory.draw", "is told of another repository, and .* is the only one"),
    ],
)  # fmt: skip
def test_a_setting_that_the_data_cannot_serve_is_refused_with_the_numbers(
    name: str, old: str, new: str, keys: str, said: str, micro: tuple[tuple[Task, ...], object]
) -> None:
    profile = "micro" if name == "ways" else "demo"
    told = impossible(selected(plan_of(name, profile, (old, new)), micro[0]))
    found = {".".join(map(str, path)): words for path, words in told}
    assert keys in found and re.search(said, found[keys]), found


@pytest.mark.parametrize(("draw", "as_what"), [("random", ", as a playbook of draw random"), ("placebo", "")])
def test_a_control_of_a_kind_that_does_not_choose_is_told_of_another_repository_and_needs_one(
    draw: str, as_what: str, micro: tuple[tuple[Task, ...], object]
) -> None:
    book = 'learning = { treatment = "memory", memory = { kind = "playbook" } }'
    drawn = (book, book.replace(" }", f', draw = "{draw}" }}', 1))
    one_repository = ("limit = 12", "limit = 6")
    plan = plan_of("exp09", "demo", drawn, one_repository)
    (said,) = [words for path, words in impossible(selected(plan, micro[0])) if words.startswith("playbook ")]
    assert (
        said.startswith(f"playbook is told of another repository{as_what}, and ")
        and "is the only one" in said
    )
    found = selected(plan_of("exp09", "demo", drawn), micro[0])
    assert not [words for _, words in impossible(found) if words.startswith("playbook ")]


def test_how_many_items_are_chosen_binds_no_kind_that_does_not_choose(
    micro: tuple[tuple[Task, ...], object],
) -> None:
    book = 'kind = "playbook"'
    plan = plan_of("exp09", "demo", (book, f"{book}, items = 40, bytes = 4000"))
    assert list(impossible(selected(plan, micro[0]))) == []


@pytest.fixture
def here(tmp_path: Path, state: Path) -> Settings:
    return replace(settings(), state=state, runs=tmp_path / "runs", workspaces=state / "workspaces")


def test_p1_plan_and_run_refuse_before_anything_is_made_and_name_file_line_and_numbers(
    tmp_path: Path, here: Settings
) -> None:
    text = (
        (FOLDER / "exp12.toml")
        .read_text("utf-8")
        .replace('like = "demo"', 'like = "demo"\nexperience = { per_repo = 2, delivered = 0.01 }', 1)
    )
    (tmp_path / "mine.toml").write_text(text)
    line = next(at for at, line in enumerate(text.splitlines(), 1) if line.startswith("experience = { per"))
    options = RunOptions(str(tmp_path / "mine.toml"), "demo")
    said = (
        rf"mine.toml:{line}:16: experience.selection.minimum_tasks, from the profile demo of all plans: 3 resolved tasks .* has 2 "
        rf"\(of 2 set aside\).*; to set it, write selection.minimum_tasks = 2 in the table experience of .*mine.toml, line {line}\.$"
    )
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


THREE_ARMS = """
title = "Memories"
hypothesis = "A memory helps."
factor = "memory"

[[arms]]
name = "base"
role = "base"

[[arms]]
name = "lesson"
role = "treatment"
learning = { treatment = "memory" }

[[arms]]
name = "whole"
role = "treatment"
learning = { treatment = "memory", memory = { kind = "raw" } }

[profiles.demo]
like = "demo"
"""


@pytest.mark.parametrize(
    ("own", "wrong", "write"),
    [
        ("[profiles.demo.experience]\nsamples = 1\nper_repo = 3\n", "per_repo = 3", r"under \[profiles.demo.experience\] of .*mine.toml\."),
        ("experience.per_repo = 3\n", "per_repo = 3", "in the table experience of .*mine.toml, line 22\\."),
        ('experience = { per_repo = 3, samples = 1 }\n', "per_repo = 3", "in the table experience of .*mine.toml, line 22\\."),
        ('tasks.limit = 6\nexperience.split = "last"\n', 'split = "last"', "in the table experience of .*mine.toml, line 23\\."),
    ],
)  # fmt: skip
def test_what_a_profile_of_all_plans_sets_leads_to_the_plan_and_is_said_of_several_arms_once(
    tmp_path: Path, here: Settings, own: str, wrong: str, write: str
) -> None:
    """The key itself is in no file of the plan's author: the place is that of the one that the message names and the author wrote, and
    what to write, and where, is said."""
    file = tmp_path / "mine.toml"
    file.write_text(THREE_ARMS + own)
    line, text = next((at, text) for at, text in enumerate(file.read_text().splitlines(), 1) if wrong in text)
    with pytest.raises(BadInput) as refused:
        list(plan_lines(RunOptions(str(file), "demo"), here))
    said = str(refused.value)
    assert said.startswith(f"{file}:{line}:{text.index(wrong.split()[0].rpartition('.')[2]) + 1}: "), said
    assert (
        ": experience.delivered, from the profile demo of all plans: lesson (as well as whole) has to be told"
        in said
    )
    assert said.count("has to be told") == 1
    if "or less" in said:
        share = re.search(r"lower it to ([0-9.]+) or less", said)
        assert share and re.search(rf"; to set it, write delivered = {re.escape(share[1])} {write}$", said), (
            said
        )


def test_a_gate_of_memory_that_may_stop_a_run_after_its_experience_is_said_before_it(
    tmp_path: Path, here: Settings
) -> None:
    """By how many tasks base resolved in a run here, with the spread of that, where there is one."""
    file, options = tmp_path / "mine.toml", RunOptions(str(tmp_path / "mine.toml"), "demo")

    def gates() -> tuple[list[str], list[str]]:
        plan = [line for line in plan_lines(options, here) if line.startswith("gates: lesson")]
        return plan, [line for line in dry_run(options, here) if line.startswith("lesson has to be told")]

    file.write_text(THREE_ARMS + "[profiles.demo.experience]\nsamples = 1\nper_repo = 12\ndelivered = 0.6\n")
    (plan,), (said,) = gates()
    found = re.search(
        r"can be at (\d+) if .* will be at about (\d+) (where .*?): it (.*?) fail\.",
        plan,
    )
    assert found and plan == f"gates: {said}", plan
    most, half = (int(number) for number in found.groups()[:2])
    assert half < 8 <= most
    # An interval would be of what is not known.
    assert found.groups()[2:] == (
        "where half of the attempts succeed; how many do is shown by no run here",
        "will probably",
    )
    assert (
        f"told something at 8 of 12 tasks, or the run stops before it; it can be at {most} if every task"
        in said
    )
    assert (
        "experience.per_repo (now 12), experience.samples (now 1) or experience.delivered (now 0.6) before"
        in said
    )
    # Base resolved as good as all.
    text = THREE_ARMS.replace(
        "[profiles.demo]",
        '[[arms]]\nname = "again"\nrole = "again"\nrepetition = 1\nreason = "how often it differs from base by chance alone"\n[profiles.demo]',
    )
    known = plan_from_text("mine", text, "mine.toml", "demo", shared=SHARED)
    known = known.model_copy(update={"arms": (known.arms[0], known.arms[3])})
    written_before(here, "", "earlier-demo-1", differing=1, of=40, resolved=39, plan=known)
    (plan,), (said,) = gates()
    # What lies within the spread may go either way.
    assert "as base resolved 39 of 40 cells at other tasks in earlier-demo-1: it may fail. That is" in plan, (
        plan
    )
    passed_over = replace(options, overrides=(Override(gate=Gate.MEMORY, reason="a pilot"),))
    (plan,) = [line for line in plan_lines(passed_over, here) if line.startswith("gates: lesson")]
    assert "fail" not in plan and "passed over" in plan
    file.write_text(file.read_text().replace("delivered = 0.6", "delivered = 0.5"))
    (plan,), warned = gates()
    assert not warned and plan.endswith(
        ", 95 %), as base resolved 39 of 40 cells at other tasks in earlier-demo-1"
    )


def every_way_to_remember() -> Iterator[Remembering]:
    """Of every kind, each draw and each moment that it can have."""
    for kind, draw, moment in product(MemoryKind, Draw, Moment):
        with suppress(ValidationError):
            yield Remembering(kind=kind, draw=draw, moment=moment)


def test_a_forecast_of_what_memory_tells_is_as_sure_as_what_it_is_made_of(many: tuple[Task, ...]) -> None:
    """And tells as retrieval itself would, of whichever tasks are resolved."""
    plan = plan_of("exp09", "demo")
    found = selected(plan, many)
    experience, tasks, learned = plan.experience, found.evaluated, found.experience[Source.OWN]
    assert experience is not None
    rng = random.Random(1)
    for how in every_way_to_remember():
        told = feasibility._teller(experience, how, tasks, learned)
        for share in (0.0, 0.05, 0.1, 0.3, 1.0):
            resolved = [rng.random() < share for _ in learned]
            some = [task for task, is_resolved in zip(learned, resolved, strict=True) if is_resolved]
            expected = told_at_most(experience, how, tasks, some)
            traits = f"has_items={how.kind.traits.has_items}, chooses={how.kind.traits.chooses}"
            assert told(resolved) == expected, (
                f"records.memory.MEMORY_KINDS says {traits} of {how.kind.value}: by these traits a memory of draw {how.draw.value} and moment "
                f"{how.moment.value} tells {told(resolved)} tasks something, and by memory/deliver.deliver {expected} (feasibility._teller)"
            )

    def spread(known: Attempted, seeds: int = 1) -> tuple[float, float, float]:
        one = told_forecast(experience, Remembering(), tasks, learned, known, seeds)
        return one.low, one.tasks, one.high

    def width(known: Attempted, seeds: int = 1) -> float:
        low, _, high = spread(known, seeds)
        return high - low

    few, some = Attempted(3, 6), Attempted(50, 100)
    own = Attempted(50, 100, {task.instance_id: (50 * (at % 2), 50) for at, task in enumerate(learned)})
    assert width(few) > width(some) > width(own) > 0 and width(some, 4) < width(some)
    assert spread(some) == spread(some), "of the same data the same is said again"
    every = Attempted(5000, 5000, {task.instance_id: (200, 200) for task in learned})
    most = told_at_most(experience, Remembering(), tasks, learned)
    assert spread(every) == (most, most, most)


def test_a_key_of_a_shared_profile_that_a_plan_has_no_table_for_leads_to_the_profile_that_it_would_be_in() -> (
    None
):
    text = THREE_ARMS.partition("[profiles.demo]")[0]
    plan = written_plan("mine", text, "mine.toml", "demo", shared=SHARED)
    said = plan.said("too much. Lower it to 4", "limits", "steps")
    assert said == (
        "mine.toml: limits.steps, from the profile demo of all plans: too much. Lower it to 4; to set it, write steps = 4 under "
        '[profiles.demo.limits] (below [profiles.demo] with like = "demo", which mine.toml lacks)'
    )
    by_itself = written_plan(
        "mine", text, "mine.toml", "own.toml", profile_text='like = "demo"\n', shared=SHARED
    )
    assert by_itself.said("wrong", "temperature").endswith(
        "; to set it, write temperature at the top of own.toml"
    )


def test_a_plan_leaves_pilot_by_no_assumption_that_no_run_supports(tmp_path: Path, here: Settings) -> None:
    """Less than equal arms are taken to differ by default needs a run here that rules the default out."""
    text = (FOLDER / "exp15.toml").read_text("utf-8")
    text = text.replace('like = "demo"', 'like = "demo"\ndiscordance = 0.1', 1)
    (tmp_path / "mine.toml").write_text(text)
    line = text.splitlines().index("discordance = 0.1") + 1
    options = RunOptions(str(tmp_path / "mine.toml"), "demo")
    said = rf"mine.toml:{line}:1: discordance: takes equal arms to differ in 10 % of the cells, and 30 %.*no run here shows"
    for asked in (lambda: list(plan_lines(options, here)), lambda: run(options, here, print)):
        with pytest.raises(BadInput, match=said):
            asked()

    written_before(here, text, "other-micro-1", differing=1, of=40)
    assert any("in other-micro-1; the plan takes 10 %" in line for line in plan_lines(options, here))
    written_before(here, text, "other-micro-2", differing=14, of=60)
    with pytest.raises(
        BadInput,
        match=r"they differed in 23 % of 60 cells .* in other-micro-2. Raise it to 0.3, or leave it out",
    ):
        list(plan_lines(options, here))


@pytest.mark.parametrize("name", ["mine", "other"])
def test_what_counts_is_what_was_measured_and_not_what_files_are_called(
    tmp_path: Path, here: Settings, name: str
) -> None:
    """Equal arms that differ in half of the cells, in a run of the plan as it was before somebody took them to differ less; and base,
    which leaves no room for what is expected."""
    text = (FOLDER / "exp15.toml").read_text("utf-8")
    (tmp_path / "mine.toml").write_text(text)
    written_before(here, text, "mine-micro-1", differing=20, of=40)
    lowered = text.replace('like = "demo"', 'like = "demo"\ndiscordance = 0.3', 1)
    (tmp_path / f"{name}.toml").write_text(lowered)
    with pytest.raises(
        BadInput,
        match=r"differ in 30 % of the cells; they differed in 50 % of 40 cells \(35 to 65, 95 %\) in mine-micro-1. Raise it to 0.5",
    ):
        list(plan_lines(RunOptions(str(tmp_path / f"{name}.toml"), "demo"), here))


@pytest.mark.parametrize("drawn", ["temperature = 0.0", "sampling = { top_k = 5 }"])
def test_equal_arms_that_draw_otherwise_support_nothing(tmp_path: Path, here: Settings, drawn: str) -> None:
    """At temperature 0 equal arms never differ, which says nothing of arms that draw."""
    text = (FOLDER / "exp15.toml").read_text("utf-8")
    otherwise = text.replace('like = "demo"', f'like = "demo"\n{drawn}', 1)
    written_before(here, otherwise, "other-micro-1", differing=0, of=60)
    lowered = text.replace('like = "demo"', 'like = "demo"\ndiscordance = 0.1', 1)
    (tmp_path / "mine.toml").write_text(lowered)
    with pytest.raises(BadInput, match="no run here shows with this model, sampling, limits and these"):
        list(plan_lines(RunOptions(str(tmp_path / "mine.toml"), "demo"), here))


def test_what_base_resolves_in_one_repository_says_nothing_of_another(tmp_path: Path, here: Settings) -> None:
    """Real repositories differ in how hard they are; those that are generated at one level do not."""
    text = (FOLDER / "exp15.toml").read_text("utf-8")
    of = [
        plan_from_text("mine", text, "mine.toml", "demo", shared=SHARED).model_copy(
            update={"selection": TaskSelection(suite="swe-bench-cl", repos=repos)}
        )
        for repos in (("django/django",), ("sympy/sympy",), ("django/django",))
    ]
    written_before(here, text, "easy", differing=1, of=40, plan=of[0])
    assert not runs_alike(here.runs, of[1]) and len(runs_alike(here.runs, of[2])) == 1


@pytest.mark.parametrize(
    ("arms", "resolved", "said"),
    [
        ('arm = "full"\nagainst = "bare"', 8, "full − bare expects 60 points, and base resolved 20 % .*leaves 35 at most"),
        ('arm = "bare"\nagainst = "full"', 32, "bare − full expects 60 points, and base resolved 80 % .*leaves 35 at most"),
    ],
)  # fmt: skip
def test_no_more_is_expected_than_base_was_seen_to_leave(
    tmp_path: Path, here: Settings, arms: str, resolved: int, said: str
) -> None:
    text = (FOLDER / "exp15.toml").read_text("utf-8")
    text = text.replace('arm = "full"\nagainst = "bare"', f'{arms}\nexpected = "60 points"', 1)
    (tmp_path / "mine.toml").write_text(text)
    options = RunOptions(str(tmp_path / "mine.toml"), "demo")
    assert list(plan_lines(options, here)), "where nothing is known"
    written_before(here, text, "earlier-micro-1", differing=1, of=40, resolved=resolved)
    with pytest.raises(BadInput, match=rf"contrasts.0.expected: {said}"):
        list(plan_lines(options, here))


def written_before(
    here: Settings,
    text: str,
    name: str,
    *,
    differing: int,
    of: int,
    resolved: int = 20,
    plan: Plan | None = None,
) -> None:
    """A finished run of base and its repeat, of which only the verdicts are there."""
    plan = plan or plan_from_text("mine", text, "mine.toml", "demo", shared=SHARED)
    base, again = plan.arms[:2]
    asked = plan.model_copy(update={"arms": (base, again), "contrasts": ()})
    tasks = tuple(f"r{number}-0" for number in range(of))
    manifest = RunManifest(
        plan=asked, code_version="x", tasks=tasks, tasks_hash="x", environments=("e",), sandbox="none",
        models={arm.name: IDENTITY for arm in asked.arms},
    )  # fmt: skip
    verdicts = [
        verdict(f"{arm.name}/0/{task}", task, "p", at < resolved or (arm is again and at < resolved + differing))
        for arm in asked.arms
        for at, task in enumerate(tasks)
    ]  # fmt: skip
    (here.runs / name).mkdir(parents=True)
    for stream, records in (("manifest", [manifest]), ("verdicts", verdicts)):
        kept: Stream[Record] = Stream(here.runs / name, stream, type(records[0]))
        for record in records:
            kept.append(record)
        kept.close()


def test_p4_the_first_screen_has_the_smallest_effect_of_interest_and_the_power_for_it(here: Settings) -> None:
    lines = list(plan_lines(RunOptions("exp12", "demo"), here))
    assert (
        lines[2]
        == "smallest effect of interest: 5 points of tasks resolved (primary: trajectories − base, not less)"
    )
    assert lines[3].startswith("power, a PILOT") and "if equal arms differ in 30 % of cells" in lines[3]


def test_p7_nothing_is_set_aside_where_no_arm_learns(here: Settings) -> None:
    ablation = prepare(plan_of("exp15", "demo"), here)
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
    found = replace(
        here,
        rows={**here.rows, "swe-bench": written(tmp_path / "rows.jsonl", rows)},
        mirrors=tmp_path / "mirrors",
    )
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
