"""The messages that a rollout begins with."""

from looper.protocols import Message
from looper.records.plan import Scaffold
from looper.records.task import Task


def opening(task: Task, scaffold: Scaffold, memory: str = "") -> tuple[Message, ...]:
    """System message and task message. The issue text is all of the task that the agent sees."""
    block = scaffold.memory.replace("{items}", memory) if memory else ""
    text = scaffold.task.replace("{memory}", block)
    # The issue goes in last: braces in an issue are the issue's own.
    head, _, tail = text.partition("{issue}")
    return ("system", scaffold.system.strip("\n")), (
        "user",
        f"{head}{task.problem_statement}{tail}".strip("\n"),
    )
