"""Another version of the agent's own source at work: in the sandbox, on the real suite with the real small model."""

import json
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from looper.agent.loop import Assignment
from looper.agent.tools import ToolContext
from looper.cli.lanes import lane_run
from looper.cli.settings import Settings
from looper.cli.settings import settings as looper_settings
from looper.cli.wiring import own_environment
from looper.edges.models.scripted import ScriptedModel
from looper.edges.sandboxes.shell import LocalShell
from looper.edges.workspaces.exports import GitSessions
from looper.errors import PromptCut
from looper.evolution.guest import Guests, _Ended, _Served
from looper.journal import read_stream
from looper.protocols import ChatRequest, Sandbox
from looper.records.memory import Delivery
from looper.records.plan import Arm, Limits
from looper.records.task import Task
from looper.records.trajectory import Reply, Step, StopReason, Trajectory
from looper.views.runs import RunView

SOURCE = Path(__file__).parents[2] / "src"
TASKS = 4
LOOP = "looper/agent/loop.py"
RUN = """        stop = self._replay(self.of.recorded)
        while stop is None:"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Settings:
    place = tmp_path_factory.mktemp("guests")
    return replace(
        looper_settings(),
        state=state,
        workspaces=state / "workspaces",
        runs=place / "runs",
        agents=place / "versions",
    )


def version(settings: Settings, name: str, before: str = "", after: str = "") -> str:
    """The agent's source, with one place in its loop changed."""
    assert settings.agents is not None
    target = settings.agents / name / "src"
    if not target.is_dir():
        shutil.copytree(SOURCE, target, ignore=shutil.ignore_patterns("__pycache__"))
        text = (target / LOOP).read_text()
        assert before in text
        (target / LOOP).write_text(text.replace(before, after, 1) if before else text)
    return name


def at_work(settings: Settings, name: str, tasks: int = TASKS) -> RunView:
    """A lane of it against the installed agent."""
    said: list[str] = []
    arms = {"parent": {}, "candidate": {"agent": name}}
    return lane_run(settings.runs.parent, "development", tasks, arms, 2, settings, said.append)


def ends(view: RunView, arm: str) -> list[Trajectory]:
    return [end for _, end in sorted(view.ends.items()) if end.arm == arm]


def test_the_same_source_does_the_same_as_a_guest(settings: Settings) -> None:
    view = at_work(settings, version(settings, "same"), 8)
    assert view.outcomes("candidate") == view.outcomes("parent") and len(view.outcomes("parent")) == 8
    for one, other in zip(ends(view, "candidate"), ends(view, "parent"), strict=True):
        assert one.patch_hash == other.patch_hash and one.stop_reason == other.stop_reason
        assert (one.steps, one.prompt_tokens, one.completion_tokens) == (
            other.steps,
            other.prompt_tokens,
            other.completion_tokens,
        )
        assert one.prompt_hash == other.prompt_hash


def test_one_that_dies_resolves_nothing_and_ends_nothing(settings: Settings) -> None:
    view = at_work(settings, version(settings, "dies", RUN, f"        raise SystemExit(0)\n{RUN}"))
    assert not any(view.outcomes("candidate").values()) and len(view.outcomes("candidate")) == TASKS
    assert {end.stop_reason for end in ends(view, "candidate")} == {StopReason.CRASHED}


class Cut(ScriptedModel):
    """Its server reads less than it is given."""

    def reply(self, request: ChatRequest) -> Reply:
        raise PromptCut("it read 3 tokens of a longer prompt")


@pytest.mark.parametrize(
    ("role", "stop"), [("developer", None), ("user", StopReason.CONTEXT_FULL)], ids=["role", "length"]
)
def test_what_a_guest_sends_its_model_ends_the_guest_and_not_the_run(
    role: str, stop: StopReason | None, arm: Arm, task: Task, limits: Limits, sessions: GitSessions, tmp_path: Path,
) -> None:  # fmt: skip
    session = sessions.open(task, "guest")
    of = Assignment(
        "candidate/0/t", 1, task, 1, 0.0, Delivery(candidates=0),
        ToolContext(session, arm.scaffold, limits), Cut([]),
        time.monotonic, lambda step: None, lambda: False,
    )  # fmt: skip
    served = _Served(Guests(lambda folder: session, tmp_path), SOURCE, of, tmp_path)
    with pytest.raises(_Ended):
        served._answer(json.dumps({"operation": "reply", "messages": [[role, "x"]], "most": 9}).encode())
    assert served.stop is stop and ("PromptCut" in served.cause) == (stop is not None)
    session.close()


