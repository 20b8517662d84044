"""An MLX model in a process of its own, shared by all rollouts of a run and by all adapters on it.

This side speaks to the process that holds the model: a thread reads its answers and wakes whoever asked. What the process does with
requests is in `mlx_child`.
"""

import contextlib
import hashlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import IO, Any

from looper.edges.models.blas import BIND_NOW
from looper.edges.models.digests import FileDigests
from looper.edges.models.heard import counted
from looper.edges.models.sendable import sendable
from looper.errors import (
    Cancelled,
    MissingTool,
    ModelMissing,
    ModelServerFault,
    ModelTimeout,
    ModelUnfit,
    ModelUnreachable,
    ReplyLate,
    RequestRefused,
    mlx_install,
    one_line,
)
from looper.protocols import ChatRequest, Message
from looper.records.training import Example
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage

START_TIMEOUT_S = 600
ADAPTER_CONFIG, ADAPTER_WEIGHTS = ADAPTER_FILES = ("adapter_config.json", "adapters.safetensors")
"""What mlx-lm needs of an adapter."""
SMALL_BYTES = 64 << 20
"""Weights up to this are too few for a second BLAS thread to pay: threads wait by spinning, which takes a core from the rollouts.
224 cells of the embedded model took 73 s on two cores with one thread and 96 s with two, replies being the same."""
INLINE_DIGEST_BYTES = 256 << 20
"""Files up to this size stand in a folder's digest themselves, larger ones by their own SHA-256, which is kept."""
_PARTS = (".json", ".safetensors", ".jinja", ".model", ".tiktoken", ".py")
_WORDS = ("merges.txt", "vocab.txt")
"""Endings and names of what mlx-lm and transformers read of a model's folder: weights, tokenizer, template, code of its own."""


def nano_folder(size: str = "") -> Path:
    """The weights that ship with the package; of half the width where the size is `small`."""
    return Path(str(resources.files("looper.nano") / ("weights_small" if size == "small" else "weights")))


