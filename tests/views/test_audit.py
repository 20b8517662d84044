"""Records that were changed after the fact: each kind of tampering is found, and named. Written with valid checksums, as
somebody who knows the format would."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from tests import program
from tests.experiment.test_run import Project

from looper.edges.trainers.adapter_store import CARD, weights_hash
from looper.experiment.pools import read_attempts
from looper.journal import Stream, read_stream
from looper.records.base import Record
from looper.records.likelihood import Likelihood
from looper.records.memory import MemoryItem
from looper.records.plan import RunManifest
from looper.records.seal import Seal
from looper.records.session import Session, Trained
from looper.records.training import AdapterRecord
from looper.records.trajectory import Done, Step, Trajectory
from looper.records.treatment import Consolidation, Proof, ProofKind
from looper.records.verdict import Outcome, TestOutcome, Verdict
from looper.views.audit import ExternalFacts, audit, unchecked
from looper.views.contradictions import Agent
from looper.views.runs import read_run


class Copy:
    """The finished run again, to be tampered with."""

    def __init__(self, finished: Project, place: Path) -> None:
        shutil.copytree(finished.folder, place / "project")
        shutil.copytree(finished.environment["LOOPER_HOME"], place / "home")
        self.project = Project(place / "project", place / "home")
        self.run = self.project.run

    def rewrite(self, name: str, kind: type[Record], change: Callable[[list[Any]], list[Any]]) -> None:
        """The stream with other records, numbered and with checksums as if it had always been so."""
        records = change(list(read_stream(self.run, name, kind)))
        (self.run / f"{name}.jsonl").unlink()
        stream = Stream(self.run, name, kind)
        for record in records:
            stream.append(record)
        stream.close()

    def verify(self) -> str:
        found = self.project.looper("report", "--verify")
        assert found.returncode == 1, found.stdout + found.stderr
        assert "do not trust" in found.stderr and len(found.stderr.strip().splitlines()) == 1
        return found.stdout


@pytest.fixture
def copy(finished: Project, tmp_path: Path) -> Copy:
    return Copy(finished, tmp_path)


def first(
    records: list[Any], changed: Callable[[Any], dict[str, Any]], which: Callable[[Any], bool]
) -> list[Any]:
    """The records with the first that fits changed."""
    at = next(number for number, record in enumerate(records) if which(record))
    return [*records[:at], records[at].model_copy(update=changed(records[at])), *records[at + 1 :]]


def test_a_finished_run_that_lost_records_is_damaged_wherever_it_stands_and_is_not_called_one_to_go_on_with(
    copy: Copy,
) -> None:
    file = copy.run / "verdicts.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:3]))
    for words in (("status",), ("runs", "show"), ("runs", "list"), ("report", "--verify")):
        said = copy.project.looper(*words).stdout
        assert re.search(r"damaged record.*verdicts.jsonl|verdicts.jsonl .* bytes are left", said), (
            words,
            said,
        )
        assert "go on with" not in said, words
    (told,) = json.loads(copy.project.looper("status", "--json").stdout)["runs"]
    assert told["goes_on_with"] is None and told["damaged_records"] == 1
    copy.project.looper("report")
    page = (copy.run / "report.html").read_text()
    assert "verdicts.jsonl" in page and "bytes are left of" in page and "None: every planned cell" not in page


def test_a_page_says_no_more_of_damage_than_it_looked_at(copy: Copy) -> None:
    """Steps are not read for it, so a damaged one is not denied."""
    file = copy.run / "steps.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"X" + lines[1][1:], *lines[2:]]))
    copy.project.looper("report")
    page = (copy.run / "report.html").read_text()
    assert "no record is damaged" not in page and "steps are not: looper report --verify" in page
    assert "steps.jsonl line 2" in copy.verify()


def test_the_command_that_goes_on_with_a_renamed_run_names_it_as_it_is_called_now(
    tmp_path: Path, state: Path
) -> None:
    project = Project(tmp_path, state)
    assert project.looper("run", "test", "--arm", "base", "--fresh").returncode == 0
    first = project.run
    assert project.looper("run", "test", "--run", first.name, "--arm", "base").returncode == 0
    moved = first.rename(first.with_name("renamed"))
    (told,) = json.loads(project.looper("status", "--json").stdout)["runs"]
    assert told["run"] == moved.name and first.name not in (told["goes_on_with"] or "")


def test_a_run_that_nobody_touched_verifies(finished: Project) -> None:
    found = finished.looper("report", "--verify")
    assert found.returncode == 0 and "nothing wrong" in found.stdout, found.stdout
    assert found.stdout.endswith("1 run, 0 findings, 0 not checked\n")


def test_what_could_not_be_looked_at_is_said(copy: Copy) -> None:
    shutil.rmtree(Path(copy.project.environment["LOOPER_HOME"]) / "adapters")
    found = copy.project.looper("report", "--verify")
    assert found.returncode == 0 and ": 4 of 4 adapters are not here" in found.stdout


def test_adapters_that_are_not_here_are_a_few_names_and_a_count(finished: Project) -> None:
    run = read_run(finished.run)
    one = run.consolidations[0]
    many = tuple(one.model_copy(update={"adapter": f"{number:016x}"}) for number in range(145))
    outside = ExternalFacts(None, lambda name: None, "another")
    (line,) = [said for said in unchecked(replace(run, consolidations=many), outside) if "adapters" in said]
    assert line.startswith("145 of 145 adapters are not here: ") and line.endswith(" and 142 more")
    assert len(line) < 120


def test_a_run_folder_that_is_a_link_is_said(copy: Copy) -> None:
    elsewhere = copy.project.folder / "elsewhere"
    folder = copy.run.rename(elsewhere)
    copy.run.symlink_to(folder)
    found = copy.project.looper("report", "--verify")
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"its folder is a link, so that others can lie in its place: {elsewhere}" in found.stdout


def test_what_another_version_of_the_code_read_and_told_is_not_held_against_it(copy: Copy) -> None:
    """Its parser and its memory may have been others; that equal first words stand in equal arms is still looked at."""
    run = read_run(copy.run)
    step = next(read_stream(copy.run, "steps", Step))
    odd = Agent(
        read=lambda text, finish: (Done(message="nobody said this"), None, False),
        watch=lambda arm, tree: lambda step, fenced: "",
        delivery=lambda arm, seed, task: None,
        prompt_hash=lambda arm, task, given: "",
        item=lambda kind, arm, end, steps, task: pytest.fail("asked of another version"),
        useful=lambda steps: steps,
        selection=lambda arm, one, steps_of: None,
        asked=lambda one, arm, end, steps, task: 1,
        errors={},
        rules=run.verdicts[0].verifier,
        attempts=(),
    )
    mine = ExternalFacts(None, lambda name: None, run.manifest.code_version, agent=odd)
    named = [line for line in audit(run, mine) if "steps whose action is not what their reply says" in line]
    assert named and step.cell in named[0]
    assert not audit(run, replace(mine, code_version="another"))
    words = [
        end.model_copy(update={"prompt_hash": "0" * 64}) if end.cell.startswith("base/0/") else end
        for end in run.trajectories
    ]
    other = replace(run, trajectories=tuple(words))
    assert any(
        "rollouts that began with other words than others at their task" in line
        for line in audit(other, replace(mine, code_version="another"))
    )


def test_a_plan_that_was_edited_after_the_fact_is_named(copy: Copy) -> None:
    def edited(manifest: RunManifest) -> dict[str, Any]:
        return {"plan": manifest.plan.model_copy(update={"hypothesis": "what came out"})}

    copy.rewrite("manifest", RunManifest, lambda found: first(found, edited, lambda _: True))
    assert "the plan, or what else stands in the manifest, was changed" in copy.verify()


def test_a_swapped_task_is_named(copy: Copy) -> None:
    """In the suite, whose tasks are not those that were run; and in the records, whose cells are not theirs."""
    (tasks,) = (Path(copy.project.environment["LOOPER_HOME"]) / "suites").glob("micro-0-seed0-*/tasks.jsonl")
    name = read_run(copy.run).tasks[0]
    lines = tasks.read_text().splitlines()
    tasks.write_text(
        "".join(
            line.replace(" is wrong", " is broken") + "\n" if name in line else line + "\n" for line in lines
        )
    )
    assert "the tasks are not the ones that were run" in copy.verify()


def test_a_rollout_that_was_given_to_another_task_is_named(copy: Copy) -> None:
    other = read_run(copy.run).tasks[1]
    copy.rewrite(
        "verdicts",
        Verdict,
        lambda found: first(
            found,
            lambda _: {"instance_id": other},
            lambda verdict: verdict.cell.startswith("base/") and verdict.instance_id != other,
        ),
    )
    assert "verdicts on another task than their cell's: base/" in copy.verify()


def test_a_flipped_verdict_is_named(copy: Copy) -> None:
    copy.rewrite(
        "verdicts",
        Verdict,
        lambda found: first(
            found,
            lambda _: {"outcome": Outcome.RESOLVED, "cause": ""},
            lambda verdict: verdict.outcome is Outcome.UNRESOLVED,
        ),
    )
    assert "verdicts that say resolved while their tests do not" in copy.verify()


def test_a_verdict_that_was_flipped_with_its_tests_is_still_found(copy: Copy) -> None:
    def flipped(verdict: Verdict) -> dict[str, Any]:
        tests = {
            name: dict.fromkeys(getattr(verdict, name), TestOutcome.PASSED)
            for name in ("fail_to_pass", "pass_to_pass")
        }
        return {"outcome": Outcome.RESOLVED, "cause": "", "same_as": "", **tests}

    copy.rewrite(
        "verdicts",
        Verdict,
        lambda found: first(found, flipped, lambda verdict: verdict.outcome is Outcome.UNRESOLVED),
    )
    assert "verdicts.jsonl is not what it was when the run ended" in copy.verify()


def test_a_trajectory_that_was_cut_is_named(copy: Copy) -> None:
    longest = max(read_run(copy.run).trajectories, key=lambda end: end.steps)
    copy.rewrite(
        "steps",
        Step,
        lambda found: [step for step in found if (step.cell, step.index) != (longest.cell, longest.steps)],
    )
    assert f"rollouts with more or fewer steps than they ended with: {longest.cell}" in copy.verify()


def test_a_patch_that_was_exchanged_is_named(copy: Copy) -> None:
    copy.rewrite(
        "trajectories", Trajectory, lambda found: first(found, lambda _: {"patch": "diff"}, lambda end: True)
    )
    assert "patches that are not what their hash says" in copy.verify()


def test_an_arm_that_was_configured_anew_is_named(copy: Copy) -> None:
    def warmer(manifest: RunManifest) -> dict[str, Any]:
        plan = manifest.plan
        arms = tuple(arm.model_copy(update={"temperature": 0.1}) for arm in plan.arms)
        return {"plan": plan.model_copy(update={"arms": arms})}

    copy.rewrite("manifest", RunManifest, lambda found: first(found, warmer, lambda _: True))
    assert "the arm lora is configured otherwise than its rollouts were: lora/" in copy.verify()


def test_seeds_that_were_dropped_are_named(copy: Copy) -> None:
    """From the plan, whose records are still there; and with their records, whose lines are missing."""

    def fewer(manifest: RunManifest) -> dict[str, Any]:
        return {"plan": manifest.plan.model_copy(update={"seeds": (0,)})}

    copy.rewrite("manifest", RunManifest, lambda found: first(found, fewer, lambda _: True))
    assert "cells of a seed that the plan does not have: " in copy.verify()


def test_lines_that_were_taken_out_are_named(copy: Copy) -> None:
    path = copy.run / "verdicts.jsonl"
    path.write_bytes(b"".join(line for line in path.read_bytes().splitlines(True) if b"lora/1/" not in line))
    said = copy.verify()
    assert "verdicts.jsonl is not what it was when the run ended: " in said
    assert "lines are left, the rest was taken out" in said


def test_an_adapter_that_was_replaced_is_named(copy: Copy) -> None:
    """Weights alone do not fit their card; weights and card together are not those that were served."""
    adapter = next(found.adapter for found in read_run(copy.run).consolidations)
    folder = Path(copy.project.environment["LOOPER_HOME"]) / "adapters" / adapter
    weights = load_file(folder / "adapters.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, folder / "adapters.safetensors")
    assert f"the adapter {adapter} of lora is damaged: The weights in" in copy.verify()
    card = AdapterRecord.from_json((folder / CARD).read_bytes())
    (folder / CARD).write_bytes(card.model_copy(update={"weights_hash": weights_hash(folder)}).to_json())
    assert f"the adapter {adapter} of lora was replaced" in copy.verify()


def test_infra_errors_under_another_name_are_named(copy: Copy) -> None:
    def hidden(verdict: Verdict) -> dict[str, Any]:
        return {"outcome": Outcome.INFRA_ERROR, "cause": "the server was down"}

    copy.rewrite(
        "verdicts",
        Verdict,
        lambda found: first(found, hidden, lambda verdict: verdict.outcome is Outcome.UNRESOLVED),
    )
    assert "infra errors in which tests ran" in copy.verify()

    def counted(verdict: Verdict) -> dict[str, Any]:
        tests = {
            name: dict.fromkeys(getattr(verdict, name), TestOutcome.MISSING)
            for name in ("fail_to_pass", "pass_to_pass")
        }
        return {"outcome": Outcome.UNRESOLVED, "patch_hash": "", **tests}

    copy.rewrite(
        "verdicts",
        Verdict,
        lambda found: first(found, counted, lambda verdict: verdict.outcome is Outcome.INFRA_ERROR),
    )
    assert "infra errors under another name" in copy.verify()


def test_cells_that_are_there_twice_are_named(copy: Copy) -> None:
    copy.rewrite("verdicts", Verdict, lambda found: [*found, found[-1]])
    copy.rewrite("trajectories", Trajectory, lambda found: [*found, found[-1]])
    said = copy.verify()
    assert " had its verdict before: verdicts.jsonl line " in said
    assert " had its rollout before: trajectories.jsonl line " in said


def test_a_report_that_was_edited_by_hand_is_named(copy: Copy) -> None:
    path = copy.project.folder / "docs" / "results" / "audited.md"
    text = path.read_text()
    assert "| lora | " in text
    path.write_text(text.replace("| lora | ", "| lora | 9", 1))
    assert "docs/results/audited.md: the block of audited micro is not what the records say" in copy.verify()


def test_a_run_of_another_version_of_the_code_is_not_accused_of_what_the_version_changed(
    finished: Project,
) -> None:
    """A record that has got a field since hashes otherwise; that the rollouts of an arm agree is still looked at."""
    run = read_run(finished.run)
    outside = ExternalFacts(None, lambda name: None, "another")
    older = [end.model_copy(update={"arm_hash": f"older {end.arm}"}) for end in run.trajectories]
    aged = replace(run, trajectories=tuple(older))
    assert not any("configured otherwise" in line for line in audit(aged, outside))
    assert any("another version of the code" in line for line in unchecked(aged, outside))
    odd = older[0].model_copy(update={"arm_hash": "odd"})
    mixed = replace(run, trajectories=(odd, *older[1:]))
    assert any("configured otherwise" in line for line in audit(mixed, outside))


def test_a_run_that_cannot_be_read_is_named_and_hides_no_other(finished: Project, tmp_path: Path) -> None:
    """A newer version writes what an older one does not know."""
    runs = tmp_path / "runs"
    shutil.copytree(finished.run, runs / "whole")
    shutil.copytree(finished.run, runs / "newer")
    manifest = runs / "newer" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"hypothesis"', '"hypotheses"'))

    def looper(*words: str) -> "subprocess.CompletedProcess[str]":
        where = {**finished.environment, "LOOPER_RUNS": str(runs)}
        return program.looper(*words, cwd=tmp_path, env=where)

    nothing = looper("report", "--results", "docs/results")
    assert nothing.returncode == 2 and "docs/results has no block of a run yet" in nothing.stderr
    for words in (("report", "audited"), ("status",)):
        done = looper(*words)
        assert done.returncode == 0 and "newer is no usable run folder" in done.stdout, words
        assert "whole" in done.stdout
    assert json.loads(looper("status", "--json").stdout)["unreadable"]
    verified = looper("report", "--verify")
    assert verified.returncode == 1 and "newer is no usable run folder" in verified.stdout


def tamper() -> Any:
    """The script that plants every kind; the whole of it is a proof of minutes."""
    place = Path(__file__).parents[2] / "scripts" / "tamper.py"
    spec = importlib.util.spec_from_file_location("tamper", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tamper"] = module
    spec.loader.exec_module(module)
    return module


FEW = (
    "second attempts after the verdicts",
    "a verdict without the tests that failed",
    "a text beside the steps is forged",
    "rollouts at their limit of steps ended for want of time",
    "a rollout that took less time than its steps",
    "a patch is emptied",
    "a reply is rewritten",
    "an adapter was made of one success less",
    "one success is said to have been tampered",
    "causes count other tests",
    "patches stand where none",
    "a guard fired in every step",
    "an overseer stepped in",
    "the action gates are gone",
    "all likelihoods are gone",
    "what was learned is there twice",
    "trainings are halved",
    "a session is there twice",
    "no rollout names a plan",
)


OF_MEMORY = (
    "first words of the arm that remembers",
    "one token for each prompt and reply",
    "what was learned used one success less",
    "the text of a memory",
    "the changes of a memory",
    "other memories were told",
)
REMEMBERING = """
title = "Remembering"
hypothesis = "h"
factor = "what the arm remembers"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "memory"
role = "treatment"
learning = { treatment = "memory" }
[[contrasts]]
arm = "memory"
against = "base"
shown = "The memory helped."
refuted = "The memory harmed."
open = "It is open."
[profiles.micro]
like = "demo"
seeds = [0]
[profiles.micro.tasks]
per_repo = 3
limit = 3
[profiles.micro.experience]
per_repo = 8
memory_items = 1
delivered = 0.1
temperature = 0.7
selection = { minimum_tasks = 1 }
"""


def all_named(project: Project, wanted: tuple[str, ...], place: Path) -> None:
    """Each kind of change is named, with a new seal too."""
    script = tamper()
    base = script.Base(project.folder, Path(project.environment["LOOPER_HOME"]))
    kinds = [kind for kind in script.in_runs() if kind.name.startswith(wanted)]
    assert len(kinds) == len(wanted) and all(kind.reach for kind in kinds)
    for kind, kept, anew in script.look(base, kinds, place):
        assert kept.planted and not script.wrong(kind, kept, anew), (kind.name, kept, anew)


def test_every_stream_of_a_run_is_among_those_that_the_script_changes(finished: Project) -> None:
    found = {path.stem for path in finished.run.glob("*.jsonl")}
    assert "gate_stops" in found and found <= set(tamper().KINDS.values())


def test_what_was_changed_is_named_with_a_new_seal_too_where_another_record_contradicts_it(
    finished: Project, tmp_path: Path
) -> None:
    assert len({kind.name for kind in tamper().in_runs()}) >= 40
    all_named(finished, FEW, tmp_path)


def test_what_an_arm_remembers_is_made_again_from_its_successes(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", tmp_path / "home")
    (project.folder / "experiments" / "remembering.toml").write_text(REMEMBERING)
    ran = project.looper("run", "remembering", "--workers", "2")
    assert ran.returncode == 0, ran.stderr
    clean = project.looper("report", "--verify", "--strict")
    assert clean.returncode == 0, clean.stdout
    all_named(project, OF_MEMORY, tmp_path / "copies")


def test_a_change_of_any_field_is_named_or_said_to_be_out_of_reach(finished: Project, tmp_path: Path) -> None:
    """One change of every field of every record that this run has, all in one look: a field that is added to a record is changed here too.
    `scripts/tamper.py` makes four of each, in a second run of other arms as well."""
    script = tamper()
    base = script.Base(finished.folder, Path(finished.environment["LOOPER_HOME"]))
    kinds = [kind for kind in script.by_field() if kind.reach and kind.name.endswith(" grown")]
    assert len(kinds) > 100
    seen = script.look_at_many(base, kinds, tmp_path, seal=True)
    planted = [(kind.name, found.named) for kind, found in zip(kinds, seen, strict=True) if found.planted]
    assert len(planted) > 80 and not [name for name, named in planted if not named]
    assert not any(found.traceback for found in seen)


def gone_on_with_from_a_checkpoint(copy: Any) -> None:
    trained = copy.records(Trained)
    at = next(number for number, one in enumerate(trained) if one.event.event == "loaded")
    later = trained[at].model_copy(update={"event": trained[at].event.model_copy(update={"iteration": 1})})
    copy.write(Trained, [*trained[: at + 1], later, *trained[at + 1 :]])


def begun_by_paths(copy: Any) -> None:
    copy.change(
        Session, lambda one: True, command="looper run 'my plans/audited.toml' --profile shared/micro.toml"
    )


def tried_again_after_it_was_learned_from(copy: Any) -> None:
    """The server was gone when experience was gathered, and a second process tried that cell again."""
    verdicts = copy.records(Verdict)
    taken = {one.same_as.partition("#")[0] for one in verdicts}
    cell = next(
        one.cell
        for one in verdicts
        if one.cell.startswith("experience") and one.outcome is Outcome.UNRESOLVED and one.cell not in taken
    )
    _, seed, task = cell.split("/")
    written: list[Verdict] = []
    for one in verdicts:
        if one.cell == cell:
            none = dict.fromkeys(one.fail_to_pass, TestOutcome.MISSING)
            rest = dict.fromkeys(one.pass_to_pass, TestOutcome.MISSING)
            nothing = {
                "outcome": Outcome.INFRA_ERROR,
                "cause": "the server is gone",
                "canaries": "",
                "output": "",
            }
            empty = {"applied": "", "patch_hash": "", "file_recall": None, "wall_s": 0.0, "same_as": ""}
            tests = {"fail_to_pass": none, "pass_to_pass": rest, "f2p_only": False}
            written.append(one.model_copy(update={**nothing, **empty, **tests}))
            one = one.model_copy(update={"attempt": 2})
        written.append(one)
    copy.write(Verdict, written)
    copy.change(Trajectory, lambda one: one.cell == cell, attempt=2)
    copy.change_all(Step, lambda one: one.cell == cell, attempt=2)
    repo = task.rpartition("-")[0]
    copy.change_all(
        Consolidation,
        lambda one: one.seed == int(seed) and one.repo in ("", repo),
        selection=lambda one: one.selection.model_copy(
            update={"seen": one.selection.seen - 1, "unresolved": one.selection.unresolved - 1}
        ),
    )
    (first,) = copy.records(Session)
    copy.write(
        Session,
        [first, first.model_copy(update={"done_before": len({one.cell for one in verdicts}) - 1, "pid": 2})],
    )


def test_what_can_honestly_be_so_is_not_named(finished: Project, tmp_path: Path) -> None:
    script = tamper()
    base = script.Base(finished.folder, Path(finished.environment["LOOPER_HOME"]))
    plants = (gone_on_with_from_a_checkpoint, begun_by_paths, tried_again_after_it_was_learned_from)
    kinds = [script.Kind(plant.__name__, plant) for plant in plants]
    seen = script.look_at_many(base, kinds, tmp_path, seal=True)
    assert [(kind.name, found.named) for kind, found in zip(kinds, seen, strict=True) if found.named] == []
    assert all(found.planted and not found.traceback for found in seen)


def test_what_is_out_of_reach_is_said_in_the_document() -> None:
    script = tamper()
    out = (Path(__file__).parents[2] / "docs" / "audit.md").read_text().partition("can still forge")[2]
    said = " ".join(out.split())
    names = [kind.name for kind in script.by_field()]
    for name, words in script.OUT_OF_REACH.items():
        assert words in said, f"docs/audit.md does not say that this is out of reach: {name}"
        assert any(each.startswith(name) for each in names), f"there is no such field: {name}"


def killed(run: Path, runs: Path) -> None:
    """The run as it may lie there when its process was killed, at every stage that it came to before its last cell ended: in its
    experience, while it learned, while it proved, and at work."""
    script = tamper()
    whole = script.Copy(run, run.parent, run.parent)
    verdicts = whole.records(Verdict)
    own = [verdict.cell for verdict in verdicts if verdict.cell.startswith("experience")]
    work = [verdict.cell for verdict in verdicts if verdict.cell not in own]
    learned, proofs = whole.records(Consolidation), whole.records(Proof)
    contexts = [proof for proof in proofs if proof.kind is ProofKind.CONTEXT]
    later = [proof for proof in proofs if proof not in contexts]
    moments = [
        (own[:0], 0, 0),
        (own[: len(own) // 2], 0, 0),
        *((own, number, 0) for number in range(len(learned) + 1)),
        *((own, len(learned), number) for number in range(1, len(later) + 1)),
        (own + work[: len(work) // 2], len(learned), len(later)),
        (own + work[:-1], len(learned), len(later)),
    ]
    for at, (cells, consolidations, proved) in enumerate(moments):
        folder = runs / f"{run.name}-{at}"
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("report.*", "plots", "steps.index.json"))
        copy = script.Copy(folder, folder, folder)
        following = next((cell for cell in [*own, *work] if cell not in cells), "")
        copy.write(Verdict, [one for one in verdicts if one.cell in cells])
        # One more may have ended and have no verdict yet; one more may be half done.
        copy.write(Trajectory, [one for one in whole.records(Trajectory) if one.cell in cells])
        steps = [
            one
            for one in whole.records(Step)
            if one.cell in cells or (one.cell == following and one.index < 3)
        ]
        copy.write(Step, steps)
        copy.write(Consolidation, learned[:consolidations])
        copy.write(Proof, [*contexts, *later[:proved]])
        copy.write(Likelihood, [])
        items = {item for one in learned[:consolidations] for item in one.items}
        copy.write(MemoryItem, [one for one in whole.records(MemoryItem) if one.id in items])
        (folder / "seals.jsonl").write_bytes(b"")
        with (folder / "verdicts.jsonl").open("ab") as stream:
            stream.write(b'{"seq":99,"sch')


def test_a_run_that_was_killed_at_any_moment_is_no_run_that_was_changed(
    finished: Project, tmp_path: Path
) -> None:
    killed(finished.run, tmp_path / "runs")
    where = {**finished.environment, "LOOPER_RUNS": str(tmp_path / "runs")}
    found = program.looper("report", "--verify", cwd=tmp_path, env=where)
    assert found.returncode == 0, "\n".join(
        line for line in found.stdout.splitlines() if "nothing wrong" not in line
    )
    assert found.stdout.count("nothing wrong") > 10


def test_a_run_that_is_named_by_its_path_is_compared_with_what_is_written_of_it(copy: Copy) -> None:
    path = copy.project.folder / "docs" / "results" / "audited.md"
    clean = copy.project.looper("report", str(copy.run), "--verify", "--strict")
    assert clean.returncode == 0, clean.stdout
    path.write_text(path.read_text().replace("| lora | ", "| lora | 9", 1))
    found = copy.project.looper("report", str(copy.run), "--verify")
    assert found.returncode == 1
    assert "audited.md: the block of audited micro is not what the records say" in found.stdout
    assert "there is no block" not in found.stdout


def test_a_plan_of_one_s_own_misses_no_page(copy: Copy) -> None:
    """It is no registered experiment, so nobody expects one."""
    (copy.project.folder / "docs" / "results" / "audited.md").unlink()
    (copy.project.folder / "experiments" / "audited.toml").rename(copy.project.folder / "audited.toml")
    found = copy.project.looper("report", str(copy.run), "--verify", "--strict")
    assert found.returncode == 0, found.stdout


def test_an_attempt_after_the_verdict_counts_for_nothing(copy: Copy) -> None:
    """The reader takes the first verdict of a cell, and says what came after it."""
    before = read_run(copy.run)
    script = tamper()
    script.second_attempts(script.Copy(copy.run, copy.project.folder, Path(".")))
    after = read_run(copy.run)
    assert len(list(read_stream(copy.run, "verdicts", Verdict))) > len(after.verdicts)
    assert (after.verdicts, after.trajectories) == (before.verdicts, before.trajectories)
    assert after.outcomes("lora") == before.outcomes("lora")
    assert any("had its verdict before" in found.reason for found in after.damage)
    assert all(found.verdict in before.verdicts for found in read_attempts(copy.run))


@pytest.mark.parametrize("left", [b"", None])
def test_a_finished_run_without_its_seal_is_no_run_to_trust(copy: Copy, left: bytes | None) -> None:
    (copy.run / "seals.jsonl").unlink()
    if left is not None:
        (copy.run / "seals.jsonl").write_bytes(left)
    assert "it is finished and has no seal" in copy.verify()


def test_a_page_that_was_edited_by_hand_is_named(copy: Copy) -> None:
    page = copy.run / "report.html"
    page.write_text(page.read_text().replace("</h1>", " (shown)</h1>", 1))
    assert "report.html is not what the records say" in copy.verify()


def test_the_text_in_a_run_s_folder_is_looked_at_like_its_page(copy: Copy) -> None:
    text = copy.run / "report.md"
    text.write_text(text.read_text().replace("| lora | ", "| lora | 9", 1))
    assert "report.md is not what the records say" in copy.verify()


def test_what_could_not_be_looked_at_is_counted_and_is_a_failure_where_that_is_asked(copy: Copy) -> None:
    """Adapters that are gone, a block that was taken out, a page of an earlier version."""
    shutil.rmtree(Path(copy.project.environment["LOOPER_HOME"]) / "adapters")
    (copy.project.folder / "docs" / "results" / "audited.md").unlink()
    page = copy.run / "report.html"
    page.write_text(page.read_text().replace('name="generator"', 'name="author"'))
    found = copy.project.looper("report", "--verify", "--strict")
    assert found.returncode == 1 and "3 things could not be checked" in found.stderr, found.stdout
    for said in (
        "docs/results/audited.md: there is no block of audited micro",
        " adapters are not here: ",
        "report.html: an earlier version of the code wrote it",
    ):
        assert said in found.stdout
    assert "0 findings, 3 not checked" in found.stdout


def test_a_seal_whose_hash_stands_elsewhere_cannot_be_made_anew(copy: Copy, tmp_path: Path) -> None:
    """In a file, and as a tag of a repository."""
    repository, notes = tmp_path / "repository", tmp_path / "signed.txt"
    for words in (
        ("init", "-q", str(repository)),
        ("-C", str(repository), "commit", "-q", "--allow-empty", "-mx"),
    ):
        who = ("-c", "user.name=x", "-c", "user.email=x@localhost")
        subprocess.run(["git", *who, *words], check=True)
    for key, value in (("user.name", "x"), ("user.email", "x@localhost")):
        subprocess.run(["git", "-C", str(repository), "config", key, value], check=True)
    for place in (notes, repository):
        signed = copy.project.looper("report", "--sign", str(place))
        assert signed.returncode == 0, signed.stderr
        assert all(f"looper-{part} {copy.run.name} " in signed.stdout for part in ("plan", "seal"))
        again = copy.project.looper("report", "--sign", str(place))
        assert all(f"{copy.run.name}: {part} signed before" in again.stdout for part in ("plan", "seal"))
        fits = copy.project.looper("report", "--verify", "--sign", str(place))
        assert fits.returncode == 0, fits.stdout
        assert "its plan was signed at " in fits.stdout and "after its first session began" in fits.stdout
    tamper().Copy(copy.run, copy.project.folder, Path(".")).change(Seal, lambda one: True, energy_j=1.0)
    for place in (notes, repository):
        found = copy.project.looper("report", "--verify", "--sign", str(place))
        assert found.returncode == 1 and "its seal is not the one of " in found.stdout, found.stdout
        assert "its plan is not the one of " not in found.stdout
    tamper().plan_changed(hypothesis="what came out")(tamper().Copy(copy.run, copy.project.folder, Path(".")))
    planned = copy.project.looper("report", "--verify", "--sign", str(notes))
    assert "its plan is not the one of " in planned.stdout, planned.stdout
    shutil.rmtree(copy.run)
    gone = copy.project.looper("report", "--verify", "--sign", str(notes))
    assert (
        gone.returncode == 0
        and f"not checked, {notes}: {copy.run.name} was signed and is not here" in gone.stdout
    )
    below = copy.project.looper("report", "--sign", str(copy.run.parent / "notes"))
    assert below.returncode == 2 and len(below.stderr.strip().splitlines()) == 1


def test_a_task_of_the_suite_that_was_damaged_is_one_line(copy: Copy) -> None:
    (tasks,) = (Path(copy.project.environment["LOOPER_HOME"]) / "suites").glob("micro-0-seed0-*/tasks.jsonl")
    tasks.write_text("{\n" + tasks.read_text())
    verified = copy.project.looper("report", "--verify", "--strict")
    assert verified.returncode == 1 and "tasks.jsonl is damaged: line 1 is no task" in verified.stdout
    for words in (("plan", "audited"), ("run", "audited"), ("bench", "list")):
        done = copy.project.looper(*words)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, (words, done.stderr)
        assert "tasks.jsonl is damaged: line 1 is no task" in done.stderr
