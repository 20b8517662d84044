"""Environments in the container images that SWE-bench publishes, one for each task, for machines with Docker or Podman.

The repository lies at /testbed there, installed for development. Looper's working tree is mounted beside it and stands before it
on the module path; modules that the installation generated or compiled are found in /testbed where the tree has none. Written
after the published layout and tested against a scripted program: no engine was at hand.
"""

import subprocess
from pathlib import Path

from looper.edges.environments.beside import site_for
from looper.edges.environments.known import needs_of
from looper.edges.sandboxes.container import PROGRAMS
from looper.edges.sandboxes.process import program
from looper.errors import BadInput, EnvironmentBroken
from looper.protocols import Environment
from looper.records.base import content_hash
from looper.records.task import Task

NAME = "swebench/sweb.eval.x86_64.{id}:latest"
TESTBED = Path("/testbed")
PYTHON = Path("/opt/miniconda3/envs/testbed/bin/python")


def image_of(task: Task) -> str:
    """The name under which SWE-bench publishes a task's image; names of images allow no double underscore."""
    return NAME.format(id=task.instance_id.lower().replace("__", "_1776_"))


class ImageEnvironments:
    """Looks at what is there; pulling gigabytes is left to the user."""

    def __init__(self, folder: Path) -> None:
        """Raises EnvironmentBroken where neither docker nor podman is installed."""
        found = next((path for name in PROGRAMS[:2] if (path := program(name))), None)
        if found is None:
            raise EnvironmentBroken(
                "Images of SWE-bench need docker or podman. Install one, or choose another sandbox."
            )
        self._program, self._folder = found, folder
        self._ids: dict[str, str] = {}

    def of(self, task: Task) -> Environment:
        """Raises BadInput where the image is not there, with how to get it."""
        image = image_of(task)
        if image not in self._ids:
            self._ids[image] = self._id_of(image)
        needs = needs_of(task)
        release = TESTBED / needs.source_root
        site = site_for(self._folder / "images" / task.repo.replace("/", "__"), release, needs.packages)
        variables = {
            name: value.replace("{site}", str(site)).replace("{release}", str(release))
            for name, value in needs.variables.items()
        }
        return Environment(content_hash(self._ids[image])[:16], PYTHON, (site,), variables, image)

    def _id_of(self, image: str) -> str:
        asked = [self._program, "image", "inspect", "--format", "{{.Id}}", image]
        found = subprocess.run(asked, capture_output=True, text=True)
        if found.returncode != 0 or not found.stdout.strip():
            raise BadInput(f"The image {image} is not here. Get it: {Path(self._program).name} pull {image}")
        return found.stdout.strip()
