"""A run is named in one way by every command, and its folder can be listed, shown and removed."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tests import program
from tests.cli.test_commands import looper, one_line
from tests.fakes.written_run import NOTHING_SEEN, write_run

from looper.cli.settings import settings
from looper.cli.wiring import process_folders, workspaces_of
from looper.edges.trainers.adapter_store import CARD
from looper.errors import BadInput
from looper.journal import RunLock, Stream
from looper.records.learning import Treatment
from looper.records.model import ModelSpec
from looper.records.plan import RunManifest
from looper.records.session import Session
from looper.records.treatment import Consolidation
from looper.views.findings import by_themselves
from looper.views.runs import find_run, read_run
from looper.views.tables import run_table


def made_at(folder: Path, when: int) -> Path:
    """The folder as if it had been written to then."""
    for path in folder.glob("*.jsonl"):
        os.utime(path, (when, when))
    return folder


def as_grading(folder: Path) -> Path:
    manifest = read_run(folder).manifest
    arms = tuple(
        arm.model_copy(update={"model": ModelSpec(backend="predictions", name=arm.name), "temperature": 0.0})
        for arm in manifest.plan.arms
    )
    (folder / "manifest.jsonl").unlink()
    stream = Stream(folder, "manifest", RunManifest)
    stream.append(manifest.model_copy(update={"plan": manifest.plan.model_copy(update={"arms": arms})}))
    stream.close()
    return folder


@pytest.fixture
def three(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An older and a newer run of one experiment, and a grading that is newer than both."""
    runs = tmp_path / "runs"
    older = made_at(write_run(runs, experiment="mine", tasks=("a__b-1",)), 1000)
    newer = made_at(write_run(runs, experiment="mine", tasks=("a__b-1", "a__b-2")), 2000)
    return older, newer, made_at(as_grading(write_run(runs, experiment="grade")), 3000)


COMMANDS = [
    ("show", "--run", "{}"),
    ("status", "--run", "{}"),
    ("watch", "--once", "--run", "{}"),
    ("memory", "list", "--run", "{}"),
    ("questions", "--run", "{}"),
    ("export", "{}", "--format", "csv"),
    ("lineage", "why", "{}"),
]


