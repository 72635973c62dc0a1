"""`product-classifier start` as processes of this machine, under a supervisor."""

import time

from rich.console import Console

from product_classifier.core.errors import RuntimeServiceError
from product_classifier.core.settings import Settings, get_settings
from product_classifier.runtime.airflow_api import AirflowAPI
from product_classifier.runtime.api_services import (
    API_SERVICES,
    AUTH,
    SERVE,
    api_service,
    deployed_names,
    has_users,
)
from product_classifier.runtime.choice import RuntimeChoice
from product_classifier.runtime.dotenv import Generated, complete_dotenv
from product_classifier.runtime.follow import RunFollower
from product_classifier.runtime.health import healthy_services, wait_until_healthy
from product_classifier.runtime.initialise import (
    initialise_airflow,
    needs_migration,
    require_environments,
)
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.monitoring.configuration import write_configuration
from product_classifier.runtime.monitoring.services import SERVICES as MONITORING_SERVICES
from product_classifier.runtime.monitoring.services import all_services
from product_classifier.runtime.monitoring.start import embedded_lines, needs_grafana_password
from product_classifier.runtime.pipeline_start import PipelineStart, one_start_at_a_time
from product_classifier.runtime.ports import require_free
from product_classifier.runtime.services import AIRFLOW_DAG_PROCESSOR, MLFLOW, core_services
from product_classifier.runtime.supervision import Supervisor

DEPLOYED_TIMEOUT_SECONDS = 60.0


class EmbeddedRun(PipelineStart):
    """Starts the services of one checkout as supervised processes."""

    def __init__(self, layout: Layout, console: Console, choice: RuntimeChoice) -> None:
        super().__init__(layout, console, choice)
        self.supervisor = Supervisor(layout)

    def complete_settings(self) -> Generated:
        """Generates the passwords that are missing."""
        require_environments(self.layout)
        return complete_dotenv(
            self.layout.dotenv,
            has_users=has_users(self.layout),
            grafana=needs_grafana_password(get_settings()),
        )

    def bring_up(self, settings: Settings) -> None:
        """Starts or updates the services and waits until they are healthy."""
        started = time.monotonic()
        services = all_services(self.layout, settings)
        monitoring = [s.name for s in services if s.name in MONITORING_SERVICES]
        core = [*(s.name for s in core_services(self.layout, settings)), *monitoring]
        running = self.supervisor.running()
        # Those that the pipeline deploys at its end too: now is the time to say that a port is taken.
        later = [api_service(self.layout, settings, name) for name in API_SERVICES]
        require_free([*(s for s in services if s.name in core), *later], self.supervisor)
        if monitoring:
            write_configuration(self.layout, settings)
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

    def wait_for_deployed(self, settings: Settings) -> None:
        """Waits for what the pipeline deployed before."""
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

    def dag_processor_started(self) -> float:
        """Gives when the supervisor started it."""
        return self.supervisor.states()[AIRFLOW_DAG_PROCESSOR].started

    def follower(self, api: AirflowAPI, run_id: str) -> RunFollower:
        """Reads the tasks' logs from disk."""
        return RunFollower(api, self.layout, self.console, run_id)

    def monitoring_lines(self, settings: Settings, new_password: str | None) -> list[str]:
        """Names what runs on this machine, or says how to install it."""
        return embedded_lines(settings, new_password)

    def api_is_up(self, settings: Settings) -> bool:
        """Asks both services."""
        return {AUTH, SERVE} <= healthy_services(settings, self.supervisor.states())


def stop(layout: Layout) -> bool:
    """Ends everything that `start` started; True where something ran."""
    if not layout.state.exists():
        return False
    with one_start_at_a_time(layout):
        return Supervisor(layout).stop()
