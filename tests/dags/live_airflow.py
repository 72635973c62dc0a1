"""What the tests do with a running Airflow, through its REST API as a user's browser does."""

import json
import subprocess
import time

import httpx

DAG = "ml_pipeline"


def _ps(pid, field):
    command = ["ps", "-o", f"{field}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def alive(pid):
    return _ps(pid, "stat")[:1] not in ("", "Z")


def parent_of(pid):
    return int(_ps(pid, "ppid"))


def until(fact, what, seconds=300):
    deadline = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < deadline, f"Waited {seconds} s for: {what}"
        time.sleep(0.2)
    return value


class LiveAirflow:
    def __init__(self, scratch, port, processes, passwords):
        self.scratch = scratch
        self.passwords = passwords
        self.workspace = scratch.workspace
        self.processes = processes
        self.address = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.address, timeout=60, trust_env=False)

    def sign_in(self, user, http=None):
        login = {"username": user, "password": self.passwords[user]}
        answer = (http or self.http).post("/auth/token", json=login)
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def api(self, method, path, **options):
        answer = self.http.request(method, f"/api/v2/{path}", **options)
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def _ready(self):
        assert all(process.poll() is None for process in self.processes), "a part of Airflow ended"
        try:
            self.http.headers.update(self.sign_in("admin"))
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        answer = self.http.get(f"/api/v2/dags/{DAG}")
        return answer.status_code == 200

    def wait_until_ready(self):
        until(self._ready, "Airflow to know the DAG", 600)
        self.api("PATCH", f"dags/{DAG}", json={"is_paused": False})

    def trigger(self, **params):
        body = {"logical_date": None, "conf": params}
        return self.api("POST", f"dags/{DAG}/dagRuns", json=body)["dag_run_id"]

    def run(self, **params):
        run_id = self.trigger(**params)
        return run_id, self.finish(run_id)

    def finish(self, run_id, seconds=600):
        def state():
            found = self.api("GET", f"dags/{DAG}/dagRuns/{run_id}")["state"]
            return found if found in ("success", "failed") else None

        return until(state, f"{run_id} to finish", seconds)

    def task(self, run_id, task_id):
        return self.api("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}")

    def states(self, run_id):
        tasks = self.api("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in tasks}

    def clear(self, run_id, *task_ids, downstream=True):
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "only_failed": False,
            "include_downstream": downstream,
        }
        self.api("POST", f"dags/{DAG}/clearTaskInstances", json=body)

    def set_state(self, run_id, task_id, state):
        path = f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}"
        self.api("PATCH", path, json={"new_state": state})

    def log(self, run_id, task_id, attempt=1):
        path = f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        return json.dumps(self.api("GET", path)["content"])

    def mark_unchanged(self):
        done = self.workspace / "done"
        done.mkdir()
        for name in ("ingest", "train", "gate", "predict"):
            (done / name).touch()

    def control(self, **rules):
        (self.workspace / "control.json").write_text(json.dumps(rules))

    def _lines(self, name):
        path = self.workspace / name
        if not path.exists():
            return []
        whole, _, _ = path.read_text().rpartition("\n")  # the last line may be half written
        return [json.loads(line) for line in whole.splitlines()]

    def calls(self):
        return self._lines("calls.jsonl")

    def names(self):
        return [call["name"] for call in self.calls()]

    def forget_calls(self):
        (self.workspace / "calls.jsonl").unlink(missing_ok=True)

    def hanging(self):
        return self._lines("hanging.jsonl")
