"""Promoting and rolling back: pinned, atomic, and finished by the next process wherever the last one was killed."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.edges.test_sources import git, live, root
from tests.evolution.test_ledger import TO_ACCEPTED, proposed

from looper.edges.workspaces.sources import GitSources
from looper.edges.workspaces.versions import VersionFolders
from looper.errors import BadInput
from looper.evolution.ledger import EventLog
from looper.evolution.promotion import Promoter
from looper.evolution.state import NotAllowed
from looper.records.generation import Cause, Moved, Phase

__all__ = ["root"]
BRANCH = "refs/heads/evolve/active"


def promoter(
    folder: Path, repo: Path, wrap: Callable[[Any], Any] = lambda edge: edge, starts: str = ""
) -> Promoter:
    return Promoter(
        wrap(EventLog(folder / "ledger")),
        wrap(GitSources(repo)),
        wrap(VersionFolders(folder / "versions")),
        BRANCH,
        starts=lambda version: starts if (version / "agent" / "a.py").exists() else "it has no agent",
        still_passes=lambda tree, generation: True,
    )


def accepted(one: Promoter, text: str, parent: str = BRANCH) -> int:
    """A generation that every gate has passed, with this text in the agent's file."""
    number = one.ledger.state().next_number
    one.ledger.record(lambda state: proposed(state.next_number))
    commit = one.sources.with_files(one.sources.commit_of(parent), {"agent/a.py": text.encode()}, "candidate")
    one.sources.move(f"refs/heads/evolve/gen-{number}", commit, "")
    before = Phase.PROPOSED
    for after in TO_ACCEPTED:
        pinned = (
            {"candidate_commit": commit, "candidate_hash": one.sources.tree_of(commit)}
            if after is Phase.REPORTED
            else {}
        )
        move = Moved(generation=number, before=before, after=after, **pinned)
        one.ledger.record(lambda state, move=move: move)  # type: ignore[misc]
        before = after
    return number


def works(one: Promoter) -> str:
    """What the active version's agent says."""
    return (one.versions.folder(one.versions.active()) / "agent" / "a.py").read_text()


