"""Scoring a batch in a test's workspace."""

import shutil
from pathlib import Path

from product_classifier.core.params import load_params, parse_params
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TEST_FILE, Workspace
from product_classifier.ingest.ingest import ingest
from product_classifier.predict.job import Request
from product_classifier.predict.predict import predict

NOWHERE = "http://127.0.0.1:1"
FRESH = "fresh"  # folder of products that the model has never seen
PRODUCTS = 200


def make_fresh_products(root: Path) -> None:
    """Draws products of the same shop with another seed."""
    other = Workspace(root / "other")
    other.root.mkdir()
    sample = {"products": 270, "unlabelled": PRODUCTS, "seed": 8}
    ingest(other, Settings(_env_file=None), parse_params({"ingest": {"sample": sample}}).ingest)
    other.raw.rename(root / FRESH)
    shutil.rmtree(other.root)


def settings_for(workspace: Workspace, **values: object) -> Settings:
    """Settings that read no `.env`, with the fresh products as those to score."""
    fresh = workspace.root / FRESH
    known = {
        "dataset_path": fresh / TEST_FILE,
        "images_path": fresh / "photos",
        "mlflow_tracking_uri": NOWHERE,
    }
    return Settings(_env_file=None, **{**known, **values})  # type: ignore[arg-type]


def score(workspace: Workspace, settings: Settings) -> None:
    predict(workspace, settings, load_params(workspace.params).predict, Request())
