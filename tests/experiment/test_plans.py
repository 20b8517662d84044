"""Experiment files: what they say, and what is wrong with them."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.swe_bench_rows import relation, row, written

from looper import nano
from looper.cli.training import train_options
from looper.edges.datasets.swe_bench import load_swe_bench
from looper.errors import BadInput
from looper.experiment.claims import PlanSettings
from looper.experiment.coherence import NANO_WIDTH, NANO_WIDTHS
from looper.experiment.new_plan import new_plan
from looper.experiment.plan_keys import plan_tables
from looper.experiment.plans import parse_model, plan_from_text
from looper.experiment.schedule import by_age, changed_since, lanes, select_tasks, split_tasks
from looper.experiment.toml_positions import places
from looper.metrics.design import is_pilot
from looper.records.base import content_hash
from looper.records.learning import Experience, Source, Split, TrainingChange, Treatment
from looper.records.memory import RetrievalSettings
from looper.records.model import SERVERS
from looper.records.plan import ArmRole, Plan, TaskSelection
from looper.records.task import Task
from looper.records.training import AdapterKind, TrainingSettings
from looper.views.findings import unasked_lines

FILE = Path(__file__).parents[2] / "experiments" / "exp00.toml"


def text() -> str:
    return FILE.read_text("utf-8")


def load(changed: str | None = None, profile: str = "micro", **options: object) -> Plan:
    return plan_from_text("exp00", changed or text(), "exp00.toml", profile, **options)  # type: ignore[arg-type]


def test_exp00_has_its_controls_in_every_profile() -> None:
    for profile in ("micro", "demo", "swe"):
        plan = load(profile=profile)
        assert [arm.name for arm in plan.arms][:4] == ["gold", "noop", "base", "base_again"]
        assert [arm.role for arm in plan.arms][2:4] == [ArmRole.BASE, ArmRole.AGAIN]
        base, again = plan.arms[2:4]
        assert base.config_hash() != again.config_hash() and base.model == again.model


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'title = "Controls"',
            'title = "Controls',
            r"exp00.toml:3:18: this is not valid TOML: a text in quotes does not end on its line\.",
        ),
        (
            'factor = "what the arm has learned; for gold and noop the agent itself"',
            'factor = 3\ncolour = "red"',
            r"exp00.toml:9:1: factor: must be text, found 3; exp00.toml:10:1: colour: unknown key. Allowed here: title, .*asserts",
        ),
        (
            "steps = 8",
            "steps = 0",
            r"exp00.toml:\d+:1: profiles.micro.limits.steps: must be greater than 0, found 0",
        ),
        (
            "steps = 8",
            "stepz = 6",
            r"exp00.toml:\d+:1: profiles.micro.limits.stepz: unknown key; did you mean steps\? Allowed here: steps, ",
        ),
        (
            "steps = 8",
            "steps = 8\nwall_s = inf",
            r"exp00.toml:\d+: inf is no number that a setting can have. Write a finite one",
        ),
        (
            'role = "base"',
            'role = "hero"',
            r"exp00.toml:\d+:1: arms.2.role: must be one of base, again, control, .* found \"hero\"",
        ),
        ("repetition = 1", "", "needs a repetition of its own"),
        ("repetition = 1", "repetition = 1\ntemperature = 0.9", "must equal base in everything"),
        ('scaffold = "terse"', 'scaffold = "fancy"', 'no scaffold "fancy". Use one of: full, terse'),
        ('model = "nano"', 'model = "gpt"', "names no model"),
        ('role = "base"', 'role = "base"\nmodel = ""', r'exp00.toml:\d+:1: arms.2.model: "" names no model'),
        ('model = "nano"', 'model = "nano"\noverseer = ""', 'profiles.micro.overseer: "" names no model'),
        ('title = "Controls"', 'title = " "', r'exp00.toml:\d+:1: title: must not be empty, found " "'),
        (
            'factor = "what the arm has learned; for gold and noop the agent itself"',
            'factor = "\\t"',
            r"exp00.toml:\d+:1: factor: must not be empty, found ",
        ),
        ("level = 0", "level = 9", "profiles.micro.tasks.level"),
        (
            "[profiles.micro.limits]",
            "[profiles.micro.limit]",
            r"exp00.toml:\d+:17: profiles.micro.limit: unknown key; did you mean limits",
        ),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_field(old: str, new: str, said: str) -> None:
    assert old in text()
    with pytest.raises(BadInput, match=said) as error:
        load(text().replace(old, new, 1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 8", "steps = true", "limits.steps: must be a whole number, found true"),
        ("command_s = 10.0", "command_s = true", "limits.command_s: must be a number, found true"),
        ("seeds = [0]", "seeds = [true]", r"seeds.0: must be a whole number, found true"),
        ("temperature = 0.7", 'temperature = "0.7"', 'temperature: must be a number, found "0.7"'),
        ('role = "base"', 'role = "base"\nadapted = 1', "adapted: must be true or false, found 1"),
        ('role = "base"', 'role = "base"\nmodel = ["nano"]', r'model: must be text, found \["nano"\]'),
        ('scaffold = "terse"', 'scaffold = { guards = { refuse_empty_done = 0 } }', "must be true or false, found 0"),
        ('scaffold = "terse"', 'scaffold = { guards = { refuse_empty_done = "off" } }', 'must be true or false, found "off"'),
        ('title = "Controls"', "title = 2020-01-01", r"exp00.toml:\d+:1: title: 2020-01-01 is a date or a time"),
        ("command_s = 10.0", "command_s = 1e26", r"limits.command_s: 1e\+26 is larger than any setting can be"),
        ("steps = 8", "steps = 9223372036854775807", "limits.steps: 9.22e\\+18 is larger than any setting can be"),
        ("seeds = [0]", f"seeds = {'[' * 3000}{']' * 3000}", "lie within each other too deeply"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_and_shown_as_it_is_written(old: str, new: str, said: str) -> None:
    """TOML has true, dates and numbers of any size; a plan takes no one for the other."""
    assert old in text()
    with pytest.raises(BadInput, match=said):
        load(text().replace(old, new, 1))


def test_the_line_of_a_wrong_value_is_its_own() -> None:
    line = text().splitlines().index("verify_s = 900.0") + 1
    with pytest.raises(BadInput, match=rf"exp00.toml:{line}:1: profiles.swe.limits.verify_s"):
        load(text().replace("verify_s = 900.0", "verify_s = -1.0"), profile="swe")


def test_an_unknown_profile_names_those_that_exist() -> None:
    with pytest.raises(BadInput, match=r'no profile "macro". Did you mean micro\? It has: micro, demo, swe'):
        load(profile="macro")


def test_g48_every_limit_that_is_written_reaches_the_plan() -> None:
    plan = load()
    for name, value in plan.limits.model_dump().items():
        shown = f"{name} = {value}"
        if shown not in text():
            continue  # This profile leaves it at its default.
        other = load(text().replace(shown, f"{name} = {value + 1}", 1))
        assert getattr(other.limits, name) == value + 1, name


def test_models_are_named_in_one_way() -> None:
    assert parse_model("ollama:qwen2.5-coder:7b").name == "qwen2.5-coder:7b"
    found = parse_model("openai:my/model@http://127.0.0.1:8000/v1")
    assert (found.name, found.base_url) == ("my/model", "http://127.0.0.1:8000/v1")
    assert parse_model("nano:4bit").name == "4bit"
    for wrong in ("nano:x", "mlx", "ollama:", "what:x", "gold:x", "mlx:m@http://127.0.0.1:1"):
        with pytest.raises(BadInput):
            parse_model(wrong)


@pytest.mark.parametrize("backend", SERVERS)
def test_every_backend_with_a_server_is_given_its_address_behind_the_models_name(backend: str) -> None:
    found = parse_model(f"{backend}:m@http://127.0.0.1:8000/v1")
    assert (found.backend, found.name, found.base_url) == (backend, "m", "http://127.0.0.1:8000/v1")


def test_a_scaffold_can_be_a_factor() -> None:
    plan = load(
        text().replace(
            'scaffold = "terse"', 'scaffold = { base = "terse", guards = { refuse_empty_done = false } }'
        )
    )
    scaffold = plan.arms[2].scaffold
    assert not scaffold.guards.refuse_empty_done and scaffold.terse and scaffold.guards.check_python


def test_the_model_and_the_limit_of_the_command_line_become_part_of_the_plan() -> None:
    plan = load(model="ollama:llama3", limit=3)
    assert plan.arms[2].model.name == "llama3" and plan.arms[0].model.backend == "gold"
    assert plan.selection.limit == 3


def test_tasks_are_selected_in_order_and_unknown_names_are_refused(
    micro: tuple[tuple[Task, ...], object],
) -> None:
    tasks = micro[0]
    chosen = select_tasks(tasks, TaskSelection(suite="micro", per_repo=2, limit=5))
    assert [task.sequence_position for task in chosen] == [1, 2, 1, 2, 1]
    assert select_tasks(tasks, TaskSelection(suite="micro", tasks=(tasks[7].instance_id,))) == (tasks[7],)
    with pytest.raises(BadInput, match="no-such-repo"):
        select_tasks(tasks, TaskSelection(suite="micro", repos=("no-such-repo",)))


def test_g33_arms_alternate_and_every_cell_comes_once(micro: tuple[tuple[Task, ...], object]) -> None:
    plan, tasks = load(profile="swe"), micro[0][:8]
    cells = [cell for lane in lanes(plan, tasks) for cell in lane]
    arms = [arm.name for arm in plan.arms]
    assert len(cells) == len(set(cells)) == 8 * len(arms)
    turns = [cells[at].arm for at in range(0, len(cells), 4)]
    assert turns == [*arms, *arms[1:], arms[0]]
    assert all(len({cell.arm for cell in cells[at : at + 4]}) == 1 for at in range(0, len(cells), 4))
    sequence = plan.model_copy(update={"order": "sequence"})
    assert [len(lane) for lane in lanes(sequence, tasks)] == [8] * len(arms)
    with pytest.raises(BadInput, match='no arm "gould"'):
        lanes(plan, tasks, ["gould"])


def test_a_profile_may_run_some_of_the_arms_and_must_name_them_right() -> None:
    changed = text().replace('arms = ["gold", "noop", "base", "base_again", "positive"', 'arms = ["bass"')
    with pytest.raises(
        BadInput,
        match=r"exp00.toml:\d+:9: profiles.swe.arms.0: there is no arm bass; did you mean base.* There are: gold, noop",
    ):
        load(changed, profile="swe")


def test_g40_tasks_to_learn_from_come_first_and_none_is_evaluated(
    micro: tuple[tuple[Task, ...], object],
) -> None:
    plan = load()
    evaluated, early = split_tasks(micro[0], plan.selection, plan.experience)
    assert plan.experience is not None
    assert len(early) == 8 * plan.experience.per_repo and not set(early) & set(evaluated)
    assert max(task.sequence_position for task in early) < min(task.sequence_position for task in evaluated)
    assert {task.repo for task in early} == {task.repo for task in evaluated}


def test_an_arm_can_be_run_with_the_first_seeds_only() -> None:
    plan = plan_from_text("exp00", text(), "exp00.toml", "micro")
    arms = {arm.name: arm for arm in plan.arms}
    assert plan.seeds == (0, 1)
    assert plan.seeds_of(arms["gold"]) == (0,) and plan.seeds_of(arms["lora"]) == (0, 1)
    moved = plan_from_text("exp00", text(), "exp00.toml", "micro", master_seed=1)
    assert moved.seeds_of(arms["gold"]) == (1000,)


def test_a_contrast_names_arms_that_exist_and_goes_with_them() -> None:
    demo = plan_from_text("exp00", text(), "exp00.toml", "demo")
    assert [found.name for found in demo.contrasts] == [
        "lora − base", "memory − base", "lora − lora_redrawn", "base_again − base", "lora_redrawn − base",
    ]  # fmt: skip
    with pytest.raises(
        BadInput, match=r"exp00.toml:\d+:1: contrasts.0.arm: there is no arm lorra; did you mean lora"
    ):
        plan_from_text("exp00", text().replace('arm = "lora"', 'arm = "lorra"', 1), "exp00.toml", "micro")


EXPERIMENTS = sorted(FILE.parent.glob("exp*.toml"))
SHARED = {path.stem: path.read_text("utf-8") for path in (FILE.parent / "profiles").glob("*.toml")}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_embedded_plan_about_learning_spends_its_cells_on_many_small_repositories(path: Path) -> None:
    """What is learned is learned per repository: many of them say something of others, many tasks of few do not."""
    plan = plan_from_text(path.stem, path.read_text("utf-8"), path.name, "micro", shared=SHARED)
    if any(arm.learning for arm in plan.arms):
        tasks = plan.selection
        assert tasks.repositories >= 20 and tasks.per_repo is not None and tasks.per_repo <= 6
        assert not (tasks.limit or tasks.repos or tasks.tasks) and len(plan.seeds) >= 2


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_registered_experiment_is_a_plan_under_its_profiles(path: Path) -> None:
    """Each has its base, a repeat of it, a primary contrast, and what will be said of every outcome."""
    profiles = ["micro", "demo"] if path.stem == "exp10" else ["micro", "demo", "swe"]
    for profile in profiles:
        plan = plan_from_text(path.stem, path.read_text("utf-8"), path.name, profile, shared=SHARED)
        roles = [arm.role for arm in plan.arms]
        assert roles.count(ArmRole.BASE) == 1 and ArmRole.AGAIN in roles
        assert plan.contrasts or (path.stem, profile) == ("exp00", "swe")
        for found in plan.contrasts:
            assert len({found.shown, found.refuted, found.open}) == 3
    trained = [arm for arm in plan.arms if arm.learning and arm.learning.treatment is Treatment.ADAPTER]
    if trained and path.stem not in ("exp00", "exp21"):
        names = {arm.name for arm in plan.arms}
        assert "zero_adapter" in names and {"random_adapter", "random_1"} & names


def test_all_twenty_two_are_there() -> None:
    assert [path.stem for path in EXPERIMENTS] == [f"exp{number:02d}" for number in range(22)]


def small(profile: str, **more: str) -> str:
    arms = more.get("arms", '[[arms]]\nname = "base"\nrole = "base"\n')
    return f'title = "t"\nhypothesis = "h"\nfactor = "f"\n{arms}[profiles.mine]\n{profile}\n'


DIFFER = 'shown = "These arms do differ."\nrefuted = "They differ otherwise."\nopen = "Whether they differ is open."\n'


def test_a_profile_builds_on_a_shared_one_and_differs_where_it_says() -> None:
    def load_small(profile: str) -> Plan:
        return plan_from_text("t", small(profile), "t.toml", "mine", shared=SHARED)

    plan = load_small('like = "demo"\nlimits = { steps = 5 }')
    assert plan.limits.steps == 5 and plan.limits.output_tokens == 80 and plan.model_dump()["seeds"] == (0,)
    with pytest.raises(
        BadInput,
        match=r"profiles.mine.like: there is no shared profile 'macro'; did you mean micro. There are: .*micro",
    ):
        load_small('like = "macro"')
    with pytest.raises(BadInput, match=r"t.toml:\d+:1: profiles.mine.limits.stepz: unknown key"):
        load_small('like = "micro"\n[profiles.mine.limits]\nstepz = 5')


def test_a_profile_in_a_file_of_its_own_builds_on_a_shared_one_too() -> None:
    def load_file(profile: str) -> Plan:
        return plan_from_text("exp00", text(), "exp00.toml", "one.toml", profile_text=profile, shared=SHARED)

    plan = load_file('like = "controls"\n[tasks]\nrepos = ["django/django"]')
    assert plan.selection.repos == ("django/django",) and [arm.name for arm in plan.arms] == ["gold", "noop"]
    with pytest.raises(BadInput, match=r"one.toml:1:1: like: there is no shared profile 'macro'"):
        load_file('like = "macro"')


def test_the_controls_of_the_real_benchmark_ask_no_model_and_leave_out_no_repository() -> None:
    plan = plan_from_text("exp00", text(), "exp00.toml", "controls", shared=SHARED)
    assert {arm.model.backend for arm in plan.arms} == {"gold", "noop"} and not plan.selection.repos


def test_a_shared_profile_needs_no_mention() -> None:
    text = 'title = "t"\nhypothesis = "h"\nfactor = "f"\n[[arms]]\nname = "base"\nrole = "base"\n'
    assert plan_from_text("t", text, "t.toml", "micro", shared=SHARED).limits.steps == 8
    with pytest.raises(BadInput, match='no profile "maxi". It has: .*micro'):
        plan_from_text("t", text, "t.toml", "maxi", shared=SHARED)


def test_a_guard_can_be_switched_off_and_the_rest_of_the_scaffold_is_the_profile_s() -> None:
    arms = (
        '[[arms]]\nname = "base"\nrole = "base"\n[[arms]]\nname = "bare"\nrole = "control"\n'
        'scaffold = { guards = { repeat_stop = "off" } }\n'
    )
    base, bare = plan_from_text("t", small('like = "micro"', arms=arms), "t.toml", "mine", shared=SHARED).arms
    assert base.scaffold.guards.repeat_stop == 5 and bare.scaffold.guards.repeat_stop is None
    assert bare.scaffold.terse and bare.scaffold.guards.repeat_nudge == base.scaffold.guards.repeat_nudge


def test_a_profile_s_missing_keys_are_told_at_once_behind_the_one_that_is_misspelled() -> None:
    with pytest.raises(BadInput) as refused:
        plan_from_text(
            "t", small('like = "micro"'), "t.toml", "p.toml", profile_text='modell = "nano"\n', shared=SHARED
        )
    first, second, *more = str(refused.value).split("; p.toml")
    assert first.startswith("p.toml:1:1: modell: unknown key; did you mean model")
    assert (
        second.endswith(": model, scaffold, temperature, seeds, order, tasks, limits: are missing")
        and not more
    )


@pytest.mark.parametrize(
    "arm",
    [
        'role = "treatment"',
        'role = "again"\nrepetition = 1',
        'role = "control"\nlearning = { treatment = "memory" }',
        'role = "treatment"\nmodel = "nano:4bit"',
    ],
)
def test_a_plan_without_a_base_says_so_whatever_needs_it(arm: str) -> None:
    arms = f'[[arms]]\nname = "other"\n{arm}\n'
    said = r't.toml:6:1: arms.0.role: no arm has the role base, which other is compared with; write role = "base" in one'
    with pytest.raises(BadInput, match=said):
        plan_from_text("t", small('like = "micro"', arms=arms), "t.toml", "mine", shared=SHARED)


def test_g32_a_treatment_that_does_not_learn_differs_in_one_thing() -> None:
    def load_small(changes: str) -> Plan:
        arms = f'[[arms]]\nname = "base"\nrole = "base"\n[[arms]]\nname = "other"\nrole = "treatment"\n{changes}\n'
        return plan_from_text("t", small('like = "micro"', arms=arms), "t.toml", "mine", shared=SHARED)

    assert load_small('model = "nano:4bit"').arms[1].model.name == "4bit"
    for changes, found in (
        ("", "none"),
        ('model = "nano:4bit"\ntemperature = 0.1', "model, temperature"),
        ('model = "nano:4bit"\nscaffold = "full"', "model, scaffold"),
    ):
        with pytest.raises(BadInput, match=f"other must differ from base in one thing, found {found}"):
            load_small(changes)


def test_two_arms_of_one_name_are_refused() -> None:
    arms = '[[arms]]\nname = "base"\nrole = "base"\n' + '[[arms]]\nname = "base"\nrole = "control"\n'
    with pytest.raises(
        BadInput,
        match=(
            r"^t.toml:\d+:1: arms.1.name: names of arms must differ, and arm 2 of the file is called base as arm 1 is \(t.toml:\d+:1\). "
            r'Rename one, as in name = "base_2"'
        ),
    ):
        plan_from_text("t", small('like = "micro"', arms=arms), "t.toml", "mine", shared=SHARED)


def test_a_choice_takes_from_arms_that_exist_and_can_be_compared() -> None:
    choice = '[[choices]]\nname = "both"\nof = ["base", "other"]\nby = "majority"\n'
    contrast = f'[[contrasts]]\narm = "both"\nagainst = "base"\n{DIFFER}'
    other = '[[arms]]\nname = "other"\nrole = "again"\nrepetition = 1\n'
    arms = f'[[arms]]\nname = "base"\nrole = "base"\n{other}{choice}{contrast}'

    def load_small(arms: str, profile: str = 'like = "micro"') -> Plan:
        return plan_from_text("t", small(profile, arms=arms), "t.toml", "mine", shared=SHARED)

    plan = load_small(arms)
    assert plan.choices[0].of == ("base", "other") and plan.contrasts[0].arm == "both"
    left = load_small(arms, 'like = "micro"\narms = ["base"]')
    assert not left.choices and not left.contrasts
    with pytest.raises(BadInput, match=r"choices.0.of.1: there is no arm nobody"):
        load_small(arms.replace('"base", "other"', '"base", "nobody"'))
    with pytest.raises(BadInput, match="both is a choice, which has no steps"):
        load_small(arms.replace('against = "base"', 'against = "base"\nmetric = "valid_actions"'))
    with pytest.raises(BadInput, match="the name other is an arm's"):
        load_small(arms.replace('"both"', '"other"'))


@pytest.mark.parametrize(
    ("arm", "against", "expect"),
    [
        ("best", "base", "more"),
        ("base", "best", "not_more"),
        ("best", "other", "same"),
        ("best", "voted", "not_less"),
    ],
)
def test_a_contrast_of_an_attempt_with_the_best_of_several_is_refused_since_it_has_its_answer(
    arm: str, against: str, expect: str
) -> None:
    def plan_with(expect: str) -> Plan:
        other = '[[arms]]\nname = "other"\nrole = "again"\nrepetition = 1\n'
        of = 'of = ["base", "other"]\nreason = "both attempts"\n'
        choices = (
            f'[[choices]]\nname = "best"\nby = "any"\n{of}[[choices]]\nname = "voted"\nby = "majority"\n{of}'
        )
        margin = "" if expect == "more" else 'margin = "10 points"\n'
        contrast = f'[[contrasts]]\narm = "{arm}"\nagainst = "{against}"\nexpect = "{expect}"\n{margin}'
        said = (
            DIFFER
            if expect == "more"
            else DIFFER.replace("arms do", "arms differ by less than {margin}, so they do")
        )
        text = f'[[arms]]\nname = "base"\nrole = "base"\n{other}{choices}{contrast}{said}'
        return plan_from_text("t", small('like = "micro"', arms=text), "t.toml", "mine", shared=SHARED)

    with pytest.raises(
        BadInput, match=r"has its answer before the data: best takes whichever of base, other is resolved"
    ):
        plan_with(expect)
    asked = "not_more" if arm == "best" else "not_less"
    assert plan_with(asked).contrasts[0].expect.value == asked, "by how much more at most"


@pytest.mark.parametrize("split", [split for split in Split if split is not Split.COUPLED])
def test_every_split_keeps_tasks_to_learn_from_apart(
    split: Split, micro: tuple[tuple[Task, ...], object]
) -> None:
    plan = load()
    assert plan.experience is not None
    experience = plan.experience.model_copy(update={"split": split, "per_repo": 10})
    evaluated, learning = split_tasks(micro[0], plan.selection, experience)
    assert not {task.instance_id for task in learning} & {task.instance_id for task in evaluated}
    repo = [task.sequence_position for task in learning if task.repo == learning[0].repo]
    expected = {
        Split.FIRST: list(range(1, 11)),
        Split.LAST: list(range(31, 41)),
        Split.ODD: list(range(1, 20, 2)),
    }
    if split is Split.DRAWN:
        assert len(repo) == 10 and repo == sorted(repo) and repo not in expected.values()
        other = experience.model_copy(update={"split_seed": 1})
        assert split_tasks(micro[0], plan.selection, other)[1] != learning
    else:
        assert repo == expected[split]


def test_a_named_split_is_the_plan_s_and_stands_in_its_profile_s_name() -> None:
    plans = {letter: load(split=letter) for letter in "ABCDE"}
    how = {
        letter: (plan.experience.split, plan.experience.split_seed)
        for letter, plan in plans.items()
        if plan.experience is not None
    }
    assert how == {
        "A": (Split.FIRST, 0),
        "B": (Split.LAST, 0),
        "C": (Split.ODD, 0),
        "D": (Split.DRAWN, 42),
        "E": (Split.DRAWN, 123),
    }
    assert [plan.profile for plan in plans.values()] == [f"micro-{letter}" for letter in "ABCDE"]


def test_a_split_that_is_not_there_or_divides_nothing_is_one_line() -> None:
    with pytest.raises(BadInput, match='no split "F". There are: A, B, C, D, E'):
        load(split="F")
    path = FILE.with_name("exp15.toml")
    shared = {found.stem: found.read_text("utf-8") for found in FILE.parent.glob("profiles/*.toml")}
    with pytest.raises(BadInput, match="Nothing is learned in exp15 micro"):
        plan_from_text("exp15", path.read_text("utf-8"), "exp15.toml", "micro", shared=shared, split="A")


def test_ages_are_as_large_as_each_other_and_the_oldest_is_the_most_out_of_date(task: Task) -> None:
    tasks = [
        task.model_copy(
            update={
                "repo": repo,
                "instance_id": f"{repo}-{number}",
                "created_at": f"20{30 - number}-01-01",
                "modified_files": ("a.py", "b.py"),
            }
        )
        for repo in ("p", "q")
        for number in range(1, 11)
    ]
    ages = by_age(tasks)
    assert [len(found) for found in ages.values()] == [4, 4, 4, 4]
    assert [found.instance_id for found in ages[Source.STALE_MAJOR] if found.repo == "p"] == ["p-9", "p-10"]
    newest = max(found.created_at for found in ages[Source.STALE_MINOR])
    assert newest < min(found.created_at for found in ages[Source.OWN])

    def base_file(found: Task, path: str) -> bytes:
        """a.py changes every year; b.py changed once, ten years before the last task."""
        return (found.created_at if path == "a.py" else str(found.created_at > "2021-06-01")).encode()

    now = [
        task.model_copy(update={"repo": "p", "created_at": "2031-01-01", "modified_files": ("a.py", "b.py")})
    ]
    assert changed_since(ages[Source.OWN], now, base_file) == 0.5
    assert changed_since(ages[Source.STALE_MAJOR], now, base_file) == 1.0
    assert changed_since([], now, base_file) is None


def test_the_profile_names_the_overseer_and_an_arm_may_be_its_model_alone() -> None:
    def load_small(profile: str) -> Plan:
        learned = (
            '[[arms]]\nname = "overseen"\nrole = "treatment"\nlearning = { treatment = "oversight" }\n'
            '[[arms]]\nname = "trained"\nrole = "treatment"\n'
            'learning = { treatment = "adapter", source = "guided", overseen = true }\n'
            '[[arms]]\nname = "alone"\nrole = "control"\nmodel = "overseer"\n'
        )
        arms = f'[[arms]]\nname = "base"\nrole = "base"\n{learned}'
        return plan_from_text("t", small(profile, arms=arms), "t.toml", "mine", shared=SHARED)

    plan = load_small('like = "micro"\nmodel = "nano:small"\noverseer = "nano"')
    _, overseen, trained, alone = plan.arms
    assert overseen.learning is not None and overseen.learning.overseer == alone.model
    assert alone.model.name == "" and overseen.model.name == "small"
    assert trained.learning is not None and trained.learning.overseer is None
    assert set(plan.model_specs) == {alone.model, overseen.model}
    with pytest.raises(BadInput, match="alone: its model is the overseer, so the profile needs one"):
        load_small('like = "micro"')
    with pytest.raises(BadInput, match="guided experience needs an arm with oversight"):
        load_small('like = "micro"\noverseer = "nano"\narms = ["base", "trained"]')


def test_a_dose_names_each_of_its_arms_once() -> None:
    others = "".join(
        f'[[arms]]\nname = "a{number}"\nrole = "treatment"\nlearning = {{ treatment = "memory", memory = {{ items = {number} }} }}\n'
        for number in (1, 2)
    )
    dose = f'[[contrasts]]\narm = "a2"\nagainst = "base"\nthrough = ["a1"]\n{DIFFER}'
    arms = f'[[arms]]\nname = "base"\nrole = "base"\n{others}{dose}'

    def load_small(arms: str, profile: str = 'like = "micro"') -> Plan:
        return plan_from_text("t", small(profile, arms=arms), "t.toml", "mine", shared=SHARED)

    (contrast,) = load_small(arms).contrasts
    assert contrast.arms == ("base", "a1", "a2") and contrast.name == "a2 − base, as a line through 3 arms"
    assert not load_small(arms, 'like = "micro"\narms = ["base", "a2"]').contrasts
    with pytest.raises(BadInput, match="names an arm twice"):
        load_small(arms.replace('through = ["a1"]', 'through = ["a2"]'))
    with pytest.raises(BadInput, match="there is no arm a3"):
        load_small(arms.replace('through = ["a1"]', 'through = ["a3"]'))


def test_a_share_of_the_plan_s_iterations_is_at_least_one() -> None:
    settings = TrainingSettings(learning_rate=1e-4, iterations=30, batch_size=8, max_tokens=64)
    assert TrainingChange(share=0.2).of(settings).iterations == 6
    assert TrainingChange(share=0.001).of(settings).iterations == 1
    assert TrainingChange(iterations=10, share=0.5).of(settings).iterations == 5


def test_a_coupled_split_learns_from_what_others_depend_on_and_evaluates_those(tmp_path: Path) -> None:
    rows = [row(number) for number in range(1, 7)]
    links = [relation(rows[1], rows[4]), relation(rows[2], rows[4]), relation(rows[5], rows[3])]
    tasks = load_swe_bench(written(tmp_path / "rows.jsonl", [*rows, *links]))
    experience = Experience(per_repo=9, split=Split.COUPLED, samples=1, temperature=0.0)
    selection = TaskSelection(suite="swe-bench")
    evaluated, learning = split_tasks(tasks, selection, experience)
    assert [task.instance_id[-1] for task in learning] == ["4", "5"]
    assert [task.instance_id[-1] for task in evaluated] == ["2", "3", "6"]
    places = {task.instance_id: task.sequence_position for task in tasks}
    for task in evaluated:
        assert all(places[name] < task.sequence_position for name in task.dependencies)
    evaluated, learning = split_tasks(tasks, selection, experience.model_copy(update={"per_repo": 1}))
    assert [task.instance_id[-1] for task in (*learning, *evaluated)] == ["4", "6"]


def registered(name: str, old: str = "", new: str = "", profile: str = "micro") -> Plan:
    """An experiment as it is registered, or with something planted."""
    text = FILE.with_name(f"{name}.toml").read_text("utf-8")
    assert old in text
    return plan_from_text(name, text.replace(old, new, 1), f"{name}.toml", profile, shared=SHARED)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("exp04", 'pull = "equal"', 'pul = "equal"', r"exp04.toml:\d+:\d\d: arms.6.learning.strategy.anchor.pul: unknown key"),
        ("exp04", 'name = "anchored"', 'name = "anchord"', r"arms.2.learning.strategy.name: .*found \"anchord\"; did you mean anchored"),
        ("exp01", "shuffled = true", "shuffeld = true", r"arms.7.learning.shuffeld: unknown key; did you mean shuffled"),
        ("exp02", 'priority = "random"', 'priority = "randm"', r"priority: must be one of recency, .* did you mean random"),
        ("exp15", 'repeat_nudge = "off"', 'repeat_nudgee = "off"', r"arms.2.scaffold.guards.repeat_nudgee: unknown key"),
        ("exp08", 'writer = "self"', 'writer = "self", source = "gold"', r"arms.2.learning.rounds: are for an arm's own"),
        ("exp01", 'like = "micro"', 'like = "micr"', r"profiles.micro.like: .*'micr'; did you mean micro"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_at_the_very_key_with_near_names_and_the_keys_there_are(
    name: str, old: str, new: str, said: str
) -> None:
    """Also in the seventh of many tables of one name, within a line, and in no library's words."""
    with pytest.raises(BadInput, match=said) as error:
        registered(name, old, new)
    text = FILE.with_name(f"{name}.toml").read_text("utf-8").replace(old, new, 1)
    wrong = next(number for number, line in enumerate(text.splitlines(), 1) if new in line)
    assert str(error.value).startswith(f"{name}.toml:{wrong}:")
    assert not re.search(r"Input should|Extra inputs|Value error|type=|validation error", str(error.value))


