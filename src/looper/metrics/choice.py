"""Taking one of several attempts at a task."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from looper.records.plan import Chooser


@dataclass(frozen=True)
class Made:
    """What one attempt came to."""

    patch_hash: str
    empty: bool
    """Whether there is no patch."""
    resolved: bool
    """Only `Chooser.ANY` looks at it."""


def chosen(by: Chooser, attempts: Sequence[Made], cell: str) -> Made:
    """The attempt that is taken. `cell` decides what is drawn, so that the choice is the same whenever it is made."""
    match by:
        case Chooser.RANDOM:
            return random.Random(cell).choice(attempts)
        case Chooser.ANY:
            return next((made for made in attempts if made.resolved), attempts[0])
        case Chooser.MAJORITY:
            voters = [made for made in attempts if not made.empty] or attempts
            votes = Counter(made.patch_hash for made in voters)
            # `max` keeps the first of equals.
            return max(voters, key=lambda made: votes[made.patch_hash])
