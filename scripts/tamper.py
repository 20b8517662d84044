"""Which changes of a finished run `looper report --verify` names: makes one, changes a copy in each way, and looks.

    python scripts/tamper.py [--run FOLDER --home FOLDER] [--only WORDS]

Each kind is planted twice: by somebody who leaves the seal alone, and by the owner of the folder, who makes a new seal (and names the
folder anew where the plan was changed). All of the first must be named; of the second all that another record contradicts. What is
then left, `out of reach`, is what a hash of the seal elsewhere is for: `looper report --sign`. Ends with status 1 where that does not
hold, or where anything ends with a traceback.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from looper.errors import ExitCode
from looper.journal import Stream, _encode, read_stream
from looper.records.base import Record, content_hash
from looper.records.learning import Treatment
from looper.records.likelihood import Likelihood
from looper.records.memory import MemoryItem
from looper.records.plan import Expect, RunManifest
from looper.records.question import AnsweredQuestion, Rating
from looper.records.seal import Seal, SealedFile
from looper.records.session import Session, Trained
from looper.records.training import AdapterRecord
from looper.records.trajectory import (
    Bash,
    Edit,
    FinishReason,
    Guard,
    ObservationKind,
    ReplyProblem,
    Step,
    StopReason,
    Trajectory,
)
from looper.records.treatment import Consolidation, Proof, ProofKind
from looper.records.verdict import Outcome, TestOutcome, Verdict
from looper.views.runs import STREAMS

PLAN = """
title = "Audited"
hypothesis = "h"
factor = "what the arm has learned"
[[arms]]
name = "noop"
role = "control"
model = "noop"
only_seeds = 1
reason = "an arm without a model"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "lora"
role = "treatment"
learning = { treatment = "adapter" }
[[arms]]
name = "in_batches"
role = "treatment"
learning = { treatment = "adapter", strategy = { name = "sequential" } }
reason = "adapters that are made of others"
[[arms]]
name = "memory"
role = "treatment"
learning = { treatment = "memory" }
reason = "items of memory"
[[contrasts]]
arm = "lora"
against = "base"
shown = "It helped here."
refuted = "It harmed here."
open = "It is open."
[profiles.micro]
like = "demo"
seeds = [0, 1]
[profiles.micro.tasks]
per_repo = 3
limit = 3
[profiles.micro.experience]
per_repo = 8
batch = 3
delivered = 0.1
samples = 1
temperature = 0.7
selection = { minimum_tasks = 1 }
training = { learning_rate = 1e-4, iterations = 2, batch_size = 2 }
"""
OTHERS = """
title = "Audited besides"
hypothesis = "Told lessons help here."
factor = "what is learned"
measured_only = ["action"]
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "again"
role = "again"
repetition = 1
reason = "how often equal arms differ"
[[arms]]
name = "overseen"
role = "treatment"
learning = { treatment = "oversight" }
[[arms]]
name = "unaware"
role = "control"
learning = { treatment = "oversight", blind = true }
[[arms]]
name = "answers"
role = "treatment"
learning = { treatment = "adapter", format = "self_qa", rounds = 2, writer = "self" }
reason = "answers that a model wrote"
[[arms]]
name = "told"
role = "treatment"
learning = { treatment = "memory" }
reason = "a gate that stops the run, and is passed over later"
[[choices]]
name = "likeliest"
of = ["base", "again"]
by = "likeliest"
[[contrasts]]
arm = "overseen"
against = "unaware"
metric = "interventions"
shown = "An overseer who remembers steps in more often."
refuted = "An overseer who remembers steps in less often."
open = "Whether it steps in more often is open."
[[contrasts]]
arm = "likeliest"
against = "base"
shown = "The likeliest attempt resolves more."
refuted = "The likeliest attempt resolves less."
open = "Whether it resolves more is open."
[profiles.micro]
like = "demo"
seeds = [0]
[profiles.micro.tasks]
per_repo = 4
limit = 8
repositories = 2
[profiles.micro.experience]
per_repo = 12
# As many as are told something if every task is resolved, so that the gate stops the run.
delivered = 0.75
samples = 2
selection = { minimum_tasks = 1 }
training = { learning_rate = 1e-4, iterations = 2, batch_size = 2 }
"""
"""What the first has not: overseers, answered questions, rounds, a choice of attempts, a gate that is passed over late."""
KINDS: dict[type[Record], str] = {kind: name for name, kind in STREAMS.items()} | {
    Step: "steps",
    MemoryItem: "memory",
    Seal: "seals",
    AnsweredQuestion: "questions",
    Rating: "ratings",
}
SWEPT = tuple(kind for kind in KINDS if kind is not RunManifest)
"""Records whose fields are changed one by one. Every word of the plan is in the name of the folder."""
FIELDS = "changes of a field by itself"
Records = list[Any]


class NothingToChange(Exception):
    """This run has no record of that kind."""


@dataclass
class Copy:
    """A finished run to be tampered with, among other copies or with a project of its own."""

    run: Path
    project: Path
    home: Path

    def records(self, kind: type[Record]) -> Records:
        return list(read_stream(self.run, KINDS[kind], kind))

    def write(self, kind: type[Record], records: Sequence[Any]) -> None:
        """Numbered and with checksums, as if it had always been so."""
        path = self.run / f"{KINDS[kind]}.jsonl"
        if kind is Step:
            # It is made again from the steps.
            (self.run / "steps.index.json").unlink(missing_ok=True)
        path.write_bytes(b"".join(_encode(at, one, self.run) for at, one in enumerate(records, 1)))

    def change(self, kind: type[Record], which: Callable[[Any], bool], **values: Any) -> None:
        """The first that fits; a value may be made of the record."""
        records = self.records(kind)
        at = next((number for number, one in enumerate(records) if which(one)), None)
        if at is None:
            raise NothingToChange
        new = {name: value(records[at]) if callable(value) else value for name, value in values.items()}
        records[at] = records[at].model_copy(update=new)
        self.write(kind, records)

    def change_all(self, kind: type[Record], which: Callable[[Any], bool], **values: Any) -> None:
        """All that fit."""
        records, changed = [], False
        for one in self.records(kind):
            new = (
                {name: value(one) if callable(value) else value for name, value in values.items()}
                if which(one)
                else {}
            )
            changed |= bool(new)
            records.append(one.model_copy(update=new))
        if not changed:
            raise NothingToChange
        self.write(kind, records)

    def drop(self, kind: type[Record], which: Callable[[Any], bool]) -> None:
        records = self.records(kind)
        left = [one for one in records if not which(one)]
        if len(left) == len(records):
            raise NothingToChange
        self.write(kind, left)

    def add(self, *records: Any) -> None:
        for one in records:
            stream = Stream(self.run, KINDS[type(one)], type(one))
            stream.append(one)
            stream.close()

    def reseal(self) -> None:
        """As the owner of the folder can: the hashes of what is there now, and the folder named by its plan."""
        seals = self.records(Seal)
        if not seals:
            return
        files = {}
        for name in seals[-1].files:
            path = self.run / f"{name}.jsonl"
            data = path.read_bytes() if path.exists() and name != "seals" else b""
            files[name] = SealedFile(
                lines=data.count(b"\n"), bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
            )
        self.write(Seal, [seals[-1].model_copy(update={"files": files})])
        before = self.run.name.split("-")
        before[2] = self.records(RunManifest)[0].run_hash()
        self.run = self.run.rename(self.run.with_name("-".join(before)))


def passed(names: Any) -> dict[str, TestOutcome]:
    return dict.fromkeys(names, TestOutcome.PASSED)


def of(arm: str) -> Callable[[Any], bool]:
    return lambda one: (
        (one.arm if isinstance(one, Consolidation | Proof | Likelihood) else one.cell.split("/")[0]) == arm
    )


def failed(one: Any) -> bool:
    return one.outcome is Outcome.UNRESOLVED and not of("noop")(one)


def flip(copy: Copy) -> None:
    copy.change(Verdict, failed, outcome=Outcome.RESOLVED, cause="")


RESOLVED = {"outcome": Outcome.RESOLVED, "cause": "", "f2p_only": False}
"""What a verdict says that was flipped, beside its tests."""


def flip_with_tests(copy: Copy, *, output: bool = False) -> None:
    """All verdicts of one patch, so that none contradicts the other; with the output of the tests that failed, or without."""
    one = next(found for found in copy.records(Verdict) if failed(found) and of("lora")(found))
    records = [
        found.model_copy(
            update={
                **RESOLVED,
                "output": found.output if output else "",
                "fail_to_pass": passed(found.fail_to_pass),
                "pass_to_pass": passed(found.pass_to_pass),
            }
        )
        if (found.instance_id, found.patch_hash) == (one.instance_id, one.patch_hash)
        else found
        for found in copy.records(Verdict)
    ]
    copy.write(Verdict, records)


def alike(copy: Copy, *, resolved: bool) -> Verdict:
    """A verdict that no other one takes over, on a patch that others were judged on too."""
    verdicts = copy.records(Verdict)
    taken = {one.same_as.partition("#")[0] for one in verdicts}
    times = Counter((one.instance_id, one.patch_hash) for one in verdicts)
    for one in verdicts:
        mine = one.cell.split("/")[0] in ("base", "lora", "in_batches", "memory") and one.cell not in taken
        if (
            mine
            and (one.outcome is Outcome.RESOLVED) == resolved
            and times[one.instance_id, one.patch_hash] > 1
        ):
            return one
    raise NothingToChange


def flip_alone(**other: Any) -> Callable[[Copy], None]:
    """One failed verdict says resolved, its tests too, and something else than the others on its patch, so that it is not like them."""

    def change(copy: Copy) -> None:
        one = alike(copy, resolved=False)
        tests = {"fail_to_pass": passed(one.fail_to_pass), "pass_to_pass": passed(one.pass_to_pass)}
        copy.change(
            Verdict,
            lambda each: each.cell == one.cell,
            **RESOLVED,
            **tests,
            **{"same_as": "", "output": "", **other},
        )
        if "environment" in other:
            copy.change(Trajectory, lambda each: each.cell == one.cell, environment=other["environment"])

    return change


def fail_alone(**other: Any) -> Callable[[Copy], None]:
    """One success fails, and no other on its patch does."""

    def change(copy: Copy) -> None:
        one = alike(copy, resolved=True)
        copy.change(Verdict, lambda each: each.cell == one.cell, same_as="", **other)

    return change


def one_missing(one: Verdict) -> dict[str, TestOutcome]:
    return {**one.fail_to_pass, next(iter(one.fail_to_pass)): TestOutcome.MISSING}


def all_failed(copy: Copy) -> None:
    """All tests of one failed verdict, and of no other on its patch."""
    one = alike(copy, resolved=False)
    tests = {
        name: dict.fromkeys(getattr(one, name), TestOutcome.FAILED)
        for name in ("fail_to_pass", "pass_to_pass")
    }
    if all(tests[name] == getattr(one, name) for name in tests):
        tests = {
            name: {**found, next(iter(found)): TestOutcome.ERROR} for name, found in tests.items() if found
        }
    copy.change(Verdict, lambda each: each.cell == one.cell, same_as="", f2p_only=False, **tests)


def kept_tests_broke(copy: Copy) -> None:
    """In the failed cells of an arm the tests to be fixed passed, and one that was to be kept did not."""

    def kept(one: Verdict) -> dict[str, TestOutcome]:
        return {**passed(one.pass_to_pass), next(iter(one.pass_to_pass)): TestOutcome.FAILED}

    copy.change_all(
        Verdict,
        lambda one: failed(one) and of("memory")(one) and bool(one.pass_to_pass),
        same_as="",
        f2p_only=True,
        fail_to_pass=lambda one: passed(one.fail_to_pass),
        pass_to_pass=kept,
    )


def patch_without_one(copy: Copy) -> None:
    """Failed cells take patches and verdicts that resolve their tasks, and say that no patch could be made."""
    verdicts = copy.records(Verdict)
    ends = {one.cell: one for one in copy.records(Trajectory)}
    best = {one.instance_id: one for one in verdicts if one.outcome is Outcome.RESOLVED}
    given = {
        one.cell: best[one.instance_id]
        for one in verdicts
        if (of("memory")(one) or of("lora")(one)) and failed(one) and one.instance_id in best
    }
    copy.change_all(
        Trajectory,
        lambda one: one.cell in given,
        patch=lambda one: ends[given[one.cell].cell].patch,
        patch_hash=lambda one: ends[given[one.cell].cell].patch_hash,
        patch_error="git failed",
        patch_at_limit=lambda one: one.stop_reason is not StopReason.DONE,
    )
    new = {name: lambda one, name=name: getattr(given[one.cell], name) for name in SHARED}
    copy.change_all(Verdict, lambda one: one.cell in given, same_as="", **new)


def flagged_for_a_patch(copy: Copy) -> None:
    """A resolved cell has no patch but a link in its tree, and is unresolved."""
    verdicts, edits = (
        copy.records(Verdict),
        {one.cell for one in copy.records(Step) if isinstance(one.action, Edit)},
    )
    commands = {one.cell for one in copy.records(Step) if isinstance(one.action, Bash)}
    taken = {one.same_as.partition("#")[0] for one in verdicts}
    cell = next(
        (
            one.cell
            for one in verdicts
            if one.outcome is Outcome.RESOLVED and one.cell in edits and one.cell not in taken | commands
        ),
        None,
    ) or next(
        (one.cell for one in verdicts if one.outcome is Outcome.RESOLVED and one.cell not in taken), None
    )
    if cell is None:
        raise NothingToChange
    empty = content_hash("")
    copy.change(
        Trajectory,
        lambda one: one.cell == cell,
        patch="",
        patch_hash=empty,
        patch_at_limit=False,
        flagged_paths=("link",),
    )
    copy.change(
        Verdict,
        lambda one: one.cell == cell,
        outcome=Outcome.UNRESOLVED,
        cause="the patch is empty",
        **{
            "same_as": "",
            "patch_hash": empty,
            "applied": "",
            "file_recall": 0.0,
            "canaries": "",
            "output": "",
        },
        fail_to_pass=lambda one: dict.fromkeys(one.fail_to_pass, TestOutcome.MISSING),
        pass_to_pass=lambda one: dict.fromkeys(one.pass_to_pass, TestOutcome.MISSING),
    )


def steps_of(arm: str, **reply: Any) -> Callable[[Copy], None]:
    """Replies of an arm's steps, of every arm where it is empty."""
    return lambda copy: copy.change_all(
        Step,
        of(arm) if arm else lambda one: True,
        reply=lambda one: one.reply.model_copy(
            update={name: value(one) if callable(value) else value for name, value in reply.items()}
        ),
    )