def test_u1_a_run_is_named_by_path_name_beginning_and_experiment(
    tmp_path: Path, three: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer, grading = three
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    for named in (f"runs/{newer.name}/", newer.name, newer.name[:-1], "mine", "mine micro", None):
        assert find_run(runs, named).resolve() == newer, named
    assert find_run(runs, str(older)) == older and find_run(runs, "grade") == grading
    with pytest.raises(
        BadInput, match=f'"mine-micro" is the beginning of 2 runs: {older.name}, {newer.name}'
    ):
        find_run(runs, "mine-micro")
    for odd in ("", "a" * 5000, "a\0b", "../elsewhere"):
        with pytest.raises(BadInput, match="There is no run"):
            find_run(runs, odd)
    for folder in (older, newer):
        folder.rename(tmp_path / folder.name)
    assert find_run(runs) == grading, "where there is nothing else"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_u1_every_command_takes_a_run_by_its_experiment(
    tmp_path: Path, three: tuple[Path, Path, Path], command: tuple[str, ...]
) -> None:
    _, newer, _ = three
    found = looper(*(word.format("mine") for word in command), cwd=tmp_path)
    told = found.stdout + found.stderr
    named = newer.name in told or "a__b-2" in told or "mine-micro" in told
    assert named and "There is no run" not in told and "Traceback" not in told


@pytest.mark.parametrize(
    "command", [*COMMANDS, ("train", "{}"), ("report", "{}")], ids=lambda words: words[0]
)
def test_u1_a_run_that_is_not_there_is_one_line_with_what_to_type(
    tmp_path: Path, state: Path, three: tuple[Path, Path, Path], command: tuple[str, ...]
) -> None:
    del three
    found = looper(*(word.format("mime") for word in command), cwd=tmp_path, LOOPER_HOME=str(state))
    said = one_line(found)
    assert found.returncode == 2 and 'There is no run "mime"' in said
    assert "Did you mean mine" in said and said.endswith("looper runs list")


def test_u1_diff_takes_runs_as_every_other_command_does(
    tmp_path: Path, three: tuple[Path, Path, Path]
) -> None:
    older, newer, _ = three
    found = looper("diff", older.name[:-1], "mine", cwd=tmp_path)
    assert found.returncode == 0 and found.stdout.startswith(f"{older.name} | {newer.name}\n")
    said = f"{newer.name}: the newest of 2 runs of mine; all: looper runs list\n"
    assert found.stderr == said, "of the run that was meant, and of no other"
    both = looper("diff", older.name[:-1], newer.name[:-1], cwd=tmp_path)
    assert (both.returncode, both.stderr) == (0, "") and both.stdout == found.stdout
    neither = looper("diff", "bass", "otter", cwd=tmp_path)
    assert neither.returncode == 2 and f"Arms of {newer.name}: base, other" in neither.stderr


def begun_at(folder: Path, when: str) -> Path:
    """The folder with a first session of that time."""
    stream = Stream(folder, "sessions", Session)
    stream.append(Session(pid=1, workers=1, begun=when, done_before=0))
    stream.close()
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A finished run, and one of the same experiment that was begun after it and stopped. The first was written to last."""
    runs = tmp_path / "runs"
    finished = begun_at(write_run(runs, experiment="mine"), "2026-01-01T10:00:00+00:00")
    stopped = write_run(runs, experiment="mine", tasks=("a__b-1",), judged=lambda cell: False)
    begun_at(stopped, "2026-01-01T11:00:00+00:00")
    made_at(finished, 3_000_000_000)
    return finished, stopped


@pytest.mark.parametrize(
    "command",
    [
        ("show", "--failed", "--run", "mine"),
        ("show",),
        ("diff", "base", "other"),
        ("status", "--run", "mine"),
        ("runs", "show", "mine"),
        ("export", "mine", "--format", "csv"),
        ("lineage", "why", "mine"),
        ("memory", "list"),
        ("train", "mine"),
        ("report", "mine"),
        ("report",),
        ("report", "mine", "--bundle", "pages.zip"),
        ("watch", "--once", "--run", "mine"),
    ],
    ids=" ".join,
)
def test_the_newest_run_is_the_one_begun_last_for_every_command_which_says_so_where_there_is_a_choice(
    tmp_path: Path, state: Path, two: tuple[Path, Path], command: tuple[str, ...]
) -> None:
    finished, stopped = two
    found = looper(*command, cwd=tmp_path, LOOPER_HOME=str(state), LOOPER_SWE_DATA="")
    told = found.stdout + found.stderr
    said = [line for line in told.splitlines() if line.startswith(f"{stopped.name}: the newest of 2 runs")]
    assert len(said) == 1 and "looper runs list" in said[0], told
    assert finished.name not in told
    # A run that is named itself is no choice.
    named = [finished.name if word == "mine" else word for word in command]
    if "mine" in command:
        assert "the newest of" not in looper(*named, cwd=tmp_path, LOOPER_HOME=str(state)).stderr


def test_runs_are_listed_in_the_order_in_which_they_were_begun(
    tmp_path: Path, two: tuple[Path, Path]
) -> None:
    finished, stopped = two
    listed = looper("runs", "list", cwd=tmp_path).stdout.splitlines()[1:]
    assert [line.split()[0] for line in listed] == [finished.name, stopped.name]


def test_pages_that_runs_share_keep_the_finished_run_and_name_the_one_that_was_begun_since(
    tmp_path: Path, two: tuple[Path, Path]
) -> None:
    finished, stopped = two
    told = looper("report", "mine", "--results", "results", cwd=tmp_path).stdout
    assert f"mine micro: {finished.name}, in results/mine.md" in told
    assert (
        f"{stopped.name} was begun later and is not finished; what is written is of {finished.name}" in told
    )


def test_the_status_of_an_arm_without_a_verdict_is_no_share_of_none(
    tmp_path: Path, two: tuple[Path, Path]
) -> None:
    del two
    told = looper("status", "--run", "mine", cwd=tmp_path).stdout.splitlines()
    assert "  base: no verdict yet, 0 infra errors" in told


def test_the_table_has_a_row_for_each_arm_that_has_begun_and_names_the_others(tmp_path: Path) -> None:
    """As after a run of some of its arms."""
    arms = ("base", "other", *(f"later_{number}" for number in range(8)))
    run = read_run(
        write_run(
            tmp_path / "runs", arms=arms, judged=lambda cell: cell.startswith(("base", "other/0/a__b-1"))
        )
    )
    console = Console(width=400)
    with console.capture() as captured:
        console.print(run_table(run))
    lines = [line.strip() for line in captured.get().splitlines()]
    assert [line.split()[1] for line in lines if line.startswith("│")] == ["base", "other"]
    assert (
        "still to do: 17 of 20 cells; nothing has an end of later_0, later_1, later_2, later_3, later_4, later_5 and 2 more"
    ) in lines
    assert not any("no task has a verdict in both arms" in line for line in lines)
    none = read_run(write_run(tmp_path / "none", arms=arms, judged=lambda cell: False))
    with console.capture() as captured:
        console.print(run_table(none))
    assert all(f"│ {arm} " in captured.get() for arm in arms), "nothing is known of any"


def test_the_table_says_which_of_its_intervals_decide(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "runs"))
    console = Console(width=400)
    with console.capture() as captured:
        console.print(run_table(run))
    lines = [line.strip() for line in captured.get().splitlines()]
    at = lines.index(f"{by_themselves(run)}:")
    assert lines[at + 1].startswith("other − base")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (("memory", "why", "zzz"), "List them with: looper memory list --run {}"),
        (("show", "nobody/0/a__b-1"), "List them with: looper show --run {}"),
        (("show", "--step", "2"), "List them with: looper show --run {}"),
        (("diff", "base/0/a__b-7", "other/0/a__b-7"), "See: looper show --run {}"),
    ],
    ids=" ".join,
)
def test_a_hint_is_about_the_run_that_was_asked_and_not_about_the_newest(
    tmp_path: Path, two: tuple[Path, Path], asked: tuple[str, ...], hint: str
) -> None:
    older = write_run(tmp_path / "runs", experiment="older", steps=1)
    begun_at(older, "2001-01-01T00:00:00+00:00")
    del two
    refused = looper(*asked, "--run", older.name, cwd=tmp_path)
    assert refused.returncode == 2 and hint.format(older.name) in one_line(refused)


def test_a_record_that_cannot_be_read_is_said_by_every_command_that_is_given_its_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs")
    lines = (run / "verdicts.jsonl").read_text().splitlines()
    (run / "verdicts.jsonl").write_text("\n".join([lines[0], lines[1][:50], *lines[2:], ""]))
    for asked in (("show",), ("show", "base/0/a__b-1"), ("diff", "base", "other"), ("lineage", "why")):
        told = looper(*asked, cwd=tmp_path)
        assert told.returncode == 0 and told.stderr.strip() == (
            f"{run.name}: damaged record: verdicts.jsonl line 2, not a journal line; what it said is not in what follows"
        ), asked


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a folder to another user")
def test_a_run_of_another_user_that_may_not_be_read_is_named_and_not_passed_over(tmp_path: Path) -> None:
    mine, other = (write_run(tmp_path / "runs", experiment=name) for name in ("mine", "other"))
    other.chmod(0o700)
    os.chown(other, 65534, 65534)

    def asked(*words: str) -> "subprocess.CompletedProcess[str]":
        without_rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        return subprocess.run(
            [*without_rights, sys.executable, "-m", "looper.cli.main", *words],
            cwd=tmp_path,
            env={**os.environ, "LOOPER_RUNS": str(tmp_path / "runs")},
            capture_output=True,
            text=True,
        )

    refused = asked("show", "--run", "other")
    why = f"Cannot open {other}/manifest.jsonl: Permission denied. Fix its rights"
    assert refused.returncode == 2 and why in one_line(refused)
    listed = asked("runs", "list").stdout
    assert mine.name in listed and why in listed
    assert asked("show").returncode == 0, "what can be read is the newest"


def test_a_list_that_is_empty_names_its_run(tmp_path: Path, two: tuple[Path, Path]) -> None:
    _, stopped = two
    shown = looper("show", "--failed", cwd=tmp_path).stdout
    assert shown == f"{stopped.name}: none of 0 cells with an end failed, of 2 in all\n"


@pytest.mark.parametrize(
    "command",
    [
        "show",
        "status",
        "runs list",
        "report",
        "report --verify",
        "train",
        "diff a b",
        "export",
        "runs rm mine",
    ],
)
def test_where_no_run_is_the_place_where_runs_are_looked_for_is_named(tmp_path: Path, command: str) -> None:
    found = looper(*command.split(), cwd=tmp_path)
    assert (
        f"There is no run below {tmp_path}/runs. Runs lie in ./runs of the folder that they were begun in: go there, or name the folder "
        "of runs by LOOPER_RUNS."
    ) in found.stdout + found.stderr


def test_an_experiment_is_refused_where_its_run_would_be_removed(
    tmp_path: Path, three: tuple[Path, Path, Path]
) -> None:
    """Its only run begins with its name, too."""
    older, newer, _ = three
    lone = write_run(tmp_path / "runs", experiment="lone")
    for name, runs in (("lone", lone.name), ("mine", f"{older.name}, {newer.name}"), ("mine micro", "")):
        refused = looper("runs", "rm", name, "--yes", cwd=tmp_path)
        assert refused.returncode == 2 and f'"{name}" is an experiment. Name its run' in one_line(refused)
        assert runs in one_line(refused)
    assert all(folder.is_dir() for folder in (*three, lone))
    assert looper("runs", "rm", lone.name[:-1], "--yes", cwd=tmp_path).returncode == 0 and not lone.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("status", "--run", "mine"),
        ("show", "--run", "mine"),
        ("show", "base/0/a__b-2", "--run", "mine"),
        ("diff", "base", "other", "--run", "mine"),
        ("diff", "base/0/a__b-2", "other/0/a__b-2", "--run", "mine"),
        ("diff", "mine", "{}"),
        ("lineage", "why", "mine"),
        ("runs", "list"),
        ("runs", "show", "mine"),
        ("runs", "du"),
        ("cache", "du"),
        ("adapter", "list"),
        ("model", "list"),
        ("bench", "list", "--suite", "micro"),
        ("bench", "list", "--suite", "micro", "--repo", "jursutsut"),
        ("doctor",),
        ("plan", "exp00", "--profile", "demo", "--limit", "4"),
        ("report", "mine"),
        ("report", "mine", "--file", "mine.md"),
        ("new", "other.toml"),
        ("cache", "clean", "--yes"),
    ],
    ids=" ".join,
)
def test_u12_what_is_read_is_had_as_one_json_object_on_one_line(
    tmp_path: Path, state: Path, three: tuple[Path, Path, Path], command: tuple[str, ...]
) -> None:
    older, newer, _ = three
    asked = [word.format(older.name) for word in command]
    found = looper(*asked, "--json", cwd=tmp_path, LOOPER_HOME=str(state), LOOPER_SWE_DATA="")
    assert found.returncode == 0, found.stderr
    (line,) = found.stdout.splitlines()
    told = json.loads(line)
    assert isinstance(told, dict)
    if "mine" in command:
        assert newer.name in line
    if command[:2] == ("diff", "base"):
        assert {"key": "temperature", "first": 0.0, "second": 0.2} in told["configuration"]
        assert told["resolved"]["gained"] == 0 and told["resolved"]["standing"] == "exploratory"
    if command[0] == "plan":
        assert told["cells"] > len(told["tasks"]) == 4 and told["seconds"] is None and told["pilot"] is True


def test_u1_a_report_is_of_an_experiment_or_of_a_run_that_is_named_itself(
    tmp_path: Path, three: tuple[Path, Path, Path]
) -> None:
    older, newer, _ = three
    kept = "<!-- looper report mine micro -->\n| base | 1/1 |\n<!-- end of looper report mine micro -->\n"
    (tmp_path / "LEARNINGS.md").write_text(kept)
    for named, meant in ((older.name, older), ("mine", newer)):
        plain = looper("report", named, cwd=tmp_path)
        assert plain.stdout.splitlines()[-1] == f"mine micro: {meant / 'report.html'} and report.md"
        written = looper("report", named, "--results", "docs/results", cwd=tmp_path)
        assert written.returncode == 0, written.stderr
        assert f"mine micro: {meant.name}" in written.stdout
        assert f"`{meant.name}`" in (tmp_path / "docs" / "results" / "mine.md").read_text()
    assert (tmp_path / "LEARNINGS.md").read_text() == kept, "no file is written to that was not named"
    itself = looper("report", "mine", older.name, cwd=tmp_path).stdout
    assert f"mine micro: {older / 'report.html'}" in itself and "the newest of" not in itself


def test_a_verification_is_of_the_runs_that_a_report_means_by_the_same_name_and_without_one_of_all(
    tmp_path: Path, three: tuple[Path, Path, Path]
) -> None:
    older, newer, grade = three

    def looked_at(*named: str) -> list[Path]:
        """Runs of which it is said how many verdicts they have, or what is wrong: here that there is no seal."""
        said = looper("report", *named, "--verify", cwd=tmp_path).stdout.splitlines()
        chosen = f"{newer.name}: the newest of 2 runs of mine micro; all of them: looper report --verify"
        assert (chosen in said) == (named == ("mine",))
        return [run for run in three if f"{run.name}: it is finished and has no seal" in "\n".join(said)]

    assert looked_at() == [older, newer, grade]
    assert looked_at("mine") == [newer]
    assert looked_at(older.name) == [older] and looked_at(older.name, newer.name) == [older, newer]
    for run in (older, newer):
        assert not (run / "report.md").exists()
    assert looper("report", older.name, newer.name, cwd=tmp_path).returncode == 0
    assert all((run / "report.md").exists() for run in (older, newer))
    # The run that a page is written from is looked at with it.
    assert looper("report", older.name, "--results", "docs/results", cwd=tmp_path).returncode == 0
    assert looked_at("mine") == [older, newer]


def test_a_file_that_a_report_is_to_be_written_into_is_made_where_it_is_missing(
    tmp_path: Path, three: tuple[Path, Path, Path]
) -> None:
    _, newer, _ = three
    unwritten = looper("report", "--verify", "--file", "notes/mine.md", cwd=tmp_path)
    assert unwritten.returncode == 2 and "There is no file notes/mine.md to verify" in one_line(unwritten)
    unnamed = looper("report", "--file", "notes/mine.md", cwd=tmp_path)
    assert unnamed.returncode == 2 and "looper report exp00 --file notes/mine.md" in one_line(unnamed)
    done = looper("report", "mine", "--file", "notes/mine.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "notes" / "mine.md").read_text()
    assert text.startswith("# mine: Written down\n") and f"`{newer.name}`" in text
    assert looper("report", "--file", "notes/mine.md", cwd=tmp_path).returncode == 0
    assert (tmp_path / "notes" / "mine.md").read_text() == text, "the same records, the same text"
    for file, said in (("runs", "cannot be read: Is a directory"), ("notes/mine.md/x.md", "cannot be made")):
        refused = looper("report", "mine", "--file", file, cwd=tmp_path)
        assert refused.returncode == 2 and said in one_line(refused), file


def test_u8_advice_names_only_options_that_the_command_has(
    tmp_path: Path, state: Path, three: tuple[Path, Path, Path]
) -> None:
    """The micro suite has no such tasks, so nothing can be learned."""
    del three
    asked = ("run", "exp00", "--limit", "1", "--arm", "noop")
    assert looper(*asked, cwd=tmp_path, LOOPER_HOME=str(state)).returncode == 0
    exported = looper("export", "exp00", "--format", "sft", cwd=tmp_path, LOOPER_HOME=str(state))
    assert exported.returncode == 2 and "--minimum-tasks" not in one_line(exported)
    assert "0 resolved tasks to learn from" in exported.stderr and "looper runs list" in exported.stderr
    trained = looper("train", "exp00", cwd=tmp_path, LOOPER_HOME=str(state))
    # The arm that was asked for has no cell left: the command that goes on is that of all arms.
    assert re.search(
        r"Go on with it first: .*looper run exp00 --profile micro --limit 1 --run \S+$", one_line(trained)
    )


def completed(line: str, cwd: Path) -> list[str]:
    """What a shell would offer at the end of the line."""
    words = line.split(" ")
    program = "import sys; sys.argv[0] = 'looper'; from looper.cli.main import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env={
            **os.environ,
            "LOOPER_RUNS": str(cwd / "runs"),
            "_LOOPER_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def test_u12_the_shell_completes_commands_and_runs(tmp_path: Path, three: tuple[Path, Path, Path]) -> None:
    older, newer, _ = three
    assert completed("looper que", tmp_path) == ["questions"]
    for line in ("looper export mi", "looper show --run mi", "looper lineage why mi", "looper diff mi"):
        assert completed(line, tmp_path) == [newer.name, older.name], line


def test_u12_the_shell_completes_plans_profiles_and_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPER_HOME", str(tmp_path / "home"))
    card = tmp_path / "home" / "adapters" / "06dd1234" / CARD
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    (tmp_path / "exp_own.toml").write_text('hypothesis = "h"\n[profiles.tiny]\nlike = "demo"\n')
    (tmp_path / "exp_other.toml").write_text("[tasks]\n")
    for command in ("run", "plan"):
        offered = completed(f"looper {command} exp", tmp_path)
        assert {"exp00", "exp_own.toml"} <= {*offered} and "exp_other.toml" not in offered
        assert completed(f"looper {command} exp_own.toml --profile t", tmp_path) == ["tiny"]
        assert {"tiny", "demo", "micro"} <= {
            *completed(f"looper {command} exp_own.toml --profile ", tmp_path)
        }
        assert completed(f"looper {command} exp00 --adapter 0", tmp_path) == ["06dd1234"]
    for command in ("show", "rm", "export"):
        assert completed(f"looper adapter {command} ", tmp_path) == ["06dd1234"]


def test_u12_completion_is_installed_by_the_command_itself(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['looper', '--install-completion']; from looper.cli.main import main; main()"
    )
    script = f'{sys.executable} -c "{program}"'
    found = subprocess.run(
        ["bash", "-c", f"{script}; exit $?"],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0 and "completion installed" in found.stdout, found.stderr
    assert "looper" in (tmp_path / ".bashrc").read_text()


INTERRUPTED_AT = """
import sys
class Finder:
    left = {number}
    def find_spec(self, name, path=None, target=None):
        if "looper.cli.main" in sys.modules:
            Finder.left -= 1
            if Finder.left == 0:
                {raised}
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("number", [1, 30, 300])
@pytest.mark.parametrize(
    "raised", ["raise KeyboardInterrupt", "raise RuntimeError('Error calling __set_name__') from KeyboardInterrupt()"]
)  # fmt: skip
def test_u11_an_interruption_at_any_import_of_a_command_is_one_line(
    tmp_path: Path, number: int, raised: str
) -> None:
    """While its words are read, its modules are loaded, its plan is laid out; also as Python 3.11 wraps it while a class is made."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_AT.format(number=number, raised=raised))
    done = subprocess.run(
        [sys.executable, "-m", "looper", "plan", "exp00"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    said = f"looper: Interrupted. Begin again with: {sys.executable} -m looper plan exp00\n"
    assert (done.returncode, done.stderr) == (130, said)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run exp00 --fresh", "What was recorded is kept. Go on with: looper run exp00"),
        (
            "bench validate --suite micro",
            "What was recorded is kept. Go on with: looper bench validate --suite micro",
        ),
        (
            "questions --rate pairs_5",
            "What was recorded is kept. Go on with: looper questions --rate pairs_5",
        ),
        ("questions", "Begin again with: looper questions"),
        ("watch --once", "Begin again with: looper watch --once"),
        ("report --verify", "Begin again with: looper report --verify"),
        ("show base/0/a__b-1", "Begin again with: looper show base/0/a__b-1"),
        ("bench list", "Begin again with: looper bench list"),
    ],
)
def test_u11_an_interruption_while_the_program_is_still_being_loaded_is_one_line(
    tmp_path: Path, command: str, said: str
) -> None:
    """Here its first import interrupts it, as Ctrl-C can. Only where a command records something, something is kept."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "looper", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130
    assert done.stderr == f"looper: Interrupted. {said}\n".replace(
        ": looper ", f": {sys.executable} -m looper "
    )


def answering(words: str, cwd: Path, answer: str | None = None) -> "subprocess.CompletedProcess[str]":
    """The program with what a person types; a state folder of its own."""
    variables = {**os.environ, "LOOPER_RUNS": str(cwd / "runs"), "LOOPER_HOME": str(cwd / "home")}
    return program.looper(*words.split(), cwd=cwd, env=variables, typed=answer or "")


def test_u12_runs_are_listed_shown_and_measured(tmp_path: Path) -> None:
    assert "Begin with: looper run exp00" in looper("runs", "list", cwd=tmp_path).stdout
    done = made_at(write_run(tmp_path / "runs", experiment="mine"), 1000)
    half = made_at(write_run(tmp_path / "runs", experiment="half", judged=lambda cell: "base" in cell), 2000)
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "manifest.jsonl").write_text("garbage\n")
    told = looper("runs", "list", cwd=tmp_path).stdout.splitlines()
    assert told[0].split()[:5] == ["run", "experiment", "profile", "state", "cells"]
    assert told[1].split()[:5] == [done.name, "mine", "micro", "finished", "4/4"]
    assert told[2].split()[:5] == [half.name, "half", "micro", "stopped", "2/4"] and "odd" in told[3]
    rows = json.loads(looper("runs", "list", "--json", cwd=tmp_path).stdout)
    assert [row["finished"] for row in rows["runs"]] == [4, 2] and len(rows["unreadable"]) == 1
    shown = looper("runs", "show", "half", cwd=tmp_path).stdout
    assert shown.startswith(f"{half.name}: Written down\n") and "model: x" in shown
    assert "state: stopped, 2 of 4 cells" in shown and "go on with: looper run half --profile micro" in shown
    assert json.loads(looper("runs", "show", "--json", cwd=tmp_path).stdout)["run"] == half.name
    sizes = json.loads(looper("runs", "du", "--json", cwd=tmp_path).stdout)
    assert sizes["bytes"].keys() == {done.name, half.name, "odd"}
    assert sizes["total"] == sum(sizes["bytes"].values()) > 0


