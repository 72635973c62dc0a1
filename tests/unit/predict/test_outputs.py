"""The published files."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from product_classifier.core.bundle import read_manifest
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.predict.answers import Answer
from product_classifier.predict.outputs import COLUMNS, Origin, publish_predictions

ANSWERS = [
    Answer(0, 2, 7, 1, 2, ((10, 0.9), (40, 0.1)), "auto", 0.8, "text+image"),
    Answer(1, 3, 9, 3, 4, ((40, 0.6), (10, 0.4)), "review", 0.8, "text", None, "broken"),
    Answer(2, 5, None, None, None, error='Column index: received "x".'),
    Answer(3, 6, 11, 5, 6, ((40, 0.51), (10, 0.49)), "review", 1.01, "image"),
]


@pytest.fixture
def origin(tmp_path: Path, make_bundle: Callable[..., Path]) -> Origin:
    manifest = read_manifest(make_bundle(tmp_path / "bundle"))
    return Origin(manifest, "float32", "X.csv", "0" * 64)


def publish(workspace: Workspace, origin: Origin, answers: list[Answer], **values: str) -> None:
    publish_predictions(workspace, Settings(_env_file=None, **values), answers, origin)  # type: ignore[arg-type]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


def test_json_maps_row_index_to_code_without_the_rows_in_error(
    workspace: Workspace, origin: Origin
) -> None:
    publish(workspace, origin, ANSWERS)
    content = json.loads((workspace.predictions / "predictions.json").read_text())
    assert content == {"7": 10, "9": 40, "11": 40}


def test_table_has_a_line_for_every_row(workspace: Workspace, origin: Origin) -> None:
    publish(workspace, origin, ANSWERS)
    first, second, third, _ = table(workspace.predictions / "predictions.csv")
    assert tuple(first) == COLUMNS
    assert (first["name_fr"], first["name_en"], first["confidence"]) == (
        "Livres",
        "Books",
        "0.900000",
    )
    assert (first["top2_code"], first["top2_confidence"], first["top3_code"]) == (
        "40",
        "0.100000",
        "",
    )
    assert first["bundle_id"] == origin.bundle_id
    assert (second["decision"], second["photo_error"]) == ("review", "broken")
    assert (third["row"], third["line"], third["code"]) == ("", "5", "")
    assert third["error"] == 'Column index: received "x".'


def test_table_follows_rfc_4180(workspace: Workspace, origin: Origin) -> None:
    publish(workspace, origin, ANSWERS)
    content = (workspace.predictions / "predictions.csv").read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") == len(ANSWERS) + 1
    assert b'"Column index: received ""x""."' in content


def test_review_has_the_doubtful_ones_the_least_sure_first(
    workspace: Workspace, origin: Origin
) -> None:
    publish(workspace, origin, ANSWERS)
    assert [row["row"] for row in table(workspace.predictions / "review.csv")] == ["11", "9"]


def test_summary_counts(workspace: Workspace, origin: Origin) -> None:
    publish(workspace, origin, ANSWERS)
    content = json.loads((workspace.predictions / "summary.json").read_text())
    counts = {name: content[name] for name in ("products", "scored", "auto", "review", "errors")}
    assert counts == {"products": 4, "scored": 3, "auto": 1, "review": 2, "errors": 1}
    assert content["modalities"] == {"text+image": 1, "text": 1, "image": 1}
    assert content["codes"] == {"10": 1, "40": 2}
    assert content["photo_errors"] == 1
    assert str(workspace.root) not in json.dumps(content)


def test_no_answers_give_valid_files(workspace: Workspace, origin: Origin) -> None:
    publish(workspace, origin, [])
    assert json.loads((workspace.predictions / "predictions.json").read_text()) == {}
    assert table(workspace.predictions / "predictions.csv") == []
    assert json.loads((workspace.predictions / "summary.json").read_text())["products"] == 0


@pytest.mark.parametrize(
    ("setting", "copy"),
    [("out/mine.json", "out/mine.json"), ("out", "out/predictions.json")],
    ids=["file", "folder"],
)
def test_predictions_path_gets_a_copy(
    workspace: Workspace, origin: Origin, setting: str, copy: str
) -> None:
    publish(workspace, origin, ANSWERS, predictions_path=setting)
    copied = (workspace.root / copy).read_bytes()
    assert copied == (workspace.predictions / "predictions.json").read_bytes()


@pytest.mark.parametrize("setting", ["data/predictions/predictions.json", "data/predictions"])
def test_predictions_path_may_be_where_they_are_anyway(
    workspace: Workspace, origin: Origin, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(workspace, origin, ANSWERS, predictions_path=setting)
    assert len(list(workspace.predictions.iterdir())) == 4
    assert caplog.text == ""


@pytest.mark.parametrize("setting", ["data/raw/p.json", "data/predictions/p.json"])
def test_predictions_path_among_versioned_files_is_left_alone_and_said(
    workspace: Workspace, origin: Origin, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(workspace, origin, ANSWERS, predictions_path=setting)
    assert not (workspace.root / setting).exists()
    assert "PREDICTIONS_PATH" in caplog.text


def test_copy_that_can_not_be_written_is_told_and_predictions_are_in_place(
    workspace: Workspace, origin: Origin
) -> None:
    (workspace.root / "file").write_text("no folder")
    with pytest.raises(ConfigurationError, match="PREDICTIONS_PATH: expected") as caught:
        publish(workspace, origin, ANSWERS, predictions_path="file/p.json")
    assert caught.value.exit_code == 2
    assert (workspace.predictions / "predictions.json").is_file()
