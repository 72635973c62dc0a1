"""WORKSPACE_SYNC=dvc: no two commands share a folder, and the result is that of one folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from containers.dagshub.hub import Hub, make_bucket
from product_classifier.core.files import read_json
from product_classifier.tracking.server import connect

from .dagshub_checkout import STEPS, THIRD, Checkout

# Twenty commands and a training, each with its own start, and perhaps the fixtures' on top.
pytestmark = pytest.mark.timeout(1200)

Fresh = Callable[[], Checkout]


@pytest.fixture
def fresh(hub: Hub, tmp_path: Path) -> Fresh:
    """Makes an empty checkout: a worker that has never seen any of this."""
    count = iter(range(100))

    def make() -> Checkout:
        checkout = Checkout(tmp_path / f"worker {next(count)}", hub, THIRD)
        checkout.settings |= {"WORKSPACE_SYNC": "dvc", "AIRFLOW_RUN_ID": "manual__1+00:00"}
        return checkout

    return make


def test_each_command_in_an_empty_workspace_gives_what_one_workspace_gives(
    pipeline: Checkout, fresh: Fresh
) -> None:
    made = {step: fresh() for step in STEPS}
    for step, checkout in made.items():
        checkout.must(step)
    # Nobody fetched what it does not read.
    assert not (made["version predict"].root / "data" / "raw").exists()
    assert not (made["check train"].root / "data" / "raw").exists()
    assert not (made["gate"].root / "data" / "raw").exists()
    last = made["predict"]
    expected, found = pipeline.hashes(), last.hashes()
    same = ("data/raw", "data/predictions")
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    assert made["train"].content_id() == pipeline.content_id()

    for stage in ("ingest", "train", "predict"):
        assert fresh().run(f"check {stage}").returncode == 99
    assert fresh().run("gate").returncode == 99

    # The parts of a prediction meet on the remote.
    for shard in ("1/2", "2/2"):
        fresh().must(f"predict --shard {shard}")
    merged = fresh()
    merged.must("predict --merge 2")
    assert merged.hashes()["data/predictions"] == expected["data/predictions"]

    # The report has what was scored, with which model; the training's record is elsewhere, so MLflow is told.
    reporter = fresh()
    reporter.must("drift-report")
    assert (reporter.root / "reports" / "drift" / "batch" / "report.html").is_file()
    with connect(reporter.typed()) as server:
        experiment = server.client.get_experiment_by_name(THIRD)
        query = "tags.`drift.batch.products` != ''"
        (run,) = server.client.search_runs([experiment.experiment_id], query)
        name = "drift/batch/summary.json"
        told = server.client.download_artifacts(run.info.run_id, name, str(reporter.root))
    assert read_json(Path(told))["products"] == int(run.data.tags["drift.batch.products"])

    # Parameters of the trigger form reach the run's other commands, and no other run.
    fresh().must("params set train.text.epochs=3", AIRFLOW_RUN_ID="second")
    second = fresh().must("check train", AIRFLOW_RUN_ID="second")
    assert "params changed" in second
    assert fresh().run("check train", AIRFLOW_RUN_ID="third").returncode == 99

    restored = fresh()
    restored.must("restore --latest", WORKSPACE_SYNC="none")
    assert "YES" in restored.must("verify", WORKSPACE_SYNC="none")
    assert restored.hashes() == merged.hashes()
    assert (restored.root / "models" / "champion").is_symlink()


def test_what_could_not_be_sent_is_sent_by_the_next_try(fresh: Fresh, hub: Hub) -> None:
    checkout = fresh()
    hub.repositories.add("jane/fourth")
    make_bucket(hub, "jane/fourth")
    checkout.settings["DAGSHUB_REPOSITORY"] = "jane/fourth"
    hub.refuse_writes = True
    checkout.fails("ingest", "local commit of ingest is kept")
    hub.refuse_writes = False
    made = checkout.hashes()
    assert "sending it now" in checkout.must("ingest")
    assert checkout.hashes() == made
    assert "objects are on the remote" in checkout.must("version ingest")
