"""A candidate's agent at work: its code runs in the sandbox, everything that decides stays with the harness.

The guest asks over two pipes for replies, commands and files. The model is called here, with the seed, temperature and limits of the plan;
commands run in the task's sandbox and tree; tokens and turns are counted here. What the guest says of itself is kept and decides
nothing: its patch is judged like any other.
"""

import base64
import contextlib
import json
import os
import select
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.agent.loop import Assignment, ReplayDiverged, Rollout, end_by, summary
from looper.errors import Cancelled, FileRefused, ModelError, PromptCut, is_of_what_was_made
from looper.protocols import ChatRequest, CommandResult, Message, Result, Shell
from looper.records.base import content_hash
from looper.records.trajectory import Reply, Step, StopReason
from looper.untrusted import remove_tree

GRACE_S = 15.0
"""For the guest's interpreter to start, beside the time of the rollout."""
LINE_BYTES = 16 << 20
"""Longest request; a guest that sends more is ended."""
POLL_MS = 100
ROLES = frozenset({"system", "user", "assistant"})
CHILD = "looper/evolution/guest_child.py"
"""Of the candidate's own source: how its agent is called is its own, what goes over the pipes is agreed on."""


@dataclass(frozen=True)
class Guests:
    shell_in: Callable[[Path], Shell]
    """Its interpreter has what the agent's source imports, and commands can run it: how a guest ends says nothing about that."""
    place: Path
    """For the pipes."""

    def rollout(self, source: Path, of: Assignment) -> Rollout:
        """One rollout by the agent below `source`. Raises what the world does wrong, and ReplayDiverged for one that was interrupted: a
        guest's steps are its own word, so nothing is replayed by them."""
        if of.recorded:
            raise ReplayDiverged
        self.place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="guest-", dir=self.place))
        try:
            folder.chmod(0o777)
            for name in ("ask", "answer"):
                os.mkfifo(folder / name)
                (folder / name).chmod(0o666)
            return _Served(self, source, of, folder).run()
        finally:
            remove_tree(folder)


def _sent(pipe: int, data: bytes, guest: threading.Thread) -> bool:
    """Whether somebody may still read it: a guest that died in the middle of an answer must not hold up the run."""
    poller = select.poll()
    poller.register(pipe, select.POLLOUT)
    while data:
        if not guest.is_alive():
            return False
        poller.poll(POLL_MS)
        try:
            data = data[os.write(pipe, data) :]
        except BlockingIOError:
            continue
    return True


def _conversation(messages: list[list[str]]) -> tuple[Message, ...]:
    """A guest's. Raises ValueError for a role that not every server knows: its refusal would pass for one of every request."""
    said = tuple((str(role), str(text)) for role, text in messages)
    if strange := {role for role, _ in said} - ROLES:
        raise ValueError(f"no roles: {sorted(strange)}")
    return said


class _Ended(Exception):
    """The guest is at its end."""


