"""The trigger form: typed, bounded, described Params, and which key of `params.yaml` each one sets.

A Param left empty (null) leaves `params.yaml` as it is.
"""

import json
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param
from common.shards import MOST_SHARDS

# Name in the trigger form -> key in params.yaml.
PARAMS_YAML_KEYS = {
    "sample_products": "ingest.sample.products",
    "text_epochs": "train.text.epochs",
    "text_max_tokens": "train.text.max_tokens",
    "image_weights": "train.image.weights",
    "image_epochs": "train.image.epochs",
    "image_fine_tune_blocks": "train.image.fine_tune_blocks",
    "branches": "train.branches",
    "seed": "train.seed",
    "target_precision": "train.thresholds.target_precision",
    "gate_min_macro_f1": "gate.min_macro_f1",
}


def _integer(title: str, description: str, minimum: int, maximum: int) -> Param:
    return Param(
        None,
        type=["null", "integer"],
        minimum=minimum,
        maximum=maximum,
        title=title,
        description=description,
        section="Hyperparameters (empty: as in params.yaml)",
    )


def _number(title: str, description: str, minimum: float, maximum: float) -> Param:
    return Param(
        None,
        type=["null", "number"],
        minimum=minimum,
        maximum=maximum,
        title=title,
        description=description,
        section="Hyperparameters (empty: as in params.yaml)",
    )


def build_params() -> dict[str, Param]:
    """Builds the trigger form."""
    return {
        "data_source": Param(
            None,
            type=["null", "string"],
            minLength=1,
            maxLength=1024,
            title="Data source",
            description=(
                "sample, rakuten, a folder, a zip, an https:// or s3:// prefix, for this run "
                "only. Empty: the DATA_SOURCE setting."
            ),
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Run every stage even where neither its inputs nor its parameters changed.",
        ),
        "prediction_shards": Param(
            1,
            type="integer",
            minimum=1,
            maximum=MOST_SHARDS,
            title="Prediction shards",
            description=(
                "Parts in which batch prediction is scored at the same time, one per worker that "
                "is free; the result is the same. On one machine 1 is best."
            ),
        ),
        "sample_products": _integer(
            "Products in the sample", "Labelled products of the generated catalogue.", 270, 100_000
        ),
        "text_epochs": _integer(
            "Text epochs",
            "Epochs of the LSTM text branch; more on a small catalogue (train.text.min_steps).",
            1,
            500,
        ),
        "text_max_tokens": _integer("Text tokens", "Tokens read of each product's text.", 8, 512),
        "image_weights": Param(
            None,
            type=["null", "string"],
            minLength=1,
            maxLength=1024,
            title="VGG16 weights",
            description="imagenet, random, auto, or the path of a weights file.",
            section="Hyperparameters (empty: as in params.yaml)",
        ),
        "image_epochs": _integer("Image epochs", "Epochs of the image head.", 1, 1000),
        "image_fine_tune_blocks": _integer(
            "Blocks to fine-tune", "Last VGG16 blocks trained further; 0 keeps all frozen.", 0, 5
        ),
        "branches": Param(
            None,
            type=["null", "string"],
            enum=[None, "train", "reuse"],
            title="Branches",
            description="train both branches, or reuse the champion's and fit only the fusion.",
            section="Hyperparameters (empty: as in params.yaml)",
        ),
        "seed": _integer("Seed", "Seed of the training.", 0, 2**31 - 1),
        "target_precision": _number(
            "Target precision",
            "Precision that automatic answers must reach; thresholds are fitted to it.",
            0.01,
            0.999,
        ),
        "gate_min_macro_f1": _number(
            "Least macro F1", "A candidate below it does not become champion.", 0, 1
        ),
    }


def assignments(params: Mapping[str, Any]) -> list[str]:
    """Gives the `key=value` arguments of `product-classifier params set` for the Params filled in.

    Values are JSON, which is YAML too: `train.text.epochs=5`, `train.branches="reuse"`.
    """
    return [
        f"{key}={json.dumps(params[name])}"
        for name, key in PARAMS_YAML_KEYS.items()
        if params.get(name) is not None
    ]
