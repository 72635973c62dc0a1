"""Copies of the champion's parts at the paths that an earlier system's `.env` names."""

import logging
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core import bundle as names
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import sha256_file, write_bytes_atomic
from product_classifier.core.releases import current_champion
from product_classifier.core.settings import ExportSettings
from product_classifier.core.workspace import Workspace

logger = logging.getLogger(__name__)

_PARTS = {
    "tokenizer_config_path": names.TOKENIZER,
    "lstm_model_path": names.TEXT_MODEL,
    "vgg16_model_path": names.IMAGE_MODEL,
    "best_weights_path": names.FUSION_WEIGHTS,
    "mapper_path": names.MAPPER,
    "concatenated_model_path": names.FUSED_MODEL,
}
_PICKLES = {"best_weights_path_pkl": "BEST_WEIGHTS_PATH", "mapper_path_pkl": "MAPPER_PATH"}
_HDF5_SUFFIXES = frozenset({".h5", ".hdf5"})


@dataclass(frozen=True)
class Export:
    """One copy to be left somewhere."""

    setting: str
    part: str
    target: Path


def plan_exports(workspace: Workspace, settings: ExportSettings) -> list[Export]:
    """Says which part of a bundle is to be left where. Relative paths count from the workspace.

    Raises:
        ConfigurationError: a path lies among the pipeline's own artefacts, is a folder, or is
            set twice.
    """
    exports: list[Export] = []
    for field, part in _PARTS.items():
        path: Path | None = getattr(settings, field)
        if path is None:
            continue
        target = _target(field.upper(), part, workspace.root / path)
        _refuse_own_artefacts(workspace, field.upper(), target)
        if twin := next((item for item in exports if item.target == target), None):
            raise ConfigurationError(
                f"{field.upper()} and {twin.setting} are one path: {path}. Expected two."
            )
        exports.append(Export(field.upper(), part, target))
    return exports


def _target(setting: str, part: str, path: Path) -> Path:
    if Path(part).suffix == ".keras" and path.suffix.lower() in _HDF5_SUFFIXES:
        keras = path.with_suffix(".keras")
        logger.warning("%s=%s: no HDF5 is written; the model is at %s.", setting, path.name, keras)
        return keras
    return path


def _refuse_own_artefacts(workspace: Workspace, setting: str, target: Path) -> None:
    resolved = target.resolve()
    own = (workspace.candidate, workspace.releases, workspace.champion, workspace.raw)
    inside = any(resolved.is_relative_to(folder.resolve()) for folder in own)
    if inside or resolved == workspace.champion_file.resolve() or target.is_dir():
        raise ConfigurationError(
            f"{setting} must be a file outside models/candidate, models/champion, models/releases "
            f"and data/raw, which the pipeline itself writes. Received: {target}."
        )


def export_champion(workspace: Workspace, settings: ExportSettings) -> list[Path]:
    """Leaves the champion's parts where the settings want them, each file whole or not at all.

    Raises:
        ConfigurationError: see `plan_exports`.
    """
    exports = plan_exports(workspace, settings)
    for field, json_setting in _PICKLES.items():
        if getattr(settings, field) is not None:
            logger.warning(
                "%s is ignored: no pickle is written. %s gets the same as JSON.",
                field.upper(),
                json_setting,
            )
    champion = current_champion(workspace)
    if champion is None:
        return []
    for export in exports:
        source = champion.path / export.part
        if not (export.target.is_file() and sha256_file(export.target) == sha256_file(source)):
            write_bytes_atomic(export.target, source.read_bytes())
            logger.info("%s: copied the champion's %s there.", export.target, export.part)
    return [export.target for export in exports]
