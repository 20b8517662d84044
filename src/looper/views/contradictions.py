"""Records of one run that contradict each other: what one of them says, another one knows.

Nothing here trusts a seal or a checksum: whoever changes a record can make those anew, but a record that was changed alone says
other than the ones that it was made from. Each check adds to one list of findings, with the cells that show it, and none stops the
others.
"""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import isclose
from pathlib import Path
from statistics import fmean, median

from looper.journal import Damage, placed_records, read_at, read_stream
from looper.metrics.sequential import DEGENERATE, DEGENERATE_ALPHA, evidence
from looper.records.base import content_hash, grouped
from looper.records.learning import Source, Treatment
from looper.records.memory import Delivery, MemoryItem, MemoryKind, Moment
from looper.records.plan import REAL_SUITES, Arm, ArmRole, Cell, Gate, Limits, Plan, arm_of
from looper.records.question import AnsweredQuestion
from looper.records.sampling import sampling_seed
from looper.records.seal import Seal
from looper.records.session import NodeState
from looper.records.task import Task
from looper.records.text import bare_lines, listed
from looper.records.training import AdapterRecord, Objective, Selection
from looper.records.trajectory import (
    Action,
    Bash,
    Done,
    Edit,
    FinishReason,
    Guard,
    ModelIdentity,
    ObservationKind,
    Read,
    Reply,
    ReplyProblem,
    Step,
    StopReason,
    Trajectory,
    Write,
)
from looper.records.treatment import VALID_MARGIN, Consolidation, ProofKind
from looper.records.verdict import Outcome, TestOutcome, Verdict
from looper.views.index import StepIndex, kept_index
from looper.views.runs import RunView

SHOWN = 3
"""So many cells are named in one finding."""
BYTES_OF_A_TOKEN = 128
"""No token of a tokenizer in use stands for more: the longest are runs of so many blanks."""
AS_MANY_AGAIN = 1.5
"""A model can spell one text in several ways, but not with half as many tokens again and a few."""
A_FEW = 8
"""Tokens: a short text can be spelt by one or by several."""
FRAME = 64
"""Tokens: more than a template puts around a reply and what came of it."""
CANARIES = ("plain: ", "varied: ")
LOCAL = "tokenizer of "
"""Begins the name of a counter that counted here. What a server says that it counted can hold what nobody saw."""
CLOCK_S = 60.0
"""By which the time of day may have been set back while a run went on."""
ALONE = ("bubblewrap", "landlock")
"""Sandboxes in which no process outlives its command."""
ENDED_BY_THE_MODEL = (StopReason.TIME_LIMIT, StopReason.CONTEXT_FULL, StopReason.REFUSED)
"""So a rollout ends where its model's server answers no more."""
CANARIES_SINCE, APPLIED_SINCE = 4, 5
"""Rules of verification since which a verdict says so."""


@dataclass
class Contradictions:
    """Findings by what was found, with the cells, or other names, that show it."""

    cells: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, cell: str) -> None:
        self.cells.setdefault(what, []).append(cell)

    def run(self, records: "Records", *checks: "Callable[[Records, Contradictions], None]") -> None:
        """All that these checks add. Records that anyone may have written may fit together in no way that a check expects: that is a
        finding too, and the other checks go on."""
        for one in checks:
            try:
                one(records, self)
            except (LookupError, ValueError, ArithmeticError, AttributeError, TypeError) as error:
                told = " ".join(f"{type(error).__name__} {error}".split())
                self.add(
                    "records that cannot be held against each other", f"{one.__name__.strip('_')} ({told})"
                )

    def lines(self) -> Iterator[str]:
        for what, cells in self.cells.items():
            yield f"{what}: {listed(cells, SHOWN)}"


StepsOf = Callable[[tuple[str, int]], Sequence[Step]]
"""Of a cell's attempt."""
ReadReply = tuple[Action | None, ReplyProblem | None, bool]
"""The action of a reply, or why it has none, and whether a fence was taken from it."""


@dataclass(frozen=True)
class Agent:
    """What the code that looks makes of the records that others were made from: handed in, since a view knows no agent. For runs of
    that very code."""

    read: Callable[[str, FinishReason], ReadReply]
    """What it reads from the text of a reply."""
    watch: Callable[[Arm, str], Callable[[Step, bool], str]]
    """Of an arm that begins with a tree: given one step after the other, and whether a fence was taken from its reply, what is wrong
    with its guards or its end, in words; empty where nothing is."""
    delivery: Callable[[Arm, int, Task], Delivery | None]
    """What an arm is told from memory with a seed; None where that cannot be known here."""
    prompt_hash: Callable[[Arm, Task, Delivery], str]
    """Of the messages before the first reply."""
    item: Callable[[MemoryKind, Arm, Trajectory, Sequence[Step], Task], MemoryItem]
    """What a rollout with these steps is remembered as."""
    useful: Callable[[Sequence[Step]], Sequence[Step]]
    """The steps without detours."""
    selection: Callable[[Arm, Consolidation, StepsOf], tuple[int, Selection] | None]
    """How many attempts an arm learned from, and what became of all that it looked at; None where these records cannot say."""
    asked: Callable[[AnsweredQuestion, Arm, Trajectory, Sequence[Step], Task], int]
    """How many questions a success gives to an arm; 0 where this is none of them, has another key or was judged otherwise."""
    errors: Mapping[str, StopReason]
    """How a rollout ends by an error of its model's server, by the name of the error."""
    rules: str
    """The number of its rules, with which the name of a verdict's verifier begins."""
    attempts: tuple[str, ...]
    """Names by which a verdict says how its patch was applied, without what was mended."""


