"""The commands as a user meets them: help, reference, and every bad input as one readable line."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests import program
from tests.fakes.written_run import write_run

from looper.edges.models.mlx import MlxModel, nano_folder
from looper.edges.trainers.adapter_store import ADAPTER_FILES, CARD, weights_hash
from looper.errors import pip_install
from looper.records.training import AdapterRecord, Make, TrainingSettings

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))


def looper(
    *arguments: str, cwd: Path, timeout_s: float = 120, **environment: str
) -> "subprocess.CompletedProcess[str]":
    variables = {**os.environ, "LOOPER_RUNS": str(cwd / "runs"), **environment}
    return program.looper(*arguments, cwd=cwd, env=variables, timeout_s=timeout_s)


def test_a_number_out_of_range_is_said_with_what_would_be_right_as_in_a_plan(tmp_path: Path) -> None:
    for words, said in (
        ("plan exp00 --limit 0", "'--limit': must be 1 or more, found 0"),
        ("plan exp00 --limit -3", "'--limit': must be 1 or more, found -3"),
        ("plan exp00 --limit many", "'--limit': must be a whole number, found \"many\""),
        ("serve --port 99999", "'--port': must be 65535 or less, found 99999"),
        ("bench verify x --workers 0", "'--workers': must be 1 or more, found 0"),
    ):
        found = looper(*words.split(), cwd=tmp_path)
        assert found.returncode == 2 and f"Error: Invalid value for {said}\n" in found.stderr, found.stderr


def test_a_name_near_that_of_a_plan_beside_the_user_leads_to_it(tmp_path: Path, state: Path) -> None:
    (tmp_path / "recall.toml").write_text(plan_with('learning = { treatment = "memory" }'))
    for command in ("run", "plan"):
        for wrong in ("recal", "reca", "recalls"):
            asked = one_line(looper(command, wrong, cwd=tmp_path, LOOPER_HOME=str(state)))
            assert f'There is no experiment "{wrong}". Did you mean recall.toml' in asked


def test_an_adapter_that_is_not_there_names_the_folder_that_was_looked_in(tmp_path: Path) -> None:
    asked = one_line(looper("adapter", "show", "06dd", cwd=tmp_path, LOOPER_HOME=str(tmp_path / "home")))
    assert (
        f'No adapter begins with "06dd" in {tmp_path}/home/adapters. List them with: looper adapter list'
        in asked
    )


@pytest.mark.parametrize("named", [True, False])
def test_a_place_for_runs_that_cannot_be_written_names_what_set_it(
    tmp_path: Path, state: Path, named: bool
) -> None:
    (tmp_path / "runs").write_text("no folder")
    place = str(tmp_path / "runs") if named else ""
    asked = ("run", "exp00", "--profile", "demo", "--arm", "noop", "--limit", "1")
    found = looper(*asked, cwd=tmp_path, LOOPER_HOME=str(state), LOOPER_RUNS=place)
    said = found.stderr.splitlines()[-1]
    assert found.returncode == 69 and "LOOPER_HOME" not in said
    assert said.endswith(
        "name another place with LOOPER_RUNS, which names this one."
        if named
        else "or name one with LOOPER_RUNS: this one is in the working folder."
    )


def one_line(found: "subprocess.CompletedProcess[str]") -> str:
    """The error, which must be a single line without traceback."""
    lines = found.stderr.strip().splitlines()
    assert "Traceback" not in found.stderr and lines[-1].startswith("looper: ") and len(lines) == 1, (
        found.stderr
    )
    return lines[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.toml").write_text((ROOT / "experiments" / "exp00.toml").read_text())
    (tmp_path / "script.py").write_text("print()")
    return tmp_path


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_is_closed_ends_nothing(project: Path, state: Path, closed: str) -> None:
    asked = f"{sys.executable} -m looper.cli.main run exp00 --limit 1 --arm noop --fresh {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", asked],
        cwd=project,
        env={**os.environ, "LOOPER_HOME": str(state)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    (run,) = (project / "runs").iterdir()
    assert len((run / "verdicts.jsonl").read_text().splitlines()) == 1


ASCII_ALONE: list[dict[str, str]] = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("environment", ASCII_ALONE)
def test_a_stream_that_cannot_encode_a_sign_shows_another_and_ends_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    write_run(tmp_path / "runs", seen="Δ")
    shown = looper("show", "base/0/a__b-1", cwd=tmp_path, **environment)
    assert (shown.returncode, shown.stderr) == (0, "") and "? 5" in shown.stdout


@pytest.mark.parametrize("command", ["run {}/mine.toml --dry-run --arm noop --limit 1", "status"])
def test_in_a_folder_that_was_removed_a_command_works(project: Path, state: Path, command: str) -> None:
    write_run(project / "runs", judged=lambda cell: False)
    asked = f"mkdir gone && cd gone && rmdir ../gone && exec {sys.executable} -m looper.cli.main "
    done = subprocess.run(
        ["/bin/sh", "-c", asked + command.format(project / "experiments")],
        cwd=project,
        env={**os.environ, "LOOPER_HOME": str(state), "LOOPER_RUNS": str(project / "runs")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_run_has_one_name_for_every_command_and_a_reader_that_goes_away_is_met_in_silence(
    project: Path, state: Path
) -> None:
    begun = looper("run", "exp00", "--limit", "1", "--arm", "noop", cwd=project, LOOPER_HOME=str(state))
    assert begun.returncode == 0, begun.stderr
    (run,) = (project / "runs").iterdir()
    for name in (run.name, f"runs/{run.name}"):
        learned = looper("train", name, "--arm", "noop", cwd=project, LOOPER_HOME=str(state))
        assert "0 resolved tasks to learn from, of 1 attempt" in one_line(learned)
    shown = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m looper.cli.main show | true"],
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert shown.stderr == ""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """What pip writes for the entry point, in a virtual environment of the folder."""
    path = tmp_path / ".venv" / "bin" / "looper"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}\nfrom looper.__main__ import main\n\nmain()\n")
    path.chmod(0o755)
    return path


def test_every_command_that_is_named_can_be_typed_as_the_program_was_called(
    tmp_path: Path, script: Path
) -> None:
    def said(*command: str, path: str = os.environ["PATH"]) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    here, name = ".venv/bin/looper", script.name
    on_path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    # An error, a line of what was found, what a command did, help on a wrong option.
    for asked, hint in (
        ("show", "looper run exp00"),
        ("runs list", "looper run exp00"),
        ("new {}.toml", "looper plan "),
        ("run --no-such", "'looper run -h'"),
    ):
        for called, typed, path in (
            ([here], here, os.environ["PATH"]),
            ([str(script)], here, os.environ["PATH"]),
            ([name], name, on_path),
            ([sys.executable, "-m", "looper"], f"{sys.executable} -m looper", os.environ["PATH"]),
        ):
            words = asked.format(f"plan{len(called)}{len(typed)}{len(called[0])}").split()
            told = said(*called, *words, path=path)
            assert f" {hint}".replace("looper", typed) in told, (called, told)
            if typed != name:
                assert f" {hint}" not in told.replace(f"-m {name}", ""), told
    # In another folder the path is whole.
    below = tmp_path / "below"
    below.mkdir()
    elsewhere = subprocess.run([script, "show"], cwd=below, capture_output=True, text=True)
    assert f"Begin with: {script} run exp00" in elsewhere.stderr


def test_a_run_of_another_folder_goes_on_with_a_command_that_is_right_there_and_records_keep_the_plain_name(
    tmp_path: Path, script: Path, state: Path
) -> None:
    shutil.copy(ROOT / "experiments" / "exp00.toml", tmp_path / "mine.toml")
    arguments = ["run", "mine.toml", "--profile", "demo", "--limit", "1", "--arm", "noop"]
    environment = {**os.environ, "LOOPER_HOME": str(state), "LOOPER_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [".venv/bin/looper", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert '"looper run mine.toml' in (run / "sessions.jsonl").read_text()
    below = tmp_path / "below"
    below.mkdir()
    for cwd, way in (
        (tmp_path, "go on with: .venv/bin/looper run mine.toml"),
        (below, f"go on with: cd {tmp_path} && {script} run mine.toml"),
    ):
        for command in ("status", "runs"):
            asked = [script, command, *(["show"] if command == "runs" else [])]
            shown = subprocess.run(asked, cwd=cwd, env=environment, capture_output=True, text=True)
            assert way in shown.stdout, shown.stderr


def test_what_is_missing_is_installed_by_a_command_for_this_very_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extra of a name that strangers can take is nobody's to fetch by that name."""
    monkeypatch.chdir(tmp_path)
    for extra, package in (("torch", "peft"), ("ray", "ray"), ("datasets", "datasets")):
        command = shlex.split(pip_install(extra=extra))
        assert command[0] == sys.executable and "install" in command
        assert any(word.startswith(package) for word in command) and "looper" not in " ".join(command[1:])
    monkeypatch.chdir(Path(sys.executable).parent)
    assert pip_install("pyarrow").split()[0] == f"./{Path(sys.executable).name}"
    named = [
        (path.name, line)
        for path in (ROOT / "src").rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if "pip install" in line
    ]
    assert named == [], "named by errors.pip_install"


