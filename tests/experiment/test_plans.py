"""Experiment files: what they say, and what is wrong with them."""

from pathlib import Path

import pytest
from tests.fakes.swe_bench_rows import relation, row, written

from looper.edges.datasets.swe_bench import load_swe_bench
from looper.errors import BadInput
from looper.experiment.plans import parse_model, plan_from_text
from looper.experiment.schedule import by_age, changed_since, lanes, select_tasks, split_tasks
from looper.records.learning import Experience, Source, Split, TrainingChange, Treatment
from looper.records.plan import ArmRole, Plan, TaskSelection
from looper.records.task import Task
from looper.records.training import TrainingSettings

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
        ('title = "Controls"', 'title = "Controls', r"exp00.toml is not valid TOML: .*line 3"),
        (
            'factor = "what the arm has learned; for gold and noop the agent itself"',
            'factor = 3\ncolour = "red"',
            r"factor: .*string.*; .*colour: unknown key",
        ),
        ("steps = 8", "steps = 0", r"exp00.toml, line \d+, profiles.micro.limits.steps: .*greater than 0"),
        ("steps = 8", "stepz = 6", r"line \d+, profiles.micro.limits.stepz: unknown key"),
        ('role = "base"', 'role = "hero"', r"arms.2.role: .*'base', 'again'"),
        ("repetition = 1", "", "needs a repetition of its own"),
        ("repetition = 1", "repetition = 1\ntemperature = 0.9", "must equal base in everything"),
        ('scaffold = "terse"', 'scaffold = "fancy"', 'no scaffold "fancy". Use one of: full, terse'),
        ('model = "nano"', 'model = "gpt"', "names no model"),
        ("level = 0", "level = 9", "profiles.micro.tasks.level"),
        ("[profiles.micro.limits]", "[profiles.micro.limit]", "profiles.micro.limit: unknown key"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_field(old: str, new: str, said: str) -> None:
    assert old in text()
    with pytest.raises(BadInput, match=said) as error:
        load(text().replace(old, new, 1))
    assert "\n" not in str(error.value)


def test_the_line_of_a_wrong_value_is_its_own() -> None:
    line = text().splitlines().index("verify_s = 900.0") + 1
    with pytest.raises(BadInput, match=rf"line {line}, profiles.swe.limits.verify_s"):
        load(text().replace("verify_s = 900.0", "verify_s = -1.0"), profile="swe")


def test_an_unknown_profile_names_those_that_exist() -> None:
    with pytest.raises(BadInput, match='no profile "macro". It has: micro, demo, swe'):
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
    for wrong in ("nano:x", "mlx", "ollama:", "what:x"):
        with pytest.raises(BadInput):
            parse_model(wrong)


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
    with pytest.raises(BadInput, match="no arm gould"):
        lanes(plan, tasks, ["gould"])


def test_a_profile_may_run_some_of_the_arms_and_must_name_them_right() -> None:
    changed = text().replace('arms = ["gold", "noop", "base", "base_again", "positive"', 'arms = ["bass"')
    with pytest.raises(BadInput, match="has no arm bass. It has: gold, noop"):
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
    assert [found.arm for found in demo.contrasts] == ["lora", "memory", "base_again", "lora_redrawn"]
    with pytest.raises(BadInput, match="contrasts: there is no arm lorra"):
        plan_from_text("exp00", text().replace('arm = "lora"', 'arm = "lorra"', 1), "exp00.toml", "micro")


EXPERIMENTS = sorted(FILE.parent.glob("exp*.toml"))
SHARED = {path.stem: path.read_text("utf-8") for path in (FILE.parent / "profiles").glob("*.toml")}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_registered_experiment_is_a_plan_under_its_profiles(path: Path) -> None:
    """Each has its base, a repeat of it, a primary contrast, and what will be said of every outcome."""
    profiles = ["micro"] if path.stem == "exp10" else ["micro", "swe"]
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


def test_a_profile_builds_on_a_shared_one_and_differs_where_it_says() -> None:
    def load_small(profile: str) -> Plan:
        return plan_from_text("t", small(profile), "t.toml", "mine", shared=SHARED)

    plan = load_small('like = "micro"\nlimits = { steps = 5 }')
    assert plan.limits.steps == 5 and plan.limits.output_tokens == 80 and plan.model_dump()["seeds"] == (0,)
    with pytest.raises(
        BadInput, match=r"profiles.mine.like: there is no shared profile 'macro'. There are: .*micro"
    ):
        load_small('like = "macro"')
    with pytest.raises(BadInput, match=r"t.toml, line \d+, profiles.mine.limits.stepz: unknown key"):
        load_small('like = "micro"\n[profiles.mine.limits]\nstepz = 5')


def test_a_profile_in_a_file_of_its_own_builds_on_a_shared_one_too() -> None:
    def load_file(profile: str) -> Plan:
        return plan_from_text("exp00", text(), "exp00.toml", "one.toml", profile_text=profile, shared=SHARED)

    plan = load_file('like = "controls"\n[tasks]\nrepos = ["django/django"]')
    assert plan.selection.repos == ("django/django",) and [arm.name for arm in plan.arms] == ["gold", "noop"]
    with pytest.raises(BadInput, match=r"one.toml, like: there is no shared profile 'macro'"):
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
    with pytest.raises(BadInput, match="names must differ, found base, base"):
        plan_from_text("t", small('like = "micro"', arms=arms), "t.toml", "mine", shared=SHARED)


def test_a_choice_takes_from_arms_that_exist_and_can_be_compared() -> None:
    choice = '[[choices]]\nname = "both"\nof = ["base", "other"]\nby = "majority"\n'
    contrast = '[[contrasts]]\narm = "both"\nagainst = "base"\nshown = "a"\nrefuted = "b"\nopen = "c"\n'
    other = '[[arms]]\nname = "other"\nrole = "again"\nrepetition = 1\n'
    arms = f'[[arms]]\nname = "base"\nrole = "base"\n{other}{choice}{contrast}'

    def load_small(arms: str, profile: str = 'like = "micro"') -> Plan:
        return plan_from_text("t", small(profile, arms=arms), "t.toml", "mine", shared=SHARED)

    plan = load_small(arms)
    assert plan.choices[0].of == ("base", "other") and plan.contrasts[0].arm == "both"
    left = load_small(arms, 'like = "micro"\narms = ["base"]')
    assert not left.choices and not left.contrasts
    with pytest.raises(BadInput, match="choices: there is no arm nobody"):
        load_small(arms.replace('"base", "other"', '"base", "nobody"'))
    with pytest.raises(BadInput, match="both is a choice, which has no steps"):
        load_small(arms.replace('against = "base"', 'against = "base"\nmetric = "valid_actions"'))
    with pytest.raises(BadInput, match="the name other is an arm's"):
        load_small(arms.replace('"both"', '"other"'))


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
        f'[[arms]]\nname = "a{number}"\nrole = "again"\nrepetition = {number}\n' for number in (1, 2)
    )
    dose = '[[contrasts]]\narm = "a2"\nagainst = "base"\nthrough = ["a1"]\nshown = "a"\nrefuted = "b"\nopen = "c"\n'
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
