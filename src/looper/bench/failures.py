"""What failing tests printed, taken from the log of a test run: of the tests that a task names, never of the copies beside them."""

import re
from collections.abc import Iterator, Sequence

from looper.records.task import Runner, Task
from looper.records.text import bare_lines

OUTPUT_CHARACTERS = 4000
"""Of all failing tests of a verdict together."""
TEST_CHARACTERS = 1500
"""Of one test: the end, where a traceback says what was raised."""
FAILING = 50
"""So many tests at most are looked for."""
_HEAD = re.compile(r"_{3,} (\S|\S.*\S) _{3,}")
_TITLE_CHARACTERS = 1000
"""A longer line is no title, whatever a test prints: nothing is looked for in it."""
_DJANGO_RULE = re.compile(r"={70}|-{70}")
_DJANGO_HEAD = re.compile(r"(?:FAIL|ERROR): (.+)")
_WHEN = re.compile(r"^ERROR (?:at (?:setup|teardown) of )?")

Section = tuple[Sequence[str], Sequence[str]]
"""Titles, and the lines below them."""


def failing_output(task: Task, log: str, failing: Sequence[str]) -> str:
    """The parts of the log that belong to these tests, by their ids, each under its id; empty where the log has none."""
    lines = bare_lines(log)
    summary = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    sections = list(_django_sections(lines) if task.runner is Runner.DJANGO else _sections(lines))
    parts, left = [], OUTPUT_CHARACTERS
    for name in failing[:FAILING]:
        body = [line for section in sections if _is_of(task, name, *section) for line in section[1]]
        said = "\n".join(body or _in_short(summary, name)).strip("\n")
        if not said:
            continue
        part = f"{name}\n{_end(said, TEST_CHARACTERS)}"
        if len(part) > left:
            break
        parts.append(part)
        left -= len(part) + 2
    return "\n\n".join(parts)


def end_of_log(log: str) -> str:
    """Where no test has a part of its own, since the run did not come to its end."""
    return _end(log.strip(), TEST_CHARACTERS)


def _end(text: str, most: int) -> str:
    return text if len(text) <= most else f"… {text[2 - most :]}"


def _is_of(task: Task, name: str, titles: Sequence[str], body: Sequence[str]) -> bool:
    match task.runner:
        case Runner.DJANGO:
            return any(title == name or title.startswith(f"{name} ") for title in titles)
        case Runner.SYMPY:
            return titles[0].endswith(tuple(f"{path}:{name}" for path in task.test_targets))
        case Runner.PYTEST:
            path, _, test = name.partition("::")
            of = _WHEN.sub("", titles[0])
            # A copy of the test has its name too, in another file: the traceback says which.
            own = of == test.replace("::", ".") and any(f"{path}:" in line for line in body)
            return own or of == f"collecting {path}"


def _in_short(lines: Sequence[str], name: str) -> list[str]:
    """What pytest's summary says of a test without a traceback."""
    heads = (f"FAILED {name} - ", f"ERROR {name} - ")
    return [line.partition(" - ")[2] for line in lines if line.startswith(heads)]


def _sections(lines: Sequence[str]) -> Iterator[Section]:
    """Of pytest and sympy: a title between underscores; then all up to the next one, or to a title between equals signs."""
    title, body = "", list[str]()
    for line in lines:
        short = len(line) <= _TITLE_CHARACTERS
        found = _HEAD.fullmatch(line.strip()) if short and line.startswith(("_", " _")) else None
        if found or (short and len(line) >= 6 and line.startswith("===") and line.endswith("===")):
            if title:
                yield (title,), body
            title, body = (found[1] if found else ""), []
        elif title:
            body.append(line)
    if title:
        yield (title,), body


def _django_sections(lines: Sequence[str]) -> Iterator[Section]:
    """Of unittest: a rule, the head, in some versions a docstring, a rule, the traceback up to the next rule."""
    rules = [at for at, line in enumerate(lines) if _DJANGO_RULE.fullmatch(line)]
    for first, second, third in zip(rules, rules[1:], [*rules[2:], len(lines)], strict=False):
        head = _DJANGO_HEAD.fullmatch(lines[first + 1]) if first + 1 < second else None
        if head is not None:
            yield (head[1], *lines[first + 2 : second]), lines[second + 1 : third]
