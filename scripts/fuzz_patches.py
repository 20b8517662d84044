"""Generated patches through the verdict's own door, beside git and SWE-bench's three attempts on a copy of the same tree.

    python scripts/fuzz_patches.py --number 20000 --seed 1
    python scripts/fuzz_patches.py --parity

Each patch is applied twice: by `bench.verify.apply_candidate`, and by the programs themselves (`git apply`, `git apply --reject`,
`patch --batch --fuzz=5 -p1`) in a repository of its own, where `git status` says what changed. Which attempt applied it, what was
put back, the share of gold's files, and every entry of the tree must be the same. Which of the names used here are protected
stands in a list made by hand. `--parity` prints what was applied how, and the differences that are declared.
"""

import argparse
import difflib
import itertools
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from looper.bench.verify import AppliedPatch, VerifierContext, apply_candidate, effect_of_tests
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces.exports import GitSessions, remove_tree
from looper.errors import BadPatch, InfrastructureError
from looper.protocols import Environment
from looper.records.plan import Limits
from looper.records.task import Runner, Task

Tree = dict[str, tuple[str, bytes]]
"""Path → mode in git's digits, content."""
TEXT = b"".join(b"def function_%d(value):\n    return value + %d\n\n" % (at, at * 7) for at in range(9))
BASE: Tree = {
    "pkg/__init__.py": ("100644", b"VERSION = 1\n"),
    "pkg/a.py": ("100644", TEXT),
    "pkg/b.py": ("100644", TEXT.replace(b"value", b"thing")),
    "pkg/sub/c.py": ("100644", TEXT.replace(b"def", b"async def")),
    "pkg/\u00fc \u00f1.py": ("100644", b"one = 1\ntwo = 2\nthree = 3\n"),
    'pkg/q"uote.py': ("100644", b"one = 1\ntwo = 2\n"),
    "pkg/tab\tname.py": ("100644", b"one = 1\n"),
    "pkg/lines.py": ("100644", TEXT.replace(b"\n", b"\r\n")),
    "pkg/open_end.py": ("100644", b"one = 1\ntwo = 2\nthree = 3"),
    "pkg/empty.py": ("100644", b""),
    "pkg/data.bin": ("100644", bytes(range(256)) * 3),
    "pkg/commands/__init__.py": ("100644", b""),
    "run.sh": ("100755", b"#!/bin/sh\necho one\necho two\n"),
    "link": ("120000", b"pkg/a.py"),
    "folder_link": ("120000", b"pkg"),
    "code/util.py": ("100644", b"one = 1\ntwo = 2\n"),
    "email/__init__.py": ("100644", b"one = 1\n"),
    "docs/index.txt": ("100644", b"Title\n=====\n\nText.\n"),
    "tests/__init__.py": ("100644", b""),
    "tests/test_a.py": ("100644", b"def test_a():\n    assert 1\n\n\ndef test_b():\n    assert 2\n"),
    "tests/helper.py": ("100644", b"HELP = 1\nMORE = 2\n"),
    "setup.cfg": ("100644", b"[metadata]\nname = pkg\n"),
    "tox.ini": ("100644", b"[tox]\n"),
}
PRODUCT = (
    "pkg/new.py", "new.py", "docs/more.txt", "pkg/json.py", "code/extra.py", "email/extra.py", "pkg/\u00fcn\u00ef.py",
    "pkg/new space.py", 'pkg/"quoted".py', "pkg/t\tab.py", "pkg/back\\slash.py", "pkg/new\nline.py", "data.bin",
    "one/two/three.py", "pkg/commands/test.py", "pkg/contest.py", "-dash.py", "pkg/kept.orig", "requirements.txt",
)  # fmt: skip
PROTECTED = (
    "conftest.py", "pkg/conftest.py", "tests/test_new.py", "tests/test_hidden.py", "test_x.py", "pkg/x_test.py", "pytest.ini",
    ".pytest.ini", "pytest.toml", "json.py", "json/__init__.py", "json/more.py", "src/re.py", "code/__init__.py",
    "sitecustomize.py", "lib/x.pth", "pkg/c.pyc", "pkg/__pycache__/a.cpython-311.pyc", "_pytest/x.py",
    "x.egg-info/entry_points.txt", "tests/\u00fc.py", "testing/x.py", "pkg/x.so", "sub/tests/data.txt",
)  # fmt: skip
ANYWHERE = (
    "conftest.py", "tests/test_new.py", "tests/test_hidden.py", "test_x.py", "pkg/x_test.py",
    "sitecustomize.py", "lib/x.pth", "pkg/c.pyc", "pkg/x.so",
)  # fmt: skip
"""Of these the name alone says it."""
IN_BASE_PROTECTED = ("tests/__init__.py", "tests/test_a.py", "tests/helper.py", "setup.cfg", "tox.ini")
GOLD = ("pkg/a.py", "pkg/gold.py", "tox.ini")
TESTS = ("tests/test_hidden.py", "tests/test_a.py")
PREFIXES = (
    ("a/", "b/"),
    ("i/", "w/"),
    ("old/", "new/"),
    ("", ""),
    ("x/y/", "x/y/"),
    ("c/", "i/"),
    ("1/", "2/"),
)
RETRIES = 30
OFFICIAL = ("git apply", "git apply --reject", "patch --fuzz=5")
REFERENCE = {
    **{**os.environ, "LC_ALL": "C", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "x"), ("EMAIL", "x@x"))},
}  # fmt: skip