def test_a_mistake_in_a_shared_profile_is_named_in_its_own_file() -> None:
    wrong = SHARED | {"micro": SHARED["micro"].replace("steps = 8", 'steps = "many"')}
    line = SHARED["micro"].splitlines().index("steps = 8") + 1
    text = FILE.with_name("exp01.toml").read_text("utf-8")
    with pytest.raises(
        BadInput,
        match=rf"^profiles/micro.toml:{line}:1: limits.steps: must be a whole number, found \"many\"$",
    ):
        plan_from_text("exp01", text, "exp01.toml", "micro", shared=wrong)


def test_every_key_of_every_plan_has_its_place() -> None:
    def paths(found: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
        inner = (
            found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        )
        for key, value in inner:
            yield (*path, key)
            yield from paths(value, (*path, key))

    for path in [*EXPERIMENTS, *FILE.parent.glob("profiles/*.toml")]:
        text = path.read_text("utf-8")
        assert places(text).keys() == set(paths(tomllib.loads(text))), path


def test_p2_numbers_in_sentences_are_those_of_the_settings_in_every_profile() -> None:
    for profile in ("micro", "demo", "swe"):
        sweep = registered("exp19", profile=profile)
        trained, large = (
            next(arm for arm in sweep.arms if arm.name == name) for name in ("trained", "multiplier_x16")
        )
        assert sweep.experience is not None and sweep.experience.training is not None
        assert (
            large.learning is not None
            and large.learning.training is not None
            and trained.learning is not None
        )
        ratio = (
            large.learning.training.of(sweep.experience.training).multiplier
            / sweep.experience.training.multiplier
        )
        assert ratio == 16 and sweep.contrasts[0].shown == "16 times the multiplier costs valid actions."
        settings = PlanSettings(registered("exp03", profile=profile))
        assert settings.value("mixture.parameters") == settings.value("single.parameters") == 12
        assert settings.value("mixture_by_tool.parameters") == 12


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (
            "exp19",
            "{multiplier_x16.multiplier / trained.multiplier} times the multiplier costs",
            "Sixty times the multiplier costs",
            r'contrasts.0.shown: says "Sixty" of its own, .*multiplier 160 against 10',
        ),
        ("exp03", "rank = 12", "rank = 8", r"asserts.0: mixture.parameters == single.parameters is not so: 12 against 8"),
        ("exp03", "expert_rank = 4, division", "expert_rank = 5, division", r"asserts.1: mixture_by_tool.* 15 against 12"),
        ("exp13", "{unique_2.iterations}", "30", r'hypothesis: says "30" of its own'),
        ("exp13", "{unique_2.iterations}", "{unique_2.iteration}", r"hypothesis: .*no iteration; did you mean iterations"),
        ("exp19", "random_4.times ==", "random_4.tim ==", r"asserts.0: random_4 has no tim"),
        ("exp19", "random_4.times ==", "random_4.times / 0 ==", r"asserts.0: random_4.times / 0 == .* divides by 0"),
        ("exp19", "random_4.times ==", f"{'-' * 20_000}random_4.times ==", r"asserts.0: -{120}… is too long or too large"),
        ("exp19", "random_4.times ==", f"random_4.times{' + 1' * 6000} ==", r"asserts.0: random_4.times .*… is too long or too"),
        ("exp19", "random_4.times ==", f"1{'0' * 400} ==", r"asserts.0: 1000*… is too long or too large"),
    ],
)  # fmt: skip
def test_p2_a_planted_false_sentence_is_refused_with_file_line_and_number(
    name: str, old: str, new: str, said: str
) -> None:
    with pytest.raises(BadInput, match=rf"^{name}.toml:\d+:\d+: {said}"):
        registered(name, old, new)


