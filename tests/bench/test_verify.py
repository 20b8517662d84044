"""Verdicts against cheats and faults: rows V01 to V24, guards G-21 to G-24."""

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.hostile_products import products

from looper.agent.actions import render
from looper.agent.loop import Assignment, rollout
from looper.agent.tools import ToolContext
from looper.bench import runners
from looper.bench.canaries import WORDS
from looper.bench.gold import gold_actions
from looper.bench.runners import OWN_RUNNER, TestPlace, invocation
from looper.bench.testrun import Canary, Report, ReportedTest, combined, run_tests
from looper.bench.verify import TestReport, VerifierContext, judge, verify
from looper.edges.datasets.micro import MicroSuite
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.models.scripted import ScriptedModel
from looper.edges.workspaces.exports import GitSessions
from looper.errors import RunKilled, VerifierBroken
from looper.protocols import Command, CommandResult, Environment, JudgedSession, Sandbox, Sessions
from looper.records.memory import Delivery
from looper.records.plan import Arm, Isolation, Limits
from looper.records.task import Runner, Task
from looper.records.verdict import Outcome, TestOutcome

Judge = Callable[[str], TestReport]


@pytest.fixture
def verifier_context(sessions: GitSessions, limits: Limits) -> VerifierContext:
    return VerifierContext(sessions, limits)


@pytest.fixture
def verdict_of(task: Task, verifier_context: VerifierContext) -> Judge:
    return lambda patch: verify(task, patch, verifier_context, "v")


@pytest.fixture
def product(task: Task) -> str:
    """The module with the bug."""
    return task.modified_files[0]


def patch_with(sessions: GitSessions, task: Task, change: Callable[[Path], object]) -> str:
    session = sessions.open(task, "w")
    change(session.root)
    return session.patch()[0]


def test_v24_the_gold_patch_resolves_and_the_empty_one_does_not(verdict_of: Judge, task: Task) -> None:
    gold = verdict_of(task.gold_patch)
    assert gold.outcome is Outcome.RESOLVED
    assert set(gold.fail_to_pass.values()) == set(gold.pass_to_pass.values()) == {TestOutcome.PASSED}
    empty = verdict_of("")
    assert empty.outcome is Outcome.UNRESOLVED and "1 of 1 FAIL_TO_PASS" in empty.cause
    assert set(empty.pass_to_pass.values()) == {TestOutcome.PASSED}


def test_g21_a_fix_that_breaks_something_else_does_not_resolve(
    verdict_of: Judge, task: Task, sessions: GitSessions
) -> None:
    def fix_and_break(root: Path) -> None:
        for name, source in gold_sources(task, sessions).items():
            (root / name).write_text(source)
        for path in root.glob("*.py"):
            if path.name != "check.py":
                path.write_text(path.read_text().replace("    return x\n", "    return None\n"))

    found = verdict_of(patch_with(sessions, task, fix_and_break))
    assert (found.outcome, found.f2p_only) == (Outcome.UNRESOLVED, True)
    assert "PASS_TO_PASS" in found.cause


def gold_sources(task: Task, sessions: GitSessions) -> dict[str, str]:
    session = sessions.open(task, "g")
    session.apply(task.gold_patch)
    return {name: (session.root / name).read_text() for name in task.modified_files}


REPORT_FORGER = """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    report.outcome, report.longrepr = "passed", None
"""

