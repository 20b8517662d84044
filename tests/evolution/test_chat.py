"""A conversation with the prime: whose turn it is, what it may use, what is told again."""

from typing import Any

import pytest

from looper.edges.models.scripted import ScriptedModel
from looper.errors import LooperError
from looper.evolution.chat import KEPT, ROUNDS, NoReply, PrimeConversation, Tool, number
from looper.protocols import ChatRequest
from looper.records.trajectory import Reply


class Heard(ScriptedModel):
    """Keeps what it was asked."""

    def __init__(self, *replies: str) -> None:
        super().__init__(replies)
        self.requests: list[ChatRequest] = []

    def reply(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        return super().reply(request)


def talk(model: Heard, **tools: Tool) -> tuple[PrimeConversation, list[tuple[str, dict[str, Any]]]]:
    return PrimeConversation(lambda: model, tools), []


def test_a_tool_is_used_only_as_the_last_line_and_only_where_there_is_one() -> None:
    used: list[str] = []
    tool = Tool("words", "keeps them", lambda text: used.append(text) or "kept")  # type: ignore[func-returns-value]
    model = Heard("<keep>one</keep> and more words", "<drop>two</drop>", "now <keep>\nthree\n</keep>", "done")
    conversation, told = talk(model, keep=tool)
    assert conversation.answer("a", lambda *event: told.append(event)) == "<keep>one</keep> and more words"
    assert conversation.answer("b", lambda *event: told.append(event)) == "<drop>two</drop>"
    assert conversation.answer("c", lambda *event: told.append(event)) == "done"
    assert used == ["three"] and conversation.tool_calls == 1
    assert '"result": "kept"' in model.requests[-1].messages[-1][1]
    assert "<keep>words</keep>: keeps them" in model.requests[0].messages[0][1]


def test_what_is_told_again_is_bounded_and_begins_with_who_asks() -> None:
    model = Heard(*["yes"] * (KEPT + 3))
    conversation, told = talk(model)
    for at in range(KEPT + 3):
        conversation.answer(f"question {at}", lambda *event: told.append(event))
        roles = [role for role, _ in model.requests[-1].messages]
        assert roles[0] == "system" and roles[1] == roles[-1] == "user" and len(roles) <= KEPT + 1
    assert "question 0" not in str(model.requests[-1].messages)


def test_tools_without_end_are_an_error_and_a_wrong_number_is_told() -> None:
    model = Heard(*["<look>x</look>"] * ROUNDS)
    conversation, told = talk(model, look=Tool("", "", lambda text: str(number(text))))
    with pytest.raises(NoReply, match=f"used {ROUNDS} tools"):
        conversation.answer("a", lambda *event: told.append(event))
    results = [data for name, data in told if name == "tool_result"]
    assert len(results) == ROUNDS and all(data["error"] for data in results)
    assert "is no number of a generation" in results[0]["text"]


@pytest.mark.parametrize("text", ["", "-1", "1.0", "٣", "9" * 12, "1 or 2"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(LooperError):
        number(text)
