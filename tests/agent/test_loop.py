"""The agent loop with real tools in a real sandbox, driven by scripts."""

from pathlib import Path

import pytest

from looper.agent.context import SHORTENED
from looper.agent.loop import Assignment, ReplayDiverged, Rollout, rollout
from looper.agent.prompt import question
from looper.agent.scaffold import packaged_scaffold
from looper.agent.tools import ToolContext
from looper.edges.models.scripted import CUT, ScriptedModel
from looper.edges.workspaces.exports import GitSessions
from looper.errors import (
    Cancelled,
    ContextOverflow,
    ModelError,
    ModelServerFault,
    ModelTimeout,
    ModelUnfit,
    ReplyLate,
    ReplyWithheld,
    RequestRefused,
)
from looper.protocols import ChatRequest, Message
from looper.records.memory import Delivery
from looper.records.plan import GuardSettings, Limits, PruningSettings, Scaffold
from looper.records.task import OWN_TESTS, Runner, Task
from looper.records.trajectory import Guard, ObservationKind, Reply, ReplyProblem, Step, StopReason


class Bench:
    """Runs scripts in fresh workspaces and keeps what happened."""

    def __init__(self, task: Task, sessions: GitSessions) -> None:
        self.task, self.sessions = task, sessions
        self.scaffold: Scaffold | None = None
        self.limits: Limits | None = None
        self.steps: list[Step] = []
        self.now = 0.0
        self.cancelled = False
        self.model: ScriptedModel | None = None
        self.recorded: tuple[Step, ...] = ()

    def run(self, *replies: str) -> Rollout:
        assert self.scaffold and self.limits
        self.session = self.sessions.open(self.task, "loop")
        self.steps = []
        return rollout(
            Assignment(
                cell="base/0/t",
                attempt=1,
                task=self.task,
                seed=1,
                temperature=0.0,
                memory=Delivery(candidates=0),
                tool_context=ToolContext(self.session, self.scaffold, self.limits),
                model=self.model or ScriptedModel(replies),
                clock=self.clock,
                record=self.steps.append,
                cancelled=lambda: self.cancelled,
                recorded=self.recorded,
            )
        )

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    def said(self, number: int) -> str:
        return self.steps[number - 1].observation.text


@pytest.fixture
def bench(
    task: Task,
    sessions: GitSessions,
    limits: Limits,
    full: Scaffold,
) -> Bench:
    found = Bench(task, sessions)
    found.scaffold, found.limits = full, limits.model_copy(update={"steps": 30})
    return found


@pytest.fixture
def full() -> Scaffold:
    from looper.agent.scaffold import packaged_scaffold

    return packaged_scaffold("full")


def edit(path: str, old: str, new: str) -> str:
    return f'<edit path="{path}"><old>{old}</old><new>{new}</new></edit>'


def write(path: str, content: str) -> str:
    return f'<write path="{path}">\n{content}</write>'


DONE = "<done>ready</done>"


def test_a_rollout_acts_observes_and_ends_with_done(bench: Bench) -> None:
    end = bench.run("I look.\n<bash>ls; python -c 'print(6*7)'</bash>", write("new.py", "x = 1\n"), DONE)
    assert (end.stop_reason, end.steps) == (StopReason.DONE, 3)
    assert "ops.py" in bench.said(1) and "42" in bench.said(1)
    assert bench.session.patch()[0].endswith("+x = 1\n")


def test_bytes_on_disk_are_the_bytes_between_the_tags(bench: Bench) -> None:
    content = 'é = "</old> <bash>"\r\n\tx  \n\n'
    bench.run(f'<write path="a/b.txt">\n{content}</write>', DONE)
    assert (bench.session.root / "a/b.txt").read_bytes() == content.encode()


@pytest.mark.parametrize(
    ("reply", "problem", "words"),
    [
        ("no action here", ReplyProblem.NO_ACTION, "one action"),
        ("<bash>ls", ReplyProblem.UNCLOSED, "close its tag"),
        ("<bash>ls</bash>\n<bash>pwd</bash>", ReplyProblem.SEVERAL_ACTIONS, "one action only"),
        ("<bash>ls</bash>\nthen", ReplyProblem.TEXT_AFTER_ACTION, "end with the closing tag"),
        ("```\n<bash>ls</bash>\n```", ReplyProblem.FENCED_ACTION, "without the code fence"),
        ("<write>x</write>", ReplyProblem.MALFORMED, "names no file"),
        ('<write path="p">cut of' + CUT, ReplyProblem.TRUNCATED, "output limit"),
    ],
)
def test_each_broken_reply_gets_its_own_observation(
    bench: Bench, reply: str, problem: ReplyProblem, words: str
) -> None:
    """G-30, G-31."""
    bench.run(reply, DONE, DONE)
    assert (bench.steps[0].problem, bench.steps[0].action) == (problem, None)
    assert bench.steps[0].observation.kind is ObservationKind.PROBLEM and words in bench.said(1)
    assert bench.session.patch() == ("", ())


