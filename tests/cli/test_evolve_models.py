"""The models of a repository that evolves: reviewers without a verdict, servers that fail, authors without a budget."""

from dataclasses import replace

import pytest
from tests.cli.test_commands import one_line
from tests.fakes.model_servers import Fault
from tests.fakes.shop import DONE, EDIT, Shop, answers, edit, prime, shop, verdict

from looper.cli.repositories import model_of
from looper.cli.repository_steps import campaign, verify
from looper.errors import BadInput, InfrastructureError, ModelDenied, ModelUnpaid
from looper.protocols import ChatRequest
from looper.records.generation import Cause, Phase, Role

REQUEST = ChatRequest("c", (("user", "Are you there?"),), 10, 100, 0.0, 1, 10.0)

__all__ = ["shop"]


# Reviewers


@pytest.mark.parametrize(
    ("said", "phase", "seen"),
    [
        (verdict(injection=True, issues=["line 4 speaks to me"]), Phase.REJECTED, "speaks to its reviewer"),
        (verdict(approved=False, issues=["it rounds wrongly"]), Phase.REJECTED, "it rounds wrongly"),
        (verdict(confidence="low"), Phase.INCONCLUSIVE, "low confidence"),
        (
            verdict(
                criteria=[
                    {"id": "A1", "met": True, "evidence": ""},
                    {"id": "A2", "met": False, "evidence": "more changes"},
                ]
            ),
            Phase.INCONCLUSIVE,
            "A2 is not met",
        ),
        (f"I looked at it.\n```json\n{verdict()}\n```", Phase.ACCEPTED, ""),
    ],
    ids=["injection", "refuses", "unsure", "contradicts itself", "fence and prose"],
)
def test_a_review_is_a_value_and_decides_as_one(shop: Shop, said: str, phase: Phase, seen: str) -> None:
    shop.prime.answers[:] = [said]
    shop.spawn()
    found = verify(shop.open(), 1)
    assert found.phase is phase and seen in found.evidence


@pytest.mark.parametrize(
    "said", ["APPROVED", "{}", '{"approved": "yes"}', verdict(criteria=[]), verdict() + verdict()]
)
def test_l16_a_reviewer_without_a_verdict_is_asked_again_and_then_is_no_rejection(
    shop: Shop, said: str
) -> None:
    shop.prime.answers[:] = [said]
    shop.spawn()
    with pytest.raises(InfrastructureError, match="The reviewer gave no verdict in 3 answers"):
        verify(shop.open(), 1)
    found = shop.generation()
    assert (found.phase, found.cause, found.verdict) == (Phase.INFRA_ERROR, Cause.REVIEW, None)
    assert len(shop.prime.asked) == 3 and "That is no verdict" in shop.prime.asked[1]
    shop.prime.answers[:] = [verdict()]
    assert verify(shop.open(), 1).phase is Phase.ACCEPTED, "and the gates before it are not run again"


def test_l17_every_line_of_a_large_diff_is_read(shop: Shop) -> None:
    lines = "\n".join(f"a{number} = {number}" for number in range(4500))
    answers(shop, EDIT, edit("src/many.py", f"{lines}\nHARM = 1"), DONE)
    shop.prime.answers[:] = [
        lambda said: verdict(approved=False, issues=["HARM"]) if "HARM" in said else verdict()
    ]
    shop.spawn(changed_lines=10_000, max_context=200_000)
    found = verify(shop.open(changed_lines=10_000), 1)
    assert found.phase is Phase.REJECTED and "HARM" in found.evidence and len(shop.prime.asked) > 1


def test_the_author_does_not_review_itself(shop: Shop) -> None:
    shop.spawn()
    with pytest.raises(BadInput, match="would review its own work"):
        verify(shop.open(reviewer="ollama:written"), 1)


# The outside world


@pytest.mark.parametrize(
    ("fault", "raised", "cause"),
    [
        (Fault(401, "invalid x-api-key"), ModelDenied, "auth"),
        (Fault(400, "Your credit balance is too low"), ModelUnpaid, "credit"),
        (Fault(402, "payment required"), ModelUnpaid, "credit"),
    ],
)
def test_l15_without_a_key_or_credit_a_campaign_stops_at_once(
    shop: Shop, fault: Fault, raised: type[Exception], cause: str
) -> None:
    shop.prime.answers[:] = [fault]
    with pytest.raises(raised):
        campaign(shop.open(generations=1))
    assert shop.open().ledger.state().stopped.startswith(cause) and len(shop.prime.asked) == 1
    assert not shop.open().ledger.state().decided


