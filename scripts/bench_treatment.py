"""How long it takes from examples to a model that is proven to have learned them, on the embedded model.

    python scripts/bench_treatment.py

Trains an adapter on conversations of the expert in some repositories, serves it, proves that it reached the model, and
measures what the model makes of conversations in other repositories, before and after.
"""

import argparse
import tempfile
import time
from pathlib import Path

from bench_training import conversations

from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.trainers.mlx import MlxTrainer
from looper.experiment.checks import check_adapter, measure_retention
from looper.records.training import Make, TrainingRequest, TrainingSettings

SETTINGS = TrainingSettings(
    rank=8, multiplier=10.0, learning_rate=3e-4, iterations=40, batch_size=8, max_tokens=512
)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    examples = conversations(40)
    learned, elsewhere = examples[:20], examples[20:]
    base = MlxModel(nano_folder(), name="nano", context_tokens=2048)
    begun = last = time.monotonic()

    def done(what: str) -> None:
        nonlocal last
        now = time.monotonic()
        print(f"{what}: {now - last:.1f} s")
        last = now

    with tempfile.TemporaryDirectory() as folder:
        trainer = MlxTrainer(nano_folder(), Path(folder))
        card = trainer.train(
            TrainingRequest(base=base.identity(), make=Make.TRAINED, settings=SETTINGS, examples=learned)
        )
        done(f"trained, {card.trained_tokens} action tokens")
        served = base.with_adapter(trainer.folder(card.id))
        prompts = [[("user", item.turns[1].text)] for item in elsewhere]
        base.first_logits(prompts[0])
        done("model process up")
        proof = check_adapter(served, base, prompts, "lora", card.id, zero=False)
        done(f"served and told apart: {proof.said}")
        own = measure_retention(served, base, learned, "lora", card.id)
        done(f"learned: {own.before:.3f} → {own.after:.3f} nats per token")
        kept = measure_retention(served, base, elsewhere, "lora", card.id)
        done(f"elsewhere: {kept.before:.3f} → {kept.after:.3f} nats per token")
    base.close()
    print(f"all: {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main()