def test_u12_a_run_is_removed_once_somebody_agrees_and_never_while_it_is_running(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / "runs", experiment=name) for name in ("one", "two"))
    lock = RunLock(one)
    busy = answering(f"runs rm {two.name} {one.name} --yes", tmp_path)
    assert busy.returncode == 75 and f"running in process {os.getpid()}" in one_line(busy)
    lock.close()
    unasked = answering(f"runs rm {one.name}", tmp_path)
    assert unasked.returncode == 2 and "4 rollouts and 4 verdicts" in unasked.stderr
    assert unasked.stderr.splitlines()[-1].endswith("To remove without a question: --yes")
    assert answering(f"runs rm {one.name}", tmp_path, "n\n").returncode == 1
    assert one.is_dir() and two.is_dir()
    assert answering(f"runs rm {one.name}", tmp_path, "y\n").returncode == 0
    assert not one.exists() and two.is_dir()
    (tmp_path / "manifest.jsonl").write_text("of something else\n")
    other = answering("runs rm . --yes", tmp_path)
    assert other.returncode == 2 and "no usable run folder" in one_line(other) and two.is_dir()


def trained_for(run: Path, adapter: str) -> None:
    """As the records have it of an adapter that the run's other arm learned."""
    stream = Stream(run, "consolidations", Consolidation)
    stream.append(
        Consolidation(
            arm="other",
            seed=0,
            repo="",
            treatment=Treatment.ADAPTER,
            selection=NOTHING_SEEN,
            used=0,
            adapter=adapter,
            seconds=1.0,
        )
    )
    stream.close()