@dataclass
class AttemptSteps:
    tree: str = ""
    """After the last step, and before the first; empty where nobody knows."""
    missing: set[str] = field(default_factory=set)
    """Lines that the patch adds and no step has written yet, without their indentation."""
    count: int = 0
    in_order: bool = True
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    """None where a step has none."""
    model_s: float = 0.0
    seconds: float = 0.0
    """Of the steps, without what was waited for a broken server."""
    guards: Counter[str] = field(default_factory=Counter)
    memory: set[str] = field(default_factory=set)
    in_flight: list[int] = field(default_factory=list)
    servers: dict[int, None] = field(default_factory=dict)
    """That answered, in the order of their first replies."""
    places: list[int] = field(default_factory=list)
    """Where their lines begin."""
    without: int = 0
    """Steps without an action."""
    unread: bool = False
    """A step has no action and yet one was executed, or the other way round."""
    no_tree: bool = False
    """A step's tree is no hash like the one before it."""
    told_end: bool = True
    """Every step that says that the work is done ended the rollout so, and no other did."""
    last_s: float = 0.0
    """Of the last of them."""
    too_fast: bool = False
    """A step took less time than its reply, with what was waited for it, or nothing was waited for; or a reply with tokens took none."""
    overseen: bool = False
    odd: bool = False
    """A step whose guards, exit code or other signs belong to another action or result than its own, or that says it was refused and was
    not, or the other way round."""
    counters: set[str] = field(default_factory=set)
    """Who counted its tokens."""
    by_command: bool = False
    """A command changed the tree."""
    commands: bool = False
    idle_change: bool = False
    """The tree changed at a step that does nothing to it."""
    longest: int = 0
    """Prompt of the last step, in tokens."""
    most: int = 0
    """More tokens the prompt after the last step cannot have; 0 where nobody knows."""
    said: int = 0
    """Tokens of the last reply, of which every one is in the prompt after it."""
    first: tuple[str, int | None] | None = None
    """Who counted the first prompt, and its tokens; None where nobody did here."""
    shrank: bool = False
    """A prompt with more in it than the one before has no more tokens."""
    stopped: StopReason | None = None
    went_on: bool = False
    """Past a step that ended the rollout."""

    @classmethod
    def of(cls, end: Trajectory | None) -> "AttemptSteps":
        """Before the first step."""
        return cls() if end is None else cls(end.workspace_clean_state, _added(end.patch))

    def add(self, place: int, step: Step) -> None:
        self.count += 1
        self.places.append(place)
        self.in_order &= step.index == self.count
        if step.guards:
            self.guards.update(step.guards)
        if step.memory:
            self.memory.update(step.memory)
        self._reply(step.reply, step)
        self._result(step)
        self._tree(step)
        self.went_on |= self.stopped is not None
        self.stopped = step.stop_reason

    def _reply(self, reply: Reply, step: Step) -> None:
        usage = reply.usage
        self.prompt_tokens = _sum(self.prompt_tokens, usage.prompt_tokens)
        self.completion_tokens = _sum(self.completion_tokens, usage.completion_tokens)
        self.model_s += reply.wall_s
        waited = reply.waited_s
        self.last_s = step.wall_s - waited
        self.seconds += self.last_s
        self.too_fast |= (
            step.wall_s < 0.999 * (reply.wall_s + waited) - 0.01
            or (waited > 0) != (reply.retries > 0)
            or (not reply.wall_s and bool(usage.completion_tokens))
        )
        self.overseen |= reply.overseen
        self.counters.add(usage.counted_by)
        if reply.in_flight is not None:
            self.in_flight.append(reply.in_flight)
        if reply.server is not None:
            self.servers[reply.server] = None
        if not usage.counted_by.startswith(LOCAL) or None in (step.context_tokens, usage.prompt_tokens):
            return
        # Every turn adds a reply and an observation, with a mark at least.
        length = min(step.context_tokens or 0, usage.prompt_tokens or 0)
        # The text of a reply is read anew within all that is said, so that a piece of it can be spelt in fewer tokens.
        least = self.longest + max(1, int(self.said / AS_MANY_AGAIN))
        self.shrank |= length < least and not step.pruned_messages
        told = reply.text + step.observation.text
        self.longest, self.most = length, length + len(told.encode(errors="surrogatepass")) + FRAME
        self.most *= not step.memory
        # Blanks that were drawn one by one are few tokens when they are read again, and templates cut them off at the end.
        words = len(reply.text.split())
        self.said = (
            0 if reply.thinking or "think>" in reply.text else min(usage.completion_tokens or 0, words)
        )
        if step.index == 1:
            self.first = usage.counted_by, usage.prompt_tokens

    def _result(self, step: Step) -> None:
        self.without += step.action is None
        seen, action = step.observation, step.action
        kind, command = seen.kind, isinstance(action, Bash)
        well = kind is ObservationKind.OK
        self.odd |= (
            (seen.exit_code is not None) != (command and well)
            or (step.pruned_messages > 0) != (Guard.CONTEXT_PRUNED in step.guards)
            or (seen.tolerant and not (well and isinstance(action, Edit)))
            or (seen.omitted_bytes > 0 and not (command or isinstance(action, Read)))
        )
        if command:
            pass
        elif kind is ObservationKind.REFUSED:
            # A guard that ends the rollout says nothing.
            self.odd |= not seen.text.startswith("error") and bool(seen.text)
            self.idle_change |= step.tree != self.tree and step.stop_reason is not StopReason.UNUSABLE
        elif well and isinstance(action, (Edit, Write)):
            self.odd |= seen.text.startswith("error")
        if step.stop_reason is not StopReason.UNUSABLE:
            self.unread |= (action is None) != (step.problem is not None) or (
                kind not in (ObservationKind.PROBLEM, ObservationKind.END)
                if action is None
                else kind is ObservationKind.PROBLEM
            )
        self.told_end &= (kind is ObservationKind.END) == (step.stop_reason is StopReason.DONE)

    def _tree(self, step: Step) -> None:
        self.commands |= isinstance(step.action, Bash)
        if step.tree == self.tree:
            return
        # Hashes of one kind are of one length; a rollout that nobody knows the beginning of has none to compare with.
        self.no_tree |= bool(self.tree) and (len(step.tree) != len(self.tree) or not step.tree.isalnum())
        self.tree = step.tree
        match step.action:
            case Edit(old=old, new=text):
                lines = [line.strip() for line in bare_lines(text)] or [""]
                # Behind a line's end that is new stands the rest of the old line, whose text is nobody's edit.
                self._written([*lines, ""] if text.endswith("\n") and not old.endswith("\n") else lines)
            case Write(content=text):
                self._written([line.strip() for line in bare_lines(text)] or [""])
            case Bash():
                self.by_command = True
            case Read() | Done() | None:
                self.idle_change = True

    def _written(self, lines: Sequence[str]) -> None:
        """The last edit that touches a line leaves a part of its own text in it: a line of that, or the beginning or the end of one."""
        if self.missing:
            self.missing.difference_update(lines)
            ends = lines[0], lines[-1]
            self.missing = {line for line in self.missing if not any(part in line for part in ends)}


def _added(patch: str) -> set[str]:
    """Lines that a patch adds, without their indentation; not those that it takes away too, for a patch may move a line that nobody
    touched. None of what git cannot show as text."""
    if not patch or "GIT binary patch" in patch:
        return set()
    lines = [line for line in bare_lines(patch) if not line.startswith(("+++ ", "--- "))]
    found = [{line[1:].strip() for line in lines if line.startswith(sign)} for sign in "+-"]
    return found[0] - found[1] - {""}


def _sum(before: int | None, more: int | None) -> int | None:
    return None if before is None or more is None else before + more


@dataclass(frozen=True)
class Records:
    """One run, with what else is known of its tasks and adapters."""

    run: RunView
    tasks: Mapping[str, Task]
    """By id; empty where they cannot be had."""
    adapter: Callable[[str], AdapterRecord | None]
    """The card of an adapter; None for one that is not here. Raises ValueError where it is damaged."""
    served: Callable[[str], str | None]
    """The hash by which a rollout names an adapter that it was served with, by the adapter's id; None for one that is not here."""
    same_code: bool
    """Whether the code that looks is the one that recorded."""
    sealed: bool
    hashes: frozenset[str]
    """By which its rollouts may name the run's plan."""
    damage: list[Damage] = field(default_factory=list)
    """Lines of steps and of memory that cannot be read."""
    agent: Agent | None = None
    """None where another version of the code recorded the run."""
    now: str = ""
    """UTC, ISO 8601; empty where nobody knows."""

    @cached_property
    def arms(self) -> dict[str, Arm]:
        return {arm.name: arm for arm in self.run.manifest.plan.every_arm}

    @cached_property
    def _read(self) -> tuple[dict[tuple[str, int], AttemptSteps], bool]:
        """One pass, a step at a time: the attempts, and whether the index beside the steps says the same."""
        kept, again = kept_index(self.run.folder), StepIndex()
        found: dict[tuple[str, int], AttemptSteps] = {}
        for place, step in placed_records(self.run.folder, "steps", Step, self.damage):
            key = step.cell, step.attempt
            if key not in found:
                found[key] = AttemptSteps.of(self.run.ends.get(key))
            self.replies.add(step, self.arms.get(arm_of(step.cell)), self.agent, found[key].tree)
            found[key].add(place, step)
            if place < kept.bytes:
                again.add(place, step)
        return found, bool(self.damage) or again.attempts == kept.attempts

    @property
    def steps(self) -> dict[tuple[str, int], AttemptSteps]:
        return self._read[0]

    @property
    def index_fits(self) -> bool:
        return self._read[1]

    @cached_property
    def replies(self) -> "Replies":
        return Replies()

    @cached_property
    def items(self) -> dict[str, MemoryItem]:
        return {item.id: item for item in read_stream(self.run.folder, "memory", MemoryItem, self.damage)}

    @cached_property
    def learned(self) -> dict[tuple[str, int], list[Consolidation]]:
        """By arm and seed, the last of each repository and round."""
        last = {each.key: each for each in self.run.consolidations}.values()
        return grouped(((one.arm, one.seed), one) for one in last)

    @cached_property
    def evaluated(self) -> frozenset[str]:
        return frozenset(map(self.repo_of, self.run.manifest.tasks))

    @cached_property
    def final_of(self) -> dict[tuple[str, str], list[Verdict]]:
        """The ends of cells, by arm and seed."""
        found: dict[tuple[str, str], list[Verdict]] = {}
        for cell, verdict in self.run.final.items():
            arm, _, rest = cell.partition("/")
            found.setdefault((arm, rest.partition("/")[0]), []).append(verdict)
        return found

    @cached_property
    def at_work(self) -> frozenset[str]:
        """Arms of which something of an evaluation is recorded."""
        cells = (
            *(end.cell for end in self.run.trajectories),
            *self.run.final,
            *(cell for cell, _ in self.steps),
        )
        return frozenset(arm_of(cell) for cell in cells)

    @cached_property
    def own_successes(self) -> dict[int, set[str]]:
        """By seed, the repositories in which base resolved a task of its own experience."""
        plan, found = self.run.manifest.plan, dict[int, set[str]]()
        tasks = {*self.run.manifest.experience_tasks.get(Source.OWN, ())}
        for arm in plan.experience_arms(Source.OWN):
            for seed in plan.seeds_of(arm):
                for verdict in self.final_of.get((arm.name, str(seed)), ()):
                    if verdict.outcome is Outcome.RESOLVED and verdict.instance_id in tasks:
                        found.setdefault(seed, set()).add(self.repo_of(verdict.instance_id))
        return found

    @cached_property
    def uninterrupted(self) -> bool:
        """Whether no process but the last can have been killed in the middle: each earlier one was ended by a gate that looks when all
        has been learned."""
        begun = [session.begun for session in self.run.sessions]
        ended = [
            stop.at
            for stop in self.run.gate_stops
            if stop.gate.looks_when_all_is_learned
            and not (stop.arm in self.arms and self.arms[stop.arm].model.carried_there)
        ]
        return all(any(before <= at <= after for at in ended) for before, after in pairwise(begun))

    @property
    def by_all(self) -> bool:
        """Whether no session was asked for some arms only, so that a run which came to its end has all that its plan makes it owe."""
        return self.sealed and not any(" --arm " in found.command for found in self.run.sessions)

    def card(self, name: str) -> AdapterRecord | None:
        """Damage is told where the adapters are looked at."""
        try:
            return self.adapter(name)
        except ValueError:
            return None

    def steps_of(self, key: tuple[str, int]) -> tuple[Step, ...]:
        """All steps of a cell's attempt, read once more."""
        places = self.steps.get(key, AttemptSteps()).places
        return tuple(read_at(self.run.folder, "steps", Step, places))

    def repo_of(self, instance_id: str) -> str:
        """Repository of a task; what stands before the last hyphen of its id where the task is not here."""
        task = self.tasks.get(instance_id)
        return task.repo if task else instance_id.rpartition("-")[0].replace("__", "/")

    @cached_property
    def tried_again(self) -> bool:
        """Whether experience that failed outside of the agent may have been gathered by a later process, after it was learned from."""
        gathering = {arm.name for _, arm in self.run.manifest.plan.all_experience()}
        return len(self.run.sessions) > 1 and any(
            verdict.outcome is Outcome.INFRA_ERROR and arm_of(verdict.cell) in gathering
            for verdict in self.run.verdicts
        )

    @property
    def deterministic(self) -> bool:
        """Whether the same patch has the same verdict each time: tests of real repositories may not."""
        return self.run.manifest.plan.selection.suite not in REAL_SUITES


