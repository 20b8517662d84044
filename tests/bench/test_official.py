"""Logs as the official harness reads them."""

import time

import pytest

from looper.bench.official import (
    disagreements,
    django_log,
    matplotlib_log,
    pytest_log,
    pytest_log_old,
    sympy_log,
)
from looper.records.verdict import TestOutcome

PASSED, FAILED, MISSING = TestOutcome.PASSED, TestOutcome.FAILED, TestOutcome.MISSING


def test_pytest_prints_a_status_and_an_id_that_ends_at_its_first_blank() -> None:
    log = "PASSED t.py::test_a\nFAILED t.py::test_b - assert 1 == 2\nPASSED t.py::test_c[x y]\nXFAIL t.py::d\nok\n"
    assert pytest_log(log) == {
        "t.py::test_a": "PASSED",
        "t.py::test_b": "FAILED",
        "t.py::test_c[x": "PASSED",
        "t.py::d": "XFAIL",
    }


def test_older_pytest_prints_the_status_last_and_colours_it() -> None:
    log = "t.py::test_a \x1b[32mPASSED\x1b[0m\nt.py::test_b FAILED\nPASSED t.py::test_c\n"
    assert pytest_log_old(log) == {
        "t.py::test_a": "PASSED",
        "t.py::test_b": "FAILED",
        "t.py::test_c": "PASSED",
    }


def test_mouse_buttons_are_numbers() -> None:
    assert matplotlib_log("PASSED t.py::test_a[MouseButton.LEFT]") == {"t.py::test_a[1]": "PASSED"}


def test_sympy_prints_bare_names_and_heads_of_failures() -> None:
    log = (
        "sympy/core/tests/test_x.py[3] \ntest_a ok\ntest_b F\ntest_c E\n\n"
        "________ sympy/core/tests/test_x.py:test_b ________\n"
    )
    assert sympy_log(log) == {
        "test_a": "PASSED",
        "test_b": "FAILED",
        "test_c": "ERROR",
        "sympy/core/tests/test_x.py:test_b": "FAILED",
    }


def test_a_line_that_is_nearly_the_head_of_a_failure_is_read_at_once() -> None:
    """A product prints what it likes: megabytes of it took hours, in which nothing else of the run went on."""
    begun = time.monotonic()
    assert sympy_log("_ " + ".py:" * 100_000 + "\n___ a.py:test_b ___\n____ no failure ____\n") == {
        "a.py:test_b": "FAILED"
    }
    assert time.monotonic() - begun < 5


def test_django_prints_the_status_after_three_dots_or_later() -> None:
    log = (
        "test_a (m.T) ... ok\nThe docstring of one. ... FAIL\ntest_c (m.T) ... skipped 'no'\n"
        "test_d (m.T) ... said something\nok\ntest_e (m.T) ... ERROR\n"
    )
    assert django_log(log) == {
        "test_a (m.T)": "PASSED",
        "The docstring of one.": "FAILED",
        "test_c (m.T)": "SKIPPED",
        "test_d (m.T)": "PASSED",
        "test_e (m.T)": "ERROR",
    }


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({"test_a": PASSED, "test_b": FAILED}, {}),
        ({"test_b": PASSED}, {"test_b": "here passed, official FAILED"}),
        ({"test_z": PASSED}, {"test_z": "here passed, official not in the log"}),
        ({"test_z": MISSING}, {}),
        ({"test_a": FAILED}, {"test_a": "here failed, official PASSED"}),
    ],
)
def test_what_the_two_say_differently_is_listed(ours: dict[str, TestOutcome], said: dict[str, str]) -> None:
    assert disagreements("sympy/sympy", "test_a ok\ntest_b F\n", ours) == said
