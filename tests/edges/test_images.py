"""Container images of SWE-bench as environments, against a scripted docker that runs commands on this machine."""

import json
import sys
from pathlib import Path

import pytest

from looper.edges.environments.images import PYTHON, ImageEnvironments, image_of
from looper.edges.sandboxes import container
from looper.edges.sandboxes.container import Container
from looper.edges.sandboxes.shell import LocalShell
from looper.errors import BadInput, EnvironmentBroken
from looper.protocols import Command
from looper.records.task import Task

DOCKER = f"""#!{sys.executable}
import json, os, subprocess, sys
from pathlib import Path
here, words = Path(__file__).parent, sys.argv[1:]
with (here / "log").open("a") as log:
    log.write(json.dumps(words) + "\\n")
if words[:2] == ["image", "inspect"]:
    there = (here / "pulled").read_text().split()
    print("sha256:" + "ab" * 32) if words[-1] in there else sys.exit("No such image")
elif words[0] == "run":
    flags = ["--rm", "--read-only", "--init"]
    at, given = 1, {{}}
    while words[at].startswith("--"):
        if words[at] == "--env":
            name, _, value = words[at + 1].partition("=")
            given[name] = value
        at += 1 if words[at] in flags else 2
    argv = words[at + 1:]
    argv = [{{"{PYTHON}": sys.executable}}.get(word, word) for word in argv]
    sys.exit(subprocess.run(argv, env=given).returncode)
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the scripted program, with a list of images that were pulled."""
    place = tmp_path / "docker"
    place.mkdir()
    (place / "docker").write_text(DOCKER)
    (place / "docker").chmod(0o755)
    (place / "pulled").write_text("")

    def found(name: str) -> str | None:
        return str(place / name) if name == "docker" else None

    monkeypatch.setattr(container, "program", found)
    monkeypatch.setattr("looper.edges.environments.images.program", found)
    return place


@pytest.fixture
def real(task: Task) -> Task:
    return task.model_copy(
        update={
            "instance_id": "pytest-dev__pytest-10081",
            "repo": "pytest-dev/pytest",
            "environment": "pytest-dev/pytest@7.2",
        }
    )


def test_an_image_is_named_as_swe_bench_names_it(real: Task) -> None:
    assert image_of(real) == "swebench/sweb.eval.x86_64.pytest-dev_1776_pytest-10081:latest"


def test_an_image_that_was_not_pulled_is_named_with_how_to_get_it(
    docker: Path, real: Task, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=f"is not here. Get it: docker pull {image_of(real)}"):
        ImageEnvironments(tmp_path).of(real)


def test_without_docker_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looper.edges.environments.images.program", lambda name: None)
    with pytest.raises(EnvironmentBroken, match="need docker or podman"):
        ImageEnvironments(tmp_path)


def test_commands_run_in_the_image_of_their_task_with_the_tree_before_the_installation(
    docker: Path, real: Task, tmp_path: Path
) -> None:
    (docker / "pulled").write_text(image_of(real))
    environment = ImageEnvironments(tmp_path).of(real)
    root = tmp_path / "tree"
    (root / "src").mkdir(parents=True)
    (root / "src" / "ship.py").write_text("where = __file__\n")
    sandbox = Container("swe-bench")
    shell = LocalShell(root, sandbox, environment)
    asked = "import ship, sitecustomize; print(ship.where, sitecustomize.__file__)"
    said = shell.exec(("-B", "-c", asked), 20).text().split()
    (site,) = environment.readable
    assert said == [str(root / "src" / "ship.py"), str(site / "sitecustomize.py")]
    assert "/testbed/src" in (site / "sitecustomize.py").read_text()
    words = json.loads((docker / "log").read_text().splitlines()[-1])
    assert image_of(real) in words and words[words.index("--network") + 1] == "none"
    assert f"{site}:{site}:ro" in words and f"{root}:{root}" in words
    plain = sandbox.run(Command(argv=("/bin/echo", "plain"), root=root, timeout_s=20))
    assert plain.text() == "plain\n"
    assert container.PLAIN_IMAGE in json.loads((docker / "log").read_text().splitlines()[-1])


def test_two_images_are_two_environments(docker: Path, real: Task, tmp_path: Path) -> None:
    """An image that was pulled anew has another content, so nothing that was judged in the old one is taken over."""
    (docker / "pulled").write_text(image_of(real))
    before = ImageEnvironments(tmp_path).of(real).id
    (docker / "docker").write_text(DOCKER.replace('"ab" * 32', '"cd" * 32'))
    assert ImageEnvironments(tmp_path).of(real).id != before
