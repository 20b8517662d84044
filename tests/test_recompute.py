"""Every registered figure is recomputed from the records by a script that knows nothing of Looper's code, and agrees."""

import ast
import itertools
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts.bench_report import IDENTITY, verdict
from scripts.recompute import claim_of as recomputed_claim
from scripts.recompute import compare

from looper.experiment.plans import plan_from_text
from looper.journal import _encode, read_stream
from looper.metrics import design, paired, registered
from looper.metrics.claim import claim_of
from looper.metrics.registered import Decision
from looper.records.base import Record
from looper.records.likelihood import AttemptLikelihood, Likelihood
from looper.records.plan import Contrast, Expect, Gate, Metric, Override, Plan, RunManifest
from looper.records.question import AnsweredQuestion
from looper.records.trajectory import Guard, Step, Trajectory, Write
from looper.records.treatment import Proof, ProofKind
from looper.records.verdict import Outcome, TestOutcome, Verdict
from looper.views.decided import registered_text
from looper.views.runs import read_run
from tests.fakes.written_run import AND_MEMORY, TWO_ALIKE, ended_rollout, step

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "recompute.py"
SHIPPED = ROOT / "tests" / "data" / "small-micro-ac66498b4214"

PLAN = (
    TWO_ALIKE
    + AND_MEMORY
    + """
[[arms]]
name = "placebo"
role = "control"
only_seeds = 1
learning = { treatment = "memory", memory = { draw = "placebo" } }
reason = "what it may not do"
[[contrasts]]
arm = "memory"
against = "base"
expected = "60 points"
shown = "It helped here."
refuted = "It harmed here."
open = "It is open."
[[contrasts]]
arm = "again"
against = "base"
expect = "same"
margin = "20 points"
shown = "Equal arms differ by less than {margin}."
refuted = "Equal arms differ."
open = "It is open whether they do."
[[contrasts]]
arm = "placebo"
against = "base"
expect = "not_more"
margin = "20 points"
shown = "It helps by less than {margin}."
refuted = "It helps after all."
open = "It is open whether it helps."
[[contrasts]]
arm = "memory"
against = "base"
metric = "f2p_fraction"
shown = "More tests pass."
refuted = "Fewer tests pass."
open = "It is open whether more tests pass."
[[contrasts]]
arm = "memory"
against = "base"
expect = "not_less"
metric = "f2p_fraction"
margin = "5 points"
shown = "Fewer tests pass, by less than {margin}."
refuted = "Fewer tests pass, by the margin."
open = "It is open whether as many tests pass."
[[contrasts]]
arm = "memory"
against = "base"
metric = "valid_actions"
expected = "60 points"
shown = "It rises here."
refuted = "It falls here."
open = "It is open whether it rises."
[profiles.micro]
like = "demo"
"""
)
PROFILE = {"demo": (ROOT / "experiments" / "profiles" / "demo.toml").read_text("utf-8")}


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy, beside which an index may be kept."""
    return Path(shutil.copytree(SHIPPED, tmp_path / SHIPPED.name))


def script(*arguments: "str | Path") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def rewritten(folder: Path, kind: type[Record], name: str, change: Callable[[list[Record]], object]) -> None:
    """With checksums, as if it had always been so."""
    records: list[Record] = list(read_stream(folder, name, kind))
    change(records)
    lines = [_encode(at, record, folder) for at, record in enumerate(records, 1)]
    (folder / f"{name}.jsonl").write_bytes(b"".join(lines))


def test_every_figure_of_the_shipped_run_is_recomputed_and_agrees(shipped: Path) -> None:
    done = script(shipped)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].endswith(" figures, 0 differ, 0 left out")
    for name in ("gold − base", "memory − base", "again − base"):
        for figure in (
            "pairs", "gains", "losses", "difference", "unit", "units", "effective pairs", "confidence", "interval",
            "p by itself", "p in its family", "finding", "claim", "sentence",
        ):  # fmt: skip
            assert any(line.startswith(f"{name}: {figure}  ") for line in lines), (name, figure)
        for figure in ("low end", "words"):
            assert any(line.startswith(f"printed, {name}: {figure}  ") for line in lines)
    findings = [line.split()[-2] for line in lines if "base: finding" in line and "printed" not in line]
    assert findings == ["pilot"] * 3, "twelve tasks, whatever the plan expects"


def test_the_shipped_run_names_no_machine() -> None:
    text = "".join(path.read_text("utf-8") for path in SHIPPED.glob("*.jsonl"))
    assert "/home/" not in text and "/Users/" not in text and "/work" not in text and "/root" not in text


def test_the_script_shares_no_code_with_looper(shipped: Path, tmp_path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names - set(sys.stdlib_module_names) == {"numpy", "scipy"} and "importlib" not in names
    printed = tmp_path / "printed.json"
    printed.write_text(registered_text(read_run(shipped)), "utf-8")
    look = (
        "import runpy, sys\n"
        "sys.modules['looper'] = None\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: print('ended', end.code)\n"
        "print([name for name in sys.modules if name.startswith('looper.')])"
    )
    argv = f"import sys; sys.argv = [{str(SCRIPT)!r}, {str(shipped)!r}, '--printed', {str(printed)!r}]\n"
    done = subprocess.run(
        [sys.executable, "-c", argv + look], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-2:] == ["ended 0", "[]"], done.stdout + done.stderr


def test_a_changed_verdict_differs_from_what_was_printed_before(shipped: Path, tmp_path: Path) -> None:
    printed = tmp_path / "printed.json"
    printed.write_text(registered_text(read_run(shipped)), "utf-8")

    def flip(records: list[Record]) -> None:
        at = next(
            at
            for at, one in enumerate(records)
            if isinstance(one, Verdict) and one.cell.startswith("base/") and one.outcome is Outcome.UNRESOLVED
        )
        records[at] = records[at].model_copy(update={"outcome": Outcome.RESOLVED})

    rewritten(shipped, Verdict, "verdicts", flip)
    done = script(shipped, "--printed", printed)
    assert done.returncode == 1
    differing = [line for line in done.stdout.splitlines() if line.endswith("DIFFERS")]
    assert any(line.startswith("gold − base: gains") for line in differing)
    assert any(line.startswith("printed, gold − base: low end") for line in differing)


def no_family(p_values: list[float]) -> list[float]:
    return list(p_values)


@pytest.mark.parametrize(
    ("module", "name", "rule", "figure"),
    [
        (registered, "ALPHA", 0.1, "gold − base: confidence"),
        (registered, "holm", no_family, "gold − base: p in its family"),
        (paired, "student", lambda confidence, units: 1.96, "gold − base: interval"),
        (paired, "sign_flip", lambda sums: 1e-9, "memory − base: interval"),
        (paired, "_correlation", lambda *cells: 0.0, "again − base: interval"),
        (design, "ENOUGH_REPOSITORIES", 50, "unit"),
    ],
)
def test_a_changed_rule_is_named_by_the_figures_that_it_changes(
    module: object,
    name: str,
    rule: object,
    figure: str,
    shipped: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, rule)
    table = compare(shipped, json.loads(registered_text(read_run(shipped))))
    differing = [row[0] for row in table.rows if row[3] == "DIFFERS"]
    assert figure in differing


def test_a_changed_finding_or_a_rounded_figure_is_named(shipped: Path) -> None:
    theirs = json.loads(registered_text(read_run(shipped)))
    theirs["printed"] = [line.replace("+5.5 to", "+5.6 to") for line in theirs["printed"]]
    theirs["contrasts"][0]["finding"] = "shown"
    differing = [row[0] for row in compare(shipped, theirs).rows if row[3] == "DIFFERS"]
    assert differing == ["gold − base: finding", "printed, gold − base: low end"]


def test_a_claim_beyond_its_contrast_is_named_and_so_is_a_sentence_that_is_not_quoted(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", 18, 4, harms_here_and_there)
    theirs = json.loads(registered_text(read_run(folder)))
    first = theirs["contrasts"][0]
    first["claim"] = first["claim"].replace("fewer", "far fewer")
    theirs["printed"] = [line.replace("The plan: “", "").replace("”", "") for line in theirs["printed"]]
    rows = {row[0]: row for row in compare(folder, theirs).rows if row[3] == "DIFFERS"}
    assert rows["memory − base: claim"][2] == "memory resolves fewer tasks than base"
    assert "The plan: “" in rows["printed, memory − base: words"][2]


def test_claims_put_together_by_other_means_are_the_same() -> None:
    ways = itertools.product(Expect, Metric, ((), ("c", "d")), (0.1, 0.0525), Decision)
    for expect, metric, through, margin, finding in ways:
        found = Contrast(
            arm="a", against="b", expect=expect, metric=metric, through=through, margin=margin,
            shown="yes", refuted="no", open="cannot tell",
        )  # fmt: skip
        told = json.loads(found.to_json())
        assert recomputed_claim(told, finding.value) == claim_of(found, finding)


Judge = Callable[[str, int, random.Random], float]


def written(
    folder: Path,
    repositories: int,
    each: int,
    share: Judge,
    *,
    lost: float = 0.0,
    failed: str = "",
    leaked: int = 0,
    override: bool = False,
    unlike: bool = False,
) -> Path:
    """A finished run as it would lie there; `share` says of arm and repository the chance that a test passes."""
    plan = plan_from_text("x", PLAN, "x.toml", "micro", shared=PROFILE)
    # A line through arms without a dose no file may ask for; its arithmetic is the same.
    *others, last = plan.contrasts
    line = last.model_copy(update={"metric": Metric.RESOLVED, "through": ("again",)})
    plan = plan.model_copy(update={"seeds": (0, 1), "contrasts": (*others, line)})
    # Unlike: every third repository has one task alone, so that they are worth fewer than there are.
    sizes = [1 if unlike and repo % 3 == 0 else each for repo in range(repositories)]
    tasks = tuple(f"r{repo}-{number}" for repo, size in enumerate(sizes) for number in range(size))
    manifest = RunManifest(
        plan=plan,
        code_version="x",
        tasks=tasks,
        tasks_hash="x",
        models={arm.name: IDENTITY for arm in plan.arms},
        environments=("e",),
        sandbox="none",
        experience_tasks={source: () for source in plan.sources},
        leaked=tasks[:leaked],
        overrides=(Override(gate=Gate.POWER, reason="all that there are"),) if override else (),
    )
    folder.mkdir()
    rng = random.Random(f"{repositories} {each} {lost} {failed}")

    def verdicts() -> Iterator[Verdict]:
        for arm in plan.arms:
            for seed in plan.seeds_of(arm):
                for task in tasks:
                    repo = int(task[1:].split("-")[0])
                    passed = [rng.random() < share(arm.name, repo, rng) for _ in range(3)]
                    found = verdict(f"{arm.name}/{seed}/{task}", task, "p", all(passed))
                    tests = {
                        f"t{at}": TestOutcome.PASSED if one else TestOutcome.FAILED
                        for at, one in enumerate(passed)
                    }
                    gone = {"outcome": Outcome.INFRA_ERROR} if rng.random() < lost else {}
                    yield found.model_copy(update={"fail_to_pass": tests, **gone})

    rewritten(folder, RunManifest, "manifest", lambda records: records.append(manifest))
    rewritten(folder, Verdict, "verdicts", lambda records: records.extend(verdicts()))
    if failed:
        proof = Proof(kind=ProofKind.MEMORY_DELIVERED, arm=failed, subject="x", passed=False, said="nothing")
        rewritten(folder, Proof, "proofs", lambda records: records.append(proof))
    return folder


def helps(arm: str, repo: int, rng: random.Random) -> float:
    return 0.98 if arm == "memory" else 0.75


def harms_here_and_there(arm: str, repo: int, rng: random.Random) -> float:
    return 0.3 if arm == "memory" and repo % 3 else 0.85


def decides_by_itself(arm: str, repo: int, rng: random.Random) -> float:
    return float(repo % 2 == 0)


@pytest.mark.parametrize(
    ("shape", "share", "options"),
    [
        ((12, 3), helps, {}),
        ((12, 3), harms_here_and_there, {}),
        ((12, 3), decides_by_itself, {}),
        ((3, 7), helps, {"override": True}),
        ((2, 2), helps, {}),
        ((1, 1), decides_by_itself, {"override": True}),
        ((12, 2), helps, {"lost": 0.2}),
        ((12, 3), helps, {"lost": 0.02}),
        ((12, 2), helps, {"failed": "memory"}),
        ((13, 3), helps, {"leaked": 7}),
        ((18, 4), harms_here_and_there, {"unlike": True}),
    ],
)
def test_runs_of_every_shape_agree(
    tmp_path: Path, shape: tuple[int, int], share: Judge, options: dict[str, object]
) -> None:
    """Several tasks and seeds, rates, means, margins and rises; few repositories, lost cells, of which a few
    turn a decision, a failed arm, quoted fixes."""
    folder = written(tmp_path / "run", *shape, share, **options)  # type: ignore[arg-type]
    table = compare(folder, json.loads(registered_text(read_run(folder))))
    assert len(table.rows) > 60
    assert [row for row in table.rows if row[3] != "equal"] == []


OTHERWISE = (
    TWO_ALIKE
    + """
