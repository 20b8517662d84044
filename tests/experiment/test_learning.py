"""A plan whose arms learn, through the command, with the embedded model. Guards G-06, G-10, G-12, G-32, G-40."""

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests import program
from tests.experiment.test_run import Project

from looper.cli.settings import settings
from looper.cli.training import TrainOptions, examples_of
from looper.journal import Stream, read_stream
from looper.memory.playbook import playbook
from looper.records.base import content_hash
from looper.records.memory import MemoryItem
from looper.records.plan import LateOverride, Metric
from looper.records.training import SelectionSettings
from looper.records.trajectory import Read, Step, Trajectory
from looper.records.treatment import GateStop, ProofKind, StoppingGate
from looper.views.questions import questions, to_rate
from looper.views.runs import RunView, read_run

PLAN = """
title = "Learning"
hypothesis = "What is learned reaches the model."
factor = "what the arm has learned"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "zero"
role = "control"
only_seeds = 1
learning = { treatment = "zero_adapter" }
[[arms]]
name = "lora"
role = "treatment"
learning = { treatment = "adapter" }
[[arms]]
name = "redrawn"
role = "control"
learning = { treatment = "adapter", source = "redrawn" }
[[arms]]
name = "noise"
role = "control"
learning = { treatment = "random_adapter" }
[[arms]]
name = "dpo"
role = "treatment"
learning = { treatment = "adapter", objective = "preference" }
[[arms]]
name = "memory"
role = "treatment"
learning = { treatment = "memory" }
[[arms]]
name = "on_open"
role = "treatment"
learning = { treatment = "memory", memory = { moment = "file_open" } }
[[arms]]
name = "ewc"
role = "treatment"
learning = { treatment = "adapter", strategy = { name = "anchored", anchor = { pull = "fisher", strength = 10.0 } } }
[[arms]]
name = "rounds"
role = "treatment"
learning = { treatment = "adapter", rounds = 2, memory = {} }
[[arms]]
name = "half"
role = "treatment"
learning = { treatment = "adapter", times = 0.5 }
[[arms]]
name = "overseen"
role = "treatment"
learning = { treatment = "oversight" }
[[arms]]
name = "guided"
role = "treatment"
learning = { treatment = "adapter", source = "guided" }
[[arms]]
name = "old"
role = "treatment"
learning = { treatment = "adapter", source = "stale_major", recovered = 1, training = { rank = 4 } }
[[arms]]
name = "still_overseen"
role = "treatment"
learning = { treatment = "adapter", source = "guided", overseen = true }
[[arms]]
name = "asked"
role = "treatment"
learning = { treatment = "adapter", format = "self_qa", pairs = 2 }
[[choices]]
name = "likeliest"
of = ["base", "lora"]
by = "likeliest"
[[choices]]
name = "checked"
of = ["base", "lora"]
by = "checked"
[[choices]]
name = "either"
of = ["base", "lora"]
by = "any"
[[contrasts]]
arm = "either"
against = "base"
expect = "not_more"
margin = "20 points"
shown = "A ceiling is higher by less than {margin}."
refuted = "A ceiling is higher by {margin} and more."
open = "That is open."
[[contrasts]]
arm = "lora"
against = "base"
expect = "same"
metric = "valid_actions"
margin = "20 points"
shown = "Valid actions are as frequent, within {margin}."
refuted = "Valid actions are not as frequent."
open = "That is open."
[[contrasts]]
arm = "lora"
against = "base"
through = ["half"]
metric = "action_log_likelihood"
shown = "The more of it, the likelier."
refuted = "The more of it, the less likely."
open = "That is open."
[[contrasts]]
arm = "overseen"
against = "still_overseen"
metric = "interventions"
shown = "Less is left to do."
refuted = "More is left to do."
open = "That is open."
[profiles.micro]
model = "nano"
overseer = "nano:small"
scaffold = "terse"
temperature = 0.7
seeds = [0]
order = "parallel"
[profiles.micro.tasks]
suite = "micro"
suite_seed = 6
per_repo = 4
limit = 4
[profiles.micro.limits]
steps = 6
output_tokens = 80
context_tokens = 2048
wall_s = 60.0
command_s = 20.0
verify_s = 60.0
[profiles.micro.experience]
per_repo = 8
samples = 2
temperature = 1.0
delivered = 0.25
[profiles.micro.experience.selection]
minimum_tasks = 2
[profiles.micro.experience.training]
multiplier = 10.0
learning_rate = 1e-4
iterations = 6
batch_size = 4
max_tokens = 512
"""
# No contrast is about most of these arms: each is there to be seen at work.
PLAN = re.sub(
    r'((?:role = "(?:control|treatment)"|by = "\w+")\n)', r'\1reason = "to be seen at work"\n', PLAN
)


def plan_of(*names: str, per_repo: int = 8) -> str:
    """The plan with some of its arms alone, so that less has to be gathered."""
    head, *arms = PLAN[: PLAN.index("[[choices]]")].split("[[arms]]\n")
    kept = [arm for arm in arms if arm.split('"')[1] in names]
    profile = PLAN[PLAN.index("[profiles.micro]\n") :].replace("per_repo = 8", f"per_repo = {per_repo}")
    return "[[arms]]\n".join([head, *kept]) + profile


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Project:
    found = Project(tmp_path, state)
    (tmp_path / "experiments" / "learn.toml").write_text(PLAN)
    return found


@pytest.fixture
def one_learner(project: Project) -> Project:
    """With base and the arms that are trained and told, and nothing gathered but base's own experience."""
    (project.folder / "experiments" / "learn.toml").write_text(plan_of("base", "lora", "memory", per_repo=6))
    return project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, state: Path) -> tuple[Project, RunView, str]:
    project = Project(tmp_path_factory.mktemp("learning"), state)
    (project.folder / "experiments" / "learn.toml").write_text(PLAN)
    ran = project.looper("run", "learn", "--workers", "6")
    assert ran.returncode == 0, ran.stderr
    return project, read_run(project.run), ran.stdout


def test_every_learning_arm_has_its_consolidation_and_its_proofs(
    finished: tuple[Project, RunView, str],
) -> None:
    _, run, shown = finished
    assert {found.arm for found in run.consolidations} == {
        "zero",
        "lora",
        "redrawn",
        "noise",
        "dpo",
        "memory",
        "on_open",
        "ewc",
        "rounds",
        "half",
        "overseen",
        "guided",
        "old",
        "still_overseen",
        "asked",
    }
    more = {"dpo", "old"}  # Pairs only; and successes of its own after those of its source.
    used = {found.used for found in run.consolidations if found.arm not in more and found.round == 1}
    assert len(used) == 1 and max(used) >= 2, "every arm learns from the same number of successes"
    pairs = next(found.used for found in run.consolidations if found.arm == "dpo")
    assert 1 <= pairs <= max(used), "only tasks that were both resolved and failed make pairs"
    adapters = {found.arm: found.adapter for found in run.consolidations if found.adapter}
    assert len(set(adapters.values())) == 11, "arms that learn the same share what was made"
    kinds = {(proof.arm, proof.kind) for proof in run.proofs}
    assert ("base", ProofKind.CONTEXT) in kinds and ("zero", ProofKind.ZERO_IS_BASE) in kinds
    assert {
        ("lora", kind) for kind in (ProofKind.ADAPTER_ARRIVED, ProofKind.VALID_ACTIONS, ProofKind.ACTION_GATE)
    } <= kinds
    assert ("memory", ProofKind.MEMORY_DELIVERED) in kinds
    keys = [found.key for found in run.consolidations]
    assert len(set(keys)) == len(keys), "nothing is learned twice"
    assert run.finished == run.planned
    assert "control zero must make base's patch in every cell: 4 of 4, does" in shown
    assert "redrawn − base (control, exploratory)" in shown


