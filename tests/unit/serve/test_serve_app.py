"""The whole app in this process: who may see what, status, model, logs; what stops it from starting."""

import asyncio
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from redis.asyncio import Redis

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.workspace import Workspace
from product_classifier.serve import log_store
from product_classifier.serve.app import create_app
from product_classifier.serve.log_store import KEY, LogStore, level_of, select, summarise
from redis_process import running_redis
from serving import bearer, champion_workspace, serve_settings

ADMIN = bearer("root", "admin")
USER = bearer()


@pytest.fixture(scope="module")
def served(
    trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    workspace = champion_workspace(trained_workspace, tmp_path_factory.mktemp("serve") / "a b")
    with TestClient(create_app(serve_settings(), workspace)) as client:
        yield client


@pytest.fixture
def empty(workspace: Workspace) -> Iterator[TestClient]:
    """No champion yet."""
    with TestClient(create_app(serve_settings(), workspace)) as client:
        yield client


def predict(client: TestClient, title: str, path: str = "/predict") -> None:
    # A field without a file name makes the form multipart.
    answer = client.post(path, files={"designation": (None, title)}, headers=USER)
    assert answer.status_code == 200, answer.text


def photo() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_earlier_systems_pages_are_kept(served: TestClient) -> None:
    assert "Bienvenue" in served.get("/").json()["message"]
    assert served.get("/status").json() == {"status": "L'API fonctionne correctement"}


def test_health_and_readiness_with_a_model(served: TestClient) -> None:
    assert served.get("/health").json()["model_loaded"] is True
    ready = served.get("/ready").json()
    assert ready["status"] == "ready"
    assert ready["warmed"] is True
    assert ready["bundle_id"] == served.get("/model/info", headers=USER).json()["bundle_id"]


def test_without_a_model_it_lives_but_is_not_ready(empty: TestClient) -> None:
    assert empty.get("/health").json()["model_loaded"] is False
    answer = empty.get("/ready")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    for path in ("/model/info", "/metrics/model", "/metrics/kpis", "/metrics/feature-distribution"):
        assert empty.get(path, headers=USER).status_code == 503
    assert empty.get("/metrics/system", headers=USER).status_code == 200


def test_a_prediction_through_all_layers(served: TestClient) -> None:
    files = {"image": ("a.jpg", photo(), "image/jpeg")}
    answer = served.post("/predict", data={"designation": "Livre"}, files=files, headers=USER)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["bundle_id"] == served.get("/ready").json()["bundle_id"]
    assert int(answer.headers["x-ratelimit-limit"]) == 10_000
    assert int(answer.headers["x-ratelimit-remaining"]) < 10_000


PROTECTED = [
    ("GET", "/model/info"),
    ("GET", "/model-info"),
    ("POST", "/model/reload"),
    ("GET", "/metrics/model"),
    ("GET", "/metrics/system"),
    ("GET", "/metrics/kpis"),
    ("GET", "/metrics/feature-distribution"),
    ("POST", "/predict"),
    ("POST", "/predict_code"),
    ("POST", "/predict/batch"),
    ("GET", "/logs"),
    ("GET", "/logs/stats"),
    ("DELETE", "/logs"),
    ("POST", "/train"),
    ("GET", "/train/x"),
    ("POST", "/logout"),
    ("GET", "/metrics/"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED, ids=[f"{m} {p}" for m, p in PROTECTED])
def test_everything_else_needs_a_token(served: TestClient, method: str, path: str) -> None:
    answer = served.request(method, path)
    assert answer.status_code == 401
    assert answer.json()["status"] == 401


def test_the_list_of_public_routes_is_complete(served: TestClient) -> None:
    app: Any = served.app
    public = {
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        if "security" not in operation
    }
    assert public == {
        ("GET", "/"),
        ("GET", "/status"),
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("POST", "/token"),
        ("POST", "/token/refresh"),
    }
    for method, path in public:
        assert served.request(method, path).status_code != 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/model/reload"),
        ("GET", "/logs"),
        ("GET", "/logs/stats"),
        ("DELETE", "/logs"),
        ("POST", "/train"),
        ("GET", "/train/x"),
    ],
)
def test_users_who_are_no_admins_are_403(served: TestClient, method: str, path: str) -> None:
    assert served.request(method, path, headers=USER).status_code == 403


