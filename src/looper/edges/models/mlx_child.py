"""The process that holds an MLX model: JSON requests in, JSON replies out, one per line.

    python -m looper.edges.models.mlx_child FOLDER [--no-reuse]

Requests of several rollouts are generated together, in one batch that others join and leave at any token. Each rollout
keeps its cache between turns, so a turn costs only what is new in it. A request names the adapter that it wants: one
adapter at a time is in the model, a request for another waits until the batch has run empty, and nothing is loaded twice
from disk but the adapter itself. MLX keeps memory until its process ends, which is why this is one.
"""

import json
import queue
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

if __name__ == "__main__":
    # transformers imports PyTorch wherever that is installed: three seconds and 250 MB in every process, for nothing.
    sys.modules["torch"] = None  # type: ignore[assignment]

from looper.edges.models.structure import quick_transformers

quick_transformers()

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_logits_processors

from looper.edges.models.blas import bind_openblas
from looper.edges.models.mixture import load_adapter
from looper.edges.models.mlx_load import loaded
from looper.edges.models.samplers import WINDOW
from looper.edges.trainers.encoding import templated, whole_conversation
from looper.errors import BadInput
from looper.records.training import Example

CACHE_BYTES = 2 << 30
"""Kept for conversations between their turns; the one that waited longest goes first."""
BATCH = 32
NO_MEMORY = ("[malloc]", "[metal::malloc]", "Unable to allocate", "out of memory", "Insufficient Memory")
"""What MLX says when there is none left."""
BASE = ""
"""In place of an adapter folder: the model as it is."""


class AdapterBroken(Exception):
    """An adapter that this model cannot carry."""


class Adapters:
    """One model, with one adapter or none in it.

    The layers that an adapter wraps and the arrays that a full fine-tuning replaces are kept from the beginning, so
    putting them back gives the base exactly, whatever kind of adapter was in. (mlx-lm's `remove_lora_layers` leaves
    DoRA behind.)
    """

    def __init__(self, model: Any) -> None:
        self.model, self.current = model, BASE
        self._layers = model.leaf_modules()
        self._arrays = tree_map(lambda array: array, model.parameters())

    def use(self, folder: str) -> None:
        """Raises AdapterBroken, with the base in the model."""
        if folder == self.current:
            return
        self._back_to_base()
        if folder != BASE:
            try:
                load_adapter(self.model, folder)
                mx.eval(self.model.parameters())
            except Exception as error:  # Whatever a damaged file makes of it.
                self._back_to_base()
                raise AdapterBroken(f"{type(error).__name__}: {error}") from error
            self.model.eval()
        self.current = folder

    def _back_to_base(self) -> None:
        self.model.update_modules(self._layers)
        self.model.update(self._arrays)
        self.current = BASE


COMPARED_AT_ONCE = 8
"""Conversations; at their supervised places the whole vocabulary is kept meanwhile."""


@dataclass
class CachedConversation:
    tokens: list[int]
    """What the cache holds, in order."""
    cache: list[Any]


@dataclass
class ActiveRequest:
    request: dict[str, Any]
    prompt: list[int]
    processed: int
    """Prompt tokens that had to be computed."""
    generated: list[int]


