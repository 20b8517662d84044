"""What is said of a mistake in a plan, word for word, and where each key of a file stands."""

import pytest
from tests.experiment.test_plans import SHARED, small

from looper.errors import BadInput
from looper.experiment.plan_errors import did_you_mean
from looper.experiment.plans import plan_from_text
from looper.experiment.toml_positions import Position, nearest, places


def refusal(old: str, new: str) -> str:
    """What is wrong with a small plan after a change, without the name of its file."""
    plan = small('like = "demo"')
    assert old in plan
    with pytest.raises(BadInput) as caught:
        plan_from_text("t", plan.replace(old, new, 1), "t.toml", "mine", shared=SHARED)
    return str(caught.value).replace("t.toml:", "")


FACTOR, NAME, ROLE, LIKE = 'factor = "f"', 'name = "base"', 'role = "base"', 'like = "demo"'
LETTERS = "must be small letters, digits and underscores, a letter first"
ROLES = "must be one of base, again, control, treatment, experience"
ARM_KEYS = "Allowed here: name, role, model, adapted, scaffold, temperature, sampling, repetition, only_seeds, limits, learning, agent, reason"
LEARNING_KEYS = (
    "Allowed here: treatment, source, episodes, objective, memory, teacher, format, pairs, shuffled, failures, failure_weight, masked, "
    "recovered, writer, training, times, overseer, overseen, blind, rounds, elsewhere, strategy, batches"
)
STRATEGIES = "full_replay, sequential, partial_replay, anchored, mixture, adaptive_rank"


def learns(learning: str) -> str:
    return f'role = "treatment"\nlearning = {{ {learning} }}'


def strategy(how: str) -> str:
    return learns(f'treatment = "adapter", strategy = {{ {how} }}')


