"""A small but really trained workspace: generated catalogue, every step of `ingest` and `train`, 32-pixel photos.

Runs in a process of its own, so that TensorFlow is only in the tests that import it themselves.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import product_classifier
from product_classifier.core.files import canonical_json, sha256_bytes
from product_classifier.core.params import Params
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace

EVALUATION = "evaluation.npz"

PARAMS = """
ingest:
  sample: {products: 270, unlabelled: 40}
  split: {train: 0.60, validation: 0.25, test: 0.15}
  photo_shards: 4
train:
  text: {vocabulary_size: 600, max_tokens: 24, embedding_dim: 32, lstm_units: 16, dropout: 0.1,
         learning_rate: 0.02, epochs: 12, min_steps: 0, batch_size: 32}
  image: {weights: random, size: 32, precision: float32, hidden_units: 32, dropout: 0.2,
          learning_rate: 0.005, epochs: 15, batch_size: 32}
gate: {min_accuracy: 0.0, min_macro_f1: 0.0, max_calibration_error: 1.0}
predict: {chunk_products: 16}
"""


# What the result depends on; other code may change without a new training.
_CODE = ("core", "features", "modeling", "ingest", "train", "tracking")


def trained_workspace_copy(root: Path, cache: Path) -> Workspace:
    """Copies the trained workspace that is kept in `cache` to `root`; trains where code or parameters changed.

    Of two runs that begin together one trains, and the other waits for it.
    """
    package = Path(product_classifier.__file__).parent
    files = sorted(path for part in _CODE for path in (package / part).rglob("*.py"))
    content = [[str(path.relative_to(package)), sha256_bytes(path.read_bytes())] for path in files]
    kept = cache / sha256_bytes(canonical_json([content, PARAMS, sys.version]))[:16]
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            make_trained_workspace(root)
            staging = cache / f".{kept.name}.{os.getpid()}"
            shutil.copytree(root, staging, symlinks=True)
            staging.rename(kept)
            for old in cache.iterdir():
                if old.name not in (kept.name, ".lock"):  # also what killed runs have left
                    shutil.rmtree(old, ignore_errors=True)
        else:
            shutil.copytree(kept, root, symlinks=True)
    return Workspace(root)


def make_trained_workspace(root: Path) -> Workspace:
    """Makes a workspace with `data/raw`, `models/candidate` and reports; takes 20 to 60 s, minutes on a busy machine.

    Beside them is `evaluation.npz` with what training's own evaluation saw on the test split: `rows`
    (row indices), `probabilities` `(N, K)`, `codes` (product code of each column).
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text(PARAMS)
    taken = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in taken}
    # Nobody answers there: the run's record stays local.
    environment |= {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, __file__],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return Workspace(root)


def _work() -> None:
    from product_classifier.core.params import load_params
    from product_classifier.core.settings import get_settings
    from product_classifier.ingest.ingest import ingest
    from product_classifier.train import train as stage
    from product_classifier.train.candidate import Fitted
    from product_classifier.train.dataset import Dataset

    workspace = Workspace(Path.cwd())
    params: Params = load_params(workspace.params)
    ingest(workspace, get_settings(), params.ingest)
    fit = stage.fit

    def fit_and_tell(workspace: Workspace, dataset: Dataset, params: object) -> Fitted:
        fitted = fit(workspace, dataset, params)  # type: ignore[arg-type]
        np.savez(
            workspace.root / EVALUATION,
            rows=[dataset.products[index].row for index in dataset.sides["test"]],
            probabilities=fitted.probabilities,
            codes=dataset.label_map.codes,
        )
        return fitted

    stage.fit = fit_and_tell
    stage.train(workspace, get_settings(), params.train)


if __name__ == "__main__":
    _work()
