"""Every documented answer, for whatever is asked: no request makes the server fail, and what it answers is what it says."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from looper.cli.served import EmbeddedCampaign
from looper.evolution.ledger import EventLog
from looper.records.generation import Moved, Origin, Proposed
from looper.records.generation import Phase as Stand
from tests.fakes.written_run import write_run
from tests.serve.conftest import Served, serving

OPERATIONS = {
    ("get", "/status"), ("get", "/runs/{run}/status"), ("get", "/runs/{run}/curves.json"), ("get", "/stats"), ("get", "/versions"),
    ("get", "/lab/status"), ("get", "/prime/stats"), ("post", "/spawn"), ("post", "/promote"), ("post", "/rollback"), ("post", "/prime/chat"),
    ("post", "/runs/{run}/pause"), ("post", "/runs/{run}/cancel"), ("post", "/codes"),
}  # fmt: skip
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Served:  # type: ignore[misc]
    root = tmp_path_factory.mktemp("documented")
    write_run(root / "runs")
    (root / "evolving" / "repository").mkdir(parents=True)
    import subprocess

    subprocess.run(["git", "init", "-q", str(root / "evolving" / "repository")], check=True)
    ledger = EventLog(root / "evolving" / "ledger")
    ledger.record(
        lambda now: Proposed(
            generation=1, parent=0, source=Origin.CLI, request="r", title="t", contract_hash="c"
        )
    )
    ledger.record(lambda now: Moved(generation=1, before=Stand.PROPOSED, after=Stand.ADMITTED))
    with serving(root / "runs", root / "deeds", EmbeddedCampaign(root / "evolving")) as found:
        yield found


def test_the_document_lists_every_operation(campaign: Served) -> None:
    with campaign.program() as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert {(method, path) for path, methods in paths.items() for method in methods} == OPERATIONS


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
def test_no_request_makes_it_fail(campaign: Served, method: str, path: str) -> None:
    head = {"Authorization": f"Bearer {campaign.auth.token}"}
    schema = schemathesis.openapi.from_url(f"{campaign.url}/openapi.json", headers=head)
    operation = schema[path][method.upper()]

    made: list[str] = []

    @given(case=operation.as_strategy())
    @settings(
        max_examples=25, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    def asked(case: schemathesis.Case) -> None:
        made.append(case.method)
        case.validate_response(case.call(headers=head), checks=CHECKS)

    asked()
    assert len(made) >= (10 if (method == "post" and path != "/codes") or "{" in path else 1), (
        "something was asked"
    )


def test_a_known_run_and_generation_are_answered_as_documented(campaign: Served, tmp_path: Path) -> None:
    with campaign.program() as client:
        (run,) = client.get("/status").json()["runs"]
        assert client.get(f"/runs/{run['run']}/status").json()["run_hash"] == run["run_hash"]
        shares = client.get(f"/runs/{run['run']}/curves.json").json()["shares"]
        assert shares == {"base": [0.0, 0.0], "other": [1.0, 1.0]}
        assert client.get("/versions").json()[0]["title"] == "t"
        assert client.get("/lab/status?generation=1").json()["status"] == "starting"
        refused = client.post("/promote", json={"generation": 1, "candidate_hash": "abcdef"})
        assert refused.status_code == 409
