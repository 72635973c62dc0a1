"""The bundle: the only contract between training and everything that scores.

A folder that is written beside its final name, renamed into place and never changed afterwards. One loader reads it,
and checks every hash before anything is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from product_classifier.core.errors import ArtifactError
from product_classifier.core.files import canonical_json, read_json, sha256_bytes, sha256_file
from product_classifier.core.product_types import ProductTypeName

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer_config.json"
MAPPER = "mapper.json"
FUSION_WEIGHTS = "best_weights.json"
TEXT_MODEL = "best_lstm_model.keras"
IMAGE_MODEL = "best_vgg16_model.keras"
FUSED_MODEL = "concatenate.keras"
TEXT_NETWORK = "inference/text.xml"
IMAGE_BASE_NETWORK = "inference/image_base.xml"
IMAGE_HEAD_NETWORK = "inference/image_head.xml"
IMAGE_BASE_WEIGHTS = "vgg16_base.npz"
MODEL_CARD = "model_card.md"
REFERENCE_OBSERVATIONS = "reference_observations.csv"

Precision = Literal["float32", "bfloat16", "int8"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Section):
    """What the manifest promises about one file."""

    sha256: str
    size: int  # bytes


class Preprocessing(_Section):
    """What turns a product into the networks' inputs; see `features`."""

    max_tokens: int
    image_size: int  # pixels per side
    crop: bool  # white borders cut off
    text_version: int
    image_version: int


class Backbone(_Section):
    """The VGG16 base: where its weights came from and the precision its features were computed in."""

    weights: str  # imagenet, random or file
    weights_sha256: str
    precision: Precision
    pooled_blocks: int
    feature_size: int
    fine_tuned_blocks: int = 0
    precision_report: dict[str, Any] = {}


class Thresholds(_Section):
    """From which confidence an answer passes without review, by the modalities that were there.

    A value above 1 means: never. Keys: `text+image`, `text`, `image`.
    """

    target_precision: float
    auto_from: dict[str, float]


class DriftFeature(_Section):
    """How one feature was spread over the reference products: bins and counts; see `modeling.drift`.

    Numbers have `edges`: upper ends, each part of its bin, of all bins but the last, which has none. Categories have
    positions: which bin each value is counted in.
    """

    edges: list[float] | None = None
    categories: dict[str, int] | None = None
    counts: list[int]
    # Pairs of a window's size and the stability index that chance alone stays below; sizes rise.
    chance: list[tuple[int, float]]

    @property
    def size(self) -> int:
        """How many bins there are."""
        if self.edges is not None:
            return len(self.edges) + 1
        return max((self.categories or {}).values(), default=0) + 1


class DriftReference(_Section):
    """What the held-out products looked like, and what the model answered: drift is measured against it."""

    products: int
    features: dict[str, DriftFeature]
    missing: dict[str, float]  # share without title, description, photo
    answered: int  # products with a text or a photo
    confidence_mean: float  # of those
    confidence_deviation: float

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        # Else every request and every scrape would find it out.
        for name, feature in self.features.items():
            if (feature.edges is None) == (feature.categories is None):
                raise ValueError(f"{name} needs either edges or categories")
            if len(feature.counts) != feature.size or min(feature.counts) < 0:
                raise ValueError(f"{name} needs a count for each of its {feature.size} bins")
            if any(position < 0 for position in (feature.categories or {}).values()):
                raise ValueError(f"{name} has a category in a bin before the first")
            if not feature.chance or any(size < 1 for size, _ in feature.chance):
                raise ValueError(f"{name} needs limits of chance")
        return self


class Manifest(_Section):
    """The bundle's table of contents. Run ids and DVC hashes are not in it: MLflow and dvc.lock point here."""

    schema_version: int
    content_id: str
    created_at: str
    package_version: str
    labels: list[int]
    names: dict[str, ProductTypeName]
    preprocessing: Preprocessing
    backbone: Backbone
    thresholds: Thresholds
    metrics: dict[str, dict[str, Any]]
    warnings: list[str]
    reference: dict[str, Any]
    drift: DriftReference | None = None  # older bundles have none
    git_commit: str = ""  # of the code that trained it, where that was known
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

    @property
    def bundle_id(self) -> str:
        """Short name of the content, as releases are called."""
        return self.manifest.content_id[:16]

    def file(self, name: str) -> Path:
        """Gives the path of a file that the manifest lists.

        Raises:
            ArtifactError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise ArtifactError(
                f"Bundle {self.path} has no {name}. It has: {sorted(self.manifest.files)}."
            )
        return self.path / name


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Hashes every file below `folder` except the manifest, keyed by its path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(
            sha256=sha256_file(path), size=path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() != MANIFEST
    }


def content_id(weights_sha256: Mapping[str, str], documents: Mapping[str, Any]) -> str:
    """Names a model by what it computes.

    Files are no identity: two saves of one Keras model, and two conversions of it, differ in bytes.

    Args:
        weights_sha256: Hash of each network's weight arrays.
        documents: What else changes an answer: tokenizer, mapper, fusion weights, thresholds, preprocessing.

    Returns:
        64 hex digits.
    """
    return sha256_bytes(canonical_json({"weights": weights_sha256, "documents": documents}))


def read_manifest(path: Path) -> Manifest:
    """Reads a bundle's manifest without checking its files.

    Raises:
        ArtifactError: no manifest, not readable, or of another schema version.
    """
    try:
        content = read_json(path / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(f"There is no bundle at {path}: {MANIFEST} is missing.") from None
    except OSError as error:
        raise ArtifactError(f"{path / MANIFEST} can't be read: {error}") from error
    except ValueError as error:
        raise ArtifactError(f"{path / MANIFEST} is not JSON: {error}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path / MANIFEST} has schema version {version!r}. Expected {SCHEMA_VERSION}."
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ArtifactError(f"{path / MANIFEST} breaks its schema: {error}") from error


def find_damage(path: Path, manifest: Manifest) -> list[str]:
    """Compares a bundle's files with its manifest; gives one sentence per difference, none if all is well."""
    damage = []
    for name, entry in sorted(manifest.files.items()):
        file = path / name
        if not file.is_file():
            damage.append(f"{name} is missing")
        elif (size := file.stat().st_size) != entry.size:
            damage.append(f"{name} has {size} bytes, expected {entry.size}")
        elif (digest := sha256_file(file)) != entry.sha256:
            damage.append(f"{name} has sha256 {digest[:12]}…, expected {entry.sha256[:12]}…")
    return damage


def load_bundle(path: Path) -> Bundle:
    """Opens a bundle after checking every file of it.

    A symlink is resolved first, so that a champion that moves meanwhile can't mix two versions.

    Raises:
        ArtifactError: the bundle is missing, damaged or of another schema version; says which file and how.
    """
    path = path.resolve()
    manifest = read_manifest(path)
    if damage := find_damage(path, manifest):
        raise ArtifactError(f"Bundle {path} is damaged: " + "; ".join(damage) + ".")
    return Bundle(path, manifest)
