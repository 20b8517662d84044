"""Two judges of the same things."""

import pytest

from looper.metrics.agreement import Agreement, agreement


def test_kappa_is_agreement_beyond_chance() -> None:
    """Both say yes to 20 of 50, both no to 15: 35 agree, 25 would by chance (Cohen's kappa 0.4)."""
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    found = agreement(pairs)
    assert (found.judged, found.same) == (50, 35) and found.kappa == pytest.approx(0.4)
    rarely = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 65
    assert agreement(rarely).kappa == pytest.approx(0.625), "85 of 100 agree, 60 would by chance"
    opposite = agreement([(True, False), (False, True)])
    assert opposite.same == 0 and opposite.kappa == pytest.approx(-1)


def test_where_both_say_the_same_of_everything_there_is_nothing_beyond_chance() -> None:
    assert agreement([(True, True)] * 3) == Agreement(3, 3, None)
    assert agreement([]) == Agreement(0, 0, None)
