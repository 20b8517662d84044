"""One cell from task to verdict.

A cell has as many attempts as the plan says, and each ends in exactly one verdict record: of the agent's work, or of the fault that
kept it from being judged. Which of the two it is, is decided here and nowhere else.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from traceback import format_exception
from typing import Protocol

from looper.agent.loop import Assignment, ReplayDiverged, Rollout, end_by, rollout
from looper.agent.oversight import SupervisedModel
from looper.agent.prompt import opening
from looper.agent.tools import ToolContext
from looper.bench.verify import TestReport, VerifierContext, rules, verify_again, without_tests
from looper.errors import (
    Cancelled,
    InfrastructureError,
    ModelError,
    ends_everything,
    is_of_what_was_made,
    named,
)
from looper.protocols import ChatModel, Session, Sessions, VerdictCache
from looper.records.base import content_hash
from looper.records.job import CellJob, CellTreatment, Event, Obstacle
from looper.records.memory import Delivery
from looper.records.plan import AS_COMPUTED, Arm, Isolation
from looper.records.sampling import sampling_seed
from looper.records.task import Task
from looper.records.text import encodable
from looper.records.trajectory import StopReason, Trajectory
from looper.records.verdict import Outcome, TestOutcome, Verdict


class ProcessVerdicts:
    """Verdicts of this process."""

    def __init__(self) -> None:
        self._known: dict[str, Verdict] = {}

    def get(self, key: str) -> Verdict | None:
        return self._known.get(key)

    def put(self, key: str, verdict: Verdict) -> None:
        self._known[key] = verdict


class ModelFor(Protocol):
    """An arm's model for a task, with an adapter by its id, with none where that is empty; and which of its servers is asked first, from 0."""

    def __call__(self, arm: Arm, task: Task, adapter: str = "", server: int = 0, /) -> ChatModel: ...


@dataclass(frozen=True)
class RunContext:
    """What a cell needs of the outside, handed in by the wiring."""

    sessions: Sessions
    model_for: ModelFor
    code_version: str
    run_hash: str = ""
    """Of the manifest that the cells are part of; empty where there is none."""
    judged: VerdictCache = field(default_factory=ProcessVerdicts)
    """What was judged once is not judged again: same task with its labels, patch, environment, sandbox and rules."""
    clock: Callable[[], float] = time.monotonic
    rollout: Callable[[Arm, Assignment], Rollout] = lambda arm, assignment: rollout(assignment)
    """By the agent that is installed, or by another version of it."""
    isolation: Isolation = Isolation.SHARED