class Server:
    """Model, batch and caches. Used from one thread only, as MLX needs it."""

    def __init__(self, folder: str, reuse: bool) -> None:
        self.model, self.tokenizer = loaded(folder)
        self.adapters = Adapters(self.model)
        self.reuse = reuse
        self.waiting: deque[dict[str, Any]] = deque()
        """Requests that came while another adapter was at work, in order."""
        self.kept: OrderedDict[str, CachedConversation] = OrderedDict()
        self.running: dict[int, ActiveRequest] = {}
        stop = [[token] for token in sorted(self.tokenizer.eos_token_ids)]
        self.batch = BatchGenerator(
            self.model, stop_tokens=stop, completion_batch_size=BATCH, prefill_batch_size=BATCH
        )

    def prompt_tokens(self, messages: list[list[str]], *, for_reply: bool = True) -> list[int]:
        turns = [{"role": role, "content": text} for role, text in messages]
        ids = templated(
            self.tokenizer, turns, add_generation_prompt=for_reply, tokenize=True, return_dict=False
        )
        return list(ids)

    def count(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": len(self.prompt_tokens(request["messages"]))}

    def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Put a request into the batch, where its reply is sent when it ends, or behind those that wait."""
        if self.waiting or (self.running and request["adapter"] != self.adapters.current):
            self.waiting.append(request)
            return None
        return self._begin(request)

    def admit(self) -> list[dict[str, Any]]:
        """Let in what waits for the adapter whose turn it is; answers to those that cannot be begun."""
        answers = []
        while self.waiting and not self.running:
            adapter = self.waiting[0]["adapter"]
            mine = [request for request in self.waiting if request["adapter"] == adapter]
            self.waiting = deque(request for request in self.waiting if request["adapter"] != adapter)
            answers += [
                {"id": request["id"], **answer} for request in mine if (answer := self._begin(request))
            ]
        return answers

    def _begin(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """None where the reply is under way or none is due, else the answer."""
        try:
            self.adapters.use(request["adapter"])
            if request["op"] == "logits":
                return {"logits": self.logits(request["messages"], request["tokens"])}
            if request["op"] == "next":
                return {"next": self.next_tokens(request["text"], request["count"])}
            if request["op"] == "losses":
                return {"losses": [self.loss(example) for example in request["examples"]]}
            if request["op"] == "compared":
                return {"compared": self.loss_and_kl(request["examples"], request["adapter"])}
            self._join(request)
        except AdapterBroken as error:
            return {"error": str(error), "adapter": request["adapter"]}
        except (
            Exception
        ) as error:  # The request is at fault, and its sender must hear of it; the batch goes on.
            return _failure(error)
        return None

    def logits(self, messages: list[list[str]], tokens: int) -> list[float]:
        """Logits of the first token of the reply, for `tokens` tokens spread evenly over the vocabulary."""
        prompt = mx.array(self.prompt_tokens(messages))[None]
        found = self.model(prompt)[0, -1].astype(mx.float32)
        step = max(1, found.size // tokens)
        return [float(value) for value in found[::step][:tokens].tolist()]

    def next_tokens(self, text: str, count: int) -> dict[str, float]:
        """Log probabilities in nats of the `count` likeliest tokens after a text without a template, by what each token says."""
        prompt = mx.array(self.tokenizer.encode(text))[None]
        found = nn.log_softmax(self.model(prompt)[0, -1].astype(mx.float32))
        likeliest = mx.argsort(-found)[:count].tolist()
        # Decoded by themselves, tokens of SentencePiece lose the blank that they begin with.
        names = self.tokenizer.convert_ids_to_tokens(likeliest)
        said = [name.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n") for name in names]
        return dict(zip(said, found[mx.array(likeliest)].tolist(), strict=True))

    def loss(self, example: dict[str, Any]) -> float:
        """Mean cross-entropy in nats over the supervised tokens of a conversation."""
        tokens, weights = self._encoded(example)
        said = nn.losses.cross_entropy(self.model(tokens[:, :-1]), tokens[:, 1:]).astype(mx.float32)
        return float(((said[0] * weights).sum() / weights.sum()).item())

    def loss_and_kl(self, examples: list[dict[str, Any]], adapter: str) -> list[tuple[float, float]]:
        """Of each conversation the loss, and the KL of the model from itself without the adapter: mean nats over the supervised
        tokens. A few conversations at a time, because changing adapters takes longer than reading one."""
        found = []
        for begin in range(0, len(examples), COMPARED_AT_ONCE):
            group = [self._encoded(example) for example in examples[begin : begin + COMPARED_AT_ONCE]]
            self.adapters.use(adapter)
            ours = [self._supervised(tokens, weights) for tokens, weights in group]
            self.adapters.use(BASE)
            theirs = [self._supervised(tokens, weights) for tokens, weights in group]
            for (mine, said), (other, _) in zip(ours, theirs, strict=True):
                loss = -mx.take_along_axis(mine, said[:, None], axis=-1).mean()
                apart = (mx.exp(mine) * (mine - other)).sum(axis=-1).mean()
                found.append((_number(loss), _number(apart)))
        self.adapters.use(adapter)
        return found

    def _supervised(self, tokens: mx.array, weights: mx.array) -> tuple[mx.array, mx.array]:
        """Log probabilities over the vocabulary at the supervised places of a conversation, and the tokens that stand there."""
        counted: Any = weights.tolist()
        places = mx.array([at for at, weight in enumerate(counted) if weight])
        logits = self.model(tokens[:, :-1])[0][places].astype(mx.float32)
        likely = nn.log_softmax(logits, axis=-1)
        mx.eval(likely)
        return likely, tokens[0, 1:][places]

    def _encoded(self, example: dict[str, Any]) -> tuple[mx.array, mx.array]:
        """Tokens of a conversation, one row, and the weight of each but the first."""
        tokenizer = getattr(self.tokenizer, "_tokenizer", self.tokenizer)
        item = whole_conversation(tokenizer, Example.model_validate(example))
        return mx.array(item.tokens)[None], mx.array(item.weights)[1:]

    def _join(self, request: dict[str, Any]) -> None:
        prompt = self.prompt_tokens(request["messages"])
        cache, known = self._cache_for(_cache_key(request), prompt)
        uid = self.batch.insert(
            [prompt[known:]],
            [request["max_tokens"]],
            caches=[cache],
            all_tokens=[prompt[:known]],
            samplers=[sampler(request["temperature"], request["seed"], request["sampling"])],
            logits_processors=[penalties(request["sampling"])],
        )[0]
        self.running[uid] = ActiveRequest(request, prompt, len(prompt) - known, [])

    def _cache_for(self, conversation: str, prompt: list[int]) -> tuple[list[Any], int]:
        """A cache for the longest beginning of the prompt that is known from the turns before, and its length.

        At least one token is left to compute: the model has to be asked for what follows it.
        """
        kept = self.kept.pop(conversation, None) if self.reuse else None
        if kept is None:
            return make_prompt_cache(self.model), 0
        same = 0
        # The agent may have shortened an older message since, so the beginning is compared and not taken for granted.
        for ours, theirs in zip(kept.tokens, prompt[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        surplus = len(kept.tokens) - same
        if surplus and (
            not can_trim_prompt_cache(kept.cache) or trim_prompt_cache(kept.cache, surplus) != surplus
        ):
            return make_prompt_cache(self.model), 0
        return kept.cache, same

    def step(self) -> list[dict[str, Any]]:
        """Generate one token for everybody in the batch; the replies that are complete now."""
        finished = []
        for response in self.batch.next_generated():
            entry = self.running[response.uid]
            if response.finish_reason != "stop":
                entry.generated.append(response.token)
            if response.finish_reason:
                del self.running[response.uid]
                self._keep(entry, response.prompt_cache, response.all_tokens)
                finished.append(self._reply(entry, response.finish_reason))
        return finished

    def _reply(self, entry: ActiveRequest, finish_reason: str) -> dict[str, Any]:
        return {
            "id": entry.request["id"],
            "text": self.tokenizer.decode(entry.generated),
            "finish_reason": "length" if finish_reason == "length" else "stop",
            "prompt_tokens": len(entry.prompt),
            "completion_tokens": len(entry.generated),
            "processed_prompt_tokens": entry.processed,
        }

    def _keep(self, entry: ActiveRequest, cache: list[Any], fed: list[int]) -> None:
        """`fed` is all that the model has read of this conversation, the end-of-turn token included."""
        if not self.reuse:
            return
        # The cache may hold fewer tokens than were said, as after a reply that was cut; where it claims more than are known it is not
        # kept.
        length = cache[0].offset
        tokens = list(fed)[:length]
        if len(tokens) == length:
            self.kept[_cache_key(entry.request)] = CachedConversation(tokens, detached(cache))
        while sum(part.nbytes for kept in self.kept.values() for part in kept.cache) > CACHE_BYTES:
            self.kept.popitem(last=False)

    def forget(self, request: dict[str, Any]) -> None:
        self.kept.pop(_cache_key(request), None)


def _number(scalar: mx.array) -> float:
    found: Any = scalar.item()
    return float(found)


def _cache_key(request: dict[str, Any]) -> str:
    """What a model has read is worth nothing to the same model with another adapter."""
    return f"{request['adapter']}\0{request['conversation']}"


def _failure(error: Exception) -> dict[str, Any]:
    """What went wrong, and whether it is true of every request, or can pass."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, BadInput):
        return {"error": str(error), "kind": "unfit"}
    if isinstance(error, MemoryError) or any(sign in said for sign in NO_MEMORY):
        return {"error": said, "kind": "memory"}
    return {"error": said}


def sampler(temperature: float, seed: int, cuts: Mapping[str, Any]) -> Any:
    """Log-probabilities → token, the same for the same seed whoever else is in the batch. What is cut off is decided before the
    temperature, as in llama.cpp."""
    if temperature == 0:
        return lambda logprobs: mx.argmax(logprobs, axis=-1)
    key = mx.random.key(seed)

    def sample(logprobs: Any) -> Any:
        nonlocal key
        key, used = mx.random.split(key)
        if 0 < cuts["top_k"] < logprobs.shape[-1]:
            logprobs = apply_top_k(logprobs, cuts["top_k"])
        if cuts["top_p"] < 1:
            logprobs = apply_top_p(logprobs, cuts["top_p"])
        if cuts["min_p"] > 0:
            logprobs = apply_min_p(logprobs, cuts["min_p"])
        return mx.random.categorical(logprobs / temperature, key=used)

    return sample


def penalties(named: Mapping[str, Any]) -> list[Any]:
    """For what stands among the last tokens; none where nothing is to be punished."""
    repeated = named["repeat_penalty"]
    return list(
        make_logits_processors(
            repetition_penalty=None if repeated == 1 else repeated,
            repetition_context_size=WINDOW,
            presence_penalty=named["presence_penalty"] or None,
            presence_context_size=WINDOW,
            frequency_penalty=named["frequency_penalty"] or None,
            frequency_context_size=WINDOW,
        )
    )


def detached(cache: list[Any]) -> list[Any]:
    """A copy of its own: what a batch returns are views that keep the buffers of the whole batch alive."""
    for part in cache:
        if hasattr(part, "keys") and hasattr(part, "offset") and part.keys is not None:
            part.keys = mx.contiguous(part.keys[..., : part.offset, :] + 0)
            part.values = mx.contiguous(part.values[..., : part.offset, :] + 0)
    mx.eval([part.state for part in cache])
    return cache


def serve(server: Server, requests: "queue.Queue[dict[str, Any] | None]") -> None:
    """Answer until the input ends."""
    while True:
        # Everything that has come is taken before the next token, so that it joins the batch at once; waited for only while there
        # is nothing to generate.
        while not requests.empty() or not (server.running or server.waiting):
            request = requests.get()
            if request is None:
                return
            answer = _handle(server, request)
            if answer is not None:
                _send({"id": request.get("id"), **answer})
        for answer in server.admit():
            _send(answer)
        if server.running:
            for reply in server.step():
                _send(reply)


def _handle(server: Server, request: dict[str, Any]) -> dict[str, Any] | None:
    """An answer that is ready at once; None for a reply that is being generated, or where none is due."""
    try:
        if request["op"] == "count":
            return server.count(request)
        if request["op"] == "forget":
            server.forget(request)
            return None
        return server.ask(request)
    except Exception as error:
        return _failure(error)


def _send(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    bind_openblas()
    server = Server(sys.argv[1], reuse="--no-reuse" not in sys.argv)
    requests: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            requests.put(json.loads(line))
        requests.put(None)

    threading.Thread(target=listen, daemon=True).start()
    _send({"id": "ready", "device": str(mx.default_device()), "ready": True})
    serve(server, requests)


if __name__ == "__main__":
    main()
