"""Makes a full-size bundle of one precision in a folder of its own, for the other benchmarks.

    python benchmarks/make_bundle.py FOLDER --precision int8

Runs `ingest`, `train` and `gate --no-record` there on the sample catalogue with this checkout's params.yaml; the
bundle is FOLDER/models/champion afterwards. `train` takes int8 only where it costs 0.002 macro F1 or less on
validation. How fast int8 is does not depend on that, so this script lifts the limit: its int8 bundle is for
measuring speed, and its manifest still says what int8 cost.
"""

import argparse
import os
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from product_classifier.core.logging import configure_logging
from product_classifier.core.params import load_params
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.gate.gate import run_gate
from product_classifier.ingest.ingest import ingest
from product_classifier.train import branches
from product_classifier.train.train import candidate_summary, train

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("bfloat16", "float32", "int8")
NOWHERE = "http://127.0.0.1:9"  # the discard port: the run stays in FOLDER/runs


def prepare_folder(folder: Path, precision: str) -> Workspace:
    """Makes a workspace with this checkout's hyperparameters but for the precision."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    params = (ROOT / "params.yaml").read_text()
    changed = params.replace("    precision: auto", f"    precision: {precision}", 1)
    if changed == params:
        raise SystemExit("params.yaml has no line `precision: auto` to change.")
    (folder / "params.yaml").write_text(changed)
    return Workspace(folder.resolve())


def main() -> None:
    """Makes the bundle and says where it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    arguments = parser.parse_args()

    configure_logging("train")
    workspace = prepare_folder(arguments.folder, arguments.precision)
    settings = Settings(mlflow_tracking_uri=NOWHERE, data_source="sample")
    params = load_params(workspace.params)
    if not workspace.raw.is_dir():
        ingest(workspace, settings, params.ingest)
    branches.MAX_INT8_LOSS = 1.0
    result = train(workspace, settings, params.train)
    run_gate(workspace, params.gate, settings)
    print(candidate_summary(workspace.models / "champion", result.manifest))
    print(f"precision {result.manifest.backbone.precision}: {workspace.models / 'champion'}")


if __name__ == "__main__":
    main()
