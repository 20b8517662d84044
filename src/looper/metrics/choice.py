"""Taking one of several attempts at a task."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from looper.records.plan import Chooser
from looper.records.trajectory import Bash, Edit, ObservationKind, Step, Write


@dataclass(frozen=True)
class AttemptOutcome:
    """What one attempt came to."""

    patch_hash: str
    empty: bool
    """Whether there is no patch."""
    resolved: bool
    """Only `Chooser.ANY` looks at it."""
    checked: bool = False
    """As `own_check` found."""
    log_likelihood: float | None = None
    """Of its actions under base, nats per token; None where that was not measured."""


def chosen(by: Chooser, attempts: Sequence[AttemptOutcome], cell: str) -> AttemptOutcome:
    """The attempt that is taken. `cell` decides what is drawn, so that the choice is the same whenever it is made."""
    patches = [made for made in attempts if not made.empty] or attempts
    match by:
        case Chooser.RANDOM:
            return random.Random(cell).choice(attempts)
        case Chooser.ANY:
            return next((made for made in attempts if made.resolved), attempts[0])
        case Chooser.MAJORITY:
            votes = Counter(made.patch_hash for made in patches)
            # `max` keeps the first of equals.
            return max(patches, key=lambda made: votes[made.patch_hash])
        case Chooser.CHECKED:
            return next((made for made in patches if made.checked), patches[0])
        case Chooser.LIKELIEST:
            return max(patches, key=lambda made: made.log_likelihood or 0.0)


def can_choose(by: Chooser, attempts: Sequence[AttemptOutcome]) -> bool:
    """Whether all that the chooser looks at was measured."""
    patches = [made for made in attempts if not made.empty]
    return by is not Chooser.LIKELIEST or all(made.log_likelihood is not None for made in patches)


def own_check(steps: Iterable[Step]) -> bool:
    """Whether the last command that the agent ran after its last change ended with exit code 0. It knows no hidden test, so
    this is its own word for being right."""
    passed = False
    for step in steps:
        if isinstance(step.action, Edit | Write) and step.observation.kind is ObservationKind.OK:
            passed = False
        elif isinstance(step.action, Bash):
            passed = step.observation.exit_code == 0
    return passed