@dataclass
class Replies:
    found: Contradictions = field(default_factory=Contradictions)
    _tokens: dict[int, int] = field(default_factory=dict)
    """Of each text by its counter, as it was counted first."""
    _watches: dict[tuple[str, int], Callable[[Step, bool], str]] = field(default_factory=dict)
    """What follows the steps of each attempt."""

    def add(self, step: Step, arm: Arm | None, agent: Agent | None, clean: str) -> None:
        """`clean` is the tree before the step; empty where nobody knows."""
        if arm is None or arm.agent:
            return
        reply = step.reply
        if agent is not None:
            self._as_the_agent(step, arm, agent, clean)
        usage = reply.usage
        tokens = usage.completion_tokens
        if not usage.counted_by.startswith(LOCAL):
            return
        if arm.has_overseer:
            # What is counted are two replies, and one is told.
            known = self._tokens.get(
                hash((reply.text, reply.thinking, reply.finish_reason, usage.counted_by))
            )
            if None not in (known, tokens) and AS_MANY_AGAIN * (tokens or 0) + A_FEW < (known or 0):
                self._add("replies that were counted as other tokens than the same text elsewhere", step)
            return
        prompt = usage.prompt_tokens
        if tokens is None or prompt is None or step.context_tokens != prompt:
            self._add("steps whose prompt or reply was not counted as its counter does", step)
            return
        if (usage.processed_prompt_tokens or 0) > prompt:
            self._add("steps that read more of their prompt than there is", step)
        if tokens * BYTES_OF_A_TOKEN < len(reply.text.encode(errors="surrogatepass")):
            self._add(f"replies with more than {BYTES_OF_A_TOKEN} bytes for each of their tokens", step)
        key = hash((reply.text, reply.thinking, reply.finish_reason, usage.counted_by))
        known = self._tokens.setdefault(key, tokens)
        if max(tokens, known) > AS_MANY_AGAIN * min(tokens, known) + A_FEW:
            self._add("replies that were counted as other tokens than the same text elsewhere", step)

    def _as_the_agent(self, step: Step, arm: Arm, agent: Agent, clean: str) -> None:
        action, problem, fenced = agent.read(step.reply.text, step.reply.finish_reason)
        if step.stop_reason is not StopReason.UNUSABLE and (action, problem) != (step.action, step.problem):
            self._add("steps whose action is not what their reply says", step)
        key = step.cell, step.attempt
        if clean and step.index == 1:
            self._watches[key] = agent.watch(arm, clean)
        if key in self._watches and (said := self._watches[key](step, fenced)):
            self._add(said, step)

    def _add(self, what: str, step: Step) -> None:
        cells = self.found.cells.get(what)
        if not cells or cells[-1] != step.cell:
            self.found.add(what, step.cell)


def contradictions(records: Records) -> list[str]:
    """Each in words, with the cells or names that show it."""
    found = Contradictions()
    found.run(
        records,
        _rollouts,
        _ends,
        _prompts,
        _attempts,
        _verdicts,
        _served,
        _learned,
        _memory_items,
        _proved,
        _likelihoods,
        _sessions,
    )
    lines = [*found.lines(), *records.replies.found.lines()]
    if not records.index_fits:
        lines.append("steps.index.json is not what the steps say. Remove it; it is made again")
    return lines


def _rollouts(records: Records, found: Contradictions) -> None:
    run, manifest = records.run, records.run.manifest
    hashes: dict[str, str] = {}
    trees: dict[str, tuple[str, str]] = {}
    times: dict[tuple[float, float], str] = {}
    for end in run.trajectories:
        cell, arm = end.cell, records.arms.get(end.arm)
        name, seed, task = cell.split("/", 2) if cell.count("/") >= 2 else ("", "", "")
        if (name, task) != (end.arm, end.instance_id):
            found.add("rollouts whose cell is not theirs", cell)
        steps = records.steps.get((cell, end.attempt), AttemptSteps())
        _step_counts(end, steps, found)
        # What another version of the agent says of its own end and time is its own word.
        if arm is not None and not arm.agent and steps.count == end.steps:
            _end_of_steps(end, steps, found)
        if (
            _high_resolution(end.wall_s)
            and end.model_s
            and times.setdefault((end.wall_s, end.model_s), cell) != cell
        ):
            found.add("rollouts that took the very time of another", cell)
        if content_hash(end.patch) != end.patch_hash:
            found.add("patches that are not what their hash says", cell)
        if end.patch_at_limit != (
            bool(end.patch) and end.stop_reason not in (StopReason.DONE, StopReason.IMPORTED)
        ):
            found.add("rollouts whose end and whose patch contradict each other", cell)
        # An earlier version did not write it down at all.
        named = records.same_code or "run_hash" in end.model_fields_set
        if named and end.stop_reason is not StopReason.IMPORTED and end.run_hash not in records.hashes:
            found.add("rollouts of another plan than the manifest's", cell)
        if end.code_version != manifest.code_version:
            found.add("rollouts of another code than the manifest's", cell)
        configured = arm.config_hash() if arm is not None and records.same_code else end.arm_hash
        if end.arm_hash != hashes.setdefault(end.arm, configured):
            found.add(f"the arm {end.arm} is configured otherwise than its rollouts were", cell)
        if (
            end.stop_cause
            and end.stop_reason not in ENDED_BY_THE_MODEL
            and not (arm is not None and arm.agent)
        ):
            found.add("rollouts that name what their model's server said, and ended by something else", cell)
        if end.patch_error and (end.patch or end.flagged_paths):
            found.add("rollouts with a patch although none could be made", cell)
        # Patches are graded where an environment cannot be made too, and end as infra errors.
        unmade = end.stop_reason is StopReason.IMPORTED and not end.environment
        if end.sandbox != manifest.sandbox or not (unmade or end.environment in manifest.environments):
            found.add("rollouts in another sandbox or environment than the manifest's", cell)
        begun = end.workspace_clean_state, end.environment
        if end.stop_reason is not StopReason.IMPORTED and begun != trees.setdefault(end.instance_id, begun):
            found.add("rollouts that began with another tree or environment than others at their task", cell)
        if arm is not None and seed.isdigit() and end.stop_reason is not StopReason.IMPORTED:
            planned = Cell(arm=end.arm, seed=int(seed), instance_id=end.instance_id)
            if end.seed != sampling_seed(planned, arm):
                found.add("rollouts that were not sampled with their cell's seed", cell)
        _memory_told(end, arm, records, found)


