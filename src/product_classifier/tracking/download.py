"""Getting a training's bundle back from MLflow."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core.bundle import MANIFEST, find_damage, read_manifest
from product_classifier.core.errors import ArtifactError, TrackingError
from product_classifier.core.files import publish_directory
from product_classifier.core.settings import Settings
from product_classifier.tracking.registry import BUNDLE_FOLDER
from product_classifier.tracking.server import Server, connect
from product_classifier.tracking.upload import RUN_ID_TAG


@dataclass(frozen=True)
class FetchedBundle:
    """A bundle as MLflow has it."""

    path: Path
    missing: list[str]  # what MLFLOW_BUNDLE=light left out; DVC has it

    @property
    def is_complete(self) -> bool:
        """Whether `load_bundle` takes it."""
        return not self.missing


def fetch_bundle(run_id: str, target: Path, settings: Settings) -> FetchedBundle:
    """Downloads the bundle of a run; what stood at `target` is replaced once all hashes agree.

    Args:
        run_id: The run's id in MLflow or our own, as `20261121T093000Z-ab12cd`.
        target: The folder to make.
        settings: Say where the server is.

    Raises:
        TrackingError: the server is away, or has no such run or no bundle of it.
        ArtifactError: a file is not what the manifest promises.
    """
    with connect(settings) as server:
        found = _find_run(server, run_id, settings.mlflow_experiment_name)
        with tempfile.TemporaryDirectory(dir=_parent(target), prefix=".fetch.") as temporary:
            server.client.download_artifacts(found, BUNDLE_FOLDER, temporary)
            source = Path(temporary) / BUNDLE_FOLDER
            missing = _check(source)
            with publish_directory(target) as staging:
                for item in source.iterdir():
                    item.rename(staging / item.name)
    return FetchedBundle(target, missing)


def _parent(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.parent


def _find_run(server: Server, run_id: str, experiment: str) -> str:
    found = server.client.get_experiment_by_name(experiment)
    query = f"tags.`{RUN_ID_TAG}` = '{run_id}'" if "'" not in run_id else None
    if found is not None and query is not None:
        runs = server.client.search_runs([found.experiment_id], query, max_results=1)
        if runs:
            return str(runs[0].info.run_id)
    return run_id


def _check(folder: Path) -> list[str]:
    if not (folder / MANIFEST).is_file():
        raise TrackingError(f"The run has no {BUNDLE_FOLDER}/{MANIFEST}.")
    manifest = read_manifest(folder)
    missing = [name for name in manifest.files if not (folder / name).is_file()]
    present = {name: entry for name, entry in manifest.files.items() if name not in missing}
    damage = find_damage(folder, manifest.model_copy(update={"files": present}))
    if damage:
        raise ArtifactError("The bundle from MLflow is damaged: " + "; ".join(damage) + ".")
    return missing