def seen_as(**observation: Any) -> dict[str, Any]:
    return {"observation": lambda one: one.observation.model_copy(update=observation)}


def counted_elsewhere(copy: Copy) -> None:
    """One token each, as a server may count that nobody here can check."""
    one_token_each(copy)
    steps_of("memory", usage=lambda one: one.reply.usage.model_copy(update={"counted_by": "server"}))(copy)


def uncounted(copy: Copy) -> None:
    none = {"prompt_tokens": None, "completion_tokens": None}
    copy.change_all(Step, of("memory"), context_tokens=None)
    steps_of("memory", usage=lambda one: one.reply.usage.model_copy(update=none))(copy)
    copy.change_all(Trajectory, of("memory"), **none)


def waited_all_the_time(copy: Copy) -> None:
    """So that a rollout took none."""
    steps_of("memory", waited_s=lambda one: one.wall_s)(copy)
    copy.change_all(Trajectory, of("memory"), wall_s=0.0)


def no_model_time(copy: Copy) -> None:
    steps_of("memory", wall_s=0.0)(copy)
    copy.change_all(Trajectory, of("memory"), model_s=0.0)


def negative_times(copy: Copy) -> None:
    copy.change_all(
        Step,
        of("memory"),
        wall_s=-5.0,
        reply=lambda one: one.reply.model_copy(update={"wall_s": -5.0}),
    )
    copy.change_all(
        Trajectory, of("memory"), wall_s=lambda one: -5.0 * one.steps, model_s=lambda one: -5.0 * one.steps
    )


def no_flights(copy: Copy) -> None:
    steps_of("lora", in_flight=None)(copy)
    copy.change_all(Trajectory, of("lora"), in_flight=None)


def guards_of(arm: str, guard: Guard | None) -> Callable[[Copy], None]:
    """One guard in every step of an arm, or none anywhere."""

    def change(copy: Copy) -> None:
        copy.change_all(Step, of(arm), guards=(guard,) if guard else ())
        copy.change_all(Trajectory, of(arm), guards=lambda one: {guard: one.steps} if guard else {})

    return change


def long_ago(copy: Copy) -> None:
    """A session that began years before, and rollouts that took weeks."""
    copy.change_all(Session, lambda one: True, begun="2001-01-01T00:00:00+00:00")
    copy.change_all(Trajectory, of("memory"), wall_s=1e6)


def blank_plan(copy: Copy) -> None:
    """Another contrast is registered, and no rollout names its plan."""

    def plan(one: RunManifest) -> Any:
        first = one.plan.contrasts[0].model_copy(
            update={"arm": "in_batches", "shown": "Batches helped here."}
        )
        return one.plan.model_copy(update={"contrasts": (first,)})

    copy.change(RunManifest, lambda one: True, plan=plan)
    copy.change_all(Trajectory, lambda one: True, run_hash="")
    copy.change_all(Session, lambda one: True, command="looper run audited")


def of_learned(value: Callable[[Likelihood], dict[str, float]]) -> Callable[[Copy], None]:
    return lambda copy: copy.change_all(Likelihood, lambda one: bool(one.learned), learned=value)


def learned_unknown(copy: Copy) -> None:
    copy.change_all(
        Likelihood,
        lambda one: bool(one.learned),
        learned=lambda one: {f"zz-{n}": value for n, value in enumerate(one.learned.values())},
        batch_of=lambda one: {f"zz-{n}": value for n, value in enumerate(one.batch_of.values())},
    )


def batches_reversed(copy: Copy) -> None:
    copy.change_all(
        Likelihood,
        lambda one: max(one.batch_of.values(), default=1) > 1,
        batch_of=lambda one: {task: max(one.batch_of.values()) + 1 - n for task, n in one.batch_of.items()},
    )


def proof_more(arm: str, like: ProofKind, *, first: bool = False, **values: Any) -> Callable[[Copy], None]:
    """Another proof made of one that is there, before the others or behind them."""

    def change(copy: Copy) -> None:
        proofs = copy.records(Proof)
        one = next((one for one in proofs if one.arm == arm and one.kind is like), None)
        if one is None:
            raise NothingToChange
        new = one.model_copy(update=values)
        copy.write(Proof, [new, *proofs] if first else [*proofs, new])

    return change


def of_kind(kind: ProofKind) -> Callable[[Any], bool]:
    return lambda one: one.kind is kind


def another_consolidation(copy: Copy) -> None:
    """Of the same arm, seed and repository, which says something else."""
    found = copy.records(Consolidation)
    copy.write(Consolidation, [found[0].model_copy(update={"used": 0, "trained_tokens": 1}), *found])


def item_of_nobody(copy: Copy) -> None:
    """An item more than any arm has learned, called by what it says."""
    items = copy.records(MemoryItem)
    if not items:
        raise NothingToChange
    text = f"{items[0].text} always"
    name = content_hash(items[0].kind.value, text, items[0].instance_id)[:16]
    copy.write(MemoryItem, [*items, items[0].model_copy(update={"text": text, "id": name})])


def trainings_halved(copy: Copy) -> None:
    """Each loses its end: of trainings that went on side by side, every second record could be all of one, and one that is gone
    altogether may have been had before."""
    copy.write(Trained, [one for one in copy.records(Trained) if one.event.event != "finished"])


def rated_by_nobody(copy: Copy) -> None:
    copy.add(Rating(arm="nobody", seed=77, round=9, source="x#1", by="me", noise=True))


