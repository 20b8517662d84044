"""Runs on servers whose every answer has another date, and that go away. Rows J1, J6."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.experiment.test_run import Project
from tests.fakes.backends import OLLAMA, VLLM, Running, llama_cpp_with, ollama_server, vllm_server
from tests.fakes.gguf_file import nano as write_nano
from tests.fakes.ollama_server import FakeOllama
from tests.fakes.routes import llamacpp, mlx_lm, routes, said, vllm
from tests.fakes.scripted_http import ScriptedServer, free_port, whole

from looper.edges.models.mlx import nano_folder
from looper.edges.models.openai_compatible import LLAMA_CPP_TEMPLATE
from looper.edges.models.scripted import ScriptedModel
from looper.journal import read_stream
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Outcome
from looper.views.runs import read_run

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
        # Both at once: the server may be up minutes later.
        running.start()
        killed.environment["LOOPER_SERVER_WAIT_S"] = str(running.within_s)
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


def two_arms_on(project: Project, *ports: int) -> tuple[str, ...]:
    """Two arms of eight cells each, on servers at these ports; the command."""
    plan = project.folder / "experiments" / "test.toml"
    again = '[[arms]]\nname = "again"\nrole = "again"\nrepetition = 1\n[profiles.micro]'
    whole = plan.read_text().replace("[profiles.micro]", again, 1).replace("seeds = [0]", "seeds = [0, 1]")
    plan.write_text(whole.replace("temperature = 0.0", "temperature = 0.5"))
    servers = ",".join(f"http://127.0.0.1:{port}/v1" for port in ports)
    return ("run", "test", "--arm", "base", "--arm", "again", "--model", f"openai:m@{servers}")


def rollouts_by_server(project: Project) -> dict[tuple[str, tuple[int, ...] | None], int]:
    """Of those that count: on a loaded machine one may have been tried again."""
    return Counter((end.arm, end.servers) for end in read_run(project.run).last_ends.values())


def test_several_servers_of_one_model_answer_every_arm_equally_often(project: Project) -> None:
    ports = [free_port() for _ in range(4)]
    asked = two_arms_on(project, *ports)
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(serving(llamacpp(), port))
        done = project.looper(*asked)
        assert done.returncode == 0, done.stderr
    assert read_run(project.run).sessions[-1].workers == 8, "two for each server"
    shares = rollouts_by_server(project)
    assert shares == {(arm, (server,)): 2 for arm in ("base", "again") for server in (1, 2, 3, 4)}
    at = {
        end.cell.partition("/")[2]: end.servers
        for end in read_stream(project.run, "trajectories", Trajectory)
        if end.arm == "base"
    }
    assert at == {
        end.cell.partition("/")[2]: end.servers
        for end in read_stream(project.run, "trajectories", Trajectory)
        if end.arm == "again"
    }, "what differs between servers is no part of a pair's difference"
    steps = list(read_stream(project.run, "steps", Step))
    assert len({(step.cell, step.reply.server) for step in steps}) == 16, "a rollout stays where it began"
    assert project.looper("report", "test", "--verify").returncode == 0
    assert project.looper("report", "test").returncode == 0
    report = (project.run / "report.md").read_text()
    assert "rollouts by server" not in report
    for port in ports:
        assert f"server http://127.0.0.1:{port}/v1: 4 rollouts, 0 resolved; ended by done 4" in report


def test_a_server_that_is_gone_for_good_costs_no_cell_where_others_have_the_model(project: Project) -> None:
    ports = [free_port(), free_port()]
    asked = two_arms_on(project, *ports)
    with serving(vllm(), ports[0]):
        with serving(vllm(), ports[1]):
            process = project.start(*asked, "--workers", "2")
            while len(project.verdicts()) < 3 and process.poll() is None:
                time.sleep(0.02)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        gone = f"The model server at http://127.0.0.1:{ports[1]}/v1"
        (told,) = {line for line in err.splitlines() if "Another server of the model is asked" in line}
        assert gone in told
        assert len(project.verdicts()) == 16
        assert {verdict.attempt for verdict in project.verdicts()} == {1}
        assert project.looper("report", "test", "--verify").returncode == 0


def test_a_server_that_falls_silent_ends_no_rollout_where_another_answers(project: Project) -> None:
    """It goes on to list its model, and says no word of any reply for as long as the rollout has."""
    ports = [free_port(), free_port()]
    asked = two_arms_on(project, *ports)
    plan = project.folder / "experiments" / "test.toml"
    plan.write_text(plan.read_text().replace("wall_s = 60.0", "wall_s = 5.0"))

    def silent(request: bytes) -> Any:
        if b" /v1/chat/completions " not in request.split(b"\r\n")[0]:
            return routes(vllm())(request)
        return said("keel-4417-amber", request) if b"The code word is" in request else ["hang"]

    with serving(vllm(), ports[0]), ScriptedServer(silent, port=ports[1]):
        ran = project.looper(*asked, "--workers", "4")
    assert ran.returncode == 0, ran.stderr
    ends = list(read_stream(project.run, "trajectories", Trajectory))
    assert len(ends) == 16 and {end.stop_reason.value for end in ends} == {"done"}
    assert {end.servers for end in ends} == {(1,)} and "did not finish its reply" in ran.stderr


def test_servers_that_are_not_one_model_and_addresses_that_are_none_are_refused_in_a_line(
    project: Project,
) -> None:
    ports = [free_port(), free_port()]
    asked = two_arms_on(project, *ports)
    with serving(vllm(version="0.32.0"), ports[0]), serving(vllm(version="0.31.0"), ports[1]):
        refused = project.looper(*asked)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert (
        f"http://127.0.0.1:{ports[1]}/v1 has another m than http://127.0.0.1:{ports[0]}/v1: backend_version vLLM 0.31.0 and not vLLM 0.32.0"
        in refused.stderr
    )
    for given, why in [
        ("http://a:1,b:2", '"b:2" is no address that can be used'),
        ("http://a:1,", '"" is no address that can be used'),
        ("http://a:1, http://b:2", "no space between them"),
        ("http://a:1/v1,http://a:1", "http://a:1/v1 and http://a:1 are one server"),
        ("http://localhost:1,http://127.0.0.1:1/v1/", "are one server"),
        ("HTTP://A:1,http://a:1", "are one server"),
        ("http://me:hunter2@a:1", "addresses are recorded. Set OPENAI_API_KEY to it"),
        ("http://a:99999", "Port out of range"),
    ]:
        said = project.looper(*asked[:-1], f"openai:m@{given}")
        assert said.returncode == 2 and why in said.stderr and "hunter2" not in said.stderr, said.stderr
        planned = project.looper("plan", *asked[1:-1], f"openai:m@{given}")
        assert planned.returncode == 2 and why in planned.stderr, planned.stderr


@pytest.mark.proof
def test_a_run_on_two_real_servers_of_which_one_is_killed_ends_as_one_on_a_single_server(
    tmp_path: Path, state: Path
) -> None:
    """At temperature 0, with the embedded model behind llama.cpp's server twice."""
    write_nano(tmp_path / "nano.gguf")
    servers = [llama_cpp_with(tmp_path / "nano.gguf", 2048) for _ in range(2)]
    found = list[Project]()
    for name in ("pool", "one"):
        (tmp_path / name).mkdir()
        found.append(Project(tmp_path / name, state / name))
    pool, one = found
    skipped = [each for each in servers if isinstance(each, str)]
    if skipped:
        pytest.skip(skipped[0])
    first, second = (each for each in servers if not isinstance(each, str))
    addresses = [f"http://127.0.0.1:{each.port}/v1" for each in (first, second)]
    for project, model in ((pool, ",".join(addresses)), (one, addresses[0])):
        (project.folder / "profile.toml").write_text(NANO.format(model=f"openai:m@{model}"))
    asked = ("run", "exp00", "--profile", "profile.toml", "--arm", "base", "--workers", "2")
    try:
        first.restart()
        second.restart()
        process = pool.start(*asked)
        seen: list[Step] = []
        while process.poll() is None and not any(step.reply.server == 2 and step.index == 2 for step in seen):
            seen = list(read_stream(pool.run, "steps", Step)) if any(pool.folder.glob("runs/*")) else []
            time.sleep(0.02)
        second.kill()
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert err.count("Another server of the model is asked in its place") == 1
        other = one.looper(*asked)
        assert other.returncode == 0, other.stderr
    finally:
        first.kill()
        second.kill()
    assert pool.facts() == one.facts() and len(pool.facts()) == 4
    ends = {end.cell: end.servers for end in read_stream(pool.run, "trajectories", Trajectory)}
    assert (2, 1) in ends.values(), "one that was at the other went on here"
    assert {end.attempt for end in read_stream(pool.run, "trajectories", Trajectory)} == {1}


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


