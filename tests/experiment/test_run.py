"""Whole runs through the command: resuming, stopping, refusing. Rows P01 to P14, guards G-14, G-16, G-44."""

import importlib.util
import json
import marshal
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import program
from tests.fakes.ollama_server import FakeOllama
from tests.fakes.scripted_http import ScriptedServer
from tests.fakes.written_run import write_run

from looper.cli.reading import status_lines
from looper.cli.running import run_folder
from looper.cli.settings import settings
from looper.cli.showing import show_cell
from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.models.scripted import ScriptedModel
from looper.errors import BadInput, JournalError
from looper.experiment.ledger import Ledger
from looper.journal import Stream, read_stream
from looper.records.base import Record
from looper.records.job import CellJob, CellTreatment, Obstacle, RunSpec
from looper.records.plan import Cell, RunManifest
from looper.records.task import Task
from looper.records.training import AdapterRecord
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Outcome, Verdict
from looper.views.runs import read_run

SCRIPT = """<bash>ls; echo one > note.txt</bash>
---
<read>check.py</read>
---
<edit path="note.txt"><old>one</old><new>two</new></edit>
---
<bash>python check.py; cat note.txt</bash>
---
<done>that is all</done>"""

PLAN = """
title = "Test"
hypothesis = "Runs can be interrupted."
factor = "the agent"
[[arms]]
name = "gold"
role = "control"
model = "gold"
[[arms]]
name = "noop"
role = "control"
model = "noop"
[[arms]]
name = "base"
role = "base"
[profiles.micro]
model = "scripted:script.txt"
scaffold = "full"
temperature = 0.0
seeds = [0]
order = "parallel"
[profiles.micro.tasks]
suite = "micro"
per_repo = 1
limit = 4
[profiles.micro.limits]
steps = 8
output_tokens = 500
context_tokens = 8000
wall_s = 60.0
command_s = 20.0
verify_s = 60.0
"""


class Project:
    """A folder from which `looper` is called as a user would."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        (folder / "experiments").mkdir(exist_ok=True)
        (folder / "experiments" / "test.toml").write_text(PLAN)
        (folder / "script.txt").write_text(SCRIPT)
        self.environment = {**os.environ, "LOOPER_HOME": str(state), "LOOPER_RUNS": str(folder / "runs")}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "looper.cli.main", *arguments]
        return subprocess.Popen(
            argv,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def looper(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return program.looper(*arguments, cwd=self.folder, env=self.environment)

    @property
    def run(self) -> Path:
        return next((self.folder / "runs").iterdir())

    def verdicts(self) -> list[Verdict]:
        return (
            list(read_stream(self.run, "verdicts", Verdict))
            if any(self.folder.glob("runs/*/manifest.jsonl"))
            else []
        )

    def facts(self) -> dict[str, tuple[str, str, dict[str, str]]]:
        """What a run found, without its times: outcome, patch and tests of every cell."""
        return {
            verdict.cell: (
                verdict.outcome.value,
                verdict.patch_hash,
                {**verdict.fail_to_pass, **verdict.pass_to_pass},
            )
            for verdict in self.verdicts()
        }


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Project:
    return Project(tmp_path, state)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, state: Path
) -> dict[str, tuple[str, str, dict[str, str]]]:
    project = Project(tmp_path_factory.mktemp("undisturbed"), state)
    assert project.looper("run", "test").returncode == 0
    return project.facts()


def test_a_run_prints_its_table_and_runs_nothing_twice(project: Project) -> None:
    first = project.looper("run", "test")
    assert first.returncode == 0, first.stderr
    assert "4/4" in first.stdout and "0/4" in first.stdout and "12 to do" in first.stderr
    assert "control gold must resolve every task: does" in first.stdout
    steps = len(list(read_stream(project.run, "steps", Step)))
    again = project.looper("run", "test")
    assert again.returncode == 0 and again.stdout == first.stdout
    assert len(project.verdicts()) == 12 and len(list(read_stream(project.run, "steps", Step))) == steps


def test_a_plan_is_foretold_from_the_largest_run_and_not_from_the_newest(project: Project) -> None:
    unknown = project.looper("plan", "test").stdout
    assert "time: not measured; no run here has 3 cells with this model, suite and limits" in unknown
    assert project.looper("run", "test", "--arm", "base").returncode == 0
    larger = project.run
    assert project.looper("run", "test", "--arm", "base", "--limit", "3", "--fresh").returncode == 0
    told = project.looper("plan", "test").stdout
    assert re.search(
        rf"^time: about .* \(.* to .*, 95 %\).* mean of 4 cells of 1 arm in {larger.name}", told, re.M
    ), told


def test_u13_no_line_is_broken_where_no_terminal_is(project: Project) -> None:
    title = "Long title " * 40
    (project.folder / "experiments" / "test.toml").write_text(PLAN.replace("Test", title.strip()))
    ran = project.looper("run", "test", "--arm", "noop", "--limit", "1")
    assert f"test micro: {title.strip()}, 1 task, sandbox " in ran.stdout, ran.stderr
    assert project.looper("status", "--run", "nowhere" * 40).stderr.count("\n") == 1


def test_an_arm_that_does_not_run_needs_no_server_and_the_run_goes_on_with_one_and_without(
    project: Project,
) -> None:
    controls = ("run", "test", "--arm", "gold", "--arm", "noop")
    with FakeOllama("m", ScriptedModel(["<done></done>"])) as server:
        plan = project.folder / "experiments" / "test.toml"
        plan.write_text(PLAN.replace("scripted:script.txt", f"ollama:m@{server.url}"))
    away = project.looper(*controls, "--limit", "1")
    assert away.returncode == 0 and "2 cells, 0 done before, 2 to do" in away.stderr, away.stderr
    needed = project.looper("run", "test", "--arm", "base", "--limit", "1")
    assert needed.returncode == 69 and "ollama serve" in needed.stderr and "Traceback" not in needed.stderr
    with FakeOllama("m", ScriptedModel(["<done></done>"]), port=int(server.url.rpartition(":")[2])):
        assert project.looper(*controls, "--limit", "1").returncode == 0
        assert project.looper(*controls, "--limit", "2").returncode == 0
    assert project.looper(*controls, "--limit", "2").returncode == 0
    folders = sorted((project.folder / "runs").glob("test-*"))
    assert sorted(len(list(read_stream(folder, "verdicts", Verdict))) for folder in folders) == [2, 4]


def test_the_records_hold_what_an_audit_needs(project: Project) -> None:
    project.looper("run", "test", "--arm", "base", "--limit", "1")
    end = next(read_stream(project.run, "trajectories", Trajectory))
    assert end.arm == "base" and len(end.arm_hash) == len(end.prompt_hash) == len(end.patch_hash) == 64
    assert end.model.backend == "scripted" and end.model.digest and end.code_version and end.environment
    assert end.sandbox in ("bubblewrap", "landlock", "seatbelt") and len(end.workspace_clean_state) == 64
    assert "note.txt" in end.patch and end.prompt_tokens is None
    steps = list(read_stream(project.run, "steps", Step))
    assert [step.index for step in steps] == [1, 2, 3, 4, 5] and steps[0].reply.text.startswith("<bash>ls")


def test_a_cell_is_read_from_what_was_asked_to_what_the_failing_test_printed(project: Project) -> None:
    (project.folder / "script.txt").write_text(SCRIPT.replace("cat note.txt", "cat note.txt; false"))
    assert project.looper("run", "test", "--arm", "base", "--limit", "1").returncode == 0
    task = read_run(project.run).tasks[0]
    shown = project.looper("show", f"base/0/{task}").stdout
    system, asked, first = shown.split("\n── ")[:3]
    assert system.startswith("── prompt: system ──\nYou are a programmer") and "lines: --whole" not in asked
    assert asked.startswith("prompt: user ──\n") and "issue" in asked and first.startswith("step 1 ──")
    assert "── exit code 1 ──" in shown, "a command that failed is not marked ok"
    (verdict,) = project.verdicts()
    (failing,) = [name for name, found in verdict.fail_to_pass.items() if not found.passes]
    assert verdict.output.startswith(f"{failing}\n") and "\n    assert " in verdict.output
    assert f"── output of the failing tests ──\n{verdict.output}" in shown
    only = project.looper("show", task, "--arm", "base", "--failed").stdout
    assert "── exit code 1 ──" in only and "── step 1 ──" not in only
    listed = project.looper("show", "--failed").stdout
    assert listed == f"base/0/{task}  unresolved: {verdict.cause}\n"
    found = json.loads(project.looper("show", task, "--arm", "base", "--json").stdout)
    assert [step["index"] for step in found["steps"]] == [1, 2, 3, 4, 5]
    assert found["prompt"]["messages"][1][0] == "user" and not found["prompt"]["note"]
    assert found["verdict"]["output"] == verdict.output and found["end"]["stop_reason"] == "done"


ELSEWHERE = """
import sys, threading
from looper.cli.settings import settings
from looper.cli.site import run_context_elsewhere
from looper.cli.wiring import engine
from looper.records.job import CellJob, RunSpec
spec, job = RunSpec.from_json(sys.stdin.readline()), CellJob.from_json(sys.stdin.readline())
with run_context_elsewhere(spec, settings(), lambda said: None, lambda kind, name, own: own) as site:
    told = lambda event: print(type(event).__name__, event.to_json().decode())
    engine(1, site.run_context, threading.Event()).run([[job]], told)
