"""Random replies through whole cells; `scripts/fuzz_replies.py` does a hundred thousand."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_replies.py"


def test_c1_c3_random_replies_end_as_verdicts_of_their_own_cells() -> None:
    argv = [sys.executable, str(SCRIPT), "--replies", "200", "--steps", "60", "--seed", "20"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not as it should be: 0" in done.stdout and "repeated from their records" in done.stdout
