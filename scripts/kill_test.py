"""Kills a run of exp00 at random moments and sees whether anything is lost, doubled or changed.

    python scripts/kill_test.py [--kills 50]

exp00 on the embedded suite, its model arms driven by a script. The run is started and killed with SIGKILL again and
again until it has been killed often enough, then left to finish; its verdicts must equal those of an undisturbed run.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from looper.journal import read_stream
from looper.records.trajectory import Step
from looper.records.verdict import Verdict

SCRIPT = """<bash>python check.py; echo one > note.txt</bash>
---
<read>check.py</read>
---
<edit path="note.txt"><old>one</old><new>two</new></edit>
---
<bash>cat note.txt</bash>
---
<done>that is all</done>"""


def command(limit: int) -> list[str]:
    argv = [sys.executable, "-m", "looper.cli.main", "run", "exp00", "--profile", "demo"]
    argv += ["--model", "scripted:script.txt"]
    argv += [word for arm in ("gold", "noop", "base", "base_again") for word in ("--arm", arm)]
    return [*argv, "--limit", str(limit)]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "LOOPER_RUNS": str(folder / "runs")}


def verdicts(folder: Path) -> list[Verdict]:
    runs = list((folder / "runs").glob("*/verdicts.jsonl"))
    assert len(runs) == 1, runs
    return list(read_stream(runs[0].parent, "verdicts", Verdict))


def facts(found: list[Verdict]) -> dict[str, object]:
    return {
        verdict.cell: (verdict.outcome, verdict.patch_hash, verdict.fail_to_pass, verdict.pass_to_pass)
        for verdict in found
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, limit = random.Random(options.seed), 40
    with tempfile.TemporaryDirectory() as name:
        quiet, rough = Path(name) / "quiet", Path(name) / "rough"
        for folder in (quiet, rough):
            folder.mkdir()
            (folder / "script.txt").write_text(SCRIPT)
        begun = time.monotonic()
        subprocess.run(command(limit), cwd=quiet, env=environment(quiet), check=True, capture_output=True)
        expected = facts(verdicts(quiet))
        print(f"undisturbed: {len(expected)} cells in {time.monotonic() - begun:.0f} s", flush=True)
        kills = starts = 0
        while kills < options.kills:
            starts += 1
            process = subprocess.Popen(
                command(limit),
                cwd=rough,
                env=environment(rough),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(rng.uniform(0.2, 1.1))
            if process.poll() is not None:
                break  # It finished before it could be killed often enough.
            process.kill()
            process.wait()
            kills += 1
        last = subprocess.run(
            command(limit), cwd=rough, env=environment(rough), capture_output=True, text=True
        )
        assert last.returncode == 0, last.stderr
        found = verdicts(rough)
        steps = [
            (step.cell, step.attempt, step.index)
            for step in read_stream(next((rough / "runs").iterdir()), "steps", Step)
        ]
        assert facts(found) == expected, "the verdicts differ"
        assert len(found) == len({verdict.cell for verdict in found}) == len(expected), (
            "a cell was judged twice or lost"
        )
        assert len(steps) == len(set(steps)), "a step was recorded twice"
        print(
            f"killed {kills} times: {len(found)} verdicts equal, none twice, none lost, {len(steps)} steps, none twice"
        )


if __name__ == "__main__":
    main()
