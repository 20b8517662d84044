"""What gates do on simulated campaigns, in a table."""

from collections.abc import Iterator, Mapping, Sequence

from looper.metrics.paired import wilson
from looper.records.gate import BenchmarkRule, Calibrated, Drawn
from looper.views.show import markdown_table


def calibration_lines(
    rule: BenchmarkRule, found: Mapping[float, Sequence[Calibrated]], drawn: Drawn
) -> Iterator[str]:
    """`found` by the true gain of every candidate; the first one is 0."""
    gains = list(found)
    yield (
        f"{found[gains[0]][0].campaigns} campaigns of {rule.challengers} challengers on {drawn.tasks} paired tasks; the parent resolves "
        f"{100 * drawn.rate:.0f} %, {100 * drawn.discordance:.0f} % of pairs differ; alpha {rule.alpha} for the whole campaign."
    )
    yield ""
    heads = [
        "gate",
        "campaigns that promote, nothing being better",
        *(f"candidates promoted, {_points(gain)}" for gain in gains),
    ]
    rows = []
    for number, null in enumerate(found[gains[0]]):
        low, high = wilson(null.with_promotion, null.campaigns)
        share = f"{100 * null.with_promotion / null.campaigns:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        rows.append([null.gate, share, *(_share(found[gain][number]) for gain in gains)])
    yield from markdown_table(heads, rows)


def _points(gain: float) -> str:
    return f"{100 * gain:+.0f} points" if gain else "no gain"


def _share(found: Calibrated) -> str:
    return f"{100 * found.promotions / found.challengers:.1f} %"