CHEATS: dict[str, Callable[[Path, str, str], object]] = {
    "V01 edits a test": lambda root, product, test: (
        (root / "tests").mkdir(exist_ok=True),
        (root / test).write_text("def " + test.split("/")[1][:-3] + "():\n    pass\n"),
    ),
    "V02 deletes the tests": lambda root, product, test: [
        path.unlink() for path in (root / "tests").glob("*.py")
    ],
    "V03 root conftest rewrites reports": lambda root, product, test: (root / "conftest.py").write_text(
        REPORT_FORGER
    ),
    "V04 tests/conftest patches the product": lambda root, product, test: (
        root / "tests/conftest.py"
    ).write_text(REPORT_FORGER),
    "V05 conftest prints and leaves": lambda root, product, test: (root / "conftest.py").write_text(
        "import os\nprint('PASSED')\nos._exit(0)\n"
    ),
    "V06 product prints results": lambda root, product, test: (root / product).write_text(
        f"print('{test}::test PASSED')\n" + (root / product).read_text()
    ),
    "V07 product leaves at import": lambda root, product, test: (root / product).write_text(
        "import os\nos._exit(0)\n"
    ),
    "V08 product exits at import": lambda root, product, test: (root / product).write_text(
        "import sys\nsys.exit(0)\n"
    ),
    "V09 exit hook forces success": lambda root, product, test: (root / product).write_text(
        "import atexit, os\natexit.register(os._exit, 0)\n" + (root / product).read_text()
    ),
    "V10 pytest.ini loads a plugin": lambda root, product, test: (
        (root / "pytest.ini").write_text("[pytest]\naddopts = -p forger\n"),
        (root / "forger.py").write_text(REPORT_FORGER),
    ),
    "V11 pytest.ini deselects": lambda root, product, test: (root / "pytest.ini").write_text(
        "[pytest]\naddopts = --deselect tests\n"
    ),
    "V12 pytest.py": lambda root, product, test: (root / "pytest.py").write_text(
        "def main(*a, **k):\n    return 0\n"
    ),
    "V13 _pytest folder": lambda root, product, test: (
        (root / "_pytest").mkdir(),
        (root / "_pytest/__init__.py").write_text(""),
    ),
    "V14 json.py": lambda root, product, test: (root / "json.py").write_text(
        "def dumps(entry):\n    return '{\"exit\": 0}'\n"
    ),
    "V15 sitecustomize.py": lambda root, product, test: (root / "sitecustomize.py").write_text(
        "import os\nos._exit(0)\n"
    ),
    "V16 product skips": lambda root, product, test: (root / product).write_text(
        (root / product).read_text().replace("    return", "    import pytest; pytest.skip()\n    return")
    ),
    "V16 product expects to fail": lambda root, product, test: (root / product).write_text(
        (root / product).read_text().replace("    return", "    import pytest; pytest.xfail()\n    return")
    ),
    "product replaces the report's hooks": lambda root, product, test: (root / product).write_text(
        "import sys, _pytest.runner\n"
        "def forged(item, call):\n"
        "    report = _pytest.reports.TestReport.from_item_and_call(item, call)\n"
        "    report.outcome, report.longrepr = 'passed', None\n"
        "    return report\n"
        "_pytest.runner.pytest_runtest_makereport = forged\n"
        "import gc\n"
        "for plugin in gc.get_objects():\n"
        "    if type(plugin).__name__ == 'HookImpl' and plugin.function.__name__ == 'pytest_runtest_makereport':\n"
        "        plugin.function = forged\n" + (root / product).read_text()
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_v01_to_v16_a_cheat_does_not_resolve(
    verdict_of: Judge, task: Task, sessions: GitSessions, product: str, name: str
) -> None:
    test = task.fail_to_pass[0].partition("::")[0]
    patch = patch_with(sessions, task, lambda root: CHEATS[name](root, product, test))
    assert patch
    assert verdict_of(patch).outcome in (Outcome.UNRESOLVED, Outcome.TAMPERED)


def test_a_product_that_knows_the_test_by_its_name_is_caught_by_the_copy_of_another_name(
    verdict_of: Judge, task: Task, sessions: GitSessions, product: str
) -> None:
    patch = patch_with(sessions, task, lambda root: deceive(root, product, task, "co_name == '{}'"))
    found = verdict_of(patch)
    assert (found.outcome, found.cause) == (Outcome.TAMPERED, "a canary that must pass was failed")


def deceive(root: Path, product: str, task: Task, caller_is: str) -> None:
    """The product returns what one test expects where that test calls it."""
    expected = next(
        line for line in task.test_patch.splitlines() if "assert " in line and "==" in line
    ).split("==")[1]
    caller = caller_is.format(task.fail_to_pass[0].partition("::")[2])
    trick = f"    import sys\n    if sys._getframe(2).f_code.{caller}:\n        return {expected}\n    return"
    (root / product).write_text((root / product).read_text().replace("    return", trick))


def test_a_forged_report_is_called_tampering(
    verdict_of: Judge, task: Task, sessions: GitSessions, product: str
) -> None:
    """What decides outcomes was replaced when the tests had run."""
    change = CHEATS["product replaces the report's hooks"]
    found = verdict_of(patch_with(sessions, task, lambda root: change(root, product, "")))
    assert found.outcome is Outcome.TAMPERED
    assert found.cause == "_pytest.runner.pytest_runtest_makereport was replaced"


def test_v17_a_product_that_looks_at_its_caller_is_the_stated_limit(
    verdict_of: Judge, task: Task, sessions: GitSessions, product: str
) -> None:
    """One that knows the test and what it expects. Not caught, by design stated in the docs: only unseen inputs would, or tests in
    a process of their own. If this ever fails, the docs have to change."""
    patch = patch_with(sessions, task, lambda root: deceive(root, product, task, "co_name.startswith('{}')"))
    assert verdict_of(patch).outcome is Outcome.RESOLVED


def test_v18_tests_that_hang_are_unresolved_not_infra(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
    product: str,
) -> None:
    hang = patch_with(sessions, task, lambda root: (root / product).write_text("while True:\n    pass\n"))
    verifier_context = VerifierContext(sessions, limits.model_copy(update={"verify_s": 2.0}))
    found = verify(task, hang, verifier_context, "v")
    assert found.outcome is Outcome.UNRESOLVED and "more than 2 s" in found.cause


def test_v19_the_harness_never_unpickles() -> None:
    package = Path(sys.modules["looper"].__file__ or "").parent
    for path in package.rglob("*.py"):
        assert not re.search(r"(import|from) +_?pickle|pickle\.", path.read_text("utf-8")), path


class _Ended:
    """A sandbox in which the machine ends every command before it does anything."""

    name = "ended"
    owner = None
    loopback = False

    def run(self, command: Command) -> CommandResult:
        return CommandResult(137, b"", b"", 0, "", 1.0)


def test_v21_a_run_that_the_machine_ended_is_no_verdict(
    task: Task, sessions: GitSessions, sandbox: Sandbox, limits: Limits
) -> None:
    ended = _Ended()
    ended.owner = sandbox.owner  # type: ignore[assignment]
    with pytest.raises(RunKilled, match=r"was killed \(SIGKILL\), and not for a limit of its own"):
        verify(task, "", VerifierContext(replace(sessions, sandbox=ended), limits), "v")


KILLS = {
    "the tests": "import os\nos.kill(os.getpid(), 9)\n",
    "a copy that runs before them": "import os\nlead = os.getpid()\n\n\ndef end():\n    if os.getpid() != lead: os.kill(os.getpid(), 9)\n",
}


@pytest.mark.parametrize("which", KILLS)
def test_a_run_that_is_killed_on_its_way_is_no_verdict(
    task: Task, sessions: GitSessions, product: str, verdict_of: Judge, which: str
) -> None:
    """Whoever sends the signal: who did is not seen."""
    function = task.fail_to_pass[0].partition("::test_")[2]

    def ends(root: Path) -> None:
        text = gold_sources(task, sessions)[product] + f"\n\n{KILLS[which]}"
        if "end" in KILLS[which]:
            text += (
                f"\n\nplain = {function}\n\n\ndef {function}(*given):\n    end()\n    return plain(*given)\n"
            )
        (root / product).write_text(text)

    with pytest.raises(RunKilled):
        verdict_of(patch_with(sessions, task, ends))


def test_a_mark_of_progress_among_the_ids_counts_as_missing_and_is_called_what_it_is(task: Task) -> None:
    def cause(*kept: str) -> str:
        labelled = task.model_copy(update={"fail_to_pass": ("f",), "pass_to_pass": kept})
        seen = {"f": [TestOutcome.PASSED], "p": [TestOutcome.PASSED]}
        found = judge(labelled, seen, 0, 0, (), (), "", 1.0)
        assert found.outcome is Outcome.UNRESOLVED
        return found.cause

    assert "did not pass: [100%] missing, which is no test's name; looper bench validate" in cause(
        "[100%]", "p"
    )
    assert cause("[100%]", "q") == "2 of 2 PASS_TO_PASS tests did not pass: q missing"


def test_c4_a_product_that_takes_too_much_memory_is_unresolved_with_that_cause(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
    product: str,
) -> None:
    greedy = (
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n"
        "        held = bytearray(1_500_000_000)\n        held[::4096] = b'x' * len(held[::4096])\n        time.sleep(30)\n"
        "time.sleep(30)\n"
    )
    patch = patch_with(sessions, task, lambda root: (root / product).write_text(greedy))
    found = verify(task, patch, VerifierContext(sessions, limits), "v")
    assert found.outcome is Outcome.UNRESOLVED and "more memory" in found.cause


def test_g17_a_missing_interpreter_is_no_verdict(task: Task, sessions: GitSessions, limits: Limits) -> None:
    broken = Environment("x", Path("/usr/bin/no-such-python"), (), {})
    without = replace(sessions, environment_of=lambda task: broken)
    with pytest.raises(VerifierBroken, match="did not start"):
        verify(task, task.gold_patch, VerifierContext(without, limits), "v")


def test_g22_a_test_patch_that_does_not_apply_is_no_verdict(
    task: Task, verifier_context: VerifierContext
) -> None:
    broken = task.model_copy(
        update={
            "test_patch": task.test_patch.replace("new file mode 100644\n", "").replace(
                "/dev/null", "a/tests/x.py"
            )
        }
    )
    with pytest.raises(VerifierBroken, match="test patch"):
        verify(broken, "", verifier_context, "v")


def test_a_patch_that_does_not_apply_is_unresolved_with_its_cause(verdict_of: Judge) -> None:
    patch = "diff --git a/no.py b/no.py\n--- a/no.py\n+++ b/no.py\n@@ -1 +1 @@\n-a\n+b\n"
    found = verdict_of(patch)
    assert found.outcome is Outcome.UNRESOLVED and "does not apply" in found.cause


def test_c4_folders_too_deep_are_called_so(verdict_of: Judge) -> None:
    path = "d/" * 2000 + "x"
    found = verdict_of(
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
    )
    assert found.outcome is Outcome.UNRESOLVED
    assert found.cause == "the patch cannot be judged: its folders lie too deeply in one another"


def test_c4_folders_as_deep_as_python_s_stack_are_judged_whoever_owns_them(
    verdict_of: Judge, task: Task
) -> None:
    path = "d/" * 1200 + "x"
    added = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
    assert verdict_of(task.gold_patch + added).outcome is Outcome.RESOLVED


def test_text_that_changes_no_file_is_no_empty_patch(verdict_of: Judge) -> None:
    found = verdict_of("I would change ops.py like so.\n+++ b/ops.py\n")
    assert found.outcome is Outcome.UNRESOLVED and "does not apply: No valid patches in input" in found.cause


def test_a_plain_unified_diff_is_judged_like_a_git_patch(task: Task, verdict_of: Judge) -> None:
    kept = [
        line for line in task.gold_patch.splitlines(keepends=True) if not line.startswith(("diff ", "index "))
    ]
    assert verdict_of("".join(kept)).outcome is Outcome.RESOLVED
    plain = "--- /dev/null\n+++ b/conftest.py\n@@ -0,0 +1 @@\n+x = 1\n"
    assert verdict_of(plain).stripped_paths == ("conftest.py",), "and is stripped like one"


def test_v22_nothing_collected_is_never_resolved(task: Task) -> None:
    none = task.model_copy(update={"fail_to_pass": (), "pass_to_pass": ()})
    found = judge(none, {}, 5, 5, (), (), "", 0.1)
    assert found.outcome is Outcome.UNRESOLVED


def test_the_exit_status_must_agree_with_the_report(task: Task) -> None:
    seen = {name: [TestOutcome.PASSED] for name in (*task.fail_to_pass, *task.pass_to_pass)}
    assert judge(task, seen, 1, 1, (), (), "", 0.1).outcome is Outcome.RESOLVED
    assert judge(task, seen, 0, 1, (), (), "", 0.1).outcome is Outcome.TAMPERED
    assert judge(task, seen, None, 0, (), (), "", 0.1).outcome is Outcome.UNRESOLVED


def test_g23_tests_that_share_an_id_pass_together_or_not_at_all(task: Task) -> None:
    seen = {name: [TestOutcome.PASSED] for name in (*task.fail_to_pass, *task.pass_to_pass)}
    seen[task.fail_to_pass[0]] = [TestOutcome.SKIPPED, TestOutcome.PASSED]
    assert judge(task, seen, 1, 1, (), (), "", 0.1).outcome is Outcome.RESOLVED
    seen[task.fail_to_pass[0]] = [TestOutcome.SKIPPED]
    assert judge(task, seen, 1, 1, (), (), "", 0.1).outcome is Outcome.UNRESOLVED
    seen[task.fail_to_pass[0]] = [TestOutcome.PASSED, TestOutcome.FAILED]
    assert judge(task, seen, 1, 1, (), (), "", 0.1).outcome is Outcome.UNRESOLVED


def test_the_gold_player_rebuilds_the_gold_patch_through_the_agents_tools(
    micro: tuple[tuple[Task, ...], dict[str, Path]],
    sessions: GitSessions,
    limits: Limits,
    arm: Arm,
) -> None:
    for task in micro[0][:3]:
        actions = gold_actions(sessions.effect(task, task.gold_patch))
        session = sessions.open(task, "gold")
        tool_context = ToolContext(session, arm.scaffold, limits)
        model = ScriptedModel([render(action) for action in actions])
        rollout(
            Assignment(
                "c",
                1,
                task,
                0,
                0.0,
                Delivery(candidates=0),
                tool_context,
                model,
                lambda: 0.0,
                lambda step: None,
                lambda: False,
            )
        )
        expected = sessions.open(task, "expected")
        expected.apply(task.gold_patch)
        assert session.tree_hash() == expected.tree_hash()


def test_gold_that_no_file_tool_can_play_goes_through_commands(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
    arm: Arm,
) -> None:
    """Deletion, rename with an edit, mode, link, bytes, a folder where a file was, a name with a blank."""
    product, second = sorted(path for path in sessions.open(task, "w").base_paths() if path.endswith(".py"))[
        :2
    ]

    def change(root: Path) -> None:
        (root / "renamed here.py").write_text((root / product).read_text() + "x = 1\n")
        (root / product).unlink()
        (root / product).mkdir()
        (root / product / "b.bin").write_bytes(bytes(range(256)))
        (root / "link").symlink_to(second)
        (root / second).write_text("first = 1\n" + (root / second).read_text())
        (root / second).chmod(0o755)
        (root / "run.sh").write_text("#!/bin/sh\n")
        (root / "run.sh").chmod(0o755)
        (root / "empty").touch()

    patch = patch_with(sessions, task, change)
    session = sessions.open(task, "gold")
    tool_context = ToolContext(session, arm.scaffold, limits)
    actions = gold_actions(sessions.effect(task, patch))
    model = ScriptedModel([render(action) for action in actions])
    longer = (
        tool_context
        if tool_context.limits.steps > len(actions)
        else ToolContext(session, arm.scaffold, limits.model_copy(update={"steps": 20}))
    )
    rollout(
        Assignment(
            "c",
            1,
            task,
            0,
            0.0,
            Delivery(candidates=0),
            longer,
            model,
            lambda: 0.0,
            lambda step: None,
            lambda: False,
        )
    )
    expected = sessions.open(task, "expected")
    expected.apply(patch)
    assert session.tree_hash() == expected.tree_hash()


def only(name: str, task: Task, sessions: GitSessions) -> str:
    """The patch of one product of the catalogue."""
    product = task.modified_files[0]
    source = (sessions.base_file(task, product) or b"").decode()
    (found,) = [each.source for each in products(source) if each.name == name]
    return patch_with(sessions, task, lambda root: (root / product).write_text(found))


@pytest.fixture
def level_1(state: Path, environments: HarnessEnvironment, sandbox: Sandbox) -> tuple[Task, GitSessions]:
    """A task whose tests compare what is shown of results."""
    tasks, mirrors = MicroSuite(state / "suites", 1, 0).load()
    place = state / "workspaces" / f"{os.getpid()}-level-1"
    return tasks[0], GitSessions(mirrors, state / "exports", place, sandbox, environments.of)


def test_v3_a_product_that_equals_everything_equals_nothing_but_itself_to_tests(
    level_1: tuple[Task, GitSessions], limits: Limits
) -> None:
    task, sessions = level_1
    verifier_context = VerifierContext(sessions, limits)
    patch = only("shows an equal text", task, sessions)
    found = verify(task, patch, verifier_context, "v")
    assert found.outcome is Outcome.UNRESOLVED
    assert set(found.fail_to_pass.values()) == {TestOutcome.FAILED}
    gold = verify(task, task.gold_patch, verifier_context, "v")
    assert gold.outcome is Outcome.RESOLVED and gold.canaries.startswith("varied: test_")


def test_v3_what_a_copy_leaves_in_the_product_does_not_help_the_test_it_is_a_copy_of(
    task: Task, verifier_context: VerifierContext
) -> None:
    """An ordinary mistake: the first answer is kept, and not given. The test alone fails, and so does it beside its copies."""
    function = task.fail_to_pass[0].partition("::test_")[2]
    path = task.modified_files[0]
    session = with_gold(task, verifier_context.sessions)
    source = (session.root / path).read_text()
    session.close()
    forgetful = (
        f"\n\n_kept = {{}}\n_{function} = {function}\n\n\ndef {function}(*given):\n    if repr(given) in _kept:\n"
        f"        return _kept[repr(given)]\n    _kept[repr(given)] = _{function}(*given)\n"
    )
    patch = patch_with(
        verifier_context.sessions, task, lambda root: (root / path).write_text(f"{source}{forgetful}")
    )
    for isolation in Isolation:
        found = verify(task, patch, replace(verifier_context, isolation=isolation), "v")
        assert found.outcome is Outcome.UNRESOLVED, (isolation, found.cause)
        assert set(found.fail_to_pass.values()) == {TestOutcome.FAILED}, isolation


def test_v3_what_is_lied_only_once_is_told_by_a_copy_that_comes_first(
    level_1: tuple[Task, GitSessions], limits: Limits
) -> None:
    task, sessions = level_1
    function = task.fail_to_pass[0].partition("::test_")[2]
    verifier_context = VerifierContext(sessions, limits)
    source = (sessions.base_file(task, task.modified_files[0]) or b"").decode()
    lying = (
        "_seen = {}\nclass _Text(str):\n    def __eq__(self, other):\n"
        "        return _seen.setdefault(str(self), str(other)) == str(other)\n    __hash__ = str.__hash__\n"
        f"class _Answer:\n    def __init__(self, given): self.given = given\n    def __repr__(self): return _Text(self.given)\n"
        f"def {function}(*given): return _Answer(repr(given))\n"
    )
    patch = patch_with(
        sessions, task, lambda root: (root / task.modified_files[0]).write_text(f"{source}\n{lying}")
    )
    found = verify(task, patch, verifier_context, "v")
    assert found.outcome in (Outcome.UNRESOLVED, Outcome.TAMPERED), found


def test_with_tests_in_a_tree_of_their_own_the_product_finds_none_of_them(
    task: Task, sessions: GitSessions, limits: Limits
) -> None:
    """Or it would answer what they expect."""
    hidden = task.fail_to_pass[0].partition("::")[0]
    function = task.fail_to_pass[0].partition("::test_")[2]
    reading = f"\n\nimport os\n{function}_there = os.path.exists({hidden!r})\n"
    reading += f"if {function}_there:\n    raise RuntimeError('the hidden tests are here')\n"
    product = task.modified_files[0]
    fixed = sessions.effect(task, task.gold_patch)[product][1]
    assert fixed is not None
    patch = patch_with(
        sessions, task, lambda root: (root / product).write_text(fixed.content.decode() + reading)
    )
    verifier_context = VerifierContext(sessions, limits, isolation=Isolation.PROCESS)
    assert verify(task, patch, verifier_context, "v").outcome is Outcome.RESOLVED


@pytest.mark.parametrize(
    "package", ["sitecustomize", "usercustomize", "_virtualenv", "_distutils_hack", "encodings"]
)
def test_nothing_of_the_tree_is_found_by_the_interpreter_as_it_starts(
    package: str,
    task: Task,
    environments: HarnessEnvironment,
    verifier_context: VerifierContext,
    sessions: GitSessions,
) -> None:
    """In repositories of the benchmark the tree stands on the module path from the start."""
    own = environments.of(task)
    on_path = dataclasses.replace(own, variables={**own.variables, "PYTHONPATH": "{root}"})
    begins = dataclasses.replace(sessions, environment_of=lambda task: on_path).open(task, "w")
    begins.write(f"{package}/__init__.py", b"import os\nos._exit(3)\n")
    ran = run_tests(
        task.model_copy(update={"environment": f"{task.repo}@1"}),
        begins,
        verifier_context.limits,
    )
    begins.close()
    assert ran.started and ran.finished is not None, ran.result.text()


@pytest.mark.parametrize(
    "name",
    [
        "forgives the first failure of a name, at import",
        "counts failures of the code that tests are run by, when called",
        "marks the tests above it, when called",
        "marks every test as expected to fail, when called",
        "replaces from_item_and_call for some, at import",
        "replaces runtest, at import",
        "replaces call_runtest_hook, at import",
        "changes the code of tests, when called",
        "another AssertionError, at import",
        "reports with the key that it finds, at import",
        "reports through the reporter, when called",
        "a child goes on with the run, at import",
        "skips asserts by tracing, when called",
    ],
)
def test_v3_what_a_product_does_to_the_process_of_its_tests_does_not_resolve(
    verdict_of: Judge, task: Task, sessions: GitSessions, name: str
) -> None:
    assert verdict_of(only(name, task, sessions)).outcome in (Outcome.UNRESOLVED, Outcome.TAMPERED)


@pytest.mark.parametrize(
    "name",
    [
        "a folder for a report, at import",
        "a pipe for a report, when called",
        "a link to zeros for a report, at import",
        "a link to a file for a report, when called",
        "a huge report, at import",
        "a folder beside the report, at import",
        "deep folders beside the report, when called",
        "a closed folder beside the report, at import",
        "another folder for the report's, at import",
        "closes everything, at import",
    ],
)
def test_c4_whatever_lies_where_the_report_was_the_cell_has_its_verdict_and_nothing_is_left(
    verdict_of: Judge, task: Task, sessions: GitSessions, state: Path, name: str
) -> None:
    found = verdict_of(only(name, task, sessions))
    assert found.outcome in (Outcome.UNRESOLVED, Outcome.TAMPERED)
    assert not [path for path in (state / "workspaces").rglob("*.v-*") if path.name.endswith("results")]


def test_c4_a_report_that_others_wrote_to_is_tampering(
    verdict_of: Judge, task: Task, sessions: GitSessions
) -> None:
    names = (
        "reports by the path",
        "an empty report",
        "repeats the report",
        "reports with the key that it finds",
    )
    for name in names:
        found = verdict_of(only(f"{name}, at import", task, sessions))
        assert (found.outcome, found.cause) == (
            Outcome.TAMPERED,
            "the report holds what its runner did not write",
        )


_SAY = (
    "import gc, os\n"
    "say = next(each for each in gc.get_objects() if getattr(each, '__name__', '') == 'say' and callable(each))\n"
)
_HEAD_AGAIN = (
    "kept = dict(zip(say.__code__.co_freevars, (cell.cell_contents for cell in say.__closure__)))\n"
    "report = next(each for each in gc.get_objects() if type(each).__name__ == 'Report' and hasattr(each, 'copies'))\n"
    "given = next(each for each in gc.get_objects() if type(each).__name__ == 'Config').args\n"
    "head = [name.encode() for name in given if name in report.copies]\n"
    "os.ftruncate(kept['descriptor'], 0)\n"
    "os.write(kept['descriptor'], b'\\n'.join([kept['key'], *head]))\n"
    "os._exit(0)\n"
)


@pytest.mark.parametrize(
    "deed",
    [
        *(
            f"say({words})"
            for words in ("'test'", "'test', 'passed'", "'test', 'x', 'y', 'z'", "'tampered'", "'error'")
        ),
        *(
            f"say({words})"
            for words in ("'exit'", "'exit', 'x'", "'refused', 'x'", "'begun', 1, 2", "'what'")
        ),
        _HEAD_AGAIN,
    ],
    ids=lambda deed: deed[:24].replace("\n", " "),
)
def test_c4_a_product_that_says_what_no_runner_says_chooses_no_other_end(
    verdict_of: Judge, task: Task, sessions: GitSessions, product: str, deed: str
) -> None:
    """By the runner's own hand, which it finds in memory; with a line that is signed, or with the key put back as if none had begun."""
    change = f"\n{_SAY}{deed}\n"
    patch = patch_with(sessions, task, lambda root: (root / product).open("a").write(change))
    for _ in range(3 if deed == _HEAD_AGAIN else 1):
        assert verdict_of(patch).outcome in (Outcome.UNRESOLVED, Outcome.TAMPERED)


def test_c4_tests_that_a_product_rewrites_while_they_run_are_tampering(
    verdict_of: Judge, task: Task, sessions: GitSessions
) -> None:
    found = verdict_of(only("rewrites the tests, at import", task, sessions))
    assert found.outcome is Outcome.TAMPERED


def test_v6_a_pytest_under_test_that_cannot_be_imported_is_unresolved_with_its_cause(
    verdict_of: Judge,
    task: Task,
    verifier_context: VerifierContext,
    sessions: GitSessions,
) -> None:
    """Whatever the product is, of what belongs to the runner nothing of the tree is imported before the report has begun."""
    own = task.model_copy(update={"repo": OWN_RUNNER, "environment": "pytest-dev/pytest@1"})
    broken = sessions.open(task, "w")
    broken.write("pytest.py", b"raise KeyError('a bad patch')\n")
    ran = run_tests(own, broken, verifier_context.limits)
    broken.close()
    assert ran.started and ran.finished is None
    assert ran.failure == "importing pytest failed: KeyError: 'a bad patch'"


def test_v10_a_task_without_test_targets_runs_the_whole_suite(
    task: Task, verifier_context: VerifierContext, sessions: GitSessions
) -> None:
    whole = task.model_copy(update={"environment": f"{task.repo}@1", "test_targets": ()})
    assert invocation(whole, (), ("tests/test_more.py",)).arguments == ("--as-configured",)
    django = whole.model_copy(update={"runner": Runner.DJANGO})
    assert invocation(django, (), ("more.tests",)).arguments == ()
    found = verify(whole, task.gold_patch, verifier_context, "v")
    assert found.outcome is Outcome.RESOLVED


def of_a_repository(task: Task, tests: dict[str, str], ids: tuple[str, ...]) -> Task:
    """The task as one of a repository that configures its tests itself, with these test files."""
    patch = "".join(
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(text.splitlines())} @@\n"
        + "".join(f"+{line}\n" for line in text.splitlines())
        for path, text in tests.items()
    )
    return task.model_copy(
        update={
            "environment": f"{task.repo}@1",
            "test_patch": patch,
            "test_targets": tuple(path for path in tests if path.endswith(".py")),
            "fail_to_pass": ids,
            "pass_to_pass": (),
        }
    )


def test_v10_a_repository_is_tested_as_it_configures_its_runner(
    task: Task, verifier_context: VerifierContext
) -> None:
    function = task.fail_to_pass[0].partition("::test_")[2]
    text = f"import {task.modified_files[0].removesuffix('.py')} as product\n\n\ndef check_it():\n    assert product.{function}\n"
    tests = {"pytest.ini": "[pytest]\npython_functions = check_*\n", "tests/test_units.py": text}
    own = of_a_repository(task, tests, ("tests/test_units.py::check_it",))
    assert verify(own, task.gold_patch, verifier_context, "v").outcome is Outcome.RESOLVED


@pytest.mark.parametrize("kind", ["str", "int", "object"])
def test_v3_in_a_repository_of_its_own_what_equals_everything_is_tampering(
    state: Path,
    sandbox: Sandbox,
    environments: HarnessEnvironment,
    verifier_context: VerifierContext,
    kind: str,
) -> None:
    """However many other values the copy that must pass compares with: that it fails then tells nothing, and the other one does."""
    tasks, mirrors = MicroSuite(state / "suites", 0, 0).load()
    task = tasks[0]
    place = state / "workspaces" / f"{os.getpid()}-own"
    own_mirrors = {f"own:{task.repo}": mirrors[f"{task.suite}:{task.repo}"]}
    verifier_context = replace(
        verifier_context,
        sessions=GitSessions(own_mirrors, state / "own-exports", place, sandbox, environments.of),
    )
    function = task.fail_to_pass[0].partition("::test_")[2]
    product = task.modified_files[0]
    text = f"from {product.removesuffix('.py')} import {function}\n\n\ndef test_it():\n    assert {function}(1) == 'seven'\n"
    own = of_a_repository(task, {"tests/test_units.py": text}, ("tests/test_units.py::test_it",))
    own = own.model_copy(update={"suite": "own"})
    source = (
        f"class Equal({kind}):\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n\n\n"
        f"def {function}(*given):\n    return Equal()\n"
    )
    patch = patch_with(verifier_context.sessions, own, lambda root: (root / product).write_text(source))
    assert verify(own, patch, verifier_context, "v").outcome is Outcome.TAMPERED
    honest = patch_with(
        verifier_context.sessions,
        own,
        lambda root: (root / product).write_text(f"def {function}(*given):\n    return 'seven'\n"),
    )
    assert verify(own, honest, verifier_context, "v").outcome is Outcome.RESOLVED


@pytest.mark.parametrize(
    "swapped",
    [
        "import _pytest.python as at\nat.pytest_pyfunc_call.__code__ = (lambda pyfuncitem: True).__code__\n",
        "import unittest.case as at\nat.TestCase.assertEqual.__code__ = (lambda self, first, second, msg=None: None).__code__\n",
        "import _pytest.runner as at\nat.check_interactive_exception.__defaults__ = (1,)\n",
    ],
    ids=("code of a hook", "code of a method", "defaults"),
)
def test_v3_what_a_function_of_the_runner_s_does_is_watched_and_not_only_which_it_is(
    task: Task, verifier_context: VerifierContext, swapped: str
) -> None:
    product = task.modified_files[0]
    patch = patch_with(
        verifier_context.sessions,
        task,
        lambda root: (root / product).write_text(f"{swapped}{(root / product).read_text()}"),
    )
    assert verify(task, patch, verifier_context, "v").outcome is Outcome.TAMPERED


def test_tests_in_a_process_of_their_own_judge_by_plain_data_and_no_lie_crosses(
    level_1: tuple[Task, GitSessions], limits: Limits
) -> None:
    task, sessions = level_1
    apart = VerifierContext(sessions, limits, isolation=Isolation.PROCESS)
    names = ("shows an equal text", "leaves with 0, when called", "another AssertionError, at import")
    for name in names:
        found = verify(task, only(name, task, sessions), apart, "v")
        assert found.outcome is Outcome.UNRESOLVED and found.tampering == ()
    assert verify(task, task.gold_patch, apart, "v").outcome is Outcome.RESOLVED
    assert verify(task, "", apart, "v").outcome is Outcome.UNRESOLVED


def test_a_product_that_knows_its_caller_finds_none_in_another_process(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
    product: str,
) -> None:
    patch = patch_with(sessions, task, lambda root: deceive(root, product, task, "co_name.startswith('{}')"))
    verifier_context = VerifierContext(sessions, limits, isolation=Isolation.PROCESS)
    found = verify(task, patch, verifier_context, "v")
    assert found.outcome is Outcome.UNRESOLVED and "FAIL_TO_PASS" in found.cause


def test_what_right_code_puts_in_the_place_of_json_changes_nothing_of_what_crosses(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
    product: str,
) -> None:
    own = """

import json, json.decoder, json.encoder

json.dumps = lambda *a, **k: "x"
json.loads = lambda *a, **k: None
json._default_encoder = json._default_decoder = None
json.encoder.c_make_encoder = json.encoder.encode_basestring_ascii = None
for name in ("encode", "iterencode", "default"):
    setattr(json.JSONEncoder, name, lambda *a, **k: ["x"])
for name in ("decode", "raw_decode"):
    setattr(json.JSONDecoder, name, lambda *a, **k: None)
"""
    patch = patch_with(
        sessions,
        task,
        lambda root: (root / product).write_text(gold_sources(task, sessions)[product] + own),
    )
    verifier_context = VerifierContext(sessions, limits, isolation=Isolation.PROCESS)
    found = verify(task, patch, verifier_context, "v")
    assert (found.outcome, found.cause) == (Outcome.RESOLVED, "")


def with_test(task: Task, body: str) -> Task:
    """The task with this text for the file of its test; `{0}` in it is the name of the function under test."""
    name, _, test = task.fail_to_pass[0].partition("::")
    function = test.removeprefix("test_")
    module = task.modified_files[0].removesuffix(".py")
    text = f"import pytest\nfrom {module} import {function}\n\n\n{body.format(function)}".splitlines()
    lines = "".join(f"+{line}\n" for line in text)
    patch = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(text)} @@\n"
    return task.model_copy(update={"test_patch": patch + lines})