def test_p3_every_arm_is_in_a_contrast_or_says_why_it_is_there() -> None:
    reason = (
        'reason = "form without sense: printed beside lora, whose difference from it is exploratory here"\n'
    )
    with pytest.raises(
        BadInput, match=r"exp04.toml:\d+:1: arms.13.name: no contrast is about shuffled_targets"
    ):
        registered("exp04", reason, "")
    for path in EXPERIMENTS:
        for profile in ("micro", "swe"):
            plan = plan_from_text(path.stem, path.read_text("utf-8"), path.name, profile, shared=SHARED)
            compared = {name for found in plan.contrasts for name in found.arms}
            compared |= {name for choice in plan.choices for name in choice.of}
            assert all(
                arm.reason or arm.name in compared for arm in plan.arms if arm.role is not ArmRole.BASE
            )


def test_p3_an_arm_that_a_profile_makes_a_copy_of_another_is_refused_with_its_settings() -> None:
    with pytest.raises(
        BadInput,
        match=r"exp19.toml:\d+:1: arms.10.learning: multiplier_x0_2 learns what trained learns: .*multiplier 2,",
    ):
        registered("exp19", "multiplier_times = 0.2 }", "multiplier = 2.0 }", "swe")


def test_p6_what_is_made_from_another_adapter_has_that_other_or_is_refused_before_anything_runs() -> None:
    arms = (
        '[[arms]]\nname = "base"\nrole = "base"\n[[arms]]\nname = "gold"\nrole = "treatment"\n'
        'learning = { treatment = "adapter", source = "gold" }\n[[arms]]\nname = "noise"\nrole = "control"\n'
        'learning = { treatment = "random_adapter", source = "gold" }\n'
    )
    plan = plan_from_text("t", small('like = "micro"', arms=arms), "t.toml", "mine", shared=SHARED)
    assert plan.made_from(plan.arms[2]) == plan.arms[1]
    with pytest.raises(
        BadInput,
        match=r"t.toml:14:1: arms.2.learning: noise is made from .* own experience.*gold learns from gold: give it the same source",
    ):
        plan_from_text(
            "t",
            small('like = "micro"', arms=arms.replace('random_adapter", source = "gold"', 'random_adapter"')),
            "t.toml",
            "mine",
            shared=SHARED,
        )


