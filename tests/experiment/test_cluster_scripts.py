"""What `looper cluster` writes, run by the real SLURM and the real SSH on hosts that are namespaces of this machine."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.experiment import hosts as network
from tests.experiment.hosts import Host, Hosts
from tests.experiment.test_run import Project
from tests.fakes.backends import llama_cpp_with
from tests.fakes.gguf_file import nano as write_nano

from looper.journal import read_stream
from looper.records.trajectory import Step

SLOW = (
    "<bash>echo one > note.txt; sleep 3</bash>\n---\n<bash>cat note.txt</bash>\n---\n<done>that is all</done>"
)


def _given(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Project:
    """In a folder whose name a shell would take apart."""
    folder = tmp_path / 'it\'s $HOME; `a` "plan"'
    folder.mkdir()
    found = Project(folder, state)
    plan = folder / "experiments" / "test.toml"
    plan.write_text(plan.read_text().replace("scripted:script.txt", f"scripted:{tmp_path / 'script.txt'}"))
    (tmp_path / "script.txt").write_text(SLOW)
    # What a node needs is in its interpreter, where a checkout is not installed.
    python = tmp_path / "python"
    words = {
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        "LOOPER_HOME": str(state),
        "RAY_worker_niceness": "0",
    }
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in words.items())
    python.write_text(f'#!/bin/sh\nexec env -u LOOPER_RUNS {given} {sys.executable} "$@"\n')
    python.chmod(0o755)
    return found


ODD = 'my "own" $(touch hit) plan.toml'


def _odd(project: Project) -> str:
    (project.folder / "experiments" / "test.toml").rename(project.folder / ODD)
    return ODD


@pytest.mark.parametrize("way", [("slurm",), ("hosts", "a", "ada@b")])
def test_a_script_is_read_by_a_shell_as_it_was_meant_whatever_things_are_called(
    project: Project, way: tuple[str, ...]
) -> None:
    script = _given(
        project.looper("cluster", way[0], _odd(project), *way[1:], "--run-options", "--arm noop --arm 'a b'")
    )
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    if shutil.which("shellcheck"):
        # SC2016 is the doubt whether a dollar in single quotes was meant.
        checked = subprocess.run(
            ["shellcheck", "-e", "SC2016", "-"], input=script, text=True, capture_output=True
        )
        assert not checked.stdout, checked.stdout
    run = next(line for line in script.splitlines() if "-m looper run" in line)
    words = subprocess.run(
        ["bash", "-c", f"head=1.2.3.4:5 python=p; cd {_folder(script)}; printf '%s\\n' {run.strip().rstrip('&')}; pwd"],
        text=True, capture_output=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert words[:8] == ["p", "-m", "looper", "run", "--arm", "noop", "--arm", "a b"]
    assert words[-5:] == ["--engine", "ray:1.2.3.4:5", "--", ODD, str(project.folder)]
    assert not list(project.folder.glob("**/hit"))


def _folder(script: str) -> str:
    return next(line for line in script.splitlines() if line.startswith("cd -- ")).split(" || ")[0][6:]


def test_what_slurm_is_asked_for_follows_from_the_plan_and_the_options(project: Project) -> None:
    plan = project.folder / "experiments" / "test.toml"
    plan.write_text(plan.read_text().replace("steps = 8", "steps = 8\nmemory_mb = 1000"))
    asked = ("--nodes", "3", "--cpus-per-task", "4", "--cells", "10", "--time", "1-12")
    script = _given(project.looper("cluster", "slurm", "test", *asked))
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script, re.M))
    assert found["nodes"] == "3" and found["cpus-per-task"] == "4" and found["time"] == "1-12"
    assert found["mem"] == "14096M" and found["job-name"] == "looper-test"
    assert "--workers 30 --engine" in script
    told = json.loads(_given(project.looper("cluster", "slurm", "test", *asked, "--json")))
    assert told == {"script": script}
    fewer = _given(project.looper("cluster", "slurm", "test", *asked, "--run-options", "--workers 2"))
    assert "--workers 2 --engine" in fewer and "--workers 30" not in fewer


def test_a_script_that_waits_for_its_nodes_ends_when_it_is_signalled(
    project: Project, tmp_path: Path
) -> None:
    """The host's shell reads what it is sent, and no node comes of it."""
    script, place = project.folder / "run.sh", tmp_path / "places"
    place.mkdir()
    asked = ("--address", "127.0.0.1", "--ssh", "sh -c 'cat >/dev/null'", "-o", str(script))
    python = ("--python", str(tmp_path / "python"))
    _given(project.looper("cluster", "hosts", "test", "a", *python, *asked))
    with subprocess.Popen(
        ["bash", script], env={**os.environ, "TMPDIR": str(place)}, stderr=subprocess.PIPE, text=True
    ) as process:
        _until(lambda: list(place.glob("looper.*/wait.py")))
        time.sleep(2)
        begun = time.monotonic()
        process.terminate()
        _, err = process.communicate(timeout=400)
    assert process.returncode == 143 and time.monotonic() - begun < 90, err
    _until(lambda: not list(place.iterdir()))


