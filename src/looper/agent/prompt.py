"""The messages that a rollout begins with."""

from collections.abc import Sequence

from looper.protocols import Message
from looper.records.base import content_hash
from looper.records.memory import Delivery
from looper.records.plan import Scaffold
from looper.records.task import Task


def opening(task: Task, scaffold: Scaffold, memory: Delivery | None = None) -> tuple[Message, ...]:
    """System message, what is remembered as earlier turns, task message. The issue text, and how the repository runs its own
    tests, is all of the task that the agent sees."""
    earlier = memory.earlier if memory is not None else ()
    return ("system", scaffold.system.strip("\n")), *earlier, ("user", question(task, scaffold, memory))


def question(task: Task, scaffold: Scaffold, memory: Delivery | None = None) -> str:
    block = ""
    if memory is not None and memory.text is not None:
        block = scaffold.memory.replace("{items}", memory.text)
    text = scaffold.task.replace("{memory}", block).replace("{tests}", task.own_tests)
    # The issue goes in last: braces in an issue are the issue's own.
    head, _, tail = text.partition("{issue}")
    return f"{head}{task.problem_statement}{tail}".strip("\n")


def hash_of(messages: Sequence[Message]) -> str:
    """By which a rollout names what it began with."""
    return content_hash(*(part for message in messages for part in message))