def test_a_server_that_is_being_started_is_waited_for_as_long_as_is_set(project: Project) -> None:
    port = free_port()
    asked = ("run", "test", "--arm", "base", "--model", f"vllm:m@http://127.0.0.1:{port}")
    at_once = project.looper(*asked)
    (said,) = at_once.stderr.strip().splitlines()
    assert at_once.returncode == 69 and "cannot be reached. Start the server" in said
    assert "LOOPER_SERVER_WAIT_S=600 waits for one that is starting" in said
    project.environment["LOOPER_SERVER_WAIT_S"] = "ten"
    wrong = project.looper(*asked)
    assert wrong.returncode == 2 and "LOOPER_SERVER_WAIT_S=ten is no number of seconds" in wrong.stderr
    project.environment["LOOPER_SERVER_WAIT_S"] = "4"
    begun = time.monotonic()
    too_short = project.looper(*asked)
    assert too_short.returncode == 69 and "Asking again in" in too_short.stderr
    assert time.monotonic() - begun > 4
    project.environment["LOOPER_SERVER_WAIT_S"] = "60"
    process = project.start(*asked)
    # Longer than was too short before.
    time.sleep(6)
    assert process.poll() is None
    with serving(vllm(), port):
        _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert "cannot be reached" in err and len(project.verdicts()) == 4


