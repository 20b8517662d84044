"""Questions that a model answered about experience, to be trained on the answers; and who found which of them worthless."""

from looper.records.base import Record


class AnsweredQuestion(Record):
    """One question about one success, with the answer that an arm is trained on."""

    arm: str
    seed: int
    repo: str
    round: int
    source: str
    """Cell and attempt of the success, and the number of the question."""
    question: str
    answer: str
    """Empty where the model had none; such a question is not trained on."""
    key: str
    """What every right answer has to say, from the records."""
    supported: bool
    """The answer says it. This judge is the same for every arm and model, and is always there."""


class Rating(Record):
    """A person's word on one answer."""

    arm: str
    seed: int
    round: int
    source: str
    by: str
    noise: bool
    """The answer is wrong or says nothing."""
