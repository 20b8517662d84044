"""The table of docs/learning.md from a run of experiments/ways.toml.

    python scripts/write_ways_table.py RUN

Prints one row for each arm: what it resolved, its difference from base, what its adapters cost and what they made of
successes elsewhere, what its memory told.
"""

import argparse
from pathlib import Path
from statistics import fmean

from looper.errors import BadInput
from looper.records.treatment import ProofKind
from looper.views.memory import memory_uses
from looper.views.runs import RunView, read_run


def rows(run: RunView) -> list[list[str]]:
    differences = {arm: found for arm, _, found in run.contrasts}
    told = memory_uses(run)
    found = []
    for arm in run.manifest.plan.arms:
        rate = run.figures(arm.name).resolved
        difference = differences.get(arm.name)
        made = [item for item in run.consolidations if item.arm == arm.name]
        kept = [proof for proof in run.proofs if proof.arm == arm.name and proof.kind is ProofKind.RETENTION]
        tokens = [
            item.end.memory_tokens
            for item in told
            if item.end.arm == arm.name and item.end.memory and item.end.memory_tokens is not None
        ]
        failed = run.failed_arms.get(arm.name)
        found.append(
            [
                f"`{arm.name}`",
                "failed: " + failed.partition(" on ")[0]
                if failed
                else f"{rate.numerator}/{rate.denominator}",
                f"{100 * difference.difference:+.0f} ({100 * difference.interval()[0]:+.0f} to {100 * difference.interval()[1]:+.0f})"
                if difference and not failed
                else "–",
                str(sum(len(item.made) for item in made)) if any(item.made for item in made) else "–",
                f"{sum(item.trained_tokens for item in made):,}" if any(item.made for item in made) else "–",
                f"{sum(item.training_s for item in made):.0f}" if any(item.made for item in made) else "–",
                f"{fmean(proof.before or 0 for proof in kept):.2f} → {fmean(proof.after or 0 for proof in kept):.2f}"
                if kept
                else "–",
                f"{fmean(tokens):.0f}" if tokens else "–",
            ]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="Its folder.")
    try:
        run = read_run(parser.parse_args().run)
    except BadInput as error:
        parser.error(str(error))
    heads = [
        "arm",
        "resolved",
        "points from base, 95 %",
        "adapters",
        "tokens trained",
        "seconds trained",
        "nats per token elsewhere",
        "tokens told",
    ]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for row in rows(run):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
