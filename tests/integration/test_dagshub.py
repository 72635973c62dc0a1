"""The stages' commands on DagsHub's stand-in: with a token alone, and through everything that goes wrong there."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.dagshub.hub import Hub
from product_classifier.core.settings import Settings
from product_classifier.runtime import dagshub_check
from product_classifier.runtime.dagshub_check import check_dagshub
from product_classifier.tracking.server import connect

from .dagshub_checkout import EXPIRED, FIRST, SECOND, STEPS, TOKEN, USER, Checkout

# Whole pipelines, each step a process of its own.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dagshub_check, "ANSWER_SECONDS", 120.0)
    monkeypatch.setattr(dagshub_check, "_CONNECT_SECONDS", 60.0)


@pytest.fixture(autouse=True)
def _healthy(hub: Hub) -> Iterator[None]:
    yield
    hub.control({"down": False, "drip_seconds": 0.0, "refuse_writes": False})
    hub.read_only.clear()


def test_a_token_and_a_repository_are_all_that_a_pipeline_needs(
    pipeline: Checkout, hub: Hub
) -> None:
    assert not (pipeline.root / "dvc-remote").exists()
    assert set(pipeline.hashes()) >= {"data/raw", "models/candidate", "data/predictions"}
    served = {line.split()[1].split("/")[3] for line in hub.seen if f"/{FIRST}." in line}
    assert {"api", "dvc"} <= served
    assert TOKEN not in (pipeline.root / ".dvc" / "config").read_text()
    with connect(pipeline.typed()) as server:
        experiment = server.client.get_experiment_by_name(FIRST)
        runs = server.client.search_runs([experiment.experiment_id])
    # Without a registry, tags say which run made the candidate and the champion.
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["alias.champion"] == "true"
    assert parent.info.status == "FINISHED"
    assert any("/model-versions/search -> 404" in line for line in hub.seen)


def test_a_second_run_has_nothing_to_do(pipeline: Checkout) -> None:
    for stage in ("ingest", "train", "predict"):
        assert pipeline.run(f"check {stage}").returncode == 99


def test_an_empty_clone_gets_everything_back(pipeline: Checkout, hub: Hub, tmp_path: Path) -> None:
    clone = Checkout(tmp_path / "clone", hub, FIRST)
    clone.must("restore --latest")
    assert clone.hashes() == pipeline.hashes()
    assert "YES" in clone.must("verify --remote")


def test_faults_lose_nothing_and_the_result_is_the_same(
    pipeline: Checkout, hub: Hub, tmp_path: Path
) -> None:
    checkout = Checkout(tmp_path / "second", hub, SECOND)
    for step in ("check ingest", "ingest", "check train"):
        checkout.must(step)
    checkout.fails("version ingest", "local commit of ingest is kept", DAGSHUB_TOKEN="wrong")

    hub.down = True
    assert "not uploaded yet" in checkout.must("train")
    checkout.fails("version train", "local commit of train is kept")
    assert checkout.run("sync-runs").returncode == 1
    hub.down = False

    checkout.fails("version train", "local commit of train is kept", DAGSHUB_TOKEN=EXPIRED)

    hub.drip_seconds = 1.0
    checkout.fails("version train", "was given up", DVC_TIMEOUT_SECONDS="8")
    checkout.fails("sync-runs", "MLflow does not have everything yet")
    hub.drip_seconds = 0.0

    checkout.must("sync-runs")
    checkout.must("version ingest")
    for step in STEPS[5:]:
        checkout.must(step)
    same = ("data/raw", "data/predictions")
    found, expected = checkout.hashes(), pipeline.hashes()
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    assert checkout.content_id() == pipeline.content_id()
    assert "YES" in checkout.must("verify --remote")


# doctor


def findings(settings: Settings) -> dict[str, tuple[str, str]]:
    return {f.subject: (f.level, f.message) for f in check_dagshub(settings)}


@pytest.fixture
def settings(hub: Hub) -> Settings:
    return Settings(
        _env_file=None,
        dagshub_url=hub.url,
        dagshub_username=USER,
        dagshub_token=TOKEN,
        mlflow_tracking_uri=f"{hub.url}/{FIRST}.mlflow",
    )


def changed(settings: Settings, **values: Any) -> Settings:
    return Settings(_env_file=None, **(settings.model_dump(exclude_none=True) | values))


def test_doctor_finds_a_good_setup_good(settings: Settings) -> None:
    found = findings(settings)
    assert {level for level, _ in found.values()} == {"ok"}
    assert list(found) == [
        *("DAGSHUB_TOKEN", "DAGSHUB_REPOSITORY", "DagsHub MLflow", "DagsHub storage"),
    ]


@pytest.mark.parametrize(
    ("token", "said"),
    [("wrong", "is wrong, was revoked or has expired"), (EXPIRED, "DAGSHUB_TOKEN has expired")],
)
def test_doctor_explains_a_token_that_is_refused(settings: Settings, token: str, said: str) -> None:
    level, message = findings(changed(settings, dagshub_token=token))["DagsHub"]
    assert level == "fail"
    assert said in message
    assert "/user/settings/tokens" in message
    assert token not in message or token == "wrong"


def test_doctor_names_a_repository_that_is_not_there(settings: Settings) -> None:
    found = findings(changed(settings, dagshub_repository="jane/absent"))
    assert found["DAGSHUB_TOKEN"][0] == "ok"
    assert "no repository jane/absent" in found["DagsHub"][1]


def test_doctor_finds_a_token_that_may_not_write(hub: Hub, settings: Settings) -> None:
    hub.read_only.add(FIRST)
    assert "not write to it" in findings(settings)["DagsHub"][1]


def test_doctor_tells_whose_the_token_is(settings: Settings) -> None:
    level, message = findings(changed(settings, dagshub_username="ann"))["DAGSHUB_USERNAME"]
    assert (level, message) == ("warn", "is ann, but the token is jane's")


@pytest.mark.parametrize("fault", [{"down": True}, {"drip_seconds": 0.5}], ids=["down", "drips"])
def test_doctor_is_not_kept_waiting(
    hub: Hub, settings: Settings, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagshub_check, "ANSWER_SECONDS", 1.0)
    hub.control(fault)
    started = time.monotonic()
    level, message = findings(settings)["DagsHub"]
    assert time.monotonic() - started < 30  # byte for byte it would be minutes
    assert level == "fail"
    assert "can't be reached" in message or "took longer than 1 s" in message


def test_doctor_looks_at_each_service_by_itself(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "mlflow", "http://127.0.0.1:9")
    found = findings(settings)
    assert found["DagsHub MLflow"][0] == "fail"
    assert found["DagsHub storage"][0] == "ok"


# First-time set-up


def test_login_and_init_fill_in_the_env(hub: Hub, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "new", hub, FIRST)
    checkout.settings = {"DAGSHUB_URL": hub.url}
    dotenv = checkout.root / ".env"
    dotenv.write_text("# mine\nLOG_LEVEL=INFO\nDAGSHUB_TOKEN=\n")
    done = subprocess.run(
        [sys.executable, "-m", "product_classifier", "dagshub", "login", "--token"],
        cwd=checkout.root,
        env=os.environ | checkout.settings,
        input=f"{TOKEN}\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert dotenv.read_text().splitlines() == [
        *("# mine", "LOG_LEVEL=INFO", f"DAGSHUB_TOKEN={TOKEN}", f"DAGSHUB_USERNAME={USER}"),
    ]
    said = checkout.must("dagshub init jane/fresh")
    assert f"{hub.url}/jane/fresh is ready" in said
    assert "jane/fresh" in hub.repositories
    assert "DAGSHUB_REPOSITORY=jane/fresh" in dotenv.read_text()
    assert dotenv.stat().st_mode & 0o077 == 0
    assert checkout.must("dagshub init jane/fresh").count("ok") >= 4  # again: nothing is made twice


def test_a_wrong_token_is_not_written_down(hub: Hub, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "new", hub, FIRST)
    checkout.settings = {"DAGSHUB_URL": hub.url, "DAGSHUB_TOKEN": "wrong"}
    done = checkout.run("dagshub init jane/fresh")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "does not take this token" in done.stdout + done.stderr
    assert not (checkout.root / ".env").exists()
