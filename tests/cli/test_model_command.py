"""`looper model` as a user meets it: a GGUF file becomes a model that a plan names, and that can be taught."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.utils import load
from tests.cli.test_commands import looper, one_line
from tests.edges.test_gguf import small

from looper.cli.teaching import iterations_for
from looper.errors import BadInput
from looper.records.teaching import Teaching


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
    small(tmp_path / "other.gguf", general__architecture="qwen9")
    small(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    for arguments, said in (
        (("add", "text.gguf"), "does not begin with GGUF"),
        (("add", "other.gguf"), "its architecture is qwen9, and only llama"),
        (("add", "half.gguf"), "half.gguf is cut short: "),
        (("add", "nothing.gguf"), "There is no file nothing.gguf. Name a GGUF file, or one of: smollm2."),
        (("rm", "nothing"), "There is no model nothing. There are: none."),
    ):
        found = looper("model", *arguments, cwd=tmp_path, LOOPER_HOME=str(tmp_path / "home"))
        assert found.returncode == 2 and said in one_line(found)
    nowhere = looper("model", "rm", "nothing", cwd=tmp_path, LOOPER_HOME="/dev/null/x")
    assert nowhere.returncode == 2 and "The folder /dev/null/x/models cannot be made" in one_line(nowhere)
    listed = looper("model", "list", cwd=tmp_path, LOOPER_HOME=str(tmp_path / "home"))
    assert (listed.returncode, listed.stdout) == (0, "") and "looper model add smollm2" in listed.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, state: Path) -> dict[str, str]:
    """Where `tiny`, a model that knows nothing, has been added and taught for eight iterations."""
    place = tmp_path_factory.mktemp("teaching")
    small(place / "small.gguf", "F32", llama__context_length=32_768)
    home = {"LOOPER_HOME": str(state)}
    added = looper("model", "add", "small.gguf", "--name", "tiny", cwd=place, timeout_s=PATIENCE_S, **home)
    assert added.returncode == 0, added.stderr
    made = looper(*TEACH, "taught", *SHORT, cwd=place, timeout_s=PATIENCE_S, **home)
    assert made.returncode == 0, made.stderr
    assert "8 iterations" in made.stdout and "any suite seed but 7000" in made.stdout
    assert "trajectories of the expert to learn from, in 1 repository" in made.stderr
    return home


PATIENCE_S = 1800
"""A teaching takes 40 CPU seconds, which on a busy machine are many minutes."""
TEACH = ("model", "teach", "--from", "tiny")
SHORT = ("--iterations", "8", "--repositories", "1")
PLAN = """
title = "Taught"
hypothesis = "It works."
factor = "nothing"
[[arms]]
name = "base"
role = "base"
[profiles.micro]
like = "micro"
[profiles.micro.tasks]
level = 1
repositories = 1
per_repo = 1
suite_seed = SEED
"""


def test_a_taught_model_is_a_model_of_its_own_with_its_record_and_card(
    home: dict[str, str], state: Path, tmp_path: Path
) -> None:
    folder = state / "models" / "taught"
    teaching = Teaching.from_json((folder / "teaching.json").read_bytes())
    assert [card.settings.iterations for card in teaching.stages] == [2, 4, 2] and teaching.iterations == 8
    assert (
        teaching.stages[2].start == teaching.stages[1].id
        and teaching.stages[1].start == teaching.stages[0].id
    )
    assert teaching.tasks.suite_seed == 7000 and len(teaching.repositories) == 1
    assert (
        teaching.attempts.seen == 12 and teaching.attempts.taken >= 8 and not teaching.attempts.dropped_steps
    )
    assert [point.iteration for point in teaching.losses] == [*range(1, 9)]
    assert all(card.cpu_seconds for card in teaching.stages)
    card = (folder / "README.md").read_text()
    assert teaching.repositories[0] in card and "--iterations 8 --seed 0 --repositories 1" in card
    listed = looper("model", "list", cwd=tmp_path, timeout_s=PATIENCE_S, **home).stdout.splitlines()
    assert any(line.startswith("taught") and "tiny, taught in 8 iterations" in line for line in listed)
    base, adapted = (
        mx.load(str(state / "models" / name / "model.safetensors")) for name in ("tiny", "taught")
    )
    adapter = mx.load(str(state / "adapters" / teaching.stages[2].id / "adapters.safetensors"))
    name = "model.layers.1.self_attn.q_proj"
    change = 2.0 * (adapter[f"{name}.lora_a"] @ adapter[f"{name}.lora_b"]).T
    assert mx.abs(change).max().item() > 0 and load(str(folder))
    assert mx.abs(base[f"{name}.weight"] + change - adapted[f"{name}.weight"]).max().item() < 1e-5


def test_a_taught_model_is_not_judged_where_it_was_taught(home: dict[str, str], tmp_path: Path) -> None:
    for seed, code in (("7000", 2), ("7001", 0)):
        (tmp_path / "mine.toml").write_text(PLAN.replace("SEED", seed))
        planned = looper(
            "plan", "mine.toml", "--model", "mlx:taught", cwd=tmp_path, timeout_s=PATIENCE_S, **home
        )
        assert planned.returncode == code, planned.stderr
        if code:
            assert "taught in the repositories of level 1 and suite seed 7000" in one_line(planned)


@pytest.mark.proof
def test_teaching_that_was_killed_goes_on_from_its_checkpoint(
    home: dict[str, str], state: Path, tmp_path: Path
) -> None:
    longer = (*TEACH, "killed", "--iterations", "44", "--repositories", "1")
    argv = [sys.executable, "-m", "looper.cli.main", *longer]
    environment = {**os.environ, **home, "LOOPER_RUNS": str(tmp_path / "runs")}
    adapters = state / "adapters"
    before = {path.name for path in adapters.iterdir()}
    first = subprocess.Popen(argv, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not (found := [*adapters.glob(".work-*/checkpoint.safetensors")]):
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    done = json.loads(mx.load(str(found[0]), return_metadata=True)[1]["state"])
    assert done["done"] >= 10 and not (state / "models" / "killed").exists()
    went_on = looper(*longer, cwd=tmp_path, timeout_s=PATIENCE_S, **home)
    assert went_on.returncode == 0, went_on.stderr
    assert "cells" not in went_on.stderr, "the expert worked a second time"
    teaching = Teaching.from_json((state / "models" / "killed" / "teaching.json").read_bytes())
    assert [card.settings.iterations for card in teaching.stages] == [10, 23, 11]
    cards = {card.id: card for card in teaching.stages}
    made = {path.name for path in adapters.iterdir() if path.suffix != ".lock"} - before
    assert made == {*cards}, "something was trained twice, or left"
    losses = [point["loss"] for point in done["losses"]]
    card = cards[found[0].parent.name.removeprefix(".work-")]
    assert [point.loss for point in card.train_losses][: len(losses)] == losses


def test_what_cannot_be_taught_is_one_line(home: dict[str, str], state: Path, tmp_path: Path) -> None:
    for arguments, code, said in (
        (
            ("taught",),
            2,
            "There is a model taught already. Remove it (looper model rm taught), or choose another NAME.",
        ),
        (("a/b",), 2, '"a/b" cannot name a model'),
        (
            ("new", "--minutes", "1", "--iterations", "9"),
            2,
            "--minutes and --iterations both say how long to train",
        ),
        (("new", "--from", "smollm2"), 2, "looper model add smollm2"),
        (
            ("new", "--from", "taught"),
            2,
            "taught was taught here already, and a model is taught once. Name what it was made of: --from tiny",
        ),
        (("new", "--from", "nowhere"), 2, "looper model list"),
    ):
        found = looper(
            "model", "teach", "--from", "tiny", *arguments, cwd=tmp_path, timeout_s=PATIENCE_S, **home
        )
        assert found.returncode == code and said in one_line(found), found.stderr
    file = state / "models" / "taught" / "teaching.json"
    slow = Teaching.from_json(file.read_bytes()).stages[0].model_copy(update={"cpu_seconds": 20.0})
    assert iterations_for(10.0, slow) == 60
    with pytest.raises(
        BadInput, match="1 minutes are enough for 6, and 20 are the least. Give it --minutes 4 or more"
    ):
        iterations_for(1.0, slow)
    file.write_text("{")
    (tmp_path / "mine.toml").write_text(PLAN.replace("SEED", "7001"))
    damaged = looper("plan", "mine.toml", "--model", "mlx:taught", cwd=tmp_path, timeout_s=PATIENCE_S, **home)
    assert damaged.returncode == 2 and "nobody knows what this model was taught" in one_line(damaged)