def _step_counts(end: Trajectory, steps: AttemptSteps, found: Contradictions) -> None:
    cell = end.cell
    if steps.count != end.steps:
        found.add("rollouts with more or fewer steps than they ended with", cell)
        return
    if not steps.in_order:
        found.add("rollouts whose steps are not in order", cell)
    # Of a rollout without a step nothing was counted.
    known = (steps.prompt_tokens, steps.completion_tokens) if steps.count else (None, None)
    if (end.prompt_tokens, end.completion_tokens) != known:
        found.add("rollouts whose steps do not add up to their tokens", cell)
    if steps.unread:
        found.add("rollouts with steps whose action and whose result contradict each other", cell)
    if end.in_flight != (median(steps.in_flight) if steps.in_flight else None):
        found.add("rollouts with other requests in flight than their steps", cell)
    if steps.servers and end.servers != tuple(steps.servers):
        found.add("rollouts answered by other servers than their steps", cell)
    if Counter(end.guards) != steps.guards:
        found.add("rollouts whose guards fired otherwise than in their steps", cell)


def _ends(records: Records, found: Contradictions) -> None:
    """That rollouts of the agent that is installed ended as their steps and limits say, with the patch of their last tree, in the time
    that the run had."""
    run = records.run
    workers = max((session.workers for session in run.sessions), default=0)
    patches: dict[tuple[str, str, str], tuple[str, ...]] = {}
    trees: dict[tuple[str, str, str], str] = {}
    counters: dict[tuple[bytes, bool], tuple[set[str], int]] = {}
    models = {name: (arm.model.to_json(), arm.has_overseer) for name, arm in records.arms.items()}
    for end in run.trajectories:
        arm = records.arms.get(end.arm)
        if arm is None or arm.agent:
            continue
        steps = records.steps.get((end.cell, end.attempt)) or AttemptSteps.of(end)
        graded = end.stop_reason is StopReason.IMPORTED
        if graded != (arm.model.backend == "predictions"):
            found.add(
                "rollouts that say they were none, or patches from a file that say they were one", end.cell
            )
        if graded or steps.count != end.steps:
            continue
        if not steps.told_end or not _end_is_possible(end, steps, run.manifest.plan.limits_of(arm), records):
            found.add("rollouts whose steps and limits give another reason to end", end.cell)
        if end.wall_s < 0.999 * steps.seconds - 0.01:
            found.add("rollouts that took less time than their steps", end.cell)
        if steps.too_fast or end.wall_s < -0.01:
            found.add("rollouts with a step that took less time than its reply", end.cell)
        _time_limit(end, steps, run.manifest.plan.limits_of(arm), found)
        if steps.overseen and not arm.has_overseer:
            found.add("rollouts that an overseer stepped in at although their arm has none", end.cell)
        if records.same_code and steps.odd:
            found.add("rollouts with steps whose signs are not those of their action and result", end.cell)
        counted = steps.counters, min(len(steps.in_flight), 1)
        if steps.count and (
            len(steps.in_flight) not in (0, steps.count)
            or counted != counters.setdefault(models[end.arm], counted)
        ):
            found.add(
                "rollouts whose tokens or requests were counted by another than the model's others", end.cell
            )
        if steps.shrank and not arm.has_overseer:
            found.add("rollouts whose prompts have no more tokens although more was said", end.cell)
        several = len(arm.model.addresses) > 1
        if (
            max(end.servers or (1,)) > len(arm.model.addresses)
            or bool(end.servers) != several
            or (steps.count and bool(steps.servers) != several)
        ):
            found.add("rollouts answered by servers that their model has not", end.cell)
        if workers and any(count > workers for count in steps.in_flight):
            found.add(
                f"rollouts with more requests in flight than the {workers} workers of a session", end.cell
            )
        if end.sandbox in ALONE or not steps.commands:
            _patch_of_tree(end, steps, found)
            _patch_of_others(end, steps, patches, trees, found)


def _time_limit(end: Trajectory, steps: AttemptSteps, limits: Limits, found: Contradictions) -> None:
    """That no step was begun after the time was over. The last one may take longer than there was time for, and whoever goes on with a
    rollout needs some to come as far."""
    before = steps.seconds - steps.last_s
    if before >= limits.wall_s + 1 or end.wall_s - steps.last_s > 2 * limits.wall_s + CLOCK_S:
        found.add("rollouts that went on after their time", end.cell)


def _end_is_possible(end: Trajectory, steps: AttemptSteps, limits: Limits, records: Records) -> bool:
    """Whether a reason to end follows from the steps and the limits, which are looked at in this order: steps, time, tokens."""
    if steps.stopped is not None:
        return steps.stopped is end.stop_reason
    if end.steps >= limits.steps:
        return end.steps == limits.steps and end.stop_reason is StopReason.STEP_LIMIT
    match end.stop_reason:
        case StopReason.TIME_LIMIT if not end.stop_cause:
            return end.wall_s >= limits.wall_s or not records.same_code
        case StopReason.TOKEN_LIMIT:
            # Of a sum that is not whole the rollout counts what it knows.
            known = end.completion_tokens
            return bool(limits.total_tokens) and (known is None or known >= (limits.total_tokens or 0))
        case StopReason.CONTEXT_FULL if not end.stop_cause:
            return not steps.most or steps.most > limits.context_tokens - limits.output_tokens
        case StopReason.TIME_LIMIT | StopReason.CONTEXT_FULL | StopReason.REFUSED:
            # What its server said, after the name of the error that stands for it.
            named = (
                records.agent.errors.get(end.stop_cause.partition(":")[0])
                if records.agent is not None
                else None
            )
            return records.agent is None or named is end.stop_reason
    return False


def _patch_of_tree(end: Trajectory, steps: AttemptSteps, found: Contradictions) -> None:
    """That a patch is what the steps made of the tree."""
    if end.patch_error or steps.stopped is StopReason.UNUSABLE:
        return
    if end.flagged_paths and not steps.by_command:
        found.add("rollouts with entries in their tree that no command made", end.cell)
    if steps.no_tree:
        found.add("steps with a tree that is the hash of none", end.cell)
    if steps.idle_change:
        found.add("rollouts whose tree changed at a step that changes nothing", end.cell)
    if (steps.tree != end.workspace_clean_state) != bool(end.patch or end.flagged_paths):
        found.add("rollouts whose patch and whose last tree contradict each other", end.cell)
    elif steps.missing and not steps.by_command:
        found.add("patches with lines that no step wrote", end.cell)


def _patch_of_others(
    end: Trajectory,
    steps: AttemptSteps,
    patches: dict[tuple[str, str, str], tuple[str, ...]],
    trees: dict[tuple[str, str, str], str],
    found: Contradictions,
) -> None:
    """That equal trees of a task have equal patches, and equal patches equal trees."""
    if end.patch_error or steps.stopped is StopReason.UNUSABLE:
        return
    begun = end.instance_id, end.workspace_clean_state
    made = end.patch_hash, *end.flagged_paths
    if made != patches.setdefault((*begun, steps.tree), made) or (
        not end.flagged_paths and steps.tree != trees.setdefault((*begun, end.patch_hash), steps.tree)
    ):
        found.add("rollouts whose patch and last tree are not those of others at their task", end.cell)


def _prompts(records: Records, found: Contradictions) -> None:
    """That arms which are told nothing beforehand begin with the same words where task and scaffold are the same; and that all begin
    with what their memory gives."""
    scaffolds = {name: content_hash(arm.scaffold) for name, arm in records.arms.items()}
    known: dict[tuple[str, str], str] = {}
    made: dict[tuple[str, str, str], tuple[Delivery, str] | None] = {}
    lengths: dict[tuple[str, str], int | None] = {}
    plain: dict[tuple[str, str, str], int | None] = {}
    told: list[tuple[Trajectory, tuple[str, str, str], int]] = []
    for end in records.run.trajectories:
        arm = records.arms.get(end.arm)
        if arm is None or arm.agent or end.stop_reason is StopReason.IMPORTED:
            continue
        key = end.instance_id, scaffolds[end.arm]
        if not _told_at_start(arm) and end.prompt_hash != known.setdefault(key, end.prompt_hash):
            found.add("rollouts that began with other words than others at their task", end.cell)
        steps = records.steps.get((end.cell, end.attempt), AttemptSteps())
        if steps.first is not None and not arm.has_overseer:
            counter, tokens = steps.first
            if tokens != lengths.setdefault((end.prompt_hash, counter), tokens):
                found.add(
                    "rollouts whose first prompt has other tokens than the same words elsewhere", end.cell
                )
            if _told_at_start(arm):
                told.append((end, (*key, counter), tokens or 0))
            else:
                plain[(*key, counter)] = tokens
        task, seed = records.tasks.get(end.instance_id), end.cell.split("/")[1:2]
        if records.agent is None or task is None or not "".join(seed).isdigit():
            continue
        # Arms that remember nothing begin alike.
        begun = (
            (end.arm, seed[0], end.instance_id)
            if _remembers(arm)
            else ("", scaffolds[end.arm], end.instance_id)
        )
        if begun not in made:
            given = records.agent.delivery(arm, int(seed[0]), task)
            made[begun] = None if given is None else (given, records.agent.prompt_hash(arm, task, given))
        if (expected := made[begun]) is not None:
            _delivery(end, *expected, records, found)
    for end, same, tokens in told:
        if (without := plain.get(same)) is not None and not _memory_adds_up(
            end, tokens - without, records.arms[end.arm]
        ):
            found.add("rollouts whose memory has other tokens than their first prompt has more", end.cell)


