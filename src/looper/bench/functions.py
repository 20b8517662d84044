"""Rows of HumanEval and MBPP → tasks with one function to write: whether a model still can what it could before it learned.

Chen et al. 2021 (HumanEval, 164 rows) and Austin et al. 2021 (MBPP; the sanitized part has 427). Each row is a repository
state with one file, so that the agent, its tools and the verifier work on it as on any other task.
"""

import ast
from typing import Any

from looper.bench.micro.project import Change
from looper.bench.rows import must_name_a_task
from looper.errors import NOT_PYTHON

FILE, TEST_FILE = "solution.py", "tests/test_solution.py"


def human_eval_change(row: dict[str, Any]) -> Change:
    """Raises KeyError, TypeError or ValueError where a field is missing or of a wrong kind, and NOT_PYTHON where its code is none."""
    name, before = row["entry_point"], row["prompt"]
    title = row["task_id"].replace("/", "-")
    must_name_a_task(title)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError("entry_point names no function")
    fix = before + row["canonical_solution"].rstrip() + "\n"
    check = _as_test(row["test"].rstrip(), name)
    tests = f"{_asked_of(fix, check)}{check}"
    return Change(
        title=title,
        issue=f"Write the body of the function `{name}` in {FILE}. Its docstring says what it has to do.",
        base={FILE: before.rstrip("\n") + "\n"},
        fix={FILE: fix},
        tests={TEST_FILE: tests},
        fail_to_pass=(f"{TEST_FILE}::test_function",),
        pass_to_pass=(),
    )


def _as_test(tests: str, name: str) -> str:
    """HumanEval's `check(candidate)` as a test of the function with this name, whose assertions can be varied; where `check` is
    something else, a test that calls it."""
    calling = f"{tests}\n\n\ndef test_function():\n    check({name})\n"
    try:
        found = next(
            node
            for node in reversed(ast.parse(tests).body)
            if isinstance(node, ast.FunctionDef) and node.name == "check"
        )
        (argument,) = found.args.args
        first = found.body[0]
    except (StopIteration, *NOT_PYTHON):
        return calling
    lines = tests.split("\n")
    indent = lines[first.lineno - 1][: first.col_offset]
    if indent.strip() or found.lineno == first.lineno or found.decorator_list or "\r" in tests:
        return calling
    head = ["def test_function():", f"{indent}{argument.arg} = {name}"]
    return "\n".join([*lines[: found.lineno - 1], *head, *lines[first.lineno - 1 :]]) + "\n"


def mbpp_change(row: dict[str, Any]) -> Change:
    """Rows of the full and of the sanitized part. Raises as `human_eval_change`."""
    if not isinstance(row["task_id"], int | str):
        raise TypeError("task_id is no number or text")
    title = f"MBPP-{row['task_id']}".replace("/", "-")
    must_name_a_task(title.removeprefix("MBPP-"))
    asked = row["prompt"] if "prompt" in row else row["text"]
    imports = "\n".join([*row.get("test_imports", ()), row.get("test_setup_code", "")]).strip()
    checks = [ast.unparse(ast.parse(check)) for check in row["test_list"]]
    cases = [f"def test_{number}():\n    {check}\n" for number, check in enumerate(checks, 1)]
    examples = "\n".join(f"    {check}" for check in checks)
    fix = row["code"].replace("\r\n", "\n").rstrip() + "\n"
    return Change(
        title=title,
        issue=f"{asked.strip()}\n\nWrite it in {FILE}. These hold afterwards:\n\n{examples}",
        base={FILE: "# To be written.\n"},
        fix={FILE: fix},
        tests={TEST_FILE: "\n\n".join([f"{_asked_of(fix, imports, *cases)}{imports}\n", *cases])},
        fail_to_pass=tuple(f"{TEST_FILE}::test_{number}" for number in range(1, len(cases) + 1)),
        pass_to_pass=(),
    )


def _asked_of(fix: str, *tests: str) -> str:
    """Imports of what tests use of the solution, by name: nothing else that a solution defines may stand in the place of what they
    mean. What it imports itself they import from where it is. Raises one of NOT_PYTHON for what is none."""
    used = {node.id for text in tests for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    defined: list[str] = []
    lines: list[str] = []
    for node in ast.parse(fix).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in used]
            lines += [ast.unparse(type(node)(**{**vars(node), "names": names}))] if names else []
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined += [
                each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
            ]
    asked = [name for name in dict.fromkeys(defined) if name in used]
    lines += [f"from {FILE[:-3]} import {', '.join(asked)}"] if asked else []
    return "".join(f"{line}\n" for line in lines)
