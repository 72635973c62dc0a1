"""Lines over time with their axes."""

import datetime
import itertools
from typing import Any

from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from monitoring.grafana.panel_queries import Series, Window
from monitoring.grafana.preview_looks import COLOURS, CYCLE, FAINT
from monitoring.grafana.preview_units import shown


def draw_lines(
    axes: Axes,
    panel: dict[str, Any],
    series: list[Series],
    marks: list[tuple[float, str]],
    window: Window,
) -> None:
    """Draws a panel's series, its limits, and marks for deployments and alerts."""
    _draw_series(axes, panel, series, series_colours(panel, series))
    for time, colour in marks:
        axes.axvline(_day(time), color=COLOURS[colour], linestyle=(0, (2, 2)), linewidth=1)
    _draw_limit(axes, panel)
    _dress_axes(axes, panel, window)


def series_colours(panel: dict[str, Any], series: list[Series]) -> list[str]:
    """Gives each series its colour: the panel's own choice, else the next of the cycle."""
    fixed = {
        override["matcher"]["options"]: COLOURS[one["value"]["fixedColor"]]
        for override in panel["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "color"
    }
    return [fixed.get(one.name, CYCLE[place % len(CYCLE)]) for place, one in enumerate(series)]


def _draw_series(
    axes: Axes, panel: dict[str, Any], series: list[Series], colours: list[str]
) -> None:
    custom = panel["fieldConfig"]["defaults"]["custom"]
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    base: dict[float, float] = {}
    for one, colour in zip(series, colours, strict=True):
        times = [time for time, _ in one.points]
        low = [base.get(time, 0.0) if stacked else 0.0 for time in times]
        values = [value + under for (_, value), under in zip(one.points, low, strict=True)]
        days = [_day(time) for time in times]
        axes.plot(
            days,
            values,
            color=colour,
            linewidth=0.6 if stacked else 1.2,
            marker="." if len(days) == 1 else "",
        )
        if stacked or "min" in panel["fieldConfig"]["defaults"]:
            alpha = 0.4 if stacked else 0.05
            axes.fill_between(days, low, values, color=colour, alpha=alpha, linewidth=0)
        base |= dict(zip(times, values, strict=True)) if stacked else {}


def _draw_limit(axes: Axes, panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if defaults.get("custom", {}).get("thresholdsStyle", {}).get("mode") != "dashed":
        return
    for low, high in itertools.pairwise(defaults["thresholds"]["steps"]):
        colour = low["color"] if high["color"] == "green" else high["color"]
        axes.axhline(high["value"], color=COLOURS[colour], linestyle="--", linewidth=1.1)


def _dress_axes(axes: Axes, panel: dict[str, Any], window: Window) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    axes.set_xlim(_day(window.start), _day(window.end))
    low, high = axes.get_ylim()
    high = max(high, defaults["custom"].get("axisSoftMax", high))
    axes.set_ylim(defaults.get("min", low), defaults.get("max", high))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=7))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.tick_params(labelsize=7.5, colors=FAINT, length=0)
    axes.grid(visible=True, color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _day(time: float) -> float:
    moment = datetime.datetime.fromtimestamp(time, tz=datetime.UTC)
    return float(dates.date2num(moment))
