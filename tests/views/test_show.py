"""What a person sees of a trajectory and of a run."""

import pytest

from looper.metrics.paired import paired_difference
from looper.records.trajectory import (
    Bash,
    FinishReason,
    Observation,
    ObservationKind,
    Reply,
    Step,
    Usage,
)
from looper.views.findings import difference_text
from looper.views.show import ending_text, harmless, step_text


def test_a35_control_characters_of_a_model_or_a_tool_reach_no_terminal() -> None:
    hostile = "\x1b]0;title\x07\x1b[2J\x1b]52;c;ZXZpbA==\x07 \x9b31m \x08\x7f\r text\n\tindented"
    shown = harmless(hostile)
    assert not any((ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 for char in shown)
    assert "title" in shown and "\n\tindented" in shown and "\\x1b" in shown


def test_a_step_shows_what_was_said_what_came_back_and_what_was_noted() -> None:
    step = Step(
        cell="base/0/t",
        attempt=1,
        index=3,
        reply=Reply(
            text="<bash>printf '\\033[2J'</bash>",
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=5, completion_tokens=2, counted_by="test"),
            wall_s=0.1,
        ),
        action=Bash(command="printf '\\033[2J'"),
        problem=None,
        observation=Observation(kind=ObservationKind.OK, text="\x1b[2J", exit_code=0),
        guards=(),
        stop_reason=None,
        context_tokens=5,
        pruned_messages=0,
        tree="0",
        wall_s=0.25,
    )
    shown = step_text(step)
    assert "step 3" in shown and "0.25 s" in shown and "5 prompt tokens" in shown
    assert "<bash>printf" in shown and "\x1b" not in shown and "\\x1b[2J" in shown


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (
            Usage(
                prompt_tokens=412, completion_tokens=2, counted_by="server of m", processed_prompt_tokens=12
            ),
            "412 prompt tokens (400 of them cached, counted by server of m)",
        ),
        (
            Usage(prompt_tokens=412, completion_tokens=2, counted_by="server of m"),
            "412 prompt tokens (counted by server of m)",
        ),
        (
            Usage(prompt_tokens=None, completion_tokens=2, counted_by="server of m"),
            "about 555 prompt tokens, estimated",
        ),
    ],
)
def test_m19_a_count_says_who_counted_and_an_estimate_that_it_is_one(usage: Usage, said: str) -> None:
    reply = Reply(text="x", finish_reason=FinishReason.STOP, usage=usage, wall_s=0.1)
    step = Step(
        cell="base/0/t", attempt=1, index=1, reply=reply, action=None, problem=None, guards=(), stop_reason=None,
        observation=Observation(kind=ObservationKind.OK, text="", exit_code=0), context_tokens=555,
        pruned_messages=0, tree="0", wall_s=0.25,
    )  # fmt: skip
    assert f", {said}" in step_text(step).splitlines()[0]


def test_a_cell_without_an_end_says_so() -> None:
    assert ending_text(None, None) == "══ no verdict yet ══"


def test_what_was_not_measured_is_said_and_not_shown_as_zero() -> None:
    found = difference_text(paired_difference({"a": True, "b": False}, {"a": False, "b": False}))
    assert found.startswith("+50.0 points") and "2 pairs, 1 gained, 0 lost" in found
