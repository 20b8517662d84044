"""Gold must resolve and nothing must not: a task that fails this measures its environment, not an agent.

`looper bench validate` runs `validate` on each task, and plans ask `eligible` which tasks they may take. What was found here stands
before what Looper ships (`shipped`, `in_force`).
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import cache
from importlib import resources
from statistics import median

from looper.bench.official import disagreements
from looper.bench.verify import VERSION, TestReport
from looper.errors import EnvironmentBroken, RunKilled, VerifierBroken
from looper.records.eligibility import Validation
from looper.records.task import Task
from looper.records.text import counted
from looper.records.verdict import Outcome

Judge = Callable[[Task, str], TestReport]
"""What a task's tests say of a patch."""
REPEATS = 3
"""Judgements with gold where the first is not clean, to tell what always fails from what flips; and attempts at each judgement, where the
machine ends its test run."""
SLOWER = 3
"""Times as long as with gold, at the least, for tests that reach their limit without a patch to be tests that hang."""


def validate(
    task: Task, environment: str, judge: Judge, missing_programs: tuple[str, ...] = ()
) -> Validation:
    """Judge gold, again where it is not clean, and side by side with it the empty patch, by a `judge` that bears two threads. Raises
    as verification does, EnvironmentBroken where gold does not pass while programs are missing that the tests call, and VerifierBroken
    where without a patch the tests do not come to their end once of several times, or for want of time that gold needs nearly as much of:
    neither says that they do not pass. Tests that hang or crash each time, where gold's are over, are tests that fail."""
    # A suite of ten minutes would else be judged twice in a row while every other worker has nothing left to do.
    judging_nothing = _begun(lambda: _judged(judge, task, ""))
    try:
        golds = [_judged(judge, task, task.gold_patch)]
        if golds[0].outcome is not Outcome.RESOLVED:
            golds += [_judged(judge, task, task.gold_patch) for _ in range(REPEATS - 1)]
    finally:
        wait([judging_nothing])  # Its tree must not be removed under it.
    nothings = [judging_nothing.result()]
    cause = _cause(task, golds, nothings[0])
    if not cause and not nothings[0].complete:
        nothings += [_judged(judge, task, "") for _ in range(REPEATS - 1)]
        cause = _cause(task, golds, nothings[-1])
    if cause and missing_programs:
        raise EnvironmentBroken(
            f"{', '.join(missing_programs)} is not installed, and the tests of {task.repo} call it: {cause}. Install it and "
            "validate again."
        )
    unfinished = [found for found in nothings if not found.complete]
    hastened = [
        found for found in unfinished if found.reached == "time" and found.wall_s < SLOWER * golds[0].wall_s
    ]
    if not cause and (hastened or 0 < len(unfinished) < len(nothings)):
        raise VerifierBroken(
            f"Without a patch the tests of {task.instance_id} do not come to their end in {len(unfinished)} of {counted(len(nothings), 'run')} "
            f"({unfinished[0].cause}), so it is not known whether they pass without one. Free the machine of other work and validate it "
            "again."
        )
    return Validation(
        instance_id=task.instance_id,
        repo=task.repo,
        task_hash=task.labels_hash,
        environment=environment,
        verifier=VERSION,
        valid=not cause,
        cause=cause,
        excluded=_excluded(golds) if not cause else {},
        disagreements=_disagreements(task, golds[-1]),
        repeats=len(golds),
        gold_s=median(found.wall_s for found in golds),
        empty_s=median(found.wall_s for found in nothings),
        missing_programs=missing_programs,
    )


def _judged(judge: Judge, task: Task, patch: str) -> TestReport:
    """Tried again where the machine ended the run. Raises RunKilled where it does so each time."""
    for _ in range(REPEATS - 1):
        try:
            return judge(task, patch)
        except RunKilled:
            continue
    return judge(task, patch)