def _memory_adds_up(end: Trajectory, more: int, arm: Arm) -> bool:
    """Whether a first prompt is longer than the one without memory by what was told and its frame."""
    how = arm.remembers
    if end.memory_tokens is None or how is None or how.kind is MemoryKind.SUCCESSES:
        return True
    return -A_FEW <= more - end.memory_tokens <= len(arm.scaffold.memory.encode()) + A_FEW


def _remembers(arm: Arm) -> bool:
    """Whether the agent itself is told anything; what an overseer is told is not for it."""
    return arm.remembers is not None and not arm.has_overseer and arm.role is not ArmRole.EXPERIENCE


def _told_at_start(arm: Arm) -> bool:
    how = arm.remembers
    return how is not None and how.moment is Moment.START and _remembers(arm)


def _delivery(
    end: Trajectory, given: Delivery, prompt_hash: str, records: Records, found: Contradictions
) -> None:
    steps = records.steps.get((end.cell, end.attempt), AttemptSteps())
    at_start, later = end.memory[: len(given.items)], end.memory[len(given.items) :]
    waiting = {item.id for item in given.later}
    if at_start != given.items or not {*later} <= waiting or {*later} != steps.memory:
        found.add("rollouts that were told other memories than their arm gives to their task", end.cell)
    elif end.memory_candidates != given.candidates:
        found.add("rollouts with another number of memories to choose from than there are", end.cell)
    if end.prompt_hash != prompt_hash:
        found.add("rollouts that began with other words than their arm, task and memory give", end.cell)
    texts = (
        given.text or "",
        *(text for _, text in given.earlier),
        *(item.text for item in given.later if item.id in later),
    )
    told = sum(len(text.encode(errors="surrogatepass")) for text in texts)
    tokens = end.memory_tokens
    if tokens is not None and not told <= tokens * BYTES_OF_A_TOKEN <= (told + A_FEW) * BYTES_OF_A_TOKEN:
        found.add("rollouts whose memory has other tokens than it can have", end.cell)


def _end_of_steps(end: Trajectory, steps: AttemptSteps, found: Contradictions) -> None:
    if steps.went_on or (steps.stopped is not None and steps.stopped is not end.stop_reason):
        found.add("rollouts that ended otherwise than their steps", end.cell)
    if end.steps and not isclose(end.model_s, steps.model_s, rel_tol=1e-6, abs_tol=1e-6):
        found.add("rollouts whose steps do not add up to their model's time", end.cell)


def _memory_told(end: Trajectory, arm: Arm | None, records: Records, found: Contradictions) -> None:
    """That what was told from memory is there, and that only who remembers was told anything."""
    steps = records.steps.get((end.cell, end.attempt), AttemptSteps())
    if not steps.memory <= {*end.memory}:
        found.add("rollouts that were told other memories than their steps", end.cell)
    if (
        arm is not None
        and not arm.agent
        and not _remembers(arm)
        and (end.memory_tokens or end.memory_candidates)
    ):
        found.add("rollouts that say how much memory they were told although their arm has none", end.cell)
    if not end.memory:
        return
    if arm is not None and arm.remembers is None:
        found.add("rollouts that were told memories although their arm has none", end.cell)
    if not {*end.memory} <= records.items.keys():
        found.add("rollouts that were told memories that are not there", end.cell)


def _attempts(records: Records, found: Contradictions) -> None:
    """That attempts are numbered from 1, each with its end."""
    run = records.run
    ends = {(verdict.cell, verdict.attempt): verdict for verdict in run.verdicts}
    for cell, of_cell in grouped(ends).items():
        if of_cell != list(range(1, len(of_cell) + 1)):
            found.add("cells with an attempt that is gone, or was put in", cell)
    if not records.sealed:
        return
    for end in run.trajectories:
        if (end.cell, end.attempt) not in ends:
            found.add("rollouts without a verdict", end.cell)
    for (cell, attempt), steps in records.steps.items():
        verdict = ends.get((cell, attempt))
        judged = verdict is not None and verdict.outcome.is_verdict
        if steps.count and (cell, attempt) not in run.ends and (verdict is None or judged):
            found.add("steps of an attempt that has no end", cell)


def _verdicts(records: Records, found: Contradictions) -> None:
    run, manifest = records.run, records.run.manifest
    by_key = {f"{verdict.cell}#{verdict.attempt}": verdict for verdict in run.verdicts}
    tests: dict[str, tuple[frozenset[str], frozenset[str]]] = {
        name: (frozenset(task.fail_to_pass), frozenset(task.pass_to_pass))
        for name, task in records.tasks.items()
    }
    same: dict[tuple[str, str], dict[str, object]] = {}
    ready = {node.address for node in run.nodes if node.state is NodeState.READY}
    for verdict in run.verdicts:
        cell = verdict.cell
        if verdict.verifier != run.verdicts[0].verifier:
            found.add("verdicts by other rules than the run's first", cell)
        if said := as_tests_say(verdict):
            found.add(said, cell)
        end = run.ends.get((cell, verdict.attempt))
        judged = verdict.outcome.is_verdict
        if judged and end is None:
            found.add("verdicts without a rollout", cell)
        elif judged and end is not None and end.patch_hash != verdict.patch_hash:
            found.add("verdicts on another patch than the rollout made", cell)
        elif judged and end is not None and end.environment != verdict.environment:
            found.add("verdicts in another environment than the rollout's", cell)
        if verdict.sandbox != manifest.sandbox:
            found.add("verdicts in another sandbox than the manifest's", cell)
        if verdict.node and verdict.node not in ready:
            found.add("verdicts from a machine that had not shown that it can judge", cell)
        if judged:
            _judged(verdict, end, records, found)
        # What another run judged stands there, and is audited with it.
        here = verdict.same_as if ":" not in verdict.same_as else ""
        if here and not _takes_over(verdict, by_key.get(verdict.same_as)):
            found.add("verdicts that are not the same as the one they take over", cell)
        if not _is_of_its_cell(verdict, records.arms):
            found.add("verdicts on another task than their cell's", cell)
        named = frozenset(verdict.fail_to_pass), frozenset(verdict.pass_to_pass)
        if named != tests.setdefault(verdict.instance_id, named):
            found.add("verdicts with other tests than their task's", cell)
        if judged:
            known = same.setdefault((verdict.instance_id, verdict.patch_hash), {})
            shared = _said_of_patch(verdict, deterministic=records.deterministic)
            if any(known.setdefault(name, value) != value for name, value in shared.items()):
                found.add("verdicts that differ from others on the same patch", cell)


ENDED_BY_A_LIMIT = ("the tests took more", "the tests filled")
"""So begins the cause of a verdict whose test run reached a limit of its own: time, disk or memory."""
KILLED = "the tests were killed"
"""So does that of one whose test runs somebody killed."""


def _said_of_patch(verdict: Verdict, *, deterministic: bool) -> dict[str, object]:
    """In what verdicts on one patch of one task must agree, whatever rules, environment or verdict they name.

    What may honestly turn out otherwise the next time is left out: tests of real repositories, which may be flaky; tests that reached a
    limit or were killed, which say nothing; and how a patch was seen to interfere with its tests, since the copies that see it are
    drawn anew.
    """
    if verdict.cause.startswith(KILLED) and not _has_outcomes(verdict):
        return {}
    said: dict[str, object] = {
        name: getattr(verdict, name) for name in ("file_recall", "stripped_paths", "applied")
    }
    if not deterministic or (verdict.cause.startswith(ENDED_BY_A_LIMIT) and not _has_outcomes(verdict)):
        return said
    said["resolved"] = verdict.outcome is Outcome.RESOLVED
    if verdict.outcome is not Outcome.TAMPERED:
        said |= {name: getattr(verdict, name) for name in ("f2p_only", "fail_to_pass", "pass_to_pass")}
    return said


