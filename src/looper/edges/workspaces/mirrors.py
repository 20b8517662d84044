"""Bare mirrors of repositories: cloned once, read as data, held against the commits that tasks begin with.

A mirror was made by somebody else, and its configuration, hooks and attributes could run programs. So git reads its objects with a
configuration of our own, and every tree is held against its hash before a task begins with it.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from looper.edges.access import shared_folder
from looper.edges.workspaces.git import NETWORK, git
from looper.errors import BadInput, GitRefused, WorkspaceError
from looper.records.base import content_hash
from looper.records.task import Task
from looper.untrusted import remove_tree

SOURCES = {
    "django/django": "swe-bench/django__django",
    "matplotlib/matplotlib": "swe-bench/matplotlib__matplotlib",
    "scikit-learn/scikit-learn": "swe-bench/scikit-learn__scikit-learn",
    "astropy/astropy": "swe-bench/astropy__astropy",
}
"""Copies that are a fraction of the size of the project's own repository."""
HOST = "https://github.com"
FETCH_TIMEOUT_S = 3600
READ_BYTES = 64 << 20
"""Of objects that are read at once; a larger one is read alone."""
_CONFIG = """[core]
\trepositoryformatversion = 0
\tbare = true
\tcommitGraph = false
\tmultiPackIndex = false
"""
"""The whole configuration that a mirror is read with. What it keeps beside its objects to find them faster could say other things than they do."""
_NO_NETWORK = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1"}
MEND = (
    "Remove the folder and fetch again, name complete mirrors with --mirrors, or put that file's content of the next release in its "
    "place: git hash-object -w, then git replace."
)


def mirror_path(folder: Path, repo: str) -> Path:
    return folder / f"{repo.replace('/', '__')}.git"


def mirrors_of(tasks: Sequence[Task], folder: Path) -> dict[str, Path]:
    """Mirrors that exist under `folder`, by suite and repository."""
    paths = {f"{task.suite}:{task.repo}": mirror_path(folder, task.repo) for task in tasks}
    return {name: path for name, path in paths.items() if path.is_dir()}