def test_an_overseer_has_the_memory_and_the_agent_has_not(finished: tuple[Project, RunView, str]) -> None:
    """What it changed is marked in its steps, and the successes that it guided are learned from like any other."""
    project, run, _ = finished
    proven = next(
        found for found in run.proofs if (found.kind, found.arm) == (ProofKind.MEMORY_DELIVERED, "overseen")
    )
    listed = project.looper("memory", "list").stdout
    assert f"overseen: 4 rollouts; its overseer is told, not the agent: {proven.said}\n" in listed
    told = [end for end in run.trajectories if end.arm == "overseen"]
    assert told and not any(end.memory or end.memory_tokens for end in told)
    assert next(found for found in run.consolidations if found.arm == "overseen").items
    steps = list(read_stream(run.folder, "steps", Step))
    assert any(
        step.reply.overseen for step in steps if step.cell.startswith(("overseen/", "experience_guided"))
    )
    overseen = ("overseen/", "still_overseen/", "experience_guided")
    others = [step for step in steps if not step.cell.startswith(overseen)]
    assert others and not any(step.reply.overseen for step in others)
    source = next(found for found in run.consolidations if found.arm == "guided")
    assert source.selection.tasks and source.used


def test_an_overseer_can_be_another_model_whose_version_is_on_record(
    finished: tuple[Project, RunView, str],
) -> None:
    _, run, shown = finished
    models = run.manifest.models
    assert models["overseen, overseer"].name == "nano small" and models["overseen"].name == "nano"
    assert models["overseen, overseer"].digest != models["overseen"].digest
    assert "overseen − still_overseen" in shown and "points of interventions" in shown
    rates = run.measured("overseen", Metric.INTERVENTIONS)
    assert len(rates) == 4 and any(rates.values()) and max(rates.values()) <= 1


def test_choosers_see_what_base_finds_likely_and_what_the_agent_checked(
    finished: tuple[Project, RunView, str],
) -> None:
    """The likelihood of an attempt is of base, whoever made it: as likely, where equal arms did the same."""
    _, run, _ = finished
    found = {each.cell: each.log_likelihood for each in run.attempt_likelihoods}
    assert {cell.partition("/")[0] for cell in found} == {"base", "lora"} and len(found) == 8
    assert all(value < 0 for value in found.values())
    base, lora = run.outcomes("base"), run.outcomes("lora")
    for where, taken in run.outcomes("likeliest").items():
        better = lora if found[f"lora/{where}"] > found[f"base/{where}"] else base
        patches = {end.cell: end.patch for end in run.trajectories}
        if patches[f"lora/{where}"] and patches[f"base/{where}"]:
            assert taken == better[where]
    assert run.outcomes("checked").keys() == base.keys()
    unmeasured = replace(run, attempt_likelihoods=())
    assert not unmeasured.outcomes("likeliest"), "what was not measured chooses nothing"


