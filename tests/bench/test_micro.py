"""The embedded suite: solvable, not given away, the same everywhere."""

import random
from pathlib import Path

import pytest

from looper.bench.micro import level0, level1
from looper.bench.micro.expert import next_action
from looper.bench.micro.levels import CHANGED, REPOSITORIES, TASKS_PER_REPOSITORY, projects
from looper.bench.verify import VerifierContext, verify
from looper.edges.datasets.micro import MicroSuite
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.workspaces.exports import GitSessions
from looper.edges.workspaces.git import git
from looper.protocols import Sandbox
from looper.records.plan import Limits
from looper.records.trajectory import Bash, Done, Edit
from looper.records.verdict import Outcome

LEVELS = (0, 1, 2)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_has_eight_repositories_of_forty_tasks_and_is_deterministic(
    level: int, tmp_path: Path
) -> None:
    tasks, mirrors = MicroSuite(tmp_path / "a", level, 3).load()
    again, _ = MicroSuite(tmp_path / "b", level, 3).load()
    other, _ = MicroSuite(tmp_path / "c", level, 4).load()
    assert len(mirrors) == REPOSITORIES and len(tasks) == REPOSITORIES * TASKS_PER_REPOSITORY == 320
    assert tasks == again and tasks != other
    assert len({task.instance_id for task in tasks}) == 320


@pytest.mark.parametrize("level", LEVELS)
def test_gold_resolves_and_empty_does_not(
    level: int, state: Path, sandbox: Sandbox, environments: HarnessEnvironment, limits: Limits
) -> None:
    """Here on a sample; `scripts/check_micro.py` does all 960."""
    tasks, mirrors = MicroSuite(state / "suites", level, 0).load()
    sessions = GitSessions(mirrors, state / "exports", state / "micro", sandbox, environments.of)
    verifier_context = VerifierContext(sessions, limits)
    for task in random.Random(level).sample(tasks, 5):
        assert verify(task, task.gold_patch, verifier_context, "gold").outcome is Outcome.RESOLVED, task
        assert verify(task, "", verifier_context, "empty").outcome is Outcome.UNRESOLVED, task


def test_the_mirror_holds_the_future_and_the_record_has_dependencies(tmp_path: Path) -> None:
    tasks, mirrors = MicroSuite(tmp_path, 0, 0).load()
    first = tasks[0]
    log = git(["log", "--format=%s", "main"], cwd=mirrors[f"micro-0:{first.repo}"]).decode()
    assert log.count("Fix ") == TASKS_PER_REPOSITORY
    for task in tasks:
        earlier = {other.instance_id: other for other in tasks if other.sequence_id == task.sequence_id}
        for name in task.dependencies:
            assert earlier[name].sequence_position < task.sequence_position
            assert set(earlier[name].modified_files) & set(task.modified_files)


@pytest.mark.parametrize("family", level0.FAMILIES)
def test_level_0_probes_tell_every_choice_and_mistake_apart(family: str) -> None:
    kind = level0.FAMILIES[family]
    names: dict[str, object] = {}
    exec(level0._SHAPE, names)
    results = []
    for choice in (*kind.choices, *kind.mistakes):
        function = eval(f"lambda {kind.parameters}: {kind.expression(choice)}")
        results.append(repr([eval(f"f({probe})", {**names, "f": function}) for probe in kind.probes]))
    right = results[: len(kind.choices)]
    assert len(set(right)) == len(right) and not set(right) & set(results[len(kind.choices) :])


@pytest.mark.parametrize("name", level1.KINDS)
def test_level_1_probes_tell_every_choice_and_mistake_apart(name: str) -> None:
    kind = level1.KINDS[name]

    def results(text: str) -> str:
        try:
            return repr(level1._values(level1._Place(kind, "f", kind.module, text, text)))
        except Exception as error:
            return f"raises {type(error).__name__}"

    right = [results(choice) for choice in kind.choices]
    assert len(set(right)) == len(right)
    assert not set(right) & {results(mistake) for mistake in kind.mistakes}


@pytest.mark.parametrize("level", LEVELS)
def test_the_convention_stands_neither_in_issue_nor_code_nor_visible_tests(level: int) -> None:
    for project in projects(level, 0)[:3]:
        for change in project.changes:
            added = {
                line.strip()
                for path, text in change.fix.items()
                for line in set(text.splitlines()) - set(change.base[path].splitlines())
            }
            shown = change.issue + "".join(change.base.values())
            assert added
            for line in added:
                # A plain constant may be returned anywhere; that tells nothing about this function.
                plain = {f"return {value}" for value in ("None", "{}", "[]", "False", "-1")}
                assert line not in shown or line in plain, (project.name, change.title, line)


