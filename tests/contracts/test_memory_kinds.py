"""What every kind of memory keeps to, by the real `distil`, `deliver` and opening of a rollout; what fails names the kind and the place to look.

A kind that is added is in it by its name alone. What a kind tells besides is tested in `tests/memory/test_memory.py`.
"""

from collections.abc import Callable

import pytest
from pydantic import ValidationError
from tests.training.test_select import DONE, attempt

from looper.agent.actions import render
from looper.agent.prompt import opening
from looper.agent.scaffold import packaged_scaffold
from looper.memory.deliver import deliver
from looper.memory.distil import distil
from looper.records.memory import Delivery, Draw, MemoryItem, MemoryKind, Moment, Remembering
from looper.records.task import Task
from looper.records.trajectory import Action, Bash, Edit, Read, Write
from looper.records.verdict import Outcome

WITH_ITEMS = [kind for kind in MemoryKind if kind.traits.has_items]
BY_CHANCE = (Draw.RETRIEVED, Draw.RANDOM, Draw.PLACEBO)
"""Draws that every kind has; an oracle's belongs to some."""
FAMILIES = ("scale", "scale", "join", "label")
"""Of the tasks of a repository, in their order: `scale` stands in the issue of some and not in that of all, so that it tells something."""


Made = Callable[[MemoryKind], list[MemoryItem]]


def traits_of(kind: MemoryKind, **wrong: bool | int) -> str:
    """Where a kind's traits stand, and what they say that is not so."""
    return f"records.memory.MEMORY_KINDS: {kind.value} has {', '.join(f'{name}={what}' for name, what in wrong.items())}"


def delivery_of(kind: MemoryKind, how: Remembering | None = None) -> str:
    draw = f" of draw {how.draw.value} and moment {how.moment.value}" if how is not None else ""
    return f"memory/deliver.deliver: {kind.value}{draw}"


def patch_of(path: str, old: str, new: str) -> str:
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{old}\n+{new}\n"


def code_of(position: int) -> str:
    """The line that the success at a task wrote."""
    return f"return x + {'7' * position}y"


@pytest.fixture
def asked(task: Task) -> Task:
    """A task after those that are learned from, whose issue is like that of some."""
    return of_task(task, "a", 30, "scale_oak is wrong")


def of_task(task: Task, repo: str, position: int, issue: str) -> Task:
    return task.model_copy(
        update={
            "problem_statement": issue,
            "sequence_position": position,
            "repo": repo,
            "instance_id": f"{repo}-task-{position}",
        }
    )


def success(task: Task, kind: MemoryKind, path: str, old: str, new: str, *actions: Action) -> MemoryItem:
    """What a kind makes of a success at a task that changed one line of a file."""
    found = attempt(task.instance_id, Outcome.RESOLVED, *actions)
    end = found.trajectory.model_copy(update={"patch": patch_of(path, old, new)})
    return distil(end, found.steps, task, render, kind, f"Fix this.\n{task.problem_statement}")


@pytest.fixture
def made(task: Task) -> Made:
    """Items of a kind: four of the task's repository, of which two are like the issue of `asked`, and four of another; no two of a length."""

    def items(kind: MemoryKind) -> list[MemoryItem]:
        return [
            success(
                of_task(task, repo, at, f"{family}_{repo}{'x' * at} is wrong"),
                kind,
                path,
                f"return x * {at}",
                new,
                Read(path=path, start=1, end=9),
                Edit(path=path, old=f"return x * {at}", new=new),
                DONE,
            )
            for repo in ("a", "b")
            for at, family in enumerate(FAMILIES, 1)
            for path in [f"{repo}/{family}{'s' * at}.py"]
            for new in [code_of(at)]
        ]

    return items


def text_of(given: Delivery) -> list[str]:
    """Every text of a delivery, whenever it is told."""
    return [
        *([given.text] if given.text is not None else []),
        *(text for _, text in given.earlier),
        *(item.text for item in given.later),
    ]


def named(given: Delivery) -> list[str]:
    return [*given.items, *(item.id for item in given.later)]


def ways(kind: MemoryKind) -> list[Remembering]:
    """Of a kind every draw and each moment that it can have."""
    moments = list(Moment) if kind.traits.can_wait else [Moment.START]
    draws = list(Draw) if kind.traits.has_oracle else BY_CHANCE
    return [Remembering(kind=kind, draw=draw, moment=moment) for draw in draws for moment in moments]


def name_of(how: Remembering) -> str:
    return f"{how.kind.value}-{how.draw.value}-{how.moment.value}"


