"""Request ids, the log line, headers of every answer, methods, CORS, and addresses behind proxies."""

import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from guarded_app import AUTHORIZATION, guarded_app
from product_classifier.core.errors import ConfigurationError
from product_classifier.web import neighbours
from product_classifier.web.app import parse_origins
from product_classifier.web.crowd import CrowdLimit
from product_classifier.web.problems import MEDIA_TYPE
from product_classifier.web.proxies import TrustedProxies, client_address


@pytest.mark.parametrize("given", ["abc", "A.b_c-9", "x" * 64])
def test_a_request_id_is_taken_from_the_caller(given: str) -> None:
    with TestClient(guarded_app()) as client:
        answer = client.get("/open", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a\tb", 'a"b', "é", "a;b"])
def test_another_request_id_is_replaced(given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given.encode("latin-1")}
    with TestClient(guarded_app()) as client:
        answer = client.get("/nothing", headers=headers)  # type: ignore[arg-type]
    made = answer.headers["x-request-id"]
    assert made != given
    assert len(made) == 32
    assert answer.json()["request_id"] == made


def test_polls_that_find_all_well_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    entries: list[dict[str, Any]] = []
    caplog.set_level(logging.DEBUG, "product_classifier.access")
    with TestClient(guarded_app(on_entry=entries.append)) as client:
        assert client.get("/health").status_code == 200
        assert client.post("/health").status_code == 405
    lines = [record for record in caplog.records if record.name == "product_classifier.access"]
    assert [line.levelno for line in lines] == [logging.DEBUG, logging.INFO]
    assert [entry["status"] for entry in entries] == [405]


def test_every_request_makes_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    entries: list[dict[str, Any]] = []
    caplog.set_level(logging.INFO, "product_classifier.access")
    with TestClient(guarded_app(on_entry=entries.append), client=("10.0.0.1", 1)) as client:
        client.get("/who", headers={**AUTHORIZATION, "X-Request-ID": "r1"})
        client.get("/items/8675309?token=hidden", headers=AUTHORIZATION)
        client.get("/secret-path", headers=AUTHORIZATION)
        client.request("BREW", "/open")
    lines = [record for record in caplog.records if record.name == "product_classifier.access"]
    assert len(lines) == len(entries) == 4
    first = vars(lines[0])
    wanted = {"request_id": "r1", "method": "GET", "route": "/who", "status": 200}
    wanted |= {"user": "alice", "bundle_id": "b1", "address": "10.0.0.1"}
    assert {name: first[name] for name in wanted} == wanted
    assert first["milliseconds"] >= 0
    assert [entry["route"] for entry in entries] == [
        "/who",
        "/items/{number}",
        "unmatched",
        "/open",
    ]
    assert entries[3]["method"] == "OTHER"
    everything = caplog.text + str(entries) + str([vars(line) for line in lines])
    for hidden in ("hidden", "secret-path", "BREW", "8675309", "good.token"):
        assert hidden not in everything


@pytest.mark.parametrize("path", ["/open", "/nothing", "/fault", "/items/x"])
def test_every_answer_has_the_security_headers(path: str) -> None:
    with TestClient(guarded_app(), headers=AUTHORIZATION) as client:
        headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_a_fault_is_500_without_details_and_logged_with_the_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with TestClient(guarded_app(), headers=AUTHORIZATION) as client:
        answer = client.get("/fault", headers={"X-Request-ID": "r9"})
        assert 'handler="/fault",method="GET",status="5xx"} 1.0' in client.get("/metrics").text
    assert answer.status_code == 500
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "secret detail" not in answer.text
    assert answer.json()["request_id"] == "r9"
    [record] = [record for record in caplog.records if record.exc_info]
    assert vars(record)["request_id"] == "r9"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/open", 405),
        ("BREW", "/open", 405),
        ("OPTIONS", "/open", 405),
        ("GET", "/items/x", 422),
        ("GET", "/problem", 409),
        ("GET", "/docs/assets/nothing", 404),
        ("POST", "/docs/assets/favicon.png", 405),
        ("GET", "/%ff%fe", 404),
    ],
)
def test_every_error_is_a_problem(method: str, path: str, status: int) -> None:
    with TestClient(guarded_app(), headers=AUTHORIZATION) as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert {"type", "title", "status", "detail", "instance", "request_id"} <= answer.json().keys()
    assert answer.json()["status"] == status


def test_a_problem_keeps_its_headers_and_members() -> None:
    with TestClient(guarded_app(), headers=AUTHORIZATION) as client:
        answer = client.get("/problem")
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["field"] == "name"


def test_validation_names_fields_and_never_repeats_values() -> None:
    with TestClient(guarded_app(), headers=AUTHORIZATION) as client:
        answer = client.get("/items/hunter2")
    assert [error["field"] for error in answer.json()["errors"]] == ["number"]
    assert "hunter2" not in str(answer.json()["errors"]) + answer.json()["detail"]


def test_head_is_get_without_the_body() -> None:
    with TestClient(guarded_app()) as client:
        get, head = client.get("/open"), client.head("/open")
        assert client.head("/who").status_code == 401
        assert client.head("/open-post").status_code == 405
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]