def test_model_info_tells_the_lineage(served: TestClient) -> None:
    info = served.get("/model/info", headers=USER).json()
    assert served.get("/model-info", headers=USER).json() == info
    assert info["content_id"].startswith(info["bundle_id"])
    assert len(info["labels"]) == 27
    assert {"code", "fr", "en"} <= info["labels"][0].keys()
    assert info["precision"] == "float32"
    assert info["metrics"]["fusion"]["macro_f1"] > 0


def test_metrics_pages_show_the_test_beside_what_was_seen(served: TestClient) -> None:
    before = served.get("/metrics/kpis", headers=USER).json()
    predict(served, "Livre de poche")
    after = served.get("/metrics/kpis", headers=USER).json()
    assert after["live"]["answered"] == before["live"]["answered"] + 1
    assert after["expected"]["target_precision"] == 0.98
    spread = served.get("/metrics/feature-distribution", headers=USER).json()
    assert spread["reference"]
    assert spread["live"]["products"] >= 1
    assert served.get("/metrics/system", headers=USER).json()["process"]["memory_bytes"] > 0
    assert served.get("/metrics/model", headers=USER).json()["metrics"]["fusion"]["n"] > 0


def test_prometheus_sees_requests_and_predictions_under_templates(served: TestClient) -> None:
    served.get("/train/some-run", headers=USER)
    text = served.get("/metrics").text
    assert 'handler="/train/{run_id}"' in text
    assert "some-run" not in text
    assert 'http_requests_total{handler="/predict",method="POST",status="5xx"} 0.0' in text
    assert "product_classifier_predictions_total" in text
    assert "product_classifier_build_info" in text


def test_reload_says_that_nothing_changed(served: TestClient) -> None:
    answer = served.post("/model/reload", headers=ADMIN)
    assert answer.json()["outcome"] == "unchanged"


def test_reload_without_a_champion_is_409(empty: TestClient) -> None:
    answer = empty.post("/model/reload", headers=ADMIN)
    assert answer.status_code == 409
    assert answer.json()["outcome"] == "refused"


