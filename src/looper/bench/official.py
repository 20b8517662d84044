"""What the SWE-bench harness reads from the log of a test run, repository by repository.

Verdicts come from a runner that reports each test itself. This reads the same run's printed log by the rules that published
results were made with (harness 4.1.0), so that a difference between the two is seen, and listed, before it is a result.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from looper.records.text import bare_lines
from looper.records.verdict import TestOutcome

Statuses = dict[str, str]
"""Test id → PASSED, FAILED, ERROR, SKIPPED or XFAIL; the last one that the log says."""
WORDS = ("FAILED", "PASSED", "SKIPPED", "ERROR", "XFAIL")
_COLOURS = re.compile(r"\x1b?\[\d+m")
_SYMPY_FAILURE = re.compile(r"^_+ (.*) _+$", re.MULTILINE)
"""Where `.py:` stands in it; to look for that in the same pattern takes hours on a line that is full of it."""


def pytest_log(log: str) -> Statuses:
    """Lines that begin with a status; the second word is the id."""
    return _pytest(bare_lines(log), at_end=False)


def pytest_log_with_xpass(log: str) -> Statuses:
    """The same with XPASS, which the official rules do not know: a test that passes although it may fail."""
    return _pytest(bare_lines(log), at_end=False, words=(*WORDS, "XPASS"))


def pytest_log_old(log: str) -> Statuses:
    """The same without colours, and lines that end with a status: as older versions print them."""
    plain = ("".join(mark for mark in line if mark.isprintable() or mark == "\t") for line in _plain(log))
    return _pytest(plain, at_end=True)


def _plain(log: str) -> list[str]:
    return bare_lines(_COLOURS.sub("", log))


def _pytest(lines: Iterable[str], *, at_end: bool, words: tuple[str, ...] = WORDS) -> Statuses:
    found = {}
    for line in lines:
        parts = (line.replace(" - ", " ") if line.startswith("FAILED") else line).split()
        if len(parts) < 2:
            continue
        if line.startswith(words):
            found[parts[1]] = parts[0]
        elif at_end and line.endswith(words):
            found[parts[0]] = parts[1]
    return found


def matplotlib_log(log: str) -> Statuses:
    """As pytest's; mouse buttons are numbers in the ids."""
    return pytest_log(log.replace("MouseButton.LEFT", "1").replace("MouseButton.RIGHT", "3"))


def sympy_log(log: str) -> Statuses:
    """Lines `test_name ok`, `F` or `E`; the heads of failures say file and name."""
    found = {match[1]: "FAILED" for match in _SYMPY_FAILURE.finditer(log) if ".py:" in match[1]}
    for line in bare_lines(log):
        line = line.strip()
        if line.startswith("test_"):
            for ending, status in ((" E", "ERROR"), (" F", "FAILED"), (" ok", "PASSED")):
                if line.endswith(ending):
                    found[line.split()[0]] = status
    return found


def django_log(log: str) -> Statuses:
    """Text before ` ... ` is the id; the word after it is the status, or a later `ok` on a line of its own."""
    found: Statuses = {}
    last = None
    for line in bare_lines(log):
        line = line.strip()
        before = line.split(" ... ")[0] if " ... " in line else None
        if before is not None:
            last = before
        for ending, status in (
            (" ... ok", "PASSED"),
            (" ... OK", "PASSED"),
            (" ...  OK", "PASSED"),
            (" ... skipped", "SKIPPED"),
            (" ... FAIL", "FAILED"),
            (" ... ERROR", "ERROR"),
        ):
            if line.endswith(ending) or (status == "SKIPPED" and ending in line):
                found[line.rsplit(ending, 1)[0]] = status
                break
        else:
            if line.startswith("FAIL:"):
                found[" ".join(line.split()[1:2])] = "FAILED"
            elif line.startswith("ERROR:"):
                found[" ".join(line.split()[1:2])] = "ERROR"
            elif line.startswith("ok") and last is not None:
                found[last] = "PASSED"
    return found


PARSERS: Mapping[str, Callable[[str], Statuses]] = {
    "django/django": django_log,
    "sympy/sympy": sympy_log,
    "matplotlib/matplotlib": matplotlib_log,
    "sphinx-doc/sphinx": pytest_log_old,
    "scikit-learn/scikit-learn": pytest_log_old,
    "astropy/astropy": pytest_log_old,
    "pydata/xarray": pytest_log,
    "pytest-dev/pytest": pytest_log,
}


def disagreements(repo: str, log: str, ours: Mapping[str, TestOutcome]) -> dict[str, str]:
    """Ids that one of the two says pass and the other does not: what each says. Nothing where the log has no parser here."""
    parser = PARSERS.get(repo)
    if parser is None:
        return {}
    theirs = parser(log)
    return {
        name: f"here {outcome.value}, official {theirs.get(name, 'not in the log')}"
        for name, outcome in ours.items()
        if outcome.passes != (theirs.get(name) in ("PASSED", "XFAIL"))
    }
