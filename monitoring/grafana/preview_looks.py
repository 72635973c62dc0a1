"""Colours of the preview, and which of them a value has."""

from typing import Any

COLOURS = {
    "green": "#299c46",
    "orange": "#e8750a",
    "red": "#d62f3f",
    "blue": "#2f6fd0",
    "purple": "#8f3bb8",
}
CYCLE = (
    *("#2f6fd0", "#e8750a", "#299c46", "#8f3bb8", "#c69500", "#d62f3f"),
    *("#0e9aa7", "#7a5c3e", "#e377c2", "#6b7280", "#84a729", "#1b3a6b"),
)
INK, FAINT, PAPER = "#1f2430", "#6b7280", "#eef0f3"


def step_colour(looks: dict[str, Any], value: float) -> str:
    """Gives the colour that a panel's or column's thresholds give a value."""
    steps = looks["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1] if reached else steps[0]["color"]]