class _Served:
    def __init__(self, guests: Guests, source: Path, of: Assignment, folder: Path) -> None:
        self.guests, self.source, self.of, self.folder = guests, source, of, folder
        self.limits = of.tool_context.limits
        self.begun = of.clock()
        self.replies: list[Reply] = []
        self.steps: list[Step] = []
        self.prompt_hash = ""
        self.stop: StopReason | None = None
        self.cause = ""
        self.result: CommandResult | None = None
        self.failed: Exception | None = None

    def run(self) -> Rollout:
        ask = os.open(self.folder / "ask", os.O_RDONLY | os.O_NONBLOCK)
        # Opened for both, so that it neither waits for the guest nor breaks when the guest is gone.
        answer = os.open(self.folder / "answer", os.O_RDWR | os.O_NONBLOCK)
        guest = threading.Thread(target=self._run_guest)
        guest.start()
        try:
            self._serve(ask, answer, guest)
        finally:
            os.close(ask)
            os.close(answer)
            # Whatever the guest has put in its place.
            with contextlib.suppress(OSError):
                (self.folder / "answer").unlink()
            guest.join()
        if self.failed is not None:
            raise self.failed
        return self._summary()

    def _run_guest(self) -> None:
        try:
            self.result = self.guests.shell_in(self.folder).exec(
                ("-B", str(self.source / CHILD), str(self.folder)),
                self.limits.wall_s + GRACE_S,
                memory_mb=4096,
                env={"PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
                readable=(self.source,),
            )
        except Exception as error:  # Raised again by the thread that waits for this one.
            self.failed = error

    def _serve(self, ask: int, answer: int, guest: threading.Thread) -> None:
        poller = select.poll()
        poller.register(ask, select.POLLIN)
        waiting = b""
        while True:
            if self.of.cancelled():
                raise Cancelled
            ready = poller.poll(POLL_MS)
            try:
                data = os.read(ask, 1 << 20) if ready else b""
            except BlockingIOError:
                data = b""
            if not data and not guest.is_alive():
                return
            if not data:
                # Nobody has the other end open: at the beginning, and at the end.
                guest.join(0.002)
            waiting += data
            *lines, waiting = waiting.split(b"\n")
            if len(waiting) > LINE_BYTES:
                return
            for line in lines:
                try:
                    said = json.dumps(self._answer(line)).encode() + b"\n"
                except _Ended:
                    return
                if not _sent(answer, said, guest):
                    return

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            operations: dict[str, Callable[..., Any]] = {
                "begin": self._begin,
                "count": self._count,
                "reply": self._reply,
                "run": self._run,
                "read": self._read,
                "write": self._write,
                "state": self._state,
                "step": self._step,
                "end": self._end,
            }
            ask = operations[asked.pop("operation")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _Ended from error
        try:
            return {"value": ask(**asked)}
        except FileRefused as error:
            return {"refused": str(error)}
        except Exception as error:
            if not (isinstance(error, TypeError | KeyError) or is_of_what_was_made(error)):
                raise
            # Another shape than was agreed on, or a tree that cannot be handled: the guest's fault, and its end.
            raise _Ended from error

    def _begin(self) -> dict[str, Any]:
        """Of the task nothing that judges."""
        bare = {
            "gold_patch": "",
            "test_patch": "",
            "fail_to_pass": (),
            "pass_to_pass": (),
            "dependencies": (),
            "modified_files": (),
        }
        return {
            "task": self.of.task.model_copy(update=bare).model_dump(mode="json"),
            "scaffold": self.of.tool_context.scaffold.model_dump(mode="json"),
            "limits": self.limits.model_dump(mode="json"),
            "memory": self.of.memory.model_dump(mode="json"),
            "clean_state": self.of.tool_context.session.clean_state,
        }

    def _count(self, messages: list[list[str]]) -> int | None:
        said = _conversation(messages)
        return self._answered(lambda: self.of.model.count_tokens(said))

    def _reply(self, messages: list[list[str]], most: int) -> dict[str, Any]:
        if len(self.replies) >= self.limits.steps:
            self.stop = StopReason.STEP_LIMIT
            raise _Ended
        said = _conversation(messages)
        self.prompt_hash = self.prompt_hash or content_hash(*(part for message in said for part in message))
        request = ChatRequest(
            conversation=f"{self.of.cell}#{self.of.attempt}",
            messages=said,
            max_output_tokens=max(1, min(int(most), self.limits.output_tokens)),
            context_tokens=self.limits.context_tokens,
            temperature=self.of.temperature,
            # As the harness's own loop draws it, so that arms share their sampling seeds and nobody draws until it fits.
            seed=int(content_hash(str(self.of.seed), str(len(self.replies)))[:8], 16),
            timeout_s=max(1.0, self._left()),
            sampling=self.of.sampling,
        )
        reply = self._answered(lambda: self.of.model.reply(request))
        self.replies.append(reply)
        return reply.model_dump(mode="json")

    def _answered(self, ask: Callable[[], Result]) -> Result:
        """What the model says; its refusals end the guest, who alone chose the words."""
        try:
            return ask()
        except ModelError as error:
            cut = isinstance(error, PromptCut)
            self.stop = StopReason.CONTEXT_FULL if cut else end_by(error, len(self.replies))
            self.cause = f"{type(error).__name__}: {error}"
            raise _Ended from error

    def _left(self) -> float:
        waited = sum(reply.waited_s for reply in self.replies)
        return self.limits.wall_s - (self.of.clock() - self.begun - waited)

    def _run(self, command: str, timeout_s: float, cap: int) -> dict[str, Any]:
        result = self.of.tool_context.session.exec(
            str(command),
            max(0.1, min(float(timeout_s), self.limits.command_s, self._left())),
            memory_mb=self.limits.memory_mb,
            output_cap_bytes=max(1, min(int(cap), 1 << 20)),
        )
        coded = {name: base64.b64encode(getattr(result, name)).decode() for name in ("head", "tail")}
        rest = ("exit_code", "omitted_bytes", "killed_by", "wall_s")
        return coded | {name: getattr(result, name) for name in rest}

    def _read(self, path: str) -> str:
        return base64.b64encode(self.of.tool_context.session.read(str(path))).decode()

    def _write(self, path: str, content: str) -> None:
        self.of.tool_context.session.write(str(path), base64.b64decode(content))

    def _state(self) -> str:
        return self.of.tool_context.session.tree_hash()

    def _step(self, step: dict[str, Any]) -> None:
        """Its word, but for the reply, which was given here."""
        if len(self.steps) >= len(self.replies):
            raise ValueError("a step without a reply")
        said = Step.model_validate_json(json.dumps(step))
        mine = {
            "cell": self.of.cell,
            "attempt": self.of.attempt,
            "index": len(self.steps) + 1,
            "reply": self.replies[len(self.steps)],
            "tree": self._state(),
        }
        self.steps.append(said.model_copy(update=mine))
        self.of.record(self.steps[-1])

    def _end(self, stop_reason: str) -> None:
        self.stop = StopReason(stop_reason)
        raise _Ended

    def _summary(self) -> Rollout:
        if self.result is not None and self.result.killed_by == "time":
            self.stop = StopReason.TIME_LIMIT
        stop, took_s = self.stop or StopReason.CRASHED, self.limits.wall_s - self._left()
        return summary(self.replies, self.steps, stop, self.cause, self.prompt_hash, took_s)
