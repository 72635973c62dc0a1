"""One piece of work for `predict`: what is scored with what, found, read and named before anything is scored."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from product_classifier.core.bundle import read_manifest
from product_classifier.core.errors import ConfigurationError, DataValidationError
from product_classifier.core.files import canonical_json, sha256_bytes
from product_classifier.core.releases import current_champion, find_release
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.features.images import IMAGE_VERSION
from product_classifier.features.text import TEXT_VERSION
from product_classifier.modeling.networks import usable_precision
from product_classifier.predict.checkpoints import ChunkStore, Shard
from product_classifier.predict.inputs import Inputs, fingerprint_inputs, resolve_inputs
from product_classifier.predict.outputs import SCHEMA, Origin
from product_classifier.predict.rows import ScoringRow, read_scoring_rows


@dataclass(frozen=True)
class Job:
    """One piece of work: what is scored with what; `key` names both, and nothing else."""

    workspace: Workspace
    bundle: Path
    origin: Origin
    inputs: Inputs
    rows: Sequence[ScoringRow]
    key: str

    @property
    def parts(self) -> Path:
        """Folder of a sharded run's parts."""
        return self.workspace.predictions.with_name("predictions.parts") / self.key

    def chunks_of(self, shard: Shard, size: int) -> ChunkStore:
        """Gives the checkpoints of one shard."""
        name = f"{self.key}-{shard.number}-of-{shard.of}-by-{size}"
        return ChunkStore(self.workspace.cache / "predict" / name)


@dataclass(frozen=True)
class Request:
    """What the caller of a run asks for; None means the settings' or the champion."""

    dataset: Path | None = None
    images: Path | None = None
    bundle: str | None = None


def find_bundle(workspace: Workspace, wanted: str | None) -> Path:
    """Gives the folder of the bundle to score with, its symlinks resolved: a champion that moves later is not followed.

    Args:
        workspace: Where.
        wanted: Folder of a bundle, or id of a release; the champion by default.

    Raises:
        ConfigurationError: there is no such bundle, or no champion yet.
    """
    if wanted is not None:
        path = Path(wanted)
        return path.resolve() if path.is_dir() else find_release(workspace, wanted).resolve()
    champion = current_champion(workspace)
    if champion is None:
        raise ConfigurationError(
            "There is no champion yet. Run `product-classifier train` and `product-classifier gate`, "
            "or name a bundle with --bundle."
        )
    return champion.path.resolve()


def open_job(workspace: Workspace, settings: Settings, request: Request) -> Job | None:
    """Finds and names everything that a run reads; None where there is nothing to score."""
    inputs = resolve_inputs(workspace, settings, request.dataset, request.images)
    if inputs is None:
        if not workspace.raw.is_dir():
            raise DataValidationError(
                f"There is no catalogue at {workspace.raw}. Run `product-classifier ingest`, or name a "
                "file with --dataset or DATASET_PATH."
            )
        return None
    bundle = find_bundle(workspace, request.bundle)
    manifest = read_manifest(bundle)
    fingerprint = fingerprint_inputs(inputs)
    precision = usable_precision(manifest.backbone.precision)
    key = {
        "schema": SCHEMA,
        "versions": [TEXT_VERSION, IMAGE_VERSION],
        "content_id": manifest.content_id,
        "precision": precision,
        **asdict(fingerprint),
    }
    return Job(
        workspace,
        bundle,
        Origin(manifest, precision, inputs.dataset.name, fingerprint.dataset_sha256),
        inputs,
        read_scoring_rows(inputs.dataset),
        sha256_bytes(canonical_json(key))[:16],
    )
