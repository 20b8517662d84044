"""Looper's own agent as what evolves: its code is changed by a model, works as a guest at the embedded suite, and is promoted by that."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.model_servers import WrittenModel
from tests.fakes.shop import git, verdict

from looper.cli.repositories import opened
from looper.cli.repository_steps import campaign
from looper.cli.settings import settings as looper_settings
from looper.errors import BadInput
from looper.records.gate import GateOutcome
from looper.records.generation import Phase

ROOT = Path(__file__).parents[2]
CONTRACT = """# Task: Edits are made

## Requirements
- an edit changes its file

## Acceptance Criteria
- nothing refuses every edit

## Files to Modify
- src/looper/agent/tools.py
"""
FAULT = '    return Effect(_refused("edits are not allowed here"))\n'
HEAD = "def _edit(action: Edit, tool_context: ToolContext) -> ToolEffect:\n"
MEND = '<bash>grep -v "edits are not allowed here" src/looper/agent/tools.py > /tmp/mended && cp /tmp/mended src/looper/agent/tools.py</bash>'
HARM = "<bash>sed -i 's/^    return _Rollout(assignment).run()/    raise SystemExit(0)/' src/looper/agent/loop.py</bash>"
DONE = "<done>mended</done>"


@pytest.fixture
def itself(tmp_path: Path) -> Path:
    """Looper's repository, with an agent whose edits are all refused."""
    root = tmp_path / "looper"
    root.mkdir()
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("looper.toml", "pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, root / name)
    (root / "tests" / "agent").mkdir(parents=True)
    for name in ("__init__.py", "agent/test_edits.py", "agent/test_actions.py"):
        if (ROOT / "tests" / name).is_file():
            shutil.copyfile(ROOT / "tests" / name, root / "tests" / name)
    tools = root / "src" / "looper" / "agent" / "tools.py"
    text = tools.read_text()
    assert HEAD in text
    tools.write_text(text.replace(HEAD, HEAD + FAULT))
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


@pytest.fixture
def models(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WrittenModel]:
    def prime(said: str) -> str:
        return (
            CONTRACT
            if "You decide what a program's next change is" in said
            else verdict(criteria=[{"id": "A1", "met": True, "evidence": "seen"}])
        )

    with WrittenModel(MEND, DONE) as lab, WrittenModel(prime) as first:
        for name, value in {
            "LOOPER_HOME": str(state),
            "LOOPER_EVOLVE_PRIME": f"openai:written@{first.url}",
            "LOOPER_EVOLVE_LAB": f"ollama:written@{lab.url}",
            "LOOPER_EVOLVE_REVIEW": "false",
            "LOOPER_EVOLVE_PYTHON": sys.executable,
            "LOOPER_EVOLVE_TASKS": "12",
            "LOOPER_EVOLVE_GENERATIONS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LOOPER_EVOLVE_PRIME", f"ollama:written@{first.url}")
        yield lab


@pytest.mark.proof
def test_a_mend_of_the_agents_own_code_is_promoted_because_it_resolves_more(
    itself: Path, models: WrittenModel
) -> None:
    found = opened(itself, {}, looper_settings(), lambda line: None)
    assert campaign(found) == "generations"
    one = found.ledger.state().generation(1)
    assert one.phase is Phase.PROMOTED, one.evidence
    assert one.tested["development"].wins >= 5 and one.tested["development"].losses == 0
    assert one.tested["sealed"].outcome is GateOutcome.PASS
    assert FAULT not in git(itself, "show", "evolve/active:src/looper/agent/tools.py")
    with pytest.raises(BadInput, match="was begun with"):
        campaign(opened(itself, {"generations": 2}, looper_settings(), lambda line: None))


@pytest.mark.proof
def test_an_agent_that_does_not_work_is_refused_by_the_benchmark(itself: Path, models: WrittenModel) -> None:
    models.answers[:] = [HARM, DONE]
    found = opened(itself, {"tests": (), "tasks": 4}, looper_settings(), lambda line: None)
    campaign(found)
    one = found.ledger.state().generation(1)
    assert (
        one.verdict is Phase.REJECTED and "development" in one.tested and one.tested["development"].wins == 0
    )


def test_where_the_interpreter_is_none_it_is_one_line(itself: Path, models: WrittenModel) -> None:
    with pytest.raises(BadInput, match="is no Python that runs"):
        campaign(opened(itself, {"python": "nowhere/python"}, looper_settings(), lambda line: None))


def test_the_benchmark_has_a_closed_set_of_names(itself: Path) -> None:
    with pytest.raises(BadInput, match="micro is the only benchmark"):
        opened(itself, {"benchmark": "swe"}, looper_settings(), lambda line: None)
