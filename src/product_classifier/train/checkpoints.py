"""Training that can be killed: the state after finished epochs, replaced in one step."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.progress import LOG_INTERVAL_SECONDS

logger = logging.getLogger(__name__)

SAVE_INTERVAL_SECONDS = 3.0  # what a kill can cost; small models have epochs of milliseconds

History = list[dict[str, float]]


@dataclass(frozen=True)
class BranchCheckpoint:
    """The state of one branch's training, in a folder of its own."""

    folder: Path

    def load(self) -> tuple[keras.Model, History] | None:
        """Gives model (with optimizer) and history of the finished epochs, or None to start anew."""
        state = self.folder / "state.json"
        if not state.is_file():
            return None
        try:
            content = read_json(state)
            history: History = content["history"]
            return keras.models.load_model(self.folder / content["model"]), history
        except Exception as error:  # zip, HDF5, JSON, missing keys or files: bytes can be anything
            logger.warning("Checkpoint %s is damaged (%s): starting anew.", self.folder, error)
            return None

    def save(self, model: keras.Model, history: History) -> None:
        """Keeps the state after an epoch; `state.json` is replaced last and names the model file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"epoch-{len(history):03d}.keras"
        temporary = self.folder / f"writing-{name}"
        model.save(temporary)
        os.replace(temporary, self.folder / name)
        write_json_atomic(self.folder / "state.json", {"model": name, "history": history})
        for old in self.folder.glob("*.keras"):
            if old.name != name:
                old.unlink()


def train_epochs(
    checkpoint: BranchCheckpoint,
    build: Callable[[], keras.Model],
    run_epoch: Callable[[keras.Model, int], dict[str, float]],
    epochs: int,
) -> tuple[keras.Model, History]:
    """Trains for `epochs`, from the last finished epoch on if there is one.

    Args:
        checkpoint: Where the state is kept.
        build: Makes the compiled model of epoch 0.
        run_epoch: Trains one epoch (model, epoch number from 0) and gives its metrics.
        epochs: How many in all.
    """
    if (found := checkpoint.load()) is not None:
        model, history = found
        logger.info("%s resumes after epoch %d of %d", checkpoint.folder.name, len(history), epochs)
    else:
        model, history = build(), []
    saved = logged = time.monotonic()
    for epoch in range(len(history), epochs):
        metrics = run_epoch(model, epoch)
        history.append(metrics)
        last = epoch + 1 == epochs
        if last or time.monotonic() - logged >= LOG_INTERVAL_SECONDS:
            _log_epoch(checkpoint.folder.name, epoch + 1, epochs, metrics)
            logged = time.monotonic()
        if last or time.monotonic() - saved >= SAVE_INTERVAL_SECONDS:
            checkpoint.save(model, history)
            saved = time.monotonic()
    return model, history


def _log_epoch(name: str, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
    values = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
    logger.info("%s epoch %d/%d: %s", name, epoch, epochs, values)