def with_gold(task: Task, sessions: Sessions) -> JudgedSession:
    """The tree as it is when gold's tests begin."""
    session = sessions.open(task, "w")
    session.apply(task.gold_patch)
    for path, (_, entry) in sessions.effect(task, task.test_patch).items():
        session.place(path, entry)
    return session


def test_tests_that_hand_over_more_than_data_are_refused_by_name(
    task: Task, sessions: GitSessions, limits: Limits
) -> None:
    handing = with_test(task, "def test_{0}():\n    {0}(open('/dev/null'))\n")
    verifier_context = VerifierContext(sessions, limits, isolation=Isolation.PROCESS)
    with pytest.raises(VerifierBroken, match=f"{task.instance_id} cannot run in a process of their own"):
        verify(handing, task.gold_patch, verifier_context, "v")


@pytest.mark.parametrize(
    "made",
    [
        "import collections\nP = collections.namedtuple('P', 'x')\nmade = P(1)",
        "import enum\nclass E(enum.Enum):\n    A = 1\nmade = E.A",
        "class S:\n    __slots__ = ('x',)\nmade = S()",
        "class Does:\n    def __init__(self):\n        self.x = 1\n    def more(self):\n        return 2\nmade = Does()",
    ],
    ids=["named tuple", "enumeration", "slots", "a method"],
)
def test_what_tests_made_that_is_more_than_its_attributes_is_refused_too(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
    made: str,
) -> None:
    handing = with_test(task, made.replace("{", "{{") + "\n\ndef test_{0}():\n    {0}(made)\n")
    verifier_context = VerifierContext(sessions, limits, isolation=Isolation.PROCESS)
    with pytest.raises(VerifierBroken, match="cannot cross"):
        verify(handing, task.gold_patch, verifier_context, "v")


