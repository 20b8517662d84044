"""How long reading takes: index and report of a run of realistic size, one long trajectory, a million steps.

    python scripts/bench_report.py [--folder FOLDER] [--steps 1000000]

The runs are generated: 273 tasks, four arms, thirty steps each with outputs of the size that test runs have. Each figure is
measured in a process of its own, memory included.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from looper.agent.scaffold import packaged_scaffold
from looper.journal import Stream, _encode
from looper.records.base import Record, content_hash
from looper.records.model import ModelSpec
from looper.records.plan import (
    Arm,
    ArmRole,
    Cell,
    Contrast,
    Limits,
    Plan,
    RunManifest,
    TaskSelection,
)
from looper.records.sampling import sampling_seed
from looper.records.trajectory import (
    Bash,
    Done,
    FinishReason,
    ModelIdentity,
    Observation,
    ObservationKind,
    Reply,
    Step,
    StopReason,
    Trajectory,
    Usage,
)
from looper.records.verdict import Outcome, TestOutcome, Verdict

TASKS, ARMS, STEPS = 273, 4, 30
OUTPUT_CHARS = 2500
MEASURED = """
import re, resource, sys, time
from pathlib import Path
def peak_mib():
    # Elsewhere than on Linux; there this would be the peak of the process that started this one, if that was higher.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) >> 10
begun = time.perf_counter()
{imports}
loaded = time.perf_counter()
{work}
print(loaded - begun, time.perf_counter() - loaded, peak_mib())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    place = options.folder or Path(tempfile.mkdtemp(prefix="bench-report-"))
    try:
        realistic(place / "runs")
        (run,) = (place / "runs").iterdir()
        size = sum(path.stat().st_size for path in run.glob("*.jsonl")) / 1e6
        print(f"{TASKS * ARMS} trajectories of {STEPS} steps, {size:.0f} MB of records")
        index = "from looper.views.index import step_index"
        show("index, made", index, f"step_index(Path({str(run)!r}))")
        show("index, there already", index, f"step_index(Path({str(run)!r}))")
        page = "from looper.views.web.page import write_page; from looper.views.runs import read_run"
        show("report.html", page, f"write_page(read_run(Path({str(run)!r})), 'x')")
        print(f"  report.html: {(run / 'report.html').stat().st_size / 1e6:.2f} MB")
        verify = "from looper.views.audit import ExternalFacts, audit; from looper.views.runs import read_run"
        show(
            "verify",
            verify,
            f"audit(read_run(Path({str(run)!r})), ExternalFacts(None, lambda name: None, 'x'))",
        )
        long_one(place / "long")
        steps = "from looper.views.index import steps_of"
        show(
            "10 MB trajectory, index made",
            steps,
            f"len(steps_of(Path({str(place / 'long')!r}), 'base/0/t-1'))",
        )
        show(
            "10 MB trajectory, index there",
            steps,
            f"len(steps_of(Path({str(place / 'long')!r}), 'base/0/t-1'))",
        )
        many(place / "many", options.steps)
        size = (place / "many" / "steps.jsonl").stat().st_size / 1e6
        show(
            f"{options.steps} steps, {size:.0f} MB, index made",
            index,
            f"step_index(Path({str(place / 'many')!r}))",
        )
    finally:
        if options.folder is None:
            shutil.rmtree(place, ignore_errors=True)


