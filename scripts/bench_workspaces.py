"""What a working tree and a verdict cost, beside what git and the bare test program cost, in one run.

    python scripts/bench_workspaces.py [--repo NAME ...] [--repeats N] [--verify]

For the first task of each repository of SWE-Bench-CL whose mirror is there (LOOPER_SWE_DATA, LOOPER_MIRRORS), and of the embedded
suite, in turns, medians of wall and CPU seconds of making a tree, applying gold and removing it: a workspace, a plain copy of the base
tree's files, and `git clone --shared` with checkout; commits that can be reached in a workspace. With --verify also a whole
verification of the gold patch, what it costs beside the command that runs the tests, and the repository's own test program, run bare on the same targets in a tree that is ready.
"""

import argparse
import os
import resource
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from looper.bench.verify import VerifierContext, verify
from looper.cli.grading import GRADING
from looper.cli.settings import Settings, settings
from looper.cli.wiring import Site, every_task
from looper.edges.workspaces.exports import GitSessions
from looper.errors import BadInput
from looper.protocols import Command, CommandResult, Sandbox
from looper.records.plan import TaskSelection
from looper.records.task import Task
from looper.records.verdict import Outcome

WAYS = ("workspace", "plain copy", "clone + checkout")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repo", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--verify", action="store_true")
    options = parser.parse_args()
    table = Table(title="Workspaces and verdicts", title_justify="left")
    for head in (
        "repository",
        "files",
        "commits",
        *(f"{name}, s / CPU s" for name in WAYS),
    ):
        table.add_column(head)
    if options.verify:
        for head in ("verify s", "beside the tests, CPU s", "bare tests s", "overhead"):
            table.add_column(head)
    for suite in ("micro", "swe-bench-cl"):
        for row in rows(TaskSelection(suite=suite), settings(), options):
            table.add_row(*row)
    Console(width=160).print(table)


def rows(selection: TaskSelection, found: Settings, options: argparse.Namespace) -> list[tuple[str, ...]]:
    try:
        tasks, mirrors = every_task(selection, found)
    except BadInput as error:
        print(error)
        return []
    first: dict[str, Task] = {}
    for task in tasks:
        wanted = not options.repo or task.repo in options.repo
        if wanted and f"{task.suite}:{task.repo}" in mirrors and (selection.suite != "micro" or not first):
            first.setdefault(task.repo, task)
    site = Site(mirrors, found, "auto", print)
    with site.occupied(found.workspaces / "bench"):
        return [row(task, mirrors[f"{task.suite}:{task.repo}"], site, options) for task in first.values()]


def row(task: Task, mirror: Path, site: Site, options: argparse.Namespace) -> tuple[str, ...]:
    probe = site.sessions.open(task, "probe")
    # The tree may belong to the user whom commands run as.
    commits = subprocess.run(
        ["git", "-c", "safe.directory=*", "cat-file", "--batch-all-objects", "--batch-check"],
        cwd=probe.root,
        capture_output=True,
        text=True,
    ).stdout.count(" commit ")
    files = sum(1 for path in probe.root.rglob("*") if path.is_file() and ".git" not in path.parts)
    probe.close()
    work: dict[str, Callable[[], None]] = {
        "workspace": lambda: worked_in(site.sessions, task),
        "plain copy": lambda: plain_copy(site.sessions.base_tree(task), task),
        "clone + checkout": lambda: clone(mirror, task),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(options.repeats):
        for name in WAYS:
            taken[name].append(timed(work[name]))
    cells = [task.repo, str(files), str(commits)]
    for name in WAYS:
        wall, cpu = (median(each) for each in zip(*taken[name], strict=True))
        cells.append(f"{wall:.2f} / {cpu:.2f}")
    if options.verify:
        judged, beside, bare = verdict_and_bare(task, site, options.repeats)
        over = f"{100 * (judged / bare - 1):+.0f} %" if bare else "–"
        cells += [f"{judged:.2f}", f"{beside:.2f}", f"{bare:.2f}" if bare else "–", over]
    return tuple(cells)


def worked_in(sessions: GitSessions, task: Task) -> None:
    session = sessions.open(task, "bench")
    session.apply(task.gold_patch)
    session.close()


def plain_copy(files: Path, task: Task) -> None:
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "tree"
        subprocess.run(["cp", "-a", str(files), str(target)], check=True)
        applied(target, task)
        subprocess.run(["rm", "-rf", str(target)], check=True)


def clone(mirror: Path, task: Task) -> None:
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "tree"
        subprocess.run(
            ["git", "clone", "--quiet", "--shared", "--no-checkout", str(mirror), str(target)], check=True
        )
        subprocess.run(["git", "checkout", "--quiet", "--detach", task.base_commit], cwd=target, check=True)
        applied(target, task)
        subprocess.run(["rm", "-rf", str(target)], check=True)


def applied(tree: Path, task: Task) -> None:
    subprocess.run(["git", "apply", "-"], cwd=tree, input=task.gold_patch.encode(), check=True)


def cpu_s() -> float:
    """Of this process and of its children that ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds, children included."""
    wall, before = time.monotonic(), cpu_s()
    work()
    return time.monotonic() - wall, cpu_s() - before


class Counted:
    """A sandbox, and the CPU seconds of what it ran as far as they are counted as this process's."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.name, self.owner, self.loopback = sandbox.name, sandbox.owner, sandbox.loopback
        self.inside_s = 0.0
        self._sandbox = sandbox

    def run(self, command: Command) -> CommandResult:
        before = cpu_s()
        try:
            return self._sandbox.run(command)
        finally:
            self.inside_s += cpu_s() - before


def verdict_and_bare(task: Task, site: Site, repeats: int) -> tuple[float, float, float | None]:
    """Median seconds of a verification of gold, CPU seconds of it beside the test command, and seconds of the repository's own test program in a tree with gold and tests; None for a
    tree that does not bring it, as a source release may."""
    environment = site.environments.of(task)
    counted = Counted(site.sandbox)
    verifier_context = VerifierContext(replace(site.sessions, sandbox=counted), GRADING)
    ready = site.sessions.open(task, "bare")
    ready.apply(task.gold_patch)
    ready.apply(task.test_patch)
    program = shlex.split(task.own_tests)
    argv = [str(environment.python), *program[1:], *task.test_targets]
    variables = {**os.environ, **ready.variables}
    there = program[1].startswith("-") or (ready.root / program[1]).exists()
    judged, beside, bare = [], [], []
    for _ in range(repeats):
        begun, before, inside = time.monotonic(), cpu_s(), counted.inside_s
        found = verify(task, task.gold_patch, verifier_context, "judged")
        judged.append(time.monotonic() - begun)
        beside.append(cpu_s() - before - (counted.inside_s - inside))
        if found.outcome is not Outcome.RESOLVED:
            print(f"{task.instance_id}: gold is {found.outcome.value}, {found.cause}")
        if not there:
            continue
        begun = time.monotonic()
        ended = subprocess.run(argv, cwd=ready.root, env=variables, capture_output=True, text=True)
        if ended.returncode:
            print(
                f"{task.instance_id}, bare: {' '.join(argv)} ended with {ended.returncode}: {ended.stderr[-300:]}"
            )
        bare.append(time.monotonic() - begun)
    ready.close()
    return median(judged), median(beside), median(bare) if bare else None


if __name__ == "__main__":
    main()
