"""The embedded suite, generated and written once for each level and seed."""

from functools import partial
from pathlib import Path

from looper.bench.micro.levels import REPOSITORIES, projects
from looper.bench.micro.project import Project
from looper.edges.datasets.projects import written
from looper.records.base import content_hash
from looper.records.task import Task


class MicroSuite:
    """Tasks and bare mirrors under `folder`."""

    def __init__(
        self, folder: Path, level: int, seed: int, variant: str = "", repositories: int = REPOSITORIES
    ) -> None:
        """`variant` is empty, `redrawn`, or one of `levels.CHANGED`."""
        self.name = f"micro-{level}" + (f"-{variant}" if variant else "")
        self._folder, self._level, self._seed, self._variant = folder, level, seed, variant
        self._repositories = repositories

    def load(self) -> tuple[tuple[Task, ...], dict[str, Path]]:
        """Tasks in sequence order, and mirrors by suite and repository name."""
        generated = projects(self._level, self._seed, self._variant, self._repositories)
        identity = content_hash(*(repr(project.changes) for project in generated))[:12]
        folder = self._folder / f"{self.name}-seed{self._seed}-{identity}"
        return written(folder, self.name, generated, partial(_instance_id, self._variant))


def _instance_id(variant: str, project: Project, number: int) -> str:
    # The tasks of a variant are others than those of the same number.
    return f"{project.name}-{variant.replace('stale_', 's')[:3]}{number:02d}"
