"""Fresh trees and patches by comparing them: rows G01 to G14, guards G-01, G-25, G-27."""

import mmap
import os
import random
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from looper.edges.sandboxes.bare import NoSandbox
from looper.edges.workspaces import exports, manifest, mirrors
from looper.edges.workspaces import git as git_module
from looper.edges.workspaces.exports import GitSessions
from looper.edges.workspaces.git import Most, git
from looper.edges.workspaces.manifest import Scanner, changes_show, manifest_hash
from looper.edges.workspaces.mirrors import missing_commits, must_be_whole
from looper.errors import BadInput, BadPatch, DirtyWorkspace, GitRefused, TreeUnreadable, WorkspaceError
from looper.protocols import Environment
from looper.records.task import Runner, Task

FIX = "the line that only the fix holds"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A repository whose history, tags and reflog hold the fix of its first commit."""
    source = tmp_path / "source"
    source.mkdir()
    git(["init", "--quiet"], cwd=source)
    (source / "a.py").write_text("a = 1\nb = 2\n")
    (source / "folder").mkdir()
    (source / "folder" / "script.sh").write_text("#!/bin/sh\necho\n")
    (source / "folder" / "script.sh").chmod(0o755)
    (source / "link").symlink_to("a.py")
    (source / ".gitignore").write_text("*.log\nignored/\n")
    (source / "kept.log").write_text("tracked although ignored\n")
    git(["add", "--all", "--force"], cwd=source)
    git(["commit", "--quiet", "-m", "base"], cwd=source)
    (source / "a.py").write_text(f"a = 1\nb = 3  # {FIX}\n")
    git(["commit", "--quiet", "-am", "fix"], cwd=source)
    git(["tag", "v1"], cwd=source)
    bare = tmp_path / "owner__name.git"
    git(["clone", "--quiet", "--mirror", str(source), str(bare)], cwd=tmp_path)
    return bare


@pytest.fixture
def task(mirror: Path) -> Task:
    base = git(["rev-parse", "HEAD~1"], cwd=mirror).decode().strip()
    return Task(
        instance_id="owner__name-1", suite="swe-bench-cl", repo="owner/name", base_commit=base, created_at="2020-01-01",
        problem_statement="b is wrong", difficulty=1, sequence_id="s", sequence_position=1, dependencies=(),
        modified_files=("a.py",), environment="harness", runner=Runner.PYTEST, test_targets=(), gold_patch="",
        test_patch="", fail_to_pass=("t",), pass_to_pass=(),
    )  # fmt: skip


def made_of(mirror: Path, exports: Path, place: Path) -> GitSessions:
    """Trees in which nothing of an environment is asked for."""
    bare = Environment("none", Path("/usr/bin/python3"), (), {})
    return GitSessions({"swe-bench-cl:owner/name": mirror}, exports, place, NoSandbox(), lambda task: bare)


@pytest.fixture
def sessions(mirror: Path, tmp_path: Path) -> GitSessions:
    return made_of(mirror, tmp_path / "exports", tmp_path / "workspaces")


def test_a_workspace_is_the_base_tree_in_a_repository_of_one_commit(
    sessions: GitSessions, task: Task
) -> None:
    session = sessions.open(task, "w")
    assert (session.root / "a.py").read_text() == "a = 1\nb = 2\n"
    assert (session.root / "kept.log").exists()
    assert os.readlink(session.root / "link") == "a.py"
    assert git(["rev-list", "--all", "--count"], cwd=session.root).strip() == b"1"
    assert git(["status", "--porcelain"], cwd=session.root) == b""
    assert git(["remote"], cwd=session.root) == b""


def test_a_mirror_that_lacks_a_file_of_the_base_tree_is_told_with_object_and_path(
    sessions: GitSessions, mirror: Path, task: Task
) -> None:
    """And is complete again once something stands in its place."""
    name = git(["rev-parse", f"{task.base_commit}:folder/script.sh"], cwd=mirror).decode().strip()
    (mirror / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(
        WorkspaceError, match=f"lacks the object {name}, which is folder/script.sh. Remove the folder"
    ):
        sessions.open(task, "w")
    other = git(["hash-object", "-w", "--stdin"], cwd=mirror, stdin=b"echo of a release\n").decode().strip()
    git(["update-ref", f"refs/replace/{name}", other], cwd=mirror)
    assert (sessions.open(task, "w").root / "folder" / "script.sh").read_text() == "echo of a release\n"


def _plain(source: Path) -> None: ...


def _ignored_and_written_anew(source: Path) -> None:
    (source / "folder" / ".gitattributes").write_text("version.txt export-subst\nscript.sh export-ignore\n")
    (source / "folder" / "version.txt").write_text("$Format:%s$\n")


def _line_ends(source: Path) -> None:
    (source / ".gitattributes").write_text("*.py text eol=crlf\n*.bin -text\n")
    (source / "x.bin").write_bytes(b"a\r\nb\n\0")


def _odd_names(source: Path) -> None:
    for name in (b"tab\there", b"new\nline", b"caf\xe9", "größe".encode(), b"-x", b'quote"'):
        (source / os.fsdecode(name)).write_bytes(name)
    (source / "out").symlink_to("../../elsewhere")


def _submodule(source: Path) -> None:
    git(
        ["update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},folder/sub"],
        cwd=source,
    )


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize(
    "change",
    [_plain, _ignored_and_written_anew, _line_ends, _odd_names, _submodule],
    ids=lambda c: c.__name__,
)
def test_g01_a_base_tree_is_what_git_archives_and_nothing_else_can_be_reached(
    tmp_path: Path, mirror: Path, task: Task, change: Callable[[Path], None], umask: int
) -> None:
    """Whatever way it is made by: by the mirror's own objects, or by adding an archive's files."""
    source = tmp_path / "source"
    git(["checkout", "--quiet", "--detach", "HEAD~1"], cwd=source)
    change(source)
    if change is not _submodule:
        git(["add", "--all", "--force"], cwd=source)
    git(["commit", "--quiet", "--allow-empty", "-m", "other base"], cwd=source)
    git(["push", "--quiet", str(mirror), "HEAD:refs/heads/other"], cwd=source)
    base = git(["rev-parse", "HEAD"], cwd=source).decode().strip()
    expected = tmp_path / "expected"
    expected.mkdir()
    archive = git(["archive", "--format=tar", base], cwd=mirror)
    subprocess.run(["tar", "x", "--no-same-owner", "-C", str(expected)], input=archive, check=True)
    before = os.umask(umask)
    try:
        made = made_of(mirror, tmp_path / "exports", tmp_path / "workspaces").open(
            task.model_copy(update={"base_commit": base}), "w"
        )
    finally:
        os.umask(before)
    assert Scanner(made.root).scan() == Scanner(expected).scan()
    assert git(["status", "--porcelain", "--ignored"], cwd=made.root) == b""
    assert git(["fsck", "--unreachable", "--no-reflogs", "--no-progress"], cwd=made.root) == b""
    assert git(["rev-list", "--all", "--count"], cwd=made.root).strip() == b"1"
    files = [path for path in made.root.rglob("*") if path.is_file() and not path.is_symlink()]
    modes = {path.stat().st_mode & 0o777 for path in files if ".git" not in path.parts}
    assert modes <= {0o644, 0o755}


@pytest.mark.parametrize("gone", [False, True])
def test_g01_a_mirror_with_another_object_in_the_place_of_one_exports_what_stands_there(
    tmp_path: Path, mirror: Path, sessions: GitSessions, task: Task, gone: bool
) -> None:
    """So a mirror whose largest file was left out is completed."""
    old = git(["rev-parse", "HEAD~1:a.py"], cwd=mirror).decode().strip()
    new = git(["hash-object", "-w", "--stdin"], cwd=mirror, stdin=b"a = 1\n# replaced\n").decode().strip()
    git(["update-ref", f"refs/replace/{old}", new], cwd=mirror)
    if gone:
        packs = [path.read_bytes() for path in (mirror / "objects" / "pack").glob("*.pack")]
        for path in list((mirror / "objects" / "pack").iterdir()):
            path.unlink()
        for pack in packs:
            git(["unpack-objects", "-q"], cwd=mirror, stdin=pack)
        (mirror / "objects" / old[:2] / old[2:]).unlink()
    assert "# replaced" in (sessions.open(task, "w").root / "a.py").read_text()


def test_g10_the_fix_is_in_no_object_of_the_workspace(
    sessions: GitSessions, task: Task, mirror: Path
) -> None:
    """G-25: no future commit, tag, stash, reflog or packed object."""
    session = sessions.open(task, "w")
    listed = git(["cat-file", "--batch-all-objects", "--batch-check"], cwd=session.root).decode().splitlines()
    contents = b"".join(git(["cat-file", "-p", line.split()[0]], cwd=session.root) for line in listed)
    assert FIX.encode() not in contents
    assert [line.split()[1] for line in listed].count("commit") == 1
    assert FIX.encode() in git(["cat-file", "-p", "HEAD:a.py"], cwd=mirror), "the mirror itself must hold it"


def test_g09_nothing_is_shared_with_mirror_export_or_other_workspaces(
    sessions: GitSessions, task: Task
) -> None:
    first, second = sessions.open(task, "w"), sessions.open(task, "w")
    assert first.root != second.root
    for folder, _, names in os.walk(first.root):
        for name in names:
            assert os.lstat(os.path.join(folder, name)).st_nlink == 1
    subprocess.run(
        "chmod -R u+w .git && rm -rf .git/objects && echo broken > a.py",
        shell=True,
        cwd=first.root,
        check=True,
    )
    third = sessions.open(task, "w")
    assert (third.root / "a.py").read_text() == "a = 1\nb = 2\n"
    assert git(["fsck"], cwd=third.root) == b""
    assert not (third.root / ".git/objects/info/alternates").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: (root / "a.py").write_text("changed"),
        lambda root: (root / "new.py").write_text("untracked"),
        lambda root: (root / "x.log").write_text("ignored"),
        lambda root: (root / "folder/script.sh").chmod(0o644),
        lambda root: (root / "link").unlink(),
    ],
)
def test_g01_a_tree_that_is_not_the_base_tree_is_refused_and_an_export_that_was_changed_is_made_anew(
    sessions: GitSessions, task: Task, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    sessions.open(task, "w").close()
    export = next((tmp_path / "exports").glob("owner__name-*"))
    spoil(export / "files")
    made = sessions.open(task, "w")
    assert (made.root / "a.py").read_text() == "a = 1\nb = 2\n" and made.changes() == ()
    assert sorted(os.listdir(tmp_path / "exports")) == [".lock", export.name]
    assert os.listdir(tmp_path / "workspaces") == [made.root.name], "the copy of the other is removed"


def test_a_copy_that_is_not_its_export_is_refused_and_not_left(
    sessions: GitSessions, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = exports.copy_tree

    def spoilt(source: Path, target: Path, owner: int | None) -> None:
        copied(source, target, owner)
        (target / "a.py").write_text("changed")

    monkeypatch.setattr(exports, "copy_tree", spoilt)
    with pytest.raises(DirtyWorkspace, match="Run the same command again"):
        sessions.open(task, "w")
    assert os.listdir(tmp_path / "workspaces") == []


@pytest.mark.parametrize("text", ["", "[]", '{"61": 1}'])
def test_an_export_whose_records_are_damaged_is_made_anew(
    sessions: GitSessions, task: Task, mirror: Path, tmp_path: Path, text: str
) -> None:
    sessions.open(task, "w").close()
    (next((tmp_path / "exports").glob("owner__name-*")) / "tree.json").write_text(text)
    later = made_of(mirror, tmp_path / "exports", tmp_path / "w")
    assert later.open(task, "w").changes() == ()


def test_an_effect_that_was_kept_and_is_none_is_found_again(
    sessions: GitSessions, task: Task, mirror: Path, tmp_path: Path
) -> None:
    patch = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n a = 1\n-b = 2\n+b = 3\n"
    found = sessions.effect(task, patch)
    (kept,) = (tmp_path / "exports").glob("*/effects/*.json")
    kept.write_text("[]")
    later = made_of(mirror, tmp_path / "exports", tmp_path / "w")
    assert later.effect(task, patch) == found


def test_mirrors_with_other_objects_in_the_place_of_some_have_exports_of_their_own(
    sessions: GitSessions, task: Task, mirror: Path, tmp_path: Path
) -> None:
    """A tree is known by what it is made of, so a mirror that is mended is looked at again, and one that is not is not."""

    def text(task: Task = task) -> str:
        own = made_of(mirror, tmp_path / "exports", tmp_path / "w")
        return (own.base_tree(task) / "a.py").read_text()

    def put(content: bytes) -> str:
        return git(["hash-object", "-w", "--stdin"], cwd=mirror, stdin=content).decode().strip()

    plain = text()
    old, first, second = put(plain.encode()), put(b"wrong\n"), put(b"again\n")
    git(["update-ref", f"refs/replace/{old}", first], cwd=mirror)
    assert text() == "wrong\n"
    git(["update-ref", f"refs/replace/{first}", second], cwd=mirror)
    assert text() == "again\n", "through both"
    git(["update-ref", "-d", f"refs/replace/{old}"], cwd=mirror)
    assert text() == plain
    folders = sorted(os.listdir(tmp_path / "exports"))
    assert len(folders) == 4, "three and a lock"
    git(["update-ref", f"refs/replace/{put(b'of no tree')}", first], cwd=mirror)
    assert text() == plain and sorted(os.listdir(tmp_path / "exports")) == folders
    fixed = git(["rev-parse", "HEAD^{tree}"], cwd=mirror).decode().strip()
    root = git(["rev-parse", f"{task.base_commit}^{{tree}}"], cwd=mirror).decode().strip()
    git(["update-ref", f"refs/replace/{root}", fixed], cwd=mirror)
    assert FIX in text(), "a folder counts as a file does"


HOSTILE = {
    "a server of its own kind": """[extensions]\n\tpartialClone = origin
