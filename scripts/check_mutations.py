"""Breaks the code on purpose, one place at a time, and looks whether a test notices.

    python scripts/check_mutations.py [--only NAME ...] [--workers N]
    python scripts/check_mutations.py --sweep [agent metrics/family.py ...] [--sample N [--seed S]] [--tests FILE ...] [--state FOLDER]

Without --sweep the breaks below are made, which are those of central behaviours wherever they are: each in a copy of the tree, in which
the tests that should notice are run; the first one that fails is named. About a quarter of an hour on two cores.

With --sweep every place that cosmic-ray knows how to break is broken (`pip install cosmic-ray coverage`), in the files or folders of
src/looper that are named or in all of SWEPT, against the tests of these folders or those of --tests. All of SWEPT takes days; --sample
draws N places, each as likely as any other, and the score has its interval. First the tests are run once, unbroken, to see which lines
each of them runs; a break is then shown to those that run its line, fastest first, until one fails. It can be interrupted, and the same
command goes on: what is done is kept by content below --state. What no test notices is written to survivors.txt there. At the end stands
the score of each folder, with and without the survivors that EXPLAINED says change nothing. A break that never ends counts as noticed,
as it does in cosmic-ray.

cosmic-ray and not mutmut: that one rewrites each function as all its variants with a switch between them, so that what reads its own
source (keys of plans, the code's version) reads something else, and has pytest in its own process; cosmic-ray changes the file as a
person would, and whatever command is named judges it. Exit status 1 where a break went unnoticed.
"""

import argparse
import ast
import contextlib
import difflib
import functools
import hashlib
import importlib.util
import json
import os
import queue
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SWEPT = ("agent", "bench", "metrics", "experiment")
EXPLAINED = ROOT / "scripts" / "mutations_explained.txt"
"""A line for each survivor that changes nothing anybody could see: the survivor as it is written, ` # `, and why."""
TOOLS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")
TRIED_S = 240.0
"""Of tests, unbroken, that one break is shown to; the slowest are left out beyond it, which can only lower the score."""
COPIED = ("src", "tests", "experiments", "scripts", "pyproject.toml", "README.md", "docs")
QUICK_S = 1.0
"""A test that takes longer, unbroken, has waited for something."""


@dataclass(frozen=True)
class Break:
    """One behaviour, and a change after which it is gone."""

    name: str
    """What no longer holds."""
    file: str
    """Below src/looper."""
    old: str
    """Stands there once."""
    new: str
    tests: tuple[str, ...]
    """Files below tests, or nodes in them, that should notice."""


