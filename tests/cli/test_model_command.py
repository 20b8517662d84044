"""`looper model` as a user meets it: a GGUF file becomes a model that a plan names."""

from pathlib import Path

from tests.cli.test_commands import looper, one_line
from tests.edges.test_gguf import small


def test_a_model_is_added_listed_named_and_removed(tmp_path: Path, state: Path) -> None:
    small(tmp_path / "small.gguf", "Q4_1", llama__context_length=32_768)
    home = {"LOOPER_HOME": str(state)}
    added = looper("model", "add", "small.gguf", "--name", "tiny", cwd=tmp_path, **home)
    assert added.returncode == 0 and added.stdout.endswith("tiny: looper run exp00 --model mlx:tiny\n")
    again = looper("model", "add", "small.gguf", "--name", "tiny", cwd=tmp_path, **home)
    assert again.returncode == 2 and "There is a model tiny already" in one_line(again)
    listed = looper("model", "list", cwd=tmp_path, **home)
    assert "tiny  0 MB, llama, 2 layers, window 32768 tokens" in listed.stdout.splitlines()
    planned = looper("plan", "exp00", "--model", "mlx:tiny", cwd=tmp_path, **home)
    assert "memory: training takes up to" in planned.stdout, planned.stdout
    removed = looper("model", "rm", "tiny", cwd=tmp_path, **home)
    assert removed.returncode == 0 and removed.stdout == "tiny is removed\n"
    gone = looper("run", "exp00", "--model", "mlx:tiny", "--arm", "base", "--fresh", cwd=tmp_path, **home)
    assert gone.returncode == 2 and "looper model list" in one_line(gone)


def test_what_cannot_be_added_or_removed_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    for arguments, said in (
        (("add", "text.gguf"), "does not begin with GGUF"),
        (("add", "nothing.gguf"), "There is no file nothing.gguf. Name a GGUF file, or one of: smollm2."),
        (("rm", "nothing"), "There is no model nothing. There are: none."),
    ):
        found = looper("model", *arguments, cwd=tmp_path, LOOPER_HOME=str(tmp_path / "home"))
        assert found.returncode == 2 and said in one_line(found)
    nowhere = looper("model", "rm", "nothing", cwd=tmp_path, LOOPER_HOME="/dev/null/x")
    assert nowhere.returncode == 2 and "The folder /dev/null/x/models cannot be made" in one_line(nowhere)
    listed = looper("model", "list", cwd=tmp_path, LOOPER_HOME=str(tmp_path / "home"))
    assert (listed.returncode, listed.stdout) == (0, "") and "looper model add smollm2" in listed.stderr
