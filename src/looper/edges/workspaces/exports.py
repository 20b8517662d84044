"""Fresh one-commit repositories, exported from bare mirrors.

An export is a base tree that is made once for a commit and can be held against the manifest that it was made with; a workspace is a
copy of it. The agent's tree is never asked about itself: changes are what its manifest and the base's differ in.
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from looper.edges.access import made_whole, shared_folder
from looper.edges.sandboxes.shell import LocalShell
from looper.edges.workspaces.archives import unpack
from looper.edges.workspaces.files import Tree
from looper.edges.workspaces.git import Most, git
from looper.edges.workspaces.gnu_patch import takes
from looper.edges.workspaces.manifest import (
    LONGEST_PATH_BYTES,
    Entry,
    Manifest,
    Scanner,
    changes_show,
    lasting,
    link_leaves_tree,
    manifest_hash,
)
from looper.edges.workspaces.mirrors import MEND, Mirror, reading, told
from looper.errors import (
    BadInput,
    BadPatch,
    DirtyWorkspace,
    GitRefused,
    JournalError,
    TreeUnreadable,
    WorkspaceError,
)
from looper.journal import UNREADABLE, replace_file
from looper.protocols import NOTHING, Effect, Environment, PathChange, Sandbox, TreeEntry
from looper.records.base import content_hash
from looper.records.task import Task
from looper.untrusted import folders_below, remove_tree

GIT = ".git"
APPLY = Most(kib=2 << 20, cpu_s=60)
"""For `git apply`: a few bytes of a packed patch unfold to any size, and a place that is far away is looked for line by line."""

LEAST_BYTES = 64 << 10
"""With less room than this a disk is full."""
_NO_ROOM = "|".join(re.escape(os.strerror(code)) for code in (errno.ENOSPC, errno.EDQUOT))
PATCH_BYTES = 256 << 20
"""Of all changed files together."""
FLAGGED = 100
"""Entries that are named although a patch cannot hold them."""


@dataclass(frozen=True, eq=False)
class BaseTrees:
    """Base trees of tasks from bare mirrors, `NAME.git` with `/` in repository names written as `__`: each is exported once into
    `exports`, as files plus a repository of one commit."""

    mirrors: Mapping[str, Path]
    """By suite and repository name, `SUITE:REPO`."""
    exports: Path
    _loaded: dict[tuple[Path, str], "Export"] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        shared_folder(self.exports)

    def base_file(self, task: Task, path: str) -> bytes | None:
        source = self._export(task).files / path
        return source.read_bytes() if source.is_file() and not source.is_symlink() else None

    def effect(self, task: Task, patch: str) -> Effect:
        return self._export(task).effect(patch)

    def base_tree(self, task: Task) -> Path:
        """The files of a task's base commit, to be read and never written. Raises BadInput or WorkspaceError."""
        return self._export(task).files

    def _export(self, task: Task, *, doubted: bool = False) -> "Export":
        """`doubted`: it is used only where it is found to be what it was made as."""
        mirror = self.mirrors.get(f"{task.suite}:{task.repo}")
        if mirror is None or not mirror.is_dir():
            raise BadInput(
                f"There is no mirror of {task.repo} for {task.instance_id}. "
                f"Run: looper bench fetch --repo {task.repo}, or name the folder that holds it with --mirrors."
            )
        key = mirror, task.base_commit
        if doubted or key not in self._loaded:
            self._loaded[key] = self._exported(mirror, task, doubted)
        return self._loaded[key]

    def _exported(self, path: Path, task: Task, doubted: bool) -> "Export":
        """The export is complete or not there at all, also with several makers. It is known by what it is made of: a commit, and what
        the mirror has in the place of objects of its tree."""
        commit, name = task.base_commit, task.repo.replace("/", "__")
        with reading(path) as mirror:
            try:
                others = mirror.replacements(commit)
            except GitRefused as error:
                raise _why(error, mirror, commit, self.exports) from error
            folder = self.exports / "-".join(
                (name, commit, *([content_hash(*others)[:16]] if others else []))
            )
            if not doubted and (found := _kept(folder)):
                return found
            with self._alone():
                if not (found := _kept(folder)) or (doubted and not found.is_as_made()):
                    _make_export(mirror, commit, folder)
                    found = Export(folder)
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Other processes that would make an export wait."""
        try:
            lock = (self.exports / ".lock").open("w")
        except OSError as error:
            raise WorkspaceError(
                f"Base trees cannot be exported below {self.exports}: {error.strerror}. Name a place that can be written to with "
                "LOOPER_HOME."
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True, eq=False)
class GitSessions(BaseTrees):
    """Working trees, copied from base trees: a copy shares no file, no object and no setting with mirror, export or other copies."""

    place: Path
    """Where new trees lie; its owner removes it as a whole."""
    sandbox: Sandbox
    environment_of: Callable[[Task], Environment]

    def __post_init__(self) -> None:
        super().__post_init__()
        shared_folder(self.place)

    @cached_property
    def _changes_show(self) -> bool:
        return changes_show(self.place)

    @property
    def sandbox_name(self) -> str:
        return self.sandbox.name

    def environment_id(self, task: Task) -> str:
        return self.environment_of(task).id

    def open(self, task: Task, purpose: str) -> "GitSession":
        """Whole, or nothing of it is left. Raises WorkspaceError, or DirtyWorkspace where the copy is not what was exported."""
        environment, name = self.environment_of(task), f"{task.instance_id}.{purpose}"
        try:
            return self._copied(self._export(task), name, environment)
        except DirtyWorkspace:
            # An export that somebody changed is made anew, and whatever is wrong then is no fault of it.
            return self._copied(self._export(task, doubted=True), name, environment)

    def _copied(self, export: "Export", name: str, environment: Environment) -> "GitSession":
        root = self.place / f"{name}-{secrets.token_hex(4)}"
        try:
            copy_tree(export.files, root, self.sandbox.owner)
            return GitSession(root, export, self.sandbox, environment, Scanner(root, self._changes_show))
        except BaseException:
            remove_tree(root)
            raise


class Export:
    """A base tree as files, its manifest, and a repository of one commit, all owned by the harness."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.files = folder, folder / "files"
        self.tree = _read_tree(folder)
        self.manifest: Manifest = lasting(self.tree)
        self.state = manifest_hash(self.manifest)
        self._effects: dict[str, Effect] = {}

    def is_as_made(self) -> bool:
        return Scanner(self.files).scan(everything=True) == self.tree

    def effect(self, patch: str) -> Effect:
        """Of gold and tests of a task, asked for again with every verdict, and so kept beside the tree: git takes as long over them
        as over the patch that is judged."""
        if patch not in self._effects:
            place = self._folder / "effects" / f"{content_hash(patch)}.json"
            try:
                self._effects[patch] = _read_effect(place)
            except (OSError, *UNREADABLE):
                self._effects[patch] = _effect(self.files, patch)
                # Exports of somebody else's, a full disk: it is found again.
                with contextlib.suppress(OSError, JournalError):
                    _keep_effect(self._effects[patch], place)
        return self._effects[patch]


