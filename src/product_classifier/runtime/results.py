"""The results table at the end of a run: what the champion can do, and what was scored."""

from typing import Any

from rich.console import Console
from rich.table import Table

from product_classifier.core.files import read_json
from product_classifier.core.workspace import Workspace

_COLUMNS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "top3_accuracy": "top-3",
    "calibration_error": "calibration error",
}
_ROWS = {
    "fusion": "text + image (fusion)",
    "text_only": "text only (LSTM)",
    "image_only": "image only (VGG16)",
    "tfidf": "TF-IDF baseline",
}


def _read(path: Any) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None  # not made yet


def metrics_table(metrics: dict[str, Any]) -> Table | None:
    """Builds the table of a bundle's test metrics; None where it has none."""
    rows = [(title, metrics[key]) for key, title in _ROWS.items() if metrics.get(key)]
    if not rows:
        return None
    table = Table(title="Champion, on its test split", title_justify="left")
    table.add_column("model")
    for title in _COLUMNS.values():
        table.add_column(title, justify="right")
    for name, values in rows:
        cells = [f"{values[key]:.4f}" if key in values else "" for key in _COLUMNS]
        table.add_row(name, *cells)
    return table


def print_results(console: Console, workspace: Workspace) -> None:
    """Prints the champion's metrics and what was predicted, as far as they are there."""
    manifest = _read(workspace.champion / "manifest.json")
    if not isinstance(manifest, dict):
        console.print("There is no champion yet.")
        return
    console.print(f"Champion: {str(manifest.get('content_id', '?'))[:16]}")
    table = metrics_table(manifest.get("metrics") or {})
    if table is not None:
        console.print(table)
    predictions = _read(workspace.predictions / "predictions.json")
    if isinstance(predictions, dict | list):
        console.print(
            f"Predictions: {len(predictions)} products in {workspace.predictions}", soft_wrap=True
        )
