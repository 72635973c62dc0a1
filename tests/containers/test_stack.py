"""The whole stack on a real engine: from `product-classifier start` to a prediction, and what may happen to it.

Our images are the real ones; what comes from a registry is stood in for by images of Debian's packages. The catalogue
is the generated one, the networks are small.
"""

import os
import signal
import subprocess
import uuid

import httpx
import pytest
from stack_checkout import USER, StackCheckout, until

from docker_program import docker
from product_classifier.core.files import read_json
from started import run_printed_commands

pytestmark = pytest.mark.timeout(2700)

STATEFUL = {"postgres-data", "redis-data", "s3-data", "airflow-logs", "auth-data"}
RUN_SECONDS = 600


@pytest.fixture(scope="module")
def stack(tmp_path_factory, images):
    root = tmp_path_factory.mktemp("stack") / "check out"
    stack = StackCheckout(root, f"pc-test-{uuid.uuid4().hex[:6]}", images["ingest"])
    yield stack
    stack.remove()


def outcome(stack, stage):
    states = stack.states()
    return {name: states[f"{stage}_stage.{name}"] for name in ("check", "run", "version")}


def changes_nothing(stack, stage):
    return outcome(stack, stage) == {"check": "success", "run": "skipped", "version": "skipped"}


JOBS = ("prometheus", "alertmanager", "node", "pipeline", "airflow", "fastapi", "auth", "gateway")


def check_monitoring(stack):
    """Prometheus asks what the pipeline deployed, past the gateway, and knows how it went."""
    until(lambda: stack.health() == dict.fromkeys(JOBS, "up"), "every target to be up", 90)
    facts = {
        "airflow_scheduler_heartbeat_total": "Airflow's StatsD",
        "product_classifier_pipeline_last_run_success": "a callback's text file",
        "product_classifier_task_runs_total{state='success',task='data_stage.run'}": "a task's",
        "product_classifier_imported_rows{split='labelled'}": "a stage's text file",
        "product_classifier_stack_started_timestamp_seconds": "the text file of the start",
        "haproxy_backend_active_servers{proxy='serve'}": "the gateway's look at serve",
        "airflow_dag_processor_heartbeat_total": "the DAG processor's heartbeat",
    }
    for expression, what in facts.items():
        until(lambda expression=expression: stack.value(expression), what, 60)
    # Nobody else reads it: the gateway answers for the service. What is below it is the service's.
    for path in ("/metrics", "/%6Detrics", "//metrics/"):
        answer = stack.get(path)
        assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")
        assert "x-request-id" not in answer.headers
    assert stack.get("/metrics/kpis").status_code == 401


def check_first_start(stack):
    result = stack.call("start", "--set", "text_epochs=8")
    assert result.returncode == 0, result.stdout + result.stderr
    for text in ("Runtime: docker", "Started", "serving_stage.smoke: success"):
        assert text in result.stdout
    assert stack.volumes() >= STATEFUL
    # What stages wrote belongs to the checkout's owner.
    if os.getuid() == 0:
        owners = {path.stat().st_uid for path in (stack.root / "models").rglob("*")}
        assert owners == {USER}
    token, answer = run_printed_commands(stack.root, result.stdout)
    assert answer["bundle_id"] == stack.champion_id()
    assert answer["modalities"] == "text+image"
    # Recorded by DVC on the object store, logged to MLflow.
    run = next(iter((stack.root / "runs").glob("*/*.json")), None)
    assert run is not None
    assert (stack.root / "dvc.lock").read_text().count("md5:") > 3
    settings = stack.settings()
    found = httpx.post(
        f"http://127.0.0.1:{settings.mlflow_port}/api/2.0/mlflow/experiments/search",
        json={"max_results": 10},
        trust_env=False,
    ).json()
    assert settings.mlflow_experiment_name in {e["name"] for e in found["experiments"]}
    check_monitoring(stack)
    assert f"http://localhost:{settings.prometheus_port}," in result.stdout
    status = stack.call("status")
    assert status.returncode == 0, status.stdout
    for name in ("alertmanager", "prometheus", "airflow-worker", "gateway", "auth", "serve", "s3"):
        assert name in status.stdout
    assert "error" not in stack.call("logs", "gateway", "-n", "5").stderr.lower()
    return token


