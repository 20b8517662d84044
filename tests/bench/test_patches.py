"""What a patch does to a tree, however it is written: rows V1, V4, V7."""

import base64
import os
import re
import shlex
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from looper.bench import patches
from looper.bench.verify import TestReport, VerifierContext, verify
from looper.edges.workspaces import gnu_patch
from looper.edges.workspaces.exports import GitSession, GitSessions
from looper.errors import BadPatch, VerifierBroken
from looper.protocols import Command, CommandResult
from looper.records.plan import Limits
from looper.records.task import Task
from looper.records.verdict import Outcome

Judge = Callable[[str], TestReport]
CONFTEST = "--- /dev/null\n+++ {}conftest.py\n@@ -0,0 +1 @@\n+x = 1\n"


@pytest.fixture
def verdict_of(task: Task, sessions: GitSessions, limits: Limits) -> Judge:
    verifier_context = VerifierContext(sessions, limits)
    return lambda patch: verify(task, patch, verifier_context, "v")


@pytest.fixture
def session(task: Task, sessions: GitSessions) -> GitSession:
    return sessions.open(task, "w")


def new_file(path: str, text: str = "x = 1", prefixes: tuple[str, str] = ("a/", "b/")) -> str:
    old, new = prefixes
    return (
        f"diff --git {old}{path} {new}{path}\nnew file mode 100644\nindex 0000000..1111111\n--- /dev/null\n"
        f"+++ {new}{path}\n@@ -0,0 +1 @@\n+{text}\n"
    )


def link(path: str, target: str) -> str:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 120000\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
    )


def moved(how: str, old: str, new: str) -> str:
    return f"diff --git a/{old} b/{new}\nsimilarity index 100%\n{how} from {old}\n{how} to {new}\n"


@pytest.mark.parametrize("prefixes", [("a/", "b/"), ("i/", "w/"), ("old/", "new/"), ("c/", "o/")])
def test_v1_a_new_conftest_is_put_back_whatever_the_prefix(
    verdict_of: Judge, prefixes: tuple[str, str]
) -> None:
    found = verdict_of(new_file("conftest.py", prefixes=prefixes))
    assert (found.outcome, found.stripped_paths) == (Outcome.UNRESOLVED, ("conftest.py",))


def test_v1_a_plain_section_behind_a_git_section_is_seen(task: Task, verdict_of: Judge) -> None:
    found = verdict_of(task.gold_patch + CONFTEST.format("b/"))
    assert (found.outcome, found.stripped_paths) == (Outcome.RESOLVED, ("conftest.py",))
    assert found.file_recall == 1.0


@pytest.mark.parametrize("how", ["rename", "copy"])
def test_v1_renames_and_copies_are_what_they_leave_in_the_tree(
    task: Task, session: GitSession, verdict_of: Judge, how: str
) -> None:
    other = next(
        path for path in session.base_paths() if path.endswith(".py") and path not in task.modified_files
    )
    found = verdict_of(task.gold_patch + moved(how, other, "conftest.py"))
    assert found.stripped_paths == ("conftest.py",) and found.file_recall == 1.0


def test_v1_what_is_put_back_is_as_it_was_and_leaves_no_folder(session: GitSession, task: Task) -> None:
    product = task.modified_files[0]
    patch = f"diff --git a/{product} b/{product}\nold mode 100644\nnew mode 100755\n"
    session.apply(patch + new_file("deep/er/conftest.py"))
    assert {change.path for change in session.changes()} == {product, "deep/er/conftest.py"}
    session.put_back(change.path for change in session.changes())
    assert session.changes() == () and not (session.root / "deep").exists()


@pytest.mark.parametrize(
    "path", ["pkg/__pycache__/x.cpython-311.pyc", "x.pyc", ".pytest_cache/v", ".hypothesis/x"]
)
def test_v1_byte_code_and_caches_are_changes_too(session: GitSession, path: str) -> None:
    """An agent's tree is looked at without them; a patch that brings them wants them to be read."""
    session.apply(new_file(path))
    assert [change.path for change in session.changes()] == [path]
    assert session.tree_hash() == session.clean_state