def _kept(folder: Path) -> Export | None:
    """One that was made before; none where it is not there or is no more what it was made as."""
    try:
        return Export(folder)
    except (FileNotFoundError, NotADirectoryError, *UNREADABLE):
        return None


def _read_tree(folder: Path) -> Manifest:
    entries = json.loads((folder / "tree.json").read_text())
    return {os.fsdecode(bytes.fromhex(path)): Entry(**entry) for path, entry in entries.items()}


def _keep_tree(folder: Path) -> Manifest:
    tree = Scanner(folder / "files").scan(everything=True)
    rows = {os.fsencode(path).hex(): asdict(entry) for path, entry in tree.items()}
    replace_file(folder / "tree.json", json.dumps(rows).encode())
    return tree


def _read_effect(place: Path) -> Effect:
    """Raises OSError, or one of UNREADABLE, where none is kept."""

    def entry(kept: tuple[str, str] | None) -> TreeEntry | None:
        return kept and TreeEntry(kept[0], base64.b64decode(kept[1]))

    rows = json.loads(place.read_text())
    return {name: (entry(before), entry(after)) for name, (before, after) in rows.items()}


def _keep_effect(effect: Effect, place: Path) -> None:
    rows = {
        name: [entry and (entry.mode, base64.b64encode(entry.content).decode()) for entry in sides]
        for name, sides in effect.items()
    }
    place.parent.mkdir(exist_ok=True)
    replace_file(place, json.dumps(rows).encode())


