"""Which model answered: never a clock, always the whole weights. Rows J1, J2, J6."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.routes import META, listed, llamacpp, mlx_lm, ollama_door, routes, vllm
from tests.fakes.scripted_http import ScriptedServer, free_port, whole

from looper.edges.models.digests import SETTLED_S, FileDigests
from looper.edges.models.mlx import folder_digest, nano_folder
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.edges.models.retrying import RetryingModel, RetryPolicy
from looper.errors import ModelMissing, ModelOverloaded, ModelReplyBroken, ModelUnreachable
from looper.records.trajectory import ModelIdentity

SERVERS: dict[str, Callable[..., dict[str, Any]]] = {
    "vllm": vllm, "llama.cpp": llamacpp, "mlx_lm": mlx_lm, "ollama": ollama_door,
    "router": lambda: {
        "/v1/models": listed(id="m", owned_by="llamacpp", status={"value": "loaded"}),
        "/lora-adapters": whole(400, b'{"error": {"code": 400, "message": "model name is missing from the request"}}'),
    },
    "hosted": lambda: {"/v1/models": listed(id="m", owned_by="system")},
}  # fmt: skip


def at(url: str, name: str = "m", digests: FileDigests | None = None) -> OpenAICompatibleModel:
    return OpenAICompatibleModel(name, "", base_url=f"{url}/v1", context_tokens=2048, digests=digests)


def identity(given: Mapping[str, Any], digests: FileDigests | None = None) -> ModelIdentity:
    """Asked of a server that has just started, on a port of its own."""
    with ScriptedServer(routes(given)) as server:
        return at(server.url, digests=digests).identity()


@pytest.mark.parametrize("kind", SERVERS)
def test_j1_a_model_is_the_same_whenever_it_is_asked_for_and_after_a_restart(kind: str) -> None:
    with ScriptedServer(routes(SERVERS[kind]())) as server:
        model = at(server.url)
        first = model.identity()
        assert model.identity() == first == at(server.url).identity()
    assert identity(SERVERS[kind]()) == first and len(first.digest) == 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (llamacpp(), llamacpp({**META, "n_params": 78465})),
        (llamacpp(), llamacpp(template="{{ y }}")),
        (llamacpp(), llamacpp(model_path="/models/n.gguf")),
        (llamacpp(), llamacpp(lora=[{"id": 0, "scale": 1.0}])),
        (vllm(), vllm() | {"/v1/models": listed(id="m", owned_by="vllm", root="/models/n", max_model_len=32768)}),
        (ollama_door(), ollama_door("b" * 64)),
    ],
    ids=range(6),
)  # fmt: skip
def test_j1_another_model_behind_the_same_name_is_noticed(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    assert identity(one).digest != identity(other).digest
    turned = {"now": one}
    with ScriptedServer(lambda request: routes(turned["now"])(request)) as server:
        model = RetryingModel(at(server.url), RetryPolicy())
        model.identity()
        turned["now"] = other
        with pytest.raises(ModelMissing, match="now serves another m .* than when it was first asked"):
            model.identity()


def test_j1_the_servers_version_and_the_weights_precision_are_on_record() -> None:
    assert identity(vllm("0.33.0")).backend_version == "vLLM 0.33.0"
    of_llamacpp, of_ollama = identity(llamacpp()), identity(ollama_door())
    assert (of_llamacpp.backend_version, of_llamacpp.quantisation) == ("llama.cpp b7000-abc", "F16")
    assert (of_ollama.backend_version, of_ollama.quantisation) == ("Ollama 0.24.0", "Q4_1")


def test_j1_a_window_that_is_fitted_to_memory_is_no_part_of_a_model() -> None:
    fitted = llamacpp({**META, "n_ctx": 4096}, default_generation_settings={"params": {}, "n_ctx": 4096})
    assert identity(fitted) == identity(llamacpp())


def test_j1_a_server_that_loads_its_model_is_waited_for() -> None:
    busy = whole(503, b'{"error":{"message":"Loading model","code":503}}')
    waits: list[str] = []
    for loading in (llamacpp(None), llamacpp(None) | {"/props": busy}):
        turned = {"now": loading}
        with ScriptedServer(lambda request, turned=turned: routes(turned["now"])(request)) as server:
            with pytest.raises(ModelOverloaded):
                at(server.url).identity()

            def loaded(seconds: float, turned: dict[str, Any] = turned) -> None:
                turned["now"] = llamacpp()

            waiting = RetryingModel(
                at(server.url), RetryPolicy(), sleep=loaded, tell=lambda why, seconds: waits.append(why)
            )
            assert waiting.identity() == identity(llamacpp())
    assert len(waits) >= 2 and all("oading" in why for why in waits)


def test_j6_a_server_that_was_well_is_asked_again_and_one_that_never_was_is_said_at_once() -> None:
    port, told = free_port(), list[str]()
    url = f"http://127.0.0.1:{port}"
    with pytest.raises(ModelUnreachable):
        RetryingModel(at(url), RetryPolicy(), sleep=lambda s: pytest.fail("waited")).identity()
    back: list[ScriptedServer] = []

    def comes_back(seconds: float) -> None:
        if len(told) >= 3 and not back:
            back.append(ScriptedServer(routes(vllm()), port=port).__enter__())

    model = RetryingModel(
        at(url), RetryPolicy(), sleep=comes_back, tell=lambda why, seconds: told.append(why)
    )
    with ScriptedServer(routes(vllm()), port=port):
        first = model.identity()
    try:
        assert model.identity() == first
    finally:
        for server in back:
            server.__exit__()
    assert len(told) >= 3 and all("cannot be reached" in why for why in told)


def test_m23_the_window_is_asked_of_the_server() -> None:
    shown = whole(200, b'{"model_info":{"general.name":"m","qwen2.context_length":4096}}')
    for given, found in ((vllm(max_model_len=2048), 2048), (llamacpp(), 32768), (mlx_lm(), None)):
        with ScriptedServer(routes(given)) as server:
            assert RetryingModel(at(server.url), RetryPolicy()).window_tokens() == found
    for answer, found in ((shown, 4096), (whole(404, b"{}"), None), (whole(200, b'{"model_info":{}}'), None)):
        with ScriptedServer(answer) as server:
            model = OllamaModel("m", base_url=server.url, context_tokens=8000)
            assert RetryingModel(model, RetryPolicy()).window_tokens() == found


def test_j1_a_proxy_that_passes_on_the_api_alone_gives_what_it_has() -> None:
    page = whole(200, b"<!doctype html><html></html>")
    for other in (page, whole(404, b""), whole(403, b"{}"), []):
        known = identity(vllm() | {"/version": other})
        assert known.digest == identity(vllm()).digest and known.backend_version == "unknown"


def test_j1_a_list_that_is_empty_says_what_mlx_lm_server_lacks() -> None:
    with ScriptedServer(whole(200, b"")) as server:
        with pytest.raises(ModelReplyBroken, match="mkdir -p ~/.cache/huggingface/hub"):
            at(server.url).identity()


def test_m23_the_window_of_a_folder_on_this_machine_is_what_the_model_was_trained_for() -> None:
    with ScriptedServer(routes({"/v1/models": listed(id=str(nano_folder()))})) as server:
        assert at(server.url, str(nano_folder())).window_tokens() == 4096


def test_j1_weights_of_a_server_on_this_machine_are_known_by_their_content(tmp_path: Path) -> None:
    one, digests = tmp_path / "m-00001-of-00002.gguf", FileDigests(tmp_path / "kept.json")
    for part, text in ((one, b"a"), (tmp_path / "m-00002-of-00002.gguf", b"b")):
        part.write_bytes(text * 9)
    seen = [identity(llamacpp(model_path=str(one)), digests).digest for _ in range(2)]
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"c" * 9)
    seen.append(identity(llamacpp(model_path=str(one)), digests).digest)
    assert seen[0] == seen[1] != seen[2]
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    served = {"/v1/models": listed(id="m", owned_by="vllm", root=str(folder))}
    before = identity(served).digest
    (folder / "model.safetensors").write_bytes(b"x")
    assert identity(served).digest != before


@pytest.mark.parametrize("at_byte", [2 << 20, 256 << 20])
def test_j2_large_weights_are_read_whole(tmp_path: Path, at_byte: int) -> None:
    weights, found = tmp_path / "model.safetensors", []
    with weights.open("wb") as stream:
        stream.truncate((256 << 20) + 4096)
    found.append(folder_digest(tmp_path))
    with weights.open("r+b") as stream:
        stream.seek(at_byte)
        stream.write(b"other")
    assert folder_digest(tmp_path) != found[0]


def test_j2_a_tokenizer_in_a_format_of_its_own_counts_and_a_readme_does_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    seen = [folder_digest(tmp_path)]
    for name in ("tokenizer.model", "merges.txt", "tokenization_own.py"):
        (tmp_path / name).write_text("x")
        seen.append(folder_digest(tmp_path))
    (tmp_path / "README.md").write_text("x")
    assert len(set(seen)) == 4 and folder_digest(tmp_path) == seen[-1]


def aged(path: Path, content: bytes) -> Path:
    """A file that was written before anybody could write to it in the same tick of the clock."""
    path.write_bytes(content)
    time.sleep(SETTLED_S + 0.1)
    return path


def reading(kept: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FileDigests, list[str]]:
    """Digests, and every file that they read."""
    read: list[str] = []
    real = FileDigests._hashed

    def heard(self: FileDigests, stream: Any, place: str, size: int) -> str:
        read.append(place)
        return real(self, stream, place, size)

    monkeypatch.setattr(FileDigests, "_hashed", heard)
    return FileDigests(kept), read


def test_j2_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "state" / "file_digests.json"
    digests, read = reading(kept, monkeypatch)
    weights = aged(tmp_path / "w", b"a" * 100)
    assert digests.of(weights) == digests.of(weights) == FileDigests(kept).of(weights) and len(read) == 1
    (tmp_path / "link").symlink_to(weights)
    digests.of(tmp_path / "link")
    assert len(read) == 1, "it is the same file"
    before = weights.stat()
    first = digests.of(weights)
    weights.write_bytes(b"b" * 100)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digests.of(weights) != first, "and one whose time was set back is not"
    kept.write_bytes(b'{"x": 3, "' + b"\xff")
    assert digests.of(weights) == FileDigests().of(weights), "what is kept may be damaged"
    weights.unlink()
    digests.of(aged(tmp_path / "v", b"v"))
    assert list(json.loads(kept.read_text())) == [str(tmp_path / "v")], "files that are gone are forgotten"


def test_j2_what_changes_within_a_tick_of_the_clock_is_not_kept(tmp_path: Path) -> None:
    kept, weights = tmp_path / "kept.json", tmp_path / "w"
    weights.write_bytes(b"a")
    FileDigests(kept).of(weights)
    assert not kept.exists()


def test_j2_nothing_can_be_kept_and_nothing_breaks(tmp_path: Path) -> None:
    (tmp_path / "no folder").write_text("")
    weights = aged(tmp_path / "w", b"a")
    assert FileDigests(tmp_path / "no folder" / "kept.json").of(weights) == FileDigests().of(weights)


def test_j2_several_processes_keep_what_each_found(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"w{number}").write_bytes(b"%d" % number)
    time.sleep(SETTLED_S + 0.1)
    program = (
        "import sys; from pathlib import Path; from looper.edges.models.digests import FileDigests\n"
        "for file in sys.argv[2:]: FileDigests(Path(sys.argv[1])).of(Path(file))"
    )
    files = [str(tmp_path / f"w{number}") for number in range(8)]
    argv = [sys.executable, "-c", program, str(tmp_path / "kept.json")]
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda some: subprocess.run([*argv, *some]).returncode, (files[i::4] for i in range(4)))
        )
    assert done == [0] * 4 and sorted(json.loads((tmp_path / "kept.json").read_text())) == files
