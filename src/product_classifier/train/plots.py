"""Pictures of a training, as PNG: curves, confusion matrix, reliability, F1 per class."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from product_classifier.modeling.fusion import FloatArray
from product_classifier.train.checkpoints import History

DPI = 110
BINS = 10


def plot_training_curves(histories: dict[str, History], path: Path) -> None:
    """Draws loss and accuracy over the epochs of each branch, training and validation."""
    shown = {name: history for name, history in histories.items() if history}
    figure = Figure(figsize=(10, 3.6 * max(1, len(shown))), layout="constrained")
    axes = figure.subplots(max(1, len(shown)), 2, squeeze=False)
    if not shown:
        axes[0, 0].set_title("Branches were reused: nothing was trained")
    for row, (name, history) in zip(axes, shown.items(), strict=False):
        epochs = range(1, len(history) + 1)
        for axis, metric in zip(row, ("loss", "accuracy"), strict=True):
            for prefix, label in (("", "training"), ("validation_", "validation")):
                values = [epoch.get(prefix + metric, np.nan) for epoch in history]
                axis.plot(epochs, values, label=label)
            axis.set(title=f"{name}: {metric}", xlabel="epoch", ylabel=metric)
            axis.grid(alpha=0.3)
            axis.legend()
    figure.savefig(path, dpi=DPI)


def plot_confusion_matrix(matrix: NDArray[np.int64], names: list[str], path: Path) -> None:
    """Draws the confusion matrix as shares of each true class, with counts where answers are wrong."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(6.0, 0.36 * len(names))
    figure = Figure(figsize=(side + 2.5, side + 1.5), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        dark = shares[row, column] > 0.5
        axis.text(
            column,
            row,
            str(matrix[row, column]),
            ha="center",
            va="center",
            fontsize=6,
            color="white" if dark else "black",
        )
    ticks = range(len(names))
    axis.set_xticks(ticks, names, rotation=90, fontsize=7)
    axis.set_yticks(ticks, names, fontsize=7)
    axis.set(xlabel="answer", ylabel="true type", title="Fusion on the test split: counts")
    figure.colorbar(image, ax=axis, shrink=0.6, label="share of the true type")
    figure.savefig(path, dpi=DPI)


def plot_reliability(confidence: FloatArray, correct: NDArray[np.bool_], path: Path) -> None:
    """Draws how often answers of a confidence are right, and how many there are."""
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    filled = [b for b in range(BINS) if (index == b).any()]
    figure = Figure(figsize=(6, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    upper.plot([0, 1], [0, 1], linestyle="--", color="grey", label="perfectly calibrated")
    upper.plot(
        [float(confidence[index == b].mean()) for b in filled],
        [float(correct[index == b].mean()) for b in filled],
        marker="o",
        label="fusion",
    )
    upper.set(
        ylabel="share of right answers", title="Reliability on the test split", ylim=(0, 1.02)
    )
    upper.legend(loc="upper left")
    _histogram(lower, confidence)
    figure.savefig(path, dpi=DPI)


def _histogram(axis: Axes, confidence: FloatArray) -> None:
    axis.hist(confidence, bins=BINS, range=(0, 1))
    axis.set(xlabel="confidence", ylabel="answers", yscale="log")


def plot_class_scores(f1: dict[str, float], support: dict[str, float], path: Path) -> None:
    """Draws the F1 of each class, worst first, with its number of test rows."""
    names = sorted(f1, key=lambda name: f1[name])
    figure = Figure(figsize=(8, max(3.0, 0.27 * len(names) + 1)), layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(names)), [f1[name] for name in names])
    axis.set_yticks(
        range(len(names)), [f"{name} (n = {support[name]:.0f})" for name in names], fontsize=7
    )
    axis.set(xlabel="F1", title="Fusion on the test split: F1 by type", xlim=(0, 1))
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=DPI)