def test_answers_to_train_on_are_held_against_the_records_and_rated_by_people(
    finished: tuple[Project, RunView, str], tmp_path: Path
) -> None:
    project, run, shown = finished
    (line,) = [each for each in shown.splitlines() if each.startswith("asked: ") and "questions" in each]
    answered = list(questions(run.folder).values())
    used = next(each.used for each in run.consolidations if each.arm == "asked")
    assert (
        len(answered) == 2 * used
        and f"{len(answered)} questions about {used} successes, 2.0 for each" in line
    )
    assert all(each.supported == (each.key in each.answer) for each in answered if " " not in each.key)
    copy = tmp_path / "runs" / run.folder.name
    shutil.copytree(run.folder, copy)

    def looper(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        variables = {**project.environment, "LOOPER_RUNS": str(tmp_path / "runs")}
        return program.looper(*arguments, cwd=tmp_path, env=variables, typed=typed)

    said = looper("questions", "--rate", "asked", "--by", "me", "--count", "3", typed="yes\nno\nquit\n")
    assert "me calls 1 of 2 noise" in said.stdout and "kappa" in said.stdout
    assert len(to_rate(copy, "asked", "me", 3)) == 1, "the next call goes on with what is left"
    refused = looper("questions", "--rate", "lora")
    assert refused.returncode == 2 and "no answers were given for an arm lora" in refused.stderr
    assert looper("report", "--verify").returncode == 0, "what people say later is no tampering"


def test_g12_the_zero_adapter_arm_repeats_base_step_by_step(finished: tuple[Project, RunView, str]) -> None:
    project, run, _ = finished
    assert run.same_as_base("zero") == (4, 4)
    ends = {end.cell: end for end in read_stream(project.run, "trajectories", Trajectory)}
    for task in run.tasks:
        zero, base = ends[f"zero/0/{task}"], ends[f"base/0/{task}"]
        assert (zero.steps, zero.completion_tokens) == (base.steps, base.completion_tokens)
        assert zero.model.adapter and not base.model.adapter


def test_g40_what_was_learned_from_is_never_evaluated(finished: tuple[Project, RunView, str]) -> None:
    project, run, _ = finished
    learned = {task for tasks in run.manifest.experience_tasks.values() for task in tasks}
    assert learned and not learned & set(run.tasks)
    adapters = Path(project.environment["LOOPER_HOME"]) / "adapters"
    for found in run.consolidations:
        if found.adapter:
            card = json.loads((adapters / found.adapter / "adapter.json").read_text())
            assert set(card["tasks"]) <= learned
    items = list(read_stream(project.run, "memory", MemoryItem))
    assert items and {item.instance_id for item in items} <= learned


def test_memory_that_was_delivered_stands_in_the_record(finished: tuple[Project, RunView, str]) -> None:
    project, run, _ = finished
    ends = [end for end in read_stream(project.run, "trajectories", Trajectory) if end.arm == "memory"]
    known = {item.id for item in read_stream(project.run, "memory", MemoryItem)}
    given = [end for end in ends if end.memory]
    proof = next(found for found in run.proofs if found.kind is ProofKind.MEMORY_DELIVERED)
    assert proof.said == f"{len(given)} of {len(ends)} tasks are told something"
    assert given and all(set(end.memory) <= known for end in given)
    base = {
        end.instance_id: end.prompt_hash
        for end in read_stream(project.run, "trajectories", Trajectory)
        if end.arm == "base"
    }
    assert all((end.prompt_hash != base[end.instance_id]) == bool(end.memory) for end in ends)


def test_a_second_round_learns_from_what_the_first_did(finished: tuple[Project, RunView, str]) -> None:
    _, run, _ = finished
    first, second = sorted(
        (found for found in run.consolidations if found.arm == "rounds"), key=lambda found: found.round
    )
    assert second.selection.seen == 2 * first.selection.seen and first.adapter != second.adapter
    ends = [end for end in run.trajectories if end.arm.startswith("experience_rounds_2")]
    plain = [end for end in run.trajectories if end.arm.startswith("experience_own")]
    assert len(ends) == len(plain) == 16
    assert all(end.model.adapter for end in ends) and not any(end.model.adapter for end in plain)
    evaluated = [end for end in run.trajectories if end.arm == "rounds"]
    assert {end.model.adapter for end in evaluated}.isdisjoint({end.model.adapter for end in ends})
    assert any(end.memory for end in evaluated), "an adapter and a memory at once"


def test_what_memory_gave_can_be_asked_and_taken_back(finished: tuple[Project, RunView, str]) -> None:
    project, run, _ = finished
    listed = project.looper("memory", "list")
    assert listed.returncode == 0, listed.stderr
    told = [end for end in run.trajectories if end.arm == "memory" and end.memory]
    assert re.search(
        rf"memory: 4 rollouts, \d with items, {len(told)} told, 1.0 items, \d+ tokens, \d wrote the code of one",
        listed.stdout,
    )
    item = told[0].memory[0]
    why = project.looper("memory", "why", item[:10])
    assert (
        f"{told[0].cell}: " in why.stdout
        and "made of experience_own_" in why.stdout
        and ", resolved" in why.stdout
    )
    back = project.looper("memory", "revert", item, "--reason", "a test")
    assert back.returncode == 0 and "told no more" in back.stdout and "the run is finished" in back.stdout
    assert "told no more: a test" in project.looper("memory", "why", item).stdout
    for wanted, named in ((item, "no more already"), ("xyz", "No memory item begins")):
        refused = project.looper("memory", "revert", wanted, "--reason", "again")
        assert refused.returncode == 2 and named in refused.stderr and "Traceback" not in refused.stderr


def test_an_item_that_was_taken_back_is_told_no_more(one_learner: Project) -> None:
    project = one_learner
    assert project.looper("run", "learn", "--arm", "memory", "--arm", "base").returncode == 0
    told = [end for end in read_run(project.run).trajectories if end.arm == "memory" and end.memory]
    item, cell = told[0].memory[0], told[0].cell
    assert project.looper("memory", "revert", item, "--reason", "a test").returncode == 0
    for name in ("verdicts.jsonl", "trajectories.jsonl", "steps.jsonl"):
        lines = (project.run / name).read_bytes().splitlines(keepends=True)
        (project.run / name).write_bytes(b"".join(line for line in lines if cell.encode() not in line))
    assert project.looper("run", "learn", "--arm", "memory", "--arm", "base").returncode == 0
    again = next(end for end in read_run(project.run).trajectories if end.cell == cell)
    assert item not in again.memory


def test_memory_that_comes_with_an_opened_file_stands_in_its_step(
    finished: tuple[Project, RunView, str],
) -> None:
    project, run, _ = finished
    ends = {end.cell: end for end in run.trajectories if end.arm == "on_open"}
    steps = [step for step in read_stream(project.run, "steps", Step) if step.cell in ends]
    told = [step for step in steps if step.memory]
    assert told and all(isinstance(step.action, Read) and "memory" in step.observation.text for step in told)
    assert all(step.memory == ends[step.cell].memory for step in told)
    base = {end.instance_id: end.prompt_hash for end in run.trajectories if end.arm == "base"}
    assert all(end.prompt_hash == base[end.instance_id] for end in ends.values())


def test_a_report_is_written_into_the_folder_of_its_run_and_nowhere_else(
    finished: tuple[Project, RunView, str],
) -> None:
    project, run, _ = finished
    before = {path: path.read_bytes() for path in project.folder.rglob("*.md")}
    for words in (("report",), ("report", "learn"), ("report", run.folder.name)):
        done = project.looper(*words)
        assert done.stdout == f"learn micro: {run.folder / 'report.html'} and report.md\n", done.stderr
    text = (run.folder / "report.md").read_text()
    assert "\n# learn: Learning\n\n" in text and "| lora | " in text
    after = {path: path.read_bytes() for path in project.folder.rglob("*.md")}
    assert after.keys() - before.keys() <= {run.folder / "report.md"}
    assert all(after[path] == content for path, content in before.items() if path.parent != run.folder)
    refused = project.looper("report", "exp77")
    assert refused.returncode == 2 and 'There is no run "exp77"' in refused.stderr


def test_a_report_is_written_to_a_page_of_its_experiment_where_a_folder_is_named_and_again_the_same(
    finished: tuple[Project, RunView, str],
) -> None:
    project, run, _ = finished
    page = project.folder / "docs" / "results" / "learn.md"
    first = project.looper("report", "learn", "--results", "docs/results")
    assert first.returncode == 0 and first.stdout.splitlines() == [
        f"learn micro: {run.folder.name}, in docs/results/learn.md",
        f"learn micro: {run.folder / 'report.html'} and report.md",
    ], first.stderr
    text = page.read_text()
    asked = " ".join(run.manifest.plan.hypothesis.split())
    assert text.startswith(
        f"# learn: Learning\n\nHypothesis: {asked}\n\n<!-- looper report learn micro -->\n"
    )
    assert "| lora | " in text and "- control zero must make base's patch in every cell: 4 of 4, does" in text
    page.write_text(text.replace("| lora | ", "| lora | 99/4 ") + "\nMore of mine.\n")
    assert project.looper("report", "--results", "docs/results").returncode == 0
    assert page.read_text() == text + "\nMore of mine.\n", (
        "what was written by hand inside is gone, outside it stays"
    )
    both = project.looper("report", "learn", "--results", "docs/results", "--file", "mine.md")
    assert both.returncode == 2 and "leave one of them out" in both.stderr
    nothing = project.looper("report", "--results", "docs/others")
    assert nothing.returncode == 2 and "looper report exp00 --results docs/others" in nothing.stderr


def test_a_report_into_a_file_that_a_person_names_leaves_the_rest_of_it_alone(
    finished: tuple[Project, RunView, str],
) -> None:
    project, _, _ = finished
    file = project.folder / "mine.md"
    file.write_text("# Mine\n\nMy own words.\n")
    assert project.looper("report", "learn", "--file", "mine.md").returncode == 0
    text = file.read_text()
    assert text.startswith(
        "# Mine\n\nMy own words.\n\n## learn: Learning\n\n<!-- looper report learn micro -->"
    )
    again = project.looper("report", "--file", "mine.md")
    assert again.returncode == 0 and file.read_text() == text


def test_memory_adapters_and_questions_are_had_as_json(finished: tuple[Project, RunView, str]) -> None:
    project, run, _ = finished

    def told(*words: str) -> dict[str, Any]:
        done = project.looper(*words, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    memory = told("memory", "list")
    use = next(one for one in memory["told"] if one["arm"] == "memory" and one["items"])
    why = told("memory", "why", use["items"][0])
    assert why["item"]["id"] == use["items"][0] and use["cell"] in [one["cell"] for one in why["told"]]
    (arm,) = told("lineage", "why", "--arm", "lora")["arms"]
    adapters = {found["adapter"] for found in arm["consolidations"]}
    assert {*arm["adapters"]} == adapters and all(card["train_examples"] for card in arm["adapters"].values())
    assert adapters <= {card["id"] for card in told("adapter", "list")["adapters"]}
    cell = next(end.cell for end in run.trajectories if end.arm == "memory" and end.memory)
    prompt = told("show", cell)["prompt"]
    assert prompt["note"] == "" and "memory" in prompt["messages"][-1][1], (
        "as the model was asked, memory and all"
    )


def test_adapters_are_listed_and_handed_on(finished: tuple[Project, RunView, str], tmp_path: Path) -> None:
    project, run, _ = finished
    adapters = Path(project.environment["LOOPER_HOME"]) / "adapters"
    (adapters / ".work-half").mkdir()
    (adapters / ".work-half" / "adapter.json").write_text("half")
    listed = project.looper("adapter", "list")
    made = {name for found in run.consolidations for name in found.made}
    names = {line.split()[0] for line in listed.stdout.splitlines()}
    assert listed.returncode == 0 and made <= names and not any("half" in name for name in names)
    served = {
        made.adapter
        for cell in run.cells("lora")
        for made in run.consolidations
        if made.arm == "lora" and f"── with adapter {made.adapter} ──" in project.looper("show", cell).stdout
    }
    assert served and served <= names
    assert all(
        f"adapter {name}" in project.looper("lineage", "why", "--arm", "lora").stdout for name in served
    )
    lora = next(found.adapter for found in run.consolidations if found.arm == "lora")
    out = project.looper("adapter", "export", lora[:12], str(tmp_path / "peft"))
    assert out.returncode == 0 and (tmp_path / "peft" / "adapter_model.safetensors").is_file()
    back = project.looper("adapter", "import", str(tmp_path / "peft"))
    assert back.returncode == 2 and "there already" in back.stderr
    for words in (["export", "zz", "x"], ["export", "", "x"], ["import", str(tmp_path)]):
        refused = project.looper("adapter", *words)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr


def test_what_is_trained_on_is_shown_in_the_windows_that_a_training_reads(
    finished: tuple[Project, RunView, str],
) -> None:
    project, run, _ = finished

    def shown(*options: str) -> str:
        asked = ("train", run.folder.name, "--show-mask", "--minimum-tasks", "1", "--arm", "experience_own_1")
        done = project.looper(*asked, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def counts(text: str, said: str) -> int:
        return sum(int(number) for number in re.findall(rf"^(?:── .*: )?(\d+) {said}", text, re.MULTILINE))

    whole, cut, short = shown(), shown("--max-tokens", "100"), shown("--max-tokens", "30")
    taught = counts(whole, r"turns? trained on")
    # Into a pipe there is no colour.
    assert whole.startswith("what is trained on stands on lines that begin with: trained on │\n")
    assert len(re.findall(r"^trained on │ ", whole, re.MULTILINE)) >= taught
    assert "part 1 of" not in whole and "part 1 of 2" in cut
    assert counts(cut, r"turns? trained on") + counts(cut, r"actions? left out") == taught
    assert counts(short, r"turns? trained on") < taught
    assert "left out, longer than --max-tokens 30 with the opening" in short
    aside = shown("--validation-share", "0.5")
    kept = counts(aside, r"turns? kept aside for validation, not trained on")
    assert kept and kept + counts(aside, r"turns? trained on") == taught


def test_what_is_trained_on_by_hand_is_said_before_and_stands_in_the_record(
    finished: tuple[Project, RunView, str],
) -> None:
    """Successes at redrawn tasks, too, where nobody names arms; and what the run's own arms are trained with."""
    project, run, _ = finished
    settings = ("--minimum-tasks", "1", "--iterations", "2", "--batch-size", "2", "--max-tokens", "512")
    done = project.looper("train", run.folder.name, *settings)
    assert done.returncode == 0, done.stderr
    told = next(line for line in done.stderr.splitlines() if line.startswith("examples: "))
    taken = re.search(r": \d+ attempts?, (\d+) taken", done.stderr)
    kinds = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+) \(", told)}
    assert {"own", "redrawn", "guided", "stale_major"} >= kinds.keys() >= {"own", "redrawn"}
    assert taken is not None and sum(kinds.values()) == int(taken[1])
    assert re.search(r"for one alone: --arm experience_\w+", done.stderr)
    assert "training: kind lora, rank 8, multiplier (alpha / rank) 10, " in done.stderr, "as the plan has it"
    assert re.search(r"; the run's plan has iterations \d+, batch_size \d+", done.stderr)
    folder, made_of, *_ = done.stdout.splitlines()
    assert made_of == told.replace("examples: ", "made of ")
    name = Path(folder).name
    *_, way = done.stdout.splitlines()
    assert folder.startswith(f"adapter {name}: ") and way.endswith(f"looper plan PLAN --adapter {name}")
    assert re.search(r"^trained on \d+ tasks? of \w+: \S+", done.stdout, re.MULTILINE)
    listed = project.looper("adapter", "list").stdout.splitlines()
    mine = next(line for line in listed if line.startswith(name))
    assert f", from {run.folder.name} (experience_" in mine
    assert re.search(r"  20\d\d-\d\d-\d\d \d\d:\d\d UTC  trained by hand lora of rank \d+ on ", mine)
    assert mine.count("trained by hand") == 1 and re.search(r", trained on \d+ tasks?, ", mine)
    lora = next(found.adapter for found in run.consolidations if found.arm == "lora")
    of_the_run = next(line for line in listed if line.startswith(lora))
    assert re.search(rf"\blora\b.* of {run.folder.name}", of_the_run)
    origins = json.loads(project.looper("adapter", "list", "--json").stdout)["origins"]
    named = {one["run"]: one["arms"] for one in origins[lora]["runs"]}
    assert "lora" in named[run.folder.name] and origins[name]["written"].endswith("+00:00")


def test_a_plan_is_foretold_from_the_run_that_is_there(
    finished: tuple[Project, RunView, str], project: Project
) -> None:
    known, run, _ = finished
    told = known.looper("plan", "learn").stdout
    assert re.search(
        r"time: about [\d.]+ (s|min) \([\d.]+ (s|min) to [\d.]+ (s|min|h), 95 %\) .* s a cell with its tests, mean of \d+ cells of \d+ arms in "
        rf"{run.folder.name}.*; starting, training, checks of adapters and likelihoods come on top",
        told,
    )
    assert re.search(r"tokens: about [\d.]+ [kM] \([\d.]+ [kM] to [\d.]+ [kM]\), at \d+ a cell", told)
    gathering = 8 * 2 * 5  # Own, redrawn, of an older state, under an overseer, and before a second round.
    assert f"cells: 64 (4 tasks, 16 arms, 1 seed) and {gathering} to gather experience" in told
    unknown = project.looper("plan", "learn").stdout
    assert "arm overseen: oversight, overseer nano:small, memory lessons (" in unknown
    assert (
        "time: not measured" in unknown
        and "no difference is shown in 80 % of runs, if equal arms differ in 30 % of cells" in unknown
    )
    refused = project.looper("plan", "exp77")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr


def test_a_finished_learning_run_does_nothing_again(finished: tuple[Project, RunView, str]) -> None:
    project, run, shown = finished
    again = project.looper("run", "learn")
    assert again.returncode == 0 and again.stdout == shown
    assert len(read_run(project.run).verdicts) == len(run.verdicts)


def test_g10_too_few_successes_train_nothing_and_what_was_gathered_stays(project: Project) -> None:
    """Enough tasks to learn from, so that the plan may begin, and some of them resolved, but too few."""
    plan = project.folder / "experiments" / "learn.toml"
    plan.write_text(plan_of("base", "lora", per_repo=6).replace("minimum_tasks = 2", "minimum_tasks = 6"))
    refused = project.looper("run", "learn", "--arm", "lora")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert re.search(r"has [1-5] resolved training tasks with seed 0, and the plan wants 6", refused.stderr)
    assert "--override data" in refused.stderr
    assert len(project.verdicts()) == 6 * 2, "six tasks, two samples"
    (told,) = json.loads(project.looper("status", "--json").stdout)["runs"]
    (held,) = told["stopped_by"]
    assert re.match(
        r"Stopped by the gate data of lora: \S+ has [1-5] resolved training tasks with seed 0, and 6 are the least",
        held,
    )
    assert "lower experience.selection.minimum_tasks to" in held
    name = project.run.name
    assert told["goes_on_with"] == f"looper run learn --profile micro --run {name} --arm base"
    assert told["passes_over_with"] == f'looper run learn --profile micro --run {name} --override data="…"'
    on = shlex.split(told["passes_over_with"].removeprefix("looper ").replace("…", "a pilot"))
    assert project.looper(*on).returncode == 0
    run = read_run(project.run)
    assert run.finished == run.planned and not run.stopped_by and run.folder.name == name


def test_p6_a_run_that_gathered_with_the_gold_patch_alone_can_be_trained_on(
    project: Project, state: Path
) -> None:
    told = '[[arms]]\nname = "told"\nrole = "treatment"\nlearning = { treatment = "memory", source = "gold", memory = { items = 1, bytes = 40 } }\n'
    text = plan_of("base", per_repo=3).replace("[profiles.micro]\n", f"{told}[profiles.micro]\n", 1)
    (project.folder / "experiments" / "learn.toml").write_text(text)
    # The memory has nothing to say, so that the run stops before its tasks: what was gathered stays.
    project.looper("run", "learn")
    selection = SelectionSettings(minimum_tasks=3)
    here = replace(settings(), state=state, runs=project.folder / "runs")
    examples, found = examples_of(TrainOptions(project.run, (), None, selection, {}), here)
    assert found.taken == len(examples) == 3 and all("experience_gold_1/" in each.source for each in examples)
    shown = ("train", "--show-mask", "--minimum-tasks")
    assert "unfinished" not in project.looper(*shown, "3").stderr, "its evaluation alone has not begun"
    assert project.looper("train", "--show-mask").returncode == 0, "two are enough by its plan"
    # As where the run was stopped while it gathered.
    verdicts = project.run / "verdicts.jsonl"
    verdicts.write_bytes(b"".join(verdicts.read_bytes().splitlines(keepends=True)[:-1]))
    asked = f"{project.run.name} is unfinished: 1 of 3 cells to learn from have no end yet. Go on with it first: looper run learn"
    some, few = project.looper(*shown, "2"), project.looper(*shown, "3")
    assert some.returncode == 0 and asked in some.stderr
    assert few.returncode == 2 and asked in few.stderr and len(few.stderr.strip().splitlines()) == 1
    exported = project.looper("export", "--format", "sft")
    assert exported.returncode == 0 and asked in exported.stderr


def test_p1_more_tasks_than_there_are_to_learn_from_are_not_waited_for(project: Project) -> None:
    plan = project.folder / "experiments" / "learn.toml"
    text = plan_of("base", "lora", per_repo=3).replace("minimum_tasks = 2", "minimum_tasks = 17")
    plan.write_text(text)
    line = text.splitlines().index("minimum_tasks = 17") + 1
    refused = project.looper("run", "learn")
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    said = f"learn.toml:{line}:1: experience.selection.minimum_tasks: 17 resolved tasks of each repository"
    assert said in refused.stderr and "has 3 (of 3 set aside) to learn from" in refused.stderr
    assert not list((project.folder / "runs").glob("learn-*"))


def test_a_memory_that_could_not_be_like_enough_tasks_is_refused_before_anything_is_gathered(
    project: Project,
) -> None:
    plan = project.folder / "experiments" / "learn.toml"
    # A suite of which not every issue is like another one's.
    text = plan_of("base", "memory", per_repo=6).replace("suite_seed = 6", "suite_seed = 0")
    plan.write_text(text.replace("delivered = 0.25", "delivered = 0.9"))
    for command in ("plan", "run"):
        refused = project.looper(command, "learn")
        said = refused.stderr.strip()
        assert refused.returncode == 2 and len(said.splitlines()) == 1, said
        found = re.search(
            r"experience\.delivered: memory has to be told something at 90 % of its tasks, and (\d) of 4 have an issue like one of the "
            r"6 that are learned from.* \(experience\.per_repo, now 6\), lower it to ([\d.]+) or less",
            said,
        )
        assert found is not None and float(found[2]) == int(found[1]) / 4
    assert not list((project.folder / "runs").glob("learn-*"))
    plan.write_text(text.replace("delivered = 0.25", f"delivered = {found[2]}"))
    passed = project.looper("plan", "learn")
    assert passed.returncode == 0, passed.stderr
    assert re.search(
        rf"gates: memory has to be told something at \d of 4 tasks, or the run stops before it; it can be at {found[1]} if every task",
        passed.stdout,
    )


def test_a_memory_that_says_nothing_stops_the_run_with_a_command_that_goes_on_without_it(
    project: Project,
) -> None:
    """Here because nothing of it is as short as the arms want it. All such arms are named at once, or the next would stop it again."""
    told = "".join(
        f'[[arms]]\nname = "{name}"\nrole = "treatment"\nlearning = {{ treatment = "memory", source = "gold", memory = {{ items = 1, bytes = {size} }} }}\n'
        for name, size in (("told", 40), ("told_more", 41))
    )
    text = plan_of("base", per_repo=6).replace("[profiles.micro]\n", f"{told}[profiles.micro]\n", 1)
    (project.folder / "experiments" / "learn.toml").write_text(text)
    stopped = project.looper("run", "learn")
    *_, way, error = stopped.stderr.strip().splitlines()
    assert stopped.returncode == 69
    assert error.startswith(
        "looper: told: its memory has something to say to 0 of 4 tasks; told_more: its memory has something to say to 0 of 4 tasks; to the "
        "others these arms"
    ), error
    assert "--override" not in stopped.stderr, "what is told nothing at all is base, whatever the reason"
    assert "experience.per_repo" in error and "that is another plan, and a new run" in error
    start, command = way.split(" go on with: looper ")
    assert start == "The other arms" and "The same command would stop here again" in stopped.stderr
    (told_of,) = json.loads(project.looper("status", "--json").stdout)["runs"]
    assert told_of["passes_over_with"] is None and told_of["goes_on_with"].endswith(" --arm base")
    (held,) = told_of["stopped_by"]
    assert held.startswith("Stopped by the gate memory delivered of told, told_more: 0 of 4 tasks told")
    went_on = project.looper(*shlex.split(command))
    assert went_on.returncode == 0, went_on.stderr
    run = read_run(project.run)
    assert len([found for found in run.verdicts if found.cell.startswith("base/")]) == 4
    (told_of,) = json.loads(project.looper("status", "--json").stdout)["runs"]
    assert told_of["goes_on_with"] is None and told_of["stopped_by"] == [held], (
        "nothing but what is held up is left"
    )


HALF_TOLD = (
    plan_of("base", "memory", per_repo=6)
    .replace("suite_seed = 6", "suite_seed = 0")
    .replace("delivered = 0.25", "delivered = 0.5")
    .replace("per_repo = 4\nlimit = 4", "per_repo = 8\nlimit = 8")
)
"""The memory can be told at 4 of 8 tasks, and is at fewer with what the embedded model resolves."""


def test_a_gate_that_stopped_a_run_is_named_by_every_view_until_it_is_passed_over_with_what_was_gathered(
    project: Project,
) -> None:
    (project.folder / "experiments" / "learn.toml").write_text(HALF_TOLD)
    for _ in range(2):  # Who goes on with it asks the gate again.
        stopped = project.looper("run", "learn")
        assert stopped.returncode == 69 and '--override memory="…"' in stopped.stderr, stopped.stderr
    stops = list(read_stream(project.run, "gate_stops", GateStop))
    assert len(stops) == 2 and {(one.gate, one.arm) for one in stops} == {
        (StoppingGate.MEMORY_DELIVERED, "memory")
    }
    value, least = stops[0].value, stops[0].least
    assert value is not None and 0 < value < 0.5 == least and stops[0].at
    name, gathered = project.run.name, len(project.verdicts())
    held = f"Stopped by the gate memory delivered of memory: {round(8 * value)} of 8 tasks told something, and 50 % are the least"
    over = f'looper run learn --profile micro --run {name} --override memory="…"'
    for words in (("status",), ("runs", "show"), ("watch", "--once")):
        shown = " ".join(project.looper(*words).stdout.split())
        assert held in shown, (words, shown)
        assert f"pass it over with: {over}" in shown and f"--run {name} --arm base" in shown
    foretold = project.looper("plan", "learn", "--profile", "micro").stdout
    assert re.search(
        rf"\d+ of 12 attempts at the 6 tasks to learn from succeeded in {name}, which a gate stopped: it will probably fail",
        foretold,
    ), foretold
    lineage = project.looper("lineage", "why").stdout
    assert held in lineage
    project.looper("report")
    assert (
        held in (project.run / "report.md").read_text() and held in (project.run / "report.html").read_text()
    )
    said = project.looper("report", "--verify").stdout
    assert f"{name}: {gathered} verdicts" in said and ", nothing wrong" in said
    # A gate that was met cannot have stopped anything.
    kept = (project.run / "gate_stops.jsonl").read_bytes()
    (project.run / "gate_stops.jsonl").unlink()
    stream = Stream(project.run, "gate_stops", GateStop)
    stream.append(stops[0].model_copy(update={"value": 0.75}))
    stream.append(stops[0].model_copy(update={"least": 0.4}))
    for other in (
        {"arm": "base"},
        {"seed": 0},
        {"said": "none of 8 tasks told something"},
        {"gate": StoppingGate.CONTEXT},
        {"at": "later"},
    ):
        stream.append(stops[0].model_copy(update=other))
    stream.close()
    said = project.looper("report", "--verify").stdout
    for finding in (
        "gates that stopped a run, and were met: memory_delivered of memory",
        "gates that stopped a run at another threshold than the plan's",
        "gates that stopped an arm that does not have them: memory_delivered of base",
        "gates that stopped at something else than they look at: memory_delivered of memory",
        "with figures of what has none, or other words than figures: memory_delivered of memory",
        "context of memory",
        "times that have not come yet, or are none: stop of memory by the gate memory_delivered",
    ):
        assert finding in said, finding
    (project.run / "gate_stops.jsonl").write_bytes(kept)
    # Only what stopped this run is passed over later; the same words would else begin a run of their own.
    other = project.looper("run", "learn", "--run", name, "--override", "data=why not")
    assert other.returncode == 2 and "overrides" in other.stderr
    passed = project.looper(*shlex.split(over.removeprefix("looper ").replace("…", "to see it")))
    assert passed.returncode == 0 and "the gate memory is overridden" in passed.stderr, passed.stderr
    run = read_run(project.run)
    assert run.finished == run.planned == gathered + 16 and not run.stopped_by
    assert project.run.name == name and [found.reason for found in run.overrides] == ["to see it"]
    assert run.failed_arms == {}
    assert "overridden: to see it" in passed.stdout and held not in project.looper("status").stdout
    project.looper("report")
    assert "The gate memory was overridden: to see it." in (project.run / "report.md").read_text()
    assert "the gate memory was passed over: to see it" in (project.run / "report.html").read_text()
    assert ", nothing wrong" in project.looper("report", "--verify").stdout
    again = project.looper("run", "learn")
    assert again.returncode == 0 and len(read_run(project.run).verdicts) == run.finished
    assert (project.run / "gate_stops.jsonl").read_bytes() == kept
    (project.run / "gate_stops.jsonl").unlink()
    late = project.run / "late_overrides.jsonl"
    (passed_over,) = read_stream(project.run, "late_overrides", LateOverride)
    late.unlink()
    others = Stream(project.run, "late_overrides", LateOverride)
    others.append(
        passed_over.model_copy(update={"reason": "it was foretold", "at": "2020-01-01T00:00:00+00:00"})
    )
    others.close()
    said = project.looper("report", "--verify").stdout
    assert "gates that were passed over later, and had not stopped the run: memory" in said
    assert "gates that were passed over for another reason than was given: memory" in said


def test_a_gate_is_passed_over_for_a_reason_that_stands_in_the_record(project: Project) -> None:
    plan = project.folder / "experiments" / "learn.toml"
    plan.write_text(plan_of("base", "lora", per_repo=3).replace("minimum_tasks = 2", "minimum_tasks = 17"))
    for wrong in ("data", "data=", "speed=why not"):
        refused = project.looper("run", "learn", "--override", wrong)
        assert refused.returncode == 2 and "Gates: data" in refused.stderr
    stopped = project.looper("run", "learn", "--arm", "lora", "--limit", "1")
    assert stopped.returncode == 2 and "experience.selection.minimum_tasks" in stopped.stderr
    ran = project.looper("run", "learn", "--arm", "lora", "--limit", "1", "--override", "data=a pilot")
    assert ran.returncode == 0 and "the gate data is overridden" in ran.stderr
    assert [found.reason for found in read_run(project.run).manifest.overrides] == ["a pilot"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (
            'role = "treatment"\n',
            'role = "treatment"\ntemperature = 0.1\n',
            "differ from base in its learning only",
        ),
        ('name = "lora"\n', 'name = "lora"\nlimits = { output_tokens = 512 }\n', "in its learning only"),
        ("[profiles.micro.experience.training]", "[profiles.micro.experience.trainng]", "unknown key"),
        ('treatment = "adapter" }', 'treatment = "adaptor" }', "learning"),
        ('model = "nano"', 'model = "ollama:x@http://127.0.0.1:9"', "127.0.0.1"),
        ('source = "redrawn"', 'source = "own"', "two arms learn the same"),
    ],
    ids=[
        "a second difference",
        "limits of its own",
        "misspelt table",
        "misspelt treatment",
        "no server",
        "the same twice",
    ],
)
def test_g32_a_plan_that_cannot_mean_what_it_says_is_refused_in_one_line(
    old: str, new: str, named: str, project: Project
) -> None:
    (project.folder / "experiments" / "learn.toml").write_text(PLAN.replace(old, new, 1))
    refused = project.looper("run", "learn")
    assert refused.returncode in (2, 69) and named in refused.stderr and "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arm, refused", [("redrawn", ""), ("old", "stale_major experience exists for level 0")]
)
def test_redrawn_conventions_exist_of_every_level_and_older_states_of_level_0(
    project: Project, arm: str, refused: str
) -> None:
    of_level_1 = plan_of("base", arm).replace('suite = "micro"', 'suite = "micro"\nlevel = 1')
    (project.folder / "experiments" / "learn.toml").write_text(of_level_1)
    planned = project.looper("run", "learn", "--dry-run")
    assert (planned.returncode == 2) == bool(refused) and refused in planned.stderr


def test_an_adapter_that_is_gone_is_made_again_and_a_damaged_one_is_named(one_learner: Project) -> None:
    project = one_learner
    project.looper("run", "learn", "--arm", "lora", "--limit", "1")
    run = read_run(project.run)
    adapters = Path(project.environment["LOOPER_HOME"]) / "adapters"
    folder = adapters / next(found.adapter for found in run.consolidations if found.arm == "lora")
    for name in ("verdicts.jsonl", "trajectories.jsonl"):
        lines = (project.run / name).read_bytes().splitlines(keepends=True)
        (project.run / name).write_bytes(b"".join(line for line in lines if b'"cell":"lora/' not in line))
    with (folder / "adapters.safetensors").open("ab") as stream:
        stream.write(b"x")
    refused = project.looper("run", "learn", "--arm", "lora", "--limit", "1")
    assert refused.returncode == 2 and "are not the ones on its card. Remove it" in refused.stderr
    shutil.rmtree(folder)
    again = project.looper("run", "learn", "--arm", "lora", "--limit", "1")
    assert again.returncode == 0 and folder.is_dir(), again.stderr


def small_profile(project: Project, **tasks: object) -> str:
    """A profile of a few tasks of the embedded suite, as a file."""
    chosen = "".join(f"{key} = {json.dumps(value)}\n" for key, value in tasks.items())
    head = PLAN[PLAN.index("[profiles.micro]\n") :].partition("[profiles.micro.tasks]")[0]
    limits = PLAN[PLAN.index("[profiles.micro.limits]") : PLAN.index("[profiles.micro.experience]")]
    text = head + f'[tasks]\nsuite = "micro"\n{chosen}' + limits
    path = project.folder / f"small-{content_hash(text)[:8]}.toml"
    path.write_text(text.replace("[profiles.micro]\n", "").replace("profiles.micro.", ""))
    return str(path)


@pytest.mark.proof
def test_an_adapter_is_held_against_its_base_on_tasks_of_other_repositories(
    finished: tuple[Project, RunView, str], project: Project
) -> None:
    _, run, _ = finished
    adapter = next(found.adapter for found in run.consolidations if found.arm == "lora")
    shutil.copy(Path(__file__).parents[2] / "experiments" / "capability.toml", project.folder / "experiments")
    elsewhere = small_profile(project, suite_seed=7, limit=2)
    ran = project.looper("run", "capability", "--profile", elsewhere, "--adapter", adapter[:10])
    assert ran.returncode == 0, ran.stderr
    view = read_run(project.run)
    assert view.manifest.models["adapted"].adapter and not view.manifest.models["base"].adapter
    assert view.manifest.models["adapted"].digest == view.manifest.models["base"].digest
    assert "primary: adapted − base" in ran.stdout
    kept = Path(project.environment["LOOPER_HOME"]) / "adapters" / adapter
    weights = kept / "adapters.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged = project.looper("report", "--verify")
    assert damaged.returncode == 1 and f"the adapter {adapter} of adapted is damaged" in damaged.stdout
    weights.write_bytes(whole)
    kept.rename(kept.with_name("away"))
    assert f"1 of 1 adapter is not here: {adapter}" in project.looper("report", "--verify").stdout
    kept.with_name("away").rename(kept)
    learned = next(found.selection.tasks[0] for found in run.consolidations if found.arm == "lora")
    seen = project.looper(
        "run", "capability", "--profile", small_profile(project, tasks=[learned]), "--adapter", adapter
    )
    assert (
        seen.returncode != 0
        and f"the adapter {adapter} was trained on 1 of the evaluated tasks" in seen.stderr
    )
    wider = project.looper(
        "run", "capability", "--profile", elsewhere, "--adapter", adapter, "--model", "nano:small"
    )
    assert wider.returncode == 2 and f"the adapter {adapter} was trained on nano" in wider.stderr
    nobody = project.looper("run", "capability", "--profile", elsewhere, "--adapter", "zzz")
    assert nobody.returncode == 2 and 'No adapter begins with "zzz"' in nobody.stderr
    none = project.looper("run", "capability", "--profile", elsewhere)
    assert none.returncode == 2 and "adapted: carries an adapter, so name one: --adapter ID" in none.stderr


def test_the_positive_control_is_told_the_answer_and_needs_no_experience(project: Project) -> None:
    (project.folder / "experiments" / "told.toml").write_text(
        'title = "t"\nhypothesis = "h"\nfactor = "f"\n[[arms]]\nname = "base"\nrole = "base"\n'
        '[[arms]]\nname = "positive"\nrole = "control"\n'
        'learning = { treatment = "memory", memory = { kind = "gold" } }\n'
    )
    ran = project.looper("run", "told", "--profile", small_profile(project, limit=2))
    assert ran.returncode == 0, ran.stderr
    run = read_run(project.run)
    told = [end for end in run.trajectories if end.arm == "positive"]
    base = [end for end in run.trajectories if end.arm == "base"]
    assert all(end.memory_tokens for end in told) and not any(end.memory_tokens for end in base)
    assert not run.consolidations and [proof.said for proof in run.proofs if proof.arm == "positive"] == [
        "2 of 2 tasks are told something"
    ]


def run_as_planned(project: Project, own: str, *lines: str) -> None:
    """The plan is one that says these lines, and it has been run."""
    (project.folder / "own.toml").write_text(own)
    plan = project.looper("plan", "own.toml")
    assert plan.returncode == 0, plan.stderr
    for line in lines:
        assert line in plan.stdout.splitlines(), plan.stdout
    ran = project.looper("run", "own.toml")
    assert ran.returncode == 0, ran.stderr


ONE_TEXT = """
title = "One text of many"
hypothesis = "One text of all that was learned helps."
factor = "what is in the prompt"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "book"
role = "treatment"
learning = { treatment = "memory", source = "gold", memory = { kind = "playbook" } }
[[arms]]
name = "other_book"
role = "control"
learning = { treatment = "memory", source = "gold", memory = { kind = "playbook", draw = "random" } }
[[arms]]
name = "positive"
role = "control"
learning = { treatment = "memory", memory = { kind = "gold" } }
[profiles.micro]
like = "demo"
model = "scripted:script.txt"
scaffold = "full"
arms = ["base", "book", "other_book", "positive"]
tasks = { limit = 12 }
limits = { output_tokens = 500, context_tokens = 8000 }
experience = { per_repo = 24, memory_bytes = 1000, delivered = 0.1 }
"""


def test_of_a_memory_that_makes_one_text_of_all_its_items_the_text_is_shown_and_nothing_is_said_of_a_choice(
    project: Project,
) -> None:
    """Also once an item of it was taken back, which the text that was told is made of."""
    run_as_planned(
        project,
        ONE_TEXT,
        "arm book: source gold, memory playbook (one text made of the items from earlier tasks of its repository, at start, at most 1000 bytes)",
        "arm other_book: source gold, memory playbook (one text made of the items of other repositories, at start, at most 1000 bytes)",
        "arm positive: memory gold",
    )
    listed = project.looper("memory", "list").stdout
    assert re.search(r"^book: 12 rollouts, .* told, one text made of \d+\.\d items, ", listed, re.M), listed
    assert "positive: 12 rollouts, memory gold, which has no items" in listed.splitlines()
    why = project.looper("lineage", "why", "own").stdout
    for whose in ("from earlier tasks of its repository", "of other repositories"):
        assert f"  told: one text made of the items {whose}, 1000 bytes together" in why.splitlines(), why

    run = read_run(project.run)
    ends = {arm: [end for end in run.trajectories if end.arm == arm] for arm in ("book", "other_book")}
    assert all(len(end.memory) > 1 for of in ends.values() for end in of)
    item = ends["book"][0].memory[0]
    said = project.looper("memory", "why", item).stdout
    assert (
        f"a task is told one text made of many items. Read it with: looper show CELL --run {run.folder.name}"
        in said
    )
    items = {found.id: found for found in read_stream(project.run, "memory", MemoryItem)}

    def told(cell: str) -> str:
        shown = project.looper("show", cell, "--whole").stdout
        assert "in other words" not in shown and "before the issue" not in shown, shown
        return shown

    def every_text() -> None:
        for end in (*ends["book"][:2], *ends["other_book"][:2]):
            lines = sorted(playbook([items[name] for name in end.memory]), key=lambda line: -len(line.items))
            assert 1 < len(lines) < len(end.memory), "several successes wrote the same"
            assert "\n".join(line.text for line in lines) in told(end.cell)
        assert "diff --git" in told("positive/0/" + ends["book"][0].instance_id), "the gold patch"

    every_text()
    assert project.looper("memory", "revert", item, "--reason", "a test").returncode == 0
    every_text()


OWN_SETTINGS = """
title = "{one.items} lesson or {three.items}"
hypothesis = "More lessons help more."
factor = "how many lessons are in the prompt"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "hasty"
role = "treatment"
limits = { steps = 2 }
[[arms]]
name = "one"
role = "treatment"
learning = { treatment = "memory", source = "gold" }
[[arms]]
name = "three"
role = "treatment"
learning = { treatment = "memory", source = "gold", memory = { items = 3 } }
[profiles.micro]
like = "demo"
model = "scripted:script.txt"
scaffold = "full"
arms = ["base", "hasty", "one", "three"]
tasks = { limit = 4 }
limits = { output_tokens = 500, context_tokens = 8000 }
experience = { per_repo = 24, memory_bytes = 20000 }
"""


def test_one_lesson_or_three_and_steps_are_an_arm_s_to_set(project: Project) -> None:
    run_as_planned(
        project,
        OWN_SETTINGS,
        "arm hasty: limits.steps 2",
        "arm one: source gold, memory lessons (retrieved by bm25, at start, at most 1 item, 20000 bytes together)",
        "arm three: source gold, memory lessons (retrieved by bm25, at start, at most 3 items, 20000 bytes together)",
    )
    told: dict[str, list[int]] = {}
    steps: dict[str, set[int]] = {}
    for end in read_stream(project.run, "trajectories", Trajectory):
        told.setdefault(end.arm, []).append(len(end.memory))
        steps.setdefault(end.arm, set()).add(end.steps)
    assert max(told["one"]) == 1 and max(told["three"]) == 3
    assert steps["hasty"] == {2} and steps["base"] == {5}
    why = project.looper("lineage", "why", "own").stdout
    assert "  told: at most 3 items, 20000 bytes together, found by bm25" in why
    assert "  limits of its own: steps 2" in why
    # Between arms stands what can make a difference: of what is told nothing of how adapters are trained.
    differ = project.looper("diff", "base", "one").stdout
    assert '  learning.memory.draw: null | "retrieved"' in differ.splitlines()
    assert not re.search("objective|writer|format|rounds", differ), differ
    assert [
        line for line in project.looper("diff", "one", "three").stdout.splitlines() if "learning" in line
    ] == ["  learning.memory.items: null | 3"]
