"""What Prometheus is told, and that callers can't make series."""

from fastapi.testclient import TestClient

from guarded_app import AUTHORIZATION, guarded_app


def series(client: TestClient) -> list[str]:
    return [line for line in client.get("/metrics").text.splitlines() if line.startswith("http_")]


def test_error_series_are_there_before_the_first_error() -> None:
    with TestClient(guarded_app()) as client:
        lines = series(client)
    for handler, method in (("/upload", "POST"), ("/items/{number}", "GET")):
        for status in ("2xx", "4xx", "5xx"):
            labels = f'handler="{handler}",method="{method}",status="{status}"'
            assert f"http_requests_total{{{labels}}} 0.0" in lines


def test_callers_can_not_make_series() -> None:
    with TestClient(guarded_app(), headers=AUTHORIZATION) as client:
        before = len(series(client))
        for number in range(50):
            client.get(f"/nothing-{number}")
            client.get(f"/items/{number}")
            client.request(f"METHOD{number}", "/open")
            client.request(f"METHOD{number}", f"/nothing-{number}")
        text = "\n".join(lines := series(client))
    assert "METHOD" not in text
    assert "nothing-" not in text
    assert 'http_requests_total{handler="none",method="GET",status="4xx"} 50.0' in lines
    assert len(lines) - before < 100  # of a few new pairs, each with its buckets


def test_refusals_of_the_guard_are_counted_under_their_route() -> None:
    with TestClient(guarded_app()) as client:
        client.post("/upload")
        labels = 'handler="/upload",method="POST",status="4xx"'
        assert f"http_requests_total{{{labels}}} 1.0" in series(client)


def test_two_apps_in_one_process_do_not_mix() -> None:
    with TestClient(guarded_app()) as first, TestClient(guarded_app()) as second:
        first.get("/open")
        labels = 'handler="/open",method="GET",status="2xx"'
        assert f"http_requests_total{{{labels}}} 1.0" in series(first)
        assert f"http_requests_total{{{labels}}} 0.0" in series(second)
