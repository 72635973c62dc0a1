"""What the whole app tells Prometheus: as docs/metrics.md says, bounded, and true."""

import asyncio
import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from metrics_page import documented, exposed, series
from product_classifier.core import bundle as parts
from product_classifier.core.files import symlink_atomic
from product_classifier.core.workspace import Workspace
from product_classifier.serve.app import create_app
from redis_process import running_redis
from serving import bearer, champion_workspace, serve_settings
from upload_corpus import encode, picture

USER, ADMIN = bearer(), bearer("root", "admin")
PHASES = ("wait", "decode", "text", "image", "fusion")


@pytest.fixture(scope="module")
def champion(trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return champion_workspace(trained_workspace, tmp_path_factory.mktemp("metrics") / "champion")


@pytest.fixture
def served(champion: Workspace) -> Iterator[TestClient]:
    with TestClient(create_app(serve_settings(), champion)) as client:
        yield client


def scrape(client: TestClient) -> dict[str, float]:
    return series(client.get("/metrics").text)


def of(shown: dict[str, float], name: str) -> dict[str, float]:
    """The series of one metric."""
    return {key: value for key, value in shown.items() if key.startswith((f"{name}{{", f"{name} "))}


def predict(client: TestClient, photo: bytes | None = None, **texts: str) -> int:
    parts_: dict[str, Any] = {name: (None, text) for name, text in texts.items()}
    if photo is not None:
        parts_["image"] = ("a.jpg", photo, "image/jpeg")
    return client.post("/predict", files=parts_, headers=USER).status_code


def test_every_metric_is_as_the_page_says(served: TestClient) -> None:
    assert predict(served, encode(picture(), "JPEG"), designation="Livre") == 200
    assert exposed(served.get("/metrics").text) == documented("fastapi")


def test_predictions_are_counted_by_code_decision_and_modalities(served: TestClient) -> None:
    labels = served.get("/model/info", headers=USER).json()["labels"]
    before = of(scrape(served), "product_classifier_predictions_total")
    assert len(before) == 2 * len(labels)
    assert set(before.values()) == {0}
    for photo, texts in (
        (None, {"designation": "Livre ancien"}),
        (encode(picture(), "JPEG"), {"designation": "Livre ancien"}),
        (encode(picture(), "JPEG"), {}),
        (b"broken", {"designation": "Livre ancien"}),
    ):
        assert predict(served, photo, **texts) == 200
    shown = scrape(served)
    assert of(shown, "product_classifier_predictions_total").keys() == before.keys()
    assert sum(of(shown, "product_classifier_predictions_total").values()) == 4
    counts = of(shown, "product_classifier_prediction_confidence_count")
    assert counts == {
        'product_classifier_prediction_confidence_count{modalities="text+image"}': 1,
        'product_classifier_prediction_confidence_count{modalities="text"}': 2,
        'product_classifier_prediction_confidence_count{modalities="image"}': 1,
    }
    assert shown["product_classifier_photo_errors_total"] == 1


def test_phases_are_timed_and_fill_the_whole(served: TestClient) -> None:
    assert predict(served, encode(picture(), "JPEG"), designation="Livre") == 200
    shown = scrape(served)
    name = "product_classifier_inference_duration_seconds"
    assert [shown[f'{name}_count{{phase="{phase}"}}'] for phase in PHASES] == [1] * 5
    seconds = {phase: shown[f'{name}_sum{{phase="{phase}"}}'] for phase in PHASES}
    assert min(seconds.values()) > 0
    labels = '{handler="/predict",method="POST"}'
    assert sum(seconds.values()) < shown[f"http_request_duration_seconds_sum{labels}"]


def test_the_live_bundle_is_named(served: TestClient, champion: Workspace) -> None:
    bundle_id = served.get("/ready").json()["bundle_id"]
    shown = scrape(served)
    [info] = of(shown, "product_classifier_bundle_info")
    assert f'bundle_id="{bundle_id}"' in info
    assert shown["product_classifier_bundle_loaded_timestamp_seconds"] > 1.7e9
    assert shown["product_classifier_ready"] == 1
    assert shown["product_classifier_inference_queue_limit"] == 128
    served.app.state.leaving = True  # type: ignore[attr-defined]
    assert scrape(served)["product_classifier_ready"] == 0


def test_without_a_bundle_it_is_not_ready_and_nothing_has_failed(workspace: Workspace) -> None:
    with TestClient(create_app(serve_settings(), workspace)) as client:
        shown = scrape(client)
    assert shown["product_classifier_ready"] == 0
    assert shown["product_classifier_bundle_load_failures_total"] == 0
    assert shown["product_classifier_bundle_refused"] == 0
    assert shown["product_classifier_bundle_loaded_timestamp_seconds"] == 0
    assert of(shown, "product_classifier_bundle_info") == {}


def test_a_damaged_bundle_is_a_failure_at_start_and_at_each_try(
    champion: Workspace, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path)
    (workspace.releases / "damaged").mkdir(parents=True)
    manifest = (champion.champion / parts.MANIFEST).read_bytes()
    (workspace.releases / "damaged" / parts.MANIFEST).write_bytes(manifest)
    symlink_atomic("releases/damaged", workspace.champion)
    name = "product_classifier_bundle_load_failures_total"
    with TestClient(create_app(serve_settings(), workspace)) as client:
        assert scrape(client)[name] == 1
        assert client.post("/model/reload", headers=ADMIN).status_code == 409
        shown = scrape(client)
    assert shown[name] == 2
    assert shown["product_classifier_bundle_refused"] == 1
    assert shown["product_classifier_ready"] == 0


def test_users_over_their_limit_are_counted(champion: Workspace) -> None:
    app = create_app(serve_settings(predict_rate_limit="1/hour"), champion)
    with TestClient(app) as client:
        assert predict(client, designation="Livre") == 200
        assert predict(client, designation="Livre") == 429
        shown = scrape(client)
    assert shown['product_classifier_rate_limited_total{scope="user"}'] == 1
    assert shown['product_classifier_rate_limited_total{scope="anonymous"}'] == 0


def test_redis_away_is_seen_and_so_is_its_return(champion: Workspace, tmp_path: Path) -> None:
    name = 'product_classifier_redis_fallback_active{{use="{}"}}'
    both = [name.format(use) for use in ("limits", "log")]
    with running_redis(tmp_path) as redis:
        app = create_app(serve_settings(redis_url=redis.url), champion)
        with TestClient(app) as client:
            assert predict(client, designation="Livre") == 200
            until(client, both, 0)  # at once, unless this machine is too busy for its Redis
            redis.kill()
            assert predict(client, designation="Livre") == 200
            until(client, both, 1)
            redis.start()
            until(client, both, 0)  # no request but the scrapes, which are not logged


def until(client: TestClient, names: list[str], value: float) -> None:
    async def wait() -> None:
        async with asyncio.timeout(60):
            while {scrape(client)[name] for name in names} != {value}:
                await asyncio.sleep(0.1)

    asyncio.run(wait())


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT")
BEGINNINGS = ("/", "/predict/", "/train/", "/docs/assets/", "/model/", "/metrics/", "/.env?", "//")


def test_10_000_random_paths_and_methods_add_no_series(served: TestClient) -> None:
    random_ = random.Random(7)
    known = list(served.get("/openapi.json").json()["paths"])

    def word() -> str:
        return "".join(random_.choices(string.ascii_letters + string.digits + "._-%~", k=12))

    async def scan() -> set[int]:
        statuses = set()
        for _ in range(10_000):
            path = random_.choice(known) if random_.random() < 0.1 else ""
            path = path or random_.choice(BEGINNINGS) + word()
            method = word().upper() if random_.random() < 0.3 else random_.choice(METHODS)
            headers = USER if random_.random() < 0.5 else {}
            statuses.add(await ask(served.app, method, path, headers))
        return statuses

    before = scrape(served)
    assert served.portal is not None
    statuses = served.portal.call(scan)
    after = scrape(served)
    assert statuses > {200, 401, 404, 405}
    assert len(after.keys() - before.keys()) <= 5
    counted = sum(of(after, "http_requests_total").values())
    assert counted - sum(of(before, "http_requests_total").values()) >= 10_000


async def ask(app: Any, method: str, path: str, headers: dict[str, str]) -> int:
    """Asks the app as a server does; without a client's work 10,000 take seconds."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]
