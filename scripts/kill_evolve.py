"""Kill the steps of an evolving repository at many moments: after each kill exactly one valid version must be active.

    python scripts/kill_evolve.py --kills 200

Spawn, verify, promote and roll back run one after another, generation after generation, on a small repository, with model servers on
loopback. Each is killed with SIGKILL after a time that is drawn, checked, and begun again by the same call until it comes to its end;
every third kill takes the process of the lab too. Checked after each kill: the pointer names a version that is there and whole, the ledger
folds, nobody's working tree has changed. Checked after each step: pointer, ledger and branch agree.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.fakes.model_servers import WrittenModel  # noqa: E402
from tests.fakes.shop import CONTRACT, DONE, EDIT, Shop, new_shop, prime  # noqa: E402

from looper.cli.repository_steps import promote, roll_back, spawn, verify  # noqa: E402
from looper.errors import LooperError  # noqa: E402
from looper.evolution.authors import running  # noqa: E402
from looper.records.generation import Origin, Phase  # noqa: E402

LONGEST_S = {"spawn": 3.0, "verify": 4.0, "promote": 0.6, "roll back": 0.3}
"""About what each takes undisturbed, so that kills fall into all of it."""


def author(said: str) -> str:
    return DONE if "edited src/price.py" in said else EDIT


class Wrong(Exception):
    """What must always hold did not."""


def valid(shop: Shop, head: str) -> str:
    """The active version. Raises Wrong."""
    found = shop.open()
    pointer = found.folder / "versions" / "active"
    state = found.ledger.state()
    seen = shop.git("status", "--porcelain") + shop.git("rev-parse", "HEAD").replace(head, "")
    if seen:
        raise Wrong(f"the working tree changed: {seen}")
    if not pointer.is_symlink():
        if state.active:
            raise Wrong("a version is active by the ledger, and there is no pointer")
        return ""
    version = os.readlink(pointer)
    for line in shop.git("ls-tree", "-r", version).splitlines():
        head_of_line, _, path = line.partition("\t")
        content = (pointer.parent / version / path).read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != head_of_line.split()[2]:
            raise Wrong(f"{path} of the active version is not what was committed")
    return version


def killed_after(seconds: float, step: Callable[[], object], shop: Shop, with_lab: bool) -> bool:
    """Whether the step was killed before its end. Raises Wrong where it ended with an error of its own."""
    pid = os.fork()
    if not pid:
        os.setsid()
        try:
            step()
            os._exit(0)
        except LooperError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(2)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                raise Wrong(f"a step ended by itself with {os.waitstatus_to_exitcode(status)}")
            return False
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if with_lab:
        for number in shop.open().ledger.state().generations:
            lab = running(shop.open().folder, number)
            if lab:
                try:
                    os.kill(lab, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kills: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="looper-kill-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        with WrittenModel(author) as lab, WrittenModel(prime) as first:
            shop = Shop(new_shop(place / "shop"), place / "home", lab, first)
            os.environ.update(shop.variables())
            head = shop.git("rev-parse", "HEAD")
            number = 0
            while kills.total() < options.kills:
                number += 1
                request = f"request {number}"

                steps: dict[str, Callable[[], object]] = {
                    "spawn": partial(spawned, shop, request),
                    "verify": partial(verified, shop, number),
                    "promote": partial(promoted, shop, number),
                    "roll back": partial(rolled_back, shop, number),
                }
                for step, call in steps.items():
                    tries = 0
                    while killed_after(
                        rng.uniform(0.01, LONGEST_S[step]) if tries < 12 else 600,
                        call,
                        shop,
                        rng.random() < 0.33,
                    ):
                        tries += 1
                        kills[step] += 1
                        valid(shop, head)
                    version = valid(shop, head)
                    state = shop.open().ledger.state()
                    tip = shop.git("rev-parse", "evolve/active^{tree}").strip()
                    if not version == state.active == tip or state.unfinished:
                        raise Wrong(f"after {step}: pointer {version}, ledger {state.active}, branch {tip}")
                phases = [found.phase for found in shop.open().ledger.state().generations.values()]
                if phases != [Phase.ROLLED_BACK] * number:
                    raise Wrong(f"generation {number} ended otherwise: {phases}")
                print(f"generation {number}: {kills.total()} kills, {dict(kills)}", flush=True)
    print(
        f"killed {kills.total()} times ({dict(kills)}): one valid version each time, every step came to its end by its own command"
    )
    return 0


def spawned(shop: Shop, request: str) -> None:
    spawn(shop.open(), CONTRACT, request, Origin.CLI, detach=False)


def verified(shop: Shop, number: int) -> None:
    verify(shop.open(), number)


def promoted(shop: Shop, number: int) -> None:
    """One who types it again where it is done is told so; nothing is to be done then."""
    if shop.open().ledger.state().generation(number).phase is not Phase.PROMOTED:
        promote(shop.open(), number, "")


def rolled_back(shop: Shop, number: int) -> None:
    if shop.open().ledger.state().generation(number).phase is not Phase.ROLLED_BACK:
        roll_back(shop.open(), number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Wrong as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error}: {error.stderr}\n")
        sys.exit(1)
