"""From a catalogue to a versioned model, predictions and a running API.

Imports the catalogue, trains the VGG16 + LSTM fusion, publishes it if it is good enough, scores the
unlabelled products, and brings the prediction API up. Every output is versioned with DVC; every
training is a run in MLflow.

| group | what it makes | tasks |
| --- | --- | --- |
| `data_stage` | `data/raw`: tables, photos, split, report | configure, check, run, version |
| `training_stage` | `models/candidate`, then `models/champion` | check, run, version, gate |
| `prediction_stage` | `data/predictions` | check, shards, run (one per shard), merge, version, drift |
| `serving_stage` | `auth` and `serve`, up and proven | deploy_auth, deploy_serve, smoke |

## When to run it by hand

- After new products arrived, after a change of `params.yaml`, or to try a hyperparameter.
- `make start` triggers it, and so does **Trigger** on this page. By itself it runs only where
  PIPELINE_SCHEDULE is set.

A stage whose inputs, code and parameters did not change is skipped: a run without changes takes
seconds. The tasks of `serving_stage` always run: they leave a service alone that is up, ready and
unchanged, and `smoke` is one prediction.

## Parameters

All are optional; an empty one leaves `params.yaml` as it is, a given one is written to it (as
`dvc exp run --set-param` does). For example, a short training on a folder of yours:

```json
{"data_source": "/data/my-catalogue", "text_epochs": 5, "image_epochs": 10}
```

`{"branches": "reuse"}` keeps the text and image branch of the champion and fits only the fusion:
minutes. `{"force": true}` runs every stage, changed or not. `{"prediction_shards": 4}` scores in
four parts, on as many workers as are free, and merges them: the same result, byte for byte.

## What a retry does

Every task can be repeated: outputs are put in place in one step, a training resumes from its
checkpoints, a download goes on where it stopped. A fault is retried twice (after 20 s, then
longer); bad input or configuration (exit code 2) is not, because trying again can't help.

## Clear task

- Clear `run` (with downstream): that stage really runs again; later stages run if its output came
  out different.
- Clear `check` (with downstream): the stage is looked at again, and skipped again if nothing
  changed.
- Clear `version` alone, after the remote was away: records and pushes what `run` made.

## Triage

1. The failed task's log ends with one JSON line, `"event": "task_failed"`, with the reason and what
   to do.
2. `data_stage.run` failed with exit code 2: `reports/ingest/validation_report.md` and the log name
   the first offending rows; `data/raw` keeps the last good state. Correct the source, clear the task.
3. `gate` failed: there is no champion and the candidate missed a floor; `reports/gate.json` says
   which.
4. `version` failed: the DVC remote is away or refuses. Nothing is lost; clear the task when it is
   back.
5. `deploy_auth` or `deploy_serve` failed: its log ends with the service's own. A taken port or an
   unusable setting is named there; nothing else has to be repeated: correct it, clear the task.
6. `smoke` failed: the API is up, but refused the account SMOKE_USER, answered with another bundle
   than the champion, or differently from the model on disk; the ERROR line has both values.
7. `drift` failed: only the report is missing (`reports/drift/`); clear the task. The run is red,
   but has delivered. It fails for a fault, never because the products have drifted: that is an
   alert.
8. On the machine itself: `make status`, `make logs`, `make doctor`.
"""

import pendulum
from airflow.sdk import dag
from common.assets import CANDIDATE, CATALOGUE, CHAMPION, PREDICTIONS
from common.metrics import count_run_failure, count_run_success
from common.params import build_params
from common.schedule import pipeline_schedule
from common.stage import DEFAULT_ARGS, serving_group, stage_group


@dag(
    dag_id="ml_pipeline",
    description="Catalogue in; versioned model, predictions and a running API out.",
    doc_md=__doc__,
    schedule=pipeline_schedule(),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_success_callback=count_run_success,
    on_failure_callback=count_run_failure,
    params=build_params(),
    tags=["product-classifier", "training", "batch", "serving"],
)
def ml_pipeline() -> None:
    """Wires the stages: a stage starts when the one before it is done or was skipped."""
    data = stage_group("data_stage", "ingest", output=CATALOGUE, configure=True)
    training = stage_group("training_stage", "train", output=CANDIDATE, champion=CHAMPION)
    prediction = stage_group(
        "prediction_stage", "predict", output=PREDICTIONS, sharded=True, drift=True
    )
    data >> training >> prediction
    # Not after `drift`: serving waits for no report.
    prediction.get_child_by_label("version") >> serving_group("serving_stage")


ml_pipeline()
