"""Trees that are used again: whatever was done to one, the next that is given it finds the base tree and nothing else."""

import contextlib
import fcntl
import mmap
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from looper.edges.workspaces import reuse
from looper.edges.workspaces.exports import GitWorkspaces
from looper.edges.workspaces.git import git
from looper.edges.workspaces.reuse import changes_show
from looper.records.task import Runner, Task


@pytest.fixture
def commits(tmp_path: Path) -> tuple[Path, str, str]:
    """A mirror with two base commits, which differ in contents, kinds, names and folders."""
    source = tmp_path / "source"
    (source / "package" / "deep" / "deeper").mkdir(parents=True)
    git(["init", "--quiet"], cwd=source)
    (source / ".gitignore").write_text("*.pyc\n__pycache__/\n")
    (source / "a.py").write_text("a = 1\n")
    (source / "same.py").write_text("same = 1\n")
    (source / "package" / "run.sh").write_text("echo\n")
    (source / "package" / "run.sh").chmod(0o755)
    (source / "package" / "old.pyc").write_bytes(b"kept byte code")
    (source / "package" / "deep" / "deeper" / "b.py").write_text("b = 1\n")
    (source / "becomes").mkdir()
    (source / "becomes" / "file").write_text("in a folder\n")
    (source / "link").symlink_to("a.py")
    git(["add", "--all", "--force"], cwd=source)
    git(["commit", "--quiet", "-m", "one"], cwd=source)
    (source / "a.py").write_text("a = 2\n")
    shutil.rmtree(source / "becomes")
    (source / "becomes").write_text("now a file\n")
    (source / "link").unlink()
    (source / "link").mkdir()
    (source / "link" / "file").write_text("was a link\n")
    (source / "package" / "run.sh").chmod(0o644)
    (source / "other").mkdir()
    (source / "other" / "c.py").write_text("c = 1\n")
    git(["add", "--all", "--force"], cwd=source)
    git(["commit", "--quiet", "-m", "two"], cwd=source)
    bare = tmp_path / "owner__name.git"
    git(["clone", "--quiet", "--mirror", str(source), str(bare)], cwd=tmp_path)
    one, two = (git(["rev-parse", ref], cwd=bare).decode().strip() for ref in ("HEAD~1", "HEAD"))
    return bare, one, two


def task_at(commit: str) -> Task:
    return Task(
        instance_id="owner__name-1", suite="swe-bench-cl", repo="owner/name", base_commit=commit, created_at="2020-01-01",
        problem_statement="", difficulty=1, sequence_id="s", sequence_position=1, dependencies=(), modified_files=(),
        environment="harness", runner=Runner.PYTEST, test_targets=(), gold_patch="", test_patch="", fail_to_pass=("t",),
        pass_to_pass=(),
    )  # fmt: skip


