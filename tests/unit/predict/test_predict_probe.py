"""The probe: what `check predict` compares."""

from pathlib import Path
from typing import Any

import pytest

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import read_json, sha256_file
from product_classifier.core.params import PredictParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, Workspace
from product_classifier.features.photos import write_shard
from product_classifier.predict.probe import write_probe


@pytest.fixture
def ingested(workspace: Workspace) -> Workspace:
    (workspace.raw / "photos").mkdir(parents=True)
    (workspace.raw / TEST_FILE).write_text("products\n")
    write_shard(workspace.raw / "photos" / "shard-00.zip", {"a.jpg": b"a"})
    return workspace


def probe(workspace: Workspace, **values: str) -> Any:
    settings = Settings(_env_file=None, **values)  # type: ignore[arg-type]
    return read_json(write_probe(workspace, settings, PredictParams()))


def test_names_products_and_photos_by_content(ingested: Workspace) -> None:
    content = probe(ingested)
    assert content["dataset"] == {
        "kind": "ingested",
        "name": TEST_FILE,
        "sha256": sha256_file(ingested.raw / TEST_FILE),
    }
    assert content["photos"]["kind"] == "ingested"
    assert str(ingested.root) not in str(content)


def test_lies_where_the_stage_depends_on_it(ingested: Workspace) -> None:
    path = write_probe(ingested, Settings(_env_file=None), PredictParams())  # type: ignore[call-arg]
    assert path == ingested.root / "data" / "probes" / "predict.json"


def test_is_not_touched_while_nothing_changes(ingested: Workspace) -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    before = write_probe(ingested, settings, PredictParams()).stat()
    after = write_probe(ingested, settings, PredictParams()).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def _other_products(workspace: Workspace) -> dict[str, str]:
    (workspace.raw / TEST_FILE).write_text("other products\n")
    return {}


def _other_photos(workspace: Workspace) -> dict[str, str]:
    write_shard(workspace.raw / "photos" / "shard-00.zip", {"a.jpg": b"b"})
    return {}


def _dataset_path(workspace: Workspace) -> dict[str, str]:
    (workspace.root / "mine.csv").write_text("products\n")
    return {"dataset_path": "mine.csv"}


def _images_path(workspace: Workspace) -> dict[str, str]:
    (workspace.root / "pictures").mkdir()
    return {"images_path": "pictures"}


def _predictions_path(workspace: Workspace) -> dict[str, str]:
    return {"predictions_path": "out/predictions.json"}


@pytest.mark.parametrize(
    "change", [_other_products, _other_photos, _dataset_path, _images_path, _predictions_path]
)
def test_follows_every_input(ingested: Workspace, change: Any) -> None:
    before = probe(ingested)
    assert probe(ingested, **change(ingested)) != before


def test_catalogue_without_unlabelled_products_has_a_probe_too(workspace: Workspace) -> None:
    assert probe(workspace)["dataset"] is None


def test_damaged_probe_is_written_again(ingested: Workspace) -> None:
    path: Path = ingested.probes / "predict.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert probe(ingested)["schema"] == 1


def test_path_that_leads_nowhere_is_refused(ingested: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="DATASET_PATH"):
        probe(ingested, dataset_path="nowhere.csv")
