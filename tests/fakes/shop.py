"""A small repository that evolves, with model servers on loopback that say what a test wrote down."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from looper.cli.campaigns import PLACE
from looper.cli.repositories import OpenRepository, opened
from looper.cli.repository_steps import spawn
from looper.cli.settings import settings as looper_settings
from looper.evolution.state import Generation
from looper.records.generation import Origin
from tests.cli.test_commands import looper
from tests.fakes.model_servers import Answer, WrittenModel

CONTRACT = """# Task: A discount

## Requirements
- discount(total, percent), in whole numbers

## Acceptance Criteria
- `python -c "import sys; sys.path.insert(0, 'src'); from price import discount; assert discount(100, 10) == 90"` exits with 0
- nothing else changes

## Files to Modify
- src/price.py
"""
EDIT = """<edit path="src/price.py"><old>
    return sum(prices)
</old><new>
    return sum(prices)


def discount(total, percent):
    return total - total * percent // 100
</new></edit>"""
DONE = "<done>there is a discount</done>"


def verdict(**changed: Any) -> str:
    met = [{"id": name, "met": True, "evidence": "seen"} for name in ("A1", "A2")]
    whole = {
        "approved": True,
        "criteria": met,
        "issues": [],
        "injection": False,
        "confidence": "high",
        "summary": "as asked",
    }
    return json.dumps({**whole, **changed})


def prime(said: str) -> str:
    return CONTRACT if "You decide what a program's next change is" in said else verdict()


class Shop:
    """A small repository, its two model servers, and what was asked of them."""

    def __init__(self, root: Path, state: Path, lab: WrittenModel, prime: WrittenModel) -> None:
        self.root, self.state, self.lab, self.prime = root, state, lab, prime

    def variables(self, **more: str) -> dict[str, str]:
        return {
            "LOOPER_HOME": str(self.state),
            "LOOPER_EVOLVE_PRIME": "anthropic:written",
            "LOOPER_EVOLVE_PRIME_ENDPOINT": self.prime.url,
            "LOOPER_EVOLVE_PRIME_KEY": "the-key-of-prime",
            "LOOPER_EVOLVE_LAB": "ollama:written",
            "LOOPER_EVOLVE_LAB_ENDPOINT": self.lab.url,
            "LOOPER_EVOLVE_LAB_KEY": "the-key-of-the-lab",
            "LOOPER_EVOLVE_PATIENCE_S": "0",
            **more,
        }

    def open(self, **chosen: Any) -> OpenRepository:
        return opened(self.root, chosen, looper_settings(), lambda line: None)

    def spawn(self, text: str = CONTRACT, request: str = "r", **chosen: Any) -> Generation:
        return spawn(self.open(**chosen), text, request, Origin.CLI, detach=False)

    def generation(self, number: int = 1) -> Generation:
        return self.open().ledger.state().generation(number)

    def git(self, *arguments: str) -> str:
        return git(self.root, *arguments)

    def begin(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """A command beside this process, with the contract as its input."""
        command = [sys.executable, "-m", "looper.cli.main", "evolve", *arguments]
        environment = {**os.environ, **self.variables()}
        found = subprocess.Popen(
            command,
            cwd=self.root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert found.stdin is not None
        found.stdin.write(CONTRACT.encode())
        found.stdin.close()
        return found

    def worker(self, number: int = 1) -> int:
        """Process of a generation's lab."""
        return int((self.root / PLACE / "labs" / f"gen-{number}" / "lock").read_text())

    def looper(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return looper("evolve", *arguments, cwd=self.root, **self.variables(**more))


def until(seen: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for it, and fail where it does not come."""
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout


def new_shop(root: Path) -> Path:
    (root / "src").mkdir(parents=True)
    (root / "tests").mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / "src" / "price.py").write_text("def total(prices):\n    return sum(prices)\n")
    (root / "tests" / "test_price.py").write_text(
        "import sys\n\nsys.path.insert(0, 'src')\n\nfrom price import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n"
    )
    (root / "pyproject.toml").write_text("")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


@pytest.fixture
def shop(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with WrittenModel(EDIT, DONE) as lab, WrittenModel(prime) as first:
        found = Shop(new_shop(tmp_path / "shop"), state, lab, first)
        for name, value in found.variables().items():
            monkeypatch.setenv(name, value)
        yield found


def answers(shop: Shop, *lab: Answer) -> None:
    shop.lab.answers[:] = lab


def edit(path: str, content: str) -> str:
    return f'<write path="{path}">\n{content}\n</write>'
