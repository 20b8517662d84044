"""Memory items: what they say, whom they are given to. Guard G-47."""

import math
from collections.abc import Sequence

import pytest
from tests.training.test_select import CHECK, DONE, FIX, LOOK, attempt, step

from looper.agent.actions import render
from looper.agent.prompt import opening
from looper.agent.recall import Recall
from looper.agent.scaffold import packaged_scaffold
from looper.memory.deliver import deliver
from looper.memory.distil import distil, net_edits
from looper.memory.playbook import playbook
from looper.memory.retrieve import bm25, retrieved, words
from looper.records.memory import Draw, MemoryItem, MemoryKind, MemoryTraits, Moment, Remembering
from looper.records.task import Task
from looper.records.trajectory import Bash, Edit, Observation, ObservationKind, Read
from looper.records.verdict import Outcome

PATCH = """diff --git a/ops.py b/ops.py
--- a/ops.py
+++ b/ops.py
@@ -1,5 +1,5 @@
 def scale_oak(x):
-    return x * 3
+    return x * 60
 
 def keep_elm(x):
"""


def item(number: int, repo: str, asked: str, text: str = "text") -> MemoryItem:
    return MemoryItem(
        id=f"{repo}-{number}",
        kind=MemoryKind.LESSONS,
        paths=(f"{repo}.py",),
        changes=(text,),
        source="s",
        instance_id=f"{repo}-task-{number}",
        repo=repo,
        position=number,
        title=asked,
        text=text,
        asked=asked,
    )


def asking(task: Task, issue: str, position: int = 30) -> Task:
    return task.model_copy(
        update={
            "problem_statement": issue,
            "sequence_position": position,
            "repo": "a",
            "instance_id": "a-task-5",
        }
    )


def test_an_item_holds_title_place_and_net_change_in_the_agent_s_syntax(task: Task) -> None:
    found = attempt("t", Outcome.RESOLVED, CHECK, LOOK, FIX, CHECK, DONE)
    end = found.trajectory.model_copy(update={"patch": PATCH})
    steps = [step(1, LOOK, said="1\tdef scale_oak(x):\n2\t    return x * 3"), *found.steps]
    asked = task.model_copy(update={"problem_statement": "repo a\nissue scale_oak is wrong"})
    made = distil(end, steps, asked, render)
    assert made.text == "\n".join(["scale_oak", render(LOOK), render(FIX)])
    assert made.instance_id == task.instance_id and made.position == task.sequence_position


def test_net_edits_are_the_changed_blocks_of_every_file() -> None:
    second = PATCH.replace("ops.py", "b/util.py").replace("-    return x * 3\n", "")
    assert list(net_edits(PATCH + second)) == [
        Edit(path="ops.py", old="return x * 3", new="return x * 60"),
        Edit(path="b/util.py", old="", new="return x * 60"),
    ]
    assert list(net_edits("")) == []


def ids(items: Sequence[MemoryItem]) -> list[str]:
    return [item.id for item in items]


def test_g47_a_task_never_sees_itself_nor_what_comes_after_it(task: Task) -> None:
    items = [item(number, "a", f"scale_{number} is wrong") for number in range(1, 12)]
    asked = asking(task, "scale_oak is wrong", 6)
    for kind in MemoryKind:
        given = deliver(Remembering(kind=kind), asked, items, 20)
        assert given.candidates == 4 and set(given.items) <= {"a-1", "a-2", "a-3", "a-4"}


def test_retrieval_finds_the_same_family_and_leaves_out_what_shares_no_telling_word(task: Task) -> None:
    items = [
        item(1, "a", "repo a issue scale_elm is wrong", "scale"),
        item(2, "a", "repo a issue join_fir is wrong", "join"),
        item(3, "b", "repo b issue scale_ash is wrong", "other"),
    ]
    asked = asking(task, "repo a issue scale_oak is wrong")
    assert ids(retrieved(asked, items, 2)) == ["a-1"]
    assert deliver(Remembering(), asked, items, 2).text == "scale"
    nothing = deliver(Remembering(), asking(task, "repo a issue limit_oak is wrong"), items, 2)
    assert not nothing.says and nothing.candidates == 2


def test_controls_give_as_many_items_without_the_knowledge(task: Task) -> None:
    items = [
        item(number, "a", f"scale_{'x' * number} w{number} is wrong", "t" * number) for number in (1, 2, 3)
    ]
    items += [item(4, "a", "join is wrong", "none of it")]
    items += [item(number, "b", f"limit_{number}", "u" * number) for number in (1, 2, 3, 9)]
    asked = asking(task, "scale_oak is wrong")
    real = deliver(Remembering(), asked, items, 2)
    assert len(real.items) == 2
    blind = [deliver(Remembering(draw=Draw.RANDOM), asked, items, 2, seed=seed) for seed in range(8)]
    assert all(len(found.items) == 2 and all(key.startswith("a-") for key in found.items) for found in blind)
    assert len({found.items for found in blind}) > 1
    assert blind[0] == deliver(Remembering(draw=Draw.RANDOM), asked, items, 2, seed=0)
    fake = deliver(Remembering(draw=Draw.PLACEBO), asked, items, 2)
    assert all(key.startswith("b-") for key in fake.items)
    assert len(fake.text or "") == len(real.text or "")


