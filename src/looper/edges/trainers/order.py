"""Which examples share an iteration, and which tasks are kept aside: the same for every library that trains."""

import random
from collections.abc import Iterator, Sequence

from looper.edges.trainers.encoding import Encoded
from looper.errors import BadInput
from looper.records.text import counted
from looper.records.training import Example, TrainingRequest, TrainingSettings


def groups(examples: Sequence[Encoded], rows: int, seed: int, begin: int = 0) -> Iterator[list[Encoded]]:
    """Endless groups of examples of like length; each epoch shows every example once, in another order.

    Which examples stand in group n depends on seed and n alone. `begin` skips groups.
    """
    ordered = sorted(examples, key=lambda item: (len(item.tokens), item.source))
    number = epoch = 0
    while True:
        rng = random.Random(f"{seed}/{epoch}")
        # Neighbours in length share a batch; who the neighbours are moves from epoch to epoch.
        shift = rng.randrange(rows)
        turned = [*ordered[shift:], *ordered[:shift]]
        found = [turned[at : at + rows] for at in range(0, len(turned), rows)]
        rng.shuffle(found)
        for group in found:
            if number >= begin:
                yield group
            number += 1
        epoch += 1


def validation_tasks(examples: Sequence[Example], settings: TrainingSettings) -> set[str]:
    """Ids of the tasks for validation: whole ones, drawn by the seed, until their share is reached; none where it is 0. Raises BadInput
    where they are too few."""
    share = settings.validation_share
    tasks = sorted({example.instance_id for example in examples})
    if not share:
        return set()
    count = max(1, round(share * len(tasks)))
    if count >= len(tasks):
        raise BadInput(
            f"{counted(len(tasks), 'task is', 'tasks are')} too few to keep {share:.0%} aside. Set validation_share = 0."
        )
    return set(random.Random(settings.seed).sample(tasks, count))


def train_validation_split(
    found: Sequence[Encoded], request: TrainingRequest
) -> tuple[list[Encoded], list[Encoded]]:
    """Windows for training and for validation, no task on both sides. Raises BadInput where either has none."""
    aside = validation_tasks(request.examples, request.settings)
    train_set = [item for item in found if item.instance_id not in aside]
    validation_set = [item for item in found if item.instance_id in aside]
    if not train_set:
        raise BadInput(
            f"None of {counted(len(request.examples), 'example')} fits {request.settings.max_tokens} tokens. Raise max_tokens."
        )
    if aside and not validation_set:
        raise BadInput("The validation tasks have no example that fits. Raise max_tokens.")
    return train_set, validation_set