def test_the_pages_call_the_program_by_one_name_and_say_how_a_shell_finds_it() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert 'export PATH="$PWD/.venv/bin:$PATH"' in readme
    mixed = [page.name for page in (ROOT / "docs").glob("*.md") if ".venv/bin/looper" in page.read_text()]
    assert mixed == []


def test_the_reference_page_equals_the_help() -> None:
    from write_cli_reference import PAGE, reference

    assert PAGE.read_text("utf-8") == reference(), "run: python scripts/write_cli_reference.py"


def test_the_page_of_keys_equals_the_records() -> None:
    from write_plan_reference import PAGE, reference

    assert PAGE.read_text("utf-8") == reference(), "run: python scripts/write_plan_reference.py"


def test_a_new_plan_is_written_once_and_accepted_as_it_is(tmp_path: Path, state: Path) -> None:
    def answer(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return looper(*arguments, cwd=tmp_path, LOOPER_HOME=str(state))

    begun = answer("new", "mine.toml")
    assert (begun.returncode, begun.stderr) == (0, "") and "looper run mine.toml" in begun.stdout
    plan = answer("plan", "mine.toml")
    assert plan.returncode == 0 and "192 tasks, 3 arms, 4 seeds" in plan.stdout, plan.stderr
    (tmp_path / "mine.toml").write_text("mine = 1\n")
    for name, said in (
        ("mine.toml", "mine.toml exists already and is left as it is. Name another file."),
        ("mine", "mine: a plan is a TOML file. Name it mine.toml."),
        ("no/where.toml", "no/where.toml cannot be written: No such file or directory."),
    ):
        refused = answer("new", name)
        assert refused.returncode == 2 and said in one_line(refused)
    assert (tmp_path / "mine.toml").read_text() == "mine = 1\n"


OVERSEEN = """title = "Oversight"
hypothesis = "An overseer helps."
factor = "oversight"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "overseen"
role = "treatment"
learning = { treatment = "oversight" }
[profiles.demo]
like = "demo"
"""


@pytest.mark.parametrize(
    ("profile", "said"), [("", "its own model"), ('overseer = "nano:small"\n', "nano:small")]
)
def test_a_plan_says_who_oversees(tmp_path: Path, state: Path, profile: str, said: str) -> None:
    (tmp_path / "mine.toml").write_text(OVERSEEN + profile)
    told = looper("plan", "mine.toml", cwd=tmp_path, LOOPER_HOME=str(state))
    assert f"arm overseen: oversight, overseer {said}, memory lessons (" in told.stdout, told.stderr


def test_a_plan_is_laid_out_without_its_model(project: Path, state: Path) -> None:
    found = looper("plan", "exp00", "--model", "mlx:nowhere", cwd=project, LOOPER_HOME=str(state))
    assert (
        found.returncode == 0 and "memory: not estimated; The model in nowhere cannot be read" in found.stdout
    )
    assert "the smallest difference that is shown in 80 % of runs is" in found.stdout


def test_the_page_of_experiments_is_what_the_plans_and_the_learnings_say() -> None:
    from write_experiments_doc import TARGET, text

    assert TARGET.read_text("utf-8") == text(), "run: python scripts/write_experiments_doc.py"


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("LOOPER_HOME", ("bench", "list")),
        ("LOOPER_HOME", ("serve", "--port", "0")),
        ("LOOPER_WORKSPACES", ("run", "exp00", "--arm", "noop", "--limit", "1")),
        ("LOOPER_RUNS", ("run", "exp00", "--arm", "noop", "--limit", "1", "--fresh")),
    ],
)
def test_a_folder_that_cannot_be_made_is_one_line(
    project: Path, state: Path, variable: str, command: tuple[str, ...]
) -> None:
    found = looper(*command, cwd=project, **{"LOOPER_HOME": str(state), variable: "/dev/null/x"})
    assert found.returncode and "/dev/null/x" in found.stderr and "Not a directory" in one_line(found)


def test_help_and_version_import_nothing_heavy() -> None:
    program = "import sys; from looper.cli.main import app; print([n for n in ('mlx','pydantic','httpx','rich.table') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stdout


