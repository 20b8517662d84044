"""Breaks the code on purpose, one place at a time, and looks whether a test notices.

    python scripts/check_mutations.py [--only NAME ...] [--workers N]
    python scripts/check_mutations.py --sweep [agent metrics/family.py ...] [--tests FILE ...] [--state FOLDER]

Without --sweep the breaks below are made, which are those of central behaviours wherever they are: each in a copy of the tree, in which
the tests that should notice are run; the first one that fails is named. About a quarter of an hour on two cores.

With --sweep every place that cosmic-ray (`pip install cosmic-ray`) knows how to break is broken, in the files or folders of src/looper
that are named or in all of SWEPT, against the tests of the folder's name or those of --tests. All of it takes days. It can be
interrupted, and the same command goes on: what is done is kept by file and content below --state. What no test notices is written to
survivors.txt there, but for what EXPLAINED says of; at the end stands the score of each folder.

cosmic-ray and not mutmut: that one rewrites each function as all its variants with a switch between them, so that what reads its own
source (keys of plans, the code's version) reads something else, and has pytest in its own process; this one changes the file as a
person would, and whatever command is named judges it. Exit status 1 where a break went unnoticed.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SWEPT = ("agent", "bench", "metrics", "experiment")
EXPLAINED = ROOT / "scripts" / "mutations_explained.txt"
"""A line for each survivor that changes nothing anybody could see: the survivor as it is written, ` # `, and why."""
TOOLS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
TIMEOUT_S = 600.0
COPIED = ("src", "tests", "experiments", "scripts", "pyproject.toml", "README.md", "docs")


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
    parser.add_argument("--tests", action="append", default=[], help="below tests; of a sweep")
    parser.add_argument("--state", type=Path, default=ROOT / ".mutations", help="of a sweep")
    options = parser.parse_args()
    if options.sweep is not None:
        sys.exit(sweep(options.sweep or SWEPT, options.tests, options.state))
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
        argv = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tree / 'tmp'}",
        ]
        done = subprocess.run(
            [*argv, *(f"tests/{test}" for test in found.tests)],
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
class Tried:
    """One place that was broken by cosmic-ray."""

    survivor: str
    """As it is written: the file, the operator, then the line as it was and as it is broken."""
    noticed: bool


def sweep(places: Sequence[str], tests: Sequence[str], state: Path) -> int:
    """The exit status. What cannot be run (no such place, no cosmic-ray, tests that fail unbroken) ends it in a line."""
    if shutil.which("cosmic-ray", path=TOOLS) is None:
        sys.exit("The sweep needs cosmic-ray: pip install cosmic-ray")
    source = ROOT / "src" / "looper"
    files = [
        path
        for place in places
        for path in (
            [source / place] if (source / place).is_file() else sorted((source / place).rglob("*.py"))
        )
    ]
    if not files:
        sys.exit(f"There is nothing at {', '.join(places)} below src/looper")
    state.mkdir(parents=True, exist_ok=True)
    explained = {
        line.rpartition(" # ")[0] for line in EXPLAINED.read_text("utf-8").splitlines() if " # " in line
    }
    by_folder: dict[str, list[Tried]] = {}
    for path in files:
        found = list(swept(path, tests, state))
        known = [one for one in found if one.noticed or one.survivor not in explained]
        by_folder.setdefault(path.relative_to(source).parts[0], []).extend(known)
        print(f"{path.relative_to(source)}: {_score(known)}", flush=True)
        survivors = [one.survivor for each in by_folder.values() for one in each if not one.noticed]
        (state / "survivors.txt").write_text("".join(f"{each}\n" for each in survivors), "utf-8")
    for folder, found in by_folder.items():
        print(f"{folder}: {_score(found)}")
    return 1 if survivors else 0


def swept(path: Path, tests: Sequence[str], state: Path) -> Iterator[Tried]:
    """Every place of one file, those that an earlier call tried included."""
    where = path.relative_to(ROOT)
    chosen = list(tests) or [where.parts[2]]
    told = hashlib.sha256(path.read_bytes() + repr(chosen).encode()).hexdigest()[:12]
    session = state / f"{'__'.join(where.with_suffix('').parts[2:])}-{told}.sqlite"
    with tempfile.TemporaryDirectory(prefix="looper-sweep-") as name:
        tree = Path(name)
        copy_tree(tree)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tree}/tmp",
        ]
        config = tree / "sweep.toml"
        config.write_text(
            f"[cosmic-ray]\nmodule-path = {json.dumps(str(where))}\ntimeout = {TIMEOUT_S}\nexcluded-modules = []\n"
            f"test-command = {json.dumps(shlex.join([*command, *(f'tests/{each}' for each in chosen)]))}\n"
            '[cosmic-ray.distributor]\nname = "local"\n',
            "utf-8",
        )
        if not session.exists():
            # Tests that fail anyway would notice everything.
            _cosmic_ray(tree, "baseline", config)
            _cosmic_ray(tree, "init", config, session)
        _cosmic_ray(tree, "exec", config, session)
        for line in _cosmic_ray(tree, "dump", session).splitlines():
            item, result = json.loads(line)
            if result is None or result["test_outcome"] == "incompetent":
                continue
            lines = re.findall(r"^([-+])(?![-+]{2} )(.*)$", result["diff"] or "", re.MULTILINE)
            old, new = (" ".join(" ".join(text.split()) for at, text in lines if at == sign) for sign in "-+")
            operator = item["mutations"][0]["operator_name"].partition("/")[2]
            yield Tried(f"{where}: {operator}: {old} -> {new}", result["test_outcome"] != "survived")


def _cosmic_ray(tree: Path, *arguments: object) -> str:
    done = subprocess.run(
        ["cosmic-ray", *map(str, arguments)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src"), "PATH": TOOLS},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(
            f"cosmic-ray {arguments[0]} failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
        )
    return done.stdout


def _score(found: Sequence[Tried]) -> str:
    noticed = sum(one.noticed for one in found)
    return f"{noticed} of {len(found)} breaks noticed" + (f", {noticed / len(found):.0%}" if found else "")


def failures(printed: str) -> Iterator[str]:
    """Names of the tests that failed, from what pytest printed."""
    for line in printed.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            yield line.split(" ", 1)[1].split(" - ")[0].removeprefix("tests/")


if __name__ == "__main__":
    main()
