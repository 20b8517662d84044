"""Strategies as rules: which example is shown when, from where training goes on, what stays in a buffer. Guard G-46."""

from collections import Counter
from collections.abc import Sequence

import pytest

from looper.records.strategy import (
    AdaptiveRank,
    Anchor,
    Anchored,
    Division,
    FullReplay,
    Mixture,
    PartialReplay,
    Priority,
    Pull,
    Sequential,
    Strategy,
)
from looper.records.training import (
    AdapterRecord,
    Example,
    LossPoint,
    Make,
    Measured,
    TrainingRequest,
    Turn,
)
from looper.training.examples import shuffled_targets
from looper.training.strategies import TrainingContext, learn, mixed
from tests.fakes.cards import BASE, SETTINGS
from tests.fakes.cards import card as made

LOSSES = {"a0": 0.1, "a1": 0.9, "a2": 0.5, "b0": 0.3, "b1": 0.2, "b2": 0.8}
BASE_LOSSES = {"a0": 0.9, "a1": 0.6, "a2": 0.1, "b0": 0.2, "b1": 0.8, "b2": 0.7}
"""What base finds hard is not what an adapter finds hard, nor its opposite."""
PLACES = {
    "a0": (0.0, 0.0),
    "a1": (0.1, 0.0),
    "a2": (9.0, 0.0),
    "b0": (0.0, 0.2),
    "b1": (9.1, 0.0),
    "b2": (4.0, 4.0),
}


def example(name: str) -> Example:
    said = [("<bash>ls</bash>", "bash"), (f"<read>{name}</read>", "read"), ("<done></done>", "done")]
    turns = [Turn(role="system", text="s"), Turn(role="user", text=name)]
    for text, tool in said:
        turns += [
            Turn.model_validate({"role": "assistant", "text": text, "supervised": True, "tool": tool}),
            Turn(role="user", text="ok"),
        ]
    return Example(source=name, instance_id=name, repo=name[0], turns=tuple(turns[:-1]))


A, B = [example(f"a{number}") for number in range(3)], [example(f"b{number}") for number in range(3)]


class School:
    """Remembers what was asked for. An adapter's validation loss falls with its rank down to rank 4."""

    def __init__(self) -> None:
        self.asked: list[TrainingRequest] = []
        self.measured: list[str] = []
        self.cards: dict[str, AdapterRecord] = {}

    def train(self, request: TrainingRequest) -> AdapterRecord:
        self.asked.append(request)
        rank = request.settings.rank
        if request.grow:
            rank += self.cards[request.start].rank
        card = made(
            id=request.adapter_id(),
            make=request.make,
            settings=request.settings,
            rank=rank,
            start=request.start,
            parts=request.parts,
            validation_losses=(LossPoint(iteration=1, loss=1 / min(request.settings.rank, 4)),),
        )
        self.cards[card.id] = card
        return card

    def measure(self, adapter: str, examples: Sequence[Example]) -> tuple[Measured, ...]:
        self.measured.append(adapter)
        losses = LOSSES if adapter else BASE_LOSSES
        return tuple(
            Measured(source=item.source, loss=losses[item.source], place=PLACES[item.source])
            for item in examples
        )


@pytest.fixture
def school() -> School:
    return School()


@pytest.fixture
def training_context(school: School) -> TrainingContext:
    return TrainingContext(BASE, SETTINGS, school.train, school.measure)


def shown(request: TrainingRequest) -> list[str]:
    return [item.source for item in request.examples]


def test_full_replay_learns_everything_anew_with_the_iterations_of_all_batches(
    training_context: TrainingContext, school: School
) -> None:
    learn(FullReplay(), [A, B], training_context)
    (only,) = school.asked
    assert shown(only) == ["a0", "a1", "a2", "b0", "b1", "b2"] and only.start == ""
    assert only.settings.iterations == 20


def test_sequential_training_goes_on_from_the_batch_before_and_sees_it_no_more(
    training_context: TrainingContext, school: School
) -> None:
    adapters = learn(Sequential(), [A, B], training_context).after
    first, second = school.asked
    assert (first.start, second.start) == ("", adapters[0].id) and shown(second) == ["b0", "b1", "b2"]
    assert adapters[-1].id == second.adapter_id()


def test_an_anchored_training_takes_its_anchor_to_every_batch(
    training_context: TrainingContext, school: School
) -> None:
    anchor = Anchor(pull=Pull.FISHER, strength=10)
    learn(Anchored(anchor=anchor), [A, B], training_context)
    assert [request.anchor for request in school.asked] == [anchor, anchor]


@pytest.mark.parametrize(
    ("priority", "expected"),
    [
        (Priority.RECENCY, {"b1", "b2"}),
        (Priority.DIFFICULTY, {"a1", "b2"}),
        (Priority.CONFIDENCE, {"a2", "b0"}),
        (Priority.DIVERSITY, {"a0", "b1"}),
    ],
)
def test_g46_a_buffer_keeps_what_its_priority_says(
    priority: Priority, expected: set[str], training_context: TrainingContext, school: School
) -> None:
    """No two keep the same of this pool: one in the place of another, or a constant like the number of messages, is seen."""
    learn(PartialReplay(buffer=2, priority=priority), [[*A, *B], B], training_context)
    kept = Counter(shown(school.asked[1])) - Counter(["b0", "b1", "b2"])
    assert set(kept) == expected


