"""C11: no setting is read by nobody. Those that no other test changes are changed here, one after the other, and something else happens."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.model_servers import WrittenModel
from tests.fakes.shop import CONTRACT, DONE, EDIT, Shop, answers, shop, verdict

from looper.cli.evolve_settings import PREFIX, EvolveSettings
from looper.cli.repository_gates import rule_of
from looper.cli.repository_steps import campaign, looked_at, promote, verify
from looper.errors import BadInput
from looper.evolution.state import NotAllowed
from looper.records.gate import GateOutcome
from looper.records.generation import Phase

__all__ = ["shop"]
TESTS = Path(__file__).parents[1]


def test_c11_every_setting_is_changed_by_some_test() -> None:
    """As an option, in the environment or in a file; in a test that opens a repository, for what is called so elsewhere is another thing."""
    changed: set[str] = set()
    for path in TESTS.rglob("*.py"):
        text = path.read_text("utf-8")
        if "shop" in text or PREFIX in text or "looper.toml" in text:
            for node in ast.walk(ast.parse(text)):
                changed |= {name.removeprefix(PREFIX).lower() for name in named(node)}
    assert EvolveSettings.model_fields.keys() <= changed


def named(node: ast.AST) -> Iterator[str]:
    """Arguments of calls, keys of what is handed on as such, and the lines NAME = VALUE of a file or an option."""
    match node:
        case ast.Call(keywords=keywords):
            yield from (keyword.arg for keyword in keywords if keyword.arg)
        case ast.Dict(keys=keys):
            yield from (str(key.value) for key in keys if isinstance(key, ast.Constant))
        case ast.Constant(value=str(text)):
            yield from re.findall(r"^(?:.*\n)*?(\w+) ?=", text)


def test_allowed_protected_file_bytes_and_sandbox(shop: Shop) -> None:
    """One change, looked at under other settings: where it may be, what is fixed, how large a file, and where commands run."""
    answers(shop, EDIT, DONE)
    shop.spawn()

    def outcome(gate: str, **chosen: object) -> GateOutcome:
        [found] = looked_at(shop.open(**chosen), 1, [gate])
        return found.outcome

    assert outcome("scope") is outcome("manifest") is GateOutcome.PASS
    assert outcome("scope", allowed="elsewhere") is GateOutcome.FAIL
    assert outcome("scope", file_bytes=10) is GateOutcome.FAIL
    assert outcome("manifest", protected="src/*") is GateOutcome.FAIL
    with pytest.raises(BadInput, match='There is no sandbox "paper"'):
        outcome("scope", sandbox="paper")


def test_call_budget_and_call_window_s(shop: Shop) -> None:
    """The lab asks twice. With one call it ends after the first; where the window is over before the second, it does not."""
    answers(shop, EDIT, EDIT, DONE)
    found = shop.spawn(call_budget=1)
    assert found.reported is not None and found.reported.stop_reason == "budget"
    assert shop.spawn(request="again", call_budget=1, call_window_s=0.001).phase is Phase.REPORTED


def test_prices_of_each_role(shop: Shop) -> None:
    """What is not priced makes the whole sum unknown."""
    prices = {"lab_price": "1/1", "prime_price": "2/2", "reviewer_price": "3/3"}
    shop.spawn(**prices)
    verify(shop.open(**prices), 1)
    state = shop.open().ledger.state()
    used = {role.value: count for role, count in state.tokens.items()}
    # The reviewer is prime's model, with all that belongs to it.
    assert state.cost_usd == pytest.approx((used["lab"] + 2 * used["reviewer"]) / 1e6)
    shop.spawn(request="again", prime_price="2/2")
    assert shop.open().ledger.state().cost_usd is None


def test_reviewer_with_its_endpoint_key_and_price(shop: Shop) -> None:
    with WrittenModel(verdict()) as other:
        chosen = {
            "reviewer": "anthropic:written",
            "reviewer_endpoint": other.url,
            "reviewer_key": "the-key-of-the-reviewer",
            "reviewer_price": "3/3",
            "lab_price": "1/1",
        }
        shop.spawn(**chosen)
        assert verify(shop.open(**chosen), 1).phase is Phase.ACCEPTED
        assert other.keys == ["the-key-of-the-reviewer"] and not shop.prime.asked
    state = shop.open().ledger.state()
    used = {role.value: count for role, count in state.tokens.items()}
    assert state.cost_usd == pytest.approx((used["lab"] + 3 * used["reviewer"]) / 1e6)


def test_plateau_window_and_lookback(shop: Shop) -> None:
    """A proposer that repeats itself is told of as many generations as it may look back to, and ended after so many without gain."""
    answers(shop, DONE)
    number = iter(range(1, 10))
    shop.prime.answers[:] = [lambda said: CONTRACT.replace("A discount", f"Discount {next(number)}")]
    assert campaign(shop.open(plateau_window=2, lookback=1, generations=9)).startswith("plateau")
    assert len(shop.open().ledger.state().generations) == 2
    last = shop.prime.asked[-1]
    assert "Generation 1, from 0" in last
    assert campaign(shop.open(plateau_window=3, lookback=1, generations=3)) == "generations"
    last = shop.prime.asked[-1]
    assert "Generation 2, from 0" in last and "Generation 1, from 0" not in last


def test_base_branch_and_pythonpath(shop: Shop) -> None:
    """Begun from another branch, carried by another one, with the source on the module path."""
    shop.git("checkout", "-q", "-b", "older")
    (shop.root / "src" / "older.py").write_text("x = 1\n")
    shop.git("add", "-A")
    shop.git("commit", "-qm", "older")
    shop.git("checkout", "-q", "main")
    contract = CONTRACT.replace("sys.path.insert(0, 'src'); ", "import older; ")
    answers(shop, EDIT, DONE, EDIT, DONE)
    chosen = {"base": "older", "branch": "carried", "pythonpath": "src"}
    shop.spawn(contract, **chosen)
    assert verify(shop.open(**chosen), 1).phase is Phase.ACCEPTED
    promote(shop.open(**chosen), 1, "")
    assert "def discount" in shop.git("show", "carried:src/price.py") and shop.git(
        "show", "carried:src/older.py"
    )


def test_alpha_is_what_a_campaign_was_begun_with(shop: Shop) -> None:
    """It is divided by the generations to decide, and fixed with the first candidate that is judged, before any lane is run."""
    assert rule_of(shop.open(alpha=0.02, generations=4)).alpha_each == pytest.approx(0.005)
    answers(shop, EDIT, DONE, EDIT, DONE)
    shop.spawn()
    first = shop.open(alpha=0.02, benchmark="micro", protected="src/*")
    assert verify(first, 1).phase is Phase.REJECTED, "by the first gate"
    shop.spawn(CONTRACT.replace("A discount", "Another"), request="again")
    with pytest.raises(NotAllowed, match=r"was begun with .*--alpha 0\.02 .* and now .*--alpha 0\.03 "):
        verify(shop.open(alpha=0.03, benchmark="micro"), 2)
    with pytest.raises(BadInput, match="alpha"):
        shop.open(alpha=0.9)
