import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from product_classifier.core.errors import TrackingError
from product_classifier.core.files import read_json
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.latest import LATEST_FILE, latest_record, set_latest
from product_classifier.tracking.ledger import Ledger, is_uploaded
from product_classifier.tracking.lineage import attach_lineage
from product_classifier.tracking.record import RunRecord, list_records, mark_killed
from product_classifier.tracking.upload import pending_records


def test_run_id_tells_the_start_time(tmp_path: Path) -> None:
    record = RunRecord.start(tmp_path)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", record.run_id)
    record.finish()


def test_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    with RunRecord.start(tmp_path, tags={"n": 1}, params={"a": {"b": 2}}) as record:
        record.log_metrics({"loss": 0.5}, step=3)
    again = RunRecord.open(record.folder)
    assert (again.tags, again.params, again.status) == ({"n": "1"}, {"a": {"b": 2}}, "FINISHED")
    [event] = again.metrics()
    assert (event.step, event.values) == (3, {"loss": 0.5})
    assert again.started_at_ms <= event.at_ms <= (again.ended_at_ms or 0)


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (SystemExit, "KILLED"), (KeyboardInterrupt, "KILLED")],
)
def test_run_that_ends_badly_says_how(
    tmp_path: Path, error: type[BaseException], status: str
) -> None:
    record = RunRecord.start(tmp_path)
    child = record.child("ablation")
    with pytest.raises(error), record:
        raise error
    assert RunRecord.open(record.folder).status == status
    assert RunRecord.open(child.folder).status == status


def test_artifacts_keep_their_folders(tmp_path: Path) -> None:
    bundle = tmp_path / "candidate"
    (bundle / "inference").mkdir(parents=True)
    (bundle / "mapper.json").write_text("{}")
    (bundle / "inference" / "text.xml").write_text("<net/>")
    with RunRecord.start(tmp_path / "runs") as record:
        record.log_artifact(bundle, "bundle")
        record.log_artifact(bundle / "mapper.json")
    assert set(record.artifact_files()) == {
        "bundle/inference/text.xml",
        "bundle/mapper.json",
        "mapper.json",
    }


def test_artifact_does_not_follow_a_later_write_to_a_small_file(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    file.write_text("before")
    with RunRecord.start(tmp_path / "runs") as record:
        record.log_artifact(file)
    file.write_text("after")
    assert (record.artifacts / "metrics.json").read_text() == "before"


def test_large_artifact_takes_no_second_space_and_may_be_logged_twice(tmp_path: Path) -> None:
    file = tmp_path / "base.keras"
    file.write_bytes(b"0" * (1 << 21))
    with RunRecord.start(tmp_path / "runs") as record:
        record.log_artifact(file)
        record.log_artifact(file)
    assert os.path.samefile(file, record.artifacts / "base.keras")


def test_credentials_in_addresses_are_hidden(tmp_path: Path) -> None:
    address = "https://me:geheim@dagshub.com/me/shop.mlflow"
    with RunRecord.start(tmp_path, tags={"uri": address}, params={"a": [address]}) as record:
        record.add_lineage({"remote": {"url": address}})
    text = "".join(path.read_text() for path in record.folder.glob("*.json"))
    assert "geheim" not in text
    assert text.count("https://***@dagshub.com/me/shop.mlflow") == 3


def test_torn_last_metric_is_skipped(tmp_path: Path) -> None:
    with RunRecord.start(tmp_path) as record:
        record.log_metrics({"loss": 1.0})
        with (record.folder / "metrics.jsonl").open("a") as file:
            file.write('{"t": 17')
    assert [event.values for event in record.metrics()] == [{"loss": 1.0}]


def test_running_record_is_left_alone_while_its_process_lives(tmp_path: Path) -> None:
    record = RunRecord.start(tmp_path)
    with RunRecord.start(tmp_path):
        assert RunRecord.open(record.folder).status == "RUNNING"
    assert mark_killed(tmp_path) == []
    record.finish()


_TRAINING = """
import sys
from pathlib import Path
from product_classifier.tracking.record import RunRecord

record = RunRecord.start(Path(sys.argv[1]), params={"seed": 1})
child = record.child("text_only")
for step in range(10**9):
    record.log_metrics({"loss": 1 / (step + 1)}, step=step)
    child.log_metrics({"loss": 1.0}, step=step)
    print(step, flush=True)
"""


def test_killed_training_leaves_a_readable_record_that_the_next_start_marks(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _TRAINING, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        for _ in range(50):
            process.stdout.readline()
        process.kill()
        process.wait()
    [killed] = list_records(tmp_path)
    assert killed.status == "RUNNING"
    with RunRecord.start(tmp_path) as record:
        pass
    killed = RunRecord.open(killed.folder)
    assert killed.status == "KILLED"
    assert [child.status for child in killed.children()] == ["KILLED"]
    assert len(killed.metrics()) >= 50
    assert killed.ended_at_ms is not None
    assert killed.started_at_ms <= killed.ended_at_ms <= record.started_at_ms


def test_folder_without_a_record_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "20261121T093000Z-ab12cd").mkdir()
    assert list_records(tmp_path) == []
    with pytest.raises(TrackingError, match="20261121T093000Z-ab12cd"):
        RunRecord.open(tmp_path / "20261121T093000Z-ab12cd")


def test_record_of_another_schema_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.json").write_text('{"schema_version": 99}')
    assert list_records(tmp_path) == []
    assert "schema version 99. Expected 1." in caplog.text


def test_latest_names_run_and_bundle(workspace: Workspace) -> None:
    assert latest_record(workspace) is None
    with RunRecord.start(workspace.runs) as record:
        set_latest(workspace, record.run_id, "c" * 64)
    latest = latest_record(workspace)
    assert latest is not None
    assert latest.run_id == record.run_id
    assert read_json(workspace.runs / LATEST_FILE)["content_id"] == "c" * 64


def test_lineage_is_added_to_the_latest_record(workspace: Workspace) -> None:
    with RunRecord.start(workspace.runs) as record:
        set_latest(workspace, record.run_id, "c" * 64)
        lock = workspace.root / "dvc.lock"
        lock.write_text("schema: '2.0'\n")
        attach_lineage(workspace, {"git_commit": "abc"}, [lock])
        attach_lineage(workspace, {"params_hash": "def"})
    record = RunRecord.open(record.folder)
    assert record.lineage == {"git_commit": "abc", "params_hash": "def"}
    assert record.status == "FINISHED"
    assert (record.artifacts / "lineage" / "dvc.lock").read_text() == "schema: '2.0'\n"


def test_lineage_without_a_training_is_no_error(workspace: Workspace) -> None:
    assert attach_lineage(workspace, {"git_commit": "abc"}) is None


def test_pending_are_the_ended_and_not_uploaded(workspace: Workspace) -> None:
    make: Callable[[], RunRecord] = lambda: RunRecord.start(workspace.runs)  # noqa: E731
    running = make()
    with make() as uploaded, make() as waiting:
        pass
    Ledger(tracking_uri="http://x", state="uploaded").save(uploaded.folder)
    assert is_uploaded(uploaded.folder)
    assert [item.run_id for item in pending_records(workspace)] == [waiting.run_id]
    running.finish()


def test_damaged_ledger_means_pending(workspace: Workspace) -> None:
    with RunRecord.start(workspace.runs) as record:
        (record.folder / "upload.json").write_text(json.dumps({"state": 1}))
    assert not is_uploaded(record.folder)