def test_the_package_runs_as_a_module_where_its_script_is_not_on_the_path(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "looper", "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (found.returncode, found.stderr) == (0, "") and found.stdout.startswith("looper ")


def test_every_command_shows_an_example() -> None:
    from write_cli_reference import commands, reference

    every = commands()
    groups = [words[:1] for words in every if len(words) == 2]
    assert reference().count("Example: looper ") == sum(
        bool(words) and words not in groups for words in every
    )


DATA_ANYWAY = {
    "looper export": "prints a run in the format that is asked for, JSON among them",
    "looper bench verify": "prints SWE-bench's report, which is JSON",
    "looper evolve events": "prints a JSON object a line",
}
"""Commands without --json, and why."""


def test_every_command_is_had_as_json_but_those_that_print_data_anyway() -> None:
    import typer

    from looper.cli.main import app

    group = typer.main.get_group(app)
    leaves = {}
    for name, command in group.commands.items():
        below = getattr(command, "commands", None)
        leaves |= (
            {f"looper {name} {each}": one for each, one in below.items()}
            if below
            else {f"looper {name}": command}
        )
    without = {
        words
        for words, command in leaves.items()
        if not command.hidden and not any("--json" in each.opts for each in command.params)
    }
    assert without == DATA_ANYWAY.keys()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "exp0"), 2, "Did you mean exp00"),
        (("run", "nothing-like-it.toml"), 2, "no experiment file"),
        (("run", "exp00", "--profile", "macro"), 2, "It has: micro, demo, swe"),
        (("run", "exp00", "--profile", "nope.toml"), 2, "no profile file"),
        (("run", "exp00", "--arm", "gould"), 2, "Did you mean gold? It has: gold, noop, base, base_again"),
        (
            ("plan", "exp00", "--profile", "mikro"),
            2,
            'no profile "mikro". Did you mean micro? It has: micro, demo',
        ),
        (("plan", "exp77"), 2, "One of your own: looper new mine.toml"),
        (("plan", ""), 2, 'There is no experiment "". There are: '),
        (("plan", "exp00", "--arm", ""), 2, 'The plan has no arm "". It has: gold, noop'),
        (("plan", "capability", "--adapter", ""), 2, 'No adapter begins with "" in '),
        (("new", ""), 2, "a plan is a TOML file. Name it mine.toml."),
        (("import", "script.py"), 2, "an output.jsonl of OpenHands, or predictions."),
        (("train", "--kind", "loraa"), 2, 'found "loraa"; did you mean lora or dora?'),
        (("plan", "."), 2, ". is a folder, and a plan is a TOML file or a name."),
        (
            ("plan", "experiments/mime.toml"),
            2,
            "Did you mean experiments/mine.toml? Write one: looper new experiments/mime.toml",
        ),
        (
            ("run", "exp00", "--model", "nanno"),
            2,
            '"nanno" names no model. Did you mean nano? There are: nano, mlx',
        ),
        (
            ("bench", "validate", "--suite", "mikro"),
            2,
            'no suite "mikro". Did you mean micro? There are: micro',
        ),
        (("bench", "validate", "--suite", "/home/me/project"), 2, "A repository of your own is no benchmark"),
        (
            ("bench", "validate", "--suite", "micro", "--repo", "me/project"),
            2,
            'micro level 0 has no repository "me/project". It has: jursutsut',
        ),
        (("bench", "validate", "--suite", "micro", "--repo", "me/project"), 2, "looper evolve --repo FOLDER"),
        (
            ("bench", "validate", "--suite", "micro", "--repo", "jursutsu"),
            2,
            "Did you mean jursutsut? It has: ",
        ),
        (
            ("bench", "validate", "--suite", "micro", "--task", "jursutsut-99"),
            2,
            "looper bench list --suite micro --repo jursutsut",
        ),
        (
            ("bench", "validate", "--suite", "micro", "--level", "1", "--task", "jursutsut-01"),
            2,
            "It is of level 0: tasks.level = 0, or --level 0.",
        ),
        (
            ("bench", "list", "--suite", "micro", "--repo", "jursutsu"),
            2,
            'no repository "jursutsu" in micro. Did you mean jursutsut?',
        ),
        (("run", "exp00", "--model", "what"), 2, "names no model"),
        (("train", "--model", "gpt4"), 2, "--model gpt4: only nano and mlx:FOLDER can be trained here."),
        (("run", "exp00", "--sandbox", "jail"), 2, 'no sandbox "jail"'),
        (("doctor", "--sandbox", "jail"), 2, 'no sandbox "jail"'),
        (("run", "exp00", "--sandbox", "bubble"), 2, "container:IMAGE, container:swe-bench, none."),
        (("run", "exp00", "--sandbox", "bubblewarp"), 2, "Did you mean bubblewrap? There are: auto, "),
        (("run", "exp00", "--engine", "spark"), 2, "--engine spark: choose local, ray"),
        (("run", "exp12", "--profile", "demo", "--engine", "spark"), 2, "--engine spark: choose local, ray"),
        (("import", "nofile=x"), 2, "There is no file or folder nofile. Name what another harness wrote"),
        (("run", "script.py"), 2, "script.py is a file and no plan: a plan is a TOML file"),
        (("run", "exp00", "--profile", "script.py"), 2, "--profile script.py: that is a file and no profile"),
        (
            ("run", "nowhere/mine.toml"),
            2,
            "There is no experiment file nowhere/mine.toml, and no folder nowhere in ",
        ),
        (("run", "exp00", "--model", "mlx:/no/such/folder"), 2, "config.json is missing"),
        (("run", "exp00", "--model", "scripted:/no/such/file"), 2, "no script"),
        (("run", "exp00", "--model", "anthropic:x"), 2, "ANTHROPIC_API_KEY is not set"),
        (("run", "exp00", "--profile", "swe"), 2, "SWE-Bench-CL is not configured"),
        (("bench", "fetch"), 2, "SWE-Bench-CL is not configured"),
        (("bench", "validate"), 2, "SWE-Bench-CL is not configured"),
        (("bench", "validate", "--suite", "mini"), 2, 'no suite "mini"'),
        (("show",), 2, "looper run exp00"),
        (("report", "exp00", "--summary"), 2, "leave names, --verify and --sign out"),
        (("report", "--summary", "--sign", "seals"), 2, "leave names, --verify and --sign out"),
        (("report", "--strict"), 2, "--strict is about what --verify could not look at"),
        (("report", "--sign", "seals", "--file", "x.md"), 2, "leave --results and --file out"),
        (("show", "--run", "nowhere"), 2, 'There is no run "nowhere"'),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    project: Path, state: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found = looper(*arguments, cwd=project, LOOPER_HOME=str(state), LOOPER_SWE_DATA="", ANTHROPIC_API_KEY="")
    assert found.returncode == code and said in one_line(found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"title = 'caf\xe9'\n", "no text in UTF-8: byte 12 is 0xe9"),
        (None, "cannot be read: Is a directory. Name a file that is there"),
    ],
    ids=["bytes", "folder"],
)
def test_a_file_that_a_person_names_and_that_is_no_text_is_one_line(
    project: Path, state: Path, content: bytes | None, said: str
) -> None:
    """Wherever a command takes one."""
    odd = project / "odd.toml"
    if content is None:
        odd.mkdir()
    else:
        odd.write_bytes(content)
    for arguments in (
        ("run", "odd.toml"),
        ("plan", "odd.toml"),
        ("run", "exp00", "--profile", "odd.toml"),
        ("run", "exp00", "--model", "scripted:odd.toml"),
    ):
        found = looper(*arguments, cwd=project, LOOPER_HOME=str(state))
        assert found.returncode == 2 and said in one_line(found), arguments


def test_the_ids_that_a_plan_can_name_are_listed_with_their_issues(tmp_path: Path, state: Path) -> None:
    found = looper(
        "bench", "list", "--suite", "micro", "--repo", "jursutsut", cwd=tmp_path, LOOPER_HOME=str(state)
    )
    lines = found.stdout.splitlines()
    assert lines[0] == "jursutsut, micro level 0" and len(lines) == 41
    assert re.fullmatch(r"  jursutsut-01  repo jursutsut issue \w+ .*", lines[1])


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (
            'tasks = ["jursutsut-01"]',
            'The task "jursutsut-01" is set aside to learn from (experience.per_repo',
        ),
        ('level = 2\ntasks = ["jursutsut-01"]', "It is of level 0: tasks.level = 0, or --level 0."),
        (
            'repos = ["holbazor"]',
            "It is number 30 of those that are made, and tasks.repositories makes 24: raise it to 30.",
        ),
        ('repos = ["me/project"]', "A repository of your own is no benchmark"),
        (
            'suite = "mikro"',
            'must be one of micro, humaneval, mbpp, swe-bench-cl, swe-bench, found "mikro"; did you mean micro?',
        ),
    ],
)
def test_tasks_that_a_plan_cannot_have_are_named_with_what_to_type(
    tmp_path: Path, state: Path, tasks: str, said: str
) -> None:
    assert looper("new", "mine.toml", cwd=tmp_path, LOOPER_HOME=str(state)).returncode == 0
    text = (tmp_path / "mine.toml").read_text().replace("repositories = 32", "repositories = 24")
    for key in ("level", "suite"):
        text = re.sub(rf"^{key} = .*$", "", text, flags=re.MULTILINE) if tasks.startswith(key) else text
    (tmp_path / "mine.toml").write_text(
        text.replace("[profiles.micro.tasks]", f"[profiles.micro.tasks]\n{tasks}")
    )
    assert said in one_line(looper("plan", "mine.toml", cwd=tmp_path, LOOPER_HOME=str(state)))


