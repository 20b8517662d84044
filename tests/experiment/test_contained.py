"""Nothing that a model says or makes ends more than its own cell."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from looper.cli.settings import settings
from looper.cli.showing import show_cell
from looper.edges.engines.local import LocalEngine, Threads
from looper.edges.models.scripted import ScriptedModel
from looper.edges.workspaces import exports, manifest
from looper.edges.workspaces.exports import GitSession, GitSessions
from looper.errors import (
    FileRefused,
    InfrastructureError,
    JournalError,
    LooperError,
    ModelReplyBroken,
    ModelUnfit,
    ModelUnreachable,
)
from looper.experiment.cell import RunContext, run_cell
from looper.experiment.ledger import Ledger
from looper.experiment.pools import read_attempts
from looper.experiment.run import INFRA_IN_A_ROW, run_plan
from looper.journal import read_stream
from looper.protocols import Message
from looper.records.job import CellTreatment
from looper.records.memory import Delivery
from looper.records.plan import Arm, Cell, Limits, Plan, RunManifest, TaskSelection
from looper.records.task import Task
from looper.records.text import encodable, joined
from looper.records.training import SelectionSettings
from looper.records.trajectory import ObservationKind, Step, StopReason, Trajectory
from looper.records.verdict import Outcome, Verdict
from looper.training.select import Attempt, select
from looper.views.diff import rollouts_diff
from looper.views.exports import atif_lines, csv_lines
from looper.views.runs import read_run
from looper.views.show import step_text


@dataclass
class Run:
    """Cells of one task, a seed each, with the replies that each hears."""

    folder: Path
    task: Task
    run_context: RunContext
    arm: Arm
    limits: Limits
    treatment: Callable[[int], CellTreatment] = lambda seed: CellTreatment(adapter=str(seed))
    """Of a seed; the adapter says which script is played."""

    def play(self, *scripts: Sequence[str], model: type[ScriptedModel] = ScriptedModel) -> list[Verdict]:
        """The last verdict of each cell."""
        models = [model(script) for script in scripts]
        run_context = replace(
            self.run_context, model_for=lambda arm, task, adapter, server: models[int(adapter)]
        )
        seeds = tuple(range(len(scripts)))
        plan = Plan(
            experiment="contained", profile="test", title="Contained", hypothesis="A cell ends alone.", factor="none",
            arms=(self.arm,), selection=TaskSelection(suite="micro"), seeds=seeds, limits=self.limits, order="parallel",
        )  # fmt: skip
        about = RunManifest(
            plan=plan, code_version="test", tasks=(self.task.instance_id,), tasks_hash="",
            models={"base": models[0].identity()}, environments=("micro",), sandbox=self.run_context.sessions.sandbox_name,
        )  # fmt: skip
        ledger = Ledger(self.folder, about)
        cells = [Cell(arm="base", seed=seed, instance_id=self.task.instance_id) for seed in seeds]
        tasks, stop = {self.task.instance_id: self.task}, threading.Event()
        engine = LocalEngine(Threads(2), lambda job, tell: run_cell(job, run_context, tell, stop.is_set))
        try:
            run_plan(
                plan, plan.arms, tasks, [[cell] for cell in cells], ledger, engine, stop, Silent(),
                lambda arm, seed, task: self.treatment(seed),
            )  # fmt: skip
        finally:
            ledger.close()
        last = {verdict.cell: verdict for verdict in read_stream(self.folder, "verdicts", Verdict)}
        return [last[cell.key] for cell in cells]

    def steps(self) -> list[Step]:
        return list(read_stream(self.folder, "steps", Step))

    def ends(self) -> list[Trajectory]:
        return list(read_stream(self.folder, "trajectories", Trajectory))


class Silent:
    def finished(self, cell: Cell, verdict: Verdict) -> None:
        pass


@pytest.fixture
def run(
    tmp_path: Path,
    task: Task,
    sessions: GitSessions,
    arm: Arm,
    limits: Limits,
) -> Run:
    run_context = RunContext(sessions, lambda arm, task, adapter, server: ScriptedModel([]), "test")
    return Run(tmp_path / "run", task, run_context, arm, limits)


DONE = "<done></done>"
ODD = {
    "NUL in a command": "<bash>echo a\0b</bash>",
    "a lone surrogate in a command": "<bash>echo \ud800</bash>",
    "half a byte in a command": "<bash>echo \udcff</bash>",
    "a surrogate in a path": "<read>a\ud800.py</read>",
    "NUL in a path": "<read>a\0.py</read>",
    "a surrogate in what is written": '<write path="a.txt">\ud800\udfff \udc80</write>',
    "NUL in what is written": '<write path="a.txt">a\0b</write>',
    "a surrogate in an edit": '<edit path="ops.py"><old>\ud800</old><new>\udcff</new></edit>',
    "a surrogate in an attribute": '<read path="a.py" lines="\ud800"></read>',
    "a surrogate in prose": "I think \udfff\ud800 so",
    "a surrogate in the last word": "<done>\ud83d</done>",
    "a long command": f"<bash>echo {'x' * 140_000} | wc -c</bash>",
    "a long name": f'<write path="{"n" * 256}">x</write>',
    "a long path": f"<read>{'d/' * 40_000}x</read>",
    "a path of sixty folders": f'<write path="{("d" * 250 + "/") * 60}x">x</write>',
    "git's own folder": '<write path=".git/hooks/pre-commit">x</write>',
    "a deep expression": f'<write path="deep.py">x = {"-" * 100_000}1</write>',
}
DONE_AS_SAID = ("NUL in what is written", "a deep expression")


def test_c1_odd_text_is_an_observation_and_the_rollout_goes_on(run: Run) -> None:
    guards = run.arm.scaffold.guards.model_copy(update={"no_progress_stop": None})
    scaffold = run.arm.scaffold.model_copy(update={"guards": guards})
    limits = run.limits.model_copy(update={"steps": 2 * len(ODD) + 2})
    run = replace(run, limits=limits, arm=run.arm.model_copy(update={"scaffold": scaffold}))
    replies = [
        reply for number, said in enumerate(ODD.values()) for reply in (said, f"<bash>echo {number}</bash>")
    ]
    (verdict,) = run.play([*replies, DONE, DONE])
    steps = run.steps()
    assert verdict.outcome is Outcome.UNRESOLVED and verdict.attempt == 1 and len(steps) == len(replies) + 1
    assert [step.reply.text for step in steps[:-1]] == list(map(joined, replies)), "as it was said"
    assert [step.observation.text for step in steps[1:-1:2]] == [str(number) for number in range(len(ODD))]
    for name, step in zip(ODD, steps[::2], strict=False):
        told = step.observation
        assert (told.kind in (ObservationKind.REFUSED, ObservationKind.PROBLEM)) == (
            name not in DONE_AS_SAID
        ), name
        assert len(told.text) < 3_000 and told.text.encode()


def test_c1_a_command_as_long_as_one_may_be_runs(run: Run) -> None:
    run.play([f"<bash>echo {'x' * 118_000} | wc -c</bash>", DONE, DONE])
    assert run.steps()[0].observation.text == "118001"


DEEP = "python -c \"import os\nfor i in range({}): os.mkdir('{}'); os.chdir('{}')\nopen('f', 'w').write('deep')\""
TREES = {
    "deeper than a path may be": DEEP.format(3000, "d" * 250, "d" * 250),
    "deeper than any recursion": DEEP.format(1200, "d", "d"),
    "names of 255 bytes": "for i in $(seq 15); do n=$(printf '%0255d' 0); mkdir $n && cd $n || break; done; touch $n",
    "names of any bytes": r"touch $'a\nb' $'\xff\xfe' $'\u2028' ' ' '-' '\' '*' '$(x)' 'GIT~1' .GIT && mkdir sub && echo x > sub/.git",
    "no rights": "mkdir -p closed/in && echo x > closed/in/f && chmod 0 closed/in closed; echo x > secret; chmod 0 secret",
    "pipes and links": "mkfifo pipe; ln -s loop loop; ln -s /nowhere dangling; ln -s . self; ln ops.py hard; ln -s /etc/passwd out",
    "a socket": "python -c \"import socket; socket.socket(socket.AF_UNIX).bind('s')\"",
    "a sparse file": "truncate -s 200M sparse && truncate -s 255M other",
    "a file in place of a folder": "mkdir x && echo 1 > x/y && rm -r x && echo 2 > x; rm ops.py && mkdir ops.py && echo 3 > ops.py/z",
    "git gone": "rm -rf .git; echo gitdir: /etc > .git",
    "everything gone": "rm -rf -- * .[!.]*",
    "a folder that nobody may enter": "chmod 0 .",
}  # fmt: skip


def test_c3_a_tree_of_any_shape_is_its_own_cells_matter(run: Run) -> None:
    places = run.run_context.sessions.open(run.task, "place").root.parent  # type: ignore[attr-defined]
    before = set(places.iterdir())
    new = '<write path="new.py">x = 1\n</write>'
    found = run.play(*[[f"<bash>{command}</bash>", new, DONE, DONE] for command in TREES.values()])
    for name, verdict in zip(TREES, found, strict=True):
        first = next(step for step in run.steps() if step.cell == verdict.cell)
        assert first.observation.kind is ObservationKind.OK, (name, first.observation)
        assert (verdict.outcome, verdict.attempt) == (Outcome.UNRESOLVED, 1), (name, verdict.cause)
    assert set(places.iterdir()) == before


def test_c3_a_tree_with_too_much_in_it_ends_its_rollout_and_is_unresolved(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "MOST_ENTRIES", 2_000)
    odd, plain = run.play(
        ["<bash>mkdir m; touch m/{1..2500}</bash>", DONE, DONE], ["<bash>touch {1..100}</bash>", DONE, DONE]
    )
    assert odd.outcome is plain.outcome is Outcome.UNRESOLVED
    assert "TreeUnreadable: the tree holds more than 2000" in odd.cause
    end = next(end for end in run.ends() if end.cell == odd.cell)
    assert (end.stop_reason, end.steps, end.patch) == (StopReason.UNUSABLE, 1, "")
    assert "more than 2000" in next(step for step in run.steps() if step.cell == odd.cell).observation.text


def test_c3_a_change_that_no_patch_can_hold_is_unresolved_with_its_cause(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "PATCH_BYTES", 3 << 20)
    (verdict,) = run.play(["<bash>head -c 5M /dev/zero > big</bash>", DONE])
    assert verdict.outcome is Outcome.UNRESOLVED and "more than a patch may" in verdict.cause
    assert run.ends()[0].stop_reason is StopReason.DONE


FAULTS: dict[str, tuple[type[Exception], Outcome]] = {
    "the harness's own": (KeyError, Outcome.INFRA_ERROR),
    "of what was made": (ValueError, Outcome.UNRESOLVED),
    "the world's": (ConnectionResetError, Outcome.INFRA_ERROR),
}


@pytest.mark.parametrize("method", ["tree_hash", "patch", "apply"])
@pytest.mark.parametrize(("error", "outcome"), FAULTS.values(), ids=FAULTS.keys())
def test_c13_what_escapes_in_a_cell_becomes_its_end_with_class_and_cause(
    run: Run, monkeypatch: pytest.MonkeyPatch, method: str, error: type[Exception], outcome: Outcome
) -> None:
    real: Callable[..., object] = getattr(GitSession, method)

    def breaks(self: GitSession, *arguments: object) -> object:
        if (self.root / "odd").exists() or any("odd" in str(one) for one in arguments):
            raise error("something odd")
        return real(self, *arguments)

    monkeypatch.setattr(GitSession, method, breaks)
    odd, plain = run.play(
        ["<bash>touch odd; echo odd > odd</bash>", DONE], ["<bash>echo x > even</bash>", DONE]
    )
    assert plain.outcome is Outcome.UNRESOLVED and not plain.cause.startswith(error.__name__)
    assert odd.outcome is outcome
    assert f"{error.__name__}: " in odd.cause or method == "tree_hash"
    assert ("breaks" in odd.fault) == (error is KeyError)
    assert odd.attempt == (3 if outcome is Outcome.INFRA_ERROR else 1)


@pytest.mark.parametrize(
    "error", [ValueError, PermissionError, FileRefused], ids=lambda error: error.__name__
)
def test_c13_what_breaks_while_the_tests_are_run_is_not_the_patchs(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def breaks(self: GitSession) -> Path:
        raise error("something odd")

    monkeypatch.setattr(GitSession, "results", breaks)
    (verdict,) = run.play(["<bash>echo x > even</bash>", DONE])
    assert (verdict.outcome, verdict.attempt) == (Outcome.INFRA_ERROR, 3), verdict.cause
    assert f"{error.__name__}: something odd" in verdict.cause
    assert ("breaks" in verdict.fault) == (error is not PermissionError)


def test_c13_faults_in_many_cells_stop_the_run_only_where_all_are_the_same(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [["<bash>touch odd</bash>", DONE]] * (INFRA_IN_A_ROW + 2)
    monkeypatch.setattr(GitSession, "tree_hash", lambda self: {}[self.root.name])
    found = run.play(*many)
    assert all(verdict.outcome is Outcome.INFRA_ERROR and verdict.fault for verdict in found)
    shown = "\n".join(show_cell(replace(settings(), state=state), run.folder, found[0].cell))
    assert f"infra_error: {found[0].cause}" in shown and "Traceback" in shown
    monkeypatch.setattr(GitSession, "tree_hash", lambda self: {}["nothing"])
    again = replace(run, folder=run.folder.with_name("again"))
    with pytest.raises(LooperError, match="6 cells in a row met the same fault of Looper's own: KeyError"):
        again.play(*many)
    monkeypatch.setattr(GitSession, "tree_hash", lambda self: 1 / 0)
    assert all(verdict.outcome is Outcome.UNRESOLVED for verdict in run.play(*many))


def test_c13_a_model_that_cannot_forget_leaves_no_workspace(run: Run, sessions: GitSessions) -> None:
    class Dead(ScriptedModel):
        def forget(self, conversation: str) -> None:
            raise ModelUnreachable("it ended")

    place = sessions.open(run.task, "place")
    before = set(place.root.parent.iterdir())
    (verdict,) = run.play([DONE, DONE], model=Dead)
    assert verdict.cause == "ModelUnreachable: it ended" and set(place.root.parent.iterdir()) == before
    place.close()


def test_c6_memory_that_cannot_be_counted_costs_no_rollout(run: Run) -> None:
    class Uncounted(ScriptedModel):
        def count_tokens(self, messages: Sequence[Message]) -> int | None:
            if len(messages) == 1:
                raise ModelUnfit("no conversation begins so")
            return None

    told = Delivery(candidates=1, text="Look twice.")
    run = replace(run, treatment=lambda seed: CellTreatment(adapter=str(seed), memory=told))
    (verdict,) = run.play(["<bash>touch x</bash>", DONE], model=Uncounted)
    assert verdict.outcome is Outcome.UNRESOLVED and run.ends()[0].memory_tokens is None


def test_a_memory_that_cannot_be_searched_ends_its_own_cell_and_no_other(run: Run) -> None:
    def searched(seed: int) -> CellTreatment:
        if seed == 0:
            raise ModelReplyBroken("no embedding came")
        return CellTreatment(adapter=str(seed))

    broken, other = replace(run, treatment=searched).play([DONE], ["<bash>touch x</bash>", DONE])
    assert broken.outcome is Outcome.INFRA_ERROR and "no embedding came" in broken.cause
    assert other.outcome is Outcome.UNRESOLVED


def test_c13_a_world_that_is_gone_still_stops_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: GitSession) -> str:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(GitSession, "tree_hash", gone)
    with pytest.raises(InfrastructureError, match="6 cells in a row"):
        run.play(*[["<bash>touch odd</bash>", DONE]] * (INFRA_IN_A_ROW + 2))


def test_c13_a_disk_that_is_full_stops_the_run_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: GitSession) -> str:
        raise JournalError("The disk is full.")

    monkeypatch.setattr(GitSession, "tree_hash", full)
    with pytest.raises(JournalError):
        run.play(["<bash>touch odd</bash>", DONE])


def test_c13_an_odd_step_on_record_is_repeated_and_keeps_its_cell_from_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted cell goes on from its steps, also from one that could not be handled."""
    monkeypatch.setattr(manifest, "MOST_ENTRIES", 2_000)
    for said in ("<bash>touch {1..2500}</bash>", ODD["a surrogate in a path"], ODD["NUL in a command"]):
        (before,) = run.play([said, DONE, DONE])
        for name in ("trajectories", "verdicts", "seals"):
            (run.folder / f"{name}.jsonl").unlink(missing_ok=True)
        (after,) = run.play([said, DONE, DONE])
        assert (after.outcome, after.attempt, after.cause) == (before.outcome, 1, before.cause)
        for path in run.folder.glob("*.jsonl"):
            path.unlink()