def test_only_listed_origins_may_read_answers() -> None:
    app = guarded_app(origins=("https://shop.example",))
    ask = {"Access-Control-Request-Method": "POST"}
    with TestClient(app) as client:
        good = client.options("/upload", headers={"Origin": "https://shop.example", **ask})
        bad = client.options("/upload", headers={"Origin": "https://evil.example", **ask})
        refused = client.get("/who", headers={"Origin": "https://shop.example"})
        other = client.get("/open", headers={"Origin": "https://evil.example"})
    assert good.status_code == 200
    assert good.headers["access-control-allow-origin"] == "https://shop.example"
    assert bad.status_code == 400
    assert bad.headers["content-type"] == MEDIA_TYPE
    assert "access-control-allow-origin" not in bad.headers
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-credentials" not in refused.headers
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("text", ["*", "shop.example", "https://a.example/", "ftp://a", "null"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="CORS_ALLOW_ORIGINS"):
        parse_origins(f"https://good.example,{text}")


def test_too_many_requests_at_one_time_are_503_and_health_still_answers() -> None:
    app = guarded_app()
    for middleware in app.user_middleware:
        if middleware.cls is CrowdLimit:
            middleware.kwargs["max_requests"] = 0
    with TestClient(app) as client:
        answer = client.get("/open")
        assert client.get("/health").status_code == 200
        metrics = client.get("/metrics").text
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert 'http_requests_total{handler="/open",method="GET",status="5xx"} 1.0' in metrics


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.7", "1.1.1.1"),
        ("10.0.0.1", "10.0.0.5, 10.0.0.7", "10.0.0.5"),
        ("10.0.0.1", "1.1.1.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, nonsense, 10.0.0.7", "10.0.0.7"),
        ("10.0.0.1", "1.1.1.1:8080", "10.0.0.1"),
        ("::ffff:10.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("fd00::1", "2001:db8::5", "2001:db8::5"),
        ("testclient", "1.1.1.1", "unknown"),
        ("10.0.0.1", "6.6.6.6," * 30 + "10.0.0.2," * 25 + "10.0.0.3", "10.0.0.2"),
    ],
)
def test_the_callers_address(peer: str, forwarded: str, expected: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"client": (peer, 1), "headers": headers}
    assert client_address(scope, TrustedProxies.parse("10.0.0.0/8, fd00::/8")) == expected


def test_headers_that_come_twice_are_one_list() -> None:
    headers = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"1.1.1.1")]
    scope = {"client": ("10.0.0.1", 1), "headers": headers}
    assert client_address(scope, TrustedProxies.parse("10.0.0.1")) == "1.1.1.1"
    assert client_address(scope, TrustedProxies.parse(None)) == "10.0.0.1"
    assert client_address({"client": None, "headers": []}, TrustedProxies()) == "unknown"


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "10.0.0", "10.0.0.0/33", "*"])
def test_nonsense_proxies_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES"):
        TrustedProxies.parse(text)


ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010014AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth1\t000015AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t000014AC\t00000000\t0001\t0\t0\t0\tF8FFFFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t020014AC\t0003\t0\t0\t0\t000000FF\t0\t0\t0
"""


@pytest.fixture
def routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a container in 172.20.0.0/29, whose bridge is the way out, and in 172.21.0.0/16."""
    path = tmp_path / "route"
    path.write_text(ROUTES)
    monkeypatch.setattr(neighbours, "ROUTES", path)
    return path


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("172.20.0.5", "1.1.1.1"),  # the gateway, handing on a caller
        ("172.21.9.9", "1.1.1.1"),
        (
            "172.20.0.1",
            "172.20.0.1",
        ),  # the bridge: a caller from outside, at the published port itself
        ("172.20.0.2", "172.20.0.2"),  # another router of that network
        ("172.21.0.1", "172.21.0.1"),  # by custom the bridge, where no route names it
        ("172.20.0.8", "172.20.0.8"),
        ("10.1.2.3", "10.1.2.3"),  # behind a router is no neighbour
        ("8.8.8.8", "8.8.8.8"),
        ("192.0.2.1", "1.1.1.1"),  # named besides
    ],
)
def test_neighbours_of_a_container_are_believed_and_bridges_are_not(
    routes: Path, peer: str, expected: str
) -> None:
    trusted = TrustedProxies.parse("192.0.2.1, neighbours")
    headers = [(b"x-forwarded-for", b"6.6.6.6, 1.1.1.1")]
    assert client_address({"client": (peer, 1), "headers": headers}, trusted) == expected


def test_a_caller_who_comes_through_the_gateway_can_not_choose_an_address(routes: Path) -> None:
    headers = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"172.20.0.1")]
    scope = {"client": ("172.20.0.5", 1), "headers": headers}
    assert client_address(scope, TrustedProxies.parse(",neighbours")) == "172.20.0.1"


def test_neighbours_without_a_table_of_routes_are_refused(routes: Path) -> None:
    routes.unlink()
    with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES=neighbours is for containers"):
        TrustedProxies.parse("neighbours")