@pytest.mark.parametrize("kind", MemoryKind)
def test_a_kind_has_items_where_it_makes_one_of_a_success_and_tells_nothing_without_any(
    kind: MemoryKind, made: Made, asked: Task
) -> None:
    try:
        makes = bool(made(kind))
    except ValueError:
        makes = False
    assert makes is kind.traits.has_items, (
        f"{traits_of(kind, has_items=not makes)}, and memory/distil.distil makes {'one' if makes else 'none'} of a success"
    )
    without = deliver(Remembering(kind=kind), asked, [], 3)
    assert without.says is not kind.traits.has_items, (
        f"{delivery_of(kind)} tells {'something' if without.says else 'nothing'} where there is no item, and "
        f"{traits_of(kind, has_items=kind.traits.has_items)}"
    )
    assert kind.traits.needs_experience or without.says, (
        f"{traits_of(kind, needs_experience=False)}: its arm gathers nothing and is told nothing, since a kind that has items tells nothing "
        "without them"
    )


@pytest.mark.parametrize("how", [way for kind in WITH_ITEMS for way in ways(kind)], ids=name_of)
def test_what_is_told_fits_the_budget_and_where_nothing_fits_nothing_is_told(
    how: Remembering, made: Made, asked: Task
) -> None:
    """Line breaks between what is told of one item and of the next do not count."""
    items, place = made(how.kind), delivery_of(how.kind, how)
    whole = deliver(how, asked, items, 3)
    assert whole.says, f"{place} tells nothing where there is no budget"
    most = sum(len(text.encode()) for text in text_of(whole))
    for budget in range(1, most + 2, 7):
        given = deliver(how, asked, items, 3, budget_bytes=budget)
        size = sum(len(text.encode()) for text in text_of(given)) - max(0, len(named(given)) - 1)
        assert size <= budget, f"{place} tells {size} bytes where `budget_bytes` is {budget}"
    given = deliver(how, asked, items, 3, budget_bytes=1)
    assert not given.says and not named(given), f"{place} tells something or names items where nothing fits"


@pytest.mark.parametrize("how", [way for kind in MemoryKind for way in ways(kind)], ids=name_of)
def test_a_delivery_names_the_items_that_its_text_is_made_of_and_no_other(
    how: Remembering, made: Made, asked: Task
) -> None:
    kind, place = how.kind, delivery_of(how.kind, how)
    if not kind.traits.has_items:
        given = deliver(how, asked, made(MemoryKind.LESSONS), 3)
        assert given.says and not named(given), f"{place} names items and {traits_of(kind, has_items=False)}"
        return
    items = made(kind)
    by_id = {item.id: item for item in items}
    for budget in (None, *range(1, 600, 30)):
        given = deliver(how, asked, items, 3, budget_bytes=budget)
        assert bool(text_of(given)) is bool(named(given)), (
            f"{place} tells {given.text!r} and names {named(given)} in `items`, at a budget of {budget}"
        )
        assert {*named(given)} <= by_id.keys(), f"{place} names in `items` what it was not given"
        mine = [by_id[name] for name in named(given)]
        if kind.traits.chooses and how.moment is Moment.START:
            told = "\n".join(text_of(given))
            assert told == "\n".join(item.text for item in mine), (
                f"{place} tells other texts than those of the items that it names, and {traits_of(kind, chooses=True)}"
            )
        elif not kind.traits.chooses and how.draw is Draw.RETRIEVED:
            again = deliver(how, asked, mine, 3, budget_bytes=budget)
            assert (again.text, again.items) == (given.text, given.items), (
                f"{place} makes another text of the items that it names than of all: `items` lacks some that it is made of"
            )


@pytest.mark.parametrize("kind", WITH_ITEMS)
@pytest.mark.parametrize("draw", BY_CHANCE)
def test_a_kind_chooses_where_a_task_gets_so_many_items_like_its_issue_and_else_makes_one_text_of_all(
    kind: MemoryKind, draw: Draw, made: Made, asked: Task
) -> None:
    items, how = made(kind), Remembering(kind=kind, draw=draw)
    place, chooses = delivery_of(kind, how), kind.traits.chooses
    said = traits_of(kind, chooses=chooses)
    repos = {item.id: item.repo for item in items}
    for count in (1, 2):
        given = deliver(how, asked, items, count)
        expected = count if chooses else len(FAMILIES)
        assert len(given.items) == expected, (
            f"{place} names {len(given.items)} items where at most {count} are wanted and {len(FAMILIES)} are there, and {said}"
        )
        whose = {repos[name] for name in given.items}
        assert whose == {"b" if how.of_other_repositories else "a"}, (
            f"{place} tells items of the {'own' if 'a' in whose else 'other'} repository, and {said} (records.memory.Remembering.of_other_repositories)"
        )
    unlike = deliver(how, asked.model_copy(update={"problem_statement": "limit_oak"}), items, 2)
    assert unlike.says is not chooses, (
        f"{place} tells {'something' if unlike.says else 'nothing'} to a task whose issue is like no other, and {said}"
    )