BREAKS = (
    Break(
        "a reply holds one action, and a fence around a file's content is taken off",
        "agent/actions.py",
        "return (fenced[2], True) if fenced else (content, False)",
        "return (content, False)",
        ("agent/test_actions.py",),
    ),
    Break(
        "a reply that was cut at the limit is no action",
        "agent/actions.py",
        "if finish_reason is FinishReason.LENGTH:",
        "if False:",
        ("agent/test_actions.py", "agent/test_loop.py"),
    ),
    Break(
        "a rollout ends at the step limit",
        "agent/loop.py",
        "if len(self.steps) >= self.limits.steps:",
        "if len(self.steps) > self.limits.steps:",
        ("agent/test_loop.py",),
    ),
    Break(
        "an action that was repeated too often ends the rollout",
        "agent/guards.py",
        "if self.settings.repeat_stop and count >= self.settings.repeat_stop:",
        "if False:",
        ("agent/test_loop.py",),
    ),
    Break(
        "the content in use is never pruned",
        "agent/context.py",
        "return observations[: -self.settings.keep_last]",
        "return observations",
        ("agent/test_context.py",),
    ),
    Break(
        "a workspace that is not its base tree is refused",
        "edges/workspaces/exports.py",
        "if self._base != self._export.tree:",
        "if False:",
        ("edges/test_workspaces.py",),
    ),
    Break(
        "a patch cannot bring its own tests",
        "bench/verify.py",
        "session.put_back(stripped)",
        "session.put_back(())",
        ("bench/test_verify.py",),
    ),
    Break(
        "what stands where tests go is put back",
        "bench/protection.py",
        "chosen.add(change.path)",
        "continue",
        ("bench/test_protection.py",),
    ),
    Break(
        "what the base tree has at an import root is the product's own",
        "bench/protection.py",
        """if f"{place}.py" in self._base or f"{place}/__init__.py" in self._base:""",
        "if False:",
        ("bench/test_protection.py",),
    ),
    Break(
        "rejected hunks and earlier contents are no part of a change",
        "bench/patches.py",
        "session.put_back(_leftovers(session))",
        "pass",
        ("bench/test_patches.py",),
    ),
    Break(
        "a prediction is judged again by the next attempt",
        "experiment/cell.py",
        "made = self.job.made",
        "made = self.job.made if self.job.resume.attempt == 1 else None",
        ("experiment/test_cell.py",),
    ),
    Break(
        "a canary that lies is tampering",
        "bench/testrun.py",
        "            tampering += lies\n",
        "",
        ("bench/test_verify.py",),
    ),
    Break(
        "a broken PASS_TO_PASS test is not resolved",
        "bench/verify.py",
        "resolved = fixed and _all_passed(pass_to_pass)",
        "resolved = fixed",
        ("bench/test_verify.py",),
    ),
    Break(
        "an infrastructure error is no verdict",
        "records/verdict.py",
        "return self in (Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.TAMPERED)",
        "return self is not Outcome.CANCELLED",
        ("metrics", "experiment/test_run.py"),
    ),
    Break(
        "a record is on the disk when it is acknowledged",
        "journal.py",
        """                self._write(_encode(self._next, record, self._folder))
                _sync(self._descriptor)
""",
        """                self._write(_encode(self._next, record, self._folder))
""",
        ("test_journal.py",),
    ),
    Break(
        "a torn last line is cut off",
        "journal.py",
        "os.truncate(self._path, whole)",
        "pass",
        ("test_journal.py",),
    ),
    Break(
        "a run that is being taken down records nothing more",
        "experiment/run.py",
        "raise Cancelled\n        ledger.append(event)",
        "pass\n        ledger.append(event)",
        ("experiment/test_stopping.py",),
    ),
    Break(
        "a fault of Looper's own ends its cell alone",
        "experiment/run.py",
        "if verdict.fault:",
        "if False:",
        ("experiment/test_contained.py",),
    ),
    Break(
        "want of descriptors does not pass for an empty tree",
        "edges/workspaces/manifest.py",
        "if error.errno != errno.ENOENT and not is_of_what_was_made(error):",
        "if False:",
        ("edges/test_workspaces.py",),
    ),
    Break(
        "lines of a file end at line feeds alone",
        "records/text.py",
        "return list(io.StringIO(text))",
        "return text.splitlines(keepends=True)",
        ("agent/test_tools.py", "agent/test_edits.py"),
    ),
    Break(
        "what commands read is open to their user whatever the umask",
        "edges/access.py",
        '["chmod", "-R", "a+rX", str(tree)]',
        '["true"]',
        ("edges/test_access.py",),
    ),
    Break(
        "an unfinished run that was begun otherwise is refused",
        "cli/running.py",
        "if _asked(view.manifest) == _asked(manifest):",
        "if False:",
        ("experiment/test_run.py",),
    ),
    Break(
        "arms of one seed share their luck",
        "records/sampling.py",
        "str(cell.seed), str(arm.repetition), cell.instance_id",
        "str(cell.seed), arm.name, cell.instance_id",
        ("experiment/test_cell.py",),
    ),
    Break(
        "what was learned from is never evaluated",
        "experiment/schedule.py",
        "evaluated = select_tasks(left, selection, elsewhere",
        "evaluated = select_tasks(tasks, selection, elsewhere",
        ("experiment/test_plans.py",),
    ),
    Break(
        "an arm differs from base in its learning only",
        "records/plan.py",
        "            if also:\n",
        "            if False:\n",
        (
            "experiment/test_learning.py::test_g32_a_plan_that_cannot_mean_what_it_says_is_refused_in_one_line",
        ),
    ),
    Break(
        "only resolved attempts are learned from",
        "training/select.py",
        "elif attempt.verdict.outcome is not Outcome.RESOLVED:",
        "elif False:",
        ("training/test_select.py",),
    ),
    Break(
        "the loss counts what the model said, not what it was told",
        "edges/trainers/encoding.py",
        "spans.append((len(before), len(after.rstrip())))",
        "spans.append((0, len(after.rstrip())))",
        ("edges/test_trainer.py",),
    ),
    Break(
        "every action is trained on, not the last alone",
        "edges/trainers/encoding.py",
        "        spans.append((len(before), len(after.rstrip())))\n",
        "        spans = [(len(before), len(after.rstrip()))] * (len(spans) + 1)\n",
        ("edges/test_trainer.py",),
    ),
    Break(
        "a training that reports no loss has failed",
        "edges/trainers/mlx.py",
        """        must_have_learned(outcome)
        must_be_complete(outcome, request)
""",
        "        pass\n",
        ("edges/test_trainer.py",),
    ),
    Break(
        "the adapter that was asked for is in the model",
        "edges/models/mlx_child.py",
        'self.adapters.use(request["adapter"])',
        "self.adapters.use(BASE)",
        ("edges/test_trainer.py",),
    ),
    Break(
        "an adapter that changes nothing stops its arm",
        "experiment/checks.py",
        "if not zero and furthest == 0:",
        "if False:",
        ("experiment/test_checks.py",),
    ),
    Break(
        "a prompt that was cut is found before the first task",
        "experiment/checks.py",
        "abs(full.counted - foretold) > max(16, COUNT_TOLERANCE * foretold)",
        "False",
        ("experiment/test_checks.py",),
    ),
    Break(
        "memory tells of earlier tasks only",
        "memory/retrieve.py",
        "        and item.position < task.sequence_position\n",
        "",
        ("memory/test_memory.py",),
    ),
    Break(
        "arms are compared on their common cells, paired",
        "metrics/paired.py",
        "losses = sum(second[key] and not first[key] for key in common)",
        "losses = sum(second[key] and not first.get(key) for key in second)",
        ("metrics/test_paired.py",),
    ),
    Break(
        "several registered differences are adjusted together",
        "metrics/registered.py",
        "adjusted = holm(p_values)",
        "adjusted = p_values",
        ("metrics/test_registered.py",),
    ),
    Break(
        "a rate does not count infrastructure errors",
        "metrics/arms.py",
        "judged = [verdict for verdict in final.values() if verdict.outcome.is_verdict]",
        "judged = list(final.values())",
        ("metrics",),
    ),
    Break(
        "a fault that asking again cannot help is not asked again",
        "edges/models/retrying.py",
        "if not error.retryable:",
        "if False:",
        ("edges/test_model_servers.py",),
    ),
    Break(
        "half a reply is never taken for a whole one",
        "edges/models/heard.py",
        "if reason in WHOLE:",
        "if True:",
        ("edges/test_model_servers.py",),
    ),
    Break(
        "a slow reply is the rollout's own end",
        "agent/loop.py",
        "    ReplyLate: StopReason.TIME_LIMIT,\n",
        "",
        ("agent/test_loop.py",),
    ),
    Break(
        "a command sees no network",
        "edges/sandboxes/bubblewrap.py",
        '"--unshare-net", ',
        "",
        ("contracts/test_sandboxes.py",),
    ),
    Break(
        "a verdict that was changed after the fact is found",
        "views/audit.py",
        "        *_seals(run),\n",
        "",
        ("views/test_audit.py",),
    ),
    Break(
        "a candidate that changed after its report is not judged",
        "evolution/judging.py",
        "if now := self._moved(found):",
        'if now := "":',
        ("cli/test_evolve_repository.py::test_a_candidate_that_changes_after_it_was_reported_is_refused",),
    ),
    Break(
        "a call that does not fit the budget is not made",
        "evolution/budget.py",
        "if allowed.tokens is not None and wanted > allowed.tokens:",
        "if False:",
        ("cli/test_evolve_models.py::test_l26_d11_the_call_that_does_not_fit_is_not_made",),
    ),
    Break(
        "a change that speaks to its reviewer is refused",
        "evolution/review.py",
        "if found.injection:",
        "if False:",
        ("cli/test_evolve_models.py::test_a_review_is_a_value_and_decides_as_one",),
    ),
    Break(
        "a program that was not told what decides must do it all the same",
        "evolution/rig.py",
        "if said != vector.stdout.rstrip():",
        "if False:",
        ("cli/test_regenerate.py::test_c01_what_does_not_live_says_at_which_stage",),
    ),
    Break(
        "a guest's turns are limited by the harness",
        "evolution/guest.py",
        "if len(self.replies) >= self.limits.steps:",
        "if len(self.replies) >= 10 * self.limits.steps:",
        ("evolution/test_guest.py::test_one_that_asks_without_end_is_stopped_at_the_limit_of_turns",),
    ),
    Break(
        "a guest shares the luck of the installed agent",
        "evolution/guest.py",
        "seed=int(content_hash(str(self.of.seed), str(len(self.replies)))[:8], 16),",
        "seed=len(self.replies),",
        ("evolution/test_guest.py::test_the_same_source_does_the_same_as_a_guest",),
    ),
    Break(
        "H01: a server answers to its own names only",
        "serve/guard.py",
        "if len(hosts) != 1 or hosts[0].lower() not in self.auth.hosts:",
        "if False:",
        ("serve/test_guard.py",),
    ),
    Break(
        "H02: nothing is told without the token",
        "serve/guard.py",
        "        if known:\n            return None\n",
        "        if known or True:\n            return None\n",
        ("serve/test_guard.py",),
    ),
    Break(
        "H03: what a form can send does not act",
        "serve/guard.py",
        '.lower() != "application/json":',
        '.lower() == "nothing":',
        ("serve/test_guard.py",),
    ),
    Break(
        "H04: another site does not act",
        "serve/guard.py",
        "if any(origin not in self.auth.origins for origin in origins) or len(origins) > 1:",
        "if False:",
        ("serve/test_guard.py",),
    ),
    Break(
        "H04: a browser on another site does not act",
        "serve/guard.py",
        'if site not in ("none", "same-origin") and not login:',
        "if False:",
        ("serve/test_guard.py",),
    ),
    Break(
        "H04: a cookie alone does not act",
        "serve/guard.py",
        "known = (reads or bool(origins)) and any(",
        "known = any(",
        ("serve/test_guard.py",),
    ),
    Break(
        "H05: nothing is done by GET",
        "serve/api_runs.py",
        '"/codes", self.codes, methods=["POST"]',
        '"/codes", self.codes, methods=["GET", "POST"]',
        ("serve/test_guard.py",),
    ),
    Break(
        "H06: a name is looked up and never joined",
        "views/live.py",
        "folder = next((path for path in run_folders(self.runs) if path.name == name), None)",
        "folder = self.runs / name if (self.runs / name).exists() else None",
        ("serve/test_guard.py",),
    ),
    Break(
        "H07: what models say is escaped",
        "views/web/templating.py",
        "autoescape=True",
        "autoescape=False",
        ("serve/test_pages.py",),
    ),
    Break(
        "H07: a page runs nothing but its own scripts",
        "serve/guard.py",
        "script-src 'self'; style-src 'self'",
        "script-src 'self' 'unsafe-inline'; style-src 'self'",
        ("serve/test_guard.py",),
    ),
    Break(
        "H08: streams are few",
        "serve/streams.py",
        "        if not self._free:\n            return False\n",
        "",
        ("serve/test_guard.py",),
    ),
    Break(
        "H08: a place of a stream is given back",
        "serve/streams.py",
        "            self._slots.give_back()",
        "            pass",
        ("serve/test_guard.py",),
    ),
    Break(
        "H09: half a request is closed",
        "serve/server.py",
        "            self.transport.close()",
        "            pass",
        ("serve/test_guard.py",),
    ),
    Break(
        "H09: half a body is closed",
        "serve/guard.py",
        "        async with asyncio.timeout(BODY_S):",
        "        async with asyncio.timeout(3600):",
        ("serve/test_guard.py",),
    ),
    Break(
        "H09: a large body is not read",
        "serve/guard.py",
        "if len(length) > 9 or int(length) > BODY_BYTES:",
        "if False:",
        ("serve/test_guard.py",),
    ),
    Break(
        "H10: one decision at a time",
        "serve/audit_log.py",
        'lock = RunLock(self.folder, "record of decisions in")',
        'lock = RunLock(self.folder / str(id(work)), "x")',
        ("serve/test_guard.py",),
    ),
    Break(
        "H10: what is decided is what was seen",
        "serve/api_runs.py",
        "if run.manifest.run_hash() != asked.run_hash:",
        "if False:",
        ("serve/test_guard.py",),
    ),
    Break(
        "H10: a candidate is decided by the hash that was seen",
        "serve/api_campaign.py",
        "if not one.candidate_hash or not one.candidate_hash.startswith(seen):",
        "if False:",
        ("serve/test_campaign.py",),
    ),
    Break(
        "H11: it listens on loopback",
        "cli/serving.py",
        'bound(options.host.replace("localhost", "127.0.0.1"), options.port)',
        'bound("0.0.0.0", options.port)',
        ("serve/test_guard.py",),
    ),
    Break(
        "H12: the token's file is its owner's alone",
        "cli/serving.py",
        "os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600",
        "os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644",
        ("serve/test_guard.py",),
    ),
    Break(
        "H12: a link is good once",
        "serve/authenticator.py",
        "until = self._codes.pop(_same(code, self._codes), None)",
        "until = self._codes.get(_same(code, self._codes))",
        ("serve/test_guard.py",),
    ),
    Break(
        "H13: long texts are cut on a page",
        "views/trajectory.py",
        "return ShownText(whole[:TEXT_CHARS], len(whole) > TEXT_CHARS)",
        "return ShownText(whole, False)",
        ("serve/test_pages.py",),
    ),
    Break(
        "the projection reads what is new",
        "journal.py",
        "in _whole_lines(path, self._at):",
        "in _whole_lines(path):",
        ("serve/test_watching.py",),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="breaks whose name holds this")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sweep", nargs="*", metavar="PLACE", help=f"below src/looper; all of {SWEPT}")
    parser.add_argument("--sample", type=int, metavar="N", help="of a sweep: places drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of --sample")
    parser.add_argument("--tests", action="append", default=[], help="below tests; of a sweep")
    parser.add_argument("--state", type=Path, default=ROOT / ".mutations", help="of a sweep")
    options = parser.parse_args()
    if options.sweep is not None:
        sys.exit(
            sweep(
                options.sweep or SWEPT,
                options.tests,
                options.state.resolve(),
                options.sample,
                options.seed,
                options.workers,
            )
        )
    chosen = [
        found for found in BREAKS if not options.only or any(word in found.name for word in options.only)
    ]
    stale = [found.name for found in chosen if not fits(found)]
    if stale:
        sys.exit(f"No longer in the code, so correct scripts/check_mutations.py: {'; '.join(stale)}")
    unnoticed = 0
    with ThreadPoolExecutor(options.workers) as pool:
        for found, (failed, seconds) in zip(chosen, pool.map(noticed_by, chosen), strict=True):
            unnoticed += not failed
            print(
                f"{'noticed' if failed else 'UNNOTICED':9} {found.name}: {failed or found.tests}, {seconds:.0f} s",
                flush=True,
            )
    print(f"{len(chosen) - unnoticed} of {len(chosen)} breaks were noticed")
    sys.exit(1 if unnoticed else 0)


def fits(found: Break) -> bool:
    """Whether the text that a break changes stands in the code exactly once."""
    return (ROOT / "src" / "looper" / found.file).read_text("utf-8").count(found.old) == 1


def noticed_by(found: Break) -> tuple[str, float]:
    """The first test that fails with the break, empty where none does, and seconds."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="looper-break-") as name:
        tree = Path(name)
        copy_tree(tree)
        path = tree / "src" / "looper" / found.file
        path.write_text(path.read_text("utf-8").replace(found.old, found.new), "utf-8")
        done = subprocess.run(
            [
                sys.executable,
                *PYTEST,
                "-x",
                f"--basetemp={tree / 'tmp'}",
                *(f"tests/{each}" for each in found.tests),
            ],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            capture_output=True,
            text=True,
        )
    return next(failures(done.stdout), ""), time.monotonic() - begun


def copy_tree(tree: Path) -> None:
    # Commands run as another user, who has to see the working trees below.
    tree.chmod(0o755)
    for part in COPIED:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tree / part)


@dataclass(frozen=True)
class Place:
    """One place that cosmic-ray knows how to break."""

    file: str
    """From the repository's root."""
    line: int
    operator: str
    occurrence: int
    """Of the operator in the file."""


@dataclass(frozen=True)
class Tried:
    """One place that was broken."""

    place: Place
    outcome: str
    """killed, timeout or survived. A timeout is a kill, as it is in cosmic-ray."""
    old: str
    new: str
    """The line as it was and as it is broken."""
    by: str
    """The test that failed and how; empty where none was run because the code could not even be imported."""
    seconds: float

    @property
    def survivor(self) -> str:
        """As it is written in EXPLAINED, where lines may shift."""
        return f"{self.place.file}: {self.place.operator}: {self.old} -> {self.new}"

    @property
    def noticed(self) -> bool:
        return self.outcome != "survived"


@dataclass(frozen=True)
class Coverage:
    """What the tests do when nothing is broken."""

    seconds: dict[str, float]
    """By test that passes."""
    lines: dict[str, dict[int, list[str]]]
    """By file and line, the tests that run it."""

    def tests_of(self, place: Place) -> list[str]:
        """Those that can notice, fastest first: that run the line, where it is a function's; where it is run on import, or by none
        that is watched, those that run any function of the file; and where none is seen to do that, all of the file's folder."""
        inside = _lines_in_functions(ROOT / place.file)
        lines = {at: tests for at, tests in self.lines.get(place.file, {}).items() if at in inside}
        folder = f"tests/{Path(place.file).parts[2]}/"
        chosen = (
            lines.get(place.line)
            or {test for tests in lines.values() for test in tests}
            or [test for test in self.seconds if test.startswith(folder)]
        )
        found, total = [], 0.0
        for test in sorted(set(chosen), key=lambda test: (self.seconds[test], test)):
            total += self.seconds[test]
            if found and total > TRIED_S:
                break
            found.append(test)
        return found

    def patience(self, tests: Sequence[str]) -> tuple[float, float]:
        """Seconds until tests have run out of time, and seconds of work that one of their processes may do. Beside others a second
        of work may take many; an endless loop is known by its work."""
        expected = sum(self.seconds[test] for test in tests)
        return 300 + 10 * expected, 60 + 3 * expected


def _lines_in_functions(path: Path) -> set[int]:
    return {
        line
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    }


def sweep(
    places: Sequence[str], tests: Sequence[str], state: Path, sample: int | None, seed: int, workers: int
) -> int:
    """The exit status. What cannot be run (no such place, no cosmic-ray, no coverage) ends it in a line."""
    if shutil.which("cosmic-ray", path=TOOLS) is None or not importlib.util.find_spec("coverage"):
        sys.exit("The sweep needs cosmic-ray and coverage: pip install cosmic-ray coverage")
    source = ROOT / "src" / "looper"
    if missing := [place for place in places if not (source / place).exists()]:
        sys.exit(f"There is nothing at {', '.join(missing)} below src/looper")
    state.mkdir(parents=True, exist_ok=True)
    explained = {
        line.rpartition(" # ")[0]: line.rpartition(" # ")[2]
        for line in EXPLAINED.read_text("utf-8").splitlines()
        if " # " in line
    }
    folders = sorted({Path(place).parts[0] for place in places})
    asked = [f"tests/{each}" for each in tests or folders]
    tests_told, done = _told(*asked), []
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="looper-sweep-"))
        trees = Trees(Path(name), workers)
        attempts = stack.enter_context(contextlib.closing(Attempts(state / "tried.jsonl")))
        pool = ThreadPoolExecutor(workers)
        stack.callback(pool.shutdown, cancel_futures=True)
        with trees.one() as tree:
            every = found_places(tree, places, state)
        chosen = drawn(every, sample, seed)
        print(f"{len(chosen)} of {len(every)} places" + (f", seed {seed}" if sample else ""), flush=True)
        covered = coverage_of(trees, pool, asked, [f"src/looper/{each}" for each in folders], state)

        def attempt(place: Place) -> Tried:
            told = f"{place.operator} {place.occurrence} of {_told(place.file)} by {tests_told}"
            if told in attempts.known:
                return attempts.known[told]
            with trees.one() as tree:
                return attempts.add(told, tried(place, tree, covered))

        for number, one in enumerate(pool.map(attempt, chosen), 1):
            if one.outcome == "none":
                continue
            done.append(one)
            where = f"{one.place.file}:{one.place.line} {one.place.operator}"
            print(f"{number:4} {one.outcome:8} {where} {one.by} {one.seconds:.0f} s", flush=True)
    return told_of(done, explained, state)