@pytest.mark.parametrize("end", ["with the script", "by itself"])
def test_a_model_server_beside_every_node_ends_with_the_script_and_is_missed_where_it_ends_before(
    project: Project, tmp_path: Path, end: str
) -> None:
    """The host's shell is one of this machine, whose Ray does not start."""
    script, place, seen = project.folder / "run.sh", tmp_path / "places", tmp_path / "se en"
    place.mkdir()
    serve = f"env >{shlex.quote(str(seen))}; echo 'no such model' >&2; "
    # One in the background, with nothing in its environment and a session of its own, as containers and daemons are.
    apart = tmp_path / "apart"
    leaves = f"env -i setsid sh -c 'echo $$ >{shlex.quote(str(apart))}; exec sleep 1000' & sleep 1"
    serve += leaves if end == "with the script" else "exit 3"
    asked = ("--address", "127.0.0.1", "--ssh", "sh -c 'exec bash -s'", "--serve", serve, "-o", str(script))
    no_ray = tmp_path / "no_ray"
    no_ray.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\nexec sleep 1000\n')
    no_ray.chmod(0o755)
    _given(project.looper("cluster", "hosts", "test", "a", "--python", str(no_ray), *asked))
    begun = {**os.environ, "TMPDIR": str(place), "LOOPER_SERVER_WAIT_S": "7"}
    with subprocess.Popen(["bash", script], env=begun, stderr=subprocess.PIPE, text=True) as process:
        _until(lambda: seen.exists() and "LOOPER_NODE=" in seen.read_text())
        variables = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
        assert Path(variables["LOOPER_NODE"]).parent == place and variables["LOOPER_SERVER_WAIT_S"] == "7"
        assert not [name for name in variables if name.startswith("RAY_AUTH")], (
            "it has no business with the token"
        )
        time.sleep(3)
        process.terminate()
        _, err = process.communicate(timeout=100)
    assert process.returncode == 143, err
    missed = "looper: the model server on " in err and " ended: no such model" in err
    assert missed is (end == "by itself"), err
    if end == "with the script":
        _until(lambda: not Path(f"/proc/{apart.read_text().strip()}").exists())
    mark = f"LOOPER_NODE={variables['LOOPER_NODE']}".encode()
    _until(lambda: not [each for each in Path("/proc").glob("[0-9]*") if _has(each, mark)])
    _until(lambda: not list(place.iterdir()))


def _has(process: Path, mark: bytes) -> bool:
    with contextlib.suppress(OSError):
        return mark in (process / "environ").read_bytes()
    return False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["slurm", "nowhere"], 'There is no experiment "nowhere"'),
        (["slurm", "test", "--time", "soon"], "--time soon: write it as SLURM does"),
        (["slurm", "test", "--run-options", "--engine ray"], "leave --engine out: the script says where cells run"),
        (["slurm", "test", "--run-options", "--fresh"], "leave --fresh out"),
        (["slurm", "capability", "--run-options", "--adapter 0f"], 'No adapter begins with "0f"'),
        (["slurm", "test", "--run-options", "--limt 3"], "--run-options: No such option: --limt"),
        (["slurm", "test", "--run-options", "'"], "--run-options: No closing quotation"),
        (["hosts", "test", "a", "a"], "a is named twice"),
        (["hosts", "test", "a b"], '"a b" is no host'),
        (["hosts", "test", "--", "-oProxyCommand=x"], '"-oProxyCommand=x" is no host'),
        (["slurm", "test", "-o", "no/such/file"], "no/such/file cannot be written: No such file or directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line(
    project: Project, words: list[str], said: str | None
) -> None:
    done = project.looper("cluster", *words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


on_hosts = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Hosts]:
    if why := network.missing():
        pytest.skip(why)
    with contextlib.closing(Hosts(tmp_path, "one", "two", "three")) as found:
        yield found


SLURM = """
ClusterName=c
SlurmctldHost=one({first})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MailProg=/bin/true
{nodes}
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE
"""