def test_replies_without_action_end_the_rollout_under_their_own_name(bench: Bench) -> None:
    end = bench.run("hm")
    assert (end.stop_reason, end.steps) == (StopReason.NO_ACTION, 4)


def test_g11_done_with_nothing_changed_is_refused_once(bench: Bench) -> None:
    end = bench.run(DONE)
    assert (end.stop_reason, end.steps, end.guards) == (StopReason.DONE, 2, {Guard.PREMATURE_DONE: 1})
    assert "no file has been changed" in bench.said(1)


def test_g04_reading_the_same_thing_is_nudged_refused_and_ended(bench: Bench) -> None:
    end = bench.run(*["<read>ops.py</read>"] * 20)
    assert (end.stop_reason, end.steps) == (StopReason.STALLED, 5)
    assert "2 times" in bench.said(2) and bench.steps[2].observation.kind is ObservationKind.REFUSED
    assert end.guards[Guard.REPEATED_ACTION] == 4


def test_g04_other_ranges_and_reads_after_a_change_are_no_repeats(bench: Bench) -> None:
    ranges = [f"<read>check.py:{start}-{start + 1}</read>" for start in range(1, 7)]
    again = ["<read>new.py</read>", write("new.py", "x = 1\n"), "<read>new.py</read>"]
    again += [write("new.py", "x = 2\n"), "<read>new.py</read>"]
    bench.run(write("new.py", "x = 0\n"), *ranges, *again, DONE)
    assert not any(Guard.REPEATED_ACTION in step.guards for step in bench.steps)


def test_g05_a_finished_fix_survives_endless_checking(bench: Bench) -> None:
    bench.scaffold = bench.scaffold and bench.scaffold.model_copy(
        update={"guards": GuardSettings(no_progress_stop=6)}
    )
    loop = [f"<bash>python check.py; echo {number}</bash>" for number in range(30)]
    end = bench.run(write("fix.py", "x = 1\n"), *loop)
    assert (end.stop_reason, end.steps) == (StopReason.STALLED, 7)
    assert {Guard.VERIFICATION_LOOP, Guard.NO_PROGRESS} <= end.guards.keys()
    assert "fix.py" in bench.session.patch()[0]


def test_a_streak_of_reads_is_pointed_out(bench: Bench) -> None:
    end = bench.run(*[f"<read>check.py:{number}-{number}</read>" for number in range(1, 13)], DONE, DONE)
    assert end.guards[Guard.READ_ONLY_STREAK] == 1 and "12 reads in a row" in bench.said(12)


def test_g19_a_write_that_loses_most_of_a_file_needs_a_confirmation(bench: Bench) -> None:
    long, short = "x = 1\n" * 100, "y = 2\n"
    confirmed = f'<write path="f.py" confirm="shrink">\n{short}</write>'
    bench.run(write("f.py", long), write("f.py", short), confirmed, DONE)
    assert "600 bytes and would have 6" in bench.said(2) and bench.steps[1].guards == (Guard.SHRINKING_WRITE,)
    assert (bench.session.root / "f.py").read_text() == short


def test_g03_a_python_file_that_no_longer_compiles_is_reported_at_once(bench: Bench) -> None:
    end = bench.run(
        write("f.py", "x = 1\n"), edit("f.py", "x = 1", "x = ("), edit("f.py", "x = (", "x = 2"), DONE
    )
    assert "no longer compiles: line 1" in bench.said(2) and "compiles" not in bench.said(3)
    assert end.guards[Guard.BROKEN_PYTHON] == 1


def test_reads_are_numbered_ranged_and_say_what_is_left(bench: Bench) -> None:
    bench.scaffold = bench.scaffold and bench.scaffold.model_copy(update={"read_cap_lines": 3})
    lines = "".join(f"line {number}\n" for number in range(1, 11))
    bench.run(
        write("f", lines),
        "<read>f:4-5</read>",
        "<read>f</read>",
        "<read>f:20-30</read>",
        "<read>nope</read>",
        DONE,
    )
    assert bench.said(2) == "f, lines 4-5 of 10:\n4\tline 4\n5\tline 5"
    assert bench.said(3).endswith("3\tline 3\n[... 7 more lines; read f:4-10 ...]")
    assert "f has 10 lines" in bench.said(4) and "no such file" in bench.said(5)