def flags_of(folder: Path) -> bytes:
    """As `chattr` sets them; empty where the file system has none."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return fcntl.ioctl(descriptor, GET_FLAGS, bytes(8))
    except OSError:
        return b""
    finally:
        os.close(descriptor)


GET_FLAGS, SET_FLAGS, NO_DUMP = 0x80086601, 0x40086602, 0x40
CHOSEN_S = 1_234_567_891


def everything(root: Path) -> dict[str, tuple[object, ...]]:
    """Kind, rights, owner, time of change, attributes and content of every entry, git's records among them, the index's times of files apart."""
    found: dict[str, tuple[object, ...]] = {}
    for place in [root, *root.rglob("*")]:
        status = place.lstat()
        content: object = ""
        if place.is_symlink():
            content = os.readlink(place)
        elif place.is_file() and place.name != "index":
            content = place.read_bytes()
        attributes: tuple[object, ...] = tuple(os.listxattr(place, follow_symlinks=False))
        if place.is_dir():
            attributes += (status.st_size, flags_of(place))
        # Files that two commits share may be of either's export.
        when = status.st_mtime_ns if place.is_dir() else status.st_mtime_ns // 10**9 == CHOSEN_S
        found[str(place.relative_to(root))] = (status.st_mode, status.st_uid, when, attributes, content)
    return found


def _nothing(root: Path) -> None: ...


def _other_content_of_the_same_size_and_time(root: Path) -> None:
    times = (root / "same.py").stat()
    (root / "same.py").write_text("same = 2\n")
    os.utime(root / "same.py", ns=(times.st_atime_ns, times.st_mtime_ns))


def _rights(root: Path) -> None:
    (root / "same.py").chmod(0o600)
    (root / "package").chmod(0o777)
    (root / "package" / "deep").chmod(0)
    root.chmod(0o701)


def _removed(root: Path) -> None:
    (root / "same.py").unlink()
    shutil.rmtree(root / "package")


def _added(root: Path) -> None:
    (root / "package" / "__pycache__").mkdir()
    (root / "package" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    (root / "package" / "new.pyc").write_bytes(b"x")
    (root / "empty" / "folders").mkdir(parents=True)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        place = os.getcwd()
        os.chdir(root)
        made.bind("socket")
        os.chdir(place)
    (root / "package" / ".git").mkdir()
    (root / "package" / ".git" / "config").write_text("[core]\n")


def _exchanged(root: Path) -> None:
    (root / "same.py").unlink()
    (root / "same.py").mkdir()
    (root / "same.py" / "inside").write_text("x")
    shutil.rmtree(root / "package" / "deep")
    (root / "package" / "deep").symlink_to("/etc")
    (root / ".gitignore").unlink()
    (root / ".gitignore").symlink_to("/etc/passwd")


def _linked(root: Path) -> None:
    os.link(root / "same.py", root / "package" / "second.py")
    (root / "a.py").unlink()
    os.link(root / "same.py", root / "a.py")


def _times(root: Path) -> None:
    for place in (root, root / "package", root / ".git" / "refs", root / "same.py"):
        os.utime(place, ns=(7, CHOSEN_S * 10**9 + len(place.name)))


def _attributes(root: Path) -> None:
    os.setxattr(root / "same.py", "user.note", b"for whoever is next")
    os.setxattr(root / "package" / "deep", "user.note", b"for whoever is next")


def _a_folder_that_was_large(root: Path) -> None:
    for number in range(2000):
        (root / "package" / f"{'long' * 20}{number}").touch()
    for number in range(2000):
        (root / "package" / f"{'long' * 20}{number}").unlink()


def _flags(root: Path) -> None:
    for place in (root, root / "package", root / "package" / "deep"):
        descriptor = os.open(place, os.O_RDONLY)
        with contextlib.suppress(OSError):
            flags = int.from_bytes(flags_of(place), "little") | NO_DUMP
            fcntl.ioctl(descriptor, SET_FLAGS, flags.to_bytes(8, "little"))
        os.close(descriptor)


def _records(root: Path) -> None:
    (root / ".git" / "hooks").mkdir(exist_ok=True)
    (root / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\n")
    git(["config", "core.fsmonitor", "true"], cwd=root)
    git(["tag", "note"], cwd=root)


def _records_exchanged(root: Path) -> None:
    shutil.rmtree(root / ".git")
    (root / ".git").write_text("gitdir: /tmp\n")


def _records_quietly(root: Path) -> None:
    config = root / ".git" / "config"
    times = config.stat()
    config.write_text(config.read_text().replace("false", "true ", 1))
    os.utime(config, ns=(times.st_atime_ns, times.st_mtime_ns))


def _records_by_a_name_alone(root: Path) -> None:
    (root / ".git" / "refs" / "note").mkdir()
    times = (root / ".git" / "refs" / "note").stat()
    (root / ".git" / "refs" / "note").rmdir()
    (root / ".git" / "refs" / "other").mkdir()
    os.utime(root / ".git" / "refs", ns=(times.st_atime_ns, times.st_mtime_ns))


def _records_by_attributes_and_rights(root: Path) -> None:
    os.setxattr(root / ".git", "user.note", b"for whoever is next")
    os.setxattr(root / ".git" / "HEAD", "user.note", b"for whoever is next")


def _records_closed(root: Path) -> None:
    (root / ".git" / "objects").chmod(0)
    (root / ".git").chmod(0)


def _records_gone(root: Path) -> None:
    shutil.rmtree(root / ".git")


def _too_deep(root: Path) -> None:
    place = os.open(root, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=place)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)


DEEDS = (
    _nothing,
    _other_content_of_the_same_size_and_time,
    _rights,
    _removed,
    _added,
    _exchanged,
    _linked,
    _attributes,
    _times,
    _a_folder_that_was_large,
    _flags,
    _records,
    _records_exchanged,
    _records_quietly,
    _records_by_a_name_alone,
    _records_by_attributes_and_rights,
    _records_closed,
    _records_gone,
    _too_deep,
)


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_whatever_was_done_to_a_tree_the_next_one_is_the_base_tree(
    commits: tuple[Path, str, str], tmp_path: Path, deed: Callable[[Path], None], umask: int
) -> None:
    mirror, one, two = commits
    before = os.umask(umask)
    try:
        fresh = GitWorkspaces(
            {"swe-bench-cl:owner/name": mirror}, tmp_path / "exports", tmp_path / "fresh", None
        )
        again = fresh.at(tmp_path / "again")
        expected = {commit: everything(fresh.create(task_at(commit), "w").root) for commit in (one, two)}
        for commit in (one, one, two, one):
            found = again.create(task_at(commit), "w")
            assert everything(found.root) == expected[commit]
            assert found.changes() == () and found.patch() == ("", ())
            assert git(["--no-optional-locks", "status", "--porcelain", "--ignored"], cwd=found.root) == b""
            deed(found.root)
            found.close()
            assert [place.suffix for place in (tmp_path / "again").iterdir()] == [".idle"], "used again"
    finally:
        os.umask(before)


def test_what_nobody_touched_is_not_made_again_and_what_was_touched_is(
    commits: tuple[Path, str, str], tmp_path: Path
) -> None:
    mirror, one, two = commits
    mirrors = {"swe-bench-cl:owner/name": mirror}
    again = GitWorkspaces(mirrors, tmp_path / "exports", tmp_path / "fresh", None).at(tmp_path / "again")
    first = again.create(task_at(one), "w")
    inodes = {name: (first.root / name).stat().st_ino for name in ("same.py", "a.py", "package/run.sh")}
    (first.root / "package" / "run.sh").chmod(0o700)
    first.close()
    second = again.create(task_at(two), "w")
    kept = {name for name, inode in inodes.items() if (second.root / name).stat().st_ino == inode}
    assert "same.py" in kept
    assert (second.root / "a.py").read_text() == "a = 2\n"


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no file system in memory here")
def test_where_a_write_to_mapped_memory_does_not_show_no_tree_is_used_again_and_every_file_is_looked_at(
    commits: tuple[Path, str, str], tmp_path: Path
) -> None:
    mirror, one, _ = commits
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        assert not changes_show(Path(memory)) and changes_show(tmp_path)
        mirrors = {"swe-bench-cl:owner/name": mirror}
        trees = GitWorkspaces(mirrors, tmp_path / "exports", tmp_path / "fresh", None).at(Path(memory))
        tree = trees.create(task_at(one), "w")
        with (tree.root / "same.py").open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
            assert mapped[7:8] == b"1"
            mapped[7:8] = b"7"
        assert [change.path for change in tree.changes()] == ["same.py"] and "+same = 7" in tree.patch()[0]
        tree.close()
        assert not os.listdir(memory)


def test_programs_that_the_records_of_a_tree_name_are_not_run_when_a_patch_is_applied(
    commits: tuple[Path, str, str], tmp_path: Path
) -> None:
    mirror, one, _ = commits
    trees = GitWorkspaces({"swe-bench-cl:owner/name": mirror}, tmp_path / "exports", tmp_path / "w", None)
    tree = trees.create(task_at(one), "w")
    git(["config", "filter.own.clean", f"touch {tmp_path / 'ran'}; cat"], cwd=tree.root)
    (tree.root / ".git" / "info").mkdir(exist_ok=True)
    (tree.root / ".git" / "info" / "attributes").write_text("* filter=own\n")
    tree.apply("--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a = 1\n+a = 3\n")
    assert (tree.root / "a.py").read_text() == "a = 3\n" and not (tmp_path / "ran").exists()


def test_two_at_once_are_two_trees_and_no_more_wait_than_are_allowed(
    commits: tuple[Path, str, str], tmp_path: Path
) -> None:
    mirror, one, _ = commits
    mirrors = {"swe-bench-cl:owner/name": mirror}
    place = tmp_path / "again"
    again = GitWorkspaces(mirrors, tmp_path / "exports", tmp_path / "fresh", None).at(place)
    trees = [again.create(task_at(one), "w") for _ in range(reuse.MOST_IDLE + 2)]
    assert len({tree.root for tree in trees}) == len(trees)
    for tree in trees:
        tree.close()
    assert len(list(place.iterdir())) == reuse.MOST_IDLE
