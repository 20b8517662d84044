"""Makes the embedded model from nothing: tokenizer, hand-set copying circuit, copy warm-up, training on the corpus.

A transformer this small learns to copy from context only after far more steps than a laptop can give it. So the circuit
that copies (a head that looks one token back, a head that finds where the current token stood before and fetches what
followed) is set by hand at initialisation and then trained with everything else. See `src/looper/nano/weights/MODEL_CARD.md` for figures.

On Linux `scripts/build_nano` lets MLX multiply by SciPy's OpenBLAS; the same build takes about 30 times as long without.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.utils import load
from scripts.nano.corpus import SLIP, Message, episodes
from scripts.nano.tokenizer import END, PAD, SPECIAL, save_tokenizer, train_tokenizer

OBSERVATION_WEIGHT = 0.3
"""Loss weight of tokens that the model does not say; predicting observations teaches copying too."""
LENGTH_BUCKET = 48
"""Batches are padded to multiples of this many tokens: `mx.compile` compiles once per shape."""
COPY_LOSS_GOAL = 1.5
"""Nats per token on random copies after the warm-up; a circuit that is not there stays near ln(vocabulary) = 6.8."""


HEAD_WIDTH = 64
"""Few, wide heads: copying needs many rotary frequencies."""


def configuration(vocabulary: int, end: int, width: int) -> dict[str, Any]:
    """A Llama of mlx-lm: 0.77 M parameters at width 128, 0.22 M at 64."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "num_hidden_layers": 4,
        "intermediate_size": 2 * width,
        "num_attention_heads": width // HEAD_WIDTH,
        "num_key_value_heads": width // HEAD_WIDTH,
        "rms_norm_eps": 1e-5,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "rope_theta": 1e6,
        "max_position_embeddings": 4096,
        "hidden_act": "silu",
        "eos_token_id": end,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def set_copying_circuit(model: Any, config: dict[str, Any], seed: int = 0) -> None:
    """Write an induction circuit into head 0 of the first two layers.

    Layer 0: constant queries and keys, turned by the rotary phase of one position, on the fastest frequencies: the head
    attends to the previous token and copies a projection of it into the residual. Layer 1: queries from the current
    token meet keys made of that projection on the slow frequencies, which hardly turn; values carry the embedding of
    the token that followed, which the tied output reads.
    """
    draw = np.random.default_rng(seed)
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head, spread = width // heads, 0.05
    half = head // 2
    angles = config["rope_theta"] ** (-np.arange(half) / half)

    def orthogonal(rows: int, columns: int) -> Any:
        wide = rows < columns
        q, _ = np.linalg.qr(draw.normal(size=(max(rows, columns), min(rows, columns))))
        return (q.T if wide else q).astype(np.float32)

    embedding = draw.normal(0, spread, (config["vocab_size"], width)).astype(np.float32)
    model.model.embed_tokens.weight = mx.array(embedding)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight = layer.self_attn.o_proj.weight * 0.3
        layer.mlp.down_proj.weight = layer.mlp.down_proj.weight * 0.3
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            bias = layer.self_attn[name].bias
            layer.self_attn[name].bias = mx.zeros_like(bias)

    def rewrite(linear: Any, rows: Any = None, columns: Any = None, bias: Any = None) -> None:
        """Replace the part of a projection that belongs to head 0: output rows, input columns, or bias."""
        weight = np.array(linear.weight)
        if rows is not None:
            weight[:head] = rows
        if columns is not None:
            weight[:, :head] = columns
        linear.weight = mx.array(weight)
        if bias is not None:
            whole = np.zeros(width, np.float32)
            whole[: len(bias)] = bias
            linear.bias = mx.array(whole)

    fast, strength = 6, np.sqrt(6 * np.sqrt(head))
    query, key = np.zeros(head, np.float32), np.zeros(head, np.float32)
    query[:fast] = strength
    key[:fast] = strength * np.cos(angles[:fast])
    key[half : half + fast] = strength * np.sin(angles[:fast])
    take, give = orthogonal(head, width), orthogonal(width, head)
    first = model.model.layers[0].self_attn
    rewrite(first.q_proj, rows=0, bias=query)
    rewrite(first.k_proj, rows=0, bias=key)
    rewrite(first.v_proj, rows=take)
    rewrite(first.o_proj, columns=spread * np.sqrt(width) / np.sqrt(head) * give)

    slow = np.where(angles < 2e-3)[0]
    dims = np.concatenate([slow, slow + half])
    mix = orthogonal(len(dims), head) if len(dims) < head else np.eye(head, dtype=np.float32)[: len(dims)]
    gain = np.sqrt(9 * np.sqrt(head) / (width / 2 * len(dims) / width))
    queries, keys = np.zeros((head, width), np.float32), np.zeros((head, width), np.float32)
    queries[dims] = gain * (mix @ take)
    keys[dims] = gain * (mix @ give.T)
    carry = orthogonal(head, width)
    second = model.model.layers[1].self_attn
    rewrite(second.q_proj, rows=queries)
    rewrite(second.k_proj, rows=keys)
    rewrite(second.v_proj, rows=carry)
    rewrite(second.o_proj, columns=3 * spread * carry.T)


