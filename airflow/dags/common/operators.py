"""The house operators: how a DAG here runs a stage's command.

`StageTask` is the contract, the same for every runtime: command line, environment, exit codes,
skipping. A runtime adds the one method `run_command`. An operator for containers is `class
StageDockerOperator(StageTask, DockerOperator)`, whose `run_command` sets `self.command`, fills
`private_environment` from `settings_environment()` and translates DockerContainerFailedException
into the exit code.
"""

import json
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from common import process_guard
from common.decisions import decide, skip_unless_needed
from common.environment import process_environment
from common.params import assignments

DONE, BAD_INPUT, NOTHING_TO_DO = 0, 2, 99  # core/errors.py has the same numbers
STOP_GRACE_SECONDS = 10  # for a training to write its checkpoint; it can also resume from a SIGKILL
LAST_LINES = 20
PROGRAM = "product-classifier"

_EVENT_FIELDS = frozenset({"time", "level", "logger", "message", "stage", "exception"})


def parse_event(line: str) -> dict[str, Any]:
    """Reads one log line of a stage; a line that is no JSON object becomes an INFO event."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) and "message" in event else {"message": line}


def event_text(event: dict[str, Any]) -> str:
    """Renders an event as a line of Airflow's log: the message, then what else it carries."""
    extra = [f"{key}={value}" for key, value in event.items() if key not in _EVENT_FIELDS]
    text = str(event["message"]) + (f" ({', '.join(extra)})" if extra else "")
    return f"{text}\n{event['exception']}" if event.get("exception") else text


class StageTask(BaseOperator):
    """Runs one `product-classifier` command of a stage.

    Args:
        stage: The stage's word: ingest, train, predict, auth, serve.
        action: configure, check, run, merge, version, gate, drift, deploy or smoke: what the task
            is to its stage.
        command: Arguments after `product-classifier`; templated; empty ones are dropped.
        check_task_id: For `run`: the task whose decision it obeys.
    """

    template_fields: Sequence[str] = ("command",)

    def __init__(
        self,
        *,
        stage: str,
        action: str,
        command: Sequence[str],
        check_task_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.action = action
        self.command = list(command)
        self.check_task_id = check_task_id
        self._events: deque[dict[str, Any]] = deque(maxlen=LAST_LINES)

    def run_command(self, arguments: list[str], environment: dict[str, str]) -> int:
        """Runs the command, hands each line of its output to `log_line`, gives the exit code."""
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Skips or runs the command, and turns its exit code into Airflow's outcome."""
        arguments = [PROGRAM, *(argument for argument in self.command if argument)]
        if self.action == "merge" and context["params"]["prediction_shards"] == 1:
            raise AirflowSkipException("One shard: `run` published the whole result itself.")
        if self.action == "configure":
            values = assignments(context["params"])
            if not values:
                raise AirflowSkipException("No parameter given: params.yaml stays as it is.")
            arguments += values
        if self.check_task_id:
            reason = skip_unless_needed(context, self.check_task_id)
            self.log.info("Running: %s.", reason.rstrip("."))
        self._events.clear()
        code = self.run_command(arguments, self._run_environment(context))
        if self.action == "check" and code in (DONE, NOTHING_TO_DO):
            return decide(context, changed=code == DONE, reason=self._reason(code))
        return self._finish(arguments, code)

    def log_line(self, line: str) -> None:
        """Passes one line of the command's output to Airflow's log, at its own level."""
        event = parse_event(line)
        self._events.append(event)
        level = logging.getLevelNamesMapping().get(str(event.get("level")), logging.INFO)
        self.log.log(level, "%s", event_text(event))

    def _run_environment(self, context: Context) -> dict[str, str]:
        ti = context["ti"]
        environment = {
            "AIRFLOW_DAG_ID": ti.dag_id,
            "AIRFLOW_RUN_ID": ti.run_id,
            "AIRFLOW_TASK_ID": ti.task_id,
            "AIRFLOW_TRY_NUMBER": str(ti.try_number),
        }
        if (ti.map_index if ti.map_index is not None else -1) >= 0:
            environment["AIRFLOW_MAP_INDEX"] = str(ti.map_index)
        if source := context["params"].get("data_source"):
            environment["DATA_SOURCE"] = source
        return environment

    def _reason(self, code: int) -> str:
        last = self._events[-1] if self._events else {}
        default = "inputs or parameters changed" if code == DONE else "nothing changed"
        return str(last.get("reason") or last.get("message") or default)

    def _finish(self, arguments: list[str], code: int) -> None:
        if code == DONE:
            return
        if code == NOTHING_TO_DO:
            raise AirflowSkipException(self._reason(code))
        errors = [e for e in self._events if e.get("level") in ("ERROR", "CRITICAL")]
        last = (errors or list(self._events) or [{"message": "it wrote nothing"}])[-1]
        message = f"`{' '.join(arguments[:3])}` ended with exit code {code}: {last['message']}"
        if code == BAD_INPUT:
            raise AirflowFailException(message)  # trying again can't help
        raise AirflowException(message)


class StageProcessOperator(StageTask):
    """Runs the command as a process of this machine, in a group that ends with the task."""

    ui_color = "#e8f1e4"

    def run_command(self, arguments: list[str], environment: dict[str, str]) -> int:
        """Runs the command behind the guard, which ends its group however this task ends."""
        program = os.environ.get("PRODUCT_CLASSIFIER_PROGRAM", arguments[0])
        workspace = Path(os.environ.get("PRODUCT_CLASSIFIER_WORKSPACE", os.getcwd()))
        # Shards of one stage run side by side.
        shard = environment.get("AIRFLOW_MAP_INDEX")
        name = self.stage if shard is None else f"{self.stage}-{shard}"
        lock = workspace / ".state" / "locks" / f"{name}.lock"
        guard = [sys.executable, "-I", "-S", process_guard.__file__, str(lock)]
        self._process = subprocess.Popen(  # noqa: S603
            [*guard, str(STOP_GRACE_SECONDS), program, *arguments[1:]],
            cwd=workspace,
            env=process_environment() | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if line.strip():
                    self.log_line(line.rstrip())
            return self._process.wait()
        finally:
            self.on_kill()
            self._process.wait(timeout=STOP_GRACE_SECONDS + 5)

    def on_kill(self) -> None:
        """Lets go of the guard, which ends the command's group: SIGTERM, grace period, SIGKILL."""
        process = getattr(self, "_process", None)
        if process is not None and process.stdin is not None:
            process.stdin.close()