class Slurm:
    """SLURM on hosts: the first keeps the queue, and every one is a node."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o755)
        self._hosts, self._running = hosts, list[subprocess.Popen[str]]()
        (folder / "state").mkdir()
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        nodes = [f"NodeName={host.name} NodeAddr={host.address} CPUs=2 RealMemory=64000" for host in hosts]
        settings = SLURM.format(first=hosts[0].address, folder=folder, nodes="\n".join(nodes))
        (folder / "slurm.conf").write_text(settings)
        (folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\n"
        )  # Named, none is looked for; none is used.
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        files = [
            f"--{name}={folder}/munge{end}"
            for name, end in (
                ("socket", ""),
                ("log-file", ".log"),
                ("pid-file", ".pid"),
                ("seed-file", ".seed"),
            )
        ]
        self._begin(hosts[0], "munged", "--foreground", "--force", f"--key-file={key}", *files)
        _until(lambda: (folder / "munge").exists())
        self._begin(hosts[0], "slurmctld", "-D")
        for host in hosts:
            (folder / f"spool.{host.name}").mkdir()
            self._begin(host, "slurmd", "-D")
        _until(lambda: self.ask("sinfo", "-h", "-o", "%D %t") == f"{len(nodes)} idle", 60)

    def _begin(self, host: Host, *words: str) -> None:
        quiet = subprocess.DEVNULL
        self._running.append(host.run(*words, env=self.environment, stdout=quiet, stderr=quiet))

    def ask(self, *words: str, cwd: Path | None = None) -> str:
        process = self._hosts[0].run(
            *words, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd
        )
        return str(process.communicate(timeout=60)[0]).strip()

    def close(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            process.wait(timeout=60)


def _until(true: Callable[[], object], within_s: float = 400) -> None:
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def _steps(project: Project) -> list[Step]:
    runs = project.folder / "runs"
    return list(read_stream(project.run, "steps", Step)) if runs.exists() and any(runs.iterdir()) else []


def _complete(project: Project) -> None:
    cells = [verdict.cell for verdict in project.verdicts() if verdict.outcome.is_verdict]
    assert len(cells) == len(set(cells)) == 12
    seen = [(step.cell, step.attempt, step.index) for step in _steps(project)]
    assert len(seen) == len(set(seen)), "no step is recorded twice"


def _ours(hosts: Hosts) -> list[str]:
    """Processes that are none of the hosts' own services."""
    services = (
        "munged",
        "slurm",
        ": slurm",
        "sshd",
        "sleep infinity",
        "/usr/sbin/sshd",
        "bash -c \nhostname",
    )
    return [line for host in hosts for line in host.processes() if not line.startswith(services)]


@pytest.mark.proof
@on_hosts
def test_slurm_runs_the_plan_on_its_nodes_ends_it_in_order_and_goes_on_when_asked_again(
    project: Project, three: Hosts, tmp_path: Path
) -> None:
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        pytest.skip("SLURM is not installed: apt-get install slurm-wlm munge")
    plan, job = _odd(project), project.folder / "job.sh"
    asked = ("--nodes", "3", "--cpus-per-task", "2", "--time", "30", "--python", str(tmp_path / "python"))
    _given(project.looper("cluster", "slurm", plan, *asked, "-o", str(job)))
    with contextlib.closing(Slurm(three, tmp_path / "slurm")) as slurm:

        def submitted() -> str:
            return slurm.ask("sbatch", "--parsable", str(job), cwd=project.folder)

        first, second = submitted(), submitted()
        _until(lambda: len(_steps(project)) >= 7)
        said = next(project.folder.glob(f"*-{first}.out"))
        token = _token_of(three)
        slurm.ask("scancel", "--batch", "--signal=TERM", first)
        _until(lambda: not slurm.ask("squeue", "-h", "-j", first))
        assert "Interrupted. Finished cells and every recorded step are kept." in said.read_text()
        assert len([found for found in project.verdicts() if found.outcome.is_verdict]) < 12
        # The other waited for it, and goes on with the same run.
        _until(lambda: not slurm.ask("squeue", "-h", "-j", second))
        again = next(project.folder.glob(f"*-{second}.out")).read_text()
        assert "ExitCode=0:0" in slurm.ask("scontrol", "show", "job", second), again
        _complete(project)
        assert len(list((project.folder / "runs").iterdir())) == 1 and "3 of" not in again
        assert not _ours(three)
        kept = [said.read_text(), again, *(path.read_text() for path in project.run.glob("*.json*"))]
        assert token and all(token not in text for text in kept)