def kept_adapter(adapters: Path, name: str, *tasks: str) -> None:
    """A folder as training leaves it, with a card of these tasks."""
    folder = adapters / name
    folder.mkdir(parents=True)
    config, weights = ADAPTER_FILES
    (folder / config).write_text("{}")
    factors = {"a": np.ones((4, 8), np.float32), "b": np.ones((8, 4), np.float32)}
    save_file(
        {f"model.layers.0.self_attn.v_proj.lora_{part}": array for part, array in factors.items()},
        folder / weights,
    )
    base = MlxModel(nano_folder(), name="nano", context_tokens=9).identity()
    numbers = dict.fromkeys(
        ("train_examples", "validation_examples", "supervised_tokens", "trained_tokens", "too_long"), 1
    )
    card = AdapterRecord(
        id=name,
        base=base.model_copy(update={"context_tokens": None}),
        make=Make.TRAINED,
        settings=TrainingSettings(learning_rate=1e-3, iterations=1, batch_size=1, max_tokens=9),
        rank=8,
        start="",
        parts=(),
        examples_hash="",
        tasks=tasks,
        sources=(),
        length_histogram={},
        train_losses=(),
        validation_losses=(),
        kept_iteration=1,
        relative_change=0.1,
        seconds=1.0,
        peak_memory_bytes=1,
        weights_hash=weights_hash(folder),
        backend="",
        **numbers,
    )
    (folder / CARD).write_bytes(card.to_json())


def test_a_plan_that_asks_for_an_adapter_can_be_checked_with_one(project: Path, tmp_path: Path) -> None:
    home = {"LOOPER_HOME": str(tmp_path / "home")}
    asked = looper("plan", "capability", cwd=project, **home)
    assert asked.returncode == 2 and "name one: --adapter ID" in one_line(asked)
    kept_adapter(tmp_path / "home" / "adapters", "3f2a91c04d5e6b78", "elsewhere-01", "elsewhere-02")
    cells = looper("run", "capability", "--adapter", "3f2a", "--dry-run", cwd=project, **home).stdout
    evaluated = next(line.split("/")[2] for line in cells.splitlines() if line.startswith("base/0/"))
    kept_adapter(tmp_path / "home" / "adapters", "77aa91c04d5e6b78", evaluated)
    found = looper("plan", "capability", "--adapter", "3f2a", cwd=project, **home)
    assert found.returncode == 0, found.stderr
    assert "arm adapted: model nano with the adapter 3f2a91c04d5e6b78" in found.stdout.splitlines()
    assert (
        "adapter 3f2a91c04d5e6b78: trained on nano, from 2 tasks, none of them evaluated here" in found.stdout
    )
    for name, said in (
        ("77aa", f"the adapter 77aa91c04d5e6b78 was trained on 1 of the evaluated tasks, {evaluated}"),
        ("zzz", 'No adapter begins with "zzz"'),
    ):
        for command in (["plan"], ["run", "--dry-run"]):
            refused = looper(*command, "capability", "--adapter", name, cwd=project, **home)
            assert refused.returncode == 2 and said in one_line(refused)


def test_a_plan_is_refused_for_the_adapter_that_its_run_would_be_refused_for(
    project: Path, tmp_path: Path
) -> None:
    home = {"LOOPER_HOME": str(tmp_path / "home")}
    kept_adapter(tmp_path / "home" / "adapters", "3f2a91c04d5e6b78", "elsewhere-01")
    for command in (["plan"], ["run", "--dry-run"], ["run"]):
        asked = [*command, "capability", "--adapter", "3f2a", "--model", "nano:small"]
        refused = looper(*asked, cwd=project, **home)
        assert refused.returncode == 2
        assert "adapted: the adapter 3f2a91c04d5e6b78 was trained on nano " in one_line(refused)


def test_a_machine_is_made_ready_for_an_adapter_and_for_each_way_to_divide_the_tasks(
    project: Path, tmp_path: Path, state: Path
) -> None:
    home = {"LOOPER_HOME": str(state)}
    names = ("3f2a91c04d5e6b78", "77aa91c04d5e6b78")

    def ready(*options: str) -> list[str]:
        done = looper("node", "prepare", *options, "--limit", "2", cwd=project, timeout_s=1800, **home)
        assert done.returncode == 0, done.stderr
        return re.findall(
            r"^ready for .*: ([0-9a-f]+), the same on every machine that is$", done.stdout, re.M
        )

    for name in names:
        kept_adapter(state / "adapters", name, "elsewhere-01")
    found = [ready("capability", "--adapter", name[:4]) for name in names]
    assert [len(each) for each in found] == [1, 1] and found[0] != found[1]
    for name in names:
        shutil.rmtree(state / "adapters" / name)
    away = looper("node", "prepare", "capability", "--adapter", "3f2a", cwd=project, timeout_s=600, **home)
    assert away.returncode == 2 and 'No adapter begins with "3f2a"' in one_line(away)
    assert len({*ready("mine", "--profile", "demo", "--arm", "noop", "--split", "all")}) == 5


def test_the_page_on_own_experiments_judges_an_adapter_at_tasks_that_it_has_not_seen(tmp_path: Path) -> None:
    """What is trained on a run knows the first tasks of its repositories, and a plan without learning would take those."""
    text = (ROOT / "docs" / "own_experiment.md").read_text("utf-8")
    *_, plan = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "adapted.toml").write_text(plan)
    home = {"LOOPER_HOME": str(tmp_path / "home")}
    repositories = ("jursutsut", "niszorsut")
    seen = [f"{repository}-{number:02}" for repository in repositories for number in range(1, 16)]
    kept_adapter(tmp_path / "home" / "adapters", "3f2a91c04d5e6b78", *seen)
    asked = ("plan", "adapted.toml", "--profile", "demo", "--adapter", "3f2a")
    fits = looper(*asked, cwd=tmp_path, **home)
    assert fits.returncode == 0 and "tasks: 12 of 2 repositories to evaluate" in fits.stdout, fits.stderr
    # Without the key the refusal names it; of an adapter that knows later ones too, or where tasks are named, those that are left.
    (tmp_path / "adapted.toml").write_text(re.sub(r"^skip = .*$", "", plan, flags=re.MULTILINE))
    told = one_line(looper(*asked, cwd=tmp_path, **home))
    assert (
        "trained on 12 of the evaluated tasks, jursutsut-01, jursutsut-02, jursutsut-03 and 9 more;" in told
    )
    assert (
        "Evaluate later ones: skip = 15 in [profiles.demo.tasks] of adapted.toml leaves 25 of each repository"
        in told
    )
    assert "what it was trained on: looper adapter show 3f2a91c04d5e6b78" in told
    shared = one_line(
        looper("plan", "adapted.toml", "--profile", "micro", "--adapter", "3f2a", cwd=tmp_path, **home)
    )
    assert (
        'in [profiles.micro.tasks] (below [profiles.micro] with like = "micro", which adapted.toml lacks) leaves'
        in shared
    )
    kept_adapter(tmp_path / "home" / "adapters", "77aa91c04d5e6b78", "jursutsut-01", "jursutsut-40")
    told = one_line(looper(*asked[:-1], "77aa", cwd=tmp_path, **home))
    assert (
        'Evaluate others: tasks = ["jursutsut-02", ' in told
        and " and 38 more in [profiles.demo.tasks] of adapted.toml" in told
    )
    shown = looper("adapter", "show", "77aa", cwd=tmp_path, **home).stdout
    assert "trained on 2 tasks of jursutsut: jursutsut-01, jursutsut-40" in shown.splitlines()
    assert "looper plan PLAN --adapter 77aa91c04d5e6b78" in shown
    assert "looper adapter show ADAPTER" in looper("adapter", "list", cwd=tmp_path, **home).stdout