# What is done to a tree, and how a patch of it is written.


def changed_tree(rng: random.Random) -> Tree:
    tree = dict(BASE)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        rng.choice(CHANGES)(rng, tree)
    return tree


def _a_file(rng: random.Random, tree: Tree) -> str:
    return rng.choice([path for path, (mode, _) in sorted(tree.items()) if mode != "120000"])


def _free(rng: random.Random, tree: Tree) -> str:
    names = (
        [*PRODUCT, *PROTECTED] if rng.random() < 0.9 else ["tests", "pkg/sub", "tests/test_hidden.py/x.py"]
    )
    path = rng.choice(names)
    above = {str(folder) for folder in PurePosixPath(path).parents}
    for other in [other for other in tree if other in above or other.startswith(f"{path}/")]:
        del tree[other]
    return path


def edit(rng: random.Random, tree: Tree) -> None:
    path = _a_file(rng, tree)
    mode, content = tree[path]
    lines = content.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        match rng.randrange(4):
            case 0:
                lines[at] = b"changed = %d" % rng.randrange(99)
            case 1:
                lines.insert(
                    at, rng.choice((b"added = 1", "s\u00e4tze = '\u2028'".encode(), b"\tindented", b""))
                )
            case 2 if len(lines) > 1:
                del lines[at]
            case _:
                lines.append(b"last = 1")
    tree[path] = (mode, b"\n".join(lines))


def add(rng: random.Random, tree: Tree) -> None:
    tree[_free(rng, tree)] = rng.choice((
        ("100644", b"new = 1\nmore = 2\n"), ("100755", b"#!/bin/sh\n"), ("100644", b""), ("100644", b"no end"),
        ("100644", bytes(range(200))), ("120000", b"pkg/a.py"), ("120000", b"../../outside"), ("120000", b"/etc"),
    ))  # fmt: skip


def delete(rng: random.Random, tree: Tree) -> None:
    del tree[rng.choice(sorted(tree))]


def rename(rng: random.Random, tree: Tree) -> None:
    old = _a_file(rng, tree)
    entry = tree.pop(old)
    tree[_free(rng, tree)] = entry


def copy(rng: random.Random, tree: Tree) -> None:
    entry = tree[_a_file(rng, tree)]
    tree[_free(rng, tree)] = entry


def mode(rng: random.Random, tree: Tree) -> None:
    path = _a_file(rng, tree)
    tree[path] = ("100644" if tree[path][0] == "100755" else "100755", tree[path][1])


