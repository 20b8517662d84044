"""A conversation that no longer fits: what is shortened, and what never is."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looper.agent.context import SHORTENED, ContextFull, Conversation
from looper.protocols import Message
from looper.records.plan import PruningSettings

LONG = "x" * 100


def characters(messages: Sequence[Message]) -> int:
    return sum(len(text) for _, text in messages)


def talk(observations: int, keep_last: int) -> Conversation:
    """A system message, a task, and as many turns as there are observations."""
    opening: list[Message] = [("system", "s" * 50), ("user", "t" * 50)]
    turns: list[Message] = [
        turn for _ in range(observations) for turn in (("assistant", "a"), ("user", LONG))
    ]
    return Conversation([*opening, *turns], characters, PruningSettings(keep_last=keep_last), len(opening))


def shortened(conversation: Conversation) -> list[bool]:
    return [text == SHORTENED for role, text in conversation.messages[2:] if role == "user"]


def test_the_oldest_observations_go_first_and_only_as_many_as_are_needed() -> None:
    conversation = talk(observations=6, keep_last=2)
    assert conversation.fit(800) == characters(conversation.messages) and not any(shortened(conversation))
    assert (conversation.fit(700) or 0) <= 0.75 * 700
    assert shortened(conversation) == [True, True, True, False, False, False], "one more could go"


def test_the_content_in_use_and_the_task_are_never_shortened() -> None:
    conversation = talk(observations=6, keep_last=4)
    with pytest.raises(ContextFull):
        conversation.fit(400)
    assert shortened(conversation)[-4:] == [False] * 4
    assert shortened(conversation)[:2] == [True] * 2, "whatever else could go has gone"
    assert conversation.messages[1] == ("user", "t" * 50)


def test_what_was_shortened_stays_so_and_is_on_record() -> None:
    conversation = talk(observations=6, keep_last=2)
    conversation.fit(600)
    before = list(conversation.messages)
    assert conversation.pruned == {3, 5, 7, 9} and shortened(conversation) == [True] * 4 + [False] * 2
    conversation.fit(600)
    assert conversation.messages == before


def test_what_is_no_longer_than_its_mark_stays_as_it_is() -> None:
    conversation = talk(observations=6, keep_last=2)
    conversation.messages[3] = ("user", "y" * len(SHORTENED))
    conversation.fit(600)
    assert conversation.messages[3] == ("user", "y" * len(SHORTENED)) and shortened(conversation)[1]


def test_a_scaffold_that_prunes_nothing_ends_where_the_prompt_does_not_fit() -> None:
    conversation = talk(observations=6, keep_last=2)
    conversation.settings = PruningSettings(mode="none", keep_last=2)
    with pytest.raises(ContextFull):
        conversation.fit(600)
    assert not any(shortened(conversation))


def test_a_model_without_tokens_is_left_alone() -> None:
    conversation = talk(observations=6, keep_last=2)
    conversation.count = lambda messages: None
    assert conversation.fit(1) is None and not any(shortened(conversation))


@given(
    lengths=st.lists(st.integers(0, 300), max_size=12),
    keep_last=st.integers(1, 4),
    windows=st.lists(st.integers(50, 2000), min_size=1, max_size=4),
)
def test_l34_whatever_is_shortened_no_result_parts_from_what_it_answers(
    lengths: list[int], keep_last: int, windows: list[int]
) -> None:
    """Any history, any windows one after the other: every message keeps its place, and what the model said its words."""
    opening: list[Message] = [("system", "s" * 50), ("user", "t" * 50)]
    turns: list[Message] = [
        turn
        for at, length in enumerate(lengths)
        for turn in (("assistant", f"a{at}"), ("user", "x" * length))
    ]
    conversation = Conversation([*opening, *turns], characters, PruningSettings(keep_last=keep_last), 2)
    for window in windows:
        try:
            conversation.fit(window)
        except ContextFull:
            pass
        else:
            assert characters(conversation.messages) <= window
        assert [role for role, _ in conversation.messages] == [role for role, _ in [*opening, *turns]]
        assert [said for role, said in conversation.messages if role == "assistant"] == [
            f"a{at}" for at in range(len(lengths))
        ]
        for before, now in zip([*opening, *turns], conversation.messages, strict=True):
            assert now == before or now == ("user", SHORTENED)