class Trees:
    """Copies of the repository, of which each is one user's at a time."""

    def __init__(self, place: Path, count: int) -> None:
        place.chmod(0o755)
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(count):
            # As the processes in it see its name, which the files that are covered go by.
            tree = place.resolve() / str(number)
            tree.mkdir()
            copy_tree(tree)
            self._free.put(tree)

    @contextlib.contextmanager
    def one(self) -> Iterator[Path]:
        tree = self._free.get()
        try:
            yield tree
        finally:
            self._free.put(tree)


def told_of(done: Sequence[Tried], explained: Mapping[str, str], state: Path) -> int:
    """Prints survivors and scores. The exit status: 1 where a survivor is not explained."""
    left = [one for one in done if not one.noticed and one.survivor not in explained]
    lines = [
        f"{one.place.file}:{one.place.line}: {one.survivor.partition(': ')[2]}"
        + (f" # {explained[one.survivor]}" if one.survivor in explained else "")
        for one in done
        if not one.noticed
    ]
    (state / "survivors.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    print(f"Survivors, {len(left)} of them not explained:", *lines, sep="\n")
    by_folder: dict[str, list[Tried]] = {}
    for one in done:
        by_folder.setdefault(Path(one.place.file).parts[2], []).append(one)
    for name, found in [*sorted(by_folder.items()), ("all", list(done))]:
        counted = [one for one in found if one.noticed or one.survivor not in explained]
        print(f"{name}: {_score(found)}; without those explained {_score(counted)}")
    late = sum(one.outcome == "timeout" for one in done)
    unimported = sum(one.outcome == "killed" and not one.by for one in done)
    print(f"Of those noticed {late} ran out of time and {unimported} could not be imported")
    return 1 if left else 0


def found_places(tree: Path, places: Sequence[str], state: Path) -> list[Place]:
    """What cosmic-ray lists for the files as they are."""
    swept = [f"src/looper/{place}" for place in places]
    listed = state / f"places-{_told(*swept)}.jsonl"
    if not listed.exists():
        config, session = tree / "sweep.toml", tree / "sweep.sqlite"
        config.write_text(
            f"[cosmic-ray]\nmodule-path = {json.dumps(swept)}\ntimeout = 1.0\nexcluded-modules = []\n"
            'test-command = "true"\n[cosmic-ray.distributor]\nname = "local"\n',
            "utf-8",
        )
        _cosmic_ray(tree, "init", config, session)
        listed.write_text(_cosmic_ray(tree, "dump", session), "utf-8")
    found = (json.loads(line)[0]["mutations"][0] for line in listed.read_text("utf-8").splitlines())
    return sorted(
        (
            Place(
                one["module_path"],
                one["start_pos"][0],
                one["operator_name"].partition("/")[2],
                one["occurrence"],
            )
            for one in found
        ),
        key=astuple,
    )


def drawn(places: Sequence[Place], sample: int | None, seed: int) -> Sequence[Place]:
    """Without replacement and without strata, in the order drawn: who stops early has a sample too."""
    return places if sample is None else random.Random(seed).sample(places, min(sample, len(places)))


def coverage_of(
    trees: Trees, pool: ThreadPoolExecutor, tests: Sequence[str], watched: Sequence[str], state: Path
) -> Coverage:
    """Each file of tests is run once for as long as it and what is watched stay as they are.

    Programs that a test starts are watched where they have coverage and the test's environment."""

    def run(file: Path) -> Path:
        listed = state / f"covered-{file.stem}-{_told(str(file), *watched)}.json"
        if not listed.exists():
            with trees.one() as tree:
                passed, ran = _watched(tree, file, watched)
            listed.write_text(json.dumps([passed, ran]), "utf-8")
            print(f"{file}: {len(passed)} tests, {sum(passed.values()):.0f} s", flush=True)
        return listed

    seconds: dict[str, float] = {}
    lines: dict[str, dict[int, list[str]]] = {}
    files = sorted({file.relative_to(ROOT) for each in tests for file in _files(each, "test_*.py")})
    for listed in pool.map(run, files):
        passed, ran = json.loads(listed.read_text("utf-8"))
        seconds |= passed
        for where, at, by in ran:
            lines.setdefault(where, {}).setdefault(at, []).extend(by)
    return Coverage(seconds, lines)


def _files(place: str, pattern: str = "*.py") -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob(pattern))