def test_the_adapters_of_one_run_are_listed_by_its_name(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / "runs", experiment=name) for name in ("one", "two"))
    for adapter in ("a" * 16, "b" * 16):
        (tmp_path / "home" / "adapters" / adapter).mkdir(parents=True)
        (tmp_path / "home" / "adapters" / adapter / "adapter.json").write_text("{}")
    trained_for(one, "a" * 16)

    def listed(*words: str) -> str:
        return looper("adapter", "list", *words, cwd=tmp_path, LOOPER_HOME=str(tmp_path / "home")).stdout

    assert "aaaaaaaa" in listed() and "bbbbbbbb" in listed()
    assert "aaaaaaaa" in listed("--run", "one") and "bbbbbbbb" not in listed("--run", "one")
    assert listed("--run", "two") == f"No adapter here is of {two.name}. All: looper adapter list\n"
    assert json.loads(listed("--run", "one", "--json"))["damaged"].keys() == {"a" * 16}


def test_u12_an_adapter_that_a_run_names_is_removed_by_force_only(tmp_path: Path) -> None:
    run, ids = write_run(tmp_path / "runs"), ("a" * 16, "b" * 16)
    for adapter in ids:
        (tmp_path / "home" / "adapters" / adapter).mkdir(parents=True)
        (tmp_path / "home" / "adapters" / adapter / "adapter.json").write_text("{}")
    trained_for(run, ids[0])
    refused = answering("adapter rm aaaa", tmp_path)
    assert refused.returncode == 2 and run.name in one_line(refused) and "--force" in refused.stderr
    assert answering("adapter rm bbbb", tmp_path).returncode == 0
    assert answering("adapter rm aaaa --force", tmp_path).returncode == 0
    assert not list((tmp_path / "home" / "adapters").iterdir())