def check_nothing_to_do(stack):
    before = stack.deployed()
    result = stack.call("start")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Running already" in result.stdout
    assert all(changes_nothing(stack, stage) for stage in ("data", "training", "prediction"))
    assert stack.deployed() == before


def check_a_changed_parameter(stack):
    params = stack.root / "params.yaml"
    params.write_text(params.read_text().replace("chunk_products: 16", "chunk_products: 12"))
    assert stack.call("start").returncode == 0
    assert changes_nothing(stack, "data")
    assert changes_nothing(stack, "training")
    assert outcome(stack, "prediction")["run"] == "success"


def train_container(stack):
    found = stack.containers("name=train")
    commands = {
        c: docker("inspect", "--format", "{{json .Config.Cmd}}", c, check=False) for c in found
    }
    # `check train` and `version train` run in the same image.
    return next((c for c, text in commands.items() if text == '["train"]'), None)


def run_until_training(stack, epochs):
    """Starts a run whose training takes a while; gives the starter and the training's container."""
    starter = stack.launch("start", "--set", f"text_epochs={epochs}")
    return starter, until(lambda: train_container(stack), "the training to start", 240)


def check_a_killed_stage_container(stack):
    starter, container = run_until_training(stack, 9)
    docker("kill", container)
    assert starter.wait(timeout=RUN_SECONDS) == 0
    assert stack.tries("training_stage.run") == 2
    assert stack.containers("role=stage", "--all") == []


def check_a_killed_worker(stack):
    starter, container = run_until_training(stack, 10)
    worker = stack.service("airflow-worker")
    # As a crash, which the restart policy answers: `docker kill` would count as somebody's wish.
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", worker)), signal.SIGKILL)
    assert starter.wait(timeout=RUN_SECONDS) == 0
    assert container not in stack.containers("role=stage", "--all")
    assert stack.containers("role=stage", "--all") == []
    assert stack.tries("training_stage.run") >= 2


def check_stop_and_start_again(stack, token):
    history = stack.airflow().last_run()["dag_run_id"]
    champion = stack.champion_id()
    assert stack.call("stop").stdout == "Stopped.\n"
    assert stack.everything() == []
    assert stack.volumes() >= STATEFUL
    assert stack.champion_id() == champion
    assert read_json(stack.workspace.predictions / "predictions.json")
    assert stack.call("stop").stdout == "Nothing ran.\n"
    # Runs, users and signing keys are as before: a token of then is good now.
    result = stack.call("start")
    assert result.returncode == 0, result.stdout + result.stderr
    runs = stack.airflow().call("GET", "dags/ml_pipeline/dagRuns", params={"limit": 50})
    assert history in {run["dag_run_id"] for run in runs["dag_runs"]}
    answer = stack.get("/model/info", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    assert run_printed_commands(stack.root, result.stdout)[1]["bundle_id"] == champion


def test_the_stack_from_first_start_to_stop(stack):
    token = check_first_start(stack)
    check_nothing_to_do(stack)
    check_a_changed_parameter(stack)
    check_a_killed_stage_container(stack)
    check_a_killed_worker(stack)
    check_stop_and_start_again(stack, token)


def test_the_file_is_valid_for_every_profile(stack):
    made = stack.call("init-env")
    assert made.returncode == 0, made.stderr
    for profile in ("airflow", "tracking", "storage", "stages", "*"):
        done = subprocess.run(
            ["docker", "compose", "--profile", profile, "config", "--quiet"],
            cwd=stack.root,
            env=stack.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