OF_ITS_PROCESS = {
    "says that it was forked": ("own = os.getpid()", "assert os.getpid() == own"),
    "makes a folder at first use": ("made = []", "made or made.append(os.mkdir('made'))"),
    "reads at first use what it opened": (
        "data, read = open(__file__), []",
        "read or read.append(data.read())\n    assert read[0]",
    ),
}


@pytest.mark.parametrize("case", OF_ITS_PROCESS)
def test_right_code_that_minds_a_fork_or_what_an_earlier_run_left_is_resolved(
    task: Task, sessions: GitSessions, product: str, verdict_of: Judge, case: str
) -> None:
    """Where a copy and its original end otherwise, each is run again in a fresh process and a fresh tree."""
    function = task.fail_to_pass[0].partition("::test_")[2]
    at_import, in_each_call = OF_ITS_PROCESS[case]

    def minding(root: Path) -> None:
        (root / product).write_text(
            gold_sources(task, sessions)[product]
            + f"\n\nimport os\n{at_import}\nplain = {function}\n\n\n"
            + f"def {function}(*given):\n    {in_each_call}\n    return plain(*given)\n"
        )

    found = verdict_of(patch_with(sessions, task, minding))
    assert (found.outcome, found.cause) == (Outcome.RESOLVED, "")


