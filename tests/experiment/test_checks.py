"""Proof that the treatment reached the model, against models that swallow it. Guards G-12, G-34."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.fakes.cards import card
from tests.training.test_select import LOOK, step

from looper.errors import (
    ContextOverflow,
    ModelUnfit,
    PromptCut,
    ReplyLate,
    ReplyWithheld,
    TreatmentMissing,
)
from looper.experiment.checks import (
    BYTES_PER_TOKEN,
    LINE,
    SENTINEL,
    VALID_MARGIN,
    check_action_gate,
    check_adapter,
    check_context,
    check_memory,
    check_split,
    check_valid_actions,
    measure_retention,
    seen_text,
)
from looper.experiment.ledger import ActionCount
from looper.experiment.preflight import SAID_EVERY_S, AdaptersChecked
from looper.protocols import ChatRequest, Message
from looper.records.memory import Delivery
from looper.records.plan import Limits
from looper.records.training import Example
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage
from looper.records.treatment import Proof, ProofKind


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
    proof = check_context(Server(2000), "base", "server", wide, "")
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
        check_context(server, "base", "server", wide, "")


def test_g34_a_model_that_cannot_repeat_words_is_held_to_its_counts(wide: Limits) -> None:
    proof = check_context(Server(2000, clever=False), "base", "server", wide, "")
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
    assert said == ["adapters checked: 2 of 3", "adapters checked: 3 of 3"], (
        "no half of them is the last word"
    )
    quick: list[str] = []
    counted = AdaptersChecked(1, quick.append, lambda: now)
    counted.one_more()
    assert quick == [], "what took no time needs no word"


def test_steps_without_an_action_are_counted_among_all_of_a_cell_s() -> None:
    counted = ActionCount()
    for at, action in enumerate((None, LOOK, None), 1):
        counted = counted.and_one(step(at, action))
    assert counted == ActionCount(steps=3, without=2)


class Recording(Server):
    """Keeps what it was asked, and which conversations it was told to forget."""

    def __init__(self, window: int, **more: Any) -> None:
        super().__init__(window, **more)
        self.asked: list[ChatRequest] = []
        self.forgotten: list[str] = []

    def reply(self, request: ChatRequest) -> Reply:
        self.asked.append(request)
        return super().reply(request)

    def forget(self, conversation: str) -> None:
        self.forgotten.append(conversation)


def test_the_prompts_of_a_context_are_two_short_ones_and_one_that_leaves_room_for_the_reply(
    wide: Limits,
) -> None:
    server = Recording(2000)
    proof = check_context(server, "base", "server x", wide, "")
    lines = [request.messages[1][1].count("\n") - 1 for request in server.asked]
    names = [request.conversation for request in server.asked]
    # A line has 17 words, and what is around them 20: 1900 tokens have room for 110 lines, and one is left off.
    assert lines == [8, 24, 109] and names == [f"proof of context, {each} lines" for each in lines]
    assert server.forgotten == names
    counted = 109 * 17 + 20
    assert proof.said == f"server counted {counted} of about {counted} tokens, found the word at its head"
    assert (proof.arm, proof.subject) == ("base", "server x")
    for request in server.asked:
        assert (request.max_output_tokens, request.context_tokens) == (48, 2000)
        assert (request.temperature, request.seed, request.timeout_s) == (0.0, 0, 600.0)
    slow = Recording(2000)
    check_context(slow, "base", "s", wide.model_copy(update={"output_tokens": 20, "wall_s": 900.0}), "")
    assert {(each.max_output_tokens, each.timeout_s) for each in slow.asked} == {(20, 900.0)}


def test_a_model_that_counts_nothing_is_asked_by_the_bytes_that_a_token_has_at_least(wide: Limits) -> None:
    server = Recording(9000, counts=False)
    proof = check_context(server, "base", "s", wide, "")
    assert proof.said == "server counts nothing, found the word at its head"
    assert server.asked[2].messages[1][1].count("\n") - 1 == int(1900 * BYTES_PER_TOKEN / len(LINE))
    small = Recording(9000)
    check_context(small, "base", "s", wide.model_copy(update={"context_tokens": 300}), "")
    assert [each.messages[1][1].count("\n") - 1 for each in small.asked] == [8, 24, 24], (
        "never less than the longer one"
    )


class Odd(Server):
    """Counts a full prompt as so much longer than it is."""

    def __init__(self, more: int) -> None:
        super().__init__(9000)
        self.more = more

    def reply(self, request: ChatRequest) -> Reply:
        found = super().reply(request)
        counted = found.usage.prompt_tokens
        assert counted is not None
        more = self.more if counted > 1000 else 0
        return found.model_copy(
            update={"usage": found.usage.model_copy(update={"prompt_tokens": counted + more})}
        )


def test_a_full_prompt_may_be_counted_a_little_otherwise_than_foretold(wide: Limits) -> None:
    for more in (56, -56):
        assert check_context(Odd(more), "base", "s", wide, "").passed
    for more in (57, -57):
        with pytest.raises(PromptCut) as cut:
            check_context(Odd(more), "base", "s", wide, "")
        assert str(cut.value) == (
            f"server counted {1873 + more} tokens in a prompt of about 1873: it was cut. Give the server a window of 2000 tokens, or lower "
            "context_tokens in the plan's limits."
        )
    with pytest.raises(PromptCut) as headless:
        check_context(Server(1000, honest=False), "base", "s", wide, "")
    assert str(headless.value) == (
        "server repeats a word from the head of a short prompt, and not from one of 1900 tokens: the head was cut. Give the server a window of "
        "2000 tokens, or lower context_tokens."
    )


class Windowing(Server):
    """Says beforehand how long its window is."""

    def __init__(self, window: int) -> None:
        super().__init__(9000)
        self.known = window

    def window_tokens(self) -> int:
        return self.known


class Refusing(Server):
    def reply(self, request: ChatRequest) -> Reply:
        if request.messages[1][1].count("\n") > 100:
            raise ContextOverflow("The server has no room.")
        return super().reply(request)


def test_a_window_that_is_known_or_refused_is_said_with_what_to_do(wide: Limits) -> None:
    assert check_context(Windowing(2000), "base", "s", wide, "").passed
    with pytest.raises(ModelUnfit) as known:
        check_context(Windowing(1999), "base", "s", wide, "")
    assert str(known.value) == (
        "server has a window of 1999 tokens, and the plan wants 2000. Lower context_tokens in the plan's limits to 1999, or "
        "serve the model with a longer window if it was trained for one."
    )
    with pytest.raises(ModelUnfit) as refused:
        check_context(Refusing(9000), "base", "s", wide, "")
    assert str(refused.value) == (
        "The server has no room. The plan wants 2000 tokens: give the server a window of as many, or lower context_tokens in the plan's limits."
    )


def test_how_far_an_adapter_moves_the_logits_is_said_to_either_side() -> None:
    for shift in (0.25, -0.25):
        changed = Server(9)
        changed.shift = shift
        proof = check_adapter(changed, Server(9), PROMPTS, "lora", "abc", zero=False)
        assert proof.said == "logits differ from base's by up to 0.25 on 2 prompts"
        assert (proof.arm, proof.subject) == ("lora", "abc")


class Failing(Recording):
    """Answers one prompt, and breaks off at the others as a server does."""

    def reply(self, request: ChatRequest) -> Reply:
        found = super().reply(request)
        number = len(self.asked)
        if number > 1:
            raise (ReplyLate, ReplyWithheld, ContextOverflow)[number - 2]("no")
        return found


def test_a_reply_that_does_not_come_is_no_valid_action(limits: Limits) -> None:
    prompts = [(("user", str(number)),) for number in range(4)]
    ours, base = Failing(9, says="<bash>ls</bash>"), Recording(9, says="<bash>ls</bash>")
    proof = check_valid_actions(ours, base, prompts, "lora", "abc", limits)
    assert (proof.after, proof.before) == (0.25, 1.0)
    assert proof.said == "25 % valid actions on 4 prompts, base 100 %"
    assert ours.forgotten == base.forgotten == [f"proof of protocol {number}" for number in range(4)]
    for request in base.asked:
        assert (request.max_output_tokens, request.context_tokens) == (
            limits.output_tokens,
            limits.context_tokens,
        )
        assert (request.temperature, request.seed, request.timeout_s) == (0.0, 0, limits.wall_s)


def test_the_gate_is_met_by_what_lies_just_within_the_margin() -> None:
    def gate(after: float | None) -> Proof:
        one = Proof(
            kind=ProofKind.VALID_ACTIONS, arm="a", subject="b", passed=True, said="", before=1.0, after=after
        )
        return check_action_gate([one], "a", stops=False)

    assert (
        gate(1 - VALID_MARGIN).passed and not gate(1 - VALID_MARGIN - 0.001).passed and not gate(None).passed
    )
    assert (
        gate(None).said == "0 % valid actions, the mean over 1 adapter; base 100 %" and not gate(None).stops
    )


class Losing(Server):
    def __init__(self, *losses: float) -> None:
        super().__init__(9)
        self.each = losses

    def losses(self, examples: Sequence[Example]) -> list[float]:
        return list(self.each)


def test_what_an_adapter_makes_forget_is_the_mean_over_successes_elsewhere() -> None:
    examples: list[Any] = [None, None]
    proof = measure_retention(Losing(1.0, 2.0), Losing(0.5, 1.0), examples, "lora", "abc")
    assert (proof.kind, proof.before, proof.after) == (ProofKind.RETENTION, 0.75, 1.5)
    assert proof.said == "0.750 nats per token of 2 successes elsewhere with base, 1.500 with the adapter"


def test_what_a_memory_could_be_lowered_to_is_rounded_down() -> None:
    given, nothing = Delivery(candidates=3, items=("a",), text="x"), Delivery(candidates=3)
    for deliveries, lower in (
        ([given, given, nothing], ", lower experience.delivered to 0.66 or less"),
        ([nothing], ""),
    ):
        with pytest.raises(TreatmentMissing) as silent:
            check_memory(deliveries, "memory", 0.9)
        assert f"(experience.samples){lower}, or leave the arm out" in str(silent.value)
        assert ", and 90 % are the least (experience.delivered)." in str(silent.value)
    assert check_memory([], "memory", 0.9).said == "0 of 0 tasks are told something"


def test_an_arm_whose_model_does_not_say_that_it_has_the_adapter_runs_no_task(wide: Limits) -> None:
    """A client that takes no notice of the adapter would answer for it with base."""

    class Adapted(Server):
        def identity(self) -> ModelIdentity:
            return super().identity().model_copy(update={"adapter": "3f2a"})

    assert check_context(Adapted(2000), "adapted", "s", wide, "3f2a91c0").passed
    with pytest.raises(
        TreatmentMissing, match="adapted is to have the adapter 3f2a91c0, and server answers without one"
    ):
        check_context(Server(2000), "adapted", "s", wide, "3f2a91c0")


def test_tasks_that_an_adapter_has_seen_are_named_as_far_as_three() -> None:
    evaluated = [f"t-{number}" for number in range(9)]
    check_split(card(tasks=("other",)), evaluated, "lora")
    for seen, named in ((1, "t-0"), (3, "t-0, t-1, t-2"), (5, "t-0, t-1, t-2 and 2 more")):
        assert seen_text(card(tasks=tuple(reversed(evaluated[:seen]))), evaluated, "lora") == (
            f"lora: the adapter abc was trained on {seen} of the evaluated tasks, {named}; what it remembers of these is not what it has learned"
        )
    with pytest.raises(
        TreatmentMissing, match=r"not what it has learned\. Evaluate others, or train it on others\.$"
    ):
        check_split(card(tasks=("t-1",)), evaluated, "lora")
