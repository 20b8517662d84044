"""One rollout: ask the model, read one action, run it, tell the result, until there is a reason to stop.

The order of one step is fixed: ask, parse, let the guards look, act, record, and only then go on. What was recorded can be replayed
in a fresh workspace, which must come to the same tree. Everything that ends a rollout becomes a stop reason here.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from looper.agent.actions import parse
from looper.agent.context import ContextFull, Conversation
from looper.agent.feedback import problem_observation, unknown_tool
from looper.agent.guards import GuardState, Intervention
from looper.agent.prompt import hash_of, opening
from looper.agent.recall import Recall
from looper.agent.tools import ToolContext, ToolEffect, execute
from looper.errors import (
    Cancelled,
    ContextOverflow,
    ModelError,
    ModelUnfit,
    ReplyLate,
    ReplyWithheld,
    RequestRefused,
    is_of_what_was_made,
    named,
)
from looper.protocols import ChatModel, ChatRequest
from looper.records.base import content_hash
from looper.records.memory import Delivery, MemoryItem
from looper.records.plan import AS_COMPUTED, Sampling
from looper.records.task import Task
from looper.records.text import encodable, joined
from looper.records.trajectory import (
    Action,
    Guard,
    Observation,
    ObservationKind,
    Reply,
    ReplyProblem,
    Step,
    StopReason,
)

ENDS: dict[type[ModelError], StopReason] = {
    ReplyLate: StopReason.TIME_LIMIT,
    ContextOverflow: StopReason.CONTEXT_FULL,
    ReplyWithheld: StopReason.REFUSED,
    RequestRefused: StopReason.REFUSED,
    ModelUnfit: StopReason.REFUSED,
}
"""Errors of a model that are the end of a rollout, and of nothing else."""


def end_by(error: ModelError, steps: int) -> StopReason:
    """How a rollout of so many steps ends by what its model's server said. Raises the error where it is the world's: what is
    refused before the first step has nothing of the agent in it, and what every request says was taken before the second."""
    found = ENDS.get(type(error))
    if found is None or (isinstance(error, RequestRefused | ModelUnfit) and not steps):
        raise error
    return found


class ReplayDiverged(Exception):
    """Recorded steps, run again, did not lead to the recorded tree; the attempt must begin anew."""


@dataclass(frozen=True)
class Assignment:
    """What one rollout is about, and what it may ask of the outside."""

    cell: str
    attempt: int
    task: Task
    seed: int
    temperature: float
    memory: Delivery
    tool_context: ToolContext
    model: ChatModel
    clock: Callable[[], float]
    """Seconds of awake time, monotonic."""
    record: Callable[[Step], None]
    """Makes a step durable before the next one begins."""
    cancelled: Callable[[], bool]
    recorded: tuple[Step, ...] = ()
    """Steps of this very attempt that an interruption left behind."""
    sampling: Sampling = AS_COMPUTED


@dataclass(frozen=True)
class Rollout:
    stop_reason: StopReason
    steps: int
    prompt_hash: str
    prompt_tokens: int | None
    completion_tokens: int | None
    guards: dict[Guard, int]
    memory: tuple[str, ...]
    """Ids of the items that were told on the way."""
    wall_s: float
    model_s: float
    cause: str = ""
    """What the model's server said, where that ended the rollout."""
    in_flight: float | None = None
    """Median over the replies of the requests on their way to the model's server; None where nobody counted."""
    servers: tuple[int, ...] | None = None
    """Which of the model's servers answered, from 1, in the order of their first replies; None where it has one."""


def rollout(assignment: Assignment) -> Rollout:
    """Run until a stop reason. Raises what the world does wrong (ModelError, SandboxUnavailable), Cancelled, ReplayDiverged."""
    return _Rollout(assignment).run()


NOTHING_YET = Observation(kind=ObservationKind.OK, text="")


@dataclass
class _Turn:
    """What a reply led to, as far as it came."""

    tree: str
    guards: list[Guard]
    action: Action | None = None
    problem: ReplyProblem | None = None
    observation: Observation = NOTHING_YET
    told: Sequence[MemoryItem] = ()
    stop: StopReason | None = None