def test_hindsight_picks_by_what_the_fix_writes_and_tells_nothing_of_it(task: Task) -> None:
    """As many as retrieval gives: here one, and another one than the issue would find."""
    items = [
        item(1, "a", "scale_elm is wrong", "return x * 24"),
        item(2, "a", "join_fir is wrong", 'return a + "-" + b'),
        item(3, "a", "label_fir is wrong", 'return "-" + n'),
    ]
    fix = '--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-    return a + b\n+    return a + "-" + b\n'
    asked = asking(task, "scale_oak is wrong").model_copy(update={"gold_patch": fix})
    assert deliver(Remembering(), asked, items, 1).items == ("a-1",)
    told = deliver(Remembering(draw=Draw.ORACLE), asked, items, 1)
    assert told.items == ("a-2",) and told.text == items[1].text
    silent = asking(task, "limit_oak").model_copy(update={"gold_patch": fix})
    assert not deliver(Remembering(draw=Draw.ORACLE), silent, items, 1).says


@pytest.mark.parametrize("kind", MemoryKind)
def test_an_oracle_of_a_kind_without_choice_or_code_is_refused_with_those_that_have_both(
    kind: MemoryKind,
) -> None:
    if kind.traits.has_oracle:
        assert Remembering(kind=kind, draw=Draw.ORACLE).draw is Draw.ORACLE
        return
    can = ", ".join(other.value for other in MemoryKind if other.traits.has_oracle)
    with pytest.raises(ValueError, match=f"draw: oracle .* must be one of {can}, found {kind.value}"):
        Remembering(kind=kind, draw=Draw.ORACLE)


def test_a_kind_has_an_oracle_where_it_chooses_among_items_that_tell_code() -> None:
    assert MemoryTraits().has_oracle
    for lacks in ({"has_items": False}, {"chooses": False}, {"tells_code": False}):
        assert not MemoryTraits(**lacks).has_oracle, lacks


def test_a_playbook_drawn_blindly_is_that_of_other_repositories(task: Task) -> None:
    """A control must not be told what the treatment is told."""
    items = [item(1, "a", "scale_a is wrong", "own"), item(2, "b", "scale_b is wrong", "other")]
    asked = asking(task, "scale_oak")
    assert deliver(Remembering(kind=MemoryKind.PLAYBOOK), asked, items, 1).text == "own"
    for draw in (Draw.RANDOM, Draw.PLACEBO):
        assert deliver(Remembering(kind=MemoryKind.PLAYBOOK, draw=draw), asked, items, 1).text == "other"


def test_what_does_not_fit_the_budget_is_left_out_whole(task: Task) -> None:
    items = [item(1, "a", "scale_a is wrong", "x" * 50), item(2, "a", "scale_b is wrong", "y" * 20)]
    items += [item(3, "a", "join is wrong")]
    given = deliver(Remembering(), asking(task, "scale_oak"), items, 3, budget_bytes=30)
    assert given.text == "y" * 20


def test_a_playbook_counts_what_successes_confirm_and_tells_the_firmest_first(task: Task) -> None:
    items = [item(1, "a", "first", "once"), item(2, "a", "second", "twice"), item(3, "a", "third", "twice")]
    lines = playbook(items)
    assert [(line.text, ids(line.items)) for line in lines] == [("once", ["a-1"]), ("twice", ["a-2", "a-3"])]
    how = Remembering(kind=MemoryKind.PLAYBOOK)
    given = deliver(how, asking(task, "anything"), items, 1)
    assert given.text == "twice\nonce" and given.items == ("a-2", "a-3", "a-1")
    assert deliver(how, asking(task, "anything"), items, 1, budget_bytes=5).text == "twice"
    assert deliver(how, asking(task, "anything", 3), items, 1).items == ("a-1", "a-2")


def test_a_rollout_can_be_told_whole_as_text_or_as_turns(task: Task) -> None:
    found = attempt("t", Outcome.RESOLVED, CHECK, LOOK, FIX, CHECK, DONE)
    raw = distil(found.trajectory, found.steps, task, render, MemoryKind.RAW)
    assert raw.text.index(render(LOOK)) < raw.text.index(render(FIX)) and not raw.turns
    told = distil(found.trajectory, found.steps, task, render, MemoryKind.SUCCESSES, "the task")
    assert told.turns[0] == ("user", "the task") and told.turns[-1] == ("assistant", render(DONE))
    assert [role for role, _ in told.turns[1:]] == ["assistant", "user"] * 4 + ["assistant"]
    placed = told.model_copy(update={"repo": "a", "position": 1, "asked": "scale_x", "title": "scale_x"})
    other = item(2, "a", "join")
    given = deliver(Remembering(kind=MemoryKind.SUCCESSES), asking(task, "scale_oak"), [placed, other], 1)
    messages = opening(task, packaged_scaffold("terse"), given)
    assert [role for role, _ in messages] == ["system", "user", *["assistant", "user"] * 5]
    assert messages[1][1] == "the task" and task.problem_statement in messages[-1][1]


