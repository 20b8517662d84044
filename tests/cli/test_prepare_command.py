"""`looper bench fetch` and `looper bench prepare` as a user meets them, on one row and a repository of our own."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.cli.test_commands import looper, one_line


def row(name: str, repo: str, version: str, commit: str) -> str:
    return json.dumps({
        "metadata": {"instance_id": name, "repo": repo, "base_commit": commit, "created_at": "2019-05-14T00:00:00Z"},
        "task": {"problem_statement": "p", "hints_text": None},
        "evaluation": {"patch": "", "test_patch": "", "FAIL_TO_PASS": ["a.py::test_a"], "PASS_TO_PASS": []},
        "continual_learning": {"difficulty_score": 1, "sequence_position": 1, "modified_files": ["a.py"]},
        "sequence": {"id": "s", "dependencies_in_sequence": []},
        "swebench": {"version": version, "label_corrections_2026_08": None},
    }) + "\n"  # fmt: skip


def git(*arguments: str, cwd: Path, stdin: str = "") -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main")
    asked = ["git", *settings, *arguments]
    return subprocess.run(
        asked, cwd=cwd, input=stdin, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Of a repository with one commit, objects loose."""
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    (work / "data" / "big.txt").write_text("big\n")
    (work / "a.py").write_text("a = 1\n")
    git("init", "--quiet", cwd=work)
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "--message", "base", cwd=work)
    found = tmp_path / "mirrors" / "pytest-dev__pytest.git"
    git("clone", "--quiet", "--mirror", str(work), str(found), cwd=tmp_path)
    return found


def asked(tmp_path: Path, commit: str) -> dict[str, str]:
    data = tmp_path / "rows.jsonl"
    data.write_text(row("pytest-dev__pytest-5262", "pytest-dev/pytest", "4.5", commit))
    return {
        "LOOPER_HOME": str(tmp_path / "home"),
        "LOOPER_SWE_DATA": str(data),
        "LOOPER_MIRRORS": str(tmp_path / "mirrors"),
    }


def test_a_mirror_that_lacks_a_file_of_a_base_tree_is_named_with_the_object_and_its_path(
    tmp_path: Path, mirror: Path
) -> None:
    commit, blob, folder = git("rev-parse", "HEAD", "HEAD:data/big.txt", "HEAD:data", cwd=mirror).split()
    home = asked(tmp_path, commit)
    whole = looper("bench", "fetch", cwd=tmp_path, **home)
    assert whole.returncode == 0 and "holds all that 1 task begins with" in whole.stdout, whole.stderr
    for name, path in ((blob, "data/big.txt"), (folder, "data")):
        (mirror / "objects" / name[:2] / name[2:]).unlink()
        found = looper("bench", "fetch", cwd=tmp_path, **home)
        assert found.returncode == 2
        assert f"lacks the object {name}, which is {path}. Remove the folder" in one_line(found)
        git("hash-object", "-w", "--stdin", cwd=mirror, stdin="big\n")


def test_what_prepare_is_going_to_do_is_said_beforehand_and_what_cannot_be_done_at_the_end(
    tmp_path: Path, mirror: Path
) -> None:
    wrong = {**asked(tmp_path, "0" * 40), "LOOPER_PYTHON_3_9": "/dev/null"}
    found = looper("bench", "prepare", cwd=tmp_path, **wrong)
    lines = found.stdout.splitlines()
    assert lines[0].split() == ["environment", "Python", "tasks", "MiB", "seconds", "state"]
    assert lines[1].split()[:3] == ["pytest-4.5", "3.9", "1"] and lines[1].endswith("to be built")
    assert lines[2].startswith("1 of 1 environments to be built") and "free on the disk" in lines[2]
    assert "NOT BUILT for pytest-dev__pytest-5262: LOOPER_PYTHON_3_9 names /dev/null" in lines[-1]
    assert found.returncode == 69 and "1 task has no environment" in one_line(found)
    assert 'swe-bench-cl has no repository "nobody/x". It has: pytest-dev/pytest' in one_line(
        looper("bench", "prepare", "--repo", "nobody/x", cwd=tmp_path, **wrong)
    )


def test_fix_prints_the_line_that_installs_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(row("sphinx-doc__sphinx-1", "sphinx-doc/sphinx", "3.1", "0" * 40))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").symlink_to("/bin/true")
    home = {"LOOPER_HOME": str(tmp_path / "home"), "LOOPER_SWE_DATA": str(data), "PATH": str(programs)}
    root = "" if os.geteuid() == 0 else "sudo "
    found = looper("bench", "prepare", "--fix", cwd=tmp_path, **home)
    assert (
        found.stdout == f"{root}apt-get update && {root}apt-get install -y graphviz\n" and found.stderr == ""
    )
    (programs / "dot").symlink_to("/bin/true")
    found = looper("bench", "prepare", "--fix", cwd=tmp_path, **home)
    assert found.stdout == "" and found.returncode == 0 and "Nothing is missing" in found.stderr
    assert not (tmp_path / "home").exists(), "nothing is built"
