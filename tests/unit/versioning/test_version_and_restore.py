import json
import os
import shutil
from pathlib import Path

import pytest

from product_classifier.core.errors import ConfigurationError, VersioningError
from product_classifier.core.files import read_json
from product_classifier.features.photos import shard_of, write_shard
from product_classifier.tracking.record import RunRecord
from product_classifier.versioning.params_file import set_params
from unit.versioning.project import Project, photo


def change_epochs(project: Project, epochs: int) -> None:
    set_params(project.workspace.params, {"train.text.epochs": epochs})


def test_restore_brings_the_first_of_two_trainings_back_byte_for_byte(
    recorded_twice: Project,
) -> None:
    (first, before), (second, after) = recorded_twice.history
    assert before != after == recorded_twice.outputs()

    restored = recorded_twice.restore(first)

    assert restored.entry.run_id == first != second
    assert recorded_twice.outputs() == before
    assert recorded_twice.check("train").reasons == []
    assert recorded_twice.check("predict").reasons == []
    assert recorded_twice.verify().is_sound


def test_restore_to_and_fro_keeps_both_states(recorded_twice: Project) -> None:
    (first, before), (second, after) = recorded_twice.history
    for _ in range(2):
        recorded_twice.restore(first)
        assert recorded_twice.outputs() == before
        recorded_twice.restore(second)
        assert recorded_twice.outputs() == after


def test_restore_latest_fills_an_empty_clone_with_a_servable_champion(
    recorded: Project, tmp_path: Path
) -> None:
    clone = recorded.clone(tmp_path / "the clone")
    clone.restore(None)
    assert clone.outputs() == recorded.outputs()
    report = clone.verify()
    assert report.is_sound
    assert report.served.startswith("YES")
    assert not clone.check("predict").must_run


def test_a_champion_that_is_not_the_candidate_comes_from_its_own_training(
    recorded: Project, tmp_path: Path
) -> None:
    change_epochs(recorded, 7)
    recorded.train()
    recorded.version("train")  # refused by the gate: the first champion stays
    recorded.version("gate")
    clone = recorded.clone(tmp_path / "clone")
    clone.restore(None)
    assert clone.outputs() == recorded.outputs()
    report = clone.verify()
    assert report.is_sound
    assert report.served.startswith("YES")


def test_states_are_found_by_each_id_and_by_its_beginning(recorded: Project) -> None:
    [(run_id, _)] = recorded.history
    upload = {"tracking_uri": "x", "mlflow_run_id": "5d41402abc4b2a76b9719d911017c592"}
    (recorded.workspace.runs / run_id / "upload.json").write_text(json.dumps(upload))
    state = recorded.version("predict").entry
    for wanted in (run_id, state.entry_id, state.lock_id[:6], "5d4140", state.entry_id[:19]):
        assert recorded.restore(wanted).entry.lock_id == state.lock_id


def test_an_mlflow_id_that_came_after_the_recording_is_found(recorded: Project) -> None:
    [(run_id, _)] = recorded.history
    upload = {"tracking_uri": "x", "mlflow_run_id": "5d41402abc4b2a76b9719d911017c592"}
    (recorded.workspace.runs / run_id / "upload.json").write_text(json.dumps(upload))
    assert recorded.restore("5d41402abc4b2a76b9719d911017c592").entry.run_id == run_id


def test_an_ambiguous_beginning_lists_the_candidates(recorded_twice: Project) -> None:
    (first, _), (second, _) = recorded_twice.history
    with pytest.raises(ConfigurationError, match="several ids") as error:
        recorded_twice.restore(os.path.commonprefix([first, second]))
    assert first in str(error.value)
    assert second in str(error.value)


def test_an_unknown_id_is_refused_and_the_known_ones_are_named(project: Project) -> None:
    project.ingest()
    entry = project.version("ingest").entry
    with pytest.raises(ConfigurationError, match=entry.entry_id):
        project.restore("nonsense")


def test_new_data_without_a_training_does_not_belong_to_the_last_training(
    recorded: Project,
) -> None:
    [(run_id, before)] = recorded.history
    recorded.ingest(products=30)
    assert recorded.version("ingest").entry.run_id is None
    recorded.restore(run_id)
    assert recorded.outputs() == before


def test_restore_refuses_to_lose_what_was_never_recorded(recorded: Project) -> None:
    [(first, before)] = recorded.history
    recorded.write("data/raw/X_train_update.csv", "typed by hand\n")
    recorded.write("data/raw/notes.txt", "more\n")
    with pytest.raises(VersioningError, match=r"2 files .*X_train_update.csv.*notes.txt"):
        recorded.restore(first)
    assert (recorded.root / "data/raw/notes.txt").exists()
    recorded.restore(first, force=True)
    assert recorded.outputs() == before


def test_restore_keeps_the_previous_params_and_lock(recorded: Project) -> None:
    [(first, _)] = recorded.history
    change_epochs(recorded, 11)
    edited = recorded.workspace.params.read_text()
    recorded.restore(first)
    kept = list(
        (recorded.root / ".dvc/tmp/product-classifier/before-restore").glob("*/params.yaml")
    )
    assert [path.read_text() for path in kept] == [edited]


def test_restore_of_one_stage_leaves_the_others(recorded_twice: Project) -> None:
    (first, before), (_, after) = recorded_twice.history
    recorded_twice.restore(first, ("train",))
    now = recorded_twice.outputs()
    for name in before:
        if name.startswith(("models/candidate", "reports/train")):
            assert now[name] == before[name]
        elif name not in ("dvc.lock", "params.yaml"):
            assert now[name] == after[name]
    assert now["params.yaml"] == before["params.yaml"]
    assert not recorded_twice.check("train").must_run
    assert recorded_twice.check("gate").reasons == ["models/candidate is changed"]


