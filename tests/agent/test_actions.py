"""The language between model and tools."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.agent.actions import parse, render
from looper.records.trajectory import Action, Bash, Done, Edit, FinishReason, Read, ReplyProblem, Write

texts = st.text()
some_text = st.text(min_size=1)
paths = st.text(min_size=1)
lines = st.integers(min_value=0, max_value=10**6)
actions = st.one_of(
    st.builds(Bash, command=some_text.filter(str.strip)),
    st.builds(Read, path=paths),
    st.builds(Read, path=paths, start=lines, end=lines),
    st.builds(Edit, path=paths, old=some_text, new=texts, occurrence=st.none() | st.integers(1, 99)),
    st.builds(Write, path=paths, content=texts, confirm_shrink=st.booleans()),
    st.builds(Done, message=texts),
)


@given(actions)
@settings(max_examples=2000, deadline=None)
def test_a_rendered_action_parses_back_to_itself(action: Action) -> None:
    assert parse(render(action)).action == action


PIECES = [
    "<bash>", "</bash>", '<write path="a.py">', "</write>", '<edit path="x">', "<old>", "</old>", "<new>", "</new>",
    "</edit>", "<done>", "</done>", "<think>", "</think>", "```", "```python\n", "~~~\n", "\n", "\r\n", " ", "x", "a b",
    "&amp;", '"', "<", ">", ":1-2", "/", "..", "é", "\t", "</write:1>", "</edit:1>", "</old:1>", 'mark="1"', "<read>",
    "</read>", "\\", "\x00", "\ud800", "def f():\n", "]]>", "<![CDATA[",
]  # fmt: skip


def _text(rng: random.Random, most: int) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(most)))


def _action(rng: random.Random) -> Action:
    match rng.randrange(5):
        case 0:
            command = _text(rng, 8)
            return Bash(command=command if command.strip() else "ls")
        case 1:
            start, end = (rng.randrange(99), rng.randrange(99)) if rng.random() < 0.5 else (None, None)
            return Read(path=_text(rng, 4) or "p", start=start, end=end)
        case 2:
            which = rng.choice([None, 1, 3])
            return Edit(
                path=_text(rng, 4) or "p", old=_text(rng, 8) or "o", new=_text(rng, 8), occurrence=which
            )
        case 3:
            return Write(path=_text(rng, 4) or "p", content=_text(rng, 8), confirm_shrink=rng.random() < 0.5)
        case _:
            return Done(message=_text(rng, 8))


def test_50000_hostile_actions_come_back_byte_for_byte_behind_prose_and_thinking() -> None:
    rng = random.Random(20)
    for _ in range(50_000):
        action = _action(rng)
        before = rng.choice(
            ["", "I will do this:\n", "<think>or <bash>rm -rf /</bash>?\n<bash>x</bash>\n</think>\n"]
        )
        assert parse(before + render(action) + rng.choice(["", "\n", " \n\n"])).action == action


def test_50000_broken_replies_never_crash_and_name_their_problem() -> None:
    rng = random.Random(21)
    for _ in range(50_000):
        parsed = parse(_text(rng, 20))
        assert (parsed.action is None) == (parsed.problem is not None)


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("<bash>ls -la</bash>", Bash(command="ls -la")),
        ("<bash>\nls\npwd\n</bash>", Bash(command="ls\npwd\n")),
        ("<read>a/b.py</read>", Read(path="a/b.py")),
        ("<read>a/b.py:3-17</read>", Read(path="a/b.py", start=3, end=17)),
        ('<edit path="p"><old>a</old><new>b</new></edit>', Edit(path="p", old="a", new="b")),
        (
            '<edit path="p">\n<old>\n  a\n</old>\n<new>\n  b\n</new>\n</edit>',
            Edit(path="p", old="  a\n", new="  b\n"),
        ),
        ('<edit path="p"><old>a</old><new></new></edit>', Edit(path="p", old="a", new="")),
        (
            '<edit path="p" occurrence="2"><old>a</old><new>b</new></edit>',
            Edit(path="p", old="a", new="b", occurrence=2),
        ),
        ('<write path="p">\nx = 1\n</write>', Write(path="p", content="x = 1\n")),
        ('<write path="p">x = 1</write>', Write(path="p", content="x = 1")),
        ("<done>fixed</done>", Done(message="fixed")),
        ("<done/>", Done(message="")),
        ("I look first.\n\n<bash>ls</bash>\n", Bash(command="ls")),
        ("Use <bash> to run things. So:\n<bash>ls</bash>", Bash(command="ls")),
        ("```python\nx = 1\n```\nNow:\n<bash>ls</bash>", Bash(command="ls")),
        ("<think>\n<bash>rm x</bash>\n</think>\n<bash>ls</bash>", Bash(command="ls")),
        ("maybe\n<bash>rm x</bash>\nno\n</think>\n<bash>ls</bash>", Bash(command="ls")),
        ('<write path="p">about </write> tags\n</write>', Write(path="p", content="about </write> tags\n")),
        ('<write path="t.py">s = "<think>"\n</write>', Write(path="t.py", content='s = "<think>"\n')),
        (
            ' <think>so</think><write path="t.py">s = "<think>"\n</write>',
            Write(path="t.py", content='s = "<think>"\n'),
        ),
    ],
)
def test_replies_as_models_write_them(reply: str, action: Action) -> None:
    assert parse(reply).action == action


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", ReplyProblem.NO_ACTION),
        ("I am thinking about it.", ReplyProblem.NO_ACTION),
        ("I would run <bash>ls</bash> now.", ReplyProblem.NO_ACTION),
        ("<think>\n<bash>ls</bash>\n</think>", ReplyProblem.NO_ACTION),
        ("<think>\n<bash>ls</bash>", ReplyProblem.NO_ACTION),
        ("<bash>ls", ReplyProblem.UNCLOSED),
        ('<write path="p">\nx = 1\n', ReplyProblem.UNCLOSED),
        ('<edit path="p"><old>a</old><new>b</edit>', ReplyProblem.UNCLOSED),
        ("<bash>ls</bash>\n<bash>pwd</bash>", ReplyProblem.SEVERAL_ACTIONS),
        ('<read>p</read>\n<write path="q">x</write>', ReplyProblem.SEVERAL_ACTIONS),
        ("<bash>ls</bash>\nOutput:\nfile.py", ReplyProblem.TEXT_AFTER_ACTION),
        ("```xml\n<bash>ls</bash>\n```", ReplyProblem.FENCED_ACTION),
        ("~~~\n<bash>ls</bash>\n~~~", ReplyProblem.FENCED_ACTION),
        ("<bash></bash>", ReplyProblem.MALFORMED),
        ("<write>x</write>", ReplyProblem.MALFORMED),
        ('<edit path="p">a → b</edit>', ReplyProblem.MALFORMED),
        ('<edit path="p"><old></old><new>b</new></edit>', ReplyProblem.MALFORMED),
        ('<edit path="p"><old>a</old><new>b</new><old>c</old><new>d</new></edit>', ReplyProblem.MALFORMED),
        ('<write path="p" mode="777">x</write>', ReplyProblem.MALFORMED),
        ('<edit path="p" occurrence="first"><old>a</old><new>b</new></edit>', ReplyProblem.MALFORMED),
    ],
)
def test_each_problem_has_its_name(reply: str, problem: ReplyProblem) -> None:
    parsed = parse(reply)
    assert (parsed.action, parsed.problem) == (None, problem)
    assert parsed.detail


def test_a_reply_cut_at_the_output_limit_is_never_executed() -> None:
    parsed = parse("<bash>rm -r build</bash>", FinishReason.LENGTH)
    assert (parsed.action, parsed.problem) == (None, ReplyProblem.TRUNCATED)


@pytest.mark.parametrize(
    ("content", "kept", "removed"),
    [
        ("```\nx = 1\n```", "x = 1\n", True),
        ("```python\nx = 1\n```\n", "x = 1\n", True),
        ("~~~python\nx = 1\n~~~", "x = 1\n", True),
        ("````md\n```\ninner\n```\n````", "```\ninner\n```\n", True),
        ("text\n```\ncode\n```\n", "text\n```\ncode\n```\n", False),
        ("x = 1\n", "x = 1\n", False),
        ("x = 1", "x = 1", False),
        ("```\n```", "", True),
    ],
)
def test_a_fence_around_the_whole_content_is_taken_off_and_reported(
    content: str, kept: str, removed: bool
) -> None:
    """G-03: fences must not end up in files, and fences inside a file must stay."""
    parsed = parse(f'<write path="p">\n{content}</write>')
    assert isinstance(parsed.action, Write)
    assert (parsed.action.content, parsed.fence_removed) == (kept, removed)


def test_edits_in_fences_are_taken_out_of_both_parts() -> None:
    parsed = parse('<edit path="p"><old>\n```\na\n```\n</old><new>\n```py\nb\n```\n</new></edit>')
    assert parsed.action == Edit(path="p", old="a\n", new="b\n") and parsed.fence_removed


def test_long_hostile_replies_are_read_in_reasonable_time() -> None:
    import time

    begun = time.monotonic()
    for text in (
        "<bash>" * 20_000,
        "<think>" * 20_000,
        "```\n" * 50_000 + "<bash>ls</bash>",
        '<edit path="' * 20_000,
    ):
        parse(text)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("digits", ["9" * 100_000, "٣", "0", "-1", "1e9"])
def test_f12_a_number_that_is_none_is_told_to_the_model(digits: str) -> None:
    for text in (
        f'<edit path="a.py" occurrence="{digits}"><old>x</old><new>y</new></edit>',
        f'<read path="a.py" lines="{digits}-{digits}x"></read>',
    ):
        parsed = parse(text, FinishReason.STOP)
        assert parsed.action is None and parsed.problem is ReplyProblem.MALFORMED and len(parsed.detail) < 200
    read = parse(f"<read>a.py:{digits}-3x</read>", FinishReason.STOP).action
    assert isinstance(read, Read) and read.start is None


@pytest.mark.parametrize(
    "mark",
    [
        "<|im_end|>",
        "</s>",
        "\n<|eot_id|>\n",
        "<end_of_turn>",
        "<｜end▁of▁sentence｜>",
        "<|end|><|endoftext|>",
        " <eos>",
    ],
)
@pytest.mark.parametrize("action", [Done(message="x"), Write(path="p", content="<done>y</done>\n")])
def test_m6_a_mark_that_ends_the_turn_may_stand_behind_an_action(mark: str, action: Action) -> None:
    assert parse(render(action) + mark).action == action


def test_m6_nothing_else_may() -> None:
    for rest in ("<|im_end|>\nand more", "</s>\n<bash>ls</bash>", "<p>"):
        assert parse(f"<done>x</done>{rest}").action is None


@pytest.mark.parametrize("fence", ["```", "```bash", "~~~sh", "````"])
def test_m7_a_fence_around_a_command_is_taken_off_and_reported(fence: str) -> None:
    """To a shell it is a command substitution."""
    end = fence.removesuffix("bash").removesuffix("sh")
    parsed = parse(f"<bash>\n{fence}\nls -la\n{end}\n</bash>")
    assert (parsed.action, parsed.fence_removed) == (Bash(command="ls -la\n"), True)
    meant = Bash(command=f"{fence}\nls -la\n{end}\n")
    assert parse(render(meant)).action == meant
    inside = "cat > a.md <<'END'\n```\nx\n```\nEND\n"
    assert parse(f"<bash>\n{inside}</bash>").action == Bash(command=inside)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("<edit path='a.py'><old>a</old><new>b</new></edit>", "double quotes"),
        ("I edit:\n  <write path=a.py>x</write>", "double quotes"),
        ('<read path = "a.py"/>', "double quotes"),
        ("<BASH>ls</BASH>", "lower case: <bash>"),
    ],
)
def test_m8_a_tag_that_is_nearly_one_is_told_what_is_wrong_with_it(reply: str, reason: str) -> None:
    parsed = parse(reply)
    assert parsed.problem is ReplyProblem.MALFORMED and reason in parsed.detail


@pytest.mark.parametrize("blank", ["\u200b", "\u00a0", "\ufeff", "\f", " \u2060\t", "\u2028"])
def test_m8_blanks_that_nobody_sees_may_stand_before_a_tag(blank: str) -> None:
    assert parse(f"So:\n{blank}<bash>ls</bash >").action == Bash(command="ls")
