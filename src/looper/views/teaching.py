"""A taught model in words: the card beside its weights."""

from collections.abc import Iterator, Sequence

from looper.records.teaching import Teaching
from looper.records.text import counted
from looper.records.training import LossPoint

POINTS = 12
"""Of the curve, in the card; all of them stand in its record."""


def card_text(teaching: Teaching) -> str:
    """README.md of a taught model."""
    return "\n".join(_lines(teaching))


def _lines(teaching: Teaching) -> Iterator[str]:
    tasks, attempts, last = teaching.tasks, teaching.attempts, teaching.stages[-1]
    yield f"# {teaching.name}\n"
    yield (
        f"{teaching.base.name}, fine-tuned on trajectories of a scripted expert at work in generated repositories. Made on this machine by "
        f"`{teaching.command}`.\n"
    )
    yield (
        f"**Data.** {attempts.seen} tasks of the suite {tasks.suite}, level {tasks.level}, suite seed {tasks.suite_seed}, in "
        f"{counted(len(teaching.repositories), 'repository', 'repositories')}. The expert resolved {attempts.seen - attempts.unresolved - attempts.without_verdict}; "
        f"{attempts.taken} trajectories were learned from, failed checks included: run `{teaching.run}`. Repositories of this suite seed "
        "are refused when the model is evaluated; their names: "
        f"{', '.join(teaching.repositories)}.\n"
    )
    yield (
        f"**Training.** LoRA of rank {last.settings.rank} on every layer, {teaching.iterations} iterations of {counted(last.settings.batch_size, 'example')}, "
        f"{teaching.cpu_minutes:.1f} CPU minutes, {last.backend}. The change was then added to the weights: "
        f"{100 * last.relative_change:.1f} % of their norm.\n"
    )
    yield "| iterations | learning rate | adapter | seconds | CPU seconds |"
    yield "|---|---|---|---|---|"
    for card in teaching.stages:
        cpu = "–" if card.cpu_seconds is None else f"{card.cpu_seconds:.0f}"
        yield f"| {card.settings.iterations} | {card.settings.learning_rate:g} | {card.id} | {card.seconds:.0f} | {cpu} |"
    yield "\n**Curve.** Mean loss in nats per supervised token, of the iterations up to each:\n"
    yield "| iteration | loss |"
    yield "|---|---|"
    for iteration, loss in curve(teaching.losses, POINTS):
        yield f"| {iteration} | {loss:.4f} |"
    yield (
        "\n**Use.** For measurements of how a model that is fine-tuned further learns a repository, on micro tasks of level 1 with the terse "
        "scaffold. It was taught these kinds of tasks and no others.\n"
    )


def curve(losses: Sequence[LossPoint], points: int) -> list[tuple[int, float]]:
    """Means over so many stretches of a curve at most, each with its last iteration."""
    width = max(1, -(-len(losses) // points))
    parts = [losses[at : at + width] for at in range(0, len(losses), width)]
    return [(part[-1].iteration, sum(point.loss for point in part) / len(part)) for part in parts]