def kind(rng: random.Random, tree: Tree) -> None:
    path = rng.choice(sorted(tree))
    tree[path] = ("120000", b"pkg/b.py") if tree[path][0] != "120000" else ("100644", b"a file now\n")


CHANGES: tuple[Callable[[random.Random, Tree], None], ...] = (edit, edit, edit, edit, add, add, add, delete, rename, copy, mode, kind)  # fmt: skip


def _quoted(path: str) -> str:
    data = path.encode("utf-8", "surrogateescape")
    if all(32 <= byte < 127 and byte not in b'"\\' for byte in data):
        return path
    named = {9: "\\t", 10: "\\n", 34: '\\"', 92: "\\\\"}
    return '"' + "".join(
        named.get(byte, chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}") for byte in data
    ) + '"'  # fmt: skip


def written(rng: random.Random, tree: Tree) -> bytes:
    """By hand, section for section, in the styles of git and of diff."""
    old_prefix, new_prefix = rng.choice(PREFIXES)
    sections = []
    for path in sorted(BASE.keys() | tree.keys()):
        before, after = BASE.get(path), tree.get(path)
        if before == after or (before and after and before[0][:2] != after[0][:2]):
            continue
        if any(b"\0" in entry[1] for entry in (before, after) if entry):
            continue
        old, new = (
            _quoted(prefix + path) if entry else "/dev/null"
            for prefix, entry in ((old_prefix, before), (new_prefix, after))
        )
        lines = _hunks(before, after, rng.choice((0, 1, 3, 3, 3, 8)))
        head = b""
        if rng.random() < 0.7:
            head = f"diff --git {_quoted(old_prefix + path)} {_quoted(new_prefix + path)}\n".encode()
            if before is None and after is not None and rng.random() < 0.9:
                head += f"new file mode {after[0]}\n".encode()
            elif after is None and before is not None:
                head += f"deleted file mode {before[0]}\n".encode()
            elif before and after and before[0] != after[0]:
                head += f"old mode {before[0]}\nnew mode {after[0]}\n".encode()
            head += rng.choice((b"", b"index 0000000..1111111\n"))
        elif rng.random() < 0.2:
            head = f"Index: {path}\n".encode()
        stamp = rng.choice(("", "", "\t2024-01-01 00:00:00.000000000 +0000"))
        sections.append(head + (f"--- {old}{stamp}\n+++ {new}{stamp}\n".encode() + lines if lines else b""))
    return b"".join(sections)


def _hunks(before: tuple[str, bytes] | None, after: tuple[str, bytes] | None, context: int) -> bytes:
    old, new = (entry[1].split(b"\n") if entry else [b""] for entry in (before, after))
    sides = [[line + b"\n" for line in side[:-1]] + ([side[-1]] if side[-1] else []) for side in (old, new)]
    found = difflib.diff_bytes(difflib.unified_diff, *sides, b"", b"", n=context, lineterm=b"\n")
    return b"".join(
        line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
        for line in itertools.islice(found, 2, None)
    )


def by_git(rng: random.Random, tree: Tree, repository: Path) -> bytes:
    """By git itself, with one of its many settings."""
    write_tree(repository, tree)
    old, new = rng.choice(PREFIXES)
    options = [f"--src-prefix={old}", f"--dst-prefix={new}"] if rng.random() < 0.5 else []
    options += rng.sample(
        ["-M", "-C", "--find-copies-harder", "--full-index", "-U0", "-U1", "--irreversible-delete", "-W"], 2
    )
    options += rng.choice((["--binary"], ["--binary"], []))
    settings = [
        "-c",
        f"core.quotePath={rng.choice(('true', 'false'))}",
        "-c",
        f"diff.mnemonicPrefix={rng.choice(('true', 'false'))}",
    ]
    program(repository, "git", "add", "--all", "--force")
    return program(repository, "git", *settings, "diff", "--cached", "HEAD", *options).stdout


def damaged(rng: random.Random, patch: bytes) -> tuple[str, bytes]:
    """A patch as models, mail and hostile hands leave it, and what was done."""
    name = rng.choice(tuple(DAMAGES))
    return name, DAMAGES[name](rng, patch)


