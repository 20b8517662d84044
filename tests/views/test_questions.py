"""How much of what an arm trains on is noise, from the records of what was asked."""

from pathlib import Path

import pytest

from looper.journal import Stream
from looper.records.question import AnsweredQuestion, Rating
from looper.views.questions import question_lines, supported_shares, to_rate


def asked(number: int, answer: str, *, task: str = "a-1", arm: str = "qa", turn: int = 1) -> AnsweredQuestion:
    return AnsweredQuestion(
        arm=arm,
        seed=0,
        repo="a",
        round=turn,
        source=f"experience_own_1/0/{task}#1/{number}",
        question="?",
        answer=answer,
        key="right",
        supported="right" in answer,
    )


def write(folder: Path, *found: AnsweredQuestion | Rating) -> Path:
    for each in found:
        name = "questions" if isinstance(each, AnsweredQuestion) else "ratings"
        stream = Stream(folder, name, type(each))
        stream.append(each)
        stream.close()
    return folder


def test_noise_is_counted_among_answers_and_silence_apart(tmp_path: Path) -> None:
    folder = write(
        tmp_path, asked(1, "right"), asked(2, "wrong"), asked(3, ""), asked(1, "right", task="a-2")
    )
    (line,) = question_lines(folder)
    assert line.startswith("qa: 4 questions about 2 successes, 2.0 for each; 3 answered, 1 do not say")
    assert "33 % noise" in line
    assert question_lines(tmp_path / "nothing") == []


def test_a_question_that_was_asked_again_counts_once(tmp_path: Path) -> None:
    """An interrupted run asks again; the answer that was trained on is the last."""
    folder = write(tmp_path, asked(1, "wrong"), asked(1, "right"))
    assert supported_shares(folder, "qa") == {"0/a-1": 1.0}


def test_shares_are_of_the_last_round_and_silence_supports_nothing(tmp_path: Path) -> None:
    folder = write(
        tmp_path, asked(1, "right"), asked(2, "right"), asked(1, "right", turn=2), asked(2, "", turn=2)
    )
    assert supported_shares(folder, "qa") == {"0/a-1": pytest.approx(0.5)}
    assert supported_shares(folder, "other") == {}


def test_people_rate_each_answer_once_and_empty_ones_never(tmp_path: Path) -> None:
    folder = write(tmp_path, *(asked(number, "right") for number in range(1, 6)), asked(6, ""))
    first = to_rate(folder, "qa", "me", 100)
    assert len(first) == 5 and first == to_rate(folder, "qa", "me", 100)
    said = Rating(arm="qa", seed=0, round=1, source=first[0].source, by="me", noise=True)
    write(folder, said)
    assert to_rate(folder, "qa", "me", 100) == first[1:] and len(to_rate(folder, "qa", "you", 100)) == 5
    assert "me calls 1 of 1 noise, and agrees with the records on 0" in question_lines(folder)[1]
