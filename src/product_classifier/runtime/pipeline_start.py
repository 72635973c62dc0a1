"""What a start does on either runtime: services up, pipeline triggered and followed, results and addresses shown."""

import fcntl
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from product_classifier.core.errors import ConfigurationError, ExitCode, RuntimeServiceError
from product_classifier.core.settings import Settings, get_settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.airflow_api import DAG_ID, FINISHED, AirflowAPI
from product_classifier.runtime.api_services import serve_url
from product_classifier.runtime.choice import RuntimeChoice
from product_classifier.runtime.dotenv import Generated
from product_classifier.runtime.example import example_commands
from product_classifier.runtime.follow import RunFollower
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.pipeline_metrics import prepare_metrics
from product_classifier.runtime.results import print_results
from product_classifier.runtime.services import (
    AIRFLOW_DAG_PROCESSOR,
    local_tracking_uri,
    stage_workspace,
)

DAG_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class StartOptions:
    """What the user asked of a start."""

    params: dict[str, Any] = field(default_factory=dict)
    trigger: bool = True


@contextmanager
def one_start_at_a_time(layout: Layout) -> Iterator[None]:
    """Keeps two starts or stops of one checkout apart.

    Raises:
        RuntimeServiceError: another one is at work.
    """
    with (layout.state / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeServiceError(f"Another start or stop works on {layout.root}.") from None
        yield


class PipelineStart(ABC):
    """Starts the services of one checkout and runs the pipeline in them; a runtime says how."""

    def __init__(self, layout: Layout, console: Console, choice: RuntimeChoice) -> None:
        self.layout = layout
        self.console = console
        self.choice = choice

    @abstractmethod
    def complete_settings(self) -> Generated:
        """Generates what is missing in `.env`."""

    @abstractmethod
    def bring_up(self, settings: Settings) -> None:
        """Starts or updates the services and waits until they are healthy."""

    @abstractmethod
    def wait_for_deployed(self, settings: Settings) -> None:
        """Waits for auth and serve where they are deployed; says so where they are not."""

    @abstractmethod
    def dag_processor_started(self) -> float:
        """Gives when the program that reads the DAG was started, in seconds since the epoch."""

    @abstractmethod
    def follower(self, api: AirflowAPI, run_id: str) -> RunFollower:
        """Makes what shows the run's progress."""

    @abstractmethod
    def monitoring_lines(self, settings: Settings, new_password: str | None) -> list[str]:
        """Says where the monitoring is, or why there is none."""

    @abstractmethod
    def api_is_up(self, settings: Settings) -> bool:
        """Tells whether auth and serve answer."""

    def say(self, text: str) -> None:
        """Prints one line as it is."""
        self.console.print(escape(text), soft_wrap=True)

    def prepare(self) -> tuple[Settings, Generated]:
        """Generates what is missing, shows it, and makes the folders; gives the settings as they are then."""
        generated = self.complete_settings()
        # Now, not only at the end: what follows may fail, and these are shown once.
        if generated.airflow_password:
            self.say(f"New password for Airflow, kept in .env: {generated.airflow_password}")
        if generated.admin_password:
            self.say(f"New password for the API, kept in .env: {generated.admin_password}")
        if generated.grafana_password:
            self.say(f"New password for Grafana, kept in .env: {generated.grafana_password}")
        get_settings.cache_clear()  # .env may have just been written
        settings = get_settings()
        self.say(f"Runtime: {self.choice.name} ({self.choice.reason}).")
        self._warn_of_workspace(settings)
        self.layout.prepare()
        prepare_metrics(Workspace(stage_workspace(self.layout, settings)), settings)
        return settings, generated

    def start(self, options: StartOptions) -> ExitCode:
        """Starts what does not run, triggers the pipeline, follows it, prints the results."""
        settings, generated = self.prepare()
        with one_start_at_a_time(self.layout):
            self.bring_up(settings)
        outcome = ExitCode.DONE
        if options.trigger:
            outcome = self._run_pipeline(settings, options)
        else:
            self.wait_for_deployed(settings)
        self._print_addresses(settings, generated)
        return outcome

    def _warn_of_workspace(self, settings: Settings) -> None:
        path = settings.project_host_path
        if path is not None and stage_workspace(self.layout, settings) != path.resolve():
            self.say(
                f"Warning: PROJECT_HOST_PATH={path} holds no dvc.yaml; "
                f"using {self.layout.root} instead."
            )

    def _run_pipeline(self, settings: Settings, options: StartOptions) -> ExitCode:
        api = AirflowAPI(settings)
        with self.console.status("Waiting for Airflow to read the DAG"):
            self._wait_for_dag(api)
        api.unpause()
        run_id = self._choose_run(api, options.params)
        self.say(f"Run {run_id}; leaving with Ctrl-C does not stop it.")
        follower = self.follower(api, run_id)
        started = time.monotonic()
        state = follower.follow()
        self.say(f"Run {run_id}: {state} after {time.monotonic() - started:.0f} s.")
        if state != "success":
            follower.explain_failure()
            return ExitCode.FAULT
        print_results(self.console, Workspace(stage_workspace(self.layout, settings)))
        return ExitCode.DONE

    def _wait_for_dag(self, api: AirflowAPI) -> None:
        since = self.dag_processor_started()
        deadline = time.monotonic() + DAG_TIMEOUT_SECONDS
        while not api.knows_dag_since(since):
            if errors := api.import_errors():
                raise RuntimeServiceError(f"Airflow can't read the DAG:\n{errors[0]}")
            if time.monotonic() > deadline:
                raise RuntimeServiceError(
                    f"Airflow did not read the DAG in {DAG_TIMEOUT_SECONDS:.0f} s. "
                    f"See `make logs S={AIRFLOW_DAG_PROCESSOR}`."
                )
            time.sleep(0.5)

    def _choose_run(self, api: AirflowAPI, params: dict[str, Any]) -> str:
        if unknown := sorted(set(params) - set(known := api.params())):
            raise ConfigurationError(
                f"Unknown parameter. Expected some of {', '.join(sorted(known))}. "
                f"Received: {', '.join(unknown)}."
            )
        last = api.last_run()
        if last is not None and last["state"] not in FINISHED:
            if not params:
                self.say("A run is under way already: following it.")
                return str(last["dag_run_id"])
            self.say(f"Run {last['dag_run_id']} is under way: the new one starts after it.")
        return api.trigger(params)

    def _print_addresses(self, settings: Settings, generated: Generated) -> None:
        login = f"login {settings.airflow_admin_user}, password "
        login += generated.airflow_password or "as AIRFLOW_ADMIN_PASSWORD in .env"
        address = f"http://localhost:{settings.airflow_port}/dags/{DAG_ID}"
        self.say(f"Airflow: {address} ({login})")
        local = local_tracking_uri(settings)
        self.say(f"MLflow:  {settings.tracking_uri(local).replace('127.0.0.1', 'localhost')}")
        for line in self.monitoring_lines(settings, generated.grafana_password):
            self.say(line)
        if self.api_is_up(settings):
            self._print_api(settings, generated)
        self.say("make status, make logs, make stop: see, read, end.")

    def _print_api(self, settings: Settings, generated: Generated) -> None:
        base = serve_url(settings).replace("127.0.0.1", "localhost")
        # As settings are read: what the environment sets wins over .env.
        exported = bool(os.environ.get("ADMIN_PASSWORD"))
        where = "in the environment" if exported else "in .env"
        login = generated.admin_password or f"as ADMIN_PASSWORD {where}"
        self.say(f"API:     {base}/docs (login {settings.admin_user}, password {login})")
        self.say(f"A token and a prediction, in {self.layout.root}:")
        workspace = Workspace(stage_workspace(self.layout, settings))
        for command in example_commands(self.layout, settings, workspace, exported=exported):
            self.say(f"  {command}")
