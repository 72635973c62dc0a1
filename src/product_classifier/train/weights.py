"""Which VGG16 weights the image branch starts from, named by hash so that they never change unseen.

Imports no TensorFlow unless ImageNet weights have to be fetched: the probe calls it on every run.
"""

import hashlib
import logging
import os
import re
import socket
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.core.files import sha256_file
from product_classifier.core.params import ImageParams

logger = logging.getLogger(__name__)

# Where Keras keeps what it downloads, and the address it takes it from (keras.applications.vgg16).
KERAS_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/" + KERAS_FILE
KERAS_MD5 = "6d6bbae143d832006294945121d1f1fc"
ANSWER_SECONDS = 20.0  # without an answer for so long, the network is taken to be away
RANDOM_WARNING = (
    "The image branch stands on RANDOM VGG16 weights, not on ImageNet's: photos tell less than they could. "
    "Connect to the network and set train.image.weights to auto, or to the path of a weights file."
)
_CONVOLUTION = re.compile(r"block[1-5]_conv[1-3]")

WeightArrays = list[NDArray[np.float32]]


@dataclass(frozen=True)
class ResolvedWeights:
    """The weights a training will use: `kind` is imagenet, random or file; `sha256` names them."""

    kind: str
    sha256: str
    path: str | None = None
    seed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives the probe file's content; no path, which may differ between machines."""
        return {key: value for key, value in asdict(self).items() if key != "path"}

    @property
    def warning(self) -> str | None:
        """What users of the bundle must know about these weights."""
        return RANDOM_WARNING if self.kind == "random" else None


def keras_cache_file() -> Path:
    """Names the file in Keras's download cache: below `KERAS_HOME`, by default `~/.keras`."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / KERAS_FILE


def _cached_imagenet() -> Path | None:
    """Finds ImageNet's weights in the cache; a download that was cut short does not count."""
    path = keras_cache_file()
    if not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return path if digest == KERAS_MD5 else None


def resolve_weights(params: ImageParams, seed: int, root: Path) -> ResolvedWeights:
    """Finds out which weights `train.image.weights` means here and now.

    Args:
        params: Image parameters.
        seed: Training seed, for random weights.
        root: Folder that relative paths start from.

    Raises:
        ConfigurationError: ImageNet weights are asked for and can't be had, or a path leads nowhere.
    """
    if params.weights == "random":
        return _random(seed)
    if params.weights in ("auto", "imagenet"):
        if cached := _cached_imagenet() or _fetch_imagenet():
            return ResolvedWeights("imagenet", sha256_file(cached), str(cached))
        if params.weights == "imagenet":
            raise ConfigurationError(
                "train.image.weights is imagenet, but the weights can't be downloaded. "
                f"Connect to the network, put {KERAS_FILE} at {keras_cache_file()}, or set auto or random."
            )
        logger.warning(RANDOM_WARNING)
        return _random(seed)
    path = (root / params.weights).resolve()
    if not path.is_file():
        raise ConfigurationError(
            "train.image.weights must be imagenet, random, auto, or the path of a VGG16 weights file "
            f"without top (.h5, .npz). Received: {params.weights!r}, and there is no such file."
        )
    return ResolvedWeights("file", sha256_file(path), str(path))


def _random(seed: int) -> ResolvedWeights:
    # The generator is fixed (see random_vgg16_weights), so the seed names the arrays.
    return ResolvedWeights("random", f"he-normal-pcg64-seed-{seed}", seed=seed)