def _watched(
    tree: Path, file: Path, watched: Sequence[str]
) -> tuple[dict[str, float], list[tuple[str, int, list[str]]]]:
    """Tests of one file that pass, in seconds, and file and line with those of them that run it."""
    from coverage import CoverageData

    place = tree / "covered"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o777)
    settings = place / "settings"
    include = "".join(f"\n  {tree / each}/*" for each in watched)
    settings.write_text(
        # In the process of the tests a context is the function's name; in those that it starts, what pytest says in the environment.
        f"[run]\ndata_file = {place}/data\nparallel = true\ndynamic_context = test_function\n"
        f"context = ${{PYTEST_CURRENT_TEST-}}\ninclude = {include}\n",
        "utf-8",
    )
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", *PYTEST]
    subprocess.run(
        [*command, f"--basetemp={tree}/tmp", f"--junitxml={place}/times.xml", str(file)],
        cwd=tree,
        env={**_environment(tree), "COVERAGE_PROCESS_START": str(settings)},
        capture_output=True,
    )
    passed: dict[str, float] = {}
    failed: set[str] = set()
    for case in ElementTree.parse(place / "times.xml").iter("testcase"):
        classes = case.attrib["classname"].split(".")
        node = "::".join(
            [str(file), *classes[classes.index(file.stem) + 1 :], case.attrib["name"].partition("[")[0]]
        )
        passed[node] = passed.get(node, 0.0) + float(case.attrib["time"])
        if any(case.find(what) is not None for what in ("failure", "error")):
            failed.add(node)
    if failed:
        print(f"Fail unbroken, so they are not asked: {', '.join(sorted(failed))}", flush=True)
    passed = {node: taken for node, taken in passed.items() if node not in failed}
    ran: dict[tuple[str, int], set[str]] = {}
    for each in place.glob("data.*"):
        data = CoverageData(str(each))
        data.read()
        for where in data.measured_files():
            for at, contexts in data.contexts_by_lineno(where).items():
                tests = {test for context in contexts if (test := _test_of(context, file)) in passed}
                if tests:
                    ran.setdefault((str(Path(where).relative_to(tree)), at), set()).update(tests)
    return passed, [(where, at, sorted(tests)) for (where, at), tests in sorted(ran.items())]