def quantised_nano(models: Path, bits: str) -> Path:
    """The embedded model with its weights in groups of 32 and so many bits each, as `4bit`; made once, below `models`."""
    folder = models / f"nano-{bits}-{folder_digest(nano_folder())[:12]}"
    if folder.is_dir():
        return folder
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".nano-", dir=models) as place:
        made = Path(place) / "made"
        argv = [
            sys.executable, "-m", "mlx_lm", "convert", "--hf-path", str(nano_folder()), "--mlx-path",
            str(made),
        ]  # fmt: skip
        argv += ["--quantize", "--q-bits", bits.removesuffix("bit"), "--q-group-size", "32"]
        done = subprocess.run(argv, env=mlx_environment(), capture_output=True, text=True)
        if done.returncode != 0:
            raise ModelMissing(
                f"The embedded model could not be quantised to {bits}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            )
        with contextlib.suppress(OSError):  # Another process was faster.
            made.rename(folder)
    return folder


class MlxModel:
    """A model with one adapter or none. Starts its process on first use, and again if it died: a reply that was lost
    is asked for again by the caller."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        context_tokens: int,
        reuse: bool = True,
        adapter: Path | None = None,
        process: "_Process | None" = None,
        digests: FileDigests | None = None,
    ) -> None:
        """`digests` knows files that were hashed before. Raises ModelMissing where a folder holds no model or no adapter, MissingTool without mlx-lm."""
        if not (folder / "config.json").is_file():
            raise ModelMissing(
                f"There is no model in {folder}: config.json is missing. Name a folder in mlx-lm's format, or a "
                "model that was added; which there are: looper model list"
            )
        if adapter is not None:
            for file in ADAPTER_FILES:
                if not (adapter / file).is_file():
                    raise ModelMissing(f"There is no adapter in {adapter}: {file} is missing.")
        try:
            self._version = f"mlx-lm {metadata.version('mlx-lm')}, mlx {metadata.version('mlx')}"
        except metadata.PackageNotFoundError as error:
            raise MissingTool(f"mlx-lm is not installed. Install it: {mlx_install()}") from error
        self._folder, self._name, self._adapter = folder, name, adapter
        self._context_tokens = context_tokens
        self._process, self._digests = process or _Process(folder, name, reuse), digests or FileDigests()
        self._identity: ModelIdentity | None = None

    def with_adapter(self, folder: Path | None) -> "MlxModel":
        """The same model in the same process with the adapter of a folder, or with none. Raises ModelMissing."""
        return MlxModel(
            self._folder,
            name=self._name,
            context_tokens=self._context_tokens,
            adapter=folder,
            process=self._process,
            digests=self._digests,
        )

    def identity(self) -> ModelIdentity:
        if self._identity is None:
            try:
                config = json.loads((self._folder / "config.json").read_text("utf-8"))
            except ValueError as error:
                raise ModelMissing(
                    f"There is no model in {self._folder}: config.json holds no JSON."
                ) from error
            quantisation = config.get("quantization")
            self._identity = ModelIdentity(
                backend="mlx",
                backend_version=self._version,
                name=self._name,
                digest=folder_digest(self._folder, self._digests),
                adapter=folder_digest(self._adapter, self._digests) if self._adapter else "",
                quantisation=f"{quantisation['bits']}-bit"
                if quantisation
                else str(config.get("torch_dtype", "unknown")),
                context_tokens=self._context_tokens,
            )
        return self._identity

    def window_tokens(self) -> int | None:
        """That which the model was trained for: it would read on beyond that, and make nothing of it."""
        return trained_tokens_in(self._folder)

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return int(
            self._ask({"op": "count", "messages": list(messages)}, timeout_s=START_TIMEOUT_S)["tokens"]
        )

    def first_logits(self, messages: Sequence[Message], tokens: int = 256) -> list[float]:
        """What the model would say first, along the path that rollouts take: logits of `tokens` tokens spread evenly
        over the vocabulary. Two models that differ here differ; an adapter that changes nothing did not arrive."""
        request = {"op": "logits", "messages": list(messages), "tokens": tokens}
        return list(self._ask(request, timeout_s=START_TIMEOUT_S)["logits"])

    def next_tokens(self, text: str, count: int = 256) -> dict[str, float]:
        """Log probabilities in nats of the `count` likeliest tokens after a text without a template, by what each token says: what other
        servers of the same model tell too."""
        found: dict[str, float] = self._ask({"op": "next", "text": text, "count": count}, START_TIMEOUT_S)[
            "next"
        ]
        return found

    def losses(self, examples: Sequence[Example]) -> list[float]:
        """What the model makes of conversations: nats per supervised token of each."""
        return list(self._of_examples("losses", examples))

    def loss_and_kl(self, examples: Sequence[Example]) -> list[tuple[float, float]]:
        """Loss and KL from the model without its adapter: nats per supervised token of each conversation."""
        return [(loss, apart) for loss, apart in self._of_examples("compared", examples)]

    def _of_examples(self, operation: str, examples: Sequence[Example]) -> Sequence[Any]:
        request = {"op": operation, "examples": [json.loads(item.to_json()) for item in examples]}
        found: Sequence[Any] = self._ask(request, timeout_s=START_TIMEOUT_S)[operation]
        return found

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
                "sampling": request.sampling.model_dump(),
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

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        return self._process.ask({**request, "adapter": str(self._adapter or "")}, timeout_s)

    def forget(self, conversation: str) -> None:
        self._process.tell(
            {"op": "forget", "conversation": conversation, "adapter": str(self._adapter or "")}
        )

    def close(self) -> None:
        self._process.close()


class _Process:
    """The child that holds the model, and who waits for which of its answers."""

    def __init__(self, folder: Path, name: str, reuse: bool) -> None:
        self._folder, self._name, self._reuse = folder, name, reuse
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.Queue[dict[str, Any]]] = {}
        self.child: subprocess.Popen[str] | None = None
        self._stderr: deque[str] = deque(maxlen=20)
        self._loaded = self._closed = False

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises Cancelled once this was closed, ModelUnreachable where the process ended, ReplyLate or ModelTimeout, ModelServerFault for want of memory, RequestRefused for
        what is wrong with this request alone, and ModelFatal: ModelUnfit for a model that cannot take our messages,
        ModelMissing for one that does not load, or an adapter that cannot be used.
        """
        number = next(self._numbers)
        answer: queue.Queue[dict[str, Any]] = queue.Queue(1)
        try:
            with self._lock:
                self._running()
                self._waiting[number] = answer
                self._send({**request, "id": number})
            found = answer.get(timeout=timeout_s)
        except queue.Empty as error:
            # Only a reply has its time from its rollout.
            late = ReplyLate if request["op"] == "reply" else ModelTimeout
            raise late(f"{self._name} gave no answer within {timeout_s:.0f} s.") from error
        finally:
            self._waiting.pop(number, None)
        if found.get("died"):
            raise ModelUnreachable(f"The model process of {self._name} ended: {found['died']}.")
        if "error" in found and found.get("adapter"):
            raise ModelMissing(
                f"The adapter {found['adapter']} cannot be used with {self._name}: {found['error']}. It is damaged, or "
                "was made for another model."
            )
        match found:
            case {"error": str(said), "kind": "unfit"}:
                raise ModelUnfit(f"{self._name}: {said}")
            case {"error": str(said), "kind": "memory"}:
                raise ModelServerFault(f"{self._name} ran out of memory: {one_line(said)}")
            case {"error": str(said)}:
                raise RequestRefused(f"{self._name} could not answer: {one_line(said)}")
        return found

    def tell(self, message: dict[str, Any]) -> None:
        """Send what needs no answer, if there is anybody to hear it."""
        with self._lock:
            if self.child is not None and self.child.poll() is None:
                with contextlib.suppress(ModelUnreachable):  # It ended meanwhile, and remembers nothing.
                    self._send(message)

    def close(self) -> None:
        with self._lock:
            process, self.child, self._closed = self.child, None, True
        if process is None:
            return
        assert process.stdin is not None
        try:
            process.stdin.close()
            process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        assert self.child is not None and self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(sendable(message)) + "\n")
            self.child.stdin.flush()
        except OSError as error:
            said = self._last_words(self.child.poll())
            raise ModelUnreachable(f"The model process of {self._name} ended: {said}.") from error

    def _running(self) -> None:
        """Make sure that the process runs; it has said that its model is loaded when this returns. Raises Cancelled: who still asks
        after the end must not start a process that nobody ends."""
        if self._closed:
            raise Cancelled
        if self.child is not None and self.child.poll() is None:
            return
        argv = [sys.executable, "-m", "looper.edges.models.mlx_child", str(self._folder)]
        if not self._reuse:
            argv.append("--no-reuse")
        self.child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=mlx_environment() | _threads(self._folder),
            # Ctrl-C goes to the whole terminal group; the run itself decides when the model ends.
            start_new_session=True,
        )
        assert self.child.stdout is not None and self.child.stderr is not None
        threading.Thread(target=self._collect_stderr, args=(self.child.stderr,), daemon=True).start()
        first = self.child.stdout.readline()
        if not first:
            code = self.child.wait()
            said = f"The model process of {self._name} did not start: {self._last_words(code)}"
            # A model that loaded once loads again, when there is memory again; one that never did is none.
            raise ModelUnreachable(said) if self._loaded else ModelMissing(said)
        self._loaded = True
        threading.Thread(target=self._listen, args=(self.child, self.child.stdout), daemon=True).start()

    def _collect_stderr(self, stream: IO[str]) -> None:
        for line in stream:
            self._stderr.append(line.rstrip())

    def _listen(self, process: "subprocess.Popen[str]", stream: IO[str]) -> None:
        for line in stream:
            message = json.loads(line)
            waiting = self._waiting.get(message["id"])
            if waiting is not None:
                waiting.put(message)
        code = process.wait()
        for waiting in list(self._waiting.values()):
            try:
                waiting.put_nowait({"died": self._last_words(code)})
            except queue.Full:
                pass  # Its answer came before the end.

    def _last_words(self, code: int | None) -> str:
        if code == -signal.SIGKILL:
            return "it was killed (SIGKILL), as systems do that run out of memory"
        time.sleep(0.05)  # The thread that reads them may be one line behind.
        return next((line.rstrip(".") for line in reversed(self._stderr) if line.strip()), "without a word")


