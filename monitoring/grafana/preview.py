"""Pictures of the dashboards without Grafana: every panel's queries run against a Prometheus, one PNG per dashboard.

    python -m monitoring.grafana.preview --prometheus http://127.0.0.1:9090 --out previews

From the repository's root, or `make dashboards-preview PROMETHEUS_URL=... OUT=...`. A panel without data says so.
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from monitoring.grafana.panel_queries import QueryError, Window, ask, ask_panel
from monitoring.grafana.preview_drawing import Picture

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"
NAMES = ("service", "model", "pipeline", "host")
logger = logging.getLogger(__name__)


def draw(dashboard: dict[str, Any], prometheus: str, window: Window, out: Path) -> None:
    """Draws one dashboard into a PNG file.

    Raises:
        QueryError: A query failed.
    """
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    ends = "%d %b %Y %H:%M UTC"
    note = " to ".join(time.strftime(ends, time.gmtime(at)) for at in (window.start, window.end))
    picture = Picture(dashboard["title"], note, lines, window)
    marks = marked_times(dashboard, prometheus, window)
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            picture.heading(panel)
        else:
            picture.panel(panel, ask_panel(prometheus, panel, window), marks)
    picture.figure.savefig(out, facecolor=picture.figure.get_facecolor())


def marked_times(
    dashboard: dict[str, Any], prometheus: str, window: Window
) -> list[tuple[float, str]]:
    """Gives the times that a dashboard's annotations mark, with their colour.

    Raises:
        QueryError: A query failed.
    """
    marks: list[tuple[float, str]] = []
    for annotation in dashboard["annotations"]["list"]:
        target = {"expr": annotation["expr"], "refId": "marks"}
        for series in ask(prometheus, target, window):
            if annotation.get("useValueForTime"):
                times = {value / 1000 for _, value in series.points}
            else:
                times = {series.points[0][0]}
            marks += [
                (at, annotation["iconColor"]) for at in times if window.start <= at <= window.end
            ]
    return marks


def main() -> None:
    """Draws all dashboards; exit code 1 where Prometheus can't be asked."""
    parser = argparse.ArgumentParser(description="Draws the dashboards from a Prometheus.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument(
        "--out", type=Path, default=Path("previews"), help="folder for the pictures"
    )
    parser.add_argument("--minutes", type=float, default=30, help="how much time to show")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    now = time.time()
    window = Window(now - 60 * arguments.minutes, now)
    for name in NAMES:
        dashboard = json.loads((DASHBOARDS / f"{name}.json").read_text())
        target = arguments.out / f"{name}.png"
        try:
            draw(dashboard, arguments.prometheus, window, target)
        except QueryError as error:
            sys.exit(f"No preview of {name}: {error}")
        sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    main()