def test_difficulty_asks_the_current_adapter_and_confidence_asks_base(
    training_context: TrainingContext, school: School
) -> None:
    adapters = learn(PartialReplay(buffer=2, priority=Priority.DIFFICULTY), [A, B], training_context).after
    assert school.measured == [card.id for card in adapters]
    school.measured.clear()
    learn(PartialReplay(buffer=2, priority=Priority.CONFIDENCE), [A, B], training_context)
    assert school.measured == ["", ""]


def test_a_random_buffer_is_a_draw_from_all_that_was_seen(
    training_context: TrainingContext, school: School
) -> None:
    learn(PartialReplay(buffer=4, priority=Priority.RANDOM), [A, B, A], training_context)
    held = set(shown(school.asked[2])[3:])
    assert len(held) == 4 and held <= LOSSES.keys()


@pytest.mark.parametrize(("ratio", "old", "new"), [(1.0, 3, 3), (3.0, 9, 3), (1 / 3, 2, 6)])
def test_old_and_new_examples_stand_as_the_plan_says(ratio: float, old: int, new: int) -> None:
    pool = A[:2] if ratio < 1 else A
    found = Counter(item.repo for item in mixed(B, pool, ratio))
    assert (found["a"], found["b"]) == (old, new)


def test_experts_of_batches_are_trained_apart_and_the_router_on_all(
    training_context: TrainingContext, school: School
) -> None:
    learn(Mixture(expert_rank=4), [A, B], training_context)
    first, second, joined = school.asked
    assert (shown(first), shown(second)) == (["a0", "a1", "a2"], ["b0", "b1", "b2"])
    assert joined.make is Make.MIXTURE and joined.parts == (first.adapter_id(), second.adapter_id())
    assert len(joined.examples) == 6 and joined.settings.iterations == 40
    parts = {item.source: {turn.part for turn in item.turns if turn.supervised} for item in joined.examples}
    assert parts["a0"] == {0} and parts["b0"] == {1}


def test_experts_of_tools_learn_the_same_conversations_each_its_own_turns(
    training_context: TrainingContext, school: School
) -> None:
    learn(Mixture(expert_rank=4, division=Division.TOOL, router="none"), [A, B], training_context)
    commands, reads, merged = school.asked
    said = [
        {turn.tool for item in request.examples for turn in item.turns if turn.supervised}
        for request in (commands, reads)
    ]
    assert said == [{"bash", "done"}, {"read"}]
    assert merged.make is Make.MERGED and not merged.examples


def test_the_smallest_rank_that_helps_is_taken_and_the_old_is_cut_to_the_budget(
    training_context: TrainingContext, school: School
) -> None:
    found = learn(AdaptiveRank(ranks=(2, 4, 8), budget=10), [A, B, A], training_context)
    kept = found.after
    assert len(found.made) > len(kept), "ranks that were tried are on record too"
    assert [card.settings.rank for card in kept] == [4, 4, 4], "8 is no better than 4"
    assert [card.rank for card in kept] == [4, 8, 10]
    (cut,) = [request for request in school.asked if request.make is Make.CUT]
    assert cut.settings.rank == 6 and cut.parts == (kept[1].id,)
    assert school.asked[-1].start == cut.adapter_id() and school.asked[-1].grow


def test_drawn_ranks_try_nothing(training_context: TrainingContext, school: School) -> None:
    learn(AdaptiveRank(ranks=(2, 4), budget=6, drawn=True), [A, B], training_context)
    assert not any(request.settings.validation_share for request in school.asked)


@pytest.mark.parametrize("strategy", [FullReplay(), Mixture(expert_rank=4)])
def test_what_learns_all_batches_together_stands_once(
    strategy: Strategy, training_context: TrainingContext, school: School
) -> None:
    found = learn(strategy, [A, B], training_context)
    assert [card.id for card in found.after] == [school.asked[-1].adapter_id()]


def test_shuffled_targets_are_the_same_actions_in_other_places() -> None:
    examples = [*A, *B]
    found = shuffled_targets(examples, seed=1)

    def said(items: Sequence[Example]) -> list[tuple[str | None, str]]:
        return [(turn.tool, turn.text) for item in items for turn in item.turns if turn.supervised]

    assert Counter(said(found)) == Counter(said(examples))
    reads = [
        (before, after)
        for before, after in zip(said(examples), said(found), strict=True)
        if before[0] == "read"
    ]
    assert all(before != after and after[0] == "read" for before, after in reads)


@pytest.mark.parametrize("division", [Division.BATCH, Division.RANDOM])
def test_p2_a_mixture_has_as_many_experts_as_its_plan_says_whatever_the_batches_are(
    division: Division, training_context: TrainingContext, school: School
) -> None:
    """So that its parameters are known before there are data: three experts of rank 4 are as many as one adapter of rank 12."""
    learn(Mixture(expert_rank=4, experts=3, division=division), [A, B[:1]], training_context)
    *experts, joined = school.asked
    assert [request.settings.rank for request in experts] == [4, 4, 4] and len(joined.parts) == 3
