"""A run is named in one way by every command, and its folder can be listed, shown and removed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.test_commands import looper, one_line
from tests.fakes.written_run import write_run

from looper.errors import BadInput
from looper.journal import Stream
from looper.records.model import ModelSpec
from looper.records.plan import RunManifest
from looper.views.runs import find_run, read_run


def made_at(folder: Path, when: int) -> Path:
    """The folder as if it had been written to then."""
    for path in folder.glob("*.jsonl"):
        os.utime(path, (when, when))
    return folder


def as_grading(folder: Path) -> Path:
    manifest = read_run(folder).manifest
    arms = tuple(
        arm.model_copy(update={"model": ModelSpec(backend="predictions", name=arm.name)})
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
    neither = looper("diff", "bass", "otter", cwd=tmp_path)
    assert neither.returncode == 2 and f"Arms of {newer.name}: base, other" in one_line(neither)


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
    assert "At least 20 are needed: run more tasks, or lower --minimum-tasks" in one_line(trained)


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


def test_u11_an_interruption_that_no_command_answers_is_one_line(tmp_path: Path) -> None:
    """Whatever the command is doing: here it waits for the text of a plan."""
    os.mkfifo(tmp_path / "slow.toml")
    process = subprocess.Popen(
        [sys.executable, "-m", "looper.cli.main", "plan", "slow.toml"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    until, writer = time.monotonic() + 60, -1
    while writer < 0 and time.monotonic() < until:
        with contextlib.suppress(OSError):  # Nobody reads yet.
            writer = os.open(tmp_path / "slow.toml", os.O_WRONLY | os.O_NONBLOCK)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    os.close(writer)
    assert process.returncode == 130 and len(err.splitlines()) == 1, err
    assert err.startswith("looper: Interrupted.") and "the same command" in err