def test_a_damaged_cache_object_is_fetched_again(recorded: Project) -> None:
    [(first, before)] = recorded.history
    with recorded.repository() as repository:
        lock = repository.lock_file()
        path = repository.object_path(lock.stages["train"].outs[1].md5)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    shutil.rmtree(recorded.root / "reports")
    shutil.rmtree(recorded.workspace.candidate)
    recorded.restore(first)
    assert recorded.outputs() == before


def test_a_damaged_remote_object_stops_a_restore_before_anything_changes(
    recorded: Project, tmp_path: Path
) -> None:
    victim = next(
        path for path in (recorded.remote / "files/md5").glob("??/*") if path.suffix != ".dir"
    )
    victim.chmod(0o644)
    victim.write_bytes(b"damaged")
    clone = recorded.clone(tmp_path / "clone")
    params = clone.workspace.params.read_bytes()
    with pytest.raises(VersioningError, match="damaged on the remote"):
        clone.restore(None)
    assert not clone.workspace.raw.exists()
    assert not (clone.root / "dvc.lock").exists()
    assert clone.workspace.params.read_bytes() == params


def test_an_object_missing_on_the_remote_is_found_and_sent_again(
    recorded: Project, tmp_path: Path
) -> None:
    objects = recorded.remote_objects()
    victim = sorted(name for name in objects if not name.endswith(".dir"))[3]
    (recorded.remote / "files/md5" / victim[:2] / victim[2:]).unlink()
    for stage in ("ingest", "train", "gate", "predict"):
        recorded.version(stage)
    assert recorded.remote_objects() == objects
    clone = recorded.clone(tmp_path / "clone")
    clone.restore(None)
    assert clone.outputs() == recorded.outputs()


def test_one_new_product_sends_one_shard(project: Project) -> None:
    project.ingest()
    project.version("ingest")
    before = project.remote_objects()
    name = "image_999_product_999.jpg"
    members = [f"image_{i}_product_{i}.jpg" for i in range(24)]
    shard = shard_of(name, 8)
    photos = {other: photo(other) for other in members if shard_of(other, 8) == shard}
    path = project.workspace.raw / "photos" / f"shard-{shard:02d}.zip"
    write_shard(path, photos | {name: photo(name)})
    project.version("ingest")
    new = project.remote_objects() - before
    assert len(new) == 2  # the shard and the folder's listing


def test_with_the_remote_away_the_commit_stays_and_a_rerun_completes(project: Project) -> None:
    project.ingest()
    project.remote.write_text("a file where the remote's folder should be")
    with pytest.raises(VersioningError, match=r"dvc-remote.*local commit of ingest is kept"):
        project.version("ingest")
    assert (project.root / "dvc.lock").exists()
    verdict = project.check("ingest")
    assert not verdict.must_run
    assert "not known to be on the remote" in verdict.unrecorded
    project.remote.unlink()
    assert project.version("ingest").objects == len(project.remote_objects())
    assert project.check("ingest").unrecorded == ""


def test_what_another_stage_could_not_send_is_sent_with_the_next(project: Project) -> None:
    project.ingest()
    project.remote.write_text("away")
    with pytest.raises(VersioningError):
        project.version("ingest")
    project.remote.unlink()
    project.train()
    entry = project.version("train").entry
    assert entry.missing == []
    with project.repository() as repository:
        outs = repository.lock_file().outs()
    assert {out.md5 for out in outs} <= project.remote_objects()


def test_version_twice_adds_one_state(project: Project) -> None:
    project.ingest()
    first = project.version("ingest").entry
    assert project.version("ingest").entry == first
    assert len(list((project.remote / "runs").iterdir())) == 1


def test_a_half_written_state_is_no_state(project: Project, tmp_path: Path) -> None:
    project.ingest()
    entry = project.version("ingest").entry
    torn = project.remote / "runs" / "20991231T000000.000Z-torn"
    torn.mkdir()
    (torn / "dvc.lock").write_text("schema: '2.0'\n")
    clone = project.clone(tmp_path / "clone")
    assert clone.restore(None).entry.entry_id == entry.entry_id


def test_version_names_a_missing_output(project: Project) -> None:
    with pytest.raises(VersioningError, match="data/raw"):
        project.version("ingest")


def test_the_training_record_gets_lineage_and_lock(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGE_DIGEST", "sha256:abc")
    monkeypatch.setenv("AIRFLOW_RUN_ID", "manual__2026-11-21")
    run_id = project.run_all()
    folder = project.workspace.runs / run_id
    lineage = RunRecord.open(folder).lineage
    assert lineage["image_digest"] == "sha256:abc"
    assert lineage["airflow_run_id"] == "manual__2026-11-21"
    assert lineage["stages"]["train"]["deps"]["data/raw"].endswith(".dir")
    assert lineage["stages"]["train"]["outs"].keys() == {
        "models/candidate",
        "reports/train/metrics.json",
        "reports/train/plots",
    }
    lock = folder / "artifacts" / "lineage" / "dvc.lock"
    assert "train:" in lock.read_text()
    assert read_json(project.workspace.champion_file)["content_id"]


def test_a_parameter_changed_while_the_stage_ran_is_reported(project: Project) -> None:
    project.ingest()
    project.version("ingest")
    assert project.check("train").must_run
    project.train()
    change_epochs(project, 9)
    assert project.version("train").entry.lineage["changed_while_running"] == ["params.yaml"]
