"""The account of the prediction API at a running Airflow: what it may, and that it may nothing else."""

import httpx
import pytest

DAG = "dags/ml_pipeline"
RUN = f"{DAG}/dagRuns/{{run}}"
TASK = f"{RUN}/taskInstances/data_stage.check"
NEW_RUN = {"logical_date": None, "conf": {}}
CLEAR = {"dry_run": False, "only_failed": False}
BULK = {"actions": [{"action": "delete", "entities": ["x"]}]}

# What the API offers beyond the four things that are allowed, with bodies that an administrator's
# request could have.
FORBIDDEN = [
    ("GET", "dags", None),
    ("GET", f"{DAG}/tasks", None),
    ("GET", f"{DAG}/dagVersions", None),
    ("GET", "dagSources/ml_pipeline", None),
    ("GET", f"{TASK}/logs/1", None),
    ("GET", f"{TASK}/xcomEntries", None),
    ("GET", f"{TASK}/xcomEntries/return_value", None),
    ("GET", "dags/~/dagRuns", None),
    ("GET", "dags/~/dagRuns/~/taskInstances", None),
    ("GET", "dags/another/dagRuns", None),
    ("POST", "dags/another/dagRuns", NEW_RUN),
    ("PATCH", DAG, {"is_paused": True}),
    ("PATCH", "dags", {"is_paused": True}),
    ("DELETE", DAG, None),
    ("POST", f"{DAG}/clearTaskInstances", CLEAR),
    ("PATCH", RUN, {"state": "failed"}),
    ("DELETE", RUN, None),
    ("POST", f"{RUN}/clear", {"dry_run": False}),
    ("PATCH", f"{DAG}/dagRuns", BULK),
    ("PATCH", TASK, {"new_state": "success"}),
    ("DELETE", TASK, None),
    ("GET", "variables", None),
    ("POST", "variables", {"key": "a", "value": "b"}),
    ("GET", "connections", None),
    ("POST", "connections", {"connection_id": "a", "conn_type": "http"}),
    ("GET", "config", None),
    ("GET", "pools", None),
    ("PATCH", "pools/dvc", {"slots": 9}),
    ("GET", "assets", None),
    ("GET", "eventLogs", None),
    ("GET", "importErrors", None),
    ("GET", "jobs", None),
    ("GET", "plugins", None),
    ("GET", "providers", None),
]


@pytest.fixture(scope="module")
def run_id(airflow):
    airflow.scratch.reset()
    airflow.mark_unchanged()
    run_id, state = airflow.run()
    assert state == "success"
    return run_id


@pytest.fixture(scope="module")
def account(airflow):
    with httpx.Client(base_url=airflow.address, timeout=60, trust_env=False) as http:
        http.headers.update(airflow.sign_in("trigger", http))
        yield http


def test_it_reads_the_dag_triggers_it_and_follows_the_run(airflow, account, run_id):
    assert account.get(f"/api/v2/{DAG}").json()["dag_id"] == "ml_pipeline"
    assert "text_epochs" in account.get(f"/api/v2/{DAG}/details").json()["params"]
    answer = account.post(f"/api/v2/{DAG}/dagRuns", json=NEW_RUN)
    assert answer.status_code == 200, answer.text
    started = answer.json()["dag_run_id"]
    assert answer.json()["triggering_user_name"] == "trigger"
    assert airflow.finish(started) == "success"
    assert account.get(f"/api/v2/{DAG}/dagRuns/{started}").json()["state"] == "success"
    tasks = account.get(f"/api/v2/{DAG}/dagRuns/{started}/taskInstances").json()["task_instances"]
    assert {"data_stage.check", "serving_stage.smoke"} <= {task["task_id"] for task in tasks}


@pytest.mark.parametrize(("method", "path", "body"), FORBIDDEN, ids=lambda value: str(value)[:60])
def test_it_is_refused_everything_else(airflow, account, run_id, method, path, body):
    answer = account.request(method, "/api/v2/" + path.format(run=run_id), json=body)
    # Lists are answered with what the account may see of them: nothing but its own DAG.
    if method == "GET" and path == "dags" and answer.status_code == 200:
        assert [dag["dag_id"] for dag in answer.json()["dags"]] == ["ml_pipeline"]
    else:
        assert answer.status_code == 403, f"{answer.status_code} {answer.text[:300]}"
    assert airflow.api("GET", DAG)["is_paused"] is False
    assert airflow.api("GET", f"{DAG}/dagRuns/{run_id}")["state"] == "success"


def test_it_may_not_have_the_file_read_again(airflow, account):
    token = airflow.api("GET", DAG)["file_token"]
    assert account.put(f"/api/v2/parseDagFile/{token}").status_code == 403


def test_a_backfill_is_refused_because_the_pipeline_has_no_schedule(account):
    # Airflow counts a backfill as creating runs, which this account may.
    dates = {"from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-02T00:00:00Z"}
    answer = account.post("/api/v2/backfills", json={"dag_id": "ml_pipeline", **dates})
    assert answer.status_code in (409, 422), answer.text
    assert "schedule" in answer.text


def test_the_interface_offers_it_nothing(account):
    answer = account.get("/ui/auth/menus")
    assert answer.status_code == 200
    assert answer.json()["authorized_menu_items"] == []


def test_a_wrong_password_is_refused(airflow):
    login = {"username": "trigger", "password": "guess"}
    url = f"{airflow.address}/auth/token"
    assert httpx.post(url, json=login, timeout=60, trust_env=False).status_code == 401
