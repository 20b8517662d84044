"""What `looper doctor` says of a machine, from the machine itself; of model servers, from servers on loopback."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_commands import looper
from tests.edges.test_gguf import converted_here, small
from tests.fakes.routes import META, listed, llamacpp, mlx_lm, routes, vllm
from tests.fakes.scripted_http import Answer, ScriptedServer, free_port, whole

from looper.edges.doctor import Check, of_models, working_trees
from looper.edges.models import inventory
from looper.edges.models.mlx import nano_folder


def test_working_trees_are_ok_where_files_are_made_quickly(tmp_path: Path) -> None:
    (found,) = working_trees(tmp_path / "not" / "there", tmp_path, slow_ms=1e9)
    assert (
        found.level == "ok" and "ms to make and remove a file" in found.found and not list(tmp_path.iterdir())
    )


def test_memory_that_is_no_quicker_is_not_recommended(tmp_path: Path) -> None:
    (found,) = working_trees(tmp_path, tmp_path / "absent", slow_ms=0.0)
    assert found.level == "ok" and not found.fix


def test_memory_that_cannot_be_written_to_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    (found,) = working_trees(tmp_path, Path("/proc"), slow_ms=0.0)
    assert found.level == "ok" and not found.fix


def test_a_place_that_cannot_be_written_to_is_named() -> None:
    (found,) = working_trees(Path("/proc/looper"), Path("/proc"), slow_ms=0.0)
    assert found.level == "note" and "/proc" in found.found


NOWHERE = Path("/no/such/folder")


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither servers nor downloads of whoever tries this are looked at."""
    monkeypatch.setattr(inventory, "USUAL", {f"http://127.0.0.1:{free_port()}": "Ollama"})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for patience in ("ANSWER_S", "NAMED_S"):
        monkeypatch.setattr(inventory, patience, 20.0)  # Of a machine that does much else at the same time.


def of(given: Mapping[str, Any] | Answer, wanted: int | None = None) -> list[Check]:
    """What is said of a server that gives this."""
    answer = routes(given) if isinstance(given, Mapping) else given
    with ScriptedServer(answer) as server:
        found = list(of_models([server.url], NOWHERE, wanted))
        assert all("\n" not in check.line() for check in found)
        return [
            Check(
                each.level,
                each.what.replace(server.url, "URL"),
                each.found.replace(server.url, "URL"),
                each.fix,
            )
            for each in found
        ]


def ollama(*entries: Any, shown: Any = None) -> dict[str, Any]:
    return {"/api/version": {"version": "0.24.0"}, "/api/tags": {"models": list(entries)}, "/api/show": shown}


LLAMA = {
    "general.architecture": "llama", "llama.context_length": 8192, "llama.block_count": 30, "llama.embedding_length": 576,
    "llama.attention.head_count": 9, "llama.attention.head_count_kv": 3, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
}  # fmt: skip
"""SmolLM2's, of which a window of 8,192 tokens takes 2 · 30 layers · 3 heads · 64 numbers · 2 bytes · 8,192 = 189 MB."""


@pytest.mark.parametrize(
    ("details", "shown", "level", "said"),
    [
        ({"quantization_level": "F16"}, {}, "ok", "about 0.4 GiB with 8192 tokens"),
        ({"quantization_level": "F16"}, {}, "ok", "same weights (F16)"),
        ({"quantization_level": "unknown"}, {"general.file_type": 0}, "ok", "same weights (F32)"),
        ({"quantization_level": "Q4_K_M"}, {}, "ok", "takes no adapters, being quantised (Q4_K_M)"),
        ({"quantization_level": "F16"}, {"general.architecture": "qwen3"}, "ok", "none are written for qwen3"),
        (None, {"general.architecture": None}, "ok", "whether it takes adapters is not known"),
        ({"quantization_level": "F16"}, {"tokenizer.ggml.pre": "default"}, "note", "by the rule `default`"),
        ({"size": 10**15}, {}, "note", "needs about 931322.8 GiB with 8192 tokens, and "),
    ],
)  # fmt: skip
def test_of_each_model_of_ollama_is_said_whether_it_fits_and_takes_adapters(
    details: dict[str, Any] | None, shown: dict[str, Any], level: str, said: str
) -> None:
    size = details.pop("size", 271_083_021) if details else 1
    entry = {"name": "m:latest", "size": size, "details": details}
    server, found = of(ollama(entry, shown={"model_info": LLAMA | shown}))
    assert (server.level, server.found) == ("ok", "Ollama at URL: 1 model")
    assert found.what == "model ollama:m:latest@URL" and found.level == level and said in found.found
    assert bool(found.fix) == (level == "note") and "a window of up to 8192 tokens" in found.found


@pytest.mark.parametrize("shown", [whole(404, b"{}"), whole(200, b"[]"), whole(200, b'{"model_info":3}')])
def test_a_model_of_ollama_that_shows_nothing_has_no_window_that_is_known(shown: Answer) -> None:
    *_, found = of(ollama({"name": "m"}, shown=shown))
    assert (
        found.level == "ok"
        and "its window is not told; whether it takes adapters is not known" in found.found
    )