def _line(rng: random.Random, patch: bytes, begins: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """One line that begins so, changed."""
    lines = patch.split(b"\n")
    which = [at for at, line in enumerate(lines) if line.startswith(begins)]
    if which:
        at = rng.choice(which)
        lines[at] = change(lines[at])
    return b"\n".join(lines)


def _section(rng: random.Random, patch: bytes, path: bytes) -> bytes:
    """The patch with a new file at a path that is not for patches, in the style of git or of diff."""
    head = b"diff --git a/%s b/%s\nnew file mode 100644\n" % (path, path) if rng.random() < 0.6 else b""
    return patch + head + b"--- /dev/null\n+++ b/%s\n@@ -0,0 +1 @@\n+escaped\n" % path


def _through_a_new_link(rng: random.Random, patch: bytes) -> bytes:
    target = rng.choice((b"/dev/shm", b"..", b".git", b"tests"))
    link = b"diff --git a/way b/way\nnew file mode 120000\n--- /dev/null\n+++ b/way\n@@ -0,0 +1 @@\n+%s\n\\ No newline at end of file\n"
    return _section(rng, patch + link % target, b"way/looper_fuzz_escape")


DAMAGES: Mapping[str, Callable[[random.Random, bytes], bytes]] = {
    "wrong counts": lambda rng, patch: _line(rng, patch, b"@@ ", lambda line: line.replace(b",", b",1", 1)),
    "wrong place": lambda rng, patch: _line(rng, patch, b"@@ ", lambda line: line.replace(b"@@ -", b"@@ -1", 1)),
    "context with blanks": lambda rng, patch: _line(rng, patch, b" ", lambda line: line + b"  "),
    "other context": lambda rng, patch: _line(rng, patch, b" ", lambda line: b" something else"),
    "context lost": lambda rng, patch: _line(rng, patch, b" ", lambda line: b"+added in its place"),
    "removed line differs": lambda rng, patch: _line(rng, patch, b"-", lambda line: line + b"x"),
    "CRLF": lambda rng, patch: patch.replace(b"\n", b"\r\n"),
    "CRLF in one line": lambda rng, patch: _line(rng, patch, b"+", lambda line: line + b"\r"),
    "no final newline": lambda rng, patch: patch.removesuffix(b"\n"),
    "stripped": lambda rng, patch: patch.strip(),
    "trailing blanks stripped": lambda rng, patch: b"\n".join(line.rstrip() for line in patch.split(b"\n")),
    "blank lines lost": lambda rng, patch: patch.replace(b"\n \n", b"\n"),
    "cut": lambda rng, patch: patch[: rng.randrange(len(patch) + 1)],
    "twice": lambda rng, patch: patch + patch,
    "a section twice": lambda rng, patch: patch + patch[max(patch.rfind(b"\ndiff "), patch.rfind(b"\n--- ")) + 1 :],
    "plain behind git": lambda rng, patch: patch + b"--- /dev/null\n+++ b/conftest.py\n@@ -0,0 +1 @@\n+x = 1\n",
    "copied to conftest": lambda rng, patch: patch + b"diff --git a/run.sh b/conftest.py\nsimilarity index 100%\ncopy from run.sh\ncopy to conftest.py\n",
    "renamed to conftest": lambda rng, patch: patch + b"diff --git a/docs/index.txt b/conftest.py\nsimilarity index 100%\nrename from docs/index.txt\nrename to conftest.py\n",
    "submodule": lambda rng, patch: patch + b"diff --git a/vendor b/vendor\nnew file mode 160000\nindex 0000000..1111111\n--- /dev/null\n+++ b/vendor\n@@ -0,0 +1 @@\n+Subproject commit 1111111111111111111111111111111111111111\n",
    "byte order mark": lambda rng, patch: b"\xef\xbb\xbf" + patch,
    "prose around": lambda rng, patch: b"Here is the fix:\n\n```diff\n" + patch + b"```\nIt works.\n",
    "headers lost": lambda rng, patch: b"\n".join(line for line in patch.split(b"\n") if not line.startswith((b"diff ", b"index ", b"new file", b"deleted"))),
    "new file line lost": lambda rng, patch: patch.replace(b"new file mode 100644\n", b""),
    "NUL": lambda rng, patch: patch[: len(patch) // 2] + b"\0" + patch[len(patch) // 2 :],
    "no UTF-8": lambda rng, patch: _line(rng, patch, b"+", lambda line: line + b"\xff\xfe"),
    "prefix lost": lambda rng, patch: patch.replace(b" a/", b" ").replace(b" b/", b" "),
    "above the tree": lambda rng, patch: _section(rng, patch, b"../looper_fuzz_escape"),
    "absolute": lambda rng, patch: _section(rng, patch, b"/dev/shm/looper_fuzz_escape"),
    "git's records": lambda rng, patch: _section(rng, patch, rng.choice((b".git/hooks/post-checkout", b".git/looper_fuzz", b"pkg/.git/config", b".GIT/config"))),
    "through a link": lambda rng, patch: _section(rng, patch, b"folder_link/escape.py"),
    "through a new link": _through_a_new_link,
    "only words": lambda rng, patch: b"I would change pkg/a.py.\n+++ b/pkg/a.py\n",
    "sections turned round": lambda rng, patch: b"diff --git".join(patch.split(b"diff --git")[:1] + patch.split(b"diff --git")[:0:-1]),
}  # fmt: skip


def generated(rng: random.Random, repository: Path) -> tuple[str, bytes]:
    """One patch, and in a word what it is."""
    tree = changed_tree(rng)
    name, patch = (
        ("by git", by_git(rng, tree, repository)) if rng.random() < 0.35 else ("by hand", written(rng, tree))
    )
    if rng.random() < 0.55 or not patch:
        name, patch = damaged(rng, patch)
    return name, patch


# The independent account.


def program(folder: Path, *argv: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(argv, cwd=folder, env=REFERENCE, stdin=subprocess.DEVNULL, capture_output=True)


def write_tree(folder: Path, tree: Tree) -> None:
    for name in os.listdir(folder):
        if name != ".git":
            _gone(folder / name)
    for path, (kind_of, content) in tree.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind_of == "120000":
            os.symlink(content, os.fsencode(place))
        else:
            place.write_bytes(content)
            place.chmod(0o755 if kind_of == "100755" else 0o644)


def _gone(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()


def read_tree(folder: Path) -> Tree:
    tree: Tree = {}
    for above, folders, names in os.walk(folder):
        if ".git" in folders:
            folders.remove(".git")
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(above, name)))]:
            place = os.path.join(above, name)
            path = os.path.relpath(place, folder)
            if os.path.islink(place):
                tree[path] = ("120000", os.fsencode(os.readlink(place)))
            elif os.path.isfile(place):
                executable = os.stat(place).st_mode & 0o100
                tree[path] = ("100755" if executable else "100644", Path(place).read_bytes())
    return tree


class Reference:
    """SWE-bench's own three attempts in a repository that Looper never sees."""

    def __init__(self, place: Path) -> None:
        self.root, self._file, self._clean = place / "reference", place / "patch.diff", place / "clean"
        self.root.mkdir()
        write_tree(self.root, BASE)
        program(self.root, "git", "init", "--quiet")
        program(self.root, "git", "add", "--all", "--force")
        program(self.root, "git", "commit", "--quiet", "-m", "base")
        shutil.copytree(self.root / ".git", self._clean)

    def attempt(self, patch: bytes, kinder: str) -> tuple[str, Tree]:
        """The attempt that applied the patch, and the tree that it left; the base tree where none did. Where the official ones
        fail and `kinder` names one of Looper's own, that one is repeated here."""
        self._file.write_bytes(patch)
        file = str(self._file)
        tries = [["git", "apply", "--verbose", file], ["git", "apply", "--verbose", "--reject", file], ["patch", "--batch", "--fuzz=5", "-p1", "-i", file]]  # fmt: skip
        for name, argv in zip(OFFICIAL, tries, strict=True):
            if program(self.root, *argv).returncode == 0:
                return name, self._taken()
        self._reset()
        if not kinder:
            return "", dict(BASE)
        self._file.write_bytes(self._mended(patch, kinder))
        how = kinder.partition(" (")[0].replace("patch --fuzz=5", "patch --batch --fuzz=5 -p1 -i")
        done = program(self.root, *how.split(), file)
        return (kinder, self._taken()) if done.returncode == 0 else ("", self._taken())

    @staticmethod
    def _mended(patch: bytes, kinder: str) -> bytes:
        if "byte order mark" in kinder:
            patch = patch.removeprefix(b"\xef\xbb\xbf")
        if "line ends" in kinder:
            patch = patch.replace(b"\r\n", b"\n")
        return patch + b"\n" if "final newline" in kinder else patch

    def _taken(self) -> Tree:
        """What git says has changed, with the content that is there."""
        said = program(self.root, "git", "status", "--porcelain", "-z", "--untracked-files=all", "--ignored=matching", "--no-renames").stdout  # fmt: skip
        there = read_tree(self.root)
        changed = {os.fsdecode(line[3:]) for line in said.split(b"\0") if line}
        tree = dict(BASE)
        for path in changed:
            if path.endswith("/") and path not in there:
                continue  # An empty folder, or a repository inside: no entry of a tree.
            leftover = path.endswith((".rej", ".orig")) and path not in BASE
            if leftover and (path.rpartition(".")[0] in BASE or path.rpartition(".")[0] in changed):
                continue
            tree.pop(path, None)
            if path in there:
                tree[path] = there[path]
        # Of a repository inside git says nothing.
        inside = (
            Path(above, ".git").relative_to(self.root)
            for above, folders, _ in os.walk(self.root)
            if ".git" in folders
        )
        tree |= {str(path): ("folder", b"") for path in inside if path != Path(".git")}
        self._reset()
        return tree

    def _reset(self) -> None:
        write_tree(self.root, BASE)
        if b".git/" in (patch := self._file.read_bytes()) or b"way/" in patch:
            shutil.rmtree(self.root / ".git")
            shutil.copytree(self._clean, self.root / ".git")


def expected_strips(tree: Tree) -> set[str]:
    """By the lists above: changed, protected and not gold's; what the test patch writes; what stands in the way of either."""
    changed = {path for path in BASE.keys() | tree.keys() if BASE.get(path) != tree.get(path)}
    chosen = {path for path in changed if path in TESTS or (_named(path) and path not in GOLD)}
    wanted = {path for path in chosen if path in BASE} | set(TESTS)
    for path in changed & tree.keys():
        if any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in wanted):
            chosen.add(path)
    return chosen