def test_what_was_judged_becomes_what_works_and_the_old_one_comes_back(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    before = live(root)
    first = one.begin(one.sources.commit_of("main"))
    number = accepted(one, "better\n")
    assert one.promote(number).after is Phase.PROMOTED and works(one) == "better\n"
    assert git(root, "show", "evolve/active:agent/a.py") == "better"
    assert git(root, "rev-parse", f"gen-{number}") == git(root, "rev-parse", "evolve/active")
    assert one.roll_back().after is Phase.ROLLED_BACK and works(one) == "one\ntwo\nthree\n"
    assert (
        one.versions.active() == first and git(root, "show", "evolve/active:agent/a.py") == "one\ntwo\nthree"
    )
    assert git(root, "show", f"evolve/gen-{number}:agent/a.py") == "better", "the candidate is kept"
    assert live(root) == before


def test_the_next_generation_builds_on_what_was_promoted(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    one.promote(accepted(one, "first\n"))
    one.promote(accepted(one, "second\n"))
    assert works(one) == "second\n" and one.ledger.state().versions[-1].generation == 2
    one.roll_back(2)
    assert works(one) == "first\n"
    with pytest.raises(NotAllowed, match="rolled_back"):
        one.roll_back(2)
    one.roll_back()
    assert works(one) == "one\ntwo\nthree\n"
    assert one.sources.tree_of(one.sources.commit_of(BRANCH)) == one.versions.active(), "the branch follows"


def test_l01_l10_nothing_but_an_accepted_generation_is_promoted(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    one.ledger.record(lambda state: proposed(1))
    with pytest.raises(NotAllowed, match="Generation 1 is proposed"):
        one.promote(1)
    with pytest.raises(BadInput, match="no generation 9"):
        one.promote(9)
    number = accepted(one, "x\n")
    with pytest.raises(NotAllowed, match="was to be promoted"):
        one.promote(number, "f" * 40)
    assert works(one) == "one\ntwo\nthree\n"


def test_l02_l03_a_conflict_archives_the_candidate_and_changes_nothing(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    ours, theirs = accepted(one, "ours\n"), accepted(one, "theirs\n")
    one.promote(ours)
    tip, before = one.sources.commit_of(BRANCH), live(root)
    ended = one.promote(theirs)
    assert (ended.after, ended.cause) == (Phase.ARCHIVED, Cause.CONFLICT) and "agent/a.py" in ended.evidence
    assert one.sources.commit_of(BRANCH) == tip and works(one) == "ours\n" and live(root) == before


def test_l40_a_version_that_does_not_start_is_archived_before_anything_moves(
    root: Path, tmp_path: Path
) -> None:
    promoter(tmp_path, root).begin(GitSources(root).commit_of("main"))
    one = promoter(tmp_path, root, starts="No module named agent")
    tip = one.sources.commit_of(BRANCH)
    ended = one.promote(accepted(one, "broken\n"))
    assert ended.cause is Cause.START_CHECK and "No module named" in ended.evidence
    assert one.sources.commit_of(BRANCH) == tip and works(one) == "one\ntwo\nthree\n"


def test_l04_a_tag_that_is_there_already_is_an_error_and_no_promotion(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    number = accepted(one, "better\n")
    git(root, "tag", f"gen-{number}", "main")
    with pytest.raises(NotAllowed, match="tag gen-1 is there already"):
        one.promote(number)
    assert one.ledger.state().generation(number).phase is Phase.ACCEPTED
    assert works(one) == "one\ntwo\nthree\n"


def test_a_branch_that_somebody_built_on_is_left_alone_by_a_roll_back(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    one.promote(accepted(one, "better\n"))
    tip = one.sources.commit_of(BRANCH)
    theirs = one.sources.with_files(tip, {"agent/b.py": b"by a person\n"}, "mine")
    one.sources.move(BRANCH, theirs, tip)
    ended = one.roll_back()
    assert works(one) == "one\ntwo\nthree\n" and one.sources.commit_of(BRANCH) == theirs
    assert "left as it is" in ended.evidence


class Dying:
    """An edge whose process is gone, without a word, at its nth call; counted over all edges together."""

    left = 0

    def __init__(self, edge: Any) -> None:
        self._edge = edge

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._edge, name)
        if not callable(found):
            return found

        def called(*arguments: Any, **options: Any) -> Any:
            Dying.left -= 1
            if Dying.left == 0:
                os._exit(9)
            result = found(*arguments, **options)
            Dying.left -= 1
            if Dying.left == 0:
                os._exit(9)
            return result

        return called


def promote_and_roll_back(folder: Path, repo: Path, die_at: int) -> None:
    """Run in a process of its own."""
    Dying.left = die_at
    one = promoter(folder, repo, Dying)
    state = one.ledger.state()
    if state.generation(1).phase is Phase.ACCEPTED:
        one.promote(1)
    one.roll_back(1)


PROGRAM = """
import sys
from pathlib import Path
from tests.evolution.test_promotion import promote_and_roll_back
promote_and_roll_back(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.mark.slow
def test_l05_killed_at_every_step_one_valid_version_works_and_the_next_process_goes_on(
    root: Path, tmp_path: Path
) -> None:
    """Before and after calls on ledger, repository and versions, in promotion and in rolling back: here at every fourth of them;
    scripts/kill_evolve.py takes them all."""
    here, point, ended = Path(__file__).parents[2], -3, False
    while not ended:
        point += 4
        folder, repo = tmp_path / f"home{point}", tmp_path / f"repo{point}"
        subprocess.run(["cp", "-r", str(root), str(repo)], check=True)
        one = promoter(folder, repo)
        first = one.begin(one.sources.commit_of("main"))
        accepted(one, "better\n")
        argv = [sys.executable, "-c", PROGRAM, str(folder), str(repo), str(point)]
        ended = subprocess.run(argv, cwd=here).returncode == 0
        survivor = promoter(folder, repo)
        assert works(survivor) in ("better\n", "one\ntwo\nthree\n"), "a whole version works"
        survivor.recover()
        state = survivor.ledger.state()
        assert state.unfinished is None and survivor.versions.active() == state.active
        phase = state.generation(1).phase
        assert phase in (Phase.ACCEPTED, Phase.PROMOTED, Phase.ROLLED_BACK)
        if phase is Phase.ACCEPTED:
            survivor.promote(1)
        if phase is not Phase.ROLLED_BACK:
            survivor.roll_back(1)
        assert survivor.versions.active() == first
        assert git(repo, "show", "evolve/active:agent/a.py") == "one\ntwo\nthree"
    assert point > 40


def test_what_does_not_work_once_it_is_active_goes_back_by_itself(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    first = one.begin(one.sources.commit_of("main"))
    sick = replace(one, healthy=lambda version: "it does not answer")
    ended = sick.promote(accepted(one, "better\n"))
    assert (ended.after, ended.cause) == (
        Phase.ROLLED_BACK,
        Cause.HEALTH,
    ) and "does not answer" in ended.evidence
    assert one.versions.active() == first and one.sources.tree_of(one.sources.commit_of(BRANCH)) == first


def test_a_version_whose_health_nobody_saw_is_looked_at_by_the_next_who_can(
    root: Path, tmp_path: Path
) -> None:
    """The process was killed between the promotion and the look; one that cannot look takes nothing for granted."""
    blind = promoter(tmp_path, root)
    first = blind.begin(blind.sources.commit_of("main"))
    number = accepted(blind, "better\n")
    blind.promote(number)
    blind.recover()
    assert blind.ledger.state().unchecked == number
    ended = replace(blind, healthy=lambda version: "it does not answer").recover()
    assert ended is not None and ended.cause is Cause.HEALTH and blind.versions.active() == first
    assert blind.ledger.state().unchecked == 0
