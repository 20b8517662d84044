"""The first command on machines that have nothing: minimal Debian in a root file system of its own, none of this machine's programs.

A tree is made by debootstrap once for each release and kept in the state folder; each test changes an overlay of it. How this machine
comes to its packages (pip's and apt's configuration, proxies, certificates) is copied into it when it runs.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = Path(os.environ.get("LOOPER_HOME") or "/var/cache/looper") / "trees"
RELEASES = {"bookworm": "3.11.2", "trixie": "3.13"}
PACKAGES = ("git", "python3", "python3-venv")
USER = 1000
"""Beside root, the only user of these machines."""
PASSED_ON = re.compile(
    r"PIP_(?!FIND_LINKS).*|.*_proxy|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", re.IGNORECASE
)
COPIED = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
ENTER = """
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount --rbind /dev dev
mount -t proc proc proc
mkdir -p cache outside
mount --bind "$3" cache
pivot_root . outside
umount -l /outside
cd /
shift 3
exec /usr/bin/setpriv "$@"
"""


def lacking() -> str:
    """Why there can be no such machine here; empty where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a root file system is made by root, on Linux"
    missing = [name for name in ("debootstrap", "unshare", "apt-get") if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else ""


@dataclass(frozen=True)
class Said:
    code: int
    text: str
    wall_s: float
    cpu_s: float


class Machine:
    """One minimal Debian. What is done to it stays until it is thrown away."""

    def __init__(self, release: str, place: Path) -> None:
        self.release, self.place = release, place
        self._tree = tree_of(release)
        for name in ("upper", "work", "root"):
            (place / name).mkdir()
        (place / "upper").chmod(0o755)
        for name in COPIED:
            if Path(name).exists():
                target = place / "upper" / name[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(name, target)
        apt = place / "upper" / "etc" / "apt"
        shutil.copytree("/etc/apt/auth.conf.d", apt / "auth.conf.d")
        (apt / "apt.conf.d").mkdir()
        (apt / "apt.conf.d" / "99acquire").write_text(said_by("apt-config", "dump", "Acquire"))
        bundle(place / "upper" / "looper.bundle")
        self.run("useradd --create-home me && mkdir -p /cache/0 /cache/1000 && chown 1000 /cache/1000")

    def without_packages(self) -> None:
        """apt knows no source any more."""
        self.run("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d /var/lib/apt/lists/*")

    def run(self, command: str, *, uid: int = 0, umask: int = 0o022, **variables: str) -> Said:
        """A command in a home folder, with nothing of this machine's environment but the way to its packages."""
        home = "/root" if uid == 0 else "/home/me"
        environment = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        environment |= {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": home,
            "PIP_CACHE_DIR": f"/cache/{uid}",
            **variables,
        }
        cache = KEPT / f"{self.release}.pip"
        cache.mkdir(exist_ok=True)
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter"]
        argv = [*enter, str(self._tree), str(self.place), str(cache)]
        argv += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", "sh", "-c"]
        argv += [f"umask {umask:03o}; cd {home}; {command}"]
        begun, used = time.monotonic(), os.times()
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        now = os.times()
        cpu_s = now.children_user + now.children_system - used.children_user - used.children_system
        return Said(done.returncode, done.stdout.decode("utf-8", "replace"), time.monotonic() - begun, cpu_s)

    def first_command(self, arguments: str = "", **how: int) -> Said:
        """From the clone to the table."""
        return self.run(
            f"git clone --quiet /looper.bundle looper && cd looper && scripts/demo {arguments}", **how
        )


def said_by(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def tree_of(release: str) -> Path:
    """A release's minimal system with what the README asks for, made on first use."""
    tree = KEPT / release
    if not tree.exists():
        known = said_by("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)").splitlines()
        mirror = next(line.split()[0] for line in known if line.split()[1:] == [this_release()])
        part = KEPT / f".{release}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", release, part, mirror],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            unavailable(f"debootstrap: {made.stdout[-300:]}")
        part.rename(tree)
    return tree


def this_release() -> str:
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    return found[1] if found else ""


def unavailable(why: str) -> None:
    """Continuous integration sets this variable: there it is a failure."""
    (pytest.fail if os.environ.get("LOOPER_BARE_MACHINES") == "must" else pytest.skip)(why)


def bundle(target: Path) -> None:
    """This tree as it is, committed or not, to be cloned."""
    git = {**os.environ, "GIT_DIR": str(target.with_suffix(".git")), "GIT_WORK_TREE": str(ROOT)}
    for name in ("AUTHOR", "COMMITTER"):
        git |= {f"GIT_{name}_NAME": "looper", f"GIT_{name}_EMAIL": "looper@localhost"}
    for command in (
        "init --initial-branch=main",
        "add --all",
        "commit --message=tree",
        f"bundle create {target} HEAD main",
    ):
        subprocess.run(["git", *command.split()], cwd=ROOT, env=git, check=True, capture_output=True)
    shutil.rmtree(git["GIT_DIR"])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    if why := lacking():
        unavailable(why)
    # An overlay needs its upper folder on a real disk, which holds what an installation takes.
    yield lambda release: Machine(release, tmp_path)
    shutil.rmtree(tmp_path)


def table(said: Said) -> dict[str, str]:
    """Arms and what they resolved."""
    return dict(re.findall(r"^│ (\w+) +│ +(\d+/\d+) │", said.text, re.MULTILINE))


def test_what_an_installation_says_of_its_size_never_goes_down(tmp_path: Path) -> None:
    """Once what was fetched is removed again, only the seconds say that it goes on."""
    program = """
eval "$(sed -n '/^say_how_far() {/,/^}/p' scripts/environment)"
sleep() { [ $((at += 1)) -le 4 ]; }
du() { set -- 100 802 661 900; shift $((at - 1)); printf '%s\\tvenv\\n' "$1"; }
begun=$SECONDS at=0 VENV=venv
set -eu
say_how_far
"""
    found = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert [re.sub(r"\d+ s", "N s", line.strip(), count=1) for line in found.stderr.splitlines()] == [
        "N s, 100 MiB fetched and unpacked so far",
        "N s, 802 MiB fetched and unpacked so far",
        "N s",
        "N s",
    ]


def look(*changes: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`scripts/look.py` on this machine, as if it were another."""
    program = "\n".join(["import look", *changes, "look.main()"])
    return subprocess.run(
        [sys.executable, "-c", program, sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts"), **environment},
        capture_output=True,
        text=True,
    )


def test_r1_an_interpreter_is_named_before_anything_is_installed() -> None:
    found = look()
    assert found.returncode == 0 and os.path.samefile(found.stdout.strip(), sys._base_executable)  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system brings its sandbox")
def test_r1_without_any_sandbox_one_line_says_what_to_type() -> None:
    found = look("look.bubblewrap_works = lambda: False", "look.landlock_abi = lambda: 4")
    assert found.returncode == 1 and not found.stdout and len(found.stderr.splitlines()) == 1
    assert "Landlock is version 4, needed 6" in found.stderr and "apt-get install bubblewrap" in found.stderr


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="root's commands alone have another user"
)
def test_r1_where_nobody_can_run_no_interpreter_and_no_copy_one_line_says_so(tmp_path: Path) -> None:
    found = look(
        "look.bubblewrap_works = lambda: False",
        "look.landlock_abi = lambda: 7",
        "look.nobody_runs = lambda python: False",
        LOOPER_HOME=str(tmp_path),
    )
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "PYTHON=/path/to/python LOOPER_HOME=/path scripts/demo" in found.stderr.splitlines()[-1]
    assert list((tmp_path / "pythons").glob("*/bin/python3*")), "a copy was tried"


FEW = "--arm gold --arm noop --arm base --limit 2"


def few_are_judged(said: Said) -> None:
    assert said.code == 0, said.text
    assert table(said)["gold"] == "2/2" and table(said)["noop"] == "0/2", said.text


@pytest.mark.proof
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("uid", [0, USER], ids=["root", "user"])
def test_r1_from_a_clone_to_the_table(machine: Callable[[str], Machine], release: str, uid: int) -> None:
    """The README's first command as it stands there, without bubblewrap. Root has it installed, a user has Landlock."""
    bare = machine(release)
    assert bare.run("python3 -V").text.startswith(f"Python {RELEASES[release]}")
    said = bare.first_command(uid=uid)
    print(f"{release}, user {uid}: {said.wall_s:.0f} s, of processors {said.cpu_s:.0f} s")
    assert said.code == 0, said.text
    assert table(said)["gold"] == "40/40" and table(said)["noop"] == "0/40"
    assert ("sandbox bubblewrap" if uid == 0 else "sandbox landlock") in said.text
    assert ("not here, installing with apt-get: bubblewrap" in said.text) == (uid == 0)
    assert said.wall_s < 600


@pytest.mark.proof
def test_c12_quick_the_lowest_promised_python_as_a_user(machine: Callable[[str], Machine]) -> None:
    bare = machine("bookworm")
    assert bare.run("python3 -V").text.strip() == "Python 3.11.2"
    said = bare.first_command(FEW, uid=USER)
    print(f"few tasks: {said.wall_s:.0f} s, of processors {said.cpu_s:.0f} s")
    few_are_judged(said)
    assert "sandbox landlock" in said.text and "apt-get" not in said.text
    again = bare.run("cd looper && scripts/demo --arm gold --limit 2", uid=USER)
    assert again.code == 0 and "installing" not in again.text


@pytest.mark.proof
def test_r6_root_with_nothing_but_a_clone_and_a_closed_umask(machine: Callable[[str], Machine]) -> None:
    """The clone lies below root's closed home. First in what apt brings, then by Landlock."""
    bare = machine("bookworm")
    bare.run("git clone --quiet /looper.bundle looper", umask=0o077)
    bare.run("dpkg --remove git python3-venv python3.11-venv")
    few_are_judged(first := bare.run(f"cd looper && scripts/demo {FEW}", umask=0o077))
    assert "not here, installing with apt-get: python3 python3-venv git bubblewrap" in first.text
    assert "sandbox bubblewrap" in first.text
    looper = "cd looper && .venv/bin/looper"
    landlock = bare.run(f"{looper} run exp00 --profile demo --sandbox landlock {FEW}", umask=0o077)
    assert landlock.code == 2 and "sandbox was" in landlock.text
    landlock = bare.run(f"{looper} run exp00 --profile demo --sandbox landlock --fresh {FEW}", umask=0o077)
    few_are_judged(landlock)
    assert "sandbox landlock" in landlock.text
    assert "[ok     ] tests' interpreter" in bare.run(f"{looper} doctor", umask=0o077).text


@pytest.mark.proof
def test_r1_root_without_packages_whose_only_python_lies_below_its_home(
    machine: Callable[[str], Machine],
) -> None:
    bare = machine("bookworm")
    bare.without_packages()
    moved = bare.run(
        "mkdir -p python/bin python/lib && cp -a /usr/bin/python3.11 python/bin && cp -a /usr/lib/python3.11 python/lib && "
        "cp -a /usr/share/python-wheels python/ && rm /usr/bin/python3* && ln -s python3.11 python/bin/python3"
    )
    assert moved.code == 0, moved.text
    said = bare.run(
        f"git clone --quiet /looper.bundle looper && cd looper && PYTHON=/root/python/bin/python3 scripts/demo {FEW}"
    )
    few_are_judged(said)
    assert "apt-get could not install bubblewrap" in said.text and "sandbox landlock" in said.text
    assert "nobody, whom commands run as, may not enter /root/python: copying it" in said.text


@pytest.mark.proof
@pytest.mark.parametrize("taken", ["/usr/bin/git", "/usr/lib/python3.11/ensurepip", "/usr/bin/python3*"])
def test_r1_what_a_user_lacks_is_one_line_that_says_what_to_type(
    machine: Callable[[str], Machine], taken: str
) -> None:
    bare = machine("bookworm")
    bare.run(
        f"cd /home/me && git clone --quiet /looper.bundle looper && chown -R {USER} looper && rm -r {taken}"
    )
    said = bare.run("cd looper && scripts/demo", uid=USER)
    package = "git" if taken.endswith("git") else "python3 python3-venv"
    assert said.code == 2 and len(said.text.splitlines()) == 1, said.text
    assert f"Type: apt-get install {package}, as root" in said.text
    assert said.wall_s < 20


def in_the_wheel() -> dict[str, Path]:
    """What pyproject.toml has hatch put into a wheel, by its place there: files of the packages that git does not ignore, and what is
    put in from elsewhere."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *wheel["packages"]]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    asked = ["git", "check-ignore", "--no-index", "--stdin"]
    # Hatch goes by the patterns alone: a tracked file that one of them names is left out of the wheel.
    lost = subprocess.run(
        asked, cwd=ROOT, input="\n".join(files), capture_output=True, text=True
    ).stdout.split()
    (package,) = wheel["packages"]
    found = {
        Path(name).relative_to(Path(package).parent).as_posix(): ROOT / name for name in {*files} - {*lost}
    }
    for source, target in wheel["force-include"].items():
        for path in (ROOT / source).rglob("*"):
            if path.is_file():
                found[f"{target}/{path.relative_to(ROOT / source).as_posix()}"] = path
    return found


def test_what_a_wheel_installs_runs_the_first_experiment_from_an_empty_folder(
    tmp_path: Path, state: Path
) -> None:
    """Plans, scaffolds and weights are inside, no checkout is near, and what the embedded model needs is installed with it."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert any(each.startswith("mlx-lm") for each in needed)
    venv, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    for name, source in in_the_wheel().items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, packages / name)
    # The installed dependencies of this interpreter; a path file in them is not followed from here.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LOOPER_RUNS")
    }

    def installed(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [python, "-m", *arguments],
            cwd=empty,
            env={**environment, "LOOPER_HOME": str(state)},
            capture_output=True,
            text=True,
        )

    place = subprocess.run(
        [python, "-c", "import looper; print(looper.__file__)"],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert Path(place.stdout.strip()).is_relative_to(packages)
    ran = installed("looper.cli.main", *f"run exp00 --profile demo {FEW}".split())
    assert ran.returncode == 0, ran.stderr
    found = table(Said(ran.returncode, ran.stdout, 0.0, 0.0))
    assert found["gold"] == "2/2" and found["noop"] == "0/2", ran.stdout
    assert [path.name for path in empty.iterdir()] == ["runs"]
    begun = installed("looper.cli.main", "new", "mine.toml")
    assert begun.returncode == 0 and installed("looper.cli.main", "plan", "mine.toml").returncode == 0


@pytest.mark.proof
def test_a_built_wheel_holds_what_is_tried_here(tmp_path: Path) -> None:
    """Needs the build backend, which uv gets where it is not kept."""
    built = subprocess.run(
        [Path(sys.executable).with_name("uv"), "build", "--wheel", "--out-dir", tmp_path, ROOT],
        capture_output=True,
        text=True,
    )
    if "hatchling" in built.stderr and built.returncode:
        pytest.skip("hatchling cannot be had here")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert names == in_the_wheel().keys()
