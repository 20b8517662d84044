"""Training speed beside mlx-lm's own command, on the same conversations, model, batch and machine.

    python scripts/bench_training.py [--iterations 60] [--rounds 3]

Both train LoRA of rank 8 on the embedded model, in a process of their own. What counts is supervised action tokens per
second: mlx-lm with `--mask-prompt` trains on the last turn of each conversation only, without it on every token, prompts
and tool output included; Looper on every action and nothing else. Medians over the rounds, which alternate.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nano.corpus import SLIP, episodes

from looper.edges.models.mlx import MlxModel, mlx_environment, nano_folder
from looper.edges.trainers.encoding import encode, load_tokenizer
from looper.edges.trainers.mlx import MEMORY, MlxTrainer
from looper.records.training import Example, Make, TrainingRequest, TrainingSettings, Turn

PEER = """
import json, sys, types
from mlx_lm import lora
from mlx_lm.tuner.datasets import load_dataset
from mlx_lm.utils import load
options = {**lora.CONFIG_DEFAULTS, **json.loads(sys.argv[1])}
arguments = types.SimpleNamespace(**options)
model, tokenizer = load(arguments.model)[:2]
train, valid, _ = load_dataset(arguments, tokenizer)

class Losses:
    tokens = seconds = 0
    def on_train_loss_report(self, info):
        found = info["iterations_per_second"]
        Losses.tokens += info["tokens_per_second"] / found
        Losses.seconds += 1 / found
    def on_val_loss_report(self, info):
        pass

lora.train_model(arguments, model, train, valid, Losses())
with open(sys.argv[2], "w") as out:
    json.dump({"tokens": Losses.tokens, "seconds": Losses.seconds}, out)
"""


def conversations(count: int) -> tuple[Example, ...]:
    stream, found = episodes(random.Random(8)), []
    for number in range(count):
        turns = []
        for role, text in next(stream).messages:
            taught = role == "assistant"
            turns.append(
                Turn.model_validate(
                    {"role": "assistant" if role == SLIP else role, "text": text, "supervised": taught}
                )
            )
        if turns[-1].role != "assistant":
            turns.pop()
        found.append(Example(source=f"s{number}", instance_id=f"t{number}", repo="r", turns=tuple(turns)))
    return tuple(found)


def looper_round(
    model: MlxModel, examples: tuple[Example, ...], iterations: int, folder: Path
) -> dict[str, float]:
    settings = TrainingSettings(
        rank=8,
        multiplier=10.0,
        learning_rate=1e-5,
        iterations=iterations,
        batch_size=8,
        max_tokens=2048,
        checkpoint_every=10**6,
    )
    request = TrainingRequest(base=model.identity(), make=Make.TRAINED, settings=settings, examples=examples)
    begun = time.monotonic()
    card = MlxTrainer(nano_folder(), folder).train(request)
    return {"tokens": card.trained_tokens, "seconds": card.seconds, "whole": time.monotonic() - begun}


def peer_round(
    examples: tuple[Example, ...], iterations: int, folder: Path, *, mask: bool
) -> dict[str, float]:
    folder.mkdir()
    lines = [
        json.dumps({"messages": [{"role": turn.role, "content": turn.text} for turn in example.turns]})
        for example in examples
    ]
    for name in ("train", "valid"):
        (folder / f"{name}.jsonl").write_text("\n".join(lines if name == "train" else lines[:8]) + "\n")
    options = {
        "model": str(nano_folder()),
        "train": True,
        "data": str(folder),
        "num_layers": -1,
        "batch_size": 8,
        "iters": iterations,
        "val_batches": 1,
        "steps_per_eval": 10**6,
        "steps_per_report": 1,
        "save_every": 10**6,
        "learning_rate": 1e-5,
        "adapter_path": str(folder / "adapter"),
        "mask_prompt": mask,
        "max_seq_length": 2048,
    }
    begun = time.monotonic()
    argv = [sys.executable, "-c", PEER, json.dumps(options), str(folder / "found.json")]
    subprocess.run(argv, env={**mlx_environment(), **MEMORY}, check=True, capture_output=True)
    found: dict[str, float] = json.loads((folder / "found.json").read_text())
    return {**found, "whole": time.monotonic() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    examples = conversations(64)
    tokenizer = load_tokenizer(nano_folder())
    lengths = [encode(tokenizer, example.turns) for example in examples]
    every = sum(len(tokens) for tokens, _ in lengths)
    actions = sum(sum(weights) for _, weights in lengths)
    print(
        f"{len(examples)} conversations, {every} tokens, {actions:.0f} of them actions ({100 * actions / every:.0f} %)"
    )
    model = MlxModel(nano_folder(), name="nano", context_tokens=2048)
    speeds: dict[str, list[float]] = {}
    wholes: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for number in range(options.rounds):
            found = {
                "looper": looper_round(model, examples, options.iterations, Path(place, f"looper{number}")),
                "mlx_lm.lora": peer_round(
                    examples, options.iterations, Path(place, f"all{number}"), mask=False
                ),
                "mlx_lm.lora --mask-prompt": peer_round(
                    examples, options.iterations, Path(place, f"last{number}"), mask=True
                ),
            }
            for name, figures in found.items():
                # Of the tokens that mlx-lm trains on without a mask, the same share as in the data are actions.
                share = actions / every if name == "mlx_lm.lora" else 1.0
                speeds.setdefault(name, []).append(share * figures["tokens"] / figures["seconds"])
                wholes.setdefault(name, []).append(figures["whole"])
    own = statistics.median(speeds["looper"])
    for name, values in speeds.items():
        median = statistics.median(values)
        print(
            f"{name:27} {median:7.0f} action tokens/s, looper / this {own / median:5.2f}, "
            f"{statistics.median(wholes[name]):5.1f} s with start and end"
        )


if __name__ == "__main__":
    main()
