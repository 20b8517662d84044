"""What an arm remembers in the middle of its work."""

from typing import assert_never

from looper.records.memory import Delivery, MemoryItem, Moment
from looper.records.plan import Scaffold
from looper.records.trajectory import Action, Bash, Observation, ObservationKind, Read


class Recall:
    """The items that wait for their moment in one rollout; each is told once."""

    def __init__(self, delivery: Delivery, scaffold: Scaffold) -> None:
        self._waiting = list(delivery.later)
        self._moment, self._frame = delivery.moment, scaffold.memory

    def after(self, action: Action, observation: Observation) -> list[MemoryItem]:
        """What is to be told now that this was done and seen; it waits no more."""
        now = [item for item in self._waiting if self._is_due(item, action, observation)]
        self._waiting = [item for item in self._waiting if item not in now]
        return now

    def _is_due(self, item: MemoryItem, action: Action, observation: Observation) -> bool:
        match self._moment:
            case Moment.FILE_OPEN:
                read = isinstance(action, Read) and action.path in item.paths
                return read and observation.kind is ObservationKind.OK
            case Moment.TEST_FAILURE:
                return isinstance(action, Bash) and observation.exit_code not in (0, None)
            case Moment.START:
                return False
            case _:
                assert_never(self._moment)

    def told(self, items: list[MemoryItem], observation: Observation) -> Observation:
        """The observation with the items after it, in the frame that a memory has at the start."""
        if not items:
            return observation
        block = self._frame.replace("{items}", "\n".join(item.text for item in items)).rstrip("\n")
        return observation.model_copy(update={"text": f"{observation.text}\n{block}"})