def test_a_model_of_ollama_whose_template_has_no_place_for_a_system_is_no_model_for_a_run() -> None:
    *_, found = of(ollama({"name": "m"}, shown={"template": "{{ .Prompt }}", "model_info": LLAMA}))
    assert found.level == "note" and "leaves out what a system says ({{ .Prompt }})" in found.found


@pytest.mark.parametrize("named", [{"renderer": "qwen3.5"}, {"modelfile": "FROM x\nRENDERER qwen3.5\n"}])
def test_a_model_of_ollama_whose_prompts_a_renderer_writes_needs_no_template(named: dict[str, str]) -> None:
    *_, found = of(ollama({"name": "m"}, shown={"template": "{{ .Prompt }}", "model_info": LLAMA, **named}))
    assert found.level == "ok", found.found


ROUTES = {"/openapi.json": {"paths": {"/v1/load_lora_adapter": {}, "/v1/models": {}}}}
HELD = {"/lora-adapters": [{"id": 0, "path": "/a/3f2a91c04d5e6b78.gguf", "scale": 0.0}]}


@pytest.mark.parametrize(
    ("given", "called", "model", "said"),
    [
        (vllm() | ROUTES, "vLLM", "vllm:m@URL", "loaded; a window of 32768 tokens; loads adapters by name and folder"),
        (vllm() | {"/openapi.json": {"paths": {}}}, "vLLM", "vllm:m@URL", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora let it"),
        (llamacpp(), "llama.cpp's server", "openai:m@URL/v1", "loaded; a window of 32768 tokens; takes adapters as GGUF at its start"),
        (llamacpp({**META, "ftype": "(guessed) all F32"}) | HELD, "llama.cpp's server", "openai:m@URL/v1", "was started with adapters (3f2a91c04d5e6b78.gguf): --adapter ID"),
        (llamacpp({**META, "ftype": "Q4_K - Medium"}), "llama.cpp's server", "openai:m@URL/v1", "being quantised (Q4_K - Medium)"),
        (mlx_lm(), "A server of OpenAI's interface", "openai:m@URL/v1", "its window is not told; takes no adapters that were trained here"),
    ],
)  # fmt: skip
def test_of_each_server_is_said_which_models_it_has_and_how_they_take_adapters(
    given: Mapping[str, Any], called: str, model: str, said: str
) -> None:
    server, found = of(given)
    assert (server.level, server.found) == ("ok", f"{called} at URL: 1 model")
    assert (found.level, found.what) == ("ok", f"model {model}") and said in found.found


def test_an_adapter_that_vllm_has_loaded_is_no_model_of_its_own() -> None:
    base = {"id": "m", "owned_by": "vllm", "root": "/m", "parent": None, "max_model_len": 512}
    entries = [base, {**base, "id": "looper-1", "root": "/a", "parent": "m"}]
    server, found = of({"/v1/models": {"data": entries}})
    assert server.found.endswith("1 model") and found.what == "model vllm:m@URL"


def test_a_folder_that_a_server_of_this_machine_names_says_what_it_takes() -> None:
    _, found = of({"/v1/models": listed(id=str(nano_folder()))})
    assert "MiB with 4096 tokens; a window of up to 4096 tokens" in found.found


def test_a_window_that_is_shorter_than_wanted_is_said_with_how_it_becomes_longer() -> None:
    for given, how in ((vllm(max_model_len=2048), "--max-model-len"), (llamacpp(), "a larger -c")):
        *_, enough = of(given, 2048)
        *_, short = of(given, 65536)
        assert enough.level == "ok" and short.level == "note"
        assert "65536 tokens are wanted" in short.found and how in short.fix


SILENT: Answer = ["hang"]


def test_a_server_that_does_not_answer_costs_a_usual_address_two_seconds_and_a_named_one_five(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert inventory.ANSWER_S < 2
    begun = time.monotonic()
    (found,) = (each for each in of(SILENT) if each.what == "model server" and each.fix)
    assert (
        "did not finish /api/version within 5 s" in found.found and "start it, or name another" in found.fix
    )
    assert time.monotonic() - begun < 11, "five seconds, and what else a busy machine does"


def test_what_wants_a_key_at_a_usual_address_is_not_said_to_be_a_model_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ScriptedServer(whole(401, b"Authentication required")) as other:
        monkeypatch.setattr(inventory, "USUAL", {other.url: "vLLM"})
        (found,) = of_models([], NOWHERE, None)
    assert found.level == "note" and found.found.endswith("wants a key; it may be vLLM")
    assert "VLLM_API_KEY" in found.fix


@pytest.mark.parametrize(
    ("change", "level", "said"),
    [
        (lambda config: {"model_type": "gemma3", "text_config": config}, "ok", "about 1 MiB with 512 tokens"),
        (lambda config: {"model_type": "mamba", "hidden_size": 64}, "ok", "its window is not told"),
        (lambda config: {**config, "hidden_size": None, "head_dim": None}, "note", "cannot be read"),
        (lambda config: [config], "note", "cannot be read"),
    ],
    ids=["within", "without attention", "odd", "list"],
)
def test_of_a_model_of_an_odd_configuration_is_said_what_can_be(
    tmp_path: Path, change: Callable[[dict[str, object]], object], level: str, said: str
) -> None:
    """One that sees as well, one without heads of attention, and two that are none."""
    small(tmp_path / "tiny.gguf")
    (tmp_path / "models").mkdir()
    folder = converted_here(tmp_path / "tiny.gguf").rename(tmp_path / "models" / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(config)))
    _, found = of_models([], tmp_path / "models", None)
    assert found.level == level and said in found.found


@pytest.mark.parametrize(
    ("given", "said", "fix"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "The server at URL ", "name another address"),
        (whole(200, b"<!doctype html><html></html>"), "has no list of models", "name another address"),
        (whole(404, b"{}"), "has no list of models", "name another address"),
        ({"/v1/models": {"hello": "world"}}, "has no list of models", "name another address"),
        ({"/v1/models": {"data": 3}}, "sent a reply of another shape", "name another address"),
        ({"/v1/models": whole(401, b'{"error":"Unauthorized"}')}, "refused the key (401)", "VLLM_API_KEY"),
        (whole(503, b'{"error":{"message":"Loading model"}}'), "Loading model", "once it is up"),
        (llamacpp(None), "is still loading m", "once it is up"),
    ],
    ids=range(8),
)
def test_what_is_no_model_server_is_said_of_an_address_that_was_named(
    given: Any, said: str, fix: str
) -> None:
    (found,) = of(given)
    assert (found.level, found.what) == ("note", "model server") and said in found.found and fix in found.fix