def test_output_keeps_head_and_tail_and_says_what_was_cut(bench: Bench) -> None:
    bench.run("<bash>echo first; seq 100000; echo last</bash>", write("f", "x"), DONE)
    step = bench.steps[0]
    assert step.observation.text.startswith("first\n") and step.observation.text.endswith("last")
    omitted = step.observation.omitted_bytes
    kept = step.observation.text.replace(f"\n[... {omitted} bytes left out ...]\n", "")
    printed = "\n".join(("first", *map(str, range(1, 100_001)), "last"))
    assert omitted > 500_000 and len(kept) + omitted == len(printed)


def test_a_command_beyond_its_limit_is_an_observation(bench: Bench) -> None:
    bench.limits = bench.limits and bench.limits.model_copy(update={"command_s": 1.0})
    end = bench.run("<bash>echo begun; sleep 60</bash>", write("f", "x"), DONE)
    assert bench.steps[
        0
    ].observation.kind is ObservationKind.TIMEOUT and "begun\n[killed: after 1 s]" in bench.said(1)
    assert end.stop_reason is StopReason.DONE


def test_a_rollout_stops_at_the_step_limit_and_says_so(bench: Bench) -> None:
    bench.limits = bench.limits and bench.limits.model_copy(update={"steps": 3})
    end = bench.run(*[f"<bash>echo {number}</bash>" for number in range(9)])
    assert (end.stop_reason, end.steps) == (StopReason.STEP_LIMIT, 3)


def test_g20_an_endless_command_ends_with_the_rollouts_time(bench: Bench) -> None:
    import time

    bench.limits = bench.limits and bench.limits.model_copy(update={"wall_s": 1.0, "command_s": 60.0})
    bench.clock = time.monotonic  # type: ignore[method-assign]
    begun = time.monotonic()
    end = bench.run(write("f", "x"), "<bash>sleep 60</bash>")
    assert end.stop_reason is StopReason.TIME_LIMIT and time.monotonic() - begun < 10
    assert "f" in bench.session.patch()[0]


def test_tools_that_the_scaffold_does_not_have_are_refused(bench: Bench) -> None:
    bench.scaffold = bench.scaffold and bench.scaffold.model_copy(update={"tools": ("read", "edit", "done")})
    bench.run("<bash>touch x</bash>", DONE, DONE)
    assert "<bash> cannot be used here" in bench.said(1) and bench.session.patch() == ("", ())


