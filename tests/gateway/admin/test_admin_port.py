"""What every call of the admin port has in common: paths, methods, errors, probes."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import httpx2
import pytest

from gateway.admin.app import build_admin
from gateway.admin.audit_parts import AuditParts
from gateway.admin.figures import quantile, read_figures
from gateway.admin.problems import STATUSES, problem
from gateway.book import Book
from gateway.controlplane import ControlPlane
from gateway.errors import ChangeError, GatewayError, InvalidDocument

WithAdmin = Callable[..., None]


def test_path_that_is_not_there_is_a_problem_and_never_a_redirect(with_admin: WithAdmin) -> None:
    paths = (
        "/",
        "/admin/v1/nothing",
        "/admin/v1/models/",
        "/admin/v1/routes/fraud/",
        "/admin/v1/routes/a%2Fb",
        "/healthz/",
        "//healthz",
        "/admin/v1/models/../../healthz",
        "/%ff%00",
    )

    async def test(at: Any) -> None:
        for path in paths:
            answer = await at.http.get(path)
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] in ("unknown_path", "not_found")

    with_admin(test)


def test_method_that_a_path_does_not_have_is_a_problem_that_names_those_it_has(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        for method, path, allowed in (
            ("DELETE", "/admin/v1/routes/fraud", "GET, HEAD, PUT"),
            ("GET", "/admin/v1/models/fraud/versions", "POST"),
            ("OPTIONS", "/admin/v1/cohorts/beta", "DELETE, GET, HEAD, PUT"),
            ("PROPFIND", "/metrics", "GET, HEAD"),
        ):
            answer = await at.http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
            assert answer.json()["code"] == "method_not_allowed"
            assert allowed in answer.json()["detail"]

    with_admin(test)


def test_metrics_are_prometheus_text(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        answer = await at.http.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "pointsman_build_info{" in answer.text
        assert (await at.http.head("/metrics")).content == b""

    with_admin(test)


def test_readiness_says_why_not(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        ready = await at.http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True})
        at.troubles.append("no worker takes requests")
        waiting = await at.http.get("/readyz")
        assert (waiting.status_code, waiting.json()) == (503, {"ready": False, "why": ["no worker takes requests"]})
        assert (await at.http.get("/healthz")).json() == {"live": True}

    with_admin(test)


def test_defect_is_a_problem_without_a_stack_trace_and_with_one_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        nothing = cast(Any, None)  # parts that are missing break every handler that needs them
        app = build_admin(cast(ControlPlane, nothing), cast(AuditParts, nothing), cast(Book, nothing))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://admin") as http:
            for path in ("/metrics", "/admin/v1/models", "/admin/v1/routes/fraud", "/admin/v1/audit/requests/a"):
                answer = await http.get(path)
                assert answer.status_code == 500
                assert answer.json()["code"] == "internal_error"
                assert "NoneType" not in answer.text
                assert "Traceback" not in answer.text

    asyncio.run(test())
    assert "AttributeError" in capfd.readouterr().out


def test_every_error_of_a_change_has_a_status_of_its_own() -> None:
    def leaves(kind: type[GatewayError]) -> list[type[GatewayError]]:
        return [kind, *(leaf for inner in kind.__subclasses__() for leaf in leaves(inner))]

    assert {kind.code for kind in leaves(ChangeError)} - {"internal_error"} <= set(STATUSES)
    assert set(STATUSES) <= {kind.code for kind in leaves(GatewayError)}


def test_message_that_is_no_unicode_is_still_a_problem() -> None:
    answer = problem(InvalidDocument("a", "the value \ud800"))
    assert json.loads(bytes(answer.body))["detail"] == "a: the value \\ud800"


SCRAPE = """\
# HELP pointsman_requests_total Requests
# TYPE pointsman_requests_total counter
pointsman_requests_total{model="m",version="1",outcome="served"} 100.0
pointsman_requests_total{model="m",version="1",outcome="refused"} 2.0
pointsman_requests_total{model="_unknown",version="_none",outcome="refused"} 1.0
pointsman_request_latency_seconds_bucket{le="0.001",model="m",version="1"} 50.0
pointsman_request_latency_seconds_bucket{le="0.002",model="m",version="1"} 100.0
pointsman_request_latency_seconds_bucket{le="+Inf",model="m",version="1"} 100.0
pointsman_request_latency_seconds_count{model="m",version="1"} 100.0
pointsman_request_latency_seconds_sum{model="m",version="1"} 0.11
pointsman_shadow_requests_total{model="m",version="3",outcome="failed"} 1e+06
pointsman_rules_age_seconds{worker="worker-0"} 0.02
"""


def test_figures_are_those_of_the_scrape() -> None:
    figures = read_figures(SCRAPE)
    assert figures["m", "1"] == {
        "requests": {"served": 100, "refused": 2},
        "latency_ms": {"mean": 1.1, "p50": 1.0, "p99": 1.98},
    }
    assert figures["m", "3"] == {"shadow_requests": {"failed": 1_000_000}}


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (0.95, 4.0), (1.0, 4.0)],
)
def test_quantile_is_linear_within_a_bucket_and_stays_below_the_last_bound(fraction: float, expected: float) -> None:
    # Counted: 50 up to 1, none from 1 to 2, 40 from 2 to 4, 10 above: the rank 75 is 25 into the bucket from 2 to 4.
    buckets = [(1.0, 50.0), (2.0, 50.0), (4.0, 90.0), (float("inf"), 100.0)]
    assert quantile(fraction, buckets) == pytest.approx(expected if fraction != 0.75 else 2 + 2 * 25 / 40)