def test_a_contrast_in_what_an_arm_never_has_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"contrasts.0.metric: lora has no retention: that is measured after the batches"
    ):
        registered("exp02", 'against = "buffer_random"', 'against = "lora"')


def test_a_setting_of_looper_train_that_cannot_be_used_is_named_in_plain_words() -> None:
    plain = {"learning_rate": 1e-4, "iterations": 1, "batch_size": 1, "max_tokens": 9}
    with pytest.raises(BadInput, match=r"^--batch-size: must be greater than 0, found 0\.$"):
        train_options(Path("run"), (), "nano", {}, plain | {"batch_size": 0})
    with pytest.raises(BadInput, match=r"^--per-task: must be a whole number, found \"x\"\.$"):
        train_options(Path("run"), (), "nano", {"per_task": "x"}, plain)


def test_a_contrast_whose_guards_are_off_in_both_arms_is_refused() -> None:
    with pytest.raises(
        BadInput,
        match=r"contrasts.3.exercised: bare − minus_done_check means nothing unless premature_done fires",
    ):
        registered(
            "exp15",
            'arm = "full"\nagainst = "minus_done_check"',
            'arm = "bare"\nagainst = "minus_done_check"',
        )


@pytest.mark.parametrize(
    ("guards", "steps"), [('"read_only_streak", "no_progress"', 12), ('"no_progress"', 16)]
)
def test_a_contrast_whose_guards_need_more_steps_than_a_rollout_has_is_refused(
    guards: str, steps: int
) -> None:
    """It could decide nothing, and would make all others of its family harder to decide."""
    text = FILE.with_name("exp15.toml").read_text("utf-8")
    text = text.replace(
        '"minus_repeat_detector", "minus_d', '"minus_repeat_detector", "minus_no_progress", "minus_d'
    )
    text = text.replace('"read_only_streak", "no_progress"', guards)
    said = f"which takes {steps} steps at least, and a rollout has 8. Leave its arm out of this profile"
    with pytest.raises(BadInput, match=rf"contrasts.4.exercised: full − minus_no_progress .* fires, {said}"):
        plan_from_text("exp15", text, "exp15.toml", "micro", shared=SHARED)
    longer = text.replace('like = "micro"\n', f'like = "micro"\nlimits = {{ steps = {steps} }}\n', 1)
    assert len(plan_from_text("exp15", longer, "exp15.toml", "micro", shared=SHARED).contrasts) == 6


