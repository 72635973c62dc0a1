"""`product-classifier start`: from a checkout to a finished run, one step after the other."""

import fcntl
import os
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
from product_classifier.runtime.api_services import (
    API_SERVICES,
    AUTH,
    SERVE,
    api_service,
    build_services,
    deployed_names,
    has_users,
    serve_url,
)
from product_classifier.runtime.choice import choose_runtime
from product_classifier.runtime.dotenv import Generated, complete_dotenv
from product_classifier.runtime.example import example_commands
from product_classifier.runtime.follow import RunFollower
from product_classifier.runtime.health import healthy_services, wait_until_healthy
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
    core_services,
    local_tracking_uri,
    stage_workspace,
)
from product_classifier.runtime.supervision import Supervisor

DAG_TIMEOUT_SECONDS = 120.0
DEPLOYED_TIMEOUT_SECONDS = 60.0


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
        generated = complete_dotenv(self.layout.dotenv, has_users=has_users(self.layout))
        # Now, not only at the end: what follows may fail, and these are shown once.
        if generated.airflow_password:
            self.say(f"New password for Airflow, kept in .env: {generated.airflow_password}")
        if generated.admin_password:
            self.say(f"New password for the API, kept in .env: {generated.admin_password}")
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
        else:
            self._wait_for_deployed(settings)
        self._print_addresses(settings, generated)
        return outcome

    def bring_up(self, settings: Settings) -> None:
        """Starts or updates the services and waits until they are healthy."""
        started = time.monotonic()
        services = build_services(self.layout, settings)
        core = [service.name for service in core_services(self.layout, settings)]
        running = {name for name, state in self.supervisor.states().items() if state.alive}
        # Those that the pipeline deploys at its end too: now is the time to say that a port is taken.
        later = [api_service(self.layout, settings, name) for name in API_SERVICES]
        require_free([*(s for s in services if s.name in core), *later], running)
        changed: list[str] = []
        with self.console.status("Starting") as status:
            if needs_migration(self.layout):
                # MLflow is slow to start: it does so while Airflow's database is made.
                mlflow = [service for service in services if service.name == MLFLOW]
                changed += self.supervisor.apply(mlflow, self._deployed)
                status.update("Preparing Airflow's database")
            initialise_airflow(self.layout, settings)
            changed += self.supervisor.apply(services, self._deployed)
            # auth and serve are waited for by the tasks that deploy them: serve may have to wait for
            # the model that this very run makes.
            wait_until_healthy(self.supervisor, settings, status.update, names=core)
        seconds = time.monotonic() - started
        if changed:
            self.say(f"Started {', '.join(sorted(changed))} in {seconds:.0f} s.")
        else:
            self.say(f"Running already: {', '.join(sorted(running))}.")

    def _deployed(self) -> list[str]:
        return deployed_names(self.layout)

    def _wait_for_deployed(self, settings: Settings) -> None:
        names = self._deployed()
        if not names:
            self.say("auth and serve are deployed by the pipeline: `make start` runs it.")
            return
        with self.console.status("Waiting") as status:
            try:
                timeout = DEPLOYED_TIMEOUT_SECONDS
                wait_until_healthy(self.supervisor, settings, status.update, timeout, names)
            except RuntimeServiceError as error:
                self.say(f"Warning: {error}")

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

    def _print_addresses(self, settings: Settings, generated: Generated) -> None:
        login = f"login {settings.airflow_admin_user}, password "
        login += generated.airflow_password or "as AIRFLOW_ADMIN_PASSWORD in .env"
        address = f"http://localhost:{settings.airflow_port}/dags/{DAG_ID}"
        self.say(f"Airflow: {address} ({login})")
        local = local_tracking_uri(settings)
        self.say(f"MLflow:  {settings.tracking_uri(local).replace('127.0.0.1', 'localhost')}")
        healthy = healthy_services(settings, self.supervisor.states())
        if {AUTH, SERVE} <= healthy:
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


def stop(layout: Layout) -> bool:
    """Ends everything that `start` started; True where something ran."""
    if not layout.state.exists():
        return False
    with _one_start_at_a_time(layout):
        return Supervisor(layout).stop()
