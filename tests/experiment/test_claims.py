"""What a plan's sentences can say of its settings: which settings there are, what is calculated of them, and what is not."""

import pytest
from tests.experiment.test_coherence import EXPERIENCE, WARM, arm, best, told, trained
from tests.experiment.test_plans import SAID, contrast, planned

from looper.errors import BadInput
from looper.experiment.claims import PlanSettings, UnresolvedExpression

PLAN = planned(
    arm("memory", told(3, 1800))
    + arm("lora", 'learning = { treatment = "adapter", episodes = 4 }')
    + arm("wide", trained("rank = 16, multiplier = 4.0, iterations = 10"))
    + arm("often", 'learning = { treatment = "adapter", rounds = 2 }')
    + arm("pairs", 'learning = { treatment = "adapter", format = "self_qa", pairs = 2 }')
    + arm("experts", 'learning = { treatment = "adapter", strategy = { name = "mixture", division = "random", experts = 2, expert_rank = 4 } }')
    + arm("tools", 'learning = { treatment = "adapter", strategy = { name = "mixture", division = "tool", expert_rank = 4 } }')
    + arm("batches", 'learning = { treatment = "adapter", strategy = { name = "mixture", division = "batch", expert_rank = 4 } }')
    + arm("budget", 'learning = { treatment = "adapter", strategy = { name = "adaptive_rank", budget = 24 } }')
    + arm("buffer", 'learning = { treatment = "adapter", strategy = { name = "partial_replay", buffer = 5, priority = "recency" } }')
    + arm("short", "limits = { steps = 4 }")
    + arm("small", 'model = "nano:4bit"')
    + arm("elsewhere", 'model = "mlx:a/b-4bit"')
    + arm("peaked", "sampling = { top_k = 5, min_p = 0.1 }")
    + arm("first", 'repetition = 1\nonly_seeds = 1', "again")
    + best("any_of_two", "base", "first")
    + WARM,
    f"seeds = [0, 1]\n{EXPERIENCE}",
)  # fmt: skip
SETTINGS = PlanSettings(PLAN)
BASE: dict[str, float] = {
    "temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "steps": 8, "seeds": 2,
}  # fmt: skip
LEARNS: dict[str, float] = BASE | {"rounds": 1, "times": 1.0}
TRAINS: dict[str, float] = LEARNS | {
    "multiplier": 10.0, "learning_rate": 3e-4, "iterations": 30, "batch_size": 8, "rank": 8, "parameters": 8,
}  # fmt: skip
HAS: dict[str, dict[str, float]] = {
    "base": BASE,
    "warm": BASE | {"temperature": 0.9},
    "short": BASE | {"steps": 4},
    "small": BASE | {"bits": 4.0},
    "elsewhere": BASE,
    "peaked": BASE | {"top_k": 5, "min_p": 0.1},
    "first": BASE | {"seeds": 1},
    "any_of_two": {"attempts": 2},
    "memory": LEARNS | {"items": 3, "bytes": 1800},
    "lora": TRAINS | {"episodes": 4},
    "wide": TRAINS | {"rank": 16, "parameters": 16, "multiplier": 4.0, "iterations": 10},
    "often": TRAINS | {"rounds": 2},
    "pairs": TRAINS | {"pairs": 2},
    "experts": TRAINS | {"rank": 4, "experts": 2, "parameters": 8},
    "tools": TRAINS | {"rank": 4, "experts": 3, "parameters": 12},
    "batches": {key: value for key, value in (TRAINS | {"rank": 4}).items() if key != "parameters"},
    "budget": TRAINS | {"rank": 24, "parameters": 24},
    "buffer": TRAINS | {"buffer": 5},
}


@pytest.mark.parametrize("name", HAS)
def test_the_settings_of_an_arm_are_these_numbers(name: str) -> None:
    assert SETTINGS.of(name) == HAS[name]


