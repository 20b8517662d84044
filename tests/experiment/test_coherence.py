"""The last plan that is taken and the first that is refused, for each bound that a plan has to keep, and what is said of it."""

import json

import pytest
from tests.experiment.test_plans import NOT_MORE, SAME, contrast, planned

from looper.errors import BadInput

WARM = contrast("warm", "base")
EXPERIENCE = "experience = { batch = 8 }\n"


def arm(name: str, more: str, role: str = "treatment") -> str:
    return f'[[arms]]\nname = "{name}"\nrole = "{role}"\n{more}\nreason = "what it does"\n'


def told(items: int, size: int, kind: str = "lessons") -> str:
    of = f', kind = "{kind}"' if kind != "lessons" else ""
    return f'learning = {{ treatment = "memory", memory = {{ items = {items}, bytes = {size}{of} }} }}'


def trained(settings: str) -> str:
    return f'learning = {{ treatment = "adapter", training = {{ {settings} }} }}'


def refusal(contrasts: str, profile: str = "", reason: str = "") -> str:
    """What is wrong with a plan, without the name of its file; empty where nothing is."""
    try:
        planned(contrasts, profile, reason=reason)
    except BadInput as error:
        return str(error).removeprefix("t.toml:").replace("; t.toml:", "; ")
    return ""


def one_measurement(how: str, place: str, arms: str) -> str:
    return (
        f"{place}: {arms} samples nothing {how}, so that its 2 seeds are one measurement that is counted 2 times. Give it one seed "
        "(only_seeds = 1, or seeds), or let it draw"
    )


