"""Results of earlier experiments that others ran, with the marks of an audit."""

from datetime import date
from typing import Annotated

from pydantic import Field, model_validator

from looper.records.base import Count, Record


class PastExperiment(Record):
    """One experiment as it was told, and what an audit makes of it."""

    id: str
    name: str
    plan: str
    """The experiment here that asks the same."""
    date: date
    said: str
    """Its own conclusion."""
    audit: str
    note: str


class PastRate(Record):
    """A share that was reported; without counts where it was never measured."""

    experiment: str
    arm: str
    what: str
    count: Count | None = None
    of: Annotated[int, Field(gt=0)] | None = None
    tasks: str = ""
    audit: str
    note: str = ""

    @model_validator(mode="after")
    def _is_a_share_or_nothing(self) -> "PastRate":
        if (self.count is None) != (self.of is None) or (self.count or 0) > (self.of or 0):
            raise ValueError(f"count: {self.count} of {self.of} is no share")
        return self


class PastComparison(Record):
    """Two arms on the same tasks, by how many tasks each resolved."""

    name: str
    tasks: str
    both: Count
    first_only: Count
    second_only: Count
    neither: Count
    audit: str


class History(Record):
    """A file of `experiments/history/`."""

    title: str
    marks: dict[str, str]
    """What each mark means for a reader."""
    task_sets: dict[str, str]
    experiments: tuple[PastExperiment, ...]
    rates: tuple[PastRate, ...]
    comparisons: tuple[PastComparison, ...]

    @model_validator(mode="after")
    def _marks_are_explained(self) -> "History":
        used = {found.audit for found in self.experiments} | {found.audit for found in self.rates}
        unknown = (used | {found.audit for found in self.comparisons}) - self.marks.keys()
        if unknown:
            raise ValueError(f"audit: {', '.join(sorted(unknown))} is not among the marks")
        return self
