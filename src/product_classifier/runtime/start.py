"""`product-classifier start`: from a checkout to a finished run, one step after the other."""

import fcntl
import time
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
from product_classifier.runtime.choice import choose_runtime
from product_classifier.runtime.dotenv import complete_dotenv
from product_classifier.runtime.follow import RunFollower
from product_classifier.runtime.health import wait_until_healthy
from product_classifier.runtime.initialise import (
    initialise_airflow,
    needs_migration,
    require_environments,
)
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.ports import require_free
from product_classifier.runtime.results import print_results
from product_classifier.runtime.services import (
    AIRFLOW_DAG_PROCESSOR,
    MLFLOW,
    build_services,
    local_tracking_uri,
    stage_workspace,
)
from product_classifier.runtime.supervision import Supervisor

DAG_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class StartOptions:
    """What the user asked of a start."""

    params: dict[str, Any] = field(default_factory=dict)
    trigger: bool = True


@contextmanager
def _one_start_at_a_time(layout: Layout) -> Iterator[None]:
    with (layout.state / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeServiceError(f"Another start or stop works on {layout.root}.") from None
        yield


class EmbeddedRun:
    """Starts the services of one checkout and runs the pipeline in them."""

    def __init__(self, layout: Layout, console: Console) -> None:
        self.layout = layout
        self.console = console
        self.supervisor = Supervisor(layout)

    def say(self, text: str) -> None:
        """Prints one line as it is."""
        self.console.print(escape(text), soft_wrap=True)

    def start(self, options: StartOptions) -> ExitCode:
        """Starts what does not run, triggers the pipeline, follows it, prints the results."""
        require_environments(self.layout)
        generated = complete_dotenv(self.layout.dotenv)
        if generated.airflow_password:
            # Now, not only at the end: what follows may fail, and this is shown once.
            self.say(f"New password for Airflow, kept in .env: {generated.airflow_password}")
        get_settings.cache_clear()  # .env may have just been written
        settings = get_settings()
        choice = choose_runtime(settings)
        self.say(f"Runtime: {choice.name} ({choice.reason}).")
        self._warn_of_workspace(settings)
        self.layout.prepare()
        with _one_start_at_a_time(self.layout):
            self.bring_up(settings)
        outcome = ExitCode.DONE
        if options.trigger:
            outcome = self._run_pipeline(settings, options)
        self._print_addresses(settings, generated.airflow_password)
        return outcome

    def bring_up(self, settings: Settings) -> None:
        """Starts or updates the services and waits until they are healthy."""
        started = time.monotonic()
        services = build_services(self.layout, settings)
        running = {name for name, state in self.supervisor.states().items() if state.alive}
        require_free(services, running)
        changed: list[str] = []
        with self.console.status("Starting") as status:
            if needs_migration(self.layout):
                # MLflow is slow to start: it does so while Airflow's database is made.
                changed += self.supervisor.apply([s for s in services if s.name == MLFLOW])
                status.update("Preparing Airflow's database")
            initialise_airflow(self.layout, settings)
            changed += self.supervisor.apply(services)
            wait_until_healthy(self.supervisor, settings, status.update)
        seconds = time.monotonic() - started
        if changed:
            self.say(f"Started {', '.join(sorted(changed))} in {seconds:.0f} s.")
        else:
            self.say(f"Running already: {', '.join(sorted(running))}.")

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
        follower = RunFollower(api, self.layout, self.console, run_id)
        started = time.monotonic()
        state = follower.follow()
        self.say(f"Run {run_id}: {state} after {time.monotonic() - started:.0f} s.")
        if state != "success":
            follower.explain_failure()
            return ExitCode.FAULT
        print_results(self.console, Workspace(stage_workspace(self.layout, settings)))
        return ExitCode.DONE

    def _wait_for_dag(self, api: AirflowAPI) -> None:
        since = self.supervisor.states()[AIRFLOW_DAG_PROCESSOR].started
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

    def _print_addresses(self, settings: Settings, new_password: str | None) -> None:
        login = f"login {settings.airflow_admin_user}, password "
        login += new_password or "as AIRFLOW_ADMIN_PASSWORD in .env"
        address = f"http://localhost:{settings.airflow_port}/dags/{DAG_ID}"
        self.say(f"Airflow: {address} ({login})")
        local = local_tracking_uri(settings)
        self.say(f"MLflow:  {settings.tracking_uri(local).replace('127.0.0.1', 'localhost')}")
        self.say("make status, make logs, make stop: see, read, end.")


def stop(layout: Layout) -> bool:
    """Ends everything that `start` started; True where something ran."""
    if not layout.state.exists():
        return False
    with _one_start_at_a_time(layout):
        return Supervisor(layout).stop()
