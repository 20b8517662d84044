"""The leak screen, on made-up issues and on the django tasks whose scores were worked out independently."""

import csv
import os
from pathlib import Path
from random import Random

import pytest

from looper.bench.screen import (
    fix_stands_in,
    gives_away,
    leak_score,
    near_duplicates,
    similarity,
    telling_lines,
)
from looper.edges.datasets.swe_bench_cl import load_swe_bench_cl
from looper.experiment.schedule import learnable
from looper.records.task import Task
from looper.records.training import SelectionSettings

PATCH = """diff --git a/a.py b/a.py
--- a/a.py
+++ b/a.py
@@ -1,4 +1,6 @@
 def f(x):
-    return x
-    moved_line_of_code()
+    # a comment that explains it
+    return   clamp(x, 0, 255)
+    y = 1
+        moved_line_of_code()
"""


def test_lines_that_tell_nothing_are_not_scored() -> None:
    assert telling_lines(PATCH) == ["return clamp(x, 0, 255)"]


@pytest.mark.parametrize(
    ("issue", "flagged", "share"),
    [
        ("f should `return clamp(x, 0,\n 255)` instead", True, 1.0),
        ("f should return clamp(x, 0, 254) instead", True, 1.0),
        ("f is wrong for large numbers", False, 0.0),
        ("", False, 0.0),
    ],
    ids=["the fix as code", "nearly the fix", "no fix", "no text"],
)
def test_g08_an_issue_that_holds_the_fix_is_flagged(issue: str, flagged: bool, share: float) -> None:
    score = leak_score(PATCH, issue)
    assert gives_away(PATCH, issue) is flagged
    assert score.flagged is flagged and score.covered_share == share and score.scored_lines == 1


def test_a_patch_without_a_telling_line_has_no_score_rather_than_zero() -> None:
    score = leak_score("+++ b/a.py\n+x = 1\n", "x = 1")
    assert score.max_similarity is None and score.covered_share is None and not score.flagged


def test_a_fix_is_found_in_a_later_tree_by_its_telling_lines(task: Task) -> None:
    patch = "--- a/ops.py\n+++ b/ops.py\n@@ -1,2 +1,3 @@\n-    return a\n+    return a + offset(b)\n+    # why not\n+    x = 1\n"
    fixed = task.model_copy(update={"gold_patch": patch, "modified_files": ("ops.py",)})
    trees = {"with": b"def f():\n\treturn  a + offset(b)\n", "without": b"def f():\n    return a\n"}
    assert fix_stands_in(fixed, lambda path: trees["with"]) is True
    assert fix_stands_in(fixed, lambda path: trees["without"]) is False
    assert fix_stands_in(fixed, lambda path: None) is False, "a file that is gone holds nothing"
    short = fixed.model_copy(update={"gold_patch": patch.replace("return a + offset(b)", "x = 2")})
    assert fix_stands_in(short, lambda path: trees["with"]) is None


def test_similarity_is_the_best_window() -> None:
    assert similarity("abcdefghij", "xx abcdefghij") == 1.0
    assert similarity("abcdefghij", "xx abcdefghiX yy") == pytest.approx(0.9)
    assert similarity("abcdefghij", "abc") == pytest.approx(6 / 13)


@pytest.mark.slow
def test_g08_the_scores_of_the_django_tasks_are_the_known_ones() -> None:
    data = os.environ.get("LOOPER_SWE_DATA")
    if not data:
        pytest.skip("LOOPER_SWE_DATA does not name SWE-Bench-CL")
    tasks = {task.instance_id: task for task in load_swe_bench_cl(data)}
    with (Path(__file__).parents[1] / "data" / "django_leaks.csv").open() as stream:
        expected = list(csv.DictReader(stream))
    assert len(expected) == 50
    for row in expected:
        task = tasks[f"django__django-{row['task']}"]
        score = leak_score(task.gold_patch, task.problem_statement)
        assert score.scored_lines == int(row["scored_lines"]), row
        assert score.flagged is (row["flagged"] == "true"), row
        if row["max_similarity"]:
            assert score.max_similarity == pytest.approx(float(row["max_similarity"]), abs=0.011), row
            assert score.covered_share == pytest.approx(float(row["covered_share"]), abs=0.011), row


def test_g40_a_task_that_nearly_is_another_is_found_by_its_issue_or_its_patch(task: Task) -> None:
    issue = (
        "When a queryset is sliced and then ordered again the error names the wrong method of the manager."
    )
    other = task.model_copy(update={"instance_id": "other", "problem_statement": issue})
    copied = other.model_copy(
        update={
            "instance_id": "copied",
            "problem_statement": issue.replace("the error", "the error"),
            "gold_patch": "",
        }
    )
    reworded = copied.model_copy(
        update={
            "instance_id": "new",
            "problem_statement": "Ordering after slicing should not be refused at all here.",
        }
    )
    assert near_duplicates([copied, reworded], [other]) == {"copied": "other"}
    moved = task.model_copy(
        update={
            "instance_id": "moved",
            "problem_statement": "Something else altogether is told in this issue of many words.",
            "gold_patch": task.gold_patch.replace("index ", "index 1"),
        }
    )
    assert near_duplicates([moved], [task]) == {"moved": task.instance_id}


def test_what_is_nearly_the_same_is_found_wherever_it_differs(task: Task) -> None:
    """Texts are not compared one by one; what is found is what that would find, and the first where several are."""
    random = Random(0)
    words = [f"word{number}" for number in range(60)]

    def told(number: int) -> Task:
        text = [word if random.random() > 0.02 else f"other{random.randrange(10**9)}" for word in words]
        update = {"instance_id": str(number), "problem_statement": " ".join(text), "gold_patch": ""}
        return task.model_copy(update=update)

    def shingles(of: Task) -> set[tuple[str, ...]]:
        parts = of.problem_statement.split()
        return set(zip(parts, parts[1:], parts[2:], strict=False))

    def alike(one: Task, other: Task) -> bool:
        first, second = shingles(one), shingles(other)
        return len(first & second) / len(first | second) >= 0.9

    tasks, others = ([told(number) for number in numbers] for numbers in (range(40), range(40, 80)))
    wanted = {
        one.instance_id: next(other.instance_id for other in others if alike(one, other))
        for one in tasks
        if any(alike(one, other) for other in others)
    }
    assert 4 < len(wanted) < 36 and near_duplicates(tasks, others) == wanted


def test_no_two_tasks_of_the_embedded_suite_are_nearly_the_same(
    micro: tuple[tuple[Task, ...], dict[str, Path]],
) -> None:
    tasks = [task for task in micro[0] if task.repo == micro[0][0].repo]
    assert not near_duplicates(tasks[:18], tasks[18:])


def test_what_must_not_be_learned_from_is_named(task: Task) -> None:
    settings = SelectionSettings()
    line = "+    return join_everything_in_order(first, second)"
    quoted = task.model_copy(
        update={"instance_id": "quoted", "gold_patch": line, "problem_statement": f"It should say {line[1:]}"}
    )
    kept, left_out = learnable([task, quoted], [], settings)
    assert kept == (task,) and left_out == {"quoted": "its issue quotes the fix"}
    assert learnable([quoted], [], settings.model_copy(update={"leaked": True})) == ((quoted,), {})
    same = task.model_copy(update={"instance_id": "same"})
    kept, left_out = learnable([same], [task], settings)
    assert kept == () and left_out == {"same": f"nearly the same as {task.instance_id}"}