@pytest.mark.parametrize("name", ["a file named tests", "the hidden test", "a folder of its name", "a link"])
def test_v4_what_stands_where_tests_go_is_put_back_and_is_no_infrastructure_error(
    task: Task, verdict_of: Judge, session: GitSession, name: str
) -> None:
    hidden = task.test_targets[0]
    inside = [path for path in session.base_paths() if path.startswith("tests/")]
    for path in inside:
        (session.root / path).unlink()
    (session.root / "tests").rmdir()
    emptied = session.patch()[0] if inside else ""
    made = {
        "a file named tests": emptied + new_file("tests"),
        "the hidden test": new_file(hidden, "def test_it(): pass", ("i/", "w/")),
        "a folder of its name": new_file(f"{hidden}/x.py"),
        "a link": emptied + link("tests", "/etc"),
    }
    found = verdict_of(made[name])
    assert found.outcome is Outcome.UNRESOLVED and "FAIL_TO_PASS" in found.cause
    assert found.stripped_paths
    fixed = verdict_of(task.gold_patch + made[name])
    assert fixed.outcome is Outcome.RESOLVED


def gold_with(task: Task, change: Callable[[str], str]) -> str:
    changed = change(task.gold_patch)
    assert changed != task.gold_patch
    return changed


def _other_counts(patch: str) -> str:
    head, _, rest = patch.partition("@@ -1,")
    return f"{head}@@ -1,9{rest[1:].replace('+1,', '+1,9', 1)}"


LADDER: dict[str, tuple[Callable[[str], str], str]] = {
    "as git writes it": (lambda patch: patch + "\n", "git apply"),
    "without git's headers": (
        lambda patch: "".join(
            line for line in patch.splitlines(keepends=True) if not line.startswith(("diff ", "index "))
        ),
        "git apply",
    ),
    "line ends of Windows": (lambda patch: patch.replace("\n", "\r\n"), "patch --fuzz=5"),
    "blanks behind context": (
        lambda patch: "".join(
            line[:-1] + "  \n" if line.startswith(" ") else line for line in patch.splitlines(keepends=True)
        ),
        "patch --fuzz=5",
    ),
    "twice": (lambda patch: patch + patch, "patch --fuzz=5"),
    "no final newline": (
        lambda patch: patch.removesuffix("\n"),
        "git apply (final newline added, kinder than SWE-bench)",
    ),
    "byte order mark and no newline": (
        lambda patch: "\ufeff" + patch.strip(),
        "git apply (byte order mark dropped, final newline added, kinder than SWE-bench)",
    ),
}


@pytest.mark.parametrize("name", LADDER)
def test_v7_the_attempt_that_applies_a_patch_stands_in_the_verdict(
    task: Task, session: GitSession, sessions: GitSessions, name: str
) -> None:
    change, attempt = LADDER[name]
    assert patches.apply(gold_with(task, change), session) == attempt
    expected = sessions.open(task, "expected")
    expected.apply(task.gold_patch)
    assert session.changes() == expected.changes(), "no rejected hunk and no earlier content lies beside"
    assert session.tree_hash() == expected.tree_hash()


def test_v7_context_that_was_stripped_away_is_counted_anew(task: Task, session: GitSession) -> None:
    head, _, body = task.gold_patch.partition("@@\n")
    changed = [line for line in body.splitlines(keepends=True) if line.startswith(("-", "+"))]
    short = head + "@@\n" + "".join(changed)
    assert patches.apply(short + new_file("z.py"), session) == (
        "git apply --recount --unidiff-zero (kinder than SWE-bench)"
    )
    assert {change.path for change in session.changes()} == {*task.modified_files, "z.py"}


