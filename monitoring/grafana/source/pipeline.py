"""The pipeline's dashboard: did it run, how long did it take, is it late, and which data and model came of it."""

from typing import Any

from monitoring.grafana.source.layout import Row, assemble
from monitoring.grafana.source.limits import AMBER, BLUE, GREEN, RED, Limit
from monitoring.grafana.source.panels import Query, bars, graph, number, rows

_PIPELINE = "product_classifier_pipeline"
_TASK = "product_classifier_task"
_HEARTBEATS = {
    "scheduler": "airflow_scheduler_heartbeat_total",
    "DAG processor": "airflow_dag_processor_heartbeat_total",
}
# Not increase(): a task's count appears with its first end, and that one would be missed.
_TRIES = "sum by (state) (airflow_task_finishes_total)"
_TRIES_BEFORE = f"(sum by (state) (airflow_task_finishes_total offset 10m) or 0 * {_TRIES})"


def build() -> dict[str, Any]:
    """Builds the dashboard."""
    return assemble(
        "pipeline",
        "Pipeline",
        "Runs of the DAGs and their tasks, how long they took, how old the last success is; data and model versions;"
        " Airflow itself.",
        [
            Row("Now", _now()),
            Row("Runs and tasks", _runs()),
            Row("Data and model", _data()),
            Row("Airflow", _airflow()),
        ],
        span="now-24h",
        refresh="1m",
    )


def _now() -> list[Any]:
    return [
        number(
            "Last run",
            "How the last finished run of each DAG ended.",
            [Query(f"max by (dag) ({_PIPELINE}_last_run_success)", "{{dag}}")],
            words={0: ("failed", RED), 1: ("succeeded", GREEN)},
            alerts=["PipelineFailed", "PipelineReportMissing"],
        ),
        number(
            "Last success",
            "Time since a run of each DAG last succeeded.",
            [
                Query(
                    f"time() - max by (dag) ({_PIPELINE}_last_success_timestamp_seconds > 0)",
                    "{{dag}}",
                )
            ],
            unit="s",
            alerts=["PipelineStale"],
        ),
        number(
            "Heartbeats per minute",
            "Heartbeats of Airflow's scheduler, without which nothing is started, and of its DAG processor, without"
            " which no failed run is counted.",
            [Query(f"60 * sum(rate({metric}[5m]))", name) for name, metric in _HEARTBEATS.items()],
            unit="none",
            decimals=0,
            alerts=["AirflowSchedulerDown", "AirflowDAGProcessorDown"],
            limit=Limit(1, below=True),
        ),
        number(
            "Broken DAG files",
            "DAG files that Airflow can't read.",
            [Query("max(airflow_dag_import_errors)")],
            unit="none",
            alerts=["AirflowImportErrors"],
            limit=Limit.beyond("AirflowImportErrors"),
        ),
        number(
            "Pushes failed",
            "DVC pushes that failed in the time shown.",
            [Query("sum(increase(product_classifier_dvc_push_failures_total[$__range]))")],
            unit="none",
            decimals=0,
            alerts=["DVCPushFailed"],
            limit=Limit(1, colour=AMBER),
        ),
        number(
            "Records to be sent",
            "Training records that the MLflow server does not have yet.",
            [Query("max(product_classifier_mlflow_unsynced_runs)")],
            unit="none",
            alerts=["MLflowUnsynced"],
            limit=Limit.beyond("MLflowUnsynced"),
        ),
    ]


def _runs() -> list[Any]:
    age = f"time() - max by (dag) ({_PIPELINE}_last_success_timestamp_seconds > 0)"
    return [
        rows(
            "DAGs",
            "The last finished run of each DAG. The limit is there where a schedule or PIPELINE_STALE_AFTER_HOURS is"
            " set; its share counts from the last success, or from when it is watched.",
            [
                Query(f"max by (dag) ({_PIPELINE}_last_duration_seconds)", "took", "s"),
                Query(age, "last success ago", "s"),
                Query(f"max by (dag) ({_PIPELINE}_staleness_limit_seconds)", "stale after", "s"),
                Query(_share_of_limit(), "share of limit", "percentunit", Limit(1)),
                *(
                    Query(
                        f'sum by (dag) ({_PIPELINE}_runs_total{{state="{state}"}})', state, "none"
                    )
                    for state in ("success", "failed")
                ),
            ],
            labels={"dag": "DAG"},
            width=24,
            height=5,
            alerts=["PipelineStale", "PipelineFailed"],
        ),
        rows(
            "Tasks",
            "Each task's last success and how often it ended how. Skipped: there was nothing to do.",
            [
                Query(
                    f"time() - max by (dag, task) ({_TASK}_last_success_timestamp_seconds > 0)",
                    "last success ago",
                    "s",
                ),
                Query(f"max by (dag, task) ({_TASK}_last_duration_seconds)", "took", "s"),
                *(
                    Query(
                        f'sum by (dag, task) ({_TASK}_runs_total{{state="{state}"}})',
                        state,
                        "none",
                        limit,
                    )
                    for state, limit in (("success", None), ("skipped", None), ("failed", Limit(1)))
                ),
            ],
            labels={"dag": "DAG", "task": "task"},
            width=14,
            height=13,
            alerts=["PipelineFailed"],
        ),
        bars(
            "Where the time goes",
            "How long each task took when it last succeeded.",
            Query(f"sort_desc(max by (task) ({_TASK}_last_duration_seconds))", "{{task}}"),
            unit="s",
            width=10,
            height=13,
        ),
        graph(
            "Ends of tasks",
            "Tasks that ended in the five minutes before, by state.",
            [Query(f"sum by (state) (increase({_TASK}_runs_total[5m]))", "{{state}}")],
            unit="short",
            width=12,
            colours={"success": GREEN, "failed": RED, "skipped": BLUE},
        ),
        graph(
            "Age of the last success",
            "Grows until a run succeeds; late where it passes its limit.",
            [
                Query(age, "{{dag}}"),
                Query(f"max by (dag) ({_PIPELINE}_staleness_limit_seconds)", "limit of {{dag}}"),
            ],
            unit="s",
            width=12,
            alerts=["PipelineStale"],
        ),
    ]