def test_copies_of_two_runs_may_have_the_same_names(
    task: Task, verifier_context: VerifierContext, sessions: GitSessions
) -> None:
    """Names are drawn from a dozen, so that a right patch met the same ones in both runs now and then, and was called tampered."""
    ran = run_tests(task, sessions.open(task, "v"), verifier_context.limits)
    original, copy = (TestPlace(path, path, "test_a") for path in ("test_a.py", "test_a_more.py"))

    def ended(**outcomes: TestOutcome) -> list[ReportedTest]:
        return [ReportedTest(outcome, copy.where, name, ()) for name, outcome in outcomes.items()]

    canary = Canary(copy, b"", same="test_a_plain", changed="test_a_rest", original=original, before=True)
    alone = replace(
        ran,
        tampering=(),
        early=(canary,),
        report=Report(ended(test_a_plain=TestOutcome.PASSED, test_a_rest=TestOutcome.FAILED)),
    )
    own = ended(test_a_plain=TestOutcome.FAILED, test_a_rest=TestOutcome.PASSED)
    passed = ReportedTest(TestOutcome.PASSED, original.where, "test_a", ())
    tests = replace(ran, tampering=(), report=Report([passed, *own]))
    assert combined(alone, tests).tampering == ()
    forged = replace(alone, report=Report(own))
    assert combined(forged, tests).tampering == ("a canary that must pass was failed",)