@pytest.mark.parametrize(
    ("metric", "written", "said"),
    [
        ("resolved", "10", 'must say its unit, as in "10 points", found 10'),
        ("resolved", '"0.2 nats"', 'must say its unit, as in "10 points", found "0.2 nats"'),
        ("retention", "0.2", 'must say its unit, as in "0.2 nats", found 0.2'),
        ("retention", '"20 points"', 'must say its unit, as in "0.2 nats", found "20 points"'),
        (
            "resolved",
            '"ten points"',
            'must be written in plain digits, as in "10 points", found "ten points"',
        ),
        (
            "resolved",
            '"1_0 points"',
            'must be written in plain digits, as in "10 points", found "1_0 points"',
        ),
        (
            "resolved",
            '"１０ points"',
            'must be written in plain digits, as in "10 points", found "１０ points"',
        ),
        (
            "resolved",
            '"1e1 points"',
            'must be written in plain digits, as in "10 points", found "1e1 points"',
        ),
        ("resolved", '"500 points"', "must be less than 1.0, found 5.0"),
    ],
)
def test_a_margin_says_its_unit(metric: str, written: str, said: str) -> None:
    contrast = f'expect = "same"\nmetric = "{metric}"\nmargin = {written}'
    changed = text().replace('expect = "same"', contrast, 1)
    line = changed[: changed.index("margin = ")].count("\n") + 1
    with pytest.raises(BadInput) as caught:
        load(changed)
    assert said in str(caught.value) and f"exp00.toml:{line}:" in str(caught.value)


TWO_ARMS = """[[arms]]
name = "base"
role = "base"
[[arms]]
name = "warm"
role = "treatment"
temperature = 0.9
"""


SAID = ("Warmth changes the outcome.", "Warmth changes it otherwise.", "Whether it changes is open.")
WITHIN = ("Warmth changes it by less than {margin}.", *SAID[1:])


def contrast(arm: str, against: str, more: str = "", said: tuple[str, str, str] = SAID) -> str:
    if said is SAID and "expect = " in more:
        said = WITHIN
    words = "".join(
        f'{key} = "{text}"\n' for key, text in zip(("shown", "refuted", "open"), said, strict=True)
    )
    return f'[[contrasts]]\narm = "{arm}"\nagainst = "{against}"\n{more}{words}'


def planned(
    contrasts: str, profile: str = "", head: str = "", hypothesis: str = "h", reason: str = ""
) -> Plan:
    arms = TWO_ARMS + (f'reason = "{reason}"\n' if reason else "") + contrasts
    text = head + small(f'like = "demo"\n{profile}', arms=arms).replace('"h"', f'"{hypothesis}"', 1)
    return plan_from_text("t", text, "t.toml", "mine", shared=SHARED)


NOT_LESS, NOT_MORE, SAME = (f'expect = "{each}"\n' for each in ("not_less", "not_more", "same"))


