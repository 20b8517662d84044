"""What belongs to each suite, model backend and kind of memory: what is missing is named, with the place where it belongs.

`docs/architecture.md`, "To add", has each list in the order in which it is worked through.
"""

import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest

from looper.cli.wiring import role_model
from looper.edges.models import inventory
from looper.edges.models.samplers import NAMES
from looper.errors import BadInput
from looper.experiment.plans import NAMED_BACKENDS
from looper.protocols import ChatModel
from looper.records.memory import MEMORY_KINDS, MemoryKind
from looper.records.model import BACKENDS, SERVERS, Backend, ModelSpec
from looper.records.plan import PLAIN_SUITES, REAL_SUITES, SUITES, Sampling
from tests.contracts.test_models import ASKED, CASES
from tests.edges.test_model_servers import IDENTITIES, WINDOWS, Client
from tests.fakes.backends import BACKEND_OF, NOT_STARTED
from tests.fakes.backends import SERVERS as STARTED
from tests.fakes.scripted_http import Answer, ScriptedServer, whole

ROOT = Path(__file__).parents[1]
KEPT_FROM_DOCTOR = {"anthropic": "lists no models without a key, and doctor sends none"}
"""Servers whose models `looper doctor` does not look for, with the reason."""


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def must_have(place: str, there: Iterable[str], wanted: Iterable[str]) -> None:
    have = set(there)
    missing = [name for name in wanted if name not in have]
    assert not missing, f"{place} has nothing for {', '.join(missing)}"


def test_every_suite_is_of_one_kind_and_named_wherever_a_reader_looks_for_it() -> None:
    assert sorted((*PLAIN_SUITES, *REAL_SUITES)) == sorted(SUITES)
    suite_help = re.findall(r"--suite <str> ((?:.+\n)(?: {27}.+\n)*)", text("docs/cli.md"))
    longest = max(suite_help, key=len)
    must_have(
        "docs/cli.md, bench verify --suite (python scripts/write_cli_reference.py),",
        re.findall(r"[\w-]+", longest),
        SUITES,
    )
    (entry,) = re.findall(r"^\| suite \|.*", text("docs/glossary.md"), re.MULTILINE)
    must_have('docs/glossary.md, "suite",', re.findall(r"`([\w-]+)`", entry), SUITES)
    of_task = text("src/looper/records/task.py").partition('suite: str\n    """')[2].partition('"""')[0]
    named = {name.removesuffix("-0") for name in re.findall(r"`([\w-]+)`", of_task)}
    must_have("the docstring of records.task.Task.suite", named, SUITES)


def test_every_backend_has_its_traits_and_is_named_where_models_are_written() -> None:
    must_have("records.model.BACKENDS", BACKENDS, get_args(Backend))
    (entry,) = re.findall(r"^\| `model` \| text \| – \| required \|.*", text("docs/plan.md"), re.MULTILINE)
    named = re.findall(r"`(\w+)", entry)
    must_have("experiment.plans._ProfileText.model (docs/plan.md)", named, set(BACKENDS) - {"predictions"})
    told = re.findall(r"--model <str> +(In place of .+\n(?: +[^\s-].*\n)*)", text("docs/cli.md"))
    for entry in told:
        must_have(
            "cli.options.Model (python scripts/write_cli_reference.py)",
            re.findall(r"\w+", entry),
            NAMED_BACKENDS,
        )
    assert told
    table = (
        text("docs/architecture.md").partition("| backend | identity is made of |")[2].partition("\n\n")[0]
    )
    rows = {name for row in re.findall(r"^ *\| ([^|]+) \|", table, re.MULTILINE) for name in row.split(", ")}
    asked = [name for name, traits in BACKENDS.items() if traits.reads]
    must_have('docs/architecture.md, "Which model answered",', rows, asked)
    windows = re.findall(r"before the first prompt every\n.+\n.+", text("docs/architecture.md"))
    must_have(
        'docs/architecture.md, below "Which model answered", where a window comes from,',
        re.findall(r"[a-z]+", "".join(windows).lower()),
        WINDOWS,
    )
    # Nano is embedded, and needs no choice.
    real = [name for name in asked if not BACKENDS[name].is_small]
    (of_readme,) = re.findall(r"^\| use a real model: .*", text("README.md"), re.MULTILINE)
    must_have('README.md, "use a real model",', re.findall(r"[a-z]+", of_readme.lower()), real)


def test_every_backend_whose_models_are_files_is_among_what_nodes_are_not_sent() -> None:
    not_sent = re.findall(r"Environments are not sent:.*\n.*", text("docs/scale.md"))
    must_have(
        'docs/scale.md, "Environments are not sent",',
        re.findall(r"`(\w+):FILE`", "".join(not_sent)),
        [name for name, traits in BACKENDS.items() if traits.named == "file"],
    )