def test_copies_that_reach_a_limit_when_they_are_alone_accuse_nobody(
    task: Task, sessions: GitSessions, limits: Limits, product: str
) -> None:
    function = task.fail_to_pass[0].partition("::test_")[2]
    test_module = Path(task.test_targets[0]).stem

    def slow_alone(root: Path) -> None:
        (root / product).write_text(
            gold_sources(task, sessions)[product]
            + f"\n\nimport os, sys, time\nown, plain = os.getpid(), {function}\n\n\n"
            + f"def {function}(*given):\n    assert os.getpid() == own\n"
            + f"    time.sleep(60 * ('{test_module}' not in sys.modules))\n    return plain(*given)\n"
        )

    short = VerifierContext(sessions, limits.model_copy(update={"verify_s": 3.0}))
    found = verify(task, patch_with(sessions, task, slow_alone), short, "v")
    assert (found.outcome, found.cause) == (Outcome.UNRESOLVED, "the tests took more than 3 s")


CHILDREN = {
    "keeps none": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "waits for all": (
        "def reap(*_):\n    try:\n        while os.waitpid(-1, os.WNOHANG)[0]: pass\n    except ChildProcessError: pass\n"
        "signal.signal(signal.SIGCHLD, reap)"
    ),
    "has no more processes": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))",
}