def sessions_in_disorder(copy: Copy) -> None:
    first = copy.records(Session)[0]
    copy.write(
        Session, [first, first.model_copy(update={"begun": "2001-01-01T00:00:00+00:00", "done_before": 5})]
    )


def flip_experience(copy: Copy) -> None:
    copy.change(
        Verdict,
        lambda one: one.cell.startswith("experience") and one.outcome is Outcome.UNRESOLVED,
        outcome=Outcome.RESOLVED,
        cause="",
        f2p_only=False,
        same_as="",
        fail_to_pass=lambda one: passed(one.fail_to_pass),
        pass_to_pass=lambda one: passed(one.pass_to_pass),
    )


def second_attempts(copy: Copy) -> None:
    """A rollout and a verdict after those that there are, which turn what did not work out."""
    for verdict in [one for one in copy.records(Verdict) if failed(one)]:
        end = next(
            one
            for one in copy.records(Trajectory)
            if (one.cell, one.attempt) == (verdict.cell, verdict.attempt)
        )
        steps = [
            one for one in copy.records(Step) if (one.cell, one.attempt) == (verdict.cell, verdict.attempt)
        ]
        copy.add(*(step.model_copy(update={"attempt": 2}) for step in steps))
        copy.add(end.model_copy(update={"attempt": 2}))
        copy.add(
            verdict.model_copy(
                update={
                    "attempt": 2,
                    "outcome": Outcome.RESOLVED,
                    "cause": "",
                    "same_as": "",
                    "fail_to_pass": passed(verdict.fail_to_pass),
                    "pass_to_pass": passed(verdict.pass_to_pass),
                }
            )
        )


def first_as_error(copy: Copy) -> None:
    """What did not work out becomes an infra error, and a second attempt its verdict."""
    second_attempts(copy)
    records = [
        one.model_copy(
            update={
                "outcome": Outcome.INFRA_ERROR,
                "cause": "the server was down",
                "patch_hash": "",
                "f2p_only": False,
                "fail_to_pass": dict.fromkeys(one.fail_to_pass, TestOutcome.MISSING),
                "pass_to_pass": dict.fromkeys(one.pass_to_pass, TestOutcome.MISSING),
            }
        )
        if failed(one)
        else one
        for one in copy.records(Verdict)
    ]
    copy.write(Verdict, records)


def hide_tests(copy: Copy) -> None:
    """The tests that failed are not among the verdict's any more."""
    verdict = next(one for one in copy.records(Verdict) if failed(one) and _some_pass(one))
    kept = {
        name: {test: seen for test, seen in getattr(verdict, name).items() if seen.passes}
        for name in ("fail_to_pass", "pass_to_pass")
    }
    if not kept["fail_to_pass"]:
        kept["fail_to_pass"] = dict([kept["pass_to_pass"].popitem()])
    copy.change(
        Verdict,
        lambda one: one == verdict,
        outcome=Outcome.RESOLVED,
        cause="",
        same_as="",
        f2p_only=False,
        **kept,
    )


def _some_pass(verdict: Verdict) -> bool:
    tests = (*verdict.fail_to_pass.values(), *verdict.pass_to_pass.values())
    return sum(test.passes for test in tests) > 1


def planned_cell_gone(copy: Copy) -> None:
    """With everything that was recorded of it."""
    cell = next(one.cell for one in copy.records(Verdict) if of("base")(one) and failed(one))
    for kind in (Verdict, Trajectory, Step):
        copy.drop(kind, lambda one: one.cell == cell)


def arm_gone(copy: Copy) -> None:
    for kind in (Verdict, Trajectory, Step, Consolidation, Proof, Likelihood):
        copy.drop(kind, of("in_batches"))
    copy.drop(Trained, lambda one: one.what.startswith("in_batches"))


def plan_changed(**values: Any) -> Callable[[Copy], None]:
    def change(copy: Copy) -> None:
        copy.change(RunManifest, lambda one: True, plan=lambda one: one.plan.model_copy(update=values))

    return change


def another_margin(copy: Copy) -> None:
    def plan(one: RunManifest) -> Any:
        first = one.plan.contrasts[0].model_copy(update={"expect": Expect.SAME})
        return one.plan.model_copy(update={"contrasts": (first, *one.plan.contrasts[1:])})

    copy.change(RunManifest, lambda one: True, plan=plan)


def everything_anew(copy: Copy) -> None:
    """Another hypothesis, and every record that names the run says so."""
    plan_changed(hypothesis="what came out")(copy)
    new = copy.records(RunManifest)[0].run_hash()
    copy.change_all(Trajectory, lambda one: bool(one.run_hash), run_hash=new)
    name = "-".join([*copy.run.name.split("-")[:2], new])
    copy.write(
        Session,
        [
            one.model_copy(update={"command": f"{one.command.partition(' --run ')[0]} --run {name}"})
            for one in copy.records(Session)
        ],
    )


def swap_steps(copy: Copy) -> None:
    records = copy.records(Step)
    at = next(n for n in range(len(records) - 1) if records[n].cell == records[n + 1].cell)
    records[at], records[at + 1] = records[at + 1], records[at]
    copy.write(Step, records)


def last_step_gone(copy: Copy) -> None:
    end = max(copy.records(Trajectory), key=lambda one: one.steps)
    copy.drop(Step, lambda one: (one.cell, one.index) == (end.cell, end.steps))


def middle_step_gone(copy: Copy) -> None:
    """And the rollout says that it has one less."""
    end = max(copy.records(Trajectory), key=lambda one: one.steps)
    copy.drop(Step, lambda one: (one.cell, one.index) == (end.cell, 2))
    copy.change(Trajectory, lambda one: one == end, steps=end.steps - 1)


def exchange_adapters(copy: Copy) -> None:
    made = copy.records(Consolidation)
    # One batch in all is trained as the plain arm is, and is the same adapter.
    mine = {one.adapter for one in made if of("lora")(one)}
    other = next(one for one in made if of("in_batches")(one) and one.adapter not in mine)
    copy.change(Consolidation, of("lora"), adapter=other.adapter, made=other.made, after=other.after)


def model_of(**values: Any) -> dict[str, Any]:
    return {"model": lambda one: one.model.model_copy(update=values)}


def selection_of(**values: Any) -> dict[str, Any]:
    return {"selection": lambda one: one.selection.model_copy(update=values)}


def fewer_failed(one: Consolidation) -> Any:
    found = one.selection
    return found.model_copy(update={"seen": found.seen - found.unresolved, "unresolved": 0})


def forged_index(copy: Copy) -> None:
    path = copy.run / "steps.index.json"
    index = json.loads(path.read_text())
    index["attempts"][0][3] = [0] * len(index["attempts"][0][3])
    path.write_text(json.dumps(index))


def beside(copy: Copy, text: str) -> None:
    """A step whose observation lies beside the file, which was then changed there, or never was."""
    records = copy.records(Step)
    long = "x" * 300_000
    records[0] = records[0].model_copy(
        update={"observation": records[0].observation.model_copy(update={"text": long})}
    )
    copy.write(Step, records)
    path = copy.run / "texts" / content_hash(long)
    if text:
        path.write_text(text)
    else:
        path.unlink()


def told_of(path: str) -> Callable[[Copy], None]:
    """A text that is said to lie anywhere on this machine."""

    def plant(copy: Copy) -> None:
        file = copy.run / "steps.jsonl"
        lines = file.read_bytes().split(b"\n")
        body = json.loads(lines[0])["record"]
        body["observation"]["text"] = {"$text": path}

        class Raw(Record):
            def to_json(self) -> bytes:
                return json.dumps(body).encode()

        lines[0] = _encode(1, Raw(), copy.run).rstrip(b"\n")
        file.write_bytes(b"\n".join(lines))

    return plant


def seal_file(content: bytes | None) -> Callable[[Copy], None]:
    def change(copy: Copy) -> None:
        path = copy.run / "seals.jsonl"
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    return change


def lines_out(copy: Copy) -> None:
    path = copy.run / "verdicts.jsonl"
    path.write_bytes(b"".join(line for line in path.read_bytes().splitlines(True) if b'"lora/1/' not in line))


def edited_without_checksum(copy: Copy) -> None:
    path = copy.run / "verdicts.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"unresolved"', b'"resolved"', 1))


def doubled(kind: type[Record]) -> Callable[[Copy], None]:
    return lambda copy: copy.add(copy.records(kind)[-1])


def reply_changed(copy: Copy) -> None:
    copy.change(
        Step,
        lambda one: one.action is not None and one.action.tool != "done",
        reply=lambda one: one.reply.model_copy(update={"text": "<done></done>"}),
    )


def edits_changed(copy: Copy) -> None:
    copy.change_all(
        Step,
        lambda one: isinstance(one.action, Edit),
        action=lambda one: one.action.model_copy(update={"new": "pass"}),
    )


def one_token_each(copy: Copy) -> None:
    """Prompts and replies of the arm that remembers, with totals that add up."""
    one_each = {"prompt_tokens": 1, "completion_tokens": 1}
    copy.change_all(
        Step,
        of("memory"),
        context_tokens=1,
        reply=lambda one: one.reply.model_copy(update={"usage": one.reply.usage.model_copy(update=one_each)}),
    )
    steps = {"prompt_tokens": lambda one: one.steps, "completion_tokens": lambda one: one.steps}
    copy.change_all(Trajectory, of("memory"), **steps)


def crowded(copy: Copy) -> None:
    """Fifty requests in flight, in steps and rollouts."""
    copy.change_all(
        Step,
        lambda one: one.reply.in_flight is not None,
        reply=lambda one: one.reply.model_copy(update={"in_flight": 50}),
    )
    copy.change_all(Trajectory, lambda one: one.in_flight is not None, in_flight=50.0)


def done_as_stalled(copy: Copy) -> None:
    """In the last step too."""
    for kind in (Step, Trajectory):
        copy.change_all(kind, lambda one: one.stop_reason is StopReason.DONE, stop_reason=StopReason.STALLED)


