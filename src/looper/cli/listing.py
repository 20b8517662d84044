"""What `looper bench list --repo` prints."""

from collections.abc import Iterator, Sequence

from looper.cli.settings import Settings
from looper.cli.wiring import suites
from looper.errors import BadInput, possible
from looper.experiment.schedule import of_your_own
from looper.records.base import grouped

TITLE = 80
"""Characters of an issue that are shown."""


def task_lines(settings: Settings, suite: str | None, repos: Sequence[str]) -> Iterator[str]:
    """Every task of the repositories, of one suite or of all: id and beginning of its issue. Raises BadInput for a repository that
    none of them has."""
    found = grouped((task.repo, (name, task)) for name, tasks, _ in suites(settings, suite) for task in tasks)
    for repo in repos:
        if repo not in found:
            raise BadInput(
                f'There is no repository "{repo}" in {suite or "any suite"}. {possible(repo, found, "There are")}{of_your_own(repo)}'
            )
    for repo in dict.fromkeys(repos):
        suites_of = list(dict.fromkeys(name for name, _ in found[repo]))
        for name in suites_of:
            yield f"{repo}, {name}"
            for of, task in found[repo]:
                if of == name:
                    yield f"  {task.instance_id}  {' '.join(task.problem_statement.split())[:TITLE]}"