def mlx_environment() -> dict[str, str]:
    """The harness's environment, for a process that binds a fast BLAS."""
    environment = {**os.environ, **BIND_NOW}
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    environment.setdefault("HF_HUB_OFFLINE", "1")
    return environment


def _threads(folder: Path) -> dict[str, str]:
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {"OPENBLAS_NUM_THREADS": "1"} if weights <= SMALL_BYTES else {}


def trained_tokens_in(folder: Path) -> int | None:
    """The window that the model of a folder was made for, by its configuration; None where that is not to be read."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config = config.get("text_config") or config  # Of a model that sees as well.
        positions, scaling = counted(config.get("max_position_embeddings")), config.get("rope_scaling") or {}
        if positions is None or "factor" not in scaling:
            return positions
        # Where positions are stretched, some configurations tell the window before that, and some the one after it.
        original = counted(scaling.get("original_max_position_embeddings"))
        if original is None:
            return None
        return positions if positions > original else int(scaling["factor"] * original)
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def folder_digest(folder: Path, digests: FileDigests | None = None) -> str:
    """Content hash of a model: its configuration, tokenizer and weights, every byte of them."""
    digests = digests or FileDigests()
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if (path.suffix in _PARTS or path.name in _WORDS) and path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            digest.update(path.read_bytes() if size <= INLINE_DIGEST_BYTES else digests.of(path).encode())
    return digest.hexdigest()