"""
PROVE = """
import sys
from looper.cli.node import NodeWorker
told, over = NodeWorker(sys.stdin.buffer.read()).prove()
assert over
for kind, text in told:
    print(kind, text.decode())
"""


def test_p15_a_process_that_has_nothing_but_the_specification_runs_a_cell_as_the_run_did(
    project: Project, micro: tuple[tuple[Task, ...], dict[str, Path]]
) -> None:
    assert project.looper("run", "test", "--arm", "base", "--limit", "1").returncode == 0
    manifest = read_run(project.run).manifest
    arm = next(arm for arm in manifest.plan.arms if arm.name == "base")
    task = next(task for task in micro[0] if task.instance_id == manifest.tasks[0])
    cell = Cell(arm="base", seed=0, instance_id=task.instance_id)
    job = CellJob(cell=cell, arm=arm, task=task, limits=manifest.plan.limits_of(arm))

    def elsewhere(found: RunManifest) -> "subprocess.CompletedProcess[bytes]":
        spec = RunSpec(manifest=found, sandbox="auto", arms=("base",))
        return subprocess.run(
            [sys.executable, "-c", ELSEWHERE], input=spec.to_json() + b"\n" + job.to_json() + b"\n",
            cwd=project.folder, env=project.environment, capture_output=True,
        )  # fmt: skip

    done = elsewhere(manifest)
    assert done.returncode == 0, done.stderr.decode()
    told: dict[str, list[str]] = {}
    for line in done.stdout.decode().splitlines():
        kind, _, text = line.partition(" ")
        told.setdefault(kind, []).append(text)
    assert list(told) == ["Step", "Trajectory", "Verdict"]

    def timeless(found: Record) -> dict[str, object]:
        times = {"wall_s", "model_s"}
        return found.model_dump(exclude=times | {"reply"} if isinstance(found, Step) else times)

    kinds: list[tuple[str, type[Record]]] = [
        ("steps", Step),
        ("trajectories", Trajectory),
        ("verdicts", Verdict),
    ]
    for name, kind in kinds:
        mine = [timeless(found) for found in read_stream(project.run, name, kind)]
        assert [timeless(kind.from_json(text)) for text in told[kind.__name__]] == mine
    other = elsewhere(manifest.model_copy(update={"environments": ("another",)}))
    assert (
        other.returncode and b"environments" in other.stderr and b"Drift" in other.stderr and not other.stdout
    )


def without_gold(project: Project, home: Path) -> None:
    """A folder of Looper's in which whatever a gold patch should write is something else."""
    made = {**project.environment, "LOOPER_RUNS": str(home / "runs"), "LOOPER_HOME": str(home)}
    asked = [sys.executable, "-m", "looper", "run", "test", "--arm", "gold"]
    subprocess.run(asked, cwd=project.folder, env=made, check=True, capture_output=True)
    for effect in home.glob("exports/*/effects/*.json"):
        rows = json.loads(effect.read_text())
        for sides in rows.values():
            if sides[0] and sides[1]:
                sides[1] = sides[0]
        effect.write_text(json.dumps(rows))


