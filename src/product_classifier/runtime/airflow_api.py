"""Airflow's REST API, as far as the embedded run uses it: health, trigger, follow."""

from datetime import datetime
from typing import Any

import httpx

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.settings import Settings

DAG_ID = "ml_pipeline"
FINISHED = frozenset({"success", "failed"})
# Of a task's shards, the one whose state comes last here speaks for all.
_TELLING = (
    *("removed", "skipped", "success", None, "scheduled", "queued"),
    *("up_for_retry", "running", "upstream_failed", "failed"),
)


def _weight(task: dict[str, Any]) -> int:
    state = task.get("state")
    return _TELLING.index(state if state in _TELLING else None)


class AirflowAPI:
    """A signed-in client of the embedded Airflow.

    Every call raises `RuntimeServiceError` where Airflow can't be reached or refuses, and
    `ConfigurationError` where it says that a value is not allowed.
    """

    def __init__(self, settings: Settings) -> None:
        # trust_env off: a proxy must not see calls to this machine.
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{settings.airflow_port}", timeout=20, trust_env=False
        )
        self._user = settings.airflow_admin_user
        secret = settings.airflow_admin_password
        self._password = secret.get_secret_value() if secret else ""

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def _sign_in(self) -> None:
        login = {"username": self._user, "password": self._password}
        answer = self._http.post("/auth/token", json=login)
        if answer.status_code >= 400:
            raise RuntimeServiceError(
                f"Airflow refused the login of {self._user!r} ({answer.status_code}). "
                "AIRFLOW_ADMIN_PASSWORD must be the one it was started with: run `make start`."
            )
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Calls the API v2 and gives the JSON of its answer; None for 404."""
        try:
            if "Authorization" not in self._http.headers:
                self._sign_in()
            answer = self._http.request(method, f"/api/v2/{path}", **options)
            if (
                answer.status_code == httpx.codes.UNAUTHORIZED
            ):  # a token lives a day, a run may be longer
                self._sign_in()
                answer = self._http.request(method, f"/api/v2/{path}", **options)
        except httpx.HTTPError as error:
            raise RuntimeServiceError(f"Airflow does not answer: {error}") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code in (400, 422):
            raise ConfigurationError(f"Airflow does not accept this: {answer.json().get('detail')}")
        if answer.status_code >= 400:
            raise RuntimeServiceError(
                f"Airflow refused {method} {path} ({answer.status_code}): {answer.text[:500]}"
            )
        return answer.json()

    def knows_dag_since(self, moment: float) -> bool:
        """Tells whether the DAG was read after a moment (seconds since the epoch)."""
        found = self.call("GET", f"dags/{DAG_ID}")
        if not found or not found.get("last_parsed_time"):
            return False
        return datetime.fromisoformat(found["last_parsed_time"]).timestamp() >= moment

    def params(self) -> dict[str, Any]:
        """Gives the fields of the trigger form by name."""
        return dict((self.call("GET", f"dags/{DAG_ID}/details") or {}).get("params") or {})

    def import_errors(self) -> list[str]:
        """Lists why DAG files could not be read."""
        answer = self.call("GET", "importErrors") or {}
        return [item["stack_trace"] for item in answer.get("import_errors", [])]

    def unpause(self) -> None:
        """Lets runs of the DAG start."""
        self.call("PATCH", f"dags/{DAG_ID}", json={"is_paused": False})

    def task_order(self) -> list[str]:
        """Lists the task ids in the order they run."""
        answer = self.call("GET", f"dags/{DAG_ID}/tasks") or {"tasks": []}
        followers = {task["task_id"]: task["downstream_task_ids"] for task in answer["tasks"]}
        incoming = dict.fromkeys(followers, 0)
        for names in followers.values():
            for name in names:
                incoming[name] += 1
        order: list[str] = []
        ready = sorted(name for name, count in incoming.items() if not count)
        while ready:
            order.append(ready.pop(0))
            for name in sorted(followers[order[-1]]):
                incoming[name] -= 1
                if not incoming[name]:
                    ready.append(name)
        return order

    def trigger(self, params: dict[str, Any]) -> str:
        """Starts a run; gives its id."""
        body = {"logical_date": None, "conf": params}
        return str(self.call("POST", f"dags/{DAG_ID}/dagRuns", json=body)["dag_run_id"])

    def last_run(self) -> dict[str, Any] | None:
        """Gives the newest run."""
        query = {"order_by": "-run_after", "limit": 1}
        runs = (self.call("GET", f"dags/{DAG_ID}/dagRuns", params=query) or {}).get("dag_runs", [])
        return runs[0] if runs else None

    def run(self, run_id: str) -> dict[str, Any]:
        """Gives one run."""
        found: dict[str, Any] | None = self.call("GET", f"dags/{DAG_ID}/dagRuns/{run_id}")
        if found is None:
            raise RuntimeServiceError(f"Airflow has no run {run_id!r} any more.")
        return found

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Gives a run's tasks by id; of a task that runs in shards, the one that says most."""
        path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances"
        answer = self.call("GET", path, params={"limit": 100}) or {"task_instances": []}
        # The heaviest of each id comes last and stays.
        return {item["task_id"]: item for item in sorted(answer["task_instances"], key=_weight)}

    def log(self, run_id: str, task: dict[str, Any]) -> list[Any]:
        """Gives the events in the log of a task's last try; none where there is no log yet."""
        path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/{task['task_id']}"
        number = max(1, task["try_number"])
        query = {"map_index": task.get("map_index", -1), "full_content": True}
        answer = self.call("GET", f"{path}/logs/{number}", params=query) or {}
        content = answer.get("content", [])
        return content if isinstance(content, list) else [content]