def test_a_version_whose_own_parts_are_called_otherwise_works_all_the_same(
    settings: Settings, arm: Arm, task: Task, sandbox: Sandbox, limits: Limits, sessions: GitSessions
) -> None:
    """What the agent is made of is its own affair; what goes over the pipes is agreed on."""
    assert settings.agents is not None
    source = settings.agents / version(settings, "otherwise") / "src"
    for path in (*(source / "looper/agent").glob("*.py"), source / "looper/evolution/guest_child.py"):
        path.write_text(path.read_text().replace("ToolContext", "Toolbox").replace("clean_state", "begun_as"))
    child = source / "looper/evolution/guest_child.py"
    child.write_text(child.read_text().replace('given["begun_as"]', 'given["clean_state"]'))
    session = sessions.open(task, "guest")
    of = Assignment(
        "candidate/0/t", 1, task, 1, 0.0, Delivery(candidates=0), ToolContext(session, arm.scaffold, limits),
        ScriptedModel(["<bash>echo new > new.txt</bash>", "<done>ready</done>"]), time.monotonic, lambda step: None, lambda: False,
    )  # fmt: skip
    shells = partial(LocalShell, sandbox=sandbox, environment=own_environment())
    assert Guests(shells, settings.workspaces / "guests").rollout(source, of).stop_reason is StopReason.DONE
    assert session.patch()[0].endswith("+new\n")
    session.close()


@pytest.mark.proof
def test_one_that_asks_without_end_is_stopped_at_the_limit_of_turns(settings: Settings) -> None:
    forever = (
        "        from looper.protocols import ChatRequest\n"
        "        while True:\n"
        "            self.of.model.reply(ChatRequest('c', (('user', 'more'),), 10**6, 10**6, 9.0, 1, 10**6))\n"
    )
    view = at_work(settings, version(settings, "forever", RUN, forever + RUN))
    limits = view.manifest.plan.limits
    for end in ends(view, "candidate"):
        assert end.stop_reason is StopReason.STEP_LIMIT and end.steps == limits.steps
        assert (
            end.completion_tokens is not None and end.completion_tokens <= limits.steps * limits.output_tokens
        )


def test_one_that_makes_up_its_steps_is_judged_by_its_patch_all_the_same(settings: Settings) -> None:
    """It says that it was done, with records of replies that nobody gave."""
    made_up = (
        "        from looper.records.trajectory import Reply, Usage, FinishReason, Observation, ObservationKind\n"
        "        usage = Usage(prompt_tokens=1, completion_tokens=1, counted_by='me')\n"
        "        reply = Reply(text='<done>resolved</done>', finish_reason=FinishReason.STOP, usage=usage, wall_s=0.0)\n"
        "        self.of.record(Step(cell='x', attempt=1, index=1, reply=reply, action=None, problem=None,\n"
        "            observation=Observation(kind=ObservationKind.END, text='resolved'), guards=(), stop_reason=StopReason.DONE,\n"
        "            context_tokens=1, pruned_messages=0, tree='x', wall_s=0.0))\n"
    )
    view = at_work(settings, version(settings, "liar", RUN, made_up + RUN))
    assert not any(view.outcomes("candidate").values())
    steps = [step for step in read_stream(view.folder, "steps", Step) if "candidate" in step.cell]
    assert not any(step.reply.usage.counted_by == "me" for step in steps)


def test_one_that_looks_around_finds_no_answers_and_no_harness(settings: Settings) -> None:
    """What it can read it says as the model's next prompt, which is hashed; here it writes it into the workspace's patch."""
    look = (
        "        import os, glob\n"
        "        found = [name for name in ('/root', '/work', '/home', os.path.expanduser('~/.ssh')) if glob.glob(name + '/*.jsonl')]\n"
        "        task = self.of.task\n"
        "        seen = repr((found, task.gold_patch, task.fail_to_pass, sorted(k for k in os.environ if 'KEY' in k or 'LOOPER' in k)))\n"
        "        try:\n"
        "            import socket\n"
        "            socket.create_connection(('127.0.0.1', 22), 1)\n"
        "            seen += 'reached'\n"
        "        except OSError as error:\n"
        "            seen += type(error).__name__ if not isinstance(error, ConnectionRefusedError) else 'nobody'\n"
        "        self.of.tool_context.session.write('seen.txt', seen.encode())\n"
    )
    view = at_work(settings, version(settings, "looks", RUN, look + RUN))
    for end in ends(view, "candidate"):
        assert "+([], '', (), [])" in end.patch and "reached" not in end.patch


def test_paths_outside_of_the_workspace_are_refused(settings: Settings) -> None:
    out = (
        "        from looper.errors import FileRefused\n"
        "        for path in ('../outside.txt', '/tmp/outside.txt'):\n"
        "            try:\n"
        "                self.of.tool_context.session.write(path, b'x')\n"
        "                raise SystemExit(9)\n"
        "            except FileRefused:\n"
        "                pass\n"
    )
    view = at_work(settings, version(settings, "out", RUN, out + RUN))
    assert StopReason.CRASHED not in {end.stop_reason for end in ends(view, "candidate")}
    assert view.outcomes("candidate") == view.outcomes("parent")
