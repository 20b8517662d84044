"""Whether a task can tell right from wrong on this machine, before any model is asked."""

from looper.records.base import Record, Seconds


class Validation(Record):
    """One task, judged with its gold patch and with none."""

    instance_id: str
    repo: str
    task_hash: str
    """`labels_hash` of the task: another label, another validation."""
    environment: str
    """Content hash."""
    verifier: str
    valid: bool
    """With gold every FAIL_TO_PASS id passes each time; without it, at least one does not."""
    cause: str
    """Why it is not valid, in one line; empty where it is."""
    excluded: dict[str, str]
    """PASS_TO_PASS ids that gold does not pass each time, and how that shows; a run leaves them out."""
    disagreements: dict[str, str]
    """Ids on which the official reading of the last gold run's log differs from its report, and how."""
    repeats: int
    """Judgements with gold."""
    gold_s: Seconds
    """Median of these."""
    empty_s: Seconds

    missing_programs: tuple[str, ...] = ()
    """Programs of the system that the repository's tests call and that were not there."""
    environment_s: Seconds = 0.0
    """Waited for the environment: to be built, or compiled, by this task or by another one that was first."""
    machine: str = ""
    """System, architecture and processors that it was judged on."""
    day: str = ""
    """When, in UTC, as 2026-11-28."""

    @property
    def key(self) -> tuple[str, str, str, str, tuple[str, ...]]:
        return self.instance_id, self.task_hash, self.environment, self.verifier, self.missing_programs