def _test_of(context: str, file: Path) -> str:
    """The test in the name of a context: `tests/x/test_y.py::test_z[1] (call)` or `…test_y.test_z`, or both with a bar between."""
    started, _, called = context.rpartition("|")
    if "::" in (started or called):
        return (started or called).partition("[")[0].partition(" (")[0]
    parts = called.split(".")
    return "::".join([str(file), *parts[parts.index(file.stem) + 1 :]]) if file.stem in parts else ""


class Attempts:
    """What was tried so far, a line each, on the disk before the next one."""

    def __init__(self, path: Path) -> None:
        self.known: dict[str, Tried] = {}
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            told, found = json.loads(line)
            self.known[told] = Tried(**{**found, "place": Place(**found["place"])})
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def add(self, told: str, one: Tried) -> Tried:
        with self._lock:
            self._file.write(f"{json.dumps([told, asdict(one)])}\n")
            self._file.flush()
            self.known[told] = one
        return one

    def close(self) -> None:
        self._file.close()


def tried(place: Place, tree: Path, covered: Coverage) -> Tried:
    """Breaks the place in the copy, asks the tests, and mends it again.

    On a busy machine a test that waits for processes may fail by itself: it has to fail once more, alone, or the break is shown to
    the others."""
    begun = time.monotonic()
    try:
        _cosmic_ray(tree, "apply", place.file, f"core/{place.operator}", place.occurrence)
        old, new = _difference((ROOT / place.file).read_text("utf-8"), (tree / place.file).read_text("utf-8"))
        if old == new:
            return Tried(place, "none", old, new, "", 0.0)
        tests, outcome, by = covered.tests_of(place), "survived", ""
        while tests:
            outcome, by = _asked(tree, tests, *covered.patience(tests))
            failed = by.partition("[")[0].partition(" - ")[0].rpartition(" ")[2]
            if covered.seconds.get(failed, 0.0) <= QUICK_S:
                break
            if _asked(tree, [failed], *covered.patience([failed]))[0] != "survived":
                break
            tests, outcome, by = tests[tests.index(failed) + 1 :], "survived", ""
    finally:
        # With its time, so that what was compiled of it holds.
        shutil.copy2(ROOT / place.file, tree / place.file)
    return Tried(place, outcome, old, new, by, time.monotonic() - begun)


