"""Earlier experiments are shown with intervals and marks, and never as effects that they cannot carry."""

from pathlib import Path

import pytest

from looper.errors import BadInput
from looper.records.history import PastComparison
from looper.views.history import carried, history_lines, read_history
from looper.views.markdown import with_history

FILE = Path(__file__).parents[2] / "experiments" / "history" / "v1.toml"


def rows() -> list[str]:
    return list(history_lines(read_history(FILE)))


def test_all_eight_are_there_with_their_marks() -> None:
    text = "\n".join(rows())
    for number in range(1, 9):
        assert f"| v1-{number} " in text
    assert "| v1-4 EWC-LoRA (3 lambdas, 7B), 2026-03-11 | exp04 | Regression | confounded |" in text


def test_intervals_are_those_that_were_published_for_these_counts() -> None:
    """Newcombe's method 10 and exact McNemar, worked out independently."""
    by_name = {row.split(" | ")[0].strip("| "): row for row in rows() if " against " in row}
    for name, said in (
        ("v1-1 lora against base", "| +0.0 | -13.4 to +13.4 | 1 |"),
        ("v1-3 any adapted arm against base", "| -10.0 | -40.4 to +18.9 | 1 |"),
        ("v1-5 oracle against base", "| -8.0 | -25.0 to +6.5 | 0.5 |"),
        ("7B fixes against no fixes", "| +13.3 | -10.8 to +38.0 | 0.5 |"),
        ("32B fixes against 14B fixes", "| +0.0 | -22.3 to +22.3 | 1 |"),
    ):
        assert said in by_name[name]


def test_no_row_is_shown_as_an_effect() -> None:
    found = [row for row in rows() if " against " in row and row.count("|") == 8]
    assert len(found) == 9 and all("no effect shown" in row for row in found)


def test_what_was_never_measured_has_no_number() -> None:
    assert any("| v1-8 | lora | resolved | not measured | – |" in row for row in rows())


def test_an_arm_that_is_not_what_it_is_called_carries_nothing_however_clear_its_figures() -> None:
    clear = PastComparison(
        name="x", tasks="t", both=0, first_only=30, second_only=0, neither=0, audit="contaminated"
    )
    assert carried(clear, 1e-9) == "nothing about the arm: contaminated"
    assert carried(clear.model_copy(update={"audit": "valid"}), 1e-9) == "a difference"


def test_the_block_is_written_again_in_its_place() -> None:
    found = read_history(FILE)
    once = with_history("# L\n", "v1", found)
    assert with_history(once, "v1", found) == once and once.count("## Eight earlier experiments") == 1


def test_a_file_that_says_something_else_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "h.toml").write_text(FILE.read_text().replace('audit = "leaky"', 'audit = "fine"', 1))
    with pytest.raises(BadInput, match="fine is not among the marks"):
        read_history(tmp_path / "h.toml")
    (tmp_path / "h.toml").write_text("title = ")
    with pytest.raises(BadInput, match="cannot be read"):
        read_history(tmp_path / "h.toml")