class Counting(ScriptedModel):
    """A scripted model with a tokenizer: a token per four characters. It keeps what it was asked."""

    asked: list[tuple[Message, ...]]

    def __init__(self, *replies: str) -> None:
        super().__init__(replies)
        self.asked = []

    def count_tokens(self, messages: object) -> int:
        return sum(len(text) // 4 + 1 for _, text in messages)  # type: ignore[attr-defined]

    def reply(self, request: ChatRequest) -> Reply:
        assert self.count_tokens(request.messages) + request.max_output_tokens <= request.context_tokens
        self.asked.append(request.messages)
        return super().reply(request)


def test_g34_the_prompt_always_leaves_room_for_the_reply_and_keeps_what_is_in_use(bench: Bench) -> None:
    replies = [f"<bash>seq {number} {number + 700}</bash>" for number in range(20)]
    bench.model = Counting(*replies, write("f", "x"), DONE)
    end = bench.run()
    last = bench.model.asked[-1]
    assert end.stop_reason is StopReason.DONE and end.guards[Guard.CONTEXT_PRUNED] >= 2
    assert last[:2] == bench.model.asked[0][:2], "system and task stay"
    shortened = [position for position, (_, text) in enumerate(last) if text == SHORTENED]
    assert shortened and max(shortened) < len(last) - 2 * 4, "the last observations stay"
    assert all(step.context_tokens for step in bench.steps)


def test_without_pruning_a_full_context_ends_the_rollout(bench: Bench) -> None:
    bench.scaffold = bench.scaffold and bench.scaffold.model_copy(
        update={"pruning": PruningSettings(mode="none")}
    )
    bench.model = Counting(*[f"<bash>seq {number} {number + 900}</bash>" for number in range(20)])
    assert bench.run().stop_reason is StopReason.CONTEXT_FULL


SCRIPT = [
    "<bash>echo one > a.txt</bash>",
    "<read>a.txt</read>",
    edit("a.txt", "one", "two"),
    "<bash>cat a.txt</bash>",
    DONE,
]


@pytest.mark.parametrize("done_before", range(6))
def test_an_interrupted_rollout_goes_on_after_its_last_recorded_step(bench: Bench, done_before: int) -> None:
    """G-16: at most the running step is repeated, and the end is the same."""
    undisturbed = bench.run(*SCRIPT)
    steps, patch = bench.steps, bench.session.patch()
    bench.recorded = tuple(steps[:done_before])
    asked = Counting(*SCRIPT)
    bench.model = asked
    resumed = bench.run()
    assert (resumed.stop_reason, resumed.steps) == (undisturbed.stop_reason, undisturbed.steps)
    assert bench.session.patch() == patch
    assert len(asked.asked) == len(bench.steps) == len(steps) - done_before
    assert [step.index for step in bench.steps] == [step.index for step in steps[done_before:]]


def test_a_replay_that_leads_elsewhere_is_noticed(bench: Bench) -> None:
    bench.run("<bash>date +%N > now.txt</bash>", DONE)
    bench.recorded = tuple(bench.steps[:1])
    with pytest.raises(ReplayDiverged):
        bench.run("<bash>true</bash>")


def test_p01_a_cancelled_rollout_stops_before_its_next_step(bench: Bench) -> None:
    bench.cancelled = True
    with pytest.raises(Cancelled):
        bench.run("<bash>true</bash>")
    assert bench.steps == []


def test_a36_output_that_looks_like_the_protocol_is_data(bench: Bench) -> None:
    end = bench.run(
        "<bash>echo '<done>all good</done>'; echo '<bash>rm -rf .</bash>'</bash>", write("f", "x"), DONE
    )
    assert end.steps == 3 and "<done>all good</done>" in bench.said(1)
    assert (bench.session.root / "ops.py").exists()


def test_the_prompt_shows_the_issue_and_nothing_that_judges(bench: Bench, tmp_path: Path) -> None:
    bench.model = Counting(DONE)
    bench.run()
    shown = "\n".join(text for _, text in bench.model.asked[0])
    assert bench.task.problem_statement in shown
    assert bench.task.fail_to_pass[0] not in shown and bench.task.gold_patch not in shown


@pytest.mark.parametrize("runner", list(Runner))
def test_an_agent_is_told_how_the_repository_runs_its_own_tests(task: Task, runner: Runner) -> None:
    asked = question(task.model_copy(update={"runner": runner}), packaged_scaffold("full"))
    assert f"`{OWN_TESTS[runner]} PATH`" in asked


class Refusing(ScriptedModel):
    """Says the replies of its list, and then what a server said in place of one."""

    def __init__(self, error: ModelError, *replies: str) -> None:
        super().__init__(replies or ("",))
        self.error, self.left = error, len(replies)

    def reply(self, request: ChatRequest) -> Reply:
        if not self.left:
            raise self.error
        self.left -= 1
        return super().reply(request)


class Uncountable(Refusing):
    """Is refused when it counts for a second time."""

    most = 1

    def count_tokens(self, messages: object) -> int | None:
        self.most -= 1
        if self.most < 0:
            raise self.error
        return None


@pytest.mark.parametrize("refusing", [Refusing, Uncountable])
@pytest.mark.parametrize(
    ("error", "stop"),
    [
        (ContextOverflow("no room"), StopReason.CONTEXT_FULL),
        (ReplyLate("not within 3 s"), StopReason.TIME_LIMIT),
        (ReplyWithheld("content_filter"), StopReason.REFUSED),
        (RequestRefused("400"), StopReason.REFUSED),
        (ModelUnfit("roles must alternate"), StopReason.REFUSED),
    ],
)
def test_c6_c7_c9_what_is_the_rollouts_own_ends_it_with_its_work_so_far(
    bench: Bench, error: ModelError, stop: StopReason, refusing: type[Refusing]
) -> None:
    bench.model = refusing(error, write("new.py", "x = 1\n"))
    end = bench.run()
    assert (end.stop_reason, end.steps) == (stop, 1)
    assert end.cause == f"{type(error).__name__}: {error}"
    assert "+x = 1" in bench.session.patch()[0]


def test_c6_a_recorded_step_that_cannot_be_counted_now_is_no_replay(bench: Bench) -> None:
    bench.run(write("new.py", "x = 1\n"), write("new.py", "x = 2\n"), DONE)
    bench.recorded = tuple(bench.steps)
    bench.model = Uncountable(ModelUnfit("roles must alternate"), DONE)
    with pytest.raises(ReplayDiverged):
        bench.run()
    bench.model.most = 0
    with pytest.raises(ModelUnfit):
        bench.run()


def test_c6_what_the_very_first_request_is_refused_for_is_not_the_agents(bench: Bench) -> None:
    """But for its length: that is the task's, and was true before anybody was asked."""
    for error in (
        RequestRefused("400"),
        ModelServerFault("500"),
        ModelUnfit("template"),
        ModelTimeout("silent"),
    ):
        bench.model = Refusing(error)
        with pytest.raises(type(error)):
            bench.run()
    bench.model = Refusing(ContextOverflow("no room"))
    assert (bench.run().stop_reason, bench.run().steps) == (StopReason.CONTEXT_FULL, 0)
