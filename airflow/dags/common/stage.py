"""From a stage to its tasks: the one factory that knows the runtimes, and each stage's group."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator, TaskGroup, TriggerRule
from common.callbacks import log_failure
from common.metrics import count_failure, count_skip, count_success
from common.operators import StageProcessOperator, StageTask
from common.shards import PlanShards

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
    "on_failure_callback": [log_failure, count_failure],
    "on_success_callback": count_success,
    "on_skipped_callback": count_skip,
}

# How long the work itself may take: a full catalogue on a slow line, a full training without a GPU.
RUN_TIMEOUTS = {
    "ingest": timedelta(hours=6),
    "train": timedelta(hours=36),
    "predict": timedelta(hours=8),
}
CHECK_TIMEOUT = timedelta(minutes=15)
VERSION_TIMEOUT = timedelta(hours=6)  # the first push of all photos
DRIFT_TIMEOUT = timedelta(minutes=30)  # 2,000 products at most: a minute or two, then the upload
# `deploy` gives up after two minutes by itself, `smoke` somewhat later: this is for a hanging one.
SERVING_TIMEOUT = timedelta(minutes=10)

_AFTER_SHARDS = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS

RUNTIMES = ("docker", "process")


def _operator(action: str) -> type[StageTask]:
    """Gives the operator of the runtime that PIPELINE_RUNTIME names: the one switch between them.

    Raises:
        ValueError: there is no such runtime.
    """
    runtime = os.environ.get("PIPELINE_RUNTIME", "process")
    if runtime == "process":
        return StageProcessOperator
    if runtime == "docker":
        # Imported only where it is used: the Docker SDK would slow each parsing down.
        from common.container_operator import StageDockerOperator
        from common.service_operator import ServiceOperator

        return ServiceOperator if action == "deploy" else StageDockerOperator
    raise ValueError(
        f"The DAG has no runtime of this name. Expected one of {sorted(RUNTIMES)}. "
        f"Received: PIPELINE_RUNTIME={runtime!r}."
    )


def _placed(stage: str) -> dict[str, str]:
    """Names the queue of a stage's tasks: a worker may take some stages only, as `train` where a GPU is."""
    return {"queue": stage} if os.environ.get("PIPELINE_RUNTIME") == "docker" else {}


def stage_task(stage: str, action: str, command: Sequence[str], **kwargs: Any) -> BaseOperator:
    """Turns a stage's command into a task.

    Raises:
        ValueError: PIPELINE_RUNTIME names no runtime.
    """
    kwargs.setdefault("task_id", action)
    placed = _placed(stage)
    return _operator(action)(stage=stage, action=action, command=command, **placed, **kwargs)


def stage_group(
    group_id: str,
    stage: str,
    *,
    output: Asset,
    configure: bool = False,
    champion: Asset | None = None,
    sharded: bool = False,
    drift: bool = False,
) -> TaskGroup:
    """Builds check, run and version of a stage; configure before, gate and drift after where asked for.

    Args:
        group_id: Name of the group in Airflow.
        stage: The stage's word: ingest, train, predict.
        output: What `version` records.
        configure: Whether the trigger form's hyperparameters are written to `params.yaml` first.
        champion: What a gate after the stage publishes; None: no gate.
        sharded: Whether the run is mapped over the Param `prediction_shards`, with a merge after.
        drift: Whether a report compares what was made with what the model was tested on.
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
        run = _sharded_run(group_id, stage, check) if sharded else [_run(group_id, stage, check)]
        version = stage_task(
            stage,
            "version",
            ["version", stage],
            pool=DVC_POOL,
            outlets=[output],
            # The merge of a single shard is skipped.
            trigger_rule=_AFTER_SHARDS if sharded else TriggerRule.ALL_SUCCESS,
            execution_timeout=VERSION_TIMEOUT,
        )
        run >> version
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
        if drift:
            # In the image of `train`, which has the report's library; nothing waits for it.
            version >> stage_task(
                "train", "drift", ["drift-report"], execution_timeout=DRIFT_TIMEOUT
            )
    return group


def _run(group_id: str, stage: str, check: BaseOperator) -> BaseOperator:
    run = stage_task(
        stage,
        "run",
        [stage],
        check_task_id=f"{group_id}.check",
        execution_timeout=RUN_TIMEOUTS[stage],
    )
    check >> run
    return run


def _sharded_run(group_id: str, stage: str, check: BaseOperator) -> list[Any]:
    """Builds the plan of the shards, a run for each and their merge; gives the last two."""
    shards = PlanShards(
        task_id="shards",
        stage=stage,
        trigger_rule=TriggerRule.NONE_FAILED,
        execution_timeout=CHECK_TIMEOUT,
        **_placed(stage),
    )
    run = (
        _operator("run")
        .partial(
            task_id="run",
            stage=stage,
            action="run",
            check_task_id=f"{group_id}.check",
            execution_timeout=RUN_TIMEOUTS[stage],
            **_placed(stage),
        )
        .expand(command=shards.output)
    )
    merge = stage_task(
        stage,
        "merge",
        [stage, "--merge", "{{ params.prediction_shards }}"],
        execution_timeout=CHECK_TIMEOUT,
    )
    check >> shards >> run >> merge
    return [run, merge]


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