@pytest.mark.parametrize("case", CHILDREN)
def test_right_code_that_minds_its_children_is_resolved(
    task: Task, sessions: GitSessions, product: str, verdict_of: Judge, case: str
) -> None:
    def minding(root: Path) -> None:
        own = f"\n\nimport os, signal\n{CHILDREN[case]}\n"
        (root / product).write_text(gold_sources(task, sessions)[product] + own)

    found = verdict_of(patch_with(sessions, task, minding))
    assert (found.outcome, found.cause) == (Outcome.RESOLVED, "")


def test_a_product_apart_holds_no_verdict_up_when_its_tests_are_over(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
    product: str,
) -> None:
    def lingers(root: Path) -> None:
        own = "\n\nimport looper_crossing, time\nplain = looper_crossing.Lines.next\n\ndef late(self):\n"
        own += "    found = plain(self)\n    while found is None: time.sleep(1)\n    return found\n\nlooper_crossing.Lines.next = late\n"
        (root / product).write_text(gold_sources(task, sessions)[product] + own)

    patch = patch_with(sessions, task, lingers)
    verifier_context = VerifierContext(
        sessions, limits.model_copy(update={"verify_s": 60.0}), isolation=Isolation.PROCESS
    )
    begun = time.monotonic()
    assert verify(task, patch, verifier_context, "v").outcome is Outcome.RESOLVED
    assert time.monotonic() - begun < 30, "half of what the limit allows"


