"""The rows and columns of a table panel."""

from typing import Any

from monitoring.grafana.panel_queries import Series
from monitoring.grafana.preview_looks import INK, step_colour
from monitoring.grafana.preview_units import shown


class Table:
    """A table panel as `merge` and `organize` of Grafana make it: a row per set of labels, a column per query."""

    def __init__(self, panel: dict[str, Any], series: list[Series]) -> None:
        options = next(
            one["options"] for one in panel["transformations"] if one["id"] == "organize"
        )
        names = options["renameByName"]
        columns = sorted(options["indexByName"], key=options["indexByName"].__getitem__)
        labels = [name for name in columns if not name.startswith("Value")]
        values = [name for name in columns if name.startswith("Value")]
        refs = [name.removeprefix("Value").removeprefix(" #") or "A" for name in values]
        cells: dict[tuple[str, ...], dict[str, float]] = {}
        for one in series:
            key = tuple(one.labels.get(label, "") for label in labels)
            cells.setdefault(key, {})[one.ref] = one.last
        self.header = [names[name] for name in columns]
        looks = [_column_looks(panel, names[name]) for name in values]
        self.lines = [
            [
                *((text, INK) for text in key),
                *(_cell(row.get(ref), look) for ref, look in zip(refs, looks, strict=True)),
            ]
            for key, row in sorted(cells.items())
        ]

    def widths(self, room: float) -> list[float]:
        """Shares the room out by the longest text of each column."""
        columns = zip(
            self.header, *([text for text, _ in line] for line in self.lines), strict=True
        )
        needed = [max(len(text) for text in column) + 2 for column in columns]
        return [room * width / sum(needed) for width in needed]


def _column_looks(panel: dict[str, Any], name: str) -> dict[str, Any]:
    looks = {"unit": "short"}
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            looks |= {one["id"]: one["value"] for one in override["properties"]}
    return looks


def _cell(value: float | None, looks: dict[str, Any]) -> tuple[str, str]:
    if value is None:
        return "", INK
    return shown(value, looks["unit"]), step_colour(looks, value) if "thresholds" in looks else INK