def other_memories(copy: Copy) -> None:
    """What was told are other items that there are."""
    items = [one.id for one in copy.records(MemoryItem)]

    def others(end: Trajectory) -> tuple[str, ...]:
        return tuple([one for one in items if one not in end.memory][: len(end.memory)])

    copy.change_all(Trajectory, lambda one: bool(one.memory) and others(one) != one.memory, memory=others)


SHARED = (
    "outcome",
    "cause",
    "f2p_only",
    "fail_to_pass",
    "pass_to_pass",
    "applied",
    "output",
    "file_recall",
    "canaries",
    "patch_hash",
)


def results_of_other(copy: Copy, wanted: Callable[[Any, Any], bool]) -> None:
    """Cells take patch and verdict of another arm at the same task, so that no verdict contradicts another."""
    verdicts = {one.cell: one for one in copy.records(Verdict)}
    ends = {one.cell: one for one in copy.records(Trajectory)}
    given: dict[str, str] = {}
    for cell, verdict in verdicts.items():
        arm, _, rest = cell.partition("/")
        other = {"base": "lora", "lora": "base"}.get(arm, "")
        if f"{other}/{rest}" in ends and wanted(verdict, verdicts[f"{other}/{rest}"]):
            given[cell] = f"{other}/{rest}"
    copy.change_all(
        Trajectory,
        lambda one: one.cell in given and ends[given[one.cell]].patch != one.patch,
        patch=lambda one: ends[given[one.cell]].patch,
        patch_hash=lambda one: ends[given[one.cell]].patch_hash,
        patch_at_limit=lambda one: (
            bool(ends[given[one.cell]].patch) and one.stop_reason is not StopReason.DONE
        ),
    )
    new = {name: lambda one, name=name: getattr(verdicts[given[one.cell]], name) for name in SHARED}
    copy.change_all(Verdict, lambda one: one.cell in given, same_as="", **new)


def gold_for_failed(copy: Copy) -> None:
    """A failed cell takes the patch and the verdict of the arm that plays gold, or of another that resolved the task."""
    verdicts = copy.records(Verdict)
    ends = {one.cell: one for one in copy.records(Trajectory)}
    for verdict in verdicts:
        better = next(
            (
                one
                for one in verdicts
                if one.instance_id == verdict.instance_id and one.outcome is Outcome.RESOLVED
            ),
            None,
        )
        if not failed(verdict) or better is None or verdict.cell.startswith("experience"):
            continue
        end = ends[better.cell]
        copy.change(
            Trajectory,
            lambda one, cell=verdict.cell: one.cell == cell,  # type: ignore[misc]
            patch=end.patch,
            patch_hash=end.patch_hash,
            patch_at_limit=lambda one: one.stop_reason is not StopReason.DONE,
        )
        new = {name: getattr(better, name) for name in SHARED}
        copy.change(Verdict, lambda one, cell=verdict.cell: one.cell == cell, same_as="", **new)  # type: ignore[misc]
        return
    raise NothingToChange


def patch_emptied(copy: Copy) -> None:
    """And everything that is said of it."""
    cell = next((one.cell for one in copy.records(Trajectory) if of("base")(one) and one.patch), None)
    if cell is None:
        raise NothingToChange
    empty = {"patch": "", "patch_hash": content_hash(""), "patch_at_limit": False}
    copy.change(Trajectory, lambda one: one.cell == cell, **empty)
    copy.change(
        Verdict,
        lambda one: one.cell == cell,
        patch_hash=content_hash(""),
        applied="",
        file_recall=0.0,
        same_as="",
    )


def failed_as_errors(copy: Copy) -> None:
    """A failed cell that no other verdict takes over becomes three infra errors, and all else of it is gone."""
    verdicts = copy.records(Verdict)
    taken = {one.same_as.partition("#")[0] for one in verdicts}
    cell = next(
        (one.cell for one in verdicts if of("memory")(one) and failed(one) and one.cell not in taken), None
    )
    if cell is None:
        raise NothingToChange
    for kind in (Trajectory, Step):
        copy.drop(kind, lambda one: one.cell == cell)
    (one,) = (found for found in verdicts if found.cell == cell)
    missing = {
        name: dict.fromkeys(getattr(one, name), TestOutcome.MISSING)
        for name in ("fail_to_pass", "pass_to_pass")
    }
    blank = {
        "outcome": Outcome.INFRA_ERROR,
        "cause": "the server was down",
        "patch_hash": "",
        "f2p_only": False,
    }
    empty = {"canaries": "", "applied": "", "output": "", "file_recall": None, "same_as": "", "wall_s": 0.0}
    error = one.model_copy(update={**blank, **empty, **missing})
    errors = [error.model_copy(update={"attempt": attempt}) for attempt in (1, 2, 3)]
    copy.write(Verdict, [new for found in verdicts for new in (errors if found.cell == cell else [found])])


def text_that_is_a_link(copy: Copy) -> None:
    path = copy.run / "texts" / ("0" * 64)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/etc/passwd")


def tokens_changed(copy: Copy) -> None:
    def cheaper(one: Step) -> Any:
        usage = one.reply.usage.model_copy(update={"completion_tokens": 1})
        return one.reply.model_copy(update={"usage": usage})

    copy.change(Step, lambda one: (one.reply.usage.completion_tokens or 0) > 1, reply=cheaper)


def likelier(copy: Copy) -> None:
    copy.change(
        Likelihood,
        lambda one: one.last and bool(one.held_out),
        held_out=lambda one: dict.fromkeys(one.held_out, -0.001),
    )


def resolved_elsewhere(copy: Copy) -> None:
    """A success of base which likelihoods were asked about becomes a failure."""
    for verdict in copy.records(Verdict):
        if verdict.cell.split("/")[0] != "base" or verdict.outcome is not Outcome.RESOLVED:
            continue
        copy.change(
            Verdict,
            lambda one, cell=verdict.cell: one.cell == cell,  # type: ignore[misc]
            outcome=Outcome.UNRESOLVED,
            cause="a test failed",
            same_as="",
            fail_to_pass=lambda one: dict.fromkeys(one.fail_to_pass, TestOutcome.FAILED),
        )


@dataclass(frozen=True)
class Kind:
    """One way to change a run."""

    name: str
    plant: Callable[[Copy], None]
    reach: bool = True
    """Whether another record contradicts it, so that it is named with a new seal too."""
    alone: bool = False
    """Whether it needs a project of its own, as what lies outside of the run folder does."""
    by_path: bool = False
    """Whether the run is named by the path of its folder, and not found by its experiment."""
    sealable: bool = True
    """Whether there is any sense in a new seal."""
    resealed: bool = False
    """Whether it is looked at with a new seal alone: that the old one names any changed line other kinds show."""