def model(backend: str, name: str, url: str) -> str:
    return f"{backend}:{name}@{url}{'/v1' if backend == 'openai' else ''}"


def refused_at_once(project: Project, name: str) -> tuple[int, str]:
    """The exit code and the one line that is said of a model, before anything was waited for."""
    done = project.looper("run", "test", "--arm", "base", "--model", name)
    assert "Asking again" not in done.stderr and "Traceback" not in done.stderr and not project.verdicts()
    *_, said = done.stderr.strip().splitlines()
    assert said.startswith("looper: "), done.stderr
    return done.returncode, said


SERVED = {"openai": llamacpp(), "vllm": vllm(), "ollama": {"/api/tags": {"models": [{"model": "m"}]}}}


@pytest.mark.parametrize("backend", SERVED)
def test_a_wrong_address_name_or_key_is_one_line_at_once_with_what_to_do(
    project: Project, backend: str
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    code, said = refused_at_once(project, model(backend, "m", nobody))
    assert code == 69 and f"{nobody.removeprefix('http://')}" in said and "cannot be reached. Start" in said
    for address in ("http://[::1", "http://127.0.0.1:99999", "http:/127.0.0.1:1", "http://127.0.0.1:x"):
        code, said = refused_at_once(project, model(backend, "m", address))
        assert code == 2 and "no address that can be used" in said, said
    with ScriptedServer(routes(SERVED[backend])) as server:
        code, said = refused_at_once(project, model(backend, "other", server.url))
    assert code == 2 and "has no model other" in said and "t has: m" in said
    with ScriptedServer(whole(401, b'{"error":"Unauthorized"}')) as server:
        code, said = refused_at_once(project, model(backend, "m", server.url))
        variable = "VLLM_API_KEY" if backend == "vllm" else "OPENAI_API_KEY"
        assert code == 69 and "refused the key (401): Unauthorized. " in said and variable in said
        project.environment[variable] = "wrong"
        code, said = refused_at_once(project, model(backend, "m", server.url))
    assert backend == "ollama" or (f"Set {variable} to another key." in said and "wrong" not in said)


@pytest.mark.parametrize("backend", SERVED)
def test_a_port_of_another_service_is_said_at_once(project: Project, backend: str) -> None:
    with ScriptedServer([b"SSH-2.0-OpenSSH_9.2\r\nInvalid SSH identification string.\r\n"]) as ssh:
        code, said = refused_at_once(project, model(backend, "m", ssh.url))
    assert code in (2, 69) and re.search("hung up without an answer|does not speak HTTP", said)
    files = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port := free_port())]
    with subprocess.Popen(
        files, cwd=project.folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as of_files:
        try:
            wait_for(port)
            code, said = refused_at_once(project, model(backend, "m", f"http://127.0.0.1:{port}"))
        finally:
            of_files.kill()
    assert code == 2 and re.search("has no list of models. .*(correct the address|Is the address)", said)


def wait_for(port: int) -> None:
    """Until somebody listens there."""
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


NO_TEMPLATE = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template"
"""vLLM's words for a model without one."""


def test_a_model_without_a_chat_template_is_said_before_the_first_task(
    project: Project, tmp_path: Path
) -> None:
    refusal = whole(400, json.dumps({"error": {"message": NO_TEMPLATE, "code": 400}}).encode())
    with ScriptedServer(routes(vllm() | {"/v1/chat/completions": refusal})) as server:
        code, said = refused_at_once(project, model("vllm", "m", server.url))
    assert (
        code == 69 and "chat template is no longer allowed" in said and "Give it a chat template with" in said
    )
    shown = {"template": "{{ .Prompt }}", "model_info": {"llama.context_length": 8192}}
    entry = {"model": "m", "digest": "a" * 64}
    given = {"/api/tags": {"models": [entry]}, "/api/version": {"version": "0.24.0"}, "/api/show": shown}
    with ScriptedServer(routes(given)) as server:
        code, said = refused_at_once(project, model("ollama", "m", server.url))
    assert code == 69 and "leaves out what a system says ({{ .Prompt }}). Give it a chat template" in said
    for tokens, refused in ((13, True), (1, False)):
        given = llamacpp(template=LLAMA_CPP_TEMPLATE) | {"/tokenize": {"tokens": list(range(tokens))}}
        with ScriptedServer(routes(given)) as server:
            code, said = refused_at_once(project, model("openai", "m", server.url))
        assert code != 0 and ("<|im_start|> is no token of it. Give it a chat template" in said) == refused
    copy = Path(shutil.copytree(nano_folder(), tmp_path / "copy"))
    plan = project.folder / "experiments" / "test.toml"
    plan.write_text(plan.read_text().replace("context_tokens = 8000", "context_tokens = 2048"))
    (copy / "chat_template.jinja").unlink()
    code, said = refused_at_once(project, f"mlx:{copy}")
    assert code == 69 and "chat_template is not set" in said and "Give it a chat template" in said


def test_a_file_that_ollama_cannot_load_is_said_at_once(project: Project) -> None:
    refusal = whole(500, b'{"error":"unable to load model: /models/blobs/sha256-aba4"}')
    entry = {"model": "m", "digest": "a" * 64}
    given = {"/api/tags": {"models": [entry]}, "/api/version": {"version": "0.24.0"}, "/api/chat": refusal}
    with ScriptedServer(routes(given)) as server:
        code, said = refused_at_once(project, model("ollama", "m", server.url))
    assert (
        code == 69
        and "unable to load model: /models/blobs/sha256-aba4. Get its file again, or a version" in said
    )


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
        assert f"a window of {window} tokens, and the plan wants 8000. Lower" in done.stderr
        assert not [each for each in server.requests if each.startswith(b"POST")]
    with FakeOllama("m", ScriptedModel(["<done></done>"])) as ollama:
        done = project.looper("run", "test", "--arm", "base", "--model", f"ollama:m@{ollama.url}")
    assert done.returncode == 69 and "a window of 4096 tokens, and the plan wants" in done.stderr
    done = project.looper("run", "test", "--arm", "base", "--model", f"mlx:{nano_folder()}")
    assert done.returncode == 69 and "a window of 4096 tokens, and the plan wants" in done.stderr