def test_logs_hold_requests_without_payloads_and_tokens(
    served: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    served.delete("/logs", headers=ADMIN)
    with caplog.at_level(logging.INFO, "product_classifier.access"):
        secret = "a very secret title"
        predict(served, secret, "/predict?q=secret")
        served.get("/nowhere")
        entries = served.get("/logs", headers=ADMIN).json()["entries"]
    refused, predicted = entries[0], entries[1]
    assert (refused["status"], refused["level"], refused["route"]) == (401, "WARNING", "unmatched")
    assert (predicted["status"], predicted["level"]) == (200, "INFO")
    assert predicted["route"] == "/predict"
    assert predicted["user"] == "alice"
    assert predicted["bundle_id"]
    assert predicted["address"]
    everything = str(entries) + caplog.text + str([vars(record) for record in caplog.records])
    assert "secret" not in everything
    assert USER["Authorization"].split(" ")[1] not in everything


def test_logs_are_picked_by_level_moment_and_number(served: TestClient) -> None:
    served.delete("/logs", headers=ADMIN)
    served.get("/status")
    served.get("/nowhere")
    levels = {"level": "WARNING"}
    only = served.get("/logs", params=levels, headers=ADMIN).json()["entries"]
    assert [entry["status"] for entry in only] == [401]
    assert len(served.get("/logs", params={"limit": 1}, headers=ADMIN).json()["entries"]) == 1
    later = {"since": "2999-01-01T00:00:00Z"}
    assert served.get("/logs", params=later, headers=ADMIN).json()["entries"] == []
    statistics = served.get("/logs/stats", headers=ADMIN).json()
    assert statistics["levels"]["WARNING"] == 1
    assert statistics["routes"]["/status"] == 1
    assert statistics["milliseconds"]["p95"] >= statistics["milliseconds"]["p50"]


@pytest.mark.parametrize(
    "query",
    ["level=LOUD", "limit=0", "limit=1001", "since=yesterday"],
)
def test_nonsense_in_the_logs_query_is_422(served: TestClient, query: str) -> None:
    answer = served.get(f"/logs?{query}", headers=ADMIN)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_documentation_loads_nothing_from_elsewhere(served: TestClient) -> None:
    for path in ("/docs", "/redoc"):
        page = served.get(path)
        assert page.status_code == 200
        assert "https://" not in page.text.replace("https://fastapi", "")
        assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js", "favicon.png"):
        assert served.get(f"/docs/assets/{name}").status_code == 200
    schemes = served.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["OAuth2Password"]["flows"]["password"]["tokenUrl"] == "token"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"secret_key": None}, "SECRET_KEY"),
        ({"secret_key": "changeme"}, "SECRET_KEY"),
        ({"secret_key": "short-but-random-3f8a"}, "SECRET_KEY"),
        ({"predict_rate_limit": "many"}, "PREDICT_RATE_LIMIT"),
        ({"predict_rate_limit": ""}, "PREDICT_RATE_LIMIT"),
        ({"predict_rate_limit": "0/minute"}, "PREDICT_RATE_LIMIT"),
        ({"predict_batch_rate_limit": "10/fortnight"}, "PREDICT_BATCH_RATE_LIMIT"),
        ({"anonymous_rate_limit": "-1/minute"}, "ANONYMOUS_RATE_LIMIT"),
        ({"trusted_proxies": "10.0.0.0/8,nonsense"}, "TRUSTED_PROXIES"),
        ({"trusted_proxies": "10.0.0.1/8"}, "TRUSTED_PROXIES"),
        ({"cors_allow_origins": "*"}, "CORS_ALLOW_ORIGINS"),
        ({"cors_allow_origins": "shop.example"}, "CORS_ALLOW_ORIGINS"),
        ({"cors_allow_origins": "https://shop.example/path"}, "CORS_ALLOW_ORIGINS"),
        ({"redis_url": "http://:hunter2@127.0.0.1"}, "REDIS_URL"),
        ({"redis_url": "redis://:hunter2@127.0.0.1:notaport"}, "REDIS_URL"),
        ({"auth_url": "nonsense"}, "AUTH_URL"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_nonsense_settings_stop_it_with_their_name(
    workspace: Workspace, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        create_app(serve_settings(**values), workspace)
    assert "hunter2" not in str(caught.value)
    assert "short-but" not in str(caught.value)


def test_levels_selection_and_statistics() -> None:
    assert [level_of(status) for status in (200, 302, 404, 499, 500)] == [
        "INFO",
        "INFO",
        "WARNING",
        "WARNING",
        "ERROR",
    ]
    entries = [
        {"level": "INFO", "time": float(n), "status": 200, "milliseconds": n} for n in range(100)
    ]
    assert len(select(entries, "INFO", 90.0, 5)) == 5
    assert summarise(entries)["milliseconds"] == {"p50": 49.0, "p95": 94.0}
    assert summarise([])["milliseconds"] == {"p50": None, "p95": None}


def test_the_store_in_memory_keeps_the_last_only() -> None:
    async def work() -> list[dict[str, Any]]:
        store = LogStore(None, 3)
        for number in range(5):
            store.add({"time": number, "status": 200, "number": number})
        return await store.entries()

    assert [entry["number"] for entry in asyncio.run(work())] == [4, 3, 2]


def test_lines_in_redis_that_are_not_ours_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_store, "REDIS_SECONDS", 20.0)  # this machine may be busy
    lines = ["no json", "{}", "[]", '{"time": NaN, "status": 200}', '{"time": 1, "status": "200"}']
    lines += ['{"time": "x", "status": 200}', '{"time": 2, "status": 404}']

    async def work() -> list[dict[str, Any]]:
        with running_redis(tmp_path) as redis:
            async with Redis.from_url(redis.url) as client:
                await client.rpush(KEY, *lines)  # type: ignore[misc]
            store = LogStore(redis.url, 100)
            entries = await store.entries()
            await store.close()
        return entries

    assert asyncio.run(work()) == [{"time": 2.0, "status": 404, "level": "WARNING"}]


def test_no_store_keeps_nothing(tmp_path: Path) -> None:
    store = LogStore(None, 0)
    store.add({"time": 0, "status": 200})
    assert asyncio.run(store.entries()) == []
