import shutil

import pytest

from product_classifier.core.files import write_json_atomic
from product_classifier.core.params import load_params
from product_classifier.versioning.params_file import set_params
from unit.versioning.project import CHECKOUT, Project


def test_nothing_changed_after_recording(recorded: Project) -> None:
    for stage in ("ingest", "train", "gate", "predict"):
        verdict = recorded.check(stage)
        assert verdict.reasons == []
        assert verdict.unrecorded == ""


def test_a_stage_that_never_ran_must_run(project: Project) -> None:
    assert project.check("train").reasons == ["it was never recorded"]


def test_force_is_a_reason(recorded: Project) -> None:
    assert recorded.check("ingest", force=True).reasons == ["a run is forced"]


def test_changed_code_is_named(recorded: Project) -> None:
    recorded.write("src/product_classifier/train/code.py", "train = 2\n")
    assert recorded.check("train").reasons == ["src/product_classifier/train is changed"]
    assert not recorded.check("ingest").must_run


def test_a_changed_probe_is_named(recorded: Project) -> None:
    recorded.write("data/probes/ingest.json", '{"source": "other"}\n')
    assert recorded.check("ingest").reasons == ["data/probes/ingest.json is changed"]


def test_a_parameter_of_its_own_section_is_named_with_both_values(recorded: Project) -> None:
    set_params(recorded.workspace.params, {"train.text.epochs": 7, "gate.min_accuracy": 0.5})
    before = load_params(CHECKOUT / "params.yaml").train.text.epochs
    assert recorded.check("train").reasons == [f"params train.text.epochs: {before} -> 7"]


def test_a_parameter_of_another_section_is_no_reason(recorded: Project) -> None:
    set_params(recorded.workspace.params, {"train.text.epochs": 7})
    for stage in ("ingest", "gate", "predict"):
        assert not recorded.check(stage).must_run


def test_a_comment_in_params_is_no_reason(recorded: Project) -> None:
    path = recorded.workspace.params
    path.write_text("# a remark\n" + path.read_text())
    assert not recorded.check("train").must_run


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("ingest", "data/raw"),
        ("train", "models/candidate"),
        ("train", "reports/train/plots"),
        ("predict", "data/predictions"),
    ],
)
def test_a_missing_output_is_named(recorded: Project, stage: str, name: str) -> None:
    shutil.rmtree(recorded.root / name)
    assert recorded.check(stage).reasons == [f"output {name} is missing"]


def test_a_missing_output_file_is_named(recorded: Project) -> None:
    recorded.workspace.champion_file.unlink()
    assert recorded.check("gate").reasons == ["output models/champion.json is missing"]


def test_a_changed_output_is_named(recorded: Project) -> None:
    recorded.write("data/predictions/predictions.json", "{}")
    assert recorded.check("predict").reasons == ["output data/predictions is not what was recorded"]


def test_new_data_reaches_the_training(recorded: Project) -> None:
    recorded.ingest(products=30)
    recorded.version("ingest")
    assert recorded.check("train").reasons == ["data/raw is changed"]


def test_a_changed_command_is_a_reason(recorded: Project) -> None:
    path = recorded.root / "dvc.yaml"
    path.write_text(path.read_text().replace("classifier train", "classifier train --fast"))
    assert recorded.check("train").reasons == ["its command in dvc.yaml changed"]


def test_byte_code_and_leftovers_of_a_kill_are_no_reason(recorded: Project) -> None:
    recorded.write("src/product_classifier/train/__pycache__/code.cpython-311.pyc", "x")
    recorded.write("data/.raw.abc.tmp/half.csv", "x")
    recorded.write("data/raw/.half.tmp", "x")
    for stage in ("ingest", "train"):
        assert not recorded.check(stage).must_run


def test_a_lost_cache_is_no_reason(recorded: Project) -> None:
    shutil.rmtree(recorded.root / ".dvc" / "cache")
    for stage in ("ingest", "train", "gate", "predict"):
        assert not recorded.check(stage).must_run


def test_a_champion_moved_by_hand_is_recorded_instead_of_judged_again(recorded: Project) -> None:
    write_json_atomic(recorded.workspace.champion_file, {"release": "earlier"})
    verdict = recorded.check("gate")
    assert not verdict.must_run
    assert "changed by hand" in verdict.unrecorded
    assert recorded.check("predict").reasons == ["models/champion.json is changed"]
    recorded.version("gate")
    assert recorded.check("gate").unrecorded == ""


def test_another_remote_is_to_be_filled(recorded: Project) -> None:
    values = recorded.settings.model_dump() | {"dvc_remote_url": "elsewhere"}
    recorded.settings = type(recorded.settings)(_env_file=None, **values)  # type: ignore[call-arg]
    assert "elsewhere" in recorded.check("ingest").unrecorded
    recorded.version("ingest")
    assert len(list((recorded.root / "elsewhere" / "runs").iterdir())) == 1
    assert recorded.check("ingest").unrecorded == ""
