"""What many tests need: a private state folder, the sandbox, the embedded suite."""

import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from looper.agent.scaffold import packaged_scaffold
from looper.edges.datasets.micro import MicroSuite
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces.exports import GitSessions
from looper.protocols import Sandbox
from looper.records.model import ModelSpec
from looper.records.plan import Arm, ArmRole, Limits
from looper.records.task import Task

LONG = (
    "tests/experiment/test_learning.py",
    # Waits more than it computes, which costs nothing beside those that compute.
    "tests/contracts/test_sandboxes.py",
    "tests/views/",
    "tests/cli/test_evolve_repository.py",
    "tests/evolution/test_guest.py",
    "tests/edges/test_torch_trainer.py",
    "tests/cli/test_regenerate.py",
    "tests/experiment/test_run.py",
    "tests/edges/test_strategies.py",
    "tests/serve/test_browser.py",
)
"""Files that take longest, begun first: a worker that is left alone with one at the end keeps everybody waiting."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return

    def place(item: pytest.Item) -> int:
        return next((at for at, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG))

    items.sort(key=place)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: what is packed holds the second it was packed in, and workers then find tests of
    different names."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    # In the order above, and not by the number of tests, which says little about their length.
    config.option.loadscopereorder = False
    return _WhereTheRunIs(config, log)


class _WhereTheRunIs(LoadFileScheduling):
    """A file's tests stay with one worker, and so do those of a folder that looks at one long run, or each worker would make that
    run, and start those models, for itself."""

    def _split_scope(self, nodeid: str) -> str:
        return "views" if nodeid.startswith("tests/views/") else str(super()._split_scope(nodeid))


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder for the session, open to the user whom commands run as."""
    folder = tmp_path_factory.mktemp("state")
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    return folder


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """The sandbox that a user would get. Without one these tests fail: nothing may run bare."""
    return find_sandbox("auto")


@pytest.fixture(scope="session")
def micro(state: Path) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """Level 0 of the embedded suite."""
    return MicroSuite(state / "suites", 0, 0).load()


@pytest.fixture(scope="session")
def environments(state: Path) -> HarnessEnvironment:
    return HarnessEnvironment(state / "environments")


@pytest.fixture
def sessions(
    micro: tuple[tuple[Task, ...], dict[str, Path]],
    state: Path,
    sandbox: Sandbox,
    environments: HarnessEnvironment,
) -> GitSessions:
    place = state / "workspaces" / f"{os.getpid()}"
    return GitSessions(micro[1], state / "exports", place, sandbox, environments.of)


@pytest.fixture
def task(micro: tuple[tuple[Task, ...], dict[str, Path]]) -> Task:
    return micro[0][0]


LIMITS = Limits(
    steps=8, output_tokens=256, context_tokens=4096, wall_s=60, command_s=10, verify_s=60, memory_mb=1024
)


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture
def arm() -> Arm:
    """An arm with the full scaffold; which model drives it is the test's business."""
    return Arm(
        name="base",
        role=ArmRole.BASE,
        model=ModelSpec(backend="noop"),
        scaffold=packaged_scaffold("full"),
        temperature=0.0,
    )