[remote "origin"]\n\turl = ext::touch {ran}\n\tpromisor = true\n\tpartialclonefilter = blob:none
[protocol "ext"]\n\tallow = always\n[protocol]\n\tallow = always\n""",
    "ssh by a program of its own": """[extensions]\n\tpartialClone = origin\n[core]\n\tsshCommand = touch {ran};
[remote "origin"]\n\turl = ssh://x/y\n\tpromisor = true\n""",
    "a filter": '[filter "own"]\n\tsmudge = touch {ran}; cat\n\trequired = true\n',
    "a filter in another file": "[include]\n\tpath = more\n",
    "no configuration at all": "[core\n",
}


@pytest.mark.parametrize("config", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("lacks", [True, False], ids=["lacks a file", "whole"])
def test_no_setting_of_a_mirror_runs_anything(
    sessions: GitSessions, task: Task, mirror: Path, tmp_path: Path, config: str, lacks: bool
) -> None:
    """A mirror is data: of a repository that somebody else may have made."""
    name = git(["rev-parse", f"{task.base_commit}:a.py"], cwd=mirror).decode().strip()
    other = git(["hash-object", "-w", "--stdin"], cwd=mirror, stdin=b"b = 7\n").decode().strip()
    script = git(["rev-parse", f"{task.base_commit}:folder/script.sh"], cwd=mirror).decode().strip()
    git(["update-ref", f"refs/replace/{script}", other], cwd=mirror)
    if lacks:
        (mirror / "objects" / name[:2] / name[2:]).unlink()
    (mirror / "info").mkdir(exist_ok=True)
    (mirror / "info" / "attributes").write_text("* filter=own\n")
    own = config.format(ran=tmp_path / "ran")
    (mirror / "more").write_text(HOSTILE["a filter"].format(ran=tmp_path / "ran"))
    (mirror / "config").write_text(f"[core]\n\trepositoryformatversion = 1\n\tbare = true\n{own}")
    if lacks:
        with pytest.raises(WorkspaceError, match=f"lacks the object {name}, which is a.py"):
            sessions.open(task, "w")
        with pytest.raises(BadInput, match=f"lacks the object {name}, which is a.py"):
            must_be_whole(mirror, [task.base_commit])
    else:
        assert (sessions.open(task, "w").root / "folder" / "script.sh").read_text() == "b = 7\n"
        must_be_whole(mirror, [task.base_commit])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("replaced", [True, False])
def test_no_file_of_a_tree_becomes_a_setting_of_git(
    sessions: GitSessions, task: Task, mirror: Path, tmp_path: Path, replaced: bool
) -> None:
    def made(kind: str, content: bytes) -> str:
        asked = ["hash-object", "-w", "--literally", "-t", kind, "--stdin"]
        return git(asked, cwd=mirror, stdin=content).decode().strip()

    own = f'[filter "own"]\n\tclean = touch {tmp_path / "ran"}; cat\n'
    config = made("blob", own.encode())
    inside = made("tree", b"100644 config\0" + bytes.fromhex(config))
    attributes = made("blob", b"* filter=own\n")
    root = made(
        "tree",
        b"40000 .git\0" + bytes.fromhex(inside) + b"100644 .gitattributes\0" + bytes.fromhex(attributes),
    )
    commit = git(["commit-tree", root, "-m", "evil"], cwd=mirror).decode().strip()
    if replaced:
        git(["update-ref", f"refs/replace/{made('blob', b'x')}", attributes], cwd=mirror)
    with pytest.raises(WorkspaceError, match=r"\.git/"):
        sessions.open(task.model_copy(update={"base_commit": commit}), "w")
    assert not (tmp_path / "ran").exists() and os.listdir(tmp_path / "exports") == [".lock"]


def _object(mirror: Path, name: str) -> Path:
    found = mirror / "objects" / name[:2] / name[2:]
    found.chmod(0o644)
    return found


def _cut(mirror: Path, name: str) -> None:
    _object(mirror, name).write_bytes(b"")


def _flip(mirror: Path, name: str) -> None:
    content = bytearray(_object(mirror, name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    _object(mirror, name).write_bytes(content)


def _remove_object(mirror: Path, name: str) -> None:
    _object(mirror, name).unlink()


def _swap(mirror: Path, name: str) -> None:
    """The content of another object of its kind."""
    kind = git(["cat-file", "-t", name], cwd=mirror).decode().strip()
    after = {"blob": "HEAD:a.py", "tree": "HEAD^{tree}", "commit": "HEAD"}[kind]
    other = git(["rev-parse", after], cwd=mirror).decode().strip()
    if other == name:
        other = git(["rev-parse", "HEAD:link"], cwd=mirror).decode().strip()
    _object(mirror, name).write_bytes(_object(mirror, other).read_bytes())


@pytest.mark.parametrize("replaced", [True, False], ids=["through replacements", "plain"])
@pytest.mark.parametrize(
    "place", ["", ":a.py", ":folder", "^{tree}"], ids=["commit", "file", "folder", "root"]
)
@pytest.mark.parametrize("damage", [_remove_object, _cut, _flip, _swap], ids=lambda each: each.__name__)
def test_a_mirror_that_is_damaged_is_told_by_fetch_and_by_whoever_needs_the_tree(
    sessions: GitSessions,
    task: Task,
    mirror: Path,
    tmp_path: Path,
    damage: Callable[[Path, str], None],
    place: str,
    replaced: bool,
) -> None:
    """Nobody works in another tree than the commit's, and nothing half made stays."""
    name = git(["rev-parse", f"{task.base_commit}{place}"], cwd=mirror).decode().strip()
    if replaced:
        script = git(["rev-parse", f"{task.base_commit}:folder/script.sh"], cwd=mirror).decode().strip()
        other = git(["hash-object", "-w", "--stdin"], cwd=mirror, stdin=b"b = 7\n").decode().strip()
        git(["update-ref", f"refs/replace/{script}", other], cwd=mirror)
    damage(mirror, name)
    with pytest.raises((WorkspaceError, BadInput)) as needed:
        sessions.open(task, "w")
    assert str(mirror) in str(needed.value) and name in str(needed.value)
    assert "etch" in str(needed.value) and "\n" not in str(needed.value)
    if not missing_commits(mirror, [task]):
        with pytest.raises(BadInput) as fetched:
            must_be_whole(mirror, [task.base_commit])
        assert str(mirror) in str(fetched.value) and name in str(fetched.value)
    assert set(os.listdir(tmp_path / "exports")) <= {".lock"} and os.listdir(tmp_path / "workspaces") == []


def test_what_is_no_mirror_is_told_and_no_repository_around_it_is_taken_for_it(
    sessions: GitSessions, task: Task, mirror: Path, tmp_path: Path
) -> None:
    mirror.rename(tmp_path / "aside")
    mirror.mkdir()
    git(["init", "--quiet"], cwd=tmp_path)
    for asked in (
        lambda: sessions.open(task, "w"),
        lambda: missing_commits(mirror, [task]),
        lambda: must_be_whole(mirror, [task.base_commit]),
    ):
        with pytest.raises(
            BadInput, match="is no mirror of a repository: it has no folder objects. Remove it"
        ):
            asked()


def test_half_an_export_of_a_process_that_was_killed_is_removed_when_the_next_is_made(
    sessions: GitSessions, task: Task, tmp_path: Path
) -> None:
    for name in (f".owner__name-{task.base_commit}.123", ".owner__other-1"):
        (tmp_path / "exports" / name / "files").mkdir(parents=True)
    export = sessions.base_tree(task).parent
    assert sorted(os.listdir(tmp_path / "exports")) == [".lock", export.name]


def test_a_clone_goes_on_after_one_that_was_killed(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner").mkdir()
    mirror.rename(tmp_path / "owner" / "name.git")
    monkeypatch.setattr(mirrors, "HOST", f"file://{tmp_path}")
    (tmp_path / f".{mirror.name}.part" / "objects").mkdir(parents=True)
    mirrors.clone("owner/name", mirror)
    assert git(["rev-list", "--count", "HEAD"], cwd=mirror).strip() == b"2"
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_a_clone_goes_the_way_that_this_machine_reaches_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    heard: list[bytes] = []

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(1000))
            self.request.sendall(b"HTTP/1.1 403 No\r\n\r\n")

    for name in git_module.NETWORK:
        monkeypatch.delenv(name, raising=False)
    with socketserver.TCPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_address[1]}")
        with pytest.raises(BadInput, match=r"Cannot clone https://github.com/owner/name.git.*HTTPS_PROXY"):
            mirrors.clone("owner/name", tmp_path / "owner__name.git")
        proxy.shutdown()
    assert heard and heard[0].startswith(b"CONNECT github.com:443 ")
    assert not list(tmp_path.glob("*owner*"))


FULL = """
import json, os, sys
from pathlib import Path
from looper.edges.sandboxes.bare import NoSandbox
from looper.edges.workspaces.exports import GitSessions
from looper.errors import WorkspaceError
from looper.protocols import Environment
from looper.records.task import Task

small, roomy, places = Path("/mnt"), Path(sys.argv[2]), {"swe-bench-cl:owner/name": Path(sys.argv[3])}
task = Task.from_json(sys.argv[1].encode())
for exports, trees in ((small / "exports", roomy / "w"), (roomy / "exports", small / "w")):
    for _ in range(2):
        try:
            bare = Environment("none", Path("/usr/bin/python3"), (), {})
            GitSessions(places, exports, trees, NoSandbox(), lambda task: bare).open(task, "w")
        except WorkspaceError as error:
            print(error)
        print(os.listdir(small / "exports") if exports.parent == small else os.listdir(trees))
"""


@pytest.mark.parametrize("plain", [True, False])
def test_a_full_disk_is_told_with_what_to_do_and_nothing_half_made_keeps_room(
    task: Task, mirror: Path, tmp_path: Path, plain: bool
) -> None:
    """On a file system with room for 600 KiB, and again and again."""
    source = tmp_path / "source"
    (source / "big").write_bytes(random.Random(0).randbytes(400_000))
    if not plain:
        (source / ".gitattributes").write_text("a.py export-subst\n")
    git(["add", "--all", "--force"], cwd=source)
    git(["commit", "--quiet", "-m", "big"], cwd=source)
    git(["push", "--quiet", str(mirror), "HEAD:refs/heads/big"], cwd=source)
    commit = git(["rev-parse", "HEAD"], cwd=source).decode().strip()
    big = task.model_copy(update={"base_commit": commit}).to_json().decode()
    mounted = 'mount -t tmpfs -o size=600k none /mnt && exec "$@"'
    argv = ["unshare", "-Urm", "/bin/sh", "-c", mounted, "sh", sys.executable, "-c", FULL]
    done = subprocess.run([*argv, big, str(tmp_path), str(mirror)], capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    assert len(lines) == 8, done.stdout + done.stderr
    for at, variable, left in ((0, "LOOPER_HOME", "['.lock']"), (4, "LOOPER_WORKSPACES", "[]")):
        for said, there in ((lines[at], lines[at + 1]), (lines[at + 2], lines[at + 3])):
            assert "No room is left below /mnt" in said and said.endswith(
                f"name another place with {variable}."
            )
            assert there == left


def test_an_untouched_workspace_has_an_empty_patch(sessions: GitSessions, task: Task) -> None:
    assert sessions.open(task, "w").patch() == ("", ())


CHANGES: dict[str, Callable[[Path], object]] = {
    "edit": lambda root: (root / "a.py").write_text("a = 1\nb = 9\n"),
    "new file": lambda root: (root / "new.py").write_text("x"),
    "new file in new folder": lambda root: (
        (root / "n/m").mkdir(parents=True),
        (root / "n/m/f").write_text("x\n"),
    ),
    "deletion": lambda root: (root / "a.py").unlink(),
    "rename": lambda root: (root / "a.py").rename(root / "z.py"),
    "mode": lambda root: (root / "a.py").chmod(0o755),
    "binary": lambda root: (root / "b.bin").write_bytes(bytes(range(256)) * 9),
    "empty file": lambda root: (root / "empty").touch(),
    "no final newline": lambda root: (root / "a.py").write_text("a = 1\nb = 2"),
    "ignored by the repository": lambda root: (root / "x.log").write_text("new\n"),
    "crlf": lambda root: (root / "a.py").write_bytes(b"a = 1\r\nb = 2\r\n"),
    "odd names": lambda root: [
        (root / os.fsdecode(name)).write_text("x\n")
        for name in (b"a\nb", b"-dash", b"\xff\xfe", "ü".encode(), b'q"q', b"t\tt")
    ],
    "link inside": lambda root: (root / "l2").symlink_to("folder/script.sh"),
    "link changed to file": lambda root: ((root / "link").unlink(), (root / "link").write_text("x\n")),
    "agent's own commit": lambda root: (
        (root / "c.py").write_text("x\n"),
        git(["add", "-A"], cwd=root),
        git(["commit", "-qm", "mine"], cwd=root),
    ),
    "agent rewrote git": lambda root: (
        subprocess.run(["rm", "-rf", ".git"], cwd=root, check=True),
        (root / "c.py").write_text("x\n"),
        git(["init", "--quiet"], cwd=root),
    ),
    "leftover lock": lambda root: ((root / ".git/index.lock").touch(), (root / "a.py").write_text("q\n")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_g06_g11_g12_g14_the_patch_applied_to_a_fresh_base_gives_the_final_tree(
    sessions: GitSessions, task: Task, name: str
) -> None:
    """G-27."""
    worked = sessions.open(task, "w")
    CHANGES[name](worked.root)
    patch, flagged = worked.patch()
    assert patch and not flagged
    fresh = sessions.open(task, "w")
    fresh.apply(patch)
    assert fresh.tree_hash() == worked.tree_hash() != worked.clean_state


def test_g14_random_edits_are_reproduced_by_their_patch(sessions: GitSessions, task: Task) -> None:
    rng = random.Random(5)
    for _ in range(25):
        worked = sessions.open(task, "w")
        files = [
            worked.root / name
            for name in ("a.py", "folder/script.sh", "kept.log", "new/one", "two", "folder/three")
        ]
        for path in rng.sample(files, rng.randrange(1, 6)):
            if path.exists() and rng.random() < 0.3:
                path.unlink()
                continue
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(
                rng.choice([rng.randbytes(rng.randrange(3000)), b"text\n" * rng.randrange(50), b""])
            )
            path.chmod(rng.choice([0o644, 0o755]))
        patch, flagged = worked.patch()
        fresh = sessions.open(task, "w")
        fresh.apply(patch)
        assert not flagged and fresh.tree_hash() == worked.tree_hash()
        worked.close()
        fresh.close()


def test_g07_links_out_of_the_tree_and_other_kinds_are_flagged_and_never_read(
    sessions: GitSessions, task: Task, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("canary content")
    worked = sessions.open(task, "w")
    (worked.root / "a.py").unlink()
    (worked.root / "a.py").symlink_to(tmp_path / "secret")
    (worked.root / "up").symlink_to("../../secret")
    os.mkfifo(worked.root / "pipe")
    (worked.root / "nested").mkdir()
    git(["init", "--quiet"], cwd=worked.root / "nested")
    patch, flagged = worked.patch()
    assert set(flagged) == {"a.py", "up", "pipe", "nested/.git"}
    assert "canary content" not in patch


def test_g01_to_g05_nothing_that_the_agent_configured_is_run(
    sessions: GitSessions, task: Task, tmp_path: Path
) -> None:
    worked = sessions.open(task, "w")
    ran = tmp_path / "ran"
    program = worked.root / "program.sh"
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\ncat\n")
    program.chmod(0o755)
    settings = [
        "core.fsmonitor",
        "diff.external",
        "core.sshCommand",
        "gpg.program",
        "core.pager",
        "core.editor",
    ]
    settings += [
        "filter.f.clean",
        "filter.f.smudge",
        "diff.d.textconv",
        "diff.d.command",
        "credential.helper",
    ]
    for name in settings:
        git(["config", name, str(program)], cwd=worked.root)
    git(["config", "core.hooksPath", str(worked.root / "hooks")], cwd=worked.root)
    (worked.root / ".gitattributes").write_text("* filter=f diff=d\n")
    for hook in ("pre-commit", "post-checkout", "post-index-change"):
        for folder in (worked.root / "hooks", worked.root / ".git/hooks"):
            folder.mkdir(exist_ok=True)
            (folder / hook).write_text(program.read_text())
            (folder / hook).chmod(0o755)
    (worked.root / "a.py").write_text("changed\n")
    patch, _ = worked.patch()
    sessions.open(task, "w").apply(patch)
    worked.tree_hash()
    worked.close()
    assert "changed" in patch and not ran.exists()


@pytest.mark.parametrize("path", ["../evil", ".git/hooks/post-checkout", "link2/evil"])
def test_g08_patches_that_leave_the_tree_are_refused(
    sessions: GitSessions, task: Task, tmp_path: Path, path: str
) -> None:
    session = sessions.open(task, "w")
    (session.root / "link2").symlink_to(tmp_path)
    patch = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+evil\n"
    with pytest.raises(BadPatch):
        session.apply(patch)
    assert not (tmp_path / "evil").exists() and not (session.root / ".git/hooks/post-checkout").exists()


def test_g11_many_changed_files_are_extracted_quickly(sessions: GitSessions, task: Task) -> None:
    worked = sessions.open(task, "w")
    (worked.root / "many").mkdir()
    for number in range(3000):
        (worked.root / "many" / str(number)).write_text("x\n")
    begun = time.monotonic()
    patch, _ = worked.patch()
    assert patch.count("diff --git") == 3000 and time.monotonic() - begun < 10


def test_folders_without_rights_do_not_keep_a_workspace_from_being_removed(
    sessions: GitSessions, task: Task
) -> None:
    session = sessions.open(task, "w")
    (session.root / "closed/inner").mkdir(parents=True)
    (session.root / "closed").chmod(0)
    session.close()
    assert not session.root.exists()


def test_a_tree_deeper_than_any_recursion_is_scanned_and_removed(sessions: GitSessions, task: Task) -> None:
    session = sessions.open(task, "w")
    subprocess.run(
        "for i in $(seq 1500); do mkdir d && cd d || exit; done; touch f",
        shell=True,
        cwd=session.root,
        check=True,
    )
    session.tree_hash()
    session.close()
    assert not session.root.exists()


def test_a_mirror_without_the_base_commit_is_bad_input(sessions: GitSessions, task: Task) -> None:
    with pytest.raises(BadInput, match="does not hold the base commit"):
        sessions.open(task.model_copy(update={"base_commit": "0" * 40}), "w")
    with pytest.raises(BadInput, match="looper bench fetch"):
        sessions.open(task.model_copy(update={"repo": "owner/other"}), "w")


def test_a_file_rewritten_within_the_same_tick_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("one")
    scanner = Scanner(tmp_path)
    states = {manifest_hash(scanner.scan())}
    for number in range(20):
        times = (tmp_path / "f").stat()
        (tmp_path / "f").write_text(f"{number:03d}")
        os.utime(tmp_path / "f", ns=(times.st_atime_ns, times.st_mtime_ns))
        states.add(manifest_hash(scanner.scan()))
    assert len(states) == 21


SHAPES: dict[str, Callable[[Path], object]] = {
    "a name of 255 bytes": lambda root: (root / ("n" * 255)).write_text("x\n"),
    "a path of 2,500 bytes": lambda root: (
        (deep := root.joinpath(*["d" * 249] * 10)).mkdir(parents=True),
        (deep / "f").write_text("x\n"),
    ),
    "a folder in place of a file": lambda root: (
        (root / "a.py").unlink(),
        (root / "a.py").mkdir(),
        (root / "a.py" / "b").write_text("x\n"),
    ),
    "a file in place of a folder": lambda root: (
        subprocess.run(["rm", "-r", "folder"], cwd=root, check=True),
        (root / "folder").write_text("x\n"),
    ),
    "links that loop and dangle": lambda root: (
        (root / "loop").symlink_to("loop"),
        (root / "dangling").symlink_to("nowhere"),
        (root / "self").symlink_to("."),
    ),
    "a second name": lambda root: os.link(root / "a.py", root / "again.py"),
    "nothing left": lambda root: subprocess.run("rm -rf * .[!.]*", shell=True, cwd=root, check=True),
}


@pytest.mark.parametrize("name", SHAPES)
def test_c3_trees_of_any_shape_have_their_patch(sessions: GitSessions, task: Task, name: str) -> None:
    worked = sessions.open(task, "w")
    SHAPES[name](worked.root)
    patch, flagged = worked.patch()
    fresh = sessions.open(task, "w")
    fresh.apply(patch)
    assert patch and not flagged and fresh.tree_hash() == worked.tree_hash()
    worked.close()
    assert not worked.root.exists()


def make_deep(root: Path, folders: int, name: str) -> None:
    """Deeper than any path can say."""
    at = os.open(root, os.O_RDONLY)
    for _ in range(folders):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


@pytest.mark.parametrize(
    ("folders", "name"), [pytest.param(10_000, "d", marks=pytest.mark.proof), (300, "n" * 255)]
)
def test_c3_what_is_too_deep_for_any_program_is_named_and_the_rest_is_in_the_patch(
    sessions: GitSessions, task: Task, folders: int, name: str
) -> None:
    worked = sessions.open(task, "w")
    make_deep(worked.root, folders, name)
    (worked.root / "a.py").write_text("changed\n")
    patch, flagged = worked.patch()
    assert "+changed" in patch and len(flagged) == 1 and len(flagged[0]) <= 200
    worked.close()
    assert not worked.root.exists()


def test_c3_what_a_patch_cannot_hold_is_named_and_the_rest_is_in_the_patch(
    sessions: GitSessions, task: Task
) -> None:
    import socket

    worked = sessions.open(task, "w")
    (worked.root / "a.py").write_text("changed\n")
    os.mkfifo(worked.root / "pipe")
    (worked.root / "sub").mkdir()
    (worked.root / "sub" / ".git").write_text("gitdir: /etc\n")
    with (worked.root / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    place = os.getcwd()
    os.chdir(worked.root)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
    os.chdir(place)
    begun = time.monotonic()
    patch, flagged = worked.patch()
    assert time.monotonic() - begun < 30, "a terabyte is not read"
    assert "+changed" in patch and set(flagged) == {"pipe", "socket", "sparse", "sub/.git"}
    before = worked.tree_hash()
    with (worked.root / "sparse").open("r+b") as sparse:
        sparse.write(b"x")
    assert worked.tree_hash() != before


def test_c3_names_of_what_a_patch_cannot_hold_are_few_and_short(sessions: GitSessions, task: Task) -> None:
    worked = sessions.open(task, "w")
    for number in range(150):
        os.mkfifo(worked.root / f"{number:03}{'p' * 250}")
    _, flagged = worked.patch()
    assert len(flagged) == 101 and flagged[-1] == "and 50 more" and max(map(len, flagged)) <= 200


def test_c3_too_many_files_are_said_to_be_too_many(
    sessions: GitSessions, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = sessions.open(task, "w")
    monkeypatch.setattr(manifest, "MOST_ENTRIES", 50)
    for number in range(60):
        (worked.root / str(number)).touch()
    for look in (worked.tree_hash, worked.patch):
        with pytest.raises(TreeUnreadable, match="more than 50"):
            look()


def test_c3_a_tree_that_changes_while_it_is_looked_at_is_looked_at_all_the_same(
    sessions: GitSessions, task: Task
) -> None:
    worked = sessions.open(task, "w")
    script = "while :; do mkdir -p x/y; touch x/y/f x/g; ln -sf f x/l; rm -rf x; done"
    with subprocess.Popen(["/bin/sh", "-c", script], cwd=worked.root) as changing:
        for _ in range(300):
            worked.tree_hash()
        assert changing.poll() is None, "it was changed to the end"
        changing.kill()


def test_c3_a_folder_without_rights_shows_nothing_and_stops_nobody(sessions: GitSessions, task: Task) -> None:
    worked = sessions.open(task, "w")
    (worked.root / "closed" / "in").mkdir(parents=True)
    (worked.root / "a.py").chmod(0)
    for path in ("closed/in", "closed", "folder"):
        (worked.root / path).chmod(0)
    worked.tree_hash()
    worked.patch()
    worked.root.chmod(0)
    worked.tree_hash()
    worked.close()
    assert not worked.root.exists()


def test_c3_want_of_descriptors_does_not_pass_for_an_empty_tree(
    sessions: GitSessions, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = sessions.open(task, "w")

    def none_left(path: object) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "scandir", none_left)
    with pytest.raises(OSError, match="Too many"):
        worked.tree_hash()


def test_c3_a_tree_that_is_gone_is_told_from_a_volume_that_is_gone(sessions: GitSessions, task: Task) -> None:
    worked = sessions.open(task, "w")
    worked.close()
    with pytest.raises(TreeUnreadable, match="is gone"):
        worked.tree_hash()
    subprocess.run(["rm", "-rf", worked.root.parent], check=True)
    with pytest.raises(WorkspaceError, match="is gone"):
        worked.tree_hash()


@pytest.mark.parametrize(
    "end", ["kill -9 $$", "echo 'error: failed to write to x: No space left on device' >&2; exit 128"]
)
def test_a_git_that_the_machine_ends_says_nothing_of_tree_or_patch(
    sessions: GitSessions, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    worked = sessions.open(task, "w")
    (worked.root / "a.py").write_text("changed\n")
    patch, _ = worked.patch()
    ended = tmp_path / "git"
    ended.write_text(f"#!/bin/sh\n{end}\n")
    ended.chmod(0o755)
    monkeypatch.setattr(git_module, "program", lambda name: str(ended))
    for asked in (worked.patch, lambda: worked.apply(patch), lambda: sessions.effect(task, patch)):
        with pytest.raises(WorkspaceError) as error:
            asked()
        assert not isinstance(error.value, GitRefused)


def test_what_gold_and_tests_do_is_known_where_it_cannot_be_kept(sessions: GitSessions, task: Task) -> None:
    """Exports that belong to somebody else, a full disk: a patch bears no blame for it."""
    worked = sessions.open(task, "w")
    (worked.root / "a.py").write_text("changed\n")
    patch, _ = worked.patch()
    (sessions.base_tree(task).parent / "effects").write_text("in the way of a folder")
    assert sessions.effect(task, patch).keys() == {"a.py"}


def test_no_path_of_a_patch_passes_for_a_full_disk(sessions: GitSessions, task: Task) -> None:
    name = "x: No space left on device"
    patch = f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-a\n+b\n"
    with pytest.raises(BadPatch, match="No space left on device: No such file"):
        sessions.open(task, "w").apply(patch)


@pytest.mark.parametrize("lack", ["No space left on device", "Too many open files", "Input/output error"])
@pytest.mark.parametrize("before", ["", "\rfatal: unable to write x", "\u2028error: unable to write x"])
def test_v12_no_line_of_a_patch_passes_for_a_lack_of_the_machine(
    sessions: GitSessions, task: Task, lack: str, before: str
) -> None:
    """Git says again what it does not understand."""
    patch = f"@@ -1,2 +1,2 @@{before}: {lack}\n a\n-b\n+c\n"
    with pytest.raises(BadPatch):
        sessions.open(task, "w").apply(patch)


def test_c4_a_patch_that_git_would_look_at_for_ages_is_refused(
    sessions: GitSessions, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hunk with very much context, far from its place in a file of equal lines. It ends by itself where nobody waits for it."""
    monkeypatch.setattr(exports, "APPLY", Most(kib=2 << 20, cpu_s=1))
    lines, context = 400_000, 160_000
    head = "diff --git a/x b/x\n{}--- {}\n+++ b/x\n"
    made = (
        head.format("new file mode 100644\n", "/dev/null")
        + f"@@ -0,0 +1,{lines + 1} @@\n"
        + "+a\n" * lines
        + "+z\n"
    )
    hunk = (
        head.format("", "a/x") + f"@@ -5,{context + 1} +5,{context + 2} @@\n" + " a\n" * context + "+y\n z\n"
    )
    begun = time.monotonic()
    with pytest.raises(BadPatch, match="SIGXCPU"):
        sessions.open(task, "w").apply(made + hunk)
    assert time.monotonic() - begun < 60


def test_c3_files_that_cost_nothing_to_make_do_not_cost_ages_to_hash(
    sessions: GitSessions, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = sessions.open(task, "w")
    monkeypatch.setattr(manifest, "SCANNED_BYTES", 8 << 20)
    for number in range(200):
        with (worked.root / f"sparse{number:03}").open("wb") as sparse:
            sparse.truncate(4 << 20)
    begun = time.process_time()
    state = worked.tree_hash()
    assert time.process_time() - begun < 5 and worked.tree_hash() == state
    (worked.root / "sparse150").unlink()
    assert worked.tree_hash() != state
    assert "sparse090" in worked.patch()[1]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no file system in memory here")
def test_where_a_write_to_mapped_memory_does_not_show_every_file_is_looked_at(
    sessions: GitSessions, task: Task, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        assert not changes_show(Path(memory)) and changes_show(tmp_path)
        tree = replace(sessions, place=Path(memory)).open(task, "w")
        with (tree.root / "a.py").open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
            assert mapped[-2:-1] == b"2"
            mapped[-2:-1] = b"7"
        assert [change.path for change in tree.changes()] == ["a.py"] and "7" in tree.patch()[0]


def test_programs_that_the_records_of_a_tree_name_are_not_run_when_a_patch_is_applied(
    sessions: GitSessions, task: Task, tmp_path: Path
) -> None:
    tree = sessions.open(task, "w")
    git(["config", "filter.own.clean", f"touch {tmp_path / 'ran'}; cat"], cwd=tree.root)
    (tree.root / ".git" / "info").mkdir(exist_ok=True)
    (tree.root / ".git" / "info" / "attributes").write_text("* filter=own\n")
    tree.apply("--- a/new.py\n+++ b/new.py\n@@ -0,0 +1 @@\n+a = 3\n")
    assert (tree.root / "new.py").read_text() == "a = 3\n" and not (tmp_path / "ran").exists()


def test_x3_nothing_of_a_tree_is_older_than_the_tree(sessions: GitSessions, task: Task) -> None:
    """What was read, changed or made anew in an earlier tree shows in the times of its entries, and would tell the next one."""
    earlier = sessions.open(task, "w")
    os.utime(earlier.root / "a.py", ns=(1, 1))
    earlier.close()
    time.sleep(0.02)
    now = time.time_ns() - 10_000_000
    later = sessions.open(task, "w")
    entries = [path.lstat() for path in later.root.rglob("*")]
    assert entries and all(entry.st_ctime_ns > now and entry.st_atime_ns != 1 for entry in entries)
