"""What the embedded model was trained on."""

import random
from pathlib import Path

from scripts.nano.corpus import MAX_STEPS, SLIP, episodes

from looper.agent.actions import parse
from looper.agent.scaffold import packaged_scaffold
from looper.agent.tools import ToolContext, execute
from looper.bench.micro.level0 import _check_script
from looper.bench.micro.levels import projects
from looper.bench.micro.names import is_training_name
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.sandboxes.shell import LocalShell
from looper.edges.workspaces.files import Tree
from looper.protocols import Environment, Sandbox
from looper.records.plan import Limits
from looper.records.task import Task


def test_training_repositories_are_never_evaluated() -> None:
    stream = episodes(random.Random(1))
    trained = {next(stream).bug.repo for _ in range(2000)}
    evaluated = {project.name for seed in range(5) for project in projects(0, seed)}
    assert not trained & evaluated
    assert all(map(is_training_name, trained)) and not any(map(is_training_name, evaluated))


def test_every_action_of_the_corpus_is_in_the_agents_language() -> None:
    stream = episodes(random.Random(2))
    for _ in range(500):
        acted = [text for role, text in next(stream).messages if role in ("assistant", SLIP)]
        assert 0 < len(acted) <= MAX_STEPS
        assert all(parse(text).action is not None for text in acted)


class _PlainSession(LocalShell):
    """As much of a session as the tools need."""

    def __init__(self, root: Path, sandbox: Sandbox, environment: Environment) -> None:
        super().__init__(root, sandbox, environment)
        tree = Tree(root)
        self.read, self.write = tree.read, tree.write


def test_simulated_observations_are_what_the_real_tools_say(
    tmp_path: Path, sandbox: Sandbox, environments: HarnessEnvironment, task: Task, limits: Limits
) -> None:
    """The corpus is not run when it is made, so it has to be right about the world."""
    import os

    stream = episodes(random.Random(3))
    for number in range(25):
        episode = next(stream)
        root = tmp_path / str(number)
        root.mkdir()
        for name, text in {**episode.bug.files, "check.py": _check_script(episode.bug)}.items():
            (root / name).write_text(text)
        if sandbox.owner is not None:
            os.chown(root, sandbox.owner, sandbox.owner)
        session = _PlainSession(root, sandbox, environments.of(task))
        tool_context = ToolContext(session, packaged_scaffold("terse"), limits)  # type: ignore[arg-type]
        turns = episode.messages[2:]
        for (_, said), (_, observed) in zip(turns[::2], turns[1::2], strict=False):
            action = parse(said).action
            assert action is not None
            assert execute(action, tool_context, 10).observation.text == observed