def test_a_blank_memory_is_the_frame_alone(task: Task) -> None:
    scaffold = packaged_scaffold("terse")
    blank = deliver(Remembering(kind=MemoryKind.BLANK), task, [], 1)
    assert blank.says and blank.items == ()
    frame = scaffold.memory.replace("{items}", "").strip()
    framed, bare = opening(task, scaffold, blank)[-1][1], opening(task, scaffold)[-1][1]
    assert framed != bare and framed.startswith(frame) and framed.endswith(bare)


def test_an_item_waits_for_its_file_or_for_a_failure_and_is_told_once(task: Task) -> None:
    scaffold = packaged_scaffold("terse")
    items = [item(1, "a", "scale_a", "about a"), item(2, "a", "join_b", "about b")]
    asked = asking(task, "scale_oak join_elm")
    seen = Observation(kind=ObservationKind.OK, text="def f")
    failed = Observation(kind=ObservationKind.OK, text="FAIL", exit_code=1)
    by_file = Recall(deliver(Remembering(moment=Moment.FILE_OPEN), asked, items, 2), scaffold)
    assert by_file.after(Read(path="b.py"), seen) == [] == by_file.after(Bash(command="x"), failed)
    now = by_file.after(Read(path="a.py"), seen)
    assert ids(now) == ["a-1", "a-2"] and by_file.after(Read(path="a.py"), seen) == []
    assert "about a" in by_file.told(now, seen).text and by_file.told(now, seen).text.startswith("def f\n")
    assert by_file.told([], seen) == seen
    by_failure = Recall(deliver(Remembering(moment=Moment.TEST_FAILURE), asked, items, 2), scaffold)
    passed = failed.model_copy(update={"exit_code": 0})
    assert by_failure.after(Bash(command="x"), passed) == [] == by_failure.after(Read(path="a.py"), seen)
    assert len(by_failure.after(Bash(command="x"), failed)) == 2


@pytest.mark.parametrize("paths", [("a.py",), ()])
@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        (kind, moment)
        for kind in MemoryKind
        for moment in Moment
        if kind.traits.has_items and (kind.traits.can_wait or moment is Moment.START)
    ],
)
def test_what_counts_as_told_is_told_when_its_moment_comes(
    task: Task, kind: MemoryKind, moment: Moment, paths: tuple[str, ...]
) -> None:
    """Also of a success that only deletes files, whose item names none."""
    made = item(1, "a", "scale_a", "about a").model_copy(
        update={"kind": kind, "paths": paths, "turns": (("user", "about a"),)}
    )
    items = [made, item(2, "a", "join_b")]
    given = deliver(Remembering(kind=kind, moment=moment), asking(task, "scale_oak"), items, 1)
    recall = Recall(given, packaged_scaffold("terse"))
    told = [text for _, text in given.earlier] + ([given.text] if given.text else [])
    for action, exit_code in ((Read(path="a.py"), None), (Bash(command="x"), 1)):
        seen = Observation(kind=ObservationKind.OK, text="", exit_code=exit_code)
        told += [found.text for found in recall.after(action, seen)]
    assert given.says is bool(told)
    assert given.says or (not paths and moment is Moment.FILE_OPEN)


def test_names_are_split_into_words() -> None:
    assert words("scale_oak HTTPServer parseX2 3") == [
        "scale",
        "oak",
        "http",
        "server",
        "parse",
        "x",
        "2",
        "3",
    ]


def test_bm25_equals_the_formula_worked_by_hand() -> None:
    documents = [["scale", "oak"], ["scale", "scale", "elm", "ash"], ["join"]]
    mean, rarity = 7 / 3, math.log(3 / 2)
    first = rarity * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / mean))
    second = rarity * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 4 / mean))
    assert bm25(["scale"], documents) == pytest.approx([first, second, 0.0])
    assert bm25(["x"], []) == [] and bm25(["join"], [["join"], ["join"]]) == [0.0, 0.0]


def test_reads_of_other_files_stay_out_of_an_item(task: Task) -> None:
    steps = [step(1, Read(path="util.py")), step(2, Bash(command="ls")), step(3, LOOK)]
    end = attempt("t", Outcome.RESOLVED, CHECK).trajectory.model_copy(update={"patch": PATCH})
    assert "util.py" not in distil(end, steps, task, render).text


def test_a_kind_that_tells_nothing_of_a_success_makes_no_lesson_of_it(task: Task) -> None:
    found = attempt("t", Outcome.RESOLVED, CHECK, LOOK, FIX, CHECK, DONE)
    for kind in (MemoryKind.BLANK, MemoryKind.GOLD):
        with pytest.raises(ValueError, match=f"{kind.value} tells nothing of a success"):
            distil(found.trajectory, found.steps, task, render, kind)


def test_the_gold_patch_is_told_as_such_whoever_is_told(task: Task) -> None:
    items = [item(1, "a", "scale_a is wrong", "a lesson")]
    given = deliver(Remembering(kind=MemoryKind.GOLD), asking(task, "scale_a"), items, 1)
    assert given.text == task.gold_patch and given.items == ()
