"""What `looper bench validate` does."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from looper.bench.validate import validate
from looper.bench.verify import VERSION, Court, Judgement, verify
from looper.cli.preparing import served
from looper.cli.settings import Settings
from looper.cli.wiring import Site, engine, every_task, missing_programs
from looper.errors import BadInput, InfrastructureError, ends_everything, named
from looper.experiment.grading import GRADING
from looper.experiment.schedule import select_tasks
from looper.journal import RunLock, Stream, replace_file
from looper.records.base import content_hash
from looper.records.eligibility import Validation
from looper.records.plan import TaskSelection
from looper.records.task import Task
from looper.untrusted import named_text
from looper.views.blocks import with_block
from looper.views.eligibility import table_lines

LOG_BYTES = 64 << 20
"""Of a test run's log, to be read as the official harness does."""
Say = Callable[[str], None]


def run_validations(
    selection: TaskSelection,
    settings: Settings,
    workers: int,
    sandbox: str,
    say: Say,
) -> tuple[dict[str, int], list[Validation]]:
    """Validate what is not validated yet; how many tasks were chosen of each repository, and what is known of them then. Safe to interrupt: each task is on
    record when it is done. Raises BadInput for names that do not exist and for mirrors that are not there."""
    every, mirrors = every_task(selection, settings)
    chosen = select_tasks(every, selection)
    tasks, unserved = served(chosen, selection)
    for line in unserved:
        say(f"not tried, {line}")
    absent = sorted({task.repo for task in tasks if f"{task.suite}:{task.repo}" not in mirrors})
    if absent:
        raise BadInput(
            f"There is no mirror of {', '.join(absent)} below {settings.mirrors}. Get it: looper bench fetch "
            f"--repo {absent[0]}; or name a folder with --mirrors."
        )
    folder = settings.validations
    with contextlib.ExitStack() as stack:
        lock = RunLock(folder, "folder of validations")
        stack.callback(lock.close)
        stream = Stream(folder, "validations", Validation)
        stack.callback(stream.close)
        site = Site(mirrors, settings, sandbox, say)
        stop = stack.enter_context(site.occupied(folder))
        known = {found.key: found for found in stream.recovered}
        missing = {repo: missing_programs(repo) for repo in {task.repo for task in tasks}}
        for repo, programs in sorted(missing.items()):
            if programs:
                say(
                    f"{repo}: {', '.join(programs)} is not installed, and tests call it; looper bench prepare says how to get it"
                )
        jobs = []
        for task in tasks:
            try:
                environment = site.environments.of(task).id
            except (BadInput, InfrastructureError) as error:
                say(f"{task.instance_id}: not tried, {error}")
                continue
            key = task.instance_id, content_hash(task), environment, VERSION, missing[task.repo]
            if key not in known:
                jobs.append(task)
        say(f"{len(tasks) - len(jobs)} of {len(tasks)} tasks need nothing more, {len(jobs)} to do")

        def judge(task: Task, patch: str) -> Judgement:
            court = Court(site.workspaces, site.sandbox, GRADING, log_bytes=LOG_BYTES)
            return verify(task, patch, site.environments.of(task), court, f"{task.instance_id}.validate")

        def one(task: Task) -> Validation | str:
            if stop.is_set():
                return f"{task.instance_id}: not tried, stopped"
            try:
                return validate(task, site.environments.of(task).id, judge, missing[task.repo])
            except Exception as error:
                if ends_everything(error):
                    raise
                return f"{task.instance_id}: not tried, {named(error)}"

        for number, found in enumerate(engine(workers).map(one, jobs), 1):
            if isinstance(found, str):
                say(found)
                continue
            stream.append(found)
            known[found.key] = found
            state = "valid" if found.valid else f"INVALID, {found.cause}"
            less = f", {len(found.excluded)} PASS_TO_PASS ids left out" if found.excluded else ""
            say(f"{number}/{len(jobs)} {found.instance_id}: {state}{less}, {found.gold_s:.1f} s")
    ids = {task.instance_id: content_hash(task) for task in tasks}
    # One for each task, by the rules of today: what older ones said was said before.
    latest = {
        found.instance_id: found
        for found in known.values()
        if ids.get(found.instance_id) == found.task_hash
        and found.verifier == VERSION
        and found.missing_programs == missing[found.repo]
    }
    return dict(Counter(task.repo for task in chosen)), list(latest.values())


def write_table(
    file: Path, selection: TaskSelection, settings: Settings, found: Sequence[Validation]
) -> Iterator[str]:
    """Put the table over a whole suite between the marks of a Markdown file. Raises BadInput where it has none."""
    text = named_text(file) if file.is_file() else ""
    every = Counter(task.repo for task in every_task(selection, settings)[0])
    written = with_block(text, "looper bench validate", table_lines(every, found), str(file))
    replace_file(file, written.encode())
    yield f"{file}: {len(found)} validations"