@pytest.mark.proof
@on_hosts
def test_a_model_server_beside_every_node_of_a_slurm_job_answers_the_cells_of_that_node(
    project: Project, three: Hosts, tmp_path: Path
) -> None:
    """llama.cpp's server with the embedded model, at an address that every host has for itself."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        pytest.skip("SLURM is not installed: apt-get install slurm-wlm munge")
    write_nano(tmp_path / "nano.gguf")
    server = llama_cpp_with(tmp_path / "nano.gguf", 2048)
    if isinstance(server, str):
        pytest.skip(server)
    plan, job = project.folder / "experiments" / "test.toml", project.folder / "job.sh"
    whole = plan.read_text().replace(
        f"scripted:{tmp_path / 'script.txt'}", f"openai:m@http://127.0.0.1:{server.port}/v1"
    )
    whole = whole.replace('"full"', '"terse"').replace("output_tokens = 500", "output_tokens = 80")
    plan.write_text(whole.replace("context_tokens = 8000", "context_tokens = 2048"))
    asked = ("--nodes", "3", "--cpus-per-task", "1", "--time", "30", "--python", str(tmp_path / "python"))
    serve = f"OPENBLAS_NUM_THREADS=1 {shlex.join(server.argv)}"
    _given(project.looper("cluster", "slurm", "test", *asked, "--serve", serve, "-o", str(job)))
    with contextlib.closing(Slurm(three, tmp_path / "slurm")) as slurm:
        number = slurm.ask("sbatch", "--parsable", str(job), cwd=project.folder)
        _until(lambda: not slurm.ask("squeue", "-h", "-j", number))
        said = next(project.folder.glob(f"*-{number}.out")).read_text()
        assert "ExitCode=0:0" in slurm.ask("scontrol", "show", "job", number), said
        _complete(project)
        asked_by = {verdict.node for verdict in project.verdicts() if verdict.cell.startswith("base/")}
        assert len(asked_by) > 1, "each of which asked its own"
        replies = [step.reply for step in _steps(project) if step.cell.startswith("base/")]
        assert (
            replies and {reply.in_flight for reply in replies} == {1} and all(reply.text for reply in replies)
        )
        assert not _ours(three), "the servers ended with the job"


def _token_of(hosts: Hosts) -> str:
    """Of the cluster that runs there, seen on no command line."""
    lines = [line for host in hosts for line in host.processes()]
    place = next(part for line in lines for part in line.split() if "/looper." in part)
    file = re.sub(r".*?(/tmp/looper\.\w+).*", r"\1/token", place)
    for host in hosts:
        with host.run("cat", file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            if token := process.communicate()[0].strip():
                assert re.fullmatch("[0-9a-f]{64}", token) and not any(token in line for line in lines)
                return token
    return ""


class Ssh:
    """A server on every host, and the command that reaches it."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        self._running = []
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        (folder / "sshd").write_text(
            f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\nPidFile none\nPasswordAuthentication no\n"
        )
        known = folder / "known"
        known.write_text("".join(f"{host.name} {(folder / 'host.pub').read_text()}" for host in hosts))
        self.command = f"ssh -i {folder}/user -o UserKnownHostsFile={known}"
        for host in hosts:
            begin = f"mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -f {folder}/sshd"
            self._running.append(host.run("sh", "-c", begin, stderr=subprocess.DEVNULL))

    def close(self) -> None:
        for process in self._running:
            process.terminate()
            process.wait(timeout=60)


@pytest.mark.proof
@on_hosts
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_hosts_run_the_plan_and_end_with_the_script_however_that_ends(
    project: Project, three: Hosts, tmp_path: Path, number: signal.Signals
) -> None:
    if not Path("/usr/sbin/sshd").exists():
        pytest.skip("No SSH server is installed: apt-get install openssh-server")
    plan, script = _odd(project), project.folder / "run.sh"
    with contextlib.closing(Ssh(three, tmp_path / "ssh")) as ssh:
        asked = (
            "--python",
            str(tmp_path / "python"),
            "--ssh",
            ssh.command,
            "--cells",
            "1",
            "-o",
            str(script),
        )
        _given(project.looper("cluster", "hosts", plan, "two", "root@three", *asked))
        with (tmp_path / "said").open("w") as said:
            first = three[0].run("bash", str(script), stdout=said, stderr=said)
            _until(lambda: len(_steps(project)) >= 7 or first.poll() is not None, 400)
            assert first.poll() is None and _token_of(three), (tmp_path / "said").read_text()
            _in(three[0], script, number)
            first.wait(timeout=60)
        _until(lambda: not _ours(three), 90)
        if number is signal.SIGTERM:
            assert first.returncode == 130 and "Interrupted." in (tmp_path / "said").read_text()
        again = three[0].run("bash", str(script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        words = again.communicate(timeout=300)[0]
        assert again.returncode == 0, words
        _complete(project)
        assert not _ours(three)


def _in(host: Host, script: Path, number: signal.Signals) -> None:
    """Signal the script itself, and nothing that it began."""
    space = host.run("pgrep", "-o", "-f", f"bash {re.escape(str(script))}", stdout=subprocess.PIPE)
    process = space.communicate()[0].split()[0]
    host.run("kill", f"-{int(number)}", process).wait()