def copy_batch(draw: Any, vocabulary: int, rows: int = 32, length: int = 64) -> tuple[Any, Any]:
    """Random token sequences in which runs repeat; tokens and loss weights, both of shape (rows, length + 1)."""
    tokens, weights = np.zeros((rows, length + 1), np.int32), np.zeros((rows, length + 1), np.float32)
    for row in range(rows):
        line = list(draw.integers(len(SPECIAL), vocabulary, int(draw.integers(6, 16))))
        counted = [0.0] * len(line)
        while len(line) <= length:
            if draw.random() < 0.6:
                run = int(draw.integers(3, 14))
                start = int(draw.integers(0, max(1, len(line) - run)))
                again = line[start : start + run]
                counted += [0.0] + [1.0] * (len(again) - 1)
                line += again
            else:
                fresh = list(draw.integers(len(SPECIAL), vocabulary, int(draw.integers(1, 5))))
                line += fresh
                counted += [0.0] * len(fresh)
        tokens[row], weights[row] = line[: length + 1], counted[: length + 1]
    return tokens, weights


class Encoder:
    """Messages → token ids and loss weights, turn by turn, as the chat template joins them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
        self._known: dict[str, list[int]] = {}

    def encode(self, messages: tuple[Message, ...]) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        weights: list[float] = []
        for role, text in messages:
            turn = [
                self.special["<|assistant|>" if role == SLIP else f"<|{role}|>"],
                *self._text(text),
                self.special[END],
            ]
            said = 1.0 if role == "assistant" else OBSERVATION_WEIGHT
            ids += turn
            # The role marker is part of the prompt, never predicted.
            weights += [OBSERVATION_WEIGHT, *[said] * (len(turn) - 1)]
        weights[0] = 0.0
        return ids, weights

    def _text(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._known[text]


def corpus_batches(encoder: Encoder, rng: random.Random, rows: int) -> Iterator[tuple[Any, Any]]:
    """Endless batches of tokens and loss weights, shape (rows, bucketed length + 1), grouped by length."""
    stream = episodes(rng)
    while True:
        pool = sorted(
            (encoder.encode(next(stream).messages) for _ in range(rows * 30)), key=lambda pair: len(pair[0])
        )
        groups = [pool[at : at + rows] for at in range(0, len(pool), rows)]
        rng.shuffle(groups)
        for group in groups:
            length = -(-max(len(ids) for ids, _ in group) // LENGTH_BUCKET) * LENGTH_BUCKET
            tokens = np.full((rows, length + 1), encoder.special[PAD], np.int32)
            weights = np.zeros((rows, length + 1), np.float32)
            for row, (ids, counted) in enumerate(group):
                tokens[row, : len(ids)], weights[row, : len(ids)] = ids, counted
            yield tokens, weights


def weighted_loss(model: Any, tokens: Any, weights: Any) -> Any:
    """Mean cross-entropy per unit of weight, in nats; position t predicts token t + 1."""
    loss = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
    return (loss * weights[:, 1:]).sum() / weights[:, 1:].sum()


def compiled_step(model: Any, optimizer: Any) -> Any:
    """One optimizer step on (tokens, weights), gradient norm clipped to 1; returns the loss."""
    gradient = nn.value_and_grad(model, weighted_loss)
    state = [model.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)  # type: ignore[untyped-decorator,unused-ignore]
    def step(tokens: Any, weights: Any) -> Any:
        loss, gradients = gradient(model, tokens, weights)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        return loss

    def run(tokens: Any, weights: Any) -> float:
        loss = step(mx.array(tokens), mx.array(weights))
        mx.eval(loss, state)
        return float(loss.item())

    return run


def warm_up(model: Any, vocabulary: int, steps: int, seed: int) -> float:
    """Train on random copies until the mean loss of 25 steps is below 1 or `steps` are done; returns that mean."""
    draw = np.random.default_rng(seed)
    optimizer = optim.AdamW(
        learning_rate=lambda step: 2e-3 * mx.minimum((step + 1) / 30.0, 1.0),
        betas=[0.9, 0.95],
        weight_decay=0.01,
    )
    step, recent, mean = compiled_step(model, optimizer), [], float("nan")
    for number in range(1, steps + 1):
        recent.append(step(*copy_batch(draw, vocabulary)))
        if number % 25 == 0:
            mean, recent = sum(recent) / len(recent), []
            _say(f"copy warm-up {number}: loss {mean:.3f}")
            if mean < 1.0:
                break
    return mean


def train(
    model: Any,
    encoder: Encoder,
    folder: Path,
    *,
    steps: int,
    rows: int,
    peak_rate: float,
    seed: int,
    save_every: int,
) -> list[dict[str, float]]:
    """Cosine-scheduled AdamW on the corpus. Returns the loss history, one entry per 50 steps."""
    optimizer = optim.AdamW(learning_rate=peak_rate, betas=[0.9, 0.95], weight_decay=0.01)
    step, recent, history, seen = compiled_step(model, optimizer), [], [], 0
    begun = time.monotonic()
    for number, (tokens, weights) in enumerate(corpus_batches(encoder, random.Random(seed + 100), rows), 1):
        if number > steps:
            break
        share = number / steps
        optimizer.learning_rate = (
            peak_rate * min(number / 40, 1) * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * share)))
        )
        recent.append(step(tokens, weights))
        seen += tokens.size
        if number % 50 == 0:
            entry = {"step": number, "loss": round(sum(recent) / len(recent), 4), "tokens": seen}
            history.append(entry)
            recent = []
            left = (time.monotonic() - begun) / number * (steps - number)
            _say(
                f"step {number}/{steps}: loss {entry['loss']:.3f}, {seen / 1e6:.2f} M tokens, {left:.0f} s left"
            )
        if number % save_every == 0 and number < steps:
            save(model, encoder, folder / f"step-{number}")
    return history


def save(model: Any, encoder: Encoder, folder: Path) -> None:
    """Write config, weights and tokenizer as mlx-lm loads them."""
    save_tokenizer(encoder.tokenizer, folder)
    model.save_weights(str(folder / "model.safetensors"))
    config = configuration(len(encoder.tokenizer), encoder.special[END], model.args.hidden_size)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def build(
    folder: Path,
    *,
    steps: int,
    rows: int,
    peak_rate: float,
    seed: int,
    save_every: int,
    begin: Path | None,
    width: int,
) -> None:
    """The whole recipe, ending in `folder`; or a further leg from the model in `begin`.

    Raises RuntimeError where the warm-up did not give a copying circuit.
    """
    mx.random.seed(seed)
    model, encoder = _new_model(seed, width) if begin is None else _loaded_model(begin)
    size = sum(value.size for _, value in tree_flatten(model.parameters()))
    _say(f"{size / 1e6:.2f} M parameters, vocabulary {len(encoder.tokenizer)}")
    copy_loss = warm_up(model, len(encoder.tokenizer), 150, seed) if begin is None else None
    if copy_loss is not None and not copy_loss < COPY_LOSS_GOAL:
        raise RuntimeError(f"copy loss {copy_loss:.2f} after the warm-up, expected below {COPY_LOSS_GOAL}")
    history = train(
        model, encoder, folder, steps=steps, rows=rows, peak_rate=peak_rate, seed=seed, save_every=save_every
    )
    save(model, encoder, folder)
    log = {"parameters": size, "copy_loss": copy_loss, "steps": steps, "rows": rows, "peak_rate": peak_rate}
    (folder / "training.json").write_text(
        json.dumps({**log, "seed": seed, "history": history}, indent=1) + "\n"
    )


def _new_model(seed: int, width: int) -> tuple[Any, Encoder]:
    encoder = Encoder(train_tokenizer())
    config = configuration(len(encoder.tokenizer), encoder.special[END], width)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    set_copying_circuit(model, config, seed)
    mx.eval(model.parameters())
    return model, encoder


def _loaded_model(folder: Path) -> tuple[Any, Encoder]:
    model, wrapped = load(str(folder))[:2]
    model.train()
    return model, Encoder(wrapped._tokenizer)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and its checkpoints")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--rows", type=int, default=16, help="episodes per step")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=128, help="of the residual stream, a multiple of 64")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument(
        "--from", dest="begin", type=Path, help="go on from this model instead of from nothing"
    )
    options = parser.parse_args()
    build(
        options.out,
        steps=options.steps,
        rows=options.rows,
        peak_rate=options.rate,
        seed=options.seed,
        save_every=options.save_every,
        begin=options.begin,
        width=options.width,
    )


if __name__ == "__main__":
    main()