def _named(path: str) -> bool:
    """Damage makes names of its own: a lost prefix, a link's neighbour."""
    if path in PRODUCT or (path in BASE and path not in IN_BASE_PROTECTED):
        return False
    if path in PROTECTED or path in IN_BASE_PROTECTED:
        return True
    name, parts = PurePosixPath(path).name, PurePosixPath(path).parts
    return (
        name in {PurePosixPath(other).name for other in (*ANYWHERE, "test_a.py")}
        or name == "test.py"
        or (name in ("json.py", "re.py") and parts[:-1] in ((), ("src",), ("lib",)))
        or not {".git", "__pycache__", "x.egg-info", "tests"}.isdisjoint(part.lower() for part in parts[:-1])
        or name.lower() == ".git"
        or parts[0] in ("json", "_pytest", "testing")
    )


# Both, side by side.


@dataclass(frozen=True)
class Found:
    kind: str
    applied: str
    fault: str
    """Empty where both said the same."""
    declared: str
    """A difference that the documents declare."""


class Bench:
    """One process's trees."""

    def __init__(self, place: Path) -> None:
        place.chmod(0o755)
        sandbox = find_sandbox("auto")
        self.reference, self.maker = Reference(place), place / "maker"
        mirror = place / "fuzz__tree.git"
        shutil.copytree(self.reference.root, self.maker, symlinks=True)
        program(place, "git", "clone", "--quiet", "--mirror", str(self.maker), str(mirror))
        commit = program(mirror, "git", "rev-parse", "HEAD").stdout.decode().strip()
        gold, tests = dict(BASE), dict(BASE)
        gold |= {"pkg/a.py": ("100644", TEXT + b"fixed = 1\n"), "pkg/gold.py": ("100644", b"g = 1\n"), "tox.ini": ("100644", b"[tox]\nx = 1\n")}  # fmt: skip
        tests |= {"tests/test_hidden.py": ("100644", b"def test_it():\n    assert True\n"), "tests/test_a.py": ("100755", b"def test_a():\n    assert 3\n")}  # fmt: skip
        plain = random.Random(0)
        patches = [self._plain(plain, tree) for tree in (gold, tests)]
        self.task = Task(
            instance_id="fuzz__tree-1", suite="swe-bench-cl", repo="fuzz/tree", base_commit=commit, created_at="2020-01-01",
            problem_statement="", difficulty=1, sequence_id="s", sequence_position=1, dependencies=(), modified_files=GOLD,
            environment="harness", runner=Runner.PYTEST, test_targets=TESTS, gold_patch=patches[0], test_patch=patches[1],
            fail_to_pass=("tests/test_hidden.py::test_it",), pass_to_pass=(),
        )  # fmt: skip
        bare = Environment("none", Path("/usr/bin/python3"), (), {})
        mirrors = {"swe-bench-cl:fuzz/tree": mirror}
        sessions = GitSessions(mirrors, place / "exports", place / "workspaces", sandbox, lambda task: bare)
        limits = Limits(steps=1, output_tokens=1, context_tokens=2, wall_s=1, command_s=1, verify_s=1)
        self.verifier_context = VerifierContext(sessions, limits)
        self.tests = effect_of_tests(self.task, sessions)
        self.session = sessions.open(self.task, "w")

    def _plain(self, rng: random.Random, tree: Tree) -> str:
        write_tree(self.maker, tree)
        program(self.maker, "git", "add", "--all", "--force")
        return program(self.maker, "git", "diff", "--cached", "HEAD", "--no-renames").stdout.decode()

    def compare(self, name: str, patch: bytes) -> Found:
        try:
            fault, applied, declared = self._compare(patch)
        except Exception:
            fault, applied, declared = traceback.format_exc(), "", ""
        try:
            self.session.put_back([change.path for change in self.session.changes()])
            # A submodule leaves an empty folder, which no tree of git's holds; a real verdict's workspace is not used again.
            for folder, _, _ in os.walk(self.session.root, topdown=False):
                if ".git" not in Path(folder).parts and not os.listdir(folder):
                    os.rmdir(folder)
            if self.session.tree_hash() != self.session.clean_state:
                fault += "putting everything back does not give the base tree"
        except Exception:
            fault += traceback.format_exc()
        return Found(name, applied, fault, declared)

    def _entered(self, text: str) -> AppliedPatch:
        """Again where the machine let nothing begin, as a run's attempts do."""
        for _ in range(RETRIES):
            try:
                return apply_candidate(self.task, text, self.session, self.verifier_context, self.tests)
            except InfrastructureError:
                self.session.put_back([change.path for change in self.session.changes()])
                time.sleep(1)
        return apply_candidate(self.task, text, self.session, self.verifier_context, self.tests)

    def _compare(self, patch: bytes) -> tuple[str, str, str]:
        text = patch.decode("utf-8", "surrogateescape")
        try:
            entered = self._entered(text)
            applied, stripped, recall = entered.applied, set(entered.stripped), entered.file_recall
        except BadPatch:
            applied, stripped, recall = "", set(), None
        if any(
            os.path.lexists(place / "looper_fuzz_escape")
            for place in (self.session.root.parent, Path("/dev/shm"))
        ):
            return "something was written outside of the tree", applied, ""
        if os.path.lexists(self.session.root / ".git/looper_fuzz") or os.path.lexists(
            self.session.root / ".git/hooks"
        ):
            return "git's records were written to", applied, ""
        wanted, tree = self.reference.attempt(patch, applied if applied and applied not in OFFICIAL else "") if text.strip() else ("", dict(BASE))  # fmt: skip
        if wanted != applied:
            return f"applied by {applied!r}, officially by {wanted!r}", applied, ""
        kinder = "kinder" if applied not in ("", *OFFICIAL) else ""
        if not applied:
            return (
                (
                    ""
                    if not text.strip() or read_tree(self.session.root) == BASE or recall is None
                    else "the tree differs"
                ),
                applied,
                kinder,
            )
        strips = expected_strips(tree)
        if stripped != strips:
            return f"left out {sorted(stripped)}, expected {sorted(strips)}", applied, kinder
        changed = {path for path in BASE.keys() | tree.keys() if BASE.get(path) != tree.get(path)}
        share = len(changed & set(GOLD)) / len(GOLD)
        if recall != share:
            return f"recall {recall}, expected {share}", applied, kinder
        judged = {path: entry for path, entry in tree.items() if path not in strips}
        judged |= {path: BASE[path] for path in strips if path in BASE}
        judged |= {path: (after.mode, after.content) for path, (_, after) in self.tests.items() if after}
        there = read_tree(self.session.root)
        differing = sorted(
            path for path in judged.keys() | there.keys() if judged.get(path) != there.get(path)
        )
        return (f"the tree differs at {differing}" if differing else ""), applied, kinder


