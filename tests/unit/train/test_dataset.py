import json

import numpy as np
import pytest

from product_classifier.core.errors import DataValidationError
from product_classifier.core.workspace import TRAIN_FILE, Workspace
from product_classifier.train.dataset import SIDES, load_dataset
from unit.train.conftest import CopyWorkspace


def test_everything_is_parallel_and_every_row_is_used(trained_workspace: Workspace) -> None:
    dataset = load_dataset(trained_workspace.raw)
    count = len(dataset.products)
    assert count == len(dataset.texts) == len(dataset.labels) == len(dataset.has_text) == 270
    rows = np.concatenate([dataset.sides[side] for side in SIDES])
    assert sorted(rows.tolist()) == list(range(count))
    assert set(dataset.labels.tolist()) == set(range(len(dataset.label_map)))
    assert dataset.photos.read(dataset.products[0].photo_name) is not None


def test_the_prior_is_the_training_share_and_never_zero(trained_workspace: Workspace) -> None:
    dataset = load_dataset(trained_workspace.raw)
    counts = np.bincount(dataset.labels[dataset.sides["train"]], minlength=len(dataset.label_map))
    prior = dataset.prior()
    np.testing.assert_allclose(prior, (counts + 1) / (counts.sum() + len(counts)))
    dataset.sides["train"] = dataset.sides["train"][:0]
    assert dataset.prior().min() > 0


def test_without_a_catalogue_training_is_bad_input(workspace: Workspace) -> None:
    with pytest.raises(DataValidationError, match="Run `product-classifier ingest` first"):
        load_dataset(workspace.raw)


def test_a_split_of_another_catalogue_is_bad_input(copy_workspace: CopyWorkspace) -> None:
    raw = copy_workspace().raw
    splits = json.loads((raw / "splits.json").read_text())
    splits["test"].append(999_999)
    (raw / "splits.json").unlink()
    (raw / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(DataValidationError, match=r"do not fit its products: 999999"):
        load_dataset(raw)
    del splits["test"]
    (raw / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(DataValidationError, match="do not fit"):
        load_dataset(raw)


def test_a_product_without_label_is_bad_input(copy_workspace: CopyWorkspace) -> None:
    raw = copy_workspace().raw
    table = (raw / TRAIN_FILE).read_text()
    (raw / TRAIN_FILE).unlink()
    (raw / TRAIN_FILE).write_text(table + "888888,Livre,,1,1\n")
    with pytest.raises(DataValidationError, match=r"do not fit its products: 888888"):
        load_dataset(raw)