@pytest.mark.parametrize("kind", MemoryKind)
@pytest.mark.parametrize("moment", [moment for moment in Moment if moment is not Moment.START])
def test_what_waits_for_its_moment_leaves_the_opening_as_it_is_without_memory(
    kind: MemoryKind, moment: Moment, made: Made, asked: Task
) -> None:
    if not kind.traits.can_wait:
        with pytest.raises(ValidationError, match=f"{kind.value} can be told at the start only"):
            Remembering(kind=kind, moment=moment)
        return
    scaffold = packaged_scaffold("terse")
    for how in [way for way in ways(kind) if way.moment is moment]:
        given = deliver(how, asked, made(kind), 3)
        place = f"{delivery_of(kind, how)}, and {traits_of(kind, can_wait=True)}"
        assert opening(asked, scaffold, given) == opening(asked, scaffold), f"tells at the start: {place}"
        assert not given.items and given.later and given.moment is moment, f"keeps nothing for later: {place}"


@pytest.mark.parametrize("kind", WITH_ITEMS)
def test_a_kind_tells_code_where_its_texts_hold_what_a_patch_added_and_its_items_have_it_and_their_files(
    kind: MemoryKind, made: Made, asked: Task
) -> None:
    """An agent that writes such code is said to have used the item, which can also wait for such a file, or be an oracle's by such code."""
    items = made(kind)
    told = "\n".join(text_of(deliver(Remembering(kind=kind), asked, items, 3)))
    for item in items:
        added = code_of(item.position)
        for line in (line.strip() for code in item.changes for line in code.splitlines()):
            assert line in item.text, (
                f"memory/distil.distil: {kind.value} tells no such code, so that `changes` must be empty"
            )
        for path in item.paths:
            assert path in item.text, (
                f"memory/distil.distil: {kind.value} names no such file, so that `paths` must be empty"
            )
        tells = added in item.text or added in told
        assert tells is bool(item.changes), (
            f"memory/distil.distil: `changes` is {item.changes}, and what {kind.value} tells has {'' if tells else 'no '}code that a success added"
        )
        assert tells is kind.traits.tells_code, (
            f"{traits_of(kind, tells_code=kind.traits.tells_code)}, and what it tells has {'' if tells else 'no '}code that a success added"
        )
        assert item.paths or not kind.traits.can_wait, (
            f"{traits_of(kind, can_wait=True)}, and its item names no file to wait for"
        )


@pytest.mark.parametrize("kind", WITH_ITEMS)
@pytest.mark.parametrize(
    "action",
    [Edit(path="f", old="a", new="b"), Write(path="f", content="b"), Bash(command="echo b>f")],
    ids=lambda action: action.tool,
)
def test_nothing_that_a_kind_tells_of_a_success_is_shorter_than_its_traits_have_it(
    kind: MemoryKind, action: Action, task: Task, asked: Task
) -> None:
    """What plans with less room are refused by; where a size is not known it is that of any text."""
    found = attempt("t", Outcome.RESOLVED, action)
    silent = [
        step.model_copy(update={"observation": step.observation.model_copy(update={"text": ""})})
        for step in found.steps
    ]
    end = found.trajectory.model_copy(update={"patch": patch_of("f", "a", "b")})
    item = distil(end, silent, of_task(task, "a", 1, "x"), render, kind)
    other = item.model_copy(update={"id": "other", "asked": "y", "title": "y"})
    given = deliver(
        Remembering(kind=kind), asked.model_copy(update={"problem_statement": "x"}), [item, other], 1
    )
    least = min(sum(len(text.encode()) for text in texts) for texts in ([item.text], text_of(given)))
    assert least >= kind.traits.least_bytes, (
        f"{traits_of(kind, least_bytes=kind.traits.least_bytes)}, and it told {least} bytes of a success"
    )


def test_the_items_of_these_tests_differ_as_the_tests_take_for_granted(made: Made) -> None:
    items = made(MemoryKind.LESSONS)
    assert (
        len({item.id for item in items})
        == 2 * len(FAMILIES)
        == len({len(item.text) for item in items[:4]}) * 2
    )
