"""Simulated campaigns: the gate holds its alpha and finds what is there; published rules do not."""

import random

from looper.evolution.calibrate import calibrated, challenge, gates
from looper.records.gate import BenchmarkRule, Calibrated, Drawn

RULE = BenchmarkRule()


def by_gate(run_context: Drawn, rule: BenchmarkRule, campaigns: int) -> dict[str, Calibrated]:
    return {found.gate: found for found in calibrated(run_context, rule, campaigns)}


def test_d04_a_campaign_without_any_gain_promotes_less_often_than_alpha() -> None:
    found = by_gate(Drawn(gain=0.0), RULE, 300)
    assert found["this one"].with_promotion / 300 <= RULE.alpha
    assert found["keep all, leeway 0.1"].with_promotion == 300
    assert found["one sample"].with_promotion > 290
    assert found["unpaired, each at 0.05"].with_promotion > 30
    assert found["tests and assertions less tokens"].with_promotion > 290


def test_a_planted_gain_of_twenty_points_is_found() -> None:
    found = by_gate(Drawn(gain=0.2), BenchmarkRule(challengers=8), 40)
    assert found["this one"].promotions / found["this one"].challengers >= 0.8


def test_a_gate_that_matches_text_is_fooled_by_what_a_diff_quotes() -> None:
    found = by_gate(Drawn(gain=-0.2), RULE, 100)
    assert found["match of two phrases"].promotions > 0 and found["this one"].promotions == 0


def test_every_gate_sees_the_same_draws() -> None:
    first, second = (challenge(Drawn(), random.Random("0/3")) for _ in range(2))
    assert first == second and set(gates(RULE)) == set(by_gate(Drawn(), RULE, 1))
    assert sum(first.parent.values()) / 100 < 0.7
