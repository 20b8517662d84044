"""The repository whose source evolves: read and written by objects and refs, with a person's tree left as it is."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from looper.edges.workspaces.sources import GitSources
from looper.errors import BadInput, MergeConflict, RefMoved, WorkspaceError


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "agent").mkdir()
    (folder / "agent" / "a.py").write_text("one\ntwo\nthree\n")
    (folder / "agent" / "b.py").write_text("b\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "base")
    return folder


def live(root: Path) -> str:
    """Everything of the working tree that a person could miss: files, index, status, stash, branch."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return "\n".join(
        [
            digest,
            git(root, "status", "--porcelain"),
            git(root, "stash", "list"),
            git(root, "branch", "--show-current"),
        ]
    )


def test_l08_a_candidate_is_made_merged_and_kept_without_touching_the_live_tree(
    root: Path, tmp_path: Path
) -> None:
    """Staged, changed and untracked files and a stash are there before and after."""
    (root / "agent" / "b.py").write_text("stashed\n")
    git(root, "stash")
    (root / "agent" / "b.py").write_text("changed\n")
    (root / "new.txt").write_text("untracked\n")
    (root / "staged.txt").write_text("staged\n")
    git(root, "add", "staged.txt")
    before = live(root)
    sources = GitSources(root)
    base = sources.commit_of("main")
    candidate = sources.with_files(base, {"agent/a.py": b"one\n2\nthree\n", "agent/c.py": b"c\n"}, "better")
    sources.move("refs/heads/evolve/gen-1", candidate, "")
    tree = sources.merged(base, candidate)
    assert tree == sources.tree_of(candidate)
    sources.export(tree, tmp_path / "version")
    assert (tmp_path / "version" / "agent" / "a.py").read_text() == "one\n2\nthree\n"
    assert live(root) == before and git(root, "rev-parse", "evolve/gen-1") == candidate


def test_changes_are_told_with_their_modes(root: Path) -> None:
    sources = GitSources(root)
    base = sources.commit_of("main")
    candidate = sources.with_files(base, {"agent/b.py": None, "agent/ümlaut x.py": b"x"}, "m")
    found = {change.path: (change.before, change.after) for change in sources.changes(base, candidate)}
    assert found == {"agent/b.py": ("100644", "000000"), "agent/ümlaut x.py": ("000000", "100644")}
    assert sources.file(candidate, "agent/b.py") is None and sources.file(base, "agent/b.py") == b"b\n"
    assert sources.file(base, "agent") is None


def test_l03_a_conflict_is_named_and_leaves_nothing_behind(root: Path) -> None:
    sources = GitSources(root)
    base = sources.commit_of("main")
    ours = sources.with_files(base, {"agent/a.py": b"one\nours\nthree\n"}, "ours")
    theirs = sources.with_files(base, {"agent/a.py": b"one\ntheirs\nthree\n"}, "theirs")
    before = live(root)
    with pytest.raises(MergeConflict, match=r"agent/a\.py"):
        sources.merged(ours, theirs)
    assert live(root) == before and not (root / ".git" / "MERGE_HEAD").exists()


def test_a_ref_is_moved_only_from_where_it_was_expected(root: Path) -> None:
    sources = GitSources(root)
    base = sources.commit_of("main")
    first, second = (sources.with_files(base, {"agent/b.py": text}, "m") for text in (b"1", b"2"))
    sources.move("refs/heads/evolve/active", base, "")
    sources.move("refs/heads/evolve/active", first, base)
    sources.move("refs/heads/evolve/active", first, base)
    with pytest.raises(RefMoved, match="another process moved it"):
        sources.move("refs/heads/evolve/active", second, base)
    with pytest.raises(RefMoved):
        sources.move("refs/heads/evolve/active", second, "")
    assert sources.commit_of("evolve/active") == first


def test_a_branch_that_is_checked_out_is_told_with_its_place(root: Path) -> None:
    sources = GitSources(root)
    assert sources.checked_out("refs/heads/main") == root
    assert sources.checked_out("refs/heads/evolve/active") is None


def test_what_is_not_there_is_one_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no git repository"):
        GitSources(tmp_path)
    with pytest.raises(BadInput, match="There is no master"):
        GitSources(root).commit_of("master")


def test_a_link_that_leaves_the_tree_is_not_exported(root: Path, tmp_path: Path) -> None:
    (root / "agent" / "out").symlink_to("/etc/passwd")
    git(root, "add", ".")
    git(root, "commit", "-qm", "link")
    sources = GitSources(root)
    with pytest.raises(WorkspaceError, match="holds what leaves it"):
        sources.export(sources.tree_of("main"), tmp_path / "version")
    assert not (tmp_path / "version").exists()