def _has_outcomes(verdict: Verdict) -> bool:
    tests = (*verdict.fail_to_pass.values(), *verdict.pass_to_pass.values())
    return any(test is not TestOutcome.MISSING for test in tests)


def _judged(verdict: Verdict, end: Trajectory | None, records: Records, found: Contradictions) -> None:
    """That a verdict says what its rules make every verdict say."""
    number = verdict.verifier.partition(",")[0]
    rules = int(number) if number.isdigit() else 0
    if records.agent is not None and number != records.agent.rules:
        found.add("verdicts by other rules than this version's", verdict.cell)
    if records.same_code and verdict.canaries and not verdict.canaries.startswith(CANARIES):
        found.add("verdicts whose canaries say nothing that canaries say", verdict.cell)
    ran = verdict.outcome is Outcome.RESOLVED or verdict.f2p_only or " tests did not pass: " in verdict.cause
    if ran and not verdict.canaries and rules >= CANARIES_SINCE:
        found.add("verdicts of test runs that came to their end, without canaries", verdict.cell)
    if ran and verdict.wall_s <= 0:
        found.add("verdicts of test runs that took no time", verdict.cell)
    if said := _cause_of_tests(verdict):
        found.add(said, verdict.cell)
    if end is None:
        return
    if end.patch_error and (
        verdict.cause != end.patch_error
        or _has_outcomes(verdict)
        or verdict.outcome is not Outcome.UNRESOLVED
    ):
        found.add("verdicts on a patch that could not be made", verdict.cell)
    empty = not end.patch.strip()
    how = verdict.applied.partition(" (")[0]
    known = records.agent is None or how in records.agent.attempts
    if (empty and how) or (not empty and ran and rules >= APPLIED_SINCE and not (how and known)):
        found.add("verdicts that say their patch was applied as none is", verdict.cell)
    imported = end.stop_reason is StopReason.IMPORTED
    mine = None if imported else _files(end.patch)
    if mine is not None and not {*verdict.stripped_paths} <= mine:
        found.add("verdicts that put back files which their patch does not change", verdict.cell)
    task = records.tasks.get(verdict.instance_id)
    if task is None or imported:
        return
    gold = _files(task.gold_patch)
    if verdict.file_recall is None:
        if records.same_code and ran and gold and how:
            found.add("verdicts without the share of gold's files that their patch has", verdict.cell)
        return
    # A patch that does not apply changes nothing.
    if gold and mine is not None and (empty or how):
        share = len(gold & mine) / len(gold)
        if not isclose(verdict.file_recall, share, abs_tol=1e-9):
            found.add("verdicts with another share of gold's files than their patch has", verdict.cell)


_COUNTED = re.compile(r"(\d+) of (\d+) (FAIL|PASS)_TO_PASS tests did not pass: (.*)", re.DOTALL)


def _cause_of_tests(verdict: Verdict) -> str:
    """What is wrong with the words of a verdict, by the outcomes of its tests; empty where nothing is."""
    if verdict.outcome is Outcome.RESOLVED:
        return "verdicts with the output of tests that passed" if verdict.output else ""
    tests = {"FAIL": verdict.fail_to_pass, "PASS": verdict.pass_to_pass}
    failing = {name for of in tests.values() for name, seen in of.items() if not seen.passes}
    # A test run that came to its end fails for what its tests say, and for nothing else.
    whole = bool(verdict.canaries) and not verdict.cause.startswith(ENDED_BY_A_LIMIT)
    if verdict.outcome is Outcome.UNRESOLVED and (whole or " tests did not pass" in verdict.cause):
        label = "PASS" if failing.isdisjoint(tests["FAIL"]) else "FAIL"
        counted = _COUNTED.match(verdict.cause)
        right = str(len(failing & tests[label].keys())), str(len(tests[label])), label
        unnamed = counted is None and not verdict.fail_to_pass
        kept = label == "PASS" and bool(verdict.fail_to_pass)
        named = counted is not None and any(
            counted[4].partition(", which is no test's name;")[0] == f"{name} {tests[label][name].value}"
            for name in failing & tests[label].keys()
        )
        figures = counted and counted.groups()[:3]
        if not unnamed and (not named or figures != right or verdict.f2p_only != kept):
            return "verdicts whose cause is not what their tests say"
    if not verdict.output:
        return ""
    lines = bare_lines(verdict.output)
    if whole and lines[0] not in failing:
        return "verdicts with the output of tests that are not among those that failed"
    if any(line in of and line not in failing for line in lines for of in tests.values()):
        return "verdicts with the output of tests that passed"
    return ""


_HEADS = re.compile(r"^diff --git (.*)$", re.MULTILINE)
_RENAMED = re.compile(r"^rename (?:from|to) (.*)$", re.MULTILINE)


