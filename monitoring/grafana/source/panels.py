"""Panels of the house: what each kind of panel looks like is said here once.

All kinds take a title, a description (what it shows, in a person's words), queries, a Grafana unit, and a width and
height on the grid of 24 columns. `alerts` names the alerts that the panel explains: it links to their runbooks.
`limit` is where its values turn bad.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, stat, table, text, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus as prometheus_builders
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.grafana.source import rules
from monitoring.grafana.source.limits import BLUE, GREEN, Limit

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="prometheus")


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        legend: Name of each series, with `{{label}}` for a label; the column's title in a table.
        unit: Unit of this column, where a table mixes units.
        limit: Colour steps of this column.
    """

    expression: str
    legend: str = ""
    unit: str = ""
    limit: Limit | None = None


Panel = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel | text.Panel


def graph(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    width: int = 8,
    height: int = 8,
    alerts: Sequence[str] = (),
    limit: Limit | None = None,
    stacked: bool = False,
    from_zero: bool = True,
    top: float | None = None,
    colours: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Makes a panel of lines over time; `limit` is a dashed line.

    `stacked` puts areas on top of one another, for parts of a whole. The axis starts at 0 if `from_zero`, and ends
    at `top` if given. `colours` are fixed colours of series, by legend.
    """
    panel = timeseries.Panel()
    _dress(panel, title, description, width, height, alerts)
    panel.unit(unit).line_width(1).fill_opacity(50 if stacked else 4)
    panel.show_points(common.VisibilityMode.NEVER).span_nulls(False)
    panel.legend(_legend(queries)).tooltip(_tooltip())
    if from_zero:
        panel.min(0)
    if top is not None:
        panel.max(top)
    if unit in {"none", "short"}:
        panel.axis_soft_max(1)  # nothing but zeros: not an axis of hundredths
    if stacked:
        mode = common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
        panel.stacking(mode)
    if limit is not None:
        panel.thresholds(_steps(limit.steps()))
        style = common_builders.GraphThresholdsStyleConfig()
        panel.thresholds_style(style.mode(common.GraphThresholdsStyleMode.DASHED))
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_property("color", {"mode": "fixed", "fixedColor": colour})])
    for query in _targets(queries):
        panel.with_target(query)
    return panel


def number(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    width: int = 4,
    height: int = 4,
    alerts: Sequence[str] = (),
    limit: Limit | None = None,
    words: Mapping[int, tuple[str, str]] | None = None,
    decimals: int | None = None,
    names: bool = False,
) -> stat.Panel:
    """Makes a panel of big numbers, coloured by `limit`.

    `words` are shown in place of numbers: text and colour. With `names` the series' names are shown and not their
    values: for `_info` metrics.
    """
    panel = stat.Panel()
    _dress(panel, title, description, width, height, alerts)
    panel.unit(unit).graph_mode(common.BigValueGraphMode.NONE)
    panel.color_mode(common.BigValueColorMode.VALUE)
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    if names:
        panel.text_mode(common.BigValueTextMode.NAME)
    elif len(queries) > 1 or "{{" in queries[0].legend:
        panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME)
    else:
        panel.text_mode(common.BigValueTextMode.VALUE)
    if decimals is not None:
        panel.decimals(decimals)
    panel.thresholds(_steps(limit.steps() if limit else [models.Threshold(color=BLUE)]))
    if words:
        options = {
            str(value): models.ValueMappingResult(text=shown, color=colour, index=place)
            for place, (value, (shown, colour)) in enumerate(words.items())
        }
        panel.mappings([models.ValueMap(options=options)])
    for query in _targets(queries, instant=True):
        panel.with_target(query)
    return panel


def bars(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 8,
    height: int = 8,
    top: float | None = None,
    alerts: Sequence[str] = (),
    limit: Limit | None = None,
) -> bargauge.Panel:
    """Makes horizontal bars, one per series, as they are now."""
    panel = bargauge.Panel()
    _dress(panel, title, description, width, height, alerts)
    panel.unit(unit).min(0).orientation(common.VizOrientation.HORIZONTAL)
    panel.display_mode(common.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    if top is not None:
        panel.max(top)
    panel.thresholds(_steps(limit.steps() if limit else [models.Threshold(color=BLUE)]))
    for target in _targets([query], instant=True):
        panel.with_target(target)
    return panel


def rows(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    labels: Mapping[str, str],
    width: int = 12,
    height: int = 8,
    alerts: Sequence[str] = (),
) -> table.Panel:
    """Makes a table: a row per set of labels, a column per query.

    `labels` are the titles of the label columns, by label. Queries must give these labels and no other.
    """
    panel = table.Panel()
    _dress(panel, title, description, width, height, alerts)
    panel.thresholds(_steps([models.Threshold(color=GREEN)]))
    panel.align(common.FieldTextAlignment.AUTO).inspect(False)
    # Grafana 12's schema asks for these three.
    panel.show_header(True).frame_index(0).cell_options(common.TableAutoCellOptions())
    values = {_column(place, queries): query.legend for place, query in enumerate(queries)}
    order = {name: place for place, name in enumerate((*labels, *values))}
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": order,
                "renameByName": {**labels, **values},
            },
        )
    )
    for query in queries:
        if query.unit or query.limit:
            panel.override_by_name(query.legend, _column_properties(query))
    for target in _targets(queries, instant=True):
        panel.with_target(target.format(PromQueryFormat.TABLE))
    return panel


def _column(place: int, queries: Sequence[Query]) -> str:
    return f"Value #{_ref(place)}" if len(queries) > 1 else "Value"


def _column_properties(query: Query) -> list[models.DynamicConfigValue]:
    properties = [_property("unit", query.unit)] if query.unit else []
    if query.limit:
        steps = [{"value": step.value, "color": step.color} for step in query.limit.steps()]
        properties.append(_property("thresholds", {"mode": "absolute", "steps": steps}))
        properties.append(_property("custom.cellOptions", {"type": "color-text"}))
    return properties


def _property(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)


def _ref(place: int) -> str:
    return chr(ord("A") + place)


def _targets(
    queries: Sequence[Query], *, instant: bool = False
) -> list[prometheus_builders.Dataquery]:
    made = []
    for place, query in enumerate(queries):
        target = prometheus_builders.Dataquery().expr(query.expression).ref_id(_ref(place))
        target.datasource(DATASOURCE).legend_format(query.legend or "__auto")
        made.append(target.instant() if instant else target.range())
    return made


def _steps(steps: list[models.Threshold]) -> dashboards.ThresholdsConfig:
    return dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _legend(queries: Sequence[Query]) -> common_builders.VizLegendOptions:
    legend = common_builders.VizLegendOptions().show_legend(True)
    legend.display_mode(common.LegendDisplayMode.LIST)
    return legend.placement(common.LegendPlacement.BOTTOM)


def _tooltip() -> common_builders.VizTooltipOptions:
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    return tooltip.sort(common.SortOrder.DESCENDING)


def _dress(
    panel: timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel,
    title: str,
    description: str,
    width: int,
    height: int,
    alerts: Sequence[str],
) -> None:
    """Gives what every panel has: title, what it shows, size, source and the runbooks of its alerts."""
    panel.title(title).description(description).span(width).height(height).datasource(DATASOURCE)
    panel.links([runbook_link(name) for name in alerts])


def runbook_link(alert: str) -> dashboards.DashboardLink:
    """Links to an alert's runbook."""
    return dashboards.DashboardLink(f"Runbook: {alert}").url(runbook_address(alert))


def runbook_address(alert: str) -> str:
    """Gives the address of an alert's runbook: a panel of the dashboard that shows them all, after its first."""
    place = list(rules.alerts()).index(alert) + 2
    return f"/d/product-classifier-runbooks?viewPanel={place}"