def test_of_addresses_where_nobody_answers_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(SILENT) as silent, ScriptedServer(whole(200, b"<html></html>")) as page:
        monkeypatch.setattr(inventory, "USUAL", {silent.url: "Ollama", page.url: "vLLM"})
        monkeypatch.setattr(inventory, "ANSWER_S", 1.0)
        (found,) = of_models([], NOWHERE, None)
    assert (
        found.level == "note" and "none answers at 127.0.0.1:" in found.found and "--server URL" in found.fix
    )


def test_models_that_are_kept_or_downloaded_for_mlx_are_named_as_a_run_takes_them(tmp_path: Path) -> None:
    small(tmp_path / "tiny.gguf")
    (tmp_path / "models").mkdir()
    converted_here(tmp_path / "tiny.gguf").rename(tmp_path / "models" / "tiny")
    (tmp_path / "models" / "half").mkdir()
    (tmp_path / "models" / "half" / "config.json").write_text("{")
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / "1"
    snapshot.parent.mkdir(parents=True)
    (tmp_path / "models" / "tiny").rename(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1\n")
    (tmp_path / "models" / "tiny").symlink_to(snapshot)
    _, half, tiny, downloaded = of_models([], tmp_path / "models", 1024)
    assert (half.level, half.what) == ("note", "model mlx:half") and "cannot be read" in half.found
    assert tiny.what == "model mlx:tiny" and downloaded.what == f"model mlx:{snapshot}"
    for found in (tiny, downloaded):
        assert "a window of up to 512 tokens; trains adapters, and carries them" in found.found
        assert found.level == "note" and "1024 tokens are wanted" in found.found


def test_the_command_says_the_same_as_lines_and_as_json(tmp_path: Path, state: Path) -> None:
    with ScriptedServer(routes(llamacpp())) as server:
        asked = ("doctor", "--server", f"{server.url}/v1", "--context-tokens", "65536")
        what = f"model openai:m@{server.url}/v1"

        def found(*more: str) -> str:
            for _ in range(5):  # In less than two seconds a server of a busy machine may not answer.
                done = looper(*asked, *more, cwd=tmp_path, timeout_s=900, LOOPER_HOME=str(state))
                assert done.returncode == 0, done.stderr
                if what in done.stdout:
                    break
            return done.stdout

        lines, objects = found(), json.loads(found("--json"))["findings"]
    (said,) = (each for each in objects if each["what"] == what)
    assert said["level"] == "note" and said["found"].endswith("65536 tokens are wanted")
    (line,) = (each for each in lines.splitlines() if what in each)
    assert line == f"[note   ] {what}: {said['found']}. Fix: {said['fix']}"


def test_fix_says_nothing_but_what_to_do(tmp_path: Path, state: Path) -> None:
    told = json.loads(looper("doctor", "--json", cwd=tmp_path, timeout_s=900, LOOPER_HOME=str(state)).stdout)
    fixes = [f"{each['what']}: {each['fix']}" for each in told["findings"] if each["fix"]]
    done = looper("doctor", "--fix", cwd=tmp_path, timeout_s=900, LOOPER_HOME=str(state))
    # How quick files are differs from look to look.
    kept = [line for line in done.stdout.splitlines() if not line.startswith("working trees: ")]
    assert done.returncode == 0 and kept == [line for line in fixes if not line.startswith("working trees: ")]
