"""What a person decides through the pages of a campaign: spawn, follow, promote, roll back, talk to the prime. With real git, labs in real
sandboxes, and model servers that say what is written here."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from looper.cli.repository_steps import verify
from looper.cli.served import RepositoryCampaign
from looper.journal import read_stream
from looper.records.audit_entry import AuditEntry
from tests.fakes.model_servers import Fault, Slow
from tests.fakes.shop import CONTRACT, DONE, Shop, answers, prime, shop, until
from tests.serve.conftest import Served, serving
from tests.serve.test_pages import parsed

__all__ = ["shop"]
CHAT = "You are the prime"


@pytest.fixture
def served_shop(shop: Shop, tmp_path: Path) -> Iterator[Served]:
    with serving(
        tmp_path / "runs", tmp_path / "deeds", RepositoryCampaign(shop.open(token_budget=10_000_000))
    ) as found:
        yield found


def error(answer: httpx.Response) -> tuple[int, str, str]:
    found = answer.json()["error"]
    return answer.status_code, found["kind"], found["message"]


@pytest.mark.slow
def test_from_a_contract_to_a_promotion_and_back(shop: Shop, served_shop: Served) -> None:
    with served_shop.program() as client:
        assert client.get("/stats").json()["status"] == "idle"
        bad = client.post("/spawn", json={"program_md": "no task"})
        assert error(bad)[:2] == (422, "invalid") and "a title is missing" in error(bad)[2]
        begun = client.post("/spawn", json={"program_md": CONTRACT, "source": "user", "request": "mine"})
        assert begun.status_code == 202 and begun.json() == {
            "generation": 1, "branch": "evolve/gen-1", "lab": "gen-1", "status": "spawned",
        }  # fmt: skip
        again = client.post("/spawn", json={"program_md": CONTRACT, "request": "mine"})
        assert again.json()["generation"] == 1, "asking twice with the same is asking once"
        until(lambda: client.get("/lab/status?generation=1").json()["status"] == "done")
        lab = client.get("/lab/status?generation=1").json()
        assert lab["tool_stats"]["edit"] == {"calls": 1, "errors": 0} and lab["stop_reason"] == "done"
        assert lab["token_usage"]["input"] > 0 and lab["progress"].startswith("2 steps")
        seen = client.get("/versions").json()[0]["candidate_hash"]
        early = client.post("/promote", json={"generation": 1, "candidate_hash": seen})
        assert error(early)[0] == 409 and "only what every gate has passed" in error(early)[2]
        verify(shop.open(), 1)
        stale = client.post("/promote", json={"generation": 1, "candidate_hash": "abcdef0123"})
        assert error(stale)[0] == 409 and "Look at it again" in error(stale)[2]
        assert error(client.post("/promote", json={"generation": 9, "candidate_hash": seen}))[0] == 404
        promoted = client.post("/promote", json={"generation": 1, "candidate_hash": seen}).json()
        assert promoted["status"] == "promoted"
        assert promoted["commit"] == shop.git("rev-parse", "evolve/active").strip()
        twice = client.post("/promote", json={"generation": 1, "candidate_hash": seen})
        assert error(twice)[0] == 409
        page = client.get("/evolution/1", headers={"Accept": "text/html"}).text
        assert (
            "def discount" in page and "works now" in page and "Roll back" in page and ">Promote<" not in page
        )
        back = client.post("/rollback", json={"generation": 1, "candidate_hash": seen})
        assert back.json()["status"] == "rolled_back" and "def discount" not in shop.git(
            "show", "evolve/active:src/price.py"
        )
        stats = client.get("/stats").json()
        assert (stats["total_generations"], stats["active_generation"]) == (1, 0)
        assert stats["budgets_left"] == {
            "tokens": 10_000_000 - sum(stats["tokens"].values()),
            "usd": None,
        }
        with client.stream("GET", "/logs", headers={"Last-Event-ID": "2"}) as stream:
            told = parsed(stream.iter_lines())
            names = [next(told)[0] for _ in range(16)]
        assert names[0] == "connected" and "spawn" in names and "lab_done" in names and "gate" in names
    noted = [
        (deed.kind.value, deed.stage.value) for deed in read_stream(served_shop.deeds, "deeds", AuditEntry)
    ]
    assert noted[-6:] == [
        ("promote", "begun"), ("promote", "done"), ("promote", "begun"), ("promote", "failed"), ("roll_back", "begun"), ("roll_back", "done"),
    ]  # fmt: skip


def test_l21_what_works_in_a_lab_cannot_reach_the_pages(shop: Shop, served_shop: Served) -> None:
    """They listen on this machine alone (H11), and a lab has no network to ask them by."""
    reach = f"<bash>exec 3<>/dev/tcp/127.0.0.1/{served_shop.port} && echo reached</bash>"
    answers(shop, reach, DONE)
    shop.spawn()
    assert "\nreached" not in shop.lab.asked[1] and "dev/tcp" in shop.lab.asked[1]


def says(*turns: str | Fault | Slow):  # type: ignore[no-untyped-def]
    """A prime that says these in a conversation, and what it must elsewhere."""
    left = list(turns)
    return lambda said: left.pop(0) if CHAT in said else prime(said)


def test_a_conversation_with_the_prime_uses_its_tools_and_is_told_as_it_goes(
    shop: Shop, served_shop: Served
) -> None:
    shop.prime.answers[:] = [
        says("I look.\n<status></status>", "<promote>7</promote>", "<build>A discount for members</build>", "Generation 1 has begun.")
    ]  # fmt: skip
    told: list[tuple[str, dict[str, object]]] = []

    def listen() -> None:
        with served_shop.program() as client, client.stream("GET", "/prime/logs") as stream:
            for event in parsed(stream.iter_lines()):
                told.append(event)
                if event[0] == "response":
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    until(lambda: bool(told))
    with served_shop.program() as client:
        said = client.post("/prime/chat", json={"message": "What is there? Then build a discount."})
        assert said.json() == {"status": "completed", "response": "Generation 1 has begun."}
        listener.join(10)
        assert [name for name, _ in told] == [
            "connected", "chat", "text", "tool_calls", "tool_result", "text", "tool_calls", "tool_result", "text", "tool_calls", "tool_result", "response",
        ]  # fmt: skip
        results = [data for name, data in told if name == "tool_result"]
        assert "0 the version that the campaign began with" in str(results[0]["text"])
        assert results[1]["error"] is True and "There is no generation 7" in str(results[1]["text"])
        assert results[2]["error"] is False and "A discount for members" in str(results[2]["text"])
        stats = client.get("/prime/stats").json()
        assert (stats["status"], stats["tool_calls_count"], stats["messages_count"]) == ("idle", 3, 8)
    assert shop.generation().source.value == "user"
    assert '"error": true' in shop.prime.asked[-1], "the prime saw that it was refused"
    until(lambda: shop.generation().phase.value not in ("preparing", "running"))


def test_l38_of_two_messages_at_once_one_is_refused_and_an_error_is_an_error(
    shop: Shop, served_shop: Served
) -> None:
    shop.prime.answers[:] = [says(Slow(2, "slowly"), Fault(401, "no such key"), "better")]
    answers: list[httpx.Response] = []

    def ask(message: str) -> None:
        with served_shop.program() as client:
            answers.append(client.post("/prime/chat", json={"message": message}))

    first = threading.Thread(target=ask, args=("one",))
    first.start()
    until(lambda: bool(shop.prime.asked))
    ask("two")
    assert error(answers[0])[0] == 409 and "answering another question" in error(answers[0])[2]
    first.join(10)
    assert answers[1].json()["response"] == "slowly"
    ask("three")
    assert error(answers[2])[:2] == (502, "model") and "no such key" in json.dumps(answers[2].json())
    ask("four")
    assert answers[3].json()["response"] == "better"


def test_without_a_model_the_prime_says_what_is_missing(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOPER_EVOLVE_PRIME")
    with serving(tmp_path / "runs", tmp_path / "deeds", RepositoryCampaign(shop.open())) as found:
        with found.browser() as browser, found.program() as program:
            assert "No model is set for the prime" in browser.get("/prime").text
            assert error(program.post("/prime/chat", json={"message": "hello"}))[0] == 409
