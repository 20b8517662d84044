"""Runs on servers whose every answer has another date, and that go away. Rows J1, J6."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.test_run import Project
from tests.fakes.ollama_server import FakeOllama
from tests.fakes.routes import llamacpp, mlx_lm, routes, said, vllm
from tests.fakes.scripted_http import ScriptedServer, free_port

from looper.edges.models.scripted import ScriptedModel
from looper.journal import read_stream
from looper.records.trajectory import Step
from looper.records.verdict import Outcome

TURNS = ("<bash>echo one > note.txt</bash>", "<read>check.py</read>", "<done>that is all</done>")


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Project:
    return Project(tmp_path, state)


def serving(given: Mapping[str, Any], port: int) -> ScriptedServer:
    """Every conversation is said the turns in order, and the proof of the window is no conversation."""

    def answer(request: bytes) -> Any:
        if b" /v1/chat/completions " not in request.split(b"\r\n")[0]:
            return routes(given)(request)
        if b"The code word is" in request:
            return said("keel-4417-amber", request)
        return [0.1, *said(TURNS[request.count(b'"role": "assistant"')], request)]

    return ScriptedServer(answer, port=port)


@pytest.mark.parametrize("given", [vllm(), llamacpp(), mlx_lm()], ids=["vllm", "llama.cpp", "mlx_lm"])
def test_j1_a_run_that_is_killed_with_its_server_goes_on_and_a_finished_one_does_nothing(
    project: Project, given: Mapping[str, Any]
) -> None:
    port = free_port()
    asked = (
        "run",
        "test",
        "--arm",
        "base",
        "--workers",
        "1",
        "--model",
        f"openai:m@http://127.0.0.1:{port}/v1",
    )
    with serving(given, port):
        process = project.start(*asked)
        while not project.verdicts() and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.communicate()
    with serving(given, port) as server:
        before = len(project.verdicts())
        assert 0 < before < 4
        done = project.looper(*asked)
        assert done.returncode == 0, done.stderr
        assert f"4 cells, {before} done before" in done.stderr
        assert len(project.verdicts()) == 4 and len(list((project.folder / "runs").iterdir())) == 1
        seen = [(step.cell, step.attempt, step.index) for step in read_stream(project.run, "steps", Step)]
        assert len(seen) == len(set(seen)) == 12, "no step is recorded twice"
        server.requests.clear()
        again = project.looper(*asked)
        assert again.returncode == 0 and again.stdout == done.stdout
        assert not [each for each in server.requests if each.startswith(b"POST")], "nothing was asked again"


def test_j6_a_server_that_goes_away_between_two_cells_costs_seconds_and_no_cell(project: Project) -> None:
    port = free_port()
    asked = (
        "run",
        "test",
        "--arm",
        "base",
        "--workers",
        "1",
        "--model",
        f"openai:m@http://127.0.0.1:{port}/v1",
    )
    with serving(vllm(), port):
        process = project.start(*asked)
        while not project.verdicts() and process.poll() is None:
            time.sleep(0.02)
    time.sleep(3.0)
    with serving(vllm(), port):
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(project.verdicts()) == 4
    assert Outcome.INFRA_ERROR not in {verdict.outcome for verdict in project.verdicts()}
    assert "cannot be reached" in err and "Asking again in" in err


def test_m23_a_window_that_the_server_does_not_have_is_said_before_anything_is_asked(
    project: Project,
) -> None:
    shorter = llamacpp(default_generation_settings={"params": {}, "n_ctx": 512})
    for given, window in ((vllm(max_model_len=2048), 2048), (shorter, 512)):
        port = free_port()
        with serving(given, port) as server:
            done = project.looper(
                "run", "test", "--arm", "base", "--model", f"openai:m@http://127.0.0.1:{port}/v1"
            )
        assert done.returncode == 69 and "Traceback" not in done.stderr
        assert (
            f"a window of {window} tokens where it is served, and the plan wants 8000. Lower" in done.stderr
        )
        assert not [each for each in server.requests if each.startswith(b"POST")]
    with FakeOllama("m", ScriptedModel(["<done></done>"])) as ollama:
        done = project.looper("run", "test", "--arm", "base", "--model", f"ollama:m@{ollama.url}")
    assert done.returncode == 69 and "a window of 4096 tokens where it is served" in done.stderr
