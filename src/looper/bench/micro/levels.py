"""The levels of the embedded suite, generated from a seed."""

import random

from looper.bench.micro import level0, level1
from looper.bench.micro.project import Project

REPOSITORIES = 8
TASKS_PER_REPOSITORY = 40
GENERATORS = {0: level0.generate, 1: level1.generate, 2: level1.generate_level_2}


def projects(level: int, seed: int, *, redrawn: bool = False) -> tuple[Project, ...]:
    """Eight repositories of forty tasks, the same for the same level and seed on every machine.

    `redrawn` gives level-0 repositories of the same names and shape in which every task has conventions of its own.
    """
    if redrawn:
        names = [project.name for project in projects(0, seed)]
        return tuple(
            level0.generate_redrawn(random.Random(f"micro/redrawn/{seed}/{name}"), TASKS_PER_REPOSITORY, name)
            for name in names
        )
    found: dict[str, Project] = {}
    number = 0
    while len(found) < REPOSITORIES:
        rng = random.Random(f"micro/{level}/{seed}/{number}")
        project = GENERATORS[level](rng, TASKS_PER_REPOSITORY)
        found.setdefault(project.name, project)
        number += 1
    return tuple(found.values())