@pytest.mark.parametrize("status", [429, 529])
def test_l39_a_server_that_fails_for_a_while_costs_pauses_that_grow(
    shop: Shop, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("looper.cli.repository_steps.pause", waited.append)
    shop.prime.answers[:] = [Fault(status, "later"), Fault(status, "later"), prime]
    assert campaign(shop.open(generations=1)) == "generations"
    assert waited == [2.0, 4.0] and shop.generation().phase is Phase.PROMOTED
    shop.prime.answers[:] = [Fault(status, "later")]
    with pytest.raises(InfrastructureError):
        campaign(shop.open(generations=2))
    assert shop.open().ledger.state().stopped.startswith("model:") and len(waited) == 4


def test_l39_whoever_waits_for_a_role_is_told(shop: Shop) -> None:
    told: list[str] = []
    shop.prime.answers[:] = [Fault(429, "later", (("Retry-After", "0.2"),)), "ready"]
    model = model_of(replace(shop.open(patience_s=5.0), say=told.append), Role.PRIME, 0)
    assert model.reply(REQUEST).text == "ready" and len(told) == 1
    assert "later" in told[0] and "Asking again in" in told[0]
    model.close()


def test_a_lab_whose_model_fails_part_way_goes_on_from_its_last_step(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looper.cli.repository_steps.pause", lambda seconds: None)
    answers(shop, EDIT, Fault(500, "broken"), DONE)
    assert campaign(shop.open(generations=1)) == "generations"
    found = shop.generation()
    assert (
        found.phase is Phase.PROMOTED and found.attempt == 2 and not found.cause and len(shop.lab.asked) == 3
    )
    assert found.reported and found.reported.steps == 2


def test_proposals_that_are_no_contracts_are_asked_for_again_and_end_the_campaign(shop: Shop) -> None:
    shop.prime.answers[:] = ["Let us improve things."]
    assert campaign(shop.open(generations=5)).startswith("suspect the harness")
    state = shop.open().ledger.state()
    assert [found.cause for found in state.generations.values()] == [Cause.PROPOSAL_INVALID] * 3
    assert len(shop.prime.asked) == 9 and "a title is missing" in shop.prime.asked[1]


def test_l29_l30_a_proposal_is_told_what_the_gates_saw(shop: Shop) -> None:
    answers(shop, edit("src/price.py", "def total(prices):\n    return 0"), DONE)
    shop.spawn()
    verify(shop.open(), 1)
    (shop.root / "priorities.md").write_text("1. Prices are never negative.\n")
    shop.looper("reflect")
    told = shop.prime.asked[-1]
    assert "1. Prices are never negative." in told
    assert (
        "gate tests: fail: 1 of 1 FAIL_TO_PASS tests did not pass: tests/test_price.py::test_total failed"
        in told
    )
    assert "generation 1, A discount: tests: 1 of 1" in told, "as a lesson"
    assert '"path": "src/price.py"' in told and 'tests/test_price.py"' not in told


def test_a_contract_that_failed_is_not_proposed_again(shop: Shop) -> None:
    answers(shop, DONE)
    assert shop.spawn().cause is Cause.NO_CHANGE
    said = shop.looper("reflect")
    assert said.returncode == 2 and "Generation 1 had this very contract and failed" in said.stderr


# Budgets


def test_l26_d11_the_call_that_does_not_fit_is_not_made(shop: Shop) -> None:
    shop.spawn()
    spent = shop.open().ledger.state().total_tokens
    calls = len(shop.prime.asked)
    said = shop.looper("reflect", "--set", f"token_budget={spent + 3000}")
    assert (
        said.returncode == 4
        and "tokens are left" not in said.stdout
        and "Raise --token-budget" in one_line(said)
    )
    assert len(shop.prime.asked) == calls
    assert shop.open().ledger.state().total_tokens == spent


def test_a_budget_that_ends_in_the_middle_of_the_work_keeps_what_was_done(shop: Shop) -> None:
    answers(shop, EDIT, EDIT)
    found = shop.spawn(token_budget=6_000)
    assert (found.phase, found.cause) == (
        Phase.REJECTED,
        Cause.INCOMPLETE,
    ) and "ended by budget" in found.evidence
    assert shop.open().ledger.state().total_tokens <= 6_000
    assert campaign(shop.open(generations=3, token_budget=6_000)).startswith("budget")


def test_money_needs_a_price(shop: Shop) -> None:
    said = shop.looper("reflect", "--set", "money_budget=1")
    assert said.returncode == 4 and "nobody said what written costs" in one_line(said)
    fine = shop.looper("reflect", "--set", "money_budget=1", "--set", "prime_price=3/15")
    assert fine.returncode == 0 and (shop.open().ledger.state().cost_usd or 0) > 0