def _share_of_limit() -> str:
    since = (
        f"(max by (dag) ({_PIPELINE}_last_success_timestamp_seconds > 0)"
        f" or max by (dag) ({_PIPELINE}_watched_since_timestamp_seconds))"
    )
    return f"(time() - {since}) / max by (dag) ({_PIPELINE}_staleness_limit_seconds)"


def _data() -> list[Any]:
    shown = 'metric=~"accuracy|macro_f1|weighted_f1"'
    return [
        number(
            "Data version",
            "First digits of the imported catalogue's DVC hash.",
            [Query("max by (version) (product_classifier_data_info)", "{{version}}")],
            names=True,
        ),
        number(
            "Champion",
            "The bundle that the gate chose.",
            [Query("max by (bundle_id) (product_classifier_champion_info)", "{{bundle_id}}")],
            width=8,
            names=True,
        ),
        number(
            "Rows",
            "Rows of the imported catalogue.",
            [Query("max by (split) (product_classifier_imported_rows)", "{{split}}")],
            unit="none",
        ),
        number(
            "Photos",
            "Its usable photos.",
            [Query("max(product_classifier_imported_photos)")],
            unit="none",
        ),
        number(
            "Scored",
            "Products of the last batch prediction, by decision.",
            [Query("max by (decision) (product_classifier_scored_products)", "{{decision}}")],
            unit="none",
        ),
        graph(
            "Catalogue and batch over time",
            "Rows, photos and scored products: a step is a new import or a new batch.",
            [
                Query("sum(product_classifier_imported_rows)", "rows"),
                Query("max(product_classifier_imported_photos)", "photos"),
                Query("sum(product_classifier_scored_products)", "scored"),
            ],
            unit="none",
            width=12,
        ),
        graph(
            "Champion's test figures over time",
            "A step is a new champion.",
            [
                Query(
                    f"max by (metric) (product_classifier_champion_metric_ratio{{{shown}}})",
                    "{{metric}}",
                )
            ],
            unit="percentunit",
            width=12,
        ),
        rows(
            "Pushes to the DVC remote",
            "The last push of each stage that succeeded, and how many failed.",
            [
                Query(
                    "time() - max by (stage) (product_classifier_dvc_last_push_timestamp_seconds)",
                    "last push ago",
                    "s",
                ),
                Query(
                    "sum by (stage) (product_classifier_dvc_push_failures_total)",
                    "failed",
                    "none",
                    Limit(1, colour=AMBER),
                ),
            ],
            labels={"stage": "stage"},
            width=12,
            alerts=["DVCPushFailed"],
        ),
        graph(
            "Records that MLflow does not have",
            "Training works without the MLflow server; its records wait here until they are sent.",
            [Query("max(product_classifier_mlflow_unsynced_runs)", "records")],
            unit="none",
            width=12,
            alerts=["MLflowUnsynced"],
        ),
    ]


def _airflow() -> list[Any]:
    return [
        graph(
            "Executor",
            "Tasks that run and wait, and free slots.",
            [
                Query(f"max(airflow_executor_{name})", shown)
                for name, shown in (
                    ("running_tasks", "running"),
                    ("queued_tasks", "waiting"),
                    ("open_slots", "free slots"),
                )
            ],
            unit="none",
        ),
        graph(
            "Pools",
            "Slots of each pool that are free, in use, and of tasks that wait for a worker.",
            [
                Query("max by (pool) (airflow_pool_running_slots)", "{{pool}} in use"),
                Query("max by (pool) (airflow_pool_queued_slots)", "{{pool}} waiting"),
                Query("max by (pool) (airflow_pool_open_slots)", "{{pool}} free"),
            ],
            unit="none",
            alerts=["AirflowTasksStuck"],
        ),
        graph(
            "Ends of tries",
            "Task tries that ended in the five minutes before, also those that are retried.",
            [Query(f"clamp_min({_TRIES} - {_TRIES_BEFORE}, 0)", "{{state}}")],
            unit="short",
            colours={"success": GREEN, "failed": RED, "skipped": BLUE},
        ),
        graph(
            "Heartbeats",
            "Heartbeats per minute of scheduler and DAG processor.",
            [
                Query(f"60 * sum(rate({metric}[$__rate_interval]))", name)
                for name, metric in _HEARTBEATS.items()
            ],
            unit="short",
            width=12,
            alerts=["AirflowSchedulerDown", "AirflowDAGProcessorDown"],
        ),
        graph(
            "Reading the DAG files",
            "Seconds to read all DAG files, and files that can't be read.",
            [
                Query("max(airflow_dag_parse_seconds)", "seconds"),
                Query("max(airflow_dag_import_errors)", "broken files"),
            ],
            unit="short",
            width=12,
            alerts=["AirflowImportErrors"],
        ),
    ]
