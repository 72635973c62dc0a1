"""The model card: what the bundle is, what it was measured to do, and what to beware of."""

from product_classifier.core.bundle import Manifest
from product_classifier.modeling.calibration import NEVER

_ROWS = {
    "fusion": "text and photo",
    "text_only": "text only",
    "image_only": "photo only",
    "tfidf": "TF-IDF baseline (text)",
}


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "–"


def write_model_card(manifest: Manifest, counts: dict[str, int]) -> str:
    """Renders the card as Markdown.

    Args:
        manifest: The bundle's manifest; its file list may still be empty.
        counts: Rows of train, validation and test.
    """
    backbone = manifest.backbone
    lines = [
        f"# Product classifier {manifest.content_id[:16]}",
        "",
        f"VGG16 + LSTM fusion over {len(manifest.labels)} product types, "
        f"made {manifest.created_at} by product-classifier {manifest.package_version}.",
        "",
    ]
    lines += [f"> **Warning.** {warning}\n" for warning in manifest.warnings]
    lines += [
        "## Results on the test split",
        "",
        "| input | accuracy | macro F1 | weighted F1 | top 3 | calibration error | passes without review |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, title in _ROWS.items():
        found = manifest.metrics.get(key, {})
        cells = [
            _number(found.get(name))
            for name in (
                "accuracy",
                "macro_f1",
                "weighted_f1",
                "top3_accuracy",
                "calibration_error",
                "coverage",
            )
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Rows: {counts['train']} train, {counts['validation']} validation, {counts['test']} test; "
        "duplicates stay on one side.",
        "",
        "## When an answer passes without review",
        "",
        f"Target precision {manifest.thresholds.target_precision}. Confidence from which it is met "
        "on validation rows: "
        + ", ".join(
            f"{name} {'never' if value >= NEVER else f'{value:.3f}'}"
            for name, value in sorted(manifest.thresholds.auto_from.items())
        )
        + ".",
        "",
        "## How it was made",
        "",
        f"- Image branch: VGG16 ({backbone.weights} weights, {backbone.fine_tuned_blocks} blocks fine-tuned), "
        f"averages of the last {backbone.pooled_blocks} blocks, {manifest.preprocessing.image_size} pixels, "
        f"features in {backbone.precision}.",
        f"- Text branch: subword tokenizer, bidirectional LSTM, {manifest.preprocessing.max_tokens} tokens.",
        "- Fusion, temperatures and thresholds: fitted on the validation split.",
        "",
        "## Limits",
        "",
        "- It knows the types above and no other: a product of a new type gets one of them, "
        "usually with low confidence.",
        "- Confidence is calibrated for products like those it was trained on; watch drift.",
        "",
    ]
    return "\n".join(lines)
