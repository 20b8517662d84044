"""The levels of the embedded suite, generated from a seed."""

import random
from collections.abc import Callable
from functools import partial

from looper.bench.micro import level0, level1
from looper.bench.micro.project import Project

REPOSITORIES = 8
TASKS_PER_REPOSITORY = 40
GENERATORS: dict[int, Callable[[random.Random, int], Project]] = {
    0: level0.generate,
    1: level1.generate,
    2: partial(level1.generate, places=2),
}
REDRAWN: dict[int, Callable[[random.Random, int, str], Project]] = {
    0: level0.generate_redrawn,
    1: level1.generate_redrawn,
    2: partial(level1.generate_redrawn, places=2),
}


CHANGED = {"stale_minor": 1, "stale_moderate": 3, "stale_major": 7}
"""Of the twelve families of a level-0 repository: 8, 25 and 58 %."""


def projects(
    level: int, seed: int, variant: str = "", repositories: int = REPOSITORIES
) -> tuple[Project, ...]:
    """Repositories of forty tasks, the same for the same level and seed on every machine; the first of more are those of fewer.

    Variants are repositories of the same names and shape: `redrawn`, in which every task has conventions of its own, and, of
    level 0, the stale ones, which are older states of the same repositories.
    """
    if variant == "redrawn":
        names = [project.name for project in projects(level, seed, repositories=repositories)]
        return tuple(
            REDRAWN[level](random.Random(f"micro/redrawn/{seed}/{name}"), TASKS_PER_REPOSITORY, name)
            for name in names
        )
    found: dict[str, Project] = {}
    number = 0
    while len(found) < repositories:
        rng = random.Random(f"micro/{level}/{seed}/{number}")
        project = (
            level0.generate(rng, TASKS_PER_REPOSITORY, CHANGED[variant])
            if variant
            else GENERATORS[level](rng, TASKS_PER_REPOSITORY)
        )
        found.setdefault(project.name, project)
        number += 1
    return tuple(found.values())