def in_runs() -> list[Kind]:
    return [
        Kind("a verdict is edited, its checksum left alone", edited_without_checksum),
        Kind("a verdict says resolved", flip),
        Kind("a verdict says resolved, and its tests and their output too", flip_with_tests, reach=False),
        Kind("a verdict says resolved, its tests too, and their output is left", lambda c: flip_with_tests(c, output=True)),
        Kind("one verdict of other rules says resolved", flip_alone(verifier="130")),
        Kind("one verdict without an environment says resolved", flip_alone(environment="")),
        Kind("one verdict that takes over another run's says resolved", flip_alone(same_as="other-micro-000000000000:base/0/x#1")),
        Kind("one success fails, of which a test is missing", fail_alone(outcome=Outcome.UNRESOLVED, cause="the test run ended before its report did", canaries="", fail_to_pass=one_missing)),
        Kind("one success is said to have been tampered with", fail_alone(outcome=Outcome.TAMPERED, cause="conftest", tampering=("conftest",))),
        Kind("all tests of one verdict on a patch failed", all_failed),
        Kind("the tests to be fixed passed in an arm's failed cells", kept_tests_broke),
        Kind("causes count other tests", lambda c: c.change_all(Verdict, failed, cause="99 of 100 tests did not pass: nothing")),
        Kind("causes say that patches do not apply", lambda c: c.change_all(Verdict, failed, cause="the patch does not apply")),
        Kind("resolved verdicts with the output of failing tests", lambda c: c.change_all(Verdict, lambda one: one.outcome is Outcome.RESOLVED, output="test_x: AssertionError")),
        Kind("the output of failing tests is of others", lambda c: c.change_all(Verdict, lambda one: bool(one.output), output="no_such_test\n1 passed")),
        Kind("tampering in unresolved verdicts", lambda c: c.change_all(Verdict, failed, tampering=("conftest",))),
        Kind("a fault in every verdict", lambda c: c.change_all(Verdict, lambda one: True, fault="Traceback")),
        Kind("files were put back that no patch changes", lambda c: c.change_all(Verdict, lambda one: True, stripped_paths=("tests/test_hidden.py",))),
        Kind("tests took years", lambda c: c.change_all(Verdict, lambda one: one.wall_s > 0, wall_s=9e7)),
        Kind("a verdict of experience says resolved, and its tests too", flip_experience),
        Kind("a success of base that arms were asked about fails", resolved_elsewhere),
        Kind("a verdict says tampered", lambda c: c.change(Verdict, failed, outcome=Outcome.TAMPERED)),
        Kind("a verdict becomes an infra error", lambda c: c.change(Verdict, failed, outcome=Outcome.INFRA_ERROR)),
        Kind("a verdict without the tests that failed", hide_tests),
        Kind("a verdict on another patch", lambda c: c.change(Verdict, failed, patch_hash="0" * 64)),
        Kind("a verdict on another task", lambda c: c.change(Verdict, failed, instance_id="another-01")),
        Kind("a verdict in another environment", lambda c: c.change(Verdict, failed, environment="other")),
        Kind("a verdict in another sandbox", lambda c: c.change(Verdict, failed, sandbox="none")),
        Kind("a verdict takes over another one's outcome", lambda c: c.change(Verdict, failed, same_as="base/0/x#1")),
        Kind("a verdict says that only kept tests broke", lambda c: c.change(Verdict, failed, f2p_only=True, fail_to_pass=lambda one: dict.fromkeys(one.fail_to_pass, TestOutcome.FAILED), same_as="")),
        Kind("second attempts after the verdicts", second_attempts),
        Kind("first attempts as infra errors, second ones put in", first_as_error),
        Kind("a verdict twice", doubled(Verdict)),
        Kind("a rollout twice", doubled(Trajectory)),
        Kind("a verdict is gone", lambda c: c.drop(Verdict, lambda one: one.cell.startswith("lora/1/"))),
        Kind("lines are cut out of the verdicts", lines_out),
        Kind("a rollout is gone", lambda c: c.drop(Trajectory, lambda one: one.cell.startswith("lora/1/"))),
        Kind("a planned cell is gone, with all of it", planned_cell_gone),
        Kind("a planned arm is gone, with all of it", arm_gone),
        Kind("a cell that was never planned", lambda c: c.add(c.records(Verdict)[-1].model_copy(update={"cell": "base/7/" + c.records(Verdict)[-1].instance_id}))),
        Kind("a patch is exchanged", lambda c: c.change(Trajectory, of("base"), patch="diff")),
        Kind("a patch is exchanged, and its hash", lambda c: c.change(Trajectory, of("base"), patch="diff", patch_hash=content_hash("diff"))),
        Kind("a rollout by another model", lambda c: c.change(Trajectory, of("base"), **model_of(digest="0" * 64))),
        Kind("a rollout by a model of another name", lambda c: c.change(Trajectory, of("base"), **model_of(name="larger"))),
        Kind("a rollout without its arm's adapter", lambda c: c.change(Trajectory, of("lora"), **model_of(adapter=""))),
        Kind("a rollout with another adapter", lambda c: c.change(Trajectory, of("lora"), **model_of(adapter="0" * 64))),
        Kind("base with an adapter", lambda c: c.change(Trajectory, of("base"), **model_of(adapter="0" * 64))),
        Kind("a rollout of another plan", lambda c: c.change(Trajectory, of("base"), run_hash="0" * 12)),
        Kind("no rollout names a plan, and another contrast is registered", blank_plan),
        Kind("patches stand where none could be made", patch_without_one),
        Kind("a link stands in the place of a patch", flagged_for_a_patch),
        Kind("rollouts that took weeks in a session of long ago", long_ago),
        Kind("rollouts that waited all the time", waited_all_the_time),
        Kind("rollouts in which a model took no time", no_model_time),
        Kind("rollouts of negative times", negative_times),
        Kind("rollouts of an arm without requests in flight", no_flights),
        Kind("rollouts that name what a server said", lambda c: c.change_all(Trajectory, lambda one: one.stop_reason is StopReason.DONE, stop_cause="ServerError: down")),
        Kind("rollouts of base say what they were told from memory", lambda c: c.change_all(Trajectory, of("base"), memory_tokens=500)),
        Kind("rollouts of base could choose from memories", lambda c: c.change_all(Trajectory, of("base"), memory_candidates=7)),
        Kind("rollouts of many more tokens of memory than were told", lambda c: c.change_all(Trajectory, lambda one: bool(one.memory), memory_tokens=100_000)),
        Kind("rollouts without tokens beside counted steps", lambda c: c.change_all(Trajectory, of("memory"), prompt_tokens=None, completion_tokens=None)),
        Kind("a rollout with other requests in flight", lambda c: c.change(Trajectory, of("base"), in_flight=77.0)),
        Kind("a rollout of other code", lambda c: c.change(Trajectory, of("base"), code_version="other")),
        Kind("a rollout of an arm that was configured otherwise", lambda c: c.change(Trajectory, of("base"), arm_hash="0" * 64)),
        Kind("a rollout with another luck", lambda c: c.change(Trajectory, of("base"), seed=1)),
        Kind("a rollout that began with another tree", lambda c: c.change(Trajectory, of("base"), workspace_clean_state="0" * 64)),
        Kind("a rollout is called another arm's", lambda c: c.change(Trajectory, of("base"), arm="lora")),
        Kind("a rollout is called one at another task", lambda c: c.change(Trajectory, of("base"), instance_id="another-01")),
        Kind("a rollout in another sandbox", lambda c: c.change(Trajectory, of("base"), sandbox="none")),
        Kind("a rollout of fewer tokens", lambda c: c.change(Trajectory, of("base"), completion_tokens=1)),
        Kind("a rollout in which no guard fired, or one more", lambda c: c.change(Trajectory, of("base"), guards={Guard.FENCE_REMOVED: 7})),
        Kind("a rollout that took less of the model's time", lambda c: c.change(Trajectory, of("base"), model_s=0.001)),
        Kind("a rollout that ended otherwise", lambda c: c.change(Trajectory, lambda one: one.patch_at_limit, stop_reason=StopReason.DONE)),
        Kind("a rollout of base that was told memories", lambda c: c.change(Trajectory, of("base"), memory=("x",))),
        Kind("a rollout that took less time than its steps", lambda c: c.change(Trajectory, of("base"), wall_s=0.001)),
        Kind("rollouts that took years", lambda c: c.change_all(Trajectory, of("base"), wall_s=1e8)),
        Kind("rollouts at their limit of steps ended for want of time", lambda c: c.change_all(Trajectory, lambda one: one.stop_reason is StopReason.STEP_LIMIT, stop_reason=StopReason.TIME_LIMIT)),
        Kind("rollouts that were done stalled, their last steps too", done_as_stalled),
        Kind("more requests in flight than workers, in steps and rollouts", crowded),
        Kind("first words of an arm of another hash", lambda c: c.change_all(Trajectory, of("base"), prompt_hash="0" * 64)),
        Kind("first words of the arm that remembers of another hash", lambda c: c.change_all(Trajectory, of("memory"), prompt_hash="0" * 64)),
        Kind("a patch is emptied, with all that is said of it", patch_emptied),
        Kind("a failed cell takes a patch and a verdict that resolve its task", gold_for_failed),
        Kind("patches and verdicts of two arms are exchanged", lambda c: results_of_other(c, lambda mine, other: True)),
        Kind("a failed cell becomes three infra errors, its rollout gone", failed_as_errors, reach=False),
        Kind("the share of gold's files is nought in all verdicts", lambda c: c.change_all(Verdict, lambda one: bool(one.file_recall), file_recall=0.0)),
        Kind("no verdict has canaries", lambda c: c.change_all(Verdict, lambda one: bool(one.canaries), canaries="")),
        Kind("patches were applied by hand", lambda c: c.change_all(Verdict, lambda one: bool(one.applied), applied="by hand")),
        Kind("tests took no time", lambda c: c.change_all(Verdict, lambda one: True, wall_s=0.0)),
        Kind("tests took another time", lambda c: c.change_all(Verdict, lambda one: True, wall_s=1.5), reach=False),
        Kind("a step is gone", last_step_gone),
        Kind("a step in the middle is gone, and the rollout says so", middle_step_gone),
        Kind("two steps are exchanged", swap_steps),
        Kind("a step twice", doubled(Step)),
        Kind("a step of fewer tokens", tokens_changed),
        Kind("a step whose action is taken away", lambda c: c.change(Step, lambda one: one.action is not None and one.observation.kind is ObservationKind.OK, action=None)),
        Kind("a reply is rewritten", reply_changed),
        Kind("an observation is rewritten", lambda c: c.change(Step, of("base"), observation=lambda one: one.observation.model_copy(update={"text": "fine"})), reach=False),
        Kind("the action of each edit is another than its reply's", edits_changed),
        Kind("the trees of an arm's steps are others", lambda c: c.change_all(Step, of("base"), tree=lambda one: one.tree[::-1])),
        Kind("one token for each prompt and reply of an arm, totals too", one_token_each),
        Kind("one token each, as a server counts", counted_elsewhere),
        Kind("no tokens where the model's others have some", uncounted),
        Kind("prompts are longer than what was asked", lambda c: c.change_all(Step, lambda one: one.context_tokens is not None, context_tokens=lambda one: one.context_tokens + 1000)),
        Kind("forty retries and an hour waited in every step", steps_of("", retries=40, waited_s=3600.0)),
        Kind("an overseer stepped in at base", steps_of("base", overseen=True)),
        Kind("no guard fired", guards_of("noop", None)),
        Kind("a guard fired in every step of base", guards_of("base", Guard.REPEATED_ACTION)),
        Kind("messages were shortened in every step", lambda c: c.change_all(Step, lambda one: True, pruned_messages=3)),
        Kind("each result is called refused", lambda c: c.change_all(Step, lambda one: one.action is not None and one.observation.kind is ObservationKind.OK, **seen_as(kind=ObservationKind.REFUSED))),
        Kind("edits have an exit code", lambda c: c.change_all(Step, lambda one: isinstance(one.action, Edit), **seen_as(exit_code=1))),
        Kind("commands that failed have the exit code of success", lambda c: c.change_all(Step, lambda one: bool(one.observation.exit_code), **seen_as(exit_code=0)), reach=False),
        Kind("bytes were left out of every result", lambda c: c.change_all(Step, lambda one: True, **seen_as(omitted_bytes=10**9, tolerant=True))),
        Kind("replies with an action have a problem", lambda c: c.change_all(Step, lambda one: one.action is not None, problem=ReplyProblem.MALFORMED)),
        Kind("replies were cut at their longest", steps_of("base", finish_reason=FinishReason.LENGTH)),
        Kind("more of a prompt was read than there is", steps_of("base", usage=lambda one: one.reply.usage.model_copy(update={"processed_prompt_tokens": 10**6}))),
        Kind("steps of base were told a memory", lambda c: c.change_all(Step, of("base"), memory=("x",))),
        Kind("thoughts beside the replies of an arm", steps_of("lora", thinking="I know the tests."), reach=False),
        Kind("what servers counted is one token", steps_of("", usage=lambda one: one.reply.usage.model_copy(update={"backend_prompt_tokens": 1, "backend_completion_tokens": 1})), reach=False),
        Kind("the index of the steps counts otherwise", forged_index),
        Kind("a text beside the steps is a link", text_that_is_a_link),
        Kind("a text beside the steps is forged", lambda c: beside(c, "y" * 300_000)),
        Kind("a text beside the steps is gone", lambda c: beside(c, "")),
        Kind("a text that lies elsewhere on this machine", told_of("/etc/passwd")),
        Kind("a text that lies above the run folder", told_of("../../seals.jsonl")),
        Kind("what was learned names another arm's adapter", exchange_adapters),
        Kind("what was learned names an adapter that nobody made", lambda c: c.change(Consolidation, of("lora"), adapter="0" * 16, made=("0" * 16,), after=("0" * 16,))),
        Kind("what was learned says that fewer attempts failed", lambda c: c.change(Consolidation, of("lora"), selection=fewer_failed)),
        Kind("what was learned names a success that is none", lambda c: c.change(Consolidation, of("lora"), **selection_of(tasks=("another-01",)))),
        Kind("what was learned took fewer tokens", lambda c: c.change(Consolidation, of("lora"), trained_tokens=1)),
        Kind("what was learned took less time", lambda c: c.change(Consolidation, of("lora"), training_s=0.1)),
        Kind("what was learned is gone", lambda c: c.drop(Consolidation, of("lora"))),
        Kind("what was learned used one success less", lambda c: c.change(Consolidation, of("memory"), used=lambda one: one.used - 1)),
        Kind("an adapter was made of one success less", lambda c: c.change(Consolidation, of("lora"), used=lambda one: one.used - 1)),
        Kind("what was learned names one success of several", lambda c: c.change_all(Consolidation, lambda one: len(one.selection.tasks) > 1, selection=lambda one: one.selection.model_copy(update={"tasks": one.selection.tasks[:1]}))),
        Kind("what was learned was learned otherwise", lambda c: c.change(Consolidation, of("lora"), treatment=Treatment.MEMORY)),
        Kind("what was learned is there twice and says two things", another_consolidation),
        Kind("adapters stood after the batches in another order", lambda c: c.change_all(Consolidation, lambda one: len(one.after) > 1, after=lambda one: one.after[::-1])),
        Kind("what was learned took years", lambda c: c.change_all(Consolidation, lambda one: True, seconds=1e9)),
        Kind("what was learned left out other steps", lambda c: c.change_all(Consolidation, lambda one: True, **selection_of(dropped_steps=999)), reach=False),
        Kind("a memory that no arm learned", item_of_nobody),
        Kind("a rating by nobody of nothing", rated_by_nobody),
        Kind("the text of a memory is another", lambda c: c.change(MemoryItem, lambda one: True, text="x")),
        Kind("the changes of a memory are others", lambda c: c.change(MemoryItem, lambda one: True, changes=("x",))),
        Kind("other memories were told", other_memories),
        Kind("a memory that was told is gone", lambda c: c.write(MemoryItem, [])),
        Kind("a proof of another adapter", lambda c: c.change(Proof, lambda one: one.arm == "lora" and one.kind is ProofKind.ADAPTER_ARRIVED, subject="0" * 16)),
        Kind("an arm that acted is said not to have", lambda c: c.add(Proof(kind=ProofKind.ACTS, arm="memory", subject="", passed=False, said="no action"))),
        Kind("the proofs of an arm are gone", lambda c: c.drop(Proof, of("lora"))),
        Kind("a proof that did not pass", lambda c: c.change(Proof, lambda one: one.arm == "lora" and one.kind is ProofKind.ADAPTER_ARRIVED, passed=False)),
        Kind("adapters that forgot the protocol", lambda c: c.change(Proof, lambda one: one.arm == "lora" and one.kind is ProofKind.VALID_ACTIONS, after=0.0)),
        Kind("the proofs of contexts are gone", lambda c: c.drop(Proof, of_kind(ProofKind.CONTEXT))),
        Kind("the action gates are gone", lambda c: c.drop(Proof, of_kind(ProofKind.ACTION_GATE))),
        Kind("the proofs of valid actions are gone", lambda c: c.drop(Proof, of_kind(ProofKind.VALID_ACTIONS))),
        Kind("the memory of an arm that worked did not arrive", lambda c: c.change(Proof, of_kind(ProofKind.MEMORY_DELIVERED), passed=False)),
        Kind("an arm that worked is failed by one proof more", proof_more("memory", ProofKind.MEMORY_DELIVERED, passed=False, said="0 of 3 tasks are told something")),
        Kind("an adapter that did not arrive before it did", proof_more("lora", ProofKind.ADAPTER_ARRIVED, first=True, passed=False, said="not there")),
        Kind("nine times as many valid actions as replies", lambda c: c.change_all(Proof, of_kind(ProofKind.VALID_ACTIONS), after=9.0)),
        Kind("proofs of valid actions came out the other way", lambda c: c.change_all(Proof, of_kind(ProofKind.VALID_ACTIONS), passed=lambda one: not one.passed)),
        Kind("adapters forgot other repositories, of which there are none", proof_more("lora", ProofKind.VALID_ACTIONS, kind=ProofKind.RETENTION, stops=True, passed=True, before=0.07, after=9.0, said="x")),
        Kind("proofs of contexts of another model", lambda c: c.change_all(Proof, of_kind(ProofKind.CONTEXT), subject="larger 000000000000")),
        Kind("proofs stop no arm", lambda c: c.change_all(Proof, lambda one: True, stops=False)),
        Kind("proofs are told in other words", lambda c: c.change_all(Proof, lambda one: True, said="all is well"), reach=False),
        Kind("all likelihoods are gone", lambda c: c.write(Likelihood, [])),
        Kind("a likelihood between two batches is gone", lambda c: c.drop(Likelihood, lambda one: one.batches == 1 and not one.last)),
        Kind("likelihoods above certainty", lambda c: c.change_all(Likelihood, of("lora"), held_out=lambda one: dict.fromkeys(one.held_out, 5.0))),
        Kind("likelihoods of tasks that nobody has", learned_unknown),
        Kind("likelihoods of batches in another order", batches_reversed),
        Kind("base diverges from base", lambda c: c.change_all(Likelihood, of("base"), kl_from_base=lambda one: dict.fromkeys(one.held_out, 9.0))),
        Kind("divergences below nought", lambda c: c.change_all(Likelihood, of("lora"), kl_from_base=lambda one: dict.fromkeys(one.kl_from_base, -9.0))),
        Kind("divergences of another size", lambda c: c.change_all(Likelihood, of("lora"), kl_from_base=lambda one: dict.fromkeys(one.kl_from_base, 9.0)), reach=False),
        Kind("likelihoods of batches are others", of_learned(lambda one: dict.fromkeys(one.learned, -9.0)), reach=False),
        Kind("a likelihood is gone", lambda c: c.drop(Likelihood, lambda one: one.arm == "lora" and one.seed == 1)),
        Kind("a likelihood with another arm's adapter", lambda c: c.change(Likelihood, of("lora"), adapters=("0" * 16,))),
        Kind("a likelihood of a success that is none", lambda c: c.change(Likelihood, of("lora"), held_out={"another-01": -0.1})),
        Kind("a likelihood is better", likelier, reach=False),
        Kind("a session that found more done", lambda c: c.change(Session, lambda one: True, done_before=500)),
        Kind("a session began after the end", lambda c: c.change(Session, lambda one: True, begun="2999-01-01T00:00:00+00:00")),
        Kind("a session is gone", lambda c: c.write(Session, [])),
        Kind("a session began long ago", lambda c: c.change(Session, lambda one: True, begun="2001-01-01T00:00:00+00:00"), reach=False),
        Kind("a session is there twice", doubled(Session)),
        Kind("a session began before the one that it follows", sessions_in_disorder),
        Kind("a session's beginning is no time", lambda c: c.change(Session, lambda one: True, begun="yesterday")),
        Kind("a session in another folder", lambda c: c.change(Session, lambda one: True, where="/elsewhere", pid=1), reach=False),
        Kind("trainings are halved", trainings_halved),
        Kind("trainings of another length", lambda c: c.change_all(Trained, lambda one: True, event=lambda one: one.event.model_copy(update={"iterations": 500}))),
        Kind("trainings are gone", lambda c: c.write(Trained, []), reach=False),
        Kind("a training of an arm that there is not", lambda c: c.change(Trained, lambda one: True, what="other, seed 0")),
        Kind("a training's loss is lower", lambda c: c.change(Trained, lambda one: one.event.loss is not None, event=lambda one: one.event.model_copy(update={"loss": 0.001})), reach=False),
        Kind("another hypothesis", plan_changed(hypothesis="what came out")),
        Kind("a seed is taken out of the plan", plan_changed(seeds=(0,))),
        Kind("another contrast is registered", another_margin),
        Kind("everything is written anew", everything_anew, reach=False),
        Kind("a second plan beside the first", doubled(RunManifest)),
        Kind("tasks that quote their fix are said to", lambda c: c.change(RunManifest, lambda one: True, leaked=lambda one: one.tasks[:1])),
        Kind("tasks of another hash", lambda c: c.change(RunManifest, lambda one: True, tasks_hash="0" * 64)),
        Kind("the seal is emptied", seal_file(b""), sealable=False),
        Kind("the seal is gone", seal_file(None), sealable=False),
        Kind("the seal is no record", seal_file(b"{}\n"), sealable=False),
        Kind("the seal was made in years to come", lambda c: c.change(Seal, lambda one: True, ended="2999-01-01T00:00:00+00:00")),
        Kind("the seal names no adapter", lambda c: c.change(Seal, lambda one: True, adapters={})),
        Kind("the seal names other weights", lambda c: c.change(Seal, lambda one: True, adapters=lambda one: dict.fromkeys(one.adapters, "0" * 64))),
        Kind("the seal names an adapter that no arm learned", lambda c: c.change(Seal, lambda one: True, adapters=lambda one: {**one.adapters, "0" * 16: "0" * 64})),
    ]  # fmt: skip