VALUES: dict[str, float | bool] = {
    "base.steps": 8, "wide.rank * 2 - 1": 31, "wide.rank / 4 + 1": 5, " base.steps == 8 ": True, "base.steps != 8": False,
    "base.steps < 8": False, "base.steps <= 8": True, "base.steps > 8": False, "base.steps >= 8": True, "short.steps < 8": True,
    "lora.rank / 3 == 2.6666666667": True, "1 == 1.0000000001": True, "1 == 1.000000002": False, "0 == 0.0000000001": False,
    "margin * 2": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_what_is_calculated_is_what_the_settings_give(text: str) -> None:
    assert SETTINGS.value(text, {"margin": 0.25}) == VALUES[text]


NO_SETTING = "{} is no setting; write ARM.SETTING"
UNREADABLE = "{} cannot be read; write ARM.SETTING, numbers, + - * / and one comparison"
NO_VALUE = {
    "True": NO_SETTING, "'a'": NO_SETTING, "lora": NO_SETTING, "margin": NO_SETTING, "-lora.rank": NO_SETTING, "lora.rank ** 2": NO_SETTING,
    "1 < 2 < 3": NO_SETTING, "max(1, 2)": NO_SETTING,
    "lora.rank / 0": "{} divides by 0", "x +": UNREADABLE,
    "base.stepz": "base has no stepz; did you mean steps?",
    "any_of_two.rank": "any_of_two has no rank; it has attempts",
    "nobody.steps": 'there is no arm "nobody"',
    "warmer.steps": 'there is no arm "warmer"; did you mean warm?',
    "any_two.attempts": 'there is no arm "any_two"; did you mean any_of_two?',
    f"1{'0' * 400} * 1": f"1{'0' * 119}… is too long or too large to be calculated",
    f"{'y' * 118} +": UNREADABLE,
    f"{'y' * 119} +": UNREADABLE.format(f"{'y' * 119} …"),
}  # fmt: skip


@pytest.mark.parametrize("text", NO_VALUE, ids=range(len(NO_VALUE)))
def test_what_has_no_value_is_shown_with_what_can_be_written(text: str) -> None:
    with pytest.raises(UnresolvedExpression) as found:
        SETTINGS.value(text)
    assert str(found.value) == NO_VALUE[text].format(text)


def test_an_assertion_is_one_comparison_and_both_of_its_sides_are_known() -> None:
    assert SETTINGS.sides("base.steps + 1 < 2") == (9.0, 2.0)
    for text in ("base.steps", "1 < 2 < 3"):
        with pytest.raises(UnresolvedExpression) as found:
            SETTINGS.sides(text)
        assert (
            str(found.value) == f"{text} compares nothing; write one of == != < <= > >= between two settings"
        )


SENTENCES = {
    "Warmth tries {2} ways of it.": "Warmth tries 2 ways of it.",
    "Warmth tries { 12 } ways of it.": "Warmth tries 12 ways of it.",
    "Warmth of {warm.temperature} beats {base.temperature} here.": "Warmth of 0.9 beats 0.7 here.",
    "Warmth at temperature {warm.temperature} is better.": "Warmth at temperature 0.9 is better.",
    "Warmth needs {warm.steps} steps and {warm.seeds} seeds.": "Warmth needs 8 steps and 2 seeds.",
    "Warmth has {warm.steps / short.steps} times the steps.": "Warmth has 2 times the steps.",
    "Warmth has {warm.steps} long replies to show.": "Warmth has 8 long replies to show.",
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_braces_become_the_numbers_of_the_settings(sentence: str) -> None:
    assert SETTINGS.filled(sentence) == SENTENCES[sentence]


NO_NAME = (
    "{{{}}} measures something, and no setting holds it. Write {{ARM.SETTING}}, {{margin}} or a ratio; a number that is no setting is one of 1 "
    'to 12 in a name, as in "{{2}} ways"'
)
OF_ITS_OWN = (
    'says "{}" of its own, and nothing holds it to the settings{}. Write the number as {{ARM.SETTING}}, {{margin}} or a ratio, or {{2}} for '
    "one that is no setting"
)
WRONG = {
    "Warmth tries {0} ways.": NO_NAME.format("0"),
    "Warmth tries {13} ways.": NO_NAME.format("13"),
    "Warmth tries {2.5} ways.": NO_NAME.format("2.5"),
    "Warmth tries {True} ways.": NO_NAME.format("True"),
    "Warmth wins {2} tasks.": NO_NAME.format("2"),
    "Warmth wins more than {2} ways.": NO_NAME.format("2"),
    "Warmth wins 7 of them.": OF_ITS_OWN.format("7", " (temperature 0.9 against 0.7)"),
    "One step is enough.": OF_ITS_OWN.format("One step", " (temperature 0.9 against 0.7)"),
    "Warmth has {warm.steps} seeds here.": "{warm.steps} stands before seeds, which it does not count. Write a setting that does, or none",
    "Warmth has {warm.steps / base.steps} steps.": "{warm.steps / base.steps} stands before steps, which it does not count. Write a setting that "
    "does, or none",
    "Warmth has a rank of {wide.multiplier} here.": "{wide.multiplier} is no rank. Write the setting of that name",
    "Warmth has {warm.steps} % of it.": "{warm.steps} stands before a unit that no setting has. Write {margin} or {expected}, which bring theirs",
    "Warmth has {warm.steps * 2} of it.": "{warm.steps * 2} calculates with a number that is no setting. Write settings alone, as {ARM.SETTING} or "
    "{ARM.SETTING / ARM.SETTING}",
}  # fmt: skip


@pytest.mark.parametrize("sentence", WRONG)
def test_what_no_setting_holds_is_refused_with_what_can_be_written(sentence: str) -> None:
    compared = PLAN.contrasts[0].model_copy(update={"arm": "base", "against": "warm"})
    with pytest.raises(UnresolvedExpression) as found:
        SETTINGS.filled(sentence, compared)
    assert str(found.value) == WRONG[sentence]


def test_one_of_something_is_no_number_where_an_arm_has_one_of_it() -> None:
    sentence = "One item is enough here."
    asked = contrast("memory", "base", said=(sentence, *SAID[1:]))
    for items in (1, 2):
        plan = arm("memory", told(items, 900)) + asked
        if items == 1:
            assert planned(plan, EXPERIENCE, reason="a warmer one").contrasts[0].shown == sentence
        else:
            with pytest.raises(BadInput, match='says "One item" of its own'):
                planned(plan, EXPERIENCE, reason="a warmer one")


def test_margins_and_expectations_bring_their_unit() -> None:
    asked = contrast("warm", "base", 'expected = "15 points"\n')
    words = f"{asked[: asked.index('shown')]}"
    said = 'shown = "Warmth changes it somehow."\nrefuted = "Warmth changes it otherwise."\nopen = "It is open by {expected}, {margin}."\n'
    (found,) = planned(words + said).contrasts
    assert found.open == "It is open by 15 points, 10 points."


def test_what_is_asserted_of_a_choice_is_held_to_it_too() -> None:
    choice = arm("first", "repetition = 1", "again") + best("any_of_two", "base", "first") + WARM
    assert planned(choice, head='asserts = ["any_of_two.attempts == 2"]\n').choices
    with pytest.raises(BadInput, match="any_of_two.attempts == 3 is not so: 2 against 3"):
        planned(choice, head='asserts = ["any_of_two.attempts == 3"]\n')
