"""Replacing text: exact first, indifferent to indentation second, a guess never."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.agent.edits import EditRefused, replace_text

SOURCE = """class Shop:
    def open(self):
        if self.key:
            return True
        return False

    def close(self):
        return None
"""


def test_tolerance_can_be_switched_off() -> None:
    moved = "if self.key:\n    return True"
    assert replace_text(SOURCE, moved, "return 1", None).tolerant
    with pytest.raises(EditRefused, match="old text not found"):
        replace_text(SOURCE, moved, "return 1", None, tolerant=False)


def test_an_exact_place_is_replaced_and_its_line_named() -> None:
    done = replace_text(SOURCE, "return True", "return self.key", None)
    assert done.text == SOURCE.replace("return True", "return self.key")
    assert (done.line, done.tolerant) == (4, False)


def test_l32_several_places_are_an_error_with_their_lines() -> None:
    with pytest.raises(EditRefused, match="3 times, at lines 4, 5, 8"):
        replace_text(SOURCE, "return", "yield", None)


def test_the_named_occurrence_is_replaced() -> None:
    done = replace_text("a\na\na\n", "a", "b", 2)
    assert done.text == "a\nb\na\n"
    with pytest.raises(EditRefused, match="occurrence 4 does not exist"):
        replace_text("a\na\na\n", "a", "b", 4)


@pytest.mark.parametrize("old", ["        return False\n", "        return False", "return False"])
def test_deleting_a_line_leaves_no_blank_line_behind(old: str) -> None:
    """G-29."""
    expected = SOURCE.replace("        return False\n", "")
    assert replace_text(SOURCE, old, "", None).text == expected


def test_deleting_a_part_of_a_line_keeps_the_rest() -> None:
    assert replace_text("a = 1 + 2\n", " + 2", "", None).text == "a = 1\n"


def test_a_text_with_other_indentation_is_found_and_the_new_text_takes_the_files() -> None:
    old = "if self.key:\n    return True\nreturn False\n"
    new = "if self.key and self.day:\n    return True\nelse:\n    return False\n"
    done = replace_text(SOURCE, old, new, None)
    assert done.tolerant
    assert done.text == SOURCE.replace(
        "        if self.key:\n            return True\n        return False\n",
        "        if self.key and self.day:\n            return True\n        else:\n            return False\n",
    )


def test_spaces_are_re_based_to_tabs() -> None:
    source = "def f():\n\tif x:\n\t\treturn 1\n"
    done = replace_text(
        source, "    if x:\n        return 1\n", "    if x:\n        if y:\n            return 2\n", None
    )
    assert done.text == "def f():\n\tif x:\n\t\tif y:\n\t\t\treturn 2\n"


def test_tabs_are_re_based_to_spaces() -> None:
    source = "def f():\n    if x:\n        return 1\n"
    done = replace_text(source, "\tif x:\n\t\treturn 1\n", "\tif x:\n\t\tif y:\n\t\t\treturn 2\n", None)
    assert done.text == "def f():\n    if x:\n        if y:\n            return 2\n"


def test_a_line_that_is_less_indented_than_the_old_text_moves_with_it() -> None:
    source = "if a:\n        x = 1\n        y = 1\n"
    done = replace_text(source, "  x = 1\n  y = 1\n", "  x = 2\ny = 3\n", None)
    assert done.text == "if a:\n        x = 2\n      y = 3\n"


def test_line_structure_is_never_broken() -> None:
    """G-28: the predecessor's tolerant edits joined two lines each time."""
    done = replace_text("def f():\n    a = 1\n    b = 2\n", "a = 1\nb = 2", "a = 3\nb = 4", None)
    assert done.text == "def f():\n    a = 3\n    b = 4\n"


def test_crlf_files_keep_their_line_ends() -> None:
    source = "a = 1\r\nb = 2\r\n"
    assert replace_text(source, "a = 1\nb = 2\n", "a = 1\nb = 3\n", None).text == "a = 1\r\nb = 3\r\n"


def test_a_last_line_without_line_end_stays_without() -> None:
    assert (
        replace_text("def f():\n    return 1", "return 1", "return 2", None).text == "def f():\n    return 2"
    )
    assert (
        replace_text("def f():\n\treturn 1", "    return 1", "    return 2", None).text
        == "def f():\n\treturn 2"
    )


def test_text_that_is_not_there_is_refused_with_what_is_near() -> None:
    with pytest.raises(EditRefused, match="not found") as refusal:
        replace_text(SOURCE, "if self.keys:\n", "x", None)
    assert "line 3 is similar: if self.key:" in refusal.value.hint


def test_the_beginning_of_a_line_with_other_indentation_is_not_the_line() -> None:
    with pytest.raises(EditRefused, match="not found"):
        replace_text("def f():\n\treturn first or second\n", "    return first", "    return third", None)


def test_two_places_with_other_indentation_are_refused() -> None:
    source = "if a:\n    x = 1\nif b:\n        x = 1\n"
    with pytest.raises(EditRefused, match="2 times with other indentation"):
        replace_text(source, "\tx = 1\n", "\tx = 2\n", None)


