"""Fixed points and scope: what is refused before anything of a candidate runs."""

import tomllib
from pathlib import Path

import pytest
from tests.edges.test_sources import git

from looper.edges.workspaces.sources import GitSources
from looper.evolution.gates import ChangeScope, frozen, manifest_gate, scope_gate
from looper.records.gate import GateOutcome

SCOPE = ChangeScope(
    allowed=("agent",), protected=("gates/*", "tests/*", "pyproject.toml"), file_bytes=2000, changed_lines=20
)


@pytest.fixture
def sources(tmp_path: Path) -> GitSources:
    root = tmp_path / "repo"
    for path, text in {
        "agent/loop.py": "import json\n\nSTEPS = 8\n",
        "gates/benchmark.py": "ALPHA = 0.05\n",
        "tests/test_loop.py": "def test_it():\n    assert True\n",
        "pyproject.toml": "[project]\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-qm", "base")
    return GitSources(root)


def judged(sources: GitSources, **files: bytes | None) -> tuple[GateOutcome, str]:
    """What both gates say of a candidate that writes these files; the first refusal."""
    base = sources.commit_of("main")
    candidate = sources.with_files(base, files, "candidate")
    first = manifest_gate(sources, candidate, frozen(sources, base, SCOPE), SCOPE)
    found = first if first.outcome is not GateOutcome.PASS else scope_gate(sources, base, candidate, SCOPE)
    assert found.candidate_hash == sources.tree_of(candidate)
    return found.outcome, f"{found.gate}: {found.evidence}"


def test_a_change_of_the_agent_passes(sources: GitSources) -> None:
    outcome, said = judged(sources, **{"agent/loop.py": b"import json\nimport re\n\nSTEPS = 12\n"})
    assert outcome is GateOutcome.PASS and said == "scope: 1 file, +1 lines"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("gates/benchmark.py", b"ALPHA = 0.5\n"),
        ("gates/benchmark.py", None),
        ("gates/deep/new.py", b"x = 1\n"),
        ("tests/test_loop.py", b""),
        ("tests/conftest.py", b"import pytest\n"),
        ("pyproject.toml", b"[project]\n[tool.pytest.ini_options]\n"),
    ],
)
def test_l22_d10_every_fixed_point_is_held(sources: GitSources, path: str, content: bytes | None) -> None:
    outcome, said = judged(sources, **{path: content, "agent/loop.py": b"STEPS = 9\n"})
    assert outcome is GateOutcome.FAIL and said == f"manifest: fixed points were changed: {path}"


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("README.md", b"x", "README.md lies outside of agent"),
        ("agent/conftest.py", b"", "changes how the tree is read or tested"),
        ("agent/.gitattributes", b"* filter=x", "changes how the tree is read or tested"),
        ("agent/x.pth", b"import os", "changes how the tree is read or tested"),
        ("agent/loop.py", b"def broken(:\n", "does not parse"),
        ("agent/big.txt", b"x" * 3000, "3000 bytes, 2000 are the most"),
        ("agent/long.py", b"x = 1\n" * 50, "lines more, 20 are the most"),
        ("agent/loop.py", b"import requests\n", "imports requests, which nothing here needed before"),
    ],
)
def test_what_a_candidate_may_not_be_is_named(
    sources: GitSources, path: str, content: bytes, said: str
) -> None:
    outcome, found = judged(sources, **{path: content})
    assert outcome is GateOutcome.FAIL and said in found


@pytest.mark.parametrize("deep", [b"-" * 90_000 + b"1\n", b"1" + b"+1" * 40_000 + b"\n"])
def test_a_candidate_that_is_nested_too_deeply_to_be_parsed_is_named(
    sources: GitSources, deep: bytes
) -> None:
    base = sources.commit_of("main")
    candidate = sources.with_files(base, {"agent/loop.py": deep}, "deep")
    found = scope_gate(sources, base, candidate, SCOPE.__class__(**{**vars(SCOPE), "file_bytes": 100_000}))
    assert found.outcome is GateOutcome.FAIL and "agent/loop.py does not parse: " in found.evidence


def test_links_and_nothing_at_all_are_refused(sources: GitSources, tmp_path: Path) -> None:
    base = sources.commit_of("main")
    nothing = sources.with_files(base, {}, "nothing")
    assert scope_gate(sources, base, nothing, SCOPE).evidence == "nothing was changed"
    root = tmp_path / "repo"
    (root / "agent" / "link").symlink_to("/etc/passwd")
    git(root, "checkout", "-qb", "linked")
    git(root, "add", ".")
    git(root, "commit", "-qm", "link")
    found = scope_gate(sources, base, sources.commit_of("linked"), SCOPE)
    assert found.outcome is GateOutcome.FAIL and "agent/link is no regular file but a link" in found.evidence


def test_of_looper_itself_everything_that_judges_is_fixed() -> None:
    """Only the agent's own folder is free: a new folder has to be put on one side or the other."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("what is fixed is read from a git checkout, and this is none")
    table = tomllib.loads((root / "looper.toml").read_text())["evolve"]
    scope = ChangeScope(allowed=tuple(table["allowed"]), protected=tuple(table["protected"]))
    sources = GitSources(root)
    fixed = frozen(sources, "HEAD", scope)
    assert {
        "src/looper/bench/verify.py",
        "src/looper/journal.py",
        "tests/conftest.py",
        "pyproject.toml",
    } <= set(fixed)
    free = [path for path in sources.listing("HEAD") if path.startswith("src/looper/") and path not in fixed]
    kinds = {path.split("/")[2] for path in free}
    assert kinds == {"agent"}