def test_every_server_is_tried_with_each_fault_and_told_how_to_draw_a_token() -> None:
    must_have("tests/edges/test_model_servers.py, IDENTITIES,", IDENTITIES, SERVERS)
    for name in SERVERS:
        Client(name).make("http://127.0.0.1:9")
    # Servers of OpenAI's interface say themselves which one they are.
    must_have("edges.models.samplers.NAMES", NAMES, set(SERVERS) - {"openai"})
    for name in set(SERVERS) - {"openai"}:
        told = BACKENDS[name].sampling
        assert {*NAMES[name]} == {*(Sampling.model_fields if told is None else told)}, (
            f"records.model.BACKENDS: `sampling` of {name} is not what edges.models.samplers.NAMES has"
        )


def test_every_server_keeps_to_the_contract_of_servers_and_every_other_model_to_that_of_models() -> None:
    must_have(
        "tests/fakes/backends.py, BACKEND_OF (or NOT_STARTED),",
        {*BACKEND_OF.values(), *NOT_STARTED},
        SERVERS,
    )
    must_have("tests/fakes/backends.py, SERVERS,", STARTED, BACKEND_OF)
    (heads,) = re.findall(r"^ *\| row \|.*", text("docs/architecture.md"), re.MULTILINE)
    columns = {name for name in BACKEND_OF for head in heads.split("|") if head.strip().startswith(name)}
    must_have('docs/architecture.md, "What a server keeps to",', columns, BACKEND_OF)
    must_have("tests/contracts/test_models.py, CASES,", CASES, ASKED)


@pytest.mark.parametrize("name", [name for name in SERVERS if name not in KEPT_FROM_DOCTOR])
def test_doctor_names_the_models_of_every_server_as_a_run_takes_them(name: Backend) -> None:
    said = {path.removeprefix("/v1"): answer for path, answer in IDENTITIES[name]("d1").items()}

    def answer(request: bytes) -> Answer:
        found = said.get(request.split()[1].decode().removeprefix("/v1"))
        return whole(404, b"{}") if found is None else whole(200, json.dumps(found).encode())

    with ScriptedServer(answer) as server:
        found = [each for each in inventory.model_servers([server.url], 4096) if server.url in each.what]
    names = [model.name for each in found for model in each.models]
    assert len(names) == 1 and names[0].startswith(f"{name}:m"), (
        f"edges.models.inventory knows nothing of a server of {name}: {names or [each.fault for each in found]}"
    )


def test_every_server_that_doctor_looks_for_is_named_to_its_readers() -> None:
    called = {*inventory.CALLED.values(), *", ".join(inventory.USUAL.values()).split(", ")}
    of_doctor = text("docs/cli.md").partition("\n## looper doctor\n")[2].partition("\n## ")[0]
    (of_tour,) = re.findall(r"^`looper doctor` finds .*", text("docs/tour.md"), re.MULTILINE)
    for place, said in (
        ("the help of looper doctor (cli/main; python scripts/write_cli_reference.py)", of_doctor),
        ("docs/tour.md, `looper doctor`,", of_tour),
    ):
        words = " ".join(said.split())
        must_have(place, [name for name in called if name in words], called)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_has_roles_of_evolve_or_is_refused_with_those_that_have(
    name: Backend, tmp_path: Path
) -> None:
    (tmp_path / "script.txt").write_text("said")
    called = str(tmp_path / "script.txt") if BACKENDS[name].named == "file" else "x"

    def made() -> ChatModel:
        return role_model(ModelSpec(backend=name, name=called), "key", 1000, 1.0, lambda why, seconds: None)

    if BACKENDS[name].has_roles:
        made()
        return
    with pytest.raises(BadInput, match=f"^{name} writes no programs") as refused:
        made()
    must_have(str(refused.value), re.findall(r"(\w+):NAME", str(refused.value)), SERVERS)


def test_the_forms_of_a_model_are_listed_once() -> None:
    """Where a plan's key has them; docs/plan.md repeats that, and is held against it."""
    lists = [
        path.name
        for path in (ROOT / "src" / "looper").rglob("*.py")
        if "`ollama:NAME`, `openai:NAME@URL`" in path.read_text("utf-8")
    ]
    assert lists == ["plans.py"] and text("src/looper/experiment/plans.py").count("`openai:NAME@URL`") == 1


def learning() -> list[dict[str, Any]]:
    """Of every arm of every plan that learns."""
    plans = [tomllib.loads(path.read_text("utf-8")) for path in (ROOT / "experiments").glob("*.toml")]
    return [arm["learning"] for plan in plans for arm in plan["arms"] if "learning" in arm]


@pytest.mark.parametrize("kind", MemoryKind)
def test_every_kind_of_memory_has_its_traits_an_arm_and_a_line_for_its_readers(kind: MemoryKind) -> None:
    must_have("records.memory.MEMORY_KINDS", MEMORY_KINDS, [kind])
    memories = [found["memory"] for found in learning() if "memory" in found]
    told = {memory.get("kind", MemoryKind.LESSONS.value) for memory in memories}
    must_have("experiments/ (an arm in ways.toml)", told, [kind.value])
    listed = re.findall(r'^\| `kind = "(\w+)"` \|', text("docs/learning.md"), re.MULTILINE)
    must_have('docs/learning.md, "In the prompt",', listed, [kind.value])
    must_have(
        "docs/plan.md (python scripts/write_plan_reference.py)",
        re.findall(r"`(\w+)`:", text("docs/plan.md")),
        [kind.value],
    )