def _fetch_imagenet() -> Path | None:
    """Fetches the ImageNet weights as Keras does; None where the network does not give them."""
    path = keras_cache_file()
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(ANSWER_SECONDS)  # Keras sets none
        # Asked first, since importing Keras takes seconds, and offline that would be on every run.
        urllib.request.urlopen(urllib.request.Request(KERAS_URL, method="HEAD")).close()  # noqa: S310
        path.parent.mkdir(parents=True, exist_ok=True)
        import keras

        keras.utils.get_file(
            KERAS_FILE,
            KERAS_URL,
            cache_subdir=path.parent.name,
            cache_dir=str(path.parent.parent),
            file_hash=KERAS_MD5,
        )
    except Exception as error:  # urllib, ssl, socket and checksum errors alike mean: not to be had
        logger.warning("ImageNet weights can't be downloaded: %s", error)
        return None
    finally:
        socket.setdefaulttimeout(timeout)
    return _cached_imagenet()


def load_weights(resolved: ResolvedWeights) -> WeightArrays:
    """Loads the weights as 13 pairs of kernel `(3, 3, in, out)` and bias `(out,)`, float32.

    Raises:
        ConfigurationError: the file does not hold VGG16's convolutions.
        ArtifactError: it changed since it was resolved.
    """
    from product_classifier.modeling.vgg16_image_classifier import random_vgg16_weights

    if resolved.seed is not None:
        return random_vgg16_weights(resolved.seed)
    if resolved.path is None:
        raise ArtifactError("The weights were resolved without a file. Resolve them again.")
    path = Path(resolved.path)
    if sha256_file(path) != resolved.sha256:
        raise ArtifactError(f"{path} changed while it was in use. Run again.")
    try:
        arrays = read_npz(path) if path.suffix == ".npz" else _read_h5(path)
    except Exception as error:  # zip, HDF5 and NumPy each have their own
        raise ConfigurationError(
            f"{path} is no readable weights file (.h5, .npz): {error}"
        ) from error
    check_arrays(arrays, path)
    return arrays


def _read_h5(path: Path) -> WeightArrays:
    """Reads VGG16's convolutions from any of Keras's HDF5 layouts; other layers are left out.

    Up to Keras 2, and in whole models of Keras 3, the layer's name is in the path; in `.weights.h5` of Keras 3 it is an
    attribute of the group that holds the arrays.
    """
    found: dict[str, dict[int, NDArray[np.float32]]] = {}

    def collect(name: str, item: Any) -> None:
        layer = _CONVOLUTION.search(f"{item.parent.attrs.get('name', '')} {name}")
        if layer is not None and isinstance(item, h5py.Dataset):
            found.setdefault(layer.group(), {})[item.ndim] = np.asarray(item, dtype=np.float32)

    with h5py.File(path, "r") as file:
        file.get("model_weights", file).visititems(collect)
    return [arrays[rank] for _, arrays in sorted(found.items()) for rank in (4, 1)]


def read_npz(path: Path) -> WeightArrays:
    """Reads weight arrays as `write_npz` leaves them, as float32; never unpickles."""
    # Opened here: np.load leaves a file that is no archive open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        return [content[name].astype(np.float32) for name in sorted(content.files)]


def write_npz(path: Path, arrays: WeightArrays) -> None:
    """Writes weight arrays; equal arrays give equal bytes."""
    named: dict[str, Any] = {f"{index:03d}": array for index, array in enumerate(arrays)}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **named)


def check_arrays(arrays: WeightArrays, path: Path) -> None:
    """Checks that the arrays are VGG16's 13 convolutions.

    Raises:
        ConfigurationError: number or shape of the arrays differ, or a value is not finite.
    """
    from product_classifier.modeling.vgg16_image_classifier import BLOCKS

    expected: list[tuple[int, ...]] = []
    channels = 3
    for filters in (count for block in BLOCKS for count in block):
        expected += [(3, 3, channels, filters), (filters,)]
        channels = filters
    if [array.shape for array in arrays] != expected:
        raise ConfigurationError(
            f"{path} does not hold VGG16 without top. Expected 13 pairs of kernel and bias. "
            f"Received {len(arrays)} arrays: {[array.shape for array in arrays][:4]}…"
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise ConfigurationError(f"{path} holds weights that are not finite.")
