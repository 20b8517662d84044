"""Kills a training at random moments and sees whether anything half made is ever listed.

    python scripts/kill_training.py [--kills 20] [--iterations 400]

One adapter is there before. The training of a second one is begun, killed with SIGKILL (parent or child, by turns) and
begun again, until it was killed often enough; then it may finish. After every kill the first adapter must still be whole
and no other be listed; at the end the second must be, with as many losses as iterations.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.trainers.mlx import MlxTrainer
from looper.records.training import Make, TrainingRequest, TrainingSettings

PROGRAM = """
import sys
from pathlib import Path
from looper.edges.models.mlx import nano_folder
from looper.edges.trainers.mlx import MlxTrainer
from looper.records.training import TrainingRequest
request = TrainingRequest.from_json(Path(sys.argv[1]).read_bytes())
MlxTrainer(nano_folder(), Path(sys.argv[2])).train(request, lambda event: print(event.event, event.iteration, flush=True))
"""


def child_of(parent: int) -> int | None:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    found = children.read_text().split() if children.exists() else []
    return int(found[-1]) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=400)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    from bench_training import conversations

    rng = random.Random(5)
    model = MlxModel(nano_folder(), name="nano", context_tokens=2048)
    settings = TrainingSettings(
        learning_rate=1e-4, iterations=4, batch_size=4, max_tokens=512, checkpoint_every=5
    )
    first = TrainingRequest(
        base=model.identity(), make=Make.TRAINED, settings=settings, examples=conversations(8)
    )
    longer = settings.model_copy(update={"iterations": options.iterations})
    second = first.model_copy(update={"settings": longer})
    with tempfile.TemporaryDirectory() as place:
        adapters, asked = Path(place, "adapters"), Path(place, "request.json")
        trainer = MlxTrainer(nano_folder(), adapters)
        old = trainer.train(first)
        asked.write_bytes(second.to_json())
        argv = [sys.executable, "-c", PROGRAM, str(asked), str(adapters)]
        kills = reached = 0
        while kills < options.kills:
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            time.sleep(rng.uniform(0.2, 6.0))
            victim = process.pid if kills % 2 else child_of(process.pid) or process.pid
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
            said, _ = process.communicate()
            reached = max([reached, *(int(line.split()[1]) for line in said.splitlines())])
            if process.returncode == 0:
                raise SystemExit(f"it finished after {kills} kills: use more iterations")
            kills += 1
            listed = sorted(path.name for path in adapters.iterdir() if not path.name.startswith("."))
            assert listed == [old.id], listed
            assert trainer.load(old.id) == old
        begun: list[int] = []
        card = trainer.train(
            second, lambda event: begun.append(event.iteration) if event.event == "loaded" else None
        )
        assert [point.iteration for point in card.train_losses] == list(range(1, options.iterations + 1))
        assert trainer.load(card.id) == card
        print(
            f"{kills} kills, the furthest at iteration {reached}; nothing half made was listed, the old adapter stayed whole; "
            f"the rerun went on from iteration {begun[0]} and finished"
        )


if __name__ == "__main__":
    main()
