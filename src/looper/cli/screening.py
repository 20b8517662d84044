"""What `looper bench leaks` prints."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from looper.bench.screen import LeakScore, fix_stands_in, leak_score, near_duplicates
from looper.cli.fetching import tasks_by_repo
from looper.cli.settings import Settings
from looper.cli.wiring import base_trees, load_hints
from looper.records.text import counted


def leak_lines(settings: Settings, repos: Sequence[str], *, every: bool, hints: bool) -> Iterator[str]:
    """Scores task by task, tasks that nearly are another one, then a line per repository."""
    said = load_hints(settings.rows["swe-bench-cl"]) if hints else {}
    for repo, tasks in tasks_by_repo(settings, repos).items():
        flagged = unscored = only_in_hints = 0
        for task in tasks:
            score = leak_score(task.gold_patch, task.problem_statement)
            flagged += score.flagged
            unscored += score.covered_share is None
            in_hints = leak_score(task.gold_patch, said[task.instance_id]) if said else None
            only_in_hints += in_hints is not None and in_hints.flagged and not score.flagged
            if every or score.flagged or (in_hints is not None and in_hints.flagged):
                yield (
                    f"{'FLAGGED' if score.flagged else '       '} {task.instance_id}: {_figures(score)} "
                    f"{counted(score.scored_lines, 'line')}{f'; in hints {_figures(in_hints)} them' if in_hints else ''}"
                )
        copies = {
            task.instance_id: found
            for at, task in enumerate(tasks)
            for found in near_duplicates([task], tasks[:at]).values()
        }
        for name, other in copies.items():
            yield f"{name} is nearly the same as {other}"
        yield (
            f"{repo}: {flagged} of {len(tasks)} flagged, {unscored} without a line to score, {len(copies)} nearly the same "
            "as another" + (f", {only_in_hints} more whose hints give it away" if said else "")
        )


def later_lines(settings: Settings, repos: Sequence[str], say: Callable[[str], None]) -> Iterator[str]:
    """For each task how many tasks that come after it in its sequence begin with a tree that holds its fix; a line for each
    repository. Raises BadInput for mirrors that are not there."""
    for repo, tasks in tasks_by_repo(settings, repos).items():
        trees = base_trees(tasks, settings)
        holding = pairs = without = 0
        for at, task in enumerate(tasks):
            found = [
                fix_stands_in(task, partial(trees.base_file, later))
                for later in tasks[at + 1 :]
                if later.created_at > task.created_at
            ]
            held, known = sum(bool(each) for each in found), sum(each is not None for each in found)
            holding, pairs, without = holding + held, pairs + known, without + (bool(found) and not known)
            if known:
                yield f"{task.instance_id}: its fix stands in the trees of {held} of {known} later tasks"
            say(f"{at + 1}/{len(tasks)} {repo}")
        yield (
            f"{repo}: {holding} of {pairs} later trees hold an earlier task's fix, {counted(without, 'task')} without a line to look for: "
            "transfer must not be counted from there"
        )


def _figures(score: LeakScore) -> str:
    if score.max_similarity is None or score.covered_share is None:
        return "not scored,"
    return f"best line {score.max_similarity:.2f}, given {score.covered_share:.0%} of"
