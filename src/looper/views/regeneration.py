"""What programs that were written anew came to: how many live, at what cost, and where the others end."""

from collections import Counter
from collections.abc import Iterator, Sequence

from looper.metrics.independent import newcombe_independent
from looper.metrics.paired import wilson
from looper.records.genome import Birth, Mode

ENOUGH = 30
"""Of 30, 29 are the first whose lower bound lies above 80 %: with fewer a way of writing is not preferred to another."""


def regeneration_lines(births: Sequence[Birth]) -> Iterator[str]:
    """Each way of writing by itself, then both beside each other. What the outside world broke is in no rate."""
    modes = [mode for mode in Mode if any(one.mode is mode for one in births)]
    for mode in modes:
        yield from _lines(mode, [one for one in births if one.mode is mode])
    if len(modes) == 2:
        whole, patch = (
            [one for one in births if one.mode is mode and one.rigged] for mode in (Mode.WHOLE, Mode.PATCH)
        )
        if whole and patch:
            low, high = newcombe_independent(_viable(whole), len(whole), _viable(patch), len(patch))
            difference = _viable(whole) / len(whole) - _viable(patch) / len(patch)
            said = f"regenerated less patched: {100 * difference:+.0f} points viable, 95 % {100 * low:+.0f} to {100 * high:+.0f}"
            if min(len(whole), len(patch)) < ENOUGH:
                said += f"; with fewer than {ENOUGH} of each this decides nothing"
            elif low > 0:
                said += ": writing anew gives more programs that live"
            elif high < 0:
                said += ": patching gives more programs that live"
            else:
                said += ": no difference was shown"
            yield said


def _viable(births: Sequence[Birth]) -> int:
    return sum(bool(one.rigged and one.rigged.viable) for one in births)


def _lines(mode: Mode, births: Sequence[Birth]) -> Iterator[str]:
    decided = [one for one in births if one.rigged is not None]
    viable, tokens = _viable(decided), sum(one.prompt_tokens + one.completion_tokens for one in births)
    if not decided:
        yield f"{mode.value}: nothing has a verdict yet"
        return
    low, high = wilson(viable, len(decided))
    each = f"{tokens / viable:.0f} tokens for each" if viable else f"{tokens} tokens for none"
    yield f"{mode.value}: {viable} of {len(decided)} viable, 95 % {100 * low:.0f} to {100 * high:.0f} %, {each}"
    failed = Counter(one.rigged.failed for one in decided if one.rigged and one.rigged.failed)
    if failed:
        yield "  failed at " + ", ".join(f"{stage.value} {count}" for stage, count in failed.most_common())
    for model in sorted({one.model for one in decided}):
        mine = [one for one in decided if one.model == model]
        yield f"  {model}: {_viable(mine)} of {len(mine)}"
    if infra := sum(bool(one.infra) for one in births):
        yield f"  beside them {infra} that the outside world ended, in no rate"