def test_v7_a_patch_that_nothing_takes_leaves_the_base_tree(task: Task, session: GitSession) -> None:
    wrong = task.gold_patch.replace("-    return", "-    give back") + new_file("z.py")
    with pytest.raises(BadPatch, match="patch does not apply"):
        patches.apply(wrong, session)
    assert session.changes() == ()


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ("a half \ud83d character", "lone surrogate"),
        ("\0" * 50, "No valid patches"),
        ("\ufeff", "No valid patches"),
        ("x" * (patches.LARGEST_BYTES + 1), f"{patches.LARGEST_BYTES} are read"),
        (
            new_file("/".join("d" * 200 for _ in range(19)) + "/conftest.py"),
            "too long|File name|unable|too deeply",
        ),
    ],
    ids=["surrogate", "NUL", "mark", "large", "long path"],
)
def test_c2_a_patch_that_cannot_be_one_is_unresolved_with_its_cause(
    verdict_of: Judge, patch: str, said: str
) -> None:
    found = verdict_of(patch)
    assert found.outcome is Outcome.UNRESOLVED
    assert re.search(said, found.cause) or found.stripped_paths


def test_c2_a_packed_patch_that_unfolds_to_any_size_is_refused(session: GitSession) -> None:
    packed = zlib.compress(b"x")
    line = chr(ord("A") + len(packed) - 1) + base64.b85encode(packed, pad=True).decode()
    patch = (
        "diff --git a/large b/large\nnew file mode 100644\nindex "
        f"{'0' * 40}..{'1' * 40}\nGIT binary patch\nliteral {3 << 30}\n{line}\n\nliteral 0\nHcmV?d00001\n\n"
    )
    with pytest.raises(BadPatch, match="memory|binary" if sys.platform == "darwin" else "memory"):
        patches.apply(patch, session)


