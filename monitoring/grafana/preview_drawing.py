"""Draws panels with matplotlib, laid out as in the dashboard: what a person would see, without Grafana."""

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from monitoring.grafana.panel_queries import Series, Window
from monitoring.grafana.preview_lines import draw_lines, series_colours
from monitoring.grafana.preview_looks import COLOURS, FAINT, INK, PAPER, step_colour
from monitoring.grafana.preview_table import Table
from monitoring.grafana.preview_units import shown

COLUMN, LINE, GAP = (
    0.70,
    0.40,
    0.05,
)  # inches: a column and a line of the grid, half of the space between panels
TITLE, HEAD = 0.28, 0.6  # inches: above each panel, above the dashboard
LEGEND_LINE = 0.17
GRID_COLUMNS = 24


@dataclass(frozen=True)
class Box:
    """A rectangle of the picture in inches from the lower left."""

    left: float
    bottom: float
    width: float
    height: float


class Picture:
    """One dashboard's picture."""

    def __init__(self, title: str, note: str, lines: int, window: Window) -> None:
        self.height = HEAD + lines * LINE
        self.width = GRID_COLUMNS * COLUMN
        self.window = window
        self.figure = Figure(figsize=(self.width, self.height), dpi=100, facecolor=PAPER)
        self._text(0.1, self.height - 0.28, title, size=15, weight="bold", va="center")
        self._text(
            self.width - 0.1, self.height - 0.28, note, size=9, color=FAINT, ha="right", va="center"
        )

    def heading(self, row: dict[str, Any]) -> None:
        """Draws the title of a row."""
        box = self._box(row["gridPos"])
        self._text(
            box.left + 0.05,
            box.bottom + box.height / 2,
            row["title"],
            size=11,
            weight="bold",
            va="center",
        )

    def panel(
        self, panel: dict[str, Any], series: list[Series], marks: list[tuple[float, str]]
    ) -> None:
        """Draws one panel with its data.

        Args:
            panel: As in the dashboard's JSON.
            series: Answers to its queries.
            marks: Times of deployments and alerts, with their colour, for panels over time.
        """
        box = self._box(panel["gridPos"])
        self._frame(box, panel["title"])
        inner = Box(box.left + 0.1, box.bottom + 0.06, box.width - 0.2, box.height - TITLE - 0.08)
        if not series:
            self._middle(inner, "No data", FAINT, 12)
        elif panel["type"] == "timeseries":
            self._lines(panel, series, inner, marks)
        elif panel["type"] == "stat":
            self._numbers(panel, series, inner)
        elif panel["type"] == "table":
            self._table(panel, series, inner)
        else:
            self._bars(panel, series, inner)

    def _box(self, place: dict[str, int]) -> Box:
        left, width = place["x"] * COLUMN, place["w"] * COLUMN
        height = place["h"] * LINE
        bottom = self.height - HEAD - place["y"] * LINE - height
        return Box(left + GAP, bottom + GAP, width - 2 * GAP, height - 2 * GAP)

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        style.setdefault("color", INK)
        self.figure.text(x / self.width, y / self.height, text.replace("$", r"\$"), **style)

    def _middle(self, box: Box, text: str, colour: str, size: float) -> None:
        x, y = box.left + box.width / 2, box.bottom + box.height / 2
        self._text(x, y, text, color=colour, size=size, ha="center", va="center")

    def _frame(self, box: Box, title: str) -> None:
        corner = (box.left / self.width, box.bottom / self.height)
        size = (box.width / self.width, box.height / self.height)
        patch = FancyBboxPatch(
            corner,
            *size,
            boxstyle="square,pad=0",
            facecolor="white",
            edgecolor="#d5d9e0",
            transform=self.figure.transFigure,
            linewidth=0.8,
            zorder=-1,
        )
        self.figure.add_artist(patch)
        self._text(
            box.left + 0.1,
            box.bottom + box.height - 0.17,
            title,
            size=9.5,
            va="center",
        )

    def _axes(self, box: Box) -> Axes:
        place = (
            box.left / self.width,
            box.bottom / self.height,
            box.width / self.width,
            box.height / self.height,
        )
        return self.figure.add_axes(place)

    def _lines(
        self, panel: dict[str, Any], series: list[Series], box: Box, marks: list[tuple[float, str]]
    ) -> None:
        columns = _legend_columns(series, box.width)
        legend_lines = min(math.ceil(len(series) / columns), 4)
        below = 0.28 + legend_lines * LEGEND_LINE
        axes = self._axes(
            Box(box.left + 0.68, box.bottom + below, box.width - 0.78, box.height - below - 0.04)
        )
        draw_lines(axes, panel, series, marks, self.window)
        colours = series_colours(panel, series)
        for place, one in enumerate(series[: columns * legend_lines]):
            column, line = place % columns, place // columns
            x = box.left + 0.1 + column * (box.width - 0.1) / columns
            y = box.bottom + (legend_lines - line - 0.5) * LEGEND_LINE
            name = (
                one.name
                if place + 1 < columns * legend_lines or place + 1 == len(series)
                else f"{one.name} …"
            )
            self._text(x, y, "▬", size=7, color=colours[place], va="center")
            self._text(x + 0.14, y, name, size=7.5, va="center")

    def _numbers(self, panel: dict[str, Any], series: list[Series], box: Box) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        mode = panel["options"]["textMode"]
        wide = box.width >= box.height
        across, down = (len(series), 1) if wide else (1, len(series))
        for place, one in enumerate(series):
            cell = Box(
                box.left + (place if wide else 0) * box.width / across,
                box.bottom + (0 if wide else down - 1 - place) * box.height / down,
                box.width / across,
                box.height / down,
            )
            text, colour = _big(defaults, one, mode)
            room = cell.height - (0.25 if mode == "value_and_name" else 0)
            size = min(40.0, 60 * room * 0.6, 72 * (cell.width - 0.3) / (0.62 * max(len(text), 2)))
            self._middle(Box(cell.left, cell.bottom, cell.width, room), text, colour, size)
            if mode == "value_and_name":
                self._middle(
                    Box(cell.left, cell.bottom + room, cell.width, 0.25), one.name, FAINT, 9
                )

    def _bars(self, panel: dict[str, Any], series: list[Series], box: Box) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        top = defaults.get("max") or max((one.last for one in series), default=0) or 1
        names = min(0.075 * max(len(one.name) for one in series) + 0.1, box.width * 0.4)
        line = min(box.height / len(series), 0.4)
        for place, one in enumerate(series):
            y = box.bottom + box.height - (place + 0.5) * line
            room = box.width - names - 0.8
            length = max(room * min(max(one.last, 0) / top, 1), 0.01)
            axes_box = Box(box.left + names, y - line * 0.35, length, line * 0.7)
            colour = step_colour(defaults, one.last)
            bar = FancyBboxPatch(
                (axes_box.left / self.width, axes_box.bottom / self.height),
                axes_box.width / self.width,
                axes_box.height / self.height,
                boxstyle="square,pad=0",
                facecolor=colour,
                edgecolor="none",
                transform=self.figure.transFigure,
            )
            self.figure.add_artist(bar)
            self._text(box.left + names - 0.08, y, one.name, size=8, ha="right", va="center")
            value = shown(one.last, defaults["unit"], defaults.get("decimals"))
            self._text(
                box.left + names + length + 0.08, y, value, size=8, va="center", color=colour
            )

    def _table(self, panel: dict[str, Any], series: list[Series], box: Box) -> None:
        table = Table(panel, series)
        line = 0.24
        widths = table.widths(box.width)
        fitting = int(box.height / line) - 1
        rows = table.lines[:fitting]
        if len(table.lines) > fitting:
            rows = [
                *table.lines[: fitting - 1],
                [(f"… {len(table.lines) - fitting + 1} more rows", FAINT)],
            ]
        header = [(name, FAINT) for name in table.header]
        for number, cells in enumerate([header, *rows]):
            y, left = box.bottom + box.height - (number + 0.5) * line, box.left
            for (text, colour), width in zip(cells, widths, strict=False):
                self._text(
                    left,
                    y,
                    text,
                    size=8,
                    color=colour,
                    va="center",
                    weight="normal" if number else "bold",
                )
                left += width


def _big(defaults: dict[str, Any], one: Series, mode: str) -> tuple[str, str]:
    """Gives the text of a big number and its colour."""
    for mapping in defaults.get("mappings", []):
        if f"{one.last:.0f}" in mapping["options"]:
            result = mapping["options"][f"{one.last:.0f}"]
            return result["text"], COLOURS[result["color"]]
    if mode == "name":
        return one.name, step_colour(defaults, one.last)
    text = shown(one.last, defaults["unit"], defaults.get("decimals"))
    return text, step_colour(defaults, one.last)


def _legend_columns(series: list[Series], width: float) -> int:
    longest = max(len(one.name) for one in series)
    return max(1, min(len(series), int(width / (0.068 * longest + 0.35))))