ALIKE = "base (as well as warm)"
SEEDS = "seeds = [0, 1]\n"
PROFILES = [
    (f"{SEEDS}temperature = 0.05", f"{SEEDS}temperature = 0.049", one_measurement("at temperature 0.049", "20:1: temperature", "base")),
    ("seeds = [0]\ntemperature = 0.0", f"{SEEDS}temperature = 0.0", one_measurement("at temperature 0", "20:1: temperature", "base")),
    (f"{SEEDS}sampling = {{ top_k = 2 }}", f"{SEEDS}sampling = {{ top_k = 1 }}", one_measurement("with top_k = 1", "20:1: sampling", ALIKE)),
    (f"{SEEDS}sampling = {{ top_p = 0.05 }}", f"{SEEDS}sampling = {{ top_p = 0.049 }}", one_measurement("with top_p = 0.049", "20:1: sampling", ALIKE)),
    (f"{SEEDS}sampling = {{ min_p = 0.95 }}", f"{SEEDS}sampling = {{ min_p = 0.951 }}", one_measurement("with min_p = 0.951", "20:1: sampling", ALIKE)),
    (
        'model = "anthropic:claude-x"\ntemperature = 1.0',
        'model = "anthropic:claude-x"\ntemperature = 1.1',
        "20:1: temperature: base: anthropic takes no temperature above 1. Lower it to 1",
    ),
    (
        'model = "anthropic:claude-x"\nsampling = { top_k = 5, top_p = 0.5 }',
        'model = "anthropic:claude-x"\nsampling = { top_k = 5, min_p = 0.1, repeat_penalty = 1.1 }',
        f"20:1: sampling: {ALIKE}: anthropic cannot be told min_p, repeat_penalty. Leave them out",
    ),
    (
        "discordance = 0.05",
        "discordance = 0.049",
        "19:1: discordance: takes equal arms to differ in 4.9 % of the cells, and decisions are simulated from 5 % on. Raise it to 0.05 or "
        "more, or leave it out",
    ),
    (
        "spread = 0.1",
        "spread = 0.09",
        "19:1: spread: takes true differences to vary by 9 points between repositories, and no run measures less than the 10 that are taken "
        "otherwise. Raise it to 0.1 or more, or leave it out",
    ),
    ("limits = { steps = 2 }", "limits = { steps = 1 }", "19:12: limits.steps: a rollout has 1 step, and an edit and done take 2. Raise it"),
    (
        "limits = { output_tokens = 2047 }",
        "limits = { output_tokens = 2048 }",
        "19:12: limits.output_tokens: a reply may have 2048 tokens, and the context holds 2048 with its prompt. Lower it, or raise context_tokens",
    ),
    (
        "limits = { total_tokens = 80 }",
        "limits = { total_tokens = 79 }",
        "19:12: limits.total_tokens: a rollout may have 79 tokens, and one reply 80. Raise it, or lower output_tokens",
    ),
    (
        "limits = { wall_s = 1.0 }",
        "limits = { wall_s = 0.9 }",
        "19:12: limits.wall_s: a rollout has 0.9 s, and nothing is done and judged in less than 1 s. Raise it",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("taken", "refused", "said"), PROFILES, ids=[said[:40] for *_, said in PROFILES])
def test_the_bounds_of_a_profile(taken: str, refused: str, said: str) -> None:
    assert (refusal(WARM, taken), refusal(WARM, refused)) == ("", said)


def test_what_an_arm_has_of_its_own_is_said_of_the_arm() -> None:
    cold = arm("cold", "temperature = 1.2") + WARM
    assert refusal(cold, 'model = "anthropic:claude-x"\ntemperature = 1.1') == (
        "25:1: temperature: base: anthropic takes no temperature above 1. Lower it to 1; "
        "14:1: arms.2.temperature: cold: anthropic takes no temperature above 1. Lower it to 1"
    )


def asking(more: str) -> str:
    return contrast("warm", "base", more)


DIFFERENCES = [
    (
        WARM + asking(f'{SAME}margin = "10 points"\n'),
        WARM + asking(f'{SAME}margin = "10.5 points"\n'),
        "21:1: contrasts.1.margin: warm − base would call arms alike that differ by 10.5 points, and the smallest difference that this plan "
        "expects of one is 10 points. Lower the margin",
    ),
    (
        asking(f'{SAME}margin = "20 points"\n'),
        asking(f'{SAME}margin = "20.5 points"\n'),
        "15:1: contrasts.0.margin: warm − base would call arms alike that differ by 20.5 points, and the widest that is taken for nothing is "
        "20 points. Lower the margin",
    ),
    (
        asking('expected = "0.1 points"\n'),
        asking('expected = "0.09 points"\n'),
        "14:1: contrasts.0.expected: warm − base asks for 0.09 points, and nothing finer than 0.1 points is resolved: one cell of a thousand. "
        "Raise it",
    ),
    (
        asking('expected = "85 points"\n'),
        asking('expected = "85.5 points"\n'),
        "14:1: contrasts.0.expected: warm − base expects 85.5 points, and where equal arms differ in 30 % of the cells, half of them gains, no "
        "more than 85 points can be gained beside. Lower it",
    ),
    (
        asking(NOT_MORE) + contrast("base", "warm", NOT_MORE),
        asking(SAME) + contrast("base", "warm", SAME),
        "19:1: contrasts.1.arm: base − warm asks what warm − base asks already, and each is counted. Leave one of them out",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("taken", "refused", "said"), DIFFERENCES, ids=[said[:40] for *_, said in DIFFERENCES]
)
def test_the_bounds_of_a_difference(taken: str, refused: str, said: str) -> None:
    assert (refusal(taken), refusal(refused)) == ("", said)


def test_a_margin_in_nats_is_a_fifth_of_the_probability_of_every_token() -> None:
    elsewhere = f"15:1: contrasts.0.metric: {ALIKE} has no retention: that is measured after the batches of a strategy"
    wide = (
        "16:1: contrasts.0.margin: warm − base would call arms alike that differ by 0.224 nats per token, and the widest that is taken for "
        "nothing, a fifth of the probability of every token, 0.223 nats: it is 0.223 nats per token. Lower the margin; "
    )
    for nats, said in (("0.223", ""), ("0.224", wide)):
        asked = asking(f'{SAME}metric = "retention"\nmargin = "{nats} nats"\n')
        assert refusal(asked) == said + elsewhere


SEVERAL = "only_seeds = {}\nrepetition = 1"
ARMS = [
    (
        arm("often", SEVERAL.format(2), "again"),
        arm("often", SEVERAL.format(3), "again"),
        "14:1: arms.2.only_seeds: often is to run with 3 seeds, and the plan has 2. Lower it, or name more seeds",
    ),
    (
        arm("m", told(2, 80)),
        arm("m", told(2, 79)),
        "14:58: arms.2.learning.memory.bytes: m is told at most 2 items in 79 bytes, and the shortest that tells code has 40 or more: there is "
        "room for 1. Raise the bytes, or lower the items",
    ),
    (
        arm("m", told(1, 40)),
        arm("m", told(1, 39)),
        "14:58: arms.2.learning.memory.bytes: m is told at most 1 item in 39 bytes, and the shortest that tells code has 40 or more: there is "
        "room for 0. Raise the bytes, or lower the items",
    ),
    (
        arm("m", told(2, 40, "raw")),
        arm("m", told(2, 39, "raw")),
        "14:58: arms.2.learning.memory.bytes: m is told at most 2 items in 39 bytes, and the shortest that tells code has 20 or more: there is "
        "room for 1. Raise the bytes, or lower the items",
    ),
    (
        arm("m", told(9, 40, "playbook")),
        arm("m", told(9, 39, "playbook")),
        "14:58: arms.2.learning.memory.bytes: m is told one text in 39 bytes, and the shortest that tells code has 40 or more. Raise the bytes",
    ),
    (
        arm("a", told(1, 599, "playbook")) + arm("b", 'learning = { treatment = "memory", memory = { items = 1, kind = "playbook" } }'),
        arm("a", told(9, 600, "playbook")) + arm("b", 'learning = { treatment = "memory", memory = { items = 1, kind = "playbook" } }'),
        "19:1: arms.3.learning: b learns what a learns: under this profile they are told the same (one text made of the items from earlier "
        "tasks of its repository)",
    ),
    (
        arm("m", trained("rank = 128")),
        arm("m", trained("rank = 129")),
        "14:50: arms.2.learning.training.rank: m: a change of rank 129 is wider than the model, whose matrices have 128 rows or columns. Lower it",
    ),
    (
        arm("m", trained("max_tokens = 32")),
        arm("m", trained("max_tokens = 31")),
        "14:50: arms.2.learning.training.max_tokens: m: an example may have 31 tokens, and the shortest has 32 or more: nothing would be left to "
        "train on. Raise it",
    ),
    (
        arm("m", trained("learning_rate = 1e-7, iterations = 10")),
        arm("m", trained("learning_rate = 1e-7, iterations = 9")),
        "14:50: arms.2.learning.training.learning_rate: m: at a learning rate of 1e-07 9 iterations move no weight by more than 9e-07, which is "
        "lost in rounding. Raise it",
    ),
    (
        arm("short", "limits = { steps = 2 }") + arm("shorter", "limits = { steps = 2, wall_s = 1.0 }"),
        arm("short", "limits = { steps = 1 }") + arm("shorter", "limits = { steps = 1, wall_s = 0.5 }"),
        "14:12: arms.2.limits.steps: short: a rollout has 1 step, and an edit and done take 2. Raise it; "
        "19:12: arms.3.limits.steps: shorter: a rollout has 1 step, and an edit and done take 2. Raise it; "
        "19:23: arms.3.limits.wall_s: shorter: a rollout has 0.5 s, and nothing is done and judged in less than 1 s. Raise it",
    ),
    (
        arm("mute", 'scaffold = { tools = ["bash", "done"] }'),
        arm("mute", "scaffold = { tools = [] }"),
        "14:14: arms.2.scaffold.tools: mute has the tools none, and lacks a way to change a file (bash, edit or write), and done, to say that it "
        "has finished. Add to them",
    ),
    (
        arm("mute", 'scaffold = { tools = ["write", "done"] }'),
        arm("mute", 'scaffold = { tools = ["write", "read"] }'),
        "14:14: arms.2.scaffold.tools: mute has the tools write, read, and lacks done, to say that it has finished. Add to them",
    ),
    (
        arm("a", trained("rank = 4")) + arm("b", 'learning = { treatment = "adapter" }'),
        arm("a", trained("rank = 8")) + arm("b", 'learning = { treatment = "adapter" }'),
        "19:1: arms.3.learning: b learns what a learns: under this profile their training is the same (rank 8, multiplier 10, learning rate "
        "0.0003, 30 iterations)",
    ),
    (
        arm("a", told(1, 599)) + arm("b", 'learning = { treatment = "memory", memory = { items = 1 } }'),
        arm("a", told(1, 600)) + arm("b", 'learning = { treatment = "memory", memory = { items = 1 } }'),
        "19:1: arms.3.learning: b learns what a learns: under this profile they are told the same (at most 1 item, found by bm25)",
    ),
    (
        arm("a", told(2, 600)) + arm("b", 'learning = { treatment = "memory", memory = { items = 1 } }'),
        arm("a", told(2, 600)) + arm("b", 'learning = { treatment = "memory", memory = { items = 2 } }'),
        "19:1: arms.3.learning: b learns what a learns: under this profile they are told the same (at most 2 items, found by bm25)",
    ),
    (
        arm("g", 'learning = { treatment = "adapter" }') + arm("m", 'learning = { treatment = "random_adapter" }', "control"),
        arm("g", 'learning = { treatment = "adapter", source = "gold" }') + arm("m", 'learning = { treatment = "random_adapter" }', "control"),
        "19:1: arms.3.learning: m is made from the adapter of an arm that is plainly trained on own experience (learning = { treatment = "
        '"adapter" }), and there is none; g learns from gold: give it the same source',
    ),
    (
        "",
        arm("m", 'learning = { treatment = "random_adapter" }', "control"),
        "14:1: arms.2.learning: m is made from the adapter of an arm that is plainly trained on own experience (learning = { treatment = "
        '"adapter" }), and there is none',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("taken", "refused", "said"), ARMS, ids=[said[:40] for *_, said in ARMS])
def test_the_bounds_of_an_arm(taken: str, refused: str, said: str) -> None:
    profile = f'scaffold = "full"\n{SEEDS}{EXPERIENCE}'
    assert (refusal(taken + WARM, profile), refusal(refused + WARM, profile)) == ("", said)


def test_what_is_the_profile_s_is_told_once_and_at_the_profile() -> None:
    plain = 'learning = { treatment = "adapter" }'
    profile = "experience = { batch = 8, training = { max_tokens = 31 } }"
    said = "an example may have 31 tokens, and the shortest has 32 or more: nothing would be left to train on. Raise it"
    other = arm("n", plain.replace(" }", ', source = "gold" }'))
    assert (
        refusal(arm("m", plain) + other + WARM, profile)
        == f"29:40: experience.training.max_tokens: m: {said}"
    )


def test_a_rank_is_held_to_the_model_that_is_named() -> None:
    for rank, said in (
        (64, ""),
        (65, "rank 65 is wider than the model, whose matrices have 64 rows or columns"),
    ):
        found = refusal(arm("m", trained(f"rank = {rank}")) + WARM, f'model = "nano:small"\n{EXPERIENCE}')
        assert bool(found) == bool(said) and said in found


def test_what_was_sampled_before_differs_from_seed_to_seed_without_drawing_now() -> None:
    greedy = f"{SEEDS}temperature = 0.0\n{EXPERIENCE}"
    assert refusal(arm("m", trained("rank = 4")) + arm("n", told(1, 90)) + WARM, greedy) == one_measurement(
        "at temperature 0", "30:1: temperature", "base"
    )


def best(name: str, *of: str) -> str:
    return f'[[choices]]\nname = "{name}"\nby = "any"\nof = {json.dumps(of)}\nreason = "all attempts"\n'


TWO_MORE = arm("other", "repetition = 1", "again") + arm("third", "repetition = 2", "again")


def test_the_best_of_several_is_compared_with_the_best_of_as_many() -> None:
    reason = "a warmer one"
    three, two = best("three", "base", "other", "third"), best("two", "base", "other")
    equal = two + best("two_more", "base", "third") + contrast("two", "two_more")
    assert refusal(TWO_MORE + equal, reason=reason) == ""
    assert refusal(TWO_MORE + three + two + contrast("three", "two"), reason=reason) == (
        "33:1: contrasts.0.arm: three − two has its answer before the data: three takes whichever of 3 attempts hidden tests resolve, and two "
        "has fewer. Compare it with the best of as many, or ask how much more at most; "
        "34:1: contrasts.0.against: three − two has its answer before the data: three takes whichever of base, other, third is resolved, so it "
        'never resolves less than two; by how much more at most is a question, expect = "not_more" with a margin'
    )
    assert refusal(TWO_MORE + three + two + contrast("two", "three"), reason=reason) == (
        "34:1: contrasts.0.against: two − three has its answer before the data: three takes whichever of base, other, third is resolved, so it "
        'never resolves less than two; by how much more at most is a question, expect = "not_less" with a margin'
    )
    assert refusal(TWO_MORE + three + two + contrast("three", "two", NOT_MORE), reason=reason) == ""


def test_arms_and_choices_are_compared_or_say_why_they_are_there() -> None:
    silent = TWO_MORE.replace('reason = "what it does"\n', "")
    said = 'no contrast is about {}; register one, or say why it is there: reason = "…"'
    assert refusal(silent + WARM) == (
        f"12:1: arms.2.name: {said.format('other')}; 16:1: arms.3.name: {said.format('third')}"
    )
    assert refusal(silent + best("all", "base", "other", "third") + WARM) == ""
    unsaid = best("two", "base", "other").replace('reason = "all attempts"\n', "")
    assert refusal(TWO_MORE + unsaid + WARM) == f"22:1: choices.0.name: {said.format('two')}"
    assert refusal(TWO_MORE + unsaid + contrast("two", "base", NOT_MORE), reason="a warmer one") == ""
    assert refusal("") == "", "where nothing is compared nothing is needless"


def through(*names: str) -> str:
    return contrast(names[0], names[-1], f"through = {json.dumps(names[1:-1])}\n")


@pytest.mark.parametrize(
    ("items", "is_dose"),
    [((1, 2, 3), True), ((3, 2, 1), True), ((1, 3, 2), False), ((2, 1, 3), False), ((1, 2, 2), False), ((2, 2, 1), False)],
)  # fmt: skip
def test_a_line_goes_through_arms_in_which_one_setting_rises_or_falls(
    items: tuple[int, ...], is_dose: bool
) -> None:
    # No two learn the same, and what else they differ in goes up and down.
    arms = "".join(
        arm(f"a{at}", told(count, size))
        for at, (count, size) in enumerate(zip(items, (500, 700, 600), strict=True))
    )
    said = (
        "30:1: contrasts.0.through: a2 − a0, as a line through 3 arms draws a line through arms without a dose: no setting rises or falls "
        "from a0 to a1 to a2. Name arms that differ in how much of one thing they have, or leave through out"
    )
    found = refusal(arms + through("a2", "a1", "a0"), EXPERIENCE, reason="a warmer one")
    assert found == ("" if is_dose else said)


def test_a_line_begins_or_ends_with_an_arm_that_has_nothing_of_it() -> None:
    reason = "a warmer one"
    dose = arm("a", told(1, 900)) + arm("b", told(3, 900))
    assert refusal(dose + through("b", "a", "base"), EXPERIENCE, reason=reason) == ""
    mixed = arm("a", told(1, 900)) + arm("b", trained("rank = 4"))
    assert "a line through arms without a dose" in refusal(
        mixed + through("b", "a", "base"), EXPERIENCE, reason=reason
    )


KNOWN = {
    "gold": ('model = "gold"', "plays the benchmark's own patch, which resolves every task that is eligible"),
    "noop": ('model = "noop"', "does nothing, which resolves no task that is eligible"),
    "zero": ('learning = { treatment = "zero_adapter" }', "has an adapter that changes nothing, which is proved before the first task"),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_by_construction_is_no_question_from_either_side(name: str) -> None:
    more, why = KNOWN[name]
    for at, key, asked in ((18, "arm", (name, "base")), (19, "against", ("base", name))):
        assert refusal(arm(name, more, "control") + contrast(*asked), EXPERIENCE, reason="a warmer one") == (
            f"{at}:1: contrasts.0.{key}: {asked[0]} − {asked[1]} has its answer before the data: "
            f"{name} {why}. Leave the contrast out; such an arm is a control that a report checks, with a reason"
        )


def test_what_an_adapter_is_worth_against_one_that_changes_nothing_is_open() -> None:
    zero = arm("zero", KNOWN["zero"][0], "control")
    asked = zero + arm("a", trained("rank = 4")) + contrast("a", "zero")
    assert refusal(asked, EXPERIENCE, reason="a warmer one") == ""


LACKS = {
    "answers_supported": 'it is trained on no questions that a model answered (format = "self_qa")',
    "forgetting.standard": "that is measured after the batches of a strategy",
    "retention": "that is measured after the batches of a strategy",
    "interventions": "it works under no overseer",
}


@pytest.mark.parametrize("metric", LACKS)
def test_what_an_arm_never_has_is_not_compared(metric: str) -> None:
    asked = arm("a", trained("rank = 4")) + contrast("a", "base", f'metric = "{metric}"\n')
    assert refusal(asked, EXPERIENCE, reason="a warmer one") == (
        f"20:1: contrasts.0.metric: base (as well as a) has no {metric}: {LACKS[metric]}"
    )


ALL_OFF = 'repeat_nudge = "off", repeat_refuse = "off", repeat_stop = "off"'
FIRES = [
    ("repeated_action", "repeat_nudge = 9, repeat_refuse = 10, repeat_stop = 11", 9),
    ("repeated_action", ALL_OFF.replace('stop = "off"', "stop = 9"), 9),
    ("repeated_action", ALL_OFF, None),
    ("read_only_streak", "read_only_nudge = 9", 9),
    ("read_only_streak", 'read_only_nudge = "off"', None),
    ("no_progress", "no_progress_stop = 8", 9),
    ("no_progress", 'no_progress_stop = "off"', None),
    ("verification_loop", "verification_nudge = 8", 9),
    ("verification_loop", 'verification_nudge = "off"', None),
    ("premature_done", "refuse_empty_done = true", 1),
    ("premature_done", "refuse_empty_done = false", None),
    ("shrinking_write", "confirm_shrink = true", 1),
    ("shrinking_write", "confirm_shrink = false", None),
    ("broken_python", "check_python = true", 1),
    ("broken_python", "check_python = false", None),
    ("fence_removed", "check_python = false", 1),
    ("context_pruned", 'check_python = true }, pruning = { keep_last = 7', 9),
    ("context_pruned", 'check_python = true }, pruning = { mode = "none"', None),
]  # fmt: skip


@pytest.mark.parametrize(("guard", "settings", "first"), FIRES, ids=range(len(FIRES)))
def test_a_guard_that_is_to_fire_can_fire_in_a_rollout(guard: str, settings: str, first: int | None) -> None:
    def said(steps: int) -> str:
        scaffold = f'scaffold = {{ base = "full", guards = {{ {settings} }} }}'
        asked = asking(f'exercised = ["{guard}"]\n')
        return refusal(asked, f"{scaffold}\nlimits = {{ steps = {steps} }}")

    head = f"14:1: contrasts.0.exercised: warm − base means nothing unless {guard} fires, "
    if first is None:
        assert said(8) == f"{head}and that is switched off in all of its arms"
    else:
        assert said(max(first, 2)) == ""
        if first > 2:
            assert said(first - 1) == (
                f"{head}which takes {first} steps at least, and a rollout has {first - 1}. Leave its arm out of this profile, raise "
                "limits.steps, or lower the guard's threshold"
            )


def test_of_several_guards_the_one_that_fires_first_counts() -> None:
    asked = asking('exercised = ["read_only_streak", "no_progress"]\n')
    guards = 'scaffold = {{ base = "full", guards = {{ read_only_nudge = {}, no_progress_stop = {} }} }}\nlimits = {{ steps = 9 }}'
    assert refusal(asked, guards.format(9, 20)) == refusal(asked, guards.format(20, 8)) == ""
    assert "unless read_only_streak, no_progress fires, which takes 10 steps at least" in refusal(
        asked, guards.format(12, 9)
    )


def test_a_guard_watches_in_both_arms_or_in_none() -> None:
    mute = arm("mute", 'scaffold = { tools = ["bash", "read", "edit", "done"] }')
    asked = mute + contrast("mute", "base", 'exercised = ["shrinking_write"]\n')
    assert refusal(asked, 'scaffold = "full"', reason="a warmer one") == (
        "20:1: contrasts.0.exercised: mute − base is to exercise shrinking_write, which watches write, and mute has no such tool: the arms "
        "differ in that. Give both the tool, or leave the guard out"
    )
