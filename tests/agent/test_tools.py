"""What the tools tell of files and commands of every kind."""

from dataclasses import replace
from pathlib import Path

import pytest

from looper.agent.scaffold import packaged_scaffold
from looper.agent.tools import COMMAND_BYTES, ToolContext, execute, syntax_error
from looper.edges.workspaces.exports import GitSessions
from looper.errors import InfrastructureError
from looper.protocols import Command, CommandResult
from looper.records.plan import Limits
from looper.records.task import Task
from looper.records.trajectory import Bash, Edit, ObservationKind, Read, Write


@pytest.fixture
def tool_context(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
) -> ToolContext:
    session = sessions.open(task, "tools")
    return ToolContext(session, packaged_scaffold("full"), limits)


@pytest.mark.parametrize("mark", ["\f", "\v", "\x1c", "\x85", "\u2028", "\u2029"])
def test_m5_lines_are_numbered_as_git_and_grep_number_them(tool_context: ToolContext, mark: str) -> None:
    tool_context.session.write("m.py", f"a = 1\n{mark}\nb = '{mark}'\r\nc = 3".encode())
    shown = execute(Read(path="m.py"), tool_context, 10).observation.text
    assert shown == f"m.py, lines 1-4 of 4:\n1\ta = 1\n2\t{mark}\n3\tb = '{mark}'\n4\tc = 3"
    assert execute(Read(path="m.py", start=3, end=3), tool_context, 10).observation.text.endswith(
        f"3\tb = '{mark}'"
    )
    assert (
        "at line 4" in execute(Edit(path="m.py", old="c = 3", new="c = 4"), tool_context, 10).observation.text
    )


def test_what_is_left_out_of_a_long_line_is_counted(tool_context: ToolContext) -> None:
    tool_context.session.write("long", b"x" * 100_000)
    found = execute(Read(path="long"), tool_context, 10).observation
    assert found.text.startswith("long, lines 1-1 of 1:\n1\txxx") and found.omitted_bytes > 50_000
    assert found.text.count("x") + found.omitted_bytes == 100_000
    assert f"\n[... {found.omitted_bytes} bytes left out ...]\n" in found.text


def test_c1_what_no_program_and_no_file_can_be_given_is_refused_with_the_reason(
    tool_context: ToolContext,
) -> None:
    for action, reason in (
        (Bash(command="echo a\0b"), "NUL byte"),
        (Bash(command="echo \ud800"), "the command holds a lone surrogate"),
        (Bash(command="x" * (COMMAND_BYTES + 1)), "put a script into a file"),
        (Read(path="a\udcff"), "the path holds a lone surrogate"),
        (Read(path="a\0"), "NUL byte"),
        (Read(path="d/" * 2_000 + "x"), "more than programs can be given"),
        (Write(path="a", content="\udfff"), "the content holds a lone surrogate"),
        (Edit(path="ops.py", old="x", new="\ud800"), "the new holds a lone surrogate"),
    ):
        observation = execute(action, tool_context, 10).observation
        assert observation.kind is ObservationKind.REFUSED and reason in observation.text, action


def test_c1_a_refusal_is_never_as_long_as_what_it_refuses(tool_context: ToolContext) -> None:
    for action in (
        Read(path="n" * 100_000),
        Edit(path="ops.py", old="n" * 100_000, new=""),
        Edit(path="ops.py", old=" ", new=""),
    ):
        assert len(execute(action, tool_context, 10).observation.text) < 3_000


def test_bytes_that_are_no_text_pass_through_an_edit_as_they_were(tool_context: ToolContext) -> None:
    tool_context.session.write("latin", b"caf\xe9 = 1\n")
    execute(Edit(path="latin", old="= 1", new="= 2"), tool_context, 10)
    assert tool_context.session.read("latin") == b"caf\xe9 = 2\n"


def test_the_syntax_of_what_is_too_long_to_be_parsed_in_passing_is_not_checked() -> None:
    assert syntax_error("a.py", b"(" * 1000) is not None
    assert syntax_error("a.py", b"(" * (2 << 20)) is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(36, "File name too long"), "OSError: [Errno 36] File name too long"),
        (OSError(7, "Argument list too long"), "Argument list too long"),
        (UnicodeEncodeError("utf-8", "x\ud800", 1, 2, "surrogates not allowed"), "UnicodeEncodeError"),
        (ExceptionGroup("both", [ValueError("a"), RecursionError("b")]), "ExceptionGroup"),
        (OSError(28, "No space left on device"), None),
        (OSError(24, "Too many open files"), None),
        (InfrastructureError("gone"), None),
        (KeyError("mine"), None),
    ],
)
def test_c1_what_the_action_is_to_blame_for_is_told_and_all_else_is_raised(
    tool_context: ToolContext, sessions: GitSessions, task: Task, error: Exception, told: str | None
) -> None:
    class Breaking:
        name, owner, loopback = "breaking", None, True

        def run(self, command: Command) -> CommandResult:
            raise error

    session = replace(sessions, sandbox=Breaking()).open(task, "tools")
    broken = replace(tool_context, session=session)
    if told is None:
        with pytest.raises(type(error)):
            execute(Bash(command="ls"), broken, 10)
    else:
        assert told in execute(Bash(command="ls"), broken, 10).observation.text


def test_a_full_disk_is_not_told_to_an_agent(
    tool_context: ToolContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os

    def full(*arguments: object, **settings: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        execute(Write(path="new", content="x"), tool_context, 10)
