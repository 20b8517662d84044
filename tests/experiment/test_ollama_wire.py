"""The Ollama path with a real model behind the wire: the embedded one, served by a fake Ollama on loopback."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.ollama_server import FakeOllama

from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.scripted import ScriptedModel
from looper.errors import ModelMissing
from looper.experiment.checks import SENTINEL
from looper.journal import read_stream
from looper.protocols import ChatModel, ChatRequest
from looper.records.trajectory import Reply, Step, StopReason, Trajectory
from looper.records.verdict import Outcome, Verdict

PROFILE = """
model = "{model}"
scaffold = "{scaffold}"
temperature = 0.7
seeds = [0]
order = "parallel"
arms = ["base"]
[tasks]
suite = "micro"
per_repo = 1
limit = 4
[limits]
steps = 6
output_tokens = 80
context_tokens = 4096
wall_s = {wall_s}
command_s = 10.0
verify_s = 60.0
"""


@pytest.fixture(scope="module")
def nano() -> Iterator[ChatModel]:
    model = MlxModel(nano_folder(), name="nano", context_tokens=4096)
    yield model
    model.close()


def run(
    folder: Path, state: Path, model: str, scaffold: str, wall_s: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    (folder / "profile.toml").write_text(PROFILE.format(model=model, scaffold=scaffold, wall_s=wall_s))
    argv = [
        sys.executable,
        "-m",
        "looper.cli.main",
        "run",
        "exp00",
        "--profile",
        "profile.toml",
        "--arm",
        "base",
    ]
    environment = {**os.environ, "LOOPER_HOME": str(state / "ollama"), "LOOPER_RUNS": str(folder / "runs")}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_an_experiment_runs_over_the_ollama_wire(tmp_path: Path, state: Path, nano: ChatModel) -> None:
    with FakeOllama("nano:latest", nano) as server:
        done = run(tmp_path, state, f"ollama:nano@{server.url}", "terse")
    assert done.returncode == 0, done.stderr
    folder = next((tmp_path / "runs").iterdir())
    verdicts = list(read_stream(folder, "verdicts", Verdict))
    assert len(verdicts) == 4 and all(verdict.outcome.is_verdict for verdict in verdicts)
    steps = list(read_stream(folder, "steps", Step))
    acted = sum(step.action is not None for step in steps)
    assert acted / len(steps) > 0.8, "the model behind the wire drives the protocol"
    assert all(
        step.reply.usage.prompt_tokens and step.reply.usage.counted_by == "ollama nano" for step in steps
    )
    end = next(read_stream(folder, "trajectories", Trajectory))
    assert (end.model.backend, end.model.quantisation, end.model.context_tokens) == ("ollama", "F32", 4096)


@pytest.mark.parametrize(
    "words",
    [
        "I cannot help with that.",
        "<bash>exit 1</bash>\n<bash>",
        "<think>",
        "```\n<done/>\n```",
        "\x1b]0;title\x07 \ud7ff <edit>",
    ],
)
def test_a_run_ends_cleanly_whatever_the_model_says(tmp_path: Path, state: Path, words: str) -> None:
    with FakeOllama("talker:latest", ScriptedModel([words])) as server:
        done = run(tmp_path, state, f"ollama:talker@{server.url}", "full")
    assert done.returncode == 0, done.stderr
    verdicts = list(read_stream(next((tmp_path / "runs").iterdir()), "verdicts", Verdict))
    assert {verdict.outcome for verdict in verdicts} == {Outcome.UNRESOLVED}


def test_l15_a_second_run_waits_for_nobody_and_names_the_holder(
    tmp_path: Path, state: Path, nano: ChatModel
) -> None:
    from looper.edges.machine import inference_lock

    with FakeOllama("nano:latest", nano) as server, inference_lock(state / "ollama"):
        refused = run(tmp_path, state, f"ollama:nano@{server.url}", "terse")
        assert (
            refused.returncode == 75
            and str(os.getpid()) in refused.stderr
            and "--share-machine" in refused.stderr
        )


def test_c14_a_wrong_name_is_said_before_anybody_waits_for_the_machine(
    tmp_path: Path, state: Path, nano: ChatModel
) -> None:
    from looper.edges.machine import inference_lock

    with FakeOllama("nano:latest", nano) as server, inference_lock(state / "ollama"):
        refused = run(tmp_path, state, f"ollama:other@{server.url}", "terse")
    assert refused.returncode == 2 and "ollama pull other" in refused.stderr


class Slow(ScriptedModel):
    """Works at once when it is only asked to repeat a word, and takes its time over a task."""

    def reply(self, request: ChatRequest) -> Reply:
        if SENTINEL not in request.messages[-1][1]:
            time.sleep(3.0 * len(request.messages) - 6.0)
        return super().reply(request)


def test_c9_a_reply_that_takes_longer_than_is_left_is_the_rollouts_end(tmp_path: Path, state: Path) -> None:
    model = Slow(['<write path="new.py">\nx = 1\n</write>', "<done></done>"])
    with FakeOllama("slow:latest", model) as server:
        done = run(tmp_path, state, f"ollama:slow@{server.url}", "full", wall_s=3.0)
    assert done.returncode == 0, done.stderr
    folder = next((tmp_path / "runs").iterdir())
    ends = list(read_stream(folder, "trajectories", Trajectory))
    assert {(end.stop_reason, end.steps) for end in ends} == {(StopReason.TIME_LIMIT, 1)}
    assert all("new.py" in end.patch and end.stop_cause.startswith("ReplyLate") for end in ends)
    assert {verdict.outcome for verdict in read_stream(folder, "verdicts", Verdict)} == {Outcome.UNRESOLVED}


class Loading(ScriptedModel):
    """Its server has to load it first."""

    loaded = False

    def reply(self, request: ChatRequest) -> Reply:
        if not self.loaded:
            self.loaded = True
            time.sleep(11.0)
        return super().reply(request)


def test_m18_a_server_that_loads_its_model_is_waited_for_with_a_line_within_ten_seconds(
    tmp_path: Path, state: Path
) -> None:
    with FakeOllama("slow:latest", Loading(["<done></done>"])) as server:
        done = run(tmp_path, state, f"ollama:slow@{server.url}", "terse")
    assert done.returncode == 0, done.stderr
    # Again and again: tests/cli/test_progress.py.
    said = re.findall(r"base: checking the context, for (\d+) s", done.stderr)
    assert said and int(said[0]) <= 10, done.stderr


def test_the_fake_speaks_as_the_package_expects(nano: ChatModel) -> None:
    with FakeOllama("nano:latest", nano) as server:
        found = OllamaModel("nano", base_url=server.url, context_tokens=2048).identity()
        assert found.name == "nano" and len(found.digest) == 64
        with pytest.raises(ModelMissing, match="ollama pull other"):
            OllamaModel("other", base_url=server.url, context_tokens=2048).identity()
    assert json.dumps(found.model_dump())