def test_a_huge_file_without_the_text_is_refused_quickly() -> None:
    """F11: comparing long texts must not take minutes."""
    import time

    source = "\n".join(f"value_{number} = compute_{number % 7}(argument)" * 5 for number in range(20_000))
    begun = time.monotonic()
    with pytest.raises(EditRefused):
        replace_text(source, "value_x = compute_y(argument)" * 50, "", None)
    assert time.monotonic() - begun < 5


@given(
    st.integers(0, 3),
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["a = 1", "if x:", "call(b)", "return y"])),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([-4, 4, 8]),
)
@settings(max_examples=500, deadline=None)
def test_a_shifted_old_text_gives_the_same_file_as_the_true_one(
    depth: int, body: list[tuple[int, str]], shift: int
) -> None:
    """G-28: what is matched tolerantly must end as if it had been matched exactly."""
    block = [" " * 4 * (depth + 2 + more) + f"{text}  # {number}" for number, (more, text) in enumerate(body)]
    source = "\n".join(["top = 1", *block, "end = 1", ""])
    old, new = "\n".join(block) + "\n", "\n".join([block[0] + " changed", *block[1:]]) + "\n"

    def shifted(text: str) -> str:
        return "".join(
            (" " * shift + line) if shift > 0 else line[-shift:] for line in text.splitlines(keepends=True)
        )

    exact = replace_text(source, old, new, None).text
    assert replace_text(source, shifted(old), shifted(new), None).text == exact


def test_l32_a_unique_text_is_replaced_as_python_would() -> None:
    rng = random.Random(3)
    for _ in range(500):
        source = "".join(rng.choice("ab \n") for _ in range(60))
        at = rng.randrange(50)
        old = source[at : at + rng.randrange(1, 10)]
        if sum(source.startswith(old, start) for start in range(len(source))) == 1 and old.strip():
            assert replace_text(source, old, "X", None).text == source.replace(old, "X")


@pytest.mark.parametrize(
    ("text", "old", "new", "after"),
    [
        ("a\nb\r\nc\nd\n", "c\nd\n", "c\nD\n", "a\nb\r\nc\nD\n"),
        ("x = 1\ny = 2\r\nz = 3\n", "x = 1\n", "x = 1\nw = 0\n", "x = 1\nw = 0\ny = 2\r\nz = 3\n"),
        ("a\nb\r\nc\n", "c", "one\ntwo", "a\nb\r\none\ntwo\n"),
        ("a\nb\r\nc\n", "b", "one\ntwo", "a\none\r\ntwo\r\nc\n"),
        ("a\nb\r\nc\n", "a\nb\n", "A\nB\n", "A\nB\r\nc\n"),
        ("a\nb\r\nc", "c", "one\r\ntwo", "a\nb\r\none\ntwo"),
        ("a\r\nb\r\n", "a\r\nb\r\n", "A\nb\n", "A\r\nb\r\n"),
    ],
)
def test_m13_line_ends_stay_as_they_are_where_both_kinds_stand(
    text: str, old: str, new: str, after: str
) -> None:
    assert replace_text(text, old, new, None).text == after


def test_m13_a_line_end_that_the_last_line_lacks_keeps_nothing_from_being_found() -> None:
    assert replace_text("a = 1", "a = 1\n", "a = 2\n", None).text == "a = 2"
    assert replace_text("def f():\n    a = 1", "a = 1\n", "a = 2\nb = 3\n", None).text == (
        "def f():\n    a = 2\nb = 3"
    )
    assert replace_text("b\na = 1", "a = 1\n", "", None).text == "b\n"


def test_m13_the_indentation_of_a_closing_tag_is_no_text() -> None:
    source = "def f():\n    x = 1\nz = 2\n"
    assert replace_text(source, "    x = 1\n  ", "    x = 2\n  ", None).text == source.replace("1", "2", 1)
    with pytest.raises(EditRefused):
        replace_text(source, "    x = 1\n  ", "    x = 2\n  ", None, tolerant=False)


@given(st.lists(st.sampled_from(["a", "b", "\n", "\r\n", "\f", "\u2028", "\x85"]), max_size=30), st.data())
@settings(max_examples=500, deadline=None)
def test_m13_text_that_stands_there_once_is_always_found(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    begin = data.draw(st.integers(0, len(text)))
    old = text[begin : data.draw(st.integers(begin, len(text)))]
    if old and sum(text.startswith(old, at) for at in range(len(text))) == 1:
        assert replace_text(text, old, "X", None).text == text.replace(old, "X")


def test_m5_lines_of_a_file_end_at_line_feeds_alone() -> None:
    source = "a = 'x\u2028y'\n\f\nif b:\n        c = 1\n"
    done = replace_text(source, "c = 1", "c = 2", None)
    assert done.line == 4
    moved = replace_text(source, "  a = 'x\u2028y'\n", "  a = 'z'\n", None)
    assert moved.tolerant and moved.text == source.replace("x\u2028y", "z")


def test_c4_a_long_run_of_one_letter_is_not_looked_through_for_ages() -> None:
    begun = time.process_time()
    with pytest.raises(EditRefused, match="times or more"):
        replace_text("a" * 4_000_000, "a" * 50_000, "b", None)
    assert time.process_time() - begun < 5