def work(given: tuple[int, int, str]) -> list[Found]:
    seed, number, parent = given
    folder = Path(tempfile.mkdtemp(prefix="looper-fuzz-", dir=parent))
    try:
        bench, rng, found = Bench(folder), random.Random(seed), []
        for _ in range(number):
            name, patch = generated(rng, bench.maker)
            result = bench.compare(name, patch)
            found.append(result)
            if result.fault:
                print(
                    f"── seed {seed}, number {len(found)}, {name}: {result.fault}\n{patch!r}", file=sys.stderr
                )
        return found
    finally:
        remove_tree(folder)


def portions(seed: int, number: int, size: int = 250) -> Iterator[tuple[int, int]]:
    """Seed and number of each portion: what a portion finds depends on these alone."""
    for at in range(0, number, size):
        yield seed * 1_000_003 + at, min(size, number - at)


def report(found: list[Found]) -> str:
    applied = Counter(one.applied or "not applied" for one in found)
    kinds: dict[str, Counter[str]] = {}
    for one in found:
        kinds.setdefault(one.kind, Counter())[one.applied or "not applied"] += 1
    lines = [f"{count:7} {name}" for name, count in applied.most_common()]
    lines += ["", *(f"{name:24} {', '.join(f'{how}: {count}' for how, count in counts.most_common())}" for name, counts in sorted(kinds.items()))]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, help="of patches; 20000, or 600 with --parity")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    parser.add_argument(
        "--parity", action="store_true", help="print how each kind was applied, and declared differences"
    )
    given = parser.parse_args()
    number = given.number or (600 if given.parity else 20000)
    begun, found = time.monotonic(), []
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        jobs = [(seed, size, given.folder) for seed, size in portions(given.seed, number)]
        for portion in pool.imap(work, jobs):
            found += portion
            print(
                f"{len(found)} of {number}, {sum(bool(one.fault) for one in found)} differ, {time.monotonic() - begun:.0f} s",
                flush=True,
            )
    faults = [one for one in found if one.fault]
    print(report(found))
    if given.parity:
        kinder = Counter(one.applied for one in found if one.declared)
        print("\ndeclared differences: SWE-bench applies none of these")
        print("\n".join(f"{count:7} {name}" for name, count in kinder.most_common()))
    crashed = sum("Traceback" in one.fault for one in faults)
    print(
        f"\n{len(found)} patches, seed {given.seed}: {len(faults) - crashed} differ, {crashed} exceptions, {time.monotonic() - begun:.0f} s"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