def test_a_run_goes_on_under_its_own_plan_which_is_found_by_the_name_of_its_run(
    tmp_path: Path, state: Path
) -> None:
    (tmp_path / "plans").mkdir()
    text = (ROOT / "docs" / "own_experiment.md").read_text("utf-8")
    (tmp_path / "plans" / "gather.toml").write_text(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    home = {"LOOPER_HOME": str(state)}
    begun = ("plans/gather.toml", "--profile", "demo", "--arm", "base", "--limit", "1")
    assert looper("run", *begun, cwd=tmp_path, **home).returncode == 0
    (run,) = (tmp_path / "runs").iterdir()
    for command in ("run", "plan"):
        asked = one_line(looper(command, "gather", cwd=tmp_path, **home))
        assert 'There is no experiment "gather". Did you mean plans/gather.toml?' in asked
    (tmp_path / "elsewhere").mkdir()
    there = looper(
        "plan", "gather", cwd=tmp_path / "elsewhere", **(home | {"LOOPER_RUNS": str(tmp_path / "runs")})
    )
    assert f"Did you mean {tmp_path}/plans/gather.toml?" in one_line(there)
    other = looper("run", "exp00", "--run", "gather", cwd=tmp_path, **home)
    assert one_line(other).startswith(
        f"looper: {run} is a run of gather demo, and exp00 micro is asked for. Go on with that run: looper run plans/gather.toml "
    )
    assert "--run gather-demo-" in other.stderr and "or begin a new one: looper run exp00" in other.stderr


def test_the_profile_that_is_not_named_is_the_only_one_of_the_file_or_micro(
    tmp_path: Path, state: Path
) -> None:
    text = (ROOT / "docs" / "own_experiment.md").read_text("utf-8")
    plan = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    bare, demo = plan[: plan.index("[profiles.micro]")], plan[plan.index("[profiles.demo]") :]

    def planned(*, profiles: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "mine.toml").write_text(bare + profiles)
        return looper("plan", "mine.toml", cwd=tmp_path, LOOPER_HOME=str(state))

    assert planned(profiles=demo).stdout.startswith("mine demo: ")
    assert planned(profiles="").stdout.startswith("mine micro: "), "the shared one"
    assert planned(profiles=plan[len(bare) :]).stdout.startswith("mine micro: "), "of two"
    several = planned(profiles=f'{demo}\n[profiles.other]\nlike = "demo"\n')
    assert "mine.toml has several profiles. Name one: --profile demo or other." in one_line(several)
    assert planned(profiles=demo).returncode == 0
    ran = looper("run", "mine.toml", "--arm", "base", "--limit", "1", cwd=tmp_path, LOOPER_HOME=str(state))
    assert ran.returncode == 0, ran.stderr
    shown = looper("runs", "show", cwd=tmp_path, LOOPER_HOME=str(state)).stdout
    assert "looper run mine.toml --profile demo --limit 1 --run mine-demo-" in shown, (
        "--arm base has no cell left"
    )


def test_a_plan_gathers_what_its_own_adapter_is_trained_on_and_then_carries_it(tmp_path: Path) -> None:
    """The arm and the contrast of the page's second plan, in its first one, whose memory sets tasks aside."""
    text = (ROOT / "docs" / "own_experiment.md").read_text("utf-8")
    first, second = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    parts = [part for part in re.split(r"\n(?=\[)", second) if "adapted" in part]
    told = first.replace('hypothesis = "', 'hypothesis = "An adapter helps at later tasks. ')
    (tmp_path / "mine.toml").write_text(told + "\n" + "\n".join(parts))
    home = {"LOOPER_HOME": str(tmp_path / "home")}
    asked = ("plan", "mine.toml", "--profile", "demo")
    others = [word for arm in ("base", "base_again", "memory", "placebo") for word in ("--arm", arm)]
    how = (
        f"To train one on what the other arms gather: looper run mine.toml --profile demo {' '.join(others)}; then looper train mine, "
        "which prints its ID; then looper run mine.toml --profile demo --adapter ID"
    )
    run = ("run", *asked[1:])
    named = (("--arm", "adapted"), (*others, "--arm", "adapted"))
    for refused in (run, (*run, "--dry-run"), *((*asked, *more) for more in named)):
        needs = one_line(looper(*refused, cwd=tmp_path, **home))
        assert "adapted: carries an adapter, so name one: --adapter ID" in needs and how in needs
    # A plan is shown all the same, without the arm that cannot be run yet, and says which that is and how it comes to be.
    for more in ((), others):
        gathers = looper(*asked, *more, cwd=tmp_path, **home)
        assert gathers.returncode == 0, gathers.stderr
        assert "where an arm of theirs is left out: adapted − base" in gathers.stdout
        assert "arm adapted" not in gathers.stdout and "60 to gather experience" in gathers.stdout
        left_out = f"left out: adapted, to carry an adapter, of which none is named. {how}"
        assert (left_out in gathers.stdout.splitlines()) == (more == ())
    assert json.loads(looper(*asked, "--json", cwd=tmp_path, **home).stdout)["without_adapter"] == ["adapted"]
    for command in (asked, run):
        unknown = one_line(looper(*command, "--arm", "foo", cwd=tmp_path, **home))
        assert unknown.endswith(
            'The plan has no arm "foo". It has: base, base_again, memory, placebo, adapted. '
            "To carry an adapter, of which none is named: adapted."
        ), unknown
    # What is wrong with the arm is said now, and not once the others have worked for its adapter.
    written = (tmp_path / "mine.toml").read_text()
    for right, wrong, said in (
        (
            "adapted = true",
            'adapted = true\nlearning = { treatment = "memory" }',
            "adapted must differ from base",
        ),
        ('shown = "The adapter helps."', 'shown = "The adapter harms."', "adapted − base"),
        ("adapted = true", 'adapted = "yes"', "arms.4.adapted"),
    ):
        (tmp_path / "wrong.toml").write_text(written.replace(right, wrong))
        refused = one_line(looper("plan", "wrong.toml", "--profile", "demo", cwd=tmp_path, **home))
        assert said in refused, refused
    # A profile that leaves the arm out may stand below the same hypothesis.
    here = f"arms = {json.dumps(others[1::2])}"
    (tmp_path / "gather.toml").write_text(
        (tmp_path / "mine.toml").read_text().replace('like = "demo"', f'like = "demo"\n{here}')
    )
    assert looper("plan", "gather.toml", "--profile", "demo", cwd=tmp_path, **home).returncode == 0
    aside = [f"{name}-{at:02}" for name in ("jursutsut", "niszorsut") for at in range(1, 16)]
    kept_adapter(tmp_path / "home" / "adapters", "3f2a91c04d5e6b78", *aside)
    carries = looper(*asked, "--adapter", "3f2a", cwd=tmp_path, **home)
    assert carries.returncode == 0, carries.stderr
    assert "from 30 tasks, none of them evaluated here" in carries.stdout
    assert "arm adapted: model nano with the adapter 3f2a91c04d5e6b78" in carries.stdout.splitlines()
    assert "left out: " not in carries.stdout
    # A profile may name it by its beginning too, and one that is not there is no reason to remove anything.
    for beginning, asks in (("3f2a", ""), ("ffff", 'No adapter begins with "ffff"')):
        (tmp_path / "named.toml").write_text(
            written.replace('like = "demo"', f'like = "demo"\nadapter = "{beginning}"')
        )
        named_so = looper("plan", "named.toml", "--profile", "demo", cwd=tmp_path, **home)
        if asks:
            assert asks in one_line(named_so) and "adapter rm" not in named_so.stderr
        else:
            assert "arm adapted: model nano with the adapter 3f2a91c04d5e6b78" in named_so.stdout.splitlines()
    # Of arms that are named nothing else is laid out: what others learn from is not gathered either.
    alone = looper(*asked, "--adapter", "3f2a", "--arm", "base", cwd=tmp_path, **home).stdout
    assert "cells: 12 (12 tasks, 1 arm, 1 seed), parallel" in alone.splitlines()
    assert "of the plan's arms base alone, without base_again, memory, placebo, adapted: " in alone
    for other in (
        "arm memory",
        "arm adapted",
        "adapter 3f2a",
        "experience, own",
        "gates: memory",
        "gates: at least",
    ):
        assert other not in alone, other
    dry = looper("run", *asked[1:], "--adapter", "3f2a", "--arm", "base", "--dry-run", cwd=tmp_path, **home)
    assert "before them" not in dry.stdout and dry.returncode == 0
    one = looper(*asked, "--adapter", "3f2a", "--arm", "memory", cwd=tmp_path, **home).stdout
    assert "cells: 12 (12 tasks, 1 arm, 1 seed) and 60 to gather experience, parallel" in one.splitlines()
    assert "\narm base" not in one and "experience, own: 30 tasks to learn from" in one


def test_an_adapter_is_exported_to_a_new_place_and_imported_from_an_export_alone(tmp_path: Path) -> None:
    kept_adapter(tmp_path / "home" / "adapters", "3f2a91c04d5e6b78", "elsewhere-01")

    def adapter(*words: str) -> "subprocess.CompletedProcess[str]":
        return looper("adapter", *words, cwd=tmp_path, LOOPER_HOME=str(tmp_path / "home"))

    exported = adapter("export", "3f2a", "new/peft")
    assert exported.returncode == 0, exported.stderr
    written = adapter("export", "3f2a", "new/dir/a.gguf", "--gguf")
    assert written.returncode == 0 and (tmp_path / "new" / "dir" / "a.gguf").is_file(), written.stderr
    (tmp_path / "file").write_text("x")
    broken = {
        "no_config": ("adapter_config.json", None, "adapter_config.json is missing"),
        "odd_config": ("adapter_config.json", b"{}", "has no peft_type"),
        "odd_weights": ("adapter_model.safetensors", b"x", "holds no adapter in PEFT's layout: "),
        "no_card": (
            "adapter.json",
            None,
            "has no card (adapter.json) that says what the adapter was trained on. ",
        ),
        "odd_card": ("adapter.json", b"{}", "it cannot be read"),
    }
    for name, (file, content, _) in broken.items():
        shutil.copytree(tmp_path / "new" / "peft", tmp_path / name)
        (tmp_path / name / file).unlink()
        if content is not None:
            (tmp_path / name / file).write_bytes(content)
    refusals = [
        (("export", "3f2a", "file"), "file is a file. Name a folder"),
        (
            ("export", "3f2a", "file/peft"),
            "file/peft cannot be written: Not a directory. Name another folder.",
        ),
        (("export", "3f2a", "file/a.gguf", "--gguf"), "file/a.gguf cannot be written: "),
        (
            ("import", "nowhere"),
            "There is no folder nowhere. Name a folder that was written by: looper adapter export",
        ),
        (("import", "file"), "file is a file. Name a folder"),
        (("import", "new/peft"), "there already"),
        *((("import", name), said) for name, (_, _, said) in broken.items()),
    ]
    for words, said in refusals:
        refused = adapter(*words)
        assert refused.returncode == 2 and said in one_line(refused), words
        assert "Errno" not in refused.stderr and "Free space" not in refused.stderr, words
    assert "lines" in json.loads(adapter("rm", "3f2a", "--json").stdout)
    imported = adapter("import", "new/peft", "--json")
    assert imported.returncode == 0, imported.stderr
    (line,) = imported.stdout.splitlines()
    assert json.loads(line)["adapter"]["tasks"] == ["elsewhere-01"]


def test_a_malformed_experiment_is_named_by_file_and_line(project: Path, state: Path) -> None:
    path = project / "experiments" / "mine.toml"
    good = path.read_text()
    path.write_text(good.replace("steps = 8", "steps = six"))
    assert "this is not valid TOML" in one_line(looper("run", "mine", cwd=project, LOOPER_HOME=str(state)))
    path.write_text(good.replace('model = "', 'model = "no\\nmodel'))
    assert r"no\nmodel" in one_line(looper("plan", "mine", cwd=project, LOOPER_HOME=str(state)))
    path.write_text(f"\ufeff{good}", "utf-8")
    marked = looper("plan", "mine", cwd=project, LOOPER_HOME=str(state))
    assert marked.returncode == 0, "a mark before the first line, as editors of Windows put it, is no fault"
    path.unlink()
    os.mkfifo(path)
    for words in (("plan", "mine"), ("plan", str(path)), ("run", "exp00", "--profile", str(path))):
        waited = looper(*words, cwd=project, timeout_s=120, LOOPER_HOME=str(state))
        assert "is a pipe or a device, and no file" in one_line(waited), words
    path.unlink()
    path.write_text(good.replace("steps = 8", "steps = 8\nstepps = 7"))
    line = path.read_text().splitlines().index("stepps = 7") + 1
    said = one_line(looper("run", "mine", cwd=project, LOOPER_HOME=str(state)))
    assert f"mine.toml:{line}:1: profiles.micro.limits.stepps: unknown key; did you mean steps" in said


def test_ollama_that_does_not_run_is_named_with_both_ways_out(project: Path, state: Path) -> None:
    found = looper(
        "run", "exp00", "--model", "ollama:m@http://127.0.0.1:9", cwd=project, LOOPER_HOME=str(state)
    )
    assert found.returncode == 69 and "ollama serve" in one_line(found) and "--profile micro" in found.stderr


def test_no_git_is_named(project: Path, state: Path, tmp_path: Path) -> None:
    """The programs are looked for in the system's own folders, so the test hides them there."""
    program = "import looper.edges.workspaces.git as g; g.program = lambda name: None; import sys; from looper.cli.main import main; sys.argv = ['looper', 'run', 'exp00']; main()"
    environment = {
        **os.environ,
        "LOOPER_HOME": str(tmp_path / "fresh"),
        "LOOPER_RUNS": str(tmp_path / "runs"),
    }
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=project, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 2 and "git is not installed" in one_line(found)


def test_no_sandbox_is_named_with_the_way_out(project: Path, tmp_path: Path) -> None:
    program = (
        "import looper.edges.sandboxes.bubblewrap as b, looper.edges.sandboxes.landlock as l\n"
        "b.program = lambda name: None\nl.landlock_abi = lambda: 0\n"
        "import sys\nfrom looper.cli.main import main\nsys.argv = ['looper', 'run', 'exp00']\nmain()"
    )
    environment = {
        **os.environ,
        "LOOPER_HOME": str(tmp_path / "fresh"),
        "LOOPER_RUNS": str(tmp_path / "runs"),
    }
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=project, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 69 and "--sandbox none" in one_line(found) and "bubblewrap" in found.stderr


def test_p10_a_disk_that_is_nearly_full_stops_before_the_attempt(project: Path, state: Path) -> None:
    program = (
        "import looper.experiment.run as r\nr.FREE_BYTES = 1 << 60\n"
        "import sys\nfrom looper.cli.main import main\nsys.argv = ['looper', 'run', 'exp00', '--arm', 'noop']\nmain()"
    )
    environment = {**os.environ, "LOOPER_HOME": str(state), "LOOPER_RUNS": str(project / "runs")}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=project, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 69 and "MiB are free" in found.stderr and "Traceback" not in found.stderr
    assert (
        not list((project / "runs").glob("*/verdicts.jsonl"))
        or not list((project / "runs").glob("*/verdicts.jsonl"))[0].read_bytes()
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        (b'{"metadata": {}}\n', "row 1: field 'task' is missing"),
        (b"{}\n{broken\n", "row 1"),
        (b"not json\n", "row 1"),
    ],
)
def test_a_broken_dataset_is_named_by_its_row(
    project: Path, state: Path, content: bytes | None, said: str
) -> None:
    path = project / "data.jsonl"
    if content is not None:
        path.write_bytes(content)
    found = looper("bench", "list", "--data", str(path), cwd=project, LOOPER_HOME=str(state))
    assert found.returncode == 2 and said in found.stderr and "Traceback" not in found.stderr