OTHER_PEOPLES = """
import unittest

class A(unittest.TestCase):
    def test_a(self):
        self.assertEqual(1, 1)

def test_b(tmpdir, record_property, doctest_namespace):
    record_property("x", 1)
    assert tmpdir.isdir()

def test_c():
    try:
        assert 1 == 2
    except AssertionError as error:
        assert "1 == 2" in str(error)
"""


def test_tests_that_were_not_written_here_have_all_that_pytest_offers(
    task: Task,
    sessions: GitSessions,
    verifier_context: VerifierContext,
    state: Path,
) -> None:
    """A gate of evolution runs a repository's own tests in the harness's environment."""

    def add(root: Path) -> None:
        (root / "tests" / "test_own.py").write_text(OTHER_PEOPLES)

    own = task.model_copy(
        update={
            "suite": "evolve", "test_patch": patch_with(sessions, task, add), "test_targets": ("tests/test_own.py",),
            "fail_to_pass": tuple(f"tests/test_own.py::{name}" for name in ("A::test_a", "test_b", "test_c")),
            "pass_to_pass": (),
        }
    )  # fmt: skip
    mirrors = {f"evolve:{task.repo}": sessions.mirrors[f"{task.suite}:{task.repo}"]}
    place = state / "workspaces" / f"{os.getpid()}-own"
    trees = replace(sessions, mirrors=mirrors, place=place)
    found = verify(own, "", replace(verifier_context, sessions=trees), "v")
    assert found.outcome is Outcome.RESOLVED, found.cause


def test_what_a_product_makes_too_large_or_too_deep_to_be_handed_back_fails_the_test(
    task: Task, sessions: GitSessions, limits: Limits
) -> None:
    returned = with_test(task, "def test_{0}():\n    value = {0}(1)\n    {0}([value, value])\n")
    raised = with_test(
        task,
        "def test_{0}():\n    with pytest.raises(Exception) as caught:\n        {0}(1)\n    {0}(caught.value)\n",
    )
    verifier_context = VerifierContext(sessions, limits, isolation=Isolation.PROCESS)
    product = task.modified_files[0]
    for case, does in (
        (returned, "return 'x' * (20 << 20)"),
        (raised, "raise type('Own', (Exception,), {})"),
    ):
        source = (sessions.base_file(task, product) or b"").decode()
        hostile = re.sub(r"^( +)return .*$", rf"\1{does}", source, flags=re.MULTILINE)
        patch = patch_with(sessions, task, lambda root, text=hostile: (root / product).write_text(text))  # type: ignore[misc]
        assert verify(case, patch, verifier_context, "v").outcome is Outcome.UNRESOLVED


def test_v3_a_test_that_passes_although_it_may_fail_is_no_tampering(
    task: Task, verifier_context: VerifierContext
) -> None:
    expected = with_test(task, "@pytest.mark.xfail\ndef test_{0}():\n    assert callable({0})\n")
    found = verify(expected, task.gold_patch, verifier_context, "v")
    assert (found.outcome, found.cause) == (Outcome.RESOLVED, "")


def test_v3_a_copy_that_cannot_be_imported_keeps_no_real_test_from_running(
    task: Task, verifier_context: VerifierContext
) -> None:
    """As a repository configures pytest, one module that cannot be imported ends the run."""
    name = task.fail_to_pass[0].partition("::")[0]
    named = with_test(
        task, f"assert __file__.endswith('{name}')\n\n\ndef test_{{0}}():\n    assert callable({{0}})\n"
    )
    session = with_gold(named, verifier_context.sessions)
    files = {each.partition("::")[0] for each in (*task.fail_to_pass, *task.pass_to_pass)}
    own = {"suite": "swe-bench-cl", "environment": f"{task.repo}@1", "test_targets": tuple(sorted(files))}
    ran = run_tests(
        named.model_copy(update=own),
        session,
        verifier_context.limits,
    )
    session.close()
    assert {outcome for found in ran.seen.values() for outcome in found} == {TestOutcome.PASSED}
    assert (ran.finished, ran.result.exit_code, ran.tampering) == (1, 1, ())
    assert ran.canaries == "plain: no varied copy ran beside an original that passed"


def test_v4_folders_and_links_at_every_name_of_a_canary_are_no_infrastructure_error(
    task: Task, verifier_context: VerifierContext, sessions: GitSessions
) -> None:
    session = with_gold(task, sessions)
    for at, word in enumerate(WORDS):
        for name in ("test", *(Path(test.partition("::")[0]).stem for test in task.fail_to_pass)):
            taken = session.root / f"tests/{name}_{word}.py"
            taken.symlink_to("/etc/passwd") if at % 2 else taken.mkdir()
    ran = run_tests(task, session, verifier_context.limits)
    session.close()
    assert ran.finished == 1 and ran.tampering == () and ran.canaries.startswith("varied: ")


def test_what_decides_outcomes_is_watched_in_an_old_pytest_too(tmp_path: Path) -> None:
    """pytest before 3.6, with which astropy 1.3 is tested, has its reports in `_pytest.runner` and no `_pytest.reports`."""
    old = (
        "import sys, _pytest.skipping, _pytest.unittest; sys.modules['_pytest.reports'] = None; import run_pytest; "
        "assert _pytest.runner in run_pytest.watched()"
    )
    done = subprocess.run(
        [sys.executable, "-c", old],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(runners.__file__).parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_plugin_that_changes_unittest_mock_while_tests_run_is_no_tampering(tmp_path: Path) -> None:
    """pytest-mock, which astropy's environments have, puts its own functions there to shorten what failures say."""
    (tmp_path / "test_a.py").write_text(
        "from unittest import mock\n\n\ndef test_a():\n    called = mock.Mock()\n    called(1)\n    called.assert_called_with(1)\n"
    )
    report = tmp_path / "report"
    report.write_text("key")
    run = Path(runners.__file__).with_name("run_pytest.py")
    argv = [sys.executable, "-B", str(run), str(report), "--as-configured", "test_a.py"]
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_DISABLE_PLUGIN_AUTOLOAD"}
    subprocess.run(argv, cwd=tmp_path, env=own, capture_output=True, timeout=60)
    said = report.read_text()
    assert '"test","passed"' in said and "tampered" not in said
