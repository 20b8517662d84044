"""Fresh one-commit repositories, exported from bare mirrors."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from looper.edges.access import shared_folder
from looper.edges.workspaces.archives import unpack
from looper.edges.workspaces.files import Tree
from looper.edges.workspaces.git import git
from looper.edges.workspaces.manifest import Entry, Manifest, Scanner, link_leaves_tree, manifest_hash
from looper.errors import BadInput, BadPatch, DirtyWorkspace, WorkspaceError
from looper.records.task import Task


class GitWorkspaces:
    """Working trees from bare mirrors, `NAME.git` with `/` in repository names written as `__`.

    A base tree is exported once into `exports`, as files plus a repository of one commit, and copied from there: the
    copy shares no file, no object and no setting with mirror, export or other copies.
    """

    def __init__(
        self, mirrors: Mapping[str, Path], exports: Path, workspaces: Path, owner: int | None
    ) -> None:
        """`mirrors` by suite and repository name, `SUITE:REPO`."""
        self._mirrors, self._exports, self._workspaces, self._owner = mirrors, exports, workspaces, owner
        self._loaded: dict[Path, Export] = {}
        for folder in (exports, workspaces):
            shared_folder(folder)

    def at(self, place: Path) -> "GitWorkspaces":
        """As these, with new trees elsewhere."""
        return GitWorkspaces(self._mirrors, self._exports, place, self._owner)

    def create(self, task: Task, name: str) -> "GitWorkspace":
        """Raises WorkspaceError, or DirtyWorkspace where the copy is not what was exported."""
        export = self._export(task)
        root = self._workspaces / f"{name}-{secrets.token_hex(4)}"
        _copy_tree(export.files, root, self._owner)
        return GitWorkspace(root, export, self._owner)

    def base_file(self, task: Task, path: str) -> bytes | None:
        source = self._export(task).files / path
        return source.read_bytes() if source.is_file() and not source.is_symlink() else None

    def base_tree(self, task: Task) -> Path:
        """The files of a task's base commit, to be read and never written. Raises BadInput or WorkspaceError."""
        return self._export(task).files

    def _export(self, task: Task) -> "Export":
        mirror = self._mirrors.get(f"{task.suite}:{task.repo}")
        if mirror is None or not mirror.is_dir():
            raise BadInput(
                f"There is no mirror of {task.repo} for {task.instance_id}. "
                f"Run: looper bench fetch --repo {task.repo}, or name the folder that holds it with --mirrors."
            )
        folder = self._exports / f"{mirror.name.removesuffix('.git')}-{task.base_commit}"
        if folder not in self._loaded:
            self._make_once(mirror, task.base_commit, folder)
            self._loaded[folder] = Export(folder)
        return self._loaded[folder]

    def _make_once(self, mirror: Path, commit: str, folder: Path) -> None:
        """The export is complete or not there at all, also with several makers."""
        if folder.is_dir():
            return
        with (self._exports / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _make_export(mirror, commit, folder)


class Export:
    """A base tree as files, its manifest, and a repository of one commit, all owned by the harness."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        entries = json.loads((folder / "manifest.json").read_text())
        self.manifest: Manifest = {
            os.fsdecode(bytes.fromhex(path)): Entry(**entry) for path, entry in entries.items()
        }
        self.state = manifest_hash(self.manifest)


def _make_export(mirror: Path, commit: str, folder: Path) -> None:
    try:
        git(["cat-file", "-e", f"{commit}^{{commit}}"], cwd=mirror)
    except WorkspaceError as error:
        raise BadInput(
            f"The mirror {mirror} does not hold the base commit {commit}. Fetch it again, or use a complete one."
        ) from error
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    files = temporary / "files"
    files.mkdir(parents=True)
    unpack(git(["archive", "--format=tar", commit], cwd=mirror), files, links_may_leave=True)
    manifest = Scanner(files).scan()
    git(["init", "--quiet", "--template="], cwd=files)
    # Forced: files that the repository's own ignore rules name are part of its base tree all the same.
    git(["add", "--all", "--force"], cwd=files)
    git(["commit", "--quiet", "--message", "base", "--no-verify"], cwd=files)
    # One pack in place of an object per file: every workspace is a copy, and copying costs by the file.
    git(["repack", "-a", "-d", "--quiet"], cwd=files)
    entries = {os.fsencode(path).hex(): asdict(entry) for path, entry in manifest.items()}
    (temporary / "manifest.json").write_text(json.dumps(entries))
    temporary.rename(folder)


def _copy_tree(source: Path, target: Path, owner: int | None) -> None:
    """Copy files with their times, links as links; sharing blocks on disk where the file system can copy on write."""
    # `chown` runs inside the same shell: starting two programs costs half of a small workspace.
    copy = 'cp -Rcp "$1" "$2"' if sys.platform == "darwin" else 'cp -a --reflink=auto -- "$1" "$2"'
    _by_shell(copy if owner is None else f"{copy} && {_give(owner)}", source, target)


def _give_tree(root: Path, owner: int) -> None:
    """Let the user whom commands run as have a tree, however deep. Raises WorkspaceError."""
    _by_shell(_give(owner), root, root)


def _give(owner: int) -> str:
    return f'chown -R -h {owner}:{owner} -- "$2"'


def _by_shell(script: str, source: Path, target: Path) -> None:
    done = subprocess.run(["/bin/sh", "-c", script, "copy", str(source), str(target)], capture_output=True)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = lines[-1] if lines else f"copying ended with {done.returncode}"
        raise WorkspaceError(f"Cannot make the workspace {target}: {said}.")


class GitWorkspace:
    """One working tree. Nothing that the agent could have written is ever read as configuration."""

    def __init__(self, root: Path, export: Export, owner: int | None) -> None:
        """Raises DirtyWorkspace."""
        self.root = root
        self._export, self._owner = export, owner
        self._files = Tree(root, owner)
        self._scanner = Scanner(root)
        self.clean_state = manifest_hash(self._scanner.scan())
        self._must_be_clean()

    def _must_be_clean(self) -> None:
        """The tree equals the base tree, ignored and cached files included, and its repository holds one commit."""
        if self.clean_state != self._export.state:
            raise DirtyWorkspace(f"{self.root} does not equal its base tree. Remove it and run again.")

    def state(self) -> str:
        return manifest_hash(self._scanner.scan())

    def read_file(self, path: str) -> bytes:
        return self._files.read(path)

    def write_file(self, path: str, content: bytes) -> None:
        self._files.write(path, content)

    def patch(self) -> tuple[str, tuple[str, ...]]:
        """By comparing trees: changed entries are copied to a clean place and compared there by git."""
        base, final = self._export.manifest, self._scanner.scan()
        changed = sorted(path for path in base.keys() | final.keys() if base.get(path) != final.get(path))
        flagged = tuple(
            path for path in changed if path in final and not self._fits_a_patch(path, final[path])
        )
        wanted = [path for path in changed if path not in flagged]
        if not wanted:
            return "", flagged
        place = self.root.with_name(f"{self.root.name}.diff")
        remove_tree(place)
        try:
            for side, tree, manifest in (("a", self._export.files, base), ("b", self.root, final)):
                (place / side).mkdir(parents=True)
                for path in wanted:
                    if path in manifest:
                        _copy_entry(tree / path, place / side / path, manifest[path])
            # Without an index git diffs two folders; without prefixes the folders' own names become a/ and b/.
            arguments = ["diff", "--no-index", "--binary", "--full-index", "--no-renames", "--no-prefix"]
            arguments += ["--no-ext-diff", "--no-textconv", "--no-color", "a", "b"]
            diff = git(arguments, cwd=place, accept=(0, 1))
        finally:
            remove_tree(place)
        return diff.decode("utf-8", "surrogateescape"), flagged

    def _fits_a_patch(self, path: str, entry: Entry) -> bool:
        if entry.mode == "120000":
            return not link_leaves_tree(path, os.readlink(self.root / path))
        return entry.mode in ("100644", "100755") and entry.digest != "unreadable"

    def apply(self, patch: str) -> None:
        """For trees that no agent has worked in: git's apply refuses paths outside and through links."""
        if not patch.strip():
            return
        data = patch.encode("utf-8", "surrogateescape")
        try:
            git(["apply", "--binary", "--whitespace=nowarn", "-"], cwd=self.root, stdin=data)
        except WorkspaceError as error:
            raise BadPatch(f"The patch does not apply: {error}") from error
        if self._owner is not None:
            _give_tree(self.root, self._owner)

    def close(self) -> None:
        """Remove the tree, whatever permissions and depth the agent gave it."""
        for place in (self.root, self.root.with_name(f"{self.root.name}.tmp")):
            remove_tree(place)


def remove_tree(folder: Path) -> None:
    """By `rm`: Python's own removal ends at its recursion limit, and at folders without rights."""
    with contextlib.suppress(OSError):
        return folder.rmdir()  # Without starting a program where it is empty.
    for script in ('rm -rf -- "$1"', 'chmod -R u+rwx -- "$1"; rm -rf -- "$1"'):
        if os.path.lexists(folder):
            subprocess.run(["/bin/sh", "-c", script, "remove", str(folder)], capture_output=True)


def _copy_entry(source: Path, target: Path, entry: Entry) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.mode == "120000":
        target.symlink_to(os.readlink(source))
        return
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream, target.open("wb") as copy:
        shutil.copyfileobj(stream, copy)
    target.chmod(0o755 if entry.mode == "100755" else 0o644)
