"""Looks whether commands of a model can be locked in on this machine, before anything is installed: look.py PYTHON...

Prints which of these interpreters to install for: the first that the user whom commands run as can reach. Where root has none and
nothing mounts them, it makes a copy that he can reach. Ends with one line that says what to type where there is no way. Standard
library only: it runs on a bare interpreter.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src" / "looper" / "edges" / "sandboxes"))
from landlock_child import MINIMUM_ABI, landlock_abi

NOBODY = 65534
MOUNTS = "--unshare-pid --unshare-net --unshare-ipc --unshare-uts --cap-drop ALL --ro-bind / / --proc /proc --dev /dev"
LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "test", "tests", "idlelib", "__pycache__", "*.a", "config-*"
)


def main() -> None:
    os.umask(0o022)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", nargs="+", metavar="PYTHON")
    pythons = [installed(name) for name in parser.parse_args().python]
    if sys.platform == "linux" and not bubblewrap_works():
        abi = landlock_abi()
        if abi < MINIMUM_ABI:
            sys.exit(
                f"Commands of a model must not run without a sandbox: bubblewrap does not work here, and the kernel's Landlock is "
                f"version {max(abi, 0)}, needed {MINIMUM_ABI} (Linux 6.12). Type, as root: apt-get install bubblewrap"
            )
        if os.geteuid() == 0:
            print("bubblewrap does not work here; the sandbox will be Landlock", file=sys.stderr)
            pythons = [python for python in pythons if nobody_runs(python)] or [copied(pythons[0])]
    print(pythons[0])


def installed(name: str) -> Path:
    """The interpreter behind a name, which may be a link, a virtual environment's, or a script that chooses one."""
    asked = [name, "-c", "import sys; print(sys._base_executable)"]
    return Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())


def bubblewrap_works() -> bool:
    program = shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin")
    if program is None or (os.geteuid() == 0 and shutil.which("setpriv") is None):
        return False
    user = [] if os.geteuid() == 0 else ["--unshare-user"]
    return subprocess.run([program, *user, *MOUNTS.split(), "true"], capture_output=True).returncode == 0


def nobody_runs(python: Path) -> bool:
    try:
        asked = [str(python), "-I", "-c", "import ctypes, encodings.idna, venv"]
        done = subprocess.run(
            asked, cwd="/", env={}, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True
        )
    except OSError:
        return False
    return done.returncode == 0


def copied(python: Path) -> Path:
    """A copy of an interpreter and its standard library in Looper's own folder."""
    home = Path(os.environ.get("LOOPER_HOME") or "/var/cache/looper").absolute()
    base, library = python.resolve().parents[1], f"python{sys.version_info[0]}.{sys.version_info[1]}"
    place = home / "pythons" / f"{python.name}-{hashlib.sha256(os.fsencode(python)).hexdigest()[:8]}"
    copy = place / "bin" / python.name
    if not nobody_runs(copy):
        print(f"nobody, whom commands run as, may not enter {base}: copying it to {place}", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)
        (place / "bin").mkdir(parents=True)
        shutil.copy2(python, copy)
        shutil.copytree(base / "lib" / library, place / "lib" / library, symlinks=True, ignore=LEFT_OUT)
        for shared in (base / "lib").glob("*.so*"):
            shutil.copy2(shared, place / "lib" / shared.name, follow_symlinks=False)
        subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
    if not nobody_runs(copy):
        sys.exit(
            f"Nobody, whom commands of a model run as here, cannot come to {base} nor to a copy in {home}. Type: apt-get install "
            "bubblewrap; or choose places that every user may enter: PYTHON=/path/to/python LOOPER_HOME=/path scripts/demo"
        )
    return copy


if __name__ == "__main__":
    main()
