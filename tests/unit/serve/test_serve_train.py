"""`/train` against a small HTTP server that plays Airflow's REST API."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi.testclient import TestClient

from product_classifier.core.workspace import Workspace
from product_classifier.serve.airflow_client import AirflowClient
from product_classifier.serve.app import create_app
from serving import bearer, serve_settings
from slow_server import slow_server

ADMIN = bearer("root", "admin")
PASSWORD = "trigger-password-4711"
RUNS = "/api/v2/dags/ml_pipeline/dagRuns"


class Airflow(ThreadingHTTPServer):
    """Signs one account in, starts runs and shows them."""

    daemon_threads = True

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.refusal: tuple[int, Any] | None = None
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Airflow

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.append(self.path)
        if self.path == "/auth/token":
            good = body == {"username": "trigger", "password": PASSWORD}
            self._answer(*((201, {"access_token": "air"}) if good else (401, {"detail": "no"})))
        elif self.headers["Authorization"] != "Bearer air":
            self._answer(401, {"detail": "no"})
        elif self.server.refusal:
            self._answer(*self.server.refusal)
        elif self.path == RUNS and "logical_date" in body and body["logical_date"] is None:
            run_id = f"manual__2026-11-21T10:00:0{len(self.server.runs)}+00:00"
            self.server.runs[run_id] = {
                "dag_run_id": run_id,
                "state": "queued",
                "conf": body["conf"],
                "start_date": None,
                "end_date": None,
            }
            self._answer(200, self.server.runs[run_id])
        else:
            self._answer(404, {"detail": "no such page"})

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        run = self.server.runs.get(unquote(self.path.removeprefix(RUNS + "/")))
        self._answer(*((200, run) if run else (404, {"detail": "not found"})))

    def _answer(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    server = Airflow()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@contextmanager
def client_of(
    workspace: Workspace, url: str, password: str | None = PASSWORD, seconds: float = 4.5
) -> Iterator[TestClient]:
    settings = serve_settings(airflow_api_url=url, airflow_trigger_password=password)
    app = create_app(settings, workspace)
    app.state.airflow = AirflowClient(settings, total_seconds=seconds)
    with TestClient(app, headers=ADMIN) as client:
        yield client


def test_an_admin_starts_a_run_and_follows_it(workspace: Workspace, airflow: Airflow) -> None:
    with client_of(workspace, airflow.url) as client:
        answer = client.post("/train", json={"params": {"fresh": True}})
        assert answer.status_code == 202
        run = answer.json()
        assert run["state"] == "queued"
        assert run["url"].startswith(f"{airflow.url}/dags/ml_pipeline/runs/manual__")
        assert airflow.runs[run["run_id"]]["conf"] == {"fresh": True}
        airflow.runs[run["run_id"]].update(state="running", start_date="2026-11-21T10:00:05Z")
        seen = client.get(f"/train/{run['run_id']}").json()
    assert seen["state"] == "running"
    assert seen["started_at"] == "2026-11-21T10:00:05Z"


def test_parameters_are_optional(workspace: Workspace, airflow: Airflow) -> None:
    with client_of(workspace, airflow.url) as client:
        assert client.post("/train").status_code == 202
        assert client.post("/train", json={}).status_code == 202
        assert client.post("/train", json={"parameters": {}}).status_code == 422
    assert [run["conf"] for run in airflow.runs.values()] == [{}, {}]


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", '"\\ud800"', '{"\\udfff": 1}'])
def test_parameters_that_are_no_json_are_422(
    workspace: Workspace, airflow: Airflow, value: str
) -> None:
    with client_of(workspace, airflow.url) as client:
        content = f'{{"params": {{"epochs": {value}}}}}'
        answer = client.post(
            "/train", content=content, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "params"
    assert airflow.paths == []


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "detail", ["epochs must be positive", [{"msg": "epochs must be positive"}]]
)
def test_parameters_that_airflow_refuses_are_422_with_its_reason(
    workspace: Workspace, airflow: Airflow, status: int, detail: Any
) -> None:
    airflow.refusal = (status, {"detail": detail})
    with client_of(workspace, airflow.url) as client:
        answer = client.post("/train", json={"params": {"epochs": -1}})
    assert answer.status_code == 422
    assert "epochs must be positive" in answer.json()["detail"]


@pytest.mark.parametrize(
    "refusal", [(403, {}), (409, {}), (500, b"oops"), (404, {}), (200, b"no json"), (200, [])]
)
def test_an_airflow_that_can_not_is_503(
    workspace: Workspace, airflow: Airflow, refusal: tuple[int, Any]
) -> None:
    airflow.refusal = refusal
    with client_of(workspace, airflow.url) as client:
        answer = client.post("/train")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "30"


def test_a_wrong_or_missing_account_is_503_and_shows_no_secret(
    workspace: Workspace, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    for password in ("another-password-42", None):
        with client_of(workspace, airflow.url, password) as client:
            answer = client.post("/train")
        assert answer.status_code == 503
        assert "another-password" not in answer.text + caplog.text


@pytest.mark.parametrize(
    "run_id", ["unknown", "a%2F..%2F..", "%2e%2e", "%2e%2e%2fx", "x" * 300, "a b"]
)
def test_runs_that_are_not_there_are_404_and_paths_can_not_be_left(
    workspace: Workspace, airflow: Airflow, run_id: str
) -> None:
    with client_of(workspace, airflow.url) as client:
        assert client.get(f"/train/{run_id}").status_code == 404
    assert all(path in ("/auth/token", f"{RUNS}/unknown") for path in airflow.paths)


def test_airflow_away_is_503(workspace: Workspace) -> None:
    with client_of(workspace, "http://127.0.0.1:9") as client:
        assert client.post("/train").status_code == 503
        assert client.get("/train/x").status_code == 503


@pytest.mark.parametrize("drip", [b"", b" "], ids=["hangs", "drips"])
def test_an_airflow_that_hangs_or_drips_is_503_after_the_deadline(
    workspace: Workspace, drip: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" if drip else b""
    with slow_server(head, drip) as url, client_of(workspace, url, seconds=0.5) as client:
        began = time.monotonic()
        assert client.post("/train").status_code == 503
        assert time.monotonic() - began < 15  # the server would take 60, or go on for ever