[[arms]]
name = "third"
role = "again"
repetition = 2
reason = "equal arms"
"""
)
SAID = (
    'shown = "They differ so."\nrefuted = "They differ otherwise."\nopen = "Whether they differ is open."\n'
)
CHOOSERS = ("majority", "checked", "likeliest", "random", "any")
METRICS = (
    "valid_actions", "interventions", "answers_supported", "file_recall", "action_log_likelihood", "retention",
    "forgetting.standard",
)  # fmt: skip


def test_choices_guards_and_every_other_metric_are_read_from_the_records_too(tmp_path: Path) -> None:
    """Choices of attempts by each chooser, a contrast whose guard never fired and one whose did, and each metric, the first of them
    primary, so that its power is measured."""
    contrasts = ['arm = "again"\nagainst = "base"\n']
    contrasts += [
        f'arm = "by_{name}"\nagainst = "base"\n'
        + 'expect = "not_more"\nmargin = "10 points"\n' * (name == "any")
        for name in CHOOSERS
    ]
    contrasts += [
        f'arm = "again"\nagainst = "base"\nexercised = ["{guard}"]\n'
        for guard in ("repeated_action", "broken_python")
    ]
    choices = "".join(
        f'[[choices]]\nname = "by_{name}"\nof = ["base", "again", "third"]\nby = "{name}"\n'
        for name in CHOOSERS
    )
    text = (
        OTHERWISE
        + choices
        + "".join(
            f"[[contrasts]]\n{one}{SAID.replace('differ so', 'differ by less than {margin}') if 'margin' in one else SAID}"
            for one in contrasts
        )
    )
    plan = plan_from_text("x", text + '[profiles.micro]\nlike = "demo"\n', "x.toml", "micro", shared=PROFILE)
    # What these arms cannot have by their plan the records say they have.
    first, *others = plan.contrasts
    changed = (*(first.model_copy(update={"metric": Metric(metric)}) for metric in METRICS), *others)
    folder = measured_otherwise(
        tmp_path / "run", plan.model_copy(update={"seeds": (0, 1), "contrasts": changed})
    )
    run = read_run(folder)
    assert all(each.difference is not None for each in run.registered), "all of it is measured"
    assert run.registered[-1].finding is Decision.NOT_EXERCISED
    table = compare(folder, json.loads(registered_text(run)))
    assert [row for row in table.rows if row[3] != "equal"] == []


def measured_otherwise(folder: Path, plan: Plan) -> Path:
    """A finished run of which steps, rollouts, questions and likelihoods are there, all drawn."""
    tasks = tuple(f"r{repo}-{number}" for repo in range(3) for number in range(4))
    manifest = RunManifest(
        plan=plan,
        code_version="x",
        tasks=tasks,
        tasks_hash="x",
        models={arm.name: IDENTITY for arm in plan.arms},
        environments=("e",),
        sandbox="none",
    )
    folder.mkdir()
    rng = random.Random(3)
    cells = [(arm, seed, task) for arm in plan.arms for seed in plan.seeds for task in tasks]
    steps, rollouts, verdicts, likely, asked = [], [], [], [], []
    for arm, seed, task in cells:
        cell, count = f"{arm.name}/{seed}/{task}", rng.randint(3, 6)
        for at in range(1, count + 1):
            one = step(cell, at, count, "said", "seen")
            reply = one.reply.model_copy(update={"overseen": rng.random() < 0.3})
            action = (
                None
                if rng.random() < 0.2
                else Write(path="x", content="y")
                if rng.random() < 0.2
                else one.action
            )
            steps.append(one.model_copy(update={"reply": reply, "action": action}))
        patch = rng.choice(["", "one", "two"])
        guards = {Guard.REPEATED_ACTION: 1} if rng.random() < 0.2 else {}
        rollout = ended_rollout(cell, arm, task, patch, count)
        rollouts.append(rollout.model_copy(update={"seed": seed, "guards": guards}))
        found = verdict(cell, task, patch, bool(patch) and rng.random() < 0.7)
        verdicts.append(found.model_copy(update={"file_recall": rng.choice([None, 0.0, 0.5, 1.0])}))
        likely.append(AttemptLikelihood(cell=cell, attempt=1, log_likelihood=-rng.random()))
        for number in range(3):
            asked.append(
                AnsweredQuestion(
                    arm=arm.name,
                    seed=seed,
                    repo="r",
                    round=rng.randint(1, 2),
                    source=f"{cell}#{number}",
                    question="q",
                    answer="a",
                    key="k",
                    supported=rng.random() < 0.6,
                )
            )
    batch_of = {task: 1 + at % 3 for at, task in enumerate(tasks)}
    likelihoods = [
        Likelihood(
            arm=arm.name,
            seed=seed,
            batches=batches,
            last=batches == 3,
            adapters=(),
            batch_of=batch_of,
            held_out={task: -rng.random() for task in tasks},
            learned={task: -rng.random() for task in tasks},
        )
        for arm in plan.arms
        for seed in plan.seeds
        for batches in (1, 2, 3)
    ]
    every: dict[str, tuple[type[Record], list[Any]]] = {
        "manifest": (RunManifest, [manifest]),
        "steps": (Step, steps),
        "trajectories": (Trajectory, rollouts),
        "verdicts": (Verdict, verdicts),
        "attempt_likelihoods": (AttemptLikelihood, likely),
        "questions": (AnsweredQuestion, asked),
        "likelihoods": (Likelihood, likelihoods),
    }
    for name, (kind, records) in every.items():
        rewritten(folder, kind, name, lambda there, new=records: there.extend(new))  # type: ignore[misc]
    return folder


@pytest.mark.parametrize("what", ["empty", "unfinished"])
def test_what_is_no_finished_run_is_said_in_one_line(what: str, shipped: Path, tmp_path: Path) -> None:
    if what == "unfinished":
        rewritten(shipped, Verdict, "verdicts", lambda records: records.pop())
    done = script(tmp_path / "nothing" if what == "empty" else shipped)
    assert done.returncode == 2 and "nothing to compare" in done.stderr
    assert len(done.stderr.splitlines()) == 1