@pytest.mark.parametrize(
    ("contrasts", "more", "said"),
    [
        (contrast("warm", "base"), {"profile": "seeds = [0, 1, 0]"}, "seeds: the seed 0 is there twice"),
        (contrast("warm", "base") * 2, {}, "contrasts.1.arm: warm − base asks what warm − base asks already"),
        (contrast("warm", "base") + contrast("base", "warm"), {}, "base − warm asks what warm − base asks"),
        (
            contrast("warm", "base", NOT_MORE) + contrast("base", "warm", NOT_LESS),
            {},
            "base − warm asks what warm − base asks already",
        ),
        (
            contrast("warm", "base", said=(SAID[0], SAID[0].upper().replace(".", "!"), SAID[2])),
            {},
            "contrasts.0.shown: warm − base says the same",
        ),
        (contrast("warm", "base", said=(*SAID[:2], ".")), {}, "contrasts.0.open: warm − base has no words"),
        (
            contrast("warm", "base") + contrast("warm", "base", f'{SAME}margin = "40 points"\n'),
            {},
            "contrasts.1.margin: warm − base would call arms alike that differ by 40 points, and the smallest difference that "
            "this plan expects of one is 10 points",
        ),
        (
            contrast("warm", "base", f'{SAME}margin = "99 points"\n'),
            {},
            "and the widest that is taken for nothing is 20 points",
        ),
        (
            contrast("warm", "base")
            + contrast("warm", "base", f'{SAME}margin = "15 points"\nexpected = "90 points"\n'),
            {},
            "and the smallest difference that this plan expects of one is 10 points",
        ),
        (
            contrast("warm", "base", 'expected = "90 points"\n')
            + contrast("warm", "base", f'{SAME}margin = "30 points"\n'),
            {},
            "and the widest that is taken for nothing is 20 points",
        ),
        (
            contrast("warm", "base"),
            {"profile": "seeds = [0, 1]\ntemperature = 0.0"},
            ": temperature: base samples nothing at temperature 0, so that its 2 seeds are one measurement",
        ),
        (
            contrast("warm", "base"),
            {"profile": "seeds = [0, 1]\ntemperature = 1e-6"},
            ": temperature: base samples nothing at temperature 1e-06, so that its 2 seeds are one measurement",
        ),
        *(
            (
                contrast("warm", "base"),
                {"profile": f"seeds = [0, 1]\nsampling = {{ {drawn} }}"},
                f": sampling: base (as well as warm) samples nothing with {drawn}, so that its 2 seeds are one measurement",
            )
            for drawn in ("top_k = 1", "min_p = 0.999", "top_p = 0.01")
        ),
        (
            contrast("warm", "base"),
            {"head": 'measured_only = ["power"]\n'},
            "measured_only: a plan that is too small stays a pilot",
        ),
    ],
)
def test_a_plan_that_could_say_what_nothing_carries_is_refused_where_that_stands(
    contrasts: str, more: dict[str, str], said: str
) -> None:
    """Copies that count as data, questions that are counted twice, words that tell nothing apart, margins that hold whatever comes."""
    with pytest.raises(BadInput) as caught:
        planned(contrasts, **more)
    assert said in str(caught.value) and re.match(r"t\.toml:\d+:\d+: ", str(caught.value))


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("Warmth solves 2x as many.", 'says "2x" of its own'),
        ("Warmth wins .5 of them.", 'says ".5" of its own'),
        ("Warmth wins 1e1 of them.", 'says "1e1" of its own'),
        ("Warmth wins −5 of them.", 'says "−5" of its own'),
        ("Warmth wins ½ of them.", 'says "½" of its own'),
        ("Warmth wins tenfold here.", 'says "tenfold" of its own'),
        ("Warmth halves what is lost.", 'says "halves" of its own'),
        ("Warmth doubles what is won.", 'says "doubles" of its own'),
        ("One success is enough here.", 'says "One success" of its own'),
        ("Warmth solves XII of XX.", 'says "XII" of its own'),
        ("Warmth wins {30} points here.", "{30} measures something, and no setting holds it"),
        ("Warmth wins at least {3} more.", "{3} measures something"),
        ("With {9} new items warmth wins.", "{9} measures something"),
        ("Warmth has {99} ways to win.", "a number that is no setting is one of 1 to 12 in a name"),
        ("Warmth wins {warm.steps * 1000} of them.", "{warm.steps * 1000} calculates with a number that is no setting"),
        ("Warmth wins {warm.steps} points here.", "{warm.steps} stands before a unit that no setting has"),
    ],
)  # fmt: skip
def test_a_number_in_any_spelling_is_held_to_the_settings_or_refused(sentence: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        planned(contrast("warm", "base", said=(sentence, *SAID[1:])))
    assert re.match(r"t\.toml:\d+:1: contrasts\.0\.shown: ", str(caught.value)) and said in str(caught.value)


def test_what_is_no_number_and_a_small_one_in_a_name_are_free() -> None:
    free = (
        "Someone tries {2} ways in exp01, L2 and CI.",
        "One arm of one model wins it.",
        "{warm.steps / base.steps} is open.",
    )
    assert planned(contrast("warm", "base", said=free)).contrasts[0].shown.startswith("Someone tries 2 ways")


def test_reasons_of_arms_are_held_to_the_settings_too_and_say_something() -> None:
    again = '[[arms]]\nname = "again"\nrole = "again"\nrepetition = 1\nreason = "{}"\n'
    with pytest.raises(BadInput, match=r'^t\.toml:\d+:1: arms\.2\.reason: says "9" of its own'):
        planned(again.format("as 9 other arms do") + contrast("warm", "base"))
    with pytest.raises(BadInput, match=r"^t\.toml:\d+:1: arms\.2\.reason: again says no reason in '\.'"):
        planned(again.format(".") + contrast("warm", "base"))
    (_, _, arm) = planned(again.format("as {base.steps} steps do") + contrast("warm", "base")).arms
    assert arm.reason == "as 8 steps do"


@pytest.mark.parametrize(
    ("more", "sentences", "said"),
    [
        ("", ("Warmth gains {expected} and more.", *SAID[1:]), "shown: warm − base says {expected}, and what is decided is that"),
        ("", ("Warmth gains {margin} here.", *SAID[1:]), "shown: warm − base says {margin}, and what is decided is that"),
        ("", ("Warmth helps by far.", *SAID[1:]), 'shown: warm − base says "by far"'),
        (NOT_MORE, ("Warmth helps here indeed.", *SAID[1:]), "shown: warm − base (expect = \"not_more\") is shown where the difference is within"),
        (SAME, ("Warmth helps here indeed.", *SAID[1:]), "(expect = \"same\") is shown where the difference is within"),
        (NOT_MORE, ("Warmth gains {margin} and more.", *SAID[1:]), "within the margin, and this does not say so"),
        (NOT_MORE, ("Warmth is not within {margin}.", *SAID[1:]), "within the margin, and this does not say so"),
        (NOT_MORE, ("The arms differ beyond {margin}.", *SAID[1:]), "within the margin, and this does not say so"),
        ("", ("Warmth harms this agent.", "Warmth helps this agent.", SAID[2]), "shown: warm − base comes out so where warm has more resolved"),
        ("", ("Warmth helps this agent.", "Warmth gains a little.", SAID[2]), "refuted: warm − base comes out so where warm has less resolved"),
        ("", ("Warmth resolves fewer tasks.", *SAID[1:]), "shown: warm − base comes out so where warm has more resolved"),
        ('metric = "interventions"\n', ("Warmth harms this agent.", "Warmth lowers this share.", SAID[2]), "warm) has no interventions"),
        ("", ("-", *SAID[1:]), "shown: warm − base has no words for this outcome"),
        ("", ("Warmth helps.", *SAID[1:]), 'shown: warm − base: "Warmth helps." is too short'),
        ("", (SAID[0], "warmth changes the outcome", SAID[2]), "shown: warm − base says the same of two outcomes"),
    ],
)  # fmt: skip
def test_a_sentence_claims_what_its_contrast_decides_and_no_more(
    more: str, sentences: tuple[str, str, str], said: str
) -> None:
    with pytest.raises(BadInput) as caught:
        planned(contrast("warm", "base", more, said=sentences))
    assert re.match(r"t\.toml:\d+:\d+: contrasts\.0\.", str(caught.value)) and said in str(caught.value)


MANY_ARMS = """[[arms]]
name = "base"
role = "base"
[[arms]]
name = "again"
role = "again"
repetition = 1
reason = "equal arms"
[[arms]]
name = "short"
role = "treatment"
limits = { steps = 4 }
reason = "fewer steps"
[[arms]]
name = "memory"
role = "treatment"
learning = { treatment = "memory", memory = { items = 1 } }
reason = "what lessons do"
[[arms]]
name = "memory_3"
role = "treatment"
learning = { treatment = "memory", memory = { items = 3, bytes = 1800 } }
reason = "more lessons"
[[arms]]
name = "lora"
role = "treatment"
learning = { treatment = "adapter" }
reason = "what weights do"
"""
HELPS = ("Lessons help here.", "Lessons harm here.", "Whether lessons help is open.")
GAINS = (
    "Lessons gain less than {margin}.",
    "Lessons gain {margin} and more.",
    "Whether lessons gain is open.",
)
COSTS = ("Lessons lose less than {margin}.", "Lessons lose {margin} and more.", "Undecided.")
HONEST: list[tuple[str, str, str, tuple[str, str, str], str]] = [
    ("memory", "base", NOT_MORE, GAINS, "Lessons gain little."),
    ("memory", "base", NOT_LESS, COSTS, "Lessons lose little."),
    ("again", "base", SAME, ("The repeat stays inside {margin} of the first.", "The repeat is off by more than {margin}.", "The repeat tells nothing here."), "Equal arms are equal."),
    ("lora", "base", NOT_LESS, ("Training does not lower the resolve rate by {margin}.", "Training lowers the resolve rate by {margin} and more.", "Open: needs more runs."), "Training costs little."),
    ("memory", "lora", "", ("In the prompt successes are worth more than in the weights.", "In the weights successes are worth more than in the prompt.", "Which of the two is worth more could not be told."), "h"),
    ("again", "base", SAME, ("Two runs of the same agent agree, within {margin}.", "Two runs differ by more than {margin}.", "Not known."), "Two runs of the same agent agree."),
    ("memory", "base", "", (*HELPS[:2], "We could not tell whether one item helps."), "One item helps."),
    ("memory", "base", "", ("Naming Python 3.11 in a lesson helps.", *HELPS[1:]), "Naming Python 3.11 helps."),
    ("memory", "base", "", (*HELPS[:2], "Open."), "h"),
    ("memory", "base", "", (*HELPS[:2], "It is not known whose lessons matter."), "h"),
    ("memory", "base", "", (*HELPS[:2], "No effect of lessons was shown."), "h"),
    ("memory", "base", "", (*HELPS[:2], "That lessons help was not shown; more tasks are needed."), "h"),
    ("memory", "base", "", (*HELPS[:2], "No trend was found, in either direction."), "h"),
    ("memory", "base", "", (*HELPS[:2], "Lessons made no visible difference in this run."), "h"),
    ("memory", "base", "", (*HELPS[:2], "Not decided by this run."), "h"),
    ("memory", "base", "", (*HELPS[:2], "It remains open whether lessons matter."), "h"),
    ("memory_3", "memory", NOT_LESS, ("Telling {memory_3.items} items costs at most {margin}, compared with {memory.items}.", "Telling {memory_3.items} items costs more than {margin}.", "The cost of more items could not be told."), "Telling more lessons does no harm."),
    ("short", "base", NOT_LESS, ("With {short.steps} steps in place of {base.steps} at most {margin} are lost.", "With {short.steps} steps more than {margin} are lost.", "It is undecided whether steps matter."), "Fewer steps do no harm."),
    ("short", "base", NOT_LESS, ("Fewer steps lose no more than {margin}.", "Fewer steps lose more than {margin}.", "Unknown."), "h"),
    ("lora", "base", NOT_MORE, ("Adapters gain up to {margin}.", "Adapters gain {margin} and more: gains here are not about the repository.", "Still open."), "Adapters hardly help."),
    ("lora", "base", NOT_LESS, ("The adapter does no harm beyond {margin}.", "The adapter does harm beyond {margin}.", "It could not be seen."), "h"),
    ("lora", "memory", "", ("Adapters beat lessons here.", "Lessons beat adapters here.", "Whether weights or text carry it better is open."), "Adapters help more than lessons."),
    ("lora", "base", "", ("An adapter that was never told the answer helps.", "Such an adapter harms: do not trust this setup.", "Whether it helps is unknown."), "h"),
    ("base", "short", "", ("Without the last steps fewer tasks are resolved.", "Without them more is resolved.", "Whether the last steps matter is not clear yet."), "h"),
    ("memory", "base", "", ("Lessons raise the resolve rate.", "Lessons lower the resolve rate.", "What lessons are worth was not told by this run."), "With lessons more tasks are resolved."),
    ("memory", "base", "", (*HELPS[:2], "The question stays open."), "Lessons from a repository help there."),
    ("memory", "base", "", (*HELPS[:2], "More tasks are needed."), "One lesson is better than none."),
    ("memory", "base", "", (*HELPS[:2], "More tasks are needed to say whether lessons help."), "h"),
    ("memory", "base", "", (*HELPS[:2], "A gain from lessons is neither shown nor ruled out."), "h"),
    ("memory", "base", "", (*HELPS[:2], "The run was too small to tell."), "h"),
    ("memory", "base", "", (*HELPS[:2], "An effect of lessons could not be demonstrated."), "h"),
    ("memory", "base", "", (*HELPS[:2], "The evidence is insufficient."), "h"),
    ("memory", "base", NOT_MORE, ("A gain of {margin} or more is excluded.", *GAINS[1:]), "One lesson is better than none."),
    ("memory", "base", NOT_MORE, ("Lessons cost tokens and gain less than {margin}.", *GAINS[1:]), "h"),
    ("memory", "base", NOT_LESS, ("Memory is non-inferior by a margin of {margin}.", "Memory is inferior by {margin} or more.", "Undecided."), "h"),
    ("memory", "base", NOT_LESS, ("Base gains less than {margin} over lessons.", "Base gains {margin} and more over lessons.", "Undecided."), "h"),
    ("lora", "memory", SAME, ("The two are within {margin} of each other.", "Either gains {margin} and more over the other.", "Undecided."), "Adapters and lessons help alike."),
    ("memory", "base", "", ("Lessons from here help; those from elsewhere are another question.", *HELPS[1:]), "h"),
    ("memory", "base", "", ("Lessons that are always told help.", "Nobody gains from lessons.", HELPS[2]), "h"),
]  # fmt: skip
"""Arm and what it is compared with, what is asked, what is said of each outcome, and the hypothesis."""


def of_many(arm: str, against: str, asked: str, said: tuple[str, str, str], hypothesis: str) -> Plan:
    found = MANY_ARMS + contrast(arm, against, asked, said)
    written = small('like = "demo"\n', arms=found).replace('"h"', f'"{hypothesis}"', 1)
    return plan_from_text("t", written, "t.toml", "mine", shared=SHARED)


@pytest.mark.parametrize(("arm", "against", "asked", "said", "hypothesis"), HONEST)
def test_an_honest_sentence_passes(
    arm: str, against: str, asked: str, said: tuple[str, str, str], hypothesis: str
) -> None:
    assert len(HONEST) >= 25 and of_many(arm, against, asked, said, hypothesis).contrasts


def shown(said: str) -> tuple[str, str, str]:
    return (said, *HELPS[1:])


def left_open(said: str) -> tuple[str, str, str]:
    return (*HELPS[:2], said)


@pytest.mark.parametrize(
    ("asked", "said", "hypothesis", "refused"),
    [
        ("", HELPS, "Lessons harm the agent.", "hypothesis: says of lesson the opposite of what memory − base is registered"),
        ("", HELPS, "Adapters help and lessons harm.", "hypothesis: says of lesson the opposite"),
        ("", HELPS, "An overseer helps.", 'hypothesis: speaks of "overseer", and no arm of it has an overseer'),
        ("", shown("Lessons help in {memory.steps} repositories."), "h", "{memory.steps} stands before repositories, which it does not count"),
        ("", shown("Lessons help in {memory.seeds} repositories."), "h", "{memory.seeds} stands before repositories"),
        ("", shown("Lessons help {memory.temperature} tasks of each."), "h", "{memory.temperature} stands before tasks"),
        ("", shown("Lessons help at temperature {memory.steps}."), "h", "{memory.steps} is no temperature. Write the setting of that name"),
        ("", shown("Lessons help a model of {memory.steps} B."), "h", "{memory.steps} stands before a unit that no setting has"),
        ("", shown("Lessons help in {memory.temperature} of the cases."), "h", "{memory.temperature} stands before a unit"),
        ("", (HELPS[0], "Lessons have no effect.", HELPS[2]), "h", 'refuted: memory − base comes out so where memory has less resolved, and "Lessons have no effect." says that nothing'),
        ("", HELPS, "Told lessons do not help.", 'hypothesis: says "do not help", and every contrast is registered to show a difference'),
        ("", HELPS, "Nothing comes of told lessons.", 'hypothesis: says "Nothing comes of", and every contrast'),
        ("", shown("Lessons help {memory.items / base.steps} seeds."), "h", "calculates with|stands before seeds|memory.items / base.steps"),
        ("", left_open("Lessons help here, but more tasks are needed to show it."), "h", "open: memory − base has come out so where nothing"),
        ("", left_open("There is no effect of lessons."), "h", "open: "),
        ("", left_open("Lessons were not seen to fail; they help."), "h", "open: "),
        ("", left_open("Lessons help, which is known."), "h", "open: "),
        ("", left_open("Lessons help, and how much is open."), "h", "open: "),
        ("", left_open("It is open, lessons help."), "h", "open: "),
        ("", left_open("The arms are equal."), "h", "open: "),
        ("", left_open("It is known that lessons help."), "h", "open: "),
        ("", left_open("Memory resolves as many tasks as base."), "h", "open: "),
        ("", shown("Lessons help with every model."), "h", 'shown: memory − base says "every model"'),
        ("", shown("Lessons help most tasks."), "h", 'says "most tasks"'),
        ("", shown("Lessons help a great deal."), "h", 'says "a great deal"'),
        ("", shown("Adapters help less than lessons."), "h", 'speaks of "Adapters", and no arm of it has an adapter'),
        ("", shown("Lessons help any agent."), "h", 'says "any agent"'),
        (SAME, ("Lessons change it by less than {margin}; equality is proven.", *GAINS[1:]), "h", 'says "proven"'),
        (NOT_MORE, (GAINS[0], "Lessons do not gain {margin}.", GAINS[2]), "h", "refuted: memory − base (expect = \"not_more\") is refuted where"),
        (NOT_MORE, (GAINS[0], "Lessons gain less than {margin}, too.", GAINS[2]), "h", "and this says that it is within"),
        (NOT_MORE, (GAINS[0], "A gain of {margin} or more is excluded.", GAINS[2]), "h", "and this says that it is within"),
        (NOT_MORE, ("Lessons gain {margin}.", *GAINS[1:]), "h", "within the margin, and this does not say so"),
        (NOT_MORE, ("Lessons lose less than {margin}.", *GAINS[1:]), "h", "shown: memory − base (expect = \"not_more\") is shown where memory gains less than {margin}, and \"Lessons lose less than {margin}.\" is about a loss. Say it of a gain"),
        (NOT_MORE, ("A loss of {margin} or more is excluded.", *GAINS[1:]), "h", "shown: memory − base (expect = \"not_more\") is shown where memory gains less"),
        (NOT_MORE, ("Memory is non-inferior by a margin of {margin}.", *GAINS[1:]), "h", "is about a loss. Say it of a gain"),
        (NOT_MORE, (GAINS[0], "Lessons lose {margin} and more.", GAINS[2]), "h", "refuted: memory − base (expect = \"not_more\") is refuted where memory gains {margin} and more, and \"Lessons lose {margin} and more.\" is about a loss"),
        (NOT_MORE, (GAINS[0], "Lessons harm this agent.", GAINS[2]), "h", "refuted: memory − base (expect = \"not_more\") is refuted where memory gains"),
        (NOT_LESS, ("Lessons gain less than {margin}.", *COSTS[1:]), "h", "shown: memory − base (expect = \"not_less\") is shown where memory loses less than {margin}, and \"Lessons gain less than {margin}.\" is about a gain. Say it of a loss"),
        (NOT_LESS, (COSTS[0], "Lessons are better by {margin} and more.", COSTS[2]), "h", "refuted: memory − base (expect = \"not_less\") is refuted where memory loses {margin} and more"),
        (SAME, ("Lessons differ by less than {margin}.", *GAINS[1:]), "h", "refuted: memory − base (expect = \"same\") is refuted where the arms are {margin} and more apart, and \"Lessons gain {margin} and more.\" is about a gain. Say it of either side"),
        (NOT_MORE + 'metric = "valid_actions"\n', ("Lessons resolve less than {margin} more.", *GAINS[1:]), "h", "shown: memory − base compares valid actions, and \"Lessons resolve less than {margin} more.\" speaks of what is resolved. Say it of valid actions"),
        ("", shown("Lessons help two tasks."), "h", 'says "two" of its own'),
        ("", shown("Lessons help 3.11 points."), "h", 'says "3.11" of its own'),
    ],
)  # fmt: skip
def test_a_sentence_beyond_its_contrast_is_refused(
    asked: str, said: tuple[str, str, str], hypothesis: str, refused: str
) -> None:
    with pytest.raises(BadInput) as caught:
        of_many("memory", "base", asked, said, hypothesis)
    found = str(caught.value)
    assert re.match(r"t\.toml:\d+:\d+: ", found) and any(each in found for each in refused.split("|"))


def test_words_that_may_be_about_something_else_contradict_nothing() -> None:
    for said in (
        ("Warmth needs fewer steps.", "Warmth needs more text.", SAID[2]),
        ("Warmth does less harm here.", "Base helps more than warmth.", SAID[2]),
        ("Without warmth much is lost.", "Warmth does not help here.", SAID[2]),
    ):
        assert planned(contrast("warm", "base", said=said)).contrasts


def test_a_hypothesis_says_what_the_contrasts_ask() -> None:
    bound = contrast("warm", "base", NOT_MORE)
    with pytest.raises(BadInput, match=r't\.toml:2:1: hypothesis: says "by far", and no contrast decides'):
        planned(bound, hypothesis="Warmth helps by far.")
    with pytest.raises(
        BadInput, match=r"hypothesis: says that a difference is expected, and .*warm − base asks for none"
    ):
        planned(bound, hypothesis="Warmth helps this agent.")
    assert planned(bound, hypothesis="Warmth does not help this agent.").contrasts


@pytest.mark.parametrize(
    ("contrasts", "profile", "said"),
    [
        (contrast("warm", "base", f'{SAME}margin = "0.0001 points"\n'), "", "contrasts.0.margin: warm − base asks for 0.0001 points"),
        (contrast("warm", "base", 'expected = "0.0001 points"\n'), "", "contrasts.0.expected: warm − base asks for 0.0001 points"),
        (contrast("warm", "base", 'expected = "99 points"\n'), "", "no more than 85 points can be gained beside"),
        (
            contrast("warm", "base", f'{SAME}metric = "retention"\nmargin = "0.99 nats"\n'),
            "",
            "would call arms alike that differ by 0.99 nats per token, and the widest that is taken for nothing, a fifth of the probability",
        ),
        (
            contrast("warm", "base", f'{SAME}metric = "retention"\n'),
            "",
            "is missing; what is taken for nothing in retention has to be said, as in \"0.2 nats\"",
        ),
        (contrast("warm", "base"), "discordance = 1e-9", "discordance: takes equal arms to differ in 1e-07 % of the cells"),
        (contrast("warm", "base"), "discordance = 1e-9", "and decisions are simulated from 5 % on. Raise it to 0.05 or more"),
        (contrast("warm", "base"), "spread = 0.0", "spread: takes true differences to vary by 0 points between repositories"),
        (contrast("warm", "base"), "limits = { wall_s = 0.001 }", "limits.wall_s: a rollout has 0.001 s"),
        (contrast("warm", "base"), "limits = { total_tokens = 1 }", "limits.total_tokens: a rollout may have 1 tokens, and one reply 80"),
        (
            contrast("warm", "base"),
            "limits = { output_tokens = 99999 }",
            "limits.output_tokens: a reply may have 99999 tokens, and the context holds 2048",
        ),
        (
            contrast("warm", "base"),
            'scaffold = { base = "full", tools = ["read"] }',
            "base has the tools read, and lacks a way to change a file (bash, edit or write), and done",
        ),
        (
            '[[arms]]\nname = "often"\nrole = "again"\nrepetition = 1\nonly_seeds = 9\nreason = "equal arms"\n' + contrast("warm", "base"),
            "",
            "arms.2.only_seeds: often is to run with 9 seeds, and the plan has 1",
        ),
        (
            '[[arms]]\nname = "again"\nrole = "again"\nrepetition = 1\n' + contrast("warm", "base", 'through = ["again"]\n'),
            "",
            "contrasts.0.through: warm − base, as a line through 3 arms draws a line through arms without a dose",
        ),
        (
            '[[arms]]\nname = "gold"\nrole = "control"\nmodel = "gold"\n' + contrast("gold", "base"),
            "",
            "contrasts.0.arm: gold − base has its answer before the data: gold plays the benchmark's own patch",
        ),
        (
            '[[arms]]\nname = "noop"\nrole = "control"\nmodel = "noop"\n' + contrast("noop", "base", NOT_MORE),
            "",
            "contrasts.0.arm: noop − base has its answer before the data: noop does nothing",
        ),
        (
            '[[arms]]\nname = "zero"\nrole = "control"\nlearning = { treatment = "zero_adapter" }\n' + contrast("zero", "base", SAME),
            "",
            "zero − base has its answer before the data: zero has an adapter that changes nothing",
        ),
    ],
)  # fmt: skip
def test_what_no_design_resolves_nothing_supports_or_is_known_beforehand_is_refused(
    contrasts: str, profile: str, said: str
) -> None:
    with pytest.raises(BadInput) as caught:
        planned(contrasts, profile)
    assert re.match(r"(t|profiles/demo)\.toml:\d+:\d+: ", str(caught.value)) and said in str(caught.value)


BATCH = "experience = { batch = 8 }"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("exp01", BATCH, BATCH.replace(" }", ", memory_bytes = 1 }"), "told at most 1 item in 1 bytes, and the shortest that tells code has 40 or more"),
        ("exp01", 'treatment = "memory" }', 'treatment = "memory", memory = { items = 99, bytes = 20 } }', "told at most 99 items in 20 bytes"),
        ("exp01", BATCH, BATCH.replace(" }", ", training = { learning_rate = 1e-30 } }"), "experience.training.learning_rate: .*move no weight by more than"),
        ("exp01", BATCH, f"{BATCH}\nlimits = {{ steps = 1 }}", "limits.steps: a rollout has 1 step, and an edit and done take 2"),
        ("exp01", BATCH, BATCH.replace(" }", ", training = { max_tokens = 8 } }"), "experience.training.max_tokens: .*: an example may have 8 tokens"),
        ("exp01", BATCH, BATCH.replace(" }", ", training = { rank = 100000 } }"), "experience.training.rank: .*rank 100000 is wider than the model, whose matrices have 128"),
    ],
)  # fmt: skip
def test_a_memory_or_a_training_that_leaves_nothing_is_refused_with_the_figures(
    name: str, old: str, new: str, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        registered(name, old, new, "demo")


def test_the_widths_of_the_embedded_models_are_those_of_their_weights() -> None:
    for folder, width in (("weights", NANO_WIDTH), ("weights_small", NANO_WIDTHS["small"])):
        config = Path(nano.__file__).parent / folder / "config.json"
        assert json.loads(config.read_text("utf-8"))["hidden_size"] == width


def test_a_guard_whose_tool_one_arm_lacks_is_nothing_to_exercise() -> None:
    text = (
        '[[arms]]\nname = "mute"\nrole = "treatment"\nscaffold = { tools = ["bash", "read", "edit", "done"] }\n'
        + contrast("mute", "base", 'exercised = ["shrinking_write"]\n')
    )
    with pytest.raises(
        BadInput, match=r"exercised: .* shrinking_write, which watches write, and mute has no such tool"
    ):
        planned(text.replace('name = "mute"', 'name = "mute"', 1), 'scaffold = "full"', reason="a warmer one")


def test_an_assertion_of_an_arm_that_nobody_has_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r't\.toml:1:12: asserts\.0: there is no arm "wram"; did you mean warm'
    ):
        planned(contrast("warm", "base"), head='asserts = ["wram.steps == 7"]\n')


