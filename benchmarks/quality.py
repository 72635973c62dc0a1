"""Measures a whole training on several splits: quality, time and memory.

    .venv/bin/python benchmarks/quality.py --source /path/to/catalogue --seeds 1 2 3

Each seed gets a workspace of its own below --workdir (kept, so that a second call reuses the photo
features and skips trainings that are done). Prints per seed and as means: accuracy and macro F1 of
fusion, text only, photo only and the TF-IDF baseline on the test split; what passes without review;
seconds and peak memory of the training; and how fusion compares with text only when the titles of 30 %
of the test rows are emptied (paired bootstrap over rows).
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from product_classifier.core.workspace import Workspace
from product_classifier.modeling.predictor import Predictor, ProductInput
from product_classifier.train.dataset import load_dataset
from product_classifier.train.evaluate import evaluate_scores

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("fusion", "text_only", "image_only", "tfidf")
EMPTIED_SHARE = 0.3
RESAMPLES = 2000


def run_stage(folder: Path, *arguments: str) -> tuple[float, float]:
    """Runs a command in a workspace; gives wall seconds and peak memory in GB of all children so far."""
    # Nothing listens there: the run's record stays local, which is what a benchmark wants.
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    started = time.monotonic()
    with (folder / f"{arguments[0]}.log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "product_classifier", *arguments],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return time.monotonic() - started, peak


def prepare(workdir: Path, source: str, seed: int) -> Path:
    """Makes the workspace of one seed and imports the catalogue with that split."""
    folder = workdir / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    run_stage(folder, "params", "set", f"ingest.split.seed={seed}")
    run_stage(folder, "ingest", "--source", source)
    # Photo features do not depend on the split: all seeds share one cache.
    shared, cache = workdir / "features", folder / "data" / "cache" / "features"
    shared.mkdir(exist_ok=True)
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not cache.exists():
        cache.symlink_to(shared.resolve())
    return folder


def compare_with_emptied_titles(folder: Path, seed: int) -> dict[str, float]:
    """Scores the test rows, 30 % of them without title, with and without photos."""
    workspace = Workspace(folder)
    dataset = load_dataset(workspace.raw)
    predictor = Predictor.load(workspace.candidate)
    test = dataset.sides["test"]
    generator = np.random.default_rng(seed)
    emptied = generator.random(len(test)) < EMPTIED_SHARE
    answers: dict[str, NDArray[np.float64]] = {}
    for name, with_photo in (("fusion", True), ("text_only", False)):
        rows = []
        for row, empty in zip(test, emptied, strict=True):
            product = dataset.products[row]
            photo = dataset.photos.read(product.photo_name) if with_photo else None
            title = "" if empty else product.title
            rows.append(predictor.decode(ProductInput(title, product.description, photo)))
        answers[name] = predictor.score(rows)
    labels = dataset.labels[test]
    differences = []
    for _ in range(RESAMPLES):
        sample = generator.integers(0, len(test), len(test))
        f1 = {n: evaluate_scores(a[sample], labels[sample])["macro_f1"] for n, a in answers.items()}
        differences.append(f1["fusion"] - f1["text_only"])
    low, high = np.quantile(differences, [0.025, 0.975])
    return {
        **{name: evaluate_scores(a, labels)["macro_f1"] for name, a in answers.items()},
        "difference_low": float(low),
        "difference_high": float(high),
    }


def describe_review(fusion: dict[str, float | None]) -> str:
    """Says how many test rows pass without review, how often those are right, and how far confidences lie."""
    precision = fusion["auto_precision"]
    right = "none passes" if precision is None else f"right of these {precision:.4f}"
    return (
        f"  without review {fusion['coverage']:.4f}, {right}, "
        f"calibration error {fusion['calibration_error']:.4f}"
    )


def main() -> None:
    """Runs all seeds and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", required=True, help="catalogue in the Rakuten layout")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workdir", type=Path, default=ROOT / "data" / "benchmarks" / "quality")
    arguments = parser.parse_args()
    found = []
    for seed in arguments.seeds:
        folder = prepare(arguments.workdir, arguments.source, seed)
        seconds, peak = run_stage(folder, "train")
        metrics = json.loads((folder / "reports" / "train" / "metrics.json").read_text())
        emptied = compare_with_emptied_titles(folder, seed)
        found.append((metrics, emptied))
        print(f"seed {seed}: training {seconds:.0f} s, peak {peak:.1f} GB")
        for kind in KINDS:
            m = metrics[kind]
            print(f"  {kind:10} accuracy {m['accuracy']:.4f}  macro F1 {m['macro_f1']:.4f}")
        print(describe_review(metrics["fusion"]))
        print(
            f"  30 % of titles emptied: fusion {emptied['fusion']:.4f}, text only "
            f"{emptied['text_only']:.4f}, difference 95 % in "
            f"[{emptied['difference_low']:.4f}, {emptied['difference_high']:.4f}]",
            flush=True,
        )
    print(f"means over seeds {arguments.seeds}:")
    for kind in KINDS:
        for name in ("accuracy", "macro_f1"):
            print(f"  {kind:10} {name:9} {np.mean([m[kind][name] for m, _ in found]):.4f}")
    for name in ("fusion", "text_only"):
        print(f"  emptied    {name:9} {np.mean([e[name] for _, e in found]):.4f} (macro F1)")


if __name__ == "__main__":
    main()
