"""Rows in SWE-bench's shape, of our own making."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HINT = "the fix is in the line above"


def patch(*paths: str) -> str:
    return "".join(
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+b\n" for path in paths
    )


def row(
    number: int, repo: str = "sympy/sympy", version: str | None = "1.12", **others: Any
) -> dict[str, Any]:
    """A task that was made in the year 2000 + number, and whose gold patch touches a file of its own."""
    return {
        "instance_id": f"{repo.replace('/', '__')}-{number}",
        "repo": repo,
        "base_commit": f"{number:040x}",
        "patch": patch(f"src/{number}.py"),
        "test_patch": patch(f"tests/test_{number}.py"),
        "problem_statement": f"issue {number}",
        "hints_text": HINT,
        "created_at": f"{2000 + number}-05-14T10:00:00Z",
        "version": version,
        "FAIL_TO_PASS": json.dumps([f"test_{number}"]),
        "PASS_TO_PASS": "[]",
        "environment_setup_commit": "0" * 40,
        **others,
    }


def relation(related: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """As SWE-ContextBench's table has them."""
    return {
        "related_instance_id": related["instance_id"],
        "related_pr_url": "https://example.org/1",
        "experience_instance_id": base["instance_id"],
        "experience_pr_url": "https://example.org/2",
    }


def written(path: Path, rows: Sequence[Any]) -> str:
    """As lines of JSON."""
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(path)
