"""From a stage to its tasks: the one factory that knows the runtimes, and each stage's group."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator, TaskGroup, TriggerRule
from common.callbacks import log_failure
from common.operators import StageProcessOperator, StageTask

RETRY_DELAY = timedelta(seconds=20)
FORCE = "{{ '--force' if params.force else '' }}"  # rendered to nothing, it is left out
DVC_POOL = "dvc"  # one slot: concurrent DVC commands fail on its lock

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "product-classifier",
    "retries": 2,
    "retry_delay": RETRY_DELAY,
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=1),
    "on_failure_callback": log_failure,
}

# How long the work itself may take: a full catalogue on a slow line, a full training without a GPU.
RUN_TIMEOUTS = {
    "ingest": timedelta(hours=6),
    "train": timedelta(hours=36),
    "predict": timedelta(hours=8),
}
CHECK_TIMEOUT = timedelta(minutes=15)
VERSION_TIMEOUT = timedelta(hours=6)  # the first push of all photos
# `deploy` gives up after two minutes by itself, `smoke` somewhat later: this is for a hanging one.
SERVING_TIMEOUT = timedelta(minutes=10)

# The runtimes that there are. A container operator takes its place here under "docker".
_OPERATORS: dict[str, type[StageTask]] = {"process": StageProcessOperator}


def stage_task(stage: str, action: str, command: Sequence[str], **kwargs: Any) -> BaseOperator:
    """Turns a stage's command into an operator of the runtime that PIPELINE_RUNTIME names.

    Raises:
        ValueError: there is no such runtime.
    """
    runtime = os.environ.get("PIPELINE_RUNTIME", "process")
    if runtime not in _OPERATORS:
        raise ValueError(
            f"The DAG has no runtime of this name. Expected one of {sorted(_OPERATORS)}. "
            f"Received: PIPELINE_RUNTIME={runtime!r}."
        )
    kwargs.setdefault("task_id", action)
    return _OPERATORS[runtime](stage=stage, action=action, command=command, **kwargs)


def stage_group(
    group_id: str,
    stage: str,
    *,
    output: Asset,
    configure: bool = False,
    champion: Asset | None = None,
) -> TaskGroup:
    """Builds check, run and version of a stage; configure before and gate after where asked for.

    Args:
        group_id: Name of the group in Airflow.
        stage: The stage's word: ingest, train, predict.
        output: What `version` records.
        configure: Whether the trigger form's hyperparameters are written to `params.yaml` first.
        champion: What a gate after the stage publishes; None: no gate.
    """
    with TaskGroup(group_id) as group:
        # A group before this one may have skipped: only a failure keeps a check from deciding.
        check = stage_task(
            stage,
            "check",
            ["check", stage, FORCE],
            pool=DVC_POOL,
            trigger_rule=TriggerRule.NONE_FAILED,
            execution_timeout=CHECK_TIMEOUT,
        )
        run = stage_task(
            stage,
            "run",
            [stage],
            check_task_id=f"{group_id}.check",
            execution_timeout=RUN_TIMEOUTS[stage],
        )
        version = stage_task(
            stage,
            "version",
            ["version", stage],
            pool=DVC_POOL,
            outlets=[output],
            execution_timeout=VERSION_TIMEOUT,
        )
        check >> run >> version
        if configure:
            (
                stage_task(stage, "configure", ["params", "set"], execution_timeout=CHECK_TIMEOUT)
                >> check
            )
        if champion is not None:
            # Decides for itself whether there is something to publish, whatever was skipped.
            version >> stage_task(
                stage,
                "gate",
                ["gate", FORCE],
                pool=DVC_POOL,
                outlets=[champion],
                trigger_rule=TriggerRule.NONE_FAILED,
                execution_timeout=CHECK_TIMEOUT,
            )
    return group


def serving_group(group_id: str) -> TaskGroup:
    """Builds the tasks that bring auth and serve up and prove them with a real prediction.

    They always run and take seconds where nothing changed: the services may have been stopped, or
    their settings changed, while no stage had anything to do.
    """
    with TaskGroup(group_id) as group:
        tasks = [
            stage_task(
                stage,
                action,
                command,
                task_id=task_id,
                trigger_rule=TriggerRule.NONE_FAILED,
                execution_timeout=SERVING_TIMEOUT,
            )
            for task_id, stage, action, command in (
                ("deploy_auth", "auth", "deploy", ["deploy", "auth"]),
                ("deploy_serve", "serve", "deploy", ["deploy", "serve"]),
                ("smoke", "serve", "smoke", ["smoke"]),
            )
        ]
        tasks[0] >> tasks[1] >> tasks[2]
    return group
