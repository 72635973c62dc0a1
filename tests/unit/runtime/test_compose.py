"""Containers as the engine lists them, and the logs of tasks over Airflow's API."""

import json

import httpx
import pytest
from dotenv import dotenv_values
from rich.console import Console

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.runtime import compose_report, compose_start
from product_classifier.runtime.airflow_api import AirflowAPI
from product_classifier.runtime.compose import Compose, parse_container
from product_classifier.runtime.dotenv import STACK_SECRETS

TASK = {"task_id": "training_stage.run", "try_number": 2, "map_index": -1}


def line(service="airflow-worker", state="running", status="Up 4 seconds (healthy)", **labels):
    labels = {"com.docker.compose.service": service, "com.docker.compose.project": "p", **labels}
    return json.dumps(
        {
            "ID": service,
            "Names": f"p-{service}-1",
            "State": state,
            "Status": status,
            "Ports": "127.0.0.1:8000->8000/tcp, 8080/tcp",
            "Labels": ",".join(f"{name}={value}" for name, value in labels.items()),
        }
    )


@pytest.mark.parametrize(
    ("state", "status", "healthy"),
    [
        ("running", "Up 4 seconds (healthy)", True),
        ("running", "Up 4 seconds", True),
        ("running", "Up 4 seconds (health: starting)", False),
        ("running", "Up 2 minutes (unhealthy)", False),
        ("exited", "Exited (0) 3 minutes ago", True),
        ("exited", "Exited (137) 3 minutes ago", False),
        ("created", "Created", False),
        ("restarting", "Restarting (1) 2 seconds ago", False),
    ],
)
def test_health_is_read_from_the_engines_words(state, status, healthy):
    assert parse_container(line(state=state, status=status)).healthy is healthy


def test_a_deployed_service_has_its_own_name_and_must_run():
    labels = {"product-classifier.name": "serve", "product-classifier.role": "service"}
    container = parse_container(line("x", "exited", "Exited (0) 1 second ago", **labels))
    assert (container.service, container.role) == ("serve", "service")
    assert not container.healthy


@pytest.fixture
def stack(layout, monkeypatch):
    compose = Compose(layout, "p")
    deployed = {"product-classifier.name": "serve", "product-classifier.role": "service"}
    lines = [
        line("airflow-init", "exited", "Exited (0) 3 minutes ago"),
        line("gateway"),
        line("deployed", "running", "Up 1 second (unhealthy)", **deployed),
    ]
    found = [parse_container(text) for text in lines]
    monkeypatch.setattr(compose, "containers", lambda: found)
    return compose


def test_status_shows_every_container_and_what_is_wrong(stack, settings, monkeypatch):
    monkeypatch.setattr(compose_report, "last_run_line", lambda _: "Last run: none yet")
    console = Console(record=True, width=80)
    assert not compose_report.print_stack_status(stack, settings, console)
    text = console.export_text()
    for expected in ("airflow-init", "done", "gateway", "localhost:8000", "unhealthy"):
        assert expected in text


def test_logs_of_an_unknown_service_name_the_known_ones(stack):
    with pytest.raises(ConfigurationError, match="airflow-init, gateway, serve"):
        compose_report.show_stack_logs(stack, "server", lines=5, follow=False)


def test_stop_of_nothing_does_nothing(layout, monkeypatch):
    compose = Compose(layout, "p")
    monkeypatch.setattr(compose, "containers", list)
    assert compose.stop(5) is False


def test_without_docker_the_reason_is_said(layout, monkeypatch):
    monkeypatch.setenv("PATH", str(layout.root))
    with pytest.raises(RuntimeServiceError, match="no docker"):
        Compose(layout, "p").containers()


def test_a_first_start_generates_the_secrets_of_the_stack(layout, monkeypatch):
    monkeypatch.setattr(compose_start, "docker", lambda *_: "")
    monkeypatch.chdir(layout.root)
    compose_start.complete_stack_dotenv(layout)
    written = dotenv_values(layout.dotenv)
    assert set(STACK_SECRETS) <= set(written)
    assert len({written[name] for name in STACK_SECRETS}) == len(STACK_SECRETS)
    assert all(len(written[name]) >= 20 for name in STACK_SECRETS)


def test_no_new_password_is_made_for_a_database_that_has_another(layout, monkeypatch):
    volumes = "another\nproduct-classifier_postgres-data\n"
    monkeypatch.setattr(compose_start, "docker", lambda *_: volumes)
    monkeypatch.chdir(layout.root)
    with pytest.raises(ConfigurationError, match="Bring that .env back"):
        compose_start.complete_stack_dotenv(layout)
    assert not layout.dotenv.exists()


def test_a_tasks_log_is_read_over_the_api_and_not_at_each_poll(settings):
    asked = []

    def answer(request):
        asked.append(request.url)
        events = [{"event": "::group::noise"}, {"event": "epoch 1"}, {"event": "epoch 2"}]
        return httpx.Response(200, json={"content": events, "access_token": "t"})

    api = AirflowAPI(settings)
    api._http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://airflow")
    read = compose_start.LogReader(api, "r1")
    assert read(TASK, 1) == ["epoch 2"]
    assert read(TASK, 1) == ["epoch 2"]
    paths = [url.path for url in asked]
    assert paths == [
        "/auth/token",
        "/api/v2/dags/ml_pipeline/dagRuns/r1/taskInstances/training_stage.run/logs/2",
    ]


def test_a_log_that_can_not_be_read_stops_nothing(settings):
    def refuse(request):
        raise httpx.ConnectError("away")

    api = AirflowAPI(settings)
    api._http = httpx.Client(transport=httpx.MockTransport(refuse), base_url="http://airflow")
    assert compose_start.LogReader(api, "r1")(TASK, 5) == []


def test_ports_of_this_machine_are_read_off_a_containers_line():
    shown = "127.0.0.1:18000->8000/tcp, 0.0.0.0:9000-9002->9000-9002/tcp, [::]:7->7/tcp, 9101/tcp"
    container = parse_container(json.dumps({"ID": "1", "Ports": shown}))
    assert container.published_ports == {18000, 9000, 9001, 9002, 7}
    assert parse_container(json.dumps({"ID": "1"})).published_ports == set()