def test_not_more_and_not_less_of_the_same_arms_are_two_questions() -> None:
    plan = planned(contrast("warm", "base", NOT_MORE) + contrast("warm", "base", NOT_LESS))
    assert len(plan.contrasts) == 2


def test_what_a_profile_has_not_the_arms_for_is_named_with_what_is_primary_then() -> None:
    plan = load(profile="swe")
    assert plan.unasked[:2] == ("lora − base", "memory − base")
    (said,) = unasked_lines(plan)
    assert said.startswith(
        "registered, and not asked here, where an arm of theirs is left out: lora − base, "
    )
    assert said.endswith(f"primary here is {plan.contrasts[0].name}")
    assert load().unasked and "positive − base" in load().unasked[0]


MICRO = FILE.parent / "profiles" / "micro.toml"


def new_text() -> str:
    return new_plan(tomllib.loads(MICRO.read_text("utf-8")))


def test_every_key_of_a_plan_is_described_and_every_number_has_its_unit() -> None:
    for table in plan_tables():
        for key in table.keys:
            where = f"{table.header} {key.name}"
            assert key.means, where
            assert bool(key.unit) == ("number" in key.takes), where
            assert key.tables or key.example, where
            assert not key.example or tomllib.loads(f"x = {key.example}"), where


def test_bounds_are_said_of_keys_that_may_be_left_out_and_of_lists_as_well() -> None:
    takes: dict[str, set[str]] = {}
    for table in plan_tables():
        for key in table.keys:
            takes.setdefault(key.name, set()).add(key.takes)
    assert takes["limit"] == {"whole number > 0"} and takes["validation_share"] == {"number ≥ 0, < 1"}
    assert takes["ranks"] == {"list of whole number > 0"}