def test_c5_a_rollout_without_a_step_is_shown_exported_and_learned_from_like_any_other(
    run: Run, state: Path
) -> None:
    class Full(ScriptedModel):
        """No prompt fits."""

        def count_tokens(self, messages: Sequence[Message]) -> int:
            return 10**6

    (verdict,) = run.play([DONE], model=Full)
    view = read_run(run.folder)
    assert (view.trajectories[0].stop_reason, view.trajectories[0].steps) == (StopReason.CONTEXT_FULL, 0)
    (attempt,) = read_attempts(run.folder)
    _, counted = select([attempt], {run.task.instance_id}, SelectionSettings(minimum_tasks=1))
    assert attempt.steps == () and counted.unresolved == 1
    resolved = Attempt(attempt.trajectory, (), verdict.model_copy(update={"outcome": Outcome.RESOLVED}))
    taken, counted = select([resolved], {run.task.instance_id}, SelectionSettings(minimum_tasks=1))
    assert (taken, counted.without_steps) == ([], 1)
    assert json.loads(next(atif_lines(view, "base")))["final_metrics"]["total_steps"] == 1
    assert "context_full" in list(csv_lines(view))[1]
    assert "context_full after 0 steps" in "\n".join(rollouts_diff(view, verdict.cell, verdict.cell))
    assert "context_full after 0 steps" in "\n".join(
        show_cell(replace(settings(), state=state), run.folder, verdict.cell)
    )


def test_c1_exports_hold_any_text_that_was_said(run: Run) -> None:
    run.play([f"\ud800 {ODD['a surrogate in a path']}", ODD["a surrogate in a path"], DONE, DONE])
    view = read_run(run.folder)
    said = [json.loads(encodable(line)) for line in atif_lines(view, "base")]
    assert said[0]["steps"][1]["message"] == run.steps()[0].reply.text
    for step in run.steps():
        assert step_text(step).encode()
