"""Whatever a model says and whatever a product does ends its own cell: both fuzzers, one after the other, with one seed.

    python scripts/fuzz_cells.py [--replies 100000] [--products 400] [--seed 1] [--workers 2]

`fuzz_replies.py` and `fuzz_products.py` have more to choose. The exit status is not 0 where anything was not as it should be.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replies", type=int, default=100_000)
    parser.add_argument("--products", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    common = ["--seed", str(options.seed), "--workers", str(options.workers)]
    calls = (
        ("fuzz_replies.py", "--replies", str(options.replies)),
        ("fuzz_products.py", "--least", str(options.products)),
    )
    ends = [
        subprocess.run([sys.executable, str(Path(__file__).with_name(name)), *words, *common]).returncode
        for name, *words in calls
    ]
    return max(map(abs, ends))


if __name__ == "__main__":
    sys.exit(main())
