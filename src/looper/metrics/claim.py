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
    Decision.NOT_MEASURED: "nothing to compare: no task has a verdict in both arms, or one of them is a failed arm",
}


def claim_of(contrast: Contrast, finding: Decision) -> str:
    """One clause without an end, as "lora resolves more tasks than base". What it is about, these tasks or more, is not said in it."""
    if finding not in DECIDED:
        return NOTHING_CONCLUDED[finding]
    if finding is Decision.OPEN:
        return f"neither {_either(contrast)} is shown"
    shown, metric = finding is Decision.SHOWN, contrast.metric
    by = (
        ""
        if contrast.expect is Expect.MORE
        else f"{'less than' if shown else 'at least'} {margin_of(contrast)}"
    )
    # A bound names the same side whether it holds or is passed; a difference that is refuted is one the other way.
    up = shown if contrast.expect is Expect.MORE else contrast.expect is Expect.NOT_MORE
    if contrast.through:
        moves = "rises or falls" if contrast.expect is Expect.SAME else "rises" if up else "falls"
        what = "tasks resolved" if metric is Metric.RESOLVED else metric_name(metric)
        line = f"the line through {len(contrast.arms)} arms from {contrast.against} to {contrast.arm}"
        return f"{line} {moves}{by and f' by {by}'} in {what}"
    if contrast.expect is Expect.SAME:
        what = "resolve" if metric is Metric.RESOLVED else "are"
        where = "" if metric is Metric.RESOLVED else f" in {metric_name(metric)}"
        return f"{contrast.arm} and {contrast.against} {what} {by} apart{where}"
    if metric is not Metric.RESOLVED:
        return f"{contrast.arm} is {by and f'{by} '}{'higher' if up else 'lower'} in {metric_name(metric)} than {contrast.against}"
    much = f"{by} {'more' if up else 'less'}" if by else f"{'more' if up else 'fewer'} tasks"
    return f"{contrast.arm} resolves {much} than {contrast.against}"


def _either(contrast: Contrast) -> str:
    """Both decisions that a contrast could have had."""
    if contrast.expect is not Expect.MORE:
        return f"within nor beyond {margin_of(contrast)}"
    if contrast.through:
        return "a rise nor a fall"
    return "more nor fewer" if contrast.metric is Metric.RESOLVED else "higher nor lower"


def metric_name(metric: Metric) -> str:
    """The name of a metric as it stands in a line."""
    return metric.value.replace("_", " ")


def margin_of(contrast: Contrast) -> str:
    """A margin with its unit and every decimal that it has, so that no claim is of a rounded one."""
    scale, decimals, unit = (100, 1, "points") if contrast.metric.is_share else (1, 3, "nats per token")
    whole, _, rest = f"{scale * contrast.margin:.9f}".rstrip("0").partition(".")
    return f"{whole}.{rest.ljust(decimals, '0')} {unit}"
