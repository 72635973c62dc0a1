"""What tests of several folders build on."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from product_classifier.core import bundle as names
from product_classifier.core.bundle import Manifest, describe_files
from product_classifier.core.files import write_json_atomic
from product_classifier.core.logging import JSONFormatter
from product_classifier.core.settings import Settings, get_settings
from product_classifier.core.workspace import Workspace
from trained import trained_workspace_copy

MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle() -> MakeBundle:
    """Builds folders that `load_bundle` takes; their networks are random bytes."""

    def make(folder: Path, seed: str = "a", **fusion: Any) -> Path:
        metrics = {"accuracy": 0.9, "macro_f1": 0.88, "calibration_error": 0.02, **fusion}
        (folder / "inference").mkdir(parents=True)
        for name in (
            names.TOKENIZER,
            names.MAPPER,
            names.FUSION_WEIGHTS,
            names.TEXT_MODEL,
            names.IMAGE_MODEL,
            names.FUSED_MODEL,
            names.TEXT_NETWORK,
            names.MODEL_CARD,
        ):
            (folder / name).write_bytes(f"{name} of {seed}".encode() * 50)
        (folder / names.IMAGE_MODEL).write_bytes(f"VGG16 {seed}".encode() * 2500)  # the largest
        manifest = Manifest.model_validate(
            {
                "schema_version": names.SCHEMA_VERSION,
                "content_id": hashlib.sha256(seed.encode()).hexdigest(),
                "created_at": "2026-11-21T09:30:00Z",
                "package_version": "0.1.0",
                "labels": [10, 40],
                "names": {
                    "10": {"fr": "Livres", "en": "Books"},
                    "40": {"fr": "Jeux", "en": "Games"},
                },
                "preprocessing": {
                    "max_tokens": 8,
                    "image_size": 32,
                    "text_version": 1,
                    "image_version": 1,
                    "crop": False,
                },
                "backbone": {
                    "weights": "random",
                    "weights_sha256": "0" * 64,
                    "precision": "float32",
                    "feature_size": 512,
                    "pooled_blocks": 1,
                },
                "thresholds": {"target_precision": 0.98, "auto_from": {"text": 0.9}},
                "metrics": {"fusion": metrics},
                "warnings": [],
                "reference": {},
                "files": {
                    name: entry.model_dump() for name, entry in describe_files(folder).items()
                },
            }
        )
        write_json_atomic(folder / names.MANIFEST, manifest.model_dump())
        return folder

    return make


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes away what the developer's shell sets, and forgets settings that a test has read."""
    for field in Settings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture(autouse=True)
def _no_log_handlers_left() -> Iterator[None]:
    """Takes away what `configure_logging` has added."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, JSONFormatter):
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace in a folder with a space in its name."""
    root = tmp_path / "work space"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    return Workspace(root)


@pytest.fixture(scope="session")
def trained_workspace(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Workspace:
    """A workspace with a small but really trained bundle, made once; tests copy what they change."""
    root = tmp_path_factory.mktemp("trained") / "work space"
    assert pytestconfig.cache is not None
    return trained_workspace_copy(root, pytestconfig.cache.mkdir("trained"))