def show(what: str, imports: str, work: str) -> None:
    code = MEASURED.format(imports=imports, work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loading, seconds, mebibytes = done.stdout.split()
    print(
        f"  {what}: {float(seconds):.2f} s (modules loaded in {float(loading):.2f} s), {mebibytes} MiB at most"
    )


def plan() -> Plan:
    scaffold, model = packaged_scaffold("full"), ModelSpec(backend="scripted", name="x")
    names = ("base", "base_again", "lora", "memory")[:ARMS]
    roles = (ArmRole.BASE, ArmRole.AGAIN, ArmRole.TREATMENT, ArmRole.TREATMENT)
    arms = tuple(
        # Treatments differ from base in one thing, here in their temperature.
        Arm(
            name=name,
            role=role,
            model=model,
            scaffold=scaffold,
            temperature=0.2 if at < 2 else 0.2 * at,
            repetition=at,
        )
        for at, (name, role) in enumerate(zip(names, roles, strict=True))
    )
    said = {"shown": "a", "refuted": "b", "open": "c"}
    return Plan(
        experiment="bench",
        profile="generated",
        title="Generated",
        hypothesis="Reading is fast.",
        factor="the arm",
        selection=TaskSelection(suite="swe-bench-cl"),
        seeds=(0,),
        arms=arms,
        contrasts=tuple(Contrast(arm=name, against="base", **said) for name in names[1:]),
        limits=Limits(
            steps=STEPS, output_tokens=4096, context_tokens=32768, wall_s=1200, command_s=120, verify_s=900
        ),
        order="parallel",
    )


IDENTITY = ModelIdentity(
    backend="scripted", backend_version="1", name="x", digest="x", quantisation="none", context_tokens=32768
)


def realistic(runs: Path) -> None:
    registered, rng = plan(), random.Random(0)
    tasks = tuple(f"repo{number % 8}__r-{number}" for number in range(TASKS))
    manifest = RunManifest(
        plan=registered,
        code_version="x",
        tasks=tasks,
        tasks_hash="x",
        models={arm.name: IDENTITY for arm in registered.arms},
        environments=("e",),
        sandbox="none",
    )
    folder = runs / f"bench-generated-{manifest.run_hash()}"
    folder.mkdir(parents=True)
    stream = Stream(folder, "manifest", RunManifest)
    stream.append(manifest)
    stream.close()
    steps, ends, verdicts = [], [], []
    for arm in registered.arms:
        for task in tasks:
            cell = f"{arm.name}/0/{task}"
            made = [step(cell, number, rng, OUTPUT_CHARS) for number in range(1, STEPS + 1)]
            steps += made
            patch = f"diff --git a/{task} b/{task}\n" + "+x = 1\n" * rng.randrange(2, 60)
            resolved = rng.random() < 0.3
            ends.append(end(cell, arm, task, patch, made))
            verdicts.append(verdict(cell, task, patch, resolved))
    write(folder / "steps.jsonl", steps)
    write(folder / "trajectories.jsonl", ends)
    write(folder / "verdicts.jsonl", verdicts)


def step(cell: str, number: int, rng: random.Random, chars: int) -> Step:
    action = (
        Done(message="done")
        if number == STEPS
        else Bash(command=f"python -m pytest -q tests/test_{number}.py")
    )
    output = "".join(rng.choices("abcdefghij \n", k=rng.randrange(chars // 2, chars * 3 // 2)))
    return Step(
        cell=cell,
        attempt=1,
        index=number,
        reply=Reply(
            text=f"I look at the tests first.\n<bash>{action}</bash>",
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=1000, completion_tokens=60, counted_by="t"),
            wall_s=3.0,
        ),
        action=action,
        problem=None,
        observation=Observation(kind=ObservationKind.OK, text=output, exit_code=0),
        guards=(),
        stop_reason=StopReason.DONE if number == STEPS else None,
        context_tokens=1000,
        pruned_messages=0,
        tree="0" * 64,
        wall_s=4.0,
    )


def end(cell: str, arm: Arm, task: str, patch: str, steps: list[Step]) -> Trajectory:
    return Trajectory(
        cell=cell,
        attempt=1,
        instance_id=task,
        arm=arm.name,
        arm_hash=arm.config_hash(),
        seed=sampling_seed(Cell(arm=arm.name, seed=0, instance_id=task), arm),
        code_version="x",
        prompt_hash="p",
        model=IDENTITY,
        environment="e",
        sandbox="none",
        workspace_clean_state="c",
        steps=len(steps),
        stop_reason=StopReason.DONE,
        patch=patch,
        patch_hash=content_hash(patch),
        patch_at_limit=False,
        flagged_paths=(),
        prompt_tokens=1000 * len(steps),
        completion_tokens=60 * len(steps),
        guards={},
        wall_s=120.0,
        model_s=3.0 * len(steps),
    )


def verdict(cell: str, task: str, patch: str, resolved: bool) -> Verdict:
    outcome = TestOutcome.PASSED if resolved else TestOutcome.FAILED
    return Verdict(
        cell=cell,
        attempt=1,
        instance_id=task,
        outcome=Outcome.RESOLVED if resolved else Outcome.UNRESOLVED,
        cause="" if resolved else "tests/test_x.py::test_new failed",
        f2p_only=False,
        fail_to_pass={"tests/test_x.py::test_new": outcome},
        pass_to_pass={f"tests/test_x.py::test_{number}": TestOutcome.PASSED for number in range(40)},
        stripped_paths=(),
        tampering=(),
        patch_hash=content_hash(patch),
        environment="e",
        sandbox="none",
        verifier="1",
        wall_s=9.0,
    )


def long_one(folder: Path) -> None:
    """One attempt of 10 MB among others."""
    rng = random.Random(1)
    steps = [step("base/0/t-1", number, rng, 100_000) for number in range(1, 101)]
    others = [
        step(f"base/0/t-{task}", number, rng, OUTPUT_CHARS)
        for task in range(2, 40)
        for number in range(1, 31)
    ]
    write(folder / "steps.jsonl", [*others[:500], *steps, *others[500:]])


def many(folder: Path, count: int) -> None:
    rng = random.Random(2)
    like = step("base/0/t-1", 1, rng, 400)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "steps.jsonl").open("wb") as stream:
        for number in range(count):
            cell = f"base/{number // 8190}/t-{number // 30 % 273}"
            stream.write(
                _encode(number + 1, like.model_copy(update={"cell": cell, "index": number % 30 + 1}), folder)
            )


def write(path: Path, records: list[Record]) -> None:
    """As a stream would, without a trip to the disk for each line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        for number, record in enumerate(records, 1):
            stream.write(_encode(number, record, path.parent))


if __name__ == "__main__":
    main()
