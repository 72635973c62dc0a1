"""The bundle that answered: its reference is what its products are compared with."""

import re
from dataclasses import dataclass

from product_classifier.core.bundle import (
    REFERENCE_OBSERVATIONS,
    Bundle,
    DriftReference,
    load_bundle,
    read_manifest,
)
from product_classifier.core.errors import ArtifactError, ConfigurationError, NothingToDo
from product_classifier.core.releases import RELEASE_ID_DIGITS
from product_classifier.core.workspace import Workspace
from product_classifier.modeling.drift import Answered
from product_classifier.modeling.observation_table import read_table

_BUNDLE_ID = re.compile(rf"[0-9a-f]{{{RELEASE_ID_DIGITS}}}")


@dataclass(frozen=True)
class Referenced:
    """A bundle with a reference: the bins, and up to some thousand of the products that they were made of."""

    bundle: Bundle
    reference: DriftReference
    rows: list[Answered]


def open_referenced(workspace: Workspace, bundle_id: str) -> Referenced:
    """Opens a release, or the candidate, by the id that its answers carry.

    Raises:
        ConfigurationError: there is no such bundle here.
        ArtifactError: it is damaged.
        NothingToDo: it was trained before bundles had a reference, or with too few test products for one.
    """
    bundle = _find(workspace, bundle_id)
    reference = bundle.manifest.drift
    if reference is None or REFERENCE_OBSERVATIONS not in bundle.manifest.files:
        raise NothingToDo(
            f"Bundle {bundle_id} was trained before bundles had a reference: no drift report. Train again."
        )
    if not reference.features:
        raise NothingToDo(
            f"The reference of bundle {bundle_id} is {reference.products} test products: too few to compare with, "
            "no drift report."
        )
    return Referenced(bundle, reference, read_table(bundle.file(REFERENCE_OBSERVATIONS)))


def _find(workspace: Workspace, bundle_id: str) -> Bundle:
    release = workspace.releases / bundle_id
    # The id may come from another machine: it must not name any other folder.
    if _BUNDLE_ID.fullmatch(bundle_id) and release.is_dir():
        return load_bundle(release)
    try:
        found = read_manifest(workspace.candidate).content_id[:RELEASE_ID_DIGITS]
    except ArtifactError:
        found = ""
    if found != bundle_id:
        raise ConfigurationError(
            f"The bundle that answered, {bundle_id}, is not in {workspace.releases}. "
            "`product-classifier models list` shows those that are."
        )
    return load_bundle(workspace.candidate)
