"""Runs on servers whose every answer has another date, and that go away. Rows J1, J6."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.test_run import Project
from tests.fakes.backends import OLLAMA, VLLM, Running, llama_cpp_with, ollama_server, vllm_server
from tests.fakes.gguf_file import nano as write_nano
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


NANO = """
model = "{model}"
scaffold = "terse"
temperature = 0.0
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
context_tokens = 2048
wall_s = 600.0
command_s = 20.0
verify_s = 60.0
"""


def _nano_on(server: str, folder: Path) -> Running | str:
    if server == OLLAMA:
        return ollama_server(folder, False)
    if server == VLLM:
        return vllm_server(folder, False, 2048)
    write_nano(folder / "nano.gguf")
    return llama_cpp_with(folder / "nano.gguf", 2048)


@pytest.mark.proof
@pytest.mark.parametrize("server", ["llama.cpp", VLLM, OLLAMA])
def test_a_run_that_is_killed_with_a_real_server_goes_on_from_its_last_step_and_ends_as_an_undisturbed_one(
    tmp_path: Path, state: Path, server: str
) -> None:
    """Step by step, at temperature 0, with the embedded model behind the server."""
    running = _nano_on(server, tmp_path)
    if isinstance(running, str):
        pytest.skip(running)
    url = f"http://127.0.0.1:{running.port}"
    model = {OLLAMA: f"ollama:nano@{url}", VLLM: f"vllm:nano@{url}"}.get(server, f"openai:m@{url}/v1")
    asked = ("run", "exp00", "--profile", "profile.toml", "--arm", "base", "--workers", "1")

    def project(name: str) -> Project:
        (tmp_path / name).mkdir()
        found = Project(tmp_path / name, state / name)
        (found.folder / "profile.toml").write_text(NANO.format(model=model))
        return found

    def steps(of: Project) -> list[Step]:
        return list(read_stream(of.run, "steps", Step)) if (of.folder / "runs").exists() else []

    killed, undisturbed = project("killed"), project("undisturbed")
    try:
        running.restart()
        other = undisturbed.looper(*asked)
        assert other.returncode == 0, other.stderr
        process = killed.start(*asked)
        # In the middle of the second cell.
        while process.poll() is None and len([each for each in steps(killed) if each.index == 2]) < 2:
            time.sleep(0.02)
        process.kill()
        running.kill()
        process.communicate()
        before, done_before = steps(killed), len(killed.verdicts())
        assert 1 <= done_before < 4 and len({each.cell for each in before}) > done_before
        running.restart()
        done = killed.looper(*asked)
        assert done.returncode == 0, done.stderr
    finally:
        running.kill()
    after = steps(killed)
    assert after[: len(before)] == before, "what was recorded stands"
    assert {each.attempt for each in after} == {1}, "and no cell was begun again"
    assert killed.facts() == undisturbed.facts() and len(killed.facts()) == 4
    said = [
        {(each.cell, each.index): (each.reply.text, each.observation) for each in steps(of)}
        for of in (killed, undisturbed)
    ]
    assert said[0] == said[1] and len(said[0]) == len(after)


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