def test_a_truncated_gzip_is_bad_input(project: Path, state: Path) -> None:
    path = project / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:-20])
    found = looper("bench", "list", "--data", str(path), cwd=project, LOOPER_HOME=str(state))
    assert found.returncode == 2 and "Traceback" not in found.stderr


def test_doctor_finds_what_the_embedded_default_needs(project: Path, state: Path) -> None:
    found = looper("doctor", cwd=project, LOOPER_HOME=str(state))
    assert found.returncode == 0, found.stdout
    for what in (
        "sandbox",
        "starts in the sandbox",
        "git",
        "disk for runs",
        "mlx",
        "embedded model",
        "Ollama",
        "Python 3.6",
        "SWE-Bench-CL",
    ):
        assert what in found.stdout
    assert all("Fix: " in line for line in found.stdout.splitlines() if line.startswith("[missing"))


def test_doctor_advises_no_installation_of_what_is_there(project: Path, state: Path) -> None:
    found = looper("doctor", "--sandbox", "container:nothing", cwd=project, LOOPER_HOME=str(state))
    (line,) = (line for line in found.stdout.splitlines() if "] sandbox: " in line)
    assert "missing" in line and ".." not in line, line
    assert ("install bubblewrap" in line) == (shutil.which("bwrap") is None), line