def test_an_older_state_differs_in_as_many_conventions_as_it_says() -> None:
    """Measured on the trees: the share of families whose functions stand elsewhere or are mended otherwise."""

    def conventions(variant: str) -> list[dict[str, tuple[str, str]]]:
        found = []
        for project in projects(0, 0, variant):
            of = {}
            for change in project.changes:
                ((path, text),) = change.fix.items()
                line = text.split(f"def {change.title}(")[1].splitlines()[1]
                of[change.title.partition("_")[0]] = path, line
            found.append(of)
        return found

    now = conventions("")
    shares = {}
    for variant, changed in CHANGED.items():
        before = conventions(variant)
        assert [of.keys() for of in before] == [of.keys() for of in now]
        moved = [
            sum(of[family] != then[family] for family in of) for of, then in zip(now, before, strict=True)
        ]
        assert moved == [changed] * REPOSITORIES
        shares[variant] = changed / len(level0.FAMILIES)
    assert shares["stale_minor"] < 0.1 < shares["stale_moderate"] < 0.4 < shares["stale_major"]


def test_tasks_of_a_variant_are_named_apart(tmp_path: Path) -> None:
    names = [
        task.instance_id
        for variant in ("", "redrawn", *CHANGED)
        for task in MicroSuite(tmp_path, 0, 0, variant).load()[0]
    ]
    assert len(set(names)) == len(names)


def test_more_repositories_begin_with_the_same_ones() -> None:
    few, many = projects(0, 3), projects(0, 3, repositories=11)
    assert len(many) == 11 and [found.name for found in many[: len(few)]] == [found.name for found in few]
    assert many[0].changes == few[0].changes
    redrawn = projects(0, 3, "redrawn", 11)
    assert [found.name for found in redrawn] == [found.name for found in many]


@pytest.mark.parametrize("level", [1, 2])
def test_in_a_redrawn_repository_no_convention_holds_from_task_to_task(level: int) -> None:
    """The same mistake is repaired in one way everywhere in a repository, and in several in its redrawn one."""

    def repaired_alike(variant: str) -> list[bool]:
        found = []
        for project in projects(level, 3, variant):
            repairs: dict[str, set[str]] = {}
            for change in project.changes:
                for path, fixed in change.fix.items():
                    removed, added = (
                        set(one.splitlines()) - set(other.splitlines())
                        for one, other in ((change.base[path], fixed), (fixed, change.base[path]))
                    )
                    repairs.setdefault(" ".join(sorted(removed)), set()).add(" ".join(sorted(added)))
            found.append(all(len(ways) == 1 for ways in repairs.values()))
        return found

    assert [project.name for project in projects(level, 3, "redrawn")] == [
        project.name for project in projects(level, 3)
    ]
    assert all(repaired_alike("")) and not any(repaired_alike("redrawn"))


def test_the_expert_repairs_every_task_of_level_1_by_what_it_is_told_alone() -> None:
    """Each of its edits fits the file at one place only."""
    for project in projects(1, 3, repositories=3):
        for change in project.changes:
            told, files = [change.issue], dict(change.base)
            while not isinstance(action := next_action(told), Done):
                match action:
                    case Bash(command="python check.py"):
                        fixed = all(files[path] == text for path, text in change.fix.items())
                        told.append("PASS" if fixed else f"FAIL {change.title}")
                    case Bash(command=command):
                        _, name, path = command.split('"')
                        lines = files[path.strip()].splitlines()
                        at = next(number for number, line in enumerate(lines) if name in line)
                        told.append("\n".join(lines[at : at + 5]))
                    case Edit(path=path, old=old, new=new):
                        assert files[path].count(old) == 1, (change.title, old)
                        files[path] = files[path].replace(old, new)
                        told.append("ok")
                    case _:
                        raise AssertionError(action)
            assert told[-1] == "PASS", (change.title, told)


def test_the_expert_does_nothing_where_it_knows_nothing() -> None:
    assert next_action(["Please make it faster."]) == Done(message="the issue names no function that I know")
    issue = projects(1, 3, repositories=1)[0].changes[0].issue
    assert next_action([issue, "grep: no such file"]) == Done(message="not found")