def _effect(files: Path, patch: str) -> Effect:
    """By applying it to the index of the export; index and objects are scratch, or a workspace would hold the fix."""
    if not patch.strip():
        return {}
    with tempfile.TemporaryDirectory(prefix="looper-effect-") as folder:
        scratch = Path(folder)
        (scratch / "objects").mkdir()
        shutil.copyfile(files / ".git/index", scratch / "index")
        own = {
            "GIT_INDEX_FILE": str(scratch / "index"),
            "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(files / ".git/objects"),
        }
        data = patch.encode("utf-8", "surrogateescape")
        try:
            git(["apply", "--cached", "--whitespace=nowarn", "-"], cwd=files, stdin=data, variables=own)
        except GitRefused as error:
            raise BadPatch(_said(error)) from error
        asked = ["diff-index", "--cached", "--name-status", "-z", "--no-renames", "HEAD"]
        fields = git(asked, cwd=files, variables=own).split(b"\0")
        changed = dict(zip(fields[1::2], fields[::2], strict=False))
        there = b"".join(path + b"\0" for path, status in changed.items() if status != b"D")
        out = ["checkout-index", "--force", f"--prefix={scratch}/after/", "-z", "--stdin"]
        git(out, cwd=files, stdin=there, variables=own)
        names = [os.fsdecode(path) for path in changed]
        return {name: (_entry(files / name), _entry(scratch / "after" / name)) for name in names}


def _entry(place: Path) -> TreeEntry | None:
    mode = _kind_of(place)
    if stat.S_ISLNK(mode):
        return TreeEntry("120000", os.fsencode(os.readlink(place)))
    if not stat.S_ISREG(mode):
        return None
    return TreeEntry("100755" if mode & 0o100 else "100644", place.read_bytes())


def _said(error: GitRefused) -> str:
    return re.sub(r"^git apply failed in .*?: (error: |fatal: )?", "", str(error))


def _make_export(mirror: Mirror, commit: str, folder: Path) -> None:
    """Whole or not there. Raises BadInput or WorkspaceError, with what to do."""
    if mirror.git("cat-file", "--batch-check", stdin=commit.encode()).split()[1:] == [b"missing"]:
        raise BadInput(
            f"The mirror {mirror.path} does not hold the base commit {commit}. Fetch it again, or use a complete one."
        )
    # Whoever makes an export holds the lock: what others began is of processes that were killed.
    remove_tree(*(left for left in folder.parent.glob(".*-*") if left.is_dir()))
    temporary = folder.with_name(f".{folder.name}")
    try:
        _fill(mirror, commit, temporary / "files")
        _keep_tree(temporary)
        _swap(temporary, folder)
    except (WorkspaceError, JournalError, OSError) as error:
        raise _why(error, mirror, commit, temporary) from error
    finally:
        remove_tree(temporary)


def _why(error: Exception, mirror: Mirror, commit: str, place: Path) -> WorkspaceError:
    """What kept a base tree from being exported, in words: the disk, an object of the mirror, or what was said."""
    said = " ".join(str(error).split()).rstrip(".")
    if full := full_disk(place.parent, said):
        return WorkspaceError(
            f"The base tree of {commit[:12]} cannot be exported. {full} Make room there, or name another place with LOOPER_HOME."
        )
    if isinstance(error, GitRefused):
        with contextlib.suppress(GitRefused):
            if faults := mirror.faults([commit]):
                return WorkspaceError(f"Base commit {commit[:12]}: {told(mirror.path, faults)}")
        return WorkspaceError(f"The mirror {mirror.path} gives no tree of {commit[:12]}: {said}. {MEND}")
    return WorkspaceError(
        f"The base tree of {commit[:12]} of {mirror.path} cannot be exported: {said}. Fix that, and run the same command again."
    )


def full_disk(folder: Path, said: str) -> str:
    """A sentence where what a program said, or what is left below a folder, tells that nothing more fits; else nothing."""
    found = os.statvfs(folder)
    left = found.f_bavail * found.f_frsize
    if re.search(_NO_ROOM, said) or left < LEAST_BYTES or (found.f_files and not found.f_favail):
        return f"No room is left below {folder} ({left >> 10} KiB are free)."
    return ""


