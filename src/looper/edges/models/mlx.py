"""An MLX model in a process of its own, shared by all rollouts of a run."""

import hashlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import IO, Any

from looper.edges.models.blas import find_openblas
from looper.errors import MissingTool, ModelMissing, ModelReplyBroken, ModelTimeout, ModelUnreachable
from looper.protocols import ChatRequest, Message
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage

START_TIMEOUT_S = 600
WHOLE_DIGEST_BYTES = 256 << 20
"""Weights up to this size are hashed whole; of larger files the beginning, which names every tensor, and the size."""


def nano_folder() -> Path:
    """The weights that ship with the package."""
    return Path(str(resources.files("looper.nano") / "weights"))


class MlxModel:
    """Starts its process on first use, and again if it died: a reply that was lost is asked for again by the caller."""

    def __init__(self, folder: Path, *, name: str, context_tokens: int, reuse: bool = True) -> None:
        """Raises ModelMissing where the folder holds no model, MissingTool without mlx-lm."""
        if not (folder / "config.json").is_file():
            raise ModelMissing(
                f"There is no model in {folder}: config.json is missing. Name a folder in mlx-lm's format."
            )
        try:
            self._version = f"mlx-lm {metadata.version('mlx-lm')}, mlx {metadata.version('mlx')}"
        except metadata.PackageNotFoundError as error:
            raise MissingTool('mlx-lm is not installed. Install it: pip install "looper[mlx]".') from error
        self._folder, self._name, self._reuse = folder, name, reuse
        self._context_tokens = context_tokens
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._process: subprocess.Popen[str] | None = None
        self._stderr: deque[str] = deque(maxlen=20)
        self._identity: ModelIdentity | None = None

    def identity(self) -> ModelIdentity:
        if self._identity is None:
            config = json.loads((self._folder / "config.json").read_text())
            quantisation = config.get("quantization")
            self._identity = ModelIdentity(
                backend="mlx",
                backend_version=self._version,
                name=self._name,
                digest=folder_digest(self._folder),
                quantisation=f"{quantisation['bits']}-bit"
                if quantisation
                else str(config.get("torch_dtype", "unknown")),
                context_tokens=self._context_tokens,
            )
        return self._identity

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return int(
            self._ask({"op": "count", "messages": list(messages)}, timeout_s=START_TIMEOUT_S)["tokens"]
        )

    def reply(self, request: ChatRequest) -> Reply:
        begun = time.monotonic()
        answer = self._ask(
            {
                "op": "reply",
                "conversation": request.conversation,
                "messages": list(request.messages),
                "max_tokens": request.max_output_tokens,
                "temperature": request.temperature,
                "seed": request.seed,
            },
            timeout_s=request.timeout_s,
        )
        return Reply(
            text=answer["text"],
            finish_reason=FinishReason(answer["finish_reason"]),
            usage=Usage(
                prompt_tokens=answer["prompt_tokens"],
                completion_tokens=answer["completion_tokens"],
                counted_by=f"tokenizer of {self._name}",
                processed_prompt_tokens=answer["processed_prompt_tokens"],
            ),
            wall_s=time.monotonic() - begun,
        )

    def forget(self, conversation: str) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._send({"op": "forget", "conversation": conversation})

    def close(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        try:
            process.stdin.close()
            process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises ModelUnreachable, ModelTimeout or ModelReplyBroken."""
        number = next(self._numbers)
        answer: queue.Queue[dict[str, Any]] = queue.Queue(1)
        with self._lock:
            self._running()
            self._waiting[number] = answer
            self._send({**request, "id": number})
        try:
            found = answer.get(timeout=timeout_s)
        except queue.Empty as error:
            raise ModelTimeout(f"{self._name} gave no reply within {timeout_s:.0f} s.") from error
        finally:
            self._waiting.pop(number, None)
        if found.get("died"):
            raise ModelUnreachable(f"The model process of {self._name} ended: {found['died']}")
        if "error" in found:
            raise ModelReplyBroken(f"{self._name} could not answer: {found['error']}")
        return found

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ModelUnreachable(
                f"The model process of {self._name} ended: {self._last_words()}"
            ) from error

    def _running(self) -> None:
        """Make sure that the process runs; it has said that its model is loaded when this returns."""
        if self._process is not None and self._process.poll() is None:
            return
        argv = [sys.executable, "-m", "looper.edges.models.mlx_child", str(self._folder)]
        if not self._reuse:
            argv.append("--no-reuse")
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
            # Ctrl-C goes to the whole terminal group; the run itself decides when the model ends.
            start_new_session=True,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        threading.Thread(target=self._collect_stderr, args=(self._process.stderr,), daemon=True).start()
        first = self._process.stdout.readline()
        if not first:
            raise ModelUnreachable(f"The model process of {self._name} did not start: {self._last_words()}")
        threading.Thread(target=self._listen, args=(self._process, self._process.stdout), daemon=True).start()

    def _collect_stderr(self, stream: IO[str]) -> None:
        for line in stream:
            self._stderr.append(line.rstrip())

    def _listen(self, process: "subprocess.Popen[str]", stream: IO[str]) -> None:
        for line in stream:
            message = json.loads(line)
            waiting = self._waiting.get(message["id"])
            if waiting is not None:
                waiting.put(message)
        process.wait()
        for waiting in list(self._waiting.values()):
            try:
                waiting.put_nowait({"died": self._last_words()})
            except queue.Full:
                pass  # Its answer came before the end.

    def _last_words(self) -> str:
        time.sleep(0.05)  # The thread that reads them may be one line behind.
        return next((line for line in reversed(self._stderr) if line.strip()), "without a word")


def _environment() -> dict[str, str]:
    """The harness's environment, with a fast BLAS in front of the reference one inside MLX's Linux CPU build."""
    environment = dict(os.environ)
    library = find_openblas()
    if library is not None:
        environment["LD_PRELOAD"] = " ".join([str(library), *environment.get("LD_PRELOAD", "").split()])
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    environment.setdefault("HF_HUB_OFFLINE", "1")
    return environment


def folder_digest(folder: Path) -> str:
    """Content hash of a model: its configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".jinja") and path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with path.open("rb") as stream:
                digest.update(stream.read() if size <= WHOLE_DIGEST_BYTES else stream.read(1 << 20))
    return digest.hexdigest()
