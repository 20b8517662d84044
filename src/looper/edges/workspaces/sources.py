"""The repository whose source evolves, by its objects and refs alone: no checkout, no stash, no working tree.

`wiring.sources` makes one for each repository that evolves; campaigns read commits, make candidates and move their one branch
through it. git runs in the objects' folder, so what a person has checked out is never touched.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from looper.edges.access import made_whole
from looper.edges.workspaces.archives import unpack
from looper.edges.workspaces.git import git
from looper.errors import BadInput, GitRefused, MergeConflict, RefMoved
from looper.protocols import PathChange

NOTHING = "0" * 40


class GitSources:
    """One repository. Needs git 2.38 for merging without a working tree."""

    def __init__(self, root: Path) -> None:
        """Raises BadInput where there is no repository."""
        try:
            found = git(["rev-parse", "--absolute-git-dir"], cwd=root)
        except (GitRefused, FileNotFoundError, NotADirectoryError) as error:
            raise BadInput(f"{root} is no git repository. Name one with --repo, or run: git init.") from error
        self._folder = Path(found.decode().strip())

    @property
    def records(self) -> Path:
        """Where objects and refs lie, of all its working trees."""
        return Path(self._git("rev-parse", "--path-format=absolute", "--git-common-dir").decode().strip())

    def _git(self, *arguments: str, **options: object) -> bytes:
        return git(arguments, cwd=self._folder, **options)  # type: ignore[arg-type]

    def commit_of(self, ref: str) -> str:
        found = self._git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", accept=(0, 1, 128))
        if not found.strip():
            raise BadInput(f"There is no {ref} in {self._folder.parent}. Name a branch that is there.")
        return found.decode().strip()

    def at(self, ref: str) -> str:
        return self._git("rev-parse", "--verify", "--quiet", ref, accept=(0, 1)).decode().strip()

    def tree_of(self, commit: str) -> str:
        return self._git("rev-parse", "--verify", f"{commit}^{{tree}}").decode().strip()

    def file(self, commit: str, path: str) -> bytes | None:
        listed = self._git("ls-tree", "-z", commit, "--", path)
        if not listed:
            return None
        kind, name = listed.split(b"\t")[0].split()[1:3]
        return self._git("cat-file", "blob", name.decode()) if kind == b"blob" else None

    def changes(self, base: str, candidate: str) -> list[PathChange]:
        found = self._git("diff-tree", "-r", "-z", "--no-renames", base, candidate).decode(
            "utf-8", "surrogateescape"
        )
        parts = found.split("\0")[:-1]
        changes = []
        for head, path in zip(parts[::2], parts[1::2], strict=True):
            before, after = head.lstrip(":").split()[:2]
            changes.append(PathChange(path, before, after))
        return changes

    def listing(self, commit: str) -> dict[str, str]:
        found = self._git("ls-tree", "-r", "-z", commit).decode("utf-8", "surrogateescape")
        entries = (entry.split("\t", 1) for entry in found.split("\0")[:-1])
        return {path: " ".join(head.split()[::2]) for head, path in entries}

    def with_files(self, base: str, files: Mapping[str, bytes | None], message: str) -> str:
        lines = b""
        for path, content in files.items():
            blob = (
                ""
                if content is None
                else self._git("hash-object", "-w", "--stdin", stdin=content).decode().strip()
            )
            head = f"100644 {blob}" if blob else f"0 {NOTHING}"
            lines += f"{head}\t{path}\0".encode("utf-8", "surrogateescape")
        return self._changed(base, message, "update-index", "-z", "--index-info", stdin=lines)

    def with_patch(self, base: str, patch: str, message: str) -> str:
        data = patch.encode("utf-8", "surrogateescape")
        return self._changed(
            base, message, "apply", "--cached", "--binary", "--whitespace=nowarn", "-", stdin=data
        )

    def _changed(self, base: str, message: str, *change: str, stdin: bytes) -> str:
        """A commit on top of `base`, made in an index of its own by one command."""
        with tempfile.TemporaryDirectory(prefix="looper-index-") as folder:
            own = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self._git("read-tree", base, variables=own)
            self._git(*change, stdin=stdin, variables=own)
            tree = self._git("write-tree", variables=own).decode().strip()
        return self._git("commit-tree", tree, "-p", base, "-m", message).decode().strip()

    def diff(self, base: str, candidate: str) -> str:
        arguments = (
            "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color",
        )  # fmt: skip
        found = self._git(
            "diff-tree", "-p", "--src-prefix=a/", "--dst-prefix=b/", *arguments, base, candidate
        )
        return found.decode("utf-8", "surrogateescape")

    def uncommitted(self, paths: Sequence[str]) -> tuple[str, ...]:
        for folder in self._working_trees():
            found = git(["status", "--porcelain", "-z", "--untracked-files=all", "--", *paths], cwd=folder)
            names = [entry[3:] for entry in found.decode("utf-8", "surrogateescape").split("\0") if entry[3:]]
            if names:
                return tuple(names)
        return ()

    def merged(self, base: str, candidate: str) -> str:
        found = self._git(
            "merge-tree", "--write-tree", "--name-only", "--no-messages", base, candidate, accept=(0, 1)
        ).decode("utf-8", "surrogateescape")
        tree, *conflicts = found.splitlines()
        if conflicts:
            raise MergeConflict(f"Both sides changed {', '.join(name for name in conflicts if name)}.")
        return tree

    def merge_commit(self, tree: str, base: str, candidate: str, message: str) -> str:
        return self._git("commit-tree", tree, "-p", base, "-p", candidate, "-m", message).decode().strip()

    def move(self, ref: str, commit: str, expected: str) -> None:
        try:
            self._git("update-ref", ref, commit, expected or NOTHING)
        except GitRefused as error:
            now = self.at(ref)
            if now == commit:
                return  # Done before, by a process that ended right after.
            raise RefMoved(
                f"{ref} is at {now[:12] or 'nothing'} and was expected at {expected[:12] or 'nothing'}: another process moved it."
            ) from error

    def checked_out(self, ref: str) -> Path | None:
        return next((folder for folder, branch in self._working_trees().items() if branch == ref), None)

    def _working_trees(self) -> dict[Path, str]:
        """Each with the branch that is checked out in it; a bare repository has none."""
        found: dict[Path, str] = {}
        for entry in self._git("worktree", "list", "--porcelain").decode().split("\n\n"):
            lines = dict(line.partition(" ")[::2] for line in entry.splitlines())
            if lines and "bare" not in lines and "prunable" not in lines:
                found[Path(lines["worktree"])] = lines.get("branch", "")
        return found

    def export(self, tree: str, folder: Path) -> None:
        if not folder.is_dir():
            with made_whole(folder) as made:
                # Links that leave the tree are refused: this is what an agent made.
                unpack(self._git("archive", "--format=tar", tree), made, links_may_leave=False)


def new_repository(root: Path, files: Mapping[str, bytes]) -> None:
    """A bare repository with one commit on `main`, whole or not there."""
    with made_whole(root) as folder:
        git(["init", "--quiet", "--bare", "--template="], cwd=folder)
        made = GitSources(folder)
        empty = git(["hash-object", "-w", "-t", "tree", "--stdin"], cwd=folder, stdin=b"").decode().strip()
        nothing = git(["commit-tree", empty, "-m", "nothing yet"], cwd=folder).decode().strip()
        made.move("refs/heads/main", made.with_files(nothing, files, "the beginning"), "")
