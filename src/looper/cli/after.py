"""What people have to say of a run that is there: answers rated, memories taken back."""

from pathlib import Path

from looper.cli.options import the_run
from looper.errors import BadInput, possible
from looper.experiment.ledger import rate, revert
from looper.records.memory import Reverted
from looper.records.question import AnsweredQuestion, Rating
from looper.records.text import counted
from looper.views.memory import memory_uses, one_item, reverted_items
from looper.views.questions import questions, to_rate


def answers_to_rate(runs: Path, run: str | None, arm: str, by: str, count: int) -> list[AnsweredQuestion]:
    """What is left of so many drawn answers of an arm. Raises BadInput for arms without any."""
    view = the_run(runs, run)
    arms = sorted({key[0] for key in questions(view.folder)})
    if arm not in arms:
        raise BadInput(
            f"In {view.folder.name} no answers were given for an arm {arm}. {possible(arm, arms, 'Arms with answers')}"
        )
    return to_rate(view.folder, arm, by, count)


def rated(runs: Path, run: str | None, answer: AnsweredQuestion, by: str, *, noise: bool) -> None:
    """Keep a person's word. Raises RunBusy while the run is running."""
    rating = Rating(
        arm=answer.arm, seed=answer.seed, round=answer.round, source=answer.source, by=by, noise=noise
    )
    rate(the_run(runs, run).folder, rating)


def memory_revert(runs: Path, run: str | None, wanted: str, reason: str) -> str:
    """What was done, in words. Raises BadInput or RunBusy."""
    view = the_run(runs, run)
    item = one_item(view, wanted)
    if item.id in reverted_items(view):
        raise BadInput(f"{item.id} is told no more already.")
    revert(view.folder, Reverted(item=item.id, reason=reason))
    told = sum(item.id in found.end.memory for found in memory_uses(view))
    left = (
        "the cells that are still to do go without it"
        if view.finished < view.planned
        else "the run is finished"
    )
    return f"{item.id} is told no more; {counted(told, 'rollout')} had it, {left}."
