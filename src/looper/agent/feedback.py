"""What the model is told about a reply that could not be executed."""

from looper.agent.actions import Parsed
from looper.records.plan import Scaffold
from looper.records.trajectory import Observation, ObservationKind, ReplyProblem

_ADVICE = {
    ReplyProblem.NO_ACTION: "Reply with one action; its opening tag stands at the start of a line.",
    ReplyProblem.UNCLOSED: "Nothing was executed. Repeat the action and close its tag.",
    ReplyProblem.SEVERAL_ACTIONS: "Nothing was executed. Reply with one action only and wait for its result.",
    ReplyProblem.TEXT_AFTER_ACTION: "Nothing was executed. Let the reply end with the closing tag of the action.",
    ReplyProblem.FENCED_ACTION: "Nothing was executed. Repeat the action without the code fence around it.",
    ReplyProblem.MALFORMED: "Nothing was executed. Correct the action and repeat it.",
    ReplyProblem.TRUNCATED: (
        "Nothing was executed. Be shorter: think less, and change files with several small <edit> actions."
    ),
}


def problem_observation(parsed: Parsed, scaffold: Scaffold) -> Observation:
    """Each problem has its own words, so that a model can mend exactly what was wrong."""
    assert parsed.problem is not None
    text = (
        f"error: {parsed.detail}" if scaffold.terse else f"error: {parsed.detail}. {_ADVICE[parsed.problem]}"
    )
    return Observation(kind=ObservationKind.PROBLEM, text=text)


def unknown_tool(tool: str, scaffold: Scaffold) -> Observation:
    """The action exists in the language, not in this scaffold."""
    allowed = ", ".join(f"<{name}>" for name in scaffold.tools)
    return Observation(
        kind=ObservationKind.REFUSED, text=f"error: <{tool}> cannot be used here, only {allowed}"
    )
