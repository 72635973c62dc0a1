"""Runs one operator as Airflow's task runner does; in Airflow's environment, from the tests.

    python run_operator.py '{"stage": "train", "action": "run", "command": ["exit", "0"]}'

Prints the log as it comes, and last a line of JSON with the outcome.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "airflow" / "dags"))
os.environ["PIPELINE_RUNTIME"] = "docker"

from airflow.sdk.exceptions import (  # noqa: E402
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow.sdk.execution_time.timeout import timeout  # noqa: E402
from common.stage import stage_task  # noqa: E402


def context(asked):
    ti = SimpleNamespace(
        dag_id=asked.get("dag_id", "ml_pipeline"),
        run_id=asked.get("run_id", "run 1"),
        task_id=asked.get("task_id", "training_stage.run"),
        try_number=asked.get("try_number", 1),
        map_index=asked.get("map_index", -1),
        max_tries=2,
    )
    return {"ti": ti, "params": asked.get("params", {}), "dag_run": SimpleNamespace(clear_number=0)}


def outcome(task, asked):
    try:
        with timeout(asked.get("seconds", 300)):
            task.execute(context(asked))
    except AirflowTaskTimeout:
        task.on_kill()
        return "timed out", ""
    except AirflowSkipException as error:
        return "skipped", str(error)
    except AirflowFailException as error:
        return "failed for good", str(error)
    except Exception as error:  # noqa: BLE001 - the test judges it
        return "failed", f"{type(error).__name__}: {error}"
    return "done", ""


def main():
    logging.basicConfig(level=logging.INFO)
    asked = json.loads(sys.argv[1])
    task = stage_task(asked["stage"], asked.get("action", "run"), asked["command"])
    signal.signal(signal.SIGTERM, lambda number, frame: task.on_kill())
    word, message = outcome(task, asked)
    sys.stdout.write(json.dumps({"outcome": word, "message": message}) + "\n")


main()