class _Rollout:
    def __init__(self, assignment: Assignment) -> None:
        self.of = assignment
        self.scaffold, self.limits = assignment.tool_context.scaffold, assignment.tool_context.limits
        messages = opening(assignment.task, self.scaffold, assignment.memory)
        self.prompt_hash = hash_of(messages)
        self.conversation = Conversation(
            list(messages), assignment.model.count_tokens, self.scaffold.pruning, len(messages)
        )
        self.recall = Recall(assignment.memory, self.scaffold)
        tree = assignment.tool_context.session.clean_state
        self.watch = GuardState(self.scaffold.guards, tree, tree)
        self.steps: list[Step] = []
        self.begun = assignment.clock()
        self.spent_before = self.waited_s = 0.0
        self.cause = ""

    def run(self) -> Rollout:
        stop = self._replay(self.of.recorded)
        while stop is None:
            stop = self._limit_reached() or self._turn()
        return self._summary(stop)

    def _elapsed(self) -> float:
        """Awake time that counts against the limit: not what was lost waiting for a broken model server."""
        return self.spent_before + self.of.clock() - self.begun - self.waited_s

    def _limit_reached(self) -> StopReason | None:
        if self.of.cancelled():
            raise Cancelled
        if len(self.steps) >= self.limits.steps:
            return StopReason.STEP_LIMIT
        if self._elapsed() >= self.limits.wall_s:
            return StopReason.TIME_LIMIT
        said = sum(step.reply.usage.completion_tokens or 0 for step in self.steps)
        if self.limits.total_tokens and said >= self.limits.total_tokens:
            return StopReason.TOKEN_LIMIT
        return None

    def _turn(self) -> StopReason | None:
        """One step, durable when this returns; the reason to stop where the step gives one."""
        begun, already_pruned = self.of.clock(), len(self.conversation.pruned)
        try:
            length = self.conversation.fit(self.limits.context_tokens - self.limits.output_tokens)
            pruned = len(self.conversation.pruned) - already_pruned
            reply = self._reply()
        except ContextFull:
            return StopReason.CONTEXT_FULL
        except ModelError as error:
            self.cause = f"{type(error).__name__}: {error}"
            return end_by(error, len(self.steps))
        reply = reply.model_copy(update={"text": joined(reply.text)})
        self.waited_s += reply.waited_s
        turn = self._act(reply, pruned)
        step = Step(
            cell=self.of.cell,
            attempt=self.of.attempt,
            index=len(self.steps) + 1,
            reply=reply,
            action=turn.action,
            problem=turn.problem,
            observation=turn.observation.model_copy(update={"text": encodable(turn.observation.text)}),
            guards=tuple(turn.guards),
            memory=tuple(item.id for item in turn.told),
            stop_reason=turn.stop,
            context_tokens=length,
            pruned_messages=pruned,
            tree=turn.tree,
            wall_s=self.of.clock() - begun,
        )
        self.of.record(step)
        self._remember(step)
        return step.stop_reason

    def _reply(self) -> Reply:
        return self.of.model.reply(
            ChatRequest(
                conversation=f"{self.of.cell}#{self.of.attempt}",
                messages=tuple(self.conversation.messages),
                max_output_tokens=self.limits.output_tokens,
                context_tokens=self.limits.context_tokens,
                temperature=self.of.temperature,
                # A seed per turn, so that a resumed rollout samples what an undisturbed one would have.
                seed=int(content_hash(str(self.of.seed), str(len(self.steps)))[:8], 16),
                timeout_s=max(1.0, self.limits.wall_s - self._elapsed()),
                sampling=self.of.sampling,
            )
        )

    def _act(self, reply: Reply, pruned: int) -> "_Turn":
        """What came of a reply. What cannot be handled ends the rollout, and is told like everything else."""
        turn = _Turn(self.watch.tree, [Guard.CONTEXT_PRUNED] * bool(pruned))
        try:
            self._carry_out(reply, turn)
        except Exception as error:
            if not is_of_what_was_made(error):
                raise
            turn.observation = Observation(kind=ObservationKind.REFUSED, text=f"error: {named(error)}")
            turn.stop = StopReason.UNUSABLE
        return turn

    def _carry_out(self, reply: Reply, turn: "_Turn") -> None:
        """Read the reply, let the guards look, run the tool."""
        parsed = parse(reply.text, reply.finish_reason)
        turn.action, turn.problem = parsed.action, parsed.problem
        turn.guards += [Guard.FENCE_REMOVED] * parsed.fence_removed
        if (action := parsed.action) is None:
            turn.observation = problem_observation(parsed, self.scaffold)
            turn.stop = self.watch.without_action()
        elif action.tool not in self.scaffold.tools:
            turn.observation = unknown_tool(action.tool, self.scaffold)
            turn.stop = self.watch.without_action()
        elif blocked := self.watch.before(action):
            turn.guards.append(blocked.guard)
            turn.observation = Observation(kind=ObservationKind.REFUSED, text=blocked.advice)
            turn.stop = blocked.stop
        else:
            effect = execute(action, self.of.tool_context, max(0.1, self.limits.wall_s - self._elapsed()))
            turn.tree = self.of.tool_context.session.tree_hash()
            found = self.watch.after(action, effect.observation.text, turn.tree)
            turn.guards += [*effect.guards, *(item.guard for item in found)]
            turn.told = self.recall.after(action, effect.observation)
            turn.observation = self.recall.told(turn.told, self._with_advice(effect, found))
            done = StopReason.DONE if effect.observation.kind is ObservationKind.END else None
            turn.stop = done or next((item.stop for item in found if item.stop), None)

    def _with_advice(self, effect: ToolEffect, found: Sequence[Intervention]) -> Observation:
        advice = [item.advice for item in found if item.advice]
        if self.scaffold.terse or not advice:
            return effect.observation
        return effect.observation.model_copy(update={"text": "\n".join([effect.observation.text, *advice])})

    def _remember(self, step: Step) -> None:
        self.steps.append(step)
        self.conversation.messages += [
            ("assistant", encodable(step.reply.text)),
            ("user", step.observation.text),
        ]

    def _replay(self, recorded: Sequence[Step]) -> StopReason | None:
        """Rebuild conversation and workspace from records: what was said is kept, what was done is done again."""
        for step in recorded:
            if self.of.cancelled():
                raise Cancelled
            try:
                self._repeat(step)
            except ModelError as error:
                end_by(error, len(self.steps))
                raise ReplayDiverged from error  # It was answered then.
            except Exception as error:
                if not (isinstance(error, ContextFull) or is_of_what_was_made(error)):
                    raise
                if step.stop_reason is not StopReason.UNUSABLE:
                    raise ReplayDiverged from error
            self._remember(step)
        self.spent_before = sum(step.wall_s - step.reply.waited_s for step in recorded)
        self.begun = self.of.clock()
        return recorded[-1].stop_reason if recorded else None

    def _repeat(self, step: Step) -> None:
        self.conversation.fit(self.limits.context_tokens - self.limits.output_tokens)
        if step.action is None or step.action.tool not in self.scaffold.tools:
            self.watch.without_action()
        elif not self.watch.before(step.action):
            effect = execute(step.action, self.of.tool_context, self.limits.wall_s)
            tree = self.of.tool_context.session.tree_hash()
            self.watch.after(step.action, effect.observation.text, tree)
            self.recall.after(step.action, effect.observation)
            if tree != step.tree:
                raise ReplayDiverged

    def _summary(self, stop: StopReason) -> Rollout:
        replies = [step.reply for step in self.steps]
        found = summary(replies, self.steps, stop, self.cause, self.prompt_hash, self._elapsed())
        return replace(found, memory=tuple(key for step in self.steps for key in step.memory))


def summary(
    replies: Sequence[Reply],
    steps: Sequence[Step],
    stop_reason: StopReason,
    cause: str,
    prompt_hash: str,
    wall_s: float,
) -> Rollout:
    """A rollout by what was answered and done in it, that was told nothing on the way."""
    usages = [reply.usage for reply in replies]
    return Rollout(
        stop_reason=stop_reason,
        cause=cause,
        steps=len(replies),
        prompt_hash=prompt_hash,
        prompt_tokens=_total([usage.prompt_tokens for usage in usages]),
        completion_tokens=_total([usage.completion_tokens for usage in usages]),
        guards=dict(Counter(guard for step in steps for guard in step.guards)),
        memory=(),
        wall_s=wall_s,
        model_s=sum(reply.wall_s for reply in replies),
        in_flight=_middle([reply.in_flight for reply in replies]),
        servers=tuple(dict.fromkeys(reply.server for reply in replies if reply.server is not None)) or None,
    )


def _total(counts: list[int | None]) -> int | None:
    """The sum, or None where any part was not measured."""
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _middle(counts: list[int | None]) -> float | None:
    """The median of what was counted, or None."""
    known = [count for count in counts if count is not None]
    return median(known) if known else None