MISTAKES = [
    (FACTOR, "factor = true", "3:1: factor: must be text, found true"),
    (FACTOR, "factor = { a = 1 }", "3:1: factor: must be text, found a table"),
    # What is found is shown as far as 40 characters go.
    (FACTOR, f"factor = ['{'y' * 36}']", f"3:1: factor: must be text, found [\"{'y' * 36}\"]"),
    (FACTOR, f"factor = ['{'y' * 37}']", f"3:1: factor: must be text, found [\"{'y' * 37}\"…"),
    (NAME, 'name = "Base One!"', f'5:1: arms.0.name: {LETTERS}, found "Base One!"; write base_one (arms.0 is Base One!)'),
    (NAME, 'name = "Übär"', f'5:1: arms.0.name: {LETTERS}, found "Übär" (arms.0 is Übär)'),
    (NAME, 'name = "1base"', f'5:1: arms.0.name: {LETTERS}, found "1base" (arms.0 is 1base)'),
    (NAME, 'name = "-"', f'5:1: arms.0.name: {LETTERS}, found "-" (arms.0 is -)'),
    (NAME, f'name = "{"b" * 65}"', f'5:1: arms.0.name: takes 64 characters or fewer, found "{"b" * 39}… (arms.0 is {"b" * 65})'),
    (
        FACTOR,
        f'{FACTOR}\n[[choices]]\nname = "{"b" * 65}"\nof = ["base", "base"]\nby = "any"',
        f'5:1: choices.0.name: takes 64 characters or fewer, found 65 (choices.0 is {"b" * 65})',
    ),
    (ROLE, 'role = "bas"', f'6:1: arms.0.role: {ROLES}, found "bas"; did you mean base? (arms.0 is base)'),
    (ROLE, "role = 3", f"6:1: arms.0.role: {ROLES}, found 3 (arms.0 is base)"),
    (ROLE, f"role = '{'x' * 39}'", f"6:1: arms.0.role: {ROLES}, found \"{'x' * 39}… (arms.0 is base)"),
    (ROLE, "", "4:3: arms.0.role: is missing (arms.0 is base)"),
    (NAME, "", "4:3: arms.0.name: is missing"),
    (f"{NAME}\n{ROLE}", 'model = "nano"', "4:3: arms.0.name, arms.0.role: are missing"),
    ('title = "t"\nhypothesis = "h"\n', "", " title, hypothesis: are missing"),
    (ROLE, f"{ROLE}\nroll = 1", f"7:1: arms.0.roll: unknown key; did you mean role? {ARM_KEYS} (arms.0 is base)"),
    (ROLE, f"{ROLE}\nqqqq = 1", f"7:1: arms.0.qqqq: unknown key. {ARM_KEYS} (arms.0 is base)"),
    (
        ROLE,
        learns('treatment = "adapter", rank = 2'),
        f"7:37: arms.0.learning.rank: unknown key; write training = {{ rank = … }}. {LEARNING_KEYS} (arms.0 is base)",
    ),
    (
        ROLE,
        strategy('name = "anchord"'),
        f'7:50: arms.0.learning.strategy.name: must be one of {STRATEGIES}, found "anchord"; did you mean anchored? (arms.0 is base)',
    ),
    (ROLE, strategy('pull = "equal"'), "7:37: arms.0.learning.strategy: needs its name (arms.0 is base)"),
    (
        ROLE,
        strategy('name = "anchored", pulll = 1'),
        "7:69: arms.0.learning.strategy.pulll: unknown key. Allowed here: name, anchor (arms.0 is base); "
        "7:37: arms.0.learning.strategy.anchor: is missing (arms.0 is base)",
    ),
    (
        ROLE,
        learns('treatment = "memory", memory = { retrieval = "ollamma" }'),
        '7:47: arms.0.learning.memory.retrieval: must be bm25 or ollama:MODEL, found "ollamma" (arms.0 is base)',
    ),
    (
        ROLE,
        learns('treatment = "memory", memory = { items = 0 }'),
        "7:47: arms.0.learning.memory.items: must be greater than 0, found 0 (arms.0 is base)",
    ),
    (LIKE, f"{LIKE}\nseeds = []", "9:1: profiles.mine.seeds: needs 1 or more of them, found []"),
    (LIKE, f"{LIKE}\nseeds = 3", "9:1: profiles.mine.seeds: must be a list, found 3"),
    (LIKE, f"{LIKE}\nseeds = [1.5]", "9:10: profiles.mine.seeds.0: must be a whole number, found 1.5"),
    (
        LIKE,
        f'{LIKE}\nseeds = ["a", 2, "b"]',
        '9:10: profiles.mine.seeds.0: must be a whole number, found "a"; 9:18: profiles.mine.seeds.2: must be a whole number, found "b"',
    ),
    (LIKE, f"{LIKE}\ntemperature = -0.1", "9:1: profiles.mine.temperature: must be 0.0 or more, found -0.1"),
    (LIKE, f'{LIKE}\ntemperature = "x"', '9:1: profiles.mine.temperature: must be a number, found "x"'),
    (LIKE, f"{LIKE}\nlimits = 3", "9:1: profiles.mine.limits: must be a table, found 3"),
    (LIKE, f"{LIKE}\nlimits = {{ steps = 2.5 }}", "9:12: profiles.mine.limits.steps: must be a whole number, found 2.5"),
    (LIKE, f"{LIKE}\ndiscordance = 2", "9:1: profiles.mine.discordance: must be 1.0 or less, found 2"),
    (
        LIKE,
        f'{LIKE}\nscaffold = {{ tools = ["bash", "bassh"] }}',
        '9:31: profiles.mine.scaffold.tools.1: must be one of bash, read, edit, write, done, found "bassh"; did you mean bash?',
    ),
    (
        ROLE,
        learns('treatment = "adapter", objective = "distillation", teacher = { moment = "file_open" }'),
        "7:65: arms.0.learning.teacher: reads its memory at the start; leave moment out (arms.0 is base)",
    ),
    (
        ROLE, learns('treatment = "memory", memory = { kind = "playbook", draw = "oracle" }'),
        "7:66: arms.0.learning.memory.draw: oracle chooses among items by their code, so kind must be one of lessons, raw, successes, found playbook (arms.0 is base)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_with_its_place_and_with_what_would_be_right(old: str, new: str, said: str) -> None:
    assert refusal(old, new) == said


def test_at_most_two_names_are_offered_and_only_near_ones() -> None:
    assert did_you_mean("step", ["steps", "stop", "stem", "far"]) == "; did you mean steps or stop?"
    assert did_you_mean("qqq", ["steps", "far"]) == did_you_mean("steps", []) == ""


TOML = '''# a comment
title = "a # b"  # tail
'quo ted'."in.ner" . bare-1 = 'x'
list = [1, "two", [3,
  { a = 1, b = "]" }], ]   # [
text = """
[no.header]
x = 1
"""
empty = {}
none = []
  [top . "a.b"]
one = 1
[[many]]
x = 1
[[many]]
y.z = 2
[many.inner]
w = 3
[[many.deep]]
v = { p = { q = 1 }, r.s = 2 }
last = -1.5'''
PLACES = {
    "title": (2, 1), "quo ted": (3, 1), "quo ted/in.ner": (3, 11), "quo ted/in.ner/bare-1": (3, 22),
    "list": (4, 1), "list/0": (4, 9), "list/1": (4, 12), "list/2": (4, 19), "list/2/0": (4, 20), "list/2/1": (5, 3),
    "list/2/1/a": (5, 5), "list/2/1/b": (5, 12), "text": (6, 1), "empty": (10, 1), "none": (11, 1),
    "top": (12, 4), "top/a.b": (12, 10), "top/a.b/one": (13, 1),
    "many": (14, 3), "many/0": (14, 3), "many/0/x": (15, 1), "many/1": (16, 3), "many/1/y": (17, 1), "many/1/y/z": (17, 3),
    "many/1/inner": (18, 7), "many/1/inner/w": (19, 1), "many/1/deep": (20, 8), "many/1/deep/0": (20, 8),
    "many/1/deep/0/v": (21, 1), "many/1/deep/0/v/p": (21, 7), "many/1/deep/0/v/p/q": (21, 13), "many/1/deep/0/v/r": (21, 22),
    "many/1/deep/0/v/r/s": (21, 24), "many/1/deep/0/last": (22, 1),
}  # fmt: skip


def test_every_key_table_and_item_has_its_line_and_column() -> None:
    found = {"/".join(map(str, path)): (place.line, place.column) for path, place in places(TOML).items()}
    assert found == PLACES
    assert places("") == {} and places("\n\n a=1") == {("a",): Position(3, 2)}


def test_what_is_not_written_is_near_the_innermost_table_that_is() -> None:
    known = places(TOML)
    assert nearest(known, ("many", 1, "inner", "nothing", 3)) == Position(18, 7)
    assert nearest(known, ("many", 9, "x")) == Position(14, 3) and nearest(known, ("one",)) is None
    assert nearest(known, ("title",)) == Position(2, 1) and nearest(known, ()) is None
