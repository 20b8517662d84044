"""Questions that were answered to be trained on: how many there were, and how much of the answers is noise."""

import random
from pathlib import Path
from statistics import fmean

from looper.journal import read_stream
from looper.metrics.agreement import agreement
from looper.metrics.paired import wilson
from looper.records.base import grouped
from looper.records.question import AnsweredQuestion, Rating
from looper.records.text import counted

Key = tuple[str, int, int, str]
"""Arm, seed, round, source."""


def questions(folder: Path) -> dict[Key, AnsweredQuestion]:
    """What a run asked; the last where an interrupted run asked again."""
    found = read_stream(folder, "questions", AnsweredQuestion)
    return {(each.arm, each.seed, each.round, each.source): each for each in found}


def ratings(folder: Path) -> dict[str, dict[Key, bool]]:
    """By person: whether an answer is noise; the last word counts."""
    found: dict[str, dict[Key, bool]] = {}
    for each in read_stream(folder, "ratings", Rating):
        found.setdefault(each.by, {})[each.arm, each.seed, each.round, each.source] = each.noise
    return found


def supported_shares(folder: Path, arm: str) -> dict[str, float]:
    """Seed and task → share of the questions about its success, in an arm's last round, whose answer says what it must; a question
    without an answer counts as one that does not."""
    mine = [each for key, each in questions(folder).items() if key[0] == arm]
    last = max((each.round for each in mine), default=1)
    found = grouped(
        (f"{each.seed}/{each.source.rpartition('#')[0].rpartition('/')[2]}", each.supported)
        for each in mine
        if each.round == last
    )
    return {where: fmean(values) for where, values in found.items()}


def question_lines(folder: Path) -> list[str]:
    """For each arm: questions for each success, the share of answers that the records do not support, and what people say of
    them beside it."""
    asked, rated = questions(folder), ratings(folder)
    lines = []
    for arm in dict.fromkeys(key[0] for key in asked):
        mine = {key: each for key, each in asked.items() if key[0] == arm}
        answered = {key: each for key, each in mine.items() if each.answer}
        successes = {(key[1], key[2], each.source.rpartition("/")[0]) for key, each in mine.items()}
        noise = sum(not each.supported for each in answered.values())
        text = (
            f"{arm}: {counted(len(mine), 'question')} about {counted(len(successes), 'success', 'successes')}, "
            f"{len(mine) / len(successes):.1f} for each; {len(answered)} answered"
        )
        if answered:
            low, high = wilson(noise, len(answered))
            text += (
                f", {noise} do not say what the records know: {100 * noise / len(answered):.0f} % noise "
                f"({100 * low:.0f} to {100 * high:.0f})"
            )
        lines.append(text)
        for person, said in rated.items():
            both = [(not answered[key].supported, said[key]) for key in answered.keys() & said.keys()]
            if both:
                found = agreement(both)
                kappa = "not defined" if found.kappa is None else f"{found.kappa:.2f}"
                lines.append(
                    f"  {person} calls {sum(noise for _, noise in both)} of {found.judged} noise, and agrees with the records "
                    f"on {found.same}; kappa {kappa}"
                )
    return lines


def to_rate(folder: Path, arm: str, by: str, count: int) -> list[AnsweredQuestion]:
    """Answers of an arm that a person has not rated yet, drawn in an order that is the same each time."""
    rated = ratings(folder).get(by, {})
    mine = [(key, each) for key, each in sorted(questions(folder).items()) if key[0] == arm and each.answer]
    drawn = random.Random(f"{arm}/{by}").sample(mine, len(mine))[:count]
    return [each for key, each in drawn if key not in rated]