def test_trees_that_a_killed_worker_of_another_machine_left_are_removed_unless_its_place_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPER_HOME", str(tmp_path / "home"))
    place = process_folders(settings()) / "0"
    tree = workspaces_of(place, settings())
    tree.mkdir(parents=True)
    with contextlib.closing(RunLock(place)):
        assert f"running in process {os.getpid()}" in answering("cache clean --yes", tmp_path).stderr
        assert tree.is_dir()
    assert answering("cache clean --yes", tmp_path).returncode == 0
    assert not tree.exists() and not place.exists()


def test_u12_the_cache_is_measured_and_loses_only_what_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPER_HOME", str(tmp_path / "home"))
    run = write_run(tmp_path / "runs")
    tree = workspaces_of(run, settings())
    for folder in (tree, *(tmp_path / "home" / name for name in ("exports", "suites", "adapters", "mine"))):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x" * 5000)
    rows = json.loads(answering("cache du --json", tmp_path).stdout)["parts"]
    back = {row["name"]: row["by_itself"] for row in rows}
    assert back == {"suites": True, "exports": True, "workspaces": True, "adapters": False, "mine": False}
    told = answering("cache du", tmp_path).stdout
    assert (
        "adapters: trained here" in told and "exports: base trees of tasks, made again from generated" in told
    )
    refused = answering("cache clean adapters --yes", tmp_path)
    assert refused.returncode == 2 and "does not come back by itself" in one_line(refused)
    lock = RunLock(run)
    busy = answering("cache clean --yes", tmp_path)
    assert busy.returncode == 0 and f"running in process {os.getpid()}" in busy.stderr
    assert tree.is_dir() and (tmp_path / "home" / "exports").is_dir()
    lock.close()
    assert answering("cache clean --yes", tmp_path).returncode == 0
    left = sorted(path.name for path in (tmp_path / "home").iterdir())
    assert left == ["adapters", "mine", "workspaces"] and not tree.exists()
    tree.with_name("0123456789abcdef").mkdir()
    (tmp_path / "home" / "exports").mkdir()
    unknown = answering("cache clean --yes", tmp_path)
    assert "a run of another folder may be working" in unknown.stderr
    assert (tmp_path / "home" / "exports").is_dir()