def test_bench_list_knows_the_embedded_levels(project: Path, state: Path) -> None:
    found = looper("bench", "list", cwd=project, LOOPER_HOME=str(state), LOOPER_SWE_DATA="")
    assert found.stdout.count("320 tasks, ready") == 3 and "set LOOPER_SWE_DATA" in found.stdout


DATA = os.environ.get("LOOPER_SWE_DATA", "")
needs_data = pytest.mark.skipif(
    not DATA, reason="LOOPER_SWE_DATA does not name the JSONL file of SWE-Bench-CL"
)


@needs_data
def test_all_273_tasks_load_in_sequence_order(project: Path, state: Path) -> None:
    from looper.edges.datasets.swe_bench_cl import load_swe_bench_cl

    tasks = load_swe_bench_cl(DATA)
    assert len(tasks) == 273 and sum(task.repo == "django/django" for task in tasks) == 50
    assert sum(len(task.fail_to_pass) for task in tasks) == 869
    assert sum(len(task.pass_to_pass) for task in tasks) == 41_960 - 6, "six labels were corrected away"
    first = tasks[0]
    assert (first.instance_id, first.environment) == ("django__django-9296", "django/django@3.1")
    assert first.test_targets == ("pagination.tests",)
    for task in tasks:
        assert task.fail_to_pass and task.gold_patch and "diff --git" in task.test_patch
    found = looper("bench", "list", cwd=project, LOOPER_HOME=str(state))
    assert "swe-bench-cl: 273 tasks" in found.stdout


@needs_data
def test_a_broken_row_of_the_real_file_is_named(project: Path, state: Path) -> None:
    with gzip.open(DATA, "rt") as stream:
        rows = [json.loads(next(stream)) for _ in range(3)]
    del rows[1]["evaluation"]["FAIL_TO_PASS"]
    path = project / "broken.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = looper("bench", "list", "--data", str(path), cwd=project, LOOPER_HOME=str(state))
    assert "row 2: field 'FAIL_TO_PASS' is missing" in one_line(found)


@needs_data
def test_a_mirror_without_the_base_commit_is_named(project: Path, state: Path) -> None:
    mirror = project / "mirrors" / "django__django.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(mirror)], check=True)
    arguments = ("bench", "fetch", "--repo", "django/django", "--mirrors", str(project / "mirrors"))
    found = looper(*arguments, cwd=project, LOOPER_HOME=str(state))
    assert found.returncode == 2 and "lacks the base commit of 50 of 50 tasks" in one_line(found)


def test_sampling_of_an_arm_s_own_is_shown_and_can_be_quoted(tmp_path: Path, state: Path) -> None:
    (tmp_path / "hot.toml").write_text(
        """
title = "Sampling"
hypothesis = "Only the {cut.top_k} likeliest tokens help."
factor = "sampling"
[[arms]]
name = "base"
role = "base"
[[arms]]
name = "cut"
role = "treatment"
sampling = { top_k = 20 }
[[contrasts]]
arm = "cut"
against = "base"
shown = "Few tokens help here."
refuted = "Few tokens harm here."
open = "Whether they help is open."
[profiles.micro]
like = "demo"
"""
    )
    told = looper("plan", "hot.toml", cwd=tmp_path, LOOPER_HOME=str(state))
    assert told.returncode == 0, told.stderr
    assert "arm cut: sampling.top_k 20" in told.stdout and "sampling.top_p" not in told.stdout