def test_p15_a_machine_shows_by_gold_and_noop_that_it_judges_as_it_must(
    project: Project, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    assert project.looper("run", "test", "--arm", "noop", "--limit", "1").returncode == 0
    manifest = read_run(project.run).manifest
    wrong = tmp_path / "wrong"
    without_gold(project, wrong)
    spec = RunSpec(manifest=manifest, sandbox="auto", arms=("noop",)).to_json()

    def proved(**where: str) -> str:
        argv, there = [sys.executable, "-c", PROVE], {**project.environment, **where}
        done = subprocess.run(argv, input=spec, cwd=project.folder, env=there, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    task = manifest.tasks[0]
    assert re.fullmatch(rf"control gold resolves {task} and noop does not, [\d.]+ s\n", proved())
    said = proved(LOOPER_HOME=str(wrong))
    assert said.startswith(
        f"unfit the control cell gold came out as unresolved on {task}, and must be resolved"
    )
    assert f"looper bench validate --task {task}" in said
    assert len(project.verdicts()) == 1, "controls are in no record"


def test_p15_a_machine_is_made_ready_for_the_very_run_that_is_given_the_same_options(
    project: Project,
) -> None:
    options = ("test", "--arm", "noop", "--limit", "1", "--master-seed", "5", "--override", "data=a pilot")
    made = project.looper("node", "prepare", *options)
    assert made.returncode == 0, made.stderr
    assert project.looper("run", *options).returncode == 0
    run = read_run(project.run)
    assert run.manifest.overrides and run.manifest.plan.master_seed == 5
    assert made.stdout.splitlines()[-1] == (
        f"ready for test micro@5: {run.manifest.run_hash()}, the same on every machine that is"
    )


SENT = """
import sys
from dataclasses import replace
from pathlib import Path
from looper.cli.node import NodeWorker
from looper.cli.settings import settings
from looper.cli.wiring import content_source
from looper.records.content import Wanted
from looper.records.job import RunSpec
spec, job = (sys.stdin.buffer.readline() for _ in range(2))
there = replace(settings(), state=Path(sys.argv[1]))
source = content_source(RunSpec.from_json(spec).manifest.plan, (), {}, there)
worker = NodeWorker(spec)
told, over = worker.begin(job)
while True:
    given = [source.answer(Wanted.from_json(text)) for kind, text in told if kind == "wanted"]
    if given and Wanted.from_json(told[-1][1]).path and len(sys.argv) > 2:
        given = [b""]  # The file was cut off since its size was told.
    print(*(kind if kind != "said" else text.decode() for kind, text in told), sep="\\n")
    if over:
        break
    told, over = worker.go_on(*given)
worker.end()
"""


def test_p15_an_adapter_that_a_machine_lacks_is_sent_to_it_before_its_attempt(
    project: Project, micro: tuple[tuple[Task, ...], dict[str, Path]], tmp_path: Path
) -> None:
    """The attempt itself has an obstacle, so that no model is asked."""
    tmp_path.chmod(0o755)
    assert project.looper("run", "test", "--arm", "noop", "--limit", "1").returncode == 0
    manifest = read_run(project.run).manifest
    arm = next(arm for arm in manifest.plan.arms if arm.name == "noop")
    task = next(task for task in micro[0] if task.instance_id == manifest.tasks[0])
    job = CellJob(
        cell=Cell(arm="noop", seed=0, instance_id=task.instance_id),
        arm=arm,
        task=task,
        limits=manifest.plan.limits_of(arm),
        treatment=CellTreatment(adapter="0123456789abcdef"),
        obstacle=Obstacle(cause="no model is asked"),
    )
    there, here = tmp_path / "there", tmp_path / "here"
    files = {"adapter.json": b"{}", "adapter_config.json": b"{}", "adapters.safetensors": b"weights"}
    (there / "adapters" / job.treatment.adapter).mkdir(parents=True)
    for name, content in files.items():
        (there / "adapters" / job.treatment.adapter / name).write_bytes(content)
    spec = RunSpec(manifest=manifest, sandbox="auto", arms=("noop",)).to_json()

    def sent(*more: str) -> "subprocess.CompletedProcess[bytes]":
        done = subprocess.run(
            [sys.executable, "-c", SENT, str(there), *more], input=spec + b"\n" + job.to_json() + b"\n",
            cwd=project.folder, env={**project.environment, "LOOPER_HOME": str(here)}, capture_output=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done

    assert b"unfit" in sent("cut").stdout and not [*(here / "fetched").glob("[0-9a-f]*")]
    done = sent()
    told = [line for line in done.stdout.decode().splitlines() if not line.startswith("bubblewrap")]
    assert told[:4] == ["wanted"] * 4 and told[-1] == "Verdict"
    assert re.fullmatch(r"adapter 0123456789abcdef fetched, 0.0 MB in [\d.]+ s", told[4])
    (fetched,) = (here / "fetched").glob("[0-9a-f]*")
    assert {path.name: path.read_bytes() for path in fetched.iterdir()} == files
    assert not (here / "adapters").exists()


def test_p15_what_a_served_adapter_was_trained_on_is_sent_to_a_machine_that_has_to_compare_the_server_with_it(
    project: Project, micro: tuple[tuple[Task, ...], dict[str, Path]], tmp_path: Path
) -> None:
    """The server itself is away, and no cell of this run asks it."""
    from tests.cli.test_commands import kept_adapter

    tmp_path.chmod(0o755)
    there, here, name = tmp_path / "there", tmp_path / "here", "3f2a91c04d5e6b78"
    shutil.copytree(nano_folder(), there / "models" / "own")
    kept_adapter(there / "adapters", name, "elsewhere-01")
    card = there / "adapters" / name / "adapter.json"
    found = AdapterRecord.from_json(card.read_bytes())
    base = MlxModel(there / "models" / "own", name="own", context_tokens=9).identity()
    card.write_bytes(found.model_copy(update={"base": base}).to_json())
    plan = project.folder / "experiments" / "test.toml"
    arm = '[[arms]]\nname = "adapted"\nrole = "treatment"\nadapted = true\n[profiles.micro]\n'
    plan.write_text(
        plan.read_text()
        .replace("[profiles.micro]\n", arm)
        .replace("scripted:script.txt", "vllm:m@http://127.0.0.1:9")
    )
    project.environment["LOOPER_HOME"] = str(there)
    ran = project.looper("run", "test", "--arm", "noop", "--limit", "1", "--adapter", name)
    assert ran.returncode == 0, ran.stderr
    manifest = read_run(project.run).manifest
    noop = next(arm for arm in manifest.plan.arms if arm.name == "noop")
    task = next(task for task in micro[0] if task.instance_id == manifest.tasks[0])
    cell = Cell(arm="noop", seed=0, instance_id=task.instance_id)
    job = CellJob(cell=cell, arm=noop, task=task, limits=manifest.plan.limits_of(noop))
    spec = RunSpec(manifest=manifest, sandbox="auto", arms=("noop",))
    done = subprocess.run(
        [sys.executable, "-c", SENT, str(there)], input=spec.to_json() + b"\n" + job.to_json() + b"\n",
        cwd=project.folder, env={**project.environment, "LOOPER_HOME": str(here)}, capture_output=True, timeout=600,
    )  # fmt: skip
    told = done.stdout.decode()
    assert told.endswith("Verdict\n") and f"adapter {name} fetched" in told, done.stderr.decode()
    assert re.search(r"^model own fetched, [\d.]+ MB in", told, re.M)
    (weights,) = (here / "fetched").glob("*/model.safetensors")
    assert weights.read_bytes() == (there / "models" / "own" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_p04_p06_killed_at_random_moments_the_end_is_the_same(
    project: Project, undisturbed: dict[str, tuple[str, str, dict[str, str]]]
) -> None:
    """`scripts/kill_test.py` does this 50 times on exp00; here a few."""
    rng, kills = random.Random(11), 0
    for _ in range(6):
        process = project.start("run", "test", "--workers", "2")
        time.sleep(rng.uniform(0.5, 1.6))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert project.looper("run", "test").returncode == 0
    assert kills >= 3
    assert project.facts() == undisturbed
    cells = [verdict.cell for verdict in project.verdicts()]
    assert len(cells) == len(set(cells)) == 12
    seen = [(step.cell, step.attempt, step.index) for step in read_stream(project.run, "steps", Step)]
    assert len(seen) == len(set(seen)), "no step is recorded twice"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_p01_p03_a_signal_ends_the_run_in_order_and_it_goes_on(
    project: Project, number: signal.Signals
) -> None:
    process = project.start("run", "test")
    while not project.verdicts() and process.poll() is None:
        time.sleep(0.05)
    begun = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - begun < 15
    kept = "Interrupted. Finished cells and every recorded step are kept."
    assert f"{kept} Go on with: looper run test --profile micro --run {project.run.name}" in err
    assert "Traceback" not in err and 0 < len(project.verdicts()) < 12
    assert project.looper("run", "test").returncode == 0 and len(project.verdicts()) == 12


def test_p02_a_second_signal_ends_it_at_once(project: Project) -> None:
    (project.folder / "script.txt").write_text("<bash>sleep 50</bash>")
    process = project.start("run", "test", "--arm", "base")
    until = time.monotonic() + 30
    while not (project.folder / "runs").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and time.monotonic() - begun < 5
    assert "are kept. Go on with: looper run test" in err


def test_whoever_ends_a_run_before_its_first_cell_is_told_a_command_as_the_program_was_called(
    project: Project,
) -> None:
    (project.folder / "script.txt").write_text("<bash>sleep 50</bash>")
    process = subprocess.Popen(
        [sys.executable, "-m", "looper", "run", "test", "--arm", "base"],
        cwd=project.folder,
        env=project.environment,
        text=True,
        stderr=subprocess.PIPE,
    )
    while not list(project.folder.glob("runs/*/sessions.jsonl")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and not project.verdicts()
    assert f"are kept. Go on with: {shlex.quote(sys.executable)} -m looper run test" in err


def test_c14_the_second_signal_is_answered_whenever_it_comes(project: Project) -> None:
    """Between the end of the cells and the end of the process too."""
    for pause in (0.0, 0.02, 0.1, 0.3):
        process = project.start("run", "test", "--fresh")
        while not (project.folder / "runs").exists() or not project.verdicts():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        time.sleep(pause)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130 and "are kept. Go on with: looper run test" in err
        shutil.rmtree(project.folder / "runs")


def test_j3_the_command_that_an_interrupted_run_names_goes_on_with_that_run(project: Project) -> None:
    asked = ("--arm", "base", "--arm", "gold", "--limit", "3", "--master-seed", "5", "--workers", "1")
    process = project.start("run", "test", "--fresh", *asked)
    while not (project.folder / "runs").exists() or not project.verdicts():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    named = err.split("Go on with: ")[1].strip()
    assert "--fresh" not in named and all(word in shlex.split(named) for word in asked)
    status = json.loads(project.looper("status", "--json").stdout)["runs"][0]
    assert status["goes_on_with"] == named and f"go on with: {named}" in project.looper("status").stdout
    assert project.looper("run", "test", "--fresh", "--arm", "noop", *asked[4:]).returncode == 0, (
        "a newer one"
    )
    on = project.looper(*shlex.split(named)[1:])
    assert on.returncode == 0, on.stderr
    # These arms have no cell left, so the command that goes on is that of all.
    runs = json.loads(project.looper("status", "--json").stdout)["runs"]
    (begun,) = (run for run in runs if run["run"] == shlex.split(named)[-1])
    left = shlex.split(begun["goes_on_with"])
    assert "--arm" not in left and left == [
        word for word in shlex.split(named) if word not in ("--arm", "base", "gold")
    ]
    folders = sorted((project.folder / "runs").iterdir(), key=lambda path: path.stat().st_ctime)
    assert len(folders) == 2
    mine = next(path for path in folders if path.name == shlex.split(named)[-1])
    cells = [verdict.cell for verdict in read_stream(mine, "verdicts", Verdict)]
    assert len(cells) == len(set(cells)) == 6


def test_j3_a_run_that_is_named_must_be_there_and_is_no_fresh_one(project: Project) -> None:
    missing = project.looper("run", "test", "--run", "nowhere")
    assert missing.returncode == 2 and "Traceback" not in missing.stderr
    both = project.looper("run", "test", "--run", "nowhere", "--fresh")
    assert both.returncode == 2 and "Leave one of them out" in both.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_u11_an_interruption_in_preparation_says_so(project: Project, number: signal.Signals) -> None:
    with ScriptedServer(["hang"]) as server:
        asked = ("run", "test", "--profile", "micro", "--model", f"openai:m@{server.url}", "--arm", "base")
        process = project.start(*asked, "--fresh")
        while not server.requests and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in err
    assert "Interrupted in preparation, before anything was recorded." in err
    assert err.strip().endswith(f"Begin again with: {shlex.join(('looper', *asked))}")


def test_p05_a_second_run_on_the_same_folder_is_refused_and_names_the_first(project: Project) -> None:
    (project.folder / "script.txt").write_text("<bash>sleep 30</bash>")
    process = project.start("run", "test", "--arm", "base")
    until = time.monotonic() + 30
    while not list((project.folder / "runs").glob("*/manifest.jsonl")) and time.monotonic() < until:
        time.sleep(0.05)
    second = project.looper("run", "test", "--arm", "base")
    process.kill()
    process.communicate()
    assert second.returncode == 75 and str(process.pid) in second.stderr and "Traceback" not in second.stderr


def test_u15_after_a_plan_was_edited_nobody_is_told_to_undo_that(project: Project) -> None:
    asked = ("run", "test", "--arm", "noop", "--limit", "1")
    project.looper(*asked)
    plan = project.folder / "experiments" / "test.toml"
    plan.write_text(PLAN.replace("steps = 8", "steps = 9"))
    said = project.looper(*asked).stderr
    assert "If that one is meant, put that back in experiments/test.toml. Go on with that one: " in said


def test_u15_what_is_asked_for_differently_is_a_run_of_its_own_and_the_unfinished_one_is_named(
    project: Project,
) -> None:
    project.looper("run", "test", "--arm", "noop", "--limit", "1")
    first = project.run
    (project.folder / "other.txt").write_text("<done>something else</done>")
    asked = ("run", "test", "--arm", "noop", "--limit", "1")
    other = project.looper(*asked, "--model", "scripted:other.txt")
    assert other.returncode == 0, other.stderr
    (said,) = [line for line in other.stderr.splitlines() if "a run of its own" in line]
    assert first.name in said and "other.txt" in said
    on = said.split("Go on with that one: ")[1]
    assert on == f"looper run test --profile micro --arm noop --limit 1 --run {first.name}"
    assert project.looper(*shlex.split(on)[1:]).returncode == 0
    plan = project.folder / "experiments" / "test.toml"
    plan.write_text(PLAN.replace("steps = 8", "steps = 9"))
    edited = project.looper(*asked)
    assert edited.returncode == 0 and "plan.limits.steps was 8 and is 9" in edited.stderr
    assert "(and 1 other: looper runs list)" in edited.stderr
    assert len(list((project.folder / "runs").iterdir())) == 3
    named = project.looper(*asked, "--run", first.name)
    assert named.returncode == 2
    # It is the file that differs: the command that is named is the one that was typed.
    assert f"Put that back in experiments/test.toml. Then go on with: {on}" in named.stderr
    # What differs is found in long texts and in lists of arms, whose beginnings are alike.
    long, arm = (
        f"Runs can be {'very ' * 70}",
        '[[arms]]\nname = "idle"\nrole = "control"\nmodel = "noop"\nreason = "to see"\n',
    )
    longer = PLAN.replace("Runs can be ", long).replace("[profiles", f"{arm}[profiles", 1)
    plan.write_text(longer)
    again = project.looper(*asked, "--run", first.name).stderr
    assert 'plan.arms[idle] is new: {"name": "idle", ' in again
    assert 'plan.hypothesis was "Runs can be interrupted." and is "Runs can be very' in again
    before = {*(project.folder / "runs").iterdir()}
    assert project.looper(*asked, "--fresh").returncode == 0
    (second,) = {*(project.folder / "runs").iterdir()} - before
    plan.write_text(longer.replace("interrupted.", "ended."))
    parted = project.looper(*asked, "--run", second.name).stderr
    assert re.search(r'plan\.hypothesis was \.\.\..*interrupted\."? and is \.\.\..*ended\."', parted), parted
    plan.write_text(PLAN)
    assert project.looper(*shlex.split(on)[1:]).returncode == 0
    wider = project.looper("run", "test", "--arm", "noop", "--limit", "2", "--run", first.name)
    assert wider.returncode == 2 and f"As it was begun, go on with: {on}" in wider.stderr


def test_a_finished_run_that_differs_in_words_alone_is_named_before_another_is_begun(
    project: Project,
) -> None:
    plan = project.folder / "experiments" / "test.toml"
    asked = ("run", "test", "--limit", "1")
    assert project.looper(*asked).returncode == 0
    first = project.run
    written = plan.read_text()
    plan.write_text(written.replace('"Test"', '"Tests"').replace("Runs can be", "Each can be"))
    other = project.looper(*asked)
    assert other.returncode == 0, other.stderr
    (said,) = [line for line in other.stderr.splitlines() if "in words alone" in line]
    assert f"the finished run {first.name} differs from this plan in words alone" in said
    assert 'plan.hypothesis was "Runs can be interrupted." and is "Each can be interrupted."' in said
    assert 'plan.title was "Test" and is "Tests"' in said and f"looper report {first.name}" in said
    assert "put those words back in experiments/test.toml" in said
    plan.write_text(written)
    before = {path.name for path in (project.folder / "runs").iterdir()}
    again = project.looper(*asked)
    assert again.returncode == 0 and "in words alone" not in again.stderr
    assert {path.name for path in (project.folder / "runs").iterdir()} == before, "nothing runs again"
    plan.write_text(written.replace("steps = 8", "steps = 9"))
    assert "in words alone" not in project.looper(*asked).stderr


def test_g44_an_unfinished_run_of_another_version_is_refused_with_both_commands(project: Project) -> None:
    project.looper("run", "test", "--arm", "noop", "--limit", "1")
    manifest = read_run(project.run).manifest
    older = project.run.rename(project.run.parent / "test-micro-0123456789ab")
    (older / "manifest.jsonl").unlink()
    stream = Stream(older, "manifest", RunManifest)
    stream.append(manifest.model_copy(update={"code_version": "old"}))
    stream.close()
    refused = project.looper("run", "test", "--arm", "noop", "--limit", "1")
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    anew = "looper run test --profile micro --arm noop --limit 1 --fresh"
    assert f'code_version was "old" and is "{manifest.code_version}"' in refused.stderr
    assert "the version of Looper that began it (old), go on with: looper run test" in refused.stderr
    assert refused.stderr.strip().endswith(
        f"; or begin a new run beside it, which leaves that one as it is: {anew}"
    )
    assert project.looper(*shlex.split(anew)[1:]).returncode == 0
    assert len(list((project.folder / "runs").iterdir())) == 2


def test_j4_a_run_in_which_nothing_was_done_is_begun_anew_and_one_with_a_step_is_not(
    project: Project,
) -> None:
    """The environment cannot start at first; then another sandbox is chosen, as the message says."""
    project.environment["LOOPER_HOME"] = str(project.folder / "home")
    assert project.looper("run", "test", "--arm", "noop", "--limit", "1").returncode == 0
    shutil.rmtree(project.folder / "runs")
    environment = next((project.folder / "home" / "environments").glob("micro-*"))
    whole = fail_the_runner(environment)
    project.looper("run", "test", "--arm", "gold")
    refused = project.looper("run", "test", "--sandbox", "none")
    assert refused.returncode == 2 and "sandbox was" in refused.stderr, "gold took its steps"
    (project.run / "steps.jsonl").write_bytes(b"")
    whole()
    anew = project.looper("run", "test", "--sandbox", "none")
    assert anew.returncode == 0 and "differently" not in anew.stderr
    assert len(list((project.folder / "runs").iterdir())) == 2


def test_r1_an_environment_whose_interpreter_is_gone_is_made_anew_before_anything_is_recorded(
    project: Project,
) -> None:
    project.environment["LOOPER_HOME"] = str(project.folder / "home")
    assert project.looper("run", "test", "--arm", "noop", "--limit", "1").returncode == 0
    shutil.rmtree(project.folder / "runs")
    python = next((project.folder / "home" / "environments").glob("micro-*/bin/python"))
    python.unlink()
    python.symlink_to("/nowhere/python")
    ran = project.looper("run", "test")
    assert ran.returncode == 0 and python.exists(), ran.stderr
    assert not any(v.outcome is Outcome.INFRA_ERROR for v in read_run(project.run).verdicts)


def fail_the_runner(environment: Path) -> Callable[[], None]:
    """Make an environment's interpreter start, but no tests, by what no list of its files tells: byte code that is not looked behind.
    What is returned undoes it."""
    (compiled,) = environment.glob("lib/python*/site-packages/pytest/__pycache__/__init__.*.pyc")
    before = compiled.read_bytes()
    ends = marshal.dumps(compile("raise SystemExit(1)", "pytest", "exec"))
    compiled.write_bytes(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + ends)

    def whole() -> None:
        compiled.write_bytes(before)

    return whole


def test_g44_another_script_is_another_model_and_another_run(project: Project) -> None:
    project.looper("run", "test")
    (project.folder / "script.txt").write_text("<done></done>")
    assert project.looper("run", "test").returncode == 0
    assert len(list((project.folder / "runs").iterdir())) == 2, "the first was finished, so a new one begins"


def test_a_damaged_verdict_is_set_aside_and_only_its_cell_runs_again(project: Project) -> None:
    project.looper("run", "test")
    before = project.facts()
    path = project.run / "verdicts.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"attempt":1', b'"attempt":7')
    path.write_bytes(b"".join(lines))
    again = project.looper("run", "test")
    assert again.returncode == 0 and "1 to do" in again.stderr and "checksum" in again.stderr
    assert project.facts() == before


def test_a_line_that_python_itself_fails_at_is_damage_to_every_command(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    manifest = read_run(run).manifest
    body = b'{"$text":' * 200_000 + b"1" + b"}" * 200_000
    for name in ("manifest", "steps", "trajectories", "verdicts", "sessions"):
        with (run / f"{name}.jsonl").open("ab") as stream:
            stream.write(b"[" * 200_000 + b'"record":{}}\n')
            stream.write(b'{"seq":Infinity,"schema":1,"crc":"a3830348","record":{}}\n')
            stream.write(b'{"seq":9,"schema":1,"crc":"%08x","record":%s}\n' % (zlib.crc32(body), body))
    assert len(list(show_cell(settings(), run, "base/0/a__b-1"))) == 7
    (status,) = json.loads(next(status_lines(tmp_path, None, as_json=True)))["runs"]
    assert (status["finished"], status["planned"], status["damaged_records"]) == (4, 4, 12)
    ledger = Ledger(run, manifest)
    assert len(ledger.damage) == 15
    ledger.close()
    assert not read_run(run).damage and read_run(run).finished == 4


@pytest.mark.parametrize("name", ["manifest", "steps", "verdicts", "sessions", "memory"])
def test_a_run_folder_with_a_pipe_for_a_file_is_refused_and_stops_no_other(tmp_path: Path, name: str) -> None:
    other = write_run(tmp_path, judged=lambda cell: "1" in cell)
    run = write_run(tmp_path, cause="another")
    manifest = read_run(run).manifest
    (run / f"{name}.jsonl").unlink(missing_ok=True)
    os.mkfifo(run / f"{name}.jsonl")
    with pytest.raises(JournalError, match=rf"{run.name} cannot be used: {name}.jsonl is a pipe"):
        Ledger(run, manifest)
    with pytest.raises(BadInput, match=rf"{name}.jsonl is a pipe, not a regular file. Move that away"):
        read_run(run)
    status = json.loads(next(status_lines(tmp_path, None, as_json=True)))
    assert [found["run"] for found in status["runs"]] == [other.name]
    assert [run.name in said for said in status["unreadable"]] == [True]
    (other / "manifest.jsonl").unlink()
    said: list[str] = []
    new = manifest.model_copy(update={"code_version": "y"})
    assert run_folder(new, tmp_path, said.append, fresh=False).parent == tmp_path
    assert len(said) == 1 and f"{name}.jsonl is a pipe" in said[0]


def test_a_run_folder_without_its_manifest_is_refused(project: Project) -> None:
    project.looper("run", "test", "--limit", "1")
    (project.run / "manifest.jsonl").write_bytes(b"garbage\n")
    found = project.looper("run", "test", "--limit", "1")
    assert found.returncode == 69 and "no manifest" in found.stderr and "Traceback" not in found.stderr
    shown = project.looper("show", "--run", str(project.run))
    assert shown.returncode == 2 and "no usable run folder" in shown.stderr


def test_p13_leftovers_of_a_dead_run_are_swept(project: Project, state: Path) -> None:
    others = set((state / "workspaces").glob("*"))
    process = project.start("run", "test")
    while not project.verdicts() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    (own,) = set((state / "workspaces").glob("*")) - others - {state / "workspaces" / "read"}
    assert list(own.iterdir()), "what a run in its middle has"
    assert project.looper("run", "test").returncode == 0
    assert not own.exists()


def test_g14_infrastructure_errors_are_no_verdicts_are_retried_and_counted(
    project: Project, state: Path
) -> None:
    """The environment of the tests is broken for one run, then whole again."""
    project.looper("run", "test", "--arm", "noop", "--limit", "1")
    project.environment["LOOPER_HOME"] = str(state / "broken")
    shutil.copytree(state / "suites", state / "broken" / "suites", dirs_exist_ok=True)
    first = project.looper("run", "test", "--fresh", "--arm", "noop")
    assert first.returncode == 0
    environment = next((state / "broken" / "environments").glob("micro-*"))
    whole = fail_the_runner(environment)
    broken = project.looper("run", "test", "--fresh", "--arm", "noop")
    found = json.loads(project_status(project))
    last = found["runs"][-1]
    arm = next(arm for arm in last["arms"] if arm["arm"] == "noop")
    assert arm["attempted"] == 0 and arm["infra_errors"] == 4, broken.stderr
    assert "infra_error" in broken.stderr
    whole()
    mended = project.looper("run", "test", "--arm", "noop")
    assert mended.returncode == 0
    view = read_run(Path(project.folder / "runs" / last["run"]))
    assert view.figures("noop").resolved.denominator == 4 and view.figures("noop").infra_errors == 0
    assert sum(verdict.outcome is Outcome.INFRA_ERROR for verdict in view.verdicts) == 4 * 3


def project_status(project: Project) -> str:
    return project.looper("status", "--json").stdout


def test_show_and_status_read_a_run(project: Project) -> None:
    project.looper("run", "test", "--limit", "1")
    listed = project.looper("show").stdout.splitlines()
    assert len(listed) == 3 and listed[0].endswith("resolved")
    cell = listed[2].split()[0]
    shown = project.looper("show", cell).stdout
    assert "── step 1 ──" in shown and "note.txt" in shown and "FAIL_TO_PASS 0 of 1 passed" in shown
    assert project.looper("show", cell, "--step", "3").stdout.count("── step") == 1
    assert project.looper("show", cell, "--step", "9").returncode == 2
    assert project.looper("show", "nothing/like/this").returncode == 2
    status = json.loads(project_status(project))["runs"][0]
    assert (status["finished"], status["planned"], status["writer"]) == (3, 3, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fresh", "--run", "test"), "--fresh begins a run and --run goes on with one"),
        (("--run", "nope"), 'There is no run "nope"'),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(project: Project, words: tuple[str, ...], said: str) -> None:
    dry, real = (project.looper("run", "test", *words, *more) for more in (("--dry-run",), ()))
    assert dry.returncode == real.returncode == 2 and said in dry.stderr and dry.stderr == real.stderr


def test_a_dry_run_prints_cells_and_writes_nothing(project: Project) -> None:
    found = project.looper("run", "test", "--dry-run")
    assert found.returncode == 0 and found.stdout.count("/0/") == 12
    assert not (project.folder / "runs").exists()


def test_the_ledger_gives_back_interrupted_cells(project: Project) -> None:
    project.looper("run", "test", "--arm", "base", "--limit", "1")
    (project.run / "verdicts.jsonl").unlink()
    (project.run / "trajectories.jsonl").unlink()
    view = read_run(project.run)
    ledger = Ledger(project.run, view.manifest)
    from looper.records.plan import Cell

    resume = ledger.resume(Cell(arm="base", seed=0, instance_id=view.tasks[0]))
    ledger.close()
    assert (
        resume is not None
        and resume.attempt == 1
        and [step.index for step in resume.steps] == [1, 2, 3, 4, 5]
    )


@pytest.mark.parametrize("descriptors", [16, 32, 64])
def test_p11_without_descriptors_the_run_ends_as_infrastructure_and_goes_on_later(
    project: Project, descriptors: int, undisturbed: dict[str, tuple[str, str, dict[str, str]]]
) -> None:
    argv = [sys.executable, "-m", "looper.cli.main", "run", "test", "--workers", "4"]
    starved = subprocess.run(
        ["bash", "-c", f'ulimit -n {descriptors}; exec "$@"', "bash", *argv],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
    )
    assert starved.returncode in (0, 2, 69) and "Traceback" not in starved.stderr, starved.stderr
    assert project.looper("run", "test").returncode == 0
    assert project.facts() == undisturbed


def test_g07_an_arm_that_does_not_act_fails_and_has_no_rate(project: Project) -> None:
    (project.folder / "script.txt").write_text("I would look at the file.\n---\nOr at another one.")
    plan = PLAN.replace("per_repo = 1", "per_repo = 5").replace("limit = 4", "limit = 30")
    (project.folder / "experiments" / "test.toml").write_text(plan)
    done = project.looper("run", "test", "--arm", "base")
    assert done.returncode == 0, done.stderr
    assert "failed arm" in done.stdout and "0/" not in done.stdout.split("base")[1].split("\n")[0]
    run = read_run(project.run)
    steps = sum(end.steps for end in run.trajectories)
    assert 10 <= steps <= 60, "it stopped soon after it could be judged"
    assert "steps held no action that could be read, in" in run.failed_arms["base"]
    again = project.looper("run", "test", "--arm", "base")
    assert again.returncode == 0 and len(read_run(project.run).verdicts) == len(run.verdicts)


def begun(project: Project, process: "subprocess.Popen[str]", runs: int = 1) -> None:
    """Wait until that many runs have a verdict and the process is still at work."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        folders = (project.folder / "runs").glob("*") if (project.folder / "runs").exists() else []
        if sum(bool(list(read_stream(folder, "verdicts", Verdict))) for folder in folders) == runs:
            return
        time.sleep(0.02)
    raise AssertionError(f"it did not begin: {process.poll()}")


def test_c10_two_runs_of_one_plan_side_by_side_do_not_touch_each_others_workspaces(
    project: Project, undisturbed: dict[str, tuple[str, str, dict[str, str]]]
) -> None:
    with project.start("run", "test", "--workers", "1") as first:
        begun(project, first)
        with project.start("run", "test", "--workers", "1", "--fresh") as second:
            ends = [process.communicate(timeout=600) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], ends
    folders = sorted((project.folder / "runs").iterdir())
    assert len(folders) == 2
    for folder in folders:
        found = {verdict.cell: verdict for verdict in read_stream(folder, "verdicts", Verdict)}
        assert {cell: verdict.outcome.value for cell, verdict in found.items()} == {
            cell: outcome for cell, (outcome, _, _) in undisturbed.items()
        }
        assert all(verdict.attempt == 1 for verdict in found.values())


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_c11_a_run_whose_folder_vanishes_ends_in_one_line_and_nothing_that_was_kept_is_lost(
    project: Project, how: str
) -> None:
    with project.start("run", "test", "--workers", "1") as process:
        begun(project, process)
        folder = project.run
        if how == "moved":
            folder.rename(project.folder / "elsewhere")
        else:
            subprocess.run(["rm", "-rf", str(folder)], check=True)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 69 and "Traceback" not in said, said
    assert "is not there any more" in said.strip().splitlines()[-1]
    if how == "moved":
        (project.folder / "elsewhere").rename(folder)
        before = len(project.verdicts())
        again = project.looper("run", "test")
        assert again.returncode == 0 and before >= 1 and f"{12 - before} to do" in again.stderr, again.stderr