def _swap(made: Path, folder: Path) -> None:
    """Put an export in its place; one that is no more what it was is taken from there first."""
    old = folder.with_name(f".{folder.name}-old")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    made.rename(folder)
    remove_tree(old)


def _fill(mirror: Mirror, commit: str, files: Path) -> None:
    files.mkdir(parents=True)
    git(["init", "--quiet", "--template="], cwd=files)
    tree = mirror.tree(commit)
    if _take_objects(mirror, tree, files) and _is_plain(tree, files):
        made = git(["commit-tree", tree, "-m", "base"], cwd=files)
        git(["update-ref", "HEAD", made.decode().strip()], cwd=files)
        git(["read-tree", "HEAD"], cwd=files)
        git(["checkout-index", "--all", "--index"], cwd=files)
        return
    if faults := mirror.faults([commit]):
        # Nothing else would notice: an archive is of whatever stands under a name.
        raise GitRefused(told(mirror.path, faults))
    unpack(mirror.git("archive", "--format=tar", commit), files, links_may_leave=True)
    # Forced: files that the repository's own ignore rules name are part of its base tree all the same.
    git(["add", "--all", "--force"], cwd=files)
    git(["commit", "--quiet", "--message", "base", "--no-verify"], cwd=files)
    # One pack in place of an object per file, and nothing that the one commit does not reach.
    git(["repack", "-a", "-d", "--quiet", "--window=0"], cwd=files)


def _take_objects(mirror: Mirror, tree: str, files: Path) -> bool:
    """The objects of the one tree as the mirror has packed them, which costs a fourth of hashing and packing its files anew, and
    under the names that their contents have. False for a mirror that lacks one, or has another in its place."""
    if mirror.replaced:
        return False
    asked = ["pack-objects", "--quiet", "--revs", "--stdout", "--window=0"]
    try:
        pack = mirror.git(*asked, stdin=f"{tree}\n".encode())
    except GitRefused:
        return False
    git(["index-pack", "--stdin"], cwd=files, stdin=pack)
    return True


def _is_plain(tree: str, files: Path) -> bool:
    """Whether an archive of the tree holds what the tree holds: no submodule, and no attribute that leaves out or writes anew."""
    listed = git(["ls-tree", "-r", "-z", "--full-tree", tree], cwd=files)
    rows = [row.partition(b"\t") for row in listed.split(b"\0")[:-1]]
    attributes = [head.split()[2] for head, _, path in rows if path.split(b"/")[-1] == b".gitattributes"]
    return not any(b" commit " in head for head, _, _ in rows) and not any(
        b"export-" in git(["cat-file", "blob", name.decode()], cwd=files) for name in attributes
    )


def copy_tree(source: Path, target: Path, owner: int | None) -> None:
    """Copy files with their times, links as links; sharing blocks on disk where the file system can copy on write."""
    # `chown` runs inside the same shell: starting two programs costs half of a small workspace.
    copy = 'cp -Rcp "$1" "$2"' if sys.platform == "darwin" else 'cp -a --reflink=auto -- "$1" "$2"'
    script = copy if owner is None else f'{copy} && chown -R -h {owner}:{owner} -- "$2"'
    done = subprocess.run(["/bin/sh", "-c", script, "copy", str(source), str(target)], capture_output=True)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = lines[-1] if lines else f"copying ended with {done.returncode}"
        full = full_disk(target.parent, said)
        mend = (
            f"{full} Make room there, or name another place with LOOPER_WORKSPACES."
            if full
            else "Run the same command again."
        )
        raise WorkspaceError(f"Cannot make the workspace {target}: {said}. {mend}")


def provided(place: Path, files: Mapping[str, bytes]) -> Path:
    """A folder with these files below `place`, for whoever may enter that."""
    folder = place / f"runners-{content_hash(*(data.decode() for data in files.values()))[:12]}"
    if not folder.is_dir():
        with made_whole(folder) as made:
            for name, data in files.items():
                (made / name).write_bytes(data)
                (made / name).chmod(0o644)
    return folder


