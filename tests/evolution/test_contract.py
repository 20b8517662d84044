"""What a contract may say, and what is said of one that cannot be used."""

import pytest

from looper.errors import BadInput
from looper.evolution.contract import contract_text, parse_contract

TEXT = """# Task: Refuse an action that was done three times

## Objective
The agent repeats itself.

## Requirements
- Count equal actions with equal results
- Refuse the third one, and say
  why

## Acceptance Criteria
- [ ] `python -m pytest tests/agent` exits with 0
- A refused action is told in one line

## Constraints
- No new dependency

## Files to Modify
- `src/looper/agent/guards.py`
"""


def test_a_contract_is_read_whole() -> None:
    found = parse_contract(TEXT, ["src/looper/agent"])
    assert found.title == "Refuse an action that was done three times"
    assert found.objective == "The agent repeats itself."
    assert found.requirements == (
        "Count equal actions with equal results",
        "Refuse the third one, and say why",
    )
    assert [(one.id, one.command) for one in found.criteria] == [
        ("A1", "python -m pytest tests/agent"),
        ("A2", ""),
    ]
    assert found.files == ("src/looper/agent/guards.py",)


def test_what_is_written_reads_back() -> None:
    found = parse_contract(TEXT)
    assert parse_contract(contract_text(found)) == found


def test_a_title_may_stand_in_the_line_below() -> None:
    text = "# Task\n\nShorter prompts\n\n## Acceptance Criteria\n- shorter\n"
    assert parse_contract(text).title == "Shorter prompts"


def test_all_problems_are_named_at_once() -> None:
    text = "## Wishes\n- more\n## Files to Modify\n- tests/test_gates.py\n- src/looper/agent/../bench/verify.py\n"
    with pytest.raises(BadInput) as refused:
        parse_contract(text, ["src/looper/agent"])
    said = str(refused.value)
    assert 'line 1: no section is called "Wishes"' in said and "title is missing" in said
    assert "acceptance criterion" in said and "tests/test_gates.py is not where" in said
    assert "agent/../bench/verify.py is not where" in said and "\n" not in said