def test_sampling_beside_learning_is_refused_with_what_to_do_instead(tmp_path: Path, state: Path) -> None:
    """Where it is written as the message says, the plan is accepted."""
    assert looper("new", "mine.toml", cwd=tmp_path).returncode == 0
    text = (tmp_path / "mine.toml").read_text()
    beside = text.replace("\n[arms.learning]\n", "\nsampling = { top_k = 20 }\n[arms.learning]\n", 1)
    assert beside != text and text.count("\n[profiles.micro]\n") == 1
    (tmp_path / "mine.toml").write_text(beside)
    refused = looper("plan", "mine.toml", cwd=tmp_path, LOOPER_HOME=str(state))
    said = one_line(refused)
    assert refused.returncode == 2 and "in its learning only, and has another sampling too" in said
    assert "Leave sampling out of" in said and "set it in the profile for every arm" in said
    (tmp_path / "mine.toml").write_text(
        text.replace("\n[profiles.micro]\n", "\n[profiles.micro]\nsampling = { top_k = 20 }\n")
    )
    accepted = looper("plan", "mine.toml", cwd=tmp_path, LOOPER_HOME=str(state))
    assert accepted.returncode == 0 and "sampling.top_k 20" in accepted.stdout, accepted.stderr
    page = " ".join((ROOT / "docs" / "plan.md").read_text("utf-8").split())
    assert "Not beside `learning`: set it in the profile" in page


def test_an_export_leaves_a_file_that_is_there_alone(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folder, out = write_run(runs), tmp_path / "mine.jsonl"
    out.write_text("mine")
    for kind in ("predictions", "csv", "parquet"):
        done = looper("export", str(folder), "--format", kind, "--out", str(out), cwd=tmp_path)
        assert done.returncode == 2 and "is there already" in one_line(done)
    assert out.read_text() == "mine"


def plan_with(learning: str, name: str = "memory") -> str:
    """The plan of the page on own experiments, with another arm in the place of its memory."""
    text = (ROOT / "docs" / "own_experiment.md").read_text("utf-8")
    plan = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    return plan.replace('name = "memory"', f'name = "{name}"').replace(
        'learning = { treatment = "memory" }', learning
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            plan_with('learning = { treatment = "memory" }', "Adapted-1"),
            'mine.toml:16:1: arms.2.name: must be small letters, digits and underscores, a letter first, found "Adapted-1"; write '
            "adapted_1 (arms.2 is Adapted-1)",
        ),
        (
            plan_with('learning = { treatment = "adapter", rank = 4 }'),
            "arms.2.learning.rank: unknown key; write training = { rank = … }. Allowed here: ",
        ),
        (plan_with('learning = { treatment = "memory", sourc = "own" }'), "did you mean source"),
        (plan_with('learning = { treatment = "memory", sourc = "own" }'), " (arms.2 is memory)"),
    ],
)
def test_a_mistake_in_an_arm_is_named_with_its_place_its_arm_and_what_would_be_right(
    tmp_path: Path, state: Path, text: str, said: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    told = one_line(looper("plan", "mine.toml", cwd=tmp_path, LOOPER_HOME=str(state)))
    assert said in told and "^[a-z]" not in told


def test_a_plan_and_a_profile_in_each_others_place_are_called_what_they_are(
    tmp_path: Path, state: Path
) -> None:
    (tmp_path / "mine.toml").write_text(plan_with('learning = { treatment = "memory" }'))
    (tmp_path / "small.toml").write_text('like = "demo"\n')
    (tmp_path / "looper.toml").write_text('[evolve]\nsandbox = "auto"\n')

    def refused(*words: str) -> str:
        done = looper(*words, cwd=tmp_path, LOOPER_HOME=str(state))
        assert done.returncode == 2
        return one_line(done)

    for command in ("run", "plan"):
        assert refused(command, "exp00", "--profile", "mine.toml") == (
            "looper: mine.toml is a plan, and --profile takes a profile. Run the plan: looper run mine.toml"
        )
        assert "small.toml is a profile, and a plan is asked for." in refused(command, "small.toml")
    # What is near a name and no plan is not what was meant.
    assert "looper.toml" not in refused("plan", "nine.toml").replace("looper new", "")
    assert "Did you mean mine.toml?" in refused("plan", "nine.toml")


def test_a_plan_says_what_a_memory_has_to_be_told_and_no_end_that_does_not_come(
    tmp_path: Path, state: Path
) -> None:
    (tmp_path / "mine.toml").write_text(plan_with('learning = { treatment = "memory" }'))
    told = looper("plan", "mine.toml", "--profile", "demo", cwd=tmp_path, LOOPER_HOME=str(state)).stdout
    (gate,) = [line for line in told.splitlines() if line.startswith("gates: memory has to be told")]
    assert "something at 6 of 12 tasks, or the run stops before it; it can be at " in gate


def test_a_dry_run_counts_the_arms_and_cells_that_would_run(project: Path, state: Path) -> None:
    asked = ("run", "exp00", "--profile", "demo", "--limit", "4", "--arm", "noop", "--dry-run")
    done = looper(*asked, cwd=project, LOOPER_HOME=str(state))
    first, *_ = done.stdout.splitlines()
    cells = [line for line in done.stdout.splitlines() if line.startswith("noop/")]
    assert first == "exp00 demo: 4 tasks × 1 arm × 1 seed, 4 cells" and len(cells) == 4, done.stderr


def test_a_cause_comes_with_its_own_cure(tmp_path: Path, state: Path) -> None:
    write_run(tmp_path / "runs")
    nowhere = looper("export", "--format", "csv", "--out", "no/such/x.csv", cwd=tmp_path)
    assert nowhere.returncode == 2 and one_line(nowhere) == (
        "looper: no/such/x.csv cannot be written: No such file or directory. Name a file in a folder that is there and can be written to."
    )
    home = tmp_path / "home"
    unmade = looper("run", "exp00", "--model", "mlx:smollm2", cwd=tmp_path, LOOPER_HOME=str(home))
    assert unmade.returncode == 2 and "looper model add smollm2" in one_line(unmade)
    kept_adapter(home / "adapters", "3f2a91c04d5e6b78", "elsewhere-01")
    (home / "adapters" / "3f2a91c04d5e6b78" / ADAPTER_FILES[1]).write_bytes(b"other")
    damaged = looper("adapter", "show", "3f2a", cwd=tmp_path, LOOPER_HOME=str(home))
    way = "looper adapter rm 3f2a91c04d5e6b78 --force"
    assert "are not the ones on its card" in one_line(damaged) and f"Remove it: {way}; then" in damaged.stderr
    assert looper(*way.split()[1:], cwd=tmp_path, LOOPER_HOME=str(home)).returncode == 0


@pytest.mark.parametrize("name", ["two words.toml", "-x.toml", "it's.toml"])
def test_the_commands_that_a_new_plan_names_can_be_typed_as_they_stand(
    tmp_path: Path, state: Path, name: str
) -> None:
    told = looper("new", "--", name, cwd=tmp_path, LOOPER_HOME=str(state)).stdout
    found = re.search(r"What it would take: (.*)\. Run it: ", told)
    assert found is not None, told
    _, *words = shlex.split(found[1])
    asked = looper(*words, cwd=tmp_path, LOOPER_HOME=str(state))
    assert asked.returncode == 0 and "smallest effect of interest" in asked.stdout, asked.stderr


@pytest.mark.parametrize("asked", ["base", "base/0"])
def test_an_arm_in_place_of_a_cell_is_answered_with_the_command_for_its_cells(
    tmp_path: Path, asked: str
) -> None:
    run = write_run(tmp_path / "runs")
    said = one_line(looper("show", asked, "--run", str(run), cwd=tmp_path, LOOPER_HOME=str(tmp_path)))
    assert f"looper show --arm base --run {run.name}" in said
