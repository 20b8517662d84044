"""What Looper says of a registered contrast: made of the contrast and of what was decided of it, of no word of its plan.

A plan's own sentences are its author's: wherever one is printed it is a quotation beside this claim.
"""

from looper.metrics.registered import COVERED, DECIDED, Decision
from looper.records.plan import Contrast, Expect, Metric

NOTHING_CONCLUDED = {
    Decision.PILOT: "an estimate, which decides nothing: the plan was not shown to be large enough",
    Decision.UNTRUSTED: "a control did not come out as it must: nothing is concluded",
    Decision.INDECISIVE: (
        f"fewer than {100 * COVERED:.0f} % of the cells have a verdict, or those without one could turn the decision: nothing is "
        "concluded"
    ),
    Decision.NOT_EXERCISED: (
        "what differs never came into play at these tasks, or so few or so many of them are resolved that no difference of the "
        "margin's size could show: nothing is concluded"
    ),
    Decision.NOT_MEASURED: "nothing to compare: no task has what is compared in all of the arms, or one of them is a failed arm",
}


def claim_of(contrast: Contrast, finding: Decision) -> str:
    """One clause without an end, as "lora resolves more tasks than base". What it is about, these tasks or more, is not said in it."""
    if finding not in DECIDED:
        return NOTHING_CONCLUDED[finding]
    if finding is Decision.OPEN:
        return _undecided(contrast)
    shown, metric, margin = finding is Decision.SHOWN, contrast.metric, margin_of(contrast)
    rates = metric is Metric.RESOLVED
    where = "" if rates else f" in {metric_name(metric)}"
    if contrast.through:
        line = f"the line through {len(contrast.arms)} arms from {contrast.against} to {contrast.arm}"
        return f"{line} {_moves(contrast, shown)}{where or ' in tasks resolved'}"
    if contrast.expect is Expect.SAME:
        apart = f"{'less than' if shown else 'at least'} {margin} apart"
        return f"{contrast.arm} and {contrast.against} {'resolve' if rates else 'are'} {apart}{where}"
    # A bound names the same side whether it holds or is passed; a difference that is refuted is one the other way.
    up = shown if contrast.expect is Expect.MORE else contrast.expect is Expect.NOT_MORE
    if contrast.expect is Expect.MORE:
        how = f"resolves {'more' if up else 'fewer'} tasks" if rates else f"is {'higher' if up else 'lower'}"
    elif rates:
        side = f"{margin} {'more' if up else 'less'}"
        how = f"does not resolve {side}" if shown else f"resolves at least {side}"
    else:
        how = f"is {'not' if shown else 'at least'} {margin} {'higher' if up else 'lower'}"
    return f"{contrast.arm} {how}{where} than {contrast.against}"


def _moves(contrast: Contrast, shown: bool) -> str:
    """What a line does."""
    margin = margin_of(contrast)
    match contrast.expect:
        case Expect.MORE:
            return "rises" if shown else "falls"
        case Expect.SAME:
            return f"neither rises nor falls by {margin}" if shown else f"rises or falls by at least {margin}"
        case Expect.NOT_MORE:
            return f"does not rise by {margin}" if shown else f"rises by at least {margin}"
        case Expect.NOT_LESS:
            return f"does not fall by {margin}" if shown else f"falls by at least {margin}"


def _undecided(contrast: Contrast) -> str:
    """That neither of the decisions was made that a contrast could have had."""
    if contrast.expect is Expect.MORE:
        more, fewer = ("more", "fewer") if contrast.metric is Metric.RESOLVED else ("higher", "lower")
        both = ("a rise", "a fall") if contrast.through else (more, fewer)
        return f"neither {both[0]} nor {both[1]} is shown"
    sides = {Expect.SAME: "a difference", Expect.NOT_MORE: "a gain", Expect.NOT_LESS: "a loss"}
    return f"{sides[contrast.expect]} of {margin_of(contrast)} or more is neither shown nor excluded"


def metric_name(metric: Metric) -> str:
    return metric.value.replace("_", " ").replace(".", " ")


def margin_of(contrast: Contrast) -> str:
    """A margin with its unit and every decimal that it has, so that no claim is of a rounded one."""
    scale, decimals, unit = (100, 1, "points") if contrast.metric.is_share else (1, 3, "nats per token")
    whole, _, rest = f"{scale * contrast.margin:.9f}".rstrip("0").partition(".")
    return f"{whole}.{rest.ljust(decimals, '0')} {unit}"
