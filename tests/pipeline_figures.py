"""What a pipeline leaves for Prometheus, written by the programs that write it for a user.

The workspace's figures come from the real commands, those of tasks and runs from the DAG's own callbacks in Airflow's
environment, and Airflow's from packets as it sends them: everything but a whole run of Airflow, which takes minutes.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.pipeline_metrics import prepare_metrics
from product_classifier.versioning.lockfile import LOCK_FILE
from product_classifier.versioning.push_metrics import noted_push

REPOSITORY = Path(__file__).resolve().parents[1]
AIRFLOW_PYTHON = REPOSITORY / "airflow" / ".venv" / "bin" / "python"
STAGES = ("ingest", "train", "gate", "predict")
STALE_AFTER_HOURS = 48
COMMAND_SECONDS = 600

# The hash of a folder as DVC writes it; the figures show its first digits.
_LOCK = """schema: '2.0'
stages:
  ingest:
    cmd: product-classifier ingest
    outs:
    - path: data/raw
      md5: 5d41402abc4b2a76b9719d911017c592.dir
"""

# The ends of one run that succeeded and of one before it in which a task failed and another found nothing to do.
_CALLBACKS = """
import datetime, types
from common import metrics
from ml_pipeline import ml_pipeline

dag = ml_pipeline()
end = datetime.datetime.now(datetime.timezone.utc)

def context(task_id, seconds):
    start = end - datetime.timedelta(seconds=seconds)
    times = {"start_date": start, "end_date": end}
    ids = {"dag_id": dag.dag_id, "run_id": "manual", "task_id": task_id, "map_index": -1}
    ti = types.SimpleNamespace(**ids, try_number=1, **times)
    return {"ti": ti, "dag": dag, "dag_run": types.SimpleNamespace(**times)}

tasks = sorted(dag.task_ids)
metrics.count_failure(context(tasks[0], 5))
metrics.count_run_failure(context(tasks[0], 9))
metrics.count_skip(context(tasks[1], 1))
for number, task in enumerate(tasks):
    metrics.count_success(context(task, 3 + number))
metrics.count_run_success(context(tasks[0], 120))
"""

_STATSD = (
    "airflow.scheduler_heartbeat:1|c",
    "airflow.dag_processor_heartbeat:1|c",
    "airflow.executor.running_tasks:1|g",
    "airflow.executor.queued_tasks:0|g",
    "airflow.executor.open_slots:2|g",
    "airflow.pool.open_slots.default_pool:127|g",
    "airflow.pool.running_slots.default_pool:1|g",
    "airflow.pool.queued_slots.default_pool:0|g",
    "airflow.dag_processing.import_errors:0|g",
    "airflow.dag_processing.total_parse_time:1.75|g",
    "airflow.ti.finish.ml_pipeline.training_stage__run.success:1|c",
    "airflow.ti.finish.ml_pipeline.training_stage__run.failed:1|c",
)


def leave_pipeline_figures(workspace: Workspace, settings: Settings) -> None:
    """Scores the unlabelled products, reports on their drift, and writes every text file of a pipeline.

    Args:
        workspace: A trained one, with a champion.
        settings: What the monitoring goes by; they should name a limit of the pipeline's age.
    """
    (workspace.root / LOCK_FILE).write_text(_LOCK)
    for stage in STAGES:
        with noted_push(workspace, stage):
            pass
    prepare_metrics(workspace, settings)
    run_airflow_callbacks(workspace)
    for command in ("predict", "drift-report"):
        run_command(workspace, command)


def run_command(workspace: Workspace, *arguments: str) -> str:
    """Runs `product-classifier` in a workspace, with nobody to send anything to."""
    command = [sys.executable, "-m", "product_classifier", *arguments]
    return _run(command, workspace.root, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})


def run_airflow_callbacks(workspace: Workspace) -> None:
    """Has the DAG's callbacks count two runs, in Airflow's own environment."""
    assert AIRFLOW_PYTHON.exists(), f"There is no {AIRFLOW_PYTHON}: `make setup` makes it."
    airflow = REPOSITORY / "airflow"
    environment = {
        "AIRFLOW_HOME": str(workspace.root / ".state" / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PIPELINE_METRICS_PATH": str(workspace.root / ".state" / "metrics" / "airflow"),
        "PIPELINE_RUNTIME": "process",
        "PYTHONPATH": os.pathsep.join([str(airflow / "dags"), str(airflow / "config")]),
    }
    said = _run([str(AIRFLOW_PYTHON), "-c", _CALLBACKS], workspace.root, environment)
    assert "were not written" not in said, said[-2000:]  # a fault of theirs fails no task


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    taken = {name.upper() for name in Settings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name not in taken}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    assert done.returncode == 0, f"{command[-1][:40]}: {done.stdout[-3000:]}"
    return done.stdout


def send_airflow_statistics(port: int) -> None:
    """Sends what Airflow sends over StatsD in a few seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for packet in _STATSD:
            sender.sendto(packet.encode(), ("127.0.0.1", port))
