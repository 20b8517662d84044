"""Rows of HumanEval and MBPP → tasks with one function to write: whether a model still can what it could before it learned.

Chen et al. 2021 (HumanEval, 164 rows) and Austin et al. 2021 (MBPP; the sanitized part has 427). Each row is a repository
state with one file, so that the agent, its tools and the verifier work on it as on any other task.
"""

import ast
from typing import Any

from looper.bench.micro.project import Change

FILE, TEST_FILE = "solution.py", "tests/test_solution.py"


def human_eval_change(row: dict[str, Any]) -> Change:
    """Raises KeyError or TypeError where a field is missing or of a wrong kind."""
    name, before = row["entry_point"], row["prompt"]
    tests = (
        f"from {FILE[:-3]} import *\n{row['test'].rstrip()}\n\n\ndef test_function():\n    check({name})\n"
    )
    return Change(
        title=row["task_id"].replace("/", "-"),
        issue=f"Write the body of the function `{name}` in {FILE}. Its docstring says what it has to do.",
        base={FILE: before.rstrip("\n") + "\n"},
        fix={FILE: before + row["canonical_solution"].rstrip() + "\n"},
        tests={TEST_FILE: tests},
        fail_to_pass=(f"{TEST_FILE}::test_function",),
        pass_to_pass=(),
    )


def mbpp_change(row: dict[str, Any]) -> Change:
    """Rows of the full and of the sanitized part. Raises as `human_eval_change`, and ValueError for tests that are no Python."""
    asked = row["prompt"] if "prompt" in row else row["text"]
    imports = "\n".join([*row.get("test_imports", ()), row.get("test_setup_code", "")]).strip()
    checks = [ast.unparse(ast.parse(check)) for check in row["test_list"]]
    cases = [f"def test_{number}():\n    {check}\n" for number, check in enumerate(checks, 1)]
    examples = "\n".join(f"    {check}" for check in checks)
    return Change(
        title=f"MBPP-{row['task_id']}",
        issue=f"{asked.strip()}\n\nWrite it in {FILE}. These hold afterwards:\n\n{examples}",
        base={FILE: "# To be written.\n"},
        fix={FILE: row["code"].replace("\r\n", "\n").rstrip() + "\n"},
        tests={TEST_FILE: "\n\n".join([f"from {FILE[:-3]} import *\n{imports}\n", *cases])},
        fail_to_pass=tuple(f"{TEST_FILE}::test_{number}" for number in range(1, len(cases) + 1)),
        pass_to_pass=(),
    )
