"""Whether an environment's interpreter starts where it is to be used."""

from pathlib import Path

from looper.edges.access import closed_to_others
from looper.errors import EnvironmentBroken
from looper.protocols import Command, Environment, Sandbox


def must_start(environment: Environment, sandbox: Sandbox, root: Path) -> None:
    """Run the interpreter once in the sandbox, in an empty folder. Raises SandboxUnavailable, or EnvironmentBroken with what keeps
    its user out."""
    started = sandbox.run(
        Command(
            argv=(str(environment.python), "-c", "print('started')"),
            root=root,
            timeout_s=60,
            readable=environment.readable,
        )
    )
    if started.text().strip() != "started":
        closed = closed_to_others((environment.python, root)) if sandbox.owner is not None else None
        fix = f"Remove {environment.readable[0]}, so that it is made anew."
        if closed is not None:
            fix = f"Commands run as nobody, who may not enter {closed}: chmod a+x it, or choose another place with LOOPER_HOME."
        said = started.text().strip()[-300:]
        raise EnvironmentBroken(
            f"{environment.python} does not start in the sandbox ({sandbox.name}): {said}. {fix}"
        )