def page_edited(copy: Copy) -> None:
    path = copy.run / "report.html"
    path.write_text(path.read_text().replace("</h1>", " (shown)</h1>", 1))


def text_edited(copy: Copy) -> None:
    path = copy.run / "report.md"
    path.write_text(path.read_text().replace("| lora | ", "| lora | 9", 1))


def other_version(change: Callable[[Copy], None], name: str) -> Callable[[Copy], None]:
    """Another version wrote it: what it says cannot be made again, so that it is not checked, and with --strict a failure."""

    def plant(copy: Copy) -> None:
        change(copy)
        path = copy.run / name
        version = copy.records(RunManifest)[0].code_version
        path.write_text(
            path.read_text().replace(version, f"{'0' if version[0] != '0' else '1'}{version[1:]}")
        )

    return plant


def drawing_edited(copy: Copy) -> None:
    path = next((copy.run / "plots").glob("*.svg"))
    path.write_text(path.read_text().replace("</svg>", "<!-- -->\n</svg>"))


def written(copy: Copy) -> Path:
    """The file that has the run's block."""
    return copy.project / "docs" / "results" / "audited.md"


def block_edited(copy: Copy) -> None:
    path = written(copy)
    path.write_text(path.read_text().replace("| lora | ", "| lora | 9", 1))


