"""A dashboard around its panels: identity, rows, links to its neighbours, marks for deployments and alerts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from monitoring.grafana.source.panels import DATASOURCE, Panel

TAG = "product-classifier"


class _Marks(models.AnnotationQuery):
    """A Prometheus annotation: Grafana reads these texts, the SDK's class does not know them."""

    def __init__(self, texts: Mapping[str, str | bool], **kwargs: Any) -> None:
        super().__init__(datasource=DATASOURCE, hide=False, built_in=0, **kwargs)
        self.texts = texts

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self.texts}


class _Built(Builder[models.AnnotationQuery]):
    """An annotation as the dashboard's builder wants it."""

    def __init__(self, marks: _Marks) -> None:
        self._marks = marks

    def build(self) -> _Marks:
        return self._marks


@dataclass(frozen=True)
class Row:
    """A row of panels, whose widths add up to 24 per line; without a title no heading is drawn."""

    title: str
    panels: Sequence[Panel]


def assemble(
    name: str, title: str, description: str, rows: Sequence[Row], *, span: str, refresh: str = "30s"
) -> dict[str, Any]:
    """Builds a dashboard's JSON as Grafana provisions it.

    Its uid is `product-classifier-<name>`; `span` is the time that it shows at first, such as `now-1h`.
    """
    board = dashboards.Dashboard(title).uid(f"product-classifier-{name}").description(description)
    board.tags([TAG]).timezone("browser").time(span, "now").refresh(refresh).readonly().variables(
        []
    )
    board.tooltip(models.DashboardCursorSync.CROSSHAIR)
    board.link(_neighbours())
    for mark in (_bundles(), _builds(), _alerts()):
        board.annotation(_Built(mark))
    number = 0
    for row in rows:
        if row.title:
            number += 1
            board.with_row(dashboards.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            board.with_panel(panel.id(number))
    return {"id": None, **plain(board.build())}


def plain(value: Any) -> Any:
    """Turns the SDK's objects into what `json` knows."""
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _neighbours() -> dashboards.DashboardLink:
    link = dashboards.DashboardLink("Dashboards").type(models.DashboardLinkType.DASHBOARDS)
    return link.tags([TAG]).keep_time(True).as_dropdown(False)


def _bundles() -> _Marks:
    """A mark where a bundle went live: the metric's value is the time."""
    texts: dict[str, str | bool] = {
        "titleFormat": "New model",
        "textFormat": "A bundle went live",
        "useValueForTime": True,
    }
    live = "max(product_classifier_bundle_loaded_timestamp_seconds) > 0"
    return _Marks(texts, name="Models", enable=True, icon_color="purple", expr=f"1000 * ({live})")


def _builds() -> _Marks:
    """A mark where another version of a service came up: its build was not there ten minutes ago."""
    build = "product_classifier_build_info"
    expression = (
        f"count by (service, version, commit) ({build})"
        f" unless count by (service, version, commit) ({build} offset 10m)"
        f" and on() (count({build} offset 10m) > 0)"
    )
    texts = {"titleFormat": "{{service}} {{version}}", "textFormat": "Commit {{commit}}"}
    return _Marks(texts, name="Builds", enable=True, icon_color="blue", expr=expression)


def _alerts() -> _Marks:
    texts = {"titleFormat": "{{alertname}}", "textFormat": "{{severity}}", "tagKeys": "severity"}
    firing = 'max by (alertname, severity) (ALERTS{alertstate="firing", severity!="none"})'
    return _Marks(texts, name="Alerts", enable=True, icon_color="red", expr=firing)
