"""What training takes from outside the data: a small file that DVC depends on."""

from pathlib import Path
from typing import Any

from product_classifier.core import bundle as parts
from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.params import TrainParams
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.train.weights import resolve_weights


def write_probe(workspace: Workspace, _settings: Settings, params: TrainParams) -> Path:
    """Writes which weights, or which bundle, a training would start from now; only if that changed.

    Raises:
        ConfigurationError: the weights or the bundle to reuse can't be had.
    """
    path = workspace.probes / "train.json"
    content: dict[str, Any]
    if params.branches == "reuse":
        content = {"reuse": reused_branches(workspace, params.reuse_bundle)}
    else:
        resolved = resolve_weights(params.image, params.seed, workspace.root)
        content = {"weights": resolved.to_json()}
    if not path.is_file() or read_json(path) != content:
        write_json_atomic(path, content)
    return path


def reused_branches(workspace: Workspace, bundle: str) -> dict[str, str]:
    """Names the branches of the bundle that is to be reused, by the hashes of their weights.

    Not by the bundle's id: the champion that a reuse makes has the same branches and another id, and
    must not ask for one more training.

    Raises:
        ConfigurationError: there is no bundle at that path.
        ArtifactError: its manifest is damaged or lists no branches.
    """
    folder = workspace.root / bundle
    if not (folder / parts.MANIFEST).is_file():
        raise ConfigurationError(
            "train.branches is reuse, but train.reuse_bundle names no bundle. Expected a folder with "
            f"{parts.MANIFEST}. Received: {bundle!r}. Train once with branches: train."
        )
    files = parts.read_manifest(folder).files
    networks = (parts.TEXT_NETWORK, parts.IMAGE_BASE_NETWORK, parts.IMAGE_HEAD_NETWORK)
    names = [parts.TOKENIZER, *(str(Path(network).with_suffix(".bin")) for network in networks)]
    if missing := [name for name in names if name not in files]:
        raise ArtifactError(f"{folder / parts.MANIFEST} lists no {missing}.")
    return {name: files[name].sha256 for name in names}