def _asked(tree: Path, tests: Sequence[str], seconds: float, work: float) -> tuple[str, str]:
    """The outcome, and the test that failed. `work` is of the processor and of each process."""
    process = subprocess.Popen(
        [sys.executable, *PYTEST, "-x", f"--basetemp={tree}/tmp", *tests],
        preexec_fn=functools.partial(
            resource.setrlimit, resource.RLIMIT_CPU, (int(work), resource.RLIM_INFINITY)
        ),
        cwd=tree,
        env=_environment(tree),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "timeout", "out of time"
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "timeout", "out of work"
    if not process.returncode:
        return "survived", ""
    said = (
        line
        for line in printed.splitlines()
        if line.startswith(("FAILED tests/", "ERROR tests/")) and "::" in line
    )
    return "killed", next(said, "")


def _difference(old: str, new: str) -> tuple[str, str]:
    lines = [
        line
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    was, is_now = (
        " ".join(" ".join(line[1:].split()) for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return was, is_now


def _told(*places: str) -> str:
    """Of what stands there now."""
    told = hashlib.sha256()
    for place in places:
        told.update(place.encode())
        for file in _files(place):
            told.update(file.read_bytes())
    return told.hexdigest()[:16]


def _environment(tree: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(tree / "src"), os.environ.get("PYTHONPATH", "")]))
    # Two changes of a file in one second would pass for one.
    return {**os.environ, "PYTHONPATH": path, "PATH": TOOLS, "PYTHONDONTWRITEBYTECODE": "1"}


def _cosmic_ray(tree: Path, *arguments: object) -> str:
    done = subprocess.run(
        ["cosmic-ray", *map(str, arguments)],
        cwd=tree,
        env={**os.environ, "PATH": TOOLS},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(
            f"cosmic-ray {arguments[0]} failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
        )
    return done.stdout


def _score(found: Sequence[Tried]) -> str:
    """With Wilson's 95 % interval."""
    from looper.metrics.paired import wilson

    noticed = sum(one.noticed for one in found)
    if not found:
        return "0 of 0 noticed"
    low, high = wilson(noticed, len(found))
    return f"{noticed} of {len(found)} noticed, {noticed / len(found):.1%} (95 % {low:.1%} to {high:.1%})"


def failures(printed: str) -> Iterator[str]:
    """Names of the tests that failed, from what pytest printed."""
    for line in printed.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            yield line.split(" ", 1)[1].split(" - ")[0].removeprefix("tests/")


if __name__ == "__main__":
    main()