def run_cell(
    job: CellJob,
    run_context: RunContext,
    tell: Callable[[Event], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> Verdict:
    """Make one attempt at a cell: the one place where what breaks in it becomes its end. `tell` returns when an event is durable.

    Raises Cancelled when the run is being stopped, and what no other cell could survive either: JournalError, ModelFatal, and what is
    wrong with the plan.
    """
    attempt = _Attempt(job, run_context, tell, cancelled)
    try:
        verdict = attempt.run() if job.obstacle is None else attempt.broken(job.obstacle)
    except ReplayDiverged:
        verdict = attempt.broken(Obstacle(cause="the interrupted rollout could not be repeated"))
    except Exception as error:
        verdict = attempt.broken(obstacle_of(error))
    tell(verdict)
    return verdict


def obstacle_of(error: Exception) -> Obstacle:
    """What ended one attempt. Raises the error where no other could survive it either."""
    if ends_everything(error):
        raise error
    if isinstance(error, (InfrastructureError, OSError)):
        return Obstacle(cause=named(error))
    return Obstacle(cause=named(error), fault=encodable("".join(format_exception(error))))


@dataclass(frozen=True)
class _Attempt:
    job: CellJob
    run_context: RunContext
    tell: Callable[[Event], None]
    cancelled: Callable[[], bool]

    def run(self) -> Verdict:
        environment = self.run_context.sessions.environment_id(self.job.task)
        trajectory = self.job.resume.trajectory
        if trajectory is None:
            made = self.job.made
            trajectory = (
                self._roll_out(environment)
                if made is None
                else made.model_copy(update={"attempt": self.job.resume.attempt})
            )
            self.tell(trajectory)
        if self.cancelled():
            raise Cancelled
        if not trajectory.patch_error:
            return self._judged(trajectory, environment)
        found = without_tests(self.job.task, Outcome.UNRESOLVED, trajectory.patch_error)
        return self._verdict(found, trajectory.patch_hash, environment)

    def _judged(self, trajectory: Trajectory, environment: str) -> Verdict:
        task, run_context = self.job.task, self.run_context
        begun = run_context.clock()
        # A test can fail for want of memory; one that time ends has no outcome, and is not kept.
        memory = str(self.job.limits.memory_mb)
        key = content_hash(
            task,
            trajectory.patch_hash,
            environment,
            run_context.sessions.sandbox_name,
            rules(run_context.isolation),
            memory,
        )
        known = run_context.judged.get(key)
        # Arms that play a part are there to show that the tests run, so theirs always do.
        if known is not None and not self.job.arm.model.is_control:
            return known.model_copy(
                update={
                    "cell": self.job.cell.key,
                    "attempt": self.job.resume.attempt,
                    "same_as": f"{known.cell}#{known.attempt}",
                    "wall_s": run_context.clock() - begun,
                }
            )
        verifier_context = VerifierContext(
            run_context.sessions, self.job.limits, run_context.clock, isolation=run_context.isolation
        )
        found = verify_again(task, trajectory.patch, verifier_context, "verify")
        verdict = self._verdict(found, trajectory.patch_hash, environment)
        outcomes = {*found.fail_to_pass.values(), *found.pass_to_pass.values()}
        if found.outcome is not Outcome.TAMPERED and TestOutcome.MISSING not in outcomes:
            run_context.judged.put(key, verdict)
        return verdict

    def broken(self, obstacle: Obstacle) -> Verdict:
        """The end of an attempt that failed outside of the agent."""
        found = without_tests(self.job.task, Outcome.INFRA_ERROR, obstacle.cause)
        verdict = self._verdict(found, "", self.job.task.environment)
        return verdict.model_copy(update={"fault": obstacle.fault})

    def _roll_out(self, environment: str) -> Trajectory:
        job, run_context = self.job, self.run_context
        cell, arm, task = job.cell, job.arm, job.task
        model, memory = self._model(job.treatment), job.treatment.memory
        identity = model.identity()
        session = run_context.sessions.open(task, "work")
        seed = sampling_seed(cell, arm)
        assignment = Assignment(
            cell=cell.key,
            attempt=self.job.resume.attempt,
            task=task,
            seed=seed,
            temperature=arm.temperature,
            sampling=arm.sampling or AS_COMPUTED,
            memory=memory,
            tool_context=ToolContext(session, arm.scaffold, job.limits),
            model=model,
            clock=run_context.clock,
            record=self.tell,
            cancelled=self.cancelled,
            recorded=self.job.resume.steps,
        )
        with closing(session):
            try:
                done = run_context.rollout(arm, assignment)
                patch, flagged, patch_error = _patch_of(session)
                memory_tokens = _memory_tokens(model, memory, done)
            finally:
                model.forget(f"{cell.key}#{self.job.resume.attempt}")
        return Trajectory(
            cell=cell.key,
            attempt=self.job.resume.attempt,
            instance_id=task.instance_id,
            arm=arm.name,
            arm_hash=arm.config_hash(),
            seed=seed,
            code_version=run_context.code_version,
            run_hash=run_context.run_hash,
            prompt_hash=done.prompt_hash,
            memory=(*memory.items, *done.memory),
            memory_candidates=memory.candidates,
            memory_tokens=memory_tokens,
            model=identity,
            environment=environment,
            sandbox=run_context.sessions.sandbox_name,
            workspace_clean_state=session.clean_state,
            steps=done.steps,
            stop_reason=done.stop_reason,
            stop_cause=done.cause,
            patch=patch,
            patch_hash=content_hash(patch),
            patch_at_limit=bool(patch) and done.stop_reason is not StopReason.DONE,
            flagged_paths=flagged,
            patch_error=patch_error,
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            guards=done.guards,
            wall_s=done.wall_s,
            model_s=done.model_s,
            in_flight=done.in_flight,
            servers=done.servers or self._begun_with(),
        )

    def _begun_with(self) -> tuple[int, ...] | None:
        """The server that was to answer a rollout which no reply came to, where its model has several."""
        servers = len(self.job.arm.model.addresses)
        return (self.job.server % servers + 1,) if servers > 1 else None

    def _model(self, treatment: CellTreatment) -> ChatModel:
        """The arm's with what it has learned; under its overseer where it has one."""
        job, model_for = self.job, self.run_context.model_for
        model = model_for(job.arm, job.task, treatment.adapter, job.server)
        overseer = treatment.overseer
        if overseer is None:
            return model
        return SupervisedModel(
            model,
            model_for(overseer.arm, job.task, "", job.server),
            opening(job.task, job.arm.scaffold, overseer.memory),
            opening(job.task, job.arm.scaffold),
            blind=overseer.blind,
        )

    def _verdict(self, found: TestReport, patch_hash: str, environment: str) -> Verdict:
        return Verdict(
            cell=self.job.cell.key,
            attempt=self.job.resume.attempt,
            instance_id=self.job.cell.instance_id,
            outcome=found.outcome,
            cause=encodable(found.cause),
            f2p_only=found.f2p_only,
            fail_to_pass=found.fail_to_pass,
            pass_to_pass=found.pass_to_pass,
            stripped_paths=found.stripped_paths,
            applied=found.applied,
            output=encodable(found.output),
            file_recall=found.file_recall,
            tampering=found.tampering,
            patch_hash=patch_hash,
            environment=environment,
            sandbox=self.run_context.sessions.sandbox_name,
            verifier=rules(self.run_context.isolation),
            wall_s=found.wall_s,
            canaries=found.canaries,
        )


def _patch_of(session: Session) -> tuple[str, tuple[str, ...], str]:
    """The patch and what it cannot hold, or why there is none."""
    try:
        return *session.patch(), ""
    except Exception as error:
        if not is_of_what_was_made(error):
            raise
        return "", (), f"the tree cannot be compared with its base: {named(error)}"


def _memory_tokens(model: ChatModel, memory: Delivery, done: Rollout) -> int | None:
    """Length of what was told from memory, as the content of a message; None where it cannot be counted."""
    told = [text for _, text in memory.earlier] + [memory.text or ""]
    told += [item.text for item in memory.later if item.id in done.memory]
    text = "\n".join(part for part in told if part)
    if not text:
        return 0
    try:
        with_it, without = (model.count_tokens([("user", said)]) for said in (text, ""))
    except ModelError as error:
        end_by(
            error, done.steps
        )  # The rollout is over already, and what it says of its conversation stays true.
        return None
    return None if with_it is None or without is None else with_it - without