OUTSIDE = "escaped_from_the_tree"
ESCAPES = {
    "above": lambda root: new_file(f"../{OUTSIDE}"),
    "absolute": lambda root: f"--- /dev/null\n+++ {root.parent}/{OUTSIDE}\n@@ -0,0 +1 @@\n+x\n",
    "records": lambda root: new_file(".git/hooks/post-checkout"),
    "records, plain": lambda root: "--- /dev/null\n+++ b/.git/hooks/post-checkout\n@@ -0,0 +1 @@\n+x\n",
    "through a new link": lambda root: link("way", "..") + new_file(f"way/{OUTSIDE}"),
    "through a new link, plain": lambda root: (
        link("way", str(root.parent)) + f"--- /dev/null\n+++ b/way/{OUTSIDE}\n@@ -0,0 +1 @@\n+x\n"
    ),
    "through a link to the records": lambda root: (
        link("way", ".git") + "--- /dev/null\n+++ b/way/hooks/post-checkout\n@@ -0,0 +1 @@\n+x\n"
    ),
    "an editor's script": lambda root: (
        f"--- a/ops.py\n+++ b/ops.py\n0a\nx\n.\n!touch {root.parent}/{OUTSIDE}\n1d\n"
    ),
    "renamed out": lambda root: moved("rename", "ops.py", f"../{OUTSIDE}"),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_g08_no_attempt_writes_outside_of_the_tree_or_into_its_records(
    session: GitSession, name: str
) -> None:
    """Also what only GNU patch takes: fuzz is asked of it by a change of context elsewhere."""
    records = sorted(os.listdir(session.root / ".git"))
    for patch in (
        ESCAPES[name](session.root),
        ESCAPES[name](session.root).replace("new file mode 100644\n", ""),
    ):
        try:
            patches.apply(patch, session)
        except BadPatch:
            pass
        assert not (session.root.parent / OUTSIDE).exists()
        assert sorted(os.listdir(session.root / ".git")) == records
        assert not (session.root / ".git/hooks").exists()
        session.put_back(change.path for change in session.changes())
        assert session.tree_hash() == session.clean_state


class _WithoutPatch:
    """A sandbox in which there is no GNU patch."""

    name, owner, loopback = "bare", None, True

    def run(self, command: Command) -> CommandResult:
        mark = shlex.split(command.argv[-1].partition("\n")[0])[-1]
        return CommandResult(0, f"{mark} 127".encode(), b"", 0, "", 0.1)


class _WithoutProcesses(_WithoutPatch):
    """One whose shell may begin nothing."""

    def run(self, command: Command) -> CommandResult:
        return CommandResult(2, b"sh: 0: Cannot fork", b"", 0, "", 0.1)


def test_v7_a_missing_gnu_patch_is_said_and_is_no_verdict(task: Task, sessions: GitSessions) -> None:
    with pytest.raises(VerifierBroken, match="GNU patch is not installed.*apt-get install patch"):
        patches.apply(
            task.gold_patch.replace("\n", "\r\n"), replace(sessions, sandbox=_WithoutPatch()).open(task, "w")
        )
    with pytest.raises(VerifierBroken, match="Cannot fork"):
        patches.apply(
            task.gold_patch.replace("\n", "\r\n"),
            replace(sessions, sandbox=_WithoutProcesses()).open(task, "w"),
        )


class _Limited(_WithoutPatch):
    """One in which every command meets a limit."""

    def __init__(self, limit: Literal["time", "disk", "memory"]) -> None:
        self.limit = limit

    def run(self, command: Command) -> CommandResult:
        return CommandResult(None, b"", b"", 0, self.limit, 0.1)


@pytest.mark.parametrize(("limit", "said"), [("time", "60 s"), ("disk", "disk space"), ("memory", "memory")])
def test_v7_a_patch_over_which_gnu_patch_meets_a_limit_is_a_bad_one(
    task: Task, sessions: GitSessions, limit: Literal["time", "disk", "memory"], said: str
) -> None:
    with pytest.raises(BadPatch, match=f"patch was ended over it: more.*{said}"):
        patches.apply(
            task.gold_patch.replace("\n", "\r\n"), replace(sessions, sandbox=_Limited(limit)).open(task, "w")
        )


def test_v7_gnu_patch_is_looked_for_where_homebrew_puts_it(task: Task, sessions: GitSessions) -> None:
    class Seen(_WithoutPatch):
        path = ""

        def run(self, command: Command) -> CommandResult:
            self.path = command.env["PATH"]
            return super().run(command)

    seen = Seen()
    with pytest.raises(VerifierBroken, match="not installed"):
        patches.apply(task.gold_patch.replace("\n", "\r\n"), replace(sessions, sandbox=seen).open(task, "w"))
    assert {"/usr/bin", "/bin", "/opt/homebrew/bin"} <= set(seen.path.split(":"))


def test_generated_patches_do_what_git_and_the_official_attempts_do(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A slice of what scripts/fuzz_patches.py does with twenty thousand."""
    import runpy

    fuzz = runpy.run_path(str(Path(__file__).parents[2] / "scripts/fuzz_patches.py"))
    folder = tmp_path_factory.mktemp("fuzz")
    folder.chmod(0o755)
    found = fuzz["work"]((7, 70, str(folder)))
    assert [one.fault for one in found if one.fault] == []
    assert len({one.applied for one in found}) >= 4


def test_c2_a_program_that_a_signal_ends_over_a_patch_does_not_take_it(
    task: Task, session: GitSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell says so before it says anything else."""
    ended = "sh -c 'kill -SEGV $$' 2>&1; status=$?; echo Segmentation fault; echo \"$2 $status\""
    monkeypatch.setattr(gnu_patch, "_SCRIPT", f"\n{ended}")
    wrong = task.gold_patch.replace("-    return", "-    give back")
    with pytest.raises(BadPatch):
        patches.apply(wrong, session)
