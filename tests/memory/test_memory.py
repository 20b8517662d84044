"""Memory items: what they say, whom they are given to. Guard G-47."""

import math

import pytest
from tests.training.test_select import CHECK, DONE, FIX, LOOK, attempt, step

from looper.agent.actions import render
from looper.memory.distil import distil, net_edits
from looper.memory.retrieve import at_random, bm25, placebo, retrieved, words
from looper.records.memory import MemoryItem
from looper.records.task import Task
from looper.records.trajectory import Bash, Edit, Read
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


def test_g47_a_task_never_sees_itself_nor_what_comes_after_it(task: Task) -> None:
    items = [item(number, "a", f"scale_{number} is wrong") for number in range(1, 12)]
    given = retrieved(asking(task, "scale_oak is wrong", 6), items, 20)
    assert given.candidates == 4 and {key for key in given.items} <= {"a-1", "a-2", "a-3", "a-4"}


def test_retrieval_finds_the_same_family_and_leaves_out_what_shares_no_telling_word(task: Task) -> None:
    items = [
        item(1, "a", "repo a issue scale_elm is wrong", "scale"),
        item(2, "a", "repo a issue join_fir is wrong", "join"),
        item(3, "b", "repo b issue scale_ash is wrong", "other"),
    ]
    given = retrieved(asking(task, "repo a issue scale_oak is wrong"), items, 2)
    assert given.items == ("a-1",) and given.text == "scale"
    assert not retrieved(asking(task, "repo a issue limit_oak is wrong"), items, 2).items


def test_controls_give_as_many_items_without_the_knowledge(task: Task) -> None:
    items = [
        item(number, "a", f"scale_{'x' * number} w{number} is wrong", "t" * number) for number in (1, 2, 3)
    ]
    items += [item(4, "a", "join is wrong", "none of it")]
    items += [item(number, "b", f"limit_{number}", "u" * number) for number in (1, 2, 3, 9)]
    asked = asking(task, "scale_oak is wrong")
    real = retrieved(asked, items, 2)
    assert len(real.items) == 2
    blind = [at_random(asked, items, 2, seed) for seed in range(8)]
    assert all(len(found.items) == 2 and all(key.startswith("a-") for key in found.items) for found in blind)
    assert len({found.items for found in blind}) > 1 and blind[0] == at_random(asked, items, 2, 0)
    fake = placebo(asked, items, 2, 0)
    assert all(key.startswith("b-") for key in fake.items) and len(fake.text) == len(real.text)


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
