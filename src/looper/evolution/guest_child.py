"""Runs inside the sandbox, on a candidate's source: its agent works at one task, and asks the harness for everything else.

Started with a folder that holds two pipes. Each request is one JSON line in `ask`, each answer one in `answer`. There is no model, no
task's answer and no working tree in here: the harness calls the model and runs the tools.
"""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

from looper.agent.loop import Assignment, rollout
from looper.agent.tools import ToolContext
from looper.errors import FileRefused
from looper.protocols import ChatRequest, CommandResult
from looper.records.memory import Delivery
from looper.records.plan import Limits, Scaffold
from looper.records.task import Task
from looper.records.trajectory import Reply, Step


class Harness:
    """The other end of the pipes."""

    def __init__(self, folder: Path) -> None:
        self._ask = (folder / "ask").open("w", encoding="utf-8")
        self._answer = (folder / "answer").open(encoding="utf-8")

    def __call__(self, operation: str, **given: Any) -> Any:
        self._ask.write(json.dumps({"operation": operation, **given}) + "\n")
        self._ask.flush()
        line = self._answer.readline()
        if not line:
            raise SystemExit(3)
        found = json.loads(line)
        if "refused" in found:
            raise FileRefused(found["refused"])
        return found["value"]


class Model:
    """As a ChatModel."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def identity(self) -> Any:
        raise NotImplementedError("which model answers is the harness's to know")

    def count_tokens(self, messages: Any) -> int | None:
        return self._harness("count", messages=[list(one) for one in messages])  # type: ignore[no-any-return]

    def reply(self, request: ChatRequest) -> Reply:
        messages = [list(one) for one in request.messages]
        return Reply.model_validate(self._harness("reply", messages=messages, most=request.max_output_tokens))

    def forget(self, conversation: str) -> None:
        pass

    def close(self) -> None:
        pass


class TaskSession:
    """As a Session."""

    def __init__(self, harness: Harness, clean_state: str) -> None:
        self._harness, self.clean_state = harness, clean_state

    def exec(
        self,
        command: str | tuple[str, ...],
        timeout_s: float,
        *,
        output_cap_bytes: int = 64 << 10,
        **given_by_the_harness: Any,
    ) -> CommandResult:
        found = self._harness("run", command=command, timeout_s=timeout_s, cap=output_cap_bytes)
        head, tail = (base64.b64decode(found.pop(name)) for name in ("head", "tail"))
        return CommandResult(head=head, tail=tail, **found)

    def tree_hash(self) -> str:
        return str(self._harness("state"))

    def read(self, path: str) -> bytes:
        return base64.b64decode(self._harness("read", path=path))

    def write(self, path: str, content: bytes) -> None:
        self._harness("write", path=path, content=base64.b64encode(content).decode())

    def patch(self) -> Any:
        raise NotImplementedError("the harness makes the patch")

    def close(self) -> None:
        pass


def main() -> None:
    harness = Harness(Path(sys.argv[1]))
    given = harness("begin")
    tool_context = ToolContext(
        TaskSession(harness, given["clean_state"]),
        Scaffold.model_validate(given["scaffold"]),
        Limits.model_validate(given["limits"]),
    )

    def record(step: Step) -> None:
        harness("step", step=json.loads(step.to_json()))

    done = rollout(
        Assignment(
            cell="guest",
            attempt=1,
            task=Task.model_validate(given["task"]),
            seed=0,
            temperature=0.0,
            memory=Delivery.model_validate(given["memory"]),
            tool_context=tool_context,
            model=Model(harness),
            clock=time.monotonic,
            record=record,
            cancelled=lambda: False,
        )
    )
    harness("end", stop_reason=done.stop_reason.value)


if __name__ == "__main__":
    main()