def block_of_nothing(copy: Copy) -> None:
    path = written(copy)
    path.write_text(path.read_text().replace(copy.run.name, "audited-micro-000000000000"))


def block_gone(copy: Copy) -> None:
    written(copy).write_text("# Results\n")


def another_block(copy: Copy) -> None:
    """Of the same experiment, behind the true one, in a page that is read after it."""
    path = written(copy)
    path.with_name("zzz.md").write_text(path.read_text().replace("| lora | ", "| lora | 9"))


def block_of_another_name(copy: Copy) -> None:
    path = written(copy)
    path.with_name("zzz.md").write_text(path.read_text().replace("audited micro", "forged micro"))


def picture_edited(copy: Copy) -> None:
    path = next((copy.run / "plots").glob("*.png"))
    path.write_bytes(path.read_bytes() + b"x")


def table_edited(copy: Copy) -> None:
    path = copy.project / "LEARNINGS.md"
    path.write_text(path.read_text().replace("| pilot |", "| shown |").replace("*pilot*", "shown"))


def adapters(copy: Copy) -> Iterator[Path]:
    for one in copy.records(Consolidation):
        if one.adapter:
            yield copy.home / "adapters" / one.adapter


def weights_replaced(copy: Copy) -> None:
    path = next(adapters(copy)) / "adapters.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def weights_and_card_replaced(copy: Copy) -> None:
    weights_replaced(copy)
    folder = next(adapters(copy))
    card = AdapterRecord.from_json((folder / "adapter.json").read_bytes())
    digest = hashlib.sha256()
    for name in ("adapter_config.json", "adapters.safetensors"):
        digest.update((folder / name).read_bytes())
    (folder / "adapter.json").write_bytes(
        card.model_copy(update={"weights_hash": digest.hexdigest()}).to_json()
    )


@dataclass(frozen=True)
class Field:
    """One field of a record, or of a record within it."""

    record: type[Record]
    path: tuple[str, ...]

    @property
    def name(self) -> str:
        return ".".join((self.record.__name__, *self.path))

    def of(self, record: Any) -> Any:
        """Its value; None where a record on the way is not there."""
        for name in self.path:
            record = None if record is None else getattr(record, name)
        return record

    def put(self, record: Any, value: Any) -> Any:
        """The record with another value there."""
        return _put(record, self.path, value)


def _put(record: Any, path: Sequence[str], value: Any) -> Any:
    new = value if len(path) == 1 else _put(getattr(record, path[0]), path[1:], value)
    return record.model_copy(update={path[0]: new})