def clone(repo: str, mirror: Path) -> None:
    """Raises BadInput, and leaves no half of a mirror."""
    source = f"{HOST}/{SOURCES.get(repo, repo)}.git"
    temporary = mirror.with_name(f".{mirror.name}.part")
    with (mirror.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if mirror.is_dir():
            return  # Another process was faster.
        remove_tree(temporary)  # Of a process that was killed.
        try:
            git(
                ["clone", "--quiet", "--mirror", source, str(temporary)],
                cwd=mirror.parent,
                timeout_s=FETCH_TIMEOUT_S,
                inherited=NETWORK,
            )
            temporary.rename(mirror)
        except WorkspaceError as error:
            raise BadInput(
                f"Cannot clone {source}: {error} Check the network (and HTTPS_PROXY), or put a bare mirror at {mirror} and name its folder "
                "with --mirrors."
            ) from error
        finally:
            remove_tree(temporary)


@dataclass(frozen=True)
class BrokenObject:
    """An object of a base tree that cannot be read as it was written."""

    name: str
    path: str
    """In the tree; empty where it is not known."""
    why: str
    """What the mirror does to it, as a verb."""


class Mirror:
    """Objects and refs of a repository that somebody else made. Git is run on these alone, with a configuration of our own in place
    of the mirror's, whose settings name programs and servers; nothing that is not there is fetched.
    """

    def __init__(self, path: Path, view: Path) -> None:
        self.path = path
        self._variables = {"GIT_DIR": str(view), **_NO_NETWORK}

    def git(self, *arguments: str, **options: Any) -> bytes:
        """As `git`, which names the mirror where it fails."""
        return git(arguments, cwd=self.path, variables=self._variables, **options)

    def tree(self, commit: str) -> str:
        return self.git("rev-parse", "--verify", f"{commit}^{{tree}}").decode().strip()

    @cached_property
    def replaced(self) -> dict[str, str]:
        """Objects that others stand in place of, by name."""
        listed = self.git("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/replace/")
        return dict(line.split() for line in listed.decode().splitlines())

    def replacements(self, commit: str) -> list[str]:
        """Those that the tree of a commit is read through: the old name and the new one, sorted."""
        if not self.replaced:
            return []
        found: dict[str, str] = {}
        waiting = [name for name in self._objects([commit])[0] if name in self.replaced]
        while waiting:
            name = waiting.pop()
            found[name] = self.replaced[name]
            if found[name] in self.replaced.keys() - found.keys():
                waiting.append(found[name])
        return sorted(f"{old} {new}" for old, new in found.items())

    def without(self, tasks: Iterable[Task]) -> list[Task]:
        tasks = list(tasks)
        asked = "".join(f"{task.base_commit}\n" for task in tasks).encode()
        answers = self.git("cat-file", "--batch-check", stdin=asked).decode().splitlines()
        return [task for task, answer in zip(tasks, answers, strict=True) if answer.endswith("missing")]

    def faults(self, commits: Iterable[str]) -> list[BrokenObject]:
        """What of base trees is not here, or is not what its name says: every object is read and hashed. The commits must be here.
        Raises GitRefused where git cannot list them."""
        paths, absent = self._objects(sorted(set(commits)))
        found = {name: "lacks" for name in absent if name not in self.replaced}
        read = {
            self._standing_for(name): name for name in paths if name not in absent or name in self.replaced
        }
        for name, why in self._unlike(list(read)):
            found[read[name]] = why
        # A folder that is not there hides what is in it: those below it have no path.
        return [BrokenObject(name, paths.get(name, ""), why) for name, why in found.items()]

    def _standing_for(self, name: str) -> str:
        seen = {name}
        while (other := self.replaced.get(name)) and other not in seen:
            name = other
            seen.add(name)
        return name

    def _objects(self, commits: Sequence[str]) -> tuple[dict[str, str], set[str]]:
        """Names of commits, folders and files with their paths, as they are read through replacements; and those that are not there."""
        asked = ["rev-list", "--objects", "--no-walk", "--missing=print", "--stdin"]
        listed = self.git(*asked, stdin="\n".join(commits).encode()).decode("utf-8", "replace").split("\n")
        absent = {line[1:] for line in listed if line.startswith("?")}
        paths = dict(line.partition(" ")[::2] for line in listed if line and not line.startswith("?"))
        if absent - paths.keys():
            paths |= self._paths_of(absent - paths.keys(), commits)
        return paths, absent

    def _paths_of(self, names: set[str], commits: Sequence[str]) -> dict[str, str]:
        found = dict.fromkeys(names, "")
        for commit in commits:
            try:
                # What git can list before it comes to a folder that is not there.
                rows = self.git("ls-tree", "-r", "-t", "-z", commit, accept=(0, 1, 128)).split(b"\0")
            except WorkspaceError:
                continue  # A folder that lies in itself is the end of git.
            for head, _, path in (row.partition(b"\t") for row in rows if row):
                name = head.split()[2].decode()
                if found.get(name) == "":
                    found[name] = path.decode("utf-8", "replace")
        return found

    def _unlike(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Objects whose content does not have their name, with what is wrong."""
        own = ("--no-replace-objects", "cat-file")
        asked = "".join(f"{name}\n" for name in names).encode()
        batch: list[str] = []
        room = READ_BYTES
        rows = self.git(*own, "--batch-check", stdin=asked).decode("utf-8", "replace").splitlines()
        for row in rows:
            name, *rest = row.split()
            if len(rest) != 2:
                yield name, "lacks or cannot read"
                continue
            if batch and int(rest[1]) > room:
                yield from self._hashed(batch)
                batch, room = [], READ_BYTES
            batch.append(name)
            room -= int(rest[1])
        yield from self._hashed(batch)

    def _hashed(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        names = list(names)
        while names:
            asked = "".join(f"{name}\n" for name in names).encode()
            # Git ends at the first that it cannot read, and answers those before it.
            answers = self.git("--no-replace-objects", "cat-file", "--batch", stdin=asked, accept=(0, 128))
            at = 0
            while names and (end := answers.find(b"\n", at)) >= 0:
                name, *rest = answers[at:end].decode().split()
                if len(rest) != 2:
                    break
                kind, size = rest
                content = answers[end + 1 : end + 1 + int(size)]
                if len(content) < int(size):
                    break
                if hashlib.sha1(f"{kind} {size}\0".encode() + content).hexdigest() != name:
                    yield name, "holds something else in the place of"
                at = end + 2 + int(size)
                names.pop(0)
            if names:
                yield names.pop(0), "cannot read"


@contextlib.contextmanager
def reading(mirror: Path) -> Iterator[Mirror]:
    """A mirror while it is read. Raises BadInput for a folder that is no repository."""
    place = next((each for each in (mirror, mirror / ".git") if (each / "objects").is_dir()), None)
    if place is None or (place / "reftable").exists():
        why = "has no folder objects" if place is None else "keeps its refs as a table, not as files"
        raise BadInput(
            f"{mirror} is no mirror of a repository: it {why}. Remove it and run looper bench fetch, or name the folder of "
            "other mirrors with --mirrors."
        )
    with contextlib.ExitStack() as stack:
        try:
            view = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="looper-mirror-")))
            (view / "config").write_text(_CONFIG)
            (view / "HEAD").write_text("ref: refs/heads/main\n")
            for name in ("objects", "refs", "packed-refs"):
                if (place / name).exists():
                    (view / name).symlink_to((place / name).resolve())
            (view / "refs").mkdir(exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                f"Nothing can be written below {tempfile.gettempdir()}: {error.strerror}. Make room there, or name another place with TMPDIR."
            ) from error
        yield Mirror(mirror, view)


def missing_commits(mirror: Path, tasks: Sequence[Task]) -> list[Task]:
    """The tasks whose base commit a mirror does not hold. Raises BadInput."""
    with reading(mirror) as found:
        return found.without(tasks)


def packed_trees(mirror: Path, commits: Iterable[str], packs: Path) -> Path | None:
    """A mirror of the trees of commits alone, without the history before them: for a machine that has none. It is made once, below
    `packs`, whole or not at all. None for a mirror in which other objects stand in the place of its own. Raises BadInput or
    WorkspaceError."""
    wanted = sorted(set(commits))
    folder = packs / content_hash(mirror.name, *wanted)[:16]
    if folder.is_dir():
        return folder
    with reading(mirror) as found:
        if any(found.replacements(commit) for commit in wanted):
            return None
        listed = found.git("rev-list", "--objects", "--no-walk", "--stdin", stdin="\n".join(wanted).encode())
        names = b"".join(line.split(b" ", 1)[0] + b"\n" for line in listed.splitlines())
        pack = found.git("pack-objects", "--quiet", "--stdout", "--window=0", stdin=names)
    temporary = shared_folder(packs) / f".{folder.name}.{os.getpid()}.{threading.get_ident()}"
    try:
        temporary.mkdir()
        git(["init", "--quiet", "--bare", "--template="], cwd=temporary)
        git(["index-pack", "--stdin"], cwd=temporary, stdin=pack)
        with contextlib.suppress(FileExistsError):
            temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # Else another process was faster.
            raise WorkspaceError(
                f"Base trees cannot be packed below {packs}: {error.strerror}. Make room there."
            ) from error
    finally:
        remove_tree(temporary)
    return folder


def must_be_whole(mirror: Path, commits: Iterable[str]) -> None:
    """Raises BadInput where a mirror does not hold all of the trees of commits as they were written. The commits must be there."""
    with reading(mirror) as found:
        try:
            faults = found.faults(commits)
        except GitRefused as error:
            raise BadInput(f"The mirror {mirror} is damaged: {error} {MEND}") from error
    if faults:
        raise BadInput(told(mirror, faults))


def told(mirror: Path, faults: Sequence[BrokenObject]) -> str:
    first, *others = faults
    return (
        f"The mirror {mirror} {first.why} the object {first.name}{f', which is {first.path}' if first.path else ''}"
        f"{f', and {len(others)} more' if others else ''}. {MEND}"
    )
