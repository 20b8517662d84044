"""Proof that the treatment reached the model, against models that swallow it. Guards G-12, G-34."""

from collections.abc import Sequence

import pytest
from tests.training.test_select import LOOK, step

from looper.errors import PromptCut, TreatmentMissing
from looper.experiment.checks import (
    SENTINEL,
    check_action_gate,
    check_adapter,
    check_context,
    check_memory,
    check_valid_actions,
)
from looper.experiment.ledger import ActionCount
from looper.experiment.preflight import SAID_EVERY_S, AdaptersChecked
from looper.protocols import ChatRequest, Message
from looper.records.memory import Delivery
from looper.records.plan import Limits
from looper.records.training import Example
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage
from looper.records.treatment import ProofKind


class Server:
    """A model that repeats the code word where it still sees it, with a window of its own."""

    def __init__(
        self, window: int, *, honest: bool = True, counts: bool = True, clever: bool = True, says: str = ""
    ) -> None:
        self.window, self.honest, self.counts, self.clever, self.says = window, honest, counts, clever, says
        self.shift = 0.0

    def identity(self) -> ModelIdentity:
        return ModelIdentity(
            backend="x",
            backend_version="1",
            name="server",
            digest="d",
            quantisation="none",
            context_tokens=1000,
        )

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return None

    def reply(self, request: ChatRequest) -> Reply:
        tokens = " ".join(text for _, text in request.messages).split()
        seen = tokens[-self.window :]
        found = self.clever and any(SENTINEL in token for token in seen)
        counted = len(seen if self.honest else tokens) if self.counts else None
        return Reply(
            text=self.says or (SENTINEL if found else "what?"),
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=counted, completion_tokens=3, counted_by="server"),
            wall_s=0.0,
        )

    def first_logits(self, messages: Sequence[Message]) -> list[float]:
        return [self.shift, 1.0]

    def losses(self, examples: Sequence[Example]) -> list[float]:
        return [1.0 for _ in examples]

    def forget(self, conversation: str) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def wide(limits: Limits) -> Limits:
    return limits.model_copy(update={"context_tokens": 2000, "output_tokens": 100})


def test_a_model_that_reads_its_whole_window_passes(wide: Limits) -> None:
    proof = check_context(Server(2000), "base", "server", wide)
    assert proof.kind is ProofKind.CONTEXT and proof.passed and "found the word" in proof.said
    counted = int(proof.said.split("counted ")[1].split()[0])
    assert 1800 <= counted <= 1900, "the prompt fills the window but for the reply"


@pytest.mark.parametrize(
    "server",
    [
        Server(1000),
        Server(1000, honest=False),
        Server(1000, counts=False),
        Server(1000, clever=False),
    ],
    ids=["smaller window", "drops the head and counts all", "counts nothing", "cannot repeat words"],
)
def test_g34_a_server_that_cuts_the_prompt_is_refused_before_the_first_task(
    server: Server, wide: Limits
) -> None:
    with pytest.raises(PromptCut, match="cut"):
        check_context(server, "base", "server", wide)


def test_g34_a_model_that_cannot_repeat_words_is_held_to_its_counts(wide: Limits) -> None:
    proof = check_context(Server(2000, clever=False), "base", "server", wide)
    assert proof.passed and "only token counts were compared" in proof.said


PROMPTS = [(("user", "x"),), (("user", "y"),)]


def test_an_adapter_path_that_the_server_ignores_is_found() -> None:
    with pytest.raises(TreatmentMissing, match="did not reach the model"):
        check_adapter(Server(9), Server(9), PROMPTS, "lora", "abc", zero=False)
    changed = Server(9)
    changed.shift = 0.25
    proof = check_adapter(changed, Server(9), PROMPTS, "lora", "abc", zero=False)
    assert proof.passed and "0.25" in proof.said and proof.kind is ProofKind.ADAPTER_ARRIVED


def test_g12_a_zero_adapter_that_changes_anything_shows_that_arms_are_served_differently() -> None:
    changed = Server(9)
    changed.shift = 1e-6
    with pytest.raises(TreatmentMissing, match="not served alike"):
        check_adapter(changed, Server(9), PROMPTS, "zero", "abc", zero=True)
    assert check_adapter(Server(9), Server(9), PROMPTS, "zero", "abc", zero=True).passed


def test_g06_an_arm_whose_adapters_forgot_the_protocol_is_a_failed_arm(limits: Limits) -> None:
    base, broken = Server(9, says="<bash>ls</bash>"), Server(9, says="I would list the files.")
    well = check_valid_actions(base, base, PROMPTS, "lora", "abc", limits)
    proof = check_valid_actions(broken, base, PROMPTS, "lora", "abc", limits)
    assert well.passed and not proof.passed and not proof.stops
    assert "0 % valid actions on 2 prompts, base 100 %" in proof.said
    gate = check_action_gate([proof, proof], "lora", stops=True)
    assert not gate.passed and gate.stops
    assert gate.said == "0 % valid actions, the mean over 2 adapters; base 100 %"


def test_one_odd_adapter_among_many_fails_no_arm_and_a_share_of_them_does(limits: Limits) -> None:
    base, broken = Server(9, says="<bash>ls</bash>"), Server(9, says="I would list the files.")
    well, badly = (check_valid_actions(one, base, PROMPTS, "lora", "abc", limits) for one in (base, broken))
    assert check_action_gate([badly, *[well] * 23], "lora", stops=True).passed
    assert not check_action_gate([badly, badly, *[well] * 22], "lora", stops=True).passed


def test_g47_a_memory_that_says_too_little_is_no_arm() -> None:
    nothing, given = Delivery(candidates=3), Delivery(candidates=3, items=("a",), text="x")
    for least, deliveries, count in ((0.9, [nothing, given], 1), (0.1, [nothing, nothing], 0)):
        with pytest.raises(TreatmentMissing, match=f"something to say to {count} of 2 tasks"):
            check_memory(deliveries, "memory", least)
    assert check_memory([nothing, given], "memory", 0.5).said == "1 of 2 tasks are told something"
    exactly = [given] * 7 + [nothing] * 18
    assert check_memory(exactly, "memory", 0.28).passed, "0.28 times 25 is more than 7 to a computer"


def test_checked_adapters_are_counted_aloud_now_and_then_and_not_one_by_one() -> None:
    said: list[str] = []
    now = 0.0
    counted = AdaptersChecked(3, said.append, lambda: now)
    counted.one_more()
    assert said == []
    now = SAID_EVERY_S
    counted.one_more()
    counted.one_more()
    assert said == ["adapters checked: 2 of 3"]


def test_steps_without_an_action_are_counted_among_all_of_a_cell_s() -> None:
    counted = ActionCount()
    for at, action in enumerate((None, LOOK, None), 1):
        counted = counted.and_one(step(at, action))
    assert counted == ActionCount(steps=3, without=2)
