"""An overseer that may put its own action in the place of the agent's: what it sees, when it steps in, what is recorded."""

from collections.abc import Sequence
from dataclasses import replace

from looper.agent.oversight import CALLS, SupervisedModel
from looper.protocols import ChatRequest, Message
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage

UNTOLD = (("system", "s"), ("user", "the issue"))
TOLD = (("system", "s"), ("user", "memory: it is 60\nthe issue"))
LOOK, FIX = "<read>ops.py</read>", "<bash>python check.py</bash>"


class Says:
    """A model that always says the same, or by the seed, and remembers what it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, list[ChatRequest]()

    def reply(self, request: ChatRequest) -> Reply:
        self.asked.append(request)
        return Reply(
            text=self.texts[request.seed % len(self.texts)],
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=10, completion_tokens=2, counted_by="t"),
            wall_s=1.0,
        )

    def identity(self) -> ModelIdentity:
        raise NotImplementedError

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return len(messages)

    def forget(self, conversation: str) -> None:
        self.asked.append(conversation)  # type: ignore[arg-type]

    def close(self) -> None: ...


def request(step: int) -> ChatRequest:
    history = (("assistant", LOOK), ("user", "seen")) * step
    return ChatRequest("c", (*UNTOLD, *history), 80, 2048, 0.7, step, 60.0)


def test_the_overseer_sees_what_the_agent_sees_and_its_memory_besides() -> None:
    agent, overseer = Says(LOOK), Says(LOOK)
    SupervisedModel(agent, overseer, TOLD, UNTOLD).reply(request(1))
    assert agent.asked[0].messages == request(1).messages
    assert overseer.asked[0].messages == (*TOLD, *request(1).messages[2:])
    assert overseer.asked[0].conversation != agent.asked[0].conversation


def test_where_both_mean_the_same_the_agent_s_words_stand_and_both_are_paid_for() -> None:
    found = SupervisedModel(Says(LOOK), Says(f" {LOOK}"), TOLD, UNTOLD).reply(request(1))
    assert found.text == LOOK and not found.overseen
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.wall_s) == (20, 4, 2.0)


def test_another_action_takes_the_place_of_the_agent_s_at_most_so_often() -> None:
    overseen = SupervisedModel(Says(LOOK), Says(FIX), TOLD, UNTOLD)
    found = [overseen.reply(request(step)) for step in range(CALLS + 2)]
    assert [reply.text for reply in found] == [FIX] * CALLS + [LOOK] * 2
    assert [reply.overseen for reply in found] == [True] * CALLS + [False] * 2
    assert found[-1].usage.prompt_tokens == 10, "an overseer that may not step in is not asked"


def test_an_overseer_without_an_action_leaves_the_agent_alone() -> None:
    found = SupervisedModel(Says(LOOK), Says("hm"), TOLD, UNTOLD).reply(request(1))
    assert found.text == LOOK and not found.overseen


def test_a_blind_overseer_steps_in_as_often_and_has_the_agent_think_again() -> None:
    agent = Says(LOOK, "<read>util.py</read>")
    overseen = SupervisedModel(agent, Says(FIX), TOLD, UNTOLD, blind=True)
    found = [overseen.reply(request(step)) for step in range(40)]
    assert sum(reply.overseen for reply in found) == CALLS
    assert all(FIX not in reply.text for reply in found)
    at_once = [
        SupervisedModel(agent, Says(FIX), TOLD, UNTOLD, blind=True).reply(
            replace(request(0), conversation=f"{number}")
        )
        for number in range(200)
    ]
    assert 70 < sum(reply.overseen for reply in at_once) < 130, "at drawn steps, not at the first"
    calm = SupervisedModel(Says(LOOK), Says(LOOK), TOLD, UNTOLD, blind=True)
    assert not any(calm.reply(request(step)).overseen for step in range(40))


def test_both_conversations_are_forgotten() -> None:
    agent, overseer = Says(LOOK), Says(LOOK)
    SupervisedModel(agent, overseer, TOLD, UNTOLD).forget("c")
    assert agent.asked == ["c"] and overseer.asked == ["c overseer"]
