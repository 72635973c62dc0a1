"""Training of the text branch."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from product_classifier.core.params import TextParams
from product_classifier.features.text import (
    DESCRIPTION,
    PAD_ID,
    TITLE,
    UNKNOWN_ID,
    encode_texts,
    train_tokenizer,
)
from product_classifier.modeling.lstm_text_classifier import build_lstm_text_classifier
from product_classifier.train.checkpoints import BranchCheckpoint, History, train_epochs
from product_classifier.train.dataset import Dataset
from product_classifier.train.determinism import reseed_layers

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class TextBranch:
    """A trained text branch; `tokens` are all products' ids, shape `(N, max_tokens)`."""

    model: keras.Model
    tokenizer: Tokenizer
    max_tokens: int
    tokens: Tokens
    history: History


def split_fields(text: str) -> tuple[str, str]:
    """Takes a composed text apart: title part and description part, each with its marker, or empty."""
    title, marker, description = text.partition(DESCRIPTION)
    return (title.strip() if title.startswith(TITLE) else ""), (marker + description).strip()


def fitting_length(tokenizer: Tokenizer, texts: list[str], limit: int) -> int:
    """Gives the length that holds 99.5 % of the texts uncut, a multiple of 8, `limit` at most."""
    lengths = [len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    wanted = int(np.quantile(lengths, 0.995)) if lengths else 8
    return int(min(limit, max(8, -(-wanted // 8) * 8)))


def train_text_branch(dataset: Dataset, params: TextParams, seed: int, folder: Path) -> TextBranch:
    """Trains tokenizer and LSTM on the training rows; validation rows are only watched.

    Args:
        dataset: Products with split.
        params: Hyperparameters.
        seed: Of initialisation, order, dropout and augmentation.
        folder: Where the checkpoint lies.
    """
    train, validation = dataset.sides["train"], dataset.sides["validation"]
    texts = [dataset.texts[row] for row in train]
    tokenizer = train_tokenizer(texts, params.vocabulary_size)
    max_tokens = fitting_length(tokenizer, texts, params.max_tokens)
    tokens = encode_texts(tokenizer, dataset.texts, max_tokens)
    fields = [split_fields(text) for text in texts]
    views = (
        tokens[train],
        encode_texts(
            tokenizer,
            [title or text for (title, _), text in zip(fields, texts, strict=True)],
            max_tokens,
        ),
        encode_texts(
            tokenizer,
            [description or text for (_, description), text in zip(fields, texts, strict=True)],
            max_tokens,
        ),
    )
    labels = dataset.labels
    classes = len(dataset.label_map)
    onehot = np.eye(classes, dtype=np.float32)[labels[train]]
    # A row without any text teaches the text branch nothing.
    usable = np.flatnonzero((views[0] != PAD_ID).any(axis=1))
    seen = validation[(tokens[validation] != PAD_ID).any(axis=1)]
    steps = -(-len(usable) // params.batch_size)
    epochs = max(params.epochs, -(-params.min_steps // max(1, steps)))

    def build() -> keras.Model:
        keras.utils.set_random_seed(seed)  # whatever was built before must not matter
        model = build_lstm_text_classifier(
            vocabulary_size=tokenizer.get_vocab_size(),
            max_tokens=max_tokens,
            classes=classes,
            embedding_dim=params.embedding_dim,
            lstm_units=params.lstm_units,
            dropout=params.dropout,
            seed=seed,
        )
        compile_branch(
            model,
            params.learning_rate,
            params.weight_decay,
            params.label_smoothing,
            steps * epochs,
        )
        return model

    def run_epoch(model: keras.Model, epoch: int) -> dict[str, float]:
        generator = np.random.default_rng([seed, epoch])
        reseed_layers(model, seed, epoch)
        order = generator.permutation(usable)
        batch = augment(views, order, params, generator)
        result = model.fit(
            batch, onehot[order], batch_size=params.batch_size, shuffle=False, verbose=0
        )
        return epoch_metrics(model, result, tokens[seen], labels[seen])

    model, history = train_epochs(
        BranchCheckpoint(folder / "text_branch"), build, run_epoch, epochs
    )
    return TextBranch(model, tokenizer, max_tokens, tokens, history)


def augment(
    views: tuple[Tokens, Tokens, Tokens],
    order: NDArray[np.int64],
    params: TextParams,
    generator: np.random.Generator,
) -> Tokens:
    """Draws one epoch's texts: some without title, some without description, some tokens hidden.

    Products come with missing fields and unknown words; a branch that never saw such is sure of itself
    where it should not be.
    """
    choice = generator.choice(
        3,
        size=len(order),
        p=[1 - params.field_dropout, params.field_dropout / 2, params.field_dropout / 2],
    )
    batch = np.choose(choice[:, None], [view[order] for view in views]).astype(np.int32)
    hidden = generator.random(batch.shape) < params.token_dropout
    batch[hidden & (batch != PAD_ID)] = UNKNOWN_ID
    return batch


def compile_branch(
    model: keras.Model,
    learning_rate: float,
    weight_decay: float,
    label_smoothing: float,
    total_steps: int,
) -> None:
    """Sets loss and optimizer: AdamW with cosine decay to 0 over all steps, so no epoch is chosen by hand."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(1, total_steps))
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=weight_decay, clipnorm=1.0),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=label_smoothing
        ),
        metrics=["accuracy"],
    )


def epoch_metrics(
    model: keras.Model,
    result: keras.callbacks.History,
    inputs: NDArray[np.generic],
    labels: NDArray[np.int64],
) -> dict[str, float]:
    """Gives loss and accuracy on training and validation rows after an epoch."""
    metrics = {
        "loss": float(result.history["loss"][0]),
        "accuracy": float(result.history["accuracy"][0]),
    }
    if len(labels):
        logits = keras.ops.convert_to_numpy(model.predict(inputs, batch_size=512, verbose=0))
        onehot = np.eye(logits.shape[1])[labels]
        loss = keras.losses.categorical_crossentropy(onehot, logits, from_logits=True)
        metrics["validation_loss"] = float(np.mean(keras.ops.convert_to_numpy(loss)))
        metrics["validation_accuracy"] = float(np.mean(logits.argmax(axis=1) == labels))
    return metrics