def _begun(judging: Callable[[], TestReport]) -> Future[TestReport]:
    """In a daemon thread: whoever stops the command does not wait for it, as an executor would."""
    future: Future[TestReport] = Future()

    def run() -> None:
        try:
            future.set_result(judging())
        except BaseException as error:  # Raised again where the result is asked for.
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _cause(task: Task, golds: Sequence[TestReport], nothing: TestReport) -> str:
    tampered = next((found.tampering[0] for found in golds if found.tampering), "")
    if tampered:
        return f"with gold the test run cannot be believed: {tampered}"
    failing = Counter(name for found in golds for name, test in found.fail_to_pass.items() if not test.passes)
    if failing or not task.fail_to_pass:
        name = min(failing, default="none is named")
        times = f"in {failing[name]} of {counted(len(golds), 'run')}" if failing else ""
        seen = (
            next(
                (found.fail_to_pass[name].value for found in golds if not found.fail_to_pass[name].passes), ""
            )
            if failing
            else ""
        )
        why = next((found.cause for found in golds if found.cause), "")
        return f"{len(failing)} of {len(task.fail_to_pass)} FAIL_TO_PASS ids do not pass with gold, {name} {seen} {times} ({why})".replace(
            "  ", " "
        )
    if broken := [found.cause for found in golds if not found.complete]:
        return f"with gold the test run does not come to its end in {len(broken)} of {counted(len(golds), 'run')}: {broken[0]}"
    if nothing.fail_to_pass and all(test.passes for test in nothing.fail_to_pass.values()):
        return "every FAIL_TO_PASS id passes without a patch"
    return ""


def _disagreements(task: Task, gold: TestReport) -> dict[str, str]:
    """Between our report and the official reading of the same run's log."""
    if not gold.log:
        return {}
    return disagreements(task.repo, gold.log, {**gold.fail_to_pass, **gold.pass_to_pass})


def _excluded(golds: Sequence[TestReport]) -> dict[str, str]:
    """PASS_TO_PASS ids that failed with gold at least once: always, or now and then."""
    failed: dict[str, list[str]] = {}
    for found in golds:
        for name, test in found.pass_to_pass.items():
            if not test.passes:
                failed.setdefault(name, []).append(test.value)
    return {
        name: f"{values[0]} with gold, {len(values)} of {counted(len(golds), 'time')}"
        for name, values in sorted(failed.items())
    }


@cache
def shipped() -> tuple[Validation, ...]:
    """What was found of the benchmark's tasks where Looper was made, so that nobody needs a night before the first run."""
    text = (resources.files("looper.bench") / "validated.jsonl").read_text("utf-8")
    return tuple(Validation.from_json(line) for line in text.splitlines())


def in_force(
    tasks: Sequence[Task],
    own: Iterable[Validation],
    elsewhere: Iterable[Validation] = (),
    missing_programs: Callable[[str], tuple[str, ...]] = lambda repo: (),
) -> dict[str, Validation]:
    """The validation that counts for each task here, by id: of its very labels, and with the programs that are here. What this machine
    found by the rules of today comes before what was found `elsewhere`, by whatever rules."""
    hashes = {task.instance_id: task.labels_hash for task in tasks}
    return {
        each.instance_id: each
        for each in (*elsewhere, *(each for each in own if each.verifier == VERSION))
        if hashes.get(each.instance_id) == each.task_hash
        and each.missing_programs == missing_programs(each.repo)
    }


def eligible(
    tasks: Sequence[Task], validations: Mapping[str, Validation]
) -> tuple[tuple[Task, ...], dict[str, str]]:
    """Tasks without their excluded ids, and why others are not eligible, by id.

    A task that nobody validated with these very labels stays as it is labelled: which of its ids gold does not pass is not known.
    """
    kept, left_out = [], {}
    for task in tasks:
        validation = validations.get(task.instance_id)
        if validation is None:
            kept.append(task)
        elif validation.valid:
            kept.append(_without(task, validation.excluded))
        else:
            left_out[task.instance_id] = validation.cause
    return tuple(kept), left_out


def _without(task: Task, excluded: Collection[str]) -> Task:
    names = tuple(name for name in task.pass_to_pass if name not in excluded)
    return task if names == task.pass_to_pass else task.model_copy(update={"pass_to_pass": names})


def difference(here: Validation, elsewhere: Validation) -> str:
    """How two validations of one task differ in what they say of it, in one line; empty where they do not."""
    if here.valid != elsewhere.valid:
        return f"{_said(here)} here, {_said(elsewhere)} there"
    only = sorted(here.excluded.keys() - elsewhere.excluded.keys())
    gone = sorted(elsewhere.excluded.keys() - here.excluded.keys())
    parts = [
        f"{counted(len(names), 'id')} left out {where} only, {names[0]}"
        for names, where in ((only, "here"), (gone, "there"))
        if names
    ]
    return "; ".join(parts)


def _said(found: Validation) -> str:
    return "valid" if found.valid else f"invalid ({found.cause})"