class GitSession(LocalShell):
    """One working tree. Nothing that the agent could have written is ever read as configuration."""

    def __init__(
        self, root: Path, export: Export, sandbox: Sandbox, environment: Environment, scanner: Scanner
    ) -> None:
        """Raises DirtyWorkspace."""
        super().__init__(root, sandbox, environment)
        self._export, self._owner = export, sandbox.owner
        self._files = Tree(root, self._owner)
        self._scanner = scanner
        self._base = self._scanner.scan(everything=True)
        self.clean_state = export.state
        self._must_be_clean()

    def _must_be_clean(self) -> None:
        """The tree equals the base tree, ignored and cached files included."""
        if self._base != self._export.tree:
            raise DirtyWorkspace(
                f"A copy of {self._export.files} did not equal it, and is removed. Run the same command again."
            )

    def tree_hash(self) -> str:
        return manifest_hash(self._scanner.scan())

    def read(self, path: str) -> bytes:
        return self._files.read(path)

    def write(self, path: str, content: bytes) -> None:
        self._files.write(path, content)

    def patch(self) -> tuple[str, tuple[str, ...]]:
        """By comparing trees: changed entries are copied to a clean place and compared there by git. Raises TreeUnreadable."""
        base, final = self._export.manifest, self._scanner.scan()
        changed = sorted(path for path in base.keys() | final.keys() if base.get(path) != final.get(path))
        unfit = {path for path in changed if path in final and not self._fits_a_patch(path, final[path])}
        flagged = _shown(sorted(unfit))
        wanted = [path for path in changed if path not in unfit]
        if not wanted:
            return "", flagged
        self._must_be_comparable(path for path in wanted if path in final)
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
        except GitRefused as error:
            raise TreeUnreadable(f"git cannot compare the tree with its base: {error}") from error
        finally:
            remove_tree(place)
        return diff.decode("utf-8", "surrogateescape"), flagged

    def _fits_a_patch(self, path: str, entry: Entry) -> bool:
        if not entry.is_whole or len(os.fsencode(path)) > LONGEST_PATH_BYTES:
            return False
        if ".git" in path.lower().split("/"):
            return False  # Git refuses a whole patch that holds such a name.
        return entry.mode != "120000" or not link_leaves_tree(path, os.readlink(self.root / path))

    def _must_be_comparable(self, paths: Iterable[str]) -> None:
        total = sum(os.lstat(self.root / path).st_size for path in paths)
        if total > PATCH_BYTES:
            raise TreeUnreadable(
                f"the changed files hold {total >> 20} MiB, more than a patch may ({PATCH_BYTES >> 20})"
            )

    def apply(self, patch: str, *options: str) -> None:
        """For trees that no agent has worked in: git's apply refuses paths outside, through links, and into its records."""
        data = patch.encode("utf-8", "surrogateescape")
        try:
            arguments = ["apply", "--whitespace=nowarn", *options, "-"]
            # By the harness's own records: those in the tree belong to whoever works in it, and their settings name programs.
            own = {"GIT_DIR": str(self._export.files / GIT), "GIT_WORK_TREE": str(self.root)}
            git(arguments, cwd=self.root, stdin=data, variables=own, most=APPLY)
        except GitRefused as error:
            raise BadPatch(_said(error)) from error
        finally:
            self._give_all()

    def apply_by_gnu_patch(self, patch: str) -> bool:
        with self._without_git():
            return takes(patch, self.root, self._sandbox)

    def _give(self, paths: Iterable[str]) -> None:
        """Entries that the harness made, and the folders above them, to the user that commands run as."""
        if self._owner is None:
            return
        made = {place for path in paths for place in (path, *map(str, PurePosixPath(path).parents))}
        for place in made:
            os.chown(self.root / place, self._owner, self._owner, follow_symlinks=False)

    def _give_all(self) -> None:
        """With the empty folders that a failed attempt left: the next one must be able to write there. What is given already is left
        alone: it would be hashed anew, since giving changes its times."""
        if self._owner is None:
            return
        for folder, entries in folders_below(str(self.root)):
            if folder == str(self.root):
                entries[:] = [entry for entry in entries if entry.name != GIT]
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_uid != self._owner:
                    os.chown(entry.path, self._owner, self._owner, follow_symlinks=False)

    def changes(self) -> tuple[PathChange, ...]:
        base, final = self._base, self._scanner.scan(everything=True)
        changed = sorted(path for path in base.keys() | final.keys() if base.get(path) != final.get(path))
        if any(len(os.fsencode(path)) > LONGEST_PATH_BYTES for path in changed):
            raise TreeUnreadable("its folders lie too deeply in one another")
        return tuple(PathChange(path, _mode(base.get(path)), _mode(final.get(path))) for path in changed)

    def base_paths(self) -> Collection[str]:
        return self._base.keys()

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.root / path)

    @cached_property
    def _base_folders(self) -> frozenset[PurePosixPath]:
        return frozenset(folder for path in self._base for folder in PurePosixPath(path).parents)

    def put_back(self, paths: Iterable[str]) -> None:
        paths = set(paths)
        if not paths:
            return
        there = self._scanner.scan(everything=True)
        for path in paths & there.keys():
            _remove(self.root / path)
            for folder in PurePosixPath(path).parents:
                if folder in self._base_folders or os.listdir(self.root / folder):
                    break
                (self.root / folder).rmdir()
        for path in paths & self._base.keys():
            self._make_way(path)
            _copy_entry(self._export.files / path, self.root / path, self._base[path])
        self._give(paths & self._base.keys())

    def place(self, path: str, entry: TreeEntry | None) -> None:
        if entry is None:
            if path in self._scanner.scan(everything=True):
                _remove(self.root / path)
            return
        self._make_way(path)
        target = self.root / path
        if entry.mode == "120000":
            os.symlink(entry.content, os.fsencode(target))
        else:
            target.write_bytes(entry.content)
            target.chmod(0o755 if entry.mode == "100755" else 0o644)
        self._give([path])

    def _make_way(self, path: str) -> None:
        """Folders above a path, real ones, and nothing at the path itself."""
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            if not stat.S_ISDIR(_kind_of(self.root / folder)):
                _remove(self.root / folder)
                (self.root / folder).mkdir()
        _remove(self.root / path)

    @contextlib.contextmanager
    def _without_git(self) -> Iterator[None]:
        """For as long as a program works that might write to git's own records, an empty folder stands in for them."""
        (self.root / GIT).rename(self._git_aside)
        try:
            # Empty, so that writing there does what it would have done, and is gone afterwards.
            (self.root / GIT).mkdir()
            self._give([GIT])
            yield
        finally:
            _remove(self.root / GIT)
            self._git_aside.rename(self.root / GIT)

    @property
    def _git_aside(self) -> Path:
        return self.root.with_name(f"{self.root.name}.git")

    def results(self) -> Path:
        folder = self.root.with_name(f"{self.root.name}.results")
        folder.mkdir(mode=0o700)
        if self._owner is not None:
            os.chown(folder, self._owner, self._owner)
        return folder

    def provide(self, files: Mapping[str, bytes]) -> Path:
        return provided(self.root.parent, files)

    def close(self) -> None:
        """Remove the tree, whatever permissions and depth the agent gave it."""
        beside = (self.root.with_name(f"{self.root.name}.{end}") for end in ("tmp", "results"))
        remove_tree(self.root, *beside, self._git_aside)


def _mode(entry: Entry | None) -> str:
    return NOTHING if entry is None else entry.mode


def _kind_of(place: Path) -> int:
    """Mode of an entry, itself and not what it links to; 0 where nothing is."""
    try:
        return place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _remove(place: Path) -> None:
    """Whatever is there, which no process uses any more."""
    mode = _kind_of(place)
    if stat.S_ISDIR(mode):
        remove_tree(place)
    elif mode:
        place.unlink()


def _shown(paths: Sequence[str]) -> tuple[str, ...]:
    """For a record: names of any length and in any number are the agent's to choose."""
    shown = [path if len(path) <= 200 else f"{path[:100]}…{path[-99:]}" for path in paths[:FLAGGED]]
    return (*shown, *([f"and {len(paths) - FLAGGED} more"] if len(paths) > FLAGGED else []))


def _copy_entry(source: Path, target: Path, entry: Entry) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.mode == "120000":
        target.symlink_to(os.readlink(source))
        return
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream, target.open("wb") as copy:
        shutil.copyfileobj(stream, copy)
    target.chmod(0o755 if entry.mode == "100755" else 0o644)