def written_keys(found: dict[str, object], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every key of a file with the keys that lead to it, the names of profiles as NAME."""
    for key, value in found.items():
        here = (*path, "NAME" if path == ("profiles",) else key)
        yield here
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from written_keys(each, here)


def test_every_key_that_a_registered_plan_has_is_described() -> None:
    known = {(*table.path, key.name) for table in plan_tables() for key in table.keys}
    known.add(("profiles", "NAME"))
    experiments = [(path, ()) for path in FILE.parent.glob("*.toml")]
    profiles = [(path, ("profiles", "NAME")) for path in MICRO.parent.glob("*.toml")]
    for path, top in [*experiments, *profiles]:
        assert set(written_keys(tomllib.loads(path.read_text("utf-8")), top)) <= known, path.name


def test_a_new_plan_says_every_key_once_or_more() -> None:
    uncommented = re.sub(r"^#(?=[\w\[])", "", new_text(), flags=re.MULTILINE)
    assert tomllib.loads(new_text())["profiles"].keys() == {"micro"}
    there: set[tuple[str, ...]] = set()
    path: tuple[str, ...] = ()
    for line in uncommented.splitlines():
        if header := re.match(r"\[+([\w.]+)\]+$", line):
            path = tuple(header[1].replace("profiles.micro", "profiles.NAME").split("."))
            there.add(path)
        elif re.match(r"\w+ = ", line):
            there |= set(written_keys(tomllib.loads(line), path))
    # A profile names its scaffold; the keys of one stand with the arm.
    wanted = {
        (*table.path, key.name)
        for table in plan_tables()
        if table.path[:3] != ("profiles", "NAME", "scaffold")
        for key in table.keys
    }
    assert wanted - there == {("profiles",)}


def test_a_new_plan_is_no_pilot_but_under_the_profile_of_which_it_says_so() -> None:
    text = new_text()
    assert "as a pilot that decides nothing: looper run FILE --profile demo" in text.replace("\n# ", " ")
    shared = {name: (MICRO.parent / f"{name}.toml").read_text("utf-8") for name in ("micro", "demo")}
    for profile in ("micro", "demo"):
        plan = plan_from_text("mine", text, "mine.toml", profile, shared=shared)
        of = plan.selection
        tasks = [f"r{repo}-{at}" for repo in range(of.repositories or 0) for at in range(of.per_repo or 0)]
        assert tasks and is_pilot(plan, tasks) is (profile == "demo"), profile


def sections(text: str) -> Iterator[tuple[str, bool, list[tuple[int, str]]]]:
    """Of each table of a new file: header, whether the table is a comment, and its commented keys with their line."""
    header, off, found = "", False, list[tuple[int, str]]()
    for number, line in enumerate(text.splitlines()):
        if re.match(r"#?\[", line):
            yield header, off, found
            header, off, found = (
                line.lstrip("#"),
                line.startswith("#"),
                [(number, line[1:])] * line.startswith("#"),
            )
        elif re.match(r"#\w", line):
            found.append((number, line[1:]))
    yield header, off, found


def test_a_key_of_a_new_plan_can_be_uncommented_and_changes_nothing_where_it_holds_its_default() -> None:
    text, shared = new_text(), {"micro": MICRO.read_text("utf-8")}
    plain = plan_from_text("mine", text, "mine.toml", "micro", shared=shared)
    defaults = {
        (table.header.replace("NAME", "micro"), key.name): bool(key.default)
        for table in plan_tables()
        for key in table.keys
    }
    for header, off, lines in sections(text):
        for chosen in [lines] if off else [[line] for line in lines]:
            changed = text.splitlines()
            for number, line in chosen:
                changed[number] = line
            name = chosen[-1][1].partition(" = ")[0]
            try:
                plan = plan_from_text("mine", "\n".join(changed), "mine.toml", "micro", shared=shared)
            except BadInput as error:
                # What it needs beside it is said: no key is unknown, and no value wrong.
                assert not re.search(
                    "unknown key|must be (a|one|true|text)|is missing|cannot be", str(error)
                ), chosen
                assert off or not defaults[header or "[]", name], (chosen, error)
            else:
                assert plan == plain or off or not defaults[header or "[]", name], chosen


ARMS_OF_THEIR_OWN = """
title = "{one.items} lesson or {three.items}"
hypothesis = "h"
factor = "f"
asserts = ["three.items == 3 * one.items", "patient.steps > base.steps"]
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "one"
role = "treatment"
learning = { treatment = "memory" }
[[arms]]
name = "three"
role = "treatment"
learning = { treatment = "memory", memory = { items = 3, bytes = 5000, retrieval = "ollama:nomic" } }
[[arms]]
name = "patient"
role = "treatment"
limits = { steps = 16 }
[[arms]]
name = "dora"
role = "treatment"
learning = { treatment = "adapter", training = { kind = "dora", layers = 2, batch_size = 2 } }
[profiles.micro]
like = "micro"
"""


def test_what_a_memory_tells_at_most_limits_and_training_are_an_arm_s_to_set() -> None:
    shared = {"micro": MICRO.read_text("utf-8")}

    def made(old: str = "", new: str = "") -> Plan:
        assert old in ARMS_OF_THEIR_OWN
        return plan_from_text(
            "own", ARMS_OF_THEIR_OWN.replace(old, new, 1), "own.toml", "micro", shared=shared
        )

    plan = made()
    arms = {arm.name: arm for arm in plan.arms}
    assert plan.title == "1 lesson or 3"
    assert plan.limits_of(arms["patient"]) == plan.limits.model_copy(update={"steps": 16})
    assert plan.limits_of(arms["three"]) == plan.limits
    assert plan.retrievals == ("bm25", "ollama:nomic")
    experience, learned = plan.experience, {name: arm.learning for name, arm in arms.items() if arm.learning}
    assert experience is not None and experience.training is not None
    told = {name: experience.told(how) for name in ("one", "three") if (how := learned[name].remembers)}
    assert told["one"] == RetrievalSettings(items=1, bytes=800, retrieval="bm25")
    assert told["three"] == RetrievalSettings(items=3, bytes=5000, retrieval="ollama:nomic")
    change = learned["dora"].training
    assert change is not None
    own = change.of(experience.training)
    assert (own.kind, own.layers, own.batch_size, own.rank) == (
        AdapterKind.DORA,
        2,
        2,
        experience.training.rank,
    )
    # Each of them is another arm.
    for name, value in (
        ("items = 3, bytes = 5000", "items = 3, bytes = 4000"),
        ("steps = 16", "steps = 17"),
        ("layers = 2", "layers = 1"),
    ):
        other = made(name, value).model_copy(update={"title": plan.title})
        assert content_hash(other) != content_hash(plan)
        assert [arm.config_hash() for arm in other.arms] != [arm.config_hash() for arm in plan.arms]
    for old, new, said in (
        (
            'items = 3, bytes = 5000, retrieval = "ollama:nomic"',
            "items = 1",
            "three learns what one learns: under this "
            "profile they are told the same (at most 1 item, found by bm25)",
        ),
        ('memory" }', 'memory" }\nlimits = { steps = 9 }', "one must differ from base in its learning only"),
        (
            "limits = { steps = 16 }",
            "limits = { steps = 16 }\ntemperature = 0.1",
            "found temperature, limits",
        ),
        ("limits = { steps = 16 }", "limits = { verify_s = 16 }", "unknown key"),
    ):
        with pytest.raises(BadInput, match=re.escape(said)):
            made(old, new)


def test_a_training_that_no_library_can_compute_is_refused_with_its_arm() -> None:
    shared = {"micro": MICRO.read_text("utf-8").replace("rank = 8", 'rank = 8\nlibrary = "torch"')}
    with pytest.raises(
        BadInput, match=r"own.toml:\d+:\d+: arms\.4\..*dora cannot be trained so: library: torch trains LoRA"
    ):
        plan_from_text("own", ARMS_OF_THEIR_OWN, "own.toml", "micro", shared=shared)


def test_an_arm_that_sets_nothing_of_its_own_is_written_and_hashed_as_before_it_could() -> None:
    """Old run folders keep their identity: what they do not say is not in the record."""
    for name in ("exp00", "exp09", "exp18", "ways"):
        for arm in json.loads(registered(name).to_json())["arms"]:
            assert "limits" not in arm
            learning = arm["learning"] or {}
            for how in (learning.get("memory"), learning.get("teacher")):
                assert how is None or how.keys() == {"kind", "draw", "moment"}
            change = learning.get("training")
            assert change is None or change.keys() == {
                "rank", "multiplier", "multiplier_times", "learning_rate", "iterations", "share"
            }  # fmt: skip
