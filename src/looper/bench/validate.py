"""Gold must resolve and nothing must not: a task that fails this measures its environment, not an agent."""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

from looper.bench.official import disagreements
from looper.bench.verify import VERSION, Judgement
from looper.errors import EnvironmentBroken
from looper.records.base import content_hash
from looper.records.eligibility import Validation
from looper.records.task import Task
from looper.records.verdict import Outcome

Judge = Callable[[Task, str], Judgement]
"""What a task's tests say of a patch."""
REPEATS = 3
"""Judgements with gold where the first is not clean, to tell what always fails from what flips."""


def validate(
    task: Task, environment: str, judge: Judge, missing_programs: tuple[str, ...] = ()
) -> Validation:
    """Judge gold, again where it is not clean, and the empty patch. Raises as verification does, and EnvironmentBroken where gold
    does not pass while programs are missing that the tests call: that says nothing of the task."""
    golds = [judge(task, task.gold_patch)]
    if golds[0].outcome is not Outcome.RESOLVED:
        golds += [judge(task, task.gold_patch) for _ in range(REPEATS - 1)]
    nothing = judge(task, "")
    cause = _cause(task, golds, nothing)
    if cause and missing_programs:
        raise EnvironmentBroken(
            f"{', '.join(missing_programs)} is not installed, and the tests of {task.repo} call it: {cause}. Install it and "
            "validate again."
        )
    return Validation(
        instance_id=task.instance_id,
        repo=task.repo,
        task_hash=content_hash(task),
        environment=environment,
        verifier=VERSION,
        valid=not cause,
        cause=cause,
        excluded=_excluded(golds) if not cause else {},
        disagreements=_disagreements(task, golds[-1]),
        repeats=len(golds),
        gold_s=median(found.wall_s for found in golds),
        empty_s=nothing.wall_s,
        missing_programs=missing_programs,
    )


def _cause(task: Task, golds: Sequence[Judgement], nothing: Judgement) -> str:
    tampered = next((found.tampering[0] for found in golds if found.tampering), "")
    if tampered:
        return f"with gold the test run cannot be believed: {tampered}"
    failing = Counter(name for found in golds for name, test in found.fail_to_pass.items() if not test.passes)
    if failing or not task.fail_to_pass:
        name = min(failing, default="none is named")
        times = f"in {failing[name]} of {len(golds)} runs" if failing else ""
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
    if nothing.fail_to_pass and all(test.passes for test in nothing.fail_to_pass.values()):
        return "every FAIL_TO_PASS id passes without a patch"
    return ""


def _disagreements(task: Task, gold: Judgement) -> dict[str, str]:
    """Between our report and the official reading of the same run's log."""
    if not gold.log:
        return {}
    return disagreements(task.repo, gold.log, {**gold.fail_to_pass, **gold.pass_to_pass})


def _excluded(golds: Sequence[Judgement]) -> dict[str, str]:
    """PASS_TO_PASS ids that failed with gold at least once: always, or now and then."""
    failed: dict[str, list[str]] = {}
    for found in golds:
        for name, test in found.pass_to_pass.items():
            if not test.passes:
                failed.setdefault(name, []).append(test.value)
    return {
        name: f"{values[0]} with gold, {len(values)} of {len(golds)} times"
        for name, values in sorted(failed.items())
    }


def eligible(
    tasks: Sequence[Task],
    known: Sequence[Validation],
    missing_programs: Callable[[str], tuple[str, ...]] = lambda repo: (),
) -> tuple[tuple[Task, ...], dict[str, str]]:
    """Tasks without their excluded ids, and why others are not eligible, by id. A task that nobody validated stays, by the rules
    of today and with the programs that a repository's tests find today."""
    found = {
        (each.instance_id, each.task_hash): each
        for each in known
        if each.verifier == VERSION and each.missing_programs == missing_programs(each.repo)
    }
    kept, left_out = [], {}
    for task in tasks:
        validation = found.get((task.instance_id, content_hash(task)))
        if validation is None:
            kept.append(task)
        elif validation.valid:
            names = tuple(name for name in task.pass_to_pass if name not in validation.excluded)
            kept.append(task.model_copy(update={"pass_to_pass": names}) if validation.excluded else task)
        else:
            left_out[task.instance_id] = validation.cause
    return tuple(kept), left_out