def _files(patch: str) -> set[str] | None:
    """Files that a patch of git's changes, under their names before and after; None where one has a name that git quotes."""
    found = set(_RENAMED.findall(patch))
    for names in _HEADS.findall(patch):
        name = names[2 : len(names) // 2]
        if names == f"a/{name} b/{name}":
            found.add(name)
        elif '"' in names or not found:
            return None
    return found


def as_tests_say(verdict: Verdict) -> str:
    """What is wrong with an outcome, by the outcomes of its tests; empty where nothing is."""
    fixed, kept = verdict.fail_to_pass.values(), verdict.pass_to_pass.values()
    ran = any(test is not TestOutcome.MISSING for test in (*fixed, *kept))
    passed = bool(fixed) and all(test.passes for test in (*fixed, *kept))
    match verdict.outcome:
        case Outcome.RESOLVED if not passed or verdict.cause or verdict.tampering:
            return "verdicts that say resolved while their tests do not"
        case Outcome.UNRESOLVED if passed and not verdict.cause:
            return "verdicts that say unresolved while every test passed"
        case Outcome.UNRESOLVED if not verdict.cause:
            return "verdicts that say unresolved and do not say why"
        case Outcome.TAMPERED if not verdict.tampering:
            return "verdicts that say tampered and do not say how"
        case Outcome.INFRA_ERROR if ran:
            return "infra errors in which tests ran"
        case Outcome.UNRESOLVED if not ran and not verdict.patch_hash:
            return "verdicts that say unresolved where nothing was judged: infra errors under another name"
    if (verdict.outcome is Outcome.TAMPERED) != bool(verdict.tampering):
        return "verdicts that say how their tests were tampered with and not that they were"
    if verdict.tampering and verdict.cause != verdict.tampering[0]:
        return "verdicts that say tampered and another cause"
    if verdict.fault and verdict.outcome is not Outcome.INFRA_ERROR:
        return "verdicts with a fault of Looper's own, which ends an attempt as an infra error"
    if verdict.f2p_only and (not all(test.passes for test in fixed) or all(test.passes for test in kept)):
        return "verdicts that say that only kept tests broke while their tests do not"
    return ""


def _takes_over(verdict: Verdict, other: Verdict | None) -> bool:
    own = {"cell", "attempt", "same_as", "wall_s", "node"}
    shared = Verdict.model_fields.keys() - own
    return other is not None and all(getattr(verdict, name) == getattr(other, name) for name in shared)


def _is_of_its_cell(verdict: Verdict, arms: Mapping[str, Arm]) -> bool:
    arm, _, rest = verdict.cell.partition("/")
    return arm in arms and rest.partition("/")[2] == verdict.instance_id


def _served(records: Records, found: Contradictions) -> None:
    """That each arm was served by the model that was planned, with the adapter that it has and no other."""
    known: dict[str, str] = {}
    """Adapter → the hash that it was served by."""
    for end in records.run.trajectories:
        arm = records.arms.get(end.arm)
        if arm is None:
            continue
        planned = _planned(records, arm)
        if (
            planned is not None
            and planned.digest != "not asked"
            and _without_adapter(end.model) != _without_adapter(planned)
        ):
            found.add("rollouts of another model than the manifest's", end.cell)
        _right_adapter(records, arm, planned, end, known, found)


def _without_adapter(identity: ModelIdentity) -> ModelIdentity:
    return identity.model_copy(update={"adapter": ""})


def _planned(records: Records, arm: Arm) -> ModelIdentity | None:
    """What the manifest says that an arm is served by; None for what it does not say."""
    models, base = records.run.manifest.models, records.run.manifest.plan.base
    if arm.role is not ArmRole.EXPERIENCE:
        return models.get(arm.name)
    return models.get(base.name) if base is not None and arm.model == base.model else None


def _right_adapter(
    records: Records,
    arm: Arm,
    planned: ModelIdentity | None,
    end: Trajectory,
    known: dict[str, str],
    found: Contradictions,
) -> None:
    gathers = arm.role is ArmRole.EXPERIENCE
    if not arm.has_adapter:
        if planned is not None and end.model.adapter != planned.adapter:
            found.add("rollouts with an adapter that their arm does not have", end.cell)
        return
    if not end.model.adapter:
        found.add("rollouts without the adapter of their arm", end.cell)
        return
    learner = _learner_of(records, arm) if gathers else arm.name
    seed = end.cell.split("/")[1]
    of_seed = records.learned.get((learner, int(seed)), []) if seed.isdigit() else []
    rounds = max((one.round for one in of_seed), default=1)
    mine = [
        one.adapter
        for one in of_seed
        if one.adapter
        and (gathers or one.round == rounds)
        and one.repo in ("", records.repo_of(end.instance_id))
    ] or [one.adapter for one in of_seed if one.adapter and (gathers or one.round == rounds)]
    if not mine:
        found.add("rollouts with an adapter that nobody recorded the making of", end.cell)
        return
    here = [records.served(name) for name in mine]
    if None not in here:
        if end.model.adapter not in here:
            found.add("rollouts with another adapter than their arm's", end.cell)
        return
    if len(mine) == 1 and end.model.adapter != known.setdefault(mine[0], end.model.adapter):
        found.add("rollouts with another adapter than their arm's", end.cell)


def _learner_of(records: Records, gathering: Arm) -> str:
    """The arm that gathers experience under another name, before a later round of its own."""
    arms = records.run.manifest.plan.arms
    return next((arm.name for arm in arms if arm.learning == gathering.learning), "")


def _learned(records: Records, found: Contradictions) -> None:
    """That what was learned is made of successes which are there, and is what the card of its adapter says."""
    run, manifest = records.run, records.run.manifest
    by_name = {arm.name: arm for arm in manifest.plan.arms}
    gathering = {arm.name for _, arm in manifest.plan.all_experience()}
    resolved = {
        (cell.split("/")[1], verdict.instance_id)
        for cell, verdict in run.final.items()
        if arm_of(cell) in gathering and verdict.outcome is Outcome.RESOLVED
    }
    owners: dict[str, str] = {}
    for one in {each.key: each for each in run.consolidations}.values():
        name, arm = f"{one.arm}, seed {one.seed}, {one.repo or 'all repositories'}", by_name.get(one.arm)
        if arm is None or arm.learning is None or arm.treatment is not one.treatment:
            found.add("what was learned by an arm that does not learn that", name)
            continue
        if one.seed not in manifest.plan.seeds_of(arm):
            found.add("what was learned with a seed that the plan does not have", name)
        if one.adapter and (one.adapter not in one.made or not {*one.after} <= {*one.made}):
            found.add("adapters that are none of those that were made on the way to them", name)
        # Of an arm that learns in rounds the last one is what it works with.
        last = one.round == arm.learning.rounds
        if one.adapter and last and owners.setdefault(one.adapter, one.arm) != one.arm:
            _shared(records, one, owners[one.adapter], found)
        if any((str(one.seed), task) not in resolved for task in one.selection.tasks):
            found.add("what was learned from successes that are none", name)
        elif said := _selection(records, arm, one):
            found.add(said, name)
        if not _used_count(records, arm, one):
            found.add("what was learned from another number of successes than it says", name)
        if not {*one.items} <= records.items.keys():
            found.add("what was learned from memories that are not there", name)
        _adapter_cards(records, one, name, found)
    sealed = [seal for seal in read_stream(run.folder, "seals", Seal) if seal.adapters]
    used = {one.adapter for one in run.consolidations if one.adapter}
    for adapter in sorted(sealed[-1].adapters.keys() - used) if sealed else ():
        found.add("adapters that were served and that no arm learned", adapter)


def _shared(records: Records, one: Consolidation, other: str, found: Contradictions) -> None:
    """One adapter of two arms is what both made of the same, or a name that was exchanged: whoever worked with it was proved to have
    it. An arm that has not begun may not have come to its proofs."""
    proved = {proof.arm for proof in records.run.proofs if proof.subject == one.adapter}
    for arm in ({one.arm, other} & records.at_work) - proved:
        found.add("adapters of another arm", f"{one.adapter} of {arm}")


def _selection(records: Records, arm: Arm, one: Consolidation) -> str:
    """What is wrong with how many attempts were seen, and how many of them failed; empty where nothing is."""
    learning = arm.own_learning
    plan, run = records.run.manifest.plan, records.run
    if records.tried_again:
        return ""
    made = None if records.agent is None else records.agent.selection(arm, one, records.steps_of)
    if made is not None:
        most, selection = made
        # Preferences and what a teacher shows leave out attempts that have no other, or nothing to tell.
        whole = not one.adapter or learning.objective is Objective.IMITATION
        if one.selection != selection:
            return "what was learned from other attempts than there are"
        return (
            ""
            if one.used == most or (not whole and one.used < most)
            else "what was learned from another number of successes than there are"
        )
    if one.round > 1 or learning.elsewhere:
        return ""
    names = {found.name for found in plan.experience_arms(learning.source)}
    tasks = set(run.manifest.experience_tasks.get(learning.source, ()))
    verdicts = [
        verdict
        for name in names
        for verdict in records.final_of.get((name, str(one.seed)), ())
        if verdict.instance_id in tasks
        and (verdict.cell, verdict.attempt) in run.ends
        and records.repo_of(verdict.instance_id) in ((one.repo,) if one.repo else records.evaluated)
    ]
    if not verdicts or learning.source is Source.GUIDED or one.selection.without_verdict:
        return ""
    failed = sum(found.outcome in (Outcome.UNRESOLVED, Outcome.TAMPERED) for found in verdicts)
    if (one.selection.seen, one.selection.unresolved) != (len(verdicts), failed):
        return "what was learned from other attempts than there are"
    won = {found.instance_id for found in verdicts if found.outcome is Outcome.RESOLVED}
    if not (one.selection.outside or one.selection.without_steps) and {*one.selection.tasks} != won:
        return "what was learned from other successes than there are"
    return ""


def _used_count(records: Records, arm: Arm, one: Consolidation) -> bool:
    """Whether as many successes went in as the records give: an item for each where they are told, and where nothing else is said of
    an arm as many as the poorest source has."""
    learning, plan = arm.own_learning, records.run.manifest.plan
    if not len(one.selection.tasks) <= one.selection.taken:
        return False
    how = learning.remembers
    if how is not None and how.kind.traits.has_items and not learning.treatment.is_adapter:
        return one.used == len(one.items)
    # What failed outside of the agent may have been tried again, after it was learned from.
    plain = not (
        learning.recovered
        or learning.failures
        or learning.elsewhere
        or one.selection.without_verdict
        or records.tried_again
    )
    if not plain or one.round > 1 or not one.repo or learning.objective is not Objective.IMITATION:
        return True
    taken = {
        by_name.learning.source: other.selection.taken
        for found in records.learned.values()
        for other in found
        if (other.seed, other.repo, other.round) == (one.seed, one.repo, 1)
        and (by_name := records.arms.get(other.arm)) is not None
        and by_name.learning is not None
        and not by_name.learning.elsewhere
    }
    sources = {source for source in plan.sources if source is not Source.GUIDED}
    if not sources <= taken.keys():
        return one.used <= one.selection.taken
    most = min(*(taken[source] for source in sources), taken[learning.source])
    return one.used == min(most, learning.episodes or most)


def _memory_items(records: Records, found: Contradictions) -> None:
    """That memories are called by what they say, and say what the rollout that they come from did."""
    run, agent = records.run, records.agent
    owners = {
        item: records.arms[one.arm]
        for all_of in records.learned.values()
        for one in all_of
        if one.arm in records.arms
        for item in one.items
    }
    for item in records.items.values():
        if item.id != content_hash(item.kind.value, item.text, item.instance_id)[:16]:
            found.add("memories that are not what they are called by", item.id)
        cell, _, attempt = item.source.rpartition("#")
        key = cell, int(attempt) if attempt.isdigit() else 0
        end, task, arm = run.ends.get(key), records.tasks.get(item.instance_id), owners.get(item.id)
        if end is None or end.instance_id != item.instance_id:
            found.add("memories of a rollout that is not there", item.id)
        elif agent is not None and task is not None and arm is not None:
            steps = records.steps_of(key)
            ways = (steps, agent.useful(steps))
            if all(agent.item(item.kind, arm, end, way, task) != item for way in ways):
                found.add("memories that say something else than their rollout did", item.id)


def _adapter_cards(records: Records, one: Consolidation, name: str, found: Contradictions) -> None:
    manifest = records.run.manifest
    cards = [records.card(adapter) for adapter in one.made]
    whole = [card for card in cards if card is not None]
    if not one.made or len(whole) < len(cards):
        return
    if sum(card.trained_tokens for card in whole) != one.trained_tokens:
        found.add("adapters that were trained on other tokens than recorded", name)
    if not isclose(sum(card.seconds for card in whole), one.training_s, rel_tol=1e-6, abs_tol=1e-6):
        found.add("adapters that were trained for another time than recorded", name)
    planned = manifest.models.get(manifest.plan.learners_base.name)
    for card in whole:
        if planned is not None and card.base.digest != planned.digest:
            found.add("adapters that were trained on another model than the manifest's", name)
        if {*card.tasks} & {*manifest.tasks}:
            found.add("adapters that have seen tasks that they are judged on", name)
        elif not {*card.tasks} <= {task for of in manifest.experience_tasks.values() for task in of}:
            found.add("adapters that were trained on tasks that the plan does not learn from", name)


def _proved(records: Records, found: Contradictions) -> None:
    """That what was proved is what was served, and that nobody worked without a proof."""
    run = records.run
    kinds = (ProofKind.ADAPTER_ARRIVED, ProofKind.ZERO_IS_BASE)
    of_adapters = (*kinds, ProofKind.VALID_ACTIONS, ProofKind.RETENTION)
    proved: dict[str, set[str]] = {}
    for proof in run.proofs:
        if (prover := records.arms.get(proof.arm)) is None:
            found.add("proofs of an arm that the plan does not have", proof.arm)
        elif proof.kind in kinds and (proof.kind is ProofKind.ZERO_IS_BASE) != (
            prover.treatment is Treatment.ZERO_ADAPTER
        ):
            found.add("proofs of another kind than the adapter that they are about", proof.arm)
        if proof.kind in of_adapters:
            made = {
                one.adapter
                for (arm, _), all_of in records.learned.items()
                if arm == proof.arm
                for one in all_of
            }
            carried = (
                prover is not None and prover.model.carried_there and proof.subject == prover.model.adapter
            )
            if proof.subject not in made and not carried:
                found.add("proofs of an adapter that is not the arm's", f"{proof.subject} of {proof.arm}")
        if proof.kind in kinds and proof.passed:
            proved.setdefault(proof.arm, set()).add(proof.subject)
        if proof.kind is ProofKind.ACTION_GATE and proof.passed != _valid_actions_kept(run, proof.arm):
            found.add("arms whose action gate is not what their adapters' proofs say", proof.arm)
    _degenerate_arms(records, found)
    at_work = {arm_of(verdict.cell) for verdict in run.verdicts}
    remembered = {proof.arm for proof in run.proofs if proof.kind is ProofKind.MEMORY_DELIVERED}
    for arm in run.manifest.plan.arms:
        if arm.name not in at_work:
            continue
        if arm.remembers is not None and arm.name not in remembered:
            found.add("arms that worked without the proof of their memory", arm.name)
        if not arm.has_adapter:
            continue
        for seed in run.manifest.plan.seeds_of(arm):
            mine = records.learned.get((arm.name, seed), [])
            rounds = max((one.round for one in mine), default=1)
            for one in mine:
                if one.round == rounds and one.adapter not in proved.get(arm.name, set()):
                    found.add(
                        "arms that worked without the proof of their adapter", f"{arm.name}, {one.adapter}"
                    )
            if not mine:
                found.add("arms that worked without having learned", f"{arm.name}, seed {seed}")


def _degenerate_arms(records: Records, found: Contradictions) -> None:
    """That an arm was stopped for want of actions where its steps say so, and nowhere else."""
    run = records.run
    last: dict[str, AttemptSteps] = {}
    for (cell, _), steps in sorted(records.steps.items()):
        if cell in run.final and steps.count:
            last[cell] = steps
    stopped = {proof.arm for proof in run.proofs if proof.kind is ProofKind.ACTS and not proof.passed}
    for arm in run.manifest.plan.arms:
        shares = [steps.without / steps.count for cell, steps in last.items() if arm_of(cell) == arm.name]
        if arm.name in stopped and (not shares or fmean(shares) <= DEGENERATE):
            found.add("arms that were stopped for want of actions, and whose steps have them", arm.name)
        elif (
            records.sealed
            and arm.name not in stopped
            and run.stops(Gate.ACTION)
            and evidence(shares, DEGENERATE) >= 1 / DEGENERATE_ALPHA
        ):
            found.add("arms whose steps have no actions, and that nobody stopped", arm.name)


def _valid_actions_kept(run: RunView, arm: str) -> bool:
    """Whether an arm's adapters leave as many valid actions as they must, on the average."""
    shares = [
        (proof.after, proof.before)
        for proof in run.proofs
        if proof.arm == arm
        and proof.kind is ProofKind.VALID_ACTIONS
        and None not in (proof.after, proof.before)
    ]
    ours, theirs = (fmean(share) for share in zip(*shares, strict=True)) if shares else (0.0, 1.0)
    return ours >= theirs - VALID_MARGIN


def _likelihoods(records: Records, found: Contradictions) -> None:
    """That arms were asked about successes that are some, with adapters of theirs, and all about the same."""
    run, plan = records.run, records.run.manifest.plan
    bases = {arm.name for arm in plan.arms if arm.role in (ArmRole.BASE, ArmRole.AGAIN)}
    resolved = {
        verdict.instance_id
        for cell, verdict in run.final.items()
        if arm_of(cell) in bases and verdict.outcome is Outcome.RESOLVED
    }
    last = [one for one in run.likelihoods if one.last]
    about = {*last[0].held_out} if last else set()
    for one in run.likelihoods:
        name = f"{one.arm}, seed {one.seed}, after {one.batches} batches"
        made = {adapter for found_ in records.learned.get((one.arm, one.seed), []) for adapter in found_.made}
        if one.arm not in records.arms or not {*one.adapters} <= made:
            found.add("likelihoods with an adapter that is not the arm's", name)
        if not {*one.held_out} <= resolved:
            found.add("likelihoods of successes that are none", name)
        elif one.last and {*one.held_out} != about and len(run.sessions) == 1:
            # A later session may have had more successes to ask about.
            found.add("likelihoods of other successes than the other arms were asked about", name)
    for key, count in Counter(one.key for one in run.likelihoods).items():
        if count > 1:
            found.add("likelihoods that are there twice", f"{key[0]}, seed {key[1]}")
    for attempt in run.attempt_likelihoods:
        if (attempt.cell, attempt.attempt) not in run.ends:
            found.add("likelihoods of attempts that are not there", attempt.cell)


def _of_this_plan(command: str, plan: Plan) -> bool:
    """Whether `looper run EXPERIMENT --profile PROFILE` is what made a run of a plan; of other commands nobody can tell."""

    def named(word: str, name: str) -> bool:
        return Path(name).stem in (word, Path(word).name, Path(word).stem) or name == word

    try:
        words = shlex.split(command)
    except ValueError:
        return False
    if words[1:2] != ["run"] or len(words) < 3:
        return True
    profile = words[words.index("--profile") + 1] if "--profile" in words[:-1] else plan.profile
    return named(words[2], plan.experiment) and named(profile, plan.profile)


def _high_resolution(seconds: float) -> bool:
    """Whether a time is by a clock so fine that no two things take the same."""
    return seconds > 0 and round(seconds, 4) != seconds


def _sessions(records: Records, found: Contradictions) -> None:
    """That no process saw more ends than there are, or went on with another run."""
    run, before = records.run, 0
    if not run.sessions and (run.folder / "sessions.jsonl").exists():
        found.add("no session is there, and a process must have worked on it", run.folder.name)
    # What was damaged and set aside is done again, and was an end once.
    whole = not run.damage and not any(run.folder.glob("*.damaged"))
    for number, session in enumerate(run.sessions, 1):
        done = session.done_before
        if whole and (not before <= done <= len(run.final) or (number == 1 and done)):
            found.add("sessions that found other cells ended than there are", f"session {number}")
        before = done
        named = session.command.partition(" --run ")[2].split(" ")[0].strip("'\"").rpartition("/")[2]
        if named and named != run.folder.name and run.manifest.run_hash() not in named:
            found.add("sessions that went on with another run", named)
        if not _of_this_plan(session.command, run.manifest.plan):
            found.add("sessions whose command is another experiment's or profile's", f"session {number}")
