"""`looper evolve` as a user meets it, on the embedded default."""

import json
from pathlib import Path

import pytest
from tests.cli.test_commands import looper, one_line

from looper.journal import RunLock


@pytest.mark.proof
def test_a_campaign_runs_on_the_embedded_default_and_is_told_by_its_ledger(
    tmp_path: Path, state: Path
) -> None:
    """One generation, small: what it is worth is for larger ones."""
    home = {"LOOPER_HOME": str(state)}
    ran = looper(
        "evolve",
        "run",
        "--generations",
        "1",
        "--tasks",
        "6",
        "--workers",
        "2",
        "--pilot",
        cwd=tmp_path,
        timeout_s=400,
        **home,
    )
    assert ran.returncode == 0, ran.stderr
    assert "ended: generations" in ran.stdout and "0 the version that the campaign began with" in ran.stdout
    told = json.loads(looper("evolve", "status", "--json", cwd=tmp_path, **home).stdout)
    assert told["decided"] == 1 and told["tested"]["development"] == 1 and told["stopped"] == "generations"
    again = looper("evolve", "run", "--generations", "1", "--tasks", "6", "--pilot", cwd=tmp_path, **home)
    assert again.returncode == 0 and "ended: generations" in again.stdout
    assert looper("evolve", "tree", cwd=tmp_path, **home).stdout in ran.stdout
    other = looper("evolve", "run", "--generations", "2", "--tasks", "6", "--pilot", cwd=tmp_path, **home)
    assert other.returncode == 2 and "was begun with --generations 1 --tasks 6" in one_line(other)
    back = looper("evolve", "rollback", "7", cwd=tmp_path, **home)
    assert back.returncode == 2 and "There is no generation 7" in one_line(back)


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    for command in ("status", "tree", "rollback"):
        found = looper("evolve", command, "--folder", "nowhere", cwd=tmp_path)
        assert found.returncode == 2 and "There is no campaign in nowhere" in one_line(found)


def test_d07_a_second_campaign_in_the_same_folder_is_refused(tmp_path: Path, state: Path) -> None:
    folder = tmp_path / "evolving"
    lock = RunLock(folder / "campaign", "campaign")
    found = looper("evolve", "run", cwd=tmp_path, LOOPER_HOME=str(state))
    lock.close()
    assert found.returncode == 75 and "is in use by process" in one_line(found)


def test_c08_a_campaign_that_could_see_nothing_does_not_begin(tmp_path: Path, state: Path) -> None:
    found = looper(
        "evolve", "run", "--tasks", "50", "--generations", "8", cwd=tmp_path, LOOPER_HOME=str(state)
    )
    assert found.returncode == 2 and "is found with probability 0.4" in one_line(found)
    assert not (tmp_path / "evolving").exists()
