"""The API as one would write it first: a FastAPI handler that calls Keras `model.predict`. A yardstick, no service.

    python benchmarks/keras_baseline.py models/champion --port 9100

Given every chance: the bundle's own `concatenate.keras` joined with VGG16 to one model, so that a request is one
`predict`; the same decoder, tokenizer and resize rule as the service; traced before the first request. No
authentication, limits, metrics or request log: it has less to do than the service that it is compared with.
"""

import argparse
import os
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import uvicorn
from fastapi import FastAPI, File, Form

from product_classifier.core import bundle as parts
from product_classifier.core.bundle import Bundle, load_bundle
from product_classifier.core.files import read_json
from product_classifier.features.images import preprocess_photo, to_vgg16_input
from product_classifier.features.labels import LabelMap
from product_classifier.features.text import compose_text, encode_texts, load_tokenizer
from product_classifier.modeling.vgg16_image_classifier import build_vgg16_base


def load_joined_model(bundle: Bundle) -> keras.Model:
    """Joins VGG16 and the bundle's `concatenate.keras`: from pixels and token ids to probabilities."""
    size = bundle.manifest.preprocessing.image_size
    base = build_vgg16_base(size, bundle.manifest.backbone.pooled_blocks)
    with np.load(bundle.file(parts.IMAGE_BASE_WEIGHTS), allow_pickle=False) as content:
        base.set_weights([content[name] for name in sorted(content.files)])
    fusion = keras.models.load_model(bundle.file(parts.FUSED_MODEL), compile=False)
    inputs = {
        "pixels": keras.Input((size, size, 3), name="pixels"),
        "tokens": keras.Input(
            (bundle.manifest.preprocessing.max_tokens,), dtype="int32", name="tokens"
        ),
        "has_text": keras.Input((1,), name="has_text"),
        "has_image": keras.Input((1,), name="has_image"),
    }
    outputs = fusion(
        {
            "tokens": inputs["tokens"],
            "features": base(inputs["pixels"]),
            "has_text": inputs["has_text"],
            "has_image": inputs["has_image"],
        }
    )
    return keras.Model(inputs, outputs)


def create_app(bundle: Bundle) -> FastAPI:
    """Makes the app; the model is loaded and traced here."""
    manifest = bundle.manifest
    size = manifest.preprocessing.image_size
    model = load_joined_model(bundle)
    tokenizer = load_tokenizer(bundle.file(parts.TOKENIZER))
    labels = LabelMap.from_mapper(read_json(bundle.file(parts.MAPPER)))
    app = FastAPI()

    def score(text: str, photo: bytes | None) -> dict[str, Any]:
        pixels = np.zeros((size, size, 3), np.uint8)
        if photo is not None:
            pixels = preprocess_photo(photo, size, manifest.preprocessing.crop)
        row = model.predict(
            {
                "pixels": to_vgg16_input(pixels)[np.newaxis],
                "tokens": encode_texts(tokenizer, [text], manifest.preprocessing.max_tokens),
                "has_text": np.array([[float(bool(text))]], np.float32),
                "has_image": np.array([[float(photo is not None)]], np.float32),
            },
            verbose=0,
        )[0]
        best = int(row.argmax())
        code = labels.codes[best]
        name = manifest.names[str(code)].fr
        return {
            "predictions": [{"label": name, "confidence": float(row[best]), "prediction": code}],
            "message": "ok",
        }

    score("warm up", None)

    # `async`: one prediction at a time, which TensorFlow spreads over all cores by itself. As a plain `def`, up to 40
    # threads would call one model's `predict` at once, which Keras does not promise to survive.
    @app.post("/predict")
    async def predict(
        designation: Annotated[str, Form()],
        description: Annotated[str, Form()] = "",
        image: Annotated[bytes | None, File()] = None,
    ) -> dict[str, Any]:
        return score(compose_text(designation, description), image)

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    return app


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("bundle", type=Path, help="folder of a bundle")
    parser.add_argument("--port", type=int, default=9100)
    arguments = parser.parse_args()
    app = create_app(load_bundle(arguments.bundle))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
