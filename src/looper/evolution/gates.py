"""The first two gates, which run nothing of a candidate: fixed points by their bytes, and what kind of change it is."""

import ast
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from looper.errors import NOT_PYTHON
from looper.protocols import NOTHING, PathChange, Sources
from looper.records.gate import GateOutcome, GateResult
from looper.records.text import counted, listed

REGULAR = ("100644", "100755")
SPECIAL = (".gitattributes", ".gitmodules", "conftest.py", "sitecustomize.py", "usercustomize.py")
"""Names that change how others read or test a tree; so do files that end in `.pth`."""


@dataclass(frozen=True)
class ChangeScope:
    """What a candidate may change, fixed before a campaign."""

    allowed: tuple[str, ...]
    """Folders, from the root of the repository."""
    protected: tuple[str, ...]
    """Patterns of paths that are fixed, whatever is allowed; `*` stands for any depth."""
    file_bytes: int = 100_000
    changed_lines: int = 1_500
    """Written by the candidate, over all files."""


def frozen(sources: Sources, commit: str, scope: ChangeScope) -> dict[str, str]:
    """The fixed points of a commit: path → mode and object. Made once, when a campaign starts."""
    return {path: entry for path, entry in sources.listing(commit).items() if _is_fixed(path, scope)}


def manifest_gate(
    sources: Sources, candidate: str, fixed_points: Mapping[str, str], scope: ChangeScope
) -> GateResult:
    """Whether every fixed point is byte for byte what it was, and no new one stands beside it."""
    now = frozen(sources, candidate, scope)
    moved = sorted(
        {path for path in fixed_points.keys() | now.keys() if fixed_points.get(path) != now.get(path)}
    )
    if moved:
        return _says(sources, candidate, "manifest", f"fixed points were changed: {listed(moved, 5)}")
    return _says(sources, candidate, "manifest", "", f"{len(now)} fixed points are as they were")


def scope_gate(sources: Sources, base: str, candidate: str, scope: ChangeScope) -> GateResult:
    """Whether the change lies where it may, is of regular files of a readable size, parses, and needs no new package."""
    changes = sources.changes(base, candidate)
    problems = [problem for change in changes for problem in _problems(sources, candidate, change, scope)]
    if not changes:
        problems = ["nothing was changed"]
    lines = sum(
        (sources.file(candidate, change.path) or b"").count(b"\n")
        - (sources.file(base, change.path) or b"").count(b"\n")
        for change in changes
    )
    if lines > scope.changed_lines:
        problems.append(f"{counted(lines, 'line')} more, {scope.changed_lines} are the most")
    if not problems:
        problems = [*_new_packages(sources, base, candidate, changes)]
    said = f"{counted(len(changes), 'file')}, {lines:+d} lines"
    return _says(sources, candidate, "scope", "; ".join(problems[:5]), said)


def _says(sources: Sources, candidate: str, gate: str, problem: str, fine: str = "") -> GateResult:
    return GateResult(
        gate=gate,
        outcome=GateOutcome.FAIL if problem else GateOutcome.PASS,
        evidence=problem or fine,
        candidate_hash=sources.tree_of(candidate),
    )


def _is_fixed(path: str, scope: ChangeScope) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in scope.protected)


def _problems(sources: Sources, candidate: str, change: PathChange, scope: ChangeScope) -> Iterable[str]:
    path, name = change.path, change.path.rpartition("/")[2]
    if not any(path.startswith(f"{folder.rstrip('/')}/") for folder in scope.allowed):
        yield f"{path} lies outside of {', '.join(scope.allowed)}"
    if name in SPECIAL or name.endswith(".pth") or ".git" in path.split("/"):
        yield f"{path} changes how the tree is read or tested"
    if change.after == NOTHING:
        return
    if change.after not in REGULAR:
        kind = {"120000": "a link", "160000": "a submodule"}.get(change.after, change.after)
        yield f"{path} is no regular file but {kind}"
        return
    content = sources.file(candidate, path) or b""
    if len(content) > scope.file_bytes:
        yield f"{path} has {len(content)} bytes, {scope.file_bytes} are the most"
    elif path.endswith(".py"):
        try:
            ast.parse(content)
        except NOT_PYTHON as error:
            yield f"{path} does not parse: {(str(error) or type(error).__name__).splitlines()[0]}"


def _new_packages(
    sources: Sources, base: str, candidate: str, changes: Collection[PathChange]
) -> Iterable[str]:
    """Packages that the changed files import and no file of the base does; the standard library is everybody's."""
    before = {
        name
        for path in sources.listing(base)
        if path.endswith(".py")
        for name in _imported(sources, base, path)
    }
    for change in changes:
        if change.path.endswith(".py") and change.after in REGULAR:
            new = _imported(sources, candidate, change.path) - before - set(sys.stdlib_module_names)
            if new:
                yield f"{change.path} imports {', '.join(sorted(new))}, which nothing here needed before"


def _imported(sources: Sources, commit: str, path: str) -> set[str]:
    try:
        tree = ast.parse(sources.file(commit, path) or b"")
    except NOT_PYTHON:
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found
