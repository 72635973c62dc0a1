"""What Prometheus is told, and that callers can't make series."""

import re

import pytest
from fastapi.testclient import TestClient

from guarded_app import AUTHORIZATION, guarded_app
from metrics_page import series
from product_classifier import __version__
from product_classifier.web.instrumentation import COMMIT_VARIABLE
from product_classifier.web.throttle import AnonymousThrottle, Rate


def scrape(client: TestClient) -> dict[str, float]:
    return series(client.get("/metrics").text)


def requests(handler: str, method: str, status: str) -> str:
    return f'http_requests_total{{handler="{handler}",method="{method}",status="{status}"}}'


def test_series_are_there_before_the_first_request_and_error() -> None:
    with TestClient(guarded_app()) as client:
        shown = scrape(client)
    for handler, method in (("/upload", "POST"), ("/items/{number}", "GET"), ("none", "OTHER")):
        for status in ("2xx", "3xx", "4xx", "5xx"):
            assert shown[requests(handler, method, status)] == 0
        labels = f'{{handler="{handler}",method="{method}"}}'
        assert shown[f"http_request_duration_seconds_count{labels}"] == 0
        labels = f'{{handler="{handler}"}}'
        assert shown[f"product_classifier_unauthorized_requests_total{labels}"] == 0
    for who in ("user", "anonymous", "lockout"):
        assert shown[f'product_classifier_rate_limited_total{{scope="{who}"}}'] == 0
    assert shown['product_classifier_token_rejections_total{reason="expired"}'] == 0
    assert 'method="HEAD"' not in "".join(shown)  # answered as GET


def test_callers_can_not_make_series() -> None:
    with TestClient(guarded_app(), headers=AUTHORIZATION) as client:
        before = scrape(client)
        for number in range(50):
            client.get(f"/nothing-{number}")
            client.get(f"/items/{number}")
            client.put(f"/items/{number}")
            client.request(f"METHOD{number}", "/open")
            client.request(f"METHOD{number}", f"/nothing-{number}")
            client.request("HEAD", f"/docs/assets/{number}")
        after = scrape(client)
    assert after.keys() == before.keys()
    assert after[requests("none", "GET", "4xx")] == 50
    assert after[requests("none", "OTHER", "4xx")] == 150
    assert after[requests("/items/{number}", "GET", "2xx")] == 50
    assert after[requests("/docs/assets", "GET", "4xx")] == 50


def test_refusals_of_the_guard_are_counted_under_their_route() -> None:
    with TestClient(guarded_app()) as client:
        client.post("/upload")
        shown = scrape(client)
    assert shown[requests("/upload", "POST", "4xx")] == 1
    assert shown['product_classifier_unauthorized_requests_total{handler="/upload"}'] == 1


REJECTIONS = [
    ("/who", {}, 401, {"missing": 1.0}),
    ("/nowhere", {}, 401, {"missing": 1.0}),
    ("/who", {"Authorization": "Bearer forged"}, 401, {"signature": 1.0}),
    ("/who", {"Authorization": "Basic Zm9v"}, 401, {"malformed": 1.0}),
    ("/who", {"Authorization": f"Bearer {'x' * 5000}"}, 401, {"too_large": 1.0}),
    ("/who", {"Authorization": "Bearer no-keys"}, 503, {"unavailable": 1.0}),
    ("/open", {}, 200, {}),  # nobody asked for a token there
    ("/open", {"Authorization": "Bearer forged"}, 200, {}),
    ("/open", {"Authorization": "Basic Zm9v"}, 200, {}),
    ("/open", {"Authorization": "Bearer no-keys"}, 200, {}),
    ("/who", AUTHORIZATION, 200, {}),
]


@pytest.mark.parametrize(("path", "headers", "status", "expected"), REJECTIONS)
def test_refused_tokens_are_counted_by_reason(
    path: str, headers: dict[str, str], status: int, expected: dict[str, float]
) -> None:
    with TestClient(guarded_app()) as client:
        assert client.get(path, headers=headers).status_code == status
        shown = scrape(client)
    pattern = re.compile(r'product_classifier_token_rejections_total\{reason="(\w+)"\}')
    counted = {found[1]: value for name, value in shown.items() if (found := pattern.match(name))}
    assert {reason: value for reason, value in counted.items() if value} == expected


def test_throttled_callers_without_a_token_are_counted_apart() -> None:
    app = guarded_app(policy={"throttle": AnonymousThrottle(Rate(1, 3600))})
    with TestClient(app) as client:
        assert client.get("/open").status_code == 200
        assert client.get("/open").status_code == 429
        assert client.get("/who").status_code == 429
        shown = scrape(client)
    assert shown['product_classifier_rate_limited_total{scope="anonymous"}'] == 2
    assert shown['product_classifier_rate_limited_total{scope="user"}'] == 0
    assert shown['product_classifier_token_rejections_total{reason="missing"}'] == 0


def test_a_token_that_was_refused_counts_also_where_its_caller_is_throttled() -> None:
    app = guarded_app(policy={"throttle": AnonymousThrottle(Rate(1, 3600))})
    forged = {"Authorization": "Bearer forged"}
    with TestClient(app) as client:
        asked = [client.get(path, headers=forged) for path in ("/who", "/who", "/open")]
        assert [answer.status_code for answer in asked] == [401, 429, 429]
        assert [answer.json().get("scope") for answer in asked] == [None, "anonymous", "anonymous"]
        shown = scrape(client)
    assert shown['product_classifier_token_rejections_total{reason="signature"}'] == 2
    assert shown['product_classifier_rate_limited_total{scope="anonymous"}'] == 2


def test_a_fault_is_a_5xx_of_its_route() -> None:
    with TestClient(guarded_app(), headers=AUTHORIZATION) as client:
        client.get("/fault")
        shown = scrape(client)
    assert shown[requests("/fault", "GET", "5xx")] == 1
    assert sum(value for name, value in shown.items() if 'status="5xx"' in name) == 1


@pytest.mark.parametrize(("commit", "told"), [("abc123", "abc123"), ("", "unknown")])
def test_the_build_is_told(monkeypatch: pytest.MonkeyPatch, commit: str, told: str) -> None:
    monkeypatch.setenv(COMMIT_VARIABLE, commit)
    with TestClient(guarded_app()) as client:
        shown = scrape(client)
    labels = f'commit="{told}",service="test",version="{__version__}"'
    assert shown[f"product_classifier_build_info{{{labels}}}"] == 1


def test_two_apps_in_one_process_do_not_mix() -> None:
    with TestClient(guarded_app()) as first, TestClient(guarded_app()) as second:
        first.get("/open")
        assert scrape(first)[requests("/open", "GET", "2xx")] == 1
        assert scrape(second)[requests("/open", "GET", "2xx")] == 0