def fields(record: type[Record], way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all that a record says; one within it that may be absent is a field as a whole too."""
    for name, field in record.model_fields.items():
        a_choice = get_origin(field.annotation) in (Union, UnionType)
        within = get_args(field.annotation) if a_choice else (field.annotation,)
        inner = [one for one in within if isinstance(one, type) and issubclass(one, Record)]
        if len(inner) != 1 or NoneType in within:
            yield (*way, name)
        if len(inner) == 1:
            yield from fields(inner[0], (*way, name))


def emptied(value: Any) -> Any:
    """Nothing of its type, or for a choice and for nothing at all what it is."""
    if isinstance(value, StrEnum | Record) or value is None:
        return value
    return type(value)()


def grown(value: Any) -> Any:
    """More of the same, or the next of a choice."""
    match value:
        case bool():
            return not value
        case StrEnum():
            members = list(type(value))
            return members[(members.index(value) + 1) % len(members)]
        case int() | float():
            return 3 * value + 1
        case str():
            return f"{value}x"
        case tuple():
            return (*value, *value[-1:])
        case dict():
            return dict(list(value.items())[:-1])
    return value


OUT_OF_REACH = {
    "Verdict.wall_s": "how long a test run took",
    "Verdict.canaries": "what it says of its canaries behind the first word",
    "Verdict.output": "the output of its tests that is gone, or another behind its first line",
    "Verdict.same_as emptied": "verdict was taken over from one on the same patch",
    "Verdict.same_as as in another record": "or from which",
    "Trajectory.wall_s": "times that steps, rollouts and sessions agree on",
    "Step.wall_s as in another record": "times that steps, rollouts and sessions agree on",
    "Step.reply.thinking": "with what a model thought beside it",
    "Step.reply.usage.counted_by grown everywhere": "the name of its counter",
    "Step.reply.usage.processed_prompt_tokens": "how much of a prompt was read anew",
    "Step.reply.usage.backend_": "what a server says that it counted",
    "Step.reply.overseen": "where an overseer stepped in",
    "Step.reply.in_flight as in another record": "requests in flight up to them",
    "Step.observation.text": "the text of an observation",
    "Step.observation.exit_code": "with a terse scaffold the exit code of a command",
    "Step.observation.omitted_bytes grown": "how much of an output was left out",
    "Step.observation.tolerant grown": "that an edit was tolerant",
    "Step.tree as in another record": "the hash of a tree within a rollout whose commands changed it",
    "Consolidation.seconds": "the time of learning",
    "Proof.said": "the words of a proof",
    "Proof.before": "the figures themselves within their bounds",
    "Proof.after": "the figures themselves within their bounds",
    "Likelihood.held_out as in another record": "the value of a likelihood",
    "Likelihood.learned as in another record": "the value of a likelihood",
    "Likelihood.kl_from_base": "the value of a likelihood or a divergence",
    "Session.pid": "the process and the folder of a session",
    "Session.where": "the process and the folder of a session",
    "Session.workers grown": "the workers of a session",
    "Session.command": "the arms that a session was asked for",
    "Session.begun": "a first session that began earlier",
    "Session.done_before": "how many cells a later session found ended",
    "Trained.event.iteration": "how far a training was",
    "Trained.event.iterations": "how far a training was",
    "Trained.event.loss": "losses of a training",
    "Trained.event.tokens_per_s": "its speed",
    "Trained.event.said": "all that is told of it while it goes on",
    "AttemptLikelihood.log_likelihood": "the value of a likelihood",
    "AnsweredQuestion.answer": "the answer to a question, with whether it is right",
    "Rating.by": "who rated an answer and how",
    "Rating.noise": "who rated an answer and how",
    "Seal.energy_j": "the energy that a seal counts",
    "Seal.files": "can change records and make a new one",
}
"""How the names of changes begin which nothing contradicts, and words of docs/audit.md that say so."""


def by_field() -> list[Kind]:
    """Changes of one field alone: in one record to what another record says there, to nothing and to more, and to more in all records."""
    found = []
    for record in SWEPT:
        for path in fields(record):
            field = Field(record, path)
            for how, plant in (
                ("as in another record", as_elsewhere),
                ("emptied", changed_in_one(emptied)),
                ("grown", changed_in_one(grown)),
                ("grown everywhere", changed_in_all(grown)),
            ):
                name = f"{field.name} {how}"
                reach = not any(name.startswith(far) for far in OUT_OF_REACH)
                found.append(Kind(name, partial(plant, field), reach=reach, resealed=True))
    return found


def as_elsewhere(field: Field, copy: Copy) -> None:
    records = copy.records(field.record)
    values = [field.of(one) for one in records]
    for at in from_the_middle(len(records)):
        other = next((value for value in values if value is not None and value != values[at]), None)
        if values[at] is not None and other is not None:
            records[at] = field.put(records[at], other)
            copy.write(field.record, records)
            return
    raise NothingToChange


def changed_in_one(change: Callable[[Any], Any]) -> Callable[[Field, Copy], None]:
    def plant(field: Field, copy: Copy) -> None:
        records = copy.records(field.record)
        for at in from_the_middle(len(records)):
            value = field.of(records[at])
            if change(value) != value:
                records[at] = field.put(records[at], change(value))
                copy.write(field.record, records)
                return
        raise NothingToChange

    return plant


def changed_in_all(change: Callable[[Any], Any]) -> Callable[[Field, Copy], None]:
    def plant(field: Field, copy: Copy) -> None:
        records = copy.records(field.record)
        values = [field.of(one) for one in records]
        changed = [
            one if change(value) == value else field.put(one, change(value))
            for one, value in zip(records, values, strict=True)
        ]
        if changed == records or len(records) == 1:
            raise NothingToChange
        copy.write(field.record, changed)

    return plant


def from_the_middle(number: int) -> Iterator[int]:
    """Records of experience come first, and work last."""
    yield from range(number // 2, number)
    yield from range(number // 2)


def adapters_gone(copy: Copy) -> None:
    shutil.rmtree(copy.home / "adapters")


def tasks_of(copy: Copy) -> Path:
    return next((copy.home / "suites").glob("micro-0-*/tasks.jsonl"))


def task_changed(copy: Copy) -> None:
    path = tasks_of(copy)
    path.write_text(path.read_text().replace(" is wrong", " is broken").replace(" must ", " has to "))


def task_damaged(copy: Copy) -> None:
    path = tasks_of(copy)
    path.write_text("{\n" + path.read_text())


def elsewhere() -> list[Kind]:
    return [
        Kind("the page is edited", page_edited, alone=True),
        Kind("the text beside the page is edited", text_edited, alone=True),
        Kind(
            "the page is edited and says that another version wrote it",
            other_version(page_edited, "report.html"),
            alone=True,
        ),
        Kind(
            "the text beside it is edited and says so too",
            other_version(text_edited, "report.md"),
            alone=True,
        ),
        Kind("a drawing of the page is edited", drawing_edited, alone=True),
        Kind("a picture of the page is edited", picture_edited, alone=True),
        Kind("another block of the experiment beside the true one", another_block, alone=True),
        Kind("a block of another name that names the run", block_of_another_name, alone=True),
        Kind("the table of all results is edited", table_edited, alone=True),
        Kind("the block of the run is edited", block_edited, alone=True),
        Kind(
            "the block is edited of a run that is named by its path", block_edited, alone=True, by_path=True
        ),
        Kind("the block names a run that is not here", block_of_nothing, alone=True),
        Kind("the block is taken out", block_gone, alone=True),
        Kind("an adapter's weights are exchanged", weights_replaced, alone=True),
        Kind("an adapter's weights and card are exchanged", weights_and_card_replaced, alone=True),
        Kind("the adapters are gone", adapters_gone, alone=True),
        Kind("a task of the suite is changed", task_changed, alone=True),
        Kind("a task of the suite is damaged", task_damaged, alone=True),
    ]


@dataclass(frozen=True)
class Base:
    """A finished run that nobody touched, with the project that reported it and Looper's state."""

    project: Path
    home: Path

    @property
    def run(self) -> Path:
        return next((self.project / "runs").iterdir())


def looper(project: Path, home: Path, runs: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    where = {**os.environ, "LOOPER_HOME": str(home), "LOOPER_RUNS": str(runs)}
    command = [sys.executable, "-m", "looper.cli.main", *words]
    return subprocess.run(command, cwd=project, env=where, capture_output=True, text=True)


def made(place: Path, plan: str = PLAN, late: Sequence[str] = ()) -> Base:
    """The run, made by the command that makes every run; `late` are gates that stop it first."""
    base = Base(place / "project", place / "home")
    (base.project / "experiments").mkdir(parents=True)
    (base.project / "experiments" / "audited.toml").write_text(plan)
    table = "looper report --summary"
    (base.project / "LEARNINGS.md").write_text(f"# Learnings\n\n<!-- {table} -->\n<!-- end of {table} -->\n")
    run = ("run", "audited", "--workers", "2")

    def do(*words: str, expected: ExitCode = ExitCode.OK) -> None:
        done = looper(base.project, base.home, base.project / "runs", *words)
        if done.returncode != expected:
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")

    do(*run, expected=ExitCode.INFRASTRUCTURE if late else ExitCode.OK)
    for gate in late:
        # Named, or it would be another run that passes the gate over from the beginning.
        do(*run, "--run", base.run.name, "--override", f"{gate}=to be audited")
    do("report", "audited", "--results", "docs/results")
    do("report", "--summary")
    return base


def alone(base: Base, place: Path) -> Copy:
    """A project of its own, with a state whose suites and adapters are its own too."""
    shutil.copytree(base.project, place / "project")
    for path in base.home.iterdir():
        target = place / "home" / path.name
        if path.name in ("suites", "adapters"):
            shutil.copytree(path, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    (run,) = (place / "project" / "runs").iterdir()
    return Copy(run, place / "project", place / "home")


def among(base: Base, runs: Path, name: str) -> Copy:
    """One run folder of many; its page would say another folder's name, so it has none."""
    target = runs / f"{base.run.name}-{name}"
    shutil.copytree(
        base.run, target, ignore=shutil.ignore_patterns("report.html", "report.md", "plots", "reserve")
    )
    return Copy(target, base.project, base.home)


@dataclass(frozen=True)
class Seen:
    """What the command said of one copy."""

    named: str
    """The first finding, or what it says that it could not check; empty where it says nothing."""
    traceback: bool = False
    planted: bool = True
    """False where the run has nothing of that kind to change."""


def findings(said: str, folder: str) -> list[str]:
    """What was found amiss in a run folder."""
    lines = [line.removeprefix(f"{folder}: ") for line in said.splitlines() if line.startswith(f"{folder}: ")]
    return [line for line in lines if not line.endswith("nothing wrong")]


def look_at_many(base: Base, kinds: Sequence[Kind], place: Path, *, seal: bool) -> list[Seen]:
    """All copies beside each other, looked at by one command."""
    runs = place / f"runs-{'resealed' if seal else 'sealed'}"
    copies = []
    for number, kind in enumerate(kinds):
        copy = among(base, runs, f"k{number}x")
        try:
            kind.plant(copy)
        except NothingToChange:
            shutil.rmtree(copy.run)
        else:
            if seal:
                copy.reseal()
        copies.append(copy.run.name)
    done = looper(base.project, base.home, runs, "report", "--verify")
    crashed = "Traceback" in done.stdout + done.stderr
    if crashed:
        print(done.stderr, file=sys.stderr)
    seen = []
    for name in copies:
        if not (runs / name).exists():
            seen.append(Seen("", planted=False))
            continue
        lines = findings(done.stdout, name)
        unreadable = [line for line in done.stdout.splitlines() if name in line and "no usable run" in line]
        seen.append(Seen(next(iter([*lines, *unreadable]), "") if done.returncode else "", crashed))
    return seen


def look_alone(base: Base, kind: Kind, place: Path, *, seal: bool) -> Seen:
    """In a project of its own, with --strict: what is gone cannot be checked, and that is said by name."""
    copy = alone(base, place)
    kind.plant(copy)
    if seal:
        copy.reseal()
    named = (str(copy.run),) if kind.by_path else ()
    done = looper(copy.project, copy.home, copy.project / "runs", "report", *named, "--verify", "--strict")
    shutil.rmtree(place)
    said = [
        line
        for line in done.stdout.splitlines()
        if not line.endswith(("nothing wrong", " not checked")) and "runs, " not in line
    ]
    first = next(iter(said), "") if done.returncode == 1 else ""
    return Seen(first.removeprefix(f"{copy.run.name}: "), "Traceback" in done.stdout + done.stderr)


def look(base: Base, kinds: Sequence[Kind], place: Path) -> Iterator[tuple[Kind, Seen, Seen | None]]:
    """Each kind with what was said of it without and with a new seal."""
    many = [kind for kind in kinds if not (kind.alone or kind.resealed)]
    kept = look_at_many(base, many, place, seal=False) if many else []
    fields = [kind for kind in kinds if kind.resealed]
    for kind, seen in zip(
        fields, look_at_many(base, fields, place, seal=True) if fields else (), strict=True
    ):
        yield kind, Seen("not looked at", seen.traceback, seen.planted), seen
    again = [kind for kind in many if kind.sealable]
    anew = dict(
        zip(
            [kind.name for kind in again],
            look_at_many(base, again, place, seal=True) if again else [],
            strict=True,
        )
    )
    for kind, seen in zip(many, kept, strict=True):
        yield kind, seen, anew.get(kind.name)
    for kind in kinds:
        if kind.alone:
            yield (
                kind,
                look_alone(base, kind, place / "one", seal=False),
                look_alone(base, kind, place / "one", seal=True),
            )


def wrong(kind: Kind, kept: Seen, anew: Seen | None) -> str:
    """What does not hold of a kind; empty where all does."""
    if not kept.planted:
        return ""
    if kept.traceback or (anew is not None and anew.traceback):
        return "a traceback"
    if not kept.named:
        return "not named although the seal was left alone"
    if anew is not None and kind.reach and not anew.named:
        return "not named although another record contradicts it"
    return ""


def looked_at(base: Base, kinds: Sequence[Kind], place: Path) -> tuple[list[str], Counter[str]]:
    """What does not hold of the kinds, and how many were planted and named; prints a line for each."""
    clean = looper(base.project, base.home, base.project / "runs", "report", "--verify", "--strict")
    print(clean.stdout.strip())
    if clean.returncode:
        raise SystemExit(f"The run itself does not verify: {clean.stderr.strip()}")
    bad, counts = [], Counter[str]()
    for kind, kept, anew in look(base, kinds, place):
        if not kept.planted:
            continue
        state = (
            "–" if anew is None else "named" if anew.named else "not named" if kind.reach else "out of reach"
        )
        print(
            f"{kind.name:62} {'–' if kind.resealed else 'named' if kept.named else 'not named':10} {state:13} {(anew or kept).named[:90]}"
        )
        counts["planted"] += 1
        counts["named"] += bool(kept.named)
        counts[f"{state} with a new seal"] += 1
        if said := wrong(kind, kept, anew):
            bad.append(f"{kind.name}: {said}")
    return bad, counts


def told(what: str, counts: Counter[str]) -> str:
    kept = f"{counts['named']} named without a new seal; " if what != FIELDS else ""
    return (
        f"{counts['planted']} {what}: {kept}with a new seal {counts['named with a new seal']} named, "
        f"{counts['out of reach with a new seal']} out of reach"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--base", type=Path, help="folder of an earlier call's --keep, whose runs are taken again"
    )
    parser.add_argument(
        "--keep", type=Path, help="where the runs are made and kept, for later calls with --base"
    )
    parser.add_argument("--only", default="", help="kinds whose name has these words")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tamper-") as folder:
        place, bad, said = Path(folder), list[str](), list[str]()
        for name, plan, late in (("", PLAN, ()), ("others", OTHERS, ("memory",))):
            kept = options.base or options.keep or place / "base"
            root = kept / name if name else kept
            base = Base(root / "project", root / "home") if options.base else made(root, plan, late)
            sets = {FIELDS: by_field()}
            if not name:
                sets = {"kinds of tampering": [*in_runs(), *elsewhere()], **sets}
            for what, kinds in sets.items():
                chosen = [kind for kind in kinds if options.only in kind.name]
                amiss, counts = looked_at(base, chosen, place / f"copies{len(said)}")
                bad += amiss
                said.append(told(what, counts))
        print("\n".join([*said, *bad]))
        raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
