"""Batch prediction over several workers: from the Param `prediction_shards` to a command for each.

The number is known when a run starts, not when the DAG is parsed, so the tasks are mapped (Airflow's
dynamic task mapping) over what `PlanShards` leaves as XCom. It never skips: whether there is
anything to do is for each `run` to decide, so that clearing a skipped one still makes it run.
"""

from typing import Any

from airflow.sdk import BaseOperator, Context

MOST_SHARDS = 64


def shard_commands(stage: str, shards: int) -> list[list[str]]:
    """Gives the command of each shard; a single one is the stage's plain command."""
    if shards == 1:
        return [[stage]]
    return [[stage, "--shard", f"{number}/{shards}"] for number in range(1, shards + 1)]


class PlanShards(BaseOperator):
    """Leaves the command of each shard of a stage as XCom; runs nothing."""

    ui_color = "#f4f1de"

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage

    def execute(self, context: Context) -> list[list[str]]:
        """Reads the Param."""
        shards = int(context["params"]["prediction_shards"])
        self.log.info("%s runs in %d part%s.", self.stage, shards, "" if shards == 1 else "s")
        return shard_commands(self.stage, shards)
