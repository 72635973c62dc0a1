"""A stage's command in a container of its image: the house operator of the docker runtime.

DockerOperator knows no init, read-only root, dropped capabilities, limits of processes, tmpfs or
stop time-out (provider 4.6.1), and hands every line on as INFO; so the container is made here, and
the operator's connection is what is used of it.

A container never outlives its task for long. It is removed when the task ends, is stopped or times
out. A worker that is killed can't do that: then the next try of the same task does it first, or
the next run's tasks, or the worker's next start (`common/sweep.py`), or `make stop`.
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException
from common.containers import (
    DAG,
    PROJECT,
    ROLE,
    RUN,
    SHARD,
    STAGE,
    TASK,
    WORKSPACE,
    ContainerRuntime,
    gpu_requests,
    hardening,
    stage_limits,
    stage_mounts,
    task_labels,
)
from common.engine import explained, output_lines
from common.environment import stage_environment
from common.operators import STOP_GRACE_SECONDS, StageTask
from docker import APIClient
from docker.errors import APIError
from requests import Response
from requests.exceptions import RequestException

SERVE_URL = "http://serving_service_container:8000"
KILLED = 128 + 9
KILLED_FROM_OUTSIDE = (
    "the container was killed from outside (SIGKILL): most often it needed more memory than it "
    "may have (STAGE_MEMORY_LIMIT, or the machine's)"
)
START_SECONDS = 60


class StageDockerOperator(StageTask, DockerOperator):
    """Runs the command in a container: attached, without a name, gone when it ends."""

    ui_color = "#dcebf7"
    template_ext = ()  # an argument that ends in .sh is an argument

    def __init__(self, **kwargs: Any) -> None:
        # The image's tag is of the moment in which the task runs.
        super().__init__(image="", mount_tmp_dir=False, auto_remove="force", **kwargs)
        self._stopping = False

    @property
    def cli(self) -> APIClient:
        """The engine, reached through DOCKER_HOST."""
        try:
            return super().cli
        except AirflowException as error:
            raise AirflowException(
                f"The Docker Engine does not answer at DOCKER_HOST={self.docker_url}: see "
                "`make logs S=socket-proxy`."
            ) from error

    def execute(self, context: Context) -> Any:
        """Remembers whether runs of this DAG follow one another, then runs the command."""
        self._one_run_at_a_time = self.has_dag() and self.dag.max_active_runs == 1
        return super().execute(context)

    def run_command(self, arguments: list[str], environment: dict[str, str]) -> int:
        """Runs the command in a new container, after what an earlier try left is gone."""
        runtime = ContainerRuntime.from_environment()
        self.image = runtime.image(self.stage)
        if runtime.is_root:
            self.log.warning(
                "STAGE_USER=%s: this stage works as root. Let the checkout belong to a user, or "
                "set AIRFLOW_UID.",
                runtime.user,
            )
        with explained(runtime, self.image):
            self._remove_earlier(runtime, environment)
            self.container = self._create(runtime, arguments[1:], environment)
            return self._follow(self.container["Id"])

    def _create(
        self, runtime: ContainerRuntime, command: list[str], task: Mapping[str, str]
    ) -> dict[str, Any]:
        environment = runtime.inside({**stage_environment(self.action), **task})
        environment.setdefault("SERVE_URL", SERVE_URL)
        environment |= {"HOME": "/tmp", "PYTHONUNBUFFERED": "1"}  # noqa: S108
        options = hardening(runtime, stage_mounts(runtime, environment)) | stage_limits(runtime)
        if runtime.gpus and (self.stage, self.action) == ("train", "run"):
            options["device_requests"] = gpu_requests(runtime.gpus)
        return self.cli.create_container(
            self.image,
            command,
            user=runtime.user,
            working_dir=WORKSPACE,
            environment=environment,
            labels=runtime.labels(STAGE, self.stage) | task_labels(task),
            stop_timeout=STOP_GRACE_SECONDS,
            host_config=self.cli.create_host_config(auto_remove=True, **options),
        )

    def _follow(self, container: str) -> int:
        try:
            # Both before the start: not a line and not the exit code of a short command is missed.
            output = self.cli.attach(container, stdout=True, stderr=True, stream=True)
            ended = self._await_end(container)
            self.cli.start(container)
            for line in output_lines(output):
                self.log_line(line)
            return self._exit_code(ended)  # known once the engine has removed the container
        except BaseException:  # a time-out of Airflow's too
            self._stop_and_remove(container)
            raise

    def _await_end(self, container: str) -> Response:
        # The SDK's wait() gives nothing until the end; the answer's first line says that it waits.
        url = f"{self.cli.base_url}/v{self.cli.api_version}/containers/{container}/wait"
        answer: Response = self.cli.post(
            url, params={"condition": "removed"}, stream=True, timeout=(START_SECONDS, None)
        )
        answer.raise_for_status()
        return answer

    def _exit_code(self, ended: Response) -> int:
        result = ended.json()
        if problem := (result.get("Error") or {}).get("Message"):
            raise AirflowException(f"The engine lost the container: {problem}")
        code = int(result["StatusCode"])
        if code == KILLED and not self._stopping:
            self.log_line(json.dumps({"level": "ERROR", "message": KILLED_FROM_OUTSIDE}))
        return code

    def on_kill(self) -> None:
        """Has the engine stop the container: SIGTERM, grace period, SIGKILL, removal.

        Airflow kills this process five seconds from now; the engine goes on without it.
        """
        self._stopping = True
        if self.container is not None:
            self.log.info("Stopping the container.")
            self._stop_and_remove(self.container["Id"])

    def _stop_and_remove(self, container: str, seconds: int = STOP_GRACE_SECONDS) -> None:
        """Ends a container and removes it; one that is gone already is fine."""
        for step in (
            lambda: self.cli.stop(container, timeout=seconds),
            lambda: self.cli.remove_container(container, force=True),
        ):
            try:
                step()
            except APIError as error:
                if error.status_code not in (404, 409):  # gone, or going
                    self.log.warning("Container %.12s: %s", container, error.explanation)
            except RequestException as error:
                self.log.warning("Container %.12s is left behind: %s", container, error)

    def _remove_earlier(self, runtime: ContainerRuntime, task: Mapping[str, str]) -> None:
        """Removes what tries of this task, or earlier runs, left behind."""
        filters = [f"{PROJECT}={runtime.project}", f"{ROLE}={STAGE}"]
        for found in self.cli.containers(all=True, filters={"label": filters}):
            if self._is_stale(found.get("Labels") or {}, task):
                self.log.warning("Removing container %.12s of a lost try.", found["Id"])
                self._stop_and_remove(found["Id"])
                with contextlib.suppress(APIError):  # 404: it is gone, as it should be
                    self.cli.wait(found["Id"], timeout=START_SECONDS, condition="removed")

    def _is_stale(self, labels: Mapping[str, str], task: Mapping[str, str]) -> bool:
        mine = task_labels(task)
        if labels.get(DAG) != mine[DAG]:
            return False
        if labels.get(RUN) != mine[RUN]:
            return self._one_run_at_a_time
        return all(labels.get(key) == mine[key] for key in (TASK, SHARD))
